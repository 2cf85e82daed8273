# SPDX-License-Identifier: Apache-2.0
"""
Start imagined worlds in the place of a simulator.

``ros2 launch lingbot_world_ros sim.launch.py profile:=isaac_sim scene:=office``; with
``num_worlds:=4`` four of them, as ``world_0`` to ``world_3``. ``--show-args`` lists all arguments.
An argument that is left empty has the value of the profile. Parameters with a dot in their name,
``lingbot.precision:=fp8``, are arguments as well.
"""
import os

from launch import LaunchDescription
from launch.actions import (DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable,
                            Shutdown)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.nodes.params import load_profile, PARAMS, profile_path
from lingbot_world_ros.nodes.run import profile_variable
from lingbot_world_ros.nodes.worlds_params import world_parameters
from lingbot_world_ros.paths import share_path
import yaml

OVERRIDES = ('engine', 'isolate_engine', 'world', 'scene', 'start_image', 'prompt',
             'lingbot.checkpoint', 'camera_path', 'camera_link', 'robot_description', 'seed',
             'mode', 'initial_state', 'speed', 'cmd_vel_type', 'frame_prefix', 'publish_clock')


def generate_launch_description():
    """Declare the arguments; the nodes are made once their values are known."""
    arguments = [
        DeclareLaunchArgument('profile', default_value='default', description=(
            'Parameter file: a name from config/ or the path of a YAML file.')),
        DeclareLaunchArgument('namespace', default_value='', description=(
            'Put before all relative topic names.')),
        DeclareLaunchArgument('num_worlds', default_value='1', description=(
            'Worlds to start; from two on each has a namespace, clock, frames and seed of its '
            'own: world_0, world_1 ..., or <namespace>_0 ....')),
        DeclareLaunchArgument('composed', default_value='true', choices=['true', 'false'],
                              description='Run both nodes of a world in one process.'),
        DeclareLaunchArgument('log_level', default_value='info',
                              choices=['debug', 'info', 'warn', 'error'],
                              description='Least severity that is logged.')]
    for name in OVERRIDES:
        arguments.append(_override_argument(PARAMS[name]))
    return LaunchDescription([*arguments, *_environment(), OpaqueFunction(function=_nodes)])


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
    groups = {name.partition('.')[0] for name in PARAMS if '.' in name}
    values = {name: text for name, text in given.items()
              if '.' in name and name.partition('.')[0] in groups}
    for name in values:
        if name not in PARAMS:
            raise unknown_name('launch argument', name, PARAMS)
    return {name: PARAMS[name].check(text if PARAMS[name].kind is str else yaml.safe_load(text),
                                     'launch argument') for name, text in values.items()}


def _as_given(values):
    """Keep text text: launch would read a prompt or a robot description as YAML."""
    return {name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
            for name, value in values.items()}


def _environment():
    """Shared memory that fits images, for all nodes of this launch, unless the user chose."""
    if profile_variable() in os.environ:
        return []
    return [SetEnvironmentVariable(profile_variable(), str(share_path('config', 'fastdds.xml')))]


def _nodes(context):
    def value(name):
        return LaunchConfiguration(name).perform(context)

    profile = value('profile')
    values = load_profile(profile)  # a mistake in it stops here, with the line to change
    given = {name: value(_argument(name)) for name in OVERRIDES}
    overrides = {name: PARAMS[name].check(yaml.safe_load(text), 'launch argument')
                 if PARAMS[name].kind is not str else text
                 for name, text in given.items() if text != ''}
    overrides.update(_dotted(context.launch_configurations))
    executables = ['sim'] if value('composed') == 'true' else ['world_model', 'action_encoder']
    if not value('num_worlds').isdigit():
        raise SpecError(f'num_worlds={value("num_worlds")!r} is not a whole number.')
    num_worlds, nodes = int(value('num_worlds')), []
    for index in range(max(1, num_worlds)):
        namespace, apart = world_parameters(index, num_worlds, {**values, **overrides},
                                            value('namespace'))
        nodes += [Node(
            package='lingbot_world_ros', executable=name, namespace=namespace, output='screen',
            parameters=[str(profile_path(profile)), _as_given({**overrides, **apart})],
            arguments=['--ros-args', '--log-level', value('log_level')], on_exit=Shutdown())
            for name in executables]
    return nodes
