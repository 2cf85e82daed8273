# SPDX-License-Identifier: Apache-2.0
"""
In which thread an engine is called, and for how long: one call at a time, each of them watched.

What an engine is called for, and what comes of a call that failed, is not known here.
"""
from collections import deque
import threading
from typing import Any, Callable, Deque, Optional

from lingbot_world_ros.session.clock import WallClock


class Abandoned(BaseException):
    """Ends a thread whose engine came back after it was left behind."""


class Call:
    """A call that somebody waits for; guarded by the session's condition."""

    def __init__(self, do: Callable[[], Any]):
        self.do = do
        self.is_done = self.is_dropped = False
        self.result: Any = None
        self.error: Optional[Exception] = None

    def value(self) -> Any:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result


class _Runner:
    """A thread for the calls of one engine; ends when that is left behind."""

    def __init__(self, wake: threading.Condition):
        self._wake = wake
        self._calls: Deque[Call] = deque()
        self._current: Optional[Call] = None
        self._is_over = False
        self._thread: Optional[threading.Thread] = None

    @property
    def is_idle(self) -> bool:
        return not self._calls and self._current is None

    def submit(self, call: Call) -> None:
        with self._wake:
            self._calls.append(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name='engine', daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def end(self, error: Optional[Exception] = None) -> None:
        """Let the thread end; who waits for a call gets the error."""
        with self._wake:
            self._is_over = True
            for call in filter(None, (self._current, *self._calls)):
                if not call.is_done:
                    call.is_done, call.error = True, error
            self._calls.clear()
            self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._calls or self._is_over)
                if self._is_over:
                    return
                self._current = call = self._calls.popleft()
            try:
                result, error = call.do(), None
            except Abandoned:
                return
            except Exception as raised:  # it belongs to whoever waits
                result, error = None, raised
            with self._wake:
                self._current = None
                if not call.is_done:
                    call.is_done, call.result, call.error = True, result, error
                self._wake.notify_all()


class Calls:
    """
    The calls of one engine, in a thread of their own or in that of whoever waits for them.

    Both kinds of thread are left behind when a call hangs: should it ever come back, ``Abandoned``
    ends the thread.
    """

    def __init__(self, *, wake: threading.Condition, clock: WallClock,
                 timeout_s: Callable[[], float], has_thread: bool):
        """
        Prepare.

        :param wake: told when a call is done; guards what is shared between threads
        :param clock: steady wall clock
        :param timeout_s: asked for how long a call may take
        :param has_thread: calls have a thread of their own, and can go on while nobody waits
        """
        self._wake, self._clock, self._timeout_s = wake, clock, timeout_s
        self._runner = _Runner(wake) if has_thread else None
        self._hangs_ns: Optional[int] = None  # when the call under way counts as hanging
        self._caller: Optional[threading.Thread] = None

    @property
    def is_free(self) -> bool:
        """Whether a call would begin at once."""
        return self._runner is None or self._runner.is_idle

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way."""
        return self._hangs_ns is not None or not self.is_free

    @property
    def has_hung(self) -> bool:
        """Whether the call under way takes longer than it may; with ``wake`` held."""
        return self._hangs_ns is not None and self._clock.now_ns() >= self._hangs_ns

    def wait_for(self, do: Callable[[], Any]) -> Any:
        """Do something when those before it are done, and return what it returns."""
        if self._runner is None:
            return do()
        call = Call(do)
        self._runner.submit(call)
        with self._wake:
            while not call.is_done:
                self._clock.wait(self._wake, None)
        return call.value()

    def begin(self, call: Call) -> None:
        """Do something when those before it are done, and wait for nothing; in a thread only."""
        assert self._runner is not None
        self._runner.submit(call)

    def later(self, do: Callable[[], Any]) -> None:
        """Do something that nobody waits for, if there is a thread that can."""
        if self._runner is not None:
            self._runner.submit(Call(do))

    def watched(self, call: Callable[[], Any], factor: int = 1) -> Any:
        """
        Call the engine.

        :param call: what to call; in the thread in which engines are called
        :param factor: it may take this many times as long as a step
        :return: what it returns
        """
        me = threading.current_thread()
        limit_ns = round(self._timeout_s() * factor * 1e9)
        with self._wake:
            self._caller, self._hangs_ns = me, self._clock.now_ns() + limit_ns
        try:
            return call()
        finally:
            with self._wake:
                if self._caller is not me:
                    raise Abandoned()
                self._hangs_ns = self._caller = None

    def forgive(self) -> None:
        """Watch the call under way no longer: it will end; with ``wake`` held."""
        self._hangs_ns = None

    def leave_behind(self, error: Exception) -> None:
        """Go on without the thread that hangs; who waits gets the error. With ``wake`` held."""
        self._hangs_ns = self._caller = None
        if self._runner is not None:
            self._runner.end(error)
            self._runner = _Runner(self._wake)

    def end(self) -> None:
        """End the thread."""
        if self._runner is not None:
            self._runner.end()
