# SPDX-License-Identifier: Apache-2.0
"""Publishes what a person asks a robot to do, in the types the robot listens to."""
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.sensors.commands import joint_command_to_msg, twist_to_msg
from sensor_msgs.msg import JointState

STAMPED = 'geometry_msgs/msg/TwistStamped'


class CommandPublishers:
    """Publishers of ``cmd_vel`` and ``joint_command``; the type of the first is its listener's."""

    def __init__(self, node, cmd_vel: str = 'cmd_vel', joint_command: str = 'joint_command'):
        """
        Publish joint commands at once, base velocities when ``look`` found a listener.

        :param node: rclpy node that owns the publishers
        :param cmd_vel: topic name
        :param joint_command: topic name
        :raises SpecError: characters no topic name may have
        """
        self._node, self._cmd_vel = node, qos.topic_name(node, cmd_vel)
        self._joints = qos.publisher(node, JointState, joint_command, qos.STATE)
        self._twist, self._stamped = None, False

    @property
    def topics(self) -> dict:
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
        if types and (self._twist is None or (STAMPED in types) != self._stamped):
            if self._twist is not None:
                self._node.destroy_publisher(self._twist)
            self._stamped = STAMPED in types
            kind = type(twist_to_msg(0.0, 0.0, self._stamped))
            self._twist = self._node.create_publisher(kind, self._cmd_vel, qos.NEWEST)
        return self._twist is not None

    def twist(self, linear_mps: float, angular_radps: float) -> None:
        """Publish a base velocity; nothing happens while nobody listens."""
        if self._twist is not None:
            self._twist.publish(twist_to_msg(linear_mps, angular_radps, self._stamped))

    def joint_velocities(self, names, velocities) -> None:
        """Publish velocities, rad/s or m/s, of the joints named."""
        self._joints.publish(joint_command_to_msg(names, velocity=velocities))

    def joint_positions(self, names, positions) -> None:
        """Publish positions, rad or m, of the joints named."""
        self._joints.publish(joint_command_to_msg(names, position=positions))
