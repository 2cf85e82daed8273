# SPDX-License-Identifier: Apache-2.0
"""How a session ends: with the step it is in, or without one that takes too long."""
import threading

from fake_world import FakeClock, FakeWorld
import pytest
from test_session import Recorder, refusal, room, run, wait_for

GUARD_S = 20.0  # only a failure gets near it


class Held(FakeWorld):
    """A step is under way until it is let go."""

    def __init__(self):
        super().__init__()
        self.begun, self.let_go = threading.Event(), threading.Event()

    def step(self, actions, render=True):
        self.begun.set()
        assert self.let_go.wait(GUARD_S)
        return super().step(actions, render)


@pytest.fixture
def held():
    world = Held()
    yield world
    world.let_go.set()


def closing(session, *patience):
    """Close a session from another thread, and return that."""
    thread = threading.Thread(target=session.close, args=patience, daemon=True)
    thread.start()
    return thread


def has_ended(thread):
    thread.join(GUARD_S)
    return not thread.is_alive()


def begun(world, **spec):
    session, _ = run(world, paused=True, **spec)
    asked = session.advance(3)
    assert world.begun.wait(GUARD_S)
    return session, asked


def test_a_step_that_takes_longer_than_steps_may_is_left_behind(held):
    session, _ = begun(held, step_timeout_s=0.02)
    assert has_ended(closing(session)) and not held.closed


def test_patience_can_be_less_than_a_step_may_take(held):
    session, _ = begun(held, step_timeout_s=1000.0)
    assert has_ended(closing(session, 0.02)) and not held.closed


def test_patience_can_be_more_than_a_step_may_take(held):
    session, asked = begun(held, step_timeout_s=0.02)
    thread = closing(session, 1000.0)
    wait_for(lambda: session._worker.is_closing)
    thread.join(0.1)
    assert thread.is_alive()
    held.let_go.set()
    assert has_ended(thread) and held.closed
    assert refusal(asked) == 'interrupted' and session.status.step == 1


def test_without_a_step_under_way_the_engine_is_closed_however_long_that_takes():
    class Slow(FakeWorld):
        def close(self):
            assert may_close.wait(GUARD_S)
            super().close()

    may_close, world = threading.Event(), Slow()
    session, _ = run(world, paused=True, step_timeout_s=0.02)
    thread = closing(session, 0.02)
    thread.join(0.2)
    assert thread.is_alive()
    may_close.set()
    assert has_ended(thread) and world.closed


def test_what_was_asked_and_not_done_is_cancelled_and_nothing_is_taken_on(held):
    session, _ = begun(held, step_timeout_s=0.02)
    waiting = [session.pause(), session.reset()]
    assert has_ended(closing(session))
    assert all(asked.cancelled() for asked in (*waiting, session.play()))


def test_a_session_that_never_began_ends_at_once():
    from lingbot_world_ros.session.session import Session
    from lingbot_world_ros.session.spec import SessionSpec
    world, seen = FakeWorld(), Recorder(FakeClock())
    session = Session(world, SessionSpec(), observers=[seen], log=None, clock=seen.clock)
    assert has_ended(closing(session))
    assert session.start(room()).cancelled() and not seen.frames
