# SPDX-License-Identifier: Apache-2.0
"""The ROS interface: topics, types, frames, stamps, commands, services, through a real graph."""
import math

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402, I100
from fake_world import FakeWorld  # noqa: E402
from geometry_msgs.msg import Twist, TwistStamped  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.messages.commands import joint_command_to_msg, twist_to_msg  # noqa: E402
from lingbot_world_ros.messages.encodings import (compressed_from_msg,  # noqa: E402
                                                  depth_from_msg, rgb_from_msg)
from lingbot_world_ros.messages.stamps import set_stamp, stamp_to_ns  # noqa: E402
from lingbot_world_ros.msg import ActionEmbedding, WorldSpec, WorldStatus  # noqa: E402
from lingbot_world_ros.nodes import world_publishers  # noqa: E402
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode, twist_type  # noqa: E402
from lingbot_world_ros.nodes.world_model import WorldModelNode  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
import numpy as np  # noqa: E402
from ros_graph import Graph  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState  # noqa: E402
from std_msgs.msg import Float64MultiArray, String  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint  # noqa: E402

ROBOT = load_robot()

PERIOD_NS = 66_666_667
PAN, LIFT = ROBOT.joint_names[:2]
FASTEST_MPS = ROBOT.drive.linear_high_mps
# Sim time thrice as fast: shorter tests. Whatever distribution is sourced, cmd_vel is a Twist.
BASE_ARGS = ('-p', 'scene:=a', '-p', 'speed:=3.0', '-p', 'cmd_vel_type:=twist')


@pytest.fixture
def make_graph(open_graph):
    """Start both nodes over a fake engine."""
    def start(*ros_args, world=None, composed=True):
        world = world or FakeWorld()

        def nodes():
            encoder = ActionEncoderNode()
            return [WorldModelNode(world=lambda: world, encoder=encoder if composed else None),
                    encoder]
        graph = open_graph(nodes, (*BASE_ARGS, *ros_args))
        graph.world = graph.nodes[0]
        graph.wait_for(lambda: graph.world.session.status.embedding_sequence > 0, 'an embedding')
        return graph

    return start


@pytest.fixture
def graph(make_graph):
    return make_graph()


def stamp_of(msg):
    return stamp_to_ns(msg.header.stamp)


def send_until(graph, publisher, msg, messages, fits, what):
    """Repeat a command like a controller does until the answer is there."""
    seen = len(messages)

    def answered():
        publisher.publish(msg)
        return next((m for m in messages[seen:] if fits(m)), None)
    return graph.wait_for(answered, what)


def test_topics_have_the_names_and_types_of_a_simulator(graph):
    wanted = {
        '/camera/image_raw': 'sensor_msgs/msg/Image',
        '/camera/camera_info': 'sensor_msgs/msg/CameraInfo',
        '/camera/image_raw/compressed': 'sensor_msgs/msg/CompressedImage',
        '/camera/depth/image_rect_raw': 'sensor_msgs/msg/Image',
        '/joint_states': 'sensor_msgs/msg/JointState', '/odom': 'nav_msgs/msg/Odometry',
        '/tf': 'tf2_msgs/msg/TFMessage', '/tf_static': 'tf2_msgs/msg/TFMessage',
        '/clock': 'rosgraph_msgs/msg/Clock',
        '/diagnostics': 'diagnostic_msgs/msg/DiagnosticArray',
        '/world_spec': 'lingbot_world_ros/msg/WorldSpec',
        '/world_status': 'lingbot_world_ros/msg/WorldStatus',
        '/action_embedding': 'lingbot_world_ros/msg/ActionEmbedding',
        '/cmd_vel': 'geometry_msgs/msg/Twist', '/joint_command': 'sensor_msgs/msg/JointState',
        '/arm_controller/joint_trajectory': 'trajectory_msgs/msg/JointTrajectory',
        '/arm_controller/commands': 'std_msgs/msg/Float64MultiArray',
        '/prompt': 'std_msgs/msg/String'}

    def complete():
        types = dict(graph.probe.get_topic_names_and_types())
        return all(types.get(name) == [kind] for name, kind in wanted.items())
    graph.wait_for(complete, 'all topics')
    for name in ('/camera/image_raw', '/clock', '/odom'):
        info = graph.probe.get_publishers_info_by_topic(name)
        assert [i.qos_profile.reliability.name for i in info] == ['RELIABLE']


