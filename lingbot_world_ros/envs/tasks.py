# SPDX-License-Identifier: Apache-2.0
"""
What there is to do in a room: goals, when they are reached, and what is rewarded. NumPy only.

A task is the same for every engine: it reads the state of an ``Observation``, which an imagined
world predicts and the reference world knows. Axes: n rows, k movable objects of a scene, j joints.
"""
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Dict, Optional, Sequence, Tuple
import zlib

from lingbot_world_ros.actions.layout import TWIST, velocity_name
from lingbot_world_ros.engines.interface import Observation
from lingbot_world_ros.envs.floor_distance import (CENTRES_M, distances_to, free_cells, looked_up,
                                                   RESOLUTION_M)
from lingbot_world_ros.errors import shown, SpecError, unknown_name
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import get_scene, Scene, SCENES
import numpy as np

SUCCESS_BONUS = 5.0
# Every movable object of every shipped scene, so that a policy fits all of them.
THINGS = tuple(movable.name for name in SCENES for movable in get_scene(name).movables)
REACH_M = max(float(np.hypot(*get_scene(name).size_m)) for name in SCENES)  # across any room
Goals = Dict[str, np.ndarray]  # of all rows, by what is in a column; first axis n


@dataclass(frozen=True)
class Seen:
    """
    The state of all rows in one moment, as an engine tells it; scene frame as in ``Observation``.

    ``base_pose`` (n, 3), ``base_twist`` (n, 3), ``joint_position`` and ``joint_velocity`` (n, j),
    ``object_pose`` (n, k, 3).
    """

    base_pose: np.ndarray
    base_twist: np.ndarray
    joint_position: np.ndarray
    joint_velocity: np.ndarray
    object_pose: np.ndarray

    @staticmethod
    def of(observation: Observation) -> 'Seen':
        """Return the last frame of an observation; views."""
        return Seen(*(getattr(observation, name)[:, -1] for name in Seen.__annotations__))

    def row(self, i: int) -> 'Seen':
        """Return one row, n = 1; views."""
        return Seen(*(getattr(self, name)[i:i + 1] for name in Seen.__annotations__))

    def with_rows(self, rows: np.ndarray, fresh: 'Seen') -> 'Seen':
        """Return a copy in which other rows stand, in the order of ``rows``."""
        columns = []
        for name in Seen.__annotations__:
            column = getattr(self, name).copy()
            column[rows] = getattr(fresh, name)
            columns.append(column)
        return Seen(*columns)


class Task(ABC):
    """
    A task: what a policy moves, what it is told, and what counts.

    The reward of a step is the growth of ``potential`` over it, plus ``SUCCESS_BONUS`` in the step
    that reaches the goal, which ends the episode. An episode so returns, without discount, the
    potential at its end minus that at its start, plus the bonus.
    """

    name: str
    time_limit_s: float  # of sim time
    moves: Tuple[str, ...]  # states that potential and success read, as WorldSpec names them
    points: Tuple[int, ...] = ()  # where in a goal points in base_link begin, x and y
    takes_contact: bool = True  # the way to the goal may lead along things
    tells_picture: bool = False  # a goal is told as a picture, which ``goals`` leaves to be drawn
    reach_m: float = REACH_M  # no place is farther from another

    def __init__(self, robot: Robot) -> None:
        """
        Prepare for a robot.

        :param robot: that is driven
        :raises SpecError: it cannot do this
        """
        self.robot = robot

    @property
    @abstractmethod
    def columns(self) -> Tuple[str, ...]:
        """Action columns that a policy commands; all others stay at rest."""

    @property
    @abstractmethod
    def goal_range(self) -> Tuple[np.ndarray, np.ndarray]:
        """Lowest and highest of what is told, (g,) float32 each, metres or 0 to 1."""

    def start(self, scene: str, seed: int) -> Optional[np.ndarray]:
        """
        Say where an episode starts.

        :param scene: that it is in
        :param seed: of the episode
        :return: (3,) base pose in the scene; None: where the engine puts the robot for this seed
        """
        return None

    @abstractmethod
    def goals(self, scene: str, seed: int, start: Seen) -> Goals:
        """
        Draw the goal of an episode.

        :param scene: that it is in
        :param seed: of the episode, the only source of randomness
        :param start: its first state, n = 1
        :return: columns of one row; ``goal``, (1, 3) base pose, where ``tells_picture`` holds
        """

    @abstractmethod
    def told(self, goals: Goals, odometry: np.ndarray) -> np.ndarray:
        """
        Say what a policy is told of its goal: what was so at the start, seen from where it is.

        :param goals: of all rows
        :param odometry: (n, 3) pose since the start of the episode, x, y [m], yaw [rad]
        :return: (n, g) float64, within ``goal_range`` as far as odometry is; (n, h, w, 3) uint8
            where ``tells_picture`` holds
        """

    @abstractmethod
    def potential(self, goals: Goals, seen: Seen) -> np.ndarray:
        """Return how near every row is to its goal, (n,) float64, at most 0."""

    @abstractmethod
    def is_done(self, goals: Goals, seen: Seen) -> np.ndarray:
        """Return which rows have reached their goal, (n,) bool."""

    def goal_rng(self, scene: str, seed: int) -> np.random.Generator:
        """Return the generator that the goal of an episode is drawn from, on every machine."""
        return np.random.default_rng([zlib.crc32(f'{self.name}/{scene}'.encode()), seed])


