# SPDX-License-Identifier: Apache-2.0
"""
When the messages of a topic came, and numbers that came with them.

``Track`` grows while a recording is read; ``Clock`` then says at which time, and in which stretch
of time, each message was: by the stamps of headers where these are sane, else by when it was
received. NumPy only.
"""
from array import array
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

BACK_NS = 200_000_000  # a clock that goes back by less had messages overtake each other
SAME_CLOCK_S = (-0.1, 1.0)  # received less stamped, where both are of one clock
SANE_SHARE = 0.5  # of stamps that are there, and that move
SANE_SPEED = (0.02, 50.0)  # stamped by received time
SHUFFLED_SHARE = 0.05  # of steps back, from which the order in the file says nothing
WALL_TIME_NS = 10 ** 18  # 2001; before it is sim time, or a clock that nobody set
BOUNDARY_NS = 2_000_000_000  # topics tell of a jump within this time of each other


class Track:
    """Messages of a topic in the order of recording; ``width`` numbers each."""

    def __init__(self, width: int = 0) -> None:
        """
        Begin without messages.

        :param width: numbers that come with each message
        """
        self.width = width
        self._order, self._received, self._stamp = array('q'), array('q'), array('q')
        self._values = array('d')

    def __len__(self) -> int:
        return len(self._order)

    def add(self, order: int, received_ns: int, stamp_ns: int, *,
            values: Sequence[float] = ()) -> None:
        """
        Append a message.

        :param order: its place in the recording
        :param received_ns: by the recorder's clock
        :param stamp_ns: of its header, 0 if there is none
        :param values: ``width`` numbers
        """
        self._order.append(order)
        self._received.append(received_ns)
        self._stamp.append(stamp_ns)
        self._values.extend(values)

    def cut(self, from_ns: int, by_stamp: bool) -> None:
        """
        Forget messages of the future.

        :param from_ns: first moment that is forgotten
        :param by_stamp: of stamps, else of times of receipt
        """
        times = self._stamp if by_stamp else self._received
        while times and times[-1] >= from_ns:
            for column in (self._order, self._received, self._stamp):
                column.pop()
            del self._values[len(self._values) - self.width:]

    @property
    def last(self) -> float:
        """Return the last number that came."""
        return self._values[-1]

    @property
    def order(self) -> np.ndarray:
        """Places in the recording, (n,) int64."""
        return np.array(self._order, np.int64)

    @property
    def received_ns(self) -> np.ndarray:
        """When they were received, (n,) int64."""
        return np.array(self._received, np.int64)

    @property
    def stamp_ns(self) -> np.ndarray:
        """Stamps of headers, (n,) int64; one that was forgotten is when it was received."""
        stamp = np.array(self._stamp, np.int64)
        is_blank = stamp == 0  # after a reset sim time is, too
        if is_blank.any() and np.median(stamp) > WALL_TIME_NS:
            stamp[is_blank] = self.received_ns[is_blank]
        return stamp

    @property
    def values(self) -> np.ndarray:
        """Numbers, (n, width) float64."""
        return np.array(self._values, np.float64).reshape(len(self), self.width)

    @property
    def is_stamped(self) -> bool:
        """Whether headers hold stamps that move, about as time does."""
        stamp, received = self.stamp_ns, self.received_ns
        if not len(self) or (stamp > 0).mean() < SANE_SHARE:
            return False
        if len(self) < 3:
            return True
        steps, waits = np.diff(stamp), np.diff(received)
        speed = steps[steps > 0].sum() / max(waits[waits > 0].sum(), 1)
        return bool((steps != 0).mean() >= SANE_SHARE) and (
            SANE_SPEED[0] < speed < SANE_SPEED[1] or not waits.any())

    @property
    def is_of_recorder(self) -> bool:
        """Whether headers are stamped by the clock that the recorder used."""
        if not self.is_stamped:
            return False
        late_s = np.percentile(self.received_ns - self.stamp_ns, 5) * 1e-9
        return bool(SAME_CLOCK_S[0] <= late_s <= SAME_CLOCK_S[1])


