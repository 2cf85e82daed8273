# SPDX-License-Identifier: Apache-2.0
"""The measurement from key to picture follows keys to their pictures; one short run of it."""
import json
import os
import subprocess
import sys

from bench.glass import key_of, latencies, markdown, summary
from browser import find_browser
import pytest


def frames(*shares):
    """Pictures every 50 ms, with the share of pixels that differ."""
    return [{'t': 50.0 * i, 'share': share} for i, share in enumerate(shares)]


def key(kind, t, letter='W'):
    return {'type': kind, 'code': f'Key{letter}', 't': t}


def test_a_start_ends_with_the_first_picture_that_differs_and_a_stop_with_the_last():
    log = {'keys': [key('keydown', 110.0), key('keyup', 260.0)],
           'frames': frames(0.0, 0.0, 0.001, 0.0, 0.1, 0.2, 0.1, 0.05, 0.002, 0.0)}
    found = latencies(log)
    assert found['latencies_ms'] == {'forward': [90.0], 'turn': [], 'stop': [90.0]}
    assert found['without_picture'] == 0
    assert found['share_at_start_p50'] == 0.1 and found['share_at_rest_most'] == 0.001


def test_a_picture_that_comes_after_a_short_press_still_counts_for_it():
    log = {'keys': [key('keydown', 10.0, 'A'), key('keyup', 60.0, 'A'), key('keydown', 300.0)],
           'frames': frames(0.0, 0.0, 0.1, 0.1, 0.0, 0.0, 0.0, 0.0)}
    found = latencies(log)
    assert found['latencies_ms'] == {'forward': [], 'turn': [90.0], 'stop': [90.0]}
    assert found['without_picture'] == 1


def test_other_keys_are_not_counted_and_the_robot_stays_where_it_is():
    assert latencies({'keys': [key('keydown', 1.0, 'R')], 'frames': []})['without_picture'] == 0
    assert [key_of(trial) for trial in range(5)] == ['w', 'a', 's', 'd', 'w']


@pytest.mark.parametrize('start_ms, view, met', [(150.0, 0.1, [True, True]),
                                                 (250.0, 0.2, [False, False])])
def test_what_has_to_hold_is_judged(start_ms, view, met):
    run = {'latencies_ms': {'forward': [start_ms], 'turn': [start_ms], 'stop': []},
           'cpu_cores': {'no_page': {'view': 0.0}, 'driving': {'view': view}}}
    judged = summary(run)
    assert [bar['met'] for bar in judged['bars']] == met
    assert judged['latency']['start']['trials'] == 2
    assert judged['latency']['stop']['p95_ms'] is None


@pytest.mark.slow
def test_a_short_run_measures_and_is_written_down(tmp_path):
    for name in ('rclpy', 'openvino', 'lingbot_world_ros.msg', 'playwright', 'aiohttp'):
        pytest.importorskip(name)
    if find_browser() is None:
        pytest.skip('no Chromium on this machine')
    from ros_domain import Domain
    with Domain() as domain:
        subprocess.run([sys.executable, '-m', 'bench.glass', '--only', 'native', '--trials', '2',
                        '--seconds', '1', '--out', str(tmp_path)], cwd=tmp_path, check=True,
                       stdout=subprocess.DEVNULL, timeout=120,
                       env={**os.environ, 'ROS_DOMAIN_ID': str(domain)})
    result = json.loads((tmp_path / 'glass.json').read_text())
    run = result['runs']['native']
    assert len(run['latencies_ms']['stop']) + run['without_picture'] >= 2
    assert set(run['lost_ms']) == {'world', 'view'} and min(run['lost_ms'].values()) > 0
    assert set(run['cpu_cores']['driving']) >= {'world', 'view', 'browser', 'browser_renderer'}
    assert 0 < run['cpu_cores']['driving']['view'] < run['cpu_cores']['driving']['world']
    assert (tmp_path / 'glass.md').read_text() == markdown(result)
