# SPDX-License-Identifier: Apache-2.0
"""
The interface every engine implements, and the plain data that crosses it. NumPy only, no ROS.

Axes: b batch (worlds side by side), t frames of one step, a action, j joint, h w image.
"""
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Sequence, Tuple, Union

from lingbot_world_ros.actions.layout import ActionLayout
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import MountedCamera, PinholeCamera, require_pixels
from lingbot_world_ros.robots.robot import JointSpec, Robot
from lingbot_world_ros.worlds.floor_plan import FloorPlan
import numpy as np

Scenes = Union[str, Sequence[str]]  # one for all rows, or one for each
Seeds = Union[int, Sequence[int], np.ndarray]
Rows = Union[None, Sequence[int], np.ndarray]  # indices, a mask of all rows, or None for all


@dataclass(frozen=True)
class Capabilities:
    """
    What an engine can do, said before it is asked for; each names methods of ``WorldModel``.

    A method that is not among them refuses with ``SpecError``, or has nothing to do.
    """

    take_prompts: bool = False  # set_prompt, and Start.prompt
    prepare_prompt: bool = False  # the slow part of set_prompt ahead, from any thread
    take_images: bool = False  # Start.images and camera; observe goes on from an image
    take_poses: bool = True  # observe moves robot and objects
    follow_camera: bool = False  # ActionEmbedding.camera_motion, wherever the camera is mounted
    snapshot_cheaply: bool = True  # else none is taken per step; a step that fails undoes itself
    finish_step: bool = False  # there is work that only the next step needs
    undo_step: bool = False
    render: bool = False  # a state that came from elsewhere
    kill: bool = False
    watch_wrist: bool = False  # draw the robot's second camera, while somebody looks
    keep_scenes: bool = False  # its scenes are those of worlds.scenes, in their frame and metres
    know_truth: bool = False  # states are those of its world; else predicted or integrated


@dataclass(frozen=True)
class WorldSpec:
    """What a world is: sizes, rates, layouts; the ROS message of the same name is its copy."""

    engine: str
    model: str
    scenes: Tuple[str, ...]
    robot: Robot
    action: ActionLayout
    frame_rate_hz: float = 15.0
    frames_per_step: int = 1
    predicted_states: Tuple[str, ...] = ()
    integrated_states: Tuple[str, ...] = ()
    has_depth: bool = False
    uncertainty_limit: Optional[float] = None  # calibrated up to here, 0..1; None: not estimated
    can: Capabilities = Capabilities()
    has_calibration: bool = True  # else the camera's focal length is a guess, and not published
    floor_plan: Optional[FloorPlan] = None  # of its only scene, where that is none of ours

    def __post_init__(self) -> None:
        """Refuse sizes that no engine can run, and a camera that is not in pixels."""
        if self.frame_rate_hz <= 0:
            raise SpecError(f'frame_rate_hz={self.frame_rate_hz} must be more than 0.')
        if self.frames_per_step < 1:
            raise SpecError(f'frames_per_step={self.frames_per_step} must be at least 1.')
        require_pixels(self.camera.fx_px, self.camera.fy_px, f'camera of engine {self.engine!r}')

    @property
    def camera(self) -> MountedCamera:
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

    @property
    def knows_base(self) -> bool:
        """Whether it says where the base is, predicted or integrated."""
        return 'base' in (*self.predicted_states, *self.integrated_states)

    @property
    def takes_text(self) -> bool:
        """Whether a world may have a prompt, and it may change."""
        return self.can.take_prompts

    @property
    def takes_images(self) -> bool:
        """Whether a world may start from images and be anchored on one."""
        return self.can.take_images

    @property
    def takes_poses(self) -> bool:
        """Whether robot and objects can be put elsewhere."""
        return self.can.take_poses

    @property
    def free_camera(self) -> bool:
        """Whether the camera follows any motion, wherever it is mounted."""
        return self.can.follow_camera

    @property
    def cheap_snapshots(self) -> bool:
        """Whether a snapshot may be taken after every step."""
        return self.can.snapshot_cheaply


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
    wrist_rgb: Optional[np.ndarray] = None  # (b, t, h, w, 3) uint8 of the robot's second camera
    uncertainty: Optional[np.ndarray] = None  # (b, t) float32: predicted RMS image error, 0..1
    calibrated: Optional[np.ndarray] = None  # (b, t) bool: uncertainty inside calibrated range
    extra: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """
    What a world starts from beyond scene and seed; '' and () leave it to the scene.

    ``images`` are absolute paths, ``camera`` is the one that took them (None: not known).
    """

    prompt: str = ''
    images: Tuple[str, ...] = ()
    camera: Optional[PinholeCamera] = None


@dataclass(frozen=True)
class State:
    """Where everything is, to be drawn; one row per world. Scene frame, as in ``Observation``."""

    base_pose: np.ndarray  # (b, 3) x, y [m], yaw [rad]
    joint_position: np.ndarray  # (b, j) rad or m
    object_pose: np.ndarray  # (b, n, 3) x, y [m], yaw [rad]

    @staticmethod
    def of(observation: Observation, t: int = -1) -> 'State':
        """Return the state in one frame of an observation, by default the last; views."""
        return State(observation.base_pose[:, t], observation.joint_position[:, t],
                     observation.object_pose[:, t])


