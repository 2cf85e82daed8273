# SPDX-License-Identifier: Apache-2.0
"""
Train a recurrent world on aligned recordings of pictures and commands. Needs torch.

    python -m lingbot_world_ros.training.train_recurrent --recording aligned --out run --minutes 50

Every step shows some rows a few true frames and lets them run free after, without noise: they
learn the best guess. Later one half of the rows are pairs with noise, scored as samples are
(CRPS): each near the truth, the two apart. Pairs go on in the next step where they ended, without
seeing anything, for ``LONGEST`` frames. First of all it learns to see in pictures how far one
moved (``training.odometry``), which commands have to explain. A run that was stopped continues
when the same command is given again. Writes ``recurrent.safetensors`` (the best by what it does in
open loop on held-out pieces), ``curve.jsonl``, ``pictures.png`` and ``checkpoint.pt``.
"""
import argparse
from copy import deepcopy
from dataclasses import dataclass, replace
import json
from pathlib import Path
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import cv2
from lingbot_world_ros.models.recurrent.floor import shown_error
from lingbot_world_ros.models.recurrent.network import (NOTHING, RecurrentNetwork,
                                                        RecurrentSpec, save_recurrent, State,
                                                        STEP)
from lingbot_world_ros.models.room.runtime import has_bfloat16
from lingbot_world_ros.progress import progress_bar
from lingbot_world_ros.recording.aligned import load_aligned
from lingbot_world_ros.training.odometry import learn_odometry, motions_of
from lingbot_world_ros.training.orthogonal import Muon, split_parameters
from lingbot_world_ros.training.pause import Pause
from lingbot_world_ros.training.recurrent_data import Drives, split_drives, spread, windows
from lingbot_world_ros.training.runs import cosine, Run, update_average
import numpy as np
from safetensors.torch import load_file
import torch
from torch import Tensor

SEEN = 4, 11  # fewest true frames that a row begins with, and one more than the most
CONTEXT = 12  # true frames before a checked rollout
FIRST_HORIZON = 4  # frames; it grows to ``--horizon``
GROWN = 0.3  # share of the time after which horizon and weights are what was asked for
PAIRED = 0.5  # share of the time from which on there are pairs
LONGEST = 400  # frames that a pair runs free
AVERAGED = 0.99  # of the running mean of the weights, kept in a step
BLIND = 0.15  # share of the drawn frames for which the decoder has the vector alone
MIRRORED = 0.4  # share of the rows that are seen in a mirror, where the commands allow it
SHIFTED_PX = 6, 4  # most that the pictures of a row are shifted, across and down
BRIGHTER = 0.1  # share of brightness that they gain or lose at most
SQUARES, SLOPES = 2.0, 0.5  # weights of the squared error and of the slopes' error
MOVED = 1.0  # weight of how true pictures look from where one has moved
FELT = 0.1  # weight of motions that are not those which are seen, in steps of the network
ODOMETRY = 0.08  # share of the time in which to see motions is learned
COARSE = 4  # pixels a side, for motions over many frames
CHECKED = 1, 5, 20, 60  # frames after which a rollout is checked
DECISIVE = 20  # frame after which the best checkpoint is the best
CHECKS = 64  # rollouts of a check
REPORT_S = 120.0
# minutes -> channels of the field; more would not be used in the time
SIZES = (8.0, 32), (25.0, 48), (90.0, 64), (float('inf'), 96)


# what a mirror does to commands; of others it is not known
IN_A_MIRROR = {'linear_x': 1, 'linear_y': -1, 'linear_z': 1, 'angular_x': -1, 'angular_y': 1,
               'angular_z': -1}
IN_A_MIRROR_MOTION = 1, -1, -1  # ahead, left, yaw


@dataclass
class Look:
    """How rows see the recording: other than it is, so that they do not learn it by heart."""

    mirrored: np.ndarray  # (n,) bool
    shift_px: np.ndarray  # (n, 2) int, across and down
    gain: np.ndarray  # (n,) float32

    def take(self, rows: Any) -> 'Look':
        """Return some rows."""
        return Look(self.mirrored[rows], self.shift_px[rows], self.gain[rows])

    def put(self, row: int, other: 'Look', i: int) -> None:
        """Take one row over."""
        self.mirrored[row], self.gain[row] = other.mirrored[i], other.gain[i]
        self.shift_px[row] = other.shift_px[i]


