# SPDX-License-Identifier: Apache-2.0
"""
First reading of a recording: when each message was, and everything that is small.

Images, depth and scans are only counted and looked at once, so memory does not grow with them.
"""
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Sequence, Set, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.recording.roles import (
    ACKERMANN, ACKERMANN_STAMPED, check_named, check_pictures, find_roles, give_pictures, IMAGE,
    INFO, look_at, NUMBERS, PACKED, Picture, Roles, TRAJECTORY, TWIST_STAMPED)
from lingbot_world_ros.recording.series import Track
from lingbot_world_ros.recording.sources import Source
from lingbot_world_ros.recording.topic import Topic
from lingbot_world_ros.recording.transforms import FrameTree
import numpy as np

TWIST_NAMES = ('linear_x', 'linear_y', 'linear_z', 'angular_x', 'angular_y', 'angular_z')
ALWAYS = ('linear_x', 'angular_z')  # the others of a twist count if they are ever used
ACKERMANN_NAMES = ('linear_x', 'steering_angle')
TRAJECTORY_STEP_NS = 20_000_000  # at which a trajectory counts as a row of targets
NUM_TF_TO_KNOW = 2000  # messages, after which every frame was heard of
SENSOR_WORDS = ('camera', 'optical', 'laser', 'scan', 'lidar')  # in names of frames
MAX_TRAJECTORY_NS = 600_000_000_000


@dataclass
class Survey:
    """What the first reading found."""

    form: str
    topics: Tuple[Topic, ...]
    roles: Roles
    tracks: Dict[str, Track] = field(default_factory=dict)  # by topic: when its messages were
    pictures: Dict[str, Picture] = field(default_factory=dict)
    infos: Dict[str, Any] = field(default_factory=dict)  # topic -> first CameraInfo
    num_cameras: Dict[str, int] = field(default_factory=dict)  # topic -> different CameraInfos
    tree: FrameTree = field(default_factory=FrameTree)
    odometry: Track = field(default_factory=lambda: Track(7))  # x, y, z, x, y, z, w
    odometry_frames: Tuple[str, str] = ('', '')  # of odom, of the base
    command: Track = field(default_factory=lambda: Track(6))
    command_names: Tuple[str, ...] = TWIST_NAMES
    joint_command: Dict[str, Track] = field(default_factory=dict)
    joint_states: Dict[str, Track] = field(default_factory=dict)
    first_scan: Any = None
    urdf: str = ''  # of the robot, from robot_description
    damaged: Dict[str, int] = field(default_factory=dict)  # topic -> messages

    def joints(self, of: Mapping[str, Track]) -> List[str]:
        """Return the names of joints that have values."""
        return [name for name, track in of.items() if len(track)]


def survey(source: Source, named: Mapping[str, str], everything: bool = False) -> Survey:
    """
    Read a recording once.

    :param source: opened
    :param named: role -> topic that the user named
    :param everything: count topics without a role, too
    :return: what was found
    :raises SpecError: damaged, or a named topic cannot be what was said
    """
    check_named(named, source.topics)
    reading = _Reading(source, named)
    names = [topic.name for topic in source.topics
             if everything or topic.name in reading.takes or topic.name in reading.looked_at]
    for order, (name, received_ns, stored) in enumerate(source.stored(names)):
        reading.take(order, name, received_ns, stored)
    found = reading.found
    check_pictures(named, found.pictures)
    frames = {name: msg.header.frame_id.lstrip('/') for name, msg in found.infos.items()}
    give_pictures(found.roles, source.topics, found.pictures, frames, named)
    return found


