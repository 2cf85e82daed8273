# SPDX-License-Identifier: Apache-2.0
"""
What an Image message holds -> red, green and blue or metres, for the encodings of sensor_msgs.

``cv_bridge`` converts colours where it is installed and works, else OpenCV does, with the same
rules. Both get rows without padding in this machine's byte order: cv_bridge shears images of
several channels whose rows are padded, and with NumPy 2 fails on other byte orders. Message types
are not imported, so messages read without ROS will do.
"""
from functools import lru_cache
from struct import Struct
import sys
from types import SimpleNamespace
from typing import Any, Optional, Protocol

from lingbot_world_ros.errors import quoted, SpecError
import numpy as np

PIXELS = {  # encoding -> type and number of a pixel's values, OpenCV's conversion to rgb
    'rgb8': ('u1', 3, ''), 'bgr8': ('u1', 3, 'BGR2RGB'), 'mono8': ('u1', 1, 'GRAY2RGB'),
    'rgba8': ('u1', 4, 'RGBA2RGB'), 'bgra8': ('u1', 4, 'BGRA2RGB'),
    'rgb16': ('u2', 3, ''), 'bgr16': ('u2', 3, 'BGR2RGB'), 'mono16': ('u2', 1, 'GRAY2RGB'),
    'rgba16': ('u2', 4, 'RGBA2RGB'), 'bgra16': ('u2', 4, 'BGRA2RGB'),
    # OpenCV names a mosaic by its second row, ROS by its first.
    'bayer_rggb8': ('u1', 1, 'BayerBG2RGB'), 'bayer_rggb16': ('u2', 1, 'BayerBG2RGB'),
    'bayer_bggr8': ('u1', 1, 'BayerRG2RGB'), 'bayer_bggr16': ('u2', 1, 'BayerRG2RGB'),
    'bayer_gbrg8': ('u1', 1, 'BayerGR2RGB'), 'bayer_gbrg16': ('u2', 1, 'BayerGR2RGB'),
    'bayer_grbg8': ('u1', 1, 'BayerGB2RGB'), 'bayer_grbg16': ('u2', 1, 'BayerGB2RGB'),
    'yuv422': ('u1', 2, 'YUV2RGB_UYVY'), 'yuv422_yuy2': ('u1', 2, 'YUV2RGB_YUY2'),
    '32FC3': ('f4', 3, 'BGR2RGB'), '32FC4': ('f4', 4, 'BGRA2RGB'),
    '64FC3': ('f8', 3, 'BGR2RGB'), '64FC4': ('f8', 4, 'BGRA2RGB')}
SAME_AS = {'uyvy': 'yuv422', 'yuyv': 'yuv422_yuy2',  # the new names of these two
           # No colours are named here: grey, or blue, green, red as OpenCV has them.
           '8UC1': 'mono8', '8UC3': 'bgr8', '8UC4': 'bgra8', '16UC3': 'bgr16', '16UC4': 'bgra16'}
PLANES = {  # encoding -> rows of data per 2 rows of the image, OpenCV's conversion
    'nv12': (3, 'YUV2RGB_NV12'), 'nv21': (3, 'YUV2RGB_NV21'), 'nv24': (6, 'YUV2RGB_YUY2')}
DEPTH = {'32FC1': ('f4', 1.0), '16UC1': ('u2', 1e-3)}  # encoding -> type, metres of 1 (REP-118)
READ = ', '.join((*(name for name in PIXELS if not name.startswith('bayer')),
                  'bayer_* of 8 or 16 bits', *SAME_AS, *PLANES))
MAX_SIDE_PX = 16384
PNG = b'\x89PNG'
PACKED_DEPTH = Struct('<iff')  # format, scale and offset of values, before the PNG