def test_frames_carry_their_own_sim_time_and_the_clock_never_runs_ahead(graph):
    images, infos = graph.listen(Image, 'camera/image_raw'), graph.listen(
        CameraInfo, 'camera/camera_info')
    order = []
    graph.probe.create_subscription(Clock, '/clock', lambda m: order.append(
        (stamp_to_ns(m.clock), stamp_of(images[-1]) if images else None)), 50)
    graph.wait_for(lambda: len(images) > 12 and len(infos) > 12 and len(order) > 99, 'frames')
    stamps = [stamp_of(m) for m in images]
    assert set(np.diff(stamps)) == {PERIOD_NS}
    assert all(s % PERIOD_NS == 0 for s in stamps)
    info_stamps = {stamp_of(m) for m in infos}
    assert set(stamps[2:-2]) <= info_stamps
    assert {m.header.frame_id for m in images + infos} == {'camera_optical_frame'}
    assert all(clock <= PERIOD_NS * graph.world.session.status.frame for clock, _ in order)
    ticks = np.diff([clock for clock, _ in order])
    assert 0 < ticks.min() <= 10_000_000 and ticks.max() <= PERIOD_NS  # 100 Hz where there is time
    assert (images[0].encoding, images[0].width, images[0].height) == ('rgb8', 32, 24)


def test_who_joins_a_world_in_lockstep_sees_what_it_stands_at(domain):
    """Who sends the first command may wait for a picture before."""
    def nodes():
        encoder = ActionEncoderNode()
        return [WorldModelNode(world=FakeWorld, encoder=encoder), encoder]
    with Graph(nodes, domain, (*BASE_ARGS, '-p', 'mode:=lockstep',
                               '-p', 'lockstep_timeout_s:=3600.0')) as graph:
        images, statuses = graph.listen(Image, 'camera/image_raw'), graph.listen(
            WorldStatus, 'world_status')
        graph.wait_for(lambda: images and statuses, 'the first frame')
        assert stamp_of(images[0]) == PERIOD_NS and len(images) == 1
        assert statuses[-1].state == WorldStatus.STATE_PLAYING and statuses[-1].step == 0


def test_clock_follows_the_image_of_its_frame(make_graph):
    """A subscriber that has the clock of a frame can have its image: it was published before."""
    graph = make_graph('-p', 'clock_rate_hz:=0.0')
    sent = []
    for key in ('image', 'clock'):
        publisher = graph.world.sensors._publishers[key]
        graph.listen(publisher.msg_type, publisher.topic_name)
        original = publisher.publish
        publisher.publish = lambda msg, key=key, original=original: (
            sent.append(key), original(msg))
    graph.wait_for(lambda: len(sent) > 9, 'frames')
    ahead = np.cumsum([1 if key == 'image' else -1 for key in sent[sent.index('image'):]])
    assert ahead.min() >= 0 and 'clock' in sent


def test_tf_tree_reaches_from_odom_to_the_optical_frame(make_graph):
    graph = make_graph('-p', 'frame_prefix:=r1/')
    tf, static = graph.listen(TFMessage, '/tf'), graph.listen(TFMessage, '/tf_static', True)
    graph.wait_for(lambda: tf and static, 'transforms')
    links = {(t.header.frame_id, t.child_frame_id)
             for m in tf + static for t in m.transforms}
    assert links == {('r1/odom', 'r1/base_link'), ('r1/base_link', 'r1/camera_link'),
                     ('r1/camera_link', 'r1/camera_optical_frame')}


def test_base_obeys_and_stops_when_commands_fall_silent(make_graph):
    graph = make_graph('-p', 'cmd_timeout_s:=0.2')
    odom, status = graph.listen(Odometry, 'odom'), graph.listen(WorldStatus, 'world_status')
    cmd_vel = graph.publisher(Twist, 'cmd_vel')
    moving = send_until(graph, cmd_vel, twist_to_msg(0.4, 0.5), odom,
                        lambda m: m.twist.twist.linear.x > 0.39, 'motion')
    assert moving.twist.twist.angular.z == pytest.approx(0.5)
    assert (moving.header.frame_id, moving.child_frame_id) == ('odom', 'base_link')
    graph.newest(odom, lambda m: m.twist.twist.linear.x == 0.0, 'standstill')
    stopped = graph.newest(status, lambda m: m.timed_out_commands == 1, 'a counted timeout')
    assert 'cmd_vel' in stopped.message


def test_odometry_starts_at_the_origin_and_its_covariance_grows(graph):
    odom = graph.listen(Odometry, 'odom')
    graph.wait_for(lambda: len(odom) > 5, 'odometry')
    first, last = odom[0], odom[-1]
    assert first.pose.pose.position.x == pytest.approx(0.0, abs=1e-9)
    cov = [np.array(m.pose.covariance).reshape(6, 6) for m in (first, last)]
    for axis in (0, 1, 5):
        assert cov[1][axis, axis] > cov[0][axis, axis] > 0.0
    assert (np.diag(cov[1]) > 0.0).all() and (np.array(last.twist.covariance)[::7] > 0.0).all()


