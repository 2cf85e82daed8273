# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world judge``: play policies in imagined and in true rooms, and compare."""
import argparse
from dataclasses import replace
import json
from pathlib import Path
import sys
from typing import Any, Dict, TYPE_CHECKING

from lingbot_world_ros.engines.registry import DEFAULT_ENGINE, engine_entry

if TYPE_CHECKING:
    from lingbot_world_ros.evaluation.judge import JudgeSpec

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
    add('--inexact', action='store_true', help='draw the imagined side faster: pictures and '
        'states differ by rounding, so that numbers depend on --rows a little')
    add('-o', '--out', type=Path, default=Path('bench/out/judge'), metavar='DIR',
        help='folder for judge.json and judge.md; what an interrupted judging has there is gone '
        'on with (default: bench/out/judge)')
    add('--overwrite', action='store_true',
        help='begin anew, whatever judge.json is there')
    add('--json', action='store_true', help='print the JSON to standard output')


def run(args: argparse.Namespace) -> int:
    """
    Judge and write the result.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: arguments that cannot be used
    """
    from lingbot_world_ros.environment import environment
    from lingbot_world_ros.evaluation.judge import judge, number_of_episodes
    from lingbot_world_ros.evaluation.judge_file import NAME, played_before, write_judged
    from lingbot_world_ros.evaluation.judge_tables import markdown
    from lingbot_world_ros.evaluation.workers import Workers
    from lingbot_world_ros.paths import write_whole
    from lingbot_world_ros.policies.load import print_unfinished
    from lingbot_world_ros.progress import Progress
    spec, path = _spec(args), args.out / NAME
    workers = Workers(args.workers, args.ray)
    total, made_by = number_of_episodes(spec), environment()  # policies that cannot be: first
    for text in spec.policies:
        print_unfinished(text)
    known = [] if args.overwrite else played_before(path, spec)
    counted = [0]  # episodes in the file
    with Progress('episodes', {'episodes': total}) as progress:
        def keep(so_far: Dict[str, Any]) -> None:
            write_judged(path, {**so_far, 'made_by': made_by})
            counted[0] = len(so_far['episodes'])
        try:
            results = judge(spec, workers, lambda number: progress.add('episodes', number),
                            known=known, keep=keep)
        except KeyboardInterrupt:
            progress.clear()
            done = max(counted[0], len(known))
            print(f'Interrupted: {done} of {total} episodes are in {path}; the same command goes '
                  'on with the others.' if done else 'Interrupted before any episodes were kept.',
                  file=sys.stderr)
            raise
    results['made_by'] = made_by
    table = markdown(results)
    write_judged(path, results)
    write_whole(args.out / 'judge.md', table)
    print(json.dumps(results, indent=1) if args.json else
          f'{table}\nWritten: {args.out}/judge.json, judge.md')
    return 0


def _spec(args: argparse.Namespace) -> 'JudgeSpec':
    from lingbot_world_ros.envs.tasks import TASKS
    from lingbot_world_ros.errors import shown, SpecError
    from lingbot_world_ros.evaluation.judge import JudgeSpec
    spec = JudgeSpec(tuple(args.policies), tuple(args.tasks or TASKS), args.engine,
                     tuple(args.starts), args.episodes, args.rows, args.seed)
    if not args.inexact:
        return spec
    quick = dict(engine_entry(args.engine).quick)
    if not quick:
        raise SpecError(f'--inexact: engine {shown(args.engine)} has no faster way to draw; leave '
                        'it out.')
    return replace(spec, engine_options=quick)
