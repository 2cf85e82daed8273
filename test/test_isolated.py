# SPDX-License-Identifier: Apache-2.0
"""Engines in a process of their own: the same bytes; back after kills, hangs, lack of memory."""
from functools import partial
import logging
import os
import signal
import threading
import time

from fake_world import FakeWorld
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.worlds.faults import EngineHung, EngineLost, Fault
from lingbot_world_ros.worlds.isolated import IsolatedWorld
from lingbot_world_ros.worlds.library import WorldDefinition
from lingbot_world_ros.worlds.session import Session, SessionSpec
from lingbot_world_ros.worlds.status import SessionObserver
import numpy as np
import pytest

ACTIONS = np.full((1, 1, 7), 0.1, np.float32)


def cannot_be_made():
    raise SpecError('no weights; fetch them')


def sleep_long():
    time.sleep(60.0)


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


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_gives_the_bytes_of_the_same_engine_inside(make):
    inside, outside = FakeWorld(), make()
    assert outside.spec == inside.spec
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
    threading.Timer(0.2, world.kill, [EngineHung('too long')]).start()
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
    assert is_alive(pid)
    world.close()
    assert not is_alive(pid)


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
        session.start(WorldDefinition('a', 'a')).result(30.0)
        while session.status.state != 'paused':
            time.sleep(0.001)
        for step in range(6):
            if kill and step in (2, 5):
                os.kill(world.pid, signal.SIGKILL)
            status = session.advance(1).result(30.0)
        session.close()
        return status, seen.digests
    killed, digests = run(IsolatedWorld(FakeWorld), True)
    _, untouched = run(FakeWorld(), False)
    assert killed.recoveries == 2 and killed.fault == Fault.NONE
    assert digests == untouched
