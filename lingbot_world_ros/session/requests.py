# SPDX-License-Identifier: Apache-2.0
"""Which request a world grants in which state, and the refusal of all others. No ROS."""
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.session.states import Mode, Reason, Request, State
from lingbot_world_ros.session.status import SessionStatus

WITHOUT_WORLD = (Request.LOAD, Request.SET_MODE)
WITHOUT_ENGINE = (*WITHOUT_WORLD, Request.UNLOAD, Request.RESET, Request.STOP)
GOALS = {Request.PLAY: State.PLAYING, Request.PAUSE: State.PAUSED, Request.STOP: State.STOPPED}


class Refused(SpecError):
    """
    A request that cannot be granted; the world goes on as it was.

    ``num_done`` counts the steps that were made all the same.
    """

    def __init__(self, reason: Reason, text: str, num_done: int = 0):
        """Keep the reason for those who map it to a code."""
        super().__init__(text)
        self.reason, self.num_done = reason, num_done


def check_request(request: Request, status: SessionStatus) -> None:
    """
    Refuse what cannot be asked of a world as it is.

    :param request: what is asked
    :param status: of the session
    :raises Refused: says what to do first
    """
    state = status.state
    if state == State.NO_WORLD and request not in WITHOUT_WORLD:
        raise Refused(Reason.NO_WORLD, 'No world is loaded; load one first.')
    if state == State.ERROR and request not in WITHOUT_ENGINE:
        raise Refused(Reason.ENGINE, f'No world runs: {status.message} Reset it first.')
    if request == Request.PLAY and status.mode == Mode.STEPPED:
        raise Refused(Reason.MODE, 'In stepped mode sim time advances by step_simulation and '
                      'simulate_steps only; set mode to realtime to play.')
    if state == GOALS.get(request):
        raise Refused(Reason.ALREADY, f'The world is {state} already.')
    if request == Request.ADVANCE and state != State.PAUSED:
        raise Refused(Reason.NOT_PAUSED, 'The world makes steps only while it is paused; it is '
                      f'{state}.')
