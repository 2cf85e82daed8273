# SPDX-License-Identifier: Apache-2.0
"""What a world publishes, by the parameters of a plain node: names, cameras, scans, QoS."""
from dataclasses import replace
import threading

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402, I100
from fake_world import FakeWorld, SMALL_ROBOT  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.geometry import se2  # noqa: E402
from lingbot_world_ros.messages.encodings import compressed_from_msg, depth_from_msg  # noqa: E402
from lingbot_world_ros.messages.frames import FrameNames  # noqa: E402
from lingbot_world_ros.messages.stamps import stamp_to_ns  # noqa: E402
from lingbot_world_ros.messages.trail import (MAX_POSES, PERIOD_NS,  # noqa: E402
                                              PERIOD_PER_POSE_NS, Trail)
from lingbot_world_ros.msg import WorldSpec, WorldStatus  # noqa: E402
from lingbot_world_ros.nodes import qos, world_publishers  # noqa: E402
from lingbot_world_ros.nodes.parameters import declare  # noqa: E402
from lingbot_world_ros.nodes.world_publishers import WorldPublishers  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from lingbot_world_ros.session.frame import Frame  # noqa: E402
from lingbot_world_ros.session.states import Mode, State  # noqa: E402
from lingbot_world_ros.session.status import SessionStatus  # noqa: E402
from lingbot_world_ros.settings.parameters import WORLD_MODEL  # noqa: E402
from nav_msgs.msg import Path  # noqa: E402
import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState, LaserScan  # noqa: E402
from std_msgs.msg import Float32, String  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402

ROBOT = load_robot()

STAMP_NS = 5_000_000_007
STATUS = SessionStatus(State.PLAYING, Mode.REALTIME, 'a', 3, world='home', stamp_ns=STAMP_NS,
                       real_time_factor=0.5)
WORLD = FakeWorld()
URDF = '<robot name="r"/>'


def make_frame(world=WORLD, stamp_ns=STAMP_NS, depth_m=None):
    seen = world.reset('a', 0)
    height_px, width_px = seen.rgb.shape[2:4]
    rgb = np.random.default_rng(0).integers(0, 255, (height_px, width_px, 3), np.uint8)
    depth_m = np.full((height_px, width_px), 2.0, np.float32) if depth_m is None else depth_m
    return Frame(index=1, stamp_ns=stamp_ns, rgb=rgb, depth_m=depth_m,
                 start_pose=seen.base_pose[0, 0], base_pose=seen.base_pose[0, 0],
                 base_twist=np.zeros(3), base_pose_cov=None,
                 joint_position=seen.joint_position[0, 0],
                 joint_velocity=seen.joint_velocity[0, 0], contact=0.0, uncertainty=0.0,
                 calibrated=True)


@pytest.fixture
def make_graph(open_graph):
    def start(*ros_args, world=WORLD):
        def nodes():
            node = rclpy.create_node('world_model')
            node.sensors = WorldPublishers(node, world.spec, declare(node, WORLD_MODEL))
            return [node]
        graph = open_graph(nodes, ros_args)
        graph.sensors = graph.nodes[0].sensors
        return graph

    return start


def one(graph, messages, send):
    """Send until a message is there: a new subscriber is not known at once."""
    def arrived():
        send()
        return messages
    return graph.wait_for(arrived, 'a message')[-1]


def send_frame(graph, frame=None):
    frame = frame or make_frame()
    return lambda: graph.sensors.on_frame(frame)


def test_without_parameters_the_engines_bytes_are_published(make_graph):
    graph = make_graph()
    frame = make_frame()
    images, infos = graph.listen(Image, 'camera/image_raw'), graph.listen(
        CameraInfo, 'camera/camera_info')
    image = one(graph, images, send_frame(graph, frame))
    info = one(graph, infos, send_frame(graph, frame))
    assert bytes(image.data) == frame.rgb.tobytes()
    assert image.header == info.header and stamp_to_ns(image.header.stamp) == STAMP_NS
    np.testing.assert_array_equal(np.array(info.k).reshape(3, 3), SMALL_ROBOT.camera.k)


