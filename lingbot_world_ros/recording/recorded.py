# SPDX-License-Identifier: Apache-2.0
"""
What a recording says about a world: where it started, what it was told, what it showed.

Read from WorldSpec and WorldStatus messages, whoever deserialised them. No ROS.
"""
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, List, Optional, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.recording.bag import BagReader
import numpy as np

SPEC, STATUS = 'lingbot_world_ros/msg/WorldSpec', 'lingbot_world_ros/msg/WorldStatus'


@dataclass(frozen=True)
class RecordedWorld:
    """
    What was loaded, and by which engine.

    ``text`` is YAML as LoadWorld takes it, ``size`` width and height of what the engine drew, in
    pixels; 0 is not known.
    """

    engine: str
    model: str
    text: str
    scene: str
    frames_per_step: int
    num_actions: int
    size: Tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class RecordedStep:
    """
    One step: ``actions`` (T, A) float32 drove it, ``digest`` sums up all frames up to its last.

    ``anchors`` were set from outside before it, in this order; each as in WorldStatus.msg.
    ``prompt`` is the text it was made with.
    """

    index: int
    stamp_ns: int
    actions: np.ndarray
    anchors: Tuple[Tuple[float, ...], ...]
    digest: str
    prompt: str = ''


@dataclass
class Segment:
    """
    What happened from one reset to the next.

    ``first_digest`` is that of the frame the reset showed, '' if it was not recorded. ``steps``
    follow one another without a gap; ``problem`` says why later ones cannot be repeated, '' if
    none is missing; ``last_step`` is the index of the last one seen.
    """

    number: int
    world: RecordedWorld
    seed: int
    first_digest: str = ''
    steps: List[RecordedStep] = field(default_factory=list)
    problem: str = ''
    last_step: int = 0

    @property
    def num_frames(self) -> int:
        """Frames that can be compared."""
        return bool(self.first_digest) + len(self.steps) * self.world.frames_per_step


def read_recording(path: Path, namespace: str = '') -> List[Segment]:
    """
    Read what one world did from a recording.

    :param path: rosbag2 folder or ``.mcap`` file
    :param namespace: of the world, needed where several were recorded
    :return: what happened, reset by reset
    :raises SpecError: no recording, damaged, or without ``world_spec`` and ``world_status``
    """
    with BagReader(path) as bag:
        spec, status = world_topics(bag, namespace)
        found = segments((topic == spec, msg) for topic, msg in bag.messages(spec, status))
    if not found:
        raise SpecError(f'{path}: no world was running while this was recorded; start one with '
                        '"lingbot-world sim" first.')
    return found


def world_topics(bag: BagReader, namespace: str = '') -> Tuple[str, str]:
    """
    Find the topics that tell of one world.

    :param bag: opened
    :param namespace: of the world, needed where several were recorded
    :return: names of ``world_spec`` and ``world_status``
    :raises SpecError: there is none, or a choice
    """
    status, specs = _topic(bag, STATUS, namespace), bag.topics(SPEC)
    if not namespace and len(specs) == 1:  # of one world, whatever its topics were renamed to
        return specs[0], status
    return _topic(bag, SPEC, status.rpartition('/')[0] or '/'), status


def _topic(bag: BagReader, msg_type: str, namespace: str) -> str:
    found = bag.topics(msg_type)
    if namespace:
        below = '/' + namespace.strip('/')
        found = [topic for topic in found if (topic.rpartition('/')[0] or '/') == below]
    name = msg_type.rpartition('/')[2]
    if not found:
        where = f' in namespace {namespace}' if namespace else ''
        raise SpecError(f'{bag.path} holds no {name}{where}, so there is nothing to replay; '
                        'record it with "lingbot-world record".')
    if len(found) > 1:
        raise SpecError(f'{bag.path} holds several worlds: choose one of {", ".join(found)} with '
                        '--namespace.')
    return found[0]


