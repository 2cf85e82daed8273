# SPDX-License-Identifier: Apache-2.0
"""
What encodes start images and decodes latents, as streams and clips see it.

``vae`` and ``tiny_vae`` are such; so is what stands for them where several processes share work.
"""
from typing import Any, Protocol, Tuple

from torch import Tensor


class VideoDecoder(Protocol):
    """Turns latents into video, part by part."""

    def decode_chunk(self, latents: Tensor, cache: Any) -> Tuple[Tensor, Any]:
        """
        Decode the next latents of a stream.

        :param latents: (b, 16, f, h, w) float32 normalised
        :param cache: what the call before returned; None starts a stream
        :return: video (b, 3, T, H, W) float32 about -1 to 1, and the cache after it
        """


class VideoCodec(VideoDecoder, Protocol):
    """Encodes start images too."""

    @property
    def settled_latents(self) -> int:
        """Latents of an image and grey frames after it that differ; all later ones are equal."""

    def start_condition(self, image: Tensor, num_latents: int) -> Tensor:
        """
        Encode an image that is followed by mid-grey frames.

        :param image: (3, H, W) float32 -1 to 1
        :param num_latents: f, at least 1
        :return: (16, f, h, w) float32 normalised
        """
