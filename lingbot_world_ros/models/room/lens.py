# SPDX-License-Identifier: Apache-2.0
"""
What the observation model has to know of the camera: its rays, and what its pixels measure.

The network is the same for every size of picture; these arrays are what differs. NumPy only.
"""
from math import gcd
from typing import Dict

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se3
from lingbot_world_ros.geometry.camera import MountedCamera, PinholeCamera
import numpy as np

COARSE = 4  # image pixels per start ray and axis
SMALLEST_PX, LARGEST_PX = (48, 36), (192, 144)  # beyond, scaling is better
LENS_TENSORS = ('rays', 'rays_half', 'rays_coarse', 'pixels_half', 'optical_from_base', 'lens')


def lens_tensors(camera: MountedCamera) -> Dict[str, np.ndarray]:
    """
    Work out the constants of a camera, in float64, rounded once.

    :param camera: that sees; square pixels, width and height multiples of ``COARSE``
    :return: float32 arrays by name: ``rays``, ``rays_half``, ``rays_coarse`` (4, h, w) directions
        in base axes whose optical z is 1, and their length, of pixels and of the middles of blocks
        of 2 and ``COARSE`` pixels; ``pixels_half`` (2, h, w) where those blocks of 2 are;
        ``optical_`` and their names the same in the axes of the camera;
        ``optical_from_base`` (4, 4); ``lens`` (9,): position in base_link [m], half the diagonal
        of a start ray's block per metre of depth, focal length, centre u, v [px], pixels of 3 cm
        at 1 m, square of the focal length
    """
    focal = camera.fx_px
    spread = 0.5 * COARSE * 2.0 ** 0.5 / focal
    out = {'optical_from_base': se3.inverse(camera.T_base_optical),
           'pixels_half': np.moveaxis(camera.pixel_grid(2), -1, 0),
           'lens': np.array([*camera.position_m, spread, focal, camera.cx_px, camera.cy_px,
                             focal * 0.03, focal ** 2])}
    for name, step in (('rays', 1), ('rays_half', 2), ('rays_coarse', COARSE)):
        rays = camera.rays(camera.pixel_grid(step))
        turned = (rays.reshape(-1, 3) @ camera.T_base_optical[:3, :3].T).astype(np.float32)
        rows = np.stack([*turned.T, _length(turned)])
        out[name] = rows.reshape(4, *rays.shape[:2])
        own = rays.reshape(-1, 3).astype(np.float32)
        out[f'optical_{name}'] = np.stack([*own.T, _length(own)]).reshape(4, *rays.shape[:2])
    return {name: np.ascontiguousarray(value, np.float32) for name, value in out.items()}


def _length(rays: np.ndarray) -> np.ndarray:
    """Return the length of float32 rays (n, 3), rounded as fused multiply-adds round it."""
    total = np.zeros(len(rays), np.float32)
    for column in rays.T.astype(np.float64):
        total = (column * column + total).astype(np.float32)
    return np.sqrt(total)


def check_camera(camera: MountedCamera, learned: MountedCamera) -> None:
    """
    Refuse a camera whose picture cannot be drawn in its own pixels.

    :param camera: asked for
    :param learned: in whose pictures the weights were trained
    :raises SpecError: it is not the learned one in a size that can be drawn; says which can
    """
    size = camera.width_px, camera.height_px
    problem = why_not_drawn(learned, *size)
    if problem:
        raise SpecError(problem)
    same_place = (camera.position_m, camera.rpy_rad) == (learned.position_m, learned.rpy_rad)
    if not same_place or not np.allclose(camera.k, learned.resized(*size).k, rtol=1e-6):
        raise SpecError('camera: this world has learned to see through one camera; its size may '
                        'be another, its place and field of view may not.')


def why_not_drawn(learned: PinholeCamera, width_px: int, height_px: int) -> str:
    """
    Say why pictures of a size cannot be drawn.

    :param learned: the camera of the weights, whose aspect ratio stays
    :param width_px: of the picture
    :param height_px: of the picture
    :return: a sentence that says which can; '' where it can
    """
    fits = not (width_px % COARSE or height_px % COARSE) and (
        width_px * learned.height_px == height_px * learned.width_px)
    if fits and SMALLEST_PX[0] <= width_px <= LARGEST_PX[0]:
        return ''
    common = gcd(learned.width_px, learned.height_px)
    (low_w, low_h), (high_w, high_h) = SMALLEST_PX, LARGEST_PX
    return (f'pictures of {width_px}x{height_px}: this world draws sizes of '
            f'{learned.width_px // common}:{learned.height_px // common} whose width and height '
            f'are multiples of {COARSE}, from {low_w}x{low_h} to {high_w}x{high_h}, such as '
            '80x60.')
