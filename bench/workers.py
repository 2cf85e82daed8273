# SPDX-License-Identifier: Apache-2.0
"""
Measure what workers gain and cost: judging and vector environments. Prints one JSON object.

A policy is judged at RoomReach, in two sizes: the slope between them is the rate, without what it
takes to start workers and to load engines. Jobs that do nothing tell what it takes to hand out an
episode, steps of an environment behind one worker what it takes to ask for a step.
"""
import argparse
import json
import os
import sys
import time
from typing import Any, Callable, Dict, Optional

from bench.machine import describe

SIZES = 48, 240  # episodes of each world
EMPTY_JOBS, STEPS, ROWS = 200, 60, 12


def _seconds(do: Callable[[], Any]) -> float:
    began_s = time.perf_counter()
    do()
    return time.perf_counter() - began_s


def judging(number: int, ray: Optional[str]) -> Dict[str, Any]:
    """
    Measure a judging.

    :param number: of workers
    :param ray: address of a cluster, None for processes
    :return: seconds of wall time of both sizes, episodes per second between them
    """
    from lingbot_world_ros.evaluation.judge import judge, JudgeSpec
    from lingbot_world_ros.evaluation.workers import Workers
    took_s = [_seconds(lambda: judge(
        JudgeSpec(('scripted:0.6',), ('RoomReach',), starts=('nominal',), episodes=episodes),
        Workers(number, ray))) for episodes in SIZES]
    return {'seconds': [round(value, 2) for value in took_s],
            'episodes_per_s': round(2 * (SIZES[1] - SIZES[0]) / (took_s[1] - took_s[0]), 2)}


def handing_out(ray: Optional[str]) -> float:
    """Return milliseconds per episode of jobs that do nothing, with one worker."""
    from lingbot_world_ros.crew import open_crew
    with open_crew(1, ray) as crew:
        worker = crew.hire(list, range(48))

        def rounds(number: int) -> None:
            for _ in range(number):
                worker.ask('copy')  # as many answers as a job of ``judge`` has
                worker.answer()
        rounds(1)
        return _seconds(lambda: rounds(EMPTY_JOBS)) / EMPTY_JOBS / 48 * 1e3


def steps(spread: bool, ray: Optional[str], image: bool) -> float:
    """Return milliseconds per step of ``ROWS`` rows, in this process or behind one worker."""
    from lingbot_world_ros.envs.rooms import RoomVectorEnv, SpreadVectorEnv
    import numpy as np
    options: Dict[str, Any] = {'task': 'RoomReach', 'image': image, 'image_size': (80, 60)}
    env: Any = (SpreadVectorEnv(RoomVectorEnv, ROWS, workers=1, ray=ray, **options) if spread
                else RoomVectorEnv(ROWS, **options))
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    taken_s = [_seconds(lambda: env.step(rng.uniform(-1.0, 1.0, env.action_space.shape)))
               for _ in range(STEPS)]
    env.close()
    return float(np.median(taken_s[5:])) * 1e3


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--workers', type=int, nargs='+', default=[1, 2, 4])
    parser.add_argument('--ray', metavar='ADDRESS', help='of a Ray cluster, "local" to start one; '
                        'default: processes')
    args = parser.parse_args()
    found: Dict[str, Any] = {'machine': describe(), 'load_before': os.getloadavg()[0],
                             'place': args.ray or 'processes'}
    found['judging'] = {}
    for number in args.workers:
        found['judging'][str(number)] = judging(number, args.ray)
        print(f'{number} workers: {found["judging"][str(number)]}', file=sys.stderr, flush=True)
    found['hand_out_ms_per_episode'] = round(handing_out(args.ray), 4)
    for name, image in (('numbers', False), ('pictures', True)):
        found[f'step_ms_{name}'] = {
            'here': round(steps(False, None, image), 2),
            'one worker': round(steps(True, args.ray, image), 2)}
    found['load_after'] = os.getloadavg()[0]
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
