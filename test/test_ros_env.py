# SPDX-License-Identifier: Apache-2.0
"""Environments over topics: what they show is what those without ROS show."""
import json
import os
from pathlib import Path
import subprocess
import sys

import pytest

pytest.importorskip('gymnasium')
pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('simulation_interfaces.srv')

import gymnasium  # noqa: E402, I100
from lingbot_world_ros.engines.registry import make_world  # noqa: E402
from lingbot_world_ros.envs.rooms import RoomEnv, RoomVectorEnv  # noqa: E402
from lingbot_world_ros.envs.ros import RosEnv  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.evaluation.episodes import draw_starts, play  # noqa: E402
from lingbot_world_ros.nodes.pair import make_pair  # noqa: E402
from lingbot_world_ros.nodes.parameters import as_overrides  # noqa: E402
from lingbot_world_ros.policies.load import load_policy  # noqa: E402
from lingbot_world_ros.settings.profiles import load_profile  # noqa: E402
from needs import need_engine  # noqa: E402
import numpy as np  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402

ROVER = Path(__file__).parent / 'robots' / 'rover.yaml'
SLOW = pytest.mark.slow


def actions_of(env, num, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.0, 1.0, (num, *env.action_space.shape)).astype(np.float32)


def same(over_ros, direct):
    """Check that two observations have the same bytes."""
    assert over_ros.keys() == direct.keys()
    for name, value in direct.items():
        assert over_ros[name].dtype == value.dtype
        np.testing.assert_array_equal(over_ros[name], value, err_msg=name)


@pytest.mark.parametrize('num_steps', [20, pytest.param(500, marks=SLOW)])
@pytest.mark.parametrize('engine, task, senses', [
    ('room', 'RoomNav', {'image': True, 'scan': True}),
    ('room', 'RoomReach', {'image': False}),
    ('reference', 'RoomPush', {'image': True, 'depth': True})])
def test_every_frame_is_that_of_the_environment_without_ros(
        open_graph, domain, engine, task, senses, num_steps):
    need_engine(engine)
    open_graph(lambda: make_pair(lambda: make_world(engine)), ['-p', 'mode:=stepped'])
    direct = RoomEnv(task=task, engine=engine, **senses)
    over_ros = RosEnv(task=task, domain_id=domain, patience_s=PATIENCE_S, **senses)
    assert over_ros.observation_space == direct.observation_space
    assert over_ros.action_space == direct.action_space
    seed, ended = 7, False
    for number, action in enumerate(actions_of(direct, num_steps)):
        if number % 50 == 0 or ended:
            (seen, said), (expected, info) = (env.reset(seed=seed) for env in (over_ros, direct))
            seed = None  # the same streams go on
            same(seen, expected)
            assert said == info
        told, expected = over_ros.step(action), direct.step(action)
        same(told[0], expected[0])
        assert told[1] == pytest.approx(expected[1], abs=1e-9) and told[2:] == expected[2:]
        ended = expected[2] or expected[3]
    for env in (over_ros, direct):
        env.close()


def test_another_simulator_needs_no_topics_of_ours(open_graph, domain):
    """The reference world under the names of Isaac Sim, without world_spec and world_status."""
    need_engine('reference')
    values = {**load_profile('isaac_sim'), 'mode': 'stepped', 'seed': 5, 'scene': 'office'}
    open_graph(lambda: make_pair(lambda: make_world('reference'),
                                 parameter_overrides=as_overrides(values)),
               ['-r', 'world_spec:=hidden/spec', '-r', 'world_status:=hidden/status'])
    direct = RoomEnv(task='RoomNav', engine='reference')
    over_ros = gymnasium.make('lingbot_world_ros.envs.ros:lingbot_world_ros/RoomNavRos-v0',
                              profile='isaac_sim', scene='office', domain_id=domain,
                              patience_s=PATIENCE_S)
    assert over_ros.unwrapped.observation_space == direct.observation_space
    for _ in range(2):
        pair = [env.reset(options={'scene': 'office', 'seed': 5})[0] for env in (over_ros, direct)]
        same(*pair)
        for action in actions_of(direct, 4):
            told, expected = over_ros.step(action), direct.step(action)
            same(told[0], expected[0])
            assert told[1] == pytest.approx(expected[1], abs=1e-9) and told[2:4] == expected[2:4]
    over_ros.close()
    direct.close()


