# SPDX-License-Identifier: Apache-2.0
"""
Joint trajectories: checked when they arrive, spliced and sampled at sim time. No ROS.

The rules are those of ``joint_trajectory_controller``: points in the past are dropped, the old
plan goes on until the new one starts, and a segment is a straight line, a cubic or a quintic by
what its two points give (positions, velocities, accelerations).
"""
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from math import isfinite, isinf, isnan
from typing import Iterable, List, Optional, Sequence, Tuple

from lingbot_world_ros.errors import SpecError

MAX_POINTS = 10_000  # of one trajectory, and of those that wait for their start
MAX_ACCELERATION = 1e6  # rad/s^2 or m/s^2; beyond it no point was meant
LINEAR, CUBIC, QUINTIC = 1, 3, 5
STILL = 1e-6  # rad/s or m/s; slower than this is standing

State = Tuple[float, float, float]  # position, velocity, acceleration


@dataclass(frozen=True)
class Points:
    """
    Points of one joint, as one message gives them.

    ``start_ns`` is the sim time that ``times_ns`` (n) count from, 0 for the first step that
    follows them. ``positions`` (n) rad or m; ``velocities`` and ``accelerations`` (n), None where
    a point gives none. ``spacing_ns`` is 0, or the time between the points of a chunk of bare
    positions, which one spline joins.
    """

    start_ns: int
    times_ns: Tuple[int, ...]
    positions: Tuple[float, ...]
    velocities: Tuple[Optional[float], ...]
    accelerations: Tuple[Optional[float], ...]
    spacing_ns: int = 0


@dataclass(frozen=True)
class Plan:
    """
    Path of one joint: knots in sim time and the order of the polynomial after each.

    Before the first knot its position holds, after the last one the last one.
    """

    times_ns: List[int]
    states: List[Tuple[float, float, float]]  # position, velocity, acceleration
    orders: List[int]  # of the segment that starts at the knot; one less than knots

    @property
    def end_ns(self) -> int:
        """Sim time of the last knot."""
        return self.times_ns[-1]

    def at(self, stamp_ns: int) -> Tuple[float, float, float]:
        """
        State at one instant.

        :param stamp_ns: sim time
        :return: position, velocity, acceleration; rad or m, seconds
        """
        times = self.times_ns
        if stamp_ns > times[-1]:
            return self.states[-1][0], 0.0, 0.0
        if stamp_ns == times[-1]:
            return self.states[-1]
        if stamp_ns < times[0]:
            return self.states[0][0], 0.0, 0.0
        left = bisect_right(times, stamp_ns) - 1
        span_ns = times[left + 1] - times[left]
        return interpolate(self.orders[left], self.states[left], self.states[left + 1],
                           span_ns * 1e-9, (stamp_ns - times[left]) / span_ns)

    def between(self, since_ns: int, until_ns: int) -> 'Plan':
        """Return the part that two instants enclose; the state at ``until_ns`` is its end."""
        first = max(0, bisect_right(self.times_ns, since_ns) - 1)
        last = max(first, bisect_left(self.times_ns, until_ns))
        orders = self.orders[first:last]
        orders += [LINEAR] * (last - first - len(orders))  # beyond the end it holds
        return Plan(self.times_ns[first:last] + [until_ns],
                    self.states[first:last] + [self.at(until_ns)], orders)


