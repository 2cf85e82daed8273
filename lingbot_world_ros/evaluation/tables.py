# SPDX-License-Identifier: Apache-2.0
"""Evaluation results as Markdown tables and as a strip of truth above imagination."""
import json
import math
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import cv2
from lingbot_world_ros.evaluation.rollouts import Rollout
import numpy as np

METHOD_ORDER = ('imagined', 'base shuffled', 'arm shuffled', 'baseline', 'mean image',
                'copy last')
# Title, metric, decimals of the tables that compare the methods.
METHOD_TABLES = (('PSNR, whole image [dB]', 'psnr_db', 2), ('SSIM, whole image', 'ssim', 3),
                 ('PSNR, arm region [dB]', 'arm_psnr_db', 2), ('SSIM, arm region', 'arm_ssim', 3),
                 ('Sharpness, imagined / true gradient', 'sharpness', 2))
STATE_ROWS = (('position [m]', 'position_m', 3), ('yaw [deg]', 'yaw_deg', 2),
              ('joints [rad]', 'joint_rad', 4), ('gripper [m]', 'gripper_m', 4),
              ('movable objects [m]', 'object_m', 3), ('depth, relative', 'depth_relative', 3),
              ('depth, RMS [m]', 'depth_rms_m', 3))
CELL_WIDTH_PX = 240
SEQUENCES_PER_SCENE = 2  # in the strip
STRIP_FRAMES = (0, 1, 5, 15, 30, 60, 150, 900)
Results = Dict[str, Any]  # what evaluate returns
Entry = Optional[Mapping[str, Any]]  # mean, low and high


def to_json(results: Results) -> str:
    """
    Write results as JSON; numbers that are not finite become null.

    :param results: what ``evaluate`` returns
    :return: text
    """
    return json.dumps(_finite(results), indent=1)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def markdown(results: Results) -> str:
    """
    Lay results out as Markdown.

    :param results: what ``evaluate`` returns, with ``settings``
    :return: text
    """
    methods = results['methods']
    horizons = list(methods['imagined']['psnr_db'])
    parts = [_heading(results), _targets(results['targets'])]
    for title, metric, digits in METHOD_TABLES:
        rows = [(name, methods[name][metric]) for name in METHOD_ORDER if name in methods]
        parts.append(_table(title, rows, horizons, digits))
    parts.append(_by_set(methods['imagined']['psnr_db'], horizons))
    parts.append(_table('PSNR of the imagination above ... [dB]',
                        list(results['margins_db'].items()), horizons, 2))
    parts.append(_table('What shuffled commands cost [dB] (base: whole image, arm: arm region)',
                        list(results['shuffle_cost_db'].items()), horizons, 2))
    parts.append(_states(results, horizons))
    if 'uncertainty' in results:
        parts.append(_uncertainty(results['uncertainty'], horizons))
    if 'calibrated_share' in results:
        parts.append(_table('Share of frames that the world calls calibrated',
                            [('calibrated', results['calibrated_share'])], horizons, 2))
    if 'command_fidelity' in results:
        parts.append(_command_fidelity(results['command_fidelity']))
    return '\n\n'.join(parts) + '\n'


def _heading(results: Results) -> str:
    settings, same = results['settings'], results['deterministic']['identical']
    return (f'# {settings["engine"]} against the reference world\n\n'
            f'{results["num_sequences"]} held-out command sequences in {settings["num_sets"]} '
            f'disjoint sets, scenes {", ".join(results["scenes"])}, true start state, open loop. '
            'Mean over sequences with its 95 % bootstrap interval; columns are frames after the '
            f'start. Same seed gives the same bytes: {"yes" if same else "NO"}.')


