# SPDX-License-Identifier: Apache-2.0
"""
Keys and values of what was generated before: the first latent frames for good, then a window.

Axes: b batch, s slots, h heads, d head dimensions. Positions are host integers, so that using the
cache never waits for the device.
"""
from dataclasses import dataclass
from typing import Iterable, Iterator, List, NamedTuple, Optional, Tuple, Union

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.wan.device import Device
import torch
from torch import Tensor

INT8_MAX = 127.0
TINY = 1e-30  # of a token of zeros, whose scale is 0


@dataclass(frozen=True)
class WindowSpec:
    """
    Which latent frames a chunk attends to.

    ``window_latents`` are visible in all: the first ``sink_latents`` of the clip, the newest ones
    and the ``chunk_latents`` that are generated at present.
    """

    chunk_latents: int = 3
    window_latents: int = 18
    sink_latents: int = 3

    def __post_init__(self) -> None:
        """Refuse windows that cannot hold a chunk beside the sink."""
        if self.chunk_latents < 1 or self.sink_latents < 0:
            raise SpecError(f'chunk_latents={self.chunk_latents} must be at least 1, '
                            f'sink_latents={self.sink_latents} at least 0.')
        least = self.sink_latents + self.chunk_latents
        if self.window_latents < least:
            raise SpecError(f'window_latents={self.window_latents} must be at least {least}: '
                            'sink_latents and one chunk.')

    def slots(self, latent: int) -> int:
        """Return the slot of a latent frame, counted from the start of the clip."""
        if latent < self.sink_latents:
            return latent
        ring = self.window_latents - self.sink_latents
        return self.sink_latents + (latent - self.sink_latents) % ring

    def visible(self, first_latent: int) -> List[int]:
        """Return the latent frames that the chunk from ``first_latent`` on attends to, sorted."""
        end = first_latent + self.chunk_latents
        sink = range(min(self.sink_latents, end))
        recent = end - (self.window_latents - self.sink_latents)
        return [*sink, *range(max(self.sink_latents, recent), end)]


class Place(NamedTuple):
    """
    Where a chunk's keys go, int64 on the device, and what its queries see.

    ``slots`` of all its tokens, and the first ``num_visible`` slots; or, where old chunks are
    written anew, ``tokens`` says which of them are written and ``visible`` which slots are seen.
    """

    slots: Tensor
    num_visible: int = 0
    tokens: Optional[Tensor] = None
    visible: Optional[Tensor] = None


class Part(NamedTuple):
    """
    Keys or values of one block, (b, s, h, d).

    In 8 bits ``scale`` (b, s, h, 1) says what one step of each slot and head is worth.
    """

    stored: Tensor
    scale: Optional[Tensor] = None

    def write(self, slots: Tensor, x: Tensor) -> None:
        """Put (b, n, h, d) into slots (n,)."""
        if self.scale is None:
            self.stored.index_copy_(1, slots, x)
            return
        # The scale is rounded first, so that its rounding is no error.
        scale = (x.abs().amax(-1, keepdim=True).float() / INT8_MAX).to(self.scale.dtype)
        steps = x.float() / scale.float().clamp(min=TINY)
        self.scale.index_copy_(1, slots, scale)
        self.stored.index_copy_(1, slots, steps.round().clamp(-INT8_MAX, INT8_MAX).to(torch.int8))

    def read(self, slots: Union[slice, Tensor]) -> Tensor:
        """Return (b, m, h, d) of slots, a slice or (m,)."""
        x = self.stored[:, slots]
        return x if self.scale is None else x * self.scale[:, slots]


class Memory(NamedTuple):
    """One block's part of the cache, and where a chunk goes."""

    keys: Part
    values: Part
    place: Place

    def update(self, k: Tensor, v: Tensor) -> Tuple[Tensor, Tensor]:
        """
        Write a chunk's keys and values and return all visible ones.

        :param k: (b, n, h, d) rotated keys of the chunk
        :param v: (b, n, h, d)
        :return: keys and values (b, m, h, d), views into the cache where that can be
        """
        slots, num_visible, tokens, visible = self.place
        if tokens is not None:
            k, v = k[:, tokens], v[:, tokens]
        seen = slice(num_visible) if visible is None else visible
        self.keys.write(slots, k)
        self.values.write(slots, v)
        return self.keys.read(seen), self.values.read(seen)


