# SPDX-License-Identifier: Apache-2.0
"""
A joint trajectory that somebody watches over: how far it is, tolerances, how it ends. No ROS.

The rules and result codes are those of ``joint_trajectory_controller``. A goal does not move
joints, ``CommandBuffer`` does; it compares where they are with where they should be.
"""
from bisect import bisect_right
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from typing import Callable, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from lingbot_world_ros.actions.trajectory import Plan, State
from lingbot_world_ros.errors import SpecError
import numpy as np

ERASED = -1.0  # a tolerance: none, whatever the default is
AskedTolerance = Tuple[str, float, float]  # joint, position, velocity


class Code(IntEnum):
    """How a goal ended; the numbers are those of control_msgs/FollowJointTrajectory."""

    SUCCESSFUL = 0
    INVALID_GOAL = -1
    INVALID_JOINTS = -2
    OLD_HEADER_TIMESTAMP = -3
    PATH_TOLERANCE_VIOLATED = -4
    GOAL_TOLERANCE_VIOLATED = -5


class Tolerance(NamedTuple):
    """How far one joint may be off: rad or m, rad/s or m/s; 0 is no limit."""

    position: float = 0.0
    velocity: float = 0.0


class Tolerances(NamedTuple):
    """Of each joint of a goal, on the way and from its end on; ``goal_time_s`` 0 is for ever."""

    path: Tuple[Tolerance, ...]
    goal: Tuple[Tolerance, ...]
    goal_time_s: float


class Constraints(NamedTuple):
    """What holds for every joint of which a goal says nothing; 0 is no limit."""

    trajectory: float = 0.0  # position on the way, rad or m
    goal: float = 0.0  # position at the end, rad or m
    goal_time_s: float = 0.0

    def tolerances(self, names: Sequence[str], path: Iterable[AskedTolerance],
                   goal: Iterable[AskedTolerance], goal_time_s: float) -> Tolerances:
        """
        Work out what holds for a goal.

        :param names: joints of the goal
        :param path: what it asks for on the way; 0 takes the default, -1 is none at all
        :param goal: what it asks for at its end
        :param goal_time_s: how long after the end that has to be reached; 0 and -1 likewise
        :return: the tolerances, joint by joint
        :raises SpecError: a joint is not one of the goal, or a number is none of these
        """
        return Tolerances(_asked('path_tolerance', names, path, self.trajectory),
                          _asked('goal_tolerance', names, goal, self.goal),
                          _chosen('goal_time_tolerance', goal_time_s, self.goal_time_s))


class Progress(NamedTuple):
    """
    One moment of a goal; joints in its own order, rad or m, seconds.

    ``point`` is the number of the point which is headed for, the number of points after the last;
    ``time_ns`` since the start, negative before it.
    """

    stamp_ns: int
    time_ns: int
    desired: List[State]  # position, velocity, acceleration
    actual: List[Tuple[float, float]]  # position, velocity
    point: int
    code: Optional[Code] = None  # None: it goes on
    text: str = ''


