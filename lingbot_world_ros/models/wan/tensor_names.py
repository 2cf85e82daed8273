# SPDX-License-Identifier: Apache-2.0
"""
What a file calls its tensors, and which network they make. No torch.

Names of other frameworks become the public ones; sizes are read from shapes. config.json adds what
shapes do not tell, and must agree with them.
"""
from dataclasses import dataclass, replace
from pathlib import Path
import re
from typing import Any, Dict, Optional, Tuple, TypeVar

from lingbot_world_ros.errors import quoted, shown, SpecError
from lingbot_world_ros.models.wan.spec import DiTSpec, LINGBOT_14B, LINGBOT_1_3B, PIXELS_PER_TOKEN
from lingbot_world_ros.models.wan.tensor_files import TensorInfo

BLOCK = re.compile(r'blocks\.(\d+)\.')
QUANTISED = re.compile(r'(.+\.weight)\.(absmax|quant_map|nested_absmax|nested_quant_map|'
                       r'quant_state\.bitsandbytes__(?:nf4|fp4))')
PREFIXES = ('model.diffusion_model.', 'diffusion_model.', 'transformer.', 'module.', 'model.')
HEAD_DIM = 128  # of all public networks; shapes do not tell it
DIFFUSERS_NAMES = (
    (r'condition_embedder\.text_embedder\.linear_1\.', 'text_embedding.0.'),
    (r'condition_embedder\.text_embedder\.linear_2\.', 'text_embedding.2.'),
    (r'condition_embedder\.time_embedder\.linear_1\.', 'time_embedding.0.'),
    (r'condition_embedder\.time_embedder\.linear_2\.', 'time_embedding.2.'),
    (r'condition_embedder\.time_proj\.', 'time_projection.1.'),
    (r'(blocks\.\d+\.)attn1\.', r'\1self_attn.'), (r'(blocks\.\d+\.)attn2\.', r'\1cross_attn.'),
    (r'(_attn\.)to_([qkv])\.', r'\1\2.'), (r'(_attn\.)to_out\.0\.', r'\1o.'),
    (r'(blocks\.\d+\.)norm2\.', r'\1norm3.'), (r'(blocks\.\d+\.ffn\.)net\.0\.proj\.', r'\g<1>0.'),
    (r'(blocks\.\d+\.ffn\.)net\.2\.', r'\g<1>2.'),
    (r'(blocks\.\d+\.)scale_shift_table$', r'\1modulation'),
    (r'^scale_shift_table$', 'head.modulation'), (r'^proj_out\.', 'head.head.'))

Number = TypeVar('Number', int, float)


@dataclass(frozen=True)
class Stored:
    """One tensor of the network: the file, its name in there, what the header says."""

    file: Path
    name: str
    info: TensorInfo


def by_public_name(stored: Dict[str, Stored]
                   ) -> Tuple[Dict[str, Stored], Dict[str, Dict[str, Stored]]]:
    """
    Give tensors their public names.

    :param stored: by the names in the file
    :return: public name -> tensor, and quantised weight -> part -> tensor
    """
    tensors: Dict[str, Stored] = {}
    quantised: Dict[str, Dict[str, Stored]] = {}
    diffusers = any('condition_embedder.' in name for name in stored)
    for name, where in stored.items():
        for prefix in PREFIXES:
            name = name[len(prefix):] if name.startswith(prefix) else name
        if diffusers:
            for pattern, replacement in DIFFUSERS_NAMES:
                name = re.sub(pattern, replacement, name)
        match = QUANTISED.fullmatch(name)
        if match:
            quantised.setdefault(match[1], {})[match[2]] = where
        else:
            tensors[name] = where
    return tensors, quantised


