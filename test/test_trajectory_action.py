# SPDX-License-Identifier: Apache-2.0
"""FollowJointTrajectory of the arm controller, asked as MoveIt asks it; a row of the docs each."""
from array import array
from math import inf, nan
from pathlib import Path
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
control_msgs = pytest.importorskip('control_msgs.action')

from action_msgs.msg import GoalStatus  # noqa: E402, I100
from control_msgs.msg import JointComponentTolerance, JointTolerance  # noqa: E402
from fake_world import FakeWorld  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from lingbot_world_ros.actions.trajectory_goal import Code  # noqa: E402
from lingbot_world_ros.messages.commands import joint_command_to_msg, twist_to_msg  # noqa: E402
from lingbot_world_ros.messages.stamps import set_stamp, stamp_to_ns  # noqa: E402
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode  # noqa: E402
from lingbot_world_ros.nodes.world_model import WorldModelNode  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from lingbot_world_ros.session.states import State  # noqa: E402
import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from rclpy.action import (ActionClient,  # noqa: E402
                          get_action_server_names_and_types_by_node)
from rclpy.parameter import Parameter  # noqa: E402
from ros_graph import Graph  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint  # noqa: E402

FollowJointTrajectory = control_msgs.FollowJointTrajectory
NAME = 'arm_controller/follow_joint_trajectory'
ROBOT = load_robot()
JOINTS = ROBOT.joint_names
PAN, LIFT = JOINTS[:2]
HOME = ROBOT.joint_array('home')
PERIOD_NS = 66_666_667
PERIOD_S = PERIOD_NS * 1e-9
SECOND_NS = 1_000_000_000
SUCCEEDED, CANCELED, ABORTED = (
    GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED, GoalStatus.STATUS_ABORTED)


class ArmWorld(FakeWorld):
    """Its arm can be held back."""

    is_stuck = False

    def step(self, actions, render=True):
        before = self._q.copy()
        observation = super().step(actions)
        if self.is_stuck:
            self._q = before
            observation.joint_position[...] = before
            observation.joint_velocity[...] = 0.0
        return observation


class Arm:
    """A client of the action, and the world that the arm is in."""

    def __init__(self, graph, name=NAME):
        self.graph, self.node, self.encoder = graph, *graph.nodes
        self.client = ActionClient(graph.probe, FollowJointTrajectory, f'/{name}')
        graph.wait_for(self.client.server_is_ready, 'the action server')

    def send(self, goal):
        """Send a goal; return how its client sees it."""
        feedback = []
        asked = self.client.send_goal_async(goal, lambda msg: feedback.append(msg.feedback))
        self.graph.wait_for(asked.done, 'the answer to a goal')
        handle = asked.result()
        outcome = handle.get_result_async() if handle.accepted else None
        return SimpleNamespace(accepted=handle.accepted, handle=handle, feedback=feedback,
                               outcome=outcome)

    def result(self, sent):
        """Wait for the end of a goal; return status, code and text."""
        self.graph.wait_for(sent.outcome.done, 'the result of a goal')
        told = sent.outcome.result()
        return told.status, told.result.error_code, told.result.error_string

    def cancel(self, sent):
        """Cancel a goal; return its end."""
        asked = sent.handle.cancel_goal_async()
        self.graph.wait_for(asked.done, 'the answer to a cancellation')
        assert len(asked.result().goals_canceling) == 1
        return self.result(sent)

    def step(self, num_steps=1, sent=None):
        """Make steps, one by one; with a goal that is followed its feedback is waited for."""
        for _ in range(num_steps):
            told = sent and len(sent.feedback)
            self.node.session.advance(1).result()
            if sent is not None:
                self.graph.wait_for(lambda: len(sent.feedback) > told, 'feedback')

    @property
    def message(self):
        """What the encoder tells of the newest command that was refused."""
        return self.encoder._buffer.message

    @property
    def now_ns(self):
        """Sim time."""
        return self.node.session.sim_ns

    @property
    def position(self):
        """Where the joints are, by name."""
        return dict(zip(JOINTS, self.graph.engine._q))