def _targets(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ['## Targets', '', '| | value | target | |', '|---|---|---|---|']
    for row in rows:
        sign = 'at least' if row['at_least'] else 'at most'
        lines.append(f'| {row["name"]} | {row["value"]:.3f} | {sign} {row["bar"]:g} | '
                     f'{"met" if row["met"] else "**missed**"} |')
    return '\n'.join(lines)


def _table(title: str, rows: Sequence[Tuple[str, Mapping[str, Entry]]], horizons: Sequence[str],
           digits: int) -> str:
    lines = [f'## {title}', '', '| | ' + ' | '.join(horizons) + ' |',
             '|---' * (len(horizons) + 1) + '|']
    for name, table in rows:
        cells = [_cell(table.get(h), digits) for h in horizons]
        lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _cell(entry: Entry, digits: int) -> str:
    if entry is None or not math.isfinite(entry['mean']):
        return '-'
    low, high = entry['low'], entry['high']
    return f'{entry["mean"]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})'


def _by_set(table: Mapping[str, Any], horizons: Sequence[str]) -> str:
    lines = [_table('PSNR of the imagination by set [dB]', [], horizons, 2)]
    for number in range(len(table[horizons[0]]['sets'])):
        cells = [f'{table[h]["sets"][number]:.2f}' for h in horizons]
        lines.append(f'| set {number} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _states(results: Results, horizons: Sequence[str]) -> str:
    imagined = results['methods']['imagined']
    rows = [_table('State and depth errors', [], horizons, 3)]
    for title, metric, digits in STATE_ROWS:
        sources = {'': imagined}
        sources.update({f', {k}': v for k, v in results['by_contact'].items()})
        for suffix, tables in sources.items():
            if metric in tables:
                cells = [_cell(tables[metric].get(h), digits) for h in horizons]
                rows.append(f'| {title}{suffix} | ' + ' | '.join(cells) + ' |')
    share = [_cell(results['contact_share'][h], 2) for h in horizons]
    rows.append('| share of sequences with contact so far | ' + ' | '.join(share) + ' |')
    auc = results['contact_prediction_auc']
    text = f'{auc:.3f}' if auc is not None and math.isfinite(auc) else '-'
    return '\n'.join(rows) + f'\n\nContact prediction, area under ROC over all frames: {text}.'


def _uncertainty(found: Mapping[str, Any], horizons: Sequence[str]) -> str:
    overall = _cell(found['spearman'], 3)
    table = _table('Uncertainty (predicted RMS image error, 0 to 1)',
                   [('predicted', found['mean_predicted']), ('true', found['mean_true'])],
                   horizons, 4)
    cells = [f'{found["spearman_at"][h]:.3f}' for h in horizons]
    return (table + '\n| Spearman at this frame | ' + ' | '.join(cells) + ' |\n\n'
            f'Spearman correlation over all sequences and frames: {overall}.')


def _command_fidelity(found: Mapping[str, Any]) -> str:
    lines = ['## Command fidelity', '',
             'One command for about half a second: is the imagined outcome closer to its true '
             'outcome than to that of the opposite command? Image: whole image for the base, arm '
             'region for the arm.', '',
             '| command | value | trials | image | state | blocked, skipped | unseen, skipped |',
             '|---|---|---|---|---|---|---|']
    for name, row in found.items():
        lines.append(f'| {name} | {row["value"]:.3f} | {row["trials"]} | {_share(row["right"])} '
                     f'| {_share(row["state_right"])} | {row["blocked"]} | {row["unseen"]} |')
    return '\n'.join(lines)


def _share(value: Optional[float]) -> str:
    return '-' if value is None else f'{100 * value:.1f} %'


def strip(found: Mapping[str, Rollout], scenes: Sequence[str],
          frames: Sequence[int]) -> np.ndarray:
    """
    Draw truth above imagination, frame by frame.

    :param found: method -> Rollout of one set, with ``'truth'`` and ``'imagined'``
    :param scenes: scene names, in the order of the sequences
    :param frames: frames behind the columns of the rollouts
    :return: (h, w, 3) uint8 RGB
    """
    count = len(found['truth'].rgb) // len(scenes)
    columns = [i for i, frame in enumerate(frames) if frame in STRIP_FRAMES]
    names = [name for name in ('truth', 'imagined', 'baseline') if name in found]
    rows = []
    for number, scene in enumerate(scenes):
        for sequence in range(number * count, number * count + min(SEQUENCES_PER_SCENE, count)):
            for name in names:
                rows.append(np.concatenate([
                    _cell_image(found[name].rgb[sequence, c], f'{scene} {name}, frame {frames[c]}')
                    for c in columns], 1))
            rows.append(np.full((6, rows[-1].shape[1], 3), 255, np.uint8))
    return np.concatenate(rows[:-1])


def _cell_image(rgb: np.ndarray, label: str) -> np.ndarray:
    """Enlarge by whole pixels and write the label into the top left corner."""
    factor = max(1, round(CELL_WIDTH_PX / rgb.shape[1]))
    image = np.ascontiguousarray(rgb.repeat(factor, 0).repeat(factor, 1))
    image[:19, :10 + 7 * len(label)] //= 4  # darker, so that white text can be read
    cv2.putText(image, label, (5, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1,
                cv2.LINE_AA)
    return image


def write_report(results: Results, found: Mapping[str, Rollout], folder: Path) -> List[Path]:
    """
    Write ``evaluation.json``, ``evaluation.md`` and ``strip.png``.

    :param results: what ``evaluate`` returns, with ``settings``
    :param found: method -> Rollout of the set that the strip shows
    :param folder: made when needed
    :return: the files
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in ('evaluation.json', 'evaluation.md', 'strip.png')]
    files[0].write_text(to_json(results) + '\n')
    files[1].write_text(markdown(results))
    frames = (0, *map(int, results['methods']['imagined']['psnr_db']))
    cv2.imwrite(str(files[2]), strip(found, results['scenes'], frames)[..., ::-1])
    return files
