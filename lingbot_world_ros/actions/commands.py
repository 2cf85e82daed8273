# SPDX-License-Identifier: Apache-2.0
"""
The newest command of every source: checked when it arrives, read when a step is encoded.

No ROS and no clock: the caller hands in ``now_ns``, the time in which commands age (steady wall
time, or sim time where a run must repeat), and ``sim_ns``, the sim time of the newest frame. Not
thread safe; who shares a buffer between threads holds a lock.
"""
from bisect import bisect_left
from dataclasses import replace
from math import inf, isfinite, isinf, isnan, nan
from typing import Iterable, List, NoReturn, Optional, Sequence, Tuple

from lingbot_world_ros.actions.command_spec import CommandCounts, CommandSpec, Targets
from lingbot_world_ros.actions.limits import BASE, MotionLimiter
from lingbot_world_ros.actions.trajectory import (check_points, MAX_ACCELERATION, MAX_POINTS, Plan,
                                                  Points, splice)
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.robots.drive import steered
import numpy as np

MESSAGE_NS = 5_000_000_000  # how long the newest problem is told
MAX_WAIT_NS = 86_400 * 1_000_000_000  # until a trajectory starts; beyond it the stamp is wall time
MESSAGE_LENGTH = 500  # characters; a sender can put whole books into a name
ROUNDING = 1e-3  # rad or m; a planner rounds its limits
REST = (0.0, 0.0, 0.0)
HOLD, VELOCITY, POSITION, TRAJECTORY = range(4)  # what drives a joint
TWIST_NAMES = ('linear.x', 'linear.y', 'linear.z', 'angular.x', 'angular.y', 'angular.z')
PLANAR = (0, 1, 5)  # of them, v_x, v_y and w_z


