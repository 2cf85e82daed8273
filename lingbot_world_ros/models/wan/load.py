# SPDX-License-Identifier: Apache-2.0
"""
How a network gets its weights from a checkpoint.

``load_dit`` reads tensor by tensor, straight to the device, and quantises as they come.
"""
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple, Union

from lingbot_world_ros.errors import unknown_name
from lingbot_world_ros.models.wan.checkpoint import checked_expert, Checkpoint, Expert
from lingbot_world_ros.models.wan.device import torch_device
from lingbot_world_ros.models.wan.dit import WanDiT
from lingbot_world_ros.models.wan.fp8 import check_device, fp8_layers, quantise_layer
from lingbot_world_ros.models.wan.memory import check_room, dit_bytes, PRECISIONS
from lingbot_world_ros.models.wan.nf4 import (dequantised, is_quantised, quantised_parameter,
                                              replace_linears)
from lingbot_world_ros.models.wan.tensor_files import open_tensors, PickleFile, SafetensorsFile
from lingbot_world_ros.models.wan.tensor_names import Stored
import torch
from torch import nn


def load_dit(checkpoint: Checkpoint, expert: str = '', device: str = 'cpu',
             precision: str = 'bf16',
             on_progress: Optional[Callable[[int, int], None]] = None) -> WanDiT:
    """
    Make the network and read its weights, tensor by tensor.

    All weights are in the dtype asked for, norms and modulations too (the network computes with
    them in float32); with nf4 and fp8 linear layers are quantised as they come, so that the
    network is never there in bfloat16 as a whole, and all else is bfloat16.

    :param checkpoint: from ``open_checkpoint``
    :param expert: high_noise, low_noise or causal; '' takes the only one
    :param device: 'cpu', 'cuda', 'cuda:1' or 'auto'
    :param precision: fp32, bf16, fp8 or nf4
    :param on_progress: called with bytes read and bytes in all
    :return: the network, ready for inference
    :raises SpecError: files, sizes, memory or device do not allow it; nothing was loaded
    """
    if precision not in PRECISIONS:
        raise unknown_name('precision', precision, PRECISIONS)
    source = checked_expert(checkpoint, expert)
    target = torch_device(device)
    largest = max(stored.info.num_bytes for stored in source.tensors.values())
    check_room(dit_bytes(source.spec, precision) + largest, target,
               f'{source.name} in {precision}')
    with torch.device('meta'):
        dit = WanDiT(source.spec)
        if precision == 'nf4':
            replace_linears(dit)
    dtype = torch.float32 if precision == 'fp32' else torch.bfloat16
    in_8_bits: Set[str] = set()
    if precision == 'fp8':
        check_device(target)
        in_8_bits = set(fp8_layers(dit))
    with torch.no_grad():
        for name, read in stream_tensors(source, on_progress):
            _assign(dit, name, read, target, dtype)
            layer = name.rpartition('.')[0]
            if layer in in_8_bits and _is_whole(dit.get_submodule(layer)):
                quantise_layer(dit, layer)
    return dit.eval().requires_grad_(False)


def stream_tensors(expert: Expert, on_progress: Optional[Callable[[int, int], None]] = None
                   ) -> Iterator[Tuple[str, Union[torch.Tensor, Dict[str, torch.Tensor]]]]:
    """
    Read an expert's tensors one after another, in the order of its files.

    :param expert: complete
    :param on_progress: called with bytes read and bytes in all
    :return: generator of public name and either a tensor, or the parts of a quantised weight by
        name ('' is the packed weight); both on the host, to be used before the next one
    """
    by_file: Dict[Path, List[Tuple[str, Stored]]] = {}
    done = 0
    for name, stored in expert.tensors.items():
        by_file.setdefault(stored.file, []).append((name, stored))
    for path, entries in by_file.items():
        with open_tensors(path) as file:
            place = {name: i for i, name in enumerate(file.infos)}
            for name, stored in sorted(entries, key=lambda entry: place[entry[1].name]):
                if name in expert.quantised:
                    parts = {'': stored, **expert.quantised[name]}
                    yield name, {part: _read(where, path, file) for part, where in parts.items()}
                else:
                    yield name, file.borrow(stored.name)
                done += stored.info.num_bytes
                if on_progress:
                    on_progress(min(done, expert.num_bytes), expert.num_bytes)


def _read(where: Stored, path: Path, file: Union[SafetensorsFile, PickleFile]) -> torch.Tensor:
    """Parts of a weight may lie in another shard than the weight."""
    if where.file == path:
        return file.get(where.name)
    with open_tensors(where.file) as other:
        return other.get(where.name)


def _is_whole(module: nn.Module) -> bool:
    """Say whether weight and bias are there."""
    return not any(parameter.is_meta for parameter in module.parameters())


def _assign(dit: WanDiT, name: str, read: Union[torch.Tensor, Dict[str, torch.Tensor]],
            device: torch.device, dtype: torch.dtype) -> None:
    """Put a tensor in its place in the network, in its final form."""
    path, leaf = name.rpartition('.')[::2]
    module = dit.get_submodule(path)
    if leaf == 'weight' and is_quantised(module):
        module.weight = quantised_parameter(read, module, device)
        return
    if isinstance(read, dict):
        read = dequantised(read, getattr(module, leaf).shape)
    # converted on the host: half as much goes over the bus; never the borrowed memory itself
    tensor = read.to(device, copy=True) if read.dtype == dtype else read.to(dtype).to(device)
    setattr(module, leaf, nn.Parameter(tensor, requires_grad=False))
