# SPDX-License-Identifier: Apache-2.0
"""
How close a learned world comes to a recording, in open loop under the recorded commands.

Beside it stand what needs no world: the last picture seen and the mean picture of the training
set; and the same world under the commands of other starts, which has to be worse. Intervals are
over stretches of ``STRETCH_S``, because neighbouring starts show nearly the same. NumPy only.
Axes: n starts, a action, h w image.
"""
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Protocol, Sequence, Tuple

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
Interval = Tuple[float, float, float]  # mean, low, high


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


@dataclass
class Errors:
    """What was measured at one horizon, each (n,); names of ``NUMBERS`` by who drew."""

    values: Dict[str, Dict[str, np.ndarray]]
    expected: np.ndarray  # RMS error that the world expected of itself
    true: np.ndarray  # RMS error


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
                     num_starts: int = NUM_STARTS, seed: int = 0) -> Dict[str, Any]:
    """
    Compare a world with a recording that it was not trained on.

    :param world: to be judged
    :param recording: with commands
    :param pieces: (begin, end) that count; all segments without it
    :param mean_rgb: (h, w, 3) uint8 of ``mean_picture``; left out without it
    :param horizons: frames after the last true one; those that fit into no piece are left out
    :param num_starts: spread evenly over all starts that the longest horizon allows
    :param seed: of shuffling, and of the world
    :return: JSON-serialisable: ``horizons``, a dict for each number of frames with
        (mean, low, high) of every number and drawer, of the gain over the better of copy-last and
        mean picture, of the cost of shuffled commands, and of the uncertainty
    :raises SpecError: no commands, or no piece long enough for one horizon
    """
    if recording.action is None:
        raise SpecError(f'{recording.name} has no commands; a world cannot be judged by it.')
    pieces = recording.segments if pieces is None else pieces
    context = world.num_context
    horizons = [h for h in sorted(horizons) if any(b - a >= context + h for a, b in pieces)]
    if not horizons:
        raise SpecError(f'{recording.name} has no piece of {context} frames and a horizon '
                        'without a gap.')
    begins = _starts(pieces, context + horizons[-1], num_starts)
    # Each gets the commands of another one, and no one its own.
    order = np.random.default_rng(seed).permutation(len(begins))
    others = np.empty_like(begins)
    others[order] = begins[np.roll(order, 1)]
    parts: List[Dict[int, Errors]] = []
    for first in range(0, len(begins), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        parts.append(_measure(world, recording, begins[rows], others[rows], horizons, mean_rgb,
                              seed + first))
    stretch = (begins / max(1.0, STRETCH_S * recording.rate_hz)).astype(int)
    return {'recording': recording.name, 'rate_hz': recording.rate_hz, 'seed': seed,
            'num_starts': len(begins), 'num_stretches': len(np.unique(stretch)),
            'num_context': context,
            'horizons': {h: _summary([part[h] for part in parts], stretch) for h in horizons}}


def _starts(pieces: Sequence[Tuple[int, int]], num_frames: int, count: int) -> np.ndarray:
    begins = np.concatenate([np.arange(a, b - num_frames + 1) for a, b in pieces
                             if b - a >= num_frames])
    return begins[np.linspace(0, len(begins) - 1, min(count, len(begins))).round().astype(int)]


def _measure(world: Imagining, recording: AlignedRecording, begins: np.ndarray,
             others: np.ndarray, horizons: Sequence[int], mean_rgb: Optional[np.ndarray],
             seed: int) -> Dict[int, Errors]:
    """Roll the world out twice and compare at every horizon."""
    last = begins + world.num_context - 1
    own = _rollout(world, recording, begins, last, horizons, seed)
    foreign = _rollout(world, recording, begins, others + world.num_context - 1, horizons, seed)
    copied = recording.rgb[last]
    errors = {}
    for horizon in horizons:
        true = recording.rgb[last + horizon]
        drawn, expected = own[horizon]
        shown = {'world': drawn, 'shuffled': foreign[horizon][0], 'copy_last': copied}
        if mean_rgb is not None:
            shown['mean_picture'] = np.broadcast_to(mean_rgb, true.shape)
        values = {name: _numbers(rgb, true) for name, rgb in shown.items()}
        errors[horizon] = Errors(values, expected, np.sqrt(mean_squared_error(drawn, true)))
    return errors


def _rollout(world: Imagining, recording: AlignedRecording, begins: np.ndarray,
             commanded: np.ndarray, horizons: Sequence[int],
             seed: int) -> Dict[int, Tuple[np.ndarray, np.ndarray]]:
    """Return what is drawn at every horizon under the commands from frame ``commanded`` on."""
    assert recording.action is not None, 'checked by evaluate_learned'
    world.reset_from(recording, begins, seed)
    drawn = {}
    for frame in range(1, horizons[-1] + 1):
        world.step(np.asarray(recording.action[commanded + frame - 1]))
        if frame in horizons:
            drawn[frame] = world.draw()
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
    expected = np.concatenate([part.expected for part in parts])
    true = np.concatenate([part.true for part in parts])
    told['uncertainty'] = {'expected_rms': _interval(expected, stretch),
                           'true_rms': _interval(true, stretch),
                           'covered': float((true <= expected).mean()),
                           'spearman': spearman(expected, true)}
    return told


def _interval(rows: np.ndarray, stretch: np.ndarray) -> Interval:
    """Mean and interval; whole stretches are drawn, each counts by its rows."""
    _, of = np.unique(stretch, return_inverse=True)
    return bootstrap_mean(np.bincount(of, rows), np.bincount(of).astype(np.float64))
