# SPDX-License-Identifier: Apache-2.0
"""Sessions: sim time, pacing, late latching, pause, reset, errors. Time is moved, not slept."""
from dataclasses import replace
import logging
import threading
import time

from fake_world import FakeChunkWorld, FakeClock, FakeWorld
from lingbot_world_ros.actions.command_spec import CommandCounts, CommandSpec
from lingbot_world_ros.actions.commands import CommandBuffer
from lingbot_world_ros.actions.embedding import CarriedCamera, encode
from lingbot_world_ros.errors import EngineDiverged, SpecError
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.session.calls import Calls
from lingbot_world_ros.session.clock import ClockTicker, Sweep
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.requests import Refused
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Fault
from lingbot_world_ros.worlds.definition import WorldDefinition
import numpy as np
import pytest
from waiting import PATIENCE_S, wait_for

PERIOD_NS = 66_666_667
LOG = logging.getLogger('test')


class Recorder(SessionObserver):
    """Keeps what it is told; calls ``at[frame index]`` from the worker when that frame leaves."""

    def __init__(self, clock, at=None, stop_at=None):
        self.frames, self.frame_ns, self.statuses, self.resets = [], [], [], []
        self.clocks = []
        self.clock, self.at = clock, at or {}
        self.stop_at, self.done = stop_at, threading.Event()

    def on_reset(self, status):
        self.resets.append(status)

    def on_frame(self, frame):
        self.frames.append(frame)
        self.frame_ns.append(self.clock.now_ns())
        if len(self.frames) in self.at:
            self.at[len(self.frames)]()
        if len(self.frames) == self.stop_at:
            self.session.pause()
            self.done.set()

    def on_clock(self, stamp_ns):
        self.clocks.append(stamp_ns)

    def on_status(self, status):
        self.statuses.append(status)
        if status.state == 'error':
            self.done.set()


def room(scene='a', seed=0, **kwargs):
    return WorldDefinition(name=scene, scene=scene, seed=seed, **kwargs)


def run(world, *, stop_at=None, at=None, paused=False, clock=None, seed=0, make_world=None,
        **spec):
    """Start a session on a fake clock; it pauses itself after ``stop_at`` frames."""
    clock = clock or FakeClock()
    recorder = Recorder(clock, at, stop_at)
    spec = SessionSpec(**{'initial_state': 'paused' if paused else 'playing',
                          'clock_rate_hz': 0.0, **spec})
    session = Session(world, spec, observers=[recorder], log=LOG, clock=clock,
                      make_world=make_world)
    recorder.session = session
    session.start(room(seed=seed)).result(PATIENCE_S)
    if paused:
        wait_for(lambda: session.status.state in ('paused', 'stopped'))
    if stop_at:
        assert recorder.done.wait(PATIENCE_S)
        session.pause().exception(10.0)
    return session, recorder


def embedding_of(world, v=0.0, joint=None, position=None, accepted=1, sequence=1):
    spec = world.spec
    robot = spec.robot
    commands = CommandSpec(spec.action, robot.joint_names, tuple(robot.joint_array('low')),
                           tuple(robot.joint_array('high')), 0.5)
    buffer = CommandBuffer(commands)
    buffer.twist([v, 0, 0], [0, 0, 0], 0)
    if joint:
        buffer.joints([joint], [position], [], 0)
    camera = CarriedCamera(robot.camera, robot.camera.T_base_optical)
    return encode(buffer.targets(0, 0, 1, spec.frame_period_ns), commands, camera,
                  robot.joint_array('home'), sequence=sequence, stamp_ns=0,
                  period_s=1 / spec.frame_rate_hz, counts=CommandCounts(accepted=accepted))


def test_frames_are_one_period_apart_in_sim_time_and_in_wall_time():
    session, seen = run(FakeWorld(), stop_at=10)
    session.close()
    assert [f.stamp_ns for f in seen.frames] == [PERIOD_NS * n for n in range(1, 11)]
    assert [f.index for f in seen.frames] == list(range(1, 11))
    assert np.diff(seen.frame_ns).tolist() == [PERIOD_NS] * 9
    assert session.sim_ns == seen.frames[-1].stamp_ns
    assert seen.statuses[-1].state == 'stopped' and session.world.closed


@pytest.mark.parametrize('speed, gap_ns', [(2.0, 33_333_334), (0.0, 0)])
def test_speed_scales_wall_time_and_leaves_sim_time_alone(speed, gap_ns):
    session, seen = run(FakeWorld(), stop_at=5, speed=speed)
    session.close()
    assert [f.stamp_ns for f in seen.frames] == [PERIOD_NS * n for n in range(1, 6)]
    assert np.diff(seen.frame_ns).tolist() == pytest.approx([gap_ns] * 4, abs=1)


def test_slow_engine_slows_sim_time_and_counts_late_frames():
    clock = FakeClock()

    class Slow(FakeWorld):
        def step(self, actions, render=True):
            clock.time_ns += 3 * PERIOD_NS
            return super().step(actions, render)

    session, seen = run(Slow(), stop_at=20, clock=clock)
    session.close()
    assert [f.stamp_ns for f in seen.frames] == [PERIOD_NS * n for n in range(1, 21)]
    assert set(np.diff(seen.frame_ns)[1:]) == {3 * PERIOD_NS}
    assert session.status.late_frames == 19
    playing = [s for s in seen.statuses if s.state == 'playing']
    assert playing[-1].real_time_factor == pytest.approx(1 / 3, rel=0.02)


