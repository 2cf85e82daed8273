# SPDX-License-Identifier: Apache-2.0
"""The shipped embedded world: weights, sizes, uncertainty, likeness to the reference world."""
from dataclasses import replace
import json
import os
import shutil
import subprocess
import sys

from lingbot_world_ros.engines.registry import make_world
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.evaluation.command_sequences import command_sequence
from needs import need_engine
import numpy as np
import pytest
from waiting import PATIENCE_S

need_engine('room')

from lingbot_world_ros.engines.room.engine import RoomWorld  # noqa: E402, I100
from lingbot_world_ros.models.room.runtime import compile_graph, read_about, WEIGHTS  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402

SIZE_LIMIT_BYTES = 32e6


def roll(world, scene, seed, num_frames):
    """Drive a seeded command sequence; return first and last observation."""
    commands = command_sequence(world.spec.robot, num_frames, np.random.default_rng(seed))
    first = world.reset(scene, seed)
    for t in range(num_frames):
        seen = world.step(commands[None, t:t + 1], render=t + 1 == num_frames)
    return first, seen


def test_shipped_files_match_their_checksums_and_stay_small():
    assert set(read_about(WEIGHTS, verify=True)['scenes']) == {'living_room', 'office', 'workshop'}
    assert sum(p.stat().st_size for p in WEIGHTS.iterdir()) < SIZE_LIMIT_BYTES


@pytest.mark.parametrize('scene', ['living_room', 'office', 'workshop'])
def test_two_imagined_seconds_look_like_the_reference_world(scene):
    """A wrong axis, scale or frame in the export costs more than 10 dB."""
    need_engine('reference')
    reference = make_world('reference')
    _, truth = roll(reference, scene, 11, 30)
    _, seen = roll(RoomWorld(), scene, 11, 30)
    square = np.mean((truth.rgb / 255.0 - seen.rgb / 255.0) ** 2)
    assert -10 * np.log10(square) > 20
    assert np.median(np.abs(truth.depth_m - seen.depth_m) / truth.depth_m) < 0.03


def test_uncertainty_and_covariance_grow_from_a_known_start():
    first, seen = roll(RoomWorld(), 'office', 4, 90)
    assert first.base_pose_cov.max() == 0
    cov = seen.base_pose_cov[0, 0]
    assert np.linalg.eigvalsh(cov).min() > 0
    assert seen.uncertainty[0, 0] > first.uncertainty[0, 0]


def test_observing_the_truth_makes_the_state_known_again():
    world = RoomWorld()
    _, seen = roll(world, 'office', 4, 60)
    seen.base_pose[..., 0] += 0.2
    world.observe(seen)
    after = world.step(np.zeros((1, 1, 7), np.float32))
    np.testing.assert_allclose(after.base_pose[0, 0], seen.base_pose[0, 0], atol=0.1)
    assert after.base_pose_cov.max() < seen.base_pose_cov.max()


def test_sampled_future_repeats_by_seed_and_is_not_the_mean():
    sampled, again = (roll(RoomWorld(sample=True), 'office', 0, 20)[1] for _ in range(2))
    mean = roll(RoomWorld(), 'office', 0, 20)[1]
    np.testing.assert_array_equal(sampled.base_pose, again.base_pose)
    assert np.abs(sampled.joint_position - mean.joint_position).max() > 0


def test_runs_without_torch():
    code = ('import sys; sys.modules["torch"] = None\n'
            'from lingbot_world_ros.engines.registry import make_world\n'
            'print(make_world("room").reset("office", 1).rgb.mean())')
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                         timeout=PATIENCE_S)
    assert out.returncode == 0, out.stderr
    assert 20 < float(out.stdout) < 235


def sized(width, height, **options):
    """Return a world whose pictures have this size."""
    robot = load_robot()
    return RoomWorld(robot=robot.with_camera(robot.camera.resized(width, height)), **options)


@pytest.mark.parametrize('size', [(48, 36), (64, 48), (80, 60), (112, 84), (192, 144)], ids=str)
def test_pictures_of_another_size_are_drawn_in_it(size):
    world, full = sized(*size), RoomWorld()
    assert (world.spec.camera.width_px, world.spec.camera.height_px) == size
    seen, expected = (each.reset('office', 3) for each in (world, full))
    assert seen.rgb.shape == (1, 1, size[1], size[0], 3)
    assert seen.depth_m.shape == (1, 1, size[1], size[0])
    coarse, other = (each.rgb[0, 0].reshape(12, each.rgb.shape[2] // 12, 16, -1, 3).mean((1, 3))
                     for each in (seen, expected))
    assert np.sqrt(np.mean((coarse - other) ** 2)) < 12  # of 255
    np.testing.assert_array_equal(seen.base_pose, expected.base_pose)


@pytest.mark.parametrize('size, words', [
    ((100, 75), 'multiples of 4'), ((80, 64), '4:3'),
    ((32, 24), '48x36'), ((208, 156), '192x144')])
def test_a_size_that_cannot_be_drawn_is_refused(size, words):
    with pytest.raises(SpecError, match=words):
        sized(*size)


def test_a_camera_elsewhere_is_refused():
    robot = load_robot()
    moved = replace(robot.camera, position_m=(0.1, 0.0, 0.5))
    wide = replace(robot.camera, fx_px=80.0, fy_px=80.0)
    for camera in (moved, wide):
        with pytest.raises(SpecError, match='one camera'):
            RoomWorld(robot=robot.with_camera(camera))


def test_inexact_worlds_are_nearly_the_exact_ones():
    """States to rounding, pictures to what bfloat16 and a step less along each ray cost."""
    scenes, seeds = ('office', 'workshop', 'office', 'office'), (1, 2, 3, 4)
    exact, quick = RoomWorld(4), RoomWorld(4, exact=False)
    commands = np.stack([command_sequence(exact.spec.robot, 20, np.random.default_rng(seed))
                         for seed in seeds])
    for world in (exact, quick):
        world.reset(scenes, seeds)
    for t in range(20):
        seen, other = (world.step(commands[:, t:t + 1], render=t == 19)
                       for world in (exact, quick))
    for name in ('base_pose', 'base_twist', 'joint_position', 'joint_velocity', 'object_pose',
                 'contact', 'base_pose_cov'):
        np.testing.assert_allclose(getattr(seen, name), getattr(other, name), atol=1e-4,
                                   err_msg=name)
    apart = (seen.rgb.astype(float) - other.rgb)[:, 0]
    assert (np.sqrt(np.mean(apart ** 2, (1, 2, 3))) < 4).all()  # of 255
    assert np.median(np.abs(seen.depth_m / other.depth_m - 1)) < 1e-3
    np.testing.assert_allclose(seen.uncertainty, other.uncertainty, rtol=0.05)


def test_inexact_worlds_run_where_there_is_no_bfloat16():
    code = ('from lingbot_world_ros.engines.registry import make_world\n'
            'print(make_world("room", exact=False).reset("office", 1).rgb.mean())')
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                         timeout=PATIENCE_S, env={**os.environ, 'ONEDNN_MAX_CPU_ISA': 'AVX2'})
    assert out.returncode == 0, out.stderr
    assert 20 < float(out.stdout) < 235


