# SPDX-License-Identifier: Apache-2.0
"""
Scenes: what stands where, and where a seed puts the robot. Pure data and NumPy.

A scene is generated from a style and a seed: room size, furniture along the walls, pictures,
a door, movable objects. The reference world turns it into MJCF; the embedded world has learned
how it looks and only takes the start state from here. Scene frame: origin in a corner of the
floor, x and y along the walls, z up, metres.
"""
from dataclasses import dataclass
from functools import lru_cache
from typing import List, Tuple
import zlib

from lingbot_world_ros.errors import unknown_name
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.robots.robot import Robot
import numpy as np

WALL_HEIGHT_M = 2.4
Size = Tuple[float, float]  # x, y, metres


@dataclass(frozen=True)
class Part:
    """
    One static primitive.

    ``shape`` box (half sizes), cylinder (radius, half height) or plane (half sizes, faces
    local +z); ``pos`` centre [m]; ``euler`` x, y, z [rad], intrinsic. Solid parts stop the base.
    """

    shape: str
    size: Tuple[float, ...]
    pos: Tuple[float, float, float]
    material: str
    euler: Tuple[float, float, float] = (0.0, 0.0, 0.0)
    solid: bool = True

    @property
    def underside_m(self) -> float:
        """Height of the lowest point of an upright box or cylinder, metres."""
        return self.pos[2] - self.size[-1]


@dataclass(frozen=True)
class Movable:
    """A pushable object that slides on the floor: box half sizes or cylinder/sphere radius [m]."""

    name: str
    shape: str
    size: Tuple[float, ...]
    material: str
    mass_kg: float

    @property
    def radius_m(self) -> float:
        """Radius of the vertical cylinder that encloses the object, metres."""
        return float(np.hypot(self.size[0], self.size[1])) if self.shape == 'box' else self.size[0]

    @property
    def half_size_m(self) -> Tuple[float, float, float]:
        """Half sizes of the enclosing box, metres."""
        if self.shape == 'box':
            x, y, z = self.size
            return x, y, z
        half_height = self.size[1] if self.shape == 'cylinder' else self.size[0]
        return (self.size[0], self.size[0], half_height)


@dataclass(frozen=True)
class Scene:
    """A generated scene: room of ``size_m`` (x, y), static parts, movable objects."""

    name: str
    style: str
    seed: int
    size_m: Size
    parts: Tuple[Part, ...]
    movables: Tuple[Movable, ...]

    def obstacles(self, height_m: float) -> List[Part]:
        """Return the solid parts that begin below a height [m]: a robot so high touches them."""
        return [part for part in self.parts if part.solid and part.underside_m < height_m]

    def clearance_m(self, xy: np.ndarray, height_m: float) -> np.ndarray:
        """
        Distance on the floor plan to the nearest wall or solid part.

        :param xy: (..., 2) points [m]
        :param height_m: of what stands there; parts that begin above it are not in its way
        :return: (...) distances [m], negative inside a part or outside the room
        """
        xy = np.asarray(xy, np.float64)
        walls = np.minimum(xy, np.array(self.size_m) - xy).min(-1)
        return np.minimum.reduce([walls] + [_footprint_distance(part, xy)
                                            for part in self.obstacles(height_m)])

    def start_state(self, seed: int, robot: Robot) -> 'StartState':
        """
        Draw base pose, joints and object poses, free of contact.

        :param seed: any int; the same seed gives the same state on every machine
        :param robot: that stands there
        :return: the state at sim time zero
        """
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), abs(int(seed)),
                                     int(seed < 0)])
        taken: List[np.ndarray] = []  # (x, y, radius)
        height_m = robot.footprint.height_m
        base_xy = self._free_point(rng, robot.footprint.radius_m + 0.12, height_m, taken)
        base = np.array([*base_xy, rng.uniform(-np.pi, np.pi)])
        objects = []
        for movable in self.movables:
            xy = self._free_point(rng, movable.radius_m + 0.05, height_m, taken)
            objects.append([*xy, rng.uniform(-np.pi, np.pi)])
        low, high = robot.joint_array('low'), robot.joint_array('high')
        joints = low + (high - low) * rng.uniform(0.1, 0.9, len(low))
        return StartState(base, joints, np.array(objects).reshape(-1, 3))

    def _free_point(self, rng: np.random.Generator, radius_m: float, height_m: float,
                    taken: List[np.ndarray]) -> np.ndarray:
        """Draw a point whose disc touches nothing; remember it in ``taken``."""
        for _ in range(10000):
            xy = rng.uniform((0.0, 0.0), self.size_m)
            if self.clearance_m(xy, height_m) < radius_m:
                continue
            if all(np.hypot(*(xy - t[:2])) > radius_m + t[2] + 0.05 for t in taken):
                taken.append(np.array([*xy, radius_m]))
                return xy
        raise AssertionError(f'scene {self.name} has no room left for a disc of {radius_m} m')


