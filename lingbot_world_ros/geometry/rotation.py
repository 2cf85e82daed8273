# SPDX-License-Identifier: Apache-2.0
"""
Rotations: matrices, vectors (axis times angle), quaternions, roll pitch yaw. NumPy only.

A rotation is a (3, 3) matrix that takes vectors of the turned frame to the frame it is turned in.
Quaternions are x, y, z, w, as ROS has them. Angles are counter-clockwise about their axis, rad.
"""
from math import atan2, sqrt
from typing import Sequence, Tuple

import numpy as np


def rotation_from_vector(vector: np.ndarray) -> np.ndarray:
    """
    Return rotations about the axes and by the lengths of vectors (Rodrigues).

    :param vector: (..., 3) rad, of any length
    :return: (..., 3, 3) float64
    """
    vector = np.asarray(vector, np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    half = np.sinc(0.5 * angle / np.pi)  # sin(angle / 2) / (angle / 2), 1 where angle is 0
    return np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * half ** 2 * cross @ cross


def vector_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """
    Return axis times angle, exact at any angle.

    :param rotation: (..., 3, 3), proper rotations
    :return: (..., 3) float64, rad, of length pi at most; at half a turn either of both axes
    """
    quat_xyzw = quat_from_rotation(np.asarray(rotation, np.float64))
    axis, w = quat_xyzw[..., :3], quat_xyzw[..., 3:]
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, w)
    return axis * np.divide(angle, sine, out=np.full_like(sine, 2.0), where=sine > 0.0)


def rotation_from_quat(quat_xyzw: Sequence[float]) -> np.ndarray:
    """
    Turn a quaternion into a rotation.

    :param quat_xyzw: (4,) of any length but zero
    :return: (3, 3) float64
    """
    x, y, z, w = np.asarray(quat_xyzw, np.float64) / np.linalg.norm(quat_xyzw)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])


def quat_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """
    Turn rotations into quaternions.

    :param rotation: (..., 3, 3)
    :return: (..., 4) float64 x, y, z, w with w >= 0
    """
    rotation = np.asarray(rotation, np.float64)
    quats = [_quat(*numbers) for numbers in rotation.reshape(-1, 9).tolist()]
    return np.array(quats).reshape(*rotation.shape[:-2], 4)


def _quat(a: float, b: float, c: float, d: float, e: float, f: float, g: float, h: float,
          i: float) -> Tuple[float, ...]:
    """Turn one rotation, row by row, into a quaternion; plain numbers are the fastest here."""
    trace = a + e + i
    squares = [1.0 + 2.0 * a - trace, 1.0 + 2.0 * e - trace, 1.0 + 2.0 * i - trace, 1.0 + trace]
    best = squares.index(max(squares))  # the largest component is the safe one to divide by
    largest = sqrt(squares[best] / 4.0)
    products = ((0.0, d + b, g + c, h - f), (d + b, 0.0, h + f, c - g),
                (g + c, h + f, 0.0, d - b), (h - f, c - g, d - b, 0.0))[best]
    quat = [product / (4.0 * largest) for product in products]
    quat[best] = largest
    return tuple(quat) if quat[3] >= 0.0 else tuple(-component for component in quat)


def rotation_from_rpy(rpy_rad: Sequence[float]) -> np.ndarray:
    """
    Turn about the fixed axes x, y and z, in that order, as URDF says.

    :param rpy_rad: roll, pitch, yaw
    :return: (3, 3) float64
    """
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy_rad), np.sin(rpy_rad)
    return np.array([[cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                     [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                     [-sp, cp * sr, cp * cr]])


def rpy_from_rotation(rotation: np.ndarray) -> Tuple[float, float, float]:
    """
    Roll, pitch and yaw of a rotation, about the fixed axes and in this order.

    :param rotation: (3, 3)
    :return: rad; roll 0 where x looks straight up or down, as roll and yaw are one turn there
    """
    R = rotation
    level = np.hypot(R[0, 0], R[1, 0])
    pitch = np.arctan2(-R[2, 0], level)
    if level > 1e-9:
        roll, yaw = np.arctan2(R[2, 1], R[2, 2]), np.arctan2(R[1, 0], R[0, 0])
    else:
        roll, yaw = 0.0, np.arctan2(-R[0, 1], R[1, 1])
    return float(roll), float(pitch), float(yaw)


def rotation_from_yaw(yaw_rad: np.ndarray) -> np.ndarray:
    """
    Turn about z.

    :param yaw_rad: (...) angles
    :return: (..., 3, 3) float64
    """
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    rotation = np.zeros((*np.shape(yaw_rad), 3, 3))
    rotation[..., 0, 0] = rotation[..., 1, 1] = c
    rotation[..., 1, 0], rotation[..., 0, 1] = s, -s
    rotation[..., 2, 2] = 1.0
    return rotation


def quat_from_yaw(yaw_rad: float) -> Tuple[float, float, float, float]:
    """Return x, y, z, w of a turn about z."""
    return 0.0, 0.0, float(np.sin(0.5 * yaw_rad)), float(np.cos(0.5 * yaw_rad))


def yaw_from_quat(quat_xyzw: Sequence[float]) -> float:
    """
    Return where the turned x axis points, seen from above.

    :param quat_xyzw: x, y, z, w of length 1
    :return: yaw, -pi to pi rad
    """
    x, y, z, w = quat_xyzw
    return atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
