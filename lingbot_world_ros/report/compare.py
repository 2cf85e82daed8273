# SPDX-License-Identifier: Apache-2.0
"""
Imagination beside truth: frames of a recording, the same actions in another world, the errors.

Axes: f frames of a segment from the reset's on (f = 0), j joint, h w image. No ROS.
"""
from collections import defaultdict
from dataclasses import dataclass, field, replace
import tempfile
from typing import Any, Callable, DefaultDict, Dict, List, Optional, Sequence, Tuple

import cv2
from lingbot_world_ros.actions.layout import ANGULAR, LINEAR, twists_of
from lingbot_world_ros.engines.interface import WorldModel, WorldSpec
from lingbot_world_ros.engines.registry import make_world, TRUTH_ENGINE
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.evaluation import metrics
from lingbot_world_ros.evaluation.rollouts import mean_images
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.messages.encodings import compressed_from_msg, rgb_from_msg
from lingbot_world_ros.messages.frames import planar_pose_from_msg
from lingbot_world_ros.recording.bag import BagReader
from lingbot_world_ros.recording.replay import open_session, POSE_SIZE, replay_segment
from lingbot_world_ros.report.gather import Episode, Recording
from lingbot_world_ros.session.frame import Frame
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.status import SessionStatus
import numpy as np

RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
READERS: Dict[str, Callable[[Any], np.ndarray]] = {
    RAW: rgb_from_msg, COMPRESSED: compressed_from_msg}
ODOMETRY, JOINTS = 'nav_msgs/msg/Odometry', 'sensor_msgs/msg/JointState'
MAX_WIDTH_PX = 320  # pictures are not shown any larger
ENOUGH = 0.9  # recorded images that a segment needs, share of its frames
MARGIN_NS = 3_000_000_000  # how long messages may take on their way
NUM_MEAN_STATES = 200  # behind the mean image, as in the evaluation


@dataclass
class Frames:
    """
    What a world showed in a segment.

    ``rgb`` has one (h, w, 3) uint8 per frame, None where it is missing; ``pose`` (f, 3) x, y [m],
    yaw [rad] in the scene frame (or from the start, if that is not known), ``joints`` (f, j) rad
    or m and ``uncertainty`` (f,) are NaN where they are missing. ``source`` says in words where
    all this comes from.
    """

    rgb: List[Optional[np.ndarray]]
    pose: np.ndarray
    joints: np.ndarray
    uncertainty: np.ndarray
    source: str = ''

    @property
    def num_images(self) -> int:
        """Frames with a picture."""
        return sum(image is not None for image in self.rgb)


@dataclass
class Comparison:
    """
    One segment: what was imagined, what is true, and how far these are apart.

    ``errors`` maps a quantity to (f,) float64; ``no_truth`` and ``no_images`` say in words why
    something is missing, '' if nothing is.
    """

    episode: Episode
    imagined: Optional[Frames] = None
    truth: Optional[Frames] = None
    no_images: str = ''
    no_truth: str = ''
    integrated: Optional[np.ndarray] = None  # (f, 3) pose from the commands alone
    errors: Dict[str, np.ndarray] = field(default_factory=dict)
    num_left_out: int = 0  # frames beyond the limit

    @property
    def seconds(self) -> np.ndarray:
        """Sim time since the reset's frame, (f,)."""
        num_frames = max([len(f.rgb) for f in (self.imagined, self.truth) if f] or [0])
        return np.arange(num_frames) * self.episode.period_s


