# SPDX-License-Identifier: Apache-2.0
"""
What the network is told about the start image: a mask and image latents, 20 channels.

The image is frame 0 of a clip whose other frames are mid-grey; the mask says which frame is given.
The network then denoises all latent frames alike, the first one too.

Axes: b batch, c channel, f latent frames, h w latent rows and columns, H W pixel rows and columns.

Source: LingBot-World v1 (its image-to-video input).
"""
from typing import Optional

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.wan.device import Device
from lingbot_world_ros.models.wan.spec import MASK_CHANNELS, VideoSize
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def mask_latents(num_latents: int, h: int, w: int, first_latent: int = 0,
                 device: Optional[Device] = None) -> Tensor:
    """
    Build the mask of given frames: one in all channels of the clip's first latent frame.

    :param num_latents: f, frames of this chunk or clip
    :param h: rows of latents
    :param w: columns of latents
    :param first_latent: position of the first of them, counted from the start of the clip
    :param device: where the mask lives
    :return: (4, f, h, w) float32, 0 or 1
    """
    mask = torch.zeros(MASK_CHANNELS, num_latents, h, w, device=device)
    if first_latent == 0:
        mask[:, 0] = 1.0
    return mask  # c f h w


def resize_image(rgb: np.ndarray, size: VideoSize) -> Tensor:
    """
    Scale an image to the size of the video as a whole; its shape changes by a few percent at most
    if the size came from ``size_for_image``.

    :param rgb: (H, W, 3) uint8
    :param size: of the video
    :return: (3, H', W') float32 about -1 to 1 on the CPU; bicubic interpolation overshoots a
        little at sharp edges, as it did for the public models
    :raises SpecError: if this is no RGB image
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise SpecError(f'start image of shape {rgb.shape} and {rgb.dtype} is not (height, width, '
                        '3) uint8; convert it to RGB.')
    image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1).float() / 127.5 - 1.0
    # Without antialiasing: so the public models see their images, also much larger ones.
    return F.interpolate(image[None], (size.height_px, size.width_px), mode='bicubic',
                         align_corners=False)[0]  # c H W


def condition(image_latents: Tensor, first_latent: int = 0) -> Tensor:
    """
    Put the mask before the image latents.

    :param image_latents: (1, 16, f, h, w) normalised, of the image and mid-grey after it
    :param first_latent: position of the first of them, counted from the start of the clip
    :return: (1, 20, f, h, w); goes behind the 16 noisy channels
    """
    f, h, w = image_latents.shape[2:]
    mask = mask_latents(f, h, w, first_latent, image_latents.device).to(image_latents.dtype)
    return torch.cat([mask[None], image_latents], 1)  # b c f h w
