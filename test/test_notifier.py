# SPDX-License-Identifier: Apache-2.0
"""What a session tells: statuses, rates, late frames, messages that end. Time is handed in."""
from lingbot_world_ros.actions.command_spec import CommandCounts
from lingbot_world_ros.session.action_reader import Latched
from lingbot_world_ros.session.conditioning import Conditioning
from lingbot_world_ros.session.frame import Frame
from lingbot_world_ros.session.notifier import FrameMeter, Notifier
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.states import Fault, Mode, State
from lingbot_world_ros.session.status import SessionStatus
from lingbot_world_ros.worlds.definition import WorldDefinition
import numpy as np
import pytest

PERIOD_NS = 100_000_000  # of sim time
MS = 1_000_000


class Told(SessionObserver):
    """Keeps what it is told, in order."""

    def __init__(self):
        self.all = []

    def on_reset(self, status):
        self.all.append(('reset', status))

    def on_mode(self, status):
        self.all.append(('mode', status))

    def on_frame(self, frame):
        self.all.append(('frame', frame.index))

    def on_drawn(self, frame):
        self.all.append(('drawn', frame.index))

    def on_clock(self, stamp_ns):
        self.all.append(('clock', stamp_ns))

    def on_status(self, status):
        self.all.append(('status', status))

    @property
    def status(self):
        return [what for kind, what in self.all if kind == 'status'][-1]


def frame(index, uncertainty=0.25, calibrated=True, contact=0.5):
    zeros = np.zeros(3)
    return Frame(index, PERIOD_NS * index, np.full((2, 2, 3), index, np.uint8), None, zeros,
                 zeros, zeros, None, zeros, zeros, contact, uncertainty, calibrated)


def latched(sequence=7, accepted=3, since_ns=None):
    actions = np.full((1, 1, 2), float(sequence or 0), np.float32)
    counts = None if sequence is None else CommandCounts(accepted=accepted)
    return Latched(actions, sequence, counts, since_ns)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def notifier(told):
    made = Notifier([told], Mode.REALTIME, PERIOD_NS, num_rejected=lambda: 4)
    made.world_begins(WorldDefinition('home', 'a', 2), 5, mode=Mode.REALTIME, stamp_ns=PERIOD_NS,
                      conditioning=Conditioning('snow', 1))
    return made


def make_step(notifier, note='', **kwargs):
    """Tell of a step of one frame."""
    step = latched(**kwargs)
    notifier.step_begins(step, Conditioning('snow'), note)
    notifier.show(frame(notifier.status.frame + 1))
    notifier.count(frame(notifier.status.frame + 1), 0)
    notifier.step_ends(step, 0.02)


def test_the_rate_counts_gaps_of_the_last_second():
    meter = FrameMeter()
    assert (meter.add(0), meter.gap_ns) == (0.0, 0)
    assert meter.add(250 * MS) == pytest.approx(4.0) and meter.gap_ns == 250 * MS
    assert meter.add(500 * MS) == pytest.approx(4.0)
    assert meter.add(1000 * MS) == pytest.approx(3.0)  # three gaps in one second
    assert meter.gap_ns == 500 * MS
    assert meter.add(1100 * MS) == pytest.approx(3 / 0.85)  # that at 0 is older
    assert meter.add(9100 * MS) == pytest.approx(1 / 8.0)  # the last gap counts in any case
    meter.clear()
    assert (meter.add(9200 * MS), meter.gap_ns) == (0.0, 0)


def test_frames_of_one_moment_have_no_rate():
    meter = FrameMeter()
    meter.add(5)
    assert meter.add(5) == 0.0


def test_a_world_that_begins_forgets_all_but_what_was_counted(notifier, told):
    begun = told.all[-1]
    assert begun == ('reset', notifier.status)
    status = notifier.status
    assert (status.world, status.scene, status.seed, status.stamp_ns) == ('home', 'a', 5,
                                                                          PERIOD_NS)
    assert (status.prompt, status.images_anchored) == ('snow', 0)
    make_step(notifier, note='Recovered.')
    notifier.note(state=State.PLAYING)
    notifier.world_begins(WorldDefinition('home', 'b', 2), 6, mode=Mode.STEPPED, stamp_ns=0,
                          conditioning=Conditioning())
    status = notifier.status
    assert (status.state, status.mode, status.scene, status.step) == ('playing', 'stepped', 'b', 0)
    assert (status.recoveries, status.counts.accepted, status.message) == (1, 3, '')
    assert status.digest == '' and status.actions is None


def test_every_status_tells_how_many_embeddings_were_refused(notifier, told):
    assert notifier.status.rejected_embeddings == 0
    notifier.tell(state=State.PAUSED)
    assert (told.status.rejected_embeddings, told.status.state) == (4, State.PAUSED)


def test_a_note_is_told_with_the_next_status(notifier, told):
    num_told = len(told.all)
    notifier.note(prompt='rain')
    assert len(told.all) == num_told and notifier.status.prompt == 'rain'
    notifier.tell()
    assert told.status.prompt == 'rain'


def test_a_world_that_stands_still_has_no_rate(notifier, told):
    notifier.count(frame(1), 0)
    notifier.count(frame(2), 50 * MS)
    notifier.tell()
    assert (told.status.frame_rate_hz, told.status.real_time_factor) == pytest.approx((20.0, 2.0))
    notifier.stand_still(State.PAUSED, message='why')
    assert (told.status.frame_rate_hz, told.status.real_time_factor) == (0.0, 0.0)
    assert (told.status.state, told.status.message) == ('paused', 'why')


