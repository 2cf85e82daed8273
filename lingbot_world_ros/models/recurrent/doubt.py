# SPDX-License-Identifier: Apache-2.0
"""
What a recurrent world tells of its own reliability. Needs torch.

Small heads on the state say what error a picture has; where they were never trained they disagree,
because each stands on a random network of its own that training had to cancel. Beside them: how
far a state, and how far the newest commands, lie from those of the training.
Axes: b batch, f features, k heads.
Source: ensembles with randomised prior functions (arXiv 1806.03335); no code taken from it.
"""
from typing import Tuple

from lingbot_world_ros.models.recurrent.network import RecurrentNetwork, State
import torch
from torch import nn, Tensor

HEADS, WIDTH = 5, 48
PRIOR = 1.0  # weight of the random networks
SHRINK = 0.1  # share of a unit matrix in a covariance, so that it can be inverted
SIGNS = 'disagreement', 'state', 'commands'  # of doubt, beside the expected error


class Doubt(nn.Module):
    """State -> expected log RMS error and ``SIGNS``."""

    def __init__(self, num_features: int, num_commands: int):
        """
        Build the heads.

        :param num_features: as ``features`` gives them
        :param num_commands: numbers of all remembered commands
        """
        super().__init__()
        self.heads = nn.ModuleList(_head(num_features) for _ in range(HEADS))
        self.priors = nn.ModuleList(_head(num_features) for _ in range(HEADS))
        self.priors.requires_grad_(False)
        for name, size in (('state', num_features), ('commands', num_commands)):
            self.register_buffer(f'{name}_mean', torch.zeros(size))
            self.register_buffer(f'{name}_white', torch.eye(size))

    def forward(self, features: Tensor, commands: Tensor) -> Tensor:
        """
        Tell how far to believe states.

        :param features: (b, f) of ``features``
        :param commands: (b, m * a) scaled
        :return: (b, 4) expected log RMS error, then ``SIGNS``
        """
        white = self.whitened('state', features)
        told = self.each(white)
        return torch.stack([told.mean(1), told.std(1), _length(white),
                            _length(self.whitened('commands', commands))], 1)

    def each(self, white: Tensor) -> Tensor:
        """Return what each head expects of whitened features, (b, k)."""
        near = white.clamp(-10, 10)
        return torch.cat([head(near) + PRIOR * prior(near)
                          for head, prior in zip(self.heads, self.priors)], 1)

    def whitened(self, name: str, values: Tensor) -> Tensor:
        """Return values as they are seen from the middle of the training's, (b, f)."""
        return (values - self.get_buffer(f'{name}_mean')) @ self.get_buffer(f'{name}_white')

    def fit(self, name: str, values: Tensor) -> None:
        """
        Learn where values lie.

        :param name: ``'state'`` or ``'commands'``
        :param values: (n, f)
        """
        mean = values.mean(0)
        centred = values - mean
        covariance = centred.T @ centred / len(values)
        unit = torch.eye(len(mean)) * covariance.diagonal().mean().clamp_min(1e-6)
        scale, axes = torch.linalg.eigh(torch.lerp(covariance, unit, SHRINK))
        self.get_buffer(f'{name}_mean').copy_(mean)
        self.get_buffer(f'{name}_white').copy_(axes * scale.clamp_min(1e-8).rsqrt() @ axes.T)


def features(model: RecurrentNetwork, state: State) -> Tuple[Tensor, Tensor]:
    """
    Return what doubt is told of states.

    :param model: whose states
    :param state: (b) of them
    :return: (b, f) features, (b, m * a) scaled commands
    """
    commands = state.commands.flatten(1)
    return torch.cat([model.pool(state.field).float(), state.hidden], 1), commands


def _head(num_features: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_features, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH),
                         nn.SiLU(), nn.Linear(WIDTH, 1))


def _length(white: Tensor) -> Tensor:
    """RMS over the features: about one for what the training had."""
    return (white.square().mean(1) + 1e-12).sqrt()
