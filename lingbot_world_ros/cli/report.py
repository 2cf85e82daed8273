# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world report``: a recorded run or what was measured as one HTML file."""
import argparse
import os
from pathlib import Path
import time
from typing import TYPE_CHECKING

from lingbot_world_ros.engines.registry import TRUTH_ENGINE
from lingbot_world_ros.output import outlive_output

if TYPE_CHECKING:
    from lingbot_world_ros.report.page import Page

NAME = 'report'
HELP = 'turn a recorded run, an evaluation, a judging or a training into one HTML file'
PACKAGES = {'matplotlib': 'matplotlib', 'PIL': 'pillow', 'jinja2': 'jinja2', 'tqdm': 'tqdm'}
LIMIT_S = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    add = parser.add_argument
    add('run', type=Path, metavar='RUN', help='folder or .mcap file of "lingbot-world record", or '
        'folder or evaluation.json of "lingbot-world evaluate", or folder or judge.json of '
        '"lingbot-world judge", or folder of "lingbot-world train-policy"')
    add('-o', '--output', type=Path, metavar='FILE', help='default: RUN.html beside RUN')
    add('--title', default='', help="default: the recording's name")
    add('--engine', default=TRUTH_ENGINE, choices=(TRUTH_ENGINE, 'none'), help='world used '
        f'as the truth; none: no comparison (default: {TRUTH_ENGINE})')
    add('--seconds', type=float, default=LIMIT_S, metavar='S', help='longest sim time of a '
        f'segment that is shown and compared (default: {LIMIT_S:g})')
    add('--verify', action='store_true',
        help='also replay the recording and compare all frames byte by byte')
    add('--force', action='store_true', help='overwrite a file that is not a report')
    add('--namespace', default='', help='namespace of the world, if several were recorded')
    add('--profile', default='default', metavar='NAME|FILE',
        help='parameter file with settings for the engine (default: default)')
    add('--param', action='append', default=[], metavar='NAME:=VALUE',
        help='setting for the engine, for example lingbot.checkpoint:=FOLDER; may be repeated')
    add('--world-path', default='', metavar='DIR[:DIR]',
        help='folders with the start images of the recording')


def run(args: argparse.Namespace) -> int:
    """
    Make the report.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: the run cannot be read, or the file not be written
    """
    outlive_output()
    started_s = time.monotonic()
    _require_packages()
    from lingbot_world_ros.errors import SpecError
    from lingbot_world_ros.report.page import check_target, render, write
    if not args.seconds > 0:
        raise SpecError(f'--seconds {args.seconds:g} must be more than 0.')
    source = args.run
    if not os.path.exists(source):  # also where the name cannot be one
        raise SpecError(f'There is no {source}; give what "lingbot-world record", '
                        '"evaluate", "judge" or "train-policy" made.')
    out = args.output or _beside(source)
    check_target(out, args.force)
    page = _page(args)
    text = render(page)
    write(text, out)
    print(f'Written: {out} ({len(text.encode()) / 1e6:.2f} MB, made in '
          f'{time.monotonic() - started_s:.1f} s)')
    return 0


def _beside(source: Path) -> Path:
    """Return the file beside a run; what follows a dot in the name of a folder is no suffix."""
    path = source.resolve()
    return path.with_name(f'{path.name if path.is_dir() else path.stem}.html')


def _require_packages() -> None:
    """Say what to install before anything is imported that needs it."""
    from importlib.util import find_spec
    from lingbot_world_ros.errors import SpecError
    from lingbot_world_ros.paths import pip_install
    missing = [pip for name, pip in PACKAGES.items() if find_spec(name) is None]
    if missing:
        raise SpecError(f'report needs the Python package{"s" if len(missing) > 1 else ""} '
                        f'{", ".join(missing)}: {pip_install(*missing)}.')


def _page(args: argparse.Namespace) -> 'Page':
    from lingbot_world_ros.report.training_page import is_training, training_page
    if is_training(args.run):
        return training_page(args.run, args.title)
    if _is_evaluation(args.run):
        from lingbot_world_ros.report.judge_page import is_judging, judge_page
        return judge_page(args.run, args.title) if is_judging(args.run) else _evaluation(args)
    return _recording(args)


def _is_evaluation(path: Path) -> bool:
    """Tell whether something was evaluated or judged there, by the names of files."""
    if path.is_dir():
        names = 'evaluation.json', 'judge.json'
        return (any((path / name).is_file() for name in names) and
                not (path / 'metadata.yaml').exists())
    return path.suffix == '.json'


def _evaluation(args: argparse.Namespace) -> 'Page':
    from lingbot_world_ros.report.evaluation_page import evaluation_page
    return evaluation_page(args.run, args.title)


def _recording(args: argparse.Namespace) -> 'Page':
    from lingbot_world_ros.recording.bag import require_rosbags
    require_rosbags()
    from lingbot_world_ros.cli.replay import engine_maker
    from lingbot_world_ros.progress import Progress
    from lingbot_world_ros.recording.replay import verify
    from lingbot_world_ros.report.compare import Comparer
    from lingbot_world_ros.report.gather import gather
    from lingbot_world_ros.report.run_page import run_page, totals
    make_engine = engine_maker(args.profile, args.param)
    recording = gather(args.run, args.namespace)
    with Progress('frames', totals(recording, args.seconds)) as progress:
        comparer = Comparer(recording, '' if args.engine == 'none' else args.engine, make_engine,
                            args.world_path, args.seconds, progress.add)
        verdicts = list(verify(recording.segments, make_engine, args.world_path,
                               lambda number: progress.add('replay', number))
                        ) if args.verify else ()
        return run_page(recording, comparer, title=args.title, verdicts=verdicts)
