# SPDX-License-Identifier: Apache-2.0
"""Who is told of everything a session shows. No ROS."""
from lingbot_world_ros.session.frame import Frame
from lingbot_world_ros.session.status import SessionStatus


class SessionObserver:
    """What a session tells, from its worker thread; override what is of interest."""

    def on_reset(self, status: SessionStatus) -> None:
        """Run after a world started over, before its first frame."""

    def on_mode(self, status: SessionStatus) -> None:
        """Run after the mode of a loaded world changed; stamp and step are of its reset."""

    def on_frame(self, frame: Frame) -> None:
        """Run for every frame when it is due, before anything else is computed."""

    def on_drawn(self, frame: Frame) -> None:
        """Run when the newest frame, which had no picture, got one; see ``Session.look``."""

    def on_clock(self, stamp_ns: int) -> None:
        """Run for every tick of sim time; may come from a thread of its own."""

    def on_status(self, status: SessionStatus) -> None:
        """Run after every step and every change of state."""
