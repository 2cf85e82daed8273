# SPDX-License-Identifier: Apache-2.0
"""
A small navigator: costs from a map and scans, A* over the grid, pure pursuit. No ROS.

It knows a map, its own pose and what a laser scanner sees, no more than Nav2 does. Poses are x, y
[m], yaw [rad] in the map. Grids are (rows, columns), rows along y.
"""
from dataclasses import dataclass
import heapq
from typing import Optional

import cv2
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.worlds.floor_plan import FloorPlan
import numpy as np

MARGIN_M = 0.04  # beyond the footprint that is kept free
SOFT_M, SOFT_COST = 0.35, 4.0  # beyond the margin it is dearer to drive, up to this much
KNOWN_M = 0.25  # so near to what is on the map is the map: predicted depth is off by 0.11 m RMS
MARK, ENOUGH, FADE = 1.0, 2.5, 0.6  # per scan; a cell is taken from ENOUGH on
STEPS = [(row, column, float(np.hypot(row, column)))
         for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]


@dataclass(frozen=True)
class Scan:
    """``ranges_m`` (n,) about z of the base, inf where nothing is, from ``angle_min`` on."""

    ranges_m: np.ndarray
    angle_min: float
    angle_increment: float
    range_min: float
    range_max: float


class Costmap:
    """What stands where: the map, and what scans saw besides."""

    def __init__(self, plan: FloorPlan, radius_m: float) -> None:
        """
        Begin with the map.

        :param plan: which cells are occupied
        :param radius_m: of the robot
        """
        self.plan, self.radius_m = plan, radius_m
        self._centres = plan.centres_m()
        self._marks = np.zeros(plan.occupied.shape)
        self._from_map_m = _distance_m(plan.occupied, plan.resolution_m)

    @property
    def seen(self) -> np.ndarray:
        """Cells that are taken by something that is not on the map, bool."""
        return self._marks >= ENOUGH

    def cell(self, xy: np.ndarray) -> tuple:
        """Return row and column of a point, inside the grid."""
        column, row = np.floor((np.asarray(xy)[:2] - self.plan.origin_m)
                               / self.plan.resolution_m).astype(int)
        rows, columns = self._marks.shape
        return int(np.clip(row, 0, rows - 1)), int(np.clip(column, 0, columns - 1))

    def centre(self, cell: tuple) -> np.ndarray:
        """Return the middle of a cell, (2,) metres."""
        return self._centres[cell]

    def look(self, scan: Scan, pose: np.ndarray) -> None:
        """
        Mark what a scan hits, and let fade what it looks through.

        :param scan: of the newest frame
        :param pose: (3,) of the base
        """
        local = se2.rotated(self._centres - pose[:2], -pose[2])
        away_m = np.hypot(local[..., 0], local[..., 1])
        index = np.rint((np.arctan2(local[..., 1], local[..., 0]) - scan.angle_min)
                        / scan.angle_increment).astype(int)
        in_view = (index >= 0) & (index < len(scan.ranges_m)) & (away_m > scan.range_min)
        free_to_m = np.minimum(scan.ranges_m, scan.range_max)[np.where(in_view, index, 0)]
        self._marks[in_view & (away_m < free_to_m - self.plan.resolution_m)] *= FADE
        hit = np.flatnonzero(np.isfinite(scan.ranges_m))
        angle = pose[2] + scan.angle_min + hit * scan.angle_increment
        ends = pose[:2] + scan.ranges_m[hit, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        cells = {self.cell(end) for end in ends}
        for cell in cells:
            if self._from_map_m[cell] > KNOWN_M:
                self._marks[cell] = min(self._marks[cell] + MARK, 4.0)

    def distance_m(self) -> np.ndarray:
        """Return how far each cell is from what is taken, metres."""
        return _distance_m(self.plan.occupied | self.seen, self.plan.resolution_m)

    def touches(self, pose: np.ndarray, reach_m: float) -> str:
        """
        Say what the robot can have touched.

        :param pose: (3,) of the base
        :param reach_m: beyond the footprint
        :return: ``map`` for what is on the map, ``scan`` for what a scan saw, else ``unseen``
        """
        away_m = np.hypot(*np.moveaxis(self._centres - pose[:2], -1, 0))
        near = away_m < self.radius_m + reach_m
        if (near & self.plan.occupied).any():
            return 'map'
        return 'scan' if (near & (self._marks >= MARK)).any() else 'unseen'


def _distance_m(taken: np.ndarray, resolution_m: float) -> np.ndarray:
    return cv2.distanceTransform((~taken).astype(np.uint8), cv2.DIST_L2,
                                 cv2.DIST_MASK_PRECISE) * resolution_m


def plan_path(costmap: Costmap, start: np.ndarray, goal: np.ndarray) -> Optional[np.ndarray]:
    """
    Find the cheapest way for the footprint, by A*.

    :param costmap: what is in the way
    :param start: (2,) or (3,) metres; what is too near to it is driven out of
    :param goal: (2,) metres
    :return: (n, 2) metres, from start to goal; None if there is no way
    """
    away_m, first, last = costmap.distance_m(), costmap.cell(start), costmap.cell(goal)
    lethal_m = costmap.radius_m + MARGIN_M
    blocked = away_m < lethal_m
    blocked &= ~((away_m >= away_m[first]) & (np.hypot(*np.moveaxis(
        costmap.plan.centres_m() - np.asarray(start)[:2], -1, 0)) < 0.5))  # a way out
    blocked[first] = False
    if blocked[last]:
        return None
    weight = 1.0 + SOFT_COST * np.clip(1.0 - (away_m - lethal_m) / SOFT_M, 0.0, 1.0)
    rows, columns = blocked.shape
    best, came_from = {first: 0.0}, {}
    queue = [(0.0, first)]
    while queue:
        _, at = heapq.heappop(queue)
        if at == last:
            cells = [at]
            while at in came_from:
                at = came_from[at]
                cells.append(at)
            return np.array([costmap.centre(cell) for cell in reversed(cells)])
        for d_row, d_column, length in STEPS:
            to = at[0] + d_row, at[1] + d_column
            if not (0 <= to[0] < rows and 0 <= to[1] < columns) or blocked[to]:
                continue
            cost = best[at] + length * weight[to]
            if cost < best.get(to, np.inf):
                best[to], came_from[to] = cost, at
                ahead = np.hypot(to[0] - last[0], to[1] - last[1])
                heapq.heappush(queue, (cost + ahead, to))
    return None


@dataclass(frozen=True)
class Pursuit:
    """Pure pursuit: drive the arc to a point of the path that far ahead; turn first if beside."""

    lookahead_m: float = 0.45
    speed_mps: float = 0.4
    turn_radps: float = 0.9
    turn_first_rad: float = 0.9

    def command(self, path: np.ndarray, pose: np.ndarray) -> tuple:
        """
        Say how to go on.

        :param path: (n, 2) metres
        :param pose: (3,) of the base
        :return: v_x [m/s], w_z [rad/s]
        """
        away_m = np.hypot(*(path - pose[:2]).T)
        nearest = int(away_m.argmin())
        beyond = np.flatnonzero(away_m[nearest:] > self.lookahead_m)
        target = path[nearest + beyond[0]] if len(beyond) else path[-1]
        x, y = se2.rotated(target - pose[:2], -pose[2])
        bearing, square = np.arctan2(y, x), x * x + y * y
        if abs(bearing) > self.turn_first_rad:
            return 0.0, float(np.copysign(self.turn_radps, bearing))
        curvature = 2.0 * y / max(square, 1e-6)
        speed = self.speed_mps * min(1.0, np.sqrt(square) / self.lookahead_m + 0.2)
        speed = min(speed, self.turn_radps / max(abs(curvature), 1e-6))
        return float(speed), float(np.clip(speed * curvature, -self.turn_radps, self.turn_radps))
