# SPDX-License-Identifier: Apache-2.0
"""What of a running world can be set from outside: robot, objects, its image. No ROS."""
from dataclasses import replace
from typing import Callable, Dict, Optional

from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.session.entities import (anchor_of, entities_of, EntityState,
                                                with_object_at, with_robot_at)
from lingbot_world_ros.session.frame import frame_of, moment
from lingbot_world_ros.session.notifier import Notifier
from lingbot_world_ros.session.player import Player
from lingbot_world_ros.session.requests import check_request, Refused
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Reason, Request
from lingbot_world_ros.session.supervisor import Supervisor
from lingbot_world_ros.worlds.definition import WorldDefinition
import numpy as np


class Interventions:
    """
    Requests that change what is there, but neither state nor time; done by the session's worker.

    Each ends the step in progress first.
    """

    def __init__(self, engine: Supervisor, player: Player, notifier: Notifier, *,
                 get_spec: Callable[[], SessionSpec],
                 get_definition: Callable[[], Optional[WorldDefinition]]):
        """
        Prepare.

        :param engine: runs the world
        :param player: shows it
        :param notifier: told of what changes
        :param get_spec: asked how the session runs
        :param get_definition: returns the world that is loaded, None if none is
        """
        self._engine, self._player, self._notifier = engine, player, notifier
        self._get_spec, self._get_definition = get_spec, get_definition

    def entities(self) -> Dict[str, EntityState]:
        """Return what can be moved, by name; empty without a world. From any thread."""
        (seen, stamp_ns), definition = self._player.shown, self._get_definition()
        if seen is None or definition is None:
            return {}
        return entities_of(seen, stamp_ns, self._get_spec().entity_name,
                           self._engine.world.object_names(definition.scene))

    def move(self, entity: str, pose: Optional[np.ndarray],
             twist: Optional[np.ndarray]) -> None:
        """
        Put something elsewhere; the origin of odometry moves along.

        :param entity: its name
        :param pose: (3,) x, y [m], yaw [rad] in the scene frame; None leaves it
        :param twist: (3,) in base_link, robot only; None leaves it
        :raises Refused: nothing is called so
        """
        check_request(Request.MOVE, self._notifier.status)
        entities = self.entities()
        if entity not in entities:
            raise Refused(Reason.UNKNOWN, str(unknown_name('entity', entity, entities)))
        self._player.settle()
        last = moment(self._player.seen)
        if entity == self._get_spec().entity_name:
            wanted = with_robot_at(last, pose, twist)
        else:
            definition = self._get_definition()
            assert definition is not None  # there are entities
            objects = self._engine.world.object_names(definition.scene)
            wanted = with_object_at(last, objects.index(entity), pose)
        before = last.base_pose[0, 0].copy()
        now = self._player.observation = self._engine.observe(wanted)
        self._player.origin = se2.compose(
            now.base_pose[0, -1], se2.compose(se2.inverse(before), self._player.origin))
        self._notifier.anchored(anchor_of(wanted))

    def anchor_image(self, rgb: np.ndarray) -> None:
        """
        Go on from an image.

        :param rgb: (h, w, 3) uint8
        :raises Refused: the engine cannot
        """
        check_request(Request.ANCHOR_IMAGE, self._notifier.status)
        self._player.settle()
        wanted = replace(moment(self._player.seen), rgb=rgb[None, None])
        try:
            self._player.observation = self._engine.anchor_image(wanted)
        except SpecError as error:
            raise Refused(Reason.UNSUPPORTED, str(error))
        self._notifier.tell(images_anchored=self._engine.conditioning.num_images)

    def look(self) -> None:
        """Draw the newest frame, if it came without a picture and the engine can."""
        status = self._notifier.status
        check_request(Request.LOOK, status)
        seen = self._player.seen
        if seen.rgb is not None or not self._engine.world.spec.can.render:
            return
        self._player.observation = self._engine.look(seen)
        self._notifier.draw(frame_of(self._player.seen, -1, status.frame, status.stamp_ns,
                                     self._player.origin))
