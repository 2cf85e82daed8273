# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world evaluate``: score an engine against the reference world."""
import argparse
from pathlib import Path
from typing import Any, Dict, TYPE_CHECKING

from lingbot_world_ros.engines.registry import DEFAULT_ENGINE

if TYPE_CHECKING:
    from lingbot_world_ros.evaluation.evaluate import EvaluationSpec

NAME = 'evaluate'
HELP = 'score imagined rollouts against the reference world'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    parser.add_argument('--engine', default=DEFAULT_ENGINE, help='engine to score; it must '
                        'have the rooms and the robot of the reference world '
                        f'(default: {DEFAULT_ENGINE})')
    parser.add_argument('--quick', action='store_true',
                        help='a run of seconds that only checks that everything works')
    parser.add_argument('--sequences', type=int, help='held-out sequences per set (default: 64, '
                        'rounded up to the same number in every scene)')
    parser.add_argument('--sets', type=int,
                        help='disjoint sets of sequences, one seed each (default: 3)')
    parser.add_argument('--horizons', type=int, nargs='+', metavar='FRAMES',
                        help='frames to compare at (default: 1 5 15 30 60 150 900)')
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


def run(args: argparse.Namespace) -> int:
    """
    Evaluate and write the report.

    :param args: parsed arguments
    :return: exit status; missed targets are reported, they are no failure
    :raises SpecError: for arguments that cannot be used
    """
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
    return EvaluationSpec(engine=args.engine, baseline=args.baseline, **sizes)
