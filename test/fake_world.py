# SPDX-License-Identifier: Apache-2.0
"""A tiny deterministic engine and clock for tests: kinematics exact, images made of the state."""
from dataclasses import replace

from lingbot_world_ros.worlds.robot import CameraSpec, ROBOT, RobotSpec
from lingbot_world_ros.worlds.world_model import Observation, robot_action_layout, WorldSpec
import numpy as np

# Its servos follow at once, so that motion can be worked out by hand.
SMALL_ROBOT = RobotSpec(camera=CameraSpec(width_px=32, height_px=24),
                        joints=tuple(replace(joint, lag_s=0.0) for joint in ROBOT.joints))


class FakeWorld:
    """Integrates actions without limits of physics; ``script`` maps a step number to a fault."""

    def __init__(self, robot=SMALL_ROBOT, frames_per_step=1, script=None, scenes=('a', 'b'),
                 has_depth=True):
        self.spec = WorldSpec(engine='fake', model='fake 1', scenes=scenes, robot=robot,
                              action=robot_action_layout(robot), frames_per_step=frames_per_step,
                              predicted_states=('base', 'joints'), has_depth=has_depth)
        self.script = script or {}
        self.actions = []
        self.closed = False

    def reset(self, scene, seed):
        self._pose = np.array([1.0, 2.0, 0.1 * seed])
        self._q = ROBOT.joint_array('home')
        self._scene, self._step, self._cov = scene, 0, 0.0
        return self._observe([self._state(np.zeros(3), np.zeros(5))])

    def step(self, actions, render=True):
        self._step += 1
        fault = self.script.get(self._step)
        if isinstance(fault, Exception):
            raise fault
        self.actions.append(actions.copy())
        states = []
        for action in actions[0]:
            dt = 1.0 / self.spec.frame_rate_hz
            c, s = np.cos(self._pose[2]), np.sin(self._pose[2])
            self._pose = self._pose + dt * np.array([c * action[0], s * action[0], action[1]])
            self._q = self._q + dt * action[2:]
            self._cov += 0.01
            states.append(self._state([action[0], 0.0, action[1]], action[2:]))
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
        return self._observe([self._state(observation.base_twist[0, -1], np.zeros(5))])

    def snapshot(self):
        return self._scene, self._step, self._pose.copy(), self._q.copy(), self._cov

    def restore(self, snapshot):
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
