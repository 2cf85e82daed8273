# SPDX-License-Identifier: Apache-2.0
"""What made a recording, an evaluation or a report: command line, machine, versions. No ROS."""
from importlib import metadata
import json
import os
from pathlib import Path
import platform
import shlex
import sys
import time
from typing import Any, Dict, List, Optional, Sequence

from lingbot_world_ros.paths import PACKAGE, package_version

NOTE = 'lingbot_world_ros'  # key under which a recording keeps this
PACKAGES = ('numpy', 'opencv-python-headless', 'openvino', 'mujoco', 'torch',
            'rosbags', 'ros-rclpy')


def environment() -> Dict[str, Any]:
    """
    Describe this process.

    :return: JSON-serialisable: command, time_utc, machine, processor, cores, memory_gib, system,
        python, ros_distro ('' outside of one), git_commit ('' if not known), packages
    """
    return {'command': command_line(sys.argv),
            'time_utc': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
            'machine': platform.machine(), 'processor': _processor(), 'cores': os.cpu_count(),
            'memory_gib': _memory_gib(), 'system': f'{platform.system()} {platform.release()}',
            'python': platform.python_version(), 'ros_distro': os.environ.get('ROS_DISTRO', ''),
            'git_commit': git_commit(Path(__file__).resolve().parents[1]),
            'packages': {PACKAGE: package_version(),
                         **{name: version for name in PACKAGES
                            if (version := _version(name)) is not None}}}


def command_line(argv: Sequence[str]) -> str:
    """
    Return a command the way a shell takes it.

    :param argv: as ``sys.argv``; of the program only the name is told
    :return: one line
    """
    name = Path(argv[0]).name if argv and argv[0] else 'python'
    if name in ('cli.py', '__main__.py', '-c', '-m'):
        name = 'lingbot-world'
    return shlex.join([name, *argv[1:]])


def git_commit(folder: Path) -> str:
    """
    Read which commit is checked out.

    :param folder: of the checkout
    :return: 40 hexadecimal digits, '' where there is no checkout
    """
    git = folder / '.git'
    try:
        if git.is_file():  # a work tree of its own
            git = (folder / git.read_text().partition('gitdir:')[2].strip()).resolve()
        common = git / 'commondir'
        home = (git / common.read_text().strip()).resolve() if common.is_file() else git
        head = (git / 'HEAD').read_text().strip()
        name = head.removeprefix('ref: ')
        if name == head:
            return head
        for place in (git / name, home / name):
            if place.is_file():
                return place.read_text().strip()
        lines = (home / 'packed-refs').read_text().splitlines()
        return next((line.split()[0] for line in lines if line.endswith(f' {name}')), '')
    except (OSError, UnicodeDecodeError):
        return ''


def to_note(about: Dict[str, Any]) -> str:
    """Write a description into one text, as a recording keeps it."""
    return json.dumps(about)


def from_note(text: str) -> Dict[str, Any]:
    """
    Read a description back; recordings are data that somebody sent.

    :param text: what ``to_note`` wrote, or anything
    :return: {} if it is no such text
    """
    try:
        about = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def _processor() -> str:
    lines = _lines('/proc/cpuinfo')
    return next((line.partition(':')[2].strip() for line in lines
                 if line.startswith('model name')), platform.processor() or platform.machine())


def _memory_gib() -> float:
    kib = next((int(line.split()[1]) for line in _lines('/proc/meminfo')
                if line.startswith('MemTotal:')), 0)
    return round(kib / 2 ** 20, 1)


def _lines(path: str) -> List[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
