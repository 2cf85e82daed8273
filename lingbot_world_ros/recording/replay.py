# SPDX-License-Identifier: Apache-2.0
"""
Make a recorded world happen again: the same engine, the same start, the same actions.

Nothing but the engine decides what comes out, so on the machine that recorded it the frames have
the same bytes; ``verify`` checks that digest by digest. No ROS.
"""
from dataclasses import dataclass, replace
import logging
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from lingbot_world_ros.actions.embedding import ActionEmbedding
from lingbot_world_ros.engines.interface import WorldModel, WorldSpec
from lingbot_world_ros.engines.registry import make_world
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.recording.recorded import RecordedStep, Segment
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Mode, State
from lingbot_world_ros.session.status import SessionStatus
from lingbot_world_ros.worlds.definition import WorldDefinition
from lingbot_world_ros.worlds.library import WorldLibrary
import numpy as np

SAME, DIFFERS, UNVERIFIABLE = 'same', 'differs', 'unverifiable'
POSE_SIZE = 3  # x, y, yaw, and as many numbers for a twist


class RecordedActions(SessionObserver):
    """
    Stands where an encoder is and hands out what was recorded; see ``EmbeddingSource``.

    ``on_last`` is called by the worker when the last step there is was made, if the session has
    this one among its observers. Sim time says which step begins: a step may be asked for twice.
    """

    def __init__(self, spec: WorldSpec):
        """
        Begin with nothing to hand out, which makes the robot stand still.

        :param spec: of the engine
        """
        self._spec = spec
        self.on_last: Callable[[], None] = lambda: None
        self._camera = spec.camera
        self._steps: Dict[int, RecordedStep] = {}

    def put(self, steps: Sequence[RecordedStep]) -> None:
        """Hand out the actions of these steps and no others."""
        self._steps = {step.index: step for step in steps}

    def link(self, *_: object) -> None:
        """Take no notice of sim time and of commands; a node offers both."""

    def begin(self, *_: object) -> None:
        """Take no notice of a world that starts."""

    def observe(self, *_: object) -> None:
        """Take no notice of frames."""

    def stop(self, *_: object) -> None:
        """Take no notice of a world that stands."""

    def catch_up(self) -> None:
        """Nothing comes in."""

    def on_status(self, status: SessionStatus) -> None:
        """Notice when the last step has been made."""
        if status.state == State.PLAYING and status.step == max(self._steps, default=None):
            self.on_last()

    def step_at(self, sim_ns: int) -> int:
        """
        Say which step begins.

        :param sim_ns: sim time of the frame before it, where time began at zero with the world
        :return: index of the step, from 1
        """
        num_frames = round(sim_ns / self._spec.frame_period_ns) - 1  # the first is of the reset
        return num_frames // self._spec.frames_per_step + 1

    def pull(self, sim_ns: int, joint_position: np.ndarray,
             by_step: bool = False) -> Optional[ActionEmbedding]:
        """Return the actions of the step that begins, None if there are none."""
        step = self._steps.get(self.step_at(sim_ns))
        if step is None:
            return None
        spec, shape = self._spec, (len(step.actions), len(self._spec.joints))
        return ActionEmbedding(
            sequence=step.index, stamp_ns=sim_ns, period_s=1.0 / spec.frame_rate_hz,
            camera_motion=np.broadcast_to(np.eye(4), (len(step.actions), 4, 4)),
            joint_names=spec.robot.joint_names, joint_position=np.full(shape, np.nan),
            joint_velocity=np.zeros(shape), camera=self._camera, layout=spec.action.names,
            embedding=step.actions)


def definition_of(segment: Segment, spec: WorldSpec, world_path: str = '') -> WorldDefinition:
    """
    Return the world a segment started from.

    :param segment: recorded
    :param spec: of the engine that shall run it
    :param world_path: folders with start images, as in ``WorldLibrary``; a recording is data that
        somebody sent and opens no others
    :raises SpecError: the engine does not know that world
    """
    world = segment.world
    if not world.text:
        return WorldDefinition(world.scene, world.scene, segment.seed)
    return replace(WorldLibrary(spec, world_path).load(text=world.text), seed=segment.seed)


def blocks(steps: Sequence[RecordedStep]) -> Iterator[List[RecordedStep]]:
    """Cut steps so that something was set from outside only before the first of a block."""
    block: List[RecordedStep] = []
    for step in steps:
        if block and (step.anchors or step.prompt != block[-1].prompt):
            yield block
            block = []
        block.append(step)
    if block:
        yield block


def set_anchors(session: Session, anchors: Sequence[Tuple[float, ...]]) -> None:
    """
    Set from outside what was set then.

    :param session: paused, where it was then
    :param anchors: as in ``RecordedStep``
    """
    for anchor in anchors:
        entities = session.entities()
        objects = [name for name, entity in entities.items() if entity.category == 'object']
        robot = entities[session.spec.entity_name]
        pose, twist, rest = np.split(np.array(anchor), (POSE_SIZE, 2 * POSE_SIZE))
        moves: List[Tuple[str, np.ndarray, Optional[np.ndarray]]] = [
            (name, place, None) for name, place in zip(objects, rest.reshape(-1, POSE_SIZE))
            if not np.array_equal(place, entities[name].pose)]
        if not moves or not np.array_equal(pose, robot.pose):
            moves.append((robot.name, pose, twist))
        for move in moves:
            session.move(*move).result()


