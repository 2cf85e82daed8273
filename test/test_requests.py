# SPDX-License-Identifier: Apache-2.0
"""Which request a world grants in which state; the words of a session and their text."""
import json

from lingbot_world_ros.session.requests import check_request, Refused
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Mode, Reason, Request, State, TimePolicy
from lingbot_world_ros.session.status import SessionStatus
import pytest

NO_WORLD = {request: 'no_world' for request in Request
            if request not in (Request.LOAD, Request.SET_MODE)}
ERROR = {request: 'engine' for request in (
    Request.PLAY, Request.PAUSE, Request.ADVANCE, Request.MOVE, Request.LOOK, Request.SET_PROMPT,
    Request.ANCHOR_IMAGE)}
REFUSED = {
    State.NO_WORLD: NO_WORLD, State.ERROR: ERROR,
    State.STOPPED: {Request.STOP: 'already', Request.ADVANCE: 'not_paused'},
    State.PLAYING: {Request.PLAY: 'already', Request.ADVANCE: 'not_paused'},
    State.PAUSED: {Request.PAUSE: 'already'}}


@pytest.mark.parametrize('mode', Mode)
@pytest.mark.parametrize('state', REFUSED)
@pytest.mark.parametrize('request_', Request)
def test_each_state_grants_what_it_can(request_, state, mode):
    reason = REFUSED[state].get(request_)
    if request_ == Request.PLAY and mode == Mode.STEPPED:
        reason = reason if reason in ('no_world', 'engine') else 'mode'
    status = SessionStatus(state, mode, message='It broke.')
    if reason is None:
        return check_request(request_, status)
    with pytest.raises(Refused) as refused:
        check_request(request_, status)
    assert refused.value.reason == reason and refused.value.num_done == 0
    assert str(refused.value).endswith('.')


@pytest.mark.parametrize('request_, state, text', [
    (Request.PLAY, State.PLAYING, 'The world is playing already.'),
    (Request.STOP, State.STOPPED, 'The world is stopped already.'),
    (Request.ADVANCE, State.PLAYING,
     'The world makes steps only while it is paused; it is playing.'),
    (Request.LOOK, State.ERROR, 'No world runs: It broke. Reset it first.')])
def test_a_refusal_says_how_the_world_is(request_, state, text):
    with pytest.raises(Refused) as refused:
        check_request(request_, SessionStatus(state, Mode.REALTIME, message='It broke.'))
    assert str(refused.value) == text


@pytest.mark.parametrize('words', [State, Mode, TimePolicy, Reason, Request])
def test_a_word_is_its_text_wherever_text_is_made_of_it(words):
    for word in words:
        text = word.value
        assert str(word) == f'{word}' == '{:>1}'.format(word) == '%s' % word == text == word
        assert json.dumps({'word': word}) == json.dumps({'word': text})
        assert {word: 1}[text] == 1 and words(text) is word


def test_a_spec_takes_words_and_their_text():
    spec = SessionSpec('stepped', 'paused', 'monotonic')
    assert spec == SessionSpec(Mode.STEPPED, State.PAUSED, TimePolicy.MONOTONIC)
    assert (spec.mode, spec.initial_state) == (Mode.STEPPED, State.PAUSED)
    assert isinstance(spec.mode, Mode) and isinstance(spec.reset_time_policy, TimePolicy)
    assert SessionSpec(speed=0.0).speed == 0.0
