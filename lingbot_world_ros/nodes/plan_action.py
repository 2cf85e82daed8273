# SPDX-License-Identifier: Apache-2.0
"""
Node ``planner``: the action Plan, which drives a robot to a pose or to where a picture was taken.

One goal is driven to at a time; a new one preempts it, as in Nav2. What plans is handed in: here
is who is told of it, and that the robot stops. ``docs/policies.md`` has the rules.
"""
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
import threading
from typing import Any, List, NamedTuple, Optional, Protocol, Sequence

from lingbot_world_ros.action import Plan
from lingbot_world_ros.actions.drive_goal import DriveGoal, DriveProgress
from lingbot_world_ros.engines.interface import Observation, WorldModel
from lingbot_world_ros.errors import EngineLost, SpecError
from lingbot_world_ros.messages.drive_goal import (drive_feedback_to_msg, drive_goal_from_msg,
                                                   drive_result_to_msg)
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.ros_world import RosWorld
from lingbot_world_ros.nodes.waiting import Waiting
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, load_profile
import numpy as np
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

NAME = 'plan'
PREEMPTED = 'Preempted by a new goal.'
CANCELED = 'Canceled; the robot was told to stop.'
STALE_S, PATIENCE_S = 0.5, 5.0
END_S = 10.0  # that the thread which drives may take to end


class Drive(Protocol):
    """The way to one goal, as ``policies.drive`` takes it."""

    path: List[np.ndarray]  # (3,) each: where the base was, scene frame

    @property
    def is_reached(self) -> bool:
        """Whether the robot is there and stands."""

    @property
    def is_over(self) -> bool:
        """Whether it is there, or the time is up."""

    def advance(self) -> DriveProgress:
        """Plan, and let the world make the first step of the plan."""


class Driver(Protocol):
    """What plans: ``policies.drive.Driver``."""

    def aim(self, goal: DriveGoal, scene: str, robot: Robot, scene_odom: np.ndarray,
            odom_frame: str) -> Any:
        """Return what a plan is for, or refuse the goal."""

    def begin(self, world: WorldModel, scene: str, aim: Any, shown: Observation,
              time_limit_s: float, is_live: bool) -> Drive:
        """Begin to drive."""

    def close(self) -> None:
        """Give back what it holds."""


class Frames(NamedTuple):
    """Names of the frames that goals may be in."""

    map: str
    odom: str


class Outcome(NamedTuple):
    """How a goal ended; ``result`` is a Plan.Result."""

    result: Any
    is_canceled: bool = False


class _Driven:
    """A goal that is driven to, or waits for its turn."""

    def __init__(self, handle: ServerGoalHandle, goal: DriveGoal) -> None:
        self.handle, self.goal = handle, goal
        self.outcome: Future = Future()
        self.ended_by = ''  # why it is to end before it is reached; '': it is not

    @property
    def draws(self) -> bool:
        """Whether the goal is a picture."""
        return self.goal.rgb is not None


