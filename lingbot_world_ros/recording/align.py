# SPDX-License-Identifier: Apache-2.0
"""
Recordings of any robot -> ``AlignedRecording``: everything at the moments of its pictures.

A recording is read twice: for all that is small, which decides on every frame, then for images,
depth and scans, of which one message at a time is held. Of each topic a frame gets the newest
message not later than itself, and none that is too old. No rclpy.
"""
from dataclasses import dataclass, field
import os
from pathlib import Path
import shutil
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import T_LINK_OPTICAL
from lingbot_world_ros.geometry.se3 import inverse, pose_from_se2
from lingbot_world_ros.recording.aligned import (AlignedRecording, AlignedWriter, is_aligned,
                                                 load_aligned)
from lingbot_world_ros.recording.lens_of_recording import Lens, lens_of
from lingbot_world_ros.recording.roles import depth_of, refusal, rgb_of
from lingbot_world_ros.recording.series import Clock, Times, Track
from lingbot_world_ros.recording.sources import name_of, open_source, Source
from lingbot_world_ros.recording.survey import ALWAYS, Survey, survey, TWIST_NAMES
from lingbot_world_ros.recording.ticks import chosen_rate, make_ticks, steady_rate, stretches
from lingbot_world_ros.recording.transforms import matrices, planar
from lingbot_world_ros.worlds.learned import picture_size
import numpy as np

WIDTH_PX = 160  # of pictures where none is asked for
SIDE_STEP_PX = 4
MAX_AGE_S = 0.2
COMMAND_AGE_S = 0.5  # after which a base stops that hears no more velocities
AGE_PERIODS = 2.5  # what comes slowly may be older
MIN_FRAMES = 2
CAMERA_HZ = (0.1, 10000.0)
FIXED_FRAMES = ('map', 'odom', 'world')  # that poses may be told in
USED_SHARE = 0.5  # of frames that need a pose before poses count
MOVED = 1e-5  # m, and of a rotation matrix: less is a camera that is fixed
URDF = 'robot.urdf'  # in the folder of a recording that has one
WORK = '.align'  # in the folder of results, while they are made
TOLD, TOLD_EVERY = 1000, 64  # parts of a recording that are told; messages between
Say = Callable[[int, int], None]


def align(paths: Sequence[Path], out_folder: Path, rate_hz: Optional[float] = None,
          size: Optional[Tuple[int, int]] = None, topics: Optional[Mapping[str, str]] = None,
          max_age_s: float = MAX_AGE_S,
          say: Say = lambda done, total: None) -> List[AlignedRecording]:
    """
    Align recordings; each becomes a folder of its own, and either all of them or none.

    :param paths: as ``open_source`` takes them
    :param out_folder: where to; folders of the recordings' names must not be in it
    :param rate_hz: of frames; None takes the camera's, halved and so on to 30 Hz at most
    :param size: width and height of pictures; None is 160 wide, or as wide as the images if
        these are narrower, with their aspect ratio
    :param topics: role -> topic (``roles.CHOSEN``) instead of the one that would be chosen
    :param max_age_s: an image or a pose may be this old, or 2.5 of its usual periods; a velocity
        command 0.5 s at least, after which it counts as 0
    :param say: called with how much is done, and how much there is
    :return: the recordings
    :raises SpecError: one cannot be read, has no images that can be used, or is there already;
        nothing is left then
    """
    out_folder = Path(out_folder)
    is_new = not os.path.lexists(out_folder)
    work = out_folder / WORK
    try:
        if work.exists():  # of a run that was killed
            shutil.rmtree(work)
        work.mkdir(parents=True)
    except OSError as error:
        raise SpecError(f'{out_folder} cannot be written ({error.strerror}).') from error
    try:
        made = _align_all(paths, out_folder, work, _Asked(rate_hz, size, topics or {}, max_age_s),
                          say)
        for name in made:
            (work / name).rename(out_folder / name)
    except BaseException:
        shutil.rmtree(out_folder if is_new else work, ignore_errors=True)
        raise
    work.rmdir()
    return [load_aligned(out_folder / name) for name in made]


