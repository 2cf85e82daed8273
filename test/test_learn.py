# SPDX-License-Identifier: Apache-2.0
"""From a recording to a driven world: what is measured on the way, and what comes out."""
import fcntl
import json
import signal
import subprocess
import sys
import warnings

from needs import need_engine
import numpy as np
import pytest

pytest.importorskip('rosbags')
pytest.importorskip('torch')
pytest.importorskip('onnx')
pytest.importorskip('scipy')
need_engine('reference')  # bench.new_rooms draws with it
need_engine('learned')

from bench import bags  # noqa: E402, I100
from bench.bags import write_drive  # noqa: E402
from bench.new_rooms import BAD  # noqa: E402
import box_room  # noqa: E402
from lingbot_world_ros.cli.main import main  # noqa: E402
from lingbot_world_ros.engines.interface import State  # noqa: E402
from lingbot_world_ros.engines.learned.load import learned_world  # noqa: E402
from lingbot_world_ros.geometry import se2, se3  # noqa: E402
from lingbot_world_ros.models.mapped.motion import Motion, path  # noqa: E402
from lingbot_world_ros.models.mapped.registration import (  # noqa: E402
    pose_errors, register, rigidly_aligned, upright_points)
from lingbot_world_ros.models.mapped.surfaces import body_mask, fit_surfaces  # noqa: E402
from lingbot_world_ros.training.mapped.motion_fit import fit_motion  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402

RATE = box_room.RATE_HZ


@pytest.fixture(scope='module')
def drive():
    """Return a drive of half a minute."""
    return box_room.drive()


@pytest.fixture(scope='module')
def bag(drive, tmp_path_factory):
    """Return what its robot published."""
    return write_drive(tmp_path_factory.mktemp('bags') / 'box drive', drive, len(drive.rgb))


@pytest.fixture(scope='module')
def world(bag, tmp_path_factory):
    """Return a world that was learned from it."""
    folder = tmp_path_factory.mktemp('worlds') / 'box'
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        assert main(['learn', str(bag), '-o', str(folder), '--minutes', '0.15', '--licence',
                     'CC0-1.0']) == 0
    noise = 'Constant folding', 'You are using the legacy'
    assert not [w for w in told if str(w.message).startswith(noise)]
    return folder


def test_planes_are_found_in_noise():
    camera = box_room.small_robot(160, 120).camera
    T = se3.pose_from_se2(np.array([1.3, 1.5, 0.4])) @ camera.T_base_optical
    _, depth = box_room.look(T, camera)
    noisy = depth + np.random.default_rng(0).standard_normal(depth.shape) * 0.004
    found = fit_surfaces(noisy, camera)
    assert found.is_flat.mean() > 0.5
    # Normals of a box lie along its axes, towards the camera.
    normal = found.normal[found.is_flat] @ T[:3, :3].T
    assert np.degrees(np.arccos(np.clip(np.abs(normal).max(1), 0, 1))).mean() < 5.0
    off = np.abs(found.point[found.is_flat][:, 2] - depth[found.is_flat])
    assert np.median(off) < 0.0015  # of noise of 4 mm
    ahead = (found.normal * found.point).sum(-1)[found.is_flat]
    assert (ahead < 0).mean() > 0.99


def test_what_never_moves_is_the_robot():
    depths = np.random.default_rng(0).uniform(1.0, 4.0, (40, 24, 32))
    depths[:, 18:, 10:20] = 0.4
    mask = body_mask(depths)
    assert mask[18:, 10:20].all()
    assert not mask[:14].any() and mask.mean() < 0.25


@pytest.mark.parametrize('lies', ['usual', 'bad'])
def test_drift_is_taken_out_of_odometry(drive, lies):
    from bench.new_rooms import drifting, Odometry
    odometry = drifting(drive.true_pose, BAD if lies == 'bad' else Odometry(scale=0.03),
                        np.random.default_rng(1))
    camera = drive.robot.camera
    nothing = np.zeros(drive.depth.shape[1:], bool)
    found = register(odometry, lambda i: upright_points(
        drive.depth[i], camera, camera.T_base_optical, nothing), 3)
    before, after = pose_errors(odometry, drive.true_pose), pose_errors(found.pose,
                                                                        drive.true_pose)
    assert after[0] < 0.02 and after[0] < 0.5 * before[0]
    assert np.degrees(after[1]) < 0.6
    assert found.num_lost == 0


