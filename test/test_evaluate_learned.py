# SPDX-License-Identifier: Apache-2.0
"""Learned worlds against recordings: finding one in a place, what is measured, the command."""
import argparse
from dataclasses import replace
import json
from pathlib import Path

import pytest

pytest.importorskip('cv2')
pytest.importorskip('scipy')
pytest.importorskip('rosbags')

from bench import bags  # noqa: E402, I100
import cv2  # noqa: E402
from learned_rooms import (CAMERA, distances_in_room, drive, look,  # noqa: E402
                           T_BASE_OPTICAL)
from lingbot_world_ros.cli import evaluate as verb  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.evaluation.learned import evaluate_learned, spread_starts  # noqa: E402
from lingbot_world_ros.evaluation.learned_report import (_heading,  # noqa: E402
                                                         has_learned_from)
from lingbot_world_ros.geometry import se2  # noqa: E402
from lingbot_world_ros.models.mapped.localise import follow, locate  # noqa: E402
from lingbot_world_ros.models.mapped.registration import upright_points  # noqa: E402
from lingbot_world_ros.recording.aligned import AlignedRecording  # noqa: E402
import numpy as np  # noqa: E402
import yaml  # noqa: E402

SPOTS = np.stack(np.meshgrid(np.arange(0.3, 2.8, 0.1), np.arange(0.3, 2.8, 0.1)),
                 -1).reshape(-1, 2)
VIEWS = np.arange(0, 60, 12)


def off(pose, true):
    """Return distance [m] and angle [rad] between poses."""
    turn = (pose - true)[..., 2]
    return np.hypot(*(pose - true)[..., :2].T), np.abs(np.arctan2(np.sin(turn), np.cos(turn)))


# Where a recording is


@pytest.fixture(scope='module')
def seen():
    """Return what a drive sees, its odometry (of another origin, drifting), and the truth."""
    _, true = drive(8.0, 5, (0.8, 2.0, -1.0))
    steps = se2.relative(true[:-1], true[1:]) * (1.02, 1.0, 0.98)
    odometry = [np.array([5.0, -3.0, 1.0])]
    for step in steps:
        odometry.append(se2.compose(odometry[-1], step))
    body = np.zeros((CAMERA.height_px, CAMERA.width_px), bool)
    points = [upright_points(look(pose)[1], CAMERA, T_BASE_OPTICAL, body) for pose in true]
    return points, np.array(odometry), true


def test_a_start_is_found_without_a_hint(seen):
    points, odometry, true = seen
    found = locate(distances_in_room(), SPOTS, [points[i] for i in VIEWS], odometry[VIEWS],
                   lambda pose: 0.0)
    distance, turn = off(found.pose, true[VIEWS[-1]])
    assert distance < 0.03 and turn < np.deg2rad(1.0)
    assert found.near > 0.95 and found.residual_m < 0.02


def test_a_drive_is_followed_and_nothing_later_decides(seen):
    points, odometry, true = seen
    found = follow(distances_in_room(), points.__getitem__, odometry, true[0])
    distance, turn = off(found.pose, true)
    assert np.median(distance) < 0.01 and distance.max() < 0.03
    assert np.median(turn) < np.deg2rad(0.3) and found.is_known.all()
    part = follow(distances_in_room(), points.__getitem__, odometry[:40], true[0])
    assert np.array_equal(part.pose, found.pose[:40])


def test_places_that_look_alike_are_told_by_pictures(seen):
    """In an empty square room each corner is like the others; the pictures say which it is."""
    points, odometry, true = seen
    here = distances_in_room()
    here.sdf = np.minimum(here.sdf, np.rot90(here.sdf, 2, (0, 1)))  # now it has a twin
    views = VIEWS[:2]
    turned = np.array([3.0, 3.0, np.pi]) + true[views[-1]] * (-1.0, -1.0, 1.0)
    for wanted in (true[views[-1]], turned):
        found = locate(here, SPOTS, [points[i] for i in views], odometry[views],
                       lambda pose: off(pose, wanted)[0])
        assert off(found.pose, wanted)[0] < 0.05 and found.num_rivals >= 1


def test_another_place_and_a_blind_camera_are_refused(seen):
    points, odometry, _ = seen
    views = [points[i] for i in VIEWS]
    with pytest.raises(SpecError, match='of another place'):
        locate(distances_in_room(size_m=4.2), SPOTS, views, odometry[VIEWS], lambda pose: 0.0)
    nothing = [type(view)(view.xyz[:0], view.normal[:0]) for view in views]
    with pytest.raises(SpecError, match='next to no walls'):
        locate(distances_in_room(), SPOTS, nothing, odometry[VIEWS], lambda pose: 0.0)


