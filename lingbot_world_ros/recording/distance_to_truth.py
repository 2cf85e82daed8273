# SPDX-License-Identifier: Apache-2.0
"""How far two worlds that do the same are apart, moment by moment. Plain numbers, no ROS."""
import threading
from typing import Any, Dict, Optional, Tuple

from lingbot_world_ros.geometry import se2
import numpy as np

NUM_IMAGES, NUM_POSES = 30, 300  # moments kept that the other side has not shown yet


class Pairs:
    """Brings together what two sides say of the same moment; either may be first."""

    def __init__(self, num_kept: int):
        """
        Begin with nothing.

        :param num_kept: moments kept per side
        """
        self._num_kept = num_kept
        self._sides: Tuple[Dict[int, Any], Dict[int, Any]] = ({}, {})
        self._newest_ns = [0, 0]

    def put(self, side: int, stamp_ns: int, value: Any) -> Optional[Tuple[Any, Any]]:
        """
        Take in what one side says.

        :param side: 0 or 1
        :param stamp_ns: sim time; when it goes back, what was before is over
        :param value: anything but None
        :return: values of side 0 and 1 if both are there, else None
        """
        mine = self._sides[side]
        if stamp_ns <= self._newest_ns[side]:
            mine.clear()
        self._newest_ns[side] = stamp_ns
        mine[stamp_ns] = value
        if len(mine) > self._num_kept:
            del mine[next(iter(mine))]
        other = self.get(1 - side, stamp_ns)
        if other is None:
            return None
        return (value, other) if side == 0 else (other, value)

    def get(self, side: int, stamp_ns: int) -> Any:
        """Return what a side said of a moment, None if nothing is known."""
        return self._sides[side].get(stamp_ns)


class Comparison:
    """
    Compares a world (side 0) with the truth (side 1) by stamp; safe from any thread.

    ``image_error`` is the newest RMS difference of two images, 0..1 of full scale,
    ``position_error_m`` that of two bases; None before there is one.
    """

    def __init__(self) -> None:
        """Begin without a moment."""
        self._lock = threading.Lock()
        self._images, self._poses = Pairs(NUM_IMAGES), Pairs(NUM_POSES)
        self._origin: Optional[np.ndarray] = None  # of the world's odometry, in the scene
        self.clear()

    def clear(self) -> None:
        """Forget the newest errors: the truth starts over, or waits."""
        self.image_error: Optional[float] = None
        self.position_error_m: Optional[float] = None

    def image(self, side: int, stamp_ns: int, rgb: np.ndarray) -> Optional[float]:
        """
        Take in an image.

        :param side: 0 the world, 1 the truth
        :param stamp_ns: sim time
        :param rgb: (h, w, 3) uint8, not changed afterwards
        :return: the error where the other image is known and of the same size
        """
        with self._lock:
            pair = self._images.put(side, stamp_ns, rgb)
        if pair is None or pair[0].shape != pair[1].shape:
            return None
        self.image_error = image_rms(*pair)
        return self.image_error

    def begin(self, pose: np.ndarray) -> None:
        """Take note of where the robot starts, (3,) x, y [m], yaw [rad] in the scene frame."""
        with self._lock:
            self._origin = np.array(pose)

    def anchor(self, pose: np.ndarray, stamp_ns: int) -> None:
        """
        Take note that the robot was put elsewhere; the world's odometry did not notice.

        :param pose: (3,) where it is now, scene frame
        :param stamp_ns: sim time of the frame before
        """
        with self._lock:
            before = self._poses.get(0, stamp_ns)
            self._origin = None if before is None else se2.compose(pose, se2.inverse(before))

    def odometry(self, stamp_ns: int, pose: np.ndarray) -> Optional[float]:
        """
        Take in where the world says the robot is.

        :param stamp_ns: sim time
        :param pose: (3,) x, y [m], yaw [rad] since its origin
        :return: the distance of the two bases in m, where the other pose is known
        """
        return self._pose(0, stamp_ns, pose)

    def truth(self, stamp_ns: int, pose: np.ndarray) -> Optional[float]:
        """
        Take in where the robot is.

        :param stamp_ns: sim time
        :param pose: (3,) x, y [m], yaw [rad] in the scene frame
        :return: the distance of the two bases in m, where the other pose is known
        """
        return self._pose(1, stamp_ns, pose)

    def _pose(self, side: int, stamp_ns: int, pose: np.ndarray) -> Optional[float]:
        with self._lock:
            pair = self._poses.put(side, stamp_ns, np.array(pose))
            origin = self._origin
        if pair is None or origin is None:
            return None
        self.position_error_m = float(np.hypot(*(se2.compose(origin, pair[0]) - pair[1])[:2]))
        return self.position_error_m


def image_rms(a: np.ndarray, b: np.ndarray) -> float:
    """
    Return how different two images are.

    :param a: (h, w, 3) uint8
    :param b: the same shape
    :return: RMS difference, 0..1 of full scale
    """
    difference = a.astype(np.float32) - b
    return float(np.sqrt(np.mean(difference * difference)) / 255.0)
