# SPDX-License-Identifier: Apache-2.0
"""Commands: what is taken over, limited, refused, timed out, and how they take turns."""
from dataclasses import replace

from lingbot_world_ros.actions.command_spec import CommandCounts, CommandSpec
from lingbot_world_ros.actions.commands import CommandBuffer
from lingbot_world_ros.actions.layout import (ActionDim, ActionLayout, robot_action_layout,
                                              twists_of)
from lingbot_world_ros.actions.limits import Limits
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.urdf import JointLimits
import numpy as np
import pytest

ROBOT = load_robot()

PERIOD_NS = 66_666_667
PERIOD_S = PERIOD_NS * 1e-9
SECOND_NS = 1_000_000_000
NAN, INF = float('nan'), float('inf')
PAN, LIFT, ELBOW = ROBOT.joint_names[:3]
HOME = ROBOT.joint_array('home')
SPEC = CommandSpec(robot_action_layout(ROBOT), ROBOT.joint_names,
                   tuple(ROBOT.joint_array('low')), tuple(ROBOT.joint_array('high')), 0.5)
SIM_SPEC = replace(SPEC, ages_in_sim_time=True)


@pytest.fixture
def buffer():
    return CommandBuffer(SPEC)


def targets(buffer, now_ns=0, sim_ns=0, num_frames=1, period_ns=PERIOD_NS, current=HOME):
    return buffer.targets(now_ns, sim_ns, num_frames, period_ns, current)


def follow(buffer, names, times_s, positions, *more, start_ns=0, sim_ns=0, hz=10.0):
    buffer.trajectory(names, times_s, positions, *more, start_ns=start_ns, sim_ns=sim_ns,
                      policy_frequency_hz=hz)


def path(buffer, times_s, joint=0, current=HOME):
    """Return where a joint shall be at some times, encoding a step that ends at each."""
    return [targets(buffer, 0, round(s * 1e9) - PERIOD_NS, current=current)
            .joint_position[0, joint] for s in times_s]


def test_nothing_commanded_means_stand_still_and_hold(buffer):
    out = targets(buffer, num_frames=2)
    assert not out.twist.any() and out.twist.shape == (2, 3)
    assert np.isnan(out.joint_position).all() and out.joint_position.shape == (2, 5)
    assert not out.joint_velocity.any()
    assert out.valid_until_ns == 0


