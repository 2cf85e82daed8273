# SPDX-License-Identifier: Apache-2.0
"""Judging policies: statistics against known values, pairs, workers, the command."""
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from needs import need_engine
import pytest

pytest.importorskip('gymnasium', minversion='1.4')
need_engine('room')
need_engine('reference')
from lingbot_world_ros.errors import SpecError  # noqa: E402, I100
from lingbot_world_ros.evaluation.agreement import (agreement, mmrv, pearson,  # noqa: E402
                                                    spearman, wilson)
from lingbot_world_ros.evaluation.judge import judge, JudgeSpec, number_of_episodes  # noqa: E402
from lingbot_world_ros.evaluation.judge_file import played_before, write_judged  # noqa: E402
from lingbot_world_ros.evaluation.judge_tables import markdown  # noqa: E402
from lingbot_world_ros.evaluation.workers import Workers  # noqa: E402
import numpy as np  # noqa: E402

SMALL = JudgeSpec(('random', 'scripted'), ('RoomReach',), episodes=6, rows=3)


def test_intervals_of_shares_are_wilsons():
    # Known values: 95 % intervals of 8 of 10, and of none of 20.
    np.testing.assert_allclose(wilson(8, 10), (0.4901625, 0.9433178), atol=1e-6)
    np.testing.assert_allclose(wilson(0, 20), (0.0, 0.1611252), atol=1e-6)
    assert wilson(20, 20)[1] == 1.0


def test_correlations_against_known_values():
    imagined, true = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.5, 0.2, 0.9])
    assert pearson(imagined, true) == pytest.approx(np.corrcoef(imagined, true)[0, 1])
    assert spearman(imagined, true) == pytest.approx(1.0)
    # Ties share their mean rank: ranks 1.5 1.5 3 4 against 1 2 3 4.
    assert spearman(np.array([0.2, 0.2, 0.5, 0.9]), true[[0, 2, 1, 3]]) == pytest.approx(
        np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3, 4])[0, 1])
    assert np.isnan(pearson(np.full(4, 0.5), true))


def test_rank_violation_is_of_the_true_scores_and_not_symmetric():
    imagined, true = np.array([0.9, 0.8, 0.1]), np.array([0.2, 0.6, 0.1])
    # The first two are swapped: each violates by the true 0.4, the third by nothing.
    assert mmrv(imagined=imagined, true=true) == pytest.approx(0.8 / 3)
    assert mmrv(imagined=true, true=imagined) == pytest.approx(0.2 / 3)
    assert mmrv(imagined=true, true=true) == 0.0
    # Told apart in truth and not in imagination counts once, for who is better.
    assert mmrv(imagined=np.array([0.5, 0.5]), true=np.array([0.9, 0.4])) == pytest.approx(0.25)


def test_intervals_of_agreement_hold_the_value_and_shrink_with_more_episodes():
    rng = np.random.default_rng(0)
    widths = []
    for number in (20, 400):
        chance = rng.random((6, number))
        true = (chance < np.linspace(0.05, 0.95, 6)[:, None]).astype(float)
        imagined = np.where(rng.random(true.shape) < 0.1, 1.0 - true, true)
        for name, told in agreement(imagined, true).items():
            low, high = told['interval']
            assert low <= told['value'] + 1e-9 and (name == 'mmrv' or told['value'] <= high + 1e-9)
        widths.append(np.diff(agreement(imagined, true)['pearson']['interval'])[0])
    assert widths[1] < 0.5 * widths[0]
    same = agreement(np.ones((2, 5)), np.ones((2, 5)))
    assert same['pearson'] == {'value': None, 'interval': None}


