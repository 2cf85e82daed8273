# SPDX-License-Identifier: Apache-2.0
"""Calibrations and views: each published pixel shows what its CameraInfo says it shows."""
import os

import pytest

cv2 = pytest.importorskip('cv2')

from lingbot_world_ros.errors import SpecError  # noqa: E402, I100
from lingbot_world_ros.geometry.camera import PinholeCamera  # noqa: E402
from lingbot_world_ros.messages.view import make_view, View  # noqa: E402
from lingbot_world_ros.robots import lens as lens_module  # noqa: E402
from lingbot_world_ros.robots.calibration import (Calibration, camera_from_k,  # noqa: E402
                                                  load_calibration, MAX_FILE_BYTES,
                                                  parse_calibration)
import numpy as np  # noqa: E402

CAMERA = PinholeCamera.from_fovy(160, 120, np.deg2rad(60.0))  # 75 degrees across
ENGINE = Calibration(CAMERA)
LENS_CAMERA = PinholeCamera(160, 120, 150.0, 148.0, 78.0, 61.0)
LENSES = {
    'plumb_bob': (-0.12, 0.03, 0.002, -0.001, 0.004),
    'rational_polynomial': (0.05, -0.02, 0.001, 0.001, 0.01, 0.08, -0.01, 0.005),
    'equidistant': (0.02, -0.01, 0.003, -0.001)}
YAML = """
image_width: 160
image_height: 120
camera_name: head
camera_matrix: {rows: 3, cols: 3, data: [150.0, 0, 78.0, 0, 148.0, 61.0, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.12, 0.03, 0.002, -0.001, 0.004]
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [140.0, 0, 79.0, 0, 0, 141.0, 60.0, 0, 0, 0, 1, 0]}
"""


def lens(model, width=160, height=120):
    return Calibration(LENS_CAMERA, model, LENSES[model]).resized(width, height)


def gradient(calibration):
    """An image that says where each of its pixels looks: slopes as red and green, 0 to 250."""
    rays = calibration.rays(calibration.camera.pixel_grid())
    rgb = np.zeros(rays.shape, np.uint8)
    rgb[..., :2] = np.rint(125.0 + 125.0 * rays[..., :2])
    return rgb


def write(tmp_path, text, name='camera.yaml'):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_file_of_camera_info_manager_is_read():
    calibration = parse_calibration(YAML)
    assert calibration.distortion_model == 'plumb_bob' and calibration.is_distorted
    assert calibration.camera == LENS_CAMERA
    assert calibration.d == LENSES['plumb_bob']
    assert calibration.p[1].tolist() == [0.0, 141.0, 60.0, 0.0]


def test_rectification_may_be_missing_and_no_coefficients_mean_no_distortion():
    text = '\n'.join(line for line in YAML.splitlines()
                     if not line.startswith(('rect', 'proj', 'dist', '  ')))
    calibration = parse_calibration(text)
    assert not calibration.is_distorted and calibration.d == (0.0,) * 5
    np.testing.assert_array_equal(calibration.p[:, :3], LENS_CAMERA.k)
    np.testing.assert_array_equal(calibration.r, np.eye(3))


@pytest.mark.parametrize('prefix', ['', 'file://'])
def test_a_calibration_is_found_by_path_and_url(tmp_path, prefix):
    assert load_calibration(prefix + write(tmp_path, YAML)).camera.fx_px == 150.0


@pytest.mark.parametrize('url, words', [
    ('/nowhere/x.yaml', 'not a file'), ('file:///nowhere/x.yaml', 'not a file'),
    ('http://host/x.yaml', 'neither package'), ('file://host/x.yaml', 'neither package'),
    ('package://lingbot_world_ros/../../x', 'leaves its package'),
    ('package://lingbot_world_ros//etc/passwd', 'leaves its package'),
    ('package://lingbot_world_ros/%2e%2e/x', 'leaves its package'),
    ('package://no_such_package/x.yaml', 'no_such_package'), ('package://', ''),
    ('package://lingbot_world_ros/config', 'not a file'), ('/dev/zero', 'not a file'),
    ('a\0b', 'no usable path'), ('~nobody_here/x', '')])
def test_a_url_that_cannot_be_used_is_told(url, words):
    with pytest.raises(SpecError, match=f'camera_info_url.*{words}'):
        load_calibration(url)


