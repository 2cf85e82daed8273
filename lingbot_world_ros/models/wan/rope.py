# SPDX-License-Identifier: Apache-2.0
"""
Rotary positions over time, rows and columns of latent tokens.

Neighbouring dimensions form pairs that turn by position times frequency. Angles are closed-form,
in float64, so that a stream may go on for ever; tables are float32.

Source: Wan2.2 (its table ends after 1024 latent frames; this one does not).
"""
from typing import NamedTuple, Tuple

from lingbot_world_ros.models.wan.device import Device
import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosine and sine for each token and pair of dimensions, both (n, 1, d / 2) float32."""

    cos: Tensor
    sin: Tensor


def rotation(dims: Tuple[int, int, int], grid: Tuple[int, int], first_latent: int,
             num_latents: int, device: Device) -> Rotation:
    """
    Build the table for a run of latent frames.

    :param dims: dimensions of a head that turn with time, row and column
    :param grid: rows and columns of tokens
    :param first_latent: position of the first latent frame, counted from the start of the clip
    :param num_latents: how many
    :param device: where the table lives
    :return: table for the tokens in order frame, row, column
    """
    rows, columns = grid
    starts, counts = (first_latent, 0, 0), (num_latents, rows, columns)
    angles = []
    for axis, (width, start, count) in enumerate(zip(dims, starts, counts)):
        pairs = torch.arange(0, width, 2, dtype=torch.float64, device=device)
        positions = torch.arange(start, start + count, dtype=torch.float64, device=device)
        turned = torch.outer(positions, 10000.0 ** (-pairs / width))
        shape = [1, 1, 1, width // 2]
        shape[axis] = count
        angles.append(turned.view(shape).expand(num_latents, rows, columns, -1))
    flat = torch.cat(angles, -1).flatten(0, 2)[:, None]  # n 1 d/2
    return Rotation(flat.cos().float(), flat.sin().float())


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """
    Turn the pairs of queries or keys.

    :param x: (b, n, h, d)
    :param by: table for these n tokens
    :return: same shape and dtype; computed in float32
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * by.cos - odd * by.sin, even * by.sin + odd * by.cos], -1)
    return turned.flatten(-2).to(x.dtype)
