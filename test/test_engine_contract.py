# SPDX-License-Identifier: Apache-2.0
"""
What every engine promises, checked on every engine: those registered, their proxies, the fakes.

A new engine needs a sample in ``engine_samples.py`` and nothing else.
"""
from dataclasses import fields
import threading

from engine_samples import FAKES, registered, sample_of
from lingbot_world_ros.engines.interface import (Capabilities, Observation, State, WorldModel,
                                                 WorldSpec)
from lingbot_world_ros.engines.registry import engine_entry, engines
from lingbot_world_ros.errors import EngineHung, SpecError
from lingbot_world_ros.robots.load import load_robot
import numpy as np
import pytest

ENGINES = tuple(engines())
ALL = (*ENGINES, *(f'isolated {name}' for name in (*ENGINES, 'fake', 'fake chunks')), *FAKES)
# The proxy is the same for all; a room and the fakes see to it.
SLOW = [f'isolated {name}' for name in ENGINES if name != 'room']
PICTURES = ('rgb', 'depth_m', 'uncertainty', 'calibrated')  # only where there is a picture


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('engines')


@pytest.fixture(scope='module', params=[
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ALL])
def sample(request, folder):
    return sample_of(request.param, folder)


@pytest.fixture(scope='module')
def made(sample):
    """Make worlds of the sample that are closed in the end."""
    worlds = []

    def make(**options):
        worlds.append(sample.make(**options))
        return worlds[-1]
    yield make
    for world in worlds:
        world.close()


@pytest.fixture(scope='module')
def world(made):
    return made()


@pytest.fixture(scope='module')
def other(made):
    """Return another world of the same kind."""
    return made()


@pytest.fixture(scope='module')
def batch(sample, made):
    """Return three rows, in two scenes."""
    if not sample.has_batches:
        pytest.skip('one row only')
    world = made(batch_size=3)
    with pytest.raises(SpecError, match='reset all'):  # the others have never begun
        sample.begin(world, rows=[1])
    return world


def arrays(seen, row=None, leave_out=()):
    """Return all arrays of an observation by name, of one row (b = 1) if it is given."""
    found = {f.name: getattr(seen, f.name) for f in fields(Observation) if f.name != 'extra'}
    found.update(seen.extra)
    return {name: value if row is None else value[row:row + 1] for name, value in found.items()
            if value is not None and name not in leave_out}


def same(seen, expected, row=None, expected_row=None, leave_out=()):
    """Check that two observations, or rows of them, have the same bytes."""
    got, want = arrays(seen, row, leave_out), arrays(expected, expected_row, leave_out)
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == value.dtype, name
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def all_same(seen, expected, **how):
    """Check the same of many."""
    assert len(seen) == len(expected)
    for one, other in zip(seen, expected):
        same(one, other, **how)


@pytest.fixture(scope='module')
def story(sample, world):
    """Return what a world shows that is left alone: the start, and then some steps."""
    first = sample.begin(world)
    return [first, *sample.steps(world, range(sample.num_steps))]


def told(sample, world, **more):
    """Tell the story again."""
    first = sample.begin(world)
    return [first, *sample.steps(world, range(sample.num_steps), **more)]


def test_every_registered_engine_has_a_sample(folder):
    assert set(registered(folder)) == set(ENGINES)


def test_entry_says_what_the_engine_is(sample, world):
    if not sample.is_registered:
        pytest.skip('not registered')
    entry, spec = engine_entry(world.spec.engine), world.spec
    assert entry.has_depth == spec.has_depth
    assert not entry.robot or load_robot(entry.robot).description == spec.robot.description
    # A learned world has the robot that recorded.
    assert entry.robot or 'world' in entry.takes or not spec.robot.description
    assert entry.missing() == [] and not any(row.dynamic for row in entry.table())


def test_spec_and_shapes_agree(sample, world, story):
    spec = world.spec
    assert isinstance(world, WorldModel) and isinstance(spec, WorldSpec)
    assert isinstance(spec.can, Capabilities) and set(sample.scenes) <= set(spec.scenes)
    assert world.batch_size == 1 and not world.is_lost
    b, num_joints, camera = 1, len(spec.joints), spec.camera
    for index, seen in enumerate(story):
        t = spec.frames_per_step if index else 1
        num_objects = len(world.object_names(sample.scenes[0]))
        shapes = {'rgb': (b, t, camera.height_px, camera.width_px, 3), 'base_pose': (b, t, 3),
                  'base_twist': (b, t, 3), 'joint_position': (b, t, num_joints),
                  'joint_velocity': (b, t, num_joints), 'contact': (b, t),
                  'object_pose': (b, t, num_objects, 3)}
        assert {name: getattr(seen, name).shape for name in shapes} == shapes
        assert seen.rgb.dtype == np.uint8 and seen.base_pose.dtype == np.float64
        assert (seen.depth_m is not None) == spec.has_depth
        if spec.has_depth:
            assert seen.depth_m.shape == seen.rgb.shape[:-1]
            assert seen.depth_m.dtype == np.float32


