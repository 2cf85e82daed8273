# SPDX-License-Identifier: Apache-2.0
"""
What a camera calibration says: sizes, intrinsics, lens; read from camera_info_manager's YAML.

Pixels are named as ROS does: (0, 0) is the centre of the upper left one. Lens models are those of
sensor_msgs/CameraInfo: plumb_bob (5 coefficients), rational_polynomial (8), equidistant (4).
"""
from dataclasses import dataclass, field, replace
from typing import Optional, Tuple

from lingbot_world_ros.errors import shown, SpecError, unknown_name
from lingbot_world_ros.geometry.camera import CameraSpec
from lingbot_world_ros.paths import read_text
from lingbot_world_ros.plain_yaml import load_plain_yaml
import numpy as np

NUM_COEFFICIENTS = {'plumb_bob': 5, 'rational_polynomial': 8, 'equidistant': 4}
MAX_FILE_BYTES = 65536  # a calibration has about 1 KB
MAX_SIDE_PX = 8192
MAX_PIXELS = 3840 * 2160
MAX_ITERATIONS = 100  # of undistorting; a usual lens needs 10
UNDISTORT_TOLERANCE = 1e-6  # of the ray's slope: below a thousandth of a pixel
NOT_YAML = 'not the YAML of a calibration as camera_calibration and camera_info_manager write it'


