# SPDX-License-Identifier: Apache-2.0
"""
Parameters of the nodes: name, type, range and meaning here, defaults in ``config/default.yaml``.

A profile is a ROS parameter file; it is checked here before any node starts, so that a typing
mistake is one line of text and not a parameter that silently does nothing.
"""
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Optional, Tuple

from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.paths import share_path

KINDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text'}
DEFAULT_PROFILE = 'default'
ROS_PARAMETERS = ('use_sim_time', 'start_type_description_service')  # every ROS node has these
ROS_PREFIXES = ('qos_overrides.',)


@dataclass(frozen=True)
class Param:
    """One parameter; ``low`` and ``high`` are inclusive, ``choices`` is empty for free text."""

    name: str
    kind: type
    description: str
    low: Optional[float] = None
    high: Optional[float] = None
    choices: Tuple[str, ...] = ()

    def check(self, value, source: str):
        """
        Check a value and bring it to the declared type.

        :param value: as read from YAML or the command line
        :param source: file or command line, for the message
        :return: the value, a whole number turned into a float where one is wanted
        :raises SpecError: wrong type, outside the range or not a choice
        """
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is not self.kind:
            raise SpecError(f'{source}: {self.name}={value!r} is not {KINDS[self.kind]}.')
        if self.low is not None and not self.low <= value <= self.high:
            raise SpecError(f'{source}: {self.name}={value!r} is outside {self.low} to '
                            f'{self.high}.')
        if self.choices and value not in self.choices:
            raise SpecError(f'{source}: {self.name}={value!r} is not one of '
                            f'{", ".join(self.choices)}.')
        return value


WORLD_MODEL = (
    Param('engine', str, 'World model to run: room (learned, CPU) or reference (MuJoCo).'),
    Param('scene', str, 'Scene to start in; world_spec lists those of the engine.'),
    Param('seed', int, 'Start state of the scene.', 0, 2 ** 31 - 1),
    Param('speed', float, 'Sim seconds per wall second; 0 is as fast as possible.', 0.0, 100.0),
    Param('start_paused', bool, 'Show the first frame and wait for ~/pause {data: false}.'),
    Param('action_timeout_s', float,
          'Wall seconds without action_embedding after which the robot stands still.',
          0.01, 3600.0),
    Param('frame_prefix', str, 'Put before every frame name.'),
    Param('publish_clock', bool, 'Publish sim time on /clock; one world per domain may.'),
    Param('publish_tf', bool, 'Publish /tf and /tf_static.'),
    Param('jpeg_quality', int, 'Quality of camera/image_raw/compressed.', 1, 100),
    Param('image_reliability', str, 'Reliability of images and camera_info.',
          choices=('reliable', 'best_effort')),
    Param('image_queue_depth', int, 'Images kept for a slow subscriber.', 1, 100),
)

ACTION_ENCODER = (
    Param('cmd_vel_type', str, 'Message type of cmd_vel: auto goes by ROS_DISTRO.',
          choices=('auto', 'twist', 'twist_stamped')),
    Param('arm_commands_interface', str, 'What the values on arm_controller/commands are.',
          choices=('position', 'velocity')),
    Param('cmd_timeout_s', float,
          'Wall seconds after which a velocity command that is not repeated becomes zero.',
          0.01, 3600.0),
    Param('encode_rate_hz', float, 'Least rate of action_embedding, wall time.', 1.0, 1000.0),
)

PARAMS = {p.name: p for p in WORLD_MODEL + ACTION_ENCODER}
NODES = ('world_model', 'action_encoder')


def profile_path(profile: str) -> Path:
    """
    Find a profile.

    :param profile: name of a file in ``config/`` without ``.yaml``, or a path to a YAML file
    :return: absolute path of the file
    :raises SpecError: no such profile; lists those that ship
    """
    if profile.endswith(('.yaml', '.yml')) or '/' in profile:
        path = Path(profile).expanduser().resolve()
        if not path.is_file():
            raise SpecError(f'Profile {path} does not exist; give the path of a YAML file or the '
                            f'name of one that ships: {", ".join(_shipped())}.')
        return path
    if profile not in _shipped():
        raise unknown_name('profile', profile, _shipped())
    return share_path('config', f'{profile}.yaml')


def _shipped():
    return sorted(path.stem for path in share_path('config').glob('*.yaml'))


def load_profile(profile: str) -> dict:
    """
    Read and check a profile.

    :param profile: name or path, as ``profile_path`` takes it
    :return: values by parameter name; only those the profile sets
    :raises SpecError: not YAML, not a ROS parameter file, unknown key, wrong type or range
    """
    path = profile_path(profile)
    values = {}
    for section in _sections(path):
        for name, value in section.items():
            if name not in PARAMS and not _is_ros_parameter(name):
                raise SpecError(f'{path}: {unknown_name("parameter", name, PARAMS)}')
            if name in PARAMS:
                values[name] = PARAMS[name].check(value, str(path))
    return values


def _sections(path):
    """Yield the ``ros__parameters`` of every node pattern in a parameter file."""
    import yaml
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, 'problem_mark', None), 'line', None)
        where = '' if line is None else f', line {line + 1}'
        raise SpecError(f'{path}{where}: not valid YAML; check indentation and colons.') from error
    shape = 'expected "/**:" with "ros__parameters:" below it, as in config/default.yaml'
    if not isinstance(content, dict):
        raise SpecError(f'{path}: not a parameter file; {shape}.')
    for pattern, body in content.items():
        name = str(pattern).rsplit('/', 1)[-1]
        if name not in ('*', '**', *NODES):
            raise SpecError(f'{path}: section {pattern!r} is for no node of this package '
                            f'({", ".join(NODES)}); {shape}.')
        if not isinstance(body, dict) or not isinstance(body.get('ros__parameters'), dict):
            raise SpecError(f'{path}: section {pattern!r} holds no "ros__parameters:"; {shape}.')
        yield body['ros__parameters']


def _is_ros_parameter(name):
    return name in ROS_PARAMETERS or name.startswith(ROS_PREFIXES)


def declare(node, params) -> SimpleNamespace:
    """
    Declare parameters on a node and read them.

    :param node: rclpy node; values given to it win over the defaults
    :param params: the node's table of ``Param``
    :return: values as attributes
    :raises SpecError: a value of wrong type or range, or a value for an unknown parameter
    """
    source = f'{node.get_name()} parameter'
    given = getattr(node, '_parameter_overrides', {})  # rclpy has no public list of these
    for name, parameter in given.items():
        if name in PARAMS:
            PARAMS[name].check(parameter.value, source)
        elif not _is_ros_parameter(name):
            raise SpecError(f'{source}: {unknown_name("parameter", name, PARAMS)}')
    defaults = load_profile(DEFAULT_PROFILE)
    values = {}
    for param in params:
        value = node.declare_parameter(param.name, defaults[param.name], _descriptor(param)).value
        values[param.name] = param.check(value, source)
    return SimpleNamespace(**values)


def _descriptor(param):
    """Describe a parameter to ``ros2 param describe``; the range is enforced by ``Param``."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
    descriptor = ParameterDescriptor(name=param.name, description=param.description,
                                     read_only=True, dynamic_typing=True,
                                     additional_constraints=', '.join(param.choices))
    if param.kind is int:
        descriptor.integer_range = [IntegerRange(from_value=param.low, to_value=param.high)]
    if param.kind is float:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=param.low, to_value=param.high)]
    return descriptor
