# SPDX-License-Identifier: Apache-2.0
"""The environment in a learned place: checkers, episodes, goals, rewards, batches, refusals."""
from dataclasses import replace
import warnings

from needs import need_engine
import pytest

gymnasium = pytest.importorskip('gymnasium', minversion='1.4')
need_engine('learned')

from gymnasium.error import ResetNeeded  # noqa: E402, I100
from gymnasium.utils.env_checker import check_env, data_equivalence  # noqa: E402
from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402
from learned_worlds import HEIGHT_PX, NAME, RADIUS_M, UNSEEN_M, WIDTH_PX  # noqa: E402
from lingbot_world_ros.engines.registry import make_world  # noqa: E402
from lingbot_world_ros.envs import rooms  # noqa: E402
from lingbot_world_ros.envs.floor_distance import (distances_to, free_cells_of,  # noqa: E402
                                                   largest_region, looked_up)
from lingbot_world_ros.envs.learned_nav import LearnedNav  # noqa: E402
from lingbot_world_ros.envs.tasks import Seen, SUCCESS_BONUS  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.geometry import se2  # noqa: E402
from lingbot_world_ros.worlds.floor_plan import FloorPlan  # noqa: E402
import numpy as np  # noqa: E402

ID = 'lingbot_world_ros.envs.rooms:lingbot_world_ros/LearnedNav-v0'
GOALS = ('pose', 'image')


@pytest.fixture(scope='module')
def spec(learned_world):
    return make_world('learned', world=str(learned_world)).spec


@pytest.fixture
def make(learned_world):
    """Make vector environments that are closed in the end."""
    made = []

    def vector_env(num_envs=2, **keywords):
        keywords = {'task': 'LearnedNav', 'engine': 'learned', 'world': learned_world,
                    'image': False, **keywords}
        made.append(rooms.make_rooms(num_envs, **keywords))
        return made[-1]
    yield vector_env
    for env in made:
        env.close()


def random_actions(env, num_steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.0, 1.0, (num_steps, *env.action_space.shape)).astype(np.float32)


def same(a, b):
    """Whether observations or infos are the same, bytes and types."""
    return data_equivalence(dict(sorted(a.items())), dict(sorted(b.items())), exact=True)


@pytest.mark.parametrize('goal', GOALS)
def test_checkers_pass(goal, learned_world):
    env = gymnasium.make(ID, world=learned_world, goal=goal)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            check_env(env.unwrapped)
            checker = pytest.importorskip('stable_baselines3.common.env_checker')
            checker.check_env(env)
    finally:
        env.close()


