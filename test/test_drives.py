# SPDX-License-Identifier: Apache-2.0
"""Robots of other kinds from command to action: one without joints, one that strafes, a car."""
from dataclasses import replace
from math import cos, pi, sin

from lingbot_world_ros.actions.command_spec import CommandCounts, CommandSpec
from lingbot_world_ros.actions.commands import CommandBuffer
from lingbot_world_ros.actions.embedding import (actions_at_latch, CarriedCamera, check_embedding,
                                                 encode)
from lingbot_world_ros.actions.layout import robot_action_layout, twists_of
from lingbot_world_ros.actions.limits import Limits
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import PinholeCamera, T_LINK_OPTICAL
from lingbot_world_ros.robots.drive import Drive
from lingbot_world_ros.robots.load import load_robot
import numpy as np
import pytest

SHIPPED = load_robot()
CART = replace(SHIPPED, joints=(), arm=None)
STRAFING = replace(CART, drive=Drive(-0.5, 1.0, 2.0, lateral_max_mps=0.6))
STRAFING_WITH_ARM = replace(SHIPPED, drive=STRAFING.drive)
CAR = replace(CART, drive=Drive(-1.0, 2.0, 3.0, max_curvature=2.0))  # circles of half a metre
TENTH_NS = 100_000_000


def spec_of(robot, **more):
    spec = CommandSpec(robot_action_layout(robot), robot.joint_names,
                       tuple(robot.joint_array('low')), tuple(robot.joint_array('high')), 0.5,
                       **more)
    return spec.driven_by(robot.drive)


def twist_of(robot, linear, angular=(0, 0, 0), **more):
    """Send one twist; return what the next frame is asked to do, and the buffer."""
    buffer = CommandBuffer(spec_of(robot, **more))
    buffer.twist(linear, angular, 0)
    return buffer.targets(0, 0, 1, TENTH_NS).twist[0].tolist(), buffer


def one_second(robot, linear, w_radps):
    """Encode one frame of a second, and latch it: camera motion and actions."""
    buffer = CommandBuffer(spec_of(robot))
    buffer.twist([*linear, 0], [0, 0, w_radps], 0)
    eye = np.eye(4)
    eye[:3, 3] = [0.2, 0.1, 1.0]
    camera = CarriedCamera(PinholeCamera.from_fovy(64, 48, 1.0), eye @ T_LINK_OPTICAL)
    home = robot.joint_array('home')
    embedding = encode(buffer.targets(0, 0, 1, 10 * TENTH_NS), buffer.spec, camera, home,
                       sequence=1, stamp_ns=0, period_s=1.0, counts=CommandCounts())
    layout = robot_action_layout(robot)
    check_embedding(embedding, layout, robot.joint_names)
    actions = actions_at_latch(embedding, layout, home, 2,
                               max_curvature=robot.drive.max_curvature)
    return embedding.camera_motion[0], actions, layout


def seen_motion(x_m, y_m, yaw_rad):
    """Return by hand how the camera of ``one_second`` moves with the base."""
    c, s = cos(yaw_rad), sin(yaw_rad)
    # The camera is at (0.2, 0.1) before the axis; it looks along x, its x is to the right.
    dx, dy = x_m + c * 0.2 - s * 0.1 - 0.2, y_m + s * 0.2 + c * 0.1 - 0.1
    return [[c, 0, -s, -dy], [0, 1, 0, 0], [s, 0, c, dx], [0, 0, 0, 1]]


def test_columns_follow_drive_and_joints():
    assert robot_action_layout(CART).names == ('base.linear.x', 'base.angular.z')
    layout = robot_action_layout(STRAFING_WITH_ARM)
    assert layout.names[:4] == ('base.linear.x', 'base.linear.y', 'base.angular.z',
                                f'{SHIPPED.joint_names[0]}.velocity')
    assert layout.low[:3] == pytest.approx([-0.5, -0.6, -2.0])
    assert layout.high[:3] == pytest.approx([1.0, 0.6, 2.0])
    assert robot_action_layout(CAR).names == ('base.linear.x', 'base.angular.z')


def test_a_robot_without_joints_drives():
    motion, actions, layout = one_second(CART, (0.4, 0.0), 0.5)
    assert actions == pytest.approx(np.array([[0.4, 0.5]] * 2))
    x, y = 0.4 * sin(0.5) / 0.5, 0.4 * (1 - cos(0.5)) / 0.5
    np.testing.assert_allclose(motion, seen_motion(x, y, 0.5), atol=1e-12)


@pytest.mark.parametrize('send', [
    lambda b: b.joints(['elbow'], [0.1], [], 0), lambda b: b.joints([], [], [], 0),
    lambda b: b.joint_array([], 'position', 0), lambda b: b.joint_array([0.1], 'velocity', 0),
    lambda b: b.trajectory([], [], [], start_ns=0, sim_ns=0, policy_frequency_hz=10.0),
    lambda b: b.trajectory(['elbow'], [1.0], [[0.1]], start_ns=0, sim_ns=0,
                           policy_frequency_hz=10.0)])
def test_a_robot_without_joints_says_so(send):
    buffer = CommandBuffer(spec_of(CART))
    with pytest.raises(SpecError, match='refused, the robot of this world has no joints'):
        send(buffer)
    assert (buffer.accepted, buffer.rejected) == (0, 1)