def test_joint_position_and_velocity_commands(graph):
    states = graph.listen(JointState, 'joint_states')
    command = graph.publisher(JointState, 'joint_command')
    command.publish(joint_command_to_msg([PAN], position=[0.4]))
    done = graph.newest(states, lambda m: abs(m.position[0] - 0.4) < 1e-6, 'the position')
    assert done.name == list(ROBOT.joint_names)
    start = done.position[1]
    send_until(graph, command, joint_command_to_msg([LIFT], velocity=[-0.3]), states,
               lambda m: m.position[1] < start - 0.05, 'the motion')
    assert states[-1].position[0] == pytest.approx(0.4, abs=1e-6)


def test_arm_controller_topics(graph):
    states = graph.listen(JointState, 'joint_states')
    goal = [0.2, -1.0, 1.2, 0.1, 0.02]
    graph.publisher(Float64MultiArray, 'arm_controller/commands').publish(
        Float64MultiArray(data=goal))
    graph.newest(states, lambda m: np.allclose(m.position, goal, atol=1e-6), 'the positions')
    point = JointTrajectoryPoint(positions=[-0.2])
    set_stamp(point.time_from_start, 500_000_000)
    graph.publisher(JointTrajectory, 'arm_controller/joint_trajectory').publish(
        JointTrajectory(joint_names=[PAN], points=[point]))
    seen = len(states)
    graph.newest(states, lambda m: abs(m.position[0] + 0.2) < 1e-6, 'the end of the trajectory')
    path = [m.position[0] for m in states[seen:] if m.position[0] < 0.199]
    assert len(path) >= 6 and (np.diff(path) <= 1e-9).all()  # on the way, not in one jump


@pytest.mark.parametrize('msg_type, topic, msg, words', [
    (Twist, 'cmd_vel', twist_to_msg(math.nan, 0.0), ('cmd_vel', 'finite')),
    (Twist, 'cmd_vel', twist_to_msg(0.0, math.inf), ('cmd_vel', 'finite')),
    (JointState, 'joint_command', joint_command_to_msg(['nose'], [0.1]),
     ('joint_command', 'nose', PAN)),
    (JointState, 'joint_command', joint_command_to_msg([PAN], [0.1, 0.2]),
     ('joint_command', '2 values')),
    (Float64MultiArray, 'arm_controller/commands', Float64MultiArray(data=[0.0] * 3),
     ('arm_controller/commands', '3 values', PAN)),
    (JointTrajectory, 'arm_controller/joint_trajectory',
     JointTrajectory(joint_names=[PAN], points=[JointTrajectoryPoint(positions=[0.1, 0.2])]),
     ('joint_trajectory', '2 positions for 1')),
])
def test_bad_input_is_counted_and_told_and_the_world_runs_on(graph, msg_type, topic, msg, words):
    status = graph.listen(WorldStatus, 'world_status')
    publisher = graph.publisher(msg_type, topic)
    graph.wait_for(lambda: status, 'status')
    publisher.publish(msg)
    told = graph.newest(status, lambda m: m.rejected_commands == 1, 'a counted refusal')
    for word in words:
        assert word in told.message
    later = graph.newest(status, lambda m: m.frame > told.frame + 2, 'further frames')
    assert later.state == WorldStatus.STATE_PLAYING and later.rejected_commands == 1


def test_values_beyond_limits_are_limited_and_counted(graph):
    status, odom = graph.listen(WorldStatus, 'world_status'), graph.listen(Odometry, 'odom')
    send_until(graph, graph.publisher(Twist, 'cmd_vel'), twist_to_msg(99.0, 0.0), odom,
               lambda m: m.twist.twist.linear.x == pytest.approx(FASTEST_MPS), 'motion')
    assert graph.newest(status, lambda m: m.clipped_commands > 0, 'a count').message


def test_alien_embedding_is_refused_and_counted(make_graph):
    graph = make_graph(composed=False)
    status = graph.listen(WorldStatus, 'world_status')
    publisher = graph.publisher(ActionEmbedding, 'action_embedding')
    alien = ActionEmbedding(num_frames=1, layout=['x'], embedding=[1.0])
    # Again and again: the encoder's next embedding may take its place in the queue of one.
    send_until(graph, publisher, alien, status, lambda m: m.rejected_commands > 0, 'a count')


