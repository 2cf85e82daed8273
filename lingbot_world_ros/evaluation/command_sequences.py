# SPDX-License-Identifier: Apache-2.0
"""
Random command sequences that look like somebody drives a robot; engine-free, NumPy only.

The dataset and the evaluation draw from the same process with disjoint seeds. Axes: n steps,
a action columns in the order of the layout: base v_x [m/s], w_z [rad/s], joint velocities.
"""
from typing import Dict, List, Tuple

from lingbot_world_ros.actions.layout import ANGULAR, LINEAR, robot_action_layout, velocity_name
from lingbot_world_ros.robots.robot import Robot
import numpy as np

# Base manoeuvres and how often each is drawn; standing is the robot working with its arm.
BASE_MODES = {'drive': 0.24, 'arc': 0.16, 'turn': 0.22, 'back': 0.10, 'wander': 0.10,
              'stand': 0.18}
# The same for the arm. 'hold' is never drawn for an arm segment that starts while standing.
ARM_MODES = {'reach': 0.45, 'single': 0.20, 'wander': 0.20, 'hold': 0.15}


def command_sequence(robot: Robot, num_steps: int, rng: np.random.Generator,
                     rate_hz: float = 15.0) -> np.ndarray:
    """
    Draw one command sequence.

    The base strings together manoeuvres of 0.5 to 4 s (drive straight, drive an arc, turn on the
    spot, back up and turn away, wander by an Ornstein-Uhlenbeck process, stand); it stands for
    about a fifth of the time, and then the arm moves. The arm reaches for random postures,
    moves single joints, wanders or holds; its targets reach past the joint limits now and then.

    :param robot: that is driven: limits of base and joints, and where they start
    :param num_steps: length n
    :param rng: the only source of randomness; the same state gives the same bytes
    :param rate_hz: steps per second
    :return: (n, a) float32, within the limits
    """
    layout = robot_action_layout(robot)
    base_columns = [layout.names.index(name) for name in (LINEAR, ANGULAR)]
    joint_columns = [layout.names.index(velocity_name(name)) for name in robot.joint_names]
    commands = np.zeros((num_steps, len(layout.dims)), np.float32)
    commands[:, base_columns], standing = _base_commands(
        layout.low[base_columns], layout.high[base_columns], num_steps, rng, rate_hz)
    commands[:, joint_columns] = _arm_commands(robot, standing, rng, rate_hz)
    return np.clip(commands, layout.low, layout.high)


def command_sequences(robot: Robot, num_sequences: int, num_steps: int, seed: int,
                      rate_hz: float = 15.0) -> np.ndarray:
    """
    Draw several sequences, each from its own generator: a longer list starts with a shorter one.

    :param robot: that is driven
    :param num_sequences: how many
    :param num_steps: length n of each
    :param seed: names the set
    :param rate_hz: steps per second
    :return: (num_sequences, n, a) float32
    """
    streams = np.random.SeedSequence(seed).spawn(num_sequences)
    return np.stack([command_sequence(robot, num_steps, np.random.default_rng(s), rate_hz)
                     for s in streams])


def ornstein_uhlenbeck(num_steps: int, size: int, time_constant: float,
                       rng: np.random.Generator) -> np.ndarray:
    """
    Draw a stationary Ornstein-Uhlenbeck process of unit variance.

    :param num_steps: n
    :param size: independent columns
    :param time_constant: correlation time in steps
    :param rng: randomness
    :return: (n, size) float64
    """
    keep = np.exp(-1.0 / time_constant)
    noise = rng.standard_normal((num_steps, size))
    out = np.empty_like(noise)
    out[0] = noise[0]
    for i in range(1, num_steps):
        out[i] = keep * out[i - 1] + np.sqrt(1.0 - keep * keep) * noise[i]
    return out


def _draw(modes: Dict[str, float], rng: np.random.Generator) -> str:
    weights = np.array(list(modes.values()))
    return str(rng.choice(list(modes), p=weights / weights.sum()))


def _base_commands(low: np.ndarray, high: np.ndarray, num_steps: int, rng: np.random.Generator,
                   rate_hz: float) -> Tuple[np.ndarray, np.ndarray]:
    """Return (n, 2) commands and the (n,) bool mask of standing."""
    parts: List[np.ndarray] = []
    standing: List[np.ndarray] = []
    total = 0
    while total < num_steps:
        mode = _draw(BASE_MODES, rng)
        part = _base_segment(mode, low, high, rng, rate_hz)
        parts.append(part)
        standing.append(np.full(len(part), mode == 'stand'))
        total += len(part)
    return np.concatenate(parts)[:num_steps], np.concatenate(standing)[:num_steps]


