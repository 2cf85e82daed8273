# SPDX-License-Identifier: Apache-2.0
"""
How unlike the pictures of the training a true picture is. NumPy and OpenCV only.

What stands around tells places apart, the floor before a robot looks alike everywhere: so the
upper third of the picture, made small, is compared with those of the training.
Axes: n pictures, k principal axes.
"""
from typing import Dict, Sequence

import cv2
import numpy as np

WIDTH, HEIGHT = 32, 24  # of a small picture, of which the upper third counts
ROWS = HEIGHT // 3
AXES = 64
MAX_KEPT = 3000  # pictures of the training
NEW = 0.3  # weight of the newest picture in the running mean
NAMES = 'familiar_mean', 'familiar_axes', 'familiar_codes'


class Familiar:
    """The training's pictures, as codes on principal axes."""

    def __init__(self, tensors: Dict[str, np.ndarray]):
        """
        Take what ``learn_familiar`` found.

        :param tensors: ``NAMES`` -> (f,), (f, k), (n, k)
        """
        self._mean, self._axes, self._codes = (np.asarray(tensors[name], np.float32)
                                               for name in NAMES)
        self._squares = np.square(self._codes).sum(1)

    def strangeness(self, rgb: np.ndarray) -> np.ndarray:
        """
        Compare with the most similar picture of the training.

        :param rgb: (n, h, w, 3) uint8
        :return: (n,) RMS difference, 0..1
        """
        small = small_pictures(rgb) - self._mean
        codes = small @ self._axes
        beside = np.square(small).sum(1) - np.square(codes).sum(1)  # on no axis
        along = np.square(codes).sum(1)[:, None] + self._squares - 2 * codes @ self._codes.T
        squares = np.maximum(along.min(1), 0) + np.maximum(beside, 0)
        return np.sqrt(squares / len(self._mean)).astype(np.float32)

    def after(self, before: np.ndarray, rgb: np.ndarray) -> np.ndarray:
        """
        Carry the running mean on.

        :param before: (n,) of the picture before
        :param rgb: (n, h, w, 3) uint8
        :return: (n,)
        """
        return before + np.float32(NEW) * (self.strangeness(rgb) - before)


def learn_familiar(pictures: Sequence[np.ndarray]) -> Dict[str, np.ndarray]:
    """
    Keep what the training's pictures look like.

    :param pictures: (n, h, w, 3) uint8 each
    :return: ``NAMES`` -> float32 arrays
    """
    small = np.concatenate([small_pictures(part) for part in pictures])
    mean = small.mean(0)
    _, _, axes = np.linalg.svd(small - mean, full_matrices=False)
    chosen = axes[:AXES].T
    return dict(zip(NAMES, (mean, np.ascontiguousarray(chosen), (small - mean) @ chosen)))


def small_pictures(rgb: np.ndarray) -> np.ndarray:
    """
    Return what is compared: the upper third, small, without its mean colour.

    :param rgb: (n, h, w, 3) uint8
    :return: (n, f) float32
    """
    small = np.stack([cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)[:ROWS]
                      for picture in np.ascontiguousarray(rgb)]).astype(np.float32) / 255
    return (small - small.mean((1, 2), keepdims=True)).reshape(len(small), -1)
