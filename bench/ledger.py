# SPDX-License-Identifier: Apache-2.0
"""Which frames arrived: none may be missing, none may come twice. No ROS, no clocks."""

MAX_PROBLEMS = 20  # that are told in words; all are counted


class FrameLedger:
    """
    Follow the stamps of several topics, and the numbers of world_status.

    Sim time goes on by one period per frame, or starts again at one period after a reset. All
    topics have to tell the same story, also about the last frame before a reset.
    """

    def __init__(self):
        self.period_ns = 0
        self._last, self._ends, self._counts = {}, {}, {}
        self._frame = self._status_ns = None
        self._num_problems, self._problems = 0, []

    def period(self, period_ns: int) -> None:
        """Take note of the sim time between frames."""
        self.period_ns = period_ns

    def is_complete(self, topics) -> bool:
        """Whether every topic and the status were heard of."""
        return self._frame is not None and all(topic in self._last for topic in topics)

    def frame(self, topic: str, stamp_ns: int) -> None:
        """Take note of a message of one frame."""
        last_ns = self._last.get(topic)
        self._last[topic] = stamp_ns
        self._counts[topic] = self._counts.get(topic, 0) + 1
        if last_ns is None or stamp_ns == last_ns + self.period_ns:
            return
        if stamp_ns == self.period_ns:
            self._ends.setdefault(topic, []).append(last_ns)
        elif stamp_ns == last_ns:
            self._wrong(f'{topic}: two messages with the stamp {stamp_ns}')
        else:
            self._wrong(f'{topic}: {stamp_ns} follows {last_ns}, '
                        f'{(stamp_ns - last_ns) / self.period_ns - 1:g} frames are missing')

    def status(self, frame: int, stamp_ns: int) -> None:
        """Take note of a world_status; one frame may have several."""
        last, last_ns = self._frame, self._status_ns
        self._frame, self._status_ns = frame, stamp_ns
        if last is None or frame <= 1:
            return
        if frame == last:
            if stamp_ns not in (last_ns, self.period_ns):
                self._wrong(f'world_status: frame {frame} has the stamps {last_ns} and '
                            f'{stamp_ns}')
        elif frame != last + 1:
            self._wrong(f'world_status: frame {frame} follows {last}')
        elif stamp_ns != last_ns + self.period_ns:
            self._wrong(f'world_status: stamp {stamp_ns} of frame {frame} follows {last_ns}')

    def report(self) -> dict:
        """Return counts by topic, restarts of time, number of problems and the first in words."""
        # The first restart may have been seen by some topics only.
        shared = min((len(ends) for ends in self._ends.values()), default=0)
        ends = {topic: ends[len(ends) - shared:] for topic, ends in self._ends.items()}
        for restart in range(shared):
            last = {topic: stamps[restart] for topic, stamps in ends.items()}
            if len(set(last.values())) > 1:
                self._wrong(f'the last frame before a restart of time differs: {last}')
        return {'counts': dict(self._counts), 'num_problems': self._num_problems,
                'restarts': {topic: len(self._ends.get(topic, ())) for topic in self._last},
                'problems': list(self._problems)}

    def _wrong(self, text):
        self._num_problems += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(text)
