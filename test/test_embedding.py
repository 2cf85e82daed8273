# SPDX-License-Identifier: Apache-2.0
"""Action embeddings: geometry by hand, position tracking, the last gate."""
from dataclasses import replace

from lingbot_world_ros.actions.command_spec import CommandCounts, CommandSpec
from lingbot_world_ros.actions.commands import CommandBuffer
from lingbot_world_ros.actions.embedding import (actions_at_latch, camera_motion, CarriedCamera,
                                                 check_embedding, encode, track_positions)
from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se3
from lingbot_world_ros.robots.load import load_robot
import numpy as np
import pytest

ROBOT = load_robot()

LAYOUT = robot_action_layout(ROBOT)
SPEC = CommandSpec(LAYOUT, ROBOT.joint_names, tuple(ROBOT.joint_array('low')),
                   tuple(ROBOT.joint_array('high')), 0.5)
CAMERA = CarriedCamera(ROBOT.camera, ROBOT.camera.T_base_optical)
HOME = ROBOT.joint_array('home')
DT = 1.0 / 15.0


def make_embedding(fill, num_frames=1, current=HOME):
    buffer = CommandBuffer(SPEC)
    fill(buffer)
    targets = buffer.targets(0, 0, num_frames, round(DT * 1e9))
    return encode(targets, SPEC, CAMERA, current, sequence=7, stamp_ns=3, period_s=DT,
                  counts=CommandCounts(accepted=buffer.accepted))


def test_forward_motion_seen_by_a_camera_pitched_down():
    """Driving 0.1 m ahead moves a camera that looks down by p along (0, -sin p, cos p)."""
    motion = camera_motion(np.array([0.1, 0.0, 0.0]), 1.0, CAMERA.T_optical_base,
                           CAMERA.T_base_optical)
    p = ROBOT.camera.rpy_rad[1]
    np.testing.assert_allclose(motion[:3, 3], [0.0, -0.1 * np.sin(p), 0.1 * np.cos(p)],
                               atol=1e-12)
    np.testing.assert_allclose(motion[:3, :3], np.eye(3), atol=1e-12)


def test_turn_left_moves_a_camera_in_front_of_the_axis_to_its_left():
    T_base_optical = CAMERA.T_base_optical.copy()
    T_base_optical[:3, 3] = [1.0, 0.0, 0.5]
    motion = camera_motion(np.array([0.0, 0.0, 0.01]), 1.0, se3.inverse(T_base_optical),
                           T_base_optical)
    assert motion[0, 3] == pytest.approx(-0.01, abs=1e-6)  # left is -x of the optical frame


def test_motion_of_a_camera_on_an_arm_is_that_of_base_and_arm():
    """The base drives 0.1 m ahead while the arm carries the camera 0.02 m to its right."""
    poses = np.stack([CAMERA.T_base_optical] * 2)
    poses[1, 1, 3] -= 0.02
    motion = camera_motion(np.array([[0.1, 0.0, 0.0]]), 1.0, se3.inverse(poses[:1]), poses[1:])
    p = ROBOT.camera.rpy_rad[1]
    np.testing.assert_allclose(motion[0, :3, 3], [0.02, -0.1 * np.sin(p), 0.1 * np.cos(p)],
                               atol=1e-12)


def test_camera_on_a_link_moves_along_the_tracked_joints_frame_by_frame():
    """The first joint carries the camera along x; it may go 0.1 m in the first frame at most."""
    def poses_of(joints):
        poses = np.tile(np.eye(4), (len(joints), 1, 1))
        poses[:, 0, 3] = joints[:, 0]
        return poses
    camera = replace(CAMERA, poses_of=poses_of)
    buffer = CommandBuffer(SPEC)
    buffer.joints([ROBOT.joint_names[0]], [0.15], [], 0)
    embedding = encode(buffer.targets(0, 0, 3, round(DT * 1e9), HOME), SPEC, camera, HOME,
                       sequence=1, stamp_ns=0, period_s=DT, counts=CommandCounts())
    np.testing.assert_allclose(embedding.camera_motion[:, 0, 3], [0.1, 0.05, 0.0], atol=1e-9)


def test_embedding_has_one_motion_per_frame_and_says_until_when_it_holds():
    embedding = make_embedding(lambda b: b.twist([0.3, 0, 0], [0, 0, -0.4], 0), num_frames=3)
    assert embedding.camera_motion.shape == (3, 4, 4)
    assert embedding.valid_until_ns == 500_000_000 + round(DT * 1e9)


