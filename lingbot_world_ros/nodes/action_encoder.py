# SPDX-License-Identifier: Apache-2.0
"""Node ``action_encoder``: commands of every kind in, one action embedding per command out."""
import os
import time

from geometry_msgs.msg import Twist, TwistStamped
from lingbot_world_ros.actions.commands import CommandBuffer
from lingbot_world_ros.actions.embedding import CommandCounts, encode
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.msg import ActionEmbedding as ActionEmbeddingMsg, WorldSpec as WorldSpecMsg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.params import ACTION_ENCODER, declare
from lingbot_world_ros.nodes.run import spin_node
from lingbot_world_ros.sensors.action_embedding import embedding_to_msg
from lingbot_world_ros.sensors.commands import (joint_command_from_msg, trajectory_from_msg,
                                                twist_from_msg)
from lingbot_world_ros.sensors.stamps import stamp_to_ns
from lingbot_world_ros.sensors.world import camera_model_from_msg, command_spec_from_msg
import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

LOG_PERIOD_S = 2.0
FIRST_STAMPED_DISTRO = 'kilted'  # from here on Nav2 and the wheel controllers use TwistStamped


def twist_type(cmd_vel_type: str, distro: str):
    """
    Choose the message type of ``cmd_vel``.

    :param cmd_vel_type: ``'auto'``, ``'twist'`` or ``'twist_stamped'``
    :param distro: name of the ROS distribution, ``''`` outside of one
    :return: Twist or TwistStamped
    """
    stamped = cmd_vel_type == 'twist_stamped'
    if cmd_vel_type == 'auto':
        stamped = distro >= FIRST_STAMPED_DISTRO  # distributions are named in alphabetical order
    return TwistStamped if stamped else Twist


class ActionEncoderNode(Node):
    """Keep the newest command of each topic; encode whenever one arrives and at a least rate."""

    def __init__(self, **node_args):
        """
        Subscribe; encoding starts when ``world_spec`` arrives.

        :param node_args: for ``rclpy.node.Node``
        :raises SpecError: a parameter cannot be used
        """
        super().__init__('action_encoder', **node_args)
        self._params = declare(self, ACTION_ENCODER)
        self._buffer = None
        self._camera = None
        self._world = None
        self._sequence = self._sim_ns = 0
        self._joint_position = np.zeros(0)
        self._publisher = self.create_publisher(ActionEmbeddingMsg, 'action_embedding',
                                                qos.NEWEST)
        self.create_subscription(WorldSpecMsg, 'world_spec', self.on_world_spec, qos.LATCHED)
        self.create_subscription(JointState, 'joint_states', self.on_joint_states, qos.NEWEST)
        self.cmd_vel = self.create_subscription(
            twist_type(self._params.cmd_vel_type, os.environ.get('ROS_DISTRO', '')),
            'cmd_vel', self.on_cmd_vel, qos.NEWEST)
        self.command_subscriptions = [
            self.cmd_vel,
            self.create_subscription(JointState, 'joint_command', self.on_joint_command,
                                     qos.STATE),
            self.create_subscription(JointTrajectory, 'arm_controller/joint_trajectory',
                                     self.on_trajectory, qos.STATE),
            self.create_subscription(Float64MultiArray, 'arm_controller/commands',
                                     self.on_arm_commands, qos.STATE)]
        # Steady: embeddings must flow before there is any sim time.
        self.create_timer(1.0 / self._params.encode_rate_hz, self.encode,
                          clock=Clock(clock_type=ClockType.STEADY_TIME))

    def on_world_spec(self, msg):
        """Take over a new world, or forget the commands when the same one starts over."""
        spec = command_spec_from_msg(msg, self._params.cmd_timeout_s)
        if self._buffer is not None and self._buffer.spec == spec:
            self._buffer.clear()
        else:
            self._buffer = CommandBuffer(spec)
        self._world, self._camera = msg, camera_model_from_msg(msg)
        self._joint_position = np.zeros(len(spec.joint_names))
        self._sim_ns = stamp_to_ns(msg.header.stamp)

    def on_joint_states(self, msg):
        """Note where the joints are; a running trajectory asks for a new target each frame."""
        if self._buffer is None or len(msg.position) != len(msg.name):
            return
        self._sim_ns = stamp_to_ns(msg.header.stamp)
        known = self._buffer.spec.joint_names
        for name, position in zip(msg.name, msg.position):
            if name in known:
                self._joint_position[known.index(name)] = position
        if self._buffer.follows_trajectory:
            self.encode()

    def on_cmd_vel(self, msg):
        """Base velocity, Twist or TwistStamped."""
        self._take(lambda buffer: buffer.twist(*twist_from_msg(msg), time.monotonic_ns()))

    def on_joint_command(self, msg):
        """Positions or velocities of named joints."""
        self._take(lambda buffer: buffer.joints(*joint_command_from_msg(msg),
                                                time.monotonic_ns()))

    def on_arm_commands(self, msg):
        """One value per joint in world_spec order."""
        self._take(lambda buffer: buffer.joint_array(
            msg.data, self._params.arm_commands_interface, time.monotonic_ns()))

    def on_trajectory(self, msg):
        """Positions over sim time."""
        names, times_s, positions, start_ns = trajectory_from_msg(msg)
        self._take(lambda buffer: buffer.trajectory(
            names, times_s, positions, start_ns=start_ns, sim_ns=self._sim_ns,
            current=self._joint_position))

    def encode(self):
        """Publish what the coming step is asked to do."""
        if self._buffer is None:
            return
        buffer, world = self._buffer, self._world
        targets = buffer.targets(time.monotonic_ns(), self._sim_ns, world.frames_per_step,
                                 round(1e9 / world.frame_rate))
        self._sequence += 1
        counts = CommandCounts(buffer.accepted, buffer.rejected, buffer.clipped, buffer.timed_out,
                               buffer.message)
        embedding = encode(targets, buffer.spec, self._camera, self._joint_position,
                           sequence=self._sequence, stamp_ns=self._sim_ns,
                           period_s=1.0 / world.frame_rate, counts=counts)
        self._publisher.publish(embedding_to_msg(embedding, world.header.frame_id))

    def _take(self, command):
        if self._buffer is None:
            self.get_logger().warning('command dropped: no world_spec yet; start world_model.',
                                      throttle_duration_sec=LOG_PERIOD_S)
            return
        problem = self._buffer.message
        try:
            command(self._buffer)
        except SpecError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=LOG_PERIOD_S)
        else:
            if self._buffer.message and self._buffer.message != problem:
                self.get_logger().warning(self._buffer.message,
                                          throttle_duration_sec=LOG_PERIOD_S)
        self.encode()


def main(args=None) -> int:
    """Run the node until it is interrupted; return the exit code."""
    return spin_node(ActionEncoderNode, args)
