# SPDX-License-Identifier: Apache-2.0
"""
A learned place for tests, written as a whole in seconds and without learning anything.

An empty box of 3 x 3 m with a block in the middle, drawn by the network that ships from planes of
noise. Needs torch, as learning does.
"""
from functools import lru_cache
from pathlib import Path
import shutil
import tempfile

from needs import need_engine
import numpy as np
import pytest

NAME = 'tiny'
SIZE_M = np.array([3.0, 3.0, 2.4])
BLOCK = np.array([1.5, 1.5]), np.array([0.3, 0.1])  # middle, half a side [m]
RADIUS_M = 0.15  # of the robot's footprint
UNSEEN_M = 2.6  # nobody has looked into the corner with x and y beyond
VOXEL_M = 0.1
WIDTH_PX, HEIGHT_PX = 64, 48
RATE_HZ = 15.0


def tiny_world(folder) -> Path:
    """
    Write the folder of a learned world.

    :param folder: which does not exist yet
    :return: it
    """
    need_engine('learned')
    pytest.importorskip('torch', reason='a learned world is written with torch')
    pytest.importorskip('onnx', reason='a learned world is written with onnx')
    return Path(shutil.copytree(_written(), folder))


@lru_cache(maxsize=1)
def _written() -> Path:
    """Write it once per session."""
    import atexit
    kept = tempfile.mkdtemp(prefix='lingbot_world_ros_tiny_')
    atexit.register(shutil.rmtree, kept, ignore_errors=True)
    folder = Path(kept) / 'world'
    folder.mkdir()
    _write(folder)
    return folder


def _write(folder):
    from lingbot_world_ros.models.mapped.runtime import GRAPH, MAP
    from lingbot_world_ros.robots.load import load_robot
    from lingbot_world_ros.training.mapped.folder import URDF, write_about, write_robot
    from lingbot_world_ros.training.mapped.learn import camera_entry
    from lingbot_world_ros.worlds.learned import ROBOT
    robot = load_robot()
    camera = robot.camera.resized(WIDTH_PX, HEIGHT_PX)
    _write_map(folder, camera, robot)
    write_robot(folder, None, camera, robot, RADIUS_M)
    write_about(folder, {
        'kind': 'mapped', 'name': NAME, 'rate_hz': RATE_HZ, 'camera': camera_entry(camera),
        'motion': {'gain': [1.0, 1.0, 1.0], 'follow': [0.5, 1.0, 0.6], 'delay_frames': 1,
                   'is_steered': False, 'growth': [1e-6, 1e-6]},
        'joint_follow': [0.6] * len(robot.joints),
        'uncertainty': {'floor': 0.03, 'gain': [1.0, 1.0, 1.0], 'ceiling': 0.2,
                        'calibrated_to': 0.15},
        'data': {'recording': 'none', 'licence': 'CC0-1.0', 'seconds': 60.0, 'frames': 900},
        'limits': ['It is no place at all.']}, (MAP, GRAPH, ROBOT, URDF))


def _distances():
    """Return metres to the nearest surface from every corner of the grid, (x, y, z)."""
    from lingbot_world_ros.training.mapped.fusion import grid_for
    grid = grid_for(SIZE_M, VOXEL_M)
    at = grid.corners().reshape(*grid.shape, 3)
    walls = np.minimum(at, SIZE_M - at).min(-1)
    outside = np.abs(at[..., :2] - BLOCK[0]) - BLOCK[1]
    block = np.hypot(*np.moveaxis(np.maximum(outside, 0.0), -1, 0)) + np.minimum(
        outside.max(-1), 0.0)
    seen = (at[..., 0] < UNSEEN_M) | (at[..., 1] < UNSEEN_M)
    return grid, np.minimum(walls, block).astype(np.float32), seen


def _write_map(folder, camera, robot):
    from lingbot_world_ros.models.mapped.network import MapOfPlace, MappedRenderer, MapSpec
    from lingbot_world_ros.models.mapped.runtime import GRAPH, MAP
    from lingbot_world_ros.models.room.renderer import camera_tensors, pack_atlas
    from lingbot_world_ros.models.room.runtime import WEIGHTS
    from lingbot_world_ros.training.mapped.export import export_place, shipped_network
    from lingbot_world_ros.training.mapped.learn import floor_plan, MARGIN_M
    from safetensors.numpy import save_file
    import torch
    grid, sdf, seen = _distances()
    network, spec = shipped_network(WEIGHTS), MapSpec(texel_m=0.1, coarse_texel_m=0.4)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        place = MapOfPlace(sdf, grid.voxel_m, network.spec.plane_channels, spec)
        for plane in place.coarse:
            plane *= 5.0  # or all is grey
        tensors = place.tensors()
    starts = _starts()
    plan, clearance = floor_plan(sdf, seen, grid.voxel_m, robot.footprint.height_m, starts[:, :2],
                                 RADIUS_M)
    origin = -MARGIN_M - 0.5 * grid.voxel_m
    save_file({'sdf': sdf.astype(np.float16), 'seen': seen.astype(np.float16),
               'grid': tensors['grid'].numpy(),
               **{name: tensors[name].half().numpy() for name in tensors if 'plane' in name},
               'plan': plan, 'clearance': clearance.astype(np.float16),
               'plan_origin': np.array([origin, origin, grid.voxel_m]),
               'starts': starts, 'poses': starts,
               'start_joints': np.tile(robot.joint_array('home'), (len(starts), 1))}, folder / MAP)
    export_place(MappedRenderer(network, spec),
                 {**tensors, 'seen': pack_atlas(torch.from_numpy(seen.astype(np.float32)))},
                 camera_tensors(camera), True, folder / GRAPH)


def _starts():
    """Return poses on a way once around the block, (m, 3)."""
    angle = np.arange(12) * 2.0 * np.pi / 12
    return np.column_stack([1.5 + 0.8 * np.cos(angle), 1.5 + 0.8 * np.sin(angle),
                            angle + 0.5 * np.pi])
