# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster of two nodes: the same bytes and numbers as here, whoever is killed meanwhile."""
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading

from needs import need_engine
import pytest

ray = pytest.importorskip('ray')
pytest.importorskip('gymnasium', minversion='1.4')
need_engine('room')
need_engine('reference')
from lingbot_world_ros.envs.rooms import make_rooms  # noqa: E402, I100
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.evaluation.judge import judge, JudgeSpec  # noqa: E402
from lingbot_world_ros.evaluation.judge_file import read_judged  # noqa: E402
from lingbot_world_ros.evaluation.workers import Workers  # noqa: E402
from test_spread import compare, QUICK  # noqa: E402

SPEC = JudgeSpec(('random', 'expert'), ('RoomReach',), starts=('nominal',), episodes=100)


@pytest.fixture(scope='module')
def address():
    """Start two nodes of one core each, and tell where the first one is."""
    from ray.cluster_utils import Cluster
    before = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1,
                                                            'include_dashboard': False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()
    if before is None:
        del os.environ['PYTHONPATH']
    else:
        os.environ['PYTHONPATH'] = before


def actors():
    """Return the ids of the processes that are actors of this package."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            if path.read_bytes().startswith(b'ray::_Host'):
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return found


def test_rows_on_two_nodes_show_what_one_process_shows(address):
    direct = make_rooms(4, task='RoomReach', image=False, **QUICK)
    spread = make_rooms(4, task='RoomReach', image=False, workers=2, ray=address, **QUICK)
    assert len({node['NodeID'] for node in ray.nodes() if node['Alive']}) == 2
    assert len(actors()) == 2
    compare(spread, direct, 'NextStep', num_steps=6, kills=(3,))
    spread.close()
    assert not ray.is_initialized()
    with pytest.raises(SpecError, match='2 CPU cores.*take at most 2'):
        make_rooms(4, task='RoomReach', workers=3, ray=address)
    assert not ray.is_initialized()
    direct.close()


def test_a_judging_on_two_nodes_has_the_same_numbers_though_a_worker_is_killed(address, tmp_path):
    killed, over = [], threading.Event()

    def kill():
        while not killed and not over.wait(0.05):
            if len(actors()) == 2 and (tmp_path / 'judge.json').exists():
                killed.append(actors()[0])
                os.kill(killed[0], signal.SIGKILL)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        done = subprocess.run(
            [sys.executable, '-m', 'lingbot_world_ros.cli', 'judge', *SPEC.policies, '--tasks',
             'RoomReach', '--starts', 'nominal', '--ray', address, '--workers', '2', '-o',
             str(tmp_path)], capture_output=True, text=True, timeout=600)
    finally:
        over.set()
        killer.join()
    assert done.returncode == 0, done.stderr
    assert killed
    results = read_judged(tmp_path / 'judge.json')
    expected = judge(SPEC)
    assert results['episodes'] == expected['episodes']
    assert results['agreement'] == json.loads(json.dumps(expected['agreement']))  # tuples


def test_a_cluster_that_is_not_there_is_told_in_words():
    with pytest.raises(SpecError, match='No Ray cluster answers'):
        Workers(1, '127.0.0.1:1').run(str, [1])
