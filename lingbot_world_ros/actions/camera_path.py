# SPDX-License-Identifier: Apache-2.0
"""
Camera paths of whole clips: recorded poses from files, and keys. NumPy only, no torch.

Axes of a camera are optical: x right, y down, z forward. A pose is that of the camera in the
world (camera-to-world).

Source: file layout, key language and steps per key as in LingBot-World v1.
"""
from dataclasses import dataclass
from pathlib import Path
import re
import tokenize
from typing import Optional, Sequence, Tuple, Union

from lingbot_world_ros.errors import quoted, shown, SpecError
from lingbot_world_ros.geometry import se3
from lingbot_world_ros.geometry.camera import PinholeCamera, require_pixels
from lingbot_world_ros.geometry.rotation import rotation_from_vector, vector_from_rotation
import numpy as np

FRAME_RATE_HZ = 16.0  # of the clips that paths are recorded for
FRAMES_PER_LATENT = 4  # of their videos; keys fill up whole latents after the first frame
INTRINSICS_HEIGHT_PX, INTRINSICS_WIDTH_PX = 480, 832  # of the image that intrinsics.npy speaks of
DEFAULT_INTRINSICS = (503.0, 503.0, 416.0, 240.0)  # like the public examples': 79 degrees across

KEYS = 'wasdijkl'
KEY_STEP = 0.05  # units per frame of w a s d
KEY_TURN_RAD = np.deg2rad(2.0)  # per frame of i j k l
MAX_PITCH_RAD = np.deg2rad(85.0)
KEY_THRESHOLD = 0.5  # of action arrays: pressed above it
KEY_RUN = re.compile(f'(none|[{KEYS}]+)-([0-9]{{1,6}})')

MAX_FRAMES = 100_000  # about 100 minutes
MAX_FILE_BYTES = 1 << 24
MAX_TEXT = 10_000  # characters of the key language
MAX_TRANSLATION = 1e6
ROTATION_TOLERANCE = 1e-2


@dataclass(frozen=True)
class CameraPath:
    """
    Where a camera is in each frame of a clip.

    ``poses`` (n, 4, 4) float64, camera-to-world, metres. ``intrinsics`` fx, fy, cx, cy in pixels
    of an 832 x 480 image, from its corner, None where they are not known. ``keys`` (n, 4) float32
    in the order w a s d, 0 or 1, None where there are none; the models with keys (act) take them.
    """

    poses: np.ndarray
    intrinsics: Optional[Tuple[float, float, float, float]] = None
    frame_rate_hz: float = FRAME_RATE_HZ
    keys: Optional[np.ndarray] = None

    def __len__(self) -> int:
        return len(self.poses)

    def motion(self, first_frame: int, num_frames: int) -> np.ndarray:
        """
        Return how the camera moves from frame to frame.

        :param first_frame: the first motion leads from it to the one after; at least 0
        :param num_frames: T
        :return: (T, 4, 4) float64 camera after a frame seen from the one before, metres; the
            identity after the end of the path
        """
        wanted = np.arange(first_frame, first_frame + num_frames + 1)
        poses = self.poses[np.minimum(wanted, len(self) - 1)]
        motion = se3.inverse(poses[:-1]) @ poses[1:]
        motion[wanted[1:] >= len(self)] = np.eye(4)  # free of rounding
        return motion

    def at_rate(self, frame_rate_hz: float) -> 'CameraPath':
        """
        Return the same path at another frame rate; it takes as long, to within one frame.

        :param frame_rate_hz: of the frames to come
        """
        if frame_rate_hz == self.frame_rate_hz:
            return self
        if not 0 < frame_rate_hz < np.inf:
            raise SpecError(f'frame rate {frame_rate_hz} Hz of a camera path must be more than 0.')
        stride = self.frame_rate_hz / frame_rate_hz
        count = int((len(self) - 1) / stride + 1e-9) + 1
        if count > MAX_FRAMES:
            raise SpecError(f'camera path of {count} frames at {frame_rate_hz} Hz: at most '
                            f'{MAX_FRAMES} are taken.')
        at = np.arange(count) * stride
        keys = None if self.keys is None else self.keys[at.astype(int)]
        return CameraPath(interpolate(self.poses, at), self.intrinsics, frame_rate_hz, keys)


