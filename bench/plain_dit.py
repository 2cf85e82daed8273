# SPDX-License-Identifier: Apache-2.0
"""
The network computed the plain way, to compare with: same weights, same result, nothing kept.

It does what published code for this model does in each pass: text and camera go through all their
layers again, every token has a time embedding of its own in float32, each block builds its rotary
table anew in complex128, positions in the cache are numbers on the device that are read back, and
a full cache is shifted. Written for this comparison from the model's description; no code of the
published one is in it.

Axes: b batch, f latent frames, n tokens, h heads, d width, s slots.
"""
from dataclasses import dataclass

from lingbot_world_ros.models.wan.dit import unpatchify, WanDiT
from lingbot_world_ros.models.wan.kv_cache import WindowSpec
import torch
from torch import Tensor
from torch.nn import functional as F

TABLE_LATENTS = 1024


@dataclass
class LayerCache:
    """Keys and values of one block (b, s, h, d), and two counters of tokens on the device."""

    keys: Tensor
    values: Tensor
    global_end: Tensor
    local_end: Tensor

    def update(self, k: Tensor, v: Tensor, start: int, sink: int):
        """
        Put a chunk at the end, or over itself; return what is visible.

        :param k: (b, n, h, d)
        :param v: (b, n, h, d)
        :param start: tokens of the clip before this chunk
        :param sink: tokens that are never shifted out
        """
        end, n = start + k.shape[1], k.shape[1]
        if end > self.global_end.item() and self.local_end.item() + n > self.keys.shape[1]:
            self._shift(self.local_end.item() + n - self.keys.shape[1], sink)
        last = self.local_end.item() + end - self.global_end.item()
        for part, new in ((self.keys, k), (self.values, v)):
            part[:, last - n:last] = new
        self.global_end.fill_(end)
        self.local_end.fill_(last)
        visible = self.local_end.item()
        return self.keys[:, :visible], self.values[:, :visible]

    def _shift(self, evicted, sink):
        """Drop the oldest tokens behind the sink."""
        kept = self.local_end.item() - evicted - sink
        for part in (self.keys, self.values):
            part[:, sink:sink + kept] = part[:, sink + evicted:sink + evicted + kept].clone()
        self.local_end -= evicted


