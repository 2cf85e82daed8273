# SPDX-License-Identifier: Apache-2.0
"""
The embedded world: the trained state-space model behind the ``WorldModel`` interface.

Runs on one CPU core with OpenVINO, poses integrated in float64; needs neither torch nor a GPU nor
a download. Axes as in ``engines/interface.py``; k movable objects.
"""
import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.engines.interface import (Capabilities, Observation, Rows, Scenes, Seeds,
                                                 Start, State, WorldModel, WorldSpec)
from lingbot_world_ros.engines.rows import (check_actions, check_state, chosen_rows, in_order,
                                            row_starts, rows_for, side_by_side, with_rows)
from lingbot_world_ros.errors import shown, SpecError
from lingbot_world_ros.models.room.lens import check_camera
from lingbot_world_ros.models.room.runtime import (Arrays, FULL, Graph, has_bfloat16, ManyRows,
                                                   NUM_LATENT, QUICK, read_about, RendererParts,
                                                   scene_tensors, WEIGHTS)
from lingbot_world_ros.models.room.state import advance, RoomState
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.scenes import get_scene
import numpy as np

NUM_OBJECTS = 3  # movable objects of every scene
CAN = Capabilities(render=True, keep_scenes=True)
Call = Callable[[Arrays], Arrays]


class _Row(NamedTuple):
    """One world of the batch; never changed, a step makes another one."""

    scene: str
    state: RoomState  # b = 1
    generator: Optional[np.random.Generator]  # of the stochastic part; None: its mean


class _Group(NamedTuple):
    """Rows that are computed together; never changed either."""

    rows: Tuple[int, ...]
    scene: str
    state: RoomState  # b = len(rows)
    generators: Tuple[Optional[np.random.Generator], ...]


