# SPDX-License-Identifier: Apache-2.0
"""
Policies that are written down, of any skill: from what a policy may know, without pictures.

They know goal, odometry and joints, not what stands in the way. Skill 1 does what is written,
skill 0 draws at random, between them both are mixed. NumPy only.
"""
from typing import Callable, Dict, List, Sequence

from lingbot_world_ros.envs.known import Known, Start
from lingbot_world_ros.envs.tasks import make_task, RoomReach, Task
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.policies.policy import Columns, Policy
from lingbot_world_ros.robots.robot import Robot
import numpy as np

HOLD_STEPS = 5  # for which a random action is held, so that it leads somewhere


class ScriptedPolicy(Policy):
    """What is written down for a task, mixed with chance."""

    def __init__(self, task: str, robot: Robot, skill: float = 1.0) -> None:
        """
        Prepare.

        :param task: one of ``envs.tasks.TASKS``
        :param robot: that is driven
        :param skill: share of what is written in an action, 0 to 1
        :raises SpecError: no such task, or a skill out of range
        """
        if not 0.0 <= skill <= 1.0:
            raise SpecError(f'skill={skill} must be from 0 (random) to 1.')
        self.task = task
        self.name = f'scripted:{skill:g}' if skill else 'random'
        self._skill, self._chance = skill, Chance(len(make_task(task, robot).columns))
        self.script = _SCRIPTS[task](make_task(task, robot))

    def begin(self, rows: Sequence[int], known: Known) -> None:
        """See ``Policy``."""
        self._chance.begin(rows, known.starts)

    def act(self, observation: Columns, known: Known) -> np.ndarray:
        """See ``Policy``."""
        random = self._chance.draw()
        if not self._skill:
            return random
        return self._skill * self.script(observation) + (1.0 - self._skill) * random


class Chance:
    """Random actions, row by row from the seed of its episode."""

    def __init__(self, num_columns: int) -> None:
        """Draw nothing yet; ``num_columns`` is k."""
        self._num_columns = num_columns
        self._rngs: List[np.random.Generator] = []
        self._held = np.zeros((0, num_columns))
        self._age = np.zeros(0, int)

    def begin(self, rows: Sequence[int], starts: Sequence[Start]) -> None:
        """Seed rows anew; ``starts`` are the episodes of all rows."""
        while len(self._rngs) < len(starts):
            self._rngs.append(np.random.default_rng())
            self._held = np.zeros((len(starts), self._num_columns))
            self._age = np.zeros(len(starts), int)
        for row in rows:
            self._rngs[row] = np.random.default_rng([starts[row].seed, 1])
            self._age[row] = 0

    def draw(self) -> np.ndarray:
        """Return (n, k) from -1 to 1."""
        for row in np.flatnonzero(self._age % HOLD_STEPS == 0):
            self._held[row] = self._rngs[row].uniform(-1.0, 1.0, self._num_columns)
        self._age += 1
        return self._held.copy()


def _drive_to_thing(task: Task) -> Callable[[Columns], np.ndarray]:
    """Turn to where the thing should be, drive there, stop and face it."""
    near_m = task.robot.footprint.radius_m + 0.38  # to the centre of a thing of middle size

    def act(observation: Columns) -> np.ndarray:
        x, y = observation['goal'].T[2:4].astype(float)
        return driving_to(x, y, near_m, len(task.columns))
    return act


def driving_to(x: np.ndarray, y: np.ndarray, near_m: float, num_columns: int) -> np.ndarray:
    """
    Drive towards points and stop before them, facing them.

    :param x: (n,) metres ahead
    :param y: (n,) metres to the left
    :param near_m: distance at which to stop
    :param num_columns: of an action; the first is forward, the last turns
    :return: (n, k) from -1 to 1
    """
    left_m, bearing = np.hypot(x, y) - near_m, np.arctan2(y, x)
    out = np.zeros((len(x), num_columns))
    out[:, 0] = np.where((np.abs(bearing) < 0.6) & (left_m > 0.0),
                         np.clip(1.5 * left_m, 0.1, 1.0), 0.0)
    out[:, -1] = np.clip(1.3 * bearing, -1.0, 1.0) * (np.abs(bearing) > 0.04)
    return out


