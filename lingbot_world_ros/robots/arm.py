# SPDX-License-Identifier: Apache-2.0
"""
The arm that the room and the reference world draw: pan, lift, elbow, wrist and two fingers.

Its sizes are read from the URDF. Its kinematics are formulas that NumPy and torch compute alike.
"""
from dataclasses import dataclass
from typing import Any, Tuple

from lingbot_world_ros.errors import shown, SpecError
from lingbot_world_ros.robots.urdf import RobotModel, UrdfJoint
import numpy as np

# Pairs of rows of ``Arm.points`` that a link joins, in drawing order.
SEGMENTS = ((0, 1), (1, 2), (2, 3), (4, 6), (4, 5), (6, 7))
NUM_JOINTS = 5
Array = Any  # of NumPy or of torch
SHAPE = ('an arm turns about z (pan), about y three times (lift, elbow, wrist; links along x), '
         'and ends in a finger that slides along y')


@dataclass(frozen=True)
class Arm:
    """
    Sizes [m] and kinematics.

    Chain in base_link: pan about z at the shoulder, then lift, elbow and wrist about y (positive
    bends down), links along x, then two parallel fingers that open along y. At 0 a finger is
    ``finger_gap_m`` beside the middle.
    """

    shoulder_m: Tuple[float, float, float]
    upper_arm_m: float
    forearm_m: float
    hand_m: float
    finger_m: float
    finger_gap_m: float

    def points(self, q: Array, xp: Any = np) -> Array:
        """
        Forward kinematics.

        :param q: (..., 5) joint positions [rad, rad, rad, rad, m]; NumPy, or torch with ``xp``
        :param xp: array module that offers cos, sin, stack (numpy or torch)
        :return: (..., 8, 3) points in base_link [m]: shoulder, elbow, wrist, palm, then left
            finger base and tip, right finger base and tip
        """
        pan, lift, elbow, wrist, grip = (q[..., i] for i in range(NUM_JOINTS))
        sx, sy, sz = self.shoulder_m
        cp, sp = xp.cos(pan), xp.sin(pan)
        a1, a2, a3 = lift, lift + elbow, lift + elbow + wrist

        def place(r: Array, z: Array, side: Array) -> Array:
            return xp.stack([sx + cp * r - sp * side, sy + sp * r + cp * side, sz + z], -1)

        zero = pan * 0.0
        r1, z1 = self.upper_arm_m * xp.cos(a1), -self.upper_arm_m * xp.sin(a1)
        r2, z2 = r1 + self.forearm_m * xp.cos(a2), z1 - self.forearm_m * xp.sin(a2)
        r3, z3 = r2 + self.hand_m * xp.cos(a3), z2 - self.hand_m * xp.sin(a3)
        r4, z4 = r3 + self.finger_m * xp.cos(a3), z3 - self.finger_m * xp.sin(a3)
        side = grip + self.finger_gap_m
        points = [place(zero, zero, zero), place(r1, z1, zero), place(r2, z2, zero),
                  place(r3, z3, zero), place(r3, z3, side), place(r4, z4, side),
                  place(r3, z3, -side), place(r4, z4, -side)]
        return xp.stack(points, -2)

    def links(self, q: np.ndarray) -> np.ndarray:
        """
        Return the lines that stand for the links.

        :param q: (..., 5) joint positions
        :return: (..., 6, 2, 3) ends in base_link [m]
        """
        return self.points(q)[..., np.array(SEGMENTS), :]


def read_arm(model: RobotModel, fingertip: str) -> Tuple[Arm, Tuple[str, ...]]:
    """
    Measure an arm of this kind.

    :param model: of the robot
    :param fingertip: link at the tip of the left finger
    :return: its sizes, and its five joints from the shoulder on
    :raises SpecError: no such link, or an arm of another kind
    """
    chain = model.chain(fingertip)
    moving = [i for i, joint in enumerate(chain) if joint.kind != 'fixed']
    axes = [tuple(map(abs, chain[i].axis)) for i in moving]
    kinds = [chain[i].kind == 'prismatic' for i in moving]
    y = (0.0, 1.0, 0.0)
    if axes != [(0.0, 0.0, 1.0), y, y, y, y] or kinds != [False] * 4 + [True] or _bends(chain):
        names = ', '.join(joint.name for joint in chain) or 'nothing'
        raise SpecError(f'{shown(SHAPE)}; the way to {shown(fingertip)} is {shown(names)}.')
    pan, lift, elbow, wrist, grip = moving
    shoulder = _between(chain[:lift + 1])
    lengths = [_between(chain[a + 1:b + 1]) for a, b in ((lift, elbow), (elbow, wrist))]
    palm, finger = _between(chain[wrist + 1:grip + 1]), _between(chain[grip + 1:])
    for x, side, up in (*lengths, finger, (palm[0], 0.0, palm[2])):
        if side or up or x < 0.0:
            raise SpecError(f'{shown(SHAPE)}; a link before {shown(fingertip)} is not along x.')
    arm = Arm(shoulder, lengths[0][0], lengths[1][0], palm[0], finger[0], palm[1])
    return arm, tuple(chain[i].name for i in moving)


def _bends(chain: Tuple[UrdfJoint, ...]) -> bool:
    """Tell whether a joint on the way is mounted turned, or turns the other way round."""
    return any(any(joint.rpy) or min(joint.axis) < 0.0 for joint in chain)


def _between(joints: Tuple[UrdfJoint, ...]) -> Tuple[float, float, float]:
    """Add up the offsets of joints that are mounted straight, metres."""
    x, y, z = (sum((joint.xyz[i] for joint in joints[1:]), joints[0].xyz[i] if joints else 0.0)
               for i in range(3))
    return x, y, z
