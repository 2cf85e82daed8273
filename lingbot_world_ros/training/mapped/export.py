# SPDX-License-Identifier: Apache-2.0
"""A fitted map -> the graph that draws it, of any camera, on a CPU runtime."""
from pathlib import Path
from typing import Dict, Sequence, Tuple

from lingbot_world_ros.models.mapped.network import (CAMERA_TENSORS, MappedRenderer,
                                                     SCENE_TENSORS, share_unseen)
from lingbot_world_ros.models.room.renderer import Renderer
from lingbot_world_ros.training.export import export_graph, halve, sensitivity
from lingbot_world_ros.training.quiet_export import quiet_export
from lingbot_world_ros.training.train_renderer import load_network
import torch
from torch import nn, Tensor
from torch.nn import functional as F

INPUTS = ('T_scene_optical', 'joints', 'variance')
OUTPUTS = ('rgb', 'depth', 'sensitivity', 'unseen')
CONSTANTS = (*CAMERA_TENSORS, *SCENE_TENSORS, 'seen')


class MappedGraph(nn.Module):
    """Bytes instead of floats, and how much of the image is uncertain."""

    def __init__(self, renderer: MappedRenderer, has_arm: bool) -> None:
        """Wrap it."""
        super().__init__()
        self.renderer, self.has_arm = renderer, has_arm

    def forward(self, T_scene_optical: Tensor, joints: Tensor, variance: Tensor,
                *constants: Tensor) -> Tuple[Tensor, ...]:
        """Return ``OUTPUTS``; ``constants`` are ``CONSTANTS``."""
        named = dict(zip(CONSTANTS, constants))
        network = self.renderer.network
        arm = network.arm_maps(joints, named) if self.has_arm else None
        rgb, depth, front, static = self.renderer(T_scene_optical, named, named, arm)
        rgb = rgb.clamp(0.0, 1.0)
        image = (255.0 * rgb + 0.5).floor().permute(0, 2, 3, 1).to(torch.uint8)
        grey = F.avg_pool2d(rgb.mean(1, keepdim=True), 2)
        near = F.avg_pool2d(front[:, None], 2)[:, 0]
        felt = sensitivity(grey, near, static, variance, named['lens'], joints.shape[1])
        unseen = share_unseen(T_scene_optical, static.flatten(1), named, named)
        if not self.has_arm:  # a graph keeps no input that nothing reads
            felt = felt + 0.0 * joints.sum(1, keepdim=True)
        return image, depth, felt, unseen


def shipped_network(weights: Path) -> Renderer:
    """
    Load the drawing network that ships, frozen.

    :param weights: its folder
    :return: the network
    """
    network = Renderer()
    network.load_state_dict(load_network(Path(weights) / 'renderer.onnx'))
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval()


def export_place(renderer: MappedRenderer, scene: Dict[str, Tensor], camera: Dict[str, Tensor],
                 has_arm: bool, path: Path) -> None:
    """
    Write the graph; the map and the camera stay inputs of it.

    :param renderer: fitted
    :param scene: tensors of the map, and ``seen``
    :param camera: tensors of a camera, as an example
    :param has_arm: whether the arm of the shipped robot is drawn
    :param path: ONNX file
    """
    num_joints = len(renderer.network.robot.joints)
    named = {**camera, **scene}
    example = (torch.eye(4).expand(2, 4, 4).contiguous(), torch.rand(2, num_joints),
               torch.rand(2, 2 + num_joints), *(named[name] for name in CONSTANTS))
    with quiet_export():
        export_graph(MappedGraph(renderer, has_arm), example, path, INPUTS, CONSTANTS, OUTPUTS)
    halve(path)


def packed(names: Sequence[str], tensors: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Return some tensors in half precision, as they are kept on disk."""
    return {name: tensors[name].detach().half().contiguous() for name in names}
