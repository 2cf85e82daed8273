# SPDX-License-Identifier: Apache-2.0
"""The Gymnasium environments: what checkers ask for, batches, seeds, tasks, refusals."""
import subprocess
import sys
import warnings

from needs import need_engine
import pytest

gymnasium = pytest.importorskip('gymnasium', minversion='1.4')
need_engine('room')

from gymnasium.error import ClosedEnvironmentError, ResetNeeded  # noqa: E402, I100
from gymnasium.utils.env_checker import check_env, data_equivalence  # noqa: E402
from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402
from lingbot_world_ros.actions.command_spec import CommandSpec  # noqa: E402
from lingbot_world_ros.actions.commands import CommandBuffer  # noqa: E402
from lingbot_world_ros.actions.embedding import (actions_at_latch, CarriedCamera,  # noqa: E402
                                                 encode)
from lingbot_world_ros.actions.limits import Limits  # noqa: E402
from lingbot_world_ros.engines.registry import make_world  # noqa: E402
from lingbot_world_ros.envs import rooms  # noqa: E402
from lingbot_world_ros.envs.floor_distance import (CENTRES_M, distances_to,  # noqa: E402
                                                   free_cells, looked_up)
from lingbot_world_ros.envs.policy_commands import PolicyCommands  # noqa: E402
from lingbot_world_ros.envs.tasks import make_task, Seen, SUCCESS_BONUS, TASKS  # noqa: E402
from lingbot_world_ros.errors import EngineDiverged, SpecError  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from lingbot_world_ros.worlds.scenes import get_scene  # noqa: E402
import numpy as np  # noqa: E402

ROBOT = load_robot()
ENGINES = ('room', 'reference')
SLOW = pytest.mark.slow
IDS = {f'{task}{suffix}': (task, engine) for task in TASKS
       for suffix, engine in (('', 'room'), ('Reference', 'reference'))}
NO_PICTURES = {'image': False, 'scenes': 'office'}  # quick, and one scene to load


def vector_env(num_envs=2, task='RoomNav', engine='room', **keywords):
    need_engine(engine)
    return rooms.RoomVectorEnv(num_envs, task=task, engine=engine, **{**NO_PICTURES, **keywords})


def random_actions(env, num_steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.0, 1.0, (num_steps, *env.action_space.shape)).astype(np.float32)


def same(a, b):
    """Whether observations or infos are the same, bytes and types."""
    return data_equivalence(dict(sorted(a.items())), dict(sorted(b.items())), exact=True)


@pytest.mark.parametrize('name', [
    name if name.startswith('RoomNav') else pytest.param(name, marks=SLOW) for name in IDS])
def test_checkers_pass(name):
    need_engine(IDS[name][1])
    env = gymnasium.make(f'lingbot_world_ros.envs.rooms:lingbot_world_ros/{name}-v0')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            check_env(env.unwrapped)
            checker = pytest.importorskip('stable_baselines3.common.env_checker')
            checker.check_env(env)
    finally:
        env.close()


