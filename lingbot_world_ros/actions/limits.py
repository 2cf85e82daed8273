# SPDX-License-Identifier: Apache-2.0
"""Limits of motion beyond those of the engine, and the pacing that keeps to them. No ROS."""
from dataclasses import dataclass
from math import inf
from typing import List, Sequence, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.robots.drive import steered
import numpy as np

NO_LIMIT = 1e12  # stands for infinity, which times zero would not be a number
BASE = 3  # columns of the base: v_x, v_y, w_z
AT_GOAL = 1e-9  # rad, m and their speeds: closer than this is there


@dataclass(frozen=True)
class Limits:
    """Limits a user asks for, on top of the engine's; 0 is none."""

    linear_velocity_mps: float = 0.0
    linear_acceleration_mps2: float = 0.0
    angular_velocity_radps: float = 0.0
    angular_acceleration_radps2: float = 0.0
    joint_acceleration: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no limit."""
        for name, value in vars(self).items():
            if not 0.0 <= value < inf:
                raise SpecError(f'limits.{name}={value} must be 0 (none) or more.')


def arriving_velocity(gap: np.ndarray, acceleration: np.ndarray, period_s: float) -> np.ndarray:
    """
    Largest velocity of the coming frame with which a joint can still stop where it shall.

    :param gap: (J,) way to go, rad or m
    :param acceleration: (J,) largest change of velocity per second, more than 0
    :param period_s: length of a frame, T
    :return: (J,) velocities v in the direction of the gap

    It stops in n further frames, each slower by a T: gap = (n + 1) v T - n (n + 1) / 2 a T^2.
    """
    distance, change = np.abs(gap), acceleration * period_s
    n = np.floor(0.5 * np.sqrt(1.0 + 8.0 * distance / (change * period_s)) - 0.5)
    return np.sign(gap) * (distance / ((n + 1.0) * period_s) + 0.5 * n * change)


class MotionLimiter:
    """
    Let velocities change, and positions move, no faster than allowed.

    What was told is remembered by sim time: encoding a step again, or one that starts in the
    middle of the last one, goes on from the velocity that was told for that moment. Columns are
    v_x, v_y [m/s], w_z [rad/s] of the base, then the J joints.
    """

    def __init__(self, acceleration: np.ndarray, low: Sequence[float], high: Sequence[float],
                 max_curvature: float = inf) -> None:
        """
        Start at rest.

        :param acceleration: (3 + J,) largest change of velocity per second, infinite for none
        :param low: (J,) lowest positions, rad or m; a joint that is too fast to stop stops there
        :param high: (J,) highest positions
        :param max_curvature: 1/m, of the way of the base; its turn rate falls with its speed
        """
        self._max_curvature = max_curvature
        self._acceleration = np.minimum(acceleration, NO_LIMIT)
        self._low, self._high = np.asarray(low, float), np.asarray(high, float)
        self.clear()

    def clear(self) -> None:
        """Be at rest (after a reset)."""
        self._start_ns = 0
        self._told: List[Tuple[np.ndarray, np.ndarray]] = []

    def limit(self, velocity: np.ndarray, goal: np.ndarray, current: np.ndarray,
              speed: np.ndarray, *, sim_ns: int,
              period_ns: int) -> Tuple[np.ndarray, np.ndarray, bool]:
        """
        Limit what one step of T frames is asked to do.

        :param velocity: (T, 3 + J) asked-for velocities
        :param goal: (T + 1, J) asked-for positions at the start and after each frame, rad or m;
            NaN where none was asked for
        :param current: (J,) where the joints are
        :param speed: (J,) largest speeds on the way to a position
        :param sim_ns: sim time at which the step starts
        :param period_ns: sim time per frame
        :return: (T, 3 + J) velocities, (T, J) positions after each frame, and whether the last
            frame does what was asked for
        """
        period_s = period_ns * 1e-9
        told, place = self._resume(velocity.shape[1], sim_ns, period_ns)
        moves = np.isfinite(goal[0])
        place = np.where(np.isnan(place), current, place)
        place[~moves] = np.nan
        change = self._acceleration * period_s
        self._start_ns, self._told = sim_ns, [(told, place)]
        for asked, before, after in zip(velocity, goal, goal[1:]):
            follow = ((after - before) / period_s
                      + arriving_velocity(before - place, self._acceleration[BASE:], period_s))
            asked = asked.copy()
            asked[BASE:] = np.where(np.isnan(after), asked[BASE:], np.clip(follow, -speed, speed))
            told = np.clip(asked, told - change, told + change)
            told[2] = steered(told[0], told[2], self._max_curvature)
            free = place + told[BASE:] * period_s
            reached = np.clip(free, np.fmin(self._low, place), np.fmax(self._high, place))
            stopped = moves & (reached != free)
            told[BASE:][stopped] = (reached - place)[stopped] / period_s
            place = reached
            self._told.append((told, place))
        late = np.abs(np.where(moves, place - goal[-1], told[BASE:] - velocity[-1, BASE:]))
        base_late = np.abs(told[:BASE] - velocity[-1, :BASE])
        done = max(late.max(initial=0.0), base_late.max(),
                   np.abs(told[BASE:][moves]).max(initial=0.0)) < AT_GOAL
        limited, places = (np.array(rows) for rows in zip(*self._told[1:]))
        return limited, places, bool(done)

    def _resume(self, width: int, sim_ns: int, period_ns: int) -> Tuple[np.ndarray, np.ndarray]:
        """Return velocities (3 + J,) and positions (J,), NaN where none, told for a moment."""
        if not self._told or sim_ns < self._start_ns:  # before the first step, or time went back
            return np.zeros(width), np.full(width - BASE, np.nan)
        row = (sim_ns - self._start_ns) // period_ns
        return self._told[min(row, len(self._told) - 1)]
