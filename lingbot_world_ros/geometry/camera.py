# SPDX-License-Identifier: Apache-2.0
"""
Cameras without a lens: image size and intrinsics, and where one sits on a robot. NumPy only.

Pixels are counted as ROS and OpenCV do, everywhere in this package: (0, 0) is the *centre* of the
upper left pixel. An image reaches from -0.5 to ``width_px - 0.5``, and its middle is at
``width_px / 2 - 0.5``. What is counted from the corner of the image instead, with the first
pixel's centre at 0.5, comes in by ``from_corner`` and goes out by ``corner_intrinsics``.

Frames follow REP 103: a camera's link x ahead, y left, z up; its optical frame x right, y down,
z ahead. ``robots.calibration`` adds lenses.
"""
from dataclasses import dataclass
from math import gcd
from typing import Sequence, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.se3 import pose_from_rpy
import numpy as np

# Optical x right = -y of the link, y down = -z, z ahead = x.
T_LINK_OPTICAL = np.array([[0.0, 0.0, 1.0, 0.0],
                           [-1.0, 0.0, 0.0, 0.0],
                           [0.0, -1.0, 0.0, 0.0],
                           [0.0, 0.0, 0.0, 1.0]])
MIN_FOCAL_PX = 10.0  # less is said in other units; no camera sees its image so wide


@dataclass(frozen=True)
class PinholeCamera:
    """Size of an image, focal lengths, principal point and skew, all in pixels."""

    width_px: int
    height_px: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    skew_px: float = 0.0

    @classmethod
    def from_k(cls, width_px: int, height_px: int, k: np.ndarray) -> 'PinholeCamera':
        """
        Read intrinsics as sensor_msgs/CameraInfo has them; what K says besides is not looked at.

        :param width_px: of the image
        :param height_px: of the image
        :param k: (3, 3) fx skew cx, 0 fy cy, 0 0 1
        :return: the camera
        """
        (fx_px, skew_px, cx_px), (_, fy_px, cy_px), _ = np.asarray(k, np.float64).tolist()
        return cls(width_px, height_px, fx_px, fy_px, cx_px, cy_px, skew_px)

    @classmethod
    def from_corner(cls, width_px: int, height_px: int,
                    intrinsics: Sequence[float]) -> 'PinholeCamera':
        """
        Read intrinsics that count from the corner of the image.

        :param width_px: of the image
        :param height_px: of the image
        :param intrinsics: fx, fy, cx, cy; the middle of the image is at half its width
        :return: the camera
        """
        fx_px, fy_px, cx_px, cy_px = map(float, intrinsics)
        return cls(width_px, height_px, fx_px, fy_px, cx_px - 0.5, cy_px - 0.5)

    @classmethod
    def from_fovx(cls, width_px: int, height_px: int, fovx_rad: float) -> 'PinholeCamera':
        """Return the camera with square pixels and this horizontal field of view."""
        return cls._in_the_middle(width_px, height_px, _focal_px(width_px, fovx_rad))

    @classmethod
    def from_fovy(cls, width_px: int, height_px: int, fovy_rad: float) -> 'PinholeCamera':
        """Return the camera with square pixels and this vertical field of view."""
        return cls._in_the_middle(width_px, height_px, _focal_px(height_px, fovy_rad))

    @classmethod
    def _in_the_middle(cls, width_px: int, height_px: int, focal_px: float) -> 'PinholeCamera':
        return cls(width_px, height_px, focal_px, focal_px, 0.5 * width_px - 0.5,
                   0.5 * height_px - 0.5)

    @property
    def k(self) -> np.ndarray:
        """Return the (3, 3) float64 intrinsics."""
        return np.array([[self.fx_px, self.skew_px, self.cx_px],
                         [0.0, self.fy_px, self.cy_px],
                         [0.0, 0.0, 1.0]])

    @property
    def corner_intrinsics(self) -> Tuple[float, float, float, float]:
        """Return fx, fy, cx, cy for who counts from the corner of the image."""
        return self.fx_px, self.fy_px, self.cx_px + 0.5, self.cy_px + 0.5

    @property
    def field_of_view_rad(self) -> Tuple[float, float]:
        """Return width and height, between the outer edges of the image along its axes."""
        spans = []
        for side_px, focal_px, centre_px in ((self.width_px, self.fx_px, self.cx_px),
                                             (self.height_px, self.fy_px, self.cy_px)):
            low, high = np.arctan((np.array([-0.5, side_px - 0.5]) - centre_px) / focal_px)
            spans.append(float(high - low))
        return spans[0], spans[1]

    def resized(self, width_px: int, height_px: int) -> 'PinholeCamera':
        """
        Describe the same image in another size.

        :param width_px: new width
        :param height_px: new height; the aspect ratio may change
        :return: the camera in the new pixels
        """
        scale = edge_scaling(width_px / self.width_px, height_px / self.height_px)
        return PinholeCamera.from_k(width_px, height_px, scale @ self.k)

    def mounted(self, position_m: Sequence[float],
                rpy_rad: Sequence[float] = (0.0, 0.0, 0.0)) -> 'MountedCamera':
        """Put the camera on a robot; see ``MountedCamera``."""
        return MountedCamera(self.width_px, self.height_px, self.fx_px, self.fy_px, self.cx_px,
                             self.cy_px, self.skew_px, tuple(position_m), tuple(rpy_rad))

    def pixel_grid(self, step: int = 1) -> np.ndarray:
        """
        Return the middles of all blocks of pixels, row by row.

        :param step: width and height of a block; 1 for the pixels themselves
        :return: (ceil(height / step), ceil(width / step), 2) float64 u, v
        """
        v, u = np.mgrid[0:self.height_px:step, 0:self.width_px:step]
        return np.stack([u, v], -1) + 0.5 * (step - 1)

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """
        Return where pixels look.

        :param pixels: (..., 2) u, v
        :return: (..., 3) float64 directions in the optical frame, z 1
        """
        pixels = np.asarray(pixels, np.float64)
        y = (pixels[..., 1] - self.cy_px) / self.fy_px
        x = (pixels[..., 0] - self.cx_px - self.skew_px * y) / self.fx_px
        return np.stack([x, y, np.ones_like(x)], -1)

    def project(self, points: np.ndarray) -> np.ndarray:
        """
        Return where points are seen; the inverse of ``rays``.

        :param points: (..., 3) in the optical frame, z more than 0
        :return: (..., 2) float64 u, v
        """
        points = np.asarray(points, np.float64)
        x, y = points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]
        return np.stack([self.fx_px * x + self.skew_px * y + self.cx_px,
                         self.fy_px * y + self.cy_px], -1)


