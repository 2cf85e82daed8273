# SPDX-License-Identifier: Apache-2.0
"""
Linear layers in 4 bits (NF4, double quantisation), as bitsandbytes stores them.

Weights are quantised one at a time while they are loaded, or come quantised already in the
layout that bitsandbytes writes and the community shares: ``X.weight`` packed two to a byte, its
scales in ``X.weight.absmax`` and so on. Everything but linear weights stays bfloat16.
"""
from functools import lru_cache
import logging
import math
from typing import Any, Dict, Sequence, Tuple, TYPE_CHECKING, Union

from lingbot_world_ros.errors import SpecError

if TYPE_CHECKING:
    import torch
    from torch import nn, Tensor

BLOCK_SIZE, NESTED_BLOCK_SIZE = 64, 256
CPU_SLICE = 2 ** 16  # small: larger temporaries leave holes in memory
STATE = 'quant_state.bitsandbytes__nf4'
PARTS = ('absmax', 'quant_map', 'nested_absmax', 'nested_quant_map', STATE)


@lru_cache(maxsize=None)
def linear_class() -> Any:
    """
    Return the class of quantised layers.

    :return: bitsandbytes' ``Linear4bit``, with a path of its own on a CPU: there bitsandbytes
        repacks weights in place and rounds their scales, depending on the processor
    """
    from torch.nn import functional
    bnb = _bitsandbytes()
    base: Any = bnb.nn.Linear4bit

    class NF4Linear(base):
        """A linear layer whose weights are unpacked when they are used."""

        def forward(self, x: 'Tensor') -> 'Tensor':
            if x.device.type != 'cpu':
                return super().forward(x)
            weight = bnb.functional.dequantize_4bit(self.weight.data, self.weight.quant_state)
            bias = None if self.bias is None else self.bias.to(self.compute_dtype)
            out = functional.linear(x.to(self.compute_dtype), weight.to(self.compute_dtype), bias)
            return out.to(x.dtype)

    return NF4Linear


def is_quantised(module: object) -> bool:
    """Say whether a layer is one of ours, without importing bitsandbytes."""
    return type(module).__name__ == 'NF4Linear'


def replace_linears(network: 'nn.Module') -> int:
    """
    Put a quantised layer, still without weights, in place of every linear one.

    :param network: on the meta device; changed in place
    :return: how many there are
    """
    import torch
    from torch import nn
    kind, count = linear_class(), 0
    for name, module in list(network.named_modules()):
        if type(module) is nn.Linear:
            path, leaf = name.rpartition('.')[::2]
            setattr(network.get_submodule(path), leaf, kind(
                module.in_features, module.out_features, module.bias is not None,
                compute_dtype=torch.bfloat16, quant_type='nf4', device='meta'))
            count += 1
    return count


def quantised_parameter(read: Union['Tensor', Dict[str, 'Tensor']], module: Any,
                        device: 'torch.device') -> Any:
    """
    Make a layer's weight from what a file holds.

    :param read: the weight, or the parts of a quantised one by name ('' is the packed weight)
    :param module: the layer it is for
    :param device: where it shall be
    :return: bitsandbytes' ``Params4bit``, quantised, on the device
    """
    if isinstance(read, dict):
        packed = read[''].to(device)
        state = _state(read, (module.out_features, module.in_features), device)
    else:
        packed, state = quantise(read, device)
    return _bitsandbytes().nn.Params4bit(
        packed, quant_state=state, blocksize=state.blocksize, quant_type=state.quant_type,
        compress_statistics=state.nested, quant_storage=packed.dtype, module=module,
        bnb_quantized=True)


def dequantised(read: Dict[str, 'Tensor'], shape: Sequence[int]) -> 'Tensor':
    """
    Unpack a quantised weight.

    :param read: its parts by name ('' is the packed weight)
    :param shape: (out, in) that it should have
    :return: (out, in) in the dtype that it was quantised from, on the same device
    """
    state = _state(read, shape, read[''].device)
    return _bitsandbytes().functional.dequantize_4bit(read[''], state)


