# SPDX-License-Identifier: Apache-2.0
"""
8-bit attention and rows in FP8: Triton on a GPU, the same arithmetic in plain torch elsewhere.

Every public function has a ``plain_`` twin, which tests compare the kernel with and which a CPU
runs. Axes: b batch, n queries or tokens, m keys, h heads, d width.
"""
import importlib.util
import math
import os
from typing import Optional, Tuple, TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from lingbot_world_ros.models.wan.triton_kernels import Tile

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max
INT8_MAX = 127.0
KEYS_PER_SCALE = 64
MEAN_STRIDE = 8  # every eighth key is enough for a mean that only has to be near
TINY = 1e-12
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'  # Triton too reads it when imported
HAS_TRITON = importlib.util.find_spec('triton') is not None


def why_no_triton() -> str:
    """Return what is missing for the kernels, '' if nothing is."""
    return '' if HAS_TRITON else 'triton is not installed; run pip install triton'


def by_triton(x: Tensor) -> bool:
    """Return whether Triton computes on this tensor; its twin does where not."""
    return (x.is_cuda or INTERPRETED) and HAS_TRITON


def attend_8bit(q: Tensor, k: Tensor, v: Tensor, value_dtype: Optional[torch.dtype] = None,
                tile: Optional['Tile'] = None) -> Tensor:
    """
    Attend with scores from int8 queries and keys.

    A mean is subtracted from the keys first, which changes no softmax but takes away what most
    keys have in common and what would fill the int8 range. Queries have a scale per row, keys one
    per ``KEYS_PER_SCALE`` rows.

    :param q: (b, n, h, d)
    :param k: (b, m, h, d), any strides
    :param v: (b, m, h, d), any strides
    :param value_dtype: of probabilities and values in their product: ``FP8`` (values scaled per
        channel), or None for v's own (bfloat16 if that is float32)
    :param tile: sizes for the kernel, None for the usual ones
    :return: (b, n, h, d) in q's dtype

    Source: SageAttention (arXiv 2410.02367) and SageAttention2 (arXiv 2411.10958), the method.
    """
    if by_triton(q):
        from lingbot_world_ros.models.wan import triton_kernels
        scale = value_scale(v) if value_dtype == FP8 else None
        return triton_kernels.attend_8bit(q, k, v, key_mean(k), scale,
                                          value_dtype or value_type(v), tile)
    return plain_attend_8bit(q, k, v, value_dtype)


def plain_attend_8bit(q: Tensor, k: Tensor, v: Tensor,
                      value_dtype: Optional[torch.dtype] = None) -> Tensor:
    """Do what ``attend_8bit`` does, with whole score matrices."""
    value_dtype = value_dtype or value_type(v)
    scale = math.log2(math.e) / math.sqrt(q.shape[-1])
    q8, q_scale = _int8(q.float().transpose(1, 2) * scale, 1)  # b h n d
    k8, k_scale = _int8((k.float() - key_mean(k)[:, None]).transpose(1, 2), KEYS_PER_SCALE)
    scores = q8 @ k8.transpose(-1, -2) * q_scale * k_scale.transpose(-1, -2)  # b h n m
    weights = torch.exp2(scores - scores.amax(-1, keepdim=True))
    normaliser = weights.sum(-1, keepdim=True)
    values = v.transpose(1, 2).float()
    if value_dtype == FP8:
        v_scale = value_scale(v)[:, :, None]  # b h 1 d
        values = (values / v_scale).to(FP8).float() * v_scale
        weights = (weights * 2 ** 8).to(FP8).float() / 2 ** 8
    else:
        values, weights = values.to(value_dtype).float(), weights.to(value_dtype).float()
    return (weights @ values / normaliser).transpose(1, 2).to(q.dtype)


def value_type(v: Tensor) -> torch.dtype:
    """Return the 16-bit dtype that values are multiplied in."""
    return v.dtype if v.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16


def key_mean(k: Tensor) -> Tensor:
    """
    Return about the mean key, (b, h, d) float32.

    Any vector near it does: subtracting the same from all keys shifts a row of scores by a
    constant. So a part of the keys is enough, and the cache is read once less.
    """
    return k[:, ::MEAN_STRIDE].mean(1, dtype=torch.float32)


def value_scale(v: Tensor) -> Tensor:
    """Return what values are divided by to fit FP8, (b, h, d) float32."""
    largest = torch.linalg.vector_norm(v, float('inf'), dim=1).float()
    return largest.clamp_min(TINY) / FP8_MAX


def _int8(x: Tensor, rows_per_scale: int) -> Tuple[Tensor, Tensor]:
    """Round (..., n, d) to whole numbers up to 127, kept as floats; return scales (..., n, 1)."""
    rows = x.shape[-2]
    largest = x.abs().amax(-1, keepdim=True)
    if rows_per_scale > 1:
        blocks = F.pad(largest, (0, 0, 0, -rows % rows_per_scale)).unflatten(
            -2, (-1, rows_per_scale))
        largest = blocks.amax(-2, keepdim=True).expand_as(blocks).flatten(-3, -2)[..., :rows, :]
    scale = largest.clamp_min(TINY) / INT8_MAX
    scaled = x / scale
    return (scaled + scaled.sign() * 0.5).trunc(), scale


def quantised_rows(x: Tensor) -> Tuple[Tensor, Tensor]:
    """
    Quantise what a linear layer takes.

    :param x: (..., d)
    :return: (..., d) FP8 and each row's scale (..., 1) float32; their product is about x
    """
    if by_triton(x) and not torch.compiler.is_compiling():  # a compiler fuses the plain twin
        from lingbot_world_ros.models.wan import triton_kernels
        return triton_kernels.quantised_rows(x)
    return plain_quantised_rows(x)


def plain_quantised_rows(x: Tensor) -> Tuple[Tensor, Tensor]:
    """Twin of ``quantised_rows``."""
    x32 = x.float()
    scale = x32.abs().amax(-1, keepdim=True).clamp_min(TINY) / FP8_MAX
    return (x32 / scale).to(FP8), scale
