# SPDX-License-Identifier: Apache-2.0
"""
One engine of a session, and what is done when it fails: try again, start over, give up. No ROS.

A step that fails is tried once more, from the state before it. An engine whose process is gone is
started over as near as can be to where it was; one that hangs is left behind, and the next reset
makes another. An engine that can take steps back is called in a thread of its own, so that they
are made while others look at the frames; all others in the thread of whoever waits for them.
"""
from dataclasses import dataclass, replace
import threading
from typing import Any, Callable, cast, Dict, Optional, Tuple

from lingbot_world_ros.engines.interface import Observation, Start, State, WorldModel
from lingbot_world_ros.errors import EngineHung, SpecError
from lingbot_world_ros.session.calls import Call, Calls
from lingbot_world_ros.session.clock import WallClock
from lingbot_world_ros.session.conditioning import Conditioning
from lingbot_world_ros.session.faults import check_finite
from lingbot_world_ros.session.frame import moment
from lingbot_world_ros.session.log import Log
from lingbot_world_ros.session.requests import Refused
from lingbot_world_ros.session.states import Reason
from lingbot_world_ros.session.steps import LOADING_FACTOR, Steps
from lingbot_world_ros.worlds.definition import WorldDefinition
import numpy as np


@dataclass(frozen=True)
class MadeStep:
    """
    A step that was made: what it shows and how that came.

    ``note`` tells of a recovery, '' if it went well at once; ``conditioning`` is what it was made
    with.
    """

    observation: Observation
    duration_ns: int
    note: str
    conditioning: Conditioning


