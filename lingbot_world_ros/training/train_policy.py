# SPDX-License-Identifier: Apache-2.0
"""
Train a policy by imitation, in imagined rooms or in true ones.

The learner acts, an expert that knows the state says what it would have done, and a small network
learns it from what the learner is told. Where a thing was pushed to, nobody tells a learner; so
the expert, too, goes by where the learner should believe it to be. Round after round the learner
meets what its own mistakes lead to (DAgger, Ross et al. 2011). Every round is a file in the
folder: a run that was cut off goes on where it was, and gives the policy that it would have given.
"""
from dataclasses import asdict, dataclass
import json
from pathlib import Path
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from lingbot_world_ros.engines.registry import DEFAULT_ENGINE, engine_entry
from lingbot_world_ros.envs.known import Known
from lingbot_world_ros.envs.rooms import RoomVectorEnv
from lingbot_world_ros.envs.tasks import make_task, TASKS
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.policies.belief import Belief, believed, touch_m
from lingbot_world_ros.policies.experts import Expert
from lingbot_world_ros.policies.network import ABOUT, features, ROUNDS, write_policy
from lingbot_world_ros.robots.load import load_robot
import numpy as np
from safetensors.torch import load_file, save
import torch
from torch import nn, Tensor
import torch._dynamo  # optimisers do; once OpenGL draws it would crash

HIDDEN = 256
RATE, SMALLEST_BATCH = 1e-3, 64
SHAKEN = 0.3  # of the first round's actions are drawn at random, to see more than the best way
Report = Callable[[Dict[str, Any]], Any]


@dataclass(frozen=True)
class PolicySpec:
    """What is trained, and with what; ``frames`` are of the engine, over all rows and rounds."""

    task: str
    engine: str = DEFAULT_ENGINE
    frames: int = 60000
    rounds: int = 8
    rows: int = 16
    epochs: int = 40  # over all that was seen, per round
    scan: bool = True
    image_size: Tuple[int, int] = (80, 60)  # of the pictures that ranges are made from, pixels
    seed: int = 0
    engine_options: Optional[Dict[str, Any]] = None  # None: what makes the engine fast

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.task not in TASKS:
            raise unknown_name('task', self.task, TASKS)
        for name in ('frames', 'rounds', 'rows', 'epochs'):
            if getattr(self, name) < 1:
                raise SpecError(f'{name}={getattr(self, name)} must be at least 1.')


def train_policy(spec: PolicySpec, folder: Path, report: Report = lambda row: None) -> Path:
    """
    Train, or go on with a training that was cut off.

    :param spec: what is trained; the same as before where there is one under way
    :param folder: of the run; the policy is written there after every round
    :param report: called with the numbers of every round
    :return: the folder
    :raises SpecError: another training is in that folder
    """
    folder.mkdir(parents=True, exist_ok=True)
    _require_same(spec, folder)
    if number_of_rounds(folder) >= spec.rounds and (folder / ABOUT).exists():
        return folder
    torch.manual_seed(spec.seed)
    torch.set_num_threads(1)
    env = RoomVectorEnv(spec.rows, task=spec.task, engine=spec.engine, image=False,
                        scan=spec.scan, image_size=spec.image_size if spec.scan else None,
                        engine_options=dict(engine_entry(spec.engine).quick)
                        if spec.engine_options is None else spec.engine_options)
    try:
        learner = Learner(env, spec)
        for number in range(spec.rounds):
            path = folder / f'round_{number:03d}.safetensors'
            if path.exists():
                learner.take_over(load_file(path))
                continue
            began = time.perf_counter()
            row = learner.play_round(number)
            row['loss'] = learner.fit(number)
            row = {'round': number, **row, 'seconds': time.perf_counter() - began}
            _note(folder / ROUNDS, row)
            learner.save(path)
            learner.write(folder, number)
            report(row)
        learner.write(folder, spec.rounds - 1)
    finally:
        env.close()
    return folder


def number_of_rounds(folder: Path) -> int:
    """Return how many rounds of a training are kept."""
    return len(list(folder.glob('round_*.safetensors')))