def test_twist_reaches_targets_until_it_times_out_once(buffer):
    buffer.twist([0.3, 0.0, 0.0], [0.0, 0.0, -0.5], 0)
    assert targets(buffer, SECOND_NS // 2).twist.tolist() == [[0.3, 0.0, -0.5]]
    assert not targets(buffer, SECOND_NS // 2 + 1).twist.any()
    assert not targets(buffer, 2 * SECOND_NS).twist.any()
    assert (buffer.accepted, buffer.timed_out) == (1, 1)
    assert 'cmd_vel' in buffer.message and 'cmd_timeout_s' in buffer.message


def test_timeout_that_is_set_while_running_takes_effect_at_once(buffer):
    buffer.twist([0.3, 0.0, 0.0], [0.0, 0.0, 0.0], 0)
    buffer.set_timeout(2.0)
    assert targets(buffer, 2 * SECOND_NS).twist.any()
    buffer.set_timeout(1.9)
    assert not targets(buffer, 2 * SECOND_NS).twist.any()
    assert buffer.spec == replace(SPEC, timeout_s=1.9)


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


def test_a_zero_velocity_that_falls_silent_is_no_timeout(buffer):
    buffer.twist([0.0] * 3, [0.0] * 3, 0)
    buffer.joints([ELBOW], [], [0.0], 0)
    targets(buffer, SECOND_NS)
    assert buffer.timed_out == 0


@pytest.mark.parametrize('linear, angular, wanted', [
    ([9.0, 0, 0], [0, 0, 0], [ROBOT.drive.linear_high_mps, 0.0, 0.0]),
    ([-9.0, 0, 0], [0, 0, 9.0], [ROBOT.drive.linear_low_mps, 0.0, ROBOT.drive.angular_max_radps]),
    ([0.2, 0.1, 0], [0, 0, 0], [0.2, 0.0, 0.0]),
    ([0.2, 0, 0], [0, 0.3, 0], [0.2, 0.0, 0.0]),
    ([0.2, 0, 0.1], [0, 0, 0], [0.2, 0.0, 0.0]),
])
def test_twist_beyond_limits_is_limited_and_counted(buffer, linear, angular, wanted):
    buffer.twist(linear, angular, 0)
    assert targets(buffer).twist.tolist() == [wanted]
    assert (buffer.accepted, buffer.clipped, buffer.rejected) == (1, 1, 0)
    assert 'cmd_vel' in buffer.message


def test_a_twist_that_the_base_can_follow_is_taken_as_it_is(buffer):
    buffer.twist([0.2, 0, 0], [0, 0, -0.3], 0)
    assert (buffer.accepted, buffer.clipped, buffer.message) == (1, 0, '')


def test_parts_of_a_twist_that_the_base_cannot_follow_are_named(buffer):
    buffer.twist([0.2, 0.1, 0], [0, 0, 0.3], 0)
    assert 'linear.y 0.1 ignored' in buffer.message and 'limited' not in buffer.message
    assert buffer.message.count('ignored') == 1 and 'circles' not in buffer.message
    buffer.twist([9.0, 0, 0], [0, -0.5, 0], 0)
    assert ('angular.y -0.5 ignored; linear.x 9 m/s, angular.z 0 rad/s limited to 0.8 m/s, 0 rad/s'
            in buffer.message)


@pytest.mark.parametrize('stamp_s, is_taken, silent_from_s', [
    (0.0, True, 0.5),    # no stamp: now
    (10.0, True, 0.5),   # now
    (9.8, True, 0.3),    # what is left of the timeout
    (9.5, True, 0.0),    # just in time
    (9.4, False, None),  # older than the timeout
    (99.0, True, 0.5),   # the future is now, it cannot make a command last longer
    (-5.0, False, None),
])
def test_a_stamp_makes_a_twist_age(buffer, stamp_s, is_taken, silent_from_s):
    def send():
        buffer.twist([0.3, 0, 0], [0, 0, 0], 7 * SECOND_NS, stamp_ns=round(stamp_s * 1e9),
                     sim_ns=10 * SECOND_NS, topic='base/cmd')
    if not is_taken:
        with pytest.raises(SpecError, match=r'base/cmd: refused.*s of sim time old.*clock'):
            send()
        assert (buffer.accepted, buffer.rejected, buffer.stale) == (0, 1, 1)
        return
    send()
    last_ns = 7 * SECOND_NS + round(silent_from_s * 1e9)
    assert targets(buffer, last_ns).twist.any()
    assert not targets(buffer, last_ns + 1).twist.any()
    assert (buffer.accepted, buffer.stale) == (1, 0)


def test_in_sim_time_a_command_ends_inside_a_step():
    """Frames that begin within the timeout move; half a second is five tenths of a second."""
    buffer = CommandBuffer(SIM_SPEC)
    buffer.twist([0.3, 0, 0], [0, 0, 0], 0)
    buffer.joints([ELBOW], [], [0.5], 0)
    out = targets(buffer, num_frames=8, period_ns=SECOND_NS // 10)
    assert out.twist[:, 0].tolist() == [0.3] * 6 + [0.0] * 2
    assert out.joint_velocity[:, 2].tolist() == [0.5] * 6 + [0.0] * 2
    assert out.valid_until_ns == 0 and buffer.timed_out == 0  # the last row stands still
    targets(buffer, 8 * SECOND_NS // 10, 8 * SECOND_NS // 10)
    assert buffer.timed_out == 2


@pytest.mark.parametrize('send, until_s', [
    (lambda b: None, 0.0),
    (lambda b: b.twist([0.3, 0, 0], [0, 0, 0], 0), 0.6),  # the frame that begins at 0.5 s ends
    (lambda b: b.twist([0.0, 0, 0], [0, 0, 0], 0), 0.0),
    (lambda b: b.joints([PAN], [], [0.3], -SECOND_NS // 5), 0.4),
    (lambda b: b.joints([PAN], [0.3], [], 0), 0.0),
    (lambda b: b.joints([PAN], [0.3], [0.1], 0), 0.1),  # a slow way changes with every frame
    (lambda b: follow(b, [PAN], [1.0], [[0.3]]), 0.1),
    (lambda b: follow(b, [PAN], [1.0], [[0.3]], start_ns=5 * SECOND_NS), 0.1),
])
def test_targets_say_until_when_their_last_row_may_be_repeated(send, until_s):
    buffer = CommandBuffer(SIM_SPEC)
    send(buffer)
    out = targets(buffer, num_frames=1, period_ns=SECOND_NS // 10)
    assert out.valid_until_ns == round(until_s * 1e9)


def test_a_base_that_does_not_strafe_is_never_told_to():
    buffer = CommandBuffer(SPEC)
    buffer.twist([0.1, 0.7, 0], [0, 0, 0.2], 0)
    assert SPEC.twist_range[1] == (0.0, 0.0)
    assert targets(buffer).twist[0].tolist() == [0.1, 0.0, 0.2]


def test_a_command_counts_from_when_it_came_and_not_from_when_time_began():
    """It came at 3 s; at 3.2 s, 10 s of sim time, 0.3 s are left and a frame of 0.1 s ends."""
    buffer = CommandBuffer(SIM_SPEC)
    buffer.twist([0.3, 0, 0], [0, 0, 0], 3 * SECOND_NS)
    buffer.joints([ELBOW], [], [0.5], 3 * SECOND_NS)
    out = targets(buffer, 32 * SECOND_NS // 10, 10 * SECOND_NS, period_ns=SECOND_NS // 10)
    assert (out.twist[0, 0], out.joint_velocity[0, 2]) == (0.3, 0.5)
    assert out.valid_until_ns == 104 * SECOND_NS // 10


BAD = [
    (lambda b: b.twist([NAN, 0, 0], [0, 0, 0], 0), ('cmd_vel', 'finite')),
    (lambda b: b.twist([0, 0, 0], [0, 0, INF], 0), ('cmd_vel', 'finite')),
    (lambda b: b.joints(['nose'], [0.1], [], 0), ('joint_command', "'nose'", PAN)),
    (lambda b: b.joints(['nose'], [NAN], [], 0), ('joint_command', "'nose'", PAN)),
    (lambda b: b.joints([], [], [], 0), ('joint_command', 'position nor velocity')),
    (lambda b: b.joints([], [0.1] * 4, [], 0), ('position has 4 values for 5 joints', PAN)),
    (lambda b: b.joints([], [0.1] * 5, [0.1] * 6, 0), ('velocity has 6 values for 5 joints',)),
    (lambda b: b.joints([PAN], [], [], 0), ('joint_command', 'position nor velocity')),
    (lambda b: b.joints([PAN, PAN], [0, 0], [], 0), ('joint_command', 'twice')),
    (lambda b: b.joints([PAN, LIFT], [0.1], [], 0), ('joint_command', '1 values for 2 names')),
    (lambda b: b.joints([PAN], [0.1], [1.0, 2.0], 0), ('joint_command', '2 values for 1 names')),
    (lambda b: b.joints([PAN, LIFT], [NAN, INF], [], 0), ('position [nan, inf] is not finite',)),
    (lambda b: b.joints([PAN], [NAN], [INF], 0), ('velocity [inf] is not finite',)),
    (lambda b: b.joints([PAN], [], [-INF], 0), ('joint_command', 'not finite')),
    (lambda b: b.joints([PAN, LIFT], [0.1, INF], [], 0), ('joint_command', 'not finite')),
    (lambda b: b.joint_array([0.0] * 4, 'position', 0), ('arm_controller/commands', '4 values')),
    (lambda b: b.joint_array([NAN] * 4, 'position', 0), ('arm_controller/commands', '4 values')),
    (lambda b: b.joint_array([NAN] * 4 + [INF], 'velocity', 0), ('commands', 'finite')),
    (lambda b: follow(b, [PAN], [0.0], [[INF]]), ('joint_trajectory', 'not finite')),
    (lambda b: follow(b, [PAN], [1.0], [[NAN]], [[0.1]]), ('velocities of point 0', 'is NaN')),
    (lambda b: follow(b, [PAN], [1.0, 2.0], [[0.1], [NAN]], [[0.2], []]), ('still moves',)),
    (lambda b: follow(b, [PAN], [NAN], [[0.1]]), ('joint_trajectory', 'not finite')),
    (lambda b: follow(b, [PAN], [1.0, INF], [[0.1], [0.2]]), ('time_from_start', 'not finite')),
    (lambda b: follow(b, [PAN, LIFT], [1.0], [[0.1, INF]]), ('joint_trajectory', 'not finite')),
    (lambda b: follow(b, [PAN], [0.0], [[0.1, 0.2]]), ('joint_trajectory', '2 positions for 1')),
    (lambda b: follow(b, [PAN], [0.0], [[]]), ('joint_trajectory', '0 positions for 1')),
    (lambda b: follow(b, [PAN], [1.0], [[0.1]], [[0.0, 0.0]]), ('2 velocities for 1',)),
    (lambda b: follow(b, [PAN], [1.0], [[0.1]], [[INF]]), ('velocities', 'not finite')),
    (lambda b: follow(b, [PAN], [1.0], [[0.1]], [[0.0]], [[INF]]), ('accelerations',)),
    (lambda b: follow(b, [PAN], [1.0], [[0.1]], [[0.2]]),
     ('last point still moves', 'at rest', 'allow_nonzero_velocity_at_trajectory_end')),
    (lambda b: follow(b, ['nose'], [0.0], [[0.1]]), ('joint_trajectory', "'nose'")),
    (lambda b: follow(b, [], [0.0], [[]]), ('joint_trajectory', 'no joint')),
    (lambda b: follow(b, ['nose'], [], []), ('joint_trajectory', "'nose'")),
    (lambda b: follow(b, [PAN], [1.0, 1.0], [[0.1], [0.2]]), ('joint_trajectory', 'increase')),
    (lambda b: follow(b, [PAN], [-1.0], [[0.1]]), ('joint_trajectory', 'increase')),
    (lambda b: follow(b, [PAN], [1.0], [[0.1]], start_ns=1, sim_ns=5 * SECOND_NS),
     ('joint_trajectory', 'ended 4.000 s', 'stamp of 0')),
    (lambda b: follow(b, [PAN], [1.0], [[0.1]], start_ns=1, sim_ns=SECOND_NS + 2),
     ('joint_trajectory', 'ended 0.000 s')),
    (lambda b: follow(b, [PAN], [1.0], [[0.1]], start_ns=1_800_000_000 * SECOND_NS),
     ('joint_trajectory', '1800000000 s', 'use_sim_time', 'stamp of 0')),
    (lambda b: follow(b, [PAN], [0.0] * 10_001, [[0.1]] * 10_001), ('10001 points', '10000')),
]


@pytest.mark.parametrize('send, words', BAD)
def test_bad_input_is_refused_with_topic_and_remedy_and_changes_nothing(buffer, send, words):
    buffer.twist([0.3, 0, 0], [0, 0, 0.2], 0)
    buffer.joints([LIFT], [-1.0], [], 0)
    buffer.joints([ELBOW], [], [0.5], 0)
    follow(buffer, [PAN], [1.0], [[0.4]])
    before = targets(buffer)
    with pytest.raises(SpecError) as error:
        send(buffer)
    for word in words:
        assert word in str(error.value)
    after = targets(buffer)
    assert (buffer.accepted, buffer.rejected, buffer.stale) == (4, 1, 0)
    assert buffer.message == str(error.value)
    for field in ('twist', 'joint_position', 'joint_velocity'):
        np.testing.assert_array_equal(getattr(before, field), getattr(after, field))


def test_a_book_in_a_name_does_not_become_a_book_in_the_message(buffer):
    with pytest.raises(SpecError):
        buffer.joints(['n' * 100_000], [0.1], [], 0)
    assert len(buffer.message) < 600


def test_joint_command_moves_named_joints_only_and_newest_message_wins(buffer):
    buffer.joints([ELBOW, PAN], [], [0.5, -0.25], 0)
    buffer.joints([PAN], [0.7], [], 0)
    out = targets(buffer)
    assert out.joint_position[0, 0] == 0.7 and np.isnan(out.joint_position[0, 1:]).all()
    assert out.joint_velocity[0].tolist() == [0.0, 0.0, 0.5, 0.0, 0.0]


def test_nan_is_no_command_for_a_joint_which_goes_on_as_it_was(buffer):
    """As topic_based_ros2_control writes it while no controller has the other joints."""
    buffer.joints([LIFT], [-1.0], [], 0)
    follow(buffer, [ELBOW], [1.0], [[0.4]])
    buffer.joints(ROBOT.joint_names, [0.7, NAN, NAN, NAN, NAN], [], 0)
    out = targets(buffer)
    assert out.joint_position[0, :2].tolist() == [0.7, -1.0]
    assert np.isfinite(out.joint_position[0, 2]) and np.isnan(out.joint_position[0, 3:]).all()
    buffer.joints(ROBOT.joint_names, [], [NAN, NAN, 0.5, NAN, NAN], 0)
    out = targets(buffer)
    assert out.joint_position[0, :2].tolist() == [0.7, -1.0] and np.isnan(out.joint_position[0, 2])
    assert out.joint_velocity[0].tolist() == [0.0, 0.0, 0.5, 0.0, 0.0]
    assert (buffer.accepted, buffer.rejected, buffer.message) == (4, 0, '')


def test_of_a_position_and_a_velocity_the_one_that_is_no_nan_counts(buffer):
    buffer.joints([PAN, LIFT, ELBOW], [NAN, -1.0, 0.5], [0.3, NAN, 0.1], 0)
    out = targets(buffer)
    assert out.joint_velocity[0].tolist() == [0.3, 0.0, 0.0, 0.0, 0.0]
    assert np.isnan(out.joint_position[0, 0]) and out.joint_position[0, 1] == -1.0
    assert out.joint_position[0, 2] == pytest.approx(HOME[2] - 0.1 * PERIOD_S)


def test_nan_in_an_array_of_all_joints_is_no_command(buffer):
    buffer.joint_array([0.1, -0.9, 0.3, 0.2, 0.01], 'position', 0)
    buffer.joint_array([NAN, NAN, NAN, NAN, 0.02], 'position', 0)
    buffer.joint_array([0.4, NAN, NAN, NAN, NAN], 'velocity', 0)
    out = targets(buffer)
    assert out.joint_position[0, 1:].tolist() == pytest.approx([-0.9, 0.3, 0.2, 0.02])
    assert out.joint_velocity[0].tolist() == [0.4, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize('send', [
    lambda b: b.joints([PAN, LIFT], [NAN, NAN], [], 0),
    lambda b: b.joints([PAN], [NAN], [NAN], 0),
    lambda b: b.joints([], [], [NAN] * 5, 0),
    lambda b: b.joint_array([NAN] * 5, 'velocity', 0),
    lambda b: follow(b, [PAN], [1.0, 2.0], [[NAN], [NAN]], [[NAN], []]),
])
def test_nothing_but_nan_commands_nothing_and_is_counted_nowhere(buffer, send):
    buffer.joints([PAN], [], [0.25], 0)
    follow(buffer, [LIFT], [1.0], [[-1.0]])
    before = targets(buffer)
    send(buffer)
    assert buffer.counts == CommandCounts(accepted=2)
    np.testing.assert_array_equal(targets(buffer).joint_position, before.joint_position)
    np.testing.assert_array_equal(targets(buffer).joint_velocity, before.joint_velocity)


def test_a_joint_with_nan_throughout_is_not_named_by_a_trajectory(buffer):
    buffer.joints([LIFT], [-1.0], [], 0)
    follow(buffer, [LIFT, PAN], [1.0, 2.0], [[NAN, 0.6], [NAN, 0.2]])
    targets(buffer)
    assert path(buffer, [0.5, 1.0, 2.0]) == pytest.approx([0.3, 0.6, 0.2])
    assert path(buffer, [0.5, 2.5], joint=1) == [-1.0, -1.0]


@pytest.mark.parametrize('velocities', [None, [[0.0, NAN], [NAN, 0.0]]])
def test_a_joint_passes_by_a_point_that_has_nan_for_it(buffer, velocities):
    """The pan ends at 1 s; the lift is half way to its only point, at 2 s, by then."""
    follow(buffer, [PAN, LIFT], [1.0, 2.0], [[0.6, NAN], [NAN, -1.0]], velocities)
    targets(buffer)
    middle = targets(buffer, 0, SECOND_NS - PERIOD_NS).joint_position[0, :2]
    assert middle == pytest.approx([0.6, 0.5 * HOME[1] - 0.5])
    end = targets(buffer, 0, 2 * SECOND_NS - PERIOD_NS).joint_position[0, :2]
    assert end == pytest.approx([0.6, -1.0])


def test_a_command_without_names_is_for_all_joints_in_order(buffer):
    """As Isaac Sim's articulation controller takes it."""
    buffer.joints([], [0.1, -0.9, 0.3, 0.2, 0.01], [], 0)
    assert targets(buffer).joint_position[0].tolist() == pytest.approx([0.1, -0.9, 0.3, 0.2, 0.01])
    buffer.joints([], [], [0.1, NAN, 0.0, 0.0, 0.0], 0)
    out = targets(buffer)
    assert out.joint_velocity[0, 0] == 0.1 and out.joint_position[0, 1] == -0.9
    assert buffer.accepted == 2


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
    assert out.joint_velocity[0, 1] == -ROBOT.joints[1].max_speed
    assert buffer.clipped == 2 and LIFT in buffer.message


@pytest.mark.parametrize('velocity', [0.3, -0.3])
def test_position_with_velocity_goes_there_no_faster(buffer, velocity):
    buffer.joints([PAN, LIFT], [0.07, -1.0], [velocity, 0.0], 0)
    steps = [targets(buffer, 0, n * PERIOD_NS).joint_position[0] for n in range(5)]
    assert [step[0] for step in steps] == pytest.approx([0.02, 0.04, 0.06, 0.07, 0.07])
    assert [step[1] for step in steps] == [-1.0] * 5  # 0 is no limit beyond the robot's own


def test_a_step_that_is_encoded_twice_or_in_the_middle_goes_on_from_where_it_was(buffer):
    buffer.joints([PAN], [1.0], [0.3], 0)
    steps = [targets(buffer, 0, n * PERIOD_NS, num_frames=2).joint_position[:, 0]
             for n in (0, 0, 1, 1, 3, 9)]
    assert np.array(steps) == pytest.approx(
        np.array([[0.02, 0.04], [0.02, 0.04], [0.04, 0.06], [0.04, 0.06], [0.08, 0.1],
                  [0.12, 0.14]]))  # nobody asked for steps 5 to 8: it waited at 0.1


@pytest.mark.parametrize('interface', ['position', 'velocity'])
def test_joint_array_is_in_world_order(buffer, interface):
    values = [0.1, -0.9, 0.3, 0.2, 0.01]
    buffer.joint_array(values, interface, 0)
    out = targets(buffer)
    assert getattr(out, f'joint_{interface}')[0].tolist() == pytest.approx(values)


def test_trajectory_runs_in_sim_time_from_where_the_joint_is(buffer):
    follow(buffer, [PAN], [1.0, 2.0], [[0.6], [0.2]], sim_ns=10 * SECOND_NS)
    targets(buffer, 0, 10 * SECOND_NS)
    assert path(buffer, [10.0, 10.5, 11.0, 11.5, 12.0, 12.5, 13.0]) == pytest.approx(
        [0.0, 0.3, 0.6, 0.4, 0.2, 0.2, 0.2])
    assert targets(buffer, 0, 13 * SECOND_NS).valid_until_ns == 0


def test_trajectory_without_stamp_starts_with_the_first_step_that_follows_it(buffer):
    """A joint that moves on until then is followed from where it gets to."""
    follow(buffer, [PAN], [1.0], [[0.6]], sim_ns=10 * SECOND_NS)
    current = [0.4, *HOME[1:]]
    targets(buffer, 0, 11 * SECOND_NS, current=current)
    assert path(buffer, [11.5, 12.0]) == pytest.approx([0.5, 0.6])


def test_trajectory_frames_of_one_step_are_sampled_each_at_its_time(buffer):
    follow(buffer, [PAN], [4 * PERIOD_NS / 1e9], [[0.4]])
    out = targets(buffer, num_frames=4)
    assert out.joint_position[:, 0] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert np.isnan(out.joint_position[:, 1:]).all()


def in_motion(buffer, *points, **when):
    """Send the pan (time, position, velocity) as MoveIt Servo does: the last one still moves."""
    times_s, positions, velocities = zip(*points)
    buffer.trajectory([PAN], times_s, [[p] for p in positions], [[v] for v in velocities],
                      policy_frequency_hz=10.0, may_end_in_motion=True,
                      **{'start_ns': 0, 'sim_ns': 0, **when})


def test_a_trajectory_that_may_end_in_motion_stops_at_its_last_point(buffer):
    in_motion(buffer, (1.0, 0.6, 0.3))
    targets(buffer)
    assert path(buffer, [1.0, 1.0 + PERIOD_S, 2.0]) == pytest.approx([0.6, 0.6, 0.6])
    assert (buffer.accepted, buffer.rejected) == (1, 0)
    assert targets(buffer, 0, 3 * SECOND_NS).valid_until_ns == 0


def test_one_that_begins_where_another_ends_in_motion_goes_on_at_that_speed(buffer):
    in_motion(buffer, (0.0, 0.0, 0.4), (1.0, 0.4, 0.4))
    targets(buffer)
    in_motion(buffer, (1.0, 0.8, 0.4), start_ns=SECOND_NS)
    assert path(buffer, [0.5, 1.0, 1.25, 1.5]) == pytest.approx([0.2, 0.4, 0.5, 0.6])


@pytest.mark.parametrize('ahead_s, has_stamp', [
    ([0.034], False),  # one point, as in Humble
    ([0.0, 0.034, 0.068, 0.102], True),  # a window that moves on, as from Jazzy on
])
def test_servo_drives_a_joint(buffer, ahead_s, has_stamp):
    """0.3 rad/s, told every 34 ms while the newest frame is up to 67 ms old."""
    reached, sent_s = [], 0.0
    for sim_ns in range(0, 15 * PERIOD_NS, PERIOD_NS):
        while sent_s * 1e9 < sim_ns + PERIOD_NS:
            in_motion(buffer, *((s, 0.3 * (sent_s + s), 0.3) for s in ahead_s), sim_ns=sim_ns,
                      start_ns=round(sent_s * 1e9) * has_stamp)
            sent_s += 0.034
        reached.append(targets(buffer, 0, sim_ns).joint_position[0, 0])
    late = 0.3 * PERIOD_S * np.arange(1, 16) - reached
    assert (np.diff(reached) > 0.0).all() and np.abs(late).max() <= 0.3 * PERIOD_S
    assert buffer.rejected == 0


def test_trajectory_positions_are_limited_and_counted(buffer):
    follow(buffer, [PAN], [1.0], [[9.0]])
    targets(buffer)
    assert path(buffer, [1.0]) == [ROBOT.joints[0].high]
    assert buffer.clipped == 1 and PAN in buffer.message


def test_a_cubic_that_swings_out_stays_inside_the_limits(buffer):
    follow(buffer, [PAN], [1.0, 2.0], [[1.1], [1.1]], [[1.5], [0.0]])
    targets(buffer)
    assert path(buffer, [1.3]) == [ROBOT.joints[0].high]


def test_replacement_follows_the_old_plan_until_the_new_one_starts(buffer):
    """Old: 0 to 1 in 2 s. New from t = 1 s: back to 0.1 at t = 2 s."""
    follow(buffer, [PAN], [2.0], [[1.0]])
    targets(buffer)
    follow(buffer, [PAN], [1.0], [[0.1]], start_ns=SECOND_NS)
    assert path(buffer, [0.5, 1.0, 1.5, 2.0, 3.0]) == pytest.approx([0.25, 0.5, 0.3, 0.1, 0.1])


def test_replacement_that_starts_now_bridges_from_the_old_plan(buffer):
    follow(buffer, [PAN], [2.0], [[1.0]])
    targets(buffer)
    follow(buffer, [PAN], [1.0], [[0.1]], sim_ns=SECOND_NS)
    targets(buffer, 0, SECOND_NS)  # where the joint really is does not matter to a running plan
    assert path(buffer, [1.5, 2.0]) == pytest.approx([0.3, 0.1])


def test_points_in_the_past_are_dropped(buffer):
    """At t = 1.5 s the points for 0.5 s and 1 s are past; the bridge leads to the third one."""
    follow(buffer, [PAN], [0.5, 1.0, 2.0], [[0.9], [0.8], [0.4]], start_ns=1, sim_ns=SECOND_NS)
    targets(buffer, 0, 3 * SECOND_NS // 2)
    assert path(buffer, [1.5, 1.75, 2.0]) == pytest.approx([0.0, 0.2, 0.4])


def test_points_that_are_all_past_when_a_step_comes_leave_the_last_one(buffer):
    follow(buffer, [PAN], [0.5, 1.0], [[0.9], [0.8]], start_ns=1)
    out = targets(buffer, 0, 5 * SECOND_NS)
    assert out.joint_position[0, 0] == 0.8 and out.valid_until_ns == 0


def test_joints_a_trajectory_does_not_name_go_on_with_their_plan(buffer):
    follow(buffer, [PAN, LIFT], [2.0], [[1.0, -1.3]])
    targets(buffer)
    follow(buffer, [PAN], [1.0], [[0.0]], sim_ns=SECOND_NS)
    targets(buffer, 0, SECOND_NS)
    assert path(buffer, [1.5, 2.0], joint=0) == pytest.approx([0.25, 0.0])
    assert path(buffer, [1.5, 2.0], joint=1) == pytest.approx([-1.2, -1.3])


def test_of_trajectories_that_come_before_one_step_the_last_is_followed(buffer):
    for goal in (0.9, 0.7, 0.5):
        follow(buffer, [PAN], [1.0], [[goal]])
    follow(buffer, [PAN], [1.0], [[0.1]], start_ns=SECOND_NS)
    targets(buffer)
    assert path(buffer, [0.5, 1.0, 1.5, 2.0]) == pytest.approx([0.25, 0.5, 0.3, 0.1])


def test_a_joint_under_another_command_holds_until_its_trajectory_starts(buffer):
    buffer.joints([PAN], [], [0.3], 0)
    follow(buffer, [PAN], [1.0], [[0.4]], start_ns=SECOND_NS)
    out = targets(buffer)
    assert (out.joint_position[0, 0], out.joint_velocity[0, 0]) == (0.0, 0.0)
    assert path(buffer, [1.0, 1.5, 2.0]) == pytest.approx([0.0, 0.2, 0.4])


@pytest.mark.parametrize('names, stops', [((), [PAN, LIFT]), ((PAN,), [PAN])])
def test_trajectory_without_points_stops_joints_where_they_are(buffer, names, stops):
    follow(buffer, [PAN, LIFT], [1.0], [[0.5, -1.2]])
    targets(buffer)
    follow(buffer, names, [], [])
    out = targets(buffer, 0, SECOND_NS // 2)
    held = [name for name, p in zip((PAN, LIFT), out.joint_position[0]) if np.isnan(p)]
    assert held == stops and not out.joint_velocity.any()
    assert (buffer.accepted, buffer.rejected) == (2, 0)


def test_joint_command_takes_a_joint_out_of_a_trajectory(buffer):
    follow(buffer, [PAN, LIFT], [1.0], [[0.5, -1.2]])
    buffer.joints([PAN], [], [0.1], 0)
    out = targets(buffer, 0, 0)
    assert np.isnan(out.joint_position[0, 0]) and out.joint_velocity[0, 0] == 0.1
    assert path(buffer, [1.0], joint=1) == pytest.approx([-1.2])


def test_a_chunk_without_timing_comes_to_each_point_at_the_policy_frequency(buffer):
    points = [[0.1], [0.3], [0.2], [0.25]]
    follow(buffer, [PAN], [0.0] * 4, points, hz=10.0)
    targets(buffer)
    assert path(buffer, [0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx([0.1, 0.3, 0.2, 0.25, 0.25])


def test_a_flood_of_trajectories_for_later_is_refused_before_it_fills_the_memory(buffer):
    points = [[0.1]] * 4000
    times_s = [1.0 + n for n in range(4000)]
    for start_s in (10_000, 20_000):
        follow(buffer, [PAN], times_s, points, start_ns=start_s * SECOND_NS)
    with pytest.raises(SpecError, match='8000 points come before its start'):
        follow(buffer, [PAN, LIFT], times_s, [[0.1, -1.0]] * 4000, start_ns=30_000 * SECOND_NS)
    follow(buffer, [PAN], times_s, points)  # one that replaces all of them is welcome
    assert (buffer.accepted, buffer.rejected) == (3, 1)


def test_points_that_a_joint_has_passed_do_not_count_against_the_next_trajectory(buffer):
    """At 4000 s those for 4000 s to 6000 s are left, and 7999 more make 10000."""
    times_s, later = [1.0 + n for n in range(8000)], dict(start_ns=10_000 * SECOND_NS,
                                                          sim_ns=4000 * SECOND_NS)
    follow(buffer, [PAN], times_s[:6000], [[0.1]] * 6000)
    targets(buffer)
    with pytest.raises(SpecError, match='2001 points come before its start'):
        follow(buffer, [PAN], times_s, [[0.1]] * 8000, **later)
    follow(buffer, [PAN], times_s[1:], [[0.1]] * 7999, **later)
    assert (buffer.accepted, buffer.rejected) == (2, 1)


def test_trajectories_for_now_replace_each_other_however_late_in_a_run(buffer):
    """6000 points wait at a time; 4000 for later make the 10000 that are allowed."""
    times_s, now_ns = [1.0 + n for n in range(6000)], 10 * SECOND_NS
    for _ in range(3):
        follow(buffer, [PAN], times_s, [[0.1]] * 6000, sim_ns=now_ns)
    follow(buffer, [PAN], times_s[:4000], [[0.1]] * 4000, start_ns=20_000 * SECOND_NS,
           sim_ns=now_ns)
    assert (buffer.accepted, buffer.rejected) == (4, 0)


@pytest.mark.parametrize('velocity, middle', [
    (0.8, -0.1), (-0.8, 0.1),  # half a second before, an eighth of it away
    (9.0, -0.1875), (-9.0, 0.1875)])  # as if it were 1.5 rad/s, the largest speed
def test_a_trajectory_passes_a_point_with_its_velocity_within_the_limits(buffer, velocity, middle):
    follow(buffer, [PAN], [1.0, 2.0], [[0.0], [0.0]], [[velocity], [0.0]])
    targets(buffer)
    assert path(buffer, [0.5, 1.0, 1.5]) == pytest.approx([middle, 0.0, -middle])


def test_base_velocity_ramps_frame_by_frame_and_keeps_its_state():
    """1 m/s^2 and frames of 0.1 s: 0.1 m/s more per frame, also down to a stop."""
    spec = replace(SIM_SPEC, limits=Limits(linear_acceleration_mps2=1.0))
    buffer = CommandBuffer(spec)
    tenth_ns = SECOND_NS // 10

    def speeds(sim_tenths, num_frames):
        sim_ns = sim_tenths * tenth_ns
        return targets(buffer, sim_ns, sim_ns, num_frames, tenth_ns)

    buffer.twist([0.35, 0, 0], [0, 0, 1.0], 0)
    first = speeds(0, 3)
    assert first.twist[:, 0] == pytest.approx([0.1, 0.2, 0.3])
    assert first.twist[:, 2].tolist() == [1.0] * 3
    assert first.valid_until_ns == 3 * tenth_ns  # the ramp goes on
    assert speeds(0, 3).twist[:, 0] == pytest.approx([0.1, 0.2, 0.3])
    assert speeds(3, 2).twist[:, 0] == pytest.approx([0.35, 0.35])
    assert speeds(6, 4).twist[:, 0] == pytest.approx([0.25, 0.15, 0.05, 0.0])  # silent
    buffer.twist([0.35, 0, 0], [0, 0, 0.0], 10 * tenth_ns)
    speeds(10, 2)
    buffer.clear()
    assert not speeds(0, 2).twist.any()


def test_limits_of_the_profile_narrow_those_of_the_engine():
    spec = replace(SPEC, limits=Limits(linear_velocity_mps=0.5, angular_velocity_radps=9.0))
    buffer = CommandBuffer(spec)
    for sign, speed in ((1.0, 0.5), (-1.0, ROBOT.drive.linear_low_mps)):
        buffer.twist([sign * 9.0, 0, 0], [0, 0, 9.0], 0)
        assert targets(buffer).twist.tolist() == [[speed, 0.0, ROBOT.drive.angular_max_radps]]


@pytest.mark.parametrize('speed', [0.25, -0.25])
def test_a_velocity_that_was_reached_holds_for_longer_than_the_step(speed):
    """1 rad/s^2 and frames of 0.1 s: 0.25 rad/s from the third frame on, told until 0.5 s."""
    spec = replace(SPEC, limits=Limits(joint_acceleration=1.0))
    buffer, tenth_ns = CommandBuffer(spec), SECOND_NS // 10
    buffer.joints([PAN], [], [speed], 0)
    assert targets(buffer, 0, 0, 2, tenth_ns).valid_until_ns == 2 * tenth_ns  # it speeds up
    out = targets(buffer, 0, 0, 3, tenth_ns)
    assert out.joint_velocity[:, 0] == pytest.approx(np.sign(speed) * np.array([0.1, 0.2, 0.25]))
    assert out.valid_until_ns == 6 * tenth_ns  # a frame that begins in time is finished


def test_joint_acceleration_limits_velocities_and_the_way_to_a_position():
    spec = replace(SPEC, limits=Limits(joint_acceleration=1.0))
    buffer, tenth_ns = CommandBuffer(spec), SECOND_NS // 10
    buffer.joints([PAN], [], [0.25], 0)
    out = targets(buffer, 0, 0, 4, tenth_ns)
    assert out.joint_velocity[:, 0] == pytest.approx([0.1, 0.2, 0.25, 0.25])
    buffer.clear()
    buffer.joints([PAN], [0.06], [], 0)  # up to 0.2 rad/s in two frames, down again in two
    out = targets(buffer, 0, 0, 6, tenth_ns)
    steps = np.diff([0.0, *out.joint_position[:, 0]]) / 0.1
    assert steps == pytest.approx([0.1, 0.2, 0.2, 0.1, 0.0, 0.0])
    assert out.valid_until_ns == 0


def test_a_joint_too_quick_to_stop_before_its_limit_stops_there():
    """At 1.5 rad/s and 1 rad/s^2 it needs 1.1 rad to stop; 0.4 rad are left."""
    spec = replace(SPEC, limits=Limits(joint_acceleration=1.0))
    buffer, tenth_ns = CommandBuffer(spec), SECOND_NS // 10
    buffer.joints([PAN], [], [1.5], 0)
    targets(buffer, 0, 0, 20, tenth_ns)
    buffer.joints([PAN], [1.0], [], 0)
    current = [0.8, *HOME[1:]]
    out = targets(buffer, 0, 20 * tenth_ns, 30, tenth_ns, current).joint_position[:, 0]
    assert out.max() == ROBOT.joints[0].high
    assert out[-1] == pytest.approx(1.0)


def test_a_trajectory_that_is_too_quick_is_followed_as_well_as_limits_allow():
    spec = replace(SPEC, limits=Limits(joint_acceleration=2.0))
    buffer = CommandBuffer(spec)
    follow(buffer, [PAN], [0.4], [[1.0]])
    place = np.array([0.0, *targets(buffer, 0, 0, 60).joint_position[:, 0]])
    speed = np.diff(place) / PERIOD_S
    assert np.abs(speed).max() <= ROBOT.joints[0].max_speed + 1e-9
    assert np.abs(np.diff([0.0, *speed, 0.0])).max() <= 2.0 * PERIOD_S + 1e-9
    assert place.max() <= 1.0 + 1e-9 and place[-1] == pytest.approx(1.0)


def test_robot_description_tightens_joint_limits():
    robot = {name: JointLimits() for name in ROBOT.joint_names}
    robot.update({PAN: JointLimits(-0.5, 9.0, 0.3), 'wheel_joint': JointLimits()})
    spec = SPEC.within(robot)
    assert (spec.joint_low[0], spec.joint_high[0]) == (-0.5, ROBOT.joints[0].high)
    assert spec.joint_low[1:] == SPEC.joint_low[1:] and spec.joint_high[1:] == SPEC.joint_high[1:]
    buffer = CommandBuffer(spec)
    buffer.joints([PAN], [-2.0], [], 0)
    steps = [targets(buffer, 0, n * PERIOD_NS).joint_position[0, 0] for n in range(30)]
    assert steps[:2] == pytest.approx([-0.02, -0.04]) and steps[-1] == pytest.approx(-0.5)
    buffer.joints([PAN], [], [1.0], 0)
    assert targets(buffer).joint_velocity[0, 0] == 0.3


@pytest.mark.parametrize('robot, words', [
    ({PAN: JointLimits()}, f'no movable joint {LIFT}.*it has {PAN}'),
    ({**{n: JointLimits() for n in ROBOT.joint_names}, PAN: JointLimits(2.0, 3.0)},
     f'{PAN} has no position.* 2 to 1.2'),
])
def test_robot_description_that_does_not_fit_is_refused(robot, words):
    with pytest.raises(SpecError, match=words):
        SPEC.within(robot)


def test_clear_forgets_commands_and_keeps_counters(buffer):
    buffer.twist([0.3, 0, 0], [0, 0, 0], 0)
    follow(buffer, [PAN], [1.0], [[0.5]])
    buffer.joints([LIFT], [-1.0], [0.1], 0)
    buffer.clear()
    out = targets(buffer)
    assert not out.twist.any() and np.isnan(out.joint_position).all()
    assert out.valid_until_ns == 0 and buffer.accepted == 3


def test_counting_goes_on_in_the_buffer_of_another_world(buffer):
    buffer.twist([9.0, 0, 0], [0, 0, 0], 0)
    with pytest.raises(SpecError):
        buffer.joints([], [], [], 0)
    other = CommandBuffer(SIM_SPEC, buffer.counts)
    assert other.counts == buffer.counts == CommandCounts(1, 1, 1, 0, buffer.message, 0)


@pytest.mark.parametrize('changes, words', [
    (dict(action=ActionLayout((ActionDim('base.linear.x', 'm/s', -1, 1),))), 'base.angular.z'),
    (dict(timeout_s=0.0), 'cmd_timeout_s=0.0'),
    (dict(joint_low=(0.0,)), 'no limits each'),
    (dict(joint_low=(NAN,) * 5), 'low <= high'),
])
def test_spec_refuses_what_cannot_be_commanded(changes, words):
    with pytest.raises(SpecError, match=words):
        replace(SPEC, **changes)


def test_negative_limits_are_refused():
    with pytest.raises(SpecError, match='joint_acceleration=-1'):
        Limits(joint_acceleration=-1.0)


def test_a_problem_is_told_as_long_late_in_a_run(buffer):
    with pytest.raises(SpecError):
        buffer.twist([NAN, 0, 0], [0, 0, 0], 100 * SECOND_NS)
    for seconds, told in ((100, True), (100, True), (101, True), (104, True), (106, False)):
        targets(buffer, seconds * SECOND_NS)
        assert bool(buffer.message) is told, seconds


def test_a_trajectory_may_start_soon_late_in_a_run(buffer):
    """How long it waits is what counts, not the time of day."""
    now_ns = 100 * 24 * 3600 * SECOND_NS
    follow(buffer, [PAN], [1.0], [[0.5]], start_ns=now_ns + SECOND_NS, sim_ns=now_ns)
    assert buffer.accepted == 1


@pytest.mark.parametrize('asked', [-99.0, 99.0])
def test_a_limited_joint_velocity_tells_its_range(buffer, asked):
    speed = SPEC.joint_speed[1]
    buffer.joints([LIFT], [], [asked], 0)
    assert f'limited to {-speed:g} to {speed:g}' in buffer.message


def test_a_joint_on_its_way_to_a_position_is_not_told_a_velocity(buffer):
    buffer.joints([PAN], [0.5], [0.3], 0)
    out = targets(buffer, num_frames=2)
    assert out.joint_velocity[:, 0].tolist() == [0.0, 0.0]
    assert out.joint_position[:, 0] == pytest.approx([HOME[0] + 0.3 * PERIOD_S * n
                                                      for n in (1, 2)])


def test_a_base_that_does_not_strafe_has_no_speed_sideways(buffer):
    assert SPEC.twist_range[1] == (0.0, 0.0)
    actions = np.arange(56.0).reshape(2, 4, 7)
    twists = twists_of(actions, SPEC.action.names)
    assert twists.shape == (2, 4, 3) and not twists[..., 1].any()
    np.testing.assert_array_equal(twists[..., [0, 2]], actions[..., :2])