def test_a_world_in_real_time_is_taken_as_it_comes(open_graph, domain):
    graph = open_graph(lambda: make_pair(lambda: make_world('room')), [])
    with pytest.raises(SpecError, match='in vain for a simulator'):
        RosEnv(task='RoomNav', namespace='nobody', domain_id=domain, patience_s=0.5)
    env = RosEnv(task='RoomNav', domain_id=domain, patience_s=PATIENCE_S)
    seen, _ = env.reset(seed=3)
    for action in actions_of(env, 5):
        before_ns = graph.nodes[0].session.sim_ns
        seen, reward, terminated, truncated, info = env.step(action)
        assert env.observation_space.contains(seen)
        assert graph.nodes[0].session.sim_ns >= before_ns + 2 * 66_666_667
    env.close()


def test_a_world_that_does_not_fit_is_one_error(open_graph, domain):
    open_graph(lambda: make_pair(lambda: make_world('room')), ['-p', 'mode:=lockstep'])
    with pytest.raises(SpecError, match='mode:=stepped'):
        RosEnv(task='RoomNav', domain_id=domain, patience_s=PATIENCE_S)
    with pytest.raises(SpecError, match='give its robot'):
        RosEnv(task='RoomNav', robot=str(ROVER), domain_id=domain, patience_s=PATIENCE_S)


def driven(domain, *arguments):
    """Run ``lingbot-world drive``."""
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain)}
    return subprocess.run([sys.executable, '-m', 'lingbot_world_ros.cli', 'drive', *arguments],
                          env=environment, capture_output=True, text=True, timeout=PATIENCE_S)


def test_a_policy_drives_a_world_on_topics_as_in_the_environment(open_graph, domain):
    open_graph(lambda: make_pair(lambda: make_world('room')), ['-p', 'mode:=stepped'])
    done = driven(domain, 'scripted', '--task', 'RoomReach', '--scene', 'office', '--json',
                  '--patience', str(PATIENCE_S))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    starts = draw_starts(('office',), 1, 0)
    env = RoomVectorEnv(1, task='RoomReach', image=False, autoreset_mode='Disabled')
    expected, = play(env, load_policy('scripted', 'RoomReach', env.world_spec.robot), starts)
    env.close()
    episode, = told['episodes']
    assert (episode['success'], episode['steps']) == (expected.success, expected.steps)
    assert episode['start'] == ['office', starts[0].seed, False]
    assert episode['reward'] == pytest.approx(expected.reward, abs=1e-6)
    assert 0.0 < told['latency_ms']['p50'] <= told['latency_ms']['p95']


ROBOT = [word for name in ('reset_simulation', 'step_simulation', 'set_simulation_state',
                           'load_world', 'get_entities_states', 'world_spec', 'world_status')
         for word in ('-r', f'{name}:=hidden/{name}')]


def test_a_robot_that_nobody_can_reset_is_driven_from_where_it_stands(open_graph, domain):
    """Topics alone, as a robot has them; its latency is among the diagnostics."""
    from diagnostic_msgs.msg import DiagnosticArray
    graph = open_graph(lambda: make_pair(lambda: make_world('room')), ROBOT)
    told = []
    listener = graph.nodes[0].create_subscription(
        DiagnosticArray, '/diagnostics', lambda msg: told.extend(msg.status), 10)
    done = driven(domain, 'scripted', '--task', 'RoomReach', '--json', '--episodes', '2',
                  '--patience', '20')
    assert done.returncode == 0, done.stderr
    assert 'Nobody offers reset_simulation' in done.stderr
    episodes = json.loads(done.stdout)['episodes']
    assert len(episodes) == 2 and any(episode['success'] for episode in episodes)
    latency, = {status.name for status in told if 'policy' in status.name}
    values = {pair.key: pair.value for status in told if status.name == latency
              for pair in status.values}
    assert latency == 'ros_world: policy' and values['policy'] == 'scripted:1'
    assert 0.0 < float(values['latency p50 [ms]']) <= float(values['latency p95 [ms]'])
    graph.nodes[0].destroy_subscription(listener)


def test_a_task_that_needs_to_know_where_things_are_says_so_of_a_robot(open_graph, domain):
    open_graph(lambda: make_pair(lambda: make_world('room')), ROBOT)
    done = driven(domain, 'scripted', '--task', 'RoomNav', '--scene', 'office', '--patience', '4')
    assert done.returncode == 2
    assert 'get_entities_states, which tells where robot and objects are' in done.stderr
    assert 'The robot was told to stop' in done.stderr


def test_what_nobody_can_drive_is_told_in_words(domain):
    done = driven(domain, 'scripted', '--task', 'RoomReach', '--patience', '0.5')
    assert done.returncode == 2 and 'in vain for a simulator' in done.stderr
    done = driven(domain, 'scripted', '--task', 'RoomFly')
    assert done.returncode == 2 and "task 'RoomFly'" in done.stderr
    done = driven(domain, 'scripted', '--task', 'RoomNav', '--episodes', '0')
    assert done.returncode == 2 and '--episodes must be at least 1' in done.stderr
