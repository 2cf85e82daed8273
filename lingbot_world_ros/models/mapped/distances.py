# SPDX-License-Identifier: Apache-2.0
"""
The distance grid of a learned place: how far from any surface a point is. NumPy only.

Axes: m point, x y z grid.
"""
from pathlib import Path
from typing import Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.mapped.runtime import MAP
import numpy as np
from safetensors.numpy import load_file


class Distances:
    """Signed distances at the corners of a grid, positive in the open."""

    def __init__(self, sdf: np.ndarray, low_m: np.ndarray, step_m: np.ndarray) -> None:
        """
        Take a grid.

        :param sdf: (x, y, z) metres
        :param low_m: (3,) where its first corner is, scene frame
        :param step_m: (3,) from one corner to the next
        """
        self.sdf = np.asarray(sdf, np.float32)
        self.low_m, self.step_m = np.asarray(low_m, np.float64), np.asarray(step_m, np.float64)

    def at(self, xyz: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Look distances up, between corners.

        :param xyz: (m, 3) scene frame
        :return: (m,) metres, (m, 2) how they change along x and y, (m,) bool: inside the grid
        """
        place = (xyz - self.low_m) / self.step_m
        last = np.array(self.sdf.shape) - 1
        inside = np.all((place >= 0) & (place <= last), axis=1)
        place = np.clip(place, 0, last - 1e-6)
        corner = place.astype(int)
        (i, j, k), (u, v, w) = corner.T, (place - corner).T
        # Along z first; what is left is a square.
        a, b, c, d = ((1 - w) * self.sdf[i + p, j + q, k] + w * self.sdf[i + p, j + q, k + 1]
                      for p, q in ((0, 0), (1, 0), (0, 1), (1, 1)))
        value = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * c + u * d)
        slope = np.stack([(1 - v) * (b - a) + v * (d - c), (1 - u) * (c - a) + u * (d - b)], -1)
        return value, slope / self.step_m[:2], inside

    def table(self, reach_m: float) -> np.ndarray:
        """
        Return distances to look up without checking: capped, with a border of the cap around.

        :param reach_m: the cap
        :return: (x + 2, y + 2, z + 2) float32
        """
        return np.pad(np.minimum(np.abs(self.sdf), np.float32(reach_m)), 1,
                      constant_values=reach_m)


def load_distances(folder: Path) -> Distances:
    """
    Read the grid of a world.

    :param folder: of the world
    :return: its distances
    :raises SpecError: unreadable
    """
    path = Path(folder) / MAP
    try:
        file = load_file(path)
        grid, sdf = file['grid'].astype(np.float64), file['sdf']
        return Distances(sdf, np.full(3, grid[3]), grid[4:7] / (np.array(sdf.shape) - 1))
    except Exception as error:  # the library raises its own, undocumented types
        raise SpecError(f'{path} cannot be read ({error}). Learn the world again, or restore the '
                        'folder.') from error
