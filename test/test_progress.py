# SPDX-License-Identifier: Apache-2.0
"""Progress: bars on a terminal, lines elsewhere, silence for what is quick."""
from contextlib import suppress
import fcntl
import io
import os
import pickle
import pty
import struct
import sys
import termios
from types import SimpleNamespace

from fake_world import FakeWorld
from lingbot_world_ros import progress
from lingbot_world_ros.cli.replay import verify_segments
from lingbot_world_ros.cli.sim import _kind, status_line
from lingbot_world_ros.progress import Loading, Progress, progress_bar, show_until_end
from lingbot_world_ros.recording.recorded import RecordedStep, RecordedWorld, Segment
from lingbot_world_ros.recording.replay import open_session, verify
from lingbot_world_ros.session.states import Mode, State
from lingbot_world_ros.session.status import SessionStatus
from lingbot_world_ros.worlds.definition import WorldDefinition
import numpy as np
import pytest
from waiting import PATIENCE_S


@pytest.fixture
def at_once(monkeypatch):
    """Show everything, however quick it is."""
    monkeypatch.setattr(progress, 'DELAY_S', 0.0)
    monkeypatch.setattr(progress, 'LINE_PERIOD_S', 0.0)


def test_what_is_quick_shows_nothing(monkeypatch):
    monkeypatch.setattr(progress, 'DELAY_S', 3600.0)  # quick on any machine
    file = io.StringIO()
    with Progress('frames', {'truth': 10}, file) as shown:
        for _ in range(10):
            shown.add('truth')
    assert file.getvalue() == ''


def test_without_a_terminal_there_are_whole_lines(at_once):
    file = io.StringIO()
    with Progress('frames', {'truth': 3}, file) as shown:
        for _ in range(3):
            shown.add('truth')
    lines = file.getvalue().splitlines()
    assert '\r' not in file.getvalue() and len(lines) >= 2
    assert lines[0].startswith('truth: ') and '3/3' in lines[-1]


def test_lines_are_seconds_apart(monkeypatch):
    monkeypatch.setattr(progress, 'DELAY_S', 0.0)
    monkeypatch.setattr(progress, 'LINE_PERIOD_S', 3600.0)  # long on any machine
    file = io.StringIO()
    with Progress('frames', {'truth': 100_000}, file) as shown:
        for _ in range(1000):
            shown.add('truth', 100)
    assert len(file.getvalue().splitlines()) <= 3  # the first and the last


def test_on_a_terminal_there_is_one_bar_that_is_drawn_again(at_once):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    with os.fdopen(theirs, 'w') as terminal:
        with Progress('steps', {'work': 4}, terminal) as shown:
            shown.add('work', 4)
            shown.clear()
    said = ''
    with suppress(OSError):  # nobody is at the other end any more
        while data := os.read(ours, 10_000):
            said += data.decode()
    os.close(ours)
    assert '\r' in said and '4/4' in said


def test_interrupted_work_goes_on_where_it_was(at_once):
    file = io.StringIO()
    with Progress(file=file) as shown:
        shown.show('a', 2, 4)
        shown.show('b', 1, 1)
        shown.show('a', 4, 4)
        shown.show('a', 1, 4)  # the same once more
    assert 'a: 100%' in file.getvalue() and 'b: 100%' in file.getvalue()
    assert '4/4' in file.getvalue() and '5/4' not in file.getvalue()


def test_many_of_something_are_bytes(at_once):
    file = io.StringIO()
    with Progress(file=file) as shown:
        shown.show('loading', 5_000_000, 10_000_000)
    assert '5.00M/10.0M' in file.getvalue()


def test_a_bar_counts_what_it_iterates_over(at_once):
    file = io.StringIO()
    assert list(progress_bar(range(3), file=file, desc='jobs')) == [0, 1, 2]
    assert '3/3' in file.getvalue()


def test_loading_can_be_sent_to_another_process(at_once, capsys):
    loading = pickle.loads(pickle.dumps(Loading('the network')))
    loading(40, 100)
    loading(100, 100)
    assert 'the network: 100%' in capsys.readouterr().err
    pickle.dumps(loading)  # again, after it has shown something


@pytest.fixture
def story():
    """Five recorded steps of a fake world that stands still."""
    world = FakeWorld()
    action = np.zeros((1, len(world.spec.action.names)), np.float32)
    session, source = open_session(world)
    session.load(WorldDefinition('a', 'a', seed=3)).result(PATIENCE_S)
    session.pause().result(PATIENCE_S)
    segment = Segment(1, RecordedWorld('fake', world.spec.model, '', 'a', 1, action.shape[1]), 3,
                      session.status.digest)
    for index in range(1, 6):
        step = RecordedStep(index, index, action, (), '')
        source.put([step])
        session.advance(1).result(PATIENCE_S)
        segment.steps.append(RecordedStep(index, index, action, (), session.status.digest))
    session.close()
    return [segment]


