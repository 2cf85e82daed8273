# SPDX-License-Identifier: Apache-2.0
"""The floor plan of a scene as a grid: where a robot of some height cannot be. NumPy only."""
from dataclasses import dataclass
from typing import Optional

from lingbot_world_ros.worlds.scenes import Scene
import numpy as np


@dataclass(frozen=True)
class FloorPlan:
    """
    Which cells something solid stands in.

    ``occupied`` (rows, columns) bool: rows along y, columns along x of the scene frame;
    ``resolution_m`` is the side of a cell, ``origin_m`` the outer corner of cell (0, 0);
    ``unknown`` are cells that nobody has looked at, None where there is none.
    """

    occupied: np.ndarray
    resolution_m: float
    origin_m: tuple
    unknown: Optional[np.ndarray] = None

    def centres_m(self) -> np.ndarray:
        """Return the centres of all cells, (rows, columns, 2) float64 x, y in the scene frame."""
        rows, columns = self.occupied.shape
        x = self.origin_m[0] + (np.arange(columns) + 0.5) * self.resolution_m
        y = self.origin_m[1] + (np.arange(rows) + 0.5) * self.resolution_m
        return np.stack(np.meshgrid(x, y), -1)


def floor_plan(scene: Scene, height_m: float, resolution_m: float) -> FloorPlan:
    """
    Draw the walls and what stands still; movable objects are left out.

    Every cell that something solid reaches into is occupied, so that nothing is lost that is
    thinner than a cell, and no cell whose centre is farther from it than a cell.

    :param scene: the scene
    :param height_m: of the robot; what hangs higher is not in its way
    :param resolution_m: side of a cell, more than 0
    :return: the grid, with one row of cells behind each wall
    """
    columns, rows = (int(np.ceil(side_m / resolution_m)) + 2 for side_m in scene.size_m)
    blank = FloorPlan(np.zeros((rows, columns), bool), resolution_m,
                      (-resolution_m, -resolution_m))
    clearance_m = scene.clearance_m(blank.centres_m(), height_m)
    # Half a diagonal: what is nearer to the centre may reach into the cell.
    return FloorPlan(clearance_m < np.sqrt(0.5) * resolution_m, resolution_m, blank.origin_m)


def resampled(plan: FloorPlan, resolution_m: float) -> FloorPlan:
    """
    Give a plan cells of another size; what is occupied in part is occupied.

    :param plan: of any cells
    :param resolution_m: side of a cell, more than 0
    :return: of the same place; the plan itself where its cells are that size
    """
    if abs(plan.resolution_m - resolution_m) < 1e-6:
        return plan
    rows, columns = (int(np.ceil(n * plan.resolution_m / resolution_m - 1e-9))
                     for n in plan.occupied.shape)
    unknown = np.zeros_like(plan.occupied) if plan.unknown is None else plan.unknown
    occupied, known = np.zeros((rows, columns), bool), np.zeros((rows, columns), bool)
    # Points no farther apart than the smaller of both cells.
    step = min(plan.resolution_m, resolution_m)
    y, x = (np.arange(0.5 * step, n * plan.resolution_m, step) for n in plan.occupied.shape)
    old = np.ix_(*(np.minimum((at / plan.resolution_m).astype(int), n - 1)
                   for at, n in zip((y, x), plan.occupied.shape)))
    new = np.ix_(*(np.minimum((at / resolution_m).astype(int), n - 1)
                   for at, n in zip((y, x), (rows, columns))))
    np.logical_or.at(occupied, new, plan.occupied[old])
    np.logical_or.at(known, new, ~unknown[old])
    return FloorPlan(occupied, resolution_m, plan.origin_m, ~known & ~occupied)
