# SPDX-License-Identifier: Apache-2.0
"""Videos on disk: an mp4 file, or a folder of pictures. NumPy and OpenCV, no torch."""
import os
from pathlib import Path
import tempfile
from typing import Iterable, NamedTuple, Tuple, Union

from lingbot_world_ros.errors import quoted, shown, SpecError
import numpy as np

CODEC = 'mp4v'
PICTURE = '{:06d}.png'


class WrittenClip(NamedTuple):
    """Where a video is; ``is_folder`` when it is pictures."""

    path: Path
    num_frames: int
    is_folder: bool


def check_target(out: Union[str, Path]) -> Path:
    """
    Refuse a place that no video can be written to, before there is one.

    :param out: a name that ends with .mp4, or of a folder that is empty or does not exist
    :return: the same
    :raises SpecError: it is taken or cannot be made
    """
    path = Path(out).expanduser()
    try:
        if path.suffix.lower() == '.mp4':
            if path.is_dir():
                raise SpecError(f'{quoted(path)} is a folder; choose another name for the video.')
            path.parent.mkdir(parents=True, exist_ok=True)
            _try_to_write(path.parent)
        elif path.suffix:
            raise SpecError(f'{quoted(path)} does not end with .mp4; give such a name or that of '
                            'a folder for pictures.')
        else:
            _make_folder(path)
            _try_to_write(path)
    except (OSError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f'{quoted(path)} cannot be written ({shown(error)}); choose another '
                        'place.') from error
    return path


def write_clip(out: Path, parts: Iterable[np.ndarray], frame_rate_hz: float) -> WrittenClip:
    """
    Write a video while it is imagined.

    :param out: from ``check_target``; where OpenCV cannot write mp4, pictures go to a folder of
        that name without its ending
    :param parts: (T, H, W, 3) uint8 RGB each
    :param frame_rate_hz: of the video; pictures do not have one
    :return: what was written
    :raises SpecError: a file cannot be written
    """
    sink, count = None, 0
    try:
        for frames in parts:
            if sink is None:
                sink = _sink(out, frames.shape[1:3], frame_rate_hz)
            for frame in frames:
                sink.add(np.ascontiguousarray(frame[..., ::-1]))
            count += len(frames)
    except BaseException:
        if sink is not None:
            sink.abandon()
        raise
    if sink is None:
        raise SpecError('the video has no frames; ask for at least 1.')
    return WrittenClip(sink.finish(), count, isinstance(sink, _Pictures))


def _sink(out: Path, size: Tuple[int, int], frame_rate_hz: float) -> Union['_Video', '_Pictures']:
    if out.suffix.lower() == '.mp4':
        video = _Video(out, size, frame_rate_hz)
        if video.is_open:
            return video
        video.abandon()
        out = out.with_suffix('')
        _make_folder(out)
    return _Pictures(out)


def _make_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise SpecError(f'the folder {quoted(path)} is not empty; choose another name for the '
                        'video.')


def _try_to_write(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass  # rights alone do not tell: read-only mounts, root


class _Video:
    """An mp4 file, which has its name only once it is whole."""

    def __init__(self, out: Path, size: Tuple[int, int], frame_rate_hz: float) -> None:
        import cv2
        self._out = out
        self._partial = out.with_name(f'.{out.stem}.partial{out.suffix}')
        self._writer = cv2.VideoWriter(str(self._partial), cv2.VideoWriter.fourcc(*CODEC),
                                       frame_rate_hz, size[::-1])

    @property
    def is_open(self) -> bool:
        return self._writer.isOpened()

    def add(self, bgr: np.ndarray) -> None:
        self._writer.write(bgr)

    def finish(self) -> Path:
        self._writer.release()
        if not self._partial.is_file() or not self._partial.stat().st_size:
            raise SpecError(f'{quoted(self._out)} cannot be written; is the disk full?')
        os.replace(self._partial, self._out)
        return self._out

    def abandon(self) -> None:
        self._writer.release()
        self._partial.unlink(missing_ok=True)


class _Pictures:
    """A folder of PNG files, one per frame."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0

    def add(self, bgr: np.ndarray) -> None:
        import cv2
        path = self._folder / PICTURE.format(self._count)
        if not cv2.imwrite(str(path), bgr):
            raise SpecError(f'{quoted(path)} cannot be written; is the disk full?')
        self._count += 1

    def finish(self) -> Path:
        return self._folder

    def abandon(self) -> None:
        """Keep the pictures that are there; each of them is whole."""
