# SPDX-License-Identifier: Apache-2.0
"""
Depth images as pieces of planes: where surfaces are, which way they face, without the noise.

In a pinhole image the inverse depth of a plane is linear in the ray's x and y, so a least-squares
fit in a window gives a normal and a smoothed depth in one pass of box filters. Axes: h w image.
"""
from typing import NamedTuple, Tuple

import cv2
from lingbot_world_ros.geometry.camera import PinholeCamera
import numpy as np

WINDOW_PX = 7  # side of the window of a fit
MAX_RESIDUAL = 0.03  # of a fit, relative to the inverse depth; more is an edge
MIN_SHARE = 0.9  # of the window's pixels that have a depth
MIN_DET = 1e-12


class Surfaces(NamedTuple):
    """Fitted planes; where ``is_flat`` is False, the rest means nothing."""

    point: np.ndarray  # (h, w, 3) float64, optical frame, metres
    normal: np.ndarray  # (h, w, 3) float64, unit, towards the camera
    is_flat: np.ndarray  # (h, w) bool


def fit_surfaces(depth: np.ndarray, camera: PinholeCamera) -> Surfaces:
    """
    Fit a plane around every pixel.

    :param depth: (h, w) metres along the optical axis, 0 where there is none
    :param camera: that took it
    :return: the planes
    """
    rays = camera.rays(camera.pixel_grid())
    x, y = rays[..., 0], rays[..., 1]
    known = (depth > 0).astype(np.float64)
    inverse = np.where(depth > 0, 1.0 / np.maximum(depth, 1e-3), 0.0)
    count = np.maximum(_mean(known), 1e-6)
    mean_x, mean_y, mean_d = (_mean(known * v) / count for v in (x, y, inverse))
    xx = _mean(known * x * x) / count - mean_x ** 2
    yy = _mean(known * y * y) / count - mean_y ** 2
    xy = _mean(known * x * y) / count - mean_x * mean_y
    xd = _mean(known * x * inverse) / count - mean_x * mean_d
    yd = _mean(known * y * inverse) / count - mean_y * mean_d
    dd = np.maximum(_mean(inverse * inverse) / count - mean_d ** 2, 0.0)
    det = np.maximum(xx * yy - xy * xy, MIN_DET)
    a, b = (xd * yy - yd * xy) / det, (yd * xx - xd * xy) / det
    c = mean_d - a * mean_x - b * mean_y
    smooth = a * x + b * y + c
    residual = np.sqrt(np.maximum(dd - a * xd - b * yd, 0.0))
    # Noise of depth sensors grows with the square of the distance: constant in inverse depth.
    is_flat = ((count >= MIN_SHARE) & (known > 0) & (smooth > 0.02)
               & (residual < MAX_RESIDUAL * np.maximum(smooth, 0.3)))
    normal = -np.stack([a, b, c], -1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    return Surfaces(rays / np.maximum(smooth, 0.02)[..., None], normal, is_flat)


def body_mask(depths: np.ndarray) -> np.ndarray:
    """
    Find the robot's own body: what stays where it is while everything else moves.

    :param depths: (n, h, w) metres of frames from many places, 0 where there is none
    :return: (h, w) bool
    """
    nearest, middle = np.percentile(np.where(depths > 0, depths, np.inf), [2, 60], axis=0,
                                    method='lower')
    still = np.isfinite(middle) & (middle - nearest < 0.02 + 0.01 * middle)
    return cv2.dilate(still.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def _mean(image: np.ndarray) -> np.ndarray:
    return cv2.boxFilter(image, -1, (WINDOW_PX, WINDOW_PX), borderType=cv2.BORDER_CONSTANT)


def main_direction(normals: np.ndarray) -> Tuple[float, float]:
    """
    Find which way walls run.

    :param normals: (m, 2) of upright surfaces
    :return: angle of walls, -pi/4 to pi/4, and how much they agree, 0 to 1
    """
    fourfold = np.exp(4j * np.arctan2(normals[:, 1], normals[:, 0]))
    # The mode, not the mean: one round of keeping what is near it.
    mean = fourfold.mean()
    for _ in range(5):
        near = np.abs(np.angle(fourfold / mean)) < 0.6
        if not near.any():
            break
        mean = fourfold[near].mean()
    return float(np.angle(mean) / 4), float(abs(mean))
