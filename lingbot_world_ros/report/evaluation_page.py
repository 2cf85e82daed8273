# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation: its tables with intervals, its curves, its strips by scene."""
import json
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

import cv2
from lingbot_world_ros.environment import environment
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.evaluation.tables import METHOD_ORDER, METHOD_TABLES, STATE_ROWS
from lingbot_world_ros.report import figures, pictures
from lingbot_world_ros.report.page import (Chart, Commands, environment_table, Page, Paragraph,
                                           Picture, Section, Table, Tile)
import numpy as np

COLOURS = {'imagined': 'imagined', 'mean image': 'mean', 'copy last': 'first',
           'baseline': 'series-1', 'base shuffled': 'series-4', 'arm shuffled': 'series-3'}
RENAMED = {'textbook': 'baseline', 'obedience': 'command_fidelity',
           'obedience_worst': 'command_fidelity_worst'}
SCENE_TABLES = (('PSNR of the imagination [dB]', 'psnr_db', 2),
                ('Base position [m]', 'position_m', 3), ('Yaw [deg]', 'yaw_deg', 2),
                ('Joints [rad]', 'joint_rad', 4))
SEPARATOR_PX = 6  # between the rows of strip.png
STRIP_WIDTH_PX = 1400
MAX_BYTES = 50_000_000
Results = Dict[str, Any]  # as evaluation.json has them
Entry = Optional[Mapping[str, Any]]  # mean, low and high


def evaluation_page(path: Path, title: str = '') -> Page:
    """
    Write the report of an evaluation.

    :param path: folder that ``lingbot-world evaluate`` wrote, or the ``evaluation.json`` in it
    :param title: instead of the engine's name
    :return: the page
    :raises SpecError: damaged, or no evaluation
    """
    file = path / 'evaluation.json' if path.is_dir() else path
    results = read_results(file)
    try:
        return _page(results, file.parent / 'strip.png', title)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise SpecError(f'{file} is no whole evaluation ({type(error).__name__}: {error}); write '
                        'it with "lingbot-world evaluate".') from error


def read_results(file: Path) -> Results:
    """
    Read ``evaluation.json``.

    :param file: its path
    :return: what is in it
    :raises SpecError: it cannot be read, or is something else
    """
    try:
        if file.stat().st_size > MAX_BYTES:
            raise SpecError(f'{file} is larger than {MAX_BYTES // 1_000_000} MB, so it is no '
                            'evaluation.')
        results = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f'{file} cannot be read ({error}); write it with "lingbot-world '
                        'evaluate".') from error
    if not isinstance(results, dict) or not {'methods', 'settings', 'targets'} <= set(results):
        raise SpecError(f'{file} is no evaluation; write it with "lingbot-world evaluate".')
    return _renamed(results)


def _renamed(content: Any) -> Any:
    """Read what was written before two things got the names that the field has for them."""
    if isinstance(content, dict):
        return {RENAMED.get(key, key): _renamed(value) for key, value in content.items()}
    return content


def _page(results: Results, strip: Path, title: str) -> Page:
    settings = results['settings']
    engine = settings['engine']
    sections = [_strip_section(results, strip), _picture_section(results),
                _scene_section(results), _state_section(results), _command_section(results),
                _target_section(results), _made_section(results)]
    return Page(title or f'{engine} against the reference world', 'Report of an evaluation',
                _lead(results), _facts(results), _tiles(results),
                [section for section in sections if section.blocks])


def _horizons(results: Results) -> List[str]:
    return list(results['methods']['imagined']['psnr_db'])


def _lead(results: Results) -> List[str]:
    settings, imagined = results['settings'], results['methods']['imagined']['psnr_db']
    last = _horizons(results)[-1]
    margins = results['margins_db']
    text = (f'{results["num_sequences"]} held-out command sequences in {settings["num_sets"]} '
            f'disjoint sets, true start state, then commands only. At {last} frames the imagined '
            f'picture has a PSNR of {_cell(imagined[last], 1)[0]} dB to the truth')
    parts = [f'{_cell(table[last], 1)[0]} dB above {name}' for name, table in margins.items()
             if last in table]
    return [f'{text}, {" and ".join(parts)}.' if parts else f'{text}.',
            'Numbers are means over sequences, in brackets their 95 % bootstrap interval.']


def _facts(results: Results) -> List[Tuple[str, str]]:
    settings = results['settings']
    versions = settings.get('versions', {})
    return [('engine', settings['engine']), ('scenes', ', '.join(map(str, results['scenes']))),
            ('sequences', str(results['num_sequences'])), ('sets', str(settings['num_sets'])),
            ('horizons [frames]', ', '.join(_horizons(results))),
            ('trials per command', str(settings.get('num_trials', '-'))),
            ('time', str(settings.get('time_utc', ''))),
            ('took', f'{results.get("seconds", "?")} s'),
            ('simulator', f'mujoco {versions.get("mujoco", "?")}')]


