# SPDX-License-Identifier: Apache-2.0
"""Noise levels against published tables, UniPC against diffusers."""
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from lingbot_world_ros.errors import SpecError  # noqa: E402, I100
from lingbot_world_ros.models.wan.schedule import (BaseRecipe, FewStepSchedule,  # noqa: E402
                                                   FlowUniPC)

TABLE = (
    ((0, 179, 358, 679), 10.0, (999, 978, 947, 825), (.99990, .97897, .94791, .82585),
     (.97883, .94769, .82519)),
    ((0, 250, 500, 750), 10.0, (999, 967, 908, 768), (.99990, .96795, .90893, .76899),
     (.96778, .90859, .76804)),
    ((0, 250, 500, 750), 5.0, (999, 937, 833, 624), (.99980, .93789, .83361, .62469),
     (.93758, .83305, .62469)))
STEPS_70 = (999, 998, 996, 995, 993, 992, 990, 988, 987, 985, 983, 981, 979, 977, 975, 973, 971,
            968, 966, 963, 961, 958, 956, 953, 950, 947, 944)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize('indices, shift, timesteps, sigmas, renoise', TABLE)
def test_few_steps_are_those_of_the_public_checkpoints(indices, shift, timesteps, sigmas, renoise):
    schedule = FewStepSchedule.from_indices(indices, shift)
    assert schedule.timesteps == timesteps
    assert schedule.sigmas == pytest.approx(sigmas, abs=6e-6)
    assert schedule.renoise_sigmas[1:] == pytest.approx(renoise, abs=6e-6)


def test_clean_latents_come_back_out_of_noisy_ones():
    schedule = FewStepSchedule.from_indices((0, 500), 10.0)
    clean, noise = torch.randn(2, 1, 16, 3, 2, 2)
    noisy = (1 - schedule.sigmas[1]) * clean + schedule.sigmas[1] * noise
    found = schedule.predict_clean(noisy, noise - clean, 1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, clean, atol=1e-6, rtol=0)


def test_noise_added_for_a_step_has_its_level():
    schedule = FewStepSchedule.from_indices((0, 179), 10.0)
    zero, one = torch.zeros(1, 4), torch.ones(1, 4)
    assert schedule.renoise(zero, one, 1) == pytest.approx(torch.full((1, 4), .97883), abs=5e-6)
    assert schedule.renoise(one, zero, 1) == pytest.approx(torch.full((1, 4), .02117), abs=5e-6)


@pytest.mark.parametrize('indices, shift', (((), 10.0), ((0, 1000), 10.0), ((5, 5), 10.0),
                                            ((-1, 3), 10.0), ((0, 1), 0.0), ((0,), float('nan'))))
def test_schedules_that_are_none_are_refused(indices, shift):
    with pytest.raises(SpecError):
        FewStepSchedule.from_indices(indices, shift)


def test_timesteps_of_70_steps():
    timesteps = FlowUniPC(70, 10.0).timesteps
    assert timesteps[:27] == STEPS_70
    assert timesteps[-3:] == (309, 227, 126)


@pytest.mark.parametrize('num_steps, high, low', ((70, 26, 44), (40, 15, 25), (20, 8, 12)))
def test_experts_share_the_steps(num_steps, high, low):
    recipe = BaseRecipe(num_steps=num_steps)
    timesteps = FlowUniPC(num_steps, recipe.shift).timesteps
    is_high = [recipe.is_high_noise(t) for t in timesteps]
    assert is_high == [True] * high + [False] * low


def test_guidance_is_the_experts_own():
    recipe = BaseRecipe(guidance_high=3.0, guidance_low=4.0)
    assert (recipe.guidance(947), recipe.guidance(946)) == (3.0, 4.0)


@pytest.mark.parametrize('wrong', ({'num_steps': 0}, {'num_steps': 1001}, {'boundary': 947.0},
                                   {'shift': -1.0}, {'guidance_low': float('nan')}))
def test_recipes_that_cannot_be_followed_are_refused(wrong):
    with pytest.raises(SpecError):
        BaseRecipe(**wrong)


def velocity_of(latents, timestep):
    """Return a smooth stand-in for a network's prediction."""
    return torch.tanh(latents * 0.7 + timestep / 500) - 0.3 * latents


@pytest.mark.parametrize('num_steps', (1, 2, 3, 20))
def test_solver_is_the_one_of_diffusers(num_steps):
    diffusers = pytest.importorskip('diffusers')
    theirs = diffusers.UniPCMultistepScheduler(
        prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=10.0, solver_order=2)
    theirs.set_timesteps(sigmas=np.linspace(0.999, 0.0, num_steps + 1)[:-1])
    ours = FlowUniPC(num_steps, 10.0)
    assert ours.timesteps == tuple(theirs.timesteps.tolist())
    x = y = torch.randn(1, 16, 2, 3, 4)
    history = None
    for i, t in enumerate(theirs.timesteps):
        x = theirs.step(velocity_of(x, float(t)), t, x).prev_sample
        y, history = ours.step(y, velocity_of(y, ours.timesteps[i]), i, history)
        torch.testing.assert_close(y, x, atol=2e-5, rtol=2e-5)


def test_solver_reaches_the_clean_latents_of_a_straight_flow():
    clean, noise = torch.randn(2, 1, 16, 1, 2, 2)
    solver, history = FlowUniPC(5, 10.0), None
    x = (1 - solver.sigmas[0]) * clean + solver.sigmas[0] * noise
    for i in range(len(solver)):
        x, history = solver.step(x, noise - clean, i, history)
    torch.testing.assert_close(x, clean, atol=1e-5, rtol=0)


def test_solver_may_be_used_for_two_clips_at_once():
    solver = FlowUniPC(3, 10.0)
    starts, results = torch.randn(2, 1, 4), []
    for start in starts:
        x, history = start, None
        for i, t in enumerate(solver.timesteps):
            x, history = solver.step(x, velocity_of(x, t), i, history)
        results.append(x)
    pair, histories = list(starts), [None, None]
    for i, t in enumerate(solver.timesteps):
        for k in range(2):
            pair[k], histories[k] = solver.step(pair[k], velocity_of(pair[k], t), i, histories[k])
    assert torch.equal(pair[0], results[0]) and torch.equal(pair[1], results[1])
