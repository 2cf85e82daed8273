# SPDX-License-Identifier: Apache-2.0
"""
Rooms that no weights have learned, and a drive through one: what recordings are made of.

The truth is the reference world; what is recorded of it is what a robot has: pictures and depth
with a sensor's noise, odometry that drifts, joints, commands.
"""
from dataclasses import dataclass, replace
from typing import List, Tuple

from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.engines.reference.engine import ReferenceScene
from lingbot_world_ros.evaluation.command_sequences import command_sequence
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import Part, Scene, StartState, WALL_HEIGHT_M
import numpy as np

RATE_HZ = 15.0
KEEP_M = 0.22  # from things, beyond the robot's own size
DEPTH_FAR_M = 6.5  # a sensor sees no farther


@dataclass(frozen=True)
class Odometry:
    """How wheels lie: errors of scale, and a random walk of yaw [rad per sqrt(s)]."""

    scale: float = 0.015
    yaw_scale: float = 0.005
    yaw_walk: float = float(np.deg2rad(2.0) / np.sqrt(60.0))


BAD = Odometry(0.04, 0.03, float(np.deg2rad(8.0) / np.sqrt(60.0)))


@dataclass(frozen=True)
class Drive:
    """A drive: ``action`` (n, a) leads from frame n to n + 1; truth and odometry are (n, ...)."""

    scene: Scene
    robot: Robot
    action: np.ndarray
    rgb: np.ndarray  # (n, h, w, 3) uint8
    depth: np.ndarray  # (n, h, w) float32 metres, 0: none; noisy
    joints: np.ndarray  # (n, j)
    odometry: np.ndarray  # (n, 3) begins at 0 0 0
    true_pose: np.ndarray  # (n, 3) scene frame
    true_depth: np.ndarray  # (n, h, w)


def new_room(seed: int) -> Scene:
    """
    Furnish a room by chance, in colours of its own.

    :param seed: which one
    :return: a scene without movable things
    """
    rng = np.random.default_rng([77, seed])
    size = (float(rng.uniform(5.2, 7.0)), float(rng.uniform(4.6, 6.0)))
    lx, ly = size
    parts = [Part('plane', (lx / 2, ly / 2), (lx / 2, ly / 2, 0.0), f'tiles{seed}_floor',
                  solid=False),
             Part('plane', (lx / 2, ly / 2), (lx / 2, ly / 2, WALL_HEIGHT_M), 'ceiling',
                  (np.pi, 0.0, 0.0), solid=False)]
    for wall in ('south', 'north', 'west', 'east'):
        span = lx if wall in ('south', 'north') else ly
        parts.append(_on_wall(size, wall, span / 2, WALL_HEIGHT_M / 2, span, WALL_HEIGHT_M,
                              f'paint_wall_{seed}_{wall}', 0.0))
        for i, at in enumerate(np.linspace(0.25, 0.75, 2)):
            parts.append(_on_wall(size, wall, span * (at + float(rng.uniform(-0.08, 0.08))),
                                  float(rng.uniform(1.0, 1.4)), float(rng.uniform(0.6, 1.3)),
                                  float(rng.uniform(0.5, 0.9)), f'poster_{seed}_{wall}_{i}',
                                  0.012))
    materials = ('books', 'cabinet_white', f'paint_a{seed}', f'paint_b{seed}', f'poster_{seed}_x',
                 'crate', 'terracotta', f'paint_c{seed}')
    taken: List[Tuple[float, float, float]] = []
    for i in range(9):
        tall, round_ = float(rng.uniform(0.35, 1.6)), rng.random() < 0.35
        half = rng.uniform(0.14, 0.34, 2)
        radius = float(np.hypot(*half))
        along_wall = i < 6
        for _ in range(400):
            x, y = rng.uniform(0, lx), rng.uniform(0, ly)
            if along_wall:
                x, y = ((x, half[1] + 0.02), (x, ly - half[1] - 0.02), (half[0] + 0.02, y),
                        (lx - half[0] - 0.02, y))[i % 4]
            inside = half[0] < x < lx - half[0] and half[1] < y < ly - half[1]
            clear = all(np.hypot(x - a, y - b) > radius + r + 0.75 for a, b, r in taken)
            if inside and clear and (along_wall or min(x, lx - x, y, ly - y) > radius + 0.8):
                break
        else:
            continue
        taken.append((float(x), float(y), radius))
        material = materials[int(rng.integers(len(materials)))]
        if round_:
            parts.append(Part('cylinder', (float(half.min()), tall / 2), (x, y, tall / 2),
                              material))
        else:
            parts.append(Part('box', (*half, tall / 2), (x, y, tall / 2), material))
    return Scene(f'new_room_{seed}', 'new', seed, size, tuple(parts), ())