def aligned_like(path: Path, about: Mapping[str, Any], out_folder: Path,
                 topics: Optional[Mapping[str, str]] = None,
                 say: Say = lambda done, total: None) -> AlignedRecording:
    """
    Bring a recording to the rate and the size of a learned world's pictures.

    :param path: as ``align`` takes it, or an aligned recording, which is opened as it is
    :param about: content of the world's ``world.yaml``
    :param out_folder: as ``align`` takes it
    :param topics: as ``align`` takes them
    :param say: as ``align`` takes it
    :return: the recording
    :raises SpecError: as ``align`` raises it
    """
    if is_aligned(path):
        return load_aligned(path)
    return align([path], out_folder, rate_hz=float(about['rate_hz']), size=picture_size(about),
                 topics=topics, say=say)[0]


@dataclass(frozen=True)
class _Asked:
    """What the user wants."""

    rate_hz: Optional[float]
    size: Optional[Tuple[int, int]]
    topics: Mapping[str, str]
    max_age_s: float

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.rate_hz is not None and not 0.1 <= self.rate_hz <= 1000.0:
            raise SpecError(f'A rate of {self.rate_hz:g} Hz; it must be 0.1 to 1000.')
        if self.size is not None and not all(8 <= side <= 4096 for side in self.size):
            raise SpecError('Pictures of {}x{}; both must be 8 to 4096.'.format(*self.size))
        if not 0.0 < self.max_age_s <= 60.0:
            raise SpecError(f'max_age_s={self.max_age_s:g} must be more than 0, at most 60.')


def _align_all(paths: Sequence[Path], out_folder: Path, work: Path, asked: _Asked,
               say: Say) -> List[str]:
    made: List[str] = []

    def tell(part: int) -> None:
        say(TOLD * len(made) + part, TOLD * len(paths))

    for path in paths:
        name = name_of(path)
        if name in made:
            name = next(f'{name}_{i}' for i in range(2, len(paths) + 2)
                        if f'{name}_{i}' not in made)
        if os.path.lexists(out_folder / name):
            raise SpecError(f'{out_folder / name} exists already; delete it, or name another '
                            'folder.')
        with open_source(path) as source:
            _align_one(_Counting(source, tell), name, work / name, asked)
        made.append(name)
    return made


