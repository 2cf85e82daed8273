# SPDX-License-Identifier: Apache-2.0
"""Sessions over an engine that makes steps ahead: pace, latency, requests, faults, prompts."""
from dataclasses import replace
import logging
import threading

from fake_world import FakeChunkWorld, FakeClock, FakeWorld, SharedClock
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.session.clock import WallClock
from lingbot_world_ros.session.frame import frame_of
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Fault
from lingbot_world_ros.session.supervisor import Supervisor
import numpy as np
import pytest
from test_session import embedding_of, PERIOD_NS, RealWait, Recorder, refusal, room
from waiting import PATIENCE_S, wait_for

LOG = logging.getLogger('test')
NUM_FRAMES = 12
PLAY_NS = NUM_FRAMES * PERIOD_NS


def ahead(world, *, at=None, stop_at=None, clock=None, source=None, paused=False,
          make_world=None, **spec):
    """Start a session over fake time that its engine's thread shares."""
    world.clock = clock = clock or SharedClock()
    seen = Recorder(clock, stop_at=stop_at)
    spec = SessionSpec(**{'initial_state': 'paused' if paused else 'playing',
                          'clock_rate_hz': 0.0, **spec})
    session = seen.session = Session(world, spec, observers=[seen], log=LOG, clock=clock,
                                     make_world=make_world)
    seen.at = {n: (lambda do=do: do(session)) for n, do in (at or {}).items()}
    clock.engine = session._engine
    if source is not None:
        session.link(source)
    session.start(room()).result(PATIENCE_S)
    if paused:
        wait_for(lambda: session.status.state == 'paused')
    if stop_at is not None:
        assert seen.done.wait(PATIENCE_S)
    return session, seen


def gaps(seen, after=1 + NUM_FRAMES):
    """Return wall time between frames, in frame periods."""
    return np.diff(seen.frame_ns)[after:] / PERIOD_NS


def check_frames(seen):
    """No frame is missing, repeated or of another step than its place says."""
    assert [f.index for f in seen.frames] == list(range(1, len(seen.frames) + 1))
    assert [f.rgb[0, 0, 0] for f in seen.frames] == list(range(len(seen.frames)))
    assert [f.stamp_ns for f in seen.frames] == [PERIOD_NS * f.index for f in seen.frames]


@pytest.mark.parametrize('takes, finish, gap, factor', [
    (0.6, 0.0, 1.0, 1.0), (0.6, 0.3, 1.0, 1.0), (0.98, 0.0, 1.0, 1.0), (2.0, 0.0, 2.0, 0.5),
    (1.6, 0.4, 2.0, 0.5)])
def test_frames_are_evenly_spaced_and_sim_time_is_as_fast_as_the_engine(takes, finish, gap,
                                                                        factor):
    factors = []
    world = FakeChunkWorld(takes_ns=lambda step: round(takes * PLAY_NS),
                           finish_ns=round(finish * PLAY_NS))
    session, seen = ahead(world, at={80: lambda session: factors.append(
        session.status.real_time_factor)}, stop_at=85)
    session.close()
    check_frames(seen)
    assert gaps(seen, 2 * NUM_FRAMES)[:50] == pytest.approx(gap, abs=1e-3)
    assert factors == pytest.approx([factor], rel=1e-3)


def test_uneven_engine_that_is_fast_enough_shows_no_uneven_frame():
    takes = np.random.default_rng(3).uniform(0.55, 0.6, 99)
    world = FakeChunkWorld(takes_ns=lambda step: round(takes[step] * PLAY_NS))
    session, seen = ahead(world, stop_at=20 * NUM_FRAMES)
    session.close()
    check_frames(seen)
    assert gaps(seen)[:200] == pytest.approx(1.0, abs=1e-3)


