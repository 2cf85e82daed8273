# SPDX-License-Identifier: Apache-2.0
"""Policies: scripted, expert, planned and trained ones, and unusual starts."""
from itertools import count
import re
import signal
import subprocess
import sys
import time

from needs import need_engine
import numpy as np
import pytest

pytest.importorskip('gymnasium', minversion='1.4')
from lingbot_world_ros.engines.interface import State  # noqa: E402, I100
from lingbot_world_ros.engines.registry import make_world  # noqa: E402
from lingbot_world_ros.envs.rooms import RoomVectorEnv  # noqa: E402
from lingbot_world_ros.envs.tasks import TASKS  # noqa: E402
from lingbot_world_ros.envs.unusual import unusual_state  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.evaluation.episodes import draw_starts, play  # noqa: E402
from lingbot_world_ros.geometry import se2  # noqa: E402
from lingbot_world_ros.policies.aims import (ImageAim, PICTURE_PX, PoseAim,  # noqa: E402
                                             TaskAim)
from lingbot_world_ros.policies.belief import Belief, touch_m  # noqa: E402
from lingbot_world_ros.policies.load import load_policy, print_unfinished, task_of  # noqa: E402
from lingbot_world_ros.policies.network import (features, forward, NetworkPolicy,  # noqa: E402
                                                write_policy)
from lingbot_world_ros.policies.planner import Planner  # noqa: E402
from lingbot_world_ros.policies.search import Horizon, Search  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from lingbot_world_ros.worlds.scenes import get_scene, SCENES  # noqa: E402

ROBOT = load_robot()


def numbers_env(task, num_rows, engine='room', **options):
    need_engine(engine)
    return RoomVectorEnv(num_rows, task=task, engine=engine, image=False,
                         autoreset_mode='Disabled', **options)


def played(text, task, starts, num_rows, **options):
    env = numbers_env(task, num_rows, **options)
    policy = load_policy(text, task, ROBOT)
    episodes = play(env, policy, starts)
    policy.close()
    env.close()
    return episodes


@pytest.mark.parametrize('text', ['random', 'scripted:0.8', 'expert'])
def test_an_episode_is_the_same_in_any_row_beside_any_others(text):
    starts = draw_starts(tuple(SCENES), 5, 3)
    alone = played(text, 'RoomNav', starts, 1, time_limit_s=3.0)
    beside = played(text, 'RoomNav', starts, 3, time_limit_s=3.0)
    assert alone == beside
    assert len({episode.reward for episode in alone}) == len(starts)


@pytest.mark.parametrize('engine', ['room', 'reference'])
def test_the_more_skilled_the_better(engine):
    starts = draw_starts(tuple(SCENES), 9, 0)
    shares = [np.mean([episode.success for episode in played(text, 'RoomReach', starts, 9,
                                                             engine=engine)])
              for text in ('random', 'scripted', 'expert')]
    assert shares[0] < 0.3 and shares[1] > 0.8 and shares[2] > 0.8


@pytest.mark.parametrize('task', TASKS)
def test_actions_are_in_the_space(task):
    env = numbers_env(task, 4)
    seen, _ = env.reset(seed=2)
    for text in ('random', 'scripted:0.3', 'expert'):
        policy = load_policy(text, task, ROBOT)
        policy.begin(range(4), env.known)
        action = policy.act(seen, env.known)
        assert action.shape == env.action_space.shape and np.abs(action).max() <= 1.0
    env.close()


def test_unusual_starts_are_the_same_in_both_worlds_and_touch_nothing():
    starts = draw_starts(tuple(SCENES), 6, 1, unusual=True)
    states = []
    for engine in ('room', 'reference'):
        env = numbers_env('RoomNav', 6, engine)
        env.reset(options={'scene': [s.scene for s in starts], 'seed': [s.seed for s in starts],
                           'unusual': True})
        assert all(start.unusual for start in env.known.starts)
        states.append(env.known.seen)
        env.reset(options={'scene': [s.scene for s in starts], 'seed': [s.seed for s in starts]})
        usual = env.known.seen
        moved = [np.abs(getattr(usual, name) - getattr(states[-1], name)).reshape(6, -1).max(1)
                 for name in ('base_pose', 'joint_position', 'object_pose')]
        assert (np.max(moved, 0) > 0.05).all()  # each in its way
        env.close()
    for name in ('base_pose', 'joint_position', 'object_pose'):
        np.testing.assert_allclose(*(getattr(seen, name) for seen in states), atol=1e-6)
    footprint = ROBOT.footprint
    for start, pose in zip(starts, states[0].base_pose):
        free_m = get_scene(start.scene).clearance_m(pose[:2], footprint.height_m)
        assert free_m > footprint.radius_m


