# SPDX-License-Identifier: Apache-2.0
"""
How the services of simulation_interfaces come to their answers, whatever they do.

A handler raises for every answer other than OK, so that the zero default of ``Result``
(unsupported) is never sent by accident. Nothing here waits: a handler suspends until the session
is done, and the executor goes on.
"""
from concurrent.futures import Future
import traceback
from types import SimpleNamespace
from typing import Any, Callable, Dict, Optional

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages import simulation as standard
from lingbot_world_ros.messages.simulation import (INCORRECT_STATE, NOT_FOUND, OK,
                                                   OPERATION_FAILED, Refusal)
from lingbot_world_ros.nodes.waiting import Waiting
from lingbot_world_ros.session.requests import Refused
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.states import Reason, State
from lingbot_world_ros.worlds.definition import WorldDefinition, WorldError
from rclpy.node import Node

# What a refusal of the session means; services with codes of their own say what differs.
OTHERWISE = ''
REASONS: Dict[str, str] = {Reason.NO_WORLD: INCORRECT_STATE, Reason.UNKNOWN: NOT_FOUND}
TRANSITIONS: Dict[str, str] = {
    Reason.ALREADY: 'ALREADY_IN_TARGET_STATE', Reason.NO_WORLD: 'INCORRECT_TRANSITION',
    OTHERWISE: 'STATE_TRANSITION_ERROR'}


def installed(kind: str, name: str) -> Any:
    """
    Look for an interface.

    :param kind: ``'srv'``, ``'action'`` or ``'msg'``
    :param name: of the type
    :return: the type, None if the installed simulation_interfaces lacks it or none is installed
    """
    try:
        module = __import__(f'simulation_interfaces.{kind}', fromlist=[name])
    except ImportError:
        return None
    return getattr(module, name, None)


class Answers:
    """
    What all handlers share: the session that answers, and how they wait for it.

    Every handler answers within ``service_timeout_s``: with an error if what was asked is not
    done by then.
    """

    def __init__(self, node: Node, get_session: Callable[[], Optional[Session]],
                 params: SimpleNamespace):
        """
        Prepare.

        :param node: rclpy node that offers the services
        :param get_session: returns the session that answers, None while there is none
        :param params: values of the parameters of world_model
        """
        self.node, self.get_session, self.params = node, get_session, params
        self.waiting = Waiting(node)
        self.is_quitting = False

    def session(self, may_quit: bool = False) -> Session:
        """
        Return the session.

        :param may_quit: also of a node that is about to end
        :raises Refusal: there is none
        """
        session = self.get_session()
        if session is None:
            raise Refusal(INCORRECT_STATE, 'The node world_model is not active; configure and '
                          'activate it.')
        if self.is_quitting and not may_quit:
            raise Refusal(INCORRECT_STATE, 'The simulator is quitting.')
        return session

    def definition(self) -> WorldDefinition:
        """
        Return the world that is loaded.

        :raises Refusal: none is
        """
        session = self.session()
        if session.definition is None or session.status.state == State.LOADING:
            raise Refusal(INCORRECT_STATE, 'No world is loaded; load one first.')
        return session.definition

    def state_number(self) -> int:
        """Return SimulationState.state of the simulator as it is."""
        session = self.get_session()
        state = State.NO_WORLD if session is None else session.status.state
        return standard.state_number(standard.QUITTING if self.is_quitting else state)

    def answering(self, handler: Callable) -> Callable:
        """
        Wrap a handler: what it raises becomes a result, and nothing gets past here.

        :param handler: coroutine function of request and response
        :return: the callback of a service
        """
        async def answer(request: Any, response: Any) -> Any:
            try:
                await handler(request, response)
                code, text = OK, _text_of(response)
            except Exception as error:  # the executor's edge: a handler may fail in any way
                response, code, text = type(response)(), self.code_of(error), str(error)
                if hasattr(getattr(response, 'state', None), 'state'):  # told in any case
                    response.state.state = self.state_number()
            if hasattr(response, 'result'):  # the features have none
                standard.set_result(response.result, code, text, response)
            return response
        return answer

    def code_of(self, error: Exception) -> str:
        """Return the code of what a handler raised; what nobody expected is logged."""
        if isinstance(error, (Refusal, WorldError)):
            return error.code
        if not isinstance(error, SpecError):
            text = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
            self.node.get_logger().error(
                standard.sendable(f'A simulation service failed. {text[-1500:]}'))
        return OPERATION_FAILED

    async def done(self, outcome: Future, reasons: Dict[str, str] = REASONS,
                   within_s: Optional[float] = None) -> Any:
        """
        Suspend until somebody else is done.

        :param outcome: of the session, or of a thread
        :param reasons: code by reason of a refusal, OTHERWISE for all others
        :param within_s: None takes service_timeout_s, 0 waits for ever
        :return: its result
        :raises Refusal: refused, failed, closed or not done in time
        """
        within_s = self.params.service_timeout_s if within_s is None else within_s
        is_done = await self.waiting.wait(outcome, within_s)
        otherwise = reasons.get(OTHERWISE, OPERATION_FAILED)
        if not is_done:
            raise Refusal(otherwise, f'Not done within service_timeout_s={within_s:g} s.')
        if outcome.cancelled():
            raise Refusal(INCORRECT_STATE, 'The world model is shutting down.')
        error = outcome.exception()
        if error is None:
            return outcome.result()
        if isinstance(error, Refused):
            raise Refusal(reasons.get(error.reason, otherwise), str(error)) from error
        if isinstance(error, SpecError):
            raise error
        raise Refusal(otherwise, f'The engine failed: {error}') from error


def _text_of(response: Any) -> str:
    return response.result.error_message if hasattr(response, 'result') else ''
