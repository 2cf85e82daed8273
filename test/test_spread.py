# SPDX-License-Identifier: Apache-2.0
"""Rows over workers play what they play in one process, whoever is killed meanwhile."""
import os
import signal
import threading
import time

from needs import need_engine
import pytest

pytest.importorskip('gymnasium', minversion='1.4')
need_engine('room')
import gymnasium  # noqa: E402, I100
from lingbot_world_ros.envs.rooms import make_rooms, RoomVectorEnv  # noqa: E402
from lingbot_world_ros.envs.spread import SpreadVectorEnv  # noqa: E402
from lingbot_world_ros.errors import EngineLost, SpecError  # noqa: E402
from lingbot_world_ros.evaluation.episodes import draw_starts, play  # noqa: E402
from lingbot_world_ros.policies.load import load_policy  # noqa: E402
import numpy as np  # noqa: E402

QUICK = {'image_size': (48, 36), 'time_limit_s': 0.8}  # episodes of four steps


def same(told, expected):
    """Check that what two environments tell has the same bytes."""
    assert type(told) is type(expected)
    if isinstance(expected, dict):
        assert told.keys() == expected.keys()
        for name in expected:
            same(told[name], expected[name])
    elif isinstance(expected, (tuple, list)):
        assert len(told) == len(expected)
        for pair in zip(told, expected):
            same(*pair)
    elif isinstance(expected, np.ndarray) and expected.dtype != object:
        assert told.dtype == expected.dtype
        np.testing.assert_array_equal(told, expected)
    elif isinstance(expected, np.ndarray):
        assert told.dtype == object
        same(told.tolist(), expected.tolist())
    else:
        assert told == expected


def kill_in_the_middle(pid):
    """Let a process stand still, and kill it once it was asked for something."""
    os.kill(pid, signal.SIGSTOP)

    def kill():
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
    threading.Thread(target=kill).start()


def compare(spread, direct, modes, num_steps=14, kills=(3, 10)):
    """Play the same in two environments; workers die on the way, in these steps or before them."""
    assert spread.observation_space == direct.observation_space
    assert spread.action_space == direct.action_space
    assert spread.metadata == direct.metadata and spread.render_mode == direct.render_mode
    both, rng = (spread, direct), np.random.default_rng(3)
    same(*(env.reset(seed=5) for env in both))
    ended = np.zeros(direct.num_envs, bool)
    for step in range(num_steps):
        if step in kills and step != 6:
            kill_in_the_middle(spread.worker_pids[step % 2])
        elif step in kills:  # all of them, while nobody asks them for anything
            for pid in spread.worker_pids:
                os.kill(pid, signal.SIGKILL)
        if step == 9:
            mask = ended | (np.arange(direct.num_envs) == 1)
            same(*(env.reset(options={'reset_mask': mask, 'unusual': True}) for env in both))
            ended &= ~mask
        if modes == 'Disabled' and ended.any():
            same(*(env.reset(options={'reset_mask': ended}) for env in both))
        actions = rng.uniform(-1.0, 1.0, direct.action_space.shape).astype(np.float32)
        told, expected = (env.step(actions) for env in both)
        same(told, expected)
        ended = expected[2] | expected[3]
        same(spread.render(), direct.render())
    seen = [env.known for env in both]
    assert seen[0].starts == seen[1].starts
    np.testing.assert_array_equal(seen[0].seen.base_pose, seen[1].seen.base_pose)


@pytest.mark.parametrize('mode, task, more', [
    pytest.param('NextStep', 'RoomNav', {'scan': True}, marks=pytest.mark.slow),
    ('SameStep', 'RoomReach', {'image': False}),
    pytest.param('Disabled', 'RoomPush', {'render_mode': 'rgb_array'}, marks=pytest.mark.slow)])
def test_workers_show_what_one_process_shows_whoever_is_killed(mode, task, more):
    direct, spread = (make_rooms(5, task=task, workers=workers, autoreset_mode=mode, **QUICK,
                                 **more) for workers in (1, 2))
    assert isinstance(direct, RoomVectorEnv) and isinstance(spread, SpreadVectorEnv)
    compare(spread, direct, mode, kills=(3, 6, 10) if mode == 'NextStep' else (3, 10))
    for env in (spread, direct):
        env.close()


def test_make_vec_takes_workers_and_a_policy_plays_as_ever():
    played = []
    for workers in (1, 2):
        env = gymnasium.make_vec('lingbot_world_ros/RoomReach-v0', num_envs=4, workers=workers,
                                 image=False, autoreset_mode='Disabled')
        policy = load_policy('expert', 'RoomReach', env.unwrapped.world_spec.robot)
        played.append(play(env.unwrapped, policy, draw_starts(('office', 'workshop'), 6, 0)))
        env.close()
    assert played[0] == played[1] and sum(episode.success for episode in played[0]) > 3


def test_what_cannot_be_spread_is_refused_in_words():
    with pytest.raises(SpecError, match='take at most as many'):
        make_rooms(2, task='RoomReach', workers=3)
    with pytest.raises(SpecError, match="task 'RoomFly'"):
        make_rooms(2, task='RoomFly', workers=2)
    with pytest.raises(SpecError, match='workers=0'):
        make_rooms(2, task='RoomReach', workers=0)
    env = make_rooms(2, task='RoomReach', workers=2, image=False)
    seen, _ = env.reset(seed=0)
    with pytest.raises(SpecError, match="scene 'cellar'"):
        env.reset(options={'scene': 'cellar'})
    with pytest.raises(SpecError, match='not finite'):
        env.step(np.full((2, 4), np.nan))
    assert np.isfinite(env.step(np.zeros((2, 4)))[1]).all()
    env.close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        env.reset()


def test_a_call_that_no_worker_survives_is_one_error(monkeypatch):
    env = make_rooms(2, task='RoomReach', workers=2, image=False)
    env.reset(seed=0)
    block = env._blocks[0]
    hired = block._hired

    def hired_and_killed():
        worker = hired()
        os.kill(worker.pid, signal.SIGKILL)
        return worker
    monkeypatch.setattr(block, '_hired', hired_and_killed)
    os.kill(env.worker_pids[0], signal.SIGKILL)
    with pytest.raises(EngineLost, match='5 workers were lost'):
        env.step(np.zeros((2, 4)))
    env.close()
