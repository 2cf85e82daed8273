# SPDX-License-Identifier: Apache-2.0
"""
Causal streaming: a clip without end, imagined chunk by chunk.

A chunk is denoised in a few passes, decoded and handed out; only then, or right before the next
chunk, one more pass over its clean latents writes the keys and values that later chunks see.
Noise is drawn from a generator seeded by clip and chunk, so that a chunk made again is the same.

Axes: b batch, c channel, f latent frames, h w latent rows and columns, n tokens.

Source: LingBot-World v1 (fast), Self-Forcing; cache refresh on a new prompt as in LongLive.
"""
from dataclasses import dataclass, replace
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.models.wan.camera import RayGrid
from lingbot_world_ros.models.wan.codec import VideoCodec, VideoDecoder
from lingbot_world_ros.models.wan.condition import condition
from lingbot_world_ros.models.wan.dit import CameraContext, TextContext, WanDiT
from lingbot_world_ros.models.wan.kv_cache import KVCache, Place, WindowSpec
from lingbot_world_ros.models.wan.rope import Rotation
from lingbot_world_ros.models.wan.schedule import FewStepSchedule
from lingbot_world_ros.models.wan.spec import LATENT_CHANNELS, VideoSize
from lingbot_world_ros.models.wan.vae import to_frames
import numpy as np
import torch
from torch import Tensor

CLEAN = 0.0  # timestep of the pass that writes the cache
SEED_STRIDE = 1 << 24  # chunks between the seeds of two clips
Noise = Callable[[int, int, Tuple[int, ...]], Tensor]  # of chunk, pass, shape


@dataclass(frozen=True)
class StreamSpec:
    """What is streamed: frame size, visible window, noise levels, precision of the cache."""

    size: VideoSize
    window: WindowSpec
    schedule: FewStepSchedule
    cache_in_8_bits: bool = False


class CleanChunk(NamedTuple):
    """A chunk whose clean latents are known: what it takes to write its keys and values."""

    first_latent: int
    latents: Tensor  # (1, 16, f, h, w) float32, clean
    poses: np.ndarray  # (f, 4, 4) camera motion between latent frames, world units


@dataclass(frozen=True)
class StreamState:
    """
    Where a stream stands; together with the cache all there is to it.

    ``pending`` is the newest chunk and its camera if its keys and values are not written yet;
    ``seen`` are the chunks in the window; ``decoder`` is the video decoder's own memory;
    ``condition`` (16, k, h, w) are image latents, the last of which holds for all later frames.
    """

    seed: int
    condition: Tensor
    text: TextContext
    next_latent: int = 0
    decoder: Any = None
    pending: Optional[Tuple[CleanChunk, CameraContext]] = None
    seen: Tuple[CleanChunk, ...] = ()


# States, the newest prompt, and a copy of the cache.
StreamCopy = Tuple[Optional[StreamState], Optional[StreamState], Optional[TextContext],
                   List[Tensor]]


