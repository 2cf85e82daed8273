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
from typing import Callable, Optional, Protocol, Sequence, Tuple

from lingbot_world_ros.actions.embedding import (ActionEmbedding, actions_at_latch,
                                                 check_embedding)
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.worlds.clock import ClockTicker, SimClock, WallClock
from lingbot_world_ros.worlds.faults import check_finite, EngineHung, fault_of
from lingbot_world_ros.worlds.latch import EmbeddingLatch, FrameMeter
from lingbot_world_ros.worlds.library import WorldDefinition
from lingbot_world_ros.worlds.status import (EntityState, ERROR, frame_digest, frame_of,
                                             LOADING, LOCKSTEP, NO_WORLD, PAUSED, PLAYING,
                                             REALTIME, Refused, SessionObserver, SessionStatus,
                                             STEPPED, STOPPED)
from lingbot_world_ros.worlds.world_model import Observation, WorldModel
import numpy as np

LATENCY_WINDOW_NS = 5_000_000_000
CATCH_UP_NS = 500_000_000  # a delay up to here is made good by faster frames
LOADING_FACTOR = 12  # loading a world may take this many times as long as a step
MESSAGE_STEPS = 75  # a recovery is told for this many steps


@dataclass(frozen=True)
class SessionSpec:
    """
    How a world runs.

    ``speed`` is sim seconds per wall second, 0 for as fast as the engine goes. An embedding older
    than ``action_timeout_s`` of wall time counts as silence: the robot is told to stand still.
    ``clock_rate_hz`` is ticks of the clock per sim second, 0 for one per frame.
    """

    mode: str = REALTIME
    initial_state: str = PLAYING
    reset_time_policy: str = 'zero'
    speed: float = 1.0
    clock_rate_hz: float = 0.0
    action_timeout_s: float = 0.5
    lockstep_commands: int = 1
    lockstep_timeout_s: float = 1.0
    step_timeout_s: float = 10.0
    entity_name: str = 'robot'

    def __post_init__(self):
        """Refuse values no session can run with."""
        for name, known in (('mode', (REALTIME, STEPPED, LOCKSTEP)),
                            ('initial_state', (PLAYING, PAUSED, STOPPED)),
                            ('reset_time_policy', ('zero', 'monotonic'))):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        if not self.speed >= 0.0:
            raise SpecError(f'speed={self.speed} must be 0 (as fast as possible) or more.')
        for name in ('action_timeout_s', 'lockstep_timeout_s', 'step_timeout_s'):
            if not getattr(self, name) > 0.0:
                raise SpecError(f'{name}={getattr(self, name)} must be more than 0.')


class EmbeddingSource(Protocol):
    """An encoder in the same process, asked at the last moment before a step."""

    def pull(self, sim_ns: int, joint_position: np.ndarray,
             by_step: bool) -> Optional[ActionEmbedding]:
        """
        Encode the newest commands for the step that starts now; called by the worker thread.

        :param sim_ns: sim time of the newest frame
        :param joint_position: (J,) where the joints would come to rest if let go, rad or m
        :param by_step: the step was asked for; wall time since the last one ages no command
        :return: the embedding, None before the first
        """
        ...

    def catch_up(self) -> None:
        """Take over commands that wait in a queue; called by whoever asks for steps."""
        ...


