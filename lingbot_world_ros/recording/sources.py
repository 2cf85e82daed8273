# SPDX-License-Identifier: Apache-2.0
"""
Recordings of all kinds as streams of ROS messages: what ``align`` and ``inspect`` read.

Bags are here; Donkey tubs (``tubs``) and LeRobot data sets (``lerobot``) offer the same. A source
hands out messages as they are stored, in the order of recording; they are deserialised by
whoever wants to know more than their stamps. No rclpy.
"""
import os
from pathlib import Path
import re
import shutil
import struct
from tempfile import TemporaryDirectory
from typing import Any, Callable, Dict, Iterator, List, Optional, Protocol, Sequence, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.recording.bag import (BagReader, end_file, MAGIC, message_reader,
                                             SUFFIXES)
from lingbot_world_ros.recording.lerobot import is_dataset, LeRobotSource
from lingbot_world_ros.recording.topic import Topic
from lingbot_world_ros.recording.tubs import is_tub, TubSource

STAMP = {True: struct.Struct('<iI'), False: struct.Struct('>iI')}  # by whether little-endian
CDR_HEADER_BYTES = 4
# Types that begin with a std_msgs/Header.
HEADED = frozenset((
    'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/CameraInfo',
    'sensor_msgs/msg/JointState', 'sensor_msgs/msg/LaserScan', 'sensor_msgs/msg/Imu',
    'sensor_msgs/msg/PointCloud2', 'nav_msgs/msg/Odometry', 'geometry_msgs/msg/TwistStamped',
    'geometry_msgs/msg/PoseStamped', 'geometry_msgs/msg/PoseWithCovarianceStamped',
    'trajectory_msgs/msg/JointTrajectory', 'ackermann_msgs/msg/AckermannDriveStamped'))


class Source(Protocol):
    """A recording, opened; also a context manager that closes it."""

    path: Path
    form: str  # what kind of recording it is, in words
    topics: Tuple[Topic, ...]

    def __enter__(self) -> 'Source':
        """Open it."""

    def __exit__(self, *_: object) -> None:
        """Close it."""

    def stored(self, names: Sequence[str]) -> Iterator[Tuple[str, int, Any]]:
        """
        Yield messages in the order of recording, the same in every call.

        :param names: of the topics to read
        :return: topic, when it was received [ns], and what ``stamp_ns`` and ``read`` take, which
            holds until the next one
        :raises SpecError: the recording is damaged
        """

    def stamp_ns(self, name: str, stored: Any) -> int:
        """Return the stamp of a message's header, 0 where it has none."""

    def read(self, name: str, stored: Any) -> Any:
        """
        Return a message, its fields as attributes.

        :raises SpecError: it is damaged
        """


def name_of(path: Path) -> str:
    """Return what a recording is called: its file or folder, without ``.mcap`` and the like."""
    path = Path(os.path.abspath(path))
    return re.sub(r'(\.(mcap|db3|tar|gz|tgz|zstd))+$', '', path.name) or 'recording'


def open_source(path: Path) -> Source:
    """
    Find out what kind of recording something is.

    :param path: rosbag2 folder, ``.mcap`` or ``.db3`` file, Donkey tub or a ``.tar.gz`` of one,
        LeRobot data set
    :return: the source, to be entered by the caller
    :raises SpecError: there is nothing, or nothing of these
    """
    path = Path(path)
    if not os.path.exists(path):  # also where the name cannot be one
        raise SpecError(f'There is no recording {path}.')
    for is_one, make in _kinds():
        if is_one(path):
            return make(path)
    raise SpecError(f'{path} is no recording: give a rosbag2 folder, an .mcap or .db3 file, a '
                    'Donkey tub or a LeRobot data set.')


def is_recording(path: Path) -> bool:
    """Tell whether there is something that may be a recording."""
    path = Path(path)
    return os.path.exists(path) and any(is_one(path) for is_one, _ in _kinds())


def _kinds() -> List[Tuple[Callable[[Path], bool], Callable[[Path], Source]]]:
    """Return how each kind is known, and opened."""
    return [(is_dataset, LeRobotSource), (is_bag, BagSource), (is_tub, TubSource)]


def is_bag(path: Path) -> bool:
    """Tell whether something may be a bag by its name, or by that of the files in it."""
    if path.is_file():
        return path.suffix in SUFFIXES or path.name == 'metadata.yaml'
    return (path / 'metadata.yaml').exists() or bool(_parts(path))


def _parts(folder: Path) -> List[Path]:
    """Return the files of a bag without metadata.yaml, in the order of their numbers."""
    return sorted((file for file in folder.iterdir() if file.suffix in SUFFIXES),
                  key=lambda file: [int(part) if part.isdigit() else part
                                    for part in re.split(r'(\d+)', file.name)])