def test_short_delay_is_caught_up():
    clock = FakeClock()

    class OneHiccup(FakeWorld):
        def step(self, actions, render=True):
            clock.time_ns += PERIOD_NS * 3 // 2 if self._step == 4 else 0
            return super().step(actions, render)

    session, seen = run(OneHiccup(), stop_at=12, clock=clock)
    session.close()
    assert seen.frame_ns[-1] - seen.frame_ns[0] == 11 * PERIOD_NS
    assert session.status.late_frames == 1


def test_delay_beyond_half_a_second_is_forgotten():
    clock = FakeClock()

    class LongStall(FakeWorld):
        def step(self, actions, render=True):
            clock.time_ns += 10_000_000_000 if self._step == 4 else 0
            return super().step(actions, render)

    session, seen = run(LongStall(), stop_at=30, clock=clock)
    session.close()
    behind_ns = seen.frame_ns[-1] - seen.frame_ns[0] - 29 * PERIOD_NS
    assert behind_ns == pytest.approx(10_000_000_000 - 500_000_000, abs=PERIOD_NS)
    assert set(np.diff(seen.frame_ns)[-10:]) == {PERIOD_NS}


def test_commands_of_before_a_reset_are_no_new_ones_after_it():
    world = FakeWorld()
    session, _ = run(world, paused=True)
    session.set_embedding(embedding_of(world, 0.1, accepted=3))
    session.advance(1).result(PATIENCE_S)
    session.reset().result(PATIENCE_S)
    session.set_embedding(embedding_of(world, 0.1, accepted=3))
    session.advance(1).result(PATIENCE_S)
    session.close()
    assert len(session.latencies_s()) == 0


def test_newest_embedding_is_read_when_the_step_starts():
    world = FakeWorld()

    def send_two():
        session.set_embedding(embedding_of(world, 0.1, sequence=1))
        session.set_embedding(embedding_of(world, 0.2, sequence=2))
    clock = FakeClock()
    recorder = Recorder(clock, {3: send_two}, stop_at=5)
    session = recorder.session = Session(world, SessionSpec(clock_rate_hz=0.0),
                                         observers=[recorder], log=LOG, clock=clock)
    session.start(room()).result(PATIENCE_S)
    assert recorder.done.wait(PATIENCE_S)
    session.close()
    assert [a[0, 0, 0] for a in world.actions[:4]] == pytest.approx([0, 0, 0.2, 0.2])
    assert session.status.embedding_sequence == 2
    assert session.status.command_latency_s == pytest.approx(PERIOD_NS * 1e-9)
    assert session.latencies_s() == pytest.approx([PERIOD_NS * 1e-9])


def test_silent_encoder_stops_the_robot():
    world = FakeWorld()
    session, seen = run(world, paused=True)
    session.set_embedding(embedding_of(world, 0.3))
    seen.clock.time_ns += 400_000_000
    seen.stop_at = 6
    session.play()
    assert seen.done.wait(PATIENCE_S)
    session.close()
    moved = [a[0, 0, 0] for a in world.actions]
    assert moved == pytest.approx([0.3, 0.3, 0.0, 0.0, 0.0])


def test_paused_world_advances_by_steps_and_holds_its_embedding():
    world = FakeWorld()
    session, seen = run(world, paused=True)
    session.set_embedding(embedding_of(world, 0.3))
    seen.clock.time_ns += 60_000_000_000
    status = session.advance(3).result(PATIENCE_S)
    assert (status.step, status.frame, status.state) == (3, 4, 'paused')
    assert status.stamp_ns == 4 * PERIOD_NS
    assert [a[0, 0, 0] for a in world.actions] == pytest.approx([0.3] * 3)
    session.close()


def test_position_target_is_exact_within_one_frame_at_any_delay():
    world = FakeWorld()
    joint = world.spec.robot.joint_names[0]
    session, seen = run(world, paused=True)
    session.set_embedding(embedding_of(world, joint=joint, position=0.15))
    session.advance(4).result(PATIENCE_S)
    session.close()
    assert [f.joint_position[0] for f in seen.frames] == pytest.approx([0, 0.1, 0.15, 0.15, 0.15])


def test_advance_is_refused_while_playing_and_the_world_goes_on():
    session, seen = run(FakeWorld(), paused=True)
    assert session.play().result(PATIENCE_S).state == 'playing'
    with pytest.raises(SpecError, match='pause'):
        session.advance(1).result(PATIENCE_S)
    assert session.status.state == 'playing'
    session.close()


def test_reset_restarts_time_and_gives_the_first_frame_again():
    world = FakeWorld()
    session, seen = run(world, paused=True, seed=3)
    session.advance(5).result(PATIENCE_S)
    status = session.reset().result(PATIENCE_S)
    session.close()
    assert seen.frames[-1].rgb.tobytes() == seen.frames[0].rgb.tobytes()
    assert (status.frame, status.step, status.stamp_ns) == (1, 0, PERIOD_NS)
    assert len(seen.resets) == 2


def test_reset_can_keep_time_and_change_the_seed():
    session, seen = run(FakeWorld(), paused=True)
    session.advance(2).result(PATIENCE_S)
    status = session.reset(seed=5, time=False).result(PATIENCE_S)
    assert (status.seed, status.stamp_ns, status.frame) == (5, 4 * PERIOD_NS, 1)
    session.set_seed(7)
    assert session.status.seed == 5
    assert session.reset().result(PATIENCE_S).seed == 7
    session.close()


