# SPDX-License-Identifier: Apache-2.0
"""What was judged, as Markdown."""
from typing import Any, Dict, List, Mapping


def markdown(results: Mapping[str, Any]) -> str:
    """
    Write the result of ``judge`` as tables.

    :param results: what it returned
    :return: text
    """
    spec = results['spec']
    lines = [f'# Policies in imagined ({spec["engine"]}) and true ({results["truth"]}) rooms', '',
             f'{spec["episodes"]} paired episodes each, seed {spec["seed"]}; intervals are 95 %.']
    for kind in spec['starts']:
        lines += ['', f'## {kind.capitalize()} starts', '',
                  '| task | policy | imagined [%] | true [%] | imagined minus true | same end |',
                  '|---|---|---|---|---|---|']
        lines += [_score(row) for row in results['scores'] if row['starts'] == kind]
        lines += ['', '| over the policies of | policies | Pearson r | Spearman | MMRV | '
                  'imagined minus true |', '|---|---|---|---|---|---|']
        lines += [_agreement(name, row) for name, row in results['agreement'][kind].items()]
    return '\n'.join([*lines, ''])


def _score(row: Mapping[str, Any]) -> str:
    cells: List[str] = [row['task'], row['policy']]
    cells += [f'{100 * row[world]["success"]:.0f} ({_percent(row[world]["interval"])})'
              for world in ('imagined', 'true')]
    cells += [f'{100 * row["difference"]:+.0f} ({_percent(row["difference_interval"])})',
              f'{100 * row["same_outcome"]:.0f} %']
    return f'| {" | ".join(cells)} |'


def _agreement(name: str, row: Dict[str, Any]) -> str:
    cells = [name if name != 'all' else 'all tasks', str(row['policies'])]
    cells += [_measure(row[measure]) for measure in ('pearson', 'spearman', 'mmrv', 'difference')]
    return f'| {" | ".join(cells)} |'


def _measure(measure: Mapping[str, Any]) -> str:
    if measure['value'] is None:
        return 'cannot be computed'
    if measure['interval'] is None:
        return f'{measure["value"]:.3f}'
    low, high = measure['interval']
    return f'{measure["value"]:.3f} ({low:.3f} to {high:.3f})'


def _percent(interval: Any) -> str:
    return '?' if interval is None else f'{100 * interval[0]:.0f} to {100 * interval[1]:.0f}'