class RawImage(Protocol):
    """What a sensor_msgs/Image holds, of ROS or out of a recording."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class PackedImage(Protocol):
    """What a sensor_msgs/CompressedImage holds."""

    format: str
    data: Any


def rgb_from_msg(msg: RawImage) -> np.ndarray:
    """
    Read a colour image to keep.

    16 bits become 8 as in cv_bridge, 65535 is 255; floating-point colours are 0 to 1. Alpha is
    dropped.

    :param msg: sensor_msgs/Image of any encoding that holds colours or grey; rows may be padded
    :return: (h, w, 3) uint8 rgb, contiguous, a copy
    :raises SpecError: another encoding, or sizes that do not fit the data
    """
    if msg.encoding in DEPTH:
        raise SpecError(f'Image encoding {msg.encoding} is depth, not colour; send for example '
                        'rgb8, or mono16 where it is grey.')
    if msg.encoding in PLANES:
        return _rgb_of_planes(msg)
    encoding = SAME_AS.get(msg.encoding, msg.encoding)
    if encoding not in PIXELS:
        rgb = _by_cv_bridge(msg)  # a newer one may know more
        if rgb is None:
            raise SpecError(f'Image encoding {quoted(msg.encoding)} is not one of {READ}; '
                            'convert it, for example with image_proc.')
        return rgb
    kind, num_values, conversion = PIXELS[encoding]
    rows = _values(msg, kind, num_values)
    if encoding == 'rgb8':
        return np.array(rows.reshape(msg.height, msg.width, 3))
    _require_even(msg, width=num_values == 2)
    if kind in ('u1', 'u2'):
        rgb = _by_cv_bridge(SimpleNamespace(
            height=msg.height, width=msg.width, encoding=encoding, step=rows.strides[0],
            is_bigendian=int(sys.byteorder == 'big'), data=rows.tobytes()))
        if rgb is not None:
            return rgb
    pixels = rows if num_values == 1 else rows.reshape(msg.height, msg.width, num_values)
    return _by_opencv(pixels, conversion)


def compressed_from_msg(msg: PackedImage) -> np.ndarray:
    """
    Read a compressed colour image.

    :param msg: sensor_msgs/CompressedImage; JPEG, PNG or what else OpenCV knows
    :return: (h, w, 3) uint8 rgb
    :raises SpecError: depth, damaged, or no such image
    """
    import cv2
    bgr = None
    if len(msg.data) and 'depth' not in msg.format.lower():
        bgr = cv2.imdecode(np.frombuffer(msg.data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise SpecError(f'{quoted(msg.format)} with {len(msg.data)} bytes is no colour image that '
                        'OpenCV reads.')
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def depth_from_msg(msg: RawImage) -> np.ndarray:
    """
    Read a depth image.

    :param msg: sensor_msgs/Image, encoding 32FC1, metres, or 16UC1, millimetres (REP-118)
    :return: (h, w) float32, metres; may share memory with the message
    :raises SpecError: another encoding, or sizes that do not fit the data
    """
    if msg.encoding not in DEPTH:
        raise SpecError(f'Image encoding {quoted(msg.encoding)} is no depth; send '
                        f'{" or ".join(DEPTH)}.')
    kind, metres = DEPTH[msg.encoding]
    values = _values(msg, kind, 1).astype(np.float32, copy=False)
    return values if metres == 1.0 else values * np.float32(metres)


def compressed_depth_from_msg(msg: PackedImage) -> np.ndarray:
    """
    Read depth as compressed_depth_image_transport packs it, or a 16-bit PNG of millimetres.

    :param msg: sensor_msgs/CompressedImage whose format begins with 16UC1 or 32FC1
    :return: (h, w) float32, metres, 0 where there is none
    :raises SpecError: another packing (RVL for one), or damaged
    """
    import cv2
    data = bytes(msg.data)
    begin = data.find(PNG, 0, PACKED_DEPTH.size + len(PNG))
    pixels = None
    if begin in (0, PACKED_DEPTH.size):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8, offset=begin), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise SpecError(f'{quoted(msg.format)} with {len(data)} bytes is no depth image packed as '
                        'PNG; record the raw topic, or set its transport to png.')
    values = pixels.astype(np.float32)
    if not msg.format.startswith('32FC1'):
        return values * np.float32(1e-3)
    if not begin:
        raise SpecError(f'{quoted(msg.format)} without the scale of its values; record the raw '
                        'topic.')
    _, scale, offset = PACKED_DEPTH.unpack_from(data)
    with np.errstate(divide='ignore'):  # packed is the inverse of depth
        return np.where(pixels > 0, np.float32(scale) / (values - np.float32(offset)),
                        np.float32(0.0)).astype(np.float32)


def _values(msg: RawImage, kind: str, num_values: int) -> np.ndarray:
    """Return the values of all pixels without padding, in this machine's byte order: (h, n)."""
    dtype = np.dtype(kind)
    rows = _rows(msg, num_values * dtype.itemsize)
    values = rows.view(dtype.newbyteorder('>' if msg.is_bigendian else '<'))
    return values.astype(dtype, copy=False)