def test_unusual_starts_come_in_all_their_kinds():
    env = numbers_env('RoomNav', 1)
    changed = set()
    for seed in range(12):
        env.reset(options={'scene': 'office', 'seed': seed})
        usual = env.known.seen
        state = unusual_state(get_scene('office'), seed, usual, ROBOT)
        changed.add(tuple(bool(np.any(getattr(state, name) != getattr(usual, name)[0]))
                          for name in ('base_pose', 'joint_position', 'object_pose')))
    env.close()
    assert changed == {(True, False, False), (False, True, False), (False, False, True)}


def test_rows_that_go_on_do_not_notice_an_unusual_start_beside_them():
    rewards = []
    for disturbs in (False, True):
        env = numbers_env('RoomPush', 2)
        env.reset(seed=5)
        action = np.full(env.action_space.shape, 0.4)
        env.step(action)
        if disturbs:
            env.reset(options={'reset_mask': np.array([False, True]), 'unusual': True})
        rewards.append([env.step(action)[1][0] for _ in range(4)])
        env.close()
    assert rewards[0] == rewards[1]


def test_a_plan_leads_nearer_than_standing_still():
    env = numbers_env('RoomReach', 1)
    seen, _ = env.reset(options={'scene': 'office', 'seed': 4})
    planner = Planner('RoomReach', ROBOT, 'cem', 24)
    planner.begin([0], env.known)
    before = env.known.task.potential(env.known.goals, env.known.seen)[0]
    for _ in range(2):
        seen = env.step(planner.act(seen, env.known))[0]
    assert env.known.task.potential(env.known.goals, env.known.seen)[0] > before + 0.2
    planner.close()
    env.close()


def test_a_plan_of_the_true_dynamics_begins_in_an_exact_copy_of_the_state():
    """Things on the move keep their speed, which no state says."""
    env = numbers_env('RoomPush', 1, 'reference')
    env.reset(options={'scene': 'office', 'seed': 4})
    search = Search(env.known.task.columns, Horizon(3, 1), 'cem', 12, 'reference')
    plan, rng = search.begin('office', 4), np.random.default_rng(0)
    for _ in range(3):
        found = search.find(plan, env.known.seen, TaskAim(env.known.task, env.known.goals, 0,
                                                          search.num_candidates), rng)
        env.step(found.action[None])
        for name in ('base_pose', 'base_twist', 'joint_position', 'object_pose'):
            np.testing.assert_array_equal(getattr(found.plan.reached, name),
                                          getattr(env.known.seen, name))
        plan = found.plan
    search.close()
    env.close()


@pytest.mark.parametrize('method', ['cem', 'mppi'])
def test_a_plan_to_a_pose_tells_where_it_leads(method):
    env = numbers_env('RoomNav', 1)
    env.reset(options={'scene': 'office', 'seed': 4})
    seen = env.known.seen
    forward = np.array([np.cos(seen.base_pose[0, 2]), np.sin(seen.base_pose[0, 2]), 0.0])
    aim = PoseAim(get_scene('office'), ROBOT, seen.base_pose[0] + 0.4 * forward)
    search = Search(env.known.task.columns, Horizon(12, 3), method, 48)
    found = search.find(search.begin('office', 4), seen, aim, np.random.default_rng(0))
    assert found.path.shape == (13, 3) and np.array_equal(found.path[0], seen.base_pose[0])
    assert aim.way_m(found.path)[-1] < 0.2 < aim.way_m(found.path)[0]
    assert found.deviation_m is not None and 0.0 <= found.deviation_m < 0.5 and found.seconds > 0
    again = search.find(search.begin('office', 4), seen, aim, np.random.default_rng(0))
    np.testing.assert_allclose(again.action, found.action, atol=1e-4)
    search.close()
    env.close()


