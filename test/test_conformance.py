# SPDX-License-Identifier: Apache-2.0
"""
Every service and the action, in every state, asked by a separate process.

The table says what the texts of simulation_interfaces 2.1 ask for; docs/simulation_interfaces.md
explains where they leave a choice. Where an older version is installed, the same is asked in its
words.
"""
from importlib.util import find_spec
import json
import os
from pathlib import Path
import re
import subprocess
import sys
import threading

import pytest

pytest.importorskip('rclpy')
srv = pytest.importorskip('simulation_interfaces.srv')
if not hasattr(srv, 'GetAvailableWorlds'):
    pytest.skip('this simulation_interfaces has no worlds to load', allow_module_level=True)

from moody_world import simulator  # noqa: E402, I100
from ros_domain import Domain  # noqa: E402
from ros_graph import Graph  # noqa: E402

CLIENT = Path(__file__).with_name('conformance_client.py')
PATIENCE_S = 90.0  # more than the client's own, which says what it waited for
STATES = ('stopped', 'playing', 'paused', 'no_world', 'error')
STATE_NUMBERS = (0, 1, 2, 4, 2)  # an engine that failed stands still
AT = '/table'  # the node that the table is asked of

UNSUPPORTED, OK, NOT_FOUND, INCORRECT_STATE, FAILED = range(5)
NAME = {'uri': 'office'}
POSE = {'position': {'x': 2.0, 'y': 1.5}}
SPHERE = {'type': 3, 'points': [{'x': 1.0, 'y': 2.0}, {'x': 0.5}]}


def inline(text):
    """Ask for a world that is given as text."""
    return {'world_resource': {'resource_string': text}}


def put(entity='robot', frame='', **pose):
    """Ask for an entity to be moved, its velocity as it is."""
    return {'entity': entity, 'set_pose': True,
            'state': {'header': {'frame_id': frame}, 'pose': {**POSE, **pose}}}


