# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world learn``: a world of the user's own, from recordings of their robot."""
import argparse
from pathlib import Path
import sys
from typing import Dict, TYPE_CHECKING

from lingbot_world_ros.cli.inspect import ROLES
from lingbot_world_ros.errors import shown, SpecError

if TYPE_CHECKING:
    from lingbot_world_ros.training.learn import Wanted

NAME = 'learn'
HELP = 'learn a world from recordings of your robot'
STAGES = {'alignment': 'Aligning the recording',
          'realignment': 'Aligning it as it is learned', 'poses': 'Correcting poses',
          'surfaces': 'Finding surfaces', 'map': 'Learning how it looks',
          'training': 'Training', 'export': 'Writing the world'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    add = parser.add_argument
    add('recordings', metavar='BAG', nargs='+', type=Path,
        help='bag (rosbag2 folder, .mcap, .db3), Donkey tub or LeRobot data set')
    add('-o', '--out', type=Path, required=True, metavar='DIR',
        help='folder of the world; the world is called as it')
    add('--kind', choices=('mapped', 'recurrent'),
        help='mapped: a place, needs depth and poses; recurrent: pictures and commands alone '
        '(default: what the recording allows)')
    add('--minutes', type=float, default=8.0, metavar='M',
        help='minutes of computing on one core that the pictures of the place get (default: 8)')
    add('--rate', type=float, default=0.0, metavar='HZ',
        help='frames per second (default: that of the camera, 15 at most for a place)')
    add('--robot', default='', metavar='NAME|FILE',
        help='robot that recorded, as the parameter robot takes it; its arm is drawn where it is '
        'like the one that ships (default: made from the recording)')
    add('--footprint', type=float, default=0.0, metavar='M',
        help='radius of the robot (default: that of --robot, or estimated)')
    add('--licence', default='', help='of the recording, for the card of the world')
    add('--seed', type=int, default=0, help='(default: 0)')
    add('--anyway', action='store_true', help='keep a world that is not good enough')
    for role, text in ROLES.items():
        add(f'--{role.replace("_", "-")}', metavar='TOPIC', help=text)


def run(args: argparse.Namespace) -> int:
    """
    Learn, and tell what came out.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: an argument or a recording cannot be used, or the world is too poor
    """
    if not 0.05 <= args.minutes <= 600.0:
        raise SpecError(f'--minutes {args.minutes:g}: give 0.05 to 600.')
    if args.footprint and not 0.01 <= args.footprint <= 5.0:
        raise SpecError(f'--footprint {args.footprint:g}: give 0.01 to 5 metres.')
    if args.rate and not 1.0 <= args.rate <= 60.0:
        raise SpecError(f'--rate {args.rate:g}: give 1 to 60 Hz.')
    from lingbot_world_ros.progress import Stages
    from lingbot_world_ros.training.work_folder import check_out, has_results
    check_out(args.out)
    topics = {role: getattr(args, role) for role in ROLES if getattr(args, role)}
    for path in args.recordings:
        _check_recording(path, topics)
    print(f'Reading {", ".join(shown(path) for path in args.recordings)} ...', file=sys.stderr,
          flush=True)
    stages = Stages(STAGES)
    try:
        _require_training()
        from lingbot_world_ros.training.learn import learn, table
        with stages:
            about = learn(args.recordings, _wanted(args, topics), stages)
    except KeyboardInterrupt:
        again = ('the same command goes on from there' if has_results(args.out) else
                 'nothing is kept yet, the same command begins again')
        print(f'\nStopped{f" ({stages.told})" if stages.told else ""}: {again}.',
              file=sys.stderr, flush=True)
        return 130
    for what, value in table(about):
        print(f'{what}: {value}')
    print(f'\nWritten: {args.out}. Drive it with: lingbot-world sim --world {args.out} --view')
    return 0


def _wanted(args: argparse.Namespace, topics: Dict[str, str]) -> 'Wanted':
    from lingbot_world_ros.training.learn import Wanted
    return Wanted(args.out, args.out.name, args.kind or '', args.minutes, args.rate, args.robot,
                  args.footprint, args.licence, args.seed, args.anyway, topics)


def _check_recording(path: Path, topics: Dict[str, str]) -> None:
    """Refuse what is no recording, and topics that are not in it, before anything heavy."""
    from lingbot_world_ros.recording.aligned import is_aligned
    from lingbot_world_ros.recording.bag import require_rosbags
    from lingbot_world_ros.recording.roles import check_named
    from lingbot_world_ros.recording.sources import open_source
    if not is_aligned(path):
        require_rosbags()
        with open_source(path) as source:
            check_named(topics, source.topics)


def _require_training() -> None:
    """Look for what learning needs before anything is read."""
    from lingbot_world_ros.paths import pip_install
    for package in ('torch', 'onnx', 'scipy', 'cv2'):
        try:
            __import__(package)
        except ImportError as error:
            raise SpecError(f'Learning needs the Python package {package} ({error}): make train, '
                            f'or {pip_install("torch", "onnx", "scipy")}.') from error
