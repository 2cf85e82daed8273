# SPDX-License-Identifier: Apache-2.0
"""
Camera motion as six columns of an action, for engines that follow a camera.

Per frame the pose of the optical frame after it, seen from the optical frame before it: a
translation and a rotation vector, axes x right, y down, z forward. Zero is at rest. As columns
they are limited, recorded and replayed like every other action.
"""
from math import pi
from typing import List, Sequence, Tuple

from lingbot_world_ros.actions.layout import ActionDim, ActionLayout
from lingbot_world_ros.geometry.rotation import rotation_from_vector, vector_from_rotation
import numpy as np

MAX_TRANSLATION_M = 10.0  # per frame
NAMES = tuple(f'camera.{what}.{axis}' for what in ('translation', 'rotation') for axis in 'xyz')


def camera_action_dims() -> Tuple[ActionDim, ...]:
    """Return the columns, to be put behind those of ``robot_action_layout``."""
    units = [('m', MAX_TRANSLATION_M)] * 3 + [('rad', pi)] * 3
    return tuple(ActionDim(name, unit, -high, high) for name, (unit, high) in zip(NAMES, units))


def camera_columns(names: Sequence[str]) -> List[int]:
    """
    Find the columns in a layout.

    :param names: of all its columns
    :return: six indices, or none where the layout has not all six
    """
    known = {name: column for column, name in enumerate(names)}
    return [known[name] for name in NAMES] if set(NAMES) <= set(known) else []


def camera_actions(motion: np.ndarray) -> np.ndarray:
    """
    Write camera motion as columns.

    :param motion: (T, 4, 4) optical frame after each frame seen from the one before, metres
    :return: (T, 6) float64: translation [m], rotation vector [rad]
    """
    return np.concatenate([motion[:, :3, 3], vector_from_rotation(motion[:, :3, :3])], -1)


def camera_motion_of(actions: np.ndarray, layout: ActionLayout) -> np.ndarray:
    """
    Read camera motion from actions.

    :param actions: (T, A), columns as in ``layout``
    :param layout: of the world; without camera columns the camera rests
    :return: (T, 4, 4) float64 optical frame after each frame seen from the one before, metres
    """
    motion = np.tile(np.eye(4), (len(actions), 1, 1))
    columns = camera_columns(layout.names)
    if columns:
        values = np.asarray(actions, np.float64)[:, columns]
        motion[:, :3, 3] = values[:, :3]
        motion[:, :3, :3] = rotation_from_vector(values[:, 3:])
    return motion
