# SPDX-License-Identifier: Apache-2.0
"""
How a session calls its engine: one call at a time, watched, tried again after a fault.

An engine that makes its steps ahead (``makes_ahead``) is called in a thread of its own, all others
in the thread of the session's worker. Both kinds of thread are given up when a call hangs.
"""
from collections import deque
from dataclasses import dataclass, replace
import threading
from typing import Callable, Optional

from lingbot_world_ros.engines.interface import Observation, Start, WorldModel
from lingbot_world_ros.errors import EngineDiverged, EngineHung, SpecError
from lingbot_world_ros.session.clock import WallClock
from lingbot_world_ros.session.faults import check_finite
from lingbot_world_ros.session.requests import Refused
from lingbot_world_ros.session.states import Reason
from lingbot_world_ros.worlds.definition import WorldDefinition
import numpy as np

LOADING_FACTOR = 12  # loading a world may take this many times as long as a step


class Abandoned(BaseException):
    """Ends a thread whose engine came back after it was given up."""


@dataclass(frozen=True)
class Made:
    """
    A step that was made: what it shows and how that came.

    ``note`` is empty if it went well at once; ``prompt`` and ``num_images`` (put in since the
    reset) are what it was made with.
    """

    observation: Observation
    duration_ns: int
    note: str
    prompt: str
    num_images: int


@dataclass(frozen=True)
class _Good:
    """What to go back to when a step fails."""

    observation: Observation
    snapshot: object  # None where snapshots are not cheap
    is_step: bool  # not yet finished when the snapshot was taken


class Call:
    """A call of the engine that is waited for; guarded by the session's condition."""

    def __init__(self, do: Callable[[], object]):
        self.do = do
        self.is_done = self.is_dropped = False
        self.result = self.error = None

    def value(self):
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result


class _Runner:
    """The thread in which an engine made ahead is called; ends when it is given up."""

    def __init__(self, wake: threading.Condition):
        self._wake = wake
        self._calls = deque()
        self._current: Optional[Call] = None
        self._is_over = False
        self.thread: Optional[threading.Thread] = None

    @property
    def is_idle(self) -> bool:
        return not self._calls and self._current is None

    def submit(self, call: Call) -> None:
        with self._wake:
            self._calls.append(call)
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name='engine', daemon=True)
                self.thread.start()
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

    def _run(self):
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


