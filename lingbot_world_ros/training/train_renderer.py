# SPDX-License-Identifier: Apache-2.0
"""
Train the observation model on shuffled (state, image, depth) triples.

    python -m lingbot_world_ros.training.train_renderer --data data --maps runs/maps.safetensors \
        --out runs/renderer --minutes 20

Resumable: run it again with the same folder. Axes: b batch, h w image.
"""
import argparse
import copy
from pathlib import Path
from typing import Any, cast, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from lingbot_world_ros.models.room.renderer import make_maps, Renderer, SceneMap
from lingbot_world_ros.progress import progress_bar
from lingbot_world_ros.training.dataset import load_scene
from lingbot_world_ros.training.runs import cosine, Run, update_average
import numpy as np
from safetensors.torch import load_file, save_file
import torch
from torch import Tensor
from torch.nn import functional as F

HELD_OUT = 0.02  # last share of the episodes, for the curve
HELD_OUT_BATCHES = 4
Batch = Dict[str, Tensor]


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Train; see the module's text."""
    parser = argparse.ArgumentParser(description='Train the observation model.')
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--maps', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--minutes', type=float, default=20.0, help='budget over all attempts')
    parser.add_argument('--stop-after', type=float, default=1e9, help='minutes of this attempt')
    parser.add_argument('--batch', type=int, default=32, help='frames per scene and step')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--eager', action='store_true', help='no CUDA graph')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    frames = {p.name: Frames(p, args.device) for p in sorted(args.data.iterdir())
              if (p / 'rgb.npy').exists()}
    model = Trainee(frames, load_file(args.maps)).to(args.device)
    model.renderer.autocast = True
    average = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW(model.groups(), lr=1.0, betas=(0.9, 0.99), weight_decay=0.0)
    base = [g['lr'] for g in optimiser.param_groups]
    run = Run(args.out, args.minutes, args.stop_after, model=model, average=average,
              optimiser=optimiser)
    generator = torch.Generator().manual_seed(args.seed + run.step)
    train(args, run, model, average, optimiser, base, frames, generator)
    run.save()
    save_average(average, args.out)


def train(args: argparse.Namespace, run: Run, model: 'Trainee', average: 'Trainee',
          optimiser: torch.optim.Optimizer, base: Sequence[float], frames: Dict[str, 'Frames'],
          generator: torch.Generator) -> None:
    """Run optimiser steps until the budget or this attempt's time is used up."""
    next_log = run.used_s + 30
    gradients = Gradients(model, eager=args.eager)
    with progress_bar(total=100, unit='%', mininterval=10,
                      bar_format='{l_bar}{bar}{postfix}') as bar:
        while run.active:
            for group, rate in zip(optimiser.param_groups, base):
                group['lr'] = rate * cosine(run.progress)
            losses = gradients({name: source.batch(args.batch, generator)
                                for name, source in frames.items()})
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            update_average(average, model, min(0.9995, run.step / (run.step + 20)))
            run.step += 1
            bar.n = round(100 * run.progress, 1)
            if run.used_s > next_log:
                next_log = run.used_s + 30
                scores = validate(average, frames)
                run.log(**losses, **scores)
                run.save()
                bar.set_postfix(step=run.step, **{k: f'{v:.2f}' for k, v in scores.items()})


def save_average(average: 'Trainee', folder: Path) -> None:
    """Write what export reads: the shared network, and per scene its map in half precision."""
    save_file({k: v.contiguous() for k, v in average.renderer.state_dict().items()},
              folder / 'renderer.safetensors')
    for name, scene_map in average.maps.items():
        save_file({k: v.half().contiguous() for k, v in scene_map.state_dict().items()},
                  folder / f'map_{name}.safetensors')


