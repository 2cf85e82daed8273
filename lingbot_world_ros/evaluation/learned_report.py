# SPDX-License-Identifier: Apache-2.0
"""
A learned world against a recording: which kind of world it is, the numbers as a table, pictures.

The numbers themselves come from ``evaluation.learned``.
"""
import math
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import cv2
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.evaluation.learned import (evaluate_learned, HORIZONS, Imagining,
                                                  NUM_STARTS, spread_starts)
from lingbot_world_ros.evaluation.mapped_world import MappedImagining
from lingbot_world_ros.evaluation.recurrent_world import RecurrentWorld
from lingbot_world_ros.evaluation.tables import to_json
from lingbot_world_ros.models.recurrent.runtime import RecurrentModel
from lingbot_world_ros.recording.aligned import AlignedRecording
from lingbot_world_ros.recording.sources import name_of
from lingbot_world_ros.worlds.learned import MEAN_PICTURE, read_learned
import numpy as np

NUM_SHOWN = 3  # starts in the strip
NO_MEAN = 'This world keeps no mean picture of what it was trained on; it is left out.'
OTHER_MEAN = ('The mean picture of what this world was trained on has another size than the '
              'recording; it is left out.')
LEARNED_FROM_IT = ('**This world was learned from a recording of this name, which flatters it**: '
                   'judge it by another drive.')
DRAWERS = (('world', 'imagined'), ('shuffled', 'commands of another time'),
           ('copy_last', 'copy last'), ('mean_picture', 'mean picture'))
TITLES = (('psnr', 'PSNR [dB]', 2), ('ssim', 'SSIM', 3),
          ('sharpness', 'Sharpness, by that of the recording', 2))
Say = Callable[[str, int, int], None]


class Evaluated(NamedTuple):
    """What came out."""

    results: Dict[str, Any]  # JSON-serialisable
    strip: np.ndarray  # (h, w, 3) uint8


def evaluate_world(folder: Path, recording: AlignedRecording, *,
                   horizons: Sequence[int] = HORIZONS, num_starts: int = NUM_STARTS,
                   seed: int = 0, say: Say = lambda what, done, total: None) -> Evaluated:
    """
    Judge a learned world by a recording.

    :param folder: of the world
    :param recording: aligned at the world's rate
    :param horizons: frames after the last true one
    :param num_starts: in the recording
    :param seed: of starts and shuffling
    :param say: called with what is done, and how much of it
    :return: numbers and pictures
    :raises SpecError: the world cannot be used, or the recording does not fit it
    """
    about = read_learned(folder)
    world, pieces, found = _opened(folder, about, recording, say)
    mean_rgb, notes = _mean_rgb(folder, recording)
    results = evaluate_learned(world, recording, pieces=pieces, mean_rgb=mean_rgb,
                               horizons=horizons, num_starts=num_starts, seed=seed, say=say)
    results = {'world': {'name': about['name'], 'kind': about['kind'],
                         'sha256': dict(about['sha256']),
                         'has_learned_from_it': has_learned_from(about, recording.name)},
               'found': found, 'notes': notes, **results}
    return Evaluated(results, strip(world, recording, pieces, list(results['horizons']), seed))


def has_learned_from(about: Mapping[str, Any], name: str) -> bool:
    """
    Tell whether a recording is one that a world was learned from, going by names.

    :param about: content of ``world.yaml``
    :param name: of the recording
    :return: whether it is
    """
    told = str((about.get('data') or {}).get('recording', ''))
    return name in [name_of(Path(one)) for one in told.split(', ') if one]


def _opened(folder: Path, about: Mapping[str, Any], recording: AlignedRecording, say: Say
            ) -> Tuple[Imagining, Sequence[Tuple[int, int]], Dict[str, Any]]:
    """Load a world of any kind; returns it, the stretches that count, what was found."""
    if about['kind'] == 'mapped':
        world = MappedImagining(folder, recording, say)
        return world, world.pieces, world.found
    return RecurrentWorld(RecurrentModel(folder)), recording.segments, {}


def _mean_rgb(folder: Path, recording: AlignedRecording
              ) -> Tuple[Optional[np.ndarray], List[str]]:
    """Read the mean picture, or say why there is none."""
    path = Path(folder) / MEAN_PICTURE
    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if image is None:
        return None, [NO_MEAN]
    if image.shape != recording.rgb.shape[1:]:
        return None, [OTHER_MEAN]
    return np.ascontiguousarray(image[..., ::-1]), []


