# SPDX-License-Identifier: Apache-2.0
"""The benchmark follows commands to their frames and counts honestly; one short run of it."""
import json
import os
import subprocess
import sys

from bench import envs
from bench.latency import command_latencies, frame_of_command, frame_rate, Log
from bench.report import BEGIN, END, judge, markdown, put_into, summary
from lingbot_world_ros.errors import SpecError
from needs import need_engine
import numpy as np
import pytest

MS = 1_000_000
PERIOD_NS = 100 * MS
MACHINE = {'processor': 'p', 'cores': 1, 'memory_mib': 1, 'instruction_sets': [], 'python': '3',
           'packages': {}, 'load': 0.0, 'niceness': 0}


def make_log():
    """Record by hand: embedding 7 carries the command 0.5 on column 1; step 300 is its first."""
    log = Log(commands=[(1_000 * MS, 1, 0.5, -0.4)])
    log.embeddings = {6: np.float32([0.0, -0.4]), 7: np.float32([0.0, 0.5]),
                      8: np.float32([0.2, 0.5])}
    log.steps = {200 * MS: 6, 300 * MS: 7, 400 * MS: 8}
    log.frames = {200 * MS: 950 * MS, 300 * MS: 1_040 * MS, 400 * MS: 1_140 * MS}
    log.motion = {200 * MS: {1: -0.4}, 300 * MS: {1: -0.1}, 400 * MS: {1: 0.3}}
    return log


def test_latency_ends_with_the_first_frame_that_used_the_command():
    """The frame before it arrived later than the command was sent would not count either."""
    log = make_log()
    log.frames[200 * MS] = 1_010 * MS
    assert frame_of_command(log, log.commands[0]) == 300 * MS
    latencies_ms, missed, moved = command_latencies(log)
    assert latencies_ms == [40.0] and missed == 0 and moved == 1.0


def test_latency_skips_an_embedding_that_no_step_used():
    """An embedding replaced before the latch is not when the command acted."""
    log = make_log()
    log.steps[300 * MS] = 6
    assert command_latencies(log)[0] == [140.0]


@pytest.mark.parametrize('lose', [lambda log: log.steps.update({300 * MS: 6, 400 * MS: 6}),
                                  lambda log: log.frames.pop(300 * MS)],
                         ids=['no step used it', 'its image was lost'])
def test_command_without_frame_is_counted_not_dropped(lose):
    """A command whose frame never came must not make the latencies look better."""
    log = make_log()
    lose(log)
    assert command_latencies(log)[:2] == ([], 1)


def test_motion_against_the_command_is_noticed():
    """The frame that is said to use a command has to show it."""
    log = make_log()
    log.motion[300 * MS] = {1: -0.5}
    assert command_latencies(log)[2] == 0.0


def test_frame_rate_counts_gaps_in_sim_time_as_lost():
    """Three of four frames within 0.3 s of wall time: 2 intervals in 0.3 s."""
    log = Log(frames={100 * MS: 0, 200 * MS: 100 * MS, 400 * MS: 300 * MS})
    rate = frame_rate(log, PERIOD_NS)
    assert rate['frames_per_s'] == pytest.approx(2 / 0.3)
    assert (rate['frames'], rate['lost']) == (3, 1)
    assert rate['interval_ms']['longest'] == 200.0


def make_run(**changes):
    """One end-to-end run with round numbers."""
    return {'first_image_s': 2.0, 'frames_per_s': 70.0, 'latencies_ms': [10.0, 20.0],
            'commands_without_frame': 1, 'moved_as_commanded': 1.0,
            'cpu_cores': {'sim': 0.9, 'others': 0.0},
            'memory_mib': {'resident': 300.0, 'own': 170.0}, 'frames': 100, 'lost': 0,
            'interval_ms': {'p50': 14.0, 'p95': 15.0, 'longest': 20.0}, **changes}


def test_summary_pools_commands_and_takes_the_median_run():
    """Rates are medians of runs; latencies are over all commands."""
    runs = [make_run(), make_run(frames_per_s=50.0, latencies_ms=[90.0]),
            make_run(frames_per_s=60.0, latencies_ms=[])]
    result = summary(runs)
    assert result['frames_per_s'] == 60.0 and result['slowest_run'] == 50.0
    assert result['commands'] == 3 and result['latency_p50_ms'] == 20.0
    assert result['commands_without_frame'] == 3


def test_bars_are_missed_when_too_slow():
    """59 frames a second is not 60, and 150 ms is not under 150 ms."""
    slow = summary([make_run(frames_per_s=59.0)])
    late = summary([make_run(frames_per_s=15.0, latencies_ms=[150.0])])
    verdicts = judge({'full_speed': slow, 'nominal_busy': late})
    assert [verdict['met'] for verdict in verdicts] == [False, True, False]
    assert all(verdict['met'] for verdict in judge({'full_speed': summary([make_run()])}))
    silent = summary([make_run(latencies_ms=[])])
    assert not judge({'nominal_busy': silent})[1]['met'], 'no latency at all is no success'


