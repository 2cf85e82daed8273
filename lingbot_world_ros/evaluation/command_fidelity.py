# SPDX-License-Identifier: Apache-2.0
"""
Command fidelity: does the imagined robot do what it is told? One command, many start states.

A trial is right when the imagined outcome is closer to the true outcome of its command than to
the true outcome of the opposite command. Axes: b trials, c commands, j joint, h w image.
"""
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import cv2
from lingbot_world_ros.engines.interface import Observation, WorldModel, WorldSpec
from lingbot_world_ros.evaluation.metrics import mean_squared_error
from lingbot_world_ros.evaluation.rollouts import FIRST_HELD_OUT_SEED
from lingbot_world_ros.geometry import se2
import numpy as np

FIRST_SEED = FIRST_HELD_OUT_SEED + 50_000_000
DURATION_FRAMES = 8
MOVED_SHARE = 0.4  # of the commanded way that the true robot must go, else it was blocked
SEEN_RMS = 2.0 / 255.0  # least difference of the two true outcomes for the image to tell
MAX_DRAWS_PER_TRIAL = 5


@dataclass(frozen=True)
class Command:
    """One constant command; ``opposite`` is the row of the one that undoes it."""

    name: str
    column: int
    value: float
    opposite: int


def sign_commands(spec: WorldSpec) -> Tuple[Command, ...]:
    """
    Both directions of every action column.

    Half of the highest speed, or less where a joint would cross more than 40 % of its range.

    :param spec: names the action layout, the joints and the frame rate
    :return: the commands; opposites are neighbours
    """
    duration_s = DURATION_FRAMES / spec.frame_rate_hz
    names = [('forward', 'backward'), ('turn left', 'turn right')]
    names += [(f'{j.name} +', f'{j.name} -') for j in spec.joints]
    commands: List[Command] = []
    for column, pair in enumerate(names):
        dim, cap = spec.action.dims[column], np.inf
        if column >= 2:
            joint = spec.joints[column - 2]
            cap = 0.4 * (joint.high - joint.low) / duration_s
        values = (min(0.5 * dim.high, cap), max(0.5 * dim.low, -cap))
        for name, value in zip(pair, values):
            row = len(commands)
            commands.append(Command(name, column, float(value), row ^ 1))
    return tuple(commands)


def command_fidelity(world: WorldModel, reference: WorldModel, batch_size: int, num_trials: int,
                     progress: Optional[Callable[[int], object]] = None
                     ) -> Dict[str, Dict[str, Any]]:
    """
    Count right outcomes per command.

    Trials in which the true robot is blocked (joint limit, contact) are skipped, and so are
    those whose two true outcomes look the same; other start states are drawn for them.

    :param world: what is tested, ``batch_size`` worlds
    :param reference: the truth, ``batch_size`` worlds, with ``arm_mask=True``
    :param batch_size: worlds side by side
    :param num_trials: wanted per command
    :param progress: called with the number of start states done after every batch
    :return: command name -> counts and shares, see ``_summary``
    """
    commands = sign_commands(world.spec)
    parts: List[Dict[str, np.ndarray]] = []
    drawn = 0
    while drawn < MAX_DRAWS_PER_TRIAL * num_trials:
        scene = world.spec.scenes[len(parts) % len(world.spec.scenes)]
        seeds = [FIRST_SEED + drawn + i for i in range(batch_size)]
        parts.append(_verdicts(_outcomes(world, scene, seeds, commands),
                               _outcomes(reference, scene, seeds, commands), commands,
                               world.spec.frame_rate_hz))
        drawn += batch_size
        if progress is not None:
            progress(batch_size)
        if np.sum([p['valid'].sum(0) for p in parts], 0).min() >= num_trials:
            break
    verdicts = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    return {c.name: _summary(c, i, verdicts, num_trials) for i, c in enumerate(commands)}


