# SPDX-License-Identifier: Apache-2.0
"""Rotation matrices and rotation vectors (axis times angle), exact at any angle. NumPy only."""
import numpy as np


def rotation_of(vector: np.ndarray) -> np.ndarray:
    """
    Rotation matrices of rotation vectors (Rodrigues).

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


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """
    Rotation vectors of rotation matrices.

    :param rotation: (..., 3, 3), proper rotations
    :return: (..., 3) float64, rad, of length pi at most; at half a turn either of both axes
    """
    w, axis = _quaternion(np.asarray(rotation, np.float64))
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, w)
    return axis * np.divide(angle, sine, out=np.full_like(sine, 2.0), where=sine > 0.0)


def _quaternion(rotation):
    """Return w (..., 1), not negative, and x, y, z (..., 3) of unit quaternions."""
    (a, b, c), (d, e, f), (g, h, i) = np.moveaxis(rotation, (-2, -1), (0, 1))
    products = np.stack([  # 4 q q^T; its row with the largest diagonal is never near zero
        1 + a + e + i, h - f, c - g, d - b,
        h - f, 1 + a - e - i, b + d, c + g,
        c - g, b + d, 1 - a + e - i, f + h,
        d - b, c + g, f + h, 1 - a - e + i], -1).reshape(*a.shape, 4, 4)
    best = np.argmax(np.diagonal(products, axis1=-2, axis2=-1), -1)
    q = np.take_along_axis(products, best[..., None, None], -2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    q = np.where(q[..., :1] < 0.0, -q, q)
    return q[..., :1], q[..., 1:]
