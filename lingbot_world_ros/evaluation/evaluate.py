# SPDX-License-Identifier: Apache-2.0
"""
Score a world model against the reference world: open-loop rollouts, baselines, command tests.

``evaluate`` returns plain data for JSON; ``report`` turns it into a table and a strip. Axes as
in ``rollouts``: n sequences (of all sets), f horizons.
"""
from dataclasses import asdict, dataclass
from functools import lru_cache
import hashlib
from importlib import metadata
from pathlib import Path
import platform
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, TYPE_CHECKING, Union

import cv2
from lingbot_world_ros.engines.interface import WorldModel
from lingbot_world_ros.engines.registry import (comparable_engines, DEFAULT_ENGINE, make_world,
                                                TRUTH_ENGINE)
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.evaluation import metrics
from lingbot_world_ros.evaluation.command_fidelity import command_fidelity
from lingbot_world_ros.evaluation.rollouts import (FIRST_HELD_OUT_SEED, HeldOutSet, mean_images,
                                                   roll_out_set, Rollout, shuffled, true_rollout)
from lingbot_world_ros.evaluation.weights import weights_sha256
import numpy as np

if TYPE_CHECKING:
    from lingbot_world_ros.evaluation.baseline_world import BaselineWorld

Found = Dict[str, Rollout]  # of one set, by method
Score = Dict[str, np.ndarray]  # by metric, (n, f)
Tell = Callable[[str, int], object]  # what is running, frames done
HORIZONS = (1, 5, 15, 30, 60, 150, 900)
SHUFFLE_LAST_FRAME = 150  # the shuffle tests end here
BASE_COLUMNS, ARM_COLUMNS = slice(0, 2), slice(2, None)
_PACKAGES = ('lingbot_world_ros', 'numpy', 'opencv-python-headless', 'mujoco', 'openvino',
             'onnxruntime', 'torch')
ARM_MARGIN_PX = 3  # the arm region is the true arm, grown by this much

# What a world has to reach: (name, where in the results, bar, True if more is better).
TARGETS = tuple(
    (f'PSNR at {h} frames', ('methods', 'imagined', 'psnr_db', str(h), 'mean'), bar, True)
    for h, bar in ((1, 22.0), (15, 21.0), (60, 20.0), (150, 19.5))
) + tuple(
    (f'PSNR above mean image at {h}', ('margins_db', 'mean image', str(h), 'mean'), 2.5, True)
    for h in HORIZONS
) + tuple(
    (f'PSNR above copy-last at {h}', ('margins_db', 'copy last', str(h), 'mean'), 0.0, True)
    for h in HORIZONS if h >= 5
) + (
    ('sharpness at 15', ('methods', 'imagined', 'sharpness', '15', 'mean'), 0.6, True),
    ('sharpness at 150', ('methods', 'imagined', 'sharpness', '150', 'mean'), 0.55, True),
    ('base shuffle costs at 15', ('shuffle_cost_db', 'base', '15', 'mean'), 3.0, True),
    ('base shuffle costs at 60', ('shuffle_cost_db', 'base', '60', 'mean'), 4.0, True),
    ('arm shuffle costs in arm region at 60', ('shuffle_cost_db', 'arm', '60', 'mean'), 2.0,
     True),
    ('joint error at 60 frames [rad]', ('methods', 'imagined', 'joint_rad', '60', 'mean'), 0.02,
     False),
    ('command fidelity, worst', ('command_fidelity_worst',), 0.95, True),
    ('same seed gives same bytes', ('deterministic', 'identical'), 1.0, True),
)


@dataclass(frozen=True)
class EvaluationSpec:
    """What to evaluate and how much of it."""

    engine: str = DEFAULT_ENGINE
    num_sequences: int = 64  # per set, rounded up to the same number in every scene
    num_sets: int = 3
    horizons: Tuple[int, ...] = HORIZONS
    batch_size: int = 11
    num_trials: int = 200  # per command
    num_mean_states: int = 200  # per scene, behind the mean image
    baseline: str = ''  # weights of the baseline; left out without

    def __post_init__(self) -> None:
        """Refuse what cannot be evaluated."""
        for name in ('num_sequences', 'num_sets', 'batch_size', 'num_mean_states'):
            if getattr(self, name) < 1:
                raise SpecError(f'{name}={getattr(self, name)} must be at least 1.')
        if list(self.horizons) != sorted(set(self.horizons)) or self.horizons[0] < 1:
            raise SpecError(f'horizons={self.horizons} must be frames from 1 on, ascending.')
        if self.num_trials < 0:
            raise SpecError(f'num_trials={self.num_trials} must not be negative.')

    @property
    def frames(self) -> Tuple[int, ...]:
        """Recorded frames: the reset's, then the horizons."""
        return (0, *self.horizons)


