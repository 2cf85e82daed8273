# SPDX-License-Identifier: Apache-2.0
"""
What a recording tells of a run, beside its frames: steps, timing, counters, what happened.

Axes: s steps (the reset's frame counts as one), a action. No ROS.
"""
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Tuple

from lingbot_world_ros.environment import from_note, NOTE
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.recording.bag import BagReader
from lingbot_world_ros.recording.recorded import Segment, SegmentBuilder, world_topics
import numpy as np

# Columns of an episode's telemetry: name here -> field of WorldStatus.
COLUMNS = {'real_time_factor': 'real_time_factor', 'frame_rate_hz': 'frame_rate',
           'step_duration_s': 'step_duration', 'latency_s': 'command_latency',
           'uncertainty': 'uncertainty', 'calibrated': 'uncertainty_calibrated',
           'contact': 'contact'}
# Counters: name here -> field of WorldStatus, whether it starts anew with each reset.
COUNTERS = {'refused': ('rejected_commands', False), 'clipped': ('clipped_commands', False),
            'timed out': ('timed_out_commands', False), 'recoveries': ('recoveries', False),
            'late frames': ('late_frames', True), 'lockstep timeouts': ('lockstep_timeouts', True)}
COUNTED_EVENTS = ('refused', 'clipped', 'timed out', 'recoveries')
FAULTS = ('none', 'failed', 'diverged', 'hung', 'lost', 'out of memory')
STATES = {0: 'stopped', 1: 'playing', 2: 'paused', 4: 'no world', 5: 'loading a world',
          10: 'error'}
ERROR = 10
GAP_S = 1.5  # events of one kind that are further apart stay apart


@dataclass(frozen=True)
class Event:
    """Something that happened: wall time since the recording began, kind, words."""

    wall_s: float
    kind: str
    text: str


@dataclass
class Episode:
    """
    One segment and how it went.

    ``spec`` is its WorldSpec message. ``step``, ``stamp_ns`` (sim time of the newest frame),
    ``received_ns`` (system time) and the columns of ``telemetry`` are (s,).
    """

    segment: Segment
    spec: Any
    mode: str
    step: List[int] = field(default_factory=list)
    stamp_ns: List[int] = field(default_factory=list)
    received_ns: List[int] = field(default_factory=list)
    telemetry: Dict[str, list] = field(default_factory=dict)
    new_latency: List[bool] = field(default_factory=list)
    told: List[np.ndarray] = field(default_factory=list)  # per status (frames of the step, a)

    @property
    def period_s(self) -> float:
        """Sim time between frames."""
        return 1.0 / self.spec.frame_rate

    @property
    def num_frames(self) -> int:
        """Frames of which it is known what they are."""
        return self.segment.num_frames

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f'{self.segment.world.scene}, seed {self.segment.seed}'


@dataclass
class Recording:
    """A whole recording; ``start_ns`` is when its first status was received, system time."""

    path: Path
    namespace: str
    episodes: List[Episode]
    counts: Dict[str, int]
    events: List[Event]
    topics: List[Tuple[str, str, int]]  # name, type, messages
    made_by: dict  # as environment() gave it, {} if not known
    start_ns: int
    duration_s: float  # wall time from the first to the last status

    @property
    def segments(self) -> List[Segment]:
        """What ``verify`` takes."""
        return [episode.segment for episode in self.episodes]

    @property
    def sim_s(self) -> float:
        """Sim time that all frames cover."""
        return sum(max(0, len(c.step) - (c.step[:1] == [0])) * c.spec.frames_per_step * c.period_s
                   for c in self.episodes)

    @property
    def num_frames(self) -> int:
        """Frames the world made while it was recorded."""
        return sum((c.step[:1] == [0]) + (len(c.step) - (c.step[:1] == [0]))
                   * c.spec.frames_per_step for c in self.episodes)

    def column(self, name: str) -> np.ndarray:
        """Return one column of the telemetry of all episodes, float64."""
        return np.array([v for c in self.episodes for v in c.telemetry[name]], np.float64)

    @property
    def wall_s(self) -> np.ndarray:
        """When each status was received, seconds since the first."""
        return np.array([(at - self.start_ns) * 1e-9 for c in self.episodes
                         for at in c.received_ns])

    @property
    def latencies_s(self) -> np.ndarray:
        """Command-to-frame times of the steps that acted on new commands, (n,) seconds."""
        fresh = np.array([new for c in self.episodes for new in c.new_latency], bool)
        return self.column('latency_s')[fresh]


def gather(path: Path, namespace: str = '') -> Recording:
    """
    Read a recording once, without its images.

    :param path: rosbag2 folder or ``.mcap`` file
    :param namespace: of the world, needed where several were recorded
    :return: what it tells
    :raises SpecError: no recording, damaged, or no world ran
    """
    with BagReader(path) as bag:
        spec, status = world_topics(bag, namespace)
        notebook = _Notebook()
        for topic, at_ns, msg in bag.received(spec, status):
            if topic == spec:
                notebook.on_spec(msg)
            else:
                notebook.on_status(at_ns, msg)
        topics = sorted((c.topic, c.msgtype, c.msgcount) for c in bag.reader.connections)
        made_by = from_note(bag.notes.get(NOTE, ''))
    if not notebook.episodes:
        raise SpecError(f'{path}: no world was running while this was recorded, so there is '
                        'nothing to report; start one with "lingbot-world sim" first.')
    return Recording(
        Path(path), status.rpartition('/')[0] or '/', notebook.episodes, notebook.counts,
        notebook.events, topics, made_by, notebook.start_ns,
        (notebook.end_ns - notebook.start_ns) * 1e-9)


