# SPDX-License-Identifier: Apache-2.0
"""
How a base follows its commands: gain, lag and delay of each axis. NumPy only.

A frame's twist moves towards what was commanded ``delay_frames`` ago, and moves the base for the
frame that follows. A base that is steered like a car turns in proportion to how fast it drives.
Axes: n frame, b row.
"""
from dataclasses import dataclass
from typing import Tuple

from lingbot_world_ros.geometry import se2
import numpy as np


@dataclass(frozen=True)
class Motion:
    """
    A first-order follower.

    ``gain`` and ``follow`` are those of v_x, v_y and w_z: a twist's share of the command, and how
    much of the way to it is made in a frame, 0 to 1. ``growth`` is the variance that a frame adds
    to position [m^2] and yaw [rad^2].
    """

    gain: Tuple[float, float, float] = (1.0, 1.0, 1.0)
    follow: Tuple[float, float, float] = (1.0, 1.0, 1.0)
    delay_frames: int = 0
    is_steered: bool = False
    growth: Tuple[float, float] = (0.0, 0.0)

    def next_twist(self, twist: np.ndarray, command: np.ndarray) -> np.ndarray:
        """
        Follow a command for a frame.

        :param twist: (b, 3) v_x, v_y [m/s], w_z [rad/s]
        :param command: (b, 3) what was commanded ``delay_frames`` ago
        :return: (b, 3) the twist of the frame that follows
        """
        target = np.asarray(command) * self.gain
        out = twist + (target - twist) * self.follow
        if self.is_steered:
            out[:, 2] = twist[:, 2] + (target[:, 2] * out[:, 0] - twist[:, 2]) * self.follow[2]
        return out

    def twists(self, commands: np.ndarray) -> np.ndarray:
        """
        Follow commands from rest, all at once.

        :param commands: (n, 3)
        :return: (n, 3) twist of the frame that begins with each, as ``next_twist`` gives them
        """
        from scipy.signal import lfilter  # who only drives needs no SciPy
        held = np.zeros_like(commands, dtype=np.float64)
        if self.delay_frames < len(commands):
            held[self.delay_frames:] = commands[:len(commands) - self.delay_frames]
        out = held * self.gain
        for axis, follow in enumerate(self.follow):
            if axis == 2 and self.is_steered:
                out[:, 2] *= out[:, 0]
            out[:, axis] = lfilter([follow], [1.0, follow - 1.0], out[:, axis])
        return out


def path(twists: np.ndarray, dt_s: float) -> np.ndarray:
    """
    Drive along twists from the origin.

    :param twists: (n, 3) of each frame
    :param dt_s: duration of a frame
    :return: (n + 1, 3) poses
    """
    step = se2.exponential(np.asarray(twists, np.float64), dt_s)
    yaw = np.concatenate([[0.0], np.cumsum(step[:, 2])])
    xy = np.concatenate([np.zeros((1, 2)), np.cumsum(se2.rotated(step[:, :2], yaw[:-1]), 0)])
    return np.column_stack([xy, yaw])
