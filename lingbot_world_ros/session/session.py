# SPDX-License-Identifier: Apache-2.0
"""
A running world: what can be asked of it, and told to it, from any thread.

No ROS. Everything that touches the engine happens in the worker's thread; what is here hands over
and returns at once (a ``Future`` where there is something to wait for). The newest embedding is
read at the last moment before a step, never queued. Sim time is counted in produced frames.
"""
from concurrent.futures import Future
from dataclasses import replace
import threading
from typing import Any, Callable, Optional, Sequence

from lingbot_world_ros.actions.embedding import ActionEmbedding
from lingbot_world_ros.engines.interface import WorldModel
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.session.action_reader import ActionReader
from lingbot_world_ros.session.clock import ClockTicker, SimClock, WallClock
from lingbot_world_ros.session.interventions import Interventions
from lingbot_world_ros.session.latch import EmbeddingSource
from lingbot_world_ros.session.log import Log
from lingbot_world_ros.session.notifier import Notifier
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.player import Player
from lingbot_world_ros.session.prompts import Prompts
from lingbot_world_ros.session.requests import Refused
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Mode, Reason, State
from lingbot_world_ros.session.status import SessionStatus
from lingbot_world_ros.session.supervisor import Supervisor
from lingbot_world_ros.session.transitions import Transitions
from lingbot_world_ros.session.worker import Worker
from lingbot_world_ros.worlds.definition import WorldDefinition
import numpy as np

TIDY_S = 10.0  # for the end of a worker that waits for no step, before it is left behind


