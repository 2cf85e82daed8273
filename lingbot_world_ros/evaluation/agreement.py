# SPDX-License-Identifier: Apache-2.0
"""
Whether imagined scores rank policies as true ones do: correlation, rank violation, intervals.

NumPy only. Axes: p policies, e episodes.
"""
from typing import Callable, Dict, Optional, Tuple

import numpy as np

Z_95 = 1.959963984540054  # of the normal distribution
RESAMPLINGS = 2000
QUANTILES = 0.025, 0.975


def wilson(successes: int, trials: int) -> Tuple[float, float]:
    """
    Return the 95 % interval of a share (Wilson 1927).

    :param successes: how often
    :param trials: of how many, at least 1
    :return: low and high end, 0 to 1
    """
    share, square = successes / trials, Z_95 * Z_95 / trials
    middle = (share + square / 2) / (1 + square)
    half = Z_95 * np.sqrt(share * (1 - share) / trials + square / (4 * trials)) / (1 + square)
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def pearson(imagined: np.ndarray, true: np.ndarray) -> float:
    """
    Return the correlation of scores.

    :param imagined: (p,)
    :param true: (p,)
    :return: -1 to 1; NaN where one of them is the same for all policies
    """
    a, b = imagined - imagined.mean(), true - true.mean()
    norm = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norm) if norm > 0.0 else float('nan')


def spearman(imagined: np.ndarray, true: np.ndarray) -> float:
    """
    Return the correlation of ranks; equal scores share their mean rank.

    :param imagined: (p,)
    :param true: (p,)
    :return: -1 to 1; NaN as ``pearson``
    """
    return pearson(_ranks(imagined), _ranks(true))


def mmrv(*, imagined: np.ndarray, true: np.ndarray) -> float:
    """
    Return the mean maximum rank violation of SimplerEnv (Li et al. 2024), the smaller the better.

    For each policy the largest difference in *true* score to a policy that the imagined scores
    put on the other side of it; the mean of these. It is not symmetric, so both have names.

    :param imagined: (p,) scores 0 to 1
    :param true: (p,)
    :return: 0 to 1
    """
    swapped = (imagined[:, None] > imagined) != (true[:, None] > true)
    return float((np.abs(true[:, None] - true) * swapped).max(1).mean())


def agreement(imagined: np.ndarray, true: np.ndarray, seed: int = 0) -> Dict[str, object]:
    """
    Compare imagined with true successes, with intervals by resampling episodes.

    An episode is drawn for both worlds at once, and for all policies, since they were played from
    the same starts.

    :param imagined: (p, e) 0 or 1
    :param true: (p, e), paired
    :param seed: of the resampling
    :return: ``pearson``, ``spearman``, ``mmrv`` and ``difference`` (mean of imagined minus true),
        each with ``value`` and ``interval`` (95 %, None where it cannot be computed)
    """
    measures: Dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        'pearson': lambda i, t: pearson(i.mean(1), t.mean(1)),
        'spearman': lambda i, t: spearman(i.mean(1), t.mean(1)),
        'mmrv': lambda i, t: mmrv(imagined=i.mean(1), true=t.mean(1)),
        'difference': lambda i, t: float(i.mean() - t.mean())}
    rng = np.random.default_rng([seed, 9])
    drawn = [rng.integers(imagined.shape[1], size=imagined.shape[1]) for _ in range(RESAMPLINGS)]
    return {name: {'value': _number(measure(imagined, true)),
                   'interval': _interval([measure(imagined[:, e], true[:, e]) for e in drawn])}
            for name, measure in measures.items()}


def difference_interval(imagined: np.ndarray, true: np.ndarray,
                        seed: int = 0) -> Optional[Tuple[float, float]]:
    """
    Return the 95 % interval of imagined minus true success of one policy, by resampling.

    :param imagined: (e,) 0 or 1
    :param true: (e,), paired
    :param seed: of the resampling
    :return: low and high end
    """
    rng = np.random.default_rng([seed, 10])
    off = imagined.astype(float) - true
    return _interval(off[rng.integers(len(off), size=(RESAMPLINGS, len(off)))].mean(1))


def _ranks(scores: np.ndarray) -> np.ndarray:
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    return (last - (sizes - 1) / 2)[group]


def _number(value: float) -> Optional[float]:
    return None if np.isnan(value) else float(value)


def _interval(values: 'np.ndarray | list') -> Optional[Tuple[float, float]]:
    known = np.asarray(values)[~np.isnan(values)]
    if not known.size:
        return None
    low, high = np.quantile(known, QUANTILES)
    return float(low), float(high)