class KVCache:
    """
    Rotated keys and values of all blocks, in the network's dtype or in 8 bits.

    A chunk written again overwrites itself; a new chunk takes the slots of the oldest one behind
    the sink. Attention does not care about order, so nothing ever moves.
    """

    def __init__(self, window: WindowSpec, *, num_layers: int, batch_size: int,
                 tokens_per_latent: int, num_heads: int, head_dim: int, dtype: torch.dtype,
                 device: Device, in_8_bits: bool = False) -> None:
        """
        Allocate everything.

        :param window: what stays visible
        :param num_layers: blocks of the network
        :param batch_size: clips side by side
        :param tokens_per_latent: tokens of one latent frame
        :param num_heads: of each block (those of this process, if several share them)
        :param head_dim: width of a head
        :param dtype: of keys and values
        :param device: where they live
        :param in_8_bits: half the memory of 16 bits, one scale for each token and head
        """
        self.window, self._tokens, self._device = window, tokens_per_latent, device
        shape = batch_size, window.window_latents * tokens_per_latent, num_heads, head_dim

        def part() -> Part:
            if not in_8_bits:
                return Part(torch.zeros(shape, dtype=dtype, device=device))
            return Part(torch.zeros(shape, dtype=torch.int8, device=device),
                        torch.zeros((*shape[:3], 1), dtype=dtype, device=device))
        self._layers = [(part(), part()) for _ in range(num_layers)]

    @property
    def num_bytes(self) -> int:
        """Bytes on the device."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors())

    def layer(self, index: int, place: Place) -> Memory:
        """Return what block ``index`` reads and writes."""
        return Memory(*self._layers[index], place)

    def place(self, first_latent: int, num_latents: int) -> Place:
        """
        Find the slots of a chunk.

        :param first_latent: of the chunk, counted from the start of the clip
        :param num_latents: at most the window's chunk
        :return: slots of all its tokens, and how many slots are filled with it
        """
        filled = min(first_latent + num_latents, self.window.window_latents)
        slots = [self.window.slots(i) for i in range(first_latent, first_latent + num_latents)]
        return Place(self._index(slots), filled * self._tokens)

    def place_among(self, first_latent: int, fresh: List[int], visible: List[int]) -> Place:
        """
        Find the slots of a chunk that is written anew while newer ones are in the cache.

        :param first_latent: of the chunk
        :param fresh: which of its latent frames are written
        :param visible: latent frames that its queries see
        :return: for ``update``
        """
        return Place(self._index(map(self.window.slots, fresh)),
                     tokens=self._index(i - first_latent for i in fresh),
                     visible=self._index(map(self.window.slots, visible)))

    def snapshot(self) -> List[Tensor]:
        """Return a copy of everything, in the memory of the host."""
        return [tensor.to('cpu', copy=True) for tensor in self._tensors()]

    def restore(self, snapshot: List[Tensor]) -> None:
        """Go back to a copy; keys and values are the same bytes as then."""
        for tensor, saved in zip(self._tensors(), snapshot):
            tensor.copy_(saved)

    def _tensors(self) -> Iterator[Tensor]:
        return (tensor for layer in self._layers for part in layer for tensor in part
                if tensor is not None)

    def _index(self, latents: Iterable[int]) -> Tensor:
        """Return the tokens of latent frames (or slots), one after the other, on the device."""
        starts = torch.tensor([i * self._tokens for i in latents], dtype=torch.int64)
        starts = starts.to(self._device, non_blocking=True)  # few numbers; the rest is made there
        return (starts[:, None] + torch.arange(self._tokens, device=self._device)).flatten()