def interpolate(order: int, state_a: State, state_b: State, span_s: float,
                part: float) -> Tuple[float, float, float]:
    """
    Point on the polynomial between two states.

    :param order: 1 joins positions, 3 also velocities, 5 also accelerations
    :param state_a: position, velocity, acceleration at the start
    :param state_b: the same at the end
    :param span_s: time from start to end, more than 0
    :param part: 0 at the start to 1 at the end
    :return: position, velocity, acceleration there
    """
    (p0, v0, a0), (p1, v1, a1) = state_a, state_b
    way, s = p1 - p0, part
    if order == LINEAR:
        return p0 + way * s, way / span_s, 0.0
    v0, v1 = v0 * span_s, v1 * span_s  # per span instead of per second
    if order == CUBIC:
        c2, c3, c4, c5 = 3.0 * way - 2.0 * v0 - v1, v0 + v1 - 2.0 * way, 0.0, 0.0
    else:
        a0, a1 = a0 * span_s ** 2, a1 * span_s ** 2
        c2 = 0.5 * a0
        c3 = 10.0 * way - 6.0 * v0 - 4.0 * v1 - 1.5 * a0 + 0.5 * a1
        c4 = -15.0 * way + 8.0 * v0 + 7.0 * v1 + 1.5 * a0 - a1
        c5 = 6.0 * way - 3.0 * (v0 + v1) + 0.5 * (a1 - a0)
    return (p0 + s * (v0 + s * (c2 + s * (c3 + s * (c4 + s * c5)))),
            (v0 + s * (2.0 * c2 + s * (3.0 * c3 + s * (4.0 * c4 + s * 5.0 * c5)))) / span_s,
            (2.0 * c2 + s * (6.0 * c3 + s * (12.0 * c4 + s * 20.0 * c5))) / span_s ** 2)


def check_points(num_joints: int, times_s: Sequence[float], positions: Sequence[Sequence[float]],
                 velocities: Sequence[Sequence[float]], accelerations: Sequence[Sequence[float]],
                 policy_frequency_hz: float,
                 may_end_in_motion: bool = False) -> Tuple[Tuple[int, ...], int]:
    """
    Check the points of a message.

    :param num_joints: number of joint names
    :param times_s: time_from_start of each point, seconds; all 0 for a chunk without timing
    :param positions: one list per point
    :param velocities: one list per point, empty where none are given
    :param accelerations: one list per point, empty where none are given
    :param policy_frequency_hz: rate of the points of a chunk without timing; 0 takes no chunks
    :param may_end_in_motion: whether the last point may have a velocity
    :return: time of each point after the start [ns], and the spacing of a chunk to be smoothed
        [ns], 0 for anything else
    :raises SpecError: wrong length, infinite, a velocity or an acceleration at a point that has
        NaN, no position, for the joint, bad times, or an end in motion
    """
    if len(times_s) > MAX_POINTS:
        raise SpecError(f'{len(times_s)} points are more than {MAX_POINTS}; send them in parts.')
    for number, point in enumerate(zip(positions, velocities, accelerations)):
        for what, values in zip(('positions', 'velocities', 'accelerations'), point):
            if len(values) != num_joints and (len(values) or what == 'positions'):
                raise SpecError(f'point {number} has {len(values)} {what} for {num_joints} joint '
                                'names; send one per name')
            if any(map(isinf, values)):
                raise SpecError(f'{what} of point {number} are not finite')
            if any(isnan(position) and not isnan(value)
                   for position, value in zip(point[0], values)):
                raise SpecError(f'{what} of point {number} are given for a joint whose position '
                                'there is NaN; send a position, or NaN for both')
    if not may_end_in_motion and any(_ends_in_motion(positions, velocities, joint)
                                     for joint in range(num_joints)):
        raise SpecError('its last point still moves (velocities are not 0); let it end at rest, '
                        'or set allow_nonzero_velocity_at_trajectory_end, as MoveIt Servo needs '
                        'it')
    spacing_ns = 0
    if len(times_s) > 1 and not any(times_s) and policy_frequency_hz:
        times_s = [(number + 1) / policy_frequency_hz for number in range(len(times_s))]
        if not any(map(len, [*velocities, *accelerations])):
            spacing_ns = round(1e9 / policy_frequency_hz)
    if not all(map(isfinite, times_s)):
        raise SpecError('time_from_start is not finite')
    times_ns = tuple(round(time_s * 1e9) for time_s in times_s)
    if times_ns[0] < 0 or any(b <= a for a, b in zip(times_ns, times_ns[1:])):
        raise SpecError('time_from_start must start at 0 s or later and increase from point to '
                        'point' + (' (or be 0 for all points of a chunk)'
                                   if policy_frequency_hz else ''))
    return times_ns, spacing_ns


