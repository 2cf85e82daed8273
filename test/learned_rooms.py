# SPDX-License-Identifier: Apache-2.0
"""A small room that is computed, recordings of drives through it, and a world learned from one."""
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.geometry.se3 import pose_from_se2
from lingbot_world_ros.models.mapped.distances import Distances
from lingbot_world_ros.models.mapped.motion import Motion
from lingbot_world_ros.recording.aligned import AlignedWriter
import numpy as np
import pytest

RATE_HZ, SIZE_M, HEIGHT_M = 15.0, 3.0, 1.2
CAMERA = PinholeCamera.from_fovx(64, 48, np.deg2rad(80.0))
T_BASE_OPTICAL = CAMERA.mounted((0.05, 0.0, 0.5), (0.0, 0.3, 0.0)).T_base_optical
MOTION = Motion((1.0, 1.0, 1.0), (0.6, 1.0, 0.6))
BOX = np.array([[2.1, 1.9, -0.1], [2.6, 3.1, 0.7]])  # low and high corner of what stands there
WALLS = np.array([[200, 80, 60], [70, 150, 90], [80, 100, 190], [190, 170, 70]])
FLOOR, TOP, SIDES = np.array([120, 110, 100]), np.array([230, 220, 200]), np.array([150, 60, 150])


def drive(seconds, seed, start=(1.0, 1.0, 0.4)):
    """Wander about; returns commands (n, 3) and poses (n, 3) in the room."""
    rng, num = np.random.default_rng(seed), int(seconds * RATE_HZ)
    commands, poses = np.zeros((num, 3)), np.zeros((num, 3))
    pose, twist, turn = np.array(start), np.zeros((1, 3)), 0.0
    for i in range(num):
        if i % 12 == 0:
            turn = rng.uniform(-0.7, 0.7)
        ahead = se2.compose(pose, np.array([0.45, 0.0, 0.0]))[:2]
        is_free = (0.5 < ahead).all() and (ahead < SIZE_M - 0.5).all() and not (
            ahead > BOX[0, :2] - 0.4).all()
        commands[i] = (0.3, 0.0, turn) if is_free else (0.0, 0.0, 0.8)
        poses[i] = pose
        twist = MOTION.next_twist(twist, commands[i:i + 1])
        pose = se2.compose(pose, se2.exponential(twist[0], 1.0 / RATE_HZ))
    return commands, poses


def look(pose):
    """Draw the room from a base pose; returns rgb (h, w, 3) uint8 and depth (h, w) float32."""
    T = pose_from_se2(np.asarray(pose)) @ T_BASE_OPTICAL
    eye, rays = T[:3, 3], CAMERA.rays(CAMERA.pixel_grid()) @ T[:3, :3].T
    with np.errstate(divide='ignore', invalid='ignore'):
        low, high = -eye / rays, (np.array([SIZE_M, SIZE_M, HEIGHT_M]) - eye) / rays
        out = np.maximum(low, high)
        near, far = np.sort([(BOX[0] - eye) / rays, (BOX[1] - eye) / rays], axis=0)
    enter, leave = near.max(-1), far.min(-1)
    hits = (enter > 0) & (enter < leave)
    depth = np.where(hits, enter, out.min(-1))
    at = eye + depth[..., None] * rays
    wall = np.argmin(out, -1)
    index = np.where(wall == 0, rays[..., 0] > 0, 2 + (rays[..., 1] > 0)).astype(int)
    colour = np.where((wall == 2)[..., None], np.where((rays[..., 2] > 0)[..., None], TOP, FLOOR),
                      WALLS[index])
    colour = np.where(hits[..., None], SIDES, colour).astype(np.float64)
    wave = np.sin(5.0 * at[..., 0] + 1.0) * np.sin(4.0 * at[..., 1]) + np.sin(6.0 * at[..., 2])
    colour *= (1.0 + 0.2 * wave)[..., None]
    return np.clip(colour, 0, 255).astype(np.uint8), depth.astype(np.float32)


def distances_in_room(step_m=0.05, size_m=SIZE_M):
    """Return how far from any surface the corners of a grid are, as a learned place has it."""
    low, high = np.full(3, -0.2), np.array([size_m, size_m, HEIGHT_M]) + 0.2
    axes = [np.arange(a, b + 1e-9, step_m) for a, b in zip(low, high)]
    at = np.stack(np.meshgrid(*axes, indexing='ij'), -1)
    inside = np.minimum(at, np.array([size_m, size_m, HEIGHT_M]) - at).min(-1)
    beside = np.maximum(BOX[0] - at, at - BOX[1])
    outside = np.linalg.norm(np.maximum(beside, 0.0), axis=-1) + np.minimum(beside.max(-1), 0.0)
    return Distances(np.minimum(inside, outside), low, np.full(3, step_m))


def record_drive(folder, commands, poses, name='drive'):
    """Write a drive as an aligned recording; odometry drifts and begins at its own origin."""
    writer, rng = AlignedWriter(folder), np.random.default_rng(7)
    steps = se2.relative(poses[:-1], poses[1:]) * (1.012, 1.0, 0.99)
    odometry = [np.zeros(3)]
    for step in steps:
        odometry.append(se2.compose(odometry[-1], step))
    for command, pose, odom in zip(commands, poses, odometry):
        rgb, depth = look(pose)
        noise = rng.normal(0.0, 0.002, depth.shape) * depth ** 2
        writer.add(rgb=rgb, depth=depth + noise, action=command[[0, 2]], base_pose=odom)
    return writer.close(camera=CAMERA, T_base_optical=T_BASE_OPTICAL, name=name, rate_hz=RATE_HZ,
                        action_names=('linear_x', 'angular_z'), pose_frame='odom')


def learn_room(folder):
    """
    Learn the room from half a minute in it; about ten seconds of computing.

    Tests take the fixture ``box_world``, which does it once.
    """
    for package in ('torch', 'onnx', 'openvino', 'scipy'):
        pytest.importorskip(package)
    from lingbot_world_ros.training.learn import learn, Wanted
    from lingbot_world_ros.training.mapped import learn as steps, measure
    record_drive(folder / 'taught', *drive(32.0, 1))
    with pytest.MonkeyPatch.context() as patch:  # as little of everything as will do
        patch.setattr(measure, 'NUM_STARTS', 4)
        patch.setattr(steps, 'FUSED_FRAMES', 120)
        learn([folder / 'taught'], Wanted(folder / 'box_room', minutes=0.05, anyway=True))
    return folder / 'box_room'


def record_another_drive(folder):
    """Record 20 s of another drive; tests take the fixture ``box_drive``."""
    commands, poses = drive(20.0, 2, (1.9, 0.9, 2.2))
    return record_drive(folder / 'aligned', commands, poses), poses
