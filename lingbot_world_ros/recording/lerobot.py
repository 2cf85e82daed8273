# SPDX-License-Identifier: Apache-2.0
"""
LeRobot data sets (v2.0, v2.1, v3.0) as recordings: parquet, and pictures in it or as video.

Every episode is a stretch of its own. ``action`` counts as a joint command and
``observation.state`` as joint states, both by the names of the data set. pyarrow, and PyAV or
OpenCV for videos, are imported when they are needed.
"""
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.paths import pip_install
from lingbot_world_ros.recording.roles import IMAGE, JOINTS, PACKED
from lingbot_world_ros.recording.topic import header_at, Topic
import numpy as np

INFO = Path('meta') / 'info.json'
VERSIONS = ('v2.0', 'v2.1', 'v3.0')
PAUSE_NS = 10_000_000_000  # between episodes
BATCH = 32  # rows that are held, with their pictures
ACTION, STATE = 'action', 'observation.state'
STORED_ACTION, STORED_STATE = '/joint_command/action', '/joint_states/observation_state'


def is_dataset(path: Path) -> bool:
    """Tell whether a folder is a data set."""
    return path.is_dir() and (path / INFO).exists()


class LeRobotSource:
    """A LeRobot data set; see ``sources.Source``."""

    def __init__(self, path: Path) -> None:
        """
        Note where it is.

        :param path: folder that holds ``meta/info.json``
        """
        self.path = path
        self.form = 'LeRobot data set'
        self.topics: Tuple[Topic, ...] = ()
        self._info: Dict[str, Any] = {}
        self._columns: Set[str] = set()
        self._features: Dict[str, str] = {}  # topic -> name of its column or video
        self._files: List[Path] = []
        self._videos: Dict[Tuple[str, int], Tuple[Path, float]] = {}
        self._decoder: Optional[_Video] = None
        self._parquet: Any = None

    def __enter__(self) -> 'LeRobotSource':
        self._parquet = _pyarrow()
        try:
            self._info = json.loads((self.path / INFO).read_text())
            version, fps = self._info['codebase_version'], float(self._info['fps'])
            features = self._info['features'].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpecError(f'{self.path / INFO} is none of LeRobot ({error!r}).') from error
        if version not in VERSIONS or not 0.0 < fps < 1000.0:
            raise SpecError(f'{self.path} is a LeRobot data set of version {version!r} at '
                            f'{fps:g} Hz; {", ".join(VERSIONS)} are read.')
        self._files = sorted((self.path / 'data').rglob('*.parquet'))
        if not self._files:
            raise SpecError(f'{self.path} has no data/*/*.parquet.')
        self.form = f'LeRobot data set {version}'
        with self._errors():
            heads = [self._parquet.ParquetFile(file) for file in self._files]
            count = sum(head.metadata.num_rows for head in heads)
            self._columns = set(heads[0].schema_arrow.names)
            self._videos = self._find_videos(version, [
                name for name, feature in features if feature.get('dtype') == 'video'])
        self.topics = tuple(sorted((
            topic for name, feature in features
            for topic in self._topic(name, feature, count)), key=lambda topic: topic.name))
        return self

    def __exit__(self, *_: object) -> None:
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder.close()

    def _errors(self) -> '_Damage':
        return _Damage(self.path)

    def _topic(self, name: str, feature: Mapping[str, Any], count: int) -> Iterator[Topic]:
        """Yield the topic that stands for a column, if one does."""
        kind = feature.get('dtype')
        topic = {ACTION: STORED_ACTION, STATE: STORED_STATE}.get(name)
        if kind != 'video' and name not in self._columns:
            return
        if topic:
            self._features[topic] = name
            yield Topic(topic, JOINTS, count)
        elif kind in ('image', 'video'):
            topic = '/' + name.replace('.', '/')
            self._features[topic] = name
            is_depth = (feature.get('info') or {}).get('is_depth_map') or (
                feature.get('video_info') or {}).get('video.is_depth_map')
            problem = ''
            if kind == 'video':
                files = [path for (key, _), (path, _) in self._videos.items() if key == name]
                missing = next((path for path in files if not path.is_file()), None)
                problem = 'depth as video is not read' if is_depth else (
                    f'its video {missing.name} is missing' if missing else '')
            yield Topic(topic, IMAGE if kind == 'video' else PACKED, count, problem)

    def _find_videos(self, version: str, keys: Sequence[str]) -> Dict[
            Tuple[str, int], Tuple[Path, float]]:
        """Return the file of each camera and episode, and when the episode begins in it [s]."""
        found: Dict[Tuple[str, int], Tuple[Path, float]] = {}
        if not keys:
            return found
        template = str(self._info['video_path'])
        if version != 'v3.0':
            files = {(file.parent.name, file.stem): file
                     for file in (self.path / 'videos').rglob('*.mp4')}
            for episode in range(int(self._info['total_episodes'])):
                chunk = episode // int(self._info.get('chunks_size', 1000))
                for key in keys:  # some data sets lie elsewhere than they say
                    told = self._inside(template.format(
                        episode_chunk=chunk, episode_index=episode, video_key=key))
                    found[key, episode] = told if told.exists() else files.get(
                        (key, told.stem), told), 0.0
            return found
        for file in sorted((self.path / 'meta' / 'episodes').rglob('*.parquet')):
            columns = ['episode_index'] + [f'videos/{key}/{what}' for key in keys for what in (
                'chunk_index', 'file_index', 'from_timestamp')]
            for row in self._parquet.read_table(file, columns=columns).to_pylist():
                for key in keys:
                    chunk, number, start_s = (row[f'videos/{key}/{what}'] for what in (
                        'chunk_index', 'file_index', 'from_timestamp'))
                    found[key, row['episode_index']] = self._inside(template.format(
                        video_key=key, chunk_index=chunk, file_index=number)), float(start_s)
        return found

    def _inside(self, relative: str) -> Path:
        """Return a file of the data set; what was sent by somebody opens no others."""
        path = self.path / relative
        if '..' in path.parts or Path(relative).is_absolute():
            raise ValueError(f'{relative!r} is outside of the data set')
        return path

    def _names(self, feature: str) -> List[str]:
        """Return what the numbers of a column are called."""
        names = self._info['features'][feature].get('names')
        if isinstance(names, dict):
            names = [name for group in names.values()
                     for name in (group if isinstance(group, list) else [])]
        size = int(np.prod(self._info['features'][feature].get('shape') or [1]))
        if not isinstance(names, list) or len(names) != size:
            return [f'{feature.rpartition(".")[2]}_{i}' for i in range(size)]
        return [str(name) for name in names]

    def stored(self, names: Sequence[str]) -> Iterator[Tuple[str, int, Any]]:
        """Yield messages, see ``Source``; commands before the images of their moment."""
        wanted = sorted((name for name in names if name in self._features),
                        key=lambda name: name not in (STORED_ACTION, STORED_STATE))
        columns = ['episode_index'] + [
            self._features[name] for name in wanted
            if self._info['features'][self._features[name]]['dtype'] != 'video']
        period_ns = 1e9 / float(self._info['fps'])
        time_ns, episode, frame, start_ns = 0, None, 0, 0
        for row in self._rows(columns):
            if row['episode_index'] != episode:
                episode, frame, start_ns = row['episode_index'], 0, time_ns + PAUSE_NS
            row['frame_index'] = frame  # not every data set counts them itself
            time_ns = start_ns + round(frame * period_ns)
            frame += 1
            for name in wanted:
                yield name, time_ns, (time_ns, row)

    def _rows(self, columns: Sequence[str]) -> Iterator[Dict[str, Any]]:
        with self._errors():
            for number, path in enumerate(self._files):
                with self._parquet.ParquetFile(path) as file:
                    for batch in file.iter_batches(BATCH, columns=list(columns)):
                        for row in batch.to_pylist():
                            row.setdefault('episode_index', number)
                            yield row

    def stamp_ns(self, name: str, stored: Any) -> int:
        """Return the stamp of a frame."""
        return int(stored[0])

    def read(self, name: str, stored: Any) -> Any:
        """Return a message, see ``Source``."""
        time_ns, row = stored
        feature, header = self._features[name], header_at(time_ns)
        if name in (STORED_ACTION, STORED_STATE):
            values = np.atleast_1d(np.asarray(row[feature], float)).ravel()
            return SimpleNamespace(header=header, name=self._names(feature), position=values,
                                   velocity=())
        header.frame_id = feature
        if self._info['features'][feature]['dtype'] == 'image':
            data = row[feature]['bytes']
            if data is None:
                raise SpecError(f'{self.path}: {feature} holds the path of a picture, not itself.')
            return SimpleNamespace(header=header, format='png',
                                   data=np.frombuffer(data, np.uint8))
        return self._frame(feature, row, header)

    def _frame(self, feature: str, row: Mapping[str, Any], header: Any) -> Any:
        path, start_s = self._videos[feature, row['episode_index']]
        index = round(start_s * float(self._info['fps'])) + int(row['frame_index'])
        if self._decoder is None or self._decoder.path != path:
            self.__exit__()
            self._decoder = _Video(path)
        rgb = self._decoder.frame(index)
        return SimpleNamespace(header=header, height=rgb.shape[0], width=rgb.shape[1],
                               encoding='rgb8', is_bigendian=0, step=3 * rgb.shape[1],
                               data=np.ascontiguousarray(rgb).ravel())


