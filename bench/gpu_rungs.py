# SPDX-License-Identifier: Apache-2.0
"""
What can make a chunk: our stream, the plain way, and diffusers without a cache.

Each has ``chunk(clock, early)``, which makes one more chunk, or the same one again, and returns
``Made``. ``early`` hands the frames out before the cache is written.
"""
import functools
from typing import NamedTuple, Optional

from bench.gpu_parts import Case, Clock, Inputs
from bench.plain_dit import PlainDiT
from lingbot_world_ros.engines.lingbot_world.engine import FrameCopy
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.wan.camera import RayGrid
from lingbot_world_ros.models.wan.condition import condition
from lingbot_world_ros.models.wan.dit import CameraContext, Film, WanDiT
from lingbot_world_ros.models.wan.kv_cache import Place
from lingbot_world_ros.models.wan.rope import Rotation
from lingbot_world_ros.models.wan.stream import CausalStream, CLEAN, StreamSpec
from lingbot_world_ros.models.wan.vae import to_frames
import numpy as np
import torch
from torch import Tensor

DIFFUSERS_NAMES = (
    ('text_embedding.0', 'condition_embedder.text_embedder.linear_1'),
    ('text_embedding.2', 'condition_embedder.text_embedder.linear_2'),
    ('time_embedding.0', 'condition_embedder.time_embedder.linear_1'),
    ('time_embedding.2', 'condition_embedder.time_embedder.linear_2'),
    ('time_projection.1', 'condition_embedder.time_proj'),
    ('self_attn.o', 'attn1.to_out.0'), ('cross_attn.o', 'attn2.to_out.0'),
    ('self_attn.norm', 'attn1.norm'), ('cross_attn.norm', 'attn2.norm'),
    ('self_attn.', 'attn1.to_'), ('cross_attn.', 'attn2.to_'), ('norm3', 'norm2'),
    ('ffn.0', 'ffn.net.0.proj'), ('ffn.2', 'ffn.net.2'),
    ('head.modulation', 'scale_shift_table'), ('head.head', 'proj_out'),
    ('.modulation', '.scale_shift_table'))
CAMERA = ('wancamctrl', 'c2ws_hidden', 'cam_')


class Made(NamedTuple):
    """One chunk: clean latents, frames on the host, ms from the command to them on the host."""

    latents: Optional[Tensor]
    frames: np.ndarray
    first_frame_ms: float


class OwnStream:
    """
    Our stream with a full window, which imagines the same chunk again and again.

    Taking a chunk back restores what it started from, so that all rungs see the same cache; the
    work is that of any other chunk.
    """

    def __init__(self, case: Case, dit: WanDiT, vae, inputs: Inputs):
        """
        Allocate the cache.

        :param case: sizes
        :param dit: network
        :param vae: encodes the image, and decodes until ``decode_with``
        :param inputs: of all rungs
        """
        self.case, self._vae, self._inputs = case, vae, inputs
        self._decoder = self._decoder_memory = self._previous = None
        self._clock: Optional[Clock] = None
        self._copy, self.settled_latents = FrameCopy().to_host, vae.settled_latents
        self.image_latents: Optional[Tensor] = None
        self.stream = CausalStream(dit, self, StreamSpec(case.size, case.window, case.schedule),
                                   case.camera, noise=self._noise)

    def fill(self) -> int:
        """Start a clip and imagine it until the window is full; return the number of chunks."""
        self.stream.start(self._inputs.image, self._inputs.text, seed=0)
        window, chunks = self.case.window, 0
        while self.stream.next_latent < window.window_latents:
            self.stream.next_chunk(self._inputs.poses())
            chunks += 1
        self.stream.write_cache()
        self._previous = self.stream.newest_latents
        self.decode_with(self._vae)
        return chunks

    def decode_with(self, decoder) -> None:
        """Decode the measured chunk with another decoder, or this one in another format."""
        self._decoder = decoder
        _, self._decoder_memory = decoder.decode_chunk(self._previous, None)

    def chunk(self, clock: Clock, early: bool) -> Made:
        """Imagine the chunk after the window, then take it back."""
        self._clock = clock
        clock.start()
        frames = self.stream.next_chunk(self._inputs.poses())
        clock.lap('decode')  # the last of it: frames from video, and the check of the latents
        if not early:
            self._write(clock)
        host = self._copy(frames)
        clock.lap('copy')
        first_frame_ms = clock.wall_ms()
        if early:
            self._write(clock)
        latents = self.stream.newest_latents
        self.stream.undo()
        self._clock = None
        return Made(latents, host, first_frame_ms)

    def _write(self, clock):
        self.stream.write_cache()
        clock.lap('write')

    def start_condition(self, image: Tensor, num_latents: int) -> Tensor:
        """Encode for the stream; keep the result for others."""
        self.image_latents = self._vae.start_condition(image, num_latents)
        return self.image_latents

    def decode_chunk(self, latents: Tensor, cache):
        """Decode for the stream; the clock learns that denoising is over."""
        if self._clock is None:  # filling: nobody looks
            return latents.new_zeros(1, 3, 1, 1, 1), None
        self._clock.lap('diffuse')
        return self._decoder.decode_chunk(latents, self._decoder_memory)[0], None

    def _noise(self, chunk, step, shape):
        if self._clock is not None and step == 0:
            self._clock.lap('encode')
        return self._inputs.noise(chunk, step, shape)


