# SPDX-License-Identifier: Apache-2.0
"""Trajectories: polynomials and splines by hand, splices, and the pacing of velocities."""
from lingbot_world_ros.actions.limits import arriving_velocity, MotionLimiter
from lingbot_world_ros.actions.trajectory import (check_points, CUBIC, interpolate, LINEAR, Plan,
                                                  Points, QUINTIC, splice, spline_slopes)
from lingbot_world_ros.errors import SpecError
import numpy as np
import pytest

SECOND_NS = 1_000_000_000


def points(times_s, positions, velocities=None, accelerations=None, start_s=0.0, spacing_s=0.0):
    """Make the points of one joint."""
    nothing = (None,) * len(times_s)
    return Points(round(start_s * 1e9), tuple(round(t * 1e9) for t in times_s), tuple(positions),
                  tuple(velocities or nothing), tuple(accelerations or nothing),
                  round(spacing_s * 1e9))


def states(plan, times_s):
    return [plan.at(round(t * 1e9)) for t in times_s]


@pytest.mark.parametrize('order, state_a, state_b, span_s, part, wanted', [
    (LINEAR, (1.0, 9.0, 9.0), (3.0, 9.0, 9.0), 4.0, 0.25, (1.5, 0.5, 0.0)),
    # From rest to rest a cubic is 3 s^2 - 2 s^3; halfway its speed is 1.5 times the mean.
    (CUBIC, (0.0, 0.0, 9.0), (1.0, 0.0, 9.0), 2.0, 0.5, (0.5, 0.75, 0.0)),
    (CUBIC, (0.0, 1.0, 9.0), (2.0, 1.0, 9.0), 2.0, 0.5, (1.0, 1.0, 0.0)),
    # A quintic from rest to rest is 10 s^3 - 15 s^4 + 6 s^5.
    (QUINTIC, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), 2.0, 0.5, (0.5, 0.9375, 0.0)),
    # p = t^2 / 2 has velocity t and acceleration 1 everywhere.
    (QUINTIC, (0.0, 0.0, 1.0), (2.0, 2.0, 1.0), 2.0, 0.5, (0.5, 1.0, 1.0)),
])
def test_segments_by_hand(order, state_a, state_b, span_s, part, wanted):
    assert interpolate(order, state_a, state_b, span_s, part) == pytest.approx(wanted)


@pytest.mark.parametrize('order', [CUBIC, QUINTIC])
def test_segments_meet_the_states_at_their_ends(order):
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.normal(size=(2, 3))
        for state, part in ((a, 0.0), (b, 1.0)):
            got = interpolate(order, a, b, 0.7, part)
            given = 3 if order == QUINTIC else 2
            np.testing.assert_allclose(got[:given], state[:given], atol=1e-9)


@pytest.mark.parametrize('velocities, accelerations, order', [
    (None, None, LINEAR), ((0.2, 0.0), None, CUBIC), ((0.2, 0.0), (0.1, 0.0), QUINTIC),
    (None, (0.1, 0.0), LINEAR)])
def test_what_the_points_give_chooses_the_segment(velocities, accelerations, order):
    plan = splice(None, points([1.0, 2.0], [0.5, 0.7], velocities, accelerations), 0, 0.1)
    assert plan.orders == [order, order]
    assert plan.at(0)[0] == 0.1 and plan.at(plan.end_ns) == (0.7, 0.0, 0.0)
    assert plan.at(SECOND_NS)[:2] == pytest.approx((0.5, 0.2))


def test_points_that_differ_in_what_they_give_are_joined_by_what_both_have():
    plan = splice(None, points([1.0, 2.0, 3.0], [0.5, 0.7, 0.9], (0.1, None, 0.0)), 0, 0.0)
    assert plan.orders == [CUBIC, LINEAR, LINEAR]


def test_first_point_at_the_start_is_a_jump_and_no_bridge():
    plan = splice(None, points([0.0, 1.0], [0.5, 0.7]), 4 * SECOND_NS, 0.1)
    assert [p for p, *_ in states(plan, [3.9, 4.0, 4.5, 5.0])] == pytest.approx(
        [0.1, 0.5, 0.6, 0.7])


