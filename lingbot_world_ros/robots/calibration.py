# SPDX-License-Identifier: Apache-2.0
"""
What a camera calibration says: sizes, intrinsics, lens; read from camera_info_manager's YAML.

``geometry.camera`` says how pixels are counted, ``lens`` how lenses bend.
"""
from dataclasses import dataclass, field, replace
from typing import Dict, Optional, Tuple

from lingbot_world_ros.errors import quoted, shown, SpecError, unknown_name
from lingbot_world_ros.geometry.camera import edge_scaling, PinholeCamera, require_pixels
from lingbot_world_ros.paths import read_text
from lingbot_world_ros.plain_yaml import read_number, read_whole, read_yaml, Tree
from lingbot_world_ros.robots.lens import (distort, EQUIDISTANT, lens_of_ros, NUM_COEFFICIENTS,
                                           undistort)
import numpy as np

MAX_FILE_BYTES = 65536  # a calibration has about 1 KB
MAX_SIDE_PX = 8192
MAX_PIXELS = 3840 * 2160
NOT_YAML = 'not the YAML of a calibration as camera_calibration and camera_info_manager write it'


@dataclass(frozen=True, eq=False)
class Calibration:
    """
    A camera as sensor_msgs/CameraInfo describes it.

    ``d`` are the coefficients of ``distortion_model``; ``r`` (3, 3) and ``p`` (3, 4) are those of
    the rectified image.
    """

    camera: PinholeCamera
    distortion_model: str = 'plumb_bob'
    d: Tuple[float, ...] = (0.0,) * 5
    r: np.ndarray = field(default_factory=lambda: np.eye(3))
    p: Optional[np.ndarray] = None

    def __post_init__(self) -> None:
        """Refuse what is no camera."""
        width_px, height_px = self.camera.width_px, self.camera.height_px
        for name, side in (('width', width_px), ('height', height_px)):
            if type(side) is not int or not 0 < side <= MAX_SIDE_PX:
                raise SpecError(f'image {name} is not a whole number from 1 to {MAX_SIDE_PX}.')
        if width_px * height_px > MAX_PIXELS:
            raise SpecError(f'an image of {width_px}x{height_px} has more than {MAX_PIXELS} '
                            'pixels.')
        if self.p is None:
            object.__setattr__(self, 'p', np.hstack([self.camera.k, np.zeros((3, 1))]))
        wanted = NUM_COEFFICIENTS.get(self.distortion_model)
        if wanted is None:
            raise unknown_name('distortion_model', self.distortion_model[:40], NUM_COEFFICIENTS)
        if len(self.d) not in wanted:
            raise SpecError(f'{self.distortion_model} takes {" or ".join(map(str, wanted))} '
                            f'distortion coefficients, got {len(self.d)}.')
        for name in 'drp':
            if not np.isfinite(getattr(self, name)).all():
                raise SpecError(f'{name.upper()} of the camera is not finite.')

    @property
    def is_distorted(self) -> bool:
        """Whether the lens bends rays; equidistant always does."""
        return self.distortion_model == EQUIDISTANT or any(self.d)

    def resized(self, width_px: int, height_px: int) -> 'Calibration':
        """
        Describe the same image in another size.

        :param width_px: new width, 0 for the old one
        :param height_px: new height, 0 for the old one; the aspect ratio may change
        :return: the calibration with focal lengths and centre in the new pixels
        :raises SpecError: a size no image has
        """
        camera = self.camera
        width_px, height_px = width_px or camera.width_px, height_px or camera.height_px
        if (width_px, height_px) == (camera.width_px, camera.height_px):
            return self
        scale = edge_scaling(width_px / camera.width_px, height_px / camera.height_px)
        return replace(self, camera=camera.resized(width_px, height_px), p=scale @ self.p)

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """
        Return where pixels look.

        :param pixels: (..., 2) u, v
        :return: (..., 3) float64 directions in the optical frame, z 1
        :raises SpecError: the lens formula has no solution for a pixel
        """
        rays = self.camera.rays(pixels)
        if not self.is_distorted:
            return rays
        rays[..., :2] = undistort(self.distortion_model, self.d, rays[..., :2])
        wrong = np.isnan(rays).any(-1)
        if wrong.any():
            u, v = np.asarray(pixels)[wrong][0]
            raise SpecError(f'the distortion of the calibration has no solution at pixel u={u:g}, '
                            f'v={v:g}; it is valid only near the middle: use a smaller image.')
        return rays

    def project(self, points: np.ndarray) -> np.ndarray:
        """
        Return where points are seen; the inverse of ``rays``.

        :param points: (..., 3) in the optical frame, z more than 0
        :return: (..., 2) float64 u, v
        """
        points = np.asarray(points, np.float64)
        if self.is_distorted:
            slopes = distort(self.distortion_model, self.d, points[..., :2] / points[..., 2:])
            points = np.concatenate([slopes, np.ones_like(points[..., 2:])], -1)
        return self.camera.project(points)


