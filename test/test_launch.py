# SPDX-License-Identifier: Apache-2.0
"""The launch file: compiles everywhere; what it starts is checked where launch is installed."""
import json
import os
import runpy
import sys
import tempfile

from lingbot_world_ros.paths import share_path
from lingbot_world_ros.settings.parameters import PARAMS
from lingbot_world_ros.settings.profiles import load_profile
import pytest
import yaml

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


def said(description, context):
    """Return what the launch tells, in one text."""
    from launch.actions import LogInfo, OpaqueFunction
    from launch.utilities import perform_substitutions
    [function] = [e for e in description.entities if isinstance(e, OpaqueFunction)]
    return '\n'.join(perform_substitutions(context, action.msg)
                     for action in function.execute(context) if isinstance(action, LogInfo))


def install(monkeypatch, folder, *packages):
    """Let only these ROS packages be installed, beside what Python imports."""
    index = folder / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    for package in packages:
        (index / package).touch()
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(folder))
    monkeypatch.setattr(tempfile, 'tempdir', str(folder))  # layouts go here


def shown(nodes, context):
    """Return what shows the world: text arguments and remappings by package, in order."""
    from launch.utilities import normalize_to_list_of_substitutions, perform_substitutions

    def text(parts):
        return perform_substitutions(context, normalize_to_list_of_substitutions(parts))
    found = []
    for node in nodes:
        package, executable = text(node.node_package), text(node.node_executable)
        if package != 'lingbot_world_ros' or executable == 'view':
            found.append((executable, text(node._Node__node_namespace or ''),
                          [text(a) for a in node._Node__arguments or ()],
                          {text(a): text(b) for a, b in node._Node__remappings or ()}, node))
    return found


def parameters_of(node, context):
    """Return what a node would be given by name: by its profile, if it has one, and after that."""
    from launch_ros.utilities import evaluate_parameters
    *profile, values = [given if isinstance(given, dict) else load_profile(str(given))
                        for given in evaluate_parameters(context, node._Node__parameters)]
    return profile, values


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_launch_file_compiles(path):
    compile(path.read_text(), str(path), 'exec')


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_launch_argument_is_described(path):
    arguments = {a.name: a for a in describe(path).get_launch_arguments()}
    assert {'profile', 'scene', 'seed', 'mode', 'initial_state', 'world', 'isolate_engine',
            'num_worlds', 'namespace', 'composed', 'log_level', 'rviz', 'foxglove', 'view',
            'foxglove_port', 'view_port', 'robot_state_publisher', *LINGBOT} <= set(arguments)
    assert all(len(argument.description) > 10 for argument in arguments.values())
    for name in set(arguments) & set(PARAMS):
        assert set(PARAMS[name].choices) <= set(arguments[name].choices or ())


@pytest.mark.parametrize('code, ends_with', [(0, 0), (2, 1)])
def test_launch_tells_its_caller_of_a_world_that_failed(monkeypatch, tmp_path, code, ends_with):
    description = describe(share_path('launch', 'sim.launch.py'))
    from launch import LaunchDescription, LaunchService
    from launch.actions import SetLaunchConfiguration
    install(monkeypatch, tmp_path, 'lingbot_world_ros')
    program = tmp_path / 'lib' / 'lingbot_world_ros' / 'sim'
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexit {code}\n')
    program.chmod(0o755)
    service = LaunchService(noninteractive=True)
    service.include_launch_description(LaunchDescription([
        SetLaunchConfiguration('prompt', '12:30'), *description.entities]))
    assert service.run() == ends_with


@pytest.mark.parametrize('arguments, count', [
    ({}, 1), ({'num_worlds': '3'}, 3), ({'num_worlds': '2', 'composed': 'false'}, 4)])
def test_each_world_has_its_processes(arguments, count):
    _, nodes = actions_of(describe(share_path('launch', 'sim.launch.py')), **arguments)
    assert len(nodes) == count


def test_lingbot_world_is_a_profile_and_text_stays_text():
    context, nodes = actions_of(describe(share_path('launch', 'lingbot_world.launch.py')),
                                **LINGBOT)
    profile, values = parameters_of(nodes[0], context)
    assert profile == [load_profile('lingbot_world_fast')] and len(nodes) == 1
    assert values.pop('lingbot.checkpoint') == '/c'
    assert values == {name: text for name, text in LINGBOT.items() if name != 'checkpoint'}


def test_lingbot_world_takes_another_profile():
    path = share_path('launch', 'lingbot_world.launch.py')
    context, nodes = actions_of(describe(path), profile='lingbot_world_1_3b', composed='false')
    profile = load_profile('lingbot_world_1_3b')
    assert [parameters_of(node, context)[0] for node in nodes] == [[profile]] * 2


@pytest.mark.parametrize('text', ['1e-05', 'y', '12:30', '007', 'nan', '[a] b', ' # x\n', "'a'",
                                  '{a}', '*a', '\U0001f642: wet'])
