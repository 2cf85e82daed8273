# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world plan``: offer the action that drives a robot by planning in imagination."""
import argparse
from typing import TYPE_CHECKING

from lingbot_world_ros.engines.registry import DEFAULT_ENGINE
from lingbot_world_ros.output import outlive_output

if TYPE_CHECKING:
    from lingbot_world_ros.nodes.plan_action import PlanNode

NAME = 'plan'
HELP = 'offer the action plan: drive a running world to poses and pictures, by imagining'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    add = parser.add_argument
    add('--method', default='cem', help='cem or mppi (default: cem)')
    add('--budget', type=int, default=None, metavar='N', help='rollouts per plan (default: 192, '
        '96 where the goal is a picture)')
    add('--engine', default=DEFAULT_ENGINE, help=f'that imagines (default: {DEFAULT_ENGINE})')
    add('--seed', type=int, default=0, help='of what is drawn (default: 0)')
    add('--scene', default='', help='that a simulator stands in that does not publish world_spec')
    add('--profile', default='default', metavar='NAME|FILE',
        help='names of topics, services and frames of the world (default: default)')
    add('--namespace', default='', help='of the world')
    add('--stale', type=float, default=0.5, metavar='S', help='seconds of wall time without a new '
        'frame after which the robot is told to stop (default: 0.5)')
    add('--patience', type=float, default=5.0, metavar='S', help='seconds of wall time without '
        'one after which a goal is aborted (default: 5)')


def run(args: argparse.Namespace) -> int:
    """
    Offer the action until asked to end.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: method, budget, engine, profile or namespace cannot be used
    """
    outlive_output()
    from lingbot_world_ros.errors import SpecError
    from lingbot_world_ros.nodes.ros_environment import domain_id, node_args
    from lingbot_world_ros.nodes.ros_process import spin_node
    from lingbot_world_ros.policies.drive import Driver
    from lingbot_world_ros.robots.load import load_robot
    if not args.stale > 0 or not args.patience > 0:
        raise SpecError('--stale and --patience must be more than 0.')
    driver = Driver(args.method, args.budget, args.engine, args.seed)
    driver.load(load_robot())

    def make_node() -> 'PlanNode':
        from lingbot_world_ros.nodes.plan_action import PlanNode
        return PlanNode(driver, profile=args.profile, scene=args.scene, stale_s=args.stale,
                        patience_s=args.patience)

    def introduce(node: 'PlanNode', _: object) -> None:
        print(f'Offers the action {node.action_name} (lingbot_world_ros/action/Plan), ROS domain '
              f'{domain_id()}. Ctrl-C ends.', flush=True)
    return spin_node(make_node, node_args(namespace=args.namespace, more=args.ros_args),
                     introduce)
