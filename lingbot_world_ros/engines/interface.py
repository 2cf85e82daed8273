# SPDX-License-Identifier: Apache-2.0
"""
The interface every engine implements, and the plain data that crosses it. NumPy only, no ROS.

Axes: b batch (worlds side by side), t frames of one step, a action, j joint, h w image.
"""
from dataclasses import dataclass, field
from typing import Optional, Protocol, Sequence, Tuple, TYPE_CHECKING, Union

from lingbot_world_ros.actions.layout import ActionLayout
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import CameraSpec
from lingbot_world_ros.robots.robot import JointSpec, RobotSpec
import numpy as np

if TYPE_CHECKING:
    from lingbot_world_ros.worlds.library import ImageCamera


@dataclass(frozen=True)
class WorldSpec:
    """What a world is: sizes, rates, layouts; the ROS message of the same name is its copy."""

    engine: str
    model: str
    scenes: Tuple[str, ...]
    robot: RobotSpec
    action: ActionLayout
    frame_rate_hz: float = 15.0
    frames_per_step: int = 1
    predicted_states: Tuple[str, ...] = ()
    integrated_states: Tuple[str, ...] = ()
    has_depth: bool = False
    takes_text: bool = False  # a world's prompt, and changes of it
    takes_images: bool = False  # a world's start images and their camera
    free_camera: bool = False  # follows ActionEmbedding.camera_motion wherever it is mounted
    takes_poses: bool = True  # observe moves robot and objects; False: that is refused
    uncertainty_limit: Optional[float] = None  # calibrated up to here, 0..1; None: not estimated
    cheap_snapshots: bool = True  # False: none is taken per step; a step that fails undoes itself

    def __post_init__(self):
        """Refuse sizes that no engine can run."""
        if self.frame_rate_hz <= 0:
            raise SpecError(f'frame_rate_hz={self.frame_rate_hz} must be more than 0.')
        if self.frames_per_step < 1:
            raise SpecError(f'frames_per_step={self.frames_per_step} must be at least 1.')

    @property
    def camera(self) -> CameraSpec:
        """The camera whose image the engine predicts."""
        return self.robot.camera

    @property
    def joints(self) -> Tuple[JointSpec, ...]:
        """The commanded joints, in order."""
        return self.robot.joints

    @property
    def frame_period_ns(self) -> int:
        """Sim time per frame, nanoseconds."""
        return int(round(1e9 / self.frame_rate_hz))

    @property
    def step_dt_s(self) -> float:
        """Sim time per step, seconds."""
        return self.frames_per_step / self.frame_rate_hz


@dataclass
class Observation:
    """
    What a world shows after a reset (t = 1) or a step (t = frames_per_step).

    Poses are in the scene's own frame (x, y [m], yaw [rad], REP-103), twists in base_link.
    A predicted quantity carries its uncertainty, None where the engine does not estimate it;
    ``rgb`` is None when rendering was not asked for.
    """

    rgb: Optional[np.ndarray]  # (b, t, h, w, 3) uint8
    base_pose: np.ndarray  # (b, t, 3) float64: x, y [m], yaw [rad, not wrapped]
    base_twist: np.ndarray  # (b, t, 3) float64: v_x, v_y [m/s], w_z [rad/s]
    joint_position: np.ndarray  # (b, t, j) float64: rad or m
    joint_velocity: np.ndarray  # (b, t, j) float64: rad/s or m/s
    contact: np.ndarray  # (b, t) float32: probability that the base touches something
    object_pose: np.ndarray  # (b, t, n, 3) float64: x, y, yaw of the movable objects
    depth_m: Optional[np.ndarray] = None  # (b, t, h, w) float32, metres along the optical axis
    base_pose_cov: Optional[np.ndarray] = None  # (b, t, 3, 3) float64 of base_pose since reset
    uncertainty: Optional[np.ndarray] = None  # (b, t) float32: predicted RMS image error, 0..1
    calibrated: Optional[np.ndarray] = None  # (b, t) bool: uncertainty inside calibrated range
    extra: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """
    What a world starts from beyond scene and seed; '' and () leave it to the scene.

    ``images`` are absolute paths, ``camera`` is the one that took them (None: not known).
    """

    prompt: str = ''
    images: Tuple[str, ...] = ()
    camera: Optional['ImageCamera'] = None


class WorldModel(Protocol):
    """
    A batch of worlds that can be reset and stepped.

    Not thread safe: there is one call at a time. A step either returns a full observation or
    raises and leaves the state before it untouched.

    What an engine may have besides: ``set_prompt(text)`` (with ``spec.takes_text``), the prompt
    from the next step on; ``prepare_prompt(text)``, the slow part of that ahead and from any
    thread. ``finish_step()``, work that only the next step needs, called once after each step
    (again if it raised) while others look at the frames. ``undo_step()`` takes the newest step
    back as if it had never been made, finished or not, until the next one begins; a prompt stays.
    An engine with several frames per step that has it is stepped ahead while its frames leave.
    """

    spec: WorldSpec

    def reset(self, scene: str, seed: Union[int, Sequence[int]],
              render: bool = True, start: Optional[Start] = None) -> Observation:
        """
        Start over in a scene.

        :param scene: one of ``spec.scenes``
        :param seed: start state; one int, or one per world of the batch
        :param render: False skips rgb and depth
        :param start: given where ``spec.takes_text`` or ``spec.takes_images``
        :return: the first observation, t = 1, at sim time zero
        :raises SpecError: it cannot start like that (an unknown scene: lists the known ones);
            nothing changed
        """
        ...

    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """
        Advance one step.

        :param actions: (b, t, a) float32, finite and within ``spec.action`` limits
        :param render: False skips rgb and depth (state only, fast)
        :return: the t frames that followed
        """
        ...

    def observe(self, observation: Observation, render: bool = True) -> Observation:
        """
        Replace imagined state by what was observed, as of the observation's last frame.

        :param observation: measured poses, twists, joints and objects; with
            ``spec.takes_images`` an ``rgb`` that is not None is the image to go on from,
            (b, 1, h, w, 3) uint8 of any size
        :param render: False skips rgb and depth
        :return: the world as it is now, t = 1; no sim time has passed
        :raises SpecError: an image that cannot be used; nothing changed
        """
        ...

    def object_names(self, scene: str) -> Tuple[str, ...]:
        """Return the names of a scene's movable objects, in the order of ``object_pose``."""
        ...

    def snapshot(self):
        """Return an opaque copy of the state, to be handed to ``restore``."""
        ...

    def restore(self, snapshot) -> None:
        """Go back to a snapshot; later steps give the same bytes as they did after it."""
        ...