@pytest.mark.parametrize('is_steered', [False, True])
def test_following_at_once_is_following_frame_by_frame(is_steered):
    motion = Motion((0.9, 1.0, 1.2), (0.4, 0.8, 0.7), 2, is_steered)
    command = np.random.default_rng(0).standard_normal((30, 3))
    twist, slow = np.zeros((1, 3)), []
    for i in range(30):
        twist = motion.next_twist(twist, command[i - 2:i - 1] if i > 1 else np.zeros((1, 3)))
        slow.append(twist[0])
    np.testing.assert_allclose(motion.twists(command), slow, atol=1e-12)


@pytest.mark.parametrize('motion', [
    Motion((0.9, 1.0, 1.2), (0.4, 1.0, 0.7), 2),
    Motion((2.5, 1.0, 0.8), (0.3, 1.0, 0.9), 4, is_steered=True),
    Motion((1.0, 0.7, 1.0), (0.5, 0.6, 0.5), 0)])
def test_how_a_base_follows_its_commands_is_found(motion):
    rng = np.random.default_rng(3)
    command = np.repeat(rng.uniform(-0.5, 0.9, (40, 3)), 15, 0)
    if motion.gain[1] == 1.0:
        command[:, 1] = 0.0
    pose = path(motion.twists(command), 1.0 / RATE)[:-1]
    pose += rng.standard_normal(pose.shape) * [0.002, 0.002, 0.001]
    found = fit_motion(pose, command, [(0, len(pose))], RATE).motion
    assert found.delay_frames == motion.delay_frames
    assert found.is_steered == motion.is_steered
    np.testing.assert_allclose(found.gain, motion.gain, atol=0.02)
    np.testing.assert_allclose(found.follow, motion.follow, atol=0.06)


def test_a_recording_becomes_a_world(world, drive):
    told = yaml.safe_load((world / 'world.yaml').read_text())
    assert told['kind'] == 'mapped' and told['name'] == 'box'
    assert told['data']['licence'] == 'CC0-1.0'
    assert told['motion']['delay_frames'] == box_room.MOTION.delay_frames
    assert told['motion']['gain'][0] == pytest.approx(0.9, abs=0.03)
    assert told['motion']['gain'][2] == pytest.approx(1.1, abs=0.03)
    last = told['numbers']['rollouts']['60']
    assert last['psnr_db'] > last['copy_first_db'] + 3.0  # it goes where it was driven
    assert last['psnr_db'] > last['shuffled_db'] + 3.0
    card = (world / 'README.md').read_text()
    assert 'CC0-1.0' in card and 'not affiliated' in card
    assert (world / 'strip.png').stat().st_size > 1000
    assert not list(world.parent.glob('box.*'))  # nothing half-done stays


def test_a_learned_world_draws_depth_and_feels_walls(world, drive):
    imagined = learned_world(str(world))
    start = imagined.reset('box', 0)
    assert start.rgb.shape == (1, 1, 48, 64, 3) and imagined.spec.has_depth
    # Its scene is the recording's place, turned so that walls run along the axes.
    from safetensors.numpy import load_file
    poses = load_file(world / 'map.safetensors')['poses']
    turn = rigidly_aligned(drive.true_pose, poses)
    seen = imagined.render(State(turn[100][None], np.zeros((1, 0)), np.zeros((1, 0, 3))))
    off = np.abs(seen.depth_m[0, 0] - drive.true_depth[100])
    assert np.median(off) < 0.03
    action = np.array([[[0.4, 0.0]]], np.float32)
    touched = False
    for _ in range(200):  # straight on, until something stands in the way
        seen = imagined.step(action, render=False)
        touched |= bool(seen.contact[0, 0] > 0.5)
    assert touched
    before = seen.base_pose[0, 0]
    for _ in range(10):
        seen = imagined.step(action, render=False)
    # Free, it would drive 0.24 m; along a wall it slides a little.
    assert np.hypot(*se2.relative(before, seen.base_pose[0, 0])[:2]) < 0.18


def test_a_world_that_exists_is_not_overwritten(world, bag, capsys):
    before = (world / 'world.yaml').read_bytes()
    assert main(['learn', str(bag), '-o', str(world)]) == 2
    assert 'exists already' in capsys.readouterr().err
    assert (world / 'world.yaml').read_bytes() == before


def test_where_nothing_can_be_written_is_told_before_anything_is_loaded(tmp_path):
    (tmp_path / 'file').write_text('')
    code = ('import sys; from lingbot_world_ros.cli.main import main; code = main(sys.argv[1:]); '
            'assert not {"torch", "rosbags", "cv2"} & set(sys.modules); sys.exit(code)')
    for out, words in (('.', 'exists already'), ('file', 'is a file'),
                       ('file/world', 'file is no folder')):
        made = subprocess.run([sys.executable, '-c', code, 'learn', 'bag', '-o', tmp_path / out],
                              capture_output=True, text=True)
        assert made.returncode == 2 and words in made.stderr and made.stderr.count('\n') == 1


