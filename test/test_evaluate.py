# SPDX-License-Identifier: Apache-2.0
"""Evaluation end to end: the reference against itself, and worlds that are wrong on purpose."""
import argparse
from dataclasses import replace
import json

from needs import need_engine
import pytest

need_engine('reference')

from lingbot_world_ros.cli import evaluate as verb  # noqa: E402, I100
from lingbot_world_ros.engines.interface import Observation  # noqa: E402
from lingbot_world_ros.engines.registry import make_world  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.evaluation import evaluate as evaluation  # noqa: E402
from lingbot_world_ros.evaluation.evaluate import (evaluate, EvaluationSpec,  # noqa: E402
                                                   state_errors, targets)
from lingbot_world_ros.evaluation.rollouts import (HeldOutSet, load_or_make,  # noqa: E402
                                                   roll_out_set, Rollout, shuffled)
from lingbot_world_ros.evaluation.tables import markdown, strip, to_json  # noqa: E402
import numpy as np  # noqa: E402

SMALL = EvaluationSpec(engine='reference', num_sequences=3, num_sets=1, horizons=(1, 15),
                       num_trials=2, batch_size=1, num_mean_states=2)


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp('truth')


@pytest.fixture(scope='module')
def perfect(cache):
    """Evaluate the reference against itself."""
    return evaluate(SMALL, cache)


class FrozenWorld:
    """Shows its first observation for ever, and gets less sure of it."""

    def __init__(self, batch_size=1):
        self.world = make_world('reference', batch_size=batch_size)
        self.spec = self.world.spec

    def reset(self, scene, seed):
        self.first, self.steps = self.world.reset(scene, seed), 0
        return self.step(None)

    def step(self, actions, render=True):
        self.steps += 1
        return replace(self.first, uncertainty=np.full((1, 1), 0.01 * self.steps, np.float32),
                       calibrated=np.full((1, 1), self.steps < 10))

    def snapshot(self):
        return None

    def restore(self, snapshot):
        pass


def mean(table, horizon):
    return table[str(horizon)]['mean']


def test_reference_against_itself_is_perfect(perfect):
    results, _ = perfect
    imagined = results['methods']['imagined']
    for horizon in SMALL.horizons:
        assert mean(imagined['psnr_db'], horizon) == 60.0
        assert mean(imagined['ssim'], horizon) == pytest.approx(1.0)
        assert mean(imagined['sharpness'], horizon) == 1.0
        for metric in ('position_m', 'yaw_deg', 'joint_rad', 'depth_rms_m'):
            assert mean(imagined[metric], horizon) == 0.0
    assert results['deterministic']['identical']


def test_shuffled_commands_and_baselines_are_worse_than_the_truth(perfect):
    results, _ = perfect
    assert mean(results['shuffle_cost_db']['base'], 15) > 10
    assert mean(results['shuffle_cost_db']['arm'], 15) > 10
    for name in ('copy last', 'mean image'):
        assert mean(results['margins_db'][name], 15) > 10
    copied = results['methods']['copy last']['psnr_db']
    assert mean(copied, 1) > mean(copied, 15)


def test_reference_obeys_every_command(perfect):
    results, _ = perfect
    assert len(results['command_fidelity']) == 14 and results['command_fidelity_worst'] == 1.0
    for row in results['command_fidelity'].values():
        assert row['trials'] == 2 and row['state_right'] == 1.0


@pytest.mark.slow
def test_frozen_world_is_copy_last_and_obeys_nobody(cache, monkeypatch):
    monkeypatch.setattr(evaluation, 'make_world', lambda engine, batch_size=1, **options: (
        make_world(engine, batch_size, **options) if options else FrozenWorld(batch_size)))
    results, _ = evaluate(SMALL, cache)
    methods = results['methods']
    assert methods['imagined']['psnr_db'] == methods['copy last']['psnr_db']
    assert mean(results['shuffle_cost_db']['base'], 15) == 0.0
    assert mean(methods['imagined']['joint_rad'], 15) > 0.05
    rows = list(results['command_fidelity'].values())
    for row, opposite in zip(rows[::2], rows[1::2]):  # standing still cannot be right both ways
        assert min(row['state_right'], opposite['state_right']) < 1.0
    assert results['uncertainty']['spearman']['mean'] > 0.5
    assert mean(results['uncertainty']['mean_predicted'], 1) == pytest.approx(0.02)
    assert [mean(results['calibrated_share'], h) for h in SMALL.horizons] == [1.0, 0.0]
    assert '## Uncertainty' in markdown(results)
    missed = {t['name'] for t in results['targets'] if not t['met']}
    assert 'base shuffle costs at 15' in missed and 'command fidelity, worst' in missed


def test_truth_comes_from_the_cache_the_second_time(tmp_path):
    made = []

    def make():
        made.append(1)
        return {'rgb': np.arange(3)}

    for what in ('a', 'a', 'b'):
        arrays = load_or_make(tmp_path, {'what': 'truth', 'of': what}, make)
        assert arrays['rgb'].tolist() == [0, 1, 2]
    assert len(made) == 2


