# SPDX-License-Identifier: Apache-2.0
"""
A learned place to be judged by a recording: found in it, then driven by commands alone.

Axes: n rows or frames, h w image, a action, j joint.
"""
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from lingbot_world_ros.engines.interface import Observation, State
from lingbot_world_ros.engines.registry import LEARNED, make_world
from lingbot_world_ros.engines.rows import at_rest
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.evaluation.metrics import mean_squared_error, wrap_angle
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.geometry.camera import MountedCamera
from lingbot_world_ros.models.mapped.distances import load_distances
from lingbot_world_ros.models.mapped.localise import follow, locate, Located
from lingbot_world_ros.models.mapped.motion import path
from lingbot_world_ros.models.mapped.registration import Points, upright_points
from lingbot_world_ros.models.mapped.runtime import FREE, load_place, Place, read_motion
from lingbot_world_ros.models.mapped.surfaces import body_mask
from lingbot_world_ros.recording.aligned import AlignedRecording
from lingbot_world_ros.recording.columns import commands_of, joints_of
from lingbot_world_ros.recording.mount import levelled, mounted_camera
from lingbot_world_ros.worlds.learned import read_learned
import numpy as np

NUM_VIEWS, VIEWS_S = 6, 20.0  # that a start is found by, and how long it may take
TURNED_RAD, MOVED_M = 0.25, 0.25  # between these views
SPOT_M, ROOM_M = 0.1, 0.1  # where a robot can be: a grid, and how near to what stands there
NUM_ELSEWHERE = 8  # other places that pictures are compared with
MAX_UNLIKE = 0.55  # RMS error of pictures, by that of other places: more, and it is another room
GAIN = (0.5, 2.0)  # of exposure, between recordings of one place
MIN_FOLLOWED = 0.5  # share of frames
SAME_PLACE_M, SAME_TURN_RAD, SAME_FOCAL = 0.03, np.deg2rad(1.5), 0.01  # of cameras
MAX_BODY = 0.5  # share of the picture that the robot can hide; more, and it just stood still
Say = Callable[[str, int, int], None]


