# SPDX-License-Identifier: Apache-2.0
"""Procedural materials of the reference world: small RGB images drawn with NumPy and OpenCV."""
from typing import Callable, Sequence, Tuple
import zlib

import cv2
import numpy as np

Colour = Tuple[float, float, float]  # red, green, blue, 0..1
Painter = Callable[[np.random.Generator, int, str], np.ndarray]  # of size and material

# Plain materials: base colour and strength of a soft mottling, both 0..1.
_PLAIN = {
    'ceiling': ((0.93, 0.93, 0.90), 0.0), 'sofa': ((0.23, 0.42, 0.55), 0.05),
    'sofa_dark': ((0.16, 0.32, 0.45), 0.05), 'metal': ((0.35, 0.37, 0.40), 0.02),
    'lamp': ((0.98, 0.90, 0.62), 0.0), 'terracotta': ((0.72, 0.38, 0.24), 0.05),
    'leaves': ((0.20, 0.48, 0.20), 0.30), 'desk_white': ((0.88, 0.87, 0.83), 0.02),
    'red': ((0.78, 0.16, 0.14), 0.03), 'fabric_green': ((0.25, 0.55, 0.35), 0.08),
    'fabric_red': ((0.75, 0.22, 0.25), 0.08), 'cabinet_white': ((0.85, 0.86, 0.88), 0.02),
    'divider': ((0.80, 0.76, 0.66), 0.02), 'yellow': ((0.95, 0.80, 0.15), 0.02),
    'barrel_blue': ((0.15, 0.32, 0.65), 0.04), 'barrel_rust': ((0.55, 0.30, 0.15), 0.15),
    'bin': ((0.20, 0.55, 0.75), 0.03), 'toolbox': ((0.80, 0.15, 0.12), 0.02),
    'arm_orange': ((0.95, 0.50, 0.10), 0.0), 'arm_grey': ((0.55, 0.57, 0.60), 0.0),
    'arm_dark': ((0.12, 0.12, 0.14), 0.0), 'arm_white': ((0.92, 0.92, 0.94), 0.0),
}


def texture(material: str, size_px: int = 256) -> np.ndarray:
    """
    Draw the image of a material.

    :param material: a material name of the scenes
    :param size_px: height and width
    :return: (size_px, size_px, 3) uint8 rgb; the same on every call
    """
    rng = np.random.default_rng(zlib.crc32(material.encode()))
    if material in _PLAIN:
        colour, amount = _PLAIN[material]
        image = np.ones((size_px, size_px, 3)) * colour
        return _to_uint8(image * (1 + amount * _noise(rng, size_px, 6)[..., None]))
    for suffix, draw in _DRAWERS:
        if material.startswith(suffix):
            return _to_uint8(draw(rng, size_px, material))
    raise AssertionError(f'material {material!r} has no texture')


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _noise(rng: np.random.Generator, n: int, cells: int) -> np.ndarray:
    """Smooth noise, (n, n), about -1..1."""
    coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (n, n), interpolation=cv2.INTER_CUBIC)


