# SPDX-License-Identifier: Apache-2.0
"""The action Plan, asked as clients ask it: goals, feedback, results, cancel, preemption."""
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('simulation_interfaces.srv')
pytest.importorskip('gymnasium')
Plan = pytest.importorskip('lingbot_world_ros.action').Plan

from action_msgs.msg import GoalStatus  # noqa: E402, I100
from lingbot_world_ros.engines.interface import State  # noqa: E402
from lingbot_world_ros.engines.registry import make_world  # noqa: E402
from lingbot_world_ros.messages.image import image_to_msg  # noqa: E402
from lingbot_world_ros.msg import WorldStatus  # noqa: E402
from lingbot_world_ros.nodes.pair import make_pair  # noqa: E402
from lingbot_world_ros.nodes.plan_action import PlanNode  # noqa: E402
from lingbot_world_ros.policies.drive import Driver  # noqa: E402
from needs import need_engine  # noqa: E402
import numpy as np  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from ros_graph import Graph  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402

need_engine('room')
SUCCEEDED, CANCELED, ABORTED = (
    GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED, GoalStatus.STATUS_ABORTED)
SEED = 1
WORLD = ('-p', 'scene:=office', '-p', f'seed:={SEED}')


class Client:
    """A client of the action, beside a stepped world that nobody else steps."""

    def __init__(self, graph):
        self.graph, (self.world, self.encoder, self.planner) = graph, graph.nodes
        self.engine = make_world('room')
        self.start = self.engine.reset('office', SEED)
        self.statuses = graph.listen(WorldStatus, '/world_status')
        self.client = ActionClient(graph.probe, Plan, '/plan')
        graph.wait_for(self.client.server_is_ready, 'the action server')

    def reset(self):
        """Put the robot where it began."""
        self.graph.call(Trigger, '/world_model/reset')

    def goal(self, ahead_m=0.0, turn_rad=0.0, frame_id='map', **fields):
        """Return a goal so far ahead of where the robot begins."""
        x, y, yaw = (0.0, 0.0, 0.0) if frame_id == 'odom' else self.start.base_pose[0, 0]
        goal = Plan.Goal(**fields)
        pose = goal.pose.pose
        goal.pose.header.frame_id = frame_id
        pose.position.x = x + ahead_m * np.cos(yaw)
        pose.position.y = y + ahead_m * np.sin(yaw)
        pose.orientation.z = np.sin(0.5 * (yaw + turn_rad))
        pose.orientation.w = np.cos(0.5 * (yaw + turn_rad))
        return goal

    def send(self, goal):
        """Send a goal; return how its client sees it."""
        feedback = []
        asked = self.client.send_goal_async(goal, lambda msg: feedback.append(msg.feedback))
        self.graph.wait_for(asked.done, 'the answer to a goal')
        handle = asked.result()
        assert handle.accepted
        return SimpleNamespace(handle=handle, feedback=feedback,
                               outcome=handle.get_result_async())

    def result(self, sent):
        """Wait for the end of a goal; return status and result."""
        self.graph.wait_for(sent.outcome.done, 'the result of a goal')
        told = sent.outcome.result()
        return told.status, told.result

    def aborted(self, goal):
        """Return why a goal was aborted."""
        status, result = self.result(self.send(goal))
        assert status == ABORTED and not result.success
        return result.message


def nodes(patience_s, stale_s):
    world, encoder = make_pair(lambda: make_world('room'))
    return [world, encoder, PlanNode(Driver(budget=48), patience_s=patience_s, stale_s=stale_s)]


@pytest.fixture(scope='module')
def start(domain):
    """Start graphs, one at a time: rclpy has one."""
    running = []

    def begin(make_nodes, *ros_args):
        while running:
            running.pop().__exit__()
        running.append(Graph(make_nodes, domain, ros_args))
        return running[0].__enter__()
    yield begin
    while running:
        running.pop().__exit__()


@pytest.fixture(scope='module')
def stepped(start):
    """A world that the planner steps."""
    return Client(start(lambda: nodes(PATIENCE_S, PATIENCE_S), *WORLD, '-p', 'mode:=stepped'))


@pytest.fixture
def client(stepped):
    stepped.reset()
    return stepped


@pytest.mark.parametrize('frame_id', ['map', 'odom'])
def test_a_robot_is_driven_to_a_pose_and_told_of_on_its_way(client, frame_id):
    sent = client.send(client.goal(0.4, 0.3, frame_id))
    status, result = client.result(sent)
    assert (status, result.success, result.message) == (SUCCEEDED, True, 'Reached the goal.')
    start, goal = client.start.base_pose[0, 0], client.goal(0.4, 0.3).pose.pose
    path = result.path
    assert path.header.frame_id == 'map' and len(path.poses) == len(sent.feedback) + 1
    ends = np.array([[one.pose.position.x, one.pose.position.y] for one in path.poses])[[0, -1]]
    np.testing.assert_allclose(ends[0], start[:2], atol=0.01)
    assert np.hypot(*(ends[1] - [goal.position.x, goal.position.y])) < 0.16
    assert result.elapsed.sec + result.elapsed.nanosec * 1e-9 == pytest.approx(
        0.2 * len(sent.feedback), abs=0.01)
    first, last = sent.feedback[0], sent.feedback[-1]
    assert first.distance_left == pytest.approx(0.4, abs=0.05) and first.angle_left > 0.25
    assert last.distance_left < 0.5 * first.distance_left and np.isnan(first.image_difference)
    assert last.success_predicted and first.planning_time > 0.0
    assert 0.0 <= first.predicted_deviation < 1.0
    assert first.path.header.frame_id == 'map' and len(first.path.poses) == 13


