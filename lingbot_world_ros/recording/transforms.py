# SPDX-License-Identifier: Apache-2.0
"""
The tree of frames that a recording holds, and where one frame was in another. NumPy only.

A transform is a row x, y, z [m], x, y, z, w of a quaternion; between two that were recorded the
older one holds, nothing is interpolated.
"""
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from lingbot_world_ros.geometry.se3 import inverse
from lingbot_world_ros.recording.series import Clock, Track
import numpy as np

Edge = Tuple[str, str]  # parent, child
BASES = ('base_link', 'base_footprint', 'base', 'chassis', 'base_frame')


class FrameTree:
    """Transforms by edge: moving ones as tracks, fixed ones as the newest value."""

    def __init__(self) -> None:
        """Begin without frames."""
        self.moving: Dict[Edge, Track] = {}
        self.fixed: Dict[Edge, np.ndarray] = {}
        self._parents: Dict[str, str] = {}
        self._left_out: Set[Edge] = set()

    def add(self, transform: Any, order: int, received_ns: int, is_fixed: bool) -> None:
        """
        Take in a geometry_msgs/TransformStamped.

        :param transform: the message
        :param order: its place in the recording
        :param received_ns: by the recorder's clock
        :param is_fixed: it is from ``/tf_static``
        :raises ValueError: its numbers are no transform
        """
        header, t = transform.header, transform.transform.translation
        q = transform.transform.rotation
        edge = header.frame_id.lstrip('/'), transform.child_frame_id.lstrip('/')
        row = (t.x, t.y, t.z, q.x, q.y, q.z, q.w)
        if not np.isfinite(row).all() or not any(row[3:]):
            raise ValueError('a transform that is none')
        if edge in self._left_out:
            return
        self._parents[edge[1]] = edge[0]
        if is_fixed:
            self.fixed[edge] = np.array(row)
            return
        stamp_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        if edge not in self.moving:
            self.moving[edge] = Track(7)
        self.moving[edge].add(order, received_ns, stamp_ns, values=row)

    def keep(self, frames: Iterable[str]) -> None:
        """
        Forget transforms that are on no way from one of these frames to the root.

        A robot has many joints, and memory shall not grow with what nobody asks for.

        :param frames: that are wanted
        """
        on_the_way = {name for frame in frames for name in self._up(frame)}
        for edge in [edge for edge in self.moving if edge[1] not in on_the_way]:
            self._left_out.add(edge)
            del self.moving[edge]
            del self._parents[edge[1]]

    @property
    def frames(self) -> Tuple[str, ...]:
        """Names of all frames."""
        return tuple(sorted({*self._parents, *self._parents.values()}))

    def base(self) -> str:
        """Return the frame of the robot's base by its name, '' where none is known."""
        for name in BASES:
            for frame in self.frames:
                if frame == name or frame.endswith(f'/{name}'):
                    return frame
        return ''

    def _up(self, frame: str) -> List[str]:
        """Return a frame and all above it."""
        names = [frame]
        while names[-1] in self._parents and self._parents[names[-1]] not in names:
            names.append(self._parents[names[-1]])
        return names

    def above(self, frame: str, wanted: str) -> str:
        """Return the frame of this name, with any prefix, that ``frame`` hangs below, or ''."""
        for name in self._up(frame)[1:]:
            if name == wanted or name.endswith(f'/{wanted}'):
                return name
        return ''

    def path(self, parent: str, child: str) -> Optional[Tuple[List[Edge], List[Edge]]]:
        """
        Find how to get from one frame to another.

        :param parent: frame in which the other one is wanted
        :param child: the other one
        :return: edges from ``parent`` up to the frame above both, and from there down to
            ``child``; None where they are not connected
        """
        if parent not in self.frames or child not in self.frames:
            return None
        up, down = self._up(parent), self._up(child)
        common = next((name for name in up if name in down), None)
        if common is None:
            return None
        climbed = [(self._parents[name], name) for name in up[:up.index(common)]]
        descended = [(self._parents[name], name) for name in down[:down.index(common)]]
        return climbed, descended[::-1]

    def moving_on(self, parent: str, child: str) -> List[Edge]:
        """Return the edges between two frames that may move."""
        found = self.path(parent, child)
        return [edge for edge in (*found[0], *found[1]) if edge in self.moving] if found else []

    def poses(self, parent: str, child: str, clock: Clock, stretch: int,
              ticks_ns: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """
        Return where one frame was in another; the two must be connected.

        :param parent: frame in which it is told
        :param child: frame that is told
        :param clock: of the recording
        :param stretch: of unbroken time
        :param ticks_ns: (m,) moments
        :return: (m, 4, 4) float64, and (m,) age of the oldest transform [ns], -1 where one is
            not there yet
        """
        found = self.path(parent, child)
        assert found is not None, 'asked for frames that are not connected'
        T = np.broadcast_to(np.eye(4), (len(ticks_ns), 4, 4))
        age = np.zeros(len(ticks_ns), np.int64)
        for edge, is_up in _directed(*found):
            T_edge, late = self._edge(edge, clock, stretch, ticks_ns)
            T = T @ (inverse(T_edge) if is_up else T_edge)
            age = np.where((age < 0) | (late < 0), -1, np.maximum(age, late))
        return T, age

    def _edge(self, edge: Edge, clock: Clock, stretch: int,
              ticks_ns: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        if edge not in self.moving:
            T = matrices(self.fixed[edge][None])
            return np.broadcast_to(T, (len(ticks_ns), 4, 4)), np.zeros(len(ticks_ns), np.int64)
        track = self.moving[edge]
        index, age = clock.times(track).newest(stretch, ticks_ns)
        used, place = np.unique(np.maximum(index, 0), return_inverse=True)
        return matrices(track.values[used])[place], np.where(index < 0, -1, age)


def _directed(up: Sequence[Edge], down: Sequence[Edge]) -> Iterator[Tuple[Edge, bool]]:
    for edge in up:
        yield edge, True
    for edge in down:
        yield edge, False


def matrices(rows: np.ndarray) -> np.ndarray:
    """
    Turn transforms into matrices.

    :param rows: (m, 7) positions and quaternions x, y, z, w of any length but zero
    :return: (m, 4, 4) float64
    """
    x, y, z, w = (rows[:, 3:] / np.linalg.norm(rows[:, 3:], axis=1, keepdims=True)).T
    T = np.zeros((len(rows), 4, 4))
    T[:, :3, :3] = np.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], -1).reshape(-1, 3, 3)
    T[:, :3, 3] = rows[:, :3]
    T[:, 3, 3] = 1.0
    return T


def planar(T: np.ndarray) -> np.ndarray:
    """
    Look at poses from above.

    :param T: (m, 4, 4)
    :return: (m, 3) x, y [m], yaw [rad, wrapped]
    """
    return np.stack([T[:, 0, 3], T[:, 1, 3], np.arctan2(T[:, 1, 0], T[:, 0, 0])], 1)