BOMB = 'a: &a [0, 0]\n' + ''.join(
    f'{b}: &{b} [{", ".join([f"*{a}"] * 9)}]\n' for a, b in zip('abcdefgh', 'bcdefghi'))


@pytest.mark.parametrize('text', [
    b'\xff\xfe\x00', '', 'text', '[1, 2]', 'a: [', '!!python/object/apply:os.system ["false"]',
    '[' * 20000, BOMB + 'image_width: *i\n',
    ' ' * MAX_FILE_BYTES + YAML,
    YAML.replace('160', '0'), YAML.replace('160', '-5'), YAML.replace('160', '16.5'),
    YAML.replace('160', '100000'), YAML.replace('160', '8192').replace('120', '8192'),
    YAML.replace('160', '0x' + 'f' * 9000), YAML.replace('image_width: 160', BOMB
                                                         + 'image_width: *i'),
    YAML.replace('image_width: 160', ''), YAML.replace('150.0', '.nan'),
    YAML.replace('150.0', '.inf'), YAML.replace('150.0', '0.0'), YAML.replace('150.0', '-1.0'),
    YAML.replace('150.0', '0x' + 'f' * 9000), YAML.replace('150.0', 'text'),
    YAML.replace('150.0', 'true'), YAML.replace('150.0, ', ''), YAML.replace('-0.12', '.nan'),
    YAML.replace('-0.12, 0.03, ', ''), YAML.replace('plumb_bob', 'thin_prism_fisheye'),
    YAML.replace('plumb_bob', 'none'), YAML.replace('plumb_bob', "''"),
    YAML.replace('plumb_bob', '[1]'), YAML.replace('plumb_bob', 'x' * 60000),
    YAML.replace('plumb_bob', 'equidistant'), YAML.replace('data', 'date')])
def test_a_file_that_is_no_calibration_is_one_clear_error(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(SpecError, match=f'camera_info_url: {path}') as error:
        load_calibration(path)
    assert len(str(error.value)) < 500 and '\n' not in str(error.value)


@pytest.mark.parametrize('row, column, value', [
    (0, 0, 0.0), (1, 1, 0.0), (1, 1, -1.0), (1, 0, 0.5), (2, 0, 0.5), (2, 1, 0.5), (2, 2, 2.0),
    (0, 2, np.nan), (0, 0, 9.9), (1, 1, 1.0)])
def test_a_matrix_that_is_no_k_is_refused(row, column, value):
    k = LENS_CAMERA.k
    assert camera_from_k(160, 120, k) == LENS_CAMERA
    k[0, 0] = k[1, 1] = 10.0  # short, and still in pixels
    assert camera_from_k(160, 120, k).fx_px == 10.0
    k[row, column] = value
    with pytest.raises(SpecError):
        camera_from_k(160, 120, k)


def test_normalised_intrinsics_are_not_taken_for_pixels():
    with pytest.raises(SpecError, match='lengths of 1 and 148 are not in pixels.*multiply'):
        parse_calibration(YAML.replace('150.0', '1.0'))


@pytest.mark.parametrize('matrix, words', [
    ('projection_matrix: [1, 0, 0.5, 0, 0, 1, 0.5, 0, 0, 0, 1, 0]', 'projection_matrix: .* pixel'),
    (f'projection_matrix: {[0] * 12}', 'projection_matrix: .* pixel'),
    (f'rectification_matrix: {[0] * 9}', 'rectification_matrix .* not a rotation')])
def test_matrices_of_a_rectified_image_are_refused_where_they_are_none(matrix, words):
    """They were published as they were, for image_proc to use."""
    others = '\n'.join(YAML.splitlines()[:5])
    assert parse_calibration(others)
    with pytest.raises(SpecError, match=words):
        parse_calibration(f'{others}\n{matrix}\n')


@pytest.mark.parametrize('change, words', [
    (('0.004]', 'x]'), 'distortion_coefficients does not hold "data:" with numbers'),
    (('[150.0, 0, ', '['), 'camera_matrix does not hold "data:" with 9 numbers'),
    (('[140.0, ', '['), 'projection_matrix does not hold "data:" with 12 numbers')])
def test_a_matrix_that_is_none_is_told_with_its_size(change, words):
    with pytest.raises(SpecError, match=words):
        parse_calibration(YAML.replace(*change))


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='named pipes are a POSIX thing')
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe.yaml')
    with pytest.raises(SpecError, match='not a file'):
        load_calibration(str(tmp_path / 'pipe.yaml'))