@pytest.mark.parametrize('mode', [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize('goal', GOALS)
def test_batch_equals_single_environments_byte_for_byte(goal, mode, make, learned_world):
    keywords = {'goal': goal, 'image': True, 'scan': True, 'time_limit_s': 0.9,
                'uncalibrated': 'penalise'}
    batch = make(3, autoreset_mode=mode, **keywords)
    alone = SyncVectorEnv([lambda: gymnasium.make(ID, world=learned_world, **keywords).unwrapped]
                          * 3, autoreset_mode=mode)
    assert batch.observation_space == alone.observation_space
    assert all(map(same, batch.reset(seed=5), alone.reset(seed=5)))
    for action in random_actions(batch, 10):
        *numbers, info = batch.step(action)
        *others, info_alone = alone.step(action)
        assert same(numbers[0], others[0])
        assert all(map(np.array_equal, numbers[1:], others[1:]))
        final, final_alone = (told.pop('final_obs', ()) for told in (info, info_alone))
        assert all(a is b is None or same(a, b) for a, b in zip(final, final_alone))
        assert same(info, info_alone)
    alone.close()


def test_rows_over_processes_play_the_same(make):
    spread, here = make(2, workers=2, goal='image'), make(2, goal='image')
    assert all(map(same, spread.reset(seed=5), here.reset(seed=5)))
    for action in random_actions(here, 3):
        assert same(spread.step(action)[0], here.step(action)[0])
    assert spread.known.goals['picture'].shape == (2, HEIGHT_PX, WIDTH_PX, 3)


def test_rows_of_a_mask_are_reset_and_the_others_go_on(make):
    env = make(3, autoreset_mode='Disabled', time_limit_s=0.8)
    env.reset(seed=0)
    actions = random_actions(env, 5)
    env.step(actions[0])
    before, known = env.step(actions[1])[0], env.known
    mask = np.array([False, True, False])
    observation, info = env.reset(options={'reset_mask': mask})
    assert (info['_seed'] == mask).all()
    for name, value in observation.items():
        assert np.array_equal(value[~mask], before[name][~mask])
    assert (observation['odometry'][1] == [0, 0, 1, 0, 0, 0, 0]).all()
    np.testing.assert_array_equal(env.known.seen.base_pose[~mask], known.seen.base_pose[~mask])
    env.step(actions[2])
    *_, truncated, _ = env.step(actions[3])
    assert truncated.tolist() == [True, False, True]
    with pytest.raises(ResetNeeded, match=r'rows \[0, 2\]'):
        env.step(actions[4])


def test_make_vec_makes_it(learned_world):
    env = gymnasium.make_vec(ID, num_envs=2, world=learned_world, goal='image', depth=True,
                             render_mode='rgb_array')
    seen, info = env.reset(seed=0)
    assert seen in env.observation_space and len(env.render()) == 2
    assert seen['goal'].shape == (2, HEIGHT_PX, WIDTH_PX, 3) == seen['image'].shape
    assert (info['scene'] == NAME).all() and info['calibrated'].all()
    assert set(info) >= {'success', 'contact', 'uncertainty', 'is_predicted', 'seed'}
    env.close()


def test_episodes_begin_and_end_on_floor_that_is_known_and_connected(spec):
    task, plan = LearnedNav(spec), spec.floor_plan
    free = free_cells_of(plan, RADIUS_M)
    assert not (free & plan.unknown).any() and not (free & plan.occupied).any()
    starts, goals = (np.array(poses) for poses in zip(*(
        task._drawn(NAME, seed) for seed in range(300))))
    assert (np.hypot(*(starts - goals)[:, :2].T) >= 1.0).all()
    for poses in (starts, goals):
        column, row = np.floor((poses[:, :2] - plan.origin_m) / plan.resolution_m).astype(int).T
        assert free[row, column].all() and not (poses[:, :2] > UNSEEN_M).all(1).any()
        beside = np.abs(poses[:, :2] - 1.5) - [0.3, 0.1]  # the block
        assert (np.maximum(beside, 0.0) ** 2).sum(1).min() >= RADIUS_M ** 2
        assert np.ptp(poses[:, 0]) > 2.0 and np.ptp(poses[:, 2]) > 5.0


def test_an_episode_is_repeated_by_what_info_says(make):
    env = make(2)
    observation, info = env.reset(seed=3)
    start = env.known.seen.base_pose
    env.reset()
    repeated, again = env.reset(options={'seed': info['seed']})
    assert same(observation, repeated) and same(info, again)
    np.testing.assert_array_equal(env.known.seen.base_pose, start)


def drive_along(plan, goals, pose):
    """Go down the way that is left, then turn, (n, 2): as an expert that knows the plan."""
    around = np.linspace(-np.pi, np.pi, 36, endpoint=False)
    out = []
    for i, (x, y, yaw) in enumerate(pose):
        near = np.array([x, y]) + 0.25 * np.column_stack([np.cos(around), np.sin(around)])
        way_m = np.repeat(goals['way_m'][i:i + 1], len(near), 0)
        gx, gy, goal_yaw = goals['goal'][i]
        left_m = np.hypot(gx - x, gy - y)
        heading = (np.arctan2(gy - y, gx - x) if left_m < 0.35 else
                   around[np.argmin(looked_up(way_m, near, plan))])
        is_there = left_m < 0.15
        off = np.angle(np.exp(1j * ((goal_yaw if is_there else heading) - yaw)))
        forward = 0.0 if is_there or abs(off) > 0.4 else min(0.5, left_m)
        out.append([forward, np.clip(1.2 * off, -1.0, 1.0) * (abs(off) > 0.1)])
    return np.array(out)


def test_a_scripted_driver_reaches_goals(make):
    env = make(6, autoreset_mode='Disabled')
    plan = env.world_spec.floor_plan
    env.reset(seed=0)
    first, is_over = env.known.goals['way_m'], np.zeros(6, bool)
    way_m = looked_up(first, env.known.seen.base_pose[:, :2], plan)
    total, won = np.zeros(6), np.zeros(6, bool)
    for _ in range(300):
        action = drive_along(plan, env.known.goals, env.known.seen.base_pose)
        env._ended[:] = False  # rows that are over wait for the others
        _, rewards, terminated, truncated, info = env.step(action)
        total += rewards * ~is_over
        won |= info['success'] & ~is_over
        is_over |= terminated | truncated
        if is_over.all():
            break
    assert won.all()
    assert (np.abs(total - SUCCESS_BONUS - way_m) < 0.8).all()  # 0.3 m and the heading are left


def seen_at(base, twist=(0, 0, 0)):
    return Seen(np.array([base], float), np.array([twist], float), np.zeros((1, 5)),
                np.zeros((1, 5)), np.zeros((1, 0, 3)))


def test_it_is_done_near_the_goal_with_its_heading_and_at_rest(spec):
    task = LearnedNav(spec)
    goals = task.goals(NAME, 4, seen_at(task.start(NAME, 4)))
    x, y, yaw = goals['goal'][0]
    inward = np.sign(1.5 - x) or 1.0  # the way to the middle is free
    assert task.is_done(goals, seen_at((x + 0.29 * inward, y, yaw + 0.39 - 2 * np.pi)))[0]
    for wrong in (seen_at((x + 0.31 * inward, y, yaw)), seen_at((x, y, yaw + 0.41)),
                  seen_at((x, y, yaw), (0.06, 0, 0)), seen_at((x, y, yaw), (0, 0, 0.11))):
        assert not task.is_done(goals, wrong)[0]
    at = [task.potential(goals, seen_at(pose))[0] for pose in (
        (x, y, yaw), (x, y, yaw + np.pi), (x + 0.5 * inward, y, yaw))]
    assert at == pytest.approx([0.0, -0.5, -0.5], abs=0.01)


def test_a_wall_that_is_thinner_than_near_is_still_in_the_way(spec):
    occupied = np.zeros((40, 40), bool)
    occupied[:, 20] = True
    plan = FloorPlan(occupied, 0.05, (-1.0, -1.0))
    footprint = replace(spec.robot.footprint, radius_m=0.08)
    task = LearnedNav(replace(spec, floor_plan=plan,
                              robot=replace(spec.robot, footprint=footprint)))
    goals = {**task.goals(NAME, 0, seen_at((0, 0, 0))), 'goal': np.array([[-0.1, 0.0, 0.0]])}
    zone = np.zeros_like(occupied)
    zone[task._cell(goals['goal'][0])] = True
    goals['way_m'] = distances_to(zone, free_cells_of(plan, 0.08), 0.05)[None]
    assert task.is_done(goals, seen_at((-0.3, 0.0, 0.0)))[0]
    assert not task.is_done(goals, seen_at((0.17, 0.0, 0.0)))[0]


def test_a_way_on_any_grid_is_that_around_what_stands_there():
    occupied = np.zeros((30, 50), bool)
    occupied[:20, 25] = True  # a wall with a passage at its end
    unknown = np.zeros_like(occupied)
    unknown[25:, :5] = True
    plan = FloorPlan(occupied, 0.04, (2.0, -1.0), unknown)
    free = free_cells_of(plan, 0.1)
    region = largest_region(free)
    assert (region == free).all() and not free[26, 2] and not free[10, 23] and free[10, 22]
    zone = np.zeros_like(free)
    zone[10, 10] = True
    way_m = distances_to(zone, free, plan.resolution_m)[None]
    (here, there), xy = plan.centres_m()[[10, 10], [10, 40]], plan.centres_m()[10, 15]
    assert looked_up(way_m, here[None], plan)[0] == pytest.approx(0.0, abs=1e-9)
    assert looked_up(way_m, xy[None], plan)[0] == pytest.approx(0.2)
    assert looked_up(way_m, there[None], plan)[0] > np.hypot(*(there - here)) + 0.3
    occupied[:, 25] = True
    parts = largest_region(free_cells_of(plan, 0.1))
    assert parts.any() and (parts[:, :25].any() != parts[:, 26:].any())
    assert not largest_region(np.zeros((3, 4), bool)).any()


def test_the_goal_is_told_from_the_start_and_by_odometry(make):
    env = make(2)
    seen, _ = env.reset(seed=1)
    start, goal = env.known.seen.base_pose, env.known.goals['goal']
    place = se2.relative(start, goal)
    for action in random_actions(env, 6):
        expected = np.concatenate([
            np.column_stack([pose[:, :2], np.cos(pose[:, 2]), np.sin(pose[:, 2])])
            for pose in (place, se2.relative(env.known.seen.base_pose, goal))], 1)
        np.testing.assert_allclose(seen['goal'], expected, atol=1e-5)
        assert seen in env.observation_space
        seen = env.step(action)[0]


def test_a_goal_as_an_image_is_what_is_seen_there(make, learned_world):
    env = make(2, goal='image', image=True)
    seen, _ = env.reset(seed=1)
    before = seen['goal']
    env.step(random_actions(env, 1)[0])
    world = make_world('learned', 2, world=str(learned_world))
    world.reset(NAME, 0)
    known = env.known
    state = world.render(rooms.State(known.goals['goal'], known.seen.joint_position,
                                     known.seen.object_pose))
    apart = state.rgb[:, 0].astype(int) - before
    assert np.abs(apart).max() <= 2 and before.std() > 10  # the arm is where it was at the start
    assert (env.step(random_actions(env, 1)[0])[0]['goal'] == before).all()


@pytest.mark.parametrize('keywords, words', [
    ({'goal': 'pixel'}, 'image, pose'), ({'world': ''}, 'world=FOLDER'),
    ({'world': '/nowhere'}, 'world.yaml is missing'), ({'engine': 'room'}, 'takes no learned'),
    ({'engine': 'room', 'world': ''}, 'no floor plan'), ({'task': 'RoomNav'}, 'does not keep'),
    ({'task': 'RoomNav', 'engine': 'room', 'world': '', 'goal': 'image'}, 'in one way'),
    ({'scenes': 'living_room'}, "'living_room'"), ({'image_size': (32, 24)}, 'of one size')])
def test_what_cannot_be_is_refused_in_a_sentence(make, keywords, words):
    with pytest.raises(SpecError, match=words) as error:
        make(**keywords)
    assert '\n' not in str(error.value)


def test_worlds_in_which_it_cannot_be_done_are_refused(spec, make):
    body = replace(spec.robot.footprint, radius_m=2.0)
    with pytest.raises(SpecError, match='2 m radius fits nowhere'):
        LearnedNav(replace(spec, robot=replace(spec.robot, footprint=body)))
    with pytest.raises(SpecError, match='draws no place'):
        LearnedNav(replace(spec, can=replace(spec.can, render=False)), 'image')
    with pytest.raises(SpecError, match='unusual'):
        make().reset(seed=0, options={'unusual': True})
