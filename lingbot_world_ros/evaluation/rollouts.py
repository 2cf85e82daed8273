# SPDX-License-Identifier: Apache-2.0
"""
Held-out command sequences, and what a world shows and does under them in open loop.

Axes: n sequences, f recorded frames, t all frames from reset (t = 0) on, a action, j joint,
o movable object, h w image. Sequences are grouped by scene, the same number for each.
"""
from dataclasses import asdict, dataclass, fields
import hashlib
import json
from pathlib import Path
from typing import (Any, Callable, cast, Dict, Iterator, List, Optional, Protocol, Sequence, Tuple,
                    Union)

from lingbot_world_ros.engines.interface import Observation, WorldModel, WorldSpec
from lingbot_world_ros.engines.registry import TRUTH_ENGINE
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.evaluation.command_sequences import command_sequences
import numpy as np

# Start states of held-out sequences; everything below is free for training data.
FIRST_HELD_OUT_SEED = 9_000_000
SEEDS_PER_SET = 100_000


@dataclass(frozen=True)
class HeldOutSet:
    """Start states and commands of one evaluation set; sets of different index are disjoint."""

    index: int
    scenes: Tuple[str, ...]
    per_scene: int
    num_steps: int

    @property
    def scene_of(self) -> np.ndarray:
        """Scene index of every sequence, (n,) int."""
        return np.repeat(np.arange(len(self.scenes)), self.per_scene)

    @property
    def start_seeds(self) -> np.ndarray:
        """Start state of every sequence, (n,) int64."""
        first = FIRST_HELD_OUT_SEED + SEEDS_PER_SET * self.index
        return first + np.arange(len(self.scenes) * self.per_scene)

    def commands(self, spec: WorldSpec) -> np.ndarray:
        """
        Draw the commands of every sequence.

        :param spec: names the action layout and the frame rate
        :return: (n, num_steps, a) float32
        """
        return command_sequences(spec.robot, len(self.scene_of), self.num_steps,
                                 FIRST_HELD_OUT_SEED + self.index, spec.frame_rate_hz)


@dataclass
class Rollout:
    """What one world showed at the recorded frames, and its state at every frame."""

    rgb: np.ndarray  # (n, f, h, w, 3) uint8
    base_pose: Optional[np.ndarray] = None  # (n, t, 3) x, y [m], yaw [rad]
    joint_position: Optional[np.ndarray] = None  # (n, t, j) rad or m
    contact: Optional[np.ndarray] = None  # (n, t) probability
    object_pose: Optional[np.ndarray] = None  # (n, t, o, 3) x, y [m], yaw [rad]
    depth_m: Optional[np.ndarray] = None  # (n, f, h, w) float32, metres
    arm_mask: Optional[np.ndarray] = None  # (n, f, h, w) bool
    uncertainty: Optional[np.ndarray] = None  # (n, f) predicted RMS image error, 0..1
    calibrated: Optional[np.ndarray] = None  # (n, f) bool


class Stepped(Protocol):
    """What can be rolled out; a ``WorldModel`` is one."""

    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """Advance one frame."""
        ...


class FromImages(Stepped, Protocol):
    """One that starts from true images, as it knows no state."""

    def reset_from(self, rgb: np.ndarray) -> Observation:
        """Start from images, (b, h, w, 3) uint8."""
        ...


_STATES = ('base_pose', 'joint_position', 'contact', 'object_pose')
_VIEWS = ('rgb', 'depth_m', 'uncertainty', 'calibrated')


def roll_out(world: Stepped, first: Observation, commands: np.ndarray,
             frames: Sequence[int]) -> Rollout:
    """
    Run a batch of command sequences from where the world was reset to.

    :param world: images are only asked for at the recorded frames
    :param first: what its reset returned
    :param commands: (b, t, a) float32
    :param frames: recorded frames, ascending; 0 is the one of the reset
    :return: one batch; quantities that the world does not offer are None
    """
    states, views = [first], [first] if 0 in frames else []
    for t in range(1, frames[-1] + 1):
        shown = t in frames
        observation = world.step(commands[:, t - 1:t], render=shown)
        states.append(observation)
        if shown:
            views.append(observation)
    columns: Dict[str, Any] = {name: _column(states, name) for name in _STATES}
    columns.update({name: _column(views, name) for name in _VIEWS})
    if 'arm_mask' in views[0].extra:
        columns['arm_mask'] = np.concatenate([v.extra['arm_mask'] for v in views], 1)
    return Rollout(**columns)


def _column(observations: Sequence[Observation], name: str) -> Optional[np.ndarray]:
    values = [getattr(o, name) for o in observations]
    return None if values[0] is None else np.concatenate(values, 1)


def roll_out_set(world: Union[WorldModel, FromImages], batch_size: int, held_out: HeldOutSet,
                 commands: np.ndarray, frames: Sequence[int],
                 first_rgb: Optional[np.ndarray] = None,
                 progress: Optional[Callable[[int], object]] = None) -> Rollout:
    """
    Run every sequence of a set, in batches of one scene.

    :param world: one that starts from images only with ``first_rgb``
    :param batch_size: worlds side by side in it
    :param held_out: scenes and start states
    :param commands: (n, t, a) float32; shuffled ones for the shuffle tests
    :param frames: recorded frames, ascending; 0 is the one of the reset
    :param first_rgb: (n, h, w, 3) uint8, true first frames for a world that knows no state
    :param progress: called with the number of frames done after every batch
    :return: all n sequences
    """
    parts = []
    for rows in _batches(held_out, batch_size):
        padded = np.resize(rows, batch_size)  # a short batch repeats its sequences
        if first_rgb is not None:
            first = cast(FromImages, world).reset_from(first_rgb[padded])
        else:
            scene = held_out.scenes[held_out.scene_of[rows[0]]]
            first = cast(WorldModel, world).reset(
                scene, [int(s) for s in held_out.start_seeds[padded]])
        parts.append(_take(roll_out(world, first, commands[padded], frames), len(rows)))
        if progress is not None:
            progress(len(rows) * frames[-1])
    return _join(parts)


