# SPDX-License-Identifier: Apache-2.0
"""Videos on disk: what is written can be read again, and a place is refused in time."""
from pathlib import Path

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.wan import clip_file
from lingbot_world_ros.models.wan.clip_file import check_target, write_clip
import numpy as np
import pytest

cv2 = pytest.importorskip('cv2')


def parts():
    """Yield red, then green, then blue frames in two parts."""
    frames = np.zeros((6, 32, 48, 3), np.uint8)
    for i in range(6):
        frames[i, ..., i // 2] = 255
    yield frames[:4]
    yield frames[4:]


def test_video_can_be_read_again(tmp_path):
    written = write_clip(check_target(tmp_path / 'new' / 'clip.mp4'), parts(), 16.0)
    assert written == (tmp_path / 'new' / 'clip.mp4', 6, False)
    video = cv2.VideoCapture(str(written.path))
    assert video.get(cv2.CAP_PROP_FPS) == 16
    for i in range(6):
        found, bgr = video.read()
        assert found and bgr.shape == (32, 48, 3)
        assert np.argmax(bgr[..., ::-1].mean((0, 1))) == i // 2
    assert not video.read()[0]
    assert [path.name for path in written.path.parent.iterdir()] == ['clip.mp4']


def test_pictures_are_the_frames(tmp_path):
    written = write_clip(check_target(tmp_path / 'clip'), parts(), 16.0)
    assert written == (tmp_path / 'clip', 6, True)
    names = sorted(path.name for path in written.path.iterdir())
    assert names == [f'{i:06d}.png' for i in range(6)]
    for i, name in enumerate(names):
        rgb = cv2.imread(str(written.path / name))[..., ::-1]
        assert np.array_equal(rgb[0, 0], 255 * np.eye(3)[i // 2])


def test_pictures_stand_in_for_a_video_without_codec(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_file._Video, 'is_open', False)
    written = write_clip(check_target(tmp_path / 'clip.mp4'), parts(), 16.0)
    assert written == (tmp_path / 'clip', 6, True)
    assert [path.name for path in tmp_path.iterdir()] == ['clip']


def test_video_that_ends_early_leaves_no_file(tmp_path):
    def broken():
        yield next(parts())
        raise KeyboardInterrupt

    (tmp_path / 'clip.mp4').write_bytes(b'the one before')
    with pytest.raises(KeyboardInterrupt):
        write_clip(check_target(tmp_path / 'clip.mp4'), broken(), 16.0)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b'the one before']


@pytest.mark.parametrize('name', ('full', 'clip.avi', 'file.mp4', 'a\0b', 'folder.mp4'))
def test_places_that_are_taken_or_strange_are_refused(tmp_path, name):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'note').touch()
    (tmp_path / 'folder.mp4').mkdir()
    (tmp_path / 'parent').touch()
    target = tmp_path / 'parent' / name if name == 'file.mp4' else tmp_path / name
    with pytest.raises(SpecError):
        check_target(target)


def test_video_without_frames_is_refused(tmp_path):
    with pytest.raises(SpecError, match='no frames'):
        write_clip(check_target(tmp_path / 'clip.mp4'), (), 16.0)


@pytest.mark.skipif(not Path('/proc/self').exists(), reason='needs a folder nobody can write to')
def test_a_place_nobody_can_write_to_is_refused_before_the_video_is_made():
    with pytest.raises(SpecError, match='/proc/clip.mp4.* cannot be written'):
        check_target('/proc/clip.mp4')
