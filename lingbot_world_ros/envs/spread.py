# SPDX-License-Identifier: Apache-2.0
"""
A vector environment whose rows are computed by workers: other processes, or actors of Ray.

Each worker has an engine and some of the rows. What a row plays follows from its seeds and actions
alone, so it plays the same however rows are spread. Those of the episodes under way are kept here:
when a worker is lost, another one plays them again up to where they were, and nobody notices.
"""
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from gymnasium import spaces
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from lingbot_world_ros.crew import Crew, open_crew, TRIES, WorkerLost
from lingbot_world_ros.engines.interface import WorldModel, WorldSpec
from lingbot_world_ros.envs.asked import asked_actions, asked_reset, PlayedRow, Seeds
from lingbot_world_ros.envs.known import Known, Start
from lingbot_world_ros.envs.tasks import Seen
from lingbot_world_ros.errors import EngineLost, SpecError
import numpy as np

Columns = Dict[str, np.ndarray]  # first axis n


class About(NamedTuple):
    """What is so of every row of an environment."""

    observation_space: spaces.Space
    action_space: spaces.Space
    metadata: Dict[str, Any]
    world_spec: WorldSpec
    columns: Tuple[str, ...]
    frames_per_action: int


class SpreadVectorEnv(VectorEnv):
    """Rows of a task, spread over workers; as ``RoomVectorEnv`` in all that it shows."""

    def __init__(self, make: Callable[..., Any], num_envs: int, *, workers: int,
                 ray: Optional[str] = None, **keywords: Any) -> None:
        """
        Start the workers, which load their engines at the same time.

        :param make: ``RoomVectorEnv``
        :param num_envs: n
        :param workers: that share the rows, at most n
        :param ray: address of a Ray cluster, 'local' for one that is started here; None: processes
            of this machine
        :param keywords: of ``make``
        :raises SpecError: too few rows, no such cluster, or what ``make`` raises
        """
        if isinstance(keywords.get('engine'), WorldModel):
            raise SpecError('An engine that runs already cannot be spread over workers; give its '
                            'name.')
        if workers > num_envs:
            raise SpecError(f'workers={workers}: there are {num_envs} rows; take at most as many '
                            'workers.')
        self._crew = open_crew(workers, ray)
        self.num_envs = num_envs
        try:
            self._blocks = [_Block(self._crew, rows, make, keywords)
                            for rows in np.array_split(np.arange(num_envs), workers)]
            about: About = self._all('about')[0]
        except BaseException:
            self._crew.close()
            raise
        self._about = about
        self.render_mode = keywords.get('render_mode')
        self.metadata = about.metadata
        self._mode = AutoresetMode(about.metadata['autoreset_mode'])
        self.single_observation_space = about.observation_space
        self.single_action_space = about.action_space
        self.observation_space = batch_space(about.observation_space, num_envs)
        self.action_space = batch_space(about.action_space, num_envs)
        self._observation: Columns = {}  # the newest

    @property
    def predicted_states(self) -> Tuple[str, ...]:
        """States that the engine predicts; see ``RoomVectorEnv``."""
        return self._about.world_spec.predicted_states

    @property
    def integrated_states(self) -> Tuple[str, ...]:
        """States that it only adds up from the commands."""
        return self._about.world_spec.integrated_states

    @property
    def world_spec(self) -> WorldSpec:
        """What the engine says of its worlds."""
        return self._about.world_spec

    @property
    def frames_per_action(self) -> int:
        """Frames of the engine for which an action holds."""
        return self._about.frames_per_action

    @property
    def known(self) -> Known:
        """
        What no policy is told; see ``RoomVectorEnv``. It asks all workers.

        :raises ResetNeeded: there was no reset
        """
        parts: List[Known] = self._all('known')
        seen = Seen(*(np.concatenate([getattr(part.seen, name) for part in parts])
                      for name in Seen.__annotations__))
        goals = {name: np.concatenate([part.goals[name] for part in parts])
                 for name in parts[0].goals}
        return Known(parts[0].task, tuple(start for part in parts for start in part.starts), seen,
                     goals)

    @property
    def worker_pids(self) -> List[int]:
        """
        Process ids of the workers, on whatever machine each of them is.

        :raises WorkerLost: one of them has ended
        """
        self._require_open()
        return [block.pid for block in self._blocks]

    def reset(self, *, seed: Seeds = None,
              options: Optional[Dict[str, Any]] = None) -> Tuple[Columns, Dict[str, Any]]:
        """
        Begin new episodes.

        :param seed: as ``RoomVectorEnv.reset`` takes it
        :param options: as there
        :return: observations and infos of all rows; infos of those that were reset
        :raises SpecError: one of these cannot be; nothing changed
        :raises EngineLost: workers were lost over and over
        """
        self._require_open()
        asked = asked_reset(seed, options, self.num_envs, self._about.world_spec.scenes,
                            not self._observation)
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
        chosen = np.zeros(self.num_envs, bool)
        chosen[asked.rows] = True
        streams: List[Optional[int]] = [None] * self.num_envs
        for row in asked.rows.tolist():
            streams[row] = asked.streams[row]
            if streams[row] is None and self._played(row) is None:
                streams[row] = int(self.np_random.integers(2 ** 31))
        blocks = [block for block in self._blocks if chosen[block.rows].any()]
        for block in blocks:
            rows = block.rows.tolist()
            block.ask('reset', seed=[streams[row] for row in rows], options={
                'reset_mask': chosen[block.rows], 'scene': [asked.scenes[row] for row in rows],
                'seed': [asked.seeds[row] for row in rows], 'unusual': asked.unusual})

        def note(block: '_Block', part: Any) -> None:
            for i in np.flatnonzero(chosen[block.rows]).tolist():
                block.begin(i, streams[block.rows[i]], part[1], asked.unusual)
        answers = dict(zip(map(id, blocks), _answers(blocks, note)))
        parts = [answers.get(id(block)) for block in self._blocks]
        self._observation = _joined([
            {name: value[block.rows] for name, value in self._observation.items()}
            if part is None else part[0] for block, part in zip(self._blocks, parts)])
        infos = _merged([{} if part is None else part[1] for part in parts], self._sizes())
        return _copied(self._observation), infos

    def step(self, actions: Any) -> Tuple[Columns, np.ndarray, np.ndarray, np.ndarray,
                                          Dict[str, Any]]:
        """
        Act in all rows, at the same time in all workers.

        :param actions: (n, k) float, from -1 to 1
        :return: as ``RoomVectorEnv.step``
        :raises SpecError: another shape, or not finite; nothing changed
        :raises ResetNeeded: there was no reset, or an episode has ended and mode is 'Disabled'
        :raises EngineDiverged: an engine returned what is not finite; only a reset helps
        :raises EngineLost: workers were lost over and over
        """
        self._require_open()
        if not self._observation:
            raise ResetNeeded('Call reset before the first step.')
        ended = np.flatnonzero([played.ended for block in self._blocks for played in block.played])
        if len(ended) and self._mode is AutoresetMode.DISABLED:
            raise ResetNeeded(f'The episodes of rows {ended.tolist()} have ended; reset them '
                              'first.')
        shape: Any = self.action_space.shape
        said = asked_actions(actions, shape, self._about.columns)
        for block in self._blocks:
            block.ask('step', said[block.rows])
        parts = _answers(self._blocks, lambda block, part: block.note(said[block.rows], part,
                                                                      self._mode))
        observations, rewards, terminated, truncated, infos = zip(*parts)
        self._observation = _joined(observations)
        return (_copied(self._observation), np.concatenate(rewards), np.concatenate(terminated),
                np.concatenate(truncated), _merged(infos, self._sizes()))

    def render(self) -> Optional[Tuple[np.ndarray, ...]]:
        """Return the newest picture of every row, (h, w, 3) uint8; None without render_mode."""
        if self.render_mode is None:
            return None
        return tuple(picture for part in self._all('render') for picture in part)

    def close_extras(self, **_: Any) -> None:
        """End the workers."""
        self._crew.close()

    def _all(self, name: str) -> List[Any]:
        self._require_open()
        for block in self._blocks:
            block.ask(name)
        return _answers(self._blocks)

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError('The environment is closed; make another one.')

    def _sizes(self) -> List[int]:
        return [len(block.rows) for block in self._blocks]

    def _played(self, row: int) -> Optional[PlayedRow]:
        block = next(block for block in self._blocks if block.rows[-1] >= row)
        return block.played[row - block.rows[0]] if block.played else None


