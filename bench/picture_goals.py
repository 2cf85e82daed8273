# SPDX-License-Identifier: Apache-2.0
"""
How often planning to a picture gets there: ``python -m bench.picture_goals``.

RoomNav in the true rooms, told nothing but a picture that was taken where it is done. ``--way``
and ``--turn`` leave out starts that are farther away, or look elsewhere: a picture draws from
where some of it is seen.
"""
import argparse

from lingbot_world_ros.engines.registry import TRUTH_ENGINE
from lingbot_world_ros.envs.rooms import RoomVectorEnv
from lingbot_world_ros.evaluation.agreement import wilson
from lingbot_world_ros.evaluation.episodes import draw_starts, play
from lingbot_world_ros.policies.picture_planner import PicturePlanner, standing_pose
from lingbot_world_ros.policies.policy import TimedPolicy
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.worlds.scenes import SCENES
import numpy as np

TASK = 'RoomNav'
TRIES = 100  # starts that are looked at for each that is played


def near_starts(env, number, seed, way_m, turn_rad):
    """Return starts from where the picture is near, in the order that they are drawn."""
    found = []
    for start in draw_starts(tuple(SCENES), number * TRIES, seed):
        env.reset(options={'scene': start.scene, 'seed': start.seed})
        pose, goal = env.known.seen.base_pose[0], standing_pose(0, env.known)
        turn = np.arctan2(*[f(goal[2] - pose[2]) for f in (np.sin, np.cos)])
        if np.hypot(*(goal - pose)[:2]) <= way_m and abs(turn) <= turn_rad:
            found.append(start)
        if len(found) == number:
            break
    return found


def main():
    """Play and print."""
    parser = argparse.ArgumentParser(prog='python -m bench.picture_goals',
                                     description=__doc__.split('\n\n')[0].strip())
    parser.add_argument('--episodes', type=int, default=20, help='default: 20')
    parser.add_argument('--seed', type=int, default=0, help='of the episodes (default: 0)')
    parser.add_argument('--budget', type=int, default=None, help='rollouts per plan')
    parser.add_argument('--way', type=float, default=1.0, help='metres at most (default: 1.0)')
    parser.add_argument('--turn', type=float, default=0.6, help='rad at most (default: 0.6)')
    parser.add_argument('--time-limit', type=float, default=15.0, help='seconds (default: 15)')
    args = parser.parse_args()
    env = RoomVectorEnv(1, task=TASK, engine=TRUTH_ENGINE, image=False,
                        autoreset_mode='Disabled', time_limit_s=args.time_limit)
    starts = near_starts(env, args.episodes, args.seed, args.way, args.turn)
    policy = TimedPolicy(PicturePlanner(TASK, load_robot(), budget=args.budget))
    won = 0
    for number, start in enumerate(starts, 1):
        episode = play(env, policy, [start])[0]
        won += episode.success
        off = env.known.seen.base_pose[0] - standing_pose(0, env.known)
        print(f'{number}: {start.scene}, seed {start.seed}: '
              f'{"reached" if episode.success else "not reached"} after {episode.steps} steps, '
              f'{np.hypot(*off[:2]):.2f} m from where the picture was taken', flush=True)
    low, high = wilson(won, len(starts))
    wall, cpu = (np.quantile(seconds, (0.5, 0.95)) for seconds in (policy.seconds,
                                                                   policy.cpu_seconds))
    print(f'{policy.name}: {won} of {len(starts)} ({100 * low:.0f} to {100 * high:.0f} %); '
          f'seconds a plan p50 {wall[0]:.2f}, p95 {wall[1]:.2f}, of that CPU {cpu[0]:.2f}, '
          f'{cpu[1]:.2f}')


if __name__ == '__main__':
    main()