def _is_cut(path: Path) -> bool:
    """Tell whether an MCAP file lacks its end: its recorder was killed, or its disk full."""
    if path.suffix != '.mcap' or path.stat().st_size < 2 * len(MAGIC):
        return False
    with path.open('rb') as file:
        begins = file.read(len(MAGIC)) == MAGIC
        file.seek(-len(MAGIC), os.SEEK_END)
        return begins and file.read() != MAGIC


class BagSource:
    """A rosbag2 folder, also one that lost its metadata.yaml, or one of its files."""

    def __init__(self, path: Path) -> None:
        """
        Note where it is.

        :param path: folder or file
        """
        self.path = path.parent if path.name == 'metadata.yaml' else path
        self.form = 'bag'
        self.topics: Tuple[Topic, ...] = ()
        self._bags: List[BagReader] = []
        self._copies: Optional[TemporaryDirectory] = None
        self._readers: Dict[str, Callable[[bytes], Any]] = {}
        self._kinds: Dict[str, str] = {}

    def __enter__(self) -> 'BagSource':
        files = _parts(self.path) if self.path.is_dir() else [self.path]
        is_cut = any(map(_is_cut, files))
        if self.path.is_dir() and (self.path / 'metadata.yaml').exists() and not is_cut:
            files = [self.path]
        try:
            for file in files:
                self._bags.append(BagReader(self._whole(file)).__enter__())
        except BaseException:
            self.__exit__()
            raise
        self.form = _form(self._bags) + (', broken off: read as far as it goes' if is_cut else '')
        self.topics = self._found()
        return self

    def __exit__(self, *_: object) -> None:
        for bag in self._bags:
            bag.__exit__()
        self._bags = []
        if self._copies is not None:
            self._copies.cleanup()
            self._copies = None

    def _whole(self, file: Path) -> Path:
        """Return a file that can be read: itself, or a copy that has an end."""
        if not _is_cut(file):
            return file
        if self._copies is None:
            self._copies = TemporaryDirectory()
        copy = Path(self._copies.name) / file.name
        try:
            shutil.copyfile(file, copy)
        except OSError as error:
            raise SpecError(f'{file} was broken off, and there is no room for a copy to read it '
                            f'from ({error.strerror}).') from error
        end_file(copy)
        return copy

    def _found(self) -> Tuple[Topic, ...]:
        """Collect topics of all files, and what reads their messages."""
        connections: Dict[str, List[Any]] = {}
        for bag in self._bags:
            for connection in bag.reader.connections:
                connections.setdefault(connection.topic, []).append(connection)
        topics, readers = [], {}
        for name, found in sorted(connections.items()):
            kind, problem = found[0].msgtype, ''
            if len({connection.msgtype for connection in found}) > 1:
                problem = 'it has messages of several types'
            elif kind not in readers:
                with_text = [connection for connection in found if connection.msgdef.data]
                try:
                    readers[kind] = message_reader((with_text or found)[0])
                except Exception as error:  # of a foreign definition any kind may come
                    problem = ' '.join(str(error).split())
            topics.append(Topic(name, kind, sum(c.msgcount for c in found), problem))
        self._readers = readers
        self._kinds = {topic.name: topic.kind for topic in topics}
        return tuple(topics)

    def stored(self, names: Sequence[str]) -> Iterator[Tuple[str, int, bytes]]:
        """Yield messages, see ``Source``."""
        for bag in self._bags:
            yield from bag.stored(names)

    def stamp_ns(self, name: str, stored: bytes) -> int:
        """Return the stamp of a message's header, 0 where it has none."""
        if self._kinds[name] not in HEADED or len(stored) < CDR_HEADER_BYTES + 8:
            return 0
        sec, nanosec = STAMP[bool(stored[1] & 1)].unpack_from(stored, CDR_HEADER_BYTES)
        return int(sec) * 1_000_000_000 + int(nanosec)

    def read(self, name: str, stored: bytes) -> Any:
        """Return a message, see ``Source``."""
        try:
            return self._readers[self._kinds[name]](stored)
        except Exception as error:  # of a damaged message any kind of error may come
            told = ' '.join(str(error).split())
            raise SpecError(f'{self.path}: a message of {name} cannot be read '
                            f'({type(error).__name__}: {told}).') from error


def _form(bags: Sequence[BagReader]) -> str:
    """Say how a bag is stored."""
    reader: Any = bags[0].reader
    inner = getattr(reader.storage, 'storages', None) or [reader.storage]
    storage = 'sqlite3' if 'Sqlite' in type(inner[0]).__name__ else 'MCAP'
    mode: Optional[str] = getattr(reader, 'compression_mode', None)
    files = sum(len(getattr(bag.reader.storage, 'storages', [0])) for bag in bags)
    packed = f', zstd by {mode}' if mode else ''
    return f'rosbag2 ({storage}{packed}, {files} file{"s"[:files != 1]})'