@pytest.fixture(scope='module')
def start(domain):
    """Start worlds, one at a time: rclpy has one graph."""
    running = []

    def begin(*ros_args, composed=True, name=NAME):
        while running:
            running.pop().__exit__()
        engine = ArmWorld()

        def nodes():
            encoder = ActionEncoderNode()
            return [WorldModelNode(world=lambda: engine, encoder=encoder if composed else None),
                    encoder]
        graph = Graph(nodes, domain, ('-p', 'scene:=a', *ros_args))
        running.append(graph)
        graph.__enter__()
        graph.engine = engine
        graph.wait_for(lambda: graph.nodes[1]._buffer, 'a world')
        return Arm(graph, name)
    yield begin
    while running:
        running.pop().__exit__()


@pytest.fixture(scope='module')
def stepped(start):
    """A world that makes a step when it is told to, both nodes in one process."""
    return start('-p', 'mode:=stepped')


@pytest.fixture
def arm(stepped):
    """The same as it was in the beginning."""
    stepped.graph.engine.is_stuck = False
    stepped.node.session.reset().result()
    if stepped.node.session.status.state != State.PAUSED:
        stepped.node.session.pause().result()
    return stepped


def heads_for(sent, points):
    """Whether feedback names these points, where it can: since Kilted."""
    return 'index' not in FollowJointTrajectory.Feedback.get_fields_and_field_types() or [
        feedback.index for feedback in sent.feedback] == points


def goal(times_s, positions, joints=JOINTS, stamp_ns=0, **more):
    """One value per point for all joints, or a list of values."""
    msg = FollowJointTrajectory.Goal(**more)
    msg.trajectory.joint_names = list(joints)
    for time_s, position in zip(times_s, positions):
        values = position if np.ndim(position) else [position] * len(joints)
        point = JointTrajectoryPoint(positions=array('d', values))
        set_stamp(point.time_from_start, round(time_s * 1e9))
        msg.trajectory.points.append(point)
    set_stamp(msg.trajectory.header.stamp, stamp_ns)
    return msg


def pan(times_s, positions, **more):
    return goal(times_s, positions, joints=[PAN], **more)


def tolerance(name=PAN, position=0.0, velocity=0.0):
    return [JointTolerance(name=name, position=position, velocity=velocity)]


def within(seconds):
    msg = FollowJointTrajectory.Goal()
    set_stamp(msg.goal_time_tolerance, round(seconds * 1e9))
    return msg.goal_time_tolerance


def test_a_goal_is_followed_frame_by_frame_until_it_is_reached(arm):
    now_ns = arm.now_ns
    sent = arm.send(goal([2 * PERIOD_S, 4 * PERIOD_S], [HOME + 0.005, HOME + 0.01]))
    assert sent.accepted
    arm.step(4, sent)
    assert arm.result(sent) == (SUCCEEDED, Code.SUCCESSFUL, 'Goal reached.')
    assert [stamp_to_ns(f.header.stamp) for f in sent.feedback] == [
        now_ns + n * PERIOD_NS for n in range(1, 5)]
    assert heads_for(sent, [0, 1, 1, 2])
    for number, told in enumerate(sent.feedback, 1):
        assert tuple(told.joint_names) == JOINTS
        wanted = HOME + 0.0025 * number
        assert told.desired.positions == pytest.approx(wanted, abs=1e-6)
        assert told.actual.positions == pytest.approx(wanted, abs=1e-6)
        assert told.error.positions == pytest.approx(np.zeros(5), abs=1e-6)
        assert told.desired.velocities[0] == pytest.approx(0.0025 / PERIOD_S if number < 4 else 0)
        assert stamp_to_ns(told.desired.time_from_start) == number * PERIOD_NS
    arm.step(3)  # and there it stays
    assert arm.position[PAN] == pytest.approx(HOME[0] + 0.01, abs=1e-6)


