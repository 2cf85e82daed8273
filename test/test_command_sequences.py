# SPDX-License-Identifier: Apache-2.0
"""Random command sequences: limits, determinism and what they cover."""
from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.evaluation.command_sequences import command_sequence, command_sequences
from lingbot_world_ros.robots.load import load_robot
import numpy as np

ROBOT = load_robot()

LAYOUT = robot_action_layout(ROBOT)
SEQUENCES = command_sequences(ROBOT, 24, 900, seed=5)


def test_sequences_keep_shape_and_limits():
    assert SEQUENCES.shape == (24, 900, 7) and SEQUENCES.dtype == np.float32
    assert np.isfinite(SEQUENCES).all()
    assert (SEQUENCES >= LAYOUT.low).all() and (SEQUENCES <= LAYOUT.high).all()


def test_same_seed_gives_same_bytes_and_other_seed_does_not():
    again = command_sequences(ROBOT, 24, 900, seed=5)
    assert again.tobytes() == SEQUENCES.tobytes()
    assert command_sequences(ROBOT, 2, 900, seed=6).tobytes() != again[:2].tobytes()


def test_longer_list_starts_with_the_shorter_one():
    assert np.array_equal(command_sequences(ROBOT, 3, 900, seed=5), SEQUENCES[:3])


def test_short_sequence_has_the_asked_length():
    assert command_sequence(ROBOT, 1, np.random.default_rng(0)).shape == (1, 7)


def test_base_stands_a_fifth_of_the_time_while_the_arm_moves():
    standing = (SEQUENCES[..., :2] == 0).all(-1)
    assert 0.15 < standing.mean() < 0.25
    arm_moves = (SEQUENCES[..., 2:] != 0).any(-1)
    assert arm_moves[standing].mean() > 0.97


def test_driving_is_brisk_and_turns_both_ways():
    speed = np.abs(SEQUENCES[..., 0])
    assert speed[speed > 0.02].mean() > 0.25
    turns = SEQUENCES[..., 1]
    assert abs(turns.mean()) < 0.15 and np.abs(turns).mean() > 0.2


def test_joints_explore_their_whole_range_and_rest_at_limits_now_and_then():
    low, high = ROBOT.joint_array('low'), ROBOT.joint_array('high')
    q = np.tile(ROBOT.joint_array('home'), (24, 1))
    seen = []
    for t in range(900):
        q = np.clip(q + SEQUENCES[:, t, 2:] / 15.0, low, high)
        seen.append((q - low) / (high - low))
    seen = np.concatenate(seen)
    for joint in range(5):
        share, _ = np.histogram(seen[:, joint], bins=8, range=(0, 1))
        assert share.min() / len(seen) > 0.05
        at_limit = ((seen[:, joint] == 0) | (seen[:, joint] == 1)).mean()
        assert 0.02 < at_limit < 0.35
