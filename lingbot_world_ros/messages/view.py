# SPDX-License-Identifier: Apache-2.0
"""
The camera the user asked for, cut out of the image the engine predicts.

Both look from the same place in the same direction; size, field of view and lens may differ. What
is asked for must lie inside what the engine sees: nothing is made up at the edges.
"""
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.robots.calibration import Calibration, load_calibration
import numpy as np

EDGE_TOLERANCE_PX = 1e-3  # of the engine's image


class View:
    """Map the engine's image to another camera; the same arrays come out where nothing changes."""

    def __init__(self, camera: PinholeCamera, calibration: Calibration):
        """
        Prepare the maps; ``image`` and ``depth`` only look them up.

        :param camera: of the engine
        :param calibration: of the camera to show
        :raises SpecError: it sees what the engine does not
        """
        self.calibration = calibration
        self._maps = None
        if calibration.is_distorted or not _same_image(calibration.camera, camera):
            self._prepare(camera)

    def image(self, rgb: np.ndarray) -> np.ndarray:
        """
        Show a colour image.

        :param rgb: (h, w, 3) uint8 of the engine
        :return: (height_px, width_px, 3) uint8; the argument itself where nothing changes
        """
        if self._maps is None:
            return rgb
        import cv2
        if self._shrunk is not None:
            rgb = cv2.resize(rgb, self._shrunk, interpolation=cv2.INTER_AREA)
        return cv2.remap(rgb, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def depth(self, depth_m: np.ndarray) -> np.ndarray:
        """
        Show a depth image; values are picked, never mixed across an edge.

        :param depth_m: (h, w) float32, metres along the optical axis
        :return: (height_px, width_px) float32; the argument itself where nothing changes
        """
        return depth_m if self._maps is None else depth_m.reshape(-1)[self._nearest]

    def _prepare(self, engine: PinholeCamera) -> None:
        import cv2
        _check_inside(engine, self.calibration)
        source = engine.project(self.calibration.rays(self.calibration.camera.pixel_grid()))
        size = np.array([engine.width_px, engine.height_px])
        column, row = np.moveaxis(np.clip(np.rint(source), 0, size - 1).astype(np.intp), -1, 0)
        self._nearest = row * engine.width_px + column
        # Linear interpolation looks at two pixels an axis: what is shrunk more is averaged first.
        pitch = [np.median(np.abs(np.diff(source[..., i], axis=1 - i))) if source.shape[1 - i] > 1
                 else 1.0 for i in range(2)]
        shrunk = size // np.maximum(np.floor(pitch), 1).astype(int)
        self._shrunk = None if (shrunk == size).all() else tuple(shrunk.tolist())
        source = (source + 0.5) * (shrunk / size) - 0.5
        self._maps = cv2.convertMaps(  # type: ignore[call-overload]  # no second map is needed
            source.astype(np.float32), None, cv2.CV_16SC2)


def make_view(camera: PinholeCamera, *, camera_info_url: str = '', field_of_view_deg: float = 0.0,
              image_width: int = 0, image_height: int = 0) -> View:
    """
    Choose the camera to show from the parameters of the same names.

    :param camera: of the engine
    :param camera_info_url: calibration file, '' for none
    :param field_of_view_deg: horizontal, of a camera with square pixels; 0: not asked for
    :param image_width: pixels, 0: as the calibration or the engine has it
    :param image_height: pixels, 0: likewise
    :return: the view
    :raises SpecError: two ways at once, an unusable file, or the engine does not see it all
    """
    if camera_info_url and field_of_view_deg:
        raise SpecError(f'camera_info_url={camera_info_url!r} and '
                        f'field_of_view_deg={field_of_view_deg:g} both say what the camera sees; '
                        'set one of them.')
    calibration = Calibration(camera)
    if camera_info_url:
        calibration = load_calibration(camera_info_url)
    if field_of_view_deg:
        width_px, height_px = image_width or camera.width_px, image_height or camera.height_px
        calibration = Calibration(PinholeCamera.from_fovx(width_px, height_px,
                                                          np.deg2rad(field_of_view_deg)))
    return View(camera, calibration.resized(image_width, image_height))


def _same_image(a: PinholeCamera, b: PinholeCamera) -> bool:
    return (a.width_px, a.height_px) == (b.width_px, b.height_px) and np.allclose(a.k, b.k)


def _check_inside(engine: PinholeCamera, calibration: Calibration) -> None:
    """Compare the outer edges of both images, in pixels of the engine's."""
    asked = calibration.camera
    columns, rows = np.arange(asked.width_px + 1) - 0.5, np.arange(asked.height_px + 1) - 0.5
    top, left = (np.stack(np.broadcast_arrays(columns, -0.5), -1),
                 np.stack(np.broadcast_arrays(-0.5, rows), -1))
    edge = np.vstack([top, left, top + [0.0, asked.height_px], left + [asked.width_px, 0.0]])
    seen = engine.project(calibration.rays(edge))
    low, high = seen.min(0), seen.max(0)
    limit = np.array([engine.width_px, engine.height_px]) - 0.5
    if (low > -0.5 - EDGE_TOLERANCE_PX).all() and (high < limit + EDGE_TOLERANCE_PX).all():
        return
    (wide, tall), (engine_wide, engine_tall) = (
        np.rad2deg(camera.field_of_view_rad) for camera in (asked, engine))
    raise SpecError(
        f'the camera asked for ({asked.width_px}x{asked.height_px}, {wide:.1f} x {tall:.1f} '
        f'degrees) sees more than the engine ({engine.width_px}x{engine.height_px}, '
        f'{engine_wide:.1f} x {engine_tall:.1f} degrees): its edges are at columns {low[0]:.1f} '
        f'to {high[0]:.1f} and rows {low[1]:.1f} to {high[1]:.1f} there; ask for a smaller field '
        'of view, another aspect ratio or another calibration.')
