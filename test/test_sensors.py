# SPDX-License-Identifier: Apache-2.0
"""Messages: each conversion there and back, and one case by hand."""
from dataclasses import replace
import time

import pytest

pytest.importorskip('lingbot_world_ros.msg')

from geometry_msgs.msg import Pose  # noqa: E402, I100
from lingbot_world_ros.actions.command_spec import CommandCounts  # noqa: E402
from lingbot_world_ros.actions.commands import CommandBuffer  # noqa: E402
from lingbot_world_ros.actions.embedding import encode  # noqa: E402
from lingbot_world_ros.actions.layout import robot_action_layout  # noqa: E402
from lingbot_world_ros.engines.interface import Capabilities, WorldSpec  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.geometry import se2  # noqa: E402
from lingbot_world_ros.geometry.camera import PinholeCamera, T_LINK_OPTICAL  # noqa: E402
from lingbot_world_ros.messages import (action_embedding, camera_info, commands,  # noqa: E402
                                        encodings, frames, image, state, world)
from lingbot_world_ros.messages.stamps import set_stamp, stamp_to_ns  # noqa: E402
from lingbot_world_ros.msg import WorldStatus  # noqa: E402
from lingbot_world_ros.robots.calibration import Calibration  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from lingbot_world_ros.session.states import Fault, Mode, State  # noqa: E402
from lingbot_world_ros.session.status import SessionStatus  # noqa: E402
import numpy as np  # noqa: E402
from projection import project  # noqa: E402

ROBOT = load_robot()

STAMP_NS = 12_000_000_345
SPEC = WorldSpec(engine='e', model='m 1', scenes=('a', 'b'), robot=ROBOT,
                 action=robot_action_layout(ROBOT), predicted_states=('base',), has_depth=True)
STATUS = SessionStatus(State.PAUSED, Mode.STEPPED, 'a', 3, world='home', world_text='scene: a')
RNG = np.random.default_rng(0)


def stamp_of(msg):
    return stamp_to_ns(msg.header.stamp)


def test_stamp_is_split_into_seconds_and_nanoseconds():
    clock = state.clock_to_msg(STAMP_NS)
    assert (clock.clock.sec, clock.clock.nanosec) == (12, 345)
    set_stamp(clock.clock, 999_999_999)
    assert stamp_to_ns(clock.clock) == 999_999_999


@pytest.mark.parametrize('shape', [(4, 6), (5, 2)])
def test_colour_image_there_and_back(shape):
    rgb = RNG.integers(0, 255, (*shape, 3), np.uint8)
    msg = image.image_to_msg(rgb, STAMP_NS, 'eye')
    assert (msg.height, msg.width, msg.step, msg.encoding) == (*shape, 3 * shape[1], 'rgb8')
    assert (stamp_of(msg), msg.header.frame_id, len(msg.data)) == (STAMP_NS, 'eye', rgb.size)
    assert list(msg.data[:3]) == rgb[0, 0].tolist()
    np.testing.assert_array_equal(encodings.rgb_from_msg(msg), rgb)


def test_image_message_is_filled_again_without_a_new_buffer_and_from_a_view():
    rgb = RNG.integers(0, 255, (4, 6, 3), np.uint8)
    msg = image.image_to_msg(rgb, 0, 'eye')
    data = msg.data
    again = image.image_to_msg(rgb[:, ::-1], 1, 'eye', out=msg)
    assert again is msg and again.data is data
    np.testing.assert_array_equal(encodings.rgb_from_msg(again), rgb[:, ::-1])
    other = image.image_to_msg(rgb[:2], 1, 'eye', out=msg)
    assert other.height == 2 and len(other.data) == 36


def test_depth_there_and_back_in_metres():
    depth = RNG.random((4, 6), np.float32) * 5
    msg = image.depth_to_msg(depth, STAMP_NS, 'eye')
    assert (msg.encoding, msg.step, stamp_of(msg)) == ('32FC1', 24, STAMP_NS)
    np.testing.assert_array_equal(encodings.depth_from_msg(msg), depth)


@pytest.mark.parametrize('changes, words', [
    ({'width': 0}, '0 x 5 pixels'), ({'height': 0}, '7 x 0 pixels'),
    ({'width': 4_000_000_000}, '1 to 16384'), ({'step': 20}, 'step must be at least 21'),
    ({'height': 6}, '105 bytes'), ({'data': b''}, ' 0 bytes'), ({'encoding': 'yuv422'}, 'even'),
    ({'encoding': 'x' * 5000}, 'not one of rgb8, bgr8'), ({'encoding': '32FC1'}, 'not colour')])
