# SPDX-License-Identifier: Apache-2.0
"""
Measure one Gymnasium environment, pinned to one core. Prints one JSON object.

RoomNav with random actions, none of whose episodes ends meanwhile; the first steps are left out.
Rates are per second of wall time and, for machines with other work, per second of CPU time.
"""
import argparse
import json
import os
import time

from bench.machine import cores

WARM_UP = 3
PARTS = tuple((engine, num_envs, pictures) for pictures in (True, False)
              for num_envs in (1, 32) for engine in ('room', 'reference'))


def measure(engine: str, num_envs: int, pictures: bool, seconds: float) -> dict:
    """
    Step an environment for a while.

    :param engine: behind it
    :param num_envs: rows
    :param pictures: whether they are drawn
    :param seconds: for how long; at least three steps are made
    :return: steps of all rows per second (an image each, with pictures), and what a reset takes
    """
    from lingbot_world_ros.envs.rooms import RoomVectorEnv
    import numpy as np
    env = RoomVectorEnv(num_envs, task='RoomNav', engine=engine, image=pictures, scenes='office',
                        time_limit_s=1e6)
    env.reset(seed=0)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    env.reset(seed=0)
    reset_s = (time.perf_counter() - wall_s) / num_envs
    rng, num_steps = np.random.default_rng(0), -WARM_UP
    while num_steps < 3 or time.perf_counter() - wall_s < seconds:
        if num_steps == 0:
            wall_s, cpu_s = time.perf_counter(), time.process_time()
        env.step(rng.uniform(-0.3, 0.3, env.action_space.shape))
        num_steps += 1
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    env.close()
    return {'engine': engine, 'num_envs': num_envs, 'pictures': pictures,
            'frames_per_action': 3, 'steps': num_steps, 'reset_ms': reset_s * 1e3,
            'steps_per_s': num_steps * num_envs / wall_s,
            'steps_per_cpu_s': num_steps * num_envs / cpu_s}


def markdown(machine: dict, runs: list) -> str:
    """
    Write the measurements as a table.

    :param machine: from ``bench.machine.describe``
    :param runs: from ``measure``
    :return: text
    """
    lines = [f'{machine["processor"]}, load {machine["load"]:.1f}; one core, three engine frames '
             'per step.', '',
             '| engine | rows | pictures | steps/s | steps per CPU second | reset of a row |',
             '|---|---|---|---|---|---|']
    lines += [f'| {run["engine"]} | {run["num_envs"]} | {"yes" if run["pictures"] else "no"} | '
              f'{run["steps_per_s"]:.0f} | {run["steps_per_cpu_s"]:.0f} | '
              f'{run["reset_ms"]:.1f} ms |' for run in runs]
    return '\n'.join([*lines, ''])


def main():
    """Measure once and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--engine', default='room')
    parser.add_argument('--num-envs', type=int, default=1)
    parser.add_argument('--no-pictures', action='store_true')
    parser.add_argument('--seconds', type=float, default=5.0)
    args = parser.parse_args()
    os.sched_setaffinity(0, {cores()[0]})
    print(json.dumps(measure(args.engine, args.num_envs, not args.no_pictures, args.seconds)))


if __name__ == '__main__':
    main()
