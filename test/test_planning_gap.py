# SPDX-License-Identifier: Apache-2.0
"""The planning gap: pairs, intervals against known values, what is kept, the command."""
from dataclasses import replace
import json
import subprocess
import sys

from needs import need_engine
import pytest

pytest.importorskip('gymnasium', minversion='1.4')
need_engine('room')
need_engine('reference')
from lingbot_world_ros.envs.rooms import RoomVectorEnv  # noqa: E402, I100
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.evaluation.agreement import wilson  # noqa: E402
from lingbot_world_ros.evaluation.planning_gap import (GapSpec, markdown,  # noqa: E402
                                                       paired_interval, planning_gap)
from lingbot_world_ros.policies.load import load_policy  # noqa: E402
from lingbot_world_ros.policies.picture_planner import standing_pose  # noqa: E402
import numpy as np  # noqa: E402

SMALL = GapSpec('RoomReach', budget=12, episodes=2)


def test_intervals_of_pairs_are_newcombes():
    # All pairs alike: what is left is the interval of one share.
    won = np.ones(50, bool)
    low = wilson(50, 50)[0]
    np.testing.assert_allclose(paired_interval(won, won), (low - 1.0, 1.0 - low))
    # Independent halves: no correlation, so squares add up.
    first, second = np.tile([True, False], 20), np.repeat([True, False], 20)
    ends = 0.5 - wilson(20, 40)[0]
    np.testing.assert_allclose(paired_interval(first, second), (-np.hypot(ends, ends),
                                                                np.hypot(ends, ends)))
    # The more often pairs agree the less is in doubt.
    other = first.copy()
    other[0] = False
    low, high = paired_interval(first, other)
    assert low < 1 / 40 < high and high - low < 0.25
    np.testing.assert_allclose(paired_interval(other, first), (-high, -low))


def test_pairs_begin_alike_and_episodes_that_are_there_are_not_played_again(tmp_path):
    results = planning_gap(SMALL, tmp_path)
    learned, true = results['episodes'][::2], results['episodes'][1::2]
    assert [(e['scene'], e['seed']) for e in learned] == [(e['scene'], e['seed']) for e in true]
    assert {e['engine'] for e in learned} == {'room'} and {e['engine'] for e in true} == {
        'reference'}
    assert results['gap'] == results['true']['success'] - results['imagined']['success']
    assert results['gap_interval'][0] <= results['gap'] <= results['gap_interval'][1]
    assert results['imagined']['seconds']['p95'] >= results['imagined']['seconds']['p50'] > 0.0
    assert '| reference |' in markdown(results) and 'Gap (true minus learned)' in markdown(results)
    kept = sorted(tmp_path.glob('*.json'))
    assert len(kept) == 4
    changed = json.loads(kept[0].read_text())
    kept[0].write_text(json.dumps({**changed, 'steps': 1234}))
    again = planning_gap(SMALL, tmp_path)
    assert 1234 in [episode['steps'] for episode in again['episodes']]


def test_pictures_are_taken_where_the_task_is_done_and_are_all_that_is_told():
    env = RoomVectorEnv(3, task='RoomNav', engine='reference', image=False,
                        autoreset_mode='Disabled')
    seen, _ = env.reset(seed=0)
    known = env.known
    poses = np.stack([standing_pose(row, known) for row in range(3)])
    there = replace(known.seen, base_pose=poses, base_twist=np.zeros((3, 3)))
    assert known.task.is_done(known.goals, there).all()
    policy = load_policy('picture:cem:12', 'RoomNav', env.world_spec.robot)
    policy.begin(range(3), known)
    actions = policy.act(seen, known._replace(goals={}))
    assert actions.shape == env.action_space.shape and np.abs(actions).max() <= 1.0
    policy.close()
    env.close()


@pytest.mark.parametrize('changes, said', [
    ({'task': 'RoomFly'}, "unknown task 'RoomFly'"), ({'engine': 'reference'}, 'take one of room'),
    ({'engine': 'lingbot_world'}, 'cannot be compared'), ({'episodes': 0}, 'at least 1'),
    ({'budget': 3}, 'at least 12'), ({'method': 'best'}, "unknown planner 'best'")])
def test_what_cannot_be_measured_is_refused_in_words(changes, said):
    with pytest.raises(SpecError, match=f'(?i){said}'):
        planning_gap(GapSpec(**changes))


def test_the_command_writes_what_it_prints(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'lingbot_world_ros.cli', 'planning-gap', '--task', 'RoomReach',
         '--budget', '12', '--episodes', '1', '--json', '-o', str(tmp_path)],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results == json.loads((tmp_path / 'planning_gap.json').read_text())
    assert results['made_by'] and len(results['episodes']) == 2
    assert (tmp_path / 'planning_gap.md').read_text() == markdown(results)
