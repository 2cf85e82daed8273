# SPDX-License-Identifier: Apache-2.0
"""
Measure one Gymnasium environment, pinned to one core. Prints one JSON object.

RoomNav with random actions, none of whose episodes ends meanwhile; the first steps are left out.
With ``--all`` all of ``PARTS`` take turns in one process, so that a busy spell of the machine
meets them all. Rates are per second of wall time and of CPU time, which leaves out what others
take but not that they take caches, and that of the least disturbed tenth of the steps. With
``--likeness`` no time is taken: pictures of the embedded world are compared with those that the
reference world draws of the same states in the same size.
"""
import argparse
import json
import os
import time
from typing import NamedTuple, Sequence

from bench.machine import cores

WARM_UP = 3
LIKENESS_SEED = 8_000_000  # of states that neither training, calibration nor evaluation uses
SCENES = 'living_room', 'office', 'workshop'
AVX2 = {'ONEDNN_MAX_CPU_ISA': 'AVX2'}


class Part(NamedTuple):
    """What is measured."""

    engine: str = 'room'
    size: str = '160x120'
    num_envs: int = 32
    exact: bool = True
    pictures: bool = True
    avx2: bool = False

    @property
    def arguments(self) -> list:
        """Command line of this program that measures it alone."""
        return ['--engine', self.engine, '--size', self.size, '--num-envs', self.num_envs,
                *([] if self.exact else ['--inexact']),
                *([] if self.pictures else ['--no-pictures'])]


SIZES = '160x120', '80x60', '64x48'
PARTS = (
    Part(num_envs=1), *(Part(size=size, exact=exact) for size in SIZES for exact in (True, False)),
    *(Part('reference', size) for size in SIZES),
    *(Part(size=size, exact=exact, avx2=True) for size, exact in (
        ('160x120', True), ('160x120', False), ('80x60', False))),
    Part(num_envs=1, pictures=False), Part(pictures=False), Part(exact=False, pictures=False),
    Part('reference', pictures=False))
LIKENESS = tuple(Part(size=size, exact=exact) for size in (
    '192x144', '160x120', '128x96', '112x84', '80x60', '64x48', '48x36')
    for exact in (True, False))


def _robot(size: str):
    from lingbot_world_ros.robots.load import load_robot
    robot = load_robot()
    return robot.with_camera(robot.camera.resized(*map(int, size.split('x'))))


def measure(parts: Sequence[Part], seconds: float) -> list:
    """
    Step environments for a while, one after the other by turns.

    :param parts: which
    :param seconds: for how long in all; each makes at least three steps
    :return: for each, the median over its steps of steps of all rows per second (an image each,
        with pictures) and per CPU second, the latter also where least disturbed, and what a reset
        takes
    """
    import numpy as np
    rng, begun_s = np.random.default_rng(0), time.perf_counter()
    envs = [_environment(part) for part in parts]
    reset_s = [_reset(env) for env in envs]
    wall_s, cpu_s = ([[] for _ in parts] for _ in range(2))
    while len(wall_s[0]) < WARM_UP + 3 or time.perf_counter() - begun_s < seconds:
        for env, walls, cpus in zip(envs, wall_s, cpu_s):
            actions = rng.uniform(-0.3, 0.3, env.action_space.shape)
            wall, cpu = time.perf_counter(), time.process_time()
            env.step(actions)
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    for env in envs:
        env.close()
    return [{**part._asdict(), 'frames_per_action': 3, 'steps': len(walls) - WARM_UP,
             'reset_ms': reset * 1e3, 'steps_per_s': part.num_envs / np.median(walls[WARM_UP:]),
             'steps_per_cpu_s': part.num_envs / np.median(cpus[WARM_UP:]),
             'best_per_cpu_s': part.num_envs / np.percentile(cpus[WARM_UP:], 10)}
            for part, reset, walls, cpus in zip(parts, reset_s, wall_s, cpu_s)]


def _environment(part: Part):
    from lingbot_world_ros.envs.rooms import RoomVectorEnv
    options = {} if part.engine != 'room' else {'exact': part.exact}
    env = RoomVectorEnv(part.num_envs, task='RoomNav', engine=part.engine, image=part.pictures,
                        scenes='office', time_limit_s=1e6, engine_options=options,
                        image_size=tuple(map(int, part.size.split('x'))))
    env.reset(seed=0)
    return env


def _reset(env) -> float:
    """Return what a reset takes, seconds per row."""
    wall_s = time.perf_counter()
    env.reset(seed=0)
    return (time.perf_counter() - wall_s) / env.num_envs


