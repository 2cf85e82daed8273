# SPDX-License-Identifier: Apache-2.0
"""
Train the transition model on state sequences, by rolling it out on its own predictions.

    python -m lingbot_world_ros.training.train_dynamics --data states \
        --maps runs/maps.safetensors --out runs/dynamics --minutes 40

Resumable: run it again with the same folder. Axes: b batch, t time, j joint, k object.
"""
import argparse
import copy
from pathlib import Path
from typing import Any, cast, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from lingbot_world_ros.models.room.dynamics import (Dynamics, DynamicsSpec, MOTION_SCALE,
                                                    SceneContact)
from lingbot_world_ros.models.room.state import advance, RoomState
from lingbot_world_ros.progress import progress_bar
from lingbot_world_ros.training.dataset import load_scene
from lingbot_world_ros.training.runs import cosine, Run, update_average
from lingbot_world_ros.worlds.scenes import get_scene
import numpy as np
from safetensors.torch import load_file, save_file
import torch
from torch import Tensor
from torch.nn import functional as F

# Errors of this size weigh one: metres and radians; joints rad or m.
ERROR_SCALE = {'position': 0.03, 'yaw': 0.02, 'joints': 0.01, 'objects': 0.05, 'object_yaw': 0.1}
Batch = Dict[str, Tensor]


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Train; see the module's text."""
    parser = argparse.ArgumentParser(description='Train the transition model.')
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--maps', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--minutes', type=float, default=40.0, help='budget over all attempts')
    parser.add_argument('--stop-after', type=float, default=1e9, help='minutes of this attempt')
    parser.add_argument('--batch', type=int, default=32, help='sequences per scene and step')
    parser.add_argument('--horizon', type=int, default=60, help='longest rollout, frames')
    parser.add_argument('--rate', type=float, default=2e-3, help='peak learning rate')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    maps = load_file(args.maps)
    data = {p.name: Sequences(p, args.device) for p in sorted(args.data.iterdir()) if p.is_dir()}
    model = Trainee(data, maps).to(args.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.98),
                                  weight_decay=1e-4)
    average = copy.deepcopy(model).eval()
    run = Run(args.out, args.minutes, args.stop_after, model=model, average=average,
              optimiser=optimiser)
    generator = torch.Generator().manual_seed(args.seed + run.step)
    next_log, losses = run.used_s + 30, None
    with progress_bar(total=100, unit='%', mininterval=10,
                      bar_format='{l_bar}{bar}{postfix}') as bar:
        while run.active:
            for group in optimiser.param_groups:
                group['lr'] = args.rate * cosine(run.progress)
            length = int(min(args.horizon, 6 + 2 * args.horizon * run.progress))
            optimiser.zero_grad(set_to_none=True)
            loss, losses = model.loss(list(data), merge(
                [source.batch(args.batch, length, generator) for source in data.values()]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            update_average(average, model, min(0.998, run.step / (run.step + 20)))
            run.step += 1
            bar.n = round(100 * run.progress, 1)
            if run.used_s > next_log:
                next_log = run.used_s + 30
                bar.set_postfix(step=run.step, **report(run, average, data, losses))
    if losses:
        report(run, average, data, losses)
    save_file({k: v.contiguous() for k, v in average.state_dict().items()},
              args.out / 'dynamics.safetensors')


def report(run: Run, average: 'Trainee', data: Dict[str, 'Sequences'],
           losses: Dict[str, Tensor]) -> Dict[str, str]:
    """Validate, append to the curve, keep a checkpoint; return what the bar shows."""
    scores = validate(average, data)
    run.log(**losses, **scores)
    run.save()
    return {k: f'{v:.4f}' for k, v in scores.items()}


@torch.no_grad()
def validate(model: 'Trainee', data: Dict[str, 'Sequences']) -> Dict[str, Tensor]:
    """Errors after 60 frames and at the end of held-out sequences, from a known start."""
    rows = []
    for name, source in data.items():
        batch = source.held_out()
        errors = model.errors([name], batch)
        rows.append({f'{k}_{t + 1}': v[:, t].mean() for k, v in errors.items()
                     for t in (14, 59, v.shape[1] - 1) if t < v.shape[1]})
    return {k: torch.stack([r[k] for r in rows]).mean() for k in rows[0]}


def merge(batches: Sequence[Batch]) -> Batch:
    """Put the batches of several scenes one after the other."""
    return {k: torch.cat([b[k] for b in batches]) for k in batches[0]}


class Sequences:
    """State sequences of one scene, on the training device."""

    def __init__(self, folder: Path, device: str):
        """Read the files of one scene; the last 64 (at most a tenth) are held out."""
        names = ('action', 'base_pose', 'base_twist', 'joint_position', 'joint_velocity',
                 'object_pose', 'contact')
        self.arrays = {k: torch.from_numpy(np.array(a)).float().to(device)
                       for k, a in load_scene(folder, names).items()}
        n, self.frames = self.arrays['action'].shape[:2]
        self.split = n - max(1, min(64, n // 10))

    def batch(self, size: int, length: int, generator: torch.Generator) -> Batch:
        """Draw windows of ``length`` steps; a third of them at the start of an episode."""
        episode = torch.randint(self.split, (size, 1), generator=generator)
        begin = torch.randint(self.frames - length + 1, (size, 1), generator=generator)
        begin[:size // 3] = 0
        return self._window(episode, begin, length)

    def held_out(self) -> Batch:
        """All held-out episodes, whole."""
        episode = torch.arange(self.split, len(self.arrays['action']))[:, None]
        return self._window(episode, torch.zeros_like(episode), self.frames)

    def _window(self, episode: Tensor, begin: Tensor, length: int) -> Batch:
        t = begin + torch.arange(length + 1)
        out = {k: a[episode, t] for k, a in self.arrays.items() if k != 'action'}
        out['action'] = self.arrays['action'][episode, t[:, :-1]]
        before = self.arrays['object_pose'][episode, (begin - 1).clamp_min(0)]
        out['object_pose_before'] = before[:, 0]
        return out


class Trainee(torch.nn.Module):
    """Transition model and what it knows of each scene, with their loss."""

    def __init__(self, scenes: Iterable[str], maps: Dict[str, Tensor],
                 spec: DynamicsSpec = DynamicsSpec()):
        """Take the clearance maps from the fused scene maps."""
        super().__init__()
        self.dynamics = Dynamics(spec)
        self.contact = torch.nn.ModuleDict({n: SceneContact(get_scene(n), spec) for n in scenes})
        for name in scenes:
            self._contact_of(name).get_buffer('clearance').copy_(maps[f'{name}.clearance'])

    def _contact_of(self, name: str) -> SceneContact:
        return cast(SceneContact, self.contact[name])

    def rollout(self, names: Sequence[str], batch: Batch,
                posterior: bool) -> Iterator[Tuple[int, RoomState, Dict[str, Tensor]]]:
        """Yield (t, state after step t, output of step t) from the first true state."""
        scene, dynamics = merge([self._contact_of(n).tensors() for n in names]), self.dynamics
        actions = batch['action']
        state = self._first_state(batch)
        b, latent = len(actions), dynamics.spec.latent
        inferred = torch.rand(b, 1, device=actions.device) < (0.5 if posterior else -1.0)
        noisy = (torch.rand(b, 1, device=actions.device) < (0.5 if posterior else -1.0)).float()
        seen = self.seen(batch)
        for t in range(actions.shape[1]):
            noise = noisy * torch.randn(b, latent, device=actions.device)
            out = dynamics(state, actions[:, t], noise, scene,
                           (inferred, seen[:, t]) if posterior else None)
            state = advance(state, out, dynamics.joint_low, dynamics.joint_high, torch)
            yield t, state, out

    def _first_state(self, batch: Batch) -> RoomState:
        state = self.dynamics.start(batch['base_pose'][:, 0], batch['joint_position'][:, 0],
                                    batch['object_pose'][:, 0])
        moved = in_base(batch['object_pose'][:, 0] - batch['object_pose_before'],
                        batch['base_pose'][:, 0])
        return RoomState(state.pose, batch['base_twist'][:, 0], state.joints,
                         batch['joint_velocity'][:, 0], state.objects, moved, state.hidden,
                         state.variance)

    def seen(self, batch: Batch) -> Tensor:
        """What really happened in each frame, scaled: (b, t, 6 + 2 j + 1)."""
        d = self.dynamics
        pose = batch['base_pose']
        c, s = torch.cos(pose[:, :-1, 2]), torch.sin(pose[:, :-1, 2])
        dx, dy, turn = (pose[:, 1:] - pose[:, :-1]).unbind(-1)
        motion = torch.stack([c * dx + s * dy, -s * dx + c * dy, turn], -1)
        q, speed = batch['joint_position'], batch['joint_velocity'][:, 1:]
        return torch.cat([motion / motion.new_tensor(MOTION_SCALE),
                          batch['base_twist'][:, 1:] / d.twist_scale,
                          (q[:, 1:] - q[:, :-1]) / (0.1 * d.joint_max_speed),
                          speed / d.joint_max_speed, batch['contact'][:, 1:, None]], -1)

    def loss(self, names: Sequence[str], batch: Batch) -> Tuple[Tensor, Dict[str, Tensor]]:
        """Accumulated errors of the rollout, one-frame errors, calibration, and the latent."""
        target = self.seen(batch)
        d = self.dynamics
        parts: Dict[str, Any] = dict.fromkeys(
            ('state', 'frame', 'calibration', 'latent', 'contact'), 0.0)
        j = d.num_joints
        for t, state, out in self.rollout(names, batch, posterior=True):
            error = state_error(state, batch, t + 1)
            parts['state'] += sum(F.smooth_l1_loss(e / ERROR_SCALE[k], torch.zeros_like(e))
                                  for k, e in error.items())
            got = torch.cat([out['motion'] / d.motion_scale, out['twist'] / d.twist_scale,
                             out['joint_motion'] / (0.1 * d.joint_max_speed),
                             out['joint_speed'] / d.joint_max_speed], -1)
            parts['frame'] += F.smooth_l1_loss(10 * got, 10 * target[:, t, :6 + 2 * j])
            pushed = moved_in_base(batch, t) / d.motion_scale
            parts['frame'] += F.smooth_l1_loss(10 * out['object_motion'] / d.motion_scale,
                                               10 * pushed)
            parts['contact'] += F.binary_cross_entropy_with_logits(out['contact'],
                                                                   target[:, t, -1])
            square = torch.cat([(error['position'] ** 2).sum(-1, keepdim=True) / 2,
                                error['yaw'] ** 2, error['joints'] ** 2,
                                (error['objects'] ** 2).sum(-1) / 2], -1).detach()
            variance = state.variance + 1e-7
            parts['calibration'] += (0.5 * (variance.log() + square / variance)).mean()
            parts['latent'] += divergence(out['posterior'], out['prior'])
        n = t + 1
        weights = {'state': 1.0, 'frame': 1.0, 'calibration': 0.01, 'latent': 0.1, 'contact': 0.1}
        total = sum(weights[k] * v for k, v in parts.items()) / n
        return total, {k: v.detach() / n for k, v in parts.items()}

    def errors(self, names: Sequence[str], batch: Batch) -> Dict[str, Tensor]:
        """Position, objects [m], yaws [deg], joints [rad] per sequence and frame: (b, t)."""
        rows: Dict[str, List[torch.Tensor]] = {k: [] for k in ERROR_SCALE}
        for t, state, out in self.rollout(names, batch, posterior=False):
            error = state_error(state, batch, t + 1)
            rows['position'].append(error['position'].norm(dim=-1))
            rows['yaw'].append(error['yaw'][:, 0].abs() * 180 / np.pi)
            rows['joints'].append(error['joints'].abs().mean(-1))
            rows['objects'].append(error['objects'].norm(dim=-1).mean(-1))
            rows['object_yaw'].append(error['object_yaw'].abs().mean(-1) * 180 / np.pi)
        return {k: torch.stack(v, 1) for k, v in rows.items()}


def state_error(state: RoomState, batch: Batch, t: int) -> Dict[str, Tensor]:
    """Return differences to the truth at frame t: metres, radians."""
    turn = state.pose[:, 2:] - batch['base_pose'][:, t, 2:]
    return {'position': state.pose[:, :2] - batch['base_pose'][:, t, :2], 'yaw': turn,
            'joints': state.joints - batch['joint_position'][:, t],
            'objects': state.objects[..., :2] - batch['object_pose'][:, t, :, :2],
            'object_yaw': state.objects[..., 2] - batch['object_pose'][:, t, :, 2]}


def in_base(motion: Tensor, base_pose: Tensor) -> Tensor:
    """Turn scene-frame motions (b, k, 3) into base_link axes of base poses (b, 3)."""
    c, s = torch.cos(base_pose[:, 2:3]), torch.sin(base_pose[:, 2:3])
    return torch.stack([c * motion[..., 0] + s * motion[..., 1],
                        -s * motion[..., 0] + c * motion[..., 1], motion[..., 2]], -1)


def moved_in_base(batch: Batch, t: int) -> Tensor:
    """How the objects really moved from frame t to t + 1, (b, k, 3) in base_link axes."""
    return in_base(batch['object_pose'][:, t + 1] - batch['object_pose'][:, t],
                   batch['base_pose'][:, t])


def divergence(posterior: Tensor, prior: Tensor) -> Tensor:
    """KL of two diagonal Gaussians given as (b, 2 latent) mean and pre-softplus spread, nats."""
    (m_q, s_q), (m_p, s_p) = posterior.chunk(2, -1), prior.chunk(2, -1)
    s_q, s_p = F.softplus(s_q) + 0.01, F.softplus(s_p) + 0.01
    kl = (s_p / s_q).log() + (s_q ** 2 + (m_q - m_p) ** 2) / (2 * s_p ** 2) - 0.5
    return kl.sum(-1).mean()


if __name__ == '__main__':
    main()
