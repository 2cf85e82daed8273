# SPDX-License-Identifier: Apache-2.0
"""
Learn rooms that no weights know from recordings of topics, and measure what came out in truth.

    python -m bench.learn_places --rooms 1 2 3 --seeds 0 1 2 --minutes 2.5 --out bench/out/places

Each line of the result is one recording: a drive of four minutes with a sensor's noise and
odometry that drifts, then a minute that is not recorded and that everything is measured on.
Prints JSON; a recording that was measured before is not learned again.
"""
import argparse
import json
from pathlib import Path
import shutil
import sys
import time
from typing import Any, Dict, List, Optional, Sequence

from bench.bags import write_drive
from bench.machine import describe
from bench.new_rooms import BAD, Drive, drive_through, new_room, Odometry, with_camera
from lingbot_world_ros.engines.interface import State
from lingbot_world_ros.engines.learned.mapped import MappedWorld
from lingbot_world_ros.engines.rows import at_rest
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.models.mapped.registration import rigidly_aligned
from lingbot_world_ros.models.mapped.runtime import MAP
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.training.learn import learn, Wanted
import numpy as np
from safetensors.numpy import load_file

RECORDED_S, TEST_S = 240.0, 60.0
HORIZONS = (0, 1, 15, 60)
VARIANTS: Dict[str, Dict[str, Any]] = {
    'drift 1.5 %': {}, 'drift 4 %': {'odometry': BAD}, 'arm moves': {'arm_moves': True},
    'camera 20 deg lower': {'pitch_deg': 20.0}, 'pictures 10 ms late': {'picture_lag_s': 0.01},
    'automatic exposure': {'auto_exposure': True}}


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--rooms', type=int, nargs='+', default=[1, 2, 3])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--variants', nargs='+', default=['drift 1.5 %'], choices=list(VARIANTS))
    parser.add_argument('--minutes', type=float, default=2.5, help='of fitting')
    parser.add_argument('--out', type=Path, default=Path('bench/out/places'))
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    rows: List[Dict[str, Any]] = []
    for variant in args.variants:
        for room in args.rooms:
            for seed in args.seeds:
                name = f'{variant.replace(" ", "_").replace("%", "percent")}-{room}-{seed}'
                path = args.out / f'{name}.json'
                if not path.exists():
                    row = run(variant, room, seed, args.minutes, args.out / name)
                    path.write_text(json.dumps(row))
                rows.append(json.loads(path.read_text()))
                print(json.dumps(rows[-1]), file=sys.stderr)
    print(json.dumps({'machine': describe(), 'minutes': args.minutes, 'rows': rows}, indent=2))


def run(variant: str, room: int, seed: int, minutes: float, folder: Path) -> Dict[str, Any]:
    """
    Drive, record, learn, measure.

    :param variant: of ``VARIANTS``
    :param room: which
    :param seed: of the drive
    :param minutes: of fitting
    :param folder: for bag and world; the world stays
    :return: what was measured
    """
    options = dict(VARIANTS[variant])
    robot = with_camera(load_robot(), options.pop('pitch_deg', 0.0))
    options.setdefault('odometry', Odometry())
    drive = drive_through(new_room(room), robot, RECORDED_S + TEST_S, 100 * room + seed, **options)
    num = int(RECORDED_S * 15)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_drive(folder / 'bag', drive, num, options.get('picture_lag_s', 0.0))
    began = time.process_time()
    learn([folder / 'bag'], Wanted(folder / 'world', minutes=minutes, robot='room', seed=seed,
                                   anyway=True))
    cpu_s = time.process_time() - began
    shutil.rmtree(folder / 'bag')
    return {'variant': variant, 'room': room, 'seed': seed, 'cpu_s': round(cpu_s, 1),
            **measured(folder / 'world', drive, num)}


