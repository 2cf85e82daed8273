# SPDX-License-Identifier: Apache-2.0
"""
LingBot-World's diffusion transformer: Wan2.2's, with a camera adapter in every block.

One class serves the bidirectional model (no cache) and the causal one (chunk by chunk, with a
cache). Modules carry the names of the public tensors. What does not change from pass to pass is
computed once and handed in: text per prompt, camera per chunk, time per step of the schedule.

Axes: b batch, c channel, f latent frames, h w latent rows and columns, n tokens, d model width,
l text tokens. The residual stream is float32, matrix products are in the weights' dtype.
"""
from typing import Any, cast, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from lingbot_world_ros.models.wan.attention import Attend, attend
from lingbot_world_ros.models.wan.kv_cache import KVCache, Memory, Place
from lingbot_world_ros.models.wan.rope import rotate, Rotation, rotation
from lingbot_world_ros.models.wan.spec import DiTSpec, PATCH
import torch
from torch import nn, Tensor
from torch.nn import functional as F


class TimeContext(NamedTuple):
    """One noise level: for the head (b, 1, d) and for the blocks (b, 6, d), float32."""

    head: Tensor
    blocks: Tensor


class Film(NamedTuple):
    """What a camera does to the residual stream, (b, n, d): times 1 + scale, plus shift."""

    scale: Tensor
    shift: Tensor


class CameraContext:
    """
    What all blocks need to know about a chunk's camera.

    ``films`` are kept for all blocks, or made anew in each pass where memory is short (0.1 GB per
    block and chunk in the 14B at 464 x 832).
    """

    def __init__(self, embedding: Tensor, blocks: Sequence['Block'], keep: bool) -> None:
        """
        Prepare.

        :param embedding: (b, n, d) from the ray tokens
        :param blocks: of the network
        :param keep: compute every block's part now and keep it
        """
        self._embedding, self._blocks = embedding, blocks
        self._films = [block.film(embedding) for block in blocks] if keep else None

    def film(self, layer: int) -> Film:
        """Return what block ``layer`` applies."""
        if self._films is None:
            return self._blocks[layer].film(self._embedding)
        return self._films[layer]


TextContext = List[Tuple[Tensor, Tensor]]  # per block: keys and values (b, l, h, d / h)


