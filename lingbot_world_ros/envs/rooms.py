# SPDX-License-Identifier: Apache-2.0
"""
Gymnasium environments over a batch of engine rows, without ROS.

Importing this registers ``RoomNav-v0``, ``RoomReach-v0`` and ``RoomPush-v0`` of the namespace
``lingbot_world_ros`` over the embedded world, ``RoomNavReference-v0`` and so on, their twins over
MuJoCo, and ``LearnedNav-v0`` over a learned world. docs/environments.md says what they are. Axes:
n rows, one environment each.
"""
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from lingbot_world_ros.actions.limits import Limits
from lingbot_world_ros.engines.interface import (Observation, Scenes, State, WorldModel,
                                                 WorldSpec)
from lingbot_world_ros.engines.registry import (DEFAULT_ENGINE, engine_entry, engines, LEARNED,
                                                make_world, TRUTH_ENGINE)
from lingbot_world_ros.engines.rows import at_rest, of_rows
from lingbot_world_ros.envs.asked import asked_actions, asked_reset, PlayedRow, Seeds
from lingbot_world_ros.envs.known import Known, Start
from lingbot_world_ros.envs.learned_nav import LearnedNav, POSE
from lingbot_world_ros.envs.policy_commands import PolicyCommands
from lingbot_world_ros.envs.tasks import (Goals, make_task, put_rows, Seen, SUCCESS_BONUS, Task,
                                          TASKS)
from lingbot_world_ros.envs.unusual import unusual_state
from lingbot_world_ros.errors import shown as told, SpecError, unknown_name
from lingbot_world_ros.paths import pip_install
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.session.faults import check_finite
from lingbot_world_ros.worlds.scenes import get_scene, StartState
import numpy as np

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.error import ClosedEnvironmentError, ResetNeeded
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
    from lingbot_world_ros.envs.senses import Channels, Senses
    from lingbot_world_ros.envs.spread import About, SpreadVectorEnv
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f'The environments need the Python package {error.name!r}: '
                              f'{pip_install(str(error.name))}.', name=error.name) from error

NAMESPACE = 'lingbot_world_ros'
UNCALIBRATED = ('ignore', 'truncate', 'penalise')  # what follows where imagination is not trusted
UNCALIBRATED_COST = 0.1  # per step
RGB = 'rgb_array'
Columns = Dict[str, np.ndarray]  # first axis n, or the rows that are meant