def test_world_spec_is_there_for_late_joiners_and_status_tells_latency(graph):
    status = graph.listen(WorldStatus, 'world_status')
    cmd_vel = graph.publisher(Twist, 'cmd_vel')
    told = send_until(graph, cmd_vel, twist_to_msg(0.1, 0.0), status,
                      lambda m: m.command_latency > 0.0, 'a latency')
    assert told.command_latency < 5.0 and told.embedding_sequence > 0
    spec = graph.listen(WorldSpec, 'world_spec', latched=True)
    graph.wait_for(lambda: spec, 'world_spec')
    assert (spec[0].engine, spec[0].scene, spec[0].frame_rate) == ('fake', 'a', 15.0)
    assert len(spec[0].action_names) == 7 and spec[0].joint_names == list(ROBOT.joint_names)


def test_compressed_and_depth_images(graph):
    rgb, jpeg = graph.listen(Image, 'camera/image_raw'), graph.listen(
        CompressedImage, 'camera/image_raw/compressed')
    depth = graph.listen(Image, 'camera/depth/image_rect_raw')
    graph.wait_for(lambda: len(rgb) > 3 and len(jpeg) > 3 and len(depth) > 3, 'images')
    by_stamp = {stamp_of(m): m for m in rgb}
    match = next(m for m in jpeg if stamp_of(m) in by_stamp)
    raw = rgb_from_msg(by_stamp[stamp_of(match)]).astype(int)
    assert np.abs(compressed_from_msg(match) - raw).max() < 12
    assert depth[0].encoding == '32FC1' and depth_from_msg(depth[0]).max() == 1.0


def test_nothing_is_encoded_for_topics_nobody_subscribes_to(make_graph, monkeypatch):
    calls = []
    for name in ('image_to_msg', 'compressed_to_msg', 'depth_to_msg', 'odometry_to_msg',
                 'world_status_to_msg', 'clock_to_msg', 'base_tf_to_msg'):
        original = getattr(world_publishers, name)
        monkeypatch.setattr(world_publishers, name, lambda *a, name=name, original=original, **k: (
            calls.append(name), original(*a, **k))[1])
    graph = make_graph()
    graph.wait_for(lambda: graph.world.session.status.frame > 5, 'frames')
    assert calls == []
    graph.listen(Image, 'camera/image_raw')
    graph.wait_for(lambda: calls, 'the image')
    assert set(calls) == {'image_to_msg'}


def test_pause_step_play_and_reset(graph):
    images, status = graph.listen(Image, 'camera/image_raw'), graph.listen(
        WorldStatus, 'world_status')
    assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=True)).success
    frozen = graph.world.session.status
    assert graph.call(Trigger, '/world_model/step').success
    stepped = graph.wait_for(lambda: [m for m in images if stamp_of(m) > frozen.stamp_ns], 'step')
    assert [stamp_of(m) for m in stepped] == [frozen.stamp_ns + PERIOD_NS]
    graph.wait_for(lambda: status[-1].state == WorldStatus.STATE_PAUSED, 'the pause')
    del images[:]
    for _ in range(2):
        assert graph.call(Trigger, '/world_model/reset').success
    graph.wait_for(lambda: len(images) == 2, 'two first frames')
    assert bytes(images[0].data) == bytes(images[1].data)
    assert [stamp_of(m) for m in images] == [PERIOD_NS] * 2
    assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=False)).success
    refused = graph.call(Trigger, '/world_model/step')
    assert not refused.success and 'pause' in refused.message


def test_a_paused_world_tells_its_status_to_late_joiners(graph):
    assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=True)).success
    step = graph.world.session.status.step
    status = graph.listen(WorldStatus, 'world_status')
    graph.wait_for(lambda: len(status) > 1, 'the status, again and again')
    assert {(m.state, m.step) for m in status} == {(WorldStatus.STATE_PAUSED, step)}


def test_reset_forgets_commands_and_starts_odometry_again(graph):
    odom, states = graph.listen(Odometry, 'odom'), graph.listen(JointState, 'joint_states')
    graph.publisher(JointState, 'joint_command').publish(
        joint_command_to_msg([PAN], position=[0.5]))
    graph.newest(states, lambda m: abs(m.position[0] - 0.5) < 1e-6, 'the position')
    assert graph.call(Trigger, '/world_model/reset').success
    del states[:], odom[:]
    graph.wait_for(lambda: len(states) > 5 and len(odom) > 5, 'frames')
    assert abs(states[-1].position[0]) < 0.25  # home is 0; one frame of the old goal may slip in
    assert odom[-1].pose.pose.position.x == pytest.approx(0.0, abs=1e-9)


