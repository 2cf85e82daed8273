# SPDX-License-Identifier: Apache-2.0
"""
The explicit state of the embedded world and how a predicted motion moves it.

Works on torch tensors (training) and NumPy arrays (running), so that both integrate alike.
Axes: b batch, j joint, k movable object.
"""
from dataclasses import dataclass
from typing import Any, Mapping

Array = Any  # of torch or of NumPy


@dataclass
class RoomState:
    """
    State of a batch of worlds.

    ``pose`` (b, 3) and ``objects`` (b, k, 3) are x, y [m], yaw [rad] in the scene frame;
    ``twist`` (b, 3) and ``object_motion`` (b, k, 3, metres and radians of the last frame) in
    base_link; ``joints`` (b, j) rad or m and ``joint_speed`` (b, j) per second; ``hidden``
    (b, h); ``variance`` (b, 2 + j + k) of position (per axis), yaw, joints, object position since
    the state was known exactly [m^2, rad^2].
    """

    pose: Array
    twist: Array
    joints: Array
    joint_speed: Array
    objects: Array
    object_motion: Array
    hidden: Array
    variance: Array


def advance(state: RoomState, out: Mapping[str, Array], low: Array, high: Array,
            xp: Any) -> RoomState:
    """
    Apply one frame's predicted motion to a state.

    :param state: the state before
    :param out: motion (b, 3), twist, joint_motion, joint_speed, object_motion, hidden, growth, as
        ``Dynamics.forward`` returns them; base and objects move in base_link axes of ``state``
    :param low: (j,) joint limits; a prediction may not leave them by more than 2 % of the span
    :param high: (j,)
    :param xp: array module of the state: numpy or torch
    :return: the state after
    """
    c, s = xp.cos(state.pose[:, 2:3]), xp.sin(state.pose[:, 2:3])
    slack = 0.02 * (high - low)
    joints = xp.minimum(xp.maximum(state.joints + out['joint_motion'], low - slack), high + slack)
    travel = (out['motion'][:, :2] ** 2).sum(-1)
    variance = state.variance + out['growth']
    # An error in yaw turns into one of position while the base travels.
    position = variance[:, :1] + (state.variance[:, 1] * travel)[:, None]
    return RoomState(_moved(state.pose, out['motion'], c[:, 0], s[:, 0], xp), out['twist'], joints,
                     out['joint_speed'], _moved(state.objects, out['object_motion'], c, s, xp),
                     out['object_motion'], out['hidden'],
                     xp.concatenate([position, variance[:, 1:]], 1))


def _moved(pose: Array, motion: Array, c: Array, s: Array, xp: Any) -> Array:
    dx, dy = motion[..., 0], motion[..., 1]
    return xp.stack([pose[..., 0] + c * dx - s * dy, pose[..., 1] + s * dx + c * dy,
                     pose[..., 2] + motion[..., 2]], -1)
