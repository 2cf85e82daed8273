# SPDX-License-Identifier: Apache-2.0
"""Who is heard: reliable and best-effort publishers, on every topic that the nodes listen to."""
from collections import Counter

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from fake_world import FakeWorld  # noqa: E402, I100
from free_camera import FreeCameraWorld  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.nodes import qos  # noqa: E402
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode  # noqa: E402
from lingbot_world_ros.nodes.follower import FollowerNode  # noqa: E402
from lingbot_world_ros.nodes.teleop import TeleopNode  # noqa: E402
from lingbot_world_ros.nodes.view import ViewNode  # noqa: E402
from lingbot_world_ros.nodes.world_model import WorldModelNode  # noqa: E402
import rclpy  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from std_msgs.msg import Float32, String  # noqa: E402

BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def make_graph(open_graph):
    def start(*ros_args, nodes=lambda: [rclpy.create_node('robot')]):
        return open_graph(nodes, ros_args)

    return start


def reliability(graph, topic):
    """Return with what a topic is listened to, by the name of the node."""
    return {info.node_name: info.qos_profile.reliability.name
            for info in graph.probe.get_subscriptions_info_by_topic(topic)}


def heard(graph, publisher, messages, text):
    """Publish until it arrives: best effort promises nothing."""
    def arrived():
        publisher.publish(String(data=text))
        return any(msg.data == text for msg in messages)
    graph.wait_for(arrived, text)


def test_a_reliable_publisher_is_heard_reliably_and_a_best_effort_one_from_when_it_comes(
        make_graph):
    graph, got = make_graph(), []
    listener = qos.Listener(graph.nodes[0], String, 'cmd', got.append, qos.STATE)
    reliable = graph.publisher(String, 'cmd')
    for number in range(10):
        reliable.publish(String(data=str(number)))
    graph.wait_for(lambda: len(got) == 10, 'all ten')
    assert reliability(graph, '/cmd') == {'robot': 'RELIABLE'}
    careless = graph.probe.create_publisher(String, 'cmd', BEST_EFFORT)
    heard(graph, careless, got, 'careless')
    heard(graph, reliable, got, 'reliable')
    assert reliability(graph, '/cmd') == {'robot': 'BEST_EFFORT'}
    assert [msg.data for msg in got[:10]] == [str(n) for n in range(10)]  # none twice
    listener.destroy()
    listener.take_waiting(1)
    graph.wait_for(lambda: not reliability(graph, '/cmd'), 'the end of it')


def test_a_publisher_that_is_there_first_is_heard_too(make_graph):
    graph, got = make_graph(), []
    careless = graph.probe.create_publisher(String, 'cmd', BEST_EFFORT)
    graph.wait_for(lambda: graph.nodes[0].count_publishers('cmd'), 'the publisher')
    qos.Listener(graph.nodes[0], String, 'cmd', got.append, qos.NEWEST)
    heard(graph, careless, got, 'careless')


def test_a_profile_can_be_overridden_and_the_choice_of_the_user_stays(make_graph):
    graph = make_graph('-p', 'qos_overrides./cmd.subscription.depth:=7',
                       '-p', 'qos_overrides./cmd.subscription.reliability:=reliable')
    node, got, others = graph.nodes[0], [], []
    qos.Listener(node, String, 'cmd', got.append, qos.NEWEST)
    qos.Listener(node, String, 'other', others.append, qos.NEWEST)
    assert node.get_parameter('qos_overrides./cmd.subscription.depth').value == 7
    assert qos.NEWEST.depth == 1
    graph.publisher(String, 'cmd').publish(String(data='x'))
    graph.wait_for(lambda: got, 'the command')
    careless = [graph.probe.create_publisher(String, topic, BEST_EFFORT)
                for topic in ('cmd', 'other')]
    heard(graph, careless[1], others, 'careless')
    assert reliability(graph, '/cmd') == {'robot': 'RELIABLE'}
    with pytest.raises(SpecError, match='not a topic name'):
        qos.Listener(node, String, 'a b', got.append, qos.NEWEST)


def test_whatever_the_nodes_listen_to_is_heard_from_best_effort_publishers(make_graph):
    """REP 2003, and the brothers of camera/anchor and cmd_vel; latched ones from latched ones."""
    def nodes():
        return [ActionEncoderNode(), WorldModelNode(world=FreeCameraWorld), ViewNode(),
                FollowerNode(FakeWorld), TeleopNode()]

    graph = make_graph('-p', 'scene:=image', nodes=nodes)
    view = graph.nodes[2]
    view.watch(True, True, True)
    graph.listen(Float32, 'reference/image_error')  # for which the follower looks at images

    def subscriptions():
        return [s for node in graph.nodes for s in node.subscriptions]
    wanted = {'/camera/anchor', '/cmd_vel', '/joint_command', '/joint_states', '/odom', '/prompt',
              '/arm_controller/joint_trajectory', '/arm_controller/commands', '/world_spec',
              '/action_embedding', '/camera/image_raw', '/world_status', '/robot_description'}
    graph.wait_for(lambda: wanted <= {s.topic_name for s in subscriptions()}, 'all of them')
    # All are looked at before the first publisher is there: each makes subscriptions anew.
    heard = [(s.topic_name, s.msg_type, s.qos_profile.durability) for s in subscriptions()]
    counts = Counter(topic for topic, *_ in heard)
    publishers = {
        topic: graph.probe.create_publisher(msg_type, topic, QoSProfile(
            depth=1, durability=durability, reliability=ReliabilityPolicy.BEST_EFFORT))
        for topic, msg_type, durability in heard}
    graph.wait_for(lambda: all(publisher.get_subscription_count() >= counts[topic]
                               for topic, publisher in publishers.items()),
                   'all to be heard')
