# SPDX-License-Identifier: Apache-2.0
"""The action encoder as a session uses it in one process, and alone over topics."""
from dataclasses import replace
import threading

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from fake_world import FakeWorld  # noqa: E402, I100
from geometry_msgs.msg import Quaternion, Transform, Twist, TwistStamped  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.geometry.camera import T_LINK_OPTICAL  # noqa: E402
from lingbot_world_ros.messages.action_embedding import (embedding_from_msg,  # noqa: E402
                                                         embedding_to_msg)
from lingbot_world_ros.messages.commands import joint_command_to_msg, twist_to_msg  # noqa: E402
from lingbot_world_ros.messages.stamps import set_stamp, stamp_to_ns  # noqa: E402
from lingbot_world_ros.messages.world import world_spec_to_msg  # noqa: E402
from lingbot_world_ros.msg import ActionEmbedding, WorldSpec  # noqa: E402
from lingbot_world_ros.nodes import action_encoder, qos  # noqa: E402
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode  # noqa: E402
from lingbot_world_ros.nodes.world_model import WorldModelNode  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from lingbot_world_ros.session.states import Mode, State  # noqa: E402
from lingbot_world_ros.session.status import SessionStatus  # noqa: E402
import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from ros_graph import Graph  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402

ROBOT = load_robot()

PERIOD_NS = 66_666_667
SECOND_NS = 1_000_000_000
PAN, LIFT = ROBOT.joint_names[:2]
HOME = ROBOT.joint_array('home')
ROOM_URDF = 'package://lingbot_world_ros/config/robots/room.urdf'


@pytest.fixture
def make_encoder(domain):
    """Build an encoder that nobody spins; callbacks are called by hand."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=domain)
    nodes = []

    def make(**parameters):
        overrides = [Parameter(name.replace('__', '.'), value=value)
                     for name, value in parameters.items()]
        node = ActionEncoderNode(context=context, parameter_overrides=overrides)
        nodes.append(node)
        node.warnings = []
        node.get_logger = lambda: Log(node.warnings)
        return node

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


class Log:
    """Keep what is logged."""

    def __init__(self, lines):
        self.warning = self.error = lines.append


class Linked:
    """An encoder linked to a session of one's own."""

    def __init__(self, encoder, **world):
        self.encoder, self.sim_ns, self.told = encoder, 0, []
        encoder.link(lambda: self.sim_ns, self.told.append)
        encoder.begin(spec_msg(**world))

    def pull(self, sim_ns=0, joints=HOME):
        self.sim_ns = sim_ns
        return self.encoder.pull(sim_ns, joints)


@pytest.fixture
def linked(make_encoder):
    return Linked(make_encoder())


def spec_msg(mode='stepped', frames_per_step=1, **changes):
    world = FakeWorld(frames_per_step=frames_per_step)
    status = SessionStatus(State.PLAYING, Mode(mode), 'a', 0)
    msg = world_spec_to_msg(world.spec, status, 'base_link')
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


def trajectory(times_s, positions, joints=(PAN,), stamp_ns=0):
    msg = JointTrajectory(joint_names=list(joints))
    for time_s, position in zip(times_s, positions):
        point = JointTrajectoryPoint(positions=[float(position)] * len(joints))
        set_stamp(point.time_from_start, round(time_s * 1e9))
        msg.points.append(point)
    set_stamp(msg.header.stamp, stamp_ns)
    return msg


def test_a_command_acts_on_the_next_pull_and_the_session_is_told(linked):
    linked.encoder.on_cmd_vel(twist_to_msg(0.3, -0.4))
    linked.encoder.on_joint_command(joint_command_to_msg([LIFT], velocity=[0.2]))
    linked.encoder.on_arm_commands(Float64MultiArray(data=[0.0, -1.0, 1.1, 0.0, 0.03]))
    assert linked.told == [1, 2, 3]
    embedding = linked.pull(5 * PERIOD_NS)
    assert embedding.embedding[0, :2] == pytest.approx([0.3, -0.4])
    assert embedding.joint_position[0, 1] == -1.0
    assert (embedding.stamp_ns, embedding.sequence, embedding.counts.accepted) == (
        5 * PERIOD_NS, 1, 3)
    assert linked.pull(6 * PERIOD_NS).sequence == 2


