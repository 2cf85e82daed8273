# SPDX-License-Identifier: Apache-2.0
"""
Sessions, worlds and entities <-> simulation_interfaces, whichever version is installed.

Messages are handed in and filled, so nothing here imports that package: 1.x lacks some of its
types, and some machines the whole. Constants are read from the message where it has them.
"""
import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

from geometry_msgs.msg import Pose, Twist
from lingbot_world_ros.engines.interface import WorldSpec
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.messages.frames import planar_pose_from_msg, planar_pose_to_msg
from lingbot_world_ros.messages.name_filter import NameFilter
from lingbot_world_ros.messages.stamps import set_stamp
from lingbot_world_ros.session.entities import EntityState
from lingbot_world_ros.session.states import State
from lingbot_world_ros.worlds.definition import NamedPose, WorldDefinition
from lingbot_world_ros.worlds.scenes import get_scene, SCENES
import numpy as np

# The numbers of version 2.1, for versions that do not have the constant.
FEATURE_UNSUPPORTED, OK, NOT_FOUND, INCORRECT_STATE, OPERATION_FAILED = (
    'FEATURE_UNSUPPORTED', 'OK', 'NOT_FOUND', 'INCORRECT_STATE', 'OPERATION_FAILED')
RESULTS = {FEATURE_UNSUPPORTED: 0, OK: 1, NOT_FOUND: 2, INCORRECT_STATE: 3, OPERATION_FAILED: 4}
SPECIFIC = {'ALREADY_IN_TARGET_STATE': 101, 'STATE_TRANSITION_ERROR': 102,
            'INCORRECT_TRANSITION': 103, 'INVALID_POSE': 101, 'NO_WORLD_LOADED': 101,
            'DEFAULT_SOURCES_FAILED': 101, 'UNSUPPORTED_FORMAT': 101, 'NO_RESOURCE': 102,
            'RESOURCE_PARSE_ERROR': 103, 'MISSING_ASSETS': 104, 'UNSUPPORTED_ASSETS': 105,
            'UNSUPPORTED_ELEMENTS': 106}
QUITTING = 'quitting'  # a state of the node, which no session has
STATES = {State.STOPPED: 0, State.PLAYING: 1, State.PAUSED: 2, QUITTING: 3, State.NO_WORLD: 4,
          State.LOADING: 5}
FEATURES = {
    'NAMED_POSES': 2, 'ENTITY_TAGS': 4, 'ENTITY_CATEGORIES': 8, 'ENTITY_STATE_GETTING': 10,
    'ENTITY_STATE_SETTING': 11, 'ENTITY_INFO_GETTING': 12, 'SIMULATION_RESET': 20,
    'SIMULATION_RESET_TIME': 21, 'SIMULATION_RESET_STATE': 22, 'SIMULATION_RESET_SPAWNED': 23,
    'SIMULATION_STATE_GETTING': 24, 'SIMULATION_STATE_SETTING': 25, 'SIMULATION_STATE_PAUSE': 26,
    'STEP_SIMULATION_SINGLE': 31, 'STEP_SIMULATION_MULTIPLE': 32, 'STEP_SIMULATION_ACTION': 33,
    'WORLD_LOADING': 40, 'WORLD_RESOURCE_STRING': 41, 'WORLD_TAGS': 42, 'WORLD_UNLOADING': 43,
    'WORLD_INFO_GETTING': 44, 'AVAILABLE_WORLDS': 45}
SCOPE_TIME, SCOPE_STATE, SCOPE_SPAWNED, SCOPE_ALL = 1, 2, 4, 255
TYPE_EMPTY, TYPE_SPHERE = 0, 3
FILTER_MODE_ANY, FILTER_MODE_ALL = 0, 1
CATEGORIES = {'object': 0, 'robot': 1}
DESCRIPTIONS = {'robot': 'The robot that is commanded: a differential base with an arm.',
                'object': 'A movable object that slides on the floor.'}
TAGS = {'robot': ('robot', 'mobile_base', 'arm'), 'object': ('movable',)}

WORLD_FRAME = 'world'  # the scene frame in these interfaces; an empty frame means it too
QUATERNION_TOLERANCE = 1e-3  # of its length
TILT_TOLERANCE_RAD = 0.02
HEIGHT_TOLERANCE_M = 0.02
SPEED_TOLERANCE = 1.5  # a predicted speed may exceed the robot's limit by this factor
MAX_TEXT = 2000  # characters of an error message


class Refusal(SpecError):
    """An answer other than OK; ``code`` is the name of a result without RESULT_."""

    def __init__(self, code: str, text: str):
        """Keep the code."""
        super().__init__(text)
        self.code = code


