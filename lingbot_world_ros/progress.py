# SPDX-License-Identifier: Apache-2.0
"""
How verbs and training scripts show progress: bars on stderr, lines where that is no terminal.

Library code does not use it, but takes a callback such as ``Progress.show`` or ``Progress.add``.
"""
import shutil
import sys
import time
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Protocol, TextIO

DELAY_S = 1.0  # what is done sooner shows nothing
LOG_PERIOD_S = 30.0  # between status lines in a log where nothing changes
LINE_PERIOD_S = 5.0  # between lines where stderr is no terminal
MANY = 10_000  # more of something than this are bytes


class Spinner(Protocol):
    """Waits, and says when it is time to end."""

    def wait(self, timeout_s: float) -> bool:
        """Return True once it is."""


def show_until_end(spinner: Spinner, tell: Callable[[], str], duration_s: Optional[float] = None,
                   is_over: Callable[[], bool] = lambda: False,
                   kind: Callable[[], object] = lambda: None) -> None:
    """
    Show how it goes, until the end.

    :param spinner: says when it is time to end
    :param tell: returns a line, each second
    :param duration_s: end after this many seconds of wall time; None: do not
    :param is_over: asked after each line whether to end
    :param kind: returns what makes a line worth a place in a log at once, when it changes
    """
    status = StatusLine()
    end_s = float('inf') if duration_s is None else time.monotonic() + duration_s
    while True:
        ended = spinner.wait(min(1.0, max(0.0, end_s - time.monotonic())))
        line = tell()
        ended = ended or is_over() or time.monotonic() >= end_s
        status.show(line, kind(), is_last=ended)
        if ended:
            return status.end()


class StatusLine:
    """
    A line on standard output that changes.

    On a terminal it replaces the one before; an ellipsis ends it where the terminal is too narrow.
    In a log it appears at first, when its kind changes, every 30 s, and at last.
    """

    def __init__(self) -> None:
        self._on_terminal = sys.stdout.isatty()
        self._is_open = False
        self._kind: object = None
        self._shown_s = float('-inf')

    def show(self, line: str, kind: object = None, is_last: bool = False) -> None:
        """
        Show how it goes now.

        :param line: replaces the one before
        :param kind: anything that can be compared
        :param is_last: nothing will follow
        """
        now_s = time.monotonic()
        if self._on_terminal:
            # The cursor goes back, so that a warning begins a line of its own.
            width = shutil.get_terminal_size().columns - 1
            line = line if len(line) <= width else f'{line[:width - 1]}…'
            print(f'{line}\x1b[K', end='\r', flush=True)
            self._is_open = True
        elif is_last or kind != self._kind or now_s >= self._shown_s + LOG_PERIOD_S:
            print(line, flush=True)
            self._kind, self._shown_s = kind, now_s

    def end(self) -> None:
        """Let what comes next begin a line of its own."""
        if self._is_open:
            print()
        self._is_open = False


class Progress:
    """One bar per kind of work; a context manager."""

    def __init__(self, unit: str = 'step', totals: Optional[Mapping[str, int]] = None,
                 file: Optional[TextIO] = None) -> None:
        """
        Begin with no bar.

        :param unit: what is counted
        :param totals: kind of work -> how much of it there is, for ``add``
        :param file: where to; stderr without it
        """
        self._unit, self._totals = unit, totals or {}
        self._file = file if file is not None else sys.stderr
        self._bar: Any = None  # of tqdm
        self._what: Optional[str] = None
        self._done: Dict[str, int] = {}

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def add(self, what: str, number: int = 1) -> None:
        """
        Count what was done.

        :param what: kind of work
        :param number: done since the last call
        """
        self.show(what, self._done.get(what, 0) + number, self._totals.get(what))

    def show(self, what: str, done: int, total: Optional[int] = None) -> None:
        """
        Show how far it is.

        :param what: kind of work; one that was interrupted by another goes on
        :param done: how much of it is done
        :param total: how much there is, None if nobody knows; bytes where it is a lot
        """
        if done < self._done.get(what, 0):  # the same once more
            self._what, self._done[what] = None, 0
        if what != self._what:
            self._close()
            self._what = what
            self._bar = self._open(what, total, self._done.get(what, 0))
        self._bar.update(done - self._done.get(what, 0))
        self._done[what] = done

    def clear(self) -> None:
        """Make room for other words on a terminal; the bar comes back with the next progress."""
        if self._bar is not None and self._file.isatty():
            self._bar.clear()

    def _open(self, what: str, total: Optional[int], initial: int) -> Any:
        kind = ({'unit': 'B', 'unit_scale': True} if total is not None and total > MANY else
                {'unit': f' {self._unit}'})
        return progress_bar(desc=what, total=total, initial=initial, file=self._file, **kind)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.leave = self._bar.total is None or self._bar.n == self._bar.total
            self._bar.close()
            self._bar = None


class Loading:
    """A callback with bytes read and bytes in all; it can be sent to another process."""

    def __init__(self, what: str = 'loading') -> None:
        """
        Begin with no bar.

        :param what: is loaded
        """
        self._what = what
        self._progress: Optional[Progress] = None

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is; at the end the bar goes."""
        if self._progress is None:
            self._progress = Progress()
        self._progress.show(self._what, done, total)
        if done >= total:
            self._progress.__exit__()
            self._progress = None


def progress_bar(iterable: Optional[Iterable[Any]] = None, *, file: Optional[TextIO] = None,
                 **options: Any) -> Any:
    """
    Make a tqdm bar as this package shows them.

    :param iterable: to be counted, None for a bar that is updated
    :param file: where to; stderr without it
    :param options: of tqdm
    :return: the bar; a context manager
    """
    from tqdm import tqdm
    file = sys.stderr if file is None else file
    options = {'delay': DELAY_S, **options}
    if file.isatty():
        return tqdm(iterable, file=file, dynamic_ncols=True, **options)
    options.pop('mininterval', None)
    return tqdm(iterable, file=_Lines(file), ncols=0, mininterval=LINE_PERIOD_S,
                maxinterval=LINE_PERIOD_S, **options)


class _Lines:
    """A file in which each picture of a bar is a line of its own."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        text = text.replace('\r', '').strip()
        if text:
            self._file.write(f'{text}\n')

    def flush(self) -> None:
        self._file.flush()

    def isatty(self) -> bool:
        return False


class Stages:
    """One bar for each stage of a long work, on standard error; a context manager."""

    def __init__(self, names: Mapping[str, str]) -> None:
        """
        Begin with no bar.

        :param names: stage -> what to call it
        """
        self._names, self._what = names, ''
        self._bar: Any = None

    def __enter__(self) -> 'Stages':
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def told(self) -> str:
        """What is being done, and how far it is; '' before anything is."""
        if self._bar is None:
            return ''
        name = self._names.get(self._what, self._what)
        share = self._bar.n / self._bar.total if self._bar.total else 0.0
        return f'{name}, {100 * share:.0f} %' if share else name

    def __call__(self, what: str, done: int, total: int) -> None:
        """
        Show how far a stage is.

        :param what: the stage
        :param done: of it
        :param total: of it
        """
        if what != self._what:
            self.__exit__()
            self._what = what
            self._bar = progress_bar(total=total, desc=self._names.get(what, what),
                                     mininterval=1.0, bar_format='{desc}: {percentage:3.0f}% '
                                     '{elapsed} of about {elapsed}<{remaining}')
        self._bar.update(done - self._bar.n)
