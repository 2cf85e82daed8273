# SPDX-License-Identifier: Apache-2.0
"""
Let another engine do what a running world does, step by step, and compare the two.

The same segments as in a recording, read while they happen. ``Follower`` takes in messages,
whoever received them, and drives its engine in a thread of its own. No ROS.
"""
from collections import deque
from dataclasses import dataclass, replace
import threading
from typing import Any, Callable, Deque, Optional, Sequence

from lingbot_world_ros.engines.interface import WorldModel
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.recording.recorded import RecordedStep, Segment, SegmentBuilder
from lingbot_world_ros.recording.replay import (definition_of, RecordedActions, set_anchors,
                                                set_prompt)
from lingbot_world_ros.session.frame import Frame
from lingbot_world_ros.session.log import Log
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Mode, State
from lingbot_world_ros.session.status import SessionStatus
import numpy as np

MAX_LAG_S = 0.25  # of sim time; further behind, no pictures are made until it is caught up
MAX_HELD = 1000  # statuses that may wait for their world_spec
WAITS = 'Waits for a world.'


@dataclass(frozen=True)
class _Task:
    """What the engine has yet to do: a step, or the start of a segment where ``step`` is None."""

    segment: Segment
    stamp_ns: int  # of its last frame, in the followed world
    step: Optional[RecordedStep] = None


class FollowerObserver(SessionObserver):
    """What a follower tells of its frames, and of anchors besides."""

    def on_anchor(self, pose: np.ndarray, stamp_ns: int) -> None:
        """
        Run when the robot is put somewhere, before the step that follows.

        :param pose: (3,) x, y [m], yaw [rad], scene frame
        :param stamp_ns: of the frame after which it happened
        """


