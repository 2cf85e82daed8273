# SPDX-License-Identifier: Apache-2.0
"""
Noise levels and solvers: a few steps for causal checkpoints, UniPC for the bidirectional ones.

Noisy latents are x = (1 - sigma) clean + sigma noise; the network predicts noise minus clean.
Everything that depends on the noise level alone is a number of the host, so no step waits for the
device.

Source: LingBot-World v1; UniPC (order 2, the variant B2, predicting the clean latents).
"""
from dataclasses import dataclass
import math
from typing import NamedTuple, Optional, Sequence, Tuple

from lingbot_world_ros.errors import SpecError
import numpy as np
from torch import Tensor

TRAIN_STEPS = 1000
LARGEST_SIGMA = 1 - 1 / TRAIN_STEPS
MAX_STEPS = 1000
MAX_GUIDANCE = 100

# Of the public causal checkpoints: positions in the list of 1000 steps.
FAST_V1_INDICES, FAST_V1_SHIFT = (0, 179, 358, 679), 10.0
FAST_V2_INDICES, FAST_V2_SMALL_SHIFT = (0, 250, 500, 750), 5.0  # of the 1.3B; 14B: 10

# Qualities to stay away from, with the words the bidirectional models were published with. The
# end of the list also names people, pedestrians, tourists, bodies, skin, limbs, faces, cars and
# wires: with it such things are suppressed, so give another one where they are wanted.
NEGATIVE_PROMPT = (
    '画面突变，色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，'
    'JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，'
    '静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走，镜头晃动，画面闪烁，模糊，噪点，水印，签名，文字，变形，扭曲，'
    '液化，不合逻辑的结构，卡顿，PPT幻灯片感，过暗，欠曝，低对比度，霓虹灯光感，过度锐化，3D渲染感，人物，行人，游客，身体，'
    '皮肤，肢体，面部特征，汽车，电线')


@dataclass(frozen=True)
class BaseRecipe:
    """
    How the bidirectional models are sampled.

    Steps at or above ``boundary`` (fraction of the largest timestep) are the high-noise expert's.
    ``guidance_*`` weigh the prompt against the negative one; 1 leaves the latter out.
    """

    num_steps: int = 70
    shift: float = 10.0
    boundary: float = 0.947
    guidance_high: float = 5.0
    guidance_low: float = 5.0
    negative_prompt: str = NEGATIVE_PROMPT

    def __post_init__(self) -> None:
        """Refuse what no clip can be made with."""
        _check_steps(self.num_steps, self.shift)
        if not 0 <= self.boundary <= 1:
            raise SpecError(f'boundary={self.boundary} is not between 0 and 1; use 0.947.')
        for name in ('guidance_high', 'guidance_low'):
            if not 0 <= getattr(self, name) <= MAX_GUIDANCE:
                raise SpecError(f'{name}={getattr(self, name)} is not between 0 and '
                                f'{MAX_GUIDANCE}; the public models were made for 5.')

    def is_high_noise(self, timestep: float) -> bool:
        """Tell whose step this is."""
        return timestep >= self.boundary * TRAIN_STEPS

    def guidance(self, timestep: float) -> float:
        """Return how strongly the prompt is weighed at this step."""
        return self.guidance_high if self.is_high_noise(timestep) else self.guidance_low


def shifted_sigmas(num_steps: int, shift: float) -> np.ndarray:
    """
    List noise levels from the noisiest down, without the final zero.

    :param num_steps: n
    :param shift: more than 1 spends more of the steps on strong noise
    :return: (n,) float64
    """
    sigmas = np.linspace(LARGEST_SIGMA, 0.0, num_steps + 1)[:-1]
    return shift * sigmas / (1 + (shift - 1) * sigmas)


@dataclass(frozen=True)
class FewStepSchedule:
    """
    The noise levels of a distilled model: denoise to clean latents, add new noise, and again.

    ``timesteps`` are fed to the network. ``sigmas`` take its output to clean latents and
    ``renoise_sigmas`` lead to the same step from the one before; the two differ in the fourth
    digit, as in the models' training.
    """

    timesteps: Tuple[int, ...]
    sigmas: Tuple[float, ...]
    renoise_sigmas: Tuple[float, ...]

    @classmethod
    def from_indices(cls, indices: Sequence[int], shift: float) -> 'FewStepSchedule':
        """
        Pick steps out of the list of 1000.

        :param indices: rising positions in it, 0 is the noisiest
        :param shift: of the noise levels
        :return: their timesteps and noise levels
        :raises SpecError: for positions that are none
        """
        _check_indices(indices)
        _check_steps(len(indices), shift)
        table = shifted_sigmas(TRAIN_STEPS, shift)
        rounded = (TRAIN_STEPS * table).astype(int)
        timesteps = tuple(int(rounded[i]) for i in indices)
        # Timesteps repeat in the list. Clean latents are taken by the first of equal ones, noise
        # is added by the second: so the public models do it and expect it.
        equal = [np.flatnonzero(rounded == t) for t in timesteps]
        return cls(timesteps, tuple(_float32(table[found[0]]) for found in equal),
                   tuple(_float32(table[found[:2][-1]]) for found in equal))

    def __len__(self) -> int:
        return len(self.timesteps)

    def predict_clean(self, latents: Tensor, velocity: Tensor, i: int) -> Tensor:
        """
        Take the network's output to clean latents.

        :param latents: noisy ones that it saw
        :param velocity: what it predicted
        :param i: which step
        :return: float32 of the same shape, computed in float64
        """
        return (latents.double() - self.sigmas[i] * velocity.double()).float()

    def renoise(self, clean: Tensor, noise: Tensor, i: int) -> Tensor:
        """
        Add noise to clean latents for the next step.

        :param clean: from ``predict_clean`` of step ``i - 1``
        :param noise: new, of unit variance
        :param i: which step comes next, at least 1
        :return: of the same shape and dtype
        """
        sigma = self.renoise_sigmas[i]
        return (1 - sigma) * clean + sigma * noise


