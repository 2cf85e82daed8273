# SPDX-License-Identifier: Apache-2.0
"""Camera paths of whole clips: the key language, recorded files, motion."""
from pathlib import Path

from lingbot_world_ros.actions.camera_path import (CameraPath, interpolate, keys_to_path,
                                                   MAX_FILE_BYTES, read_camera_path, video_camera)
from lingbot_world_ros.actions.playback import CameraPlayback, open_path
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.rotation import rotation_from_vector
import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / 'shared' / 'examples' / 'lingbot_world'
EXPECTED_FRAMES = {'00': 961, '01': 561, '02': 957}


def translation(path):
    return path.poses[:, :3, 3]


def look(path, frame):
    """Return where the camera looks."""
    return path.poses[frame, :3, 2]


def wave(n=9):
    """Return a path that turns about all axes."""
    t = np.arange(n)[:, None] * np.array([0.1, 0.2, -0.3])
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, :3, :3] = rotation_from_vector(np.sin(t))
    poses[:, :3, 3] = t
    return poses


def test_keys_move_along_the_axes():
    path = keys_to_path('w-1,d-2,s-3,a-3')
    assert len(path) == 10
    steps = np.diff(translation(path), axis=0)[[0, 1, 3, 6]]
    np.testing.assert_allclose(steps, [[0, 0, .05], [.05, 0, 0], [0, 0, -.05], [-.05, 0, 0]],
                               atol=1e-12)


def test_path_begins_at_the_identity_and_is_padded_to_whole_latents():
    path = keys_to_path('w-10')
    assert len(path) == 13 + 1
    assert np.array_equal(path.poses[0], np.eye(4))
    assert translation(path)[10:, 2] == pytest.approx(0.5)
    assert len(keys_to_path('w-81')) == 82


def test_keys_turn_right_and_up():
    path = keys_to_path('l-10,i-11')
    np.testing.assert_allclose(look(path, 10), [np.sin(np.deg2rad(20)), 0, np.cos(np.deg2rad(20))])
    assert look(path, 21)[1] == pytest.approx(-np.sin(np.deg2rad(22)))
    np.testing.assert_allclose(keys_to_path('j-5').poses[5], keys_to_path('l-5').poses[5].T)


def test_camera_turns_and_then_moves_level():
    path = keys_to_path('l-1')
    turned = keys_to_path('wl-1')
    np.testing.assert_allclose(turned.poses[1, :3, 3], 0.05 * look(path, 1))
    up = keys_to_path('i-20,w-1')
    np.testing.assert_allclose(up.poses[21, :3, 3], [0, 0, 0.05], atol=1e-12)


def test_sideways_is_across_the_new_direction():
    step = keys_to_path('l-10,d-1').poses[11, :3, 3]
    np.testing.assert_allclose(step, [0.05 * 0.9396926208, 0.0, -0.05 * 0.3420201433])


def test_diagonals_add_up_and_opposites_cancel():
    assert np.linalg.norm(keys_to_path('wd-1').poses[1, :3, 3]) == pytest.approx(0.05 * np.sqrt(2))
    np.testing.assert_allclose(keys_to_path('wsjl-5').poses[-1], np.eye(4), atol=1e-12)


def test_pitch_stays_within_85_degrees():
    path = keys_to_path('i-50,k-1')
    pitch = np.rad2deg(np.arcsin(-path.poses[:, 1, 2]))
    assert pitch.max() == pytest.approx(84)
    assert pitch[51] == pytest.approx(82)


def test_yaw_is_about_the_worlds_vertical():
    path = keys_to_path('i-10,l-45')
    np.testing.assert_allclose(path.poses[55, :3, 0], [0, 0, -1], atol=1e-9)
    assert look(path, 55)[1] == pytest.approx(-np.sin(np.deg2rad(20)))


def test_keys_of_each_frame_are_kept_for_networks_with_keys():
    keys = keys_to_path('w-1,ad-1').keys
    assert keys.shape == (6, 4) and keys.dtype == np.float32
    assert keys[:3].tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize('text', ('', 'w', 'w-', 'w-0', 'x-5', 'w-5;a-5', 'w--5', 'w-1e3', 'W-5',
                                  'w-9999999', 'w-99997', 'w-99999,w-99999', 'nonew-5', 'w-٣',
                                  'w-5,', 'w-1,' * 9999))