class Follower(SessionObserver):
    """
    Does with its engine what a world tells in ``world_spec`` and ``world_status``.

    Messages come from one thread at a time; frames leave in another, stamped like those of the
    followed world. Nothing is guessed: after a gap it waits for the next reset.
    """

    def __init__(self, engine: WorldModel, *, observers: Sequence[SessionObserver], log: Log,
                 world_path: str = '', make_engine: Optional[Callable[[], WorldModel]] = None,
                 is_watched: Callable[[], bool] = lambda: True, max_lag_s: float = MAX_LAG_S):
        """
        Prepare; nothing happens before the messages come.

        :param engine: that shall follow, not yet reset
        :param observers: told about its frames; a ``FollowerObserver`` of anchors, too
        :param log: a ROS or a Python logger
        :param world_path: folders with start images, as in ``WorldLibrary``
        :param make_engine: makes another engine should this one hang
        :param is_watched: asked before each step whether somebody looks at pictures
        :param max_lag_s: sim time behind which pictures are left out
        """
        self._observers, self._log, self._world_path = observers, log, world_path
        self._is_watched, self._max_lag_s = is_watched, max_lag_s
        self._builder = SegmentBuilder()
        self._spec: Any = None  # newest WorldSpec
        self._held: Deque[Any] = deque(maxlen=MAX_HELD)
        self._segment: Optional[Segment] = None
        self._last_stamp_ns = 0
        self._wake = threading.Condition()  # guards what is below, up to the blank line
        self._tasks: Deque[_Task] = deque()
        self._following: Optional[Segment] = None
        self._closing = False
        self.text, self.waits_for_reset = WAITS, False

        self._doing: Optional[_Task] = None
        self._shift_ns = 0  # from sim time of the session to that of the followed world
        self._newest_ns = 0  # sim time of the newest frame, in the followed world
        self._source = RecordedActions(engine.spec)
        self.session = Session(engine, SessionSpec(mode=Mode.STEPPED, initial_state=State.PAUSED),
                               observers=[self], log=log, make_world=make_engine,
                               is_watched=self._takes_pictures)
        self.session.link(self._source)
        self._thread = threading.Thread(target=self._run, name='follower', daemon=True)
        self._thread.start()

    @property
    def is_following(self) -> bool:
        """Whether everything so far was repeated, or will be."""
        return self._following is not None

    @property
    def num_behind(self) -> int:
        """Steps that are known and not made yet."""
        return len(self._tasks)

    @property
    def lag_s(self) -> float:
        """Sim time by which the engine is behind, seconds."""
        return self.num_behind * self.session.world.spec.step_dt_s

    def look(self) -> None:
        """Draw the newest frame if nobody looked when it was made and time stands still."""
        if self.is_following and not self._tasks:
            self.session.look()

    def close(self, patience_s: Optional[float] = None) -> None:
        """
        End the threads, after the step that is being made.

        :param patience_s: as in ``Session.close``
        """
        with self._wake:
            self._closing, self._following = True, None
            self._tasks.clear()
            self._wake.notify_all()
        self.session.close(patience_s)
        self._thread.join(patience_s)

    # What the followed world tells.

    def on_spec(self, msg: Any) -> None:
        """Take in a WorldSpec."""
        self._spec = msg
        self._builder.on_spec(msg)
        held, self._held = self._held, deque(maxlen=MAX_HELD)
        for status in held:
            self.on_world_status(status)

    def on_world_status(self, msg: Any) -> None:
        """Take in a WorldStatus; the two topics may overtake each other."""
        spec = self._spec
        if spec is None or msg.digest and (msg.scene, msg.seed) != (spec.scene, spec.seed):
            self._held.append(msg)
            return
        segment, is_new = self._builder.on_status(msg), False
        self._builder.segments.clear()
        if segment is not self._segment:
            self._segment, is_new = segment, True
            self._begin(segment, msg)
        stamp_ns = msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec
        if segment is not None and self.is_following:
            self._go_on(segment, stamp_ns, is_new)
        self._last_stamp_ns = stamp_ns

    def _begin(self, segment: Optional[Segment], msg: Any) -> None:
        """Start over where the followed world did, if that can be done."""
        if segment is None:
            return self._wait('No world is loaded.')
        if segment.problem:
            return self._wait(f'The world is at step {msg.step}: the truth begins with its next '
                              'reset.', for_reset=True)
        try:
            self._check(self._spec)
        except SpecError as error:
            return self._wait(str(error))
        stamp = msg.header.stamp
        first_ns = stamp.sec * 1_000_000_000 + stamp.nanosec - round(
            msg.step * self._spec.step_dt * 1e9)
        with self._wake:
            self._tasks.clear()
            self._following, self.waits_for_reset = segment, False
            self._tasks.append(_Task(segment, first_ns))
            self._wake.notify_all()
        self._tell(f'Follows {msg.scene}, seed {msg.seed}.')

    def _check(self, msg: Any) -> None:
        """Refuse a world whose actions mean nothing to the engine."""
        mine = self.session.world.spec
        text = f'Engine {mine.engine!r} cannot follow this world of engine {msg.engine!r}: '
        if msg.scene not in mine.scenes:
            raise SpecError(f'{text}it has no scene {msg.scene!r}, only {", ".join(mine.scenes)}.')
        if tuple(msg.action_names) != mine.action.names:
            raise SpecError(f'{text}it acts on {", ".join(mine.action.names)}, the world on '
                            f'{", ".join(msg.action_names)}.')
        if (msg.frames_per_step != mine.frames_per_step
                or abs(msg.frame_rate - mine.frame_rate_hz) > 1e-6):
            raise SpecError(
                f'{text}it makes {mine.frames_per_step} frames per step at '
                f'{mine.frame_rate_hz:g} Hz, the world {msg.frames_per_step} at '
                f'{msg.frame_rate:g} Hz.')

    def _go_on(self, segment: Segment, stamp_ns: int, is_new: bool) -> None:
        """Take over the steps that were told, unless something is missing."""
        steps, problem = list(segment.steps), segment.problem
        segment.steps.clear()
        period_ns = self.session.world.spec.frame_period_ns
        step_ns = period_ns * self.session.world.spec.frames_per_step
        if segment.world.text != self._spec.world_resource:
            problem = 'another world was loaded, whose start was not heard'
        elif steps and not is_new and abs(
                stamp_ns - self._last_stamp_ns - step_ns) > period_ns // 2:
            problem = f'sim time jumped before step {steps[0].index}'
        if problem:
            return self._wait(f'{problem[0].upper()}{problem[1:]}: out of step until the next '
                              'reset.', for_reset=True)
        with self._wake:
            self._tasks += [_Task(segment, step.stamp_ns, step) for step in steps]
            self._wake.notify_all()

    def _wait(self, text: str, for_reset: bool = False) -> None:
        """Show nothing more until another segment begins."""
        with self._wake:
            self._tasks.clear()
            self._following, self.waits_for_reset = None, for_reset
        self._tell(text)

    def _tell(self, text: str) -> None:
        if text != self.text:
            self.text = text
            if self.is_following:
                self._log.info(text)
            else:
                self._log.warning(text)

    # What the engine does, in the follower's thread.

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._tasks or self._closing)
                if self._closing:
                    return
                task = self._tasks[0]
            try:
                self._do(task)
            except Exception as error:  # the thread's edge: an engine may fail in any way
                self._give_up(task.segment, error)
            with self._wake:
                if self._tasks and self._tasks[0] is task:
                    self._tasks.popleft()

    def _do(self, task: _Task) -> None:
        session, spec = self.session, self.session.world.spec
        self._doing = task
        if task.step is None:
            self._shift_ns = task.stamp_ns - spec.frame_period_ns
            session.load(definition_of(task.segment, spec, self._world_path)).result()
            session.pause().result()
            return
        step_ns = spec.frame_period_ns * spec.frames_per_step
        self._shift_ns = task.stamp_ns - (session.sim_ns + step_ns)
        set_anchors(session, task.step.anchors)
        set_prompt(session, task.step.prompt)
        if task.step.anchors:
            self._tell_anchor(np.array(task.step.anchors[-1][:3]), task.stamp_ns - step_ns)
        self._source.put([task.step])
        session.advance(1).result()

    def _give_up(self, segment: Segment, error: Exception) -> None:
        if self._following is not segment:  # it is over anyway
            return
        told = str(error) if isinstance(error, SpecError) else f'{type(error).__name__}: {error}'
        self._wait(f'Engine {self.session.world.spec.engine!r} cannot follow: '
                   f'{told.rstrip(".")}.')

    def _takes_pictures(self) -> bool:
        return self._is_watched() and (self.num_behind <= 1 or self.lag_s <= self._max_lag_s)

    def _tell_anchor(self, pose: np.ndarray, stamp_ns: int) -> None:
        for observer in self._observers:
            if isinstance(observer, FollowerObserver):
                observer.on_anchor(pose, stamp_ns)

    # What comes of it, in the thread of the session's worker.

    def on_reset(self, status: SessionStatus) -> None:
        """Pass a start on."""
        for observer in self._observers:
            observer.on_reset(status)

    def on_frame(self, frame: Frame) -> None:
        """Pass a frame on, with the stamp of the frame it belongs to."""
        if self._doing is None or self._doing.segment is not self._following:
            return
        self._newest_ns = frame.stamp_ns + self._shift_ns
        frame = replace(frame, stamp_ns=self._newest_ns)
        for observer in self._observers:
            observer.on_frame(frame)

    def on_drawn(self, frame: Frame) -> None:
        """Pass on that the newest frame got a picture."""
        if self._doing is None or self._doing.segment is not self._following:
            return
        frame = replace(frame, stamp_ns=self._newest_ns)
        for observer in self._observers:
            observer.on_drawn(frame)
