# SPDX-License-Identifier: Apache-2.0
"""
Judge policies in imagined rooms and in true ones: does imagination rank them as the truth does?

Every policy plays the same episodes in both worlds, by the same success rule. Episodes follow
from their seeds alone, so the numbers are the same however they are spread over processes.
"""
from dataclasses import asdict, dataclass, field
from functools import lru_cache
import hashlib
from pathlib import Path
from typing import (Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence,
                    Tuple)

from lingbot_world_ros.engines.registry import comparable_engines, DEFAULT_ENGINE, TRUTH_ENGINE
from lingbot_world_ros.envs.known import Start
from lingbot_world_ros.envs.rooms import RoomVectorEnv
from lingbot_world_ros.envs.tasks import TASKS
from lingbot_world_ros.errors import shown, SpecError, unknown_name
from lingbot_world_ros.evaluation.agreement import agreement, difference_interval, wilson
from lingbot_world_ros.evaluation.episodes import draw_starts, Episode, play
from lingbot_world_ros.evaluation.weights import weights_sha256
from lingbot_world_ros.evaluation.workers import Workers
from lingbot_world_ros.policies.load import load_policy
from lingbot_world_ros.policies.network import ABOUT, read_about, WEIGHTS
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.worlds.scenes import SCENES
import numpy as np

CHUNK = 48  # episodes of a job; a lost worker loses no more
STARTS = {'nominal': False, 'unusual': True}
OnDone = Callable[[int], Any]
Told = Dict[str, Any]  # an episode as the file has it
Key = Tuple[str, str, str, str]  # policy, task, kind of start, world
Played = Dict[Key, Dict[Start, Episode]]


