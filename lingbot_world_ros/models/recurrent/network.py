# SPDX-License-Identifier: Apache-2.0
"""
A world that knows pictures and commands only, and runs free. Needs torch.

A coarse field of features stands for what is in view, a vector for where that is and how it goes.
The newest commands move the vector, which tells how the field flows, what comes into view and how
far one has moved; a true picture corrects the field; a decoder draws it, and is given the last
true picture as it would look from there, which is what keeps pictures sharp. Every ``RENEWED``
frames without a true picture the drawn one takes its place. Noise in the vector makes one future
of many; without noise it is the best guess. The field is always a mean of values in -1..1, so that
no rollout can run away.
Axes: b batch, c channel, y x rows and columns of the field, h w picture, d vector, m commands,
a action, k flows.
Source: the recurrent state-space model (arXiv 1811.04551) in convolutional form; noise that all of
the picture shares, trained by a proper score, as in arXiv 2506.10772; no code taken from either.
"""
from dataclasses import asdict, dataclass
import json
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple, Union

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.recurrent.floor import Floor
from lingbot_world_ros.models.recurrent.runtime import NOTHING, RENEWED
import torch
from torch import nn, Tensor
from torch.nn import functional as F

STRIDE = 8  # pixels a side of a cell of the field
MULTIPLE = 2 * STRIDE  # of which both sides of a picture are
NORM_GROUPS = 8
REACH = 0.25  # of a flow of length one, in halves of the picture
HORIZON = -0.3  # height of what one moves towards, -1 top, 1 bottom
DROPPED = 0.3  # share of the vector that is hidden from what reads it, while it learns
STEP = 0.1  # of motions, heights of the camera and rad
FASTEST = 1.0, 0.5, 0.5  # ahead, left, yaw in a frame, by the same
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
    remembers: bool = True  # the last true picture, and how far one moved since
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
    key: Tensor  # (b, 3, h, w) 0..1 the picture that is remembered
    pose: Tensor  # (b, 3) ahead, left, yaw [rad] since; lengths in heights of the camera
    age: Tensor  # (b,) frames since a true picture
    motion: Tensor  # (b, 3) ahead, left, yaw [rad] of the last frame, as seen or as imagined


