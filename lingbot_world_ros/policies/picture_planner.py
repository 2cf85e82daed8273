# SPDX-License-Identifier: Apache-2.0
"""
Planning to where a picture was taken: the goal is what the camera shall show, and no place.

At RoomNav somebody has stood where the task is done, facing the thing, and taken a picture in the
true room. The planner is told the picture, and as every planner the state of the world.
"""
from typing import Dict, Optional, Sequence, Tuple

from lingbot_world_ros.engines.interface import State, WorldModel
from lingbot_world_ros.engines.registry import DEFAULT_ENGINE, make_world, TRUTH_ENGINE
from lingbot_world_ros.envs.floor_distance import CENTRES_M, free_cells
from lingbot_world_ros.envs.known import Known
from lingbot_world_ros.envs.tasks import RoomNav
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.policies.aims import ImageAim, PICTURE_PX
from lingbot_world_ros.policies.drive import HORIZON, PICTURE_BUDGET
from lingbot_world_ros.policies.policy import Columns, Policy
from lingbot_world_ros.policies.search import Plan, Search
from lingbot_world_ros.robots.robot import Robot
import numpy as np

INSIDE_M = 0.12  # so far inside the zone where the task is done the picture is taken, if it can be


class PicturePlanner(Policy):
    """Plans anew in every step to where a picture was taken."""

    knows_state = True

    def __init__(self, task: str, robot: Robot, method: str = 'cem',
                 budget: Optional[int] = None, engine: str = DEFAULT_ENGINE) -> None:
        """
        Load the engine that imagines, and the true rooms for the pictures.

        :param task: RoomNav
        :param robot: that is driven
        :param method: one of ``search.METHODS``
        :param budget: rollouts per plan; None: ``drive.PICTURE_BUDGET``
        :param engine: that imagines
        :raises SpecError: one of these cannot be
        """
        if task != RoomNav.name:
            raise SpecError(f'{task}: a picture says what to do at {RoomNav.name} only.')
        self.task = task
        self._search = Search(RoomNav(robot).columns, HORIZON, method, budget or PICTURE_BUDGET,
                              engine, picture_px=PICTURE_PX)
        self.name = f'picture:{self._search.name}'
        self._photographer: WorldModel = make_world(TRUTH_ENGINE, robot=robot)
        self._rows: Dict[int, Tuple[ImageAim, Plan, np.random.Generator]] = {}

    def begin(self, rows: Sequence[int], known: Known) -> None:
        """See ``Policy``."""
        for row in rows:
            start = known.starts[row]
            self._rows[row] = (ImageAim(self._picture(row, known)),
                               self._search.begin(start.scene, start.seed),
                               np.random.default_rng([start.seed, 2]))

    def act(self, observation: Columns, known: Known) -> np.ndarray:
        """See ``Policy``."""
        actions = []
        for row in range(len(known.starts)):
            aim, plan, rng = self._rows[row]
            found = self._search.find(plan, known.seen.row(row), aim, rng)
            self._rows[row] = aim, found.plan, rng
            actions.append(found.action)
        return np.stack(actions)

    def close(self) -> None:
        """Give back what the engines hold."""
        self._search.close()
        self._photographer.close()

    def _picture(self, row: int, known: Known) -> np.ndarray:
        """Take the picture, (h, w, 3) uint8."""
        start, seen = known.starts[row], known.seen
        self._photographer.reset(start.scene, start.seed, render=False)
        shown = self._photographer.render(State(
            standing_pose(row, known)[None], seen.joint_position[row:row + 1],
            seen.object_pose[row:row + 1]))
        assert shown.rgb is not None, 'it draws'
        return shown.rgb[0, -1]


def standing_pose(row: int, known: Known) -> np.ndarray:
    """
    Say where RoomNav is done: the middle of the nearest cell of its zone, facing the thing.

    :param row: of the environment
    :param known: of all rows
    :return: (3,) x, y [m], yaw [rad] in the scene frame
    """
    thing = known.goals['start'][row, :2]
    off_m = np.hypot(*np.moveaxis(CENTRES_M - thing, -1, 0))
    left_m = float(known.goals['reach_m'][row]) - off_m
    free = free_cells(known.starts[row].scene, known.task.robot.footprint)
    zone = free & (left_m >= INSIDE_M)
    if not zone.any():
        zone = known.goals['way_m'][row] == 0.0
    from_m = np.hypot(*np.moveaxis(CENTRES_M - known.seen.base_pose[row, :2], -1, 0))
    x, y = CENTRES_M[np.unravel_index(np.argmin(np.where(zone, from_m, np.inf)), zone.shape)]
    return np.array([x, y, np.arctan2(thing[1] - y, thing[0] - x)])
