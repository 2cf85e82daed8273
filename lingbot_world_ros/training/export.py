# SPDX-License-Identifier: Apache-2.0
"""
Trained parts -> the files that ship: ONNX graphs and one safetensors file per scene.

    python -m lingbot_world_ros.training.export --renderer runs/renderer \
        --dynamics runs/dynamics --out lingbot_world_ros/models/room/weights

The graphs are the same for all scenes and cameras; what they look like travels in as inputs.
What has learned small pictures comes last, into a folder of weights that is there already:

    python -m lingbot_world_ros.training.export --small runs/small \
        --out lingbot_world_ros/models/room/weights
"""
import argparse
import hashlib
import json
from pathlib import Path
from typing import cast, Dict, Optional, Sequence, Tuple

from lingbot_world_ros.models.room.dynamics import (CONTACT_TENSORS, Dynamics, DynamicsSpec,
                                                    SceneContact)
from lingbot_world_ros.models.room.lens import LENS_TENSORS
from lingbot_world_ros.models.room.renderer import (camera_tensors, Geometry, QUICK, Renderer,
                                                    RendererSpec, SCENE_TENSORS, SceneMap, SMALL)
from lingbot_world_ros.models.room.state import RoomState
from lingbot_world_ros.training.train_renderer import Trainee
from lingbot_world_ros.worlds.scenes import get_scene, SCENES
import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
from safetensors.torch import load_file, save_file
import torch
from torch import nn, Tensor
from torch.nn import functional as F

FORMAT = 2  # of the weights folder; models/room/runtime.py reads this one
# Expected image error before training.calibrate has measured it.
UNCALIBRATED = {'floor': dict.fromkeys(SCENES, 0.02), 'gain': [1.0, 1.0, 1.0], 'ceiling': 0.25,
                'calibrated_to': 0.0}
DYNAMICS_INPUTS = ('pose', 'twist', 'joints', 'joint_speed', 'objects', 'object_motion', 'hidden',
                   'action', 'noise')
DYNAMICS_OUTPUTS = ('motion', 'twist_next', 'joint_motion', 'joint_speed_next', 'contact',
                    'object_motion_next', 'hidden_next', 'growth')
RENDERER_INPUTS = ('pose', 'joints', 'objects', 'variance')
RENDERER_OUTPUTS = ('rgb', 'depth', 'sensitivity')
SEAM = tuple(f'seen_{name}' for name in Geometry._fields)  # between the parts of the graph
SEAM_AXES = {'seen_found': {1: 'batch', 2: 'pixels'}, 'seen_static': {0: 'batch', 1: 'pixels'},
             'seen_objects': {0: 'batch', 2: 'rows', 3: 'cols'},
             'seen_arm': {0: 'batch', 2: 'rows', 3: 'cols'}}
SMALL_TENSORS = 'plane_', 'object_'  # first parts of names: small pictures have their own
SMALL_BELOW_PX = 120  # width
CONSTANTS = LENS_TENSORS + SCENE_TENSORS


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Export; see the module's text."""
    parser = argparse.ArgumentParser(description='Write the shipped weights of the room world.')
    parser.add_argument('--renderer', type=Path, help='run folder')
    parser.add_argument('--dynamics', type=Path, help='run folder')
    parser.add_argument('--small', type=Path, help='run folder of training for small pictures; '
                        'without, they are drawn by what has learned large ones')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--name', default='room-1', help='name of the model')
    args = parser.parse_args(argv)
    if (args.renderer is None) != (args.dynamics is None) or not (args.renderer or args.small):
        parser.error('give --renderer and --dynamics, or --small, or all of them')
    torch.set_num_threads(1)
    if args.renderer:
        export_all(args.renderer, args.dynamics, args.out, args.name)
    export_small(args.small, args.out)


