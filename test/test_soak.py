# SPDX-License-Identifier: Apache-2.0
"""The soak judges as it says, and one round of it is clean."""
import json
import os
import subprocess
import sys

from needs import need_engine
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('simulation_interfaces.srv')

from bench.faulty_sim import FaultyWorld, order_faults  # noqa: E402, I100
from bench.ledger import FrameLedger  # noqa: E402
from bench.machine import family, is_running, usage  # noqa: E402
from bench.peers import fitted_rate  # noqa: E402
from bench.report import put_into  # noqa: E402
from bench.soak import DOCUMENT, HEAD, markdown, MARKERS, summary_line, World  # noqa: E402
from bench.soak_rules import Broken, growth, MAX_GROWTH  # noqa: E402
from fake_world import FakeWorld  # noqa: E402
import numpy as np  # noqa: E402
from waiting import PATIENCE_S, wait_for  # noqa: E402

P = 100
RUN = {'variant': 'inside', 'seconds': 900.0, 'rounds': 20, 'frames': {'camera/image_raw': 7000},
       'frame_problems': 0, 'rate_hz': 15.0, 'late_joiners': 9, 'recoveries': 3,
       'services': {'load_world': {'calls': 8, 'longest_s': 2.25}},
       'memory': {name: {'growth': 0.0031, 'first_mib': 500.0, 'last_mib': 501.0}
                  for name in ('main_mib', 'all_mib')},
       'after_warm_up': {'threads': 30, 'files': 19, 'children': 0},
       'end': {'threads': 30, 'files': 19, 'children': 0}, 'broken': []}


def ledger(*stamps, topic='image'):
    book = FrameLedger()
    book.period(P)
    for stamp in stamps:
        book.frame(topic, stamp)
    return book


@pytest.mark.parametrize('stamps, words', [
    ((300, 400, 600), '1 frames are missing'),
    ((300, 400, 400), 'two messages'),
    ((300, 400, 300), 'follows 400'),
    ((300, 400, 450), 'follows 400')])
def test_lost_and_repeated_frames_are_told(stamps, words):
    report = ledger(*stamps).report()
    assert report['num_problems'] == 1 and words in report['problems'][0]


def test_time_may_start_again_and_all_topics_have_to_agree_when():
    book = ledger(300, 400, 500, 100, 200)
    for stamp in (400, 500, 100, 200):
        book.frame('odom', stamp)
    assert book.report()['problems'] == []
    book = ledger(300, 400, 500, 100, 200)
    for stamp in (300, 400, 100, 200):
        book.frame('odom', stamp)
    assert 'before a restart' in book.report()['problems'][0]


@pytest.mark.parametrize('statuses, good', [
    (((5, 500), (5, 500), (6, 600), (1, 100), (2, 200)), True),
    (((5, 500), (6, 600), (1, 700), (2, 800)), True),  # a reset of the state alone
    (((5, 500), (5, 100), (6, 200)), True),  # a reset of time alone
    (((5, 500), (7, 700)), False), (((5, 500), (6, 500)), False), (((5, 500), (5, 600)), False)])
def test_numbers_of_world_status_have_to_be_contiguous(statuses, good):
    book = ledger()
    for frame, stamp in statuses:
        book.status(frame, stamp)
    assert (book.report()['num_problems'] == 0) == good


def test_growth_is_the_larger_of_line_and_medians():
    times = np.arange(0, 1000, 40.0)
    assert growth(np.stack([times, 500 + times * 0.0], 1))['growth'] == pytest.approx(0.0)
    leak = growth(np.stack([times, 500 + 0.02 * times], 1))
    assert leak['growth'] == pytest.approx(0.0384, abs=2e-3) and leak['growth'] > MAX_GROWTH
    step = growth(np.stack([times, np.where(times < 700, 500.0, 520.0)], 1))
    assert step['growth'] >= 0.04
    shrinking = growth(np.stack([times, 500 - 0.02 * times], 1))
    assert shrinking['growth'] < 0
    assert growth([(0.0, 500.0), (100.0, 900.0)])['growth'] is None, 'too short to say'


