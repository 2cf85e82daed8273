# SPDX-License-Identifier: Apache-2.0
"""
When the frames of a step leave and when the next step begins, for engines made ahead. Pure.

Such an engine makes several frames per step, and makes a step while the frames of the one before
leave. All times are steady wall time in nanoseconds.
"""
from collections import deque
from typing import NamedTuple, Optional

CATCH_UP_NS = 500_000_000  # a delay up to here is made good by faster frames
NUM_SAMPLES = 5  # steps that tell how long the next one takes
MARGIN = 0.1  # a step begins this much of its duration earlier than it must
LEAST_MARGIN_NS = 10_000_000

FRAME, TAKE, BEGIN, NOTHING = 'frame', 'take', 'begin', 'nothing'


class Turn(NamedTuple):
    """What comes next (FRAME, TAKE, BEGIN or NOTHING), and when; None: something must happen."""

    what: str
    due_ns: Optional[int]


class Expectation:
    """
    How long something takes: the second longest of the last few times, or one outlier would rule.

    The longest while there are only one or two.
    """

    def __init__(self):
        self._samples = deque(maxlen=NUM_SAMPLES)

    def add(self, duration_ns: int) -> None:
        """Take note of one more time."""
        self._samples.append(duration_ns)

    @property
    def value_ns(self) -> Optional[int]:
        """What to expect; None before the first."""
        if not self._samples:
            return None
        return sorted(self._samples)[-2 if len(self._samples) > 2 else -1]


class ChunkPacer:
    """
    Plan frames of ``num_frames`` per step.

    Where steps are made faster than they play, frames are one period apart and the next step
    begins as late as it can: so that it is there, with a margin, when the last frame has had its
    period. Where they are made slower, a step's frames are spread over the time that a step
    takes, and the next step begins as soon as the first frame has left (not before: a step of
    which a frame was shown cannot be taken back, and only the newest step can be).
    """

    def __init__(self, num_frames: int):
        self._num_frames = num_frames
        self._period_ns = 0
        self._step, self._rest = Expectation(), Expectation()
        self.start_over()

    def start_over(self) -> None:
        """Time stood still or the world changed: nothing is late."""
        self._asked_ns: Optional[int] = None  # when the first frame of the step should leave
        self._first_ns = self._newest_ns = self._span_ns = 0

    def made(self, duration_ns: int) -> None:
        """Learn how long making a step took."""
        self._step.add(duration_ns)

    def finished(self, duration_ns: int) -> None:
        """Learn how long the engine was busy with a step after its frames were there."""
        self._rest.add(duration_ns)

    def show(self, now_ns: int, period_ns: int) -> None:
        """
        Begin with the frames of a step; the first one leaves now.

        :param now_ns: now
        :param period_ns: wall time that a frame shall take, 0 for as fast as the engine goes
        """
        play_ns = self._num_frames * period_ns
        self._asked_ns = now_ns if self._asked_ns is None else max(
            self._asked_ns + self._num_frames * self._period_ns, now_ns - CATCH_UP_NS)
        self._first_ns = self._newest_ns = now_ns
        self._period_ns = period_ns
        step_ns = (self._step.value_ns or 0) + (self._rest.value_ns or 0)
        if step_ns <= play_ns:  # what is late is caught up evenly, frame by frame
            self._span_ns = max(0, self._asked_ns + play_ns - now_ns)
        else:
            self._span_ns = step_ns

    def left(self, now_ns: int) -> None:
        """Note that a frame has left."""
        self._newest_ns = now_ns

    def asked_ns(self, index: int) -> int:
        """
        Tell when a frame should leave at the asked speed.

        :param index: of the frame in its step, from 0
        """
        return self._asked_ns + index * self._period_ns

    def turn(self, num_left: int, is_begun: bool, is_made: bool, can_begin: bool) -> Turn:
        """
        Tell what comes next.

        :param num_left: frames of the step shown now that have not left yet
        :param is_begun: the next step has begun
        :param is_made: and its frames are there
        :param can_begin: the engine is free
        """
        turns = []
        if num_left:
            turns.append(Turn(FRAME, self._due_ns(num_left, is_made)))
        elif is_made:
            turns.append(Turn(TAKE, self._due_ns(0, is_made)))
        if not is_begun and can_begin:
            turns.append(Turn(BEGIN, self._begin_ns()))
        return min(turns, key=lambda turn: turn.due_ns, default=Turn(NOTHING, None))

    def _due_ns(self, num_left, is_made):
        """Return when the next frame leaves; also the first one of the next step."""
        if self._asked_ns is None:
            return 0
        index = self._num_frames - num_left
        due_ns = self._first_ns + self._span_ns * index // self._num_frames
        if is_made:  # sooner than expected: nothing is gained by going slowly
            due_ns = min(due_ns, self._newest_ns + self._period_ns)
        return due_ns

    def _begin_ns(self):
        if self._asked_ns is None or self._step.value_ns is None:
            return self._first_ns
        margin_ns = max(round(MARGIN * self._step.value_ns), LEAST_MARGIN_NS)
        return max(self._first_ns,
                   self._first_ns + self._span_ns - self._step.value_ns - margin_ns)