def test_the_error_is_what_is_desired_minus_what_is(arm):
    arm.graph.engine.is_stuck = True
    sent = arm.send(pan([4 * PERIOD_S], [0.4]))
    arm.step(2, sent)
    assert list(sent.feedback[-1].error.positions) == pytest.approx([0.2], abs=1e-6)
    assert list(sent.feedback[-1].error.velocities) == pytest.approx([0.1 / PERIOD_S], abs=1e-3)
    assert list(sent.feedback[-1].actual.positions) == pytest.approx([0.0])


REFUSED = {
    'a joint that is not there': (goal([1.0], [0.1], joints=[PAN, 'nose']), 'unknown joint'),
    'no joint': (goal([1.0], [[]], joints=[]), 'no joint is named'),
    'a joint twice': (goal([1.0], [0.1], joints=[PAN, PAN]), 'named twice'),
    'no points': (goal([], []), 'no points'),
    'too few positions': (goal([1.0], [[0.1]], joints=[PAN, LIFT]), '1 positions for 2 joint'),
    'times that stand still': (pan([1.0, 1.0], [0.1, 0.2]), 'increase from point to point'),
    'times that go back': (pan([1.0, 0.5], [0.1, 0.2]), 'increase from point to point'),
    'points without times': (pan([0.0, 0.0], [0.1, 0.2]), 'increase from point to point'),
    'an infinite position': (pan([1.0], [inf]), ''),
    'nothing but NaN': (goal([1.0, 2.0], [nan, nan]), 'all its positions are NaN'),
    'a position out of reach': (pan([1.0], [9.0]), 'beyond its limits'),
    'a trajectory of the past': (pan([1.0], [0.1], stamp_ns=1), 'ended'),
    'one of wall time': (pan([1.0], [0.1], stamp_ns=10 ** 18), 'use_sim_time'),
    'a tolerance of another joint': (
        pan([1.0], [0.1], path_tolerance=tolerance(LIFT, 0.1)), 'path_tolerance names joint'),
    'a negative tolerance': (pan([1.0], [0.1], goal_tolerance=tolerance(position=-2.0)),
                             'goal_tolerance of'),
    'a tolerance that is NaN': (pan([1.0], [0.1], path_tolerance=tolerance(velocity=nan)),
                                'path_tolerance of'),
    'a tolerance of a component': (pan([1.0], [0.1], component_path_tolerance=[
        JointComponentTolerance(joint_name=PAN)]), 'components'),
}


def refused_by_field(field):
    msg = pan([1.0], [0.1])
    setattr(msg.trajectory.points[0], field, array('d', [0.5]))
    return msg


REFUSED['an end in motion'] = refused_by_field('velocities'), 'its last point still moves'
REFUSED['effort'] = refused_by_field('effort'), 'effort is not offered'
FLYING = pan([1.0], [0.1])
FLYING.multi_dof_trajectory.joint_names = ['base']
REFUSED['a flying base'] = FLYING, 'multi_dof_trajectory'


def test_goals_that_cannot_be_followed_are_refused_and_change_nothing(arm):
    """The one that is followed meanwhile goes on; each refusal is told and counted."""
    running = arm.send(pan([40 * PERIOD_S], [0.4]))
    arm.step(16, running)  # past the end of the trajectory of the past
    rejected = arm.encoder._buffer.rejected
    for number, (what, (msg, words)) in enumerate(REFUSED.items(), 1):
        assert not arm.send(msg).accepted, what
        assert words in arm.message and arm.message.startswith(f'{NAME}: refused'), what
        assert arm.encoder._buffer.rejected == rejected + number
    arm.step(24, running)
    assert arm.result(running)[:2] == (SUCCEEDED, Code.SUCCESSFUL)
    assert arm.position[PAN] == pytest.approx(0.4, abs=1e-6)


