# SPDX-License-Identifier: Apache-2.0
"""A recorded or typed camera path, played in the sim time of a world. No ROS."""
from dataclasses import dataclass, replace

from lingbot_world_ros.actions.camera_path import CameraPath, keys_to_path, read_camera_path
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.paths import find_file
import numpy as np

KEYS = 'keys:'  # what a path of keys begins with
STEP_FRAMES = 4  # of a path, over which LingBot-World measures its largest step


def open_path(given: str, metres_per_unit: float, metres_per_step: float) -> CameraPath:
    """
    Read the path that a user names.

    :param given: folder with ``poses.npy``, such a file (path or URL), or ``keys:`` and keys, for
        example ``'keys:w-32,wl-16,none-16'``
    :param metres_per_unit: length of the unit of the path; 0 chooses it so that the largest step
        over four frames has the length ``metres_per_step``
    :param metres_per_step: metres, more than 0
    :return: the path, metres
    :raises SpecError: missing, too large, or not what it should be
    """
    scale = metres_per_unit or 1.0
    if given.startswith(KEYS):
        path = keys_to_path(given[len(KEYS):], scale)
    else:
        path = read_camera_path(find_file(given, 'camera_path') if '://' in given else given,
                                scale)
    if metres_per_unit:
        return path
    steps = np.diff(path.poses[::STEP_FRAMES, :3, 3], axis=0)
    largest = np.linalg.norm(steps, axis=-1).max(initial=0.0)
    if not largest > 0.0:
        return path
    poses = path.poses.copy()
    poses[:, :3, 3] *= metres_per_step / largest
    return replace(path, poses=poses)


@dataclass(frozen=True)
class CameraPlayback:
    """
    A path from the first frame of a world on; one pose per frame, at rest after the last.

    ``start_ns`` is the sim time of the reset, one ``period_ns`` before the first frame.
    """

    path: CameraPath
    start_ns: int
    period_ns: int

    @classmethod
    def begin(cls, path: CameraPath, frame_rate_hz: float, start_ns: int) -> 'CameraPlayback':
        """
        Play a path in a world that starts over.

        :param path: at any frame rate
        :param frame_rate_hz: of the world
        :param start_ns: sim time of the reset
        """
        return cls(path.at_rate(frame_rate_hz), start_ns, round(1e9 / frame_rate_hz))

    def motion(self, sim_ns: int, num_frames: int) -> np.ndarray:
        """
        Return what the camera does in the frames that follow.

        :param sim_ns: sim time of the newest frame
        :param num_frames: T
        :return: (T, 4, 4) float64 optical frame after each frame seen from the one before, metres
        """
        return self.path.motion(self._frame(sim_ns), num_frames)

    def has_ended(self, sim_ns: int) -> bool:
        """Tell whether the frame of that time, or one before it, was the last of the path."""
        return self._frame(sim_ns) >= len(self.path) - 1

    def _frame(self, sim_ns: int) -> int:
        """Return the index of the newest frame since the reset."""
        return max(0, round((sim_ns - self.start_ns) / self.period_ns) - 1)


def require_free_camera(parameter: str, engine: str, is_free: bool) -> None:
    """
    Look whether an engine's camera can be moved at all.

    :param parameter: name of the one that asks for it
    :param engine: its name
    :param is_free: whether its camera follows any motion
    :raises SpecError: it does not
    """
    if not is_free:
        raise SpecError(f'{parameter}: the camera of engine {engine!r} stays where it is; leave '
                        f'{parameter} empty, or take an engine with a free camera.')