class RoomTask(Task):
    """A task in the shipped rooms."""

    def goals(self, scene: str, seed: int, start: Seen) -> Goals:
        """Draw the goal of an episode; see ``Task.goals``."""
        return self.draw(get_scene(scene), start, self.goal_rng(scene, seed))

    @abstractmethod
    def draw(self, scene: Scene, start: Seen, rng: np.random.Generator) -> Goals:
        """
        Draw the goal of one episode.

        :param scene: that it is in
        :param start: its first state, n = 1
        :param rng: the only source of randomness
        :return: columns of one row
        """


class RoomNav(RoomTask):
    """
    Drive to a named thing, stop there and face it.

    Reached: the robot's footprint is within 0.25 m of the thing's, where both are now, base_link's
    x axis points at the thing's centre within 0.25 rad, and the base stands: at most 0.05 m/s and
    0.1 rad/s. Potential: minus the way that is left to drive, in metres around what stands still,
    minus how far the thing was moved from where it stood, minus up to 0.5 for looking away from
    it, which counts the more the shorter the way is (half at 0.35 m).

    Told (g = 4 + 9): the thing's place at the start in the frame of the start, the same in the
    frame of base_link by odometry, x and y [m] each; which of ``THINGS`` it is, one-hot.
    """

    name = 'RoomNav'
    points, takes_contact = (2,), False
    time_limit_s = 30.0
    moves = ('base', 'objects')
    gap_m, bearing_rad, slow_mps, slow_radps, least_m = 0.25, 0.25, 0.05, 0.1, 0.3

    @property
    def columns(self) -> Tuple[str, ...]:
        """Return the base's; see ``Task``."""
        return base_columns(self.robot)

    @property
    def goal_range(self) -> Tuple[np.ndarray, np.ndarray]:
        """See ``Task``."""
        return _range([REACH_M] * 2 + [2 * REACH_M] * 2, len(THINGS))

    def draw(self, scene: Scene, start: Seen, rng: np.random.Generator) -> Goals:
        """Draw a thing that it can stand beside and does not yet, where there is one."""
        free = free_cells(scene.name, self.robot.footprint)
        for index in rng.permutation(len(scene.movables)):
            xy = start.object_pose[0, index, :2]
            reach_m = scene.movables[index].radius_m + self.robot.footprint.radius_m + self.gap_m
            off_m = np.hypot(*np.moveaxis(CENTRES_M - xy, -1, 0))
            zone = free & (off_m <= reach_m - 0.5 * RESOLUTION_M)
            if zone.any() and np.hypot(*(start.base_pose[0, :2] - xy)) > reach_m + self.least_m:
                break
        return {**_thing(scene, index, start), 'reach_m': np.array([reach_m]),
                'way_m': distances_to(zone, free)[None]}

    def told(self, goals: Goals, odometry: np.ndarray) -> np.ndarray:
        """Tell place and name of the thing; see ``Task.told``."""
        place = goals['place']
        return np.concatenate([place, _from(odometry, place), goals['one_hot']], 1)

    def potential(self, goals: Goals, seen: Seen) -> np.ndarray:
        """See the class."""
        way_m = looked_up(goals['way_m'], seen.base_pose[:, :2])
        moved_m = np.hypot(*(_object(goals, seen)[:, :2] - goals['start'][:, :2]).T)
        away = np.abs(self._gap_and_bearing(goals, seen)[1]) / np.pi
        return -way_m - moved_m - 0.5 * away * np.exp2(-way_m / 0.35)

    def is_done(self, goals: Goals, seen: Seen) -> np.ndarray:
        """See the class."""
        gap_m, bearing = self._gap_and_bearing(goals, seen)
        return ((gap_m <= 0.0) & (np.abs(bearing) <= self.bearing_rad)
                & (np.hypot(*seen.base_twist[:, :2].T) <= self.slow_mps)
                & (np.abs(seen.base_twist[:, 2]) <= self.slow_radps))

    def _gap_and_bearing(self, goals: Goals, seen: Seen) -> Tuple[np.ndarray, np.ndarray]:
        """Metres (n,) that the thing is too far away, and where it is seen, rad (n,)."""
        x, y = _from(seen.base_pose, _object(goals, seen)[:, :2]).T
        return np.hypot(x, y) - goals['reach_m'], np.arctan2(y, x)