@dataclass(frozen=True)
class MountedCamera(PinholeCamera):
    """
    A camera that is fixed to a robot's base.

    ``position_m`` in base_link; ``rpy_rad`` turn its link, which looks along x, about the fixed
    axes as in URDF: positive pitch looks down.
    """

    position_m: Tuple[float, ...] = (0.0, 0.0, 0.0)
    rpy_rad: Tuple[float, ...] = (0.0, 0.0, 0.0)

    def resized(self, width_px: int, height_px: int) -> 'MountedCamera':
        """
        Describe the same image in another size, from the same place.

        :param width_px: new width
        :param height_px: new height; the aspect ratio may change
        :return: the camera in the new pixels, mounted where this one is
        """
        return super().resized(width_px, height_px).mounted(self.position_m, self.rpy_rad)

    @property
    def T_base_camera_link(self) -> np.ndarray:
        """Return the (4, 4) float64 pose of camera_link in base_link."""
        return pose_from_rpy(self.position_m, self.rpy_rad)

    @property
    def T_base_optical(self) -> np.ndarray:
        """Return the (4, 4) float64 pose of camera_optical_frame in base_link."""
        return self.T_base_camera_link @ T_LINK_OPTICAL


def require_pixels(fx_px: float, fy_px: float, what: str) -> None:
    """
    Refuse intrinsics that are normalised: by the size of the image, or to a focal length of 1.

    :param fx_px: focal length along the width
    :param fy_px: focal length along the height
    :param what: whose they are, begins the error
    :raises SpecError: one is no length in pixels
    """
    if not min(fx_px, fy_px) >= MIN_FOCAL_PX:
        raise SpecError(f'{what}: focal lengths of {fx_px:g} and {fy_px:g} are not in pixels, '
                        f'which are {MIN_FOCAL_PX:g} or more; multiply normalised ones, and the '
                        'centre, by width and height of the image.')


def why_not_square(camera: PinholeCamera, width_px: int, height_px: int) -> str:
    """
    Say why an image cannot have another size and the shape of its pixels.

    :param camera: of the image
    :param width_px: asked for
    :param height_px: asked for
    :return: a sentence; '' where the aspect ratio stays
    """
    if width_px * camera.height_px == height_px * camera.width_px:
        return ''
    common = gcd(camera.width_px, camera.height_px)
    return (f'pictures of {width_px}x{height_px}: they have to be '
            f'{camera.width_px // common}:{camera.height_px // common}, as those of the camera '
            f'({camera.width_px}x{camera.height_px}).')


def edge_scaling(scale_x: float, scale_y: float) -> np.ndarray:
    """
    Return what resizing an image does to its pixels.

    A pixel's centre is half a pixel from its edge, and edges are what is scaled.

    :param scale_x: new width by old width
    :param scale_y: new height by old height
    :return: (3, 3) float64, to be multiplied with u, v, 1
    """
    return np.array([[scale_x, 0.0, 0.5 * scale_x - 0.5],
                     [0.0, scale_y, 0.5 * scale_y - 0.5],
                     [0.0, 0.0, 1.0]])


def _focal_px(side_px: int, angle_rad: float) -> float:
    return float(0.5 * side_px / np.tan(0.5 * angle_rad))