def test_comparing_a_recording_tells_each_frame(story):
    told = []
    verdict, = verify(story, lambda name: FakeWorld(), tell=told.append)
    assert verdict.outcome == 'same' and sum(told) == verdict.num_frames == 6


def test_the_verb_shows_it_on_stderr_and_verdicts_on_stdout(story, at_once, capsys):
    assert verify_segments(story, make_engine=lambda name: FakeWorld()) == 0
    said = capsys.readouterr()
    assert 'comparing: 100%' in said.err and '6/6' in said.err
    assert said.out.startswith('Segment 1') and 'comparing' not in said.out


def shown(monkeypatch, kinds, terminal=False):
    """Return what is printed of a line per second, each of a kind."""
    file, now_s, told = io.StringIO(), [100.0], iter(enumerate(kinds, 1))
    file.isatty = lambda: terminal
    monkeypatch.setattr(sys, 'stdout', file)
    monkeypatch.setattr(progress, 'time', SimpleNamespace(monotonic=lambda: now_s[0]))
    kind = [None]

    def wait(timeout_s):
        now_s[0] += timeout_s

    def tell():
        number, kind[0] = next(told)
        return f'line {number}'
    show_until_end(SimpleNamespace(wait=wait), tell, float(len(kinds)), kind=lambda: kind[0])
    return file.getvalue()


def test_a_log_has_a_line_on_change_each_half_minute_and_at_the_end(monkeypatch):
    kinds = ['playing'] * 65 + ['paused'] * 5
    assert shown(monkeypatch, kinds).splitlines() == [
        'line 1', 'line 31', 'line 61', 'line 66', 'line 70']
    assert shown(monkeypatch, ['playing']) == 'line 1\n'
    assert shown(monkeypatch, ['playing', 'playing', 'refused', 'playing', 'playing']
                 ).splitlines() == ['line 1', 'line 3', 'line 4', 'line 5']


def test_a_terminal_has_it_each_second(monkeypatch):
    text = shown(monkeypatch, [''] * 40, terminal=True)
    assert text.count('\r') == 40 and text.count('\n') == 1 and 'line 17\x1b[K\r' in text


def test_a_duration_of_0_ends_at_once(monkeypatch):
    """It counted as none, and never ended."""
    told = []
    monkeypatch.setattr(sys, 'stdout', io.StringIO())
    show_until_end(SimpleNamespace(wait=lambda timeout_s: len(told) > 5),
                   lambda: told.append('') or 'playing', 0.0)
    assert len(told) == 1


def test_a_log_does_not_have_a_message_again_because_a_number_in_it_changed():
    def world(message, refused=''):
        return SimpleNamespace(session=SimpleNamespace(status=SimpleNamespace(
            state='playing', message=message, counts=SimpleNamespace(message=refused))))
    assert _kind(world('lockstep: 9 steps without')) == _kind(world('lockstep: 10 steps without'))
    assert _kind(world('', '0.6 s old')) == _kind(world('', '7.2 s old')) != _kind(world(''))


def test_a_warning_does_not_hang_on_the_end_of_a_status_line(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, 'stdout', terminal)
    show_until_end(SimpleNamespace(wait=lambda timeout_s: True), lambda: 'playing')
    assert terminal.getvalue() == 'playing\x1b[K\r\n'


def on_terminal(monkeypatch, line, columns=80):
    """Return what stands in one line of a terminal."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, 'stdout', terminal)
    monkeypatch.setenv('COLUMNS', str(columns))
    show_until_end(SimpleNamespace(wait=lambda timeout_s: True), lambda: line)
    return terminal.getvalue().partition('\x1b')[0]


def test_a_line_that_the_terminal_cuts_off_says_so(monkeypatch):
    assert on_terminal(monkeypatch, 79 * 'a') == 79 * 'a'
    assert on_terminal(monkeypatch, 80 * 'a') == 78 * 'a' + '…'
    assert on_terminal(monkeypatch, 'playing', 5) == 'pla…'


def world_status(message=''):
    return SessionStatus(State.PLAYING, Mode.REALTIME, stamp_ns=1234_560_000_000,
                         frame_rate_hz=15.0, real_time_factor=1.0, uncertainty=0.022,
                         message=message)


@pytest.mark.parametrize('latencies_s', [(), (0.15, 0.15, 0.16)])
def test_the_line_of_a_world_fits_a_small_terminal(monkeypatch, latencies_s):
    line = status_line(world_status(), np.array(latencies_s))
    assert on_terminal(monkeypatch, line) == line
    assert line.endswith(f"{'latency 150 ms' if latencies_s else 'no new command'}, "
                         'uncertainty 0.022')


def test_a_small_terminal_shows_a_problem_rather_than_numbers(monkeypatch):
    """It stood at the end, which no terminal of 80 columns showed."""
    problem = 'joint_command: refused, unknown joint'
    line = status_line(world_status(f"{problem} 'elbow'; known: {', '.join('abcd')}."),
                       np.array([]))
    shown = on_terminal(monkeypatch, line)
    assert problem in shown and shown.endswith('…') and len(shown) == 79
    assert line.endswith('uncertainty 0.022')
