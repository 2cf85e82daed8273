# SPDX-License-Identifier: Apache-2.0
"""
The action FollowJointTrajectory of the arm controller: goals in, feedback and results out.

One goal is followed at a time, as by joint_trajectory_controller. What a goal asks of the joints
goes the way of every other command; here is who is told of it. ``docs/commands.md`` has the rules.
"""
from concurrent.futures import Future
from functools import partial
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from lingbot_world_ros.actions.commands import CommandBuffer
from lingbot_world_ros.actions.trajectory_goal import Code, Progress, TrajectoryGoal
from lingbot_world_ros.messages.trajectory_goal import feedback_to_msg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.waiting import Waiting
import numpy as np
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

NAME = 'follow_joint_trajectory'
# Takes a message over as a command; calls back with the goal as soon as it is one.
Take = Callable[[Any, Callable[[TrajectoryGoal], None]], bool]


class Outcome(NamedTuple):
    """How a goal ended, and whether its client asked for it."""

    code: Code
    text: str
    is_canceled: bool = False


class _Followed:
    """
    A goal that is followed; ``handle`` is there once its client was told so.

    A step may come before: what is to be told of it waits in ``early``.
    """

    def __init__(self, goal: TrajectoryGoal) -> None:
        self.goal = goal
        self.handle: Optional[ServerGoalHandle] = None
        self.early: List[Progress] = []
        self.outcome: Future = Future()


def action_name(trajectory_topic: str) -> str:
    """
    Name the action beside the topic of the same controller.

    :param trajectory_topic: for example ``'arm_controller/joint_trajectory'``
    :return: ``'arm_controller/follow_joint_trajectory'``
    """
    folder, slash, _ = trajectory_topic.rpartition('/')
    return f'{folder}{slash}{NAME}'


def installed() -> Any:
    """Return the type of the action, None if no control_msgs is installed."""
    try:
        from control_msgs.action import FollowJointTrajectory
    except ImportError:
        return None
    return FollowJointTrajectory


