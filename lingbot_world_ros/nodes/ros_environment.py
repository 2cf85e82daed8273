# SPDX-License-Identifier: Apache-2.0
"""What ROS takes from the environment and the command line: domain, namespace, DDS profile."""
import os
from pathlib import Path
import re
import sys
from typing import List, Optional, Sequence

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.paths import share_path

MAX_DOMAIN_ID = 232  # beyond it DDS has no UDP port numbers left
_command_line: Optional[List[str]] = None  # that rclpy was given; None: that of the process


def note_command_line(args: Optional[Sequence[str]]) -> None:
    """Keep what rclpy is started with, which it tells nobody."""
    global _command_line
    _command_line = None if args is None else list(args)


def command_line() -> List[str]:
    """Return the command line that the nodes of this process have their parameters from."""
    return sys.argv if _command_line is None else _command_line


def check_domain_id() -> None:
    """
    Look at the ROS domain before the middleware does.

    :raises SpecError: ROS_DOMAIN_ID is not a number from 0 to 232
    """
    domain = os.environ.get('ROS_DOMAIN_ID', '').strip()
    if domain and not (re.fullmatch('[0-9]+', domain) and int(domain[:9]) <= MAX_DOMAIN_ID):
        raise SpecError(f'ROS_DOMAIN_ID={domain!r} is not a whole number from 0 to '
                        f'{MAX_DOMAIN_ID}; set another one, for example ROS_DOMAIN_ID=7.')


def domain_id() -> str:
    """Return the ROS domain of this process."""
    return os.environ.get('ROS_DOMAIN_ID') or '0'


def namespace_args(namespace: str) -> List[str]:
    """
    Return the ROS arguments that put nodes into a namespace.

    :param namespace: with or without slashes around it; '' for none
    :raises SpecError: characters no namespace may have
    """
    name = namespace.strip('/')
    if not name:
        return []
    if not re.fullmatch(r'[A-Za-z_]\w*(/[A-Za-z_]\w*)*', name, re.ASCII):
        raise SpecError(f'--namespace {namespace!r} is no namespace: letters, digits and '
                        'underscores, not a digit first; for example robot_1.')
    return ['-r', f'__ns:=/{name}']


def prepare_environment() -> None:
    """
    Set what the middleware reads once, at start: a shared-memory profile that fits images.

    A profile the user chose is left alone.
    """
    os.environ.setdefault(profile_variable(), str(share_path('config', 'fastdds.xml')))


def profile_variable() -> str:
    """Return the environment variable in which Fast DDS looks for its profile."""
    # Before Fast DDS 2.11 it had this older name; newer versions warn about it.
    older = os.environ.get('ROS_DISTRO', '') in ('humble', 'iron')
    return 'FASTRTPS_DEFAULT_PROFILES_FILE' if older else 'FASTDDS_DEFAULT_PROFILES_FILE'


def node_args(profile: Optional[Path] = None, namespace: str = '',
              more: Sequence[str] = ()) -> List[str]:
    """
    Return the command line of a process with nodes.

    :param profile: parameter file; None leaves the nodes their defaults
    :param namespace: as ``namespace_args`` takes it
    :param more: further ROS arguments
    :return: what ``start_ros`` takes
    :raises SpecError: characters no namespace may have
    """
    file = [] if profile is None else ['--params-file', str(profile)]
    return ['--ros-args', *file, *namespace_args(namespace), *more]
