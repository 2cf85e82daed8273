# SPDX-License-Identifier: Apache-2.0
"""Play episodes with policies, many side by side; what comes out does not depend on how many."""
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from lingbot_world_ros.envs.known import Start
from lingbot_world_ros.envs.rooms import RoomVectorEnv
from lingbot_world_ros.policies.policy import Policy
import numpy as np


@dataclass(frozen=True)
class Episode:
    """How one episode went."""

    start: Start
    success: bool
    reward: float  # sum of all steps
    steps: int
    contacts: int  # steps in which the base touched something more likely than not
    uncertainty: Optional[float] = None  # largest of a step; None: not estimated
    calibrated: Optional[bool] = None  # whether it was all along


def draw_starts(scenes: Sequence[str], number: int, seed: int,
                unusual: bool = False) -> List[Start]:
    """
    Draw episodes to play.

    :param scenes: that they are in, in turn
    :param number: how many
    :param seed: the same one draws the same, and the first ones of a longer list
    :param unusual: whether they begin as in ``envs.unusual``
    :return: the episodes
    """
    rng = np.random.default_rng([seed, 8])
    return [Start(scenes[i % len(scenes)], int(rng.integers(2 ** 31)), unusual)
            for i in range(number)]


def play(env: RoomVectorEnv, policy: Policy, starts: Sequence[Start],
         on_episode: Callable[[int], Any] = lambda number: None) -> List[Episode]:
    """
    Play episodes.

    :param env: of n rows, in autoreset mode 'Disabled'
    :param policy: what acts
    :param starts: episodes, all of them usual or all unusual
    :param on_episode: called with 1 whenever one has ended
    :return: how each of them went, in order
    """
    rows = _Rows(env, starts)
    ended: Dict[int, Episode] = {}
    observation = rows.begin(np.ones(env.num_envs, bool), policy)
    while len(ended) < len(starts):
        observation, reward, terminated, truncated, info = env.step(
            policy.act(observation, env.known))
        rows.count(reward, info)
        over = terminated | truncated
        for row in np.flatnonzero(over).tolist():
            number = rows.playing[row]
            if number is not None:
                ended[number] = rows.episode(row, bool(terminated[row]))
                on_episode(1)
        if over.any() and len(ended) < len(starts):
            observation = rows.begin(over, policy)
    return [ended[number] for number in range(len(starts))]


class _Rows:
    """Which episode every row plays, and what came of it so far."""

    def __init__(self, env: RoomVectorEnv, starts: Sequence[Start]) -> None:
        self._env, self._starts = env, starts
        self._waiting: Iterator[int] = iter(range(len(starts)))
        n = env.num_envs
        self.playing: List[Optional[int]] = [None] * n  # None: a row that only fills up
        self._reward, self._uncertainty = np.zeros(n), np.zeros(n)
        self._steps, self._contacts = np.zeros(n, int), np.zeros(n, int)
        self._calibrated: Optional[np.ndarray] = None

    def begin(self, over: np.ndarray, policy: Policy) -> Dict[str, np.ndarray]:
        """Put the next episodes into rows; where there are no more, the first one again."""
        n = self._env.num_envs
        scenes: List[Optional[str]] = [None] * n
        seeds: List[Optional[int]] = [None] * n
        for row in np.flatnonzero(over).tolist():
            self.playing[row] = next(self._waiting, None)
            start = self._starts[self.playing[row] or 0]
            scenes[row], seeds[row] = start.scene, start.seed
        observation, info = self._env.reset(options={
            'reset_mask': over, 'scene': scenes, 'seed': seeds,
            'unusual': self._starts[0].unusual})
        for column in (self._reward, self._steps, self._contacts, self._uncertainty):
            column[over] = 0
        if 'calibrated' in info:
            if self._calibrated is None:
                self._calibrated = np.ones(n, bool)
            self._calibrated[over] = True
        policy.begin(np.flatnonzero(over).tolist(), self._env.known)
        return observation

    def count(self, reward: np.ndarray, info: Dict[str, Any]) -> None:
        """Add a step of all rows."""
        self._reward += reward
        self._steps += 1
        self._contacts += info['contact'] > 0.5
        if self._calibrated is not None:
            self._calibrated &= info['calibrated']
            self._uncertainty = np.maximum(self._uncertainty, info['uncertainty'])

    def episode(self, row: int, success: bool) -> Episode:
        """Say how a row's episode went."""
        number = self.playing[row]
        assert number is not None, 'asked of rows that play one'
        is_estimated = self._calibrated is not None
        return Episode(self._starts[number], success, float(self._reward[row]),
                       int(self._steps[row]), int(self._contacts[row]),
                       float(self._uncertainty[row]) if is_estimated else None,
                       bool(self._calibrated[row]) if self._calibrated is not None else None)
