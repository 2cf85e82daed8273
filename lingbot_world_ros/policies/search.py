# SPDX-License-Identifier: Apache-2.0
"""
Look for the actions whose imagined outcome is best: one plan for one robot.

All candidates are imagined side by side in one engine, states only unless the aim reads pictures.
Plans are looked for by the cross-entropy method or by path integrals, from the plan of the step
before. NumPy only. Axes: c candidates, s steps, m knots of a plan, k columns of an action.
Source: CEM (Rubinstein 1999), MPPI (Williams et al. 2017), coloured by linear interpolation; no
code taken from there.
"""
import time
from typing import Any, Mapping, NamedTuple, Optional, Sequence, Tuple

from lingbot_world_ros.engines.interface import Observation, State, WorldModel, WorldSpec
from lingbot_world_ros.engines.registry import DEFAULT_ENGINE, engine_entry, make_world
from lingbot_world_ros.engines.rows import at_rest, of_rows
from lingbot_world_ros.envs.policy_commands import PolicyCommands
from lingbot_world_ros.envs.tasks import Seen, SUCCESS_BONUS
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.policies.aims import Aim
from lingbot_world_ros.robots.load import load_robot
import numpy as np

METHODS = ('cem', 'mppi')
BUDGET = 192  # rollouts per plan
ITERATIONS = 3
FRAMES_PER_ACTION = 3
ELITES, KEPT = 0.15, 0.2  # share of candidates that shape the next ones; of the old spread
TEMPERATURE = 0.15  # of path integrals, in units of reward
SPREAD, LEAST = 0.7, 0.08  # of actions at first, and at least
CONTACT = 0.2  # reward that a step in contact costs where it leads nowhere
DISTRUST = 0.5  # reward that a metre of standard deviation of the base's place costs


class Horizon(NamedTuple):
    """How far is looked ahead: ``steps`` of an action each, ``hold`` of them between knots."""

    steps: int
    hold: int


class Plan(NamedTuple):
    """
    What was planned last.

    ``knots`` (m, k) begin at the step after the one that is taken; ``memory`` is what the engine
    remembers of that step, ``reached`` the state that it led to there, n = 1.
    """

    knots: np.ndarray
    memory: Any
    reached: Seen


class Found(NamedTuple):
    """
    What a search came to.

    ``action`` (k,) from -1 to 1 is for now, ``plan`` is where the next search begins. ``path``
    (s + 1, 3) are the base poses of the best candidate from now on, scene frame [m, rad];
    ``succeeds`` tells whether it gets there, ``deviation_m`` is the standard deviation of the
    base's place at its end, None where the engine does not estimate it.
    """

    action: np.ndarray
    plan: Plan
    path: np.ndarray
    succeeds: bool
    deviation_m: Optional[float]
    seconds: float  # wall time


class Meanwhile(NamedTuple):
    """An action (k,) that holds for so many frames."""

    action: np.ndarray
    num_frames: int


class _Imagined(NamedTuple):
    """Candidates and their outcomes: what each is worth, its path (c, s, 3), ..."""

    value: np.ndarray
    path: np.ndarray
    done: np.ndarray
    deviation_m: Optional[np.ndarray]


