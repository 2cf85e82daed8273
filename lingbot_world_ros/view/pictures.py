# SPDX-License-Identifier: Apache-2.0
"""Pictures for the page: colour and depth as JPEG, with the header the page reads."""
import struct

import numpy as np

COLOUR, DEPTH, TRUTH = 1, 2, 3  # kinds
JPEG = 1  # formats
HEADER = struct.Struct('<BBHId')  # kind, format, 0, sequence, sim stamp [s]
QUALITY = 90
FAR_M = 6.0  # depth from here on has the last colour
MAX_WIDTH_PX = 1280  # larger pictures are halved until they fit


def packed(kind: int, sequence: int, stamp_s: float, jpeg: bytes) -> bytes:
    """
    Put a picture into one message.

    :param kind: COLOUR, DEPTH or TRUTH
    :param sequence: counts up by one per picture
    :param stamp_s: sim time
    :param jpeg: the encoded picture
    :return: header of 16 bytes and the picture
    """
    return HEADER.pack(kind, JPEG, 0, sequence & 0xffffffff, stamp_s) + jpeg


def colour_jpeg(rgb: np.ndarray) -> bytes:
    """
    Encode a colour picture.

    :param rgb: (h, w, 3) uint8
    :return: JPEG
    """
    return _encode(_fitting(rgb)[..., ::-1])


def depth_jpeg(depth_m: np.ndarray) -> bytes:
    """
    Draw depth in colours: near is red, far is blue, unknown is black.

    :param depth_m: (h, w) float32, metres; not finite or not positive: unknown
    :return: JPEG
    """
    import cv2
    depth_m = _fitting(depth_m)
    is_known = np.isfinite(depth_m) & (depth_m > 0.0)
    near = 1.0 - np.clip(np.where(is_known, depth_m, 0.0) / FAR_M, 0.0, 1.0)
    bgr = cv2.applyColorMap((near * 255.0).astype(np.uint8), cv2.COLORMAP_TURBO)
    bgr[~is_known] = 0
    return _encode(bgr)


def _fitting(pixels: np.ndarray) -> np.ndarray:
    """Leave out rows and columns of what is larger than a page shows."""
    return pixels[::2, ::2] if pixels.shape[1] > MAX_WIDTH_PX else pixels


def _encode(bgr: np.ndarray) -> bytes:
    import cv2
    _, jpeg = cv2.imencode('.jpg', np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return jpeg.tobytes()
