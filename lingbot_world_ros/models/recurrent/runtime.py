# SPDX-License-Identifier: Apache-2.0
"""
A recurrent world as it ships, on OpenVINO. Needs no torch.

A folder holds ``world.yaml``, the graphs ``observe``, ``imagine`` and ``draw`` as ONNX with their
weights in ``weights.bin``, and ``starts.safetensors`` with states to begin from and with what the
training's pictures look like. A state is a dict of arrays, a row for each world; nothing of it is
shared with another, so that a copy of the arrays is a snapshot. The last true picture is part of
it, and how far one has moved since; every ``RENEWED`` frames the drawn one takes its place.
Axes: b rows, c y x field, d vector, m commands, a action, n noise, h w image.
"""
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.recurrent.familiar import Familiar, NAMES as FAMILIAR
from lingbot_world_ros.models.room.runtime import ManyRows
import numpy as np
from safetensors.numpy import load_file
import yaml

KIND, FORMAT = 'recurrent', 1
ABOUT, STARTS = 'world.yaml', 'starts.safetensors'
KEY, POSE, AGE = 'key', 'pose', 'age'  # picture remembered, motion since, frames since a true one
PARTS = 'field', 'hidden', 'commands', KEY, POSE, AGE, 'motion'  # of a state, as of the graphs
SURPRISE = 'surprise'  # one more: how strange the last true pictures were
RENEWED = 20  # frames after which the picture that is remembered is drawn anew, each time
NOTHING = 1e6  # age of a picture that never was
REMEDY = 'Restore the folder, or learn the world again.'
State = Dict[str, np.ndarray]


@dataclass(frozen=True)
class Calibration:
    """Turns signs of doubt into an expected RMS error, as measured on held-out pieces."""

    offset: float  # of the log RMS error
    limits: Mapping[str, float]  # of each sign: what held-out states rarely exceed
    familiar: float  # expected RMS error that they rarely exceed

    def expected(self, doubt: np.ndarray, surprise: np.ndarray) -> np.ndarray:
        """
        Return expected RMS errors, above ``familiar`` for what the training did not have.

        :param doubt: (b, 4) as the graph ``draw`` gives it
        :param surprise: (b,) of the state
        :return: (b,) 0..1
        """
        error = np.minimum(np.exp(doubt[:, 0] + self.offset), self.familiar)
        signs = np.column_stack([doubt[:, 1:], surprise])
        excess = (signs / np.array(list(self.limits.values()))).max(1)
        return np.clip(np.where(excess > 1, self.familiar * excess, error), 0, 1)