def test_text_is_what_was_typed(text):
    context, nodes = actions_of(describe(share_path('launch', 'sim.launch.py')), prompt=text,
                                speed='5e-1', **{'lingbot.text_encoder': text})
    assert parameters_of(nodes[0], context)[1] == {
        'prompt': text, 'speed': 0.5, 'lingbot.text_encoder': text}


def test_parameters_of_groups_are_arguments():
    path = share_path('launch', 'lingbot_world.launch.py')
    given = {'lingbot.precision': 'fp8', 'lingbot.cache_in_8_bits': 'true',
             'lingbot.step_indices': '0'}
    context, nodes = actions_of(describe(path), **given)
    values = parameters_of(nodes[0], context)[1]
    assert values == {**given, 'lingbot.cache_in_8_bits': True}


def typed(monkeypatch, file, *words):
    """Return the context of ``ros2 launch lingbot_world_ros <file> <words>``."""
    pytest.importorskip('launch_ros')  # launch alone may be the folder of this checkout
    import launch
    monkeypatch.setattr(sys, 'argv', ['ros2', 'launch', 'lingbot_world_ros', file, *words])
    return launch.LaunchContext(argv=words)


@pytest.mark.parametrize('file', ['sim.launch.py', 'lingbot_world.launch.py'])
def test_every_parameter_may_be_typed_as_an_argument(monkeypatch, file):
    context = typed(monkeypatch, file, 'image_width:=320', 'publish_scan:=false',
                    'seed:=3', 'sigterm_timeout:=20', 'lingbot.precision:=fp8')
    _, nodes = actions_of(describe(share_path('launch', file)), context, seed='3')
    values = parameters_of(nodes[0], context)[1]
    assert (values['image_width'], values['publish_scan'], values['seed']) == (320, False, 3)


def test_parameters_of_every_ros_node_may_be_typed(monkeypatch):
    context = typed(monkeypatch, 'sim.launch.py', 'use_sim_time:=true',
                    'qos_overrides./odom.publisher.depth:=5')
    _, nodes = actions_of(describe(share_path('launch', 'sim.launch.py')), context)
    from launch_ros.utilities import evaluate_parameters
    *_, file = evaluate_parameters(context, nodes[0]._Node__parameters)
    [section] = yaml.safe_load(file.read_text()).values()
    assert section['ros__parameters'] == {
        'use_sim_time': True, 'qos_overrides./odom.publisher.depth': 5}


@pytest.mark.parametrize('word, error', [
    ('sceen:=office', "Unknown launch argument 'sceen'. Did you mean 'scene'"),
    ('image_width:=wide', 'image_width')])
def test_a_mistyped_argument_is_refused(monkeypatch, word, error):
    context = typed(monkeypatch, 'sim.launch.py', word)
    with pytest.raises(Exception, match=error):
        actions_of(describe(share_path('launch', 'sim.launch.py')), context)


def test_arguments_of_a_launch_file_around_it_are_not_looked_at(monkeypatch):
    context = typed(monkeypatch, 'bringup.launch.py', 'sceen:=office', 'autostart:=false')
    _, nodes = actions_of(describe(share_path('launch', 'sim.launch.py')), context)
    assert 'autostart' not in parameters_of(nodes[0], context)[1]


def test_shared_memory_is_set_for_all_unless_the_user_chose(monkeypatch):
    from lingbot_world_ros.nodes.ros_environment import profile_variable
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
    ({'mode': 'warp'}, 'warp'), ({'seed': 'many'}, 'whole number'),
    ({'rviz': 'yes'}, 'yes'), ({'view': 'true', 'view_port': '99999'}, '99999'),
    ({'view': 'true', 'view_port': 'http'}, "'http' is not a whole number")])
def test_mistakes_end_the_launch_in_words(arguments, words):
    description = describe(share_path('launch', 'sim.launch.py'))
    with pytest.raises(Exception, match=words):
        actions_of(description, **arguments)


@pytest.mark.parametrize('ends, code', [
    ('raise SystemExit(0)', 0), ('raise SystemExit(2)', 1), ('import os; os.abort()', 1)])
def test_a_world_ends_the_launch_and_one_that_failed_is_told_by_the_exit_code(ends, code):
    pytest.importorskip('launch_ros')
    from launch import LaunchDescription, LaunchService
    from launch.actions import ExecuteProcess
    path = share_path('launch', 'sim.launch.py')
    end_launch = runpy.run_path(str(path))['end_launch']
    service = LaunchService(noninteractive=True)
    service.include_launch_description(LaunchDescription([
        ExecuteProcess(cmd=[sys.executable, '-c', 'input()']),  # ends with the launch only
        ExecuteProcess(cmd=[sys.executable, '-c', ends], on_exit=end_launch)]))
    assert service.run() == code


@pytest.mark.parametrize('argument, package', [
    ('rviz', 'rviz2'), ('foxglove', 'foxglove_bridge'),
    ('robot_state_publisher', 'robot_state_publisher')])
