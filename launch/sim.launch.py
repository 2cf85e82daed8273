# SPDX-License-Identifier: Apache-2.0
"""
Start imagined worlds in the place of a simulator.

``ros2 launch lingbot_world_ros sim.launch.py profile:=isaac_sim scene:=office``; with
``num_worlds:=4`` four of them, as ``world_0`` to ``world_3``. ``--show-args`` lists all arguments.
An argument that is left empty has the value of the profile. All other parameters are arguments as
well, ``lingbot.precision:=fp8``; where another launch file includes this one, those with a dot in
their name. ``rviz:=true``, ``foxglove:=true`` and
``view:=true`` start what shows the world; RViz and foxglove_bridge are packages of their own.
"""
import atexit
from importlib.util import find_spec
import os
from pathlib import Path
import sys
import tempfile

from ament_index_python.packages import get_package_prefix, PackageNotFoundError
from launch import LaunchDescription
from launch.actions import (DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable,
                            Shutdown)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from lingbot_world_ros.engines.registry import KEYS
from lingbot_world_ros.errors import quoted, SpecError, unknown_name
from lingbot_world_ros.nodes.ros_environment import profile_variable
from lingbot_world_ros.paths import share_path
from lingbot_world_ros.plain_yaml import read_whole
from lingbot_world_ros.settings.description import description_of, link_publisher_parameters
from lingbot_world_ros.settings.layouts import profile_values, topic_names, write_layout
from lingbot_world_ros.settings.parameters import all_parameters, PARAMS
from lingbot_world_ros.settings.profiles import (is_ros_parameter, params_text,
                                                 read_parameter, read_sections)
from lingbot_world_ros.settings.several_worlds import world_parameters

OVERRIDES = ('engine', 'robot', 'isolate_engine', 'world', 'scene', 'start_image', 'prompt',
             *KEYS, 'camera_path', 'camera_link', 'robot_description', 'seed',
             'mode', 'initial_state', 'speed', 'cmd_vel_type', 'frame_prefix', 'publish_clock')
FILES = ('sim.launch.py', 'lingbot_world.launch.py')
OF_LAUNCH = ('launch-prefix', 'launch-prefix-filter', 'sigterm_timeout', 'sigkill_timeout',
             'emulate_tty')  # arguments that any launch file has


def generate_launch_description():
    """Declare the arguments; the nodes are made once their values are known."""
    arguments = [
        DeclareLaunchArgument('profile', default_value='default', description=(
            'Parameter file: a name from config/ or the path of a YAML file.')),
        DeclareLaunchArgument('namespace', default_value='', description=(
            'Prefix of all relative topic names.')),
        DeclareLaunchArgument('num_worlds', default_value='1', description=(
            'Worlds to start; with two or more, each has its own namespace, clock, frames and '
            'seed: world_0, world_1 ..., or <namespace>_0 ....')),
        DeclareLaunchArgument('composed', default_value='true', choices=['true', 'false'],
                              description='Run both nodes of a world in one process.'),
        DeclareLaunchArgument('log_level', default_value='info',
                              choices=['debug', 'info', 'warn', 'error'],
                              description='Lowest severity that is logged.'),
        *_show_arguments()]
    for name in OVERRIDES:
        arguments.append(_override_argument(PARAMS[name]))
    names = [argument.name for argument in arguments]
    return LaunchDescription([*arguments, *_environment(),
                              OpaqueFunction(function=_nodes, args=[names])])


def _show_arguments():
    def declare(name, default, description, choices=('true', 'false')):
        extra = {'choices': list(choices)} if choices else {}
        return DeclareLaunchArgument(name, default_value=default, description=description,
                                     **extra)
    return [
        declare('rviz', 'false', 'Start RViz 2 with a layout for each world.'),
        declare('foxglove', 'false', 'Start foxglove_bridge for this machine (127.0.0.1) and '
                'write a layout for each world.'),
        declare('foxglove_port', '8765', 'TCP port of foxglove_bridge.', ()),
        declare('view', 'false', "Serve the operator's page of each world."),
        declare('view_port', '', "TCP port of the first world's page, the others follow; "
                'empty: as in the profile.', ()),
        declare('robot_state_publisher', '', 'Publish the links of the arm in tf; empty: with '
                'RViz, if the world has a URDF and topic robot_description is not renamed for '
                'the publisher of a bringup.', ('', 'true', 'false'))]


