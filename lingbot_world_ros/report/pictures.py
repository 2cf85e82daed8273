# SPDX-License-Identifier: Apache-2.0
"""Pictures as data URIs: single frames, differences, short animations. Needs Pillow."""
import base64
import io
from typing import List, NamedTuple, Optional, Sequence

import cv2
import numpy as np
from PIL import Image

DIFFERENCE_GAIN = 3
MAX_PICTURES = 110  # of an animation
LEAST_MS = 80  # per picture where frames are left out
MOVIE_QUALITY = 50  # of WebP, 0 to 100
GAP_PX, BAR_PX = 4, 3
BAR_RGB = (217, 98, 43)


class Movie(NamedTuple):
    """An animation, its first picture standing still, how fast it runs, its size."""

    moving: str
    still: str
    speed: float
    width_px: int
    height_px: int


def data_uri(webp: bytes) -> str:
    """Return a picture as a data URI."""
    return f'data:image/webp;base64,{base64.b64encode(webp).decode("ascii")}'


def picture(rgb: Optional[np.ndarray], quality: int = 82) -> str:
    """
    Encode a picture.

    :param rgb: (h, w, 3) uint8, None for an empty text
    :param quality: of WebP, 0 to 100
    :return: data URI
    """
    if rgb is None:
        return ''
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, 'WEBP', quality=quality, method=4)
    return data_uri(file.getvalue())


def difference(a: Optional[np.ndarray], b: Optional[np.ndarray]) -> Optional[np.ndarray]:
    """
    Show where two pictures differ.

    :param a: (h, w, 3) uint8 or None
    :param b: of the same size, or None
    :return: (h, w, 3) uint8, mean absolute difference ``DIFFERENCE_GAIN`` times; None without two
    """
    if a is None or b is None or a.shape != b.shape:
        return None
    away = np.abs(a.astype(np.int16) - b).mean(-1, keepdims=True) * DIFFERENCE_GAIN
    return np.repeat(np.clip(away, 0, 255).astype(np.uint8), 3, -1)


def evenly(count: int, number: int) -> List[int]:
    """Return up to ``number`` indices from first to last of ``count`` things, evenly spread."""
    return sorted({int(round(i)) for i in np.linspace(0, max(0, count - 1), min(number, count))})


def movie(rows: Sequence[Sequence[Optional[np.ndarray]]], period_s: float) -> Movie:
    """
    Animate frames side by side; a long run is shown faster than it was.

    :param rows: per frame the pictures (h, w, 3) uint8 from left to right, at least one in all;
        one that is missing is replaced by the one before
    :param period_s: sim time between frames
    :return: data URIs and how fast it runs, 1 is real time
    """
    stride = max(1, -(-len(rows) // MAX_PICTURES))
    chosen = range((len(rows) - 1) % stride, len(rows), stride)  # the last one is shown
    wait_ms = round(1000 * period_s) if stride == 1 else LEAST_MS
    images: List[Image.Image] = []
    shown: Sequence[Optional[np.ndarray]] = ()
    for i in chosen:
        shown = [new if new is not None else old for new, old in
                 zip(rows[i], shown or (None,) * len(rows[i]))]
        if any(image is not None for image in shown):
            images.append(Image.fromarray(_beside(shown, (i + 1) / len(rows))))
    file = io.BytesIO()
    images[0].save(file, 'WEBP', save_all=True, append_images=images[1:], duration=wait_ms, loop=0,
                   quality=MOVIE_QUALITY, method=4)
    width, height = images[0].size
    return Movie(data_uri(file.getvalue()), picture(np.asarray(images[0])),
                 stride * period_s * 1000 / wait_ms, width, height)


def _beside(pictures: Sequence[Optional[np.ndarray]], share: float) -> np.ndarray:
    """Put pictures side by side over a bar that shows how far the run is."""
    like = next(p for p in pictures if p is not None)
    tiles = []
    for image in pictures:
        image = np.zeros_like(like) if image is None else image
        tiles += [image if image.shape == like.shape else
                  cv2.resize(image, like.shape[1::-1], interpolation=cv2.INTER_AREA),
                  np.full((like.shape[0], GAP_PX, 3), 255, np.uint8)]
    body = np.concatenate(tiles[:-1], 1)
    bar = np.full((BAR_PX, body.shape[1], 3), 90, np.uint8)
    bar[:, :round(share * body.shape[1])] = BAR_RGB
    return np.concatenate([body, bar])