def set_result(result: Any, code: str, text: str = '', response: Any = None) -> None:
    """
    Write a result.

    :param result: simulation_interfaces/Result
    :param code: name of the code, of ``Result`` or of the service
    :param text: the message that goes with it
    :param response: of the service, for codes of its own
    """
    if code in RESULTS:
        result.result = getattr(type(result), f'RESULT_{code}', RESULTS[code])
    else:
        result.result = getattr(type(response), code, SPECIFIC[code])
    result.error_message = sendable(text)


def sendable(text: str) -> str:
    """Return a text that the middleware takes: limited, without what UTF-8 or C cannot hold."""
    return text[:MAX_TEXT].encode(errors='replace').decode().replace('\0', '')


def state_number(state: str) -> int:
    """Return SimulationState.state of a State or QUITTING; a failed one stands still: paused."""
    return STATES.get(state, STATES[State.PAUSED])


def state_name(number: int) -> Optional[str]:
    """Return the State (or QUITTING) of a SimulationState.state; None for another number."""
    return next((name for name, value in STATES.items() if value == number), None)


def world_to_msg(world: WorldDefinition, out: Any) -> None:
    """
    Describe a world.

    :param world: the definition
    :param out: simulation_interfaces/WorldResource to fill
    """
    out.name, out.description, out.tags = world.name, world.description, list(world.tags)
    out.world_resource.uri = world.uri
    out.world_resource.resource_string = '' if world.uri else world.text


def named_pose_to_msg(pose: NamedPose, out: Any) -> None:
    """
    Describe a named pose.

    :param pose: scene frame
    :param out: simulation_interfaces/NamedPose to fill
    """
    out.name, out.description, out.tags = pose.name, pose.description, list(pose.tags)
    _set_pose(out.pose, *pose.pose)


def entity_to_msg(entity: EntityState, out: Any) -> None:
    """
    Write where an entity is and how it moves, in the scene frame.

    :param entity: state, the floor point below its centre
    :param out: simulation_interfaces/EntityState to fill
    """
    out.header.frame_id = WORLD_FRAME
    set_stamp(out.header.stamp, entity.stamp_ns)
    x, y, yaw = (float(value) for value in entity.pose)
    _set_pose(out.pose, x, y, 0.0, yaw)
    out.twist.linear.x, out.twist.linear.y = float(entity.twist[0]), float(entity.twist[1])
    out.twist.angular.z = float(entity.twist[2])


def _set_pose(out: Pose, x_m: float, y_m: float, z_m: float, yaw_rad: float) -> None:
    planar_pose_to_msg((x_m, y_m, yaw_rad), out)
    out.position.z = z_m


def pose_from_msg(pose: Pose, frame: np.ndarray) -> np.ndarray:
    """
    Read a pose on the floor.

    :param pose: geometry_msgs/Pose
    :param frame: (3,) x, y [m], yaw [rad] in the scene frame of the frame it is given in
    :return: (3,) x, y, yaw in the scene frame
    :raises Refusal: INVALID_POSE: not finite, no rotation, tilted, or not on the floor
    """
    q, p = pose.orientation, pose.position
    values = (p.x, p.y, p.z, q.x, q.y, q.z, q.w)
    if not all(map(math.isfinite, values)):
        raise Refusal('INVALID_POSE', 'The pose is not finite.')
    length = math.sqrt(sum(min(abs(value), 1e9) ** 2 for value in values[3:]))
    if abs(length - 1.0) > QUATERNION_TOLERANCE:
        raise Refusal('INVALID_POSE', f'The quaternion has length {length:g}, not 1; without a '
                      'rotation w is 1.')
    if 2.0 * math.hypot(q.x, q.y) > TILT_TOLERANCE_RAD:
        raise Refusal('INVALID_POSE', 'The pose is tilted; everything here stands upright on the '
                      'floor, so only yaw can be set (quaternion x and y are 0).')
    if abs(p.z) > HEIGHT_TOLERANCE_M:
        raise Refusal('INVALID_POSE', f'z={p.z:g} m is not on the floor (0).')
    return se2.compose(frame, planar_pose_from_msg(pose))


def twist_from_msg(twist: Twist, frame_yaw_rad: float, base_yaw_rad: float,
                   spec: WorldSpec) -> np.ndarray:
    """
    Read the velocity of a robot on the floor.

    :param twist: geometry_msgs/Twist along the axes of some frame
    :param frame_yaw_rad: of that frame, in the scene frame
    :param base_yaw_rad: of the robot, in the scene frame
    :param spec: of the engine, for the robot's limits
    :return: (3,) v_x, v_y [m/s], w_z [rad/s] in base_link
    :raises Refusal: OPERATION_FAILED: not finite, off the floor or beyond the limits
    """
    linear, angular = twist.linear, twist.angular
    values = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
    if not all(map(math.isfinite, values)):
        raise Refusal(OPERATION_FAILED, 'The twist is not finite.')
    if any((linear.z, angular.x, angular.y)):
        raise Refusal(OPERATION_FAILED, 'The robot moves on the floor: linear.z, angular.x and '
                      'angular.y must be 0.')
    drive = spec.robot.drive
    limits = SPEED_TOLERANCE * drive.speed_max_mps, SPEED_TOLERANCE * drive.angular_max_radps
    if math.hypot(linear.x, linear.y) > limits[0] or abs(angular.z) > limits[1]:
        raise Refusal(OPERATION_FAILED, f'The robot never moves faster than {limits[0]:g} m/s '
                      f'and {limits[1]:g} rad/s.')
    return se2.rotated(np.array([linear.x, linear.y, angular.z]), frame_yaw_rad - base_yaw_rad)


