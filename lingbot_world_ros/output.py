# SPDX-License-Identifier: Apache-2.0
"""
Standard output and error of a process, which can be lost at any moment.

Who reads a pipe leaves, a disk is full, a terminal is closed. A command whose work is what it
prints ends then; a world, a recording or a page goes on. Error output is never worth an end.
"""
import errno
import io
import os
import sys
from typing import Any, Optional, Sequence, TextIO

CLOSED_PIPE = 141  # exit code of a command that SIGPIPE ends, as shells tell it
UNWRITABLE = 1
INDENT, WIDTH, ROWS = 11, 80, 2  # of a list that is told at a start: it fits a small terminal


class OutputLost(Exception):
    """What a command prints cannot be written any more."""

    def __init__(self, error: OSError) -> None:
        """Note why; a reader who has left, as ``head`` does, has seen enough."""
        super().__init__(f'standard output cannot be written: {error.strerror}')
        self.is_closed_pipe = error.errno == errno.EPIPE


def begin_output(is_needed: bool = True) -> None:
    """
    Take over standard output and error, before anything is printed.

    What a test has put in their place stays.

    :param is_needed: losing standard output raises ``OutputLost``, once; else what cannot be
        written is dropped, and what comes later is tried again
    """
    _fill_gaps()
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(1, '<stdout>', sys.stdout, is_needed)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(2, '<stderr>', sys.stderr, False)
    if not is_needed:
        outlive_output()


def outlive_output() -> None:
    """Go on should standard output be lost: what this process does is not what it prints."""
    if isinstance(sys.stdout, _Stream):
        sys.stdout.raw.is_needed = False


class _Output(io.RawIOBase):
    """A file descriptor that takes everything, whether it can be written or not."""

    def __init__(self, fd: int, name: str, is_needed: bool) -> None:
        self._fd, self.name, self.is_needed = fd, name, is_needed

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast('B')
        size = len(rest)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest):]
        except OSError as error:
            if self.is_needed:
                self.is_needed = False  # told once; the interpreter tries again at its end
                raise OutputLost(error) from error
        return size


class _Stream(io.TextIOWrapper):
    """Text for such a file descriptor; characters that its encoding lacks are spelled out."""

    def __init__(self, raw: _Output, buffer: Any, **options: Any) -> None:
        super().__init__(buffer, errors='backslashreplace', **options)
        self.raw = raw


def _stream(fd: int, name: str, before: Optional[TextIO], is_needed: bool) -> _Stream:
    """Make a stream that is buffered as the one before it was."""
    raw = _Output(fd, name, is_needed)
    is_unbuffered = getattr(before, 'write_through', False)
    return _Stream(raw, raw if is_unbuffered else io.BufferedWriter(raw),
                   encoding=getattr(before, 'encoding', 'utf-8'), write_through=is_unbuffered,
                   line_buffering=getattr(before, 'line_buffering', False))


def _fill_gaps() -> None:
    """Open what was closed before the start, ``>&-``: else another file would take its place."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def told(label: str, names: Sequence[str]) -> str:
    """
    Put a list behind a label, in rows that fit a small terminal.

    :param label: shorter than ``INDENT``
    :param names: none of them is cut; the last ones are counted where there are many
    :return: at most ``ROWS`` lines
    """
    lines, rest = [label.ljust(INDENT)], list(names)
    while rest:
        more = f' and {len(rest)} more' if len(lines) == ROWS else ''
        is_new = lines[-1].endswith(' ')
        space = WIDTH - 1 - len(lines[-1]) - (len(more) if len(rest) > 1 else 0)
        if is_new or len(rest[0]) < space:
            lines[-1] += rest.pop(0) if is_new else f' {rest.pop(0)}'
        elif more:
            return '\n'.join(lines) + more
        else:
            lines.append(' ' * INDENT)
    return '\n'.join(lines)