def _override_argument(param):
    choices = param.choices or (('true', 'false') if param.kind is bool else ())
    described = f'{param.description} Empty: as in the profile.'
    extra = {'choices': ['', *choices]} if choices else {}
    return DeclareLaunchArgument(_argument(param.name), default_value='', description=described,
                                 **extra)


def _argument(name):
    """Return what a parameter is called as a launch argument."""
    return name.rpartition('.')[2]


def _dotted(given):
    """Read parameters of groups, ``lingbot.precision:=fp8``; launch drops them without a word."""
    groups = {name.partition('.')[0] for name in all_parameters() if '.' in name}
    values = {name: text for name, text in given.items()
              if '.' in name and name.partition('.')[0] in groups}
    return {name: _read(name, text) for name, text in values.items()}


def _typed(words, declared):
    """
    Read what was typed and not declared: parameters; launch drops all else without a word.

    A launch file that includes this one has arguments of its own: then nothing is looked at.
    """
    if not any(word.endswith(FILES) for word in sys.argv):
        return {}
    given = dict(word.split(':=', 1) for word in words if ':=' in word)
    known, values = all_parameters(), {}
    for name in set(given) - {*declared, *OF_LAUNCH}:
        if name not in known and not is_ros_parameter(name):
            raise unknown_name('launch argument', name, {*declared, *known})
        values[name] = _read(name, given[name])
    return values


def _read(name, text):
    """Read a launch argument; text is taken as it is."""
    return read_parameter(name, text, 'launch argument', 'launch argument')


def _file(*sections):
    """
    Write a parameter file for nodes of this launch.

    Given as a dictionary, launch would write it with fewer quotes than ROS needs to tell text.
    """
    handle, path = tempfile.mkstemp('.yaml', 'lingbot_world_params_')
    atexit.register(Path(path).unlink, missing_ok=True)
    with open(handle, 'w', encoding='utf-8') as file:
        file.write(params_text(sections))
    return path


def _environment():
    """Shared memory that fits images, for all nodes of this launch, unless the user chose."""
    if profile_variable() in os.environ:
        return []
    return [SetEnvironmentVariable(profile_variable(), str(share_path('config', 'fastdds.xml')))]


def _nodes(context, declared):
    def value(name):
        return LaunchConfiguration(name).perform(context)

    profile = value('profile')
    values = profile_values(profile)  # a mistake in it stops here, with the line to change
    profile_file = _file(*read_sections(profile))
    given = {name: value(_argument(name)) for name in OVERRIDES}
    overrides = {name: _read(name, text) for name, text in given.items() if text != ''}
    overrides.update(_dotted(context.launch_configurations))
    overrides.update(_typed(context.argv, declared))
    executables = ['sim'] if value('composed') == 'true' else ['world_model', 'action_encoder']
    num_worlds, nodes, shown = _whole('num_worlds', value), [], []
    for index in range(max(1, num_worlds)):
        namespace, apart = world_parameters(index, num_worlds, {**values, **overrides},
                                            value('namespace'))
        world = {**overrides, **apart}
        nodes += [Node(
            package='lingbot_world_ros', executable=name, namespace=namespace, output='screen',
            parameters=[profile_file, _file(('/**', world))],
            arguments=['--ros-args', '--log-level', value('log_level')], on_exit=end_launch)
            for name in executables]
        shown += _world_shown(value, index, namespace, {**values, **world}, (profile_file, world))
    return nodes + _bridge(value, num_worlds, {**values, **overrides}) + shown


def end_launch(event, context):
    """
    End everything with a world; ``ros2 launch`` ends with exit code 1 where a world has failed.

    :param event: launch's ProcessExited
    :param context: LaunchContext
    :return: the action that ends the launch
    :raises RuntimeError: the world failed by itself; launch has no other way to know
    """
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(f'{event.process_name} has failed (exit code {event.returncode})')
    return Shutdown()


def _whole(name, value):
    number = read_whole(value(name))
    if number is None:
        raise SpecError(f'{name}={quoted(value(name))} is not a whole number.')
    return number