class RoomReach(RoomTask):
    """
    Bring the gripper to a marked point; the base stands still.

    The gripper's point is in the middle between its fingertips, by the kinematics of the joints.
    Reached: it is within 0.02 m of the marked one, and the joints that move it are at most at
    0.2 rad/s. Potential: minus ten times the distance in metres. The point is one that the
    gripper can be at, at least 0.1 m from where it starts, with every joint at least 15 % of its
    range away from its limits.

    Told (g = 3): the point in base_link, x, y and z [m].
    """

    name = 'RoomReach'
    time_limit_s = 10.0
    moves = ('joints',)
    near_m, slow_radps, least_m, margin = 0.02, 0.2, 0.1, 0.15

    def __init__(self, robot: Robot) -> None:
        """See ``Task``."""
        super().__init__(robot)
        if robot.arm is None:
            raise SpecError(f'{self.name}: robot {shown(robot.name)} has no arm; give its YAML an '
                            'arm_tip, or take another task.')
        self._arm = robot.arm

    @property
    def columns(self) -> Tuple[str, ...]:
        """Return those of the joints that move the gripper's point: not the gripper's own."""
        return tuple(velocity_name(name) for name in self.robot.joint_names[:-1])

    @property
    def goal_range(self) -> Tuple[np.ndarray, np.ndarray]:
        """See ``Task``."""
        arm = self._arm
        length_m = arm.upper_arm_m + arm.forearm_m + arm.hand_m + arm.finger_m
        return _range(list(np.abs(arm.shoulder_m) + length_m), 0)

    def draw(self, scene: Scene, start: Seen, rng: np.random.Generator) -> Goals:
        """Draw a point; see the class."""
        low, high = self.robot.joint_array('low'), self.robot.joint_array('high')
        inside = self.margin * (high - low)
        at = self.gripper(start.joint_position)
        for _ in range(1000):
            point = self.gripper(rng.uniform(low + inside, high - inside)[None])
            if np.linalg.norm(point - at) >= self.least_m:
                break
        return {'point': point}

    def told(self, goals: Goals, odometry: np.ndarray) -> np.ndarray:
        """Tell the point; see ``Task.told``."""
        return goals['point']

    def potential(self, goals: Goals, seen: Seen) -> np.ndarray:
        """See the class."""
        return -10.0 * self._distance_m(goals, seen)

    def is_done(self, goals: Goals, seen: Seen) -> np.ndarray:
        """See the class."""
        slow = (np.abs(seen.joint_velocity[:, :-1]) <= self.slow_radps).all(1)
        return (self._distance_m(goals, seen) <= self.near_m) & slow

    def gripper(self, joint_position: np.ndarray) -> np.ndarray:
        """(n, 3) metres in base_link."""
        points = self._arm.points(joint_position)
        return 0.5 * (points[:, 5] + points[:, 7])

    def _distance_m(self, goals: Goals, seen: Seen) -> np.ndarray:
        return np.linalg.norm(self.gripper(seen.joint_position) - goals['point'], axis=1)