def test_late_step_is_caught_up_evenly():
    world = FakeChunkWorld(takes_ns=lambda step: round((1.2 if step == 5 else 0.6) * PLAY_NS))
    session, seen = ahead(world, stop_at=10 * NUM_FRAMES)
    session.close()
    between = gaps(seen, 0)
    late = int(np.argmax(between[NUM_FRAMES:])) + NUM_FRAMES
    assert between[late] > 3.0 and between[late + 1:late + NUM_FRAMES] == pytest.approx(
        between[late + 1]) and between[late + 1] < 1.0
    total = np.sum(between[late - 5:late + 4 * NUM_FRAMES])
    assert total == pytest.approx(5 + 4 * NUM_FRAMES, abs=1e-3)
    assert session.status.late_frames > 0


@pytest.mark.parametrize('takes, before, latency', [
    (0.6, 0.01, 0.66 + 0.01),  # just before it is latched: what making takes, and 10 %
    (0.6, 0.50, 0.66 + 0.50),
    (0.6, 0.99, 0.66 + 0.99),  # just missed
    (2.0, 0.50, 2.00 + 0.50),  # back to back: what making takes
    (2.0, 1.90, 2.00 + 1.90)])
def test_command_to_first_frame_takes_what_the_document_says(takes, before, latency):
    clock = SharedClock()
    cycle = max(1.0, takes)
    world = FakeChunkWorld(takes_ns=lambda step: round(takes * PLAY_NS))

    class Source:
        """Latches at known times; a command comes in some time before one of them."""

        latched_ns = []

        def catch_up(self):
            pass

        def pull(self, sim_ns, joint_position, by_step):
            self.latched_ns.append(clock.now_ns())
            if len(self.latched_ns) == 6:  # as if it had come earlier
                session._reader.latch.command_arrived(1, clock.now_ns() - round(before * PLAY_NS))
            return embedding_of(world, 0.1, accepted=1)

    source = Source()
    clock.engine = None
    seen = Recorder(clock, stop_at=8 * NUM_FRAMES)
    session = seen.session = Session(world, SessionSpec(clock_rate_hz=0.0), observers=[seen],
                                     log=LOG, clock=clock)
    world.clock, clock.engine = clock, session._engine
    session.link(source)
    session.start(room()).result(PATIENCE_S)
    assert seen.done.wait(PATIENCE_S)
    session.close()
    assert np.diff(source.latched_ns)[3:7] == pytest.approx(cycle * PLAY_NS, rel=1e-3)
    assert session.status.command_latency_s == pytest.approx(latency * PLAY_NS * 1e-9, rel=0.02)


class Sums:
    """Stands for an encoder; remembers the sim times it was asked for."""

    def __init__(self, world):
        self.world, self.asked, self.by_steps, self.speed = world, [], [], 0.0

    def catch_up(self):
        pass

    def pull(self, sim_ns, joint_position, by_step):
        self.asked.append(sim_ns)
        self.by_steps.append(by_step)
        return embedding_of(self.world, self.speed, sequence=len(self.asked))


@pytest.mark.parametrize('takes', [0.6, 2.0])
def test_encoder_is_asked_for_the_end_of_the_step_that_is_shown(takes):
    world = FakeChunkWorld(takes_ns=lambda step: round(takes * PLAY_NS))
    source = Sums(world)
    session, seen = ahead(world, source=source, stop_at=4 * NUM_FRAMES)
    session.close()
    assert source.asked == [PERIOD_NS * (1 + NUM_FRAMES * n) for n in range(len(source.asked))]
    assert len(source.asked) >= 4 and not any(source.by_steps)


