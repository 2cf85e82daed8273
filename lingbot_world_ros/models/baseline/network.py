# SPDX-License-Identifier: Apache-2.0
"""
The baseline, a world model as in textbooks: encoder, MLP dynamics, decoder. Needs torch.

A convolutional encoder squeezes the image into one vector, an MLP moves the vector by the
action, a convolutional decoder draws the next image. In open loop it sees the first image only.
Axes: b batch, t frames, z latent, a action, c channel, h w image.
"""
from dataclasses import asdict, dataclass
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from lingbot_world_ros.errors import SpecError
import torch
from torch import nn, Tensor

STRIDE = 16  # of the encoder


@dataclass(frozen=True)
class BaselineSpec:
    """Independent sizes; the image must be at least 32 pixels each way."""

    width_px: int
    height_px: int
    action_dim: int
    latent_dim: int = 256
    channels: Tuple[int, ...] = (32, 64, 128, 192)
    squeezed_channels: int = 48
    hidden_dim: int = 512

    def __post_init__(self) -> None:
        """Refuse images that the encoder would squeeze to nothing."""
        if min(self.width_px, self.height_px) < 2 * STRIDE:
            raise SpecError(f'The baseline needs images of at least {2 * STRIDE} pixels '
                            f'each way, got {self.width_px}x{self.height_px}.')

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of the coarsest feature map."""
        return -(-self.height_px // STRIDE), -(-self.width_px // STRIDE)


class BaselineModel(nn.Module):
    """``z[t+1] = norm(z[t] + f(z[t], a[t]))``, image = decode(z)."""

    action_scale: Tensor

    def __init__(self, spec: BaselineSpec):
        """Build the three parts; actions are scaled by the limits the model remembers."""
        super().__init__()
        self.spec = spec
        flat = spec.squeezed_channels * spec.grid[0] * spec.grid[1]
        self.encoder = _encoder(spec, flat)
        self.dynamics = nn.Sequential(
            nn.Linear(spec.latent_dim + spec.action_dim, spec.hidden_dim), nn.SiLU(),
            nn.Linear(spec.hidden_dim, spec.hidden_dim), nn.SiLU(),
            nn.Linear(spec.hidden_dim, spec.latent_dim))
        self.decoder = _decoder(spec, flat)
        self.register_buffer('action_scale', torch.ones(spec.action_dim))

    def encode(self, rgb: Tensor) -> Tensor:
        """
        Image to latent.

        :param rgb: (b, 3, h, w) float, 0..1
        :return: (b, z)
        """
        bottom, right = (g * STRIDE - s for g, s in zip(self.spec.grid, rgb.shape[-2:]))
        padded = nn.functional.pad(rgb, (0, right, 0, bottom), mode='replicate')
        return _normalised(self.encoder(padded * 2 - 1))

    def advance(self, z: Tensor, action: Tensor) -> Tensor:
        """
        Move the latent one frame on.

        :param z: (b, z)
        :param action: (b, a) in the layout's units
        :return: (b, z)
        """
        return _normalised(z + self.dynamics(torch.cat([z, action / self.action_scale], -1)))

    def decode(self, z: Tensor) -> Tensor:
        """
        Latent to image.

        :param z: (b, z)
        :return: (b, 3, h, w) float, about 0..1
        """
        return self.decoder(z)[..., :self.spec.height_px, :self.spec.width_px] + 0.5

    def forward(self, rgb: Tensor, actions: Tensor) -> Tensor:
        """
        Imagine from one image; the first returned frame is its reconstruction.

        :param rgb: (b, 3, h, w) float, 0..1
        :param actions: (b, t, a)
        :return: (b, t + 1, 3, h, w)
        """
        steps = [self.encode(rgb)]
        for action in actions.unbind(1):
            steps.append(self.advance(steps[-1], action))
        latents = torch.stack(steps, 1)
        return self.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])


def _normalised(z: Tensor) -> Tensor:
    """Keep latents on a sphere: a rollout of minutes cannot run away."""
    return nn.functional.layer_norm(z, z.shape[-1:])


def _encoder(spec: BaselineSpec, flat: int) -> nn.Sequential:
    layers: List[nn.Module] = []
    before = 3
    for channels in spec.channels:
        layers += [nn.Conv2d(before, channels, 4, 2, 1), nn.GroupNorm(8, channels), nn.SiLU()]
        before = channels
    layers += [nn.Conv2d(before, spec.squeezed_channels, 1), nn.Flatten(),
               nn.Linear(flat, spec.latent_dim)]
    return nn.Sequential(*layers)


def _decoder(spec: BaselineSpec, flat: int) -> nn.Sequential:
    before = spec.channels[-1]
    layers: List[nn.Module] = [
        nn.Linear(spec.latent_dim, flat), nn.Unflatten(1, (spec.squeezed_channels, *spec.grid)),
        nn.Conv2d(spec.squeezed_channels, before, 1), nn.SiLU()]
    for channels in (*spec.channels[-2::-1], spec.channels[0] // 2):
        layers += [nn.Upsample(scale_factor=2, mode='nearest'),
                   nn.Conv2d(before, channels, 3, 1, 1), nn.GroupNorm(8, channels), nn.SiLU(),
                   nn.Conv2d(channels, channels, 3, 1, 1), nn.SiLU()]
        before = channels
    return nn.Sequential(*layers, nn.Conv2d(before, 3, 3, 1, 1))


def save_baseline(model: BaselineModel, path: Union[str, Path],
                  info: Optional[Dict[str, Any]] = None) -> None:
    """
    Write weights and sizes into one safetensors file.

    :param model: the model
    :param path: file
    :param info: JSON-serialisable notes on the training
    """
    from safetensors.torch import save_file
    tensors = {k: v.detach().float().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, str(path), {'spec': json.dumps(asdict(model.spec)),
                                   'info': json.dumps(info or {})})


def load_baseline(path: Union[str, Path]) -> BaselineModel:
    """
    Read what ``save_baseline`` wrote.

    :param path: file
    :return: the model, on the CPU, in evaluation mode
    :raises SpecError: no such file, or not one of ours
    """
    from safetensors import safe_open, SafetensorError
    try:
        with safe_open(str(path), 'pt') as file:
            sizes = json.loads(file.metadata()['spec'])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        model = BaselineModel(BaselineSpec(**{**sizes, 'channels': tuple(sizes['channels'])}))
        model.load_state_dict(tensors)
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise SpecError(f'Cannot read the baseline {path}: {error}. Expected a file that '
                        'python -m lingbot_world_ros.training.train_baseline wrote.') from error
    return model.eval()
