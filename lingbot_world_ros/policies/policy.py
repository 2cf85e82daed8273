# SPDX-License-Identifier: Apache-2.0
"""
What acts in the environments: looks at observations of n rows and says what to do in each.

Everything that plays episodes (``evaluation.judge``, ``training.train_policy``, the verb
``drive``) takes a ``Policy``; ``policies.load`` makes one from a text. NumPy only.
"""
from abc import ABC, abstractmethod
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from lingbot_world_ros.envs.known import Known
import numpy as np

Columns = Dict[str, np.ndarray]  # first axis n


class Policy(ABC):
    """
    One policy for n rows that are played side by side.

    What it does in a row follows from what it saw in that row's episode and from the episode's
    seed, never from the other rows: results do not depend on how episodes are spread over rows.
    """

    name: str = ''  # that tells it apart from others
    task: str = ''  # that it is for; '': it fits all of them
    senses: Tuple[str, ...] = ()  # of 'image', 'depth', 'scan': what it looks at besides numbers
    image_size: Optional[Tuple[int, int]] = None  # of pictures it was trained on; None: any
    knows_state: bool = False  # it reads ``known``: an expert or a planner, in a simulator only

    def begin(self, rows: Sequence[int], known: Known) -> None:
        """
        Forget what was in rows: new episodes begin there.

        :param rows: which
        :param known: of all rows; who does not know the state reads scenes and seeds only
        """

    @abstractmethod
    def act(self, observation: Columns, known: Known) -> np.ndarray:
        """
        Say what to do.

        :param observation: of all rows, as the environment gives it
        :param known: of all rows; not looked at unless ``knows_state``
        :return: (n, k) float64 from -1 to 1
        """

    def close(self) -> None:
        """Give back what it holds."""


class TimedPolicy(Policy):
    """A policy, and how long it thinks."""

    def __init__(self, policy: Policy,
                 on_thought: Callable[[float], Any] = lambda seconds: None) -> None:
        """
        Stand before a policy; nothing was measured yet.

        :param policy: that thinks
        :param on_thought: called after each time, with its wall time in seconds
        """
        self._policy, self._on_thought = policy, on_thought
        self.seconds: List[float] = []  # wall time of each act
        self.cpu_seconds: List[float] = []  # that this process worked in it
        self.name, self.task, self.senses = policy.name, policy.task, policy.senses
        self.image_size, self.knows_state = policy.image_size, policy.knows_state

    def begin(self, rows: Sequence[int], known: Known) -> None:
        """See ``Policy``."""
        self._policy.begin(rows, known)

    def act(self, observation: Columns, known: Known) -> np.ndarray:
        """See ``Policy``."""
        began_s, worked_s = time.perf_counter(), time.process_time()
        action = self._policy.act(observation, known)
        self.seconds.append(time.perf_counter() - began_s)
        self.cpu_seconds.append(time.process_time() - worked_s)
        self._on_thought(self.seconds[-1])
        return action

    def latency_ms(self) -> Dict[str, float]:
        """Return median and 95th percentile of its thinking so far, wall time."""
        p50, p95 = np.quantile(self.seconds or [np.nan], (0.5, 0.95)) * 1e3
        return {'p50': float(p50), 'p95': float(p95)}

    def close(self) -> None:
        """See ``Policy``."""
        self._policy.close()
