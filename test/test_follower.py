# SPDX-License-Identifier: Apache-2.0
"""The truth beside imagination: an engine that does what a running world does, step by step."""
from dataclasses import replace
import logging
import threading
from types import SimpleNamespace

from fake_world import FakeChunkWorld, FakeClock, FakeWorld
from lingbot_world_ros.engines.registry import TRUTH_ENGINE
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.recording.distance_to_truth import Comparison
from lingbot_world_ros.recording.follow import Follower, FollowerObserver
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.settings.profiles import load_profile
from lingbot_world_ros.worlds.definition import WorldDefinition
from needs import need_engine
import numpy as np
import pytest
from test_replay import eventful, leading, Wander
from waiting import PATIENCE_S, START_PATIENCE_S, wait_for

LOG = logging.getLogger('test')
SEED = load_profile('default')['seed']
FRAME_BYTES = 'rgb', 'base_pose', 'joint_position'


class World(FakeWorld):
    """Makes pictures only when they are asked for."""

    def step(self, actions, render=True):
        seen = super().step(actions, render)
        return seen if render else replace(seen, rgb=None, depth_m=None)


class Seen(FollowerObserver):
    """Keeps frames and what world_spec and world_status would carry, and hands those on."""

    def __init__(self, spec=None):
        self.spec, self.frames, self.messages, self.anchors = spec, [], [], []
        self.tell = lambda is_spec, msg: self.messages.append((is_spec, msg))

    def on_reset(self, status):
        if self.spec is not None:
            self.tell(True, SimpleNamespace(
                engine=self.spec.engine, model=self.spec.model, world_resource=status.world_text,
                scene=status.scene, seed=status.seed, frames_per_step=self.spec.frames_per_step,
                frame_rate=self.spec.frame_rate_hz, step_dt=self.spec.step_dt_s,
                width=self.spec.camera.width_px, height=self.spec.camera.height_px,
                action_names=list(self.spec.action.names)))

    def on_frame(self, frame):
        self.frames.append(frame)

    def on_anchor(self, pose, stamp_ns):
        self.anchors.append((tuple(pose), stamp_ns))

    def on_status(self, status):
        if self.spec is not None:
            sec, nanosec = divmod(status.stamp_ns, 1_000_000_000)
            actions = () if status.actions is None else status.actions.ravel()
            self.tell(False, SimpleNamespace(
                header=SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec)),
                scene=status.scene, seed=status.seed, step=status.step, digest=status.digest,
                actions=np.array(actions, np.float32), anchor=np.array(status.anchor),
                prompt=status.prompt, images_anchored=status.images_anchored))


def happened(act, world=None, **spec):
    """Let a session act; return its frames and what its topics told."""
    world = world or World()
    seen = Seen(world.spec)
    session = Session(world, SessionSpec(initial_state='paused', **spec), observers=[seen],
                      log=LOG, clock=FakeClock())
    session.link(Wander(world.spec))
    scene = world.spec.scenes[0]
    session.start(WorldDefinition(scene, scene, seed=3)).result(PATIENCE_S)  # loads
    act(session)
    session.close()
    return seen


def following(world=None, **options):
    """Return a follower and what it shows."""
    seen = Seen()
    return Follower(world or World(), observers=[seen], log=LOG,
                    **{'max_lag_s': 1e9, **options}), seen


def tell(follower, messages, one_by_one=True):
    """Hand messages over; as they come in time, or faster than the engine."""
    for is_spec, msg in messages:
        (follower.on_spec if is_spec else follower.on_world_status)(msg)
        if one_by_one:
            settle(follower)
    settle(follower)


def settle(follower):
    """Wait for the engine; some take long to load on a busy machine."""
    wait_for(lambda: not follower.num_behind, 'the engine', START_PATIENCE_S)


def moments(frames):
    """Return frames in a form that can be compared."""
    return [(f.stamp_ns, *(getattr(f, name).tobytes() for name in FRAME_BYTES)) for f in frames]


def cut(messages):
    """Return what came before the second world_spec, and the rest."""
    specs = [i for i, (is_spec, _) in enumerate(messages) if is_spec]
    return messages[:specs[1]], messages[specs[1]:]


def steps(count, seed=5):
    def act(session):
        session.advance(count).result(PATIENCE_S)
        session.reset(seed=seed).result(PATIENCE_S)
        session.advance(count).result(PATIENCE_S)
    return act


