# SPDX-License-Identifier: Apache-2.0
"""The status of a session and all that is told of it: frames, rates, digests, messages."""
from collections import deque
from dataclasses import replace
from typing import Any, Callable, Deque, Optional, Sequence, Tuple

from lingbot_world_ros.session.action_reader import Latched
from lingbot_world_ros.session.conditioning import Conditioning
from lingbot_world_ros.session.frame import Frame, frame_digest
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.states import Mode, State
from lingbot_world_ros.session.status import SessionStatus
from lingbot_world_ros.worlds.definition import WorldDefinition

RECOVERY_STEPS = 75  # a recovery is told for about this many steps
TIMEOUT_STEPS = 2  # a step without a command is told in its own status only


class FrameMeter:
    """Rate of the frames of the last second; one thread owns it."""

    WINDOW_NS = 1_000_000_000

    def __init__(self) -> None:
        self._times_ns: Deque[int] = deque()

    def clear(self) -> None:
        """Start again."""
        self._times_ns.clear()

    def add(self, now_ns: int) -> float:
        """Count a frame and return frames per wall second; 0 until there are two."""
        times = self._times_ns
        times.append(now_ns)
        while len(times) > 2 and times[0] < now_ns - self.WINDOW_NS:
            times.popleft()
        span_ns = now_ns - times[0]
        return (len(times) - 1) * 1e9 / span_ns if span_ns else 0.0

    @property
    def gap_ns(self) -> int:
        """Wall time between the two newest frames; 0 until there are two."""
        return self._times_ns[-1] - self._times_ns[-2] if len(self._times_ns) > 1 else 0


