# SPDX-License-Identifier: Apache-2.0
"""The baseline: shapes, files, and that training makes it better."""
import csv

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.robots.load import load_robot
import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('safetensors')

from lingbot_world_ros.evaluation.baseline_world import BaselineWorld  # noqa: E402, I100
from lingbot_world_ros.models.baseline import network as baseline  # noqa: E402
from lingbot_world_ros.training import train_baseline  # noqa: E402

ROBOT = load_robot()

H, W = ROBOT.camera.height_px, ROBOT.camera.width_px
TINY = baseline.BaselineSpec(W, H, 7, latent_dim=16, channels=(16, 8, 8, 8), squeezed_channels=8,
                             hidden_dim=16)


@pytest.fixture
def dataset(tmp_path):
    """Make one scene of flat images whose brightness is the first action."""
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (20, 4, 7)).astype(np.float32)
    level = np.concatenate([np.zeros((20, 1)), action[:, :, 0]], 1)
    rgb = np.broadcast_to((127 + 100 * level).astype(np.uint8)[..., None, None, None],
                          (20, 5, H, W, 3))
    (tmp_path / 'data' / 'room').mkdir(parents=True)
    np.save(tmp_path / 'data' / 'room' / 'rgb.npy', rgb)
    np.save(tmp_path / 'data' / 'room' / 'action.npy', action)
    return tmp_path / 'data'


@pytest.mark.parametrize('size', [(160, 120), (128, 96), (50, 33)])
def test_images_keep_their_size(size):
    spec = baseline.BaselineSpec(width_px=size[0], height_px=size[1], action_dim=7, latent_dim=16,
                                 channels=(16, 8, 8, 8), squeezed_channels=8, hidden_dim=16)
    model = baseline.BaselineModel(spec)
    out = model(torch.rand(2, 3, size[1], size[0]), torch.zeros(2, 3, 7))
    assert out.shape == (2, 4, 3, size[1], size[0])


def test_too_small_images_are_refused():
    with pytest.raises(SpecError, match='31x120'):
        baseline.BaselineSpec(width_px=31, height_px=120, action_dim=7)


def test_capacity_is_that_of_a_small_world_model():
    model = baseline.BaselineModel(baseline.BaselineSpec(W, H, 7))
    count = sum(p.numel() for p in model.parameters())
    assert 3e6 < count < 5e6


def test_saved_model_imagines_the_same(tmp_path):
    model = baseline.BaselineModel(TINY).eval()
    model.action_scale.fill_(2.0)
    baseline.save_baseline(model, tmp_path / 'm.safetensors')
    again = baseline.load_baseline(tmp_path / 'm.safetensors')
    rgb, action = torch.rand(1, 3, H, W), torch.rand(1, 2, 7)
    assert torch.equal(model(rgb, action), again(rgb, action))


def test_long_rollouts_stay_bounded():
    torch.manual_seed(0)
    model = baseline.BaselineModel(TINY).eval()
    with torch.inference_mode():
        z = model.encode(torch.rand(1, 3, H, W))
        for _ in range(900):
            z = model.advance(z, torch.ones(1, 7))
    assert z.square().mean() == pytest.approx(1.0, abs=1e-2)


def test_broken_file_is_named(tmp_path):
    (tmp_path / 'm.safetensors').write_bytes(b'not weights')
    with pytest.raises(SpecError, match='m.safetensors'):
        baseline.load_baseline(tmp_path / 'm.safetensors')


def test_world_rolls_out_from_images(tmp_path):
    baseline.save_baseline(baseline.BaselineModel(TINY), tmp_path / 'm.safetensors')
    world = BaselineWorld(tmp_path / 'm.safetensors')
    first = world.reset_from(np.zeros((2, H, W, 3), np.uint8))
    hidden = world.step(np.ones((2, 1, 7), np.float32), render=False)
    shown = world.step(np.ones((2, 1, 7), np.float32))
    assert first.rgb.shape == shown.rgb.shape == (2, 1, H, W, 3)
    assert hidden.rgb is None and shown.rgb.dtype == np.uint8 and shown.base_pose is None


def test_training_continues_where_it_stopped_and_writes_its_curve(dataset, tmp_path):
    out = tmp_path / 'run'
    line = ['--data', str(dataset), '--out', str(out), '--batch-size', '2', '--horizon', '3',
            '--decoded', '2', '--device', 'cpu', '--max-steps']
    train_baseline.main([*line, '1'])
    train_baseline.main([*line, '2'])
    with (out / 'curve.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r['step']) for r in rows] == [1, 2]
    assert float(rows[0]['psnr_1']) > 0 and 'psnr_5' not in rows[0]
    model = baseline.load_baseline(out / 'baseline.safetensors')
    assert model.action_scale[0] == pytest.approx(ROBOT.drive.linear_high_mps)


def test_optimiser_steps_lower_the_loss():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = baseline.BaselineModel(TINY)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    rgb, action = torch.full((2, 3, 3, H, W), 0.9), torch.zeros(2, 2, 7)
    losses = [float(train_baseline.train_step(model, optimizer, rgb, action, 2, rng))
              for _ in range(12)]
    assert losses[-1] < 0.5 * losses[0]


def test_missing_or_small_dataset_is_named(dataset, tmp_path):
    with pytest.raises(SpecError, match='training.dataset'):
        train_baseline.load_episodes(tmp_path / 'nothing', torch.device('cpu'))
    rgb = np.load(dataset / 'room' / 'rgb.npy')
    np.save(dataset / 'room' / 'rgb.npy', rgb[:5])
    with pytest.raises(SpecError, match='5 episodes'):
        train_baseline.load_episodes(dataset, torch.device('cpu'))
