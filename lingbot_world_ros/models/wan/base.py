# SPDX-License-Identifier: Apache-2.0
"""
Whole clips from the bidirectional model, offline: image, prompt and camera path to frames.

Two networks share the steps: one for strong noise, then one for weak. Each step is two passes, one
with the prompt and one with the negative prompt; camera and image are the same in both. Longer
videos are put together from clips: the last frame of a clip is the start image of the next, which
knows nothing else of what came before.

Axes: b batch, c channel, f latent frames, h w latent rows and columns.

Source: LingBot-World v1 (base).
"""
from dataclasses import dataclass, replace
from typing import Callable, Dict, Iterator, NamedTuple, Optional, Tuple

from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.models.wan.camera import ACT_CHANNELS, RayGrid
from lingbot_world_ros.models.wan.codec import VideoCodec, VideoDecoder
from lingbot_world_ros.models.wan.condition import condition
from lingbot_world_ros.models.wan.device import Device
from lingbot_world_ros.models.wan.dit import TextContext, WanDiT
from lingbot_world_ros.models.wan.releases_and_licences import HIGH, LOW
from lingbot_world_ros.models.wan.schedule import BaseRecipe, FlowUniPC
from lingbot_world_ros.models.wan.spec import LATENT_CHANNELS, VideoSize
from lingbot_world_ros.models.wan.vae import to_frames
import numpy as np
import torch
from torch import Tensor

DECODED_LATENTS = 8  # at once; what is decoded is float32 and large


class ClipStep(NamedTuple):
    """
    Progress of a clip: ``step`` steps of ``num_steps`` are done.

    ``frames`` (T, H, W, 3) uint8 come with the last report of a clip, else None.
    """

    clip: int
    step: int
    num_steps: int
    expert: str
    frames: Optional[np.ndarray] = None


@dataclass(frozen=True)
class ClipRequest:
    """
    What is to be imagined.

    ``image`` (3, H, W) float32 -1 to 1, ``text`` and ``negative`` (l, text_dim) of the prompts,
    ``steps`` (f, 4, 4) camera seen from the latent frame before, world units, the first at rest.
    ``keys`` (f, 4) w a s d for networks with keys; None holds none.
    """

    image: Tensor
    text: Tensor
    negative: Tensor
    steps: np.ndarray
    seed: int = 0
    keys: Optional[np.ndarray] = None

    @property
    def num_latents(self) -> int:
        """Latent frames of the clip."""
        return len(self.steps)

    def part(self, index: int, first: int, last: int, image: Tensor) -> 'ClipRequest':
        """
        Return one clip of a longer video.

        :param index: of the clip
        :param first: its first latent frame, which is the last of the clip before
        :param last: its last latent frame
        :param image: to start on
        """
        steps = np.array(self.steps[first:last + 1])
        steps[0] = np.eye(4)
        keys = None if self.keys is None else self.keys[first:last + 1]
        return replace(self, image=image, steps=steps, keys=keys, seed=self.seed + index)


class Experts:
    """The two networks. With ``offload`` one leaves memory before the other is read."""

    def __init__(self, load: Callable[[str], WanDiT], offload: bool) -> None:
        """
        Load nothing yet.

        :param load: 'high_noise' or 'low_noise' -> network
        :param offload: keep one network at a time
        """
        self._load, self._offload = load, offload
        self._loaded: Dict[str, WanDiT] = {}

    def network(self, name: str) -> WanDiT:
        """
        Return a network, loaded if need be; nobody else may hold one when ``offload`` is on.

        :param name: 'high_noise' or 'low_noise'
        """
        if name not in self._loaded:
            if self._offload and self._loaded:
                self._loaded.clear()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
            self._loaded[name] = self._load(name)
        return self._loaded[name]


class _Guided:
    """One network together with all that stays the same in its steps of a clip."""

    def __init__(self, name: str, dit: WanDiT, request: ClipRequest, rays: RayGrid,
                 grid: Tuple[int, int], recipe: BaseRecipe, timesteps: Tuple[int, ...]) -> None:
        self.name, self._dit = name, dit
        self._text = dit.text_context(request.text[None])
        self._weight = recipe.guidance_high if name == HIGH else recipe.guidance_low
        self._negative = None if self._weight == 1 else dit.text_context(request.negative[None])
        self._camera = None
        if dit.spec.control_channels:
            tokens = rays.tokens(request.steps, _keys_for(dit, request), dit.dtype)
            self._camera = dit.camera_context(tokens)
        self._times = {t: dit.time_context(t) for t in timesteps}
        self._rope = dit.rotation(0, request.num_latents, grid)

    def velocity(self, latents: Tensor, timestep: int) -> Tensor:
        """Predict (1, 16, f, h, w) float32 from (1, 36, f, h, w)."""
        found = self._pass(latents, timestep, self._text)
        if self._negative is None:
            return found
        away = self._pass(latents, timestep, self._negative)
        return away + self._weight * (found - away)

    def _pass(self, latents: Tensor, timestep: int, text: TextContext) -> Tensor:
        return self._dit(latents, self._times[timestep], text, self._camera, rope=self._rope)


