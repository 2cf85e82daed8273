# SPDX-License-Identifier: Apache-2.0
"""Keys to velocities."""
from lingbot_world_ros.actions.keyboard import FIRST_S, KeyDrive, REPEAT_S, split_keys
import pytest


@pytest.fixture
def drive():
    return KeyDrive(0.8, 1.5, [1.0, 2.0])


def test_keys_and_escape_sequences_are_told_apart():
    assert split_keys('Wa\x1b[A\x1bOD \x1b') == ['w', 'a', 'up', 'left', ' ', 'escape']


@pytest.mark.parametrize('key, base', [
    ('w', (0.4, 0.0, 0.0)), ('down', (-0.4, 0.0, 0.0)), ('a', (0.0, 0.0, 0.75)),
    ('right', (0.0, 0.0, -0.75)), ('q', (0.4, 0.0, 0.75)), ('e', (0.4, 0.0, -0.75))])
def test_base_keys(drive, key, base):
    drive.press(key, 0.0)
    assert drive.velocities(0.1)[0] == pytest.approx(base)


@pytest.mark.parametrize('keys, base', [
    (('w', 'up'), (0.4, 0.0, 0.0)), (('s', 'down'), (-0.4, 0.0, 0.0)),
    (('right', 'd'), (0.0, 0.0, -0.75)), (('w', 's'), (0.0, 0.0, 0.0))])
def test_two_keys_for_one_way_are_no_faster(drive, keys, base):
    for key in keys:
        drive.press(key, 0.0)
    assert drive.velocities(0.1)[0] == pytest.approx(base)


def test_joint_keys_move_one_joint_each_way(drive):
    drive.press('u', 0.0)
    drive.press('k', 0.0)
    assert drive.velocities(0.1)[1].tolist() == [0.5, -1.0]
    assert drive.velocities(0.1)[0] == (0.0, 0.0, 0.0)


def test_motion_ends_when_repeats_stop(drive):
    drive.press('w', 0.0)
    assert drive.velocities(FIRST_S - 0.01)[0][0] > 0.0
    drive.press('w', FIRST_S - 0.01)
    assert drive.velocities(FIRST_S - 0.02 + REPEAT_S)[0][0] > 0.0
    assert drive.velocities(FIRST_S + REPEAT_S)[0][0] == 0.0


def test_a_repeat_never_shortens_the_motion(drive):
    drive.press('w', 0.0)
    drive.press('w', 0.1)
    assert drive.velocities(FIRST_S - 0.01)[0][0] > 0.0


def test_space_stops_at_once_and_scale_stays_in_its_range(drive):
    drive.press('w', 0.0)
    drive.press(' ', 0.1)
    assert drive.velocities(0.1)[0] == (0.0, 0.0, 0.0)
    for key, scale in (('+', 0.75), ('-', 0.5), ('-', 0.25), ('_', 0.1), ('=', 0.25)):
        drive.press(key, 0.0)
        assert drive.scale == scale
    for _ in range(9):
        drive.press('+', 0.0)
    assert drive.scale == 1.0
    for _ in range(9):
        drive.press('-', 0.0)
    assert drive.scale == 0.1


def test_keys_without_meaning_do_nothing(drive):
    for key in ('z', '5', 'escape', 'o'):  # o is for a third joint
        drive.press(key, 0.0)
    base, joints = drive.velocities(0.0)
    assert base == (0.0, 0.0, 0.0) and not joints.any()


@pytest.mark.parametrize('keys, base', [
    ('q', (0.0, 0.3, 0.0)), ('e', (0.0, -0.3, 0.0)), ('we', (0.4, -0.3, 0.0)),
    ('qa', (0.0, 0.3, 0.75))])
def test_q_and_e_strafe_where_the_base_can(keys, base):
    drive = KeyDrive(0.8, 1.5, [], lateral_mps=0.6)
    for key in keys:
        drive.press(key, 0.0)
    assert drive.velocities(0.1)[0] == pytest.approx(base)


@pytest.mark.parametrize('keys, base', [
    ('a', (0.0, 0.0, 0.0)), ('wa', (0.4, 0.0, 0.2)), ('e', (0.4, 0.0, -0.2)),
    ('sa', (-0.4, 0.0, 0.2))])
def test_a_base_that_steers_turns_only_while_it_drives(keys, base):
    """Circles of two metres: 0.2 rad/s at 0.4 m/s."""
    drive = KeyDrive(0.8, 1.5, [], max_curvature=0.5)
    for key in keys:
        drive.press(key, 0.0)
    assert drive.velocities(0.1)[0] == pytest.approx(base)
