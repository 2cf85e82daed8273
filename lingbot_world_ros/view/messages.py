# SPDX-License-Identifier: Apache-2.0
"""What a page may send: checked here before anything acts on it. Pure."""
from dataclasses import dataclass
import json
from math import isfinite
from typing import Any, Callable, Dict, Mapping, Optional, Union

from lingbot_world_ros.errors import quoted, SpecError, unknown_name
from lingbot_world_ros.session.states import Mode, texts

MAX_BYTES = 16384  # of one message
MAX_JOINTS = 64
MAX_STEPS = 1000
MAX_TEXT = 4000
MAX_SEED = 2 ** 31 - 1
MODES = texts(Mode)


@dataclass(frozen=True)
class Drive:
    """Motion asked for until the next word, each a share from -1 to 1 of what the robot can."""

    linear: float
    angular: float
    joints: Mapping[str, float]
    lateral: float = 0.0  # to the left, of a robot that strafes

    @property
    def is_stop(self) -> bool:
        """Whether nothing shall move."""
        return not (self.linear or self.angular or self.lateral or any(self.joints.values()))


@dataclass(frozen=True)
class Joint:
    """A joint shall go to a position, rad or m."""

    name: str
    position: float


@dataclass(frozen=True)
class Show:
    """Which pictures beside the colour image a page wants to see."""

    depth: bool
    truth: bool


@dataclass(frozen=True)
class WorldRequest:
    """Something shall happen to the world; ``value`` is what it takes, None for nothing."""

    id: int
    what: str
    value: object = None


@dataclass(frozen=True)
class Signal:
    """One of stop, take, release, ping; ``t`` comes back with the answer to a ping."""

    kind: str
    t: Optional[float] = None


Message = Union[Drive, Joint, Show, WorldRequest, Signal]
Content = Mapping[str, Any]  # a JSON object


def parse(text: str) -> Message:
    """
    Read a message of a page.

    :param text: JSON
    :return: what it says
    :raises SpecError: it is none of these, or a number is missing, not finite or out of range
    """
    if len(text) > MAX_BYTES:
        raise SpecError(f'A message of {len(text)} characters is longer than {MAX_BYTES}.')
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f'Not JSON: {error}.') from error
    if not isinstance(content, dict):
        raise SpecError('A message is a JSON object.')
    kind = content.get('type')
    if not isinstance(kind, str) or kind not in READERS:
        raise unknown_name('type', str(kind), READERS)
    return READERS[kind](content)


def _drive(content: Content) -> Drive:
    joints = content.get('joints', {})
    if not isinstance(joints, dict) or len(joints) > MAX_JOINTS:
        raise SpecError(f'drive: joints is no object of at most {MAX_JOINTS} numbers.')
    return Drive(_number(content, 'linear', 1.0), _number(content, 'angular', 1.0),
                 {name: _number(joints, name, 1.0) for name in joints},
                 _number(content, 'lateral', 1.0) if 'lateral' in content else 0.0)


def _joint(content: Content) -> Joint:
    return Joint(_text(content, 'name'), _number(content, 'position', 1e6))


def _show(content: Content) -> Show:
    return Show(content.get('depth') is True, content.get('truth') is True)


def _signal(content: Content) -> Signal:
    return Signal(content['type'], _number(content, 't', 1e15) if 't' in content else None)


def _do(content: Content) -> WorldRequest:
    what = content.get('what')
    if not isinstance(what, str) or what not in VALUES:
        raise unknown_name('what', str(what), VALUES)
    return WorldRequest(_whole(content, 'id', 0, 2 ** 53), what, VALUES[what](content))


def _number(content: Content, name: str, highest: float) -> float:
    value: Any = content.get(name)
    # In this order: isfinite takes no whole number that is too large for a float.
    if type(value) not in (int, float) or abs(value) > highest or not isfinite(value):
        raise SpecError(f'{quoted(str(name))} is {value!r:.40}, not a number from {-highest:g} to '
                        f'{highest:g}.')
    return float(value)


def _whole(content: Content, name: str, low: int, high: int) -> int:
    value = content.get(name)
    if type(value) is not int or not low <= value <= high:
        raise SpecError(f'{name} is {value!r:.40}, not a whole number from {low} to {high}.')
    return value


def _text(content: Content, name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str) or len(value) > MAX_TEXT or not _is_unicode(value):
        raise SpecError(f'{name} is not text of at most {MAX_TEXT} characters.')
    return value


def _is_unicode(text: str) -> bool:
    """Tell whether a text can leave as UTF-8; JSON may hold half a character."""
    return not any('\ud800' <= character <= '\udfff' for character in text)


def _mode(content: Content) -> str:
    mode = content.get('mode')
    if not isinstance(mode, str) or mode not in MODES:
        raise unknown_name('mode', str(mode), MODES)
    return mode


VALUES: Dict[str, Callable[[Content], Any]] = {
    'pause': lambda content: None, 'play': lambda content: None,
    'step': lambda content: _whole(content, 'steps', 1, MAX_STEPS),
    'reset': lambda content: (_whole(content, 'seed', 0, MAX_SEED)
                              if content.get('seed') is not None else None),
    'load': lambda content: _text(content, 'world'), 'mode': _mode,
    'prompt': lambda content: _text(content, 'text'),
    'seed': lambda content: _whole(content, 'seed', 0, MAX_SEED)}
READERS: Dict[str, Callable[[Content], Message]] = {
    'drive': _drive, 'joint': _joint, 'show': _show, 'do': _do, 'stop': _signal, 'take': _signal,
    'release': _signal, 'ping': _signal}
