# SPDX-License-Identifier: Apache-2.0
"""Where a step finds the newest embedding, and how long commands waited for their frame."""
from collections import deque
import threading
from typing import Deque, NamedTuple, Optional, Protocol, Tuple

from lingbot_world_ros.actions.embedding import ActionEmbedding
import numpy as np


class EmbeddingSource(Protocol):
    """An encoder in the same process, asked at the last moment before a step."""

    def pull(self, sim_ns: int, joint_position: np.ndarray,
             by_step: bool) -> Optional[ActionEmbedding]:
        """
        Encode the newest commands for the step that starts now; called by the worker thread.

        :param sim_ns: sim time at which the step begins: of the newest frame, or of the last one
            of the step that is being shown
        :param joint_position: (J,) where the joints would come to rest if let go, rad or m
        :param by_step: the step was asked for; wall time since the last one ages no command
        :return: the embedding, None before the first
        """
        ...

    def catch_up(self) -> None:
        """Take over commands that wait in a queue; called by whoever asks for steps."""
        ...


class LatchedEmbedding(NamedTuple):
    """
    What a step acts on: the newest embedding, its age in nanoseconds.

    ``since_ns`` is when the first new command came in, None if none did.
    """

    embedding: Optional[ActionEmbedding]
    age_ns: int
    since_ns: Optional[int]


class EmbeddingLatch:
    """
    One slot: a newer embedding replaces the older one, nothing is queued.

    ``put`` and ``command_arrived`` are called by whoever receives commands, the rest by the thread
    that steps the world. Latency counts from the first command not yet acted on to the moment the
    first frame made with it was handed out.
    """

    def __init__(self, max_samples: int = 512):
        self._lock = threading.Lock()
        self._embedding: Optional[ActionEmbedding] = None
        self._received_ns = 0
        self._accepted = 0  # commands the encoder has counted so far
        self._pending = 0  # of these, not yet acted on
        self._waiting_since_ns: Optional[int] = None
        self._newest_ns = 0  # when the newest command came in
        self._latencies: Deque[Tuple[int, float]] = deque(maxlen=max_samples)

    def clear(self) -> None:
        """Forget the embedding and all samples."""
        with self._lock:
            self._embedding = self._waiting_since_ns = None
            self._pending = 0
            self._latencies.clear()

    def put(self, embedding: ActionEmbedding, now_ns: int) -> None:
        """Make this the newest embedding; ``now_ns`` is steady wall time."""
        self.command_arrived(embedding.counts.accepted, now_ns)
        with self._lock:
            self._embedding, self._received_ns = embedding, now_ns

    def command_arrived(self, accepted: int, now_ns: int) -> None:
        """
        Note that commands came in.

        :param accepted: how many the encoder has taken over since it started
        :param now_ns: steady wall time
        """
        with self._lock:
            if accepted == self._accepted:
                return
            # Fewer than before: the encoder was started anew.
            new = accepted - self._accepted if accepted > self._accepted else accepted
            self._accepted = accepted
            self._pending += new
            self._newest_ns = now_ns
            if self._waiting_since_ns is None:
                self._waiting_since_ns = now_ns

    @property
    def pending(self) -> int:
        """Commands that came in and that no step has acted on."""
        return self._pending

    def keep(self, num_commands: int) -> None:
        """Let no more than the newest of those commands wait; what they ask for stays."""
        with self._lock:
            if self._pending > num_commands:
                self._pending, self._waiting_since_ns = num_commands, self._newest_ns

    @property
    def newest(self) -> Optional[ActionEmbedding]:
        """The newest embedding, without acting on it."""
        return self._embedding

    def take(self, now_ns: int, num_commands: Optional[int] = None) -> LatchedEmbedding:
        """
        Return the newest embedding; the step that asks acts on it.

        :param now_ns: steady wall time
        :param num_commands: how many the step answers; the others wait for the next one, though
            this one acts on them already. None answers all
        """
        with self._lock:
            since_ns, self._waiting_since_ns = self._waiting_since_ns, None
            self._pending = 0 if num_commands is None else max(0, self._pending - num_commands)
            if self._pending:
                self._waiting_since_ns = self._newest_ns
            return LatchedEmbedding(self._embedding, now_ns - self._received_ns, since_ns)

    def give_back(self, since_ns: Optional[int]) -> None:
        """Take note that a step was taken back: its commands wait as they did before."""
        with self._lock:
            if since_ns is not None:
                self._waiting_since_ns = since_ns

    def frame_left(self, now_ns: int, since_ns: int) -> float:
        """
        Note that the first frame of a step has left that acted on a new command.

        :param now_ns: steady wall time
        :param since_ns: as taken
        :return: seconds from command to frame
        """
        with self._lock:
            latency_s = (now_ns - since_ns) * 1e-9
            self._latencies.append((now_ns, latency_s))
            return latency_s

    def latencies_s(self, since_ns: int) -> np.ndarray:
        """Return the samples taken since a moment, (n,) float64 seconds."""
        with self._lock:
            return np.array([s for at_ns, s in self._latencies if at_ns >= since_ns])
