# SPDX-License-Identifier: Apache-2.0
"""The lifecycle service of a managed node, which nobody's request can end."""
from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode


def refuse_strange_transitions(node: LifecycleNode) -> None:
    """
    Refuse transitions that the state of a node does not have.

    rclpy's own raises at them until Jazzy, which ends the node.

    :param node: just made
    """
    service = node._service_change_state
    change = service.callback

    def answer(request: ChangeState.Request,
               response: ChangeState.Response) -> ChangeState.Response:
        try:
            result: ChangeState.Response = change(request, response)
            return result
        except Exception as error:  # rclpy's RCLError is not public everywhere
            if type(error).__name__ != 'RCLError':
                raise
            node.get_logger().warning(f'The transition was refused: {error}')
            response.success = False
            return response
    service.callback = answer
