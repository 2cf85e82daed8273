# SPDX-License-Identifier: Apache-2.0
"""Engines in a process of their own: the same bytes; back after kills, hangs, lack of memory."""
from dataclasses import replace
from functools import partial
import logging
import os
import signal
import threading
import time

from bench.machine import is_running
from fake_world import FakeChunkWorld, FakeWorld
from lingbot_world_ros.engines.interface import Start
from lingbot_world_ros.engines.isolated import IsolatedWorld
from lingbot_world_ros.errors import EngineHung, EngineLost, SpecError
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Fault
from lingbot_world_ros.worlds.definition import WorldDefinition
import numpy as np
import pytest
from waiting import PATIENCE_S, wait_for

ACTIONS = np.full((1, 1, 7), 0.1, np.float32)


def cannot_be_made():
    raise SpecError('no weights; fetch them')


def sleep_long():
    time.sleep(2 * PATIENCE_S)


def lack_of_memory():
    return FakeWorld(script={2: MemoryError('no room')})


def hanging():
    return FakeWorld(script={2: sleep_long})


def dying():
    return FakeWorld(script={2: partial(os._exit, 7)})


@pytest.fixture
def make():
    worlds = []

    def start(make_world=FakeWorld):
        worlds.append(IsolatedWorld(make_world))
        return worlds[-1]
    yield start
    for world in worlds:
        world.close()
        assert world.pid is None


def test_gives_the_bytes_of_the_same_engine_inside(make):
    inside, outside = FakeWorld(), make()
    assert outside.spec == replace(inside.spec, can=replace(inside.spec.can, kill=True))
    for world in (inside, outside):
        world.reset('a', 3)
    seen = [world.step(ACTIONS) for world in (inside, outside)]
    assert seen[0].rgb.tobytes() == seen[1].rgb.tobytes()
    assert np.array_equal(seen[0].base_pose, seen[1].base_pose)


def test_killed_process_is_named_and_restore_continues_with_the_same_bytes(make):
    world = make()
    world.reset('a', 3)
    for _ in range(4):
        expected = world.step(ACTIONS)
        if _ == 2:
            saved = world.snapshot()
    os.kill(world.pid, signal.SIGKILL)
    with pytest.raises(EngineLost, match='SIGKILL'):
        world.step(ACTIONS)
    world.restore(saved)
    again = world.step(ACTIONS)
    assert again.rgb.tobytes() == expected.rgb.tobytes()
    assert np.array_equal(again.base_pose, expected.base_pose)


def test_exit_of_the_engine_is_named(make):
    world = make(dying)
    world.reset('a', 0)
    world.step(ACTIONS)
    with pytest.raises(EngineLost, match='exit code 7'):
        world.step(ACTIONS)


def test_kill_ends_a_call_that_hangs(make):
    world = make(hanging)
    world.reset('a', 0)
    world.step(ACTIONS)
    threading.Timer(0.2, world.kill, [EngineHung('too long')]).start()  # sooner or later: it hangs
    with pytest.raises(EngineHung, match='too long'):
        world.step(ACTIONS)
    assert world.reset('b', 1).rgb[0, 0, 0, 0, 2] == ord('b')


def test_errors_of_the_engine_arrive_as_they_are(make):
    world = make(lack_of_memory)
    world.reset('a', 0)
    world.step(ACTIONS)
    with pytest.raises(MemoryError, match='no room'):
        world.step(ACTIONS)
    with pytest.raises(SpecError, match='fetch them'):
        IsolatedWorld(cannot_be_made)


def test_process_ends_with_the_engine(make):
    world = make()
    pid = world.pid
    assert is_running(pid)
    world.close()
    assert not is_running(pid)


class Digests(SessionObserver):
    """Keeps the digest of every step."""

    def __init__(self):
        self.digests = {}

    def on_status(self, status):
        self.digests[status.step] = status.digest