def test_texts_in_another_language_are_refused(text):
    with pytest.raises(SpecError):
        keys_to_path(text)


def test_spaces_between_parts_do_not_matter():
    assert np.array_equal(keys_to_path('w-4, a-5').poses, keys_to_path('w-4,a-5').poses)


def test_unit_of_keys_can_be_given():
    assert keys_to_path('w-1', metres_per_unit=2.0).poses[1, 2, 3] == pytest.approx(0.1)


def test_motion_composes_to_the_path_and_rests_after_its_end():
    path = CameraPath(wave(6))
    motion = path.motion(2, 7)
    assert motion.shape == (7, 4, 4)
    T = path.poses[2]
    for step in motion:
        T = T @ step
    np.testing.assert_allclose(T, path.poses[5], atol=1e-12)
    assert np.array_equal(motion[3:], np.tile(np.eye(4), (4, 1, 1)))
    assert np.array_equal(path.motion(100, 2), np.tile(np.eye(4), (2, 1, 1)))


def test_interpolation_goes_through_the_poses_at_constant_speed_between():
    poses = wave()
    np.testing.assert_allclose(interpolate(poses, np.arange(9)), poses, atol=1e-15)
    middle = interpolate(poses, [3.5])[0]
    np.testing.assert_allclose(middle[:3, 3], (poses[3] + poses[4])[:3, 3] / 2)
    first, second = (np.linalg.inv(a) @ b for a, b in ((poses[3], middle), (middle, poses[4])))
    np.testing.assert_allclose(first[:3, :3], second[:3, :3], atol=1e-12)


def test_interpolation_stays_between_the_first_and_the_last_pose():
    poses = wave(3)
    np.testing.assert_allclose(interpolate(poses, [-1.0, 0.25, 1.75, 9.0])[:, :3, 3],
                               np.outer([0.0, 0.25, 1.75, 2.0], [0.1, 0.2, -0.3]), atol=1e-15)
    np.testing.assert_allclose(interpolate(poses[1:2], [0.0, 3.0]), poses[[1, 1]], atol=1e-15)
    assert len(CameraPath(poses[:1]).at_rate(7.0)) == 1


def test_path_at_another_rate_takes_as_long():
    path = CameraPath(wave(17), frame_rate_hz=16.0)
    slow, fast = path.at_rate(8.0), path.at_rate(32.0)
    assert (len(slow), len(fast)) == (9, 33)
    np.testing.assert_allclose(slow.poses, path.poses[::2], atol=1e-12)
    np.testing.assert_allclose(fast.poses[::2], path.poses, atol=1e-12)
    assert path.at_rate(16.0) is path
    assert len(path.at_rate(0.5)) == 1  # the next frame would be one of the second after it
    assert len(path.at_rate(5.0)) == 6  # in the first second, at 0, 0.2 ... 1
    for rate in (0.0, -1.0, float('nan'), float('inf'), 1e9):
        with pytest.raises(SpecError):
            path.at_rate(rate)


def test_keys_at_another_rate_are_those_of_the_frames_that_are_left():
    keys = np.arange(20.0).reshape(5, 4)
    assert CameraPath(wave(5), keys=keys).at_rate(8.0).keys.tolist() == keys[::2].tolist()
    assert CameraPath(wave(5)).at_rate(8.0).keys is None


def test_intrinsics_follow_the_size():
    half = video_camera((500, 500, 416, 240), 416, 240)
    assert (half.width_px, half.height_px) == (416, 240)
    assert half.corner_intrinsics == (250, 250, 208, 120)
    assert (half.cx_px, half.cy_px) == (207.5, 119.5)  # of the pixel's centres, as in ROS
    camera = video_camera(None, 832, 464)
    assert (camera.fx_px, camera.cx_px) == (503.0, 415.5)
    assert camera.fy_px == pytest.approx(486.2333333) and camera.cy_px == pytest.approx(231.5)


def write(folder, **arrays):
    for name, array in arrays.items():
        np.save(folder / f'{name}.npy', np.asarray(array))
    return folder


def test_folder_is_read_whole(tmp_path):
    write(tmp_path, poses=wave().astype(np.float32), intrinsics=np.tile([100., 200, 3, 4], (9, 1)),
          action=np.full((9, 4), 0.9))
    path = read_camera_path(tmp_path)
    np.testing.assert_allclose(path.poses, wave(), atol=1e-6)
    assert path.intrinsics == (100, 200, 3, 4) and path.frame_rate_hz == 16
    assert path.keys.tolist() == [[1] * 4] * 9