def export_all(renderer_run: Path, dynamics_run: Path, out: Path, name: str) -> None:
    """Write everything but what is for small pictures."""
    out.mkdir(parents=True, exist_ok=True)
    scenes = sorted(p.stem[4:] for p in renderer_run.glob('map_*.safetensors'))
    trained = load_file(dynamics_run / 'dynamics.safetensors')
    for scene in scenes:
        save_map(scene, renderer_run, out / f'{scene}.safetensors')
    save_file({f'{scene}.{k}': v.contiguous() for scene in scenes
               for k, v in contact_inputs(scene, trained).items()},
              out / 'contact.safetensors')
    export_dynamics(trained, contact_inputs(scenes[0], trained), out / 'dynamics.onnx')
    network = load_file(renderer_run / 'renderer.safetensors')
    tensors = map_inputs(scenes[0], renderer_run)
    export_renderer(network, tensors, out / 'renderer.onnx')
    export_parts(network, tensors, QUICK, out, '')
    about = {'format': FORMAT, 'name': name, 'scenes': scenes, 'hidden': DynamicsSpec().hidden,
             'variance_scale': [1.0, 1.0, 1.0, 1.0], 'uncertainty': UNCALIBRATED,
             'small': {'below_px': SMALL_BELOW_PX, 'uncertainty': UNCALIBRATED}}
    (out / 'model.json').write_text(json.dumps(about))


def export_small(run: Optional[Path], out: Path) -> None:
    """Write what is for small pictures, and the checksum of every file into ``model.json``."""
    path = out / 'model.json'
    about = json.loads(path.read_text())
    model = Trainee(about['scenes'], SMALL)
    model.start_small(out)
    if run:
        model.renderer.load_state_dict(load_file(run / 'renderer.safetensors'))
    tensors: Dict[str, Tensor] = {}
    for scene in about['scenes']:
        scene_map = cast(SceneMap, model.maps[scene])
        if run:
            scene_map.load_state_dict(load_file(run / f'map_{scene}.safetensors'))
        with torch.no_grad():
            inputs = scene_map.tensors()
        tensors.update({f'{scene}.{name}': value.half().contiguous()
                        for name, value in inputs.items() if name.startswith(SMALL_TENSORS)})
    save_file(tensors, out / 'small.safetensors')
    export_parts(model.renderer.state_dict(), inputs, SMALL, out, '_small')
    about['sha256'] = {p.name: hashlib.sha256(p.read_bytes()).hexdigest()
                       for p in sorted(out.iterdir()) if p.suffix in ('.onnx', '.safetensors')}
    path.write_text(json.dumps(about, indent=2) + '\n')


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
                *constants: Tensor) -> Tuple[Tensor, ...]:
        """Return ``RENDERER_OUTPUTS``; ``constants`` are ``CONSTANTS``."""
        camera, scene = _named(constants)
        rgb, depth, front, static = self.renderer(pose, joints, objects, scene, camera)
        rgb = rgb.clamp(0.0, 1.0)
        image = (255.0 * rgb + 0.5).floor().permute(0, 2, 3, 1).to(torch.uint8)
        grey = F.avg_pool2d(rgb.mean(1, keepdim=True), 2)
        near = F.avg_pool2d(front[:, None], 2)[:, 0]
        return image, depth, sensitivity(grey, near, static, variance, camera['lens'],
                                         len(self.renderer.robot.joints))


class GeometryGraph(nn.Module):
    """The part of ``RendererGraph`` that has to be float32; it has no weights of its own."""

    def __init__(self, renderer: Renderer):
        """Wrap it."""
        super().__init__()
        self.renderer = renderer

    def forward(self, pose: Tensor, joints: Tensor, objects: Tensor,
                *constants: Tensor) -> Geometry:
        """Return ``SEAM``; ``constants`` are ``CONSTANTS``."""
        camera, scene = _named(constants)
        return self.renderer.geometry(pose, joints, objects, scene, camera)


