# SPDX-License-Identifier: Apache-2.0
"""
A recording at a steady rate: what a robot saw, was told and did, frame by frame.

A folder of .npy files beside ``aligned.json``, opened without being read. Axes: n frame, h w
image, a action, j joint, r beam. NumPy only.
"""
from dataclasses import asdict, dataclass, field
import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import PinholeCamera
import numpy as np

FORMAT = 1
ABOUT = 'aligned.json'
HEADER_BYTES = 128  # of an .npy file; its shape is known last
# file -> dtype; the first axis is n
ARRAYS = {'rgb': np.uint8, 'action': np.float32, 'depth': np.float32, 'base_pose': np.float64,
          'T_base_optical': np.float64, 'joint_position': np.float64, 'scan': np.float32}


@dataclass(frozen=True)
class AlignedRecording:
    """
    One recording; arrays are None where it has nothing of the kind.

    ``action[i]`` was in force from frame i on, until frame i + 1: the newest command not later
    than the frame. Everything else is the newest sample not later than the frame, and frames lie
    ``1 / rate_hz`` apart. ``segments`` are the stretches without a gap, each (begin, end); nothing
    crosses their borders. ``base_pose`` is odometry, or ``map`` where TF has it (``pose_frame``);
    it is planar, so height and tilt of the base are in ``T_base_optical``. A camera in a hand is
    its own base.
    """

    name: str  # of the recording
    rate_hz: float
    segments: Tuple[Tuple[int, int], ...]
    rgb: np.ndarray  # (n, h, w, 3) uint8
    action_names: Tuple[str, ...] = ()  # linear_x, linear_y, angular_z, then joints
    action: Optional[np.ndarray] = None  # (n, a) float32, as commanded: m/s, rad/s or normalised
    camera: Optional[PinholeCamera] = None  # of ``rgb``, rectified
    depth: Optional[np.ndarray] = None  # (n, h, w) float32, metres along the optical axis, 0 none
    base_pose: Optional[np.ndarray] = None  # (n, 3) float64 x, y [m], yaw [rad, not wrapped]
    T_base_optical: Optional[np.ndarray] = None  # (n, 4, 4) float64, or (1, 4, 4): it never moved
    joint_names: Tuple[str, ...] = ()
    joint_position: Optional[np.ndarray] = None  # (n, j) float64 rad or m
    scan: Optional[np.ndarray] = None  # (n, r) float32 metres, inf: nothing there; nan: no scan
    scan_geometry: Tuple[float, ...] = ()  # angle of first beam, step [rad], x, y, yaw in base
    pose_frame: str = ''  # odom, map or world
    about: Mapping[str, Any] = field(default_factory=dict)  # source, topics, what was dropped

    @property
    def num_frames(self) -> int:
        """Frames of all segments."""
        return len(self.rgb)

    @property
    def size_px(self) -> Tuple[int, int]:
        """Width and height of the pictures."""
        return self.rgb.shape[2], self.rgb.shape[1]


def is_aligned(path: Path) -> bool:
    """Tell whether a path is the folder of an aligned recording."""
    return (Path(path) / ABOUT).is_file()


def load_aligned(folder: Path) -> AlignedRecording:
    """
    Open an aligned recording; arrays are memory-mapped.

    :param folder: as ``AlignedWriter`` made it
    :return: the recording
    :raises SpecError: it is none, or of another format
    """
    path = Path(folder) / ABOUT
    try:
        told: Dict[str, Any] = json.loads(path.read_text())
        if told.pop('format') != FORMAT:
            raise SpecError(f'{path} is of another version; align the recording again.')
        arrays: Dict[str, Any] = {name: np.load(path.parent / f'{name}.npy', mmap_mode='r')
                                  for name in told.pop('arrays')}
        camera = told.pop('camera')
        tuples: Dict[str, Any] = {name: tuple(told.pop(name)) for name in (
            'action_names', 'joint_names', 'scan_geometry')}
        segments = tuple((int(a), int(b)) for a, b in told.pop('segments'))
        return AlignedRecording(camera=PinholeCamera(**camera) if camera else None,
                                segments=segments, **arrays, **tuples, **told)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(f'{folder} holds no aligned recording ({error!r}).') from error