@dataclass(frozen=True)
class StartState:
    """Base pose (3,) x, y [m], yaw [rad]; joints (j,) rad or m; objects (n, 3) x, y, yaw."""

    base_pose: np.ndarray
    joint_position: np.ndarray
    object_pose: np.ndarray


def _footprint_distance(part: Part, xy: np.ndarray) -> np.ndarray:
    """Signed floor-plan distance from points (..., 2) to one part."""
    local = xy - np.array(part.pos[:2])
    if part.shape == 'cylinder':
        return np.hypot(local[..., 0], local[..., 1]) - part.size[0]
    outside = np.abs(se2.rotated(local, -part.euler[2])) - np.array(part.size[:2])
    return np.hypot(*np.moveaxis(np.maximum(outside, 0.0), -1, 0)) \
        + np.minimum(outside.max(-1), 0.0)


def _box(cx: float, cy: float, z0: float, sx: float, sy: float, sz: float, material: str,
         yaw: float = 0.0) -> Part:
    """Box from its full sizes and the height of its underside."""
    return Part('box', (sx / 2, sy / 2, sz / 2), (cx, cy, z0 + sz / 2), material, (0, 0, yaw))


def _table(cx: float, cy: float, sx: float, sy: float, height: float, top: str,
           leg: str) -> List[Part]:
    """Table top on four legs."""
    parts = [_box(cx, cy, height - 0.06, sx, sy, 0.06, top)]
    for ox in (-1, 1):
        for oy in (-1, 1):
            parts.append(_box(cx + ox * (sx / 2 - 0.05), cy + oy * (sy / 2 - 0.05), 0.0,
                              0.08, 0.08, height - 0.06, leg))
    return parts


# Rotations that turn a plane's +z into the room and its +y up, keyed by the wall it hangs on.
_WALL_EULER = {'south': (-np.pi / 2, 0.0, np.pi), 'north': (np.pi / 2, 0.0, 0.0),
               'west': (np.pi / 2, np.pi / 2, 0.0), 'east': (np.pi / 2, -np.pi / 2, 0.0)}


def _on_wall(size_m: Size, wall: str, along: float, z: float, width: float,
             height: float, material: str, gap: float = 0.012) -> Part:
    """Put a picture, window or door panel (full sizes) on a wall, as a plane facing the room."""
    lx, ly = size_m
    if wall in ('south', 'north'):
        pos = (along, gap if wall == 'south' else ly - gap, z)
    else:
        pos = (gap if wall == 'west' else lx - gap, along, z)
    return Part('plane', (width / 2, height / 2), pos, material, _WALL_EULER[wall], solid=False)


def _shell(size_m: Size, style: str) -> List[Part]:
    """Floor, ceiling and four walls."""
    lx, ly = size_m
    parts = [Part('plane', (lx / 2, ly / 2), (lx / 2, ly / 2, 0.0), f'{style}_floor', solid=False),
             Part('plane', (lx / 2, ly / 2), (lx / 2, ly / 2, WALL_HEIGHT_M), 'ceiling',
                  (np.pi, 0.0, 0.0), solid=False)]
    for wall in ('south', 'north', 'west', 'east'):
        span, middle = (lx, lx / 2) if wall in ('south', 'north') else (ly, ly / 2)
        parts.append(_on_wall(size_m, wall, middle, WALL_HEIGHT_M / 2, span, WALL_HEIGHT_M,
                              f'{style}_wall_{wall}', gap=0.0))
    return parts


