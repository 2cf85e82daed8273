# SPDX-License-Identifier: Apache-2.0
"""
Depth frames with known poses -> signed distance grid and clearance map of a scene.

Surface points of all frames are thinned to one per 1.5 cm; every grid corner takes its distance
to the nearest one, positive where some frame looked through the corner. Gradient training of the
renderer refines the grid afterwards; the clearance map of the transition model stays as it is.

    python -m lingbot_world_ros.training.mapping --data data --out runs/maps.safetensors

Source: truncated signed distance fusion (Curless and Levoy 1996) with exact distances.
"""
import argparse
from pathlib import Path
from typing import Dict, Optional, Sequence

from lingbot_world_ros.geometry import se3
from lingbot_world_ros.models.room.dynamics import DynamicsSpec
from lingbot_world_ros.models.room.renderer import RendererSpec, SceneMap
from lingbot_world_ros.progress import progress_bar
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.training.dataset import load_scene
from lingbot_world_ros.worlds.scenes import get_scene
import numpy as np
from safetensors.torch import save_file
from scipy.spatial import cKDTree
import torch

THIN_M = 0.015
SEEN_M = 0.02  # a corner counts as looked through when the surface is this much behind it


def fuse(scene_map: SceneMap, depth: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """
    Build the signed distance grid.

    :param scene_map: gives shape and place of the grid
    :param depth: (f, h, w) metres along the optical axis, robot and objects hidden
    :param pose: (f, 3) base x, y [m], yaw [rad]
    :return: (nx, ny, nz) float32, metres, positive in free space
    """
    points = _thin(np.concatenate([_points(d, p) for d, p in zip(depth, pose)]))
    low, voxel = scene_map.low_m, scene_map.extent_m / (np.array(scene_map.shape) - 1)
    corners = np.stack(np.meshgrid(*[low + voxel[i] * np.arange(n)
                                     for i, n in enumerate(scene_map.shape)], indexing='ij'), -1)
    corners = corners.reshape(-1, 3)
    distance, _ = cKDTree(points).query(corners, workers=-1)
    free = torch.zeros(len(corners), dtype=torch.bool)
    todo, left = torch.tensor(corners, dtype=torch.float32), torch.arange(len(corners))
    for i, (d, p) in enumerate(zip(depth, pose)):
        seen = _looked_through(todo, torch.tensor(d), p)
        free[left[seen]] = True
        if i % 16 == 15:  # most corners are settled by the first frames
            todo, left = todo[~free[left]], left[~free[left]]
    return np.where(free.numpy(), distance, -distance).reshape(scene_map.shape).astype(np.float32)


def clearance(sdf: np.ndarray, scene_map: SceneMap, spec: DynamicsSpec) -> torch.Tensor:
    """
    Collapse the grid to the floor plan, over the heights the base occupies.

    :param sdf: (nx, ny, nz) metres
    :param scene_map: place of the grid
    :param spec: size of the result
    :return: (1, 1, rows, cols) float32: distance to the nearest wall or furniture, metres
    """
    voxel = scene_map.extent_m / (np.array(scene_map.shape) - 1)
    heights = scene_map.low_m + voxel[2] * np.arange(scene_map.shape[2])
    solid = (sdf[:, :, (heights > 0.08) & (heights < 1.24)] < 0.5 * voxel[2]).any(2)
    plan = _plan_distance(solid, voxel[:2])
    at = [np.rint((spec.cell_m * np.arange(n) - spec.margin_m - scene_map.low_m) / v).astype(int)
          for n, v in zip(spec.plan_cells[::-1], voxel)]
    i, j = (np.clip(a, 0, n - 1) for a, n in zip(at, plan.shape))
    return torch.tensor(plan[i][:, j].T[None, None].astype(np.float32))


def _plan_distance(solid: np.ndarray, cell: np.ndarray) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt
    outside = distance_transform_edt(~solid, cell)
    inside = distance_transform_edt(solid, cell)
    # Half a cell: cells are solid up to their border, distances count between middles.
    return np.where(solid, 0.5 * cell[0] - inside, outside - 0.5 * cell[0])


def _camera(pose: np.ndarray) -> np.ndarray:
    """Pose (4, 4) of the optical frame in the scene."""
    return se3.pose_from_se2(pose) @ load_robot().camera.T_base_optical


def _points(depth: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Every second pixel as a point in the scene frame, (n, 3)."""
    camera = load_robot().camera
    rays = camera.rays(camera.pixel_grid()[::2, ::2])
    return se3.transformed(_camera(pose), rays * depth[::2, ::2, None]).reshape(-1, 3)


def _thin(points: np.ndarray) -> np.ndarray:
    _, keep = np.unique(np.floor(points / THIN_M).astype(np.int64) @ [1, 10007, 100160063],
                        return_index=True)
    return points[keep]


def _looked_through(corners: torch.Tensor, depth: torch.Tensor,
                    pose: np.ndarray) -> torch.Tensor:
    """Whether a frame saw something clearly behind each corner, (n,) bool."""
    T = torch.tensor(se3.inverse(_camera(pose)), dtype=torch.float32)
    x, y, z = (corners @ T[:3, :3].T + T[:3, 3]).T
    ahead = z.clamp_min(1e-3)
    camera = load_robot().camera
    u = torch.round(camera.fx_px * x / ahead + camera.cx_px)
    v = torch.round(camera.fy_px * y / ahead + camera.cy_px)
    h, w = depth.shape
    inside = (z > 0.05) & (u >= 0) & (u < w) & (v >= 0) & (v < h)
    seen = depth[v.clamp(0, h - 1).long(), u.clamp(0, w - 1).long()]
    return inside & (z < seen - SEEN_M)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Fuse the mapping frames of a dataset into ``maps.safetensors``."""
    parser = argparse.ArgumentParser(description='Fuse depth frames into scene maps.')
    parser.add_argument('--data', type=Path, required=True, help='dataset folder')
    parser.add_argument('--out', type=Path, required=True, help='safetensors file to write')
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    tensors: Dict[str, torch.Tensor] = {}
    spec = DynamicsSpec()
    folders = sorted(p.parent for p in args.data.glob('*/static_depth.npy'))
    for folder in progress_bar(folders, unit=' scenes'):
        name = folder.name
        scene_map = SceneMap(get_scene(name), RendererSpec())
        files = load_scene(folder, ('static_depth', 'static_pose'))
        sdf = fuse(scene_map, np.array(files['static_depth']), np.array(files['static_pose']))
        tensors[f'{name}.sdf'] = torch.tensor(sdf).half()
        tensors[f'{name}.clearance'] = clearance(sdf, scene_map, spec).contiguous()
        print(f'{name}: {sdf.shape} corners, {100 * (sdf > 0).mean():.0f} % free')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out)


if __name__ == '__main__':
    main()
