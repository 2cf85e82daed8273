# SPDX-License-Identifier: Apache-2.0
"""
Attention shared by several processes: tokens to heads and back.

Outside attention every process works on its part of the tokens, within self-attention on its part
of the heads; two exchanges per block lead from one to the other. The cache of a process holds its
heads only. Attention to the text needs no exchange: all text is everywhere.

Axes: b batch, n tokens, s tokens of one process, h heads, d width (of a head, behind h).

Source: DeepSpeed Ulysses, arXiv 2309.14509.
"""
from typing import Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.wan.device import Device
import torch
from torch import distributed, Tensor


class Ulysses:
    """
    Tokens to heads and back, for ``WanDiT.parallel``.

    Numbers of tokens that cannot be divided are filled up with zeros, which attention never sees.
    """

    def __init__(self, num_heads: int, rank: int, size: int) -> None:
        """
        Name a process's part; the default process group is used when it comes to exchanges.

        :param num_heads: of the network
        :param rank: of this process, 0 to ``size`` - 1
        :param size: number of processes
        :raises SpecError: the heads cannot be divided among so many
        """
        check_num_gpus(size, num_heads)
        self.rank, self.size = rank, size
        self._num_tokens = 0  # of the newest tensor that was shared out

    def shard(self, x: Tensor) -> Tensor:
        """
        Take this process's part.

        :param x: (b, n, ...), the same everywhere
        :return: (b, s, ...), s = n / size rounded up
        """
        self._num_tokens = x.shape[1]
        share = self._share(x.shape[1])
        return _filled(x[:, self.rank * share:(self.rank + 1) * share], share)

    def gather(self, x: Tensor) -> Tensor:
        """
        Put the parts of all processes together.

        :param x: (b, s, d)
        :return: (b, n, d), the same everywhere
        """
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format)
                 for _ in range(self.size)]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts, 1)[:, :self._num_tokens]

    def to_heads(self, q: Tensor, k: Tensor, v: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """
        Exchange some tokens with all heads for all tokens with some heads, in one go.

        :param q: (b, s, h, d)
        :param k: (b, s, h, d)
        :param v: (b, s, h, d)
        :return: the three as (b, n, h / size, d)
        """
        sent = torch.stack([x.unflatten(2, (self.size, -1)).movedim(2, 0) for x in (q, k, v)], 1)
        received = _exchange(sent)  # size 3 b s h/size d
        joined = received.movedim(0, 2).flatten(2, 3)
        q, k, v = joined[:, :, :self._num_tokens].unbind(0)
        return q, k, v

    def to_tokens(self, out: Tensor) -> Tensor:
        """
        Exchange all tokens with some heads for some tokens with all heads.

        :param out: (b, n, h / size, d)
        :return: (b, s, h, d)
        """
        share = self._share(out.shape[1])
        filled = _filled(out, share * self.size)
        sent = filled.unflatten(1, (self.size, share)).movedim(1, 0)
        received = _exchange(sent.contiguous())  # size b s h/size d
        return received.movedim(0, 2).flatten(2, 3)

    def from_first(self, x: Tensor) -> Tensor:
        """Return the tensor of rank 0, written over the one that is given."""
        distributed.broadcast(x, 0)
        return x

    def _share(self, num_tokens: int) -> int:
        return -(-num_tokens // self.size)


def check_num_gpus(num_gpus: int, num_heads: int) -> None:
    """
    Refuse what the heads of a network cannot be divided among.

    :param num_gpus: at least 1
    :param num_heads: of the network
    :raises SpecError: names what works
    """
    if num_gpus < 1 or num_heads % num_gpus:
        fitting = ', '.join(str(n) for n in range(1, num_heads + 1) if num_heads % n == 0)
        raise SpecError(f'num_gpus={num_gpus} does not divide the {num_heads} attention heads of '
                        f'this network; use one of {fitting}.')


def devices_for(num_gpus: int, device: Device, num_heads: int) -> Tuple[str, ...]:
    """
    Choose a device for each process.

    :param num_gpus: how many processes
    :param device: of the first one; the others take the next GPUs
    :param num_heads: of the network
    :return: names of devices, by rank
    :raises SpecError: there are not so many, or the heads cannot be divided among them
    """
    check_num_gpus(num_gpus, num_heads)
    device = torch.device(device)
    if device.type != 'cuda':
        return (str(device),) * num_gpus
    first, count = device.index or 0, torch.cuda.device_count()
    if first + num_gpus > count:
        raise SpecError(f'num_gpus={num_gpus} from cuda:{first} on, but there are {count} GPUs; '
                        'use fewer, or make more visible (CUDA_VISIBLE_DEVICES).')
    return tuple(f'cuda:{index}' for index in range(first, first + num_gpus))


def _exchange(sent: Tensor) -> Tensor:
    """Send part i of the first axis to rank i and return what all ranks sent here."""
    received = torch.empty_like(sent)
    distributed.all_to_all_single(received, sent)
    return received


def _filled(x: Tensor, num_tokens: int) -> Tensor:
    """Add zeros behind (b, n, ...) up to a number of tokens."""
    missing = num_tokens - x.shape[1]
    if not missing:
        return x
    return torch.cat([x, x.new_zeros(x.shape[0], missing, *x.shape[2:])], 1)