def is_at_rest(twist: Twist) -> bool:
    """Say whether all six numbers of a geometry_msgs/Twist are zero."""
    return not any(value != 0.0 for vector in (twist.linear, twist.angular)
                   for value in (vector.x, vector.y, vector.z))


def tags_fit(tags_filter: Any, tags: Sequence[str]) -> bool:
    """
    Apply a filter.

    :param tags_filter: simulation_interfaces/TagsFilter
    :param tags: of what is asked about
    :return: whether it passes; an empty filter lets everything pass
    :raises Refusal: FEATURE_UNSUPPORTED: a mode that is neither any nor all
    """
    if tags_filter.filter_mode not in (FILTER_MODE_ANY, FILTER_MODE_ALL):
        raise Refusal(FEATURE_UNSUPPORTED, f'filter_mode={tags_filter.filter_mode} is neither '
                      'FILTER_MODE_ANY nor FILTER_MODE_ALL.')
    if not tags_filter.tags:
        return True
    hits = [tag in tags for tag in tags_filter.tags]
    return all(hits) if tags_filter.filter_mode == FILTER_MODE_ALL else any(hits)


def filtered(entities: Dict[str, EntityState], filters: Any, spec: WorldSpec,
             scene: str) -> List[EntityState]:
    """
    Choose entities.

    :param entities: name -> EntityState
    :param filters: simulation_interfaces/EntityFilters; all of them must pass
    :param spec: of the engine
    :param scene: that is loaded
    :return: the states that pass, in the order given
    :raises Refusal: a filter that is not supported, or one that cannot be read
    """
    try:
        names = NameFilter(filters.filter) if filters.filter else None
    except SpecError as error:
        raise Refusal(OPERATION_FAILED, str(error)) from error
    categories = [entry.category for entry in filters.categories]
    sphere = _sphere(filters.bounds)
    return [entity for entity in entities.values()
            if (names is None or names.matches(entity.name))
            and (not categories or CATEGORIES[entity.category] in categories)
            and tags_fit(filters.tags, TAGS[entity.category])
            and (sphere is None or _overlaps(entity, sphere, spec, scene))]


def _sphere(bounds: Any) -> Optional[Tuple[float, float, float, float]]:
    """Read the bounds of a filter: None for everywhere, else centre and radius, metres."""
    if bounds.type == TYPE_EMPTY:
        return None
    if bounds.type != TYPE_SPHERE:
        raise Refusal(FEATURE_UNSUPPORTED, f'Bounds of type {bounds.type} are not supported as a '
                      'filter; use TYPE_SPHERE.')
    if len(bounds.points) != 2:
        raise Refusal(OPERATION_FAILED, f'A sphere has 2 points, its centre and (radius, 0, 0); '
                      f'{len(bounds.points)} were given.')
    centre, radius = bounds.points[0], bounds.points[1].x
    values = (centre.x, centre.y, centre.z, radius)
    if not all(map(math.isfinite, values)) or radius < 0.0:
        raise Refusal(OPERATION_FAILED, 'Centre and radius of a sphere must be finite, the '
                      'radius at least 0.')
    return values


def _overlaps(entity: EntityState, sphere: Tuple[float, float, float, float], spec: WorldSpec,
              scene: str) -> bool:
    """Say whether an entity's upright cylinder touches a sphere."""
    x, y, z, limit = sphere
    radius, height = entity_size_m(entity, spec, scene)
    beside = max(math.hypot(entity.pose[0] - x, entity.pose[1] - y) - radius, 0.0)
    return math.hypot(beside, max(z - height, -z, 0.0)) <= limit


def entity_size_m(entity: EntityState, spec: WorldSpec, scene: str) -> Tuple[float, float]:
    """
    Return radius and height of the upright cylinder that encloses an entity, metres.

    :param entity: of the session
    :param spec: of the engine
    :param scene: that is loaded; of an unknown one objects are points
    """
    if entity.category == 'robot':
        return spec.robot.footprint.radius_m, spec.robot.footprint.height_m
    for movable in get_scene(scene).movables if scene in SCENES else ():
        if movable.name == entity.name:
            return movable.radius_m, 2.0 * movable.half_size_m[2]
    return 0.0, 0.0