@dataclass
class Comparer:
    """
    Compares the segments of one recording.

    ``truth_engine`` is the name of the engine that is taken as the truth, '' for none;
    ``make_engine`` makes engines by name; ``limit_s`` is sim time per segment; ``tell`` is called
    with what is done and the number of frames since the last call.
    """

    recording: Recording
    truth_engine: str = TRUTH_ENGINE
    make_engine: Callable[[str], WorldModel] = make_world
    world_path: str = ''
    limit_s: float = 120.0
    tell: Callable[[str, int], None] = lambda what, num_frames: None
    _means: Dict[str, np.ndarray] = field(default_factory=dict)

    def compare(self, episode: Episode) -> Comparison:
        """
        Find or make the frames of a segment, and the truth.

        :param episode: of the recording
        :return: everything that could be had; the rest says why not
        """
        found, limit = Comparison(episode), round(self.limit_s / episode.period_s)
        found.num_left_out = max(0, episode.num_frames - limit)
        shorter = _shortened(episode, limit)
        if not shorter.num_frames:
            recorded = self._recorded(shorter, np.zeros(3))
            found.imagined = recorded if recorded.num_images else None
            found.no_truth = f'{episode.segment.problem or "nothing was told"}.'
            found.no_images = '' if found.imagined else found.no_truth
            return found
        self._truth(found, shorter)
        self._imagination(found, shorter)
        if found.imagined is not None:
            found.integrated = integrate(shorter, found.imagined.pose[0])
        if found.truth is not None and found.imagined is not None:
            found.errors = errors(found.imagined, found.truth, shorter.spec)
            found.errors.update(self._baselines(found.truth, shorter))
        return found

    def _truth(self, found: Comparison, episode: Episode) -> None:
        name = self.truth_engine
        found.no_truth = ('it was not asked for.' if not name else '')
        if found.no_truth:
            return
        try:
            engine = make_world(name)
            found.no_truth = _unlike(engine.spec, episode, name)
            if not found.no_truth:
                found.truth = self._again(episode, engine, 'truth')
                found.truth.source = (f'{engine.spec.model}, the recorded actions from the same '
                                      'start')
        except Exception as error:  # a renderer may fail in any way
            found.no_truth = _sentence(error)

    def _imagination(self, found: Comparison, episode: Episode) -> None:
        origin = found.truth.pose[0] if found.truth is not None else np.zeros(3)
        recorded = self._recorded(episode, origin)
        if recorded.num_images >= ENOUGH * len(recorded.rgb):
            found.imagined = recorded
            return
        try:
            engine = self.make_engine(episode.segment.world.engine)
            if engine.spec.model != episode.segment.world.model:
                raise SpecError(f'it was made by {episode.segment.world.model!r}, here is '
                                f'{engine.spec.model!r}')
            found.imagined = self._again(episode, engine, 'imagination')
            found.imagined.source = (f'computed again by {engine.spec.model} from the recorded '
                                     'actions: the recording holds no images')
        except Exception as error:  # an engine may fail in any way
            found.imagined = recorded if np.isfinite(recorded.pose).any() else None
            found.no_images = ('the recording holds none, and they cannot be made again here: '
                               + _sentence(error))

    def _recorded(self, episode: Episode, origin: np.ndarray) -> Frames:
        recorded = recorded_frames(self.recording, episode, origin)
        self.tell('recorded frames', len(recorded.rgb))
        return recorded

    def _again(self, episode: Episode, engine: WorldModel, what: str) -> Frames:
        """Let a segment happen in an engine and keep what it shows."""
        collector = _Collector()
        session, source = open_session(engine, (collector,))
        try:
            for step in replay_segment(episode.segment, session, source, self.world_path):
                self.tell(what, 1 if step is None else episode.spec.frames_per_step)
        finally:
            session.close()
        return collector.frames()

    def _baselines(self, truth: Frames, episode: Episode) -> Dict[str, np.ndarray]:
        scene = episode.segment.world.scene
        if scene not in self._means:
            self.tell('mean image', 0)
            with tempfile.TemporaryDirectory() as folder:
                self._means[scene] = mean_images(
                    make_world(self.truth_engine, batch_size=10), 10, (scene,), NUM_MEAN_STATES,
                    folder)[0]
        return {'psnr_first_db': _psnr([truth.rgb[0]] * len(truth.rgb), truth.rgb),
                'psnr_mean_db': _psnr([self._means[scene]] * len(truth.rgb), truth.rgb)}