def test_a_plan_to_a_picture_leads_to_where_it_was_taken():
    env = numbers_env('RoomNav', 1)
    env.reset(options={'scene': 'office', 'seed': 4})
    seen = env.known.seen
    pose = seen.base_pose + 0.3 * np.array([[np.cos(seen.base_pose[0, 2]),
                                             np.sin(seen.base_pose[0, 2]), 0.0]])
    search = Search(env.known.task.columns, Horizon(9, 3), 'cem', 24, picture_px=PICTURE_PX)
    camera = search.world_spec.camera
    assert (camera.width_px, camera.height_px) == PICTURE_PX
    engine = make_world('room')
    engine.reset('office', 4, render=False)
    there, here = (engine.render(State(at, seen.joint_position, seen.object_pose))
                   for at in (pose, seen.base_pose))
    aim = ImageAim(there.rgb[0, -1])
    assert aim.is_done(there) and not aim.is_done(here)  # of any size
    assert aim.difference(there)[0] == 0.0 < aim.difference(here)[0] < 1.0
    found = search.find(search.begin('office', 4), seen, aim, np.random.default_rng(0))
    assert np.hypot(*(found.path[-1] - pose[0])[:2]) < 0.2
    search.close()
    env.close()


@pytest.mark.parametrize('pose, said', [
    ((1.0, np.nan, 0.0), 'is not finite'), ((-1.0, 1.0, 0.0), 'is outside of office'),
    ((0.02, 1.0, 0.0), 'the robot needs')])
def test_a_pose_where_no_robot_can_stand_is_refused_in_words(pose, said):
    with pytest.raises(SpecError, match=said):
        PoseAim(get_scene('office'), ROBOT, np.array(pose))


def network_folder(folder, task='RoomReach', size=8, columns=4, **about):
    from safetensors.numpy import save
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(8, size)).astype(np.float32), np.zeros(8, np.float32)),
              (rng.normal(size=(columns, 8)).astype(np.float32), np.zeros(columns, np.float32))]
    write_policy(folder, {'task': task, 'senses': [], 'robot': ROBOT.name, **about}, layers,
                 save)
    return layers


def test_a_saved_policy_does_what_its_layers_say(tmp_path):
    layers = network_folder(tmp_path / 'p')
    policy = load_policy(str(tmp_path / 'p'), 'RoomReach', ROBOT)
    env = numbers_env('RoomReach', 3)
    seen, _ = env.reset(seed=0)
    x = features(seen, 'RoomReach', False)
    (w0, b0), (w1, b1) = layers
    hidden = x @ w0.T + b0
    expected = np.tanh((hidden / (1 + np.exp(-hidden))) @ w1.T + b1)
    np.testing.assert_allclose(policy.act(seen, env.known), expected, rtol=1e-5)
    assert np.array_equal(forward(x, layers), policy.act(seen, env.known))
    env.close()


@pytest.mark.parametrize('text, said', [
    ('nowhere', 'there is no such folder'), ('scripted:x', 'is no number'),
    ('scripted:2', 'from 0 (random) to 1'), ('plan:best', "unknown planner 'best'"),
    ('plan:cem:3', 'at least 12'), ('plan:cem:many', 'is no number'),
    ('picture:cem:12', 'at RoomNav only'), ('plan:cem:12:nothing', "unknown engine 'nothing'")])
def test_what_is_no_policy_is_refused_in_words(text, said):
    with pytest.raises(SpecError, match='(?i).*' + said.replace('(', r'\(').replace(')', r'\)')):
        load_policy(text, 'RoomReach', ROBOT)


def test_a_policy_of_another_task_or_robot_or_a_broken_one_is_refused(tmp_path):
    network_folder(tmp_path / 'p')
    with pytest.raises(SpecError, match='trained for RoomReach, not for RoomNav'):
        load_policy(str(tmp_path / 'p'), 'RoomNav', ROBOT)
    network_folder(tmp_path / 'q', robot='another')
    with pytest.raises(SpecError, match="drives robot 'another'"):
        load_policy(str(tmp_path / 'q'), 'RoomReach', ROBOT)
    (tmp_path / 'p' / 'policy.safetensors').write_bytes(b'x')
    with pytest.raises(SpecError, match='cannot be read'):
        NetworkPolicy(tmp_path / 'p')
    (tmp_path / 'p' / 'policy.yaml').write_text('format: 7')
    with pytest.raises(SpecError, match='no policy of format 1'):
        NetworkPolicy(tmp_path / 'p')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SpecError, match='policy.yaml is missing'):
        load_policy(str(tmp_path / 'empty'), 'RoomReach', ROBOT)