@pytest.mark.parametrize('mode', [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize('keywords', [
    pytest.param({'engine': 'room', 'image': True, 'scan': True, 'uncalibrated': 'penalise'},
                 marks=SLOW),
    {'engine': 'room', 'task': 'RoomPush', 'scenes': ('office', 'workshop')},
    {'engine': 'reference', 'task': 'RoomReach'}], ids=str)
def test_batch_equals_single_environments_byte_for_byte(keywords, mode):
    keywords = {'task': 'RoomNav', **NO_PICTURES, **keywords, 'time_limit_s': 0.9}
    need_engine(keywords['engine'])
    alone = SyncVectorEnv([lambda: rooms.RoomEnv(**keywords)] * 3, autoreset_mode=mode)
    batch = rooms.RoomVectorEnv(3, autoreset_mode=mode, **keywords)
    assert batch.observation_space == alone.observation_space
    assert batch.action_space == alone.action_space
    assert all(map(same, batch.reset(seed=5), alone.reset(seed=5)))
    for action in random_actions(batch, 12):
        *numbers, info = batch.step(action)
        *others, info_alone = alone.step(action)
        assert same(numbers[0], others[0])
        assert all(map(np.array_equal, numbers[1:], others[1:]))
        final, final_alone = ([told.pop('final_obs', ()) for told in (info, info_alone)])
        assert len(final) == len(final_alone)
        assert all(a is b is None or same(a, b) for a, b in zip(final, final_alone))
        assert same(info, info_alone)
    batch.close()
    alone.close()


def test_make_vec_makes_the_batch_and_takes_keywords():
    env = gymnasium.make_vec('lingbot_world_ros/RoomReach-v0', num_envs=2, **NO_PICTURES,
                             autoreset_mode='SameStep', frames_per_action=5)
    assert isinstance(env, rooms.RoomVectorEnv)
    assert env.metadata['autoreset_mode'] is AutoresetMode.SAME_STEP
    assert env.metadata['render_fps'] == 3.0
    assert env.single_action_space.shape == (4,)
    env.close()


def test_row_that_ended_starts_over_in_the_next_step():
    env = vector_env(time_limit_s=0.4)
    first, info = env.reset(seed=0)
    for _ in range(2):
        *_, truncated, _ = env.step(random_actions(env, 1)[0])
    assert truncated.all()
    observation, reward, terminated, truncated, again = env.step(random_actions(env, 1)[0])
    assert not reward.any() and not terminated.any() and not truncated.any()
    assert (observation['odometry'] == [0, 0, 1, 0, 0, 0, 0]).all()
    assert (again['seed'] != info['seed']).all()
    env.close()


def test_rows_of_a_mask_are_reset_and_the_others_go_on():
    env = vector_env(3, autoreset_mode='Disabled', time_limit_s=0.8)
    env.reset(seed=0)
    actions = random_actions(env, 8)
    env.step(actions[0])
    before = env.step(actions[1])[0]
    mask = np.array([False, True, False])
    observation, info = env.reset(options={'reset_mask': mask})
    assert (info['_seed'] == mask).all() and (info['_scene'] == mask).all()
    for name, value in observation.items():
        assert np.array_equal(value[~mask], before[name][~mask])
    assert (observation['odometry'][1] == [0, 0, 1, 0, 0, 0, 0]).all()
    env.step(actions[2])
    *_, truncated, _ = env.step(actions[3])
    assert truncated.tolist() == [True, False, True]
    with pytest.raises(ResetNeeded, match=r'rows \[0, 2\]'):
        env.step(actions[4])
    env.reset(options={'reset_mask': truncated})
    env.step(actions[5])
    env.close()


def test_episodes_of_a_row_depend_on_its_seed_alone():
    one, three = vector_env(1, time_limit_s=0.2), vector_env(3, time_limit_s=0.2)
    told = {}
    for env, seed in ((one, 12), (three, 10)):
        info, seeds = env.reset(seed=seed)[1], []
        for action in random_actions(env, 6):
            seeds.append(info['seed'][-1])
            *_, info = env.step(action)
        told[env] = seeds
    assert told[one] == told[three]
    assert len(set(told[one])) == 3  # an episode lasts one step, and starts in another
    again = one.reset(seed=12)[1]
    assert again['seed'][0] == told[one][0]
    for env in (one, three):
        env.close()


def test_an_episode_is_repeated_by_what_info_says():
    env = vector_env(2, scenes=(), time_limit_s=0.2)
    observation, info = env.reset(seed=3)
    env.reset()
    repeated, info_again = env.reset(options={'scene': info['scene'], 'seed': info['seed']})
    assert same(observation, repeated) and same(info, info_again)
    swapped, _ = env.reset(options={'scene': info['scene'][::-1], 'seed': info['seed'][::-1]})
    assert all(np.array_equal(swapped[name], value[::-1]) for name, value in observation.items())
    env.close()


@pytest.mark.parametrize('task', TASKS)
def test_twins_have_the_same_spaces_and_the_same_episodes(task):
    imagined, true = (vector_env(2, task, engine, scenes=()) for engine in ENGINES)
    assert imagined.observation_space == true.observation_space
    assert imagined.action_space == true.action_space
    (seen, info), (seen_true, info_true) = imagined.reset(seed=7), true.reset(seed=7)
    assert same(seen, seen_true)
    assert info['seed'].tolist() == info_true['seed'].tolist()
    assert info['scene'].tolist() == info_true['scene'].tolist()
    for action in random_actions(imagined, 3):
        reward, reward_true = imagined.step(action)[1], true.step(action)[1]
        np.testing.assert_allclose(reward, reward_true, atol=0.1)  # the states differ a little
    imagined.close()
    true.close()


def drive_to_goal(goal):
    """Turn to where the goal should be by odometry, drive there and stop, (k,)."""
    distance_m, bearing = np.hypot(*goal[2:4]), np.arctan2(goal[3], goal[2])
    if distance_m < 0.75:
        return np.array([0.0, np.clip(bearing, -1, 1) * (abs(bearing) > 0.1)])
    forward = np.clip(1.5 * (distance_m - 0.7), 0.1, 1.0) * (abs(bearing) < 0.5)
    return np.array([forward, np.clip(1.2 * bearing, -1.0, 1.0)])


@pytest.mark.parametrize('engine', ENGINES)
def test_a_scripted_policy_reaches_a_thing_in_the_open(engine):
    need_engine(engine)
    env = rooms.RoomEnv(task='RoomNav', engine=engine, image=False)
    seen, info = env.reset(options={'scene': 'living_room', 'seed': 7})
    total, ended = 0.0, False
    while not ended:
        seen, reward, success, cut, info = env.step(drive_to_goal(seen['goal']))
        total, ended = total + reward, success or cut
    assert success and info['success'] and not info['contact'] > 0.5
    assert total > SUCCESS_BONUS + 1.0  # and the way that it drove
    env.close()


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('task', TASKS)
def test_what_is_seen_is_in_the_space_and_the_goal_follows_odometry_only(task, engine):
    env = vector_env(2, task, engine, image=True, depth=True, scan=True)
    seen, _ = env.reset(seed=1)
    first = seen['goal']
    for action in random_actions(env, 8):
        action[:, 0] = 1.0  # into something
        assert seen in env.observation_space
        x, y, c, s = seen['odometry'].T[:4]
        if task != 'RoomReach':
            told = 2 if task == 'RoomNav' else 4
            assert np.array_equal(seen['goal'][:, :told], first[:, :told])
            dx, dy = first[:, 0] - x, first[:, 1] - y
            np.testing.assert_allclose(seen['goal'][:, told:told + 2].T,
                                       [c * dx + s * dy, c * dy - s * dx], atol=1e-5)
        seen = env.step(action)[0]
    assert seen['image'].any() and seen['depth'].std() > 0.1 and seen['scan'].min() > 0.3
    env.close()


def test_pictures_are_rendered_where_observations_have_none():
    env = vector_env(2, render_mode='rgb_array')
    with pytest.raises(ResetNeeded):
        env.render()
    env.reset(seed=0)
    before = env.render()
    env.step(random_actions(env, 1)[0])
    after = env.render()
    assert len(after) == 2 and after[0].shape == (120, 160, 3) and after[0].dtype == np.uint8
    assert (before[0] != after[0]).any()
    env.close()
    quiet = rooms.RoomEnv(task='RoomNav', **NO_PICTURES)
    assert quiet.render() is None
    quiet.close()


@pytest.mark.parametrize('engine', ENGINES)
def test_pictures_have_the_size_that_is_asked_for(engine):
    env = vector_env(2, engine=engine, image=True, depth=True, scan=True, image_size=(80, 60),
                     render_mode='rgb_array')
    seen, _ = env.reset(seed=0)
    assert seen in env.observation_space and env.render()[0].shape == (60, 80, 3)
    assert seen['image'].shape == (2, 60, 80, 3) and seen['depth'].shape == (2, 60, 80, 1)
    full = vector_env(2, engine=engine, image=True, scan=True)
    large, _ = full.reset(seed=0)
    halved = large['image'].reshape(2, 60, 2, 80, 2, 3).mean((2, 4))
    assert -10 * np.log10(np.mean((halved - seen['image']) ** 2) / 255 ** 2) > 22
    for each in (env, full):
        each.close()
    running = make_world(engine, 2)
    with pytest.raises(SpecError, match='pictures of 160x120'):
        rooms.RoomVectorEnv(2, task='RoomNav', engine=running, image_size=(80, 60))


def test_inexact_rows_play_nearly_the_same_episodes():
    exact, quick = (vector_env(4, image=True, image_size=(80, 60), scenes=('office', 'workshop'),
                               engine_options={'exact': exact}, time_limit_s=0.8)
                    for exact in (True, False))
    (seen, info), (seen_quick, info_quick) = (env.reset(seed=3) for env in (exact, quick))
    assert (info['seed'] == info_quick['seed']).all()
    for action in random_actions(exact, 8):
        seen, reward, *ends, _ = exact.step(action)
        seen_quick, reward_quick, *ends_quick, _ = quick.step(action)
        np.testing.assert_allclose(reward, reward_quick, atol=1e-4)
        assert np.array_equal(ends, ends_quick)
        np.testing.assert_allclose(seen['odometry'], seen_quick['odometry'], atol=1e-4)
        apart = seen['image'].astype(float) - seen_quick['image']
        assert np.sqrt(np.mean(apart ** 2)) < 2.0  # of 255
    for env in (exact, quick):
        env.close()


class Distrusted:
    """An engine whose second row is outside its calibrated range from the first step on."""

    def __init__(self, engine, num_rows, **_):
        self._inner = make_world(engine, num_rows)
        self.num_closed = 0

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def step(self, actions, render=True):
        shown = self._inner.step(actions, render)
        if render:
            shown.calibrated[1] = False
        return shown

    def close(self):
        self.num_closed += 1


@pytest.mark.parametrize('reaction', rooms.UNCALIBRATED)
def test_uncertainty_beyond_its_range_is_acted_on(reaction, monkeypatch):
    monkeypatch.setattr(rooms, 'make_world', Distrusted)
    env, plain = (vector_env(2, autoreset_mode='Disabled', image=True, uncalibrated=what)
                  for what in (reaction, 'ignore'))
    for each in (env, plain):
        each.reset(seed=0)
    action = random_actions(env, 1)[0]
    _, reward, _, truncated, info = env.step(action)
    _, reward_plain, *_ = plain.step(action)
    assert info['calibrated'].tolist() == [True, False] and (info['uncertainty'] > 0.0).all()
    assert truncated.tolist() == [False, reaction == 'truncate']
    cost = rooms.UNCALIBRATED_COST * (reaction == 'penalise')
    np.testing.assert_allclose(reward_plain - reward, [0.0, cost])


def test_an_engine_that_diverges_is_told_of_and_a_reset_helps(monkeypatch):
    env = vector_env(2)
    env.reset(seed=0)
    action, step = random_actions(env, 1)[0], type(env._engine).step

    def diverging(self, actions, render=True):
        shown = step(self, actions, render)
        shown.object_pose[1] = np.nan
        return shown

    monkeypatch.setattr(type(env._engine), 'step', diverging)
    with pytest.raises(EngineDiverged, match='object_pose'):
        env.step(action)
    monkeypatch.undo()
    env.reset()
    env.step(action)
    env.close()


def test_it_closes_once_and_refuses_afterwards(monkeypatch):
    monkeypatch.setattr(rooms, 'make_world', Distrusted)
    env = vector_env(2)
    engine = env._engine
    env.reset(seed=0)
    env.close()
    env.close()
    assert engine.num_closed == 1
    with pytest.raises(ClosedEnvironmentError):
        env.reset()
    with pytest.raises(ClosedEnvironmentError):
        env.step(random_actions(env, 1)[0])
    with pytest.raises(SpecError):
        vector_env(2, time_limit_s=-1.0)


@pytest.mark.parametrize('keywords, words', [
    ({'task': 'RoomNaw'}, "mean 'RoomNav'"), ({'engine': 'rom'}, "mean 'room'"),
    ({'scenes': 'ofice'}, "mean 'office'"), ({'scenes': ['office', 'kitchen']}, "'kitchen'"),
    ({'image_size': (100, 75)}, 'multiples of 4'), ({'image_size': (80, 61)}, '4:3'),
    ({'image_size': 80}, 'two whole'), ({'image_size': (80.0, 60.0)}, 'two whole'),
    ({'engine': 'reference', 'image_size': (80, 0)}, 'two whole'),
    ({'engine': 'reference', 'image_size': (80, 80)}, '4:3'),
    ({'frames_per_action': 0}, 'multiple of the 1'), ({'time_limit_s': 0.0}, 'more than 0'),
    ({'uncalibrated': 'stop'}, 'penalise'), ({'render_mode': 'human'}, 'rgb_array'),
    ({'autoreset_mode': 'Never'}, 'NextStep'), ({'limits': {'speed': 1.0}}, 'joint_acceleration'),
    ({'limits': {'joint_acceleration': -1.0}}, '0 .none. or more'), ({'num_envs': 0}, 'at least')])
def test_a_wrong_keyword_is_refused_in_a_sentence(keywords, words):
    with pytest.raises(SpecError, match=words):
        vector_env(**keywords)


@pytest.fixture(scope='module')
def env():
    env = vector_env(2)
    yield env
    env.close()


@pytest.mark.parametrize('keywords, words', [
    ({'seed': -1}, 'from 0 on'), ({'seed': [1]}, '1 seeds for 2'), ({'seed': [1, 'x']}, 'whole'),
    ({'options': {'sead': 3}}, "mean 'seed'"), ({'options': {'scene': 'ofice'}}, "mean 'office'"),
    ({'options': {'seed': [1, 2, 3]}}, '3 values for 2'), ({'options': {'seed': 1.5}}, 'int'),
    ({'options': {'reset_mask': [False, False]}}, 'at least one'),
    ({'options': {'reset_mask': np.array([1, 0])}}, 'truth values'),
    ({'options': {'reset_mask': np.array([True, False])}}, 'first reset')])
def test_a_wrong_reset_is_refused_in_a_sentence(env, keywords, words):
    with pytest.raises(SpecError, match=words):
        env.reset(**keywords)


@pytest.mark.parametrize('action, words', [
    (np.zeros(2), 'shape'), (np.full((2, 2), np.nan), 'not finite'), (np.zeros((2, 7)), 'linear')])
def test_a_wrong_action_is_refused_and_changes_nothing(action, words):
    env, other = vector_env(2), vector_env(2)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros((2, 2)))
    for each in (env, other):
        each.reset(seed=0)
    with pytest.raises(SpecError, match=words):
        env.step(action)
    good = random_actions(env, 1)[0]
    assert same(env.step(good)[0], other.step(good)[0])
    env.close()
    other.close()


def test_without_gymnasium_one_line_says_what_installs_it():
    code = ("import sys; sys.modules['gymnasium'] = None\n"
            'import lingbot_world_ros.envs.rooms')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                            timeout=120)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode and "'gymnasium'" in last and 'pip install gymnasium' in last