def likeness(part: Part, num_states: int) -> dict:
    """
    Compare pictures with those of the reference world, of states drawn like starts of episodes.

    :param part: size and exactness
    :param num_states: in each scene
    :return: PSNR [dB], mean over the pictures, of what is drawn in that size and of 160x120 scaled
        to it; and their largest RMS error, 0..255
    """
    import cv2
    from lingbot_world_ros.engines.interface import State
    from lingbot_world_ros.engines.registry import make_world
    from lingbot_world_ros.worlds.scenes import get_scene
    import numpy as np
    robot = _robot(part.size)
    drawn = make_world('room', robot=robot, exact=part.exact)
    full, truth = make_world('room', exact=part.exact), make_world('reference', robot=robot)
    width, height = map(int, part.size.split('x'))
    method = cv2.INTER_AREA if width < 160 else cv2.INTER_LINEAR
    squares = []
    for scene in SCENES:
        for world in (drawn, full, truth):
            world.reset(scene, 0, render=False)
        for i in range(num_states):
            start = get_scene(scene).start_state(LIKENESS_SEED + i, robot)
            state = State(start.base_pose[None], start.joint_position[None],
                          start.object_pose[None])
            own, large, true = (world.render(state).rgb[0, 0] for world in (drawn, full, truth))
            scaled = cv2.resize(large, (width, height), interpolation=method)
            squares.append([np.mean((picture.astype(float) - true) ** 2)
                            for picture in (own, scaled)])
    squares = np.array(squares)
    psnr, psnr_scaled = (-10 * np.log10(squares / 255 ** 2)).mean(0)
    return {**part._asdict(), 'states': num_states * len(SCENES), 'psnr_db': psnr,
            'psnr_scaled_db': psnr_scaled, 'largest_rms': float(np.sqrt(squares[:, 0].max()))}


def markdown(machine: dict, runs: list, likenesses: list = ()) -> str:
    """
    Write the measurements as tables.

    :param machine: from ``bench.machine.describe``
    :param runs: from ``measure``
    :param likenesses: from ``likeness``
    :return: text
    """
    psnr = {(one['size'], one['exact']): one for one in likenesses}
    lines = [f'{machine["processor"]}, load {machine["load"]:.1f}; one core, three engine frames '
             'per step.', '',
             '| engine | picture | rows | exact | steps/s | per CPU second | where undisturbed | '
             'PSNR [dB] | reset of a row |',
             '|---|---|---|---|---|---|---|---|---|']
    for run in runs:
        like = psnr.get((run['size'], run['exact']))
        told = like and run['pictures'] and run['engine'] == 'room' and not run['avx2']
        lines.append(
            f'| {run["engine"]}{", AVX2 only" if run["avx2"] else ""} | '
            f'{run["size"] if run["pictures"] else "none"} | {run["num_envs"]} | '
            f'{("yes" if run["exact"] else "no") if run["engine"] == "room" else ""} | '
            f'{run["steps_per_s"]:.0f} | {run["steps_per_cpu_s"]:.0f} | '
            f'{run["best_per_cpu_s"]:.0f} | '
            f'{format(like["psnr_db"], ".1f") if told else ""} | {run["reset_ms"]:.1f} ms |')
    if likenesses:
        lines += ['', '| picture | exact | PSNR [dB] drawn in that size | 160x120 scaled to it |',
                  '|---|---|---|---|']
        lines += [f'| {one["size"]} | {"yes" if one["exact"] else "no"} | {one["psnr_db"]:.1f} | '
                  f'{one["psnr_scaled_db"]:.1f} |' for one in likenesses]
    return '\n'.join([*lines, ''])


def main():
    """Measure once and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--engine', default='room')
    parser.add_argument('--size', default='160x120', help='of pictures')
    parser.add_argument('--num-envs', type=int, default=1)
    parser.add_argument('--inexact', action='store_true', help='RoomWorld(exact=False)')
    parser.add_argument('--no-pictures', action='store_true')
    parser.add_argument('--seconds', type=float, default=5.0)
    parser.add_argument('--all', action='store_true', help='all parts by turns')
    parser.add_argument('--likeness', type=int, default=0, metavar='N',
                        help='compare pictures of N states of each scene instead')
    args = parser.parse_args()
    os.sched_setaffinity(0, {cores()[0]})
    avx2 = os.environ.get('ONEDNN_MAX_CPU_ISA') == 'AVX2'
    part = Part(args.engine, args.size, args.num_envs, not args.inexact, not args.no_pictures,
                avx2)
    if args.likeness:
        print(json.dumps(likeness(part, args.likeness)))
    elif args.all:
        print(json.dumps(measure([one for one in PARTS if one.avx2 == avx2], args.seconds)))
    else:
        print(json.dumps(measure([part], args.seconds)[0]))


if __name__ == '__main__':
    main()
