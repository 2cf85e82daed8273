# SPDX-License-Identifier: Apache-2.0
"""
Planning without training: look for actions whose imagined outcome is best, and begin with them.

All candidates are imagined side by side, states only. Plans are looked for by the cross-entropy
method or by path integrals, from the plan of the step before. NumPy only. Axes: c candidates,
m knots of a plan, k columns of an action.
Source: CEM (Rubinstein 1999), MPPI (Williams et al. 2017), coloured by linear interpolation; no
code taken from there.
"""
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence

from lingbot_world_ros.engines.interface import Observation, State, WorldModel
from lingbot_world_ros.engines.registry import DEFAULT_ENGINE, engine_entry, make_world
from lingbot_world_ros.engines.rows import at_rest
from lingbot_world_ros.envs.known import Known
from lingbot_world_ros.envs.policy_commands import PolicyCommands
from lingbot_world_ros.envs.tasks import Goals, make_task, Seen, SUCCESS_BONUS
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.policies.policy import Columns, Policy
from lingbot_world_ros.robots.robot import Robot
import numpy as np

METHODS = ('cem', 'mppi')
BUDGET = 192  # rollouts per plan
ITERATIONS = 3
FRAMES_PER_ACTION = 3
# Steps that are looked ahead, and how many of them lie between two knots.
HORIZONS = {'RoomNav': (12, 3), 'RoomReach': (6, 2), 'RoomPush': (15, 3)}
ELITES, KEPT = 0.15, 0.2  # share of candidates that shape the next ones; of the old spread
TEMPERATURE = 0.15  # of path integrals, in units of reward
SPREAD, LEAST = 0.7, 0.08  # of actions at first, and at least
CONTACT = 0.2  # reward that a step in contact costs where it leads nowhere
DISTRUST = 0.5  # reward that a metre of standard deviation of the base's place costs