class PlainDiT:
    """Compute with the weights of a ``WanDiT``, which stays as it is."""

    def __init__(self, dit: WanDiT, attend):
        """
        Share the weights.

        :param dit: network; not quantised
        :param attend: (q, k, v) -> out, as for our own network
        """
        self._dit, self._attend, self._spec = dit, attend, dit.spec
        self._table = rotary_table(dit.spec.rope_dims, dit.device)

    def cache(self, window: WindowSpec, tokens_per_latent: int):
        """Allocate a cache for every block."""
        spec, dit = self._spec, self._dit
        shape = 1, window.window_latents * tokens_per_latent, spec.num_heads, spec.head_dim
        return [LayerCache(*(torch.zeros(shape, dtype=dit.dtype, device=dit.device)
                             for _ in range(2)),
                           *(torch.zeros((), dtype=torch.int64, device=dit.device)
                             for _ in range(2))) for _ in dit.blocks]

    def __call__(self, latents: Tensor, timestep: float, text: Tensor, ray_tokens: Tensor,
                 first_latent: int, cache, sink_latents: int) -> Tensor:
        """
        Predict the velocity of a chunk.

        :param latents: (1, 36, f, h, w)
        :param timestep: 0 to 1000
        :param text: (1, l, text_dim) of the text encoder
        :param ray_tokens: (1, n, control_width)
        :param first_latent: position of the chunk in the clip
        :param cache: from ``cache``
        :param sink_latents: that stay
        :return: (1, 16, f, h, w) float32
        """
        dit = self._dit
        x = dit.patch_embedding(latents.to(dit.dtype))
        grid = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)  # b n d
        head_time, block_time = self._time(timestep, x.shape[1])
        padded = F.pad(text.to(dit.dtype), (0, 0, 0, self._spec.text_len - text.shape[1]))
        context, camera = dit.text_embedding(padded), self._camera(ray_tokens)
        per_latent = grid[1] * grid[2]
        for block, layer in zip(dit.blocks, cache):
            x = self._block(block, x, block_time, context, camera, layer, (grid, first_latent),
                            first_latent * per_latent, sink_latents * per_latent)
        return unpatchify(self._head(x, head_time), grid)

    def _time(self, timestep, n):
        """Embed the time of each token: (1, n, d) and (1, n, 6, d) float32."""
        dit, half = self._dit, self._spec.freq_dim // 2
        times = torch.full((n,), float(timestep), dtype=torch.float64, device=dit.device)
        rates = torch.pow(10000, -torch.arange(half, device=dit.device).double() / half)
        angles = torch.outer(times, rates)
        waves = torch.cat([angles.cos(), angles.sin()], 1).float()[None]
        hidden = linear32(dit.time_embedding[0], waves)
        embedding = linear32(dit.time_embedding[2], F.silu(hidden))
        blocks = linear32(dit.time_projection[1], F.silu(embedding))
        return embedding, blocks.unflatten(2, (6, -1))

    def _camera(self, ray_tokens):
        dit = self._dit
        rays = dit.patch_embedding_wancamctrl(ray_tokens.to(dit.dtype))
        hidden = dit.c2ws_hidden_states_layer2(F.silu(dit.c2ws_hidden_states_layer1(rays)))
        return rays + hidden

    def _block(self, block, x, time, context, camera, layer, where, start, sink):
        dtype, own, cross = self._dit.dtype, block.self_attn, block.cross_attn
        parts = (block.modulation.float()[:, None] + time).unbind(2)  # six of b n d
        y = (normed(x, block) * (1 + parts[1]) + parts[0]).to(dtype)
        q, k = own.heads(own.norm_q(own.q(y))), own.heads(own.norm_k(own.k(y)))
        q, k = (rotated(part, self._table, *where) for part in (q, k))
        k, v = layer.update(k, own.heads(own.v(y)), start, sink)
        x = x.float() + own.o(self._attend(q, k, v).flatten(2)).float() * parts[2]
        hidden = camera + block.cam_injector_layer2(F.silu(block.cam_injector_layer1(camera)))
        x = (1 + block.cam_scale_layer(hidden).float()) * x + block.cam_shift_layer(hidden).float()
        y = F.layer_norm(x, (block.dim,), block.norm3.weight.float(), block.norm3.bias.float(),
                         block.eps).to(dtype)
        q = cross.heads(cross.norm_q(cross.q(y)))
        x = x + cross.o(self._attend(q, *cross.keys_values(context)).flatten(2)).float()
        y = (normed(x, block) * (1 + parts[4]) + parts[3]).to(dtype)
        return x + block.ffn(y).float() * parts[5]

    def _head(self, x, time):
        head = self._dit.head
        shift, scale = (head.modulation.float()[:, None] + time[:, :, None]).unbind(2)
        return linear32(head.head, normed(x, head) * (1 + scale) + shift)


def linear32(layer, x: Tensor) -> Tensor:
    """Apply a linear layer with its weights as float32."""
    return F.linear(x, layer.weight.float(), layer.bias.float())


def normed(x: Tensor, part) -> Tensor:
    """Normalise without weights, in float32."""
    return F.layer_norm(x.float(), (part.dim,), eps=part.eps)


def rotary_table(dims, device):
    """Return unit numbers (1024, d / 2) complex128 for each axis."""
    tables = []
    for width in dims:
        rates = 1.0 / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
        angles = torch.outer(torch.arange(TABLE_LATENTS, dtype=torch.float64), rates)
        tables.append(torch.polar(torch.ones_like(angles), angles).to(device))
    return tables


def rotated(x: Tensor, tables, grid, first_latent: int) -> Tensor:
    """Turn queries or keys (b, n, h, d) with a table that is put together here."""
    f, rows, columns = grid
    parts = (tables[0][first_latent:first_latent + f].view(f, 1, 1, -1),
             tables[1][:rows].view(1, rows, 1, -1), tables[2][:columns].view(1, 1, columns, -1))
    turns = torch.cat([part.expand(f, rows, columns, -1) for part in parts], -1)  # f rows cols .
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns.view(1, x.shape[1], 1, -1)).flatten(3).to(x.dtype)