class Search:
    """Searches with one engine, for any number of robots one after the other."""

    def __init__(self, columns: Sequence[str], horizon: Horizon, method: str = 'cem',
                 budget: Optional[int] = None, engine: str = DEFAULT_ENGINE,
                 engine_options: Optional[Mapping[str, Any]] = None,
                 frames_per_action: int = FRAMES_PER_ACTION,
                 picture_px: Optional[Tuple[int, int]] = None) -> None:
        """
        Load the engine.

        :param columns: k action columns that are planned; all others stay at rest
        :param horizon: how far is looked ahead
        :param method: one of ``METHODS``
        :param budget: rollouts per plan; None: ``BUDGET``
        :param engine: that imagines; the reference world is one, too
        :param engine_options: what its constructor takes besides; None: what makes it fast
        :param frames_per_action: frames of the engine for which an action holds
        :param picture_px: width and height in which it draws for an aim that reads pictures; None:
            those of its robot's camera
        :raises SpecError: one of these cannot be
        """
        if method not in METHODS:
            raise unknown_name('planner', method, METHODS)
        budget = BUDGET if budget is None else budget
        if budget < 4 * ITERATIONS:
            raise SpecError(f'A plan of {budget} rollouts is none; give at least '
                            f'{4 * ITERATIONS}.')
        self.num_candidates, self._method = budget // ITERATIONS, method
        self.name = f'{method}:{budget}' + ('' if engine == DEFAULT_ENGINE else f':{engine}')
        entry = engine_entry(engine)
        options = dict(entry.quick if engine_options is None else engine_options)
        if picture_px is not None:
            options['robot'] = entry.robot_in_size(load_robot(options.get('robot', '')),
                                                   *picture_px)
        self._world: WorldModel = make_world(engine, self.num_candidates, **options)
        self._steps, self._hold = horizon
        self._frames = frames_per_action
        self._commands = PolicyCommands(self._world.spec, columns, self.num_candidates)
        self._num_knots, self._num_columns = self._steps // self._hold + 1, len(columns)
        place = np.arange(self._steps) / self._hold
        low = place.astype(int)
        self._blend = np.zeros((self._steps, self._num_knots))  # of knots in each step
        self._blend[np.arange(self._steps), low] = 1.0 - (place - low)
        self._blend[np.arange(self._steps), np.minimum(low + 1, self._num_knots - 1)] += (
            place - low)

    @property
    def world_spec(self) -> WorldSpec:
        """What the engine that imagines says of its worlds."""
        return self._world.spec

    def begin(self, scene: str, seed: int) -> Plan:
        """
        Begin an episode, with a plan to stand still.

        :param scene: that it is in
        :param seed: of its start
        :return: where the first search begins
        :raises SpecError: the engine does not know the scene
        """
        shown = self._world.reset(scene, seed, render=False)
        return Plan(np.zeros((self._num_knots, self._num_columns)), self._world.snapshot([0]),
                    Seen.of(of_rows(shown, [0])))

    def find(self, plan: Plan, seen: Seen, aim: Aim, rng: np.random.Generator,
             meanwhile: Optional[Meanwhile] = None) -> Found:
        """
        Search from a state.

        :param plan: of the step before
        :param seen: the state that is, n = 1
        :param aim: what it is for
        :param rng: the only source of randomness
        :param meanwhile: what the robot does while the plan is made, which begins after it; None:
            the world waits
        :return: what to do, and what will come of it
        """
        began_s = time.perf_counter()
        self._tell(plan, seen)
        if meanwhile is not None and meanwhile.num_frames >= self._world.spec.frames_per_step:
            seen = self._after(meanwhile)
        root = self._world.snapshot([0])
        mean = plan.knots
        spread = np.full(mean.shape, SPREAD)
        best, best_of, best_index = mean, None, 0
        for _ in range(ITERATIONS):
            knots = np.clip(mean + spread * rng.standard_normal(
                (self.num_candidates, *mean.shape)), -1, 1)
            knots[0], knots[1] = mean, best
            knots[2] = 0.0
            imagined = self._imagined(root, knots, aim)
            index = int(np.argmax(imagined.value))
            if best_of is None or imagined.value[index] > best_of.value[best_index]:
                best, best_of, best_index = knots[index], imagined, index
            mean, spread = self._narrowed(knots, imagined.value, spread)
        assert best_of is not None, 'there was an iteration'
        chosen = best if self._method == 'cem' else mean
        deviation_m = best_of.deviation_m
        return Found(chosen[0], self._followed(root, chosen),
                     np.concatenate([seen.base_pose, best_of.path[best_index]]),
                     bool(best_of.done[best_index]),
                     None if deviation_m is None else float(deviation_m[best_index]),
                     time.perf_counter() - began_s)

    def close(self) -> None:
        """Give back what the engine holds."""
        self._world.close()

    def _narrowed(self, knots: np.ndarray, values: np.ndarray,
                  spread: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return middle and spread of the next candidates."""
        if self._method == 'mppi':
            weight = np.exp((values - values.max()) / TEMPERATURE)
            weight /= weight.sum()
            mean = np.einsum('c,cmk->mk', weight, knots)
            return mean, np.maximum(0.6 * spread, LEAST)
        elite = knots[np.argsort(-values)[:max(3, round(ELITES * len(values)))]]
        return elite.mean(0), np.maximum(KEPT * spread + (1 - KEPT) * elite.std(0), LEAST)

    def _imagined(self, root: Any, knots: np.ndarray, aim: Aim) -> _Imagined:
        """Imagine all candidates."""
        num = self.num_candidates
        self._world.restore(root * num)
        self._commands.clear(np.arange(num))
        actions = np.einsum('sm,cmk->sck', self._blend, knots)
        value, over, bumps = np.zeros(num), np.zeros(num, bool), np.zeros(num)
        path, worth = np.zeros((num, self._steps, 3)), np.zeros(num)
        for step, action in enumerate(actions):
            weight = aim.looks.get(self._steps - 1 - step, 0.0)
            shown = self._advanced(action, render=aim.draws and weight > 0.0)
            done = aim.is_done(shown) & ~over
            # Sooner is better, and what comes after success does not count.
            value = np.where(done, SUCCESS_BONUS * (1.0 - 0.02 * step), value)
            over |= done
            if not aim.takes_contact:
                bumps += CONTACT * shown.contact.max(1)
            path[:, step] = shown.base_pose[:, -1]
            if weight:
                worth += weight * aim.potential(shown)
        deviation_m = _deviation_m(shown)
        if deviation_m is not None:
            worth -= DISTRUST * deviation_m
        return _Imagined(np.where(over, value + SUCCESS_BONUS, worth) - bumps, path, over,
                         deviation_m)

    def _advanced(self, action: np.ndarray, render: bool = False) -> Observation:
        commanded = self._commands.actions(action, self._frames)
        per_step = self._world.spec.frames_per_step
        for first in range(0, self._frames, per_step):
            shown = self._world.step(commanded[:, first:first + per_step],
                                     render=render and first + per_step == self._frames)
        return shown

    def _tell(self, plan: Plan, seen: Seen) -> None:
        """
        Put all candidates into the state that is; what the engine remembers stays.

        Where the state is just what the engine made of the step before, nothing is told: the
        copy is exact, with all that a state does not say, such as speeds of things.
        """
        self._world.restore(plan.memory * self.num_candidates)
        if all(np.array_equal(getattr(plan.reached, name), getattr(seen, name))
               for name in Seen.__annotations__):
            return
        told = at_rest(State(*(np.repeat(column, self.num_candidates, 0) for column in (
            seen.base_pose, seen.joint_position, seen.object_pose))))
        told.base_twist[:, -1] = seen.base_twist
        told.joint_velocity[:, -1] = seen.joint_velocity
        self._world.observe(told, render=False)

    def _after(self, meanwhile: Meanwhile) -> Seen:
        """Let all candidates do what the robot does by itself; return where that leads, n = 1."""
        self._commands.clear(np.arange(self.num_candidates))
        per_step = self._world.spec.frames_per_step
        num_frames = meanwhile.num_frames // per_step * per_step
        commanded = self._commands.actions(
            np.repeat(meanwhile.action[None], self.num_candidates, 0), num_frames)
        for first in range(0, num_frames, per_step):
            shown = self._world.step(commanded[:, first:first + per_step], render=False)
        return Seen.of(of_rows(shown, [0]))

    def _followed(self, root: Any, knots: np.ndarray) -> Plan:
        """Remember what the engine makes of the step that is taken, and the rest of the plan."""
        self._world.restore(root * self.num_candidates)
        self._commands.clear(np.arange(self.num_candidates))
        shown = self._advanced(np.repeat(knots[:1], self.num_candidates, 0))
        later = np.minimum(np.arange(self._num_knots) + 1.0 / self._hold, self._num_knots - 1)
        shifted = np.stack([np.interp(later, np.arange(self._num_knots), column)
                            for column in knots.T], -1)
        return Plan(shifted, self._world.snapshot([0]), Seen.of(of_rows(shown, [0])))


def _deviation_m(shown: Observation) -> Optional[np.ndarray]:
    """Return the standard deviation of where the base is, (c,), None where it is not estimated."""
    if shown.base_pose_cov is None:
        return None
    return np.sqrt(np.maximum(shown.base_pose_cov[:, -1, 0, 0], 0.0))
