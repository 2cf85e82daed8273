# SPDX-License-Identifier: Apache-2.0
"""
A robot by its name or file: a short YAML, and the URDF that it names.

Limits and speeds of joints and the place of cameras are those of the URDF. The YAML says the
rest: what the base can do, its footprint, which joints are commanded, the size of pictures.
"""
from functools import lru_cache
from math import inf, isfinite, nan, pi, tan
from pathlib import Path
from typing import Mapping, Optional, Tuple, Union

from lingbot_world_ros.errors import quoted, shown, SpecError, unknown_name
from lingbot_world_ros.geometry.camera import (MIN_FOCAL_PX, MountedCamera, PinholeCamera,
                                               T_LINK_OPTICAL)
from lingbot_world_ros.geometry.rotation import rpy_from_rotation
from lingbot_world_ros.paths import find_file, read_text, share_path
from lingbot_world_ros.plain_yaml import read_number, read_string, read_whole, read_yaml, Tree
from lingbot_world_ros.robots.arm import read_arm
from lingbot_world_ros.robots.drive import Drive
from lingbot_world_ros.robots.robot import Footprint, JointSpec, Robot, RobotCamera
from lingbot_world_ros.robots.urdf import (from_first_tag, is_optical, JointLimits, MAX_BYTES,
                                           RobotModel)
import numpy as np

FOLDER = ('config', 'robots')
OWN = 'room.yaml'  # of the scenes that ship
SUFFIXES = ('.yaml', '.yml')
MAX_FILE_BYTES = 1 << 16  # a robot has about 1 KB
MAX_JOINTS, MAX_CAMERAS = 64, 16
MAX_SPEED = 1e3  # m/s, rad/s
MAX_SIZE_M = 1e2
MAX_SIDE_PX = 8192
MAX_POSITION = 1e4  # rad or m, of joints without limits
DEFAULT_JOINT_SPEED = 1.0  # rad/s or m/s, of joints whose URDF names none
KEYS = ('urdf', 'drive', 'footprint', 'cameras', 'joints', 'arm_tip')
DRIVES = {  # type -> what it needs
    'differential': ('linear_velocity_mps', 'angular_velocity_radps'),
    'omnidirectional': ('linear_velocity_mps', 'lateral_velocity_mps', 'angular_velocity_radps'),
    'ackermann': ('linear_velocity_mps', 'wheelbase_m', 'max_steering_rad')}


def load_robot(given: Union[str, Robot] = '') -> Robot:
    """
    Read a robot.

    :param given: name of a file in ``config/robots/`` without ``.yaml``; or a path, package:// or
        file:// URL of such a file; '' is the robot of the scenes that ship; or a robot
    :return: the robot
    :raises SpecError: no such robot, or a file that does not say what it should; names file and
        key
    """
    if isinstance(given, Robot):
        return given
    if given.endswith(SUFFIXES) or '/' in given:
        return _load(find_file(given, 'robot'))
    if given and given not in robot_names():
        raise unknown_name('robot', given, robot_names())
    return _load_shipped(f'{given}.yaml' if given else OWN)


def robot_names() -> Tuple[str, ...]:
    """Return the names of the robots that ship."""
    return tuple(sorted(path.stem for path in share_path(*FOLDER).glob('*.yaml')))


@lru_cache(maxsize=None)
def _load_shipped(file: str) -> Robot:
    return _load(share_path(*FOLDER, file))


def joint_from_urdf(name: str, unit: str, limits: JointLimits) -> JointSpec:
    """
    Fill in what a URDF leaves open.

    :param name: of the joint
    :param unit: rad or m
    :param limits: as the URDF has them
    :return: the joint, at home where it is nearest to 0, without lag
    :raises SpecError: no position is left to it
    """
    low, high = max(limits.low, -MAX_POSITION), min(limits.high, MAX_POSITION)
    if low > high:
        raise SpecError(f'Joint {shown(name)} has no position: its limits in the URDF are '
                        f'{limits.low:g} to {limits.high:g}.')
    speed = limits.speed if isfinite(limits.speed) else DEFAULT_JOINT_SPEED
    return JointSpec(name, unit, low, high, speed, home=float(np.clip(0.0, low, high)))


