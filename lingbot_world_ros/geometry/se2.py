# SPDX-License-Identifier: Apache-2.0
"""
Planar poses and twists: SE(2). NumPy only.

A pose is x, y [m], yaw [rad] of one frame in another; yaw is never wrapped. A twist is v_x, v_y
[m/s], w_z [rad/s]. Both are the last axis of an array, and keep its precision.
"""
from typing import Union

import numpy as np


def rotated(vector: np.ndarray, yaw_rad: Union[float, np.ndarray]) -> np.ndarray:
    """
    Turn planar vectors; what stands behind x and y, such as a turn rate, stays.

    A twist along the axes of a body at ``yaw_rad`` becomes one along the axes of its parent; with
    ``-yaw_rad`` the other way round.

    :param vector: (..., 2 or 3)
    :param yaw_rad: (...), counter-clockwise
    :return: of the shape of ``vector``
    """
    vector = np.asarray(vector)
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    # Single numbers are three times as fast as arrays without an axis, and each frame needs them.
    columns = vector if vector.ndim == 1 else [vector[..., i] for i in range(vector.shape[-1])]
    x, y, *rest = columns
    return _stacked(c * x - s * y, s * x + c * y, *rest)


def compose(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """
    Chain two poses.

    :param a: (..., 3)
    :param b: (..., 3) given in frame ``a``
    :return: (..., 3) ``b`` in the parent of ``a``
    """
    a, b = np.asarray(a), np.asarray(b)
    c, s = np.cos(a[..., 2]), np.sin(a[..., 2])
    return _stacked(a[..., 0] + c * b[..., 0] - s * b[..., 1],
                    a[..., 1] + s * b[..., 0] + c * b[..., 1], a[..., 2] + b[..., 2])


def inverse(a: np.ndarray) -> np.ndarray:
    """
    Swap a frame with its parent.

    :param a: (..., 3)
    :return: (..., 3) pose of the parent in frame ``a``
    """
    a = np.asarray(a)
    c, s = np.cos(a[..., 2]), np.sin(a[..., 2])
    return _stacked(-c * a[..., 0] - s * a[..., 1], s * a[..., 0] - c * a[..., 1], -a[..., 2])


def relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """
    See one pose from another; exactly zero where they are the same.

    :param a: (..., 3)
    :param b: (..., 3) in the same parent
    :return: (..., 3) ``b`` in frame ``a``
    """
    a = np.asarray(a)
    return rotated(np.asarray(b) - a, -a[..., 2])


def exponential(twist: np.ndarray, dt_s: float) -> np.ndarray:
    """
    Move along a constant twist, exactly: along an arc where it turns.

    :param twist: (..., 3) along the body's own axes
    :param dt_s: for how long
    :return: (..., 3) float64 pose of the body afterwards in its frame before
    """
    twist = np.asarray(twist, np.float64)
    turn_rad = dt_s * twist[..., 2]
    half = 0.5 * turn_rad
    moved = twist * dt_s
    # The chord is shorter than the arc by sin(half) / half, and turned by half.
    moved[..., :2] *= np.sinc(half / np.pi)[..., None]
    return rotated(moved, half)


def _stacked(*columns: np.ndarray) -> np.ndarray:
    """Make columns the last axis; several times faster than np.stack, which each frame feels."""
    if not columns[0].ndim:
        return np.array(columns)
    out = np.empty((*columns[0].shape, len(columns)), columns[0].dtype)
    for i, column in enumerate(columns):
        out[..., i] = column
    return out