def camera_from_k(width_px: int, height_px: int, k: np.ndarray) -> PinholeCamera:
    """
    Read intrinsics that come from outside.

    :param width_px: of the image
    :param height_px: of the image
    :param k: (3, 3)
    :return: the camera
    :raises SpecError: not the K of a calibrated camera, or not in pixels
    """
    if not np.isfinite(k).all():
        raise SpecError('K of the camera is not finite.')
    if not (k[0, 0] > 0.0 and k[1, 1] > 0.0 and (k[[1, 2, 2], [0, 0, 1]] == 0.0).all()
            and k[2, 2] == 1.0):
        raise SpecError(f'camera_matrix {k.ravel().tolist()} is not fx s cx, 0 fy cy, 0 0 1 '
                        'with focal lengths of more than 0; is the camera calibrated?')
    require_pixels(float(k[0, 0]), float(k[1, 1]), 'camera_matrix')
    return PinholeCamera.from_k(width_px, height_px, k)


def load_calibration(url: str) -> Calibration:
    """
    Read a calibration file.

    :param url: ``package://``, ``file://`` or a path
    :return: the calibration
    :raises SpecError: not found, too large, not YAML, or not a camera; names the file
    """
    what = 'camera_info_url'
    text = read_text(url, what, MAX_FILE_BYTES)
    try:
        return parse_calibration(text)
    except SpecError as error:
        raise SpecError(f'{what}: {shown(url)}: {error}') from error


def parse_calibration(text: str) -> Calibration:
    """
    Read the YAML that camera_info_manager writes.

    :param text: keys image_width, image_height, camera_matrix, distortion_model,
        distortion_coefficients; rectification_matrix and projection_matrix if there are
    :return: the calibration
    :raises SpecError: not such a YAML, or not a camera
    """
    try:
        content = read_yaml(text)
    except SpecError as error:
        raise SpecError(f'{NOT_YAML}: {error}.') from error
    if not isinstance(content, dict):
        raise SpecError(f'{NOT_YAML}.')
    missing = [key for key in ('image_width', 'image_height', 'camera_matrix')
               if key not in content]
    if missing:
        raise SpecError(f'{", ".join(missing)} missing: {NOT_YAML}.')
    model = content.get('distortion_model', 'plumb_bob')
    if not isinstance(model, str):
        raise SpecError('distortion_model is not text.')
    model = '' if model in ('null', '~') else model
    d = _matrix(content, 'distortion_coefficients', (-1,))
    model, coefficients = lens_of_ros(model, () if d is None else d.tolist())
    r = _matrix(content, 'rectification_matrix', (3, 3))
    k = _matrix(content, 'camera_matrix', (3, 3))
    assert k is not None, 'it was looked for above'
    camera = camera_from_k(*_size(content), k)
    p = _matrix(content, 'projection_matrix', (3, 4))
    calibration = Calibration(camera, model, coefficients, np.eye(3) if r is None else r, p)
    _check_rectification(calibration)
    return calibration


def _check_rectification(calibration: Calibration) -> None:
    """Refuse zeros, which say that nothing was calibrated, and normalised numbers."""
    r, p = calibration.r, calibration.p
    assert p is not None  # made of k where none was given
    require_pixels(p[0, 0], p[1, 1], 'projection_matrix')
    if not np.allclose(r @ r.T, np.eye(3), atol=1e-2):
        raise SpecError(f'rectification_matrix {r.ravel().tolist()} is not a rotation; leave it '
                        'out for a single camera.')


def _size(content: Dict[str, Tree]) -> Tuple[int, int]:
    """Return width and height in pixels."""
    sides = []
    for key in ('image_width', 'image_height'):
        side = read_whole(content[key])
        if side is None:
            raise SpecError(f'{key}={quoted(content[key])} is not a whole number.')
        sides.append(side)
    return sides[0], sides[1]


def _matrix(content: Dict[str, Tree], key: str, shape: Tuple[int, ...]) -> Optional[np.ndarray]:
    """Return ``key`` as float64 of a shape; None where the file does not have it."""
    if key not in content:
        return None
    entry = content[key]
    data = entry.get('data') if isinstance(entry, dict) else entry
    numbers = [read_number(x) for x in data] if isinstance(data, list) else [None]
    if None in numbers or shape != (-1,) and len(numbers) != np.prod(shape):
        size = 'numbers' if shape == (-1,) else f'{np.prod(shape)} numbers'
        raise SpecError(f'{key} does not hold "data:" with {size}.')
    return np.array(numbers, np.float64).reshape(shape)
