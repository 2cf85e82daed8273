# SPDX-License-Identifier: Apache-2.0
"""A step request is exact: so many frames, each with its stamp, all out before the answer."""
import random
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('simulation_interfaces.srv')

from fake_world import FakeWorld  # noqa: E402, I100
from geometry_msgs.msg import Twist  # noqa: E402
from lingbot_world_ros.messages.commands import twist_to_msg  # noqa: E402
from lingbot_world_ros.messages.stamps import stamp_to_ns  # noqa: E402
from lingbot_world_ros.msg import WorldStatus  # noqa: E402
from lingbot_world_ros.nodes.pair import make_pair  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
import numpy as np  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from ros_graph import Graph, PATIENCE_S  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, JointState  # noqa: E402
from simulation_interfaces.srv import StepSimulation  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

PERIOD_NS = 66_666_667
NUM_CALLS = 300  # bench.stepping makes more
MOST_STEPS = 3  # per call
OK = 1
TOPICS = {'image': (Image, 'camera/image_raw'), 'camera_info': (CameraInfo, 'camera/camera_info'),
          'joint_states': (JointState, 'joint_states'), 'odom': (Odometry, 'odom'),
          'tf': (TFMessage, '/tf'), 'clock': (Clock, '/clock')}


def stamp_of(msg):
    """Return sim time of any of the messages, nanoseconds."""
    if hasattr(msg, 'clock'):
        return stamp_to_ns(msg.clock)
    return stamp_to_ns((msg.transforms[0] if hasattr(msg, 'transforms') else msg).header.stamp)


class Stepped:
    """A world in stepped mode, a client, and what the client received, by topic."""

    def __init__(self, domain, *ros_args):
        self.graph = Graph(lambda: make_pair(FakeWorld), domain, (
            '-p', 'mode:=stepped', '-p', 'scene:=a', '-p', 'cmd_vel_type:=twist', *ros_args))
        self.sent = {key: [] for key in TOPICS}  # stamps that have left
        self.stamps = {key: [] for key in TOPICS}  # stamps that have arrived

    def __enter__(self):
        self.graph.__enter__()
        self.graph.node = node = self.graph.nodes[0]
        self._watch_publishers(node.sensors)
        deep = QoSProfile(depth=MOST_STEPS * NUM_CALLS)
        for key, (msg_type, topic) in TOPICS.items():
            self.graph.probe.create_subscription(
                msg_type, topic, lambda msg, key=key: self.stamps[key].append(stamp_of(msg)),
                deep)
        self._client = self.graph.probe.create_client(StepSimulation, '/step_simulation')
        self.graph.wait_for(self._client.service_is_ready, 'the service')
        self.graph.wait_for(lambda: all(p.get_subscription_count() for p in self._publishers),
                            'all subscriptions')
        # Who joins while time stands still gets the frame it stands at, some time later.
        self.graph.wait_for(lambda: all(self.stamps[key] for key in TOPICS if key != 'clock'),
                            'the first frame')
        for stamps in (*self.stamps.values(), *self.sent.values()):
            stamps.clear()
        return self

    def __exit__(self, *exception):
        self.graph.__exit__(*exception)

    def _watch_publishers(self, sensors):
        self._publishers = []
        for key in TOPICS:
            publisher = sensors._publishers[key]
            self._publishers.append(publisher)

            def publish(msg, key=key, original=publisher.publish):
                original(msg)
                self.sent[key].append(stamp_of(msg))
            publisher.publish = publish

    def step(self, steps):
        """Make steps and return what had left when the answer came."""
        future = self._client.call_async(StepSimulation.Request(steps=steps))
        deadline = time.monotonic() + PATIENCE_S
        while not future.done():
            assert time.monotonic() < deadline
            self.graph._executor.spin_once(timeout_sec=0.1)
        assert future.result().result.result == OK
        return {key: len(stamps) for key, stamps in self.sent.items()}


@pytest.mark.parametrize('use_sim_time', [
    'false', pytest.param('true', marks=pytest.mark.slow)])
def test_steps_are_exact_hundreds_of_times_in_a_row(domain, use_sim_time):
    rng = random.Random(use_sim_time)
    with Stepped(domain, '-p', f'use_sim_time:={use_sim_time}') as world:
        before = world.graph.node.session.sim_ns
        expected = []
        for _ in range(NUM_CALLS):
            steps = rng.randint(1, MOST_STEPS)
            expected += [before + PERIOD_NS * (n + 1) for n in range(steps)]
            before += PERIOD_NS * steps
            num_sent = world.step(steps)
            assert num_sent == {key: len(expected) for key in TOPICS}, 'the answer came early'
            assert world.graph.node.session.sim_ns == before
        for key in TOPICS:
            world.graph.wait_for(lambda key=key: world.stamps[key][-1:] == expected[-1:], key)
            assert world.sent[key] == expected, key
            if key == 'clock':  # its queue holds the newest only
                assert set(world.stamps[key]) <= set(expected)
                assert world.stamps[key] == sorted(world.stamps[key])
            else:
                assert world.stamps[key] == expected, key


def test_a_command_sent_before_a_step_acts_in_it(domain):
    calls = 300
    with Stepped(domain) as world:
        statuses = world.graph.listen(WorldStatus, 'world_status')
        publisher = world.graph.publisher(Twist, 'cmd_vel')
        world.step(1)
        world.graph.wait_for(lambda: statuses and len(statuses[-1].actions), 'world_status')
        late = []
        for index in range(calls):
            speed = np.float32(0.1 + 1e-3 * index)
            step = statuses[-1].step + 1
            publisher.publish(twist_to_msg(0.0, float(speed)))
            world.step(1)
            world.graph.wait_for(lambda step=step: statuses[-1].step == step, 'its status')
            if statuses[-1].actions[1] != speed:
                late.append(step)
        assert late == []


def test_step_acts_on_a_command_that_the_executor_has_not_come_to_yet(domain):
    """The executor may look at a step request before a command sent ahead of it; it did."""
    with Stepped(domain) as world:
        publisher = world.graph.publisher(Twist, 'cmd_vel')
        session, acted = world.graph.node.session, []

        def hold_the_executor():
            publisher.publish(twist_to_msg(0.0, 0.25))
            deadline = time.monotonic() + PATIENCE_S
            while not acted and time.monotonic() < deadline:  # until the middleware has it
                status = session.advance(1).result()
                acted.extend(a for a in status.actions[:, 1] if a == 0.25)

        world.graph._spinner._executor.create_task(hold_the_executor)
        world.graph.wait_for(lambda: acted, 'the command')
