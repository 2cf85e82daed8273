# SPDX-License-Identifier: Apache-2.0
"""
What a policy says, between -1 and 1, as the actions that the topics would make of it. NumPy only.

A velocity on ``cmd_vel`` or ``joint_command`` passes the limits of ``CommandSpec``, the steering
of the drive and, where accelerations are limited, a ``MotionLimiter``; so does what comes here.
"""
from typing import List, Sequence

from lingbot_world_ros.actions.command_spec import CommandSpec
from lingbot_world_ros.actions.limits import BASE, Limits, MotionLimiter
from lingbot_world_ros.engines.interface import WorldSpec
from lingbot_world_ros.robots.drive import steered
import numpy as np


class PolicyCommands:
    """
    Turn rows of a policy's output into actions of a world.

    0 is rest; 1 and -1 are the largest speeds forward and backward, which may differ.
    """

    def __init__(self, spec: WorldSpec, columns: Sequence[str], num_rows: int,
                 limits: Limits = Limits()) -> None:
        """
        Prepare.

        :param spec: of the world
        :param columns: k action columns that the policy commands; all others stay at rest
        :param num_rows: n
        :param limits: on top of those of the robot, as the parameters ``limits.*`` set them
        """
        robot = spec.robot
        command = CommandSpec(
            spec.action, robot.joint_names, tuple(robot.joint_array('low')),
            tuple(robot.joint_array('high')), timeout_s=1.0, limits=limits).driven_by(robot.drive)
        self._spec, self._command = spec, command
        low, high = np.array([(dim.low, dim.high) for dim in spec.action.dims]).T
        ranges = np.array(command.twist_range)[command.base_axes]
        low[command.base_columns], high[command.base_columns] = ranges.T
        self._columns = [spec.action.names.index(name) for name in columns]
        self._low, self._high = low[self._columns], high[self._columns]
        self._limiters: List[MotionLimiter] = []
        if np.isfinite(command.acceleration).any():
            self._limiters = [
                MotionLimiter(command.acceleration, command.joint_low, command.joint_high,
                              command.max_curvature) for _ in range(num_rows)]
        self._frames = np.zeros(num_rows, int)  # since each row's start

    def clear(self, rows: np.ndarray) -> None:
        """Let rows (m,) begin at rest."""
        self._frames[rows] = 0
        for row in rows if self._limiters else ():
            self._limiters[row].clear()

    def actions(self, said: np.ndarray, num_frames: int) -> np.ndarray:
        """
        Return what the world is asked to do over the next frames.

        :param said: (n, k), what is beyond -1 and 1 counts as these
        :param num_frames: T, for which it holds
        :return: (n, T, a) float32, within the limits of the layout
        """
        said = np.clip(np.asarray(said, float), -1.0, 1.0)
        asked = np.zeros((len(said), BASE + len(self._command.joint_names)))
        flat = np.zeros((len(said), len(self._spec.action.dims)))
        flat[:, self._columns] = np.where(said < 0.0, -self._low, self._high) * said
        command = self._command
        asked[:, command.base_axes] = flat[:, command.base_columns]
        asked[:, BASE:] = flat[:, command.joint_columns]
        asked[:, 2] = steered(asked[:, 0], asked[:, 2], command.max_curvature)
        told = np.repeat(asked[:, None], num_frames, 1)
        for row, limiter in enumerate(self._limiters):
            told[row] = self._limited(limiter, told[row], int(self._frames[row]))
        self._frames += num_frames
        actions = np.zeros((*told.shape[:2], len(self._spec.action.dims)), np.float32)
        actions[..., command.base_columns] = told[..., command.base_axes]
        actions[..., command.joint_columns] = told[..., BASE:]
        return np.clip(actions, self._spec.action.low, self._spec.action.high)

    def _limited(self, limiter: MotionLimiter, asked: np.ndarray, frame: int) -> np.ndarray:
        """Keep to the accelerations in one row, (T, 3 + j); joints have no goals here."""
        num_joints = len(self._command.joint_names)
        nowhere = np.full((len(asked) + 1, num_joints), np.nan)
        period_ns = self._spec.frame_period_ns
        return limiter.limit(asked, nowhere, np.zeros(num_joints), self._command.joint_speed,
                             sim_ns=frame * period_ns, period_ns=period_ns)[0]