class Notifier:
    """
    Owner of the status and the only one who calls observers.

    The worker's thread tells everything but the ticks of the clock, which has its own.
    """

    def __init__(self, observers: Sequence[SessionObserver], mode: Mode, frame_period_ns: int,
                 num_rejected: Callable[[], int]):
        """
        Begin without a world.

        :param observers: who is told
        :param mode: of the session
        :param frame_period_ns: sim time between frames
        :param num_rejected: asked how many embeddings were refused
        """
        self._observers, self._num_rejected = observers, num_rejected
        self._period_s = frame_period_ns * 1e-9
        self._meter = FrameMeter()
        self._status = SessionStatus(State.NO_WORLD, mode)
        self._begun: Optional[SessionStatus] = None  # as told when the world began; None: no world
        self._anchor: Tuple[float, ...] = ()  # set from outside since the newest step
        self._message_until_step = 0

    @property
    def status(self) -> SessionStatus:
        """The newest status; safe from any thread."""
        return self._status

    @property
    def gap_ns(self) -> int:
        """Wall time between the two newest frames; 0 until there are two."""
        return self._meter.gap_ns

    # The status.

    def tell(self, **changes: Any) -> None:
        """Change the status, and tell it."""
        self.note(rejected_embeddings=self._num_rejected(), **changes)
        for observer in self._observers:
            observer.on_status(self._status)

    def note(self, **changes: Any) -> None:
        """Change the status; observers hear of it with what is told next."""
        # As replace() does, at half its cost: there are three for every frame.
        self._status = SessionStatus(**{**vars(self._status), **changes})

    def stand_still(self, state: State, **changes: Any) -> None:
        """Tell that no frames come any more."""
        self.tell(state=state, frame_rate_hz=0.0, real_time_factor=0.0, **changes)

    def anchored(self, anchor: Tuple[float, ...]) -> None:
        """Tell what was set from outside; the status of the next step says so, too."""
        self._anchor = anchor
        self.tell(anchor=anchor)

    # The world.

    def world_begins(self, definition: WorldDefinition, seed: int, *, mode: Mode, stamp_ns: int,
                     conditioning: Conditioning) -> None:
        """
        Tell of a world that starts over, before its first frame.

        :param definition: the world
        :param seed: start state
        :param mode: of the session
        :param stamp_ns: sim time of the newest frame; 0 if time starts over, too
        :param conditioning: what it starts with
        """
        self._anchor = ()
        self._meter.clear()
        old = self._status
        self._status = SessionStatus(
            old.state, mode, definition.scene, seed, definition.name, definition.text,
            stamp_ns=stamp_ns, prompt=conditioning.prompt, counts=old.counts,
            recoveries=old.recoveries)
        self._tell_begun()

    def time_begins(self) -> None:
        """Tell that time alone starts over, before the first frame of the new time."""
        self.note(stamp_ns=0)
        self._tell_begun()

    def world_ends(self, stamp_ns: int) -> None:
        """Tell that no world is loaded any more; ``stamp_ns`` is of its last frame."""
        old, self._begun = self._status, None
        self._status = SessionStatus(State.NO_WORLD, old.mode, stamp_ns=stamp_ns,
                                     counts=old.counts, recoveries=old.recoveries)
        self.tell()

    def mode_changes(self, mode: Mode) -> None:
        """Tell those who know a world by how it began that its mode is another one."""
        self.note(mode=mode)
        if self._begun is not None:
            self._begun = replace(self._begun, mode=mode)
            for observer in self._observers:
                observer.on_mode(self._begun)

    def pace_begins(self) -> None:
        """Take note that frames from now on have another rate than those before."""
        self._meter.clear()

    def _tell_begun(self) -> None:
        self._begun = self._status
        for observer in self._observers:
            observer.on_reset(self._status)

    # Steps and frames.

    def no_command(self, timeout_s: float) -> None:
        """Take note that a step begins without a command, after ``timeout_s`` of waiting."""
        timeouts = self._status.lockstep_timeouts + 1
        self._say(f'lockstep: no command came for {timeout_s:g} s (lockstep_timeout_s), so a step '
                  f'was made without one; {timeouts} so far.', TIMEOUT_STEPS,
                  lockstep_timeouts=timeouts)

    def step_begins(self, latched: Latched, conditioning: Conditioning, note: str) -> None:
        """
        Take note of how a step came, right before its first frame leaves.

        :param latched: what it acted on
        :param conditioning: what it was made with
        :param note: on a recovery, '' if there was none
        """
        acted_on = {} if latched.sequence is None else {
            'embedding_sequence': latched.sequence, 'counts': latched.counts}
        self.note(prompt=conditioning.prompt, images_anchored=conditioning.num_images,
                  **acted_on)
        if note:
            self._say(note, RECOVERY_STEPS, recoveries=self._status.recoveries + 1)

    def step_ends(self, latched: Latched, duration_s: float) -> None:
        """Tell of a step whose last frame has left, and which took this long to make."""
        step = self._status.step + 1
        anchor, self._anchor = self._anchor, ()
        message = self._status.message if step < self._message_until_step else ''
        self.tell(step=step, step_duration_s=duration_s, actions=latched.actions[0],
                  anchor=anchor, message=message)

    def _say(self, message: str, num_steps: int, **changes: Any) -> None:
        """Let the status carry a message until that many more steps have been made."""
        self._message_until_step = self._status.step + num_steps
        self.note(message=message, **changes)

    def show(self, frame: Frame) -> None:
        """Let a frame leave."""
        for observer in self._observers:
            observer.on_frame(frame)

    def count(self, frame: Frame, now_ns: int, *, is_late: bool = False,
              latency_s: Optional[float] = None) -> None:
        """
        Count a frame that has left, for the next status.

        :param frame: the frame
        :param now_ns: steady wall time
        :param is_late: it left later than it should have
        :param latency_s: from the command it answers; None if it answers no new one
        """
        rate_hz = self._meter.add(now_ns)
        status = self._status
        self.note(
            stamp_ns=frame.stamp_ns, frame=frame.index, frame_rate_hz=rate_hz,
            real_time_factor=rate_hz * self._period_s,
            command_latency_s=status.command_latency_s if latency_s is None else latency_s,
            uncertainty=frame.uncertainty, calibrated=frame.calibrated, contact=frame.contact,
            late_frames=status.late_frames + is_late, digest=frame_digest(status.digest, frame))

    def draw(self, frame: Frame) -> None:
        """Tell of the newest frame, which has got a picture after all."""
        for observer in self._observers:
            observer.on_drawn(frame)

    def tick(self, stamp_ns: int) -> None:
        """Tell sim time; also from the clock's thread."""
        for observer in self._observers:
            observer.on_clock(stamp_ns)
