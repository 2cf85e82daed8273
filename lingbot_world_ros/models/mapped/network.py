# SPDX-License-Identifier: Apache-2.0
"""
The observation model of a place that was learned from a recording. Torch, for training and export.

The drawing network is the one of the embedded world, frozen; only the map is new. Unlike there the
camera may be anywhere: its pose is an input, and its rays are constants. Axes: b batch, c channel,
n rays, h w image.
"""
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.models.room.lens import COARSE
from lingbot_world_ros.models.room.renderer import (Geometry, pack_atlas, Renderer, RendererSpec,
                                                    sample_sdf)
import numpy as np
import torch
from torch import nn, Tensor
from torch.nn import functional as F

Tensors = Dict[str, Tensor]
PLANES = (('xy', 0, 1), ('xz', 0, 2), ('yz', 1, 2))  # name, axis of columns, axis of rows
MARGIN_M = 0.2
MISSED = -1.0  # what ``Renderer.object_maps`` says beside an object's box


@dataclass(frozen=True)
class MapSpec:
    """Sizes of a map, and how finely rays are traced."""

    texel_m: float = 0.02
    coarse_texel_m: float = 0.08
    coarse_steps: int = 14
    fine_steps: int = 12


class MapOfPlace(nn.Module):
    """
    What is learned about a place: ``sdf`` (x, y, z) and planes, a fine and a coarse one added.

    The grid begins at ``-MARGIN_M`` on every axis of the scene frame, its floor is z = 0.
    """

    grid: Tensor

    def __init__(self, sdf: np.ndarray, voxel_m: float, channels: int,
                 spec: MapSpec = MapSpec()) -> None:
        """
        Start from distances.

        :param sdf: (x, y, z) metres
        :param voxel_m: between corners
        :param channels: of a plane
        :param spec: sizes
        """
        super().__init__()
        self.spec = spec
        extent = (np.array(sdf.shape) - 1) * voxel_m
        self.sdf = nn.Parameter(torch.tensor(sdf, dtype=torch.float32))
        self.fine, self.coarse = nn.ParameterList(), nn.ParameterList()
        for texel, planes, noise in ((spec.texel_m, self.fine, 0.0),
                                     (spec.coarse_texel_m, self.coarse, 0.1)):
            cells = [int(np.ceil(e / texel)) for e in extent]
            for _, i, j in PLANES:
                planes.append(nn.Parameter(noise * torch.randn(1, channels, cells[j], cells[i])))
        self.register_buffer('grid', torch.tensor([*sdf.shape, -MARGIN_M, *extent],
                                                  dtype=torch.float32))

    def tensors(self) -> Tensors:
        """Return what ``MappedRenderer`` reads: atlas, grid, and the sum of both planes."""
        out = {'atlas': pack_atlas(self.sdf), 'grid': self.grid}
        for (name, _, _), fine, coarse in zip(PLANES, self.fine, self.coarse):
            out[f'plane_{name}'] = fine + F.interpolate(
                coarse, size=fine.shape[2:], mode='bilinear', align_corners=False)
        return out


def optical_rays(camera: PinholeCamera) -> Tensors:
    """
    Return the rays of a camera in its own frame.

    :param camera: whose width and height are multiples of ``COARSE``
    :return: ``rays`` and ``rays_coarse`` (4, h, w): direction with z 1, and its length
    """
    out = {}
    for name, step in (('rays', 1), ('rays_coarse', COARSE)):
        rays = torch.tensor(camera.rays(camera.pixel_grid(step)), dtype=torch.float32)
        out[name] = torch.cat([rays, rays.norm(dim=-1, keepdim=True)], -1).permute(2, 0, 1)
    return out


