# SPDX-License-Identifier: Apache-2.0
"""What a session says: its states, frames, status, entities, refusals. Plain data, no ROS."""
from dataclasses import dataclass
import hashlib
from typing import Optional, Tuple

from lingbot_world_ros.actions.embedding import CommandCounts
from lingbot_world_ros.engines.interface import Observation
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.session.faults import Fault
import numpy as np

STOPPED, PLAYING, PAUSED, ERROR = 'stopped', 'playing', 'paused', 'error'
NO_WORLD, LOADING = 'no_world', 'loading_world'
REALTIME, STEPPED, LOCKSTEP = 'realtime', 'stepped', 'lockstep'


@dataclass(frozen=True)
class Frame:
    """
    One moment of a world, with the sim time it belongs to.

    ``rgb`` (h, w, 3) uint8, None if it was not asked for; ``depth_m`` (h, w) float32 or None;
    poses (3,) x, y [m], yaw [rad] in the scene frame, ``start_pose`` being that of the odometry's
    origin; ``base_twist`` (3,) v_x, v_y, w_z in base_link; joints (J,) rad or m;
    ``base_pose_cov`` (3, 3) or None; ``uncertainty`` NaN where the engine does not estimate it.
    """

    index: int
    stamp_ns: int
    rgb: Optional[np.ndarray]
    depth_m: Optional[np.ndarray]
    start_pose: np.ndarray
    base_pose: np.ndarray
    base_twist: np.ndarray
    base_pose_cov: Optional[np.ndarray]
    joint_position: np.ndarray
    joint_velocity: np.ndarray
    contact: float
    uncertainty: float
    calibrated: bool


@dataclass(frozen=True)
class SessionStatus:
    """
    How a session is doing; times are wall time, rates over the last second.

    ``actions`` (T, A) float32 drove the newest step, None after a reset; ``anchor`` is what was
    set from outside since the step before; ``digest`` sums up all frames since the reset. All
    three as in WorldStatus.msg. ``prompt`` is the one the newest step was made with;
    ``images_anchored`` counts images put in since the reset, without which what follows cannot be
    made again.
    """

    state: str
    mode: str
    scene: str = ''
    seed: int = 0
    world: str = ''
    world_text: str = ''
    stamp_ns: int = 0
    step: int = 0
    frame: int = 0
    embedding_sequence: int = 0
    actions: Optional[np.ndarray] = None
    anchor: Tuple[float, ...] = ()
    digest: str = ''
    frame_rate_hz: float = 0.0
    real_time_factor: float = 0.0
    step_duration_s: float = 0.0
    command_latency_s: float = 0.0
    uncertainty: float = 0.0
    calibrated: bool = True
    contact: float = 0.0
    prompt: str = ''
    images_anchored: int = 0
    late_frames: int = 0
    lockstep_timeouts: int = 0
    rejected_embeddings: int = 0
    counts: CommandCounts = CommandCounts()
    fault: Fault = Fault.NONE
    recoveries: int = 0
    message: str = ''


@dataclass(frozen=True)
class EntityState:
    """
    Something in the scene that can be moved.

    ``category`` is ``'robot'`` or ``'object'``; ``pose`` (3,) x, y [m], yaw [rad] and ``twist``
    (3,) v_x, v_y [m/s], w_z [rad/s], both along the axes of the scene frame.
    """

    name: str
    category: str
    pose: np.ndarray
    twist: np.ndarray


class Refused(SpecError):
    """
    A request that cannot be granted; the world goes on as it was.

    ``reason`` is one of not_paused, no_world, already, interrupted, engine, mode, unknown,
    unsupported;
    ``num_done`` counts the steps that were made all the same.
    """

    def __init__(self, reason: str, text: str, num_done: int = 0):
        """Keep the reason for those who map it to a code."""
        super().__init__(text)
        self.reason, self.num_done = reason, num_done


class SessionObserver:
    """What a session tells, from its worker thread; override what is of interest."""

    def on_reset(self, status: SessionStatus) -> None:
        """Run after a world started over, before its first frame."""

    def on_mode(self, status: SessionStatus) -> None:
        """Run after the mode of a loaded world changed; stamp and step are of its reset."""

    def on_frame(self, frame: Frame) -> None:
        """Run for every frame when it is due, before anything else is computed."""

    def on_drawn(self, frame: Frame) -> None:
        """Run when the newest frame, which had no picture, got one; see ``Session.look``."""

    def on_clock(self, stamp_ns: int) -> None:
        """Run for every tick of sim time; may come from a thread of its own."""

    def on_status(self, status: SessionStatus) -> None:
        """Run after every step and every change of state."""


def frame_of(observation: Observation, t: int, index: int, stamp_ns: int,
             start_pose: np.ndarray) -> Frame:
    """
    Cut one frame out of an observation.

    :param observation: of one world (b = 1)
    :param t: which of its frames
    :param index: frames since the reset
    :param stamp_ns: sim time
    :param start_pose: (3,) where odometry counts from, scene frame
    :return: the frame; views, nothing is copied
    """
    def at(values, otherwise=None):
        return otherwise if values is None else values[0, t]

    estimated = observation.uncertainty is not None
    return Frame(
        index=index, stamp_ns=stamp_ns, rgb=at(observation.rgb),
        depth_m=at(observation.depth_m), start_pose=start_pose,
        base_pose=observation.base_pose[0, t], base_twist=observation.base_twist[0, t],
        base_pose_cov=at(observation.base_pose_cov),
        joint_position=observation.joint_position[0, t],
        joint_velocity=observation.joint_velocity[0, t],
        contact=float(observation.contact[0, t]),
        uncertainty=float(at(observation.uncertainty, np.nan)),
        calibrated=estimated and bool(at(observation.calibrated, True)))


def frame_digest(before: str, frame: Frame) -> str:
    """
    Add a frame to a running digest.

    :param before: digest so far, '' at the start
    :param frame: picture, base pose and joints count; time does not
    :return: 16 hexadecimal digits
    """
    state = hashlib.blake2b(before.encode(), digest_size=8)
    for values in (frame.rgb, frame.base_pose, frame.joint_position):
        if values is not None:
            state.update(np.ascontiguousarray(values))
    return state.hexdigest()
