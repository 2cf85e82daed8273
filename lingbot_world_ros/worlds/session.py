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
from typing import Callable, Iterator, Optional, Sequence

from lingbot_world_ros.actions.embedding import (ActionEmbedding, actions_at_latch,
                                                 check_embedding, CommandCounts)
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.worlds.clock import SimClock, WallClock
from lingbot_world_ros.worlds.latch import EmbeddingLatch, FrameMeter
from lingbot_world_ros.worlds.world_model import Observation, WorldModel
import numpy as np

STOPPED, PLAYING, PAUSED, ERROR = 'stopped', 'playing', 'paused', 'error'
LATENCY_WINDOW_NS = 5_000_000_000
CATCH_UP_NS = 500_000_000  # a delay up to here is made good by faster frames


@dataclass(frozen=True)
class SessionSpec:
    """
    How a world runs.

    ``speed`` is sim seconds per wall second, 0 for as fast as the engine goes. An embedding older
    than ``action_timeout_s`` of wall time counts as silence: the robot is told to stand still.
    """

    scene: str
    seed: int
    speed: float
    start_paused: bool
    action_timeout_s: float

    def __post_init__(self):
        """Refuse values no session can run with."""
        if not self.speed >= 0.0:
            raise SpecError(f'speed={self.speed} must be 0 (as fast as possible) or more.')
        if not self.action_timeout_s > 0.0:
            raise SpecError(f'action_timeout_s={self.action_timeout_s} must be more than 0.')
        if self.seed < 0:
            raise SpecError(f'seed={self.seed} must be 0 or more.')


@dataclass(frozen=True)
class Frame:
    """
    One moment of a world, with the sim time it belongs to.

    ``rgb`` (h, w, 3) uint8; ``depth_m`` (h, w) float32 or None; poses (3,) x, y [m], yaw [rad] in
    the scene frame, ``start_pose`` being the one at the reset; ``base_twist`` (3,) v_x, v_y, w_z
    in base_link; joints (J,) rad or m; ``base_pose_cov`` (3, 3) or None.
    """

    index: int
    stamp_ns: int
    rgb: np.ndarray
    depth_m: Optional[np.ndarray]
    start_pose: np.ndarray
    base_pose: np.ndarray
    base_twist: np.ndarray
    base_pose_cov: Optional[np.ndarray]
    joint_position: np.ndarray
    joint_velocity: np.ndarray
    contact: float
    uncertainty: float
    calibrated: bool


@dataclass(frozen=True)
class SessionStatus:
    """How a session is doing; times are wall time, rates over the last second."""

    state: str
    scene: str
    seed: int
    stamp_ns: int = 0
    step: int = 0
    frame: int = 0
    embedding_sequence: int = 0
    frame_rate_hz: float = 0.0
    real_time_factor: float = 0.0
    step_duration_s: float = 0.0
    command_latency_s: float = 0.0
    uncertainty: float = 0.0
    calibrated: bool = True
    contact: float = 0.0
    late_frames: int = 0
    rejected_embeddings: int = 0
    counts: CommandCounts = CommandCounts()
    message: str = ''


class SessionObserver:
    """What a session tells, always from its worker thread; override what is of interest."""

    def on_reset(self, status: SessionStatus) -> None:
        """Run after a world started over, before its first frame."""

    def on_frame(self, frame: Frame) -> None:
        """Run for every frame when it is due, before anything else is computed."""

    def on_status(self, status: SessionStatus) -> None:
        """Run after every step and every change of state."""


def rollout(world: WorldModel, observation: Observation,
            next_actions: Callable[[Observation], np.ndarray]) -> Iterator[Observation]:
    """
    Step a world for as long as somebody asks for more.

    :param world: an engine that was reset
    :param observation: what the reset returned
    :param next_actions: newest observation -> (b, t, a) float32, called right before each step
    :return: yields one observation (t frames) per step
    """
    while True:
        observation = world.step(next_actions(observation))
        yield observation


