# SPDX-License-Identifier: Apache-2.0
"""Replaying: what a recording tells, whether it can be repeated, and where it differs. No ROS."""
from dataclasses import replace
import logging
from types import SimpleNamespace

from fake_world import FakeChunkWorld, FakeClock, FakeWorld
from lingbot_world_ros.actions.embedding import ActionEmbedding
from lingbot_world_ros.cli.replay import verify_segments
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.recording.recorded import segments
from lingbot_world_ros.recording.replay import (blocks, definition_of, DIFFERS, RecordedActions,
                                                SAME, UNVERIFIABLE, verify)
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Mode
from lingbot_world_ros.session.status import SessionStatus
from lingbot_world_ros.worlds.definition import WorldDefinition
from needs import need_engine
import numpy as np
import pytest
from waiting import PATIENCE_S

LOG = logging.getLogger('test')


class Messages(SessionObserver):
    """Keeps what the topics world_spec and world_status would carry."""

    def __init__(self, spec):
        self.spec, self.all = spec, []

    def on_reset(self, status):
        self.all.append((True, SimpleNamespace(
            engine=self.spec.engine, model=self.spec.model, world_resource=status.world_text,
            scene=status.scene, frames_per_step=self.spec.frames_per_step,
            width=self.spec.camera.width_px, height=self.spec.camera.height_px,
            action_names=self.spec.action.names)))

    def on_status(self, status):
        actions = () if status.actions is None else status.actions.ravel()
        sec, nanosec = divmod(status.stamp_ns, 1_000_000_000)
        self.all.append((False, SimpleNamespace(
            header=SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec)),
            scene=status.scene, seed=status.seed, step=status.step, digest=status.digest,
            actions=np.array(actions, np.float32), anchor=np.array(status.anchor),
            prompt=status.prompt, images_anchored=status.images_anchored)))

    def statuses(self):
        return [msg for is_spec, msg in self.all if not is_spec]


class Wander:
    """Asks for random motion, as an encoder would."""

    def __init__(self, spec, seed=0):
        self._actions, self._rng = RecordedActions(spec), np.random.default_rng(seed)
        self._spec = spec

    def catch_up(self):
        pass

    def pull(self, sim_ns, joint_position, by_step=False):
        low, high = self._spec.action.low, self._spec.action.high
        shape = (self._spec.frames_per_step, len(low))
        self._actions.put([SimpleNamespace(
            index=self._actions.step_at(sim_ns),
            actions=self._rng.uniform(low, high, shape).astype(np.float32))])
        return self._actions.pull(sim_ns, joint_position)


def recorded(world, act, definition=None, **spec):
    """Let a session act and return what a recorder of its topics would have heard."""
    messages = Messages(world.spec)
    session = Session(world, SessionSpec(initial_state='paused', **spec), observers=[messages],
                      log=LOG, clock=FakeClock())
    session.link(Wander(world.spec))
    scene = world.spec.scenes[0]
    session.start(definition or WorldDefinition(scene, scene, seed=3)).result(PATIENCE_S)
    act(session)
    session.close()
    return messages.all


def eventful(session):
    """Steps, teleports, a pause in between, a reset, another world."""
    session.advance(4).result(PATIENCE_S)
    session.move('robot', pose=(0.5, -0.5, 1.0)).result(PATIENCE_S)
    session.advance(2).result(PATIENCE_S)
    session.move('robot', pose=(0.1, 0.2, 0.3), twist=(0.1, 0.0, 0.2)).result(PATIENCE_S)
    session.move('robot', pose=(0.2, 0.2, 0.3)).result(PATIENCE_S)
    session.play().result(PATIENCE_S)
    session.pause().result(PATIENCE_S)
    session.advance(3).result(PATIENCE_S)
    session.reset(time=True, state=False).result(PATIENCE_S)  # of time only: the world goes on
    session.advance(2).result(PATIENCE_S)
    session.reset(seed=5).result(PATIENCE_S)
    session.advance(3).result(PATIENCE_S)
    joints = {session.world.spec.joints[0].name: 0.4}
    session.load(WorldDefinition('elsewhere', 'b', seed=1, start_pose=(1.0, 0.0, 0.5),
                                 joints=joints)).result(PATIENCE_S)
    session.pause().result(PATIENCE_S)
    session.advance(3).result(PATIENCE_S)
    session.unload().result(PATIENCE_S)


def fake(name):
    assert name == 'fake'
    return FakeWorld()


def outcomes(story, make_engine=fake):
    return [(v.outcome, v.num_frames) for v in verify(story, make_engine)]


@pytest.fixture
def messages():
    return recorded(FakeWorld(), eventful)


def test_a_session_with_resets_teleports_and_loads_repeats(messages, capsys):
    story = segments(messages)
    assert [(s.world.scene, s.seed, s.problem) for s in story] == [
        ('a', 3, ''), ('a', 5, ''), ('b', 1, '')]
    assert [len(s.steps) for s in story][1:] == [3, 3]
    assert verify_segments(story, make_engine=fake) == 0
    said = capsys.readouterr().out
    assert said.count(': same') == 3
    assert f'\n{sum(s.num_frames for s in story)} frames' in said