def _planks(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    dark = 'dark' in material
    base = np.array((0.36, 0.22, 0.13) if dark else (0.70, 0.50, 0.32))
    image = np.zeros((n, n, 3))
    rows = 4
    for row in range(rows):
        tone = base * rng.uniform(0.82, 1.15)
        y0, y1 = row * n // rows, (row + 1) * n // rows
        grain = np.repeat(rng.uniform(0.94, 1.06, (y1 - y0, 1)), n, 1)
        image[y0:y1] = tone * grain[..., None]
        image[y0:y0 + n // 64] *= 0.55
    return image


def _living_floor(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    image = np.zeros((n, n, 3))
    for row in range(6):
        for col in range(3):
            tone = np.array((0.66, 0.47, 0.31)) * rng.uniform(0.75, 1.2)
            y0, y1 = row * n // 6, (row + 1) * n // 6
            x0 = (col * n // 3 + (row % 2) * n // 6)
            cols = np.arange(x0, x0 + n // 3) % n
            image[y0:y1, cols] = tone
            image[y0:y1, cols[:max(1, n // 96)]] *= 0.5
        image[y0:y0 + max(1, n // 96)] *= 0.5
    return image


def _checker(colour_a: Sequence[float], colour_b: Sequence[float], cells: int) -> Painter:
    def draw(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
        index = np.arange(n) * cells // n
        mask = ((index[:, None] + index[None]) % 2)[..., None]
        tones = rng.uniform(0.93, 1.05, (cells, cells))[index[:, None], index[None]]
        return np.where(mask, colour_a, colour_b) * tones[..., None]
    return draw


def _concrete(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    image = np.ones((n, n, 3)) * (0.52, 0.53, 0.52)
    image *= 1 + 0.10 * _noise(rng, n, 9)[..., None] + 0.06 * _noise(rng, n, 24)[..., None]
    cv2.line(image, (0, n // 2), (n, n // 2), (0.93, 0.78, 0.12), n // 24)
    cv2.line(image, (n // 2, 0), (n // 2, n), (0.35, 0.36, 0.36), n // 80)
    return image


def _wall(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    style, side = material.split('_wall_')
    colours = {'living': {'south': (0.86, 0.78, 0.62), 'north': (0.74, 0.82, 0.78),
                          'west': (0.90, 0.86, 0.78), 'east': (0.80, 0.66, 0.60)},
               'office': {'south': (0.78, 0.82, 0.88), 'north': (0.86, 0.85, 0.80),
                          'west': (0.66, 0.74, 0.80), 'east': (0.84, 0.80, 0.86)},
               'workshop': {'south': (0.70, 0.66, 0.60), 'north': (0.72, 0.74, 0.68),
                            'west': (0.68, 0.50, 0.42), 'east': (0.62, 0.68, 0.72)}}
    image = np.ones((n, n, 3)) * colours[style][side]
    image *= 1 + 0.03 * _noise(rng, n, 7)[..., None]
    if style == 'living':
        for x in range(0, n, n // 12):
            image[:, x:x + n // 40] *= 0.92
    if style == 'workshop':
        for row in range(12):
            image[row * n // 12:row * n // 12 + n // 100 + 1] *= 0.82
            offset = (row % 2) * n // 16
            for col in range(8):
                x = col * n // 8 + offset
                image[row * n // 12:(row + 1) * n // 12, x:x + n // 100 + 1] *= 0.85
    skirting = n // 24
    image[-skirting:] *= 0.6
    return image


def _spines(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    """Books or binders: rows of coloured spines."""
    image = np.ones((n, n, 3)) * (0.30, 0.20, 0.13)
    rows = 4 if material == 'books' else 3
    for row in range(rows):
        x = n // 40
        while x < n - n // 16:
            width = int(rng.integers(n // 28, n // 12))
            height = int(n / rows * rng.uniform(0.62, 0.85))
            colour = rng.uniform(0.15, 0.95, 3) if material == 'books' else \
                [(0.15, 0.3, 0.6), (0.75, 0.75, 0.75), (0.7, 0.2, 0.2)][rng.integers(3)]
            y1 = (row + 1) * n // rows - n // 40
            image[y1 - height:y1, x:x + width - 2] = colour
            x += width
    return image


def _screen(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    image = np.ones((n, n, 3)) * (0.05, 0.06, 0.08)
    image[n // 10:-n // 10, n // 14:-n // 14] = (0.10, 0.20, 0.32)
    cv2.rectangle(image, (n // 6, n // 4), (n // 2, n // 2), (0.25, 0.55, 0.75), -1)
    cv2.rectangle(image, (n // 6, 5 * n // 8), (3 * n // 4, 11 * n // 16), (0.6, 0.65, 0.7), -1)
    return image


def _rug(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    image = np.ones((n, n, 3)) * (0.62, 0.18, 0.20)
    for k, colour in enumerate([(0.88, 0.80, 0.62), (0.62, 0.18, 0.20), (0.20, 0.26, 0.45),
                                (0.88, 0.80, 0.62)]):
        m = (k + 1) * n // 12
        cv2.rectangle(image, (m, m), (n - m, n - m), colour, -1)
    cv2.circle(image, (n // 2, n // 2), n // 8, (0.62, 0.18, 0.20), -1)
    return image


def _painting(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    if material.endswith('sun'):
        image = np.ones((n, n, 3)) * (0.95, 0.70, 0.35)
        image[5 * n // 8:] = (0.20, 0.40, 0.55)
        cv2.circle(image, (n // 2, n // 2), n // 5, (0.90, 0.25, 0.15), -1)
    elif material.endswith('waves'):
        y, x = np.mgrid[0:n, 0:n] / n
        wave = np.sin(2 * np.pi * (3 * y + 0.35 * np.sin(2 * np.pi * x * 1.5)))[..., None] > 0
        image = np.where(wave, (0.12, 0.35, 0.60), (0.85, 0.90, 0.92))
    else:
        image = np.ones((n, n, 3)) * (0.94, 0.92, 0.86)
        for colour in [(0.85, 0.2, 0.15), (0.15, 0.3, 0.7), (0.95, 0.8, 0.1), (0.1, 0.1, 0.1),
                       (0.2, 0.6, 0.3)]:
            x, y = rng.integers(n // 12, 2 * n // 3, 2)
            w, h = rng.integers(n // 8, n // 3, 2)
            cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), colour, -1)
    return _framed(image, (0.25, 0.16, 0.08))


def _framed(image: np.ndarray, colour: Colour) -> np.ndarray:
    n = len(image)
    m = n // 16
    image = image.copy()
    image[:m] = image[-m:] = image[:, :m] = image[:, -m:] = colour
    return image


def _window(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    y = np.linspace(0, 1, n)[:, None, None]
    image = (1 - y) * np.array((0.45, 0.70, 0.95)) + y * np.array((0.85, 0.93, 0.98))
    image = np.repeat(image, n, 1)
    image[3 * n // 4:] = (0.35, 0.55, 0.30)
    image = _framed(image, (0.95, 0.95, 0.95))
    image[:, n // 2 - n // 40:n // 2 + n // 40] = (0.95, 0.95, 0.95)
    return image


def _whiteboard(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    image = np.ones((n, n, 3)) * (0.96, 0.97, 0.97)
    for colour, y in [((0.8, 0.15, 0.15), 4), ((0.1, 0.25, 0.7), 7), ((0.1, 0.5, 0.2), 10)]:
        cv2.line(image, (n // 8, y * n // 16), (int(n * rng.uniform(0.5, 0.8)), y * n // 16),
                 colour, n // 40)
    cv2.rectangle(image, (5 * n // 8, n // 2), (7 * n // 8, 7 * n // 8), (0.1, 0.25, 0.7), n // 60)
    return _framed(image, (0.4, 0.42, 0.45))


def _door(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    base = {'door_blue': (0.20, 0.36, 0.58), 'door_green': (0.22, 0.46, 0.34),
            'door_metal': (0.58, 0.60, 0.62)}[material]
    image = np.ones((n, n, 3)) * base
    for y0, y1 in ((2, 7), (9, 14)):
        cv2.rectangle(image, (n // 5, y0 * n // 16), (4 * n // 5, y1 * n // 16),
                      tuple(0.8 * np.array(base)), -1)
    cv2.circle(image, (7 * n // 8, n // 2), n // 24, (0.90, 0.80, 0.30), -1)
    return _framed(image, (0.85, 0.82, 0.75))


def _crate(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    base = (0.30, 0.55, 0.30) if 'green' in material else (0.72, 0.55, 0.34)
    image = _planks(rng, n, 'wood') / np.array((0.70, 0.50, 0.32)) * base
    edge = tuple(0.65 * np.array(base))
    cv2.rectangle(image, (0, 0), (n - 1, n - 1), edge, n // 7)
    cv2.line(image, (0, 0), (n, n), edge, n // 9)
    return image


def _stripes(*colours: Colour) -> Painter:
    def draw(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
        index = (np.arange(n) * 2 * len(colours) // n) % len(colours)
        return np.repeat(np.array(colours)[index][:, None], n, 1)
    return draw


def _parcel(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    image = np.ones((n, n, 3)) * (0.76, 0.58, 0.38)
    image[:, 7 * n // 16:9 * n // 16] = (0.88, 0.80, 0.62)
    cv2.rectangle(image, (n // 8, n // 8), (3 * n // 8, 3 * n // 8), (0.97, 0.97, 0.95), -1)
    return image


def _locker(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    base = np.array((0.35, 0.50, 0.55) if material == 'locker' else (0.90, 0.52, 0.18))
    image = np.ones((n, n, 3)) * base
    for k in range(3):
        x0, x1 = k * n // 3 + n // 50, (k + 1) * n // 3 - n // 50
        cv2.rectangle(image, (x0, n // 30), (x1, n - n // 30), tuple(0.85 * base), n // 80)
        cv2.rectangle(image, (x0 + n // 16, n // 8), (x1 - n // 16, n // 5), tuple(0.6 * base), -1)
    return image


def _toolwall(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    image = np.ones((n, n, 3)) * (0.42, 0.30, 0.20)
    for k in range(6):
        x = (2 * k + 1) * n // 12
        colour = tuple(rng.uniform(0.3, 1.0, 3))
        cv2.rectangle(image, (x - n // 60, n // 6), (x + n // 60, 3 * n // 4),
                      (0.7, 0.7, 0.72), -1)
        cv2.rectangle(image, (x - n // 22, n // 2), (x + n // 22, 5 * n // 6), colour, -1)
    return image


def _sign(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    image = np.ones((n, n, 3)) * (0.96, 0.80, 0.12)
    points = np.array([[n // 2, n // 6], [5 * n // 6, 5 * n // 6], [n // 6, 5 * n // 6]])
    cv2.fillPoly(image, [points.astype(np.int32)], (0.08, 0.08, 0.08))
    cv2.rectangle(image, (15 * n // 32, 3 * n // 8), (17 * n // 32, 5 * n // 8), (1, 1, 1), -1)
    return image


def _paint(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    """One colour of its own for each name, a darker band along the floor."""
    image = np.ones((n, n, 3)) * rng.uniform(0.35, 0.92, 3)
    image *= 1 + 0.04 * _noise(rng, n, 8)[..., None]
    image[-n // 20:] *= 0.55
    return image


def _tiles(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    """Tiles of two colours of their own, with seams."""
    cells = int(rng.integers(4, 8))
    a, b = (tuple(rng.uniform(0.25, 0.85, 3).tolist()) for _ in range(2))
    image = _checker(a, b, cells)(rng, n, material)
    for k in range(cells):
        image[k * n // cells:k * n // cells + n // 90] *= 0.6
        image[:, k * n // cells:k * n // cells + n // 90] *= 0.6
    return image


def _poster(rng: np.random.Generator, n: int, material: str) -> np.ndarray:
    """Shapes and lines of random colours on a plain ground."""
    image = np.ones((n, n, 3)) * rng.uniform(0.3, 0.95, 3)
    for _ in range(6):
        colour = tuple(rng.uniform(0.05, 0.95, 3))
        x, y, r = (int(v) for v in rng.integers(n // 8, 7 * n // 8, 3))
        if rng.random() < 0.5:
            cv2.circle(image, (x, y), r // 4 + n // 20, colour, -1)
        else:
            cv2.rectangle(image, (x, y), (x + r // 3, y + n // 6), colour, -1)
    return _framed(image, tuple(rng.uniform(0.05, 0.4, 3)))


_DRAWERS = (
    ('paint_', _paint), ('tiles', _tiles), ('poster', _poster),
    ('wood', _planks), ('living_floor', _living_floor),
    ('office_floor', _checker((0.70, 0.72, 0.75), (0.42, 0.48, 0.56), 4)),
    ('workshop_floor', _concrete), ('living_wall', _wall), ('office_wall', _wall),
    ('workshop_wall', _wall), ('books', _spines), ('binders', _spines), ('screen', _screen),
    ('rug', _rug), ('painting', _painting), ('window', _window), ('whiteboard', _whiteboard),
    ('door', _door), ('crate', _crate), ('parcel', _parcel), ('locker', _locker),
    ('cabinet_orange', _locker), ('toolwall', _toolwall), ('sign', _sign),
    ('toybox', _stripes((0.95, 0.75, 0.15), (0.85, 0.20, 0.45))),
    ('pouf', _stripes((0.85, 0.80, 0.70), (0.30, 0.55, 0.60))),
    ('ball', _stripes((0.90, 0.20, 0.18), (0.95, 0.95, 0.92))),
    ('drum', _stripes((0.85, 0.45, 0.10), (0.20, 0.20, 0.22), (0.85, 0.45, 0.10))),
    ('buoy', _stripes((0.95, 0.35, 0.05), (0.95, 0.95, 0.95))),
    ('pillar', _stripes((0.75, 0.74, 0.70), (0.85, 0.70, 0.10))),
)
