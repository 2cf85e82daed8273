# SPDX-License-Identifier: Apache-2.0
"""
A world that knows pictures and commands only, and runs free. Needs torch.

A coarse field of features stands for what is in view, a vector for where that is and how it goes.
The newest commands move the vector, which tells how the field flows and what comes into view; a
true picture corrects the field; a decoder draws it. Noise in the vector makes one future of many;
without noise it is the best guess. The field is always a mean of values in -1..1, so that no
rollout can run away.
Axes: b batch, c channel, y x rows and columns of the field, d vector, m commands, a action,
k flows.
Source: the recurrent state-space model (arXiv 1811.04551) in convolutional form; noise that all of
the picture shares, trained by a proper score, as in arXiv 2506.10772; no code taken from either.
"""
from dataclasses import asdict, dataclass
import json
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple, Union

from lingbot_world_ros.errors import SpecError
import torch
from torch import nn, Tensor
from torch.nn import functional as F

STRIDE = 8  # pixels a side of a cell of the field
MULTIPLE = 2 * STRIDE  # of which both sides of a picture are
NORM_GROUPS = 8
REACH = 0.25  # of a flow of length one, in halves of the picture
HORIZON = -0.3  # height of what one moves towards, -1 top, 1 bottom
KEEP, CORRECT = 1.0, 1.0  # the gates begin with old values, and with what is seen