class Supervisor:
    """
    Calls the engine and knows what to do when it fails; called by the session's worker.

    ``reset``, ``observe``, ``step`` and the like wait for their answer; ``begin_step`` does not.
    """

    def __init__(self, world: WorldModel, *, wake: threading.Condition, clock: WallClock,
                 log: Log, timeout_s: Callable[[], float],
                 make_world: Optional[Callable[[], WorldModel]] = None,
                 is_watched: Callable[[], bool] = lambda: True,
                 is_wrist_watched: Callable[[], bool] = lambda: False):
        """
        Prepare.

        :param world: the engine
        :param wake: told when a call is done; guards what is shared between threads
        :param clock: steady wall clock
        :param log: told of recoveries
        :param timeout_s: asked for how long a step may take
        :param make_world: makes another engine should this one hang
        :param is_watched: asked before each step whether it takes pictures
        :param is_wrist_watched: asked before each step whether it takes those of a second camera
        """
        self.world, self._make_world, self._is_watched = world, make_world, is_watched
        self._clock, self._log, self._timeout_s = clock, log, timeout_s
        self.makes_ahead = world.spec.frames_per_step > 1 and world.spec.can.undo_step
        self._calls = Calls(wake=wake, clock=clock, timeout_s=timeout_s,
                            has_thread=self.makes_ahead)
        self._steps = Steps(lambda: self.world, self._calls, clock, is_wrist_watched)
        self.conditioning = Conditioning()  # in effect
        self.gone_by: Optional[Exception] = None  # why the engine was left behind
        self._begun: Tuple[Any, ...] = ()  # what the last reset was called with
        self._ahead: Optional[Call] = None
        self._is_touched = False  # the reset under way, if it failed, changed something

    @property
    def is_gone(self) -> bool:
        """Whether the engine hung and was left behind."""
        return self.gone_by is not None

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way."""
        return self._calls.is_busy

    @property
    def is_free(self) -> bool:
        """Whether a call would begin at once."""
        return self._calls.is_free

    @property
    def has_begun(self) -> bool:
        """Whether a step is being made ahead, or was and is not taken yet."""
        return self._ahead is not None

    @property
    def has_made(self) -> bool:
        """Whether the step ahead can be taken, be it to find out how it failed."""
        return self._ahead is not None and self._ahead.is_done

    @property
    def finish_ns(self) -> Optional[int]:
        """How long the engine was busy with the newest step after its frames were there."""
        return self._steps.finish_ns

    # Calls that wait.

    def reset(self, definition: WorldDefinition, seed: int) -> Observation:
        """
        Put the engine at the start of a world; a new engine if the last one was left behind.

        :param definition: the world
        :param seed: start state
        :return: the first observation
        """
        return self._calls.wait_for(lambda: self._reset(definition, seed))

    def observe(self, observation: Observation) -> Observation:
        """
        Make poses the state of the world; its image stays.

        :param observation: t = 1
        :return: the world as it is now
        """
        return self._calls.wait_for(lambda: self._observe(observation))

    def anchor_image(self, observation: Observation) -> Observation:
        """
        Make an observation the state of the world, and go on from its image.

        :param observation: t = 1
        :return: the world as it is now
        :raises SpecError: an image that cannot be used; nothing changed
        """
        return self._calls.wait_for(lambda: self._anchor_image(observation))

    def look(self, seen: Observation) -> Observation:
        """
        Draw a moment after all; the state stays as it is. For engines that can render.

        :param seen: the newest, t = 1, without a picture
        :return: the same with picture and depth
        """
        return self._calls.wait_for(lambda: self._look(seen))

    def step(self, actions: np.ndarray) -> MadeStep:
        """
        Make a step, with a second try if need be.

        :param actions: (1, T, A) float32
        :return: the step
        """
        return self._calls.wait_for(lambda: self._step(actions, lambda: True))

    def set_prompt(self, text: str) -> None:
        """Use another prompt from the next step on."""
        self._calls.wait_for(lambda: self._set_prompt(text))

    def keep(self) -> Any:
        """Return what ``go_back`` takes; before a reset that may fail."""
        self._is_touched = False
        return self._steps.good, self._begun, self.conditioning

    def go_back(self, kept: Any) -> bool:
        """Go back after a reset that failed; False if that is not possible."""
        good, self._begun, self.conditioning = kept
        self._steps.good = good
        if self.is_gone:
            return False
        if self.world.spec.cheap_snapshots:
            self._calls.wait_for(lambda: self.world.restore(good.snapshot))
            return True
        return not self._is_touched

    def close(self) -> None:
        """End the engine, after the call that runs."""
        self.drop()
        self._calls.wait_for(self.world.close)
        self._calls.end()

    # Calls that do not wait; only for an engine that makes its steps ahead.

    def begin_step(self, actions: np.ndarray) -> None:
        """Begin a step; ``has_made`` tells when ``take`` has something."""
        self._ahead = call = Call(lambda: self._step(actions, lambda: not call.is_dropped))
        self._calls.begin(call)
        self._calls.later(lambda: self._finish_wanted(call))

    def take(self) -> MadeStep:
        """Return the step that was made ahead; from now on it cannot be dropped."""
        call, self._ahead = self._ahead, None
        assert call is not None  # has_made said so
        return call.value()

    def drop(self) -> bool:
        """Take back the step ahead, as soon as it is made; return whether there was one."""
        call, self._ahead = self._ahead, None
        if call is None:
            return False
        call.is_dropped = True
        self._calls.later(lambda: self._take_back(call))
        return True

    def finish_later(self) -> None:
        """Do what only the next step needs, before the next call; the step's frames are out."""
        self._calls.later(self._steps.finish)

    def set_prompt_later(self, text: str, then: Callable[[Optional[Exception]], object]) -> None:
        """
        Use another prompt from the next step that begins on.

        :param text: the prompt
        :param then: called by the engine's thread with what went wrong, None if nothing did
        """
        def do() -> None:
            try:
                self._set_prompt(text)
            except Exception as error:  # it belongs to whoever asked
                then(error)
            else:
                then(None)
        self._calls.later(do)

    # From any thread, with ``wake`` held.

    def hung(self) -> Optional[EngineHung]:
        """
        Return why the call under way counts as hanging, None if it does not.

        Kills the engine's process if it has one: then the call ends by itself, and None is
        returned.
        """
        if not self._calls.has_hung:
            return None
        error = EngineHung(f'a step took longer than step_timeout_s={self._timeout_s():g} s')
        if not self.world.spec.can.kill:
            return error
        self._calls.forgive()
        self.world.kill(error)
        return None

    def give_up(self, error: Exception) -> None:
        """Leave a hanging engine behind, and the thread that called it."""
        self.world, self.gone_by = cast(WorldModel, _Gone(self.world)), error
        self._calls.leave_behind(error)

    # What follows runs in the thread in which the engine is called.

    def _reset(self, definition: WorldDefinition, seed: int) -> Observation:
        if self.is_gone:
            if self._make_world is None:
                raise Refused(Reason.ENGINE, 'The engine hung and cannot be made again; restart.')
            self.world, self.gone_by = self._make_world(), None
        spec = self.world.spec
        more: Dict[str, Any] = {}
        if spec.takes_text or spec.takes_images:
            more['start'] = Start(definition.prompt, definition.images, definition.camera)
        try:
            observation = self._calls.watched(
                lambda: self.world.reset(definition.scene, seed, **more), LOADING_FACTOR)
        except Exception as error:
            self._is_touched = not isinstance(error, SpecError)
            raise
        self._is_touched = True
        check_finite(observation)
        self._begun = (definition.scene, seed), more
        self.conditioning = Conditioning(definition.prompt if spec.takes_text else '')
        self._steps.begin()
        if definition.start_pose is not None or definition.joints:
            observation = self._placed(observation, definition)
        self._steps.keep(observation)
        return observation

    def _placed(self, observation: Observation, definition: WorldDefinition) -> Observation:
        """Put the robot where a definition has it."""
        if definition.start_pose is not None:
            observation.base_pose[0, -1] = definition.start_pose
        names = self.world.spec.robot.joint_names
        for joint, position in definition.joints.items():
            observation.joint_position[0, -1, names.index(joint)] = position
        return self._adopted(observation)

    def _observe(self, observation: Observation) -> Observation:
        observation = self._adopted(observation)
        self._steps.keep(observation)
        return observation

    def _adopted(self, observation: Observation) -> Observation:
        """Let the engine take over poses, not the image; where it shows none, that stays."""
        given = replace(observation, rgb=None) if self.world.spec.takes_images else observation
        shown = self._calls.watched(lambda: self.world.observe(given))
        check_finite(shown)
        return shown if shown.rgb is not None else replace(shown, rgb=observation.rgb)

    def _anchor_image(self, observation: Observation) -> Observation:
        observation = self._calls.watched(lambda: self.world.observe(observation), LOADING_FACTOR)
        check_finite(observation)
        self._count_image()
        self._steps.keep(observation)
        return observation

    def _count_image(self) -> None:
        self.conditioning = replace(self.conditioning,
                                    num_images=self.conditioning.num_images + 1)

    def _look(self, seen: Observation) -> Observation:
        shown = self._calls.watched(lambda: self.world.render(State.of(seen)))
        return replace(seen, rgb=shown.rgb, depth_m=shown.depth_m)

    def _set_prompt(self, text: str) -> None:
        self._calls.watched(lambda: self.world.set_prompt(text), LOADING_FACTOR)
        self.conditioning = replace(self.conditioning, prompt=text)

    def _finish_wanted(self, call: Call) -> None:
        """Finish a step that was made ahead, unless it failed or will be taken back."""
        if call.error is None and not call.is_dropped:
            self._steps.finish()

    def _take_back(self, call: Call) -> None:
        """Undo a step that was made ahead for nothing."""
        if call.error is None and not self.is_gone:
            self._steps.take_back()

    def _step(self, actions: np.ndarray, is_wanted: Callable[[], bool]) -> MadeStep:
        """Step the engine; what fails once is tried again."""
        if self._steps.broken_by is not None:
            raise self._steps.broken_by
        started_ns, note = self._clock.now_ns(), ''
        try:
            observation = self._steps.make(actions, render=self._is_watched())
        except Exception as error:  # an engine may fail in any way
            if not is_wanted() or self._steps.broken_by is not None:
                raise
            text = f'{type(error).__name__}: {error}'
            self._log.warning(f'The engine failed; the step is tried once more. {text}')
            note = f'Recovered {self._recover()}. {text}'
            observation = self._steps.make(actions, render=self._is_watched())
        return MadeStep(observation, self._clock.now_ns() - started_ns, note, self.conditioning)

    def _recover(self) -> str:
        """Go back to the state before the step that failed, and say how."""
        if self._steps.restore():
            return 'from the last good state'
        if not self.world.is_lost:
            self._steps.try_again()
            return 'by a second try'
        self._calls.watched(self._restart, LOADING_FACTOR)
        self._steps.restarted()
        if self.world.spec.takes_images:
            return ('in a new process, which goes on from the last image shown and does not '
                    'remember what was before')
        return 'in a new process, which started the world over at the same pose'

    def _restart(self) -> None:
        """Start a world over whose process is gone, as near as can be to where it was."""
        (args, more), good = self._begun, self._steps.good
        assert good is not None  # every step follows a reset
        self.world.reset(*args, **more)
        start = more.get('start', Start())
        if self.conditioning.prompt != start.prompt:
            self.world.set_prompt(self.conditioning.prompt)
        last = moment(good.observation)
        if self.world.spec.takes_images:
            self._count_image()
        else:
            last = replace(last, rgb=None)
        self.world.observe(last)


class _Gone:
    """Stands where an engine was that hangs; only its description is left, nothing calls it."""

    def __init__(self, world: WorldModel):
        can = replace(world.spec.can, prepare_prompt=False)
        self.spec, self.object_names = replace(world.spec, can=can), world.object_names

    def close(self) -> None:
        """Do nothing: the engine is left behind."""
