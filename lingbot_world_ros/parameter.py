# SPDX-License-Identifier: Apache-2.0
"""One parameter of a node or an engine: name, type, range and meaning, and how it is checked."""
from dataclasses import dataclass
from typing import Any, Optional, Tuple, Type

from lingbot_world_ros.errors import quoted, SpecError

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

    def check(self, value: Any, source: str) -> Any:
        """
        Check a value and bring it to the declared type.

        :param value: as read from YAML or the command line
        :param source: file or command line, for the message
        :return: the value, a whole number turned into a float or text where one is wanted
        :raises SpecError: wrong type, outside the range or not a choice
        """
        if self.kind is float and type(value) is int:
            value = float(value)
        if self.kind is str and type(value) is int:  # what YAML makes of prompt:=1984
            value = str(value)
        if type(value) is not self.kind:
            raise SpecError(f'{source}: {self.name}={_told(value)} is not '
                            f'{KINDS[self.kind]}.')
        if self.low is not None and self.high is not None and \
                not self.low <= value <= self.high:
            raise SpecError(f'{source}: {self.name}={value!r} is outside {self.low} to '
                            f'{self.high}.')
        if self.choices and value not in self.choices:
            raise SpecError(f'{source}: {self.name}={_told(value)} is not one of '
                            f'{", ".join(self.choices)}.')
        return value


def _told(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)[:120]
