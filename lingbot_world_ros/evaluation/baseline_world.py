# SPDX-License-Identifier: Apache-2.0
"""The baseline as a world to roll out. Needs torch."""
from pathlib import Path
from typing import Any, Union

from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.engines.interface import Observation, WorldSpec
from lingbot_world_ros.models.baseline.network import load_baseline
from lingbot_world_ros.robots.load import load_robot
import numpy as np
import torch


class BaselineWorld:
    """Knows images only, and starts from a true one."""

    def __init__(self, path: Union[str, Path]):
        """
        Load the weights.

        :param path: safetensors file of ``save_baseline``
        """
        self.model = load_baseline(path)
        robot = load_robot()
        self.spec = WorldSpec(engine='baseline', model=str(path), scenes=(), robot=robot,
                              action=robot_action_layout(robot))
        self._latent: torch.Tensor  # since reset_from

    @torch.inference_mode()
    def reset_from(self, rgb: np.ndarray) -> Observation:
        """
        Start from images.

        :param rgb: (b, h, w, 3) uint8
        :return: their reconstruction, without any state
        """
        image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2).float() / 255
        self._latent = self.model.encode(image)
        return self._observe(True)

    @torch.inference_mode()
    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """Advance one frame; see ``WorldModel.step``. There is no state to return."""
        self._latent = self.model.advance(self._latent, torch.from_numpy(
            np.ascontiguousarray(actions[:, 0], np.float32)))
        return self._observe(render)

    def _observe(self, render: bool) -> Observation:
        rgb = None
        if render:
            image = self.model.decode(self._latent).clamp(0, 1) * 255 + 0.5
            rgb = image.to(torch.uint8).permute(0, 2, 3, 1)[:, None].numpy()
        unknown: Any = None
        return Observation(rgb, *[unknown] * 6)
