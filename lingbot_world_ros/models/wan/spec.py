# SPDX-License-Identifier: Apache-2.0
"""
Sizes of LingBot-World's diffusion transformer and of the videos it works on. No torch.

The backbone is that of Wan2.2 (image to video), with camera adapters in every block.
"""
from dataclasses import dataclass, fields
import math
from typing import Dict, Tuple

from lingbot_world_ros.actions.camera_path import FRAMES_PER_LATENT
from lingbot_world_ros.errors import SpecError

PATCH = (1, 2, 2)  # latent frames, rows, columns per token
VAE_STRIDE = (FRAMES_PER_LATENT, 8, 8)  # frames, rows, columns of pixels per latent
LATENT_CHANNELS = 16
MASK_CHANNELS = 4
PIXELS_PER_TOKEN = VAE_STRIDE[1] * PATCH[1]  # along each axis
CONTROL_KINDS = {0: 'none', 6: 'camera', 7: 'act'}


@dataclass(frozen=True)
class DiTSpec:
    """
    Sizes of one network; all other numbers follow from these.

    ``control_channels`` per pixel: 6 are a camera ray (origin, direction), 7 are its direction and
    four keys, 0 is a network without adapters.
    """

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_channels: int = 2 * LATENT_CHANNELS + MASK_CHANNELS
    out_channels: int = LATENT_CHANNELS
    freq_dim: int = 256
    text_dim: int = 4096
    text_len: int = 512
    eps: float = 1e-6
    control_channels: int = 6

    def __post_init__(self) -> None:
        """Refuse sizes that no network has."""
        for field in fields(self):
            value = getattr(self, field.name)
            low = 0 if field.name in ('control_channels', 'eps') else 1
            if not value >= low:
                raise SpecError(f'{field.name}={value} of the network must be at least {low}.')
        if self.dim % self.num_heads or self.head_dim % 2:
            raise SpecError(f'dim={self.dim} is not an even multiple of num_heads='
                            f'{self.num_heads}; check config.json.')
        if self.control_channels not in CONTROL_KINDS:
            raise SpecError(f'control_channels={self.control_channels} is none of 0, 6 (camera) '
                            'and 7 (act).')

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.num_heads

    @property
    def patch_size(self) -> int:
        """Latents in one token, per channel."""
        return math.prod(PATCH)

    @property
    def control_width(self) -> int:
        """Numbers in one camera token: the control channels of its 16 x 16 pixels."""
        return self.control_channels * PIXELS_PER_TOKEN ** 2

    @property
    def rope_dims(self) -> Tuple[int, int, int]:
        """How many of a head's dimensions turn with time, row and column; they add up."""
        plane = 2 * (self.head_dim // 6)
        return self.head_dim - 2 * plane, plane, plane

    def tensor_shapes(self) -> Dict[str, Tuple[int, ...]]:
        """
        List what a checkpoint holds.

        :return: public tensor name -> shape, 21 global ones and 35 per block with adapters
        """
        d = self.dim
        shapes: Dict[str, Tuple[int, ...]] = {}

        def linear(name: str, out_width: int, in_width: int) -> None:
            shapes[f'{name}.weight'] = (out_width, in_width)
            shapes[f'{name}.bias'] = (out_width,)

        shapes['patch_embedding.weight'] = (d, self.in_channels, *PATCH)
        shapes['patch_embedding.bias'] = (d,)
        if self.control_channels:
            linear('patch_embedding_wancamctrl', d, self.control_width)
            linear('c2ws_hidden_states_layer1', d, d)
            linear('c2ws_hidden_states_layer2', d, d)
        linear('text_embedding.0', d, self.text_dim)
        linear('text_embedding.2', d, d)
        linear('time_embedding.0', d, self.freq_dim)
        linear('time_embedding.2', d, d)
        linear('time_projection.1', 6 * d, d)
        shapes['head.modulation'] = (1, 2, d)
        linear('head.head', self.out_channels * self.patch_size, d)
        for i in range(self.num_layers):
            block = f'blocks.{i}'
            shapes[f'{block}.modulation'] = (1, 6, d)
            for attention in ('self_attn', 'cross_attn'):
                for name in 'qkvo':
                    linear(f'{block}.{attention}.{name}', d, d)
                for name in ('norm_q', 'norm_k'):
                    shapes[f'{block}.{attention}.{name}.weight'] = (d,)
            shapes[f'{block}.norm3.weight'] = shapes[f'{block}.norm3.bias'] = (d,)
            linear(f'{block}.ffn.0', self.ffn_dim, d)
            linear(f'{block}.ffn.2', d, self.ffn_dim)
            if self.control_channels:
                for name in ('cam_injector_layer1', 'cam_injector_layer2', 'cam_scale_layer',
                             'cam_shift_layer'):
                    linear(f'{block}.{name}', d, d)
        return shapes

    @property
    def num_tensors(self) -> int:
        """Tensors of a checkpoint."""
        return len(self.tensor_shapes())

    @property
    def num_parameters(self) -> int:
        """Numbers in a checkpoint."""
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())