@dataclass(frozen=True)
class RecurrentSpec:
    """Independent sizes; both sides of a picture are multiples of 16 pixels."""

    width_px: int
    height_px: int
    action_dim: int
    channels: int = 64  # of the field
    hidden: int = 256  # numbers of the vector
    commands: int = 8  # the newest ones that are remembered
    noise: int = 16
    mapped: int = 8  # channels of what the vector knows of the view
    placed: int = 16  # and of the place
    flows: int = 6  # ways in which the field can flow; 0: it stays
    pooled: int = 192  # numbers that the vector is told of the field
    drawn: Tuple[int, int] = (96, 64)  # channels of the decoder, coarse and fine

    def __post_init__(self) -> None:
        """Refuse pictures that do not divide."""
        sides = self.width_px, self.height_px
        if min(sides) < 2 * MULTIPLE or any(side % MULTIPLE for side in sides):
            raise SpecError('The recurrent world needs pictures whose sides are multiples of '
                            f'{MULTIPLE} pixels from {2 * MULTIPLE} on, got '
                            f'{sides[0]}x{sides[1]}.')

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of the field."""
        return self.height_px // STRIDE, self.width_px // STRIDE


class State(NamedTuple):
    """What b worlds are in."""

    field: Tensor  # (b, c, y, x) -1..1
    hidden: Tensor  # (b, d)
    commands: Tensor  # (b, m, a) scaled, oldest first


class RecurrentNetwork(nn.Module):
    """``imagine`` moves a state on by a frame, ``observe`` corrects it, ``draw`` shows it."""

    action_mean: Tensor
    action_scale: Tensor
    places: Tensor  # (y, x, 2) of the cells, -1..1

    def __init__(self, spec: RecurrentSpec):
        """Build the parts; actions are scaled by what the model remembers."""
        super().__init__()
        self.spec = spec
        c, d = spec.channels, spec.hidden
        rows, cols = spec.grid
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(48, 64, 3, 1, 1), _norm(64), nn.SiLU(),
            nn.Conv2d(64, c, 4, 2, 1), _norm(c), nn.SiLU(),
            nn.Conv2d(c, c, 3, 1, 1), _norm(c), nn.SiLU())
        self.correct = nn.Conv2d(2 * c, 2 * c, 3, 1, 1)
        self.pool = nn.Sequential(nn.Conv2d(c, 16, 1), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(),
                                  nn.Linear(16 * (rows // 2) * (cols // 2), spec.pooled))
        told = spec.pooled + spec.commands * spec.action_dim + spec.noise
        self.enter = nn.Sequential(nn.Linear(told, spec.pooled), nn.LayerNorm(spec.pooled),
                                   nn.SiLU())
        self.gru = nn.GRUCell(spec.pooled, d)
        self.modulate = nn.Linear(d, 2 * c)
        self.map = nn.Sequential(nn.Linear(d, spec.mapped * rows * cols),
                                 nn.Unflatten(1, (spec.mapped, rows, cols)))
        self.place = _place(spec)
        if spec.flows:
            self.flow = nn.Linear(d, spec.flows)
            nn.init.zeros_(self.flow.weight)
            nn.init.zeros_(self.flow.bias)
            self.flows = nn.Parameter(_first_flows(spec))
            self.register_buffer('places', _places(spec), persistent=False)
        self.look = nn.Conv2d(c, c, 3, 1, 1)
        self.norm = _norm(c)
        self.move = nn.Conv2d(c + spec.mapped + spec.placed, 2 * c, 3, 1, 1)
        self.decoder = _decoder(spec)
        self.register_buffer('action_mean', torch.zeros(spec.action_dim))
        self.register_buffer('action_scale', torch.ones(spec.action_dim))

    def first(self, batch: int) -> State:
        """Return the state of b worlds of which nothing was seen yet."""
        spec, like = self.spec, self.action_mean
        field = like.new_zeros(batch, spec.channels, *spec.grid)
        return State(field.contiguous(memory_format=torch.channels_last),
                     like.new_zeros(batch, spec.hidden),
                     like.new_zeros(batch, spec.commands, spec.action_dim))

    def imagine(self, state: State, action: Tensor, noise: Tensor) -> State:
        """
        Move on by a frame.

        :param state: at the frame before
        :param action: (b, a) in force since then
        :param noise: (b, n) standard normal for one future of many, zero for the best guess
        :return: at the frame that follows
        """
        scaled = (action - self.action_mean) / self.action_scale
        commands = torch.cat([state.commands[:, 1:], scaled[:, None]], 1)
        told = torch.cat([self.pool(state.field), commands.flatten(1), noise], -1)
        hidden = self.gru(self.enter(told), state.hidden)
        gain, offset = self.modulate(hidden)[:, :, None, None].chunk(2, 1)
        flown = self._flown(state.field, hidden) if self.spec.flows else state.field
        looked = F.silu(self.norm(self.look(flown)) * (1 + gain) + offset)
        moved = self.move(torch.cat([looked, *self._known(hidden)], 1))
        return State(_blended(flown, moved, -KEEP), hidden, commands)

    def _flown(self, field: Tensor, hidden: Tensor) -> Tensor:
        """Let a field flow by a sum of learned flows; the vector tells how much of each."""
        flow = (self.flow(hidden).float() @ self.flows.flatten(1)).unflatten(
            1, self.flows.shape[1:])  # b k, k y x 2 -> b y x 2
        return F.grid_sample(field, self.places + REACH * flow, 'bilinear', 'border', False)

    def see(self, rgb: Tensor) -> Tensor:
        """
        Turn pictures into what corrects a field.

        :param rgb: (b, 3, h, w) float, 0..1
        :return: (b, c, y, x)
        """
        return self.encoder(rgb * 2 - 1)

    def observe(self, state: State, seen: Tensor) -> State:
        """
        Correct a state that was imagined by what is seen at its frame.

        :param state: as ``imagine`` gave it
        :param seen: (b, c, y, x) of the true picture
        :return: the corrected state
        """
        found = self.correct(torch.cat([state.field.to(seen.dtype), seen], 1))
        return state._replace(field=_blended(state.field, found, CORRECT))

    def draw(self, state: State) -> Tensor:
        """
        Draw.

        :param state: any
        :return: (b, 3, h, w) float, about 0..1
        """
        known = self._known(state.hidden)
        return self.decoder(torch.cat([state.field, *known], 1)).float() + 0.5

    def _known(self, hidden: Tensor) -> Tuple[Tensor, Tensor]:
        """Return what the vector knows of view and place, on the grid of the field."""
        return self.map(hidden), self.place(hidden)


class Residual(nn.Module):
    """Two convolutions added to what comes in."""

    def __init__(self, channels: int):
        """Build it."""
        super().__init__()
        self.body = nn.Sequential(
            _norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, 1, 1),
            _norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply it; the shape stays."""
        return x + self.body(x)