def test_images_that_make_no_sense_are_refused_in_words(changes, words):
    msg = image.image_to_msg(np.zeros((5, 7, 3), np.uint8), 0, '')
    for name, value in changes.items():
        setattr(msg, name, value)
    with pytest.raises(SpecError, match=words) as error:
        encodings.rgb_from_msg(msg)
    assert len(str(error.value)) < 500


def test_jpeg_keeps_colours_in_order():
    rgb = np.zeros((32, 32, 3), np.uint8)
    rgb[..., 0] = 200
    msg = image.compressed_to_msg(rgb, STAMP_NS, 'eye', quality=90)
    assert msg.format == 'rgb8; jpeg compressed bgr8' and stamp_of(msg) == STAMP_NS
    assert np.abs(encodings.compressed_from_msg(msg).astype(int) - rgb).max() <= 4


def test_image_takes_the_fast_path():
    """Bytes that are checked one by one take a hundred times as long; both in this run."""
    rgb = np.zeros((480, 832, 3), np.uint8)
    msg = image.image_to_msg(rgb, 0, 'eye')

    def cost_s(fill):
        start_s = time.process_time()
        fill()
        return time.process_time() - start_s
    fast_s = min(cost_s(lambda: image.image_to_msg(rgb, 0, 'eye', out=msg)) for _ in range(9))
    assert fast_s < cost_s(lambda: setattr(msg, 'data', rgb.ravel())) / 5


def test_camera_info_projects_a_point_on_the_axis_to_the_middle():
    msg = camera_info.camera_info_to_msg(Calibration(ROBOT.camera), STAMP_NS, 'eye')
    middle = [0.5 * ROBOT.camera.width_px - 0.5, 0.5 * ROBOT.camera.height_px - 0.5]
    f = ROBOT.camera.fx_px
    uv = project(msg, np.array([[0, 0, 2.0], [0.5, -0.25, 1.0]]))
    np.testing.assert_allclose(uv, [middle, [middle[0] + 0.5 * f, middle[1] - 0.25 * f]])
    assert (msg.distortion_model, list(msg.d)) == ('plumb_bob', [0.0] * 5)
    assert np.array_equal(np.array(msg.p).reshape(3, 4)[:, :3], np.array(msg.k).reshape(3, 3))
    assert stamp_of(msg) == STAMP_NS


def test_camera_info_carries_a_lens_and_projects_through_it():
    lens = Calibration(PinholeCamera(160, 120, 150.0, 148.0, 78.0, 61.0),
                       'plumb_bob', (-0.12, 0.03, 0.002, -0.001, 0.004),
                       p=np.array([[140.0, 0, 79, -7], [0, 141, 60, 0], [0, 0, 1, 0]]))
    msg = camera_info.camera_info_to_msg(lens, STAMP_NS, 'eye')
    assert (msg.width, msg.height, tuple(msg.d)) == (160, 120, lens.d)
    np.testing.assert_array_equal(np.array(msg.p).reshape(3, 4), lens.p)
    point = np.array([[0.3, -0.2, 2.0]])
    np.testing.assert_allclose(project(msg, point)[0],
                               [100.3923410583, 46.2772289928])  # the formula, multiplied out
    again = camera_info.camera_info_to_msg(lens, 7, 'eye', out=msg)
    assert again is msg and stamp_of(msg) == 7


def test_joint_state_carries_names_positions_velocities():
    msg = state.joint_state_to_msg(('x', 'y'), np.array([1.0, 2.0]), np.array([3.0, 4.0]),
                                   STAMP_NS)
    assert (msg.name, list(msg.position), list(msg.velocity)) == (['x', 'y'], [1, 2], [3, 4])
    assert list(msg.effort) == [] and stamp_of(msg) == STAMP_NS


def test_odometry_is_relative_to_the_start_pose():
    start = np.array([1.0, 2.0, np.pi / 2])
    pose = se2.relative(start, np.array([1.0, 3.0, np.pi]))
    np.testing.assert_allclose(pose, [1.0, 0.0, np.pi / 2], atol=1e-12)
    names = frames.FrameNames().prefixed('r1/')
    msg = state.odometry_to_msg(pose, [0.2, 0.0, 0.3], np.eye(6), 0.01, STAMP_NS, names)
    assert (msg.header.frame_id, msg.child_frame_id) == ('r1/odom', 'r1/base_link')
    assert msg.pose.pose.position.x == pytest.approx(1.0)
    assert msg.pose.pose.orientation.z == pytest.approx(np.sqrt(0.5))
    assert (msg.twist.twist.linear.x, msg.twist.twist.angular.z) == (0.2, 0.3)
    assert msg.twist.covariance[0] == 0.01 and msg.twist.covariance[14] == state.FIXED_VARIANCE


