# SPDX-License-Identifier: Apache-2.0
"""
Action embeddings: commands as motion of the camera and the joints over the coming step.

``encode`` makes one on the command side; ``actions_at_latch`` reads one on the world's side at
the last moment before a step. No ROS. Camera axes are optical (x right, y down, z forward).
"""
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Callable, Optional, Tuple

from lingbot_world_ros.actions.camera_columns import camera_actions
from lingbot_world_ros.actions.command_spec import CommandCounts, CommandSpec, Targets
from lingbot_world_ros.actions.layout import ActionLayout, ANGULAR, LINEAR, velocity_name
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se2, se3
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.robots.drive import steered
import numpy as np


@dataclass(frozen=True, eq=False)
class CarriedCamera:
    """
    The camera whose motion an embedding tells, and where on the robot it is.

    ``T_base_optical`` (4, 4) is the pose of its optical frame in base_link. A camera that is not
    fixed to the base has ``poses_of`` in its place: (n, J) joint positions -> (n, 4, 4) poses.
    """

    camera: PinholeCamera
    T_base_optical: np.ndarray
    poses_of: Optional[Callable[[np.ndarray], np.ndarray]] = None

    @cached_property
    def T_optical_base(self) -> np.ndarray:
        """(4, 4) pose of base_link in the optical frame."""
        return se3.inverse(self.T_base_optical)


@dataclass(frozen=True)
class ActionEmbedding:
    """
    One step's worth of asked-for motion; T frames, J joints, A action columns.

    ``camera_motion`` (T, 4, 4): optical frame after a frame seen from the one before, metres.
    ``joint_position`` (T, J): rad or m, NaN where none was asked for. ``joint_velocity`` (T, J).
    ``embedding`` (T, A) float32 in the order of ``layout``; units of the action layout.
    ``valid_until_ns``: sim time after which repeating the last row is wrong, 0 for never.
    """

    sequence: int
    stamp_ns: int
    period_s: float
    camera_motion: np.ndarray
    joint_names: Tuple[str, ...]
    joint_position: np.ndarray
    joint_velocity: np.ndarray
    camera: PinholeCamera
    layout: Tuple[str, ...]
    embedding: np.ndarray
    counts: CommandCounts = CommandCounts()
    valid_until_ns: int = 0


def camera_motion(twist: np.ndarray, dt_s: float, T_optical_base: np.ndarray,
                  T_base_optical_after: np.ndarray) -> np.ndarray:
    """
    Turn a base twist into the motion of the camera on it.

    :param twist: (..., 3) v_x, v_y [m/s], w_z [rad/s] in base_link
    :param dt_s: length of one frame
    :param T_optical_base: (..., 4, 4) pose of base_link in camera_optical_frame, before the frame
    :param T_base_optical_after: (..., 4, 4) pose of camera_optical_frame in base_link, after it
    :return: (..., 4, 4) float64 optical frame afterwards seen from the optical frame before
    """
    T_base_base = se3.pose_from_se2(se2.exponential(twist, dt_s))
    return T_optical_base @ T_base_base @ T_base_optical_after


def track_positions(joint_position: np.ndarray, current: np.ndarray, period_s: float,
                    joint_speed: np.ndarray) -> np.ndarray:
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


def encode(targets: Targets, spec: CommandSpec, carried: CarriedCamera, current: np.ndarray, *,
           sequence: int, stamp_ns: int, period_s: float, counts: CommandCounts,
           motion: Optional[np.ndarray] = None) -> ActionEmbedding:
    """
    Encode what one step is asked to do.

    :param targets: from ``CommandBuffer.targets``
    :param spec: layout and joints of the world
    :param carried: the camera that moves
    :param current: (J,) newest joint positions, rad or m
    :param sequence: counts up by one per embedding
    :param stamp_ns: sim time of the newest frame
    :param period_s: sim time per frame
    :param counts: command counters to carry along
    :param motion: (T, 4, 4) for the camera in place of that of base and joints
    :return: the embedding
    """
    velocity = targets.joint_velocity
    if not np.isnan(targets.joint_position).all():
        tracked = track_positions(targets.joint_position, current, period_s, spec.joint_speed)
        velocity = np.where(np.isnan(tracked), velocity, tracked)
    flat = np.zeros((len(velocity), len(spec.action_names)), np.float32)
    flat[:, spec.base_columns] = targets.twist[:, spec.base_axes]
    flat[:, spec.joint_columns] = velocity
    if motion is None:
        motion = _motion_of(carried, targets.twist, velocity, current, period_s)
    if spec.camera_columns:
        flat[:, spec.camera_columns] = camera_actions(motion)
    return ActionEmbedding(
        sequence=sequence, stamp_ns=stamp_ns, period_s=period_s, camera_motion=motion,
        joint_names=spec.joint_names, joint_position=targets.joint_position,
        joint_velocity=velocity, camera=carried.camera, layout=spec.action_names, embedding=flat,
        counts=counts, valid_until_ns=targets.valid_until_ns)


