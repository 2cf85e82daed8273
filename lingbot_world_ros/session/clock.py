# SPDX-License-Identifier: Apache-2.0
"""Sim time counted in frames, the clock between frames, the wall clock that paces both."""
import threading
import time
from typing import Callable, Optional


class SimClock:
    """
    Count produced frames; sim time is nothing else and never ahead of the newest frame.

    The n-th frame since time was reset is at exactly ``n * period_ns``; the first frame, the one
    a reset shows, is at one period, because zero means "no time yet" to ROS.
    """

    def __init__(self, period_ns: int):
        self.period_ns = period_ns
        self.num_frames = 0

    @property
    def now_ns(self) -> int:
        """Sim time of the newest frame; 0 before the first."""
        return self.num_frames * self.period_ns

    def tick(self) -> int:
        """Count one more frame and return its sim time, nanoseconds."""
        self.num_frames += 1
        return self.now_ns

    def reset(self) -> None:
        """Start again at zero."""
        self.num_frames = 0


class WallClock:
    """The steady clock of the machine; tests hand in one whose time they move."""

    def now_ns(self) -> int:
        """Return steady wall time, nanoseconds."""
        return time.monotonic_ns()

    def wait(self, condition: threading.Condition, until_ns: Optional[int]) -> None:
        """
        Sleep until notified or until a moment, whichever is first.

        :param condition: an acquired ``threading.Condition``
        :param until_ns: steady wall time; None waits for a notification only
        """
        if until_ns is None:
            condition.wait()
        elif until_ns > self.now_ns():
            condition.wait((until_ns - self.now_ns()) * 1e-9)


class Sweep:
    """
    Ticks of sim time on the way from one frame to the next, spread over wall time. Pure.

    The newest frame is out when a sweep towards it begins, so no tick is ahead of what was shown;
    the last tick is the frame's own stamp.
    """

    def __init__(self, from_ns: int, to_ns: int, tick_ns: int, wall_ns: int, duration_ns: int):
        """
        Plan.

        :param from_ns: sim time told last
        :param to_ns: sim time of the newest frame
        :param tick_ns: sim time between ticks
        :param wall_ns: steady wall time now
        :param duration_ns: wall time the whole sweep shall take
        """
        self._stamps = [*range(from_ns - from_ns % tick_ns + tick_ns, to_ns, tick_ns), to_ns]
        span_ns = max(to_ns - from_ns, 1)
        self._due = [wall_ns + duration_ns * (stamp - from_ns) // span_ns
                     for stamp in self._stamps]

    @property
    def next_due_ns(self) -> Optional[int]:
        """Steady wall time of the next tick; None once all are told."""
        return self._due[0] if self._due else None

    def take(self, wall_ns: int) -> Optional[int]:
        """Return the newest tick that is due, dropping those before it; None if none is."""
        stamp = None
        while self._due and self._due[0] <= wall_ns:
            self._due.pop(0)
            stamp = self._stamps.pop(0)
        return stamp


class ClockTicker:
    """
    Tell sim time between frames, from a thread of its own. Never ahead of the newest frame.

    ``follow`` sweeps towards a frame, ``jump`` tells a time at once (steps, pauses, resets).
    """

    def __init__(self, tick_ns: int, tell: Callable[[int], None],
                 clock: Optional[WallClock] = None):
        """
        Prepare; the thread starts with the first sweep.

        :param tick_ns: sim time between ticks; 0 tells frames only and needs no thread
        :param tell: called with each new sim time, nanoseconds
        :param clock: steady wall clock
        """
        self._tick_ns, self._tell, self._clock = tick_ns, tell, clock or WallClock()
        self._wake = threading.Condition()
        self._sweep: Optional[Sweep] = None
        self._told_ns = self._end_ns = 0  # newest tick, and the sweep's last
        self._closing = False
        self._thread: Optional[threading.Thread] = None

    def follow(self, frame_ns: int, duration_ns: int) -> None:
        """
        Go towards the newest frame while the next one is made; the one before is reached now.

        :param frame_ns: its sim time
        :param duration_ns: wall time until the next frame is expected; 0 tells it at once
        """
        with self._wake:
            if not (self._tick_ns and duration_ns):
                return self._say(frame_ns)
            if self._sweep is not None and self._sweep.next_due_ns is not None:
                self._say(self._end_ns)
            self._end_ns = frame_ns
            self._sweep = Sweep(self._told_ns, frame_ns, self._tick_ns, self._clock.now_ns(),
                                duration_ns)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name='clock', daemon=True)
                self._thread.start()
            self._wake.notify()

    def jump(self, stamp_ns: int) -> None:
        """Tell a sim time at once, also one before the last."""
        with self._wake:
            self._say(stamp_ns)

    def finish(self) -> None:
        """Reach the newest frame at once: time stands still there."""
        with self._wake:
            if self._sweep is not None:
                self._say(self._end_ns)

    def close(self) -> None:
        """End the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def _say(self, stamp_ns: int) -> None:
        self._sweep = None
        self._told_ns = stamp_ns
        self._tell(stamp_ns)

    def _run(self) -> None:
        with self._wake:
            while not self._closing:
                sweep = self._sweep
                stamp_ns = sweep.take(self._clock.now_ns()) if sweep else None
                if stamp_ns is None:
                    self._clock.wait(self._wake, sweep.next_due_ns if sweep else None)
                    continue
                self._told_ns = stamp_ns
                self._tell(stamp_ns)
