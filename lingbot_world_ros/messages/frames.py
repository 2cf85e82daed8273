# SPDX-License-Identifier: Apache-2.0
"""Frame names and the transforms between them (REP 103, REP 105)."""
from dataclasses import dataclass, fields
from typing import Optional

from geometry_msgs.msg import Transform, TransformStamped
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import CameraSpec, T_LINK_OPTICAL
from lingbot_world_ros.messages.stamps import set_stamp
import numpy as np
from tf2_msgs.msg import TFMessage

OPTICAL_ENDINGS = ('_optical', '_optical_frame')  # of links whose z is where a camera looks


@dataclass(frozen=True)
class FrameNames:
    """
    Names of the tree ``odom -> base_link -> camera_link -> camera_optical_frame``.

    ``odom`` is where the robot was at the last reset, ``base`` on the floor under the base's
    centre (both x forward, y left, z up); ``camera`` has x where the camera looks, ``optical`` is
    there too with x right, y down, z where it looks.
    """

    odom: str = 'odom'
    base: str = 'base_link'
    camera: str = 'camera_link'
    optical: str = 'camera_optical_frame'

    def __post_init__(self):
        """Refuse names of which no tree can be made."""
        names = [getattr(self, f.name) for f in fields(self)]
        bad = [name for name in names if not name or name.startswith('/')]
        if bad or len(set(names)) < len(names):
            raise SpecError(f'frames {", ".join(names)} must be four different names that are '
                            'not empty and do not begin with a slash.')

    def prefixed(self, prefix: str) -> 'FrameNames':
        """Put a text before every name, for several robots in one tree."""
        return FrameNames(*(prefix + getattr(self, f.name) for f in fields(self)))


def quat_from_matrix(R: np.ndarray) -> np.ndarray:
    """
    Turn a rotation matrix into a quaternion.

    :param R: (3, 3) rotation
    :return: (4,) float64 x, y, z, w with w >= 0
    """
    # The largest of the four squared components is the safe one to divide by.
    trace = np.trace(R)
    squares = np.array([*(1.0 + 2.0 * np.diag(R) - trace), 1.0 + trace]) / 4.0
    i = int(np.argmax(squares))
    q = np.empty(4)
    if i == 3:
        q[:3] = [R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]
    else:
        j, k = (i + 1) % 3, (i + 2) % 3
        q[j], q[k], q[3] = R[j, i] + R[i, j], R[k, i] + R[i, k], R[k, j] - R[j, k]
    q /= 4.0 * np.sqrt(squares[i])
    q[i] = np.sqrt(squares[i])
    return q if q[3] >= 0.0 else -q


def matrix_from_quat(quat_xyzw) -> np.ndarray:
    """
    Turn a quaternion into a rotation matrix.

    :param quat_xyzw: (4,) of any length but zero
    :return: (3, 3) float64
    """
    x, y, z, w = np.asarray(quat_xyzw, np.float64) / np.linalg.norm(quat_xyzw)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])


def transform_to_msg(T: np.ndarray, out: Optional[Transform] = None) -> Transform:
    """
    Write a pose.

    :param T: (4, 4) child in parent, metres
    :param out: message to fill again; None makes one
    :return: the message
    """
    out = out or Transform()
    move, turn = out.translation, out.rotation
    move.x, move.y, move.z = T[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quat_from_matrix(T[:3, :3]).tolist()
    return out


def transform_from_msg(msg: Transform) -> np.ndarray:
    """Return a Transform as (4, 4) float64."""
    T = np.eye(4)
    turn = msg.rotation
    T[:3, :3] = matrix_from_quat([turn.x, turn.y, turn.z, turn.w])
    T[:3, 3] = [msg.translation.x, msg.translation.y, msg.translation.z]
    return T


def pose_since(start_pose, pose) -> np.ndarray:
    """
    Express a planar pose in the frame of another.

    :param start_pose: (3,) x, y [m], yaw [rad]
    :param pose: (3,) in the same frame as ``start_pose``
    :return: (3,) ``pose`` seen from ``start_pose``, yaw not wrapped
    """
    c, s = np.cos(start_pose[2]), np.sin(start_pose[2])
    dx, dy = pose[0] - start_pose[0], pose[1] - start_pose[1]
    return np.array([c * dx + s * dy, c * dy - s * dx, pose[2] - start_pose[2]])


def base_tf_to_msg(pose_odom, stamp_ns: int, frames: FrameNames,
                   out: Optional[TFMessage] = None) -> TFMessage:
    """
    Write the transform ``odom -> base_link``.

    :param pose_odom: (3,) x, y [m], yaw [rad] of base_link in odom
    :param stamp_ns: sim time
    :param frames: frame names
    :param out: message to fill again; None makes one
    :return: the message
    """
    if out is None:
        link = TransformStamped(child_frame_id=frames.base)
        link.header.frame_id = frames.odom
        out = TFMessage(transforms=[link])
    link = out.transforms[0]
    set_stamp(link.header.stamp, stamp_ns)
    move, turn = link.transform.translation, link.transform.rotation
    move.x, move.y = float(pose_odom[0]), float(pose_odom[1])
    turn.z, turn.w = float(np.sin(0.5 * pose_odom[2])), float(np.cos(0.5 * pose_odom[2]))
    return out


def optical_in_link(link: str) -> np.ndarray:
    """
    Say how a camera sits on a link: at its origin, looking along x, or along z if it is optical.

    :param link: name of the link
    :return: (4, 4) optical frame in the link
    """
    return np.eye(4) if link.endswith(OPTICAL_ENDINGS) else T_LINK_OPTICAL


def static_tf_to_msg(camera: CameraSpec, stamp_ns: int, frames: FrameNames,
                     link: str = '') -> TFMessage:
    """
    Write ``base_link -> camera_link -> camera_optical_frame``.

    :param camera: where the camera is on the robot
    :param stamp_ns: sim time
    :param frames: frame names
    :param link: of the robot, which carries the camera instead; only what is below it is written
    :return: the message, to be latched
    """
    chain = ((frames.base, frames.camera, camera.T_base_camera_link),
             (frames.camera, frames.optical, T_LINK_OPTICAL))
    if link:
        chain = ((link, frames.optical, optical_in_link(link)),)
    links = []
    for parent, child, T in chain:
        if parent == child:  # whoever publishes the robot's links publishes this one
            continue
        link_msg = TransformStamped(child_frame_id=child, transform=transform_to_msg(T))
        link_msg.header.frame_id = parent
        set_stamp(link_msg.header.stamp, stamp_ns)
        links.append(link_msg)
    return TFMessage(transforms=links)