def _outcomes(world: WorldModel, scene: str, seeds: Sequence[int],
              commands: Sequence[Command]) -> Dict[str, np.ndarray]:
    """Return start state and outcome of every command from it: dict of (b, c, ...) arrays."""
    first = world.reset(scene, seeds)
    start, outcomes = world.snapshot(), []
    for command in commands:
        world.restore(start)
        action = np.zeros((len(seeds), 1, len(world.spec.action.dims)), np.float32)
        action[..., command.column] = command.value
        for i in range(DURATION_FRAMES):
            last = world.step(action, render=i == DURATION_FRAMES - 1)
        outcomes.append(last)
    found = {'rgb': np.stack([o.rgb[:, -1] for o in outcomes if o.rgb is not None], 1),
             'way': np.stack([_way(first, o) for o in outcomes], 1)}
    if 'arm_mask' in first.extra:
        found['arm'] = np.stack([o.extra['arm_mask'][:, -1] for o in outcomes], 1)
    return found


def _way(first: Observation, last: Observation) -> np.ndarray:
    """Return how far every action column went, (b, a): m forward, rad turned, joint units."""
    move = last.base_pose[:, -1] - first.base_pose[:, -1]
    forward = se2.rotated(move, -first.base_pose[:, -1, 2])[:, 0]
    joints = last.joint_position[:, -1] - first.joint_position[:, -1]
    return np.concatenate([forward[:, None], move[:, 2:], joints], 1)


def _verdicts(imagined: Dict[str, np.ndarray], true: Dict[str, np.ndarray],
              commands: Sequence[Command], rate_hz: float) -> Dict[str, np.ndarray]:
    """Return dict of (b, c) bool: blocked, seen, valid, image, arm, state."""
    rows: Dict[str, List[np.ndarray]] = {
            name: [] for name in ('blocked', 'seen', 'image', 'arm', 'state')}
    for i, command in enumerate(commands):
        o, k = command.opposite, command.column
        asked = command.value * DURATION_FRAMES / rate_hz
        rows['blocked'].append(true['way'][:, i, k] / asked < MOVED_SHARE)
        region = _dilate(true['arm'][:, i] | true['arm'][:, o])
        looked = region if k >= 2 else None
        difference = mean_squared_error(true['rgb'][:, i], true['rgb'][:, o], looked)
        rows['seen'].append(np.nan_to_num(difference) > SEEN_RMS ** 2)
        rows['image'].append(_closer(imagined, true, i, o, None))
        rows['arm'].append(_closer(imagined, true, i, o, region))
        way = imagined['way'][:, i, k]
        rows['state'].append(np.abs(way - true['way'][:, i, k])
                             < np.abs(way - true['way'][:, o, k]))
    verdicts = {name: np.stack(columns, 1) for name, columns in rows.items()}
    verdicts['valid'] = ~verdicts['blocked'] & verdicts['seen']
    return verdicts


def _closer(imagined: Dict[str, np.ndarray], true: Dict[str, np.ndarray], i: int, o: int,
            mask: Optional[np.ndarray]) -> np.ndarray:
    shown = imagined['rgb'][:, i]
    return (mean_squared_error(shown, true['rgb'][:, i], mask)
            < mean_squared_error(shown, true['rgb'][:, o], mask))


def _dilate(masks: np.ndarray) -> np.ndarray:
    kernel = np.ones((5, 5), np.uint8)
    return np.stack([cv2.dilate(m.astype(np.uint8), kernel) for m in masks]).astype(bool)


def _summary(command: Command, row: int, verdicts: Dict[str, np.ndarray],
             num_trials: int) -> Dict[str, Any]:
    """Shares over the first valid trials; ``right`` is the arm region's for arm commands."""
    valid = np.flatnonzero(verdicts['valid'][:, row])[:num_trials]
    drawn = valid[-1] + 1 if len(valid) == num_trials else len(verdicts['valid'])
    blocked = verdicts['blocked'][:drawn, row]
    shares = {name: float(verdicts[name][valid, row].mean()) if len(valid) else None
              for name in ('image', 'arm', 'state')}
    return {'value': command.value, 'trials': len(valid), 'blocked': int(blocked.sum()),
            'unseen': int((~blocked & ~verdicts['seen'][:drawn, row]).sum()),
            'right': shares['arm' if command.column >= 2 else 'image'],
            'image_right': shares['image'], 'state_right': shares['state'],
            'arm_region_right': shares['arm'] if command.column >= 2 else None}
