# SPDX-License-Identifier: Apache-2.0
"""The launch file: compiles everywhere; what it starts is checked where launch is installed."""
import os

from lingbot_world_ros.nodes.params import PARAMS
from lingbot_world_ros.paths import share_path
import pytest

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


def actions_of(description, **arguments):
    """Expand a launch description the way ``ros2 launch`` does, without starting anything."""
    from launch import LaunchContext
    from launch_ros.actions import Node
    context, nodes = LaunchContext(), []
    context.launch_configurations.update(arguments)
    for entity in description.entities:
        expanded = entity.visit(context) or []
        nodes += [action for action in expanded if isinstance(action, Node)]
    return context, nodes


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_launch_file_compiles(path):
    compile(path.read_text(), str(path), 'exec')


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_launch_argument_is_described(path):
    arguments = {a.name: a for a in describe(path).get_launch_arguments()}
    assert {'profile', 'scene', 'seed', 'mode', 'initial_state', 'world', 'isolate_engine',
            'num_worlds', 'namespace', 'composed', 'log_level'} <= set(arguments)
    assert all(len(argument.description) > 10 for argument in arguments.values())
    for name in set(arguments) & set(PARAMS):
        assert set(PARAMS[name].choices) <= set(arguments[name].choices or ())


@pytest.mark.parametrize('arguments, count', [
    ({}, 1), ({'num_worlds': '3'}, 3), ({'num_worlds': '2', 'composed': 'false'}, 4)])
def test_each_world_has_its_processes(arguments, count):
    _, nodes = actions_of(describe(share_path('launch', 'sim.launch.py')), **arguments)
    assert len(nodes) == count


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
    ({'mode': 'warp'}, 'warp'), ({'seed': 'many'}, 'whole number')])
def test_mistakes_end_the_launch_in_words(arguments, words):
    description = describe(share_path('launch', 'sim.launch.py'))
    with pytest.raises(Exception, match=words):
        actions_of(description, **arguments)
