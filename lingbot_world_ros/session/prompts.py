# SPDX-License-Identifier: Apache-2.0
"""Prompts on their way to the engine: the newest counts, and everybody gets an answer. No ROS."""
from concurrent.futures import Future
import threading
from typing import Callable, List, Optional

from lingbot_world_ros.engines.interface import WorldModel
from lingbot_world_ros.session.notifier import Notifier
from lingbot_world_ros.session.requests import check_request, Refused
from lingbot_world_ros.session.states import Mode, Reason, Request, State
from lingbot_world_ros.session.status import SessionStatus
from lingbot_world_ros.session.supervisor import Supervisor


class _Asked:
    """A prompt and the future of who asked for it; only the first answer counts."""

    def __init__(self, text: str):
        self.text = text
        self.future: Future = Future()
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

    def _settle(self, how: Callable[[], object]) -> None:
        with self._lock:
            if not self.future.done():
                how()


class Prompts:
    """
    Owner of the prompts that were asked for and have no answer yet.

    While steps are made ahead the newest waits until the next one begins. ``ask`` and
    ``cancel_all`` may be called from any thread, the rest by the session's worker.
    """

    def __init__(self, engine: Supervisor, notifier: Notifier,
                 submit: Callable[[Callable[[], None]], Future]):
        """
        Prepare.

        :param engine: takes the prompts
        :param notifier: has the status that answers
        :param submit: lets the worker do something
        """
        self._engine, self._notifier, self._submit = engine, notifier, submit
        self._lock = threading.Lock()
        self._asked: List[_Asked] = []
        self._waiting: Optional[_Asked] = None

    def ask(self, text: str) -> Future:
        """
        Go on with another prompt as soon as the engine can.

        What the engine can prepare ahead is done in a thread of its own.

        :param text: the prompt
        :return: future of the status; ``Refused`` if a newer prompt came first or the engine fails
        """
        asked = _Asked(text)
        with self._lock:
            self._asked = [*(a for a in self._asked if not a.future.done()), asked]
        world = self._engine.world
        if world.spec.can.prepare_prompt:
            threading.Thread(target=self._prepare, args=(world, asked), name='prompt',
                             daemon=True).start()
        else:
            self._submit_take(asked)
        return asked.future

    @property
    def is_waiting(self) -> bool:
        """Whether a prompt waits for the engine."""
        return self._waiting is not None

    def hand_over(self) -> None:
        """Let the engine take the prompt that waits, when it is free."""
        asked, self._waiting = self._waiting, None
        assert asked is not None  # is_waiting said so
        self._engine.set_prompt_later(asked.text, lambda error: self._submit(
            lambda: self._taken(asked, error)))

    def refuse_all(self, error: BaseException) -> None:
        """Say to all why not."""
        self._waiting = None
        for asked in self._asked:
            asked.refuse(error)

    def cancel_all(self) -> None:
        """Say to all that nobody is there any more."""
        for asked in self._asked:
            asked.cancel()

    def _prepare(self, world: WorldModel, asked: _Asked) -> None:
        try:
            world.prepare_prompt(asked.text)
        except Exception as error:  # an engine may fail in any way
            asked.refuse(error)
        else:
            self._submit_take(asked)

    def _submit_take(self, asked: _Asked) -> None:
        def look(job: Future) -> None:
            if job.cancelled():
                return asked.cancel()
            error = job.exception()
            if error is not None:
                asked.refuse(error)
        self._submit(lambda: self._take(asked)).add_done_callback(look)

    def _take(self, asked: _Asked) -> None:
        status = self._notifier.status
        check_request(Request.SET_PROMPT, status)
        if (self._engine.makes_ahead and status.state == State.PLAYING
                and status.mode == Mode.REALTIME):
            return self._wait(asked)
        try:
            self._engine.set_prompt(asked.text)
        except Exception as error:  # an engine may fail in any way
            if self._engine.is_gone:
                raise
            return asked.refuse(error)
        self._taken(asked, None)

    def _wait(self, asked: _Asked) -> None:
        if self._waiting is not None:
            self._waiting.refuse(Refused(Reason.INTERRUPTED,
                                         'A newer prompt took the place of this one.'))
        self._waiting = asked

    def _taken(self, asked: _Asked, error: Optional[Exception]) -> None:
        if error is not None:
            return asked.refuse(error)
        if self._notifier.status.state != State.PLAYING:  # else the step made with it will tell
            self._notifier.tell(prompt=self._engine.conditioning.prompt)
        asked.answer(self._notifier.status)
