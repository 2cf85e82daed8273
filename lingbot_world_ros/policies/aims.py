# SPDX-License-Identifier: Apache-2.0
"""
What a plan is for: the goal of a task, or a pose. Says how near imagined candidates are.

NumPy only. Axes: c candidates.
"""
from abc import ABC, abstractmethod
from typing import Tuple

from lingbot_world_ros.engines.interface import Observation
from lingbot_world_ros.envs.floor_distance import (CENTRES_M, distances_to, free_cells, looked_up,
                                                   RESOLUTION_M)
from lingbot_world_ros.envs.tasks import Goals, RoomNav, Seen, Task
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import Scene
import numpy as np

HALF_M = 0.35  # the way at which looking away counts half


class Aim(ABC):
    """One goal of one robot."""

    takes_contact: bool = False  # the way to it may lead along things
    looks: Tuple[int, ...] = ()  # reads pictures where so many steps are left; (): none

    @abstractmethod
    def potential(self, shown: Observation) -> np.ndarray:
        """Return how near candidates are, (c,) float64, at most 0, in metres where it can be."""

    @abstractmethod
    def is_done(self, shown: Observation) -> np.ndarray:
        """Return which candidates are there and stand, (c,) bool."""


class TaskAim(Aim):
    """The goal of one row of an environment."""

    def __init__(self, task: Task, goals: Goals, row: int, num_candidates: int) -> None:
        """
        Keep the row's goal.

        :param task: what counts
        :param goals: of all rows
        :param row: whose goal it is
        :param num_candidates: c
        """
        self._task, self.takes_contact = task, task.takes_contact
        self._goals = {name: np.repeat(value[row:row + 1], num_candidates, 0)
                       for name, value in goals.items()}

    def potential(self, shown: Observation) -> np.ndarray:
        """See ``Aim``."""
        return self._task.potential(self._goals, Seen.of(shown))

    def is_done(self, shown: Observation) -> np.ndarray:
        """See ``Aim``."""
        return self._task.is_done(self._goals, Seen.of(shown))


class PoseAim(Aim):
    """
    Stand at a pose of the scene.

    The potential is minus the way that is left to drive, in metres around what stands still, minus
    up to 0.5 for looking elsewhere, which counts the more the shorter the way is.
    """

    def __init__(self, scene: Scene, robot: Robot, pose: np.ndarray, *, near_m: float = 0.15,
                 near_rad: float = 0.2) -> None:
        """
        Measure the ways to a pose.

        :param scene: that the robot is in
        :param robot: that is driven
        :param pose: (3,) x, y [m], yaw [rad] in the scene frame
        :param near_m: it is there within so many metres
        :param near_rad: and within this angle
        :raises SpecError: not finite, outside of the room, or where the robot does not fit
        """
        pose = np.asarray(pose, float)
        if not np.isfinite(pose).all():
            raise SpecError(f'The goal {pose.tolist()} is not finite.')
        where = f'The goal x={pose[0]:.2f} m, y={pose[1]:.2f} m'
        width_m, length_m = scene.size_m
        if not (0.0 <= pose[0] <= width_m and 0.0 <= pose[1] <= length_m):
            raise SpecError(f'{where} is outside of {scene.name}, which is {width_m:g} m by '
                            f'{length_m:g} m.')
        footprint = robot.footprint
        free_m = float(scene.clearance_m(pose[:2], footprint.height_m))
        if free_m < footprint.radius_m:
            raise SpecError(f'{where} is {max(free_m, 0.0):.2f} m from a wall or furniture of '
                            f'{scene.name}; the robot needs {footprint.radius_m:.2f} m.')
        self.pose, self.near_m, self.near_rad = pose, near_m, near_rad
        off_m = np.hypot(*np.moveaxis(CENTRES_M - pose[:2], -1, 0))
        self._way_m = distances_to(off_m <= max(RESOLUTION_M, float(off_m.min())),
                                   free_cells(scene.name, footprint))[None]

    def potential(self, shown: Observation) -> np.ndarray:
        """See the class."""
        pose = shown.base_pose[:, -1]
        way_m = self.way_m(pose)
        return -way_m - 0.5 * self.off_rad(pose) / np.pi * np.exp2(-way_m / HALF_M)

    def is_done(self, shown: Observation) -> np.ndarray:
        """See ``Aim``; standing is what it is in RoomNav."""
        pose, twist = shown.base_pose[:, -1], shown.base_twist[:, -1]
        return ((np.hypot(*(pose[:, :2] - self.pose[:2]).T) <= self.near_m)
                & (self.off_rad(pose) <= self.near_rad)
                & (np.hypot(*twist[:, :2].T) <= RoomNav.slow_mps)
                & (np.abs(twist[:, 2]) <= RoomNav.slow_radps))

    def way_m(self, pose: np.ndarray) -> np.ndarray:
        """
        Measure the way that is left.

        :param pose: (c, 3) in the scene frame
        :return: (c,) metres, around what stands still
        """
        way_m = looked_up(np.broadcast_to(self._way_m, (len(pose), *self._way_m.shape[1:])),
                          pose[:, :2])
        return np.maximum(way_m, np.hypot(*(pose[:, :2] - self.pose[:2]).T))

    def off_rad(self, pose: np.ndarray) -> np.ndarray:
        """Return by how much candidates look elsewhere, (c,) from 0 to pi."""
        off = pose[:, 2] - self.pose[2]
        return np.abs(np.arctan2(np.sin(off), np.cos(off)))
