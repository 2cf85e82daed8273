# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world record``: a running world from outside, into a bag that can be replayed."""
import argparse
from pathlib import Path
import shlex
import time
from typing import Optional, TYPE_CHECKING

from lingbot_world_ros.output import outlive_output

if TYPE_CHECKING:
    from lingbot_world_ros.nodes.recorder import RecorderNode
    from lingbot_world_ros.nodes.spinner import Spinner
    from lingbot_world_ros.recording.bag import BagWriter

NAME = 'record'
HELP = 'record a running world into a rosbag2 folder (MCAP)'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    parser.add_argument('-o', '--output', type=Path, metavar='DIR|FILE',
                        help='folder to create, or a file that ends in .mcap (default: '
                        'world_<date>-<time>)')
    parser.add_argument('--namespace', default='', help='namespace of the world')
    parser.add_argument('--reset', action='store_true',
                        help='reset the world first, so that the whole run can be replayed')
    parser.add_argument('--images', choices=('raw', 'compressed', 'none'), default='raw',
                        help='raw includes depth (default: raw); replaying needs no images')
    parser.add_argument('--topics', nargs='+', default=[], metavar='TOPIC',
                        help='only these, plus world_spec and world_status')
    parser.add_argument('--duration', type=float, metavar='S',
                        help='stop after this many seconds of wall time')


def run(args: argparse.Namespace) -> int:
    """
    Record until it is asked to end or the duration is over.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: no world, or the folder cannot be written (any more)
    """
    outlive_output()
    from lingbot_world_ros.recording.bag import BagWriter, require_rosbags
    require_rosbags()
    from lingbot_world_ros.environment import environment, NOTE, to_note
    from lingbot_world_ros.nodes.recorder import RecorderNode
    from lingbot_world_ros.nodes.ros_environment import node_args
    from lingbot_world_ros.nodes.ros_process import end_ros, start_ros, wait_for_world
    from lingbot_world_ros.nodes.spinner import interrupt_on_signals, Spinner, stop_on_signals
    bag = BagWriter(args.output or Path(time.strftime('world_%Y_%m_%d-%H_%M_%S')))
    try:
        bag.note(NOTE, to_note(environment()))
        start_ros(node_args(namespace=args.namespace, more=args.ros_args))
        with Spinner() as spinner:
            interrupt_on_signals()  # a world may be long in coming
            node = spinner.add(RecorderNode(bag, images=args.images, topics=args.topics,
                                            hold=args.reset))
            wait_for_world(node, node.found)
            if args.reset:
                node.start_over()
            stop_on_signals(spinner)
            _report_until_end(node, bag, spinner, args.duration)
    finally:
        end_ros()
        bag.close()
    if node.problem is not None:
        raise node.problem
    _conclude(node, bag)
    return 0


def _report_until_end(node: 'RecorderNode', bag: 'BagWriter', spinner: 'Spinner',
                      duration_s: Optional[float]) -> None:
    """Show how far it is, until the time is over or nothing can be written any more."""
    from lingbot_world_ros.progress import show_until_end
    start_s = time.monotonic()
    print(f'Recording {node.num_topics} topics to {bag.target}. Ctrl-C ends.', flush=True)
    show_until_end(spinner, lambda: _line(node, bag, time.monotonic() - start_s), duration_s,
                   node.ended.is_set, lambda: (node.status is None, bool(node.num_missed)))


def _line(node: 'RecorderNode', bag: 'BagWriter', duration_s: float) -> str:
    parts = [f'{duration_s:6.1f} s', f'{bag.num_messages} messages on {node.num_topics} topics',
             f'{bag.num_bytes * 1e-6:.1f} MB']
    status = node.status
    if status is not None:
        stamp = status.header.stamp
        parts.append(f'sim {stamp.sec + stamp.nanosec * 1e-9:.2f} s, step {status.step}')
    if node.num_missed:
        parts.append(f'{node.num_missed} steps missed')
    return ' | '.join(parts)


def _conclude(node: 'RecorderNode', bag: 'BagWriter') -> None:
    """Say what is there and what can be done with it."""
    if not bag.num_messages:
        print(f'Nothing arrived from the world; {bag.target} was not made.')
        return
    print(f'{bag.target}: {bag.num_messages} messages on {node.num_topics} topics, '
          f'{bag.num_bytes * 1e-6:.1f} MB.')
    if node.num_missed:
        print(f'{node.num_missed} steps were missed: this machine is too busy. They '
              'cannot be replayed.')
    if node.first_step:
        print(f'The world was at step {node.first_step} when the recording began: it can be '
              'replayed from the next reset on. Use --reset to record it all.')
        if not node.num_resets:
            print(f'Look at it: lingbot-world report {shlex.quote(str(bag.target))}')
            return
    print(f'Replay it: lingbot-world replay {shlex.quote(str(bag.target))} --verify')
