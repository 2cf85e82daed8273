# SPDX-License-Identifier: Apache-2.0
"""
A running world: one worker thread that owns an engine, steps it and hands out its frames.

No ROS. Everything that touches the engine happens in the worker; the other methods hand over and
return at once (a ``Future`` where there is something to wait for). The newest embedding is read
at the last moment before a step, never queued. Sim time is counted in produced frames.
"""
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, replace
import threading
import traceback
from typing import Callable, Optional, Sequence, Tuple

from lingbot_world_ros.actions.embedding import ActionEmbedding
from lingbot_world_ros.engines.interface import Observation, WorldModel
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.session.action_reader import ActionReader, Latched
from lingbot_world_ros.session.clock import ClockTicker, SimClock, WallClock
from lingbot_world_ros.session.engine import Abandoned, Engine, Made, moment
from lingbot_world_ros.session.entities import (anchor_of, compose, entities_of, inverse,
                                                with_object_at, with_robot_at)
from lingbot_world_ros.session.faults import fault_of
from lingbot_world_ros.session.frame import frame_digest, frame_of
from lingbot_world_ros.session.latch import EmbeddingLatch, EmbeddingSource, FrameMeter
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.pacing import BEGIN, CATCH_UP_NS, ChunkPacer, FRAME
from lingbot_world_ros.session.prompts import Prompts
from lingbot_world_ros.session.requests import check_request, Refused
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Mode, Reason, Request, State, TimePolicy
from lingbot_world_ros.session.status import SessionStatus
from lingbot_world_ros.worlds.definition import WorldDefinition
import numpy as np

LATENCY_WINDOW_NS = 5_000_000_000
WORKER = 'world'  # name of the worker's thread
MESSAGE_STEPS = 75  # a recovery is told for this many steps