def _ends_in_motion(positions: Sequence[Sequence[float]], velocities: Sequence[Sequence[float]],
                    joint: int) -> bool:
    """Tell whether the last point that a joint comes to has a velocity."""
    last = next((velocity for position, velocity in zip(reversed(positions), reversed(velocities))
                 if not isnan(position[joint])), ())
    return bool(len(last)) and abs(last[joint]) > STILL


def splice(old: Optional[Plan], points: Points, sim_ns: int, position: float) -> Plan:
    """
    Let new points take over from an old plan.

    :param old: plan that is followed; None: the joint stands
    :param points: what shall be followed from ``points.start_ns`` on
    :param sim_ns: sim time of the newest frame
    :param position: where the joint is, rad or m
    :return: the old plan up to the start, a bridge to the first point that is not yet past, and
        the points from there on
    """
    start_ns = points.start_ns or sim_ns
    begin_ns = max(start_ns, sim_ns)
    if old is None:
        old = Plan([sim_ns], [(position, 0.0, 0.0)], [])
    plan = old.between(sim_ns, begin_ns)
    # A spline through a point that is almost past would swing far out behind it.
    past_ns = begin_ns - start_ns + points.spacing_ns // 2
    first = min(bisect_left(points.times_ns, past_ns), len(points.times_ns) - 1)
    times_ns = [max(start_ns + time_ns, begin_ns) for time_ns in points.times_ns[first:]]
    velocities: Sequence[Optional[float]] = points.velocities[first:]
    if points.spacing_ns:
        velocities = _smooth_velocities(plan, times_ns, points.positions[first:])
    _extend(plan, times_ns, zip(points.positions[first:], velocities,
                                points.accelerations[first:]))
    return plan


def _smooth_velocities(plan: Plan, times_ns: Sequence[int],
                       positions: Sequence[float]) -> List[float]:
    """Return the velocities of one spline from the end of a plan through new points."""
    position, velocity, _ = plan.states[-1]
    if times_ns[0] > plan.end_ns:
        return spline_slopes([plan.end_ns, *times_ns], [position, *positions], velocity)[1:]
    return spline_slopes(times_ns, positions, velocity)


def _extend(plan: Plan, times_ns: Sequence[int],
            states: Iterable[Tuple[float, Optional[float], Optional[float]]]) -> None:
    """Append points; None stands for a velocity or an acceleration that is not given."""
    velocity_before: Optional[float]
    acceleration_before: Optional[float]
    _, velocity_before, acceleration_before = plan.states[-1]
    for time_ns, (position, velocity, acceleration) in zip(times_ns, states):
        if velocity is None or velocity_before is None:
            plan.orders.append(LINEAR)
        elif acceleration is None or acceleration_before is None:
            plan.orders.append(CUBIC)
        else:
            plan.orders.append(QUINTIC)
        plan.times_ns.append(time_ns)
        plan.states.append((position, velocity or 0.0, acceleration or 0.0))
        velocity_before, acceleration_before = velocity, acceleration


def spline_slopes(times_ns: Sequence[int], positions: Sequence[float],
                  first_slope: float) -> List[float]:
    """
    Velocities that make cubics through given positions one smooth curve (C2).

    :param times_ns: (n) increasing
    :param positions: (n) rad or m
    :param first_slope: velocity at the first one; at the last one it is 0
    :return: (n) velocities, rad/s or m/s

    The usual tridiagonal system of a clamped cubic spline, solved by elimination.
    """
    if len(positions) < 2:
        return [0.0]
    spans_s = [(b - a) * 1e-9 for a, b in zip(times_ns, times_ns[1:])]
    speeds = [(b - a) / span_s for a, b, span_s in zip(positions, positions[1:], spans_s)]
    factors, sums = [0.0], [first_slope]
    for left, right, speed_left, speed_right in zip(spans_s, spans_s[1:], speeds, speeds[1:]):
        pivot = 2.0 * (left + right) - right * factors[-1]
        factors.append(left / pivot)
        sums.append((3.0 * (right * speed_left + left * speed_right) - right * sums[-1]) / pivot)
    slopes = [0.0]
    for factor, value in zip(reversed(factors), reversed(sums)):
        slopes.append(value - factor * slopes[-1])
    return slopes[::-1]
