# SPDX-License-Identifier: Apache-2.0
"""
Drive one robot to a pose or to where a picture was taken, by planning anew in every step.

The world is any engine of one row: one that runs here, or one on topics. NumPy only.
"""
from typing import Dict, List, Optional

from lingbot_world_ros.actions.drive_goal import DriveGoal, DriveProgress
from lingbot_world_ros.engines.interface import Observation, WorldModel
from lingbot_world_ros.engines.registry import DEFAULT_ENGINE
from lingbot_world_ros.envs.policy_commands import PolicyCommands
from lingbot_world_ros.envs.tasks import RoomNav, Seen
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.policies.aims import Aim, ImageAim, PICTURE_PX, PoseAim
from lingbot_world_ros.policies.search import FRAMES_PER_ACTION, Horizon, Meanwhile, Search
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import get_scene
import numpy as np

HORIZON = Horizon(12, 3)
MOST_LATE = 8  # frames; a command does not hold for longer in most worlds
POSE_BUDGET, PICTURE_BUDGET = 192, 96  # rollouts per plan; pictures take longer


class Driver:
    """What drives to goals: engines that imagine, kept from goal to goal."""

    def __init__(self, method: str = 'cem', budget: Optional[int] = None,
                 engine: str = DEFAULT_ENGINE, seed: int = 0) -> None:
        """
        Prepare; engines are loaded when the first goal needs them.

        :param method: one of ``search.METHODS``
        :param budget: rollouts per plan; None: ``POSE_BUDGET``, ``PICTURE_BUDGET`` for pictures
        :param engine: that imagines
        :param seed: of what is drawn
        """
        self._method, self._budget, self._engine, self._seed = method, budget, engine, seed
        self._searches: Dict[bool, Search] = {}  # by whether they draw

    def load(self, robot: Robot, draws: bool = False) -> Search:
        """
        Load what imagines.

        :param robot: that is driven
        :param draws: for pictures
        :return: it, kept for the next time
        :raises SpecError: method, budget or engine cannot be
        """
        if draws not in self._searches:
            budget = self._budget or (PICTURE_BUDGET if draws else POSE_BUDGET)
            self._searches[draws] = Search(
                RoomNav(robot).columns, HORIZON, self._method, budget, self._engine,
                picture_px=PICTURE_PX if draws else None)
        imagined = self._searches[draws].world_spec.robot
        if imagined.name != robot.name:
            raise SpecError(f'The engine {self._engine!r} imagines robot {imagined.name!r}, the '
                            f'world has {robot.name!r}; plan with an engine that knows it.')
        return self._searches[draws]

    def aim(self, goal: DriveGoal, scene: str, robot: Robot, scene_odom: np.ndarray,
            odom_frame: str) -> Aim:
        """
        Look at a goal in the room it is in.

        :param goal: where to
        :param scene: that the robot is in
        :param robot: that is driven
        :param scene_odom: (3,) x, y [m], yaw [rad] of the frame of odometry in the scene
        :param odom_frame: its name; a pose in another frame is in the scene's
        :return: what a plan is for
        :raises SpecError: outside of the room, where the robot does not fit, or the scene is none
            of those that ship
        """
        if goal.rgb is not None:
            return ImageAim(goal.rgb)
        pose = np.array(goal.pose)
        if goal.frame_id == odom_frame:
            pose = se2.compose(scene_odom, pose)
        return PoseAim(get_scene(scene), robot, pose, near_m=goal.near_m, near_rad=goal.near_rad)

    def begin(self, world: WorldModel, scene: str, aim: Aim, shown: Observation,
              time_limit_s: float, is_live: bool = False) -> 'Drive':
        """
        Begin to drive to a goal.

        :param world: that the robot is in, of one row
        :param scene: that it is in
        :param aim: where to
        :param shown: the world as it is, with a picture where the aim reads pictures
        :param time_limit_s: of sim time
        :param is_live: the world goes on while a plan is made
        :return: the drive
        :raises SpecError: the engine that plans does not know the scene
        """
        search = self.load(world.spec.robot, aim.draws)
        return Drive(world, search, aim, scene, shown, time_limit_s, self._seed, is_live)

    def close(self) -> None:
        """Give back what the engines hold."""
        while self._searches:
            self._searches.popitem()[1].close()


class Drive:
    """The way to one goal; ``advance`` takes one step of it."""

    def __init__(self, world: WorldModel, search: Search, aim: Aim, scene: str,
                 shown: Observation, time_limit_s: float, seed: int = 0,
                 is_live: bool = False, frames_per_action: int = FRAMES_PER_ACTION) -> None:
        """
        Begin.

        :param world: that the robot is in, of one row
        :param search: that plans
        :param aim: what for
        :param scene: that the robot is in
        :param shown: the world as it is
        :param time_limit_s: of sim time
        :param seed: of what is drawn
        :param is_live: the world goes on while a plan is made, which so begins as much later as
            the one before took
        :param frames_per_action: of the world
        :raises SpecError: the engine that plans does not know the scene
        """
        self._world, self._search, self._aim, self._shown = world, search, aim, shown
        self._plan = search.begin(scene, seed)
        self._rng = np.random.default_rng([seed, 2])
        self._frames, self._limit_s = frames_per_action, time_limit_s
        self._commands = PolicyCommands(world.spec, RoomNav(world.spec.robot).columns, 1)
        self._commands.clear(np.arange(1))
        self._is_live, self._meanwhile = is_live, Meanwhile(np.zeros(0), 0)
        self.elapsed_s = 0.0  # sim time
        self.path: List[np.ndarray] = [shown.base_pose[0, -1].copy()]  # of the base, scene frame

    @property
    def is_reached(self) -> bool:
        """Whether the robot is there and stands."""
        return bool(self._aim.is_done(self._shown)[0])

    @property
    def is_over(self) -> bool:
        """Whether it is there, or the time is up."""
        return self.is_reached or self.elapsed_s >= self._limit_s - 1e-9

    def advance(self) -> DriveProgress:
        """
        Plan, and let the world make the first step of the plan.

        :return: where the robot was, and the plan from there
        :raises EngineLost: the world does not go on
        """
        shown, aim = self._shown, self._aim
        found = self._search.find(self._plan, Seen.of(shown).row(0), aim, self._rng,
                                  self._meanwhile)
        pose = shown.base_pose[:, -1]
        way_m, off_rad, difference = (None, None, None)
        if isinstance(aim, PoseAim):
            way_m, off_rad = float(aim.way_m(pose)[0]), float(aim.off_rad(pose)[0])
        elif isinstance(aim, ImageAim):
            difference = float(aim.difference(shown)[0])
        progress = DriveProgress(way_m, off_rad, difference, found.succeeds, found.deviation_m,
                                 found.seconds, found.path)
        self._plan = found.plan
        if self._is_live:
            late = round(found.seconds * self._world.spec.frame_rate_hz)
            self._meanwhile = Meanwhile(found.action, min(late, MOST_LATE))
        actions = self._commands.actions(found.action[None], self._frames)
        per_step = self._world.spec.frames_per_step
        for first in range(0, self._frames, per_step):
            self._shown = self._world.step(
                actions[:, first:first + per_step],
                render=aim.draws and first + per_step == self._frames)
        self.elapsed_s += self._frames / self._world.spec.frame_rate_hz
        if self._is_live:
            self.elapsed_s += found.seconds
        self.path.append(self._shown.base_pose[0, -1].copy())
        return progress