def test_a_splice_keeps_position_velocity_and_acceleration_of_the_old_plan():
    old = splice(None, points([2.0], [1.0], (0.0,), (0.0,)), 0, 0.0)
    before = old.at(SECOND_NS - 1)
    new = splice(old, points([1.0], [0.0], (0.0,), (0.0,)), SECOND_NS, 9.9)
    np.testing.assert_allclose(new.at(SECOND_NS), before, atol=1e-8)
    assert new.orders[-1] == QUINTIC and new.at(2 * SECOND_NS) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize('order_of', [(None, None), ((0.0,), None), ((0.0,), (0.0,))])
def test_what_is_left_of_an_old_plan_is_the_same_path(order_of):
    old = splice(None, points([2.0], [1.0], *order_of), 0, 0.0)
    cut = old.between(SECOND_NS // 4, 3 * SECOND_NS // 2)
    for t in (0.3, 0.7, 1.1, 1.5):
        np.testing.assert_allclose(cut.at(round(t * 1e9))[0], old.at(round(t * 1e9))[0],
                                   atol=1e-9)
    assert cut.at(5 * SECOND_NS) == (old.at(3 * SECOND_NS // 2)[0], 0.0, 0.0)


def test_plans_that_are_spliced_again_and_again_do_not_grow():
    plan = None
    for frame in range(1000):
        plan = splice(plan, points([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], start_s=0.1 + 0.1 * frame),
                      frame * SECOND_NS // 10, 0.0)
        assert len(plan.times_ns) < 8 and len(plan.orders) == len(plan.times_ns) - 1


def test_spline_slopes_by_hand():
    """Knots 0, 1, 2 s at 0, 1, 0, first slope 0: 4 m = 3 (p2 - p0), and a hump at rest."""
    second = [0, SECOND_NS, 2 * SECOND_NS]
    assert spline_slopes(second, [0.0, 1.0, 0.0], 0.0) == pytest.approx([0.0, 0.0, 0.0])
    assert spline_slopes(second, [0.0, 1.0, 2.0], 0.0) == pytest.approx([0.0, 1.5, 0.0])
    assert spline_slopes(second, [0.0, 1.0, 2.0], 2.0) == pytest.approx([2.0, 1.0, 0.0])


def test_spline_of_two_points_keeps_the_first_slope():
    assert spline_slopes([SECOND_NS, 3 * SECOND_NS], [0.0, 1.0], 0.3) == [0.3, 0.0]
    assert spline_slopes([SECOND_NS], [0.4], 0.3) == [0.0]


def test_what_is_not_given_is_zero_in_the_plan():
    plan = splice(None, points([1.0, 2.0], [0.5, 0.7]), 0, 0.1)
    assert plan.states == [(0.1, 0.0, 0.0), (0.5, 0.0, 0.0), (0.7, 0.0, 0.0)]


def test_part_of_a_plan_has_the_knots_around_it():
    times_ns = [SECOND_NS * s for s in (0, 1, 2, 3, 4)]
    plan = Plan(times_ns, [(0.1 * s, 0.0, 0.0) for s in range(5)], [LINEAR, CUBIC, LINEAR, CUBIC])
    part = plan.between(1_500_000_000, 2_500_000_000)
    assert part.times_ns == [SECOND_NS, 2 * SECOND_NS, 2_500_000_000]
    assert part.orders == [CUBIC, LINEAR]
    assert part.states[-1] == pytest.approx((0.25, 0.1, 0.0))
    late = plan.between(5 * SECOND_NS, 6 * SECOND_NS)
    assert late.times_ns == [4 * SECOND_NS, 6 * SECOND_NS] and late.orders == [LINEAR]


def test_a_chunk_is_one_smooth_curve_through_its_points():
    """Velocity and acceleration have no step at the points, which lines would have."""
    rng = np.random.default_rng(1)
    goals = np.cumsum(rng.normal(0.0, 0.1, 20))
    times_ns, spacing_ns = check_points(1, [0.0] * 20, goals[:, None], [()] * 20, [()] * 20, 10.0)
    assert (times_ns[0], times_ns[-1], spacing_ns) == (SECOND_NS // 10, 2 * SECOND_NS,
                                                       SECOND_NS // 10)
    nothing = (None,) * 20
    plan = splice(None, Points(0, times_ns, tuple(goals), nothing, nothing, spacing_ns), 0, 0.2)
    got = [plan.at(t)[0] for t in times_ns]
    np.testing.assert_allclose(got, goals, atol=1e-12)
    for t in times_ns[:-1]:
        np.testing.assert_allclose(plan.at(t - 1), plan.at(t + 1), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(plan.at(0)[:2], [0.2, 0.0], atol=1e-12)


def test_a_chunk_point_that_is_almost_past_does_not_swing_the_spline_out():
    """A stamp of an older frame puts points a nanosecond from a frame of now."""
    chunk = points([0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5], start_s=1.0, spacing_s=0.1)
    plan = splice(None, chunk, 1_200_000_000 - 1, 0.3)
    path = [plan.at(t)[0] for t in range(1_200_000_000, 1_400_000_000, 1_000_000)]
    assert min(path) >= 0.29 and max(path) <= 0.53


def test_a_chunk_with_velocities_keeps_them():
    times_ns, spacing_ns = check_points(1, [0.0, 0.0], [[0.1], [0.2]], [[0.3], [0.0]],
                                        [(), ()], 10.0)
    assert (times_ns, spacing_ns) == ((100_000_000, 200_000_000), 0)


def test_one_point_without_time_is_for_now():
    assert check_points(1, [0.0], [[0.1]], [()], [()], 10.0) == ((0,), 0)


@pytest.mark.parametrize('times_s', [[0.0, 0.0, 1.0], [2.0, 1.0], [-0.1], [float('inf')]])
def test_bad_times_are_refused(times_s):
    n = len(times_s)
    with pytest.raises(SpecError, match='time_from_start'):
        check_points(1, times_s, [[0.0]] * n, [()] * n, [()] * n, 10.0)


def test_extreme_points_give_numbers():
    """The end of time and the largest derivatives that a message can bring."""
    plan = splice(None, points([1e-9, 4e9], [1.0, -1.0], (2.0, 0.0), (1e6, 1e6)), 0, 0.0)
    assert all(np.isfinite(plan.at(t)).all() for t in (0, 1, 2, 10 ** 9, 10 ** 18, 10 ** 19))


def test_hold_before_the_first_and_after_the_last_knot():
    plan = Plan([SECOND_NS, 2 * SECOND_NS], [(0.1, 0.5, 0.0), (0.4, 0.0, 0.0)], [CUBIC])
    assert plan.at(0) == (0.1, 0.0, 0.0) and plan.at(3 * SECOND_NS) == (0.4, 0.0, 0.0)


@pytest.mark.parametrize('gap, wanted', [
    (0.0, 0.0), (0.005, 0.05), (-0.01, -0.1),  # what one frame reaches
    (0.03, 0.2),   # 0.2 and 0.1 m/s for 0.1 s each
    (0.06, 0.3), (-0.1, -0.4)])
def test_arriving_velocity_by_hand(gap, wanted):
    got = arriving_velocity(np.array([gap]), np.array([1.0]), 0.1)
    assert got == pytest.approx([wanted])


def test_pacing_lands_exactly_whatever_the_gap():
    for gap in np.random.default_rng(2).uniform(-1.0, 1.0, 50):
        limiter = MotionLimiter(np.array([np.inf, np.inf, np.inf, 1.3]), [-2.0], [2.0])
        goal = np.full((40, 1), gap)
        velocity, position, done = limiter.limit(
            np.zeros((39, 4)), goal, np.zeros(1), np.array([0.8]), sim_ns=0,
            period_ns=SECOND_NS // 15)
        steps = np.diff([0.0, *velocity[:, 3], 0.0])
        assert np.abs(steps).max() <= 1.3 / 15 + 1e-9 and np.abs(velocity).max() <= 0.8
        assert position[-1, 0] == pytest.approx(gap, abs=1e-9) and done
        assert np.abs(position).max() <= abs(gap) + 1e-9


def test_pacing_forgets_when_time_goes_back():
    limiter = MotionLimiter(np.array([1.0, 1.0, 1.0]), [], [])
    args = dict(goal=np.zeros((2, 0)), current=np.zeros(0), speed=np.zeros(0),
                period_ns=SECOND_NS // 10)
    for sim_ns, wanted in ((0, 0.1), (SECOND_NS // 10, 0.2), (0, 0.1)):
        velocity, _, done = limiter.limit(np.ones((1, 3)), sim_ns=sim_ns, **args)
        assert velocity == pytest.approx(np.full((1, 3), wanted)) and not done


def test_a_joint_goes_along_with_a_goal_that_moves():
    """0.02 rad within a frame of 0.1 s are 0.2 rad/s, and again for the next two frames."""
    limiter = MotionLimiter(np.array([9.0, 9.0, 9.0, 100.0]), [-1.0], [1.0])
    goal = np.array([[0.0], [0.02], [0.04], [0.06]])
    velocity, position, _ = limiter.limit(np.zeros((3, 4)), goal, np.zeros(1), np.array([9.0]),
                                          sim_ns=0, period_ns=SECOND_NS // 10)
    assert velocity[:, 3] == pytest.approx([0.2, 0.2, 0.2])
    assert position[:, 0] == pytest.approx([0.02, 0.04, 0.06])


def test_a_joint_that_cannot_stop_in_time_stops_at_its_limit():
    """It gains 0.1 rad/s per frame of 0.1 s; from 0.03 rad it can only go 0.02 rad further."""
    limiter = MotionLimiter(np.array([9.0, 9.0, 9.0, 1.0]), [-1.0], [0.05])
    velocity, position, _ = limiter.limit(np.zeros((4, 4)), np.full((5, 1), 5.0), np.zeros(1),
                                          np.array([9.0]), sim_ns=0, period_ns=SECOND_NS // 10)
    assert velocity[:, 3] == pytest.approx([0.1, 0.2, 0.2, 0.0])
    assert position[:, 0] == pytest.approx([0.01, 0.03, 0.05, 0.05])


def test_a_step_does_what_was_asked_if_its_last_frame_does():
    """What is asked for changes from frame to frame; once it is beyond the limit of 0.1 rad."""
    limiter = MotionLimiter(np.full(5, np.inf), [-9.0, -9.0], [9.0, 0.1])
    velocity = np.array([[0.1, 0.0, 0.4, 0.7, 0.0], [0.2, 0.0, 0.5, 0.8, 0.0],
                         [0.3, 0.0, -0.6, -0.9, 0.0]])
    goal = np.array([[np.nan, 0.0], [np.nan, 0.05], [np.nan, 0.3], [np.nan, 0.1]])
    told, place, done = limiter.limit(velocity, goal, np.zeros(2), np.full(2, 9.0), sim_ns=0,
                                      period_ns=SECOND_NS // 10)
    assert told[:, :4] == pytest.approx(velocity[:, :4])
    assert told[:, 4] == pytest.approx([0.5, 0.5, 0.0])
    assert np.isnan(place[:, 0]).all() and place[:, 1] == pytest.approx([0.05, 0.1, 0.1])
    assert done


@pytest.mark.parametrize('late', [
    dict(velocity=[[0.0, 0.0, 0.0, 0.2]]), dict(velocity=[[0.0, 0.0, 0.0, -0.2]]),
    dict(velocity=[[0.2, 0.0, 0.0, 0.0]]), dict(velocity=[[0.0, 0.0, -0.2, 0.0]]),
    dict(goal=[[0.0], [0.02]]),  # it is not there yet
    dict(goal=[[0.0], [0.01]])])  # it is there, and moves
def test_a_step_that_falls_behind_is_not_done(late):
    """A frame of 0.1 s at 1 m/s^2 and 1 rad/s^2 changes velocities by 0.1."""
    limiter = MotionLimiter(np.full(4, 1.0), [-9.0], [9.0])
    asked = dict(velocity=np.zeros((1, 4)), goal=np.full((2, 1), np.nan))
    asked.update({name: np.array(values) for name, values in late.items()})
    assert not limiter.limit(**asked, current=np.zeros(1), speed=np.array([9.0]), sim_ns=0,
                             period_ns=SECOND_NS // 10)[2]
