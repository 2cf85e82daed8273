# SPDX-License-Identifier: Apache-2.0
"""
How far a robot has to drive on the floor of a scene, around what stands there. NumPy only.

Any floor plan will do: what is asked for its grid takes that of the shipped rooms otherwise.
"""
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
ROOMS = FloorPlan(np.zeros(SHAPE, bool), RESOLUTION_M, (-RESOLUTION_M,) * 2)
CENTRES_M = ROOMS.centres_m()


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


def free_cells_of(plan: FloorPlan, radius_m: float) -> np.ndarray:
    """
    Say where a robot fits on a plan; where nobody has looked it does not.

    :param plan: of the floor
    :param radius_m: of the robot
    :return: (rows, columns) bool, whether it may stand in the middle of a cell
    """
    cells = int(np.ceil(radius_m / plan.resolution_m + 0.5))
    blocked = np.pad(plan.occupied, cells, constant_values=True)
    free = ~plan.occupied if plan.unknown is None else ~plan.occupied & ~plan.unknown
    rows, columns = free.shape
    for row in range(-cells, cells + 1):
        for column in range(-cells, cells + 1):
            # To the near side of a cell, half a cell before its middle.
            off_m = (np.hypot(row, column) - 0.5) * plan.resolution_m
            if off_m < radius_m - 1e-9:
                free &= ~blocked[cells + row:cells + row + rows,
                                 cells + column:cells + column + columns]
    return free


def largest_region(free: np.ndarray) -> np.ndarray:
    """
    Find the largest part of the floor in which every place can be reached from every other.

    :param free: (rows, columns) bool, where the robot fits
    :return: the same of that part; nowhere if it fits nowhere
    """
    none = free.size  # a label that is larger than any
    labels = np.where(np.pad(free, 1), np.pad(np.arange(free.size).reshape(free.shape), 1), none)
    here = labels[1:-1, 1:-1]
    while True:
        before = here.copy()
        for _ in range(LOOKS):
            beside = np.minimum(labels[:, :-2], labels[:, 2:])
            near = np.minimum(np.minimum(labels[:-2, 1:-1], labels[2:, 1:-1]), beside[1:-1])
            np.copyto(here, np.minimum(here, near), where=free)
        if np.array_equal(before, here):
            break
    found, sizes = np.unique(before[free], return_counts=True)
    return before == found[np.argmax(sizes)] if len(found) else free.copy()


def distances_to(zone: np.ndarray, free: np.ndarray,
                 resolution_m: float = RESOLUTION_M) -> np.ndarray:
    """
    Measure the shortest way from every cell to a zone, in steps to the eight cells around.

    Where the robot does not fit, the way out of there counts ``SLOW`` times: a potential made of
    this has a value and a slope wherever an imagined robot gets to.

    :param zone: (rows, columns) bool, where the way ends
    :param free: (rows, columns) bool, where the robot fits
    :param resolution_m: side of a cell
    :return: (rows, columns) float32 metres; 0 in the zone, infinite everywhere if it is empty
    """
    far_m = np.where(np.pad(zone, 1), np.float32(0), np.float32(np.inf))
    step_m = np.where(free, np.float32(resolution_m), np.float32(resolution_m * SLOW))
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


def looked_up(grids_m: np.ndarray, xy: np.ndarray, plan: FloorPlan = ROOMS) -> np.ndarray:
    """
    Read a grid of each row between its cells.

    :param grids_m: (n, rows, columns) float32
    :param xy: (n, 2) points in the scene frame [m]; beyond the grid the nearest inside counts
    :param plan: whose grid they have
    :return: (n,) float64
    """
    shift = -np.array(plan.origin_m) / plan.resolution_m - 0.5
    size = np.array(grids_m.shape[:0:-1])  # columns, rows
    place = np.clip(xy / plan.resolution_m + shift, 0.0, size - 1.000001)
    column, row = place.astype(int).T
    u, v = (place - np.floor(place)).T
    n = np.arange(len(grids_m))
    low = (1.0 - u) * grids_m[n, row, column] + u * grids_m[n, row, column + 1]
    high = (1.0 - u) * grids_m[n, row + 1, column] + u * grids_m[n, row + 1, column + 1]
    return (1.0 - v) * low + v * high