def test_teleports_are_kept_in_their_order(messages):
    steps = segments(messages)[0].steps
    anchors = {step.index: [anchor[:3] for anchor in step.anchors] for step in steps}
    assert anchors[5] == [(0.5, -0.5, 1.0)]
    assert anchors[7] == [(0.1, 0.2, 0.3), (0.2, 0.2, 0.3)]
    assert {index for index, anchor in anchors.items() if anchor} == {5, 7}
    assert [[step.index for step in block][0] for block in blocks(steps)] == [1, 5, 7]


def test_steps_of_several_frames_repeat():
    story = segments(recorded(FakeWorld(frames_per_step=4), eventful))
    assert {s.steps[0].actions.shape for s in story} == {(4, 7)}
    assert {outcome for outcome, _ in outcomes(story, lambda _: FakeWorld(frames_per_step=4))} \
        == {SAME}


def test_another_action_is_found_at_its_step(messages, capsys):
    story = segments(messages)
    story[1].steps[1].actions.view(np.uint8)[0, 2] ^= 1
    assert verify_segments(story, make_engine=fake) == 1
    said = capsys.readouterr().out
    assert 'Segment 2' in said and 'step 2 differs, at 0.200 s' in said
    assert outcomes(story) == [(SAME, story[0].num_frames), (DIFFERS, 2), (SAME, 4)]


def test_another_start_or_teleport_is_found(messages):
    story = segments(messages)
    story[0].steps[4] = replace(story[0].steps[4], anchors=())
    story[1].seed += 1
    assert outcomes(story)[:2] == [(DIFFERS, 5), (DIFFERS, 0)]


def test_a_missing_status_is_told_and_the_next_reset_goes_on(messages, capsys):
    gone = [m for m in messages if m[0] or not (m[1].seed == 3 and m[1].step in (2, 3))]
    story = segments(gone)
    assert verify_segments(story, make_engine=fake) == 2
    said = capsys.readouterr().out
    assert f'steps 2 to 3 is missing; steps 2 to {story[0].last_step} cannot be compared' in said
    assert [outcome for outcome, _ in outcomes(story)] == [UNVERIFIABLE, SAME, SAME]


def test_a_recording_begun_in_the_middle_repeats_from_the_next_reset_on(messages):
    late = [m for m in messages if m[0] or m[1].seed != 3 or m[1].step > 4]
    story = segments(late)
    verdicts = list(verify(story, fake))
    assert verdicts[0].outcome == UNVERIFIABLE and 'first 5 steps' in verdicts[0].text
    assert [v.outcome for v in verdicts[1:]] == [SAME, SAME]


def test_a_first_status_after_the_first_step_is_soon_enough(messages):
    late = [m for m in messages if m[0] or m[1].seed != 3 or m[1].step > 0]
    story = segments(late)
    assert outcomes(story)[0] == (SAME, len(story[0].steps))


def test_statuses_that_come_twice_change_nothing(messages):
    twice = [m for message in messages for m in [message] * (1 if message[0] else 2)]
    assert outcomes(segments(twice)) == outcomes(segments(messages))


def test_without_world_spec_nothing_can_be_told(messages):
    story = segments(m for m in messages if not m[0])
    assert {v.outcome for v in verify(story, fake)} == {UNVERIFIABLE}
    assert 'world_spec' in story[0].problem


@pytest.mark.parametrize('change, words', [
    (dict(model='fake 2'), "made by 'fake 2', here is 'fake 1'"),
    (dict(size=(80, 60)), 'imagined in 80x60 pixels'),
    (dict(text='scene: moon'), 'moon'),
    (dict(num_actions=9), 'action values'),
])
def test_what_cannot_be_repeated_here_says_why(messages, change, words):
    if 'num_actions' in change:
        messages = [(s, SimpleNamespace(**{**vars(m), 'action_names': ('x',) * 9}) if s else m)
                    for s, m in messages]
    story = segments(messages)
    for segment in story:
        segment.world = replace(segment.world, **change)
    verdict = next(verify(story, fake))
    assert verdict.outcome == UNVERIFIABLE and words in verdict.text


def test_an_engine_that_fails_cannot_verify_but_the_next_segment_can(messages):
    class Broken(FakeWorld):
        def step(self, actions, render=True):
            raise RuntimeError('out of ideas')

    story = segments(messages)
    verdicts = list(verify(story[:1], lambda _: Broken()))
    assert verdicts[0].outcome == UNVERIFIABLE and 'out of ideas' in verdicts[0].text
    assert outcomes(story)[1:] == [(SAME, 4), (SAME, 4)]


def test_an_unknown_engine_is_one_error(messages):
    with pytest.raises(SpecError, match="engine 'fake'"):
        list(verify(segments(messages)))


