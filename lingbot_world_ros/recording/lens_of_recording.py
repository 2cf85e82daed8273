# SPDX-License-Identifier: Apache-2.0
"""
The camera of a recording, and how its images become pictures: resized, without its lens.

Images are resized by area, so that nothing aliases, and straightened in the size of the pictures.
"""
from typing import Any, Dict, Optional, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.recording.survey import Survey
from lingbot_world_ros.robots.calibration import Calibration, camera_from_k
from lingbot_world_ros.robots.lens import lens_of_ros
import numpy as np

ASPECT = 0.01  # part by which the aspect ratios of image and camera_info may differ
FOCAL = 0.02  # part by which cameras of depth and of images may differ and count as one


class Lens:
    """Makes pictures, and depth that lies over them."""

    def __init__(self, image_size: Tuple[int, int], size: Tuple[int, int],
                 calibration: Optional[Calibration], takes_depth: bool,
                 about: Dict[str, Any]) -> None:
        """
        Prepare.

        :param image_size: width and height of images
        :param size: of pictures
        :param calibration: of the images, None if it is not known
        :param takes_depth: depth is seen by this camera
        :param about: what to tell of it
        """
        self.takes_depth, self.about = takes_depth, about
        self._image_size, self._size = image_size, size
        self.camera: Optional[PinholeCamera] = None
        self._maps: Optional[Tuple[np.ndarray, np.ndarray]] = None
        if calibration is not None:
            small = calibration.resized(*size)
            self.camera = small.camera
            if small.is_distorted:
                self.camera = straight_camera(small)
                pixels = small.project(self.camera.rays(self.camera.pixel_grid()))
                u, v = np.moveaxis(pixels.astype(np.float32), -1, 0)
                self._maps = np.ascontiguousarray(u), np.ascontiguousarray(v)

    def picture(self, rgb: np.ndarray) -> np.ndarray:
        """
        Make a picture.

        :param rgb: (h, w, 3) uint8
        :return: (height, width, 3) uint8
        :raises SpecError: the image has another shape than those before
        """
        import cv2
        if rgb.shape[1::-1] != self._image_size:
            raise SpecError('An image of {}x{} among those of {}x{}.'.format(
                *rgb.shape[1::-1], *self._image_size))
        is_smaller = rgb.shape[1] >= self._size[0] and rgb.shape[0] >= self._size[1]
        small = cv2.resize(rgb, self._size,
                           interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR)
        if self._maps is None:
            return small
        return cv2.remap(small, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def depth(self, depth_m: np.ndarray) -> np.ndarray:
        """
        Lay depth over the picture.

        :param depth_m: (h, w) metres
        :return: (height, width) float32 metres, 0 where there is none
        """
        width, height = self._size
        u, v = self._maps or np.meshgrid(np.arange(width), np.arange(height))
        rows = np.rint((v + 0.5) * depth_m.shape[0] / height - 0.5).astype(np.intp)
        columns = np.rint((u + 0.5) * depth_m.shape[1] / width - 0.5).astype(np.intp)
        nearest = depth_m[np.clip(rows, 0, depth_m.shape[0] - 1),
                          np.clip(columns, 0, depth_m.shape[1] - 1)]
        return np.where(np.isfinite(nearest) & (nearest > 0), nearest, 0).astype(np.float32)


def straight_camera(calibration: Calibration) -> PinholeCamera:
    """
    Return the camera without a lens that sees all the way to its edges what a bent one does.

    :param calibration: with a lens
    :return: of the same size
    :raises SpecError: the lens formula has no solution at the edges of the image
    """
    camera = calibration.camera
    width, height = camera.width_px, camera.height_px
    u, v = np.arange(width, dtype=float), np.arange(height, dtype=float)
    left, right = (calibration.rays(np.stack([np.full(height, x), v], -1))[:, 0]
                   for x in (0.0, width - 1.0))
    top, bottom = (calibration.rays(np.stack([u, np.full(width, y)], -1))[:, 1]
                   for y in (0.0, height - 1.0))
    fx_px = (width - 1) / (right.min() - left.max())
    fy_px = (height - 1) / (bottom.min() - top.max())
    return PinholeCamera(width, height, float(fx_px), float(fy_px), float(-left.max() * fx_px),
                         float(-top.max() * fy_px))


def lens_of(found: Survey, image: str, size: Tuple[int, int]) -> Lens:
    """
    Find the camera of a recording.

    :param found: in it
    :param image: topic of images
    :param size: width and height of pictures
    :return: the lens, without a camera where none is known; ``about`` says why
    """
    about: Dict[str, Any] = {}
    picture = found.pictures[image]
    name = found.roles.get('camera_info')
    calibration = None
    if name:
        try:
            calibration = read_info(found.infos[name], 'rect' in image, picture.size_px)
            if calibration.is_distorted:
                straight_camera(calibration.resized(*size))
        except (SpecError, KeyError) as error:
            calibration = None
            about['camera_left_out'] = str(error)
        if found.num_cameras.get(name, 0) > 1:
            about['camera_changes'] = found.num_cameras[name]
    problem = depth_problem(found, image)
    if problem:
        about['depth_left_out'] = problem
    return Lens(picture.size_px, size, calibration, not problem, about)


def read_info(msg: Any, is_rectified: bool, size_px: Tuple[int, int]) -> Calibration:
    """
    Read a sensor_msgs/CameraInfo for images of a size.

    :param msg: the message
    :param is_rectified: the images are, so P holds for them and no lens
    :param size_px: of the images; binning makes them smaller than the message says
    :return: the calibration
    :raises SpecError: no calibrated camera, or one of other images
    """
    width, height = int(msg.width) or size_px[0], int(msg.height) or size_px[1]
    k = np.asarray(msg.k, float).reshape(3, 3)
    p = np.asarray(msg.p, float).reshape(3, 4)
    if abs(width * size_px[1] / (height * size_px[0]) - 1.0) > ASPECT:
        raise SpecError(f'camera_info is of {width}x{height} pixels, the images have '
                        f'{size_px[0]}x{size_px[1]}.')
    if is_rectified and p[0, 0] > 0.0:
        return Calibration(camera_from_k(width, height, p[:, :3])).resized(*size_px)
    model, d = lens_of_ros(str(msg.distortion_model), [float(x) for x in msg.d])
    return Calibration(camera_from_k(width, height, k), model, d).resized(*size_px)


def depth_problem(found: Survey, image: str) -> str:
    """
    Say why depth does not lie over the images.

    :param found: in the recording
    :param image: topic of images
    :return: a sentence, '' where it does or where there is none
    """
    depth = found.roles.get('depth')
    if not depth:
        return ''
    ours, theirs = found.pictures[image], found.pictures[depth]
    if ours.frame == theirs.frame or 'aligned' in depth:
        return ''
    return (f'{depth} is seen from {theirs.frame or "an unnamed frame"}, the images from '
            f'{ours.frame or "another"}; record depth that is registered to the images '
            '(aligned_depth_to_color, depth_registered).')
