# SPDX-License-Identifier: Apache-2.0
"""Frame names and the transforms between them (REP 103, REP 105)."""
from dataclasses import dataclass, fields
from typing import Iterable, Optional, Sequence, Tuple, Union

from geometry_msgs.msg import Pose, Transform, TransformStamped
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se3
from lingbot_world_ros.geometry.camera import MountedCamera, T_LINK_OPTICAL
from lingbot_world_ros.geometry.rotation import (quat_from_rotation, quat_from_yaw,
                                                 rotation_from_quat, yaw_from_quat)
from lingbot_world_ros.messages.stamps import set_stamp
from lingbot_world_ros.robots.urdf import optical_in_link
import numpy as np
from tf2_msgs.msg import TFMessage


@dataclass(frozen=True)
class FrameNames:
    """
    Names of the tree ``map -> odom -> base_link -> camera_link -> camera_optical_frame``.

    ``map`` is the frame of the scene; ``odom`` is where the robot was at the last reset, ``base``
    on the floor under the base's centre (both x forward, y left, z up); ``camera`` has x where
    the camera looks, ``optical`` is there too with x right, y down, z where it looks. ``imu`` and
    ``footprint`` are other names for ``base``, '' where there are none.
    """

    odom: str = 'odom'
    base: str = 'base_link'
    camera: str = 'camera_link'
    optical: str = 'camera_optical_frame'
    map: str = 'map'
    imu: str = ''
    footprint: str = ''

    def __post_init__(self) -> None:
        """Refuse names of which no tree can be made."""
        names = [getattr(self, f.name) for f in fields(self)
                 if getattr(self, f.name) or f.name not in ('imu', 'footprint')]
        bad = [name for name in names if not name or name.startswith('/')]
        if bad or len(set(names)) < len(names):
            raise SpecError(f'frames {", ".join(names)} must be different names that are not '
                            'empty and do not begin with a slash.')

    def prefixed(self, prefix: str) -> 'FrameNames':
        """Put a text before every name, for several robots in one tree."""
        names = (getattr(self, f.name) for f in fields(self))
        return FrameNames(*(name and prefix + name for name in names))


def transform_to_msg(T: np.ndarray) -> Transform:
    """
    Write a pose.

    :param T: (4, 4) child in parent, metres
    :return: the message
    """
    out = Transform()
    move, turn = out.translation, out.rotation
    move.x, move.y, move.z = T[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quat_from_rotation(T[:3, :3]).tolist()
    return out


def transform_from_msg(msg: Transform) -> np.ndarray:
    """Return a Transform as (4, 4) float64."""
    move, turn = msg.translation, msg.rotation
    return se3.pose((move.x, move.y, move.z),
                    rotation_from_quat([turn.x, turn.y, turn.z, turn.w]))


def planar_pose_to_msg(pose: Iterable[float], out: Pose) -> None:
    """
    Write a pose on the floor.

    :param pose: (3,) x, y [m], yaw [rad]
    :param out: message to fill
    """
    x_m, y_m, yaw_rad = pose
    turn = out.orientation
    out.position.x, out.position.y = float(x_m), float(y_m)
    turn.x, turn.y, turn.z, turn.w = quat_from_yaw(yaw_rad)


def planar_pose_from_msg(msg: Pose) -> np.ndarray:
    """Return where a Pose is on the floor, (3,) float64 x, y [m], yaw [rad]."""
    turn = msg.orientation
    return np.array([msg.position.x, msg.position.y,
                     yaw_from_quat((turn.x, turn.y, turn.z, turn.w))])


def base_tf_to_msg(pose_odom: Union[np.ndarray, Sequence[float]], stamp_ns: int,
                   frames: FrameNames, odom_map: Optional[np.ndarray] = None,
                   out: Optional[TFMessage] = None) -> TFMessage:
    """
    Write the transform ``odom -> base_link`` and, if asked for, ``map -> odom``.

    :param pose_odom: (3,) x, y [m], yaw [rad] of base_link in odom
    :param stamp_ns: sim time
    :param frames: frame names
    :param odom_map: (3,) x, y [m], yaw [rad] of odom in map; None leaves that one out
    :param out: message of the same transforms to fill again; None makes one
    :return: the message
    """
    poses = [pose_odom] if odom_map is None else [pose_odom, odom_map]
    if out is None:
        out = TFMessage(transforms=[TransformStamped(child_frame_id=child) for child in (
            frames.base, frames.odom)[:len(poses)]])
        for link, parent in zip(out.transforms, (frames.odom, frames.map)):
            link.header.frame_id = parent
    for link, pose in zip(out.transforms, poses):
        set_stamp(link.header.stamp, stamp_ns)
        move, turn = link.transform.translation, link.transform.rotation
        move.x, move.y = float(pose[0]), float(pose[1])
        turn.x, turn.y, turn.z, turn.w = quat_from_yaw(pose[2])
    return out


def static_tf_to_msg(camera: MountedCamera, stamp_ns: int, frames: FrameNames,
                     link: str = '') -> TFMessage:
    """
    Write ``base_link -> camera_link -> camera_optical_frame``, and what else is at the base.

    :param camera: where the camera is on the robot
    :param stamp_ns: sim time
    :param frames: frame names
    :param link: of the robot, which carries the camera instead; only what is below it is written
    :return: the message, to be latched
    """
    chain: Tuple[Tuple[str, str, np.ndarray], ...] = (
        (frames.base, frames.camera, camera.T_base_camera_link),
        (frames.camera, frames.optical, T_LINK_OPTICAL))
    if link:
        chain = ((link, frames.optical, optical_in_link(link)),)
    chain += tuple((frames.base, name, np.eye(4)) for name in (frames.footprint, frames.imu)
                   if name)
    links = []
    for parent, child, T in chain:
        if parent == child:  # whoever publishes the robot's links publishes this one
            continue
        link_msg = TransformStamped(child_frame_id=child, transform=transform_to_msg(T))
        link_msg.header.frame_id = parent
        set_stamp(link_msg.header.stamp, stamp_ns)
        links.append(link_msg)
    return TFMessage(transforms=links)
