# SPDX-License-Identifier: Apache-2.0
"""
The filter of names in simulation_interfaces/EntityFilters: a POSIX extended regular expression.

RE2 matches it, in time linear in the name. Python's own ``re`` backtracks: one hostile pattern
would hold the whole process.
"""
from lingbot_world_ros.errors import shown, SpecError
from lingbot_world_ros.paths import pip_install

MAX_PATTERN = 200  # characters
MAX_MEMORY = 2 ** 20  # bytes of a compiled pattern; RE2 keeps the last 128 of them


class NameFilter:
    """A compiled pattern; it matches anywhere in a name unless anchored with ^ and $."""

    def __init__(self, pattern: str):
        """
        Compile.

        :param pattern: POSIX extended regular expression
        :raises SpecError: not one, or too large; or RE2 is not installed
        """
        try:
            import re2
        except ImportError as error:
            raise SpecError('A filter of names needs the Python package google-re2: '
                            f'{pip_install("google-re2")}.') from error
        if len(pattern) > MAX_PATTERN:
            raise SpecError(f'The filter has {len(pattern)} characters; at most {MAX_PATTERN} '
                            'are allowed.')
        options = re2.Options()
        options.posix_syntax = options.one_line = options.dot_nl = options.never_capture = True
        options.log_errors = False
        options.max_mem = MAX_MEMORY
        try:
            self._search = re2.compile(_utf8(pattern), options).search
        except re2.error as error:
            why = error.args[0].decode(errors='replace')
            raise SpecError(f'The filter {pattern!r} cannot be used as a POSIX extended regular '
                            f'expression: {shown(why)}.') from error

    def matches(self, name: str) -> bool:
        """Say whether a name fits."""
        return self._search(_utf8(name)) is not None


def _utf8(text: str) -> bytes:
    """Encode what may hold half a surrogate pair, which UTF-8 has not."""
    return text.encode(errors='replace')
