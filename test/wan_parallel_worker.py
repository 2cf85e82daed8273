# SPDX-License-Identifier: Apache-2.0
"""What the second process of test_wan_parallel makes: networks, and things that go wrong."""
from functools import partial
import os

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.wan.kv_cache import KVCache, WindowSpec
from lingbot_world_ros.models.wan.ulysses import Ulysses
from test_wan_stream import network, TINY
import torch

WINDOW = WindowSpec(2, 4, 1)


def make_dit(device):
    """Return the tiny network, the same in all processes."""
    torch.set_num_threads(1)
    return network()


def make_moody_dit(trouble, device):
    """
    Return a network that fails in the middle of a pass when it is told to.

    :param trouble: a file with a rank and what will happen to it
    :param device: cpu
    """
    dit = make_dit(device)
    dit.blocks[1].ffn.register_forward_hook(partial(_have_trouble, trouble, dit))
    return dit


def _have_trouble(trouble, dit, module, args, out):
    rank, kind = trouble.read_text().split()
    if int(rank) != dit.parallel.rank:
        return out
    if kind == 'exit':
        os._exit(7)
    if kind == 'nan':
        return out * float('nan')
    raise {'value': ValueError, 'memory': torch.OutOfMemoryError}[kind]('broken on purpose')


def make_no_dit(device):
    """Fail as a missing checkpoint does."""
    raise SpecError('no such checkpoint')


class Passes:
    """Passes through the network, alone (size 1) or with others."""

    def __init__(self, size, rank):
        self.dit = make_dit('cpu')
        self.dit.parallel = Ulysses(TINY.num_heads, rank, size) if size > 1 else None
        self.heads = TINY.num_heads // size

    @torch.no_grad()
    def clip(self, grid, with_camera, keep_films=True):
        """Return the velocity of a whole clip; grid: latent frames, rows, columns of tokens."""
        self.dit.keep_films = keep_films
        draw = _Draw(0)
        f, rows, columns = grid
        rays = draw(1, f * rows * columns, TINY.control_width)
        camera = self.dit.camera_context(rays) if with_camera else None
        return self.dit(draw(1, 36, f, 2 * rows, 2 * columns), self.dit.time_context(500.0),
                        self.dit.text_context(draw(1, 5, TINY.text_dim)), camera)

    @torch.no_grad()
    def chunks(self, rows, columns):
        """Return the velocities of four chunks with a cache that rolls over."""
        draw, tokens = _Draw(1), rows * columns
        cache = KVCache(WINDOW, num_layers=TINY.num_layers, batch_size=1,
                        tokens_per_latent=tokens, num_heads=self.heads,
                        head_dim=TINY.head_dim, dtype=torch.float32, device='cpu')
        text, velocities = self.dit.text_context(draw(1, 5, TINY.text_dim)), []
        for first in range(0, 4 * WINDOW.chunk_latents, WINDOW.chunk_latents):
            camera = self.dit.camera_context(
                draw(1, WINDOW.chunk_latents * tokens, TINY.control_width))
            latents = draw(1, 36, WINDOW.chunk_latents, 2 * rows, 2 * columns)
            for timestep in (700.0, 0.0):
                velocities.append(self.dit(latents, self.dit.time_context(timestep), text, camera,
                                           first, cache))
        return torch.stack(velocities)


class _Draw:
    def __init__(self, seed):
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape):
        return torch.randn(shape, generator=self._generator)
