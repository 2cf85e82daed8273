# SPDX-License-Identifier: Apache-2.0
"""Images of every encoding of sensor_msgs, written by hand from known colours, are read."""
from importlib.util import find_spec
from pathlib import Path
import re
import sys
from types import SimpleNamespace

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages import encodings
import numpy as np
import pytest

RED, GREEN, BLUE, GREY = (230, 20, 10), (30, 200, 60), (0, 50, 255), (128, 128, 128)
# By ITU-R BT.601: Y 16 to 235, U and V 16 to 240.
YUV = {RED: (86, 92, 221), GREEN: (130, 92, 63), BLUE: (66, 225, 91), GREY: (126, 128, 128)}
SIGNED_AND_PAIRS = [f'{bits}{kind}C{n}' for bits, kind in
                    ((8, 'S'), (16, 'S'), (32, 'S')) for n in (1, 2, 3, 4)]
SIGNED_AND_PAIRS += ['8UC2', '16UC2', '32FC2', '64FC1', '64FC2']
COLOURS = ['rgb8', 'rgba8', 'rgb16', 'rgba16', 'bgr8', 'bgra8', 'bgr16', 'bgra16',
           '8UC3', '8UC4', '16UC3', '16UC4', '32FC3', '32FC4', '64FC3', '64FC4']
MOSAICS = [f'bayer_{name}{bits}' for name in ('rggb', 'bggr', 'gbrg', 'grbg') for bits in (8, 16)]
SHARED = ['uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2', 'nv12', 'nv21', 'nv24']
GREYS = ['mono8', 'mono16', '8UC1']
DEPTHS = ['32FC1', '16UC1']


@pytest.fixture(autouse=True)
def no_cv_bridge(monkeypatch):
    """Let OpenCV do it, also where cv_bridge is installed; forget what was found before."""
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    encodings._cv_bridge.cache_clear()
    yield
    encodings._cv_bridge.cache_clear()