def video_camera(intrinsics: Optional[Sequence[float]], width_px: int,
                 height_px: int) -> PinholeCamera:
    """
    Take intrinsics of an 832 x 480 image to a video's size.

    :param intrinsics: fx, fy, cx, cy as in ``intrinsics.npy``; None takes those of the public
        examples
    :param width_px: of the video
    :param height_px: of the video
    :return: the camera
    """
    fx, fy, cx, cy = map(float, DEFAULT_INTRINSICS if intrinsics is None else intrinsics)
    across, down = width_px / INTRINSICS_WIDTH_PX, height_px / INTRINSICS_HEIGHT_PX
    return PinholeCamera.from_corner(width_px, height_px,
                                     (fx * across, fy * down, cx * across, cy * down))


def interpolate(poses: np.ndarray, at: np.ndarray) -> np.ndarray:
    """
    Read a path between its poses: translations along straight lines, rotations at constant speed.

    :param poses: (n, 4, 4)
    :param at: (m,) positions from 0 to n - 1
    :return: (m, 4, 4) float64
    """
    at = np.clip(np.asarray(at, np.float64), 0, len(poses) - 1)
    low = np.minimum(at.astype(int), max(len(poses) - 2, 0))
    high = np.minimum(low + 1, len(poses) - 1)
    part = at - low
    T = np.array(poses, np.float64)[low]
    T[:, :3, 3] += part[:, None] * (poses[high][:, :3, 3] - T[:, :3, 3])
    turn = T[:, :3, :3].swapaxes(1, 2) @ poses[high][:, :3, :3]
    T[:, :3, :3] = T[:, :3, :3] @ rotation_from_vector(part[:, None] * vector_from_rotation(turn))
    return T


def keys_to_path(text: str, metres_per_unit: float = 1.0) -> CameraPath:
    """
    Turn keys held for so many frames into a path.

    w and s move forward and back, a and d to the left and right, j and l turn there, i and k look
    up and down; letters together are held together. Each frame turns (2 degrees) and then moves
    (0.05 units, level) along the new direction. Pitch stays within 85 degrees.

    :param text: for example ``'w-10,a-10,iw-15,none-10'``
    :param metres_per_unit: length of the unit
    :return: path that begins at the identity; keyless frames fill up to 4n + 1 frames of keys,
        one pose more
    :raises SpecError: for a text in another language
    """
    runs = [_key_run(part) for part in _checked_text(text).split(',')]
    total = sum(count for _, count in runs)
    if not 1 <= total <= MAX_FRAMES - FRAMES_PER_LATENT:
        raise SpecError(f'keys {quoted(text)} last {total} frames: use 1 to '
                        f'{MAX_FRAMES - FRAMES_PER_LATENT}.')
    pressed = np.zeros((total + (1 - total) % FRAMES_PER_LATENT, len(KEYS)), bool)
    frame = 0
    for held, count in runs:
        pressed[frame:frame + count] = [key in held for key in KEYS]
        frame += count
    return path_of_keys(pressed, metres_per_unit)


def path_of_keys(pressed: np.ndarray, metres_per_unit: float = 1.0) -> CameraPath:
    """
    Move a camera by the keys held in each frame.

    :param pressed: (N, 8) bool in the order w a s d i j k l
    :param metres_per_unit: length of the unit
    :return: path of N + 1 poses, from the identity on
    """
    w, a, s, d, i, j, k, l_key = np.asarray(pressed, np.float64).T
    yaw = np.cumsum(KEY_TURN_RAD * (l_key - j))
    pitch = _clamped_sum(KEY_TURN_RAD * (i - k), MAX_PITCH_RAD)
    poses = np.tile(np.eye(4), (len(pressed) + 1, 1, 1))
    zero = np.zeros_like(yaw)
    poses[1:, :3, :3] = (rotation_from_vector(np.stack([zero, yaw, zero], -1))
                         @ rotation_from_vector(np.stack([pitch, zero, zero], -1)))
    forward = np.stack([np.sin(yaw), zero, np.cos(yaw)], -1)  # level, whatever the pitch
    right = np.stack([np.cos(yaw), zero, -np.sin(yaw)], -1)
    steps = (w - s)[:, None] * forward + (d - a)[:, None] * right
    poses[1:, :3, 3] = KEY_STEP * metres_per_unit * np.cumsum(steps, 0)
    held = np.concatenate([np.asarray(pressed)[:, :4], np.zeros((1, 4), bool)])
    return CameraPath(poses, keys=held.astype(np.float32))