@dataclass(frozen=True, eq=False)
class Calibration:
    """
    A camera as sensor_msgs/CameraInfo describes it.

    ``k`` (3, 3) intrinsics, ``d`` coefficients of ``distortion_model``, ``r`` (3, 3) and ``p``
    (3, 4) of the rectified image; pixels and slopes.
    """

    width_px: int
    height_px: int
    k: np.ndarray
    distortion_model: str = 'plumb_bob'
    d: Tuple[float, ...] = (0.0,) * 5
    r: np.ndarray = field(default_factory=lambda: np.eye(3))
    p: Optional[np.ndarray] = None

    def __post_init__(self):
        """Refuse what is no camera."""
        for name, side in (('width', self.width_px), ('height', self.height_px)):
            if type(side) is not int or not 0 < side <= MAX_SIDE_PX:
                raise SpecError(f'image {name} is not a whole number from 1 to {MAX_SIDE_PX}.')
        if self.width_px * self.height_px > MAX_PIXELS:
            raise SpecError(f'an image of {self.width_px}x{self.height_px} has more than '
                            f'{MAX_PIXELS} pixels.')
        if self.p is None:
            object.__setattr__(self, 'p', np.hstack([self.k, np.zeros((3, 1))]))
        wanted = NUM_COEFFICIENTS.get(self.distortion_model)
        if wanted is None:
            raise unknown_name('distortion_model', self.distortion_model[:40], NUM_COEFFICIENTS)
        if len(self.d) != wanted:
            raise SpecError(f'{self.distortion_model} takes {wanted} distortion coefficients, '
                            f'got {len(self.d)}.')
        for name in 'krpd':
            if not np.isfinite(getattr(self, name)).all():
                raise SpecError(f'{name.upper()} of the camera is not finite.')
        k = self.k
        if not (k[0, 0] > 0.0 and k[1, 1] > 0.0 and (k[[1, 2, 2], [0, 0, 1]] == 0.0).all()
                and k[2, 2] == 1.0):
            raise SpecError(f'camera_matrix {k.ravel().tolist()} is not fx s cx, 0 fy cy, 0 0 1 '
                            'with focal lengths of more than 0; is the camera calibrated?')

    @classmethod
    def of(cls, camera: CameraSpec) -> 'Calibration':
        """Return the calibration of an engine's camera."""
        return cls(camera.width_px, camera.height_px, camera.k)

    @property
    def is_distorted(self) -> bool:
        """Whether the lens bends rays; equidistant always does."""
        return self.distortion_model == 'equidistant' or any(self.d)

    def resized(self, width_px: int, height_px: int) -> 'Calibration':
        """
        Describe the same image in another size.

        :param width_px: new width, 0 for the old one
        :param height_px: new height, 0 for the old one; the aspect ratio may change
        :return: the calibration with focal lengths and centre in the new pixels
        :raises SpecError: a size no image has
        """
        width_px, height_px = width_px or self.width_px, height_px or self.height_px
        if (width_px, height_px) == (self.width_px, self.height_px):
            return self
        scale_x, scale_y = width_px / self.width_px, height_px / self.height_px
        # A pixel's centre is half a pixel from its edge, and edges are what is scaled.
        S = np.array([[scale_x, 0.0, 0.5 * scale_x - 0.5],
                      [0.0, scale_y, 0.5 * scale_y - 0.5],
                      [0.0, 0.0, 1.0]])
        return replace(self, width_px=width_px, height_px=height_px, k=S @ self.k, p=S @ self.p)

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """
        Return where pixels look.

        :param pixels: (..., 2) u, v
        :return: (..., 2) slopes x/z, y/z in the optical frame
        :raises SpecError: the lens formula has no solution for a pixel
        """
        pixels = np.asarray(pixels, np.float64)
        k = self.k
        y = (pixels[..., 1] - k[1, 2]) / k[1, 1]
        x = (pixels[..., 0] - k[0, 2] - k[0, 1] * y) / k[0, 0]
        bent = np.stack([x, y], -1)
        if not self.is_distorted:
            return bent
        with np.errstate(all='ignore'):  # what leads nowhere is found below
            slopes = (self._undistort_fisheye if self.distortion_model == 'equidistant'
                      else self._undistort)(bent)
            error = np.abs(self.distort(slopes) - bent).max(-1)
        wrong = ~(error < UNDISTORT_TOLERANCE)
        if wrong.any():
            u, v = pixels[wrong][0]
            raise SpecError(f'the distortion of the calibration has no solution at pixel u={u:g}, '
                            f'v={v:g}; it holds near the middle only: ask for a smaller image.')
        return slopes

    def pixels(self, slopes: np.ndarray) -> np.ndarray:
        """
        Return where directions are seen; the inverse of ``rays``.

        :param slopes: (..., 2) x/z, y/z in the optical frame
        :return: (..., 2) u, v
        """
        k, bent = self.k, self.distort(np.asarray(slopes, np.float64))
        return np.stack([k[0, 0] * bent[..., 0] + k[0, 1] * bent[..., 1] + k[0, 2],
                         k[1, 1] * bent[..., 1] + k[1, 2]], -1)

    def distort(self, slopes: np.ndarray) -> np.ndarray:
        """Bend slopes (..., 2) the way the lens does."""
        if self.distortion_model == 'equidistant':
            length = np.hypot(slopes[..., 0], slopes[..., 1])
            return slopes * (self._fisheye(np.arctan(length))[0]
                             / np.maximum(length, 1e-12))[..., None]
        stretch, shift = self._bend(slopes)
        return slopes * stretch[..., None] + shift

    def _bend(self, slopes):
        """Radial factor and tangential shift of plumb_bob and rational_polynomial."""
        k1, k2, t1, t2, k3, k4, k5, k6 = np.append(self.d, np.zeros(8))[:8]
        x, y = slopes[..., 0], slopes[..., 1]
        r2 = x * x + y * y
        stretch = ((1.0 + r2 * (k1 + r2 * (k2 + r2 * k3)))
                   / (1.0 + r2 * (k4 + r2 * (k5 + r2 * k6))))
        shift = np.stack([2.0 * t1 * x * y + t2 * (r2 + 2.0 * x * x),
                          t1 * (r2 + 2.0 * y * y) + 2.0 * t2 * x * y], -1)
        return stretch, shift

    def _undistort(self, bent):
        slopes = bent
        for _ in range(MAX_ITERATIONS):
            stretch, shift = self._bend(slopes)
            before, slopes = slopes, (bent - shift) / stretch[..., None]
            if np.abs(slopes - before).max() < 0.1 * UNDISTORT_TOLERANCE:
                break
        return slopes

    def _fisheye(self, theta):
        """Distorted angle and its derivative."""
        k1, k2, k3, k4 = self.d
        t2 = theta * theta
        return (theta * (1.0 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))),
                1.0 + t2 * (3.0 * k1 + t2 * (5.0 * k2 + t2 * (7.0 * k3 + t2 * 9.0 * k4))))

    def _undistort_fisheye(self, bent):
        length = np.hypot(bent[..., 0], bent[..., 1])
        theta = np.minimum(length, 0.5 * np.pi - 1e-3)
        for _ in range(MAX_ITERATIONS):
            value, slope = self._fisheye(theta)
            step = (value - length) / slope
            theta = theta - step
            if np.abs(step).max() < 0.1 * UNDISTORT_TOLERANCE:
                break
        theta = np.where(np.abs(theta) < 0.5 * np.pi, theta, np.nan)
        return bent * (np.tan(theta) / np.maximum(length, 1e-12))[..., None]


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
        content = load_plain_yaml(text)
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
    d = _matrix(content, 'distortion_coefficients', (-1,))
    if d is None or not len(d):
        d = np.zeros(NUM_COEFFICIENTS.get(model, 0))
    r = _matrix(content, 'rectification_matrix', (3, 3))
    return Calibration(content['image_width'], content['image_height'],
                       _matrix(content, 'camera_matrix', (3, 3)), model, tuple(d.tolist()),
                       np.eye(3) if r is None else r,
                       _matrix(content, 'projection_matrix', (3, 4)))


def _matrix(content, key, shape):
    """Return ``key`` as float64 of a shape; None where the file does not have it."""
    if key not in content:
        return None
    data = content[key].get('data') if isinstance(content[key], dict) else content[key]
    numbers = isinstance(data, list) and all(type(x) in (int, float) for x in data)
    if not numbers or shape != (-1,) and len(data) != np.prod(shape):
        size = 'numbers' if shape == (-1,) else f'{np.prod(shape)} numbers'
        raise SpecError(f'{key} does not hold "data:" with {size}.')
    try:
        return np.array([float(x) for x in data]).reshape(shape)
    except OverflowError as error:
        raise SpecError(f'{key} holds a number that is too large.') from error
