# SPDX-License-Identifier: Apache-2.0
"""Goals, feedback and results of the action Plan <-> plain data."""
from typing import Any, Iterable, Optional, Tuple

from geometry_msgs.msg import PoseStamped
from lingbot_world_ros.action import Plan
from lingbot_world_ros.actions.drive_goal import DriveGoal, DriveProgress
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages.encodings import rgb_from_msg
from lingbot_world_ros.messages.frames import planar_pose_from_msg, planar_pose_to_msg
from lingbot_world_ros.messages.stamps import set_stamp, stamp_to_ns
from nav_msgs.msg import Path
import numpy as np

LEAST_NORM = 0.5  # of a quaternion that is meant to be one


def drive_goal_from_msg(msg: Any) -> DriveGoal:
    """
    Read a goal.

    :param msg: Plan.Goal
    :return: the goal
    :raises SpecError: an image that cannot be read, numbers that are not finite or out of range,
        an orientation that is none
    """
    rgb = rgb_from_msg(msg.image) if msg.image.width else None
    turn = msg.pose.pose.orientation
    quaternion = np.array([turn.x, turn.y, turn.z, turn.w])
    if rgb is None and np.isfinite(quaternion).all() and np.linalg.norm(quaternion) < LEAST_NORM:
        raise SpecError(f'The orientation of the goal is no quaternion: {quaternion.tolist()}; '
                        'w=1 is straight along x.')
    x_m, y_m, yaw_rad = planar_pose_from_msg(msg.pose.pose).tolist()
    return DriveGoal((x_m, y_m, yaw_rad), msg.pose.header.frame_id, rgb, msg.position_tolerance,
                     msg.angle_tolerance, stamp_to_ns(msg.time_limit) * 1e-9)


def drive_feedback_to_msg(progress: DriveProgress, stamp_ns: int, frame_id: str) -> Any:
    """
    Write feedback.

    :param progress: what is told
    :param stamp_ns: sim time at which the plan begins
    :param frame_id: frame of the scene
    :return: Plan.Feedback
    """
    out = Plan.Feedback(
        distance_left=_number(progress.way_m), angle_left=_number(progress.off_rad),
        image_difference=_number(progress.difference), success_predicted=progress.succeeds,
        predicted_deviation=_number(progress.deviation_m), planning_time=progress.seconds)
    out.path = path_to_msg(progress.path, stamp_ns, frame_id)
    return out


def drive_result_to_msg(success: bool, text: str, path: Iterable[np.ndarray], frame_id: str,
                        span_ns: Tuple[int, int]) -> Any:
    """
    Write a result.

    :param success: whether the goal was reached
    :param text: how it ended
    :param path: poses (3,) of the base in the scene frame, x, y [m], yaw [rad]
    :param frame_id: frame of the scene
    :param span_ns: sim time of begin and end
    :return: Plan.Result
    """
    begin_ns, end_ns = span_ns
    out = Plan.Result(success=success, message=text)
    out.path = path_to_msg(path, end_ns, frame_id)
    set_stamp(out.elapsed, max(end_ns - begin_ns, 0))
    return out


def path_to_msg(poses: Iterable[np.ndarray], stamp_ns: int, frame_id: str) -> Path:
    """
    Write poses on the floor.

    :param poses: (3,) each: x, y [m], yaw [rad]
    :param stamp_ns: sim time
    :param frame_id: frame that they are in
    :return: nav_msgs/Path, all poses with the same stamp
    """
    out = Path()
    out.header.frame_id = frame_id
    set_stamp(out.header.stamp, stamp_ns)
    for pose in poses:
        one = PoseStamped(header=out.header)
        planar_pose_to_msg(pose, one.pose)
        out.poses.append(one)
    return out


def _number(value: Optional[float]) -> float:
    return float('nan') if value is None else float(value)
