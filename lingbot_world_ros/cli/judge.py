# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world judge``: play policies in imagined and in true rooms, and compare."""
import argparse
import json
from pathlib import Path
from typing import Any, Dict

from lingbot_world_ros.engines.registry import DEFAULT_ENGINE

NAME = 'judge'
HELP = 'tell how well policies do in imagined rooms, and whether the truth agrees'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    add = parser.add_argument
    add('policies', nargs='+', metavar='POLICY', help='random, scripted, scripted:SKILL (0 to 1), '
        'expert, plan:cem:BUDGET or plan:mppi:BUDGET (rollouts), picture:cem:BUDGET, or the '
        'folder of a trained one')
    add('--tasks', nargs='+', metavar='TASK', default=None,
        help='default: RoomNav RoomReach RoomPush; trained policies play their own task')
    add('--starts', nargs='+', default=['nominal', 'unusual'], choices=('nominal', 'unusual'),
        help='as scenes draw them, or near walls, with the arm in view, objects aside '
        '(default: both)')
    add('--episodes', type=int, default=100,
        help='per policy, task, kind of start and world (default: 100)')
    add('--engine', default=DEFAULT_ENGINE,
        help=f'world that is compared with the truth (default: {DEFAULT_ENGINE})')
    add('--seed', type=int, default=0, help='of the episodes (default: 0)')
    add('--rows', type=int, default=12, help='episodes side by side in a worker (default: 12)')
    add('--workers', type=int, default=1, help='processes; the numbers are the same with any '
        'number of them (default: 1)')
    add('--ray', metavar='ADDRESS', help='of a Ray cluster, "auto" for the one this machine '
        'belongs to, "local" to start one here; --workers are then its actors')
    add('-o', '--out', type=Path, default=Path('bench/out/judge'), metavar='DIR',
        help='folder for judge.json and judge.md (default: bench/out/judge)')
    add('--json', action='store_true', help='print the JSON to standard output')


def run(args: argparse.Namespace) -> int:
    """
    Judge and write the result.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: arguments that cannot be used
    """
    from lingbot_world_ros.environment import environment
    from lingbot_world_ros.envs.tasks import TASKS
    from lingbot_world_ros.evaluation.judge import judge, JudgeSpec, number_of_episodes
    from lingbot_world_ros.evaluation.judge_tables import markdown
    from lingbot_world_ros.evaluation.workers import Workers
    from lingbot_world_ros.progress import Progress
    spec = JudgeSpec(tuple(args.policies), tuple(args.tasks or TASKS), args.engine,
                     tuple(args.starts), args.episodes, args.rows, args.seed)
    workers = Workers(args.workers, args.ray)
    with Progress('episodes', {'episodes': number_of_episodes(spec)}) as progress:
        results: Dict[str, Any] = judge(spec, workers,
                                        lambda number: progress.add('episodes', number))
    results['made_by'] = environment()
    args.out.mkdir(parents=True, exist_ok=True)
    text, table = json.dumps(results, indent=1), markdown(results)
    (args.out / 'judge.json').write_text(text + '\n')
    (args.out / 'judge.md').write_text(table)
    print(text if args.json else f'{table}\nWritten: {args.out}/judge.json, judge.md')
    return 0
