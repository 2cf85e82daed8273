# SPDX-License-Identifier: Apache-2.0
"""A mode that is changed while a world runs: what plays on, what pauses, what is told."""
import threading

from fake_world import FakeChunkWorld, FakeWorld
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.spec import SessionSpec
import numpy as np
import pytest
from test_session import embedding_of, LOG, PERIOD_NS, RealWait, Recorder, refusal, room, run
from test_session_ahead import ahead, check_frames, NUM_FRAMES
from waiting import PATIENCE_S, wait_for


class Modes(Recorder):
    """Keeps the modes it is told, too."""

    def __init__(self, clock, **kwargs):
        super().__init__(clock, **kwargs)
        self.modes = []

    def on_mode(self, status):
        self.modes.append((status.mode, status.stamp_ns))


def real(world=None, state='playing', **spec):
    """Start a session on the wall's clock, fast."""
    clock = RealWait()
    seen = Modes(clock)
    session = Session(world or FakeWorld(), SessionSpec(initial_state=state, **spec),
                      observers=[seen], log=LOG, clock=clock)
    session.start(room()).result(PATIENCE_S)
    begun = 'paused' if spec.get('mode') == 'stepped' else state
    wait_for(lambda: begun in [status.state for status in seen.statuses])  # it may have failed
    return session, seen


def test_a_playing_world_is_paused_by_stepped_and_stays_paused_until_it_is_played():
    session, seen = real(speed=20.0)
    wait_for(lambda: len(seen.frames) > 5)
    status = session.set_mode('stepped').result(PATIENCE_S)
    assert (status.state, status.mode) == ('paused', 'stepped')
    assert refusal(session.play()) == 'mode'
    assert session.advance(3).result(PATIENCE_S).step == status.step + 3
    assert session.set_mode('realtime').result(PATIENCE_S).state == 'paused'
    step = session.status.step
    assert session.play().result(PATIENCE_S).state == 'playing'
    wait_for(lambda: session.status.step > step + 5)
    session.close()
    stamps = [f.stamp_ns for f in seen.frames]
    assert stamps == [PERIOD_NS * n for n in range(1, len(stamps) + 1)]
    assert seen.modes == [('stepped', 0), ('realtime', 0)]  # of the reset: no world began
    assert len(seen.resets) == 1


def test_a_playing_world_waits_for_commands_in_lockstep_and_plays_on_in_realtime():
    world = FakeWorld()
    session, seen = real(world, speed=20.0, lockstep_timeout_s=600.0)
    session.set_embedding(embedding_of(world, 0.1, accepted=1))
    status = session.set_mode('lockstep').result(PATIENCE_S)
    assert (status.state, status.mode) == ('playing', 'lockstep')
    for accepted in (2, 3, 4):
        step = session.status.step
        session.set_embedding(embedding_of(world, 0.1, accepted=accepted, sequence=accepted))
        wait_for(lambda: session.status.step == step + 1)
    assert session.status.step == status.step + 3  # not one for the command of before
    session.set_mode('realtime').result(PATIENCE_S)
    wait_for(lambda: session.status.step > status.step + 8)  # no 600 s are waited for
    session.close()


def test_pacing_begins_anew_after_a_mode_in_which_nothing_was_due():
    session, seen = run(FakeWorld(), paused=True, mode='stepped')
    session.advance(2).result(PATIENCE_S)
    seen.clock.time_ns += 3_600_000_000_000
    session.set_mode('realtime').result(PATIENCE_S)
    seen.stop_at = 20
    session.play()
    assert seen.done.wait(PATIENCE_S)
    session.close()
    assert np.diff(seen.frame_ns)[3:].tolist() == [PERIOD_NS] * (len(seen.frame_ns) - 4)
    assert session.status.late_frames == 0


def test_the_step_in_progress_is_shown_and_the_one_ahead_taken_back():
    world = FakeChunkWorld(takes_ns=lambda step: 0)
    modes = []
    session, seen = ahead(world, at={NUM_FRAMES + 5: lambda session: modes.append(
        session.set_mode('stepped'))}, speed=1.0)
    wait_for(lambda: modes)
    status = modes[0].result(PATIENCE_S)
    assert (status.state, status.frame) == ('paused', 1 + NUM_FRAMES * status.step)
    assert session.advance(1).result(PATIENCE_S).step == status.step + 1
    session.set_mode('realtime').result(PATIENCE_S)
    session.play().result(PATIENCE_S)
    seen.stop_at = 6 * NUM_FRAMES
    assert seen.done.wait(PATIENCE_S)
    session.close()
    check_frames(seen)


def test_steps_of_a_request_are_interrupted_and_told():
    session, _ = real(state='paused')
    begun, go_on = threading.Event(), threading.Event()

    def hold(done, left):
        begun.set()
        go_on.wait(PATIENCE_S)

    steps = session.advance(5, on_step=hold)
    assert begun.wait(PATIENCE_S)
    changed = session.set_mode('lockstep')
    go_on.set()
    assert refusal(steps) == 'interrupted'
    assert changed.result(PATIENCE_S).state == 'paused' and session.status.step == 1
    assert session.advance(2).result(PATIENCE_S).step == 3
    session.close()


def test_the_same_mode_changes_nothing():
    session, seen = real(state='paused')
    before = session.status
    assert session.set_mode('realtime').result(PATIENCE_S) == before and not seen.modes
    session.close()


def test_an_unknown_mode_is_one_error():
    session, _ = real(state='paused')
    with pytest.raises(SpecError, match="'steped'"):
        session.set_mode('steped')
    with pytest.raises(SpecError, match='speed'):
        session.change_spec(speed=-1.0)
    assert session.advance(1).result(PATIENCE_S).mode == 'realtime'
    session.close()


def test_without_a_world_the_next_one_begins_in_the_new_mode():
    session, seen = real()
    session.unload().result(PATIENCE_S)
    status = session.set_mode('stepped').result(PATIENCE_S)
    assert (status.state, status.mode, seen.modes) == ('no_world', 'stepped', [])
    session.load(room('b')).result(PATIENCE_S)
    assert seen.resets[-1].mode == 'stepped'
    assert refusal(session.play()) == 'mode'
    session.close()


def test_while_a_world_loads_the_mode_follows_the_load():
    inside, go_on = threading.Event(), threading.Event()

    class Slow(FakeWorld):
        def reset(self, scene, seed):
            if scene == 'b':
                inside.set()
                go_on.wait(PATIENCE_S)
            return super().reset(scene, seed)

    session, seen = real(Slow(), state='paused')
    loaded = session.load(room('b'))
    assert inside.wait(PATIENCE_S)
    changed = session.set_mode('lockstep')
    go_on.set()
    told = loaded.result(PATIENCE_S)
    assert (told.mode, told.state) == ('realtime', 'stopped')
    told = changed.result(PATIENCE_S)
    assert (told.mode, told.state) == ('lockstep', 'stopped')
    assert (session.status.scene, seen.modes) == ('b', [('lockstep', 0)])
    session.close()


def test_a_world_in_error_recovers_paused_in_stepped_mode():
    world = FakeWorld(script={3: RuntimeError('out of ideas')})
    session, _ = real(world, speed=0.0)
    wait_for(lambda: session.status.state == 'error')
    assert session.set_mode('stepped').result(PATIENCE_S).state == 'error'
    assert session.reset().result(PATIENCE_S).state == 'paused'
    assert session.advance(1).result(PATIENCE_S).mode == 'stepped'
    session.close()