def test_policies_are_paired_and_every_episode_can_be_looked_up():
    results = judge(SMALL)
    assert len(results['episodes']) == number_of_episodes(SMALL) == 48
    for starts in ('nominal', 'unusual'):
        played = {world: [(e['scene'], e['seed']) for e in results['episodes']
                          if (e['starts'], e['world'], e['policy']) == (starts, world, 'random')]
                  for world in ('imagined', 'true')}
        assert played['imagined'] == played['true'] and len(set(played['true'])) == 6
    for score in results['scores']:
        won = [e['success'] for e in results['episodes'] if e['world'] == 'true' and (
            e['policy'], e['starts']) == (score['policy'], score['starts'])]
        assert score['true']['success'] == np.mean(won)
    assert results['agreement']['nominal']['all']['policies'] == 2
    best = [s for s in results['scores'] if s['policy'] == 'scripted']
    assert all(s['true']['success'] > 0.5 and s['imagined']['success'] > 0.5 for s in best)
    table = markdown(results)
    assert '| RoomReach | scripted |' in table and 'Unusual starts' in table
    json.dumps(results)


def test_numbers_are_the_same_with_any_number_of_workers_and_rows():
    from dataclasses import replace
    spec = replace(SMALL, episodes=14, starts=('nominal',))
    one = judge(spec)
    many = judge(replace(spec, rows=5), Workers(2))
    assert one['episodes'] == many['episodes'] and one['agreement'] == many['agreement']


@pytest.mark.parametrize('changes, said', [
    ({'tasks': ('RoomFly',)}, "unknown task 'RoomFly'"),
    ({'engine': 'lingbot_world'}, 'does not show the rooms'),
    ({'policies': ()}, 'no policy'), ({'policies': ('random', 'random')}, 'named twice'),
    ({'episodes': 0}, 'at least 1'), ({'policies': ('nowhere',)}, 'no such folder')])
def test_what_cannot_be_judged_is_refused_in_words(changes, said):
    with pytest.raises(SpecError, match=f'(?i){said}'):
        judge(JudgeSpec(**{'policies': ('random',), **changes}))


def test_the_command_writes_what_it_prints(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'lingbot_world_ros.cli', 'judge', 'random', 'expert', '--tasks',
         'RoomReach', '--starts', 'nominal', '--episodes', '3', '--json', '-o', str(tmp_path)],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results == json.loads((tmp_path / 'judge.json').read_text())
    assert results['made_by'] and len(results['episodes']) == 12
    assert (tmp_path / 'judge.md').read_text() == markdown(results)


class Enough(Exception):
    """The judging was ended."""


def test_a_judging_that_ends_early_goes_on_with_what_is_missing(tmp_path, monkeypatch):
    from lingbot_world_ros.evaluation import judge as module
    path, spec = tmp_path / 'deep' / 'judge.json', SMALL
    whole = judge(spec)

    def keep_two(so_far):
        write_judged(path, so_far)
        if len(so_far['episodes']) == 12:
            raise Enough
    with pytest.raises(Enough):
        judge(spec, keep=keep_two)
    known = played_before(path, spec)
    assert len(known) == 12 and 'scores' not in json.loads(path.read_text())
    played, counted = [], []
    play_job = module.play_job
    monkeypatch.setattr(module, 'play_job', lambda job: played.append(job) or play_job(job))
    assert judge(spec, None, counted.append, known=known) == whole
    assert sum(len(job.starts) for job in played) == 36 and sum(counted) == 48
    write_judged(path, whole)
    played.clear()
    assert judge(spec, known=played_before(path, spec)) == whole and not played
    with pytest.raises(SpecError, match='damaged'):
        judge(spec, known=[{'policy': 'random'}])


def test_a_file_of_another_judging_is_refused_and_stays(tmp_path):
    from dataclasses import replace
    path = tmp_path / 'judge.json'
    assert played_before(path, SMALL) == []
    write_judged(path, judge(replace(SMALL, episodes=1)))
    before = path.read_bytes()
    for other, said in ((SMALL, 'episodes 1, now 6'),
                        (replace(SMALL, episodes=1, seed=3), 'seed 0, now 3'),
                        (replace(SMALL, episodes=1, engine_options={'exact': False}),
                         'engine_options none')):
        with pytest.raises(SpecError, match=f'another judging: {said}.*--overwrite'):
            played_before(path, other)
    assert played_before(path, replace(SMALL, episodes=1, rows=9))  # rows change no number
    assert path.read_bytes() == before
    for text in ('{', '[]', '{"spec": {}}'):
        path.write_text(text)
        with pytest.raises(SpecError, match='--overwrite'):
            played_before(path, SMALL)
        assert path.read_text() == text