def test_a_robot_that_sees_nothing_for_long_is_not_known(seen):
    points, odometry, true = seen
    nothing = type(points[0])(points[0].xyz[:0], points[0].normal[:0])
    found = follow(distances_in_room(), lambda i: points[i] if i < 10 else nothing, odometry,
                   true[0])
    assert found.is_known[:50].all() and not found.is_known[60:].any()
    assert np.isfinite(found.pose).all() and np.isnan(found.residual_m[10:]).all()


# What is measured


@pytest.fixture(scope='module')
def recording():
    """Return ten seconds of pictures that go with the commands."""
    rng = np.random.default_rng(3)
    action = rng.normal(size=(150, 2)).astype(np.float32)
    rgb = rng.integers(0, 256, (150, 12, 16, 3), np.uint8)
    return AlignedRecording('noise', 15.0, ((0, 90), (95, 150)), rgb, ('linear_x', 'angular_z'),
                            action)


class Told:
    """Shows the frame that its commands belong to, and errs by what it is told to."""

    num_context, familiar = 3, 0.2

    def __init__(self, expected=0.1, position_m=0.0):
        self.expected, self.position_m = expected, position_m

    def reset_from(self, recording, begins, seed):
        self.recording, self.frame = recording, begins + self.num_context - 1

    def step(self, action):
        found = (self.recording.action[None] == action[:, None]).all(-1)
        self.frame = found.argmax(1) + 1

    def draw(self):
        return self.recording.rgb[self.frame], np.full(len(self.frame), self.expected)

    def pose_errors(self, frames):
        return np.full(len(frames), self.position_m), np.deg2rad(np.abs(self.frame - frames))


def test_a_perfect_world_has_no_errors_and_commands_count(recording):
    told = evaluate_learned(Told(position_m=0.25), recording, num_starts=20, horizons=(1, 5, 200))
    assert list(told['horizons']) == [1, 5]
    at = told['horizons'][5]
    assert at['world']['psnr'] == (60.0, 60.0, 60.0) and at['world']['ssim'][0] == 1.0
    assert at['shuffling_costs_db'][0] > 45 and at['gain_db'][0] > 45
    assert at['state']['position_m'] == (0.25, 0.25, 0.25)
    assert at['state']['yaw_deg'] == (0.0, 0.0, 0.0)
    assert 'mean_picture' not in at
    low, high = at['copy_last']['psnr'][1:]
    assert low < at['copy_last']['psnr'][0] < high


@pytest.mark.parametrize('expected, covered, flagged', [(0.0, 1.0, 0.0), (0.3, 1.0, 1.0)])
def test_uncertainty_is_covered_and_flagged(recording, expected, covered, flagged):
    told = evaluate_learned(Told(expected), recording, num_starts=8, horizons=(1,))
    doubt = told['horizons'][1]['uncertainty']
    assert (doubt['covered'], doubt['flagged']) == (covered, flagged)
    assert doubt['factor'] == 2.0 and doubt['covered_by_factor'] == 1.0


def test_too_sure_a_world_is_not_covered(recording):
    class Wrong(Told):
        def draw(self):
            return 255 - self.recording.rgb[self.frame], np.full(len(self.frame), 0.1)

    told = evaluate_learned(Wrong(), recording, num_starts=8, horizons=(1,))
    assert told['horizons'][1]['uncertainty']['covered'] == 0.0


def test_seed_decides_on_the_starts(recording):
    def run(seed):
        return json.dumps(evaluate_learned(Told(), recording, num_starts=8, horizons=(1, 5),
                                           seed=seed))

    assert run(1) == run(1) != run(2)


def test_starts_are_spread_and_cross_no_gap():
    starts = spread_starts(((0, 50), (60, 70), (80, 84)), 5, 12, 0)
    assert len(starts) == len(set(starts.tolist())) == 12 and (np.diff(starts) > 0).all()
    assert all(s <= 45 or 60 <= s <= 65 for s in starts) and starts[-1] >= 60
    assert len(spread_starts(((0, 4),), 5, 12, 0)) == 0
    assert spread_starts(((0, 6),), 5, 12, 0).tolist() == [0, 1]


# The command


def evaluated(*given):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args(list(map(str, given))))


@pytest.fixture
def stub(tmp_path):
    """Return the folder of a world with nothing behind it."""
    folder = tmp_path / 'stub'
    folder.mkdir()
    (folder / 'world.yaml').write_text(yaml.safe_dump({
        'format': 1, 'kind': 'mapped', 'name': 'stub', 'rate_hz': 15.0, 'sha256': {},
        'camera': {'width_px': 64, 'height_px': 48}}))
    return folder