@pytest.mark.parametrize('model, pixel', [
    ('plumb_bob', [136.158750000, 18.008775000]),
    ('rational_polynomial', [137.575900490, 16.978583637]),
    ('equidistant', [133.852749041, 19.668965710])])
def test_lenses_by_hand(model, pixel):
    """Slopes 0.4 and -0.3: the formulas of CameraInfo, term by term."""
    calibration = lens(model)
    point = np.array([0.8, -0.6, 2.0])
    np.testing.assert_allclose(calibration.project(point), pixel, atol=1e-8)
    np.testing.assert_allclose(calibration.rays(pixel), point / 2.0, atol=1e-8)
    many = np.full((3, 2, 2), pixel)  # of any shape
    assert calibration.rays(many).shape == (3, 2, 3)
    np.testing.assert_allclose(calibration.rays(many)[2, 1], point / 2.0, atol=1e-8)
    assert calibration.project(np.zeros((0, 3))).shape == (0, 2)


def with_lens(model, d):
    """Write a calibration as drivers do."""
    return YAML.replace('distortion_model: plumb_bob', f'distortion_model: {model}').replace(
        '[-0.12, 0.03, 0.002, -0.001, 0.004]', str(list(d)))


RADIAL = -0.12, 0.03, 0.002, -0.001
RATIONAL = *RADIAL, 0.004, 0.02, -0.01, 0.005
PRISM = *RATIONAL, 0.003, -0.002, 0.001, 0.004
TILTED = *PRISM, 0.02, -0.03


@pytest.mark.parametrize('model, d, told', [
    ('plumb_bob', RADIAL, ('plumb_bob', (*RADIAL, 0.0))),
    ('plumb_bob', (*RADIAL, 0.004), ('plumb_bob', (*RADIAL, 0.004))),
    ('plumb_bob', RATIONAL, ('rational_polynomial', RATIONAL)),
    ('rational_polynomial', (*RADIAL, 0.004), ('rational_polynomial', (*RADIAL, 0.004, 0, 0, 0))),
    ('rational_polynomial', RATIONAL, ('rational_polynomial', RATIONAL)),
    ('rational_polynomial', PRISM, ('rational_polynomial', PRISM)),
    ('rational_polynomial', TILTED, ('rational_polynomial', TILTED)),
    ('equidistant', RADIAL, ('equidistant', RADIAL)), ('fisheye', RADIAL, ('equidistant', RADIAL)),
    ('equidistant', (), ('equidistant', (0.0,) * 4)),
    ('rational_polynomial', (), ('rational_polynomial', (0.0,) * 8)),
    ('none', (), ('plumb_bob', (0.0,) * 5)), ('None', (0.0,) * 5, ('plumb_bob', (0.0,) * 5)),
    ("''", (0.0,) * 4, ('plumb_bob', (0.0,) * 5)), ('', (), ('plumb_bob', (0.0,) * 5))])
def test_lenses_as_drivers_write_them_become_those_of_camera_info(model, d, told):
    calibration = parse_calibration(with_lens(model, d))
    assert (calibration.distortion_model, calibration.d) == told
    assert calibration.is_distorted == (any(d) or told[0] == 'equidistant')


@pytest.mark.parametrize('model, d, words', [
    ('plumb_bob', RADIAL[:3], 'plumb_bob takes 4, 5, 8, 12 or 14 distortion coefficients, got 3'),
    ('rational_polynomial', PRISM[:6], 'rational_polynomial takes 4, 5, 8, 12 or 14 .*, got 6'),
    ('fisheye', RATIONAL, 'equidistant takes 4 distortion coefficients, got 8'),
    ('none', RADIAL, "'none' means no distortion, but there are 4"),
    ("''", RADIAL, "'' means no distortion, but there are 4"),
    ('thin_prism_fisheye', RATIONAL, "distortion_model 'thin_prism_fisheye'.*Known: equi")])
def test_a_lens_that_is_none_is_one_sentence(model, d, words):
    with pytest.raises(SpecError, match=words):
        parse_calibration(with_lens(model, d))


