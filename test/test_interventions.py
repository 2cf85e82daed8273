# SPDX-License-Identifier: Apache-2.0
"""What of a running world is set from outside, and pictures that are drawn after all."""
from dataclasses import replace
import logging

from fake_world import FakeChunkWorld, FakeClock, FakeWorld
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.session.entities import (anchor_of, entities_of, with_object_at,
                                                with_robot_at)
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.spec import SessionSpec
import numpy as np
import pytest
from test_session import embedding_of, PERIOD_NS, Recorder, refusal, room, wait_for
from waiting import PATIENCE_S

LOG = logging.getLogger('test')


class Drawing(FakeWorld):
    """Draws only when it is asked to; has two objects that can be put elsewhere."""

    num_drawn = 0

    def __init__(self, **can):
        super().__init__()
        self.spec = replace(self.spec, can=replace(self.spec.can, **can))
        self._objects = np.array([[1.0, 2.0, 0.25], [3.0, 4.0, 0.5]])

    def step(self, actions, render=True):
        return self._with_objects(super().step(actions), render)

    def reset(self, scene, seed):
        return self._with_objects(super().reset(scene, seed))

    def observe(self, observation, render=True):
        self._objects = observation.object_pose[0, -1].copy()
        return self._with_objects(super().observe(observation), render)

    def snapshot(self):
        return super().snapshot(), self._objects.copy()

    def restore(self, snapshot):
        super().restore(snapshot[0])
        self._objects = snapshot[1].copy()

    def object_names(self, scene):
        return 'ball', 'box'

    def _with_objects(self, observation, render=True):
        self.num_drawn += render
        seen = replace(observation, object_pose=np.tile(
            self._objects, (1, observation.base_pose.shape[1], 1, 1)))
        return seen if render else replace(seen, rgb=None, depth_m=None)


class Seen(Recorder):
    """Keeps what was drawn after all, too."""

    def __init__(self, clock):
        super().__init__(clock)
        self.drawn = []

    def on_drawn(self, frame):
        self.drawn.append(frame)


def paused(world, is_watched=lambda: True, state='paused', **spec):
    """Start a session that makes steps when it is asked to."""
    seen = Seen(FakeClock())
    session = Session(world, SessionSpec(initial_state=state, **spec), observers=[seen], log=LOG,
                      clock=seen.clock, is_watched=is_watched)
    session.start(room()).result(PATIENCE_S)
    wait_for(lambda: session.status.state == state)
    return session, seen


def test_a_frame_without_a_picture_is_drawn_when_somebody_looks():
    world, watched = Drawing(), [False]
    session, seen = paused(world, lambda: watched[0])
    session.set_embedding(embedding_of(world, 0.3))
    session.advance(2).result(PATIENCE_S)
    newest = seen.frames[-1]
    assert newest.rgb is None and newest.depth_m is None
    before, digest = world.snapshot()[0], session.status.digest
    status = session.look().result(PATIENCE_S)
    assert (status.frame, status.digest, status.state) == (3, digest, 'paused')
    (drawn,) = seen.drawn
    assert (drawn.index, drawn.stamp_ns) == (newest.index, newest.stamp_ns) == (3, 3 * PERIOD_NS)
    assert drawn.rgb[0, 0, 0] == 2 and drawn.depth_m is not None
    assert drawn.base_pose.tolist() == newest.base_pose.tolist()
    assert drawn.start_pose.tolist() == newest.start_pose.tolist()
    after = world.snapshot()[0]
    assert after[1] == before[1] and np.array_equal(after[2], before[2])  # its state is as it was
    session.look().result(PATIENCE_S)  # it has its picture now
    assert len(seen.drawn) == 1 and len(seen.frames) == 3
    session.advance(1).result(PATIENCE_S)
    assert seen.frames[-1].base_pose[0] > newest.base_pose[0]
    session.close()


def test_a_frame_that_has_its_picture_is_not_drawn_again():
    world = Drawing()
    session, seen = paused(world)
    session.advance(1).result(PATIENCE_S)
    num_drawn = world.num_drawn
    session.look().result(PATIENCE_S)
    assert (seen.drawn, world.num_drawn) == ([], num_drawn)
    session.close()


def test_an_engine_that_cannot_render_draws_nothing_after_all():
    world = Drawing(render=False)
    session, seen = paused(world, lambda: False)
    session.advance(1).result(PATIENCE_S)
    num_drawn = world.num_drawn
    assert session.look().result(PATIENCE_S).frame == 2
    assert (seen.drawn, world.num_drawn) == ([], num_drawn)
    session.close()


def test_frames_have_pictures_while_somebody_looks():
    watched = []
    session, seen = paused(Drawing(), lambda: len(watched) % 2 == 0)
    session.advance(4, on_step=lambda done, left: watched.append(done)).result(PATIENCE_S)
    session.close()
    assert [frame.rgb is not None for frame in seen.frames] == [True, True, False, True, False]


def test_the_robot_is_put_elsewhere_while_the_world_plays_and_the_pace_stays():
    world = Drawing()
    session, seen = paused(world, state='playing')
    for _ in range(3):
        session.move('robot', pose=(5.0, 6.0, 0.5)).result(PATIENCE_S)
    wait_for(lambda: len(seen.frames) > 20)
    session.close()
    assert set(np.diff(seen.frame_ns)) == {PERIOD_NS}