@pytest.mark.parametrize('limits', [Limits(), Limits(
    linear_velocity_mps=0.5, linear_acceleration_mps2=0.8, angular_acceleration_radps2=1.0,
    joint_acceleration=1.5)], ids=['none', 'some'])
def test_a_policy_commands_what_the_topics_would(limits):
    spec = make_world('room').spec
    command = CommandSpec(spec.action, ROBOT.joint_names, tuple(ROBOT.joint_array('low')),
                          tuple(ROBOT.joint_array('high')), timeout_s=9.0, limits=limits)
    buffer, commands = CommandBuffer(command), PolicyCommands(spec, spec.action.names, 1, limits)
    carried = CarriedCamera(spec.camera, spec.camera.T_base_optical)
    period_ns, current = spec.frame_period_ns, np.zeros(len(ROBOT.joints))
    low, high = np.array([(dim.low, dim.high) for dim in spec.action.dims]).T
    low[:2], high[:2] = np.transpose([command.twist_range[0], command.twist_range[2]])
    for step, said in enumerate(np.random.default_rng(0).uniform(-1.2, 1.2, (20, 1, 7))):
        sim_ns = step * 3 * period_ns
        v_x, w_z, *joints = np.where(said[0] < 0, -low, high) * np.clip(said[0], -1, 1)
        buffer.twist((v_x, 0, 0), (0, 0, w_z), sim_ns)
        buffer.joint_array(joints, 'velocity', sim_ns)
        embedding = encode(buffer.targets(sim_ns, sim_ns, 3, period_ns, current), command, carried,
                           current, sequence=step, stamp_ns=sim_ns, period_s=period_ns * 1e-9,
                           counts=buffer.counts)
        expected = actions_at_latch(embedding, spec.action, current, 3)
        assert np.array_equal(commands.actions(said, 3)[0], expected)