def test_a_goal_for_some_joints_leaves_the_others(arm):
    sent = arm.send(goal([PERIOD_S, 2 * PERIOD_S], [[nan, 0.1], [nan, 0.2]], joints=[LIFT, PAN]))
    arm.step(2, sent)
    assert arm.result(sent)[:2] == (SUCCEEDED, Code.SUCCESSFUL)
    assert [list(f.joint_names) for f in sent.feedback] == [[PAN]] * 2
    assert arm.position == pytest.approx({**dict(zip(JOINTS, HOME)), PAN: 0.2}, abs=1e-6)


def test_a_stamp_in_the_future_starts_then_and_one_in_the_past_drops_points(arm):
    late = arm.send(pan([2 * PERIOD_S], [0.2], stamp_ns=arm.now_ns + 2 * PERIOD_NS))
    arm.step(4, late)
    assert arm.result(late)[1] == Code.SUCCESSFUL
    assert [stamp_to_ns(f.desired.time_from_start) for f in late.feedback] == [
        n * PERIOD_NS for n in (-1, 0, 1, 2)]
    assert [f.desired.positions[0] for f in late.feedback] == pytest.approx([0.0, 0.0, 0.1, 0.2],
                                                                            abs=1e-6)
    early = arm.send(pan([PERIOD_S, 5 * PERIOD_S], [0.9, 0.0],
                         stamp_ns=arm.now_ns - 2 * PERIOD_NS))
    arm.step(3, early)
    assert arm.result(early)[1] == Code.SUCCESSFUL
    assert heads_for(early, [1, 1, 2])
    assert max(f.desired.positions[0] for f in early.feedback) < 0.2


def test_a_path_tolerance_that_is_violated_ends_the_goal_and_the_arm_holds(arm):
    arm.graph.engine.is_stuck = True
    sent = arm.send(pan([4 * PERIOD_S], [0.4], path_tolerance=tolerance(position=0.25)))
    arm.step(3, sent)
    status, code, text = arm.result(sent)
    assert (status, code) == (ABORTED, Code.PATH_TOLERANCE_VIOLATED)
    assert f'position of {PAN} is 0, 0.3 off' in text and 'path tolerance 0.25' in text
    arm.graph.engine.is_stuck = False
    arm.step(3)
    assert arm.position[PAN] == pytest.approx(0.0, abs=1e-6)


def test_the_path_tolerance_holds_in_the_first_moment_even_if_that_is_the_last(arm):
    arm.graph.engine.is_stuck = True
    sent = arm.send(pan([0.0], [0.4], path_tolerance=tolerance(position=0.1)))
    arm.step(1, sent)
    assert arm.result(sent)[1] == Code.PATH_TOLERANCE_VIOLATED


@pytest.mark.parametrize('wait_s, code', [
    (2.5 * PERIOD_S, Code.GOAL_TOLERANCE_VIOLATED), (3.5 * PERIOD_S, Code.SUCCESSFUL)])
def test_a_goal_tolerance_has_to_be_met_within_its_time(arm, wait_s, code):
    arm.graph.engine.is_stuck = True
    sent = arm.send(pan([PERIOD_S], [0.05], goal_tolerance=tolerance(position=0.01),
                        goal_time_tolerance=within(wait_s)))
    arm.step(3, sent)
    arm.graph.engine.is_stuck = code != Code.SUCCESSFUL
    arm.step(1, sent)
    status, told, text = arm.result(sent)
    assert (status, told) == (SUCCEEDED if code == 0 else ABORTED, code)
    assert len(sent.feedback) == 4
    if code != Code.SUCCESSFUL:
        assert 'goal tolerance 0.01' in text and 'goal_time_tolerance 0.166667' in text


def test_without_goal_time_it_waits_for_as_long_as_it_takes(arm):
    arm.graph.engine.is_stuck = True
    sent = arm.send(pan([PERIOD_S], [0.05], goal_tolerance=tolerance(position=0.01)))
    arm.step(30, sent)
    assert not sent.outcome.done()
    arm.graph.engine.is_stuck = False
    arm.step(1, sent)
    assert arm.result(sent)[1] == Code.SUCCESSFUL