@pytest.mark.parametrize('policy', ['zero', 'monotonic'])
@pytest.mark.parametrize('make', [World, lambda: World(frames_per_step=4)])
def test_the_same_engine_shows_the_same_bytes_at_the_same_stamps(make, policy):
    world = happened(eventful, make(), reset_time_policy=policy)
    follower, truth = following(make())
    tell(follower, world.messages)
    assert set(moments(truth.frames)) <= set(moments(world.frames))
    # All but the frame that a reset of time alone shows once more.
    assert len(truth.frames) == len(world.frames) - (policy == 'zero')
    assert follower.session.status.digest == next(
        m.digest for is_spec, m in reversed(world.messages) if not is_spec and m.digest)
    assert [pose for pose, _ in truth.anchors] == [(0.5, -0.5, 1.0), (0.2, 0.2, 0.3)]
    assert follower.text == 'No world is loaded.' and not follower.is_following
    follower.close()


def test_prompts_are_followed():
    world = happened(leading, FakeChunkWorld())
    follower, truth = following(FakeChunkWorld())
    tell(follower, world.messages)
    assert moments(truth.frames) == moments(world.frames)
    follower.close()


def test_messages_that_come_faster_than_the_engine_are_made_up_for():
    world = happened(steps(40, seed=3))
    follower, truth = following()
    tell(follower, world.messages[:-2], one_by_one=False)
    assert follower.session.status.step == 40
    assert moments(truth.frames)[-40:] == moments(world.frames)[-40:]
    follower.close()


def test_begun_in_the_middle_it_waits_for_the_next_reset():
    world = happened(steps(4))
    follower, truth = following()
    first, second = cut(world.messages)
    tell(follower, [m for m in first if m[0] or m[1].step >= 2])
    assert follower.waits_for_reset and not truth.frames
    assert follower.text == 'The world is at step 2: the truth begins with its next reset.'
    tell(follower, second)
    assert not follower.waits_for_reset and follower.text == 'Follows a, seed 5.'
    assert moments(truth.frames) == moments(world.frames)[5:]
    follower.close()


def test_a_missed_step_is_told_and_nothing_is_guessed():
    world = happened(steps(6))
    follower, truth = following()
    first, second = cut(world.messages)
    tell(follower, [m for m in first if m[0] or m[1].step not in (3, 4)])
    assert follower.waits_for_reset and follower.text == (
        'The status of steps 3 to 4 is missing: out of step until the next reset.')
    assert moments(truth.frames) == moments(world.frames)[:3]
    tell(follower, second)
    assert moments(truth.frames)[3:] == moments(world.frames)[7:]
    follower.close()


def test_a_reset_that_was_missed_with_all_its_steps_is_noticed_by_the_time():
    world = happened(lambda session: (session.advance(3).result(PATIENCE_S),
                                      session.reset().result(PATIENCE_S),
                                      session.advance(4).result(PATIENCE_S)),
                     reset_time_policy='monotonic')
    first, second = cut(world.messages)
    follower, truth = following()
    tell(follower, first + [m for m in second if not m[0] and m[1].step == 4][:1])
    assert follower.waits_for_reset and 'Sim time jumped before step 4' in follower.text
    assert len(truth.frames) == 4
    follower.close()


def test_a_move_before_a_reset_at_step_zero_is_forgotten():
    def act(session):
        session.move('robot', pose=(3.0, 3.0, 0.0)).result(PATIENCE_S)
        session.reset().result(PATIENCE_S)
        session.advance(2).result(PATIENCE_S)

    world = happened(act)
    follower, truth = following()
    tell(follower, world.messages)
    assert moments(truth.frames)[-2:] == moments(world.frames)[-2:] and not truth.anchors
    follower.close()


def test_statuses_may_come_before_their_world_spec():
    world = happened(steps(3))
    specs = [i for i, m in enumerate(world.messages) if m[0]]
    messages = list(world.messages)
    for i in reversed(specs):
        messages.insert(i + 3, messages.pop(i))
    follower, truth = following()
    tell(follower, messages)
    assert moments(truth.frames) == moments(world.frames)
    follower.close()


