# SPDX-License-Identifier: Apache-2.0
"""Joint trajectories: checked once when they arrive, then sampled at sim time. No ROS."""
from dataclasses import dataclass
from typing import Tuple

from lingbot_world_ros.errors import SpecError
import numpy as np


@dataclass(frozen=True)
class Trajectory:
    """
    Positions of some joints over time, joined by straight lines.

    ``columns`` are indices into the robot's joints; ``times_ns`` (n,) int64 sim time, increasing;
    ``positions`` (n, m) float64, rad or m. Before the first time the first row holds, after the
    last time the last one.
    """

    columns: Tuple[int, ...]
    times_ns: np.ndarray
    positions: np.ndarray

    @property
    def end_ns(self) -> int:
        """Sim time of the last point."""
        return int(self.times_ns[-1])

    def sample(self, stamp_ns: int) -> np.ndarray:
        """
        Position at one instant.

        :param stamp_ns: sim time
        :return: (m,) float64, rad or m, one per entry of ``columns``
        """
        right = int(np.searchsorted(self.times_ns, stamp_ns))
        if right == 0:
            return self.positions[0]
        if right == len(self.times_ns):
            return self.positions[-1]
        t0, t1 = self.times_ns[right - 1:right + 1]
        part = (stamp_ns - t0) / (t1 - t0)
        return (1.0 - part) * self.positions[right - 1] + part * self.positions[right]


def plan_trajectory(columns, times_s, positions, start_ns: int, sim_ns: int,
                    current) -> Trajectory:
    """
    Check trajectory points and anchor them in sim time, starting from where the joints are.

    :param columns: joint index of each position column
    :param times_s: time_from_start of each point, seconds, increasing and not negative
    :param positions: one row per point, rad or m, already inside the joint limits
    :param start_ns: sim time the times count from
    :param sim_ns: sim time now
    :param current: (m,) positions of the same joints now, rad or m
    :return: the trajectory, its first point being the joints as they are at the start
    :raises SpecError: no points, times that do not increase, or an end that is already past
    """
    if len(times_s) == 0:
        raise SpecError('it has no points; send at least one.')
    times_s = np.asarray(times_s, dtype=np.float64)
    if not np.isfinite(times_s).all() or times_s[0] < 0.0 or (np.diff(times_s) <= 0.0).any():
        raise SpecError('time_from_start must start at 0 s or later and increase from point to '
                        f'point, got {np.round(times_s, 4).tolist()}.')
    times_ns = start_ns + np.round(times_s * 1e9).astype(np.int64)
    if times_ns[-1] < sim_ns:
        raise SpecError(f'it ended {(sim_ns - times_ns[-1]) / 1e9:.3f} s of sim time ago; send a '
                        'header stamp of 0 to start now.')
    positions = np.asarray(positions, dtype=np.float64)
    begin_ns = max(start_ns, sim_ns)
    if times_ns[0] > begin_ns:
        times_ns = np.concatenate([[begin_ns], times_ns])
        positions = np.concatenate([[current], positions])
    return Trajectory(tuple(columns), times_ns, positions)