class AlignedWriter:
    """Makes the folder of an ``AlignedRecording``, frame by frame; ``close`` makes it whole."""

    def __init__(self, folder: Path) -> None:
        """
        Create the folder.

        :param folder: must be new or empty
        """
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._files: Dict[str, Any] = {}
        self._shapes: Dict[str, Tuple[int, ...]] = {}
        self.num_frames = 0

    def add(self, **values: np.ndarray) -> None:
        """
        Append a frame.

        :param values: one row of each of ``ARRAYS`` that the recording has, the same ones always
        """
        for name, value in values.items():
            if name not in self._files and self.num_frames:
                raise ValueError(f'{name} was not in the first frame')
        if self.num_frames and set(values) != set(self._files):
            raise ValueError(f'missing: {sorted(set(self._files) - set(values))}')
        first = self.num_frames
        for name, value in values.items():
            self.put(first, name, np.asarray(value)[None])

    def put(self, first: int, name: str, rows: np.ndarray) -> None:
        """
        Write frames of one array, in any order; what is never written is 0.

        :param first: index of the first of them
        :param name: one of ``ARRAYS``
        :param rows: (m, ...) for as many frames
        """
        rows = np.ascontiguousarray(rows, ARRAYS[name])
        if name not in self._files:
            self._files[name] = (self.folder / f'{name}.npy').open('w+b')
            self._shapes[name] = rows.shape[1:]
        if rows.shape[1:] != self._shapes[name]:
            raise ValueError(f'{name} has shape {rows.shape[1:]}, not {self._shapes[name]}')
        self._files[name].seek(HEADER_BYTES + first * self._row_bytes(name))
        self._files[name].write(rows.data)
        self.num_frames = max(self.num_frames, first + len(rows))

    def _row_bytes(self, name: str) -> int:
        return int(np.prod(self._shapes[name], dtype=np.int64)) * np.dtype(ARRAYS[name]).itemsize

    def close(self, *, camera: Optional[PinholeCamera] = None, T_base_optical: Optional[
            np.ndarray] = None, **about: Any) -> AlignedRecording:
        """
        Write what holds for all frames, and open the result.

        :param camera: of the pictures
        :param T_base_optical: (4, 4) of a camera that never moved
        :param about: the other fields of ``AlignedRecording`` that are no arrays
        :return: the recording
        """
        names: List[str] = []
        for name, file in self._files.items():
            file.truncate(HEADER_BYTES + self.num_frames * self._row_bytes(name))
            file.seek(0)
            file.write(_header(ARRAYS[name], (self.num_frames, *self._shapes[name])))
            file.close()
            names.append(name)
        if T_base_optical is not None:
            np.save(self.folder / 'T_base_optical.npy', np.asarray(T_base_optical)[None])
            names.append('T_base_optical')
        told = {'segments': [[0, self.num_frames]], 'action_names': (), 'joint_names': (),
                'scan_geometry': (), **about}
        (self.folder / ABOUT).write_text(json.dumps({
            'format': FORMAT, 'arrays': names, 'camera': asdict(camera) if camera else None,
            **told}, indent=2) + '\n')
        return load_aligned(self.folder)


def _header(dtype: Any, shape: Tuple[int, ...]) -> bytes:
    """Write how an .npy file begins, in ``HEADER_BYTES`` whatever the shape."""
    text = repr({'descr': np.lib.format.dtype_to_descr(np.dtype(dtype)), 'fortran_order': False,
                 'shape': shape})
    size = HEADER_BYTES - 10
    return b'\x93NUMPY\x01\x00' + size.to_bytes(2, 'little') + text.ljust(
        size - 1).encode() + b'\n'
