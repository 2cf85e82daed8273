# SPDX-License-Identifier: Apache-2.0
"""
LingBot-World behind the ``WorldModel`` interface: the robot's camera as the model imagines it.

The image is predicted; base and joints are only integrated from the commands, because the model
knows neither. One step is one chunk of frames. After a reset the first chunk is imagined with the
camera at rest, and its last frame is the first one shown.
"""
from dataclasses import dataclass, fields, replace
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Type, Union

from lingbot_world_ros.actions.camera_columns import camera_action_dims, camera_motion_of
from lingbot_world_ros.actions.camera_path import FRAME_RATE_HZ, FRAMES_PER_LATENT
from lingbot_world_ros.actions.layout import (ActionLayout, joint_velocities_of,
                                              robot_action_layout, twists_of)
from lingbot_world_ros.engines.interface import (Capabilities, Observation, Rows, Scenes, Seeds,
                                                 Start, WorldModel, WorldSpec)
from lingbot_world_ros.engines.rows import check_actions, chosen_rows, row_starts
from lingbot_world_ros.errors import EngineDiverged, SpecError, unknown_name
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.models.wan.build import (build_stream, check_memory, load_models,
                                                ModelOptions)
from lingbot_world_ros.models.wan.camera import latent_steps
from lingbot_world_ros.models.wan.camera_image import read_image, seen_by, stream_camera
from lingbot_world_ros.models.wan.checkpoint import open_checkpoint
from lingbot_world_ros.models.wan.condition import resize_image
from lingbot_world_ros.models.wan.kv_cache import WindowSpec
from lingbot_world_ros.models.wan.releases_and_licences import StreamDefaults
from lingbot_world_ros.models.wan.schedule import FewStepSchedule
from lingbot_world_ros.models.wan.spec import VideoSize
from lingbot_world_ros.models.wan.stream import StreamSpec
from lingbot_world_ros.robots.load import joint_from_urdf, load_robot
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.robots.urdf import RobotModel
from lingbot_world_ros.worlds.start_images import start_images
import numpy as np
import torch

IMAGE_SCENE = 'image'  # whose start image the user gives
BASE_SPEED_MPS = 1.0
CAMERA_HEIGHT_M = 1.2
CAN = Capabilities(take_prompts=True, prepare_prompt=True, take_images=True, take_poses=False,
                   follow_camera=True, snapshot_cheaply=False, finish_step=True, undo_step=True)


@dataclass(frozen=True)
class StreamOptions:
    """
    How the model is streamed; parameters ``lingbot.*`` of the node.

    0 and '' take what the checkpoint was made for. ``window_latents`` are visible latent frames
    in all, sink and current chunk included. ``metres_per_world_unit``: the model was trained on
    clips whose largest camera step (a quarter of a second) had length 1; this is that step.
    ``cache_in_8_bits`` halves the memory of keys and values.
    """

    height_px: int = 464
    width_px: int = 832
    field_of_view_deg: float = 79.2
    chunk_latents: int = 0
    window_latents: int = 0
    sink_latents: int = -1
    step_indices: str = ''
    shift: float = 0.0
    metres_per_world_unit: float = 0.25
    cache_in_8_bits: bool = False

    def __post_init__(self) -> None:
        """Refuse scales that no world has."""
        if not self.metres_per_world_unit > 0.0:
            raise SpecError(f'metres_per_world_unit={self.metres_per_world_unit} must be more '
                            'than 0.')

    @property
    def camera(self) -> PinholeCamera:
        """The camera whose image is imagined."""
        return stream_camera(self.size, self.field_of_view_deg)

    @property
    def size(self) -> VideoSize:
        """Size of its images."""
        return VideoSize(self.height_px, self.width_px)

    def spec(self, defaults: StreamDefaults) -> StreamSpec:
        """
        Fill in what the checkpoint was made for.

        :param defaults: its ``StreamDefaults``
        :return: all that a stream needs to know
        :raises SpecError: numbers that do not go together
        """
        indices = tuple(_indices(self.step_indices)) or defaults.step_indices
        sink = defaults.sink_latents if self.sink_latents < 0 else self.sink_latents
        window = WindowSpec(self.chunk_latents or defaults.chunk_latents,
                            self.window_latents or defaults.window_latents, sink)
        schedule = FewStepSchedule.from_indices(indices, self.shift or defaults.shift)
        return StreamSpec(self.size, window, schedule, self.cache_in_8_bits)