@pytest.mark.parametrize('world, words', [
    (lambda: World(scenes=('c', 'a')), "has no scene 'c', only a, b"),
    (lambda: World(frames_per_step=2), 'makes 1 frames per step at 15 Hz, the world 2'),
])
def test_a_world_that_cannot_be_followed_is_told_in_a_sentence_and_the_next_one_is(world, words):
    other = happened(steps(2), world())
    good = happened(steps(2))
    follower, truth = following()
    tell(follower, other.messages)
    assert words in follower.text and "world of engine 'fake'" in follower.text
    assert not truth.frames and not follower.waits_for_reset
    tell(follower, good.messages)
    assert moments(truth.frames) == moments(good.frames)
    follower.close()


def test_an_engine_that_fails_shows_nothing_more_until_the_world_starts_over():
    world = happened(steps(6))
    broken = World(script={3: RuntimeError('out of ideas')})
    follower, truth = following(broken)
    first, second = cut(world.messages)
    tell(follower, first)
    wait_for(lambda: not follower.is_following)
    assert 'out of ideas' in follower.text and len(truth.frames) == 3
    broken.script.clear()
    tell(follower, second)
    assert moments(truth.frames)[3:] == moments(world.frames)[7:]
    follower.close()


def test_nothing_is_drawn_while_nobody_looks():
    world = happened(steps(4))
    follower, truth = following(is_watched=lambda: False)
    tell(follower, world.messages)
    drawn = [frame.rgb is not None for frame in truth.frames]
    assert drawn == [True, False, False, False, False] * 2  # a reset always shows one
    for frame, other in zip(truth.frames, world.frames):
        assert np.array_equal(frame.base_pose, other.base_pose)
    follower.close()


def test_a_slow_engine_leaves_out_pictures_but_no_steps():
    world = happened(lambda session: session.advance(20).result(PATIENCE_S))
    begun, go_on = threading.Event(), threading.Event()

    class Slow(World):
        def step(self, actions, render=True):
            begun.set()
            assert go_on.wait(PATIENCE_S)
            return super().step(actions, render)

    follower, truth = following(Slow(), max_lag_s=0.25)
    for is_spec, msg in world.messages[:-1]:
        (follower.on_spec if is_spec else follower.on_world_status)(msg)
    assert begun.wait(PATIENCE_S)
    assert follower.num_behind >= 19 and follower.lag_s > 1.0
    go_on.set()
    wait_for(lambda: not follower.num_behind)
    drawn = [frame.rgb is not None for frame in truth.frames]
    assert len(drawn) == 21 and drawn[-4:] == [False, True, True, True]
    assert drawn.count(True) <= 5
    follower.close()


def test_images_and_poses_are_compared_by_their_stamps():
    both = Comparison()
    black, grey = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 51, np.uint8)
    assert both.image(0, 10, black) is None and both.image(0, 20, black) is None
    assert both.image(1, 20, grey) == pytest.approx(0.2) == both.image_error
    assert both.image(1, 30, grey) is None
    assert both.image(0, 30, np.zeros((3, 2, 3), np.uint8)) is None  # another size
    both.begin((1.0, 2.0, np.pi / 2))
    both.odometry(10, (0.0, 0.0, 0.0))
    assert both.truth(10, (1.0, 2.0, np.pi / 2)) == pytest.approx(0.0)
    both.truth(20, (1.0, 2.5, np.pi / 2))
    assert both.odometry(20, (0.4, 0.0, 0.0)) == pytest.approx(0.1)
    both.anchor((5.0, 5.0, 0.0), 20)  # odometry does not notice
    both.odometry(30, (0.5, 0.0, 0.0))
    assert both.truth(30, (5.1, 5.0, 0.0)) == pytest.approx(0.0, abs=1e-9)
    both.anchor((5.0, 5.0, 0.0), 25)  # of a moment of which nothing is known
    assert both.odometry(40, (0.5, 0.0, 0.0)) is None
    assert both.truth(40, (5.1, 5.0, 0.0)) is None
    both.clear()
    assert both.image_error is None and both.position_error_m is None


def test_what_was_before_time_went_back_is_compared_with_nothing():
    both = Comparison()
    black = np.zeros((2, 2, 3), np.uint8)
    both.image(0, 20, black)
    both.image(0, 10, black)
    assert both.image(1, 20, black) is None