def test_short_batches_do_not_change_a_rollout():
    held_out = HeldOutSet(0, ('office',), 3, 4)
    found = []
    for batch_size in (2, 3):
        world = make_world('reference', batch_size=batch_size)
        found.append(roll_out_set(world, batch_size, held_out, held_out.commands(world.spec),
                                  (0, 4)))
    assert found[0].rgb.shape[:2] == (3, 2) and found[0].base_pose.shape == (3, 5, 3)
    assert np.array_equal(found[0].rgb, found[1].rgb)
    assert np.array_equal(found[0].joint_position, found[1].joint_position)


def test_held_out_sets_are_disjoint_and_above_the_training_seeds():
    sets = [HeldOutSet(i, ('a', 'b'), 5, 10) for i in range(3)]
    seeds = np.concatenate([s.start_seeds for s in sets])
    assert len(np.unique(seeds)) == 30 and seeds.min() >= 9_000_000
    spec = make_world('reference').spec
    assert not np.array_equal(sets[0].commands(spec), sets[1].commands(spec))


def test_shuffle_moves_only_the_asked_columns_and_everybody():
    commands = np.arange(5 * 2 * 7, dtype=np.float32).reshape(5, 2, 7)
    out = shuffled(commands, slice(0, 2), seed=3)
    assert np.array_equal(out[..., 2:], commands[..., 2:])
    assert (out[..., :2] != commands[..., :2]).all()
    assert np.array_equal(np.sort(out[..., :2], 0), commands[..., :2])
    with pytest.raises(SpecError, match='at least 2'):
        shuffled(commands[:1], slice(0, 2), seed=0)


def test_state_errors_by_hand():
    rgb, zeros = np.zeros((1, 1, 2, 2, 3), np.uint8), np.zeros((1, 2, 5))
    true = Rollout(rgb, base_pose=np.zeros((1, 2, 3)), joint_position=zeros)
    pred = replace(true, base_pose=np.array([[[0, 0, 0], [0.3, 0.4, 2 * np.pi + 0.1]]]),
                   joint_position=zeros + [0.1, -0.1, 0.3, 0.3, 0.01])
    errors = state_errors(pred, true, [1])
    assert errors['position_m'][0, 0] == pytest.approx(0.5)
    assert errors['yaw_deg'][0, 0] == pytest.approx(np.rad2deg(0.1))
    assert errors['joint_rad'][0, 0] == pytest.approx(0.2)
    assert errors['gripper_m'][0, 0] == pytest.approx(0.01)


def test_targets_say_which_bars_are_missed():
    table = {str(h): {'mean': value} for h, value in ((1, 25.0), (15, 20.9))}
    rows = {r['name']: r['met'] for r in targets({'methods': {'imagined': {'psnr_db': table}}})}
    assert rows == {'PSNR at 1 frames': True, 'PSNR at 15 frames': False}


def test_report_holds_every_section_and_the_strip_every_scene(perfect):
    results, rollouts = perfect
    text = markdown(results)
    for section in ('Targets', 'PSNR, whole image', 'Sharpness', 'State and depth errors',
                    'Command fidelity'):
        assert f'## {section}' in text
    image = strip(rollouts[0], results['scenes'], (0, *SMALL.horizons))
    height, width = rollouts[0]['truth'].rgb.shape[2:4]
    assert image.dtype == np.uint8 and image.shape[1] % (3 * width) == 0
    assert image.shape[0] >= 6 * height


def test_json_has_null_for_what_is_not_a_number():
    assert json.loads(to_json({'a': [float('nan'), np.float32(1), np.int64(2), True]})) == {
        'a': [None, 1.0, 2, True]}


def test_verb_writes_files_and_prints_json(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    status = verb.run(parser.parse_args(
        ['--engine', 'reference', '--quick', '--sequences', '3', '--horizons', '1', '5',
         '--trials', '0', '--batch-size', '1', '--out', str(tmp_path), '--json']))
    printed = json.loads(capsys.readouterr().out)
    assert status == 0 and printed['settings']['num_sets'] == 1
    assert json.loads((tmp_path / 'evaluation.json').read_text()) == printed
    assert (tmp_path / 'evaluation.md').stat().st_size > 500
    assert (tmp_path / 'strip.png').stat().st_size > 10_000


@pytest.mark.parametrize('wrong, text', [
    ({'num_sequences': 0}, 'num_sequences=0'), ({'horizons': (5, 1)}, 'ascending'),
    ({'num_trials': -1}, 'num_trials=-1')])
def test_wrong_sizes_are_refused(wrong, text):
    with pytest.raises(SpecError, match=text):
        EvaluationSpec(**wrong)


def test_unknown_engine_and_missing_baseline_are_named(cache):
    with pytest.raises(SpecError, match="Did you mean 'room'"):
        evaluate(replace(SMALL, engine='rooom'), cache)
    pytest.importorskip('torch')
    with pytest.raises(SpecError, match='nowhere.safetensors'):
        evaluate(replace(SMALL, baseline='nowhere.safetensors'), cache)


@pytest.mark.slow
def test_determinism_check_catches_a_world_that_rolls_dice():
    rng = np.random.default_rng(0)

    class Dice(FrozenWorld):
        def step(self, actions, render=True):
            return Observation(**{**vars(self.first),
                                  'contact': rng.random((1, 1)).astype(np.float32)})

    assert evaluation.determinism(FrozenWorld(), FrozenWorld(), 1, 2)['identical']
    assert not evaluation.determinism(Dice(), Dice(), 1, 2)['identical']