def test_a_velocity_tolerance_is_looked_at(arm):
    arm.graph.engine.is_stuck = True
    sent = arm.send(pan([4 * PERIOD_S], [0.4], path_tolerance=tolerance(velocity=0.5)))
    arm.step(1, sent)
    status, code, text = arm.result(sent)
    assert code == Code.PATH_TOLERANCE_VIOLATED and f'velocity of {PAN}' in text


def test_parameters_are_the_tolerances_of_goals_that_give_none(arm):
    names = [f'constraints.{name}' for name in ('trajectory', 'goal', 'goal_time')]
    arm.encoder.set_parameters([Parameter(name, value=value)
                                for name, value in zip(names, (0.25, 0.0, 0.0))])
    try:
        arm.graph.engine.is_stuck = True
        sent = arm.send(pan([4 * PERIOD_S], [0.4]))
        arm.step(3, sent)
        assert arm.result(sent)[1] == Code.PATH_TOLERANCE_VIOLATED
        sent = arm.send(pan([4 * PERIOD_S], [0.4], path_tolerance=tolerance(position=-1.0)))
        arm.step(4, sent)
        assert arm.result(sent)[1] == Code.SUCCESSFUL  # erased, and no goal tolerance
    finally:
        arm.encoder.set_parameters([Parameter(name, value=0.0) for name in names])


def test_a_new_goal_takes_over(arm):
    """The old one is aborted as by joint_trajectory_controller; joints of it alone go on."""
    old = arm.send(goal([4 * PERIOD_S], [[0.4, -0.9]], joints=[PAN, LIFT]))
    arm.step(2, old)
    new = arm.send(pan([2 * PERIOD_S], [0.0]))
    status, code, text = arm.result(old)
    assert (status, code) == (ABORTED, Code.INVALID_GOAL) and 'Preempted by a new goal' in text
    arm.step(2, new)
    assert arm.result(new)[1] == Code.SUCCESSFUL
    assert arm.position[PAN] == pytest.approx(0.0, abs=1e-6)
    assert arm.position[LIFT] == pytest.approx(-0.9, abs=1e-6)


def test_a_goal_for_other_joints_takes_over_too(arm):
    """One goal at a time."""
    old, new = arm.send(pan([4 * PERIOD_S], [0.4])), arm.send(goal([PERIOD_S], [-0.9], [LIFT]))
    assert arm.result(old)[1] == Code.INVALID_GOAL
    arm.step(1, new)
    assert arm.result(new)[1] == Code.SUCCESSFUL


def test_a_goal_may_end_before_its_client_knows_that_it_was_accepted(arm, monkeypatch):
    action = arm.encoder.trajectories
    take, step = action._take, arm.node.session.advance
    monkeypatch.setattr(action, '_take', lambda *goal: take(*goal) and bool(step(1).result()))
    assert arm.result(arm.send(pan([0.0], [0.1])))[:2] == (SUCCEEDED, Code.SUCCESSFUL)
    assert not action._asked


def test_a_goal_that_is_canceled_leaves_the_arm_where_it_is(arm):
    sent = arm.send(pan([4 * PERIOD_S], [0.4]))
    arm.step(2, sent)
    assert arm.cancel(sent)[:2] == (CANCELED, Code.SUCCESSFUL)
    arm.step(4)
    assert arm.position[PAN] == pytest.approx(0.2, abs=1e-6)
    assert len(sent.feedback) == 2


def send_and_wait(arm, topic, msg):
    """Publish one command, and wait until it counts."""
    publisher = arm.graph.publisher(type(msg), topic)
    accepted = arm.encoder._buffer.accepted
    publisher.publish(msg)
    arm.graph.wait_for(lambda: arm.encoder._buffer.accepted > accepted, topic)
    arm.graph.probe.destroy_publisher(publisher)


@pytest.mark.parametrize('topic, msg', [
    ('arm_controller/joint_trajectory', pan([2 * PERIOD_S], [0.0]).trajectory),
    ('arm_controller/joint_trajectory', JointTrajectory()),
    ('joint_command', joint_command_to_msg([PAN], position=[0.0]))])