class Engine:
    """
    One engine of one session; called by the session's worker, if not said otherwise.

    ``reset``, ``observe``, ``step`` and the like wait for their answer; ``begin_step`` does not.
    """

    def __init__(self, world: WorldModel, *, wake: threading.Condition, clock: WallClock, log,
                 timeout_s: Callable[[], float],
                 make_world: Optional[Callable[[], WorldModel]] = None,
                 is_watched: Callable[[], bool] = lambda: True):
        """
        Prepare.

        :param world: the engine
        :param wake: told when a call is done; guards what is shared between threads
        :param clock: steady wall clock
        :param log: object with ``warning``
        :param timeout_s: asked for how long a step may take
        :param make_world: makes another engine should this one hang
        :param is_watched: asked before each step whether it takes pictures
        """
        self.world, self._is_watched = world, is_watched
        self._wake, self._clock, self._log = wake, clock, log
        self._timeout_s, self._make_world = timeout_s, make_world
        self.makes_ahead = world.spec.frames_per_step > 1 and world.spec.can.undo_step
        self._finishes = world.spec.can.finish_step
        self._runner = _Runner(wake) if self.makes_ahead else None
        self._busy_until_ns: Optional[int] = None  # when the call that runs counts as hanging
        self._caller: Optional[threading.Thread] = None
        self._begun = ()  # what the last reset was called with
        self._good: Optional[_Good] = None
        self._before: Optional[_Good] = None  # the newest step, to take it back
        self._ahead: Optional[Call] = None
        self._is_touched = False  # the reset under way, if it failed, changed something
        self._is_unfinished = False
        self._finish_error: Optional[Exception] = None
        self._broken_by: Optional[Exception] = None  # a step could not be taken back
        self.gone_by: Optional[Exception] = None  # why the engine was given up
        self.finish_ns: Optional[int] = None  # that the newest finish_step took
        self.prompt, self.num_images = '', 0  # in effect; put in since the reset

    @property
    def is_gone(self) -> bool:
        """Whether the engine hung and was given up."""
        return self.gone_by is not None

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way."""
        return self._busy_until_ns is not None or not self.is_free

    @property
    def is_free(self) -> bool:
        """Whether a call would begin at once."""
        return self._runner is None or self._runner.is_idle

    @property
    def has_begun(self) -> bool:
        """Whether a step is being made ahead, or was and is not taken yet."""
        return self._ahead is not None

    @property
    def has_made(self) -> bool:
        """Whether the step ahead can be taken, be it to find out how it failed."""
        return self._ahead is not None and self._ahead.is_done

    # Calls that wait.

    def reset(self, definition: WorldDefinition, seed: int) -> Observation:
        """
        Put the engine at the start of a world; a new engine if the last one was given up.

        :param definition: the world
        :param seed: start state
        :return: the first observation
        """
        return self._call(lambda: self._reset(definition, seed))

    def observe(self, observation: Observation, is_image: bool = False) -> Observation:
        """
        Make an observation the state of the world.

        :param observation: t = 1
        :param is_image: its image is to be gone on from, too
        :return: the world as it is now
        """
        return self._call(lambda: self._observe(observation, is_image))

    def look(self, seen: Observation) -> Observation:
        """
        Draw a moment after all; the state stays as it is. For engines with cheap snapshots.

        :param seen: the newest, t = 1, without a picture
        :return: the same with picture and depth
        """
        def draw():
            before = self.world.snapshot()
            shown = self._guarded(lambda: self.world.observe(seen))
            self._guarded(lambda: self.world.restore(before))
            return replace(seen, rgb=shown.rgb, depth_m=shown.depth_m)
        return self._call(draw)

    def step(self, actions: np.ndarray) -> Made:
        """
        Make a step, with a second try if need be.

        :param actions: (1, T, A) float32
        :return: the step
        """
        return self._call(lambda: self._make(actions, lambda: True))

    def set_prompt(self, text: str) -> None:
        """Use another prompt from the next step on."""
        self._call(lambda: self._set_prompt(text))

    def keep(self):
        """Return what ``go_back`` takes; before a reset that may fail."""
        self._is_touched = False
        return self._good, self._begun, self.prompt, self.num_images

    def go_back(self, kept) -> bool:
        """Go back after a reset that failed; False if that is not possible."""
        self._good, self._begun, self.prompt, self.num_images = kept
        if self.is_gone:
            return False
        if self.world.spec.cheap_snapshots:
            self._call(lambda: self.world.restore(self._good.snapshot))
            return True
        return not self._is_touched

    def close(self) -> None:
        """End the engine, after the call that runs."""
        self.drop()
        self._call(self.world.close, is_watched=False)
        if self._runner is not None:
            self._runner.end()

    # Calls that do not wait; only for an engine that makes its steps ahead.

    def begin_step(self, actions: np.ndarray) -> None:
        """Begin a step; ``has_made`` tells when ``take`` has something."""
        self._ahead = call = Call(lambda: self._make(actions, lambda: not call.is_dropped))
        self._runner.submit(call)
        self._runner.submit(Call(lambda: self._is_wanted(call) and self._finish()))

    def take(self) -> Made:
        """Return the step that was made ahead; from now on it cannot be dropped."""
        call, self._ahead = self._ahead, None
        return call.value()

    def drop(self) -> bool:
        """Take back the step ahead, as soon as it is made; return whether there was one."""
        call, self._ahead = self._ahead, None
        if call is None:
            return False
        call.is_dropped = True
        self._runner.submit(Call(lambda: self._take_back(call)))
        return True

    def finish_later(self) -> None:
        """Do what only the next step needs, before the next call; the step's frames are out."""
        if self._runner is not None:
            self._runner.submit(Call(self._finish))

    def set_prompt_later(self, text: str, then: Callable[[Optional[Exception]], None]) -> None:
        """
        Use another prompt from the next step that begins on.

        :param text: the prompt
        :param then: called by the engine's thread with what went wrong, None if nothing did
        """
        def do():
            try:
                self._set_prompt(text)
            except Exception as error:  # it belongs to whoever asked
                then(error)
            else:
                then(None)
        self._runner.submit(Call(do))

    # From any thread.

    def hung(self) -> Optional[EngineHung]:
        """
        Return why the call under way counts as hanging, None if it does not.

        Kills the engine's process if it has one: then the call ends by itself, and None is
        returned. With ``wake`` held.
        """
        if self._busy_until_ns is None or self._clock.now_ns() < self._busy_until_ns:
            return None
        error = EngineHung(f'a step took longer than step_timeout_s={self._timeout_s():g} s')
        if self.world.spec.can.kill:
            self._busy_until_ns = None
            self.world.kill(error)
            return None
        return error

    def give_up(self, error: Exception) -> None:
        """Leave a hanging engine behind, and its thread; with ``wake`` held."""
        self._busy_until_ns = self._caller = None
        self.world, self.gone_by = _Gone(self.world), error
        if self._runner is not None:
            self._runner.end(error)
            self._runner = _Runner(self._wake)

    # What follows runs in the thread in which the engine is called.

    def _call(self, do, is_watched=True):
        if self._runner is None:
            return do()
        call = Call(do)
        self._runner.submit(call)
        with self._wake:
            while not call.is_done:
                self._clock.wait(self._wake, None)
        return call.value()

    def _guarded(self, call, factor=1):
        """Call the engine; whoever watches may give up this thread meanwhile."""
        me = threading.current_thread()
        limit_ns = round(self._timeout_s() * factor * 1e9)
        with self._wake:
            self._caller, self._busy_until_ns = me, self._clock.now_ns() + limit_ns
        try:
            return call()
        finally:
            with self._wake:
                if self._caller is not me:
                    raise Abandoned()
                self._busy_until_ns = self._caller = None

    def _reset(self, definition, seed):
        if self.is_gone:
            if self._make_world is None:
                raise Refused(Reason.ENGINE, 'The engine hung and cannot be made again; restart.')
            self.world, self.gone_by = self._make_world(), None
        spec = self.world.spec
        more = {'start': Start(definition.prompt, definition.images, definition.camera)
                } if spec.takes_text or spec.takes_images else {}
        try:
            observation = self._guarded(
                lambda: self.world.reset(definition.scene, seed, **more), LOADING_FACTOR)
        except Exception as error:
            self._is_touched = not isinstance(error, SpecError)
            raise
        self._is_touched = True
        check_finite(observation)
        self._begun = (definition.scene, seed), more
        self.prompt, self.num_images = definition.prompt if spec.takes_text else '', 0
        self._is_unfinished, self._finish_error, self._broken_by = False, None, None
        if definition.start_pose is not None or definition.joints:
            observation = self._placed(observation, definition)
        self._keep(observation)
        return observation

    def _placed(self, observation, definition):
        """Put the robot where a definition has it."""
        if definition.start_pose is not None:
            observation.base_pose[0, -1] = definition.start_pose
        names = self.world.spec.robot.joint_names
        for joint, position in definition.joints.items():
            observation.joint_position[0, -1, names.index(joint)] = position
        return self._adopted(observation)

    def _observe(self, observation, is_image):
        if is_image:
            observation = self._guarded(lambda: self.world.observe(observation), LOADING_FACTOR)
            check_finite(observation)
            self.num_images += 1
        else:
            observation = self._adopted(observation)
        self._keep(observation)
        return observation

    def _adopted(self, observation):
        """Let the engine take over poses, not the image; where it shows none, that stays."""
        given = replace(observation, rgb=None) if self.world.spec.takes_images else observation
        shown = self._guarded(lambda: self.world.observe(given))
        check_finite(shown)
        return shown if shown.rgb is not None else replace(shown, rgb=observation.rgb)

    def _keep(self, observation, is_step=False):
        """Remember what to go back to."""
        cheap = self.world.spec.cheap_snapshots
        self._before = self._good
        self._good = _Good(observation, self.world.snapshot() if cheap else None, is_step)

    def _make(self, actions, is_wanted) -> Made:
        """Step the engine; what fails once is tried again."""
        if self._broken_by is not None:
            raise self._broken_by
        started_ns, note = self._clock.now_ns(), ''
        try:
            observation = self._good_step(actions)
        except Exception as error:  # an engine may fail in any way
            if not is_wanted() or self._broken_by is not None:
                raise
            text = f'{type(error).__name__}: {error}'
            self._log.warning(f'The engine failed; it goes back and tries once more. {text}')
            note = f'Recovered {self._recover()}. {text}'
            observation = self._good_step(actions)
        return Made(observation, self._clock.now_ns() - started_ns, note, self.prompt,
                    self.num_images)

    def _good_step(self, actions):
        self._finish()
        if self._finish_error is not None:
            raise self._finish_error
        unseen = {} if self._is_watched() else {'render': False}
        observation = self._guarded(lambda: self.world.step(actions, **unseen))
        try:
            check_finite(observation)
        except EngineDiverged as error:
            if not self.world.spec.cheap_snapshots:
                self._disown(error)
            raise
        self._is_unfinished = self._finishes
        self._keep(observation, is_step=True)
        return observation

    def _disown(self, error):
        """Take back a step that was made, but badly; no snapshot can do that."""
        if self.world.spec.can.undo_step:
            self._guarded(self.world.undo_step)
        else:
            self._broken_by = error

    def _finish(self):
        """Do what the next step needs, unless that is done; the next step tells of a failure."""
        if not self._is_unfinished:
            return
        started_ns, self._is_unfinished, self._finish_error = self._clock.now_ns(), False, None
        try:
            self._guarded(self.world.finish_step)
        except Exception as error:  # an engine may fail in any way
            self._finish_error = error
        self.finish_ns = self._clock.now_ns() - started_ns

    def _recover(self) -> str:
        """Go back to the state before the step that failed, and say how."""
        if self.world.spec.cheap_snapshots:
            self._guarded(lambda: self.world.restore(self._good.snapshot), LOADING_FACTOR)
            self._is_unfinished = self._finishes and self._good.is_step
            self._finish_error = None
            return 'from the last good state'
        if self.world.is_lost:
            self._guarded(self._restart, LOADING_FACTOR)
            self._is_unfinished, self._finish_error = False, None
            return self._restarted_text()
        self._is_unfinished = self._finish_error is not None
        return 'by a second try'

    def _restart(self):
        """Start a world over whose process is gone, as near as can be to where it was."""
        args, more = self._begun
        self.world.reset(*args, **more)
        start = more.get('start', Start())
        if self.prompt != start.prompt:
            self.world.set_prompt(self.prompt)
        last = moment(self._good.observation)
        if not self.world.spec.takes_images:
            last = replace(last, rgb=None)
        else:
            self.num_images += 1
        self.world.observe(last)

    def _restarted_text(self):
        if self.world.spec.takes_images:
            return ('in a new process, which goes on from the last image shown and does not '
                    'remember what was before')
        return 'in a new process, which started the world over at the same pose'

    def _is_wanted(self, call):
        return call.error is None and not call.is_dropped

    def _take_back(self, call):
        """Undo a step that was made for nothing."""
        if call.error is not None or self.is_gone:
            return
        try:
            self._guarded(self.world.undo_step)
        except Exception as error:  # an engine may fail in any way; the next step tells
            if not self.world.is_lost:
                self._broken_by = error
        self._good, self._is_unfinished, self._finish_error = self._before, False, None

    def _set_prompt(self, text):
        self._guarded(lambda: self.world.set_prompt(text), LOADING_FACTOR)
        self.prompt = text


def moment(observation: Observation, t: int = -1) -> Observation:
    """
    Cut one frame out of an observation.

    :param observation: t >= 1
    :param t: which frame
    :return: the same with t = 1; views, nothing is copied
    """
    index = t % observation.base_pose.shape[1]
    return Observation(**{name: None if value is None else value[:, index:index + 1]
                          for name, value in vars(observation).items() if name != 'extra'})


class _Gone:
    """Stands where an engine was that hangs; only its description is left."""

    def __init__(self, world):
        can = replace(world.spec.can, prepare_prompt=False)
        self.spec, self.object_names = replace(world.spec, can=can), world.object_names

    def close(self):
        """Do nothing: the engine is left behind."""