class RecurrentNetwork(nn.Module):
    """``imagine`` moves a state on by a frame, ``observe`` corrects it, ``draw`` shows it."""

    action_mean: Tensor
    action_scale: Tensor
    places: Tensor  # (y, x, 2) of the cells, -1..1
    fastest: Tensor

    def __init__(self, spec: RecurrentSpec):
        """Build the parts; actions are scaled by what the model remembers."""
        super().__init__()
        self.spec = spec
        c, d = spec.channels, spec.hidden
        rows, cols = spec.grid
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(96, 64, 3, 1, 1), _norm(64), nn.SiLU(),
            nn.Conv2d(64, c, 4, 2, 1), _norm(c), nn.SiLU(),
            nn.Conv2d(c, c, 3, 1, 1), _norm(c), nn.SiLU())
        self.correct = nn.Conv2d(2 * c, 2 * c, 3, 1, 1)
        self.pool = nn.Sequential(nn.Conv2d(c, 16, 1), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(),
                                  nn.Linear(16 * (rows // 2) * (cols // 2), spec.pooled))
        told = spec.pooled + spec.commands * spec.action_dim + spec.noise + 3
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
        self.move = nn.Conv2d(c + spec.mapped, 2 * c, 3, 1, 1)
        self.drop = nn.Dropout(DROPPED)
        self.faster = nn.Linear(d + spec.commands * spec.action_dim, 3)
        self.odometer = _odometer(spec)
        for part in (self.faster.parameters(), self.odometer[-1].parameters()):
            for parameter in part:
                nn.init.zeros_(parameter)
        self.register_buffer('fastest', torch.tensor(FASTEST), persistent=False)
        self.floor = Floor()
        coarse, fine = spec.drawn
        self.coarse = nn.Sequential(
            nn.Conv2d(c + spec.mapped + spec.placed, coarse, 3, 1, 1), _norm(coarse), nn.SiLU(),
            Residual(coarse), nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2))
        self.shown = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(64, fine, 3, 1, 1))
        self.fine = nn.Sequential(Residual(fine), _norm(fine), nn.SiLU(),
                                  nn.Conv2d(fine, 64, 3, 1, 1), nn.PixelShuffle(4))
        self.register_buffer('action_mean', torch.zeros(spec.action_dim))
        self.register_buffer('action_scale', torch.ones(spec.action_dim))

    def first(self, batch: int) -> State:
        """Return the state of b worlds of which nothing was seen yet."""
        spec, like = self.spec, self.action_mean
        field = like.new_zeros(batch, spec.channels, *spec.grid)
        return State(field.contiguous(memory_format=torch.channels_last),
                     like.new_zeros(batch, spec.hidden),
                     like.new_zeros(batch, spec.commands, spec.action_dim),
                     like.new_zeros(batch, 3, spec.height_px, spec.width_px),
                     like.new_zeros(batch, 3), like.new_full((batch, ), NOTHING),
                     like.new_zeros(batch, 3))

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
        told = torch.cat([self.pool(state.field), commands.flatten(1), noise,
                          state.motion / STEP], -1)
        hidden = self.gru(self.enter(told), state.hidden)
        gain, offset = self.modulate(hidden)[:, :, None, None].chunk(2, 1)
        flown = self._flown(state.field, hidden) if self.spec.flows else state.field
        looked = F.silu(self.norm(self.look(flown)) * (1 + gain) + offset)
        known = self.drop(hidden)
        moved = self.move(torch.cat([looked, self.map(known)], 1))
        faster = self.faster(torch.cat([known, commands.flatten(1)], -1)).float()
        motion = torch.clamp(state.motion + STEP * faster, -self.fastest, self.fastest)
        return State(_blended(flown, moved, -KEEP), hidden, commands, state.key,
                     composed(state.pose, motion), state.age + 1, motion)

    def _flown(self, field: Tensor, hidden: Tensor) -> Tensor:
        """Let a field flow by a sum of learned flows; the vector tells how much of each."""
        flow = (self.flow(hidden).float() @ self.flows.flatten(1)).unflatten(
            1, self.flows.shape[1:])  # b k, k y x 2 -> b y x 2
        return F.grid_sample(field, self.places + REACH * flow, 'bilinear', 'border', False)

    def see(self, rgb: Tensor, before: Tensor) -> Tensor:
        """
        Turn pictures into what corrects a field.

        :param rgb: (b, 3, h, w) float, 0..1
        :param before: the same a frame earlier, or what is remembered
        :return: (b, c, y, x)
        """
        return self.encoder(torch.cat([rgb, before], 1) * 2 - 1)

    def feel(self, rgb: Tensor, before: Tensor) -> Tensor:
        """
        See how far one has moved.

        :param rgb: (b, 3, h, w) float, 0..1
        :param before: the same a frame earlier
        :return: (b, 3) ahead, left, yaw [rad]
        """
        return self.feel_small(*(F.avg_pool2d(part, 2) for part in (rgb, before)))

    def feel_small(self, rgb: Tensor, before: Tensor) -> Tensor:
        """See it in pictures of half the size, (b, 3, h / 2, w / 2); see ``feel``."""
        return STEP * self.odometer(torch.cat([rgb, before], 1) - 0.5).float()

    def observe(self, state: State, rgb: Tensor, seen: Optional[Tensor] = None,
                felt: Optional[Tensor] = None) -> State:
        """
        Correct a state that was imagined by what is seen at its frame.

        :param state: as ``imagine`` gave it
        :param rgb: (b, 3, h, w) float, 0..1, the true picture
        :param seen: what ``see`` made of it and of the one before
        :param felt: what ``feel`` made of them
        :return: the corrected state
        """
        seen = self.see(rgb, state.key) if seen is None else seen
        found = self.correct(torch.cat([state.field.to(seen.dtype), seen], 1))
        state = state._replace(field=_blended(state.field, found, CORRECT))
        if not self.spec.remembers:
            return state
        felt = self.feel(rgb, state.key) if felt is None else felt
        is_next = (state.age < 1.5)[:, None]  # else the two are further apart than a frame
        return _remembering(state, rgb)._replace(motion=torch.where(is_next, felt, state.motion))

    def draw(self, state: State, offset: Optional[Tensor] = None) -> Tensor:
        """
        Draw.

        :param state: any
        :param offset: (b, 2) as of ``Floor``
        :return: (b, 3, h, w) float, about 0..1
        """
        return self.draw_parts(state, offset)[0]

    def draw_parts(self, state: State,
                   offset: Optional[Tensor] = None) -> Tuple[Tensor, Tensor, Tensor]:
        """Return also the picture that is remembered, seen from here, and where it shows that."""
        key, is_shown = self.floor(state.key, state.pose, offset)
        is_shown = is_shown * (state.age < NOTHING).float()[:, None, None, None]
        shown = torch.cat([(key - 0.5) * is_shown, is_shown - 0.5], 1)
        hidden = self.drop(state.hidden)
        field = torch.cat([state.field, self.map(hidden), self.place(hidden)], 1)
        told = self.fine(self.coarse(field) + self.shown(shown)).float()
        own, share = told[:, :3] + 0.5, torch.sigmoid(told[:, 3:]) * is_shown
        return torch.lerp(own, key, share), key, is_shown

    def renew(self, state: State, offset: Optional[Tensor] = None) -> State:
        """
        Let what is drawn take the place of the picture that is remembered, when that is due.

        :param state: any
        :param offset: (b, 2) as of ``Floor``
        :return: what to ``imagine`` from
        """
        due = (state.age > 0) & (state.age % RENEWED == 0) & (state.age < NOTHING)
        if not bool(due.any()):
            return state
        rows = State(*(part[due] for part in state))
        with torch.no_grad():
            drawn = self.draw(rows, None if offset is None else offset[due]).clamp(0, 1)
        key, pose = state.key.clone(), state.pose.clone()
        key[due], pose[due] = drawn, 0.0
        return state._replace(key=key, pose=pose)


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


def _odometer(spec: RecurrentSpec) -> nn.Sequential:
    """Two small pictures in, what lies between them out."""
    cells = -(-spec.height_px // 16) * -(-spec.width_px // 16)
    return nn.Sequential(
        nn.Conv2d(6, 24, 5, 2, 2), _norm(24), nn.SiLU(),
        nn.Conv2d(24, 32, 3, 2, 1), _norm(32), nn.SiLU(),
        nn.Conv2d(32, 48, 3, 2, 1), _norm(48), nn.SiLU(), nn.Flatten(),
        nn.Linear(48 * cells, 64), nn.SiLU(), nn.Linear(64, 3))


def _remembering(state: State, rgb: Tensor) -> State:
    """Remember another picture, of now."""
    return state._replace(key=rgb, pose=torch.zeros_like(state.pose),
                          age=torch.zeros_like(state.age))


def composed(pose: Tensor, motion: Tensor) -> Tensor:
    """Go on from poses, along the middle of each motion's arc; (b, 3)."""
    ahead, left, turn = motion.unbind(-1)
    yaw = pose[:, 2] + turn / 2
    c, s = torch.cos(yaw), torch.sin(yaw)
    return pose + torch.stack([c * ahead - s * left, s * ahead + c * left, turn], -1)


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