def test_document_keeps_its_text_around_the_tables(tmp_path):
    """Only what stands between the markers is replaced; without them nothing is written."""
    path = tmp_path / 'benchmarks.md'
    path.write_text(f'before\n{BEGIN}\nold\n{END}\nafter\n')
    put_into(path, 'new')
    assert path.read_text() == f'before\n{BEGIN}\n\nnew\n{END}\nafter\n'
    path.write_text('no markers\n')
    with pytest.raises(SpecError, match='markers|lacks'):
        put_into(path, 'new')
    assert path.read_text() == 'no markers\n'


@pytest.mark.slow
def test_end_to_end_measures_a_running_simulator(tmp_path):
    """One short run over DDS: images arrive, commands are followed to their frames."""
    pytest.importorskip('rclpy')
    pytest.importorskip('lingbot_world_ros.msg')
    need_engine('room')
    from ros_domain import Domain
    with Domain() as domain:
        done = subprocess.run(
            [sys.executable, '-m', 'bench.end_to_end', '--speed', '0', '--seconds', '1.5'],
            cwd=tmp_path, env={**os.environ, 'ROS_DOMAIN_ID': str(domain)},
            capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout.splitlines()[-1])
    assert run['frames'] > 1 and run['latencies_ms'] and min(run['latencies_ms']) > 0
    result = {'command': 'c', 'started': 's', 'engine': {}, 'runtimes': {}, 'transport': [],
              'machine': MACHINE,
              'end_to_end': {'full_speed': summary([run])}, 'bars': []}
    assert f'{run["frames"]}' in markdown(result)


def test_parts_of_a_node_are_measured(tmp_path):
    """The parts get done, and their times into the report."""
    pytest.importorskip('rclpy')
    pytest.importorskip('lingbot_world_ros.msg')
    from ros_domain import Domain
    with Domain() as domain:
        done = subprocess.run(
            [sys.executable, '-m', 'bench.costs', '--calls', '2'], cwd=tmp_path,
            env={**os.environ, 'ROS_DOMAIN_ID': str(domain)},
            capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    costs = json.loads(done.stdout.splitlines()[-1])
    assert costs['frame, all topics']['topics'] > 10
    assert all(0 < cost['p50_ms'] <= cost['p95_ms'] for cost in costs.values())
    bare, full = costs['step, senses left out'], costs['step, senses unheard']
    assert full['topics'] == bare['topics'] + 8
    assert full['p50_ratio'] == pytest.approx(full['p50_ms'] / bare['p50_ms'])
    result = {'command': 'c', 'started': 's', 'engine': {}, 'runtimes': {}, 'transport': [],
              'machine': MACHINE, 'end_to_end': {}, 'bars': [], 'costs': costs}
    assert '| scan | ' in markdown(result) and '| step, senses unheard | ' in markdown(result)


def test_bars_of_stepping_are_judged_and_shown():
    """2.9 ms pass, one command of a thousand that acts late does not."""
    spread = {'p50_ms': 2.1, 'p95_ms': 2.9, 'longest_ms': 6.0}
    names = ('state', 'step', 'step_after_command', 'steps_10', 'per_step_of_10')
    stepping = {**{name: spread for name in names}, 'commands': 1000, 'acted_on': 999}
    bars = judge({}, stepping)
    assert [bar['met'] for bar in bars] == [True, False]
    result = {'command': 'c', 'started': 's', 'engine': {}, 'runtimes': {}, 'transport': [],
              'machine': MACHINE, 'end_to_end': {}, 'bars': bars, 'stepping': stepping}
    assert '| StepSimulation(1) | 2.10 | 2.90 | 6.00 |' in markdown(result)


def test_environments_are_measured(tmp_path):
    """A step with pictures is an image of every row, and gets into the table."""
    pytest.importorskip('gymnasium', minversion='1.4')
    need_engine('room')
    done = subprocess.run([sys.executable, '-m', 'bench.envs', '--num-envs', '2', '--size',
                           '80x60', '--inexact', '--seconds', '0'], cwd=tmp_path,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout.splitlines()[-1])
    assert run['pictures'] and run['steps'] == 3
    assert 0.0 < run['steps_per_s'] <= 1.1 * run['best_per_cpu_s']
    assert '| room | 80x60 | 2 | no | ' in envs.markdown(MACHINE, [run])
    like = {'size': '80x60', 'exact': False, 'psnr_db': 31.25, 'psnr_scaled_db': 34.5}
    assert '| 31.2 |' in envs.markdown(MACHINE, [run], [like]).splitlines()[4]
