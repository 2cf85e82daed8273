# SPDX-License-Identifier: Apache-2.0
"""
Driving in a learned place: from one pose to another on its floor plan. NumPy only.

It reads the state that the world predicts and the plan that the world tells, nothing else; any
engine that tells a plan of its only scene will do.
"""
from typing import Optional, Tuple

from lingbot_world_ros.engines.interface import WorldSpec
from lingbot_world_ros.envs.floor_distance import (distances_to, free_cells_of, largest_region,
                                                   looked_up)
from lingbot_world_ros.envs.tasks import base_columns, Goals, Seen, Task
from lingbot_world_ros.errors import shown, SpecError, unknown_name
from lingbot_world_ros.geometry import se2
import numpy as np

POSE, IMAGE = 'pose', 'image'
TOLD = (POSE, IMAGE)


class LearnedNav(Task):
    """
    Drive to a pose in a learned place, and stop there.

    Reached: base_link is within 0.3 m of the goal, with no wall between (at most 0.45 m to
    drive), its heading within 0.4 rad, and the base stands: at most 0.05 m/s and 0.1 rad/s.
    Potential: minus the way that is left to drive, in metres around what stands in the plan,
    minus up to 0.5 for another heading, which counts the more the shorter the way is (half at
    0.35 m). Start and goal are cells of the largest part of the floor that is known and where the
    robot fits, at least 1 m apart where that is possible.

    Told as 'pose' (g = 8): the goal in the frame of the start, x, y [m], cos and sin of yaw; the
    same in the frame of base_link by odometry. As 'image': the picture that is seen there.
    """

    name = 'LearnedNav'
    points, takes_contact = (4,), False
    time_limit_s = 60.0
    moves = ('base',)
    near_m, way_m, heading_rad, slow_mps, slow_radps = 0.3, 0.45, 0.4, 0.05, 0.1
    least_m = 1.0

    def __init__(self, spec: WorldSpec, told: str = POSE) -> None:
        """
        Look where the robot fits.

        :param spec: of the world
        :param told: one of ``TOLD``
        :raises SpecError: the world has no floor plan, draws no goal, or has no room for the robot
        """
        super().__init__(spec.robot)
        if told not in TOLD:
            raise unknown_name('goal', told, TOLD)
        if spec.floor_plan is None:
            raise SpecError(f'{self.name}: engine {shown(spec.engine)} has no floor plan of '
                            f'{shown(spec.model)}; take a world that was learned with depth.')
        if told == IMAGE and not spec.can.render:
            raise SpecError(f'goal={IMAGE}: engine {shown(spec.engine)} draws no place where the '
                            f'robot is not; take goal={POSE}.')
        self.tells_picture, self._plan = told == IMAGE, spec.floor_plan
        rows, columns = self._plan.occupied.shape
        self.reach_m = float(np.hypot(rows, columns)) * self._plan.resolution_m
        self._free = free_cells_of(self._plan, self.robot.footprint.radius_m)
        self._places_m = self._plan.centres_m()[largest_region(self._free)]  # (m, 2)
        if len(self._places_m) < 2:
            raise SpecError(f'{self.name}: a robot of {self.robot.footprint.radius_m:g} m radius '
                            f'fits nowhere on the floor plan of {shown(spec.model)}; look at the '
                            'plan (publish_map:=true), and at radius_m in its robot.yaml.')

    @property
    def columns(self) -> Tuple[str, ...]:
        """Return the base's; see ``Task``."""
        return base_columns(self.robot)

    @property
    def goal_range(self) -> Tuple[np.ndarray, np.ndarray]:
        """See ``Task``."""
        far = self.reach_m
        high = np.array([far, far, 1.0, 1.0, 2 * far, 2 * far, 1.0, 1.0], np.float32)
        return -high, high

    def start(self, scene: str, seed: int) -> Optional[np.ndarray]:
        """Return where an episode starts, (3,); see ``Task.start``."""
        return self._drawn(scene, seed)[0]

    def goals(self, scene: str, seed: int, start: Seen) -> Goals:
        """Draw the goal of an episode; see ``Task.goals``."""
        goal = self._drawn(scene, seed)[1]
        zone = np.zeros_like(self._free)
        zone[self._cell(goal)] = True
        return {'goal': goal[None], 'place': se2.relative(start.base_pose, goal[None]),
                'way_m': distances_to(zone, self._free, self._plan.resolution_m)[None]}

    def told(self, goals: Goals, odometry: np.ndarray) -> np.ndarray:
        """Tell where the goal is, or how it looks there; see ``Task.told``."""
        if self.tells_picture:
            return goals['picture'].copy()
        here = se2.relative(odometry, goals['place'])
        return np.concatenate([column for pose in (goals['place'], here) for column in (
            pose[:, :2], np.cos(pose[:, 2:]), np.sin(pose[:, 2:]))], 1)

    def potential(self, goals: Goals, seen: Seen) -> np.ndarray:
        """See the class."""
        way_m = self._way_m(goals, seen)
        return -way_m - 0.5 * self._off_rad(goals, seen) / np.pi * np.exp2(-way_m / 0.35)

    def is_done(self, goals: Goals, seen: Seen) -> np.ndarray:
        """See the class."""
        off_m = np.hypot(*(seen.base_pose[:, :2] - goals['goal'][:, :2]).T)
        return ((off_m <= self.near_m) & (self._way_m(goals, seen) <= self.way_m)
                & (self._off_rad(goals, seen) <= self.heading_rad)
                & (np.hypot(*seen.base_twist[:, :2].T) <= self.slow_mps)
                & (np.abs(seen.base_twist[:, 2]) <= self.slow_radps))

    def _drawn(self, scene: str, seed: int) -> Tuple[np.ndarray, np.ndarray]:
        """Draw start and goal, (3,) each: middles of cells, and any heading."""
        rng, places = self.goal_rng(scene, seed), self._places_m
        yaws = rng.uniform(-np.pi, np.pi, 2)
        start = places[rng.integers(len(places))]
        off_m = np.hypot(*(places - start).T)
        far = np.flatnonzero(off_m >= min(self.least_m, float(off_m.max())))
        goal = places[far[rng.integers(len(far))]]
        return np.array([*start, yaws[0]]), np.array([*goal, yaws[1]])

    def _cell(self, pose: np.ndarray) -> Tuple[int, int]:
        column, row = np.floor((pose[:2] - self._plan.origin_m) / self._plan.resolution_m)
        return int(row), int(column)

    def _way_m(self, goals: Goals, seen: Seen) -> np.ndarray:
        return looked_up(goals['way_m'], seen.base_pose[:, :2], self._plan)

    def _off_rad(self, goals: Goals, seen: Seen) -> np.ndarray:
        """Return how far the heading is from the goal's, (n,) rad, 0 to pi."""
        off = seen.base_pose[:, 2] - goals['goal'][:, 2]
        return np.abs(np.arctan2(np.sin(off), np.cos(off)))