class Learner:
    """The network, and all that it was shown."""

    def __init__(self, env: RoomVectorEnv, spec: PolicySpec) -> None:
        """
        Begin with nothing seen.

        :param env: of ``spec.rows`` rows
        :param spec: of the training
        """
        self._env, self._spec = env, spec
        self._robot = load_robot()
        self._expert = Expert(spec.task, self._robot)
        self._belief = Belief(touch_m(self._robot)) if len(TASKS[spec.task].points) == 2 else None
        nothing, _ = env.reset(seed=0)
        self._begin(np.ones(env.num_envs, bool))
        size = self._looked(nothing)[0].shape[1]
        columns = len(make_task(spec.task, self._robot).columns)
        self._seen, self._shown = torch.zeros((0, size)), torch.zeros((0, columns))
        self._middle, self._scale = torch.zeros(size), torch.ones(size)
        self._added = 0  # steps of the newest round
        self._net = nn.Sequential(nn.Linear(size, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN),
                                  nn.SiLU(), nn.Linear(HIDDEN, columns), nn.Tanh())

    def play_round(self, number: int) -> Dict[str, Any]:
        """
        Act for a share of the frames, and keep what was seen and what the expert would do.

        :param number: of the round; in the first one the expert acts
        :return: frames of this round, episodes that began, and how many of them reached the goal
        """
        spec, env = self._spec, self._env
        rng = np.random.default_rng([spec.seed, number])
        per_step = spec.rows * env.frames_per_action
        steps = max(1, round(spec.frames / spec.rounds / per_step))
        seen, shown = [], []
        observation, _ = env.reset(seed=int(rng.integers(2 ** 31)))
        begun, reached = spec.rows, 0
        is_new, is_over = np.ones(spec.rows, bool), np.zeros(spec.rows, bool)
        for _ in range(steps):
            self._begin(is_new)
            x, known = self._looked(observation)
            best = self._expert.act(observation, known)
            seen.append(x)
            shown.append(best)
            action = self._acted(x, best, number, rng)
            observation, _, terminated, truncated, _ = env.step(action)
            is_new, is_over = is_over, terminated | truncated  # reset by the step after the end
            begun += int(is_over.sum())
            reached += int(terminated.sum())
        self._add(torch.from_numpy(np.concatenate(seen)),
                  torch.from_numpy(np.concatenate(shown).astype(np.float32)))
        return {'frames': steps * per_step, 'begun': begun, 'reached': reached}

    def _begin(self, is_new: np.ndarray) -> None:
        if self._belief is not None:
            self._belief.begin(np.flatnonzero(is_new).tolist(), len(is_new))

    def _looked(self, observation: Dict[str, np.ndarray]) -> Tuple[np.ndarray, Known]:
        """Return what the network reads, and what the expert may know."""
        spec, known = self._spec, self._env.known
        if self._belief is None:
            return features(observation, spec.task, spec.scan), known
        things = self._belief.look(observation)
        return features(observation, spec.task, spec.scan, things), believed(known, things)

    def _acted(self, x: np.ndarray, best: np.ndarray, number: int,
               rng: np.random.Generator) -> np.ndarray:
        """What is done: first mostly what is best, then what the learner thinks is best."""
        if number == 0:
            is_shaken = rng.random((len(best), 1)) < SHAKEN
            return np.where(is_shaken, rng.uniform(-1.0, 1.0, best.shape), best)
        with torch.no_grad():
            return self._net(self._scaled(torch.from_numpy(x))).numpy().astype(float)

    def fit(self, number: int) -> float:
        """
        Learn from all that was seen so far.

        :param number: of the round
        :return: mean squared error over the last tenth of the steps
        """
        generator = torch.Generator().manual_seed(self._spec.seed * 1000 + number)
        x, y = self._scaled(self._seen), self._shown
        batch = max(SMALLEST_BATCH, min(512, len(x) // 32))
        total = self._spec.epochs * (len(x) // batch + 1)
        optimiser = torch.optim.AdamW(self._net.parameters(), lr=RATE, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
        losses: List[float] = []
        for _ in range(total):
            chosen = torch.randint(len(x), (batch,), generator=generator)
            loss = nn.functional.mse_loss(self._net(x[chosen]), y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        return float(np.mean(losses[-max(1, total // 10):]))

    def save(self, path: Path) -> None:
        """Write what this round added, and the network after it; all or nothing."""
        tensors = {'seen': self._seen[-self._added:], 'shown': self._shown[-self._added:],
                   **{f'net.{k}': v for k, v in self._net.state_dict().items()}}
        path.with_suffix('.tmp').write_bytes(
            save({k: v.contiguous() for k, v in tensors.items()}))
        path.with_suffix('.tmp').replace(path)

    def take_over(self, saved: Dict[str, Tensor]) -> None:
        """Go on from a round that was written."""
        self._add(saved['seen'], saved['shown'])
        self._net.load_state_dict({k[4:]: v for k, v in saved.items() if k.startswith('net.')})

    def write(self, folder: Path, number: int) -> None:
        """Write the policy as it is, with the scaling of its input folded into the first layer."""
        spec = self._spec
        layers = [(part.weight.detach(), part.bias.detach()) for part in self._net
                  if isinstance(part, nn.Linear)]
        weight, bias = layers[0]
        layers[0] = weight / self._scale, bias - (weight / self._scale) @ self._middle
        write_policy(folder, {
            'task': spec.task, 'senses': ['scan'] if spec.scan else [],
            **({'image_size': list(spec.image_size)} if spec.scan else {}),
            **({} if self._belief is None else {'touch_m': touch_m(self._robot)}),
            'robot': self._robot.name, 'engine': spec.engine, 'model': self._env.world_spec.model,
            'library': f'torch {torch.__version__}', 'method': 'DAgger from the expert',
            'seed': spec.seed, 'frames': len(self._seen) * self._env.frames_per_action,
            'rounds': number + 1, 'rounds_planned': spec.rounds},
            [(w.contiguous(), b.contiguous()) for w, b in layers], save)

    def _add(self, seen: Tensor, shown: Tensor) -> None:
        self._added = len(seen)
        if not len(self._seen):  # the scaling stays that of the first round
            self._middle = seen.mean(0)
            self._scale = seen.std(0, correction=0).clamp_min(1e-2)
        self._seen, self._shown = torch.cat([self._seen, seen]), torch.cat([self._shown, shown])

    def _scaled(self, x: Tensor) -> Tensor:
        return (x - self._middle) / self._scale


def _note(path: Path, row: Dict[str, Any]) -> None:
    """Write down a round's numbers after those of the rounds before."""
    before = path.read_text().splitlines()[:row['round']] if path.exists() else []
    path.write_text('\n'.join([*before, json.dumps(row), '']))


def _require_same(spec: PolicySpec, folder: Path) -> None:
    """Refuse to go on with another training; write down which one is in the folder."""
    path, said = folder / 'training.json', {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(spec).items()}
    there = json.loads(path.read_text()) if path.exists() else said
    for name, value in said.items():
        if there.get(name) != value:
            raise SpecError(f'{folder} has another training in it: {name} {there.get(name)}, now '
                            f'{value}; choose another folder, or go on with it by the same '
                            'arguments.')
    path.write_text(json.dumps(said, indent=1) + '\n')
