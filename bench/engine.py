# SPDX-License-Identifier: Apache-2.0
"""
Measure the embedded world alone, without ROS, on one core. Prints one JSON object.

``step`` makes an image, ``dynamics`` is the same step asked not to draw one, ``renderer`` the
difference of their medians; both kinds take turns.
"""
import argparse
import json
import os
import time

from bench.latency import percentile
from bench.machine import age_s, cores, CpuMeter, memory_mib

WARM_UP = 20


def measure(frames: int, scene: str) -> dict:
    """
    Load, start and step the embedded world; the process should be fresh.

    :param frames: steps of each kind to time
    :param scene: scene to run in
    :return: start-up [s], step, dynamics, renderer [ms], memory [MiB]
    """
    from lingbot_world_ros.engines.registry import make_world
    import numpy as np
    world = make_world('room')
    world.reset(scene, 0)
    first_image_s = age_s()
    layout = world.spec.action
    actions = np.random.default_rng(0).uniform(
        layout.low, layout.high, (frames + WARM_UP, 1, 1, len(layout.dims))).astype(np.float32)
    meter = CpuMeter(own=os.getpid())
    times_ms = {True: [], False: []}
    for action in actions:
        for render in (True, False):
            started_s = time.perf_counter()
            world.step(action, render=render)
            times_ms[render].append((time.perf_counter() - started_s) * 1e3)
    step, dynamics = (times_ms[render][WARM_UP:] for render in (True, False))
    return {'first_image_s': first_image_s, 'frames': frames,
            'step_ms': {f'p{share}': percentile(step, share) for share in (10, 50, 95)},
            'dynamics_ms': {f'p{share}': percentile(dynamics, share) for share in (10, 50, 95)},
            'renderer_ms': {'p50': percentile(step, 50) - percentile(dynamics, 50)},
            'cpu_cores': meter.cores(), 'memory_mib': memory_mib()}


def main():
    """Measure once and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--frames', type=int, default=150)
    parser.add_argument('--scene', default='living_room')
    args = parser.parse_args()
    os.sched_setaffinity(0, {cores()[0]})
    print(json.dumps(measure(args.frames, args.scene)))


if __name__ == '__main__':
    main()
