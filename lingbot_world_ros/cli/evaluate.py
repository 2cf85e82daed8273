# SPDX-License-Identifier: Apache-2.0
"""
``lingbot-world evaluate``: score imagined rollouts.

An engine is scored against the reference world, a learned world against a recording.
"""
import argparse
from pathlib import Path
import shutil
import sys
from typing import Any, Dict, TYPE_CHECKING

from lingbot_world_ros.cli.inspect import ROLES
from lingbot_world_ros.engines.registry import DEFAULT_ENGINE
from lingbot_world_ros.errors import shown, SpecError

if TYPE_CHECKING:
    from lingbot_world_ros.evaluation.evaluate import EvaluationSpec

NAME = 'evaluate'
HELP = 'score imagined rollouts against the reference world, or against a recording'
STARTS, QUICK_STARTS = 64, 8  # in a recording
ALIGNED = '.aligned'  # in --out, while it is at work
NOT_LEARNED = ('engine', 'sets', 'trials', 'batch_size', 'baseline')  # say nothing of a recording
STAGES = {'alignment': 'Reading the recording',
          'poses': 'Finding it in the place', 'rollouts': 'Imagining'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    parser.add_argument('--engine', help='engine to score; it must have the rooms and '
                        f'the robot of the reference world (default: {DEFAULT_ENGINE})')
    parser.add_argument('--quick', action='store_true',
                        help='a run of seconds that only checks that everything works')
    parser.add_argument('--sequences', type=int, help='held-out sequences per set (default: 64, '
                        'rounded up to the same number in every scene); of a recording: starts '
                        f'in it (default: {STARTS})')
    parser.add_argument('--sets', type=int,
                        help='disjoint sets of sequences, one seed each (default: 3)')
    parser.add_argument('--horizons', type=int, nargs='+', metavar='FRAMES',
                        help='frames to compare at (default: 1 5 15 30 60 150 900; in a '
                        'recording: those of 1 5 20 60 200 that fit)')
    parser.add_argument('--trials', type=int,
                        help='trials per command, 0 for no command test (default: 200)')
    parser.add_argument('--batch-size', type=int, help='worlds side by side (default: 11)')
    parser.add_argument('--baseline', '--textbook', default='', metavar='FILE',
                        help='weights of the baseline (needs torch; default: no baseline); '
                        '--textbook is its older name')
    parser.add_argument('--out', type=Path, default=Path('bench/out/evaluate'), metavar='DIR',
                        help='folder for evaluation.json, evaluation.md, strip.png and the '
                        'truth that is kept between runs (default: bench/out/evaluate)')
    parser.add_argument('--json', action='store_true', help='print the JSON to standard output')
    _add_learned(parser)


def _add_learned(parser: argparse.ArgumentParser) -> None:
    """Describe what is for learned worlds alone."""
    add = parser.add_argument
    add('--world', default='', metavar='DIR', help='learned world to score, a folder of '
        '"lingbot-world learn"; needs --recording')
    add('--recording', type=Path, metavar='BAG', help='what --world is compared with: bag '
        '(rosbag2 folder, .mcap, .db3), Donkey tub or LeRobot data set')
    add('--seed', type=int, default=0, help='of the starts in a recording (default: 0)')
    for role, text in ROLES.items():
        add(f'--{role.replace("_", "-")}', metavar='TOPIC', help=f'of a recording: {text}')


def run(args: argparse.Namespace) -> int:
    """
    Evaluate and write the report.

    :param args: parsed arguments
    :return: exit status; missed targets are reported, they are no failure
    :raises SpecError: for arguments that cannot be used
    """
    _check_together(args)
    return _against_recording(args) if args.world else _against_reference(args)


def _check_together(args: argparse.Namespace) -> None:
    """Refuse arguments that say nothing together."""
    if not args.world:
        for name in ('recording', *ROLES):
            if getattr(args, name):
                raise SpecError(f'--{name.replace("_", "-")} is for a learned world; add --world '
                                'with the folder of one.')
        return
    for name in NOT_LEARNED:
        if getattr(args, name) not in (None, ''):
            raise SpecError(f'--{name.replace("_", "-")} is for engines that have the rooms of '
                            'the reference world; leave it out with --world.')
    if args.recording is None:
        raise SpecError('--world needs --recording with a bag to compare the world with.')
    if args.sequences is not None and not 1 <= args.sequences <= 10_000:
        raise SpecError(f'--sequences {args.sequences}: give 1 to 10000.')
    if args.horizons and not all(1 <= frames <= 100_000 for frames in args.horizons):
        raise SpecError('--horizons: give frames, each 1 to 100000.')
    if args.seed < 0:
        raise SpecError(f'--seed {args.seed}: give 0 or more.')


def _against_recording(args: argparse.Namespace) -> int:
    from lingbot_world_ros.environment import environment
    from lingbot_world_ros.evaluation.learned import HORIZONS
    from lingbot_world_ros.evaluation.learned_report import (evaluate_world, markdown,
                                                             write_evaluated)
    from lingbot_world_ros.evaluation.tables import to_json
    from lingbot_world_ros.progress import Stages
    from lingbot_world_ros.recording.align import aligned_like
    from lingbot_world_ros.worlds.learned import learned_folder, read_learned
    folder = learned_folder(args.world) or Path(args.world)
    about = read_learned(folder, verify=True)
    print(f'Reading {shown(args.recording)} ...', file=sys.stderr, flush=True)
    aligned, is_new = args.out / ALIGNED, not args.out.exists()
    topics = {role: getattr(args, role) for role in ROLES if getattr(args, role)}
    shutil.rmtree(aligned, ignore_errors=True)
    try:
        with Stages(STAGES) as stages:
            told = evaluate_world(
                folder, aligned_like(args.recording, about, aligned, topics, lambda done, total:
                                     stages('alignment', done, total)),
                horizons=args.horizons or HORIZONS,
                num_starts=args.sequences or (QUICK_STARTS if args.quick else STARTS),
                seed=args.seed, say=stages)
    except BaseException:
        if is_new:  # nothing was written into it
            shutil.rmtree(args.out, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(aligned, ignore_errors=True)
    told.results['made_by'] = environment()
    files = write_evaluated(told, args.out)
    print(to_json(told.results) if args.json else
          markdown(told.results) + '\nWritten: ' + ', '.join(map(str, files)))
    return 0


def _against_reference(args: argparse.Namespace) -> int:
    from lingbot_world_ros.environment import environment
    from lingbot_world_ros.evaluation.evaluate import evaluate
    from lingbot_world_ros.evaluation.tables import markdown, to_json, write_report
    from lingbot_world_ros.progress import Progress

    with Progress('frames') as progress:
        results, rollouts = evaluate(_spec(args), args.out / 'truth', progress.add)
    results['made_by'] = environment()
    files = write_report(results, rollouts[0], args.out)
    print(to_json(results) if args.json else
          markdown(results) + '\nWritten: ' + ', '.join(map(str, files)))
    return 0


def _spec(args: argparse.Namespace) -> 'EvaluationSpec':
    """Arguments given win over the quick sizes, which win over the defaults."""
    from lingbot_world_ros.evaluation.evaluate import EvaluationSpec, QUICK
    given = {'num_sequences': args.sequences, 'num_sets': args.sets, 'num_trials': args.trials,
             'horizons': args.horizons and tuple(args.horizons), 'batch_size': args.batch_size}
    sizes: Dict[str, Any] = dict(QUICK) if args.quick else {}
    sizes.update({name: value for name, value in given.items() if value is not None})
    return EvaluationSpec(engine=args.engine or DEFAULT_ENGINE, baseline=args.baseline, **sizes)