class Drawn(World):
    """Counts the steps that were drawn."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drawn = 0

    def step(self, actions, render=True):
        self.drawn += render
        return super().step(actions, render)


@pytest.fixture
def graph():
    """Have a world on the wall's clock paused after the reset that its follower asked for."""
    pytest.importorskip('rclpy')
    pytest.importorskip('lingbot_world_ros.msg')
    from lingbot_world_ros.nodes.follower import FollowerNode
    from lingbot_world_ros.nodes.pair import make_pair
    from ros_domain import Domain
    from ros_graph import Graph
    with Domain() as domain:
        with Graph(lambda: (*make_pair(World), FollowerNode(Drawn, reset=True)), domain,
                   ['-p', 'scene:=a', '-p', 'cmd_vel_type:=twist', '-p', 'speed:=3.0',
                    '-p', 'initial_state:=paused']) as graph:
            graph.follower = graph.nodes[2]
            graph.wait_for(lambda: graph.follower.follower.is_following, 'the follower')
            yield graph


def test_the_node_has_the_parameters_of_its_engine_alone():
    pytest.importorskip('rclpy')
    pytest.importorskip('lingbot_world_ros.msg')
    from lingbot_world_ros.nodes.follower import FollowerNode
    from lingbot_world_ros.nodes.parameters import as_overrides
    from ros_domain import Domain
    from ros_graph import Graph
    given = as_overrides({'lingbot.checkpoint': '/c', 'lingbot.height_px': 352})  # of the world
    with Domain() as domain, Graph(lambda: [], domain):
        for name, is_there in ((TRUTH_ENGINE, False), ('lingbot_world', True)):
            node = FollowerNode(FakeWorld, name=name, parameter_overrides=given)
            assert node.has_parameter('lingbot.height_px') == is_there
            node.destroy_node()
        need_engine('lingbot_world')
        with pytest.raises(SpecError, match='lingbot.checkpoint is empty'):
            FollowerNode(name='lingbot_world')


def by_stamp(messages):
    from lingbot_world_ros.messages.stamps import stamp_to_ns
    return {stamp_to_ns(m.header.stamp): m for m in messages}


def test_the_node_publishes_what_the_other_engine_sees_with_the_same_stamps(graph):
    from geometry_msgs.msg import Twist, Vector3
    from nav_msgs.msg import Odometry
    from sensor_msgs.msg import Image, JointState
    from std_msgs.msg import Float32
    from std_srvs.srv import SetBool
    follower = graph.follower.follower
    topics = {'camera/image_raw': Image, 'odom': Odometry, 'joint_states': JointState}
    world = {name: graph.listen(kind, name) for name, kind in topics.items()}
    truth = {name: graph.listen(kind, f'reference/{name}') for name, kind in topics.items()}
    errors = {name: graph.listen(Float32, f'reference/{name}_error')
              for name in ('image', 'position')}
    cmd_vel = graph.publisher(Twist, 'cmd_vel')
    assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=False)).success
    cmd_vel.publish(Twist(linear=Vector3(x=0.3)))
    graph.wait_for(lambda: all(len(messages) > 20 for messages in (
        *world.values(), *truth.values(), *errors.values())), 'the truth')
    assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=True)).success
    graph.wait_for(lambda: follower.session.status.step == graph.nodes[0].session.status.step,
                   'the last step')
    assert follower.session.status.digest and follower.text == f'Follows a, seed {SEED}.'
    for name in topics:
        pairs = [(m, by_stamp(world[name]).get(stamp)) for stamp, m in
                 by_stamp(truth[name]).items()]
        pairs = [(a, b) for a, b in pairs if b is not None]
        assert len(pairs) > 15
        for a, b in pairs:
            if name == 'odom':
                assert (a.pose, a.twist) == (b.pose, b.twist)
                assert (a.header.frame_id, a.child_frame_id) == ('odom', 'reference/base_link')
            elif name == 'joint_states':
                assert (a.name, a.position) == (b.name, b.position)
            else:
                assert bytes(a.data) == bytes(b.data)
                assert a.header.frame_id == 'reference/camera_optical_frame'
    assert truth['odom'][-1].pose.pose.position.x > 0.05
    assert {m.data for m in errors['image']} == {0.0}
    assert max(m.data for m in errors['position']) < 1e-9
    names = {name for name, _ in graph.probe.get_publisher_names_and_types_by_node(
        'follower', '/')}
    assert not names & {'/clock', '/tf', '/tf_static', '/world_spec', '/world_status'}


