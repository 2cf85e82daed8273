# SPDX-License-Identifier: Apache-2.0
"""
Where a round base touches what stands in a scene: geometry alone, on the floor plan.

Nothing here tells whether it touches anything, and a pose that is off tells of the wrong place.
Pure NumPy.
"""
from typing import List, Tuple

from lingbot_world_ros.geometry import se2
from lingbot_world_ros.worlds.placement import CONTACT_TOLERANCE_M
from lingbot_world_ros.worlds.scenes import Scene
import numpy as np

SLACK_M = 0.001  # two surfaces that are touched at once are rarely as near to the digit


def touched(scene: Scene, base_pose: np.ndarray, object_pose: np.ndarray, radius_m: float,
            height_m: float) -> np.ndarray:
    """
    Find in which directions a base that is known to touch something does so.

    It touches what it overlaps, or else the nearest surface.

    :param scene: it is in
    :param base_pose: (3,) x, y [m], yaw [rad], scene frame
    :param object_pose: (n, 3) of the movable objects, same frame
    :param radius_m: of the base
    :param height_m: of the robot; what hangs higher is not in its way
    :return: (k,) bearings in base_link, rad, counted to the left, the nearest surface first;
        none if nothing is within ``CONTACT_TOLERANCE_M`` of the rim
    """
    found = _walls(scene, base_pose[:2])
    found += [_toward(part.shape, part.size, np.array([*part.pos[:2], part.euler[2]]),
                      base_pose[:2])
              for part in scene.obstacles(height_m)]
    found += [_toward(movable.shape, movable.size, pose, base_pose[:2])
              for movable, pose in zip(scene.movables, object_pose)]
    gap_m = np.array([distance_m for distance_m, _ in found]) - radius_m
    nearest = np.argsort(gap_m, kind='stable')
    nearest = nearest[gap_m[nearest] <= min(CONTACT_TOLERANCE_M, max(gap_m.min(), 0.0) + SLACK_M)]
    way = np.array([found[i][1] for i in nearest]).reshape(-1, 2)
    return np.arctan2(way[:, 1], way[:, 0]) - base_pose[2]


Near = Tuple[float, np.ndarray]  # signed distance of a surface [m], and the way to it (2,)


def _walls(scene: Scene, xy: np.ndarray) -> List[Near]:
    """Look from a point at the four walls."""
    (x, y), (width_m, depth_m) = xy, scene.size_m
    return [(x, np.array([-1.0, 0.0])), (width_m - x, np.array([1.0, 0.0])),
            (y, np.array([0.0, -1.0])), (depth_m - y, np.array([0.0, 1.0]))]


def _toward(shape: str, size: Tuple[float, ...], pose: np.ndarray, xy: np.ndarray) -> Near:
    """Look from a point at an upright box, a cylinder or a sphere; from inside to its middle."""
    local = se2.rotated(xy - pose[:2], -pose[2])
    if shape != 'box':
        away_m = np.hypot(*local)
        return away_m - size[0], -se2.rotated(local, pose[2]) / max(away_m, 1e-9)
    half = np.array(size[:2])
    off = np.abs(local) - half
    if off.max() <= 0.0:
        way = np.where(np.arange(2) == off.argmax(), np.where(local < 0.0, 1.0, -1.0), 0.0)
        return off.max(), se2.rotated(way, pose[2])
    way = np.clip(local, -half, half) - local
    return np.hypot(*way), se2.rotated(way / np.hypot(*way), pose[2])
