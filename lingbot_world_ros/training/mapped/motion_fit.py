# SPDX-License-Identifier: Apache-2.0
"""
Commands and poses -> how the base follows its commands.

What is compared is where windows of several seconds lead to, driven by commands alone; a few
windows that ended at an obstacle do not count for much. Axes: n frame, w window.
"""
from dataclasses import dataclass, replace
from typing import Dict, List, Sequence, Tuple

from lingbot_world_ros.geometry import se2
from lingbot_world_ros.models.mapped.motion import Motion, path
import numpy as np
from scipy.optimize import least_squares

WINDOW_S = 2.0
MAX_DELAY_S = 0.4
WARM_UP_S = 1.0  # after the start of a segment, what went before is not known
ARM_M = 0.5  # a radian counts as so many metres
Segments = Sequence[Tuple[int, int]]


@dataclass(frozen=True)
class MotionFit:
    """The best follower; ``error`` is by seconds: median error of position [m] and yaw [rad]."""

    motion: Motion
    error: Dict[float, Tuple[float, float]]
    num_windows: int


def fit_motion(pose: np.ndarray, command: np.ndarray, segments: Segments,
               rate_hz: float) -> MotionFit:
    """
    Find gain, lag and delay.

    :param pose: (n, 3) base poses
    :param command: (n, 3) v_x, v_y, w_z as commanded, 0 for an axis without a command
    :param segments: stretches without a gap
    :param rate_hz: frames per second
    :return: what explains the poses best: steered or not, with the delay that fits
    """
    used = tuple(float(np.abs(command[:, axis]).max()) > 1e-6 for axis in range(3))
    best, best_cost = Motion(), np.inf
    for is_steered in (False, True):
        for delay in range(int(MAX_DELAY_S * rate_hz) + 1):
            start = Motion(delay_frames=delay, is_steered=is_steered, gain=_first_gain(
                pose, command, rate_hz, is_steered), follow=(0.5, 0.5, 0.5))
            motion, cost = _fitted(start, used, pose, command, segments, rate_hz)
            if cost < 0.98 * best_cost:  # the simpler and quicker one, if it is as good
                best, best_cost = motion, cost
            elif cost > 2.0 * best_cost:
                break
    errors = {seconds: rollout_errors(best, pose, command, segments, rate_hz, seconds)
              for seconds in (1.0, 4.0)}
    # What is left after four seconds, spread over their frames as a random walk.
    off, turned = _off(best, pose, command, segments, rate_hz, 4.0)
    frames = 4.0 * rate_hz
    robust = [float((np.median(np.abs(e)) / 0.6745) ** 2 / frames) if len(e) else 0.0
              for e in (off.ravel(), turned)]
    best = replace(best, growth=(robust[0], robust[1]))
    return MotionFit(best, {s: e for s, e in errors.items()}, len(turned))


def rollout_errors(motion: Motion, pose: np.ndarray, command: np.ndarray, segments: Segments,
                   rate_hz: float, seconds: float) -> Tuple[float, float]:
    """
    Drive by commands alone.

    :param motion: follower
    :param pose: (n, 3) where the base really was
    :param command: (n, 3)
    :param segments: stretches without a gap
    :param rate_hz: frames per second
    :param seconds: for how long
    :return: median error of position [m] and of yaw [rad]; nan without a window so long
    """
    off, turned = _off(motion, pose, command, segments, rate_hz, seconds)
    if not len(turned):
        return float('nan'), float('nan')
    return float(np.median(np.hypot(*off.T))), float(np.median(np.abs(turned)))


def _first_gain(pose: np.ndarray, command: np.ndarray, rate_hz: float,
                is_steered: bool) -> Tuple[float, float, float]:
    """Guess gains: how far it went by how far it was told to go."""
    step = se2.relative(pose[:-1], pose[1:]) * rate_hz
    given = command[:-1].astype(np.float64).copy()
    if is_steered:
        given[:, 2] *= step[:, 0]
    gains: List[float] = []
    for axis in range(3):
        power = float((given[:, axis] ** 2).sum())
        gain = float((given[:, axis] * step[:, axis]).sum() / power) if power > 1e-9 else 1.0
        gains.append(gain if abs(gain) > 1e-3 else 1e-3)
    return gains[0], gains[1], gains[2]


def _fitted(start: Motion, used: Tuple[bool, ...], pose: np.ndarray, command: np.ndarray,
            segments: Segments, rate_hz: float) -> Tuple[Motion, float]:
    axes = [axis for axis in range(3) if used[axis]]

    def motion_of(x: np.ndarray) -> Motion:
        gain, follow = list(start.gain), [1.0, 1.0, 1.0]
        for i, axis in enumerate(axes):
            gain[axis] = start.gain[axis] * float(x[2 * i])
            follow[axis] = float(1.0 / (1.0 + np.exp(-x[2 * i + 1])))
        return replace(start, gain=(gain[0], gain[1], gain[2]),
                       follow=(follow[0], follow[1], follow[2]))

    def residual(x: np.ndarray) -> np.ndarray:
        off, turned = _off(motion_of(x), pose, command, segments, rate_hz, WINDOW_S)
        return np.concatenate([off.ravel(), ARM_M * turned])

    if not axes:
        return start, float('inf')
    found = least_squares(residual, np.tile([1.0, 0.0], len(axes)), loss='soft_l1', f_scale=0.01,
                          max_nfev=25)
    return motion_of(found.x), float(found.cost)


def _off(motion: Motion, pose: np.ndarray, command: np.ndarray, segments: Segments,
         rate_hz: float, seconds: float) -> Tuple[np.ndarray, np.ndarray]:
    """Where windows end, minus where they should: (w, 2) metres in base_link, (w,) radians."""
    length, skip = int(round(seconds * rate_hz)), int(WARM_UP_S * rate_hz)
    off, turned = [np.zeros((0, 2))], [np.zeros(0)]
    for begin, end in segments:
        starts = np.arange(skip, end - begin - length, max(1, length // 4))
        if not len(starts):
            continue
        driven = path(motion.twists(command[begin:end]), 1.0 / rate_hz)
        true = pose[begin:end]
        error = (se2.relative(driven[starts], driven[starts + length])
                 - se2.relative(true[starts], true[starts + length]))
        off.append(error[:, :2])
        turned.append(np.arctan2(np.sin(error[:, 2]), np.cos(error[:, 2])))
    return np.concatenate(off), np.concatenate(turned)
