# SPDX-License-Identifier: Apache-2.0
"""
Pictures and depth <-> sensor_msgs, with one copy per image.

``Image.data`` is filled through ``array.array('B')``: any other type is checked or copied element
by element (a NumPy array takes 70 ms at 832x480). A message handed back in as ``out`` is filled
in place.
"""
from array import array
from typing import Optional

from lingbot_world_ros.errors import quoted, SpecError
from lingbot_world_ros.messages.stamps import set_stamp
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

COLOURS = {  # encoding -> bytes per pixel, and which of them are red, green, blue
    'rgb8': (3, (0, 1, 2)), 'bgr8': (3, (2, 1, 0)), 'rgba8': (4, (0, 1, 2)),
    'bgra8': (4, (2, 1, 0)), 'mono8': (1, (0, 0, 0))}
DEPTH, DEPTH_MM = '32FC1', '16UC1'
MAX_SIDE_PX = 16384
JPEG_FORMAT = 'rgb8; jpeg compressed bgr8'  # as image_transport writes it


def image_to_msg(rgb: np.ndarray, stamp_ns: int, frame_id: str,
                 out: Optional[Image] = None) -> Image:
    """
    Write a colour image.

    :param rgb: (h, w, 3) uint8
    :param stamp_ns: sim time
    :param frame_id: optical frame
    :param out: message to fill again; None makes one
    :return: the message, encoding rgb8
    """
    return _fill(rgb, 'rgb8', stamp_ns, frame_id, out)


def depth_to_msg(depth_m: np.ndarray, stamp_ns: int, frame_id: str,
                 out: Optional[Image] = None) -> Image:
    """
    Write a depth image.

    :param depth_m: (h, w) float32, metres along the optical axis
    :param stamp_ns: sim time
    :param frame_id: optical frame
    :param out: message to fill again; None makes one
    :return: the message, encoding 32FC1
    """
    return _fill(depth_m, '32FC1', stamp_ns, frame_id, out)


def _fill(pixels, encoding, stamp_ns, frame_id, out):
    if out is None or len(out.data) != pixels.nbytes or out.height != pixels.shape[0]:
        out = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
                    step=pixels.nbytes // pixels.shape[0], is_bigendian=0,
                    data=array('B', bytes(pixels.nbytes)))
    out.header.frame_id = frame_id
    set_stamp(out.header.stamp, stamp_ns)
    np.copyto(np.frombuffer(out.data, pixels.dtype).reshape(pixels.shape), pixels)
    return out


def image_from_msg(msg: Image) -> np.ndarray:
    """
    Read an image.

    :param msg: encoding rgb8, bgr8, rgba8, bgra8, mono8 or 32FC1; rows may be padded
    :return: (h, w, 3) uint8 rgb or (h, w) float32; may share memory with the message
    :raises SpecError: another encoding, or sizes that do not fit the data
    """
    if msg.encoding == DEPTH:
        depth_m = _rows(msg, 4).view('>f4' if msg.is_bigendian else '<f4')
        return depth_m.astype(np.float32, copy=False)
    if msg.encoding not in COLOURS:
        raise SpecError(f'Image encoding {quoted(msg.encoding)} is not one of '
                        f'{", ".join((*COLOURS, DEPTH))}; convert it, for example with '
                        'image_proc.')
    num_bytes, order = COLOURS[msg.encoding]
    pixels = _rows(msg, num_bytes).reshape(msg.height, msg.width, num_bytes)
    return pixels if msg.encoding == 'rgb8' else pixels[:, :, list(order)]


def depth_from_msg(msg: Image) -> np.ndarray:
    """
    Read a depth image.

    :param msg: encoding 32FC1, metres, or 16UC1, millimetres (REP-118)
    :return: (h, w) float32, metres; may share memory with the message
    :raises SpecError: another encoding, or sizes that do not fit the data
    """
    if msg.encoding == DEPTH_MM:
        millimetres = _rows(msg, 2).view('>u2' if msg.is_bigendian else '<u2')
        return millimetres.astype(np.float32) * 1e-3
    if msg.encoding != DEPTH:
        raise SpecError(f'Image encoding {quoted(msg.encoding)} is no depth; send {DEPTH} or '
                        f'{DEPTH_MM}.')
    return image_from_msg(msg)


def rgb_from_msg(msg: Image) -> np.ndarray:
    """
    Read a colour image to keep.

    :param msg: encoding rgb8, bgr8, rgba8, bgra8 or mono8
    :return: (h, w, 3) uint8 rgb, contiguous, a copy
    :raises SpecError: another encoding, or sizes that do not fit the data
    """
    if msg.encoding == DEPTH:
        raise SpecError(f'Image encoding {DEPTH} is depth, not colour; send one of '
                        f'{", ".join(COLOURS)}.')
    return np.array(image_from_msg(msg), order='C')


def _rows(msg, num_bytes):
    """Return the pixels of all rows without padding, (h, w * num_bytes) uint8, contiguous."""
    row = msg.width * num_bytes
    if not (1 <= msg.width <= MAX_SIDE_PX and 1 <= msg.height <= MAX_SIDE_PX):
        raise SpecError(f'Image of {msg.width} x {msg.height} pixels; both must be 1 to '
                        f'{MAX_SIDE_PX}.')
    if msg.step < row or len(msg.data) != msg.step * msg.height:
        raise SpecError(f'Image of {msg.width} x {msg.height} pixels {msg.encoding} with step='
                        f'{msg.step} and {len(msg.data)} bytes; step must be at least {row} and '
                        'data step x height bytes.')
    pixels = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.step)[:, :row]
    return np.ascontiguousarray(pixels)


def compressed_to_msg(rgb: np.ndarray, stamp_ns: int, frame_id: str, quality: int,
                      out: Optional[CompressedImage] = None) -> CompressedImage:
    """
    Encode a colour image as JPEG.

    :param rgb: (h, w, 3) uint8
    :param stamp_ns: sim time
    :param frame_id: optical frame
    :param quality: 1 to 100
    :param out: message to fill again; None makes one
    :return: the message
    """
    import cv2
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    out = out or CompressedImage(format=JPEG_FORMAT)
    out.header.frame_id = frame_id
    set_stamp(out.header.stamp, stamp_ns)
    out.data = array('B', jpeg.tobytes())
    return out


def compressed_from_msg(msg: CompressedImage) -> np.ndarray:
    """Decode a JPEG message to (h, w, 3) uint8 rgb."""
    import cv2
    bgr = cv2.imdecode(np.frombuffer(msg.data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