def _on_wall(size: Tuple[float, float], wall: str, along: float, z: float, width: float,
             height: float, material: str, gap: float) -> Part:
    from lingbot_world_ros.worlds.scenes import _on_wall as put
    return put(size, wall, along, z, width, height, material, gap)


def drive_through(scene: Scene, robot: Robot, seconds: float, seed: int,
                  odometry: Odometry = Odometry(), arm_moves: bool = False,
                  picture_lag_s: float = 0.0, auto_exposure: bool = False) -> Drive:
    """
    Tour a room: from place to place in sight of each other, with looks around.

    :param scene: the room
    :param robot: that drives
    :param seconds: of sim time
    :param seed: of the tour, the noise and the drift
    :param odometry: how it drifts
    :param arm_moves: whether the arm moves, too, else it stays at home
    :param picture_lag_s: by which pictures are taken after depth and poses
    :param auto_exposure: whether the camera brightens dark views and darkens bright ones
    :return: what was recorded and what was true
    """
    rng = np.random.default_rng([5, seed])
    sim = ReferenceScene(scene, robot, RATE_HZ)
    num = int(seconds * RATE_HZ)
    layout = robot_action_layout(robot)
    keep = robot.footprint.radius_m + KEEP_M
    start = _free_point(scene, robot, keep, rng)
    sim.set_state(StartState(np.array([*start, rng.uniform(-np.pi, np.pi)]),
                             robot.joint_array('home'), np.zeros((0, 3))))
    arm = command_sequence(robot, num, np.random.default_rng([6, seed]))[:, 2:]
    tour = _Tour(scene, robot, keep, rng)
    rgb, depth, joints, poses, actions, true_depth = [], [], [], [], [], []
    exposure = 1.0
    for i in range(num):
        seen, far = sim.render()
        if picture_lag_s:
            seen = _later(sim, picture_lag_s)
        if auto_exposure:
            wanted = float(np.clip(125.0 / max(float(seen.mean()), 1.0), 0.6, 1.6))
            exposure += 0.15 * (wanted - exposure)
            seen = np.clip(seen * exposure + 0.5, 0, 255).astype(np.uint8)
        rgb.append(seen)
        true_depth.append(far)
        noisy = far + rng.standard_normal(far.shape) * (0.002 + 0.0025 * far * far)
        depth.append(np.where(noisy < DEPTH_FAR_M, noisy, 0.0).astype(np.float32))
        joints.append(sim.joint_position)
        poses.append(sim.base_pose)
        action = np.zeros(len(layout.dims), np.float32)
        action[:2] = tour.command(sim.base_pose)
        if arm_moves:
            action[2:] = arm[i]
        actions.append(action)
        sim.step(action)
    sim.close()
    true = np.array(poses)
    return Drive(scene, robot, np.array(actions), np.array(rgb), np.array(depth),
                 np.array(joints), drifting(true, odometry, rng), true, np.array(true_depth))


def _later(sim: ReferenceScene, lag_s: float) -> np.ndarray:
    """Look again a moment later, and come back."""
    here, twist = sim.base_pose, sim.base_twist
    joints, speed = sim.joint_position, sim.joint_velocity
    there = se2.compose(here, se2.exponential(twist, lag_s))
    sim.set_state(StartState(there, joints, np.zeros((0, 3))))
    rgb, _ = sim.render()
    sim.set_state(StartState(here, joints, np.zeros((0, 3))))
    sim.set_speed(twist, speed)
    return rgb