def segments(messages: Iterable[Tuple[bool, object]]) -> List[Segment]:
    """
    Put messages together again to what happened.

    :param messages: in the order of recording; first whether it is a WorldSpec, else it is a
        WorldStatus
    :return: one segment per reset
    """
    builder = SegmentBuilder()
    for is_spec, msg in messages:
        if is_spec:
            builder.on_spec(msg)
        else:
            builder.on_status(msg)
    return builder.segments


class SegmentBuilder:
    """
    Reads one message after another; a status may come twice, or not at all.

    ``segments`` is what was told so far.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.segments: List[Segment] = []
        self._segment: Optional[Segment] = None
        self._world: Optional[RecordedWorld] = None
        self._last: Any = None  # WorldStatus
        self._anchors: List[Tuple[float, ...]] = []  # set since the newest step

    def on_spec(self, msg: Any) -> None:
        """Take in a WorldSpec."""
        self._world = RecordedWorld(msg.engine, msg.model, msg.world_resource, msg.scene,
                                    int(msg.frames_per_step), len(msg.action_names),
                                    (int(msg.width), int(msg.height)))

    def on_status(self, msg: Any) -> Optional[Segment]:
        """
        Take in a WorldStatus.

        :param msg: the message
        :return: the segment it belongs to, None without a world
        """
        if not msg.digest:  # no world
            self._segment = None
        elif self._segment is None or self._is_new(msg):
            self._begin(msg)
        elif msg.step == self._last.step:
            anchor = tuple(msg.anchor)
            if anchor and anchor != tuple(self._last.anchor):
                self._anchors.append(anchor)
        else:
            self._add(self._segment, msg)
        self._last = msg
        return self._segment

    def _is_new(self, msg: Any) -> bool:
        last = self._last
        return ((msg.scene, msg.seed) != (last.scene, last.seed) or msg.step < last.step
                or msg.step == last.step == 0 and (
                    msg.digest != last.digest or len(last.anchor) > 0 and not len(msg.anchor)))

    def _begin(self, msg: Any) -> None:
        world = self._world or RecordedWorld('', '', '', msg.scene, 1, 0)
        self._segment = segment = Segment(len(self.segments) + 1, world, int(msg.seed),
                                          last_step=int(msg.step))
        self.segments.append(segment)
        self._anchors = [tuple(msg.anchor)] if msg.step == 0 and len(msg.anchor) else []
        if self._world is None:
            segment.problem = 'its world_spec was not recorded'
        elif msg.step > 1:
            segment.problem = f'its first {int(msg.step)} steps were not recorded'
        elif msg.step == 1:
            self._add_step(segment, msg)
        else:
            segment.first_digest = msg.digest

    def _add(self, segment: Segment, msg: Any) -> None:
        segment.last_step = int(msg.step)
        if not segment.problem:
            first = self._last.step + 1
            if msg.step != first:
                segment.problem = (f'the status of {_range("step", first, msg.step - 1)} is '
                                   'missing')
            else:
                self._add_step(segment, msg)

    def _add_step(self, segment: Segment, msg: Any) -> None:
        world, anchor = segment.world, tuple(msg.anchor)
        if len(msg.actions) != world.frames_per_step * world.num_actions:
            segment.problem = (f'the status of step {int(msg.step)} holds '
                               f'{len(msg.actions)} action values')
            return
        if getattr(msg, 'images_anchored', 0):  # recordings of old versions have none
            segment.problem = (f'an image was put in before step {int(msg.step)}, which '
                               'recordings do not hold')
            return
        if anchor and self._anchors[-1:] != [anchor]:
            self._anchors.append(anchor)
        actions = np.array(msg.actions, np.float32).reshape(world.frames_per_step, -1)
        stamp = msg.header.stamp
        segment.steps.append(RecordedStep(
            int(msg.step), stamp.sec * 1_000_000_000 + stamp.nanosec, actions,
            tuple(self._anchors), msg.digest, getattr(msg, 'prompt', '')))
        self._anchors = []


def _range(what: str, first: int, last: int) -> str:
    return f'{what} {first}' if first == last else f'{what}s {first} to {last}'