def test_refused_commands_are_counted_and_the_session_is_not_woken(linked):
    linked.encoder.on_cmd_vel(twist_to_msg(float('nan'), 0.0))
    linked.encoder.on_trajectory(trajectory([1.0, 1.0], [0.1, 0.2]))
    linked.encoder.on_joint_command(JointState(name=[PAN], effort=[1.0]))
    counts = linked.pull().counts
    assert linked.told == [] and (counts.accepted, counts.rejected) == (0, 3)
    assert 'effort' in counts.message
    assert len(linked.encoder.warnings) == 3


@pytest.mark.parametrize('take, msg', [
    ('on_joint_command', JointState(name=[PAN, LIFT], position=[np.nan, np.nan])),
    ('on_joint_command', JointState(name=[PAN], position=[np.nan], velocity=[np.nan])),
    ('on_joint_command', JointState(velocity=[np.nan] * 5)),
    ('on_arm_commands', Float64MultiArray(data=[np.nan] * 5)),
    ('on_trajectory', trajectory([1.0, 2.0], [np.nan, np.nan])),
])
def test_a_message_of_nan_alone_makes_no_step_in_lockstep_and_no_refusal(make_encoder, take, msg):
    linked = Linked(make_encoder(), mode='lockstep')
    getattr(linked.encoder, take)(msg)
    assert linked.told == [] and linked.encoder.warnings == []
    assert (linked.pull().counts.accepted, linked.pull().counts.rejected) == (0, 0)


def test_what_ros2_control_sends_for_a_gripper_without_a_controller_moves_the_arm(linked):
    linked.encoder.on_joint_command(joint_command_to_msg(
        ROBOT.joint_names, position=[0.2, -0.8, 1.0, 0.1, np.nan]))
    assert linked.told == [1]
    wanted = linked.pull().joint_position[0]
    assert wanted[:4] == pytest.approx([0.2, -0.8, 1.0, 0.1]) and np.isnan(wanted[4])


def test_nothing_is_pulled_before_a_world_begins(make_encoder):
    encoder = make_encoder()
    encoder.link(lambda: 0, None)
    encoder.on_cmd_vel(twist_to_msg(0.3, 0.0))
    assert encoder.pull(0, HOME) is None
    assert 'no world runs yet' in encoder.warnings[0]


def test_a_linked_encoder_needs_no_topics_and_encodes_by_no_timer(make_encoder):
    encoder = make_encoder()
    before = {s.topic_name for s in encoder.subscriptions}
    assert {'/world_spec', '/joint_states'} <= before and len(list(encoder.timers)) == 2
    for _ in range(2):  # a world_model that is configured again links again
        encoder.link(lambda: 0, lambda accepted: None)
    after = {s.topic_name for s in encoder.subscriptions}
    assert before - after == {'/world_spec', '/joint_states'}
    assert len(list(encoder.timers)) == 1  # looks who publishes commands, now and then


def test_the_session_may_pull_while_it_is_told_of_a_command(make_encoder):
    """The lock is free by then, in whatever thread the session runs."""
    encoder = make_encoder()
    pulled = []

    def on_command(accepted):
        thread = threading.Thread(target=lambda: pulled.append(encoder.pull(0, HOME)))
        thread.start()
        thread.join(PATIENCE_S)
    encoder.link(lambda: 0, on_command)
    encoder.begin(spec_msg())
    encoder.on_cmd_vel(twist_to_msg(0.3, 0.0))
    assert pulled[0].counts.accepted == 1


def test_the_same_world_again_forgets_commands_and_counts_on(linked):
    linked.encoder.on_cmd_vel(twist_to_msg(9.0, 0.0))
    linked.encoder.begin(spec_msg())
    embedding = linked.pull()
    assert not embedding.embedding.any()
    assert (embedding.counts.accepted, embedding.counts.clipped) == (1, 1)