class MappedImagining:
    """A mapped world as ``evaluation.learned.Imagining``, for one recording."""

    def __init__(self, folder: Path, recording: AlignedRecording,
                 say: Say = lambda what, done, total: None) -> None:
        """
        Load a world, and find the recording in it.

        :param folder: of the world
        :param recording: with depth and commands
        :param say: called with what is done, and how much of it
        :raises SpecError: the recording lacks something, or is of another place
        """
        about = read_learned(folder)
        _check(recording, float(about['rate_hz']))
        view = _Sight(recording)
        self.motion = read_motion(about['motion'])
        self.world = make_world(LEARNED.name, world=str(folder))
        camera = view.camera_like(self.world.spec.camera)
        if camera is not self.world.spec.camera:
            self.world = make_world(LEARNED.name, world=str(folder), camera=camera)
        self.spec = self.world.spec
        self.world.reset(self.spec.scenes[0], 0, render=False)
        self.num_context = self.motion.delay_frames + 2
        self.familiar = float(about['uncertainty']['calibrated_to'])
        commands = commands_of(recording)
        self._commands, self._twists = commands, self.motion.twists(commands)
        self.joints = _joints(recording, self.spec.robot)  # (n, j)
        self._names = recording.action_names
        odometry = recording.base_pose
        self._odometry = np.asarray(odometry, np.float64) if odometry is not None else path(
            self._twists, 1.0 / recording.rate_hz)[:-1]
        self.pose = np.full((recording.num_frames, 3), np.nan)  # where the recording was
        self.found: Dict[str, Any] = {'odometry': odometry is not None}
        self.pieces = self._find(folder, recording, view, say)
        self._rows: List[Any] = []
        self._started = np.zeros(0, int)  # frames
        self._action: Optional[np.ndarray] = None  # told, not yet driven
        self._driven = np.zeros((0, 3))  # poses

    def reset_from(self, recording: AlignedRecording, begins: np.ndarray, seed: int) -> None:
        """Start rows; see ``Imagining``. Nothing is random."""
        self._started = np.asarray(begins) + self.num_context - 1
        self._rows, self._action = [], None
        for start in self._started.tolist():
            self.world.reset(self.spec.scenes[0], 0, render=False)
            for t in range(self.motion.delay_frames, 0, -1):  # what is under way
                self.world.step(self._columns(self._commands[start - t], {}), render=False)
            known = at_rest(self._state(start))
            known.base_twist[0, 0] = self._twists[start - 1]
            known.joint_velocity[0, 0] = (self.joints[start] - self.joints[start - 1]
                                          ) * self.spec.frame_rate_hz
            self.world.observe(known, render=False)
            self._rows.append(self.world.snapshot())
        self._driven = self.pose[self._started].copy()

    def starts(self, recording: AlignedRecording, begins: np.ndarray) -> List[Any]:
        """
        Start rows, and say where they are.

        :param recording: as ``reset_from`` takes it
        :param begins: (n,) as ``reset_from`` takes them
        :return: for each, what the engine of this world takes as one of its ``starts``
        """
        self.reset_from(recording, begins, 0)
        return [row for (row,) in self._rows]

    def step(self, action: np.ndarray) -> None:
        """Move on; see ``Imagining``."""
        if self._action is not None:
            self._drive(False)
        self._action = np.asarray(action)

    def draw(self) -> Tuple[np.ndarray, np.ndarray]:
        """Draw; see ``Imagining``."""
        if self._action is None:
            seen = [self.world.render(self._state(start)) for start in self._started.tolist()]
        else:
            seen = self._drive(True)
        return (np.stack([_of(one.rgb) for one in seen]),
                np.array([_of(one.uncertainty) for one in seen], np.float64))

    def pose_errors(self, frames: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return how far off rows are; see ``evaluation.learned.Placed``."""
        if self._action is not None:
            self._drive(False)
        off = self._driven - self.pose[frames]
        return np.hypot(*off[:, :2].T), np.abs(wrap_angle(off[:, 2]))

    def _drive(self, render: bool) -> List[Observation]:
        """Drive all rows by what they were told."""
        assert self._action is not None
        seen = []
        for row, action in enumerate(self._action):
            self.world.restore(self._rows[row])
            named = dict(zip(self._names, action.tolist()))
            twist = [named.get(name, 0.0) for name in ('linear_x', 'linear_y', 'angular_z')]
            twist[2] = named.get('steering_angle', twist[2])
            one = self.world.step(self._columns(twist, named), render=render)
            self._rows[row], self._driven[row] = self.world.snapshot(), one.base_pose[0, -1]
            seen.append(one)
        self._action = None
        return seen

    def _columns(self, twist: Sequence[float], named: Dict[str, float]) -> np.ndarray:
        """Put a command into the columns of the world's actions."""
        layout = self.spec.action
        told = {**named, **dict(zip(('base.linear.x', 'base.linear.y', 'base.angular.z'), twist))}
        row = np.array([told.get(name, 0.0) for name in layout.names], np.float32)
        return np.clip(row, layout.low, layout.high)[None, None]

    def _state(self, frame: int) -> State:
        return State(self.pose[frame][None], self.joints[frame][None], np.zeros((1, 0, 3)))

    def _find(self, folder: Path, recording: AlignedRecording, view: '_Sight',
              say: Say) -> List[Tuple[int, int]]:
        """Follow the recording through the place; returns the stretches where it is known."""
        place, _ = load_place(folder)
        distances, spots = load_distances(folder), _spots(place)
        pieces: List[Tuple[int, int]] = []
        starts, residuals, problem = [], [], None
        for begin, end in recording.segments:
            views = _views(self._odometry, begin, end, recording.rate_hz)
            first = int(views[-1])
            try:
                start = locate(distances, spots, [view.points(i) for i in views],
                               self._odometry[views], lambda pose: self._unlike(
                                   recording, views, pose))
                self._check_pictures(recording, views, start.pose, place)
            except SpecError as error:
                problem = problem or error
                continue
            way = follow(distances, lambda i: view.points(first + i), self._odometry[first:end],
                         start.pose, lambda done, total: say('poses', done, total))
            self.pose[first:end] = way.pose
            pieces += _stretches(way.is_known, first)
            residuals.append(way.residual_m)
            starts.append(start)
        if problem is not None and not pieces:
            raise SpecError(f'{recording.name}: {problem}') from problem
        return self._checked(recording, pieces, starts, residuals)

    def _checked(self, recording: AlignedRecording, pieces: List[Tuple[int, int]],
                 starts: Sequence[Located],
                 residuals: Sequence[np.ndarray]) -> List[Tuple[int, int]]:
        """Refuse a recording that was soon lost, and note how well it fits."""
        off = np.concatenate(residuals)
        fits = float(np.isfinite(off).mean())
        if fits < MIN_FOLLOWED:
            raise SpecError(f'{recording.name}: only {100 * fits:.0f} % of its depth images fit '
                            'this place; it is of another one, or much of it was moved.')
        self.found.update(
            surfaces_met=round(starts[0].near, 3), rivals=starts[0].num_rivals,
            residual_mm=round(1e3 * float(np.nanmedian(off)), 2), frames_fitted=round(fits, 3),
            frames_known=int(sum(end - begin for begin, end in pieces)),
            segments_found=len(starts), segments=len(recording.segments))
        return pieces

    def _unlike(self, recording: AlignedRecording, views: np.ndarray, pose: np.ndarray) -> float:
        """Return the RMS error of what is drawn if the last view is at a pose."""
        errors = []
        for i in views[::2].tolist():
            at = se2.compose(pose, se2.relative(self._odometry[views[-1]], self._odometry[i]))
            seen = self.world.render(State(at[None], self.joints[i][None], np.zeros((1, 0, 3))))
            true = np.asarray(recording.rgb[i])
            errors.append(float(mean_squared_error(_exposed(_of(seen.rgb), true), true)))
        return float(np.sqrt(np.mean(errors)))

    def _check_pictures(self, recording: AlignedRecording, views: np.ndarray, pose: np.ndarray,
                        place: Place) -> None:
        """Refuse a place of the same shape that looks different."""
        some = np.linspace(0, len(place.starts) - 1, NUM_ELSEWHERE).astype(int)
        here = self._unlike(recording, views, pose)
        turned = pose[2] + 2.0 * np.pi * (np.arange(NUM_ELSEWHERE) + 0.5) / NUM_ELSEWHERE
        elsewhere = float(np.median([
            self._unlike(recording, views, np.array([*place.starts[i, :2], yaw]))
            for i, yaw in zip(some, turned)]))
        self.found.update(picture_rms=round(here, 4), picture_rms_elsewhere=round(elsewhere, 4))
        if here > MAX_UNLIKE * elsewhere:
            raise SpecError(f'Its shape is like that of this place, its pictures are not: they '
                            f'differ by {here:.3f} (RMS) where it would be, and by '
                            f'{elsewhere:.3f} elsewhere in the place. Is it of another place?')


class _Sight:
    """What the depth camera of a recording saw."""

    def __init__(self, recording: AlignedRecording) -> None:
        assert recording.depth is not None and recording.T_base_optical is not None
        self._of, self._depth = recording, recording.depth
        some = np.linspace(0, recording.num_frames - 1, 90).astype(int)
        self._body = body_mask(np.asarray(self._depth[some]))
        if self._body.mean() > MAX_BODY:
            self._body[:] = False
        self._mounts, _ = levelled(recording, np.asarray(recording.T_base_optical), self._body)

    def points(self, frame: int) -> Points:
        """Return upright surfaces in base_link."""
        assert self._of.camera is not None
        return upright_points(np.asarray(self._depth[frame]), self._of.camera, self._mounts[0],
                              self._body)

    def camera_like(self, own: MountedCamera) -> MountedCamera:
        """Return the camera of a world where that is the recording's, else the recording's."""
        mine = mounted_camera(self._of, self._mounts)
        T, other = mine.T_base_optical, own.T_base_optical
        turn = np.arccos(np.clip(0.5 * (np.trace(T[:3, :3].T @ other[:3, :3]) - 1.0), -1, 1))
        is_same = (self._of.size_px == (own.width_px, own.height_px)
                   and np.hypot(*(mine.k - own.k)[:2, 2]) < 1.0
                   and abs(mine.fx_px / own.fx_px - 1.0) < SAME_FOCAL
                   and abs(mine.fy_px / own.fy_px - 1.0) < SAME_FOCAL
                   and np.linalg.norm((T - other)[:3, 3]) < SAME_PLACE_M
                   and turn < SAME_TURN_RAD)
        return own if is_same else mine


def _check(recording: AlignedRecording, rate_hz: float) -> None:
    """Refuse what a place cannot be compared with."""
    missing = [told for value, told in (
        (recording.depth, 'a registered depth image'), (recording.camera, 'camera_info'),
        (recording.T_base_optical, 'TF from base to camera'),
        (recording.action, 'velocity commands')) if value is None]
    if missing:
        raise SpecError(f'{recording.name}: it cannot be found where in the place it was made '
                        f'without {", ".join(missing)}.')
    assert recording.T_base_optical is not None
    if len(recording.T_base_optical) > 1:
        raise SpecError(f'{recording.name}: the camera moved on its robot; recordings of a place '
                        'are compared through a camera that is fixed.')
    if abs(recording.rate_hz / rate_hz - 1.0) > 0.01:
        raise SpecError(f'{recording.name} has {recording.rate_hz:g} frames a second, the world '
                        f'{rate_hz:g}; align the recording at the rate of the world.')


def _joints(recording: AlignedRecording, robot: Any) -> np.ndarray:
    """Return positions of the world's joints, at home where the recording has none."""
    if recording.joint_position is not None and \
            set(robot.joint_names) <= set(recording.joint_names):
        return joints_of(recording, robot)
    return np.tile([joint.home for joint in robot.joints], (recording.num_frames, 1))


def _spots(place: Place) -> np.ndarray:
    """Return where a robot can be, (p, 2)."""
    every = max(1, int(round(SPOT_M / place.cell_m)))
    row, column = np.nonzero((place.plan == FREE) & (place.clearance_m > ROOM_M))
    some = (row % every == 0) & (column % every == 0)
    return (np.column_stack([column, row])[some] + 0.5) * place.cell_m + place.plan_origin_m


def _views(odometry: np.ndarray, begin: int, end: int, rate_hz: float) -> np.ndarray:
    """Choose frames from which different things are seen, soon after the beginning."""
    views = [begin]
    for i in range(begin + 1, min(end, begin + int(VIEWS_S * rate_hz))):
        moved = se2.relative(odometry[views[-1]], odometry[i])
        if np.hypot(*moved[:2]) > MOVED_M or abs(moved[2]) > TURNED_RAD:
            views.append(i)
        if len(views) == NUM_VIEWS:
            break
    return np.array(views)


def _stretches(is_known: np.ndarray, first: int) -> List[Tuple[int, int]]:
    """Return where it is known, (begin, end) each."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_known, [False]])))
    return [(first + int(a), first + int(b)) for a, b in zip(edges[::2], edges[1::2])]


def _exposed(drawn: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Bring a picture to the exposure and the white balance of another."""
    a, b = drawn.reshape(-1, 3).astype(np.float64), true.reshape(-1, 3).astype(np.float64)
    gain = np.clip((a * b).sum(0) / np.maximum((a * a).sum(0), 1.0), *GAIN)
    return np.clip(drawn * gain, 0, 255).astype(np.uint8)


def _of(values: Optional[np.ndarray]) -> Any:
    """Return the newest frame of the only row."""
    assert values is not None
    return values[0, -1]
