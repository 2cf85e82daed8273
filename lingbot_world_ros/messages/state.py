# SPDX-License-Identifier: Apache-2.0
"""Joints and base motion -> sensor_msgs, nav_msgs, geometry_msgs, rosgraph_msgs."""
from array import array
from typing import Iterable, Optional, Sequence, Union

from geometry_msgs.msg import PoseWithCovarianceStamped
from lingbot_world_ros.geometry.rotation import rotation_from_yaw
from lingbot_world_ros.messages.frames import FrameNames, planar_pose_to_msg
from lingbot_world_ros.messages.stamps import set_stamp
from nav_msgs.msg import Odometry
import numpy as np
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

PLANAR = np.ix_((0, 1, 5), (0, 1, 5))  # x, y, yaw of x y z roll pitch yaw
FIXED_VARIANCE = 1e-6  # z, roll, pitch: the floor is flat
EXACT_VARIANCE = 1e-6  # a simulator's own state; zero would read as "unknown" to some filters
TWIST_VARIANCE = 1e-3  # (m/s)^2, (rad/s)^2 of a predicted twist


def joint_state_to_msg(names: Iterable[str], position: Iterable[float],
                       velocity: Iterable[float], stamp_ns: int,
                       out: Optional[JointState] = None) -> JointState:
    """
    Write joint positions and velocities.

    :param names: J joint names
    :param position: (J,) rad or m
    :param velocity: (J,) rad/s or m/s
    :param stamp_ns: sim time
    :param out: message to fill again; None makes one
    :return: the message
    """
    out = out or JointState(name=list(names))
    set_stamp(out.header.stamp, stamp_ns)
    out.position = array('d', position)
    out.velocity = array('d', velocity)
    return out


def covariance_in_odom(start_yaw: float, base_pose_cov: Optional[np.ndarray]) -> np.ndarray:
    """
    Spread a planar covariance over a 6x6 one.

    :param start_yaw: yaw of odom in the scene frame, rad
    :param base_pose_cov: (3, 3) of x, y, yaw in the scene frame; None for an exact engine
    :return: (6, 6) float64 of x, y, z, roll, pitch, yaw in odom
    """
    covariance = np.diag(np.full(6, FIXED_VARIANCE))
    if base_pose_cov is None:
        return covariance
    R_odom_scene = rotation_from_yaw(np.asarray(-start_yaw))
    planar = R_odom_scene @ base_pose_cov @ R_odom_scene.T
    covariance[PLANAR] = planar + EXACT_VARIANCE * np.eye(3)
    return covariance


def odometry_to_msg(pose_odom: Iterable[float], base_twist: Union[np.ndarray, Sequence[float]],
                    covariance: np.ndarray, twist_variance: float, stamp_ns: int,
                    frames: FrameNames, out: Optional[Odometry] = None) -> Odometry:
    """
    Write where the base is and how it moves.

    :param pose_odom: (3,) x, y [m], yaw [rad] of base_link in odom
    :param base_twist: (3,) v_x, v_y [m/s], w_z [rad/s] in base_link
    :param covariance: (6, 6) of the pose
    :param twist_variance: of v_x, v_y [(m/s)^2] and w_z [(rad/s)^2]
    :param stamp_ns: sim time
    :param frames: frame names
    :param out: message to fill again; None makes one
    :return: the message
    """
    if out is None:
        out = Odometry(child_frame_id=frames.base)
        out.header.frame_id = frames.odom
    set_stamp(out.header.stamp, stamp_ns)
    planar_pose_to_msg(pose_odom, out.pose.pose)
    twist = out.twist.twist
    out.pose.covariance[:] = covariance.ravel()
    twist.linear.x, twist.linear.y = float(base_twist[0]), float(base_twist[1])
    twist.angular.z = float(base_twist[2])
    out.twist.covariance[::7] = FIXED_VARIANCE
    out.twist.covariance[[0, 7, 35]] = twist_variance
    return out


def pose_to_msg(pose: Iterable[float], covariance: np.ndarray, stamp_ns: int, frame_id: str,
                out: Optional[PoseWithCovarianceStamped] = None) -> PoseWithCovarianceStamped:
    """
    Write where the base is.

    :param pose: (3,) x, y [m], yaw [rad] in a frame
    :param covariance: (6, 6) of it
    :param stamp_ns: sim time
    :param frame_id: that frame
    :param out: message to fill again; None makes one
    :return: the message
    """
    if out is None:
        out = PoseWithCovarianceStamped()
        out.header.frame_id = frame_id
    set_stamp(out.header.stamp, stamp_ns)
    planar_pose_to_msg(pose, out.pose.pose)
    out.pose.covariance = covariance.ravel()
    return out


def clock_to_msg(stamp_ns: int, out: Optional[Clock] = None) -> Clock:
    """
    Write the sim time.

    :param stamp_ns: sim time of the newest frame
    :param out: message to fill again; None makes one
    :return: the message
    """
    out = out or Clock()
    set_stamp(out.clock, stamp_ns)
    return out
