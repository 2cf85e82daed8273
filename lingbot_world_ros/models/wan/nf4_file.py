# SPDX-License-Identifier: Apache-2.0
"""Writes a copy of a network whose linear weights are in NF4, tensor by tensor."""
import json
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Set

from lingbot_world_ros.errors import shown, SpecError
from lingbot_world_ros.models.wan.checkpoint import checked_expert, Checkpoint, Expert
from lingbot_world_ros.models.wan.device import torch_device
from lingbot_world_ros.models.wan.load import stream_tensors
from lingbot_world_ros.models.wan.memory import linear_names
from lingbot_world_ros.models.wan.nf4 import PARTS, quantise
from lingbot_world_ros.models.wan.releases_and_licences import CAUSAL, HIGH, LOW
from lingbot_world_ros.models.wan.spec import DiTSpec
from lingbot_world_ros.models.wan.tensor_files import safetensors_writer
import torch

FILE = 'model.safetensors'
FOLDERS = {HIGH: 'high_noise_model_bnb_nf4', LOW: 'low_noise_model_bnb_nf4',
           CAUSAL: 'lingbot_world_fast'}  # where a checkpoint of several experts keeps each


def save_nf4(checkpoint: Checkpoint, folder: Path, expert: str = '', device: str = 'cpu',
             on_progress: Optional[Callable[[int, int], None]] = None) -> Path:
    """
    Write a quantised copy of a network, tensor by tensor.

    The folder then is a checkpoint of its own: ``model.safetensors`` and ``config.json``. Named as
    in ``FOLDERS``, both experts of a base model can lie side by side.

    :param checkpoint: from ``open_checkpoint``
    :param folder: made where it is not there
    :param expert: high_noise, low_noise or causal; '' takes the only one
    :param device: where to quantise
    :param on_progress: called with bytes read and bytes in all
    :return: the file of weights
    :raises SpecError: the checkpoint is incomplete or quantised already; the file is there
        already, or cannot be written
    """
    source, target = checked_expert(checkpoint, expert), torch_device(device)
    path = Path(folder) / FILE
    if source.quantised:
        raise SpecError(f'{source.name} of {shown(checkpoint.path)} is quantised already.')
    if path.exists():
        raise SpecError(f'{shown(path)} is there already; remove it or choose another folder.')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {f'{name}.weight' for name in linear_names(source.spec)}
        _write(source, path, weights, target, on_progress)
        config = {**_config(source.spec), **_about(checkpoint), 'expert': source.name}
        (path.parent / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
    except OSError as error:
        raise SpecError(f'{shown(path)} cannot be written: {error.strerror or error}.') from None
    return path


def _write(source: Expert, path: Path, weights: Set[str], device: torch.device,
           on_progress: Optional[Callable[[int, int], None]]) -> None:
    names = list(source.tensors) + [f'{name}.{part}' for name in weights for part in PARTS]
    with safetensors_writer(path, names, {'format': 'pt'}) as writer:
        for name, tensor in stream_tensors(source, on_progress):
            assert isinstance(tensor, torch.Tensor), 'nothing of it is quantised'
            if name not in weights:
                writer.add(name, tensor.to(torch.bfloat16))
                continue
            packed, state = quantise(tensor, device)
            writer.add(name, packed)
            for part, value in state.as_dict(packed=True).items():
                writer.add(f'{name}.{part}', value)


def _config(spec: DiTSpec) -> Dict[str, Any]:
    return {'model_type': 'i2v', 'dim': spec.dim, 'ffn_dim': spec.ffn_dim, 'eps': spec.eps,
            'freq_dim': spec.freq_dim, 'in_dim': spec.in_channels, 'out_dim': spec.out_channels,
            'num_heads': spec.num_heads, 'num_layers': spec.num_layers,
            'text_len': spec.text_len, 'text_dim': spec.text_dim}


def _about(checkpoint: Checkpoint) -> Dict[str, Any]:
    """Tell the release and how it is streamed, which tensors do not tell."""
    own = checkpoint.defaults
    return {'quantization_config': {'quant_method': 'bitsandbytes', 'bnb_4bit_quant_type': 'nf4',
                                    'bnb_4bit_use_double_quant': True,
                                    'bnb_4bit_compute_dtype': 'bfloat16', 'load_in_4bit': True},
            'source': checkpoint.release.title, 'licence': checkpoint.release.licence,
            'num_frames_per_block': own.chunk_latents, 'sink_size': own.sink_latents,
            'sliding_window_num_frames': own.window_latents}