class PlainStream:
    """The plain network in a plain loop; goes on from where our stream stands."""

    def __init__(self, own: OwnStream, dit: WanDiT, vae, inputs: Inputs, attend):
        """
        Take over the keys and values of our stream's window.

        :param own: filled
        :param dit: whose weights are shared
        :param vae: decodes
        :param inputs: of all rungs
        :param attend: attention
        """
        self.case, self._vae, self._inputs, self._copy = own.case, vae, inputs, FrameCopy().to_host
        self._plain = PlainDiT(dit, attend)
        self._rays = RayGrid(self.case.camera, device=dit.device)
        self._image = own.image_latents
        self._first, self._decoder = own.stream.next_latent, None
        per_latent = self.case.size.tokens_per_latent
        self._cache = self._plain.cache(self.case.window, per_latent)
        self._take_over(own.stream.cache, per_latent)

    def _take_over(self, cache, per_latent):
        window, end = self.case.window, self._first
        visible = window.visible(end - window.chunk_latents)
        for index, layer in enumerate(self._cache):
            ours = cache.layer(index, None)
            for i, latent in enumerate(visible):
                slot = window.slots(latent)
                there = slice(slot * per_latent, (slot + 1) * per_latent)
                here = slice(i * per_latent, (i + 1) * per_latent)
                layer.keys[:, here] = ours.keys.read(there)
                layer.values[:, here] = ours.values.read(there)
            layer.global_end.fill_(end * per_latent)
            layer.local_end.fill_(len(visible) * per_latent)

    @torch.no_grad()
    def chunk(self, clock: Clock, early: bool) -> Made:
        """Imagine the next chunk; frames are handed out at the very end."""
        case, inputs = self.case, self._inputs
        clock.start()
        f, first = case.window.chunk_latents, self._first
        rays = self._rays.tokens(inputs.poses())
        given = self._given(first, f)
        clock.lap('encode')
        clean = self._denoise(first, f, given, rays)
        clock.lap('diffuse')
        self._pass(clean, CLEAN, given, rays)
        clock.lap('write')
        video, self._decoder = self._vae.decode_chunk(clean, self._decoder)
        frames = to_frames(video)
        clock.lap('decode')
        host = self._copy(frames)
        clock.lap('copy')
        self._first += f
        return Made(clean, host, clock.wall_ms())

    def _denoise(self, first, f, given, rays):
        schedule, shape = self.case.schedule, self.case.latent_shape(f)
        index = first // f
        latents = self._inputs.noise(index, 0, shape)
        for i, timestep in enumerate(schedule.timesteps):
            velocity = self._pass(latents, timestep, given, rays)
            clean = schedule.predict_clean(latents, velocity, i)
            if i + 1 < len(schedule):
                latents = schedule.renoise(clean, self._inputs.noise(index, i + 1, shape), i + 1)
        return clean

    def _pass(self, latents, timestep, given, rays):
        return self._plain(torch.cat([latents, given], 1), timestep, self._inputs.text[None],
                           rays, self._first, self._cache, self.case.window.sink_latents)

    def _given(self, first, f):
        image = self._image[:, first:first + f]
        tail = self._image[:, -1:].expand(-1, f - image.shape[1], -1, -1)
        return condition(torch.cat([image, tail], 1)[None], first)


