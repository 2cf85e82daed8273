# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds of sim time <-> builtin_interfaces/Time, in place where a message is reused."""
from typing import Protocol


class Stamp(Protocol):
    """A builtin_interfaces/Time or Duration, of ROS or out of a recording."""

    sec: int
    nanosec: int


def set_stamp(stamp: Stamp, stamp_ns: int) -> None:
    """
    Write a time into a message field.

    :param stamp: builtin_interfaces/Time to fill
    :param stamp_ns: sim time, nanoseconds, 0 or more
    """
    stamp.sec, stamp.nanosec = divmod(stamp_ns, 1_000_000_000)


def stamp_to_ns(stamp: Stamp) -> int:
    """Return a builtin_interfaces/Time or Duration as nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec
