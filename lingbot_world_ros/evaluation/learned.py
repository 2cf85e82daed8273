# SPDX-License-Identifier: Apache-2.0
"""
How close a learned world comes to a recording, in open loop under the recorded commands.

Beside it stand what needs no world: the last picture seen and the mean picture of the training
set; and the same world under the commands of other starts, which has to be worse. Intervals are
over stretches of ``STRETCH_S``, because neighbouring starts show nearly the same. NumPy only.
Axes: n starts, a action, h w image.
"""
from dataclasses import dataclass
from typing import (Any, Callable, Dict, List, Optional, Protocol, runtime_checkable, Sequence,
                    Tuple)

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.evaluation.metrics import (bootstrap_mean, gradient_magnitude,
                                                  mean_squared_error, psnr, spearman, ssim)
from lingbot_world_ros.recording.aligned import AlignedRecording
import numpy as np

HORIZONS = 1, 5, 20, 60, 200  # frames after the last one that was seen
STRETCH_S = 5.0
NUM_STARTS = 128
ROWS_AT_ONCE = 32
NUMBERS = 'psnr', 'ssim', 'sharpness'
FACTOR = 2.0  # coverage is also told for so many times the error that the world expects
Interval = Tuple[float, float, float]  # mean, low, high
Drawn = Tuple[np.ndarray, np.ndarray, Tuple[np.ndarray, ...]]  # rgb, expected, pose errors


class Imagining(Protocol):
    """A world that can be started from a recording."""

    num_context: int  # true frames that it is shown

    def reset_from(self, recording: AlignedRecording, begins: np.ndarray, seed: int) -> None:
        """
        Start a row at each frame ``begins + num_context - 1``, having seen what is before.

        :param recording: of which no later frame may be looked at
        :param begins: (n,) first frames
        :param seed: of what is random
        """
        ...

    def step(self, action: np.ndarray) -> None:
        """
        Move all rows on by a frame.

        :param action: (n, a) in force since the frame before, as the recording has them
        """
        ...

    def draw(self) -> Tuple[np.ndarray, np.ndarray]:
        """Return pictures (n, h, w, 3) uint8 and expected RMS errors (n,), 0..1."""
        ...