def test_another_size_reaches_all_images_and_their_camera_info(make_graph):
    graph = make_graph('-p', 'image_width:=64', '-p', 'image_height:=36')
    topics = {'camera/image_raw': Image, 'camera/depth/image_rect_raw': Image,
              'camera/image_raw/compressed': CompressedImage, 'camera/camera_info': CameraInfo,
              'camera/depth/camera_info': CameraInfo}
    inbox = {name: graph.listen(kind, name) for name, kind in topics.items()}
    got = {name: one(graph, messages, send_frame(graph)) for name, messages in inbox.items()}
    assert compressed_from_msg(got.pop('camera/image_raw/compressed')).shape == (36, 64, 3)
    assert {(msg.width, msg.height) for msg in got.values()} == {(64, 36)}
    assert got['camera/camera_info'] == got['camera/depth/camera_info']
    k, small = np.array(got['camera/camera_info'].k).reshape(3, 3), SMALL_ROBOT.camera.k
    np.testing.assert_allclose([k[0, 0], k[1, 1]], [2.0 * small[0, 0], 1.5 * small[1, 1]])
    np.testing.assert_allclose([k[0, 2], k[1, 2]], [31.5, 17.5])
    assert (depth_from_msg(got['camera/depth/image_rect_raw']) == 2.0).all()


def test_a_calibration_file_is_what_camera_info_says(make_graph, tmp_path):
    path = tmp_path / 'head.yaml'
    path.write_text('image_width: 32\nimage_height: 24\ncamera_name: head\n'
                    'camera_matrix: {rows: 3, cols: 3, data: [30, 0, 15, 0, 31, 12, 0, 0, 1]}\n'
                    'distortion_model: plumb_bob\ndistortion_coefficients: '
                    '{rows: 1, cols: 5, data: [-0.1, 0.01, 0.001, 0, 0]}\n')
    graph = make_graph('-p', f'camera_info_url:={path.as_uri()}')
    info = one(graph, graph.listen(CameraInfo, 'camera/camera_info'), send_frame(graph))
    assert info.k.tolist() == [30, 0, 15, 0, 31, 12, 0, 0, 1]
    assert list(info.d) == [-0.1, 0.01, 0.001, 0, 0]


def test_the_world_spec_goes_on_describing_the_engines_camera(make_graph):
    graph = make_graph('-p', 'field_of_view_deg:=40.0', '-p', 'frame_prefix:=w/')
    specs = graph.listen(WorldSpec, 'world_spec', latched=True)
    spec = one(graph, specs, lambda: graph.sensors.on_reset(STATUS))
    assert (spec.width, spec.height) == (32, 24)
    np.testing.assert_array_equal(np.array(spec.k).reshape(3, 3), SMALL_ROBOT.camera.k)
    assert (spec.world, spec.mode, spec.camera_parent) == ('home', 'realtime', 'w/base_link')
    assert repr(spec) == repr(graph.sensors.world_spec(STATUS))  # NaN is not equal to itself


def test_scan_is_in_the_base_frame_with_the_stamp_of_its_frame(make_graph):
    world = FakeWorld(robot=ROBOT)
    graph = make_graph('-p', 'scan_max_range_m:=5.0', '-p', 'frame_prefix:=w/', world=world)
    depth_m = np.full((120, 160), 2.0, np.float32)
    scan = one(graph, graph.listen(LaserScan, 'scan'),
               send_frame(graph, make_frame(world, depth_m=depth_m)))
    assert (scan.header.frame_id, stamp_to_ns(scan.header.stamp)) == ('w/base_link', STAMP_NS)
    ranges = np.array(scan.ranges)
    assert scan.range_max == 5.0 and 0.5 < ranges[np.isfinite(ranges)].min() < 2.0
    assert scan.scan_time == pytest.approx(1 / 15)


@pytest.mark.parametrize('args, world', [
    (('-p', 'publish_scan:=false'), WORLD), ((), FakeWorld(has_depth=False))])
def test_there_is_no_scan_without_depth_or_wish(make_graph, args, world):
    graph = make_graph(*args, world=world)
    assert '/scan' not in graph.sensors.topics
    assert ('/camera/depth/camera_info' in graph.sensors.topics) == world.spec.has_depth


def test_images_that_share_a_folder_share_their_camera_info(make_graph):
    graph = make_graph('-p', 'topics.depth:=camera/depth')
    topics = graph.sensors.topics
    assert topics.count('/camera/camera_info') == 1 and '/camera/depth' in topics


def test_a_frame_is_no_tick_of_the_clock(make_graph):
    graph = make_graph()
    clocks, images = graph.listen(Clock, '/clock'), graph.listen(Image, 'camera/image_raw')
    one(graph, images, send_frame(graph))
    tick = one(graph, clocks, lambda: graph.sensors.on_clock(STAMP_NS))
    assert {stamp_to_ns(m.clock) for m in clocks} == {stamp_to_ns(tick.clock)} == {STAMP_NS}