class PlanNode(Node):
    """
    Offers the action ``plan`` beside a world on topics.

    Goals come and are canceled in the executor's thread; one other thread looks at the world,
    plans and publishes commands.
    """

    def __init__(self, driver: Driver, *, profile: str = DEFAULT_PROFILE, scene: str = '',
                 stale_s: float = STALE_S, patience_s: float = PATIENCE_S,
                 **node_args: Any) -> None:
        """
        Offer the action; the world is looked for when the first goal comes.

        :param driver: what plans
        :param profile: names of the world's topics, services and frames
        :param scene: that a simulator stands in that does not publish world_spec
        :param stale_s: wall time without a new frame after which the robot is told to stop
        :param patience_s: wall time without one after which a goal is aborted
        :param node_args: for ``rclpy.node.Node``
        :raises SpecError: the profile cannot be used
        """
        names = {**load_profile(DEFAULT_PROFILE), **load_profile(profile)}
        super().__init__('planner', **node_args)
        self._driver = driver
        self._frames = Frames(*(names['frame_prefix'] + names[f'frames.{name}']
                                for name in Frames._fields))
        self._find_world = lambda draws: RosWorld(
            profile=profile, namespace=self.get_namespace(), scene=scene, image=draws,
            domain_id=self.context.get_domain_id(), patience_s=patience_s, stale_s=stale_s)
        self._world: Optional[RosWorld] = None
        self._shows = False  # the world that was found has pictures
        self._lock = threading.Lock()  # guards what is below
        self._driven: Optional[_Driven] = None
        self._goals: 'SimpleQueue[Optional[_Driven]]' = SimpleQueue()
        self._waiting = Waiting(self)
        self._server = ActionServer(
            self, Plan, NAME, self._refuse, handle_accepted_callback=self.on_accepted,
            cancel_callback=self.on_cancel, callback_group=self._waiting.group)
        self._thread = threading.Thread(target=self._work, name='planner', daemon=True)
        self._thread.start()

    @property
    def action_name(self) -> str:
        """The name that clients see."""
        return qos.topic_name(self, NAME)

    def destroy_node(self) -> None:
        """Stop the robot and withdraw the action."""
        self._end('The planner is shutting down.')
        self._goals.put(None)
        with self._lock:
            world = self._world
        if world is not None:
            world.give_up()  # whoever would answer may be gone, too
        self._thread.join(END_S)
        self._server.destroy()
        self._waiting.destroy()
        super().destroy_node()

    # Goals, in the executor's thread.

    def on_accepted(self, handle: ServerGoalHandle) -> None:
        """
        Begin to drive, or abort a goal that cannot be with a sentence that says why.

        A goal that cannot be leaves alone the one that is driven to.
        """
        try:
            goal = drive_goal_from_msg(handle.request)
            goal.check_frame(self._frames)
            world = self._world
            if world is not None and world.scene:
                self._driver.aim(goal, world.scene, world.spec.robot, world.scene_odom,
                                 self._frames.odom)
        except SpecError as error:
            driven = _Driven(handle, DriveGoal())
            self.get_logger().warning(f'{NAME}: {error}')
            driven.outcome.set_result(Outcome(self._result(False, str(error))))
        else:
            driven = _Driven(handle, goal)
            self._end(PREEMPTED)
            with self._lock:
                self._driven = driven
            self._goals.put(driven)
        handle.execute(partial(self._execute, driven=driven))

    def on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        """Stop the robot at once, and let the thread that drives find out."""
        with self._lock:
            driven = self._driven
        if driven is not None and driven.handle is handle:
            self._end(CANCELED)
        return CancelResponse.ACCEPT

    def _refuse(self, handle: ServerGoalHandle) -> Any:
        raise RuntimeError('a goal is executed when it is accepted')

    async def _execute(self, handle: ServerGoalHandle, driven: _Driven) -> Any:
        """Suspend until the goal has ended, and tell how."""
        await self._waiting.wait(driven.outcome, 0)
        outcome: Outcome = driven.outcome.result()
        if outcome.is_canceled and handle.is_cancel_requested:
            handle.canceled()
        elif outcome.result.success:
            handle.succeed()
        else:
            handle.abort()
        return outcome.result

    def _end(self, reason: str) -> None:
        """Let the goal that is driven to end soon; the robot stops now."""
        with self._lock:
            driven, world = self._driven, self._world
        if driven is None or driven.outcome.done():
            return
        driven.ended_by = driven.ended_by or reason
        if world is not None:
            world.stop()

    # Driving, in a thread of its own.

    def _work(self) -> None:
        """Drive to one goal after the other."""
        while (driven := self._goals.get()) is not None:
            try:
                outcome = self._drive(driven)
            except (EngineLost, SpecError) as error:
                outcome = Outcome(self._result(False, str(error)))
                if isinstance(error, EngineLost):
                    outcome.result.message += ' The robot was told to stop.'
                self._leave_world()
            except Exception as error:  # the thread's edge: the next goal is another try
                self.get_logger().error(f'{NAME}: {error!r}')
                outcome = Outcome(self._result(False, f'The planner failed: {error!r}. The robot '
                                               'was told to stop.'))
                self._leave_world()
            driven.outcome.set_result(outcome)
            text = f'{NAME}: {outcome.result.message}'
            if outcome.result.success or outcome.is_canceled:
                self.get_logger().info(text)
            else:
                self.get_logger().warning(text)
        self._leave_world()
        self._driver.close()

    def _drive(self, driven: _Driven) -> Outcome:
        """Drive to one goal."""
        if driven.ended_by:
            return self._ended(driven)
        world = self._joined(driven.draws)
        goal, shown = driven.goal, world.join(render=driven.draws)
        begin_ns = world.sim_ns
        aim = self._driver.aim(goal, world.scene, world.spec.robot, world.scene_odom,
                               self._frames.odom)
        drive = self._driver.begin(world, world.scene, aim, shown, goal.time_limit_s,
                                   not world.is_stepped)
        while not drive.is_over and not driven.ended_by:
            stamp_ns = world.sim_ns
            self._tell(driven, drive.advance(), stamp_ns)
        world.stop()
        if driven.ended_by:
            return self._ended(driven, drive.path, world.sim_ns - begin_ns)
        text = ('Reached the goal.' if drive.is_reached else
                f'Not reached within {goal.time_limit_s:g} s; the robot was told to stop.')
        return Outcome(self._result(drive.is_reached, text, drive.path, world.sim_ns - begin_ns))

    def _joined(self, draws: bool) -> RosWorld:
        """Return the world, found again if it has no pictures and they are needed."""
        if self._world is None or (draws and not self._shows):
            self._leave_world()
            world = self._find_world(draws)
            with self._lock:
                self._world, self._shows = world, draws
        assert self._world is not None, 'it was found'
        return self._world

    def _leave_world(self) -> None:
        """Stop the robot and leave the world; it is looked for again."""
        with self._lock:
            world, self._world = self._world, None
        if world is not None:
            world.close()

    def _tell(self, driven: _Driven, progress: DriveProgress, stamp_ns: int) -> None:
        try:
            driven.handle.publish_feedback(drive_feedback_to_msg(progress, stamp_ns,
                                                                 self._frames.map))
        except Exception as error:  # the graph is going down, and the robot must not go on
            self.get_logger().warning(f'{NAME}: no feedback: {error}', once=True)

    def _ended(self, driven: _Driven, path: Sequence[np.ndarray] = (),
               elapsed_ns: int = 0) -> Outcome:
        return Outcome(self._result(False, driven.ended_by, path, elapsed_ns),
                       driven.ended_by == CANCELED)

    def _result(self, success: bool, text: str, path: Sequence[np.ndarray] = (),
                elapsed_ns: int = 0) -> Any:
        return drive_result_to_msg(success, text, path, self._frames.map, (0, elapsed_ns))
