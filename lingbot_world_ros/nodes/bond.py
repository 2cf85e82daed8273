# SPDX-License-Identifier: Apache-2.0
"""
The bond that Nav2's lifecycle manager has with each node it manages, made by ``bondpy`` of ROS.

As the lifecycle nodes of Nav2 have it: topic ``bond`` in the namespace of the node, its name as
id, a sign of life each 0.1 s from activation to deactivation. Without one the manager takes the
node for dead after its ``bond_timeout`` and ends all that it manages.
"""
from importlib.util import find_spec
from typing import Any, Optional

from rclpy.node import Node

TOPIC = 'bond'
HEARTBEAT_S = 0.1  # what the manager counts on
NEVER_S = 1e6  # without a sign of the manager; whether it lives is not for a node to judge
REMEDY = ("Nav2's lifecycle manager expects a bond from each node: sudo apt install "
          'ros-$ROS_DISTRO-bondpy, or give it bond_timeout: 0.0')


def has_bondpy() -> bool:
    """Tell whether bonds can be made here."""
    return find_spec('bondpy') is not None


class ManagerBond:
    """The bond of one node; ``form`` and ``part`` belong to the executor's thread."""

    def __init__(self, node: Node) -> None:
        """
        Have no bond yet.

        :param node: the managed node
        """
        self._node = node
        self._bond: Optional[Any] = None

    def form(self) -> None:
        """Give signs of life from now on, or say that nothing here can."""
        try:
            from bondpy import bondpy
        except ImportError:
            self._node.get_logger().info(f'No bond, bondpy is not installed. {REMEDY}.')
            return
        self._bond = bondpy.Bond(self._node, TOPIC, self._node.get_name())
        self._bond.heartbeat_period, self._bond.heartbeat_timeout = HEARTBEAT_S, NEVER_S
        self._bond.start()

    def part(self) -> None:
        """Say that the signs end, and end them."""
        if self._bond is None:
            return
        bond, self._bond = self._bond, None
        bond.shutdown()
        # It ends what it has of rclpy behind the node's back, on which the executor would fall.
        self._node.destroy_subscription(bond.sub)
        self._node.destroy_publisher(bond.pub)
