# SPDX-License-Identifier: Apache-2.0
"""Writers of a tiny autoencoder, text encoder and tokenizer, to lie beside a tiny checkpoint."""
import json

from lingbot_world_ros.models.wan.umt5 import UMT5Spec
from lingbot_world_ros.models.wan.vae import VaeSpec, WanVAE
import torch

TINY_VAE = VaeSpec(dim=8)
TEXT_DIM = 32  # of wan_checkpoints.TINY
WORDS = ('<pad>', '</s>', '<unk>', 'a', 'street', 'quiet', 'rain', 'night', 'room')


def write_companions(folder, layout='wan'):
    """Write all three into the folder of a checkpoint, in the original or diffusers' layout."""
    write_vae(folder, layout)
    write_text_encoder(folder)
    write_tokenizer(folder / ('google/umt5-xxl' if layout == 'wan' else 'tokenizer'))
    return folder


def write_vae(folder, layout='wan'):
    """Write random weights that keep values where they are, about."""
    torch.manual_seed(0)
    path = folder / 'Wan2.1_VAE.pth'
    if layout != 'wan':
        path = folder / 'vae' / 'Wan2.1_VAE.pth'
        path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(WanVAE(TINY_VAE).state_dict(), path)


def write_text_encoder(folder):
    """Write random weights under the original names."""
    generator = torch.Generator().manual_seed(0)
    spec = UMT5Spec(len(WORDS), TEXT_DIM, TEXT_DIM, 48, 4, 2, 32)
    square, ffn = (spec.attention_dim, spec.dim), (spec.ffn_dim, spec.dim)
    shapes = {'token_embedding.weight': (spec.vocab_size, spec.dim), 'norm.weight': (spec.dim,)}
    for i in range(spec.num_layers):
        shapes.update({f'blocks.{i}.{name}': shape for name, shape in {
            'norm1.weight': (spec.dim,), 'norm2.weight': (spec.dim,),
            **{f'attn.{x}.weight': square for x in 'qkvo'}, 'ffn.gate.0.weight': ffn,
            'ffn.fc1.weight': ffn, 'ffn.fc2.weight': ffn[::-1],
            'pos_embedding.embedding.weight': (spec.num_buckets, spec.num_heads)}.items()})
    tensors = {name: torch.randn(shape, generator=generator) * (1 if 'norm' in name else 0.3)
               for name, shape in shapes.items()}
    torch.save({k: v.bfloat16() for k, v in tensors.items()},
               folder / 'models_t5_umt5-xxl-enc-bf16.pth')


def write_tokenizer(folder):
    """Write a tokenizer of a few words."""
    from tokenizers import models, pre_tokenizers, processors, Tokenizer
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, '<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='$A </s>', special_tokens=[('</s>', WORDS.index('</s>'))])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text(json.dumps(
        {'tokenizer_class': 'PreTrainedTokenizerFast', 'eos_token': '</s>', 'pad_token': '<pad>',
         'unk_token': '<unk>'}))