def test_another_command_for_its_joints_takes_over(arm, topic, msg):
    """Its client is told; the joint does what the newest command asks for."""
    sent = arm.send(pan([4 * PERIOD_S], [0.4]))
    arm.step(2, sent)
    send_and_wait(arm, topic, msg)
    status, code, text = arm.result(sent)
    assert (status, code) == (ABORTED, Code.INVALID_GOAL) and topic in text
    arm.step(4)
    stands = not len(getattr(msg, 'points', [1]))
    assert arm.position[PAN] == pytest.approx(0.2 if stands else 0.0, abs=1e-6)


def test_a_step_right_behind_the_answer_is_told_of(arm):
    """The client knows that its goal is followed a moment before the server has a handle."""
    actions, server = arm.encoder.trajectories, arm.encoder.trajectories._server

    def accepted_after_a_step(handle):
        arm.step()
        actions.on_accepted(handle)
    server.register_handle_accepted_callback(accepted_after_a_step)
    try:
        sent = arm.send(pan([4 * PERIOD_S], [0.4]))
        arm.graph.wait_for(lambda: sent.feedback, 'feedback')
    finally:
        server.register_handle_accepted_callback(actions.on_accepted)
    arm.step(3, sent)
    assert arm.result(sent)[:2] == (SUCCEEDED, Code.SUCCESSFUL)
    assert [stamp_to_ns(told.desired.time_from_start) for told in sent.feedback] == [
        n * PERIOD_NS for n in range(1, 5)]


@pytest.mark.parametrize('topic, msg', [
    ('joint_command', joint_command_to_msg([LIFT], position=[-0.9])),
    ('cmd_vel', None)])
def test_a_command_for_others_leaves_it_alone(arm, topic, msg):
    sent = arm.send(pan([4 * PERIOD_S], [0.4]))
    arm.step(2, sent)
    msg = msg or twist_to_msg(0.1, 0.0, 'Stamped' in arm.encoder.cmd_vel.msg_type.__name__)
    send_and_wait(arm, topic, msg)
    arm.step(2, sent)
    assert arm.result(sent)[:2] == (SUCCEEDED, Code.SUCCESSFUL)


def change(arm, transition):
    return arm.graph.call(ChangeState, '/world_model/change_state', ChangeState.Request(
        transition=Transition(id=transition))).success


def test_a_goal_ends_with_a_reset(arm):
    sent = arm.send(pan([4 * PERIOD_S], [0.4]))
    arm.step(2, sent)
    assert arm.graph.call(Trigger, '/world_model/reset').success
    status, code, text = arm.result(sent)
    assert (status, code) == (ABORTED, Code.INVALID_GOAL) and 'reset' in text
    arm.step(3)
    assert arm.position[PAN] == pytest.approx(0.0, abs=1e-6)


def test_a_goal_ends_with_another_mode(arm):
    """What it was to be followed by, step or wall, is gone."""
    sent = arm.send(pan([4 * PERIOD_S], [0.4]))
    arm.node.session.set_mode('lockstep').result()
    arm.node.session.set_mode('stepped').result()
    assert arm.result(sent)[:2] == (ABORTED, Code.INVALID_GOAL)


def test_a_goal_ends_when_its_node_is_deactivated_and_none_is_taken_until_it_is_active(arm):
    sent = arm.send(pan([4 * PERIOD_S], [0.4]))
    arm.step(2, sent)
    assert change(arm, Transition.TRANSITION_DEACTIVATE)
    status, code, text = arm.result(sent)
    assert (status, code) == (ABORTED, Code.INVALID_GOAL) and 'not active' in text
    assert not arm.send(pan([PERIOD_S], [0.4])).accepted and 'not active' in arm.message
    assert change(arm, Transition.TRANSITION_ACTIVATE)
    arm.step(3)  # the arm held meanwhile, and holds
    assert arm.position[PAN] == pytest.approx(0.2, abs=1e-6)
    sent = arm.send(pan([PERIOD_S], [0.25]))
    arm.step(1, sent)
    assert arm.result(sent)[1] == Code.SUCCESSFUL


