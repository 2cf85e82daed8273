# SPDX-License-Identifier: Apache-2.0
"""The commands a session was given, and what a step acts on, read right before it. No ROS."""
import threading
from typing import Callable, NamedTuple, Optional

from lingbot_world_ros.actions.command_spec import CommandCounts
from lingbot_world_ros.actions.embedding import ActionEmbedding, actions_at_latch, check_embedding
from lingbot_world_ros.engines.interface import Observation, WorldSpec
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.session.clock import WallClock
from lingbot_world_ros.session.latch import EmbeddingLatch, EmbeddingSource, LatchedEmbedding
import numpy as np

LATENCY_WINDOW_NS = 5_000_000_000


class Latched(NamedTuple):
    """What a step acts on."""

    actions: np.ndarray  # (1, T, A) float32
    sequence: Optional[int]  # of the embedding; None if there was none, or it is too old
    counts: Optional[CommandCounts]
    since_ns: Optional[int]  # when the first of its new commands came in


class ActionReader:
    """
    Owner of the commands: takes them in, turns the newest into actions, knows what waits.

    An encoder in this process is asked right before a step; of one elsewhere the newest embedding
    lies in a latch. Whoever receives commands calls ``put``, ``command_arrived`` and
    ``catch_up``, the session's worker the rest.
    """

    def __init__(self, spec: WorldSpec, *, clock: WallClock, wake: threading.Condition,
                 is_closing: Callable[[], bool]):
        """
        Prepare.

        :param spec: of the world
        :param clock: steady wall clock
        :param wake: told when an embedding has come
        :param is_closing: asked with ``wake`` held whether to wait no longer
        """
        self.source: Optional[EmbeddingSource] = None  # an encoder in this process
        self.latch = EmbeddingLatch()
        self.num_rejected = 0  # embeddings that did not fit
        self._spec, self._clock, self._wake, self._is_closing = spec, clock, wake, is_closing
        self._joint_lag_s = spec.robot.joint_array('lag_s')
        self._waited_for: Optional[ActionEmbedding] = None  # nothing newer came in time

    def put(self, embedding: ActionEmbedding) -> None:
        """
        Let the next step act on this, instead of the one before.

        :param embedding: what the robot shall do
        :raises SpecError: it does not fit this world; counted, nothing changed
        """
        try:
            self._check(embedding)
        except SpecError:
            self.num_rejected += 1
            raise
        self.latch.put(embedding, self._clock.now_ns())

    def command_arrived(self, accepted: int) -> None:
        """
        Take note of a command that the encoder in this process has taken over.

        :param accepted: how many it took over since it was started
        """
        self.latch.command_arrived(accepted, self._clock.now_ns())

    def catch_up(self) -> None:
        """Let the encoder in this process take over what waits in its queue."""
        if self.source is not None:
            self.source.catch_up()

    def has_commands(self, num_commands: int) -> bool:
        """Tell whether so many commands wait for a step."""
        return self.latch.pending >= num_commands

    def keep(self, num_commands: int) -> None:
        """Let no more than the newest of those commands wait for steps of their own."""
        self.latch.keep(num_commands)

    def clear(self) -> None:
        """Forget what was commanded."""
        self.latch.clear()

    def take_back(self, latched: Latched) -> None:
        """Take note that a step was taken back: its commands wait as they did before."""
        self.latch.give_back(latched.since_ns)

    def answered(self, latched: Latched, now_ns: int) -> Optional[float]:
        """
        Take note that the first frame of a step has left.

        :param latched: what the step acted on
        :param now_ns: steady wall time
        :return: seconds from its first new command to the frame; None if there was none
        """
        if latched.since_ns is None:
            return None
        return self.latch.frame_left(now_ns, latched.since_ns)

    def latencies_s(self) -> np.ndarray:
        """Return the newest times from command to frame, (n,) float64 seconds."""
        return self.latch.latencies_s(self._clock.now_ns() - LATENCY_WINDOW_NS)

    def read(self, seen: Observation, start_ns: int, *, timeout_s: float, by_step: bool,
             by_wall: bool, num_commands: Optional[int] = None) -> Latched:
        """
        Latch: the newest embedding becomes the actions of the step that starts now.

        :param seen: how the world is when the step starts, in its last frame
        :param start_ns: sim time of that
        :param timeout_s: wall time after which an embedding counts as silence, and how long an
            encoder elsewhere is waited for
        :param by_step: the step was asked for
        :param by_wall: wall time says something about a command's age
        :param num_commands: how many of those that wait the step answers; None: all
        :return: the actions and where they come from
        """
        spec = self._spec
        # A servo coasts on for its lag: steer where it would come to rest, or it overshoots.
        resting = seen.joint_position[0, -1] + self._joint_lag_s * seen.joint_velocity[0, -1]
        if self.source is not None:
            embedding, age_ns, since_ns = self._pull(self.source, start_ns, resting, by_step,
                                                     num_commands)
        else:
            if not by_wall:
                self._wait_for_valid_embedding(start_ns, timeout_s)
            embedding, age_ns, since_ns = self.latch.take(self._clock.now_ns(), num_commands)
        if embedding is None or (by_wall and age_ns > timeout_s * 1e9):
            still = np.zeros((1, spec.frames_per_step, len(spec.action.dims)), np.float32)
            return Latched(still, None, None, since_ns)
        actions = actions_at_latch(embedding, spec.action, resting, spec.frames_per_step, start_ns,
                                   spec.robot.drive.max_curvature)
        return Latched(actions[None], embedding.sequence, embedding.counts, since_ns)

    def _check(self, embedding: ActionEmbedding) -> None:
        check_embedding(embedding, self._spec.action, self._spec.robot.joint_names)

    def _pull(self, source: EmbeddingSource, start_ns: int, resting: np.ndarray, by_step: bool,
              num_commands: Optional[int]) -> LatchedEmbedding:
        pulled = source.pull(start_ns, resting, by_step)
        if pulled is not None:
            self._check(pulled)
        taken = self.latch.take(self._clock.now_ns(), num_commands)
        return LatchedEmbedding(pulled, 0, taken.since_ns)

    def _wait_for_valid_embedding(self, start_ns: int, timeout_s: float) -> None:
        """
        Let an encoder in another process catch up with sim time.

        Only where its last word does not hold for the coming step: a trajectory runs or a
        velocity is about to time out. After the timeout the world goes on without, and does not
        wait for the same word again.
        """
        step_end_ns = start_ns + self._spec.frame_period_ns * self._spec.frames_per_step
        until_ns = self._clock.now_ns() + round(timeout_s * 1e9)
        with self._wake:
            while not self._is_closing() and self._clock.now_ns() < until_ns:
                newest = self.latch.newest
                if (newest is None or newest is self._waited_for
                        or not 0 < newest.valid_until_ns < step_end_ns):
                    return
                self._clock.wait(self._wake, until_ns)
            self._waited_for = self.latch.newest