class _Reading:
    """Takes in messages; ``takes`` says what to do with those that have a role."""

    def __init__(self, source: Source, named: Mapping[str, str]) -> None:
        self.source = source
        self._named = {topic: role for role, topic in named.items()}
        self.found = Survey(source.form, source.topics, find_roles(source.topics, named))
        roles, usable = self.found.roles, [t for t in source.topics if not t.problem]
        self.kinds = {topic.name: topic.kind for topic in source.topics}
        self.looked_at: Dict[str, Topic] = {
            topic.name: topic for topic in usable if topic.kind in (IMAGE, PACKED)}
        self.found.pictures = {
            topic.name: Picture(problem=topic.problem) for topic in source.topics
            if topic.problem and topic.kind in (IMAGE, PACKED)}
        self.takes: Dict[str, Callable[..., None]] = {
            topic.name: self._info for topic in usable if topic.kind == INFO}
        for role, take in (('command', self._command), ('joint_command', self._joint_command),
                           ('odometry', self._odometry), ('joint_states', self._joint_states),
                           ('scan', self._scan), ('tf', self._tf), ('tf_static', self._tf_static),
                           ('clock', self._clock), ('robot_description', self._urdf)):
            if roles.get(role):
                self.takes[roles.get(role)] = take
        if self.kinds.get(roles.get('command')) in (ACKERMANN, ACKERMANN_STAMPED):
            self.found.command = Track(2)
            self.found.command_names = ACKERMANN_NAMES
        self._num_tf = 0
        self._seen_infos: Dict[str, Set[bytes]] = {}

    def take(self, order: int, name: str, received_ns: int, stored: Any) -> None:
        """Take in one message."""
        found, stamp_ns = self.found, self.source.stamp_ns(name, stored)
        if name not in found.tracks:
            found.tracks[name] = Track()
            if name in self.looked_at:
                found.pictures[name] = self._look(name, stored)
        if name in self.takes and self.takes[name] != self._clock:
            self._read(order, name, received_ns, stamp_ns, stored)
        elif name in self.takes:
            try:
                stamp_ns = self._told(name, stored)
            except SpecError:
                return
        found.tracks[name].add(order, received_ns, stamp_ns)

    def _look(self, name: str, stored: Any) -> Picture:
        try:
            return look_at(self.looked_at[name], self.source.read(name, stored),
                           self._named.get(name, ''))
        except SpecError as error:
            return Picture(problem=str(error))

    def _read(self, order: int, name: str, received_ns: int, stamp_ns: int, stored: Any) -> None:
        take = self.takes[name]
        if take == self._scan and self.found.first_scan is not None:
            return
        try:
            take(self.source.read(name, stored), name, order, received_ns, stamp_ns)
        except Exception:  # of a foreign message any kind of error may come
            self.found.damaged[name] = self.found.damaged.get(name, 0) + 1

    def _told(self, name: str, stored: Any) -> int:
        clock = self.source.read(name, stored).clock
        return int(clock.sec) * 1_000_000_000 + int(clock.nanosec)

    def _clock(self, *_: Any) -> None:
        """Stand for ``/clock`` in ``takes``."""

    def _info(self, msg: Any, name: str, *_: int) -> None:
        self.found.infos.setdefault(name, msg)
        seen = self._seen_infos.setdefault(name, set())
        if len(seen) < 100:
            seen.add(np.concatenate([msg.k, msg.d, [msg.width, msg.height]]).tobytes())
        self.found.num_cameras[name] = len(seen)

    def _command(self, msg: Any, name: str, *when: int) -> None:
        kind = self.kinds[name]
        if kind in (ACKERMANN, ACKERMANN_STAMPED):
            drive = msg.drive if kind == ACKERMANN_STAMPED else msg
            values: Tuple[float, ...] = (drive.speed, drive.steering_angle)
        else:
            twist = msg.twist if kind == TWIST_STAMPED else msg
            linear, angular = twist.linear, twist.angular
            values = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
        if not np.isfinite(values).all():
            raise ValueError('a command that is not finite')
        self.found.command.add(*when, values=values)

    def _odometry(self, msg: Any, name: str, *when: int) -> None:
        position, q = msg.pose.pose.position, msg.pose.pose.orientation
        values = (position.x, position.y, position.z, q.x, q.y, q.z, q.w)
        if not np.isfinite(values).all() or not any(values[3:]):
            raise ValueError('a pose that is not finite')
        self.found.odometry_frames = (msg.header.frame_id.lstrip('/'),
                                      msg.child_frame_id.lstrip('/'))
        self.found.odometry.add(*when, values=values)

    def _joint_states(self, msg: Any, name: str, *when: int) -> None:
        _add_joints(self.found.joint_states, msg.name, msg.position, when)

    def _joint_command(self, msg: Any, name: str, *when: int) -> None:
        kind, joints = self.kinds[name], self.found.joint_command
        if kind == NUMBERS:
            prefix = name.strip('/').replace('/', '_')
            _add_joints(joints, [f'{prefix}_{i}' for i in range(len(msg.data))], msg.data, when)
        elif kind == TRAJECTORY:
            _add_trajectory(joints, msg, when)
        else:
            _add_joints(joints, msg.name, msg.position, when)
            _add_joints(joints, [f'{joint}.velocity' for joint in msg.name], msg.velocity, when)

    def _scan(self, msg: Any, *_: Any) -> None:
        self.found.first_scan = msg

    def _urdf(self, msg: Any, *_: Any) -> None:
        self.found.urdf = str(msg.data)

    def _tf(self, msg: Any, name: str, order: int, received_ns: int, _: int) -> None:
        tree = self.found.tree
        for transform in msg.transforms:
            tree.add(transform, order, received_ns, False)
        self._num_tf += 1
        if self._num_tf == NUM_TF_TO_KNOW:
            tree.keep((*(picture.frame for picture in self.found.pictures.values()),
                       *self.found.odometry_frames, tree.base(),
                       *(frame for frame in tree.frames
                         if any(word in frame for word in SENSOR_WORDS))))

    def _tf_static(self, msg: Any, name: str, order: int, received_ns: int, _: int) -> None:
        for transform in msg.transforms:
            self.found.tree.add(transform, order, received_ns, True)


def _add_joints(tracks: Dict[str, Track], names: Sequence[str], values: Sequence[float],
                when: Sequence[int]) -> None:
    """Add what is there: NaN says nothing of a joint."""
    for name, value in zip(names, values):
        if np.isfinite(value):
            tracks.setdefault(name, Track(1)).add(*when, values=(float(value),))


def _add_trajectory(tracks: Dict[str, Track], msg: Any, when: Sequence[int]) -> None:
    """Add a trajectory as the targets that it passes, and forget what an older one still had."""
    order, received_ns, stamp_ns = when
    after = np.array([p.time_from_start.sec * 1_000_000_000 + p.time_from_start.nanosec
                      for p in msg.points], np.int64)
    if not len(after) or (np.diff(after) <= 0).any() or after[-1] > MAX_TRAJECTORY_NS:
        raise ValueError('a trajectory whose times do not increase')
    targets = np.array([p.positions for p in msg.points], float).reshape(len(after), -1)
    for name, column in zip(msg.joint_names, targets.T):
        track = tracks.setdefault(name, Track(1))
        start = stamp_ns or received_ns
        track.cut(start, by_stamp=bool(stamp_ns))
        value = track.last if len(track) else column[0]
        times = np.unique(np.append(np.arange(0, after[-1], TRAJECTORY_STEP_NS), after[-1]))
        for time, target in zip(times.tolist(), np.interp(
                times, np.append(0, after), np.append(value, column)) if after[0] else np.interp(
                    times, after, column)):
            if np.isfinite(target):
                track.add(order, received_ns + time, stamp_ns + time if stamp_ns else 0,
                          values=(float(target),))
