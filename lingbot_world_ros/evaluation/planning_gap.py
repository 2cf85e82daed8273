# SPDX-License-Identifier: Apache-2.0
"""
The counterfactual planning gap: what it costs a planner that it imagines with a learned world.

The same planner plays the same episodes in the true rooms twice, once planning with the learned
dynamics and once with the true ones, from an exact copy of the state. What differs is what the
learned dynamics are worth for planning.
"""
from dataclasses import asdict, dataclass
from functools import lru_cache
import json
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from lingbot_world_ros.engines.registry import comparable_engines, DEFAULT_ENGINE, TRUTH_ENGINE
from lingbot_world_ros.envs.known import Start
from lingbot_world_ros.envs.rooms import RoomVectorEnv
from lingbot_world_ros.envs.tasks import TASKS
from lingbot_world_ros.errors import shown, SpecError, unknown_name
from lingbot_world_ros.evaluation.agreement import wilson
from lingbot_world_ros.evaluation.episodes import draw_starts, play
from lingbot_world_ros.evaluation.workers import Workers
from lingbot_world_ros.paths import write_whole
from lingbot_world_ros.policies.planner import Planner
from lingbot_world_ros.policies.policy import TimedPolicy
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.worlds.scenes import SCENES
import numpy as np


@dataclass(frozen=True)
class GapSpec:
    """What is measured: a planner with ``budget`` rollouts per plan, in ``episodes`` pairs."""

    task: str = 'RoomNav'
    method: str = 'cem'
    budget: int = 96
    engine: str = DEFAULT_ENGINE
    episodes: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if self.task not in TASKS:
            raise unknown_name('task', self.task, TASKS)
        if self.engine == TRUTH_ENGINE or self.engine not in comparable_engines():
            known = ', '.join(name for name in comparable_engines() if name != TRUTH_ENGINE)
            raise SpecError(f'engine {shown(self.engine)} cannot be compared with '
                            f'{TRUTH_ENGINE!r}; take one of {known}.')
        if self.episodes < 1:
            raise SpecError(f'episodes={self.episodes} must be at least 1.')


class Job(NamedTuple):
    """One episode, and which engine imagines."""

    spec: GapSpec
    engine: str
    start: Start
    folder: str  # where its result is kept; '': nowhere


def planning_gap(spec: GapSpec, folder: Optional[Path] = None, workers: Optional[Workers] = None,
                 on_episode: Callable[[int], Any] = lambda number: None) -> Dict[str, Any]:
    """
    Play all pairs and compare.

    :param spec: what is measured
    :param folder: where each episode's result is kept; those that are there are not played again.
        None: nothing is kept
    :param workers: that play; by default this process
    :param on_episode: called with 1 whenever an episode has ended
    :return: for the JSON: ``learned`` and ``true`` (``success``, ``interval``: 95 %, Wilson, and
        ``seconds`` and ``cpu_seconds`` a plan), ``gap`` (true minus learned success) with
        ``gap_interval`` (95 %, Newcombe's for pairs), and ``episodes``
    :raises SpecError: a planner that cannot be
    """
    starts = draw_starts(tuple(SCENES), spec.episodes, spec.seed)
    jobs = [Job(spec, engine, start, '' if folder is None else str(folder))
            for start in starts for engine in (spec.engine, TRUTH_ENGINE)]
    told = (workers or Workers()).run(play_job, jobs, lambda job, row: on_episode(1))
    learned, true = told[::2], told[1::2]
    won_learned, won_true = (np.array([row['success'] for row in rows])
                             for rows in (learned, true))
    return {'spec': asdict(spec), 'truth': TRUTH_ENGINE, 'imagined': _summary(learned),
            'true': _summary(true), 'gap': float(won_true.mean() - won_learned.mean()),
            'gap_interval': paired_interval(won_true, won_learned),
            'episodes': [{name: value for name, value in row.items()
                          if name not in ('seconds', 'cpu_seconds')} for row in told]}


