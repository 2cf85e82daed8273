# SPDX-License-Identifier: Apache-2.0
"""The whole road from the reference world to weights that run, in small; needs torch."""
import csv

from needs import need_engine
import numpy as np
import pytest

pytest.importorskip('torch')
pytest.importorskip('scipy')
need_engine('reference')
need_engine('room')

from lingbot_world_ros.engines.room.engine import RoomWorld  # noqa: E402, I100
from lingbot_world_ros.training import (dataset, export, mapping,  # noqa: E402
                                        train_dynamics, train_renderer)

MINUTES = '0.02'

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Run every stage with the smallest settings; return the folder of it all."""
    root = tmp_path_factory.mktemp('train')
    data, maps = str(root / 'data'), str(root / 'maps.safetensors')
    dataset.main(['--out', data, '--scenes', 'office', '--episodes', '6', '--frames', '8',
                  '--mapping-frames', '16', '--workers', '1'])
    mapping.main(['--data', data, '--out', maps])
    train_renderer.main(['--data', data, '--maps', maps, '--out', str(root / 'renderer'),
                         '--minutes', MINUTES, '--batch', '2', '--device', 'cpu'])
    train_dynamics.main(['--data', data, '--maps', maps, '--out', str(root / 'dynamics'),
                         '--minutes', MINUTES, '--batch', '4', '--horizon', '4',
                         '--device', 'cpu'])
    small = str(root / 'small_data')
    dataset.main(['--out', small, '--scenes', 'office', '--episodes', '4', '--frames', '8',
                  '--every', '4', '--size', '64', '48', '--mapping-frames', '0', '--workers', '1'])
    export.main(['--renderer', str(root / 'renderer'), '--dynamics', str(root / 'dynamics'),
                 '--out', str(root / 'weights'), '--name', 'tiny'])
    train_renderer.main(['--data', small, '--small-from', str(root / 'weights'), '--out',
                         str(root / 'small'), '--minutes', MINUTES, '--batch', '2', '--device',
                         'cpu'])
    export.main(['--small', str(root / 'small'), '--out', str(root / 'weights')])
    return root


def test_small_pictures_are_learned_from_a_few_frames_of_each_episode(trained):
    from lingbot_world_ros.robots.load import load_robot
    shot = dataset.load_scene(trained / 'small_data' / 'office')
    assert shot['rgb'].shape == (4, 3, 48, 64, 3) and 'action' not in shot
    all_frames = dataset.load_scene(trained / 'data' / 'office')
    np.testing.assert_array_equal(shot['base_pose'][:, 1], all_frames['base_pose'][:4, 4])
    robot = load_robot()
    small = robot.with_camera(robot.camera.resized(64, 48))
    seen = RoomWorld(weights=trained / 'weights', robot=small, verify=True).reset('office', 0)
    assert seen.rgb.shape == (1, 1, 48, 64, 3) and seen.rgb.std() > 1


def test_dataset_repeats_by_seed(trained, tmp_path):
    dataset.main(['--out', str(tmp_path), '--scenes', 'office', '--episodes', '2', '--frames', '8',
                  '--mapping-frames', '0', '--workers', '1'])
    first = dataset.load_scene(trained / 'data' / 'office')
    again = dataset.load_scene(tmp_path / 'office')
    for name in ('rgb', 'base_pose', 'action', 'object_pose'):
        np.testing.assert_array_equal(first[name][:2], again[name], err_msg=name)


def test_fused_map_knows_free_space_and_walls(trained):
    from safetensors.numpy import load_file
    plan = load_file(trained / 'maps.safetensors')['office.clearance'][0, 0]  # y x, 5 cm cells
    assert plan[int((2.5 + 0.2) / 0.05), int((3.0 + 0.2) / 0.05)] > 0.5  # middle of the room
    assert plan[0, 0] < 0  # behind the corner


def test_exported_world_runs_and_shows_the_room(trained):
    world = RoomWorld(weights=trained / 'weights', verify=True)
    seen = world.reset('office', 0)
    for _ in range(5):
        seen = world.step(np.zeros((1, 1, 7), np.float32))
    assert world.spec.model == 'tiny' and world.spec.scenes == ('office',)
    assert np.isfinite(seen.base_pose).all()
    assert seen.rgb.std() > 1
    assert 0.2 < np.median(seen.depth_m) < 7


def test_finished_run_does_not_train_again(trained):
    checkpoint = trained / 'dynamics' / 'checkpoint.pt'
    import torch
    before = torch.load(checkpoint, weights_only=True)['step']
    train_dynamics.main(['--data', str(trained / 'data'), '--maps',
                         str(trained / 'maps.safetensors'), '--out', str(trained / 'dynamics'),
                         '--minutes', MINUTES, '--batch', '4', '--horizon', '4',
                         '--device', 'cpu'])
    assert torch.load(checkpoint, weights_only=True)['step'] == before > 0


def test_longer_budget_resumes_and_writes_a_curve(trained):
    args = ['--data', str(trained / 'data'), '--maps', str(trained / 'maps.safetensors'), '--out',
            str(trained / 'dynamics'), '--batch', '4', '--horizon', '4', '--device', 'cpu']
    import torch
    before = torch.load(trained / 'dynamics' / 'checkpoint.pt', weights_only=True)['step']
    train_dynamics.main([*args, '--minutes', str(2 * float(MINUTES))])
    after = torch.load(trained / 'dynamics' / 'checkpoint.pt', weights_only=True)['step']
    assert after > before
    rows = list(csv.DictReader((trained / 'dynamics' / 'curve.csv').open()))
    assert int(rows[-1]['step']) == after and float(rows[-1]['position_8']) < 1
