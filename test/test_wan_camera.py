# SPDX-License-Identifier: Apache-2.0
"""Rays against golden numbers and hand-computed cases, live motion against its definition."""
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from lingbot_world_ros.actions.camera_path import (CameraPath, keys_to_path,  # noqa: E402, I100
                                                   video_camera)
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.geometry.camera import PinholeCamera  # noqa: E402
from lingbot_world_ros.geometry.rotation import rotation_from_vector  # noqa: E402, I100
from lingbot_world_ros.models.wan.camera import (clip_keys, clip_steps, latent_steps,  # noqa: E402
                                                 RayGrid, REST_ROTATION_RAD, REST_TRANSLATION,
                                                 unit_translations)
from lingbot_world_ros.models.wan.spec import PATCH, VideoSize  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[2] / 'shared' / 'golden'
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason='golden vectors are not here')
SIZE = VideoSize(48, 64)
PX = 8  # of a latent


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def golden(name):
    from safetensors import safe_open
    with safe_open(GOLDEN / f'{name}.safetensors', 'pt') as file:
        size = VideoSize(int(file.metadata()['height']), int(file.metadata()['width']))
        names = ('poses', 'intrinsics', 'relative', 'rays')
        return (size, *(file.get_tensor(f'camera.{part}') for part in names))


def framewise(poses):
    """See each camera from the one before, in double precision."""
    return np.concatenate([np.eye(4)[None], np.linalg.inv(poses[:-1]) @ poses[1:]])


def pose(translation=(0, 0, 0), rotation=(0, 0, 0)):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation_from_vector(np.array(rotation)), translation
    return T


def camera(focal_px):
    """Return a camera that looks through the middle of an image of ``SIZE``."""
    return PinholeCamera(SIZE.width_px, SIZE.height_px, focal_px, focal_px, 31.5, 23.5)


def packed_rays(tokens, size):
    """Put tokens where their latents are, (1, 64 c, f, h, w): so the public code holds rays."""
    rows, columns = size.grid
    _, ph, pw = PATCH
    x = tokens.view(-1, rows, columns, tokens.shape[-1] // (ph * pw), ph, pw)  # f rows cols c . .
    x = x.permute(3, 0, 1, 4, 2, 5)  # c f rows ph cols pw
    return x.reshape(1, len(x), -1, *size.latent)


def channel(tokens, size, index):
    """Return one ray channel of all pixels, (f, H, W), out of the packed layout."""
    rays = packed_rays(tokens, size)[0, index * 64:(index + 1) * 64]  # rs f h w
    return torch.nn.functional.pixel_shuffle(rays.transpose(0, 1), PX)[:, 0]


@needs_golden
@pytest.mark.parametrize('name', ('lingbot_world_base_tiny', 'lingbot_world_fast_tiny'))
def test_rays_are_those_of_the_public_code(name):
    size, _, intrinsics, relative, rays = golden(name)
    grid = RayGrid(video_camera(intrinsics[0].tolist(), size.width_px, size.height_px))
    torch.testing.assert_close(packed_rays(grid.tokens(relative.numpy()), size), rays, atol=1e-5,
                               rtol=1e-4)


@needs_golden
@pytest.mark.parametrize('name', ('lingbot_world_base_tiny', 'lingbot_world_fast_tiny'))
def test_rays_from_poses_are_those_of_the_public_code(name):
    size, poses, intrinsics, relative, rays = golden(name)
    path = CameraPath(poses.double().numpy())
    steps = clip_steps(path, len(path))
    assert np.linalg.norm(steps - relative.numpy()) < 1e-4 * np.linalg.norm(relative.numpy())
    grid = RayGrid(video_camera(intrinsics[0].tolist(), size.width_px, size.height_px))
    assert (packed_rays(grid.tokens(steps), size) - rays).norm() < 1e-4 * rays.norm()


def test_rays_of_a_camera_at_rest():
    tokens = RayGrid(camera(500)).tokens(np.eye(4)[None])
    assert tokens.shape == (1, 3 * 4, 1536)
    for axis in range(3):
        assert channel(tokens, SIZE, axis).eq(0).all()
    x, y, z = (channel(tokens, SIZE, 3 + axis)[0] for axis in range(3))
    assert [float(d[24, 32]) for d in (x, y, z)] == pytest.approx([.001, .001, 1], abs=1e-5)
    assert [float(d[23, 31]) for d in (x, y, z)] == pytest.approx([-.001, -.001, 1], abs=1e-5)
    corner = np.array([(63.5 - 32) / 500, (47.5 - 24) / 500, 1])
    corner /= np.linalg.norm(corner)
    assert [float(d[47, 63]) for d in (x, y, z)] == pytest.approx(corner.tolist(), abs=1e-6)


def test_rays_begin_at_the_camera_and_turn_with_it():
    quarter_right = pose((1, 2, 3), (0, np.pi / 2, 0))
    tokens = RayGrid(camera(500)).tokens(np.stack([np.eye(4), quarter_right]))
    assert tokens.shape == (1, 2 * 12, 1536)
    origin = [channel(tokens, SIZE, axis)[1].unique().tolist() for axis in range(3)]
    assert origin == [[1.0], [2.0], [3.0]]
    centre = [float(channel(tokens, SIZE, 3 + axis)[1, 24, 32]) for axis in range(3)]
    assert centre == pytest.approx([1, .001, -.001], abs=1e-5)


def test_token_holds_its_pixels_with_the_latent_as_the_fastest_index():
    tokens = RayGrid(camera(500)).tokens(np.eye(4)[None])[0]
    x = channel(tokens[None], SIZE, 3)[0]
    row, column, ph, pw, r, s = 1, 2, 1, 0, 5, 3  # of the token, latent in it, pixel in that
    pixel = x[row * 16 + ph * 8 + r, column * 16 + pw * 8 + s]
    assert tokens[row * 4 + column, ((3 * 8 + r) * 8 + s) * 4 + ph * 2 + pw] == pixel
    row_of_rays = (torch.arange(64) + 0.5 - 32) / 500
    y = (row * 16 + ph * 8 + r + 0.5 - 24) / 500
    expected = row_of_rays / (row_of_rays ** 2 + y ** 2 + 1).sqrt()
    torch.testing.assert_close(x[row * 16 + ph * 8 + r], expected, atol=1e-6, rtol=0)


def test_networks_with_keys_take_directions_then_keys():
    grid, keys = RayGrid(camera(500)), np.array([[1, 0, 0, 1], [0, 1, 0, 0]])
    steps = np.stack([np.eye(4), pose((1, 1, 1), (0, 0.1, 0))])
    tokens, rays = grid.tokens(steps, keys), grid.tokens(steps)
    assert tokens.shape == (1, 24, 1792)
    assert torch.equal(tokens[..., :768], rays[..., 768:])
    held = tokens[0, :, 768:].view(2, 12, 4, 256)
    assert torch.equal(held, torch.tensor(keys).float()[:, None, :, None].expand_as(held))


def test_tokens_come_in_the_dtype_of_the_network():
    tokens = RayGrid(camera(50), 'cpu').tokens(np.eye(4)[None], dtype=torch.bfloat16)
    assert tokens.dtype == torch.bfloat16


def test_longest_translation_becomes_one_unless_all_is_at_rest():
    scaled = unit_translations(np.stack([pose(), pose((0, 0, 4)), pose((2, 0, 0), (0, 1, 0))]))
    np.testing.assert_allclose(scaled[:, :3, 3], [[0, 0, 0], [0, 0, 1], [.5, 0, 0]])
    np.testing.assert_allclose(scaled[2, :3, :3], rotation_from_vector(np.array([0, 1, 0])))
    assert np.array_equal(unit_translations(np.tile(np.eye(4), (3, 1, 1)))[2], np.eye(4))


def test_every_fourth_frame_of_a_clip_counts():
    path = keys_to_path('w-9,l-8')
    steps = clip_steps(path, 17)
    assert steps.shape == (5, 4, 4)
    np.testing.assert_allclose(steps, unit_translations(framewise(path.poses[:17:4])), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(steps[:, :3, 3], axis=1), [0, 1, 1, .25, 0],
                               atol=1e-5)


def test_clip_of_fewer_latents_is_stretched_to_the_end_of_the_path():
    path = keys_to_path('wl-16')
    steps = unit_translations(framewise(path.poses[[0, 8, 16]]))
    np.testing.assert_allclose(clip_steps(path, 17, latents=3), steps, atol=1e-5)


def test_path_that_is_too_short_is_refused():
    with pytest.raises(SpecError, match='use at most 13'):
        clip_steps(keys_to_path('w-13'), 81)


def test_keys_are_those_of_every_fourth_frame():
    keys = clip_keys(keys_to_path('w-4,a-4,none-5'), 13)
    assert keys.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0] * 4, [0] * 4]
    assert clip_keys(CameraPath(np.tile(np.eye(4), (5, 1, 1))), 5).tolist() == [[0] * 4] * 2


