# SPDX-License-Identifier: Apache-2.0
"""
Tiny checkpoints of LingBot-World, with random weights that give finite pictures.

Names and shapes are read from ``tiny_networks.txt``, so that nothing of the package is needed to
write them and the same seed gives the same file whatever the code is.
"""
import json
import math
from pathlib import Path

SHAPES = Path(__file__).parent / 'tiny_networks.txt'
CONFIG = {'model_type': 'i2v', 'dim': 128, 'ffn_dim': 192, 'eps': 1e-6, 'freq_dim': 256,
          'in_dim': 36, 'out_dim': 16, 'num_heads': 1, 'num_layers': 2, 'text_dim': 32,
          'text_len': 16}
WORDS = ('<pad>', '</s>', '<unk>', 'a', 'street', 'quiet', 'rain', 'night', 'room')


def read_shapes(path: Path = SHAPES) -> dict:
    """
    Read the table of shapes.

    :return: part of a checkpoint -> name of a tensor -> shape
    """
    parts, names = {}, {}
    for line in path.read_text().splitlines():
        if line.startswith('['):
            names = parts[line.strip('[]')] = {}
        elif line and not line.startswith('#'):
            name, _, sizes = line.partition(' ')
            names[name] = tuple(map(int, sizes.split('x')))
    return parts


def tensors(part: str, seed: int) -> dict:
    """
    Draw the weights of one part.

    :param part: as the table calls it
    :param seed: of the numbers
    :return: name -> float32 tensor, scaled so that no layer grows its input much
    """
    import torch
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, shape in read_shapes()[part].items():
        value = torch.randn(shape, generator=generator)
        if name.endswith('gamma') or 'norm' in name and name.endswith('weight'):
            value = 1.0 + 0.1 * value
        elif name.endswith(('bias', 'modulation')):
            value = 0.05 * value
        else:
            value = value / math.sqrt(math.prod(shape[1:]))
        drawn[name] = value
    return drawn


def write_causal(folder: Path, seed: int = 0) -> Path:
    """Write the fast model: shards, index and config at the root, and all beside it."""
    _write_network(folder, seed)
    return _write_companions(folder)


def write_causal_v2(folder: Path, seed: int = 3) -> Path:
    """Write the fast model in the layout of version 2, which makes 16 frames per step."""
    _write_network(folder / 'transformers', seed, _class_name='WanXModel')
    return _write_companions(folder)


def write_base(folder: Path, seed: int = 0) -> Path:
    """Write the base model: two networks, and all beside them."""
    _write_network(folder / 'high_noise_model', seed)
    _write_network(folder / 'low_noise_model', seed + 1)
    return _write_companions(folder)


def write_tiny_decoder(path: Path) -> Path:
    """Write a TAEHV file."""
    import torch
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors('tiny decoder', 4), path)
    return path


WRITERS = {'causal': write_causal, 'causal_v2': write_causal_v2, 'base': write_base}


def _write_network(folder, seed, **extra):
    from safetensors.torch import save_file
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text(json.dumps({**CONFIG, **extra}))
    drawn = tensors('network', seed)
    names, weight_map = list(drawn), {}
    for i in range(2):
        file = f'diffusion_pytorch_model-{i + 1:05d}-of-00002.safetensors'
        part = names[i * len(names) // 2:(i + 1) * len(names) // 2]
        save_file({name: drawn[name].contiguous() for name in part}, folder / file,
                  {'format': 'pt'})
        weight_map.update(dict.fromkeys(part, file))
    size = sum(4 * tensor.numel() for tensor in drawn.values())
    (folder / 'diffusion_pytorch_model.safetensors.index.json').write_text(json.dumps(
        {'metadata': {'total_size': size}, 'weight_map': weight_map}))


def _write_companions(folder):
    import torch
    torch.save(tensors('autoencoder', 10), folder / 'Wan2.1_VAE.pth')
    torch.save({name: value.bfloat16() for name, value in tensors('text encoder', 20).items()},
               folder / 'models_t5_umt5-xxl-enc-bf16.pth')
    _write_tokenizer(folder / 'google' / 'umt5-xxl')
    return folder


def _write_tokenizer(folder):
    from tokenizers import models, pre_tokenizers, processors, Tokenizer
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, '<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='$A </s>', special_tokens=[('</s>', WORDS.index('</s>'))])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text(json.dumps(
        {'tokenizer_class': 'PreTrainedTokenizerFast', 'eos_token': '</s>', 'pad_token': '<pad>',
         'unk_token': '<unk>'}))