def test_file_of_poses_is_enough(tmp_path):
    write(tmp_path, poses=wave())
    path = read_camera_path(str(tmp_path / 'poses.npy'), metres_per_unit=2.0)
    np.testing.assert_allclose(translation(path), 2 * wave()[:, :3, 3])
    assert path.intrinsics is None and path.keys is None


def test_the_first_row_of_intrinsics_counts_and_small_numbers_are_taken(tmp_path):
    write(tmp_path, poses=wave(2)[1:], intrinsics=[[10.5, 10.25, -3.0, 0.0], [9.0] * 4],
          action=[[1.0, 0.0, 0.0, 1.0], [0.0] * 4])
    path = read_camera_path(tmp_path, metres_per_unit=0.5, frame_rate_hz=0.5)
    np.testing.assert_allclose(translation(path), [[0.05, 0.1, -0.15]])
    assert (path.intrinsics, path.frame_rate_hz) == ((10.5, 10.25, -3.0, 0.0), 0.5)
    assert path.keys.tolist() == [[1, 0, 0, 1]]


def test_rotations_are_made_exact(tmp_path):
    write(tmp_path, poses=wave().astype(np.float16))
    R = read_camera_path(tmp_path).poses[:, :3, :3]
    np.testing.assert_allclose(R @ R.swapaxes(1, 2), np.tile(np.eye(3), (9, 1, 1)), atol=1e-12)


def test_key_files_make_a_path_where_there_are_no_poses(tmp_path):
    wasd, ijkl = np.zeros((2, 5, 4))
    wasd[:, 0] = ijkl[:, 3] = 1
    path = read_camera_path(write(tmp_path, wasd_action=wasd, ijkl_action=ijkl))
    np.testing.assert_allclose(path.poses, keys_to_path('wl-5').poses)


def nan_pose():
    poses = wave()
    poses[3, 0, 0] = np.nan
    return poses


def far_pose():
    poses = wave()
    poses[3, 1, 3] = -1.1e6
    return poses


@pytest.mark.parametrize('poses', (
    far_pose(), np.zeros((0, 4, 4)), np.eye(4), np.tile(np.eye(3), (4, 1, 1)), np.zeros((3, 4, 4)),
    np.tile(np.diag([1., 1, -1, 1]), (3, 1, 1)), 2 * wave(), nan_pose(), 1e9 * wave(),
    wave().swapaxes(1, 2) + np.eye(4) * 0, wave().astype(complex), np.array(['x'] * 3)))
def test_poses_that_are_none_are_refused(tmp_path, poses):
    with pytest.raises(SpecError, match='poses.npy'):
        read_camera_path(write(tmp_path, poses=poses))


@pytest.mark.parametrize('intrinsics', (np.zeros((9, 4)), np.ones((9, 3)), np.ones((0, 4)),
                                        np.full((1, 4), np.inf), np.ones((2, 2, 4)),
                                        [[1.0, -1.0, 1.0, 1.0]], [[1.0, 1.0, np.nan, 1.0]],
                                        [[1.0, 1.0, 1.0, -1.1e6]], [[0.6, 1.05, 0.5, 0.5]],
                                        [[500.0, 9.9, 416.0, 240.0]]))
def test_intrinsics_that_are_none_are_refused(tmp_path, intrinsics):
    with pytest.raises(SpecError, match='intrinsics.npy'):
        read_camera_path(write(tmp_path, poses=wave(), intrinsics=intrinsics))


def test_keys_must_last_as_long_as_poses(tmp_path):
    with pytest.raises(SpecError, match='keys for 3 frames but 9 poses'):
        read_camera_path(write(tmp_path, poses=wave(), action=np.zeros((3, 4))))
    with pytest.raises(SpecError, match='action.npy'):
        read_camera_path(write(tmp_path, action=np.zeros((9, 5))))


def header(text):
    body = text.encode().ljust(117) + b'\n'
    return b'\x93NUMPY\x01\x00' + len(body).to_bytes(2, 'little') + body


@pytest.mark.parametrize('content', (
    b'', b'\x93NUMPY', b'hello', b'PK\x03\x04',
    header("{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999, 4, 4), }"),
    header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"),
    header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 4, 4), }"),
    header("{'descr': '<f8', 'shape': ("), header('__import__("os")')))
