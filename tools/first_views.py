# SPDX-License-Identifier: Apache-2.0
"""
Rank seeds by what a scene shows first: ``.venv/bin/python tools/first_views.py``.

A first view is worth having if there is depth and colour in the picture and the way ahead is free:
forward at full speed for three seconds without contact, in the embedded world and in the reference
world where MuJoCo is installed. The default seed in ``config/default.yaml`` comes from here.
"""
import argparse

from lingbot_world_ros.actions.layout import LINEAR
from lingbot_world_ros.engines.registry import engine_entry, make_world, TRUTH_ENGINE
from lingbot_world_ros.worlds.scenes import get_scene, SCENES
import numpy as np

FORWARD_S = 3.0
AIR_M = 0.15  # beside and beyond the way
CONTACT = 0.5  # probability from which on it counts as one
BINS = 6  # a colour, per channel


def free_way_m(scene: str, seed: int, robot) -> float:
    """Return how far the base can go straight on from its start, metres, with air around it."""
    place, footprint = get_scene(scene), robot.footprint
    start = place.start_state(seed, robot)
    far_m = np.arange(0.0, 8.0, 0.02)
    x, y, yaw = start.base_pose
    way = np.stack((x + far_m * np.cos(yaw), y + far_m * np.sin(yaw)), -1)
    gap_m = place.clearance_m(way, footprint.height_m) - footprint.radius_m
    for movable, pose in zip(place.movables, start.object_pose):
        apart_m = np.hypot(*(way - pose[:2]).T) - movable.radius_m - footprint.radius_m
        gap_m = np.minimum(gap_m, apart_m)
    blocked = np.flatnonzero(gap_m < AIR_M)
    return float(far_m[blocked[0]] if len(blocked) else far_m[-1])


def look(rgb: np.ndarray, depth_m: np.ndarray) -> float:
    """
    Score a picture.

    :param rgb: (h, w, 3) uint8
    :param depth_m: (h, w) metres
    :return: spread of log depth plus entropy of colours [bits] in the part above the arm
    """
    upper = slice(0, int(0.7 * len(rgb)))
    near, far = np.percentile(np.log(depth_m[upper]), (5, 95))
    coarse = rgb[upper].astype(int) * BINS // 256
    counts = np.bincount((coarse @ (BINS * BINS, BINS, 1)).ravel())
    share = counts[counts > 0] / counts.sum()
    return float(far - near - (share * np.log2(share)).sum())


def touches(world, scene: str, seed: int) -> float:
    """Return the highest probability of contact while the base drives forward."""
    spec = world.spec
    world.reset(scene, seed, render=False)
    action = np.zeros((1, spec.frames_per_step, len(spec.action.dims)), np.float32)
    column = spec.action.names.index(LINEAR)
    action[..., column] = spec.action.dims[column].high
    steps = int(np.ceil(FORWARD_S / spec.step_dt_s))
    return max(float(world.step(action, render=False).contact.max()) for _ in range(steps))


def main() -> None:
    """Print the best seeds of each scene, and those that are good in all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seeds', type=int, default=1000, help='how many, from 0 on')
    parser.add_argument('--show', type=int, default=12, help='how many, of the best')
    args = parser.parse_args()
    worlds = [make_world('room')]
    if not engine_entry(TRUTH_ENGINE).missing():
        worlds.append(make_world(TRUTH_ENGINE))
    robot = worlds[0].spec.robot
    need_m = FORWARD_S * robot.drive.linear_high_mps
    scores = {scene: {} for scene in SCENES}
    for scene, found in scores.items():
        for seed in range(args.seeds):
            way_m = free_way_m(scene, seed, robot)
            if way_m < need_m:
                continue
            seen = worlds[0].reset(scene, seed)
            if max(touches(world, scene, seed) for world in worlds) < CONTACT:
                found[seed] = look(seen.rgb[0, 0], seen.depth_m[0, 0])
        best = sorted(found, key=found.get, reverse=True)[:args.show]
        print(f'{scene}: {len(found)} of {args.seeds} lead somewhere; '
              + ' '.join(f'{seed} ({found[seed]:.2f})' for seed in best))
    everywhere = set.intersection(*map(set, scores.values()))
    best = sorted(everywhere, key=lambda seed: min(
        found[seed] for found in scores.values()), reverse=True)[:args.show]
    print('all: ' + ' '.join(f'{seed} (' + ' '.join(f'{found[seed]:.2f}' for found in
                                                    scores.values()) + ')' for seed in best))


if __name__ == '__main__':
    main()