def _tiles(results: Results) -> List[Tile]:
    imagined = results['methods']['imagined']
    tiles: List[Tile] = []
    horizons = _horizons(results)
    for horizon in dict.fromkeys((horizons[0], '15' if '15' in horizons else horizons[-1],
                                  horizons[-1])):
        value, interval = _cell(imagined['psnr_db'][horizon], 1)
        tiles.append(Tile(f'PSNR at {horizon}', f'{value} dB', interval))
    rows = results['targets']
    met = sum(bool(row['met']) for row in rows)
    tiles.append(Tile('targets met', f'{met} of {len(rows)}', '',
                      'good' if met == len(rows) else 'warn'))
    if results.get('command_fidelity_worst') is not None:
        tiles.append(Tile('command fidelity', f'{100 * results["command_fidelity_worst"]:.1f} %',
                          'the worst of them'))
    if 'uncertainty' in results:
        value, interval = _cell(results['uncertainty']['spearman'], 2)
        tiles.append(Tile('uncertainty', value, f'rank correlation {interval}'))
    same = results['deterministic']['identical']
    tiles.append(Tile('same seed', 'same bytes' if same else 'differs', '',
                      'good' if same else 'warn'))
    return tiles


def _picture_section(results: Results) -> Section:
    methods, horizons = results['methods'], _horizons(results)
    section = Section('Pictures')
    for title, metric, label, bottom in (
            ('PSNR over the horizon', 'psnr_db', 'PSNR to the truth [dB]', 0),
            ('PSNR in the arm region', 'arm_psnr_db', 'PSNR [dB]', 0)):
        tables = [(name, COLOURS[name], methods[name][metric]) for name in METHOD_ORDER
                  if name in methods]
        section.blocks.append(Chart(
            figures.horizons(tables, label, title, bottom), title,
            'Bands: 95 % intervals. Shuffled: commands of another sequence; a world that listens '
            'loses by that.' if metric == 'psnr_db' else
            'Pixels of the true arm and 3 pixels around it.'))
    for title, metric, digits in METHOD_TABLES:
        rows = [(name, methods[name][metric]) for name in METHOD_ORDER if name in methods]
        section.blocks.append(_table(title, rows, horizons, digits, folded=metric != 'psnr_db'))
    section.blocks.append(_table('PSNR of the imagination above ... [dB]',
                                 results['margins_db'].items(), horizons, 2))
    return section


def _scene_section(results: Results) -> Section:
    section, horizons = Section('Scene by scene'), _horizons(results)
    found = results.get('by_scene')
    if not found:
        section.blocks.append(Paragraph(
            'This evaluation holds no numbers by scene: it was written by an older version.'))
        return section
    tables = []
    for title, metric, digits in SCENE_TABLES:
        rows = [(scene, own[metric]) for scene, own in found.items() if metric in own]
        if not rows:
            continue
        tables.append(_table(title, rows, horizons, digits))
        if metric in ('psnr_db', 'position_m'):
            lines = [(name, figures.SERIES[i % len(figures.SERIES)], table)
                     for i, (name, table) in enumerate(rows)]
            section.blocks.append(Chart(
                figures.horizons(lines, title, f'{title} by scene', 0), title,
                'Bands: 95 % intervals over the sequences of the scene.'))
    section.blocks += tables
    return section


def _state_section(results: Results) -> Section:
    imagined, horizons = results['methods']['imagined'], _horizons(results)
    section = Section('State, depth and uncertainty')
    for metric, label in (('position_m', 'base position error [m]'),
                          ('yaw_deg', 'yaw error [deg]'),
                          ('joint_rad', 'joint error [rad]')):
        tables = [('all', 'imagined', imagined[metric])] if metric in imagined else []
        tables += [(name, colour, results['by_contact'][name][metric])
                   for name, colour in (('contact', 'warn'), ('contact-free', 'truth'))
                   if metric in results['by_contact'].get(name, {})]
        if tables:
            section.blocks.append(Chart(
                figures.horizons(tables, label, label, 0), label.capitalize(),
                'Sequences apart that had touched something up to there, and that had not.'))
    found = results.get('uncertainty')
    if found:
        section.blocks.append(Chart(
            figures.horizons([('predicted', 'imagined', found['mean_predicted']),
                              ('true', 'truth', found['mean_true'])], 'RMS picture error, 0 to 1',
                             'Predicted and true picture error', 0),
            'Predicted against true error', 'Means over all sequences.'))
    rows = []
    for title, metric, digits in STATE_ROWS:
        sources = {'': imagined, **{f', {k}': v for k, v in results['by_contact'].items()}}
        rows += [(f'{title}{suffix}', tables[metric], digits)
                 for suffix, tables in sources.items() if metric in tables]
    section.blocks.append(Table(('', *horizons), [
        (name, *(_shown(table.get(h), digits) for h in horizons)) for name, table, digits in rows],
        'State and depth errors by horizon', f'Contact prediction, area under ROC over all '
        f'frames: {_number(results["contact_prediction_auc"], 3)}.'))
    if found:
        section.blocks.append(_table(
            'Uncertainty: predicted and true RMS picture error, 0 to 1',
            [('predicted', found['mean_predicted']), ('true', found['mean_true'])], horizons, 4,
            caption='Rank correlation (Spearman) over all sequences and frames: '
            f'{" ".join(_cell(found["spearman"], 3))}.'))
    return section


