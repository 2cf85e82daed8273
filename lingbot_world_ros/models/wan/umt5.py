# SPDX-License-Identifier: Apache-2.0
"""
The encoder of UMT5-XXL: its weights as they are released, and the network made of them.

Files are mapped into memory, never held twice.
"""
from dataclasses import dataclass
import hashlib
import json
from pathlib import Path
import re
from typing import Any, Dict, List, Optional, Tuple, TYPE_CHECKING

from lingbot_world_ros.errors import quoted, shown, SpecError
from lingbot_world_ros.models.wan.tensor_files import check_file, PICKLES, SafetensorsFile
from lingbot_world_ros.models.wan.tokenizer import needed_package

if TYPE_CHECKING:
    from torch import Tensor

MAX_DISTANCE, EPS = 128, 1e-6  # of relative positions; of the norms
ENCODER_FILE = 'models_t5_umt5-xxl-enc-bf16.pth'
EDGE_BYTES = 65536  # of a file that identify it, from either end
FOLDER_FILES = ('model.safetensors.index.json', 'model.safetensors',
                'pytorch_model.bin.index.json', 'pytorch_model.bin')
# Original name -> name in transformers, within a block.
BLOCK_NAMES = {
    'norm1.weight': 'layer.0.layer_norm.weight',
    'norm2.weight': 'layer.1.layer_norm.weight',
    **{f'attn.{x}.weight': f'layer.0.SelfAttention.{x}.weight' for x in 'qkvo'},
    'pos_embedding.embedding.weight': 'layer.0.SelfAttention.relative_attention_bias.weight',
    'ffn.gate.0.weight': 'layer.1.DenseReluDense.wi_0.weight',
    'ffn.fc1.weight': 'layer.1.DenseReluDense.wi_1.weight',
    'ffn.fc2.weight': 'layer.1.DenseReluDense.wo.weight'}
SHARED = 'shared.weight'
TIED = 'encoder.embed_tokens.weight'
NAMES = {'token_embedding.weight': SHARED, 'norm.weight': 'encoder.final_layer_norm.weight'}


@dataclass(frozen=True)
class UMT5Spec:
    """Sizes of an encoder."""

    vocab_size: int
    dim: int
    attention_dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    num_buckets: int

    @property
    def shapes(self) -> Dict[str, Tuple[int, ...]]:
        """Name in transformers -> shape, of every tensor there is."""
        square, ffn = (self.attention_dim, self.dim), (self.ffn_dim, self.dim)
        block = {'layer.0.layer_norm.weight': (self.dim,),
                 'layer.1.layer_norm.weight': (self.dim,),
                 **{f'layer.0.SelfAttention.{x}.weight': square for x in 'qkv'},
                 'layer.0.SelfAttention.o.weight': square[::-1],
                 'layer.0.SelfAttention.relative_attention_bias.weight':
                     (self.num_buckets, self.num_heads),
                 'layer.1.DenseReluDense.wi_0.weight': ffn,
                 'layer.1.DenseReluDense.wi_1.weight': ffn,
                 'layer.1.DenseReluDense.wo.weight': ffn[::-1]}
        return {SHARED: (self.vocab_size, self.dim),
                'encoder.final_layer_norm.weight': (self.dim,),
                **{f'encoder.block.{i}.{name}': shape for i in range(self.num_layers)
                   for name, shape in block.items()}}


def load_network(path: Path, device: str = 'cpu') -> Any:
    """
    Make the network with the weights of a file, in their dtype.

    :param path: the original file or safetensors in its names, or a folder of transformers
    :param device: to compute on
    :return: ``transformers.UMT5EncoderModel``, ready for inference
    :raises SpecError: if files, names or shapes are not those of such an encoder
    """
    torch, transformers = needed_package('torch'), needed_package('transformers')
    tensors = _public_tensors(Path(path))
    spec = _spec_of(tensors, path)
    settings = _settings(Path(path))
    config = transformers.UMT5Config(
        vocab_size=spec.vocab_size, d_model=spec.dim, d_kv=spec.attention_dim // spec.num_heads,
        d_ff=spec.ffn_dim, num_layers=spec.num_layers, num_heads=spec.num_heads,
        relative_attention_num_buckets=spec.num_buckets, feed_forward_proj='gated-gelu',
        relative_attention_max_distance=settings.get('relative_attention_max_distance',
                                                     MAX_DISTANCE),
        layer_norm_epsilon=settings.get('layer_norm_epsilon', EPS), dropout_rate=0.0,
        attn_implementation='eager')
    with torch.device('meta'):
        network = transformers.UMT5EncoderModel(config)
    moved = {name: tensor.to(device) for name, tensor in tensors.items()}
    network.load_state_dict({**moved, TIED: moved[SHARED]}, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def encoder_fingerprint(path: Path) -> str:
    """
    Identify an encoder without reading it: size, time and both ends of its files.

    :param path: file or folder, as ``load_network`` takes it
    :return: hexadecimal digits
    :raises OSError: if it is not there
    """
    names = ('*.safetensors', '*.bin', '*.json')
    files = [path] if path.is_file() else sorted(p for name in names for p in path.glob(name))
    if not files:
        raise FileNotFoundError(path)
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f'{file.name} {stat.st_size} {stat.st_mtime_ns}\n'.encode())
        with file.open('rb') as content:
            digest.update(content.read(EDGE_BYTES))
            content.seek(max(stat.st_size - EDGE_BYTES, 0))
            digest.update(content.read(EDGE_BYTES))
    return digest.hexdigest()


