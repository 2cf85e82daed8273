# SPDX-License-Identifier: Apache-2.0
"""One parameter of a node or an engine: name, type, range, meaning; how it is read and checked."""
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple, Type

from lingbot_world_ros.errors import quoted, SpecError
from lingbot_world_ros.plain_yaml import (Quoted, read_bool, read_number, read_string, read_whole,
                                          Tree)

READERS: Dict[Type[Any], Callable[[Tree], Any]] = {
    bool: read_bool, int: read_whole, float: read_number, str: read_string}
KINDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text'}


@dataclass(frozen=True)
class Param:
    """
    One parameter; ``choices`` is empty for free text; ``dynamic``: settable while running.

    ``default`` is that of an engine that does not ship; all others are in
    ``config/default.yaml``.
    """

    name: str
    kind: Type[Any]
    description: str
    low: Optional[float] = None
    high: Optional[float] = None
    choices: Tuple[str, ...] = ()
    dynamic: bool = False
    default: Any = None

    def read(self, given: Tree, source: str) -> Any:
        """
        Read a value that somebody typed; text is taken as it is.

        :param given: words of a command line, or a node of YAML
        :param source: file or command line, for the message
        :return: the value, of the declared type
        :raises SpecError: wrong type, outside the range or not a choice
        """
        value = READERS[self.kind](given)
        if value is None:
            raise self._wrong_type(given, source)
        return self.check(value, source)

    def check(self, value: Any, source: str) -> Any:
        """
        Check a value that has a type already.

        :param value: for example of a ROS parameter
        :param source: who gave it, for the message
        :return: the value, a whole number turned into a float where one is wanted
        :raises SpecError: wrong type, outside the range or not a choice
        """
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is not self.kind:
            raise self._wrong_type(value, source)
        if isinstance(value, str):
            _check_characters(self.name, value, source)
        if self.low is not None and self.high is not None and \
                not self.low <= value <= self.high:
            raise SpecError(f'{source}: {self.name}={value!r} is outside {self.low} to '
                            f'{self.high}.')
        if self.choices and value not in self.choices:
            raise SpecError(f'{source}: {self.name}={_told(value)} is not one of '
                            f'{", ".join(self.choices)}.')
        return value

    def _wrong_type(self, value: Any, source: str) -> SpecError:
        hint = ''
        if self.kind is str:  # whoever read it before, which words were typed is not known
            hint = '; in YAML, put it in quotes'
        elif isinstance(value, Quoted):
            hint = '; leave out the quotes'
        return SpecError(f'{source}: {self.name}={_told(value)} is not {KINDS[self.kind]}{hint}.')


def _check_characters(name: str, text: str, source: str) -> None:
    """Refuse text that ROS cannot carry; it would end it at a null character."""
    problem = 'holds a null character' if '\0' in text else ''
    try:
        text.encode()
    except UnicodeEncodeError:
        problem = 'is not in UTF-8'
    if problem:
        raise SpecError(f'{source}: {name}={quoted(text)} {problem}.')


def _told(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)[:120]