class WorldModel(ABC):
    """
    A batch of worlds, its rows, that can be reset and stepped.

    A row gives what it would give alone. Not thread safe: there is one call at a time. A step
    either returns a full observation or raises and leaves the state before it untouched. What is
    returned is the caller's: writing into it changes nothing here. A snapshot holds all there is,
    so that another engine of the same kind can go on from it. What an engine has besides the
    abstract methods, ``spec.can`` says; an engine with several frames per step that can undo them
    is stepped ahead while its frames leave.
    """

    spec: WorldSpec
    batch_size: int = 1

    @abstractmethod
    def reset(self, scenes: Scenes, seeds: Seeds, rows: Rows = None, *, render: bool = True,
              start: Optional[Start] = None) -> Observation:
        """
        Start rows over, each in its scene; the others stay as they are.

        :param scenes: of ``spec.scenes``, one for all rows or one for each
        :param seeds: start states, one int for all rows or one for each
        :param rows: which; None is all, and has to come first
        :param render: False skips rgb and depth
        :param start: where it can take prompts or images
        :return: the first observation of these rows, t = 1, at sim time zero
        :raises SpecError: it cannot start like that (an unknown scene: lists the known ones);
            nothing changed
        """

    @abstractmethod
    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """
        Advance one step.

        :param actions: (b, t, a) float32, finite and within ``spec.action`` limits
        :param render: False skips rgb and depth (state only, fast)
        :return: the t frames that followed
        :raises SpecError: another shape; nothing changed
        """

    @abstractmethod
    def observe(self, observation: Observation, render: bool = True) -> Observation:
        """
        Replace imagined state by what was observed, as of the observation's last frame.

        :param observation: measured poses, twists, joints and objects; where it can take images
            an ``rgb`` that is not None is the image to go on from, (b, 1, h, w, 3) uint8 of any
            size
        :param render: False skips rgb and depth
        :return: the world as it is now, t = 1; no sim time has passed
        :raises SpecError: an image that cannot be used; nothing changed
        """

    @abstractmethod
    def object_names(self, scene: str) -> Tuple[str, ...]:
        """Return the names of a scene's movable objects, in the order of ``object_pose``."""

    @abstractmethod
    def snapshot(self, rows: Rows = None) -> Any:
        """
        Copy the state of rows.

        :param rows: which; None is all
        :return: an opaque copy, to be handed to ``restore``
        """

    @abstractmethod
    def restore(self, snapshot: Any, rows: Rows = None) -> None:
        """
        Put rows into a state; later steps give the same bytes as they did after it.

        :param snapshot: of as many rows
        :param rows: that take it over, in the order of the snapshot's; None is all
        :raises SpecError: another number of rows; nothing changed
        """

    # What an engine may have besides.

    def set_prompt(self, text: str) -> None:
        """
        Go on with another prompt from the next step on (``can.take_prompts``).

        :param text: the prompt
        :raises SpecError: it takes none
        """
        raise self._refusal('takes no prompt')

    def prepare_prompt(self, text: str) -> None:
        """Do the slow part of ``set_prompt`` ahead, from any thread (``can.prepare_prompt``)."""

    def finish_step(self) -> None:
        """
        Do the work that only the next step needs (``can.finish_step``).

        Called once after each step, again if it raised, while others look at the frames.
        """

    def undo_step(self) -> None:
        """
        Take the newest step back as if it had never been made (``can.undo_step``).

        Finished or not, until the next one begins; a prompt stays.

        :raises SpecError: it cannot
        """
        raise self._refusal('cannot take a step back')

    def render(self, state: State) -> Observation:
        """
        Draw a state that came from elsewhere; that of the world stays (``can.render``).

        :param state: of all rows, each is drawn in the scene it is in
        :return: what there is to see of robot and objects at rest, t = 1
        :raises SpecError: it cannot, or a state of other shapes
        """
        raise self._refusal('draws no state but its own')

    def watch_wrist(self, is_watched: bool) -> None:
        """
        Draw the robot's second camera from now on, or no more (``can.watch_wrist``).

        :param is_watched: whether ``Observation.wrist_rgb`` is wanted
        :raises SpecError: it draws one camera only
        """
        raise self._refusal('draws one camera, the first of its robot, and no other')

    @property
    def is_lost(self) -> bool:
        """Whether there is no state to go on from: only a reset or a restore can follow."""
        return False

    def kill(self, reason: Exception) -> None:
        """
        End the engine at once, from any thread; the call under way raises (``can.kill``).

        :param reason: what it raises
        :raises SpecError: it cannot
        """
        raise self._refusal('cannot be killed')

    def close(self) -> None:
        """Give back what it holds; nothing is called afterwards."""

    def _refusal(self, what: str) -> SpecError:
        return SpecError(f'The engine {self.spec.engine!r} {what}.')