def test_one_folder_is_learned_by_one_process(bag, tmp_path, capsys):
    (tmp_path / 'out.work').mkdir()
    with (tmp_path / 'out.work' / 'lock').open('w') as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(['learn', str(bag), '-o', str(tmp_path / 'out')]) == 2
    assert 'out is being learned by another process' in capsys.readouterr().err
    assert (tmp_path / 'out.work').exists()


class Fit:
    """Has one number to learn, and is interrupted in its second step."""

    def __init__(self):
        self.weights = torch.nn.Linear(1, 1)
        self.parts, self.begun = {'weights': self.weights}, []

    def step(self, progress, frames):
        self.begun.append(progress)
        if len(self.begun) == 2:
            signal.raise_signal(signal.SIGINT)
        with torch.no_grad():
            self.weights.weight += 1.0


def test_an_interrupted_fit_is_kept_and_goes_on(tmp_path):
    from lingbot_world_ros.training.mapped.learn import _run, LearnSpec
    asked = LearnSpec('box', minutes=0.01), tmp_path, lambda what, done, total: None, {}
    first, second = Fit(), Fit()
    before = signal.getsignal(signal.SIGINT)
    for fit in (first, second):
        with pytest.raises(KeyboardInterrupt):
            _run(fit, np.arange(20), *asked)
    assert signal.getsignal(signal.SIGINT) is before
    saved = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    assert saved['step'] == 4 and len(first.begun) == len(second.begun) == 2
    assert second.begun[0] >= first.begun[1] > 0  # of the minutes
    assert not (tmp_path / 'checkpoint.tmp').exists()


@pytest.mark.parametrize('kept, words', [
    ('checkpoint.pt', 'Stopped (Learning how it looks, 35 %): the same command goes on'),
    ('', 'nothing is kept yet')])
def test_who_interrupts_is_told_how_far_it_was(bag, tmp_path, capsys, monkeypatch, kept, words):
    from lingbot_world_ros.training import learn
    out = tmp_path / 'out'

    def interrupted(paths, wanted, held, say):
        say('map', 350, 1000)
        if kept:
            (held.path / kept).write_text('')
        raise KeyboardInterrupt

    monkeypatch.setattr(learn, '_learn', interrupted)
    assert main(['learn', str(bag), '-o', str(out)]) == 130
    err = capsys.readouterr().err
    assert err.startswith(f'Reading {bag} ...\n') and words in err
    assert (tmp_path / 'out.work').exists() == bool(kept)


@pytest.mark.parametrize('arguments, told', [
    (['--minutes', '0'], 'give 0.05 to 600'), (['--footprint', '9'], 'give 0.01 to 5'),
    (['--rate', '0.1'], 'give 1 to 60'), (['--robot', 'nobody'], 'nobody'),
    (['--image', '/nothing'], '/nothing'), (['--depth', '/nope'], '/nope'),
    (['--depth', '/camera/image_raw/compressed'], 'carries colour pictures (rgb8; png')])
def test_arguments_that_cannot_be_used_leave_nothing_behind(bag, tmp_path, capsys, arguments,
                                                            told):
    assert main(['learn', str(bag), '-o', str(tmp_path / 'out'), *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count('error:') == 1
    assert not list(tmp_path.iterdir())


def test_a_recording_that_lacks_something_is_told_so_and_leaves_nothing(tmp_path, capsys):
    bag = tmp_path / 'bag'
    bags.write_bag(bag, [m for m in bags.drive() if 'depth' not in m[0]])
    assert main(['learn', str(bag), '-o', str(tmp_path / 'out'), '--kind', 'mapped']) == 2
    assert 'depth' in capsys.readouterr().err
    bag = bags.write_bag(tmp_path / 'short', bags.drive())
    assert main(['learn', str(bag), '-o', str(tmp_path / 'out'), '--kind', 'mapped']) == 2
    assert 'frames, too few' in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ['bag', 'short']


def test_a_damaged_world_is_refused_in_words(world, tmp_path, capsys):
    import shutil
    folder = tmp_path / 'damaged'
    shutil.copytree(world, folder)
    (folder / 'renderer.onnx').unlink()
    assert main(['sim', '--world', str(folder), '--duration', '1']) == 2
    assert 'renderer.onnx is missing' in capsys.readouterr().err
    assert json.dumps(sorted(p.name for p in folder.iterdir()))