def read_camera_path(folder_or_file: Union[str, Path], metres_per_unit: float = 1.0,
                     frame_rate_hz: float = FRAME_RATE_HZ) -> CameraPath:
    """
    Read a recorded path.

    A folder holds ``poses.npy`` (n, 4, 4) and may hold ``intrinsics.npy`` (n, 4) or (4,), of which
    the first row counts, and ``action.npy`` or ``wasd_action.npy`` (n, 4) with the keys w a s d.
    Without poses, ``wasd_action.npy`` and ``ijkl_action.npy`` make the path.

    :param folder_or_file: such a folder, or a file like ``poses.npy``
    :param metres_per_unit: length of the unit of the poses
    :param frame_rate_hz: of the poses
    :return: the path
    :raises SpecError: missing, too large, or not what it should be
    """
    if not 0 < metres_per_unit < np.inf:
        raise SpecError(f'metres_per_unit={metres_per_unit} of a camera path must be more than 0.')
    if not 0 < frame_rate_hz < np.inf:
        raise SpecError(f'frame rate {frame_rate_hz} Hz of a camera path must be more than 0.')
    path = _existing(folder_or_file)
    if _is_file(path):
        return CameraPath(_poses(path, metres_per_unit), frame_rate_hz=frame_rate_hz)
    intrinsics, keys = _intrinsics(path / 'intrinsics.npy'), _keys(path)
    if not _is_file(path / 'poses.npy'):
        made = _path_of_key_files(path, metres_per_unit)
        return CameraPath(made.poses, intrinsics, frame_rate_hz, made.keys)
    poses = _poses(path / 'poses.npy', metres_per_unit)
    if keys is not None and len(keys) < len(poses):
        raise SpecError(f'{shown(path)}: keys for {len(keys)} frames but {len(poses)} poses; '
                        'record both for the same frames.')
    keys = None if keys is None else keys[:len(poses)]
    return CameraPath(poses, intrinsics, frame_rate_hz, keys)


