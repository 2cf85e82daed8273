# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world follow``: let a simulator do what a running world does, beside it."""
import argparse
from typing import TYPE_CHECKING

from lingbot_world_ros.engines.registry import SHIPPED, TRUTH_ENGINE
from lingbot_world_ros.output import outlive_output, told

if TYPE_CHECKING:
    from lingbot_world_ros.nodes.follower import FollowerNode
    from lingbot_world_ros.recording.distance_to_truth import Comparison
    from lingbot_world_ros.recording.follow import Follower

NAME = 'follow'
HELP = 'publish the truth beside a running world: another engine repeats it step by step'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    parser.add_argument('--engine', default=TRUTH_ENGINE,
                        help=f'that follows: {", ".join(SHIPPED)} or one that another package '
                        f'registers (default: {TRUTH_ENGINE})')
    parser.add_argument('--namespace', default='', help='namespace of the world')
    parser.add_argument('--as', dest='below', default=TRUTH_ENGINE, metavar='NAME',
                        help='prefix of the topics it publishes (default: '
                        f'{TRUTH_ENGINE})')
    parser.add_argument('--reset', action='store_true',
                        help='reset the world if it is past its first step; otherwise the truth '
                        'begins with its next reset')
    parser.add_argument('--profile', default='default', metavar='NAME|FILE',
                        help='parameter file of the world, for its topic names (default: default)')
    parser.add_argument('--param', action='append', default=[], metavar='NAME:=VALUE',
                        help='any other parameter of the world; may be repeated')
    parser.add_argument('--duration', type=float, metavar='S',
                        help='stop after this many seconds of wall time')


def run(args: argparse.Namespace) -> int:
    """
    Follow until it is asked to end or the duration is over.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: profile, parameter or engine cannot be used
    """
    outlive_output()
    from lingbot_world_ros.settings.profiles import load_profile, params_file, read_assignments
    load_profile(args.profile)
    values = read_assignments(args.param)
    from lingbot_world_ros.nodes.parameters import as_overrides
    from lingbot_world_ros.nodes.ros_environment import node_args
    from lingbot_world_ros.nodes.ros_process import end_process, end_ros, INTERRUPTED, start_ros
    from lingbot_world_ros.nodes.spinner import interrupt_on_signals, Spinner, stop_on_signals
    with params_file(args.profile) as file:
        start_ros(node_args(file, args.namespace, args.ros_args))
    from lingbot_world_ros.nodes.follower import FollowerNode
    from lingbot_world_ros.progress import show_until_end
    code = 0
    try:
        with Spinner() as spinner:
            interrupt_on_signals()
            node = spinner.add(FollowerNode(
                name=args.engine, below=args.below, reset=args.reset,
                parameter_overrides=as_overrides(values)))
            stop_on_signals(spinner)
            _introduce(node)
            show_until_end(spinner, lambda: status_line(node.follower, node.comparison),
                           args.duration, kind=lambda: (
                               node.follower.is_following or node.follower.text))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:
        end_ros()
        raise
    return end_process(code)


def _introduce(node: 'FollowerNode') -> None:
    """Say what it does."""
    from lingbot_world_ros.nodes.ros_environment import domain_id
    spec = node.follower.session.world.spec
    print(f'Follows    {node.resolve_topic_name("world_status")} with engine {spec.engine} '
          f'({spec.model}), ROS domain {domain_id()}\n'
          f'{told("Publishes", node.topics)}\nCtrl-C ends.', flush=True)


def status_line(follower: 'Follower', comparison: 'Comparison') -> str:
    """
    Put into one line how far the truth has come.

    :param follower: that does what the world does
    :param comparison: of the world and the truth
    :return: its step, how far behind it is, the errors that are known
    """
    if not follower.is_following:
        return follower.text
    parts = [f'step {follower.session.status.step}']
    if follower.num_behind > 1:
        parts.append(f'{follower.num_behind} steps behind')
    if comparison.image_error is not None:
        parts.append(f'image error {comparison.image_error:.3f}')
    if comparison.position_error_m is not None:
        parts.append(f'position error {comparison.position_error_m:.3f} m')
    return ' | '.join(parts)