def _motion_of(carried: CarriedCamera, twist: np.ndarray, velocity: np.ndarray,
               current: np.ndarray, period_s: float) -> np.ndarray:
    """Motion (T, 4, 4) of the camera over the frames of a step, by base and joints."""
    if carried.poses_of is None:
        return camera_motion(twist, period_s, carried.T_optical_base, carried.T_base_optical)
    poses = carried.poses_of(np.vstack([current, current + np.cumsum(velocity, 0) * period_s]))
    return camera_motion(twist, period_s, se3.inverse(poses[:-1]), poses[1:])


def check_embedding(embedding: ActionEmbedding, layout: ActionLayout,
                    joint_names: Tuple[str, ...]) -> None:
    """
    Refuse an embedding this world cannot follow; the last gate before it may be latched.

    :param embedding: what arrived
    :param layout: the world's action layout
    :param joint_names: the world's joints, in order
    :raises SpecError: other layout or joints, wrong length, not finite; says which
    """
    num_frames = len(embedding.embedding)
    num_joints = len(joint_names)
    if not 0.0 < embedding.period_s < np.inf:
        raise SpecError(f'action_embedding: frame_period_s={embedding.period_s} must be more than '
                        '0 seconds.')
    shapes = (embedding.joint_position.shape, embedding.joint_velocity.shape)
    if tuple(embedding.layout) != layout.names or tuple(embedding.joint_names) != joint_names:
        raise SpecError(f'action_embedding: layout {list(embedding.layout)} is not the one of '
                        f'world_spec {list(layout.names)}; start the encoder of this version.')
    if num_frames < 1 or shapes != ((num_frames, num_joints),) * 2:
        raise SpecError(f'action_embedding: joint targets {shapes} do not fit {num_frames} frames '
                        f'of {num_joints} joints.')
    finite = (embedding.embedding, embedding.joint_velocity, embedding.camera_motion)
    if not all(np.isfinite(v).all() for v in finite) or np.isinf(embedding.joint_position).any():
        raise SpecError('action_embedding: not finite; send finite m/s and rad/s.')


def actions_at_latch(embedding: ActionEmbedding, layout: ActionLayout, current: np.ndarray,
                     num_frames: int, start_ns: Optional[int] = None,
                     max_curvature: float = inf) -> np.ndarray:
    """
    Read the actions of one step, tracking positions from where the joints are at this moment.

    An embedding of more frames than the step has may be older than the step: what is past of it
    is left out.

    :param embedding: a checked embedding; its last frame is repeated if it is too short
    :param layout: the world's action layout
    :param current: (J,) where the joints would come to rest if let go now, rad or m
    :param num_frames: frames of the step
    :param start_ns: sim time of the frame before the step; None: when it was encoded
    :param max_curvature: 1/m, of the way of the world's base
    :return: (num_frames, A) float32, finite and inside the limits of ``layout``
    """
    num_rows, past = len(embedding.embedding), 0
    if start_ns is not None and num_rows > num_frames:
        past = round((start_ns - embedding.stamp_ns) * 1e-9 / embedding.period_s)
        past = min(max(0, past), num_rows - num_frames)
    rows = np.minimum(past + np.arange(num_frames), num_rows - 1)
    actions = embedding.embedding[rows]
    goals = embedding.joint_position[rows]
    if not np.isnan(goals).all():
        columns = [layout.names.index(velocity_name(name)) for name in embedding.joint_names]
        tracked = track_positions(goals, current, embedding.period_s, layout.high[columns])
        actions[:, columns] = np.where(np.isnan(tracked), actions[:, columns], tracked)
    actions = np.clip(actions, layout.low, layout.high)
    if max_curvature < inf:
        forward, turn = (layout.names.index(name) for name in (LINEAR, ANGULAR))
        actions[:, turn] = steered(actions[:, forward], actions[:, turn], max_curvature)
    return actions
