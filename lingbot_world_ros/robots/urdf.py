# SPDX-License-Identifier: Apache-2.0
"""
What a robot description (URDF) says of joints: their limits, and where they bring a link.

Read by ``urdf_parser_py``, the parser of ROS itself. Meshes, plugins and whatever else a URDF
holds is not looked at. No ROS.
"""
from dataclasses import dataclass
from functools import cached_property
from math import inf, isnan
from typing import Any, Callable, Collection, Dict, Iterable, List, Mapping, Tuple, Union

from lingbot_world_ros.errors import shown, SpecError, unknown_name
from lingbot_world_ros.geometry import se3
from lingbot_world_ros.geometry.camera import T_LINK_OPTICAL
from lingbot_world_ros.paths import pip_install, read_text
import numpy as np

NAME = 'robot_description'
MAX_BYTES = 4_000_000
BEFORE_XML = '\ufeff \t\r\n'
BASE_LINK = 'base_link'
OPTICAL_ENDINGS = ('_optical', '_optical_frame')  # of links whose z is where a camera looks
MOVABLE = ('revolute', 'continuous', 'prismatic')
JointPositions = Mapping[str, Union[float, np.ndarray]]  # by joint name, rad or m
Motion = Callable[[JointPositions], np.ndarray]  # (4, 4) or (n, 4, 4), child in parent


@dataclass(frozen=True)
class JointLimits:
    """Limits of one joint: rad or m, and rad/s or m/s; infinite where there is none."""

    low: float = -inf
    high: float = inf
    speed: float = inf


@dataclass(frozen=True)
class UrdfJoint:
    """One joint as the URDF has it: where it is on its parent [m, rad], and its axis."""

    name: str
    kind: str
    xyz: Tuple[float, float, float]
    rpy: Tuple[float, float, float]
    axis: Tuple[float, float, float]


def from_first_tag(text: str) -> str:
    """Drop what may not stand before the declaration of XML: white space, a byte order mark."""
    return text.lstrip(BEFORE_XML)


def read_description(given: str) -> str:
    """
    Find the text of a robot description.

    :param given: the XML itself, which begins with ``<``; else a ``package://`` or ``file://``
        URL, or a path
    :return: XML from its first ``<`` on
    :raises SpecError: no such file, or too large
    """
    text = from_first_tag(given)
    return text if text.startswith('<') else from_first_tag(read_text(given, NAME, MAX_BYTES))


def is_optical(link: str) -> bool:
    """Say whether a camera on a link looks along its z; else it looks along x."""
    return link.endswith(OPTICAL_ENDINGS)


def optical_in_link(link: str) -> np.ndarray:
    """Return the (4, 4) optical frame of a camera in the link that carries it, at its origin."""
    return np.eye(4) if is_optical(link) else T_LINK_OPTICAL


