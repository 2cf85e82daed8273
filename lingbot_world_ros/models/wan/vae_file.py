# SPDX-License-Identifier: Apache-2.0
"""
Wan2.1's video autoencoder from a file, under its public names or those of diffusers.

Sizes are read off the tensors; what does not fit is told by name.
"""
from dataclasses import replace
from functools import partial
from pathlib import Path
import re
from typing import Dict, List, Mapping, Union

from lingbot_world_ros.errors import quoted, shown, SpecError
from lingbot_world_ros.models.wan.device import Device
from lingbot_world_ros.models.wan.tensor_files import open_tensors
from lingbot_world_ros.models.wan.vae import REMEDY, VaeSpec, WanVAE
import torch
from torch import Tensor

NUM_TOLD = 3  # tensors that an error names


def load_vae(path: Union[str, Path], device: Device = 'cpu',
             decoder_dtype: torch.dtype = torch.float32) -> WanVAE:
    """
    Load an autoencoder; its sizes are those of the tensors.

    :param path: a .pth or .safetensors file with the public or the diffusers names, or a folder
        with Wan2.1_VAE.pth or (also in its vae/) diffusion_pytorch_model.safetensors
    :param device: where it works
    :param decoder_dtype: torch.float32, or 16 bits for a faster decoder (channels last)
    :return: the autoencoder, without gradients
    :raises SpecError: if there is no such file, or it is damaged or of another model
    """
    path = find_weights(Path(path))
    tensors = {public_name(name): tensor for name, tensor in read_tensors(path, REMEDY).items()}
    spec = spec_of(tensors, path)
    with torch.device('meta'):  # nobody waits for random weights
        vae = WanVAE(spec)
    check_tensors(path, tensors, vae.state_dict(), REMEDY)
    tensors = {name: tensor.to(device, torch.float32, copy=True)  # the file may be mapped
               for name, tensor in tensors.items()}
    vae.load_state_dict(tensors, assign=True)
    return vae.to(device).set_decoder(decoder_dtype).eval().requires_grad_(False)


def find_weights(path: Path) -> Path:
    """Return the file of weights at or in ``path``."""
    names = ('Wan2.1_VAE.pth', 'vae/diffusion_pytorch_model.safetensors',
             'diffusion_pytorch_model.safetensors')
    for found in (path, *(path / name for name in names)):
        if found.is_file():
            return found
    missing = f'holds none of {", ".join(names)}' if path.is_dir() else 'does not exist'
    raise SpecError(f'the autoencoder {quoted(path)} {missing}; {REMEDY}.')


def read_tensors(path: Path, remedy: str) -> Dict[str, Tensor]:
    """
    Read a file of tensors. Code that a pickle may hold is not run.

    :param path: .safetensors, or what torch.save wrote
    :param remedy: what to do if it cannot be read, for the error
    :raises SpecError: if it is damaged or holds something else
    """
    try:
        with open_tensors(path) as file:
            tensors = {name: file.get(name) for name in file.infos}
    except SpecError as error:
        raise SpecError(f'{str(error).rstrip(".")}. If it stays so: {remedy}.') from error
    if not tensors or not all(t.is_floating_point() for t in tensors.values()):
        raise SpecError(f'{quoted(path)} does not hold named tensors of floating-point numbers '
                        f'and nothing else; {remedy}.')
    return tensors


def check_tensors(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor],
                  remedy: str) -> None:
    """
    Compare what a file holds with what a network needs.

    :param path: of the file, for the error
    :param tensors: name to tensor
    :param expected: name to tensor of the right shape
    :param remedy: what to do, for the error
    :raises SpecError: naming the first few that are missing, unknown or of another shape
    """
    shapes = [f'{name} is {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}'
              for name in expected if name in tensors
              and tensors[name].shape != expected[name].shape]
    faults = {'missing': [name for name in expected if name not in tensors],
              'unknown': [name for name in tensors if name not in expected],
              'of another shape': shapes}
    told = [f'{len(names)} {fault} ({", ".join(names[:NUM_TOLD])}'
            f'{", ..." if len(names) > NUM_TOLD else ""})'
            for fault, names in faults.items() if names]
    if told:
        raise SpecError(f'{quoted(path)} does not fit: of {len(expected)} tensors, '
                        f'{shown("; ".join(told), 600)}; {remedy}.')


def spec_of(tensors: Dict[str, Tensor], path: Path) -> VaeSpec:
    """
    Read the sizes off the encoder's tensors in their public names.

    :param tensors: name to tensor
    :param path: of their file, for the error
    :raises SpecError: if this is no autoencoder of Wan2.1's kind
    """
    try:
        dim, (_, latent_channels) = len(tensors['encoder.conv1.weight']), \
            tensors['conv2.weight'].shape[:2]
        return replace(_stages(tensors, dim), latent_channels=latent_channels)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, SpecError):
            raise SpecError(f'{quoted(path)}: {error}') from error
        raise SpecError(f'{quoted(path)} is not the autoencoder of Wan2.1 ({len(tensors)} tensors,'
                        f' the first is {shown(next(iter(tensors)))}); {REMEDY}.') from error


def _stages(tensors: Mapping[str, Tensor], dim: int) -> VaeSpec:
    """Read widths and halvings off the encoder's stages."""
    widths: List[int] = []
    halvings: List[bool] = []
    blocks: List[int] = []
    for i in range(len(tensors)):
        prefix = f'encoder.downsamples.{i}.'
        if f'{prefix}residual.6.weight' in tensors:
            blocks.append(len(halvings))
            widths[len(halvings):] = [len(tensors[f'{prefix}residual.6.weight'])]
        elif f'{prefix}resample.1.weight' in tensors:
            halvings.append(f'{prefix}time_conv.weight' in tensors)
    return VaeSpec(dim, multipliers=tuple(width // dim for width in widths),
                   res_blocks=blocks.count(0), temporal_down=tuple(halvings))


def _joined_block(match: 're.Match[str]', per_stage: int) -> str:
    """Return the public name of a layer of diffusers' decoder."""
    stage, kind = int(match[1]), match[2]
    place = per_stage - 1 if kind == 'upsamplers' else int(match[3])
    return f'decoder.upsamples.{stage * per_stage + place}.'


DIFFUSERS_NAMES = tuple((re.compile(pattern), public) for pattern, public in (
    (r'^quant_conv\.', 'conv1.'), (r'^post_quant_conv\.', 'conv2.'),
    (r'^decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.',
     partial(_joined_block, per_stage=VaeSpec().res_blocks + 2)),
    (r'^encoder\.down_blocks\.', 'encoder.downsamples.'),
    (r'\.mid_block\.resnets\.0\.', '.middle.0.'), (r'\.mid_block\.resnets\.1\.', '.middle.2.'),
    (r'\.mid_block\.attentions\.0\.', '.middle.1.'),
    (r'coder\.conv_in\.', 'coder.conv1.'),
    (r'coder\.norm_out\.', 'coder.head.0.'), (r'coder\.conv_out\.', 'coder.head.2.'),
    (r'\.norm1\.', '.residual.0.'), (r'\.norm2\.', '.residual.3.'),
    (r'(s\.\d+|middle\.\d)\.conv1\.', r'\1.residual.2.'),
    (r'(s\.\d+|middle\.\d)\.conv2\.', r'\1.residual.6.'),
    (r'\.conv_shortcut\.', '.shortcut.')))


def public_name(name: str) -> str:
    """Return the public name of one of diffusers' tensors; public names stay as they are."""
    for pattern, public in DIFFUSERS_NAMES:
        name = pattern.sub(public, name)
    return name
