# SPDX-License-Identifier: Apache-2.0
"""Sim time, counted in frames, and the steady wall clock that paces it. No ROS."""
import time
from typing import Optional


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

    def wait(self, condition, until_ns: Optional[int]) -> None:
        """
        Sleep until notified or until a moment, whichever is first.

        :param condition: an acquired ``threading.Condition``
        :param until_ns: steady wall time; None waits for a notification only
        """
        if until_ns is None:
            condition.wait()
        elif until_ns > self.now_ns():
            condition.wait((until_ns - self.now_ns()) * 1e-9)
