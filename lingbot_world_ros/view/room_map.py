# SPDX-License-Identifier: Apache-2.0
"""The map of the page: what stands in a room, and where odometry and the room meet. Pure."""
from math import hypot
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from lingbot_world_ros.geometry import se2
from lingbot_world_ros.worlds.floor_plan import FloorPlan, resampled
from lingbot_world_ros.worlds.scenes import get_scene, Part, SCENES
import numpy as np

MIN_MOVE_M = 0.05  # between two points of the way
MAX_POINTS = 2000
KNOWN_POSES = 60  # of the newest odometry, to be found again by their stamps
MAX_RECTANGLES = 1500  # of a floor plan; more cells are put together
SAME_M, SAME_RAD = 0.12, 0.15  # what a robot may move while two messages are made


def plan_of(scene: str, height_m: float) -> Optional[dict]:
    """
    Tell what stands in a room.

    :param scene: one of ours
    :param height_m: of the robot; what begins above it is left out
    :return: low_m and size_m (x, y), parts as [x, y, yaw, half x, half y] or [x, y, radius],
        unknown floor as such parts, the sizes of movable objects, [half x, half y] or [radius],
        by name, and whether it has outer walls; metres, scene frame. None for another scene
    """
    if scene not in SCENES:
        return None
    room = get_scene(scene)
    parts = [_outline(part) for part in room.obstacles(height_m)]
    objects = {movable.name: list(movable.size[:2] if movable.shape == 'box' else movable.size[:1])
               for movable in room.movables}
    return {'low_m': [0.0, 0.0], 'size_m': list(room.size_m), 'parts': parts, 'unknown': [],
            'objects': objects, 'has_walls': True}


def plan_of_grid(plan: FloorPlan) -> Optional[dict]:
    """
    Tell what stands on a floor plan, as ``plan_of`` does for a room.

    :param plan: of any grid
    :return: the same; what lies beyond the free floor is left out. None where nothing is free
    """
    unknown = np.zeros_like(plan.occupied) if plan.unknown is None else plan.unknown
    free = ~plan.occupied & ~unknown
    if not free.any():
        return None
    (top, bottom), (left, right) = (
        (max(int(at[0]) - 1, 0), int(at[-1]) + 2)
        for at in (np.flatnonzero(free.any(axis)) for axis in (1, 0)))
    cut = np.s_[top:bottom, left:right]
    low_m = (plan.origin_m[0] + left * plan.resolution_m,
             plan.origin_m[1] + top * plan.resolution_m)
    shown = FloorPlan(plan.occupied[cut], plan.resolution_m, low_m, unknown[cut])
    parts, dark = (_rectangles(cells, shown) for cells in (shown.occupied, shown.unknown))
    while len(parts) + len(dark) > MAX_RECTANGLES:
        shown = resampled(shown, 2.0 * shown.resolution_m)
        parts, dark = (_rectangles(cells, shown) for cells in (shown.occupied, shown.unknown))
    rows, columns = shown.occupied.shape
    return {'low_m': _rounded(low_m), 'size_m': _rounded((columns * shown.resolution_m,
                                                          rows * shown.resolution_m)),
            'parts': parts, 'unknown': dark, 'objects': {}, 'has_walls': False}


def _rectangles(cells: Optional[np.ndarray], plan: FloorPlan) -> List[List[float]]:
    """Cover cells with few boxes: runs along x, put together where rows repeat them."""
    assert cells is not None, 'a plan that is shown says what is unknown'
    edges = np.diff(np.pad(cells, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    boxes: List[List[float]] = []
    above: Dict[Tuple[int, int], int] = {}  # run -> first row that has it
    for row in range(len(cells) + 1):
        at = np.flatnonzero(edges[row]).tolist() if row < len(cells) else []
        runs = dict.fromkeys(zip(at[::2], at[1::2]), row)
        for run in above.keys() - runs.keys():
            boxes.append(_box(*run, above[run], row, plan))
        above = {run: above.get(run, row) for run in runs}
    return boxes


def _box(left: int, right: int, top: int, bottom: int, plan: FloorPlan) -> List[float]:
    side_m = 0.5 * plan.resolution_m
    x, y = (low + side_m * (begin + end) for low, begin, end in zip(
        plan.origin_m, (left, top), (right, bottom)))
    return _rounded((x, y, 0.0, side_m * (right - left), side_m * (bottom - top)))


def _rounded(numbers: Sequence[float]) -> List[float]:
    return [round(float(number), 3) for number in numbers]


def _outline(part: Part) -> List[float]:
    x, y, _ = part.pos
    numbers = (x, y, part.size[0]) if part.shape == 'cylinder' else (
        x, y, part.euler[2], *part.size[:2])
    return [round(number, 3) for number in numbers]


class Way:
    """Where the base has been since the reset, in odom; ``points`` is replaced, never changed."""

    def __init__(self) -> None:
        self.points: List[List[float]] = []

    def clear(self) -> None:
        """Odometry starts over."""
        self.points = []

    def set(self, points: Sequence[Sequence[float]]) -> None:
        """Take over a way that somebody else has kept, (n, 2) x, y [m]."""
        self.points = [[round(x, 3), round(y, 3)] for x, y in points[-MAX_POINTS:]]

    def add(self, pose: Sequence[float]) -> None:
        """Go on to a pose, x, y [m], if that is far enough."""
        x, y = pose[:2]
        if not self.points or hypot(x - self.points[-1][0], y - self.points[-1][1]) > MIN_MOVE_M:
            self.set([*self.points, [x, y]])


class Origin:
    """Where odometry starts in the scene, from what is told of the robot in both frames."""

    def __init__(self) -> None:
        self.pose: Optional[np.ndarray] = None  # (3,) x, y [m], yaw [rad] of odom in the scene
        self._poses: Dict[int, Tuple[float, ...]] = {}  # stamp [ns] -> in odom

    def forget(self) -> None:
        """Forget poses of a run that is over; its stamps may come again."""
        self._poses = {}

    def note(self, stamp_ns: int, pose_odom: Sequence[float]) -> None:
        """Note where the robot is in odom, (3,)."""
        kept = list(self._poses.items())[1 - KNOWN_POSES:]
        self._poses = {**dict(kept), stamp_ns: tuple(pose_odom)}

    def meet(self, stamp_ns: int, pose_scene: Sequence[float]) -> None:
        """
        Compare with where the robot is in the scene.

        A moving robot may be told a frame late; a little is left to later, when it stands.

        :param stamp_ns: sim time
        :param pose_scene: (3,) x, y [m], yaw [rad]
        """
        if stamp_ns not in self._poses:
            return
        pose = se2.compose(np.asarray(pose_scene), se2.inverse(np.array(self._poses[stamp_ns])))
        stands = len(set(list(self._poses.values())[-3:])) == 1
        if self.pose is None or stands or self._is_far(pose):
            self.pose = pose

    def _is_far(self, pose: np.ndarray) -> bool:
        assert self.pose is not None
        x, y, yaw = se2.relative(self.pose, pose)
        return hypot(x, y) > SAME_M or abs(np.sin(yaw)) > SAME_RAD or np.cos(yaw) < 0.0


def told(origin: Origin, objects: Mapping[str, Sequence[float]], way: Way) -> dict:
    """Return the message ``map``: origin, objects by name and the path; poses as x, y, yaw."""
    pose = None if origin.pose is None else [round(value, 4) for value in origin.pose.tolist()]
    return {'origin': pose, 'path': way.points,
            'objects': {name: [round(value, 3) for value in at] for name, at in objects.items()}}