def _command_section(results: Results) -> Section:
    section = Section('Do commands matter?')
    section.blocks.append(_table(
        'What shuffled commands cost [dB]', results['shuffle_cost_db'].items(),
        _horizons(results), 2, caption='Base: in the whole picture. Arm: in the arm region.'))
    if 'command_fidelity' in results:
        rows = [(name, f'{row["value"]:.3f}', str(row['trials']), _share(row['right']),
                 _share(row['state_right']), str(row['blocked']), str(row['unseen']))
                for name, row in results['command_fidelity'].items()]
        section.blocks.append(Table(
            ('command', 'value', 'trials', 'picture', 'state', 'blocked, skipped',
             'unseen, skipped'), rows, 'Command fidelity', 'One command for about half a second: '
            'is the imagined outcome closer to its true outcome than to that of the opposite '
            'command?'))
    return section


def _target_section(results: Results) -> Section:
    rows = [(row['name'], _number(row['value'], 3),
             f'{"at least" if row["at_least"] else "at most"} {row["bar"]:g}',
             ('met', 'good') if row['met'] else ('missed', 'warn')) for row in results['targets']]
    return Section('Targets', [Table(('', 'value', 'target', ''), rows)])


def _strip_section(results: Results, file: Path) -> Section:
    section = Section('Film strips')
    image = cv2.imread(str(file)) if file.is_file() else None
    if image is None:
        section.blocks.append(Paragraph(
            f'There is no {file.name} beside the evaluation, so there are no pictures.'))
        return section
    scenes = results['scenes']
    height = (image.shape[0] + SEPARATOR_PX) // len(scenes)
    for number, scene in enumerate(scenes):
        part = image[number * height:(number + 1) * height - SEPARATOR_PX, :, ::-1]
        size = STRIP_WIDTH_PX, max(1, round(part.shape[0] * STRIP_WIDTH_PX / part.shape[1]))
        if part.shape[1] > STRIP_WIDTH_PX:
            part = cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_AREA)
        section.blocks.append(Picture(
            pictures.picture(part, 72), str(scene), 'Truth above imagination, held-out '
            'sequences; columns are frames after the start.'))
    return section


def _made_section(results: Results) -> Section:
    made_by = results.get('made_by')
    made_by = made_by if isinstance(made_by, dict) else {}
    commands = [('this report', environment()['command'])]
    if made_by.get('command'):
        commands.insert(0, ('the evaluation', str(made_by['command'])))
    weights = [(name, digest) for name, digest in
               results['settings'].get('weights_sha256', {}).items()]
    return Section('How this was made', [
        Commands(commands),
        environment_table(made_by, 'the evaluation'),
        Table(('file', 'SHA-256'), [((n, 'text'), (d, 'text')) for n, d in weights],
              'Weights', folded=True)])


def _table(title: str, rows: Iterable[Tuple[str, Mapping[str, Entry]]], horizons: Sequence[str],
           digits: int, folded: bool = False, caption: str = '') -> Table:
    return Table(('frames', *horizons), [
        (name, *(_shown(table.get(h), digits) for h in horizons)) for name, table in rows],
        title, caption, folded)


def _shown(entry: Entry, digits: int) -> Union[str, Tuple[str, str, str]]:
    value, interval = _cell(entry, digits)
    return (value, '', interval) if interval else value


def _cell(entry: Entry, digits: int) -> Tuple[str, str]:
    """Return a mean and its interval as texts."""
    if not entry or entry.get('mean') is None or not np.isfinite(entry['mean']):
        return '-', ''
    low, high = entry.get('low'), entry.get('high')
    if low is None or high is None:
        return f'{entry["mean"]:.{digits}f}', ''
    return f'{entry["mean"]:.{digits}f}', f'({low:.{digits}f} to {high:.{digits}f})'


def _number(value: Optional[float], digits: int) -> str:
    return '-' if value is None else f'{value:.{digits}f}'


def _share(value: Optional[float]) -> str:
    return '-' if value is None else f'{100 * value:.1f} %'