QUICK: Dict[str, Any] = dict(
    num_sequences=6, num_sets=1, horizons=(1, 5, 15, 30), num_trials=4, batch_size=2,
    num_mean_states=4)


def evaluate(spec: EvaluationSpec, cache: Path,
             progress: Optional[Tell] = None) -> Tuple[Dict[str, Any], List[Found]]:
    """
    Run the whole evaluation.

    :param spec: what to evaluate
    :param cache: folder that keeps the truth between runs
    :param progress: None, or called with (what is running, frames done)
    :return: results as JSON-serialisable dict; per-set list of method name -> Rollout, with the
        truth under ``'truth'``, for the strip
    :raises SpecError: unknown engine, missing package or weights, engine with longer steps
    """
    started = time.monotonic()
    if spec.engine not in comparable_engines():
        raise unknown_name('engine', spec.engine, comparable_engines())
    world = make_world(spec.engine, batch_size=spec.batch_size)
    if world.spec.frames_per_step != 1:
        raise SpecError(f'Engine {spec.engine!r} makes {world.spec.frames_per_step} frames per '
                        'step; this evaluation compares frame by frame and takes engines of 1.')
    reference = make_world(TRUTH_ENGINE, batch_size=spec.batch_size, arm_mask=True)
    tell: Tell = progress or (lambda what, frames: None)
    rollouts = [_run_set(spec, i, world, reference, cache, tell) for i in range(spec.num_sets)]
    scores = _score_sets(spec, rollouts, tell)
    results = summarise(spec, rollouts, scores)
    results['scenes'] = list(world.spec.scenes)
    results['by_scene'] = by_scene(spec, scores['imagined'], world.spec.scenes)
    results['deterministic'] = determinism(
        world, make_world(spec.engine, batch_size=spec.batch_size), spec.batch_size)
    if spec.num_trials:
        found = command_fidelity(world, reference, spec.batch_size, spec.num_trials,
                                 lambda n: tell('commands', n))
        rights = [row['right'] for row in found.values()]
        results['command_fidelity'] = found
        results['command_fidelity_worst'] = None if None in rights else min(rights)
    results['targets'] = targets(results)
    results['settings'] = settings(spec)
    results['seconds'] = round(time.monotonic() - started, 1)
    return results, rollouts


