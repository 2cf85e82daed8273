# SPDX-License-Identifier: Apache-2.0
"""
The embedded world: the trained state-space model behind the ``WorldModel`` interface.

Runs on one CPU core with OpenVINO, float32 throughout, poses integrated in float64; needs
neither torch nor a GPU nor a download. Axes as in ``engines/interface.py``; k movable objects.
"""
import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.engines.interface import (Capabilities, Observation, Rows, Scenes, Seeds,
                                                 Start, State, WorldModel, WorldSpec)
from lingbot_world_ros.engines.rows import (check_actions, check_state, chosen_rows, row_starts,
                                            rows_for, side_by_side, with_rows)
from lingbot_world_ros.errors import shown, SpecError
from lingbot_world_ros.models.room.runtime import (Graph, NUM_LATENT, read_about, scene_tensors,
                                                   WEIGHTS)
from lingbot_world_ros.models.room.state import advance, RoomState
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import get_scene
import numpy as np

NUM_OBJECTS = 3  # movable objects of every scene
CAN = Capabilities(render=True, keep_scenes=True)
NO_CONTACT = np.zeros(1, np.float32)


class _Row(NamedTuple):
    """One world of the batch; never changed, a step makes another one."""

    scene: str
    state: RoomState  # b = 1
    generator: Optional[np.random.Generator]  # of the stochastic part; None: its mean


