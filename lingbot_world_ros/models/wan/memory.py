# SPDX-License-Identifier: Apache-2.0
"""
What LingBot-World needs in memory, part by part, and whether it is there. No torch.

Weights and caches follow exactly from sizes; working memory is an estimate, on the high side.
1 GB is 10^9 bytes.
"""
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Dict, List, TYPE_CHECKING

from lingbot_world_ros.actions.camera_path import FRAMES_PER_LATENT
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.models.wan.spec import DiTSpec, VideoSize

if TYPE_CHECKING:
    import torch

PRECISIONS = ('fp32', 'bf16', 'fp8', 'nf4')
GB = 10 ** 9
DTYPE_BYTES = {'fp32': 4, 'bf16': 2, 'fp16': 2, 'fp8': 1}
VAE_ENCODER_PARAMETERS, VAE_DECODER_PARAMETERS = 53_596_928, 73_295_603
TEXT_ENCODER_PARAMETERS = 5_680_910_336
NF4_BLOCK, NF4_NESTED_BLOCK = 64, 256
NF4_TABLES_BYTES = 4 * (16 + 256)  # of each layer: values of the codes, and of the scales
# Channels times area of all that the VAE's decoder remembers of a frame, per latent pixel: what
# enters its 32 convolutions in time, stage by stage (areas 1, 4, 16, 64).
VAE_MEMORY = (16 + 11 * 384) + 4 * (192 + 6 * 384) + 16 * 6 * 192 + 64 * 7 * 96
VAE_MEMORY_FRAMES = 2
VAE_WORK_TENSORS = 5  # of four full frames with 96 channels, alive at once [estimate]
RUNTIME_BYTES = int(1.2 * GB)  # CUDA's context, libraries' workspaces, fragments [estimate]
GPU_CLASSES = ((8, 'RTX 4060'), (12, 'RTX 4070'), (16, 'RTX 4080'), (24, 'RTX 3090, 4090'),
               (32, 'RTX 5090'), (48, 'L40S, RTX 6000 Ada'), (80, 'A100, H100'),
               (96, 'RTX PRO 6000'), (141, 'H200'), (180, 'B200'))
USABLE = 0.95  # of a GPU's GiB


@dataclass(frozen=True)
class Preset:
    """
    One way to run a network.

    ``window_latents`` is the cache: visible latent frames in all. ``keep_films`` keeps every
    block's camera part of a chunk. ``vae`` is the precision of the video decoder (the encoder is
    float32), ``tiny_decoder`` takes a small one in its place; ``text_on_device`` keeps the text
    encoder beside the network; ``cache_in_8_bits`` is for keys and values.
    """

    spec: DiTSpec
    size: VideoSize = VideoSize(464, 832)
    precision: str = 'bf16'
    chunk_latents: int = 3
    window_latents: int = 18
    keep_films: bool = True
    vae: str = 'fp32'
    tiny_decoder: bool = False
    text_on_device: bool = False
    cache_in_8_bits: bool = False


def estimate(preset: Preset) -> Dict[str, int]:
    """
    Say what a stream needs on its device.

    :param preset: how it is run
    :return: part -> bytes: weights, kv_cache, text_cache, camera_cache, vae, vae_work, work,
        text_encoder
    """
    spec, size = preset.spec, preset.size
    tokens = preset.chunk_latents * size.tokens_per_latent
    value = DTYPE_BYTES['fp32' if preset.precision == 'fp32' else 'bf16']
    camera = 2 * tokens * spec.dim * value if spec.control_channels else 0
    return {
        'weights': dit_bytes(spec, preset.precision),
        'kv_cache': preset.window_latents * kv_bytes_per_latent(
            spec, size, 1 if preset.cache_in_8_bits else value),
        'text_cache': 2 * spec.num_layers * spec.text_len * spec.dim * value,
        'camera_cache': camera * (spec.num_layers if preset.keep_films else 1),
        'vae': _vae_bytes(preset), 'vae_work': _vae_work_bytes(preset),
        'work': _work_bytes(spec, tokens, value, preset.precision) + RUNTIME_BYTES,
        'text_encoder': text_encoder_bytes() if preset.text_on_device else 0}


def dit_bytes(spec: DiTSpec, precision: str) -> int:
    """
    Return the bytes of a network's weights.

    :param spec: sizes
    :param precision: fp32, bf16, fp8 (linear layers that run in every pass; all else is bf16) or
        nf4 (all linear layers; all else is bf16)
    :raises SpecError: unknown precision
    """
    if precision not in PRECISIONS:
        raise unknown_name('precision', precision, PRECISIONS)
    shapes = spec.tensor_shapes()
    if precision in ('fp32', 'bf16'):
        return DTYPE_BYTES[precision] * spec.num_parameters
    linear, one = set(linear_names(spec)), nf4_bytes
    if precision == 'fp8':
        linear = {name for name in linear if name.startswith('blocks.') and '.cam_' not in name}
        one = _fp8_bytes
    return sum(one(*shape) if name.rpartition('.')[0] in linear and name.endswith('.weight')
               else 2 * math.prod(shape) for name, shape in shapes.items())


