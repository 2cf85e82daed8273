# SPDX-License-Identifier: Apache-2.0
"""How far a robot has to drive on the floor of a scene, around what stands there. NumPy only."""
from functools import lru_cache

from lingbot_world_ros.robots.robot import Footprint
from lingbot_world_ros.worlds.floor_plan import FloorPlan
from lingbot_world_ros.worlds.scenes import get_scene, SCENES
import numpy as np

RESOLUTION_M = 0.1
SLOW = 4.0  # a metre through where the robot does not fit counts as so many
# A grid that holds every shipped scene, with one row of cells around it.
SHAPE = tuple(int(np.ceil(max(get_scene(name).size_m[axis] for name in SCENES) / RESOLUTION_M)) + 2
              for axis in (1, 0))
LOOKS = 8  # at the neighbours, before it is asked whether anything changed
CENTRES_M = FloorPlan(np.zeros(SHAPE, bool), RESOLUTION_M, (-RESOLUTION_M,) * 2).centres_m()


@lru_cache(maxsize=None)
def free_cells(scene: str, footprint: Footprint) -> np.ndarray:
    """
    Say where a robot fits.

    :param scene: name of a shipped one
    :param footprint: of the robot
    :return: ``SHAPE`` bool, whether it may stand in the middle of a cell
    """
    clearance_m = get_scene(scene).clearance_m(CENTRES_M, footprint.height_m)
    return clearance_m >= footprint.radius_m


def distances_to(zone: np.ndarray, free: np.ndarray) -> np.ndarray:
    """
    Measure the shortest way from every cell to a zone, in steps to the eight cells around.

    Where the robot does not fit, the way out of there counts ``SLOW`` times: a potential made of
    this has a value and a slope wherever an imagined robot gets to.

    :param zone: ``SHAPE`` bool, where the way ends
    :param free: ``SHAPE`` bool, where the robot fits
    :return: ``SHAPE`` float32 metres; 0 in the zone, infinite everywhere if it is empty
    """
    far_m = np.where(np.pad(zone, 1), np.float32(0), np.float32(np.inf))
    step_m = np.where(free, np.float32(RESOLUTION_M), np.float32(RESOLUTION_M * SLOW))
    diagonal_m = step_m * np.float32(np.sqrt(2))
    here_m, above_m, below_m = far_m[1:-1, 1:-1], far_m[:-2, 1:-1], far_m[2:, 1:-1]
    while True:
        before = here_m.copy()
        for _ in range(LOOKS):
            beside_m = np.minimum(far_m[:, :-2], far_m[:, 2:])
            straight = np.minimum(np.minimum(above_m, below_m), beside_m[1:-1]) + step_m
            across = np.minimum(beside_m[:-2], beside_m[2:]) + diagonal_m
            np.minimum(here_m, np.minimum(straight, across), out=here_m)
        if np.array_equal(before, here_m):
            return before


def looked_up(grids_m: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """
    Read a grid of each row between its cells.

    :param grids_m: (n, rows, columns) float32
    :param xy: (n, 2) points in the scene frame [m]; beyond the grid the nearest inside counts
    :return: (n,) float64
    """
    place = np.clip(xy / RESOLUTION_M + 0.5, 0.0, np.array(SHAPE[::-1]) - 1.000001)
    column, row = place.astype(int).T
    u, v = (place - np.floor(place)).T
    n = np.arange(len(grids_m))
    low = (1.0 - u) * grids_m[n, row, column] + u * grids_m[n, row, column + 1]
    high = (1.0 - u) * grids_m[n, row + 1, column] + u * grids_m[n, row + 1, column + 1]
    return (1.0 - v) * low + v * high