def test_covariance_turns_with_the_odom_frame():
    along_scene_x = np.diag([1.0, 0.0, 0.2])
    turned = state.covariance_in_odom(np.pi / 2, along_scene_x)
    assert turned[1, 1] == pytest.approx(1.0, abs=1e-5)  # scene x is odom -y
    assert turned[0, 0] == pytest.approx(0.0, abs=1e-5)
    assert turned[5, 5] == pytest.approx(0.2, abs=1e-5)
    assert (np.diag(state.covariance_in_odom(0.0, None)) > 0).all()


def test_transforms_by_hand_and_there_and_back():
    """A turn of 2 pi / 3 about (1, 1, 1) takes x to y, y to z and z to x."""
    T = np.array([[0, 0, 1, 0.1], [1, 0, 0, -0.2], [0, 1, 0, 0.3], [0, 0, 0, 1.0]])
    msg = frames.transform_to_msg(T)
    turn, move = msg.rotation, msg.translation
    assert (turn.x, turn.y, turn.z, turn.w) == (0.5, 0.5, 0.5, 0.5)
    assert (move.x, move.y, move.z) == (0.1, -0.2, 0.3)
    np.testing.assert_allclose(frames.transform_from_msg(msg), T, atol=1e-15)


def test_planar_poses_by_hand_and_there_and_back():
    msg = Pose()
    frames.planar_pose_to_msg((0.5, -2.0, 2.0), msg)
    assert (msg.position.x, msg.position.y, msg.position.z) == (0.5, -2.0, 0.0)
    turn = msg.orientation
    assert (turn.x, turn.y, turn.z, turn.w) == pytest.approx((0, 0, 0.8414709848, 0.5403023059))
    assert frames.planar_pose_from_msg(msg) == pytest.approx([0.5, -2.0, 2.0])


def test_static_tree_ends_in_optical_axes():
    msg = frames.static_tf_to_msg(ROBOT.camera, 0, frames.FrameNames())
    links = [(t.header.frame_id, t.child_frame_id) for t in msg.transforms]
    assert links == [('base_link', 'camera_link'), ('camera_link', 'camera_optical_frame')]
    T = frames.transform_from_msg(msg.transforms[0].transform) @ \
        frames.transform_from_msg(msg.transforms[1].transform)
    np.testing.assert_allclose(T, ROBOT.camera.T_base_optical, atol=1e-12)


@pytest.mark.parametrize('link, turn', [('r1/palm_link', T_LINK_OPTICAL),
                                        ('palm_optical_frame', np.eye(4))])
def test_a_camera_on_a_link_hangs_below_that_link_only(link, turn):
    msg = frames.static_tf_to_msg(ROBOT.camera, 0, frames.FrameNames(), link)
    assert [(t.header.frame_id, t.child_frame_id) for t in msg.transforms] == [
        (link, 'camera_optical_frame')]
    np.testing.assert_allclose(frames.transform_from_msg(msg.transforms[0].transform), turn,
                               atol=1e-12)


def test_a_link_that_is_the_optical_frame_is_left_to_its_robot():
    names = frames.FrameNames()
    assert not frames.static_tf_to_msg(ROBOT.camera, 0, names, names.optical).transforms


def test_frames_carry_the_names_and_the_prefix_they_are_given():
    names = frames.FrameNames('odom_combined', 'chassis', 'mount', 'sim_camera').prefixed('w/')
    assert [names.odom, names.base, names.camera, names.optical] == [
        'w/odom_combined', 'w/chassis', 'w/mount', 'w/sim_camera']
    msg = frames.static_tf_to_msg(ROBOT.camera, 0, names)
    assert [t.child_frame_id for t in msg.transforms] == ['w/mount', 'w/sim_camera']


@pytest.mark.parametrize('changes', [dict(base='odom'), dict(camera=''), dict(optical='/eye')])
def test_frame_names_that_make_no_tree_are_refused(changes):
    with pytest.raises(SpecError, match='different names'):
        frames.FrameNames(**changes)


