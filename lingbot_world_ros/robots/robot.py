# SPDX-License-Identifier: Apache-2.0
"""
The robot of the embedded world: a differential base with an arm in view of a head camera.

One home for its geometry, limits and kinematics, shared by the MuJoCo reference world, the
learned renderer and the ROS nodes. NumPy only. Frames follow REP-103: ``base_link`` on the floor
under the base's centre (x forward, y left, z up), ``camera_link`` with the same axes at the
camera, ``camera_optical_frame`` x right, y down, z forward.
"""
from dataclasses import dataclass

from lingbot_world_ros.geometry.camera import CameraSpec
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
class RobotSpec:
    """
    Sizes [m], limits and kinematics of base and arm.

    Arm chain in base_link: pan about z at the shoulder, then lift, elbow and wrist about y
    (positive bends down), links along x, then two parallel fingers that open along y.
    """

    base_radius_m: float = 0.34
    base_height_m: float = 0.38
    linear_low_mps: float = -0.4
    linear_high_mps: float = 0.8
    angular_max_radps: float = 1.5
    shoulder_m: tuple = (0.02, 0.0, 0.74)
    upper_arm_m: float = 0.16
    forearm_m: float = 0.14
    hand_m: float = 0.05
    finger_m: float = 0.07
    joints: tuple = (
        JointSpec('shoulder_pan_joint', 'rad', -1.2, 1.2, 1.5, 0.0, 0.06),
        JointSpec('shoulder_lift_joint', 'rad', -1.5, -0.4, 1.2, -0.9, 0.06),
        JointSpec('elbow_joint', 'rad', 0.2, 2.0, 1.5, 1.1, 0.057),
        JointSpec('wrist_joint', 'rad', -1.2, 1.2, 1.8, 0.0, 0.054),
        JointSpec('gripper_joint', 'm', 0.0, 0.045, 0.08, 0.03, 0.106),
    )
    camera: CameraSpec = CameraSpec()

    @property
    def joint_names(self) -> tuple:
        """Return the joint names in command order."""
        return tuple(j.name for j in self.joints)

    def joint_array(self, field: str) -> np.ndarray:
        """Return one field of all joints as (J,) float64, for example ``'low'``."""
        return np.array([getattr(j, field) for j in self.joints], dtype=np.float64)

    def arm_points(self, q, xp=np):
        """
        Forward kinematics of the visible arm.

        :param q: (..., 5) joint positions [rad, rad, rad, rad, m]; NumPy, or torch with ``xp``
        :param xp: array module that offers cos, sin, stack (numpy or torch)
        :return: (..., 8, 3) points in base_link [m]: shoulder, elbow, wrist, palm, then left
            finger base and tip, right finger base and tip
        """
        pan, lift, elbow, wrist, grip = (q[..., i] for i in range(5))
        sx, sy, sz = self.shoulder_m
        cp, sp = xp.cos(pan), xp.sin(pan)
        a1, a2, a3 = lift, lift + elbow, lift + elbow + wrist

        def place(r, z, side):
            return xp.stack([sx + cp * r - sp * side, sy + sp * r + cp * side, sz + z], -1)

        zero = pan * 0.0
        r1, z1 = self.upper_arm_m * xp.cos(a1), -self.upper_arm_m * xp.sin(a1)
        r2, z2 = r1 + self.forearm_m * xp.cos(a2), z1 - self.forearm_m * xp.sin(a2)
        r3, z3 = r2 + self.hand_m * xp.cos(a3), z2 - self.hand_m * xp.sin(a3)
        r4, z4 = r3 + self.finger_m * xp.cos(a3), z3 - self.finger_m * xp.sin(a3)
        side = grip + 0.012
        points = [place(zero, zero, zero), place(r1, z1, zero), place(r2, z2, zero),
                  place(r3, z3, zero), place(r3, z3, side), place(r4, z4, side),
                  place(r3, z3, -side), place(r4, z4, -side)]
        return xp.stack(points, -2)


ROBOT = RobotSpec()

# Pairs of rows of arm_points that a link joins, in drawing order.
ARM_SEGMENTS = ((0, 1), (1, 2), (2, 3), (4, 6), (4, 5), (6, 7))
