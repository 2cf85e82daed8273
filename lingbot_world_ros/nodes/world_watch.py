# SPDX-License-Identifier: Apache-2.0
"""Whether a world in another process still goes on, while somebody depends on it."""
import time
from typing import Callable, Optional

from lingbot_world_ros.msg import WorldStatus
from lingbot_world_ros.nodes import qos
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.timer import Timer

PERIOD_S = 0.5
SILENCE_S = 3.0  # a world that stands still tells its status twice a second
ENDED = {WorldStatus.STATE_NO_WORLD: 'the world was unloaded',
         WorldStatus.STATE_ERROR: 'the engine of the world failed'}


class WorldWatch:
    """
    Listens to ``world_status`` from ``begin`` on until nobody depends on the world any more.

    In the executor's thread only. A world that plays may be silent for as long as its steps take,
    so there it counts that somebody publishes at all.
    """

    def __init__(self, node: Node, is_needed: Callable[[], bool],
                 on_end: Callable[[str], None]) -> None:
        """
        Prepare; nothing listens yet.

        :param node: rclpy node
        :param is_needed: asked twice a second whether to go on
        :param on_end: called with the reason when the world has ended
        """
        self._node, self._is_needed, self._on_end = node, is_needed, on_end
        self._listener: Optional[qos.Listener] = None
        self._timer: Optional[Timer] = None
        self._heard_s, self._plays = 0.0, False

    def begin(self) -> None:
        """Listen."""
        self._heard_s, self._plays = time.monotonic(), False
        if self._listener is None:
            self._listener = qos.Listener(self._node, WorldStatus, 'world_status', self.on_status,
                                          qos.STATE)
            self._timer = self._node.create_timer(
                PERIOD_S, self.on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def on_status(self, msg: WorldStatus) -> None:
        """Take note of a sign of life, or of the end."""
        self._heard_s, self._plays = time.monotonic(), msg.state == WorldStatus.STATE_PLAYING
        if msg.state in ENDED:
            self._on_end(ENDED[msg.state])

    def on_tick(self) -> None:
        """Notice silence, and that nobody depends on the world any more."""
        if self._is_needed() and time.monotonic() - self._heard_s > SILENCE_S and not (
                self._plays and self._node.count_publishers('world_status')):
            self._on_end(f'world_model has been silent for {SILENCE_S:g} s: it was deactivated, '
                         'or has ended')
        if not self._is_needed() and self._timer is not None and self._listener is not None:
            self._node.destroy_timer(self._timer)
            self._listener.destroy()
            self._timer = self._listener = None
