# SPDX-License-Identifier: Apache-2.0
"""The parameter services of a node, which nobody's request can end."""
from typing import Optional, Sequence

from lingbot_world_ros.messages.parameters import MAX_TYPE, set_result_to_msg
from rcl_interfaces.msg import Parameter, SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.parameter_service import ParameterService

MAX_PARAMETERS = 200  # of one request; a node here has half as many, and each takes a millisecond


class SafeParameterService(ParameterService):
    """
    Refuse what harms: rclpy's own raises at a type that does not exist, which ends the node,
    and sets thousands of parameters while nothing else is answered.

    Make the node with ``start_parameter_services=False``, then this.
    """

    def _set_parameters_callback(self, request: SetParameters.Request,
                                 response: SetParameters.Response) -> SetParameters.Response:
        refusal = _refusal(request.parameters)
        if refusal is None:
            return super()._set_parameters_callback(request, response)
        response.results = [refusal] * len(request.parameters)
        return response

    def _set_parameters_atomically_callback(
            self, request: SetParametersAtomically.Request,
            response: SetParametersAtomically.Response) -> SetParametersAtomically.Response:
        refusal = _refusal(request.parameters)
        if refusal is None:
            return super()._set_parameters_atomically_callback(request, response)
        response.result = refusal
        return response


def _refusal(parameters: Sequence[Parameter]) -> Optional[SetParametersResult]:
    """Return why nothing of a request is done; None if it can be."""
    strange = next((p.value.type for p in parameters if p.value.type > MAX_TYPE), None)
    if strange is not None:
        reason = f'there is no type {strange} of parameters (0 to {MAX_TYPE})'
    elif len(parameters) > MAX_PARAMETERS:
        reason = f'{len(parameters)} parameters in one request are more than {MAX_PARAMETERS}'
    else:
        return None
    return set_result_to_msg(f'Nothing was set: {reason}.')