def test_entities_are_the_robot_and_the_objects_of_the_scene():
    world = Drawing()
    session, seen = paused(world, entity_name='arm')
    session.set_embedding(embedding_of(world, 0.3))
    session.advance(1).result(PATIENCE_S)
    entities = session.entities()
    assert {name: entity.category for name, entity in entities.items()} == {
        'arm': 'robot', 'ball': 'object', 'box': 'object'}
    assert all(entity.name == name for name, entity in entities.items())
    assert entities['box'].pose.tolist() == [3.0, 4.0, 0.5]
    assert entities['box'].twist.tolist() == [0.0, 0.0, 0.0]
    assert entities['arm'].twist == pytest.approx([0.3, 0.0, 0.0])
    assert refusal(session.move('robot')) == 'unknown'
    session.close()


def test_an_object_is_put_elsewhere_and_all_else_stays():
    world = Drawing()
    session, seen = paused(world)
    status = session.move('box', pose=(7.0, 8.0, -0.5)).result(PATIENCE_S)
    entities = session.entities()
    assert entities['box'].pose.tolist() == [7.0, 8.0, -0.5]
    assert entities['ball'].pose.tolist() == [1.0, 2.0, 0.25]
    assert entities['robot'].pose.tolist() == [1.0, 2.0, 0.0]
    assert status.anchor == (1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.25, 7.0, 8.0, -0.5)
    assert session.origin.tolist() == pytest.approx([1.0, 2.0, 0.0])
    session.move('ball').result(PATIENCE_S)  # without a pose it stays
    assert session.entities()['ball'].pose.tolist() == [1.0, 2.0, 0.25]
    session.close()


def test_odometry_does_not_notice_that_the_robot_was_put_elsewhere():
    world = Drawing()
    session, _ = paused(world)
    session.load(room('b', 5)).result(PATIENCE_S)  # starts at 1, 2 and looks to 0.5 rad
    session.pause().result(PATIENCE_S)
    session.set_embedding(embedding_of(world, 0.3))
    session.advance(50).result(PATIENCE_S)  # one metre ahead
    session.move('robot', pose=(10.0, 20.0, 0.5 + np.pi / 2)).result(PATIENCE_S)
    x, y, yaw = session.origin
    # One metre behind the robot, which looks to 0.5 rad + 90 degrees now.
    assert (x, y) == pytest.approx((10.0 + np.sin(0.5), 20.0 - np.cos(0.5)), abs=1e-6)
    assert yaw == pytest.approx(0.5 + np.pi / 2)
    session.close()


def test_an_image_the_engine_cannot_use_is_refused_and_nothing_changes():
    class Picky(FakeChunkWorld):
        def observe(self, observation, render=True):
            raise SpecError('The image is too dark.')

    session, seen = paused(Picky())
    error = session.anchor_image(np.zeros((4, 4, 3), np.uint8)).exception(10.0)
    assert (error.reason, str(error)) == ('unsupported', 'The image is too dark.')
    assert session.status.images_anchored == 0 and session.status.state == 'paused'
    session.close()


@pytest.mark.parametrize('image', [
    np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8),
    np.zeros((4, 4, 3), np.uint16)])
def test_what_is_no_image_is_an_error_at_once(image):
    session, _ = paused(FakeChunkWorld())
    with pytest.raises(SpecError, match='uint8'):
        session.anchor_image(image)
    session.close()


def test_an_image_is_taken_as_it_is_when_it_is_handed_over():
    world = FakeChunkWorld()
    session, seen = paused(world)
    image = np.full((4, 4, 3), 50, np.uint8)
    asked = session.anchor_image(image)
    image[:] = 99
    assert asked.result(PATIENCE_S).images_anchored == 1
    session.advance(1).result(PATIENCE_S)
    assert seen.frames[-1].rgb[0, 0, 2] == 50
    session.close()


def observation():
    world = Drawing()
    seen = world.reset('a', 5)  # looks to 0.5 rad
    return replace(seen, base_twist=np.array([[[0.4, 0.1, 0.2]]]))


def test_entities_move_along_the_axes_of_the_scene():
    c, s = np.cos(0.5), np.sin(0.5)
    entities = entities_of(observation(), 5, 'robot', ('ball', 'box'))
    assert entities['robot'].twist == pytest.approx([0.4 * c - 0.1 * s, 0.4 * s + 0.1 * c, 0.2])
    assert entities['robot'].pose.tolist() == [1.0, 2.0, 0.5]


def test_a_robot_can_be_given_a_pose_a_twist_both_or_neither():
    seen = observation()
    pose, twist = [5.0, 6.0, 0.7], [0.1, 0.0, -0.1]
    for new_pose, new_twist in ((pose, twist), (pose, None), (None, twist), (None, None)):
        changed = with_robot_at(seen, new_pose, new_twist)
        assert changed.base_pose[0, 0].tolist() == (new_pose or [1.0, 2.0, 0.5])
        assert changed.base_twist[0, 0].tolist() == (new_twist or [0.4, 0.1, 0.2])
    assert seen.base_pose[0, 0].tolist() == [1.0, 2.0, 0.5]  # nothing is shared
    assert seen.base_twist[0, 0].tolist() == [0.4, 0.1, 0.2]


def test_an_anchor_is_the_robot_and_then_the_objects():
    seen = with_object_at(observation(), 0, [9.0, 8.0, 7.0])
    assert anchor_of(seen) == (1.0, 2.0, 0.5, 0.4, 0.1, 0.2, 9.0, 8.0, 7.0, 3.0, 4.0, 0.5)
    assert observation().object_pose[0, 0, 0].tolist() == [1.0, 2.0, 0.25]