def test_a_goal_ends_when_the_world_is_unloaded_and_none_is_taken_without_a_world(arm):
    sent = arm.send(pan([4 * PERIOD_S], [0.4]))
    definition = arm.node.session.definition
    arm.node.session.unload().result()
    assert arm.result(sent)[:2] == (ABORTED, Code.INVALID_GOAL)
    assert not arm.send(pan([1.0], [0.4])).accepted and 'no world is loaded' in arm.message
    arm.node.session.load(definition).result()
    assert arm.send(pan([1.0], [0.4])).accepted


def test_a_goal_ends_when_the_engine_fails(arm):
    engine = arm.graph.engine
    sent = arm.send(pan([4 * PERIOD_S], [0.4]))
    arm.step(1, sent)
    engine.script = dict.fromkeys(range(100), RuntimeError('broken'))
    assert arm.node.session.advance(1).exception() is not None
    engine.script = {}
    status, code, text = arm.result(sent)
    assert (status, code) == (ABORTED, Code.INVALID_GOAL) and 'failed' in text
    assert not arm.send(pan([1.0], [0.4])).accepted and 'failed' in arm.message


def test_nothing_listens_or_ticks_for_the_action_without_a_goal(arm, monkeypatch):
    """What it adds to the node is the server itself."""
    assert not any('status' in s.topic_name for s in arm.encoder.subscriptions)
    assert len(list(arm.encoder.timers)) == 1  # looks who publishes commands, as ever
    monkeypatch.setattr(arm.encoder.trajectories, 'observe', None)  # called, it would fail
    arm.step(2)


DOCS = Path(__file__).resolve().parent.parent / 'docs' / 'commands.md'
ROWS = {  # of the table there -> the tests behind it
    'name': 'the_name_follows_that_of_the_topic',
    'clock': 'goals_are_followed_by_sim_time_in_every_mode',
    'goals at a time': 'a_goal_for_other_joints_takes_over_too',
    'refused': 'goals_that_cannot_be_followed_are_refused_and_change_nothing',
    'some of the joints': 'a_goal_for_some_joints_leaves_the_others',
    'header.stamp': 'a_stamp_in_the_future_starts_then_and_one_in_the_past_drops_points',
    'feedback': 'a_goal_is_followed_frame_by_frame_until_it_is_reached',
    'error': 'the_error_is_what_is_desired_minus_what_is',
    'path tolerance': 'a_path_tolerance_that_is_violated_ends_the_goal_and_the_arm_holds',
    'goal tolerance': 'a_goal_tolerance_has_to_be_met_within_its_time',
    'velocity tolerance': 'a_velocity_tolerance_is_looked_at',
    'defaults': 'parameters_are_the_tolerances_of_goals_that_give_none',
    'tolerance 0 and -1': 'parameters_are_the_tolerances_of_goals_that_give_none',
    'other tolerances that mean nothing':
        'goals_that_cannot_be_followed_are_refused_and_change_nothing',
    'cancel': 'a_goal_that_is_canceled_leaves_the_arm_where_it_is',
    'a command by topic for its joints': 'another_command_for_its_joints_takes_over',
    'controller deactivated':
        'a_goal_ends_when_its_node_is_deactivated_and_none_is_taken_until_it_is_active',
    'reset, another mode, no world, a failed engine': 'a_goal_ends_with_a_reset',
    'INVALID_JOINTS, OLD_HEADER_TIMESTAMP':
        'goals_that_cannot_be_followed_are_refused_and_change_nothing',
}


def test_every_row_of_the_documented_table_has_a_test():
    if not DOCS.is_file():
        pytest.skip('docs/ is not installed with the package')
    section = DOCS.read_text().split('## FollowJointTrajectory')[1].split('\n## ')[0]
    titles = [line.split('|')[1].strip() for line in section.splitlines() if line[:1] == '|'][2:]
    assert titles == list(ROWS)
    assert all(f'test_{name}' in globals() for name in ROWS.values())