def test_a_policy_that_reads_other_numbers_is_refused(tmp_path):
    network_folder(tmp_path / 'p', size=7)
    env = numbers_env('RoomReach', 1)
    seen, _ = env.reset(seed=0)
    with pytest.raises(SpecError, match='reads 7 numbers'):
        NetworkPolicy(tmp_path / 'p').act(seen, env.known)
    env.close()


def small_training(**changes):
    from lingbot_world_ros.training.train_policy import PolicySpec
    return PolicySpec(**{'task': 'RoomReach', 'frames': 360, 'rounds': 3, 'rows': 4, 'epochs': 4,
                         'scan': False,
                         'engine_options': {}, **changes})


def test_a_training_that_was_cut_off_gives_the_same_policy(tmp_path):
    pytest.importorskip('torch')
    from lingbot_world_ros.training.train_policy import train_policy
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    rows = []
    train_policy(small_training(), whole, rows.append)
    assert [row['round'] for row in rows] == [0, 1, 2]
    assert sum(row['frames'] for row in rows) == 360

    def stop(row, numbers=count()):
        if next(numbers) == 1:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        train_policy(small_training(), cut, stop)
    again = []
    train_policy(small_training(), cut, again.append)
    assert [row['round'] for row in again] == [2]
    for name in ('policy.safetensors', 'policy.yaml'):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    with pytest.raises(SpecError, match='another training in it'):
        train_policy(small_training(seed=1), cut)
    policy = load_policy(str(whole), 'RoomReach', ROBOT)
    assert policy.about['frames'] == 360 and policy.about['rounds'] == 3


def test_a_pusher_is_trained_by_what_it_believes_and_acts_by_it(tmp_path):
    pytest.importorskip('torch')
    from lingbot_world_ros.training.train_policy import train_policy
    folder = train_policy(small_training(task='RoomPush', frames=240, rounds=2), tmp_path / 'p')
    assert NetworkPolicy(folder).about['touch_m'] == touch_m(ROBOT)
    starts = draw_starts(tuple(SCENES), 4, 3)
    alone, beside = (played(str(folder), 'RoomPush', starts, rows, time_limit_s=4.0)
                     for rows in (1, 3))
    for one, other in zip(alone, beside):  # but for the last bit of products of matrices
        assert one.reward == pytest.approx(other.reward, abs=1e-4)


@pytest.mark.parametrize('given', [{'drum': -1.0}, {'drum': 'near'}, [0.5]])
def test_distances_of_touch_that_cannot_be_are_refused(tmp_path, given):
    network_folder(tmp_path / 'p', touch_m=given)
    with pytest.raises(SpecError, match='touch_m gives metres'):
        NetworkPolicy(tmp_path / 'p')


@pytest.mark.parametrize('engine', ['room', 'reference'])
def test_a_thing_is_believed_to_be_where_it_was_pushed_to(engine):
    env = numbers_env('RoomPush', 6, engine)
    starts = draw_starts(tuple(SCENES), 6, 5)
    seen, _ = env.reset(options={'scene': [s.scene for s in starts],
                                 'seed': [s.seed for s in starts]})
    expert, belief = load_policy('expert', 'RoomPush', ROBOT), Belief(touch_m(ROBOT))
    belief.begin(range(6), 6)
    rows, told = np.arange(6), env.known.goals['index']
    before = env.known.seen.object_pose[rows, told, :2]
    for _ in range(60):
        believed = belief.look(seen)
        now = env.known.seen
        true = se2.rotated(now.object_pose[rows, told, :2] - now.base_pose[:, :2],
                           -now.base_pose[:, 2])
        moved_m = np.hypot(*(now.object_pose[rows, told, :2] - before).T)
        error_m = np.hypot(*(believed - true).T)
        assert (error_m <= 0.1 + 0.4 * moved_m).all()
        seen, _, terminated, truncated, _ = env.step(expert.act(seen, env.known))
        if (terminated | truncated).any():
            break
    is_far = moved_m > 0.4  # who believes it stayed errs by all of it
    assert is_far.any() and (error_m[is_far] < 0.6 * moved_m[is_far]).all()
    belief.begin([1], 6)
    again = belief.look(seen)
    assert (again[1] != believed[1]).any()  # told anew
    env.close()