def test_a_robot_is_driven_to_where_a_picture_was_taken(client):
    pose = client.start.base_pose[:, -1].copy()
    pose[0, :2] += 0.3 * np.array([np.cos(pose[0, 2]), np.sin(pose[0, 2])])
    there = State(pose, client.start.joint_position[:, -1], client.start.object_pose[:, -1])
    rgb = client.engine.render(there).rgb[0, -1]
    sent = client.send(Plan.Goal(image=image_to_msg(rgb, 0, 'camera')))
    status, result = client.result(sent)
    assert status == SUCCEEDED, result.message
    end = result.path.poses[-1].pose.position
    assert np.hypot(end.x - pose[0, 0], end.y - pose[0, 1]) < 0.2
    first = sent.feedback[0]
    assert 0.0 < first.image_difference < 1.0 and np.isnan(first.distance_left)


def test_a_canceled_goal_ends_and_the_robot_stands(client):
    sent = client.send(client.goal(1.5))
    client.graph.wait_for(lambda: len(sent.feedback) > 1, 'feedback')
    asked = sent.handle.cancel_goal_async()
    client.graph.wait_for(asked.done, 'the answer to a cancellation')
    status, result = client.result(sent)
    assert status == CANCELED and not result.success and 'told to stop' in result.message
    assert len(result.path.poses) > 1
    client.world.session.advance(1).result()
    actions = client.graph.newest(client.statuses, what='a status').actions
    assert len(actions) and not any(actions)


def test_a_new_goal_preempts_the_one_before(client):
    far = client.send(client.goal(1.5))
    client.graph.wait_for(lambda: far.feedback, 'feedback')
    near = client.send(client.goal(0.3))
    status, result = client.result(far)
    assert (status, result.message) == (ABORTED, 'Preempted by a new goal.')
    assert client.result(near)[0] == SUCCEEDED


def test_what_is_not_reached_in_time_is_aborted(client):
    goal = client.goal(1.5)
    goal.time_limit.nanosec = 400_000_000
    sent = client.send(goal)
    status, result = client.result(sent)
    assert status == ABORTED and 'Not reached within 0.4 s' in result.message
    assert len(sent.feedback) == 2


def test_goals_that_cannot_be_are_aborted_in_words_and_leave_the_other_alone(client):
    far = client.send(client.goal(1.5))
    client.graph.wait_for(lambda: far.feedback, 'feedback')
    assert 'frame moon; give it in map or odom' in client.aborted(client.goal(frame_id='moon'))
    assert 'is not finite' in client.aborted(client.goal(np.nan))
    assert 'is outside of office' in client.aborted(client.goal(30.0))
    goal = client.goal(1.0, position_tolerance=-1.0)
    assert 'position_tolerance=-1 m must be from 0' in client.aborted(goal)
    goal = client.goal(1.0)
    goal.pose.pose.orientation.z = goal.pose.pose.orientation.w = 0.0
    assert 'no quaternion' in client.aborted(goal)
    picture = image_to_msg(np.zeros((4, 4, 3), np.uint8), 0, 'camera')
    picture.encoding = 'unheard_of'
    assert 'unheard_of' in client.aborted(Plan.Goal(image=picture))
    assert not far.outcome.done()
    client.graph.wait_for(far.handle.cancel_goal_async().done, 'a cancellation')
    client.result(far)


def test_in_real_time_a_robot_is_driven_and_stops_where_frames_stop(start):
    client = Client(start(lambda: nodes(5.0, 0.3), *WORLD))
    sent = client.send(client.goal(1.5))
    client.graph.wait_for(lambda: any(status.actions and any(status.actions)
                                      for status in client.statuses), 'a robot that moves')
    client.graph.call(SetBool, '/world_model/pause', SetBool.Request(data=True))
    status, result = client.result(sent)
    assert status == ABORTED and 'in vain for' in result.message
    assert 'told to stop' in result.message and len(sent.feedback) >= 1
    client.world.session.advance(1).result()
    assert not any(client.graph.newest(client.statuses, what='a status').actions)


@pytest.mark.parametrize('arguments, said', [
    (['--stale', '0'], 'must be more than 0'), (['--method', 'best'], "unknown planner 'best'"),
    (['--budget', '3'], 'at least 12'), (['--engine', 'nothing'], "unknown engine 'nothing'"),
    (['--profile', 'nowhere'], 'nowhere')])
def test_what_cannot_be_offered_is_told_in_words(domain, arguments, said):
    done = subprocess.run([sys.executable, '-m', 'lingbot_world_ros.cli', 'plan', *arguments],
                          env={**os.environ, 'ROS_DOMAIN_ID': str(domain)}, capture_output=True,
                          text=True, timeout=PATIENCE_S)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert said.lower() in done.stderr.lower()


def test_without_a_world_a_goal_is_aborted_in_words(start):
    graph = start(lambda: [PlanNode(Driver(budget=48), patience_s=0.5)])
    client = Client.__new__(Client)
    client.graph, client.client = graph, ActionClient(graph.probe, Plan, '/plan')
    graph.wait_for(client.client.server_is_ready, 'the action server')
    goal = Plan.Goal()
    goal.pose.header.frame_id = 'map'
    assert 'in vain for a simulator' in client.aborted(goal)
