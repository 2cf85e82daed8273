# SPDX-License-Identifier: Apache-2.0
"""What the network is told about the start image."""
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from lingbot_world_ros.errors import SpecError  # noqa: E402, I100
from lingbot_world_ros.models.wan.condition import (condition, mask_latents,  # noqa: E402
                                                    resize_image)
from lingbot_world_ros.models.wan.spec import VideoSize  # noqa: E402


def test_only_the_clips_first_latent_frame_is_given():
    first, later = mask_latents(3, 2, 4), mask_latents(3, 2, 4, first_latent=3)
    assert first.shape == (4, 3, 2, 4)
    assert first[:, 0].eq(1).all() and first[:, 1:].eq(0).all()
    assert later.eq(0).all()


def test_mask_is_the_frame_mask_with_frame_zero_four_times():
    frames = torch.zeros(13)
    frames[0] = 1
    stretched = torch.cat([frames[:1].repeat(4), frames[1:]]).view(4, 4).T  # c f
    assert torch.equal(mask_latents(4, 1, 1)[..., 0, 0], stretched)


def test_image_is_scaled_to_the_size_without_cropping_and_centred_on_zero():
    rgb = np.zeros((90, 160, 3), np.uint8)
    rgb[:, 80:] = 255
    image = resize_image(rgb, VideoSize(32, 64))
    assert image.shape == (3, 32, 64) and image.dtype == torch.float32
    assert image[:, :, :30].eq(-1).all() and image[:, :, 34:].eq(1).all()


def test_image_of_the_right_size_is_only_shifted():
    rgb = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    image = resize_image(rgb, VideoSize(16, 32))
    expected = (torch.from_numpy(rgb).permute(2, 0, 1).float() / 255 - 0.5) / 0.5
    torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize('bad', (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
                                 np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)))
def test_other_images_are_refused(bad):
    with pytest.raises(SpecError, match='convert it to RGB'):
        resize_image(bad, VideoSize(16, 16))


def test_mask_comes_before_the_image():
    latents = torch.full((1, 16, 3, 2, 4), 7.0)
    y = condition(latents)
    assert y.shape == (1, 20, 3, 2, 4)
    assert torch.equal(y[0, :4], mask_latents(3, 2, 4)) and y[:, 4:].eq(7).all()
