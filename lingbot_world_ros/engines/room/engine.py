# SPDX-License-Identifier: Apache-2.0
"""
The embedded world: the trained state-space model behind the ``WorldModel`` interface.

Runs on one CPU core with OpenVINO, float32 throughout, poses integrated in float64; needs
neither torch nor a GPU nor a download. Axes as in ``engines/interface.py``; k movable objects.
"""
from dataclasses import replace
import hashlib
import json
from pathlib import Path

from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.engines.interface import Observation, WorldModel, WorldSpec
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.models.room.state import advance, RoomState
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.worlds.scenes import get_scene
import numpy as np
from safetensors.numpy import load_file

WEIGHTS = Path(__file__).parents[2] / 'models' / 'room' / 'weights'
FORMAT = 1
REMEDY = 'Restore the folder from the release, or train and export it again.'
NUM_LATENT = 8  # width of the stochastic part
NUM_OBJECTS = 3  # movable objects of every scene


class RoomWorld(WorldModel):
    """
    A batch of imagined rooms.

    State: base pose and twist, joints, movable objects, all predicted; uncertainty of each.
    Observation: rgb, depth, contact probability, covariance of the pose, expected image error.
    """

    def __init__(self, batch_size: int = 1, weights=WEIGHTS, sample: bool = False,
                 threads: int = 1, verify: bool = False):
        """
        Load the weights.

        :param batch_size: worlds side by side
        :param weights: folder with ``model.json`` and the files it names
        :param sample: draw the stochastic part from its prior (seeded); by default its mean
        :param threads: CPU threads of the runtime; more than one collapses when cores are busy
        :param verify: compare checksums first
        :raises SpecError: bad batch size; weights missing, corrupt or of another format
        """
        if batch_size < 1:
            raise SpecError(f'batch_size={batch_size} must be at least 1.')
        self.weights = Path(weights)
        self.about = read_about(self.weights, verify)
        robot = load_robot()
        self.spec = WorldSpec(
            engine='room', model=self.about['name'], scenes=tuple(self.about['scenes']),
            robot=robot, action=robot_action_layout(robot), has_depth=True,
            predicted_states=('base', 'joints', 'contact', 'objects'),
            uncertainty_limit=self.about['uncertainty']['calibrated_to'])
        self._batch_size, self._sample, self._threads = batch_size, sample, threads
        scale = self.about['variance_scale']  # of position, yaw, joints, objects
        self._growth_scale = np.array(
            scale[:2] + [scale[2]] * len(robot.joints) + [scale[3]] * NUM_OBJECTS)
        self._low, self._high = robot.joint_array('low'), robot.joint_array('high')
        self._graphs = {}  # scene -> (dynamics, renderer)
        self._scene = None
        self._state = None
        self._rng = None

    def reset(self, scene: str, seed, render: bool = True) -> Observation:
        """Start over; see ``WorldModel.reset``."""
        if scene not in self.spec.scenes:
            raise unknown_name('scene', scene, self.spec.scenes)
        seeds = np.broadcast_to(np.asarray(seed, np.int64), (self._batch_size,))
        starts = [get_scene(scene).start_state(s, self.spec.robot) for s in seeds]
        if scene not in self._graphs:
            self._graphs[scene] = self._compile(scene)
        self._scene = scene
        self._rng = np.random.default_rng([abs(int(s)) for s in seeds])
        self._state = self._known_state(np.stack([s.base_pose for s in starts]),
                                        np.stack([s.joint_position for s in starts]),
                                        np.stack([s.object_pose for s in starts]))
        return self._observe(self._state, np.zeros(self._batch_size, np.float32), render)

    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """Advance one frame; see ``WorldModel.step``."""
        dynamics, _ = self._graphs[self._scene]
        state = self._state
        noise = np.zeros((self._batch_size, NUM_LATENT), np.float32)
        if self._sample:
            noise = self._rng.standard_normal(noise.shape, np.float32)
        out = dynamics({**{k: getattr(state, k) for k in
                           ('pose', 'twist', 'joints', 'joint_speed', 'objects', 'object_motion',
                            'hidden')}, 'action': actions[:, 0], 'noise': noise})
        moved = advance(state, {
            'motion': out['motion'].astype(np.float64), 'twist': out['twist_next'],
            'joint_motion': out['joint_motion'].astype(np.float64),
            'joint_speed': out['joint_speed_next'],
            'object_motion': out['object_motion_next'].astype(np.float64),
            'hidden': out['hidden_next'],
            'growth': out['growth'] * self._growth_scale}, self._low, self._high, np)
        observation = self._observe(moved, out['contact'], render)
        self._state = moved
        return observation

    def object_names(self, scene: str) -> tuple:
        """Return the names of the movable objects; see ``WorldModel.object_names``."""
        return tuple(movable.name for movable in get_scene(scene).movables)

    def observe(self, observation: Observation, render: bool = True) -> Observation:
        """
        Replace imagined state by observed state: pose, twist, joints, objects of the last frame.

        :param observation: what was measured; images are not used
        :param render: False skips rgb and depth
        :return: the world as it is now, t = 1
        """
        state = self._known_state(observation.base_pose[:, -1], observation.joint_position[:, -1],
                                  observation.object_pose[:, -1])
        self._state = replace(state, twist=np.float32(observation.base_twist[:, -1]),
                              joint_speed=np.float32(observation.joint_velocity[:, -1]),
                              hidden=self._state.hidden)
        return self._observe(self._state, np.zeros(self._batch_size, np.float32), render)

    @property
    def variance(self) -> np.ndarray:
        """(b, 2 + j + k) float64: of position, yaw, joints, objects since the start."""
        return self._state.variance.copy()

    def snapshot(self):
        """Return a copy of the state of all worlds."""
        return self._scene, replace(self._state), self._rng.bit_generator.state

    def restore(self, snapshot) -> None:
        """Go back to a snapshot."""
        self._scene, state, generator = snapshot
        self._state = replace(state)
        self._rng.bit_generator.state = generator

    def _known_state(self, pose, joints, objects):
        """State of a robot at rest, known exactly."""
        b, k = objects.shape[:2]
        j, hidden = len(self.spec.joints), self.about['hidden']
        return RoomState(np.array(pose, np.float64), np.zeros((b, 3), np.float32),
                         np.array(joints, np.float64), np.zeros((b, j), np.float32),
                         np.array(objects, np.float64), np.zeros((b, k, 3)),
                         np.zeros((b, hidden), np.float32), np.zeros((b, 2 + j + k)))

    def _observe(self, state, contact, render):
        """Draw a state and put it into the interface's terms."""
        rgb = depth = uncertainty = calibrated = None
        extra = {}
        if render:
            _, renderer = self._graphs[self._scene]
            out = renderer({'pose': state.pose, 'joints': state.joints, 'objects': state.objects,
                            'variance': state.variance})
            rgb, depth = out['rgb'], out['depth']
            uncertainty, calibrated = self._uncertainty(out['sensitivity'])
            extra['sensitivity'] = out['sensitivity']
        covariance = np.zeros((self._batch_size, 3, 3))
        covariance[:, [0, 1], [0, 1]] = state.variance[:, :1]
        covariance[:, 2, 2] = state.variance[:, 1]
        columns = {'rgb': rgb, 'depth_m': depth, 'uncertainty': uncertainty,
                   'calibrated': calibrated, 'contact': contact, 'base_pose': state.pose,
                   'base_twist': state.twist.astype(np.float64), 'joint_position': state.joints,
                   'joint_velocity': state.joint_speed.astype(np.float64),
                   'object_pose': state.objects, 'base_pose_cov': covariance}
        return Observation(**{k: None if v is None else v[:, None] for k, v in columns.items()},
                           extra=extra)

    def _uncertainty(self, sensitivity):
        """Expected RMS error of the image, 0..1, and whether it is in the calibrated range."""
        c = self.about['uncertainty']
        drift = sensitivity @ np.array(c['gain'], np.float32)
        # Two unrelated images of one scene differ by about ``ceiling``; no drift can do worse.
        square = c['floor'][self._scene] ** 2 + drift * c['ceiling'] ** 2 \
            / (drift + c['ceiling'] ** 2)
        error = np.sqrt(square).astype(np.float32)
        return error, error <= c['calibrated_to']

    def _compile(self, scene):
        """Build both graphs for a scene's sizes."""
        tensors = scene_tensors(self.weights, scene)
        return tuple(Graph(self.weights / f'{name}.onnx', tensors, self._batch_size,
                           self._threads) for name in ('dynamics', 'renderer'))