def test_everything_is_finite(story):
    for seen in story:
        for name, value in arrays(seen).items():
            assert np.isfinite(value).all(), name


def test_same_start_and_actions_give_the_same_bytes(sample, world, story):
    all_same(told(sample, world), story)


def test_another_seed_or_scene_leaves_nothing_behind(sample, world, story):
    sample.begin(world, sample.scenes[1], 8)
    sample.steps(world, (5,))
    all_same(told(sample, world), story)


def test_states_are_the_same_without_pictures(sample, world, story):
    for seen, shown in zip(told(sample, world, render=False)[1:], story[1:]):
        assert seen.rgb is None or np.array_equal(seen.rgb, shown.rgb)
        leave_out = (*PICTURES, *shown.extra, *seen.extra)
        same(seen, shown, leave_out=leave_out)


def test_snapshot_is_gone_on_from_here_and_elsewhere(sample, world, other, story):
    sample.begin(world)
    sample.steps(world, range(1))
    saved = world.snapshot()
    all_same(sample.steps(world, range(1, sample.num_steps)), story[2:])
    world.restore(saved)
    all_same(sample.steps(world, range(1, sample.num_steps)), story[2:])
    other.restore(saved)  # which never began
    all_same(sample.steps(other, range(1, sample.num_steps)), story[2:])
    all_same(told(sample, other), story)


def test_what_is_returned_or_given_is_not_shared(sample, world, story):
    def spoil(values):
        for value in values:
            if value.flags.writeable:
                value[...] = 1

    first = sample.begin(world)
    saved = world.snapshot()
    spoil(arrays(first).values())
    shown = []
    for index in range(sample.num_steps):
        actions = sample.actions(world, index)
        seen = world.step(actions)
        kept = Observation(**{name: None if value is None else value.copy()
                              for name, value in vars(seen).items() if name != 'extra'},
                           extra={name: value.copy() for name, value in seen.extra.items()})
        spoil([actions, *arrays(seen).values()])
        world.finish_step()
        shown.append(kept)
    all_same(shown, story[1:])
    told_of = [value.copy() for value in arrays(shown[-1]).values()]
    sample.steps(world, (7,))
    for value, before in zip(arrays(shown[-1]).values(), told_of):
        np.testing.assert_array_equal(value, before)
    world.restore(saved)
    all_same(sample.steps(world, range(sample.num_steps)), story[1:])


def test_what_is_observed_is_not_shared(sample, world, story):
    sample.begin(world)
    seen = sample.steps(world, range(1))[0]
    world.observe(seen)
    saved, expected = world.snapshot(), sample.steps(world, range(1, 2))
    world.restore(saved)
    shown = world.observe(seen)
    for value in (*arrays(seen).values(), *arrays(shown).values()):
        if value.flags.writeable:
            value[...] = 1
    if not world.spec.can.take_images:  # which is imagined anew from each image
        all_same(sample.steps(world, range(1, 2)), expected)


@pytest.mark.parametrize('refused', ['scene', 'seed', 'seeds', 'rows', 'shape', 'columns'])
def test_what_is_refused_changes_nothing(sample, world, story, refused):
    sample.begin(world)
    sample.steps(world, range(1))
    scene, actions = sample.scenes[0], sample.actions(world, 1)
    with pytest.raises(SpecError) as error:
        {'scene': lambda: sample.begin(world, 'nowhere'),
         'seed': lambda: sample.begin(world, scene, 1.5),
         'seeds': lambda: sample.begin(world, scene, [1, 2]),
         'rows': lambda: sample.begin(world, scene, 1, rows=[1]),
         'shape': lambda: world.step(actions[0]),
         'columns': lambda: world.step(actions[..., 1:])}[refused]()
    assert refused != 'scene' or scene in str(error.value)
    all_same(sample.steps(world, range(1, sample.num_steps)), story[2:])


