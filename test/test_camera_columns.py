# SPDX-License-Identifier: Apache-2.0
"""Rotation vectors at every angle; camera motion through the columns of an action and back."""
from dataclasses import replace

from lingbot_world_ros.actions.camera_columns import (camera_action_dims, camera_actions,
                                                      camera_columns, camera_motion_of, NAMES)
from lingbot_world_ros.actions.command_spec import CommandCounts, CommandSpec
from lingbot_world_ros.actions.commands import CommandBuffer
from lingbot_world_ros.actions.embedding import (actions_at_latch, CarriedCamera, check_embedding,
                                                 encode)
from lingbot_world_ros.actions.layout import ActionLayout, robot_action_layout
from lingbot_world_ros.geometry.rotation import rotation_from_vector, vector_from_rotation
from lingbot_world_ros.robots.load import load_robot
import numpy as np
import pytest

ROBOT = load_robot()

LAYOUT = ActionLayout((*robot_action_layout(ROBOT).dims, *camera_action_dims()))
HOME = ROBOT.joint_array('home')
CAMERA = CarriedCamera(ROBOT.camera, ROBOT.camera.T_base_optical)
DT = 1.0 / 16.0
ANGLES = (0.0, 1e-300, 1e-12, 1e-8, 1e-3, 0.7, np.pi / 2, 2.0, np.pi - 1e-3, np.pi - 1e-8,
          np.pi - 1e-12)
AXES = np.random.default_rng(3).normal(size=(20, 3))


def spec_of(layout):
    return CommandSpec(layout, ROBOT.joint_names, tuple(ROBOT.joint_array('low')),
                       tuple(ROBOT.joint_array('high')), 0.5)


def embed(layout=LAYOUT, num_frames=3, motion=None, camera=CAMERA):
    buffer = CommandBuffer(spec_of(layout))
    buffer.twist([0.5, 0, 0], [0, 0, 0.3], 0)
    return encode(buffer.targets(0, 0, num_frames, round(DT * 1e9)), buffer.spec, camera, HOME,
                  sequence=1, stamp_ns=0, period_s=DT, counts=CommandCounts(), motion=motion)


@pytest.mark.parametrize('angle', ANGLES)
def test_rotation_vectors_there_and_back_at_every_angle(angle):
    axes = np.vstack([np.eye(3), -np.eye(3), AXES])
    vectors = angle * axes / np.linalg.norm(axes, axis=1, keepdims=True)
    got = vector_from_rotation(rotation_from_vector(vectors))
    np.testing.assert_allclose(got, vectors, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize('axis', [*np.eye(3), np.array([1.0, -2.0, 0.5])])
def test_half_a_turn_has_an_axis_of_either_sign(axis):
    axis = axis / np.linalg.norm(axis)
    vector = vector_from_rotation(2.0 * np.outer(axis, axis) - np.eye(3))
    assert np.linalg.norm(vector) == pytest.approx(np.pi)
    assert abs(vector @ axis) == pytest.approx(np.pi)


def test_rotation_of_a_vector_is_the_turn_about_it():
    np.testing.assert_allclose(rotation_from_vector([0.0, 0.0, np.pi / 2]) @ [1.0, 0.0, 0.0],
                               [0.0, 1.0, 0.0], atol=1e-15)
    turns = rotation_from_vector(AXES)
    np.testing.assert_allclose(turns @ np.swapaxes(turns, -1, -2),
                               np.broadcast_to(np.eye(3), turns.shape), atol=1e-14)
    assert np.linalg.det(turns) == pytest.approx(np.ones(len(AXES)))
    assert rotation_from_vector(np.zeros((2, 0, 3))).shape == (2, 0, 3, 3)


def test_columns_are_found_by_name_or_not_at_all():
    assert camera_columns(LAYOUT.names) == list(range(7, 13))
    assert camera_columns(LAYOUT.names[:-1]) == [] == camera_columns(())
    assert [LAYOUT.names[i] for i in camera_columns(LAYOUT.names)] == list(NAMES)


def test_motion_goes_through_actions_and_comes_back():
    motion = np.tile(np.eye(4), (20, 1, 1))
    motion[:, :3, 3] = np.random.default_rng(1).normal(size=(20, 3))
    motion[:, :3, :3] = rotation_from_vector(AXES)
    actions = np.zeros((20, len(LAYOUT.dims)))
    actions[:, camera_columns(LAYOUT.names)] = camera_actions(motion)
    np.testing.assert_allclose(camera_motion_of(actions, LAYOUT), motion, atol=1e-12)
    np.testing.assert_array_equal(camera_motion_of(np.zeros((2, 13)), LAYOUT), [np.eye(4)] * 2)


def test_a_layout_without_camera_columns_means_a_camera_at_rest():
    layout = robot_action_layout(ROBOT)
    np.testing.assert_array_equal(camera_motion_of(np.ones((2, 7)), layout), [np.eye(4)] * 2)
    assert embed(layout).embedding.shape == (3, 7)


def test_encoded_motion_reaches_the_engine_through_the_latch():
    embedding = embed()
    check_embedding(embedding, LAYOUT, ROBOT.joint_names)
    actions = actions_at_latch(embedding, LAYOUT, HOME, 3)
    np.testing.assert_allclose(camera_motion_of(actions, LAYOUT), embedding.camera_motion,
                               atol=1e-7)
    assert np.abs(actions[:, 7:]).max() > 0.01


def test_given_motion_takes_the_place_of_that_of_the_base_and_is_limited():
    motion = np.tile(np.eye(4), (3, 1, 1))
    motion[:, 0, 3] = 1.0, 2.0, 99.0
    embedding = embed(motion=motion)
    np.testing.assert_array_equal(embedding.camera_motion, motion)
    assert embedding.embedding[0, 0] == pytest.approx(0.5)
    actions = actions_at_latch(embedding, LAYOUT, HOME, 3)
    assert actions[:, 7].tolist() == [1.0, 2.0, 10.0]


def test_motion_of_a_camera_on_the_arm_is_in_the_columns():
    def poses_of(joints):
        poses = np.tile(np.eye(4), (len(joints), 1, 1))
        poses[:, 0, 3] = joints[:, 0]
        return poses
    buffer = CommandBuffer(spec_of(LAYOUT))
    buffer.joints([ROBOT.joint_names[0]], [], [0.8], 0)
    embedding = encode(buffer.targets(0, 0, 2, round(DT * 1e9)), buffer.spec,
                       replace(CAMERA, poses_of=poses_of), HOME, sequence=1, stamp_ns=0,
                       period_s=DT, counts=CommandCounts())
    assert embedding.embedding[:, 7] == pytest.approx([0.05, 0.05])