@dataclass
class TrajectoryGoal:
    """
    One goal: what it asks for, and since the first step that follows it the way of each joint.

    ``times_ns`` are its points, counted from sim time ``start_ns`` or, where that is 0, from the
    first step that follows it. ``columns`` are its joints among those of the world and ``number``
    that of the command which it is, once it was accepted.
    """

    names: Tuple[str, ...]
    times_ns: Tuple[int, ...]
    start_ns: int
    tolerances: Tolerances
    columns: Tuple[int, ...] = ()
    number: int = 0
    _plans: Tuple[Plan, ...] = ()
    _since_ns: int = 0  # sim time at which the first step began that follows it
    _is_first: bool = True

    @property
    def is_planned(self) -> bool:
        """Whether a step has followed it."""
        return bool(self._plans)

    def accepted(self, number: int, joint_names: Sequence[str]) -> 'TrajectoryGoal':
        """
        Take note that it is followed from the next step on.

        :param number: of the command
        :param joint_names: of the world, in order
        :return: the goal
        """
        self.number, self.columns = number, tuple(map(joint_names.index, self.names))
        return self

    def plan(self, plan_of: Callable[[int], Plan], sim_ns: int) -> None:
        """
        Take note of the way of each joint; the first step that follows the goal decides it.

        :param plan_of: plan of a joint of the world
        :param sim_ns: sim time at which that step begins
        """
        self.start_ns, self._since_ns = self.start_ns or sim_ns, sim_ns
        self._plans = tuple(map(plan_of, self.columns))

    def observe(self, stamp_ns: int, position: Union[Sequence[float], np.ndarray],
                velocity: Union[Sequence[float], np.ndarray]) -> Optional[Progress]:
        """
        Compare where the joints are with where they should be.

        :param stamp_ns: sim time of the frame
        :param position: (J,) of all joints of the world, rad or m
        :param velocity: (J,) rad/s or m/s
        :return: how far it is, and whether that is its end; None for what a step before showed
        """
        if not self._plans or stamp_ns <= self._since_ns:
            return None
        time_ns = stamp_ns - self.start_ns
        moment = Progress(stamp_ns, time_ns, [plan.at(stamp_ns) for plan in self._plans],
                          [(float(position[i]), float(velocity[i])) for i in self.columns],
                          bisect_right(self.times_ns, time_ns))
        code, text = self._judge(moment)
        self._is_first = False
        return moment._replace(code=code, text=text)

    def _judge(self, moment: Progress) -> Tuple[Optional[Code], str]:
        late_s = (moment.time_ns - self.times_ns[-1]) * 1e-9
        # The first moment may be the last one, too: of a single point that is due at once.
        if late_s < 0.0 or self._is_first:
            violated = self._violated(moment, 'path', self.tolerances.path)
            if violated:
                return Code.PATH_TOLERANCE_VIOLATED, violated
        if late_s < 0.0:
            return None, ''
        violated = self._violated(moment, 'goal', self.tolerances.goal)
        if not violated:
            return Code.SUCCESSFUL, 'Goal reached.'
        limit_s = self.tolerances.goal_time_s
        if limit_s and late_s > limit_s:
            return (Code.GOAL_TOLERANCE_VIOLATED,
                    f'{violated} {late_s:.3f} s after its end (goal_time_tolerance {limit_s:g} '
                    's).')
        return None, ''

    def _violated(self, moment: Progress, kind: str, tolerances: Sequence[Tolerance]) -> str:
        """Say which joint is too far off, and by how much; '' if none is."""
        for name, limits, desired, actual in zip(self.names, tolerances, moment.desired,
                                                 moment.actual):
            for what, limit, wanted, found in zip(('position', 'velocity'), limits, desired,
                                                  actual):
                if limit and abs(wanted - found) > limit:
                    return (f'{what} of {name} is {found:.4g}, {abs(wanted - found):.4g} off; '
                            f'{kind} tolerance {limit:g}.')
        return ''


def _asked(field: str, names: Sequence[str], asked: Iterable[AskedTolerance],
           position: float) -> Tuple[Tolerance, ...]:
    found = {name: Tolerance(position) for name in names}
    for name, *limits in asked:
        if name not in found:
            raise SpecError(f'{field} names joint {name!r}, which the trajectory does not move; '
                            f'it moves {", ".join(names)}')
        found[name] = Tolerance(*(_chosen(f'{field} of {name}', limit, default)
                                  for limit, default in zip(limits, (position, 0.0))))
    return tuple(found[name] for name in names)


def _chosen(field: str, asked: float, default: float) -> float:
    """Resolve the two special values: 0 is the default, -1 is none."""
    if asked == ERASED:
        return 0.0
    if not isfinite(asked) or asked < 0.0:
        raise SpecError(f'{field} is {asked:g}; send a limit, 0 for the default or -1 for none')
    return asked or default
