# SPDX-License-Identifier: Apache-2.0
"""A recurrent world to be judged by a recording."""
from typing import List, Optional, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.recurrent.runtime import RecurrentModel, State
from lingbot_world_ros.recording.aligned import AlignedRecording
import numpy as np


class RecurrentWorld:
    """``RecurrentModel`` as ``evaluation.learned.Imagining``."""

    def __init__(self, model: RecurrentModel, is_sampled: bool = False):
        """
        Wrap a model.

        :param model: opened
        :param is_sampled: one future of many; else the best guess
        """
        self.model, self.is_sampled = model, is_sampled
        self.num_context = model.num_context
        self.familiar = model.calibration.familiar
        self._state: State = {}
        self._rng: Optional[np.random.Generator] = None

    def reset_from(self, recording: AlignedRecording, begins: np.ndarray, seed: int) -> None:
        """Start rows; see ``Imagining``."""
        self._check(recording)
        assert recording.action is not None, 'checked before'
        self._rng = np.random.default_rng(seed) if self.is_sampled else None
        self._state = self.model.blank(len(begins))
        for frame in range(self.num_context):
            sent = recording.action[np.maximum(begins + frame - 1, 0)]
            self._state = self.model.observe(self._state, recording.rgb[begins + frame], sent)

    def starts(self, recording: AlignedRecording, begins: np.ndarray) -> List[State]:
        """
        Start rows, and say what they are.

        :param recording: as ``reset_from`` takes it
        :param begins: (n,) as ``reset_from`` takes them
        :return: for each, what the engine of this world takes as one of its ``starts``
        """
        self.reset_from(recording, begins, 0)
        return [{name: array[row:row + 1] for name, array in self._state.items()}
                for row in range(len(begins))]

    def step(self, action: np.ndarray) -> None:
        """Move on; see ``Imagining``."""
        self._state = self.model.step(self._state, action, self._rng)

    def draw(self) -> Tuple[np.ndarray, np.ndarray]:
        """Draw; see ``Imagining``."""
        return self.model.draw(self._state)

    def _check(self, recording: AlignedRecording) -> None:
        model = self.model
        ours = (model.width_px, model.height_px), model.action_names, model.rate_hz
        theirs = recording.size_px, recording.action_names, recording.rate_hz
        if ours != theirs or recording.action is None:
            raise SpecError(f'{recording.name} has pictures, commands and rate {theirs}, the '
                            f'world has {ours}; align the recording as the world says.')