def test_step_is_taken_back_or_that_is_refused(sample, world, story):
    sample.begin(world)
    sample.steps(world, range(1))
    if not world.spec.can.undo_step:
        with pytest.raises(SpecError, match='back'):
            world.undo_step()
    else:
        for finish in (True, False):
            world.step(sample.actions(world, 9))
            if finish:
                world.finish_step()
            world.undo_step()
    all_same(sample.steps(world, range(1, sample.num_steps)), story[2:])


def test_prompt_is_taken_or_refused(sample, world, story):
    sample.begin(world)
    sample.steps(world, range(1))
    world.prepare_prompt('a forest in autumn')
    if world.spec.can.take_prompts:
        world.set_prompt('a forest in autumn')
        seen = sample.steps(world, range(1, 2))[0]
        assert np.isfinite(seen.base_pose).all()
    else:
        with pytest.raises(SpecError, match='prompt'):
            world.set_prompt('a forest in autumn')
        all_same(sample.steps(world, range(1, sample.num_steps)), story[2:])


def test_image_is_gone_on_from(sample, world):
    if not world.spec.can.take_images:
        pytest.skip('takes none')
    seen = sample.begin(world)
    image = np.random.default_rng(1).integers(0, 256, (1, 1, 90, 160, 3), np.uint8)
    seen.rgb = image
    shown = world.observe(seen)
    assert shown.rgb.shape[1] == 1 and shown.rgb.dtype == np.uint8
    same(shown, seen, leave_out=(*PICTURES, 'base_pose_cov'))
    sample.steps(world, range(1))


def test_poses_are_taken_over(sample, world):
    if not world.spec.can.take_poses:
        pytest.skip('takes none')
    seen = sample.begin(world)
    if world.spec.can.take_images:
        seen.rgb = None
    seen.base_pose[..., 0] += 0.05
    seen.joint_position[..., :1] += 0.01  # there may be none
    seen.object_pose[..., 1] -= 0.05
    shown = world.observe(seen)
    for name in ('base_pose', 'joint_position', 'object_pose'):
        np.testing.assert_array_equal(getattr(shown, name), getattr(seen, name), err_msg=name)
    assert world.observe(seen, render=False).rgb is None or not world.spec.has_depth \
        or shown.rgb is not None


def test_given_state_is_drawn_or_refused(sample, world, story):
    told(sample, world)
    saved = world.snapshot()
    if not world.spec.can.render:
        with pytest.raises(SpecError, match='draws'):
            world.render(State.of(story[-1]))
    else:
        world.render(State.of(story[0]))
        shown = world.render(State.of(story[-1]))
        for name in ('rgb', 'depth_m', 'base_pose', 'joint_position', 'object_pose'):
            got, want = getattr(shown, name), getattr(story[-1], name)
            np.testing.assert_array_equal(got, None if want is None else want[:, -1:], name)
        assert not shown.base_twist.any()
        few = State(story[-1].base_pose[:, -1, :2], *list(vars(State.of(story[-1])).values())[1:])
        with pytest.raises(SpecError, match='shapes'):
            world.render(few)
    after = sample.steps(world, range(1))
    world.restore(saved)
    all_same(sample.steps(world, range(1)), after)


def test_second_camera_is_drawn_while_watched_or_refused(sample, world, story):
    if not world.spec.can.watch_wrist:
        with pytest.raises(SpecError, match='draws one camera, the first of its robot'):
            world.watch_wrist(True)
        return
    first = sample.begin(world)
    world.watch_wrist(True)
    watched = sample.steps(world, range(2))
    assert sample.steps(world, range(2, 3), render=False)[0].wrist_rgb is None
    world.watch_wrist(False)
    assert first.wrist_rgb is sample.steps(world, range(3, 4))[0].wrist_rgb is None
    camera = world.spec.robot.cameras[1].camera
    for seen, before in zip(watched, story[1:]):
        assert seen.wrist_rgb.dtype == np.uint8 and seen.wrist_rgb.std() > 5.0
        assert seen.wrist_rgb.shape == (1, 1, camera.height_px, camera.width_px, 3)
        np.testing.assert_array_equal(seen.rgb, before.rgb)  # the first camera sees as ever


def test_engine_is_killed_or_that_is_refused(sample, world, story):
    if not world.spec.can.kill:
        with pytest.raises(SpecError, match='killed'):
            world.kill(EngineHung('too long'))
        return
    sample.begin(world)
    killer = threading.Timer(0.05, world.kill, [EngineHung('too long')])
    killer.start()
    with pytest.raises(EngineHung, match='too long'):
        while True:  # in the middle of a call or before one
            sample.steps(world, range(1))
    killer.join()
    assert world.is_lost
    all_same(told(sample, world), story)


