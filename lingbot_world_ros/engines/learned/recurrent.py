# SPDX-License-Identifier: Apache-2.0
"""
What a robot saw while it was driven, as a ``WorldModel``: pictures that follow commands.

There is no pose, no depth and no joint in it: ``spec`` says so, and what an observation has of
them is zero. Axes as in ``engines/interface.py``.
"""
import copy
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from lingbot_world_ros.actions.layout import ActionDim, ActionLayout, ANGULAR, LATERAL, LINEAR
from lingbot_world_ros.engines.interface import (Capabilities, Observation, Rows, Scenes, Seeds,
                                                 Start, WorldModel, WorldSpec)
from lingbot_world_ros.engines.rows import (check_actions, chosen_rows, row_starts, rows_for,
                                            side_by_side, with_rows)
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.models.recurrent.runtime import RecurrentModel, State
from lingbot_world_ros.robots.drive import Drive
from lingbot_world_ros.robots.robot import Footprint, Robot, RobotCamera
from lingbot_world_ros.worlds.learned import model_name, read_learned
import numpy as np

CAN = Capabilities(take_poses=False)
NOMINAL_FOVX_RAD = 1.6  # of a camera that nobody has calibrated; not published
COLUMNS = {'linear_x': LINEAR, 'linear_y': LATERAL, 'angular_z': ANGULAR,
           'steering_angle': ANGULAR}


@dataclass(frozen=True)
class _Row:
    """One world of the batch; never changed, a step makes another one."""

    state: Dict[str, np.ndarray]
    generator: Optional[np.random.Generator]  # of which future it is; None: the best guess


class RecurrentWorld(WorldModel):
    """
    A batch of worlds that were learned from pictures and commands alone.

    Observation: rgb, and the expected image error.
    """

    def __init__(self, folder: Path, batch_size: int = 1, threads: int = 1,
                 verify: bool = False, sample: bool = False,
                 starts: Sequence[State] = ()) -> None:
        """
        Load a world.

        :param folder: with ``world.yaml`` and the files it names
        :param batch_size: worlds side by side
        :param threads: CPU threads of the runtime
        :param verify: compare checksums first
        :param sample: draw the future by chance (seeded); by default the best guess
        :param starts: states that seeds begin in, one after the other, in place of its own
        :raises SpecError: bad batch size; a folder that cannot be used
        """
        if batch_size < 1:
            raise SpecError(f'batch_size={batch_size} must be at least 1.')
        about = read_learned(folder, verify)
        self.about, self.batch_size, self._sample = about, batch_size, sample
        self._model, self._starts = RecurrentModel(folder, threads), starts
        model = self._model
        action = _layout(model.action_names, model.action_low, model.action_high)
        self.spec = WorldSpec(
            engine='learned', model=model_name(about, starts), scenes=(about['name'],),
            robot=_robot(about['name'], action, model.width_px, model.height_px), action=action,
            frame_rate_hz=model.rate_hz, uncertainty_limit=float(model.calibration.familiar),
            can=CAN, has_calibration=False)
        self._rows: List[_Row] = []  # none before the first reset

    def reset(self, scenes: Scenes, seeds: Seeds, rows: Rows = None, *, render: bool = True,
              start: Optional[Start] = None) -> Observation:
        """Start rows where the recording once was; see ``WorldModel.reset``."""
        starts = row_starts(scenes, seeds, rows, self.batch_size, self.spec)
        fresh = {s.row: _Row(self._first(abs(s.seed)), np.random.default_rng(
            [abs(s.seed)]) if self._sample else None) for s in starts}
        self._rows = with_rows(self._rows, fresh, self.batch_size)
        return side_by_side([self._seen(row, render) for row in fresh.values()])

    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """Advance one frame; see ``WorldModel.step``."""
        check_actions(actions, self.batch_size, self.spec)
        moved = [self._moved(row, actions[i]) for i, row in enumerate(self._rows)]
        seen = side_by_side([self._seen(row, render) for row in moved])
        self._rows = moved
        return seen

    def object_names(self, scene: str) -> Tuple[str, ...]:
        """Return nothing: there are only pictures; see ``WorldModel.object_names``."""
        return ()

    def observe(self, observation: Observation, render: bool = True) -> Observation:
        """
        Show the world as it is: there is no pose in it that could be replaced.

        :param observation: not used
        :param render: False skips rgb
        :return: the world as it is now, t = 1
        """
        return side_by_side([self._seen(row, render) for row in self._rows])

    def snapshot(self, rows: Rows = None) -> Tuple[_Row, ...]:
        """Return the state of rows."""
        return tuple(self._rows[i] for i in chosen_rows(rows, self.batch_size))

    def restore(self, snapshot: Tuple[_Row, ...], rows: Rows = None) -> None:
        """Put rows into the state of a snapshot."""
        taken = rows_for(snapshot, rows, self.batch_size)
        self._rows = with_rows(self._rows, taken, self.batch_size)

    def _first(self, seed: int) -> State:
        if self._starts:
            return self._starts[seed % len(self._starts)]
        return self._model.start(seed)

    def _moved(self, row: _Row, action: np.ndarray) -> _Row:
        """Return a row one frame later; one at a time, so that a row is as if it were alone."""
        generator = copy.deepcopy(row.generator)
        return replace(row, state=self._model.step(row.state, action, generator),
                       generator=generator)

    def _seen(self, row: _Row, render: bool) -> Observation:
        columns: Dict[str, Any] = {
            'rgb': None, 'base_pose': np.zeros((1, 3)), 'base_twist': np.zeros((1, 3)),
            'joint_position': np.zeros((1, 0)), 'joint_velocity': np.zeros((1, 0)),
            'contact': np.zeros(1, np.float32), 'object_pose': np.zeros((1, 0, 3))}
        if render:
            rgb, error = self._model.draw(row.state)
            error = np.asarray(error, np.float32)
            columns.update(rgb=rgb, uncertainty=error,
                           calibrated=error <= self.spec.uncertainty_limit)
        framed: Dict[str, Any] = {k: None if v is None else v[:, None]
                                  for k, v in columns.items()}
        return Observation(**framed)