class Plan(NamedTuple):
    """What was planned for a row: ``knots`` (m, k), and what its engine remembers."""

    knots: np.ndarray
    memory: Any


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
        :param method: one of ``METHODS``
        :param budget: rollouts per plan; None: ``BUDGET``
        :param engine: that imagines; the reference world is one, too
        :param engine_options: what its constructor takes besides; None: what makes it fast
        :param frames_per_action: of the environment
        :raises SpecError: one of these cannot be
        """
        if method not in METHODS:
            raise unknown_name('planner', method, METHODS)
        budget = BUDGET if budget is None else budget
        if budget < 4 * ITERATIONS:
            raise SpecError(f'A plan of {budget} rollouts is none; give at least '
                            f'{4 * ITERATIONS}.')
        self._task = make_task(task, robot)
        self._method, self._num = method, budget // ITERATIONS
        self.task, self.name = task, f'plan:{method}:{budget}' + (
            '' if engine == DEFAULT_ENGINE else f' by {engine}')
        self._world: WorldModel = make_world(
            engine, self._num,
            **(dict(engine_entry(engine).quick) if engine_options is None else engine_options))
        self._steps, self._hold = HORIZONS[task]
        self._frames = frames_per_action
        self._commands = PolicyCommands(self._world.spec, self._task.columns, self._num)
        self._num_knots = self._steps // self._hold + 1
        place = np.arange(self._steps) / self._hold
        low = place.astype(int)
        self._blend = np.zeros((self._steps, self._num_knots))  # of knots in each step
        self._blend[np.arange(self._steps), low] = 1.0 - (place - low)
        self._blend[np.arange(self._steps), np.minimum(low + 1, self._num_knots - 1)] += (
            place - low)
        self._plans: Dict[int, Plan] = {}
        self._rngs: Dict[int, np.random.Generator] = {}

    def begin(self, rows: Sequence[int], known: Known) -> None:
        """See ``Policy``."""
        for row in rows:
            start = known.starts[row]
            self._world.reset(start.scene, start.seed, render=False)
            self._plans[row] = Plan(np.zeros((self._num_knots, len(self._task.columns))),
                                    self._world.snapshot([0]))
            self._rngs[row] = np.random.default_rng([start.seed, 2])

    def act(self, observation: Columns, known: Known) -> np.ndarray:
        """See ``Policy``."""
        return np.stack([self._planned(row, known) for row in range(len(known.starts))])

    def close(self) -> None:
        """Give back what the engine holds."""
        self._world.close()

    def _planned(self, row: int, known: Known) -> np.ndarray:
        """Plan for one row; return what to do now, (k,)."""
        plan, rng, seen = self._plans[row], self._rngs[row], known.seen.row(row)
        goals = {name: np.repeat(value[row:row + 1], self._num, 0)
                 for name, value in known.goals.items()}
        self._tell(plan.memory, seen)
        root = self._world.snapshot([0])
        mean = plan.knots
        spread = np.full(mean.shape, SPREAD)
        best, best_value = mean, -np.inf
        for _ in range(ITERATIONS):
            knots = np.clip(mean + spread * rng.standard_normal((self._num, *mean.shape)), -1, 1)
            knots[0], knots[1] = mean, best
            knots[2] = 0.0
            values = self._values(root, knots, goals, seen)
            if values.max() > best_value:
                best, best_value = knots[int(np.argmax(values))], float(values.max())
            mean, spread = self._narrowed(knots, values, spread)
        chosen = best if self._method == 'cem' else mean
        self._follow(root, chosen, row)
        return chosen[0]

    def _narrowed(self, knots: np.ndarray, values: np.ndarray,
                  spread: np.ndarray) -> 'tuple[np.ndarray, np.ndarray]':
        """Return middle and spread of the next candidates."""
        if self._method == 'mppi':
            weight = np.exp((values - values.max()) / TEMPERATURE)
            weight /= weight.sum()
            mean = np.einsum('c,cmk->mk', weight, knots)
            return mean, np.maximum(0.6 * spread, LEAST)
        elite = knots[np.argsort(-values)[:max(3, round(ELITES * len(values)))]]
        return elite.mean(0), np.maximum(KEPT * spread + (1 - KEPT) * elite.std(0), LEAST)

    def _values(self, root: Any, knots: np.ndarray, goals: Goals, seen: Seen) -> np.ndarray:
        """Imagine all candidates; return what each is worth, (c,)."""
        self._world.restore(root * self._num)
        self._commands.clear(np.arange(self._num))
        actions = np.einsum('sm,cmk->sck', self._blend, knots)
        value, over = np.zeros(self._num), np.zeros(self._num, bool)
        bumps = np.zeros(self._num)
        for step, action in enumerate(actions):
            shown = self._advanced(action)
            now = Seen.of(shown)
            done = self._task.is_done(goals, now) & ~over
            # Sooner is better, and what comes after success does not count.
            value = np.where(done, SUCCESS_BONUS * (1.0 - 0.02 * step), value)
            over |= done
            if not self._task.takes_contact:
                bumps += CONTACT * shown.contact.max(1)
            latest = self._task.potential(goals, now) - self._distrust(shown)
        return np.where(over, value + SUCCESS_BONUS, latest) - bumps

    def _advanced(self, action: np.ndarray) -> Observation:
        commanded = self._commands.actions(action, self._frames)
        per_step = self._world.spec.frames_per_step
        for first in range(0, self._frames, per_step):
            shown = self._world.step(commanded[:, first:first + per_step], render=False)
        return shown

    def _distrust(self, shown: Observation) -> np.ndarray:
        """Return the reward that not knowing where it ends up costs, (c,)."""
        if shown.base_pose_cov is None:
            return np.zeros(self._num)
        return DISTRUST * np.sqrt(np.maximum(shown.base_pose_cov[:, -1, 0, 0], 0.0))

    def _tell(self, memory: Any, seen: Seen) -> None:
        """Put all candidates into the state that is; what the engine remembers stays."""
        self._world.restore(memory * self._num)
        told = at_rest(State(*(np.repeat(column, self._num, 0) for column in (
            seen.base_pose, seen.joint_position, seen.object_pose))))
        told.base_twist[:, -1] = seen.base_twist
        told.joint_velocity[:, -1] = seen.joint_velocity
        self._world.observe(told, render=False)

    def _follow(self, root: Any, knots: np.ndarray, row: int) -> None:
        """Remember what the engine makes of the step that is taken, and the rest of the plan."""
        self._world.restore(root * self._num)
        self._commands.clear(np.arange(self._num))
        self._advanced(np.repeat(knots[:1], self._num, 0))
        later = np.minimum(np.arange(self._num_knots) + 1.0 / self._hold, self._num_knots - 1)
        shifted = np.stack([np.interp(later, np.arange(self._num_knots), column)
                            for column in knots.T], -1)
        self._plans[row] = Plan(shifted, self._world.snapshot([0]))