@dataclass
class Pairs:
    """Rows that run free from step to step: where they are, in what state, for how long."""

    frame: np.ndarray  # (p,) the next frame of each
    age: np.ndarray  # (p,) frames it ran free, 0: none yet
    state: Optional[State] = None  # of 2 p rows
    look: Optional[Look] = None


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Train; see the module's text."""
    args = parse(argv)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    drives = split_drives([load_aligned(folder) for folder in args.recording], args.held_out)
    model = make_model(drives, args)
    average = deepcopy(model).requires_grad_(False).eval()
    matrices, rest = split_parameters(model)
    muon = Muon(matrices, args.matrix_rate)
    adam = torch.optim.AdamW(rest, args.learning_rate, weight_decay=1e-4)
    run = Run(args.out, args.minutes, args.stop_after, time.process_time, model=model,
              average=average, muon=muon, adam=adam)
    if model.spec.remembers and not run.step:
        seconds = ODOMETRY * run.budget_s
        told = learn_odometry(model, drives, seconds, args.seed, 10 * args.max_steps)
        print(f'To see motions took {told["steps"]:.0f} steps; error {told["error"]:.4f}.')
        average.load_state_dict(model.state_dict())
    for part in (model.odometer, model.floor):
        part.requires_grad_(False)
    train(args, run, Trainer(args, model, average, drives, run.step), (muon, adam))
    print(f'Written: {args.out / "recurrent.safetensors"}')
    return 0


