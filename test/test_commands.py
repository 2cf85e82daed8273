# SPDX-License-Identifier: Apache-2.0
"""Commands: what is taken over, limited, refused, timed out."""
from lingbot_world_ros.actions.commands import CommandBuffer, CommandSpec
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.worlds.robot import ROBOT
from lingbot_world_ros.worlds.world_model import ActionDim, ActionLayout, robot_action_layout
import numpy as np
import pytest

PERIOD_NS = 66_666_667
SECOND_NS = 1_000_000_000
NAN, INF = float('nan'), float('inf')
PAN, LIFT, ELBOW = ROBOT.joint_names[:3]
SPEC = CommandSpec(robot_action_layout(ROBOT), ROBOT.joint_names,
                   tuple(ROBOT.joint_array('low')), tuple(ROBOT.joint_array('high')), 0.5)


@pytest.fixture
def buffer():
    return CommandBuffer(SPEC)


def targets(buffer, now_ns=0, sim_ns=0, num_frames=1):
    return buffer.targets(now_ns, sim_ns, num_frames, PERIOD_NS)


def test_nothing_commanded_means_stand_still_and_hold(buffer):
    out = targets(buffer, num_frames=2)
    assert out.twist.tolist() == [0.0, 0.0]
    assert np.isnan(out.joint_position).all() and out.joint_position.shape == (2, 5)
    assert not out.joint_velocity.any()


