# SPDX-License-Identifier: Apache-2.0
"""Handlers of services that wait for another thread without holding up the executor."""
import concurrent.futures
import time
from typing import List, Optional, Tuple

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from rclpy.timer import Timer

CHECK_PERIOD_S = 0.05  # how often waits that are over are looked for


class Waiting:
    """
    Suspends handlers (``async``) until a future of another thread is done.

    Services whose handlers wait belong into ``group``: in the default group of a node a suspended
    handler would hold up every other callback of the node.
    """

    def __init__(self, node: Node):
        """
        Prepare; there is no timer before somebody waits, and none ticks while nobody does.

        :param node: rclpy node whose handlers wait
        """
        self.group = ReentrantCallbackGroup()
        # With use_sim_time a ROS timer would wait for the clock that this node makes.
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._node = node
        self._waits: List[Tuple[float, Future]] = []  # deadline [s, steady]
        self._timer: Optional[Timer] = None

    def destroy(self) -> None:
        """Withdraw the timer; call it before the node is destroyed."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)

    async def wait(self, outcome: concurrent.futures.Future, within_s: float) -> bool:
        """
        Suspend the handler that awaits this.

        :param outcome: of the other thread
        :param within_s: wall time after which the handler goes on all the same; 0 is never
        :return: whether the outcome is there
        """
        executor = self._node.executor
        assert executor is not None  # it runs the handler
        done: Future = Future(executor=executor)

        def wake(_: concurrent.futures.Future) -> None:
            done.set_result(True)
            executor.wake()  # before rclpy 10 nothing else resumes a suspended handler

        outcome.add_done_callback(wake)
        if within_s:
            self._waits.append((time.monotonic() + within_s, done))
            if self._timer is None:
                self._timer = self._node.create_timer(
                    CHECK_PERIOD_S, self._end_waits, clock=self.steady, callback_group=self.group)
            elif self._timer.is_canceled():
                self._timer.reset()
        await done
        return outcome.done()

    def _end_waits(self) -> None:
        """Let those go whose time is over, and forget those who are done."""
        now_s = time.monotonic()
        for deadline_s, done in self._waits:
            if deadline_s <= now_s and not done.done():
                done.set_result(False)
        self._waits = [entry for entry in self._waits if not entry[1].done()]
        if not self._waits and self._timer is not None:
            self._timer.cancel()
