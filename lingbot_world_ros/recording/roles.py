# SPDX-License-Identifier: Apache-2.0
"""Which topic of a recording tells what: found by type and name, or as the user says. No rclpy."""
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from lingbot_world_ros.errors import shown, SpecError, unknown_name
from lingbot_world_ros.messages.encodings import (compressed_depth_from_msg, compressed_from_msg,
                                                  DEPTH, depth_from_msg, rgb_from_msg)
from lingbot_world_ros.recording.topic import Topic
import numpy as np

IMAGE, PACKED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
INFO, SCAN = 'sensor_msgs/msg/CameraInfo', 'sensor_msgs/msg/LaserScan'
JOINTS, ODOMETRY = 'sensor_msgs/msg/JointState', 'nav_msgs/msg/Odometry'
TWIST, TWIST_STAMPED = 'geometry_msgs/msg/Twist', 'geometry_msgs/msg/TwistStamped'
ACKERMANN = 'ackermann_msgs/msg/AckermannDrive'
ACKERMANN_STAMPED = 'ackermann_msgs/msg/AckermannDriveStamped'
TRAJECTORY, NUMBERS = 'trajectory_msgs/msg/JointTrajectory', 'std_msgs/msg/Float64MultiArray'
TF, CLOCK = 'tf2_msgs/msg/TFMessage', 'rosgraph_msgs/msg/Clock'
TEXT = 'std_msgs/msg/String'
BASE_COMMANDS = (TWIST, TWIST_STAMPED, ACKERMANN, ACKERMANN_STAMPED)
KINDS = {  # role -> types of its topics
    'image': (IMAGE, PACKED), 'depth': (IMAGE, PACKED), 'camera_info': (INFO,),
    'command': BASE_COMMANDS, 'joint_command': (TRAJECTORY, NUMBERS, JOINTS),
    'odometry': (ODOMETRY,), 'joint_states': (JOINTS,), 'scan': (SCAN,), 'tf': (TF,),
    'tf_static': (TF,), 'clock': (CLOCK,), 'robot_description': (TEXT,)}
CHOSEN = ('image', 'depth', 'camera_info', 'command', 'joint_command', 'odometry', 'joint_states',
          'scan')  # roles with one topic each that the user may name
COMMANDING = ('cmd', 'command', 'target', 'setpoint', 'teleop', 'drive', 'desired', 'goal')
MEASURED = ('odom', 'state', 'feedback', 'measured', 'actual', 'estimate')
NO_PICTURE = ('mask', 'debug', 'label', 'segment', 'infra', 'heatmap', 'overlay', 'annotated',
              'detect', 'theora', 'costmap')
COLOURFUL = ('color', 'colour', 'rgb', 'image_raw', 'front', 'image_rect')


@dataclass(frozen=True)
class Picture:
    """First message of a topic with images: what it shows, or why it cannot be used."""

    size_px: Tuple[int, int] = (0, 0)  # width, height
    is_depth: bool = False
    encoding: str = ''
    frame: str = ''
    problem: str = ''


@dataclass
class Roles:
    """Topic of each role, and the others that could have had it; roles without one are missing."""

    topics: Dict[str, str] = field(default_factory=dict)
    others: Dict[str, List[str]] = field(default_factory=dict)

    def get(self, role: str) -> str:
        """Return the topic of a role, '' where there is none."""
        return self.topics.get(role, '')

    def choose(self, role: str, candidates: Sequence[Topic],
               worth: Callable[[Topic], Any]) -> None:
        """
        Give a role to the best of several topics.

        :param role: one of ``KINDS``
        :param candidates: that could have it
        :param worth: compares; among equals the first name wins
        """
        ranked = sorted(sorted(candidates, key=lambda t: t.name), key=worth, reverse=True)
        if ranked:
            self.topics[role] = ranked[0].name
            self.others[role] = [topic.name for topic in ranked[1:]]