class RecurrentModel:
    """One learned world: start, then ``observe`` or ``step``, and ``draw``."""

    def __init__(self, folder: Path, threads: int = 1):
        """
        Open a folder; graphs are compiled when they are first used.

        :param folder: as training.export_recurrent wrote it
        :param threads: CPU threads
        :raises SpecError: it is none
        """
        self.folder = Path(folder)
        self.about = read_about(self.folder)
        self.rate_hz = float(self.about['rate_hz'])
        self.width_px, self.height_px = self.about['width_px'], self.about['height_px']
        self.action_names: Tuple[str, ...] = tuple(self.about['action_names'])
        self.action_low = np.array(self.about['action_low'], np.float32)
        self.action_high = np.array(self.about['action_high'], np.float32)
        self.num_context = int(self.about['num_context'])
        self.num_noise = int(self.about['num_noise'])
        told = self.about['uncertainty']
        self.calibration = Calibration(told['offset'], told['limits'], told['familiar'])
        tensors = _read_tensors(self.folder / STARTS)
        self._starts = {name: tensors[name] for name in (*PARTS, SURPRISE)}
        self._familiar = Familiar(tensors)
        self._observe, self._imagine, self._draw = (
            ManyRows(self.folder / f'{name}.onnx', {}, threads)
            for name in ('observe', 'imagine', 'draw'))

    @property
    def num_starts(self) -> int:
        """How many states there are to begin from."""
        return len(self._starts['hidden'])

    def start(self, seed: int) -> State:
        """
        Begin where the recording once was.

        :param seed: not negative; each of the next ``num_starts`` seeds gives another place
        :return: a state of one row
        """
        row = seed % self.num_starts
        return {name: array[row:row + 1].copy() for name, array in self._starts.items()}

    def blank(self, num_rows: int = 1) -> State:
        """
        Begin with nothing seen; show ``num_context`` true pictures next.

        :param num_rows: b
        :return: a state
        """
        state = {name: np.zeros((num_rows, *array.shape[1:]), np.float32)
                 for name, array in self._starts.items()}
        return {**state, AGE: np.full(num_rows, NOTHING, np.float32)}

    def observe(self, state: State, rgb: np.ndarray, action: np.ndarray) -> State:
        """
        Move on by a frame of which the true picture is known.

        :param state: at the frame before
        :param rgb: (b, h, w, 3) uint8 true picture
        :param action: (b, a) in force since the frame before
        :return: at the frame of the picture
        """
        out = self._observe({**_parts(state), 'action': _floats(action),
                             'rgb': np.ascontiguousarray(rgb, np.uint8)})
        return {**_next(out), SURPRISE: self._familiar.after(state[SURPRISE], rgb)}

    def step(self, state: State, action: np.ndarray,
             rng: Optional[np.random.Generator] = None) -> State:
        """
        Move on by a frame that nobody has seen.

        :param state: at the frame before
        :param action: (b, a) in force since then, in the recording's units
        :param rng: of which future it is; None for the best guess
        :return: at the next frame
        """
        state = self._renewed(state)
        shape = len(state['hidden']), self.num_noise
        noise = rng.standard_normal(shape, np.float32) if rng else np.zeros(shape, np.float32)
        out = self._imagine({**_parts(state), 'action': _floats(action), 'noise': noise})
        return {**_next(out), SURPRISE: state[SURPRISE].copy()}

    def draw(self, state: State) -> Tuple[np.ndarray, np.ndarray]:
        """
        Show states.

        :param state: of b rows
        :return: pictures (b, h, w, 3) uint8 and expected RMS errors (b,), 0..1; above
            ``calibration.familiar`` for what the training did not have
        """
        out = self._draw(_parts(state))
        return out['rgb'], self.calibration.expected(out['doubt'], state[SURPRISE])

    def _renewed(self, state: State) -> State:
        """Let what is drawn take the place of pictures that are too old."""
        due = (state[AGE] > 0) & (state[AGE] % RENEWED == 0) & (state[AGE] < NOTHING)
        if not due.any():
            return state
        rows = {name: state[name][due] for name in PARTS}
        key, pose = state[KEY].copy(), state[POSE].copy()
        key[due], pose[due] = self._draw(rows)['plain'], 0
        return {**state, KEY: key, POSE: pose}


def read_about(folder: Path) -> Dict[str, Any]:
    """
    Read ``world.yaml``.

    :param folder: of a recurrent world
    :return: its content
    :raises SpecError: missing, corrupt, or of another kind
    """
    path = Path(folder) / ABOUT
    try:
        about = yaml.safe_load(path.read_text())
        kind, version = about['kind'], about['format']
    except FileNotFoundError:
        raise SpecError(f'No learned world in {folder}: {ABOUT} is missing. {REMEDY}') from None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise SpecError(f'{path} is corrupt ({error!r}). {REMEDY}') from None
    if (kind, version) != (KIND, FORMAT):
        raise SpecError(f'{path} is of kind {kind}, format {version}; expected {KIND}, {FORMAT}.')
    return about


def _read_tensors(path: Path) -> State:
    try:
        told = {name: array.astype(np.float32) for name, array in load_file(path).items()}
        told[KEY] /= 255  # bytes there
        return {name: told[name] for name in (*PARTS, SURPRISE, *FAMILIAR)}
    except Exception as error:  # the library raises its own, undocumented types
        raise SpecError(f'{path} cannot be read ({error!r}). {REMEDY}') from error


def _parts(state: State) -> State:
    return {name: state[name] for name in PARTS}


def _next(out: Dict[str, np.ndarray]) -> State:
    return {name: out[f'{name}_next'] for name in PARTS}


def _floats(action: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(action, np.float32)