class RoomPush(RoomTask):
    """
    Push a named thing into a round zone on the floor.

    Reached: the thing's centre is within 0.3 m of the zone's. Potential: minus twice the distance
    between the two centres, minus that from the robot to where it would stand to push the thing
    straight into the zone, behind it and touching it; all in metres, straight across the floor.
    The zone's centre is 0.6 to 1.5 m from where the thing stands, with room for robot and thing
    along the whole push.

    Told (g = 8 + 9): places of the thing and of the zone at the start in the frame of the start,
    the same two in the frame of base_link by odometry, x and y [m] each; which of ``THINGS`` it
    is, one-hot.
    """

    name = 'RoomPush'
    points = (4, 6)
    time_limit_s = 40.0
    moves = ('base', 'objects')
    radius_m, near_m, far_m = 0.3, 0.6, 1.5
    tries, lane_points = 200, 12

    @property
    def columns(self) -> Tuple[str, ...]:
        """Return the base's; see ``Task``."""
        return base_columns(self.robot)

    @property
    def goal_range(self) -> Tuple[np.ndarray, np.ndarray]:
        """See ``Task``."""
        return _range([REACH_M] * 4 + [2 * REACH_M] * 4, len(THINGS))

    def draw(self, scene: Scene, start: Seen, rng: np.random.Generator) -> Goals:
        """Draw thing and zone; see the class."""
        indices = rng.integers(len(scene.movables), size=self.tries)
        angle = rng.uniform(-np.pi, np.pi, self.tries)
        ahead = np.stack([np.cos(angle), np.sin(angle)], -1)
        way_m = rng.uniform(self.near_m, self.far_m, self.tries)
        room_m = self._room_m(scene, start.object_pose[0], indices, ahead, way_m)
        best = int(np.argmax(np.minimum(room_m, 0.0)))  # the first with enough of it
        index = int(indices[best])
        zone = start.object_pose[:, index, :2] + way_m[best] * ahead[best]
        return {**_thing(scene, index, start), 'zone': zone,
                'zone_place': _from(start.base_pose, zone),
                'behind_m': self._behind_m(scene)[[index]]}

    def told(self, goals: Goals, odometry: np.ndarray) -> np.ndarray:
        """Tell the places of thing and zone, and its name; see ``Task.told``."""
        places = goals['place'], goals['zone_place']
        return np.concatenate([*places, *(_from(odometry, place) for place in places),
                               goals['one_hot']], 1)

    def potential(self, goals: Goals, seen: Seen) -> np.ndarray:
        """See the class."""
        thing = _object(goals, seen)[:, :2]
        offset = goals['zone'] - thing
        left_m = np.hypot(*offset.T)
        ahead = offset / np.maximum(left_m, 1e-9)[:, None]
        behind = thing - goals['behind_m'][:, None] * ahead
        return -2.0 * left_m - np.hypot(*(seen.base_pose[:, :2] - behind).T)

    def is_done(self, goals: Goals, seen: Seen) -> np.ndarray:
        """See the class."""
        return np.hypot(*(_object(goals, seen)[:, :2] - goals['zone']).T) <= self.radius_m

    def _behind_m(self, scene: Scene) -> np.ndarray:
        """From the centre of each movable object to that of a robot that touches it, (k,)."""
        return _radii_m(scene) + self.robot.footprint.radius_m

    def _room_m(self, scene: Scene, objects: np.ndarray, indices: np.ndarray, ahead: np.ndarray,
                way_m: np.ndarray) -> np.ndarray:
        """
        Tell how much room there is along pushes; less than 0: too little.

        The robot has to fit from 0.1 m behind the thing to the zone, where other things are no
        more in the way than walls.

        :param objects: (k, 3) poses of the movable objects
        :param indices: (m,) which of them is pushed
        :param ahead: (m, 2) unit vectors
        :param way_m: (m,) how far
        :return: (m,) metres
        """
        footprint, radii_m = self.robot.footprint, _radii_m(scene)
        along_m = np.linspace(0.0, 1.0, self.lane_points) * way_m[:, None]  # m p
        along_m = along_m - self._behind_m(scene)[indices][:, None] - 0.1
        thing = objects[indices, :2]
        lane = thing[:, None] + along_m[..., None] * ahead[:, None]  # m p 2
        zone = thing + way_m[:, None] * ahead
        lane_m = scene.clearance_m(lane, footprint.height_m).min(1) - footprint.radius_m - 0.1
        zone_m = scene.clearance_m(zone, footprint.height_m) - radii_m[indices] - 0.1
        swept = np.concatenate([lane, zone[:, None]], 1)
        off_m = np.hypot(*np.moveaxis(swept[:, :, None] - objects[:, :2], -1, 0)).min(1)  # m k
        off_m -= radii_m + footprint.radius_m + 0.05
        off_m[np.arange(len(indices)), indices] = np.inf
        return np.minimum.reduce([lane_m, zone_m, off_m.min(1)])


