# SPDX-License-Identifier: Apache-2.0
"""What can be commanded, what was asked of one step, and what happened to commands."""
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import List, Mapping, Tuple

from lingbot_world_ros.actions.camera_columns import camera_columns
from lingbot_world_ros.actions.layout import (ActionLayout, ANGULAR, LATERAL, LINEAR, TWIST,
                                              velocity_name)
from lingbot_world_ros.actions.limits import BASE, Limits
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.robots.drive import Drive
from lingbot_world_ros.robots.urdf import JointLimits
import numpy as np


@dataclass(frozen=True)
class CommandSpec:
    """
    What can be commanded: action layout, joints with position limits, limits, and the timeout.

    ``joint_low`` and ``joint_high`` are (J,) in rad or m. A velocity command that is not repeated
    for ``timeout_s`` becomes zero; ``ages_in_sim_time`` says in which time. ``limits`` and
    ``joint_speed_limit`` ((J,) rad/s or m/s, empty for none) hold on top of those of the layout.
    A base that is steered turns on circles of at least 1 / ``max_curvature`` metres.
    """

    action: ActionLayout
    joint_names: Tuple[str, ...]
    joint_low: Tuple[float, ...]
    joint_high: Tuple[float, ...]
    timeout_s: float
    ages_in_sim_time: bool = False
    limits: Limits = Limits()
    joint_speed_limit: Tuple[float, ...] = ()
    max_curvature: float = inf  # 1/m

    def __post_init__(self) -> None:
        """Refuse layouts that cannot carry the commands."""
        wanted = (LINEAR, ANGULAR, *map(velocity_name, self.joint_names))
        missing = sorted(set(wanted) - set(self.action.names))
        if missing:
            raise SpecError(f'The action layout has no column {", ".join(missing)}; the world '
                            f'offers {", ".join(self.action.names)}.')
        lengths = {len(self.joint_names), len(self.joint_low), len(self.joint_high)}
        if len(lengths) > 1 or len(set(self.joint_names)) != len(self.joint_names):
            raise SpecError('The joints of the world have no limits each, or a name comes twice: '
                            f'{", ".join(self.joint_names)}.')
        lows, highs = zip(*[(dim.low, dim.high) for dim in self.action.dims])
        if not all(low <= high for low, high in zip(lows + tuple(self.joint_low),
                                                    highs + tuple(self.joint_high))):
            raise SpecError('The limits of the world are not numbers with low <= high.')
        if not self.timeout_s > 0.0:
            raise SpecError(f'cmd_timeout_s={self.timeout_s} must be more than 0 seconds.')

    def within(self, robot: Mapping[str, JointLimits]) -> 'CommandSpec':
        """
        Tighten the joint limits to those of a robot description.

        :param robot: limits by joint name; names the world does not have are of no interest
        :return: the new spec
        :raises SpecError: a joint of the world is missing there, or no position is left to it
        """
        missing = [name for name in self.joint_names if name not in robot]
        if missing:
            raise SpecError(f'robot_description has no movable joint {", ".join(missing)}, which '
                            f'the world has; it has {", ".join(sorted(robot)) or "none"}.')
        limits = [robot[name] for name in self.joint_names]
        low = tuple(max(a, b.low) for a, b in zip(self.joint_low, limits))
        high = tuple(min(a, b.high) for a, b in zip(self.joint_high, limits))
        for name, joint_low, joint_high in zip(self.joint_names, low, high):
            if joint_low > joint_high:
                raise SpecError(f'Joint {name} has no position: robot_description and the world '
                                f'together leave {joint_low:g} to {joint_high:g}; correct its '
                                'limits.')
        return replace(self, joint_low=low, joint_high=high,
                       joint_speed_limit=tuple(limit.speed for limit in limits))

    def driven_by(self, drive: Drive) -> 'CommandSpec':
        """
        Keep to what a drive can follow and the layout does not say.

        :param drive: of the robot
        :return: the new spec
        :raises SpecError: the world has another robot
        """
        if drive.strafes != (LATERAL in self.action_names):
            wants = 'strafes' if drive.strafes else 'does not strafe'
            raise SpecError(f'The robot {wants}, and the world offers '
                            f'{", ".join(self.action_names)}; run both with the same robot.')
        return replace(self, max_curvature=drive.max_curvature)

    @cached_property
    def action_names(self) -> Tuple[str, ...]:
        """Names of the action columns, in order."""
        return self.action.names

    @cached_property
    def base_axes(self) -> List[int]:
        """Which of v_x, v_y, w_z the base follows: 0, 2 and, where it strafes, 1."""
        return [axis for axis, name in enumerate(TWIST) if name in self.action_names]

    @cached_property
    def base_columns(self) -> List[int]:
        """Action columns of ``base_axes``."""
        return [self.action_names.index(TWIST[axis]) for axis in self.base_axes]

    @cached_property
    def joint_columns(self) -> List[int]:
        """Action columns of the joints, in order."""
        return [self.action_names.index(velocity_name(name)) for name in self.joint_names]

    @cached_property
    def camera_columns(self) -> List[int]:
        """Action columns of the camera's motion; none where the world takes no such motion."""
        return camera_columns(self.action_names)

    @cached_property
    def twist_range(self) -> Tuple[Tuple[float, float], ...]:
        """Lowest and highest v_x, v_y [m/s] and w_z [rad/s]."""
        limits = self.limits
        asked = (limits.linear_velocity_mps,) * 2 + (limits.angular_velocity_radps,)
        ranges = [(0.0, 0.0)] * BASE
        for axis, column in zip(self.base_axes, self.base_columns):
            dim, limit = self.action.dims[column], asked[axis] or inf
            ranges[axis] = max(dim.low, -limit), min(dim.high, limit)
        return tuple(ranges)

    @cached_property
    def engine_joint_speed(self) -> np.ndarray:
        """Largest speed of each joint in the engine, (J,) float64, rad/s or m/s."""
        return np.array([self.action.dims[column].high for column in self.joint_columns], float)

    @cached_property
    def joint_speed(self) -> np.ndarray:
        """Largest speed of each joint that is allowed, (J,) float64, rad/s or m/s."""
        return np.minimum(self.engine_joint_speed, self.joint_speed_limit or inf)

    @cached_property
    def acceleration(self) -> np.ndarray:
        """Largest accelerations of v_x, v_y, w_z and joints, (3 + J,); inf for none."""
        limits = self.limits
        joints = [limits.joint_acceleration] * len(self.joint_names)
        asked = [limits.linear_acceleration_mps2, limits.linear_acceleration_mps2,
                 limits.angular_acceleration_radps2, *joints]
        return np.array([value or inf for value in asked])

    @cached_property
    def paced_joints(self) -> np.ndarray:
        """Joints that must not be told the goal at once, (J,) bool: the engine is too quick."""
        return (self.joint_speed < self.engine_joint_speed) | np.isfinite(self.acceleration[BASE:])


@dataclass(frozen=True)
class Targets:
    """
    What one step is asked to do; t frames, J joints.

    ``twist`` (t, 3) float64: v_x, v_y [m/s], w_z [rad/s], in base_link, constant over a frame.
    ``joint_position`` (t, J): rad or m after each frame, NaN where no position was asked for.
    ``joint_velocity`` (t, J): rad/s or m/s, zero where a position was asked for.
    ``valid_until_ns``: sim time up to which repeating the last frame's targets is right, 0 for
    ever.
    """

    twist: np.ndarray
    joint_position: np.ndarray
    joint_velocity: np.ndarray
    valid_until_ns: int = 0


@dataclass(frozen=True)
class CommandCounts:
    """
    What happened to commands since the encoder started, and the newest problem in words.

    ``stale`` ones, whose stamp was too old, are among the ``rejected``.
    """

    accepted: int = 0
    rejected: int = 0
    clipped: int = 0
    timed_out: int = 0
    message: str = ''
    stale: int = 0