def _indices(text: str) -> List[int]:
    try:
        return [int(part) for part in text.split(',') if part.strip()]
    except ValueError:
        raise SpecError(f'step_indices={text!r} is not a list of whole numbers like '
                        '"0,179,358,679".') from None


@dataclass(frozen=True)
class _Body:
    """What is only integrated: the robot as commanded."""

    base_pose: np.ndarray  # (3,) x, y [m], yaw [rad]
    base_twist: np.ndarray  # (3,)
    joint_position: np.ndarray  # (J,)
    joint_velocity: np.ndarray  # (J,)


class LingBotWorld(WorldModel):
    """One imagined world on one accelerator, streamed without end."""

    def __init__(self, batch_size: int = 1, robot: Union[Robot, str] = '',
                 robot_description: str = '',
                 on_progress: Optional[Callable[[int, int], None]] = None, **options: Any) -> None:
        """
        Load the models.

        :param batch_size: 1
        :param robot: a robot, or what ``load_robot`` takes: its drive and joints are integrated,
            and its first camera, in size and lens that of ``options``, is where the image is
            seen from; '' is the package's robot with a camera of its own
        :param robot_description: where there is no ``robot``, URDF XML whose joints are
            integrated
        :param on_progress: called with bytes read and bytes in all of the network
        :param options: fields of ``ModelOptions`` and ``StreamOptions``
        :raises SpecError: an option, a file, memory or the device cannot be used
        """
        if batch_size != 1:
            raise SpecError(f'batch_size={batch_size}: LingBot-World streams one world per '
                            'process; use 1.')
        model_options, self.options = _options(options)
        camera = self.options.camera
        robot = _own_robot(robot, camera) if robot else _robot(robot_description, camera)
        checkpoint = open_checkpoint(model_options.checkpoint)
        checkpoint.streamed_expert()
        spec = self.options.spec(checkpoint.defaults)
        check_memory(checkpoint, model_options, spec)
        self._models = models = load_models(checkpoint, model_options,
                                            on_progress=on_progress)
        self._stream = build_stream(model_options, models, spec, camera)
        self._scenes = {f'{name}_view': start for name, start in start_images().items()}
        layout = ActionLayout((*robot_action_layout(robot).dims, *camera_action_dims()))
        self.spec = WorldSpec(
            engine='lingbot_world', model=models.name, scenes=(*self._scenes, IMAGE_SCENE),
            robot=robot, action=layout, frame_rate_hz=FRAME_RATE_HZ,
            frames_per_step=FRAMES_PER_LATENT * spec.window.chunk_latents,
            integrated_states=('base', 'joints'), can=CAN)
        self._frames = FrameCopy()
        self._rest = np.tile(np.eye(4), (spec.window.chunk_latents, 1, 1))
        self._body: Optional[_Body] = None
        self._before: Optional[_Body] = None
        self._prompt, self._seed, self._anchors = '', 0, 0

    def reset(self, scenes: Scenes, seeds: Seeds, rows: Rows = None, *, render: bool = True,
              start: Optional[Start] = None) -> Observation:
        """Start over from an image and a prompt; see ``WorldModel.reset``."""
        (_, scene, seed), = row_starts(scenes, seeds, rows, 1, self.spec)
        image, prompt = self._start(scene, start or Start())
        text = self._models.text.encode(prompt)
        home = self.spec.robot.joint_array('home')
        self._body = _Body(np.zeros(3), np.zeros(3), home, np.zeros_like(home))
        self._prompt, self._seed, self._anchors = prompt, seed, 0
        return self._begin(image, text)

    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """Imagine one chunk; see ``WorldModel.step``."""
        check_actions(actions, 1, self.spec)
        motion = camera_motion_of(actions[0], self.spec.action)
        poses = latent_steps(motion, self.options.metres_per_world_unit)
        bodies = self._integrated(actions[0])
        with _readable_errors():
            rgb = self._frames.to_host(self._stream.next_chunk(poses))
        self._before, self._body = self._body, bodies[-1]
        return self._observation(rgb, bodies)

    def finish_step(self) -> None:
        """Write the cache for the next step."""
        with _readable_errors():
            self._stream.write_cache()

    def undo_step(self) -> None:
        """Take the newest step back; see ``WorldModel.undo_step``."""
        self._stream.undo()
        self._body, self._before = self._before, None

    def prepare_prompt(self, text: str) -> None:
        """Encode a prompt ahead, from any thread; ``set_prompt`` is quick afterwards."""
        self._models.text.encode(text)

    def set_prompt(self, text: str) -> None:
        """Go on with another prompt from the next step on."""
        with _readable_errors():
            self._stream.set_text(self._models.text.encode(text))
        self._prompt = text

    def observe(self, observation: Observation, render: bool = True) -> Observation:
        """
        Adopt the robot's state and, if there is one, go on from a real image.

        :param observation: rgb (1, t, h, w, 3) uint8 of any size, of which the last is taken as
            seen by this world's camera, or None; base and joints
        :param render: not used
        :return: the world as it is now, t = 1
        """
        self._body = _Body(*(np.array(getattr(observation, f.name)[0, -1], np.float64)
                             for f in fields(_Body)))
        self._before = None
        if observation.rgb is None:
            return self._observation(None, [self._body])
        self._anchors += 1
        return self._begin(seen_by(self.options.camera, observation.rgb[0, -1]),
                           self._models.text.encode(self._prompt))

    def close(self) -> None:
        """End the processes on other GPUs, if there are any."""
        self._stream.close()

    def object_names(self, scene: str) -> Tuple[str, ...]:
        """Return none: nothing in an image can be moved by name."""
        return ()

    def snapshot(self, rows: Rows = None) -> Any:
        """Return a copy of everything, gigabytes for a large model."""
        chosen_rows(rows, 1)
        return self._body, self._before, self._prompt, self._seed, self._anchors, \
            self._stream.snapshot()

    def restore(self, snapshot: Any, rows: Rows = None) -> None:
        """Go back to a snapshot."""
        chosen_rows(rows, 1)
        (self._body, self._before, self._prompt, self._seed, self._anchors,
         stream) = snapshot
        self._stream.restore(stream)

    def _start(self, scene: str, start: Start) -> Tuple[np.ndarray, str]:
        """Return the start image as this camera sees it, and the prompt."""
        if len(start.images) > 1:
            raise SpecError(f'LingBot-World starts from one image, got {len(start.images)}; leave '
                            'the others out.')
        path, prompt = self._scenes.get(scene, ('', ''))
        if start.images:
            path = start.images[0]
        if not path:
            raise SpecError(f'Scene {IMAGE_SCENE!r} needs a start image: set the parameter '
                            'start_image, or "images" in a world file.')
        taken_by = start.camera if start.images else None
        image = seen_by(self.options.camera, read_image(path), taken_by)
        return image, start.prompt or prompt

    def _begin(self, image: np.ndarray, text: torch.Tensor) -> Observation:
        """Start the stream on an image and imagine one chunk at rest."""
        pixels = resize_image(image, self.options.size).to(self._models.dit.device)
        with _readable_errors():
            self._stream.start(pixels, text, self._seed + 7919 * self._anchors)
            frames = self._stream.next_chunk(self._rest)
            rgb = self._frames.to_host(frames[-1:])
        assert self._body is not None, 'it has begun'
        return self._observation(rgb, [self._body])

    def _integrated(self, actions: np.ndarray) -> List[_Body]:
        """Return the robot after each frame, as commanded."""
        dt_s, robot, names = 1.0 / FRAME_RATE_HZ, self.spec.robot, self.spec.action.names
        low, high = (robot.joint_array(name) for name in ('low', 'high'))
        actions, body = actions.astype(np.float64), self._body
        assert body is not None, 'reset comes first'
        bodies = []
        for twist, speed in zip(twists_of(actions, names),
                                joint_velocities_of(actions, names, robot.joint_names)):
            joints = np.clip(body.joint_position + speed * dt_s, low, high)
            step = se2.rotated(se2.exponential(twist, dt_s), body.base_pose[2])
            body = _Body(body.base_pose + step, twist, joints,
                         (joints - body.joint_position) / dt_s)
            bodies.append(body)
        return bodies

    def _observation(self, rgb: Optional[np.ndarray], bodies: Sequence[_Body]) -> Observation:
        t = len(bodies)
        columns: Dict[str, Any] = {
            f.name: np.stack([getattr(body, f.name) for body in bodies])[None]
            for f in fields(_Body)}
        return Observation(rgb=None if rgb is None else rgb[None],
                           contact=np.zeros((1, t), np.float32),
                           object_pose=np.zeros((1, t, 0, 3)), **columns)


