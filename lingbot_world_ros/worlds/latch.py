# SPDX-License-Identifier: Apache-2.0
"""Where a step finds the newest embedding, and how long commands waited for their frame."""
from collections import deque
import threading
from typing import Optional, Tuple

from lingbot_world_ros.actions.embedding import ActionEmbedding
import numpy as np


class EmbeddingLatch:
    """
    One slot: a newer embedding replaces the older one, nothing is queued.

    ``put`` is called by whoever receives commands, the rest by the thread that steps the world.
    Latency counts from the first embedding that carries a command not yet acted on to the moment
    the first frame made with it was handed out.
    """

    def __init__(self, max_samples: int = 512):
        self._lock = threading.Lock()
        self._embedding: Optional[ActionEmbedding] = None
        self._received_ns = 0
        self._accepted = 0  # commands the encoder has counted so far
        self._waiting_since_ns: Optional[int] = None
        self._acting_since_ns: Optional[int] = None
        self._latencies = deque(maxlen=max_samples)

    def clear(self) -> None:
        """Forget the embedding and all samples."""
        with self._lock:
            self._embedding = self._waiting_since_ns = self._acting_since_ns = None
            self._latencies.clear()

    def put(self, embedding: ActionEmbedding, now_ns: int) -> None:
        """Make this the newest embedding; ``now_ns`` is steady wall time."""
        with self._lock:
            if embedding.counts.accepted != self._accepted and self._waiting_since_ns is None:
                self._waiting_since_ns = now_ns
            self._accepted = embedding.counts.accepted
            self._embedding, self._received_ns = embedding, now_ns

    def take(self, now_ns: int) -> Tuple[Optional[ActionEmbedding], int]:
        """Return the newest embedding and its age, ns; the step that asks acts on it."""
        with self._lock:
            self._acting_since_ns, self._waiting_since_ns = self._waiting_since_ns, None
            return self._embedding, now_ns - self._received_ns

    def frame_left(self, now_ns: int) -> Optional[float]:
        """Return seconds from command to frame if the newest step acted on a new command."""
        with self._lock:
            if self._acting_since_ns is None:
                return None
            latency_s = (now_ns - self._acting_since_ns) * 1e-9
            self._acting_since_ns = None
            self._latencies.append((now_ns, latency_s))
            return latency_s

    def latencies_s(self, since_ns: int) -> np.ndarray:
        """Return the samples taken since a moment, (n,) float64 seconds."""
        with self._lock:
            return np.array([s for at_ns, s in self._latencies if at_ns >= since_ns])


class FrameMeter:
    """Rate of the frames of the last second; one thread owns it."""

    WINDOW_NS = 1_000_000_000

    def __init__(self):
        self._times_ns = deque()

    def clear(self) -> None:
        """Start again."""
        self._times_ns.clear()

    def add(self, now_ns: int) -> float:
        """Count a frame and return frames per wall second; 0 until there are two."""
        times = self._times_ns
        times.append(now_ns)
        while len(times) > 2 and times[0] < now_ns - self.WINDOW_NS:
            times.popleft()
        span_ns = now_ns - times[0]
        return (len(times) - 1) * 1e9 / span_ns if span_ns else 0.0
