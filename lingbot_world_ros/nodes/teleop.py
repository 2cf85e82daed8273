# SPDX-License-Identifier: Apache-2.0
"""Node ``teleop``: publishes what the keyboard asks for, in the types the world listens to."""
import threading
from typing import Any, Sequence, Tuple, Union

from lingbot_world_ros.actions.layout import ANGULAR, LATERAL, LINEAR, velocity_name
from lingbot_world_ros.msg import WorldSpec as WorldSpecMsg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.command_publishers import CommandPublishers
import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node


class TeleopNode(Node):
    """Learn speeds and joints from ``world_spec``, then publish velocities on demand."""

    def __init__(self, **node_args: Any):
        """
        Wait for a world; ``ready`` is set when it was found.

        :param node_args: for ``rclpy.node.Node``
        """
        super().__init__('teleop', **node_args)
        self.ready = threading.Event()
        self.joint_names: Tuple[str, ...] = ()
        self.joint_speeds = np.zeros(0)
        self.linear_mps = self.lateral_mps = self.angular_radps = 0.0
        self._is_told = False
        self._commands = CommandPublishers(self)
        qos.Listener(self, WorldSpecMsg, 'world_spec', self.on_world_spec, qos.LATCHED)
        # Steady: keys must work before there is any sim time.
        self.create_timer(0.05, self.on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def on_world_spec(self, msg: WorldSpecMsg) -> None:
        """Take over the limits of the world."""
        highest = dict(zip(msg.action_names, msg.action_max))
        self.linear_mps, self.angular_radps = highest[LINEAR], highest[ANGULAR]
        self.lateral_mps = highest.get(LATERAL, 0.0)
        self.joint_names = tuple(msg.joint_names)
        self.joint_speeds = np.array([highest[velocity_name(n)] for n in msg.joint_names])
        self._is_told = True

    def on_tick(self) -> None:
        """Choose the type of cmd_vel once its subscriber is known."""
        if not self.ready.is_set() and self._is_told and self._commands.look():
            self.ready.set()

    def send_twist(self, v_x: float, v_y: float, w_z: float) -> None:
        """Publish a base velocity, m/s and rad/s."""
        self._commands.twist(v_x, v_y, w_z)

    def send_joints(self, velocities: Union[np.ndarray, Sequence[float]]) -> None:
        """Publish the velocities of all joints, (J,) rad/s or m/s."""
        self._commands.joint_velocities(self.joint_names, velocities)

    def part(self) -> None:
        """Wait a moment until what was sent last is heard."""
        self._commands.part()