# request: (service, fields), codes when stopped, playing, paused, without a world, after a fault
TABLE = {
    'get state': (('get_simulation_state', {}), (1, 1, 1, 1, 4)),
    'stop': (('set_simulation_state', {'state': {'state': 0}}), (101, 1, 1, 103, 1)),
    'play': (('set_simulation_state', {'state': {'state': 1}}), (1, 101, 1, 103, 102)),
    'pause': (('set_simulation_state', {'state': {'state': 2}}), (1, 1, 101, 103, 102)),
    'set no world': (('set_simulation_state', {'state': {'state': 4}}),
                     (103, 103, 103, 101, 103)),
    'set loading': (('set_simulation_state', {'state': {'state': 5}}),
                    (103, 103, 103, 103, 103)),
    'set no state there is': (('set_simulation_state', {'state': {'state': 77}}),
                              (0, 0, 0, 0, 0)),
    'reset default': (('reset_simulation', {'scope': 0}), (1, 1, 1, 3, 1)),
    'reset time': (('reset_simulation', {'scope': 1}), (1, 1, 1, 3, 1)),
    'reset state': (('reset_simulation', {'scope': 2}), (1, 1, 1, 3, 1)),
    'reset time and state': (('reset_simulation', {'scope': 3}), (1, 1, 1, 3, 1)),
    'reset spawned': (('reset_simulation', {'scope': 4}), (1, 1, 1, 3, 1)),
    'reset three': (('reset_simulation', {'scope': 7}), (1, 1, 1, 3, 1)),
    'reset all': (('reset_simulation', {'scope': 255}), (1, 1, 1, 3, 1)),
    'reset unknown bit': (('reset_simulation', {'scope': 8}), (0, 0, 0, 0, 0)),
    'reset known and unknown bit': (('reset_simulation', {'scope': 66}), (0, 0, 0, 0, 0)),
    'step': (('step_simulation', {'steps': 1}), (4, 4, 1, 4, 4)),
    'steps': (('step_simulation', {'steps': 7}), (4, 4, 1, 4, 4)),
    'no step': (('step_simulation', {'steps': 0}), (4, 4, 1, 4, 4)),
    'load': (('load_world', {'world_resource': NAME}), (1, 1, 1, 1, 1)),
    'load package uri': (('load_world', {'world_resource': {
        'uri': 'package://lingbot_world_ros/config/worlds/office_doorway.yaml'}}),
        (1, 1, 1, 1, 1)),
    'load text': (('load_world', inline('scene: office')), (1, 1, 1, 1, 1)),
    'load unknown name': (('load_world', {'world_resource': {'uri': 'kitchen'}}),
                          (2, 2, 2, 2, 2)),
    'load sdf': (('load_world', inline('<sdf version="1.9"/>')), (101,) * 5),
    'load usd file': (('load_world', {'world_resource': {'uri': 'file:///a/b.usd'}}),
                      (101,) * 5),
    'load nothing': (('load_world', {}), (102,) * 5),
    'load nonsense': (('load_world', inline('scene: [office')), (103,) * 5),
    'load unknown key': (('load_world', inline('scene: office\nsede: 1')), (103,) * 5),
    'load foreign scene': (('load_world', inline('scene: kitchen')), (104,) * 5),
    'load image': (('load_world', inline('scene: office\nimages: [a.png]')), (105,) * 5),
    'load image, ignored': (('load_world', {
        **inline('scene: office\nimages: [a.png]'),
        'ignore_missing_or_unsupported_assets': True}), (1, 1, 1, 1, 1)),
    'load prompt': (('load_world', inline('scene: office\nprompt: rain')), (1, 1, 1, 1, 1)),
    'load prompt, strictly': (('load_world', {**inline('scene: office\nprompt: rain'),
                                              'fail_on_unsupported_element': True}), (106,) * 5),
    'load what fails': (('load_world', {'world_resource': {'uri': 'unloadable'}}),
                        (4, 4, 4, 4, 4)),
    'unload': (('unload_world', {}), (1, 1, 1, 101, 1)),
    'current world': (('get_current_world', {}), (1, 1, 1, 101, 1)),
    'available worlds': (('get_available_worlds', {}), (1, 1, 1, 1, 1)),
    'available in a bad source': (('get_available_worlds', {
        'additional_sources': ['file:///nowhere']}), (2, 2, 2, 2, 2)),
    'available in a bad source, go on': (('get_available_worlds', {
        'additional_sources': ['file:///nowhere'], 'continue_on_error': True}),
        (1, 1, 1, 1, 1)),
    'entities': (('get_entities', {}), (1, 1, 1, 3, 1)),
    'entities by name': (('get_entities', {'filters': {'filter': '^r'}}), (1, 1, 1, 3, 1)),
    'entities by bad name': (('get_entities', {'filters': {'filter': '('}}), (4, 4, 4, 3, 4)),
    'entities in a sphere': (('get_entities', {'filters': {'bounds': SPHERE}}),
                             (1, 1, 1, 3, 1)),
    'entities in a box': (('get_entities', {'filters': {'bounds': {**SPHERE, 'type': 1}}}),
                          (0, 0, 0, 3, 0)),
    'entities in a hull': (('get_entities', {'filters': {'bounds': {**SPHERE, 'type': 2}}}),
                           (0, 0, 0, 3, 0)),
    'states': (('get_entities_states', {}), (1, 1, 1, 3, 1)),
    'state': (('get_entity_state', {'entity': 'robot'}), (1, 1, 1, 3, 1)),
    'state of nobody': (('get_entity_state', {'entity': 'robt'}), (2, 2, 2, 3, 2)),
    'info': (('get_entity_info', {'entity': 'robot'}), (1, 1, 1, 3, 1)),
    'info of nobody': (('get_entity_info', {'entity': ''}), (2, 2, 2, 3, 2)),
    'named poses': (('get_named_poses', {}), (1, 1, 1, 3, 1)),
    'put robot': (('set_entity_state', put()), (1, 1, 1, 3, 4)),
    'put object': (('set_entity_state', put('pouf')), (1, 1, 1, 3, 4)),
    'put nobody': (('set_entity_state', put('ghost')), (2, 2, 2, 3, 2)),
    'put in odom': (('set_entity_state', put(frame='odom', position={'x': 0.5})),
                    (1, 1, 1, 3, 4)),
    'put in a strange frame': (('set_entity_state', put(frame='map')), (2, 2, 2, 3, 2)),
    'put without rotation': (('set_entity_state', put(orientation={'w': 0.0})),
                             (101, 101, 101, 3, 101)),
    'put tilted': (('set_entity_state', put(orientation={'x': 0.6, 'w': 0.8})),
                   (101, 101, 101, 3, 101)),
    'put in the air': (('set_entity_state', put(position={'x': 2.0, 'y': 1.5, 'z': 1.0})),
                       (101, 101, 101, 3, 101)),
    'put at infinity': (('set_entity_state', put(position={'x': float('inf')})),
                        (101, 101, 101, 3, 101)),
    'put in orbit': (('set_entity_state', put(position={'x': 1e9})), (101, 101, 101, 3, 101)),
    'put nothing': (('set_entity_state', {'entity': 'robot'}), (1, 1, 1, 3, 1)),
    'fly': (('set_entity_state', {'entity': 'robot', 'set_twist': True, 'state': {
        'pose': POSE, 'twist': {'linear': {'z': 1.0}}}}), (4, 4, 4, 3, 4)),
    'throw an object': (('set_entity_state', {'entity': 'pouf', 'set_twist': True, 'state': {
        'pose': POSE, 'twist': {'linear': {'x': 1.0}}}}), (4, 4, 4, 3, 4)),
}
UNSAID = set()  # what cannot be asked with what is installed
if not hasattr(srv.SetEntityState.Request, 'set_pose'):  # before 2.1 it is always set
    UNSAID.add('put nothing')