class CommandBuffer:
    """
    Hold the newest command per source and count what was done to commands.

    A refused command changes nothing. Velocities (base and joints) fall to zero after
    ``timeout_s``; a position or a trajectory is finished and then held, like a servo does. The
    newest message wins joint by joint; joints it does not name go on as they were.

    NaN for a joint is no command for it, as ros2_control writes it for what no controller has
    claimed: the joint goes on as if it were not named. A message of nothing else commands nothing
    and is counted nowhere.
    """

    def __init__(self, spec: CommandSpec, counts: CommandCounts = CommandCounts()) -> None:
        """
        Start with everything at rest.

        :param spec: what can be commanded
        :param counts: where to go on counting
        """
        self.spec = spec
        self.accepted, self.rejected, self.clipped, self.timed_out, self.stale = (
            counts.accepted, counts.rejected, counts.clipped, counts.timed_out, counts.stale)
        self.message = counts.message
        self._message_since_ns: Optional[int] = None
        num_joints = len(spec.joint_names)
        self._index = {name: column for column, name in enumerate(spec.joint_names)}
        self._speed = spec.joint_speed.tolist()
        self._timeout_ns = round(spec.timeout_s * 1e9)
        self._twist, self._twist_ns, self._twist_topic = REST, 0, ''
        self._mode = [HOLD] * num_joints
        self._claims = [(0, '')] * num_joints  # number and topic of the command a joint follows
        self._velocity, self._velocity_ns = [0.0] * num_joints, [0] * num_joints
        self._position = [0.0] * num_joints
        self._way_speed = [inf] * num_joints  # of a position command
        self._plans: List[Optional[Plan]] = [None] * num_joints
        self._waiting: List[List[Points]] = [[] for _ in range(num_joints)]
        self._current = np.clip(np.zeros(num_joints), spec.joint_low, spec.joint_high)
        self._limiter = MotionLimiter(spec.acceleration, spec.joint_low, spec.joint_high,
                                      spec.max_curvature)
        self._always_paced = bool(spec.paced_joints.any() or np.isfinite(spec.acceleration).any())

    @property
    def counts(self) -> CommandCounts:
        """What happened to commands so far."""
        return CommandCounts(self.accepted, self.rejected, self.clipped, self.timed_out,
                             self.message, self.stale)

    def clear(self) -> None:
        """Forget every command (after a reset); the counters go on."""
        self._twist = REST
        self._halt(range(len(self._mode)))
        self._claims = [(0, '')] * len(self._mode)
        self._limiter.clear()

    def set_timeout(self, timeout_s: float) -> None:
        """Let velocity commands age faster or slower from now on."""
        self.spec = replace(self.spec, timeout_s=timeout_s)
        self._timeout_ns = round(timeout_s * 1e9)

    def twist(self, linear: Sequence[float], angular: Sequence[float], now_ns: int, *,
              stamp_ns: int = 0, sim_ns: int = 0, topic: str = 'cmd_vel') -> None:
        """
        Take over a base velocity.

        As ``diff_drive_controller`` does, a stamp older than the timeout is refused, an older one
        counts for what is left of it. A stamp in the future counts as now: it cannot make a
        command last longer.

        :param linear: x, y, z [m/s] in base_link; the base follows x and, if it strafes, y
        :param angular: x, y, z [rad/s]; the base follows z
        :param now_ns: time of arrival, in which commands age
        :param stamp_ns: sim time of the command; 0 means now
        :param sim_ns: sim time now
        :param topic: where it came from, for the message
        :raises SpecError: NaN or infinite, or too old; nothing changed
        """
        values = (*linear, *angular)
        if not all(map(isfinite, values)):
            self._refuse(topic, f'linear {list(linear)}, angular {list(angular)} is not finite; '
                         'send finite m/s and rad/s')
        age_ns = max(0, sim_ns - stamp_ns) if stamp_ns else 0
        if age_ns > self._timeout_ns:
            self.stale += 1
            self._refuse(topic, f'its stamp is {age_ns * 1e-9:.3f} s of sim time old, more than '
                         f'cmd_timeout_s={self.spec.timeout_s:g}; stamp with the time of /clock '
                         'or with 0')
        ranges = self.spec.twist_range
        v_x, v_y, w_z = (min(max(values[i], low), high) for i, (low, high) in zip(PLANAR, ranges))
        self._twist = v_x, v_y, float(steered(v_x, w_z, self.spec.max_curvature))
        self._twist_ns, self._twist_topic = now_ns - age_ns, topic
        self.accepted += 1
        if any(values[2:5]) or self._twist != (values[0], values[1], values[5]):
            self._tell_twist_changes(values, topic)

    def joints(self, names: Sequence[str], position: Sequence[float],
               velocity: Sequence[float], now_ns: int, *,
               topic: str = 'joint_command') -> None:
        """
        Take over positions or velocities of named joints (Isaac Sim's convention).

        With both given the position is the goal and the velocity, where it is not 0, the largest
        speed on the way there; with one of them NaN the other is the command.

        :param names: any subset of the joints, in any order; none for all, in world order
        :param position: rad or m, one per name, or empty
        :param velocity: rad/s or m/s, one per name, or empty
        :param now_ns: time of arrival, in which commands age
        :param topic: where it came from, for the message
        :raises SpecError: unknown or repeated name, wrong length, infinite; nothing changed
        """
        columns = self._joint_columns(names if len(names) else self.spec.joint_names, topic)
        if not len(position) and not len(velocity):
            self._refuse(topic, 'neither position nor velocity is filled in (effort is not '
                         'offered); fill one, with one value per name')
        for what, values in (('position', position), ('velocity', velocity)):
            if len(values) not in (0, len(columns)):
                self._refuse(topic, f'{what} has {len(values)} values for ' + (
                    f'{len(columns)} names; send one per name or none' if len(names) else
                    self._all_joints()))
            if any(map(isinf, values)):
                self._refuse(topic, f'{what} {list(values)} is not finite; NaN would be no '
                             'command for a joint')
        nothing = [nan] * len(columns)
        asked = [each for each in zip(columns, position if len(position) else nothing,
                                      velocity if len(velocity) else nothing)
                 if not (isnan(each[1]) and isnan(each[2]))]
        if not asked:
            return
        low, high, speed = self.spec.joint_low, self.spec.joint_high, self._speed
        limited = ''
        self._halt(column for column, *_ in asked)
        for column, goal, rate in asked:
            if not isnan(rate):
                self._velocity[column] = min(max(rate, -speed[column]), speed[column])
                self._velocity_ns[column] = now_ns
                if self._velocity[column] != rate:
                    limited = limited or self._limit_text('velocity', rate, column,
                                                          -speed[column], speed[column])
            if not isnan(goal):
                self._position[column] = min(max(goal, low[column]), high[column])
                if self._position[column] != goal:
                    limited = limited or self._limit_text('position', goal, column, low[column],
                                                          high[column])
                if not isnan(rate):
                    self._way_speed[column] = abs(self._velocity[column]) or inf
            self._mode[column] = VELOCITY if isnan(goal) else POSITION
        self._accept(limited, topic, [column for column, *_ in asked])

    def joint_array(self, values: Sequence[float], interface: str, now_ns: int, *,
                    topic: str = 'arm_controller/commands') -> None:
        """
        Take over one value per joint in WorldSpec order (forward_command_controller).

        :param values: rad or m for ``'position'``, rad/s or m/s for ``'velocity'``
        :param interface: ``'position'`` or ``'velocity'``
        :param now_ns: time of arrival, in which commands age
        :param topic: where it came from, for the message
        :raises SpecError: wrong length or infinite; nothing changed
        """
        self._require_joints(topic)
        if len(values) != len(self.spec.joint_names):
            self._refuse(topic, f'{len(values)} values for {self._all_joints()}')
        empty = ()
        if interface == 'position':
            self.joints(empty, values, empty, now_ns, topic=topic)
        else:
            self.joints(empty, empty, values, now_ns, topic=topic)

    def trajectory(self, names: Sequence[str], times_s: Sequence[float],
                   positions: Sequence[Sequence[float]],
                   velocities: Optional[Sequence[Sequence[float]]] = None,
                   accelerations: Optional[Sequence[Sequence[float]]] = None, *, start_ns: int,
                   sim_ns: int, policy_frequency_hz: float, may_end_in_motion: bool = False,
                   topic: str = 'arm_controller/joint_trajectory') -> None:
        """
        Take over a joint trajectory (joint_trajectory_controller's convention).

        The plan before it is followed until the new one starts; joints it does not name go on
        with theirs. A joint under another command holds where it is until then. Points that are
        past when a step first follows them are dropped. Without points the joints stop and hold:
        those named, or all if none is named. A joint passes by a point whose position is NaN for
        it; with NaN in all points it counts as not named.

        :param names: any subset of the joints
        :param times_s: time_from_start of each point, seconds of sim time; 0 for all of several
            points is a chunk without timing: point i at (i + 1) / ``policy_frequency_hz``
        :param positions: one list per point, one value per name, rad or m
        :param velocities: one list per point, empty where none are given; None for none at all
        :param accelerations: like ``velocities``
        :param start_ns: sim time the times count from; 0 is the first step that follows it
        :param sim_ns: sim time now
        :param policy_frequency_hz: rate of the points of a chunk without timing; 0 takes none
        :param may_end_in_motion: take it over although its last point has a velocity; the joints
            stop there unless another one takes over before
        :param topic: where it came from, for the message
        :raises SpecError: unknown joint, wrong length, infinite, bad times, all past, a start
            days ahead, or a last point in motion; nothing changed
        """
        self._require_joints(topic)
        if not len(times_s):
            columns = (self._joint_columns(names, topic) if len(names)
                       else range(len(self._mode)))
            self._halt(columns)
            self._accept('', topic, columns)
            return
        columns = self._joint_columns(names, topic)
        nothing = [()] * len(times_s)
        try:
            times_ns, spacing_ns = check_points(
                len(columns), times_s, positions, velocities or nothing, accelerations or nothing,
                policy_frequency_hz, may_end_in_motion)
        except SpecError as error:
            self._refuse(topic, str(error))
        given = {column: [i for i, point in enumerate(positions) if not isnan(point[number])]
                 for number, column in enumerate(columns)}
        if not any(given.values()):
            return
        late_ns = sim_ns - start_ns - times_ns[-1]
        if start_ns and late_ns > 0:
            self._refuse(topic, f'it ended {late_ns * 1e-9:.3f} s of sim time ago; send a header '
                         'stamp of 0 to start now')
        if start_ns - sim_ns > MAX_WAIT_NS:
            self._refuse(topic, f'it starts {(start_ns - sim_ns) * 1e-9:.0f} s of sim time from '
                         'now; start the sender with use_sim_time, or send a header stamp of 0')
        begin_ns = max(start_ns, sim_ns)
        ahead = max(self._num_ahead(column, sim_ns, begin_ns) for column in columns)
        if ahead + len(times_ns) > MAX_POINTS:
            self._refuse(topic, f'{ahead} points come before its start already; let them pass, or '
                         'send an earlier start')
        low, high = self.spec.joint_low, self.spec.joint_high
        speed, limited = self._speed, ''
        for number, (column, rows) in enumerate(given.items()):
            if not rows:
                continue
            asked = [positions[row][number] for row in rows]
            inside = [min(max(value, low[column]), high[column]) for value in asked]
            if inside != asked:
                limited = limited or (f'a position of {self.spec.joint_names[column]} was limited '
                                      f'to {low[column]:g} to {high[column]:g}')
            points = Points(
                start_ns, tuple(times_ns[row] for row in rows), tuple(inside),
                _column(velocities or nothing, number, rows, speed[column]),
                _column(accelerations or nothing, number, rows, MAX_ACCELERATION), spacing_ns)
            if self._mode[column] != TRAJECTORY:
                self._halt([column])
                self._mode[column] = TRAJECTORY
            waiting = self._waiting[column]
            waiting[:] = [other for other in waiting if max(other.start_ns, sim_ns) < begin_ns]
            waiting.append(points)
        self._accept(limited, topic, [column for column, rows in given.items() if rows])

    def require_within(self, names: Sequence[str], positions: Sequence[Sequence[float]],
                       topic: str) -> None:
        """
        Refuse positions beyond the limits of the joints, but for rounding.

        :param names: joints; those that are not there are left to ``trajectory``
        :param positions: one list per point, one value per name, rad or m
        :param topic: where they came from, for the message
        :raises SpecError: a position is out of reach; nothing changed
        """
        low, high = self.spec.joint_low, self.spec.joint_high
        for values in positions:
            for name, value in zip(names, values):
                i = self._index.get(name)
                if i is not None and not isnan(value) and not (
                        low[i] - ROUNDING <= value <= high[i] + ROUNDING):
                    self._refuse(topic, f'position {value:g} of {name} is beyond its limits '
                                 f'{low[i]:g} to {high[i]:g}; send one within')

    def claim(self, column: int) -> Tuple[int, str]:
        """Return number and topic of the command that a joint follows; 0 and '' for none."""
        return self._claims[column]

    def plan(self, column: int, sim_ns: int) -> Plan:
        """
        Return the way that a trajectory leads a joint.

        :param column: of the joint, in world order
        :param sim_ns: sim time of the newest frame
        :return: the plan; where there is none any more, of staying where it ended
        """
        plan = self._plans[column]
        return plan or Plan([sim_ns], [(self._position[column], 0.0, 0.0)], [])

    def hold(self, number: int) -> None:
        """
        Let joints hold where they are that follow one command; that is no command itself.

        :param number: of the command
        """
        self._halt(column for column, claim in enumerate(self._claims) if claim[0] == number)

    def refuse(self, topic: str, reason: str) -> None:
        """
        Count a command as refused.

        :param topic: where it came from
        :param reason: why, and what to do
        :raises SpecError: always
        """
        self._refuse(topic, reason)

    def tell(self, message: str) -> None:
        """Tell the user something for a while."""
        self._tell(message)

    def targets(self, now_ns: int, sim_ns: int, num_frames: int, period_ns: int,
                current: Optional[np.ndarray] = None) -> Targets:
        """
        Read what the coming step is asked to do; silent velocity sources become zero here.

        :param now_ns: time in which commands age
        :param sim_ns: sim time of the newest frame
        :param num_frames: frames of the step
        :param period_ns: sim time per frame
        :param current: (J,) where the joints are, rad or m; None: where they were last time
        :return: targets for the frames at ``sim_ns + period_ns * (1 .. num_frames)``
        """
        self._forget_message(now_ns)
        self._expire(now_ns)
        if current is not None:
            self._current = np.asarray(current, float)
        num_joints = len(self._mode)
        velocity = np.zeros((num_frames, BASE + num_joints))
        goal = np.full((num_frames + 1, num_joints), np.nan)
        end_ns = sim_ns + num_frames * period_ns
        valid_ns = []

        def apply(column: int, value: float, since_ns: int) -> None:
            """Ask for a velocity as long as it is fresh."""
            expires_ns = since_ns + self._timeout_ns - now_ns  # from now
            num_fresh = num_frames
            if self.spec.ages_in_sim_time:
                num_fresh = min(num_frames, expires_ns // period_ns + 1)
            velocity[:num_fresh, column] = value
            if value and num_fresh == num_frames:  # a frame that has begun in time is finished
                valid_ns.append(max(end_ns, sim_ns + expires_ns + period_ns))

        for column, value in enumerate(self._twist):
            apply(column, value, self._twist_ns)
        for column, mode in enumerate(self._mode):
            if mode == TRAJECTORY and self._follow(column, goal[:, column], sim_ns, period_ns):
                valid_ns.append(end_ns)
            elif mode in (POSITION, TRAJECTORY):
                goal[:, column] = self._position[column]
            elif mode == VELOCITY:
                apply(BASE + column, self._velocity[column], self._velocity_ns[column])
        position = goal[1:]
        if self._always_paced or min(self._way_speed, default=inf) < inf:
            velocity, position, done = self._paced(velocity, goal, sim_ns, period_ns)
            if not done:
                valid_ns.append(end_ns)
        else:
            self._limiter.clear()
        return Targets(velocity[:, :BASE], position, velocity[:, BASE:],
                       min(valid_ns, default=0))

    def _follow(self, column: int, goal: np.ndarray, sim_ns: int, period_ns: int) -> bool:
        """Fill in where a trajectory leads a joint; False once it is at its end."""
        plan = self._plans[column]
        for points in self._waiting[column]:
            plan = splice(plan, points, sim_ns, float(self._current[column]))
        assert plan is not None, 'a trajectory begins with points'
        self._waiting[column].clear()
        self._plans[column] = plan
        if sim_ns >= plan.end_ns:
            self._halt([column])
            self._mode[column], self._position[column] = POSITION, plan.states[-1][0]
            return False
        low, high = self.spec.joint_low[column], self.spec.joint_high[column]
        for row in range(len(goal)):
            position = plan.at(sim_ns + row * period_ns)[0]
            goal[row] = min(max(position, low), high)
        return True

    def _paced(self, velocity: np.ndarray, goal: np.ndarray, sim_ns: int,
               period_ns: int) -> Tuple[np.ndarray, np.ndarray, bool]:
        """Keep to accelerations and to speeds below the engine's."""
        speed = np.minimum(self._speed, self._way_speed)
        paced = self.spec.paced_joints | np.isfinite(self._way_speed)
        velocity, position, done = self._limiter.limit(
            velocity, np.where(paced, goal, np.nan), self._current, speed,
            sim_ns=sim_ns, period_ns=period_ns)
        velocity[:, BASE:][np.isfinite(goal[1:])] = 0.0
        return velocity, np.where(paced, position, goal[1:]), done

    def _num_ahead(self, column: int, sim_ns: int, begin_ns: int) -> int:
        """Count the points that a joint follows before another trajectory begins."""
        plan = self._plans[column]
        times_ns = plan.times_ns if plan else ()
        return (bisect_left(times_ns, begin_ns) - bisect_left(times_ns, sim_ns)
                + sum(len(points.times_ns) for points in self._waiting[column]
                      if max(points.start_ns, sim_ns) < begin_ns))

    def _halt(self, columns: Iterable[int]) -> None:
        """Let joints hold where they are."""
        for column in columns:
            self._mode[column] = HOLD
            self._way_speed[column] = inf
            self._plans[column] = None
            self._waiting[column].clear()

    def _expire(self, now_ns: int) -> None:
        if any(self._twist) and now_ns - self._twist_ns > self._timeout_ns:
            self._twist = REST
            self._count_timeout(self._twist_topic)
        moving = False
        for column, mode in enumerate(self._mode):
            if mode == VELOCITY and now_ns - self._velocity_ns[column] > self._timeout_ns:
                self._mode[column] = HOLD
                moving = moving or self._velocity[column] != 0.0
        if moving:
            self._count_timeout('joint velocity')

    def _count_timeout(self, source: str) -> None:
        self.timed_out += 1
        self._tell(f'{source}: silent for {self.spec.timeout_s:g} s (cmd_timeout_s), set to zero.')

    def _tell(self, message: str) -> None:
        if len(message) > MESSAGE_LENGTH:
            message = f'{message[:MESSAGE_LENGTH]}... (cut off).'
        self.message, self._message_since_ns = message, None

    def _forget_message(self, now_ns: int) -> None:
        """Drop a problem that was told for a while; the clock starts when it is first read."""
        if self._message_since_ns is None:
            self._message_since_ns = now_ns
        elif not 0 <= now_ns - self._message_since_ns <= MESSAGE_NS:
            self.message = ''

    def _tell_twist_changes(self, values: Sequence[float], topic: str) -> None:
        spec = self.spec
        driven = [PLANAR[axis] for axis in spec.base_axes]
        changes = [f'{name} {value:g} ignored' for i, (name, value)
                   in enumerate(zip(TWIST_NAMES, values)) if value and i not in driven]
        names, units = [TWIST_NAMES[i] for i in driven], ['m/s'] * (len(driven) - 1) + ['rad/s']
        taken = [self._twist[axis] for axis in spec.base_axes]
        if taken != [values[i] for i in driven]:
            asked = ', '.join(f'{name} {values[i]:g} {unit}'
                              for name, i, unit in zip(names, driven, units))
            told = ', '.join(f'{value:g} {unit}' for value, unit in zip(taken, units))
            changes.append(f'{asked} limited to {told}')
        *first, last = [f'{name} {low:g} to {high:g}' for name, (low, high)
                        in zip(names, (spec.twist_range[axis] for axis in spec.base_axes))]
        circle = ('' if spec.max_curvature == inf else
                  f'; it turns on circles of at least {1.0 / spec.max_curvature:.2f} m')
        self.clipped += 1
        self._tell(f'{topic}: {"; ".join(changes)}; the base takes {", ".join(first)} and {last}, '
                   f'all else must be 0{circle}.')

    def _limit_text(self, what: str, value: float, column: int, low: float, high: float) -> str:
        name = self.spec.joint_names[column]
        return f'{what} {value:g} of {name} limited to {low:g} to {high:g}'

    def _all_joints(self) -> str:
        names = self.spec.joint_names
        return f'{len(names)} joints; send one for each of {", ".join(names)}, in this order'

    def _require_joints(self, topic: str) -> None:
        if not self._index:
            self._refuse(topic, 'the robot of this world has no joints; send cmd_vel')

    def _joint_columns(self, names: Sequence[str], topic: str) -> List[int]:
        self._require_joints(topic)
        index = self._index
        if not len(names):
            self._refuse(topic, f'no joint is named; name some of {", ".join(index)}')
        unknown = [name for name in names if name not in index]
        if unknown:
            self._refuse(topic, f'unknown joint {", ".join(map(repr, unknown[:10]))}; '
                         f'known: {", ".join(index)}')
        if len(set(names)) != len(names):
            self._refuse(topic, 'a joint is named twice; name each once')
        return [index[name] for name in names]

    def _refuse(self, topic: str, text: str) -> NoReturn:
        self.rejected += 1
        self._tell(f'{topic}: refused, {text}.')
        raise SpecError(self.message)

    def _accept(self, limited: str, topic: str, columns: Iterable[int]) -> None:
        self.accepted += 1
        for column in columns:
            self._claims[column] = self.accepted, topic
        if limited:
            self.clipped += 1
            self._tell(f'{topic}: {limited}.')


def _column(table: Sequence[Sequence[float]], number: int, rows: Iterable[int],
            limit: float) -> Tuple[Optional[float], ...]:
    """Return some rows of a column within -limit to limit, None where nothing is given."""
    values = (table[row][number] if len(table[row]) else nan for row in rows)
    return tuple(None if isnan(value) else min(max(value, -limit), limit) for value in values)
