# SPDX-License-Identifier: Apache-2.0
"""A recorded or typed camera path in the place of cmd_vel, frame by frame in sim time."""
from dataclasses import replace

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from fake_world import FakeWorld  # noqa: E402, I100
from free_camera import FreeCameraWorld  # noqa: E402
from lingbot_world_ros.actions.camera_columns import camera_motion_of  # noqa: E402
from lingbot_world_ros.actions.embedding import actions_at_latch  # noqa: E402
from lingbot_world_ros.actions.playback import CameraPlayback, open_path  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.geometry import se3  # noqa: E402
from lingbot_world_ros.geometry.rotation import rotation_from_vector  # noqa: E402
from lingbot_world_ros.messages.action_embedding import embedding_from_msg  # noqa: E402
from lingbot_world_ros.messages.commands import joint_command_to_msg, twist_to_msg  # noqa: E402
from lingbot_world_ros.messages.world import world_spec_to_msg  # noqa: E402
from lingbot_world_ros.msg import ActionEmbedding  # noqa: E402
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode  # noqa: E402
from lingbot_world_ros.nodes.world_model import WorldModelNode  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from lingbot_world_ros.session.states import Mode, State  # noqa: E402
from lingbot_world_ros.session.status import SessionStatus  # noqa: E402
import numpy as np  # noqa: E402
from ros_graph import Graph  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

ROBOT = load_robot()

PERIOD_NS = 62_500_000
NUM_POSES = 11
STEP = 4


def make_poses(count=NUM_POSES):
    """Poses of a camera that flies a curve, in a world of its own."""
    rng = np.random.default_rng(5)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = rotation_from_vector(np.cumsum(rng.normal(size=(count, 3)), 0) * 0.05)
    poses[:, :3, 3] = np.cumsum(rng.normal(size=(count, 3)), 0) * 0.1 + 3.0
    return poses


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / 'poses.npy', make_poses())
    return tmp_path


def from_first(poses):
    return se3.inverse(poses[0]) @ poses


def test_frames_of_a_path_follow_sim_time_and_then_rest(folder):
    path = open_path(str(folder), 1.0, 0.25)
    start_ns = 7_000_000_000
    playback = CameraPlayback.begin(path, 16.0, start_ns)
    wanted = from_first(make_poses())
    for frame in (0, 1, 5):
        motion = playback.motion(start_ns + (frame + 1) * PERIOD_NS, STEP)
        np.testing.assert_allclose(wanted[frame] @ motion[0] @ motion[1], wanted[frame + 2],
                                   atol=1e-12)
    assert not playback.has_ended(start_ns + 10 * PERIOD_NS)
    assert playback.has_ended(start_ns + 11 * PERIOD_NS)
    last = playback.motion(start_ns + 10 * PERIOD_NS, STEP)
    assert not np.array_equal(last[0], np.eye(4))
    np.testing.assert_array_equal(last[1:], [np.eye(4)] * 3)
    np.testing.assert_array_equal(playback.motion(start_ns, 1), playback.motion(
        start_ns + PERIOD_NS, 1))  # before the first frame nothing has moved


def test_scale_is_given_or_chosen_by_the_largest_step(folder):
    metric, doubled = (open_path(str(folder), scale, 0.25) for scale in (1.0, 2.0))
    np.testing.assert_allclose(doubled.poses[:, :3, 3], 2.0 * metric.poses[:, :3, 3])
    np.testing.assert_array_equal(doubled.poses[:, :3, :3], metric.poses[:, :3, :3])
    chosen = open_path(str(folder), 0.0, 0.25)
    steps = np.linalg.norm(np.diff(chosen.poses[::4, :3, 3], axis=0), axis=-1)
    assert steps.max() == pytest.approx(0.25)
    keys = open_path('keys:w-8', 0.0, 0.25)
    assert keys.poses[8, 2, 3] == pytest.approx(0.5)
    still = open_path('keys:none-8', 0.0, 0.25)
    assert not still.poses[:, :3, 3].any()


def test_urls_name_files_too(folder):
    path = open_path((folder / 'poses.npy').as_uri(), 1.0, 0.25)
    assert len(path) == NUM_POSES


def arguments(path, *more):
    return ('-p', f'camera_path:={path}', '-p', 'camera_path_metres_per_unit:=1.0', '-p',
            'scene:=a', '-p', 'mode:=stepped', '-p', 'initial_state:=paused', *more)


def make_nodes(world, composed):
    def nodes():
        encoder = ActionEncoderNode()
        try:
            return [WorldModelNode(world=lambda: world, encoder=encoder if composed else None),
                    encoder]
        except SpecError:
            encoder.destroy_node()
            raise
    return nodes


def advance(graph, num_steps):
    """Make steps one by one over ROS."""
    for _ in range(num_steps):
        assert graph.call(Trigger, '/world_model/step').success


def wait_for_an_embedding(graph):
    session = graph.nodes[0].session
    graph.wait_for(lambda: session._reader.latch.newest, 'an embedding')


@pytest.mark.parametrize('composed', [True, False], ids=['composed', 'separate'])
def test_the_engine_is_told_the_poses_of_the_file_again_after_each_reset(domain, folder,
                                                                         composed):
    world = FreeCameraWorld(frames_per_step=STEP)
    with Graph(make_nodes(world, composed), domain, arguments(folder)) as graph:
        for _ in range(2):
            if not composed:
                wait_for_an_embedding(graph)
            advance(graph, 4)
            poses = world.poses()
            np.testing.assert_allclose(poses[:NUM_POSES], from_first(make_poses()), atol=1e-6)
            np.testing.assert_array_equal(world.motions[2][2:], [np.eye(4)] * 2)
            np.testing.assert_array_equal(world.motions[3], [np.eye(4)] * 4)
            status = graph.nodes[0].session.status
            assert 'camera_path: all 11 frames were played' in status.counts.message
            assert graph.call(Trigger, '/world_model/reset').success
            assert graph.nodes[0].session.status.step == 0


