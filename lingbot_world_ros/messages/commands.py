# SPDX-License-Identifier: Apache-2.0
"""Command messages -> plain values for ``actions.commands``, and the messages a sender needs."""
from array import array
from typing import Iterable, List, Sequence, Tuple, Union

from geometry_msgs.msg import Twist, TwistStamped
from lingbot_world_ros.messages.stamps import stamp_to_ns
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

Vector = Tuple[float, float, float]  # x, y, z


def twist_from_msg(msg: Union[Twist, TwistStamped]) -> Tuple[Vector, Vector, int]:
    """
    Read a Twist or a TwistStamped.

    :param msg: geometry_msgs/Twist or TwistStamped, in base_link
    :return: linear x, y, z [m/s]; angular x, y, z [rad/s]; stamp [ns], 0 for now
    """
    stamp_ns, twist = 0, msg
    if isinstance(msg, TwistStamped):
        stamp_ns, twist = stamp_to_ns(msg.header.stamp), msg.twist
    linear, angular = twist.linear, twist.angular
    return (linear.x, linear.y, linear.z), (angular.x, angular.y, angular.z), stamp_ns


def twist_to_msg(v_mps: float, w_radps: float, stamped: bool = False,
                 lateral_mps: float = 0.0) -> Union[Twist, TwistStamped]:
    """
    Write a base velocity.

    :param v_mps: forward
    :param w_radps: turn, left positive
    :param stamped: make a TwistStamped (stamp 0: now)
    :param lateral_mps: to the left
    :return: geometry_msgs/Twist or TwistStamped
    """
    twist = Twist()
    twist.linear.x, twist.linear.y = float(v_mps), float(lateral_mps)
    twist.angular.z = float(w_radps)
    if not stamped:
        return twist
    msg = TwistStamped(twist=twist)
    msg.header.frame_id = 'base_link'
    return msg


def joint_command_from_msg(
        msg: JointState) -> Tuple[Sequence[str], Sequence[float], Sequence[float]]:
    """Return names, positions and velocities (either may be empty) of a JointState."""
    return msg.name, msg.position, msg.velocity


def joint_command_to_msg(names: Iterable[str], position: Iterable[float] = (),
                         velocity: Iterable[float] = ()) -> JointState:
    """
    Write a joint command.

    :param names: joints to move
    :param position: rad or m, one per name, or empty
    :param velocity: rad/s or m/s, one per name, or empty
    :return: sensor_msgs/JointState
    """
    return JointState(name=list(names), position=array('d', position),
                      velocity=array('d', velocity))


def trajectory_from_msg(msg: JointTrajectory) -> Tuple[
        Sequence[str], List[float], List[Sequence[float]], List[Sequence[float]],
        List[Sequence[float]], int]:
    """
    Read a JointTrajectory.

    :param msg: trajectory_msgs/JointTrajectory
    :return: names; times from start [s]; positions, velocities and accelerations, one list per
        point; start [ns], 0 for now
    """
    points = msg.points
    times_s = [stamp_to_ns(point.time_from_start) * 1e-9 for point in points]
    return (msg.joint_names, times_s, [point.positions for point in points],
            [point.velocities for point in points], [point.accelerations for point in points],
            stamp_to_ns(msg.header.stamp))