def check_named(named: Mapping[str, str], topics: Sequence[Topic]) -> None:
    """
    Refuse topics that a user named and that cannot be what was said.

    :param named: role -> topic
    :param topics: of the recording
    :raises SpecError: unknown role or topic, another type, or no messages
    """
    of_name = {topic.name: topic for topic in topics}
    for role, name in named.items():
        if role not in CHOSEN:
            raise unknown_name('role', role, CHOSEN)
        if name not in of_name:
            fitting = [topic.name for topic in topics if topic.kind in KINDS[role]]
            raise unknown_name(f'topic for {role}', name, fitting)
        topic = of_name[name]
        if topic.kind not in KINDS[role]:
            raise SpecError(f'{name} holds {topic.kind}, which cannot be {role}: that is '
                            f'{" or ".join(KINDS[role])}.')
        if topic.problem:
            raise SpecError(f'{name} cannot be read: {topic.problem}')
        if not topic.count:
            raise SpecError(f'{name} has no messages.')


def find_roles(topics: Sequence[Topic], named: Mapping[str, str]) -> Roles:
    """
    Give roles to topics, but for pictures, which have to be looked at.

    :param topics: of the recording
    :param named: role -> topic that a user named
    :return: the roles
    """
    roles = Roles()
    usable = [topic for topic in topics if topic.count and not topic.problem]
    worths: Dict[str, Tuple[Callable[[Topic], bool], Callable[[Topic], Any]]] = {
        'command': (_commands_base, lambda t: (_last(t) == 'cmd_vel', 'cmd' in t.name, t.count)),
        'joint_command': (_commands_joints, lambda t: (t.kind != NUMBERS, t.count)),
        'odometry': (lambda t: True, lambda t: (_last(t) == 'odom', t.count)),
        'joint_states': (lambda t: not _has(t, COMMANDING),
                         lambda t: (_last(t) == 'joint_states', t.count)),
        'scan': (lambda t: True, lambda t: (_last(t) == 'scan', t.count)),
        'tf': (lambda t: _last(t) == 'tf', lambda t: t.count),
        'tf_static': (lambda t: _last(t) == 'tf_static', lambda t: t.count),
        'clock': (lambda t: _last(t) == 'clock', lambda t: t.count),
        'robot_description': (lambda t: _last(t) == 'robot_description', lambda t: t.count)}
    for role, (fits, worth) in worths.items():
        roles.choose(role, [t for t in usable if t.kind in KINDS[role]
                            and (fits(t) or named.get(role) == t.name)], worth)
    for role, name in named.items():
        _name(roles, role, name)
    return roles


def _name(roles: Roles, role: str, name: str) -> None:
    before = roles.get(role)
    others = [before, *roles.others.get(role, [])]
    roles.topics[role] = name
    roles.others[role] = [other for other in others if other and other != name]


def look_at(topic: Topic, msg: Any, role: str = '') -> Picture:
    """
    Look at the first image of a topic.

    :param topic: of images
    :param msg: its first message
    :param role: that a user gave it; depth is known by its pixels, too, where nothing else tells
    :return: what it shows
    """
    encoding = str(msg.encoding if topic.kind == IMAGE else msg.format)
    frame = str(msg.header.frame_id).lstrip('/')
    is_depth = encoding in DEPTH or topic.kind == PACKED and (
        'compresseddepth' in encoding.lower() or encoding.startswith(tuple(DEPTH)))
    if role == 'depth' and not is_depth:
        try:
            depth_of(msg)
            is_depth = True
        except Exception:  # of foreign pixels any kind of error may come
            pass
    try:
        pixels = depth_of(msg) if is_depth else rgb_of(msg)
    except Exception as error:  # of foreign pixels any kind of error may come
        return Picture((0, 0), is_depth, encoding, frame, ' '.join(str(error).split()))
    return Picture((pixels.shape[1], pixels.shape[0]), is_depth, encoding, frame)


def check_pictures(named: Mapping[str, str], pictures: Mapping[str, Picture]) -> None:
    """
    Refuse topics of images that show something else than a user said.

    :param named: role -> topic
    :param pictures: of all topics with images
    :raises SpecError: colour for depth or the reverse, or pixels that cannot be read
    """
    for role in ('image', 'depth'):
        name = named.get(role, '')
        picture = pictures.get(name)
        if picture is None:
            continue
        if picture.is_depth != (role == 'depth'):
            held, wanted = (('depth', 'colour pictures') if picture.is_depth else
                            ('colour pictures', 'depth'))
            raise SpecError(f'{name} carries {held} ({shown(picture.encoding, 60)}), not '
                            f'{wanted}; name another topic for {role}, or leave it out.')
        if picture.problem:
            raise SpecError(f'{name} cannot be used as {role}: {picture.problem.rstrip(".")}.')


