# SPDX-License-Identifier: Apache-2.0
"""Columns of a recording in the order of who reads them: base commands, joints of a robot."""
from typing import Optional

from lingbot_world_ros.recording.aligned import AlignedRecording
from lingbot_world_ros.robots.robot import Robot
import numpy as np


def commands_of(recording: AlignedRecording) -> np.ndarray:
    """Return the base commands of all frames, (n, 3) v_x, v_y, w_z; 0 without a column."""
    out = np.zeros((recording.num_frames, 3))
    for axis, name in enumerate(('linear_x', 'linear_y', 'angular_z')):
        if recording.action is not None and name in recording.action_names:
            out[:, axis] = recording.action[:, recording.action_names.index(name)]
    if recording.action is not None and 'steering_angle' in recording.action_names:
        out[:, 2] = recording.action[:, recording.action_names.index('steering_angle')]
    return out


def joints_of(recording: AlignedRecording, robot: Optional[Robot]) -> np.ndarray:
    """Return the positions of a robot's joints, (n, j), in its order."""
    if robot is None or not robot.joints:
        return np.zeros((recording.num_frames, 0))
    assert recording.joint_position is not None
    columns = [recording.joint_names.index(name) for name in robot.joint_names]
    return np.asarray(recording.joint_position)[:, columns]