def measured(folder: Path, drive: Drive, num: int) -> Dict[str, Any]:
    """
    Compare a learned room with the truth.

    :param folder: of the world
    :param drive: with what was true
    :param num: frames that were recorded
    :return: errors of poses, pictures at true poses, rollouts, prediction after 4 s, a loop
    """
    world = MappedWorld(folder)
    learned = load_file(folder / MAP)['poses']
    off = rigidly_aligned(learned, drive.true_pose[:num]) - drive.true_pose[:num]
    yaw = np.arctan2(np.sin(off[:, 2]), np.cos(off[:, 2]))
    # The truth in the frame of the learned scene.
    aligned = rigidly_aligned(drive.true_pose[:num], learned)
    turn = float(aligned[0, 2] - drive.true_pose[0, 2])
    true = np.column_stack([
        se2.rotated(drive.true_pose[:, :2] - drive.true_pose[:num, :2].mean(0), turn)
        + learned[:, :2].mean(0), drive.true_pose[:, 2] + turn])
    scene, nothing = world.spec.scenes[0], np.zeros((1, 0, 3))
    world.reset(scene, 0, render=False)
    views = []
    for i in range(num, len(true), 15):
        seen = world.render(State(true[i][None], drive.joints[i][None], nothing))
        views.append(_psnr(seen.rgb, drive.rgb[i]))
    scores: Dict[int, List[float]] = {h: [] for h in HORIZONS}
    copied: Dict[int, List[float]] = {h: [] for h in HORIZONS}
    ends = []
    for start in np.linspace(num + 15, len(true) - 62, 24).astype(int):
        known = at_rest(State(true[start][None], drive.joints[start][None], nothing))
        known.base_twist[0, 0] = se2.relative(true[start - 1], true[start]) * 15.0
        known.joint_velocity[0, 0] = (drive.joints[start] - drive.joints[start - 1]) * 15.0
        seen = world.observe(known)
        for t in range(max(HORIZONS) + 1):
            if t in HORIZONS:
                scores[t].append(_psnr(seen.rgb, drive.rgb[start + t]))
                copied[t].append(_psnr(drive.rgb[start][None, None], drive.rgb[start + t]))
            if t < max(HORIZONS):
                seen = world.step(drive.action[start + t][None, None],
                                  render=t + 1 in HORIZONS)
        ends.append(seen.base_pose[0, 0] - true[start + max(HORIZONS)])
    ended = np.array(ends)
    turned = np.arctan2(np.sin(ended[:, 2]), np.cos(ended[:, 2]))
    out: Dict[str, Any] = {
        'pose_rms_cm': 100 * float(np.sqrt((off[:, :2] ** 2).sum(1).mean())),
        'yaw_rms_deg': float(np.rad2deg(np.sqrt(((yaw - yaw.mean()) ** 2).mean()))),
        'odometry_rms_cm': 100 * float(np.sqrt(((rigidly_aligned(
            drive.odometry[:num], drive.true_pose[:num]) - drive.true_pose[:num])[:, :2]
            ** 2).sum(1).mean())),
        'views_db': float(np.mean(views)), 'views_p10_db': float(np.percentile(views, 10)),
        'after_4_s_cm': 100 * float(np.sqrt((ended[:, :2] ** 2).sum(1).mean())),
        'after_4_s_deg': float(np.rad2deg(np.sqrt((turned ** 2).mean()))),
        'loop_db': _loop(world)}
    for h in HORIZONS:
        out[f'rollout_{h}_db'] = float(np.mean(scores[h]))
        out[f'rollout_{h}_p10_db'] = float(np.percentile(scores[h], 10))
        out[f'copy_{h}_db'] = float(np.mean(copied[h])) if h else None
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in out.items()}


def _loop(world: MappedWorld) -> float:
    """Turn once around in 20 s, and compare the last picture with the first; PSNR [dB]."""
    first = world.reset(world.spec.scenes[0], 0)
    action = np.zeros((1, 1, len(world.spec.action.dims)), np.float32)
    action[..., world.spec.action.names.index('base.angular.z')] = \
        2 * np.pi / 20.0 / world.motion.gain[2]
    for _ in range(300):
        world.step(action, render=False)
    action[:] = 0.0
    for _ in range(14):
        world.step(action, render=False)
    last = world.step(action)
    assert first.rgb is not None
    return _psnr(last.rgb, first.rgb[0, 0])


def _psnr(seen: Optional[np.ndarray], true: np.ndarray) -> float:
    assert seen is not None
    error = (seen[0, 0].astype(np.float64) - true) / 255.0
    return float(-10.0 * np.log10(max(float((error ** 2).mean()), 1e-10)))


if __name__ == '__main__':
    main()
