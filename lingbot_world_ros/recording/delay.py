# SPDX-License-Identifier: Apache-2.0
"""
How a recording's commands move its pictures: sign, scale, lag and correlation of each.

The motion of the picture between frames, by optical flow, is compared with every command at every
lag. What a command does may depend on the speed (the steering of a car), so that each is also
tried times the size of ``linear_x``. NumPy and OpenCV only.
"""
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import cv2
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.recording.aligned import AlignedRecording
import numpy as np

FLOW_WIDTH_PX = 64  # pictures are made this wide before flow is looked for
MAX_LAG_S = 0.6
MAX_FRAMES = 6000  # that are looked at; more tell nothing new
MIN_FRAMES = 40
FOUND = 0.2  # absolute correlation from which a delay is believed
# command -> what of the picture it moves: to the right, down, apart; sign by REP 103
MOTION = {'linear_x': ('apart', 1), 'linear_y': ('right', 1), 'linear_z': ('down', 1),
          'angular_z': ('right', 1), 'angular_y': ('down', -1)}
MOTIONS = 'right', 'down', 'apart', 'change'


@dataclass(frozen=True)
class CommandDelay:
    """What one command does to the picture."""

    name: str  # of the command
    motion: str  # of the picture that follows it: right, down, apart or change
    by_speed: bool  # the motion follows the command times the size of linear_x
    lag_frames: int  # from the frame at which it is given to the frame from which it shows
    correlation: float  # at this lag, -1..1
    scale: float  # motion per unit: widths of the picture a frame; apart: share of the size
    sign: int  # 1: as REP 103 says, -1: the other way round, 0: no telling

    @property
    def found(self) -> bool:
        """Whether the picture follows the command enough to believe the lag."""
        return abs(self.correlation) >= FOUND


def command_delays(recording: AlignedRecording) -> Tuple[CommandDelay, ...]:
    """
    Estimate what each command of a recording does to its pictures, and when.

    :param recording: with commands
    :return: one for each command, in their order
    :raises SpecError: it has no commands, or no stretch long enough
    """
    if recording.action is None or not recording.action_names:
        raise SpecError(f'{recording.name} has no commands; a delay needs some.')
    max_lag = max(2, round(MAX_LAG_S * recording.rate_hz))
    segments = _chosen(recording.segments, max_lag)
    if not segments:
        raise SpecError(f'{recording.name} has no stretch of {MIN_FRAMES} frames without a gap.')
    motions = [picture_motion(recording.rgb[begin:end]) for begin, end in segments]
    actions = [np.asarray(recording.action[begin:end], np.float64) for begin, end in segments]
    names = list(recording.action_names)
    speed = names.index('linear_x') if 'linear_x' in names else None
    found = []
    for column, name in enumerate(names):
        tried = [_best(name, [a[:, column] for a in actions], motions, max_lag, False)]
        if speed is not None and column != speed:
            tried.append(_best(name, [a[:, column] * np.abs(a[:, speed]) for a in actions],
                               motions, max_lag, True))
        found.append(max(tried, key=lambda delay: abs(delay.correlation)))
    return tuple(found)


def picture_motion(rgb: np.ndarray) -> Dict[str, np.ndarray]:
    """
    Measure how pictures move from one to the next.

    :param rgb: (n, h, w, 3) uint8
    :return: name of ``MOTIONS`` -> (n - 1,): mean flow to the right and down in widths of the
        picture, its growth, and the mean change of brightness, 0..1
    """
    size = FLOW_WIDTH_PX, max(16, round(FLOW_WIDTH_PX * rgb.shape[1] / rgb.shape[2]))
    flow_of: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, size[0]),
                       np.linspace(-0.5, 0.5, size[1]) * size[1] / size[0])
    power = float((x * x + y * y).mean())
    rows: List[Tuple[float, ...]] = []
    before = None
    for picture in rgb:
        gray = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), size,
                          interpolation=cv2.INTER_AREA)
        if before is not None:
            flow = flow_of.calc(before, gray, None) / size[0]
            u, v = flow[..., 0], flow[..., 1]
            rows.append((float(np.median(u)), float(np.median(v)),
                         float((u * x + v * y).mean()) / power,
                         float(cv2.absdiff(before, gray).mean()) / 255))
        before = gray
    return {name: np.array(column) for name, column in zip(MOTIONS, zip(*rows))}


def _chosen(segments: Tuple[Tuple[int, int], ...], max_lag: int) -> List[Tuple[int, int]]:
    """Return the longest stretches, together not much more than is worth looking at."""
    chosen, left = [], MAX_FRAMES
    for begin, end in sorted(segments, key=lambda s: s[0] - s[1]):
        if left <= 0 or end - begin < MIN_FRAMES + max_lag:
            break
        chosen.append((begin, min(end, begin + left)))
        left -= end - begin
    return [(a, b) for a, b in chosen if b - a >= MIN_FRAMES + max_lag]


def _best(name: str, commands: List[np.ndarray], motions: List[Dict[str, np.ndarray]],
          max_lag: int, by_speed: bool) -> CommandDelay:
    """Return the lag and the motion at which the correlation is largest."""
    expected = MOTION.get(name)
    tried = []
    for motion in (expected[0],) if expected else MOTIONS:
        shown = [m[motion] for m in motions]
        for lag in range(max_lag + 1):
            correlation, slope = _correlation(commands, shown, lag)
            tried.append((abs(correlation), -lag, motion, correlation, slope))
    _, lag, motion, correlation, slope = max(tried)
    sign = int(np.sign(correlation)) * expected[1] if expected else 0
    return CommandDelay(name, motion, by_speed, -lag, correlation, slope, sign)


def _correlation(commands: List[np.ndarray], shown: List[np.ndarray],
                 lag: int) -> Tuple[float, float]:
    """Return correlation and slope of motion ``lag`` frames after a command over it."""
    a = np.concatenate([c[:len(s) - lag] for c, s in zip(commands, shown)])
    b = np.concatenate([s[lag:] for s in shown])
    a, b = a - a.mean(), b - b.mean()
    aa, bb, ab = float(a @ a), float(b @ b), float(a @ b)
    if aa <= 1e-12 * len(a) or bb <= 0.0:
        return 0.0, 0.0
    return float(ab / np.sqrt(aa * bb)), ab / aa
