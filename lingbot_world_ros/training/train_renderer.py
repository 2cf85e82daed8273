# SPDX-License-Identifier: Apache-2.0
"""
Train the observation model on shuffled (state, image, depth) triples.

    python -m lingbot_world_ros.training.train_renderer --data data --maps runs/maps.safetensors \
        --out runs/renderer --minutes 20

Small pictures are taught to trained weights, with data of several sizes:

    python -m lingbot_world_ros.training.train_renderer --data data/80x60 data/64x48 \
        --small-from lingbot_world_ros/models/room/weights --out runs/small --minutes 30

Resumable: run it again with the same folder. Axes: b batch, h w image.
"""
import argparse
import copy
from pathlib import Path
from typing import Any, cast, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from lingbot_world_ros.models.room.renderer import (camera_tensors, make_maps, Renderer,
                                                    RendererSpec, SceneMap, SMALL)
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
Sources = Dict[str, List['Frames']]  # by scene, one for each size of picture


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Train; see the module's text."""
    parser = argparse.ArgumentParser(description='Train the observation model.')
    parser.add_argument('--data', type=Path, required=True, nargs='+',
                        help='of the same scenes, in as many sizes as there are folders')
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument('--maps', type=Path)
    start.add_argument('--small-from', type=Path, metavar='WEIGHTS', help='exported weights')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--minutes', type=float, default=20.0, help='budget over all attempts')
    parser.add_argument('--stop-after', type=float, default=1e9, help='minutes of this attempt')
    parser.add_argument('--batch', type=int, default=32, help='frames per scene and step')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--eager', action='store_true', help='no CUDA graph')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    if args.device == 'cpu':
        torch.set_num_threads(1)  # two collapse when another process is busy
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    frames: Sources = {}
    for folder in sorted(p for p in args.data[0].iterdir() if (p / 'rgb.npy').exists()):
        opened = {data: Frames(data / folder.name, args.device) for data in args.data}
        frames[folder.name] = [opened[data] for data in args.data]
    if args.small_from:
        model = Trainee(frames, SMALL)
        model.start_small(args.small_from)
    else:
        model = Trainee(frames)
        model.start_from(load_file(args.maps))
    model.to(args.device)
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
          optimiser: torch.optim.Optimizer, base: Sequence[float], frames: Sources,
          generator: torch.Generator) -> None:
    """Run optimiser steps until the budget or this attempt's time is used up."""
    period_s = max(30.0, run.budget_s / 30)
    next_log = run.used_s + period_s
    gradients = Gradients(model, eager=args.eager or len(args.data) > 1)
    with progress_bar(total=100, unit='%', mininterval=10,
                      bar_format='{l_bar}{bar}{postfix}') as bar:
        while run.active:
            for group, rate in zip(optimiser.param_groups, base):
                group['lr'] = rate * cosine(run.progress)
            losses = gradients({name: sizes[run.step % len(sizes)].batch(args.batch, generator)
                                for name, sizes in frames.items()})
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            update_average(average, model, min(0.9995, run.step / (run.step + 20)))
            run.step += 1
            bar.n = round(100 * run.progress, 1)
            if run.used_s > next_log:
                next_log = run.used_s + period_s
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


