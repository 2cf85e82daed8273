# SPDX-License-Identifier: Apache-2.0
"""Watching over a trajectory: tolerances, progress and result codes, worked out by hand."""
from math import inf, nan

from lingbot_world_ros.actions.command_spec import CommandSpec
from lingbot_world_ros.actions.commands import CommandBuffer
from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.actions.trajectory import LINEAR, Plan
from lingbot_world_ros.actions.trajectory_goal import (Code, Constraints, Tolerance, Tolerances,
                                                       TrajectoryGoal)
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.robots.load import load_robot
import pytest

ROBOT = load_robot()
NAMES = ROBOT.joint_names
PAN, LIFT = NAMES[:2]
SECOND_NS = 1_000_000_000
PERIOD_NS = SECOND_NS // 10
NONE = Tolerance()


def goal_of(path=NONE, goal=NONE, goal_time_s=0.0, times_s=(1, 2), start_ns=0):
    """Make a goal of one joint that goes from 0 at the start through 1 after 1 s to 1 at 2 s."""
    made = TrajectoryGoal((PAN,), tuple(time_s * SECOND_NS for time_s in times_s), start_ns,
                          Tolerances((path,), (goal,), goal_time_s)).accepted(1, NAMES)
    made.plan(lambda column: Plan([0, SECOND_NS, 2 * SECOND_NS],
                                  [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 0.0, 0.0)],
                                  [LINEAR, LINEAR]), 0)
    return made


def judge(goal, time_s, position, velocity=0.0):
    """Return code and text of one moment."""
    progress = goal.observe(round(time_s * SECOND_NS), [position], [velocity])
    return progress.code, progress.text


def test_nothing_is_told_before_a_step_has_followed_it():
    goal = TrajectoryGoal((PAN,), (SECOND_NS,), 0, Tolerances((NONE,), (NONE,), 0.0))
    assert not goal.is_planned and goal.observe(5, [0.0], [0.0]) is None
    goal.accepted(1, NAMES).plan(lambda column: Plan([7], [(0.0, 0.0, 0.0)], []), 7)
    assert goal.is_planned and goal.observe(7, [0.0], [0.0]) is None  # of the step before
    assert goal.observe(8, [0.0], [0.0]).time_ns == 1