def judge_process(*arguments, **options):
    """Start the command."""
    return subprocess.Popen([sys.executable, '-m', 'lingbot_world_ros.cli', 'judge', *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize('workers', [pytest.param('1', marks=pytest.mark.slow), '2'])
@pytest.mark.usefixtures('hears_ctrl_c')
def test_ctrl_c_leaves_a_file_to_go_on_with_and_says_so(tmp_path, workers):
    path = tmp_path / 'judge.json'
    arguments = ('random', 'scripted', '--tasks', 'RoomReach', '--starts', 'nominal',
                 '--episodes', '480', '--workers', workers, '-o', str(tmp_path))
    judging = judge_process(*arguments)
    deadline_s = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    judging.send_signal(signal.SIGINT)
    began_s = time.monotonic()
    _, told = judging.communicate(timeout=60)
    assert judging.returncode == 130 and time.monotonic() - began_s < 20
    kept = len(json.loads(path.read_text())['episodes'])
    assert f'{kept} of 1920 episodes are in {path}; the same command goes on' in told
    assert 0 < kept < 1920 and 'Traceback' not in told


def test_the_imagined_side_can_be_drawn_faster(tmp_path):
    judging = judge_process('random', '--tasks', 'RoomReach', '--starts', 'nominal', '--episodes',
                            '2', '--inexact', '--json', '-o', str(tmp_path))
    told, error = judging.communicate(timeout=300)
    assert json.loads(told)['spec']['engine_options'] == {'exact': False}, error
    judging = judge_process('random', '--inexact', '--engine', 'reference', '-o', str(tmp_path))
    assert 'has no faster way to draw' in judging.communicate(timeout=60)[1]


def kill_a_worker(marker):
    """Wait until a worker works, then kill it."""
    deadline_s = time.monotonic() + 120
    while not marker.exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    if marker.exists():
        os.kill(int(marker.read_text()), signal.SIGKILL)


def test_an_episode_of_a_lost_ray_worker_is_played_again(tmp_path, monkeypatch):
    ray = pytest.importorskip('ray')
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    import threading
    from ray_jobs import square_slowly
    marker = tmp_path / 'pid'
    killer = threading.Thread(target=kill_a_worker, args=(marker,))
    killer.start()
    done = []
    jobs = [(number, str(marker)) for number in range(12)]
    try:
        results = Workers(2, 'local').run(square_slowly, jobs, lambda job, _: done.append(job))
    finally:
        killer.join()
    assert results == [number * number for number in range(12)]
    assert sorted(done) == jobs and (tmp_path / 'pid.killed').exists()
    assert not ray.is_initialized()


def test_ray_is_asked_for_where_it_is_missing():
    from importlib.util import find_spec
    if find_spec('ray') is not None:
        pytest.skip('ray is here')
    with pytest.raises(SpecError, match='needs the Python package ray'):
        Workers(1, 'local').run(str, [1])


def test_workers_end_with_a_judge_that_is_killed(tmp_path):
    judging = subprocess.Popen(
        [sys.executable, '-m', 'lingbot_world_ros.cli', 'judge', 'random', '--tasks', 'RoomNav',
         '--starts', 'nominal', '--episodes', '500', '--workers', '2', '-o', str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 60
    while len(children_of(judging.pid)) < 2 and time.monotonic() < deadline_s:
        time.sleep(0.1)
    started = children_of(judging.pid)
    judging.kill()
    judging.wait()
    while started and time.monotonic() < deadline_s:
        time.sleep(0.1)
        started = [pid for pid in started if is_running(pid)]
    assert not started


def children_of(parent):
    """Return the ids of a process's children that run."""
    found = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            name_and_rest = path.read_text().rpartition(')')[2].split()
        except OSError:  # it has ended
            continue
        if int(name_and_rest[1]) == parent and name_and_rest[0] != 'Z':
            found.append(int(path.parent.name))
    return found


def is_running(pid):
    """Tell whether a process is there and no zombie."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False
