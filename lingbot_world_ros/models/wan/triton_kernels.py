# SPDX-License-Identifier: Apache-2.0
"""
The Triton kernels of ``kernels.py``, which has their plain twins and is what others import.

Importing this needs Triton. Axes: b batch, n queries or tokens, m keys, h heads, d width.
"""
from dataclasses import dataclass
import math
from typing import Optional, Tuple

import torch
from torch import Tensor
import triton
import triton.language as tl

FP8 = torch.float8_e4m3fn
FP8_MAX = tl.constexpr(448.0)
INT8_MAX = tl.constexpr(127.0)
TINY = tl.constexpr(1e-12)
WEIGHT_BITS = tl.constexpr(8)  # fp8 weights go up to 2 ** 8: more of them are normal numbers


@dataclass(frozen=True)
class Tile:
    """Queries and keys that one program works on at a time, and how many warps and stages."""

    queries: int = 128
    keys: int = 64
    num_warps: int = 8
    num_stages: int = 3


TILES = (Tile(), Tile(128, 64, 8, 2), Tile(128, 128, 8, 2), Tile(64, 64, 4, 2))


def attend_8bit(q: Tensor, k: Tensor, v: Tensor, key_mean: Tensor, value_scale: Optional[Tensor],
                value_dtype: torch.dtype, tile: Optional[Tile] = None) -> Tensor:
    """
    Attend with scores from int8 queries and keys.

    :param q: (b, n, h, d), d a power of two, at least 16
    :param k: (b, m, h, d)
    :param v: (b, m, h, d)
    :param key_mean: (b, h, d) float32, subtracted from the keys
    :param value_scale: (b, h, d) float32 divisor of the values, None where they are not FP8
    :param value_dtype: float16, bfloat16 or FP8
    :param tile: keys have one scale per ``tile.keys``
    :return: (b, n, h, d) in q's dtype
    """
    tile = tile or Tile()
    return _attend_op(q, k, v, key_mean, value_scale, value_dtype, tile.queries, tile.keys,
                      tile.num_warps, tile.num_stages)


# One operation to a compiler: nothing in it could be fused with what surrounds it.
@torch.library.custom_op('lingbot_world::attend_8bit', mutates_args=())
def _attend_op(q: Tensor, k: Tensor, v: Tensor, key_mean: Tensor, value_scale: Optional[Tensor],
               value_dtype: torch.dtype, tile_queries: int, tile_keys: int, num_warps: int,
               num_stages: int) -> Tensor:
    b, n, h, d = q.shape
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    k8, k_scale = _quantised_keys(k, key_mean, tile_keys)
    in_fp8 = value_dtype == FP8
    if in_fp8:
        assert value_scale is not None, 'values in FP8 have a scale'
        v = _quantised_values(v, value_scale, tile_keys)  # b m h d, m fastest
    elif v.dtype != value_dtype:
        v = v.to(value_dtype)
    out = torch.empty(b, n, h, d, dtype=q.dtype, device=q.device)
    _attend[(triton.cdiv(n, tile_queries), b * h)](
        q, k8, k_scale, v, value_scale if in_fp8 else k_scale, out, h, n, k.shape[1],
        math.log2(math.e) / math.sqrt(d), *q.stride()[:3], *v.stride(), D=d, IN_FP8=in_fp8,
        BLOCK_Q=tile_queries, BLOCK_K=tile_keys, num_warps=num_warps, num_stages=num_stages)
    return out


@_attend_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, key_mean: Tensor, value_scale: Optional[Tensor],
      value_dtype: torch.dtype, *sizes: int) -> Tensor:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


def _quantised_keys(k: Tensor, mean: Tensor, block: int) -> Tuple[Tensor, Tensor]:
    """Return int8 keys (b, h, m', d) with m' a multiple of ``block``, and scales per block."""
    b, m, h, d = k.shape
    blocks = triton.cdiv(m, block)
    k8 = torch.empty(b, h, blocks * block, d, dtype=torch.int8, device=k.device)
    scale = torch.empty(b, h, blocks, dtype=torch.float32, device=k.device)
    _quantise_keys[(blocks, b * h)](k, mean.contiguous(), k8, scale, h, m, *k.stride()[:3], D=d,
                                    BLOCK=block, num_warps=4)
    return k8, scale