def test_progress_is_in_the_order_of_the_goal():
    goal = TrajectoryGoal((LIFT, PAN), (SECOND_NS,), 0, Tolerances((NONE,) * 2, (NONE,) * 2, 0.0))
    goal.accepted(3, NAMES).plan(lambda column: Plan([0], [(float(column), 0.0, 0.0)], []), 0)
    progress = goal.observe(SECOND_NS // 2, [0.1, 0.2], [0.3, 0.4])
    assert goal.number == 3 and goal.columns == (1, 0)
    assert [state[0] for state in progress.desired] == [1.0, 0.0]
    assert progress.actual == [(0.2, 0.4), (0.1, 0.3)] and progress.point == 0


@pytest.mark.parametrize('time_s, index', [(0.5, 0), (1.0, 1), (1.5, 1), (2.0, 2), (9.0, 2)])
def test_the_index_is_that_of_the_point_ahead(time_s, index):
    assert goal_of().observe(round(time_s * SECOND_NS), [0.0], [0.0]).point == index


def test_time_counts_from_the_stamp_or_from_the_first_step():
    assert goal_of(start_ns=SECOND_NS).observe(SECOND_NS // 2, [0.0], [0.0]).time_ns < 0
    assert goal_of().observe(SECOND_NS // 2, [0.0], [0.0]).time_ns == SECOND_NS // 2


@pytest.mark.parametrize('path, position, velocity, code', [
    (NONE, 9.0, 9.0, None), (Tolerance(0.1), 0.59, 9.0, None),
    (Tolerance(0.1), 0.61, 0.0, Code.PATH_TOLERANCE_VIOLATED),
    (Tolerance(0.1), 0.39, 0.0, Code.PATH_TOLERANCE_VIOLATED),
    (Tolerance(0.0, 0.5), 9.0, 1.4, None),
    (Tolerance(0.0, 0.5), 0.5, 0.4, Code.PATH_TOLERANCE_VIOLATED)])
def test_path_tolerances_hold_on_the_way(path, position, velocity, code):
    assert judge(goal_of(path=path), 0.5, position, velocity)[0] == code


def test_a_path_tolerance_says_which_joint_is_off_and_by_how_much():
    text = judge(goal_of(path=Tolerance(0.1)), 0.5, 0.75)[1]
    assert text == f'position of {PAN} is 0.75, 0.25 off; path tolerance 0.1.'


def test_path_tolerances_end_where_the_trajectory_does_but_for_the_first_moment():
    goal = goal_of(path=Tolerance(0.1))
    assert judge(goal, 1.9, 1.0) == (None, '')
    assert judge(goal, 2.0, 5.0)[0] == Code.SUCCESSFUL
    assert judge(goal_of(path=Tolerance(0.1)), 2.0, 5.0)[0] == Code.PATH_TOLERANCE_VIOLATED


def test_goal_tolerances_have_their_time():
    goal = goal_of(goal=Tolerance(0.1), goal_time_s=0.5)
    assert judge(goal, 1.9, 9.0)[0] is None and judge(goal, 2.5, 9.0)[0] is None
    code, text = judge(goal, 2.6, 9.0)
    assert code == Code.GOAL_TOLERANCE_VIOLATED
    assert 'goal tolerance 0.1' in text and '0.600 s after its end' in text
    assert judge(goal_of(goal=Tolerance(0.1), goal_time_s=0.5), 2.6, 1.05)[0] == Code.SUCCESSFUL
    assert judge(goal_of(goal=Tolerance(0.1)), 1e6, 9.0)[0] is None  # for ever


def test_goals_take_the_defaults_change_them_and_erase_them():
    constraints = Constraints(trajectory=0.1, goal=0.2, goal_time_s=3.0)
    assert constraints.tolerances([PAN, LIFT], [], [], 0.0) == Tolerances(
        (Tolerance(0.1),) * 2, (Tolerance(0.2),) * 2, 3.0)
    asked = constraints.tolerances([PAN, LIFT], [(LIFT, 0.5, 0.0)], [(PAN, -1.0, 0.7)], -1.0)
    assert asked == Tolerances((Tolerance(0.1), Tolerance(0.5)),
                               (Tolerance(0.0, 0.7), Tolerance(0.2)), 0.0)


@pytest.mark.parametrize('name, position, goal_time_s', [
    ('nose', 0.1, 0.0), (PAN, -0.5, 0.0), (PAN, nan, 0.0), (PAN, inf, 0.0), (PAN, 0.1, -2.0)])
def test_tolerances_that_mean_nothing_are_refused(name, position, goal_time_s):
    with pytest.raises(SpecError, match='tolerance'):
        Constraints().tolerances([PAN], [(name, position, 0.0)], [], goal_time_s)


@pytest.fixture
def buffer():
    return CommandBuffer(CommandSpec(
        robot_action_layout(ROBOT), NAMES, tuple(ROBOT.joint_array('low')),
        tuple(ROBOT.joint_array('high')), 0.5))


def follow(buffer, names, positions, times_s=(1.0,), hz=10.0):
    buffer.trajectory(names, times_s, positions, start_ns=0, sim_ns=0, policy_frequency_hz=hz,
                      topic='jtc')


def test_every_joint_knows_the_command_that_it_follows(buffer):
    assert buffer.claim(0) == (0, '')
    follow(buffer, [PAN, LIFT], [[0.1, nan]])
    buffer.joints([NAMES[2]], [1.0], [], 0, topic='joints')
    assert [buffer.claim(i) for i in range(3)] == [(1, 'jtc'), (0, ''), (2, 'joints')]
    follow(buffer, [], [], times_s=())
    assert [buffer.claim(i)[0] for i in range(5)] == [3] * 5
    buffer.clear()
    assert buffer.claim(0) == (0, '')


def test_joints_of_one_command_hold_and_the_others_go_on(buffer):
    follow(buffer, [PAN, LIFT], [[0.1, -0.9]])
    buffer.joints([LIFT], [-0.5], [], 0)
    buffer.targets(0, 0, 1, PERIOD_NS, ROBOT.joint_array('home'))
    counts = buffer.counts
    buffer.hold(1)
    assert buffer.counts == counts  # no command
    position = buffer.targets(0, PERIOD_NS, 1, PERIOD_NS).joint_position[0]
    assert position[0] != position[0] and position[1] == -0.5  # NaN is no position to go to


def test_the_plan_of_a_joint_is_its_way_and_then_its_end(buffer):
    follow(buffer, [PAN], [[0.1]])
    buffer.targets(0, 0, 1, PERIOD_NS, ROBOT.joint_array('home'))
    assert buffer.plan(0, 0).at(SECOND_NS // 2)[0] == pytest.approx(0.05)
    buffer.targets(0, SECOND_NS, 1, PERIOD_NS)
    assert buffer.plan(0, SECOND_NS) == Plan([SECOND_NS], [(0.1, 0.0, 0.0)], [])


def test_positions_out_of_reach_can_be_refused_and_rounded_ones_are_not(buffer):
    high = ROBOT.joint_array('high')[0]
    for names, positions in (([PAN], [[high + 1e-4]]), (['nose'], [[99.0]]), ([PAN], [[nan]])):
        buffer.require_within(names, positions, 'jtc')
    assert buffer.rejected == 0
    with pytest.raises(SpecError, match=f'jtc: refused, position 9 of {PAN} is beyond'):
        buffer.require_within([PAN], [[0.0], [9.0]], 'jtc')
    assert buffer.rejected == 1


def test_points_without_times_are_a_chunk_only_where_chunks_are_taken(buffer):
    with pytest.raises(SpecError, match='increase from point to point[.]'):
        follow(buffer, [PAN], [[0.1], [0.2]], times_s=(0.0, 0.0), hz=0.0)
    follow(buffer, [PAN], [[0.1], [0.2]], times_s=(0.0, 0.0))