def test_another_layout_replaces_the_commands_and_counts_on(linked):
    linked.encoder.on_joint_command(joint_command_to_msg([PAN], position=[0.5]))
    world = FakeWorld(robot=replace(ROBOT, joints=ROBOT.joints[1:3]), frames_per_step=4)
    status = SessionStatus(State.PLAYING, Mode.STEPPED, 'a', 0)
    linked.encoder.begin(world_spec_to_msg(world.spec, status, 'base_link'))
    embedding = linked.pull(joints=np.zeros(2))
    assert embedding.joint_names == ROBOT.joint_names[1:3]
    assert embedding.embedding.shape == (4, 4) and np.isnan(embedding.joint_position).all()
    assert embedding.counts.accepted == 1


@pytest.mark.parametrize('mode', ['stepped', 'lockstep', 'realtime'])
def test_commands_age_in_sim_time_where_a_run_must_repeat(make_encoder, monkeypatch, mode):
    """Half a second of sim time passes at once; half a second of wall time is not waited for."""
    wall_ns = [5 * SECOND_NS]
    monkeypatch.setattr('lingbot_world_ros.nodes.action_encoder.time.monotonic_ns',
                        lambda: wall_ns[0])
    linked = Linked(make_encoder(), mode=mode)
    linked.encoder.on_cmd_vel(twist_to_msg(0.3, 0.0))
    wall_ns[0] += 10 * SECOND_NS if mode != 'realtime' else 0
    assert linked.pull(SECOND_NS // 2).embedding[0, 0] == pytest.approx(0.3)
    late = linked.pull(SECOND_NS)
    assert late.embedding[0, 0] == pytest.approx(0.3 if mode == 'realtime' else 0.0)
    wall_ns[0] += 10 * SECOND_NS
    assert linked.pull(SECOND_NS).embedding[0, 0] == 0.0
    assert linked.pull(SECOND_NS).counts.timed_out == 1


def test_a_stamp_is_compared_with_the_newest_frame(make_encoder):
    linked = Linked(make_encoder(cmd_vel_type='twist_stamped'))
    linked.sim_ns = 10 * SECOND_NS
    for stamp_s, accepted in ((9.4, 0), (9.6, 1), (0.0, 2), (12.0, 3)):
        msg = twist_to_msg(0.3, 0.0, stamped=True)
        set_stamp(msg.header.stamp, round(stamp_s * 1e9))
        linked.encoder.on_cmd_vel(msg)
        assert linked.pull(10 * SECOND_NS).counts.accepted == accepted
    assert linked.pull(10 * SECOND_NS).counts.stale == 1
    assert 'cmd_vel: refused, its stamp is 0.600 s' in linked.encoder.warnings[0]


def test_trajectory_runs_in_sim_time(linked):
    linked.sim_ns = 3 * SECOND_NS
    linked.encoder.on_trajectory(trajectory([1.0], [0.6]))
    embedding = linked.pull(3 * SECOND_NS)
    assert embedding.joint_position[0, 0] == pytest.approx(0.6 * PERIOD_NS / SECOND_NS)
    assert embedding.valid_until_ns == 3 * SECOND_NS + PERIOD_NS
    assert linked.pull(4 * SECOND_NS).joint_position[0, 0] == 0.6


def test_trajectory_velocities_and_accelerations_are_read(linked):
    msg = trajectory([1.0], [0.5])
    msg.points[0].velocities, msg.points[0].accelerations = [0.0], [0.0]
    linked.encoder.on_trajectory(msg)
    linked.pull(0)
    tenth = linked.pull(SECOND_NS // 10 - PERIOD_NS).joint_position[0, 0]
    assert tenth == pytest.approx(0.5 * (10e-3 - 15e-4 + 6e-5))  # a quintic from rest to rest


def test_parameters_set_while_running_take_effect_at_once(linked):
    encoder = linked.encoder
    encoder.on_cmd_vel(twist_to_msg(0.3, 0.0))
    encoder.set_parameters([Parameter('cmd_timeout_s', value=3.0),
                            Parameter('policy_frequency', value=2.0)])
    assert linked.pull(2 * SECOND_NS).embedding[0, 0] == pytest.approx(0.3)
    linked.encoder.on_trajectory(trajectory([0.0, 0.0], [0.2, 0.4]))
    linked.pull(0)
    assert linked.pull(SECOND_NS // 2 - PERIOD_NS).joint_position[0, 0] == pytest.approx(0.2)
    assert linked.pull(4 * SECOND_NS).embedding[0, 0] == 0.0
    encoder.begin(spec_msg())
    encoder.on_cmd_vel(twist_to_msg(0.3, 0.0))
    assert linked.pull(2 * SECOND_NS).embedding[0, 0] == pytest.approx(0.3)


def test_a_trajectory_may_end_in_motion_where_the_parameter_says_so(linked):
    msg = trajectory([1.0], [0.6])
    msg.points[0].velocities = [0.3]
    linked.encoder.on_trajectory(msg)
    assert 'allow_nonzero_velocity_at_trajectory_end' in linked.pull().counts.message
    linked.encoder.set_parameters([
        Parameter('allow_nonzero_velocity_at_trajectory_end', value=True)])
    linked.encoder.on_trajectory(msg)
    assert (linked.pull().counts.accepted, linked.pull().counts.rejected) == (1, 1)


def test_limits_of_the_profile_hold(make_encoder):
    linked = Linked(make_encoder(limits__linear_velocity_mps=0.2,
                                 limits__angular_acceleration_radps2=1.5))
    linked.encoder.on_cmd_vel(twist_to_msg(0.5, 1.0))
    assert linked.pull().embedding[0, :2] == pytest.approx([0.2, 0.1])


def test_topics_have_the_names_of_the_parameters(make_encoder):
    names = {'cmd_vel': 'chassis/cmd', 'joint_command': 'isaac_joint_commands',
             'joint_trajectory': 'jtc/joint_trajectory', 'joint_commands': 'fwd/commands',
             'joint_states': 'isaac_joint_states'}
    encoder = make_encoder(**{f'topics__{key}': name for key, name in names.items()})
    assert {f'/{name}' for name in names.values()} <= {
        s.topic_name for s in encoder.subscriptions}
    linked = Linked(encoder)
    encoder.on_arm_commands(Float64MultiArray(data=[0.0]))
    assert linked.pull().counts.message.startswith('fwd/commands: refused, 1 values')


def test_a_flood_of_bad_commands_is_one_line_in_the_log(linked):
    for _ in range(100):
        linked.encoder.on_cmd_vel(twist_to_msg(float('inf'), 0.0))
    linked.encoder.on_joint_command(joint_command_to_msg(['nose'], position=[0.1]))
    assert len(linked.encoder.warnings) == 2
    assert linked.pull().counts.rejected == 101


def slow_robot(text):
    return text.replace('velocity="1.5"', 'velocity="0.3"').replace('upper="1.2"', 'upper="0.5"')


@pytest.fixture(scope='module')
def room_urdf():
    pytest.importorskip('urdf_parser_py')
    from lingbot_world_ros.robots.urdf import read_description
    return read_description(ROOM_URDF)


def test_robot_description_tightens_limits(make_encoder, room_urdf):
    linked = Linked(make_encoder(robot_description=slow_robot(room_urdf)))
    linked.encoder.on_joint_command(joint_command_to_msg([PAN], position=[1.0]))
    steps = [linked.pull(n * PERIOD_NS).joint_position[0, 0] for n in range(40)]
    assert steps[0] == pytest.approx(0.02, abs=1e-6) and steps[-1] == pytest.approx(0.5)
    assert linked.pull(40 * PERIOD_NS).counts.clipped == 1


def test_a_world_whose_camera_is_not_in_pixels_is_refused(make_encoder):
    with pytest.raises(SpecError, match='world_spec: k: focal lengths of 0.78 and 1.04 are not'):
        make_encoder().begin(spec_msg(k=np.diag([0.78, 1.04, 1.0]).ravel()))


def test_an_embedding_says_its_camera_in_pixels_or_not_at_all(linked):
    msg = embedding_to_msg(linked.pull(), 'base_link')
    assert embedding_from_msg(msg).camera.fx_px > 20.0
    msg.k[:] = 0.0
    assert embedding_from_msg(msg).camera.fx_px == 0.0
    msg.k[:] = np.diag([1.0, 1.0, 1.0]).ravel()
    with pytest.raises(SpecError, match='action_embedding: k: focal lengths of 1 and 1'):
        embedding_from_msg(msg)


def test_robot_description_without_a_joint_of_the_world_is_refused(make_encoder, room_urdf):
    encoder = make_encoder(robot_description=room_urdf.replace('"elbow_joint"', '"knee_joint"'))
    with pytest.raises(SpecError, match='no movable joint elbow_joint.*knee_joint'):
        encoder.begin(spec_msg())
    assert encoder.pull(0, HOME) is None


@pytest.mark.parametrize('parameters, words', [
    (dict(robot_description='<robot'), 'not XML'),
    (dict(robot_description='/no/where.urdf'), 'where.urdf is not a file'),
    (dict(limits__joint_acceleration=-1.0), 'joint_acceleration'),
])
def test_bad_parameters_are_one_clear_error(make_encoder, parameters, words):
    with pytest.raises(SpecError, match=words):
        make_encoder(**parameters)


@pytest.mark.parametrize('parameters, changes, words', [
    (dict(camera_link='palm_link'), {}, 'camera of engine .fake. stays'),
    (dict(camera_link='palm_link'), dict(free_camera=True), 'set robot_description'),
    ({}, dict(free_camera=True, camera_parent='palm_link'), 'set robot_description'),
    (dict(camera_link='nose', robot_description=ROOM_URDF), dict(free_camera=True), "'nose'"),
])
def test_a_camera_that_cannot_be_there_is_refused(make_encoder, parameters, changes, words):
    encoder = make_encoder(**parameters)
    with pytest.raises(SpecError, match=words):
        encoder.begin(spec_msg(**changes))


@pytest.mark.parametrize('link, changes, T_link_optical', [
    ('palm_link', {}, T_LINK_OPTICAL),
    ('', dict(camera_parent='r1/palm_link'), ROBOT.camera.T_base_optical),
    ('palm_link', dict(camera_parent='palm_link'), ROBOT.camera.T_base_optical),
])
def test_a_camera_on_the_arm_moves_with_it(make_encoder, room_urdf, link, changes,
                                           T_link_optical):
    """The palm turns about the shoulder: 1.5 rad/s for one frame, base at rest."""
    linked = Linked(make_encoder(camera_link=link, robot_description=room_urdf),
                    free_camera=True, **changes)
    linked.encoder.on_joint_command(joint_command_to_msg([PAN], velocity=[1.5]))
    motion = linked.pull().camera_motion[0]
    q = np.stack([HOME, HOME])
    q[1, 0] += 0.1
    palm = ROBOT.arm.points(q)[:, 3]
    turn = np.array([[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]])
    np.testing.assert_allclose(turn @ (palm[0, :2] - [0.02, 0.0]) + [0.02, 0.0], palm[1, :2])
    T_turn = np.eye(4)
    T_turn[:2, :2] = turn
    T_turn[:3, 3] = palm[1] - T_turn[:3, :3] @ palm[0]
    from lingbot_world_ros.robots.urdf import RobotModel
    T_base_palm = RobotModel.from_description(room_urdf).link_pose(
        'palm_link', dict(zip(ROBOT.joint_names, HOME)))
    np.testing.assert_allclose(T_base_palm[:3, 3], palm[0], atol=1e-12)
    start = T_base_palm @ T_link_optical
    np.testing.assert_allclose(motion, np.linalg.inv(start) @ T_turn @ start, atol=1e-6)


def test_pulled_embeddings_are_published_for_those_who_listen(domain):
    with Graph(lambda: [ActionEncoderNode()], domain) as graph:
        linked = Linked(graph.nodes[0], frames_per_step=3)
        linked.encoder.on_cmd_vel(twist_to_msg(0.3, 0.2))
        assert linked.pull().sequence == 1  # nobody listens
        heard = graph.listen(ActionEmbedding, 'action_embedding')
        pulled = []

        def answered():
            pulled.append(linked.pull(2 * PERIOD_NS))
            return heard
        graph.wait_for(answered, 'an embedding')
        got = embedding_from_msg(heard[0])
        sent = next(e for e in pulled if e.sequence == got.sequence)
        np.testing.assert_allclose(got.camera_motion, sent.camera_motion, atol=1e-12)
        assert got.valid_until_ns == sent.valid_until_ns > 0


SHARED = """/**:
  ros__parameters: {cmd_timeout_s: 3.0, use_sim_time: true, robot_base_frame: base,
                    costmap: {width: 3}}
"""


def test_keys_of_other_nodes_in_a_shared_file_are_passed_over_and_named_once(
        domain, tmp_path, capfd):
    path = tmp_path / 'robot.yaml'
    path.write_text(SHARED)
    with Graph(lambda: [ActionEncoderNode(), WorldModelNode(world=FakeWorld)], domain,
               ('-p', 'scene:=a', '--params-file', str(path))) as graph:
        assert graph.nodes[0].get_parameter('cmd_timeout_s').value == 3.0
    told = [line for line in capfd.readouterr().err.splitlines() if 'ignored' in line]
    assert len(told) == 1 and 'ignored: costmap.width, robot_base_frame.' in told[0]


@pytest.mark.parametrize('text, args', [
    ('action_encoder: {ros__parameters: {robot_base_frame: base}}', ()),
    ('/**: {ros__parameters: {robot_base_frame: base}}', ('-p', 'robot_base_frame:=base')),
    ('/**/action_encoder: {ros__parameters: {costmap: {robot_base_frame: base}}}', ())])
def test_unknown_keys_that_are_meant_for_the_node_are_an_error(domain, tmp_path, text, args):
    path = tmp_path / 'robot.yaml'
    path.write_text(text)
    with pytest.raises(SpecError, match="Unknown parameter '(costmap.)?robot_base_frame'"):
        Graph(lambda: [ActionEncoderNode()], domain, ('--params-file', str(path), *args))


class Alone:
    """An encoder in a graph of its own, fed by a world that this test plays."""

    def __init__(self, graph, **world):
        self.graph = graph
        self.heard = graph.listen(ActionEmbedding, 'action_embedding')
        self._specs = graph.probe.create_publisher(WorldSpec, 'world_spec', qos.LATCHED)
        self._specs.publish(spec_msg(**world))
        self.states = graph.publisher(JointState, 'joint_states')
        graph.wait_for(lambda: self.heard, 'an embedding')

    def frame(self, sim_ns, joints=HOME):
        """Publish a frame and wait for the embedding of exactly this moment."""
        msg = JointState(name=list(ROBOT.joint_names), position=list(joints))
        set_stamp(msg.header.stamp, sim_ns)
        self.states.publish(msg)
        return self.graph.newest(self.heard, lambda m: stamp_to_ns(m.header.stamp) == sim_ns,
                                 f'the embedding of {sim_ns} ns')


def test_alone_in_sim_time_every_frame_brings_an_embedding(domain):
    """Within the slow timer's ten seconds only joint_states can have asked for them."""
    with Graph(lambda: [ActionEncoderNode()], domain, ('-p', 'encode_rate_hz:=1.0')) as graph:
        alone = Alone(graph, mode='lockstep')
        for n in range(1, 6):
            assert alone.frame(n * PERIOD_NS).num_frames == 1


def test_alone_a_joint_state_that_nobody_measured_leaves_the_joint_where_it_was(domain):
    with Graph(lambda: [ActionEncoderNode()], domain, ('-p', 'encode_rate_hz:=1.0')) as graph:
        alone = Alone(graph, mode='lockstep')
        alone.frame(PERIOD_NS)
        graph.publisher(JointState, 'joint_command').publish(
            joint_command_to_msg([PAN], position=[0.05]))
        graph.wait_for(lambda: alone.heard[-1].accepted_commands == 1, 'the command')
        measured, not_measured = (alone.frame(2 * PERIOD_NS, joints).embedding
                                  for joints in (HOME, [np.nan] * 5))
        assert measured[2] > 0.0 and list(not_measured) == list(measured)


@pytest.mark.parametrize('twist_type, kind', [(Twist, 'twist'), (TwistStamped, 'twist_stamped')])
def test_alone_a_command_is_encoded_when_it_arrives(domain, twist_type, kind):
    args = ('-p', 'encode_rate_hz:=1.0', '-p', f'cmd_vel_type:={kind}')
    with Graph(lambda: [ActionEncoderNode()], domain, args) as graph:
        alone = Alone(graph, mode='realtime')
        publisher = graph.publisher(twist_type, 'cmd_vel')
        publisher.publish(twist_to_msg(0.3, 0.0, stamped=twist_type is TwistStamped))
        msg = graph.newest(alone.heard, lambda m: m.embedding[0] > 0.29, 'the command')
        assert msg.accepted_commands == 1 and stamp_to_ns(msg.valid_until) > 0


def test_alone_a_running_trajectory_is_encoded_for_every_frame(domain):
    with Graph(lambda: [ActionEncoderNode()], domain, ('-p', 'encode_rate_hz:=1.0')) as graph:
        alone = Alone(graph, mode='realtime')
        graph.publisher(JointTrajectory, 'arm_controller/joint_trajectory').publish(
            trajectory([1.0], [0.6]))
        graph.newest(alone.heard, lambda m: m.accepted_commands == 1, 'the trajectory')
        for n in range(1, 5):
            wanted = 0.6 * (n + 1) * PERIOD_NS / SECOND_NS
            assert alone.frame(n * PERIOD_NS).joint_position_target[0] == pytest.approx(wanted)


def test_alone_a_world_that_makes_no_sense_is_told_and_the_encoder_lives_on(domain):
    with Graph(lambda: [ActionEncoderNode()], domain) as graph:
        node = graph.nodes[0]
        node.warnings = []
        node.get_logger = lambda: Log(node.warnings)
        specs = graph.probe.create_publisher(WorldSpec, 'world_spec', qos.LATCHED)
        for changes, words in (
                (dict(frame_rate=0.0), 'frame_rate=0.0'),
                (dict(frames_per_step=4_000_000_000), 'frames_per_step=4000000000'),
                (dict(action_min=[]), 'one length'), (dict(action_names=['x'] * 7), 'no column'),
                (dict(joint_names=[PAN]), 'no limits each'),
                (dict(camera_pose=Transform(rotation=Quaternion(w=0.0))), 'camera_pose')):
            node._quiet_until_s.clear()  # else a flood is told of once in a while only
            specs.publish(spec_msg(**changes))
            graph.wait_for(lambda: any(words in line for line in node.warnings), words)
        Alone(graph)


def test_a_publisher_of_the_other_twist_type_is_told_once(domain, monkeypatch):
    monkeypatch.setattr(action_encoder, 'LOOK_PERIOD_S', 0.05)

    def nodes():
        node = ActionEncoderNode()
        node.warnings = []
        node.get_logger = lambda: Log(node.warnings)
        return [node]

    with Graph(nodes, domain, ('-p', 'cmd_vel_type:=twist')) as graph:
        graph.probe.create_publisher(Twist, 'cmd_vel', 1)
        elsewhere = rclpy.Context()  # within one, a topic has one type
        rclpy.init(context=elsewhere, domain_id=domain)
        other = rclpy.create_node('other', context=elsewhere)
        other.create_publisher(TwistStamped, 'cmd_vel', 1)
        told, node, looks = graph.nodes[0].warnings, graph.nodes[0], []
        graph.wait_for(lambda: told, 'a warning')
        look = node.get_publishers_info_by_topic
        node.get_publishers_info_by_topic = lambda topic: (looks.append(topic), look(topic))[1]
        graph.wait_for(lambda: len(looks) > 5, 'more looks')
        other.destroy_node()
        rclpy.shutdown(context=elsewhere)
        assert len(told) == 1
        assert '/other publishes TwistStamped, but Twist is expected' in told[0]