@pytest.mark.parametrize('late_frames', [0, 1, STEP])
def test_in_realtime_an_embedding_that_comes_late_still_says_where_the_path_is(domain, folder,
                                                                               late_frames):
    world = FreeCameraWorld(frames_per_step=STEP).spec
    spec = world_spec_to_msg(world, SessionStatus(State.PLAYING, Mode.REALTIME), 'base_link')
    joints, wanted = np.zeros(5), from_first(make_poses())
    with Graph(lambda: [ActionEncoderNode()], domain, arguments(folder)) as graph:
        heard = graph.listen(ActionEmbedding, 'action_embedding')
        encoder = graph.nodes[0]
        encoder.begin(spec)
        graph.wait_for(lambda: heard, 'an embedding')
        embedding = embedding_from_msg(heard[-1])
        start_ns = (1 + late_frames) * PERIOD_NS
        actions = actions_at_latch(replace(embedding, stamp_ns=PERIOD_NS), world.action, joints,
                                   STEP, start_ns)
        pose = wanted[late_frames]
        for motion in camera_motion_of(actions, world.action):
            pose = pose @ motion
        np.testing.assert_allclose(pose, wanted[late_frames + STEP], atol=1e-6)


def test_joints_are_commanded_as_ever_and_cmd_vel_is_refused_in_words(domain, folder):
    world = FreeCameraWorld(frames_per_step=STEP)
    with Graph(make_nodes(world, True), domain, arguments(folder)) as graph:
        encoder = graph.nodes[1]
        encoder.on_joint_command(joint_command_to_msg([ROBOT.joint_names[0]], velocity=[0.2]))
        encoder.on_cmd_vel(twist_to_msg(0.3, 0.0))
        advance(graph, 1)
        assert world.actions[-1][0, :, 2] == pytest.approx([0.2] * STEP)
        assert not world.actions[-1][0, :, :2].any()
        status = graph.nodes[0].session.status
        assert status.counts.rejected == 1
        assert 'cmd_vel: refused, the camera follows camera_path' in status.counts.message


def test_keys_are_played(domain):
    world = FreeCameraWorld(frames_per_step=STEP)
    with Graph(make_nodes(world, True), domain, arguments('keys:w-4,l-4')) as graph:
        advance(graph, 3)
        end = world.poses()[-1]
        np.testing.assert_allclose(end[:3, 3], [0.0, 0.0, 0.2], atol=1e-6)
        assert np.degrees(np.arctan2(end[0, 2], end[2, 2])) == pytest.approx(8.0, abs=1e-4)


@pytest.mark.parametrize('composed', [True, False], ids=['composed', 'separate'])
def test_a_fixed_camera_is_refused_at_start(domain, folder, composed):
    with pytest.raises(SpecError, match='camera_path: the camera of engine .fake. stays'):
        Graph(make_nodes(FakeWorld(), composed), domain, arguments(folder))


def test_a_world_that_cannot_start_leaves_nothing_in_the_graph(domain, folder):
    with Graph(lambda: [], domain, arguments(folder)) as graph:  # other nodes go on
        with pytest.raises(SpecError) as error:
            WorldModelNode(world=FakeWorld)
        with pytest.raises(SpecError):
            WorldModelNode(world=FakeWorld)
        graph.probe.create_publisher(String, 'last', 1)  # known after all that was there before
        graph.wait_for(lambda: graph.probe.count_publishers('/last'), 'the last publisher')
        assert not graph.probe.count_publishers('/world_model/transition_event'), error.value


def test_a_world_whose_parameters_are_refused_leaves_nothing_in_the_graph(domain):
    """It stayed there until memory was cleaned up, which other graphs of the process saw."""
    with Graph(lambda: [], domain, ('-p', 'engine:=nobody')) as graph:
        with pytest.raises(SpecError, match='nobody') as error:
            WorldModelNode()
        graph.probe.create_publisher(String, 'last', 1)  # known after all that was there before
        graph.wait_for(lambda: graph.probe.count_publishers('/last'), 'the last publisher')
        assert not graph.probe.count_publishers('/world_model/transition_event'), error.value


def test_an_encoder_alone_refuses_a_world_with_a_fixed_camera(domain, folder):
    spec = world_spec_to_msg(FakeWorld().spec, SessionStatus(State.PLAYING, Mode.STEPPED),
                             'base_link')
    with Graph(lambda: [ActionEncoderNode()], domain, arguments(folder)) as graph:
        with pytest.raises(SpecError, match='camera_path: the camera of engine .fake. stays'):
            graph.nodes[0].begin(spec)


@pytest.mark.parametrize('given, words', [
    ('/no/where', '/no/where'), ('keys:x-4', 'keys'), ('file:///no/poses.npy', 'poses.npy')])
def test_a_path_that_cannot_be_read_is_one_error_at_start(domain, given, words):
    with pytest.raises(SpecError, match=words) as error:
        Graph(make_nodes(FreeCameraWorld(), True), domain, arguments(given))
    assert '\n' not in str(error.value)