def test_base_transform_of_a_quarter_turn():
    msg = frames.base_tf_to_msg([1.0, 2.0, np.pi / 2], STAMP_NS, frames.FrameNames())
    again = frames.base_tf_to_msg([3.0, 2.0, np.pi / 2], STAMP_NS + 1, frames.FrameNames(),
                                  out=msg)
    assert again is msg
    T = frames.transform_from_msg(msg.transforms[0].transform)
    np.testing.assert_allclose(T[:3, 3], [3.0, 2.0, 0.0])
    np.testing.assert_allclose(T[:2, :2], [[0, -1], [1, 0]], atol=1e-12)


@pytest.mark.parametrize('stamped', [False, True])
def test_twist_there_and_back(stamped):
    linear, angular, stamp_ns = commands.twist_from_msg(
        commands.twist_to_msg(0.3, -0.4, stamped))
    assert stamp_ns == 0
    assert (linear, angular) == ((0.3, 0.0, 0.0), (0.0, 0.0, -0.4))


def test_joint_command_there_and_back():
    names, position, velocity = commands.joint_command_from_msg(
        commands.joint_command_to_msg(['x'], velocity=[0.5]))
    assert (names, list(position), list(velocity)) == (['x'], [], [0.5])


def test_trajectory_times_are_seconds():
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
    point = JointTrajectoryPoint(positions=[0.1])
    set_stamp(point.time_from_start, 1_500_000_000)
    msg = JointTrajectory(joint_names=['x'], points=[point])
    set_stamp(msg.header.stamp, 42)
    names, times_s, *values, start_ns = commands.trajectory_from_msg(msg)
    assert (names, times_s, start_ns) == (['x'], [1.5], 42)
    assert [[list(point) for point in points] for points in values] == [[[0.1]], [[]], [[]]]


def make_embedding():
    spec_msg = world.world_spec_to_msg(SPEC, STATUS, 'base_link')
    command_spec = world.command_spec_from_msg(spec_msg, 0.5)
    buffer = CommandBuffer(command_spec)
    buffer.twist([0.3, 0, 0], [0, 0, 0.2], 0)
    buffer.joints([ROBOT.joint_names[1]], [-1.0], [], 0)
    return encode(buffer.targets(0, 0, 2, SPEC.frame_period_ns), command_spec,
                  world.carried_camera_from_msg(spec_msg), ROBOT.joint_array('home'), sequence=9,
                  stamp_ns=STAMP_NS, period_s=1 / 15, counts=CommandCounts(2, 1, 0, 3, 'text'))


def test_embedding_there_and_back():
    sent = make_embedding()
    got = action_embedding.embedding_from_msg(
        action_embedding.embedding_to_msg(sent, 'base_link'))
    for name, value in vars(sent).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(getattr(got, name), value, atol=1e-12, err_msg=name)
        elif name == 'camera':
            np.testing.assert_allclose(got.camera.k, value.k)
        else:
            assert getattr(got, name) == value


def test_embedding_of_wrong_length_is_refused():
    msg = action_embedding.embedding_to_msg(make_embedding(), 'base_link')
    msg.num_frames = 3
    with pytest.raises(SpecError, match='expected num_frames 3 x'):
        action_embedding.embedding_from_msg(msg)


def test_world_spec_tells_the_encoder_all_it_needs():
    status = replace(STATUS, scene='b', stamp_ns=STAMP_NS)
    msg = world.world_spec_to_msg(SPEC, status, 'base_link')
    assert (msg.scene, msg.seed, msg.frame_rate, stamp_of(msg)) == ('b', 3, 15.0, STAMP_NS)
    spec = world.command_spec_from_msg(msg, 0.5)
    assert spec.action == SPEC.action and spec.joint_names == ROBOT.joint_names
    camera = world.carried_camera_from_msg(msg)
    np.testing.assert_allclose(camera.T_base_optical, ROBOT.camera.T_base_optical, atol=1e-12)
    assert (msg.world, msg.world_resource, msg.mode) == ('home', 'scene: a', 'stepped')
    assert (msg.camera_parent, msg.free_camera) == ('base_link', False)
    can = Capabilities(follow_camera=True)
    free = world.world_spec_to_msg(replace(SPEC, can=can), status, 'w/base_link')
    assert (free.camera_parent, free.free_camera) == ('w/base_link', True)
    assert (msg.takes_text, msg.takes_images) == (False, False)
    can = Capabilities(take_prompts=True, take_images=True)
    led = world.world_spec_to_msg(replace(SPEC, can=can), status, 'b')
    assert (led.takes_text, led.takes_images) == (True, True)
    assert np.isnan(msg.uncertainty_limit)
    sure = world.world_spec_to_msg(replace(SPEC, uncertainty_limit=0.25), status, 'b')
    assert sure.uncertainty_limit == 0.25