class Gradients:
    """
    Fill the gradients of a step; on a GPU recorded once and replayed.

    The geometry is hundreds of small kernels: launching them one by one left the GPU idle.
    """

    def __init__(self, model: 'Trainee', eager: bool):
        """Record nothing yet; ``eager`` never does."""
        self.eager = eager or not next(model.parameters()).is_cuda
        self.model = model
        self.graph: Any = None  # torch.cuda.CUDAGraph
        self.inputs: Any = None  # the buffers that it reads
        self.losses: Any = None

    def __call__(self, batches: Dict[str, Batch]) -> Dict[str, Tensor]:
        """Take name -> batch; return the parts of the last scene's loss."""
        if self.eager:
            return self._run(batches)
        if self.graph is None:
            self._record(batches)
        for name, batch in batches.items():
            for key, value in batch.items():
                self.inputs[name][key].copy_(value)
        self.graph.replay()
        return self.losses

    def _run(self, batches: Dict[str, Batch]) -> Dict[str, Tensor]:
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        for name, batch in batches.items():
            loss, losses = self.model.loss(name, batch)
            loss.backward()
        return losses

    def _record(self, batches: Dict[str, Batch]) -> None:
        self.inputs = {n: {k: v.clone() for k, v in b.items()} for n, b in batches.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._run(self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.losses = self._run(self.inputs)


@torch.no_grad()
def validate(model: 'Trainee', frames: Dict[str, 'Frames']) -> Dict[str, Tensor]:
    """PSNR [dB] and depth error on held-out episodes, over all scenes."""
    squares, arm, depth_error = [], [], []
    for name, source in frames.items():
        for batch in source.held_out(48):
            rgb, depth, front, _ = model.render(name, batch)
            square = ((rgb.clamp(0, 1) - batch['rgb']) ** 2).mean(1)
            squares.append(square.mean((1, 2)))
            weight = model.arm_weight(batch['joints'])
            arm.append((square * weight).sum() / weight.sum())
            depth_error.append(((depth - batch['depth']).abs() / batch['depth']).mean())
    return {'psnr': -10 * torch.cat(squares).log10().mean(),
            'arm_psnr': -10 * torch.stack(arm).mean().log10(),
            'depth_rel': torch.stack(depth_error).mean()}


class Frames:
    """Frames of one scene, on the training device if that is a GPU, else memory-mapped."""

    def __init__(self, folder: Path, device: str):
        """Open the files of one scene."""
        names = ('rgb', 'depth', 'base_pose', 'joint_position', 'object_pose')
        self.device = device
        self.arrays: Dict[str, Any] = {}
        for name, array in load_scene(folder, names).items():
            flat = array.reshape(-1, *array.shape[2:])
            self.arrays[name] = torch.from_numpy(np.ascontiguousarray(flat)).to(device) \
                if device != 'cpu' else flat
        per_episode = array.shape[1]
        total = len(flat) // per_episode
        self.split = max(1, int(total * (1 - HELD_OUT))) * per_episode
        self.total = len(flat)

    def batch(self, size: int, generator: torch.Generator) -> Batch:
        """Draw training frames."""
        return self._at(torch.randint(self.split, (size,), generator=generator))

    def held_out(self, size: int) -> Iterator[Batch]:
        """Yield the same held-out frames on every call, evenly spread."""
        index = torch.linspace(self.split, self.total - 1, size * HELD_OUT_BATCHES).long()
        yield from (self._at(i) for i in index.split(size))

    def _at(self, index: Tensor) -> Batch:
        if self.device == 'cpu':
            part = {k: torch.from_numpy(np.stack([a[i] for i in index.tolist()]))
                    for k, a in self.arrays.items()}
        else:
            index = index.to(self.device, non_blocking=True)
            part = {k: a[index] for k, a in self.arrays.items()}
        return {'rgb': part['rgb'].permute(0, 3, 1, 2).float() / 255,
                'depth': part['depth'].float(), 'pose': part['base_pose'],
                'joints': part['joint_position'], 'objects': part['object_pose']}


class Trainee(torch.nn.Module):
    """Shared renderer and the maps of all scenes, with their loss."""

    def __init__(self, scenes: Iterable[str], fused: Dict[str, Tensor]):
        """Start the maps from the fused distance grids."""
        super().__init__()
        self.renderer, self.maps = Renderer(), make_maps(list(scenes))
        for name, scene_map in self.maps.items():
            scene_map.sdf.data = fused[f'{name}.sdf'].float()

    def groups(self) -> List[Dict[str, Any]]:
        """Parameter groups with their peak learning rates; the grid moves in metres."""
        maps = cast(Iterable[SceneMap], self.maps.values())
        return [{'params': list(self.renderer.parameters()), 'lr': 2e-3},
                {'params': [p for m in maps for p in m.planes], 'lr': 5e-3},
                {'params': [p for m in maps for p in m.objects], 'lr': 3e-3},
                {'params': [m.sdf for m in maps], 'lr': 3e-4}]

    def render(self, name: str, batch: Batch) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Render a batch of one scene."""
        return self.renderer(batch['pose'], batch['joints'], batch['objects'],
                             cast(SceneMap, self.maps[name]).tensors())

    @torch.no_grad()
    def arm_weight(self, joints: Tensor) -> Tensor:
        """How near a pixel is to the arm, (b, h, w), 0..1."""
        maps = self.renderer.arm_maps(joints)
        near = maps[:, :maps.shape[1] // 4].amax(1, keepdim=True)
        return F.interpolate(near, scale_factor=2.0, mode='bilinear')[:, 0]

    def loss(self, name: str, batch: Batch) -> Tuple[Tensor, Dict[str, Tensor]]:
        """Colour, edges, depth of the map, depth and outline of what stands before it."""
        rgb, depth, front, static = self.render(name, batch)
        truth = batch['rgb']
        weight = 1 + 3 * self.arm_weight(batch['joints'])
        error = rgb - truth
        colour = (weight * (error.abs() + 2.0 * error * error).mean(1)).mean()
        edges = (error[..., 1:] - error[..., :-1]).abs().mean() \
            + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        behind = static - batch['depth']  # far behind: something movable is in front
        geometry = torch.where(behind > 0.15, torch.zeros_like(behind),
                               behind.abs().clamp_max(1.0)).mean()
        occluded = (behind > 0.06).float()
        outline = F.binary_cross_entropy(front.clamp(1e-4, 1 - 1e-4), occluded)
        relative = ((depth - batch['depth']).abs() / batch['depth']).clamp_max(1.0).mean()
        total = colour + 0.5 * edges + 0.5 * geometry + 0.1 * outline + 0.2 * relative
        return total, {'colour': colour.detach(), 'edges': edges.detach(),
                       'geometry': geometry.detach(), 'outline': outline.detach()}


if __name__ == '__main__':
    main()
