# SPDX-License-Identifier: Apache-2.0
"""Whether a world is live, paused, stale or lost, from what is heard of it. Pure."""
from dataclasses import dataclass
from typing import Optional, Tuple

from lingbot_world_ros.session.states import Mode, State

LOST_S = 1.5  # without a sign of life; a world that stands still gives one every half second
STALE_S = 1.0  # without a picture of a world that plays

WAITING, LIVE, PAUSED, STOPPED, STEPPING = 'waiting', 'live', 'paused', 'stopped', 'stepping'
STALE, LOST, LOADING, ERROR, NO_WORLD = 'stale', 'lost', 'loading', 'error', 'no_world'


@dataclass(frozen=True)
class Signs:
    """
    What was heard of a world.

    ``state`` is playing, paused, stopped, no_world, loading_world or error; None: the world does
    not tell, as with a simulator that has no ``world_status`` and no state service. Ages are
    wall seconds, None: never heard. ``step_s``: wall seconds between pictures that are usual.
    ``watches``: somebody looks, so pictures are subscribed to. ``lost_s``: without a sign of life
    for longer the world is lost. ``unshown``: pictures come but cannot be shown, why; '' if they
    can.
    """

    where: str  # topic and ROS domain, for the user
    state: Optional[str] = None
    mode: str = Mode.REALTIME.value
    message: str = ''
    sign_age_s: Optional[float] = None
    image_age_s: Optional[float] = None
    has_publishers: bool = False
    step_s: float = 0.0
    watches: bool = True
    lost_s: float = LOST_S
    unshown: str = ''


def link_of(signs: Signs) -> Tuple[str, str]:
    """
    Say how a world is to be reached.

    :param signs: what was heard
    :return: one of the constants above, and why in one sentence ('' when live)
    """
    if signs.sign_age_s is None and signs.has_publishers:
        if signs.unshown:
            return STALE, _why_stale(signs, '')
        return WAITING, f'Waiting for the first word on {signs.where}.'
    if signs.sign_age_s is None:
        return WAITING, (f'Nothing is heard on {signs.where}. Start a world there ("lingbot-world '
                         'sim"), with the same ROS_DOMAIN_ID, namespace and profile.')
    if not signs.has_publishers or (signs.state is not None and signs.sign_age_s > signs.lost_s):
        return LOST, (f'The world is gone: nothing on {signs.where} for {signs.sign_age_s:.0f} s. '
                      'This page goes on by itself when it is back.')
    if signs.state is None:
        return _silent(signs)
    return _told(signs)


def _silent(signs: Signs) -> Tuple[str, str]:
    """Judge a simulator that does not tell its state: by its pictures alone."""
    if not signs.watches or (signs.image_age_s is not None
                             and signs.image_age_s <= LOST_S + 2.0 * signs.step_s):
        return LIVE, ''
    return STALE, _why_stale(signs, 'the simulator is paused, slow or gone')


def _told(signs: Signs) -> Tuple[str, str]:
    message = signs.message.rstrip('.')
    if signs.state == State.ERROR:
        return ERROR, f'{message or "The engine failed"}. Reset starts it over.'
    if signs.state == State.NO_WORLD:
        return NO_WORLD, f'No world is loaded{": " + message if message else ""}. Choose one.'
    if signs.state == State.LOADING:
        return LOADING, 'A world is being loaded.'
    if signs.state == State.STOPPED:
        return STOPPED, 'The world is stopped at its start. Play starts it.'
    if signs.mode == Mode.STEPPED:
        return STEPPING, 'Stepped mode: time moves by Step, or by step_simulation.'
    if signs.state == State.PAUSED:
        return PAUSED, 'The world is paused. Play goes on, Step makes one step.'
    if signs.mode == Mode.LOCKSTEP:
        return STEPPING, 'Lockstep mode: each command makes a step.'
    if signs.watches and (signs.image_age_s is None
                          or signs.image_age_s > STALE_S + 2.0 * signs.step_s):
        return STALE, _why_stale(signs, 'the world plays, but its engine is slow or hangs')
    return LIVE, ''


def _why_stale(signs: Signs, guess: str) -> str:
    if signs.unshown:
        return f'Pictures come but cannot be shown: {signs.unshown}'
    if signs.image_age_s is None:
        return f'No picture yet: {guess}.'
    return f'No picture for {signs.image_age_s:.0f} s: {guess}.'