def _load(path: Path) -> Robot:
    try:
        content = _Section(read_yaml(read_text(str(path), 'robot', MAX_FILE_BYTES)), '', KEYS)
        description = _description(content.text('urdf'), path.parent)
        model = RobotModel.from_description(description)
        joints = _joints(content, model)
        arm = None
        if 'arm_tip' in content.values:
            arm, names = read_arm(model, content.text('arm_tip'))
            if names != tuple(joint.name for joint in joints):
                raise SpecError(f'arm_tip: the joints of the arm are {shown(", ".join(names))}; '
                                'name them, and no others, under joints in this order.')
        return Robot(path.stem, _drive(content), _cameras(content, model, joints),
                     _footprint(content), joints, arm, description)
    except SpecError as error:
        raise SpecError(f'robot {shown(path)}: {error}') from error


def _description(given: str, folder: Path) -> str:
    if '://' not in given:
        given = str(folder / given)
    return from_first_tag(read_text(given, 'urdf', MAX_BYTES))


def _drive(content: '_Section') -> Drive:
    kinds = {key for keys in DRIVES.values() for key in keys}
    section = content.section('drive', ('type', *sorted(kinds)))
    kind = section.text('type')
    if kind not in DRIVES:
        raise unknown_name('drive.type', kind, DRIVES)
    needed = DRIVES[kind]
    optional: Tuple[str, ...] = ('angular_velocity_radps',) if kind == 'ackermann' else ()
    section.only((*needed, *optional, 'type'), f'drive of type {kind}')
    low, high = section.pair('linear_velocity_mps', MAX_SPEED)
    lateral, curvature = 0.0, inf
    if kind == 'omnidirectional':
        lateral = section.positive('lateral_velocity_mps', MAX_SPEED)
    if kind != 'ackermann':
        turn = section.positive('angular_velocity_radps', MAX_SPEED)
    else:
        curvature = (tan(section.positive('max_steering_rad', 0.5 * pi - 0.01))
                     / section.positive('wheelbase_m', MAX_SIZE_M))
        turn = curvature * max(abs(low), high)
        if optional[0] in section.values:
            turn = min(turn, section.positive(optional[0], MAX_SPEED))
    return Drive(low, high, turn, lateral, curvature)


def _footprint(content: '_Section') -> Footprint:
    section = content.section('footprint', ('radius_m', 'length_m', 'width_m', 'height_m',
                                            'base_height_m'))
    if 'radius_m' in section.values:
        section.only(('radius_m', 'height_m', 'base_height_m'), 'round footprint')
        radius = section.positive('radius_m', MAX_SIZE_M)
    else:
        length, width = (section.positive(f'{side}_m', MAX_SIZE_M) for side in ('length', 'width'))
        radius = 0.5 * float(np.hypot(length, width))
    height = section.positive('height_m', MAX_SIZE_M)
    base_height = height
    if 'base_height_m' in section.values:
        base_height = section.positive('base_height_m', height)
    return Footprint(radius, height, base_height)


def _joints(content: '_Section', model: RobotModel) -> Tuple[JointSpec, ...]:
    units, joints = model.actuated_joints, []
    entries = content.values.get('joints', {})
    if not entries:
        return ()
    section = content.section('joints', tuple(units))
    if len(entries) > MAX_JOINTS:
        raise SpecError(f'joints: {len(entries)} are more than {MAX_JOINTS}.')
    for name in section.values:
        own = section.section(name, ('home', 'lag_s'))
        joint = joint_from_urdf(name, units[name], model.joint_limits[name])
        home = own.number('home', joint.low, joint.high, joint.home)
        joints.append(JointSpec(name, joint.unit, joint.low, joint.high, joint.max_speed, home,
                                own.number('lag_s', 0.0, 10.0, 0.0)))
    return tuple(joints)


def _cameras(content: '_Section', model: RobotModel,
             joints: Tuple[JointSpec, ...]) -> Tuple[RobotCamera, ...]:
    section = content.section('cameras')
    if not 0 < len(section.values) <= MAX_CAMERAS:
        raise SpecError(f'cameras: {len(section.values)} of them; name 1 to {MAX_CAMERAS}.')
    home = {joint.name: joint.home for joint in joints}
    cameras = []
    for name in section.values:
        own = section.section(name, ('link', 'width_px', 'height_px',
                                     'vertical_field_of_view_deg'))
        link = own.text('link')
        if link not in model.links:
            raise unknown_name(f'cameras.{name}.link', link, model.links)
        width, height = (own.whole(f'{side}_px', 1, MAX_SIDE_PX) for side in ('width', 'height'))
        fovy_rad = float(np.deg2rad(own.number('vertical_field_of_view_deg', 1.0, 170.0)))
        camera = _mounted(model, link, home, width, height, fovy_rad)
        if camera.fy_px < MIN_FOCAL_PX:
            raise SpecError(f'cameras.{name}: {height} pixels over the angle make a focal length '
                            f'of {camera.fy_px:.1f} pixels; take more pixels, or an angle that '
                            f'makes at least {MIN_FOCAL_PX:g}.')
        cameras.append(RobotCamera(name, link, camera, model.moves(link, home)))
    return tuple(cameras)


