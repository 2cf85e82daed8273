# SPDX-License-Identifier: Apache-2.0
"""
A tiny decoder in the place of Wan2.1's: far less work per frame, softer pictures.

It streams like ``WanVAE`` and gives the same number of frames. Its weights are the user's to
bring: taew2_1 (.pth or .safetensors, madebyollin/taehv) or lighttaew2_1 (lightx2v). Encoding is
left to ``WanVAE``; what a file holds of an encoder is not read.

Axes: b batch, c channel, f latent frames, n frames of all clips, h w rows and columns in between,
T H W frames, rows and columns of pixels.

Source: TAEHV (MIT), taehv.py@1f14a56: architecture and tensor names; no code taken from it.
"""
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple, Union

from lingbot_world_ros.errors import quoted, SpecError, unknown_name
from lingbot_world_ros.models.wan.device import Device
from lingbot_world_ros.models.wan.vae import FRAMES_PER_LATENT, LATENT_MEAN, LATENT_STD
from lingbot_world_ros.models.wan.vae_file import check_tensors, read_tensors
import torch
from torch import nn, Tensor

CONVENTIONS = ('auto', 'normalised', 'raw')
LIMIT = 3.0  # of latents; beyond it they are squashed
MEMORY_BLOCKS = 3  # per resolution
GROWTH = (1, 2, 2)  # frames out per frame in, at each doubling of the resolution
PREFIX = 'decoder.'
REMEDY = ('give taew2_1.pth or taew2_1.safetensors of madebyollin/taehv, or lighttaew2_1.pth, or '
          'none to decode with the autoencoder of the checkpoint')

TinyCache = Tuple[Tensor, ...]  # per memory block, its newest input (b, c, h, w)


@dataclass(frozen=True)
class TinySpec:
    """Sizes of one tiny decoder: its channels at each resolution, coarsest first."""

    widths: Tuple[int, ...] = (256, 128, 64, 64)
    latent_channels: int = len(LATENT_MEAN)


def conv(c_in: int, c_out: int, bias: bool = True) -> nn.Conv2d:
    """Return a 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias)


class Squash(nn.Module):
    """Bend latents so that none is beyond the limit."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / LIMIT) * LIMIT


class MemoryBlock(nn.Module):
    """Look at a frame and the one before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv(2 * width, width), nn.ReLU(inplace=True),
                                  conv(width, width), nn.ReLU(inplace=True), conv(width, width))

    def forward(self, x: Tensor, before: Optional[Tensor], batch: int) -> Tuple[Tensor, Tensor]:
        """
        Process the frames of one latent.

        :param x: (n, c, h, w), frame by frame of the first clip, then of the next
        :param before: (b, c, h, w) the newest frame of the call before; None is zeros
        :param batch: b, number of clips
        :return: the same shape, and the newest frame to remember
        """
        if before is None:
            before = torch.zeros_like(x[:batch])
        clips = x.split(len(x) // batch)
        newest = torch.cat([clip[-1:] for clip in clips])
        past = before if len(x) == batch else torch.cat(
            [part for pair in zip(before.split(1), (clip[:-1] for clip in clips))
             for part in pair])
        return torch.relu_(self.conv(torch.cat([x, past], 1)) + x), newest


class Grow(nn.Module):
    """
    Double rows and columns and, if asked for, frames.

    The product comes before the repetition of pixels: the same numbers for a quarter of the work.
    """

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.growth = growth
        self.conv = nn.Conv2d(width, growth * width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = (part.split(1) for part in self.conv(x).chunk(self.growth, 1))
        x = torch.cat([frame for frames in zip(*parts) for frame in frames])  # n*growth c h w
        return nn.functional.interpolate(x, scale_factor=2.0, mode='nearest')


def decoder_layers(spec: TinySpec) -> nn.Sequential:
    """Return the layers in the order by which the public tensors are numbered."""
    widths = spec.widths
    layers = [Squash(), conv(spec.latent_channels, widths[0]), nn.ReLU(inplace=True)]
    for width, narrower, growth in zip(widths, widths[1:], GROWTH):
        layers += [MemoryBlock(width) for _ in range(MEMORY_BLOCKS)]
        layers += [nn.Identity(), Grow(width, growth), conv(width, narrower, bias=False)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True), conv(widths[-1], 3))


class TinyVAE(nn.Module):
    """The decoder with normalised latents and pixels from -1 to 1, as ``WanVAE`` has them."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: TinySpec = TinySpec(), normalised: bool = True) -> None:
        """
        Build it with random weights.

        :param spec: its sizes
        :param normalised: the weights expect normalised latents; if not, those times deviation
            plus mean, as the encoder of Wan2.1 puts them out
        """
        super().__init__()
        self.spec, self.normalised = spec, normalised
        self.decoder = decoder_layers(spec)
        for name, values in (('mean', LATENT_MEAN), ('std', LATENT_STD)):  # not on 'meta'
            self.register_buffer(name, torch.tensor(values, device='cpu').view(1, -1, 1, 1),
                                 persistent=False)

    def set_decoder(self, dtype: torch.dtype) -> 'TinyVAE':
        """
        Choose in which numbers it works; those of 16 bits in the order that GPUs want.

        :param dtype: torch.float32, torch.bfloat16 or torch.float16
        :return: itself
        """
        channels_last = dtype.itemsize == 2
        order = torch.channels_last if channels_last else torch.contiguous_format
        # torch's types know no memory_format beside a dtype
        self.decoder.to(dtype, memory_format=order)  # type: ignore[call-overload]
        return self

    @torch.no_grad()
    def decode_chunk(self, latents: Tensor,
                     cache: Optional[TinyCache]) -> Tuple[Tensor, TinyCache]:
        """
        Decode the next latents of a stream. Never waits for the device.

        :param latents: (b, 16, f, h, w) float32 normalised, f at least 1
        :param cache: what the call before returned, it is not changed; None starts a stream
        :return: video (b, 3, T, 8 h, 8 w) float32 about -1 to 1, not clamped, and the cache after
            it; T is 4 f, or 4 f - 3 at the start
        """
        start, frames = cache is None, []
        for latent in latents.unbind(2):
            x, cache = self._decode_one(latent, cache)
            frames.append(x)
        video = torch.cat(frames, 2)
        assert cache is not None, 'there is a latent frame'
        # The first latent stands for one frame: what comes before it is run-up.
        return (video[:, :, FRAMES_PER_LATENT - 1:] if start else video), cache

    def decode(self, latents: Tensor) -> Tensor:
        """
        Decode a clip.

        :param latents: (b, 16, f, h, w) float32 normalised
        :return: video (b, 3, 4 f - 3, 8 h, 8 w) float32 about -1 to 1, not clamped
        """
        return self.decode_chunk(latents, None)[0]

    def _decode_one(self, latent: Tensor, cache: Optional[TinyCache]) -> Tuple[Tensor, TinyCache]:
        """Latent (b, 16, h, w) -> four frames (b, 3, 4, H, W) and what to remember."""
        weight: Tensor = getattr(self.decoder[1], 'weight')
        batch = len(latent)
        kept: List[Tensor] = []
        order = torch.channels_last if weight.stride(1) == 1 else torch.contiguous_format
        x = latent if self.normalised else latent * self.std + self.mean
        x = x.to(weight.dtype, memory_format=order)
        for layer in self.decoder:
            if isinstance(layer, MemoryBlock):
                x, newest = layer(x, None if cache is None else cache[len(kept)], batch)
                kept.append(newest)
            else:
                x = layer(x)
        frames = x.float().unflatten(0, (batch, -1)).movedim(1, 2)  # b c 4 H W
        return frames * 2.0 - 1.0, tuple(kept)


