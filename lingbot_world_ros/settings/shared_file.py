# SPDX-License-Identifier: Apache-2.0
"""
Parameter files that nodes of several packages share: what they say to all, and what to one.

A section ``/**`` speaks to every node of a robot, so that it may hold what another one is to know.
No ROS.
"""
from typing import Iterable, Iterator, List, NamedTuple, Set, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.paths import read_text
from lingbot_world_ros.plain_yaml import key_paths

PARAMETERS = 'ros__parameters'
WILDCARDS = ('*', '**')
FILE, PARAM, BEGIN, END = '--params-file', ('-p', '--param'), '--ros-args', '--'
MAX_BYTES = 1 << 20


class Given(NamedTuple):
    """Names of parameters: those that sections for all nodes have, and those meant for one."""

    to_all: Set[str]
    to_node: Set[str]


def given_to(node: str, command_line: Iterable[str]) -> Given:
    """
    Tell what a command line gives to all nodes, and what to one of its process.

    :param node: its name
    :param command_line: of the process, with ``--ros-args``
    :return: names by whom they are for; a file that cannot be read gives nothing
    """
    given = Given(set(), set())
    for word, value in _ros_arguments(command_line):
        if word in PARAM:
            given.to_node.add(value.partition(':=')[0].rpartition(':')[2])
        elif word == FILE:
            for section, name in _names(value):
                if section in WILDCARDS:
                    given.to_all.add(name)
                elif section == node:
                    given.to_node.add(name)
    return given


def _names(path: str) -> List[Tuple[str, str]]:
    """Return the last part of the name of each section, with each name of a parameter in it."""
    try:
        paths = list(key_paths(read_text(path, FILE, MAX_BYTES)))
    except SpecError:  # ROS has a parser of its own, and tells what is wrong
        return []
    found = []
    for keys in paths:
        if PARAMETERS in keys[1:]:
            at = keys.index(PARAMETERS, 1)
            found.append((keys[at - 1].rpartition('/')[2], '.'.join(keys[at + 1:])))
    return found


def _ros_arguments(command_line: Iterable[str]) -> Iterator[Tuple[str, str]]:
    """Yield each word between ``--ros-args`` and ``--`` with the one behind it."""
    words: List[str] = list(command_line)
    is_ros = False
    for word, following in zip(words, words[1:] + ['']):
        is_ros = (is_ros or word == BEGIN) and word != END
        if is_ros:
            yield word, following