def _mounted(model: RobotModel, link: str, home: Mapping[str, float], width_px: int,
             height_px: int, fovy_rad: float) -> MountedCamera:
    """Return the camera where its link is."""
    T = model.link_pose(link, home)
    if is_optical(link):
        T = T @ T_LINK_OPTICAL.T
    return PinholeCamera.from_fovy(width_px, height_px, fovy_rad).mounted(
        T[:3, 3].tolist(), rpy_from_rotation(T[:3, :3]))


class _Section:
    """A mapping of the YAML, and where it is; what it holds is told by name if it is wrong."""

    def __init__(self, values: Tree, where: str, known: Tuple[str, ...] = ()) -> None:
        """
        Take over a mapping.

        :param values: as read
        :param where: dotted keys that lead here, '' for the file
        :param known: keys that it may have; none for any
        :raises SpecError: no mapping, or a key that is not known
        """
        if not isinstance(values, dict):
            raise SpecError(f'{where or "it"} is no mapping of names'
                            + (f'; it may have {", ".join(known)}.' if known else '.'))
        self.values = values
        self._where = where
        if known:
            self.only(known, where or 'file of a robot')

    def only(self, known: Tuple[str, ...], what: str) -> None:
        """Refuse keys other than these."""
        for key in self.values:
            if key not in known:
                raise unknown_name(f'key of the {what}', self._name(key), map(self._name, known))

    def section(self, key: str, known: Tuple[str, ...] = ()) -> '_Section':
        """Return a mapping in this one."""
        return _Section(self._get(key, 'a mapping'), self._name(key), known)

    def text(self, key: str) -> str:
        """Return text."""
        given = self._get(key, 'text')
        value = read_string(given)
        if not value or len(value) > 4096:
            raise self._wrong(key, given, 'text')
        return value

    def whole(self, key: str, low: int, high: int) -> int:
        """Return a whole number."""
        expected = f'a whole number from {low} to {high}'
        given = self._get(key, expected)
        value = read_whole(given)
        if value is None or not low <= value <= high:
            raise self._wrong(key, given, expected)
        return value

    def number(self, key: str, low: float, high: float,
               otherwise: Optional[float] = None) -> float:
        """Return a number; ``otherwise`` where there is none."""
        expected = f'a number from {low:g} to {high:g}'
        if otherwise is not None and key not in self.values:
            return otherwise
        given = self._get(key, expected)
        value = read_number(given)
        if value is None or not low <= value <= high:
            raise self._wrong(key, given, expected)
        return value

    def positive(self, key: str, high: float) -> float:
        """Return a number of more than 0."""
        expected = f'a number of more than 0, at most {high:g}'
        given = self._get(key, expected)
        value = read_number(given)
        if value is None or not 0.0 < value <= high:
            raise self._wrong(key, given, expected)
        return value

    def pair(self, key: str, high: float) -> Tuple[float, float]:
        """Return a range around 0, given as one number for both ways or as a list of two."""
        given = self._get(key, 'a number, or [lowest, highest]')
        if isinstance(given, list):
            pair = [nan if number is None else number for number in map(read_number, given)]
        else:
            number = read_number(given)
            pair = [nan] if number is None else [-number, number]
        if len(pair) != 2 or not -high <= pair[0] <= 0.0 < pair[1] <= high:
            raise self._wrong(key, given, 'a number of more than 0, or [lowest, highest] with '
                              f'{-high:g} <= lowest <= 0 < highest <= {high:g}')
        return pair[0], pair[1]

    def _get(self, key: str, expected: str) -> Tree:
        if key not in self.values:
            raise SpecError(f'{self._name(key)} is missing; it is {expected}.')
        return self.values[key]

    def _name(self, key: str) -> str:
        return f'{self._where}.{key}' if self._where else key

    def _wrong(self, key: str, value: object, expected: str) -> SpecError:
        return SpecError(f'{self._name(key)}={quoted(value)} is not {expected}.')
