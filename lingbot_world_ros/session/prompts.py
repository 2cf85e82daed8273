# SPDX-License-Identifier: Apache-2.0
"""Prompts that were asked for: the newest waits for the engine, and everybody gets an answer."""
from concurrent.futures import Future
import threading
from typing import Callable, Optional

from lingbot_world_ros.session.requests import Refused
from lingbot_world_ros.session.states import Reason
from lingbot_world_ros.session.status import SessionStatus


class Asked:
    """A prompt and the future of who asked for it; only the first answer counts."""

    def __init__(self, text: str):
        self.text = text
        self.future = Future()
        self._lock = threading.Lock()

    def answer(self, status: SessionStatus) -> None:
        """Say that the engine has taken it."""
        self._settle(lambda: self.future.set_result(status))

    def refuse(self, error: BaseException) -> None:
        """Say why not."""
        refused = error if isinstance(error, Refused) else Refused(
            Reason.ENGINE, f'The prompt stays as it was: {type(error).__name__}: {error}')
        self._settle(lambda: self.future.set_exception(refused))

    def cancel(self) -> None:
        """Say that nobody is there any more."""
        self._settle(self.future.cancel)

    def _settle(self, how):
        with self._lock:
            if not self.future.done():
                how()


class Prompts:
    """All prompts without an answer; safe from any thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self._asked = []
        self._waiting: Optional[Asked] = None

    def ask(self, text: str) -> Asked:
        """Take note that somebody asks for a prompt."""
        asked = Asked(text)
        with self._lock:
            self._asked = [*(a for a in self._asked if not a.future.done()), asked]
        return asked

    def prepare(self, asked: Asked, prepare: Optional[Callable[[str], None]],
                then: Callable[[Asked], None]) -> None:
        """
        Do the slow part of a prompt, in a thread of its own, and go on.

        :param asked: the prompt
        :param prepare: the slow part; None if there is none
        :param then: called afterwards, at once if there is no slow part
        """
        def run():
            try:
                prepare(asked.text)
            except Exception as error:  # an engine may fail in any way
                asked.refuse(error)
            else:
                then(asked)
        if prepare is None:
            then(asked)
        else:
            threading.Thread(target=run, name='prompt', daemon=True).start()

    @property
    def is_waiting(self) -> bool:
        """Whether a prompt waits for the engine."""
        return self._waiting is not None

    def wait(self, asked: Asked) -> None:
        """Let a prompt wait for the engine, instead of the one that waits already."""
        if self._waiting is not None:
            self._waiting.refuse(Refused(Reason.INTERRUPTED,
                                         'A newer prompt took the place of this one.'))
        self._waiting = asked

    def pop(self) -> Asked:
        """Return the one that waits, for the engine."""
        asked, self._waiting = self._waiting, None
        return asked

    def refuse_all(self, error: BaseException) -> None:
        """Say to all why not."""
        self._waiting = None
        for asked in self._asked:
            asked.refuse(error)

    def cancel_all(self) -> None:
        """Say to all that nobody is there any more."""
        for asked in self._asked:
            asked.cancel()
