# SPDX-License-Identifier: Apache-2.0
"""The launch file: compiles everywhere; what it starts is checked where launch is installed."""
import os

from lingbot_world_ros.nodes.params import PARAMS
from lingbot_world_ros.paths import share_path
import pytest

LINGBOT = {'checkpoint': '/c', 'start_image': 'a.png', 'prompt': 'A street: {quiet}',
           'camera_path': 'keys:w-8', 'camera_link': 'palm_link', 'robot_description': '<robot/>'}
FILES = sorted(share_path('launch').glob('*.launch.py'))


@pytest.fixture(autouse=True)
def environment():
    """Launch sets variables of this process; the next test shall not have them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def describe(path):
    pytest.importorskip('launch_ros', reason='launch is only in ROS distributions')
    from launch.launch_description_sources import get_launch_description_from_python_launch_file
    return get_launch_description_from_python_launch_file(str(path))


def actions_of(description, context=None, **arguments):
    """Expand a launch description the way ``ros2 launch`` does, without starting anything."""
    from launch import LaunchContext, LaunchDescription
    from launch_ros.actions import Node
    context, nodes = context or LaunchContext(), []
    context.launch_configurations.update(arguments)
    for entity in description.entities:
        expanded = entity.visit(context) or []
        nodes += [action for action in expanded if isinstance(action, Node)]
        if any(isinstance(action, LaunchDescription) for action in expanded):
            nodes += actions_of(expanded[0], context)[1]
    return context, nodes


def parameters_of(node, context):
    """Return what a node would be given, by name, and the profiles before that."""
    from launch_ros.utilities import evaluate_parameters
    values, files = {}, []
    for given in evaluate_parameters(context, node._Node__parameters):
        if isinstance(given, dict):
            values.update(given)
        else:
            files.append(given.stem)
    return files, values


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_launch_file_compiles(path):
    compile(path.read_text(), str(path), 'exec')


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_launch_argument_is_described(path):
    arguments = {a.name: a for a in describe(path).get_launch_arguments()}
    assert {'profile', 'scene', 'seed', 'mode', 'initial_state', 'world', 'isolate_engine',
            'num_worlds', 'namespace', 'composed', 'log_level', *LINGBOT} <= set(arguments)
    assert all(len(argument.description) > 10 for argument in arguments.values())
    for name in set(arguments) & set(PARAMS):
        assert set(PARAMS[name].choices) <= set(arguments[name].choices or ())


@pytest.mark.parametrize('arguments, count', [
    ({}, 1), ({'num_worlds': '3'}, 3), ({'num_worlds': '2', 'composed': 'false'}, 4)])
def test_each_world_has_its_processes(arguments, count):
    _, nodes = actions_of(describe(share_path('launch', 'sim.launch.py')), **arguments)
    assert len(nodes) == count


def test_lingbot_world_is_a_profile_and_text_stays_text():
    context, nodes = actions_of(describe(share_path('launch', 'lingbot_world.launch.py')),
                                **LINGBOT)
    files, values = parameters_of(nodes[0], context)
    assert files == ['lingbot_world_fast'] and len(nodes) == 1
    assert values.pop('lingbot.checkpoint') == '/c'
    assert values == {name: text for name, text in LINGBOT.items() if name != 'checkpoint'}


def test_lingbot_world_takes_another_profile():
    path = share_path('launch', 'lingbot_world.launch.py')
    context, nodes = actions_of(describe(path), profile='lingbot_world_1_3b', composed='false')
    assert [parameters_of(node, context)[0] for node in nodes] == [['lingbot_world_1_3b']] * 2


def test_parameters_of_groups_are_arguments():
    path = share_path('launch', 'lingbot_world.launch.py')
    given = {'lingbot.precision': 'fp8', 'lingbot.cache_in_8_bits': 'true',
             'lingbot.step_indices': '0'}
    context, nodes = actions_of(describe(path), **given)
    values = parameters_of(nodes[0], context)[1]
    assert values == {**given, 'lingbot.cache_in_8_bits': True}


def test_shared_memory_is_set_for_all_unless_the_user_chose(monkeypatch):
    from lingbot_world_ros.nodes.run import profile_variable
    path = share_path('launch', 'sim.launch.py')
    monkeypatch.delenv(profile_variable(), raising=False)
    context, _ = actions_of(describe(path))
    assert os.environ[profile_variable()] == str(share_path('config', 'fastdds.xml'))
    monkeypatch.setenv(profile_variable(), '/mine.xml')
    actions_of(describe(path))
    assert os.environ[profile_variable()] == '/mine.xml'


@pytest.mark.parametrize('arguments, words', [
    ({'profile': 'isac_sim'}, "Did you mean 'isaac_sim'"), ({'num_worlds': '0'}, '0 worlds'),
    ({'num_worlds': 'two'}, "'two' is not a whole number"),
    ({'lingbot.precison': 'fp8'}, "Did you mean 'lingbot.precision'"),
    ({'mode': 'warp'}, 'warp'), ({'seed': 'many'}, 'whole number')])
def test_mistakes_end_the_launch_in_words(arguments, words):
    description = describe(share_path('launch', 'sim.launch.py'))
    with pytest.raises(Exception, match=words):
        actions_of(description, **arguments)
