# SPDX-License-Identifier: Apache-2.0
"""
Depth images with poses -> a signed distance grid of a place nobody modelled.

A projective truncated distance is averaged over all views, weighted by the noise of depth; its
zero crossings are the surface, and every corner takes its distance to the nearest one. Axes: n
frame, h w image, x y z grid.

Source: Curless and Levoy 1996; noise model of structured-light sensors (Khoshelham 2012).
"""
from dataclasses import dataclass
from typing import Callable, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.geometry.se3 import inverse
import numpy as np
from scipy.spatial import cKDTree

MARGIN_M = 0.2  # of the grid beyond what was seen
TRUNCATION = 3.0  # voxels
MAX_CORNERS = 6_000_000
BEHIND_M = 0.15  # so far behind a surface what nobody saw is solid


@dataclass(frozen=True)
class Grid:
    """Where a grid lies: ``shape`` corners, ``voxel_m`` apart, the first at ``-MARGIN_M``."""

    shape: Tuple[int, int, int]
    voxel_m: float

    @property
    def extent_m(self) -> np.ndarray:
        """From the first corner to the last, (3,)."""
        return (np.array(self.shape) - 1) * self.voxel_m

    def corners(self) -> np.ndarray:
        """Return all corners, (x * y * z, 3) float32 metres."""
        axes = [np.arange(n, dtype=np.float32) * self.voxel_m - MARGIN_M for n in self.shape]
        return np.stack(np.meshgrid(*axes, indexing='ij'), -1).reshape(-1, 3)


@dataclass(frozen=True)
class Fused:
    """``sdf`` (x, y, z) float32 metres, positive in free space; ``seen`` bool, by any frame."""

    sdf: np.ndarray
    seen: np.ndarray
    surface: np.ndarray  # (m, 3) points of the surface


def grid_for(size_m: np.ndarray, voxel_m: float = 0.05) -> Grid:
    """
    Lay a grid over a place whose lowest corner is the origin.

    :param size_m: (3,) extent of what was seen
    :param voxel_m: asked for; larger where that were too many
    :return: the grid
    :raises SpecError: the place is larger than a map can be
    """
    whole = np.asarray(size_m) + 2 * MARGIN_M
    if not np.isfinite(whole).all() or (whole <= 0).any() or whole.max() > 200.0:
        raise SpecError(f'The place would be {whole[0]:.0f} x {whole[1]:.0f} m: poses or depth '
                        'cannot be right; look at them with "lingbot-world inspect".')
    voxel_m = max(voxel_m, float((whole.prod() / MAX_CORNERS) ** (1 / 3)))
    nx, ny, nz = (int(n) for n in np.ceil(whole / voxel_m).astype(int) + 1)
    return Grid((nx, ny, nz), voxel_m)


def fuse(grid: Grid, frames: Callable[[int], Tuple[np.ndarray, np.ndarray]], num_frames: int,
         camera: PinholeCamera, on_progress: Callable[[int, int], None] = lambda a, b: None
         ) -> Fused:
    """
    Average depth images.

    :param grid: to fill
    :param frames: index -> depth (h, w) with 0 for none, and T_scene_optical (4, 4)
    :param num_frames: of them
    :param camera: that took them
    :param on_progress: called with frames done and their number
    :return: the distances
    :raises SpecError: no surface was seen
    """
    corners = grid.corners()
    reach = TRUNCATION * grid.voxel_m
    total, weight = np.zeros(len(corners), np.float32), np.zeros(len(corners), np.float32)
    focal = np.float32(camera.fx_px), np.float32(camera.fy_px)
    for i in range(num_frames):
        depth, T_scene_optical = frames(i)
        T = inverse(T_scene_optical).astype(np.float32)
        # One row at a time of the product: most corners are behind the camera.
        z = corners @ T[2, :3] + T[2, 3]
        far = np.float32(depth.max() + reach)
        index = np.flatnonzero((z > 0.1) & (z < far))
        near, z = corners[index], z[index]
        x, y = near @ T[0, :3] + T[0, 3], near @ T[1, :3] + T[1, 3]
        u = np.rint(focal[0] * x / z + np.float32(camera.cx_px)).astype(np.int32)
        v = np.rint(focal[1] * y / z + np.float32(camera.cy_px)).astype(np.int32)
        inside = (u >= 0) & (u < camera.width_px) & (v >= 0) & (v < camera.height_px)
        index, z, u, v = index[inside], z[inside], u[inside], v[inside]
        seen = depth[v, u]
        # Along the ray, not along the axis: distance to what the pixel hit.
        off = seen - z
        good = (seen > 0) & (off > -reach)
        index, off, seen = index[good], off[good], seen[good]
        w = 1.0 / (0.004 + 0.0025 * seen * seen) ** 2
        w = np.where(off < reach, w, 0.3 * w).astype(np.float32)
        total[index] += w * np.minimum(off, reach).astype(np.float32)
        weight[index] += w
        on_progress(i + 1, num_frames)
    return _redistanced(grid, corners, total / np.maximum(weight, 1e-12), weight)


def _redistanced(grid: Grid, corners: np.ndarray, mean: np.ndarray,
                 weight: np.ndarray) -> Fused:
    """Turn projective distances into distances to the surface where they change their sign."""
    value, known = mean.reshape(grid.shape), (weight > 0).reshape(grid.shape)
    points, normals = [], []
    reach = 0.99 * TRUNCATION * grid.voxel_m
    for axis in range(3):
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        low[axis], high[axis] = slice(0, -1), slice(1, None)
        a, b = value[tuple(low)], value[tuple(high)]
        cross = known[tuple(low)] & known[tuple(high)] & ((a > 0) != (b > 0)) \
            & (np.maximum(np.abs(a), np.abs(b)) < reach)
        where = np.argwhere(cross).astype(np.float32)
        where[:, axis] += a[cross] / (a[cross] - b[cross])
        points.append(where * grid.voxel_m - MARGIN_M)
        normal = np.zeros_like(where)
        normal[:, axis] = np.sign(a[cross] - b[cross])
        normals.append(normal)
    surface = np.concatenate(points).astype(np.float32)
    if len(surface) < 100:
        raise SpecError('No surface came out of the depth images: they are empty, or poses and '
                        'images do not belong together.')
    tree = cKDTree(surface)
    distance, index = tree.query(corners, workers=1)
    distance = distance.astype(np.float32)
    beyond = ((corners - surface[index]) * np.concatenate(normals)[index]).sum(1) > 0
    # Normals point into the solid: from where the sign was positive to where it was not.
    solid = np.where(known.ravel(), value.ravel() <= 0, beyond & (distance < BEHIND_M))
    return Fused(np.where(solid, -distance, distance).reshape(grid.shape), known, surface)