def test_a_step_is_told_with_what_it_was_made_with(notifier, told):
    step = latched(sequence=7)
    notifier.step_begins(step, Conditioning('rain', 2), '')
    notifier.count(frame(1), 0)
    assert told.all[-1][0] == 'reset'  # nothing yet
    notifier.step_ends(step, 0.02)
    status = told.status
    assert (status.step, status.prompt, status.images_anchored) == (1, 'rain', 2)
    assert (status.embedding_sequence, status.counts.accepted) == (7, 3)
    assert (status.step_duration_s, status.actions.tolist()) == (0.02, [[7.0, 7.0]])
    make_step(notifier, sequence=None)  # nothing new was commanded
    assert (told.status.step, told.status.embedding_sequence) == (2, 7)
    assert told.status.counts.accepted == 3 and told.status.actions.tolist() == [[0.0, 0.0]]


def test_a_frame_is_counted_with_its_latency_and_whether_it_was_late(notifier):
    notifier.count(frame(1, 0.5, False, 0.75), 0, is_late=True, latency_s=0.3)
    notifier.count(frame(2), 0)
    status = notifier.status
    assert (status.frame, status.stamp_ns, status.late_frames) == (2, 2 * PERIOD_NS, 1)
    assert status.command_latency_s == 0.3  # of the newest command
    assert (status.uncertainty, status.calibrated, status.contact) == (0.25, True, 0.5)
    notifier.count(frame(3), 0, latency_s=0.0)
    assert notifier.status.command_latency_s == 0.0


def test_the_digest_follows_every_frame(notifier):
    digests = []
    for index in (1, 2):
        notifier.count(frame(index), 0)
        digests.append(notifier.status.digest)
    assert len(set(digests)) == 2 and all(len(digest) == 16 for digest in digests)


def test_a_recovery_is_told_for_a_while(notifier, told):
    make_step(notifier, note='Recovered.')
    assert (told.status.recoveries, told.status.message) == (1, 'Recovered.')
    for _ in range(73):
        make_step(notifier)
    assert told.status.message == 'Recovered.'
    make_step(notifier)
    assert (told.status.message, told.status.recoveries) == ('', 1)


def test_a_step_without_a_command_is_told_in_its_own_status(notifier, told):
    notifier.no_command(1.5)
    make_step(notifier)
    assert told.status.lockstep_timeouts == 1
    assert told.status.message == ('lockstep: no command came for 1.5 s (lockstep_timeout_s), so '
                                   'a step was made without one; 1 so far.')
    make_step(notifier)
    assert (told.status.message, told.status.lockstep_timeouts) == ('', 1)


def test_what_was_set_from_outside_is_told_at_once_and_with_the_next_step(notifier, told):
    notifier.anchored((1.0, 2.0))
    assert told.status.anchor == (1.0, 2.0)
    make_step(notifier)
    assert (told.status.step, told.status.anchor) == (1, (1.0, 2.0))
    make_step(notifier)
    assert told.status.anchor == ()


def test_a_world_that_begins_has_nothing_set_from_outside(notifier, told):
    notifier.anchored((1.0, 2.0))
    notifier.world_begins(WorldDefinition('home', 'a', 2), 5, mode=Mode.REALTIME, stamp_ns=0,
                          conditioning=Conditioning())
    make_step(notifier)
    assert told.status.anchor == ()


def test_the_rate_begins_anew_with_a_world_and_with_a_pace(notifier):
    for anew in (notifier.pace_begins, lambda: notifier.world_begins(
            WorldDefinition('home', 'a', 2), 5, mode=Mode.REALTIME, stamp_ns=0,
            conditioning=Conditioning())):
        notifier.count(frame(1), 0)
        notifier.count(frame(2), 50 * MS)
        assert notifier.gap_ns == 50 * MS
        anew()
        assert notifier.gap_ns == 0


def test_a_mode_is_told_to_a_world_as_it_began(notifier, told):
    make_step(notifier)
    notifier.mode_changes(Mode.LOCKSTEP)
    kind, status = told.all[-1]
    assert (kind, status.mode, status.step, status.stamp_ns) == ('mode', 'lockstep', 0, PERIOD_NS)
    assert (notifier.status.mode, notifier.status.step) == ('lockstep', 1)


def test_without_a_world_there_is_nobody_to_tell_a_mode(notifier, told):
    make_step(notifier)
    notifier.world_ends(3 * PERIOD_NS)
    status = told.status
    assert (status.state, status.mode, status.scene) == ('no_world', 'realtime', '')
    assert (status.stamp_ns, status.counts.accepted, status.step) == (3 * PERIOD_NS, 3, 0)
    num_told = len(told.all)
    notifier.mode_changes(Mode.STEPPED)
    assert len(told.all) == num_told and notifier.status.mode == 'stepped'


def test_time_alone_can_begin_anew(notifier, told):
    make_step(notifier)
    notifier.time_begins()
    kind, status = told.all[-1]
    assert (kind, status.stamp_ns, status.step) == ('reset', 0, 1)


def test_frames_pictures_and_ticks_go_to_the_observers(notifier, told):
    notifier.show(frame(3))
    notifier.draw(frame(4))
    notifier.tick(17)
    assert told.all[-3:] == [('frame', 3), ('drawn', 4), ('clock', 17)]


def test_a_status_begins_with_nothing():
    status = vars(SessionStatus(State.PAUSED, Mode.STEPPED))
    assert status.pop('state') == State.PAUSED and status.pop('mode') == Mode.STEPPED
    assert status.pop('counts') == CommandCounts() and status.pop('fault') == Fault.NONE
    assert status.pop('calibrated') is True
    assert all(value in (None, '', 0, ()) for value in status.values()), status
