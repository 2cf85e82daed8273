# SPDX-License-Identifier: Apache-2.0
"""What LingBot-World is made with; it checks itself what is said here in words only. No torch."""
from typing import Any, Tuple

from lingbot_world_ros.parameter import Param

_ROWS: Tuple[Tuple[Any, ...], ...] = (
    ('checkpoint', str, 'Folder or file of the network.'),
    ('vae', str, 'File of the video autoencoder; empty: looked for beside the checkpoint.'),
    ('text_encoder', str, 'File or folder of the text encoder (UMT5-XXL); empty: looked for '
     'beside the checkpoint.'),
    ('tokenizer', str, 'Folder of its tokenizer; empty: looked for beside the checkpoint.'),
    ('tiny_decoder', str, 'TAEHV file that decodes instead of the autoencoder, faster and '
     'softer; empty: none.'),
    ('device', str, 'Where the network runs, for example cuda:1 or cpu; auto needs a GPU.'),
    ('t5_device', str, 'Where the text encoder runs, once per prompt: cpu or cuda.'),
    ('precision', str, 'Precision of the weights: bf16, fp8 or nf4 (smaller), fp32.', None, None,
     ('fp32', 'bf16', 'fp8', 'nf4')),
    ('height_px', int, 'Height of the predicted image, a multiple of 16.', 64, 4096),
    ('width_px', int, 'Width of the predicted image, a multiple of 16.', 64, 4096),
    ('field_of_view_deg', float, 'Horizontal field of view of the predicted image.', 1.0, 170.0),
    ('chunk_latents', int, 'Latent frames (of four frames each) per step; 0: what the '
     'checkpoint was made for.', 0, 64),
    ('window_latents', int, 'Latent frames seen at a time, sink and current chunk included; 0: '
     'what the checkpoint was made for.', 0, 1024),
    ('sink_latents', int, 'First latent frames that are never forgotten; -1: what the '
     'checkpoint was made for.', -1, 256),
    ('cache_in_8_bits', bool, 'Halve the memory for earlier frames.'),
    ('step_indices', str, 'Denoising steps as indices of 1000, for example 0,179,358,679; empty: '
     'what the checkpoint was made for.'),
    ('shift', float, 'Shift of the noise levels; 0: what the checkpoint was made for.',
     0.0, 100.0),
    ('attention', str, 'Attention kernels; auto takes the best installed ones.'),
    ('compile', bool, 'Let PyTorch compile the network; the first step then takes a minute.'),
    ('keep_films', bool, "Keep the camera's part of all blocks for a step: faster, needs memory."),
    ('num_gpus', int, 'GPUs that share the work, starting at device, each with the whole network; '
     'must divide its attention heads (40 or 12).', 1, 64),
    ('decoder_device', str, 'Where images are encoded and decoded, for example cuda:1; empty: '
     'device.'),
    ('cache_dir', str, 'Folder for encoded prompts; empty: ~/.cache/lingbot_world_ros.'),
    ('metres_per_world_unit', float, 'Metres that the camera moves in a quarter of a second at '
     'the fastest motion of LingBot-World.', 1e-6, 1e6))
TABLE = tuple(Param(f'lingbot.{row[0]}', *row[1:]) for row in _ROWS)