class _Block:
    """Rows of one worker, and what it takes to have them played again."""

    def __init__(self, crew: Crew, rows: np.ndarray, make: Callable[..., Any],
                 keywords: Dict[str, Any]) -> None:
        self.rows = rows
        self.played: List[PlayedRow] = []  # none before the first reset
        self._crew, self._make, self._keywords = crew, make, keywords
        self._asked: Tuple[str, Tuple[Any, ...], Dict[str, Any]] = '', (), {}
        self._worker = self._hired()

    def _hired(self) -> Any:
        return self._crew.hire(self._make, len(self.rows), **self._keywords)

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return int(self._worker.pid)

    def ask(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Begin a call, in the worker there is."""
        self._asked = name, args, kwargs
        self._worker.ask(name, *args, **kwargs)

    def answer(self) -> Any:
        """Return its answer, from another worker if the first one is lost."""
        is_back = True
        for _ in range(TRIES):
            try:
                if not is_back:
                    self._restart()
                return self._worker.answer()
            except WorkerLost as error:
                lost, is_back = error, False
        raise EngineLost(f'{TRIES} workers were lost one after the other over the same call '
                         f'({lost}).')

    def _restart(self) -> None:
        """Bring another worker to where the lost one was when it was asked."""
        self._worker.kill()
        self._worker = self._hired()
        if self.played:
            self._worker.ask('resume', self.played)
            self._worker.answer()
        name, args, kwargs = self._asked
        self._worker.ask(name, *args, **kwargs)

    def begin(self, i: int, stream: Optional[int], info: Dict[str, Any], unusual: bool) -> None:
        """Note that an episode has begun in a row, with a stream of another seed or the same."""
        start = Start(info['scene'][i], int(info['seed'][i]), unusual)
        if i >= len(self.played):  # the first reset is one of all rows, in their order
            assert stream is not None, 'a first reset gives every row one'
            self.played.append(PlayedRow(start, (stream, 1), []))
            return
        seed, number = self.played[i].stream if stream is None else (stream, 0)
        self.played[i] = PlayedRow(start, (seed, number + 1), [])

    def note(self, said: np.ndarray, part: Any, mode: AutoresetMode) -> None:
        """Note what was done in a step, and which episodes ended and began by it."""
        ended, info = part[2] | part[3], part[4]
        for i, row in enumerate(self.played):
            is_new = ended[i] if mode is AutoresetMode.SAME_STEP else row.ended
            if is_new:
                self.begin(i, None, info, False)
            else:
                row.actions.append(said[i])
                row.ended = bool(ended[i])


def _answers(blocks: Sequence[_Block],
             on_answer: Callable[[_Block, Any], Any] = lambda block, part: None) -> List[Any]:
    """Wait for all; what one of them raises is raised when all have answered."""
    answers: List[Any] = []
    errors: List[Exception] = []
    for block in blocks:
        try:
            answers.append(block.answer())
            on_answer(block, answers[-1])
        except Exception as error:  # raised below
            errors.append(error)
    if errors:
        raise errors[0]
    return answers


def _joined(parts: Iterable[Columns]) -> Columns:
    """Put rows below each other."""
    parts = list(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _merged(parts: Sequence[Dict[str, Any]], sizes: Sequence[int]) -> Dict[str, Any]:
    """Put infos below each other; where a block tells nothing there is what Gymnasium puts."""
    out: Dict[str, Any] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        told = next(part[name] for part in parts if name in part)
        if isinstance(told, dict):
            out[name] = _merged([part.get(name, {}) for part in parts], sizes)
        else:
            nothing = None if told.dtype == object else 0
            out[name] = np.concatenate([
                part[name] if name in part else np.full((size, *told.shape[1:]), nothing,
                                                        told.dtype)
                for part, size in zip(parts, sizes)])
    return out


def _copied(columns: Columns) -> Columns:
    return {name: value.copy() for name, value in columns.items()}