class DiffusersStream:
    """The transformer of diffusers, which computes the whole window anew in every step."""

    def __init__(self, case: Case, dit: WanDiT, vae, inputs: Inputs):
        """
        Share the weights; those of the camera have no place there.

        :param case: sizes
        :param dit: whose weights are shared
        :param vae: decodes
        :param inputs: of all rungs
        :raises SpecError: if diffusers is not installed
        """
        self.case, self._vae, self._inputs, self._copy = case, vae, inputs, FrameCopy().to_host
        self._dtype, self._device = dit.dtype, dit.device
        self._network, self._decoder = diffusers_network(dit), None

    @torch.no_grad()
    def chunk(self, clock: Clock, early: bool) -> Made:
        """Denoise the newest latents together with the window before them."""
        case, f = self.case, self.case.window.chunk_latents
        clock.start()
        shape = case.latent_shape(case.window.window_latents)
        latents = torch.cat([self._inputs.noise(0, 0, shape)] * 2
                            + [self._inputs.noise(0, 1, shape)[:, :4]], 1).to(self._dtype)
        text = self._inputs.text[None].to(self._dtype)
        clock.lap('encode')
        for timestep in case.schedule.timesteps:
            velocity = self._network(latents, torch.tensor([timestep], device=self._device), text,
                                     return_dict=False)[0]
        clock.lap('diffuse')
        video, self._decoder = self._vae.decode_chunk(velocity[:, :, -f:].float(), self._decoder)
        frames = to_frames(video)
        clock.lap('decode')
        host = self._copy(frames)
        clock.lap('copy')
        return Made(None, host, clock.wall_ms())


def diffusers_network(dit: WanDiT):
    """Build diffusers' transformer around the weights of ours, without a copy."""
    try:
        from diffusers import WanTransformer3DModel
    except ImportError as error:
        raise SpecError('diffusers is not installed; run pip install diffusers') from error
    spec = dit.spec
    sizes = {'patch_size': (1, 2, 2), 'num_attention_heads': spec.num_heads,
             'attention_head_dim': spec.head_dim, 'in_channels': spec.in_channels,
             'out_channels': spec.out_channels, 'text_dim': spec.text_dim,
             'freq_dim': spec.freq_dim, 'ffn_dim': spec.ffn_dim, 'num_layers': spec.num_layers,
             'eps': spec.eps}
    with torch.device('meta'):
        network = WanTransformer3DModel(**sizes)
    rope = type(network.rope)(spec.head_dim, (1, 2, 2), 1024)  # its tables are in no state dict
    network.rope = rope.to(dit.device)
    network.load_state_dict({diffusers_name(name): tensor
                             for name, tensor in dit.state_dict().items()
                             if not any(part in name for part in CAMERA)}, assign=True)
    return network.eval()


def diffusers_name(name: str) -> str:
    """Return diffusers' name of a public tensor."""
    for ours, theirs in DIFFUSERS_NAMES:
        if ours in name:
            return name.replace(ours, theirs)
    return name


class GraphedDiT:
    """
    A network whose passes over a full window are replays of one CUDA graph.

    Everything that changes from pass to pass is copied to where the graph reads it. All else is
    the network's own.
    """

    def __init__(self, dit: WanDiT, cache, window_tokens: int):
        """
        Record at the first pass.

        :param dit: network
        :param cache: that the graph writes and reads
        :param window_tokens: visible in a pass that is replayed; others run as usual
        """
        self._dit, self._cache, self._window_tokens = dit, cache, window_tokens
        self._graph, self._camera = None, None

    def __getattr__(self, name):
        return getattr(self._dit, name)

    def __call__(self, latents, time, text, camera=None, first_latent=0, cache=None, rope=None,
                 place=None):
        """See ``WanDiT.forward``."""
        if place is None or place.num_visible != self._window_tokens or cache is not self._cache:
            return self._dit(latents, time, text, camera, first_latent, cache, rope, place)
        if self._graph is None:
            self._record(latents, time, text, camera, rope, place)
        self._latents.copy_(latents)
        for target, source in zip((*self._time, *self._rope, self._place.slots),
                                  (*time, *rope, place.slots)):
            target.copy_(source)
        if camera is not self._camera:
            for layer, film in enumerate(self._films):
                for target, source in zip(film, camera.film(layer)):
                    target.copy_(source)
            self._camera = camera
        self._graph.replay()
        return self._out.clone()

    def _record(self, latents, time, text, camera, rope, place):
        self._latents, self._camera = latents.clone(), camera
        self._time = type(time)(*(part.clone() for part in time))
        self._rope = Rotation(*(part.clone() for part in rope))
        self._place = Place(place.slots.clone(), place.num_visible)
        self._films = [Film(*(part.clone() for part in camera.film(i)))
                       for i in range(len(self._dit.blocks))]
        kept = CameraContext(None, (), keep=False)
        kept._films = self._films
        inputs = (self._latents, self._time, text, kept, 0, self._cache, self._rope, self._place)
        self._graph, self._out = recorded(functools.partial(self._dit, *inputs))


def recorded(call):
    """
    Record what a call launches.

    :param call: without arguments; reads and writes the same memory each time
    :return: the graph to be replayed, and the result that replaying writes
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is allocated or compiled once has to be done before
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph, result
