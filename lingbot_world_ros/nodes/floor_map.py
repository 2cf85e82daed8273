# SPDX-License-Identifier: Apache-2.0
"""
Keeps the map of a world for all pages: room, objects, and the way of the base since the reset.

Rooms are known by their names, a learned place by the map that its world publishes or by its
folder; where robot and objects are in them, GetEntitiesStates tells. The way is the world's own,
or kept here from odometry of a simulator that publishes none.
"""
from typing import Any, Callable, Dict, List, Optional, Tuple

from lingbot_world_ros.engines.registry import comparable_engines, LEARNED
from lingbot_world_ros.messages import page
from lingbot_world_ros.messages.frames import planar_pose_from_msg
from lingbot_world_ros.messages.stamps import stamp_to_ns
from lingbot_world_ros.msg import WorldSpec as WorldSpecMsg
from lingbot_world_ros.view.room_map import Origin, plan_of, plan_of_grid, told, Way
from lingbot_world_ros.worlds.floor_plan import FloorPlan
from nav_msgs.msg import Odometry, Path

ENTITIES = 'GetEntitiesStates'


class FloorMap:
    """What is heard comes in the executor's thread; ``told`` and ``plan`` are read by others."""

    def __init__(self, ask: Callable[[str, Callable[[Any], None]], bool], height_m: float,
                 learned: Callable[[str], Optional[FloorPlan]] = lambda scene: None) -> None:
        """
        Begin without a world.

        :param ask: calls a service in the background, see ``WorldClient.ask_in_background``
        :param height_m: of the robot
        :param learned: scene of a learned world -> its floor plan, None where it is not known
        """
        self.plan: Optional[dict] = None  # of the room; see ``plan_of``
        self._ask, self._height_m, self._learned = ask, height_m, learned
        self._room: Optional[Tuple[str, str]] = None  # engine and scene that it is of
        self._way, self._origin = Way(), Origin()
        self._objects: Dict[str, List[float]] = {}  # x, y [m], yaw [rad] in the scene
        self._stamp_ns = 0
        self.told = told(self._origin, self._objects, self._way)

    def on_world_spec(self, msg: WorldSpecMsg) -> None:
        """Learn which room it is."""
        if self._room == (msg.engine, msg.scene):
            return
        self._room = msg.engine, msg.scene
        self.plan = None
        if msg.engine in comparable_engines():
            self.plan = plan_of(msg.scene, self._height_m)
        elif msg.engine == LEARNED.name:
            plan = self._learned(msg.scene)
            self.plan = plan_of_grid(plan) if plan is not None else None
        self._origin, self._objects = Origin(), {}
        self._start_over()

    @property
    def takes_map(self) -> bool:
        """Whether a map of the world would say more of it."""
        return self._room is not None and self._room[0] not in comparable_engines()

    def on_map(self, plan: FloorPlan) -> None:
        """Take over the floor plan that the world publishes."""
        if self.takes_map:
            self.plan = plan_of_grid(plan)
            self.look()

    def on_path(self, msg: Path) -> None:
        """Take over the way that the world has kept."""
        self._way.set(page.path(msg))
        self._tell()

    def on_odometry(self, msg: Odometry, keeps_way: bool) -> None:
        """
        Follow the base.

        :param msg: where it is
        :param keeps_way: the way is kept here: nobody publishes it
        """
        pose, stamp_ns = page.pose(msg), stamp_to_ns(msg.header.stamp)
        if pose is None:
            return
        if stamp_ns < self._stamp_ns:
            self._start_over()
        self._stamp_ns = stamp_ns
        self._origin.note(stamp_ns, pose)
        if keeps_way:
            self._way.add(pose)
            self._tell()

    def look(self) -> None:
        """Ask where robot and objects are in a room that is known."""
        if self.plan is not None:
            self._ask(ENTITIES, self._on_states)

    def _on_states(self, response: Any) -> None:
        plan, robots, objects = self.plan, [], {}
        if plan is None:
            return
        for name, state in zip(response.entities, response.states):
            pose = planar_pose_from_msg(state.pose).tolist()
            if name in plan['objects']:
                objects[name] = pose
            else:
                robots.append((stamp_to_ns(state.header.stamp), pose))
        if len(robots) == 1:
            self._objects = objects
            self._origin.meet(*robots[0])
            self._tell()

    def _start_over(self) -> None:
        self._way.clear()
        self._origin.forget()
        self._stamp_ns = 0
        self._tell()
        self.look()

    def _tell(self) -> None:
        fresh = told(self._origin, self._objects, self._way)
        if fresh != self.told:
            self.told = fresh