def rgb_of(msg: Any) -> np.ndarray:
    """Read an image, raw or compressed: (h, w, 3) uint8 rgb; SpecError if that cannot be."""
    return rgb_from_msg(msg) if hasattr(msg, 'encoding') else compressed_from_msg(msg)


def depth_of(msg: Any) -> np.ndarray:
    """Read depth, raw or compressed: (h, w) float32 metres; SpecError if that cannot be."""
    return depth_from_msg(msg) if hasattr(msg, 'encoding') else compressed_depth_from_msg(msg)


def give_pictures(roles: Roles, topics: Sequence[Topic], pictures: Mapping[str, Picture],
                  info_frames: Mapping[str, str], named: Mapping[str, str]) -> None:
    """
    Give the roles of image, depth and camera_info.

    :param roles: to add to
    :param topics: of the recording
    :param pictures: of all topics with images
    :param info_frames: frame of each topic with camera_info
    :param named: role -> topic that a user named
    """
    infos = [t for t in topics if t.kind == INFO and t.count and not t.problem]
    seen = [t for t in topics if t.name in pictures and not pictures[t.name].problem]
    of_camera = {camera_of(info.name) for info in infos}
    roles.choose('image', [t for t in seen if not pictures[t.name].is_depth], lambda t: (
        not _has(t, NO_PICTURE), not pictures[t.name].encoding.startswith(('mono', '8UC1')),
        camera_of(t.name) in of_camera, _has(t, COLOURFUL), t.count, t.kind == IMAGE))
    if 'image' in named:
        _name(roles, 'image', named['image'])
    image = roles.get('image')
    frame = pictures[image].frame if image in pictures else ''
    roles.choose('depth', [t for t in seen if pictures[t.name].is_depth], lambda t: (
        'aligned' in t.name, pictures[t.name].frame == frame,
        _common(camera_of(t.name), camera_of(image)), t.count, t.kind == IMAGE))
    roles.choose('camera_info', [
        info for info in infos if camera_of(info.name) == camera_of(image)
        or frame and info_frames.get(info.name) == frame], lambda t: (
            camera_of(t.name) == camera_of(image), 'depth' not in t.name, t.count))
    for role in ('depth', 'camera_info'):
        if role in named:
            _name(roles, role, named[role])


def camera_of(name: str) -> str:
    """
    Return the namespace that a camera's topics share.

    :param name: such as ``/front/image_raw/compressed`` or ``/front/camera_info``
    :return: such as ``/front``
    """
    parts = name.split('/')
    if parts[-1] in ('compressed', 'compressedDepth', 'theora', 'zstd'):
        parts.pop()
    return '/'.join(parts[:-1])


def _common(a: str, b: str) -> int:
    """Return how many names two namespaces share, less those they do not."""
    left, right = [part.split('/')[1:] for part in (a, b)]
    shared = 0
    for one, other in zip(left, right):
        if one != other:
            break
        shared += 1
    return 2 * shared - max(len(left), len(right))


def _last(topic: Topic) -> str:
    return topic.name.rpartition('/')[2]


def _has(topic: Topic, words: Sequence[str]) -> bool:
    return any(word in topic.name.lower() for word in words)


def _commands_base(topic: Topic) -> bool:
    if topic.kind in (ACKERMANN, ACKERMANN_STAMPED):
        return not _has(topic, MEASURED)
    return not _has(topic, MEASURED) and _has(topic, (*COMMANDING, 'vel', 'twist'))


def _commands_joints(topic: Topic) -> bool:
    return topic.kind == TRAJECTORY or _has(topic, COMMANDING)


def refusal(pictures: Mapping[str, Picture]) -> str:
    """
    Say why none of the images can be used.

    :param pictures: of all topics with images
    :return: a sentence without a full stop; '' where there is no reason but their absence
    """
    told = [f'{name}: {picture.problem.rstrip(".")}' for name, picture in sorted(pictures.items())
            if picture.problem]
    return '; '.join(told[:3]) or ('all that there is, is depth' if pictures else '')