def spec_of(tensors: Dict[str, Stored], config: Dict[str, Any]) -> DiTSpec:
    """
    Read the sizes of a network.

    :param tensors: by public name
    :param config: config.json, maybe empty
    :return: sizes
    :raises SpecError: if config.json says something else
    :raises KeyError: a tensor that tells a size is not there; its name
    :raises ValueError: a tensor has another rank
    """
    def shape(name: str) -> Tuple[int, ...]:
        if name not in tensors:
            raise KeyError(name)
        return tensors[name].info.shape

    def width(name: str, num_out: int) -> int:
        """Inputs of a linear layer, packed or not."""
        info, packed = tensors[f'{name}.weight'].info, len(shape(f'{name}.weight')) != 2
        packed = packed or info.shape[-1] == 1
        return 2 * info.num_bytes // num_out if packed else info.shape[1]

    dim, in_channels = shape('patch_embedding.weight')[:2]
    layers = [int(match[1]) for match in map(BLOCK.match, tensors) if match]
    control = 0
    if 'patch_embedding_wancamctrl.weight' in tensors:
        control = width('patch_embedding_wancamctrl', dim) // PIXELS_PER_TOKEN ** 2
    for name in ('text_embedding.0.weight', 'time_embedding.0.weight'):
        shape(name)
    seen = {'dim': dim, 'ffn_dim': shape('blocks.0.ffn.0.bias')[0], 'num_layers': max(layers) + 1,
            'in_channels': in_channels, 'out_channels': shape('head.head.bias')[0] // 4,
            'freq_dim': width('time_embedding.0', dim),
            'text_dim': width('text_embedding.0', dim)}
    _check_config(seen, config)
    heads = number_of(config, 'num_attention_heads', max(1, dim // HEAD_DIM))
    return DiTSpec(num_heads=number_of(config, 'num_heads', heads),
                   text_len=number_of(config, 'text_len', 512),
                   eps=number_of(config, 'eps', 1e-6), control_channels=control, **seen)


def number_of(config: Dict[str, Any], name: str, default: Number) -> Number:
    """
    Return a setting of config.json.

    :param config: all of them
    :param name: of this one
    :param default: where it is not given
    :return: a number of the default's type, more than 0
    :raises SpecError: if it is something else
    """
    value = config.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, type(default))) or not value > 0:
        raise SpecError(f'config.json says {name}={quoted(value, 30)}; expected a number like '
                        f'{default}.')
    return value


def known_spec(tensors: Dict[str, Stored], config: Dict[str, Any]) -> Optional[DiTSpec]:
    """
    Find the network that some of its tensors belong to: config's, or a public one.

    :param tensors: by public name, not all of them
    :param config: config.json, maybe empty
    :return: sizes, None if no known network has such tensors
    """
    known = [LINGBOT_14B, replace(LINGBOT_14B, control_channels=7), LINGBOT_1_3B]
    names = ('dim', 'ffn_dim', 'num_heads', 'num_layers', 'text_dim', 'text_len')
    own = {name: number_of(config, name, 1) for name in names if name in config}
    if {'dim', 'ffn_dim', 'num_heads', 'num_layers'} <= set(own):
        known.insert(0, DiTSpec(**own))
    for spec in known:
        shapes = spec.tensor_shapes()
        if all(shapes.get(name) == stored.info.shape for name, stored in tensors.items()
               if stored.info.dtype != 'U8'):
            return spec
    return None


def _check_config(seen: Dict[str, int], config: Dict[str, Any]) -> None:
    told = {**config, 'dim': config.get('dim')}
    for name, other in (('in_channels', 'in_dim'), ('out_channels', 'out_dim')):
        told.setdefault(name, config.get(other))
    if 'attention_head_dim' in config and 'num_attention_heads' in config:
        told['dim'] = (number_of(config, 'attention_head_dim', HEAD_DIM)
                       * number_of(config, 'num_attention_heads', 1))
    for name, value in seen.items():
        if told.get(name) not in (None, value):
            raise SpecError(f'config.json says {name}={shown(told[name])}, the tensors say '
                            f'{value}; they are of different checkpoints, download both again.')