def test_a_package_that_is_missing_is_one_sentence(monkeypatch, tmp_path, argument, package):
    description = describe(share_path('launch', 'sim.launch.py'))
    install(monkeypatch, tmp_path)
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    words = f'{argument}:=true needs .* apt install ros-jazzy-{package.replace("_", "-")}, or'
    with pytest.raises(Exception, match=words):
        actions_of(description, **{argument: 'true'})


def test_rviz_starts_with_the_names_of_its_world(monkeypatch, tmp_path):
    description = describe(share_path('launch', 'sim.launch.py'))
    install(monkeypatch, tmp_path, 'rviz2', 'robot_state_publisher')
    from launch_ros.utilities import evaluate_parameters
    context, nodes = actions_of(description, rviz='true', profile='isaac_sim', num_worlds='2')
    for index, (rviz, links) in enumerate(zip(*[iter(shown(nodes, context))] * 2)):
        name = f'world_{index}'
        assert (rviz[0], rviz[1]) == ('rviz2', name) and rviz[2][0] == '-d'
        manager = yaml.safe_load(open(rviz[2][1]).read())['Visualization Manager']
        assert manager['Global Options']['Fixed Frame'] == f'{name}/odom'
        assert f"'Value': '/{name}/rgb'" in str(manager['Displays'])
        assert rviz[3] == {'/clock': f'/{name}/clock', '/tf': '/tf', '/tf_static': '/tf_static'}
        assert parameters_of(rviz[4], context)[1] == {'use_sim_time': True}
        assert (links[0], links[1]) == ('robot_state_publisher', name)
        assert links[3]['joint_states'] == f'/{name}/joint_states'
        [link_publisher] = evaluate_parameters(context, links[4]._Node__parameters)
        given = yaml.safe_load(link_publisher.read_text())['/**']['ros__parameters']
        assert (given['frame_prefix'], given['use_sim_time']) == (f'{name}/', True)
        assert given['robot_description'].startswith('<?xml')


@pytest.mark.parametrize('arguments, wanted', [
    ({}, []), ({'rviz': 'true'}, ['rviz2', 'robot_state_publisher']),
    ({'rviz': 'true', 'robot_state_publisher': 'false'}, ['rviz2']),
    ({'robot_state_publisher': 'true'}, ['robot_state_publisher']),
    ({'rviz': 'true', 'profile': 'moveit'}, ['rviz2']),  # the bringup publishes the links
    ({'rviz': 'true', 'profile': 'lingbot_world_fast'}, ['rviz2'])])  # no robot
def test_links_are_published_for_rviz_unless_others_do(monkeypatch, tmp_path, arguments, wanted):
    description = describe(share_path('launch', 'sim.launch.py'))
    install(monkeypatch, tmp_path, 'rviz2', 'robot_state_publisher')
    context, nodes = actions_of(description, **arguments)
    assert [entry[0] for entry in shown(nodes, context)] == wanted


@pytest.mark.parametrize('num_worlds, sim_time', [('1', True), ('2', False)])
def test_foxglove_is_for_this_machine_and_told(monkeypatch, tmp_path, num_worlds, sim_time):
    description = describe(share_path('launch', 'sim.launch.py'))
    install(monkeypatch, tmp_path, 'foxglove_bridge')
    context, nodes = actions_of(description, foxglove='true', foxglove_port='8770',
                                num_worlds=num_worlds, cmd_vel_type='twist_stamped')
    [bridge] = shown(nodes, context)
    assert bridge[0] == 'foxglove_bridge'
    assert parameters_of(bridge[4], context)[1] == {
        'address': '127.0.0.1', 'port': 8770, 'use_sim_time': sim_time}
    text = said(description, context)
    assert 'ws://127.0.0.1:8770' in text and 'cmd_vel_type:=twist' in text
    for line in text.splitlines():
        if 'layout of' in line:
            path = line.split(': ')[1].split()[0]
            assert 'configById' in json.loads(open(path).read())
    assert text.count('layout of') == int(num_worlds)


def test_every_world_has_a_page_of_its_own(monkeypatch):
    description = describe(share_path('launch', 'sim.launch.py'))
    pytest.importorskip('aiohttp')
    context, nodes = actions_of(description, view='true', view_port='8500', num_worlds='2',
                                profile='gazebo')
    pages = [(executable, namespace, parameters_of(node, context))
             for executable, namespace, _, _, node in shown(nodes, context)]
    profile = [load_profile('gazebo')]
    assert [(page[0], page[1], page[2][0], page[2][1]['view.port']) for page in pages] == [
        ('view', 'world_0', profile, 8500), ('view', 'world_1', profile, 8501)]


def test_lingbot_world_passes_on_what_shows_it(monkeypatch, tmp_path):
    description = describe(share_path('launch', 'lingbot_world.launch.py'))
    install(monkeypatch, tmp_path, 'rviz2', 'foxglove_bridge')
    context, nodes = actions_of(description, rviz='true', foxglove='true', view='false')
    assert [entry[0] for entry in shown(nodes, context)] == ['foxglove_bridge', 'rviz2']