def set_prompt(session: Session, prompt: str) -> None:
    """
    Set the prompt that was in effect then.

    :param session: paused, where it was then
    :param prompt: as in ``RecordedStep``
    """
    if prompt != session.status.prompt:
        session.set_prompt(prompt).result()


@dataclass(frozen=True)
class Verdict:
    """
    What came of one segment.

    ``outcome`` is SAME, DIFFERS or UNVERIFIABLE, ``text`` says where and why; ``num_frames`` were
    the same before that.
    """

    segment: Segment
    outcome: str
    num_frames: int
    text: str = ''


def open_session(engine: WorldModel, observers: Sequence[SessionObserver] = ()
                 ) -> Tuple[Session, RecordedActions]:
    """
    Prepare an engine for ``replay_segment``.

    :param engine: not yet reset
    :param observers: told about frames and status
    :return: the session, to be closed by the caller, and where its actions come from
    """
    source = RecordedActions(engine.spec)
    session = Session(engine, SessionSpec(mode=Mode.STEPPED, initial_state=State.PAUSED),
                      observers=observers, log=logging.getLogger(__name__))
    session.link(source)
    return session, source


def replay_segment(segment: Segment, session: Session, source: RecordedActions,
                   world_path: str = '') -> Iterator[Optional[RecordedStep]]:
    """
    Start where a segment started and make its steps.

    :param segment: recorded
    :param session: from ``open_session``
    :param source: of its actions
    :param world_path: folders with start images
    :return: None when the first frame is there, then each step once its frames are
    :raises SpecError: the engine does not know that world
    """
    session.load(definition_of(segment, session.world.spec, world_path)).result()
    session.pause().result()
    yield None
    for step in segment.steps:
        set_anchors(session, step.anchors)
        set_prompt(session, step.prompt)
        source.put([step])
        session.advance(1).result()
        yield step


def verify(segments: Sequence[Segment], make_engine: Callable[[str], WorldModel] = make_world,
           world_path: str = '',
           tell: Callable[[int], None] = lambda num_frames: None) -> Iterator[Verdict]:
    """
    Let everything happen again, as fast as the engine goes, and compare.

    :param segments: from ``read_recording``
    :param make_engine: makes an engine by the name of ``WorldSpec.engine``
    :param world_path: folders with start images
    :param tell: called with the number of frames compared since the last call
    :return: one verdict per segment, when it is there
    :raises SpecError: the engine cannot be made here
    """
    engine_name: Optional[str] = None
    opened: Optional[Tuple[Session, RecordedActions]] = None
    try:
        for segment in segments:
            if not segment.num_frames:
                yield Verdict(segment, UNVERIFIABLE, 0, _incomplete(segment))
                continue
            if opened is None or segment.world.engine != engine_name:
                if opened is not None:
                    opened[0].close()
                engine_name = segment.world.engine
                opened = open_session(make_engine(engine_name))
            yield _verify_segment(segment, *opened, world_path, tell)
    finally:
        if opened is not None:
            opened[0].close()


def _verify_segment(segment: Segment, session: Session, source: RecordedActions,
                    world_path: str, tell: Callable[[int], None]) -> Verdict:
    spec, num_same = session.world.spec, 0
    if spec.model != segment.world.model:
        return Verdict(segment, UNVERIFIABLE, 0, f'it was made by {segment.world.model!r}, here '
                       f'is {spec.model!r}.')
    drawn, here = segment.world.size, (spec.camera.width_px, spec.camera.height_px)
    if all(drawn) and drawn != here:
        return Verdict(segment, UNVERIFIABLE, 0, 'it was imagined in {}x{} pixels, here is {}x{}; '
                       'give --param image_width:={} --param image_height:={}.'.format(
                           *drawn, *here, *drawn))
    try:
        for step in replay_segment(segment, session, source, world_path):
            same = session.status.digest == (segment.first_digest if step is None else
                                             step.digest)
            if step is None and not segment.first_digest:  # it was not recorded
                continue
            if not same:
                return Verdict(segment, DIFFERS, num_same, 'the first frame, at step 0, differs.'
                               if step is None else f'step {step.index} differs, at '
                               f'{step.stamp_ns * 1e-9:.3f} s of sim time.')
            num_frames = 1 if step is None else spec.frames_per_step
            num_same += num_frames
            tell(num_frames)
    except SpecError as error:
        return Verdict(segment, UNVERIFIABLE, num_same, str(error))
    except Exception as error:  # an engine may fail in any way
        return Verdict(segment, UNVERIFIABLE, num_same, 'the engine failed: '
                       f'{type(error).__name__}: {error}')
    if segment.problem:
        return Verdict(segment, UNVERIFIABLE, num_same, _incomplete(segment))
    return Verdict(segment, SAME, num_same)


def _incomplete(segment: Segment) -> str:
    """Say which steps are left out, and why."""
    first = segment.steps[-1].index + 1 if segment.steps else int(bool(segment.first_digest))
    return f'{segment.problem}; steps {first} to {segment.last_step} cannot be compared.'
