# SPDX-License-Identifier: Apache-2.0
"""
Starts that scenes do not draw by themselves, to judge policies where they were not trained.

One of three, drawn by the seed: the robot stands with its rim 1 to 6 cm from a wall or furniture;
the arm is held where the camera sees most of it; every movable object stands 1 to 4 cm from a wall
or furniture. NumPy only.
"""
from typing import List
import zlib

from lingbot_world_ros.envs.tasks import Seen
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import Scene, StartState
import numpy as np

KINDS = ('near_wall', 'arm_in_view', 'objects_aside')
GAP_M = 0.05  # between discs
TRIES, ARMS, LINK_POINTS = 4000, 60, 8


def unusual_state(scene: Scene, seed: int, usual: Seen, robot: Robot) -> StartState:
    """
    Change a start into an unusual one.

    :param scene: that it is in
    :param seed: of the episode
    :param usual: the state that the scene draws for this seed, n = 1
    :param robot: that stands there
    :return: the state to begin in
    """
    rng = np.random.default_rng([zlib.crc32(f'unusual/{scene.name}'.encode()), seed])
    base, joints = usual.base_pose[0].copy(), usual.joint_position[0].copy()
    objects = usual.object_pose[0].copy()
    footprint = robot.footprint
    sizes_m = [movable.radius_m for movable in scene.movables]
    kinds = [kind for kind in KINDS if kind != 'arm_in_view' or robot.arm is not None]
    kind = kinds[int(rng.integers(len(kinds)))]
    if kind == 'near_wall':
        taken = [np.array([*xy, size_m]) for xy, size_m in zip(objects[:, :2], sizes_m)]
        base[:2] = _beside(scene, footprint.radius_m, footprint.height_m, (0.01, 0.06), taken, rng,
                           base[:2])
        base[2] = rng.uniform(-np.pi, np.pi)
    elif kind == 'arm_in_view':
        low, high = robot.joint_array('low'), robot.joint_array('high')
        held = low + (high - low) * rng.uniform(0.05, 0.95, (ARMS, len(low)))
        joints = held[int(np.argmax(_share_in_view(robot, held)))]
    else:
        taken = [np.array([*base[:2], footprint.radius_m])]
        for i, size_m in enumerate(sizes_m):
            objects[i, :2] = _beside(scene, size_m, footprint.height_m, (0.01, 0.04), taken, rng,
                                     objects[i, :2])
            taken.append(np.array([*objects[i, :2], size_m]))
    return StartState(base, joints, objects)


def _beside(scene: Scene, radius_m: float, height_m: float, gap_m: tuple,
            taken: List[np.ndarray], rng: np.random.Generator, else_: np.ndarray) -> np.ndarray:
    """Draw where a disc stands so far from what is fixed; ``else_`` where nothing is found."""
    points = rng.uniform((0.0, 0.0), scene.size_m, (TRIES, 2))
    free_m = scene.clearance_m(points, height_m) - radius_m
    fits = (free_m >= gap_m[0]) & (free_m <= gap_m[1])
    for x, y, size_m in taken:
        fits &= np.hypot(points[:, 0] - x, points[:, 1] - y) > radius_m + size_m + GAP_M
    return points[int(np.argmax(fits))] if fits.any() else else_


def _share_in_view(robot: Robot, joints: np.ndarray) -> np.ndarray:
    """Say how much of the arm is in the middle half of the picture, (m,) from 0 to 1."""
    assert robot.arm is not None, 'only asked of robots that have one'
    camera = robot.camera
    ends = robot.arm.links(joints)  # m links 2 3
    along = np.linspace(0.0, 1.0, LINK_POINTS)[:, None, None]
    points = (ends[..., 0, :] + along[..., None] * (ends[..., 1, :] - ends[..., 0, :]))
    T = np.linalg.inv(camera.T_base_optical)
    optical = points @ T[:3, :3].T + T[:3, 3]
    z = optical[..., 2]
    u, v = (np.abs(optical[..., i] / np.maximum(z, 1e-3)) for i in range(2))
    half = np.array([camera.width_px / camera.fx_px, camera.height_px / camera.fy_px]) / 4.0
    return ((z > 0.05) & (u < half[0]) & (v < half[1])).mean((0, 2))