def test_twist_reaches_targets_until_it_times_out_once(buffer):
    buffer.twist([0.3, 0.0, 0.0], [0.0, 0.0, -0.5], 0)
    assert targets(buffer, SECOND_NS // 2).twist.tolist() == pytest.approx([0.3, -0.5])
    assert targets(buffer, SECOND_NS // 2 + 1).twist.tolist() == [0.0, 0.0]
    assert targets(buffer, 2 * SECOND_NS).twist.tolist() == [0.0, 0.0]
    assert (buffer.accepted, buffer.timed_out) == (1, 1)
    assert 'cmd_vel' in buffer.message and 'cmd_timeout_s' in buffer.message


def test_a_problem_is_told_for_a_while_then_forgotten(buffer):
    with pytest.raises(SpecError):
        buffer.twist([NAN, 0, 0], [0, 0, 0], 0)
    targets(buffer, SECOND_NS)
    buffer.twist([0.1, 0, 0], [0, 0, 0], 2 * SECOND_NS)
    targets(buffer, 2 * SECOND_NS)
    assert 'refused' in buffer.message  # a good command right after does not hide it
    buffer.twist([0.1, 0, 0], [0, 0, 0], 6 * SECOND_NS + 1)
    targets(buffer, 6 * SECOND_NS + 1)
    assert buffer.message == '' and buffer.rejected == 1


def test_a_zero_twist_that_falls_silent_is_no_timeout(buffer):
    buffer.twist([0.0] * 3, [0.0] * 3, 0)
    targets(buffer, SECOND_NS)
    assert buffer.timed_out == 0


@pytest.mark.parametrize('linear, angular, wanted', [
    ([9.0, 0, 0], [0, 0, 0], [ROBOT.linear_high_mps, 0.0]),
    ([-9.0, 0, 0], [0, 0, 9.0], [ROBOT.linear_low_mps, ROBOT.angular_max_radps]),
    ([0.2, 0.1, 0], [0, 0, 0], [0.2, 0.0]),
    ([0.2, 0, 0], [0, 0.3, 0], [0.2, 0.0]),
])
def test_twist_beyond_limits_is_limited_and_counted(buffer, linear, angular, wanted):
    buffer.twist(linear, angular, 0)
    assert targets(buffer).twist.tolist() == pytest.approx(wanted)
    assert (buffer.accepted, buffer.clipped, buffer.rejected) == (1, 1, 0)
    assert 'cmd_vel' in buffer.message


def test_parts_of_a_twist_that_the_base_cannot_follow_are_named(buffer):
    buffer.twist([0.2, 0.1, 0], [0, 0, 0.3], 0)
    assert 'linear.y 0.1 ignored' in buffer.message and 'limited' not in buffer.message
    buffer.twist([9.0, 0, 0], [0, -0.5, 0], 0)
    assert 'angular.y -0.5 ignored; linear.x 9 m/s' in buffer.message


@pytest.mark.parametrize('send, words', [
    (lambda b: b.twist([NAN, 0, 0], [0, 0, 0], 0), ('cmd_vel', 'finite')),
    (lambda b: b.twist([0, 0, 0], [0, 0, INF], 0), ('cmd_vel', 'finite')),
    (lambda b: b.joints(['nose'], [0.1], [], 0), ('joint_command', "'nose'", PAN)),
    (lambda b: b.joints([], [], [], 0), ('joint_command', 'no joint', PAN)),
    (lambda b: b.joints([PAN], [], [], 0), ('joint_command', 'position nor velocity')),
    (lambda b: b.joints([PAN, PAN], [0, 0], [], 0), ('joint_command', 'twice')),
    (lambda b: b.joints([PAN, LIFT], [0.1], [], 0), ('joint_command', '1 values for 2 names')),
    (lambda b: b.joints([PAN], [0.1], [1.0, 2.0], 0), ('joint_command', '2 values for 1 names')),
    (lambda b: b.joints([PAN], [NAN], [], 0), ('joint_command', 'not finite')),
    (lambda b: b.joints([PAN], [], [-INF], 0), ('joint_command', 'not finite')),
    (lambda b: b.joint_array([0.0] * 4, 'position', 0), ('arm_controller/commands', '4 values')),
    (lambda b: b.joint_array([NAN] * 5, 'velocity', 0), ('arm_controller/commands', 'finite')),
    (lambda b: follow(b, [PAN], [0.0], [[NAN]]), ('joint_trajectory', 'not finite')),
    (lambda b: follow(b, [PAN], [0.0], [[0.1, 0.2]]), ('joint_trajectory', '2 positions for 1')),
    (lambda b: follow(b, ['nose'], [0.0], [[0.1]]), ('joint_trajectory', "'nose'")),
    (lambda b: follow(b, [PAN], [], []), ('joint_trajectory', 'no points')),
    (lambda b: follow(b, [PAN], [1.0, 1.0], [[0.1], [0.2]]), ('joint_trajectory', 'increase')),
    (lambda b: follow(b, [PAN], [-1.0], [[0.1]]), ('joint_trajectory', 'increase')),
    (lambda b: follow(b, [PAN], [1.0], [[0.1]], start_ns=1, sim_ns=5 * SECOND_NS),
     ('joint_trajectory', 'ended 4.000 s', 'stamp of 0')),
])
def test_bad_input_is_refused_with_topic_and_remedy_and_changes_nothing(buffer, send, words):
    buffer.twist([0.3, 0, 0], [0, 0, 0.2], 0)
    buffer.joints([LIFT], [-1.0], [], 0)
    buffer.joints([ELBOW], [], [0.5], 0)
    before = targets(buffer)
    with pytest.raises(SpecError) as error:
        send(buffer)
    for word in words:
        assert word in str(error.value)
    after = targets(buffer)
    assert (buffer.accepted, buffer.rejected) == (3, 1)
    assert buffer.message == str(error.value)
    for field in ('twist', 'joint_position', 'joint_velocity'):
        np.testing.assert_array_equal(getattr(before, field), getattr(after, field))


def follow(buffer, names, times_s, positions, start_ns=0, sim_ns=0):
    buffer.trajectory(names, times_s, positions, start_ns=start_ns, sim_ns=sim_ns,
                      current=ROBOT.joint_array('home'))


def test_joint_command_moves_named_joints_only_and_newest_message_wins(buffer):
    buffer.joints([ELBOW, PAN], [], [0.5, -0.25], 0)
    buffer.joints([PAN], [0.7], [], 0)
    out = targets(buffer)
    assert out.joint_position[0, 0] == 0.7 and np.isnan(out.joint_position[0, 1:]).all()
    assert out.joint_velocity[0].tolist() == [0.0, 0.0, 0.5, 0.0, 0.0]


def test_joint_velocity_times_out_and_position_does_not(buffer):
    buffer.joints([PAN], [0.7], [], 0)
    buffer.joints([ELBOW], [], [0.5], 0)
    out = targets(buffer, SECOND_NS)
    assert out.joint_position[0, 0] == 0.7
    assert not out.joint_velocity.any()
    assert buffer.timed_out == 1


def test_joint_values_beyond_limits_are_limited_and_counted(buffer):
    buffer.joints([PAN], [3.0], [], 0)
    buffer.joints([LIFT], [], [-7.0], 0)
    out = targets(buffer)
    assert out.joint_position[0, 0] == ROBOT.joints[0].high
    assert out.joint_velocity[0, 1] == pytest.approx(-ROBOT.joints[1].max_speed)
    assert buffer.clipped == 2 and LIFT in buffer.message


@pytest.mark.parametrize('interface', ['position', 'velocity'])
def test_joint_array_is_in_world_order(buffer, interface):
    values = [0.1, -0.9, 0.3, 0.2, 0.01]
    buffer.joint_array(values, interface, 0)
    out = targets(buffer)
    assert getattr(out, f'joint_{interface}')[0].tolist() == pytest.approx(values)


def test_trajectory_runs_in_sim_time_from_where_the_joint_is(buffer):
    follow(buffer, [PAN], [1.0, 2.0], [[0.6], [0.2]], sim_ns=10 * SECOND_NS)
    at = [targets(buffer, 0, 10 * SECOND_NS - PERIOD_NS + s * SECOND_NS // 2).joint_position[0, 0]
          for s in range(7)]
    assert at == pytest.approx([0.0, 0.3, 0.6, 0.4, 0.2, 0.2, 0.2])
    assert buffer.follows_trajectory


def test_trajectory_frames_of_one_step_are_sampled_each_at_its_time(buffer):
    follow(buffer, [PAN], [4 * PERIOD_NS / 1e9], [[0.4]])
    out = targets(buffer, num_frames=4)
    assert out.joint_position[:, 0] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert np.isnan(out.joint_position[:, 1:]).all()


def test_joint_command_takes_a_joint_out_of_a_trajectory(buffer):
    follow(buffer, [PAN, LIFT], [1.0], [[0.5, -1.2]])
    buffer.joints([PAN], [], [0.1], 0)
    out = targets(buffer, 0, SECOND_NS)
    assert np.isnan(out.joint_position[0, 0]) and out.joint_velocity[0, 0] == 0.1
    assert out.joint_position[0, 1] == -1.2


def test_clear_forgets_commands_and_keeps_counters(buffer):
    buffer.twist([0.3, 0, 0], [0, 0, 0], 0)
    follow(buffer, [PAN], [1.0], [[0.5]])
    buffer.clear()
    out = targets(buffer)
    assert not out.twist.any() and np.isnan(out.joint_position).all()
    assert buffer.accepted == 2 and not buffer.follows_trajectory


def test_spec_refuses_a_layout_without_the_columns():
    with pytest.raises(SpecError, match='base.angular.z'):
        CommandSpec(ActionLayout((ActionDim('base.linear.x', 'm/s', -1, 1),)), (), (), (), 0.5)
