# SPDX-License-Identifier: Apache-2.0
"""The report of a judging: what each policy reached in both worlds, and whether they agree."""
import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Union

from lingbot_world_ros.environment import environment
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.evaluation.judge_file import NAME, read_judged
from lingbot_world_ros.report import figures
from lingbot_world_ros.report.page import (Chart, Commands, environment_table, Page, Section,
                                           Table, Tile)

MARKERS = 'o', 's', '^', 'D', 'v'
MEASURES = (('pearson', 'Pearson r', 3), ('spearman', 'Spearman', 3), ('mmrv', 'MMRV', 3))
Cell = Union[str, Tuple[str, str], Tuple[str, str, str]]
Results = Dict[str, Any]  # as judge.json has them


def is_judging(path: Path) -> bool:
    """
    Tell whether there is what ``lingbot-world judge`` writes, whole or not.

    :param path: a folder, or a file
    """
    if path.is_dir():
        return (path / NAME).is_file() and not (path / 'evaluation.json').exists()
    if path.name == NAME:
        return True
    try:
        return path.suffix == '.json' and bool(read_judged(path))
    except SpecError:
        return False


def judge_page(path: Path, title: str = '') -> Page:
    """
    Write the report of a judging.

    :param path: folder that ``lingbot-world judge`` wrote, or the ``judge.json`` in it
    :param title: instead of one that tells the engine
    :return: the page
    :raises SpecError: damaged, not finished, or something else
    """
    file = path / NAME if path.is_dir() else path
    results = read_judged(file)
    if 'scores' not in results:
        raise SpecError(f'{file} is not finished, it has {len(results["episodes"])} episodes so '
                        'far; the same "lingbot-world judge" goes on with it.')
    try:
        return _page(results, title)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise SpecError(f'{file} is no whole judging ({type(error).__name__}: {error}); write it '
                        'with "lingbot-world judge".') from error


def _page(results: Results, title: str) -> Page:
    spec = results['spec']
    sections = [_starts_section(results, kind) for kind in spec['starts']]
    return Page(title or f'Policies in imagined ({spec["engine"]}) and true '
                f'({results["truth"]}) rooms', 'Report of a judging', _lead(results),
                _facts(results), _tiles(results), [*sections, _made_section(results)])


def _lead(results: Results) -> List[str]:
    spec = results['spec']
    policies = len({score['policy'] for score in results['scores']})
    return [f'{policies} policies played the same episodes in imagination and in truth, '
            f'{spec["episodes"]} for each task and kind of start. Does imagination rank them as '
            'the truth does?',
            'Intervals are 95 %: after Wilson for shares, by resampling episodes for all else.']


def _facts(results: Results) -> List[Tuple[str, str]]:
    spec, made_by = results['spec'], results.get('made_by')
    options = spec.get('engine_options') or {}
    return [('engine', str(spec['engine'])), ('truth', str(results['truth'])),
            ('tasks', ', '.join(dict.fromkeys(score['task'] for score in results['scores']))),
            ('episodes', str(len(results['episodes']))), ('seed', str(spec['seed'])),
            ('engine options', json.dumps(options) if options else 'none'),
            ('time', str(made_by.get('time_utc', '')) if isinstance(made_by, dict) else '')]


def _tiles(results: Results) -> List[Tile]:
    tiles: List[Tile] = []
    for kind in results['spec']['starts']:
        told = results['agreement'][kind].get('all')
        if told is None:
            continue
        for name, label, digits in (*MEASURES[::2], ('difference', 'imagined minus true', 0)):
            value, interval = _measure(told[name], digits, name == 'difference')
            tiles.append(Tile(f'{label}, {kind}', value, interval))
    return tiles