def _living_room(rng: np.random.Generator) -> Tuple[Size, List[Part]]:
    lx, ly = 6.0, 5.0
    size = (lx, ly)
    sofa_x = rng.uniform(2.4, 3.4)
    shelf_y = rng.uniform(1.6, 2.8)
    parts = _shell(size, 'living')
    parts += [_box(sofa_x, ly - 0.42, 0.0, 1.9, 0.80, 0.42, 'sofa'),
              _box(sofa_x, ly - 0.10, 0.42, 1.9, 0.18, 0.42, 'sofa_dark'),
              _box(sofa_x - 0.86, ly - 0.42, 0.42, 0.18, 0.80, 0.20, 'sofa_dark'),
              _box(sofa_x + 0.86, ly - 0.42, 0.42, 0.18, 0.80, 0.20, 'sofa_dark'),
              _box(lx - 0.20, shelf_y, 0.0, 0.38, 1.3, 1.75, 'books'),
              _box(1.3, 0.24, 0.0, 1.6, 0.44, 0.5, 'wood_dark'),
              _box(1.3, 0.20, 0.56, 1.1, 0.10, 0.62, 'screen'),
              Part('cylinder', (0.20, 0.02), (0.4, ly - 0.4, 0.02), 'metal'),
              Part('cylinder', (0.05, 0.7), (0.4, ly - 0.4, 0.7), 'metal'),
              Part('cylinder', (0.20, 0.16), (0.4, ly - 0.4, 1.48), 'lamp'),
              Part('cylinder', (0.18, 0.20), (lx - 0.38, ly - 0.38, 0.20), 'terracotta'),
              Part('cylinder', (0.26, 0.30), (lx - 0.38, ly - 0.38, 0.70), 'leaves')]
    parts += _table(sofa_x, 3.05, 1.0, 0.6, 0.45, 'wood', 'wood_dark')
    parts += [Part('plane', (1.15, 0.8), (sofa_x, 2.9, 0.004), 'rug', solid=False),
              _on_wall(size, 'south', 4.6, 1.0, 0.95, 2.0, 'door_blue'),
              _on_wall(size, 'west', 1.6, 1.25, 1.1, 0.8, 'painting_sun'),
              _on_wall(size, 'west', 3.4, 1.35, 1.5, 1.1, 'window'),
              _on_wall(size, 'north', sofa_x, 1.45, 1.3, 0.7, 'painting_blocks'),
              _on_wall(size, 'east', 0.7, 1.2, 0.6, 0.9, 'painting_waves')]
    return size, parts


def _office(rng: np.random.Generator) -> Tuple[Size, List[Part]]:
    lx, ly = 7.0, 5.0
    size = (lx, ly)
    wall_x = 4.3
    desk_y = rng.uniform(1.4, 2.2)
    parts = _shell(size, 'office')
    # A wall divides the room; the doorway in it stays open.
    parts += [_box(wall_x, 0.85, 0.0, 0.12, 1.7, WALL_HEIGHT_M, 'divider'),
              _box(wall_x, 4.15, 0.0, 0.12, 1.7, WALL_HEIGHT_M, 'divider'),
              _box(wall_x, 2.5, 2.05, 0.12, 1.6, WALL_HEIGHT_M - 2.05, 'divider')]
    parts += _table(0.45, desk_y, 0.8, 1.6, 0.74, 'desk_white', 'metal')
    parts += [_box(0.28, desk_y, 0.74, 0.08, 0.66, 0.40, 'screen'),
              _box(0.5, desk_y + 0.6, 0.74, 0.24, 0.22, 0.12, 'red'),
              Part('cylinder', (0.24, 0.04), (1.25, desk_y, 0.46), 'fabric_green'),
              Part('cylinder', (0.06, 0.22), (1.25, desk_y, 0.22), 'metal'),
              _box(1.3, ly - 0.22, 0.0, 1.7, 0.40, 1.25, 'binders'),
              _box(2.9, ly - 0.25, 0.0, 0.5, 0.46, 0.9, 'cabinet_orange'),
              _box(lx - 0.32, 0.9, 0.0, 0.6, 1.4, 0.8, 'cabinet_white'),
              _box(lx - 0.32, 0.6, 0.8, 0.34, 0.34, 0.36, 'red'),
              _box(lx - 0.32, 1.2, 0.8, 0.30, 0.30, 0.22, 'metal'),
              Part('cylinder', (0.22, 0.28), (lx - 0.4, ly - 0.4, 0.28), 'cabinet_white'),
              Part('cylinder', (0.28, 0.34), (lx - 0.4, ly - 0.4, 0.9), 'leaves'),
              _on_wall(size, 'south', 2.4, 1.25, 1.8, 0.9, 'whiteboard'),
              _on_wall(size, 'south', 6.0, 1.0, 0.95, 2.0, 'door_green'),
              _on_wall(size, 'east', 2.9, 1.3, 1.6, 1.0, 'window'),
              _on_wall(size, 'north', 5.6, 1.2, 1.2, 0.8, 'painting_blocks'),
              _on_wall(size, 'west', 3.9, 1.25, 0.8, 1.0, 'painting_waves')]
    return size, parts