def test_a_seed_is_0_or_more():
    session, _ = run(FakeWorld(), paused=True, seed=3)
    with pytest.raises(SpecError, match='seed=-1'):
        session.reset(seed=-1)
    assert session.reset(seed=0).result(PATIENCE_S).seed == 0
    session.close()


def test_a_world_can_begin_stopped():
    session, seen = run(FakeWorld(), initial_state='stopped')
    assert refusal(session.stop()) == 'already' and len(seen.frames) == 1
    session.close()


def test_reset_of_time_alone_leaves_the_state_and_shows_it_at_the_new_time():
    world = FakeWorld()
    session, seen = run(world, paused=True)
    session.set_embedding(embedding_of(world, 0.3))
    session.advance(3).result(PATIENCE_S)
    status = session.reset(state=False).result(PATIENCE_S)
    assert (status.stamp_ns, status.frame, status.step) == (PERIOD_NS, 4, 3)
    assert seen.frames[-1].stamp_ns == PERIOD_NS == seen.clocks[-1]
    assert np.array_equal(seen.frames[-1].base_pose, seen.frames[-2].base_pose)
    assert session.advance(1).result(PATIENCE_S).stamp_ns == 2 * PERIOD_NS
    session.close()


def test_monotonic_time_goes_on_over_every_kind_of_reset():
    session, seen = run(FakeWorld(), paused=True, reset_time_policy='monotonic')
    session.advance(2).result(PATIENCE_S)
    session.reset().result(PATIENCE_S)
    session.reset(state=False).result(PATIENCE_S)
    session.stop().result(PATIENCE_S)
    session.load(room('b')).result(PATIENCE_S)
    session.close()
    stamps = [f.stamp_ns for f in seen.frames]
    assert stamps == [PERIOD_NS * n for n in range(1, 7)] and seen.clocks == stamps


def test_unknown_scene_is_refused_with_the_known_ones_and_nothing_changes():
    session, seen = run(FakeWorld(), paused=True)
    session.advance(2).result(PATIENCE_S)
    with pytest.raises(SpecError, match="'kitchn'.*Known: a, b"):
        session.load(room('kitchn'))
    assert session.advance(1).result(PATIENCE_S).frame == 4
    session.close()


def test_load_leaves_another_world_stopped_and_unload_none():
    session, seen = run(FakeWorld(), paused=True)
    session.play().result(PATIENCE_S)
    status = session.load(room('b', 5, start_pose=(3.0, 4.0, 0.5))).result(PATIENCE_S)
    assert (status.state, status.scene, status.seed, status.frame) == ('stopped', 'b', 5, 1)
    assert [s.state for s in seen.statuses].count('loading_world') == 2
    assert seen.frames[-1].base_pose.tolist() == [3.0, 4.0, 0.5]
    assert seen.frames[-1].rgb[0, 0, 1] == 300 % 256  # drawn where it stands now
    assert refusal(session.stop()) == 'already' and refusal(session.advance()) == 'not_paused'
    assert session.pause().result(PATIENCE_S).frame == 1  # only the label changes
    assert session.unload().result(PATIENCE_S).state == 'no_world' and session.entities() == {}
    for request in (session.play, session.pause, session.stop, session.reset, session.unload,
                    session.advance):
        assert refusal(request()) == 'no_world'
    assert session.load(room()).result(PATIENCE_S).state == 'stopped'
    assert session.play().result(PATIENCE_S).state == 'playing'
    session.close()


def refusal(future):
    with pytest.raises(Refused) as refused:
        future.result(PATIENCE_S)
    return refused.value.reason


def test_world_that_cannot_be_loaded_leaves_the_old_one_as_it_was():
    class Picky(FakeWorld):
        def reset(self, scene, seed):
            if scene == 'b':
                raise RuntimeError('no such b')
            return super().reset(scene, seed)

    world = Picky()
    session, seen = run(world, paused=True)
    session.set_embedding(embedding_of(world, 0.3))
    before = session.advance(2).result(PATIENCE_S)
    with pytest.raises(Refused, match='no such b'):
        session.load(room('b')).result(PATIENCE_S)
    after = session.status
    assert (after.state, after.scene, after.stamp_ns, after.digest) == (
        'paused', 'a', before.stamp_ns, before.digest)
    session.close()


@pytest.mark.parametrize('can', [{'take_prompts': True}, {'take_images': True}, {}])
def test_an_engine_that_takes_prompts_or_images_is_told_how_a_world_starts(can):
    world, starts = FakeWorld(), []
    world.spec = replace(world.spec, can=replace(world.spec.can, **can))
    make = world.reset
    world.reset = lambda *args, **more: (starts.append(more), make(*args, **more))[1]
    session, _ = run(world, paused=True)
    session.load(room('b', prompt='snow')).result(PATIENCE_S)
    session.close()
    assert session.status.prompt == ('snow' if 'take_prompts' in can else '')
    assert [bool(more) for more in starts] == [bool(can)] * 2
    assert not can or starts[-1]['start'].prompt == 'snow'


def test_a_world_that_began_and_is_no_number_is_not_gone_back_from_without_a_snapshot():
    world = FakeWorld()
    world.spec = replace(world.spec, can=replace(world.spec.can, snapshot_cheaply=False))
    session, _ = run(world, paused=True)
    observe = world._observe
    world._observe = lambda states: observe([{**s, 'base_pose': s['base_pose'] * np.nan}
                                             for s in states])
    with pytest.raises(EngineDiverged):
        session.load(room('b')).result(PATIENCE_S)
    assert session.status.state == 'error'
    session.close()