TASKS = {task.name: task for task in (RoomNav, RoomReach, RoomPush)}


def make_task(name: str, robot: Robot) -> Task:
    """
    Make a task by name.

    :param name: one of ``TASKS``
    :param robot: that is driven
    :return: the task
    :raises SpecError: unknown name, or the robot cannot do this
    """
    if name not in TASKS:
        raise unknown_name('task', name, TASKS)
    return TASKS[name](robot)


def base_columns(robot: Robot) -> Tuple[str, ...]:
    """
    Name what moves a base.

    :param robot: whose
    :return: columns: forward, sideways where it strafes, turning
    """
    return tuple(name for axis, name in enumerate(TWIST) if axis != 1 or robot.drive.strafes)


def _range(limits_m: Sequence[float], num_names: int) -> Tuple[np.ndarray, np.ndarray]:
    """From minus to plus a limit, then 0 to 1 for each name."""
    high = np.array([*limits_m, *[1.0] * num_names], np.float32)
    low = -high
    low[len(limits_m):] = 0.0
    return low, high


def _radii_m(scene: Scene) -> np.ndarray:
    """Radii of the movable objects, (k,)."""
    return np.array([movable.radius_m for movable in scene.movables])


def _thing(scene: Scene, index: int, start: Seen) -> Goals:
    """Say which thing is meant, and where it stood, in the scene and from the start pose."""
    pose = start.object_pose[:, index]
    one_hot = np.zeros((1, len(THINGS)))
    one_hot[0, THINGS.index(scene.movables[index].name)] = 1.0
    return {'index': np.array([index]), 'one_hot': one_hot, 'start': pose.copy(),
            'place': _from(start.base_pose, pose[:, :2])}


def _object(goals: Goals, seen: Seen) -> np.ndarray:
    """(n, 3) pose of each row's thing, now."""
    return seen.object_pose[np.arange(len(seen.object_pose)), goals['index']]


def _from(pose: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Points (n, 2) as seen from poses (n, 3) in the same frame."""
    return se2.rotated(point - pose[:, :2], -pose[:, 2])


def put_rows(goals: Optional[Goals], rows: np.ndarray, fresh: Goals, num_rows: int) -> Goals:
    """
    Give rows another goal.

    :param goals: of all rows; None if there are none yet
    :param rows: (m,) indices
    :param fresh: columns of these rows
    :param num_rows: n
    :return: of all rows
    """
    if goals is None:
        goals = {name: np.zeros((num_rows, *value.shape[1:]), value.dtype)
                 for name, value in fresh.items()}
    for name, value in fresh.items():
        goals[name][rows] = value
    return goals