@dataclass(frozen=True)
class JudgeSpec:
    """
    What is judged: ``policies`` as ``policies.load`` takes them, trained ones for their own task.

    ``episodes`` are per policy, task, kind of start and world.
    """

    policies: Tuple[str, ...]
    tasks: Tuple[str, ...] = tuple(TASKS)
    engine: str = DEFAULT_ENGINE
    starts: Tuple[str, ...] = tuple(STARTS)
    episodes: int = 100
    rows: int = 12
    seed: int = 0
    engine_options: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be judged."""
        for name, known in (('tasks', TASKS), ('starts', STARTS)):
            for given in getattr(self, name):
                if given not in known:
                    raise unknown_name(name[:-1], given, known)
        if self.engine not in comparable_engines():
            raise SpecError(f'engine {shown(self.engine)} does not show the rooms of the truth; '
                            f'take one of {", ".join(comparable_engines())}.')
        if not self.policies:
            raise SpecError('There is no policy to judge.')
        if len(set(self.policies)) < len(self.policies):
            raise SpecError('A policy is named twice.')
        for name in ('episodes', 'rows'):
            if getattr(self, name) < 1:
                raise SpecError(f'{name}={getattr(self, name)} must be at least 1.')


class Job(NamedTuple):
    """Episodes that one worker plays."""

    policy: str
    task: str
    engine: str
    starts: Tuple[Start, ...]
    rows: int
    engine_options: Tuple[Tuple[str, Any], ...] = ()


def judge(spec: JudgeSpec, workers: Optional[Workers] = None,
          on_episodes: OnDone = lambda number: None, *, known: Sequence[Mapping[str, Any]] = (),
          keep: Callable[[Dict[str, Any]], Any] = lambda so_far: None) -> Dict[str, Any]:
    """
    Play all episodes and compare.

    :param spec: what is judged
    :param workers: that play; by default this process
    :param on_episodes: called with how many more are there
    :param known: ``episodes`` of a result of the same spec, whole or not: they are taken as they
        are, and what is missing is played
    :param keep: called with what is known so far, whenever a worker has played more: ``spec``,
        ``truth``, ``episodes`` and what ``about`` tells
    :return: for the JSON: ``scores`` per policy, task and kind of start, ``agreement`` per kind of
        start over all and per task, ``episodes`` with their seeds and results
    :raises SpecError: a policy that cannot be loaded, or ``known`` is damaged; before anything was
        played
    """
    pairs = list(_pairs(spec))
    jobs = [job for pair in pairs for job in _jobs(spec, *pair)]
    head = {'spec': asdict(spec), 'truth': TRUTH_ENGINE, **about(spec)}
    played = _known(known)

    def take(job: Job, episodes: Sequence[Episode]) -> None:
        played.setdefault(_key(job), {}).update({e.start: e for e in episodes})
        on_episodes(len(job.starts))
        keep({**head, 'episodes': _all_told(jobs, played)})
    missing = [job._replace(starts=starts) for job in jobs
               if (starts := tuple(start for start in job.starts
                                   if start not in played.get(_key(job), {})))]
    on_episodes(number_of_episodes(spec) - sum(len(job.starts) for job in missing))
    (workers or Workers()).run(play_job, missing, take)
    return {**head, **_compared(spec, pairs, jobs, played), 'episodes': _all_told(jobs, played)}


def about(spec: JudgeSpec) -> Dict[str, Dict[str, str]]:
    """
    Tell which weights a judging is of.

    :param spec: what is judged
    :return: ``policies_sha256`` by trained policy, ``weights_sha256`` by file of the engine
    """
    folders = {text: Path(text).expanduser() for text in spec.policies}
    return {'policies_sha256': {
                text: hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
                for text, folder in folders.items() if (folder / WEIGHTS).is_file()},
            'weights_sha256': weights_sha256(spec.engine)}


def number_of_episodes(spec: JudgeSpec) -> int:
    """Return how many episodes are played in all."""
    return 2 * spec.episodes * len(list(_pairs(spec))) * len(spec.starts)


def play_job(job: Job) -> List[Episode]:
    """
    Play the episodes of a job, in whatever process this is.

    :param job: what is to be played
    :return: how each went
    """
    policy = load_policy(job.policy, job.task, load_robot())
    rows = min(job.rows, len(job.starts))
    env = _environment(job.task, job.engine, policy.senses, policy.image_size, rows,
                       job.engine_options)
    try:
        return play(env, policy, job.starts)
    finally:
        policy.close()


@lru_cache(maxsize=4)
def _environment(task: str, engine: str, senses: Tuple[str, ...],
                 image_size: Optional[Tuple[int, int]], rows: int,
                 options: Tuple[Tuple[str, Any], ...]) -> RoomVectorEnv:
    """Keep what was loaded for the next job of its kind."""
    return RoomVectorEnv(rows, task=task, engine=engine, image='image' in senses,
                         depth='depth' in senses, scan='scan' in senses,
                         engine_options=dict(options) if engine != TRUTH_ENGINE else None,
                         image_size=image_size if senses else None,
                         autoreset_mode='Disabled')


def _pairs(spec: JudgeSpec) -> Iterator[Tuple[str, str]]:
    """Name the policies that play each task; a trained one plays its own."""
    robot = load_robot()
    for text in spec.policies:
        own = _own_task(text)
        if own is not None and own not in spec.tasks:
            raise SpecError(f'policy {shown(text)} is for {own}, which is not judged; tasks are '
                            f'{", ".join(spec.tasks)}.')
        for task in (own,) if own is not None else spec.tasks:
            load_policy(text, task, robot).close()
            yield text, task


def _own_task(text: str) -> Optional[str]:
    folder = Path(text).expanduser()
    return str(read_about(folder)['task']) if (folder / ABOUT).exists() else None


def _jobs(spec: JudgeSpec, policy: str, task: str) -> Iterator[Job]:
    for kind in spec.starts:
        starts = draw_starts(tuple(SCENES), spec.episodes, spec.seed, STARTS[kind])
        for engine in (spec.engine, TRUTH_ENGINE):
            for first in range(0, len(starts), CHUNK):
                yield Job(policy, task, engine, tuple(starts[first:first + CHUNK]), spec.rows,
                          tuple(sorted(spec.engine_options.items())))


def _key(job: Job) -> Key:
    return (job.policy, job.task, 'unusual' if job.starts[0].unusual else 'nominal',
            'true' if job.engine == TRUTH_ENGINE else 'imagined')


def _known(known: Sequence[Mapping[str, Any]]) -> Played:
    """Take over what was told before."""
    played: Played = {}
    try:
        for told in known:
            fields = dict(told)
            key: Key = (fields.pop('policy'), fields.pop('task'), fields.pop('starts'),
                        fields.pop('world'))
            start = Start(fields.pop('scene'), fields.pop('seed'), STARTS[key[2]])
            played.setdefault(key, {})[start] = Episode(start, **fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SpecError(f'The episodes that were played before are damaged '
                        f'({type(error).__name__}: {error}); begin anew.') from error
    return played


def _compared(spec: JudgeSpec, pairs: Sequence[Tuple[str, str]], jobs: Sequence[Job],
              played: Played) -> Dict[str, Any]:
    won: Dict[Key, np.ndarray] = {
        key: np.array([played[key][start].success for job in jobs if _key(job) == key
                       for start in job.starts]) for key in dict.fromkeys(map(_key, jobs))}
    scores: List[Dict[str, Any]] = []
    for policy, task in pairs:
        for kind in spec.starts:
            imagined, true = (won[policy, task, kind, world] for world in ('imagined', 'true'))
            scores.append({
                'policy': policy, 'task': task, 'starts': kind, 'episodes': len(imagined),
                'imagined': _share(imagined), 'true': _share(true),
                'difference': float(imagined.mean() - true.mean()),
                'difference_interval': difference_interval(imagined, true),
                'same_outcome': float((imagined == true).mean())})
    return {'scores': scores,
            'agreement': {kind: _agreements(spec, pairs, won, kind) for kind in spec.starts}}


def _share(won: np.ndarray) -> Dict[str, Any]:
    return {'success': float(won.mean()), 'interval': wilson(int(won.sum()), len(won))}


def _agreements(spec: JudgeSpec, pairs: Sequence[Tuple[str, str]], won: Dict[Key, np.ndarray],
                kind: str) -> Dict[str, Any]:
    """Compare over all policies and tasks, and over the policies of each task."""
    out: Dict[str, Any] = {}
    for name in ('all', *spec.tasks):
        chosen = [pair for pair in pairs if name in ('all', pair[1])]
        if len(chosen) < 2:
            continue
        imagined, true = (np.array([won[policy, task, kind, world] for policy, task in chosen],
                                   float) for world in ('imagined', 'true'))
        out[name] = {'policies': len(chosen), **agreement(imagined, true, spec.seed)}
    return out


def _all_told(jobs: Sequence[Job], played: Played) -> List[Told]:
    """List what was played, in the order of the jobs."""
    out = []
    for job in jobs:
        policy, task, kind, world = key = _key(job)
        there = played.get(key, {})
        for start in job.starts:
            if start in there:
                fields = {name: value for name, value in vars(there[start]).items()
                          if name != 'start'}
                out.append({'policy': policy, 'task': task, 'starts': kind, 'world': world,
                            'scene': start.scene, 'seed': start.seed, **fields})
    return out
