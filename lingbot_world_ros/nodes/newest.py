# SPDX-License-Identifier: Apache-2.0
"""Requests that replace each other: one is under way, of those that come meanwhile one waits."""
from concurrent.futures import Future
import threading
from typing import Any, Callable, Tuple


class NewestOnly:
    """
    Hand requests over one at a time; only the newest of those that came meanwhile follows.

    ``put`` may be called from any thread, and the end of a request may come from another one.
    """

    def __init__(self, submit: Callable[[Any], Future], on_error: Callable[[BaseException], None],
                 may_start: Callable[[], bool] = lambda: True):
        """
        Prepare.

        :param submit: called with a request; returns a concurrent future, or raises
        :param on_error: called with what a request failed with
        :param may_start: whether a request may be handed over now, else it waits for ``go_on``
        """
        self._submit, self._on_error, self._may_start = submit, on_error, may_start
        self._lock = threading.Lock()  # guards what is below
        self._is_busy = False
        self._waiting: Tuple[Any, ...] = ()  # none or one

    def put(self, request: Any) -> None:
        """Hand a request over now, or as soon as the one before it is done."""
        with self._lock:
            self._waiting = (request,)
        self.go_on()

    def go_on(self) -> None:
        """Hand over what waits, if nothing is under way and it may start by now."""
        with self._lock:
            if self._is_busy or not self._waiting or not self._may_start():
                return
            (request,), self._waiting = self._waiting, ()
            self._is_busy = True
        self._start(request)

    def _start(self, request: Any) -> None:
        try:
            future = self._submit(request)
        except Exception as error:  # told like any other failure, and the next one follows
            self._on_error(error)
            self._next()
        else:
            future.add_done_callback(self._done)

    def _done(self, future: Future) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._on_error(error)
        self._next()

    def _next(self) -> None:
        with self._lock:
            self._is_busy = False
        self.go_on()