@pytest.mark.parametrize('error, traced', [(SpecError('Bad actions.'), False),
                                           (RuntimeError('no memory'), True)])
def test_only_an_error_that_the_user_cannot_mend_is_logged_with_where_it_came_from(
        error, traced, caplog):
    session, _ = run(FakeWorld(script={n: error for n in (1, 2, 3)}), paused=True)
    with pytest.raises(type(error)):
        session.advance(1).result(PATIENCE_S)
    session.close()
    assert ('Traceback' in caplog.text) is traced and str(error).rstrip('.') in caplog.text


def test_a_spec_runs_in_real_time_with_patience_and_takes_fractions():
    spec = SessionSpec()
    assert (spec.speed, spec.clock_rate_hz, spec.lockstep_commands) == (1.0, 100.0, 1)
    assert (spec.action_timeout_s, spec.lockstep_timeout_s, spec.step_timeout_s) == (0.5, 1, 10)
    SessionSpec(speed=0.5, action_timeout_s=0.1, lockstep_timeout_s=0.2, step_timeout_s=0.3)


def test_a_world_that_was_stepped_before_it_played_plays_on_after_an_error():
    world = FakeWorld(script={3: RuntimeError('out of ideas')})
    session, seen = run(world, paused=True)
    session.advance(1).result(PATIENCE_S)
    session.play().result(PATIENCE_S)
    for _ in range(2):  # and once more, whatever was before
        assert seen.done.wait(PATIENCE_S)
        world.script = {}
        assert session.reset().result(PATIENCE_S).state == 'playing'
        seen.done.clear()
        world.script = Failing()
    session.close()


class Failing(dict):
    """A script that fails at every step."""

    def get(self, step):
        return RuntimeError('out of ideas')


@pytest.mark.parametrize('takes_images', [True, False])
def test_a_start_pose_is_given_with_an_image_only_where_that_is_no_anchor(takes_images):
    world, given = FakeWorld(), []
    world.spec = replace(world.spec, can=replace(world.spec.can, take_images=takes_images))
    observe = world.observe
    world.observe = lambda seen: (given.append(seen.rgb is None), observe(seen))[1]
    session, _ = run(world, paused=True)
    session.load(room('b', start_pose=(3.0, 4.0, 0.5))).result(PATIENCE_S)
    session.close()
    assert given == [takes_images]


@pytest.mark.parametrize('takes_images, words, anchored', [
    (True, 'in a new process, which goes on from the last image', 1),
    (False, 'in a new process, which started the world over', 0)])
def test_a_process_that_is_gone_is_told_by_what_the_new_one_goes_on_from(takes_images, words,
                                                                         anchored):
    class Lost(FakeWorld):
        is_lost = False

        def reset(self, *args, **more):
            self.is_lost = False
            return super().reset(*args, **more)

    def lose():
        if not given:
            world.is_lost = True
            raise RuntimeError('gone')
    given = []
    world = Lost(script={2: lose})
    world.spec = replace(world.spec, can=replace(world.spec.can, take_images=takes_images,
                                                 snapshot_cheaply=False))
    observe = world.observe
    world.observe = lambda seen: (given.append(seen.rgb is None), observe(seen))[1]
    session, _ = run(world, paused=True)
    status = session.advance(2).result(PATIENCE_S)
    session.close()
    assert status.message.startswith(f'Recovered {words}') and status.recoveries == 1
    assert given == [not takes_images] and status.images_anchored == anchored


def test_a_world_that_failed_at_a_step_that_was_asked_for_is_paused_by_a_reset():
    world = FakeWorld(script={1: RuntimeError('out of ideas')})
    session, _ = run(world, paused=True)
    with pytest.raises(RuntimeError):
        session.advance(1).result(PATIENCE_S)
    world.script.clear()
    assert session.reset().result(PATIENCE_S).state == 'paused'
    session.close()


def test_clock_has_a_period_for_a_frame_that_is_paced_and_none_for_others(monkeypatch):
    told = []
    monkeypatch.setattr(ClockTicker, 'follow', lambda self, *told_ns: told.append(told_ns))
    session, _ = run(FakeWorld(), stop_at=3)
    session.advance(1).result(PATIENCE_S)
    session.close()
    assert told == [(PERIOD_NS, 0), (2 * PERIOD_NS, PERIOD_NS), (3 * PERIOD_NS, PERIOD_NS),
                    (4 * PERIOD_NS, 0)]
    told.clear()
    session, _ = run(FakeWorld(), stop_at=3, speed=0.0)
    session.close()
    assert told == [(PERIOD_NS * n, 0) for n in (1, 2, 3)]


def test_a_step_tells_how_long_it_took_to_make():
    def work():
        clock.time_ns += 500_000_000
    clock = FakeClock()
    session, _ = run(FakeWorld(script={1: work}), paused=True, clock=clock)
    assert session.advance(1).result(PATIENCE_S).step_duration_s == pytest.approx(0.5)
    session.close()


def test_a_call_that_may_take_several_steps_hangs_so_much_later():
    clock = FakeClock()
    calls = Calls(wake=threading.Condition(), clock=clock, timeout_s=lambda: 2.0,
                  has_thread=False)

    def work():
        hung = []
        for seconds in (23, 2):
            clock.time_ns += seconds * 10 ** 9
            hung.append(calls.has_hung)
        return hung
    assert calls.watched(work, 12) == [False, True] and calls.watched(work) == [True, True]
    assert not calls.has_hung and not calls.is_busy


