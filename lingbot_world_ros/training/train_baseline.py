# SPDX-License-Identifier: Apache-2.0
"""
Train the textbook baseline on the episodes that the embedded world is trained on. Needs torch.

    python -m lingbot_world_ros.training.train_baseline --data data --out runs/textbook --minutes 10

Every step encodes one frame of random episodes, imagines ``--horizon`` frames from it in latent
space and draws some of them; the loss is their mean squared error. A run that was stopped
continues when the same command is given again. Writes ``textbook.safetensors``, ``curve.csv``
and ``checkpoint.pt``.
"""
import argparse
import csv
from dataclasses import dataclass
import math
from pathlib import Path
import time

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.training.baseline import save_textbook, TextbookModel, TextbookSpec
from lingbot_world_ros.training.dataset import load_scene
from lingbot_world_ros.worlds.robot import ROBOT
from lingbot_world_ros.worlds.world_model import robot_action_layout
import numpy as np
import torch
from tqdm import tqdm

VALIDATION_EPISODES = 16  # per scene, the last ones, never trained on
WARMUP_STEPS = 200
REPORT_S = 30.0
CURVE = ('step', 'seconds', 'frames', 'learning_rate', 'loss', 'psnr_1', 'psnr_5', 'psnr_15')


@dataclass
class Episodes:
    """Episodes of all scenes on one device; rgb (n, t + 1, h, w, 3) uint8, action (n, t, a)."""

    rgb: list
    action: list

    def sample(self, batch_size: int, horizon: int, generator):
        """
        Draw random windows, every episode of every scene equally often.

        :param batch_size: b
        :param horizon: steps t of a window
        :param generator: numpy Generator
        :return: rgb (b, t + 1, 3, h, w) float 0..1, actions (b, t, a)
        """
        counts = np.array([len(r) for r in self.rgb])
        scenes = generator.choice(len(counts), batch_size, p=counts / counts.sum())
        rgb, action = [], []
        for scene in np.unique(scenes):
            size = int((scenes == scene).sum())
            rows = generator.integers(counts[scene], size=size)
            starts = generator.integers(self.action[scene].shape[1] - horizon + 1, size=size)
            view, sent = self._window(scene, rows, starts, horizon)
            rgb.append(view)
            action.append(sent)
        return torch.cat(rgb), torch.cat(action)

    def _window(self, scene, rows, starts, horizon):
        device = self.rgb[scene].device
        rows = torch.as_tensor(rows, device=device)[:, None]
        times = torch.as_tensor(starts, device=device)[:, None] + torch.arange(
            horizon + 1, device=device)
        view = self.rgb[scene][rows, times].permute(0, 1, 4, 2, 3).float() / 255
        return view, self.action[scene][rows, times[:, :-1]]


def main(argv=None) -> int:
    """Train; see the module's text."""
    args = parse(argv)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = True
    device = torch.device(args.device)
    training, validation = load_episodes(args.data, device)
    model, optimizer, done = prepare(args, device)
    train(args, model, optimizer, training, validation, done)
    print(f'Written: {args.out / "textbook.safetensors"}')
    return 0


def parse(argv):
    """Return the parsed arguments."""
    parser = argparse.ArgumentParser(description='Train the textbook baseline.')
    parser.add_argument('--data', type=Path, required=True, help='what training.dataset wrote')
    parser.add_argument('--out', type=Path, required=True, help='folder for weights and curve')
    parser.add_argument('--minutes', type=float, default=10.0, help='training time in all')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--horizon', type=int, default=24, help='imagined frames per window')
    parser.add_argument('--decoded', type=int, default=8, help='of which so many are drawn')
    parser.add_argument('--learning-rate', type=float, default=6e-4)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--max-steps', type=int, default=10 ** 9, help='stop earlier')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    return parser.parse_args(argv)


def load_episodes(folder: Path, device) -> tuple:
    """
    Read all scenes of a dataset into the memory of a device.

    :param folder: dataset folder, one folder per scene
    :param device: torch device
    :return: Episodes for training, Episodes for validation
    :raises SpecError: no scene with images there
    """
    scenes = sorted(p.parent for p in Path(folder).glob('*/rgb.npy'))
    if not scenes:
        raise SpecError(f'No <scene>/rgb.npy under {folder}; make the dataset first: '
                        f'python -m lingbot_world_ros.training.dataset --out {folder}')
    training, validation = Episodes([], []), Episodes([], [])
    for scene in scenes:
        arrays = load_scene(scene, ('rgb', 'action'))
        if len(arrays['rgb']) <= VALIDATION_EPISODES:
            raise SpecError(f'{scene} has {len(arrays["rgb"])} episodes, expected more than the '
                            f'{VALIDATION_EPISODES} that are kept for validation; make more.')
        for name in ('rgb', 'action'):
            whole = torch.from_numpy(np.array(arrays[name])).to(device)
            getattr(training, name).append(whole[:-VALIDATION_EPISODES])
            getattr(validation, name).append(whole[-VALIDATION_EPISODES:])
    return training, validation