class DrawingGraph(nn.Module):
    """The other part; each output leaves the network in the order in which it is used."""

    def __init__(self, renderer: Renderer):
        """Wrap it."""
        super().__init__()
        self.renderer = renderer

    def forward(self, found: Tensor, static: Tensor, objects: Tensor, arm: Tensor,
                variance: Tensor, lens: Tensor) -> Tuple[Tensor, ...]:
        """Return ``RENDERER_OUTPUTS``."""
        x = self.renderer.features(Geometry(found, static, objects, arm))
        weight, bias = self.renderer.out.weight, self.renderer.out.bias
        assert bias is not None
        rgb, far, front = (F.conv2d(x, weight[a:b], bias[a:b], padding=1)
                           for a, b in ((0, 12), (12, 16), (16, 20)))  # of blocks of 2 x 2
        h, w = x.shape[2:]
        rgb, front = rgb.clamp(0.0, 1.0), torch.sigmoid(front)
        image = (255.0 * rgb + 0.5).floor().to(torch.uint8).reshape(-1, 3, 2, 2, h, w)
        image = image.permute(0, 4, 2, 5, 3, 1).reshape(-1, 2 * h, 2 * w, 3)
        static = static.reshape(-1, 1, 2 * h, 2 * w)
        far, before = (F.pixel_shuffle(y, 2) for y in (F.softplus(far), front))
        depth = (static + before * (far - static))[:, 0]
        return image, depth, sensitivity(rgb.mean(1, keepdim=True), front.mean(1), static[:, 0],
                                         variance, lens, len(self.renderer.robot.joints))


def sensitivity(grey: Tensor, near: Tensor, static: Tensor, variance: Tensor, lens: Tensor,
                num_joints: int) -> Tensor:
    """
    Say what uncertain states do to an image, to first order in its gradient.

    :param grey: (b, 1, h/2, w/2) 0..1
    :param near: (b, h/2, w/2) how much of it stands before the map
    :param static: (b, h, w) depth of the map, metres
    :param variance: (b, 2 + j + k) of position, yaw, joints, objects
    :param lens: of the camera
    :param num_joints: j
    :return: (b, 3) mean square change of the image [full scale] by the variances of position, yaw
        and joints
    """
    gu = F.pad((grey[..., 2:] - grey[..., :-2]) / 4, (1, 1))
    gv = F.pad((grey[..., 2:, :] - grey[..., :-2, :]) / 4, (0, 0, 1, 1))
    slope = (gu * gu + gv * gv)[:, 0] * lens[8]
    far = F.avg_pool2d(static[:, None], 2)[:, 0].clamp_min(0.1)
    moved = (slope * (1 - near) / (far * far)).mean((1, 2)) * variance[:, 0]
    turned = (slope * (1 - near)).mean((1, 2)) * variance[:, 1]
    arm = (slope * near).mean((1, 2)) * variance[:, 2:1 + num_joints].mean(1)
    return torch.stack([moved, turned, arm], 1)


def _named(constants: Sequence[Tensor]) -> Tuple[Dict[str, Tensor], Dict[str, Tensor]]:
    """Return the tensors of the camera and of the map by name."""
    split = len(LENS_TENSORS)
    return dict(zip(LENS_TENSORS, constants)), dict(zip(SCENE_TENSORS, constants[split:]))


def export_dynamics(trained: Dict[str, Tensor], tensors: Dict[str, Tensor], path: Path) -> None:
    """Write the transition graph."""
    dynamics = Dynamics()
    dynamics.load_state_dict({k[9:]: v for k, v in trained.items() if k.startswith('dynamics.')})
    k, spec, j = tensors['radius'].shape[1], dynamics.spec, dynamics.num_joints
    example = (torch.rand(2, 3), torch.rand(2, 3), torch.rand(2, j),
               torch.rand(2, j), torch.rand(2, k, 3), torch.rand(2, k, 3),
               torch.rand(2, spec.hidden), torch.rand(2, 2 + j),
               torch.zeros(2, spec.latent), *[tensors[n] for n in CONTACT_TENSORS])
    export_graph(DynamicsGraph(dynamics), example, path, DYNAMICS_INPUTS, CONTACT_TENSORS,
                 DYNAMICS_OUTPUTS)