def test_more_rows_than_one_are_refused_where_there_are_none(sample, made):
    if sample.has_batches or not sample.is_registered:
        pytest.skip('has more, or is never asked for them')
    with pytest.raises(SpecError, match='2'):
        made(batch_size=2)


SEEDS = (4, 5, 6)


def mixed(sample):
    """Return scenes of three rows, two of them the same."""
    return [sample.scenes[0], sample.scenes[1], sample.scenes[0]]


@pytest.fixture(scope='module')
def alone(sample, world, batch):
    """Return what each row of the batch shows that is alone."""
    stories = []
    for scene, seed in zip(mixed(sample), SEEDS):
        first = sample.begin(world, scene, seed)
        stories.append([first, *sample.steps(world, range(sample.num_steps))])
    return stories


def test_batch_of_several_scenes_equals_single_worlds(sample, batch, alone):
    assert batch.batch_size == 3
    first = sample.begin(batch, mixed(sample), SEEDS)
    for t, seen in enumerate([first, *sample.steps(batch, range(sample.num_steps))]):
        for row in range(3):
            same(seen, alone[row][t], row=row)


def test_one_scene_and_seed_do_for_all_rows(sample, batch, world):
    seen = sample.begin(batch, sample.scenes[1], 4)
    expected = sample.begin(world, sample.scenes[1], 4)
    for row in range(3):
        same(seen, expected, row=row)


@pytest.mark.parametrize('rows', [[2], [False, False, True], [2, 0]])
def test_some_rows_are_reset_while_others_go_on(sample, batch, alone, rows):
    sample.begin(batch, mixed(sample), SEEDS)
    sample.steps(batch, range(2))
    indices = [2] if len(rows) != 2 else rows
    seen = sample.begin(batch, [mixed(sample)[row] for row in indices],
                        [SEEDS[row] for row in indices], rows=rows)
    for place, row in enumerate(indices):
        same(seen, alone[row][0], row=place)
    seen = sample.steps(batch, (2,))[0]
    for row in {0, 1, 2} - set(indices):
        same(seen, alone[row][3], row=row)
    fresh = arrays(sample.begin(batch, [mixed(sample)[row] for row in indices],
                                [SEEDS[row] for row in indices], rows=rows))
    seen = sample.steps(batch, (0,))[0]
    for row in indices:
        same(seen, alone[row][1], row=row)
    assert all(len(value) == len(indices) for value in fresh.values())


def test_rows_are_saved_and_restored_one_by_one(sample, batch, alone):
    sample.begin(batch, mixed(sample), SEEDS)
    sample.steps(batch, range(1))
    all_rows, last = batch.snapshot(), batch.snapshot([2])
    sample.steps(batch, range(1, 3))
    batch.restore(last, [2])
    seen = sample.steps(batch, (1,))[0]
    same(seen, alone[2][2], row=2)
    batch.restore(last, [0])  # another row goes on from there
    seen = sample.steps(batch, (1,))[0]
    same(seen, alone[2][2], row=0)
    batch.restore(all_rows)
    seen = sample.steps(batch, (1,))[0]
    for row in range(3):
        same(seen, alone[row][2], row=row)
    with pytest.raises(SpecError, match='rows'):
        batch.restore(all_rows, [0, 1])
    with pytest.raises(SpecError, match='rows'):
        batch.restore(last)


def test_states_of_all_rows_are_drawn(sample, batch, alone):
    if not batch.spec.can.render:
        pytest.skip('draws none')
    sample.begin(batch, mixed(sample), SEEDS)
    last = [State.of(shown[-1]) for shown in alone]
    shown = batch.render(State(*(np.concatenate([getattr(s, f.name) for s in last])
                                 for f in fields(State))))
    for row in range(3):
        np.testing.assert_array_equal(shown.rgb[row], alone[row][-1].rgb[0, -1:])


def test_wrong_numbers_for_rows_are_refused(sample, batch, alone):
    sample.begin(batch, mixed(sample), SEEDS)
    for given in (dict(seeds=[1, 2]), dict(scenes=list(sample.scenes[:2])), dict(rows=[0, 0]),
                  dict(rows=[3]), dict(rows=[-1]), dict(rows=[True, False]), dict(rows=[]),
                  dict(rows='0'), dict(rows=[0, 1], seeds=[1, 2, 3])):
        with pytest.raises(SpecError):
            sample.begin(batch, **given)
    seen = sample.steps(batch, range(1))[0]
    for row in range(3):
        same(seen, alone[row][1], row=row)