def _places(spec: RecurrentSpec) -> Tensor:
    rows, cols = ((torch.arange(n) + 0.5) * 2 / n - 1 for n in spec.grid)
    return torch.stack([cols.expand(len(rows), -1), rows[:, None].expand(-1, len(cols))], -1)


def _first_flows(spec: RecurrentSpec) -> Tensor:
    """Begin with turning, with going ahead, and with noise; (k, y, x, 2)."""
    places = _places(spec)
    flows = 0.3 * torch.randn(spec.flows, *places.shape)
    for i, known in enumerate((torch.tensor([1.0, 0.0]), places - torch.tensor([0.0, HORIZON]))):
        if i < spec.flows:
            flows[i] = known
    return flows


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, channels)


def _blended(field: Tensor, told: Tensor, lean: float) -> Tensor:
    """Mix a field with new values, each by its gate."""
    gate, value = told.float().chunk(2, 1)
    return torch.lerp(field, torch.tanh(value), torch.sigmoid(gate + lean))


def _place(spec: RecurrentSpec) -> nn.Sequential:
    """Let a vector tell what is around, on the grid of the field."""
    rows, cols = spec.grid[0] // 2, spec.grid[1] // 2
    wide = 4 * spec.placed
    return nn.Sequential(
        nn.Linear(spec.hidden, spec.hidden), nn.SiLU(),
        nn.Linear(spec.hidden, spec.placed * rows * cols),
        nn.Unflatten(1, (spec.placed, rows, cols)), nn.Conv2d(spec.placed, wide, 3, 1, 1),
        _norm(wide), nn.SiLU(), nn.Conv2d(wide, wide, 3, 1, 1), nn.PixelShuffle(2))


def _decoder(spec: RecurrentSpec) -> nn.Sequential:
    coarse, fine = spec.drawn
    return nn.Sequential(
        nn.Conv2d(spec.channels + spec.mapped + spec.placed, coarse, 3, 1, 1), _norm(coarse),
        nn.SiLU(), Residual(coarse), nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2),
        Residual(fine), _norm(fine), nn.SiLU(), nn.Conv2d(fine, 48, 3, 1, 1), nn.PixelShuffle(4))


def save_recurrent(model: RecurrentNetwork, path: Union[str, Path],
                   info: Optional[Dict[str, Any]] = None) -> None:
    """
    Write weights and sizes into one safetensors file.

    :param model: the network
    :param path: file
    :param info: JSON-serialisable notes on the training
    """
    from safetensors.torch import save_file
    tensors = {k: v.detach().float().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, str(path), {'spec': json.dumps(asdict(model.spec)),
                                   'info': json.dumps(info or {})})


def load_recurrent(path: Union[str, Path]) -> RecurrentNetwork:
    """
    Read what ``save_recurrent`` wrote.

    :param path: file
    :return: the network, on the CPU, in evaluation mode
    :raises SpecError: no such file, or not one of ours
    """
    from safetensors import safe_open, SafetensorError
    try:
        with safe_open(str(path), 'pt') as file:
            sizes = json.loads(file.metadata()['spec'])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        model = RecurrentNetwork(RecurrentSpec(**{**sizes, 'drawn': tuple(sizes['drawn'])}))
        model.load_state_dict(tensors)
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise SpecError(f'Cannot read the recurrent world {path}: {error}. Expected a file that '
                        'python -m lingbot_world_ros.training.train_recurrent wrote.') from error
    return model.eval()