def _checked_text(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise SpecError(f'keys {quoted(text)} have more than {MAX_TEXT} characters.')
    return text


def _key_run(part: str) -> Tuple[str, int]:
    """Return the letters and frames of one part such as ``iw-15``."""
    match = KEY_RUN.fullmatch(part.strip())
    if not match:
        raise SpecError(f'keys {quoted(part)} are not <keys>-<frames> with keys out of {KEYS} or '
                        'none; for example w-10,iw-15,none-10.')
    keys, count = match.groups()
    return '' if keys == 'none' else keys, int(count)


def _clamped_sum(steps: np.ndarray, limit: float) -> np.ndarray:
    """Return the running sum, leaving out steps that would take it beyond the limit."""
    sums, total = np.empty(len(steps)), 0.0
    for i, step in enumerate(steps):
        if abs(total + step) <= limit + 1e-9:
            total += step
        sums[i] = total
    return sums


def _existing(folder_or_file: Union[str, Path]) -> Path:
    try:
        path = Path(folder_or_file).expanduser()
        found = path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise SpecError(f'camera path {quoted(folder_or_file)} is no usable path.') from error
    if not found:
        raise SpecError(f'camera path {quoted(path)} does not exist; give a folder with poses.npy '
                        'or such a file.')
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # of a folder that may not be entered
        return False


def _load(path: Path) -> np.ndarray:
    """Read one array of numbers, without trusting what its header says."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SpecError(f'{shown(path)} is larger than {MAX_FILE_BYTES >> 20} MB; camera '
                            'paths are not.')
        # A map of the file cannot be larger than the file, whatever shape the header claims.
        array = np.lib.format.open_memmap(path, mode='r')
        if array.dtype.kind not in 'fiub':
            raise ValueError(f'it holds {array.dtype}')
        return np.array(array, np.float64)
    except SpecError:
        raise
    except (OSError, ValueError, TypeError, OverflowError, MemoryError, SyntaxError,
            tokenize.TokenError) as error:
        raise SpecError(f'{shown(path)} is no readable .npy file of numbers ({shown(error)}); '
                        'write it with numpy.save.') from error


def _poses(path: Path, metres_per_unit: float) -> np.ndarray:
    poses = _load(path)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not 1 <= len(poses) <= MAX_FRAMES:
        raise SpecError(f'{shown(path)} has shape {poses.shape}, not (n, 4, 4) with 1 to '
                        f'{MAX_FRAMES} poses.')
    if not np.isfinite(poses).all() or np.abs(poses[:, :3, 3]).max() > MAX_TRANSLATION:
        raise SpecError(f'{shown(path)} holds numbers that are not finite or beyond '
                        f'{MAX_TRANSLATION:g}.')
    R = poses[:, :3, :3]
    off = np.abs(R @ R.swapaxes(1, 2) - np.eye(3)).max((1, 2))
    bottom = np.abs(poses[:, 3] - [0, 0, 0, 1]).max(1)
    wrong = (np.maximum(off, bottom) > ROTATION_TOLERANCE) | (np.linalg.det(R) < 0)
    if wrong.any():
        raise SpecError(f'{shown(path)}: pose {int(np.argmax(wrong))} is no rotation and '
                        'translation; expected camera-to-world matrices with 0 0 0 1 below.')
    poses[:, :3, :3] = rotation_from_vector(vector_from_rotation(R))  # as exact as float64 is
    poses[:, :3, 3] *= metres_per_unit
    poses[:, 3] = [0, 0, 0, 1]
    return poses


def _intrinsics(path: Path) -> Optional[Tuple[float, float, float, float]]:
    if not _is_file(path):
        return None
    rows = np.atleast_2d(_load(path))
    if rows.ndim != 2 or rows.shape[1] != 4 or not len(rows):
        raise SpecError(f'{shown(path)} has shape {rows.shape}, not (n, 4) with fx, fy, cx, cy.')
    first = rows[0]
    if not np.isfinite(first).all() or first[:2].min() <= 0 or np.abs(first).max() > 1e6:
        raise SpecError(f'{shown(path)} begins with {first.tolist()}; expected fx, fy, cx, cy in '
                        f'pixels of a {INTRINSICS_WIDTH_PX} x {INTRINSICS_HEIGHT_PX} image.')
    fx, fy, cx, cy = map(float, first)
    require_pixels(fx, fy, shown(path))
    return fx, fy, cx, cy


def _key_columns(path: Path) -> np.ndarray:
    columns = _load(path)
    if columns.ndim != 2 or columns.shape[1] != 4 or not 1 <= len(columns) <= MAX_FRAMES:
        raise SpecError(f'{shown(path)} has shape {columns.shape}, not (n, 4) with 1 to '
                        f'{MAX_FRAMES} frames of four keys.')
    return columns > KEY_THRESHOLD


def _keys(folder: Path) -> Optional[np.ndarray]:
    for name in ('action.npy', 'wasd_action.npy'):
        if _is_file(folder / name):
            return _key_columns(folder / name).astype(np.float32)
    return None


def _path_of_key_files(folder: Path, metres_per_unit: float) -> CameraPath:
    if not _is_file(folder / 'wasd_action.npy'):
        raise SpecError(f'{shown(folder)} has neither poses.npy nor wasd_action.npy; give a '
                        'folder with one of them.')
    moves = _key_columns(folder / 'wasd_action.npy')
    turns = np.zeros_like(moves)
    if _is_file(folder / 'ijkl_action.npy'):
        turns = _key_columns(folder / 'ijkl_action.npy')
    if len(turns) != len(moves):
        raise SpecError(f'{shown(folder)}: {len(moves)} frames of wasd but {len(turns)} of ijkl; '
                        'record both for the same frames.')
    return path_of_keys(np.concatenate([moves, turns], 1), metres_per_unit)
