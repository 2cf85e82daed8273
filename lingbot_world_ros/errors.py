# SPDX-License-Identifier: Apache-2.0
"""The one error type for what a user can fix; everything else is our own mistake."""

MAX_LISTED = 30


class SpecError(ValueError):
    """A value the user gave cannot be used; the text says what, got, expected and what to do."""


def unknown_name(kind: str, name: str, known) -> SpecError:
    """
    Build the error for a name that is not in a list, with the nearest known one first.

    :param kind: what was named, for example ``'scene'``
    :param name: the name that was given
    :param known: iterable of names that would have been accepted
    :return: the error, to be raised by the caller
    """
    import difflib
    known = sorted(str(k) for k in known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    if len(known) > MAX_LISTED:  # a page of names helps nobody
        known = difflib.get_close_matches(str(name), known, n=5, cutoff=0.0)
        return SpecError(f'Unknown {kind} {name!r}.{hint} Nearest: {", ".join(known)}.')
    return SpecError(f'Unknown {kind} {name!r}.{hint} Known: {", ".join(known) or "none"}.')
