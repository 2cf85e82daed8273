# SPDX-License-Identifier: Apache-2.0
"""Metrics against values computed by hand."""
import numpy as np
import pytest

pytest.importorskip('cv2')

from lingbot_world_ros.evaluation import metrics  # noqa: E402, I100


def image(value, height=24, width=32):
    return np.full((height, width, 3), value, np.uint8)


def test_psnr_of_a_constant_difference():
    # 51 of 255 is 0.2: MSE 0.04, 10 log10(1 / 0.04) = 13.979 dB
    assert metrics.psnr(image(100), image(151)) == pytest.approx(13.9794, abs=1e-3)


def test_psnr_keeps_leading_axes_and_caps_identical_images():
    pred = np.stack([[image(0), image(10)], [image(20), image(30)]])
    values = metrics.psnr(pred, np.broadcast_to(image(0), pred.shape))
    assert values.shape == (2, 2)
    assert values[0, 0] == 60.0 and np.all(np.diff(values.ravel()) < 0)


def test_masked_psnr_counts_only_the_mask():
    pred, mask = image(0), np.zeros((24, 32), bool)
    pred[:4] = 255
    mask[:8] = True  # half of the masked pixels are wrong by 1.0: MSE 0.5
    assert metrics.psnr(pred, image(0), mask) == pytest.approx(3.0103, abs=1e-3)
    assert np.isnan(metrics.psnr(pred, image(0), np.zeros_like(mask)))


def test_ssim_is_one_for_equal_and_follows_the_formula_for_flat_images():
    texture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    assert metrics.ssim(texture, texture) == pytest.approx(1.0, abs=1e-6)
    # flat images: only the brightness term is left, (2 m n + c1) / (m^2 + n^2 + c1)
    c1 = 2.55 ** 2
    expected = (2 * 100 * 150 + c1) / (100 ** 2 + 150 ** 2 + c1)
    assert metrics.ssim(image(100), image(150)) == pytest.approx(expected, abs=1e-3)


def test_ssim_falls_when_noise_grows():
    rng = np.random.default_rng(1)
    true = np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], 24, 0).repeat(3, 2)
    noisy = [np.clip(true + rng.normal(0, s, true.shape), 0, 255).astype(np.uint8)
             for s in (2, 10, 40)]
    values = metrics.ssim(np.stack(noisy), np.stack([true] * 3))
    assert values.shape == (3,) and np.all(np.diff(values) < -0.01)


def test_gradient_of_a_ramp_and_of_a_flat_image():
    ramp = np.repeat(np.arange(32, dtype=np.uint8)[None, :, None] * 4, 24, 0).repeat(3, 2)
    assert metrics.gradient_magnitude(ramp) == pytest.approx(4.0, abs=1e-3)
    assert metrics.gradient_magnitude(image(90)) == 0.0


def test_depth_errors_skip_pixels_without_true_depth():
    true = np.array([[[1.0, 2.0], [0.0, np.inf]]])
    pred = np.array([[[1.5, 2.0], [9.0, 9.0]]])
    relative, rms = metrics.depth_errors(pred, true)
    assert relative[0] == pytest.approx(0.25)
    assert rms[0] == pytest.approx(np.sqrt(0.125))
    assert np.isnan(metrics.depth_errors(pred, np.zeros_like(true))[0][0])


def test_wrap_angle_crosses_the_seam():
    wrapped = metrics.wrap_angle(np.array([3.5, -3.5, 2 * np.pi + 0.1, 0.3]))
    assert wrapped == pytest.approx([3.5 - 2 * np.pi, 2 * np.pi - 3.5, 0.1, 0.3])


def test_ranks_share_ties():
    assert metrics.ranks(np.array([30, 10, 20, 20])).tolist() == [4.0, 1.0, 2.5, 2.5]


def test_spearman_by_hand():
    assert metrics.spearman([1, 2, 3, 4], [1, 8, 27, 64]) == pytest.approx(1.0)
    assert metrics.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    # d = (0, -1, 1, 0): 1 - 6 * 2 / (4 * 15) = 0.8
    assert metrics.spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert np.isnan(metrics.spearman([1, 1, 1], [1, 2, 3]))
    assert metrics.spearman([1, np.nan, 2, 3], [1, 0, 2, 3]) == pytest.approx(1.0)


def test_area_under_roc_by_hand():
    # positives 3 and 1, negatives 2 and 0: pairs won 3>2, 3>0, 1>0 of 4
    assert metrics.area_under_roc([3, 2, 1, 0], [1, 0, 1, 0]) == pytest.approx(0.75)
    assert np.isnan(metrics.area_under_roc([1, 2], [1, 1]))


def test_bootstrap_interval_holds_the_mean_shrinks_and_is_seeded():
    values = np.random.default_rng(0).normal(5.0, 1.0, 400)
    few, many = metrics.bootstrap_mean(values[:25]), metrics.bootstrap_mean(values)
    assert many[0] == pytest.approx(values.mean())
    assert many[1] < values.mean() < many[2]
    assert many[2] - many[1] == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert few[2] - few[1] > 2 * (many[2] - many[1])
    assert metrics.bootstrap_mean(values) == many


def test_bootstrap_of_a_ratio_and_of_nothing():
    mean, low, high = metrics.bootstrap_mean([1.0, 2.0, 3.0], weights=[2.0, 4.0, 6.0])
    assert (mean, low, high) == pytest.approx((0.5, 0.5, 0.5))
    assert np.isnan(metrics.bootstrap_mean([np.nan, np.nan])).all()


def test_bootstrap_rows_resamples_whole_sequences():
    a = np.random.default_rng(3).normal(size=(60, 4))
    b = a + 0.5 * np.random.default_rng(4).normal(size=(60, 4))
    value, low, high = metrics.bootstrap_rows(metrics.spearman, a, b)
    assert value == metrics.spearman(a, b) and 0.7 < low < value < high < 0.97