def _reach(task: Task) -> Callable[[Columns], np.ndarray]:
    """Follow the damped least squares of the arm's kinematics."""
    assert isinstance(task, RoomReach), 'the script of that task'
    speed = task.robot.joint_array('max_speed')[:-1]
    low, high = (task.robot.joint_array(name)[:-1] for name in ('low', 'high'))

    def act(observation: Columns) -> np.ndarray:
        joints = observation['joints'][:, :task.robot.joint_array('low').size].astype(float)
        off_m = observation['goal'] - task.gripper(joints)  # n 3
        slope = np.stack([(task.gripper(joints + 1e-4 * step) - task.gripper(joints)) / 1e-4
                          for step in np.eye(joints.shape[1])[:-1]], -1)  # n 3 k
        square = slope @ slope.transpose(0, 2, 1) + 0.003 * np.eye(3)
        turn = (slope.transpose(0, 2, 1) @ np.linalg.solve(square, off_m[..., None]))[..., 0]
        # Away from where a joint ends, as long as that does not lead astray.
        middle = 0.5 * (low + high) - joints[:, :-1]
        turn += 0.02 * middle * (np.abs(middle) > 0.4 * (high - low))
        return np.clip(3.0 * turn / speed, -1.0, 1.0)
    return act


def _push(task: Task) -> Callable[[Columns], np.ndarray]:
    """Drive behind the place of the thing as seen from the zone, then push straight on."""
    behind_m = task.robot.footprint.radius_m + 0.2  # a thing of middle size
    num_columns = len(task.columns)

    def act(observation: Columns) -> np.ndarray:
        thing, zone = (observation['goal'][:, i:i + 2].astype(float) for i in (4, 6))
        return pushing(thing, zone, np.full(len(thing), behind_m), num_columns)
    return act


def pushing(thing: np.ndarray, zone: np.ndarray, behind_m: np.ndarray,
            num_columns: int) -> np.ndarray:
    """
    Push things to zones.

    :param thing: (n, 2) in base_link [m]
    :param zone: (n, 2) in base_link [m]
    :param behind_m: (n,) between the centres of robot and thing when they touch
    :param num_columns: of an action; the first is forward, the last turns
    :return: (n, k) from -1 to 1
    """
    way = zone - thing
    ahead = way / np.maximum(np.hypot(*way.T), 1e-6)[:, None]
    aside = np.stack([-ahead[:, 1], ahead[:, 0]], -1)
    along_m, off_m = (thing * ahead).sum(1), (thing * aside).sum(1)  # of the thing, from here
    is_behind = (along_m > 0.5 * behind_m) & (np.abs(off_m) < 0.12)
    # Round the thing, on the side where the robot is, to a place behind it.
    side = np.where(off_m > 0.0, -1.0, 1.0)[:, None]
    clear_m = behind_m[:, None] + 0.12
    corner = thing + side * aside * clear_m - ahead * np.clip(along_m, -0.3, 0.3)[:, None]
    stand = thing - ahead * (behind_m[:, None] + 0.15)
    is_beside = (along_m < behind_m)[:, None] & (np.abs(off_m) < 1.1 * clear_m[:, 0])[:, None]
    target = np.where(is_beside, corner, stand)
    target = np.where(is_behind[:, None], thing + 0.3 * ahead - 1.2 * off_m[:, None] * -aside,
                      target)
    out = driving_to(target[:, 0], target[:, 1], 0.0, num_columns)
    out[:, 0] = np.where(is_behind, np.minimum(out[:, 0], 0.6), out[:, 0])
    return out


_SCRIPTS: Dict[str, Callable[[Task], Callable[[Columns], np.ndarray]]] = {
    'RoomNav': _drive_to_thing, 'RoomReach': _reach, 'RoomPush': _push}
