# SPDX-License-Identifier: Apache-2.0
"""
Values of parameters from files and command lines.

A profile is a ROS parameter file; it is checked here before any node starts, so that a typing
mistake is one line of text and not a parameter that silently does nothing. Nodes are given what
was read here, in a file that ROS cannot read in another way.
"""
from contextlib import contextmanager, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from lingbot_world_ros.errors import quoted, shown, SpecError, unknown_name
from lingbot_world_ros.paths import MAX_PATH, read_text, resolved, share_path
from lingbot_world_ros.plain_yaml import (as_text, as_yaml, read_bool, read_number, read_whole,
                                          read_yaml, Tree)
from lingbot_world_ros.settings.parameters import find_parameter, NODES, PARAMS

DEFAULT_PROFILE = 'default'
ROS_PARAMETERS = ('use_sim_time', 'start_type_description_service')  # every ROS node has these
MAX_PROFILE_BYTES = 1 << 18
ROS_PREFIXES = ('qos_overrides.',)
Section = Dict[str, Any]  # values by parameter name


def read_assignments(texts: Iterable[str]) -> dict:
    """
    Read parameters given on a command line.

    :param texts: for example ``['speed:=2.0', 'prompt:=A street: wet leaves']``; text is not YAML,
        but taken as it is
    :return: values by name
    :raises SpecError: no ``:=``, unknown name, wrong type or range
    """
    values = {}
    for text in texts:
        name, assigned, value = text.partition(':=')
        if not assigned:
            raise SpecError(f'--param {text!r} is not NAME:=VALUE.')
        values[name] = read_parameter(name, value, 'command line')
    return values


def assignments(values: Mapping[str, Any]) -> List[str]:
    """
    Write parameters for the command line of another process; ``read_assignments`` reads the same.

    :param values: by name
    :return: arguments
    """
    return [word for name, value in values.items()
            for word in ('--param', f'{name}:={as_text(value)}')]


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


@contextmanager
def params_file(profile: str) -> Iterator[Optional[Path]]:
    """
    Make the parameter file that a node is to be given for a profile; ROS reads it at the start.

    :param profile: as ``profile_path`` takes it
    :return: absolute path; None for the default profile, which nodes start from anyway
    :raises SpecError: as ``load_profile``; there is no room for the file
    """
    if profile == DEFAULT_PROFILE:
        yield None
        return
    text = params_text(read_sections(profile))
    with ExitStack() as stack:
        try:
            path = Path(stack.enter_context(TemporaryDirectory(prefix='lingbot_world_')), 'p.yaml')
            path.write_text(text, encoding='utf-8')
        except OSError as error:
            raise SpecError('The parameter file for ROS cannot be written '
                            f'({error.strerror}); make room, or set TMPDIR.') from error
        yield path


def params_text(sections: Sequence[Tuple[str, Section]]) -> str:
    """
    Write a ROS parameter file; text stands in quotes, so that ROS takes none for a number.

    :param sections: pattern of node names, and values by parameter name
    :return: YAML
    """
    lines = []
    for pattern, values in sections:
        lines += [f'{as_yaml(pattern)}:', '  ros__parameters:' if values else
                  '  ros__parameters: {}']
        lines += [f'    {as_yaml(name)}: {as_yaml(value)}' for name, value in values.items()]
    return ''.join(f'{line}\n' for line in lines)


def load_profile(profile: str) -> dict:
    """
    Read and check a profile.

    :param profile: name or path, as ``profile_path`` takes it
    :return: values by parameter name; only those the profile sets
    :raises SpecError: not YAML, not a ROS parameter file, unknown key, wrong type or range
    """
    return {name: value for _, values in read_sections(profile)
            for name, value in values.items() if not is_ros_parameter(name)}


def read_sections(profile: str) -> List[Tuple[str, Section]]:
    """
    Read and check a profile, and keep for which nodes it says what.

    :param profile: name or path, as ``profile_path`` takes it
    :return: pattern of node names, and values by parameter name, for ``params_text``
    :raises SpecError: as ``load_profile``
    """
    path = profile_path(profile)
    source = shown(path)
    return [(pattern, {name: _read(name, value, source) for name, value in _flat(section)})
            for pattern, section in _sections(path, source)]


def _sections(path: Path, source: str) -> Iterator[Tuple[str, Dict[str, Tree]]]:
    """Yield pattern and ``ros__parameters`` of every node pattern in a parameter file."""
    text = read_text(str(path), 'Profile', MAX_PROFILE_BYTES)
    try:
        content = read_yaml(text)
    except SpecError as error:
        raise SpecError(f'{source}: {error}; check indentation and colons.') from error
    shape = 'expected "/**:" with "ros__parameters:" below it, as in config/default.yaml'
    if not isinstance(content, dict):
        raise SpecError(f'{source}: not a parameter file; {shape}.')
    for pattern, body in content.items():
        name = pattern.rsplit('/', 1)[-1]
        if name not in ('*', '**', *NODES):
            raise SpecError(f'{source}: section {quoted(pattern)} is for no node of this package '
                            f'({", ".join(NODES)}); {shape}.')
        section = body.get('ros__parameters') if isinstance(body, dict) else None
        if not isinstance(section, dict):
            raise SpecError(f'{source}: section {quoted(pattern)} holds no "ros__parameters:"; '
                            f'{shape}.')
        yield pattern, section


def _read(name: str, given: Tree, source: str) -> Any:
    if not is_ros_parameter(name):
        try:
            find_parameter(name)
        except SpecError as error:
            raise SpecError(f'{source}: {error}') from error
    return read_parameter(name, given, source)


def _as_it_looks(given: Tree) -> Union[str, bool, int, float]:
    """Read a value whose type only ROS knows."""
    found = (read(given) for read in (read_bool, read_whole, read_number))
    return next((value for value in found if value is not None), str(given))


def _flat(section: Dict[str, Tree], prefix: str = '') -> Iterator[Tuple[str, Tree]]:
    """Yield dotted names and values of nested parameters."""
    for name, value in section.items():
        if isinstance(value, dict) and f'{prefix}{name}' not in PARAMS:  # else {a} is no group
            yield from _flat(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value


def read_parameter(name: str, given: Tree, source: str, kind: str = 'parameter') -> Any:
    """
    Read a value of one of our parameters, or of one that every ROS node has.

    :param name: as profiles have it
    :param given: as it was typed, or as YAML has it
    :param source: where it was given, for the error
    :param kind: what a parameter is called there
    :return: of the parameter's type
    :raises SpecError: unknown name, wrong type or range
    """
    if is_ros_parameter(name):
        return _as_it_looks(given)
    return find_parameter(name, kind).read(given, source)


def is_ros_parameter(name: str) -> bool:
    """Tell whether a parameter is of ROS itself, which every node has."""
    return name in ROS_PARAMETERS or name.startswith(ROS_PREFIXES)