class MappedRenderer(nn.Module):
    """Draws a map through any camera; ``network`` is the shared one."""

    def __init__(self, network: Renderer, camera: PinholeCamera,
                 spec: MapSpec = MapSpec()) -> None:
        """
        Wrap the network.

        :param network: trained
        :param camera: that sees
        :param spec: steps along a ray
        """
        super().__init__()
        self.network, self.spec, self.camera = network, spec, camera
        rays = optical_rays(camera)
        for name, value in rays.items():
            self.register_buffer(name, value, persistent=False)
        focal = 0.5 * (camera.fx_px + camera.fy_px)
        self.spread = 0.5 * COARSE * 2.0 ** 0.5 / focal

    def forward(self, T_scene_optical: Tensor, scene: Tensors, arm: Optional[Tensor] = None
                ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """
        Draw.

        :param T_scene_optical: (b, 4, 4) float32
        :param scene: ``MapOfPlace.tensors()``
        :param arm: (b, c, h/2, w/2) ``Renderer.arm_maps``; None: no arm is in sight
        :return: rgb (b, 3, h, w) about 0..1; depth (b, h, w) metres; probability (b, h, w) of the
            arm; depth of the map alone (b, h, w)
        """
        static, found = self.look(T_scene_optical, scene)
        return self.network.draw(self.geometry(static, found, arm))

    def look(self, T_scene_optical: Tensor, scene: Tensors) -> Tuple[Tensor, Tensor]:
        """Return depth (b, n) where rays end, and what the map has there, (c, b, n)."""
        static = self.trace(T_scene_optical, scene)
        return static, self.look_up(T_scene_optical, static, scene)

    def geometry(self, static: Tensor, found: Tensor, arm: Optional[Tensor]) -> Geometry:
        """Put together what the network draws from."""
        b, (h, w) = static.shape[0], self.rays.shape[1:]
        half = static.reshape(b, 1, h, w)[:, :, ::2, ::2]
        features = self.network.spec.feature_channels
        objects = torch.cat([torch.zeros_like(half).expand(-1, features + 1, -1, -1),
                             torch.full_like(half, MISSED),
                             torch.log(half.clamp_min(0.05))], 1)
        depths = found[-1].reshape(b, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3).flatten(1, 2)
        if arm is None:
            arm = torch.zeros(b, self.network.arm_in.weight.shape[1], h // 2, w // 2,
                              dtype=static.dtype, device=static.device)
        return Geometry(found, static, torch.cat([depths, objects], 1), arm)

    @staticmethod
    def _beam(T: Tensor, rays: Tensor) -> Tuple[List[Tensor], List[Tensor]]:
        """Origin (b, 1) and direction (b, n) of rays in the scene frame, one for each axis."""
        x, y, z = rays.flatten(1)[:3]
        origin = [T[:, i, 3, None] for i in range(3)]
        direction = [T[:, i, 0, None] * x + T[:, i, 1, None] * y + T[:, i, 2, None] * z
                     for i in range(3)]
        return origin, direction

    def _in_voxels(self, T: Tensor, rays: Tensor, grid: Tensor) -> tuple:
        origin, direction = self._beam(T, rays)
        scale = (grid[:3] - 1.0) / grid[4:7]
        return (tuple((o - grid[3]) * scale[i] for i, o in enumerate(origin)),
                tuple(d * scale[i] for i, d in enumerate(direction)))

    def trace(self, T_scene_optical: Tensor, scene: Tensors) -> Tensor:
        """Sphere-trace every pixel's ray; as ``Renderer.trace``, from any pose."""
        b, (hc, wc) = T_scene_optical.shape[0], self.rays_coarse.shape[1:]
        with torch.no_grad():
            T = T_scene_optical.detach()
            length = self.rays_coarse.flatten(1)[3]
            beam = self._in_voxels(T, self.rays_coarse, scene['grid'])
            depth = torch.full_like(length, 0.25).expand(b, -1)
            for _ in range(self.spec.coarse_steps):
                free = sample_sdf(*beam, depth, scene) - self.spread * depth
                depth = depth + free.clamp_min(0.0) / (length + self.spread)
            depth = F.interpolate(depth.reshape(b, 1, hc, wc), scale_factor=float(COARSE),
                                  mode='nearest').reshape(b, -1)
            length = self.rays.flatten(1)[3]
            beam = self._in_voxels(T, self.rays, scene['grid'])
            for _ in range(self.spec.fine_steps):
                depth = depth + sample_sdf(*beam, depth, scene) / length
        length = self.rays.flatten(1)[3]
        beam = self._in_voxels(T_scene_optical, self.rays, scene['grid'])
        return (depth + sample_sdf(*beam, depth, scene) / length).clamp(0.05, 20.0)

    def look_up(self, T_scene_optical: Tensor, depth: Tensor, scene: Tensors) -> Tensor:
        """Look up the features where rays end, (3 * plane_channels + 1, b, n)."""
        origin, direction = self._beam(T_scene_optical, self.rays)
        low, extent = scene['grid'][3], scene['grid'][4:7]
        at = [(o - low + depth * d) * (2.0 / extent[i]) - 1.0
              for i, (o, d) in enumerate(zip(origin, direction))]
        found = []
        for name, i, j in PLANES:
            grid = torch.stack([at[i], at[j]]).permute(1, 2, 0)[None]
            found.append(F.grid_sample(scene[f'plane_{name}'], grid, mode='bilinear',
                                       padding_mode='border', align_corners=False)[0])
        return torch.cat([*found, torch.log(depth)[None]])


def shipped_network(path: 'object', spec: RendererSpec = RendererSpec()) -> Renderer:
    """
    Load the drawing network that ships, frozen.

    :param path: of ``renderer.onnx``
    :param spec: sizes
    :return: the network
    """
    from lingbot_world_ros.training.train_renderer import load_network
    network = Renderer(spec)
    network.load_state_dict(load_network(path))  # type: ignore[arg-type]
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval()
