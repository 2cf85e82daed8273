# SPDX-License-Identifier: Apache-2.0
"""
When the frames of a chunk leave and when the next step begins. Pure.

A step makes a chunk of frames, often of one. All times are steady wall time in nanoseconds.
"""
from collections import deque
from enum import Enum
from typing import Deque, NamedTuple, Optional

CATCH_UP_NS = 500_000_000  # a delay up to here is made good by faster frames
NUM_SAMPLES = 5  # steps that tell how long the next one takes
MARGIN = 0.1  # a step begins this much of its duration earlier than it must
LEAST_MARGIN_NS = 10_000_000


class Due(Enum):
    """What comes next."""

    FRAME = 'a frame leaves'
    TAKE = 'a step is shown that was made ahead; its first frame leaves'
    STEP = 'a step begins'
    NOTHING = 'something must happen first'


class Turn(NamedTuple):
    """What comes next, and when; None: not before something has happened."""

    what: Due
    due_ns: Optional[int]


class Expectation:
    """
    How long something takes: the second longest of the last few times, or one outlier would rule.

    The longest while there are only one or two.
    """

    def __init__(self) -> None:
        self._samples: Deque[int] = deque(maxlen=NUM_SAMPLES)

    def add(self, duration_ns: int) -> None:
        """Take note of one more time."""
        self._samples.append(duration_ns)

    @property
    def value_ns(self) -> int:
        """What to expect; 0 before the first."""
        if not self._samples:
            return 0
        return sorted(self._samples)[-2 if len(self._samples) > 2 else -1]


class ChunkPacer:
    """
    Plan chunks of ``num_frames`` and the steps that make them.

    A step that is made when the chunk before it has left begins at the end of that chunk, and
    its frames leave one period apart; what is late is caught up at once. A step that is made
    ahead, while the chunk before it leaves, begins as late as it can: so that it is there, with a
    margin, when the last frame has had its period. Where such steps take longer than they play,
    the frames of a chunk are spread over the time that a step takes, and the next step begins as
    soon as the first frame has left (not before: a step of which a frame was shown cannot be
    taken back, and only the newest step can be).
    """

    def __init__(self, num_frames: int):
        self._num_frames = num_frames
        self._period_ns = 0
        self._step, self._rest = Expectation(), Expectation()
        self._next_ns = 0  # when the next chunk should begin
        self.start_over()

    def start_over(self) -> None:
        """Time stood still or the world changed: no step made ahead is late."""
        self._asked_ns: Optional[int] = None  # when the first frame of the chunk should leave
        self._first_ns = self._newest_ns = self._span_ns = 0

    def wait_until(self, due_ns: int) -> None:
        """Let the next step begin then, if it is not made ahead."""
        self._next_ns = due_ns

    def go_on(self, now_ns: int) -> None:
        """Time stood still until now: what was due before is due now."""
        self._next_ns = max(self._next_ns, now_ns)

    def made(self, duration_ns: int) -> None:
        """Learn how long making a step ahead took."""
        self._step.add(duration_ns)

    def finished(self, duration_ns: int) -> None:
        """Learn how long the engine was busy with a step after its frames were there."""
        self._rest.add(duration_ns)

    def show(self, now_ns: int, period_ns: int, *, is_ahead: bool) -> None:
        """
        Begin with the frames of a step; the first one leaves now.

        :param now_ns: now
        :param period_ns: wall time that a frame shall take, 0 for as fast as the engine goes
        :param is_ahead: the step was made ahead
        """
        play_ns = self._num_frames * period_ns
        if not is_ahead:
            self._asked_ns = self._next_ns
        elif self._asked_ns is None:
            self._asked_ns = now_ns
        else:
            self._asked_ns = max(self._next_ns, now_ns - CATCH_UP_NS)
        self._period_ns, self._next_ns = period_ns, self._asked_ns + play_ns
        self._first_ns = self._newest_ns = now_ns
        step_ns = self._step.value_ns + self._rest.value_ns
        if not is_ahead:
            self._first_ns, self._span_ns = self._asked_ns, play_ns
        elif step_ns <= play_ns:  # what is late is caught up evenly, frame by frame
            self._span_ns = max(0, self._asked_ns + play_ns - now_ns)
        else:
            self._span_ns = step_ns

    def left(self, now_ns: int) -> None:
        """Note that a frame has left."""
        self._newest_ns = now_ns
        self._next_ns = max(self._next_ns, now_ns - CATCH_UP_NS)  # the rest is never caught up

    def asked_ns(self, index: int) -> int:
        """
        Tell when a frame should leave at the asked speed.

        :param index: of the frame in its chunk, from 0
        """
        assert self._asked_ns is not None  # a chunk is shown
        return self._asked_ns + index * self._period_ns

    def turn(self, num_left: int, *, is_begun: bool = False, is_made: bool = False,
             can_begin: bool = True, is_called: bool = False, is_ahead: bool) -> Turn:
        """
        Tell what comes next.

        :param num_left: frames of the chunk shown now that have not left yet
        :param is_begun: the next step has begun
        :param is_made: and its frames are there
        :param can_begin: the engine is free
        :param is_called: the next step is wanted at once
        :param is_ahead: steps are made ahead
        """
        turns = []
        if num_left:
            turns.append(Turn(Due.FRAME, self._due_ns(num_left, is_made)))
        elif is_made:
            turns.append(Turn(Due.TAKE, self._due_ns(0, is_made)))
        if is_ahead and can_begin and not is_begun:
            turns.append(Turn(Due.STEP, self._begin_ns()))
        elif not is_ahead and not num_left:
            turns.append(Turn(Due.STEP, 0 if is_called else self._next_ns))
        return min(turns, key=lambda turn: turn.due_ns or 0, default=Turn(Due.NOTHING, None))

    def _due_ns(self, num_left: int, is_made: bool) -> int:
        """Return when the next frame leaves; also the first one of the next step."""
        if self._asked_ns is None:
            return 0
        index = self._num_frames - num_left
        due_ns = self._first_ns + self._span_ns * index // self._num_frames
        if is_made:  # sooner than expected: nothing is gained by going slowly
            due_ns = min(due_ns, self._newest_ns + self._period_ns)
        return due_ns

    def _begin_ns(self) -> int:
        if self._asked_ns is None:
            return self._first_ns
        step_ns = self._step.value_ns
        margin_ns = max(round(MARGIN * step_ns), LEAST_MARGIN_NS)
        return self._first_ns + max(0, self._span_ns - step_ns - margin_ns)