def bent_by_hand(x, y, d):
    """Brown's formula with all that OpenCV adds to it, term by term."""
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, tx, ty = (*d, *[0.0] * (14 - len(d)))
    r2 = x * x + y * y
    radial = ((1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6))))
    prisms = np.array([s1 * r2 + s2 * r2 * r2, s3 * r2 + s4 * r2 * r2, 0.0])
    bent = prisms + [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                     y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y, 1.0]
    (cx, cy), (sx, sy) = np.cos([tx, ty]), np.sin([tx, ty])
    R = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]]) @ [[1, 0, 0], [0, cx, sx], [0, -sx, cx]]
    level = np.array([[R[2, 2], 0, -R[0, 2]], [0, R[2, 2], -R[1, 2]], [0, 0, 1]])
    tilted = level @ R @ bent
    return tilted[:2] / tilted[2]


@pytest.mark.parametrize('d', [RADIAL, (*RADIAL, 0.004), RATIONAL, PRISM, TILTED])
def test_lenses_with_any_number_of_coefficients_by_hand(d):
    calibration = parse_calibration(with_lens('plumb_bob', d))
    x, y = bent_by_hand(0.4, -0.3, d)
    pixel = [78.0 + 150.0 * x, 61.0 + 148.0 * y]
    np.testing.assert_allclose(calibration.project([0.8, -0.6, 2.0]), pixel, atol=1e-8)
    np.testing.assert_allclose(calibration.rays(pixel), [0.4, -0.3, 1.0], atol=1e-6)


def test_more_points_than_are_bent_at_a_time():
    calibration = lens('plumb_bob')
    rays = np.tile([0.4, -0.3, 1.0], (lens_module.BLOCK + 1, 1))
    rays[-1, :2] = [-0.1, 0.25]
    pixels = calibration.project(rays)
    np.testing.assert_allclose(pixels[[0, -2]], [[136.15875, 18.008775]] * 2, atol=1e-8)
    np.testing.assert_allclose(pixels[-1], [78.0 - 150.0 * 0.099338421181,
                                            61.0 + 148.0 * 0.248309802953], atol=1e-8)


def test_equidistant_lens_by_hand():
    calibration = Calibration(PinholeCamera(200, 200, 100.0, 100.0, 0.0, 0.0), 'equidistant',
                              (0.1, 0.0, 0.0, 0.0))
    theta = 0.6
    np.testing.assert_allclose(calibration.project([np.tan(theta), 0.0, 1.0]),
                               [100.0 * (theta + 0.1 * theta ** 3), 0.0])
    np.testing.assert_allclose(calibration.project([0.0, 0.0, 1.0]), [0.0, 0.0])


@pytest.mark.parametrize('model', LENSES)
def test_rays_are_the_inverse_of_project(model):
    v, u = np.mgrid[-0.5:120.0:7.0, -0.5:160.0:7.0]
    pixels = np.stack([u, v], -1)
    calibration = lens(model)
    np.testing.assert_allclose(calibration.project(calibration.rays(pixels)), pixels, atol=1e-6)


@pytest.mark.parametrize('model, d', [
    ('plumb_bob', (-3.0, 0.0, 0.0, 0.0, 0.0)),
    ('rational_polynomial', (0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0)),
    ('equidistant', (-1.5, 0.0, 0.0, 0.0))])
def test_a_lens_formula_that_folds_back_is_refused(model, d):
    calibration = Calibration(LENS_CAMERA, model, d)
    with pytest.raises(SpecError, match='no solution at pixel u=-?[0-9.]+'):
        View(CAMERA, calibration)


@pytest.mark.parametrize('width, height', [(320, 240), (80, 60), (100, 120), (160, 120)])
def test_a_resized_image_keeps_its_corners(width, height):
    """The outer edges stay where they are: half a pixel outside the corner pixels' centres."""
    resized = ENGINE.resized(width, height)
    for corner, old in ((np.array([-0.5, -0.5]), np.array([-0.5, -0.5])),
                        (np.array([width, height]) - 0.5, np.array([160, 120]) - 0.5)):
        np.testing.assert_allclose(resized.rays(corner), ENGINE.rays(old))
    np.testing.assert_allclose(resized.p[:, :3], resized.camera.k)


def test_by_hand_half_the_size_halves_focal_length_and_keeps_the_middle():
    half = ENGINE.resized(80, 60)
    assert half.camera.fx_px == pytest.approx(0.5 * CAMERA.fx_px)
    assert (half.camera.cx_px, half.camera.cy_px) == (39.5, 29.5)