def test_what_clients_see_is_never_ahead_of_what_was_shown():
    world, poses, rooms = FakeChunkWorld(), [], []

    def look(session):
        poses.append(session.entities()['robot'].pose[0])
        rooms.append((session.status.stamp_ns, session.status.step, session.sim_ns))
    source = Sums(world)
    source.speed = 0.3
    session, seen = ahead(world, source=source, stop_at=40,
                          at={n: look for n in range(3, 39)})
    session.close()
    assert poses == pytest.approx([f.base_pose[0] for f in seen.frames[2:38]])
    assert [sim for _, _, sim in rooms] == [PERIOD_NS * n for n in range(3, 39)]
    assert [stamp for stamp, _, _ in rooms] == [PERIOD_NS * n for n in range(2, 38)]
    assert [step for _, step, _ in rooms] == [(n - 2) // NUM_FRAMES for n in range(3, 39)]
    told = [s for s in seen.statuses if s.step]
    assert {s.frame for s in told if s.state == 'playing'} <= {1 + NUM_FRAMES * n
                                                               for n in range(9)}


@pytest.mark.parametrize('takes', [0.6, 2.0])
@pytest.mark.parametrize('frame', [20, 24, 25, 26, 36])
def test_pause_answers_at_once_at_the_end_of_a_step_and_the_next_step_obeys(takes, frame):
    world, answers = FakeChunkWorld(takes_ns=lambda step: round(takes * PLAY_NS)), []
    source = Sums(world)

    def pause(session):
        session.pause().add_done_callback(lambda done: answers.append(
            (clock.now_ns(), done.result())))
    clock = SharedClock()
    session, seen = ahead(world, clock=clock, source=source, at={frame: pause})
    wait_for(lambda: answers)
    (answered_ns, status), = answers
    assert answered_ns == seen.frame_ns[frame - 1]
    shown = len(seen.frames)
    assert (shown - 1) % NUM_FRAMES == 0 and shown - frame < NUM_FRAMES
    assert status.state == 'paused' and status.stamp_ns == PERIOD_NS * shown
    assert status.step == (shown - 1) // NUM_FRAMES == session.status.step
    assert seen.clocks[-1] == status.stamp_ns
    source.speed = 0.25
    step = session.advance(1).result(PATIENCE_S)
    session.close()
    assert step.step == status.step + 1 and step.actions[:, 0] == pytest.approx(0.25)
    assert source.asked[-1] == status.stamp_ns and source.by_steps[-1]
    check_frames(seen)
    moved = np.diff([f.base_pose[0] for f in seen.frames])
    assert moved[:shown - 1] == pytest.approx(0.0)
    assert moved[shown - 1:] == pytest.approx(0.25 * PERIOD_NS * 1e-9, rel=1e-3)


def test_command_whose_step_was_taken_back_counts_from_when_it_came():
    world = FakeChunkWorld(takes_ns=lambda step: 2 * PLAY_NS)
    clock = SharedClock()
    session, seen = ahead(world, clock=clock, at={
        13: lambda session: session.set_embedding(embedding_of(world, 0.1, accepted=1)),
        27: lambda session: session.pause()})
    wait_for(lambda: session.status.state == 'paused')
    session.advance(1).result(PATIENCE_S)
    session.close()
    # It came right before step 2 was latched, so it is answered there, once.
    assert len(session.latencies_s()) == 1


@pytest.mark.parametrize('request_', ['reset', 'stop', 'load', 'unload', 'anchor', 'close'])
@pytest.mark.parametrize('frame', [20, 24])
def test_other_requests_end_the_step_and_drop_the_next_too(request_, frame):
    world = FakeChunkWorld(takes_ns=lambda step: round(0.6 * PLAY_NS))
    image = np.full((4, 5, 3), 7, np.uint8)
    requests = {'reset': lambda session: session.reset(), 'stop': lambda session: session.stop(),
                'load': lambda session: session.load(room('b')),
                'unload': lambda session: session.unload(),
                'anchor': lambda session: session.anchor_image(image),
                'close': lambda session: threading.Thread(target=session.close).start()}
    answers = []

    def ask(session):
        answers.append(requests[request_](session))
        if request_ == 'close':
            wait_for(lambda: session._worker.is_closing)
    session, seen = ahead(world, at={frame: ask})
    wait_for(lambda: answers)
    if request_ != 'close':
        answers[0].result(PATIENCE_S)
    session.close()
    told = [s for s in seen.statuses if s.step == 2]
    assert told and told[0].frame == 1 + 2 * NUM_FRAMES
    assert world.closed and 'undo' in world.calls
    stamps = [f.stamp_ns for f in seen.frames]
    assert stamps[:25] == [PERIOD_NS * n for n in range(1, 26)]


def test_play_goes_on_where_a_pause_stopped_it():
    world = FakeChunkWorld(takes_ns=lambda step: round(0.6 * PLAY_NS))
    session, seen = ahead(world, at={20: lambda session: (session.pause(), session.play())},
                          stop_at=70)
    session.close()
    check_frames(seen)
    assert world.calls.count('undo') >= 1


@pytest.mark.parametrize('cheap', [False, True])
@pytest.mark.parametrize('fault', [RuntimeError('hiccup'), 'nan', 'finish'])
def test_step_ahead_that_fails_once_is_made_again(fault, cheap):
    faults = {} if fault == 'finish' else {3: fault}
    world = FakeChunkWorld(script=faults, cheap_snapshots=cheap, fail_finish=(
        [RuntimeError('no cache')] if fault == 'finish' else []))
    session, seen = ahead(world, stop_at=5 * NUM_FRAMES)
    session.close()
    check_frames(seen)
    status = session.status
    assert status.recoveries == 1 and status.message.startswith(
        'Recovered from the last good state' if cheap else 'Recovered by a second try')


def test_step_ahead_that_fails_twice_stops_time_after_the_frames_before_it():
    world = FakeChunkWorld(script={3: RuntimeError('out of ideas'), 4: RuntimeError('again')})
    session, seen = ahead(world)
    wait_for(lambda: session.status.state == 'error')
    assert len(seen.frames) == 1 + 2 * NUM_FRAMES and 'again' in session.status.message
    assert gaps(seen) == pytest.approx(1.0, abs=1e-3)
    assert refusal(session.play()) == 'engine'
    assert session.reset().result(PATIENCE_S).state == 'playing'
    session.close()


def test_step_ahead_that_hangs_is_given_up_and_a_new_engine_comes_with_the_reset():
    clock, release = RealWait(), threading.Event()
    world = FakeChunkWorld(script={3: lambda: release.wait(PATIENCE_S)})
    clock.work = lambda duration_ns: None
    session, seen = ahead(world, clock=clock, speed=0.0, make_world=FakeChunkWorld)
    wait_for(lambda: world._num_made == 3)
    session.check_engine()
    assert session.status.state == 'playing'
    clock.offset_ns += 11_000_000_000
    session.check_engine()
    wait_for(lambda: session.status.state == 'error')
    assert session.status.fault == Fault.HUNG and refusal(session.advance()) == 'engine'
    assert session.reset().result(PATIENCE_S).state == 'playing'
    release.set()
    wait_for(lambda: session.status.step > 3)
    session.close()
    assert [f.index for f in seen.frames[:25]] == list(range(1, 26))


@pytest.mark.parametrize('request_', [None, 'play', 'advance', 'reset'])
def test_a_paused_engine_that_hangs_is_an_error_and_requests_get_their_answers(request_):
    clock, release = RealWait(), threading.Event()
    world = FakeChunkWorld(script={2: lambda: release.wait(PATIENCE_S)})
    clock.work = lambda duration_ns: None
    session, seen = ahead(world, clock=clock, speed=0.0)
    wait_for(lambda: world._num_made == 2)
    pause = session.pause()
    assert pause.result(PATIENCE_S).state == 'paused'
    asked = getattr(session, request_)() if request_ else None
    if request_ == 'play':
        asked.result(PATIENCE_S)
    wait_for(lambda: not session._worker.num_waiting)
    clock.offset_ns += 11_000_000_000
    session.check_engine()
    wait_for(lambda: session.status.state == 'error')
    if request_ in ('advance', 'reset'):
        with pytest.raises(TimeoutError):
            asked.result(PATIENCE_S)
    release.set()
    session.close()


def test_close_waits_for_the_step_ahead_and_closes_the_engine():
    clock, release = RealWait(), threading.Event()
    world = FakeChunkWorld(script={2: lambda: release.wait(PATIENCE_S)})
    clock.work = lambda duration_ns: None
    session, seen = ahead(world, clock=clock, speed=0.0)
    wait_for(lambda: world._num_made == 2)
    threading.Timer(0.05, release.set).start()
    session.close()
    assert world.closed and session.status.state == 'stopped'
    assert len(seen.frames) == 1 + NUM_FRAMES


def test_answer_of_a_step_does_not_wait_for_what_only_the_next_needs():
    world = FakeChunkWorld(takes_ns=lambda step: PLAY_NS, finish_ns=PLAY_NS)
    session, seen = ahead(world, paused=True)
    start_ns = seen.clock.now_ns()
    times = []
    for _ in range(2):
        session.advance(1, lambda done, left: times.append(seen.clock.now_ns())).result(PATIENCE_S)
    session.close()
    check_frames(seen)
    assert times[0] - start_ns == PLAY_NS
    assert times[1] - start_ns == 3 * PLAY_NS
    assert world.calls[:5] == ['reset', 'step', 'finish', 'step', 'finish']


def test_same_actions_give_the_same_bytes_played_or_stepped():
    def digests(**how):
        world = FakeChunkWorld(takes_ns=lambda step: PLAY_NS // 2)
        session, seen = ahead(world, **how)
        if how.get('mode') == 'stepped':
            wait_for(lambda: session.status.state == 'paused')
            session.advance(3).result(PATIENCE_S)
        session.close()
        return {s.step: s.digest for s in seen.statuses if s.step < 4}
    assert digests(stop_at=4 * NUM_FRAMES)[3] == digests(mode='stepped')[3]


def test_prompt_holds_from_the_next_step_and_until_the_reset():
    world = FakeChunkWorld()
    session, seen = ahead(world, paused=True)
    assert session.status.prompt == ''
    assert session.set_prompt('snow').result(PATIENCE_S).prompt == 'snow'
    session.advance(1).result(PATIENCE_S)
    assert seen.frames[-1].rgb[0, 0, 1] == 4 and session.status.prompt == 'snow'
    assert session.reset().result(PATIENCE_S).prompt == '' == world._prompt
    status = session.load(room(prompt='a kitchen')).result(PATIENCE_S)
    session.close()
    assert status.prompt == 'a kitchen' and world.starts[-1].prompt == 'a kitchen'


@pytest.mark.parametrize('takes', [0.6, 2.0])
def test_prompt_while_playing_interrupts_nothing_and_steps_tell_theirs(takes):
    world, asked = FakeChunkWorld(takes_ns=lambda step: round(takes * PLAY_NS)), []
    session, seen = ahead(world, at={30: lambda session: asked.extend(
        (session.set_prompt('dusk'), session.set_prompt('snow')))}, stop_at=80)
    assert refusal(asked[0]) == 'interrupted'
    asked[1].result(PATIENCE_S)
    session.close()
    check_frames(seen)
    assert gaps(seen, 2 * NUM_FRAMES)[:50] == pytest.approx(max(1.0, takes), abs=1e-3)
    prompts = {s.step: s.prompt for s in seen.statuses if s.step}
    lengths = [int(f.rgb[0, 0, 1]) for f in seen.frames]
    for step, prompt in prompts.items():
        first = 1 + NUM_FRAMES * (step - 1)
        assert set(lengths[first:first + NUM_FRAMES]) == {len(prompt)}, step
    assert {len(p) for p in prompts.values()} == {0, 4}


def test_prompt_is_prepared_ahead_where_the_engine_can():
    world, prepared = FakeChunkWorld(), []
    world.spec = replace(world.spec, can=replace(world.spec.can, prepare_prompt=True))
    world.prepare_prompt = prepared.append
    session, seen = ahead(world, paused=True)
    assert session.set_prompt('snow').result(PATIENCE_S).prompt == 'snow'
    world.prepare_prompt = lambda text: 1 / 0
    assert refusal(session.set_prompt('rain')) == 'engine'
    assert session.status.state == 'paused' and session.status.prompt == 'snow'
    session.close()


def test_prompts_that_are_being_prepared_are_cancelled_when_the_session_ends():
    world, kept = FakeChunkWorld(), threading.Event()
    world.spec = replace(world.spec, can=replace(world.spec.can, prepare_prompt=True))
    world.prepare_prompt = lambda text: kept.wait(PATIENCE_S)
    session, _ = ahead(world, paused=True)
    asked = [session.set_prompt(text) for text in ('snow', 'rain')]
    session.close()
    assert all(prompt.cancelled() for prompt in asked)
    kept.set()


def test_image_is_gone_on_from_and_counted_until_the_reset():
    world = FakeChunkWorld()
    session, seen = ahead(world, paused=True)
    image = np.full((5, 9, 3), 200, np.uint8)
    status = session.anchor_image(image).result(PATIENCE_S)
    assert status.images_anchored == 1 and status.frame == 1
    assert session.advance(1).result(PATIENCE_S).images_anchored == 1
    assert seen.frames[-1].rgb[0, 0, 2] == 200
    with pytest.raises(SpecError, match='uint8'):
        session.anchor_image(image.astype(float))
    assert session.reset().result(PATIENCE_S).images_anchored == 0
    session.close()


def test_start_pose_does_not_put_an_image_in():
    world = FakeChunkWorld()
    session, seen = ahead(world, paused=True)
    session.load(room('b', start_pose=(3.0, 4.0, 0.5))).result(PATIENCE_S)
    session.close()
    assert seen.frames[-1].base_pose.tolist() == [3.0, 4.0, 0.5]
    assert seen.frames[-1].rgb is not None  # the engine shows none: that of the start stays
    assert session.status.images_anchored == 0


def test_what_an_engine_cannot_do_is_refused():
    session, _ = ahead(FakeChunkWorld(), paused=True)
    assert refusal(session.move('robot', pose=(0, 0, 0))) == 'unsupported'
    session.close()
    plain = Session(FakeWorld(), SessionSpec(clock_rate_hz=0.0), observers=(), log=LOG,
                    clock=FakeClock())
    assert refusal(plain.set_prompt('snow')) == 'unsupported'
    assert refusal(plain.anchor_image(np.zeros((2, 2, 3), np.uint8))) == 'unsupported'
    plain.close()


def test_uncertainty_that_is_not_estimated_is_not_a_number_and_not_calibrated():
    session, seen = ahead(FakeChunkWorld(), paused=True)
    session.close()
    assert np.isnan(seen.frames[0].uncertainty) and not seen.frames[0].calibrated


def test_uncertainty_is_calibrated_unless_the_engine_says_it_is_not():
    seen = FakeWorld().reset('a', 0)
    for calibrated in (None, np.ones((1, 1), bool), np.zeros((1, 1), bool)):
        frame = frame_of(replace(seen, calibrated=calibrated), 0, 1, PERIOD_NS, np.zeros(3))
        assert frame.uncertainty == pytest.approx(0.05)
        assert frame.calibrated is (calibrated is None or bool(calibrated.all()))


def test_load_that_fails_goes_back_if_nothing_changed_and_is_an_error_if_not():
    class Picky(FakeChunkWorld):
        def reset(self, scene, seed, render=True, start=None):
            observation = super().reset(scene, seed, start=start)
            if start.prompt == 'impossible':
                raise RuntimeError('cannot imagine that')
            return observation

    session, seen = ahead(Picky(), paused=True)
    before = session.advance(1).result(PATIENCE_S)
    assert refusal(session.load(room('b', images=('missing.png',)))) == 'engine'
    error = session.load(room('b', images=('missing.png',))).exception(10.0)
    assert str(error).endswith('the one before goes on: missing.png is not there')
    assert (session.status.state, session.status.digest) == ('paused', before.digest)
    session.advance(1).result(PATIENCE_S)
    check_frames(seen)
    with pytest.raises(RuntimeError):
        session.load(room('b', prompt='impossible')).result(PATIENCE_S)
    wait_for(lambda: session.status.state == 'error')
    assert session.status.scene == 'a'
    assert session.reset().result(PATIENCE_S).state == 'paused'
    session.close()


def test_prompt_that_the_engine_fails_at_leaves_the_world_as_it_was():
    world = FakeChunkWorld()
    session, _ = ahead(world, paused=True)
    world.set_prompt = lambda text: (_ for _ in ()).throw(RuntimeError('no words'))
    assert 'no words' in str(session.set_prompt('snow').exception(10.0))
    assert session.advance(1).result(PATIENCE_S).step == 1
    session.close()


def test_first_step_that_fails_goes_back_to_where_nothing_is_unfinished():
    world = FakeChunkWorld(script={1: RuntimeError('hiccup')}, cheap_snapshots=True)
    session, _ = ahead(world, paused=True)
    status = session.advance(1).result(PATIENCE_S)
    session.close()
    assert (status.step, status.recoveries) == (1, 1)
    assert [call for call in world.calls if call != 'finish'] == ['reset', 'step', 'step']


@pytest.mark.parametrize('num_frames, can_undo, makes_ahead', [
    (2, True, True), (1, True, False), (2, False, False)])
def test_steps_of_several_frames_that_can_be_taken_back_are_made_ahead(num_frames, can_undo,
                                                                       makes_ahead):
    world = FakeChunkWorld(num_frames)
    world.spec = replace(world.spec, can=replace(world.spec.can, undo_step=can_undo))
    engine = Supervisor(world, wake=threading.Condition(), clock=WallClock(), log=LOG,
                        timeout_s=lambda: 60.0)
    assert engine.makes_ahead is makes_ahead


@pytest.mark.parametrize('fault, calls', [(None, ['reset', 'step', 'undo']),
                                          (RuntimeError('no'), ['reset', 'step'])])
def test_dropped_step_is_neither_finished_nor_tried_again(fault, calls):
    def hold():
        begun.set()
        assert release.wait(10.0)
        if fault is not None:
            raise fault
    begun, release = threading.Event(), threading.Event()
    world = FakeChunkWorld(script={1: hold})
    engine = Supervisor(world, wake=threading.Condition(), clock=WallClock(), log=LOG,
                        timeout_s=lambda: 60.0, make_world=None, is_watched=lambda: True)
    engine.reset(room(), 0)
    assert not engine.drop()
    engine.begin_step(np.zeros((1, NUM_FRAMES, len(world.spec.action.dims)), np.float32))
    assert begun.wait(PATIENCE_S) and engine.has_begun and not engine.has_made
    assert engine.drop() and not engine.has_begun
    release.set()
    engine.close()
    assert world.calls == calls and world.closed


def test_step_that_cannot_be_taken_back_is_an_error_of_the_next_one_until_a_reset():
    class Stubborn(FakeChunkWorld):
        def undo_step(self):
            raise RuntimeError('too late')

    world = Stubborn(takes_ns=lambda step: 2 * PLAY_NS)
    session, seen = ahead(world, at={20: lambda session: session.pause()})
    wait_for(lambda: session.status.state == 'paused')
    with pytest.raises(RuntimeError, match='too late'):
        session.advance(1).result(PATIENCE_S)
    assert session.status.state == 'error'
    assert session.reset().result(PATIENCE_S).state == 'paused'
    assert session.advance(1).result(PATIENCE_S).frame == 1 + NUM_FRAMES
    session.close()


def test_engine_that_cannot_take_steps_back_is_stepped_when_the_last_frame_has_left():
    world = FakeChunkWorld()
    world.spec = replace(world.spec, can=replace(world.spec.can, undo_step=False))
    session, seen = ahead(world, stop_at=3 * NUM_FRAMES)
    session.close()
    check_frames(seen)
    assert gaps(seen, 0)[:30] == pytest.approx(1.0, abs=1e-3)
    assert world.calls[:4] == ['reset', 'step', 'finish', 'step'] and 'undo' not in world.calls


def test_lockstep_makes_one_step_per_command():
    world = FakeChunkWorld()
    clock = RealWait()
    clock.work = lambda duration_ns: None
    session, seen = ahead(world, clock=clock, mode='lockstep', lockstep_timeout_s=60.0)
    wait_for(lambda: session.status.state == 'playing')
    for number in range(1, 4):
        session.set_embedding(embedding_of(world, 0.1 * number, accepted=number))
        wait_for(lambda: session.status.step == number)
    session.close()
    check_frames(seen)
    assert [a[0, 0, 0] for a in world.actions] == pytest.approx([0.1, 0.2, 0.3])
    assert len(seen.frames) == 1 + 3 * NUM_FRAMES