def quantise(weight: 'Tensor', device: 'torch.device') -> Tuple['Tensor', Any]:
    """
    Quantise a weight from bfloat16, whatever it is in, so that every way gives the same bits.

    :param weight: (out, in), on the host
    :param device: torch device on which to do it
    :return: two weights to a byte, and bitsandbytes' ``QuantState``
    """
    import torch
    functional = _bitsandbytes().functional
    if device.type != 'cpu':
        weight = weight.to(torch.bfloat16).to(device)
        return functional.quantize_4bit(weight, blocksize=BLOCK_SIZE, compress_statistics=True,
                                        quant_type='nf4', quant_storage=torch.uint8)
    # bitsandbytes takes ten times the weight's memory on a CPU: hand it slices of whole blocks,
    # then quantise the scales of all of them together, as it would
    count = weight.numel()
    packed = torch.empty((count + 1) // 2, 1, dtype=torch.uint8)
    scales = torch.empty(-(-count // BLOCK_SIZE))
    for i, part in enumerate(weight.flatten().split(CPU_SLICE)):
        some, state = functional.quantize_4bit(
            part.to(torch.bfloat16), blocksize=BLOCK_SIZE, compress_statistics=False,
            quant_type='nf4', quant_storage=torch.uint8)
        packed[i * CPU_SLICE // 2:][:len(some)] = some
        scales[i * CPU_SLICE // BLOCK_SIZE:][:len(state.absmax)] = state.absmax
    offset = scales.mean()
    packed_scales, nested = functional.quantize_blockwise(scales - offset,
                                                          blocksize=NESTED_BLOCK_SIZE)
    state = functional.QuantState(
        absmax=packed_scales, shape=weight.shape, code=state.code, blocksize=BLOCK_SIZE,
        quant_type='nf4', dtype=torch.bfloat16, offset=offset, state2=nested)
    return packed, state


def _state(read: Dict[str, 'Tensor'], shape: Sequence[int], device: 'torch.device') -> Any:
    """Make bitsandbytes' description of a weight, whose parts must fit one another."""
    parts = {name: part for name, part in read.items() if name}
    nested = {'nested_absmax', 'nested_quant_map'}
    wanted = {'absmax', 'quant_map'} | (nested if nested & set(parts) else set())
    missing = sorted(wanted - set(parts))
    if missing or not any(name.startswith('quant_state.') for name in parts):
        raise _damaged(f'it lacks {missing[0] if missing else STATE}')
    try:
        state = _bitsandbytes().functional.QuantState.from_dict(parts, device=device)
        count = math.prod(state.shape)
        blocks = -(-count // state.blocksize)
        fits = (read[''].nbytes == (count + 1) // 2 and state.absmax.numel() == blocks
                and state.code.numel() == 16 and state.dtype.is_floating_point)
        if state.nested:
            fits &= (state.state2.absmax.numel() == -(-blocks // state.state2.blocksize)
                     and state.state2.code.numel() == 256)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RuntimeError,
            ZeroDivisionError) as error:
        raise _damaged(f'{type(error).__name__} in what describes it') from None
    if tuple(state.shape) != tuple(shape):
        raise _damaged(f'its shape is {tuple(state.shape)}, not {tuple(shape)}')
    if not fits:
        raise _damaged('its parts have sizes that do not fit')
    return state


def _damaged(what: str) -> SpecError:
    return SpecError(f'a quantised weight cannot be used: {what}; download the file again.')


def _bitsandbytes() -> Any:
    # on some CPUs it advises to install a package for a path that is not used here
    logging.getLogger('bitsandbytes.backends.cpu.ops').setLevel(logging.ERROR)
    try:
        import bitsandbytes
    except ImportError as error:
        raise SpecError(f'precision nf4 needs bitsandbytes ({error}): pip install '
                        'bitsandbytes.') from None
    return bitsandbytes