class FrameCopy:
    """Bring frames from the accelerator into memory of the host that it can write directly."""

    def __init__(self) -> None:
        self._pinned: Optional[torch.Tensor] = None

    def to_host(self, frames: torch.Tensor) -> np.ndarray:
        """
        Copy, waiting once.

        :param frames: (T, H, W, 3) uint8
        :return: the same, owned by the caller
        """
        if frames.device.type != 'cuda':
            return frames.numpy().copy()
        pinned = self._pinned
        if pinned is None or pinned.shape != frames.shape:
            pinned = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
            self._pinned = pinned
        pinned.copy_(frames, non_blocking=True)
        torch.cuda.current_stream(frames.device).synchronize()
        return pinned.numpy().copy()


class _readable_errors:
    """Lack of device memory is lack of memory, and what is not finite has diverged."""

    def __enter__(self) -> '_readable_errors':
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                 trace: object) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            raise MemoryError(f'{str(error).splitlines()[0]} Use a smaller window_latents or '
                              'frame size, or precision nf4.') from error
        if isinstance(error, FloatingPointError):
            raise EngineDiverged(str(error)) from error


def _options(given: Dict[str, Any]) -> Tuple[ModelOptions, StreamOptions]:
    """Sort options into those of the models and those of the stream."""
    of_models, of_stream = ({f.name for f in fields(kind)}
                            for kind in (ModelOptions, StreamOptions))
    for name in given:
        if name not in of_models | of_stream:
            raise unknown_name('option of engine lingbot_world', name, of_models | of_stream)
    return (ModelOptions(**{name: given[name] for name in given if name in of_models}),
            StreamOptions(**{name: given[name] for name in given if name in of_stream}))


def _own_robot(given: Union[Robot, str], camera: PinholeCamera) -> Robot:
    """Return the user's robot, with this camera in the place of its first one."""
    robot = load_robot(given)
    place = robot.camera
    mounted = camera.mounted(place.position_m, place.rpy_rad)
    return robot.with_camera(mounted).with_quick_joints()


def _robot(description: str, camera: PinholeCamera) -> Robot:
    """Return the robot that is integrated: base, and the joints of its URDF."""
    shipped = load_robot()
    mounted = camera.mounted((0.0, 0.0, CAMERA_HEIGHT_M))
    drive = replace(shipped.drive, linear_low_mps=-BASE_SPEED_MPS, linear_high_mps=BASE_SPEED_MPS)
    robot = replace(shipped, drive=drive, description='').with_camera(mounted).with_quick_joints()
    if not description:
        return robot
    model = RobotModel.from_description(description)
    return replace(robot, arm=None, joints=tuple(
        joint_from_urdf(name, unit, model.joint_limits[name])
        for name, unit in model.actuated_joints.items()))
