# SPDX-License-Identifier: Apache-2.0
"""
Experts that know the state: what learners are shown, and the best that a judge compares with.

They drive around what stands there, since they know where everything is. NumPy only.
"""
from typing import Callable, Dict, Sequence

from lingbot_world_ros.envs.floor_distance import looked_up
from lingbot_world_ros.envs.known import Known
from lingbot_world_ros.envs.tasks import make_task, RoomNav, Task
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.policies.policy import Columns, Policy
from lingbot_world_ros.policies.scripted import driving_to, ScriptedPolicy
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import get_scene
import numpy as np

ANGLES = np.linspace(-np.pi, np.pi, 32, endpoint=False)
NEAR_M, FAR_M = 0.25, 0.5  # where it looks for the way
LOOKS = 16  # along a straight way
MARGIN_M = 0.12  # it keeps this far from things where it can


class Expert(Policy):
    """The best that is written down for a task."""

    knows_state = True
    name = 'expert'

    def __init__(self, task: str, robot: Robot) -> None:
        """
        Prepare.

        :param task: one of ``envs.tasks.TASKS``
        :param robot: that is driven
        :raises SpecError: no such task
        """
        self.task = task
        self._script = _SCRIPTS[task](make_task(task, robot))

    def begin(self, rows: Sequence[int], known: Known) -> None:
        """See ``Policy``; it keeps nothing."""

    def act(self, observation: Columns, known: Known) -> np.ndarray:
        """See ``Policy``."""
        return self._script(observation, known)


Script = Callable[[Columns, Known], np.ndarray]


def _drive_to_thing(task: Task) -> Script:
    """Go down the field of ways, clear of things; in the zone face the thing."""
    assert isinstance(task, RoomNav), 'the expert of that task'
    num_columns = len(task.columns)

    def act(observation: Columns, known: Known) -> np.ndarray:
        pose, goals = known.seen.base_pose, known.goals
        rows = np.arange(len(pose))
        thing = known.seen.object_pose[rows, goals['index']][:, :2]
        left_m = np.hypot(*(thing - pose[:, :2]).T) - goals['reach_m']
        heading = _heading(known, thing, lambda at, xy: looked_up(goals['way_m'][at], xy),
                           goals['index'])
        out = driving_to(np.cos(heading), np.sin(heading), 0.0, num_columns)
        # It slows down all the way into the zone: who learns from this has no edge to hit.
        out[:, 0] = np.minimum(out[:, 0], np.clip(1.2 * (left_m + 0.14), 0.0, 0.8))
        return out
    return act


def _push(task: Task) -> Script:
    """Go behind the thing, clear of everything, and push it; steer by where it really is."""
    num_columns = len(task.columns)

    def act(observation: Columns, known: Known) -> np.ndarray:
        pose, goals = known.seen.base_pose, known.goals
        thing = known.seen.object_pose[np.arange(len(pose)), goals['index']][:, :2]
        zone, behind_m = goals['zone'], goals['behind_m']
        way = zone - thing
        ahead = way / np.maximum(np.hypot(*way.T), 1e-6)[:, None]
        aside = np.stack([-ahead[:, 1], ahead[:, 0]], -1)
        off = thing - pose[:, :2]
        along_m, off_m = (off * ahead).sum(1), (off * aside).sum(1)
        yaw_off = _wrapped(np.arctan2(ahead[:, 1], ahead[:, 0]) - pose[:, 2])
        is_behind = ((along_m > 0.6 * behind_m) & (along_m < behind_m + 0.45)
                     & (np.abs(off_m) < 0.15) & (np.abs(yaw_off) < 0.7))
        stand = thing - ahead * (behind_m + 0.22)[:, None]

        def left_m(at: np.ndarray, xy: np.ndarray) -> np.ndarray:
            return np.hypot(*(stand[at] - xy).T)
        rows = np.arange(len(pose))
        still_m = left_m(rows, pose[:, :2])
        heading = _heading(known, stand, left_m, np.full(len(pose), -1))
        # Behind it, aim through the thing at the zone, and lean against where it slips to.
        aim = thing + 0.35 * ahead + 1.5 * off_m[:, None] * aside
        aim = se2.rotated(aim - pose[:, :2], -pose[:, 2])
        near = still_m < 0.12
        turn = np.stack([np.cos(yaw_off), np.sin(yaw_off)], -1)
        to_stand = np.stack([np.cos(heading), np.sin(heading)], -1)
        point = np.where(is_behind[:, None], aim, np.where(near[:, None], turn, to_stand))
        out = driving_to(point[:, 0], point[:, 1], 0.0, num_columns)
        speed = np.where(is_behind, 0.45, np.where(near, 0.0, np.clip(
            still_m, 0.15, 0.7)))
        out[:, 0] = np.minimum(out[:, 0], speed)
        return out
    return act


