# SPDX-License-Identifier: Apache-2.0
"""
Keys -> base and joint velocities, with nothing but a stream of characters. No ROS, no terminal.

A terminal tells when a key is pressed and repeats it while it is held, but never when it is let
go. So a press moves for ``FIRST_S`` (longer than the wait before the first repeat) and each
repeat for ``REPEAT_S`` more; then the motion ends by itself.
"""
from math import inf
from typing import Dict, List, Sequence, Tuple

from lingbot_world_ros.robots.drive import steered
import numpy as np

FIRST_S, REPEAT_S = 0.6, 0.25
BASE_KEYS = {  # share of the speeds forward, to the left and of the turn
    'w': (1.0, 0.0, 0.0), 's': (-1.0, 0.0, 0.0), 'a': (0.0, 0.0, 1.0), 'd': (0.0, 0.0, -1.0),
    'up': (1.0, 0.0, 0.0), 'down': (-1.0, 0.0, 0.0),
    'left': (0.0, 0.0, 1.0), 'right': (0.0, 0.0, -1.0)}
ARC_KEYS = {'q': (1.0, 0.0, 1.0), 'e': (1.0, 0.0, -1.0)}
STRAFE_KEYS = {'q': (0.0, 1.0, 0.0), 'e': (0.0, -1.0, 0.0)}  # in their place, where it can
JOINT_KEYS = (('u', 'j'), ('i', 'k'), ('o', 'l'), ('y', 'h'), ('t', 'g'), ('f', 'v'), ('[', "'"))
ARROWS = {'\x1b[A': 'up', '\x1b[B': 'down', '\x1b[C': 'right', '\x1b[D': 'left'}
FASTER, SLOWER, STOP = '+', '-', ' '
SCALES = (0.1, 0.25, 0.5, 0.75, 1.0)


def split_keys(text: str) -> List[str]:
    """
    Cut what a terminal sent into keys.

    :param text: characters, with escape sequences for arrows
    :return: one name per key: a lower-case character, or up, down, left, right, escape
    """
    keys = []
    while text:
        arrow = ARROWS.get(text[:3].replace('\x1bO', '\x1b['))
        keys.append(arrow or ('escape' if text[0] == '\x1b' else text[0].lower()))
        text = text[3:] if arrow else text[1:]
    return keys


class KeyDrive:
    """Hold what the keys ask for; several keys add up as long as each is fresh."""

    def __init__(self, linear_mps: float, angular_radps: float, joint_speeds: Sequence[float],
                 lateral_mps: float = 0.0, max_curvature: float = inf) -> None:
        """
        Start with everything at rest and half the speeds.

        :param linear_mps: largest forward speed
        :param angular_radps: largest turn rate
        :param joint_speeds: (J,) largest joint speeds, rad/s or m/s
        :param lateral_mps: largest speed sideways, 0 for a base that does not strafe
        :param max_curvature: 1/m, of the way of a base that is steered
        """
        self._speeds, self._max_curvature = (linear_mps, lateral_mps, angular_radps), max_curvature
        self._base_keys = {**BASE_KEYS, **(STRAFE_KEYS if lateral_mps else ARC_KEYS)}
        self._joint_speeds = np.asarray(joint_speeds, dtype=float)
        self._until_s: Dict[str, float] = {}
        self._scale = SCALES.index(0.5)
        self._joints = {key: (joint, sign)
                        for joint, pair in zip(range(len(joint_speeds)), JOINT_KEYS)
                        for key, sign in zip(pair, (1.0, -1.0))}

    @property
    def scale(self) -> float:
        """Share of the largest speeds that keys ask for."""
        return SCALES[self._scale]

    def press(self, key: str, now_s: float) -> None:
        """Take over one key of ``split_keys``; keys without a meaning are ignored."""
        if key == STOP:
            self._until_s.clear()
        elif key in (FASTER, '='):
            self._scale = min(self._scale + 1, len(SCALES) - 1)
        elif key in (SLOWER, '_'):
            self._scale = max(self._scale - 1, 0)
        elif key in self._base_keys or key in self._joints:
            held = self._until_s.get(key, 0.0) > now_s
            until_s = now_s + (REPEAT_S if held else FIRST_S)
            self._until_s[key] = max(self._until_s.get(key, 0.0), until_s)

    def velocities(self, now_s: float) -> Tuple[Tuple[float, float, float], np.ndarray]:
        """
        Read what is asked for.

        :param now_s: wall time
        :return: v_x, v_y [m/s] and w_z [rad/s]; (J,) joint velocities
        """
        self._until_s = {k: until_s for k, until_s in self._until_s.items() if until_s > now_s}
        base, joints = np.zeros(3), np.zeros(len(self._joint_speeds))
        for key in self._until_s:
            if key in self._base_keys:
                base += self._base_keys[key]
            else:
                joint, sign = self._joints[key]
                joints[joint] += sign
        base = np.clip(base, -1.0, 1.0) * self._speeds * self.scale
        joints = np.clip(joints, -1.0, 1.0) * self._joint_speeds * self.scale
        base[2] = steered(base[0], base[2], self._max_curvature)
        v_x, v_y, w_z = base.tolist()
        return (v_x, v_y, w_z), joints