def _starts_section(results: Results, kind: str) -> Section:
    scores = [score for score in results['scores'] if score['starts'] == kind]
    tasks = list(dict.fromkeys(score['task'] for score in scores))
    groups = [(task, figures.SERIES[i % len(figures.SERIES)], MARKERS[i % len(MARKERS)],
               [score for score in scores if score['task'] == task])
              for i, task in enumerate(tasks)]
    agreement = results['agreement'][kind]
    section = Section(f'{kind.capitalize()} starts')
    section.blocks.append(Chart(
        figures.agreement([(*group[:3], *_points(group[3])) for group in groups],
                          f'Imagined against true success, {kind} starts'),
        'Imagined against true success', 'One mark per policy; on the line both worlds say the '
        'same. Above it imagination flatters. Bars are the intervals of the shares.'))
    section.blocks.append(Chart(
        figures.differences([(f'{score["policy"]}', colour, score['difference'],
                              score['difference_interval'])
                             for _, colour, _, own in groups for score in own],
                            f'Imagined minus true success, {kind} starts'),
        'Imagined minus true', 'Colours as beside. The same episodes in both worlds, so the '
        'interval is that of the difference.'))
    if agreement:
        section.blocks.append(Table(
            ('over the policies of', 'policies', *(label for _, label, _ in MEASURES),
             'imagined minus true [%]'),
            [(name if name != 'all' else 'all tasks', str(told['policies']),
              *(_cell(told[measure], digits) for measure, _, digits in MEASURES),
              _cell(told['difference'], 1, True)) for name, told in agreement.items()],
            'Agreement', 'MMRV, mean maximum rank violation: for each policy the largest '
            'difference in true success to one that imagination puts on the wrong side; 0 is '
            'best.'))
    section.blocks.append(Table(
        ('task', 'policy', 'imagined [%]', 'true [%]', 'imagined minus true [%]', 'same end [%]'),
        [((score['task'], 'text'), (str(score['policy']), 'text'),
          *(_share(score[world]) for world in ('imagined', 'true')),
          _cell({'value': score['difference'], 'interval': score['difference_interval']}, 0, True),
          f'{100 * score["same_outcome"]:.0f}') for score in scores],
        'Success by policy', f'{results["spec"]["episodes"]} paired episodes each. Same end: '
        'share of episodes that end alike in both worlds.'))
    return section


def _points(scores: Sequence[Mapping[str, Any]]) -> List[List[Tuple[float, float, float]]]:
    """Return success with its interval, true and imagined, as lists of mean, low, high."""
    return [[(score[world]['success'], *score[world]['interval']) for score in scores]
            for world in ('true', 'imagined')]


def _made_section(results: Results) -> Section:
    made_by = results.get('made_by')
    made_by = made_by if isinstance(made_by, dict) else {}
    commands = [('this report', environment()['command'])]
    if made_by.get('command'):
        commands.insert(0, ('the judging', str(made_by['command'])))
    digests = {**(results.get('policies_sha256') or {}), **(results.get('weights_sha256') or {})}
    section = Section('How this was made', [Commands(commands),
                                            environment_table(made_by, 'the judging')])
    if digests:
        section.blocks.append(Table(
            ('policy or file', 'SHA-256'), [((str(name), 'text'), (str(digest), 'text'))
                                            for name, digest in digests.items()],
            'Weights', folded=True))
    return section


def _share(told: Mapping[str, Any]) -> Cell:
    low, high = told['interval']
    return f'{100 * told["success"]:.0f}', '', f'({100 * low:.0f} to {100 * high:.0f})'


def _cell(told: Mapping[str, Any], digits: int, is_share: bool = False) -> Cell:
    value, interval = _measure(told, digits, is_share)
    return (value, '', interval) if interval else value


def _measure(told: Mapping[str, Any], digits: int, is_share: bool) -> Tuple[str, str]:
    """Return a measure and its interval as texts; a share in percent, with its sign."""
    if told['value'] is None:
        return '-', 'cannot be computed'
    factor, sign = (100.0, '+') if is_share else (1.0, '')

    def text(value: float) -> str:
        return f'{factor * value:{sign}.{digits}f}'
    if told['interval'] is None:
        return text(told['value']), ''
    low, high = told['interval']
    return text(told['value']), f'({text(low)} to {text(high)})'