def test_command_of_a_linked_encoder_wakes_a_world_that_waits_for_it():
    class Silent:
        def pull(self, sim_ns, joint_position, by_step):
            by_steps.append(by_step)

    by_steps = []
    session = Session(FakeWorld(), SessionSpec(mode='lockstep', lockstep_timeout_s=300.0),
                      observers=[], log=LOG)
    session.link(Silent())
    session.start(room()).result(PATIENCE_S)
    wait_for(lambda: session.status.state == 'playing')
    for accepted in (1, 2, 3):
        session.command_arrived(accepted)
        wait_for(lambda: session.status.step == accepted)
    session.close()
    assert by_steps == [False] * 3


def test_stop_is_paused_and_reset():
    session, seen = run(FakeWorld(), paused=True)
    session.advance(4).result(PATIENCE_S)
    status = session.stop().result(PATIENCE_S)
    assert (status.state, status.stamp_ns, status.step) == ('stopped', PERIOD_NS, 0)
    session.close()


def test_newer_request_interrupts_steps_and_they_say_how_many_were_done():
    session, seen = run(FakeWorld(), paused=True)
    ten, asked = threading.Event(), []

    def on_step(done, remaining):
        asked.append((done, remaining))
        if done == 10:
            ten.set()
            wait_for(lambda: session._worker.num_waiting)

    steps = session.advance(10 ** 18, on_step)
    assert ten.wait(PATIENCE_S) and session.status.state == 'playing'
    assert refusal(session.advance(1)) == 'not_paused'
    assert session.reset().result(PATIENCE_S).state == 'paused'
    with pytest.raises(Refused) as refused:
        steps.result(PATIENCE_S)
    assert refused.value.reason == 'interrupted' and refused.value.num_done == 10
    assert asked[-1] == (10, 10 ** 18 - 10)
    assert refusal(session.advance(5, should_stop=lambda: True)) == 'interrupted'
    assert session.advance(1).result(PATIENCE_S).state == 'paused'
    session.close()


def test_stepped_mode_moves_by_steps_only():
    session, seen = run(FakeWorld(), mode='stepped')
    wait_for(lambda: session.status.state == 'paused')
    assert refusal(session.play()) == 'mode'
    assert session.advance(3).result(PATIENCE_S).stamp_ns == 4 * PERIOD_NS == seen.clocks[-1]
    session.close()


def test_lockstep_makes_one_step_per_command_and_goes_on_without_after_its_timeout():
    clock = RealWait()
    world = FakeWorld()
    session, seen = run(world, mode='lockstep', lockstep_timeout_s=5.0, clock=clock)
    wait_for(lambda: session.status.state == 'playing')
    for number in range(1, 4):
        session.set_embedding(embedding_of(world, 0.1 * number, accepted=number))
        wait_for(lambda: session.status.step == number)
    assert [a[0, 0, 0] for a in world.actions] == pytest.approx([0.1, 0.2, 0.3])
    clock.offset_ns += 6_000_000_000
    session.set_embedding(embedding_of(world, 0.3, accepted=3))  # nothing new: only wakes it up
    wait_for(lambda: session.status.step == 4)
    assert session.status.lockstep_timeouts == 1
    assert 'lockstep_timeout_s' in session.status.message
    assert world.actions[3][0, 0, 0] == pytest.approx(0.3)
    session.close()


def test_lockstep_without_commands_makes_a_step_per_timeout():
    session, seen = run(FakeWorld(), stop_at=4, mode='lockstep', lockstep_timeout_s=2.5)
    session.close()
    assert np.diff(seen.frame_ns).tolist() == [2_500_000_000] * 3


def test_lockstep_can_wait_for_several_commands():
    clock, world = RealWait(), FakeWorld()
    session, seen = run(world, mode='lockstep', lockstep_commands=2, lockstep_timeout_s=60.0,
                        clock=clock)
    wait_for(lambda: session.status.state == 'playing')
    for accepted in range(1, 5):
        session.set_embedding(embedding_of(world, 0.1 * accepted, accepted=accepted))
        wait_for(lambda: session._reader.latch.pending == accepted % 2)
    wait_for(lambda: session.status.step == 2)
    assert [a[0, 0, 0] for a in world.actions] == pytest.approx([0.2, 0.4])
    session.close()


def test_lockstep_makes_a_step_for_each_of_two_commands_that_came_together():
    world = FakeWorld()
    session, seen = run(world, mode='lockstep', lockstep_timeout_s=60.0, clock=RealWait())
    wait_for(lambda: session.status.state == 'playing')
    session.set_embedding(embedding_of(world, 0.2, accepted=2))
    wait_for(lambda: session.status.step == 2)
    session.set_embedding(embedding_of(world, 0.3, accepted=5))
    wait_for(lambda: session.status.step == 5)
    assert [a[0, 0, 0] for a in world.actions] == pytest.approx([0.2, 0.2, 0.3, 0.3, 0.3])
    assert session.status.lockstep_timeouts == 0
    session.close()


