# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world drive``: let a policy drive a world that runs, on its topics."""
import argparse
import json
import sys
import time
from typing import Any, Dict, List

from lingbot_world_ros.output import outlive_output

NAME = 'drive'
HELP = 'let a policy drive a running world, another simulator or a robot, on its topics'
TELL_PERIOD_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    add = parser.add_argument
    add('policy', metavar='POLICY', help='as "lingbot-world judge" takes it')
    add('--task', default='', help='RoomNav, RoomReach or RoomPush (docs/environments.md; '
        'default: what a trained policy was trained for)')
    add('--episodes', type=int, default=1, help='how many to play (default: 1)')
    add('--seed', type=int, default=0, help='of the episodes (default: 0)')
    add('--scene', default='', help='to play in, and that a simulator that does not publish '
        'world_spec stands in (default: all that the world has, in turn)')
    add('--profile', default='default', metavar='NAME|FILE',
        help='names of topics and services (default: default)')
    add('--namespace', default='', help='of the world')
    add('--patience', type=float, default=5.0, metavar='S', help='seconds of wall time without '
        'a new frame after which the robot is stopped and this ends (default: 5)')
    add('--json', action='store_true', help='print the result as JSON')


def run(args: argparse.Namespace) -> int:
    """
    Drive.

    :param args: parsed arguments
    :return: exit code: 0 even where no goal was reached
    :raises SpecError: no such policy, no world, or its frames stopped
    """
    outlive_output()
    from dataclasses import asdict
    from lingbot_world_ros.envs.ros import find_world
    from lingbot_world_ros.envs.rooms import RoomVectorEnv
    from lingbot_world_ros.errors import EngineLost, SpecError
    from lingbot_world_ros.evaluation.episodes import draw_starts, play
    from lingbot_world_ros.policies.load import load_policy, print_unfinished, task_of
    from lingbot_world_ros.policies.policy import TimedPolicy
    from lingbot_world_ros.robots.load import load_robot
    if args.episodes < 1 or not args.patience > 0:
        raise SpecError('--episodes must be at least 1 and --patience more than 0.')
    args.task = args.task or task_of(args.policy)
    print_unfinished(args.policy)
    policy = TimedPolicy(load_policy(args.policy, args.task, load_robot()),
                         lambda seconds: tell(seconds))
    needs = set(policy.senses)
    world: Any = find_world(args.task, profile=args.profile, namespace=args.namespace,
                            scene=args.scene, image='image' in needs,
                            depth=bool(needs & {'depth', 'scan'}), patience_s=args.patience)
    tell = _Teller(world, policy)
    env = RoomVectorEnv(1, task=args.task, engine=world, image='image' in needs,
                        depth='depth' in needs, scan='scan' in needs, autoreset_mode='Disabled')
    if not world.can_reset:
        print('Nobody offers reset_simulation: each episode begins where the robot stands.',
              file=sys.stderr)
    episodes: List[Dict[str, Any]] = []
    try:
        scenes = (args.scene,) if args.scene else world.spec.scenes
        for start in draw_starts(scenes, args.episodes, args.seed):
            episode = asdict(play(env, policy, [start])[0])
            episodes.append(episode)
            if not args.json:
                print(f'{start.scene}, seed {start.seed}: '
                      f'{"reached" if episode["success"] else "not reached"} after '
                      f'{episode["steps"]} steps, {episode["contacts"]} in contact; policy '
                      f'{_shown(policy.latency_ms())}', flush=True)
    except EngineLost as error:
        raise SpecError(f'{error} The robot was told to stop.') from error
    finally:
        env.close()
        policy.close()
    if not args.json:
        print(f'{sum(episode["success"] for episode in episodes)} of {len(episodes)} reached')
    else:
        print(json.dumps({'policy': policy.name, 'task': args.task, 'episodes': episodes,
                          'latency_ms': policy.latency_ms()}, indent=1))
    return 0


class _Teller:
    """Publishes how long a policy thinks, each second."""

    def __init__(self, world: Any, policy: Any) -> None:
        self._world, self._policy, self._told_s = world, policy, float('-inf')

    def __call__(self, seconds: float) -> None:
        now_s = time.monotonic()
        if now_s < self._told_s + TELL_PERIOD_S:
            return
        self._told_s = now_s
        found = self._policy.latency_ms()
        self._world.tell(f'thinks {seconds * 1e3:.1f} ms', {
            'policy': self._policy.name, 'latency [ms]': f'{seconds * 1e3:.3f}',
            'latency p50 [ms]': f'{found["p50"]:.3f}', 'latency p95 [ms]': f'{found["p95"]:.3f}'})


def _shown(latency_ms: Dict[str, float]) -> str:
    return f'p50 {latency_ms["p50"]:.1f} ms, p95 {latency_ms["p95"]:.1f} ms'