@dataclass(frozen=True)
class Times:
    """
    A track in time: (n,) int64 nanoseconds, and which stretch of unbroken time each is in.

    ``index`` is what each was in its track; sorted by stretch, then by time.
    """

    time_ns: np.ndarray
    stretch: np.ndarray
    index: np.ndarray

    def newest(self, stretch: int, ticks_ns: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """
        Find the newest message not later than each of some moments.

        :param stretch: of the moments
        :param ticks_ns: (m,) int64
        :return: (m,) int64 index in the track, -1 where there is none, and its age [ns]
        """
        first, end = np.searchsorted(self.stretch, [stretch, stretch + 1])
        times = self.time_ns[first:end]
        place = np.searchsorted(times, ticks_ns, 'right') - 1
        if not len(times):
            return np.full(len(ticks_ns), -1), np.zeros(len(ticks_ns), np.int64)
        age = ticks_ns - times[np.maximum(place, 0)]
        return np.where(place < 0, -1, self.index[first:end][place]), age


class Clock:
    """The one time of a recording, taken from the topic that leads."""

    def __init__(self, leader: Track, others: Sequence[Track],
                 told: Optional[Track] = None) -> None:
        """
        Choose between stamps and times of receipt, and find where time jumps back.

        :param leader: topic that the others are aligned with
        :param others: those with headers
        :param told: of ``/clock``, its time as stamp
        """
        self._known: Dict[int, Tuple[Track, Times]] = {}  # by id of the track
        is_foreign = not leader.is_of_recorder and any(t.is_of_recorder for t in others)
        self.by_stamp = leader.is_stamped and not is_foreign
        self.is_mapped = self.by_stamp and not leader.is_of_recorder
        self.is_shuffled = False
        times = leader.stamp_ns if self.by_stamp else leader.received_ns
        back = np.flatnonzero(np.diff(times) < -BACK_NS)
        if len(back) > 3 and len(back) > SHUFFLED_SHARE * len(times):
            self.is_shuffled = True
            back = np.zeros(0, np.int64)
        self._borders = leader.order[back + 1]
        self._border_received = leader.received_ns[back + 1]
        self._now: Tuple[np.ndarray, np.ndarray] = (np.zeros(0, np.int64),) * 2
        if self.is_mapped:
            heard = [told] if told is not None and self._uses_stamp(told) else [
                track for track in (*others, leader) if self._uses_stamp(track)]
            self._now = self._newest_stamps(heard)

    @property
    def num_jumps(self) -> int:
        """How often time goes back."""
        return len(self._borders)

    def _uses_stamp(self, track: Track) -> bool:
        if not self.by_stamp:
            return track.is_of_recorder
        return track.is_stamped and track.is_of_recorder != self.is_mapped

    def _stretch(self, track: Track, times: np.ndarray) -> np.ndarray:
        """Say in which stretch of time messages are; a topic may tell of a jump before others."""
        borders = self._borders.copy()
        back = np.flatnonzero(np.diff(times) < -BACK_NS)
        for i, received in enumerate(self._border_received):
            if len(back):
                mine = back[np.abs(track.order[back + 1] - self._borders[i]).argmin()] + 1
                if abs(track.received_ns[mine] - received) < BOUNDARY_NS:
                    borders[i] = track.order[mine]
        return np.searchsorted(np.sort(borders), track.order, 'right')

    def _newest_stamps(self, tracks: List[Track]) -> Tuple[np.ndarray, np.ndarray]:
        """Return at which place of the recording which time was known: the newest stamp so far."""
        order = np.concatenate([track.order for track in tracks])
        stamp = np.concatenate([track.stamp_ns for track in tracks])
        stretch = np.concatenate([self._stretch(track, track.stamp_ns) for track in tracks])
        by_order = np.argsort(order, kind='stable')
        order, stamp, stretch = order[by_order], stamp[by_order].copy(), stretch[by_order]
        for number in range(self.num_jumps + 1):
            inside = stretch == number
            stamp[inside] = np.maximum.accumulate(stamp[inside])
        return order, stamp

    def times(self, track: Track) -> Times:
        """
        Put a track into the time of the recording.

        :param track: of the same recording, and whole
        :return: its times
        """
        if id(track) not in self._known:
            self._known[id(track)] = track, self._times(track)
        return self._known[id(track)][1]

    def _times(self, track: Track) -> Times:
        if self._uses_stamp(track):
            times = track.stamp_ns
            stretch = self._stretch(track, times)
        elif self.is_mapped:
            order, stamp = self._now
            times = stamp[np.maximum(np.searchsorted(order, track.order, 'right') - 1, 0)]
            stretch = np.searchsorted(self._borders, track.order, 'right')
        else:
            times = track.received_ns
            stretch = self._stretch(track, times)
        index = np.lexsort((np.arange(len(track)), times, stretch))
        return Times(times[index], stretch[index], index)