class TrajectoryAction:
    """
    Offers the action, and watches over the goal that is followed.

    Goals come and are canceled in the executor's thread, frames in any other. Without a goal
    nothing is done: nobody listens, no timer runs.
    """

    def __init__(self, node: Node, topic: str, take: Take,
                 hold: Callable[[int], None]) -> None:
        """
        Offer the action, where control_msgs is installed.

        :param node: rclpy node to put it on
        :param topic: of the trajectories of the same controller
        :param take: called with a goal message; takes it over as a command, or returns False
        :param hold: called with the number of a command; lets joints hold that follow it
        """
        self.name = action_name(topic)
        self._node, self._take, self._hold = node, take, hold
        self._lock = threading.Lock()  # guards what is below
        self._followed: Optional[_Followed] = None
        self._asked: Dict[int, _Followed] = {}  # by identity of the message, until it is accepted
        self._type, self._server = installed(), None
        if self._type is None:
            node.get_logger().info(f'No action {self.name}: control_msgs is not installed (sudo '
                                   'apt install ros-$ROS_DISTRO-control-msgs).')
            return
        qos.topic_name(node, self.name)
        self._waiting = Waiting(node)
        self._server = ActionServer(
            node, self._type, self.name, self._refuse, goal_callback=self.on_goal,
            handle_accepted_callback=self.on_accepted, cancel_callback=self.on_cancel,
            callback_group=self._waiting.group)

    def destroy(self) -> None:
        """Withdraw the action; call it before the node is destroyed."""
        self.end('The action server is shutting down.')
        if self._server is not None:
            self._server.destroy()
            self._waiting.destroy()

    # Goals, in the executor's thread.

    def on_goal(self, request: Any) -> GoalResponse:
        """Follow a goal, or refuse it; the log and ``world_status`` say why."""
        before: List[_Followed] = []

        def begin(goal: TrajectoryGoal) -> None:
            """Watch over a goal, before a step can follow it."""
            with self._lock:
                before.extend(filter(None, [self._followed]))
                self._followed = self._asked[id(request)] = _Followed(goal)
        is_taken = self._take(request, begin)
        for followed in before:
            followed.outcome.set_result(Outcome(
                Code.INVALID_GOAL, f'Preempted by a new goal on {self.name}.'))
        return GoalResponse.ACCEPT if is_taken else GoalResponse.REJECT

    def on_accepted(self, handle: ServerGoalHandle) -> None:
        """Take note of who is to be told; the goal may have ended already."""
        followed = self._asked.pop(id(handle.request))
        with self._lock:
            followed.handle = handle
            for progress in followed.early:
                self._tell(handle, followed.goal, progress)
        handle.execute(partial(self._execute, followed=followed))

    def on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        """Let the joints hold where they are, should they still follow this goal."""
        followed = self._followed
        if followed is not None and followed.handle is handle:
            self._end(followed, Outcome(Code.SUCCESSFUL, 'Canceled; the joints hold.', True),
                      holds=True)
        return CancelResponse.ACCEPT

    def _refuse(self, handle: ServerGoalHandle) -> Any:
        raise RuntimeError('a goal is executed when it is accepted')

    async def _execute(self, handle: ServerGoalHandle, followed: _Followed) -> Any:
        """Suspend until the goal has ended, and tell how."""
        await self._waiting.wait(followed.outcome, 0)
        outcome = followed.outcome.result()
        if outcome.is_canceled:
            handle.canceled()
        elif outcome.code == Code.SUCCESSFUL:
            handle.succeed()
        else:
            handle.abort()
        return self._type.Result(error_code=int(outcome.code), error_string=outcome.text)

    # What becomes of them, in any thread.

    @property
    def full_name(self) -> str:
        """The name that clients see, '' where there is no action."""
        return '' if self._server is None else qos.topic_name(self._node, self.name)

    @property
    def goal(self) -> Optional[TrajectoryGoal]:
        """The goal that is followed, None if there is none."""
        followed = self._followed
        return None if followed is None else followed.goal

    def planned(self, buffer: CommandBuffer, sim_ns: int) -> None:
        """
        Take note of the first step that follows a new goal.

        :param buffer: that knows the way of each joint
        :param sim_ns: sim time at which the step begins
        """
        goal = self.goal
        if goal is not None and not goal.is_planned:
            goal.plan(lambda column: buffer.plan(column, sim_ns), sim_ns)

    def usurper(self, buffer: CommandBuffer) -> str:
        """
        Look whether another command moves a joint of the goal by now.

        :param buffer: that knows which command a joint follows
        :return: topic of that command, '' for none
        """
        goal = self.goal
        claims: List = [] if goal is None else list(map(buffer.claim, goal.columns))
        return next((topic for number, topic in claims
                     if goal is not None and number != goal.number), '')

    def observe(self, stamp_ns: int, position: np.ndarray, velocity: np.ndarray) -> None:
        """
        Tell of a frame.

        :param stamp_ns: its sim time
        :param position: (J,) of all joints of the world, rad or m
        :param velocity: (J,) rad/s or m/s
        """
        followed = self._followed
        if followed is None:
            return
        progress = followed.goal.observe(stamp_ns, position, velocity)
        if progress is None:
            return
        self._publish(followed, progress)
        if progress.code is not None:
            self._end(followed, Outcome(progress.code, progress.text),
                      holds=progress.code != Code.SUCCESSFUL)

    def end(self, reason: str, holds: bool = True) -> None:
        """
        Abort the goal that is followed, if there is one.

        :param reason: for its client
        :param holds: joints that still follow it hold where they are; else they go on
        """
        followed = self._followed
        if followed is not None:
            self._end(followed, Outcome(Code.INVALID_GOAL, reason), holds)

    def _end(self, followed: _Followed, outcome: Outcome, holds: bool) -> None:
        """End a goal once, however many would."""
        with self._lock:
            if self._followed is not followed:
                return
            self._followed = None
        if holds:
            self._hold(followed.goal.number)
        followed.outcome.set_result(outcome)

    def _publish(self, followed: _Followed, progress: Progress) -> None:
        with self._lock:
            if followed.handle is None:
                followed.early.append(progress)
            else:
                self._tell(followed.handle, followed.goal, progress)

    def _tell(self, handle: ServerGoalHandle, goal: TrajectoryGoal, progress: Progress) -> None:
        try:
            handle.publish_feedback(feedback_to_msg(progress, goal.names, self._type.Feedback()))
        except Exception as error:  # the graph is going down, and the world must not suffer
            self._node.get_logger().warning(f'{self.name}: no feedback: {error}', once=True)