class Session:
    """
    Run one engine (batch size 1) in a worker thread.

    States: stopped (before ``start``, after ``close``), playing (paced to the wall), paused
    (advances by ``advance`` only), error (the engine failed; ``reset`` recovers). An engine
    slower than asked for makes sim time run slower; no frame is ever invented or repeated.
    """

    def __init__(self, world: WorldModel, spec: SessionSpec, *,
                 observers: Sequence[SessionObserver], log, clock: Optional[WallClock] = None):
        """
        Prepare; nothing runs before ``start``.

        :param world: the engine, not yet reset
        :param spec: how to run it
        :param observers: told about frames and status
        :param log: object with ``info``, ``warning``, ``error`` (a ROS or a Python logger)
        :param clock: steady wall clock; tests hand in their own
        :raises SpecError: unknown scene
        """
        self.world, self.spec = world, spec
        self._check_scene(spec.scene)
        self._observers, self._log = observers, log
        self._clock = clock or WallClock()
        self._sim = SimClock(world.spec.frame_period_ns)
        self._status = SessionStatus(STOPPED, spec.scene, spec.seed)
        self._wake = threading.Condition()  # guards what is below, up to the blank line
        self._jobs = deque()
        self._closing = False

        self._latch, self._meter = EmbeddingLatch(), FrameMeter()
        self._rejected_embeddings = 0
        self._rollout: Optional[Iterator[Observation]] = None
        self._start_pose = np.zeros(3)
        self._joint_lag_s = world.spec.robot.joint_array('lag_s')
        self._plays, self._due_ns = False, 0
        self._holds_actions = False  # stepping: wall time says nothing about a command's age
        self._thread = threading.Thread(target=self._work, name='world', daemon=True)

    @property
    def status(self) -> SessionStatus:
        """The newest status; safe from any thread."""
        return self._status

    @property
    def sim_ns(self) -> int:
        """Sim time of the newest frame, nanoseconds."""
        return self._sim.now_ns

    def start(self) -> Future:
        """Start the worker; the future is done when the first frame has left."""
        started = self.reset()
        if not self.spec.start_paused:
            self.play()
        self._thread.start()
        return started

    def close(self) -> None:
        """End the worker after the step it is in; further requests are cancelled."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def reset(self, scene: Optional[str] = None, seed: Optional[int] = None, *,
              reset_time: bool = True) -> Future:
        """
        Start a world over; it goes on playing if it was playing.

        :param scene: scene to load; None keeps the one that is loaded
        :param seed: start state; None repeats the last one
        :param reset_time: sim time starts again at zero
        :return: future of the new status
        :raises SpecError: unknown scene or negative seed; nothing changed
        """
        scene = self._status.scene if scene is None else scene
        seed = self._status.seed if seed is None else seed
        self._check_scene(scene)
        replace(self.spec, seed=seed)
        return self._submit(lambda: self._reset(scene, seed, reset_time))

    def play(self) -> Future:
        """Let sim time run; the future's result is the new status."""
        return self._submit(self._play)

    def pause(self) -> Future:
        """Stop after the step in progress; the future's result is the new status."""
        return self._submit(self._pause)

    def advance(self, num_steps: int = 1) -> Future:
        """
        Make steps while paused, as fast as the engine goes.

        :param num_steps: how many, at least 1
        :return: future of the new status; a SpecError if the world is not paused
        """
        if num_steps < 1:
            raise SpecError(f'num_steps={num_steps} must be at least 1.')
        return self._submit(lambda: self._advance(num_steps))

    def set_embedding(self, embedding: ActionEmbedding) -> None:
        """
        Put an embedding where the next step will find it, replacing the one before.

        :param embedding: what the robot shall do
        :raises SpecError: it does not fit this world; counted, nothing changed
        """
        try:
            check_embedding(embedding, self.world.spec.action, self.world.spec.robot.joint_names)
        except SpecError:
            self._rejected_embeddings += 1
            raise
        self._latch.put(embedding, self._clock.now_ns())

    def latencies_s(self) -> np.ndarray:
        """Return command-to-frame latencies of the last five seconds, (n,) float64 seconds."""
        return self._latch.latencies_s(self._clock.now_ns() - LATENCY_WINDOW_NS)

    def _check_scene(self, scene):
        if scene not in self.world.spec.scenes:
            raise unknown_name('scene', scene, self.world.spec.scenes)

    def _submit(self, action) -> Future:
        future = Future()
        with self._wake:
            if self._closing:
                future.cancel()
            else:
                self._jobs.append((future, action))
                self._wake.notify_all()
        return future

    # What follows runs in the worker thread only.

    def _work(self):
        while self._work_once():
            pass
        for future, _ in self._jobs:
            future.cancel()
        if hasattr(self.world, 'close'):
            self.world.close()
        self._tell_status(state=STOPPED)

    def _work_once(self) -> bool:
        """Do the next request or the step that is due; False when it is time to end."""
        with self._wake:
            while not (self._closing or self._jobs or self._is_due()):
                playing = self._status.state == PLAYING
                self._clock.wait(self._wake, self._due_ns if playing else None)
            if self._closing:
                return False
            future, action = self._jobs.popleft() if self._jobs else (Future(), self._paced_step)
        try:
            action()
        except _Refused as refused:
            future.set_exception(refused)
        except Exception as error:  # the thread's edge: an engine may fail in any way
            self._fail(error)
            future.set_exception(error)
        else:
            future.set_result(self._status)
        return True

    def _is_due(self):
        return self._status.state == PLAYING and self._clock.now_ns() >= self._due_ns

    def _reset(self, scene, seed, reset_time):
        observation = self.world.reset(scene, seed)
        _check_finite(observation)
        self._start_pose = observation.base_pose[0, -1].copy()
        self._rollout = rollout(self.world, observation, self._next_actions)
        self._latch.clear()
        self._meter.clear()
        if reset_time:
            self._sim.reset()
        self._status = SessionStatus(PLAYING if self._plays else PAUSED, scene, seed,
                                     stamp_ns=self._sim.now_ns, counts=self._status.counts)
        for observer in self._observers:
            observer.on_reset(self._status)
        self._due_ns = self._clock.now_ns()
        self._emit(observation, self._due_ns)
        self._due_ns += self._wall_ns(1)
        self._tell_status()

    def _play(self):
        self._need_rollout()
        self._plays, self._due_ns = True, max(self._due_ns, self._clock.now_ns())
        self._tell_status(state=PLAYING)

    def _pause(self):
        self._need_rollout()
        self._plays = False
        self._tell_status(state=PAUSED, frame_rate_hz=0.0, real_time_factor=0.0)

    def _advance(self, num_steps):
        self._need_rollout()
        if self._status.state != PAUSED:
            raise _Refused('The world steps only while it is paused; pause it first.')
        self._holds_actions = True
        try:
            for _ in range(num_steps):
                if self._closing:
                    raise _Refused('The world was closed before all steps were done.')
                self._step(planned_ns=None)
        finally:
            self._holds_actions = False

    def _need_rollout(self):
        if self._rollout is None:
            raise _Refused(f'No world runs: {self._status.message or "none was started."} '
                           'Reset it first.')

    def _paced_step(self):
        planned_ns = self._due_ns
        self._step(planned_ns)
        period_ns = self._wall_ns(self.world.spec.frames_per_step)
        # Delay beyond what can be caught up is forgotten: sim time honestly runs slower.
        self._due_ns = max(planned_ns + period_ns, self._clock.now_ns() - CATCH_UP_NS)

    def _wall_ns(self, num_frames) -> int:
        """Wall time that a number of frames shall take; 0 at full speed."""
        if self.spec.speed == 0.0:
            return 0
        return round(num_frames * self.world.spec.frame_period_ns / self.spec.speed)

    def _step(self, planned_ns):
        started_ns = self._clock.now_ns()
        observation = next(self._rollout)
        _check_finite(observation)
        duration_s = (self._clock.now_ns() - started_ns) * 1e-9
        self._emit(observation, planned_ns)
        self._tell_status(step=self._status.step + 1, step_duration_s=duration_s)

    def _next_actions(self, observation) -> np.ndarray:
        """Latch: the newest embedding becomes the actions of the step that starts now."""
        spec = self.world.spec
        embedding, age_ns = self._latch.take(self._clock.now_ns())
        silent = age_ns > self.spec.action_timeout_s * 1e9 and not self._holds_actions
        if embedding is None or silent:
            return np.zeros((1, spec.frames_per_step, len(spec.action.dims)), np.float32)
        self._status = replace(self._status, embedding_sequence=embedding.sequence,
                               counts=embedding.counts)
        # A servo coasts on for its lag: steer where it would come to rest, or it overshoots.
        resting = (observation.joint_position[0, -1]
                   + self._joint_lag_s * observation.joint_velocity[0, -1])
        return actions_at_latch(embedding, spec.action, resting, spec.frames_per_step)[None]

    def _emit(self, observation, planned_ns):
        """Hand out the frames of one step, each at its own time if the step has one."""
        for t in range(observation.rgb.shape[1]):
            frame_planned_ns = None if planned_ns is None else planned_ns + self._wall_ns(t)
            if frame_planned_ns is not None:
                self._sleep_until(frame_planned_ns)
            frame = self._frame(observation, t)
            for observer in self._observers:
                observer.on_frame(frame)
            self._count_frame(frame, frame_planned_ns)

    def _sleep_until(self, until_ns):
        with self._wake:
            while not self._closing and self._clock.now_ns() < until_ns:
                self._clock.wait(self._wake, until_ns)

    def _frame(self, observation, t) -> Frame:
        def at(values, otherwise=None):
            return otherwise if values is None else values[0, t]

        return Frame(
            index=self._status.frame + 1, stamp_ns=self._sim.tick(), rgb=observation.rgb[0, t],
            depth_m=at(observation.depth_m), start_pose=self._start_pose,
            base_pose=observation.base_pose[0, t], base_twist=observation.base_twist[0, t],
            base_pose_cov=at(observation.base_pose_cov),
            joint_position=observation.joint_position[0, t],
            joint_velocity=observation.joint_velocity[0, t],
            contact=float(observation.contact[0, t]),
            uncertainty=float(at(observation.uncertainty, 0.0)),
            calibrated=bool(at(observation.calibrated, True)))

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
            late_frames=self._status.late_frames + bool(late))

    def _fail(self, error):
        """Stop sim time; the last frame is not repeated, and only a reset goes on."""
        self._rollout = None
        text = f'The world stopped: {type(error).__name__}: {error}'
        self._log.error(f'{text}\n{"".join(traceback.format_exception(error))}')
        self._tell_status(state=ERROR, message=text, frame_rate_hz=0.0, real_time_factor=0.0)

    def _tell_status(self, **changes):
        self._status = replace(self._status, rejected_embeddings=self._rejected_embeddings,
                               **changes)
        for observer in self._observers:
            observer.on_status(self._status)


class _Refused(SpecError):
    """A request that cannot be granted now; the world goes on as it was."""


def _check_finite(observation):
    """Refuse what no consumer should ever see; an engine that diverged says so here."""
    for name, value in vars(observation).items():
        if isinstance(value, np.ndarray) and value.dtype.kind == 'f':
            if not np.isfinite(value).all():
                raise ValueError(f'{name} of the engine is not finite')
