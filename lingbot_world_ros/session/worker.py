# SPDX-License-Identifier: Apache-2.0
"""The thread that does what is asked of a session, and between that what is due. No ROS."""
from collections import deque
from concurrent.futures import Future
import threading
from typing import Callable, Deque, Optional, Protocol, Tuple

from lingbot_world_ros.session.calls import Abandoned
from lingbot_world_ros.session.clock import WallClock
from lingbot_world_ros.session.requests import Refused
from lingbot_world_ros.session.status import SessionStatus

WORKER = 'world'  # name of the thread


class Agenda(Protocol):
    """What the worker does when nobody asks; called by its thread."""

    def due_ns(self) -> Optional[int]:
        """Return the wall time of what comes next; None: not before something has happened."""
        ...

    def do_due(self) -> None:
        """Do what is due."""
        ...

    def answer(self) -> SessionStatus:
        """Return what a request that was granted is answered with."""
        ...

    def fail(self, error: Exception) -> None:
        """Take note of an error that nobody expected."""
        ...

    def end(self) -> None:
        """Tidy up; the last thing that is done."""
        ...


class Worker:
    """
    Does requests one after the other, in the order they came, and tells who asked.

    It is a thread that begins with the first request. A thread that is held up in an engine can
    be left behind: another one goes on with the requests that wait.
    """

    def __init__(self, agenda: Agenda, *, wake: threading.Condition, clock: WallClock):
        """
        Prepare.

        :param agenda: what is done when nobody asks
        :param wake: told when something happens; guards the requests
        :param clock: steady wall clock
        """
        self._agenda, self._wake, self._clock = agenda, wake, clock
        self._requests: Deque[Tuple[Future, Callable[[], None]]] = deque()
        self._answer: Optional[Future] = None  # to what the thread is at
        self._is_closing = False
        self._thread: Optional[threading.Thread] = None

    @property
    def num_waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._requests)

    @property
    def is_closing(self) -> bool:
        """Whether it shall end."""
        return self._is_closing

    @property
    def is_wanted(self) -> bool:
        """Whether something newer waits for what is being done."""
        return self._is_closing or bool(self._requests)

    @property
    def is_this_thread(self) -> bool:
        """Whether the thread that asks is the worker's, and was not left behind."""
        return threading.current_thread() is self._thread

    def submit(self, action: Callable[[], None], answer: Optional[Future] = None) -> Future:
        """
        Let the worker do something.

        :param action: raises ``Refused`` if it cannot be
        :param answer: to be used in place of a new one
        :return: future of the status; cancelled if the worker ends before
        """
        answer = answer or Future()
        with self._wake:
            if self._is_closing:
                answer.cancel()
            else:
                self._requests.append((answer, action))
                if self._thread is None:
                    self._start()
                self._wake.notify_all()
        return answer

    def leave_behind(self) -> Optional[Future]:
        """Go on without a thread that is held up; return what it owes an answer to."""
        with self._wake:
            self._thread = None
            return self._answer

    def go_on(self) -> None:
        """Begin another thread if requests wait."""
        with self._wake:
            if self._requests and not self._is_closing:
                self._start()

    def close(self) -> None:
        """End after what is being done; further requests are cancelled."""
        with self._wake:
            self._is_closing = True
            self._wake.notify_all()

    def join(self, patience_s: float) -> None:
        """Wait so long for the end, and cancel what was asked and not done."""
        with self._wake:
            thread = self._thread
        if thread is not None:
            thread.join(patience_s)
        for answer, _ in self._requests:
            answer.cancel()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name=WORKER, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            while self._work_once():
                pass
        except Abandoned:
            return
        self._agenda.end()

    def _work_once(self) -> bool:
        """Do the next request, or what is due; False when it is time to end."""
        with self._wake:
            self._wait()
            if self._is_closing:
                return False
            self._answer, action = (self._requests.popleft() if self._requests else
                                    (Future(), self._agenda.do_due))
        answer = self._answer
        try:
            action()
        except Refused as refused:
            answer.set_exception(refused)
        except Exception as error:  # the thread's edge: an engine may fail in any way
            self._agenda.fail(error)
            answer.set_exception(error)
        else:
            answer.set_result(self._agenda.answer())
        return True

    def _wait(self) -> None:
        """Sleep until something is wanted or due; with ``wake`` held."""
        while not self.is_wanted:
            due_ns = self._agenda.due_ns()
            if due_ns is not None and self._clock.now_ns() >= due_ns:
                return
            self._clock.wait(self._wake, due_ns)