def load_tiny_vae(path: Union[str, Path], device: Device = 'cpu',
                  dtype: torch.dtype = torch.float32, convention: str = 'auto') -> TinyVAE:
    """
    Load a tiny decoder.

    :param path: .pth or .safetensors file with the tensors of TAEHV for Wan2.1
    :param device: where it works
    :param dtype: in what it works; 16 bits are channels last
    :param convention: which latents the weights expect: 'normalised' (taew2_1) or 'raw', which is
        those times deviation plus mean (lighttaew2_1); 'auto' is raw if the name of the file
        begins with 'lighttae'
    :return: the decoder, without gradients
    :raises SpecError: if there is no such file or convention, or it is damaged or of another model
    """
    path = Path(path)
    if not path.is_file():
        raise SpecError(f'the tiny decoder {quoted(path)} is not a file; {REMEDY}.')
    tensors = {name: tensor for name, tensor in read_tensors(path, REMEDY).items()
               if name.startswith(PREFIX)}
    with torch.device('meta'):  # nobody waits for random weights
        vae = TinyVAE(spec_of(tensors, path), expects_normalised(path, convention))
    expected = vae.state_dict()
    newest_rows(tensors, expected)
    check_tensors(path, tensors, expected, REMEDY)
    tensors = {name: tensor.to(device, dtype, copy=True) for name, tensor in tensors.items()}
    vae.load_state_dict(tensors, assign=True)
    return vae.to(device).set_decoder(dtype).eval().requires_grad_(False)


def expects_normalised(path: Path, convention: str) -> bool:
    """Tell which latents a file of weights expects; see ``load_tiny_vae``."""
    if convention not in CONVENTIONS:
        raise unknown_name('convention of latents', convention, CONVENTIONS)
    if convention == 'auto':
        return not path.name.lower().startswith('lighttae')
    return convention == 'normalised'


def spec_of(tensors: Dict[str, Tensor], path: Path) -> TinySpec:
    """
    Read the sizes off the decoder's tensors.

    :param tensors: name to tensor
    :param path: of their file, for the error
    :raises SpecError: if this is no tiny decoder for Wan2.1
    """
    spec = TinySpec()
    layers = decoder_layers(spec)
    convs = [f'{PREFIX}{i}.weight' for i, layer in enumerate(layers)
             if isinstance(layer, nn.Conv2d)]
    if any(name not in tensors or tensors[name].ndim != 4 for name in convs):
        raise SpecError(f'{quoted(path)} is not a tiny decoder of the expected kind; {REMEDY}.')
    channels = tensors[convs[0]].shape[1]
    if channels != spec.latent_channels:
        raise SpecError(f'{quoted(path)} decodes {channels} latent channels, LingBot-World has '
                        f'{spec.latent_channels}; {REMEDY}.')
    return TinySpec(tuple(len(tensors[name]) for name in convs[:-1]))


def newest_rows(tensors: Dict[str, Tensor], expected: Dict[str, Tensor]) -> None:
    """Keep the last frame of layers that could make more frames than are used (in place)."""
    for name, wanted in expected.items():
        rows = len(tensors[name]) if name in tensors and wanted.shape[2:] == (1, 1) else 0
        if rows > len(wanted) and rows % len(wanted) == 0:
            tensors[name] = tensors[name][-len(wanted):]