def load_network(path: Path) -> Dict[str, Tensor]:
    """Return the shared network of an exported observation graph: name -> float32 tensor."""
    import onnx
    prefix = 'renderer.'
    return {part.name[len(prefix):]: torch.tensor(onnx.numpy_helper.to_array(part)).float()
            for part in onnx.load(str(path)).graph.initializer if part.name.startswith(prefix)}


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
def validate(model: 'Trainee', frames: Sources) -> Dict[str, Tensor]:
    """PSNR [dB] and depth error on held-out episodes, over all scenes."""
    squares, arm, depth_error = [], [], []
    for name, sizes in frames.items():
        sources = set(sizes)
        for batch in (b for source in sources for b in source.held_out(48 // len(sources))):
            rgb, depth, front, _ = model.render(name, batch)
            square = ((rgb.clamp(0, 1) - batch['rgb']) ** 2).mean(1)
            squares.append(square.mean((1, 2)))
            weight = model.arm_weight(batch)
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

    def __init__(self, scenes: Iterable[str], spec: RendererSpec = RendererSpec()):
        """Start from empty maps."""
        super().__init__()
        self.renderer, self.maps = Renderer(spec), make_maps(list(scenes), spec)
        self.is_tuned = False  # from weights that can draw already
        self._cameras: Dict[Tuple[int, int], Dict[str, Tensor]] = {}  # by size of picture

    def start_from(self, fused: Dict[str, Tensor]) -> None:
        """Start the maps from the fused distance grids."""
        for name, scene_map in self._scene_maps():
            scene_map.sdf.data = fused[f'{name}.sdf'].float()

    def start_small(self, weights: Path) -> None:
        """Start from exported weights, the planes averaged to larger texels."""
        self.is_tuned = True
        self.renderer.load_state_dict(load_network(weights / 'renderer.onnx'))
        for name, scene_map in self._scene_maps():
            trained = load_file(weights / f'{name}.safetensors')
            scene_map.sdf.data = trained['sdf'].float()
            for axes, plane in zip(('xy', 'xz', 'yz'), scene_map.planes):
                plane.data = F.interpolate(trained[f'plane_{axes}'].float(),
                                           size=plane.shape[2:], mode='area')
            for i, weight in enumerate(scene_map.objects):
                weight.data = trained[f'object_{i}'].float()

    def groups(self) -> List[Dict[str, Any]]:
        """Parameter groups with their peak learning rates; the grid moves in metres."""
        maps = [scene_map for _, scene_map in self._scene_maps()]
        slower = 0.5 if self.is_tuned else 1.0
        groups = [{'params': list(self.renderer.parameters()), 'lr': 2e-3 * slower},
                  {'params': [p for m in maps for p in m.planes], 'lr': 5e-3},
                  {'params': [p for m in maps for p in m.objects], 'lr': 3e-3 * slower}]
        grids = [m.sdf for m in maps]
        if self.is_tuned:  # where surfaces are does not change with the size of a pixel
            for grid in grids:
                grid.requires_grad_(False)
            return groups
        return [*groups, {'params': grids, 'lr': 3e-4}]

    def _scene_maps(self) -> List[Tuple[str, SceneMap]]:
        return cast(List[Tuple[str, SceneMap]], list(self.maps.items()))

    def _camera(self, batch: Batch) -> Dict[str, Tensor]:
        """Return the tensors of the robot's camera in the size of a batch's pictures."""
        height, width = batch['rgb'].shape[2:]
        if (height, width) not in self._cameras:
            camera = self.renderer.robot.camera.resized(width, height)
            self._cameras[height, width] = {name: value.to(batch['rgb'].device) for name, value
                                            in camera_tensors(camera).items()}
        return self._cameras[height, width]

    def render(self, name: str, batch: Batch) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Render a batch of one scene."""
        return self.renderer(batch['pose'], batch['joints'], batch['objects'],
                             cast(SceneMap, self.maps[name]).tensors(), self._camera(batch))

    @torch.no_grad()
    def arm_weight(self, batch: Batch) -> Tensor:
        """How near a pixel is to the arm, (b, h, w), 0..1."""
        maps = self.renderer.arm_maps(batch['joints'], self._camera(batch))
        near = maps[:, :maps.shape[1] // 4].amax(1, keepdim=True)
        return F.interpolate(near, scale_factor=2.0, mode='bilinear')[:, 0]

    def loss(self, name: str, batch: Batch) -> Tuple[Tensor, Dict[str, Tensor]]:
        """Colour, edges, depth of the map, depth and outline of what stands before it."""
        rgb, depth, front, static = self.render(name, batch)
        truth = batch['rgb']
        weight = 1 + 3 * self.arm_weight(batch)
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
