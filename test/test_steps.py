# SPDX-License-Identifier: Apache-2.0
"""Steps of an engine: what is finished when, what is gone back to, what is taken back."""
import threading

from fake_world import FakeChunkWorld, FakeClock
from lingbot_world_ros.engines.interface import Start
from lingbot_world_ros.errors import EngineDiverged
from lingbot_world_ros.session.calls import Calls
from lingbot_world_ros.session.steps import Steps
import numpy as np
import pytest
from test_session import room, run

NUM_FRAMES = 2


class Fixture:
    """Steps of a fake engine that was just reset."""

    def __init__(self, cheap, **kwargs):
        self.world = FakeChunkWorld(NUM_FRAMES, cheap_snapshots=cheap, **kwargs)
        clock = FakeClock()
        self.steps = Steps(lambda: self.world, Calls(
            wake=threading.Condition(), clock=clock, timeout_s=lambda: 10.0, has_thread=False),
            clock)
        self.steps.begin()
        self.steps.keep(self.world.reset('a', 0, start=Start()))
        self.world.calls.clear()

    def make(self):
        spec = self.world.spec
        return self.steps.make(np.zeros((1, NUM_FRAMES, len(spec.action.dims)), np.float32),
                               render=True)


@pytest.mark.parametrize('cheap', [False, True])
def test_a_step_is_finished_once_and_before_the_next(cheap):
    it = Fixture(cheap)
    it.steps.finish()  # a reset leaves nothing to do
    it.make()
    it.steps.finish()
    it.steps.finish()
    it.make()
    assert it.world.calls == ['step', 'finish', 'step']


def test_going_back_to_a_step_leaves_its_work_to_be_done_again_and_to_a_reset_none():
    it = Fixture(cheap=True)
    assert it.steps.restore()
    it.steps.finish()
    assert it.world.calls == []
    it.make()
    it.steps.finish()
    assert it.steps.restore()  # to the step as it was before it was finished
    it.steps.finish()
    assert it.world.calls == ['step', 'finish', 'finish']


def test_without_snapshots_nothing_is_gone_back_to():
    it = Fixture(cheap=False)
    it.make()
    assert not it.steps.restore() and it.steps.good.snapshot is None


def test_work_that_failed_is_told_by_the_next_step_and_done_with_the_second_try():
    it = Fixture(cheap=False, fail_finish=[RuntimeError('no cache')])
    it.make()
    it.steps.finish()
    with pytest.raises(RuntimeError, match='no cache'):
        it.make()
    it.steps.try_again()
    it.make()
    assert it.world.calls == ['step', 'finish', 'finish', 'step']
    it.steps.try_again()  # a step that failed by itself was finished before
    it.make()
    assert it.world.calls[4:] == ['step']


def test_a_step_taken_back_leads_to_the_state_before_it_which_is_finished():
    it = Fixture(cheap=False)
    first = it.make()
    it.make()
    it.steps.take_back()
    assert it.steps.good.observation is first and it.steps.broken_by is None
    it.steps.finish()
    assert it.world.calls == ['step', 'finish', 'step', 'undo']


def test_a_step_that_went_bad_is_taken_back_or_breaks_what_cannot_go_back():
    it = Fixture(cheap=False)
    good = it.steps.good
    it.world.script = {1: 'nan'}
    with pytest.raises(EngineDiverged):
        it.make()
    assert it.steps.good is good
    assert it.world.calls == ['step', 'undo'] and it.steps.broken_by is None


def test_the_duration_of_a_step_is_told_in_seconds():
    clock = FakeClock()

    class Slow(FakeChunkWorld):
        def step(self, actions, render=True):
            clock.time_ns += 250_000_000
            return super().step(actions, render)

    session, _ = run(Slow(NUM_FRAMES), paused=True, clock=clock)
    assert session.advance(1).result(10.0).step_duration_s == pytest.approx(0.25)
    session.close()


def test_a_world_begins_with_the_joints_where_it_has_them():
    world = FakeChunkWorld(NUM_FRAMES)
    names = world.spec.robot.joint_names
    session, seen = run(world, paused=True)
    session.load(room('b', joints={names[2]: 0.25})).result(10.0)
    session.close()
    home = world.spec.robot.joint_array('home')
    assert seen.frames[-1].joint_position[2] == 0.25
    assert np.delete(seen.frames[-1].joint_position, 2).tolist() == np.delete(home, 2).tolist()