def test_tracking_reaches_a_position_in_one_frame_when_speed_allows():
    goals = np.array([[0.05, np.nan], [0.05, np.nan], [1.0, np.nan]])
    velocity = track_positions(goals, [0.0, 0.3], DT, np.array([1.5, 1.5]))
    assert velocity[:, 0] == pytest.approx([0.75, 0.0, 1.5])
    assert np.isnan(velocity[:, 1]).all()


def test_flat_embedding_has_the_layout_of_the_world():
    def fill(buffer):
        buffer.twist([0.3, 0, 0], [0, 0, -0.4], 0)
        buffer.joints([ROBOT.joint_names[3]], [], [0.6], 0)
    embedding = make_embedding(fill, num_frames=3)
    assert embedding.layout == LAYOUT.names and embedding.embedding.dtype == np.float32
    np.testing.assert_allclose(embedding.embedding, [[0.3, -0.4, 0, 0, 0, 0.6, 0]] * 3)
    check_embedding(embedding, LAYOUT, ROBOT.joint_names)


def test_latch_tracks_from_where_the_joint_is_now_not_where_it_was_when_encoded():
    goal = HOME[0] + 0.05
    embedding = make_embedding(lambda b: b.joints([ROBOT.joint_names[0]], [goal], [], 0))
    now = HOME.copy()
    now[0] += 0.03
    action = actions_at_latch(embedding, LAYOUT, now, 1)[0]
    assert action[2] * DT == pytest.approx(0.02, abs=1e-6)


def test_latch_repeats_the_last_frame_and_cuts_what_is_too_long():
    embedding = make_embedding(lambda b: b.twist([0.3, 0, 0], [0, 0, 0], 0), num_frames=2)
    assert actions_at_latch(embedding, LAYOUT, HOME, 4)[:, 0] == pytest.approx([0.3] * 4)
    assert actions_at_latch(embedding, LAYOUT, HOME, 1).shape == (1, len(LAYOUT.dims))


@pytest.mark.parametrize('late_s, first', [(-1.0, 0), (0.0, 0), (2 * DT, 2), (9.0, 3)])
def test_latch_leaves_out_what_is_past_of_a_long_embedding(late_s, first):
    embedding = replace(make_embedding(lambda b: None, num_frames=6), stamp_ns=7_000_000_000)
    embedding.embedding[:, 0] = 0.01 * np.arange(6)
    start_ns = embedding.stamp_ns + round(late_s * 1e9)
    rows = actions_at_latch(embedding, LAYOUT, HOME, 3, start_ns)[:, 0]
    assert rows == pytest.approx(0.01 * np.arange(first, first + 3))
    short = replace(embedding, embedding=embedding.embedding[:3],
                    joint_position=embedding.joint_position[:3])
    assert actions_at_latch(short, LAYOUT, HOME, 3, start_ns)[:, 0] == pytest.approx(
        [0.0, 0.01, 0.02])


def test_latch_limits_what_a_stranger_sends():
    embedding = make_embedding(lambda b: None)
    wild = replace(embedding, embedding=np.full_like(embedding.embedding, 99.0))
    np.testing.assert_array_equal(actions_at_latch(wild, LAYOUT, HOME, 1)[0], LAYOUT.high)


@pytest.mark.parametrize('change, words', [
    (dict(layout=('base.linear.x',)), 'layout'),
    (dict(joint_names=('nose',)), 'layout'),
    (dict(embedding=np.full((1, 7), np.nan, np.float32)), 'not finite'),
    (dict(joint_position=np.full((1, 5), np.inf)), 'not finite'),
    (dict(joint_velocity=np.full((1, 5), np.nan)), 'not finite'),
    (dict(camera_motion=np.full((1, 4, 4), np.nan)), 'not finite'),
    (dict(period_s=0.0), 'frame_period_s=0.0'),
    (dict(joint_position=np.zeros((2, 5))), 'do not fit'),
    (dict(embedding=np.zeros((0, 7), np.float32)), 'do not fit'),
])
def test_the_last_gate_refuses(change, words):
    embedding = replace(make_embedding(lambda b: None), **change)
    with pytest.raises(SpecError, match=words):
        check_embedding(embedding, LAYOUT, ROBOT.joint_names)
