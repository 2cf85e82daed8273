# SPDX-License-Identifier: Apache-2.0
"""Writers of tiny checkpoints in every public layout, with weights that give finite results."""
import json
import math

from lingbot_world_ros.models.wan.spec import DiTSpec
import torch

# Heads of 128 like the public networks, whose number can be told from the width.
TINY = DiTSpec(dim=128, ffn_dim=192, num_heads=1, num_layers=2, text_dim=32, text_len=16)


def random_tensors(spec=TINY, seed=0):
    """Return public name -> float32 tensor, scaled so that no layer grows its input much."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in spec.tensor_shapes().items():
        value = torch.randn(shape, generator=generator)
        if 'norm' in name and name.endswith('weight'):
            value = 1 + 0.1 * value
        elif name.endswith(('bias', 'modulation')):
            value = 0.05 * value
        else:
            value = value / math.sqrt(math.prod(shape[1:]))
        tensors[name] = value
    return tensors


def wan_config(spec=TINY, **extra):
    """Return what config.json of the original layout says."""
    return {'model_type': 'i2v', 'dim': spec.dim, 'ffn_dim': spec.ffn_dim, 'eps': spec.eps,
            'freq_dim': spec.freq_dim, 'in_dim': spec.in_channels, 'out_dim': spec.out_channels,
            'num_heads': spec.num_heads, 'num_layers': spec.num_layers, 'text_dim': spec.text_dim,
            'text_len': spec.text_len, **extra}


def diffusers_config(spec=TINY, **extra):
    """Return what config.json of the diffusers layout says."""
    return {'_class_name': 'CausalLingBotWorldTransformer3DModel',
            'attention_head_dim': spec.head_dim, 'num_attention_heads': spec.num_heads,
            'num_layers': spec.num_layers, 'ffn_dim': spec.ffn_dim, 'eps': spec.eps,
            'in_channels': spec.in_channels, 'out_channels': spec.out_channels,
            'text_dim': spec.text_dim, 'text_len': spec.text_len, 'freq_dim': spec.freq_dim,
            'qk_norm': 'rms_norm_across_heads', 'patch_size': [1, 2, 2], **extra}


def write_json(path, content):
    """Write a file of JSON and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))