def _rows(msg: RawImage, num_bytes: int, per_two: int = 2) -> np.ndarray:
    """
    Return what the rows of an image hold without padding.

    :param num_bytes: of a pixel
    :param per_two: rows of data per 2 rows of the image
    :return: (rows, width * num_bytes) uint8, contiguous
    """
    width, height, step = msg.width, msg.height, msg.step
    if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX):
        raise SpecError(f'Image of {width} x {height} pixels; both must be 1 to {MAX_SIDE_PX}.')
    row, num_rows = width * num_bytes, height * per_two // 2
    if step < row or len(msg.data) != step * num_rows:
        times = '' if per_two == 2 else f'{per_two} / 2 x '
        raise SpecError(f'Image of {width} x {height} pixels {msg.encoding} with '
                        f'step={step} and {len(msg.data)} bytes; step must be at least {row} and '
                        f'data {times}step x height bytes.')
    return np.ascontiguousarray(
        np.frombuffer(msg.data, np.uint8).reshape(num_rows, step)[:, :row])


def _require_even(msg: RawImage, width: bool = False, height: bool = False) -> None:
    """Refuse an odd size where neighbours share their colour."""
    if (width and msg.width % 2) or (height and msg.height % 2):
        raise SpecError(f'Image of {msg.width} x {msg.height} pixels {msg.encoding}: '
                        f'{"both" if height else "the width"} must be even.')


def _rgb_of_planes(msg: RawImage) -> np.ndarray:
    """Read brightness that is followed by a plane of colours; cv_bridge knows none of these."""
    per_two, conversion = PLANES[msg.encoding]
    shared = msg.encoding != 'nv24'
    _require_even(msg, width=shared, height=shared)
    rows = _rows(msg, 1, per_two)
    if shared:
        return _by_opencv(rows, conversion)
    # OpenCV has no conversion of nv24: make two pixels of each, and take the first again.
    grey = rows[:msg.height]
    colours = rows[msg.height:].reshape(msg.height, msg.width, 2)
    pairs = np.stack((grey, colours[..., 0], grey, colours[..., 1]), axis=-1)
    doubled = _by_opencv(pairs.reshape(msg.height, 2 * msg.width, 2), conversion)
    return np.ascontiguousarray(doubled[:, ::2])


def _by_opencv(pixels: np.ndarray, conversion: str) -> np.ndarray:
    """Convert (h, w) or (h, w, n) values to (h, w, 3) uint8 rgb."""
    import cv2
    if pixels.dtype.kind == 'f':
        clipped = np.clip(np.nan_to_num(pixels), 0.0, 1.0)
        pixels = np.rint(255.0 * clipped).astype(np.uint8)
    if conversion:
        pixels = cv2.cvtColor(pixels, getattr(cv2, f'COLOR_{conversion}'))
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=255.0 / 65535.0)
    return pixels


def _by_cv_bridge(msg: RawImage) -> Optional[np.ndarray]:
    """Convert with cv_bridge to (h, w, 3) uint8 rgb; None where it is missing or refuses."""
    bridge = _cv_bridge()
    if bridge is None:
        return None
    try:
        rgb = bridge.imgmsg_to_cv2(msg, 'rgb8')
    except Exception:  # what it raises for an encoding that it lacks depends on its version
        return None
    return np.array(rgb, order='C')


@lru_cache(maxsize=None)
def _cv_bridge() -> Any:
    """Return a CvBridge that has read a pixel as it should; one made for another NumPy cannot."""
    pixel = SimpleNamespace(height=1, width=1, encoding='bgr8', step=3, is_bigendian=0,
                            data=bytes((1, 2, 3)))
    try:
        from cv_bridge import CvBridge
        bridge = CvBridge()
        return bridge if bridge.imgmsg_to_cv2(pixel, 'rgb8').tolist() == [[[3, 2, 1]]] else None
    except Exception:  # whatever is wrong with it, OpenCV does the same
        return None
