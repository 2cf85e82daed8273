# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world planning-gap``: what planning loses by imagining with the learned world."""
import argparse
import json
from pathlib import Path
from typing import Any, Dict

from lingbot_world_ros.engines.registry import DEFAULT_ENGINE

NAME = 'planning-gap'
HELP = 'tell what a planner loses by imagining with learned dynamics and not with the true ones'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    add = parser.add_argument
    add('--task', default='RoomNav', help='default: RoomNav')
    add('--method', default='cem', help='cem or mppi (default: cem)')
    add('--budget', type=int, default=96, help='rollouts per plan, in both (default: 96)')
    add('--engine', default=DEFAULT_ENGINE,
        help=f'that imagines beside the truth (default: {DEFAULT_ENGINE})')
    add('--episodes', type=int, default=50, help='pairs of them (default: 50)')
    add('--seed', type=int, default=0, help='of the episodes (default: 0)')
    add('--workers', type=int, default=1, help='processes (default: 1)')
    add('-o', '--out', type=Path, default=Path('bench/out/planning_gap'), metavar='DIR',
        help='folder for planning_gap.json, planning_gap.md and the episodes; those that are '
        'there are not played again (default: bench/out/planning_gap)')
    add('--json', action='store_true', help='print the JSON to standard output')


def run(args: argparse.Namespace) -> int:
    """
    Measure and write the result.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: arguments that cannot be used
    """
    from lingbot_world_ros.environment import environment
    from lingbot_world_ros.evaluation.planning_gap import GapSpec, markdown, planning_gap
    from lingbot_world_ros.evaluation.workers import Workers
    from lingbot_world_ros.progress import Progress
    spec = GapSpec(args.task, args.method, args.budget, args.engine, args.episodes, args.seed)
    with Progress('episodes', {'episodes': 2 * spec.episodes}) as progress:
        results: Dict[str, Any] = planning_gap(
            spec, args.out / 'episodes', Workers(args.workers),
            lambda number: progress.add('episodes', number))
    results['made_by'] = environment()
    args.out.mkdir(parents=True, exist_ok=True)
    text, table = json.dumps(results, indent=1), markdown(results)
    (args.out / 'planning_gap.json').write_text(text + '\n')
    (args.out / 'planning_gap.md').write_text(table)
    print(text if args.json else f'{table}\nWritten: {args.out}/planning_gap.json, '
          'planning_gap.md')
    return 0