class Graph:
    """One ONNX graph on OpenVINO with a scene's tensors already in place."""

    def __init__(self, path: Path, tensors: dict, batch_size: int, threads: int):
        """
        Compile for fixed sizes.

        :param path: ONNX file
        :param tensors: constant inputs, by name
        :param batch_size: first axis of all other inputs
        :param threads: CPU threads
        """
        import openvino
        core = openvino.Core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise SpecError(f'{path} cannot be read: not an ONNX graph. {REMEDY}') from error
        sizes = {}
        for port in model.inputs:
            name, shape = _port_name(port), port.get_partial_shape()
            sizes[port] = tensors[name].shape if name in tensors else [
                batch_size, *(d.get_length() for d in list(shape)[1:])]
        model.reshape(sizes)
        compiled = core.compile_model(model, 'CPU', {
            'INFERENCE_NUM_THREADS': threads, 'NUM_STREAMS': 1, 'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_PRECISION_HINT': 'f32'})
        self._request = compiled.create_infer_request()
        self._constants = []  # the request only borrows them
        self._inputs = {}
        for port in compiled.inputs:
            name = _port_name(port)
            if name in tensors:
                self._constants.append(tensors[name])
                self._request.set_tensor(port, openvino.Tensor(tensors[name], shared_memory=True))
            else:
                self._inputs[name] = self._request.get_tensor(port).data
        self._outputs = {_port_name(p): self._request.get_tensor(p).data
                         for p in compiled.outputs}

    def __call__(self, inputs: dict) -> dict:
        """
        Run once.

        :param inputs: arrays by name; those that the graph does not take are left out
        :return: name -> array, owned by the caller
        """
        for name, array in self._inputs.items():
            array[:] = inputs[name]
        self._request.infer()
        return {name: array.copy() for name, array in self._outputs.items()}


