# SPDX-License-Identifier: Apache-2.0
"""What an environment knows and no policy is told: for experts, planners and judges."""
from typing import NamedTuple, Tuple

from lingbot_world_ros.envs.tasks import Goals, Seen, Task


class Start(NamedTuple):
    """What an episode is: everything else follows from it."""

    scene: str
    seed: int
    unusual: bool = False  # it begins in a state as in ``envs.unusual``


class Known(NamedTuple):
    """
    All rows of an environment, now.

    ``seen`` is the state as the engine tells it: predicted in an imagined world, the truth in the
    reference world. Not to be changed.
    """

    task: Task
    starts: Tuple[Start, ...]
    seen: Seen
    goals: Goals