@pytest.mark.parametrize('robot', [STRAFING, STRAFING_WITH_ARM])
def test_a_robot_strafes_while_it_turns(robot):
    """0.3 m/s ahead and 0.4 m/s to the left while it turns left by 1.2 rad."""
    v_x, v_y, w = 0.3, 0.4, 1.2
    motion, actions, layout = one_second(robot, (v_x, v_y), w)
    assert twists_of(actions, layout.names)[1] == pytest.approx([v_x, v_y, w])
    x = (v_x * sin(w) - v_y * (1 - cos(w))) / w
    y = (v_x * (1 - cos(w)) + v_y * sin(w)) / w
    np.testing.assert_allclose(motion, seen_motion(x, y, w), atol=1e-12)


def test_strafing_straight_to_the_right():
    motion, _, _ = one_second(STRAFING, (0.0, -0.5), 0.0)
    np.testing.assert_allclose(motion, seen_motion(0.0, -0.5, 0.0), atol=1e-12)
    assert motion[0, 3] == pytest.approx(0.5)  # x of the optical frame is to the right


def test_strafing_is_limited_by_the_drive_and_by_the_linear_limits():
    got, buffer = twist_of(STRAFING, [0.2, -0.9, 0.3], [0, 0, 0.5])
    assert got == [0.2, -0.6, 0.5] and buffer.clipped == 1
    assert ('linear.z 0.3 ignored; linear.x 0.2 m/s, linear.y -0.9 m/s, angular.z 0.5 rad/s '
            'limited to 0.2 m/s, -0.6 m/s, 0.5 rad/s; the base takes linear.x -0.5 to 1, '
            'linear.y -0.6 to 0.6 and angular.z -2 to 2, all else must be 0.') in buffer.message
    got, _ = twist_of(STRAFING, [0.9, 0.9, 0], limits=Limits(linear_velocity_mps=0.3))
    assert got == [0.3, 0.3, 0.0]
    got, _ = twist_of(STRAFING, [-0.9, -0.9, 0], limits=Limits(linear_acceleration_mps2=1.0))
    assert got == pytest.approx([-0.1, -0.1, 0.0])
    got, buffer = twist_of(STRAFING, [0.5, 0.5, 0.0], [0, 0, 1.0])
    assert got == [0.5, 0.5, 1.0] and not buffer.clipped


@pytest.mark.parametrize('v, w, wanted', [
    (0.5, 0.8, 0.8), (0.5, 1.4, 1.0), (-0.5, -1.4, -1.0), (-0.25, 3.0, 0.5), (0.0, 1.0, 0.0),
    (9.0, 9.0, 3.0)])
def test_a_car_turns_no_faster_than_its_wheels_steer(v, w, wanted):
    """Twice its speed at most, on circles of half a metre; not at all where it stands."""
    got, buffer = twist_of(CAR, [v, 0, 0], [0, 0, w])
    assert got == [min(v, 2.0), 0.0, wanted] and buffer.accepted == 1
    assert buffer.clipped == (wanted != w)
    if wanted != w:
        assert f'limited to {min(v, 2.0):g} m/s, {wanted:g} rad/s' in buffer.message
        assert 'it turns on circles of at least 0.50 m' in buffer.message


def test_a_car_drives_its_smallest_circle():
    """Asked to turn by 3 rad/s at 0.4 m/s, it turns by 0.8: a part of a circle of 0.5 m."""
    motion, actions, _ = one_second(CAR, (0.4, 0.0), 3.0)
    assert actions == pytest.approx(np.array([[0.4, 0.8]] * 2))
    np.testing.assert_allclose(motion, seen_motion(0.5 * sin(0.8), 0.5 * (1 - cos(0.8)), 0.8),
                               atol=1e-12)


def test_a_car_that_speeds_up_turns_with_its_speed():
    """1 m/s^2 and frames of 0.1 s: twice 0.1, 0.2, 0.3 m/s in rad/s."""
    buffer = CommandBuffer(spec_of(CAR, limits=Limits(linear_acceleration_mps2=1.0)))
    buffer.twist([0.3, 0, 0], [0, 0, 0.5], 0)
    twist = buffer.targets(0, 0, 4, TENTH_NS).twist
    assert twist[:, 0] == pytest.approx([0.1, 0.2, 0.3, 0.3])
    assert twist[:, 2] == pytest.approx([0.2, 0.4, 0.5, 0.5])


def test_the_latch_holds_a_car_to_its_circle_whoever_sends():
    layout = robot_action_layout(CAR)
    buffer = CommandBuffer(spec_of(CAR))
    embedding = encode(buffer.targets(0, 0, 3, TENTH_NS), buffer.spec,
                       CarriedCamera(PinholeCamera.from_fovy(64, 48, 1.0), np.eye(4)),
                       np.zeros(0), sequence=1, stamp_ns=0, period_s=0.1, counts=CommandCounts())
    wild = replace(embedding, embedding=np.float32([[0.0, 1.0], [0.5, -9.0], [-9.0, 1.0]]))
    actions = actions_at_latch(wild, layout, np.zeros(0), 3, max_curvature=2.0)
    assert actions.tolist() == [[0.0, 0.0], [0.5, -1.0], [-1.0, 1.0]]


def test_a_drive_that_is_not_that_of_the_world_is_refused():
    for robot, other, words in ((CART, STRAFING, 'strafes'), (STRAFING, CAR, 'does not strafe')):
        with pytest.raises(SpecError, match=f'The robot {words}.*run both with the same robot'):
            spec_of(robot).driven_by(other.drive)


def test_angles_are_those_of_a_left_turn():
    """A quarter turn where it stands: the camera looks to where its left was."""
    motion, _, _ = one_second(STRAFING, (0.0, 0.0), pi / 2)
    np.testing.assert_allclose(motion[:3, 2], [-1, 0, 0], atol=1e-12)