def test_without_parameters_the_very_same_arrays_come_out():
    view = make_view(CAMERA)
    rgb, depth = np.zeros((120, 160, 3), np.uint8), np.zeros((120, 160), np.float32)
    assert view.image(rgb) is rgb and view.depth(depth) is depth
    assert make_view(CAMERA, image_width=160, image_height=120).image(rgb) is rgb


def test_a_file_of_the_engines_own_camera_changes_nothing_but_what_camera_info_says(tmp_path):
    k = ', '.join(str(x) for x in CAMERA.k.ravel())
    url = write(tmp_path, 'image_width: 160\nimage_height: 120\n'
                          f'camera_matrix: {{data: [{k}]}}\n')
    rgb = np.zeros((120, 160, 3), np.uint8)
    assert make_view(CAMERA, camera_info_url=url).image(rgb) is rgb


@pytest.mark.parametrize('asked', [
    dict(image_width=320, image_height=240), dict(image_width=80), dict(image_height=60),
    dict(image_width=64, image_height=64), dict(image_width=40, image_height=30),
    dict(image_width=50, image_height=23), dict(field_of_view_deg=50.0),
    dict(field_of_view_deg=60.0, image_width=96, image_height=54)])
def test_every_pixel_shows_what_its_intrinsics_say(asked):
    view = make_view(CAMERA, **asked)
    shown = view.image(gradient(ENGINE)).astype(float)
    expected = gradient(view.calibration).astype(float)
    assert shown.shape == (view.calibration.camera.height_px, view.calibration.camera.width_px, 3)
    assert np.abs(shown - expected)[2:-2, 2:-2].max() <= 2.0  # rounding; edges are repeated
    assert np.abs(shown - expected).max() <= 3.0
    assert view.calibration.camera.width_px == asked.get('image_width', 160)


@pytest.mark.parametrize('model', LENSES)
@pytest.mark.parametrize('size', [(160, 120), (320, 200)])
def test_every_pixel_of_a_bent_image_shows_what_its_lens_says(model, size):
    view = View(CAMERA, lens(model, *size))
    shown = view.image(gradient(ENGINE)).astype(float)
    assert np.abs(shown - gradient(view.calibration)).max() <= 2.0


def test_field_of_view_is_horizontal_and_pixels_are_square():
    view = make_view(CAMERA, field_of_view_deg=60.0, image_width=100, image_height=50)
    k = view.calibration.camera.k
    assert k[0, 0] == k[1, 1] == pytest.approx(50.0 / np.tan(np.deg2rad(30.0)))
    assert (k[0, 2], k[1, 2]) == (49.5, 24.5)


@pytest.mark.parametrize('asked, words', [
    (dict(field_of_view_deg=90.0), '90.0 x 73.7 degrees.*75.2 x 60.0 degrees'),
    (dict(field_of_view_deg=70.0, image_width=100, image_height=100), '70.0 x 70.0'),
    (dict(field_of_view_deg=75.3), 'engine'),
    (dict(field_of_view_deg=50.0, image_width=8192, image_height=8192), 'pixels'),
    (dict(field_of_view_deg=50.0, camera_info_url='x.yaml'), 'set one of them')])
def test_more_than_the_engine_sees_is_refused_with_numbers(asked, words):
    with pytest.raises(SpecError, match=words):
        make_view(CAMERA, **asked)


def test_depth_is_picked_and_never_mixed():
    depth = np.tile(np.where(np.arange(160) < 80, 1.0, 4.0).astype(np.float32), (120, 1))
    for asked in (dict(image_width=320, image_height=240), dict(field_of_view_deg=40.0),
                  dict(image_width=37, image_height=53)):
        view = make_view(CAMERA, **asked)
        shown = view.depth(depth)
        assert shown.dtype == np.float32 and set(np.unique(shown)) == {1.0, 4.0}
        assert shown.shape == (view.calibration.camera.height_px, view.calibration.camera.width_px)


def test_a_much_smaller_image_is_an_average():
    """Stripes of one pixel become grey, not one of their colours."""
    rgb = np.zeros((120, 160, 3), np.uint8)
    rgb[:, ::2] = 200
    small = make_view(CAMERA, image_width=20, image_height=15).image(rgb)
    assert np.abs(small.astype(int) - 100).max() <= 1
