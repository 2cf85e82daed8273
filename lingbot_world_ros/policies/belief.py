# SPDX-License-Identifier: Apache-2.0
"""
Where a thing that was pushed should be now: what a robot can tell from its own way.

Nobody tells a policy where the thing went. It stood where the goal said, and it cannot be where
the robot is: whoever drives into it moves it on, along the line between their centres, as slow
pushing without friction between the two does (Mason 1986). NumPy only.
"""
from dataclasses import replace
from typing import Dict, Mapping, Sequence

from lingbot_world_ros.envs.known import Known
from lingbot_world_ros.envs.tasks import THINGS
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import get_scene, SCENES
import numpy as np

LOOKS = 8  # along the way of a step: who looked at its end only would jump past small things


class Belief:
    """Where the thing of each row's goal should be; of tasks that tell place and name of one."""

    def __init__(self, touch_m: Mapping[str, float]) -> None:
        """
        Believe nothing yet.

        :param touch_m: name of a thing -> distance from the robot's centre to that of the thing
            when they touch [m]; things that are not in it stay where they were
        """
        self._touch_m = np.array([touch_m.get(name, 0.0) for name in THINGS])
        self._odom_m = np.zeros((0, 2))  # of the things, in the frame of the start
        self._from_m = np.zeros((0, 2))  # where the robot was last, in the same frame
        self._is_new = np.zeros(0, bool)

    def begin(self, rows: Sequence[int], num_rows: int) -> None:
        """
        Forget what was in rows.

        :param rows: where new episodes begin
        :param num_rows: n
        """
        if len(self._is_new) != num_rows:
            self._odom_m, self._from_m = np.zeros((2, num_rows, 2))
            self._is_new = np.ones(num_rows, bool)
        self._is_new[list(rows)] = True

    def look(self, observation: Dict[str, np.ndarray]) -> np.ndarray:
        """
        Take in a step.

        :param observation: channels of n rows; ``goal`` begins with the thing's place at the start
            and ends with its name, one-hot
        :return: (n, 2) where the things should be, in base_link [m]
        """
        goal, odometry = (observation[name].astype(float) for name in ('goal', 'odometry'))
        at_m, is_new = odometry[:, :2], self._is_new
        self._odom_m[is_new], self._from_m[is_new] = goal[is_new, :2], at_m[is_new]
        self._is_new = np.zeros_like(is_new)
        touch_m = goal[:, -len(THINGS):] @ self._touch_m
        for share in np.linspace(0.0, 1.0, LOOKS + 1)[1:]:
            robot = self._from_m + share * (at_m - self._from_m)
            off = self._odom_m - robot
            away_m = np.maximum(np.hypot(*off.T), 1e-6)
            is_met = away_m < touch_m
            self._odom_m[is_met] = (robot + off * (touch_m / away_m)[:, None])[is_met]
        self._from_m = at_m
        return se2.rotated(self._odom_m - at_m, -np.arctan2(odometry[:, 3], odometry[:, 2]))


def touch_m(robot: Robot) -> Dict[str, float]:
    """
    Return the distances at which a robot touches what can be moved in the shipped rooms.

    :param robot: that is driven
    :return: name of a thing -> metres between the centres
    """
    return {movable.name: robot.footprint.radius_m + movable.radius_m
            for name in SCENES for movable in get_scene(name).movables}


def believed(known: Known, things: np.ndarray) -> Known:
    """
    Put the things of goals where they are believed to be.

    :param known: of n rows
    :param things: (n, 2) in base_link [m], as ``Belief.look`` returns them
    :return: the same but for these
    """
    pose, object_pose = known.seen.base_pose, known.seen.object_pose.copy()
    object_pose[np.arange(len(pose)), known.goals['index'], :2] = (
        pose[:, :2] + se2.rotated(things, pose[:, 2]))
    return known._replace(seen=replace(known.seen, object_pose=object_pose))
