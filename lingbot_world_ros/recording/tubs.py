# SPDX-License-Identifier: Apache-2.0
"""
Donkey tubs as recordings: manifest and catalogs, or a ``record_*.json`` for each frame.

Steering is told as a turn to the left, so with its sign changed, and both commands as the car
takes them: -1 to 1, not m/s and rad/s. Frames that their owner marked as deleted are bad driving,
not bad pictures, and stay.
"""
import json
from pathlib import Path
import re
import tarfile
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.recording.roles import PACKED, TWIST_STAMPED
from lingbot_world_ros.recording.topic import header_at, Topic
import numpy as np

IMAGES, COMMANDS = '/cam/image_array', '/user/command'
NOMINAL_HZ = 20.0  # of the car's loop, where stamps are none
MIN_PERIOD_MS = 10.0  # stamps that are closer were written later, by a program
ARCHIVES = ('.tar.gz', '.tgz', '.tar')
MAX_ARCHIVE_BYTES = 8 << 30
MANIFEST = 'manifest.json'


def is_tub(path: Path) -> bool:
    """Tell whether something looks like a tub, or may be one that was packed."""
    if path.is_file():
        return path.name.endswith(ARCHIVES)
    return (path / MANIFEST).exists() or next(path.glob('record_*.json'), None) is not None


class TubSource:
    """A tub; see ``sources.Source``."""

    def __init__(self, path: Path) -> None:
        """
        Note where it is.

        :param path: folder, or a tar of one
        """
        self.path = path
        self.form = 'Donkey tub'
        self.topics: Tuple[Topic, ...] = ()
        self._folder = path
        self._unpacked: Optional[TemporaryDirectory] = None
        self._records: List[Dict[str, Any]] = []
        self._times_ns = np.zeros(0, np.int64)

    def __enter__(self) -> 'TubSource':
        try:
            if self.path.is_file():
                self._unpack()
            self._records, is_old, num_damaged = _records(self._folder)
        except BaseException as error:
            self.__exit__()
            if isinstance(error, (OSError, tarfile.TarError, EOFError)):
                told = ' '.join(str(error).split())
                raise SpecError(f'{self.path} cannot be read ({told}).') from error
            raise
        if not self._records:
            self.__exit__()
            raise SpecError(f'{self.path} is no Donkey tub with frames.')
        self._times_ns, is_stamped = _times(self._records)
        self.form = f'Donkey tub, {"one file a frame" if is_old else "catalogs"}' + (
            '' if is_stamped else f', without sane stamps: {NOMINAL_HZ:g} Hz assumed') + (
                f', {num_damaged} records damaged' if num_damaged else '')
        count = len(self._records)
        self.topics = Topic(IMAGES, PACKED, count), Topic(COMMANDS, TWIST_STAMPED, count)
        return self

    def __exit__(self, *_: object) -> None:
        unpacked, self._unpacked = self._unpacked, None
        if unpacked is not None:
            unpacked.cleanup()

    def _unpack(self) -> None:
        """Put the files of an archive into one folder, whatever folders they were in."""
        self._unpacked = TemporaryDirectory()
        self._folder = Path(self._unpacked.name)
        num_bytes = 0
        with tarfile.open(self.path) as archive:
            for member in archive:
                name = member.name.rpartition('/')[2]
                if not member.isfile() or name.startswith('.'):
                    continue
                num_bytes += member.size
                if num_bytes > MAX_ARCHIVE_BYTES:
                    raise SpecError(f'{self.path} unpacks to more than '
                                    f'{MAX_ARCHIVE_BYTES >> 30} GiB; unpack it yourself.')
                content = archive.extractfile(member)
                assert content is not None, 'it is a file'
                (self._folder / name).write_bytes(content.read())

    def stored(self, names: Sequence[str]) -> Iterator[Tuple[str, int, int]]:
        """Yield messages, see ``Source``."""
        for i, time_ns in enumerate(self._times_ns.tolist()):
            for name in (COMMANDS, IMAGES):
                if name in names:
                    yield name, time_ns, i

    def stamp_ns(self, name: str, stored: int) -> int:
        """Return the stamp of a frame."""
        return int(self._times_ns[stored])

    def read(self, name: str, stored: int) -> Any:
        """Return a message, see ``Source``."""
        record = self._records[stored]
        header = header_at(self.stamp_ns(name, stored))
        if name == COMMANDS:
            return SimpleNamespace(header=header, twist=_twist(record))
        file = str(record.get('cam/image_array', '')).replace('\\', '/').rpartition('/')[2]
        for path in (self._folder / 'images' / file, self._folder / file):
            if file and path.is_file():
                return SimpleNamespace(header=header, format='jpeg',
                                       data=np.frombuffer(path.read_bytes(), np.uint8))
        raise SpecError(f'{self.path}: image {file!r} is missing.')


def _twist(record: Dict[str, Any]) -> SimpleNamespace:
    """Return what drove the car: its user, or the pilot where that was at the wheel."""
    by_pilot = record.get('user/mode', 'user') != 'user'
    values = []
    for what in ('throttle', 'angle'):
        pilot, user = record.get(f'pilot/{what}'), record.get(f'user/{what}', 0.0)
        is_steered = what == 'angle' or record.get('user/mode') == 'local'
        values.append(float(pilot if by_pilot and is_steered and pilot is not None else user))
    return SimpleNamespace(linear=SimpleNamespace(x=values[0], y=0.0, z=0.0),
                           angular=SimpleNamespace(x=0.0, y=0.0, z=-values[1]))


def _number(path: Path) -> int:
    found = re.search(r'(\d+)', path.name)
    return int(found.group()) if found else 0


def _records(folder: Path) -> Tuple[List[Dict[str, Any]], bool, int]:
    """Return the records of all frames in their order, whether in the old form, and the lost."""
    catalogs = sorted((p for p in folder.glob('*.catalog') if not p.name.startswith('.')),
                      key=_number)
    texts: List[bytes] = []
    if catalogs:
        for catalog in catalogs:
            texts += catalog.read_bytes().splitlines()
    else:
        texts = [p.read_bytes() for p in sorted(folder.glob('record_*.json'), key=_number)]
    records, num_damaged = [], 0
    for text in texts:
        try:
            record = json.loads(text)
            _twist(record)
            records.append(record)
        except (ValueError, TypeError, AttributeError):
            num_damaged += 1
    if catalogs:
        records.sort(key=lambda record: int(record.get('_index', 0)))
    return records, not catalogs, num_damaged


def _times(records: Sequence[Dict[str, Any]]) -> Tuple[np.ndarray, bool]:
    """Return when frames were, (n,) int64 ns, and whether their stamps say so."""
    keys = [key for key in ('_timestamp_ms', 'milliseconds')
            if all(isinstance(record.get(key), (int, float)) for record in records)]
    if keys:
        stamps = np.array([record[keys[0]] for record in records], float)
        if len(stamps) < 2 or np.median(np.diff(stamps)) >= MIN_PERIOD_MS:
            return np.rint(1e6 * (stamps - stamps[0])).astype(np.int64) + int(
                stamps[0]) * 1_000_000, True
    return np.rint(1e9 / NOMINAL_HZ * np.arange(len(records))).astype(np.int64) + int(1e9), False
