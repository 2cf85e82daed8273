# SPDX-License-Identifier: Apache-2.0
"""
Action embeddings: commands as motion of the camera and the joints over the coming step.

``encode`` makes one on the command side; ``actions_at_latch`` reads one on the world's side at
the last moment before a step. No ROS. Camera axes are optical (x right, y down, z forward).
"""
from dataclasses import dataclass
from typing import Tuple

from lingbot_world_ros.actions.commands import ANGULAR, CommandSpec, LINEAR, Targets, velocity_name
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.worlds.world_model import ActionLayout
import numpy as np


@dataclass(frozen=True)
class CameraModel:
    """The camera an embedding speaks of: size, (3, 3) intrinsics, (4, 4) pose in base_link."""

    width_px: int
    height_px: int
    k: np.ndarray
    T_base_optical: np.ndarray


@dataclass(frozen=True)
class CommandCounts:
    """What happened to commands since the encoder started, and the newest problem in words."""

    accepted: int = 0
    rejected: int = 0
    clipped: int = 0
    timed_out: int = 0
    message: str = ''


@dataclass(frozen=True)
class ActionEmbedding:
    """
    One step's worth of asked-for motion; T frames, J joints, A action columns.

    ``camera_motion`` (T, 4, 4): optical frame after a frame seen from the one before, metres.
    ``joint_position`` (T, J): rad or m, NaN where none was asked for. ``joint_velocity`` (T, J).
    ``embedding`` (T, A) float32 in the order of ``layout``; units of the action layout.
    """

    sequence: int
    stamp_ns: int
    period_s: float
    camera_motion: np.ndarray
    joint_names: Tuple[str, ...]
    joint_position: np.ndarray
    joint_velocity: np.ndarray
    camera: CameraModel
    layout: Tuple[str, ...]
    embedding: np.ndarray
    counts: CommandCounts = CommandCounts()
    valid_until_ns: int = 0


def integrate_twist(v_mps: float, w_radps: float, dt_s: float) -> np.ndarray:
    """
    Move a planar body along a constant twist (exact SE(2) exponential).

    :param v_mps: forward speed in the body's own frame
    :param w_radps: turn rate, counter-clockwise positive
    :param dt_s: for how long
    :return: (4, 4) float64 pose of the body afterwards in its frame before
    """
    angle = w_radps * dt_s
    if abs(angle) < 1e-9:
        x, y = v_mps * dt_s, 0.5 * v_mps * dt_s * angle
    else:
        radius = v_mps / w_radps
        x, y = radius * np.sin(angle), radius * (1.0 - np.cos(angle))
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0, x], [s, c, 0.0, y], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def camera_motion(twist: np.ndarray, dt_s: float, T_base_optical: np.ndarray) -> np.ndarray:
    """
    Turn a base twist into the motion of the camera on it.

    :param twist: (2,) v_x [m/s], w_z [rad/s] in base_link
    :param dt_s: length of one frame
    :param T_base_optical: (4, 4) pose of camera_optical_frame in base_link
    :return: (4, 4) float64 optical frame afterwards seen from the optical frame before
    """
    T_base_base = integrate_twist(float(twist[0]), float(twist[1]), dt_s)
    rotation, position = T_base_optical[:3, :3], T_base_optical[:3, 3]
    motion = np.eye(4)
    motion[:3, :3] = rotation.T @ T_base_base[:3, :3] @ rotation
    moved = T_base_base[:3, :3] @ position + T_base_base[:3, 3]
    motion[:3, 3] = rotation.T @ (moved - position)
    return motion


def track_positions(joint_position, current, period_s: float, joint_speed) -> np.ndarray:
    """
    Velocities that reach the asked-for positions frame by frame, as far as speed allows.

    :param joint_position: (T, J) rad or m, NaN where none was asked for
    :param current: (J,) positions before the first frame
    :param period_s: length of one frame
    :param joint_speed: (J,) largest speeds
    :return: (T, J) float64 rad/s or m/s, NaN where no position was asked for
    """
    position = np.array(current, dtype=np.float64)
    velocity = np.full(joint_position.shape, np.nan)
    for frame, goal in enumerate(joint_position):
        velocity[frame] = np.clip((goal - position) / period_s, -joint_speed, joint_speed)
        position = position + np.nan_to_num(velocity[frame]) * period_s
    return velocity