def test_more_training_in_imagination_reaches_more(tmp_path):
    pytest.importorskip('torch')
    from lingbot_world_ros.training.train_policy import train_policy
    folder = train_policy(small_training(frames=6000, rounds=2, rows=8, epochs=30), tmp_path)
    starts = draw_starts(tuple(SCENES), 8, 0)
    won = sum(e.success for e in played(str(folder), 'RoomReach', starts, 8, engine='reference'))
    assert won >= 4  # 8 of 8 with four times the frames; random actions: none


def test_a_scan_goes_in_as_the_nearest_thing_in_each_direction():
    env = RoomVectorEnv(1, task='RoomNav', image=False, scan=True)
    seen, _ = env.reset(seed=0)
    far, near = ({**seen, 'scan': np.full_like(seen['scan'], 10.0)} for _ in range(2))
    near['scan'][0, 0] = 0.5  # the first on the right
    empty, one = (features(observation, 'RoomNav', True)[0, -20:] for observation in (far, near))
    np.testing.assert_allclose(empty, 0.1, rtol=1e-5)
    np.testing.assert_allclose(one, [2.0] + [0.1] * 19, rtol=1e-5)
    assert features(seen, 'RoomNav', True).shape[1] == 20 + features(
        seen, 'RoomNav', False).shape[1]
    env.close()


def test_who_sees_can_learn_in_the_true_rooms(tmp_path):
    """In a process of its own: OpenGL and what torch loads late do not bear each other."""
    pytest.importorskip('torch')
    need_engine('reference')
    done = subprocess.run(
        [sys.executable, '-m', 'lingbot_world_ros.cli', 'train-policy', 'RoomNav', '--engine',
         'reference', '--frames', '48', '--rounds', '2', '--rows', '2', '--epochs', '1', '--out',
         str(tmp_path / 'p')], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('episodes reached their goal') == 2
    about = NetworkPolicy(tmp_path / 'p').about
    assert about['engine'] == 'reference' and about['image_size'] == [80, 60]


def test_a_training_becomes_a_page_and_a_damaged_one_says_so(tmp_path):
    pytest.importorskip('torch')
    pytest.importorskip('matplotlib')
    pytest.importorskip('jinja2')
    from lingbot_world_ros.cli.main import main
    from lingbot_world_ros.training.train_policy import train_policy
    folder, page = train_policy(small_training(), tmp_path / 'p'), tmp_path / 'p.html'
    assert main(['report', str(folder)]) == 0
    text = page.read_text()
    assert 'RoomReach, learned in room' in text and '<tbody>' in text
    for round_number in range(3):
        assert (folder / f'round_00{round_number}.safetensors').exists()
    rounds = (folder / 'rounds.jsonl').read_text()
    assert rounds.count('\n') == 3
    page.unlink()
    (folder / 'rounds.jsonl').write_text(rounds[:-20])
    assert main(['report', str(folder)]) != 0
    assert not page.exists()


@pytest.mark.usefixtures('hears_ctrl_c')
def test_a_training_that_is_interrupted_says_what_it_kept(tmp_path):
    pytest.importorskip('torch')
    arguments = ['train-policy', 'RoomReach', '--no-scan', '--frames', '60000', '--rounds', '60',
                 '--epochs', '1', '--out', str(tmp_path / 'p')]
    training = subprocess.Popen([sys.executable, '-m', 'lingbot_world_ros.cli', *arguments],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline_s = time.monotonic() + 120
    while (not (tmp_path / 'p' / 'policy.yaml').exists() and training.poll() is None
           and time.monotonic() < deadline_s):
        time.sleep(0.05)
    training.send_signal(signal.SIGINT)
    _, told = training.communicate(timeout=60)
    assert training.returncode == 130 and 'Traceback' not in told
    assert re.search(r'Interrupted: [1-9]\d* of 60 rounds are in .*; the same command', told), told


def test_half_a_training_is_named(tmp_path, capsys):
    network_folder(tmp_path / 'p', rounds=1, rounds_planned=3)
    print_unfinished(str(tmp_path / 'p'))
    assert 'in 1 of 3 rounds' in capsys.readouterr().err
    assert task_of(str(tmp_path / 'p')) == 'RoomReach'
    with pytest.raises(SpecError, match='--task with one of'):
        task_of('scripted')
