# SPDX-License-Identifier: Apache-2.0
"""
Bags: rosbag2 folders with an MCAP file inside, written and read with rosbags. No rclpy.

``ros2 bag play`` and Foxglove read what ``BagWriter`` writes, also when the disk was full before
it was done.
"""
from contextlib import suppress
import os
from pathlib import Path
import shutil
import struct
from typing import Any, BinaryIO, Callable, Dict, Iterator, Literal, Optional, Sequence, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.paths import pip_install
from lingbot_world_ros.plain_yaml import read_yaml, Tree, YamlError
from lingbot_world_ros.recording.definitions import message_definition

FORMAT: Literal[8] = 8  # of metadata.yaml; the newest that Humble reads, and everything after it
MAGIC = b'\x89MCAP0\r\n'
DATA_END, FOOTER = 0x0f, 0x02
SUFFIXES = ('.mcap', '.db3')
MAX_NODES = 1_000_000  # of metadata.yaml; about 25 for each topic


def require_rosbags() -> None:
    """
    Look for the library behind bags before anything else is done.

    :raises SpecError: it is not installed
    """
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError as error:
        raise SpecError(f'Recordings need the Python package rosbags ({error}): '
                        f'{pip_install("rosbags")}.') from error


class BagWriter:
    """One recording being made; one thread at a time may use it."""

    def __init__(self, target: Path):
        """
        Create the folder.

        :param target: where to; must not exist. A name that ends in .mcap becomes that file, which
            lies in the folder ``<name>.part`` until it is done
        :raises SpecError: it exists, or cannot be written
        """
        from rosbags.rosbag2 import StoragePlugin, Writer
        self.target = Path(target)
        self._is_file = self.target.suffix == '.mcap'
        self.folder = (self.target.with_name(f'{self.target.name}.part') if self._is_file
                       else self.target)
        self._path = self.folder / f'{self.folder.name}.mcap'
        self.num_messages = self.num_bytes = 0
        self._is_flushed = True
        self._topics: Dict[str, Any] = {}
        self._notes: Dict[str, str] = {}
        self._stamp_ns = 0
        for path in {self.target, self.folder}:
            if os.path.lexists(path):  # says no to names that cannot be
                raise SpecError(f'{path} exists already; name another one with -o, or delete it.')
        try:
            self._writer: Any = Writer(self.folder, version=FORMAT,
                                       storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except OSError as error:
            with suppress(OSError):  # there may be none
                self.folder.rmdir()
            raise SpecError(f'{self.target} cannot be written ({error.strerror}); name another '
                            'place with -o.') from error

    def add_topic(self, topic: str, msg_type: str, *, reliable: bool = True,
                  latched: bool = False) -> None:
        """
        Announce a topic, with its definition.

        :param topic: absolute name
        :param msg_type: for example ``'nav_msgs/msg/Odometry'``
        :param reliable: quality of service in which it shall be played back
        :param latched: the last message is for late joiners too
        :raises SpecError: the definition of the type is not installed
        """
        from rosbags.interfaces import (Qos, QosDurability, QosHistory, QosLiveliness,
                                        QosReliability, QosTime)
        definition, digest = message_definition(msg_type)
        qos = Qos(QosHistory.KEEP_LAST, 1 if latched else 10,
                  QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
                  QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
                  QosTime(0, 0), QosTime(0, 0), QosLiveliness.AUTOMATIC, QosTime(0, 0), False)
        self._topics[topic] = self._writer.add_connection(
            topic, msg_type, msgdef=definition, rihs01=digest, offered_qos_profiles=[qos])

    def note(self, key: str, text: str) -> None:
        """
        Keep a text about the recording, in ``custom_data`` of its metadata.yaml.

        :param key: what it is called there
        :param text: replaces an earlier one of that key
        """
        self._notes[key] = text
        self._writer.set_custom_data(key, text)

    def write(self, topic: str, stamp_ns: int, cdr: bytes) -> None:
        """
        Append a message.

        :param topic: one that was added
        :param stamp_ns: when it was received, system time; the order of writing is kept should
            that clock jump back
        :param cdr: the message as it travelled
        :raises SpecError: the disk is full or gone; what was written before stays readable
        """
        self._stamp_ns = max(self._stamp_ns + 1, stamp_ns)
        try:
            self._writer.write(self._topics[topic], self._stamp_ns, cdr)
        except OSError as error:
            raise self._broken_off(error) from error
        self.num_messages += 1
        self.num_bytes += len(cdr)
        self._is_flushed = False

    def flush(self) -> None:
        """
        Hand what was written so far to the system, where it outlives this process.

        rosbags collects a megabyte before it does, which for small messages takes long.

        :raises SpecError: the disk is full or gone; what was written before stays readable
        """
        storage: Any = None if self._writer is None else self._writer.storage
        if self._is_flushed or not hasattr(storage, 'close_chunk'):
            return
        try:
            storage.close_chunk()
            storage.bio.flush()
        except OSError as error:
            raise self._broken_off(error) from error
        self._is_flushed = True

    def close(self) -> None:
        """
        Finish the file; a recording without a message is removed.

        :raises SpecError: the disk is full or gone, what was written before stays readable; or
            the file exists now, the recording lies beside it
        """
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            raise self._broken_off(error) from error
        self._writer = None
        if not self.num_messages:
            shutil.rmtree(self.folder)
        else:
            self._finish()

    def _finish(self) -> None:
        """
        Put a file in the place it was asked for.

        :raises SpecError: somebody else has put something there meanwhile
        """
        if self._is_file:
            if os.path.lexists(self.target):
                raise SpecError(f'{self.target} was made meanwhile by another program; the '
                                f'recording is {self._path}.')
            self._path.replace(self.target)
            shutil.rmtree(self.folder)

    def _broken_off(self, error: OSError) -> SpecError:
        """Save what can be saved, and say so."""
        writer, self._writer = self._writer, None
        with suppress(OSError):  # it tries once more to write what did not fit
            writer.abort()
        try:
            end_file(self._path)
            num_messages = _write_metadata(self._path, self._topics, self._notes)
            self._finish()
            rest = f'the first {num_messages} of {self.num_messages} messages are kept.'
        except (OSError, SpecError) as lost:
            rest = f'and what was written could not be finished ({lost}).'
        return SpecError(f'Recording to {self.target} ended: {error.strerror}; {rest}')


def end_file(path: Path) -> None:
    """
    Give an MCAP file that broke off an end, after its last whole record.

    :param path: the file
    :raises SpecError: it does not even begin well
    """
    with path.open('r+b') as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise SpecError(f'{path} holds nothing.')
        ends = list(_record_ends(file))
        while ends:
            file.truncate(ends[-1])  # makes room for the end, should the disk be full
            file.seek(ends.pop())
            try:
                file.write(struct.pack('<BQI', DATA_END, 4, 0)
                           + struct.pack('<BQQQI', FOOTER, 20, 0, 0, 0) + MAGIC)
                file.flush()
                return os.fsync(file.fileno())
            except OSError:
                file.detach()  # forget what did not fit
                file = path.open('r+b')
    raise SpecError(f'{path} holds nothing.')


def _record_ends(file: BinaryIO) -> Iterator[int]:
    """Yield where each whole record of the data section ends."""
    size, position = os.fstat(file.fileno()).st_size, len(MAGIC)
    while position + 9 <= size:
        file.seek(position)
        kind, length = struct.unpack('<BQ', file.read(9))
        position += 9 + length
        if position > size or kind == DATA_END:
            return
        yield position


def _write_metadata(path: Path, announced: Dict[str, Any], notes: Dict[str, str]) -> int:
    """Write metadata.yaml for a file that was ended by ``end_file``; return its messages."""
    from rosbags.rosbag2.metadata import dump_qos_v8
    import yaml
    with BagReader(path) as bag:
        reader: Any = bag.reader  # of a ROS 2 bag, in rosbags' types it may be any
        times = {'duration': {'nanoseconds': max(0, reader.duration)},
                 'starting_time': {'nanoseconds_since_epoch': reader.start_time}}
        topics = [{'message_count': c.msgcount, 'topic_metadata': {
            'name': c.topic, 'type': c.msgtype, 'serialization_format': 'cdr',
            'offered_qos_profiles': dump_qos_v8(c.ext.offered_qos_profiles),
            'type_description_hash': announced[c.topic].digest}} for c in reader.connections]
        count = reader.message_count
    about = {'version': FORMAT, 'storage_identifier': 'mcap', 'relative_file_paths': [path.name],
             **times, 'message_count': count, 'topics_with_message_count': topics,
             'compression_format': '', 'compression_mode': '', 'custom_data': notes or None,
             'files': [{'path': path.name, **times, 'message_count': count}],
             'ros_distro': 'rosbags'}
    (path.parent / 'metadata.yaml').write_text(yaml.safe_dump(
        {'rosbag2_bagfile_information': about}, sort_keys=False))
    return count


class BagReader:
    """A recording to read from; a context manager."""

    def __init__(self, path: Path):
        """
        Note where it is.

        :param path: a rosbag2 folder, or an ``.mcap`` file
        """
        self.path = Path(path)

    def __enter__(self) -> 'BagReader':
        from rosbags.rosbag2 import Reader
        path = self.path
        if not os.path.exists(path):  # also where the name cannot be one
            raise SpecError(f'There is no recording {path}; give the folder that "lingbot-world '
                            'record" named, or the .mcap file in it.')
        if path.is_dir() and not (path / 'metadata.yaml').exists():
            files = [file for file in path.iterdir() if file.suffix in SUFFIXES]
            if len(files) != 1:
                raise SpecError(f'{path} is not a recording: it has neither metadata.yaml nor '
                                'exactly one .mcap file.')
            path = files[0]
        if path.is_file() and path.suffix not in SUFFIXES:
            raise SpecError(f'{path} is not a recording; give the folder that "lingbot-world '
                            'record" named, or the .mcap file in it.')
        try:
            self.reader = Reader(path)
            self.reader.open()
        except Exception as error:  # of a foreign file any kind of error may come
            raise self._unreadable(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()

    def topics(self, msg_type: str) -> list:
        """Return the names of all topics of a type, sorted."""
        return sorted({c.topic for c in self.reader.connections if c.msgtype == msg_type})

    @property
    def notes(self) -> dict:
        """Texts about the recording by key, as ``BagWriter.note`` keeps them."""
        try:
            text = (self.path / 'metadata.yaml').read_text()
            about: Tree = read_yaml(text, max_nodes=MAX_NODES)
        except (OSError, UnicodeError, YamlError):
            return {}  # an .mcap file, or none of ours
        for key in ('rosbag2_bagfile_information', 'custom_data'):
            about = about.get(key, '') if isinstance(about, dict) else ''
        return {key: str(value) for key, value in about.items()} if isinstance(about, dict) else {}

    def messages(self, *topics: str) -> Iterator[Tuple[str, object]]:
        """
        Read messages in the order in which they were recorded.

        :param topics: names of those to read
        :return: topic and message, its fields as attributes
        :raises SpecError: the file is damaged
        """
        for topic, _, msg in self.received(*topics):
            yield topic, msg

    def received(self, *topics: str, start_ns: Optional[int] = None,
                 stop_ns: Optional[int] = None) -> Iterator[Tuple[str, int, object]]:
        """
        Read messages and when each was received, in the order in which they were recorded.

        :param topics: names of those to read
        :param start_ns: first moment, system time; None is the beginning
        :param stop_ns: first moment that is not read any more; None is the end
        :return: topic, nanoseconds of system time, or of sim time where the recorder took that
            ("ros2 bag record --use-sim-time"), and message
        :raises SpecError: the file is damaged
        """
        readers: Dict[str, Callable[[bytes], Any]] = {}
        try:
            for connection in self.reader.connections:
                if connection.topic in topics:
                    readers[connection.msgtype] = message_reader(connection)
            for connection, at_ns, cdr in self._stored(topics, start_ns, stop_ns):
                yield connection.topic, at_ns, readers[connection.msgtype](cdr)
        except SpecError:
            raise
        except Exception as error:  # of a damaged file any kind of error may come
            raise self._unreadable(error) from error

    def stored(self, topics: Sequence[str]) -> Iterator[Tuple[str, int, bytes]]:
        """
        Read messages as they travelled, in the order in which they were recorded.

        :param topics: names of those to read
        :return: topic, nanoseconds of the recorder's clock, message
        :raises SpecError: the file is damaged
        """
        try:
            for connection, at_ns, cdr in self._stored(topics, None, None):
                yield connection.topic, at_ns, cdr
        except Exception as error:  # of a damaged file any kind of error may come
            raise self._unreadable(error) from error

    def _stored(self, topics: Sequence[str], start_ns: Optional[int],
                stop_ns: Optional[int]) -> Iterator[Tuple[Any, int, bytes]]:
        """
        Yield messages as they lie in the file.

        Not by time, which is sim time in some recordings: that stands still between frames and
        goes back with each reset, where the order in the file is still that of recording.
        """
        storage: Any = self.reader.storage
        for part in getattr(storage, 'storages', [storage]):
            chosen = [c for c in part.connections if c.topic in topics]
            if not chosen:
                continue
            if getattr(getattr(storage, 'metadata', None), 'compression_mode', '') == 'message':
                wanted = [c for c in self.reader.connections if c.topic in topics]
                yield from self.reader.messages(wanted, start_ns, stop_ns)
                return
            if hasattr(part, 'messages_scan'):  # MCAP
                yield from part.messages_scan(chosen, start_ns, stop_ns)
            else:
                yield from _rows(part, chosen, start_ns, stop_ns)

    def _unreadable(self, error: Exception) -> SpecError:
        hint = ('the recorder did not get to end it ("mcap recover" saves what is there)'
                if 'end magic' in str(error) else
                'it is damaged, or no recording of ROS 2 messages')
        told = ' '.join(str(error).split())  # a YAML error has several lines
        return SpecError(f'{self.path} cannot be read: {hint}. {type(error).__name__}: {told}')


def message_reader(connection: Any) -> Callable[[bytes], Any]:
    """
    Make what reads the messages of a topic.

    :param connection: of rosbags; bags of Humble hold no definitions, then that of the installed
        package is taken, or the one that rosbags knows
    :return: message, its fields as attributes, of its bytes
    :raises SpecError: the definition is neither in the bag nor here
    """
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores
    from rosbags.typesys.store import Typestore
    name, given = connection.msgtype, connection.msgdef
    store = Typestore()
    if given.format == MessageDefinitionFormat.IDL:
        store.register(get_types_from_idl(given.data))
    elif given.data:
        store.register(get_types_from_msg(given.data, name))
    else:
        try:
            store.register(get_types_from_msg(message_definition(name)[0], name))
        except SpecError:
            store = get_typestore(Stores.LATEST)
            if name not in store.types:
                raise
    return lambda cdr: store.deserialize_cdr(cdr, name)


def _rows(database: Any, chosen: Sequence[Any], start_ns: Optional[int],
          stop_ns: Optional[int]) -> Iterator[Tuple[Any, int, bytes]]:
    """Yield the messages of a .db3 file in the order in which they were put in."""
    of_topic = {connection.id: connection for connection in chosen}
    rows = database.dbconn.execute('SELECT topic_id, timestamp, data FROM messages ORDER BY id')
    for topic, at_ns, cdr in rows:
        if topic in of_topic and (start_ns is None or start_ns <= at_ns) and (
                stop_ns is None or at_ns < stop_ns):
            yield of_topic[topic], at_ns, cdr