def test_a_way_leads_around_what_stands_in_it():
    free = free_cells('office', ROBOT.footprint)
    assert not free[0].any() and free.mean() > 0.2
    zone = free & (np.hypot(*np.moveaxis(CENTRES_M - [5.5, 1.2], -1, 0)) < 0.3)
    way_m = distances_to(zone, free)[None]
    beside = looked_up(way_m, np.array([[5.5, 2.2]]))[0]
    assert beside == pytest.approx(0.7, abs=0.1)
    across = looked_up(way_m, np.array([[3.2, 1.2]]))[0]  # behind the wall with the doorway
    assert across > 2.0 + 0.5
    assert np.isfinite(way_m).all() and looked_up(way_m, np.array([[-5.0, 99.0]]))[0] > 0


def seen_at(base, twist=(0, 0, 0), thing=(3.0, 2.0, 0.0), joints=None, joint_speed=0.0):
    """Return a state of one row whose objects are all in one place."""
    joints = ROBOT.joint_array('home') if joints is None else joints
    return Seen(np.array([base], float), np.array([twist], float), joints[None],
                np.full((1, len(joints)), joint_speed), np.tile(np.array(thing, float), (1, 3, 1)))


def drawn(task, scene, start):
    rng = np.random.default_rng(0)
    return make_task(task, ROBOT), make_task(task, ROBOT).draw(get_scene(scene), start, rng)


