# SPDX-License-Identifier: Apache-2.0
"""
What the ladder of ``bench.gpu_stream`` is made of: sizes, networks with random weights, clocks.

Random weights are as fast as real ones (nothing here skips by value); zeros would be faster.

Axes: b batch, c channel, f latent frames, n tokens, d width, T H W frames and their pixels.
"""
from dataclasses import dataclass
import time
from typing import Dict, List, Tuple

from lingbot_world_ros.actions.camera_path import FRAMES_PER_LATENT
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.models.wan.dit import WanDiT
from lingbot_world_ros.models.wan.kv_cache import WindowSpec
from lingbot_world_ros.models.wan.schedule import (FAST_V1_INDICES, FAST_V1_SHIFT, FAST_V2_INDICES,
                                                   FAST_V2_SMALL_SHIFT, FewStepSchedule)
from lingbot_world_ros.models.wan.spec import DiTSpec, LINGBOT_14B, LINGBOT_1_3B, VideoSize
from lingbot_world_ros.models.wan.vae import VaeSpec, WanVAE
import numpy as np
import torch
from torch import Tensor

STAGES = ('encode', 'diffuse', 'write', 'decode', 'copy')
FILM_SCALE = 0.05  # of the weights that multiply the residual stream: 40 blocks must not overflow


@dataclass(frozen=True)
class Case:
    """One network at one frame size, as it would be streamed."""

    name: str
    spec: DiTSpec
    size: VideoSize
    window: WindowSpec
    indices: Tuple[int, ...]
    shift: float
    vae: VaeSpec = VaeSpec()

    @property
    def schedule(self) -> FewStepSchedule:
        """Noise levels of the few steps."""
        return FewStepSchedule.from_indices(self.indices, self.shift)

    @property
    def num_frames(self) -> int:
        """Frames in a chunk."""
        return FRAMES_PER_LATENT * self.window.chunk_latents

    @property
    def chunk_tokens(self) -> int:
        """Queries of one pass."""
        return self.window.chunk_latents * self.size.tokens_per_latent

    @property
    def window_tokens(self) -> int:
        """Keys of one pass, once the window is full."""
        return self.window.window_latents * self.size.tokens_per_latent

    @property
    def camera(self) -> PinholeCamera:
        """Some camera."""
        height, width = self.size.height_px, self.size.width_px
        return PinholeCamera.from_corner(width, height,
                                         (0.6 * width, 0.6 * width, width / 2, height / 2))

    def latent_shape(self, num_latents: int) -> Tuple[int, ...]:
        """Return the shape of that many latent frames."""
        return 1, self.spec.out_channels, num_latents, *self.size.latent


CASES = {case.name: case for case in (
    Case('14b', LINGBOT_14B, VideoSize(464, 832), WindowSpec(3, 18, 3), FAST_V1_INDICES,
         FAST_V1_SHIFT),
    Case('1.3b', LINGBOT_1_3B, VideoSize(464, 832), WindowSpec(4, 18, 6), FAST_V2_INDICES,
         FAST_V2_SMALL_SHIFT),
    Case('tiny', DiTSpec(dim=64, ffn_dim=96, num_heads=2, num_layers=2, text_dim=32, text_len=8),
         VideoSize(32, 48), WindowSpec(2, 6, 2), (0, 500), 5.0, VaeSpec(dim=4, res_blocks=1)))}


def random_network(spec: DiTSpec, device, dtype: torch.dtype, seed: int = 0) -> WanDiT:
    """
    Make a network with random weights, right where it will run.

    :param spec: sizes
    :param device: where
    :param dtype: of the weights
    :param seed: of the weights
    :return: network for inference; its activations are of order 1 at every block
    """
    with torch.device('meta'):
        dit = WanDiT(spec)
    dit = dit.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in dit.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        if 'norm' in name and name.endswith('weight'):
            parameter.normal_(1.0, 0.1, generator=generator)
        elif parameter.dim() == 1 or 'modulation' in name:
            parameter.normal_(0.0, 0.1, generator=generator)
        else:
            parameter.normal_(0.0, fan_in ** -0.5, generator=generator)
        if 'cam_scale' in name:
            parameter.mul_(FILM_SCALE)
    return dit


def random_vae(case: Case, device, seed: int = 0) -> WanVAE:
    """Make an autoencoder with random weights, all of it in float32."""
    torch.manual_seed(seed)
    with torch.device(device):
        vae = WanVAE(case.vae)
    return vae.to(device).eval().requires_grad_(False)


class Inputs:
    """Image, prompt, camera motion and noise that all rungs share."""

    def __init__(self, case: Case, device, seed: int = 0):
        """
        Draw what does not change.

        :param case: sizes
        :param device: where tensors go
        :param seed: of everything random
        """
        self.case, self.device, self._seed = case, device, seed
        generator = torch.Generator().manual_seed(seed)
        size = case.size
        self.image = torch.rand(3, size.height_px, size.width_px, generator=generator) * 2 - 1
        self.text = torch.randn(case.spec.text_len, case.spec.text_dim, generator=generator)
        self.image, self.text = self.image.to(device), self.text.to(device)

    def poses(self) -> np.ndarray:
        """Return a walk ahead, one world unit per latent frame."""
        poses = np.tile(np.eye(4), (self.case.window.chunk_latents, 1, 1))
        poses[:, 2, 3] = 1.0
        return poses

    def noise(self, chunk: int, step: int, shape) -> Tensor:
        """Return the noise of one pass, always the same for it."""
        generator = torch.Generator(self.device).manual_seed(
            self._seed + 1000 * chunk + 1 + step)
        return torch.randn(shape, generator=generator, device=self.device)


class Clock:
    """Time the stages of a chunk: on a GPU by its events, on a CPU by the wall clock."""

    def __init__(self, device: torch.device):
        """
        Begin.

        :param device: whose work is timed
        """
        self._device, self._on_gpu = device, device.type == 'cuda'
        self._laps: List[Tuple[str, object]] = []
        self._start_s = 0.0

    def _now(self):
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start(self) -> None:
        """Wait for what is under way, begin a chunk."""
        self.wait()
        self._start_s = time.perf_counter()
        self._laps = [('', self._now())]

    def lap(self, stage: str) -> None:
        """Say that what was launched since the last call was part of ``stage``."""
        self._laps.append((stage, self._now()))

    def wall_ms(self) -> float:
        """Return the host's time since the start, without waiting."""
        return 1e3 * (time.perf_counter() - self._start_s)

    def wait(self) -> None:
        """Wait for the device."""
        if self._on_gpu:
            torch.cuda.synchronize(self._device)

    def stages_ms(self) -> Dict[str, float]:
        """Return how long each stage took, after ``wait``."""
        total = dict.fromkeys(STAGES, 0.0)
        for (_, before), (stage, after) in zip(self._laps, self._laps[1:]):
            total[stage] += before.elapsed_time(after) if self._on_gpu else 1e3 * (after - before)
        return total


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference by the norm of what was expected."""
    result, expected = result.double(), expected.double()
    return float((result - expected).norm() / expected.norm())
