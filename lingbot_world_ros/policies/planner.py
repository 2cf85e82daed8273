# SPDX-License-Identifier: Apache-2.0
"""Planning without training: look for actions whose imagined outcome is best, begin with them."""
from typing import Any, Dict, Mapping, Optional, Sequence

from lingbot_world_ros.engines.registry import DEFAULT_ENGINE
from lingbot_world_ros.envs.known import Known
from lingbot_world_ros.envs.tasks import make_task
from lingbot_world_ros.policies.aims import TaskAim
from lingbot_world_ros.policies.policy import Columns, Policy
from lingbot_world_ros.policies.search import FRAMES_PER_ACTION, Horizon, Plan, Search
from lingbot_world_ros.robots.robot import Robot
import numpy as np

HORIZONS = {'RoomNav': Horizon(12, 3), 'RoomReach': Horizon(6, 2), 'RoomPush': Horizon(15, 3)}


class Planner(Policy):
    """Plans anew in every step, by an engine of its own that is told the state before."""

    knows_state = True

    def __init__(self, task: str, robot: Robot, method: str = 'cem',
                 budget: Optional[int] = None, engine: str = DEFAULT_ENGINE,
                 engine_options: Optional[Mapping[str, Any]] = None,
                 frames_per_action: int = FRAMES_PER_ACTION) -> None:
        """
        Load the engine.

        :param task: one of ``envs.tasks.TASKS``
        :param robot: that is driven
        :param method: one of ``search.METHODS``
        :param budget: rollouts per plan; None: ``search.BUDGET``
        :param engine: that imagines; the reference world is one, too
        :param engine_options: what its constructor takes besides; None: what makes it fast
        :param frames_per_action: of the environment
        :raises SpecError: one of these cannot be
        """
        self._task, self.task = make_task(task, robot), task
        self._search = Search(self._task.columns, HORIZONS[task], method, budget, engine,
                              engine_options, frames_per_action)
        self.name = f'plan:{self._search.name}'
        self._plans: Dict[int, Plan] = {}
        self._rngs: Dict[int, np.random.Generator] = {}

    def begin(self, rows: Sequence[int], known: Known) -> None:
        """See ``Policy``."""
        for row in rows:
            start = known.starts[row]
            self._plans[row] = self._search.begin(start.scene, start.seed)
            self._rngs[row] = np.random.default_rng([start.seed, 2])

    def act(self, observation: Columns, known: Known) -> np.ndarray:
        """See ``Policy``."""
        return np.stack([self._planned(row, known) for row in range(len(known.starts))])

    def close(self) -> None:
        """Give back what the engine holds."""
        self._search.close()

    def _planned(self, row: int, known: Known) -> np.ndarray:
        """Plan for one row; return what to do now, (k,)."""
        aim = TaskAim(self._task, known.goals, row, self._search.num_candidates)
        found = self._search.find(self._plans[row], known.seen.row(row), aim, self._rngs[row])
        self._plans[row] = found.plan
        return found.action
