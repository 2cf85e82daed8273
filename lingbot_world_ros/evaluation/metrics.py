# SPDX-License-Identifier: Apache-2.0
"""
How close imagined frames and states are to true ones; NumPy and OpenCV only.

Images are (..., h, w, 3) uint8 RGB, leading axes are kept. A value that cannot be computed (an
empty region) is NaN, and every summary skips NaN.
"""
from typing import Callable, Optional, Tuple

import cv2
import numpy as np

PSNR_CAP_DB = 60.0  # of identical images, so that means stay finite
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
CONFIDENCE_95 = 0.5 - 0.95 / 2, 0.5 + 0.95 / 2  # quantiles


def mean_squared_error(pred: np.ndarray, true: np.ndarray,
                       mask: Optional[np.ndarray] = None) -> np.ndarray:
    """
    Mean squared error over pixels and channels, of images scaled to 0..1.

    :param pred: (..., h, w, 3) uint8
    :param true: the same shape
    :param mask: (..., h, w) bool, pixels that count; all without it
    :return: (...) float64; NaN where the mask is empty
    """
    difference = (pred.astype(np.float32) - true.astype(np.float32)) / 255.0
    squared = np.square(difference).mean(-1)
    if mask is None:
        return squared.mean((-2, -1), dtype=np.float64)
    count = mask.sum((-2, -1))
    total = np.where(mask, squared, 0.0).sum((-2, -1), dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def psnr(pred: np.ndarray, true: np.ndarray, mask: Optional[np.ndarray] = None) -> np.ndarray:
    """
    Peak signal-to-noise ratio, capped at 60 dB.

    :param pred: (..., h, w, 3) uint8
    :param true: the same shape
    :param mask: (..., h, w) bool, pixels that count; all without it
    :return: (...) float64, dB; NaN where the mask is empty
    """
    error = mean_squared_error(pred, true, mask)
    return -10.0 * np.log10(np.maximum(error, 10.0 ** (-PSNR_CAP_DB / 10.0)))


def luma(rgb: np.ndarray) -> np.ndarray:
    """
    Brightness of an image.

    :param rgb: (..., h, w, 3) uint8
    :return: (..., h, w) float32, 0..255 (ITU-R BT.601)
    """
    return rgb.astype(np.float32) @ LUMA


def ssim(pred: np.ndarray, true: np.ndarray, mask: Optional[np.ndarray] = None) -> np.ndarray:
    """
    Mean structural similarity of the brightness.

    :param pred: (..., h, w, 3) uint8
    :param true: the same shape
    :param mask: (..., h, w) bool, window centres that count; all without it
    :return: (...) float64, at most 1; NaN where the mask is empty

    Source: Wang et al. 2004, 11x11 Gaussian window of 1.5 pixels, K1 = 0.01, K2 = 0.03.
    """
    lead, (height, width) = pred.shape[:-3], pred.shape[-3:-1]
    a = luma(pred).reshape(-1, height, width)
    b = luma(true).reshape(-1, height, width)
    masks = np.ones(a.shape, bool) if mask is None else mask.reshape(a.shape)
    values = [_masked_mean(_ssim_map(x, y), m) for x, y, m in zip(a, b, masks)]
    return np.array(values, np.float64).reshape(lead)


def _ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a ** 2, blur(b * b) - mean_b ** 2
    cov = blur(a * b) - mean_a * mean_b
    return ((2 * mean_a * mean_b + c1) * (2 * cov + c2)
            / ((mean_a ** 2 + mean_b ** 2 + c1) * (var_a + var_b + c2)))


def _masked_mean(values: np.ndarray, mask: np.ndarray) -> float:
    return values[mask].mean(dtype=np.float64) if mask.any() else np.nan


def gradient_magnitude(rgb: np.ndarray) -> np.ndarray:
    """
    Mean length of the brightness gradient, forward differences; the sharpness of an image.

    :param rgb: (..., h, w, 3) uint8
    :return: (...) float64, brightness steps per pixel
    """
    y = luma(rgb)
    dx, dy = np.diff(y, axis=-1)[..., :-1, :], np.diff(y, axis=-2)[..., :, :-1]
    return np.hypot(dx, dy).mean((-2, -1), dtype=np.float64)


def depth_errors(pred_m: np.ndarray, true_m: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """
    Absolute relative and RMS depth error over pixels with a finite, positive true depth.

    :param pred_m: (..., h, w) float, metres
    :param true_m: the same shape
    :return: (...) relative error (1 is 100 %), (...) RMS error in metres
    """
    valid = np.isfinite(true_m) & (true_m > 0)
    true = np.where(valid, true_m, 1.0).astype(np.float64)
    difference = np.where(valid, pred_m, 1.0) - true
    count = np.maximum(valid.sum((-2, -1)), 1)
    empty = ~valid.any((-2, -1))
    relative = np.abs(difference / true).sum((-2, -1)) / count
    rms = np.sqrt(np.square(difference).sum((-2, -1)) / count)
    return np.where(empty, np.nan, relative), np.where(empty, np.nan, rms)


def wrap_angle(angle_rad: np.ndarray) -> np.ndarray:
    """
    Bring angles into [-pi, pi).

    :param angle_rad: any shape, rad
    :return: the same shape, float64
    """
    return (np.asarray(angle_rad, np.float64) + np.pi) % (2 * np.pi) - np.pi


def ranks(values: np.ndarray) -> np.ndarray:
    """
    Rank values from 1; ties share the mean of their ranks.

    :param values: (n,)
    :return: (n,) float64
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - 0.5 * (counts - 1))[inverse].astype(np.float64)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """
    Rank correlation; pairs with a NaN are left out.

    :param a: any shape
    :param b: the same shape
    :return: -1..1; NaN with fewer than three pairs or a constant side
    """
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    ra, rb = ranks(a[both]), ranks(b[both])
    if len(ra) < 3 or np.ptp(ra) == 0 or np.ptp(rb) == 0:
        return float('nan')
    return float(np.corrcoef(ra, rb)[0, 1])


def area_under_roc(score: np.ndarray, positive: np.ndarray) -> float:
    """
    Probability that a random positive scores above a random negative; ties count half.

    :param score: any shape
    :param positive: the same shape, bool
    :return: 0..1; NaN without positives or without negatives
    """
    score, positive = np.ravel(score), np.ravel(positive).astype(bool)
    num_pos, num_neg = int(positive.sum()), int((~positive).sum())
    if num_pos == 0 or num_neg == 0:
        return float('nan')
    rank_sum = ranks(score)[positive].sum()
    return float((rank_sum - num_pos * (num_pos + 1) / 2) / (num_pos * num_neg))


def bootstrap_mean(values: np.ndarray, weights: Optional[np.ndarray] = None,
                   num_draws: int = 2000) -> Tuple[float, float, float]:
    """
    Mean over sequences with a 95 % percentile bootstrap confidence interval.

    :param values: (n,), one number per sequence; NaN entries are left out
    :param weights: (n,) denominators: the summary is then sum(values) / sum(weights)
    :param num_draws: bootstrap resamples
    :return: mean, low, high; NaN without a finite value
    """
    values = np.asarray(values, np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    finite = np.isfinite(values) & np.isfinite(weights)
    values, weights = values[finite], weights[finite]
    if len(values) == 0 or weights.sum() == 0:
        return float('nan'), float('nan'), float('nan')
    draws = np.random.default_rng(0).integers(len(values), size=(num_draws, len(values)))
    means = values[draws].sum(1) / np.maximum(weights[draws].sum(1), 1e-12)
    low, high = np.quantile(means, CONFIDENCE_95)
    return float(values.sum()) / float(weights.sum()), float(low), float(high)


def bootstrap_rows(statistic: Callable[..., float],
                   *arrays: np.ndarray) -> Tuple[float, float, float]:
    """
    Any statistic of whole sequences with a 95 % percentile bootstrap confidence interval.

    :param statistic: called with the arrays, returns a number
    :param arrays: (n, ...) each; row i of all of them belongs to sequence i
    :return: statistic, low, high
    """
    rng, count = np.random.default_rng(0), len(arrays[0])
    draws = [rng.integers(count, size=count) for _ in range(300)]
    values = [statistic(*(a[rows] for a in arrays)) for rows in draws]
    low, high = np.nanquantile(values, CONFIDENCE_95)
    return float(statistic(*arrays)), float(low), float(high)
