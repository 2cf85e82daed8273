# SPDX-License-Identifier: Apache-2.0
"""
Start images as the stream's camera would have taken them. NumPy and OpenCV, no torch.

A pinhole image seen by another pinhole camera at the same place, looking the same way, is a
rectangle out of it.
"""
from math import atan, degrees
from pathlib import Path
from typing import Optional

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.models.wan.spec import VideoSize
import numpy as np

EDGE_TOLERANCE = 0.02  # of the view's width or height that an image may lack


def stream_camera(size: VideoSize, field_of_view_deg: float) -> PinholeCamera:
    """
    Make the stream's camera: square pixels, looking through the middle of the image.

    :param size: of its images
    :param field_of_view_deg: horizontal
    :return: the camera
    :raises SpecError: a view that no pinhole has
    """
    if not 0.0 < field_of_view_deg < 179.0:
        raise SpecError(f'field_of_view_deg={field_of_view_deg} must be more than 0 and less than '
                        '179 degrees.')
    return PinholeCamera.from_fovx(size.width_px, size.height_px, np.deg2rad(field_of_view_deg))


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


def seen_by(camera: PinholeCamera, rgb: np.ndarray,
            taken_by: Optional[PinholeCamera] = None) -> np.ndarray:
    """
    Cut out of an image what a camera sees of it.

    :param camera: of the stream
    :param rgb: (h, w, 3) uint8
    :param taken_by: the camera that took it, of its shape but maybe of another size; None takes
        the largest part in the shape of the stream out of the middle
    :return: the part, (h', w', 3) uint8, still to be scaled to the stream's size
    :raises SpecError: the image does not show all that the camera sees, or has another shape
        than that camera's images
    """
    h, w = rgb.shape[:2]
    if taken_by is None:
        return _middle(rgb, camera.height_px / camera.width_px)
    _check_shape(h, w, taken_by)
    fx, fy, cx, cy = taken_by.corner_intrinsics  # an image is cut along the edges of its pixels
    fx, fy = fx * w / taken_by.width_px, fy * h / taken_by.height_px
    cx, cy = cx * w / taken_by.width_px, cy * h / taken_by.height_px
    half_x = 0.5 * camera.width_px / camera.fx_px * fx
    half_y = 0.5 * camera.height_px / camera.fy_px * fy
    missing = max(half_x - min(cx, w - cx), 0.0) / half_x, max(
        half_y - min(cy, h - cy), 0.0) / half_y
    if max(missing) > EDGE_TOLERANCE:
        scale = min(min(cx, w - cx) / half_x, min(cy, h - cy) / half_y)
        fits = 2.0 * degrees(atan(half_x / fx * scale))
        raise SpecError('The start image does not fill the view of '
                        f'{degrees(camera.field_of_view_rad[0]):g} degrees; set '
                        f'lingbot.field_of_view_deg to {fits:.1f} or less.')
    left, top = max(0, round(cx - half_x)), max(0, round(cy - half_y))
    return rgb[top:round(cy + half_y), left:round(cx + half_x)]


def _check_shape(h: int, w: int, taken_by: PinholeCamera) -> None:
    """Refuse intrinsics of another picture, often of a photo before it was turned upright."""
    across, down = w / taken_by.width_px, h / taken_by.height_px
    if abs(across - down) > EDGE_TOLERANCE * max(across, down):
        raise SpecError(f'The start image is {w} x {h} pixels (turned upright, as its EXIF data '
                        f'says), its camera {taken_by.width_px} x {taken_by.height_px}, which is '
                        'another shape; give the intrinsics of this image.')


def _middle(rgb: np.ndarray, shape: float) -> np.ndarray:
    """Return the largest part of that shape (height by width) around the middle."""
    h, w = rgb.shape[:2]
    height, width = min(h, round(w * shape)), min(w, round(h / shape))
    top, left = (h - height) // 2, (w - width) // 2
    return rgb[top:top + max(height, 1), left:left + max(width, 1)]
