# SPDX-License-Identifier: Apache-2.0
"""A tiny deterministic engine and clock for tests: kinematics exact, images made of the state."""
from contextlib import contextmanager
from dataclasses import replace
import threading

from lingbot_world_ros.actions.layout import joint_velocities_of, robot_action_layout, twists_of
from lingbot_world_ros.engines.interface import (Capabilities, Observation, Start, WorldModel,
                                                 WorldSpec)
from lingbot_world_ros.engines.rows import check_actions, check_state, chosen_rows, row_starts
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.robots.load import load_robot
import numpy as np
from waiting import PATIENCE_S

CAMERA = load_robot().camera
# Its servos follow at once, so that motion can be worked out by hand.
SMALL_ROBOT = replace(load_robot().with_camera(PinholeCamera.from_fovy(
    32, 24, np.deg2rad(60.0)).mounted(CAMERA.position_m, CAMERA.rpy_rad)),
                      description='').with_quick_joints()


class FakeWorld(WorldModel):
    """Integrates actions without limits of physics; ``script`` maps a step number to a fault."""

    def __init__(self, robot=SMALL_ROBOT, frames_per_step=1, script=None, scenes=('a', 'b'),
                 has_depth=True):
        self.spec = WorldSpec(engine='fake', model='fake 1', scenes=scenes, robot=robot,
                              action=robot_action_layout(robot), frames_per_step=frames_per_step,
                              predicted_states=('base', 'joints', 'contact'), has_depth=has_depth,
                              can=Capabilities(render=True))
        self.script = script or {}
        self.actions = []
        self.closed = False

    def reset(self, scenes, seeds, rows=None, *, render=True, start=None):
        (_, scene, seed), = row_starts(scenes, seeds, rows, 1, self.spec)
        self._pose = np.array([1.0, 2.0, 0.1 * seed])
        self._q = self.spec.robot.joint_array('home')
        self._scene, self._step, self._cov = scene, 0, 0.0
        return self._observe([self._state(np.zeros(3), np.zeros_like(self._q))])

    def step(self, actions, render=True):
        check_actions(actions, 1, self.spec)
        self._step += 1
        fault = self.script.get(self._step)
        if isinstance(fault, Exception):
            raise fault
        self.actions.append(actions.copy())
        states, names, dt = [], self.spec.action.names, 1.0 / self.spec.frame_rate_hz
        for twist, speed in zip(twists_of(actions[0], names), joint_velocities_of(
                actions[0], names, self.spec.robot.joint_names)):
            self._pose = self._pose + dt * se2.rotated(twist, self._pose[2])
            self._q = self._q + dt * speed
            self._cov += 0.01
            states.append(self._state(twist, speed))
        observation = self._observe(states)
        if fault == 'nan':
            observation.base_pose[...] = np.nan
        if callable(fault):
            fault()
        return observation

    def observe(self, observation, render=True):
        self._pose = observation.base_pose[0, -1].copy()
        self._q = observation.joint_position[0, -1].copy()
        self._cov = 0.0
        return self._observe([self._state(observation.base_twist[0, -1], np.zeros_like(self._q))])

    def render(self, state):
        if not self.spec.can.render:
            return super().render(state)
        check_state(state, 1, len(self.object_names(self._scene)), self.spec)
        kept = self._pose, self._q
        self._pose, self._q = state.base_pose[0], state.joint_position[0]
        shown = self._observe([self._state(np.zeros(3), np.zeros_like(self._q))])
        self._pose, self._q = kept
        return shown

    def snapshot(self, rows=None):
        chosen_rows(rows, 1)
        return self._scene, self._step, self._pose.copy(), self._q.copy(), self._cov

    def restore(self, snapshot, rows=None):
        chosen_rows(rows, 1)
        self._scene, self._step, pose, q, self._cov = snapshot
        self._pose, self._q = pose.copy(), q.copy()

    def object_names(self, scene):
        return ()

    def close(self):
        self.closed = True

    def _state(self, twist, qd):
        return dict(base_pose=self._pose.copy(), base_twist=np.array(twist, float),
                    joint_position=self._q.copy(), joint_velocity=np.array(qd, float),
                    base_pose_cov=self._cov * np.eye(3))

    def _observe(self, states):
        camera, n = self.spec.camera, len(states)
        columns = {k: np.stack([s[k] for s in states])[None] for k in states[0]}
        shape = (1, n, camera.height_px, camera.width_px)
        rgb = np.zeros((*shape, 3), np.uint8)
        rgb[..., 0] = self._step % 256
        rgb[..., 1] = int(abs(self._pose[0]) * 100) % 256
        rgb[..., 2] = ord(self._scene[0])
        return Observation(rgb=rgb, contact=np.zeros((1, n), np.float32),
                           object_pose=np.zeros((1, n, 0, 3)),
                           depth_m=np.ones(shape, np.float32) if self.spec.has_depth else None,
                           uncertainty=np.full((1, n), 0.05, np.float32),
                           calibrated=np.ones((1, n), bool), **columns)