def _keys_for(dit: WanDiT, request: ClipRequest) -> Optional[np.ndarray]:
    """Return the keys for a network that takes some, else None."""
    if dit.spec.control_channels != ACT_CHANNELS:
        return None
    return np.zeros((request.num_latents, 4)) if request.keys is None else request.keys


class BaseClips:
    """Imagine clips, one after another."""

    def __init__(self, experts: Experts, vae: VideoCodec, size: VideoSize, camera: PinholeCamera,
                 *, recipe: BaseRecipe = BaseRecipe(), decoder: Optional[VideoDecoder] = None,
                 device: Device = 'cpu') -> None:
        """
        Prepare.

        :param experts: the networks
        :param vae: encodes start images, and decodes unless ``decoder`` does
        :param size: of the video
        :param camera: whose image it is, of that size
        :param recipe: how it is sampled
        :param decoder: has ``decode_chunk`` as the VAE, which does it if this is None
        :param device: where the networks work
        """
        self._experts, self._vae, self._decoder = experts, vae, decoder or vae
        self._size, self._recipe, self._device = size, recipe, torch.device(device)
        self._rays = RayGrid(camera, self._device)

    @torch.no_grad()
    def clip(self, request: ClipRequest, index: int = 0) -> Iterator[ClipStep]:
        """
        Imagine one clip.

        :param request: what
        :param index: told in the reports
        :return: generator with a report after each step and one with the frames, 4 f - 3 of them
        :raises FloatingPointError: what was imagined is not finite
        """
        image = request.image.to(self._device)
        given = condition(self._vae.start_condition(image, request.num_latents)[None])
        latents = self._noise(request)
        solver = FlowUniPC(self._recipe.num_steps, self._recipe.shift)
        network = history = None
        for i, timestep in enumerate(solver.timesteps):
            expert = self._expert(timestep)
            if network is None or network.name != expert:
                network = None  # of which nothing may be held when the other one is loaded
                network = self._guided(expert, request, solver.timesteps)
            velocity = network.velocity(torch.cat([latents, given], 1), timestep)
            latents, history = solver.step(latents, velocity, i, history)
            yield ClipStep(index, i + 1, len(solver), expert)
        del given  # room for the decoder
        network = None
        if not bool(torch.isfinite(latents).all()):  # waits for the clip, once
            raise FloatingPointError('the imagined latents are not finite')
        yield ClipStep(index, len(solver), len(solver), expert, self._decoded(latents))

    def clips(self, request: ClipRequest, latents_per_clip: int) -> Iterator[ClipStep]:
        """
        Imagine a video of any length, clip by clip.

        :param request: of the whole video
        :param latents_per_clip: latent frames of one clip, at least 2; the last may be shorter
        :return: as ``clip``, of all clips; each but the first leaves out its first frame, which
            is the last of the clip before
        """
        image, last = request.image, request.num_latents - 1
        starts = range(0, max(last, 1), latents_per_clip - 1)
        for index, first in enumerate(starts):
            end = min(first + latents_per_clip - 1, last)
            for report in self.clip(request.part(index, first, end, image), index):
                if report.frames is not None:
                    frames = report.frames
                    image = torch.from_numpy(frames[-1]).permute(2, 0, 1).float() / 127.5 - 1.0
                    report = report._replace(frames=frames[1:] if index else frames)
                yield report

    def _expert(self, timestep: int) -> str:
        return HIGH if self._recipe.is_high_noise(timestep) else LOW

    def _guided(self, expert: str, request: ClipRequest, timesteps: Tuple[int, ...]) -> _Guided:
        dit = self._experts.network(expert)
        own = tuple(t for t in timesteps if self._expert(t) == expert)
        return _Guided(expert, dit, request, self._rays, self._size.grid, self._recipe, own)

    def _noise(self, request: ClipRequest) -> Tensor:
        shape = (1, LATENT_CHANNELS, request.num_latents, *self._size.latent)
        generator = torch.Generator(self._device).manual_seed(request.seed)
        return torch.randn(shape, generator=generator, device=self._device)

    def _decoded(self, latents: Tensor) -> np.ndarray:
        """Return frames (T, H, W, 3) uint8 of (1, 16, f, h, w)."""
        frames, cache = [], None
        for part in latents.split(DECODED_LATENTS, 2):
            video, cache = self._decoder.decode_chunk(part, cache)
            frames.append(to_frames(video).cpu().numpy())
        return np.concatenate(frames)
