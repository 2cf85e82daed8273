# SPDX-License-Identifier: Apache-2.0
"""Parameters of nodes <-> rcl_interfaces: what one is, whether it was set, asking to set it."""
from typing import Optional, Protocol, Tuple, Union

from rcl_interfaces.msg import (FloatingPointRange, IntegerRange, Parameter, ParameterDescriptor,
                                ParameterType, ParameterValue, SetParametersResult)
from rcl_interfaces.srv import SetParameters

MAX_TYPE = ParameterType.PARAMETER_STRING_ARRAY


class Described(Protocol):
    """What there is to say of a parameter; a ``parameter.Param`` has all of it."""

    @property
    def name(self) -> str:
        """Dotted."""
        ...

    @property
    def kind(self) -> type:
        """Of bool, int, float and str."""
        ...

    @property
    def description(self) -> str:
        """What it is, in a sentence or two."""
        ...

    @property
    def low(self) -> Optional[float]:
        """Least value of a number."""
        ...

    @property
    def high(self) -> Optional[float]:
        """Largest value of a number."""
        ...

    @property
    def choices(self) -> Tuple[str, ...]:
        """All values of a text; none for free text."""
        ...

    @property
    def dynamic(self) -> bool:
        """Whether it can be set while the node runs."""
        ...


def descriptor_to_msg(param: Described) -> ParameterDescriptor:
    """
    Describe a parameter to ``ros2 param describe``.

    :param param: of the table of parameters
    :return: the descriptor; the range is told, not left to rclpy to enforce
    """
    msg = ParameterDescriptor(name=param.name, description=param.description,
                              read_only=not param.dynamic, dynamic_typing=True,
                              additional_constraints=', '.join(param.choices))
    if param.kind is int:
        msg.integer_range = [IntegerRange(from_value=param.low, to_value=param.high)]
    if param.kind is float:
        msg.floating_point_range = [
            FloatingPointRange(from_value=param.low, to_value=param.high)]
    return msg


def set_result_to_msg(problem: str = '') -> SetParametersResult:
    """
    Answer whoever sets parameters.

    :param problem: why they were not set, '' if they were
    :return: the answer
    """
    return SetParametersResult(successful=not problem, reason=problem)


def set_parameter_to_request(name: str, value: Union[int, str]) -> SetParameters.Request:
    """
    Ask a node to set a parameter.

    :param name: its name there
    :param value: whole number or text
    :return: the request
    """
    typed = (ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
             if isinstance(value, str) else
             ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value))
    return SetParameters.Request(parameters=[Parameter(name=name, value=typed)])
