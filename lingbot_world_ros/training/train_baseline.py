# SPDX-License-Identifier: Apache-2.0
"""
Train the baseline on the episodes that the embedded world is trained on. Needs torch.

    python -m lingbot_world_ros.training.train_baseline --data data --out run --minutes 9

Every step encodes one frame of random episodes, imagines ``--horizon`` frames from it in latent
space and draws some of them; the loss is their mean squared error. A run that was stopped
continues when the same command is given again. Writes ``baseline.safetensors``, ``curve.csv``
and ``checkpoint.pt``.
"""
import argparse
from dataclasses import dataclass
from pathlib import Path
import time
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.baseline.network import BaselineModel, BaselineSpec, save_baseline
from lingbot_world_ros.progress import progress_bar
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.training.dataset import load_scene
from lingbot_world_ros.training.runs import cosine, Run
import numpy as np
import torch

VALIDATION_EPISODES = 16  # per scene, the last ones, never trained on
REPORT_S = 30.0


@dataclass
class Episodes:
    """Episodes of all scenes on one device; rgb (n, t + 1, h, w, 3) uint8, action (n, t, a)."""

    rgb: List[torch.Tensor]
    action: List[torch.Tensor]

    def sample(self, batch_size: int, horizon: int,
               generator: np.random.Generator) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        Draw random windows, every episode of every scene equally often.

        :param batch_size: b
        :param horizon: steps t of a window
        :param generator: of the numbers drawn
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

    def _window(self, scene: int, rows: np.ndarray, starts: np.ndarray,
                horizon: int) -> Tuple[torch.Tensor, torch.Tensor]:
        device = self.rgb[scene].device
        row = torch.as_tensor(rows, device=device)[:, None]
        times = torch.as_tensor(starts, device=device)[:, None] + torch.arange(
            horizon + 1, device=device)
        view = self.rgb[scene][row, times].permute(0, 1, 4, 2, 3).float() / 255
        return view, self.action[scene][row, times[:, :-1]]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Train; see the module's text."""
    args = parse(argv)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = True
    device = torch.device(args.device)
    training, validation = load_episodes(args.data, device)
    model = make_model().to(  # type: ignore[call-overload]  # torch's types lack memory_format
        device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate, weight_decay=1e-4)
    run = Run(args.out, args.minutes, args.stop_after, model=model, optimizer=optimizer)
    train(args, run, model, optimizer, training, validation)
    print(f'Written: {args.out / "baseline.safetensors"}')
    return 0


def parse(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """Return the parsed arguments."""
    parser = argparse.ArgumentParser(description='Train the baseline.')
    parser.add_argument('--data', type=Path, required=True, help='what training.dataset wrote')
    parser.add_argument('--out', type=Path, required=True, help='folder for weights and curve')
    parser.add_argument('--minutes', type=float, default=10.0, help='training time in all')
    parser.add_argument('--stop-after', type=float, default=1e9, help='minutes of this attempt')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--horizon', type=int, default=24, help='imagined frames per window')
    parser.add_argument('--decoded', type=int, default=8, help='of which so many are drawn')
    parser.add_argument('--learning-rate', type=float, default=6e-4)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--max-steps', type=int, default=10 ** 9, help='stop earlier')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    return parser.parse_args(argv)


def load_episodes(folder: Path, device: torch.device) -> Tuple[Episodes, Episodes]:
    """
    Read all scenes of a dataset into the memory of a device.

    :param folder: dataset folder, one folder per scene
    :param device: where to
    :return: episodes for training, episodes for validation
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


def make_model() -> BaselineModel:
    """Return the untrained model of the embedded world's robot."""
    robot = load_robot()
    layout = robot_action_layout(robot)
    model = BaselineModel(BaselineSpec(robot.camera.width_px, robot.camera.height_px,
                                       len(layout.dims)))
    model.get_buffer('action_scale').copy_(torch.from_numpy(layout.high))
    return model


def train(args: argparse.Namespace, run: Run, model: BaselineModel,
          optimizer: torch.optim.Optimizer, training: Episodes, validation: Episodes) -> None:
    """Optimise until the minutes or the steps are used up."""
    horizon = min(args.horizon, min(a.shape[1] for a in training.action))
    generator = np.random.default_rng([args.seed, run.step])
    reported = time.monotonic()
    losses: List[torch.Tensor] = []
    with progress_bar(total=round(run.budget_s), unit='s', mininterval=2.0) as bar:
        while run.active and run.step < args.max_steps:
            for group in optimizer.param_groups:
                group['lr'] = args.learning_rate * cosine(run.progress)
            rgb, action = training.sample(args.batch_size, horizon, generator)
            losses.append(train_step(model, optimizer, rgb, action, args.decoded, generator))
            run.step += 1
            bar.update(int(run.progress * run.budget_s) - bar.n)
            if time.monotonic() - reported > REPORT_S:
                bar.set_postfix(_report(run, model, validation, horizon, losses))
                reported, losses = time.monotonic(), []
    if losses:
        _report(run, model, validation, horizon, losses)


def train_step(model: BaselineModel, optimizer: torch.optim.Optimizer, rgb: torch.Tensor,
               action: torch.Tensor, num_decoded: int,
               generator: np.random.Generator) -> torch.Tensor:
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


def imagine(model: BaselineModel, first: torch.Tensor, action: torch.Tensor,
            frames: Iterable[int]) -> torch.Tensor:
    """Return the imagined images of some frames, (b, len(frames), 3, h, w)."""
    latents = [model.encode(first)]
    for sent in action.unbind(1):
        latents.append(model.advance(latents[-1], sent))
    chosen = torch.stack([latents[f] for f in frames], 1)
    return model.decode(chosen.flatten(0, 1)).unflatten(0, chosen.shape[:2])


@torch.inference_mode()
def validate(model: BaselineModel, episodes: Episodes, horizon: int) -> Dict[str, float]:
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


def _report(run: Run, model: BaselineModel, validation: Episodes, horizon: int,
            losses: List[torch.Tensor]) -> dict:
    """Append to the curve, keep checkpoint and weights; return what the bar shows."""
    row = {'loss': torch.stack(losses).mean().item(), **validate(model, validation, horizon)}
    run.log(**row)
    run.save()
    save_baseline(model, run.folder / 'baseline.safetensors',
                  {'step': run.step, 'minutes': round(run.used_s / 60, 2), **row})
    return {'step': run.step, **{k: f'{v:.3f}' for k, v in row.items()}}


if __name__ == '__main__':
    raise SystemExit(main())