@pytest.mark.parametrize('num_commands', [1, 3])
def test_commands_that_came_in_a_pause_make_one_step_of_lockstep(num_commands):
    """A teleop that went on sending through a pause was answered with a thousand steps."""
    world = FakeWorld()
    session, seen = run(world, mode='lockstep', lockstep_commands=num_commands,
                        lockstep_timeout_s=60.0, clock=RealWait())
    wait_for(lambda: session.status.state == 'playing')
    session.pause().result(PATIENCE_S)
    session.set_embedding(embedding_of(world, 0.2, accepted=1200))
    session.play().result(PATIENCE_S)
    wait_for(lambda: session.status.step == 1)
    session.set_embedding(embedding_of(world, 0.3, accepted=1200 + num_commands))
    wait_for(lambda: len(world.actions) > 1)
    session.pause().result(PATIENCE_S)
    assert [a[0, 0, 0] for a in world.actions] == pytest.approx([0.2, 0.3])
    session.close()


def test_a_step_that_lockstep_did_not_get_commands_for_leaves_none_waiting():
    clock, world = RealWait(), FakeWorld()
    session, seen = run(world, mode='lockstep', lockstep_commands=3, lockstep_timeout_s=60.0,
                        clock=clock)
    wait_for(lambda: session.status.state == 'playing')
    session.set_embedding(embedding_of(world, 0.2, accepted=2))
    clock.offset_ns += 61_000_000_000
    session.set_embedding(embedding_of(world, 0.2, accepted=2))  # only wakes it up
    wait_for(lambda: session.status.step == 1)
    assert session.status.lockstep_timeouts == 1 and session._reader.latch.pending == 0
    session.close()


class RealWait(FakeClock):
    """Real waiting, and a time that can be moved on."""

    offset_ns = 0

    def now_ns(self):
        return time.monotonic_ns() + self.offset_ns

    def wait(self, condition, until_ns):
        condition.wait(None if until_ns is None else
                       max(0.0, (until_ns - self.now_ns()) * 1e-9))


class Encoder:
    """Stands for an encoder in the same process."""

    def __init__(self, world):
        self.world, self.asked, self.caught_up = world, [], 0

    def catch_up(self):
        self.caught_up += 1

    def pull(self, sim_ns, joint_position, by_step):
        self.asked.append((sim_ns, joint_position.copy()))
        return embedding_of(self.world, 0.1 * len(self.asked), sequence=len(self.asked))


def test_linked_encoder_is_asked_right_before_each_step():
    world = FakeWorld()
    encoder, recorder = Encoder(world), Recorder(FakeClock())
    session = Session(world, SessionSpec(mode='stepped'), observers=[recorder], log=LOG,
                      clock=recorder.clock)
    session.link(encoder)
    session.start(room()).result(PATIENCE_S)
    wait_for(lambda: session.status.state == 'paused')
    session.advance(3).result(PATIENCE_S)
    session.close()
    assert [sim_ns for sim_ns, _ in encoder.asked] == [PERIOD_NS * n for n in (1, 2, 3)]
    assert [a[0, 0, 0] for a in world.actions] == pytest.approx([0.1, 0.2, 0.3])
    assert session.status.embedding_sequence == 3 and encoder.caught_up == 1


def test_step_waits_for_an_encoder_elsewhere_only_where_its_word_does_not_hold():
    clock, world = RealWait(), FakeWorld()
    session, seen = run(world, mode='stepped', clock=clock, action_timeout_s=5.0)
    wait_for(lambda: session.status.state == 'paused')
    session.set_embedding(embedding_of(world, 0.1))
    session.advance(2).result(PATIENCE_S)  # holds for ever
    session.set_embedding(replace(embedding_of(world, 0.2), valid_until_ns=session.sim_ns + 1))
    step = session.advance(1)
    session.set_embedding(replace(embedding_of(world, 0.3),
                                  valid_until_ns=session.sim_ns + PERIOD_NS))
    step.result(PATIENCE_S)
    session.close()
    assert world.actions[-1][0, 0, 0] == pytest.approx(0.3)


def test_encoder_that_is_gone_costs_one_timeout_and_not_one_per_step():
    clock, world = FakeClock(), FakeWorld()  # waiting moves its time to the deadline
    session, seen = run(world, mode='stepped', clock=clock, action_timeout_s=5.0)
    wait_for(lambda: session.status.state == 'paused')
    session.set_embedding(replace(embedding_of(world, 0.2), valid_until_ns=1))
    before_ns = clock.now_ns()
    session.advance(4).result(PATIENCE_S)
    session.close()
    assert clock.now_ns() - before_ns == 5_000_000_000
    assert [a[0, 0, 0] for a in world.actions] == pytest.approx([0.2] * 4)


def test_teleport_moves_the_robot_but_not_its_odometry():
    world = FakeWorld()
    session, seen = run(world, paused=True)
    session.set_embedding(embedding_of(world, 0.3))
    session.advance(3).result(PATIENCE_S)
    assert refusal(session.move('dragon')) == 'unknown'
    status = session.move('robot', pose=(5.0, 6.0, 1.0), twist=(0.1, 0.0, 0.2)).result(PATIENCE_S)
    assert status.anchor == (5.0, 6.0, 1.0, 0.1, 0.0, 0.2) and status.frame == 4
    robot = session.entities()['robot']
    assert robot.pose.tolist() == [5.0, 6.0, 1.0] and robot.category == 'robot'
    assert robot.twist == pytest.approx([0.1 * np.cos(1.0), 0.1 * np.sin(1.0), 0.2])
    stepped = session.advance(1).result(PATIENCE_S)
    assert stepped.anchor == status.anchor
    assert session.advance(1).result(PATIENCE_S).anchor == ()
    session.close()
    in_odom = [se2.relative(f.start_pose, f.base_pose) for f in seen.frames]
    assert np.diff(in_odom, axis=0)[:, 0] == pytest.approx([0.02] * 5, abs=1e-6)
    assert seen.frames[-2].base_pose[:2] == pytest.approx(
        [5.0 + 0.02 * np.cos(1.0), 6.0 + 0.02 * np.sin(1.0)], abs=1e-6)