def test_session_survives_kills_of_its_engine_without_a_changed_frame():
    def run(world, kill):
        seen = Digests()
        session = Session(world, SessionSpec(mode='stepped'), observers=[seen],
                          log=logging.getLogger('test'))
        session.start(WorldDefinition('a', 'a')).result(PATIENCE_S)
        wait_for(lambda: session.status.state == 'paused', 'the pause')
        for step in range(6):
            if kill and step in (2, 5):
                os.kill(world.pid, signal.SIGKILL)
            status = session.advance(1).result(PATIENCE_S)
        session.close()
        return status, seen.digests
    killed, digests = run(IsolatedWorld(FakeWorld), True)
    _, untouched = run(FakeWorld(), False)
    assert killed.recoveries == 2 and killed.fault == Fault.NONE
    assert digests == untouched


class Frames(SessionObserver):
    """Keeps all frames."""

    def __init__(self):
        self.frames = []

    def on_frame(self, frame):
        self.frames.append(frame)


def chunks(script=None):
    return FakeChunkWorld(frames_per_step=4, script=script)


def hang_once(path):
    if not path.exists():
        path.touch()
        sleep_long()


def chunks_hanging(path):
    return chunks({2: partial(hang_once, path)})


def start_chunks(world, **spec):
    seen = Frames()
    session = Session(world, SessionSpec(**spec), observers=[seen], log=logging.getLogger('test'))
    session.start(WorldDefinition('a', 'a', prompt='a room')).result(PATIENCE_S)
    return session, seen


def test_engine_without_cheap_snapshots_has_all_its_calls_and_sends_no_state(make):
    world = make(chunks)
    can = world.spec.can
    assert can.take_prompts and can.finish_step and can.undo_step and not can.prepare_prompt
    assert not make().spec.can.undo_step and world.is_lost
    world.reset('a', 0, start=Start('a room'))
    assert world._newest is None and not world.is_lost
    actions = np.full((1, 4, 7), 0.1, np.float32)
    first = world.step(actions)
    world.undo_step()
    again = world.step(actions)
    assert first.rgb.tobytes() == again.rgb.tobytes()
    saved = world.snapshot()  # large, but it can be asked for
    world.finish_step()
    os.kill(world.pid, signal.SIGKILL)
    with pytest.raises(EngineLost):
        world.finish_step()
    assert world.is_lost
    world.restore(saved)
    world.finish_step()
    assert not world.is_lost


def test_session_over_a_killed_engine_goes_on_from_the_last_image_and_says_so():
    world = IsolatedWorld(chunks)
    session, seen = start_chunks(world, mode='stepped')
    wait_for(lambda: session.status.state == 'paused', 'the pause')
    session.set_prompt('snow').result(PATIENCE_S)
    session.advance(2).result(PATIENCE_S)
    os.kill(world.pid, signal.SIGKILL)
    status = session.advance(1).result(PATIENCE_S)
    session.close()
    assert (status.recoveries, status.fault, status.images_anchored) == (1, Fault.NONE, 1)
    assert 'new process' in status.message and 'last image shown' in status.message
    assert len(seen.frames) == 13 and status.prompt == 'snow'
    last, after = seen.frames[8].rgb[0, 0], seen.frames[9].rgb[0, 0]
    assert last[2] == 0 and after[2] == last[0] and after[1] == len('snow')
    assert np.array_equal(seen.frames[8].base_pose, seen.frames[9].base_pose)


def test_killed_engine_comes_back_while_frames_leave():
    world = IsolatedWorld(chunks)
    session, seen = start_chunks(world)
    wait_for(lambda: session.status.step >= 2, 'two steps')
    os.kill(world.pid, signal.SIGKILL)
    wait_for(lambda: session.status.state == 'error' or
             session.status.recoveries == 1 and session.status.step >= 6, 'the engine')
    assert session.status.state == 'playing'
    session.close()
    assert [f.index for f in seen.frames] == list(range(1, len(seen.frames) + 1))


def test_process_of_a_step_ahead_that_hangs_is_killed_and_started_again(tmp_path):
    world = IsolatedWorld(partial(chunks_hanging, tmp_path / 'hung'))
    session, seen = start_chunks(world, speed=0.0, step_timeout_s=4.0)  # a start must fit
    wait_for(lambda: session.check_engine() or session.status.step >= 6, 'six steps')
    session.pause().result(PATIENCE_S)
    assert session.status.recoveries == 1 and 'EngineHung' in session.status.message
    session.close()
    assert [f.index for f in seen.frames] == list(range(1, len(seen.frames) + 1))
