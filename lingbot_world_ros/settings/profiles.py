# SPDX-License-Identifier: Apache-2.0
"""
Values of parameters from files and command lines.

A profile is a ROS parameter file; it is checked here before any node starts, so that a typing
mistake is one line of text and not a parameter that silently does nothing.
"""
from pathlib import Path
from typing import Any, Iterable, Iterator, List, Optional, Tuple

from lingbot_world_ros.errors import quoted, shown, SpecError, unknown_name
from lingbot_world_ros.parameter import Param
from lingbot_world_ros.paths import MAX_PATH, read_text, resolved, share_path
from lingbot_world_ros.plain_yaml import load_plain_yaml, YamlError
from lingbot_world_ros.settings.parameters import find_parameter, NODES

DEFAULT_PROFILE = 'default'
ROS_PARAMETERS = ('use_sim_time', 'start_type_description_service')  # every ROS node has these
MAX_PROFILE_BYTES = 1 << 18
ROS_PREFIXES = ('qos_overrides.',)


def read_value(param: Param, text: str, source: str) -> Any:
    """
    Read the value of a parameter the way ROS reads a command line.

    :param param: its entry in the table
    :param text: YAML
    :param source: where the text came from, for the message
    :return: the value, checked
    :raises SpecError: not YAML, wrong type or range
    """
    try:
        value = load_plain_yaml(text)
    except YamlError as error:
        raise SpecError(f'{source}: {param.name}={quoted(text)} is {error}.') from error
    return param.check(value, source)


def read_assignments(texts: Iterable[str]) -> dict:
    """
    Read parameters given on a command line.

    :param texts: for example ``['speed:=2.0', 'lingbot.precision:=nf4']``
    :return: values by name
    :raises SpecError: no ``:=``, unknown name, wrong type or range
    """
    values = {}
    for text in texts:
        name, assigned, value = text.partition(':=')
        if not assigned:
            raise SpecError(f'--param {text!r} is not NAME:=VALUE.')
        values[name] = read_value(find_parameter(name), value, 'command line')
    return values


def profile_path(profile: str) -> Path:
    """
    Find a profile.

    :param profile: name of a file in ``config/`` without ``.yaml``, or a path to a YAML file
    :return: absolute path of the file
    :raises SpecError: no such profile; lists those that ship
    """
    if profile.endswith(('.yaml', '.yml')) or '/' in profile:
        try:
            path, problem = resolved(profile), None
        except OSError as error:  # too long, a loop of links, no home
            path, problem = Path(profile[:MAX_PATH]), error
        if problem is not None or not path.is_file():
            raise SpecError(f'Profile {shown(path)} does not exist; give the path of a YAML file '
                            f'or the name of one that ships: {", ".join(_shipped())}.')
        return path
    if profile not in _shipped():
        raise unknown_name('profile', profile, _shipped())
    return share_path('config', f'{profile}.yaml')


def _shipped() -> List[str]:
    return sorted(path.stem for path in share_path('config').glob('*.yaml'))


def params_file(profile: str) -> Optional[Path]:
    """
    Say which parameter file a node is to be given for a profile.

    :param profile: as ``profile_path`` takes it
    :return: absolute path; None for the default profile, which nodes start from anyway
    :raises SpecError: as ``profile_path``
    """
    return None if profile == DEFAULT_PROFILE else profile_path(profile)


def load_profile(profile: str) -> dict:
    """
    Read and check a profile.

    :param profile: name or path, as ``profile_path`` takes it
    :return: values by parameter name; only those the profile sets
    :raises SpecError: not YAML, not a ROS parameter file, unknown key, wrong type or range
    """
    path = profile_path(profile)
    values, source = {}, shown(path)
    for section in _sections(path, source):
        for name, value in _flat(section):
            if not is_ros_parameter(name):
                values[name] = _parameter(name, source).check(value, source)
    return values


def _sections(path: Path, source: str) -> Iterator[dict]:
    """Yield the ``ros__parameters`` of every node pattern in a parameter file."""
    text = read_text(str(path), 'Profile', MAX_PROFILE_BYTES)
    try:
        content = load_plain_yaml(text)
    except SpecError as error:
        raise SpecError(f'{source}: {error}; check indentation and colons.') from error
    shape = 'expected "/**:" with "ros__parameters:" below it, as in config/default.yaml'
    if not isinstance(content, dict):
        raise SpecError(f'{source}: not a parameter file; {shape}.')
    for pattern, body in content.items():
        name = str(pattern).rsplit('/', 1)[-1]
        if name not in ('*', '**', *NODES):
            raise SpecError(f'{source}: section {quoted(pattern)} is for no node of this package '
                            f'({", ".join(NODES)}); {shape}.')
        if not isinstance(body, dict) or not isinstance(body.get('ros__parameters'), dict):
            raise SpecError(f'{source}: section {quoted(pattern)} holds no "ros__parameters:"; '
                            f'{shape}.')
        yield body['ros__parameters']


def _parameter(name: str, source: str) -> Param:
    try:
        return find_parameter(name)
    except SpecError as error:
        raise SpecError(f'{source}: {error}') from error


def _flat(section: dict, prefix: str = '') -> Iterator[Tuple[str, Any]]:
    """Yield dotted names and values of nested parameters."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value


def is_ros_parameter(name: str) -> bool:
    """Tell whether a parameter is of ROS itself, which every node has."""
    return name in ROS_PARAMETERS or name.startswith(ROS_PREFIXES)