class Session:
    """
    Run one engine (batch size 1) in a worker thread.

    States: stopped (everything reset, time stands still), playing, paused (``advance`` makes
    steps), no_world, loading_world, error (the engine failed twice in one step; ``reset``,
    ``stop`` and ``load`` recover). Modes: realtime is paced to the wall, and an engine slower
    than asked for makes sim time run slower; stepped moves by ``advance`` only; lockstep makes a
    step per command, or without one after ``lockstep_timeout_s``. No frame is ever invented or
    repeated. The newest request interrupts steps that are being made.
    """

    def __init__(self, world: WorldModel, spec: SessionSpec, *,
                 observers: Sequence[SessionObserver], log: Log,
                 clock: Optional[WallClock] = None,
                 make_world: Optional[Callable[[], WorldModel]] = None,
                 is_watched: Callable[[], bool] = lambda: True,
                 is_wrist_watched: Callable[[], bool] = lambda: False):
        """
        Prepare; nothing runs before ``start``.

        :param world: the engine, not yet reset
        :param spec: how to run it
        :param observers: told about frames and status
        :param log: a ROS or a Python logger
        :param clock: steady wall clock; tests hand in their own
        :param make_world: makes another engine should this one hang; without it nothing recovers
            from that
        :param is_watched: asked by the worker before each step whether somebody looks; if not,
            its frames come without picture and depth, and only poses count for the digest
        :param is_wrist_watched: asked likewise, for the robot's second camera
        """
        self.spec = spec
        self._clock = clock or WallClock()
        self._wake = threading.Condition()  # guards spec, requests and the calls of the engine
        self._steps: Optional[Future] = None  # the newest that were asked for
        self._engine = Supervisor(world, wake=self._wake, clock=self._clock, log=log,
                                  timeout_s=lambda: self.spec.step_timeout_s,
                                  make_world=make_world, is_watched=is_watched,
                                  is_wrist_watched=is_wrist_watched)
        self._sim = SimClock(world.spec.frame_period_ns)
        self._reader = ActionReader(world.spec, clock=self._clock, wake=self._wake,
                                    is_closing=lambda: self._worker.is_closing)
        self._notifier = Notifier(observers, spec.mode, world.spec.frame_period_ns,
                                  num_rejected=lambda: self._reader.num_rejected)
        tick_ns = round(1e9 / spec.clock_rate_hz) if spec.clock_rate_hz else 0
        self._ticker = ClockTicker(tick_ns, self._notifier.tick, self._clock)
        self._prompts = Prompts(self._engine, self._notifier, self._submit)
        self._player = Player(self._engine, self._reader, self._prompts, self._notifier,
                              get_spec=lambda: self.spec, sim=self._sim, ticker=self._ticker,
                              clock=self._clock)
        self._transitions = Transitions(self._engine, self._player, self._prompts, self._notifier,
                                        get_spec=lambda: self.spec, sim=self._sim,
                                        ticker=self._ticker, log=log)
        self._interventions = Interventions(
            self._engine, self._player, self._notifier, get_spec=lambda: self.spec,
            get_definition=lambda: self._transitions.definition)
        self._worker = Worker(self._transitions, wake=self._wake, clock=self._clock)

    @property
    def world(self) -> WorldModel:
        """The engine; another one after it hung."""
        return self._engine.world

    @property
    def status(self) -> SessionStatus:
        """The newest status; safe from any thread."""
        return self._notifier.status

    @property
    def sim_ns(self) -> int:
        """Sim time of the newest frame, nanoseconds."""
        return self._sim.now_ns

    @property
    def definition(self) -> Optional[WorldDefinition]:
        """The loaded world; None without one."""
        return self._transitions.definition

    @property
    def origin(self) -> np.ndarray:
        """Where odometry counts from, (3,) x, y [m], yaw [rad] in the scene frame."""
        return self._player.origin

    def entities(self) -> dict:
        """Return name -> EntityState of robot and movable objects; empty without a world."""
        return self._interventions.entities()

    def start(self, definition: WorldDefinition) -> Future:
        """
        Load the first world and begin; the future is done when the first frame has left.

        :param definition: the world
        :return: future of the status
        :raises SpecError: unknown scene
        """
        self._check_scene(definition.scene)
        started = self._submit(lambda: self._transitions.load(definition))
        state = self.spec.initial_state
        if state == State.PLAYING and self.spec.mode != Mode.STEPPED:
            self.play()
        elif state != State.STOPPED:
            self.pause()
        return started

    def close(self, patience_s: Optional[float] = None) -> None:
        """
        End the worker after the step it is in; further requests are cancelled.

        An engine that takes longer is left behind, and its thread ends with the process; so is
        one that does not end within ``TIDY_S`` when it is told to.

        :param patience_s: how long to wait for that step; None is as long as a step may take
        """
        self._worker.close()
        limit_s = self.spec.step_timeout_s if patience_s is None else patience_s
        self._worker.join(limit_s if self._engine.is_busy else max(limit_s, TIDY_S))
        self._prompts.cancel_all()
        self._ticker.close()

    def load(self, definition: WorldDefinition) -> Future:
        """
        Replace the world; afterwards it is stopped. If that fails the old one goes on.

        :param definition: the world
        :return: future of the status
        :raises SpecError: unknown scene; nothing changed
        """
        self._check_scene(definition.scene)
        return self._submit(lambda: self._transitions.load(definition))

    def unload(self) -> Future:
        """Drop the world; the future's result is the new status."""
        return self._submit(self._transitions.unload)

    def play(self) -> Future:
        """Let sim time run; the future's result is the new status."""
        return self._submit(self._transitions.play)

    def pause(self) -> Future:
        """
        Stop after the step in progress, whose frames leave at once.

        :return: future of the new status
        """
        return self._submit(self._transitions.pause)

    def stop(self) -> Future:
        """Pause and start over; the future's result is the new status."""
        return self._submit(self._transitions.stop)

    def reset(self, *, time: bool = True, state: bool = True,
              seed: Optional[int] = None) -> Future:
        """
        Start a world over; it goes on playing if it was playing.

        :param time: sim time starts again at zero (policy monotonic: it goes on)
        :param state: robot and objects go back to the start
        :param seed: start state; None repeats the last one
        :return: future of the new status
        :raises SpecError: negative seed; nothing changed
        """
        if seed is not None and seed < 0:
            raise SpecError(f'seed={seed} must be 0 or more.')
        return self._submit(lambda: self._transitions.reset(time, state, seed))

    def set_mode(self, mode: Mode) -> Future:
        """
        Let sim time advance in another way, after the step in progress; commands are forgotten.

        A world that plays goes on playing, but for stepped: then it is paused, and stays so until
        ``play`` in another mode. Like every request it interrupts steps that are being made.

        :param mode: realtime, stepped or lockstep; its text will do
        :return: future of the new status
        :raises SpecError: unknown mode; nothing changed
        """
        mode = replace(self.spec, mode=mode).mode  # checks it
        return self._submit(lambda: self._transitions.set_mode(mode, self.change_spec))

    def change_spec(self, **values: Any) -> None:
        """
        Run the world with other values from now on; ``set_mode`` is for the mode.

        :param values: of ``SessionSpec``, by name
        :raises SpecError: no session can run with them; nothing changed
        """
        with self._wake:  # the worker changes the mode
            self.spec = replace(self.spec, **values)

    def set_seed(self, seed: int) -> None:
        """Use another start state from the next reset on."""
        self._transitions.next_seed = seed

    def advance(self, num_steps: int = 1, on_step: Optional[Callable[[int, int], None]] = None,
                should_stop: Callable[[], bool] = lambda: False) -> Future:
        """
        Make steps while paused, as fast as the engine goes.

        :param num_steps: how many, at least 1
        :param on_step: called by the worker with steps done and steps left, after each
        :param should_stop: asked between steps
        :return: future of the new status; ``Refused`` if the world is not paused or the steps
            were interrupted
        """
        if num_steps < 1:
            raise SpecError(f'num_steps={num_steps} must be at least 1.')
        steps: Future = Future()
        with self._wake:
            if self._steps is not None and not self._steps.done():
                return _refused(Reason.NOT_PAUSED, 'The world is making the steps of another '
                                'request; wait for its answer.')
            self._steps = steps
        self._reader.catch_up()
        return self._worker.submit(lambda: self._transitions.advance(
            num_steps, on_step, is_over=lambda: self._worker.is_wanted or should_stop(),
            is_left_behind=lambda: not self._worker.is_this_thread), steps)

    def move(self, entity: str, pose: Optional[np.ndarray] = None,
             twist: Optional[np.ndarray] = None) -> Future:
        """
        Put something elsewhere. Odometry does not notice: its origin moves along.

        :param entity: name out of ``entities``
        :param pose: (3,) x, y [m], yaw [rad] in the scene frame; None leaves it
        :param twist: (3,) v_x, v_y [m/s], w_z [rad/s] in base_link, robot only; None leaves it
        :return: future of the new status
        """
        if not self.world.spec.takes_poses:
            return _refused(Reason.UNSUPPORTED, f'Nothing can be moved in a world of the engine '
                            f'{self.world.spec.engine!r}: it is imagined from images, not from '
                            'poses.')
        return self._submit(lambda: self._interventions.move(entity, pose, twist))

    def look(self) -> Future:
        """
        Draw the newest frame if it came without a picture, for who has begun to look since.

        Observers are told of it by ``on_drawn``; an engine that cannot ``render`` draws nothing.

        :return: future of the status
        """
        return self._submit(self._interventions.look)

    def set_prompt(self, text: str) -> Future:
        """
        Go on with another prompt, from the next step that begins; until the next reset.

        :param text: the prompt
        :return: future of the status, done when the engine has taken it; ``Refused`` if the
            engine takes none or a newer prompt came first
        """
        if not self.world.spec.takes_text:
            return _refused(Reason.UNSUPPORTED, f'The engine {self.world.spec.engine!r} takes no '
                            'prompt.')
        return self._prompts.ask(text)

    def anchor_image(self, rgb: np.ndarray) -> Future:
        """
        Go on from an image; robot and sim time stay as they are.

        :param rgb: (h, w, 3) uint8 of any size, as seen by the world's camera
        :return: future of the new status; ``Refused`` if the engine takes no images
        :raises SpecError: no such image; nothing changed
        """
        if not self.world.spec.takes_images:
            return _refused(Reason.UNSUPPORTED, f'The engine {self.world.spec.engine!r} takes no '
                            'images.')
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
            raise SpecError(f'anchor_image: got {rgb.dtype} of shape {rgb.shape}, expected uint8 '
                            'of (height, width, 3).')
        rgb = rgb.copy()
        return self._submit(lambda: self._interventions.anchor_image(rgb))

    def link(self, source: EmbeddingSource) -> None:
        """Ask this encoder for an embedding before each step; before ``start``."""
        self._reader.source = source

    def set_embedding(self, embedding: ActionEmbedding) -> None:
        """
        Put an embedding where the next step will find it, replacing the one before.

        :param embedding: what the robot shall do
        :raises SpecError: it does not fit this world; counted, nothing changed
        """
        self._reader.put(embedding)
        self._notify()

    def command_arrived(self, accepted: int) -> None:
        """
        Tell of a command that the linked encoder has taken over.

        :param accepted: how many it took over since it was started
        """
        self._reader.command_arrived(accepted)
        if self.spec.mode == Mode.LOCKSTEP:
            self._notify()

    def latencies_s(self) -> np.ndarray:
        """Return command-to-frame latencies of the last five seconds, (n,) float64 seconds."""
        return self._reader.latencies_s()

    def check_engine(self) -> None:
        """Look whether the engine hangs, and if so give it up; to be called every now and then."""
        with self._wake:
            error = self._engine.hung()
            if error is None:
                return
            self._engine.give_up(error)
            if self._engine.makes_ahead:  # the worker is none of its threads, and will see
                return
            answer = self._worker.leave_behind()
        self._transitions.fail(error)
        if answer is not None:
            answer.set_exception(error)
        self._worker.go_on()

    def _check_scene(self, scene: str) -> None:
        if scene not in self.world.spec.scenes:
            raise unknown_name('scene', scene, self.world.spec.scenes)

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _submit(self, action: Callable[[], None]) -> Future:
        return self._worker.submit(action)


def _refused(reason: Reason, text: str) -> Future:
    future: Future = Future()
    future.set_exception(Refused(reason, text))
    return future
