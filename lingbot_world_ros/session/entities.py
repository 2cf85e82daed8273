# SPDX-License-Identifier: Apache-2.0
"""What of a world can be moved, and where it is. No ROS."""
from dataclasses import dataclass, replace
from typing import Dict, Optional, Sequence, Tuple

from lingbot_world_ros.engines.interface import Observation
from lingbot_world_ros.geometry import se2
import numpy as np


@dataclass(frozen=True)
class EntityState:
    """
    Something in the scene that can be moved.

    ``category`` is ``'robot'`` or ``'object'``; ``pose`` (3,) x, y [m], yaw [rad] and ``twist``
    (3,) v_x, v_y [m/s], w_z [rad/s], both along the axes of the scene frame; ``stamp_ns`` sim time
    at which it is there.
    """

    name: str
    category: str
    pose: np.ndarray
    twist: np.ndarray
    stamp_ns: int


def entities_of(observation: Observation, stamp_ns: int, robot: str,
                objects: Sequence[str]) -> Dict[str, EntityState]:
    """
    List robot and movable objects.

    :param observation: its last frame counts
    :param stamp_ns: its sim time
    :param robot: name of the robot
    :param objects: names in the order of ``object_pose``
    :return: name -> EntityState
    """
    pose, twist = observation.base_pose[0, -1], observation.base_twist[0, -1]
    entities = [EntityState(robot, 'robot', pose, se2.rotated(twist, pose[2]), stamp_ns)]
    entities += [EntityState(name, 'object', pose, np.zeros(3), stamp_ns)
                 for name, pose in zip(objects, observation.object_pose[0, -1])]
    return {entity.name: entity for entity in entities}


def with_robot_at(observation: Observation, pose: Optional[np.ndarray] = None,
                  twist: Optional[np.ndarray] = None) -> Observation:
    """
    Put the robot elsewhere.

    :param observation: t = 1
    :param pose: (3,) x, y [m], yaw [rad] in the scene frame; None leaves it
    :param twist: (3,) in base_link; None leaves it
    :return: another observation
    """
    changed = {name: getattr(observation, name).copy() for name in ('base_pose', 'base_twist')}
    for name, value in (('base_pose', pose), ('base_twist', twist)):
        if value is not None:
            changed[name][0, 0] = value
    return replace(observation, **changed)


def with_object_at(observation: Observation, index: int,
                   pose: Optional[np.ndarray]) -> Observation:
    """
    Put an object elsewhere.

    :param observation: t = 1
    :param index: of the object
    :param pose: (3,) x, y [m], yaw [rad] in the scene frame; None leaves it
    :return: another observation
    """
    poses = observation.object_pose.copy()
    if pose is not None:
        poses[0, 0, index] = pose
    return replace(observation, object_pose=poses)


def anchor_of(observation: Observation) -> Tuple[float, ...]:
    """Return what a record needs to set the same from outside, as in WorldStatus.msg."""
    return tuple(np.concatenate([
        observation.base_pose[0, -1], observation.base_twist[0, -1],
        observation.object_pose[0, -1].ravel()]).tolist())