class History(NamedTuple):
    """What UniPC remembers of the steps before: clean predictions and where the last began."""

    clean: Tensor
    clean_before: Optional[Tensor]
    latents: Tensor
    order: int


class FlowUniPC:
    """
    UniPC for flow matching: a predictor of order 2 and a corrector that costs no network pass.

    ``timesteps`` are fed to the network, ``sigmas`` has one more, the final zero.
    """

    def __init__(self, num_steps: int, shift: float) -> None:
        """
        Make the tables.

        :param num_steps: network evaluations, or twice as many with guidance
        :param shift: of the noise levels
        """
        _check_steps(num_steps, shift)
        table = shifted_sigmas(num_steps, shift)
        self.timesteps = tuple(int(t) for t in TRAIN_STEPS * table)
        self.sigmas = (*map(_float32, table), 0.0)

    def __len__(self) -> int:
        return len(self.timesteps)

    def step(self, latents: Tensor, velocity: Tensor, i: int,
             history: Optional[History] = None) -> Tuple[Tensor, History]:
        """
        Go on to the next noise level.

        :param latents: float32, at noise level ``i``
        :param velocity: predicted for them, of the same shape
        :param i: which step, in order from 0
        :param history: returned by step ``i - 1``
        :return: latents at noise level ``i + 1`` (clean after the last) and the history with this
            step
        """
        clean = latents - self.sigmas[i] * velocity
        if history is not None:
            latents = self._correct(clean, i, history)
        order = min(2 if history is not None else 1, len(self) - i)
        before = None if history is None else history.clean
        new = History(clean, before, latents, order)
        return self._predict(i, new), new

    def _log_snr(self, i: int) -> float:
        """Half the logarithm of signal to noise."""
        return math.log(1 - self.sigmas[i]) - math.log(self.sigmas[i])

    def _first_order(self, i: int, history: History) -> Tuple[Tensor, float]:
        """Return the latents at level ``i + 1`` if the prediction did not change, and h."""
        step = self._log_snr(i + 1) - self._log_snr(i)
        growth = math.expm1(-step)
        alpha = 1 - self.sigmas[i + 1]
        ratio = self.sigmas[i + 1] / self.sigmas[i]
        return ratio * history.latents - alpha * growth * history.clean, step

    def _slope(self, i: int, step: float, history: History) -> Tuple[Tensor, float]:
        """Return the change of the prediction per unit of ``step``, and where it was taken."""
        assert history.clean_before is not None, 'there are two predictions'
        place = (self._log_snr(i - 1) - self._log_snr(i)) / step
        return (history.clean_before - history.clean) / place, place

    def _predict(self, i: int, history: History) -> Tensor:
        if self.sigmas[i + 1] == 0.0:
            return history.clean
        latents, step = self._first_order(i, history)
        if history.order == 1:
            return latents
        slope, _ = self._slope(i, step, history)
        weight = (1 - self.sigmas[i + 1]) * math.expm1(-step)
        return latents - 0.5 * weight * slope

    def _correct(self, clean: Tensor, i: int, history: History) -> Tensor:
        """Take step ``i - 1`` again, now that the prediction at its end is known."""
        latents, step = self._first_order(i - 1, history)
        weight = (1 - self.sigmas[i]) * math.expm1(-step)
        change = clean - history.clean
        if history.order == 1:
            return latents - 0.5 * weight * change
        slope, place = self._slope(i - 1, step, history)
        first = math.expm1(-step) / -step - 1
        second = first / -step - 0.5
        b1, b2 = first / math.expm1(-step), 2 * second / math.expm1(-step)
        by_change = (b2 - place * b1) / (1 - place)  # of the system (1, 1 | b1), (place, 1 | b2)
        return latents - weight * ((b1 - by_change) * slope + by_change * change)


def _float32(value: float) -> float:
    """Round as the public code does, which keeps noise levels in single precision."""
    return float(np.float32(value))


def _check_steps(num_steps: int, shift: float) -> None:
    if not 1 <= num_steps <= MAX_STEPS:
        raise SpecError(f'{num_steps} denoising steps: use 1 to {MAX_STEPS}.')
    if not 0 < shift < math.inf:
        raise SpecError(f'shift={shift} must be more than 0; the public models have 5 or 10.')


def _check_indices(indices: Sequence[int]) -> None:
    rising = all(a < b for a, b in zip(indices, indices[1:]))
    if not indices or not rising or min(indices) < 0 or max(indices) >= TRAIN_STEPS:
        given = ', '.join(map(str, indices)) or '(none)'
        raise SpecError(f'step indices {given} must rise within 0 to {TRAIN_STEPS - 1}; for '
                        'example 0,179,358,679.')
