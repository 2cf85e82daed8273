# SPDX-License-Identifier: Apache-2.0
"""Publishes what a person asks a robot to do, in the types the robot listens to."""
from threading import Lock
from typing import Dict, Iterable, Optional

from lingbot_world_ros.messages.commands import joint_command_to_msg, twist_to_msg
from lingbot_world_ros.nodes import qos
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import JointState

STAMPED = 'geometry_msgs/msg/TwistStamped'
PARTING = Duration(seconds=0.2)  # for a robot to hear that it shall stop


class CommandPublishers:
    """
    Publishers of ``cmd_vel`` and ``joint_command``; the type of the first is its listener's.

    ``look`` belongs to the executor's thread: only there the middleware lets go of a type at once.
    Any other thread may publish.
    """

    def __init__(self, node: Node, cmd_vel: str = 'cmd_vel',
                 joint_command: str = 'joint_command'):
        """
        Publish joint commands at once, base velocities when ``look`` found a listener.

        :param node: rclpy node that owns the publishers
        :param cmd_vel: topic name
        :param joint_command: topic name
        :raises SpecError: characters no topic name may have
        """
        self._node, self._cmd_vel = node, qos.topic_name(node, cmd_vel)
        self._joints = qos.publisher(node, JointState, joint_command, qos.STATE)
        self._lock = Lock()  # guards what is below
        self._twist: Optional[Publisher] = None
        self._stamped = self._moves = False

    @property
    def topics(self) -> Dict[str, str]:
        """Full names of both topics."""
        return {'cmd_vel': self._cmd_vel, 'joint_command': self._joints.topic_name}

    @property
    def num_others(self) -> int:
        """How many others publish base velocities."""
        return self._node.count_publishers(self._cmd_vel) - (self._twist is not None)

    def look(self) -> bool:
        """
        Choose the type of cmd_vel by who listens; another one after a robot was exchanged.

        :return: whether base velocities can be published
        """
        types = {info.topic_type
                 for info in self._node.get_subscriptions_info_by_topic(self._cmd_vel)}
        with self._lock:
            if types and (self._twist is None or (STAMPED in types) != self._stamped):
                self._part()
                self._stamped = STAMPED in types
                kind = type(twist_to_msg(0.0, 0.0, self._stamped))
                self._twist = self._node.create_publisher(kind, self._cmd_vel, qos.NEWEST)
            return self._twist is not None

    def twist(self, v_x: float, v_y: float, w_z: float) -> None:
        """Publish a base velocity [m/s, rad/s]; nothing happens while nobody listens."""
        with self._lock:
            if self._twist is not None:
                self._twist.publish(twist_to_msg(v_x, w_z, self._stamped, v_y))
                self._moves = bool(v_x or v_y or w_z)

    def _part(self) -> None:
        """Drop the publisher; whoever heard it to the last must not go on moving."""
        if self._twist is None:
            return
        if self._moves:
            self._twist.publish(twist_to_msg(0.0, 0.0, self._stamped))
            self._twist.wait_for_all_acked(PARTING)
            self._moves = False
        self._node.destroy_publisher(self._twist)
        self._twist = None

    def part(self) -> None:
        """Wait until listeners have what was sent last, ``PARTING`` for each topic at most."""
        with self._lock:
            for publisher in (self._twist, self._joints):
                if publisher is not None:
                    publisher.wait_for_all_acked(PARTING)

    def joint_velocities(self, names: Iterable[str], velocities: Iterable[float]) -> None:
        """Publish velocities, rad/s or m/s, of the joints named."""
        self._joints.publish(joint_command_to_msg(names, velocity=velocities))

    def joint_positions(self, names: Iterable[str], positions: Iterable[float]) -> None:
        """Publish positions, rad or m, of the joints named."""
        self._joints.publish(joint_command_to_msg(names, position=positions))