class _Abandoned(BaseException):
    """Ends a worker whose engine came back after it was given up."""


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
                 make_world: Optional[Callable[[], WorldModel]] = None):
        """
        Prepare; nothing runs before ``start``.

        :param world: the engine, not yet reset
        :param spec: how to run it
        :param observers: told about frames and status
        :param log: object with ``info``, ``warning``, ``error`` (a ROS or a Python logger)
        :param clock: steady wall clock; tests hand in their own
        :param make_world: makes another engine should this one hang; without it nothing recovers
            from that
        """
        self.world, self.spec = world, spec
        self._observers, self._log = observers, log
        self._make_world = make_world
        self._clock = clock or WallClock()
        self._sim = SimClock(world.spec.frame_period_ns)
        tick_ns = round(1e9 / spec.clock_rate_hz) if spec.clock_rate_hz else 0
        self._ticker = ClockTicker(tick_ns, self._tell_clock, clock)
        self._status = SessionStatus(NO_WORLD, spec.mode)
        self._wake = threading.Condition()  # guards what is below, up to the blank line
        self._jobs = deque()
        self._job: Optional[Future] = None  # that the worker is at
        self._steps_asked = False
        self._closing = False
        self._busy_until_ns: Optional[int] = None  # when a running call of the engine hangs

        self._latch, self._meter = EmbeddingLatch(), FrameMeter()
        self._source: Optional[EmbeddingSource] = None
        self._rejected_embeddings = 0
        self._definition: Optional[WorldDefinition] = None
        self._observation: Optional[Observation] = None  # newest, None without a world
        self._good = None  # snapshot of the engine after the newest good step
        self._origin = np.zeros(3)  # of odometry, scene frame
        self._joint_lag_s = world.spec.robot.joint_array('lag_s')
        self._resume, self._due_ns = PAUSED, 0
        self._anchor: Tuple[float, ...] = ()
        self._next_seed: Optional[int] = None
        self._waited_for: Optional[ActionEmbedding] = None  # the encoder had nothing newer in time
        self._message_until_step = 0
        self._thread: Optional[threading.Thread] = None

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
        robot = EntityState(self.spec.entity_name, 'robot', seen.base_pose[0, -1],
                            _rotated(seen.base_twist[0, -1], seen.base_pose[0, -1, 2]))
        objects = [EntityState(name, 'object', pose, np.zeros(3)) for name, pose in zip(
            self.world.object_names(definition.scene), seen.object_pose[0, -1])]
        return {entity.name: entity for entity in [robot, *objects]}

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
        if state == PLAYING and self.spec.mode != STEPPED:
            self.play()
        elif state != STOPPED:
            self.pause()
        return started

    def close(self) -> None:
        """End the worker after the step it is in; further requests are cancelled."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
            thread = self._thread
        if thread is not None:
            # A hanging engine is left behind; its thread ends with the process.
            thread.join(None if self._busy_until_ns is None else self.spec.step_timeout_s)
        for job, _ in self._jobs:
            job.cancel()
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
        """Stop after the step in progress; the future's result is the new status."""
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
                refused = Future()
                refused.set_exception(Refused('not_paused', 'The world is making the steps of '
                                              'another request; wait for its answer.'))
                return refused
            self._steps_asked = True
        if self._source is not None:
            self._source.catch_up()
        return self._submit(lambda: self._advance(num_steps, on_step, should_stop))

    def move(self, entity: str, pose=None, twist=None) -> Future:
        """
        Put something elsewhere. Odometry does not notice: its origin moves along.

        :param entity: name out of ``entities``
        :param pose: (3,) x, y [m], yaw [rad] in the scene frame; None leaves it
        :param twist: (3,) v_x, v_y [m/s], w_z [rad/s] in base_link, robot only; None leaves it
        :return: future of the new status
        """
        return self._submit(lambda: self._move(entity, pose, twist))

    def link(self, source: EmbeddingSource) -> None:
        """Ask this encoder for an embedding before each step; before ``start``."""
        self._source = source

    def set_embedding(self, embedding: ActionEmbedding) -> None:
        """
        Put an embedding where the next step will find it, replacing the one before.

        :param embedding: what the robot shall do
        :raises SpecError: it does not fit this world; counted, nothing changed
        """
        try:
            self._check(embedding)
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
        if self.spec.mode == LOCKSTEP:
            self._notify()

    def latencies_s(self) -> np.ndarray:
        """Return command-to-frame latencies of the last five seconds, (n,) float64 seconds."""
        return self._latch.latencies_s(self._clock.now_ns() - LATENCY_WINDOW_NS)

    def check_engine(self) -> None:
        """Look whether the engine hangs, and if so give it up; to be called every now and then."""
        with self._wake:
            if self._busy_until_ns is None or self._clock.now_ns() < self._busy_until_ns:
                return
            error = EngineHung(f'a step took longer than step_timeout_s='
                               f'{self.spec.step_timeout_s:g} s')
            if hasattr(self.world, 'kill'):
                self._busy_until_ns = None
                return self.world.kill(error)
            job, self._thread, self._busy_until_ns = self._job, None, None
            self.world = _Gone(self.world)
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

    def _check(self, embedding):
        check_embedding(embedding, self.world.spec.action, self.world.spec.robot.joint_names)

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
        self._thread = threading.Thread(target=self._work, name='world', daemon=True)
        self._thread.start()

    # What follows runs in the worker thread only.

    def _work(self):
        try:
            while self._work_once():
                pass
        except _Abandoned:
            return
        if hasattr(self.world, 'close'):
            self.world.close()
        self._ticker.finish()
        self._tell_status(state=STOPPED)

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
        if self._status.state != PLAYING:
            return False
        if self.spec.mode == LOCKSTEP and self._latch.pending >= self.spec.lockstep_commands:
            return True
        return self._clock.now_ns() >= self._due_ns

    def _wait_until_ns(self):
        return self._due_ns if self._status.state == PLAYING else None

    def _load(self, definition):
        before, saved = self._status, self._good
        self._tell_status(state=LOADING, frame_rate_hz=0.0, real_time_factor=0.0)
        try:
            observation = self._first_observation(definition, definition.seed)
        except Exception:
            if before.state in (NO_WORLD, ERROR):
                self._tell_status(state=before.state)
                raise
            self.world.restore(saved)
            self._tell_status(state=before.state)
            raise Refused('engine', 'The world was not loaded, the one before goes on: '
                          f'{traceback.format_exc(limit=0).strip().splitlines()[-1]}')
        self._next_seed = None
        self._begin(definition, definition.seed, observation, reset_time=True)
        self._tell_status(state=STOPPED)

    def _unload(self):
        self._need_world()
        self._observation = self._definition = self._good = None
        self._ticker.finish()
        self._status = SessionStatus(NO_WORLD, self.spec.mode, stamp_ns=self._sim.now_ns,
                                     counts=self._status.counts,
                                     recoveries=self._status.recoveries)
        self._tell_status()

    def _reset(self, time, state, seed):
        self._need_world()
        goal = self._resume if self._status.state == ERROR else self._status.state
        if state or self._status.state == ERROR:
            self._start_over(seed, reset_time=time)
        elif time and self.spec.reset_time_policy == 'zero':
            self._restart_time()
        self._tell_status(state=goal)

    def _stop(self):
        self._need_world()
        if self._status.state == STOPPED:
            raise Refused('already', 'The world is stopped already.')
        self._start_over(None, reset_time=True)
        self._tell_status(state=STOPPED)

    def _start_over(self, seed, reset_time):
        next_seed, self._next_seed = self._next_seed, None
        if seed is None:
            seed = self._status.seed if next_seed is None else next_seed
        self._begin(self._definition, seed, self._first_observation(self._definition, seed),
                    reset_time)

    def _play(self):
        self._need_engine()
        if self.spec.mode == STEPPED:
            raise Refused('mode', 'In stepped mode sim time advances by step_simulation and '
                          'simulate_steps only; start with mode:=realtime to play.')
        if self._status.state == PLAYING:
            raise Refused('already', 'The world is playing already.')
        now_ns = self._clock.now_ns()
        if self.spec.mode == LOCKSTEP:
            self._due_ns = now_ns + round(self.spec.lockstep_timeout_s * 1e9)
        else:
            self._due_ns = max(self._due_ns, now_ns)
        self._meter.clear()
        self._tell_status(state=PLAYING)

    def _pause(self):
        self._need_engine()
        if self._status.state == PAUSED:
            raise Refused('already', 'The world is paused already.')
        self._ticker.finish()
        self._tell_status(state=PAUSED, frame_rate_hz=0.0, real_time_factor=0.0)

    def _advance(self, num_steps, on_step, should_stop):
        started = False
        try:
            self._need_engine()
            if self._status.state != PAUSED:
                raise Refused('not_paused', 'The world makes steps only while it is paused; it is '
                              f'{self._status.state}.')
            started, self._status = True, replace(self._status, state=PLAYING)
            for done in range(1, num_steps + 1):
                self._step(planned_ns=None)
                if on_step is not None:
                    on_step(done, num_steps - done)
                if done < num_steps and (self._closing or self._jobs or should_stop()):
                    raise Refused('interrupted', f'Interrupted after {done} of {num_steps} '
                                  f'steps, {num_steps - done} remain.', done)
        finally:
            if threading.current_thread() is self._thread:  # else a newer request has the flag
                with self._wake:
                    self._steps_asked = False
                if self._status.state == PLAYING and started:
                    self._tell_status(state=PAUSED, frame_rate_hz=0.0, real_time_factor=0.0)

    def _move(self, entity, pose, twist):
        self._need_engine()
        if entity not in self.entities():
            raise Refused('unknown', str(unknown_name('entity', entity, self.entities())))
        last = {name: None if value is None else value[:, -1:].copy()
                for name, value in vars(self._observation).items() if name != 'extra'}
        base = last['base_pose'][0, 0].copy()
        if entity == self.spec.entity_name:
            if pose is not None:
                last['base_pose'][0, 0] = pose
            if twist is not None:
                last['base_twist'][0, 0] = twist
        elif pose is not None:
            index = self.world.object_names(self._definition.scene).index(entity)
            last['object_pose'][0, 0, index] = pose
        self._anchor_at(Observation(**last))
        self._origin = _compose(self._observation.base_pose[0, -1],
                                _compose(_inverse(base), self._origin))
        self._tell_status(anchor=self._anchor)

    def _anchor_at(self, observation):
        """Make an observation the state of the world, and remember it for the record."""
        shown = self._guarded(lambda: self.world.observe(observation))
        check_finite(shown)
        self._observation, self._good = shown, self.world.snapshot()
        self._anchor = tuple(np.concatenate([
            observation.base_pose[0, -1], observation.base_twist[0, -1],
            observation.object_pose[0, -1].ravel()]).tolist())

    def _need_world(self):
        if self._definition is None:
            raise Refused('no_world', 'No world is loaded; load one first.')

    def _need_engine(self):
        self._need_world()
        if self._status.state == ERROR:
            raise Refused('engine', f'No world runs: {self._status.message} Reset it first.')

    def _first_observation(self, definition, seed):
        """Put the engine at the start of a world; a new engine if the last one was given up."""
        if isinstance(self.world, _Gone):
            if self._make_world is None:
                raise Refused('engine', 'The engine hung and cannot be made again; restart.')
            self.world = self._make_world()
        observation = self._guarded(lambda: self.world.reset(definition.scene, seed),
                                    LOADING_FACTOR)
        check_finite(observation)
        if definition.start_pose is None and not definition.joints:
            return observation
        if definition.start_pose is not None:
            observation.base_pose[0, -1] = definition.start_pose
        names = self.world.spec.robot.joint_names
        for joint, position in definition.joints.items():
            observation.joint_position[0, -1, names.index(joint)] = position
        observation = self._guarded(lambda: self.world.observe(observation))
        check_finite(observation)
        return observation

    def _begin(self, definition, seed, observation, reset_time):
        """Everything starts over from a first observation, which is shown."""
        self._definition, self._observation = definition, observation
        self._good = self.world.snapshot()
        self._origin = observation.base_pose[0, -1].copy()
        self._anchor = ()
        self._latch.clear()
        self._meter.clear()
        if reset_time and self.spec.reset_time_policy == 'zero':
            self._sim.reset()
        old = self._status
        self._status = SessionStatus(
            old.state, self.spec.mode, definition.scene, seed, definition.name, definition.text,
            stamp_ns=self._sim.now_ns, counts=old.counts, recoveries=old.recoveries)
        for observer in self._observers:
            observer.on_reset(self._status)
        self._due_ns = self._clock.now_ns()
        self._emit(observation, None)
        self._due_ns += self._wall_ns(1)
        if self.spec.mode == LOCKSTEP:
            self._due_ns = self._clock.now_ns() + round(self.spec.lockstep_timeout_s * 1e9)

    def _restart_time(self):
        """Only time starts over: the world as it is becomes the first frame of the new time."""
        self._sim.reset()
        self._latch.clear()
        self._status = replace(self._status, stamp_ns=0)
        for observer in self._observers:
            observer.on_reset(self._status)
        stamp_ns = self._sim.tick()
        frame = self._frame(self._observation, -1, self._status.frame, stamp_ns)
        for observer in self._observers:
            observer.on_frame(frame)
        self._ticker.jump(stamp_ns)
        self._status = replace(self._status, stamp_ns=stamp_ns)

    def _due_step(self):
        if self.spec.mode == LOCKSTEP:
            return self._lockstep()
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

    def _step(self, planned_ns):
        started_ns = self._clock.now_ns()
        actions = self._next_actions()
        observation = self._engine_step(actions)
        duration_s = (self._clock.now_ns() - started_ns) * 1e-9
        self._observation = observation
        anchor, self._anchor = self._anchor, ()
        self._emit(observation, planned_ns)
        step = self._status.step + 1
        message = self._status.message if step < self._message_until_step else ''
        self._tell_status(step=step, step_duration_s=duration_s, actions=actions[0],
                          anchor=anchor, message=message)

    def _engine_step(self, actions):
        """Step the engine; what fails once is tried again from the last good state."""
        try:
            return self._good_step(actions)
        except Exception as error:  # an engine may fail in any way
            first = error
        text = f'{type(first).__name__}: {first}'
        self._log.warning(f'The engine failed, one more try from the last good state. {text}')
        self._guarded(lambda: self.world.restore(self._good), LOADING_FACTOR)
        observation = self._good_step(actions)
        self._status = replace(self._status, recoveries=self._status.recoveries + 1,
                               message=f'Recovered from the last good state. {text}')
        self._message_until_step = self._status.step + MESSAGE_STEPS
        return observation

    def _good_step(self, actions):
        observation = self._guarded(lambda: self.world.step(actions))
        check_finite(observation)
        self._good = self.world.snapshot()
        return observation

    def _guarded(self, call, factor=1):
        """Call the engine; whoever watches may give up this thread meanwhile."""
        limit_ns = round(self.spec.step_timeout_s * factor * 1e9)
        with self._wake:
            self._busy_until_ns = self._clock.now_ns() + limit_ns
        try:
            return call()
        finally:
            with self._wake:
                if threading.current_thread() is not self._thread:
                    raise _Abandoned()
                self._busy_until_ns = None

    def _next_actions(self) -> np.ndarray:
        """Latch: the newest embedding becomes the actions of the step that starts now."""
        spec, seen = self.world.spec, self._observation
        # A servo coasts on for its lag: steer where it would come to rest, or it overshoots.
        resting = (seen.joint_position[0, -1] + self._joint_lag_s * seen.joint_velocity[0, -1])
        embedding, age_ns = self._newest_embedding(resting)
        silent = (age_ns > self.spec.action_timeout_s * 1e9 and self._source is None
                  and self._counts_wall_time())
        if embedding is None or silent:
            return np.zeros((1, spec.frames_per_step, len(spec.action.dims)), np.float32)
        self._status = replace(self._status, embedding_sequence=embedding.sequence,
                               counts=embedding.counts)
        return actions_at_latch(embedding, spec.action, resting, spec.frames_per_step)[None]

    def _counts_wall_time(self):
        """Whether wall time says something about a command's age: not while making steps."""
        return self.spec.mode == REALTIME and not self._steps_asked

    def _newest_embedding(self, resting):
        if self._source is not None:
            pulled = self._source.pull(self._sim.now_ns, resting, self._steps_asked)
            if pulled is not None:
                self._check(pulled)
            self._latch.take(self._clock.now_ns())
            return pulled, 0
        if not self._counts_wall_time():
            self._wait_for_valid_embedding()
        return self._latch.take(self._clock.now_ns())

    def _wait_for_valid_embedding(self):
        """
        Let an encoder in another process catch up with sim time.

        Only where its last word does not hold for the coming step: a trajectory runs or a
        velocity is about to time out. After ``action_timeout_s`` the world goes on without, and
        does not wait for the same word again.
        """
        step_end_ns = self._sim.now_ns + self._sim.period_ns * self.world.spec.frames_per_step
        until_ns = self._clock.now_ns() + round(self.spec.action_timeout_s * 1e9)
        with self._wake:
            while not self._closing and self._clock.now_ns() < until_ns:
                newest = self._latch.newest
                if (newest is None or newest is self._waited_for
                        or not 0 < newest.valid_until_ns < step_end_ns):
                    return
                self._clock.wait(self._wake, until_ns)
            self._waited_for = self._latch.newest

    def _emit(self, observation, planned_ns):
        """Hand out the frames of one step, each at its own time if the step has one."""
        for t in range(observation.rgb.shape[1]):
            frame_planned_ns = None if planned_ns is None else planned_ns + self._wall_ns(t)
            if frame_planned_ns is not None:
                self._sleep_until(frame_planned_ns)
            frame = self._frame(observation, t, self._status.frame + 1, self._sim.tick())
            for observer in self._observers:
                observer.on_frame(frame)
            self._count_frame(frame, frame_planned_ns)
            paced = planned_ns is not None
            self._ticker.follow(frame.stamp_ns, max(self._wall_ns(1), self._meter.gap_ns)
                                if paced and self.spec.speed else 0)

    def _sleep_until(self, until_ns):
        with self._wake:
            while not self._closing and self._clock.now_ns() < until_ns:
                self._clock.wait(self._wake, until_ns)

    def _frame(self, observation, t, index, stamp_ns):
        return frame_of(observation, t, index, stamp_ns, self._origin)

    def _count_frame(self, frame, planned_ns):
        now_ns, period_ns = self._clock.now_ns(), self._wall_ns(1)
        late = planned_ns is not None and period_ns and now_ns > planned_ns + period_ns
        latency_s = self._latch.frame_left(now_ns)
        rate_hz = self._meter.add(now_ns)
        self._status = replace(
            self._status, stamp_ns=frame.stamp_ns, frame=frame.index, frame_rate_hz=rate_hz,
            real_time_factor=rate_hz * self._sim.period_ns * 1e-9,
            command_latency_s=self._status.command_latency_s if latency_s is None else latency_s,
            uncertainty=frame.uncertainty, calibrated=frame.calibrated, contact=frame.contact,
            late_frames=self._status.late_frames + bool(late),
            digest=frame_digest(self._status.digest, frame))

    def _fail(self, error):
        """Stop sim time; the last frame is not repeated, and only a reset goes on."""
        fault = fault_of(error)
        text = (f'The world stopped ({fault.name.lower()}): {type(error).__name__}: '
                f'{str(error).rstrip(".")}.')
        self._log.error(f'{text}\n{"".join(traceback.format_exception(error))}')
        if self._status.state in (PLAYING, PAUSED, STOPPED):
            self._resume = PAUSED if self._steps_asked else self._status.state
        self._ticker.finish()
        self._tell_status(state=ERROR if self._definition is not None else NO_WORLD, fault=fault,
                          message=text, frame_rate_hz=0.0, real_time_factor=0.0)

    def _tell_clock(self, stamp_ns):
        for observer in self._observers:
            observer.on_clock(stamp_ns)

    def _tell_status(self, **changes):
        self._status = replace(self._status, rejected_embeddings=self._rejected_embeddings,
                               **changes)
        for observer in self._observers:
            observer.on_status(self._status)


class _Gone:
    """Stands where an engine was that hangs; only its description is left."""

    def __init__(self, world):
        self.spec, self.object_names = world.spec, world.object_names


def _compose(a, b) -> np.ndarray:
    """Planar pose b, given in frame a, in a's own parent."""
    c, s = np.cos(a[2]), np.sin(a[2])
    return np.array([a[0] + c * b[0] - s * b[1], a[1] + s * b[0] + c * b[1], a[2] + b[2]])


def _inverse(a) -> np.ndarray:
    """Planar pose of the parent in frame a."""
    c, s = np.cos(a[2]), np.sin(a[2])
    return np.array([-c * a[0] - s * a[1], s * a[0] - c * a[1], -a[2]])


def _rotated(twist, yaw) -> np.ndarray:
    """Body twist -> the same along the axes of the scene frame."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([c * twist[0] - s * twist[1], s * twist[0] + c * twist[1], twist[2]])
