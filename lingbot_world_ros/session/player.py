# SPDX-License-Identifier: Apache-2.0
"""Steps are made and their frames leave, each when it is due. No ROS."""
from dataclasses import dataclass
from typing import Callable, Optional, Tuple

from lingbot_world_ros.engines.interface import Observation
from lingbot_world_ros.session.action_reader import ActionReader, Latched
from lingbot_world_ros.session.clock import ClockTicker, SimClock, WallClock
from lingbot_world_ros.session.frame import frame_of, moment
from lingbot_world_ros.session.notifier import Notifier
from lingbot_world_ros.session.pacing import ChunkPacer, Due, Turn
from lingbot_world_ros.session.prompts import Prompts
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Mode
from lingbot_world_ros.session.supervisor import MadeStep, Supervisor
import numpy as np


@dataclass
class _Chunk:
    """The frames of a step, and how many of them have left."""

    latched: Latched
    made: MadeStep
    num_shown: int = 0

    @property
    def num_left(self) -> int:
        return self.made.observation.base_pose.shape[1] - self.num_shown


class Player:
    """
    Makes steps and lets their frames leave; called by the session's worker.

    There is one way for all modes. The pacer says what is due: a step begins, a step that was
    made ahead is taken, or the next frame of the chunk leaves. In realtime, an engine that can
    take steps back makes them ahead, while the chunk before leaves. In lockstep a step is due
    when its commands have come or were waited for long enough; its frames leave at once, as do
    those of a step that somebody asked for.
    """

    def __init__(self, engine: Supervisor, reader: ActionReader, prompts: Prompts,
                 notifier: Notifier, *, get_spec: Callable[[], SessionSpec], sim: SimClock,
                 ticker: ClockTicker, clock: WallClock):
        """
        Prepare.

        :param engine: makes the steps
        :param reader: says what they act on
        :param prompts: those that wait for the engine
        :param notifier: told of every frame and step
        :param get_spec: asked how the session runs
        :param sim: counts frames
        :param ticker: tells sim time between them
        :param clock: steady wall clock
        """
        self._engine, self._reader, self._prompts = engine, reader, prompts
        self._notifier, self._get_spec = notifier, get_spec
        self._sim, self._ticker, self._clock = sim, ticker, clock
        self._pacer = ChunkPacer(engine.world.spec.frames_per_step)
        self._chunk: Optional[_Chunk] = None  # whose frames leave
        self._ahead: Optional[Latched] = None  # what the step ahead acts on
        self._shown: Tuple[Optional[Observation], int] = None, 0
        self.origin = np.zeros(3)  # of odometry, scene frame

    @property
    def is_ahead(self) -> bool:
        """Whether steps are made while the frames of the one before leave."""
        return self._engine.makes_ahead and self._get_spec().mode == Mode.REALTIME

    @property
    def shown(self) -> Tuple[Optional[Observation], int]:
        """What was shown last, t = 1, None without a world; its sim time. From any thread."""
        return self._shown

    @property
    def observation(self) -> Optional[Observation]:
        """What was shown last, t = 1; None without a world."""
        return self._shown[0]

    @observation.setter
    def observation(self, observation: Optional[Observation]) -> None:
        self._shown = observation, self._sim.now_ns  # both at once, for other threads

    @property
    def seen(self) -> Observation:
        """What was shown last; only while a world is loaded."""
        assert self.observation is not None
        return self.observation

    # While a world plays.

    def due_ns(self) -> Optional[int]:
        """Return the wall time of what comes next; None: not before something has happened."""
        return self._turn().due_ns

    def do_due(self) -> None:
        """Do what comes next: a frame leaves, a step begins, or one that was made is taken."""
        what, is_ahead = self._turn().what, self.is_ahead
        if what == Due.STEP and is_ahead:
            return self._begin_ahead()
        if what == Due.STEP and self._get_spec().mode == Mode.LOCKSTEP:
            return self._answer_commands()
        if what == Due.STEP:
            self._make(by_step=False)
        elif what == Due.TAKE:
            assert self._ahead is not None  # it was begun
            self._chunk = _Chunk(self._ahead, self._engine.take())
            self._pacer.made(self._chunk.made.duration_ns)
        now_ns = self._clock.now_ns()
        if what != Due.FRAME:
            self._pacer.show(now_ns, self._wall_ns(1), is_ahead=is_ahead)
        self._pacer.left(now_ns)
        assert self._chunk is not None  # whatever was due gives a frame
        self._show_frame(self._chunk, self._pacer.asked_ns(self._chunk.num_shown))

    def pace_anew(self) -> None:
        """
        Begin to pace now, or with a step that is due a little later.

        Who sends commands on and on while a world stands still does not ask for a step with each.
        """
        if self._get_spec().mode == Mode.LOCKSTEP:
            self._reader.keep(self._get_spec().lockstep_commands)
            self._wait_for_commands()
        else:
            self._pacer.go_on(self._clock.now_ns())
        self._pacer.start_over()
        self._notifier.pace_begins()

    def change_mode(self) -> None:
        """Forget commands and what was due: the mode is another one."""
        self._reader.clear()
        self._pacer.wait_until(0)
        self.pace_anew()

    # When somebody asks.

    def step(self) -> None:
        """Make a step now; its frames leave at once."""
        self._step(by_step=True)

    def settle(self) -> None:
        """End the step in progress at once; the one ahead is taken back as soon as it is made."""
        if self._engine.drop():
            assert self._ahead is not None  # it was begun
            self._reader.take_back(self._ahead)
        self.show_rest()
        self._pacer.start_over()
        if self._prompts.is_waiting:
            self._prompts.hand_over()

    def show_rest(self) -> None:
        """Let the frames of the step in progress leave at once."""
        while self._chunk is not None:
            self._show_frame(self._chunk, None)

    def drop(self) -> None:
        """Forget the step in progress, of which nothing more is shown, and the one ahead."""
        self._chunk = None
        self._engine.drop()

    def begin(self, observation: Observation, is_time_zero: bool) -> None:
        """
        Go to the start of a world, which ``show_start`` shows.

        :param observation: the first one; odometry counts from there
        :param is_time_zero: sim time starts over
        """
        if is_time_zero:
            self._sim.reset()
        self.observation, self.origin = observation, observation.base_pose[0, -1].copy()
        self._reader.clear()

    def show_start(self) -> None:
        """Let the first frame of a world leave; it has a period of its own."""
        self._pacer.wait_until(self._clock.now_ns() + self._wall_ns(1))
        self._hand_out(self.seen, 0)
        if self._get_spec().mode == Mode.LOCKSTEP:
            self._wait_for_commands()

    def restart_time(self) -> None:
        """Let time alone start over: the world as it is gives the first frame of the new time."""
        self._sim.reset()
        self._reader.clear()
        self._notifier.time_begins()
        stamp_ns = self._sim.tick()
        self.observation = self.seen  # from now on it is of the new time
        self._notifier.show(frame_of(self.seen, -1, self._notifier.status.frame, stamp_ns,
                                     self.origin))
        self._ticker.jump(stamp_ns)
        self._notifier.note(stamp_ns=stamp_ns)

    # How.

    def _turn(self) -> Turn:
        spec = self._get_spec()
        is_called = (spec.mode == Mode.LOCKSTEP
                     and self._reader.has_commands(spec.lockstep_commands))
        return self._pacer.turn(
            0 if self._chunk is None else self._chunk.num_left, is_ahead=self.is_ahead,
            is_begun=self._engine.has_begun, is_made=self._engine.has_made,
            can_begin=self._engine.is_free, is_called=is_called)

    def _wall_ns(self, num_frames: int) -> int:
        """Return the wall time that a number of frames shall take; 0 at full speed."""
        speed = self._get_spec().speed
        return round(num_frames * self._sim.period_ns / speed) if speed else 0

    def _begin_ahead(self) -> None:
        if self._prompts.is_waiting:
            return self._prompts.hand_over()
        if self._engine.finish_ns is not None:
            self._pacer.finished(self._engine.finish_ns)
        self._ahead = self._next_actions(by_step=False)
        self._engine.begin_step(self._ahead.actions)

    def _answer_commands(self) -> None:
        """Make the step of a command, or without one when it was waited for long enough."""
        spec = self._get_spec()
        if not self._reader.has_commands(spec.lockstep_commands):
            self._notifier.no_command(spec.lockstep_timeout_s)
        self._step(by_step=False)
        self._wait_for_commands()

    def _wait_for_commands(self) -> None:
        patience_ns = round(self._get_spec().lockstep_timeout_s * 1e9)
        self._pacer.wait_until(self._clock.now_ns() + patience_ns)

    def _step(self, by_step: bool) -> None:
        self._make(by_step)
        self.show_rest()
        self._engine.finish_later()

    def _make(self, by_step: bool) -> None:
        latched = self._next_actions(by_step)
        self._chunk = _Chunk(latched, self._engine.step(latched.actions))

    def _next_actions(self, by_step: bool) -> Latched:
        """Read what the next step acts on, which begins when the frames of this one have left."""
        chunk, spec = self._chunk, self._get_spec()
        num_left = 0 if chunk is None else chunk.num_left
        return self._reader.read(
            self.seen if chunk is None else chunk.made.observation,
            self._sim.now_ns + num_left * self._sim.period_ns, timeout_s=spec.action_timeout_s,
            by_step=by_step, by_wall=spec.mode == Mode.REALTIME and not by_step,
            num_commands=(spec.lockstep_commands if spec.mode == Mode.LOCKSTEP and not by_step
                          else None))

    def _show_frame(self, chunk: _Chunk, planned_ns: Optional[int]) -> None:
        """
        Let the next frame of the chunk leave; the status of the step follows the last one.

        :param chunk: whose frames leave
        :param planned_ns: when it should; None: at once
        """
        made, latched, is_first = chunk.made, chunk.latched, chunk.num_shown == 0
        if is_first:
            self._notifier.step_begins(latched, made.conditioning, made.note)
        self._hand_out(made.observation, chunk.num_shown, planned_ns,
                       latched if is_first else None)
        chunk.num_shown += 1
        if not chunk.num_left:
            self._chunk = None
            self._notifier.step_ends(latched, made.duration_ns * 1e-9)

    def _hand_out(self, observation: Observation, t: int, planned_ns: Optional[int] = None,
                  answers: Optional[Latched] = None) -> None:
        """Let a frame leave; what clients see of the world follows it."""
        stamp_ns = self._sim.tick()
        self.observation = moment(observation, t)
        frame = frame_of(observation, t, self._notifier.status.frame + 1, stamp_ns, self.origin)
        self._notifier.show(frame)
        now_ns, period_ns = self._clock.now_ns(), self._wall_ns(1)
        # How late it is; None for a frame that leaves as soon as it can.
        late_ns = now_ns - planned_ns if planned_ns is not None and period_ns else None
        self._notifier.count(
            frame, now_ns,
            is_late=late_ns is not None and late_ns > period_ns,
            latency_s=None if answers is None else self._reader.answered(answers, now_ns))
        self._ticker.follow(frame.stamp_ns,
                            0 if late_ns is None else max(period_ns, self._notifier.gap_ns))