def _base_segment(mode: str, low: np.ndarray, high: np.ndarray, rng: np.random.Generator,
                  rate_hz: float) -> np.ndarray:
    """Return (k, 2) commands of one manoeuvre."""
    def steps(shortest_s: float, longest_s: float) -> int:
        return max(1, int(round(rng.uniform(shortest_s, longest_s) * rate_hz)))

    side = rng.choice((-1.0, 1.0))
    fast, spin, back = high[0], high[1], low[0]
    if mode == 'drive':
        out = np.zeros((steps(1.0, 3.5), 2))
        out[:, 0] = fast * rng.uniform(0.45, 1.0)
        out[:, 1] = 0.08 * spin * ornstein_uhlenbeck(len(out), 1, rate_hz, rng)[:, 0]
        return out
    if mode == 'arc':
        return np.tile([fast * rng.uniform(0.4, 0.9), side * spin * rng.uniform(0.15, 0.7)],
                       (steps(1.0, 3.0), 1))
    if mode == 'turn':
        return np.tile([0.0, side * spin * rng.uniform(0.3, 1.0)], (steps(0.6, 2.2), 1))
    if mode == 'back':
        away = np.tile([back * rng.uniform(0.4, 1.0), 0.0], (steps(0.6, 1.6), 1))
        turn = np.tile([0.0, side * spin * rng.uniform(0.5, 1.0)], (steps(0.8, 2.0), 1))
        return np.concatenate([away, turn])
    if mode == 'wander':
        noise = ornstein_uhlenbeck(steps(2.0, 4.0), 2, rate_hz, rng)
        return np.array([0.4 * fast, 0.0]) + noise * np.array([0.4 * fast, 0.5 * spin])
    return np.zeros((steps(1.5, 4.0), 2))  # stand


def _arm_commands(robot: Robot, standing: np.ndarray, rng: np.random.Generator,
                  rate_hz: float) -> np.ndarray:
    """Return (n, j) joint velocities; ``q`` follows the arm as far as it can be known blindly."""
    limits = robot.joint_array('max_speed').astype(np.float32).astype(np.float64)
    low, high = robot.joint_array('low'), robot.joint_array('high')
    q, total = robot.joint_array('home'), 0
    parts: List[np.ndarray] = []
    while total < len(standing):
        mode = _draw(ARM_MODES, rng)
        if standing[total] and mode == 'hold':
            mode = 'reach'
        part = _arm_segment(mode, q, low, high, limits, rng, rate_hz)
        if mode == 'hold':  # ends where the base stops: a standing robot moves its arm
            stop = np.flatnonzero(standing[total:total + len(part)])
            part = part[:stop[0]] if len(stop) else part
        q = np.clip(q + part.sum(0) / rate_hz, low, high)
        parts.append(part)
        total += len(part)
    return np.concatenate(parts)[:len(standing)]


def _arm_segment(mode: str, q: np.ndarray, low: np.ndarray, high: np.ndarray, limits: np.ndarray,
                 rng: np.random.Generator, rate_hz: float) -> np.ndarray:
    """Return (k, j) joint velocities of one arm movement from posture ``q``."""
    if mode == 'reach':
        return _reach(q, low, high, limits, rng, rate_hz)
    k = max(1, int(round(rng.uniform(0.6, 2.0) * rate_hz)))
    if mode == 'single':
        out = np.zeros((k, len(q)))
        joint = rng.integers(len(q))
        out[:, joint] = rng.choice((-1.0, 1.0)) * limits[joint] * rng.uniform(0.3, 1.0)
        return out
    if mode == 'wander':
        return 0.5 * limits * ornstein_uhlenbeck(k, len(q), 0.7 * rate_hz, rng)
    return np.zeros((k, len(q)))  # hold


def _reach(q: np.ndarray, low: np.ndarray, high: np.ndarray, limits: np.ndarray,
           rng: np.random.Generator, rate_hz: float) -> np.ndarray:
    """Move all joints to a random posture, each at its own pace; one in five past a limit."""
    span = high - low
    target = rng.uniform(low, high)
    past = np.where(rng.random(len(q)) < 0.5, low - 0.3 * span, high + 0.3 * span)
    target = np.where(rng.random(len(q)) < 0.2, past, target)
    velocity = np.sign(target - q) * limits * rng.uniform(0.35, 1.0, len(q))
    move_s = np.abs(target - q) / np.maximum(np.abs(velocity), 1e-9)
    k = max(1, int(np.ceil(min(move_s.max(), 2.5) * rate_hz)))
    left = np.clip(move_s[None] * rate_hz - np.arange(k)[:, None], 0.0, 1.0)
    return velocity * left
