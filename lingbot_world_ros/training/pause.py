# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C between two steps of a training run instead of within one."""
import signal
import threading
from types import FrameType
from typing import Any, Optional


class Pause:
    """
    Holds back an interruption until a step is whole; a context manager.

    The first one is noted, a second one comes at once, and so does each outside the main thread.
    """

    def __init__(self) -> None:
        """Begin with nobody asking."""
        self.is_asked = False
        self._before: Any = None

    def __enter__(self) -> 'Pause':
        is_ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        if threading.current_thread() is threading.main_thread() and not is_ignored:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: Optional[FrameType]) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True

    def take(self) -> None:
        """
        Interrupt now if that was asked for; to be called when all is saved.

        :raises KeyboardInterrupt: it was
        """
        if self.is_asked:
            raise KeyboardInterrupt