def _shortened(episode: Episode, limit: int) -> Episode:
    """Leave out what is beyond so many frames, or beyond the steps that can be made again."""
    per_step = episode.segment.world.frames_per_step
    steps = episode.segment.steps[:max(0, limit - 1) // per_step]
    told = {step.index for step in steps} | ({0} if episode.segment.first_digest else set())
    rows = ([i for i, step in enumerate(episode.step) if step in told] or
            list(range(min(len(episode.step), limit // per_step))))
    columns: Dict[str, Any] = {
        name: [getattr(episode, name)[i] for i in rows]
        for name in ('step', 'stamp_ns', 'received_ns', 'new_latency', 'told')}
    return replace(episode, segment=replace(episode.segment, steps=steps), **columns, telemetry={
        name: [values[i] for i in rows] for name, values in episode.telemetry.items()})


def _unlike(spec: WorldSpec, episode: Episode, name: str) -> str:
    """Say why an engine cannot tell the truth of a segment, '' if it can."""
    world = episode.segment.world
    if not episode.segment.first_digest:
        return 'the first frame of this segment was not recorded.'
    if world.scene not in spec.scenes:
        return (f'the scene {world.scene!r} is none of the {name} world '
                f'({", ".join(spec.scenes)}).')
    if tuple(episode.spec.action_names) != spec.action.names:
        return f'the actions are not those of the {name} world.'
    if abs(episode.spec.frame_rate - spec.frame_rate_hz) > 1e-6:
        return (f'{episode.spec.frame_rate:g} frames per second are not the '
                f'{spec.frame_rate_hz:g} of the {name} world.')
    if world.frames_per_step != spec.frames_per_step:
        return f'steps of {world.frames_per_step} frames are not those of the {name} world.'
    return ''


def _sentence(error: Exception) -> str:
    text = str(error) if isinstance(error, SpecError) else f'{type(error).__name__}: {error}'
    return text.rstrip('.') + '.'


class _Collector(SessionObserver):
    """Keeps what a session shows, from its worker thread."""

    def __init__(self) -> None:
        self._frames: List[Tuple[Optional[np.ndarray], np.ndarray, np.ndarray, float]] = []

    def on_reset(self, status: SessionStatus) -> None:
        self._frames.clear()

    def on_frame(self, frame: Frame) -> None:
        rgb = None if frame.rgb is None else small(frame.rgb).copy()
        self._frames.append((rgb, frame.base_pose.copy(),
                             frame.joint_position.copy(), frame.uncertainty))

    def frames(self) -> Frames:
        rgb, pose, joints, uncertainty = zip(*self._frames)
        return Frames(list(rgb), np.array(pose), np.array(joints), np.array(uncertainty))


def small(rgb: np.ndarray) -> np.ndarray:
    """
    Shrink a picture that is larger than a report shows.

    :param rgb: (h, w, 3) uint8
    :return: the same, or at most ``MAX_WIDTH_PX`` wide
    """
    height, width = rgb.shape[:2]
    if width <= MAX_WIDTH_PX:
        return rgb
    size = MAX_WIDTH_PX, max(1, round(height * MAX_WIDTH_PX / width))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def recorded_frames(recording: Recording, episode: Episode, origin: np.ndarray) -> Frames:
    """
    Read the frames of a segment out of a recording.

    :param recording: gathered
    :param episode: one of it
    :param origin: (3,) where odometry counts from, scene frame
    :return: what was recorded of them; which topics that are is told by the stamps
    """
    slots = _Slots(episode)
    with BagReader(recording.path) as bag:
        names = {kind: _beside(bag, kind, recording.namespace) for kind in
                 (RAW, COMPRESSED, ODOMETRY, JOINTS)}
        kinds = {name: kind for kind, group in names.items() for name in group}
        for topic, at_ns, msg in bag.received(*kinds, start_ns=slots.start_ns,
                                              stop_ns=slots.stop_ns):
            slots.take(topic, kinds[topic], at_ns, msg)
    image = slots.fullest([*names[RAW], *names[COMPRESSED]])
    odom = np.array([_pose(m) for m in slots.column(slots.fullest(names[ODOMETRY]))])
    joints = [_positions(m, episode.spec.joint_names)
              for m in slots.column(slots.fullest(names[JOINTS]))]
    rgb = slots.column(image)
    source = 'as recorded' + (f' from {image}' if image else '')
    if image in names[COMPRESSED]:
        source += ' (JPEG, which costs some PSNR)'
    return Frames(rgb, _in_scene(odom, origin, episode), np.array(joints),
                  _uncertainty(episode, len(rgb)), source)


def _beside(bag: BagReader, kind: str, namespace: str) -> List[str]:
    """Topics of a type in the namespace of the world; what is called truth is no imagination."""
    below = namespace.rstrip('/') + '/'
    return [name for name in bag.topics(kind) if name.startswith(below) and 'truth' not in name]


class _Slots:
    """One slot per frame and topic; sim time may come twice, so reception decides as well."""

    def __init__(self, episode: Episode):
        per_step, period_ns = episode.segment.world.frames_per_step, round(1e9 * episode.period_s)
        # stamp -> (received, frame)
        self._places: DefaultDict[int, List[Tuple[int, int]]] = defaultdict(list)
        self._num = 0
        for step, stamp_ns, at_ns in zip(episode.step, episode.stamp_ns, episode.received_ns):
            for k in reversed(range(per_step if step else 1)):
                self._places[stamp_ns - k * period_ns].append((at_ns, self._num))
                self._num += 1
        self._found: DefaultDict[str, List[Any]] = defaultdict(lambda: [None] * self._num)
        # topic -> frame -> how far off the message came
        self._away: Dict[str, Dict[int, int]] = defaultdict(dict)
        self.start_ns = min(episode.received_ns) - MARGIN_NS
        self.stop_ns = max(episode.received_ns) + MARGIN_NS

    def take(self, topic: str, kind: str, at_ns: int, msg: Any) -> None:
        stamp = msg.header.stamp
        places = self._places.get(stamp.sec * 1_000_000_000 + stamp.nanosec)
        if not places:
            return
        away_ns, frame = min((abs(at_ns - at), frame) for at, frame in places)
        if away_ns > MARGIN_NS or away_ns >= self._away[topic].get(frame, MARGIN_NS + 1):
            return
        if kind in READERS:
            msg = _rgb(kind, msg)
        if msg is not None:
            self._found[topic][frame], self._away[topic][frame] = msg, away_ns

    def fullest(self, topics: Sequence[str]) -> str:
        counts = {topic: len(self._away.get(topic, ())) for topic in topics}
        return max(counts, key=lambda topic: counts[topic]) if any(counts.values()) else ''

    def column(self, topic: str) -> List[Any]:
        return self._found[topic] if topic else [None] * self._num


def _rgb(kind: str, msg: Any) -> Optional[np.ndarray]:
    """Picture of an Image or CompressedImage, None if it is none (depth) or damaged."""
    try:
        return small(READERS[kind](msg))
    except SpecError:
        return None


def _pose(msg: Any) -> np.ndarray:
    """Return x, y, yaw of an Odometry; NaN without one."""
    return np.full(3, np.nan) if msg is None else planar_pose_from_msg(msg.pose.pose)


def _positions(msg: Any, names: Sequence[str]) -> np.ndarray:
    if msg is None:
        return np.full(len(names), np.nan)
    known = {name.rpartition('/')[2]: value for name, value in zip(msg.name, msg.position)}
    return np.array([known.get(name, np.nan) for name in names])


def _in_scene(odom: np.ndarray, origin: np.ndarray, episode: Episode) -> np.ndarray:
    """Poses from the start -> in the scene; a teleport moves the origin along."""
    poses, per_step = np.empty_like(odom), episode.segment.world.frames_per_step
    moved = {1 + number * per_step: np.array(step.anchors[-1][:POSE_SIZE])
             for number, step in enumerate(episode.segment.steps) if step.anchors}
    for frame, pose in enumerate(odom):
        if frame in moved and np.isfinite(odom[frame - 1]).all():
            origin = se2.compose(moved[frame], se2.inverse(odom[frame - 1]))
        poses[frame] = se2.compose(origin, pose)
    return poses


def _uncertainty(episode: Episode, num_frames: int) -> np.ndarray:
    """Of each frame; known of the last one of each step."""
    found, per_step = np.full(num_frames, np.nan), episode.segment.world.frames_per_step
    last = np.cumsum([per_step if step else 1 for step in episode.step]) - 1
    found[last] = episode.telemetry['uncertainty']
    return found


def integrate(episode: Episode, start: np.ndarray) -> Optional[np.ndarray]:
    """
    Where the base would be if it had done exactly what it was told.

    :param episode: its actions count
    :param start: (3,) x, y [m], yaw [rad]
    :return: (f, 3); None where the engine is not told a twist
    """
    names = list(episode.spec.action_names)
    if not {LINEAR, ANGULAR} <= set(names) or not np.isfinite(start).all():
        return None
    poses, per_step = [np.array(start, np.float64)], episode.segment.world.frames_per_step
    for step in episode.segment.steps:
        if step.anchors:
            poses[-1] = np.array(step.anchors[-1][:POSE_SIZE])
        for twist in twists_of(step.actions[:per_step], names):
            moved = se2.exponential(twist, episode.period_s)
            poses.append(se2.compose(poses[-1], moved))
    return np.array(poses)


def errors(imagined: Frames, truth: Frames, spec: Any) -> Dict[str, np.ndarray]:
    """
    Measure how far imagination and truth are apart.

    :param imagined: frames
    :param truth: as many
    :param spec: WorldSpec message, which names units
    :return: psnr_db, rms (0..1), position_m, yaw_deg, joint_rad (mean of the revolute joints),
        uncertainty; (f,) each, NaN where something is missing
    """
    units = [unit for name, unit in zip(spec.action_names, spec.action_units)
             if not name.startswith('base.')]
    turning = [i for i, unit in enumerate(units[:truth.joints.shape[1]]) if unit == 'rad/s']
    away = imagined.pose - truth.pose
    joints = np.abs(imagined.joints - truth.joints)[:, turning]
    psnr_db = _psnr(imagined.rgb, truth.rgb)
    return {'psnr_db': psnr_db, 'rms': np.sqrt(_each(metrics.mean_squared_error, imagined.rgb,
                                                     truth.rgb)),
            'position_m': np.hypot(away[:, 0], away[:, 1]),
            'yaw_deg': np.rad2deg(np.abs(metrics.wrap_angle(away[:, 2]))),
            'joint_rad': joints.mean(1) if turning else np.full(len(psnr_db), np.nan),
            'uncertainty': imagined.uncertainty}


def _psnr(shown: Sequence[Optional[np.ndarray]],
          true: Sequence[Optional[np.ndarray]]) -> np.ndarray:
    return _each(metrics.psnr, shown, true)


def _each(metric: Callable[..., np.ndarray], shown: Sequence[Optional[np.ndarray]],
          true: Sequence[Optional[np.ndarray]]) -> np.ndarray:
    """Apply a metric of images to each pair; NaN where one is missing or of another size."""
    return np.array([float(metric(a, b)) if a is not None and b is not None
                     and a.shape == b.shape else np.nan for a, b in zip(shown, true)])