def test_engine_failure_is_told_and_reset_recovers(make_graph):
    world = FakeWorld(script={20: RuntimeError('out of ideas')})
    graph = make_graph(world=world)
    images, status = graph.listen(Image, 'camera/image_raw'), graph.listen(
        WorldStatus, 'world_status')
    diagnostics = graph.listen(DiagnosticArray, '/diagnostics')
    told = graph.wait_for(lambda: [m for m in status if m.state == WorldStatus.STATE_ERROR],
                          'the error')
    assert 'out of ideas' in told[0].message
    seen = len(images)
    entry = graph.newest(diagnostics).status[0]
    assert entry.level == b'\x02' and 'out of ideas' in entry.message
    assert len(images) <= seen + 1 and stamp_of(images[-1]) == 20 * PERIOD_NS
    world.script.clear()
    assert graph.call(Trigger, '/world_model/reset').success
    graph.newest(status, lambda m: m.state == WorldStatus.STATE_PLAYING and not m.message)


def test_nodes_on_sim_time_do_not_wait_for_themselves(make_graph):
    graph = make_graph('-p', 'use_sim_time:=true')
    odom = graph.listen(Odometry, 'odom')
    send_until(graph, graph.publisher(Twist, 'cmd_vel'), twist_to_msg(0.3, 0.0), odom,
               lambda m: m.twist.twist.linear.x > 0.29, 'motion')
    graph.newest(graph.listen(DiagnosticArray, '/diagnostics'))


def test_stamped_twist_by_parameter(make_graph):
    graph = make_graph('-p', 'cmd_vel_type:=twist_stamped')
    odom = graph.listen(Odometry, 'odom')
    send_until(graph, graph.publisher(TwistStamped, 'cmd_vel'), twist_to_msg(0.3, 0.0, True), odom,
               lambda m: m.twist.twist.linear.x > 0.29, 'motion')


@pytest.mark.parametrize('kind, distro, wanted', [
    ('auto', '', Twist), ('auto', 'humble', Twist), ('auto', 'jazzy', Twist),
    ('auto', 'kilted', TwistStamped), ('auto', 'lyrical', TwistStamped),
    ('auto', 'rolling', TwistStamped), ('twist', 'rolling', Twist),
    ('twist_stamped', 'humble', TwistStamped)])
def test_twist_type_follows_the_distribution(kind, distro, wanted):
    assert twist_type(kind, distro) is wanted


def test_a_namespace_moves_everything_but_the_global_topics(make_graph):
    graph = make_graph('-r', '__ns:=/w1')
    images = graph.listen(Image, '/w1/camera/image_raw')
    clocks = graph.listen(Clock, '/clock')
    graph.wait_for(lambda: images and clocks, 'frames')
    send_until(graph, graph.publisher(Twist, '/w1/cmd_vel'), twist_to_msg(0.3, 0.0),
               graph.listen(Odometry, '/w1/odom'), lambda m: m.twist.twist.linear.x > 0.29, 'it')


def test_a_world_that_hears_another_clock_publishes_nothing_before_it_refuses(graph):
    statuses = graph.listen(WorldStatus, 'world_status')
    graph.newest(statuses)
    with pytest.raises(SpecError, match='in use.*frame_prefix'):
        WorldModelNode(world=FakeWorld)
    seen = len(statuses)
    graph.wait_for(lambda: len(statuses) > seen + 3, 'further steps')
    steps = [msg.step for msg in statuses]
    assert steps == sorted(steps)
    assert {msg.state for msg in statuses} == {WorldStatus.STATE_PLAYING}


def test_prompt_is_refused_in_words_and_the_world_runs_on(graph):
    graph.publisher(String, 'prompt').publish(String(data='a castle'))
    before = graph.world.session.status.frame
    graph.wait_for(lambda: graph.world.session.status.frame > before + 3, 'further frames')


@pytest.mark.parametrize('args, words', [
    (('-p', 'sped:=1.0'), "'sped'.*Did you mean 'speed'"),
    (('-p', 'speed:=fast'), "speed='fast' is not a number"),
    (('-p', 'speed:=-1.0'), 'speed=-1.0 is outside 0.0 to 100.0'),
    (('-p', 'jpeg_quality:=0'), 'jpeg_quality=0 is outside 1 to 100'),
    (('-p', 'image_reliability:=maybe'), 'reliable, best_effort'),
    (('-p', 'scene:=moon'), "Unknown scene 'moon'.*a, b"),
    (('-p', 'publish_clock:=1'), 'publish_clock=1 is not true or false'),
])
def test_bad_parameters_are_one_clear_error(domain, args, words):
    with pytest.raises(SpecError, match=words):
        Graph(lambda: [WorldModelNode(world=FakeWorld)], domain, args)
