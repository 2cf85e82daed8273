# SPDX-License-Identifier: Apache-2.0
"""A topic of a recording, and messages of those recordings that hold none. No ROS."""
from dataclasses import dataclass
from types import SimpleNamespace


@dataclass(frozen=True)
class Topic:
    """A topic of a recording; ``problem`` says why its messages cannot be read, '' if they can."""

    name: str
    kind: str  # for example sensor_msgs/msg/Image
    count: int
    problem: str = ''


def header_at(stamp_ns: int, frame: str = '') -> SimpleNamespace:
    """Return what a std_msgs/Header holds."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec), frame_id=frame)
