# SPDX-License-Identifier: Apache-2.0
"""Looks at the ROS that is installed here, and at what runs in its domain."""
from importlib import import_module
from pathlib import Path
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from lingbot_world_ros.messages.standard import text_to_msg
from lingbot_world_ros.nodes.endpoints import node_of
from lingbot_world_ros.nodes.ros_process import end_ros, start_ros
import rclpy
from rclpy.action import get_action_server_names_and_types_by_node
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rclpy.utilities import get_rmw_implementation_identifier
from std_msgs.msg import String

Ends = Dict[str, List[TopicEndpointInfo]]
LOOK_PERIOD_S = 0.2
SOCKETS = ('/proc/net/udp', '/proc/net/udp6')
# UDP ports of a ROS domain, by the standard of DDS: each participant of a machine takes two.
FIRST_PORT, PORTS_PER_DOMAIN, FIRST_OF_PARTICIPANTS = 7400, 250, 10
PARTICIPANTS = 'ros_discovery_info'  # every participant of ROS publishes there
FAST_DDS = b'\x01\x0f'  # begins its ids; two bytes that stand for the machine follow


class Graph(NamedTuple):
    """Who is in a ROS domain: all ends of each topic, its publishers, and who is not heard of."""

    ends: Ends
    sources: Ends
    num_silent: int  # programs on this machine that take part but were not heard of


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


def look_at_graph(quiet_s: float, patience_s: float) -> Graph:
    """
    Look who publishes and listens in this ROS domain.

    Waits until nothing new was heard for a while and everybody on this machine was heard of: on a
    busy one that takes seconds. How many there are the system tells.

    :param quiet_s: how long nothing new is to be heard, wall time
    :param patience_s: how long to wait at most
    :return: what was found by then
    :raises SpecError: ROS does not start
    """
    start_ros([])
    node = rclpy.create_node('doctor', use_global_arguments=False)
    try:
        end_s = time.monotonic() + patience_s
        graph, quiet_from_s = _look(node), time.monotonic()
        while (now_s := time.monotonic()) < end_s:
            if now_s - quiet_from_s > quiet_s and _is_complete(graph):
                break
            time.sleep(LOOK_PERIOD_S)
            before, graph = graph, _look(node)
            if _names(graph) != _names(before):
                quiet_from_s = time.monotonic()
        return graph
    finally:
        node.destroy_node()
        end_ros()


def _look(node: Node) -> Graph:
    names = [name for name, _ in node.get_topic_names_and_types()]
    sources = {name: node.get_publishers_info_by_topic(name) for name in names}
    ends = {name: sources[name] + node.get_subscriptions_info_by_topic(name) for name in names}
    return Graph(ends, sources, max(0, _num_participants(node.context.get_domain_id())
                                    - _num_heard(node)))


def _names(graph: Graph) -> Any:
    return {name: sorted(str(node_of(end)) for end in graph.ends[name]) for name in graph.ends}


def _is_complete(graph: Graph) -> bool:
    return not graph.num_silent and all(node_of(end) for ends in graph.ends.values()
                                        for end in ends)


def _num_participants(domain: int) -> int:
    """Count who takes part on this machine, this program included; 0 where nobody tells."""
    first = FIRST_PORT + PORTS_PER_DOMAIN * domain
    ports = range(first + FIRST_OF_PARTICIPANTS, first + PORTS_PER_DOMAIN, 2)
    taken = set()
    for path in map(Path, SOCKETS):
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        taken |= {int(line.split()[1].rpartition(':')[2], 16) for line in lines}
    return len(taken.intersection(ports))


def _num_heard(node: Node) -> int:
    """Count who of this machine was heard of; all that were, where their ids do not tell."""
    own = node.get_publishers_info_by_topic('/rosout')
    machine = next((bytes(end.endpoint_gid[:4]) for end in own
                    if end.node_name == node.get_name()), b'')
    heard = {bytes(end.endpoint_gid[:12])
             for end in node.get_publishers_info_by_topic(PARTICIPANTS, no_mangle=True)}
    return len({one for one in heard if machine[:2] != FAST_DDS or one.startswith(machine)})


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
