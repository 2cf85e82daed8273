# SPDX-License-Identifier: Apache-2.0
"""
How good a learned place is, on the end of the recording that it has not learned from.

The world is put where the recording was and driven by the recorded commands alone. Axes: n frame.
"""
from pathlib import Path
from typing import Any, Dict, List, Sequence

import cv2
from lingbot_world_ros.engines.interface import Observation, State
from lingbot_world_ros.engines.learned.mapped import MappedWorld
from lingbot_world_ros.engines.rows import at_rest
from lingbot_world_ros.recording.aligned import AlignedRecording
from lingbot_world_ros.recording.columns import commands_of, joints_of
from lingbot_world_ros.training.mapped.learn import Learned
import numpy as np
from scipy.optimize import least_squares

HORIZONS = (0, 1, 5, 15, 30, 60)
NUM_STARTS = 24
UNTRAINED = {'floor': 0.02, 'gain': [1.0, 1.0, 1.0], 'ceiling': 0.25, 'calibrated_to': 1.0}


def rollouts(world: MappedWorld, learned: Learned, recording: AlignedRecording,
             frames: np.ndarray, shuffled: bool = False) -> List[Dict[str, Any]]:
    """
    Drive on from places of a recording.

    :param world: that imagines
    :param learned: where the recording was, in the scene
    :param recording: pictures and commands
    :param frames: (n,) consecutive ones that may be looked at
    :param shuffled: drive by the commands of another time
    :return: one dict for each start and horizon: frame, horizon, mse, copied (mse of the first
        picture), pose error, and what the world says of its uncertainty
    """
    last = max(HORIZONS)
    starts = np.linspace(frames[0] + world.motion.delay_frames + 2, frames[-1] - last - 1,
                         NUM_STARTS).astype(int)
    commands = commands_of(recording)
    twists = learned.motion.motion.twists(commands)
    joints = joints_of(recording, learned.robot)
    out: List[Dict[str, Any]] = []
    for k, start in enumerate(starts):
        told = int(starts[(k + NUM_STARTS // 2) % NUM_STARTS]) if shuffled else int(start)
        world.reset(world.spec.scenes[0], 0, render=False)
        for t in range(world.motion.delay_frames, 0, -1):  # what is under way
            world.step(_action(world, commands[told - t], joints, told - t, recording),
                       render=False)
        known = at_rest(State(learned.poses[start][None], joints[start][None],
                              np.zeros((1, 0, 3))))
        known.base_twist[0, 0] = twists[start - 1]
        seen = world.observe(known)
        first = recording.rgb[start].astype(np.float32)
        for t in range(last + 1):
            if t in HORIZONS:
                out.append(_compared(seen, recording.rgb[start + t], first, learned,
                                     int(start + t), t))
            if t < last:
                action = _action(world, commands[told + t], joints, told + t, recording)
                seen = world.step(action, render=t + 1 in HORIZONS)
    return out


def _action(world: MappedWorld, command: np.ndarray, joints: np.ndarray, i: int,
            recording: AlignedRecording) -> np.ndarray:
    """Put a command into the columns of the world's actions; joints move as they did."""
    names, layout = world.spec.action.names, world.spec.action
    row = np.zeros(len(names), np.float32)
    for axis, name in enumerate(('base.linear.x', 'base.linear.y', 'base.angular.z')):
        if name in names:
            row[names.index(name)] = command[axis]
    for j, joint in enumerate(world.spec.robot.joint_names):
        if i + 1 < len(joints):
            row[names.index(f'{joint}.velocity')] = (joints[i + 1, j] - joints[i, j]) \
                * world.spec.frame_rate_hz
    return np.clip(row, layout.low, layout.high)[None, None]


def _compared(seen: Observation, true: np.ndarray, first: np.ndarray, learned: Learned,
              frame: int, horizon: int) -> Dict[str, Any]:
    assert seen.rgb is not None
    truth = true.astype(np.float32)
    off = seen.base_pose[0, -1] - learned.poses[frame]
    return {'frame': frame, 'horizon': horizon,
            'mse': float(((seen.rgb[0, -1].astype(np.float32) - truth) ** 2).mean()) / 255 ** 2,
            'copied': float(((first - truth) ** 2).mean()) / 255 ** 2,
            'position_m': float(np.hypot(*off[:2])),
            'yaw_rad': float(abs(np.arctan2(np.sin(off[2]), np.cos(off[2])))),
            'sensitivity': seen.extra['sensitivity'][0], 'unseen': float(seen.extra['unseen'][0])}


def strip(world: MappedWorld, learned: Learned, recording: AlignedRecording, path: Path,
          num: int) -> None:
    """
    Write pictures of the held-out end, recorded above drawn.

    :param world: that draws
    :param learned: where the recording was
    :param recording: with the pictures
    :param path: PNG file
    :param num: of columns
    """
    joints, columns = joints_of(recording, learned.robot), []
    world.reset(world.spec.scenes[0], 0, render=False)
    for i in np.linspace(learned.held_out[0], learned.held_out[-1], num).astype(int):
        seen = world.render(State(learned.poses[i][None], joints[i][None], np.zeros((1, 0, 3))))
        assert seen.rgb is not None
        columns.append(np.concatenate([np.asarray(recording.rgb[i]), seen.rgb[0, 0]]))
    cv2.imwrite(str(path), np.concatenate(columns, 1)[..., ::-1])


def psnr(mse: Sequence[float]) -> np.ndarray:
    """Return PSNR [dB] of mean squared errors."""
    return -10.0 * np.log10(np.maximum(np.asarray(mse), 1e-10))


def summary(rows: List[Dict[str, Any]], shuffled: List[Dict[str, Any]]) -> Dict[str, Any]:
    """
    Sum up rollouts.

    :param rows: of ``rollouts``
    :param shuffled: the same with the commands of another time
    :return: by horizon: PSNR, its 10th percentile, that of copying, of shuffled commands; errors
        of the pose
    """
    out: Dict[str, Any] = {}
    for horizon in HORIZONS:
        some = [r for r in rows if r['horizon'] == horizon]
        scores = psnr([r['mse'] for r in some])
        out[str(horizon)] = {
            'psnr_db': round(float(scores.mean()), 2),
            'psnr_p10_db': round(float(np.percentile(scores, 10)), 2),
            'copy_first_db': round(float(psnr([max(r['copied'], 1e-6) for r in some]).mean()), 2),
            'shuffled_db': round(float(psnr([r['mse'] for r in shuffled
                                             if r['horizon'] == horizon]).mean()), 2),
            'position_m': round(float(np.median([r['position_m'] for r in some])), 4),
            'yaw_deg': round(float(np.rad2deg(np.median([r['yaw_rad'] for r in some]))), 3)}
    return out


def calibrate(rows: List[Dict[str, Any]], pictures: np.ndarray) -> Dict[str, Any]:
    """
    Fit how variances and what was never seen turn into an expected error of the image.

    :param rows: of ``rollouts``, true and shuffled commands
    :param pictures: (m, h, w, 3) uint8 some pictures of the place
    :return: ``uncertainty`` of ``world.yaml``
    """
    error = np.sqrt([r['mse'] for r in rows])
    felt = np.stack([r['sensitivity'] for r in rows])
    unseen = np.array([r['unseen'] for r in rows])
    some = pictures.astype(np.float32) / 255
    half = len(some) // 2
    ceiling = float(np.sqrt(((some[:half] - some[half:2 * half]) ** 2).mean()))

    def predicted(x: np.ndarray) -> np.ndarray:
        drift = felt @ np.exp(x[:3])
        square = np.exp(2 * x[3]) + drift * ceiling ** 2 / (drift + ceiling ** 2) \
            + unseen * ceiling ** 2
        return np.sqrt(np.minimum(square, ceiling ** 2))

    fit = least_squares(lambda x: np.log(predicted(x)) - np.log(np.maximum(error, 1e-3)),
                        np.r_[np.zeros(3), np.log(0.03)], loss='soft_l1')
    return {'floor': float(f'{np.exp(fit.x[3]):.3g}'),
            'gain': [float(f'{v:.3g}') for v in np.exp(fit.x[:3])],
            'ceiling': float(f'{ceiling:.3g}'),
            'calibrated_to': float(f'{np.percentile(predicted(fit.x), 95):.3g}')}