class _Damage:
    """Turns what a damaged file raises into one sentence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, SpecError):
            told = ' '.join(str(error).split())
            raise SpecError(f'{self.path} cannot be read: it is damaged, or no LeRobot data set '
                            f'({type(error).__name__}: {told}).') from error


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SpecError(f'LeRobot data sets need the Python package pyarrow ({error}): '
                        f'{pip_install("pyarrow")}.') from error
    return parquet


class _Video:
    """A video whose frames are asked for in their order."""

    def __init__(self, path: Path) -> None:
        """
        Open it.

        :param path: of the file
        :raises SpecError: it cannot be decoded here
        """
        self.path = path
        if not path.is_file():
            raise SpecError(f'{path} is missing.')
        self._frames = self._decoded()
        self._next = 0

    def _decoded(self) -> Iterator[np.ndarray]:
        """Yield all frames, by PyAV where it is installed: it knows more codecs."""
        try:
            import av
        except ImportError:
            yield from self._by_opencv()
            return
        with av.open(str(self.path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format='rgb24')

    def _by_opencv(self) -> Iterator[np.ndarray]:
        import cv2
        video = cv2.VideoCapture(str(self.path))
        try:
            while True:
                is_there, bgr = video.read()
                if not is_there:
                    return
                yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        finally:
            video.release()

    def frame(self, index: int) -> np.ndarray:
        """
        Return a frame.

        :param index: in the file
        :return: (h, w, 3) uint8 rgb
        :raises SpecError: it is not there
        """
        if index < self._next:
            self.close()
            self._frames, self._next = self._decoded(), 0
        for rgb in self._frames:
            self._next += 1
            if self._next > index:
                return rgb
        raise SpecError(f'{self.path} has no frame {index} that can be decoded here; '
                        f'{pip_install("av")} brings more codecs.')

    def close(self) -> None:
        """Let go of the file."""
        self._frames.close()  # type: ignore[attr-defined]
