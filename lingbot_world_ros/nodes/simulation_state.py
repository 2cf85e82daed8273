# SPDX-License-Identifier: Apache-2.0
"""Play, pause, stop, quit and reset: the services of simulation_interfaces on its state."""
from concurrent.futures import Future
from typing import Any, Callable, Dict, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages import simulation as standard
from lingbot_world_ros.messages.simulation import (FEATURE_UNSUPPORTED, INCORRECT_STATE,
                                                   OPERATION_FAILED, Refusal)
from lingbot_world_ros.nodes.simulation_answers import Answers, TRANSITIONS
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.states import Mode, State, TimePolicy
from rclpy.timer import Timer

QUIT_DELAY_S = 0.2  # the answer to QUITTING leaves first


class StateServices:
    """Answers for the state of the simulation."""

    def __init__(self, answers: Answers, on_quit: Callable[[], None]):
        """
        Prepare.

        :param answers: what all services share
        :param on_quit: called shortly after a request to quit was answered
        """
        self._answers, self._on_quit = answers, on_quit
        self.handlers = {'GetSimulationState': self.get, 'SetSimulationState': self.set,
                         'ResetSimulation': self.reset}

    async def get(self, request: Any, response: Any) -> None:
        """Tell the state."""
        response.state.state = self._answers.state_number()
        status = self._answers.session(may_quit=True).status
        if status.state == State.ERROR and not self._answers.is_quitting:
            raise Refusal(OPERATION_FAILED, status.message)

    async def set(self, request: Any, response: Any) -> None:
        """Get to another state."""
        session = self._answers.session()
        target = standard.state_name(request.state.state)
        if target is None:
            raise Refusal(FEATURE_UNSUPPORTED, f'There is no state {request.state.state}.')
        if target == standard.QUITTING:
            return await self._quit(session)
        before = session.status.state
        if target in (State.NO_WORLD, State.LOADING):
            if before == target:
                raise Refusal('ALREADY_IN_TARGET_STATE', f'The state is {target} already.')
            raise Refusal('INCORRECT_TRANSITION', f'The state {target} cannot be set; use '
                          'unload_world or load_world.')
        if before == State.LOADING:
            raise Refusal('INCORRECT_TRANSITION', 'A world is being loaded; wait for it.')
        changes: Dict[str, Callable[[], Future]] = {
            State.STOPPED: session.stop, State.PLAYING: session.play, State.PAUSED: session.pause}
        try:
            await self._answers.done(changes[target](), TRANSITIONS)
        except Refusal as refusal:
            # Steps that this very request ended were playing, and leave the world paused.
            if refusal.code != 'ALREADY_IN_TARGET_STATE' or before == target:
                raise

    async def reset(self, request: Any, response: Any) -> None:
        """Start time, state or both over."""
        session, params = self._answers.session(), self._answers.params
        time_too, state_too = self._scopes(request.scope)
        if session.status.state in (State.NO_WORLD, State.LOADING):
            raise Refusal(INCORRECT_STATE, 'No world is loaded; load one first.')
        if time_too or state_too:
            await self._answers.done(session.reset(time=time_too, state=state_too))
        if params.state_after_reset == State.PLAYING and params.mode != Mode.STEPPED:
            await self._play(session)

    async def _quit(self, session: Session) -> None:
        """Stop what runs, answer, and only then end."""
        self._answers.is_quitting = True
        try:
            await self._answers.done(session.stop())
        except SpecError:
            pass  # nothing runs, or it cannot be stopped; the end comes all the same
        waiting = self._answers.waiting

        def end() -> None:
            timer.cancel()
            self._on_quit()

        timer: Timer = self._answers.node.create_timer(QUIT_DELAY_S, end, clock=waiting.steady,
                                                       callback_group=waiting.group)

    def _scopes(self, scope: int) -> Tuple[bool, bool]:
        """Return whether time and state start over; spawned entities there are none."""
        if scope in (0, standard.SCOPE_ALL):
            return True, True
        if scope & ~(standard.SCOPE_TIME | standard.SCOPE_STATE | standard.SCOPE_SPAWNED):
            raise Refusal(FEATURE_UNSUPPORTED, f'scope={scope} has unknown bits.')
        time_too, state_too = bool(scope & standard.SCOPE_TIME), bool(scope & standard.SCOPE_STATE)
        policy = self._answers.params.reset_time_policy
        if time_too and not state_too and policy != TimePolicy.ZERO:
            raise Refusal(FEATURE_UNSUPPORTED, 'Time does not restart: reset_time_policy is '
                          f'{policy}.')
        return time_too, state_too

    async def _play(self, session: Session) -> None:
        try:
            await self._answers.done(session.play(), TRANSITIONS)
        except Refusal as refusal:
            if refusal.code != 'ALREADY_IN_TARGET_STATE':
                raise Refusal(OPERATION_FAILED, str(refusal)) from refusal