def test_rate_is_that_of_a_line_and_one_late_frame_does_not_move_it():
    arrivals = [(n * 66_666_667, n * P) for n in range(60)]
    assert fitted_rate(arrivals, P) == pytest.approx(15.0, abs=1e-3)
    arrivals[-1] = (arrivals[-1][0] + 50_000_000, arrivals[-1][1])
    assert fitted_rate(arrivals, P) == pytest.approx(15.0, abs=0.03)
    assert fitted_rate([*arrivals, (10 ** 10, P)], P) is None


def test_faults_are_used_up_one_per_step(tmp_path):
    world = FaultyWorld(FakeWorld(), tmp_path / 'faults', hang_s=0.0)
    world.reset('a', 0)
    order_faults(tmp_path / 'faults', 'error', 'memory', 'nan', 'hang')
    actions = np.zeros((1, 1, 7), np.float32)
    with pytest.raises(RuntimeError, match='on demand'):
        world.step(actions)
    with pytest.raises(MemoryError, match='on demand'):
        world.step(actions)
    assert np.isnan(world.step(actions).base_pose).all()
    for _ in range(2):
        assert np.isfinite(world.step(actions).base_pose).all()
    assert world.snapshot()[1] == 3, 'steps of the engine inside'


def test_usage_counts_children_and_files():
    with subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE) as child:
        assert family(os.getpid())[0] == os.getpid() and child.pid in family(os.getpid())
        before = usage(os.getpid())
        with open(os.devnull):
            assert usage(os.getpid())['files'] == before['files'] + 1
        assert before['children'] >= 1 and before['main_mib'] > 1
        child.communicate(b'\n')
    assert child.pid not in family(os.getpid())


def test_who_has_ended_does_not_run_though_nobody_has_asked_how():
    with subprocess.Popen([sys.executable, '-c', '']) as child:
        wait_for(lambda: not is_running(child.pid))
        assert os.path.exists(f'/proc/{child.pid}') and is_running(os.getpid())
    assert not is_running(child.pid)


def test_who_stays_after_the_world_is_named():
    world = World.__new__(World)
    world.patience = 0.2
    child = f'import time; print("up", flush=True); time.sleep({PATIENCE_S})'
    with subprocess.Popen(
            [sys.executable, '-c', 'import signal, subprocess, sys\n'
             'signal.signal(signal.SIGINT, lambda *_: sys.exit())\n'
             f'subprocess.Popen([sys.executable, "-c", {child!r}])\nsignal.pause()'],
            stdout=subprocess.PIPE) as world.process:
        assert world.process.stdout.readline() == b'up\n'
        started = family(world.process.pid)[1]
        with pytest.raises(Broken, match='after the world had ended there still ran: .*"up"'):
            world.close()
    wait_for(lambda: not is_running(started))


def test_numbers_go_into_the_document(tmp_path):
    result = {'command': 'c', 'started': 's', 'runs': [RUN],
              'machine': {'processor': 'p', 'cores': 2, 'load': 0.0}}
    text = markdown(result)
    assert text.count('|') == 3 * (len(HEAD) + 1) and '+0.31% of 500 MiB' in text
    assert summary_line(RUN).startswith('inside: clean; minutes 15.0, rounds 20')
    broken = {**RUN, 'broken': [{'rule': 'frames', 'act': 'flood', 'text': 'one is missing'}]}
    assert 'one is missing' in markdown({**result, 'runs': [broken]})
    assert summary_line(broken).startswith('inside: 1 BROKEN')
    path = tmp_path / 'robustness.md'
    path.write_text(DOCUMENT.read_text())
    put_into(path, text, *MARKERS)
    assert text in path.read_text() and path.read_text().count(MARKERS[1]) == 1


@pytest.mark.slow
def test_some_acts_are_clean(tmp_path):
    """The engine in a process of its own; no time is judged. ``make soak`` does everything."""
    need_engine('room')
    acts = ('pauses_and_steps', 'worlds', 'engine_fails_once', 'engine_is_killed', 'flood',
            'client_dies_in_a_step')
    done = subprocess.run(
        [sys.executable, '-m', 'bench.soak', '--duration', '1', '--variant', 'isolated',
         '--patience', '20', *(word for act in acts for word in ('--act', act)),
         '--out', tmp_path], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    run, = json.loads((tmp_path / 'soak.json').read_text())['runs']
    assert run['rounds'] == 1 and run['recoveries'] == 4 and run['frame_problems'] == 0
    assert set(run['acts']) == set(acts) and 'isolated: clean' in done.stdout