def test_an_inexact_row_shows_what_it_would_show_alone():
    """But for rounding of its state, whatever the other rows are and do."""
    together, alone = sized(80, 60, batch_size=9, exact=False), sized(80, 60, exact=False)
    robot = together.spec.robot
    commands = np.stack([command_sequence(robot, 6, np.random.default_rng(i)) for i in range(9)])
    together.reset('office', range(9))
    alone.reset('office', [5])
    for t in range(6):
        seen, own = together.step(commands[:, t:t + 1]), alone.step(commands[5:6, t:t + 1])
        np.testing.assert_allclose(seen.base_pose[5:6], own.base_pose, atol=1e-5)
        assert np.abs(seen.rgb[5:6].astype(int) - own.rgb).mean() < 0.1
    saved = together.snapshot([5])
    alone.restore(saved)
    together.reset('workshop', 3, rows=[0, 2])
    after = together.step(np.zeros((9, 1, 7), np.float32))
    np.testing.assert_allclose(after.base_pose[5:6],
                               alone.step(np.zeros((1, 1, 7), np.float32)).base_pose, atol=1e-5)


@pytest.fixture
def weights(tmp_path):
    """Return a copy of the shipped weights that a test may damage."""
    return shutil.copytree(WEIGHTS, tmp_path / 'weights')


def test_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(SpecError, match='model.json is missing.*Restore'):
        RoomWorld(weights=tmp_path)


def test_missing_file_is_named(weights):
    (weights / 'dynamics.onnx').unlink()
    with pytest.raises(SpecError, match='dynamics.onnx is missing'):
        RoomWorld(weights=weights)


def test_corrupt_description_is_named(weights):
    (weights / 'model.json').write_text('{"format": ')
    with pytest.raises(SpecError, match='model.json is corrupt'):
        RoomWorld(weights=weights)


def test_other_format_is_refused(weights):
    about = json.loads((weights / 'model.json').read_text())
    (weights / 'model.json').write_text(json.dumps({**about, 'format': 99}))
    with pytest.raises(SpecError, match='format 99, expected 2'):
        RoomWorld(weights=weights)


@pytest.mark.parametrize('name', ['office.safetensors', 'renderer.onnx'])
def test_damaged_file_is_found(weights, name):
    data = bytearray((weights / name).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (weights / name).write_bytes(data)
    with pytest.raises(SpecError, match=f'{name} is corrupt'):
        RoomWorld(weights=weights, verify=True)


@pytest.mark.parametrize('name', ['office.safetensors', 'renderer.onnx'])
def test_truncated_file_is_one_clear_error(weights, name):
    (weights / name).write_bytes((weights / name).read_bytes()[:1000])
    world = RoomWorld(weights=weights)
    with pytest.raises(SpecError, match=f'{name} cannot be read.*Restore'):
        world.reset('office', 0)


def drive(scene='office'):
    """Drive a world whose graphs are compiled, or read from where they are kept."""
    compile_graph.cache_clear()
    _, seen = roll(RoomWorld(), scene, 3, 3)
    return seen.rgb.tobytes(), seen.base_pose.tobytes()


@pytest.mark.slow
def test_compiled_graphs_are_kept_and_show_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    seen, files = drive(), sorted(tmp_path.rglob('*.bin'))
    assert [path.name.split('-')[0] for path in files] == ['dynamics', 'renderer']
    before = [path.stat().st_mtime_ns for path in files]
    assert drive() == seen and [path.stat().st_mtime_ns for path in files] == before
    for path in files:  # one bit of a number
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    damaged = [path.read_bytes() for path in files]
    assert drive() == seen
    assert all(path.read_bytes() != content for path, content in zip(files, damaged))


def test_a_world_runs_where_nothing_can_be_kept(tmp_path, monkeypatch):
    seen = drive()
    (tmp_path / '.cache').touch()
    monkeypatch.setenv('HOME', str(tmp_path))
    assert drive() == seen and [path.name for path in tmp_path.iterdir()] == ['.cache']
