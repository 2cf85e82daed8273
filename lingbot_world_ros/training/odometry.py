# SPDX-License-Identifier: Apache-2.0
"""
How far a camera moved, learned from its pictures alone. Needs torch.

An odometer is asked for the motion between neighbouring frames, motions are put one after the
other, and a picture, seen from where they lead, has to look like the true one there. The camera
over its floor (``models.recurrent.floor``) is learned with it. Nothing is told in metres.
Axes: n windows, f frames.
"""
import time
from typing import Dict, Tuple

from lingbot_world_ros.models.recurrent.floor import shown_error
from lingbot_world_ros.models.recurrent.network import composed, RecurrentNetwork
from lingbot_world_ros.training.recurrent_data import Drives, windows
from lingbot_world_ros.training.runs import cosine
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

WINDOWS, FRAMES = 16, 11  # of a step; frames of a window
CHOSEN = 6  # pairs of frames of a window that are compared in a step
GROWN = 0.6  # share of the time after which the farthest frames are compared
RATE, CAMERA_RATE = 1.5e-3, 3e-3
SCALES = 1, 4  # side of a pixel at which pictures are compared, so that far is found, too
MAX_STEPS = 100_000
BATCH = 256


def learn_odometry(model: RecurrentNetwork, drives: Drives, seconds: float, seed: int,
                   max_steps: int = MAX_STEPS) -> Dict[str, float]:
    """
    Learn ``odometer`` and ``floor`` of a world.

    :param model: whose; changed
    :param drives: training pieces teach
    :param seconds: CPU time
    :param seed: of the windows
    :param max_steps: end earlier
    :return: steps, and mean error of the last ones
    """
    rng = np.random.default_rng(seed)
    begins = windows(drives.training, FRAMES)
    camera = list(model.floor.parameters())
    optimizer = torch.optim.AdamW([{'params': list(model.odometer.parameters()), 'rate': RATE},
                                   {'params': camera, 'rate': CAMERA_RATE, 'weight_decay': 0.0}])
    began, step, errors = time.process_time(), 0, [0.0]
    while step < max_steps:
        progress = (time.process_time() - began) / seconds
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group['lr'] = group['rate'] * cosine(progress)
        farthest = 1 + round((FRAMES - 2) * min(1.0, progress / GROWN))
        frames = rng.choice(begins, WINDOWS)[:, None] + np.arange(FRAMES)
        loss = _loss(model, small_pictures(drives, frames), farthest, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.odometer.parameters(), 1.0)
        optimizer.step()
        errors.append(float(loss.detach()))
        step += 1
    return {'steps': step, 'error': float(np.mean(errors[-200:]))}


def small_pictures(drives: Drives, frames: np.ndarray) -> Tensor:
    """Return pictures at half the size, (..., 3, h / 2, w / 2) float 0..1 for (...) frames."""
    return avg_pool2d(drives.pictures(frames.ravel()), 2).unflatten(0, frames.shape)


@torch.inference_mode()
def motions_of(model: RecurrentNetwork, drives: Drives) -> Tensor:
    """
    Ask the odometer about whole recordings.

    :param model: trained
    :param drives: all pieces
    :return: (frames, 3) ahead, left, yaw [rad] since the frame before; of a first one zero
    """
    parts, count = [torch.zeros(1, 3)], int(drives.firsts[-1])
    for first in range(1, count, BATCH):
        small = small_pictures(drives, np.arange(first - 1, min(first + BATCH, count)))
        parts.append(model.feel_small(small[1:], small[:-1]))
    return torch.cat(parts).clone()


def _loss(model: RecurrentNetwork, rgb: Tensor, farthest: int,
          rng: np.random.Generator) -> Tensor:
    """Compare pairs of frames of windows, (n, f, 3, h, w), at most so many frames apart."""
    if rng.random() < 0.5:
        rgb = rgb.flip(-1)
    n, f = rgb.shape[:2]
    felt = model.feel_small(rgb[:, 1:].flatten(0, 1), rgb[:, :-1].flatten(0, 1))
    felt = felt.unflatten(0, (n, f - 1))
    gaps = rng.integers(1, farthest + 1, CHOSEN)
    one, two, poses = [], [], []
    for gap in gaps:
        first = int(rng.integers(f - gap))
        pose = torch.zeros(n, 3)
        for frame in range(first, first + gap):
            pose = composed(pose, felt[:, frame])
        one.append(rgb[:, first])
        two.append(rgb[:, first + gap])
        poses.append(pose)
    drawn, is_shown = model.floor(torch.cat(one), torch.cat(poses))
    return sum((_at(scale, drawn, is_shown, torch.cat(two)) for scale in SCALES),
               torch.zeros(()))


def _at(scale: int, drawn: Tensor, is_shown: Tensor, true: Tensor) -> Tensor:
    parts: Tuple[Tensor, ...] = drawn, is_shown, true
    if scale > 1:
        parts = tuple(avg_pool2d(part, scale) for part in parts)
    return shown_error(*parts)