class RMSNorm(nn.Module):
    """Divide by the root mean square over the full width, all heads together."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        scale = torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return (x32 * scale).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Projections and norms that self- and cross-attention share."""

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__()
        self.num_heads = spec.num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(spec.dim, spec.dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(spec.dim, spec.eps), RMSNorm(spec.dim, spec.eps)

    def heads(self, x: Tensor) -> Tensor:
        """Split (b, n, d) into (b, n, h, d / h)."""
        return x.unflatten(-1, (self.num_heads, -1))

    def keys_values(self, context: Tensor) -> Tuple[Tensor, Tensor]:
        """Project a context (b, l, d) to keys and values (b, l, h, d / h)."""
        return self.heads(self.norm_k(self.k(context))), self.heads(self.v(context))


class Pass(NamedTuple):
    """What one pass over a chunk shares among all blocks."""

    rope: Rotation
    attend: Attend
    parallel: Any  # splits tokens and heads among processes, or None


class Block(nn.Module):
    """Self-attention, camera, text, feed-forward; each added to the residual stream."""

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__()
        self.dim, self.eps = spec.dim, spec.eps
        self.modulation = nn.Parameter(torch.zeros(1, 6, spec.dim))
        self.self_attn, self.cross_attn = Attention(spec), Attention(spec)
        self.norm3 = nn.LayerNorm(spec.dim, spec.eps)
        self.ffn = nn.Sequential(nn.Linear(spec.dim, spec.ffn_dim), nn.GELU('tanh'),
                                 nn.Linear(spec.ffn_dim, spec.dim))
        if spec.control_channels:
            self.cam_injector_layer1, self.cam_injector_layer2, self.cam_scale_layer, \
                self.cam_shift_layer = (nn.Linear(spec.dim, spec.dim) for _ in range(4))

    def film(self, camera: Tensor) -> Film:
        """
        Compute the camera's part, which no noise level changes.

        :param camera: (b, n, d) embedding of the rays
        :return: scale and shift of the residual stream
        """
        injected = self.cam_injector_layer2(F.silu(self.cam_injector_layer1(camera)))
        hidden = camera + injected
        return Film(self.cam_scale_layer(hidden), self.cam_shift_layer(hidden))

    def forward(self, x: Tensor, time: Tensor, text: Tuple[Tensor, Tensor],
                film: Optional[Film], memory: Optional[Memory], run: Pass) -> Tensor:
        """
        Add this block's part.

        :param x: (b, n, d) float32 residual stream
        :param time: (b, 6, d) float32
        :param text: keys and values of the prompt
        :param film: the camera's part, None without a camera
        :param memory: this block's part of the cache; None attends within x only
        :param run: shared by all blocks
        :return: (b, n, d) float32
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            self.modulation.float() + time).unsqueeze(2).unbind(1)  # each b 1 d
        q, k, v = self._project(self._modulated(x, scale1, shift1), run)
        if memory is not None:
            k, v = memory.update(k, v)
        x = x + gate1 * self._merge(run.attend(q, k, v), run).float()
        return self._rest(x, text, film, shift2, scale2, gate2, run)

    def _project(self, x: Tensor, run: Pass) -> Tuple[Tensor, Tensor, Tensor]:
        attn = self.self_attn
        q = rotate(attn.heads(attn.norm_q(attn.q(x))), run.rope)
        k = rotate(attn.heads(attn.norm_k(attn.k(x))), run.rope)
        v = attn.heads(attn.v(x))
        return (q, k, v) if run.parallel is None else run.parallel.to_heads(q, k, v)

    def _merge(self, out: Tensor, run: Pass) -> Tensor:
        if run.parallel is not None:
            out = run.parallel.to_tokens(out)
        return self.self_attn.o(out.flatten(2))

    def _rest(self, x: Tensor, text: Tuple[Tensor, Tensor], film: Optional[Film], shift2: Tensor,
              scale2: Tensor, gate2: Tensor, run: Pass) -> Tensor:
        """Camera, text and feed-forward."""
        if film is not None:
            x = (1 + film.scale.float()) * x + film.shift.float()
        cross = self.cross_attn
        weight, bias = self.norm3.weight.float(), self.norm3.bias.float()
        normed = F.layer_norm(x, (self.dim,), weight, bias, self.eps).to(text[0].dtype)
        q = cross.heads(cross.norm_q(cross.q(normed)))
        x = x + cross.o(run.attend(q, *text).flatten(2)).float()
        return x + gate2 * self.ffn(self._modulated(x, scale2, shift2)).float()

    def _modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Normalise without weights, then scale and shift; in the weights' dtype."""
        normed = F.layer_norm(x, (self.dim,), eps=self.eps)
        return (normed * (1 + scale) + shift).to(self.self_attn.norm_q.weight.dtype)


class Head(nn.Module):
    """Tokens to velocities."""

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__()
        self.dim, self.eps = spec.dim, spec.eps
        self.modulation = nn.Parameter(torch.zeros(1, 2, spec.dim))
        self.head = nn.Linear(spec.dim, spec.out_channels * spec.patch_size)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = (self.modulation.float() + time).chunk(2, 1)  # b 1 d
        normed = F.layer_norm(x, (self.dim,), eps=self.eps)
        return linear32(self.head, normed * (1 + scale) + shift)


class WanDiT(nn.Module):
    """
    Predict the velocity (noise minus clean latents) of noisy latents.

    ``attend`` may be replaced by another attention back end, ``parallel`` by what shares the work
    among processes, ``keep_films`` set to False to save memory.
    """

    def __init__(self, spec: DiTSpec) -> None:
        """
        Make the modules; weights come from a checkpoint.

        :param spec: sizes
        """
        super().__init__()
        self.spec, dim = spec, spec.dim
        self.attend: Attend = attend
        self.parallel: Any = None  # of parallel.Ulysses
        self.keep_films = True
        self.patch_embedding = nn.Conv3d(spec.in_channels, dim, PATCH, PATCH)
        if spec.control_channels:
            self.patch_embedding_wancamctrl = nn.Linear(spec.control_width, dim)
            self.c2ws_hidden_states_layer1 = nn.Linear(dim, dim)
            self.c2ws_hidden_states_layer2 = nn.Linear(dim, dim)
        self.text_embedding = nn.Sequential(nn.Linear(spec.text_dim, dim), nn.GELU('tanh'),
                                            nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(spec.freq_dim, dim), nn.SiLU(),
                                            nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.num_layers))
        self.head = Head(spec)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the matrix products."""
        return self.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.patch_embedding.weight.device

    def text_context(self, embeddings: Tensor) -> TextContext:
        """
        Turn a prompt into every block's keys and values; once per prompt.

        :param embeddings: (b, l, text_dim) of the text encoder, l at most ``spec.text_len``;
            missing rows count as zeros, which the public models attend to
        :return: to be handed to ``forward``
        """
        short = self.spec.text_len - embeddings.shape[1]
        padded = F.pad(embeddings.to(self.device, self.dtype), (0, 0, 0, short))
        context = self.text_embedding(padded)
        return [block.cross_attn.keys_values(context)
                for block in cast(Iterable[Block], self.blocks)]

    def camera_context(self, ray_tokens: Tensor) -> CameraContext:
        """
        Turn a chunk's camera into every block's part; once per chunk.

        :param ray_tokens: (b, n, spec.control_width)
        :return: to be handed to ``forward``
        """
        tokens = ray_tokens.to(self.device, self.dtype)
        if self.parallel is not None:
            tokens = self.parallel.shard(tokens)
        rays = self.patch_embedding_wancamctrl(tokens)
        hidden = self.c2ws_hidden_states_layer2(F.silu(self.c2ws_hidden_states_layer1(rays)))
        blocks = cast(Sequence[Block], self.blocks)
        return CameraContext(rays + hidden, blocks, self.keep_films)

    def time_context(self, timestep: float) -> TimeContext:
        """
        Turn a noise level into modulations; once per step of a schedule.

        :param timestep: 0 (clean) to 1000
        :return: to be handed to ``forward``
        """
        half = self.spec.freq_dim // 2
        steps = torch.arange(half, dtype=torch.float64)
        angles = timestep * torch.pow(10000.0, -steps / half)
        waves = torch.cat([angles.cos(), angles.sin()]).float().to(self.device)
        hidden = F.silu(linear32(self.time_embedding[0], waves[None]))
        embedding = linear32(self.time_embedding[2], hidden)
        modulation = linear32(self.time_projection[1], F.silu(embedding))
        return TimeContext(embedding[:, None], modulation.unflatten(-1, (6, -1)))

    def forward(self, latents: Tensor, time: TimeContext, text: TextContext,
                camera: Optional[CameraContext] = None, first_latent: int = 0,
                cache: Optional[KVCache] = None, rope: Optional[Rotation] = None,
                place: Optional[Place] = None) -> Tensor:
        """
        Predict the velocity of one clip or chunk.

        :param latents: (b, in_channels, f, h, w): noisy latents, mask, image latents
        :param time: noise level
        :param text: of the prompt
        :param camera: of these frames; None leaves the camera path out
        :param first_latent: position of the first frame, counted from the start of the clip
        :param cache: of a causal stream; None attends within ``latents`` only
        :param rope: ``self.rotation`` of these frames, where it is at hand already
        :param place: ``cache.place`` of these frames, where it is at hand already
        :return: (b, out_channels, f, h, w) float32
        """
        x = self.patch_embedding(latents.to(self.dtype))
        grid = x.shape[2:]
        x = x.flatten(2).transpose(1, 2).float().contiguous()  # b n d; one layout, one graph
        rope = rope or self.rotation(first_latent, grid[0], grid[1:])
        if cache is not None and place is None:
            place = cache.place(first_latent, grid[0])
        if self.parallel is not None:
            x = self.parallel.shard(x)
        run = Pass(rope, self.attend, self.parallel)
        for layer, block in enumerate(self.blocks):
            film = None if camera is None else camera.film(layer)
            memory = None if cache is None or place is None else cache.layer(layer, place)
            x = block(x, time.blocks, text[layer], film, memory, run)
        out = self.head(x, time.head)
        if self.parallel is not None:
            out = self.parallel.gather(out)
        return unpatchify(out, grid)

    def rotation(self, first_latent: int, num_latents: int, grid: Sequence[int]) -> Rotation:
        """Return the rotary table for these frames, or this process's part of it."""
        rows, columns = grid
        table = rotation(self.spec.rope_dims, (rows, columns), first_latent, num_latents,
                         self.device)
        if self.parallel is None:
            return table
        return Rotation(*(self.parallel.shard(part[None])[0] for part in table))


def unpatchify(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    """
    Put tokens back in their places.

    :param tokens: (b, n, 4 c) with the channel fastest
    :param grid: latent frames, rows and columns of tokens
    :return: (b, c, f, h, w)
    """
    b, (f, rows, columns) = len(tokens), grid
    x = tokens.view(b, f, rows, columns, *PATCH, -1)  # b f rows columns pt ph pw c
    x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)  # b c f pt rows ph columns pw
    return x.reshape(b, -1, f * PATCH[0], rows * PATCH[1], columns * PATCH[2])


def linear32(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer in float32, or a quantised one in the dtype it computes in."""
    if type(layer) is nn.Linear:
        return F.linear(x, layer.weight.float(), layer.bias.float())
    return layer(x).float()