def test_recorded_actions_are_what_an_encoder_gives():
    spec = FakeWorld(frames_per_step=2).spec
    period_ns = spec.frame_period_ns
    source = RecordedActions(spec)
    assert source.pull(period_ns, np.zeros(5)) is None
    rows = np.linspace(-0.1, 0.1, 28, dtype=np.float32).reshape(2, 2, 7)
    source.put([SimpleNamespace(index=4 + i, actions=row) for i, row in enumerate(rows)])
    for _ in range(2):  # a step that was taken back is asked for again
        first = source.pull(7 * period_ns, np.zeros(5))
        assert isinstance(first, ActionEmbedding) and first.sequence == 4
        np.testing.assert_array_equal(first.embedding, rows[0])
    assert source.pull(9 * period_ns, np.zeros(5)).sequence == 5
    assert source.pull(11 * period_ns, np.zeros(5)) is None


def test_the_last_recorded_step_is_told_once_it_was_made():
    source, calls = RecordedActions(FakeWorld().spec), []
    source.on_last = lambda: calls.append('last')
    source.put([SimpleNamespace(index=4), SimpleNamespace(index=5)])
    for state, step in (('playing', 4), ('paused', 5), ('playing', 5)):
        source.on_status(SessionStatus(state, Mode.REALTIME, step=step))
    assert calls == ['last']


def leading(session):
    """Change the prompt twice, once before the first step."""
    session.set_prompt('fog').result(PATIENCE_S)
    session.advance(2).result(PATIENCE_S)
    session.set_prompt('a long line of snow').result(PATIENCE_S)
    session.advance(2).result(PATIENCE_S)
    session.reset().result(PATIENCE_S)
    session.advance(2).result(PATIENCE_S)


def test_prompts_repeat_and_another_one_is_found():
    messages = recorded(FakeChunkWorld(), leading)
    story = segments(messages)
    assert [[step.prompt for step in s.steps] for s in story] == [
        ['fog'] * 2 + ['a long line of snow'] * 2, [''] * 2]
    assert [len(block) for block in blocks(story[0].steps)] == [2, 2]
    assert outcomes(story, lambda _: FakeChunkWorld()) == [(SAME, 49), (SAME, 25)]
    story[0].steps[1] = replace(story[0].steps[1], prompt='foggy')
    assert outcomes(story, lambda _: FakeChunkWorld())[0] == (DIFFERS, 13)


def test_images_put_in_end_what_can_be_repeated():
    def act(session):
        session.advance(2).result(PATIENCE_S)
        session.anchor_image(np.full((4, 4, 3), 9, np.uint8)).result(PATIENCE_S)
        session.advance(3).result(PATIENCE_S)
        session.reset().result(PATIENCE_S)
        session.advance(1).result(PATIENCE_S)

    story = segments(recorded(FakeChunkWorld(), act))
    verdicts = list(verify(story, lambda _: FakeChunkWorld()))
    assert [(v.outcome, v.num_frames) for v in verdicts] == [(UNVERIFIABLE, 25), (SAME, 13)]
    assert ('an image was put in before step 3, which recordings do not hold; steps 3 to 5 '
            'cannot be compared') in verdicts[0].text


def test_start_images_are_read_only_where_that_is_allowed(tmp_path):
    image = tmp_path / 'first.png'
    image.write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(20))
    world = FakeChunkWorld()
    definition = WorldDefinition('a', 'a', seed=3, prompt='rain', images=(str(image),))
    story = segments(recorded(world, lambda session: session.advance(1).result(PATIENCE_S),
                              definition))
    assert world.starts[0].images == (str(image),)
    verdict = next(verify(story, lambda _: FakeChunkWorld()))
    assert verdict.outcome == UNVERIFIABLE and 'folders that may be read' in verdict.text
    assert [v.outcome for v in verify(story, lambda _: FakeChunkWorld(), str(tmp_path))] == [SAME]


def test_the_learned_world_repeats_with_moved_objects():
    need_engine('room')
    from lingbot_world_ros.engines.room.engine import RoomWorld

    def act(session):
        session.advance(5).result(PATIENCE_S)
        thing = next(e for e in session.entities().values() if e.category == 'object')
        session.move(thing.name, pose=thing.pose + (0.3, 0.1, 0.5)).result(PATIENCE_S)
        session.advance(3).result(PATIENCE_S)
        session.move('robot', pose=session.entities()['robot'].pose + (0.1, 0.0, 0.4),
                     twist=(0.2, 0.0, 0.1)).result(PATIENCE_S)
        session.advance(3).result(PATIENCE_S)
        session.reset(seed=8).result(PATIENCE_S)
        session.advance(3).result(PATIENCE_S)

    world = RoomWorld()
    story = segments(recorded(world, act))
    assert outcomes(story, lambda _: RoomWorld()) == [(SAME, 12), (SAME, 4)]
    assert definition_of(story[1], world.spec).seed == 8
