# SPDX-License-Identifier: Apache-2.0
"""How robots move in the worlds that have a physics: turns, walls, joints, rest."""
from lingbot_world_ros.engines.registry import make_world
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.settings.profiles import load_profile
from lingbot_world_ros.worlds.scenes import SCENES
from needs import need_engine
import numpy as np
import pytest

ENGINES = ('room', 'reference')


@pytest.fixture(scope='module', params=ENGINES)
def world(request):
    """One world per engine; skipped where its optional package is absent."""
    need_engine(request.param)
    return make_world(request.param)


def action(world, **columns):
    """Return one action (1, 1, a) from named columns; the rest is zero."""
    names = list(world.spec.action.names)
    out = np.zeros((1, 1, len(names)), np.float32)
    for name, value in columns.items():
        out[..., names.index(name.replace('__', '.'))] = value
    return out


def roll(world, command, num_frames, render=False):
    """Repeat one action; return the last observation."""
    for _ in range(num_frames):
        seen = world.step(command, render=render)
    return seen


def test_another_seed_starts_elsewhere(world):
    poses = [world.reset('office', seed).base_pose for seed in (1, 2)]
    assert np.abs(poses[0] - poses[1]).max() > 0.1


@pytest.mark.parametrize('column, index, sign', [
    ('base__angular__z', 2, 1), ('base__angular__z', 2, -1)])
def test_base_turns_as_commanded(world, column, index, sign):
    start = world.reset('office', 5).base_pose
    seen = roll(world, action(world, **{column: 0.9 * sign}), 15)
    assert sign * (seen.base_pose - start)[0, 0, index] == pytest.approx(0.9, abs=0.1)


@pytest.mark.parametrize('sign', [1, -1])
def test_base_drives_along_its_heading(world, sign):
    start = world.reset('workshop', 4).base_pose[0, 0]
    seen = roll(world, action(world, base__linear__x=0.3 * sign), 5).base_pose[0, 0]
    forward = (seen - start)[:2] @ [np.cos(start[2]), np.sin(start[2])]
    assert forward == pytest.approx(0.09 * sign, abs=0.03)


def test_every_joint_follows_its_command_both_ways(world):
    spec = world.spec
    for j, joint in enumerate(spec.joints):
        middle_seed = next(s for s in range(50) if _in_the_middle(world, s, j))
        for sign in (1, -1):
            start = world.reset('living_room', middle_seed).joint_position[0, 0]
            speed = 0.5 * joint.max_speed * sign
            seen = roll(world, action(world, **{f'{joint.name}__velocity': speed}), 6)
            moved = (seen.joint_position[0, 0] - start)
            assert moved[j] == pytest.approx(speed * 6 / 15, rel=0.35), joint.name
            others = np.delete(moved, j)
            assert np.abs(others).max() < 0.03


def _in_the_middle(world, seed, j):
    joint = world.spec.joints[j]
    q = world.reset('living_room', seed, render=False).joint_position[0, 0, j]
    return 0.45 < (q - joint.low) / (joint.high - joint.low) < 0.55


def test_what_nobody_moves_stays_where_it_is(world):
    """Left alone for 30 s after a drive; a creeping base or arm would be seen by every client."""
    world.reset('office', 6)
    roll(world, action(world, base__linear__x=0.3, elbow_joint__velocity=0.5), 10)
    start = roll(world, action(world), 15)
    end = roll(world, action(world), 450)
    np.testing.assert_allclose(end.base_pose, start.base_pose, atol=2e-3)
    np.testing.assert_allclose(end.joint_position, start.joint_position, atol=2e-3)
    np.testing.assert_allclose(end.object_pose, start.object_pose, atol=2e-3)


def test_walls_stop_the_base_and_are_felt(world):
    world.reset('living_room', 0)
    seen = roll(world, action(world, base__linear__x=0.8), 150)
    size = (6.0, 5.0)
    assert all(0.2 < p < s - 0.2 for p, s in zip(seen.base_pose[0, 0], size))
    assert seen.contact[0, 0] > 0.5
    assert np.hypot(*seen.base_twist[0, 0, :2]) < 0.2


@pytest.mark.parametrize('scene', sorted(SCENES))
def test_the_default_seed_looks_far_and_forward_leads_somewhere_in_every_room(world, scene):
    start = world.reset(scene, load_profile('default')['seed'])
    assert np.percentile(start.depth_m, 90) > 2.5  # metres; a wall in the face is at one
    command, contact = action(world, base__linear__x=0.8), 0.0
    for _ in range(45):
        seen = world.step(command, render=False)
        contact = max(contact, float(seen.contact.max()))
    assert contact < 0.5
    assert np.hypot(*(seen.base_pose - start.base_pose)[0, 0, :2]) > 2.0


def test_observed_state_is_taken_over(world):
    world.reset('workshop', 2)
    seen = roll(world, action(world, base__linear__x=0.3, elbow_joint__velocity=0.5), 10)
    world.reset('workshop', 3)
    shown = world.observe(seen)
    assert shown.rgb.shape[1] == 1 and np.array_equal(shown.base_pose, seen.base_pose[:, -1:])
    after = roll(world, action(world, base__linear__x=0.3, elbow_joint__velocity=0.5), 1)
    np.testing.assert_allclose(after.base_pose, seen.base_pose, atol=0.06)
    np.testing.assert_allclose(after.joint_position, seen.joint_position, atol=0.08)
    np.testing.assert_allclose(after.object_pose, seen.object_pose, atol=0.06)
    assert after.base_twist[0, 0, 0] == pytest.approx(0.3, abs=0.05)


def test_unknown_scene_lists_the_known_ones_and_changes_nothing(world):
    world.reset('office', 1)
    before = roll(world, action(world), 1).base_pose
    with pytest.raises(SpecError, match="'offise'.*Did you mean 'office'.*living_room"):
        world.reset('offise', 1)
    after = roll(world, action(world), 1).base_pose
    np.testing.assert_allclose(after, before, atol=2e-3)


def test_unknown_engine_lists_the_known_ones():
    with pytest.raises(SpecError, match='room'):
        make_world('rooom')


@pytest.mark.parametrize('engine', ENGINES)
def test_empty_batch_is_refused(engine):
    need_engine(engine)
    with pytest.raises(SpecError, match='batch_size=0'):
        make_world(engine, batch_size=0)
