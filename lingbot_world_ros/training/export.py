# SPDX-License-Identifier: Apache-2.0
"""
Trained parts -> the files that ship: two ONNX graphs and one safetensors file per scene.

    python -m lingbot_world_ros.training.export --renderer runs/renderer \
        --dynamics runs/dynamics --out lingbot_world_ros/models/room/weights

The graphs are the same for all scenes; what a scene looks like travels in as inputs.
"""
import argparse
import hashlib
import json
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from lingbot_world_ros.models.room.dynamics import (CONTACT_TENSORS, Dynamics, DynamicsSpec,
                                                    SceneContact)
from lingbot_world_ros.models.room.renderer import Renderer, RendererSpec, SCENE_TENSORS, SceneMap
from lingbot_world_ros.models.room.state import RoomState
from lingbot_world_ros.worlds.scenes import get_scene, SCENES
from safetensors.torch import load_file, save_file
import torch
from torch import nn, Tensor
from torch.nn import functional as F

FORMAT = 1  # of the weights folder; models/room/runtime.py reads this one
# Expected image error before training.calibrate has measured it.
UNCALIBRATED = {'floor': dict.fromkeys(SCENES, 0.02), 'gain': [1.0, 1.0, 1.0], 'ceiling': 0.25,
                'calibrated_to': 0.0}
DYNAMICS_INPUTS = ('pose', 'twist', 'joints', 'joint_speed', 'objects', 'object_motion', 'hidden',
                   'action', 'noise')
DYNAMICS_OUTPUTS = ('motion', 'twist_next', 'joint_motion', 'joint_speed_next', 'contact',
                    'object_motion_next', 'hidden_next', 'growth')
RENDERER_INPUTS = ('pose', 'joints', 'objects', 'variance')
RENDERER_OUTPUTS = ('rgb', 'depth', 'sensitivity')


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Export; see the module's text."""
    parser = argparse.ArgumentParser(description='Write the shipped weights of the room world.')
    parser.add_argument('--renderer', type=Path, required=True, help='run folder')
    parser.add_argument('--dynamics', type=Path, required=True, help='run folder')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--name', default='room-1', help='name of the model')
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    scenes = sorted(p.stem[4:] for p in args.renderer.glob('map_*.safetensors'))
    trained = load_file(args.dynamics / 'dynamics.safetensors')
    for name in scenes:
        save_map(name, args.renderer, args.out / f'{name}.safetensors')
    save_file({f'{name}.{k}': v.contiguous() for name in scenes
               for k, v in contact_inputs(name, trained).items()},
              args.out / 'contact.safetensors')
    export_dynamics(trained, contact_inputs(scenes[0], trained), args.out / 'dynamics.onnx')
    export_renderer(args.renderer, map_inputs(scenes[0], args.renderer),
                    args.out / 'renderer.onnx')
    describe(args.out, args.name, scenes)


def save_map(name: str, renderer_run: Path, path: Path) -> None:
    """Write the map of one scene; what is large in half precision, the grid unpacked."""
    inputs = map_inputs(name, renderer_run)
    del inputs['atlas']
    inputs['sdf'] = load_file(renderer_run / f'map_{name}.safetensors')['sdf']
    save_file({k: (v.half() if v.numel() > 100 else v).contiguous() for k, v in inputs.items()},
              path)


def map_inputs(name: str, renderer_run: Path) -> Dict[str, Tensor]:
    """Return the observation graph's inputs of one scene: name -> float32 tensor."""
    scene_map = SceneMap(get_scene(name), RendererSpec())
    scene_map.load_state_dict(load_file(renderer_run / f'map_{name}.safetensors'))
    with torch.no_grad():
        return scene_map.tensors()