def test_nav_is_done_near_the_thing_facing_it_and_at_rest():
    task, goals = drawn('RoomNav', 'living_room', seen_at((1.0, 2.0, 0.5)))
    reach_m = float(goals['reach_m'][0])
    index = int(goals['index'][0])
    assert reach_m == pytest.approx(
        get_scene('living_room').movables[index].radius_m + 0.34 + 0.25)
    stops = (3.0 - reach_m + 0.01, 2.0, 0.0)
    assert task.is_done(goals, seen_at(stops))[0]
    for wrong in (seen_at((3.0 - reach_m - 0.01, 2.0, 0.0)), seen_at((*stops[:2], 0.26)),
                  seen_at(stops, (0.06, 0, 0)), seen_at(stops, (0, 0, 0.11)),
                  seen_at(stops, thing=(3.1, 2.0, 0.0))):
        assert not task.is_done(goals, wrong)[0]
    near = stops[0] + 0.1, 2.0
    potential = [task.potential(goals, seen_at(pose))[0] for pose in (
        (1.0, 2.0, 0.0), (1.5, 2.0, 0.0), (*near, 0.0), (*near, np.pi))]
    assert potential[1] - potential[0] == pytest.approx(0.5, abs=0.06)
    assert potential[2] == pytest.approx(0.0, abs=0.05)
    assert potential[2] - potential[3] == pytest.approx(0.5, abs=0.05)
    moved = task.potential(goals, seen_at((*near, 0.0), thing=(3.0, 2.4, 0.0)))[0]
    assert potential[2] - moved > 0.4