def test_nothing_is_drawn_before_somebody_subscribes_and_operators_are_told(graph):
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import CompressedImage, Image
    from std_srvs.srv import SetBool
    follower = graph.follower.follower
    assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=False)).success
    graph.wait_for(lambda: follower.session.status.step > 20, 'steps')
    assert follower.session.world.drawn == 0
    diagnostics = graph.listen(DiagnosticArray, '/diagnostics')
    told = graph.wait_for(lambda: [s for m in diagnostics for s in m.status
                                   if s.name == 'follower: truth'], 'the diagnostics')[-1]
    assert (told.message, told.level) == (f'Follows a, seed {SEED}.', b'\x00')
    assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=True)).success
    late = graph.listen(Image, 'reference/camera/image_raw')
    graph.wait_for(lambda: graph.nodes[0].session.status.stamp_ns in by_stamp(late),
                   'the image of a world that stands still')
    assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=False)).success
    images = graph.listen(CompressedImage, 'reference/camera/image_raw/compressed')
    graph.wait_for(lambda: len(images) > 3, 'images')
    assert follower.session.world.drawn > 0


def test_the_reference_world_follows_the_embedded_one():
    need_engine('reference')
    need_engine('room')
    from lingbot_world_ros.engines.registry import make_world
    room = make_world('room')

    def act(session):
        session.advance(8).result(PATIENCE_S)
        pose = session.entities()['robot'].pose
        session.move('robot', pose=pose + (0.02, 0.01, 0.3)).result(PATIENCE_S)
        session.advance(4).result(PATIENCE_S)

    world = happened(act, room)
    follower, truth = following(make_world('reference'))
    tell(follower, world.messages)
    assert follower.text.startswith('Follows'), follower.text
    both = Comparison()
    assert [f.stamp_ns for f in truth.frames] == [f.stamp_ns for f in world.frames]
    for imagined, seen in zip(world.frames, truth.frames):
        both.image(0, imagined.stamp_ns, imagined.rgb)
        assert 0.0 < both.image(1, seen.stamp_ns, seen.rgb) < 0.05
        assert np.hypot(*(imagined.base_pose - seen.base_pose)[:2]) < 0.02
    follower.close()


def test_an_engine_that_is_not_installed_is_one_sentence(monkeypatch, capsys):
    pytest.importorskip('rclpy')
    pytest.importorskip('lingbot_world_ros.msg')
    from lingbot_world_ros.cli.main import main
    from ros_domain import Domain
    import sys
    monkeypatch.setitem(sys.modules, 'mujoco', None)
    for name in [n for n in sys.modules if n.startswith('lingbot_world_ros.engines.reference.')]:
        monkeypatch.delitem(sys.modules, name)
    with Domain() as domain:
        monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
        assert main(['follow']) == 2
        told = capsys.readouterr().err
        assert "Engine 'reference' needs the Python package" in told and 'pip install' in told
        assert main(['follow', '--engine', 'room', '--as', '/']) == 2
        assert 'prefix is empty' in capsys.readouterr().err


def test_who_begins_to_look_at_a_world_that_stands_still_sees_it():
    world = happened(lambda session: session.advance(3).result(PATIENCE_S))
    watchers = []
    follower, truth = following(is_watched=lambda: bool(watchers))
    truth.on_drawn = lambda frame: watchers.append(frame)
    tell(follower, world.messages[:-1])
    digest = follower.session.status.digest
    for _ in range(2):  # drawn once
        follower.look()
        follower.session.pause().exception(10)
    assert moments(watchers) == moments(world.frames[-1:])
    assert follower.session.status.digest == digest
    follower.close()


def test_to_look_changes_nothing_of_the_reference_world():
    need_engine('reference')
    from lingbot_world_ros.engines.registry import make_world
    digests, pictures = [], []
    for looks in (False, True):
        watched = [not looks]
        source = Wander(make_world('reference').spec)
        seen = Seen()
        seen.on_drawn = lambda frame: pictures.append(frame.rgb)
        session = Session(make_world('reference'), SessionSpec('stepped', 'paused'),
                          observers=[seen], log=LOG, is_watched=lambda: watched[0])
        session.link(source)
        session.start(WorldDefinition('office', 'office', 3)).result(PATIENCE_S)
        session.advance(5).result(PATIENCE_S)
        session.look().result(PATIENCE_S)
        if not looks:
            pictures.append(seen.frames[-1].rgb)
        session.advance(5).result(PATIENCE_S)
        digests.append((seen.frames[-1].base_pose.tobytes(),
                        seen.frames[-1].joint_position.tobytes()))
        session.close()
    assert digests[0] == digests[1] and len(pictures) == 2
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 1