def strip(world: Imagining, recording: AlignedRecording, pieces: Sequence[Tuple[int, int]],
          horizons: Sequence[int], seed: int) -> np.ndarray:
    """
    Show a few rollouts: the recording above what was imagined, a column for each horizon.

    :param world: that imagines
    :param recording: that is compared with
    :param pieces: (begin, end) that count
    :param horizons: frames, the first column is the last true one
    :param seed: of the starts
    :return: (h, w, 3) uint8
    """
    begins = spread_starts(pieces, world.num_context + horizons[-1], NUM_SHOWN, seed)
    last = begins + world.num_context - 1
    world.reset_from(recording, begins, seed)
    columns = [(0, world.draw()[0])]
    for frame in range(1, horizons[-1] + 1):
        assert recording.action is not None, 'the numbers came first'
        world.step(np.asarray(recording.action[last + frame - 1]))
        if frame in horizons:
            columns.append((frame, world.draw()[0]))
    rows = []
    for row in range(len(begins)):
        rows.append(np.concatenate([np.concatenate([recording.rgb[last[row] + frame], drawn[row]])
                                    for frame, drawn in columns], 1))
        rows.append(np.full((4, rows[-1].shape[1], 3), 255, np.uint8))
    return np.concatenate(rows[:-1])


def markdown(results: Mapping[str, Any]) -> str:
    """
    Lay results out as tables.

    :param results: of ``evaluate_world``
    :return: Markdown
    """
    told = results['horizons']
    parts = [_heading(results)]
    for number, title, digits in TITLES:
        rows = [(name, [_cell(at.get(who, {}).get(number), digits) for at in told.values()])
                for who, name in DRAWERS if any(who in at for at in told.values())]
        parts.append(_table(title, list(told), rows))
    parts.append(_table('Differences in PSNR [dB]', list(told), [
        (name, [_cell(at[key], 2) for at in told.values()]) for key, name in (
            ('gain_db', 'above the better of copy last and mean picture'),
            ('shuffling_costs_db', 'what commands of another time cost'))]))
    if all('state' in at for at in told.values()):
        parts.append(_table('Errors of the pose, driven by commands alone', list(told), [
            (name, [_cell(at['state'][key], digits) for at in told.values()])
            for key, name, digits in (('position_m', 'position [m]', 3),
                                      ('yaw_deg', 'yaw [deg]', 2))]))
    parts.append(_doubt(told))
    return '\n\n'.join(parts + list(results['notes'])) + '\n'


def _heading(results: Mapping[str, Any]) -> str:
    world, found = results['world'], results['found']
    lines = [f'# {world["name"]} against {results["recording"]}', '',
             f'{results["num_starts"]} starts in {results["num_stretches"]} stretches of the '
             f'recording, {results["rate_hz"]:g} frames a second, open loop. Mean, and its 95 % '
             'bootstrap interval over stretches; columns are frames after the last true one.']
    if world.get('has_learned_from_it'):
        lines += ['', LEARNED_FROM_IT]
    if 'residual_mm' in found:
        lines += ['', f'Found in the place: {100 * found["surfaces_met"]:.0f} % of what depth '
                  f'shows at the start is on its surfaces; {100 * found["frames_fitted"]:.0f} % '
                  f'of the frames followed, {found["residual_mm"]:.1f} mm off.']
    return '\n'.join(lines)


def _doubt(told: Mapping[Any, Mapping[str, Any]]) -> str:
    said = [at['uncertainty'] for at in told.values()]
    rows = [('expected', [_cell(one['expected_rms'], 3) for one in said]),
            ('true', [_cell(one['true_rms'], 3) for one in said]),
            ('true at most as expected, share', [_number(one['covered']) for one in said]),
            (f'true at most {said[0]["factor"]:g} times as expected, share',
             [_number(one['covered_by_factor']) for one in said]),
            ('rank correlation of both', [_number(one['spearman']) for one in said])]
    if all('flagged' in one for one in said):
        rows.append(('flagged as not calibrated, share',
                     [_number(one['flagged']) for one in said]))
    return _table('Uncertainty (RMS error of a picture, 0 to 1)', list(told), rows)


def _table(title: str, horizons: Sequence[Any], rows: Sequence[Tuple[str, List[str]]]) -> str:
    lines = [f'## {title}', '', '| | ' + ' | '.join(map(str, horizons)) + ' |',
             '|---' * (len(horizons) + 1) + '|']
    return '\n'.join(lines + [f'| {name} | ' + ' | '.join(cells) + ' |' for name, cells in rows])


def _cell(interval: Optional[Sequence[float]], digits: int) -> str:
    if interval is None or not math.isfinite(interval[0]):
        return '-'
    mean, low, high = (f'{value:.{digits}f}' for value in interval)
    return f'{mean} ({low} to {high})'


def _number(value: float) -> str:
    return f'{value:.2f}' if math.isfinite(value) else '-'


def write_evaluated(told: Evaluated, folder: Path) -> List[Path]:
    """
    Write ``evaluation.json``, ``evaluation.md`` and ``strip.png``.

    :param told: of ``evaluate_world``
    :param folder: made when needed
    :return: the files
    :raises SpecError: it cannot be written
    """
    files = [Path(folder) / name for name in ('evaluation.json', 'evaluation.md', 'strip.png')]
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        files[0].write_text(to_json(told.results) + '\n')
        files[1].write_text(markdown(told.results))
        files[2].write_bytes(cv2.imencode('.png', told.strip[..., ::-1])[1].tobytes())
    except OSError as error:
        raise SpecError(f'{folder} cannot be written ({error.strerror}).') from error
    return files
