# SPDX-License-Identifier: Apache-2.0
"""
A place that was learned from a recording: its files, and how they are run. Needs no torch.

``map.safetensors`` has the map and what follows from it, ``renderer.onnx`` draws it. Axes: b row,
h w image.
"""
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import MountedCamera
from lingbot_world_ros.models.mapped.motion import Motion
from lingbot_world_ros.models.room.runtime import Graph
from lingbot_world_ros.worlds.floor_plan import FloorPlan
from lingbot_world_ros.worlds.learned import read_learned
import numpy as np
from safetensors.numpy import load_file

MAP, GRAPH = 'map.safetensors', 'renderer.onnx'
CONSTANTS = ('atlas', 'grid', 'plane_xy', 'plane_xz', 'plane_yz', 'seen')
OCCUPIED, FREE, UNKNOWN = 1, 0, 2  # of ``plan``


@dataclass(frozen=True)
class Place:
    """
    What is known of a place, beside how it looks.

    ``plan`` (rows, columns) uint8: rows along y, columns along x of the scene frame, from
    ``plan_origin_m`` in steps of ``cell_m``; ``clearance_m`` of each cell's centre is the distance
    to what stands there. ``starts`` (m, 3) are poses where the robot has been.
    """

    plan: np.ndarray
    clearance_m: np.ndarray
    plan_origin_m: Tuple[float, float]
    cell_m: float
    starts: np.ndarray
    start_joints: np.ndarray  # (m, j)
    body: Optional[np.ndarray] = None  # (h, w, 4) uint8: the robot itself, over every picture

    def clearance_at(self, xy: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """
        Look up the distance to the nearest thing, and which way leads away from it.

        :param xy: (b, 2) scene frame [m]; beyond the plan its edge counts
        :return: (b,) metres, (b, 2) unit or zero
        """
        rows, cols = self.clearance_m.shape
        place = (np.asarray(xy) - self.plan_origin_m) / self.cell_m - 0.5
        col = np.clip(place[:, 0], 0.0, cols - 1.001)
        row = np.clip(place[:, 1], 0.0, rows - 1.001)
        i, j = row.astype(int), col.astype(int)
        u, v = col - j, row - i
        a, b = self.clearance_m[i, j], self.clearance_m[i, j + 1]
        c, d = self.clearance_m[i + 1, j], self.clearance_m[i + 1, j + 1]
        value = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * c + u * d)
        slope = np.stack([(1 - v) * (b - a) + v * (d - c), (1 - u) * (c - a) + u * (d - b)], -1)
        length = np.hypot(*slope.T)[:, None]
        return value, np.where(length > 1e-6, slope / np.maximum(length, 1e-6), 0.0)


def load_place(folder: Path) -> Tuple[Place, Dict[str, np.ndarray]]:
    """
    Read the map.

    :param folder: of the world
    :return: what is known of the place, and the tensors that the graph reads
    :raises SpecError: unreadable
    """
    path = Path(folder) / MAP
    try:
        file = {name: np.ascontiguousarray(value) for name, value in load_file(path).items()}
        place = Place(file['plan'], file['clearance'].astype(np.float64),
                      (float(file['plan_origin'][0]), float(file['plan_origin'][1])),
                      float(file['plan_origin'][2]), file['starts'].astype(np.float64),
                      file['start_joints'].astype(np.float64), file.get('body'))
        tensors = {name: np.ascontiguousarray(file[name], np.float32) for name in CONSTANTS
                   if name not in ('atlas', 'seen')}
        for name, grid in (('atlas', file['sdf']), ('seen', file['seen'])):
            tensors[name] = packed_slices(np.asarray(grid, np.float32))
    except Exception as error:  # the library raises its own, undocumented types
        raise SpecError(f'{path} cannot be read ({error}). Learn the world again, or restore the '
                        'folder.') from error
    return place, tensors


def with_body(rgb: np.ndarray, body: np.ndarray) -> np.ndarray:
    """
    Put the robot's own body over pictures.

    :param rgb: (b, h, w, 3) uint8
    :param body: (h, w, 4) uint8, its last channel how much of a pixel is the body
    :return: (b, h, w, 3) uint8
    """
    share = body[..., 3:].astype(np.float32) / 255.0
    return (rgb * (1.0 - share) + body[..., :3] * share + 0.5).astype(np.uint8)


def read_plan(folder: Path) -> Tuple[str, FloorPlan]:
    """
    Read the floor plan of a learned world, and nothing else.

    :param folder: of the world
    :return: its name, its plan
    :raises SpecError: unreadable, or a world of another kind
    """
    about = read_learned(folder)
    if about['kind'] != 'mapped':
        raise SpecError(f'{folder}: a world of kind {about["kind"]!r} has no floor plan.')
    return str(about['name']), floor_plan_of(load_place(folder)[0])


def floor_plan_of(place: Place) -> FloorPlan:
    """
    Say what stands in a place, and what was never seen.

    :param place: learned
    :return: its plan
    """
    return FloorPlan(place.plan == OCCUPIED, place.cell_m, place.plan_origin_m,
                     place.plan == UNKNOWN)


def packed_slices(grid: np.ndarray) -> np.ndarray:
    """Lay the slices of a grid side by side, each with the next one: see ``pack_atlas``."""
    above = np.concatenate([grid[..., 1:], grid[..., -1:]], -1)
    atlas = np.stack([grid, above]).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(atlas.reshape(1, 2, len(grid), -1))


class PlaceRenderer:
    """Draws a place through one camera."""

    def __init__(self, folder: Path, tensors: Dict[str, np.ndarray], camera: MountedCamera,
                 threads: int = 1) -> None:
        """
        Compile the graph.

        :param folder: of the world
        :param tensors: of ``load_place``
        :param camera: that sees
        :param threads: CPU threads
        """
        self._graph = Graph(Path(folder) / GRAPH, tensors, threads, camera=camera)
        self._num_joints = self._graph.width('joints')  # of the arm that it may draw

    def __call__(self, T_scene_optical: np.ndarray, joints: np.ndarray,
                 variance: np.ndarray) -> Dict[str, np.ndarray]:
        """
        Draw one row.

        :param T_scene_optical: (1, 4, 4)
        :param joints: (1, j); the graph may know of more, which it does not draw then
        :param variance: (1, 2 + j) of position, yaw, joints
        :return: rgb (1, h, w, 3) uint8, depth (1, h, w), sensitivity (1, 3), unseen (1,)
        """
        if joints.shape[1] != self._num_joints:  # of another robot: none of them is drawn
            joints = np.zeros((1, self._num_joints))
            variance = np.concatenate([variance[:, :2], joints], 1)
        return self._graph({'T_scene_optical': T_scene_optical, 'joints': joints,
                            'variance': variance})


def read_motion(about: Mapping[str, Any]) -> Motion:
    """
    Read the follower of a base.

    :param about: ``motion`` of ``world.yaml``
    :return: the follower
    :raises SpecError: it says something else
    """
    try:
        gain, follow = (tuple(map(float, about[name])) for name in ('gain', 'follow'))
        growth = tuple(map(float, about['growth']))
        return Motion((gain[0], gain[1], gain[2]), (follow[0], follow[1], follow[2]),
                      int(about['delay_frames']), bool(about['is_steered']),
                      (growth[0], growth[1]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SpecError(f'motion of world.yaml cannot be read ({error!r}).') from error