class RoomWorld(WorldModel):
    """
    A batch of imagined rooms.

    With ``exact``, the default, one row is computed after the other in float32: a row gives the
    same bytes in any batch. Without, rows of one scene move together, what is drawn is bfloat16
    where the CPU has it, and pictures of 120 pixels and more take one step less along each ray.
    That costs 0.2 dB of likeness there and 0.0 in smaller ones; how much faster it is, is in
    docs/benchmarks.md. It repeats itself, too, but for rounding by which rows share a scene.

    State: base pose and twist, joints, movable objects, all predicted; uncertainty of each.
    Observation: rgb, depth, contact probability, covariance of the pose, expected image error.
    """

    def __init__(self, batch_size: int = 1, weights: Union[str, Path] = WEIGHTS,
                 sample: bool = False, threads: int = 1, verify: bool = False,
                 robot: Union[Robot, str] = '', exact: bool = True) -> None:
        """
        Load the weights.

        :param batch_size: worlds side by side
        :param weights: folder with ``model.json`` and the files it names
        :param sample: draw the stochastic part from its prior (seeded); by default its mean
        :param threads: CPU threads of the runtime; more than one collapses when cores are busy
        :param verify: compare checksums first
        :param robot: '' or the one that ships, whose camera may have another size: pictures are
            drawn in it (4:3, multiples of 4, 48x36 to 192x144)
        :param exact: whether a row gives the same bytes in any batch, in float32
        :raises SpecError: bad batch size; another robot or camera; weights missing, corrupt or of
            another format
        """
        if batch_size < 1:
            raise SpecError(f'batch_size={batch_size} must be at least 1.')
        asked, learned = load_robot(robot), load_robot()
        if asked.with_camera(learned.camera) != learned:
            raise SpecError(f'robot {shown(asked.name)}: this world has learned the robot '
                            f'{learned.name!r} and knows no other; leave robot empty, or use '
                            'another engine (docs/your_own_robot.md).')
        check_camera(asked.camera, learned.camera)
        robot = asked
        self.weights = Path(weights)
        self.about = read_about(self.weights, verify)
        small = self.about['small']
        self._is_small = robot.camera.width_px < small['below_px']
        self._calibration = (small if self._is_small else self.about)['uncertainty']
        self.spec = WorldSpec(
            engine='room', model=self.about['name'], scenes=tuple(self.about['scenes']),
            robot=robot, action=robot_action_layout(robot), has_depth=True,
            predicted_states=('base', 'joints', 'contact', 'objects'),
            uncertainty_limit=self._calibration['calibrated_to'], can=CAN)
        self.batch_size, self._sample, self._threads = batch_size, sample, threads
        self._exact = exact
        scale = self.about['variance_scale']  # of position, yaw, joints, objects
        self._growth_scale = np.array(
            scale[:2] + [scale[2]] * len(robot.joints) + [scale[3]] * NUM_OBJECTS)
        self._low, self._high = robot.joint_array('low'), robot.joint_array('high')
        self._graphs: Dict[str, Tuple[Call, Call]] = {}  # scene -> (dynamics, renderer)
        self._groups: List[_Group] = []  # none before the first reset

    def reset(self, scenes: Scenes, seeds: Seeds, rows: Rows = None, *, render: bool = True,
              start: Optional[Start] = None) -> Observation:
        """Start rows over; see ``WorldModel.reset``."""
        starts = row_starts(scenes, seeds, rows, self.batch_size, self.spec)
        fresh = {start.row: self._first(start.scene, start.seed) for start in starts}
        self._groups = self._grouped(with_rows(self._rows, fresh, self.batch_size))
        return self._shown(self._grouped(list(fresh.values())), render)

    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """Advance one frame; see ``WorldModel.step``."""
        check_actions(actions, self.batch_size, self.spec)
        moved, contact = [], np.empty(self.batch_size, np.float32)
        for group in self._groups:
            rows = list(group.rows)
            group, contact[rows] = self._moved(group, actions[rows, 0])
            moved.append(group)
        seen = self._shown(moved, render, contact)
        self._groups = moved
        return seen

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
        self._groups = self._grouped(told)
        return self._shown(self._groups, render)

    def render(self, state: State) -> Observation:
        """Draw a state that came from elsewhere; see ``WorldModel.render``."""
        check_state(state, self.batch_size, NUM_OBJECTS, self.spec)
        return self._shown(self._grouped([row._replace(state=self._at_rest(state, i))
                                          for i, row in enumerate(self._rows)]), True)

    @property
    def variance(self) -> np.ndarray:
        """(b, 2 + j + k) float64: of position, yaw, joints, objects since the start."""
        return np.concatenate([row.state.variance for row in self._rows])

    def snapshot(self, rows: Rows = None) -> Tuple[_Row, ...]:
        """Return the state of rows."""
        own = self._rows
        return tuple(own[i] for i in chosen_rows(rows, self.batch_size))

    def restore(self, snapshot: Tuple[_Row, ...], rows: Rows = None) -> None:
        """Put rows into the state of a snapshot."""
        for row in snapshot:
            self._graphs_of(row.scene)
        taken = rows_for(snapshot, rows, self.batch_size)
        self._groups = self._grouped(with_rows(self._rows, taken, self.batch_size))

    @property
    def _rows(self) -> List[_Row]:
        """Return one row after the other; none before the first reset."""
        rows: Dict[int, _Row] = {}
        for group in self._groups:
            for i, row in enumerate(group.rows):
                rows[row] = _Row(group.scene, _row_of(group.state, i), group.generators[i])
        return [rows[row] for row in sorted(rows)]

    def _grouped(self, rows: Sequence[_Row]) -> List[_Group]:
        """Put rows together that are computed together: those of one scene, or each alone."""
        together: Dict[Any, List[int]] = {}
        for i, row in enumerate(rows):
            together.setdefault(i if self._exact else row.scene, []).append(i)
        groups = []
        for chosen in together.values():
            some = [rows[i] for i in chosen]
            state = RoomState(*(np.concatenate(parts) for parts in zip(*(
                vars(row.state).values() for row in some))))
            groups.append(_Group(tuple(chosen), some[0].scene, state,
                                 tuple(row.generator for row in some)))
        return groups

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

    def _moved(self, group: _Group, action: np.ndarray) -> Tuple[_Group, np.ndarray]:
        """Return a group one frame later, and the probability of contact, (b,)."""
        state, generators = group.state, group.generators
        noise = np.zeros((len(group.rows), NUM_LATENT), np.float32)
        if self._sample:
            generators = copy.deepcopy(generators)
            for i, generator in enumerate(generators):
                if generator is not None:
                    noise[i] = generator.standard_normal((1, NUM_LATENT), np.float32)
        dynamics, _ = self._graphs[group.scene]
        out = dynamics({**vars(state), 'action': action, 'noise': noise})
        moved = advance(state, {
            'motion': out['motion'].astype(np.float64), 'twist': out['twist_next'],
            'joint_motion': out['joint_motion'].astype(np.float64),
            'joint_speed': out['joint_speed_next'],
            'object_motion': out['object_motion_next'].astype(np.float64),
            'hidden': out['hidden_next'],
            'growth': out['growth'] * self._growth_scale}, self._low, self._high, np)
        return group._replace(state=moved, generators=generators), out['contact']

    def _shown(self, groups: Sequence[_Group], render: bool,
               contact: Optional[np.ndarray] = None) -> Observation:
        """Draw groups, all of whose rows are 0, 1, ...; nothing of it is shared."""
        rows = [row for group in groups for row in group.rows]
        if contact is None:
            contact = np.zeros(len(rows), np.float32)
        seen = side_by_side([self._seen(group, contact[list(group.rows)], render)
                             for group in groups])
        return in_order(seen, rows)

    def _seen(self, group: _Group, contact: np.ndarray, render: bool) -> Observation:
        """Draw a group and put it into the interface's terms; nothing of it is shared."""
        state = group.state
        drawn, extra = self._drawn(group) if render else ({}, {})
        covariance = np.zeros((len(group.rows), 3, 3))
        covariance[:, [0, 1], [0, 1]] = state.variance[:, :1]
        covariance[:, 2, 2] = state.variance[:, 1]
        columns: Dict[str, Optional[np.ndarray]] = {
            'rgb': None, **drawn, 'contact': contact, 'base_pose': state.pose.copy(),
            'base_twist': state.twist.astype(np.float64), 'joint_position': state.joints.copy(),
            'joint_velocity': state.joint_speed.astype(np.float64),
            'object_pose': state.objects.copy(), 'base_pose_cov': covariance}
        framed: Dict[str, Any] = {k: None if v is None else v[:, None]
                                  for k, v in columns.items()}
        return Observation(**framed, extra=extra)

    def _drawn(self, group: _Group) -> Tuple[Arrays, Arrays]:
        """Return pictures and what is known of them, by name, and what goes into ``extra``."""
        _, renderer = self._graphs[group.scene]
        parts = []
        for i in range(len(group.rows)):  # a batch takes longer than its rows one by one
            state = _row_of(group.state, i)
            parts.append(renderer({'pose': state.pose, 'joints': state.joints,
                                   'objects': state.objects, 'variance': state.variance}))
        rgb, depth, sensitivity = (
            parts[0][name] if len(parts) == 1 else np.concatenate([part[name] for part in parts])
            for name in ('rgb', 'depth', 'sensitivity'))
        uncertainty, calibrated = self._uncertainty(group.scene, sensitivity)
        return ({'rgb': rgb, 'depth_m': depth, 'uncertainty': uncertainty,
                 'calibrated': calibrated}, {'sensitivity': sensitivity})

    def _uncertainty(self, scene: str, sensitivity: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Expected RMS error of the image, 0..1, and whether it is in the calibrated range."""
        c = self._calibration
        drift = sensitivity @ np.array(c['gain'], np.float32)
        # Two unrelated images of one scene differ by about ``ceiling``; no drift can do worse.
        square = c['floor'][scene] ** 2 + drift * c['ceiling'] ** 2 / (drift + c['ceiling'] ** 2)
        error = np.sqrt(square).astype(np.float32)
        return error, error <= c['calibrated_to']

    def _graphs_of(self, scene: str) -> Tuple[Call, Call]:
        """Return dynamics and renderer of a scene, compiled when it is first needed."""
        if scene not in self._graphs:
            folder, camera, threads = self.weights, self.spec.camera, self._threads
            tensors = scene_tensors(folder, scene, self._is_small)
            dynamics, renderer = folder / 'dynamics.onnx', folder / 'renderer.onnx'
            move: Call = (Graph if self._exact else ManyRows)(dynamics, tensors, threads)
            if self._exact and not self._is_small:
                draw: Call = Graph(renderer, tensors, threads, camera=camera)
            else:
                draw = RendererParts(folder, '_small' if self._is_small else '', tensors, threads,
                                     camera, FULL if self._exact or not has_bfloat16() else QUICK)
            self._graphs[scene] = move, draw
        return self._graphs[scene]


def _row_of(state: RoomState, i: int) -> RoomState:
    """Return one row of a state, b = 1."""
    return RoomState(*(value[i:i + 1] for value in vars(state).values()))
