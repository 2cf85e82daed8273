# SPDX-License-Identifier: Apache-2.0
"""
The steps of an engine: made, finished, kept to go back to, taken back. No ROS.

What is tried again and what is given up is not decided here.
"""
from dataclasses import dataclass
from typing import Any, Callable, Optional

from lingbot_world_ros.engines.interface import Observation, WorldModel
from lingbot_world_ros.errors import EngineDiverged
from lingbot_world_ros.session.calls import Calls
from lingbot_world_ros.session.clock import WallClock
from lingbot_world_ros.session.faults import check_finite
import numpy as np

LOADING_FACTOR = 12  # what loads a world may take this many times as long as a step


@dataclass(frozen=True)
class GoodState:
    """A state to go back to."""

    observation: Observation
    snapshot: Any  # None where snapshots are not cheap
    is_step: bool  # not yet finished when the snapshot was taken


class Steps:
    """
    Owner of undo: knows the newest good state and the one before, and what a step still needs.

    Called in the thread in which the engine is called.
    """

    def __init__(self, get_world: Callable[[], WorldModel], calls: Calls, clock: WallClock,
                 is_wrist_watched: Callable[[], bool]):
        """
        Prepare.

        :param get_world: returns the engine
        :param calls: watches what it is called for
        :param clock: steady wall clock
        :param is_wrist_watched: asked before each step, of engines with a second camera
        """
        self._get_world, self._calls, self._clock = get_world, calls, clock
        self._is_wrist_watched = is_wrist_watched
        self._draws_wrist: Optional[WorldModel] = None  # the engine that was told to
        self.good: Optional[GoodState] = None  # newest
        self.broken_by: Optional[Exception] = None  # a step could not be taken back
        self.finish_ns: Optional[int] = None  # that the newest finish_step took
        self._before: Optional[GoodState] = None  # the newest step, to take it back
        self._is_unfinished = False
        self._finish_error: Optional[Exception] = None

    def begin(self) -> None:
        """Forget the steps of before: the engine was reset."""
        self._is_unfinished, self._finish_error, self.broken_by = False, None, None

    def keep(self, observation: Observation, is_step: bool = False) -> None:
        """
        Remember the state as it is now, to go back to.

        :param observation: what it shows
        :param is_step: a step has just been made
        """
        world = self._get_world()
        self._before = self.good
        self.good = GoodState(
            observation, world.snapshot() if world.spec.cheap_snapshots else None, is_step)

    def make(self, actions: np.ndarray, render: bool) -> Observation:
        """
        Make a step, after what the one before still needs.

        :param actions: (1, T, A) float32
        :param render: False skips picture and depth
        :return: what it shows, finite
        :raises Exception: whatever the engine raises; the state is that of before, or
            ``broken_by`` says why not
        """
        self.finish()
        if self._finish_error is not None:
            raise self._finish_error
        world, unseen = self._get_world(), {} if render else {'render': False}
        self._watch_wrist(world)
        observation = self._calls.watched(lambda: world.step(actions, **unseen))
        try:
            check_finite(observation)
        except EngineDiverged as error:
            if not world.spec.cheap_snapshots:
                self._disown(error)
            raise
        self._is_unfinished = world.spec.can.finish_step
        self.keep(observation, is_step=True)
        return observation

    def _watch_wrist(self, world: WorldModel) -> None:
        is_watched = world.spec.can.watch_wrist and self._is_wrist_watched()
        if is_watched != (self._draws_wrist is world):
            self._calls.watched(lambda: world.watch_wrist(is_watched))
            self._draws_wrist = world if is_watched else None

    def finish(self) -> None:
        """Do what the next step needs, unless that is done; the next step tells of a failure."""
        if not self._is_unfinished:
            return
        started_ns, self._is_unfinished, self._finish_error = self._clock.now_ns(), False, None
        try:
            self._calls.watched(self._get_world().finish_step)
        except Exception as error:  # an engine may fail in any way
            self._finish_error = error
        self.finish_ns = self._clock.now_ns() - started_ns

    def restore(self) -> bool:
        """Go back to the newest good state; False if no snapshot leads there."""
        world, good = self._get_world(), self.good
        if not world.spec.cheap_snapshots:
            return False
        assert good is not None  # every step follows a reset
        self._calls.watched(lambda: world.restore(good.snapshot), LOADING_FACTOR)
        self._is_unfinished = world.spec.can.finish_step and good.is_step
        self._finish_error = None
        return True

    def restarted(self) -> None:
        """Take note that another process has taken over, to which no step is unfinished."""
        self._is_unfinished, self._finish_error, self._draws_wrist = False, None, None

    def try_again(self) -> None:
        """Prepare for the same step once more; what failed to be finished will be, too."""
        self._is_unfinished = self._finish_error is not None

    def take_back(self) -> None:
        """Undo the newest step, which was made for nothing."""
        world = self._get_world()
        try:
            self._calls.watched(world.undo_step)
        except Exception as error:  # an engine may fail in any way; the next step tells
            if not world.is_lost:
                self.broken_by = error
        self.good, self._is_unfinished, self._finish_error = self._before, False, None

    def _disown(self, error: Exception) -> None:
        """Take back a step that was made, but badly; no snapshot can do that."""
        world = self._get_world()
        if world.spec.can.undo_step:
            self._calls.watched(world.undo_step)
        else:
            self.broken_by = error