def test_status_adds_up_refusals_and_names_the_problem():
    status = replace(STATUS, state=State.ERROR, fault=Fault.HUNG, stamp_ns=STAMP_NS,
                     rejected_embeddings=2, message='engine broke',
                     counts=CommandCounts(rejected=1, message='cmd_vel: bad'))
    msg = world.world_status_to_msg(status)
    assert (msg.state, msg.rejected_commands, msg.message) == (10, 3, 'engine broke')
    assert msg.fault == WorldStatus.FAULT_HUNG
    msg = world.world_status_to_msg(replace(status, prompt='rain', images_anchored=2))
    assert (msg.prompt, msg.images_anchored) == ('rain', 2)


def test_status_carries_what_replays_a_run():
    status = replace(STATUS, actions=np.array([[0.25, -1.0], [0.5, 2.0]], np.float32),
                     anchor=(1.0, 2.0, 0.5, 0.0, 0.0, 0.25), digest='abc', recoveries=2,
                     lockstep_timeouts=4)
    msg = world.world_status_to_msg(status)
    assert list(msg.actions) == [0.25, -1.0, 0.5, 2.0] and list(msg.anchor) == list(status.anchor)
    assert (msg.digest, msg.recoveries, msg.lockstep_timeouts) == ('abc', 2, 4)
    assert (msg.mode, msg.seed, msg.fault) == ('stepped', 3, WorldStatus.FAULT_NONE)
    again = world.world_status_to_msg(STATUS, out=msg)
    assert again is msg and list(msg.actions) == list(msg.anchor) == [] and msg.digest == ''


@pytest.mark.parametrize('state, number', [
    ('stopped', WorldStatus.STATE_STOPPED), ('playing', WorldStatus.STATE_PLAYING),
    ('paused', WorldStatus.STATE_PAUSED), ('no_world', WorldStatus.STATE_NO_WORLD),
    ('loading_world', WorldStatus.STATE_LOADING_WORLD), ('error', WorldStatus.STATE_ERROR)])
def test_every_state_of_a_session_has_a_number(state, number):
    assert world.world_status_to_msg(replace(STATUS, state=state)).state == number


@pytest.mark.parametrize('changes, level, words', [
    (dict(), b'\x00', 'playing'),
    (dict(real_time_factor=0.5), b'\x01', '0.50'),
    (dict(real_time_factor=0.5, mode=Mode.STEPPED), b'\x00', 'playing'),
    (dict(real_time_factor=0.5, mode=Mode.LOCKSTEP), b'\x00', 'playing'),
    (dict(calibrated=False), b'\x01', 'calibrated'),
    (dict(counts=CommandCounts(message='cmd_vel: bad')), b'\x01', 'cmd_vel'),
    (dict(state=State.ERROR, fault=Fault.OUT_OF_MEMORY, message='broke'), b'\x02',
     'out of memory: broke'),
])
def test_diagnostics_levels(changes, level, words):
    status = replace(STATUS, **{'state': State.PLAYING, 'mode': Mode.REALTIME,
                                'real_time_factor': 1.0, **changes})
    entry = world.diagnostics_to_msg(status, SPEC, 1.0, 'w/world_model').status[0]
    assert entry.level == level and words in entry.message
    assert (entry.name, entry.hardware_id) == ('w/world_model: world', 'e m 1')


def test_diagnostics_tell_what_operators_ask_for():
    status = replace(STATUS, fault=Fault.LOST, recoveries=2, lockstep_timeouts=5)
    entry = world.diagnostics_to_msg(status, SPEC, 1.0, 'n').status[0]
    told = {pair.key: pair.value for pair in entry.values}
    assert (told['world'], told['mode'], told['fault']) == ('home', 'stepped', 'lost')
    assert (told['recoveries'], told['lockstep timeouts']) == ('2', '5')


def test_an_engine_that_estimates_no_uncertainty_is_no_reason_to_warn():
    status = replace(STATUS, state=State.PLAYING, mode=Mode.REALTIME, real_time_factor=1.0,
                     uncertainty=float('nan'), calibrated=True)
    msg = world.world_status_to_msg(status)
    assert np.isnan(msg.uncertainty) and not msg.uncertainty_calibrated
    entry = world.diagnostics_to_msg(status, SPEC, 1.0, 'n').status[0]
    told = {pair.key: pair.value for pair in entry.values}
    assert (entry.level, entry.message, told['uncertainty']) == (b'\x00', 'playing', 'unknown')