class RobotModel:
    """Joint limits and forward kinematics of one robot."""

    def __init__(self, robot: Any) -> None:
        """
        Take over a parsed description.

        :param robot: ``urdf_parser_py.urdf.Robot``
        :raises SpecError: its joints do not make one tree of its links
        """
        self._joints = robot.joint_map
        self._parents = robot.parent_map  # link -> joint, parent link
        self.links: Tuple[str, ...] = tuple(robot.link_map)
        known = set(self.links)
        lost = {link for joint in robot.joints for link in (joint.parent, joint.child)} - known
        if lost:
            raise SpecError(f'{NAME}: a joint names link {shown(", ".join(sorted(lost)))}, which '
                            'does not exist.')
        roots = [link for link in self.links if link not in self._parents]
        if len(roots) != 1:
            raise SpecError(f'{NAME}: {len(roots)} links have no parent '
                            f'({shown(", ".join(roots[:5]))}); one must, the base.')
        self.base = BASE_LINK if BASE_LINK in known else roots[0]
        self._paths: Dict[str, List[Motion]] = {}

    @classmethod
    def from_description(cls, text: str) -> 'RobotModel':
        """
        Read a URDF.

        :param text: XML, xacro already run
        :return: the model
        :raises SpecError: not a URDF, or the parser is not installed
        """
        try:
            from urdf_parser_py.urdf import URDF
        except ImportError as error:
            raise SpecError(f'{NAME} needs the Python package {error.name!r}: '
                            f'{pip_install("urdfdom-py")} (or apt install '
                            'ros-$ROS_DISTRO-urdfdom-py).') from error
        try:
            robot = URDF.from_xml_string(_joints_and_links(text))
        except SpecError:
            raise
        except Exception as error:  # the parser has no error of its own for what it cannot read
            text = ' '.join(str(error).split()) or type(error).__name__
            raise SpecError(f'{NAME} is no URDF: {shown(text.rstrip("."))}.') from error
        return cls(robot)

    @cached_property
    def joint_limits(self) -> Dict[str, JointLimits]:
        """
        Limits of every movable joint; a speed of 0 and a range of 0 to 0 count as not given.

        :raises SpecError: NaN is one of them
        """
        return {name: _limits(joint) for name, joint in self._joints.items()
                if joint.type in MOVABLE}

    @cached_property
    def actuated_joints(self) -> Dict[str, str]:
        """Unit, rad or m, of every movable joint that follows no other."""
        return {name: 'm' if joint.type == 'prismatic' else 'rad'
                for name, joint in self._joints.items()
                if joint.type in MOVABLE and joint.mimic is None}

    def link_pose(self, link: str, joint_position: JointPositions) -> np.ndarray:
        """
        Pose of a link.

        :param link: its name
        :param joint_position: rad or m by joint name, numbers or (n,) of them; joints that are
            not named stand at 0
        :return: (4, 4) or (n, 4, 4) float64 pose of the link in base_link
        :raises SpecError: unknown link, or a joint on the way that this cannot compute
        """
        T = np.eye(4)
        for step in self._path(link):
            T = T @ step(joint_position)
        return T

    def chain(self, link: str) -> Tuple[UrdfJoint, ...]:
        """
        Return the joints between base_link and a link, the first at the base.

        :param link: its name
        :raises SpecError: unknown link, or one that base_link does not carry
        """
        up, down = self._way(link)
        if up:
            raise SpecError(f'{NAME}: {self.base} does not carry link {shown(link)}.')
        return tuple(map(_as_data, down))

    def moves(self, link: str, joints: Collection[str]) -> bool:
        """
        Say whether some joints move a link against base_link.

        :param link: its name
        :param joints: names; those that follow one of them move, too
        :raises SpecError: unknown link
        """
        up, down = self._way(link)
        return any((joint.name if joint.mimic is None else joint.mimic.joint) in joints
                   for joint in up + down)

    def camera_links(self, link: str) -> Tuple[str, str]:
        """
        Find the two links of a camera: its body looks along x, its optical frame along z.

        :param link: one of them
        :return: body and optical frame, '' for one that the URDF does not have
        :raises SpecError: unknown link
        """
        self._way(link)
        fixed = {child: parent for child, (name, parent) in self._parents.items()
                 if self._joints[name].type == 'fixed'}
        if is_optical(link):
            return fixed.get(link, ''), link
        optical = [child for child, parent in fixed.items()
                   if parent == link and is_optical(child)]
        return link, optical[0] if optical else ''

    def _way(self, link: str) -> Tuple[List[Any], List[Any]]:
        """Return the joints from base_link up to where the ways part, and those down to a link."""
        if link not in self.links:
            raise unknown_name('link of robot_description', link, self.links)
        down, up = self._joints_above(link), self._joints_above(self.base)
        while down and up and down[0] is up[0]:
            down, up = down[1:], up[1:]
        return up[::-1], down

    def _path(self, link: str) -> List[Motion]:
        """Return what to multiply from base_link to a link: functions of the joint positions."""
        if link not in self._paths:
            up, down = self._way(link)
            inverse = [lambda q, move=_joint_motion(joint, self._joints): se3.inverse(move(q))
                       for joint in up]
            self._paths[link] = inverse + [_joint_motion(joint, self._joints) for joint in down]
        return self._paths[link]

    def _joints_above(self, link: str) -> List[Any]:
        joints = []
        while link in self._parents:
            name, link = self._parents[link]
            joints.append(self._joints[name])
            if len(joints) > len(self._joints):
                raise SpecError(f'{NAME}: the links form a circle at {shown(link)}.')
        return joints[::-1]


