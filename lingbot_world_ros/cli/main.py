# SPDX-License-Identifier: Apache-2.0
"""
The command ``lingbot-world <verb>``.

A verb is a module beside this one that offers ``NAME``, ``HELP``, ``add_arguments(parser)`` and
``run(args) -> int``; only the one asked for is imported. What the user can fix is told in one
line and ends with exit code 2.
"""
import argparse
import errno
from importlib import import_module
from math import isfinite
import os
from pathlib import Path
import pkgutil
import re
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple

from lingbot_world_ros import cli
from lingbot_world_ros.errors import shown, SpecError
from lingbot_world_ros.output import begin_output, CLOSED_PIPE, OutputLost, UNWRITABLE
from lingbot_world_ros.paths import package_version
from lingbot_world_ros.plain_yaml import read_number, read_whole
from lingbot_world_ros.processes import end_with_parent

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
NO_VERBS = {'main', '__main__'}
ROS_PACKAGE = re.compile(r'(rclpy|std_srvs|\w+_msgs|\w+_interfaces|lingbot_world_ros\.msg)(\..*)?')


def verb_names() -> List[str]:
    """Return the names of all verbs."""
    names = {module.name for module in pkgutil.iter_modules(cli.__path__)} - NO_VERBS
    return sorted(name.replace('_', '-') for name in names)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """
    Run one verb.

    :param argv: arguments without the program name; None takes the process's own. What follows
        ``--ros-args`` is for ROS, up to ``--``
    :return: exit code
    """
    begin_output()
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except OutputLost as lost:
        if lost.is_closed_pipe:  # as in "| head"
            return CLOSED_PIPE
        print(f'error: {lost}', file=sys.stderr)
        return UNWRITABLE
    except KeyboardInterrupt:
        return 130


class _Version(argparse.Action):
    """Tells the version, which is looked up for those only who ask."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f'{parser.prog} {package_version()}')
        parser.exit()


def _apart(argv: Sequence[str]) -> Tuple[List[str], List[str]]:
    """Tell apart what is for the verb and what for ROS: from ``--ros-args`` to ``--``, or on."""
    own: List[str] = []
    of_ros: List[str] = []
    is_ros = False
    for word in argv:
        if is_ros and word == '--':
            is_ros = False
            continue
        is_ros = is_ros or word == '--ros-args'
        (of_ros if is_ros else own).append(word)
    return own, of_ros


def _whole(text: str) -> int:
    value = read_whole(text)
    if value is None:
        raise ValueError(text)
    return value


def _number(text: str) -> float:
    value = read_number(text)
    if value is None or not isfinite(value):
        raise ValueError(text)
    return value


def _run(argv: Optional[Sequence[str]]) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    argv, ros_args = _apart(argv)
    known = verb_names()
    names = [argv[0]] if argv and argv[0] in known else known
    parser = argparse.ArgumentParser(
        prog='lingbot-world', description='A learned world model in place of a simulator.')
    parser.add_argument('--version', action=_Version, nargs=0, help='print the version')
    subparsers = parser.add_subparsers(dest='verb', required=True, metavar='verb')
    modules: Dict[str, Any] = {}
    for name in names:
        module = import_module(f"{cli.__name__}.{name.replace('-', '_')}")
        modules[module.NAME] = module
        verb = subparsers.add_parser(module.NAME, help=module.HELP, description=module.HELP)
        verb.register('type', int, _whole)
        verb.register('type', float, _number)
        module.add_arguments(verb)
    try:
        args, unknown = parser.parse_known_args(argv)
        if unknown:
            raise SpecError(f'Unknown argument {shown(unknown[0])}; "lingbot-world {args.verb} '
                            '--help" lists what it takes.')
        args.ros_args = ros_args
        for name, value in vars(args).items():
            if isinstance(value, Path):  # a shell leaves ~ behind an equals sign, launch files do
                setattr(args, name, Path(os.path.expanduser(value)))
        end_with_parent()
        return modules[args.verb].run(args)
    except SpecError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if not ROS_PACKAGE.fullmatch(error.name or ''):
            raise
        print(f'error: {error.name} cannot be imported: {args.verb} needs ROS 2 and the messages '
              'of this package. Without ROS, run it through make ("make sim"); in a robot '
              'workspace, build with colcon and source install/setup.sh first.', file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(f'error: {error.filename or "a file"} cannot be written: {error.strerror}.',
              file=sys.stderr)
        return 2
