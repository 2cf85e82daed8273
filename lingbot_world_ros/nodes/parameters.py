# SPDX-License-Identifier: Apache-2.0
"""The parameters of a node: declared from the table in settings, read, kept up to date."""
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Set

from lingbot_world_ros.errors import shown, SpecError
from lingbot_world_ros.messages.parameters import descriptor_to_msg, set_result_to_msg
from lingbot_world_ros.nodes.ros_environment import command_line
from lingbot_world_ros.parameter import Param
from lingbot_world_ros.settings.parameters import find_parameter
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, is_ros_parameter, load_profile
from lingbot_world_ros.settings.robot_parameters import with_robot
from lingbot_world_ros.settings.shared_file import given_to
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

MAX_SHOWN = 500  # characters of names
_passed_over: Set[str] = set()  # names of which the log of this process has told


def as_overrides(values: Mapping[str, Any]) -> List[Parameter]:
    """
    Turn values into what nodes take as ``parameter_overrides``.

    :param values: by parameter name
    :return: one rclpy parameter for each
    """
    return [Parameter(name, value=value) for name, value in values.items()]


def given_values(node: Node) -> Dict[str, Any]:
    """
    Return what a node was given, whether it has such parameters or not.

    What a parameter file says to all nodes and no node of this package knows is somebody else's;
    it is told once.

    :param node: rclpy node
    :return: values by name, of the types that parameters have
    :raises SpecError: a value of wrong type or range, or a value for an unknown parameter
    """
    source, values, unknown = _source(node), {}, {}
    # rclpy has no public list of these.
    for name, parameter in getattr(node, '_parameter_overrides', {}).items():
        if not is_ros_parameter(name):
            try:
                row = find_parameter(name)
            except SpecError as error:
                unknown[name] = error
                continue
            values[name] = row.check(parameter.value, source)
    if unknown:
        _pass_over(node, unknown)
    return values


def _pass_over(node: Node, unknown: Mapping[str, SpecError]) -> None:
    """Refuse unknown names, but for those in a file that speaks to nodes of other packages too."""
    given = given_to(node.get_name(), command_line())
    for name, error in unknown.items():
        if name in given.to_node or name not in given.to_all:
            raise SpecError(f'{_source(node)}: {error}') from error
    names = ', '.join(sorted(unknown))
    if names not in _passed_over:
        _passed_over.add(names)
        node.get_logger().warning(
            'A parameter file gives all nodes parameters that no node of this package has; '
            f'ignored: {shown(names, MAX_SHOWN)}.')


def declare(node: Node, params: Iterable[Param],
            on_change: Optional[Callable[[str, Any], None]] = None,
            values: Optional[SimpleNamespace] = None) -> SimpleNamespace:
    """
    Declare parameters on a node and read them; what a robot says of others is filled in.

    :param node: rclpy node; values given to it win over the defaults
    :param params: the node's table of ``Param``
    :param on_change: called with name and value after a dynamic parameter was set
    :param values: what an earlier call returned, to be added to
    :return: values as attributes (``topics.image`` as ``.topics.image``), kept up to date
    :raises SpecError: a value of wrong type or range, or a value for an unknown parameter
    """
    source, own = _source(node), {param.name: param for param in params}
    given_values(node)
    defaults = load_profile(DEFAULT_PROFILE)
    values = SimpleNamespace() if values is None else values
    for name, param in own.items():
        value = node.declare_parameter(name, defaults.get(name, param.default),
                                       descriptor_to_msg(param)).value
        _assign(values, name, param.check(value, source))
    if 'robot' in own:
        for name, value in with_robot(flat(values)).items():
            _assign(values, name, value)

    def on_set(changes: List[Parameter]) -> SetParametersResult:
        try:
            checked = {p.name: own[p.name].check(p.value, source)
                       for p in changes if p.name in own}
        except SpecError as error:
            return set_result_to_msg(str(error))
        for name, value in checked.items():
            _assign(values, name, value)
            if on_change is not None:
                on_change(name, value)
        return set_result_to_msg()

    node.add_on_set_parameters_callback(on_set)
    return values


def _source(node: Node) -> str:
    return f'{node.get_name()} parameter'


def flat(values: SimpleNamespace, prefix: str = '') -> dict:
    """Return what ``declare`` gave as one value per dotted name."""
    found = {}
    for name, value in vars(values).items():
        if isinstance(value, SimpleNamespace):
            found.update(flat(value, f'{prefix}{name}.'))
        else:
            found[f'{prefix}{name}'] = value
    return found


def _assign(values: SimpleNamespace, dotted: str, value: Any) -> None:
    """Set ``a.b`` in nested namespaces."""
    *groups, name = dotted.split('.')
    for group in groups:
        values = vars(values).setdefault(group, SimpleNamespace())
    setattr(values, name, value)