def prepare(args, device) -> tuple:
    """Return model, optimizer and {'step', 'seconds'} done, from the checkpoint if there is one."""
    layout = robot_action_layout(ROBOT)
    model = TextbookModel(TextbookSpec(action_dim=len(layout.dims)))
    model.action_scale.copy_(torch.from_numpy(layout.high))
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate, weight_decay=1e-4)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / 'checkpoint.pt'
    if not path.is_file():
        return model, optimizer, {'step': 0, 'seconds': 0.0}
    stored = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(stored['model'])
    optimizer.load_state_dict(stored['optimizer'])
    return model, optimizer, stored['done']


def train(args, model, optimizer, training, validation, done):
    """Optimise until the minutes or the steps are used up."""
    horizon = min(args.horizon, min(a.shape[1] for a in training.action))
    generator = np.random.default_rng([args.seed, done['step']])
    budget, begun, before = args.minutes * 60, time.monotonic(), done['seconds']
    reported, losses = done['seconds'], []
    with tqdm(total=round(budget), initial=round(before), unit='s') as bar:
        while done['seconds'] < budget and done['step'] < args.max_steps:
            rate = schedule(args.learning_rate, done['step'], done['seconds'] / budget)
            for group in optimizer.param_groups:
                group['lr'] = rate
            rgb, action = training.sample(args.batch_size, horizon, generator)
            losses.append(train_step(model, optimizer, rgb, action, args.decoded, generator))
            done['step'] += 1
            done['seconds'] = before + time.monotonic() - begun
            bar.update(min(round(done['seconds']), bar.total) - bar.n)
            if done['seconds'] - reported > REPORT_S:
                reported = done['seconds']
                bar.set_postfix(_report(args, model, optimizer, validation, horizon, done, rate,
                                        losses))
                losses = []
    if losses:
        _report(args, model, optimizer, validation, horizon, done, rate, losses)


def schedule(peak: float, step: int, progress: float) -> float:
    """
    Learning rate: linear warm-up, then a cosine over the time budget.

    :param peak: highest rate
    :param step: optimiser steps done
    :param progress: share of the time budget used, 0..1
    :return: rate
    """
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return peak * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def train_step(model, optimizer, rgb, action, num_decoded, generator):
    """
    Imagine, draw some frames, one optimiser step.

    :return: loss as a tensor on the device: nothing here waits for it
    """
    drawn = generator.permutation(rgb.shape[1])[:num_decoded]
    with torch.autocast(rgb.device.type, torch.bfloat16, enabled=rgb.is_cuda):
        imagined = imagine(model, rgb[:, 0], action, drawn)
    loss = torch.nn.functional.mse_loss(imagined.float(), rgb[:, drawn])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def imagine(model, first, action, frames):
    """Return the imagined images of some frames, (b, len(frames), 3, h, w)."""
    latents = [model.encode(first)]
    for sent in action.unbind(1):
        latents.append(model.advance(latents[-1], sent))
    chosen = torch.stack([latents[f] for f in frames], 1)
    return model.decode(chosen.flatten(0, 1)).unflatten(0, chosen.shape[:2])


@torch.inference_mode()
def validate(model, episodes: Episodes, horizon: int) -> dict:
    """
    Open-loop PSNR on the validation episodes.

    :param model: the model
    :param episodes: validation episodes
    :param horizon: steps per window
    :return: 'psnr_<frames>' -> dB
    """
    rgb, action = episodes.sample(48, horizon, np.random.default_rng(0))
    frames = [f for f in (1, 5, 15) if f <= horizon]
    with torch.autocast(rgb.device.type, torch.bfloat16, enabled=rgb.is_cuda):
        imagined = imagine(model, rgb[:, 0], action, frames)
    error = (imagined.float().clamp(0, 1) - rgb[:, frames]).square().mean((2, 3, 4))  # b f
    return {f'psnr_{f}': float(-10 * torch.log10(error[:, i]).mean())
            for i, f in enumerate(frames)}


def _report(args, model, optimizer, validation, horizon, done, rate, losses):
    """Append to the curve, keep checkpoint and weights."""
    row = {'step': done['step'], 'seconds': round(done['seconds'], 1),
           'frames': done['step'] * args.batch_size * horizon, 'learning_rate': f'{rate:.2e}',
           'loss': f'{torch.stack(losses).mean().item():.6f}'}
    row.update({k: f'{v:.3f}' for k, v in validate(model, validation, horizon).items()})
    path = args.out / 'curve.csv'
    new = not path.is_file()
    with path.open('a', newline='') as file:
        writer = csv.DictWriter(file, CURVE)
        if new:
            writer.writeheader()
        writer.writerow(row)
    partial = args.out / 'checkpoint.partial'
    torch.save({'model': model.state_dict(), 'optimizer': optimizer.state_dict(), 'done': done},
               partial)
    partial.replace(args.out / 'checkpoint.pt')
    save_textbook(model, args.out / 'textbook.safetensors', row)
    return {k: row[k] for k in ('step', 'loss', 'psnr_5') if k in row}


if __name__ == '__main__':
    raise SystemExit(main())
