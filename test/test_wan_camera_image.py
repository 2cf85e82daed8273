# SPDX-License-Identifier: Apache-2.0
"""Start images as the stream's camera sees them."""
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.models.wan.camera_image import read_image, seen_by, stream_camera
from lingbot_world_ros.models.wan.spec import VideoSize
import numpy as np
import pytest

SIZE = VideoSize(464, 832)
CAMERA = stream_camera(SIZE, 79.2)


def ruler(height, width):
    """Return an image whose red tells the column and whose green tells the row."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.arange(width) * 255 // width
    rgb[..., 1] = (np.arange(height) * 255 // height)[:, None]
    return rgb


def test_field_of_view_gives_the_focal_length_of_the_public_examples():
    assert CAMERA.fx_px == pytest.approx(502.9, abs=0.2)
    assert CAMERA.corner_intrinsics[2:] == (416.0, 232.0)


def test_without_intrinsics_the_middle_is_taken():
    assert seen_by(CAMERA, ruler(1000, 832)).shape == (464, 832, 3)
    wide = seen_by(CAMERA, ruler(464, 1000))
    assert wide.shape == (464, 832, 3)
    assert wide[0, 0, 0] == ruler(464, 1000)[0, 84, 0]
    assert seen_by(CAMERA, ruler(928, 1664)).shape == (928, 1664, 3)


def test_same_camera_at_another_resolution_takes_all():
    taken_by = PinholeCamera.from_corner(1664, 928, (2 * CAMERA.fx_px, 2 * CAMERA.fx_px, 832, 464))
    assert seen_by(CAMERA, ruler(928, 1664), taken_by).shape == (928, 1664, 3)
    half = PinholeCamera.from_corner(832, 464, (CAMERA.fx_px, CAMERA.fx_px, 416, 232))
    assert seen_by(CAMERA, ruler(928, 1664), half).shape == (928, 1664, 3)


def test_wider_camera_with_its_middle_elsewhere_gives_the_rectangle():
    taken_by = PinholeCamera.from_corner(1200, 800, (CAMERA.fx_px, CAMERA.fx_px, 700, 350))
    seen = seen_by(CAMERA, ruler(800, 1200), taken_by)
    assert seen.shape == (464, 832, 3)
    assert np.array_equal(seen, ruler(800, 1200)[350 - 232:350 + 232, 700 - 416:700 + 416])


def test_narrower_image_is_refused_with_the_view_that_fits():
    taken_by = PinholeCamera.from_corner(832, 464, (800.0, 800.0, 416, 232))
    with pytest.raises(SpecError, match='field_of_view_deg to 54.9 or less'):
        seen_by(CAMERA, ruler(464, 832), taken_by)
    assert seen_by(stream_camera(SIZE, 54.9), ruler(464, 832), taken_by).shape[1] > 825


def test_intrinsics_of_another_shape_are_refused():
    upright = PinholeCamera.from_corner(1200, 800, (CAMERA.fx_px, CAMERA.fx_px, 600, 400))
    with pytest.raises(SpecError, match='800 x 1200 .*EXIF.* 1200 x 800'):
        seen_by(CAMERA, ruler(1200, 800), upright)


def test_photos_are_read_upright(tmp_path):
    Image = pytest.importorskip('PIL.Image')
    photo = Image.new('RGB', (40, 20))
    exif = photo.getexif()
    exif[0x0112] = 6  # held upright, stored on its side
    photo.save(tmp_path / 'photo.jpg', exif=exif)
    assert read_image(str(tmp_path / 'photo.jpg')).shape == (40, 20, 3)


@pytest.mark.parametrize('angle', (0.0, 179.0, float('nan')))
def test_impossible_views_are_refused(angle):
    with pytest.raises(SpecError, match='field_of_view_deg'):
        stream_camera(SIZE, angle)


def test_missing_and_broken_images_are_told(tmp_path):
    with pytest.raises(SpecError, match='does not exist'):
        read_image(tmp_path / 'none.png')
    (tmp_path / 'broken.png').write_bytes(b'not a picture')
    with pytest.raises(SpecError, match='cannot be read'):
        read_image(tmp_path / 'broken.png')


def test_images_are_read_in_rgb(tmp_path):
    cv2 = pytest.importorskip('cv2')
    rgb = ruler(40, 60)
    cv2.imwrite(str(tmp_path / 'image.png'), rgb[..., ::-1])
    assert np.array_equal(read_image(tmp_path / 'image.png'), rgb)
