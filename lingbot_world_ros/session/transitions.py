# SPDX-License-Identifier: Apache-2.0
"""How a session gets from one state to another: load, play, pause, stop, reset, fail. No ROS."""
import traceback
from typing import Callable, Optional

from lingbot_world_ros.engines.interface import Observation
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.session.clock import ClockTicker, SimClock
from lingbot_world_ros.session.faults import fault_of
from lingbot_world_ros.session.log import Log
from lingbot_world_ros.session.notifier import Notifier
from lingbot_world_ros.session.player import Player
from lingbot_world_ros.session.prompts import Prompts
from lingbot_world_ros.session.requests import check_request, Refused
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Mode, Reason, Request, State, TimePolicy
from lingbot_world_ros.session.status import SessionStatus
from lingbot_world_ros.session.supervisor import Supervisor
from lingbot_world_ros.worlds.definition import WorldDefinition


class Transitions:
    """
    Changes of state, each of them a request; called by the session's worker.

    It is the worker's agenda, too: what is due while nobody asks depends on the state.
    """

    def __init__(self, engine: Supervisor, player: Player, prompts: Prompts, notifier: Notifier, *,
                 get_spec: Callable[[], SessionSpec], sim: SimClock, ticker: ClockTicker,
                 log: Log):
        """
        Prepare.

        :param engine: runs the world
        :param player: makes its steps
        :param prompts: those that wait for the engine
        :param notifier: has the status
        :param get_spec: asked how the session runs
        :param sim: counts frames
        :param ticker: tells sim time between them
        :param log: told of failures
        """
        self._engine, self._player, self._prompts = engine, player, prompts
        self._notifier, self._get_spec, self._log = notifier, get_spec, log
        self._sim, self._ticker = sim, ticker
        self.definition: Optional[WorldDefinition] = None  # of the world; None: none is loaded
        self.next_seed: Optional[int] = None  # of the next reset that names none
        self._state_after_error = State.PAUSED
        self._is_advancing = False

    # Requests.

    def load(self, definition: WorldDefinition) -> None:
        """Replace the world; if that fails the old one goes on where it can."""
        self._player.settle()
        before, kept = self._notifier.status, self._engine.keep()
        self._notifier.stand_still(State.LOADING)
        try:
            observation = self._engine.reset(definition, definition.seed)
        except Exception as error:
            goes_on = (before.state not in (State.NO_WORLD, State.ERROR)
                       and self._engine.go_back(kept))
            self._notifier.tell(state=before.state)
            if not goes_on:
                raise
            raise Refused(Reason.ENGINE, 'The world was not loaded, the one before goes on: '
                          f'{_told(error)}') from error
        self.next_seed = None
        self._begin(definition, definition.seed, observation, may_time_restart=True)
        self._notifier.tell(state=State.STOPPED)

    def unload(self) -> None:
        """Drop the world."""
        self._check(Request.UNLOAD)
        self._player.settle()
        self._player.observation = self.definition = None
        self._ticker.finish()
        self._notifier.world_ends(self._sim.now_ns)

    def reset(self, time: bool, state: bool, seed: Optional[int]) -> None:
        """Start time, the state of the world or both over; out of an error both."""
        self._check(Request.RESET)
        self._player.settle()
        before = self._notifier.status.state
        if state or before == State.ERROR:
            self._start_over(seed, may_time_restart=time)
        elif time and self._get_spec().reset_time_policy == TimePolicy.ZERO:
            self._player.restart_time()
        self._notifier.tell(state=self._state_after_error if before == State.ERROR else before)

    def stop(self) -> None:
        """Pause and start over."""
        self._check(Request.STOP)
        self._player.settle()
        self._start_over(None, may_time_restart=True)
        self._notifier.tell(state=State.STOPPED)

    def play(self) -> None:
        """Let sim time run."""
        self._check(Request.PLAY)
        self._player.pace_anew()
        self._notifier.tell(state=State.PLAYING)

    def pause(self) -> None:
        """Let sim time stand."""
        self._check(Request.PAUSE)
        self._player.settle()
        self._ticker.finish()
        self._notifier.stand_still(State.PAUSED)

    def set_mode(self, mode: Mode, change_spec: Callable[..., None]) -> None:
        """
        Let sim time advance in another way; commands are forgotten.

        :param mode: the new one
        :param change_spec: changes it for the session
        """
        if mode == self._get_spec().mode:
            return
        self._player.settle()
        self._ticker.finish()
        change_spec(mode=mode)
        state = self._notifier.status.state
        if mode == Mode.STEPPED:
            self._state_after_error = _paused_if_playing(self._state_after_error)
            state = _paused_if_playing(state)
        self._player.change_mode()
        self._notifier.mode_changes(mode)
        self._notifier.stand_still(state)

    def advance(self, num_steps: int, on_step: Optional[Callable[[int, int], None]],
                is_over: Callable[[], bool], is_left_behind: Callable[[], bool]) -> None:
        """
        Make steps of a paused world.

        :param num_steps: how many
        :param on_step: called with steps done and steps left, after each
        :param is_over: asked between steps whether to end early
        :param is_left_behind: asked at the end whether another thread has taken over
        :raises Refused: the world is not paused, or the steps ended early
        """
        self._check(Request.ADVANCE)
        self._is_advancing = True
        try:
            self._notifier.note(state=State.PLAYING)
            for done in range(1, num_steps + 1):
                self._player.step()
                if on_step is not None:
                    on_step(done, num_steps - done)
                if done < num_steps and is_over():
                    raise Refused(Reason.INTERRUPTED, f'Interrupted after {done} of {num_steps} '
                                  f'steps, {num_steps - done} remain.', done)
        finally:
            if not is_left_behind():
                self._is_advancing = False
                if self._notifier.status.state == State.PLAYING:
                    self._notifier.stand_still(State.PAUSED)

    # The worker's agenda.

    def due_ns(self) -> Optional[int]:
        """Return the wall time of what comes next; None: not before something has happened."""
        state = self._notifier.status.state
        if self._engine.is_gone and state in (State.PLAYING, State.PAUSED, State.STOPPED):
            return 0  # with a call that nobody waited for
        return self._player.due_ns() if state == State.PLAYING else None

    def do_due(self) -> None:
        """Play, or find out that there is no engine any more."""
        if self._engine.gone_by is not None:
            self._player.show_rest()
            raise self._engine.gone_by
        self._player.do_due()

    def answer(self) -> SessionStatus:
        """Return the status, the answer to every request."""
        return self._notifier.status

    def fail(self, error: Exception) -> None:
        """Stop sim time; the last frame is not repeated, and only a reset goes on."""
        fault = fault_of(error)
        text = f'The world stopped ({fault.name.lower()}): {_told(error).rstrip(".")}.'
        if isinstance(error, SpecError):  # the user can mend it; where it came from is no help
            self._log.error(text)
        else:
            self._log.error(f'{text}\n{"".join(traceback.format_exception(error))}')
        state = self._notifier.status.state
        if state in (State.PLAYING, State.PAUSED, State.STOPPED):
            self._state_after_error = State.PAUSED if self._is_advancing else state
        self._is_advancing = False
        self._ticker.finish()
        self._player.drop()
        self._prompts.refuse_all(error)
        self._notifier.stand_still(State.NO_WORLD if self.definition is None else State.ERROR,
                                   fault=fault, message=text)

    def end(self) -> None:
        """Show the rest of the step in progress and end the engine."""
        self._player.settle()
        self._engine.close()
        self._ticker.finish()
        self._notifier.tell(state=State.STOPPED)

    # How.

    def _check(self, request: Request) -> None:
        check_request(request, self._notifier.status)

    def _start_over(self, seed: Optional[int], may_time_restart: bool) -> None:
        assert self.definition is not None  # a world is loaded, or the request was refused
        next_seed, self.next_seed = self.next_seed, None
        if seed is None:
            seed = self._notifier.status.seed if next_seed is None else next_seed
        self._begin(self.definition, seed, self._engine.reset(self.definition, seed),
                    may_time_restart)

    def _begin(self, definition: WorldDefinition, seed: int, observation: Observation,
               may_time_restart: bool) -> None:
        """Everything starts over from a first observation, which is shown."""
        spec = self._get_spec()
        self.definition = definition
        self._player.begin(observation, is_time_zero=(
            may_time_restart and spec.reset_time_policy == TimePolicy.ZERO))
        self._notifier.world_begins(definition, seed, mode=spec.mode, stamp_ns=self._sim.now_ns,
                                    conditioning=self._engine.conditioning)
        self._player.show_start()


def _paused_if_playing(state: State) -> State:
    return State.PAUSED if state == State.PLAYING else state


def _told(error: BaseException) -> str:
    """Return an error's text; what is no message to the user begins with its kind."""
    return str(error) if isinstance(error, SpecError) else f'{type(error).__name__}: {error}'
