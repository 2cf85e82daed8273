# SPDX-License-Identifier: Apache-2.0
"""Steps that are asked for: a service and an action of simulation_interfaces."""
import time
from typing import Any, Callable, Optional

from lingbot_world_ros.messages import simulation as standard
from lingbot_world_ros.messages.simulation import OK, OPERATION_FAILED, Refusal
from lingbot_world_ros.nodes.simulation_answers import Answers, OTHERWISE
from lingbot_world_ros.session.states import State
from rclpy.action.server import ServerGoalHandle

SOFT_SHARE = 0.9  # of service_timeout_s, after which steps end so that the answer is in time


class StepServices:
    """Makes steps of a paused world and counts them."""

    def __init__(self, answers: Answers, action_type: Any, action_name: str):
        """
        Prepare.

        :param answers: what all services share
        :param action_type: SimulateSteps; None if it is not installed
        :param action_name: as users see it
        """
        self._answers, self._action_type, self._action_name = answers, action_type, action_name
        self.handlers = {'StepSimulation': self.step}

    async def step(self, request: Any, response: Any) -> None:
        """Make as many steps as the time of a service allows."""
        limit_s = self._answers.params.service_timeout_s
        deadline_s = time.monotonic() + SOFT_SHARE * limit_s
        steps = _Steps(request.steps)
        try:
            await self._make(steps, lambda: time.monotonic() > deadline_s)
        except Refusal as refusal:
            if time.monotonic() < deadline_s:
                raise
            raise Refusal(OPERATION_FAILED, f'{steps}: service_timeout_s={limit_s:g} s is over; '
                          f'use the action {self._action_name} for more.') from refusal

    async def execute(self, goal: ServerGoalHandle) -> Any:
        """Execute a goal of the action: as many steps as it takes, however long."""
        steps = _Steps(goal.request.steps, lambda *counts: self._report(goal, *counts))
        result, code, text = self._action_type.Result(), OK, ''
        try:
            await self._make(steps, lambda: goal.is_cancel_requested, within_s=0)
        except Exception as error:  # the executor's edge
            code, text = self._answers.code_of(error), str(error)
        if code == OK:
            goal.succeed()
        elif goal.is_cancel_requested:
            text = f'Canceled: {steps}.'
            goal.canceled()
        else:
            goal.abort()
        standard.set_result(result.result, code, text)
        return result

    def _report(self, goal: ServerGoalHandle, done: int, remaining: int) -> None:
        """Tell the client of a step; the session's thread calls this and must not suffer."""
        try:
            goal.publish_feedback(self._action_type.Feedback(completed_steps=done,
                                                             remaining_steps=remaining))
        except Exception as error:  # the graph is going down
            self._answers.node.get_logger().warning(f'No feedback: {error}', once=True)

    async def _make(self, steps: '_Steps', should_stop: Callable[[], bool],
                    within_s: Optional[float] = None) -> None:
        """Make steps, and count them; a world that is not paused makes none."""
        session = self._answers.session()
        status = session.status
        if status.state != State.PAUSED:
            raise Refusal(OPERATION_FAILED, status.message if status.state == State.ERROR else
                          f'The world makes steps only while it is paused; it is {status.state}.')
        if should_stop():
            raise Refusal(OPERATION_FAILED, f'Interrupted: {steps}.')
        if steps.asked:
            await self._answers.done(session.advance(steps.asked, steps.count, should_stop),
                                     {OTHERWISE: OPERATION_FAILED}, within_s)


class _Steps:
    """Counts the steps of one request; written by the session's thread."""

    def __init__(self, asked: int, on_step: Optional[Callable[[int, int], None]] = None):
        self.asked, self.done = asked, 0
        self._on_step = on_step or (lambda done, remaining: None)

    def count(self, done: int, remaining: int) -> None:
        """Take note of a step."""
        self.done = done
        self._on_step(done, remaining)

    def __str__(self) -> str:
        return f'{self.done} of {self.asked} steps done, {self.asked - self.done} remain'
