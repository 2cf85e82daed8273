# SPDX-License-Identifier: Apache-2.0
"""What a step acts on: the newest embedding, an encoder's answer, silence. Time is moved."""
from dataclasses import replace
import threading

from fake_world import FakeClock, FakeWorld
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.session.action_reader import ActionReader
from lingbot_world_ros.session.latch import EmbeddingLatch
import numpy as np
import pytest
from test_session import embedding_of, PERIOD_NS

MS = 1_000_000


class Fixture:
    """A reader of a fake world that stands still."""

    def __init__(self, num_frames=1, lag_s=0.0):
        world = FakeWorld(frames_per_step=num_frames)
        robot = world.spec.robot
        joints = tuple(replace(joint, lag_s=lag_s) for joint in robot.joints)
        world.spec = replace(world.spec, robot=replace(robot, joints=joints))
        self.world, self.clock, self.is_closing = world, FakeClock(), False
        self.seen = world.reset('a', 0)
        self.reader = ActionReader(world.spec, clock=self.clock, wake=threading.Condition(),
                                   is_closing=lambda: self.is_closing)

    def read(self, start_ns=0, by_step=False, by_wall=True, timeout_s=0.5):
        with_latch = self.reader.read(self.seen, start_ns, timeout_s=timeout_s, by_step=by_step,
                                      by_wall=by_wall)
        assert with_latch.actions.shape[:2] == (1, self.world.spec.frames_per_step)
        assert with_latch.actions.dtype == np.float32
        return with_latch


@pytest.fixture
def it():
    return Fixture()


def test_without_an_embedding_the_robot_stands_still(it):
    latched = it.read()
    assert not latched.actions.any()
    assert (latched.sequence, latched.counts, latched.since_ns) == (None, None, None)


@pytest.mark.parametrize('age_ms, by_wall, moves', [
    (500, True, True), (501, True, False), (501, False, True)])
def test_an_embedding_is_silence_after_the_timeout_of_wall_time(it, age_ms, by_wall, moves):
    it.reader.put(embedding_of(it.world, 0.3, sequence=5, accepted=2))
    came_ns = it.clock.time_ns
    it.clock.time_ns += age_ms * MS
    latched = it.read(by_wall=by_wall)
    assert latched.actions.any() == moves and latched.sequence == (5 if moves else None)
    assert latched.since_ns == came_ns
    if moves:
        assert latched.actions[0, 0, 0] == pytest.approx(0.3) and latched.counts.accepted == 2


def test_what_does_not_fit_is_counted_and_changes_nothing(it):
    it.reader.put(embedding_of(it.world, 0.3))
    for number in (1, 2):
        with pytest.raises(SpecError, match='layout'):
            it.reader.put(replace(embedding_of(it.world, 0.1), layout=('x',)))
        assert it.reader.num_rejected == number
    assert it.read().actions[0, 0, 0] == pytest.approx(0.3)


def test_a_joint_is_steered_from_where_it_comes_to_rest():
    it = Fixture(lag_s=0.1)
    name = it.world.spec.robot.joint_names[0]
    it.reader.put(embedding_of(it.world, joint=name, position=0.05))
    it.seen.joint_velocity[0, -1, 0] = 0.5  # coasts on for 0.05
    assert it.read().actions[0, 0, 2] == pytest.approx(0.0, abs=1e-6)
    it.seen.joint_velocity[0, -1, 0] = 0.0
    assert it.read().actions[0, 0, 2] > 0.1


def test_an_encoder_in_this_process_is_asked_instead(it):
    asked = []

    class Encoder:
        embedding = None

        def catch_up(self):
            asked.append('catch up')

        def pull(self, sim_ns, joint_position, by_step):
            asked.append((sim_ns, joint_position.tolist(), by_step))
            return self.embedding

    it.reader.catch_up()  # nobody is there
    it.reader.source = encoder = Encoder()
    it.reader.catch_up()
    assert not it.read(start_ns=7).actions.any()
    encoder.embedding = embedding_of(it.world, 0.2, sequence=9)
    it.reader.command_arrived(1)
    since_ns = it.clock.time_ns
    it.clock.time_ns += 10 ** 12  # of no age, however long ago commands came
    latched = it.read(start_ns=8, by_step=True)
    assert latched.actions[0, 0, 0] == pytest.approx(0.2)
    assert (latched.sequence, latched.since_ns) == (9, since_ns)
    home = it.world.spec.robot.joint_array('home').tolist()
    assert asked == ['catch up', (7, home, False), (8, home, True)]
    encoder.embedding = replace(encoder.embedding, layout=('x',))
    with pytest.raises(SpecError, match='layout'):
        it.read()