def _heading(known: Known, target: np.ndarray, left_m: Callable[[np.ndarray, np.ndarray],
             np.ndarray], wanted: np.ndarray) -> np.ndarray:
    """
    Look where to drive: straight at a target in sight, else where the way gets shorter.

    :param known: of n rows
    :param target: (n, 2) scene frame [m]
    :param left_m: rows (m,) and points (m, 2) -> (m,) metres that are left from there
    :param wanted: (n,) index of an object that is not in the way, -1: all are
    :return: (n,) angle from where the robot looks, rad
    """
    pose, radius_m = known.seen.base_pose, known.task.robot.footprint.radius_m
    off, rows = target - pose[:, :2], np.arange(len(pose))
    share = np.linspace(0.0, 1.0, LOOKS + 1)[1:, None]
    free_m = _free_m(known, rows, pose[:, :2] + share[..., None] * off, wanted)  # looks n
    # Close to the wanted thing there may be a wall behind it.
    is_far = (1.0 - share) * np.hypot(*off.T) > radius_m + 0.3
    free_m = np.where(is_far | (wanted < 0), free_m, np.inf).min(0)
    heading = _wrapped(np.arctan2(off[:, 1], off[:, 0]) - pose[:, 2])
    around = np.flatnonzero(free_m < 0.02)
    if len(around):
        heading[around] = _way_down(known, around, left_m, wanted)
    return heading


def _way_down(known: Known, rows: np.ndarray, left_m: Callable[[np.ndarray, np.ndarray],
              np.ndarray], wanted: np.ndarray) -> np.ndarray:
    """Look around for where a way gets shorter without touching anything; (m,) angles, rad."""
    pose = known.seen.base_pose[rows]
    yaw = ANGLES[:, None] + pose[:, 2]
    direction = np.stack([np.cos(yaw), np.sin(yaw)], -1)  # angles m 2
    costs = 0.02 * np.abs(ANGLES)[:, None] + np.zeros(len(rows))
    for far_m in (NEAR_M, FAR_M):
        xy = pose[:, :2] + far_m * direction
        free_m = _free_m(known, rows, xy, wanted)
        costs += np.clip(MARGIN_M - free_m, 0.0, None) + 2.0 * np.clip(-free_m, 0.0, None)
        costs += 0.5 * left_m(np.tile(rows, len(ANGLES)), xy.reshape(-1, 2)).reshape(costs.shape)
    return ANGLES[np.argmin(costs, 0)]


def _free_m(known: Known, rows: np.ndarray, xy: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """
    Measure the room around robots.

    :param known: of n rows
    :param rows: (m,) that are meant
    :param xy: (a, m, 2) where they would stand
    :param wanted: (n,) index of an object that is not in the way, -1: all are
    :return: (a, m) metres between the rim and the nearest thing
    """
    footprint = known.task.robot.footprint
    free_m = np.zeros(xy.shape[:2])
    names = np.array([known.starts[row].scene for row in rows])
    for name in set(names.tolist()):
        some = np.flatnonzero(names == name)
        scene, points = get_scene(name), xy[:, some]
        nearest_m = scene.clearance_m(points, footprint.height_m)
        for j, movable in enumerate(scene.movables):
            off = known.seen.object_pose[rows[some], j, :2] - points
            gap_m = np.hypot(off[..., 0], off[..., 1]) - movable.radius_m
            nearest_m = np.minimum(nearest_m, np.where(wanted[rows[some]] == j, np.inf, gap_m))
        free_m[:, some] = nearest_m - footprint.radius_m
    return free_m


def _reach(task: Task) -> Script:
    """The script needs no more than a policy is told."""
    scripted = ScriptedPolicy(task.name, task.robot)

    def act(observation: Columns, known: Known) -> np.ndarray:
        return scripted.script(observation)
    return act


_SCRIPTS: Dict[str, Callable[[Task], Script]] = {
    'RoomNav': _drive_to_thing, 'RoomReach': _reach, 'RoomPush': _push}


def _wrapped(angle: np.ndarray) -> np.ndarray:
    return np.arctan2(np.sin(angle), np.cos(angle))
