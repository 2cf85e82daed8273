# SPDX-License-Identifier: Apache-2.0
"""
A depth image as a laser scanner would see it: ranges over angles. NumPy only.

Depth becomes points in the base frame; of those between two heights the nearest of each direction
counts. The robot's own arm is taken out, and so are points on the edge between near and far,
where a pixel shows a depth at which nothing stands.
"""
from typing import Optional, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import MountedCamera
import numpy as np

OWN_RADIUS_M = 0.09  # around the lines that stand for the robot's links
JUMP = 0.05  # of the depth: a pixel that far from both its neighbours hangs between them


class DepthScan:
    """
    Turn depth images of one camera into ranges over angles.

    ``angle_min``, ``angle_max`` and ``angle_increment`` [rad] are those of LaserScan, about z of
    the base frame and cover the camera's horizontal field of view. What is beside that is left
    out: only what is near can be seen there, so silence would not mean free.
    """

    def __init__(self, camera: MountedCamera, *, min_height_m: float, max_height_m: float,
                 min_range_m: float, max_range_m: float):
        """
        Work out where each pixel looks.

        :param camera: whose depth is read, mounted on the base and looking ahead
        :param min_height_m: lowest point that counts, over the floor
        :param max_height_m: highest point that counts
        :param min_range_m: nearer than this is the robot itself
        :param max_range_m: beyond this there is nothing
        :raises SpecError: an empty band of heights or ranges
        """
        for name, low, high in (('height', min_height_m, max_height_m),
                                ('range', min_range_m, max_range_m)):
            if not low < high:
                raise SpecError(f'scan_max_{name}_m={high:g} must be more than {low:g}.')
        self.range_min, self.range_max = min_range_m, max_range_m
        self._heights = min_height_m, max_height_m
        rays = camera.rays(camera.pixel_grid()).reshape(-1, 3) @ camera.T_base_optical[:3, :3].T
        self._rays = rays.T.astype(np.float32)  # 3 h*w: per metre of depth
        self._origin = camera.T_base_optical[:3, 3].astype(np.float32)
        self.angle_increment = 1.0 / camera.fx_px
        half_view = np.arctan(0.5 * camera.width_px / camera.fx_px)
        self.num_angles = 2 * int(half_view / self.angle_increment) + 1
        self.angle_max = self.num_angles // 2 * self.angle_increment
        self.angle_min = -self.angle_max

    def ranges(self, depth_m: np.ndarray, own_m: Optional[np.ndarray] = None) -> np.ndarray:
        """
        Return the nearest range in every direction.

        :param depth_m: (h, w) float32, metres along the optical axis
        :param own_m: (s, 2, 3) ends of the robot's links in the base frame, metres
        :return: (num_angles,) float32 metres, inf where nothing is
        """
        points, distance = self._points(depth_m.reshape(-1), _hanging(depth_m).reshape(-1))
        if own_m is not None:
            foreign = np.flatnonzero(~_near_links(points, distance, own_m))
            points, distance = points.take(foreign, 1), distance.take(foreign)
        # In 64 bits and from the middle, or rounding puts what is dead ahead into a neighbour too.
        angle = np.arctan2(points[1], points[0]).astype(np.float64)
        place = angle / self.angle_increment + self.num_angles // 2
        ranges = np.full(self.num_angles, np.inf, np.float32)
        # A pixel is about as wide as a reading: it counts in both that it lies between.
        for index in (np.floor(place).astype(np.intp), np.ceil(place).astype(np.intp)):
            seen = (index >= 0) & (index < self.num_angles)
            np.minimum.at(ranges, index[seen], distance[seen])
        return ranges

    def _points(self, depth_m: np.ndarray, hanging: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Points (3, n) of the base frame that count, and their distance (n,) on the floor."""
        height = self._rays[2] * depth_m + self._origin[2]
        chosen = np.flatnonzero((height >= self._heights[0]) & (height <= self._heights[1])
                                & ~hanging)
        x, y = (self._rays[i].take(chosen) * depth_m.take(chosen) + self._origin[i]
                for i in (0, 1))
        points, distance = np.stack([x, y, height.take(chosen)]), np.sqrt(x * x + y * y)
        chosen = np.flatnonzero((distance >= self.range_min) & (distance <= self.range_max))
        return points.take(chosen, 1), distance.take(chosen)


def _hanging(depth_m: np.ndarray) -> np.ndarray:
    """Pixels (h, w) well behind one neighbour and well before the opposite one."""
    hanging = np.zeros(depth_m.shape, bool)
    for axis in (0, 1):
        d = np.moveaxis(depth_m, axis, 0)
        before, after = d[1:-1] - d[:-2], d[2:] - d[1:-1]
        jump = JUMP * d[1:-1]
        np.moveaxis(hanging, axis, 0)[1:-1] |= (
            (np.minimum(before, after) > jump) | (np.maximum(before, after) < -jump))
    return hanging


def _near_links(points: np.ndarray, distance: np.ndarray, links_m: np.ndarray) -> np.ndarray:
    """Points (3, n) that belong to links (s, 2, 3): bool (n,)."""
    start, along = links_m[:, 0], links_m[:, 1] - links_m[:, 0]
    reach_m = np.hypot(links_m[..., 0], links_m[..., 1]).max() + OWN_RADIUS_M
    near = np.flatnonzero(distance < reach_m)
    offset = points[:, near].T[:, None] - start  # n s 3
    share = (offset * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-12)
    offset -= np.clip(share, 0.0, 1.0)[..., None] * along
    own = np.zeros(len(distance), bool)
    own[near] = ((offset * offset).sum(-1) < OWN_RADIUS_M ** 2).any(-1)
    return own
