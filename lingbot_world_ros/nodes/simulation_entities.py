# SPDX-License-Identifier: Apache-2.0
"""Where robot and objects are, and putting them elsewhere: services of simulation_interfaces."""
from typing import Any, List, Optional

from geometry_msgs.msg import Twist

from lingbot_world_ros.errors import unknown_name
from lingbot_world_ros.messages import simulation as standard
from lingbot_world_ros.messages.simulation import NOT_FOUND, OPERATION_FAILED, Refusal
from lingbot_world_ros.nodes.simulation_answers import Answers, installed
from lingbot_world_ros.session.entities import EntityState
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.worlds.placement import misplaced
import numpy as np


class EntityServices:
    """Answers for the robot, the movable objects and the named poses of a world."""

    def __init__(self, answers: Answers):
        """
        Prepare.

        :param answers: what all services share
        """
        self._answers = answers
        self.handlers = {
            'GetEntities': self.get_names, 'GetEntitiesStates': self.get_states,
            'GetEntityState': self.get_state, 'SetEntityState': self.set_state,
            'GetEntityInfo': self.get_info, 'GetNamedPoses': self.get_named_poses}

    async def get_names(self, request: Any, response: Any) -> None:
        """List entities."""
        entities = self._chosen(self._answers.session(), request.filters)
        response.entities = [entity.name for entity in entities]

    async def get_states(self, request: Any, response: Any) -> None:
        """Tell where entities are."""
        session = self._answers.session()
        message = installed('msg', 'EntityState')
        for entity in self._chosen(session, request.filters):
            response.entities.append(entity.name)
            response.states.append(message())
            standard.entity_to_msg(entity, response.states[-1])

    async def get_state(self, request: Any, response: Any) -> None:
        """Tell where one entity is."""
        entity = self._entity(self._answers.session(), request.entity)
        standard.entity_to_msg(entity, response.state)

    async def get_info(self, request: Any, response: Any) -> None:
        """Tell what an entity is."""
        kind = self._entity(self._answers.session(), request.entity).category
        response.info.category.category = standard.CATEGORIES[kind]
        response.info.description = standard.DESCRIPTIONS[kind]
        response.info.tags = list(standard.TAGS[kind])

    async def get_named_poses(self, request: Any, response: Any) -> None:
        """List the poses that a world has names for."""
        message = installed('msg', 'NamedPose')
        for pose in self._answers.definition().named_poses:
            if standard.tags_fit(request.tags, pose.tags):
                response.poses.append(message())
                standard.named_pose_to_msg(pose, response.poses[-1])

    async def set_state(self, request: Any, response: Any) -> None:
        """Put an entity elsewhere."""
        session = self._answers.session()
        entity = self._entity(session, request.entity)
        frame = self._frame(session, request.state.header.frame_id)
        pose = twist = None
        if getattr(request, 'set_pose', True):  # 1.x sets all there is
            pose = standard.pose_from_msg(request.state.pose, frame)
            self._check_place(session, entity, pose)
        if getattr(request, 'set_twist', True):
            twist = self._twist(session, entity, request.state.twist, frame, pose)
        if pose is None and twist is None:
            response.result.error_message = ('Nothing was set: set_pose and set_twist are false, '
                                             'and acceleration is ignored.')
            return
        await self._answers.done(session.move(entity.name, pose, twist))

    def _check_place(self, session: Session, entity: EntityState, pose: np.ndarray) -> None:
        scene, spec = self._answers.definition().scene, session.world.spec
        radius_m, _ = standard.entity_size_m(entity, spec, scene)
        problem = misplaced(scene, float(pose[0]), float(pose[1]), radius_m,
                            spec.robot.footprint.height_m)
        if problem:
            raise Refusal('INVALID_POSE', problem)

    def _twist(self, session: Session, entity: EntityState, twist: Twist, frame: np.ndarray,
               pose: Optional[np.ndarray]) -> Optional[np.ndarray]:
        """Read a new twist; objects are put down at rest and have none."""
        if entity.category == 'robot':
            yaw = entity.pose[2] if pose is None else pose[2]
            return standard.twist_from_msg(twist, frame[2], yaw, session.world.spec)
        if not standard.is_at_rest(twist):
            raise Refusal(OPERATION_FAILED, 'An object is placed at rest; its twist cannot be '
                          'set.')
        return None

    def _frame(self, session: Session, frame_id: str) -> np.ndarray:
        """Return where a frame is in the scene, (3,) x, y [m], yaw [rad]."""
        params = self._answers.params
        odom = params.frame_prefix + params.frames.odom
        if frame_id in ('', standard.WORLD_FRAME):
            return np.zeros(3)
        if frame_id == odom:
            return session.origin
        raise Refusal(NOT_FOUND, str(unknown_name('frame', frame_id[:100],
                                                  (standard.WORLD_FRAME, odom))))

    def _chosen(self, session: Session, filters: Any) -> List[EntityState]:
        scene = self._answers.definition().scene
        return standard.filtered(session.entities(), filters, session.world.spec, scene)

    def _entity(self, session: Session, name: str) -> EntityState:
        self._answers.definition()
        entities = session.entities()
        if name not in entities:
            raise Refusal(NOT_FOUND, str(unknown_name('entity', name[:100], entities)))
        return entities[name]
