# SPDX-License-Identifier: Apache-2.0
"""
The words of a session: its states, modes, requests, reasons and faults. No ROS.

Parameters, messages and recorded files carry the text of a word (or the number of a fault), and
whoever reads or writes one converts it; everywhere else these words are compared.
"""
from enum import Enum, IntEnum
from typing import Iterable, Tuple


class TextEnum(str, Enum):
    """A choice that is one word of text outside of the package, and equal to that text."""

    def __str__(self) -> str:
        """Return the text; Python 3.10 would name the class, too."""
        return self.value


class State(TextEnum):
    """How a world is."""

    STOPPED = 'stopped'  # everything reset, time stands still
    PLAYING = 'playing'
    PAUSED = 'paused'  # makes steps that are asked for
    NO_WORLD = 'no_world'
    LOADING = 'loading_world'
    ERROR = 'error'  # the engine failed twice in one step


class Mode(TextEnum):
    """When sim time advances."""

    REALTIME = 'realtime'  # paced to the wall
    STEPPED = 'stepped'  # by steps that are asked for, only
    LOCKSTEP = 'lockstep'  # a step per command


class TimePolicy(TextEnum):
    """What a reset does to sim time."""

    ZERO = 'zero'  # it starts again at zero
    MONOTONIC = 'monotonic'  # it goes on


class Request(TextEnum):
    """What can be asked of a session."""

    LOAD = 'load'
    UNLOAD = 'unload'
    PLAY = 'play'
    PAUSE = 'pause'
    STOP = 'stop'
    RESET = 'reset'
    SET_MODE = 'set_mode'
    ADVANCE = 'advance'
    MOVE = 'move'
    LOOK = 'look'
    SET_PROMPT = 'set_prompt'
    ANCHOR_IMAGE = 'anchor_image'


class Reason(TextEnum):
    """Why a request was refused."""

    NOT_PAUSED = 'not_paused'
    NO_WORLD = 'no_world'
    ALREADY = 'already'
    INTERRUPTED = 'interrupted'  # by a newer request
    ENGINE = 'engine'  # it failed
    MODE = 'mode'
    UNKNOWN = 'unknown'  # a name
    UNSUPPORTED = 'unsupported'  # by this engine


class Fault(IntEnum):
    """Why a world stands in its error state; the numbers are those of WorldStatus.msg."""

    NONE = 0
    FAILED = 1
    DIVERGED = 2
    HUNG = 3
    LOST = 4
    OUT_OF_MEMORY = 5


def texts(words: Iterable[TextEnum]) -> Tuple[str, ...]:
    """Return the texts of words, in their order; for those who offer a choice."""
    return tuple(word.value for word in words)