LINGBOT_14B = DiTSpec(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40)
LINGBOT_1_3B = DiTSpec(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30)


@dataclass(frozen=True)
class VideoSize:
    """Pixels of one frame; multiples of 16."""

    height_px: int
    width_px: int

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide into tokens."""
        for name in ('height_px', 'width_px'):
            value = getattr(self, name)
            if value < PIXELS_PER_TOKEN or value % PIXELS_PER_TOKEN:
                low = max(1, value // PIXELS_PER_TOKEN) * PIXELS_PER_TOKEN
                raise SpecError(f'{name}={value} is not a multiple of {PIXELS_PER_TOKEN}; use '
                                f'{low} or {low + PIXELS_PER_TOKEN}.')

    @property
    def latent(self) -> Tuple[int, int]:
        """Rows and columns of one latent frame."""
        return self.height_px // VAE_STRIDE[1], self.width_px // VAE_STRIDE[2]

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of tokens in one latent frame."""
        return self.height_px // PIXELS_PER_TOKEN, self.width_px // PIXELS_PER_TOKEN

    @property
    def tokens_per_latent(self) -> int:
        """Tokens in one latent frame."""
        return math.prod(self.grid)


def size_for_image(height_px: int, width_px: int, area_px: int) -> VideoSize:
    """
    Choose the video's size for an image the way the public scripts do.

    :param height_px: of the image
    :param width_px: of the image
    :param area_px: wanted pixels per frame, for example ``480 * 832``
    :return: about that area in about the image's shape; 464 x 832 for 16:9 at 480p

    Source: LingBot-World v1 (size rule of its image-to-video script).
    """
    if min(height_px, width_px, area_px) < 1:
        raise SpecError(f'image of {width_px} x {height_px} at {area_px} pixels: all must be more '
                        'than 0.')
    ratio = height_px / width_px
    rows = int(math.sqrt(area_px * ratio) // VAE_STRIDE[1] // PATCH[1])
    columns = int(math.sqrt(area_px / ratio) // VAE_STRIDE[2] // PATCH[2])
    return VideoSize(max(rows, 1) * PIXELS_PER_TOKEN, max(columns, 1) * PIXELS_PER_TOKEN)


def num_latents(num_frames: int) -> int:
    """Return how many latent frames hold ``num_frames`` pixel frames, which is 4n + 1."""
    if num_frames < 1 or (num_frames - 1) % FRAMES_PER_LATENT:
        low = max(0, num_frames - 1) // FRAMES_PER_LATENT * FRAMES_PER_LATENT + 1
        raise SpecError(f'num_frames={num_frames} is not 4n + 1; use {low} or '
                        f'{low + FRAMES_PER_LATENT}.')
    return (num_frames - 1) // FRAMES_PER_LATENT + 1
