# SPDX-License-Identifier: Apache-2.0
"""
The error type for what a user can fix, and those that name how an engine failed.

Everything else is our own mistake.
"""
from typing import Iterable, List

MAX_LISTED = 30
MAX_COMPARED = 100  # characters; comparing more takes time that grows with their square


class SpecError(ValueError):
    """A value the user gave cannot be used; the text says what, got, expected and what to do."""


class EngineDiverged(ArithmeticError):
    """An engine returned values that are not finite."""


class EngineHung(TimeoutError):
    """A step of an engine took longer than it may."""


class EngineLost(ConnectionError):
    """The process of an engine ended."""


def quoted(value: object, limit: int = 120) -> str:
    """
    Quote what came from outside, but no pages of it and on one line.

    :param value: anything with a text
    :param limit: characters that are told
    :return: the text in quotes, cut off where it is long
    """
    text = repr(str(value)[:limit + 1])
    return text if len(text) <= limit + 2 else f'{text[:limit - 2]}...{text[0]}'


def shown(value: object, limit: int = 250) -> str:
    """Return a text without quotes, but on one line and cut off where it is long."""
    return quoted(value, limit)[1:-1]


def unknown_name(kind: str, name: str, known: Iterable[object]) -> SpecError:
    """
    Build the error for a name that is not in a list, with the nearest known one first.

    :param kind: what was named, for example ``'scene'``
    :param name: the name that was given
    :param known: iterable of names that would have been accepted
    :return: the error, to be raised by the caller
    """
    known = sorted(str(k) for k in known)
    hint = did_you_mean(name, known)
    if len(known) > MAX_LISTED:  # a page of names helps nobody
        known = _nearest(name, known, 5, 0.0)
        return SpecError(f'Unknown {kind} {quoted(name)}.{hint} Nearest: {", ".join(known)}.')
    return SpecError(f'Unknown {kind} {quoted(name)}.{hint} Known: {", ".join(known) or "none"}.')


def did_you_mean(name: str, known: Iterable[object]) -> str:
    """
    Ask for the nearest known name.

    :param name: the name that was given
    :param known: iterable of names that would have been accepted
    :return: a sentence with a space before it, '' where none is near
    """
    near = _nearest(name, known, 1, 0.5)
    return f' Did you mean {near[0]!r}?' if near else ''


def _nearest(name: str, known: Iterable[object], count: int, cutoff: float) -> List[str]:
    import difflib
    return difflib.get_close_matches(str(name)[:MAX_COMPARED], [str(k) for k in known], n=count,
                                     cutoff=cutoff)