class RoomVectorEnv(VectorEnv):
    """
    A task in as many rooms as there are environments, computed by one engine.

    Row i of a reset with seed s plays the episodes that a single environment plays after a reset
    with seed s + i, whatever the other rows do.
    """

    metadata: Dict[str, Any] = {'render_modes': [RGB], 'render_fps': 5.0,
                                'autoreset_mode': AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int = 1, *, task: str,
                 engine: Union[str, WorldModel] = DEFAULT_ENGINE,
                 engine_options: Optional[Mapping[str, Any]] = None,
                 world: Union[str, Path] = '', goal: str = '', scenes: Scenes = (),
                 image: bool = True, depth: bool = False, scan: bool = False,
                 image_size: Optional[Sequence[int]] = None,
                 frames_per_action: int = 3, time_limit_s: Optional[float] = None,
                 uncalibrated: str = 'ignore', limits: Optional[Mapping[str, float]] = None,
                 render_mode: Optional[str] = None,
                 autoreset_mode: Union[str, AutoresetMode] = AutoresetMode.NEXT_STEP) -> None:
        """
        Load the engine.

        :param num_envs: n
        :param task: one of ``tasks.TASKS``, or 'LearnedNav'
        :param engine: a registered one that keeps to the shipped scenes, for LearnedNav one that
            tells a floor plan, or one that runs already, with n rows; it is closed with the
            environment
        :param engine_options: what its constructor takes besides
        :param world: folder or name of a learned world, for its engine
        :param goal: of LearnedNav, 'pose' or 'image'; '': 'pose'
        :param scenes: that episodes are drawn from; none: all that the engine has
        :param image: whether observations have the picture
        :param depth: and depth
        :param scan: and ranges made from depth
        :param image_size: width and height in pixels that the engine draws image and depth in, of
            the same field of view; None: those of its robot's camera
        :param frames_per_action: of the engine, for which an action holds
        :param time_limit_s: of sim time, after which an episode is truncated; None: the task's
        :param uncalibrated: what follows when uncertainty leaves its calibrated range: 'ignore',
            'truncate' the episode, or 'penalise' each step by ``UNCALIBRATED_COST``
        :param limits: fields of ``actions.limits.Limits``, as the parameters ``limits.*``
        :param render_mode: None, or 'rgb_array' for the pictures of the camera
        :param autoreset_mode: Gymnasium's
        :raises SpecError: one of these cannot be; says what can
        """
        if uncalibrated not in UNCALIBRATED:
            raise unknown_name('value of uncalibrated', uncalibrated, UNCALIBRATED)
        if render_mode not in (None, RGB):
            raise unknown_name('render_mode', str(render_mode), (RGB,))
        self._mode = _autoreset_mode(autoreset_mode)
        self._limits = _limits(limits)
        options = {**(engine_options or {}), **({'world': str(world)} if world else {})}
        _check_world(engine, options)
        if image_size is not None and not isinstance(engine, WorldModel):
            options['robot'] = _robot_with_size(engine, options.get('robot', ''), image_size)
        self._engine = (engine if isinstance(engine, WorldModel) else
                        make_world(engine, num_envs, **options))
        try:
            _check_size(self._engine.spec, image_size)
            self._task = _task(task, self._engine.spec, goal)
            self._prepare(scenes, Channels(image, depth, scan), frames_per_action, time_limit_s,
                          uncalibrated)
        except SpecError:
            self._engine.close()
            raise
        self.num_envs, self.render_mode = num_envs, render_mode
        self._uncalibrated = uncalibrated
        self._draws = image or depth or scan or uncalibrated != 'ignore' or render_mode == RGB
        self._commands = PolicyCommands(self._spec, self._task.columns, num_envs, self._limits)
        self.single_observation_space = self._senses.space
        self.single_action_space = spaces.Box(-1.0, 1.0, (len(self._task.columns),), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {**type(self).metadata, 'autoreset_mode': self._mode,
                         'render_fps': self._spec.frame_rate_hz / frames_per_action}
        self._streams: List[Optional[List[int]]] = [None] * num_envs  # seed, number of episodes
        self._starts: List[Optional[Start]] = [None] * num_envs
        self._start_pose = np.zeros((num_envs, 3))
        self._goals: Optional[Goals] = None  # none before the first reset
        self._seen: Optional[Seen] = None
        self._potential = np.zeros(num_envs)
        self._num_steps = np.zeros(num_envs, int)
        self._ended = np.zeros(num_envs, bool)
        self._pictures: Optional[np.ndarray] = None
        self._observation: Columns = {}  # the newest

    @property
    def predicted_states(self) -> Tuple[str, ...]:
        """States that the engine predicts (or, MuJoCo, knows), as ``WorldSpec`` names them."""
        return self._spec.predicted_states

    @property
    def integrated_states(self) -> Tuple[str, ...]:
        """States that it only adds up from the commands."""
        return self._spec.integrated_states

    @property
    def known(self) -> Known:
        """
        What no policy is told: episodes, state and goals of all rows, now.

        :raises ResetNeeded: there was no reset
        """
        if self._seen is None or self._goals is None:
            raise ResetNeeded('There is nothing to know yet; call reset first.')
        starts = tuple(start for start in self._starts if start is not None)
        return Known(self._task, starts, self._seen, self._goals)

    @property
    def about(self) -> About:
        """What does not change: spaces of one row, the engine's own words."""
        return About(self.single_observation_space, self.single_action_space, self.metadata,
                     self._spec, self._task.columns, self._frames_per_action)

    @property
    def world_spec(self) -> WorldSpec:
        """What the engine says of its worlds."""
        return self._spec

    @property
    def frames_per_action(self) -> int:
        """Frames of the engine for which an action holds."""
        return self._frames_per_action

    def reset(self, *, seed: Seeds = None,
              options: Optional[Dict[str, Any]] = None) -> Tuple[Columns, Dict[str, Any]]:
        """
        Begin new episodes.

        :param seed: of the streams that rows draw their episodes from: s for row 0, s + 1 for row
            1 and so on, or one for each; None goes on with the streams there are
        :param options: 'reset_mask', (n,) bool: reset these rows, the others go on; 'scene' and
            'seed': play these episodes, one for all rows or one for each, None draws it. What
            ``info`` says as 'scene' and 'seed' repeats its episode. 'unusual': begin in a state
            as in ``envs.unusual``
        :return: observations and infos of all rows; infos of those that were reset
        :raises SpecError: one of these cannot be; nothing changed
        """
        self._require_open()
        rows, seeds, scenes, own, unusual = asked_reset(
            seed, options, self.num_envs, self._spec.scenes, self._goals is None)
        if unusual and not self._spec.can.keep_scenes:
            raise SpecError("options['unusual']: there are unusual starts in the shipped rooms "
                            'only; leave it out.')
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
        for row in rows:
            if seeds[row] is not None or self._streams[row] is None:
                number = seeds[row]
                self._streams[row] = [int(self.np_random.integers(2 ** 31)) if number is None
                                      else number, 0]
        observation, info = self._begin(rows, scenes, own, unusual)
        if len(rows) < self.num_envs:
            observation = _put(self._observation, rows, observation)
        self._observation = observation
        return _copied(observation), self._vector_info(rows, info)

    def step(self, actions: Any) -> Tuple[Columns, np.ndarray, np.ndarray, np.ndarray,
                                          Dict[str, Any]]:
        """
        Act in all rows, for ``frames_per_action`` frames of the engine.

        :param actions: (n, k) float, from -1 to 1
        :return: observations, rewards (n,) float64, terminations (n,), truncations (n,) bool,
            infos
        :raises SpecError: another shape, or not finite; nothing changed
        :raises ResetNeeded: there was no reset, or an episode has ended and mode is 'Disabled'
        :raises EngineDiverged: the engine returned what is not finite; only a reset helps
        """
        said = self._checked(actions)
        again = self._ended.copy()  # only with NEXT_STEP there are any
        said[again] = 0.0
        observation, rewards, terminated, truncated, info = self._play(said)
        rewards[again], terminated[again], truncated[again] = 0.0, False, False
        self._ended = terminated | truncated
        restarting, final = again, {}
        if self._mode is AutoresetMode.SAME_STEP:
            restarting = self._ended.copy()
            final = self._final(restarting, observation, info)
        if restarting.any():
            rows = np.flatnonzero(restarting)
            nothing: List[None] = [None] * self.num_envs
            fresh, fresh_info = self._begin(rows, nothing, nothing)
            observation, info = _put(observation, rows, fresh), _put(info, rows, fresh_info)
        self._observation = observation
        infos = self._vector_info(np.arange(self.num_envs), info)
        return _copied(observation), rewards, terminated, truncated, {**infos, **final}

    def resume(self, played: Sequence[PlayedRow]) -> None:
        """
        Come to where another environment of the same kind was, by playing the same again.

        It is the same byte for byte where rows do not depend on each other (``exact``), else up
        to rounding.

        :param played: n, what each row has played
        """
        self._require_open()
        first = max(len(row.actions) for row in played)
        since = np.array([first - len(row.actions) for row in played])  # each one's first step
        self._streams = [[0, 0] for _ in played]
        starts = [row.start for row in played]
        self._begin_again(np.arange(self.num_envs), starts, False)  # a first reset is one of all
        for step in range(first + 1):
            for unusual in (False, True):
                beginning = [i for i, start in enumerate(starts)
                             if since[i] == step and start.unusual == unusual]
                if beginning and (step or unusual):
                    self._begin_again(np.array(beginning), starts, unusual)
            if step < first:
                said = np.zeros((self.num_envs, len(self._task.columns)))
                for i in np.flatnonzero(since <= step).tolist():
                    said[i] = played[i].actions[step - since[i]]
                self._observation = self._play(said)[0]
        self._streams = [list(row.stream) for row in played]
        self._ended = np.array([row.ended for row in played])

    def render(self) -> Optional[Tuple[np.ndarray, ...]]:
        """Return the newest picture of every row, (h, w, 3) uint8; None without render_mode."""
        if self.render_mode is None:
            return None
        self._require_open()
        if self._pictures is None:
            raise ResetNeeded('There is nothing to see yet; call reset first.')
        return tuple(self._pictures.copy())

    def close_extras(self, **_: Any) -> None:
        """Give back what the engine holds."""
        self._engine.close()

    def _prepare(self, scenes: Scenes, channels: Channels, frames_per_action: int,
                 time_limit_s: Optional[float], uncalibrated: str) -> None:
        """Check what depends on the engine."""
        self._spec = spec = self._engine.spec
        self._senses = Senses(spec, self._task, channels)
        self._scenes = (scenes,) if isinstance(scenes, str) else tuple(scenes) or spec.scenes
        for scene in self._scenes:
            if scene not in spec.scenes:
                raise unknown_name('scene', scene, spec.scenes)
        per_step = spec.frames_per_step
        if frames_per_action < 1 or frames_per_action % per_step:
            raise SpecError(f'frames_per_action={frames_per_action} must be a multiple of the '
                            f'{per_step} frames that engine {spec.engine!r} makes per step.')
        self._frames_per_action = frames_per_action
        limit_s = self._task.time_limit_s if time_limit_s is None else time_limit_s
        if not 0.0 < limit_s < np.inf:
            raise SpecError(f'time_limit_s={limit_s} must be more than 0 seconds.')
        self._step_limit = int(np.ceil(limit_s * spec.frame_rate_hz / frames_per_action - 1e-9))
        self._is_true = spec.can.know_truth
        self._is_predicted = set(self._task.moves) <= set(spec.predicted_states)
        if uncalibrated != 'ignore' and spec.uncertainty_limit is None and not self._is_true:
            raise SpecError(f'uncalibrated={uncalibrated}: the engine {spec.engine!r} does not '
                            'estimate uncertainty; leave it at ignore.')

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError('The environment is closed; make another one.')

    def _checked(self, actions: Any) -> np.ndarray:
        """Return actions (n, k) float64 of one's own, once they can be acted on."""
        self._require_open()
        if self._goals is None:
            raise ResetNeeded('Call reset before the first step.')
        if self._ended.any() and self._mode is AutoresetMode.DISABLED:
            raise ResetNeeded(f'The episodes of rows {np.flatnonzero(self._ended).tolist()} have '
                              'ended; reset them first.')
        shape: Any = self.action_space.shape
        return asked_actions(actions, shape, self._task.columns)

    def _play(self, said: np.ndarray) -> Tuple[Columns, np.ndarray, np.ndarray, np.ndarray,
                                               Columns]:
        """Act in all rows, whether they have ended or not; return as ``step``, infos by row."""
        shown, contact = self._advance(said)
        assert self._goals is not None
        seen, self._num_steps = Seen.of(shown), self._num_steps + 1
        self._seen = seen
        success, potential = (ask(self._goals, seen) for ask in (self._task.is_done,
                                                                 self._task.potential))
        info = self._info(np.arange(self.num_envs), shown, success, contact)
        distrusted = ~info.get('calibrated', np.ones(self.num_envs, bool))
        rewards = potential - self._potential + SUCCESS_BONUS * success
        rewards -= UNCALIBRATED_COST * (distrusted & (self._uncalibrated == 'penalise'))
        too_long = self._num_steps >= self._step_limit
        truncated = ~success & (too_long | (distrusted & (self._uncalibrated == 'truncate')))
        self._potential = potential
        observation = self._senses.observe(shown, self._start_pose, self._goals)
        return observation, rewards, success.copy(), truncated, info

    def _begin_again(self, rows: np.ndarray, starts: Sequence[Start], unusual: bool) -> None:
        """Begin given episodes in rows."""
        observation, _ = self._begin(rows, [start.scene for start in starts],
                                     [start.seed for start in starts], unusual)
        self._observation = (_put(self._observation, rows, observation) if self._observation
                             else observation)

    def _begin(self, rows: np.ndarray, scenes: Sequence[Optional[str]],
               seeds: Sequence[Optional[int]], unusual: bool = False) -> Tuple[Columns, Columns]:
        """Start the next episode of rows; return their observations and infos."""
        starts = [self._drawn(row, scenes[row], seeds[row])._replace(unusual=unusual)
                  for row in rows]
        goes = unusual or self._task.start(*starts[0][:2]) is not None
        shown = self._engine.reset([start.scene for start in starts],
                                   [start.seed for start in starts], rows,
                                   render=self._draws and not goes)
        if goes:
            shown = self._put_elsewhere(rows, starts, shown)
        seen = Seen.of(shown)
        self._seen = seen if self._seen is None else self._seen.with_rows(rows, seen)
        fresh = [self._task.goals(start.scene, start.seed, seen.row(i))
                 for i, start in enumerate(starts)]
        goals = {name: np.concatenate([one[name] for one in fresh]) for name in fresh[0]}
        if self._task.tells_picture:
            goals['picture'] = self._pictures_of(rows, goals['goal'])
        for row, start in zip(rows, starts):
            self._starts[row] = start
        self._goals = put_rows(self._goals, rows, goals, self.num_envs)
        self._start_pose[rows] = seen.base_pose
        self._potential[rows] = self._task.potential(goals, seen)
        self._num_steps[rows], self._ended[rows] = 0, False
        self._commands.clear(rows)
        self._keep_pictures(rows, shown)
        nothing = np.zeros(len(rows))
        return (self._senses.observe(shown, seen.base_pose, goals),
                self._info(rows, shown, nothing.astype(bool), nothing))

    def _put_elsewhere(self, rows: np.ndarray, starts: Sequence[Start],
                       shown: Observation) -> Observation:
        """Move rows that were just reset to where they start; the others stay as they are."""
        others = np.setdiff1d(np.arange(self.num_envs), rows)
        kept = self._engine.snapshot(others) if len(others) else None
        usual = Seen.of(shown)
        states = [self._state(start, usual.row(i)) for i, start in enumerate(starts)]
        there = usual if self._seen is None else self._seen.with_rows(rows, usual)
        pose, joints, objects = (column.copy() for column in (
            there.base_pose, there.joint_position, there.object_pose))
        pose[rows] = [state.base_pose for state in states]
        joints[rows] = [state.joint_position for state in states]
        objects[rows] = [state.object_pose for state in states]
        shown = self._engine.observe(at_rest(State(pose, joints, objects)), render=self._draws)
        if kept is not None:
            self._engine.restore(kept, others)
        return of_rows(shown, rows.tolist())

    def _state(self, start: Start, usual: Seen) -> StartState:
        """Return the state that an episode begins in, where it is not the usual one."""
        if start.unusual:
            return unusual_state(get_scene(start.scene), start.seed, usual, self._spec.robot)
        pose = self._task.start(start.scene, start.seed)
        assert pose is not None, 'only asked of tasks that say it'
        return StartState(pose, usual.joint_position[0], usual.object_pose[0])

    def _pictures_of(self, rows: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Draw what is seen at the goals (m, 3) of rows, (m, h, w, 3) uint8."""
        assert self._seen is not None, 'they have begun'
        pose = self._seen.base_pose.copy()
        pose[rows] = goal
        there = State(pose, self._seen.joint_position, self._seen.object_pose)
        drawn = self._engine.render(there).rgb
        assert drawn is not None, 'it was asked to draw'
        return drawn[rows, -1].copy()

    def _drawn(self, row: int, scene: Optional[str], seed: Optional[int]) -> Start:
        """Draw the next episode of a row, but for what is given."""
        stream = self._streams[row]
        assert stream is not None, 'a reset gives every row one'
        rng = np.random.default_rng(stream)
        stream[1] += 1
        drawn = Start(self._scenes[int(rng.integers(len(self._scenes)))],
                      int(rng.integers(2 ** 31)))
        return Start(scene or drawn.scene, drawn.seed if seed is None else seed)

    def _advance(self, said: np.ndarray) -> Tuple[Observation, np.ndarray]:
        """Step the engine; return what it shows at the end, and the largest contact, (n,)."""
        actions = self._commands.actions(said, self._frames_per_action)
        per_step, contact = self._spec.frames_per_step, np.zeros(self.num_envs)
        for first in range(0, self._frames_per_action, per_step):
            is_last = first + per_step == self._frames_per_action
            shown = self._engine.step(actions[:, first:first + per_step],
                                      render=self._draws and is_last)
            contact = np.maximum(contact, shown.contact.max(1))
        check_finite(shown)
        self._keep_pictures(np.arange(self.num_envs), shown)
        return shown, contact

    def _keep_pictures(self, rows: np.ndarray, shown: Observation) -> None:
        if self.render_mode is None:
            return
        assert shown.rgb is not None, 'it was asked to draw'
        if self._pictures is None:
            self._pictures = np.zeros((self.num_envs, *shown.rgb.shape[2:]), np.uint8)
        self._pictures[rows] = shown.rgb[:, -1]

    def _info(self, rows: np.ndarray, shown: Observation, success: np.ndarray,
              contact: np.ndarray) -> Columns:
        """Say of rows what a policy does not see."""
        starts = [start for start in (self._starts[row] for row in rows) if start is not None]
        info = {'success': success, 'contact': contact,
                'is_predicted': np.full(len(rows), self._is_predicted),
                'scene': np.array([start.scene for start in starts], object),
                'seed': np.array([start.seed for start in starts])}
        if shown.uncertainty is not None and shown.calibrated is not None:
            info['uncertainty'] = shown.uncertainty[:, -1].astype(float)
            info['calibrated'] = shown.calibrated[:, -1].copy()
        elif self._is_true:
            info['uncertainty'] = np.zeros(len(rows))
            info['calibrated'] = np.ones(len(rows), bool)
        return info

    def _vector_info(self, rows: np.ndarray, info: Columns) -> Dict[str, Any]:
        """Put infos of rows into Gymnasium's form: arrays of all rows, and where they count."""
        infos: Dict[str, Any] = {}
        for name, column in info.items():
            infos[name] = np.full(self.num_envs, None if column.dtype == object else 0,
                                  column.dtype)
            infos[name][rows] = column
            infos[f'_{name}'] = np.zeros(self.num_envs, bool)
            infos[f'_{name}'][rows] = True
        return infos

    def _final(self, ended: np.ndarray, observation: Columns, info: Columns) -> Dict[str, Any]:
        """Keep the last observation and info of rows that start over in the same step."""
        final: Dict[str, Any] = {}
        for row in np.flatnonzero(ended).tolist():
            last = {name: value[row].copy() for name, value in observation.items()}
            final = self._add_info(final, {'final_obs': last, 'final_info': _row(info, row)}, row)
        return final


class RoomEnv(gymnasium.Env):
    """
    A task in a room: the one row of a ``RoomVectorEnv``, without its axis.

    It takes what that takes, but for ``num_envs`` and ``autoreset_mode``.
    """

    metadata: Dict[str, Any] = {'render_modes': [RGB], 'render_fps': 5.0}

    def __init__(self, *, task: str, render_mode: Optional[str] = None, **keywords: Any) -> None:
        """
        Load the engine.

        :param task: as there
        :param render_mode: None, or 'rgb_array'
        :param keywords: of ``RoomVectorEnv``
        :raises SpecError: as there
        """
        self._row = RoomVectorEnv(1, task=task, render_mode=render_mode,
                                  autoreset_mode=AutoresetMode.DISABLED, **keywords)
        self.render_mode = render_mode
        self.observation_space = self._row.single_observation_space
        self.action_space = self._row.single_action_space
        self.metadata = {**type(self).metadata, 'render_fps': self._row.metadata['render_fps']}

    @property
    def predicted_states(self) -> Tuple[str, ...]:
        """States that the engine predicts; see ``RoomVectorEnv``."""
        return self._row.predicted_states

    @property
    def integrated_states(self) -> Tuple[str, ...]:
        """States that it only adds up from the commands."""
        return self._row.integrated_states

    def reset(self, *, seed: Optional[int] = None,
              options: Optional[Dict[str, Any]] = None) -> Tuple[Columns, Dict[str, Any]]:
        """
        Begin a new episode.

        :param seed: of the stream that episodes are drawn from; None goes on with it
        :param options: 'scene' and 'seed' as ``info`` has them: play that episode
        :return: observation, info
        :raises SpecError: one of these cannot be; nothing changed
        """
        super().reset(seed=seed)
        observation, info = self._row.reset(seed=seed, options=options)
        return {name: value[0] for name, value in observation.items()}, _row(info, 0)

    def step(self, action: Any) -> Tuple[Columns, float, bool, bool, Dict[str, Any]]:
        """
        Act for ``frames_per_action`` frames of the engine.

        :param action: (k,) float, from -1 to 1
        :return: observation, reward, whether it has ended by success, whether it was cut off, info
        :raises SpecError: another shape, or not finite; nothing changed
        :raises ResetNeeded: there was no reset, or the episode has ended
        """
        observation, reward, terminated, truncated, info = self._row.step(np.array(action)[None])
        return ({name: value[0] for name, value in observation.items()}, float(reward[0]),
                bool(terminated[0]), bool(truncated[0]), _row(info, 0))

    def render(self) -> Optional[np.ndarray]:
        """Return the newest picture, (h, w, 3) uint8; None without render_mode."""
        pictures = self._row.render()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        """Give back what the engine holds; nothing is called afterwards."""
        self._row.close()


def _row(info: Mapping[str, np.ndarray], row: int) -> Dict[str, Any]:
    """Return the info of one row, as plain Python values."""
    return {name: value[row] if value.dtype == object else value[row].item()
            for name, value in info.items() if not name.startswith('_')}


def _put(columns: Columns, rows: np.ndarray, fresh: Columns) -> Columns:
    """Return columns with some rows replaced; they have the same names."""
    out = _copied(columns)
    for name, value in fresh.items():
        out[name][rows] = value
    return out


def _copied(columns: Columns) -> Columns:
    return {name: value.copy() for name, value in columns.items()}


def _task(name: str, spec: WorldSpec, goal: str) -> Task:
    """Make a task by name, for a world that it can be done in."""
    if name == LearnedNav.name:
        return LearnedNav(spec, goal or POSE)
    if name not in TASKS:
        raise unknown_name('task', name, (*TASKS, LearnedNav.name))
    if goal:
        raise SpecError(f'goal={told(goal)}: {name} tells its goals in one way only; leave it '
                        f'out, or take {LearnedNav.name}.')
    if not spec.can.keep_scenes:
        raise SpecError(f'engine {told(spec.engine)}: it does not keep to the scenes that the '
                        f'tasks are in; take another of {", ".join(engines())}.')
    return make_task(name, spec.robot)


def _check_world(engine: Union[str, WorldModel], options: Mapping[str, Any]) -> None:
    """Refuse a world of an engine that takes none, and an engine of a world without one."""
    if isinstance(engine, WorldModel):
        if options.get('world'):
            raise SpecError('world: the engine that runs has one already; leave it out.')
        return
    takes = 'world' in engine_entry(engine).takes
    if takes and not options.get('world'):
        raise SpecError(f'engine {engine!r} needs a learned world: give world=FOLDER.')
    if options.get('world') and not takes:
        raise SpecError(f'world={told(options["world"])}: engine {engine!r} takes no learned '
                        'world; leave one of both out.')


def _robot_with_size(engine: str, robot: Union[str, Robot], image_size: Sequence[int]) -> Robot:
    """Return a robot whose camera has the pixels that are asked for, and sees the same."""
    size: Any = image_size
    if not (isinstance(size, (list, tuple, np.ndarray)) and len(size) == 2 and
            all(isinstance(side, (int, np.integer)) and side > 0 for side in size)):
        raise SpecError(f'image_size={told(size)} must be width and height in pixels, two whole '
                        'numbers.')
    return engine_entry(engine).robot_in_size(load_robot(robot), int(size[0]), int(size[1]))


def _check_size(spec: WorldSpec, image_size: Optional[Sequence[int]]) -> None:
    """Refuse pictures that an engine, which may run already, does not have."""
    size = spec.camera.width_px, spec.camera.height_px
    if image_size is not None and size != tuple(image_size):
        raise SpecError(f'image_size={told(image_size)}: the engine that runs has pictures of '
                        f'{size[0]}x{size[1]}; leave it out.')


def _autoreset_mode(given: Union[str, AutoresetMode]) -> AutoresetMode:
    try:
        return AutoresetMode(given)
    except ValueError:
        raise unknown_name('autoreset_mode', str(given),
                           [mode.value for mode in AutoresetMode]) from None


def _limits(given: Optional[Mapping[str, float]]) -> Limits:
    known = list(vars(Limits()))
    for name in given or {}:
        if name not in known:
            raise unknown_name('limit', name, known)
    return Limits(**(given or {}))


def make_rooms(num_envs: int = 1, *, workers: int = 1, ray: Optional[str] = None,
               **keywords: Any) -> VectorEnv:
    """
    Make a vector environment in this process, or over others; its rows play the same.

    :param num_envs: n
    :param workers: processes that compute the rows, each with an engine of its own; 1 without Ray
        is this one
    :param ray: address of a Ray cluster whose actors they are, 'local' for one started here
    :param keywords: of ``RoomVectorEnv``
    :return: a ``RoomVectorEnv`` or a ``SpreadVectorEnv``
    :raises SpecError: one of these cannot be; says what can
    """
    if workers == 1 and ray is None:
        return RoomVectorEnv(num_envs, **keywords)
    return SpreadVectorEnv(RoomVectorEnv, num_envs, workers=workers, ray=ray, **keywords)


gymnasium.register(
    f'{NAMESPACE}/{LearnedNav.name}-v0', entry_point=f'{__name__}:RoomEnv',
    vector_entry_point=f'{__name__}:make_rooms',
    kwargs={'task': LearnedNav.name, 'engine': LEARNED.name})
for _name in TASKS:
    for _suffix, _engine in (('', DEFAULT_ENGINE), ('Reference', TRUTH_ENGINE)):
        gymnasium.register(
            f'{NAMESPACE}/{_name}{_suffix}-v0', entry_point=f'{__name__}:RoomEnv',
            vector_entry_point=f'{__name__}:make_rooms',
            kwargs={'task': _name, 'engine': _engine})