def _world_shown(value, index, namespace, values, given):
    """Return what shows one world; each of several has windows and a page of its own."""
    topics = topic_names(values, namespace)
    sim_time = [{'use_sim_time': values['publish_clock']}]
    remappings = [('/clock', topics['clock']), ('/tf', topics['tf']),
                  ('/tf_static', topics['tf_static'])]
    shown = []
    if value('rviz') == 'true':
        _need('rviz2', 'rviz')
        shown.append(Node(
            package='rviz2', executable='rviz2', namespace=namespace, output='screen',
            arguments=['-d', str(write_layout('rviz', values, namespace))],
            parameters=sim_time, remappings=remappings))
    if _wants_links(value, values):
        _need('robot_state_publisher', 'robot_state_publisher')
        shown.append(Node(
            package='robot_state_publisher', executable='robot_state_publisher',
            namespace=namespace, output='screen',
            parameters=[_file(('/**', link_publisher_parameters(values)))],
            # The world publishes the description already.
            remappings=[*remappings, ('joint_states', topics['joint_states']),
                        ('robot_description', '~/robot_description')]))
    if value('foxglove') == 'true':
        path = write_layout('foxglove', values, namespace)
        shown.append(LogInfo(msg=f'Foxglove layout of {namespace or "the world"}: {path} '
                             '(Layouts, "Import from file...")'))
    if value('view') == 'true':
        shown.append(_page(value, index, namespace, *given))
    return shown


def _wants_links(value, values):
    """Return whether robot_state_publisher is started; a bringup may have its own."""
    asked = value('robot_state_publisher')
    if asked:
        return asked == 'true'
    is_ours = values['topics.robot_description'].rpartition('/')[2] == 'robot_description'
    return value('rviz') == 'true' and is_ours and bool(description_of(values))


def _page(value, index, namespace, profile_file, given):
    """Return the operator's page of one world."""
    if value('view_port'):
        port = _whole('view_port', value)
        port = PARAMS['view.port'].check(port + index if port else 0, 'view_port')
        given = {**given, 'view.port': port}
    if find_spec('aiohttp') is None:
        raise SpecError('view:=true needs the Python package aiohttp: sudo apt install '
                        'python3-aiohttp (or pip install aiohttp), or view:=false.')
    return Node(package='lingbot_world_ros', executable='view', name='view', namespace=namespace,
                output='screen', parameters=[profile_file, _file(('/**', given))],
                arguments=['--ros-args', '--log-level', value('log_level')])


def _bridge(value, num_worlds, values):
    """Return foxglove_bridge, one for all worlds, and how to reach it."""
    if value('foxglove') != 'true':
        return []
    _need('foxglove_bridge', 'foxglove')
    port = _whole('foxglove_port', value)
    if not 0 < port < 65536:
        raise SpecError(f'foxglove_port={port} is not 1 to 65535.')
    is_alone = num_worlds == 1  # else there is one clock per world, and none for all
    clock = topic_names(values, value('namespace'))['clock'] if is_alone else '/clock'
    said = [LogInfo(msg=f'Foxglove: "Open connection", Foxglove WebSocket, ws://127.0.0.1:{port}')]
    if _takes_stamped(values):
        said.append(LogInfo(msg='The Teleop panel of Foxglove sends Twist, this world takes '
                            'TwistStamped; add cmd_vel_type:=twist to drive from there.'))
    return [Node(package='foxglove_bridge', executable='foxglove_bridge', output='screen',
                 parameters=[{'port': port, 'address': '127.0.0.1',
                              'use_sim_time': is_alone and values['publish_clock']}],
                 remappings=[('/clock', clock)]), *said]


def _takes_stamped(values):
    from lingbot_world_ros.nodes.action_encoder import twist_type
    twist = twist_type(values['cmd_vel_type'], os.environ.get('ROS_DISTRO', ''))
    return twist.__name__ == 'TwistStamped'


def _need(package, argument):
    """Stop before anything starts if an optional package is not there."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError as error:
        distro = os.environ.get('ROS_DISTRO') or '$ROS_DISTRO'
        raise SpecError(
            f'{argument}:=true needs the ROS package {package}, which is not installed: sudo apt '
            f'install ros-{distro}-{package.replace("_", "-")}, or {argument}:=false.') from error
