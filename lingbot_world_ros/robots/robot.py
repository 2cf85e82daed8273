# SPDX-License-Identifier: Apache-2.0
"""
What a robot is: drive, joints, cameras, footprint. Data only; ``robots.load`` reads it.

Frames follow REP-103: ``base_link`` on the floor under the base's centre (x forward, y left, z
up).
"""
from dataclasses import dataclass, replace
from typing import Optional, Tuple

from lingbot_world_ros.geometry.camera import MountedCamera
from lingbot_world_ros.robots.arm import Arm
from lingbot_world_ros.robots.drive import Drive
import numpy as np


@dataclass(frozen=True)
class JointSpec:
    """
    One commanded joint: ``unit`` is rad or m, limits in that unit, speed per second.

    ``lag_s`` is the time constant with which its velocity follows a commanded one.
    """

    name: str
    unit: str
    low: float
    high: float
    max_speed: float
    home: float
    lag_s: float = 0.0


@dataclass(frozen=True)
class RobotCamera:
    """
    One camera of a robot, and the link of its URDF that carries it.

    ``camera`` is where it is while all joints are at home; ``moves`` says that joints of the robot
    carry it along.
    """

    name: str
    link: str
    camera: MountedCamera
    moves: bool = False


@dataclass(frozen=True)
class Footprint:
    """
    The upright cylinder that encloses a robot, and the height of its base alone, metres.

    The base may be lower than what stands on it.
    """

    radius_m: float
    height_m: float
    base_height_m: float


@dataclass(frozen=True)
class Robot:
    """
    One robot.

    Engines predict the first of ``cameras``. ``arm`` is there where the joints are those of an
    arm that can be drawn. ``description`` is the URDF as XML, '' where there is none.
    """

    name: str
    drive: Drive
    cameras: Tuple[RobotCamera, ...]
    footprint: Footprint
    joints: Tuple[JointSpec, ...] = ()
    arm: Optional[Arm] = None
    description: str = ''

    @property
    def camera(self) -> MountedCamera:
        """The camera whose image engines predict."""
        return self.cameras[0].camera

    @property
    def joint_names(self) -> Tuple[str, ...]:
        """Return the joint names in command order."""
        return tuple(j.name for j in self.joints)

    def joint_array(self, field: str) -> np.ndarray:
        """Return one field of all joints as (J,) float64, for example ``'low'``."""
        return np.array([getattr(j, field) for j in self.joints], dtype=np.float64)

    def with_camera(self, camera: MountedCamera) -> 'Robot':
        """Return the same robot with another first camera at the same link."""
        first, *others = self.cameras
        return replace(self, cameras=(replace(first, camera=camera), *others))

    def with_quick_joints(self) -> 'Robot':
        """Return the same robot with joints that follow a command at once."""
        return replace(self, joints=tuple(replace(joint, lag_s=0.0) for joint in self.joints))