def test_reach_is_done_with_the_gripper_at_the_point_and_at_rest():
    start = seen_at((1.0, 2.0, 0.5))
    task, goals = drawn('RoomReach', 'office', start)
    assert not task.is_done(goals, start)[0] and task.potential(goals, start)[0] < -1.0
    rng = np.random.default_rng(0)
    low, high = ROBOT.joint_array('low'), ROBOT.joint_array('high')
    joints = rng.uniform(low + 0.15 * (high - low), high - 0.15 * (high - low))  # as it was drawn
    points = ROBOT.arm.points(joints)
    np.testing.assert_allclose(goals['point'][0], 0.5 * (points[5] + points[7]))
    assert task.is_done(goals, seen_at((0, 0, 0), joints=joints))[0]
    assert not task.is_done(goals, seen_at((0, 0, 0), joints=joints, joint_speed=0.3))[0]
    assert task.potential(goals, seen_at((0, 0, 0), joints=joints))[0] == pytest.approx(0.0)


def test_push_is_done_with_the_thing_in_the_zone():
    scene = get_scene('workshop')
    state = scene.start_state(4, ROBOT)
    start = Seen(state.base_pose[None], np.zeros((1, 3)), state.joint_position[None],
                 np.zeros((1, 5)), state.object_pose[None])
    task, goals = drawn('RoomPush', 'workshop', start)
    index, zone = int(goals['index'][0]), goals['zone'][0]
    way_m = np.hypot(*(zone - state.object_pose[index, :2]))
    assert 0.6 <= way_m <= 1.5 and not task.is_done(goals, start)[0]
    assert scene.clearance_m(zone, 1.26) > scene.movables[index].radius_m
    for off_m, inside in ((0.29, True), (0.31, False)):
        there = seen_at((1.0, 1.0, 0.0), thing=(zone[0] + off_m, zone[1], 0.0))
        assert task.is_done(goals, there)[0] == inside
    ahead = (zone - state.object_pose[index, :2]) / way_m
    behind = state.object_pose[index, :2] - goals['behind_m'][0] * ahead
    best = seen_at((*behind, 0.0), thing=state.object_pose[index])
    assert task.potential(goals, best)[0] == pytest.approx(-2.0 * way_m)