def _workshop(rng: np.random.Generator) -> Tuple[Size, List[Part]]:
    lx, ly = 6.0, 6.0
    size = (lx, ly)
    bench_x = rng.uniform(2.0, 3.0)
    parts = _shell(size, 'workshop')
    parts += _table(bench_x, ly - 0.42, 2.2, 0.76, 0.86, 'wood', 'metal')
    parts += [_box(bench_x - 0.6, ly - 0.4, 0.86, 0.5, 0.3, 0.26, 'toolbox'),
              Part('cylinder', (0.10, 0.16), (bench_x + 0.5, ly - 0.4, 1.02), 'yellow'),
              _box(0.35, 1.2, 0.0, 0.62, 0.62, 0.6, 'crate'),
              _box(0.38, 1.95, 0.0, 0.66, 0.66, 0.66, 'crate'),
              _box(0.36, 1.55, 0.66, 0.5, 0.5, 0.5, 'crate', yaw=0.3),
              _box(lx - 0.28, 3.6, 0.0, 0.52, 1.2, 1.6, 'locker'),
              Part('cylinder', (0.29, 0.44), (lx - 0.4, 0.45, 0.44), 'barrel_blue'),
              Part('cylinder', (0.29, 0.44), (lx - 1.05, 0.40, 0.44), 'barrel_rust'),
              Part('cylinder', (0.14, WALL_HEIGHT_M / 2), (3.3, 2.6, WALL_HEIGHT_M / 2),
                   'pillar'),
              _box(0.3, 4.6, 0.0, 0.5, 1.3, 0.5, 'wood_dark'),
              _box(0.3, 4.6, 0.9, 0.5, 1.3, 0.08, 'wood'),
              _box(0.3, 5.21, 0.5, 0.5, 0.08, 0.4, 'wood_dark'),
              _box(0.3, 3.99, 0.5, 0.5, 0.08, 0.4, 'wood_dark'),
              _on_wall(size, 'south', 2.5, 1.0, 1.6, 2.0, 'door_metal'),
              _on_wall(size, 'north', bench_x, 1.45, 1.9, 0.7, 'toolwall'),
              _on_wall(size, 'east', 1.8, 1.4, 1.4, 0.9, 'window'),
              _on_wall(size, 'west', 3.0, 1.3, 0.9, 0.9, 'sign_warning')]
    return size, parts


_STYLES = {'living_room': _living_room, 'office': _office, 'workshop': _workshop}

_MOVABLES = {
    'living_room': (Movable('toy_box', 'box', (0.19, 0.15, 0.16), 'toybox', 3.0),
                    Movable('pouf', 'cylinder', (0.22, 0.18), 'pouf', 3.0),
                    Movable('ball', 'sphere', (0.17,), 'ball', 1.5)),
    'office': (Movable('parcel', 'box', (0.18, 0.18, 0.18), 'parcel', 3.0),
               Movable('bin', 'cylinder', (0.16, 0.22), 'bin', 2.0),
               Movable('stool', 'cylinder', (0.18, 0.25), 'fabric_red', 3.0)),
    'workshop': (Movable('crate', 'box', (0.20, 0.20, 0.20), 'crate_green', 4.0),
                 Movable('drum', 'cylinder', (0.17, 0.26), 'drum', 4.0),
                 Movable('buoy', 'sphere', (0.20,), 'buoy', 2.0)),
}

SCENES = {name: (name, 0) for name in _STYLES}  # shipped scenes: name -> (style, seed)


def generate_scene(style: str, seed: int, name: str = '') -> Scene:
    """
    Generate a scene of a style.

    :param style: ``living_room``, ``office`` or ``workshop``
    :param seed: furniture placement
    :param name: name of the result, by default ``<style>_<seed>``
    :return: the scene
    :raises SpecError: unknown style
    """
    if style not in _STYLES:
        raise unknown_name('scene style', style, _STYLES)
    size, parts = _STYLES[style](np.random.default_rng([zlib.crc32(style.encode()), seed]))
    return Scene(name or f'{style}_{seed}', style, seed, size, tuple(parts), _MOVABLES[style])


@lru_cache(maxsize=None)
def get_scene(name: str) -> Scene:
    """
    Look up a shipped scene.

    :param name: one of ``SCENES``
    :return: the scene
    :raises SpecError: unknown name; lists the known ones
    """
    if name not in SCENES:
        raise unknown_name('scene', name, SCENES)
    style, seed = SCENES[name]
    return generate_scene(style, seed, name)