class _Counting:
    """A source that tells how far it is while it is read, twice."""

    def __init__(self, source: Source, tell: Callable[[int], None]) -> None:
        self.path, self.form, self.topics = source.path, source.form, source.topics
        self.stamp_ns, self.read = source.stamp_ns, source.read
        self._source, self._tell, self._first = source, tell, 0

    def __enter__(self) -> '_Counting':
        return self

    def __exit__(self, *_: object) -> None:
        """Leave closing to whoever opened it."""

    def stored(self, names: Sequence[str]) -> Iterator[Tuple[str, int, Any]]:
        """Yield messages."""
        first, half = self._first, TOLD // 2
        total = max(1, sum(topic.count for topic in self.topics if topic.name in names))
        self._first = half
        for i, message in enumerate(self._source.stored(names)):
            if i % TOLD_EVERY == 0:
                self._tell(first + min(half, half * i // total))
            yield message
        self._tell(first + half)


def _align_one(source: Source, name: str, folder: Path, asked: _Asked) -> None:
    found = survey(source, asked.topics)
    plan = make_plan(found, asked.rate_hz, asked.max_age_s, str(source.path))
    image = found.roles.get('image')
    lens = lens_of(found, image, asked.size or default_size(*found.pictures[image].size_px))
    writer = AlignedWriter(folder)
    for array_name, rows in plan.arrays.items():
        writer.put(0, array_name, rows)
    streams = _Streams(source, found, plan, lens, writer)
    streams.run()
    if found.urdf:
        (folder / URDF).write_text(found.urdf)
        plan.about['urdf'] = URDF
    about = {**plan.about, **lens.about, **streams.about(), 'source': str(source.path),
             'form': source.form, 'topics': dict(found.roles.topics),
             'damaged': found.damaged}
    writer.close(
        camera=lens.camera, T_base_optical=plan.T_base_optical, name=name, rate_hz=plan.rate_hz,
        segments=streams.segments(), action_names=plan.action_names,
        joint_names=plan.joint_names, pose_frame=plan.pose_frame,
        scan_geometry=plan.scan_geometry, about=about)


def default_size(width_px: int, height_px: int) -> Tuple[int, int]:
    """Return the size of pictures where none is asked for."""
    width = min(WIDTH_PX, max(8, width_px // SIDE_STEP_PX * SIDE_STEP_PX))
    height = SIDE_STEP_PX * round(height_px * width / width_px / SIDE_STEP_PX)
    return width, max(8, height)


@dataclass
class Plan:
    """
    What each frame is made of.

    ``image``, ``depth`` and ``scan`` are places among the messages of their topics, -1 for none.
    """

    rate_hz: float
    segments: List[Tuple[int, int]]
    image: np.ndarray
    depth: Optional[np.ndarray] = None
    scan: Optional[np.ndarray] = None
    arrays: Dict[str, np.ndarray] = field(default_factory=dict)
    action_names: Tuple[str, ...] = ()
    joint_names: Tuple[str, ...] = ()
    T_base_optical: Optional[np.ndarray] = None
    pose_frame: str = ''
    scan_geometry: Tuple[float, ...] = ()
    about: Dict[str, Any] = field(default_factory=dict)


def clock_of(found: Survey) -> Clock:
    """
    Choose the time of a recording.

    :param found: in it; there must be an image
    :return: the clock, led by the images
    """
    roles = found.roles
    others = [found.tracks[roles.get(role)] for role in (
        'depth', 'scan', 'odometry', 'joint_states', 'command', 'joint_command')
        if roles.get(role) in found.tracks]
    others += list(found.tree.moving.values())
    return Clock(found.tracks[roles.get('image')], others, found.tracks.get(roles.get('clock')))


def make_plan(found: Survey, rate_hz: Optional[float], max_age_s: float, what: str) -> Plan:
    """
    Decide on every frame.

    :param found: in the recording
    :param rate_hz: of frames, None to choose
    :param max_age_s: as ``align`` takes it
    :param what: name of the recording, for errors
    :return: the plan
    :raises SpecError: no images, or none that follow each other
    """
    image = found.roles.get('image')
    if not image:
        reason = refusal(found.pictures) or 'record the topic of a camera, too'
        raise SpecError(f'{what} has no images that can be used: {reason}.')
    clock = clock_of(found)
    times = clock.times(found.tracks[image])
    camera_hz = _camera_hz(times)
    if not CAMERA_HZ[0] <= camera_hz <= CAMERA_HZ[1]:
        raise SpecError(f'{what}: {len(times.index)} images of {image} '
                        f'{"at one moment" if not camera_hz else f"at {camera_hz:.3g} Hz"} are no '
                        'recording of a drive.')
    rate = rate_hz or chosen_rate(camera_hz)
    planner = _Planner(found, clock, rate, int(max_age_s * 1e9))
    num_missing, num_runs = 0, 0
    for stretch in np.unique(times.stretch).tolist():
        inside = times.stretch == stretch
        index = times.index[inside]
        for run in make_ticks(times.time_ns[inside], camera_hz, rate, int(max_age_s * 1e9)):
            planner.add(stretch, run.time_ns, index[run.image])
            num_missing += run.num_missing
            num_runs += 1
    plan = planner.finish(what)
    used = len(np.unique(plan.image))
    plan.about.update(
        camera_hz=camera_hz, images=len(times.index), images_missing=num_missing,
        images_unused=len(times.index) - used, frames_repeated=len(plan.image) - used,
        gaps=num_runs - 1 - clock.num_jumps, clock_jumps=clock.num_jumps,
        out_of_order=clock.is_shuffled, max_age_s=max_age_s,
        stamps='headers' if clock.by_stamp else 'receipt', other_clock=clock.is_mapped)
    return plan


def _camera_hz(times: Times) -> float:
    rates = [steady_rate(times.time_ns[times.stretch == i]) for i in np.unique(times.stretch)]
    lengths = np.bincount(np.unique(times.stretch, return_inverse=True)[1])
    return rates[int(lengths.argmax())] if rates else 0.0


class _Planner:
    """Collects, run by run, what all frames are made of."""

    def __init__(self, found: Survey, clock: Clock, rate_hz: float, max_age_ns: int) -> None:
        self.found, self.clock, self.rate_hz, self.max_age_ns = found, clock, rate_hz, max_age_ns
        self.tree = found.tree
        self.camera = found.pictures[found.roles.get('image')].frame
        self.base = found.odometry_frames[1] if len(found.odometry) else ''
        if self.base not in self.tree.frames:
            self.base = self.tree.base() or self.base
        self._poses_from = self._pose_sources()
        self.is_carried = not self._poses_from[0] and self._carry()
        self.has_mount = self.is_carried or self.tree.path(self.base, self.camera) is not None
        self._times: Dict[int, Tuple[Times, int]] = {}  # by id of a track
        self._parts: List[Dict[str, np.ndarray]] = []
        self._columns = self._action_columns()

    def _pose_sources(self) -> Tuple[str, str, str]:
        """Return frame of poses, frame of odometry, and the topic's or '' to take TF alone."""
        odom, _ = self.found.odometry_frames
        above = self.tree.above
        if len(self.found.odometry):
            return ('map' if above(odom, 'map') else 'odom'), above(odom, 'map'), odom
        for name in FIXED_FRAMES:
            if self.base and above(self.base, name):
                return name, above(self.base, name), ''
        return '', '', ''

    def _carry(self) -> bool:
        """Follow the camera itself, where TF knows it in a fixed frame, and no base at all."""
        for name in FIXED_FRAMES if not self.base else ():
            top = self.tree.above(self.camera, name)
            if top:
                self._poses_from, self.base = (name, top, ''), self.camera
                return True
        return False

    def _known(self, track: Track) -> Tuple[Times, int]:
        """Return a track in time, and how old its messages may be."""
        if id(track) not in self._times:
            times = self.clock.times(track)
            rate = _camera_hz(times)
            self._times[id(track)] = times, max(
                self.max_age_ns, int(AGE_PERIODS * 1e9 / rate) if rate else 0)
        return self._times[id(track)]

    def _newest(self, track: Track, stretch: int, ticks: np.ndarray) -> np.ndarray:
        """Return the newest message for each tick, -1 where there is none, or too old a one."""
        times, limit = self._known(track)
        index, age = times.newest(stretch, ticks)
        return np.where(age <= limit, index, -1)

    def add(self, stretch: int, ticks: np.ndarray, image: np.ndarray) -> None:
        """Plan the frames of a run."""
        found, roles = self.found, self.found.roles
        part: Dict[str, np.ndarray] = {'image': image, 'first': np.arange(len(ticks)) == 0}
        for role in ('depth', 'scan'):
            if roles.get(role) in found.tracks:
                part[role] = self._newest(found.tracks[roles.get(role)], stretch, ticks)
        part.update(self._motion(stretch, ticks))
        part['action'], part['heard'] = self._actions(stretch, ticks)
        joints = found.joints(found.joint_states)
        if joints:
            columns = [self._held(found.joint_states[name], stretch, ticks) for name in joints]
            part['joint_position'] = np.stack(columns, 1)
        self._parts.append(part)

    def _held(self, track: Track, stretch: int, ticks: np.ndarray) -> np.ndarray:
        """Return the newest number however old, NaN before the first."""
        index, _ = self._known(track)[0].newest(stretch, ticks)
        return np.where(index < 0, np.nan, track.values[np.maximum(index, 0), 0])

    def _motion(self, stretch: int, ticks: np.ndarray) -> Dict[str, np.ndarray]:
        """
        Where the robot was, and the camera on it.

        Poses are planar: height and tilt of the base count as the camera's on it.
        """
        part: Dict[str, np.ndarray] = {}
        frame, top, odom = self._poses_from
        if odom:
            track = self.found.odometry
            index = self._newest(track, stretch, ticks)
            T, is_known = matrices(track.values[np.maximum(index, 0)]), index >= 0
            if top:
                T_top, age = self.tree.poses(top, odom, self.clock, stretch, ticks)
                T, is_known = T_top @ T, is_known & (age >= 0)
        elif top:
            T, age = self.tree.poses(top, self.base, self.clock, stretch, ticks)
            limit = max([self._known(self.tree.moving[edge])[1]
                         for edge in self.tree.moving_on(top, self.base)] or [self.max_age_ns])
            is_known = (age >= 0) & (age <= limit)
        if self.is_carried:
            T = T @ inverse(T_LINK_OPTICAL)
        if frame:
            part['base_pose'], part['pose_known'] = planar(T), is_known
        if self.has_mount:
            T_base_optical, age = self.tree.poses(self.base, self.camera, self.clock, stretch,
                                                  ticks)
            if self.is_carried:
                T_base_optical = T_LINK_OPTICAL
            if frame:
                T_base_optical = inverse(pose_from_se2(part['base_pose'])) @ T @ T_base_optical
            part['T_base_optical'], part['mount_known'] = T_base_optical, age >= 0
        return part

    def _action_columns(self) -> List[int]:
        """Return which numbers of a command are told."""
        found, values = self.found, self.found.command.values
        if not len(values):
            return []
        return [i for i, name in enumerate(found.command_names)
                if found.command_names != TWIST_NAMES or name in ALWAYS or values[:, i].any()]

    def _actions(self, stretch: int, ticks: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return what was commanded, and whether every joint was by then."""
        found, parts = self.found, []
        heard = np.ones(len(ticks), bool)
        if self._columns:
            times, limit = self._known(found.command)
            index, age = times.newest(stretch, ticks)
            is_fresh = (index >= 0) & (age <= max(limit, COMMAND_AGE_S * 1e9))
            values = found.command.values[np.maximum(index, 0)][:, self._columns]
            parts.append(np.where(is_fresh[:, None], values, 0.0))
        for joint in found.joints(found.joint_command):
            held = self._held(found.joint_command[joint], stretch, ticks)
            heard &= ~np.isnan(held)
            parts.append(held[:, None])
        return np.hstack(parts) if parts else np.zeros((len(ticks), 0)), heard

    def finish(self, what: str) -> Plan:
        """Put the runs together, without frames that lack something."""
        part = {name: np.concatenate([p[name] for p in self._parts]) for name in self._parts[0]}
        frame, about = self._poses_from[0], {}
        if frame and part['pose_known'].mean() < USED_SHARE:
            about['poses_left_out'] = f'only {part["pose_known"].mean():.0%} of frames have one'
            frame = ''
        is_good = self._is_good(part, bool(frame))
        runs = stretches(is_good, MIN_FRAMES, part['first'])
        if not runs:
            raise SpecError(f'{what}: no two frames follow each other with all that belongs to '
                            f'them; of {len(is_good)} {int(is_good.sum())} are whole.')
        kept = np.concatenate([np.arange(*run) for run in runs])
        ends = np.cumsum([end - begin for begin, end in runs]).tolist()
        plan = Plan(self.rate_hz, list(zip([0, *ends[:-1]], ends)), part['image'][kept],
                    pose_frame=frame,
                    about={**about, 'frames_left_out': len(is_good) - len(kept)})
        self._fill(plan, {name: rows[kept] for name, rows in part.items()})
        return plan

    def _is_good(self, part: Mapping[str, np.ndarray], has_poses: bool) -> np.ndarray:
        """Tell which frames have all that belongs to them."""
        is_good = part['heard']
        if has_poses:
            is_good = is_good & part['pose_known']
        if self.has_mount and part['mount_known'].mean() >= USED_SHARE:
            is_good = is_good & part['mount_known']
        return is_good

    def _fill(self, plan: Plan, part: Mapping[str, np.ndarray]) -> None:
        """Add to a plan what its frames are made of."""
        found = self.found
        for role in ('depth', 'scan'):
            if role in part and (part[role] >= 0).any():
                setattr(plan, role, part[role])
        if plan.pose_frame:
            pose = part['base_pose'].copy()
            for begin, end in plan.segments:
                pose[begin:end, 2] = np.unwrap(pose[begin:end, 2])
            plan.arrays['base_pose'] = pose
        if part['action'].shape[1]:
            plan.arrays['action'] = part['action']
            plan.action_names = (*(found.command_names[i] for i in self._columns),
                                 *found.joints(found.joint_command))
        if 'joint_position' in part:
            plan.arrays['joint_position'] = part['joint_position']
            plan.joint_names = tuple(found.joints(found.joint_states))
        if 'T_base_optical' in part:
            self._mount(plan, part['T_base_optical'])
        if plan.scan is not None:
            plan.scan_geometry = self._scan_geometry()

    def _mount(self, plan: Plan, T: np.ndarray) -> None:
        """Add the camera's place; one that never moved is told once."""
        if T[0, 2, 2] > 0.9 and 'optical' not in self.camera:  # z is up: it is the link's frame
            T = T @ T_LINK_OPTICAL
            plan.about['image_frame'] = (f'{self.camera} has z up, so it is taken for the '
                                         "camera's link, not for its optical frame")
        if np.abs(T - T[0]).max() <= MOVED:
            plan.T_base_optical = T[0]
        else:
            plan.arrays['T_base_optical'] = T

    def _scan_geometry(self) -> Tuple[float, ...]:
        scan = self.found.first_scan
        frame = scan.header.frame_id.lstrip('/')
        place = np.zeros(3)
        if self.tree.path(self.base, frame) is not None and not self.tree.moving_on(
                self.base, frame):
            T, _ = self.tree.poses(self.base, frame, self.clock, 0, np.zeros(1, np.int64))
            place = planar(T)[0]
        return (float(scan.angle_min), float(scan.angle_increment), *map(float, place))


class _Streams:
    """Second reading: images, depth and scans into the frames that want them."""

    def __init__(self, source: Source, found: Survey, plan: Plan, lens: Lens,
                 writer: AlignedWriter) -> None:
        self.source, self.plan, self.lens, self.writer = source, plan, lens, writer
        roles = found.roles
        self._num_beams = len(found.first_scan.ranges) if plan.scan is not None else 0
        self._wanted: Dict[str, Dict[int, np.ndarray]] = {}
        self._take: Dict[str, Callable[[Any, np.ndarray], None]] = {}
        for role, index, take in (('image', plan.image, self._image),
                                  ('depth', plan.depth, self._depth),
                                  ('scan', plan.scan, self._scan)):
            if index is None or role == 'depth' and not lens.takes_depth:
                continue
            self._wanted[roles.get(role)] = _frames_of(index)
            self._take[roles.get(role)] = take
        self._last: Optional[np.ndarray] = None  # picture, stands for those that are damaged
        self.lost = np.zeros(len(plan.image), bool)
        self._num_damaged = {role: 0 for role in ('image', 'depth', 'scan')}
        if plan.scan is not None:
            blank = np.full((1, self._num_beams), np.nan)
            for i in np.flatnonzero(plan.scan < 0):
                writer.put(int(i), 'scan', blank)

    def run(self) -> None:
        """Read them all."""
        counts = dict.fromkeys(self._wanted, 0)
        for name, _, stored in self.source.stored(list(self._wanted)):
            frames = self._wanted[name].get(counts[name])
            counts[name] += 1
            if frames is None:
                continue
            try:
                self._take[name](self.source.read(name, stored), frames)
            except Exception:  # of one foreign message any kind of error may come
                self._damaged(self._take[name], frames)

    def _damaged(self, take: Callable[..., None], frames: np.ndarray) -> None:
        if take == self._image:
            self.lost[frames] = True
            if self._last is not None:
                self._put('rgb', self._last, frames)
            self._num_damaged['image'] += 1
        else:
            self._num_damaged['depth' if take == self._depth else 'scan'] += 1

    def _image(self, msg: Any, frames: np.ndarray) -> None:
        self._last = self.lens.picture(rgb_of(msg))
        self._put('rgb', self._last, frames)

    def _depth(self, msg: Any, frames: np.ndarray) -> None:
        self._put('depth', self.lens.depth(depth_of(msg)), frames)

    def _scan(self, msg: Any, frames: np.ndarray) -> None:
        ranges = np.full(self._num_beams, np.inf, np.float32)
        told = np.asarray(msg.ranges, np.float32)[:self._num_beams]
        is_hit = (told >= msg.range_min) & (told <= msg.range_max)
        ranges[:len(told)] = np.where(is_hit, told, np.inf)
        self._put('scan', ranges, frames)

    def _put(self, name: str, row: np.ndarray, frames: np.ndarray) -> None:
        for i in frames.tolist():
            self.writer.put(i, name, row[None])

    def segments(self) -> List[Tuple[int, int]]:
        """Return the stretches without a gap and without damaged images."""
        return [(begin + first, begin + end) for begin, stop in self.plan.segments
                for first, end in stretches(~self.lost[begin:stop], MIN_FRAMES)]

    def about(self) -> Dict[str, Any]:
        """Tell what could not be read."""
        return {f'{role}s_damaged': count for role, count in self._num_damaged.items() if count}


def _frames_of(index: np.ndarray) -> Dict[int, np.ndarray]:
    """Return message -> frames that are made of it."""
    order = np.argsort(index, kind='stable')
    values, firsts = np.unique(index[order], return_index=True)
    return {int(value): frames for value, frames in zip(
        values, np.split(order, firsts[1:])) if value >= 0}
