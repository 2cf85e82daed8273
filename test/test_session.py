# SPDX-License-Identifier: Apache-2.0
"""Sessions: sim time, pacing, late latching, pause, reset, errors. Time is moved, not slept."""
from dataclasses import replace
import logging
import threading

from fake_world import FakeClock, FakeWorld
from lingbot_world_ros.actions.commands import CommandBuffer, CommandSpec
from lingbot_world_ros.actions.embedding import CameraModel, CommandCounts, encode
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.worlds.session import Session, SessionObserver, SessionSpec
import numpy as np
import pytest

PERIOD_NS = 66_666_667
LOG = logging.getLogger('test')


class Recorder(SessionObserver):
    """Keeps what it is told; calls ``at[frame index]`` from the worker when that frame leaves."""

    def __init__(self, clock, at=None, stop_at=None):
        self.frames, self.frame_ns, self.statuses, self.resets = [], [], [], []
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

    def on_status(self, status):
        self.statuses.append(status)
        if status.state == 'error':
            self.done.set()


def run(world, *, stop_at=None, at=None, speed=1.0, paused=False, clock=None, seed=0):
    """Start a session on a fake clock; it pauses itself after ``stop_at`` frames."""
    clock = clock or FakeClock()
    recorder = Recorder(clock, at, stop_at)
    spec = SessionSpec(scene='a', seed=seed, speed=speed, start_paused=paused,
                       action_timeout_s=0.5)
    session = Session(world, spec, observers=[recorder], log=LOG, clock=clock)
    recorder.session = session
    session.start().result(10.0)
    if stop_at:
        assert recorder.done.wait(10.0)
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
    camera = CameraModel(robot.camera.width_px, robot.camera.height_px, robot.camera.k,
                         robot.camera.T_base_optical)
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
    session.advance(1).result(10.0)
    session.reset().result(10.0)
    session.set_embedding(embedding_of(world, 0.1, accepted=3))
    session.advance(1).result(10.0)
    session.close()
    assert len(session.latencies_s()) == 0


def test_newest_embedding_is_read_when_the_step_starts():
    world = FakeWorld()

    def send_two():
        session.set_embedding(embedding_of(world, 0.1, sequence=1))
        session.set_embedding(embedding_of(world, 0.2, sequence=2))
    clock = FakeClock()
    recorder = Recorder(clock, {3: send_two}, stop_at=5)
    spec = SessionSpec('a', 0, 1.0, False, 0.5)
    session = recorder.session = Session(world, spec, observers=[recorder], log=LOG, clock=clock)
    session.start().result(10.0)
    assert recorder.done.wait(10.0)
    session.close()
    assert [a[0, 0, 0] for a in world.actions[:4]] == pytest.approx([0, 0, 0.2, 0.2])
    assert session.status.embedding_sequence == 2
    assert session.status.command_latency_s == pytest.approx(PERIOD_NS * 1e-9)
    assert session.latencies_s() == pytest.approx([PERIOD_NS * 1e-9])


def test_silent_encoder_stops_the_robot():
    world = FakeWorld()
    session, _ = run(world, paused=True)
    session.set_embedding(embedding_of(world, 0.3))
    session._clock.time_ns += 400_000_000
    recorder = session._observers[0]
    recorder.stop_at = 6
    session.play()
    assert recorder.done.wait(10.0)
    session.close()
    moved = [a[0, 0, 0] for a in world.actions]
    assert moved == pytest.approx([0.3, 0.3, 0.0, 0.0, 0.0])


def test_paused_world_advances_by_steps_and_holds_its_embedding():
    world = FakeWorld()
    session, seen = run(world, paused=True)
    session.set_embedding(embedding_of(world, 0.3))
    session._clock.time_ns += 60_000_000_000
    status = session.advance(3).result(10.0)
    assert (status.step, status.frame, status.state) == (3, 4, 'paused')
    assert status.stamp_ns == 4 * PERIOD_NS
    assert [a[0, 0, 0] for a in world.actions] == pytest.approx([0.3] * 3)
    session.close()


def test_position_target_is_exact_within_one_frame_at_any_delay():
    world = FakeWorld()
    joint = world.spec.robot.joint_names[0]
    session, seen = run(world, paused=True)
    session.set_embedding(embedding_of(world, joint=joint, position=0.15))
    session.advance(4).result(10.0)
    session.close()
    assert [f.joint_position[0] for f in seen.frames] == pytest.approx([0, 0.1, 0.15, 0.15, 0.15])


def test_advance_is_refused_while_playing_and_the_world_goes_on():
    session, seen = run(FakeWorld(), paused=True)
    assert session.play().result(10.0).state == 'playing'
    with pytest.raises(SpecError, match='pause'):
        session.advance(1).result(10.0)
    assert session.status.state == 'playing'
    session.close()


def test_reset_restarts_time_and_gives_the_first_frame_again():
    world = FakeWorld()
    session, seen = run(world, paused=True, seed=3)
    session.advance(5).result(10.0)
    status = session.reset().result(10.0)
    session.close()
    assert seen.frames[-1].rgb.tobytes() == seen.frames[0].rgb.tobytes()
    assert (status.frame, status.step, status.stamp_ns) == (1, 0, PERIOD_NS)
    assert len(seen.resets) == 2


def test_reset_can_keep_time_and_change_scene_and_seed():
    session, seen = run(FakeWorld(), paused=True)
    session.advance(2).result(10.0)
    status = session.reset('b', 5, reset_time=False).result(10.0)
    session.close()
    assert (status.scene, status.seed, status.stamp_ns) == ('b', 5, 4 * PERIOD_NS)
    assert seen.frames[-1].rgb[0, 0, 2] == ord('b')


def test_unknown_scene_is_refused_with_the_known_ones_and_nothing_changes():
    session, seen = run(FakeWorld(), paused=True)
    session.advance(2).result(10.0)
    with pytest.raises(SpecError, match="'kitchn'.*Known: a, b"):
        session.reset('kitchn')
    assert session.advance(1).result(10.0).frame == 4
    session.close()


@pytest.mark.parametrize('fault', [RuntimeError('out of ideas'), 'nan'])
def test_failing_engine_stops_time_and_reset_recovers(fault):
    world = FakeWorld(script={3: fault})
    session, seen = run(world, stop_at=99)
    assert session.status.state == 'error'
    assert ('out of ideas' in session.status.message) or ('base_pose' in session.status.message)
    frames = len(seen.frames)
    assert frames == 3  # the reset's and two steps; none repeated
    with pytest.raises(SpecError, match='Reset it first'):
        session.play().result(10.0)
    world.script.clear()
    status = session.reset().result(10.0)
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
    assert session.advance(1).result(10.0).rejected_embeddings == 1
    session.close()


@pytest.mark.parametrize('change, words', [
    (dict(speed=-1.0), 'speed'), (dict(speed=float('nan')), 'speed'), (dict(seed=-1), 'seed'),
    (dict(action_timeout_s=0.0), 'action_timeout_s')])
def test_spec_refuses(change, words):
    values = dict(scene='a', seed=0, speed=1.0, start_paused=False, action_timeout_s=0.5)
    with pytest.raises(SpecError, match=words):
        SessionSpec(**{**values, **change})


def test_same_seed_scene_and_actions_give_the_same_bytes():
    def digest():
        world = FakeWorld()
        session, seen = run(world, paused=True, seed=4)
        session.set_embedding(embedding_of(world, 0.3))
        session.advance(8).result(10.0)
        session.close()
        return b''.join(f.rgb.tobytes() for f in seen.frames)
    assert digest() == digest()