def _quantised_values(v: Tensor, scale: Tensor, block: int) -> Tensor:
    """Return FP8 values, (b, m', h, d) as a view of (b, h, d, m'): what tensor cores want."""
    b, m, h, d = v.shape
    blocks = triton.cdiv(m, block)
    v8 = torch.empty(b, h, d, blocks * block, dtype=FP8, device=v.device)
    _quantise_values[(blocks, b * h)](v, scale.contiguous(), v8, h, m, *v.stride()[:3], D=d,
                                      BLOCK=block, num_warps=4)
    return v8.permute(0, 3, 1, 2)


@triton.jit
def _to_int8(x: tl.tensor) -> tl.tensor:
    return (x + tl.where(x >= 0, 0.5, -0.5)).to(tl.int8)  # conversion truncates


@triton.jit
def _quantise_keys(k: tl.tensor, mean: tl.tensor, k8: tl.tensor, scale: tl.tensor, h: tl.tensor,
                   m: tl.tensor, stride_b: tl.tensor, stride_m: tl.tensor, stride_h: tl.tensor,
                   D: tl.constexpr, BLOCK: tl.constexpr) -> None:
    block, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    rows, columns = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, D)
    inside = (rows < m)[:, None]
    source = k + (head // h) * stride_b + (head % h) * stride_h
    source += rows.to(tl.int64)[:, None] * stride_m + columns[None, :]
    x = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    x = tl.where(inside, x - tl.load(mean + head * D + columns)[None, :], 0.0)
    by = tl.maximum(tl.max(tl.max(tl.abs(x), 1), 0), TINY) / INT8_MAX
    count = tl.num_programs(0)
    target = k8 + (head * count * BLOCK + rows)[:, None] * D + columns[None, :]
    tl.store(target, _to_int8(x / by))
    tl.store(scale + head * count + block, by)


@triton.jit
def _quantise_values(v: tl.tensor, scale: tl.tensor, v8: tl.tensor, h: tl.tensor, m: tl.tensor,
                     stride_b: tl.tensor, stride_m: tl.tensor, stride_h: tl.tensor,
                     D: tl.constexpr, BLOCK: tl.constexpr) -> None:
    block, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    rows, columns = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, D)
    source = v + (head // h) * stride_b + (head % h) * stride_h
    source += rows.to(tl.int64)[:, None] * stride_m + columns[None, :]
    x = tl.load(source, mask=(rows < m)[:, None], other=0.0).to(tl.float32)
    x = x / tl.load(scale + head * D + columns)[None, :]
    width = tl.num_programs(0) * BLOCK
    target = v8 + (head * D + columns)[:, None] * width + rows[None, :]
    tl.store(target, tl.trans(x.to(tl.float8e4nv)))


@triton.jit
def _attend_block(q8: tl.tensor, q_scale: tl.tensor, k8: tl.tensor, by: tl.tensor, v: tl.tensor,
                  v_mask: tl.tensor, inside: tl.tensor, largest: tl.tensor, total: tl.tensor,
                  acc: tl.tensor, MASKED: tl.constexpr,
                  IN_FP8: tl.constexpr) -> 'Tuple[tl.tensor, tl.tensor, tl.tensor]':
    """Take one block of keys into the running softmax."""
    products = tl.dot(q8, tl.load(k8)).to(tl.float32)
    if MASKED:
        products = tl.where(inside[None, :], products, float('-inf'))
    scale = q_scale * by
    new = tl.maximum(largest, tl.max(products, 1) * scale)  # of a row, so scaling can wait
    faded = tl.exp2(largest - new)
    top = new
    if IN_FP8:
        top = new - WEIGHT_BITS
    weights = tl.exp2(tl.fma(products, scale[:, None], -top[:, None]))
    total = total * faded + tl.sum(weights, 1)
    if MASKED:
        values = tl.load(v, mask=v_mask, other=0.0)
    else:
        values = tl.load(v)
    if IN_FP8:  # the tensor cores sum fp8 products with few bits; each block's sum goes to fp32
        acc = tl.fma(acc, faded[:, None], tl.dot(weights.to(tl.float8e4nv), values))
    else:
        acc = tl.dot(weights.to(values.dtype), values, acc * faded[:, None])
    return new, total, acc


@triton.jit
def _attend(q: tl.tensor, k8: tl.tensor, k_scale: tl.tensor, v: tl.tensor, v_scale: tl.tensor,
            out: tl.tensor, h: tl.tensor, n: tl.tensor, m: tl.tensor, score_scale: tl.tensor,
            stride_qb: tl.tensor, stride_qn: tl.tensor, stride_qh: tl.tensor, stride_vb: tl.tensor,
            stride_vm: tl.tensor, stride_vh: tl.tensor, stride_vd: tl.tensor, D: tl.constexpr,
            IN_FP8: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr) -> None:
    head = tl.program_id(1).to(tl.int64)
    batch, in_batch = head // h, head % h
    rows, columns = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q), tl.arange(0, D)
    keys = tl.arange(0, BLOCK_K)
    blocks = tl.cdiv(m, BLOCK_K)
    q += batch * stride_qb + in_batch * stride_qh
    q += rows.to(tl.int64)[:, None] * stride_qn + columns[None, :]
    x = tl.load(q, mask=(rows < n)[:, None], other=0.0).to(tl.float32) * score_scale
    q_scale = tl.maximum(tl.max(tl.abs(x), 1), TINY) / INT8_MAX
    q8 = _to_int8(x / q_scale[:, None])

    k8 += head * blocks * BLOCK_K * D + columns[:, None] + keys[None, :] * D  # d m: transposed
    v += batch * stride_vb + in_batch * stride_vh
    v += keys.to(tl.int64)[:, None] * stride_vm + columns[None, :] * stride_vd
    k_scale += head * blocks
    largest = tl.full([BLOCK_Q], float('-inf'), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, D], tl.float32)
    whole = m // BLOCK_K
    for block in range(0, whole):
        largest, total, acc = _attend_block(
            q8, q_scale, k8, tl.load(k_scale + block), v, None, None, largest, total, acc, False,
            IN_FP8)
        k8 += BLOCK_K * D
        v += BLOCK_K * stride_vm
    if whole < blocks:
        inside = whole * BLOCK_K + keys < m
        largest, total, acc = _attend_block(
            q8, q_scale, k8, tl.load(k_scale + whole), v, inside[:, None], inside, largest, total,
            acc, True, IN_FP8)
    acc = acc / total[:, None]
    if IN_FP8:
        acc = acc * tl.load(v_scale + head * D + columns)[None, :]
    out += ((batch * n + rows) * h + in_batch)[:, None] * D + columns[None, :]
    tl.store(out, acc.to(out.dtype.element_ty), mask=(rows < n)[:, None])


def quantised_rows(x: Tensor) -> Tuple[Tensor, Tensor]:
    """Return x (..., d) in FP8 and the scale of each row, (..., 1) float32."""
    x = x.contiguous()
    d = x.shape[-1]
    out = torch.empty(x.shape, dtype=FP8, device=x.device)
    scale = torch.empty(*x.shape[:-1], 1, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(d)
    _quantise_rows[(x.numel() // d,)](x, out, scale, d, BLOCK=block, num_warps=_warps(block))
    return out, scale


def _warps(block: int) -> int:
    return min(max(block // 512, 1), 8)


@triton.jit
def _quantise_rows(x: tl.tensor, out: tl.tensor, scale: tl.tensor, d: tl.tensor,
                   BLOCK: tl.constexpr) -> None:
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    y = tl.load(x + row * d + columns, mask=columns < d, other=0.0).to(tl.float32)
    by = tl.maximum(tl.max(tl.abs(y), 0), TINY) / FP8_MAX
    tl.store(out + row * d + columns, (y / by).to(tl.float8e4nv), mask=columns < d)
    tl.store(scale + row, by)