def play_job(job: Job) -> Dict[str, Any]:
    """
    Play one episode in the true rooms, in whatever process this is, unless its result is there.

    :param job: what is to be played
    :return: scene, seed, engine, success, steps, contacts, and the seconds of each plan
    """
    spec, start = job.spec, job.start
    kept = Path(job.folder, f'{spec.task}-{spec.method}-{spec.budget}-{job.engine}-{start.scene}-'
                f'{start.seed}.json')
    if job.folder and kept.exists():
        return dict(json.loads(kept.read_text()))
    policy = TimedPolicy(_planner(spec.task, spec.method, spec.budget, job.engine))
    episode = play(_environment(spec.task), policy, [start])[0]
    told = {'scene': start.scene, 'seed': start.seed, 'engine': job.engine,
            'success': episode.success, 'steps': episode.steps, 'contacts': episode.contacts,
            'seconds': policy.seconds, 'cpu_seconds': policy.cpu_seconds}
    if job.folder:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, json.dumps(told))
    return told


def paired_interval(first: np.ndarray, second: np.ndarray) -> Tuple[float, float]:
    """
    Return the 95 % interval of a difference of shares in pairs (Newcombe 1998, method 10).

    :param first: (e,) bool
    :param second: (e,) bool, paired
    :return: low and high end of the share of ``first`` minus that of ``second``
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    n = len(first)
    (p1, l1, u1), (p2, l2, u2) = ((won.mean(), *wilson(int(won.sum()), n))
                                  for won in (first, second))
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only1, only2 = int((first & ~second).sum()), int((~first & second).sum())
    margins = (both + only1) * (only2 + neither) * (both + only2) * (only1 + neither)
    cross = float(both * neither - only1 * only2)
    if cross > 0.0:
        cross = max(cross - n / 2, 0.0)
    phi = cross / np.sqrt(margins) if margins else 0.0

    def half(one: float, other: float) -> float:
        return float(np.sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0)))
    gap = p1 - p2
    return (float(gap - half(p1 - l1, u2 - p2)), float(gap + half(u1 - p1, p2 - l2)))


def markdown(results: Dict[str, Any]) -> str:
    """
    Write the results as a table.

    :param results: of ``planning_gap``
    :return: text
    """
    spec = results['spec']
    lines = [f'# Planning gap: {spec["method"]} with {spec["budget"]} rollouts at {spec["task"]}',
             '', f'{spec["episodes"]} pairs of episodes in the true rooms, seed {spec["seed"]}; '
             'intervals are 95 %.', '',
             '| imagines with | success [%] | plan p50 / p95 [s] | of that CPU p50 / p95 [s] |',
             '|---|---|---|---|']
    for name, engine in (('imagined', spec['engine']), ('true', results['truth'])):
        row = results[name]
        low, high = row['interval']
        lines.append(f'| {engine} | {100 * row["success"]:.0f} ({100 * low:.0f} to '
                     f'{100 * high:.0f}) | {_seconds(row["seconds"])} | '
                     f'{_seconds(row["cpu_seconds"])} |')
    low, high = results['gap_interval']
    lines += ['', f'Gap (true minus learned): {100 * results["gap"]:+.0f} points '
              f'({100 * low:+.0f} to {100 * high:+.0f}).']
    return '\n'.join([*lines, ''])


@lru_cache(maxsize=4)
def _planner(task: str, method: str, budget: int, engine: str) -> Planner:
    """Keep what was loaded for the next episode."""
    return Planner(task, load_robot(), method, budget, engine)


@lru_cache(maxsize=1)
def _environment(task: str) -> RoomVectorEnv:
    return RoomVectorEnv(1, task=task, engine=TRUTH_ENGINE, image=False,
                         autoreset_mode='Disabled')


def _summary(rows: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    won = [row['success'] for row in rows]
    return {'success': float(np.mean(won)), 'interval': wilson(sum(won), len(won)),
            'steps': float(np.mean([row['steps'] for row in rows])),
            **{name: _quantiles([value for row in rows for value in row[name]])
               for name in ('seconds', 'cpu_seconds')}}


def _quantiles(values: List[float]) -> Dict[str, float]:
    p50, p95 = np.quantile(values, (0.5, 0.95))
    return {'p50': float(p50), 'p95': float(p95)}


def _seconds(row: Dict[str, float]) -> str:
    return f'{row["p50"]:.2f} / {row["p95"]:.2f}'
