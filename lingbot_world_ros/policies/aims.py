# SPDX-License-Identifier: Apache-2.0
"""
What a plan is for: the goal of a task, a pose, or a picture. Says how near candidates are.

Axes: c candidates, h w pixels.
"""
from abc import ABC, abstractmethod
from typing import List, Mapping

import cv2

from lingbot_world_ros.engines.interface import Observation
from lingbot_world_ros.envs.floor_distance import (CENTRES_M, distances_to, free_cells, looked_up,
                                                   RESOLUTION_M)
from lingbot_world_ros.envs.tasks import Goals, RoomNav, Seen, Task
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import Scene
import numpy as np

HALF_M = 0.35  # the way at which looking away counts half
PICTURE_PX = 48, 36  # width and height in which pictures are compared
SMALLER = 2, 2, 3  # and in sizes so many times smaller than the last, which differ from farther
SAME = 0.05  # pictures that differ less are of the same place


class Aim(ABC):
    """One goal of one robot."""

    takes_contact: bool = False  # the way to it may lead along things
    draws: bool = False  # reads pictures
    # Steps that are left where it looks at candidates, and how much their potential counts there.
    looks: Mapping[int, float] = {0: 1.0}

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


class ImageAim(Aim):
    """
    Stand where a picture was taken.

    How much two pictures differ is the root mean square of their differences in four sizes, the
    mean of these, in shares of full scale. The potential is minus ten times that: so it
    changes by about one over a metre. It looks at candidates on their way, too.
    """

    draws = True
    looks = {0: 0.6, 6: 0.4}

    def __init__(self, rgb: np.ndarray, same: float = SAME) -> None:
        """
        Keep a picture.

        :param rgb: (h, w, 3) uint8 of the robot's camera, of any size
        :param same: it is there where the difference is at most this, 0 to 1
        :raises SpecError: another shape or type
        """
        rgb = np.asarray(rgb)
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
            raise SpecError(f'The goal is no picture but {rgb.dtype} of shape {rgb.shape}; '
                            'expected (h, w, 3) uint8.')
        self._same = same
        self._goal = _scales(rgb[None])

    def potential(self, shown: Observation) -> np.ndarray:
        """See the class."""
        return -10.0 * self.difference(shown)

    def is_done(self, shown: Observation) -> np.ndarray:
        """See ``Aim``; where there is no picture nobody is there."""
        twist = shown.base_twist[:, -1]
        if shown.rgb is None:
            return np.zeros(len(twist), bool)
        return ((self.difference(shown) <= self._same)
                & (np.hypot(*twist[:, :2].T) <= RoomNav.slow_mps)
                & (np.abs(twist[:, 2]) <= RoomNav.slow_radps))

    def difference(self, shown: Observation) -> np.ndarray:
        """
        Compare pictures with the goal.

        :param shown: with pictures of any size
        :return: (c,) from 0 to 1
        """
        assert shown.rgb is not None, 'it was asked to draw'
        return np.mean([np.sqrt(np.square(one - goal).mean((1, 2, 3))) for one, goal in zip(
            _scales(shown.rgb[:, -1]), self._goal)], 0)


def _scales(rgb: np.ndarray) -> List[np.ndarray]:
    """Pictures (c, h, w, 3) uint8 in all sizes, (c, h, w, 3) float32 from 0 to 1 each."""
    width, height = PICTURE_PX
    if rgb.shape[1:3] != (height, width):
        rgb = np.stack([cv2.resize(one, PICTURE_PX, interpolation=cv2.INTER_AREA) for one in rgb])
    out = [rgb.astype(np.float32) / 255.0]
    for times in SMALLER:
        width, height = width // times, height // times
        out.append(out[-1].reshape(len(rgb), height, times, width, times, 3).mean((2, 4)))
    return out
