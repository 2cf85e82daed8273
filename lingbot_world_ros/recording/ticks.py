# SPDX-License-Identifier: Apache-2.0
"""
Moments at which a recording is looked at, a steady time apart, and which image belongs to each.

Where the asked rate is that of the camera, or a whole fraction of it, ticks follow the images: a
steady grid would beat against their jitter, and show one image twice and leave the next one out.
NumPy only.
"""
from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np

FOLLOWS = 0.02  # part by which the asked rate may differ from that of the images
RECENTRE = 0.8  # of the phase error that is kept from image to image
GAP_PERIODS = 2.5  # an image may be this many periods old
MAX_RATE_HZ = 30.0  # that is chosen; more may be asked for


@dataclass(frozen=True)
class Ticks:
    """
    One run of ticks without a gap.

    ``image`` is, for each, the place of its image among those that were given; ``num_missing``
    images did not come, by the camera's own rate.
    """

    time_ns: np.ndarray  # (m,) int64
    image: np.ndarray  # (m,) int64
    num_missing: int


def steady_rate(times_ns: np.ndarray) -> float:
    """
    Tell the rate of a stream.

    :param times_ns: (n,) sorted
    :return: Hz by the median interval, a whole number where it is within 2 % of one; 0 where two
        messages are too few
    """
    steps = np.diff(times_ns)
    steps = steps[steps > 0]
    if not len(steps):
        return 0.0
    median = float(np.partition(steps, (len(steps) - 1) // 2)[(len(steps) - 1) // 2])
    near = steps[(steps > 0.5 * median) & (steps < 1.5 * median)]
    rate = 1e9 / float(near.mean())  # of steps that jitter the mean tells more than the median
    return float(round(rate)) if round(rate) and abs(rate / round(rate) - 1.0) < FOLLOWS else rate


def chosen_rate(camera_hz: float) -> float:
    """Return the rate to align at where none is asked for: that of the camera, or a fraction."""
    return camera_hz / max(1, int(np.ceil(camera_hz / MAX_RATE_HZ - 1e-6)))


def make_ticks(times_ns: np.ndarray, camera_hz: float, rate_hz: float,
               max_age_ns: int) -> List[Ticks]:
    """
    Lay ticks over images.

    :param times_ns: (n,) int64 of the images of a stretch of time, sorted
    :param camera_hz: their usual rate
    :param rate_hz: of the ticks
    :param max_age_ns: an image may be this old, or ``GAP_PERIODS``; beyond it is a gap
    :return: runs between gaps
    """
    if not len(times_ns):
        return []
    limit = gap_ns(camera_hz, max_age_ns)
    ends = np.append(np.flatnonzero(np.diff(times_ns) > limit) + 1, len(times_ns))
    every = max(1, round(camera_hz / rate_hz))
    follows = abs(camera_hz / (every * rate_hz) - 1.0) <= FOLLOWS
    runs, first = [], 0
    for end in ends.tolist():
        times = times_ns[first:end]
        run = _following(times, 1e9 / camera_hz, every) if follows else _steady(
            times, 1e9 / camera_hz, 1e9 / rate_hz)
        runs.append(Ticks(run[0], run[1] + first, run[2]))
        first = end
    return runs


def gap_ns(camera_hz: float, max_age_ns: int) -> int:
    """Return the interval between images from which on it is a gap."""
    return max(max_age_ns, int(GAP_PERIODS * 1e9 / camera_hz))


def _places(times_ns: np.ndarray, period_ns: float) -> np.ndarray:
    """Count images in periods, where some are missing or late: (n,) int64."""
    places, phase = [0], 0.0
    for step in (np.diff(times_ns) / period_ns).tolist():
        phase += step
        whole = round(phase)
        places.append(places[-1] + whole)
        phase = RECENTRE * (phase - whole)
    return np.array(places)


def _following(times_ns: np.ndarray, period_ns: float, every: int) -> Tuple[
        np.ndarray, np.ndarray, int]:
    places = np.maximum.accumulate(_places(times_ns, period_ns))
    ticks = np.arange(0, places[-1] + 1, every)
    image = np.searchsorted(places, ticks, 'right') - 1
    late = (ticks - places[image]) * period_ns
    time_ns = times_ns[image] + late.astype(np.int64)
    return time_ns, image, int(places[-1] + 1 - len(np.unique(places)))


def _steady(times_ns: np.ndarray, camera_ns: float, period_ns: float) -> Tuple[
        np.ndarray, np.ndarray, int]:
    span = float(times_ns[-1] - times_ns[0])
    time_ns = times_ns[0] + np.rint(
        np.arange(int(span / period_ns + 1e-6) + 1) * period_ns).astype(np.int64)
    image = np.searchsorted(times_ns, time_ns, 'right') - 1
    num_missing = int(np.maximum(np.rint(np.diff(times_ns) / camera_ns) - 1, 0).sum())
    return time_ns, image, num_missing


def stretches(is_good: np.ndarray, min_length: int,
              borders: Optional[np.ndarray] = None) -> List[Tuple[int, int]]:
    """
    Find where frames follow one another.

    :param is_good: (m,) bool
    :param min_length: shorter ones are left out
    :param borders: (m,) bool, a new one begins at these
    :return: (begin, end) of each
    """
    found, begin = [], 0
    for i in range(len(is_good) + 1):
        if i == len(is_good) or not is_good[i] or (borders is not None and borders[i]):
            if i - begin >= min_length:
                found.append((begin, i))
            begin = i if i < len(is_good) and is_good[i] else i + 1
    return found