@runtime_checkable
class Placed(Protocol):
    """An ``Imagining`` that knows where its robot is."""

    def pose_errors(self, frames: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """
        Compare with where the recording was.

        :param frames: (n,) of the recording, one for each row
        :return: (n,) metres, (n,) rad, neither negative
        """
        ...


@runtime_checkable
class Doubting(Protocol):
    """An ``Imagining`` that says which of its expected errors are not to be relied on."""

    familiar: float  # RMS error; what is expected above it is not calibrated


@dataclass
class Errors:
    """What was measured at one horizon, each (n,); names of ``NUMBERS`` by who drew."""

    values: Dict[str, Dict[str, np.ndarray]]
    expected: np.ndarray  # RMS error that the world expected of itself
    true: np.ndarray  # RMS error
    is_flagged: Optional[np.ndarray] = None  # bool: the world says it is not calibrated
    position_m: Optional[np.ndarray] = None
    yaw_rad: Optional[np.ndarray] = None


def mean_picture(recording: AlignedRecording, pieces: Sequence[Tuple[int, int]]) -> np.ndarray:
    """
    Return the mean picture of what a world was trained on.

    :param recording: the training set
    :param pieces: (begin, end) of it that taught
    :return: (h, w, 3) uint8
    """
    total, count = np.zeros(recording.rgb.shape[1:]), 0
    for begin, end in pieces:
        for first in range(begin, end, 512):
            part = recording.rgb[first:min(first + 512, end)]
            total += part.sum(0, dtype=np.float64)
            count += len(part)
    if not count:
        raise SpecError('A mean picture needs at least one frame.')
    return (total / count + 0.5).astype(np.uint8)


def evaluate_learned(world: Imagining, recording: AlignedRecording, *,
                     pieces: Optional[Sequence[Tuple[int, int]]] = None,
                     mean_rgb: Optional[np.ndarray] = None, horizons: Sequence[int] = HORIZONS,
                     num_starts: int = NUM_STARTS, seed: int = 0,
                     say: Callable[[str, int, int], None] = lambda what, done, total: None
                     ) -> Dict[str, Any]:
    """
    Compare a world with a recording that it was not trained on.

    :param world: to be judged
    :param recording: with commands
    :param pieces: (begin, end) that count; all segments without it
    :param mean_rgb: (h, w, 3) uint8 of ``mean_picture``; left out without it
    :param horizons: frames after the last true one; those that fit into no piece are left out
    :param num_starts: spread over all starts that the longest horizon allows
    :param seed: of the starts, of shuffling, and of the world
    :param say: called with what is done, and how much of it
    :return: JSON-serialisable: ``horizons``, a dict for each number of frames with
        (mean, low, high) of every number and drawer, of the gain over the better of copy-last and
        mean picture, of the cost of shuffled commands, of errors of the pose where the world is
        ``Placed``, and of the uncertainty
    :raises SpecError: no commands, or no piece long enough for one horizon
    """
    if recording.action is None:
        raise SpecError(f'{recording.name} has no commands; a world cannot be judged by it.')
    pieces = recording.segments if pieces is None else pieces
    context = world.num_context
    horizons = [h for h in sorted(horizons) if any(b - a > context + h for a, b in pieces)]
    if not horizons:
        raise SpecError(f'{recording.name} has no piece of {context} frames and a horizon '
                        'without a gap.')
    begins = spread_starts(pieces, context + horizons[-1], num_starts, seed)
    # Each gets the commands of another one, and no one its own: there are two at least.
    order = np.random.default_rng(seed).permutation(len(begins))
    others = np.empty_like(begins)
    others[order] = begins[np.roll(order, 1)]
    parts: List[Dict[int, Errors]] = []
    for first in range(0, len(begins), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        parts.append(_measure(world, recording, begins[rows], others[rows], horizons, mean_rgb,
                              seed + first))
        say('rollouts', min(first + ROWS_AT_ONCE, len(begins)), len(begins))
    stretch = (begins / max(1.0, STRETCH_S * recording.rate_hz)).astype(int)
    return {'recording': recording.name, 'rate_hz': recording.rate_hz, 'seed': seed,
            'num_starts': len(begins), 'num_stretches': len(np.unique(stretch)),
            'num_context': context,
            'horizons': {h: _summary([part[h] for part in parts], stretch) for h in horizons}}


def spread_starts(pieces: Sequence[Tuple[int, int]], num_frames: int, count: int,
                  seed: int) -> np.ndarray:
    """
    Choose where to begin: one frame at random in each of ``count`` equal parts of what there is.

    :param pieces: (begin, end) of frames
    :param num_frames: that have to follow without a gap
    :param count: wanted; fewer where there are fewer
    :param seed: of the choice
    :return: (n,) first frames, rising, each once; none where no piece is long enough
    """
    begins = np.concatenate([np.zeros(0, int), *(np.arange(a, b - num_frames + 1)
                                                 for a, b in pieces)])
    count = min(count, len(begins))
    edges = np.linspace(0, len(begins), count + 1).round().astype(int)
    return begins[np.random.default_rng(seed).integers(edges[:-1], edges[1:])]


def _measure(world: Imagining, recording: AlignedRecording, begins: np.ndarray,
             others: np.ndarray, horizons: Sequence[int], mean_rgb: Optional[np.ndarray],
             seed: int) -> Dict[int, Errors]:
    """Roll the world out twice and compare at every horizon."""
    last = begins + world.num_context - 1
    own = _rollout(world, recording, begins, last, horizons, seed)
    off = {h: drawn[2] for h, drawn in own.items()}
    foreign = _rollout(world, recording, begins, others + world.num_context - 1, horizons, seed)
    copied = recording.rgb[last]
    errors = {}
    for horizon in horizons:
        true = recording.rgb[last + horizon]
        drawn, expected, _ = own[horizon]
        shown = {'world': drawn, 'shuffled': foreign[horizon][0], 'copy_last': copied}
        if mean_rgb is not None:
            shown['mean_picture'] = np.broadcast_to(mean_rgb, true.shape)
        values = {name: _numbers(rgb, true) for name, rgb in shown.items()}
        errors[horizon] = Errors(
            values, expected, np.sqrt(mean_squared_error(drawn, true)),
            expected > world.familiar if isinstance(world, Doubting) else None, *off[horizon])
    return errors


def _rollout(world: Imagining, recording: AlignedRecording, begins: np.ndarray,
             commanded: np.ndarray, horizons: Sequence[int],
             seed: int) -> Dict[int, Drawn]:
    """
    Drive on under the commands from frame ``commanded`` on.

    Returns for every horizon what is drawn, the error expected, and errors of the pose if any.
    """
    assert recording.action is not None, 'checked by evaluate_learned'
    world.reset_from(recording, begins, seed)
    drawn: Dict[int, Drawn] = {}
    for frame in range(1, horizons[-1] + 1):
        world.step(np.asarray(recording.action[commanded + frame - 1]))
        if frame in horizons:
            rgb, expected = world.draw()
            off = world.pose_errors(begins + world.num_context - 1 + frame) if isinstance(
                world, Placed) else ()
            drawn[frame] = rgb, expected, off
    return drawn


def _numbers(rgb: np.ndarray, true: np.ndarray) -> Dict[str, np.ndarray]:
    sharp = gradient_magnitude(true)
    return {'psnr': psnr(rgb, true), 'ssim': ssim(rgb, true),
            'sharpness': gradient_magnitude(rgb) / np.maximum(sharp, 1e-6)}


def _summary(parts: Sequence[Errors], stretch: np.ndarray) -> Dict[str, Any]:
    """Put the rows of one horizon together."""
    values = {who: {name: np.concatenate([part.values[who][name] for part in parts])
                    for name in NUMBERS} for who in parts[0].values}
    told: Dict[str, Any] = {who: {name: _interval(rows, stretch) for name, rows in named.items()}
                            for who, named in values.items()}
    ours = values['world']['psnr']
    idle = [who for who in ('copy_last', 'mean_picture') if who in values]
    best = max(idle, key=lambda who: float(values[who]['psnr'].mean()))
    told['better_baseline'] = best
    told['gain_db'] = _interval(ours - values[best]['psnr'], stretch)
    told['shuffling_costs_db'] = _interval(ours - values['shuffled']['psnr'], stretch)
    told['uncertainty'] = _uncertainty(parts, stretch)
    position, yaw = _column(parts, 'position_m'), _column(parts, 'yaw_rad')
    if position is not None and yaw is not None:
        told['state'] = {'position_m': _interval(position, stretch),
                         'yaw_deg': _interval(np.rad2deg(yaw), stretch)}
    return told


def _uncertainty(parts: Sequence[Errors], stretch: np.ndarray) -> Dict[str, Any]:
    """Compare the errors that a world expected with those that it made."""
    expected = np.concatenate([part.expected for part in parts])
    true = np.concatenate([part.true for part in parts])
    told = {'expected_rms': _interval(expected, stretch), 'true_rms': _interval(true, stretch),
            'covered': float((true <= expected).mean()), 'factor': FACTOR,
            'covered_by_factor': float((true <= FACTOR * expected).mean()),
            'spearman': spearman(expected, true)}
    flagged = _column(parts, 'is_flagged')
    if flagged is not None:
        told['flagged'] = float(flagged.mean())
    return told


def _column(parts: Sequence[Errors], name: str) -> Optional[np.ndarray]:
    """Put what some worlds have together; None where this one has nothing of it."""
    rows = [getattr(part, name) for part in parts]
    return None if rows[0] is None else np.concatenate(rows)


def _interval(rows: np.ndarray, stretch: np.ndarray) -> Interval:
    """Mean and interval; whole stretches are drawn, each counts by its rows."""
    _, of = np.unique(stretch, return_inverse=True)
    return bootstrap_mean(np.bincount(of, rows), np.bincount(of).astype(np.float64))