# Worlds of their own from here on: rclpy has one graph at a time.


@pytest.mark.parametrize('mode', ['realtime', 'lockstep'])
def test_goals_are_followed_by_sim_time_in_every_mode(start, mode):
    """In lockstep a goal is one command, and time goes on with the next ones."""
    arm = start('-p', f'mode:={mode}', '-p', 'speed:=4.0', '-p', 'lockstep_timeout_s:=0.05')
    sent = arm.send(pan([4 * PERIOD_S], [0.4]))
    assert arm.result(sent)[:2] == (SUCCEEDED, Code.SUCCESSFUL)
    times = [stamp_to_ns(f.desired.time_from_start) for f in sent.feedback]
    assert times and times == sorted(times) and times[-1] <= 4 * PERIOD_NS
    assert all(time_ns % PERIOD_NS == 0 for time_ns in times)
    long = arm.send(pan([3600.0], [0.0]))
    arm.graph.wait_for(lambda: long.feedback, 'feedback')
    assert arm.cancel(long)[0] == CANCELED


def test_in_two_processes_the_topics_of_the_world_say_how_it_goes(start):
    arm = start('-p', 'speed:=4.0', composed=False)
    sent = arm.send(pan([30 * PERIOD_S], [0.4], goal_tolerance=tolerance(position=0.01)))
    assert arm.result(sent)[:2] == (SUCCEEDED, Code.SUCCESSFUL)
    assert sent.feedback[-1].actual.positions[0] == pytest.approx(0.4, abs=0.01)
    arm.graph.wait_for(lambda: not any('status' in s.topic_name for s in
                                       arm.encoder.subscriptions), 'the end of listening')
    long = arm.send(pan([3600.0], [0.0]))
    arm.graph.wait_for(lambda: long.feedback, 'feedback')
    assert arm.cancel(long)[0] == CANCELED
    gone = arm.send(pan([3600.0], [0.0]))
    arm.graph.wait_for(lambda: gone.feedback, 'feedback')
    arm.node.session.unload().result()
    status, code, text = arm.result(gone)
    assert (status, code) == (ABORTED, Code.INVALID_GOAL) and 'unloaded' in text


def test_in_two_processes_silence_ends_a_goal(start, monkeypatch):
    monkeypatch.setattr('lingbot_world_ros.nodes.world_watch.SILENCE_S', 1.0)
    arm = start('-p', 'speed:=4.0', composed=False)
    sent = arm.send(pan([3600.0], [0.4]))
    arm.graph.wait_for(lambda: sent.feedback, 'feedback')
    assert change(arm, Transition.TRANSITION_DEACTIVATE)
    status, code, text = arm.result(sent)
    assert (status, code) == (ABORTED, Code.INVALID_GOAL) and 'silent' in text


def test_the_name_follows_that_of_the_topic(start):
    arm = start('-p', 'mode:=stepped', '-p', 'topics.joint_trajectory:=left/joint_trajectory',
                '-r', '__ns:=/w1', name='w1/left/follow_joint_trajectory')
    assert arm.encoder.trajectories.full_name == '/w1/left/follow_joint_trajectory'


def test_without_control_msgs_there_is_no_action_and_one_line_says_so(monkeypatch, domain):
    """Commands by topic go on as ever."""
    monkeypatch.setitem(sys.modules, 'control_msgs.action', None)
    lines = []
    monkeypatch.setattr(ActionEncoderNode, 'get_logger',
                        lambda self: SimpleNamespace(info=lines.append))
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=domain)
    encoder = ActionEncoderNode(context=context)
    try:
        assert [line for line in lines if 'control_msgs is not installed' in line] == lines
        assert encoder.trajectories.full_name == ''
        assert len(lines) == 1 and not get_action_server_names_and_types_by_node(
            encoder, 'action_encoder', '/')
    finally:
        encoder.destroy_node()
        rclpy.shutdown(context=context)