def linear_names(spec: DiTSpec) -> List[str]:
    """Return the names of all linear layers: what quantisation changes. 569 in the 14B."""
    return [name[:-len('.weight')] for name, shape in spec.tensor_shapes().items()
            if name.endswith('.weight') and len(shape) == 2]


def nf4_bytes(num_out: int, num_in: int) -> int:
    """Return the bytes of one quantised weight with its scales, quantised themselves."""
    blocks = -(-num_out * num_in // NF4_BLOCK)
    return (num_out * num_in + 1) // 2 + blocks + 4 * -(-blocks // NF4_NESTED_BLOCK) \
        + NF4_TABLES_BYTES


def _fp8_bytes(num_out: int, num_in: int) -> int:
    return num_out * num_in + 4 * num_out


def kv_bytes_per_latent(spec: DiTSpec, size: VideoSize, value_bytes: int = 2) -> int:
    """Return the bytes of one latent frame's keys and values in all blocks."""
    return 2 * spec.num_layers * size.tokens_per_latent * spec.dim * value_bytes


def text_encoder_bytes() -> int:
    """Return the bytes of UMT5-XXL's encoder in bf16."""
    return TEXT_ENCODER_PARAMETERS * DTYPE_BYTES['bf16']


def vae_cache_bytes(size: VideoSize, value_bytes: int = 4) -> int:
    """Return what the VAE's decoder remembers between chunks."""
    return VAE_MEMORY_FRAMES * VAE_MEMORY * math.prod(size.latent) * value_bytes


def _vae_bytes(preset: Preset) -> int:
    value = DTYPE_BYTES[preset.vae]
    remembered = 0 if preset.tiny_decoder else vae_cache_bytes(preset.size, value)
    return 4 * VAE_ENCODER_PARAMETERS + value * VAE_DECODER_PARAMETERS + remembered


def _vae_work_bytes(preset: Preset) -> int:
    """The encoder, float32, needs at least as much at the start as the decoder needs later."""
    pixels = preset.size.height_px * preset.size.width_px
    return 4 * VAE_WORK_TENSORS * FRAMES_PER_LATENT * 96 * pixels


def _work_bytes(spec: DiTSpec, tokens: int, value: int, precision: str) -> int:
    """One block's intermediates, and the largest layer that is unpacked or taken to float32."""
    block = tokens * (spec.dim * (4 * 4 + 6 * value) + 2 * spec.ffn_dim * value)
    shapes = spec.tensor_shapes()
    largest = max(math.prod(shapes[f'{name}.weight']) for name in linear_names(spec))
    unpacked = {'fp32': 0, 'bf16': 4, 'fp8': 4, 'nf4': 2}[precision]
    return block + largest * unpacked


def smallest_gpu(num_bytes: int) -> str:
    """
    Name the smallest class of GPU that holds something.

    :param num_bytes: needed in all
    :return: for example '24 GB (RTX 3090, 4090)'
    """
    for size, names in GPU_CLASSES:
        if num_bytes <= USABLE * size * 2 ** 30:
            return f'{size} GB ({names})'
    return f'none; the largest considered is {GPU_CLASSES[-1][0]} GB ({GPU_CLASSES[-1][1]})'


def free_bytes(device: 'torch.device') -> int:
    """
    Return how much memory can be had.

    :param device: a ``torch.device``; of 'cpu' it is what the system and its containers leave
    """
    if device.type == 'cuda':
        import torch
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return min(_available_bytes(), _container_bytes())


def check_room(num_bytes: int, device: 'torch.device', what: str) -> None:
    """
    Refuse to begin what would not fit.

    :param num_bytes: needed
    :param device: a ``torch.device``
    :param what: will be put there, for the message
    :raises SpecError: if there is less
    """
    free = free_bytes(device)
    if num_bytes > free:
        advice = ('end other programs on it, or choose precision nf4, fewer window_latents or a '
                  'smaller frame' if device.type == 'cuda' else
                  'end other programs, choose precision nf4, or use a machine with more RAM')
        raise SpecError(f'{what} needs {num_bytes / GB:.1f} GB on {device} and {free / GB:.1f} GB '
                        f'are free; {advice}.')


def _available_bytes() -> int:
    try:
        for line in Path('/proc/meminfo').read_text().splitlines():
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 2 ** 62  # not Linux; the system will say


def _container_bytes() -> int:
    """What control groups (containers) leave; files they cached can be dropped."""
    folder = Path('/sys/fs/cgroup')
    try:
        limit = (folder / 'memory.max').read_text().strip()
        if limit == 'max':
            return 2 ** 62
        used = int((folder / 'memory.current').read_text())
        stat = dict(line.split() for line in (folder / 'memory.stat').read_text().splitlines())
        return int(limit) - used + int(stat.get('inactive_file', 0))
    except (OSError, ValueError):
        return 2 ** 62
