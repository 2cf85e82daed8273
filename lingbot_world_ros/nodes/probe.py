# SPDX-License-Identifier: Apache-2.0
"""Looks at the ROS that is installed here, and at what runs in its domain."""
from importlib import import_module
from pathlib import Path
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from lingbot_world_ros.messages.standard import text_to_msg
from lingbot_world_ros.nodes.ros_process import end_ros, start_ros
import rclpy
from rclpy.action import get_action_server_names_and_types_by_node
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rclpy.utilities import get_rmw_implementation_identifier
from std_msgs.msg import String

Ends = Dict[str, List[TopicEndpointInfo]]


def client_library() -> Path:
    """Return the folder that rclpy is in."""
    return Path(rclpy.__file__).parent


def middleware() -> str:
    """Return the name of the middleware."""
    return get_rmw_implementation_identifier()


def unusable_messages(packages: Sequence[str]) -> List[str]:
    """
    Look for message packages whose types cannot be used, compiled support included.

    :param packages: their names
    :return: name and reason of each that cannot
    """
    missing = []
    for package in packages:
        try:
            module = import_module(f'{package}.msg')
            kind: Any = next(value for value in vars(module).values() if isinstance(value, type))
            kind.__class__.__import_type_support__()
        except (ImportError, StopIteration, AttributeError) as error:
            missing.append(f'{package} ({error})')
    return missing


def echo_time_s(patience_s: float) -> Optional[float]:
    """
    Send messages to this process itself.

    :param patience_s: for how long, wall time
    :return: seconds until one was there, None if none came
    :raises SpecError: ROS does not start
    """
    start_ros([])
    node = rclpy.create_node('doctor', use_global_arguments=False)
    try:
        arrived: List[String] = []
        publisher = node.create_publisher(String, '~/echo', 1)
        node.create_subscription(String, '~/echo', arrived.append, 1)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        started_s = time.monotonic()
        while not arrived and time.monotonic() - started_s < patience_s:
            publisher.publish(text_to_msg('doctor'))
            executor.spin_once(timeout_sec=0.1)
        executor.shutdown()
        return time.monotonic() - started_s if arrived else None
    finally:
        node.destroy_node()
        end_ros()


def look_at_graph(look_s: float) -> Tuple[Ends, Ends]:
    """
    Look who publishes and listens in this ROS domain.

    :param look_s: how long to wait for the others to be heard of, wall time
    :return: all ends of each topic, and its publishers
    :raises SpecError: ROS does not start
    """
    start_ros([])
    node = rclpy.create_node('doctor', use_global_arguments=False)
    try:
        time.sleep(look_s)
        names = [name for name, _ in node.get_topic_names_and_types()]
        sources = {name: node.get_publishers_info_by_topic(name) for name in names}
        return {name: sources[name] + node.get_subscriptions_info_by_topic(name)
                for name in names}, sources
    finally:
        node.destroy_node()
        end_ros()


def answered_names(node: Node) -> List[str]:
    """
    Return the names of the services and actions of a simulator that a node answers.

    :param node: rclpy node
    :return: full names, those of std_srvs where simulation_interfaces is missing
    """
    name = node.get_name(), node.get_namespace()
    offers = [*node.get_service_names_and_types_by_node(*name),
              *get_action_server_names_and_types_by_node(node, *name)]
    for package in ('simulation_interfaces/', 'std_srvs/'):
        names = [name for name, types in offers if types[0].startswith(package)]
        names = [name for name in names if '/_action/' not in name]
        if names:
            return names
    return []
