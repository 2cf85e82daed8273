# SPDX-License-Identifier: Apache-2.0
"""
Rigid transforms: SE(3) as (4, 4) matrices. NumPy only.

``T_a_b`` is the pose of frame b in frame a: it takes points of b to a. Metres.
"""
from typing import Optional, Sequence

from lingbot_world_ros.geometry.rotation import rotation_from_rpy, rotation_from_yaw
import numpy as np


def pose(position_m: Sequence[float], rotation: Optional[np.ndarray] = None) -> np.ndarray:
    """
    Put a pose together.

    :param position_m: (3,)
    :param rotation: (3, 3); None turns nothing
    :return: (4, 4) float64
    """
    T = np.eye(4)
    if rotation is not None:
        T[:3, :3] = rotation
    T[:3, 3] = position_m
    return T


def pose_from_rpy(position_m: Sequence[float], rpy_rad: Sequence[float]) -> np.ndarray:
    """
    Put a pose together as URDF writes it.

    :param position_m: (3,)
    :param rpy_rad: (3,) roll, pitch, yaw about the fixed axes
    :return: (4, 4) float64
    """
    return pose(position_m, rotation_from_rpy(rpy_rad))


def pose_from_se2(planar: np.ndarray) -> np.ndarray:
    """
    Lift planar poses.

    :param planar: (..., 3) x, y [m], yaw [rad]
    :return: (..., 4, 4) float64, z 0
    """
    planar = np.asarray(planar)
    T = np.zeros((*planar.shape[:-1], 4, 4))
    T[..., :3, :3] = rotation_from_yaw(planar[..., 2])
    T[..., :2, 3] = planar[..., :2]
    T[..., 3, 3] = 1.0
    return T


def inverse(T: np.ndarray) -> np.ndarray:
    """
    Swap a frame with its parent.

    :param T: (..., 4, 4)
    :return: (..., 4, 4)
    """
    T_inverse = np.zeros_like(T)
    rotation = np.swapaxes(T[..., :3, :3], -1, -2)
    T_inverse[..., :3, :3] = rotation
    T_inverse[..., :3, 3] = -(rotation @ T[..., :3, 3:])[..., 0]
    T_inverse[..., 3, 3] = 1.0
    return T_inverse


def transformed(T_a_b: np.ndarray, points_b: np.ndarray) -> np.ndarray:
    """
    Give points in another frame.

    :param T_a_b: (4, 4)
    :param points_b: (..., 3) in frame b
    :return: (..., 3) the same points in frame a
    """
    return points_b @ T_a_b[:3, :3].T + T_a_b[:3, 3]
