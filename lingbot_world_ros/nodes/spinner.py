# SPDX-License-Identifier: Apache-2.0
"""Nodes at work in a thread of their own, until a signal or somebody ends it."""
import signal
import threading
from typing import List, Optional, TypeVar

from lingbot_world_ros.processes import ending_signals
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

NodeT = TypeVar('NodeT', bound=Node)


class Spinner:
    """
    Spin nodes in a thread of its own, so that the main thread can hear signals.

    A context manager; leaving it stops spinning and destroys the nodes it was given. rclpy's
    EventsExecutor is not used: as of 9.1 it turns a core without calling anything.
    """

    def __init__(self) -> None:
        self._nodes: List[Node] = []
        self._stop = threading.Event()
        self._error: Optional[Exception] = None
        self._executor = SingleThreadedExecutor()
        self._thread = threading.Thread(target=self._spin, name='executor', daemon=True)

    def __enter__(self) -> 'Spinner':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._thread.join()
        for node in self._nodes:
            node.destroy_node()

    def add(self, node: NodeT) -> NodeT:
        """Take over a node, spin it and return it."""
        self._nodes.append(node)
        self._executor.add_node(node)
        return node

    def stop(self, *_: object) -> None:
        """End ``wait``; usable as a signal handler."""
        self._stop.set()

    def wait(self, timeout_s: Optional[float] = None) -> bool:
        """
        Let the nodes work.

        :param timeout_s: for how long at most; None waits for ``stop``
        :return: True when it is time to end
        """
        ended = self._stop.wait(timeout_s)
        if self._error is not None:
            raise self._error
        return ended

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            self.stop()
        except Exception as error:  # the thread's edge: the main thread raises it again
            self._error = error
            self.stop()


def interrupt_on_signals() -> None:
    """Let what asks to end interrupt the main thread, which loads an engine for minutes."""
    for number in ending_signals():
        signal.signal(number, signal.default_int_handler)


def stop_on_signals(spinner: Spinner) -> None:
    """End a spinner's wait when asked to end."""
    for number in ending_signals():
        signal.signal(number, spinner.stop)
