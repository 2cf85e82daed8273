# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world train-policy``: train a policy in imagined rooms."""
import argparse
from pathlib import Path
import sys
from typing import Any, Dict

from lingbot_world_ros.engines.registry import comparable_engines, DEFAULT_ENGINE

NAME = 'train-policy'
HELP = 'train a policy in imagined rooms'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    add = parser.add_argument
    add('task', help='RoomNav, RoomReach or RoomPush (docs/environments.md)')
    add('-o', '--out', type=Path, metavar='DIR',
        help='folder of the policy and its training; given again, an interrupted training goes '
        'on (default: policies/TASK)')
    add('--engine', default=DEFAULT_ENGINE, choices=comparable_engines(),
        help=f'world to train in (default: {DEFAULT_ENGINE})')
    add('--frames', type=int, default=60000, help='engine frames to act for (default: 60000)')
    add('--rounds', type=int, default=8,
        help='times that it acts and then learns from all it saw (default: 8)')
    add('--rows', type=int, default=16, help='environments side by side (default: 16)')
    add('--epochs', type=int, default=40, help='passes over what it saw per round (default: 40)')
    add('--no-scan', action='store_true', help='learn from numbers only: several times as fast, '
        'and blind to what stands in the way')
    add('--seed', type=int, default=0, help='of everything that is drawn (default: 0)')


def run(args: argparse.Namespace) -> int:
    """
    Train.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: arguments that cannot be used, or a folder with another training
    """
    _require_packages()
    from lingbot_world_ros.training.train_policy import (number_of_rounds, PolicySpec,
                                                         train_policy)
    spec = PolicySpec(args.task, args.engine, args.frames, args.rounds, args.rows, args.epochs,
                      not args.no_scan, seed=args.seed)
    folder = args.out or Path('policies') / args.task
    print(f'Training for {spec.task} in {spec.engine}: {spec.rounds} rounds of '
          f'{spec.frames // spec.rounds} frames', flush=True)
    try:
        train_policy(spec, folder, _show)
    except KeyboardInterrupt:
        done = number_of_rounds(folder)
        print(f'Interrupted: {done} of {spec.rounds} rounds are in {folder}; the same command '
              'goes on with the others.' if done else 'Interrupted before any round was kept.',
              file=sys.stderr)
        raise
    print(f'Written: {folder}. Judge it with "lingbot-world judge {folder} scripted random '
          f'--tasks {args.task}".')
    return 0


def _show(row: Dict[str, Any]) -> None:
    print(f'round {row["round"]}: {row["frames"]} frames, {row["reached"]} of {row["begun"]} '
          f'episodes reached their goal, loss {row["loss"]:.4f}, {row["seconds"]:.0f} s',
          flush=True)


def _require_packages() -> None:
    from importlib.util import find_spec
    from lingbot_world_ros.errors import SpecError
    from lingbot_world_ros.paths import pip_install
    missing = [name for name in ('gymnasium', 'torch') if find_spec(name) is None]
    if missing:
        raise SpecError(f'train-policy needs {" and ".join(missing)}: {pip_install(*missing)}.')