def write_shards(folder, tensors, stem='diffusion_pytorch_model', count=2,
                 dtype=torch.float32):
    """Write tensors in shards with an index, as the hub does."""
    from safetensors.torch import save_file
    folder.mkdir(parents=True, exist_ok=True)
    names, weight_map = list(tensors), {}
    for i in range(count):
        file = f'{stem}-{i + 1:05d}-of-{count:05d}.safetensors'
        part = names[i * len(names) // count:(i + 1) * len(names) // count]
        save_file({name: tensors[name].to(dtype).contiguous() for name in part}, folder / file,
                  {'format': 'pt'})
        weight_map.update(dict.fromkeys(part, file))
    size = sum(tensor.numel() for tensor in tensors.values()) * dtype.itemsize
    write_json(folder / f'{stem}.safetensors.index.json',
               {'metadata': {'total_size': size}, 'weight_map': weight_map})
    return folder


def write_fast(folder, spec=TINY, seed=0, dtype=torch.float32):
    """lingbot-world-fast: shards, index and config at the root."""
    write_json(folder / 'config.json', wan_config(spec))
    return write_shards(folder, random_tensors(spec, seed), dtype=dtype)


def write_base(folder, spec=TINY, seed=0, dtype=torch.float32, fast=False):
    """lingbot-world-base-cam: two experts, and the fast one within where asked for."""
    write_fast(folder / 'high_noise_model', spec, seed, dtype)
    write_fast(folder / 'low_noise_model', spec, seed + 1, dtype)
    if fast:
        write_fast(folder / 'lingbot_world_fast', spec, seed + 2, dtype)
    return folder


def write_fast_diffusers(folder, spec=TINY, seed=0, dtype=torch.bfloat16, **extra):
    """lingbot-world-fast-diffusers: its folders, official tensor names, one file."""
    write_json(folder / 'model_index.json', {'_class_name': 'LingBotWorldCausalDMDPipeline'})
    window = {'local_attn_size': -1, 'sink_size': 9, 'num_frames_per_block': 3,
              'sliding_window_num_frames': 18, **extra}
    write_json(folder / 'transformer' / 'config.json', diffusers_config(spec, **window))
    write_shards(folder / 'transformer', random_tensors(spec, seed), dtype=dtype)
    return folder


def write_v2(folder, spec=TINY, seed=0, dtype=torch.float32):
    """lingbot-world-v2-14b-causal-fast: the network in transformers/."""
    write_json(folder / 'transformers' / 'config.json',
               wan_config(spec, _class_name='WanXModel'))
    write_shards(folder / 'transformers', random_tensors(spec, seed), dtype=dtype)
    return folder


def write_v2_small(folder, spec=TINY, seed=0, dtype=torch.float32):
    """lingbot-world-v2-1.3b-causal-fast: shards of another name at the root, no config."""
    return write_shards(folder, random_tensors(spec, seed), 'model', 3, dtype)


def write_nf4(folder, spec=TINY, seed=0):
    """A base model as the community quantises it: what bitsandbytes' own layers save."""
    for i, name in enumerate(('high_noise_model_bnb_nf4', 'low_noise_model_bnb_nf4')):
        write_nf4_expert(folder / name, spec, seed + i)
    return folder


def write_nf4_expert(folder, spec=TINY, seed=0):
    """Write one quantised expert."""
    from safetensors.torch import save_file
    tensors = {}
    for name, value in random_tensors(spec, seed).items():
        if value.dim() == 2 and name.endswith('.weight'):
            tensors.update(bnb_tensors(name, value))
        else:
            tensors[name] = value.to(torch.bfloat16)
    write_json(folder / 'config.json', wan_config(spec))
    save_file(tensors, folder / 'model.safetensors', {'format': 'pt'})
    return folder


def bnb_tensors(name, value):
    """Return what bitsandbytes saves of one weight."""
    import bitsandbytes as bnb
    layer = bnb.nn.Linear4bit(value.shape[1], value.shape[0], bias=False, quant_type='nf4',
                              compute_dtype=torch.bfloat16)
    layer.weight = bnb.nn.Params4bit(value.to(torch.bfloat16), quant_type='nf4')
    saved = layer.to('cpu').state_dict()
    return {name + key[len('weight'):]: part.contiguous() for key, part in saved.items()}


def write_wan_diffusers(folder, spec=TINY, seed=0, dtype=torch.bfloat16):
    """Two experts under the names of diffusers' WanTransformer3DModel; it has no camera."""
    for i, name in enumerate(('transformer', 'transformer_2')):
        tensors = {diffusers_name(key): value
                   for key, value in random_tensors(spec, seed + i).items()}
        write_json(folder / name / 'config.json',
                   diffusers_config(spec, _class_name='WanTransformer3DModel'))
        write_shards(folder / name, tensors, dtype=dtype)
    write_json(folder / 'model_index.json', {'_class_name': 'WanImageToVideoPipeline'})
    return folder


def diffusers_name(name):
    """Return what diffusers calls a tensor of the backbone; the camera's stay as they are."""
    for ours, theirs in (
            ('text_embedding.0.', 'condition_embedder.text_embedder.linear_1.'),
            ('text_embedding.2.', 'condition_embedder.text_embedder.linear_2.'),
            ('time_embedding.0.', 'condition_embedder.time_embedder.linear_1.'),
            ('time_embedding.2.', 'condition_embedder.time_embedder.linear_2.'),
            ('time_projection.1.', 'condition_embedder.time_proj.'),
            ('head.modulation', 'scale_shift_table'), ('head.head.', 'proj_out.'),
            ('self_attn.', 'attn1.'), ('cross_attn.', 'attn2.'), ('norm3.', 'norm2.'),
            ('.ffn.0.', '.ffn.net.0.proj.'), ('.ffn.2.', '.ffn.net.2.'),
            ('.modulation', '.scale_shift_table'), ('.q.', '.to_q.'), ('.k.', '.to_k.'),
            ('.v.', '.to_v.'), ('.o.', '.to_out.0.')):
        name = name.replace(ours, theirs)
    return name


def write_single(path, spec=TINY, seed=0, dtype=torch.bfloat16):
    """One file, .safetensors or .pth."""
    from safetensors.torch import save_file
    tensors = {name: value.to(dtype) for name, value in random_tensors(spec, seed).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.safetensors':
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path
