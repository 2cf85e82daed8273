# SPDX-License-Identifier: Apache-2.0
"""
The observation model of a place that was learned from a recording. Torch, for training and export.

The drawing network is the one of the embedded world, frozen; only the map is new. Unlike there the
camera may be anywhere: its pose is an input, and its rays are constants. Axes: b batch, c channel,
n rays, h w image.
"""
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from lingbot_world_ros.models.room.lens import COARSE
from lingbot_world_ros.models.room.renderer import (Axes, Geometry, pack_atlas, Renderer,
                                                    sample_sdf)
import numpy as np
import torch
from torch import nn, Tensor
from torch.nn import functional as F

Tensors = Dict[str, Tensor]
PLANES = (('xy', 0, 1), ('xz', 0, 2), ('yz', 1, 2))  # name, axis of columns, axis of rows
MARGIN_M = 0.2
FAR_M = 20.0  # where a ray ends that meets nothing
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


CAMERA_TENSORS = ('optical_rays', 'optical_rays_coarse', 'pixels_half', 'optical_from_base',
                  'lens')
SCENE_TENSORS = ('atlas', 'grid', 'plane_xy', 'plane_xz', 'plane_yz')


class MappedRenderer(nn.Module):
    """Draws a map through any camera; ``network`` is the shared one."""

    def __init__(self, network: Renderer, spec: MapSpec = MapSpec()) -> None:
        """
        Wrap the network.

        :param network: trained
        :param spec: steps along a ray
        """
        super().__init__()
        self.network, self.spec = network, spec

    def forward(self, T_scene_optical: Tensor, scene: Tensors, camera: Tensors,
                arm: Optional[Tensor] = None) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """
        Draw.

        :param T_scene_optical: (b, 4, 4) float32
        :param scene: ``MapOfPlace.tensors()``
        :param camera: ``camera_tensors`` of the camera that sees, h x w pixels
        :param arm: (b, c, h/2, w/2) ``Renderer.arm_maps``; None: no arm is in sight
        :return: rgb (b, 3, h, w) about 0..1; depth (b, h, w) metres; probability (b, h, w) of the
            arm; depth of the map alone (b, h, w)
        """
        return self.network.draw(self.geometry(T_scene_optical, scene, camera, arm))

    def geometry(self, T_scene_optical: Tensor, scene: Tensors, camera: Tensors,
                 arm: Optional[Tensor]) -> Geometry:
        """Find out what each pixel sees; parameters as in ``forward``."""
        static = self.trace(T_scene_optical, scene, camera)
        found = look_up(T_scene_optical, static, scene, camera)
        b, (h, w) = static.shape[0], camera['optical_rays'].shape[1:]
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

    def trace(self, T_scene_optical: Tensor, scene: Tensors, camera: Tensors) -> Tensor:
        """
        Sphere-trace every pixel's ray; as ``Renderer.trace``, from any pose.

        :return: (b, n) depth along the optical axis, metres, differentiable through its last step
        """
        coarse, spread = camera['optical_rays_coarse'], camera['lens'][3]
        b, (hc, wc) = T_scene_optical.shape[0], coarse.shape[1:]
        with torch.no_grad():
            T, length = T_scene_optical.detach(), coarse.flatten(1)[3]
            beam = _in_voxels(T, coarse, scene['grid'])
            depth = torch.full_like(length, 0.25).expand(b, -1)
            for _ in range(self.spec.coarse_steps):
                free = sample_sdf(*beam, depth, scene) - spread * depth
                depth = depth + free.clamp_min(0.0) / (length + spread)
            depth = F.interpolate(depth.reshape(b, 1, hc, wc), scale_factor=float(COARSE),
                                  mode='nearest').reshape(b, -1)
            length = camera['optical_rays'].flatten(1)[3]
            beam = _in_voxels(T, camera['optical_rays'], scene['grid'])
            for _ in range(self.spec.fine_steps):
                depth = depth + sample_sdf(*beam, depth, scene) / length
        beam = _in_voxels(T_scene_optical, camera['optical_rays'], scene['grid'])
        return (depth + sample_sdf(*beam, depth, scene) / length).clamp(0.05, FAR_M)


def _beam(T: Tensor, rays: Tensor) -> Tuple[List[Tensor], List[Tensor]]:
    """Origin (b, 1) and direction (b, n) of rays in the scene frame, one for each axis."""
    flat = rays.flatten(1)
    x, y, z = flat[0], flat[1], flat[2]
    return ([T[:, i, 3, None] for i in range(3)],
            [T[:, i, 0, None] * x + T[:, i, 1, None] * y + T[:, i, 2, None] * z
             for i in range(3)])


def _in_voxels(T: Tensor, rays: Tensor, grid: Tensor) -> Tuple[Axes, Axes]:
    """Origin and direction of rays in voxels."""
    (ox, oy, oz), (dx, dy, dz) = _beam(T, rays)
    scale = (grid[:3] - 1.0) / grid[4:7]
    return (((ox - grid[3]) * scale[0], (oy - grid[3]) * scale[1], (oz - grid[3]) * scale[2]),
            (dx * scale[0], dy * scale[1], dz * scale[2]))


def look_up(T_scene_optical: Tensor, depth: Tensor, scene: Tensors, camera: Tensors) -> Tensor:
    """Look up the features where rays end, (3 * plane_channels + 1, b, n)."""
    origin, direction = _beam(T_scene_optical, camera['optical_rays'])
    low, extent = scene['grid'][3], scene['grid'][4:7]
    at = [(o - low + depth * d) * (2.0 / extent[i]) - 1.0
          for i, (o, d) in enumerate(zip(origin, direction))]
    found = []
    for name, i, j in PLANES:
        grid = torch.stack([at[i], at[j]]).permute(1, 2, 0)[None]
        found.append(F.grid_sample(scene[f'plane_{name}'], grid, mode='bilinear',
                                   padding_mode='border', align_corners=False)[0])
    return torch.cat([*found, torch.log(depth)[None]])


def share_unseen(T_scene_optical: Tensor, depth: Tensor, scene: Tensors,
                 camera: Tensors) -> Tensor:
    """
    Say how much of a picture nobody has ever looked at.

    :param depth: (b, n) where rays end
    :param scene: with ``seen``, packed as ``atlas``: 1 where a frame of the recording saw
    :return: (b,) 0 to 1
    """
    beam = _in_voxels(T_scene_optical, camera['optical_rays'], scene['grid'])
    seen = sample_sdf(*beam, depth, {'grid': scene['grid'], 'atlas': scene['seen']})
    missed = (1.0 - seen).clamp(0.0, 1.0) + (depth >= FAR_M - 0.01).to(depth.dtype)
    return missed.clamp(0.0, 1.0).mean(1)
