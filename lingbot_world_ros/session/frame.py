# SPDX-License-Identifier: Apache-2.0
"""One frame of a running world, cut out of an observation, and the digest of all. No ROS."""
from dataclasses import dataclass
import hashlib
from typing import Any, Dict, Optional

from lingbot_world_ros.engines.interface import Observation
import numpy as np


@dataclass(frozen=True)
class Frame:
    """
    One moment of a world, with the sim time it belongs to.

    ``rgb`` (h, w, 3) uint8, None if it was not asked for, ``wrist_rgb`` likewise; ``depth_m``
    (h, w) float32 or None; poses (3,) x, y [m], yaw [rad] in the scene frame, ``start_pose``
    being that of the odometry's origin, and ``object_pose`` (n, 3); ``base_twist`` (3,) v_x, v_y,
    w_z in base_link; joints (J,) rad or m; ``base_pose_cov`` (3, 3) or None; ``uncertainty`` NaN
    where the engine does not estimate it.
    """

    index: int
    stamp_ns: int
    rgb: Optional[np.ndarray]
    depth_m: Optional[np.ndarray]
    start_pose: np.ndarray
    base_pose: np.ndarray
    base_twist: np.ndarray
    base_pose_cov: Optional[np.ndarray]
    joint_position: np.ndarray
    joint_velocity: np.ndarray
    contact: float
    uncertainty: float
    calibrated: bool
    wrist_rgb: Optional[np.ndarray] = None
    object_pose: Optional[np.ndarray] = None


def moment(observation: Observation, t: int = -1) -> Observation:
    """
    Cut one frame out of an observation.

    :param observation: t >= 1
    :param t: which frame
    :return: the same with t = 1; views, nothing is copied
    """
    index = t % observation.base_pose.shape[1]
    cut: Dict[str, Any] = {name: None if value is None else value[:, index:index + 1]
                           for name, value in vars(observation).items() if name != 'extra'}
    return Observation(**cut)


def frame_of(observation: Observation, t: int, index: int, stamp_ns: int,
             start_pose: np.ndarray) -> Frame:
    """
    Cut one frame out of an observation.

    :param observation: of one world (b = 1)
    :param t: which of its frames
    :param index: frames since the reset
    :param stamp_ns: sim time
    :param start_pose: (3,) where odometry counts from, scene frame
    :return: the frame; views, nothing is copied
    """
    def at(values: Optional[np.ndarray], otherwise: Any = None) -> Any:
        return otherwise if values is None else values[0, t]

    estimated = observation.uncertainty is not None
    return Frame(
        index=index, stamp_ns=stamp_ns, rgb=at(observation.rgb),
        depth_m=at(observation.depth_m), start_pose=start_pose,
        base_pose=observation.base_pose[0, t], base_twist=observation.base_twist[0, t],
        base_pose_cov=at(observation.base_pose_cov),
        joint_position=observation.joint_position[0, t],
        joint_velocity=observation.joint_velocity[0, t],
        contact=float(observation.contact[0, t]),
        uncertainty=float(at(observation.uncertainty, np.nan)),
        calibrated=estimated and bool(at(observation.calibrated, True)),
        wrist_rgb=at(observation.wrist_rgb), object_pose=observation.object_pose[0, t])


def frame_digest(before: str, frame: Frame) -> str:
    """
    Add a frame to a running digest.

    :param before: digest so far, '' at the start
    :param frame: picture, base pose and joints count; time does not
    :return: 16 hexadecimal digits
    """
    state = hashlib.blake2b(before.encode(), digest_size=8)
    for values in (frame.rgb, frame.base_pose, frame.joint_position):
        if values is not None:
            state.update(np.ascontiguousarray(values).data)
    return state.hexdigest()
