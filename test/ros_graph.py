# SPDX-License-Identifier: Apache-2.0
"""A real ROS graph for tests: nodes in a thread, a probe that waits."""
import time

from lingbot_world_ros.nodes.ros_environment import note_command_line
from lingbot_world_ros.nodes.spinner import Spinner
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from waiting import PATIENCE_S


class Graph:
    """
    Nodes under test, spinning, and a probe node to talk to them.

    Waiting is always for something to happen, with a deadline that only a failure reaches.
    """

    def __init__(self, make_nodes, domain, ros_args=()):
        """Start ROS in a domain, then the nodes that ``make_nodes()`` returns."""
        args = ['--ros-args', *ros_args] if ros_args else []
        note_command_line(args)
        rclpy.init(args=args, domain_id=domain)
        try:
            self.nodes = make_nodes()
        except Exception:
            rclpy.try_shutdown()
            raise
        self._spinner = Spinner()
        self.probe = rclpy.create_node('probe', use_global_arguments=False)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.probe)

    def __enter__(self):
        self._spinner.__enter__()
        for node in self.nodes:
            self._spinner.add(node)
        return self

    def __exit__(self, *_):
        self._spinner.__exit__()
        self._executor.shutdown()
        self.probe.destroy_node()
        rclpy.try_shutdown()

    def wait_for(self, happened, what='it', patience_s=PATIENCE_S):
        """Spin the probe until ``happened()`` is true and return its value."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            value = happened()
            if value:
                return value
            self._executor.spin_once(timeout_sec=0.05)
        raise AssertionError(f'waited {patience_s} s in vain for {what}')

    def listen(self, msg_type, topic, latched=False, depth=1000):
        """Subscribe and return the list that fills with messages."""
        messages = []
        durability = (DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)
        self.probe.create_subscription(msg_type, topic, messages.append,
                                       QoSProfile(depth=depth, durability=durability))
        return messages

    def newest(self, messages, fits=lambda msg: True, what='a message'):
        """Wait for a message that arrives from now on and fits."""
        seen = len(messages)
        return self.wait_for(lambda: next((m for m in messages[seen:] if fits(m)), None), what)

    def publisher(self, msg_type, topic):
        """Return a publisher once somebody listens."""
        publisher = self.probe.create_publisher(msg_type, topic, 10)
        self.wait_for(lambda: publisher.get_subscription_count() > 0, f'a subscriber of {topic}')
        return publisher

    def call(self, srv_type, name, request=None):
        """Call a service and return its response."""
        client = self.probe.create_client(srv_type, name)
        self.wait_for(client.service_is_ready, f'service {name}')
        future = client.call_async(request or srv_type.Request())
        self.wait_for(future.done, f'the answer of {name}')
        return future.result()