@pytest.mark.parametrize('valid_until, waits', [
    (0, False),  # for ever
    (3 * PERIOD_NS - 1, True), (3 * PERIOD_NS, False)])
def test_an_encoder_elsewhere_is_waited_for_where_its_word_ends_within_the_step(valid_until,
                                                                                waits):
    it = Fixture(num_frames=2)
    it.reader.put(replace(embedding_of(it.world, 0.2), valid_until_ns=valid_until))
    before_ns = it.clock.time_ns
    it.read(start_ns=PERIOD_NS, by_wall=False)
    assert it.clock.time_ns - before_ns == (500 * MS if waits else 0)
    before_ns = it.clock.time_ns
    it.read(start_ns=PERIOD_NS, by_wall=False)  # not for the same word again
    assert it.clock.time_ns == before_ns


def test_nobody_is_waited_for_by_a_session_that_ends(it):
    it.is_closing = True
    it.reader.put(replace(embedding_of(it.world, 0.2), valid_until_ns=1))
    before_ns = it.clock.time_ns
    it.read(by_wall=False)
    assert it.clock.time_ns == before_ns


def test_commands_are_those_since_the_newest_step(it):
    assert not it.reader.has_commands(1)
    it.reader.command_arrived(2)
    assert it.reader.has_commands(2) and not it.reader.has_commands(3)
    it.read()
    assert not it.reader.has_commands(1)
    it.reader.command_arrived(2)  # the same ones
    assert not it.reader.has_commands(1)
    it.reader.command_arrived(1)  # another encoder
    assert it.reader.has_commands(1) and not it.reader.has_commands(2)
    it.reader.clear()
    assert not it.reader.has_commands(1)


def test_latency_counts_from_the_first_command_that_a_step_answers(it):
    assert it.reader.answered(it.read(), it.clock.time_ns) is None
    it.reader.command_arrived(1)
    it.clock.time_ns += 100 * MS
    it.reader.command_arrived(2)
    latched = it.read()
    it.clock.time_ns += 50 * MS
    assert it.reader.answered(latched, it.clock.time_ns) == pytest.approx(0.15)
    assert it.reader.latencies_s() == pytest.approx([0.15])
    it.clock.time_ns += 5000 * MS
    assert len(it.reader.latencies_s()) == 1
    it.clock.time_ns += 1
    assert len(it.reader.latencies_s()) == 0


def test_commands_of_a_step_that_was_taken_back_wait_as_before(it):
    it.reader.command_arrived(1)
    came_ns = it.clock.time_ns
    latched = it.read()
    it.clock.time_ns += 100 * MS
    it.reader.command_arrived(2)
    it.reader.take_back(latched)
    assert it.read().since_ns == came_ns
    silent = it.read()
    it.reader.command_arrived(3)
    it.reader.take_back(silent)  # it answered nothing
    assert it.read().since_ns == it.clock.time_ns


def test_a_latch_keeps_so_many_samples_and_none_after_it_was_cleared():
    latch = EmbeddingLatch(max_samples=2)
    for number in range(1, 4):
        assert latch.frame_left(number, since_ns=0) == pytest.approx(number * 1e-9)
    assert latch.latencies_s(0) == pytest.approx([2e-9, 3e-9])
    assert latch.latencies_s(3) == pytest.approx([3e-9])
    latch.clear()
    assert len(latch.latencies_s(0)) == 0


def test_a_latch_is_one_slot_and_tells_the_age_of_what_is_in_it(it):
    latch = EmbeddingLatch()
    assert latch.newest is None and latch.take(5).embedding is None
    for number in (1, 2):
        embedding = embedding_of(it.world, sequence=number, accepted=number)
        latch.put(embedding, 10 * number)
        assert latch.newest is embedding
    taken = latch.take(25)
    assert (taken.embedding.sequence, taken.age_ns, taken.since_ns) == (2, 5, 10)
    assert latch.take(30) == (taken.embedding, 10, None)
    latch.clear()
    assert latch.newest is None