def test_entities_carry_the_stamp_of_the_frame_they_are_in_while_it_leaves():
    """Whoever asked while a frame left got its poses with the stamp of the one before."""
    world, told = FakeWorld(), []
    asking = {n: lambda: told.append((session.entities()['robot'], seen.frames[-1]))
              for n in range(2, 6)}
    session, seen = run(world, paused=True, at=asking)
    session.set_embedding(embedding_of(world, 0.3))
    session.advance(3).result(PATIENCE_S)
    session.reset().result(PATIENCE_S)
    session.close()
    assert len(told) == 4 and told[2][0].pose[0] > 0
    for entity, frame in told:
        assert entity.stamp_ns == frame.stamp_ns
        assert entity.pose.tolist() == frame.base_pose.tolist()


def test_digest_depends_on_everything_shown_and_starts_over_with_the_world():
    def digests(v, seed=0):
        world = FakeWorld()
        session, seen = run(world, paused=True, seed=seed)
        session.set_embedding(embedding_of(world, v))
        session.advance(5).result(PATIENCE_S)
        session.reset().result(PATIENCE_S)
        session.close()
        return [s.digest for s in seen.statuses]
    first = digests(0.3)
    assert first == digests(0.3) and len(set(first)) > 5
    assert first != digests(0.31) and first != digests(0.3, seed=1)
    assert digests(0.3)[-1] in first[:3]  # the first frame again


@pytest.mark.parametrize('fault', [RuntimeError('hiccup'), MemoryError('no room'), 'nan'])
def test_engine_that_fails_once_goes_on_from_the_last_good_state(fault):
    def frames(script):
        world = FakeWorld(script=script)
        session, seen = run(world, paused=True)
        session.set_embedding(embedding_of(world, 0.3))
        status = session.advance(6).result(PATIENCE_S)
        session.close()
        return status, [f.base_pose.tolist() for f in seen.frames]
    status, poses = frames(Once(3, fault))
    untouched, expected = frames({})
    assert poses == expected and status.digest == untouched.digest
    assert status.recoveries == 1 and status.message.startswith('Recovered')


class Once(dict):
    """A script whose one entry is used up by the first look at it."""

    def __init__(self, step, fault):
        super().__init__({step: fault})

    def get(self, step):
        return self.pop(step, None)


def test_hanging_engine_is_given_up_by_name_and_a_new_one_comes_with_the_reset():
    clock, release = RealWait(), threading.Event()
    world = FakeWorld(script={3: lambda: release.wait(PATIENCE_S)})
    session, seen = run(world, clock=clock, make_world=FakeWorld, speed=0.0)
    wait_for(lambda: world._step == 3)
    session.check_engine()
    assert session.status.state == 'playing'
    clock.offset_ns += 11_000_000_000
    session.check_engine()
    assert (session.status.state, session.status.fault) == ('error', Fault.HUNG)
    assert refusal(session.play()) == refusal(session.advance()) == 'engine'
    status = session.reset().result(PATIENCE_S)
    assert status.state == 'playing' and status.fault == Fault.NONE
    shown = len(seen.frames)
    release.set()  # what comes back late is not shown
    wait_for(lambda: len(seen.frames) > shown + 5)
    session.close()
    late = [n for n, f in enumerate(seen.frames) if f.index == 4 and n < 4]
    assert not late


def test_request_under_way_when_the_engine_hangs_gets_its_answer():
    clock, release = RealWait(), threading.Event()
    world = FakeWorld(script={2: lambda: release.wait(PATIENCE_S)})
    session, seen = run(world, clock=clock, paused=True, make_world=FakeWorld)
    steps = session.advance(5)
    wait_for(lambda: world._step == 2)
    later = session.pause()
    clock.offset_ns += 11_000_000_000
    session.check_engine()
    with pytest.raises(TimeoutError, match='step_timeout_s'):
        steps.result(PATIENCE_S)
    assert refusal(later) == 'engine'
    assert session.reset().result(PATIENCE_S).state == 'paused'  # as it was before the steps
    release.set()
    session.close()


def test_ticks_between_frames_are_regular_and_never_ahead_of_the_newest():
    sweep = Sweep(100, 200, 30, wall_ns=1000, duration_ns=50)
    due = []
    while sweep.next_due_ns is not None:
        due.append((sweep.next_due_ns, sweep.take(sweep.next_due_ns)))
    assert due == [(1010, 120), (1025, 150), (1040, 180), (1050, 200)]
    late = Sweep(100, 200, 30, wall_ns=1000, duration_ns=50)
    assert late.take(1030) == 150 and late.take(1030) is None and late.take(9999) == 200
    assert Sweep(100, 101, 30, wall_ns=1000, duration_ns=50).next_due_ns == 1050
    back = Sweep(200, 100, 30, wall_ns=1000, duration_ns=50)  # is told at once
    assert back.take(1000) == 100 and back.next_due_ns is None


def test_the_first_sweep_begins_at_zero():
    clock, told = FakeClock(), []
    start_ns = clock.now_ns()
    ticker = ClockTicker(30, lambda stamp_ns: told.append((stamp_ns, clock.now_ns() - start_ns)),
                         clock)
    ticker.follow(100, 1000)
    wait_for(lambda: len(told) == 4)
    ticker.close()
    assert told == [(30, 300), (60, 600), (90, 900), (100, 1000)]