if find_spec('re2') is None:
    UNSAID.add('entities by name')
# Where a request leaves the simulator; what is not here, or was not granted, changes no state.
LEADS_TO = {'stop': 0, 'play': 1, 'pause': 2, 'load': 0, 'load package uri': 0, 'load text': 0,
            'load image, ignored': 0, 'load prompt': 0, 'unload': 4}


class RemoteClient:
    """The client process; calls its methods as if they were here."""

    def __init__(self, domain):
        environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain)}
        self.process = subprocess.Popen([sys.executable, str(CLIENT)], env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __getattr__(self, method):
        def ask(*arguments, **keywords):
            watchdog = threading.Timer(PATIENCE_S, self.process.kill)
            watchdog.start()
            try:
                self.process.stdin.write(f'{json.dumps([method, arguments, keywords])}\n')
                self.process.stdin.flush()
                answer = json.loads(self.process.stdout.readline() or '{"failed": "it died"}')
            finally:
                watchdog.cancel()
            assert not (isinstance(answer, dict) and 'failed' in answer), answer['failed']
            return answer
        return ask

    def close(self):
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()


@pytest.fixture(scope='module')
def domain():
    """Run the simulators: one for the table and for O3DE and MuJoCo users, one each for others."""
    with Domain() as number:
        def make_nodes():
            return [simulator(AT, service_prefix=AT, service_timeout_s=3.0),
                    simulator('', state_after_reset='playing'),
                    simulator('/gazebo', service_prefix='/gzserver')]
        with Graph(make_nodes, number):
            yield number


@pytest.fixture(scope='module')
def client(domain):
    """Start the client process."""
    client = RemoteClient(domain)
    yield client
    client.close()


@pytest.mark.parametrize('state', STATES)
def test_codes_are_those_of_the_standard(client, state):
    """Each request is answered with the code of the table and leads where it says."""
    column, wrong = STATES.index(state), []
    for title, ((service, fields), codes) in TABLE.items():
        if title in UNSAID:
            continue
        client.go(state, AT)
        answer = client.call(service, AT, **fields)['result']
        granted = answer['result'] == OK
        now = client.state(AT)
        then = LEADS_TO.get(title, STATE_NUMBERS[column]) if granted else STATE_NUMBERS[column]
        if answer['result'] != codes[column] or now != then:
            wrong.append(f'{title}: {answer}, then state {now}; wanted {codes[column]}, {then}')
        if not granted and not answer['error_message']:
            wrong.append(f'{title}: refused without a word')
    assert wrong == []


@pytest.mark.parametrize('state, status, code', [
    ('stopped', 'aborted', FAILED), ('playing', 'aborted', FAILED),
    ('paused', 'succeeded', OK), ('no_world', 'aborted', FAILED), ('error', 'aborted', FAILED)])
def test_action_steps_only_when_paused(client, state, status, code):
    """A goal is always accepted; its result says whether it could be done."""
    client.go(state, AT)
    outcome = client.simulate(3, AT)
    assert (outcome['status'], outcome['result']['result']) == (status, code)
    counts = [(f['completed_steps'], f['remaining_steps']) for f in outcome['feedback']]
    assert counts == ([(1, 2), (2, 1), (3, 0)] if code == OK else [])


def test_action_cancel_tells_what_remains(client):
    """A goal that is canceled ends canceled, says how far it came, and the world is paused."""
    client.go('paused', AT)
    outcome = client.simulate(2 ** 64 - 1, AT, cancel_after=2)
    assert outcome['status'] == 'canceled'
    assert outcome['result']['result'] == FAILED
    assert 'remain' in outcome['result']['error_message']
    assert client.state(AT) == 2


def test_second_goal_is_aborted_while_one_runs(client):
    """Two clients cannot step one world at once."""
    client.go('paused', AT)
    outcome = client.two_goals(AT)
    assert outcome['second']['status'] == 'aborted'
    assert outcome['second']['result']['result'] == FAILED
    assert outcome['first']['result'] == FAILED  # canceled at the end


@pytest.mark.parametrize('request_, code, state', [
    (('step_simulation', {'steps': 1}), FAILED, 2),
    (('get_simulation_state', {}), OK, 2),
    (('get_entities', {}), OK, 2),
    (('set_simulation_state', {'state': {'state': 2}}), OK, 2),
    (('set_simulation_state', {'state': {'state': 1}}), OK, 1),
    (('set_simulation_state', {'state': {'state': 0}}), OK, 0),
    (('reset_simulation', {'scope': 0}), OK, 2),
    (('load_world', {'world_resource': NAME}), OK, 0),
    (('unload_world', {}), OK, 4),
    (('set_entity_state', put()), OK, 2),
])
def test_requests_while_steps_are_made(client, request_, code, state):
    """Steps in progress hold up nobody; a newer request that changes something ends them."""
    client.go('paused', AT)
    service, fields = request_
    answers = client.during_steps(service, AT, **fields)
    assert answers['other']['result']['result'] == code, answers
    assert answers['steps']['result']['result'] == FAILED
    assert 'remain' in answers['steps']['result']['error_message']
    assert client.state(AT) == state


def test_endless_steps_end_within_the_timeout(client):
    """2^64-1 steps are answered when service_timeout_s is over, and tell how many were made."""
    client.go('stepping', AT)
    answer = client.call('step_simulation', AT, steps=2 ** 64 - 1)['result']
    assert answer['result'] == FAILED
    assert f'of {2 ** 64 - 1} steps done' in answer['error_message']
    assert client.state(AT) == 2


def test_clients_that_vanish_hurt_nobody(domain, client):
    """A peer that leaves in the middle of steps, by service or action, leaves a live simulator."""
    for farewell in ('vanish', 'vanish_from_action'):
        client.go('paused', AT)
        peer = RemoteClient(domain)
        getattr(peer, farewell)(AT)
        peer.process.wait(PATIENCE_S)
        peer.close()
        assert client.set_state(2, AT) in (OK, 101)
        assert client.code('step_simulation', AT, steps=1) == OK


def test_documented_table_is_this_one():
    """Readers of the docs and this test know the same codes."""
    path = Path(__file__).resolve().parent.parent / 'docs' / 'simulation_interfaces.md'
    if not path.is_file():
        pytest.skip('docs/ is not installed with the package')
    text = path.read_text()
    rows = re.findall(r'^\| (.+) \| `(\w+)` \| ([\d |]+) \|$', text, re.M)
    assert {title: (service, tuple(map(int, codes.split(' | '))))
            for title, service, codes in rows} == \
        {title: (service, codes) for title, ((service, _), codes) in TABLE.items()}


def test_habit_of_isaac_users(client):
    """Names at the root, exact frames, playing after a reset."""
    pytest.importorskip('re2')  # they look for entities by name
    client.isaac()


def test_habit_of_gazebo_users(client):
    """Names below /gzserver, full resets that keep the pause."""
    client.gazebo()


def test_habit_of_o3de_users(client):
    """Stopped at the start, every scope for itself, steps only when paused."""
    client.go('stopped', AT)
    client.o3de(AT)


def test_habit_of_mujoco_users(client):
    """Pause, set a state, step and wait, go on."""
    client.go('paused', AT)
    client.mujoco(AT)