def encode(targets: Targets, spec: CommandSpec, camera: CameraModel, current, *, sequence: int,
           stamp_ns: int, period_s: float, counts: CommandCounts) -> ActionEmbedding:
    """
    Encode what one step is asked to do.

    :param targets: from ``CommandBuffer.targets``
    :param spec: layout and joints of the world
    :param camera: intrinsics and extrinsics of the camera that moves
    :param current: (J,) newest joint positions, rad or m
    :param sequence: counts up by one per embedding
    :param stamp_ns: sim time of the newest frame
    :param period_s: sim time per frame
    :param counts: command counters to carry along
    :return: the embedding
    """
    num_frames = len(targets.joint_position)
    tracked = track_positions(targets.joint_position, current, period_s, spec.joint_speed)
    velocity = np.where(np.isnan(tracked), targets.joint_velocity, tracked)
    flat = np.zeros((num_frames, len(spec.action.dims)), np.float32)
    flat[:, spec.columns((LINEAR, ANGULAR))] = targets.twist
    flat[:, spec.columns(map(velocity_name, spec.joint_names))] = velocity
    motion = camera_motion(targets.twist, period_s, camera.T_base_optical)
    return ActionEmbedding(
        sequence=sequence, stamp_ns=stamp_ns, period_s=period_s,
        camera_motion=np.broadcast_to(motion, (num_frames, 4, 4)),
        joint_names=spec.joint_names, joint_position=targets.joint_position,
        joint_velocity=velocity, camera=camera, layout=spec.action.names, embedding=flat,
        counts=counts)


def check_embedding(embedding: ActionEmbedding, layout: ActionLayout, joint_names) -> None:
    """
    Refuse an embedding this world cannot follow; the last gate before it may be latched.

    :param embedding: what arrived
    :param layout: the world's action layout
    :param joint_names: the world's joints, in order
    :raises SpecError: other layout or joints, wrong length, not finite; says which
    """
    num_frames = len(embedding.embedding)
    num_joints = len(joint_names)
    shapes = (embedding.joint_position.shape, embedding.joint_velocity.shape)
    if tuple(embedding.layout) != layout.names or tuple(embedding.joint_names) != joint_names:
        raise SpecError(f'action_embedding: layout {list(embedding.layout)} is not the one of '
                        f'world_spec {list(layout.names)}; start the encoder of this version.')
    if num_frames < 1 or shapes != ((num_frames, num_joints),) * 2:
        raise SpecError(f'action_embedding: joint targets {shapes} do not fit {num_frames} frames '
                        f'of {num_joints} joints.')
    if not np.isfinite(embedding.embedding).all() or np.isinf(embedding.joint_position).any():
        raise SpecError('action_embedding: not finite; send finite m/s and rad/s.')


def actions_at_latch(embedding: ActionEmbedding, layout: ActionLayout, current,
                     num_frames: int) -> np.ndarray:
    """
    Read the actions of one step, tracking positions from where the joints are at this moment.

    :param embedding: a checked embedding; its last frame is repeated if it is too short
    :param layout: the world's action layout
    :param current: (J,) where the joints would come to rest if let go now, rad or m
    :param num_frames: frames of the step
    :return: (num_frames, A) float32, finite and inside the limits of ``layout``
    """
    rows = np.minimum(np.arange(num_frames), len(embedding.embedding) - 1)
    actions = embedding.embedding[rows]
    goals = embedding.joint_position[rows]
    if not np.isnan(goals).all():
        columns = [layout.names.index(velocity_name(name)) for name in embedding.joint_names]
        tracked = track_positions(goals, current, embedding.period_s, layout.high[columns])
        actions[:, columns] = np.where(np.isnan(tracked), actions[:, columns], tracked)
    return np.clip(actions, layout.low, layout.high)
