# SPDX-License-Identifier: Apache-2.0
"""
Linear layers in FP8 (e4m3): half the memory, and twice the arithmetic rate where a GPU has it.

Weights have one scale per output, activations one per row, computed on the fly. A GPU multiplies
the FP8 numbers; elsewhere, for tests, the same rounded numbers are multiplied in float32.

Which layers: those in the blocks that run in every pass. Kept as they are by default are the
embeddings of text and time and the head (LongLive keeps these six too; they are hardly any of the
arithmetic, and time and head are computed in float32), and the camera adapters: they run once per
chunk, so there is little to gain, and their result multiplies the residual stream itself with no
gate between, so there is most to lose. Quality was the concern elsewhere too
(vLLM-Omni, pull request 7549: FP8 failed its gate until layers could be excluded), hence ``skip``.
"""
from fnmatch import fnmatchcase
from typing import Callable, List, NamedTuple, Optional, Sequence

from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.models.wan.device import Device
from lingbot_world_ros.models.wan.kernels import FP8, quantised_rows
import torch
from torch import nn, Tensor
from torch.nn import functional as F

CAPABILITY = (8, 9)  # Ada Lovelace and newer have FP8 tensor cores
MULTIPLE = 16  # both sizes of a weight, for the tensor cores
SKIP = ('text_embedding.*', 'time_embedding.*', 'time_projection.*', 'head.*',
        'patch_embedding_wancamctrl', 'c2ws_hidden_states_*', '*.cam_*')


class FP8Linear(nn.Module):
    """
    A linear layer whose weights are FP8.

    ``weight`` (out, in) e4m3 and ``weight_scale`` (1, out) float32; their product is about the
    original. Results are in the dtype of what comes in.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Optional[Tensor]

    def __init__(self, in_features: int, out_features: int, bias: bool = True,
                 device: Optional[Device] = None, dtype: torch.dtype = torch.bfloat16) -> None:
        """
        Make an empty layer; ``from_linear`` or a state dict fills it.

        :param in_features: multiple of 16
        :param out_features: multiple of 16
        :param bias: whether there is one
        :param device: where it is
        :param dtype: of the bias
        """
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer('weight', torch.zeros(out_features, in_features, dtype=FP8,
                                                   device=device))
        self.register_buffer('weight_scale', torch.ones(1, out_features, device=device))
        self.register_buffer('bias', torch.zeros(out_features, dtype=dtype, device=device)
                             if bias else None)

    @classmethod
    @torch.no_grad()
    def from_linear(cls, linear: nn.Linear) -> 'FP8Linear':
        """
        Quantise the weights of a layer.

        :param linear: in any floating dtype, on any device
        :return: the layer on the same device; the bias keeps its dtype
        """
        made = cls(linear.in_features, linear.out_features, linear.bias is not None,
                   linear.weight.device, linear.weight.dtype)
        weight, scale = quantised_rows(linear.weight)
        made.weight.copy_(weight)
        made.weight_scale.copy_(scale.T)
        if made.bias is not None:
            made.bias.copy_(linear.bias)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Return x (..., in) times the weights plus bias, (..., out) in x's dtype."""
        x8, scale = quantised_rows(x.flatten(0, -2))
        if x.is_cuda:
            y = self._multiplied(x8, scale, x.dtype)
        else:
            weight = self.weight.float() * self.weight_scale.T
            bias = None if self.bias is None else self.bias.float()
            y = F.linear(x8.float() * scale, weight, bias).to(x.dtype)
        return y.unflatten(0, x.shape[:-1])

    def _multiplied(self, x8: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """Multiply on the tensor cores; they add a bias in bfloat16 and give bfloat16."""
        bias = None if self.bias is None else self.bias.bfloat16()
        return torch._scaled_mm(x8, self.weight.T, scale, self.weight_scale, bias,
                                out_dtype=torch.bfloat16, use_fast_accum=True).to(dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'FP8Linear':
        """Move like any module, but never change the dtype of weights and scales."""
        kept = {name: getattr(self, name) for name in ('weight', 'weight_scale')}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            after = getattr(self, name)
            if after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        return self

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return f'in_features={self.in_features}, out_features={self.out_features}'


def _linear(module: nn.Module, name: str) -> nn.Linear:
    linear = module.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear


class FP8Report(NamedTuple):
    """What was quantised: layers, layers left, bytes of their parameters before and after."""

    num_layers: int
    num_kept: int
    bytes_before: int
    bytes_after: int


def quantise_fp8(module: nn.Module, skip: Optional[Sequence[str]] = None) -> FP8Report:
    """
    Replace the linear layers of a network in place, one after the other.

    :param module: for example a ``WanDiT``; on a GPU, or a CPU for tests
    :param skip: names of layers to leave alone, with wildcards; None for ``SKIP``
    :return: what was done
    :raises SpecError: if the GPU cannot multiply FP8, or a pattern matches no layer
    """
    check_device(next(module.parameters()).device)
    chosen, before = fp8_layers(module, skip), num_bytes(module)
    for name in chosen:  # each original is freed before the next one is quantised
        quantise_layer(module, name)
    return FP8Report(len(chosen), len(_linears(module)), before, num_bytes(module))


def fp8_layers(module: nn.Module, skip: Optional[Sequence[str]] = None) -> List[str]:
    """
    Choose the layers that are quantised.

    :param module: on any device, the meta device too
    :param skip: as ``quantise_fp8`` takes it
    :return: their names
    :raises SpecError: a pattern matches no layer
    """
    return [name for name in _without(_linears(module), SKIP if skip is None else skip,
                                      skip is not None) if _fits(_linear(module, name))]


def quantise_layer(module: nn.Module, name: str) -> None:
    """Put an ``FP8Linear`` in the place of one linear layer."""
    parent, _, leaf = name.rpartition('.')
    made = FP8Linear.from_linear(_linear(module, name))
    setattr(module.get_submodule(parent), leaf, made)


def check_device(device: torch.device) -> None:
    """
    Refuse a GPU that cannot multiply FP8.

    :param device: where the layers will run; a CPU computes the same, slowly
    :raises SpecError: names its compute capability
    """
    if device.type == 'cuda' and torch.cuda.get_device_capability(device) < CAPABILITY:
        major, minor = torch.cuda.get_device_capability(device)
        raise SpecError(f"precision='fp8' needs compute capability {CAPABILITY[0]}.{CAPABILITY[1]}"
                        f' or higher; {torch.cuda.get_device_name(device)} has {major}.{minor}. '
                        "Use precision='bf16', or 'nf4' to save memory.")


def num_bytes(module: nn.Module) -> int:
    """Return the size of all parameters and buffers."""
    return sum(x.numel() * x.element_size() for x in [*module.parameters(), *module.buffers()])


def _linears(module: nn.Module) -> List[str]:
    return [name for name, part in module.named_modules() if type(part) is nn.Linear]


def _without(layers: List[str], skip: Sequence[str], check: bool) -> List[str]:
    for pattern in skip if check else ():
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise unknown_name('layer to be left as it is', pattern, layers)
    return [name for name in layers if not any(fnmatchcase(name, pattern) for pattern in skip)]


def _fits(linear: nn.Linear) -> bool:
    return not linear.in_features % MULTIPLE and not linear.out_features % MULTIPLE