def export_renderer(trained: Dict[str, Tensor], tensors: Dict[str, Tensor], path: Path) -> None:
    """Write the observation graph: of any camera, whose tensors are inputs as the map's are."""
    renderer = Renderer()
    renderer.load_state_dict(trained)
    states, variance, constants = _example(renderer, tensors)
    export_graph(RendererGraph(renderer), (*states, variance, *constants), path, RENDERER_INPUTS,
                 CONSTANTS, RENDERER_OUTPUTS)


def export_parts(trained: Dict[str, Tensor], tensors: Dict[str, Tensor], spec: RendererSpec,
                 out: Path, suffix: str) -> None:
    """Write the observation graph in two parts; the weights of the second in half precision."""
    renderer = Renderer(spec)
    renderer.load_state_dict(trained)
    states, variance, constants = _example(renderer, tensors)
    export_graph(GeometryGraph(renderer), (*states, *constants), out / f'geometry{suffix}.onnx',
                 RENDERER_INPUTS[:3], CONSTANTS, SEAM)
    camera, scene = _named(constants)
    with torch.no_grad():
        pose, joints, objects = states
        seen = renderer.geometry(pose, joints, objects, scene, camera)
    drawing = out / f'drawing{suffix}.onnx'
    export_graph(DrawingGraph(renderer), (*seen, variance, camera['lens']), drawing,
                 (*SEAM, 'variance'), ('lens',), RENDERER_OUTPUTS)
    halve(drawing)


def _example(renderer: Renderer, tensors: Dict[str, Tensor]) -> Tuple[Tuple[Tensor, ...], Tensor,
                                                                      Tuple[Tensor, ...]]:
    """Return states, variances and constants to trace a graph with."""
    k, j = tensors['half_size_m'].shape[0], len(renderer.robot.joints)
    tensors = {**camera_tensors(renderer.robot.camera), **tensors}
    states = torch.rand(2, 3) + 1, torch.rand(2, j), torch.rand(2, k, 3) + 1
    return states, torch.rand(2, 2 + j + k), tuple(tensors[name] for name in CONSTANTS)


def halve(path: Path) -> None:
    """Store the weights of a graph in half precision, and turn them back where they are read."""
    model = onnx.load(str(path))
    for part in list(model.graph.initializer):
        small = numpy_helper.to_array(part).astype(np.float16)
        name = part.name
        part.CopyFrom(numpy_helper.from_array(small, f'{name}.half'))
        model.graph.node.insert(0, helper.make_node('Cast', [f'{name}.half'], [name],
                                                    to=TensorProto.FLOAT))
    onnx.save(model, str(path))


def export_graph(graph: nn.Module, example: Tuple[Tensor, ...], path: Path,
                 inputs: Sequence[str], constants: Sequence[str], outputs: Sequence[str]) -> None:
    """
    Write a graph of any batch; maps and cameras among its constants may have any size.

    :param graph: to trace
    :param example: what it takes: inputs, then constants
    :param path: ONNX file
    :param inputs: names; the first axis is the batch
    :param constants: names
    :param outputs: names; the first axis is the batch
    """
    graph.eval()
    axes = {name: {0: 'batch'} for name in (*inputs, *outputs)}
    axes.update({name: {2: f'{name}_rows', 3: f'{name}_cols'} for name in constants
                 if name in ('atlas', 'seen') or name.startswith('plane_')})
    axes.update({name: {1: f'{name}_rows', 2: f'{name}_cols'} for name in constants
                 if name.startswith(('rays', 'pixels', 'optical_rays'))})
    axes.update({name: dict(dims) for name, dims in SEAM_AXES.items()
                 if name in (*inputs, *outputs)})
    with torch.no_grad():
        torch.onnx.export(graph, example, str(path), input_names=[*inputs, *constants],
                          output_names=list(outputs), dynamic_axes=axes, opset_version=18,
                          dynamo=False)


if __name__ == '__main__':
    main()