def picture(height=8, width=12):
    """Four fields of one colour each."""
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[:height // 2, :width // 2], rgb[:height // 2, width // 2:] = RED, GREEN
    rgb[height // 2:, :width // 2], rgb[height // 2:, width // 2:] = BLUE, GREY
    return rgb


def values_of(rgb, encoding):
    """Write the values of an image as a camera driver would, (rows, n)."""
    bits = re.search(r'^(\d+)|(\d+)$', encoding)
    bits = int(bits.group()) if bits and encoding not in SHARED else 8
    if encoding in COLOURS:
        order = [0, 1, 2] if encoding.startswith('rgb') else [2, 1, 0]
        alpha = encoding.startswith(('rgba', 'bgra')) or encoding.endswith('4')
        pixels = np.concatenate([rgb[..., order], np.full_like(rgb[..., :int(alpha)], 7)], -1)
    elif encoding in GREYS:
        pixels, bits = rgb[..., 0], 16 if encoding == 'mono16' else 8
    elif encoding in MOSAICS:
        pixels = np.empty(rgb.shape[:2], np.uint8)
        for at, letter in enumerate(encoding.partition('_')[2][:4]):
            where = np.s_[at // 2::2, at % 2::2]
            pixels[where] = rgb[(*where, 'rgb'.index(letter))]
    else:
        return shared(rgb, encoding)
    pixels = pixels.reshape(len(rgb), -1)
    if bits >= 32:
        return (pixels / 255.0).astype(f'f{bits // 8}')
    return pixels.astype('u2') * 257 if bits == 16 else pixels


def shared(rgb, encoding):
    """Write brightness and colours that some pixels share."""
    yuv = np.array([[YUV[tuple(pixel)] for pixel in row] for row in rgb.tolist()], np.uint8)
    y, u, v = np.moveaxis(yuv, -1, 0)
    if encoding.startswith('nv'):
        order = (v, u) if encoding == 'nv21' else (u, v)
        every = 1 if encoding == 'nv24' else 2
        colours = np.stack([plane[::every, ::every] for plane in order], -1)
        return np.concatenate([y, colours.reshape(-1, rgb.shape[1])])
    u, v = u[:, ::2], v[:, ::2]
    order = (u, y[:, ::2], v, y[:, 1::2]) if encoding in ('uyvy', 'yuv422') else (
        y[:, ::2], u, y[:, 1::2], v)
    return np.stack(order, -1).reshape(len(rgb), -1)


def message(rgb, encoding, padding=0, big=False):
    """Make an Image of it; what pads the rows is no colour of it."""
    values = values_of(rgb, encoding)
    values = values.astype(values.dtype.newbyteorder('>' if big else '<'))
    rows = np.frombuffer(values.tobytes(), np.uint8).reshape(len(values), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return SimpleNamespace(height=rgb.shape[0], width=rgb.shape[1], encoding=encoding,
                           step=rows.shape[1], is_bigendian=int(big), data=rows.tobytes())


def test_every_encoding_of_the_installed_standard_is_tested_here():
    spec = find_spec('sensor_msgs')
    headers = Path(spec.origin).parents[4] / 'include' if spec else Path('/nowhere')
    found = list(headers.glob('sensor_msgs/**/image_encodings.hpp'))
    if not found:
        pytest.skip('sensor_msgs brings no header here')
    named = re.findall(r'const char \w+\[\] = "(\w+)"', found[0].read_text())
    assert len(named) > 40
    assert set(named) <= {*COLOURS, *MOSAICS, *SHARED, *GREYS, *DEPTHS, *SIGNED_AND_PAIRS}


@pytest.mark.parametrize('padding, big', [(0, False), (6, False), (8, True), (0, True)])
@pytest.mark.parametrize('encoding', [*COLOURS, *GREYS, *MOSAICS, *SHARED])
def test_known_colours_are_read(encoding, padding, big):
    rgb = picture()
    if encoding in GREYS:
        rgb[...] = rgb[..., :1]
    read = encodings.rgb_from_msg(message(rgb, encoding, padding, big))
    assert read.shape == rgb.shape and read.dtype == np.uint8
    assert read.flags.c_contiguous and read.flags.owndata
    error = np.abs(read.astype(int) - rgb)
    if encoding in MOSAICS:  # where fields meet, neighbours mix
        error = np.concatenate([part.ravel() for half in np.split(error, 2)
                                for field in np.split(half, 2, 1) for part in [field[1:-1, 1:-1]]])
    assert error.max() <= (2 if encoding in SHARED else 0)


@pytest.mark.parametrize('size', [(1, 1), (5, 7), (3, 2)])
@pytest.mark.parametrize('encoding', [*COLOURS, *GREYS, 'nv24'])
def test_odd_sizes_are_read(encoding, size):
    rgb = np.full((*size, 3), GREY, np.uint8)
    read = encodings.rgb_from_msg(message(rgb, encoding, padding=3 if '8' in encoding else 0))
    np.testing.assert_allclose(read, rgb, atol=2)


def test_sixteen_bits_are_scaled_and_rounded_as_in_cv_bridge():
    values = np.array([[0, 128, 129, 257, 385, 386, 32768, 65535]], '<u2')
    msg = SimpleNamespace(height=1, width=8, encoding='mono16', step=16, is_bigendian=0,
                          data=values.tobytes())
    assert encodings.rgb_from_msg(msg)[0, :, 0].tolist() == [0, 0, 1, 1, 1, 2, 128, 255]


def test_floating_point_colours_beyond_their_range_are_clipped():
    values = np.array([[[-1.0, 0.5, 2.0], [np.nan, np.inf, -np.inf]]], '<f4')  # blue, green, red
    msg = SimpleNamespace(height=1, width=2, encoding='32FC3', step=24, is_bigendian=0,
                          data=values.tobytes())
    assert encodings.rgb_from_msg(msg).tolist() == [[[255, 128, 0], [0, 255, 0]]]


@pytest.mark.parametrize('encoding', [*SIGNED_AND_PAIRS, 'nv42', 'h264', ''])
def test_what_holds_no_colours_is_refused_with_what_is_read(encoding):
    msg = message(picture(), 'rgb8')
    msg.encoding = encoding
    with pytest.raises(SpecError, match='not one of rgb8, .*bayer_.*uyvy.*nv24; convert') as told:
        encodings.rgb_from_msg(msg)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize('encoding', DEPTHS)
def test_depth_is_no_colour_and_colour_no_depth(encoding):
    msg = message(picture(), 'rgb8')
    with pytest.raises(SpecError, match="'rgb8' is no depth; send 32FC1 or 16UC1"):
        encodings.depth_from_msg(msg)
    msg.encoding = encoding
    with pytest.raises(SpecError, match=f'{encoding} is depth, not colour'):
        encodings.rgb_from_msg(msg)


@pytest.mark.parametrize('padding, big', [(0, False), (8, True)])
@pytest.mark.parametrize('kind, encoding, metres', [('f4', '32FC1', 1.0), ('u2', '16UC1', 1e-3)])
def test_depth_is_read_in_metres(kind, encoding, metres, padding, big):
    values = np.arange(6, dtype=kind).reshape(2, 3) * 100
    rows = values.astype(values.dtype.newbyteorder('>' if big else '<'))
    rows = np.pad(rows.view(np.uint8), ((0, 0), (0, padding)), constant_values=77)
    depth_m = encodings.depth_from_msg(SimpleNamespace(
        height=2, width=3, encoding=encoding, step=rows.shape[1], is_bigendian=int(big),
        data=rows.tobytes()))
    assert depth_m.dtype == np.float32
    np.testing.assert_allclose(depth_m, values * metres, rtol=1e-6)


@pytest.mark.parametrize('encoding, changes, words', [
    ('yuyv', {'width': 11}, '11 x 8 pixels yuyv: the width must be even'),
    ('nv12', {'height': 7}, '12 x 7 pixels nv12: both must be even'),
    ('nv21', {'width': 11}, 'both must be even'),
    ('nv12', {'data': bytes(96)}, '96 bytes; .* data 3 / 2 x step x height bytes'),
    ('nv24', {'step': 11}, 'step must be at least 12'),
    ('bayer_rggb16', {'step': 12}, 'step must be at least 24'),
    ('64FC4', {'width': 16385}, '1 to 16384'), ('mono16', {'height': 0}, '12 x 0 pixels')])
def test_sizes_that_do_not_fit_are_refused_in_words(encoding, changes, words):
    msg = message(picture(), encoding)
    vars(msg).update(changes)
    with pytest.raises(SpecError, match=words):
        encodings.rgb_from_msg(msg)


@pytest.mark.parametrize('form, data', [('rgb8; jpeg compressed bgr8', b''), ('png', b'no png'),
                                        ('32FC1; compressedDepth png', b'\x89PNG\r\n\x1a\n')])
def test_compressed_images_that_are_none_are_refused(form, data):
    with pytest.raises(SpecError, match='no colour image that OpenCV reads'):
        encodings.compressed_from_msg(SimpleNamespace(format=form, data=data))


BRIDGE = """
import numpy as np

CALLS = []


class CvBridge:
    def imgmsg_to_cv2(self, msg, desired_encoding='passthrough'):
        CALLS.append((msg, desired_encoding))
        if msg.encoding == 'bgr8' and bytes(msg.data) == bytes((1, 2, 3)):
            return np.array([[{pixel}]], np.uint8)
        if msg.encoding.endswith('16'):
            raise TypeError('CvBridgeError')
        return np.full((msg.height, msg.width, 3), 99, np.uint8)
"""


@pytest.fixture
def make_bridge(monkeypatch, tmp_path):
    """Put a package cv_bridge on the path and return the list of calls it gets."""
    def make(text):
        (tmp_path / 'cv_bridge.py').write_text(text)
        monkeypatch.delitem(sys.modules, 'cv_bridge')
        monkeypatch.syspath_prepend(str(tmp_path))
        return lambda: sys.modules['cv_bridge'].CALLS
    return make


@pytest.mark.parametrize('encoding, told, step', [
    ('bgr8', 'bgr8', 36), ('mono8', 'mono8', 12), ('bayer_gbrg8', 'bayer_gbrg8', 12),
    ('yuv422', 'yuv422', 24), ('uyvy', 'yuv422', 24), ('yuyv', 'yuv422_yuy2', 24),
    ('8UC3', 'bgr8', 36)])
def test_cv_bridge_is_asked_for_rgb8_where_it_is_installed(make_bridge, encoding, told, step):
    """Its rows come without padding, in the byte order of this machine, under a name it knows."""
    calls = make_bridge(BRIDGE.format(pixel='[3, 2, 1]'))
    rgb = picture()
    for _ in range(2):
        read = encodings.rgb_from_msg(message(rgb, encoding, padding=5, big=True))
        assert read.shape == rgb.shape and (read == 99).all()
    assert len(calls()) == 3  # the first is the pixel that it was tried with
    msg, wanted = calls()[-1]
    assert wanted == 'rgb8'
    assert (msg.height, msg.width, msg.encoding, msg.step) == (8, 12, told, step)
    assert msg.is_bigendian == (sys.byteorder == 'big')
    assert bytes(msg.data) == values_of(rgb, encoding).tobytes()


def test_cv_bridge_may_know_encodings_that_are_not_known_here(make_bridge):
    calls = make_bridge(BRIDGE.format(pixel='[3, 2, 1]'))
    msg = message(picture(), 'rgb8')
    msg.encoding = 'nv42'
    assert (encodings.rgb_from_msg(msg) == 99).all()
    assert calls()[-1] == (msg, 'rgb8')


@pytest.mark.parametrize('encoding', ['mono16', 'bayer_rggb16', 'bgra16'])
def test_what_cv_bridge_refuses_is_read_all_the_same(make_bridge, encoding):
    make_bridge(BRIDGE.format(pixel='[3, 2, 1]'))
    msg = message(np.full((8, 12, 3), GREY, np.uint8), encoding)
    assert (encodings.rgb_from_msg(msg) == 128).all()


@pytest.mark.parametrize('text', [
    'raise AttributeError("_ARRAY_API not found")', 'import no_such_module_at_all',
    'class CvBridge:\n    pass', BRIDGE.format(pixel='[1, 2, 3]')])
def test_cv_bridge_that_does_not_work_is_not_used(make_bridge, text):
    """Like one that was made for another NumPy."""
    make_bridge(text)
    rgb = picture()
    np.testing.assert_array_equal(encodings.rgb_from_msg(message(rgb, 'bgr8')), rgb)
    unknown = message(rgb, 'rgb8')
    unknown.encoding = 'nv42'
    with pytest.raises(SpecError, match='nv42'):
        encodings.rgb_from_msg(unknown)