class CausalStream:
    """
    Imagine chunk after chunk.

    ``start``, then ``next_chunk`` any number of times. A call that raises leaves the stream as it
    was. ``undo`` takes the newest chunk back.
    """

    def __init__(self, dit: WanDiT, vae: VideoCodec, spec: StreamSpec, camera: PinholeCamera, *,
                 decoder: Optional[VideoDecoder] = None, noise: Optional[Noise] = None) -> None:
        """
        Allocate the cache.

        :param dit: network of a causal checkpoint
        :param vae: encodes start images, and decodes unless ``decoder`` does
        :param spec: sizes
        :param camera: whose image it is, of ``spec.size``
        :param decoder: has ``decode_chunk`` as the VAE, which does it if this is None
        :param noise: (chunk, pass, shape) -> (1, 16, f, h, w) float32; None draws it
        """
        self.dit, self.spec = dit, spec
        self._vae, self._decoder = vae, decoder or vae
        self._noise = noise or self._drawn_noise
        self._rays = RayGrid(camera, device=dit.device)
        self._times = [dit.time_context(t) for t in spec.schedule.timesteps]
        self._clean_time = dit.time_context(CLEAN)
        heads = dit.spec.num_heads // (1 if dit.parallel is None else dit.parallel.size)
        self.cache = KVCache(
            spec.window, num_layers=dit.spec.num_layers, batch_size=1,
            tokens_per_latent=spec.size.tokens_per_latent, num_heads=heads,
            head_dim=dit.spec.head_dim, dtype=dit.dtype, device=dit.device,
            in_8_bits=spec.cache_in_8_bits)
        self._state: Optional[StreamState] = None
        self._before: Optional[StreamState] = None  # of the newest chunk
        self._text: Optional[TextContext] = None  # that takes effect with the next chunk

    @property
    def _now(self) -> StreamState:
        """The state of a stream that was started."""
        if self._state is None:
            raise RuntimeError('the stream was not started')
        return self._state

    @property
    def next_latent(self) -> int:
        """Latent frames since the start."""
        return self._now.next_latent

    @property
    def newest_latents(self) -> Tensor:
        """Clean latents of the newest chunk, (1, 16, f, h, w) float32."""
        return self._now.seen[-1].latents

    @torch.no_grad()
    def start(self, image: Tensor, text_embeddings: Tensor, seed: int) -> None:
        """
        Begin a clip.

        :param image: (3, H, W) float32, -1 to 1, of the stream's size
        :param text_embeddings: (l, text_dim) of the prompt
        :param seed: of the noise
        """
        encoded = self._vae.start_condition(image, self._vae.settled_latents)
        text = self.dit.text_context(text_embeddings[None])
        self._state = StreamState(seed, encoded.to(self.dit.device), text)
        self._before = self._text = None

    @torch.no_grad()
    def set_text(self, text_embeddings: Tensor) -> None:
        """
        Change the prompt, from the next chunk on.

        :param text_embeddings: (l, text_dim); the keys and values in the window are written anew
            with it, but for the sink
        """
        self._text = self.dit.text_context(text_embeddings[None])

    @torch.no_grad()
    def next_chunk(self, poses: np.ndarray) -> Tensor:
        """
        Imagine one more chunk.

        :param poses: (f, 4, 4) camera after a latent frame seen from the one before, world units,
            x right, y down, z forward
        :return: (T, H, W, 3) uint8 on the device: 4 f frames, 4 f - 3 for the first chunk
        :raises FloatingPointError: what was imagined is not finite
        """
        self.write_cache()
        before = state = self._now
        if self._text is not None:
            state = self._refreshed(replace(state, text=self._text))
        camera = self.dit.camera_context(self._rays.tokens(poses))
        clean = self._denoise(state, len(poses), camera)
        video, decoder = self._decoder.decode_chunk(clean, state.decoder)
        frames = to_frames(video)
        self._check_finite(clean)
        written = CleanChunk(state.next_latent, clean, np.array(poses))
        self._state = replace(state, next_latent=state.next_latent + len(poses), decoder=decoder,
                              pending=(written, camera), seen=self._in_window(state, written))
        self._before, self._text = before, None
        return frames

    @torch.no_grad()
    def write_cache(self) -> None:
        """Write the newest chunk's keys and values; nothing to do if that was done."""
        state = self._now
        if state.pending is None:
            return
        written, camera = state.pending
        self._pass(state, written, camera,
                   self.cache.place(written.first_latent, len(written.poses)))
        self._state = replace(state, pending=None)

    def undo(self) -> None:
        """Take the newest chunk back; once, and only until the next one begins."""
        if self._before is None:
            raise RuntimeError('there is no chunk that could be taken back')
        if self._text is None and self._before.text is not self._now.text:
            self._text = self._now.text  # unless a newer prompt waits already
        self._state, self._before = self._before, None

    def snapshot(self) -> StreamCopy:
        """Return a copy, the cache (large) in the memory of the host, the rest where it is."""
        return self._state, self._before, self._text, self.cache.snapshot()

    def restore(self, snapshot: StreamCopy) -> None:
        """Go back to a snapshot; what follows has the same bytes as it had then."""
        self._state, self._before, self._text, cache = snapshot
        self.cache.restore(cache)

    def close(self) -> None:
        """Give back what is held elsewhere: nothing, in one process."""

    def _denoise(self, state: StreamState, f: int, camera: CameraContext) -> Tensor:
        """Return clean latents (1, 16, f, h, w) float32."""
        schedule, first = self.spec.schedule, state.next_latent
        index = first // self.spec.window.chunk_latents
        shape = (1, LATENT_CHANNELS, f, *self.spec.size.latent)
        given, rope = self._condition(state, first, f), self._rotation(first, f)
        place = self.cache.place(first, f)
        latents = self._noise(index, 0, shape)
        for i, time in enumerate(self._times):
            velocity = self.dit(torch.cat([latents, given], 1), time, state.text, camera, first,
                                self.cache, rope, place)
            clean = schedule.predict_clean(latents, velocity, i)
            if i + 1 < len(self._times):
                latents = schedule.renoise(clean, self._noise(index, i + 1, shape), i + 1)
        return clean

    def _check_finite(self, clean: Tensor) -> None:
        """Wait for the chunk, the only time while it is made."""
        if not bool(torch.isfinite(clean).all()):
            raise FloatingPointError('the imagined latents are not finite')

    def _pass(self, state: StreamState, written: CleanChunk, camera: CameraContext,
              place: Place) -> None:
        """Run the clean latents of a chunk through the network for its keys and values."""
        first, latents, poses = written
        given = self._condition(state, first, len(poses))
        self.dit(torch.cat([latents, given], 1), self._clean_time, state.text, camera, first,
                 self.cache, self._rotation(first, len(poses)), place)

    def _refreshed(self, state: StreamState) -> StreamState:
        """Write what the next chunk will see anew with another prompt, all but the sink."""
        sink = self.spec.window.sink_latents
        alive = [i for i in self.spec.window.visible(state.next_latent) if i < state.next_latent]
        for written in state.seen:
            first, end = written.first_latent, written.first_latent + len(written.poses)
            fresh = [i for i in alive if first <= i < end and i >= sink]
            visible = [i for i in alive if i < end]
            if fresh:
                # Unnamed, so that one chunk's films are freed before the next one's are made.
                self._pass(state, written,
                           self.dit.camera_context(self._rays.tokens(written.poses)),
                           self.cache.place_among(first, fresh, visible))
        return state

    def _in_window(self, state: StreamState, newest: CleanChunk) -> Tuple[CleanChunk, ...]:
        """Return the chunks that the one after ``newest`` will see."""
        visible = set(self.spec.window.visible(newest.first_latent + len(newest.poses)))
        return tuple(w for w in (*state.seen, newest) if visible & set(
            range(w.first_latent, w.first_latent + len(w.poses))))

    def _condition(self, state: StreamState, first: int, f: int) -> Tensor:
        """Return mask and image latents of these frames, (1, 20, f, h, w)."""
        given = state.condition[:, first:first + f]
        rest = f - given.shape[1]
        if rest:
            tail = state.condition[:, -1:].expand(-1, rest, -1, -1)
            given = torch.cat([given, tail], 1)
        return condition(given[None], first)

    def _rotation(self, first: int, f: int) -> Rotation:
        return self.dit.rotation(first, f, self.spec.size.grid)

    def _drawn_noise(self, chunk: int, step: int, shape: Tuple[int, ...]) -> Tensor:
        """Draw from a generator of its own, so that order and retries do not matter."""
        seed = self._now.seed * SEED_STRIDE + chunk * len(self._times) + step
        generator = torch.Generator(self.dit.device).manual_seed(seed)
        return torch.randn(shape, generator=generator, device=self.dit.device)