def _port_name(port) -> str:
    """Name given at export; the runtime keeps names of internal edges beside it."""
    return next(n for n in port.get_names() if '/' not in n)


def read_about(folder: Path, verify: bool = False) -> dict:
    """
    Read ``model.json`` and check that the files it names are there.

    :param folder: weights folder
    :param verify: also compare checksums
    :return: the content
    :raises SpecError: missing, corrupt, or another format
    """
    path = Path(folder) / 'model.json'
    try:
        about = json.loads(path.read_text())
        version, sums = about['format'], about['sha256']
    except FileNotFoundError:
        raise SpecError(f'No weights in {folder}: {path.name} is missing. {REMEDY}') from None
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(f'{path} is corrupt ({error!r}). {REMEDY}') from None
    if version != FORMAT:
        raise SpecError(f'{path} has format {version}, expected {FORMAT}. {REMEDY}')
    for name, expected in sums.items():
        file = Path(folder) / name
        if not file.is_file():
            raise SpecError(f'{file} is missing. {REMEDY}')
        if verify and hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise SpecError(f'{file} is corrupt: its checksum does not match. {REMEDY}')
    return about


def scene_tensors(folder: Path, scene: str) -> dict:
    """
    Read one scene's tensors in the form the graphs take them.

    :param folder: weights folder
    :param scene: name of the scene
    :return: name -> float32 array
    :raises SpecError: unreadable file
    """
    tensors = _read_tensors(folder / f'{scene}.safetensors')
    # Slices of the distance grid side by side, each with the next one as second channel.
    sdf = tensors.pop('sdf')
    above = np.concatenate([sdf[..., 1:], sdf[..., -1:]], -1)
    atlas = np.stack([sdf, above]).transpose(0, 1, 3, 2)
    tensors['atlas'] = np.ascontiguousarray(atlas.reshape(1, 2, len(sdf), -1))
    contact = _read_tensors(folder / 'contact.safetensors')
    prefix = f'{scene}.'
    tensors.update({k[len(prefix):]: v for k, v in contact.items() if k.startswith(prefix)})
    return tensors


def _read_tensors(path: Path) -> dict:
    try:
        return {k: np.ascontiguousarray(v, np.float32) for k, v in load_file(path).items()}
    except Exception as error:  # the library raises its own, undocumented types
        raise SpecError(f'{path} cannot be read ({error}). {REMEDY}') from error