def parse(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """Return the parsed arguments."""
    parser = argparse.ArgumentParser(description='Train a recurrent world.')
    parser.add_argument('--recording', type=Path, nargs='+', required=True,
                        help='aligned recordings, in the order in which they were made')
    parser.add_argument('--out', type=Path, required=True, help='folder for weights and curve')
    parser.add_argument('--start', type=Path, help='weights of another world to begin with, as '
                        'far as they fit')
    parser.add_argument('--minutes', type=float, default=20.0, help='training time in all, of '
                        'one core, however busy the machine is')
    parser.add_argument('--stop-after', type=float, default=1e9, help='minutes of this attempt')
    parser.add_argument('--held-out', type=int, default=4, help='long pieces, the last ones')
    parser.add_argument('--rows', type=int, default=8, help='of a step, a multiple of four')
    parser.add_argument('--horizon', type=int, default=26, help='frames that a row runs free')
    parser.add_argument('--drawn', type=int, default=3, help='of which so many are drawn')
    parser.add_argument('--channels', type=int, help='of the field; as the minutes are without')
    parser.add_argument('--texture', type=float, default=0.3, help='weight of sharpness')
    parser.add_argument('--straight', action='store_true', help='no flow, no memory of a '
                        'picture, no noise, no texture: a ConvGRU as in textbooks, to compare')
    parser.add_argument('--learning-rate', type=float, default=1.5e-3)
    parser.add_argument('--matrix-rate', type=float, default=0.02)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--max-steps', type=int, default=10 ** 9, help='stop earlier')
    args = parser.parse_args(argv)
    if args.rows < 4 or args.rows % 4:
        parser.error('--rows must be a multiple of four')
    return args


def make_model(drives: Drives, args: argparse.Namespace) -> RecurrentNetwork:
    """Return the untrained network, of a size for the minutes given."""
    width, height = drives.recordings[0].size_px
    channels = args.channels or next(c for minutes, c in SIZES if args.minutes < minutes)
    actions = drives.actions()
    spec = RecurrentSpec(width, height, actions.shape[1], channels=channels)
    model = RecurrentNetwork(replace(spec, flows=0, remembers=False) if args.straight
                             else spec)
    learned = actions[np.concatenate([np.arange(a, b) for a, b in drives.training])]
    model.action_mean.copy_(torch.from_numpy(learned.mean(0)))
    model.action_scale.copy_(torch.from_numpy(np.maximum(learned.std(0), 1e-3)))
    if args.start:
        begin_with(model, args.start)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def begin_with(model: RecurrentNetwork, path: Path) -> None:
    """
    Take over the weights of another world; of a tensor that is smaller there, a corner.

    :param model: that takes them
    :param path: safetensors file of ``save_recurrent``
    """
    theirs = load_file(path)
    for name, ours in model.state_dict().items():
        if name in theirs and theirs[name].ndim == ours.ndim and not name.startswith('action_'):
            corner = tuple(slice(min(a, b)) for a, b in zip(ours.shape, theirs[name].shape))
            ours[corner] = theirs[name][corner]


def train(args: argparse.Namespace, run: Run, trainer: 'Trainer',
          optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Optimise until the minutes or the steps are used up."""
    model = trainer.model
    rates = args.matrix_rate, args.learning_rate
    reported, rows = run.used_s, []  # type: float, List[Dict[str, float]]
    with Pause() as pause, progress_bar(total=round(run.budget_s), unit='s',
                                        mininterval=2.0) as bar:
        while run.active and run.step < args.max_steps:
            for optimizer, rate in zip(optimizers, rates):
                optimizer.param_groups[0]['lr'] = rate * cosine(run.progress)
            loss, told = trainer.loss(run.progress)
            model.zero_grad(set_to_none=True)
            loss.backward()
            told['gradient'] = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
            for optimizer in optimizers:
                optimizer.step()
            update_average(trainer.average, model, AVERAGED)
            rows.append(told)
            run.step += 1
            if pause.is_asked:
                run.save()
            pause.take()
            bar.update(int(run.progress * run.budget_s) - bar.n)
            if run.used_s - reported > REPORT_S:
                bar.set_postfix(_report(run, trainer, rows))
                reported, rows = run.used_s, []
    if rows:
        _report(run, trainer, rows)


class Trainer:
    """Draws batches and scores them."""

    def __init__(self, args: argparse.Namespace, model: RecurrentNetwork,
                 average: RecurrentNetwork, drives: Drives, step: int):
        """
        Keep what every step needs.

        :param args: as ``parse`` gives them
        :param model: that learns
        :param average: running mean of its weights; what is checked and ships
        :param drives: what to learn from
        :param step: to begin at
        """
        self.model, self.average, self.drives = model, average, drives
        self.rng = np.random.default_rng([args.seed, step])
        self.num_rows = args.rows
        self.most_pairs = 0 if args.straight else args.rows // 4
        self.num_pairs, self.num_guesses = 0, args.rows
        self.horizon, self.drawn = args.horizon, args.drawn
        self.is_grown = args.start is not None
        self.blind = 0.0 if args.straight else BLIND
        self.most_texture = 0.0 if args.straight else args.texture
        self.texture = 0.0
        self.slopes = 0.0 if args.straight else SLOPES
        self.actions = torch.from_numpy(drives.actions())
        self.motions = (motions_of(average, drives) if average.spec.remembers
                        else torch.zeros(len(self.actions), 3))
        window = SEEN[1] + args.horizon
        names = drives.recordings[0].action_names
        self.mirror = (np.array([IN_A_MIRROR[name] for name in names], np.float32)
                       if set(names) <= set(IN_A_MIRROR) else None)
        self.begins = windows(drives.training, window)
        long = windows(drives.training, window + 4 * args.horizon)
        self.long_begins = long if len(long) else self.begins
        self.pairs = Pairs(np.zeros(self.most_pairs, int), np.zeros(self.most_pairs, int))
        self.quick = torch.autocast('cpu', torch.bfloat16, enabled=has_bfloat16())

    def loss(self, progress: float) -> Tuple[Tensor, Dict[str, float]]:
        """
        Roll a batch out.

        :param progress: of the training, 0..1
        :return: what to make small, and numbers for the curve
        """
        grown = 1.0 if self.is_grown else min(1.0, progress / GROWN)
        horizon = round(FIRST_HORIZON + (self.horizon - FIRST_HORIZON) * grown)
        self.texture = self.most_texture * grown
        self.num_pairs = self.most_pairs if progress >= PAIRED else 0
        self.num_guesses = self.num_rows - 2 * self.num_pairs
        num_seen = int(self.rng.integers(*SEEN))
        drawn = np.unique([num_seen - 1 - self.rng.integers(2),
                           *(num_seen + self.rng.permutation(horizon)[:self.drawn])])
        begins, state, is_free, look = self._begin()
        true = self._pictures(begins + drawn[:, None], look)
        with self.quick:
            (pictures, key, is_shown), moved = self._roll(begins, state, is_free, look, num_seen,
                                                          horizon, drawn)
        g = self.num_guesses
        coarse = [torch.nn.functional.avg_pool2d(part[:, :g].flatten(0, 1), COARSE)
                  for part in (key, is_shown, true)]
        moved = moved + (shown_error(*coarse) if self.model.spec.remembers else 0.0)
        loss = self._guess_loss(pictures[:, :g].flatten(0, 1), true[:, :g].flatten(0, 1))
        told = {'guess': float(loss.detach()), 'apart': 0.0, 'pairs': 0.0,
                'moved': float(moved.detach())}
        if self.num_pairs:
            one, two = (p.flatten(0, 1) for p in pictures[:, g:].chunk(2, 1))
            sampled, told['apart'] = self._pair_loss(one, two, true[:, g:].flatten(0, 1))
            told['pairs'] = float(sampled.detach())
            loss = loss + sampled
        return loss + MOVED * moved, told

    def _begin(self) -> Tuple[np.ndarray, State, Tensor, Look]:
        """Return first frames of guesses and pairs, states of all rows, which see nothing, how."""
        begins = np.concatenate([self.rng.choice(self.begins, self.num_guesses),
                                 self.rng.choice(self.long_begins, self.num_pairs)])
        pairs, g, p = self.pairs, self.num_guesses, self.num_pairs
        state = self.model.first(g + 2 * p)
        is_free = torch.zeros(g + p, dtype=torch.bool)
        look = self._looks(g + p)
        if pairs.state is not None and pairs.look is not None and p:
            for i in np.flatnonzero(pairs.age):
                begins[g + i] = pairs.frame[i]
                is_free[g + i] = True
                look.put(g + i, pairs.look, int(i))
                for part, kept in zip(state, pairs.state):
                    part[[g + i, g + p + i]] = kept[[i, p + i]]
        return begins, state, torch.cat([is_free, is_free[g:]]), look

    def _looks(self, count: int) -> Look:
        across, down = SHIFTED_PX
        shift = self.rng.integers((-across, -down), (across + 1, down + 1), (count, 2))
        gain = 1 + BRIGHTER * self.rng.uniform(-1, 1, count)
        mirrored = self.rng.random(count) < (MIRRORED if self.mirror is not None else 0)
        return Look(mirrored, shift, gain.astype(np.float32))

    def _pictures(self, frames: np.ndarray, look: Look) -> Tensor:
        """Return what rows see; (f, n) frames to (f, n, 3, h, w)."""
        whole = self.drives.pictures(frames.ravel()).unflatten(0, frames.shape)
        rows = []
        for i, (across, down) in enumerate(look.shift_px):
            row = whole[:, i].flip(-1) if look.mirrored[i] else whole[:, i]
            for axis, shift in ((-1, across), (-2, down)):
                places = torch.arange(row.shape[axis]) + int(shift)
                row = row.index_select(axis, places.clamp(0, row.shape[axis] - 1))
            rows.append(row * float(look.gain[i]))
        return torch.stack(rows, 1).clamp(0, 1)

    def _roll(self, begins: np.ndarray, state: State, is_free: Tensor, look: Look, num_seen: int,
              horizon: int, drawn: np.ndarray) -> Tuple[Tuple[Tensor, ...], Tensor]:
        """
        Roll out; keep pairs where they end.

        Returns what ``draw_parts`` gives of drawn frames, (f, rows, c, h, w) each, and the error
        of motions.
        """
        g, p, model = self.num_guesses, self.num_pairs, self.model
        true = self._pictures(begins + np.arange(num_seen)[:, None], look)
        before = torch.cat([torch.zeros_like(true[:1]), true[:-1] * model.spec.remembers])
        seen = model.see(true.flatten(0, 1), before.flatten(0, 1))
        seen = seen.unflatten(0, (num_seen, g + p))
        felt = self._felt(begins, look, num_seen + horizon)
        offset = self._offset(look)
        offsets = torch.cat([offset, offset[g:]])
        sign = self._signs(np.concatenate([look.mirrored, look.mirrored[g:]]))
        twins = np.concatenate([begins, begins[g:]])
        is_noisy = (torch.arange(g + 2 * p) >= g).float()[:, None]
        states, motions = [], []
        for frame in range(num_seen + horizon):
            state = model.renew(state, offsets)
            action = self.actions[np.maximum(twins + frame - 1, 0)] * sign
            noise = is_noisy * torch.randn(len(twins), model.spec.noise)
            state = model.imagine(state, action, noise)
            motions.append(state.motion[:g])
            if frame < num_seen:
                told = model.observe(state, *(torch.cat([part[frame], part[frame][g:]])
                                              for part in (true, seen, felt)))
                state = State(*(torch.where(is_free.view(-1, *[1] * (kept.ndim - 1)), kept, new)
                                for kept, new in zip(state, told)))
            if frame in drawn:
                states.append(state)
        if p:
            self.pairs.look = look.take(slice(g, None))
            self._keep(begins[g:] + num_seen + horizon, num_seen + horizon,
                       State(*(part[g:].detach() for part in state)))
        shown = State(*(torch.cat(parts) for parts in zip(*states)))
        field = shown.field.contiguous(memory_format=torch.channels_last)
        if self.blind:
            field = field * (torch.rand(len(field), 1, 1, 1) >= self.blind)
            age = torch.where(torch.rand(len(field)) < self.blind, NOTHING, shown.age)
            shown = shown._replace(age=age)
        parts = model.draw_parts(shown._replace(field=field), offsets.repeat(len(states), 1))
        parts = tuple(part.unflatten(0, (len(states), len(twins))) for part in parts)
        off = (torch.stack(motions) - felt[:, :g]).abs().mean() / STEP
        return parts, FELT * off

    def _offset(self, look: Look) -> Tensor:
        """Return shifts as ``Floor`` wants them, (n, 2)."""
        return torch.from_numpy(look.shift_px.astype(np.float32)) * 2 / torch.tensor(
            self.drives.recordings[0].size_px)

    def _felt(self, begins: np.ndarray, look: Look, count: int) -> Tensor:
        """Return how far rows moved in each frame, as the odometer sees it, (f, n, 3)."""
        felt = self.motions[np.minimum(begins + np.arange(count)[:, None], len(self.motions) - 1)]
        sign = np.where(look.mirrored[:, None], IN_A_MIRROR_MOTION, 1).astype(np.float32)
        return felt * torch.from_numpy(sign)

    def _signs(self, mirrored: np.ndarray) -> Tensor:
        """Return by what the commands of rows are multiplied, (n, a)."""
        signs = np.ones((len(mirrored), self.actions.shape[1]), np.float32)
        if self.mirror is not None:
            signs[mirrored] = self.mirror
        return torch.from_numpy(signs)

    def _keep(self, frames: np.ndarray, steps: int, state: State) -> None:
        """Remember pairs that can go on."""
        pairs = self.pairs
        pairs.state, pairs.frame, pairs.age = state, frames, pairs.age + steps
        need = SEEN[1] + self.horizon
        for i, frame in enumerate(frames):
            goes_on = any(a < frame and frame + need <= b for a, b in self.drives.training)
            if not goes_on or pairs.age[i] > LONGEST:
                pairs.age[i] = 0

    def _guess_loss(self, drawn: Tensor, true: Tensor) -> Tensor:
        loss = _distance(drawn, true) + SQUARES * (drawn - true).square().mean()
        if self.slopes:
            loss = loss + self.slopes * slope_distance(drawn, true)
        if self.texture:
            loss = loss + self.texture * _distance(texture(drawn), texture(true))
        return loss

    def _pair_loss(self, one: Tensor, two: Tensor, true: Tensor) -> Tuple[Tensor, float]:
        """Score two samples: near the truth and apart from each other, no more than it takes."""
        def score(distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
            return 0.5 * (distance(one, true) + distance(two, true) - distance(one, two))
        loss = score(_distance) + self.slopes * score(slope_distance)
        if self.texture:
            what = texture(true)
            loss = loss + 0.5 * self.texture * (_distance(texture(one), what)
                                                + _distance(texture(two), what))
        return loss, float(_distance(one.detach(), two.detach()))


def _distance(one: Tensor, two: Tensor) -> Tensor:
    return (one - two).abs().mean()


def slope_distance(one: Tensor, two: Tensor) -> Tensor:
    """
    Compare the slopes of pictures.

    :param one: (b, 3, h, w)
    :param two: the same shape
    :return: mean absolute difference, to the right and down together
    """
    difference = one - two
    return (difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean())


def texture(rgb: Tensor) -> Tensor:
    """
    Tell how much there is to see in each place, wherever exactly it is.

    :param rgb: (b, 3, h, w) 0..1
    :return: (b, 1, h / 4, w / 4) about, mean length of the slope of 8 x 8 pixels
    """
    grey = rgb.mean(1, keepdim=True)
    right, down = grey[..., :-1, :].diff(dim=-1), grey[..., :-1].diff(dim=-2)
    return torch.nn.functional.avg_pool2d((right.square() + down.square() + 1e-5).sqrt(), 8, 4)


@torch.inference_mode()
def validate(trainer: Trainer, *, noise: float = 0.0, shuffled: bool = False,
             frames: Sequence[int] = CHECKED) -> Tuple[Dict[str, float], np.ndarray]:
    """
    Roll out on held-out pieces.

    :param trainer: with model and drives
    :param noise: 0 is the best guess, 1 a sample
    :param shuffled: every row gets the commands of another one from where it runs free
    :param frames: which to check
    :return: 'psnr_<frame>' [dB] and 'sharp_<frame>' (share of the true slope), and a picture:
        columns are rollouts, rows true and imagined frames
    """
    model, drives = trainer.average, trainer.drives
    fitting = [f for f in CHECKED if len(windows(drives.held_out, CONTEXT + f))]
    begins = spread(windows(drives.held_out, CONTEXT + fitting[-1]), CHECKS)
    frames = [f for f in frames if f in fitting]
    rng = torch.Generator().manual_seed(0)
    others = begins[np.roll(np.random.default_rng(0).permutation(len(begins)), 1)]
    state, told, strips = model.first(len(begins)), {}, []
    with trainer.quick:
        for frame in range(CONTEXT + frames[-1]):
            sent = others if shuffled and frame >= CONTEXT else begins
            draw = torch.randn(len(begins), model.spec.noise, generator=rng)
            state = model.renew(state)
            state = model.imagine(state, trainer.actions[np.maximum(sent + frame - 1, 0)],
                                  noise * draw)
            if frame < CONTEXT:
                state = model.observe(state, drives.pictures(begins + frame))
            elif frame - CONTEXT + 1 in frames:
                true, drawn = drives.pictures(begins + frame), model.draw(state).clamp(0, 1)
                error = (drawn - true).square().mean((1, 2, 3))
                number = frame - CONTEXT + 1
                told[f'psnr_{number}'] = float(-10 * torch.log10(error + 1e-6).mean())
                told[f'sharp_{number}'] = float(_slope(drawn).mean() / _slope(true).mean())
                strips.append(torch.cat([true[::8], drawn[::8]], 2))
    sheet = torch.cat(strips, 2).permute(2, 0, 3, 1).flatten(1, 2)
    return told, (sheet.float() * 255).round().to(torch.uint8).numpy()


def _slope(rgb: Tensor) -> Tensor:
    grey = (rgb * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    return torch.hypot(grey[:, :-1].diff(dim=-1), grey[..., :-1].diff(dim=-2))


def _report(run: Run, trainer: Trainer, rows: List[Dict[str, float]]) -> Dict[str, Any]:
    """Append to the curve, keep checkpoint, pictures and the best weights."""
    row = {'step': run.step, 'minutes': run.used_s / 60,
           **{key: float(np.mean([r[key] for r in rows])) for key in rows[0]}}
    told, sheet = validate(trainer)
    row.update(told)
    decisive = max((f for f in CHECKED if f <= DECISIVE and f'psnr_{f}' in told), default=1)
    other, _ = validate(trainer, shuffled=True, frames=[decisive])
    row['gap'] = told[f'psnr_{decisive}'] - other[f'psnr_{decisive}']
    if trainer.most_pairs:
        sampled, drawn = validate(trainer, noise=1.0, frames=CHECKED[:-1])
        row.update({f'sampled_{key}': value for key, value in sampled.items()})
        sheet = np.concatenate([sheet, drawn])
    cv2.imwrite(str(run.folder / 'pictures.png'), np.ascontiguousarray(sheet[..., ::-1]))
    row = {key: round(value, 4) for key, value in row.items()}
    score = row[f'psnr_{decisive}'] + row['gap']
    _keep_best(run, trainer.average, score, row)
    with (run.folder / 'curve.jsonl').open('a') as file:
        file.write(json.dumps(row) + '\n')
    run.save()
    return {key: row[key] for key in ('step', f'psnr_{decisive}', f'sharp_{decisive}', 'gap')}


def _keep_best(run: Run, model: RecurrentNetwork, score: float, row: Dict[str, Any]) -> None:
    """Save the weights if no earlier ones were better."""
    path = run.folder / 'best.json'
    best = json.loads(path.read_text())['score'] if path.exists() else -np.inf
    if score >= best:
        save_recurrent(model, run.folder / 'recurrent.safetensors', row)
        path.write_text(json.dumps({'score': score, **row}) + '\n')


if __name__ == '__main__':
    raise SystemExit(main())