def _joints_and_links(text: str) -> str:
    """
    Keep what matters here; the parser prints a line for each tag that it does not know.

    :raises SpecError: not XML, a document type (no URDF has one), or xacro
    """
    from xml.etree import ElementTree
    if '<!DOCTYPE' in text:
        raise SpecError(f'{NAME}: it has a document type; a URDF has none.')
    try:
        source = ElementTree.fromstring(from_first_tag(text))
    except ElementTree.ParseError as error:
        raise SpecError(f'{NAME} is not XML: {error}.') from error
    if any('xacro' in element.tag for element in source.iter()):
        raise SpecError(f'{NAME} is still a xacro file; run xacro on it first.')
    robot = ElementTree.Element('robot', name=source.get('name', 'robot'))
    for element in source:
        if element.tag == 'joint':
            robot.append(element)
        elif element.tag == 'link':
            ElementTree.SubElement(robot, 'link', element.attrib)
    return ElementTree.tostring(robot, encoding='unicode')


def _limits(joint: Any) -> JointLimits:
    limit = joint.limit
    if limit is None:
        return JointLimits()
    if any(map(isnan, (limit.lower, limit.upper, limit.velocity))):
        raise SpecError(f'{NAME}: a limit of joint {shown(joint.name)} is NaN; give a number, or '
                        'inf for none.')
    if joint.type == 'continuous' or limit.lower == limit.upper == 0.0:
        return JointLimits(speed=abs(limit.velocity) or inf)
    return JointLimits(limit.lower, limit.upper, abs(limit.velocity) or inf)


def _as_data(joint: Any) -> UrdfJoint:
    origin = joint.origin
    xyz, rpy = ((0.0,) * 3,) * 2 if origin is None else (origin.xyz, origin.rpy)
    axis = (1.0, 0.0, 0.0) if joint.axis is None else joint.axis
    return UrdfJoint(joint.name, joint.type, _floats(xyz), _floats(rpy), _floats(axis))


def _floats(values: Iterable[float]) -> Tuple[float, float, float]:
    x, y, z = map(float, values)
    return x, y, z


def _joint_motion(joint: Any, joints: Mapping[str, Any]) -> Motion:
    """Return the pose of a joint's child link in its parent link, as a function of positions."""
    origin = _pose(joint.origin)
    if joint.type == 'fixed':
        return lambda positions: origin
    if joint.type not in MOVABLE:
        raise SpecError(f'{NAME}: joint {shown(joint.name)} is {shown(joint.type)}; the way to '
                        f'the camera may have {", ".join(MOVABLE)} and fixed ones.')
    name, factor, offset = joint.name, 1.0, 0.0
    if joint.mimic is not None:
        name = joint.mimic.joint
        if name not in joints:
            raise SpecError(f'{NAME}: joint {shown(joint.name)} follows {shown(name)}, which '
                            'does not exist.')
        factor = 1.0 if joint.mimic.multiplier is None else joint.mimic.multiplier
        offset = joint.mimic.offset or 0.0
    axis = np.array([1.0, 0.0, 0.0] if joint.axis is None else joint.axis, float)
    length = np.linalg.norm(axis)
    if not length > 0.0:
        raise SpecError(f'{NAME}: the axis of joint {shown(joint.name)} has no direction.')
    axis = axis / length
    generator = np.zeros((4, 4))
    if joint.type == 'prismatic':
        generator[:3, 3] = axis
        along = origin @ generator

        def slide(positions: JointPositions) -> np.ndarray:
            q = factor * np.asarray(positions.get(name, 0.0))[..., None, None] + offset
            return origin + q * along
        return slide
    x, y, z = axis
    generator[:3, :3] = [[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]
    # Rodrigues: exp(q K) = 1 + sin(q) K + (1 - cos(q)) K^2, the origin already multiplied in.
    sine, cosine = origin @ generator, -origin @ generator @ generator
    constant = origin - cosine

    def turn(positions: JointPositions) -> np.ndarray:
        q = factor * np.asarray(positions.get(name, 0.0))[..., None, None] + offset
        return constant + np.sin(q) * sine + np.cos(q) * cosine
    return turn


def _pose(origin: Any) -> np.ndarray:
    """Return a URDF origin (xyz, fixed-axis roll pitch yaw) as (4, 4)."""
    return np.eye(4) if origin is None else se3.pose_from_rpy(origin.xyz, origin.rpy)