def _layout(names: Tuple[str, ...], low: np.ndarray, high: np.ndarray) -> ActionLayout:
    """Return what can be commanded: what was commanded in the recording, within its range."""
    dims = []
    for name, least, most in zip(names, low.tolist(), high.tolist()):
        if name not in COLUMNS:
            raise SpecError(f'A world that takes {name!r}: only velocities of a base are known '
                            f'here ({", ".join(COLUMNS)}).')
        unit = 'rad/s' if COLUMNS[name] == ANGULAR else 'm/s'
        dims.append(ActionDim(COLUMNS[name], unit, min(least, 0.0), max(most, 0.0)))
    return ActionLayout(tuple(dims))


def _robot(name: str, action: ActionLayout, width_px: int, height_px: int) -> Robot:
    """Return what is known of a robot: how it may be commanded, and the size of its pictures."""
    limits = {dim.name: dim for dim in action.dims}
    forward = limits.get(LINEAR, ActionDim(LINEAR, 'm/s', 0.0, 1.0))
    turn = limits.get(ANGULAR, ActionDim(ANGULAR, 'rad/s', -1.0, 1.0))
    sideways = limits.get(LATERAL)
    drive = Drive(forward.low, max(forward.high, 1e-3), max(-turn.low, turn.high, 1e-3),
                  max(-sideways.low, sideways.high) if sideways else 0.0, inf)
    camera = PinholeCamera.from_fovx(width_px, height_px, NOMINAL_FOVX_RAD).mounted((0.0, 0.0,
                                                                                     0.0))
    return Robot(name, drive, (RobotCamera('front', 'base_link', camera),),
                 Footprint(0.2, 0.5, 0.5))