def test_four_frames_make_one_latent_step():
    frame = pose((0.01, 0, 0.05), (0, 0.03, 0))
    steps = latent_steps(np.stack([frame] * 8 + [np.eye(4)] * 4), 0.25)
    expected = np.linalg.matrix_power(frame, 4)
    expected[:3, 3] /= 0.25
    assert steps.shape == (3, 4, 4)
    np.testing.assert_allclose(steps, [expected, expected, np.eye(4)], atol=1e-12)


def test_brisk_walk_is_about_the_largest_translation_the_network_knows():
    frame = pose((0, 0, 1.0 / 16))  # 1 m/s at 16 Hz
    assert latent_steps(np.stack([frame] * 4), 0.25)[0, :3, 3] == pytest.approx([0, 0, 1])


def test_noise_of_a_camera_at_rest_is_exact_rest():
    noisy = pose((0, 0, 0.24 * REST_TRANSLATION), (0, 0, 0.24 * REST_ROTATION_RAD))
    assert np.array_equal(latent_steps(np.stack([noisy] * 4), 1.0)[0], np.eye(4))


def test_slow_motion_is_no_rest():
    moving = latent_steps(np.stack([pose((0, 0, 0.3 * REST_TRANSLATION))] * 4), 1.0)[0]
    turning = latent_steps(np.stack([pose(rotation=(0, 0.3 * REST_ROTATION_RAD, 0))] * 4), 1.0)[0]
    assert moving[2, 3] == pytest.approx(1.2 * REST_TRANSLATION)
    assert turning[0, 2] == pytest.approx(1.2 * REST_ROTATION_RAD, rel=1e-3)


def test_live_walk_and_recorded_walk_are_the_same():
    path = keys_to_path('w-16,wl-16')
    live = latent_steps(path.motion(0, 32), 0.2)
    np.testing.assert_allclose(live, clip_steps(path, 33)[1:], atol=1e-5)