def drifting(true_pose: np.ndarray, odometry: Odometry, rng: np.random.Generator) -> np.ndarray:
    """
    Say what wheels would.

    :param true_pose: (n, 3)
    :param odometry: how they lie
    :param rng: of the walk
    :return: (n, 3), begins at 0 0 0
    """
    steps = se2.relative(true_pose[:-1], true_pose[1:])
    steps[:, :2] *= 1.0 + odometry.scale
    steps[:, 2] = steps[:, 2] * (1.0 + odometry.yaw_scale) + rng.standard_normal(
        len(steps)) * odometry.yaw_walk / np.sqrt(RATE_HZ)
    out = np.zeros_like(true_pose)
    for i, step in enumerate(steps):
        out[i + 1] = se2.compose(out[i], step)
    return out


def _free_point(scene: Scene, robot: Robot, keep_m: float,
                rng: np.random.Generator) -> np.ndarray:
    while True:
        xy = rng.uniform((0.0, 0.0), scene.size_m)
        if scene.clearance_m(xy, robot.footprint.height_m) > keep_m:
            return xy


class _Tour:
    """Where to drive next, and how."""

    def __init__(self, scene: Scene, robot: Robot, keep_m: float,
                 rng: np.random.Generator) -> None:
        self._scene, self._robot, self._keep_m, self._rng = scene, robot, keep_m, rng
        self._targets: List[np.ndarray] = []
        self._left_rad = 0.0
        self._speed = 0.4
        self._smooth = np.zeros(2)

    def command(self, pose: np.ndarray) -> np.ndarray:
        wanted = self._wanted(pose)
        self._smooth += 0.35 * (wanted - self._smooth)
        return self._smooth

    def _wanted(self, pose: np.ndarray) -> np.ndarray:
        if abs(self._left_rad) > 0.0:
            turn = 0.6 * np.sign(self._left_rad)
            step = turn / RATE_HZ
            self._left_rad = 0.0 if abs(self._left_rad) <= abs(step) else self._left_rad - step
            return np.array([0.0, turn])
        if not self._targets or np.hypot(*(self._targets[-1] - pose[:2])) < 0.15:
            if self._targets and self._rng.random() < 0.5:
                self._left_rad = float(self._rng.uniform(1.0, 6.28) * self._rng.choice((-1, 1)))
            self._targets.append(self._next(pose[:2]))
            self._speed = float(self._rng.uniform(0.25, 0.5))
        off = se2.rotated(self._targets[-1] - pose[:2], -pose[2])
        angle = float(np.arctan2(off[1], off[0]))
        if abs(angle) > 0.5:
            return np.array([0.0, 0.7 * np.sign(angle)])
        return np.array([min(self._speed, 0.15 + np.hypot(*off)), 1.5 * angle])

    def _next(self, here: np.ndarray) -> np.ndarray:
        best, most = here, -1.0
        for _ in range(200):
            xy = _free_point(self._scene, self._robot, self._keep_m, self._rng)
            way = here + np.linspace(0, 1, 40)[:, None] * (xy - here)
            if self._scene.clearance_m(way, self._robot.footprint.height_m).min() < \
                    self._keep_m - 0.06 or np.hypot(*(xy - here)) < 0.4:
                continue
            new = min([np.hypot(*(xy - t)) for t in self._targets[-12:]], default=9.0)
            if new > most:
                best, most = xy, new
        return best


def with_camera(robot: Robot, pitch_deg: float = 0.0) -> Robot:
    """
    Tilt a robot's camera.

    :param robot: whose camera looks somewhere
    :param pitch_deg: further down
    :return: the same robot with that camera
    """
    camera = robot.camera
    roll, pitch, yaw = camera.rpy_rad
    return robot.with_camera(replace(camera, rpy_rad=(roll, pitch + np.deg2rad(pitch_deg), yaw)))
