# SPDX-License-Identifier: Apache-2.0
"""What an action is made of: named columns with units and limits. NumPy only, no ROS."""
from dataclasses import dataclass
from typing import Sequence, Tuple

from lingbot_world_ros.robots.robot import Robot
import numpy as np

LINEAR, LATERAL, ANGULAR = 'base.linear.x', 'base.linear.y', 'base.angular.z'
TWIST = (LINEAR, LATERAL, ANGULAR)  # a base that cannot strafe has no column for the second


def velocity_name(joint: str) -> str:
    """Return the name of the action column that moves a joint."""
    return f'{joint}.velocity'


@dataclass(frozen=True)
class ActionDim:
    """One column of an action: a named quantity with unit and limits."""

    name: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True)
class ActionLayout:
    """Order, units and limits of the columns of an action."""

    dims: Tuple[ActionDim, ...]

    @property
    def names(self) -> Tuple[str, ...]:
        """Column names, in order."""
        return tuple(d.name for d in self.dims)

    @property
    def low(self) -> np.ndarray:
        """Lower limits, (a,) float32."""
        return np.array([d.low for d in self.dims], np.float32)

    @property
    def high(self) -> np.ndarray:
        """Upper limits, (a,) float32."""
        return np.array([d.high for d in self.dims], np.float32)


def robot_action_layout(robot: Robot) -> ActionLayout:
    """
    Layout of a robot's action: base twist in base_link, then one velocity target per joint.

    :param robot: the robot
    :return: ``base.linear.x`` [m/s], ``base.linear.y`` [m/s] of a drive that strafes,
        ``base.angular.z`` [rad/s], ``<joint>.velocity`` [unit/s]
    """
    forward, sideways, turn = robot.drive.twist_range
    dims = [ActionDim(LINEAR, 'm/s', *forward)]
    dims += [ActionDim(LATERAL, 'm/s', *sideways)] if robot.drive.strafes else []
    dims += [ActionDim(ANGULAR, 'rad/s', *turn)]
    dims += [ActionDim(velocity_name(j.name), f'{j.unit}/s', -j.max_speed, j.max_speed)
             for j in robot.joints]
    return ActionLayout(tuple(dims))


def twists_of(actions: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """
    Read the base twist from actions.

    :param actions: (..., a)
    :param names: of the columns
    :return: (..., 3) float64 v_x, v_y [m/s], w_z [rad/s] in base_link, 0 without a column
    """
    twists = np.zeros((*actions.shape[:-1], 3))
    for axis, name in enumerate(TWIST):
        if name in names:
            twists[..., axis] = actions[..., names.index(name)]
    return twists


def joint_velocities_of(actions: np.ndarray, names: Sequence[str],
                        joints: Sequence[str]) -> np.ndarray:
    """
    Read joint velocities from actions.

    :param actions: (..., a)
    :param names: of the columns
    :param joints: J of them
    :return: (..., J) rad/s or m/s
    """
    return actions[..., [names.index(velocity_name(joint)) for joint in joints]]
