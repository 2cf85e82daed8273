# SPDX-License-Identifier: Apache-2.0
"""
control_msgs/FollowJointTrajectory -> plain values, and what its client is told.

Messages are handed in and filled, so nothing here imports control_msgs, which some machines lack.
"""
from array import array
from math import isnan
from typing import Any, List, Sequence

from lingbot_world_ros.actions.trajectory_goal import Constraints, Progress, TrajectoryGoal
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages.stamps import set_stamp, stamp_to_ns
from trajectory_msgs.msg import JointTrajectoryPoint


def goal_from_msg(goal: Any, constraints: Constraints) -> TrajectoryGoal:
    """
    Read a goal, but for what is checked of every trajectory.

    :param goal: control_msgs/FollowJointTrajectory_Goal
    :param constraints: what holds where the goal says nothing
    :return: the goal, of those of its joints that some point has a position for
    :raises SpecError: it asks for what cannot be done
    """
    trajectory = goal.trajectory
    points = trajectory.points
    if not points:
        raise SpecError('it has no points; cancel the goal before it to stop')
    if goal.multi_dof_trajectory.points or goal.multi_dof_trajectory.joint_names:
        raise SpecError('multi_dof_trajectory is not offered; leave it empty')
    if goal.component_path_tolerance or goal.component_goal_tolerance:
        raise SpecError('tolerances of components are for joints with several degrees of freedom, '
                        'of which there are none; leave them empty')
    if any(len(point.effort) for point in points):
        raise SpecError('effort is not offered; leave it empty')
    names = tuple(name for number, name in enumerate(trajectory.joint_names)
                  if not all(number < len(point.positions) and isnan(point.positions[number])
                             for point in points))
    if trajectory.joint_names and not names:
        raise SpecError('all its positions are NaN; send one for some joint')
    return TrajectoryGoal(
        names, tuple(stamp_to_ns(point.time_from_start) for point in points),
        stamp_to_ns(trajectory.header.stamp), constraints.tolerances(
            names, _tolerances(goal.path_tolerance), _tolerances(goal.goal_tolerance),
            stamp_to_ns(goal.goal_time_tolerance) * 1e-9))


def feedback_to_msg(progress: Progress, names: Sequence[str], feedback: Any) -> Any:
    """
    Tell how far a goal is.

    :param progress: one moment of it
    :param names: its joints
    :param feedback: control_msgs/FollowJointTrajectory_Feedback to fill
    :return: the same
    """
    set_stamp(feedback.header.stamp, progress.stamp_ns)
    feedback.joint_names = list(names)
    desired, actual = list(zip(*progress.desired)), list(zip(*progress.actual))
    feedback.desired = _point(progress.time_ns, *desired)
    feedback.actual = _point(progress.time_ns, *actual)
    feedback.error = _point(progress.time_ns, *([a - b for a, b in zip(wanted, found)]
                                                for wanted, found in zip(desired, actual)))
    if hasattr(feedback, 'index'):  # from control_msgs 6.3 on, that of Kilted
        feedback.index = progress.point
    return feedback


def _point(time_ns: int, position: Sequence[float], velocity: Sequence[float],
           acceleration: Sequence[float] = ()) -> JointTrajectoryPoint:
    point = JointTrajectoryPoint(positions=array('d', position), velocities=array('d', velocity),
                                 accelerations=array('d', acceleration))
    set_stamp(point.time_from_start, time_ns)
    return point


def _tolerances(tolerances: Sequence[Any]) -> List[tuple]:
    return [(each.name, each.position, each.velocity) for each in tolerances]