def test_ticks_come_at_the_rate_that_was_asked_for():
    """At 20 Hz one comes at 150 ms, 250 ms and so on: no frame, and no tick of 10 Hz."""
    session, seen = run(FakeWorld(), clock=RealWait(), clock_rate_hz=20.0, speed=4.0)
    tick_ns = 50_000_000
    wait_for(lambda: any(stamp_ns % (2 * tick_ns) == tick_ns for stamp_ns in [*seen.clocks]))
    session.close()
    assert all(stamp_ns % tick_ns == 0 for stamp_ns in seen.clocks if stamp_ns % PERIOD_NS)


def test_threads_of_a_session_end_with_it_and_do_not_hold_up_the_end_of_the_process():
    world, kept, others = FakeChunkWorld(), threading.Event(), set(threading.enumerate())
    world.spec = replace(world.spec, can=replace(world.spec.can, prepare_prompt=True))
    world.prepare_prompt = lambda text: kept.wait(PATIENCE_S)
    session, seen = run(world, clock=RealWait(), clock_rate_hz=20.0)
    session.set_prompt('snow')
    wait_for(lambda: len(seen.clocks) > 2)
    threads = set(threading.enumerate()) - others
    kept.set()
    session.close()
    assert {thread.name for thread in threads} == {'world', 'engine', 'clock', 'prompt'}
    assert all(thread.daemon for thread in threads)
    wait_for(lambda: not any(thread.is_alive() for thread in threads))


def test_an_engine_that_hangs_when_it_is_to_end_is_left_behind(monkeypatch):
    monkeypatch.setattr('lingbot_world_ros.session.session.TIDY_S', 0.1)
    world, begun, freed = FakeWorld(), threading.Event(), threading.Event()
    world.close = lambda: (begun.set(), freed.wait(2 * PATIENCE_S))
    session, _ = run(world, stop_at=2)
    closing = threading.Thread(target=session.close, args=(0.1,), daemon=True)
    closing.start()
    assert begun.wait(PATIENCE_S)
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    freed.set()


def test_clock_runs_between_frames_and_reaches_the_newest_when_time_stands_still():
    told = []
    ticker = ClockTicker(10, told.append)
    ticker.follow(100, 0)
    assert told == [100]
    ticker.follow(200, 20_000_000)
    wait_for(lambda: told[-1] == 200)
    assert told[1:] == list(range(110, 201, 10)) or set(told) <= set(range(100, 201, 10))
    ticker.follow(300, 10 ** 12)
    ticker.finish()
    assert told[-1] == 300
    ticker.follow(400, 10 ** 12)
    ticker.follow(500, 10 ** 12)  # the frame before is reached first
    assert 400 in told
    ticker.jump(10)
    assert told[-1] == 10
    ticker.close()
    assert [t for t in told[:-1]] == sorted(told[:-1])


@pytest.mark.parametrize('fault', [RuntimeError('out of ideas'), 'nan'])
def test_failing_engine_stops_time_and_reset_recovers(fault):
    world = FakeWorld(script={3: fault})
    session, seen = run(world, stop_at=99)
    assert session.status.state == 'error'
    assert ('out of ideas' in session.status.message) or ('base_pose' in session.status.message)
    frames = len(seen.frames)
    assert frames == 3  # the reset's and two steps; none repeated
    with pytest.raises(SpecError, match='Reset it first'):
        session.play().result(PATIENCE_S)
    assert session.status.fault == (Fault.DIVERGED if fault == 'nan' else Fault.FAILED)
    world.script.clear()
    status = session.reset().result(PATIENCE_S)
    assert status.state == 'playing' and status.message == '' and len(seen.frames) >= 4
    session.close()


def test_chunked_engine_hands_out_each_frame_at_its_own_time():
    session, seen = run(FakeWorld(frames_per_step=4), stop_at=9)
    session.close()
    assert np.diff(seen.frame_ns).tolist() == pytest.approx([PERIOD_NS] * 8, abs=2)
    assert np.diff([f.stamp_ns for f in seen.frames]).tolist() == [PERIOD_NS] * 8


def test_embedding_of_another_layout_is_refused_and_counted():
    world = FakeWorld()
    session, _ = run(world, paused=True)
    alien = embedding_of(FakeWorld(robot=world.spec.robot))
    with pytest.raises(SpecError, match='layout'):
        session.set_embedding(replace(alien, layout=('x',)))
    assert session.advance(1).result(PATIENCE_S).rejected_embeddings == 1
    session.close()


@pytest.mark.parametrize('change, words', [
    (dict(speed=-1.0), 'speed'), (dict(speed=float('nan')), 'speed'),
    (dict(mode='fast'), 'lockstep, realtime, stepped'), (dict(initial_state='x'), 'stopped'),
    (dict(action_timeout_s=0.0), 'action_timeout_s'), (dict(step_timeout_s=0.0), 'step_timeout')])
def test_spec_refuses(change, words):
    with pytest.raises(SpecError, match=words):
        SessionSpec(**change)


def test_same_seed_scene_and_actions_give_the_same_bytes():
    def digest():
        world = FakeWorld()
        session, seen = run(world, paused=True, seed=4)
        session.set_embedding(embedding_of(world, 0.3))
        session.advance(8).result(PATIENCE_S)
        session.close()
        return b''.join(f.rgb.tobytes() for f in seen.frames)
    assert digest() == digest()
