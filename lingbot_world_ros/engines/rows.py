# SPDX-License-Identifier: Apache-2.0
"""
The rows of a batch: which are meant, what is given for each, and observations side by side.

Every engine checks its arguments here, before it changes anything.
"""
from dataclasses import fields
import operator
from typing import Any, Dict, List, NamedTuple, Sequence, TypeVar

from lingbot_world_ros.engines.interface import Observation, Rows, Scenes, Seeds, State, WorldSpec
from lingbot_world_ros.errors import SpecError, unknown_name
import numpy as np

T = TypeVar('T')


class RowStart(NamedTuple):
    """Where one row starts over."""

    row: int
    scene: str
    seed: int


def chosen_rows(rows: Rows, batch_size: int) -> List[int]:
    """
    Say which rows are meant.

    :param rows: indices, each once; a mask of all rows; or None for all
    :param batch_size: how many there are
    :return: indices, in the order given
    :raises SpecError: not such a choice
    """
    if rows is None:
        return list(range(batch_size))
    given = np.asarray(rows)
    if given.ndim == 1 and given.dtype == bool and len(given) == batch_size and given.any():
        return np.flatnonzero(given).tolist()
    if given.ndim == 1 and given.dtype.kind in 'iu' and given.size:
        indices = given.tolist()
        if len(set(indices)) == len(indices) and 0 <= min(indices) <= max(indices) < batch_size:
            return indices
    raise SpecError(f'rows={rows!r} is no choice of {batch_size} rows: give indices from 0 to '
                    f'{batch_size - 1}, each once, or one truth value per row.')


def row_starts(scenes: Scenes, seeds: Seeds, rows: Rows, batch_size: int,
               spec: WorldSpec) -> List[RowStart]:
    """
    Say where each row starts over.

    :param scenes: one for all rows, or one for each
    :param seeds: the same
    :param rows: which, as ``chosen_rows`` takes them
    :param batch_size: how many there are
    :param spec: names the scenes that there are
    :return: one for each chosen row
    :raises SpecError: an unknown scene, a seed that is no whole number, or not one for each
    """
    indices = chosen_rows(rows, batch_size)
    scenes = [scenes] if isinstance(scenes, str) else list(scenes)
    for scene in scenes:
        if scene not in spec.scenes:
            raise unknown_name('scene', scene, spec.scenes)
    seeds = _seeds(seeds)
    for name, given in (('scenes', scenes), ('seeds', seeds)):
        if len(given) not in (1, len(indices)):
            raise SpecError(f'{len(given)} {name} for {len(indices)} rows; give one for all, or '
                            'one for each.')
    return [RowStart(row, scenes[i % len(scenes)], seeds[i % len(seeds)])
            for i, row in enumerate(indices)]


def _seeds(seeds: Seeds) -> List[int]:
    try:
        given: Any = seeds if np.ndim(seeds) else [seeds]
        return [operator.index(seed) for seed in given]
    except TypeError:
        raise SpecError(f'seed={seeds!r} is no whole number.') from None


def with_rows(before: Sequence[T], fresh: Dict[int, T], batch_size: int) -> List[T]:
    """
    Put some rows in the place of those before.

    :param before: all rows, none before the first reset
    :param fresh: row -> what is to stand there
    :param batch_size: how many there are
    :return: all rows
    :raises SpecError: there are rows that have not begun
    """
    if not before and len(fresh) < batch_size:
        raise SpecError(f'{len(fresh)} of {batch_size} rows would begin; reset all of them first.')
    return [fresh[row] if row in fresh else before[row] for row in range(batch_size)]


def rows_for(snapshot: Sequence[T], rows: Rows, batch_size: int) -> Dict[int, T]:
    """
    Say which row takes over which row of a snapshot.

    :param snapshot: rows that were saved
    :param rows: that take them over, as ``chosen_rows`` takes them
    :param batch_size: how many there are
    :return: row -> what it takes over
    :raises SpecError: another number of rows
    """
    indices = chosen_rows(rows, batch_size)
    if len(indices) != len(snapshot):
        raise SpecError(f'A snapshot of {len(snapshot)} rows cannot be restored to '
                        f'{len(indices)}.')
    return dict(zip(indices, snapshot))


def check_actions(actions: np.ndarray, batch_size: int, spec: WorldSpec) -> None:
    """
    Refuse actions of another shape.

    :param actions: (b, t, a)
    :param batch_size: b
    :param spec: names t and a
    :raises SpecError: says what is expected
    """
    expected = batch_size, spec.frames_per_step, len(spec.action.dims)
    if np.shape(actions) != expected:
        raise SpecError(f'actions of shape {np.shape(actions)}, expected {expected}: rows, frames '
                        'per step, columns of spec.action.')


def check_state(state: State, batch_size: int, num_objects: int, spec: WorldSpec) -> None:
    """
    Refuse a state of other shapes.

    :param state: what is to be drawn
    :param batch_size: b
    :param num_objects: movable objects of each row's scene
    :param spec: names the joints
    :raises SpecError: another number of rows, joints or objects
    """
    shapes = np.shape(state.base_pose), np.shape(state.joint_position), np.shape(state.object_pose)
    expected = (batch_size, 3), (batch_size, len(spec.joints)), (batch_size, num_objects, 3)
    if shapes != expected:
        raise SpecError(f'a state of shapes {shapes}, expected {expected}: base, joints, objects.')


def side_by_side(observations: Sequence[Observation]) -> Observation:
    """Put observations of one row each (b = 1) into one of all rows."""
    first = observations[0]
    if len(observations) == 1:
        return first
    columns: Dict[str, Any] = {
        name: None if value is None else np.concatenate([getattr(o, name) for o in observations])
        for name, value in _columns(first).items()}
    extra = {key: np.concatenate([o.extra[key] for o in observations]) for key in first.extra}
    return Observation(**columns, extra=extra)


def of_rows(observation: Observation, rows: Sequence[int]) -> Observation:
    """
    Keep some rows of an observation.

    :param observation: of any number of rows
    :param rows: (m,) indices
    :return: of these, in this order
    """
    indices = np.asarray(rows)
    columns: Dict[str, Any] = {name: None if value is None else value[indices]
                               for name, value in _columns(observation).items()}
    return Observation(**columns,
                       extra={key: value[indices] for key, value in observation.extra.items()})


def at_rest(state: State) -> Observation:
    """
    Say a state as something observed, for ``WorldModel.observe``: nothing moves, nothing touches.

    :param state: of all rows
    :return: t = 1, without pictures
    """
    pose, joints, objects = (np.asarray(column, float)[:, None] for column in (
        state.base_pose, state.joint_position, state.object_pose))
    return Observation(None, pose, np.zeros_like(pose), joints, np.zeros_like(joints),
                       np.zeros(pose.shape[:2], np.float32), objects)


def in_order(observation: Observation, rows: Sequence[int]) -> Observation:
    """
    Sort the rows of an observation.

    :param observation: of as many rows
    :param rows: which row each is to be: a permutation
    :return: the observation itself where they are in order
    """
    if list(rows) == sorted(rows):
        return observation
    return of_rows(observation, np.argsort(rows).tolist())


def _columns(observation: Observation) -> Dict[str, Any]:
    return {f.name: getattr(observation, f.name) for f in fields(Observation) if f.name != 'extra'}
