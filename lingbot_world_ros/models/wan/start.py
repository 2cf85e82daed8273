# SPDX-License-Identifier: Apache-2.0
"""
Start images as the stream's camera would have taken them. NumPy and OpenCV, no torch.

A pinhole image seen by another pinhole camera at the same place, looking the same way, is a
rectangle out of it.
"""
from dataclasses import dataclass
from math import atan, degrees, radians, tan
from pathlib import Path
from typing import Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.wan.spec import VideoSize
import numpy as np

EDGE_TOLERANCE = 0.02  # of the view's width or height that an image may lack


@dataclass(frozen=True)
class PinholeCamera:
    """The stream's camera: square pixels, looking through the middle of the image."""

    size: VideoSize
    field_of_view_deg: float  # horizontal

    def __post_init__(self):
        """Refuse views that no pinhole has."""
        if not 0.0 < self.field_of_view_deg < 179.0:
            raise SpecError(f'field_of_view_deg={self.field_of_view_deg} must be more than 0 and '
                            'less than 179 degrees.')

    @property
    def focal_px(self) -> float:
        """Focal length in pixels."""
        return 0.5 * self.size.width_px / tan(0.5 * radians(self.field_of_view_deg))

    @property
    def fovy_rad(self) -> float:
        """Vertical field of view."""
        return 2.0 * atan(0.5 * self.size.height_px / self.focal_px)

    @property
    def intrinsics(self) -> Tuple[float, float, float, float]:
        """Return fx, fy, cx, cy in pixels; the middle of the first pixel is at 0.5."""
        focal = self.focal_px
        return focal, focal, 0.5 * self.size.width_px, 0.5 * self.size.height_px


def read_image(path: str) -> np.ndarray:
    """
    Read a picture, upright if its EXIF data say how it was held.

    :param path: PNG or JPEG
    :return: (h, w, 3) uint8 RGB
    :raises SpecError: it is missing or no picture
    """
    import cv2
    if not Path(path).is_file():
        raise SpecError(f'Start image {path} does not exist; give the path of a PNG or JPEG.')
    try:
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error:  # more pixels than it reads
        bgr = None
    if bgr is None:
        raise SpecError(f'Start image {path} cannot be read; convert it to a PNG or JPEG of at '
                        'most 1000 megapixels.')
    return np.ascontiguousarray(bgr[..., ::-1])


def seen_by(camera: PinholeCamera, rgb: np.ndarray, taken_by=None) -> np.ndarray:
    """
    Cut out of an image what a camera sees of it.

    :param camera: of the stream
    :param rgb: (h, w, 3) uint8
    :param taken_by: ``ImageCamera`` with the intrinsics of the image; None takes the largest
        part in the shape of the stream out of the middle
    :return: the part, (h', w', 3) uint8, still to be scaled to the stream's size
    :raises SpecError: the image does not show all that the camera sees, or has another shape
        than that camera's images
    """
    h, w = rgb.shape[:2]
    if taken_by is None:
        return _middle(rgb, camera.size.height_px / camera.size.width_px)
    _check_shape(h, w, taken_by)
    fx, fy = taken_by.fx_px * w / taken_by.width_px, taken_by.fy_px * h / taken_by.height_px
    cx, cy = taken_by.cx_px * w / taken_by.width_px, taken_by.cy_px * h / taken_by.height_px
    half_x = tan(0.5 * radians(camera.field_of_view_deg)) * fx
    half_y = tan(0.5 * camera.fovy_rad) * fy
    missing = max(half_x - min(cx, w - cx), 0.0) / half_x, max(
        half_y - min(cy, h - cy), 0.0) / half_y
    if max(missing) > EDGE_TOLERANCE:
        scale = min(min(cx, w - cx) / half_x, min(cy, h - cy) / half_y)
        fits = 2.0 * degrees(atan(tan(0.5 * radians(camera.field_of_view_deg)) * scale))
        raise SpecError(f'The start image does not fill the view of {camera.field_of_view_deg:g} '
                        f'degrees; set lingbot.field_of_view_deg to {fits:.1f} or less.')
    left, top = max(0, round(cx - half_x)), max(0, round(cy - half_y))
    return rgb[top:round(cy + half_y), left:round(cx + half_x)]


def _check_shape(h, w, taken_by):
    """Refuse intrinsics of another picture, often of a photo before it was turned upright."""
    across, down = w / taken_by.width_px, h / taken_by.height_px
    if abs(across - down) > EDGE_TOLERANCE * max(across, down):
        raise SpecError(f'The start image is {w} x {h} pixels (turned upright, as its EXIF data '
                        f'says), its camera {taken_by.width_px} x {taken_by.height_px}, which is '
                        'another shape; give the intrinsics of this image.')


def _middle(rgb, shape):
    """Return the largest part of that shape (height by width) around the middle."""
    h, w = rgb.shape[:2]
    height, width = min(h, round(w * shape)), min(w, round(h / shape))
    top, left = (h - height) // 2, (w - width) // 2
    return rgb[top:top + max(height, 1), left:left + max(width, 1)]