class _Notebook:
    """Takes down message after message."""

    def __init__(self) -> None:
        self.episodes: List[Episode] = []
        self.events: List[Event] = []
        self.counts = dict.fromkeys(COUNTERS, 0)
        self.start_ns = self.end_ns = 0
        self._builder = SegmentBuilder()
        self._spec: Any = None  # WorldSpec
        self._last: Any = None  # WorldStatus

    def on_spec(self, msg: Any) -> None:
        self._builder.on_spec(msg)
        self._spec = msg

    def on_status(self, at_ns: int, msg: Any) -> None:
        self.start_ns = self.start_ns or at_ns
        self.end_ns = at_ns
        segment = self._builder.on_status(msg)
        if segment is not None and self._spec is not None:
            self._note_step(at_ns, msg, self._episode_of(segment, at_ns, msg))
        self._note_events(at_ns, msg)
        self._last = msg

    def _episode_of(self, segment: Segment, at_ns: int, msg: Any) -> Episode:
        if not self.episodes or self.episodes[-1].segment is not segment:
            episode = Episode(segment, self._spec, msg.mode)
            episode.telemetry = {name: [] for name in COLUMNS}
            self.episodes.append(episode)
            self._tell(at_ns, 'start', f'{episode.title} began' if int(msg.step) < 2 else
                       f'{episode.title} was at step {int(msg.step)} when the recording began')
        return self.episodes[-1]

    def _note_step(self, at_ns: int, msg: Any, episode: Episode) -> None:
        step = int(msg.step)
        if episode.step and episode.step[-1] == step:
            return
        latency_s = float(msg.command_latency)
        before_s = self._last.command_latency if self._last is not None else latency_s
        episode.step.append(step)
        episode.stamp_ns.append(msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec)
        episode.received_ns.append(at_ns)
        episode.new_latency.append(bool(step and latency_s > 0.0 and latency_s != before_s))
        episode.told.append(_actions(msg, len(episode.spec.action_names)))
        for name, source in COLUMNS.items():
            episode.telemetry[name].append(float(getattr(msg, source, np.nan)))

    def _note_events(self, at_ns: int, msg: Any) -> None:
        last = self._last
        for name, (source, per_reset) in COUNTERS.items():
            value = int(getattr(msg, source, 0))
            before = int(getattr(last, source, 0)) if last is not None else (
                0 if per_reset and msg.step < 2 else value)
            grown = value - before if value >= before else value
            self.counts[name] += grown
            if grown and name in COUNTED_EVENTS:
                told = f': {msg.message}' if msg.message else ''
                self._tell(at_ns, name, f'{grown} {_noun(name, grown)}{told}')
        if last is None:
            return
        if msg.state != last.state:
            state = STATES.get(int(msg.state), f'state {int(msg.state)}')
            fault = int(getattr(msg, 'fault', 0))
            why = f' ({FAULTS[fault] if fault < len(FAULTS) else fault}): {msg.message}'
            self._tell(at_ns, 'fault' if msg.state == ERROR else 'state',
                       state + (why if msg.state == ERROR else ''))
        if msg.step and len(msg.anchor) and msg.step != last.step:
            self._tell(at_ns, 'moved', 'robot or objects were put elsewhere from outside')
        prompt = getattr(msg, 'prompt', '')
        if prompt and prompt != getattr(last, 'prompt', ''):
            self._tell(at_ns, 'prompt', prompt)

    def _tell(self, at_ns: int, kind: str, text: str) -> None:
        """Take down an event; more of the same kind within a second are one."""
        wall_s = (at_ns - self.start_ns) * 1e-9
        self.events.append(Event(wall_s, kind, text))


def _actions(msg: Any, num_columns: int) -> np.ndarray:
    values = np.array(msg.actions, np.float32)
    if not num_columns or values.size % num_columns:
        return np.zeros((0, num_columns), np.float32)
    return values.reshape(-1, num_columns)


def _noun(name: str, number: int) -> str:
    if name == 'recoveries':
        return 'step repeated from the last good state' if number == 1 else \
            'steps repeated from the last good state'
    return f'command{"" if number == 1 else "s"} {name}'


def merged(events: List[Event]) -> List[Event]:
    """
    Put runs of counted events of one kind together, unless ``GAP_S`` lies between two.

    :param events: in the order of time
    :return: fewer events
    """
    found: List[List[Event]] = []
    newest: Dict[str, List[Event]] = {}
    for event in events:
        run = newest.get(event.kind)
        if event.kind in COUNTED_EVENTS and run and event.wall_s - run[-1].wall_s < GAP_S:
            run.append(event)
            continue
        newest[event.kind] = [event]
        found.append(newest[event.kind])
    return [_one(run) for run in found]


def _one(run: List[Event]) -> Event:
    first = run[0]
    if len(run) == 1:
        return first
    number = sum(int(event.text.split()[0]) for event in run)
    words = next((e.text.partition(': ')[2] for e in run if ': ' in e.text), '')
    return Event(first.wall_s, first.kind, f'{number} {_noun(first.kind, number)} in '
                 f'{run[-1].wall_s - first.wall_s:.1f} s' + (f': {words}' if words else ''))