def _public_tensors(path: Path) -> Dict[str, 'Tensor']:
    """Return all tensors of an encoder, mapped, under their names in transformers."""
    tensors = {}
    for file in _weight_files(path):
        tensors.update(_mapped(file))
    out, unknown = {}, []
    for name, tensor in tensors.items():
        new = _hf_name(name)
        if new is None:
            unknown.append(name)
        elif new:
            out[new] = tensor
    if TIED in out:
        out.setdefault(SHARED, out.pop(TIED))
        out.pop(TIED, None)
    if unknown or SHARED not in out:
        raise SpecError(f'{shown(path)} is not an UMT5 encoder: '
                        + (f'it holds {quoted(unknown[0])}' if unknown else
                           'it lacks token_embedding.weight')
                        + f'; expected {ENCODER_FILE}, or text_encoder/ of transformers.')
    return out


def _hf_name(name: str) -> Optional[str]:
    """Return the name in transformers; '' for what an encoder needs not, None if unknown."""
    if name.startswith(('decoder.', 'lm_head.')):
        return ''  # of the whole UMT5
    if name in NAMES or name in NAMES.values() or name == TIED:
        return NAMES.get(name, name)
    for pattern, names in ((r'blocks\.(\d+)\.(.+)', BLOCK_NAMES),
                           (r'encoder\.block\.(\d+)\.(.+)', {n: n for n in BLOCK_NAMES.values()})):
        match = re.fullmatch(pattern, name)
        if match and match[2] in names:
            return f'encoder.block.{match[1]}.{names[match[2]]}'
    return None


def _weight_files(path: Path) -> List[Path]:
    if not path.is_dir():
        return [path]
    for name in FOLDER_FILES:
        file = path / name
        if file.is_file() and name.endswith('.index.json'):
            return [path / shard for shard in _shards(file)]
        if file.is_file():
            return [file]
    raise SpecError(f'{shown(path)} holds none of {", ".join(FOLDER_FILES)}; expected the folder '
                    'text_encoder of transformers.')


def _shards(index: Path) -> List[str]:
    names = _json(index).get('weight_map')
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise SpecError(f'{shown(index)} has no weight_map; download it again.')
    return sorted(set(names.values()))


def _mapped(path: Path) -> Dict[str, 'Tensor']:
    """Return the tensors of a file as a map of it, not a copy."""
    check_file(path)
    if path.suffix in PICKLES:
        return _mapped_pickle(path)
    SafetensorsFile(path)  # tells of what is missing in it
    from safetensors.torch import load_file
    return load_file(path)


def _mapped_pickle(path: Path) -> Dict[str, 'Tensor']:
    import pickle
    import torch
    try:
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError,
            KeyError) as error:
        raise SpecError(f'{shown(path)} cannot be read as weights of PyTorch '
                        f'({shown(str(error).splitlines()[0], 100)}); download it '
                        'again.') from None
    if not isinstance(content, dict) or not all(
            isinstance(value, torch.Tensor) for value in content.values()):
        raise SpecError(f'{shown(path)} is not a plain state_dict; expected {ENCODER_FILE}.')
    return content


def _spec_of(tensors: Dict[str, 'Tensor'], path: Path) -> UMT5Spec:
    """Read the sizes off the shapes, and check every tensor against them."""
    block = 'encoder.block.0.'
    need = {name: f'{block}{BLOCK_NAMES[name]}' for name in (
        'attn.q.weight', 'ffn.fc1.weight', 'pos_embedding.embedding.weight')}
    for name in need.values():
        if name not in tensors or tensors[name].ndim != 2:
            raise SpecError(f'{shown(path)} is not an UMT5 encoder: it lacks {name} with two '
                            f'axes; expected {ENCODER_FILE}.')
    q, ffn, bias = (tensors[name].shape for name in need.values())
    layers = {int(name.split('.')[2]) for name in tensors if name.startswith('encoder.block.')}
    spec = UMT5Spec(tensors[SHARED].shape[0], q[1], q[0], ffn[0], bias[1], len(layers), bias[0])
    if spec.attention_dim % spec.num_heads:
        raise SpecError(f'{shown(path)} has {spec.num_heads} heads in {spec.attention_dim} '
                        'channels, which does not divide; download it again.')
    shapes = spec.shapes
    wrong = ([f'lacks {name}' for name in shapes if name not in tensors]
             + [f'holds {name}' for name in tensors if name not in shapes]
             + [f'{name} is {tuple(tensors[name].shape)}, not {shape}' for name, shape
                in shapes.items() if name in tensors and tuple(tensors[name].shape) != shape])
    if wrong:
        more = f' and {len(wrong) - 1} more' if len(wrong) > 1 else ''
        raise SpecError(f'{shown(path)} is not a whole UMT5 encoder: {wrong[0]}{more}; download '
                        'it again.')
    return spec


def _settings(path: Path) -> Dict[str, Any]:
    """Return config.json of a folder; shapes do not tell all of it."""
    file = path / 'config.json'
    if not path.is_dir() or not file.is_file():
        return {}
    settings = _json(file)
    if settings.get('feed_forward_proj', 'gated-gelu') != 'gated-gelu':
        raise SpecError(f'{shown(file)}: feed_forward_proj='
                        f'{quoted(settings["feed_forward_proj"])}; UMT5 has gated-gelu.')
    return settings


def _json(path: Path) -> Dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise SpecError(f'{shown(path)} is no JSON object; download it again.')
    return content