def test_ticks_from_several_threads_share_no_message(make_graph, monkeypatch):
    graph = make_graph()
    one(graph, graph.listen(Clock, '/clock'), lambda: graph.sensors.on_clock(1))
    sent, barrier = [], threading.Barrier(3)

    def publish(msg):
        before = stamp_to_ns(msg.clock)
        barrier.wait(PATIENCE_S)  # all three are at this point at once
        sent.append((before, stamp_to_ns(msg.clock)))
    monkeypatch.setattr(graph.sensors._publishers['clock'], 'publish', publish)
    threads = [threading.Thread(target=graph.sensors.publish_clock, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sent) == [(1, 1), (2, 2), (3, 3)]


def drive(graph, num_frames, stamp_ns=STAMP_NS, step_m=0.02):
    """Send frames of a base that moves on along x, and return the stamp after them."""
    frame = make_frame()
    for n in range(num_frames):
        graph.sensors.on_frame(replace(frame, stamp_ns=stamp_ns + n * PERIOD_NS,
                                       base_pose=frame.start_pose + [n * step_m, 0.0, 0.0]))
    return stamp_ns + num_frames * PERIOD_NS


def test_a_late_subscriber_gets_the_path_since_the_reset(make_graph):
    graph = make_graph('-p', 'frame_prefix:=w/')
    for num_frames, num_poses in ((31, 11), (7, 3)):  # 2 cm each, one pose in three frames
        graph.sensors.on_reset(STATUS)
        stamp_ns = drive(graph, num_frames)
        paths = graph.listen(Path, 'path')
        one(graph, paths, send_frame(graph, replace(
            make_frame(), stamp_ns=stamp_ns,
            base_pose=make_frame().start_pose + [(num_frames - 1) * 0.02, 0.0, 0.0])))
        assert [p.pose.position.x for p in paths[-1].poses] == pytest.approx(
            [0.06 * n for n in range(num_poses)])
        assert {p.header.frame_id for p in paths[-1].poses} == {'w/odom'}
        assert stamp_to_ns(paths[-1].header.stamp) == stamp_ns
        assert stamp_to_ns(paths[-1].poses[1].header.stamp) == STAMP_NS + 3 * PERIOD_NS


def test_the_path_begins_anew_where_the_base_was_put(make_graph):
    """Odometry goes on, so what came before would be drawn in the wrong place (docs/time.md)."""
    graph = make_graph()
    paths, frame = graph.listen(Path, 'path'), make_frame()
    one(graph, paths, send_frame(graph, frame))
    drive(graph, 31)
    for index, (by, num_poses) in enumerate((((0.01, 0.0, 0.01), 11), ((0.0, 0.9, 0.0), 1))):
        pose_odom = np.array([0.6, 0.0, 0.0])
        frame = replace(frame, stamp_ns=STAMP_NS + (200 + 20 * index) * PERIOD_NS,
                        start_pose=frame.start_pose + by)
        frame = replace(frame, base_pose=se2.compose(frame.start_pose, pose_odom))
        graph.sensors.on_frame(frame)
        graph.wait_for(lambda: stamp_to_ns(paths[-1].header.stamp) == frame.stamp_ns, 'a path')
        assert len(paths[-1].poses) == num_poses
        assert paths[-1].poses[-1].pose.position.x == pytest.approx(0.6)


def test_a_long_path_comes_less_often():
    trail = Trail(FrameNames())
    for num_poses, period_ns in ((1, PERIOD_NS), (MAX_POSES, MAX_POSES * PERIOD_PER_POSE_NS)):
        for n in range(num_poses):
            trail.add((float(n), 0.0, 0.0), STAMP_NS)
        trail.take(STAMP_NS)
        assert trail.is_due(STAMP_NS + period_ns) and not trail.is_due(STAMP_NS + period_ns - 1)
        assert trail.is_due(STAMP_NS - 1)  # time went back
        trail.clear()
        assert trail.is_due(STAMP_NS)


@pytest.mark.slow
def test_the_path_keeps_the_newest_poses_and_turns(make_graph):
    graph = make_graph()
    paths = graph.listen(Path, 'path', depth=5)  # each holds thousands of poses
    frame = make_frame()
    one(graph, paths, send_frame(graph, frame))
    stamp_ns = drive(graph, MAX_POSES + 100, step_m=0.1) + MAX_POSES * PERIOD_PER_POSE_NS
    one_more = replace(frame, stamp_ns=stamp_ns,
                       base_pose=frame.start_pose + [0.1 * (MAX_POSES + 99), 0.0, 0.2])
    graph.sensors.on_frame(one_more)
    graph.wait_for(lambda: stamp_to_ns(paths[-1].header.stamp) == stamp_ns, 'the last path')
    poses = paths[-1].poses
    assert len(poses) == MAX_POSES
    assert poses[0].pose.position.x == pytest.approx(0.1 * 101)
    assert poses[-1].pose.orientation.z == pytest.approx(np.sin(0.1))


def test_status_comes_with_the_real_time_factor(make_graph):
    graph = make_graph()
    statuses, factors = graph.listen(WorldStatus, 'world_status'), graph.listen(
        Float32, 'real_time_factor')
    assert one(graph, statuses, lambda: graph.sensors.on_status(STATUS)).real_time_factor == 0.5
    assert one(graph, factors, lambda: graph.sensors.on_status(STATUS)).data == 0.5


@pytest.mark.parametrize('given', ['text', 'path', 'url'])
def test_robot_description_is_there_for_late_joiners(make_graph, tmp_path, given):
    path = tmp_path / 'robot.urdf'
    path.write_text(URDF)
    value = {'text': URDF, 'path': str(path), 'url': path.as_uri()}[given]
    graph = make_graph('-p', f"robot_description:='{value}'")
    texts = graph.listen(String, 'robot_description', latched=True)
    graph.wait_for(lambda: texts, 'the description')
    assert [m.data for m in texts] == [URDF]


def test_the_embedded_robot_has_a_description(make_graph):
    graph = make_graph(world=FakeWorld(robot=ROBOT))
    texts = graph.listen(String, 'robot_description', latched=True)
    graph.wait_for(lambda: texts, 'the description')
    assert all(f'"{name}"' in texts[0].data for name in ROBOT.joint_names)


def test_a_robot_that_is_not_ours_has_no_description_of_ours(make_graph):
    assert '/robot_description' not in make_graph().sensors.topics


def test_diagnostics_name_the_world_by_its_namespace(make_graph):
    graph = make_graph('-r', '__ns:=/world_1')
    messages = graph.listen(DiagnosticArray, '/diagnostics')
    entry = one(graph, messages, lambda: graph.sensors.publish_diagnostics(STATUS)).status[0]
    assert entry.name == 'world_1/world_model: world'


def test_names_and_frames_are_parameters(make_graph):
    graph = make_graph('-p', 'topics.image:=rgb', '-p', 'topics.tf:=transforms', '-p',
                       'frames.optical:=sim_camera', '-p', 'frames.base:=chassis', '-p',
                       'frame_prefix:=w/', '-r', '__ns:=/w')
    image = one(graph, graph.listen(Image, '/w/rgb'), send_frame(graph))
    tf = one(graph, graph.listen(TFMessage, '/w/transforms'), send_frame(graph)).transforms[0]
    static = one(graph, graph.listen(TFMessage, '/tf_static', latched=True),
                 lambda: graph.sensors.on_reset(STATUS)).transforms
    assert image.header.frame_id == 'w/sim_camera'
    assert (tf.header.frame_id, tf.child_frame_id) == ('w/odom', 'w/chassis')
    assert [(t.header.frame_id, t.child_frame_id) for t in static] == [
        ('w/chassis', 'w/camera_link'), ('w/camera_link', 'w/sim_camera')]


def test_qos_can_be_overridden_and_the_defaults_stay(make_graph):
    graph = make_graph(
        '-p', 'qos_overrides./camera/image_raw.publisher.reliability:=best_effort',
        '-p', 'qos_overrides./odom.publisher.depth:=3')
    profile = {name: graph.probe.get_publishers_info_by_topic(name)[0].qos_profile
               for name in ('/camera/image_raw', '/camera/camera_info', '/joint_states')
               if graph.wait_for(lambda name=name: graph.probe.get_publishers_info_by_topic(name),
                                 name)}
    assert profile['/camera/image_raw'].reliability.name == 'BEST_EFFORT'
    assert profile['/camera/camera_info'].reliability.name == 'RELIABLE'
    node = graph.nodes[0]
    assert node.get_parameter('qos_overrides./odom.publisher.depth').value == 3
    assert node.get_parameter('qos_overrides./joint_states.publisher.depth').value == 10
    assert qos.STATE.depth == 10


@pytest.mark.parametrize('args, words', [
    (('qos_overrides./odom.publisher.depth:=0',), 'qos_overrides./odom.*depth=0'),
    (('qos_overrides./odom.publisher.depth:=-1',), 'depth=-1 is outside 1 to'),
    (('qos_overrides./odom.publisher.depth:=many',), 'qos_overrides./odom'),
    (('qos_overrides./odom.publisher.reliability:=maybe',), 'qos_overrides./odom.*maybe'),
    (('topics.image:=a b',), "'a b' is not a topic name"),
    (("topics.image:=''",), 'not a topic name'),
    (('topics.image:=odom',), 'topics.image and topics.odom are both /odom'),
    (('frames.base:=odom',), 'different names'),
    (('frame_prefix:=/w/',), 'begin with a slash'),
    (('field_of_view_deg:=100.0',), '100.0 x 83.6 degrees.*75.2 x 60.0'),
    (('camera_info_url:=/nowhere.yaml',), 'camera_info_url: /nowhere.yaml is not a file'),
    (('robot_description:=/nowhere.urdf',), 'robot_description: /nowhere.urdf is not a file'),
    (('scan_max_height_m:=0.0',), 'scan_max_height_m=0')])
def test_parameters_that_cannot_be_used_are_one_clear_error(domain, args, words):
    rclpy.init(args=['--ros-args', *(x for arg in args for x in ('-p', arg))], domain_id=domain)
    node = rclpy.create_node('world_model')
    params = declare(node, WORLD_MODEL)
    with pytest.raises(SpecError, match=words) as error:
        WorldPublishers(node, WORLD.spec, params)
    left = [publisher.topic_name for publisher in node.publishers]
    node.destroy_node()
    rclpy.shutdown()
    assert '\n' not in str(error.value) and '/camera/image_raw' not in left


def test_topics_go_and_come_back(make_graph):
    """A managed node drops them on cleanup and makes them anew on configure."""
    graph = make_graph()
    sensors, node = graph.sensors, graph.nodes[0]
    topics, num = sensors.topics, len(list(node.publishers))
    sensors.destroy()
    assert sensors.topics == [] and len(list(node.publishers)) == num - len(topics)
    sensors.publish_clock(1)
    sensors.on_status(STATUS)
    sensors.publish_diagnostics(STATUS)
    graph.wait_for(lambda: not graph.probe.get_publishers_info_by_topic('/odom'), 'their end')
    graph.sensors = WorldPublishers(node, WORLD.spec, sensors._params)
    assert graph.sensors.topics == topics
    one(graph, graph.listen(Image, 'camera/image_raw'), send_frame(graph))


def test_nothing_is_mapped_or_encoded_for_nobody(make_graph, monkeypatch):
    graph = make_graph('-p', 'image_width:=64')
    calls = []

    def note(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **options: (
            calls.append(name), original(*args, **options))[1])

    for name in ('image_to_msg', 'compressed_to_msg', 'depth_to_msg', 'odometry_to_msg',
                 'covariance_in_odom', 'world_status_to_msg', 'clock_to_msg', 'base_tf_to_msg',
                 'camera_info_to_msg', 'joint_state_to_msg', 'scan_to_msg', 'number_to_msg',
                 'diagnostics_to_msg'):
        note(world_publishers, name)
    for name in ('image', 'depth'):
        note(graph.sensors._view, name)
    note(graph.sensors._scan, 'ranges')

    def send():
        graph.sensors.on_frame(make_frame())
        graph.sensors.on_clock(1)
        graph.sensors.on_status(STATUS)
        graph.sensors.publish_diagnostics(STATUS)
    send()
    assert calls == []
    one(graph, graph.listen(Image, 'camera/image_raw'), send)
    assert set(calls) == {'image', 'image_to_msg'}


def test_who_joins_while_time_stands_still_gets_what_nobody_heard_and_others_nothing_twice(
        make_graph):
    graph = make_graph()
    first = graph.listen(Image, 'camera/image_raw')
    one(graph, first, send_frame(graph))
    graph.sensors.on_frame(replace(make_frame(), stamp_ns=STAMP_NS + PERIOD_NS))
    graph.wait_for(lambda: stamp_to_ns(first[-1].header.stamp) > STAMP_NS, 'the newest image')
    heard = len(first)
    late = graph.listen(JointState, 'joint_states')
    joints = one(graph, late, graph.sensors.on_standstill)
    assert stamp_to_ns(joints.header.stamp) == STAMP_NS + PERIOD_NS
    way = graph.listen(Path, 'path')
    one(graph, way, graph.sensors.on_standstill)
    for _ in range(3):
        graph.sensors.on_standstill()
    last_ns = STAMP_NS + 2 * PERIOD_NS
    graph.sensors.on_frame(replace(make_frame(), stamp_ns=last_ns))  # comes after all the others
    graph.wait_for(lambda: stamp_to_ns(first[-1].header.stamp) == last_ns and
                   stamp_to_ns(late[-1].header.stamp) == last_ns, 'the last frame')
    assert (len(first), len(late), len(way)) == (heard + 1, 2, 1)