def _batches(held_out: HeldOutSet, batch_size: int) -> Iterator[np.ndarray]:
    for scene in range(len(held_out.scenes)):
        rows = np.flatnonzero(held_out.scene_of == scene)
        for start in range(0, len(rows), batch_size):
            yield rows[start:start + batch_size]


def _take(rollout: Rollout, count: int) -> Rollout:
    return _map(lambda name: getattr(rollout, name)[:count], rollout)


def _join(parts: List[Rollout]) -> Rollout:
    return _map(lambda name: np.concatenate([getattr(p, name) for p in parts]), parts[0])


def _map(function: Callable[[str], np.ndarray], like: Rollout) -> Rollout:
    columns: Dict[str, Any] = {
        f.name: None if getattr(like, f.name) is None else function(f.name)
        for f in fields(Rollout)}
    return Rollout(**columns)


def shuffled(commands: np.ndarray, columns: Union[slice, Sequence[int]],
             seed: int) -> np.ndarray:
    """
    Give every sequence some columns of another one.

    :param commands: (n, t, a)
    :param columns: what is exchanged, for example ``slice(0, 2)`` for the base
    :param seed: of the exchange
    :return: the same shape; no sequence keeps its own columns
    :raises SpecError: fewer than two sequences
    """
    count = len(commands)
    if count < 2:
        raise SpecError(f'Shuffling needs at least 2 sequences, got {count}.')
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    donor = np.empty(count, int)
    donor[order] = np.roll(order, 1)  # one cycle through all: nobody is its own donor
    out = commands.copy()
    out[..., columns] = commands[donor][..., columns]
    return out


def load_or_make(folder: Union[str, Path], settings: Dict[str, Any],
                 make: Callable[[], Dict[str, Any]]) -> Dict[str, Any]:
    """
    Read arrays from a cache, or make and keep them.

    :param folder: cache folder, made when needed
    :param settings: everything that the arrays depend on; JSON-serialisable
    :param make: called when the cache has nothing; returns arrays by name
    :return: the same
    """
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:20]
    path = Path(folder) / f'{settings["what"]}-{key}.npz'
    if path.is_file():
        with np.load(path) as stored:
            return {name: stored[name] for name in stored.files}
    arrays = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.partial.npz')  # a stopped run leaves no half file
    np.savez(partial, **arrays)
    partial.replace(path)
    return arrays


def reference_fingerprint(spec: WorldSpec) -> dict:
    """
    Name what the truth depends on beside seeds: robot, sources and simulator version.

    :param spec: of the reference world
    :return: JSON-serialisable
    """
    package = Path(__file__).parents[1]
    sources = sorted([*package.glob('engines/reference/*.py'), *package.glob('robots/*.py')])
    sources += [package / 'worlds' / 'scenes.py',
                package / 'evaluation' / 'command_sequences.py']
    digest = hashlib.sha256(b''.join(p.read_bytes() for p in sources)).hexdigest()
    return {'simulator': spec.model, 'sources': digest, 'robot': str(asdict(spec.robot))}


def true_rollout(world: WorldModel, batch_size: int, held_out: HeldOutSet, frames: Sequence[int],
                 cache: Path, progress: Optional[Callable[[int], object]] = None) -> Rollout:
    """
    Truth of a set, from the cache if it was made before.

    :param world: the reference world, with ``arm_mask=True``
    :param batch_size: worlds side by side in it
    :param held_out: the set
    :param frames: recorded frames
    :param cache: cache folder
    :param progress: see ``roll_out_set``
    :return: all n sequences
    """
    def make() -> Dict[str, Any]:
        made = roll_out_set(world, batch_size, held_out, held_out.commands(world.spec), frames,
                            progress=progress)
        return {f.name: getattr(made, f.name) for f in fields(Rollout)
                if getattr(made, f.name) is not None}

    settings = {'what': 'truth', 'set': asdict(held_out), 'frames': list(frames),
                TRUTH_ENGINE: reference_fingerprint(world.spec)}
    return Rollout(**load_or_make(cache, settings, make))


def mean_images(world: WorldModel, batch_size: int, scenes: Sequence[str], num_states: int,
                cache: Union[str, Path]) -> np.ndarray:
    """
    Mean image of every scene over random states that no held-out sequence starts from.

    :param world: the reference world
    :param batch_size: worlds side by side in it
    :param scenes: scene names
    :param num_states: states per scene, rounded up to whole batches
    :param cache: cache folder
    :return: (scenes, h, w, 3) uint8
    """
    num_batches = -(-num_states // batch_size)

    def mean_image(scene: str) -> np.ndarray:
        seeds = FIRST_HELD_OUT_SEED - 1 - np.arange(num_batches * batch_size)
        shown = (world.reset(scene, [int(s) for s in chunk]).rgb
                 for chunk in seeds.reshape(num_batches, batch_size))
        views = [rgb[:, 0].astype(np.float64).mean(0) for rgb in shown if rgb is not None]
        return np.round(np.stack(views).mean(0)).astype(np.uint8)

    settings = {'what': 'mean', 'scenes': list(scenes), 'states': num_batches * batch_size,
                TRUTH_ENGINE: reference_fingerprint(world.spec)}
    return load_or_make(cache, settings,
                        lambda: {'rgb': np.stack([mean_image(s) for s in scenes])})['rgb']