class FakeClock:
    """Steady time that only moves when somebody waits, or by hand."""

    def __init__(self):
        self.time_ns = 1_000_000_000

    def now_ns(self):
        return self.time_ns

    def wait(self, condition, until_ns):
        if until_ns is None:
            condition.wait()
        else:
            self.time_ns = max(self.time_ns, until_ns)


class SharedClock(FakeClock):
    """Fake time of a worker and its engine's thread: it moves on when both of them wait."""

    def __init__(self):
        super().__init__()
        self.engine = None  # of the session, to know whether it works
        self._work = None

    def work(self, duration_ns):
        """Take this long; called by the engine."""
        if duration_ns:
            done = threading.Event()
            self._work = self.time_ns + duration_ns, done
            assert done.wait(PATIENCE_S)

    def wait(self, condition, until_ns):
        if self._work is not None and (until_ns is None or self._work[0] <= until_ns):
            (self.time_ns, done), self._work = self._work, None
            done.set()
        elif self._work is None and self.engine is not None and not self.engine.is_free:
            condition.wait(0.001)
        else:
            super().wait(condition, until_ns)


class FakeChunkWorld(FakeWorld):
    """
    Many frames per step, a prompt, an image to start from; steps can be taken back.

    ``takes_ns`` maps a step, from 1 and counted with those that were taken back, to how long it
    is made; ``finish_ns`` and ``fail_finish`` are for ``finish_step``. The red of each image
    counts frames, its green shows the prompt and its blue the image the world goes on from.
    """

    def __init__(self, frames_per_step=12, clock=None, takes_ns=lambda step: 0, finish_ns=0,
                 fail_finish=(), script=None, cheap_snapshots=False):
        super().__init__(frames_per_step=frames_per_step, script=script, has_depth=False)
        self.spec = replace(self.spec, can=Capabilities(
            take_prompts=True, take_images=True, take_poses=False, finish_step=True,
            undo_step=True, snapshot_cheaply=cheap_snapshots))
        self.clock, self.takes_ns, self.finish_ns = clock, takes_ns, finish_ns
        self.fail_finish = list(fail_finish)
        self.calls, self.starts = [], []
        self._num_made = 0
        self._lock = threading.Lock()

    def reset(self, scenes, seeds, rows=None, *, render=True, start=None):
        with self._one_call('reset'):
            row_starts(scenes, seeds, rows, 1, self.spec)
            self.starts.append(start)
            start = start or Start()
            if 'missing.png' in start.images:
                raise SpecError('missing.png is not there')
            self._prompt, self._image, self._undo = start.prompt, 0, None
            self._frame, self._is_finished = 0, True
            return super().reset(scenes, seeds, rows)

    def step(self, actions, render=True):
        with self._one_call('step'):
            assert self._is_finished, 'finish_step was left out'
            before = self.snapshot()
            self._num_made += 1
            if self.clock is not None:
                self.clock.work(self.takes_ns(self._num_made))
            self._step = self._num_made - 1  # what the script counts
            try:
                observation = super().step(actions)
            except Exception:
                self.restore(before)
                raise
            self._undo, self._is_finished = before, False
            return observation

    def finish_step(self):
        with self._one_call('finish'):
            if self.clock is not None:
                self.clock.work(self.finish_ns)
            if self.fail_finish:
                raise self.fail_finish.pop(0)
            assert not self._is_finished
            self._is_finished = True

    def undo_step(self):
        with self._one_call('undo'):
            prompt = self._prompt
            self.restore(self._undo)
            self._undo, self._prompt = None, prompt
            self.actions.pop()

    def set_prompt(self, text):
        with self._one_call('prompt'):
            self._prompt = text

    def observe(self, observation, render=True):
        with self._one_call('observe'):
            if observation.rgb is not None:
                self._image = int(observation.rgb[0, 0, 0, 0, 0])
            shown = super().observe(observation)
            return shown if observation.rgb is not None else replace(shown, rgb=None)

    def snapshot(self, rows=None):
        return (*super().snapshot(), self._prompt, self._image, self._frame, self._is_finished)

    def restore(self, snapshot, rows=None):
        *state, self._prompt, self._image, self._frame, self._is_finished = snapshot
        super().restore(state)

    @contextmanager
    def _one_call(self, name):
        assert self._lock.acquire(blocking=False), 'two calls at once'
        self.calls.append(name)
        try:
            yield
        finally:
            self._lock.release()

    def _observe(self, states):
        observation = super()._observe(states)
        for t in range(len(states)):
            observation.rgb[0, t, ..., 0] = self._frame % 256
            self._frame += 1
        observation.rgb[..., 1] = len(self._prompt)
        observation.rgb[..., 2] = self._image
        return replace(observation, uncertainty=None, calibrated=None)
