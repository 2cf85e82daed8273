# SPDX-License-Identifier: Apache-2.0
"""
Dense attention behind one function, with the back ends that a machine offers.

Axes: b batch, n queries, m keys, h heads, d head dimensions. Keys and values may be strided views,
as slices of a cache are. Nothing here waits for the device, and all of it can be compiled.
"""
from functools import lru_cache
import importlib
from typing import Any, Callable, Dict, Iterable, NamedTuple

from lingbot_world_ros.errors import shown, SpecError, unknown_name
from lingbot_world_ros.models.wan.device import Device
from lingbot_world_ros.models.wan.kernels import attend_8bit, FP8, why_no_triton
import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel, SDPBackend
from torch.nn.functional import scaled_dot_product_attention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
ORDER = {'cuda': ('flash_attn_3', 'cudnn', 'flash', 'sdpa')}  # elsewhere PLAIN
PLAIN = ('sdpa',)
FLASH_ATTN = {'flash_attn_3': 'flash_attn_interface', 'flash_attn_2': 'flash_attn'}
LOADED: Dict[str, Any] = {}  # functions of FLASH_ATTN's modules, which are heavy and mostly absent
PROBE_HEAD_DIM, PROBE_TOKENS = 128, 128


class AttentionBackend(NamedTuple):
    """What computes attention: ``call(q, k, v)``, its name, and why it was chosen."""

    name: str
    call: Attend
    reason: str


def attend(q: Tensor, k: Tensor, v: Tensor, backend: str = 'auto') -> Tensor:
    """
    Attend with every query to every key; the softmax has scale 1 / sqrt(d).

    :param q: (b, n, h, d)
    :param k: (b, m, h, d)
    :param v: (b, m, h, d)
    :param backend: a name of ``BACKENDS``, or ``'auto'`` for the best one here
    :return: (b, n, h, d) in q's dtype
    :raises SpecError: if the back end is unknown or cannot be used here
    """
    return CALLS[_name(backend, str(q.device), q.dtype, q.shape[-1])](q, k, v)


def resolve(name: str, device: Device = 'cpu', dtype: torch.dtype = torch.bfloat16,
            head_dim: int = PROBE_HEAD_DIM) -> AttentionBackend:
    """
    Choose a back end and try it once on a few tokens.

    :param name: a name of ``BACKENDS``; ``'auto'`` takes the first of ``ORDER`` that works
    :param device: where the tensors will be
    :param dtype: of the tensors
    :param head_dim: d of the tensors
    :return: the back end, with one sentence of reason
    :raises SpecError: if it is unknown, or cannot be used here; says what to do
    """
    return _resolve(name, str(device), dtype, head_dim)


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)  # b h n d -> b n h d


def _only(backend: SDPBackend) -> Attend:
    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return _sdpa(q, k, v)
    return call


def _flash_attn(name: str) -> Attend:
    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = LOADED[name](q, k, v)
        return out[0] if isinstance(out, tuple) else out  # some versions add the normaliser
    return call


def _int8(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend_8bit(q, k, v)


def _fp8(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend_8bit(q, k, v, value_dtype=FP8)


CALLS = {
    'sdpa': _sdpa, 'cudnn': _only(SDPBackend.CUDNN_ATTENTION),
    'flash': _only(SDPBackend.FLASH_ATTENTION), 'efficient': _only(SDPBackend.EFFICIENT_ATTENTION),
    'math': _only(SDPBackend.MATH), 'flash_attn_3': _flash_attn('flash_attn_3'),
    'flash_attn_2': _flash_attn('flash_attn_2'), 'int8': _int8, 'fp8': _fp8}
BACKENDS = ('auto', 'flash_attn', *CALLS)
WHAT = {
    'sdpa': "PyTorch's own choice", 'cudnn': 'cuDNN through PyTorch',
    'flash': "PyTorch's flash attention", 'efficient': "PyTorch's memory-efficient attention",
    'math': "PyTorch's plain products, for comparison", 'flash_attn_3': 'FlashAttention 3',
    'flash_attn_2': 'FlashAttention 2', 'int8': 'own kernel: int8 scores, values in 16 bit',
    'fp8': 'own kernel: int8 scores, values in fp8 (e4m3)'}
INSTALL = {
    'flash_attn_3': "install it from FlashAttention's folder hopper/",
    'flash_attn_2': 'run pip install flash-attn --no-build-isolation'}


@lru_cache(maxsize=None)
def _resolve(name: str, device: str, dtype: torch.dtype, head_dim: int) -> AttentionBackend:
    where = torch.device(device)
    if name == 'auto':
        return _first(ORDER.get(where.type, PLAIN), where, dtype, head_dim)
    if name == 'flash_attn':
        return _first(FLASH_ATTN, where, dtype, head_dim)
    if name not in CALLS:
        raise unknown_name('attention', name, BACKENDS)
    problem = _problem(name, where, dtype, head_dim)
    if problem:
        raise SpecError(problem)
    return AttentionBackend(name, CALLS[name], f'{WHAT[name]}, as asked for.')


def _first(names: Iterable[str], device: torch.device, dtype: torch.dtype,
           head_dim: int) -> AttentionBackend:
    problems = {}
    for name in names:
        problems[name] = _problem(name, device, dtype, head_dim)
        if not problems[name]:
            passed = ', '.join(list(problems)[:-1])
            return AttentionBackend(name, CALLS[name], f'{WHAT[name]}, the first that works of '
                                    f'{", ".join(names)}' + (f' (not: {passed}).' if passed
                                                             else '.'))
    raise SpecError(' '.join(problems.values()))


@lru_cache(maxsize=None)
def _problem(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Return why a back end cannot be used, '' if it can."""
    missing = _missing(name, device)
    if missing:
        return f"attention={name!r} cannot be used: {missing}, or use attention='auto'."
    failure = _failure(name, device, dtype, head_dim)
    if failure:
        return (f'attention={name!r} does not work on {_told(device)} with {dtype} and heads of '
                f"{head_dim} ({failure}); use attention='auto'.")
    return ''


def _missing(name: str, device: torch.device) -> str:
    """Return what has to be installed first, '' for nothing."""
    if name in FLASH_ATTN:
        try:
            LOADED[name] = importlib.import_module(FLASH_ATTN[name]).flash_attn_func
        except (ImportError, AttributeError) as error:  # absent, or built for another torch
            return f'{WHAT[name]} cannot be imported ({shown(error, 120)}); {INSTALL[name]}'
    if name in ('int8', 'fp8') and device.type == 'cuda':
        return why_no_triton()
    return ''


def _failure(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Try a few tokens; return the first line of what went wrong, '' if nothing did."""
    try:
        x = torch.ones(1, PROBE_TOKENS, 1, head_dim, dtype=dtype, device=device)
        with torch.no_grad():
            CALLS[name](x, x, x)
    except Exception as error:  # what a back end raises is its own matter
        return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    return ''


def _told(device: torch.device) -> str:
    if device.type != 'cuda':
        return f'the {device.type.upper()}'
    major, minor = torch.cuda.get_device_capability(device)
    return f'{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})'


def _name(name: str, device: str, dtype: torch.dtype, head_dim: int) -> str:
    """Return the resolved name; when compiling, it becomes a constant of the graph."""
    return _resolve(name, device, dtype, head_dim).name


# As torch.compiler.assume_constant_result does, which takes a second to import the compiler.
setattr(_name, '_dynamo_marked_constant', True)
