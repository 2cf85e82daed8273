# SPDX-License-Identifier: Apache-2.0
"""
Measure how wrong the exported world is and write it into its ``model.json``.

    python -m lingbot_world_ros.training.calibrate --weights lingbot_world_ros/models/room/weights

Rolls the world out next to the reference world on sequences that neither training nor evaluation
uses. Two things are fitted: the scale of the predicted variances of position, yaw, joints and
objects, and how variances and image gradients turn into an expected image error, the latter once
more for small pictures (at ``SMALL_SIZE``), and alone with ``--small``.
"""
import argparse
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from lingbot_world_ros.engines.interface import Observation
from lingbot_world_ros.engines.reference.engine import ReferenceWorld
from lingbot_world_ros.engines.room.engine import RoomWorld
from lingbot_world_ros.evaluation.command_sequences import command_sequences
from lingbot_world_ros.progress import progress_bar
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.robot import Robot
import numpy as np
from scipy.optimize import least_squares

CALIBRATION_SEED = 5_000_000
SMALL_SIZE = 80, 60  # width and height at which small pictures are measured
FRAMES = (1, 2, 4, 8, 15, 30, 45, 60, 90, 120, 150, 200, 250, 300, 450, 600, 900)
Row = Dict[str, Any]  # of one frame of one world


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Calibrate; see the module's text."""
    parser = argparse.ArgumentParser(description='Calibrate the exported room world.')
    parser.add_argument('--weights', type=Path, required=True)
    parser.add_argument('--sequences', type=int, default=16, help='per scene')
    parser.add_argument('--small', action='store_true', help='only the error of small pictures')
    args = parser.parse_args(argv)
    path, robot = args.weights / 'model.json', load_robot()
    about = json.loads(path.read_text())

    def save() -> None:
        path.write_text(json.dumps(about, indent=2) + '\n')

    if not args.small:
        about['variance_scale'] = [1.0] * 4
        save()
        about['variance_scale'] = fit_scale(rollouts(args.weights, args.sequences, robot,
                                                     images=False))
        save()
        about['uncertainty'] = fit_image_error(rollouts(args.weights, args.sequences, robot))
        save()
    small = robot.with_camera(robot.camera.resized(*SMALL_SIZE))
    about['small']['uncertainty'] = fit_image_error(rollouts(args.weights, args.sequences, small))
    save()
    print(json.dumps({k: about[k] for k in ('variance_scale', 'uncertainty', 'small')}, indent=2))


def rollouts(weights: Path, sequences: int, robot: Robot, images: bool = True) -> List[Row]:
    """Return one row per frame of ``FRAMES``, scene and sequence: what was predicted and true."""
    imagined = RoomWorld(sequences, weights, robot=robot)
    truth = ReferenceWorld(sequences, robot=robot)
    rows: List[Row] = []
    for number, scene in enumerate(imagined.spec.scenes):
        seeds = CALIBRATION_SEED + 1000 * number + np.arange(sequences)
        commands = command_sequences(imagined.spec.robot, sequences, max(FRAMES), int(seeds[0]))
        imagined.reset(scene, seeds.tolist(), render=False)
        truth.reset(scene, seeds.tolist(), render=False)
        for t in progress_bar(range(max(FRAMES)), desc=scene, mininterval=5):
            draw = images and t + 1 in FRAMES
            seen = imagined.step(commands[:, t:t + 1], render=draw)
            real = truth.step(commands[:, t:t + 1], render=draw)
            if t + 1 in FRAMES:
                rows += compare(scene, seen, real, imagined.variance, draw)
    return rows


def compare(scene: str, seen: Observation, real: Observation, variance: np.ndarray,
            draw: bool) -> List[Row]:
    """One dict per world of the batch: squared errors, predicted variances, image terms."""
    rows = []
    for i in range(len(variance)):
        pose = (seen.base_pose - real.base_pose)[i, 0]
        joints = (seen.joint_position - real.joint_position)[i, 0]
        objects = (seen.object_pose - real.object_pose)[i, 0, :, :2]
        j = len(joints)
        row: Row = {
            'scene': scene,
            'square': np.array([np.mean(pose[:2] ** 2), pose[2] ** 2, np.mean(joints ** 2),
                                np.mean(objects ** 2)]),
            'variance': np.array([variance[i, 0], variance[i, 1], variance[i, 2:2 + j].mean(),
                                  variance[i, 2 + j:].mean()])}
        if draw:
            a, b = (rgb[i, 0].astype(np.float32) / 255 for rgb in (seen.rgb, real.rgb)
                    if rgb is not None)
            row.update(error=float(np.sqrt(np.mean((a - b) ** 2))), image=b,
                       sensitivity=seen.extra['sensitivity'][i])
        rows.append(row)
    return rows


def fit_scale(rows: List[Row]) -> List[float]:
    """Factors by which the predicted variances must grow to match the squared errors."""
    square = np.stack([r['square'] for r in rows])
    variance = np.stack([r['variance'] for r in rows])
    scale = []
    for seen, expected in zip(square.T, variance.T):
        moved = expected > 1e-9  # what rests is known exactly and says nothing
        # The median of a chi-square of one degree of freedom is 0.455; robust against collisions
        # that were taken the wrong way, which the mean is not.
        ratio = np.median(seen[moved] / expected[moved]) / 0.455 if moved.any() else 1.0
        scale.append(float(f'{max(ratio, 1e-2):.3g}'))
    return scale


def fit_image_error(rows: List[Row]) -> Dict[str, Any]:
    """Floor per scene, gains of the three drift terms, ceiling, end of the calibrated range."""
    scenes = sorted({r['scene'] for r in rows})
    error = np.array([r['error'] for r in rows])
    sensitivity = np.stack([r['sensitivity'] for r in rows])
    index = np.array([scenes.index(r['scene']) for r in rows])
    ceiling = np.sqrt(np.mean([np.mean((a['image'] - b['image']) ** 2)
                               for a, b in zip(rows, rows[7:]) if a['scene'] == b['scene']]))

    def predicted(x: np.ndarray) -> np.ndarray:
        drift = sensitivity @ np.exp(x[:3])
        floor = np.exp(x[3:])[index]
        return np.sqrt(floor ** 2 + drift * ceiling ** 2 / (drift + ceiling ** 2))

    start = np.r_[np.zeros(3), np.full(len(scenes), np.log(0.02))]
    fit = least_squares(lambda x: np.log(predicted(x)) - np.log(error), start, loss='soft_l1')
    return {'floor': {s: float(f'{np.exp(v):.3g}') for s, v in zip(scenes, fit.x[3:])},
            'gain': [float(f'{v:.3g}') for v in np.exp(fit.x[:3])],
            'ceiling': float(f'{ceiling:.3g}'),
            'calibrated_to': float(f'{np.percentile(predicted(fit.x), 95):.3g}')}


if __name__ == '__main__':
    main()