def _run_set(spec: EvaluationSpec, index: int, world: WorldModel, reference: WorldModel,
             cache: Path, tell: Tell) -> Found:
    """Return method name -> Rollout of one set."""
    scenes = tuple(world.spec.scenes)
    held_out = HeldOutSet(index, scenes, -(-spec.num_sequences // len(scenes)),
                          spec.horizons[-1])
    commands = held_out.commands(world.spec)

    def run(what: str, engine: Union[WorldModel, 'BaselineWorld'], sent: np.ndarray,
            frames: Sequence[int], first_rgb: Optional[np.ndarray] = None) -> Rollout:
        return roll_out_set(engine, spec.batch_size, held_out, sent, frames, first_rgb,
                            lambda n: tell(f'set {index}: {what}', n))

    truth = true_rollout(reference, spec.batch_size, held_out, spec.frames, cache,
                         lambda n: tell(f'set {index}: truth', n))
    short = tuple(f for f in spec.frames if f <= SHUFFLE_LAST_FRAME)
    found = {'truth': truth, 'imagined': run('imagined', world, commands, spec.frames)}
    for name, columns in (('base', BASE_COLUMNS), ('arm', ARM_COLUMNS)):
        found[f'{name} shuffled'] = run(f'{name} shuffled', world,
                                        shuffled(commands, columns, index), short)
    found['copy last'] = Rollout(np.repeat(truth.rgb[:, :1], len(spec.frames), 1))
    means = mean_images(reference, spec.batch_size, scenes, spec.num_mean_states, cache)
    found['mean image'] = Rollout(np.repeat(means[held_out.scene_of][:, None],
                                            len(spec.frames), 1))
    if spec.baseline:
        found['baseline'] = run('baseline', _baseline(spec.baseline), commands, spec.frames,
                                truth.rgb[:, 0])
    return found


@lru_cache(maxsize=1)
def _baseline(path: str) -> 'BaselineWorld':
    try:
        from lingbot_world_ros.evaluation.baseline_world import BaselineWorld
    except ImportError as error:
        raise SpecError(f'The baseline needs the Python package {error.name!r}: '
                        f'pip install torch safetensors.') from error
    return BaselineWorld(path)


def _score_sets(spec: EvaluationSpec, rollouts: Sequence[Found], tell: Tell) -> Dict[str, Score]:
    """Return method -> metric -> (n, f) over all sets."""
    parts: List[Dict[str, Score]] = []
    for index, found in enumerate(rollouts):
        region = arm_region(_told(found['truth'].arm_mask)[:, 1:])
        parts.append({name: score(found[name], found['truth'], region, spec.horizons)
                      for name in found if name != 'truth'})
        tell(f'set {index}: scores', 0)
    return {method: {metric: np.concatenate([p[method][metric] for p in parts])
                     for metric in parts[0][method]} for method in parts[0]}


def arm_region(arm_mask: np.ndarray) -> np.ndarray:
    """
    Pixels that count as the arm's: the true arm and a small margin.

    :param arm_mask: (..., h, w) bool
    :return: the same shape
    """
    size = 2 * ARM_MARGIN_PX + 1
    kernel = np.ones((size, size), np.uint8)
    flat = arm_mask.reshape(-1, *arm_mask.shape[-2:]).astype(np.uint8)
    return np.stack([cv2.dilate(m, kernel) for m in flat]).astype(bool).reshape(arm_mask.shape)


def score(pred: Rollout, true: Rollout, region: np.ndarray, horizons: Sequence[int]) -> Score:
    """
    Compare a rollout with the truth at the horizons.

    :param pred: what was imagined; frame 0, then the first so many of the horizons
    :param true: the truth; frame 0, then all horizons
    :param region: (n, f, h, w) bool, the arm's pixels in the truth
    :param horizons: frames behind the columns
    :return: metric -> (n, f) float64; only what the rollout offers
    """
    count = pred.rgb.shape[1] - 1
    shown, seen, region = pred.rgb[:, 1:], true.rgb[:, 1:count + 1], region[:, :count]
    found = {'psnr_db': metrics.psnr(shown, seen), 'ssim': metrics.ssim(shown, seen),
             'arm_psnr_db': metrics.psnr(shown, seen, region),
             'arm_ssim': metrics.ssim(shown, seen, region),
             'rms_error': np.sqrt(metrics.mean_squared_error(shown, seen)),
             'gradient': metrics.gradient_magnitude(shown),
             'true_gradient': metrics.gradient_magnitude(seen)}
    if pred.depth_m is not None and true.depth_m is not None:
        found['depth_relative'], found['depth_rms_m'] = metrics.depth_errors(
            pred.depth_m[:, 1:], true.depth_m[:, 1:count + 1])
    if pred.base_pose is not None:
        found.update(state_errors(pred, true, list(horizons[:count])))
    return found


def state_errors(pred: Rollout, true: Rollout, frames: Sequence[int]) -> Score:
    """
    Errors of the predicted state.

    :param pred: what was imagined
    :param true: the truth
    :param frames: columns to compare
    :return: metric -> (n, f): position_m, yaw_deg, joint_rad (mean of the revolute joints),
        gripper_m, object_m (mean of the movable objects)
    """
    pose = _told(pred.base_pose)[:, frames] - _told(true.base_pose)[:, frames]
    joints = np.abs(_told(pred.joint_position)[:, frames]
                    - _told(true.joint_position)[:, frames])
    found = {'position_m': np.hypot(pose[..., 0], pose[..., 1]),
             'yaw_deg': np.rad2deg(np.abs(metrics.wrap_angle(pose[..., 2]))),
             'joint_rad': joints[..., :-1].mean(-1), 'gripper_m': joints[..., -1]}
    if pred.object_pose is not None and pred.object_pose.shape[2]:
        move = pred.object_pose[:, frames] - _told(true.object_pose)[:, frames]
        found['object_m'] = np.hypot(move[..., 0], move[..., 1]).mean(-1)
    return found


def _told(values: Optional[np.ndarray]) -> np.ndarray:
    """Return what every world tells but the baselines."""
    assert values is not None
    return values


def summarise(spec: EvaluationSpec, rollouts: Sequence[Found],
              scores: Dict[str, Score]) -> Dict[str, Any]:
    """
    Turn scores into means with confidence intervals.

    :param spec: what was evaluated
    :param rollouts: per set, method -> Rollout
    :param scores: method -> metric -> (n, f)
    :return: JSON-serialisable
    """
    imagined = scores['imagined']
    touched = np.concatenate([_touched(r['truth'], spec.horizons) for r in rollouts])
    summary: Dict[str, Any] = {
        'num_sequences': len(touched),
        'methods': {method: _summarise_method(found, spec) for method, found in scores.items()},
        'margins_db': {name: _table(imagined['psnr_db'] - scores[name]['psnr_db'], spec)
                       for name in ('copy last', 'mean image', 'baseline') if name in scores},
        'shuffle_cost_db': {
            'base': _cost(imagined, scores['base shuffled'], 'psnr_db', spec),
            'arm': _cost(imagined, scores['arm shuffled'], 'arm_psnr_db', spec)},
        'contact_share': _table(touched.astype(float), spec),
        'by_contact': {name: {metric: _table(np.where(rows, imagined[metric], np.nan), spec)
                              for metric in ('position_m', 'yaw_deg', 'joint_rad', 'psnr_db')
                              if metric in imagined}
                       for name, rows in (('contact', touched), ('contact-free', ~touched))},
    }
    summary['contact_prediction_auc'] = metrics.area_under_roc(
        np.concatenate([_told(r['imagined'].contact)[:, 1:].ravel() for r in rollouts]),
        np.concatenate([_told(r['truth'].contact)[:, 1:].ravel() > 0.5 for r in rollouts]))
    if rollouts[0]['imagined'].uncertainty is not None:
        predicted = np.concatenate([_told(r['imagined'].uncertainty)[:, 1:] for r in rollouts])
        summary['uncertainty'] = _uncertainty(predicted, imagined['rms_error'], spec)
    if rollouts[0]['imagined'].calibrated is not None:
        calibrated = np.concatenate([_told(r['imagined'].calibrated)[:, 1:] for r in rollouts])
        summary['calibrated_share'] = _table(calibrated.astype(float), spec)
    return summary


def by_scene(spec: EvaluationSpec, imagined: Score, scenes: Sequence[str]) -> Dict[str, Any]:
    """
    Summarise the imagination scene by scene.

    :param spec: what was evaluated
    :param imagined: metric -> (n, f); in each set the sequences are grouped by scene
    :param scenes: their names, in this order
    :return: scene -> metric -> table, JSON-serialisable
    """
    per_scene = len(imagined['psnr_db']) // (spec.num_sets * len(scenes))
    scene_of = np.tile(np.repeat(np.arange(len(scenes)), per_scene), spec.num_sets)[:, None]
    return {scene: {metric: _table(np.where(scene_of == number, imagined[metric], np.nan), spec)
                    for metric in ('psnr_db', 'ssim', 'position_m', 'yaw_deg', 'joint_rad')
                    if metric in imagined}
            for number, scene in enumerate(scenes)}


def _touched(truth: Rollout, horizons: Sequence[int]) -> np.ndarray:
    """Whether the base touched something up to each horizon, (n, f) bool."""
    return np.stack([(_told(truth.contact)[:, :h + 1] > 0.5).any(1) for h in horizons], 1)


def _summarise_method(found: Score, spec: EvaluationSpec) -> Dict[str, Any]:
    plain = {metric: _table(values, spec) for metric, values in found.items()
             if metric not in ('gradient', 'true_gradient')}
    plain['sharpness'] = _table(found['gradient'], spec, found['true_gradient'])
    return plain


def _cost(straight: Score, crossed: Score, metric: str, spec: EvaluationSpec) -> Dict[str, Any]:
    count = crossed[metric].shape[1]
    return _table(straight[metric][:, :count] - crossed[metric], spec)


def _table(values: np.ndarray, spec: EvaluationSpec,
           weights: Optional[np.ndarray] = None) -> Dict[str, Any]:
    """Horizon -> mean, 95 % interval over all sequences, and the mean of every set."""
    table = {}
    for column in range(values.shape[1]):
        weight = None if weights is None else weights[:, column]
        mean, low, high = metrics.bootstrap_mean(values[:, column], weights=weight)
        parts = np.split(values[:, column], spec.num_sets)
        shares = [None] * spec.num_sets if weight is None else np.split(weight, spec.num_sets)
        table[str(spec.horizons[column])] = {
            'mean': mean, 'low': low, 'high': high,
            'count': int(np.isfinite(values[:, column]).sum()),
            'sets': [metrics.bootstrap_mean(p, weights=w, num_draws=1)[0]
                     for p, w in zip(parts, shares)]}
    return table


def _uncertainty(predicted: np.ndarray, error: np.ndarray,
                 spec: EvaluationSpec) -> Dict[str, Any]:
    """Rank correlation with the true RMS error, over everything and at each horizon."""
    value, low, high = metrics.bootstrap_rows(metrics.spearman, predicted, error)
    return {'spearman': {'mean': value, 'low': low, 'high': high},
            'spearman_at': {str(h): metrics.spearman(predicted[:, i], error[:, i])
                            for i, h in enumerate(spec.horizons)},
            'mean_predicted': _table(predicted, spec), 'mean_true': _table(error, spec)}


def determinism(world: WorldModel, fresh: WorldModel, batch_size: int,
                num_frames: int = 30) -> Dict[str, Any]:
    """
    Roll two instances of an engine out; one is asked for an image at every frame.

    :param world: one that was used before
    :param fresh: another one of the same engine, new
    :param batch_size: worlds side by side in both
    :param num_frames: length
    :return: whether images and states have the same bytes, and their SHA-256
    """
    held_out = HeldOutSet(0, tuple(world.spec.scenes), 1, num_frames)
    commands = held_out.commands(world.spec)
    digests = []
    for engine, frames in ((world, (0, num_frames)), (fresh, tuple(range(num_frames + 1)))):
        found = roll_out_set(engine, batch_size, held_out, commands, frames)
        digest = hashlib.sha256(found.rgb[:, [0, -1]].tobytes())
        for state in (found.base_pose, found.joint_position, found.contact):
            digest.update(_told(state).tobytes())
        digests.append(digest.hexdigest())
    return {'identical': digests[0] == digests[1], 'num_frames': num_frames,
            'sha256': digests[0]}


def targets(results: Dict[str, Any]) -> List[Dict[str, Any]]:
    """
    Compare results with ``TARGETS``.

    :param results: what ``evaluate`` returns
    :return: list of name, value, bar, met; targets whose value was not measured are left out
    """
    rows = []
    for name, path, bar, more_is_better in TARGETS:
        value: Any = results
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and np.isfinite(value):
            met = value >= bar if more_is_better else value <= bar
            rows.append({'name': name, 'value': float(value), 'bar': bar, 'met': bool(met),
                         'at_least': more_is_better})
    return rows


def settings(spec: EvaluationSpec) -> Dict[str, Any]:
    """
    Name everything that a reader needs to repeat the run.

    :param spec: what was evaluated
    :return: JSON-serialisable: the spec, seeds, versions, digests of the weights, machine
    """
    return {**asdict(spec), 'baseline': Path(spec.baseline).name,
            'first_held_out_seed': FIRST_HELD_OUT_SEED,
            'weights_sha256': weights_sha256(
                spec.engine, [Path(spec.baseline)] if spec.baseline else []),
            'versions': {'python': platform.python_version(),
                         **{name: _version(name) for name in _PACKAGES}},
            'machine': platform.machine(), 'time_utc': time.strftime('%Y-%m-%dT%H:%M:%SZ',
                                                                     time.gmtime())}


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