def test_broken_files_are_refused(tmp_path, content):
    (tmp_path / 'poses.npy').write_bytes(content)
    with pytest.raises(SpecError, match='poses.npy'):
        read_camera_path(tmp_path)


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / 'poses.npy', np.array([{}], object), allow_pickle=True)
    with pytest.raises(SpecError, match='numpy.save'):
        read_camera_path(tmp_path)


def test_large_files_are_not_read(tmp_path):
    with open(tmp_path / 'poses.npy', 'wb') as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(SpecError, match='larger than'):
        read_camera_path(tmp_path)


@pytest.mark.parametrize('where', ('missing', 'a\0b', '~nobody_of_that_name/x', 'x' * 5000))
def test_paths_that_do_not_exist_are_refused(where):
    with pytest.raises(SpecError, match='camera path'):
        read_camera_path(where)


def test_folder_without_anything_is_refused(tmp_path):
    with pytest.raises(SpecError, match='neither'):
        read_camera_path(tmp_path)


@pytest.mark.parametrize('wrong', ({'metres_per_unit': 0}, {'frame_rate_hz': float('nan')}))
def test_units_that_are_none_are_refused(tmp_path, wrong):
    with pytest.raises(SpecError):
        read_camera_path(write(tmp_path, poses=wave()), **wrong)


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason='the examples are not here')
@pytest.mark.parametrize('name', EXPECTED_FRAMES)
def test_public_examples_are_read(name):
    path = read_camera_path(EXAMPLES / name)
    assert len(path) == EXPECTED_FRAMES[name]
    assert 400 < path.intrinsics[0] < 600
    stored = np.load(EXAMPLES / name / 'poses.npy')
    np.testing.assert_allclose(path.poses, stored, atol=1e-5)


def straight(steps):
    """Return poses that go these ways along x."""
    poses = np.tile(np.eye(4), (len(steps) + 1, 1, 1))
    poses[1:, 0, 3] = np.cumsum(steps)
    return poses


def test_scale_is_chosen_by_the_largest_step_over_four_frames(tmp_path):
    """From every fourth pose to the next it is 1.2, 4.4 and 0.4 metres: 0.5 becomes of 4.4."""
    write(tmp_path, poses=straight([0.3] * 4 + [1.1] * 4 + [0.1] * 4))
    chosen = open_path(str(tmp_path), 0.0, 0.5)
    assert chosen.poses[[0, 4, 8], 0, 3] == pytest.approx([0.0, 1.2 * 0.5 / 4.4, 5.6 * 0.5 / 4.4])
    assert chosen.poses[:, 3].tolist() == [[0.0, 0.0, 0.0, 1.0]] * 13
    assert open_path(str(tmp_path), 2.0, 0.5).poses[4, 0, 3] == pytest.approx(2.4)
    assert open_path('keys:w-3', 0.0, 0.7).poses[4, 2, 3] == pytest.approx(0.7)
    assert open_path('keys:w-3', 3.0, 0.7).poses[3, 2, 3] == pytest.approx(0.45)
    assert not open_path('keys:l-3', 0.0, 0.7).poses[:, :3, 3].any()  # turns, and goes nowhere


def test_a_small_largest_step_is_scaled_too(tmp_path):
    write(tmp_path, poses=straight([0.1] * 4))
    assert open_path(str(tmp_path), 0.0, 0.5).poses[4, 0, 3] == pytest.approx(0.5)


def test_a_path_is_played_by_sim_time_since_the_reset():
    """At 20 Hz frames come 50 ms apart, the first one period after the reset at 3 s."""
    playback = CameraPlayback.begin(CameraPath(straight([1.0, 2.0, 4.0]), frame_rate_hz=20.0),
                                    20.0, 3_000_000_000)
    assert playback.period_ns == 50_000_000

    def steps(sim_ns):
        return playback.motion(sim_ns, 2)[:, 0, 3].tolist()
    assert steps(3_050_000_000) == [1.0, 2.0] == steps(3_000_000_000) == steps(0)
    assert steps(3_100_000_000) == [2.0, 4.0] == steps(3_110_000_000)
    assert steps(3_150_000_000) == [4.0, 0.0] and steps(3_200_000_000) == [0.0, 0.0]
    assert not playback.has_ended(3_150_000_000)
    assert playback.has_ended(3_200_000_000) and playback.has_ended(9_000_000_000)
