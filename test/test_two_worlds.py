# SPDX-License-Identifier: Apache-2.0
"""
Two worlds from one command: nothing of one is heard in the other, seeds and clocks are their own.

``TWO_WORLDS_FRAMES=900 pytest -s test/test_two_worlds.py`` makes the long run.
"""
import os
import signal
import subprocess
import sys

from needs import need_engine
import pytest

pytest.importorskip('rclpy')
need_engine('room')
pytest.importorskip('lingbot_world_ros.msg')

from lingbot_world_ros.messages.commands import twist_to_msg  # noqa: E402, I100
from lingbot_world_ros.messages.stamps import stamp_to_ns  # noqa: E402
from lingbot_world_ros.msg import WorldStatus  # noqa: E402, I100
from nav_msgs.msg import Odometry  # noqa: E402
import numpy as np  # noqa: E402
from ros_domain import Domain  # noqa: E402
from ros_graph import Graph  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402

FRAMES = int(os.environ.get('TWO_WORLDS_FRAMES', 60))  # of each world
PERIOD_NS = 66_666_667
WORLDS = ('world_0', 'world_1')


class World:
    """Everything one world says."""

    def __init__(self, graph, name):
        self.name, self.graph = name, graph
        self.status = graph.listen(WorldStatus, f'/{name}/world_status')
        self.odom = graph.listen(Odometry, f'/{name}/odom')
        self.clock = graph.listen(Clock, f'/{name}/clock')
        self.images = graph.listen(Image, f'/{name}/camera/image_raw')

    def stamps(self, messages):
        return [stamp_to_ns(m.header.stamp) for m in messages]


@pytest.fixture
def worlds():
    """Start two worlds with one command and listen to both."""
    with Domain() as domain:
        environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain)}
        process = subprocess.Popen(
            [sys.executable, '-m', 'lingbot_world_ros.cli', 'sim', '--worlds', '2', '--seed', '5',
             '--param', 'cmd_vel_type:=twist'], env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True)
        try:
            with Graph(lambda: [], domain) as graph:
                yield graph, [World(graph, name) for name in WORLDS]
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE_S)
        assert 'Traceback' not in errors


def test_two_worlds_run_side_by_side_without_cross_talk(worlds):
    graph, (left, right) = worlds
    tf = graph.listen(TFMessage, '/tf')
    # A status told before the world was loaded has neither digest nor seed.
    graph.wait_for(lambda: all(w.status and w.status[-1].digest and w.odom and w.clock and w.images
                               for w in (left, right)), 'both worlds')
    assert [w.status[-1].seed for w in (left, right)] == [5, 6]
    drive = graph.publisher(type(twist_to_msg(0.0, 0.0)), '/world_0/cmd_vel')
    seen = {w.name: len(w.status) for w in (left, right)}

    def driven():  # only the left one, in a circle
        drive.publish(twist_to_msg(0.1, 0.8))
        for messages in (left.odom, right.odom, left.images, right.images):
            del messages[:-200]
        return all(len(w.status) >= seen[w.name] + FRAMES for w in (left, right))
    graph.wait_for(driven, 'frames', PATIENCE_S + FRAMES)
    for world in (left, right):
        frames = [m.frame for m in world.status[seen[world.name]:]]
        assert np.diff(frames).tolist() == [1] * (len(frames) - 1), world.name
        assert set(np.diff(world.stamps(world.images))) == {PERIOD_NS}, world.name
        ticks = np.diff([stamp_to_ns(m.clock) for m in world.clock])
        assert ticks.min() > 0, world.name
    assert left.status[-1].digest != right.status[-1].digest
    assert max(abs(m.twist.twist.angular.z) for m in left.odom) > 0.7
    for m in right.odom:  # nobody asked it to move
        assert abs(m.pose.pose.position.x) < 0.01 and abs(m.twist.twist.angular.z) < 0.02
    frames = {t.header.frame_id for m in tf for t in m.transforms}
    assert frames == {'world_0/odom', 'world_1/odom'}

    # One stands still, the other goes on: clocks are their own.
    pause = graph.call(SetBool, '/world_0/world_model/pause', SetBool.Request(data=True))
    assert pause.success
    graph.wait_for(lambda: left.status[-1].state == WorldStatus.STATE_PAUSED, 'the pause')
    stood = left.status[-1].frame
    later = graph.newest(right.status, lambda m: m.frame > right.status[0].frame + 10)
    assert later.state == WorldStatus.STATE_PLAYING and left.status[-1].frame == stood