def contact_inputs(name: str, trained: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Return the transition graph's inputs of one scene: name -> float32 tensor."""
    contact = SceneContact(get_scene(name), DynamicsSpec())
    prefix = f'contact.{name}.'
    contact.load_state_dict({k[len(prefix):]: v for k, v in trained.items()
                             if k.startswith(prefix)})
    with torch.no_grad():
        return contact.tensors()


class DynamicsGraph(nn.Module):
    """Positional inputs and outputs around ``Dynamics``."""

    def __init__(self, dynamics: Dynamics):
        """Wrap it."""
        super().__init__()
        self.dynamics = dynamics

    def forward(self, pose: Tensor, twist: Tensor, joints: Tensor, joint_speed: Tensor,
                objects: Tensor, object_motion: Tensor, hidden: Tensor, action: Tensor,
                noise: Tensor, *scene: Tensor) -> Tuple[Tensor, ...]:
        """Return ``DYNAMICS_OUTPUTS``."""
        state = RoomState(pose, twist, joints, joint_speed, objects, object_motion, hidden, None)
        out = self.dynamics(state, action, noise, dict(zip(CONTACT_TENSORS, scene)))
        return (out['motion'], out['twist'], out['joint_motion'], out['joint_speed'],
                torch.sigmoid(out['contact']), out['object_motion'], out['hidden'], out['growth'])


class RendererGraph(nn.Module):
    """Bytes instead of floats, and how much the image depends on what is uncertain."""

    def __init__(self, renderer: Renderer):
        """Wrap it."""
        super().__init__()
        self.renderer = renderer

    def forward(self, pose: Tensor, joints: Tensor, objects: Tensor, variance: Tensor,
                *scene: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """
        Return ``RENDERER_OUTPUTS``.

        ``sensitivity`` (b, 3) is the mean square change of the image [full scale] that the
        variances of position, yaw and joints would cause, to first order in the image gradient.
        """
        rgb, depth, front, static = self.renderer(pose, joints, objects,
                                                  dict(zip(SCENE_TENSORS, scene)))
        rgb = rgb.clamp(0.0, 1.0)
        image = (255.0 * rgb + 0.5).floor().permute(0, 2, 3, 1).to(torch.uint8)
        grey = F.avg_pool2d(rgb.mean(1, keepdim=True), 2)
        gu = F.pad((grey[..., 2:] - grey[..., :-2]) / 4, (1, 1))
        gv = F.pad((grey[..., 2:, :] - grey[..., :-2, :]) / 4, (0, 0, 1, 1))
        slope = (gu * gu + gv * gv)[:, 0] * self.renderer.focal ** 2
        near = F.avg_pool2d(front[:, None], 2)[:, 0]
        far = F.avg_pool2d(static[:, None], 2)[:, 0].clamp_min(0.1)
        moved = (slope * (1 - near) / (far * far)).mean((1, 2)) * variance[:, 0]
        turned = (slope * (1 - near)).mean((1, 2)) * variance[:, 1]
        arm = (slope * near).mean((1, 2)) * variance[:, 2:1 + joints.shape[1]].mean(1)
        return image, depth, torch.stack([moved, turned, arm], 1)


def export_dynamics(trained: Dict[str, Tensor], tensors: Dict[str, Tensor], path: Path) -> None:
    """Write the transition graph."""
    dynamics = Dynamics()
    dynamics.load_state_dict({k[9:]: v for k, v in trained.items() if k.startswith('dynamics.')})
    k, spec, j = tensors['radius'].shape[1], dynamics.spec, dynamics.num_joints
    example = (torch.rand(2, 3), torch.rand(2, 3), torch.rand(2, j),
               torch.rand(2, j), torch.rand(2, k, 3), torch.rand(2, k, 3),
               torch.rand(2, spec.hidden), torch.rand(2, 2 + j),
               torch.zeros(2, spec.latent), *[tensors[n] for n in CONTACT_TENSORS])
    _export(DynamicsGraph(dynamics), example, path, DYNAMICS_INPUTS, CONTACT_TENSORS,
            DYNAMICS_OUTPUTS)


def export_renderer(run: Path, tensors: Dict[str, Tensor], path: Path) -> None:
    """Write the observation graph."""
    renderer = Renderer()
    renderer.load_state_dict(load_file(run / 'renderer.safetensors'))
    k, j = tensors['half_size_m'].shape[0], len(renderer.robot.joints)
    example = (torch.rand(2, 3) + 1, torch.rand(2, j), torch.rand(2, k, 3) + 1,
               torch.rand(2, 2 + j + k), *[tensors[n] for n in SCENE_TENSORS])
    _export(RendererGraph(renderer), example, path, RENDERER_INPUTS, SCENE_TENSORS,
            RENDERER_OUTPUTS)


def _export(graph: nn.Module, example: Tuple[Tensor, ...], path: Path, inputs: Sequence[str],
            scene_tensors: Sequence[str], outputs: Sequence[str]) -> None:
    graph.eval()
    axes = {name: {0: 'batch'} for name in (*inputs, *outputs)}
    axes.update({name: {2: f'{name}_rows', 3: f'{name}_cols'} for name in scene_tensors
                 if name == 'atlas' or name.startswith('plane_')})
    with torch.no_grad():
        torch.onnx.export(graph, example, str(path), input_names=[*inputs, *scene_tensors],
                          output_names=list(outputs), dynamic_axes=axes, opset_version=18,
                          dynamo=False)


def describe(folder: Path, name: str, scenes: List[str]) -> None:
    """Write ``model.json``: what is here, how to expand it, and a checksum of every file."""
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.iterdir()) if p.suffix in ('.onnx', '.safetensors')}
    (folder / 'model.json').write_text(json.dumps(
        {'format': FORMAT, 'name': name, 'scenes': scenes, 'hidden': DynamicsSpec().hidden,
         'variance_scale': [1.0, 1.0, 1.0, 1.0], 'uncertainty': UNCALIBRATED, 'sha256': sums},
        indent=2) + '\n')


if __name__ == '__main__':
    main()
