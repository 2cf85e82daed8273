# SPDX-License-Identifier: Apache-2.0
"""Resets and actions that are asked of environments, checked before anything changes."""
from dataclasses import dataclass
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from lingbot_world_ros.envs.known import Start
from lingbot_world_ros.errors import shown as told, SpecError, unknown_name
import numpy as np

OPTIONS = ('reset_mask', 'scene', 'seed', 'unusual')
Seeds = Union[None, int, Sequence[Optional[int]]]


class AskedReset(NamedTuple):
    """A reset that can be done; what is None in a row is drawn, or goes on."""

    rows: np.ndarray  # which are reset
    streams: List[Optional[int]]  # n seeds of the streams that episodes are drawn from
    scenes: List[Optional[str]]  # n
    seeds: List[Optional[int]]  # n, of the episodes
    unusual: bool


@dataclass
class PlayedRow:
    """What a row has played since its episode began; all else follows from it."""

    start: Start
    stream: Tuple[int, int]  # seed, and how many episodes have begun
    actions: List[np.ndarray]  # (k,) each
    ended: bool = False


def asked_reset(seed: Seeds, options: Optional[Mapping[str, Any]], num_rows: int,
                scenes: Sequence[str], is_first: bool) -> AskedReset:
    """
    Check what a reset is given.

    :param seed: as ``RoomVectorEnv.reset`` takes it
    :param options: as ``RoomVectorEnv.reset`` takes them
    :param num_rows: n
    :param scenes: that the engine has
    :param is_first: whether there was none before
    :return: what is to be done
    :raises SpecError: something of it cannot be; says what can
    """
    streams = _row_seeds(seed, num_rows)
    options = options or {}
    for name in options:
        if name not in OPTIONS:
            raise unknown_name('reset option', str(name), OPTIONS)
    rows = _masked(options.get('reset_mask'), num_rows, is_first)
    wanted = _each(options.get('scene'), str, 'scene', num_rows)
    for scene in wanted:
        if scene is not None and scene not in scenes:
            raise unknown_name('scene', scene, scenes)
    return AskedReset(rows, streams, wanted, _each(options.get('seed'), int, 'seed', num_rows),
                      bool(options.get('unusual', False)))


def asked_actions(actions: Any, shape: Tuple[int, ...], columns: Sequence[str]) -> np.ndarray:
    """
    Check actions.

    :param actions: of all rows
    :param shape: (n, k) that they must have
    :param columns: k names
    :return: (n, k) float64 of one's own
    :raises SpecError: another shape, or not finite
    """
    said = np.array(actions, float)
    if said.shape != shape or not np.isfinite(said).all():
        what = 'not finite' if said.shape == shape else f'of shape {said.shape}'
        raise SpecError(f'actions are {what}, expected {shape} finite numbers from -1 to 1: '
                        f'{", ".join(columns)}.')
    return said


def _masked(mask: Any, num_rows: int, is_first: bool) -> np.ndarray:
    """Return the rows that are to be reset."""
    if mask is None:
        return np.arange(num_rows)
    given = np.asarray(mask)
    if given.dtype != bool or given.shape != (num_rows,) or not given.any():
        raise SpecError(f"options['reset_mask']={told(mask)} must be {num_rows} truth values, at "
                        'least one of them true.')
    if is_first and not given.all():
        raise SpecError("options['reset_mask']: the first reset is one of all rows.")
    return np.flatnonzero(given)


def _row_seeds(seed: Seeds, num_rows: int) -> List[Optional[int]]:
    """Return the seed of every row's stream, None where it goes on."""
    if seed is None:
        return [None] * num_rows
    given = ([seed + row for row in range(num_rows)] if isinstance(seed, (int, np.integer))
             else list(seed))
    if len(given) != num_rows:
        raise SpecError(f'{len(given)} seeds for {num_rows} rows; give one for all, or one for '
                        'each.')
    for value in given:
        if value is not None and (not isinstance(value, (int, np.integer)) or value < 0):
            raise SpecError(f'seed={told(value)} must be a whole number from 0 on.')
    return [None if value is None else int(value) for value in given]


def _each(given: Any, kind: type, name: str, num_rows: int) -> List[Any]:
    """Return an option for every row: one for all, or one for each; None where there is none."""
    is_list = isinstance(given, (list, tuple, np.ndarray))
    values = list(given) if is_list else [given] * num_rows
    if len(values) != num_rows:
        raise SpecError(f"options['{name}'] has {len(values)} values for {num_rows} rows; give "
                        'one for all, or one for each.')
    taken = (int, np.integer) if kind is int else kind
    for value in values:
        if value is not None and not isinstance(value, taken):
            raise SpecError(f"options['{name}']={told(value)} must be a {kind.__name__}.")
    return [None if value is None else kind(value) for value in values]