@dataclass
class _Showing:
    """A step whose frames are leaving."""

    latched: Latched
    made: Made
    num_shown: int = 0

    @property
    def num_left(self):
        return self.made.observation.base_pose.shape[1] - self.num_shown


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
                 observers: Sequence[SessionObserver], log, clock: Optional[WallClock] = None,
                 make_world: Optional[Callable[[], WorldModel]] = None,
                 is_watched: Callable[[], bool] = lambda: True):
        """
        Prepare; nothing runs before ``start``.

        :param world: the engine, not yet reset
        :param spec: how to run it
        :param observers: told about frames and status
        :param log: object with ``info``, ``warning``, ``error`` (a ROS or a Python logger)
        :param clock: steady wall clock; tests hand in their own
        :param make_world: makes another engine should this one hang; without it nothing recovers
            from that
        :param is_watched: asked by the worker before each step whether somebody looks; if not,
            its frames come without picture and depth, and only poses count for the digest
        """
        self.spec = spec
        self._observers, self._log = observers, log
        self._clock = clock or WallClock()
        self._sim = SimClock(world.spec.frame_period_ns)
        tick_ns = round(1e9 / spec.clock_rate_hz) if spec.clock_rate_hz else 0
        self._ticker = ClockTicker(tick_ns, self._tell_clock, clock)
        self._status = SessionStatus(State.NO_WORLD, spec.mode)
        self._wake = threading.Condition()  # guards what is below, up to the blank line
        self._jobs = deque()
        self._job: Optional[Future] = None  # that the worker is at
        self._steps_asked = False
        self._closing = False
        self._engine = Engine(world, wake=self._wake, clock=self._clock, log=log,
                              timeout_s=lambda: self.spec.step_timeout_s, make_world=make_world,
                              is_watched=is_watched)

        self._latch, self._meter, self._prompts = EmbeddingLatch(), FrameMeter(), Prompts()
        self._reader = ActionReader(world.spec, self._latch, clock=self._clock, wake=self._wake,
                                    is_closing=lambda: self._closing)
        self._rejected_embeddings = 0
        self._definition: Optional[WorldDefinition] = None
        self._observation: Optional[Observation] = None  # newest shown, None without a world
        self._showing: Optional[_Showing] = None
        self._ahead: Optional[Latched] = None  # what the step ahead acts on
        self._pacer = ChunkPacer(world.spec.frames_per_step)
        self._origin = np.zeros(3)  # of odometry, scene frame
        self._resume, self._due_ns = State.PAUSED, 0
        self._begun: Optional[SessionStatus] = None  # as told at the newest reset
        self._anchor: Tuple[float, ...] = ()
        self._next_seed: Optional[int] = None
        self._message_until_step = 0
        self._thread: Optional[threading.Thread] = None

    @property
    def world(self) -> WorldModel:
        """The engine; another one after it hung."""
        return self._engine.world

    @property
    def status(self) -> SessionStatus:
        """The newest status; safe from any thread."""
        return self._status

    @property
    def sim_ns(self) -> int:
        """Sim time of the newest frame, nanoseconds."""
        return self._sim.now_ns

    @property
    def definition(self) -> Optional[WorldDefinition]:
        """The loaded world; None without one."""
        return self._definition

    @property
    def origin(self) -> np.ndarray:
        """Where odometry counts from, (3,) x, y [m], yaw [rad] in the scene frame."""
        return self._origin

    def entities(self) -> dict:
        """Return name -> EntityState of robot and movable objects; empty without a world."""
        seen, definition = self._observation, self._definition
        if seen is None or definition is None:
            return {}
        return entities_of(seen, self.spec.entity_name,
                           self.world.object_names(definition.scene))

    def start(self, definition: WorldDefinition) -> Future:
        """
        Load the first world and begin; the future is done when the first frame has left.

        :param definition: the world
        :return: future of the status
        :raises SpecError: unknown scene
        """
        self._check_scene(definition.scene)
        started = self._submit(lambda: self._load(definition))
        state = self.spec.initial_state
        if state == State.PLAYING and self.spec.mode != Mode.STEPPED:
            self.play()
        elif state != State.STOPPED:
            self.pause()
        return started

    def close(self, patience_s: Optional[float] = None) -> None:
        """
        End the worker after the step it is in; further requests are cancelled.

        :param patience_s: how long to wait for that step; None is as long as a step may take.
            An engine that takes longer is left behind, and its thread ends with the process
        """
        with self._wake:
            self._closing = True
            self._wake.notify_all()
            thread = self._thread
        if thread is not None:
            limit_s = self.spec.step_timeout_s if patience_s is None else patience_s
            thread.join(limit_s if self._engine.is_busy else None)
        for job, _ in self._jobs:
            job.cancel()
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
        return self._submit(lambda: self._load(definition))

    def unload(self) -> Future:
        """Drop the world; the future's result is the new status."""
        return self._submit(self._unload)

    def play(self) -> Future:
        """Let sim time run; the future's result is the new status."""
        return self._submit(self._play)

    def pause(self) -> Future:
        """
        Stop after the step in progress, whose frames leave at once if the next is made ahead.

        :return: future of the new status
        """
        return self._submit(self._pause)

    def stop(self) -> Future:
        """Pause and start over; the future's result is the new status."""
        return self._submit(self._stop)

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
        return self._submit(lambda: self._reset(time, state, seed))

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
        return self._submit(lambda: self._set_mode(mode))

    def change_spec(self, **values) -> None:
        """
        Run the world with other values from now on; ``set_mode`` is for the mode.

        :param values: of ``SessionSpec``, by name
        :raises SpecError: no session can run with them; nothing changed
        """
        with self._wake:  # the worker changes the mode
            self.spec = replace(self.spec, **values)

    def set_seed(self, seed: int) -> None:
        """Use another start state from the next reset on."""
        self._next_seed = seed

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
        with self._wake:
            if self._steps_asked:
                return _refused(Reason.NOT_PAUSED, 'The world is making the steps of another '
                                'request; wait for its answer.')
            self._steps_asked = True
        if self._reader.source is not None:
            self._reader.source.catch_up()
        return self._submit(lambda: self._advance(num_steps, on_step, should_stop))

    def move(self, entity: str, pose=None, twist=None) -> Future:
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
        return self._submit(lambda: self._move(entity, pose, twist))

    def look(self) -> Future:
        """
        Draw the newest frame if it came without a picture, for who has begun to look since.

        Observers are told of it by ``on_drawn``; an engine without cheap snapshots draws nothing.

        :return: future of the status
        """
        return self._submit(self._look)

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
        asked = self._prompts.ask(text)
        prepare = self.world.prepare_prompt if self.world.spec.can.prepare_prompt else None
        self._prompts.prepare(asked, prepare, self._submit_prompt)
        return asked.future

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
        return self._submit(lambda: self._anchor_image(rgb))

    def link(self, source: EmbeddingSource) -> None:
        """Ask this encoder for an embedding before each step; before ``start``."""
        self._reader.source = source

    def set_embedding(self, embedding: ActionEmbedding) -> None:
        """
        Put an embedding where the next step will find it, replacing the one before.

        :param embedding: what the robot shall do
        :raises SpecError: it does not fit this world; counted, nothing changed
        """
        try:
            self._reader.check(embedding)
        except SpecError:
            self._rejected_embeddings += 1
            raise
        self._latch.put(embedding, self._clock.now_ns())
        self._notify()

    def command_arrived(self, accepted: int) -> None:
        """
        Tell of a command that the linked encoder has taken over.

        :param accepted: how many it took over since it was started
        """
        self._latch.command_arrived(accepted, self._clock.now_ns())
        if self.spec.mode == Mode.LOCKSTEP:
            self._notify()

    def latencies_s(self) -> np.ndarray:
        """Return command-to-frame latencies of the last five seconds, (n,) float64 seconds."""
        return self._latch.latencies_s(self._clock.now_ns() - LATENCY_WINDOW_NS)

    def check_engine(self) -> None:
        """Look whether the engine hangs, and if so give it up; to be called every now and then."""
        with self._wake:
            error = self._engine.hung()
            if error is None:
                return
            self._engine.give_up(error)
            if self._engine.makes_ahead:  # the worker is none of its threads, and will see
                return
            job, self._thread = self._job, None
        self._fail(error)
        if job is not None:
            job.set_exception(error)
        with self._wake:
            self._steps_asked = False
            if self._jobs and not self._closing:
                self._start_thread()

    def _check_scene(self, scene):
        if scene not in self.world.spec.scenes:
            raise unknown_name('scene', scene, self.world.spec.scenes)

    def _notify(self):
        with self._wake:
            self._wake.notify_all()

    def _submit(self, action) -> Future:
        future = Future()
        with self._wake:
            if self._closing:
                future.cancel()
            else:
                self._jobs.append((future, action))
                if self._thread is None:
                    self._start_thread()
                self._wake.notify_all()
        return future

    def _start_thread(self):
        self._thread = threading.Thread(target=self._work, name=WORKER, daemon=True)
        self._thread.start()

    def _submit_prompt(self, asked):
        def look(job):
            if job.cancelled():
                asked.cancel()
            elif job.exception() is not None:
                asked.refuse(job.exception())
        self._submit(lambda: self._set_prompt(asked)).add_done_callback(look)

    # What follows runs in the worker thread only.

    def _work(self):
        try:
            while self._work_once():
                pass
        except Abandoned:
            return
        self._settle()
        self._engine.close()
        self._ticker.finish()
        self._tell_status(state=State.STOPPED)

    def _work_once(self) -> bool:
        """Do the next request or the step that is due; False when it is time to end."""
        with self._wake:
            while not (self._closing or self._jobs or self._is_due()):
                self._clock.wait(self._wake, self._wait_until_ns())
            if self._closing:
                return False
            self._job, action = self._jobs.popleft() if self._jobs else (Future(),
                                                                         self._due_step)
        job = self._job
        try:
            action()
        except Refused as refused:
            job.set_exception(refused)
        except Exception as error:  # the thread's edge: an engine may fail in any way
            self._fail(error)
            job.set_exception(error)
        else:
            job.set_result(self._status)
        return True

    def _is_due(self):
        state = self._status.state
        if self._engine.is_gone and state in (State.PLAYING, State.PAUSED, State.STOPPED):
            return True  # with a call that nobody waited for
        if state != State.PLAYING:
            return False
        if self.spec.mode == Mode.LOCKSTEP and self._latch.pending >= self.spec.lockstep_commands:
            return True
        due_ns = self._wait_until_ns()
        return due_ns is not None and self._clock.now_ns() >= due_ns

    def _wait_until_ns(self):
        if self._status.state != State.PLAYING:
            return None
        return self._turn().due_ns if self._makes_ahead else self._due_ns

    @property
    def _makes_ahead(self):
        """Whether steps are made while the frames of the one before leave."""
        return self._engine.makes_ahead and self.spec.mode == Mode.REALTIME

    def _turn(self):
        return self._pacer.turn(0 if self._showing is None else self._showing.num_left,
                                self._engine.has_begun, self._engine.has_made,
                                self._engine.is_free)

    def _settle(self):
        """End the step in progress at once; the one ahead is taken back as soon as it is made."""
        if self._engine.drop():
            self._latch.give_back(self._ahead.since_ns)
        self._show_rest()
        self._pacer.start_over()
        if self._prompts.is_waiting:
            self._hand_over_prompt()

    def _load(self, definition):
        self._settle()
        before, kept = self._status, self._engine.keep()
        self._tell_status(state=State.LOADING, frame_rate_hz=0.0, real_time_factor=0.0)
        try:
            observation = self._engine.reset(definition, definition.seed)
        except Exception as error:
            if before.state in (State.NO_WORLD, State.ERROR) or not self._engine.go_back(kept):
                self._tell_status(state=before.state)
                raise
            self._tell_status(state=before.state)
            raise Refused(Reason.ENGINE, 'The world was not loaded, the one before goes on: '
                          f'{_told(error)}') from error
        self._next_seed = None
        self._begin(definition, definition.seed, observation, reset_time=True)
        self._tell_status(state=State.STOPPED)

    def _unload(self):
        self._check(Request.UNLOAD)
        self._settle()
        self._observation = self._definition = None
        self._ticker.finish()
        self._status = SessionStatus(State.NO_WORLD, self.spec.mode, stamp_ns=self._sim.now_ns,
                                     counts=self._status.counts,
                                     recoveries=self._status.recoveries)
        self._tell_status()

    def _reset(self, time, state, seed):
        self._check(Request.RESET)
        self._settle()
        goal = self._resume if self._status.state == State.ERROR else self._status.state
        if state or self._status.state == State.ERROR:
            self._start_over(seed, reset_time=time)
        elif time and self.spec.reset_time_policy == TimePolicy.ZERO:
            self._restart_time()
        self._tell_status(state=goal)

    def _stop(self):
        self._check(Request.STOP)
        self._settle()
        self._start_over(None, reset_time=True)
        self._tell_status(state=State.STOPPED)

    def _start_over(self, seed, reset_time):
        next_seed, self._next_seed = self._next_seed, None
        if seed is None:
            seed = self._status.seed if next_seed is None else next_seed
        self._begin(self._definition, seed, self._engine.reset(self._definition, seed),
                    reset_time)

    def _play(self):
        self._check(Request.PLAY)
        self._pace_anew(self._due_ns)
        self._tell_status(state=State.PLAYING)

    def _pace_anew(self, due_ns=0):
        """Begin to pace now, or with a step that is due later."""
        now_ns = self._clock.now_ns()
        if self.spec.mode == Mode.LOCKSTEP:
            self._due_ns = now_ns + round(self.spec.lockstep_timeout_s * 1e9)
        else:
            self._due_ns = max(due_ns, now_ns)
        self._meter.clear()
        self._pacer.start_over()

    def _set_mode(self, mode):
        if mode == self.spec.mode:
            return
        self._settle()
        self._ticker.finish()
        self.change_spec(mode=mode)
        state = self._status.state
        if mode == Mode.STEPPED:
            self._resume = State.PAUSED if self._resume == State.PLAYING else self._resume
            state = State.PAUSED if state == State.PLAYING else state
        self._latch.clear()
        self._pace_anew()
        self._status = replace(self._status, mode=mode)
        if self._definition is not None:
            self._begun = replace(self._begun, mode=mode)
            for observer in self._observers:
                observer.on_mode(self._begun)
        self._tell_status(state=state, frame_rate_hz=0.0, real_time_factor=0.0)

    def _pause(self):
        self._check(Request.PAUSE)
        self._settle()
        self._ticker.finish()
        self._tell_status(state=State.PAUSED, frame_rate_hz=0.0, real_time_factor=0.0)

    def _advance(self, num_steps, on_step, should_stop):
        started = False
        try:
            self._check(Request.ADVANCE)
            started, self._status = True, replace(self._status, state=State.PLAYING)
            for done in range(1, num_steps + 1):
                self._step(planned_ns=None)
                if on_step is not None:
                    on_step(done, num_steps - done)
                if done < num_steps and (self._closing or self._jobs or should_stop()):
                    raise Refused(Reason.INTERRUPTED, f'Interrupted after {done} of {num_steps} '
                                  f'steps, {num_steps - done} remain.', done)
        finally:
            if threading.current_thread() is self._thread:  # else a newer request has the flag
                with self._wake:
                    self._steps_asked = False
                if self._status.state == State.PLAYING and started:
                    self._tell_status(state=State.PAUSED, frame_rate_hz=0.0, real_time_factor=0.0)

    def _move(self, entity, pose, twist):
        self._check(Request.MOVE)
        if entity not in self.entities():
            raise Refused(Reason.UNKNOWN, str(unknown_name('entity', entity, self.entities())))
        self._settle()
        last = moment(self._observation)
        if entity == self.spec.entity_name:
            wanted = with_robot_at(last, pose, twist)
        else:
            names = self.world.object_names(self._definition.scene)
            wanted = with_object_at(last, names.index(entity), pose)
        before = last.base_pose[0, 0].copy()
        self._observation, self._anchor = self._engine.observe(wanted), anchor_of(wanted)
        self._origin = compose(self._observation.base_pose[0, -1],
                               compose(inverse(before), self._origin))
        self._tell_status(anchor=self._anchor)

    def _look(self):
        self._check(Request.LOOK)
        if self._observation.rgb is not None or not self.world.spec.cheap_snapshots:
            return
        self._observation = self._engine.look(self._observation)
        frame = frame_of(self._observation, -1, self._status.frame, self._status.stamp_ns,
                         self._origin)
        for observer in self._observers:
            observer.on_drawn(frame)

    def _set_prompt(self, asked):
        self._check(Request.SET_PROMPT)
        if self._makes_ahead and self._status.state == State.PLAYING:
            return self._prompts.wait(asked)
        try:
            self._engine.set_prompt(asked.text)
        except Exception as error:  # an engine may fail in any way
            if self._engine.is_gone:
                raise
            return asked.refuse(error)
        self._prompt_set(asked, None)

    def _hand_over_prompt(self):
        """Let the engine take the prompt that waits, when it is free."""
        asked = self._prompts.pop()
        self._engine.set_prompt_later(asked.text, lambda error: self._submit(
            lambda: self._prompt_set(asked, error)))

    def _prompt_set(self, asked, error):
        if error is not None:
            return asked.refuse(error)
        if self._status.state != State.PLAYING:  # else the step made with it will tell
            self._tell_status(prompt=self._engine.prompt)
        asked.answer(self._status)

    def _anchor_image(self, rgb):
        self._check(Request.ANCHOR_IMAGE)
        self._settle()
        wanted = replace(moment(self._observation), rgb=rgb[None, None])
        try:
            self._observation = self._engine.observe(wanted, is_image=True)
        except SpecError as error:
            raise Refused(Reason.UNSUPPORTED, str(error))
        self._tell_status(images_anchored=self._engine.num_images)

    def _check(self, request):
        status = self._status
        check_request(request, status.state, status.mode, status.message)

    def _begin(self, definition, seed, observation, reset_time):
        """Everything starts over from a first observation, which is shown."""
        self._definition, self._observation = definition, observation
        self._origin = observation.base_pose[0, -1].copy()
        self._anchor = ()
        self._latch.clear()
        self._meter.clear()
        if reset_time and self.spec.reset_time_policy == TimePolicy.ZERO:
            self._sim.reset()
        old = self._status
        self._status = SessionStatus(
            old.state, self.spec.mode, definition.scene, seed, definition.name, definition.text,
            stamp_ns=self._sim.now_ns, prompt=self._engine.prompt, counts=old.counts,
            recoveries=old.recoveries)
        self._tell_reset()
        self._due_ns = self._clock.now_ns() + self._wall_ns(1)
        self._hand_out(observation, 0)
        if self.spec.mode == Mode.LOCKSTEP:
            self._due_ns = self._clock.now_ns() + round(self.spec.lockstep_timeout_s * 1e9)

    def _restart_time(self):
        """Only time starts over: the world as it is becomes the first frame of the new time."""
        self._sim.reset()
        self._latch.clear()
        self._status = replace(self._status, stamp_ns=0)
        self._tell_reset()
        stamp_ns = self._sim.tick()
        frame = frame_of(self._observation, -1, self._status.frame, stamp_ns, self._origin)
        for observer in self._observers:
            observer.on_frame(frame)
        self._ticker.jump(stamp_ns)
        self._status = replace(self._status, stamp_ns=stamp_ns)

    def _due_step(self):
        if self._engine.is_gone:
            self._show_rest()
            raise self._engine.gone_by
        if self.spec.mode == Mode.LOCKSTEP:
            return self._lockstep()
        if self._makes_ahead:
            return self._play_ahead(self._turn().what)
        planned_ns = self._due_ns
        self._step(planned_ns)
        period_ns = self._wall_ns(self.world.spec.frames_per_step)
        # Delay beyond what can be caught up is forgotten: sim time honestly runs slower.
        self._due_ns = max(planned_ns + period_ns, self._clock.now_ns() - CATCH_UP_NS)

    def _lockstep(self):
        waited = self._latch.pending < self.spec.lockstep_commands
        if waited:
            timeouts = self._status.lockstep_timeouts + 1
            self._status = replace(
                self._status, lockstep_timeouts=timeouts,
                message=f'lockstep: {timeouts} steps without a command, lockstep_timeout_s='
                f'{self.spec.lockstep_timeout_s:g} s was over.')
            self._message_until_step = self._status.step + 2
        self._step(planned_ns=None)
        self._due_ns = self._clock.now_ns() + round(self.spec.lockstep_timeout_s * 1e9)

    def _wall_ns(self, num_frames) -> int:
        """Wall time that a number of frames shall take; 0 at full speed."""
        speed = self.spec.speed
        return round(num_frames * self._sim.period_ns / speed) if speed else 0

    def _play_ahead(self, what):
        """Do what is due: let a frame leave, begin a step, or take one that was made."""
        now_ns = self._clock.now_ns()
        if what == BEGIN and self._prompts.is_waiting:
            return self._hand_over_prompt()
        if what == BEGIN:
            if self._engine.finish_ns is not None:
                self._pacer.finished(self._engine.finish_ns)
            self._ahead = self._next_actions()
            return self._engine.begin_step(self._ahead.actions)
        if what != FRAME:
            self._showing = _Showing(self._ahead, self._engine.take())
            self._pacer.made(self._showing.made.duration_ns)
            self._pacer.show(now_ns, self._wall_ns(1))
        self._pacer.left(now_ns)
        self._show_frame(self._pacer.asked_ns(self._showing.num_shown))

    def _step(self, planned_ns):
        """Make a step and hand out its frames, each at its own time if the step has one."""
        latched = self._next_actions()
        self._showing = _Showing(latched, self._engine.step(latched.actions))
        for t in range(self._showing.num_left):
            frame_planned_ns = None if planned_ns is None else planned_ns + self._wall_ns(t)
            if frame_planned_ns is not None:
                self._sleep_until(frame_planned_ns)
            self._show_frame(frame_planned_ns)
        self._engine.finish_later()

    def _show_frame(self, planned_ns):
        """Hand out the next frame of the step in progress; its status follows the last one."""
        showing = self._showing
        made, latched = showing.made, showing.latched
        if showing.num_shown == 0:
            self._step_begins(latched, made)
        since_ns = latched.since_ns if showing.num_shown == 0 else None
        self._hand_out(made.observation, showing.num_shown, planned_ns, since_ns)
        showing.num_shown += 1
        if showing.num_left:
            return
        self._showing = None
        step = self._status.step + 1
        anchor, self._anchor = self._anchor, ()
        message = self._status.message if step < self._message_until_step else ''
        self._tell_status(step=step, step_duration_s=made.duration_ns * 1e-9,
                          actions=latched.actions[0], anchor=anchor, message=message)

    def _show_rest(self):
        """Let the frames of the step in progress leave at once."""
        while self._showing is not None:
            self._show_frame(None)

    def _step_begins(self, latched, made):
        """Take note of how a step came, right before its first frame leaves."""
        self._status = replace(self._status, prompt=made.prompt, images_anchored=made.num_images)
        if latched.sequence is not None:
            self._status = replace(self._status, embedding_sequence=latched.sequence,
                                   counts=latched.counts)
        if made.note:
            self._status = replace(self._status, recoveries=self._status.recoveries + 1,
                                   message=made.note)
            self._message_until_step = self._status.step + MESSAGE_STEPS

    def _next_actions(self) -> Latched:
        """Read what the next step acts on, which begins when the frames of this one have left."""
        showing, by_step = self._showing, self._steps_asked
        num_left = 0 if showing is None else showing.num_left
        return self._reader.read(
            self._observation if showing is None else showing.made.observation,
            self._sim.now_ns + num_left * self._sim.period_ns,
            timeout_s=self.spec.action_timeout_s, by_step=by_step,
            by_wall=self.spec.mode == Mode.REALTIME and not by_step)

    def _hand_out(self, observation, t, planned_ns=None, since_ns=None):
        """Let a frame leave; what clients see of the world follows it."""
        self._observation = moment(observation, t)
        frame = frame_of(observation, t, self._status.frame + 1, self._sim.tick(), self._origin)
        for observer in self._observers:
            observer.on_frame(frame)
        self._count_frame(frame, planned_ns, since_ns)
        paced = planned_ns is not None and self.spec.speed
        self._ticker.follow(frame.stamp_ns,
                            max(self._wall_ns(1), self._meter.gap_ns) if paced else 0)

    def _sleep_until(self, until_ns):
        with self._wake:
            while not self._closing and self._clock.now_ns() < until_ns:
                self._clock.wait(self._wake, until_ns)

    def _count_frame(self, frame, planned_ns, since_ns):
        now_ns, period_ns = self._clock.now_ns(), self._wall_ns(1)
        late = planned_ns is not None and period_ns and now_ns > planned_ns + period_ns
        latency_s = (self._status.command_latency_s if since_ns is None else
                     self._latch.frame_left(now_ns, since_ns))
        rate_hz = self._meter.add(now_ns)
        self._status = replace(
            self._status, stamp_ns=frame.stamp_ns, frame=frame.index, frame_rate_hz=rate_hz,
            real_time_factor=rate_hz * self._sim.period_ns * 1e-9,
            command_latency_s=latency_s, uncertainty=frame.uncertainty,
            calibrated=frame.calibrated, contact=frame.contact,
            late_frames=self._status.late_frames + bool(late),
            digest=frame_digest(self._status.digest, frame))

    def _fail(self, error):
        """Stop sim time; the last frame is not repeated, and only a reset goes on."""
        fault = fault_of(error)
        text = f'The world stopped ({fault.name.lower()}): {_told(error).rstrip(".")}.'
        if isinstance(error, SpecError):  # the user can mend it; where it came from is no help
            self._log.error(text)
        else:
            self._log.error(f'{text}\n{"".join(traceback.format_exception(error))}')
        if self._status.state in (State.PLAYING, State.PAUSED, State.STOPPED):
            self._resume = State.PAUSED if self._steps_asked else self._status.state
        self._ticker.finish()
        self._showing = None
        self._engine.drop()
        self._prompts.refuse_all(error)
        state = State.NO_WORLD if self._definition is None else State.ERROR
        self._tell_status(state=state, fault=fault, message=text, frame_rate_hz=0.0,
                          real_time_factor=0.0)

    def _tell_reset(self):
        self._begun = self._status
        for observer in self._observers:
            observer.on_reset(self._status)

    def _tell_clock(self, stamp_ns):
        for observer in self._observers:
            observer.on_clock(stamp_ns)

    def _tell_status(self, **changes):
        self._status = replace(self._status, rejected_embeddings=self._rejected_embeddings,
                               **changes)
        for observer in self._observers:
            observer.on_status(self._status)


def _told(error) -> str:
    """Return an error's text; what is no message to the user begins with its kind."""
    return str(error) if isinstance(error, SpecError) else f'{type(error).__name__}: {error}'


def _refused(reason, text) -> Future:
    future = Future()
    future.set_exception(Refused(reason, text))
    return future