class RoomWorld(WorldModel):
    """
    A batch of imagined rooms, computed one after the other.

    The runtime rounds a batch otherwise than a single world; row by row both give the same bytes,
    and rows may be in different scenes. It costs nothing where images are made.

    State: base pose and twist, joints, movable objects, all predicted; uncertainty of each.
    Observation: rgb, depth, contact probability, covariance of the pose, expected image error.
    """

    def __init__(self, batch_size: int = 1, weights: Union[str, Path] = WEIGHTS,
                 sample: bool = False, threads: int = 1, verify: bool = False,
                 robot: Union[Robot, str] = '') -> None:
        """
        Load the weights.

        :param batch_size: worlds side by side
        :param weights: folder with ``model.json`` and the files it names
        :param sample: draw the stochastic part from its prior (seeded); by default its mean
        :param threads: CPU threads of the runtime; more than one collapses when cores are busy
        :param verify: compare checksums first
        :param robot: '' or the one that ships, in whose pictures the weights were trained
        :raises SpecError: bad batch size; another robot; weights missing, corrupt or of another
            format
        """
        if batch_size < 1:
            raise SpecError(f'batch_size={batch_size} must be at least 1.')
        asked, robot = load_robot(robot), load_robot()
        if asked != robot:
            raise SpecError(f'robot {shown(asked.name)}: this world has learned the robot '
                            f'{robot.name!r} and knows no other; leave robot empty, or use '
                            'another engine (docs/your_own_robot.md).')
        self.weights = Path(weights)
        self.about = read_about(self.weights, verify)
        self.spec = WorldSpec(
            engine='room', model=self.about['name'], scenes=tuple(self.about['scenes']),
            robot=robot, action=robot_action_layout(robot), has_depth=True,
            predicted_states=('base', 'joints', 'contact', 'objects'),
            uncertainty_limit=self.about['uncertainty']['calibrated_to'], can=CAN)
        self.batch_size, self._sample, self._threads = batch_size, sample, threads
        scale = self.about['variance_scale']  # of position, yaw, joints, objects
        self._growth_scale = np.array(
            scale[:2] + [scale[2]] * len(robot.joints) + [scale[3]] * NUM_OBJECTS)
        self._low, self._high = robot.joint_array('low'), robot.joint_array('high')
        self._graphs: Dict[str, Tuple[Graph, Graph]] = {}  # scene -> (dynamics, renderer)
        self._rows: List[_Row] = []  # none before the first reset

    def reset(self, scenes: Scenes, seeds: Seeds, rows: Rows = None, *, render: bool = True,
              start: Optional[Start] = None) -> Observation:
        """Start rows over; see ``WorldModel.reset``."""
        starts = row_starts(scenes, seeds, rows, self.batch_size, self.spec)
        fresh = {start.row: self._first(start.scene, start.seed) for start in starts}
        self._rows = with_rows(self._rows, fresh, self.batch_size)
        return side_by_side([self._shown(row, NO_CONTACT, render) for row in fresh.values()])

    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """Advance one frame; see ``WorldModel.step``."""
        check_actions(actions, self.batch_size, self.spec)
        moved, shown = [], []
        for i, row in enumerate(self._rows):
            row, contact = self._moved(row, actions[i])
            moved.append(row)
            shown.append(self._shown(row, contact, render))
        self._rows = moved
        return side_by_side(shown)

    def object_names(self, scene: str) -> Tuple[str, ...]:
        """Return the names of the movable objects; see ``WorldModel.object_names``."""
        return tuple(movable.name for movable in get_scene(scene).movables)

    def observe(self, observation: Observation, render: bool = True) -> Observation:
        """
        Replace imagined state by observed state: pose, twist, joints, objects of the last frame.

        :param observation: what was measured; images are not used
        :param render: False skips rgb and depth
        :return: the world as it is now, t = 1
        """
        seen = State.of(observation)
        check_state(seen, self.batch_size, NUM_OBJECTS, self.spec)
        told = []
        for i, row in enumerate(self._rows):
            state = replace(self._at_rest(seen, i), hidden=row.state.hidden,
                            twist=observation.base_twist[i:i + 1, -1].astype(np.float32),
                            joint_speed=observation.joint_velocity[i:i + 1, -1].astype(np.float32))
            told.append(row._replace(state=state))
        self._rows = told
        return side_by_side([self._shown(row, NO_CONTACT, render) for row in told])

    def render(self, state: State) -> Observation:
        """Draw a state that came from elsewhere; see ``WorldModel.render``."""
        check_state(state, self.batch_size, NUM_OBJECTS, self.spec)
        return side_by_side([self._shown(row._replace(state=self._at_rest(state, i)), NO_CONTACT,
                                         True) for i, row in enumerate(self._rows)])

    @property
    def variance(self) -> np.ndarray:
        """(b, 2 + j + k) float64: of position, yaw, joints, objects since the start."""
        return np.concatenate([row.state.variance for row in self._rows])

    def snapshot(self, rows: Rows = None) -> Tuple[_Row, ...]:
        """Return the state of rows."""
        return tuple(self._rows[i] for i in chosen_rows(rows, self.batch_size))

    def restore(self, snapshot: Tuple[_Row, ...], rows: Rows = None) -> None:
        """Put rows into the state of a snapshot."""
        for row in snapshot:
            self._graphs_of(row.scene)
        taken = rows_for(snapshot, rows, self.batch_size)
        self._rows = with_rows(self._rows, taken, self.batch_size)

    def _first(self, scene: str, seed: int) -> _Row:
        self._graphs_of(scene)
        start = get_scene(scene).start_state(seed, self.spec.robot)
        state = self._at_rest(State(start.base_pose[None], start.joint_position[None],
                                    start.object_pose[None]), 0)
        return _Row(scene, state, np.random.default_rng([abs(seed)]) if self._sample else None)

    def _at_rest(self, known: State, i: int) -> RoomState:
        """State of a robot at rest, known exactly, from a row of what is known."""
        k, j, hidden = NUM_OBJECTS, len(self.spec.joints), self.about['hidden']
        pose, joints, objects = (np.array(value[i:i + 1], np.float64) for value in (
            known.base_pose, known.joint_position, known.object_pose))
        return RoomState(pose, np.zeros((1, 3), np.float32), joints,
                         np.zeros((1, j), np.float32), objects, np.zeros((1, k, 3)),
                         np.zeros((1, hidden), np.float32), np.zeros((1, 2 + j + k)))

    def _moved(self, row: _Row, action: np.ndarray) -> Tuple[_Row, np.ndarray]:
        """Return a row one frame later, and the probability of contact, (1,)."""
        state, generator = row.state, row.generator
        noise = np.zeros((1, NUM_LATENT), np.float32)
        if generator is not None:
            generator = copy.deepcopy(generator)
            noise = generator.standard_normal(noise.shape, np.float32)
        dynamics, _ = self._graphs[row.scene]
        out = dynamics({**vars(state), 'action': action, 'noise': noise})
        moved = advance(state, {
            'motion': out['motion'].astype(np.float64), 'twist': out['twist_next'],
            'joint_motion': out['joint_motion'].astype(np.float64),
            'joint_speed': out['joint_speed_next'],
            'object_motion': out['object_motion_next'].astype(np.float64),
            'hidden': out['hidden_next'],
            'growth': out['growth'] * self._growth_scale}, self._low, self._high, np)
        return _Row(row.scene, moved, generator), out['contact']

    def _shown(self, row: _Row, contact: np.ndarray, render: bool) -> Observation:
        """Draw a row and put it into the interface's terms; nothing of it is shared."""
        state, rgb, depth, uncertainty, calibrated, extra = row.state, None, None, None, None, {}
        if render:
            _, renderer = self._graphs[row.scene]
            out = renderer({'pose': state.pose, 'joints': state.joints, 'objects': state.objects,
                            'variance': state.variance})
            rgb, depth = out['rgb'], out['depth']
            uncertainty, calibrated = self._uncertainty(row.scene, out['sensitivity'])
            extra['sensitivity'] = out['sensitivity']
        covariance = np.zeros((1, 3, 3))
        covariance[:, [0, 1], [0, 1]] = state.variance[:, :1]
        covariance[:, 2, 2] = state.variance[:, 1]
        columns = {'rgb': rgb, 'depth_m': depth, 'uncertainty': uncertainty,
                   'calibrated': calibrated, 'contact': contact.copy(),
                   'base_pose': state.pose.copy(), 'base_twist': state.twist.astype(np.float64),
                   'joint_position': state.joints.copy(),
                   'joint_velocity': state.joint_speed.astype(np.float64),
                   'object_pose': state.objects.copy(), 'base_pose_cov': covariance}
        framed: Dict[str, Any] = {k: None if v is None else v[:, None]
                                  for k, v in columns.items()}
        return Observation(**framed, extra=extra)

    def _uncertainty(self, scene: str, sensitivity: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Expected RMS error of the image, 0..1, and whether it is in the calibrated range."""
        c = self.about['uncertainty']
        drift = sensitivity @ np.array(c['gain'], np.float32)
        # Two unrelated images of one scene differ by about ``ceiling``; no drift can do worse.
        square = c['floor'][scene] ** 2 + drift * c['ceiling'] ** 2 / (drift + c['ceiling'] ** 2)
        error = np.sqrt(square).astype(np.float32)
        return error, error <= c['calibrated_to']

    def _graphs_of(self, scene: str) -> Tuple[Graph, Graph]:
        """Return dynamics and renderer of a scene, compiled when it is first needed."""
        if scene not in self._graphs:
            tensors = scene_tensors(self.weights, scene)
            dynamics, renderer = (Graph(self.weights / f'{name}.onnx', tensors, self._threads)
                                  for name in ('dynamics', 'renderer'))
            self._graphs[scene] = dynamics, renderer
        return self._graphs[scene]
