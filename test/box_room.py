# SPDX-License-Identifier: Apache-2.0
"""A box-shaped room, drawn by geometry alone: pictures and depth without a learned thing."""
from dataclasses import replace

from bench.new_rooms import drifting, Drive, Odometry
from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.geometry import se2, se3
from lingbot_world_ros.models.mapped.motion import Motion, path
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.worlds.scenes import Scene
import numpy as np

SIZE_M = np.array([4.0, 3.2, 2.2])
PILLAR_M = np.array([[2.5, 1.9], [2.9, 2.3]])  # from the floor to the ceiling
MOTION = Motion(gain=(0.9, 1.0, 1.1), follow=(0.5, 1.0, 0.6), delay_frames=1)
RATE_HZ = 15.0
MIDDLE_M = np.array([1.35, 1.45])


def small_robot(width=64, height=48):
    """Return the shipped robot without joints, its camera small."""
    robot = load_robot()
    robot = robot.with_camera(robot.camera.resized(width, height))
    return replace(robot, joints=(), arm=None)


def look(T_scene_optical, camera):
    """Return rgb (h, w, 3) uint8 and depth (h, w) metres."""
    rays = camera.rays(camera.pixel_grid()) @ T_scene_optical[:3, :3].T
    eye = T_scene_optical[:3, 3]
    with np.errstate(divide='ignore', invalid='ignore'):
        inverse = 1.0 / np.where(np.abs(rays) < 1e-9, 1e-9, rays)
        far = np.maximum(-eye * inverse, (SIZE_M - eye) * inverse).min(-1)
        low = (np.minimum(*((p - eye[:2]) * inverse[..., :2] for p in PILLAR_M))).max(-1)
        high = (np.maximum(*((p - eye[:2]) * inverse[..., :2] for p in PILLAR_M))).min(-1)
    hits = (low < high) & (low > 0) & (low < far)
    depth = np.where(hits, low, far)
    at = eye + depth[..., None] * rays
    # Soft stripes, and a colour of its own for each side.
    side = np.argmax(np.abs(np.stack([at[..., 0] / SIZE_M[0] - 0.5, at[..., 1] / SIZE_M[1] - 0.5,
                                      at[..., 2] / SIZE_M[2] - 0.5], -1)), -1)
    high_side = np.take_along_axis(at / SIZE_M, side[..., None], -1)[..., 0] > 0.5
    hue = np.array([[0.8, 0.4, 0.3], [0.3, 0.7, 0.4], [0.4, 0.45, 0.6], [0.75, 0.7, 0.3],
                    [0.6, 0.35, 0.6], [0.85, 0.85, 0.8]])[side + 3 * high_side]
    hue = np.where(hits[..., None], [0.2, 0.3, 0.8], hue)
    stripes = 0.85 + 0.15 * np.sin(at @ np.array([[5.0, 1.0], [1.0, 6.0], [3.0, 2.0]])).prod(-1)
    return np.clip(255 * hue * stripes[..., None], 0, 255).astype(np.uint8), depth


def drive(num=450, seed=0, odometry=Odometry(), robot=None):
    """Drive around in the room by commands; returns ``bench.new_rooms.Drive``."""
    robot = robot or small_robot()
    rng = np.random.default_rng(seed)
    commands, start = np.zeros((num + 1, 3)), np.array([*MIDDLE_M, 0.3])
    for i in range(0, num, 15):  # turn to whichever side leads back to the middle
        ends = []
        turns = rng.uniform(0.3, 1.2, 2) * [1.0, -1.0]
        for turn in turns:
            commands[i:i + 15] = [0.2 + 0.2 * rng.random(), 0.0, turn]
            end = se2.compose(start, path(MOTION.twists(commands[:i + 15]), 1 / RATE_HZ)[-1])
            ends.append(np.hypot(*(end[:2] - MIDDLE_M)))
        commands[i:i + 15, 2] = turns[int(np.argmin(ends))]
    true = se2.compose(start, path(MOTION.twists(commands), 1.0 / RATE_HZ)[:num])
    commands = commands[:num]
    rgb, depth = [], []
    for pose in true:
        picture, far = look(se3.pose_from_se2(pose) @ robot.camera.T_base_optical, robot.camera)
        rgb.append(picture)
        depth.append(far + rng.standard_normal(far.shape) * 0.003)
    action = np.zeros((num, len(robot_action_layout(robot).dims)), np.float32)
    action[:, 0], action[:, 1] = commands[:, 0], commands[:, 2]
    scene = Scene('box', 'box', 0, (float(SIZE_M[0]), float(SIZE_M[1])), (), ())
    return Drive(scene, robot, action, np.array(rgb), np.array(depth, np.float32),
                 np.zeros((num, 0)), drifting(true, odometry, rng), true, np.array(depth))