@pytest.mark.parametrize('given, words', [
    (['--recording', 'bag'], '--recording is for a learned world; add --world'),
    (['--image', '/image'], '--image is for a learned world'),
    (['--world', 'box'], '--world needs --recording'),
    (['--world', 'box', '--recording', 'bag', '--engine', 'room'], '--engine is for engines'),
    (['--world', 'box', '--recording', 'bag', '--batch-size', '3'], '--batch-size is for'),
    (['--world', 'box', '--recording', 'bag', '--sequences', '0'], '--sequences 0: give 1'),
    (['--world', 'box', '--recording', 'bag', '--horizons', '0'], '--horizons: give frames'),
    (['--world', 'nowhere', '--recording', 'bag'], 'is no learned world')])
def test_arguments_that_say_nothing_together_are_refused(given, words):
    with pytest.raises(SpecError, match=words):
        evaluated(*given)


def test_recordings_that_cannot_be_used_are_refused_and_nothing_stays(stub, tmp_path, capsys):
    blind = bags.write_bag(tmp_path / 'blind', [
        ('/cmd_vel', bags.START_S + 0.1 * i, bags.twist(0.1, 0.0)) for i in range(20)])
    out = tmp_path / 'out'
    with pytest.raises(SpecError, match='no images that can be used'):
        evaluated('--world', stub, '--recording', blind, '--out', out)
    assert capsys.readouterr().err.startswith(f'Reading {blind} ...\n')
    with pytest.raises(SpecError, match='There is no recording'):
        evaluated('--world', stub, '--recording', tmp_path / 'none', '--out', out)
    assert not out.exists()


def test_world_of_a_room_is_judged_by_another_drive_in_it(box_world, box_drive, tmp_path, capsys):
    aligned, _ = box_drive
    folder = Path(aligned.rgb.filename).parent
    assert evaluated('--world', box_world, '--recording', folder, '--sequences', 8, '--horizons',
                     1, 20, 60, '--out', tmp_path / 'out', '--json') == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / 'out' / 'evaluation.json').read_text())
    last = told['horizons']['60']
    assert last['world']['psnr'][0] > 15 and last['gain_db'][0] > 2
    assert last['shuffling_costs_db'][0] > 2 and 'mean_picture' in last
    assert last['state']['position_m'][0] < 0.1 and last['state']['yaw_deg'][0] < 4
    assert told['found']['surfaces_met'] > 0.9 and told['notes'] == []
    assert not told['world']['has_learned_from_it']
    picture = cv2.imread(str(tmp_path / 'out' / 'strip.png'))
    assert picture.shape == (3 * 2 * 48 + 2 * 4, 4 * 64, 3)
    assert '## Sharpness' in (tmp_path / 'out' / 'evaluation.md').read_text()


@pytest.mark.parametrize('recording, has', [
    ('kitchen', True), ('hall, kitchen.mcap', True), ('hall', False), (None, False)])
def test_the_recording_that_taught_is_known_by_its_name(recording, has):
    about = {} if recording is None else {'data': {'recording': recording}}
    assert has_learned_from(about, 'kitchen') is has


def test_a_flattered_world_is_told_so():
    told = {'world': {'name': 'box', 'has_learned_from_it': True}, 'found': {}, 'notes': [],
            'recording': 'kitchen', 'num_starts': 1, 'num_stretches': 1, 'rate_hz': 15.0}
    assert 'flatters' in _heading(told)
    assert 'flatters' not in _heading({**told, 'world': {'name': 'box'}})


def test_recording_is_found_where_it_was(box_world, box_drive):
    from lingbot_world_ros.evaluation.mapped_world import MappedImagining
    aligned, true = box_drive
    world = MappedImagining(box_world, aligned)
    begin, end = world.pieces[0]
    pose, true = world.pose[begin:end], true[begin:end]
    # The place has a frame of its own: its headings and its middle are brought to the truth's.
    yaw = np.angle(np.exp(1j * (true - pose)[:, 2]).mean())
    pose = np.column_stack([se2.rotated(pose[:, :2], yaw), pose[:, 2] + yaw])
    pose[:, :2] += (true - pose)[:, :2].mean(0)
    distance, turn = off(pose, true)
    assert end == 300 and begin < 150
    assert np.median(distance) < 0.03 and np.median(turn) < np.deg2rad(0.5)


@pytest.mark.parametrize('change, words', [
    (lambda it: {'depth': None}, 'without a registered depth image'),
    (lambda it: {'action': None}, 'without velocity commands'),
    (lambda it: {'rate_hz': 10.0}, 'align the recording at the rate of the world'),
    (lambda it: {'depth': 0.6 * np.asarray(it.depth)}, 'of another'),
    (lambda it: {'rgb': 255 - np.asarray(it.rgb)}, 'its pictures are not')])
def test_what_cannot_be_compared_is_told(box_world, box_drive, change, words):
    from lingbot_world_ros.evaluation.mapped_world import MappedImagining
    aligned, _ = box_drive
    with pytest.raises(SpecError, match=words):
        MappedImagining(box_world, replace(aligned, **change(aligned)))
