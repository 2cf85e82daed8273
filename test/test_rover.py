# SPDX-License-Identifier: Apache-2.0
"""Robots of users: a rover that steers, in files of its own, in the engines; others besides."""
from dataclasses import replace
from math import cos, sin, tan
from pathlib import Path

from needs import need_engine
import pytest

pytest.importorskip('urdf_parser_py')

from lingbot_world_ros.actions.command_spec import CommandCounts, CommandSpec  # noqa: E402, I100
from lingbot_world_ros.actions.commands import CommandBuffer  # noqa: E402
from lingbot_world_ros.actions.embedding import (actions_at_latch, CarriedCamera,  # noqa: E402
                                                 encode)
from lingbot_world_ros.engines.interface import Start  # noqa: E402
from lingbot_world_ros.engines.registry import make_world, SHIPPED  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.geometry import se2, se3  # noqa: E402
from lingbot_world_ros.robots.drive import Drive  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from lingbot_world_ros.settings.description import link_publisher_parameters  # noqa: E402
from lingbot_world_ros.settings.parameters import engine_options  # noqa: E402
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, load_profile  # noqa: E402
from lingbot_world_ros.settings.robot_parameters import with_robot  # noqa: E402
import numpy as np  # noqa: E402

ROVER = str(Path(__file__).parent / 'robots' / 'rover.yaml')
SIZE = {'height_px': 32, 'width_px': 48}
SECOND_NS = 10**9


@pytest.fixture(scope='module')
def rover():
    return load_robot(ROVER)


@pytest.fixture(scope='module')
def bare(rover):
    """Return the rover with a mast that stands still: a robot without joints."""
    return replace(rover, joints=(), cameras=(replace(rover.cameras[0], moves=False),))


@pytest.fixture(scope='module')
def strafing(rover):
    """Return the rover on wheels that roll to all sides."""
    return replace(rover, drive=Drive(-0.5, 0.8, 1.5, lateral_max_mps=0.4))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Return the folder of a tiny checkpoint with all that belongs to it."""
    for needed in ('torch', 'transformers', 'tokenizers', 'cv2'):
        pytest.importorskip(needed)
    import wan_checkpoints as tiny
    from wan_companions import write_companions
    return write_companions(tiny.write_fast(tmp_path_factory.mktemp('tiny') / 'lingbot-fast'))


def imagined(checkpoint, robot):
    """Make LingBot-World with a robot, on the CPU."""
    import torch
    torch.set_num_threads(1)
    return make_world('lingbot_world', checkpoint=str(checkpoint), device='cpu', precision='fp32',
                      cache_dir=str(checkpoint / 'cache'), robot=robot, **SIZE)


def commanded(world, seen, send):
    """Encode what ``send(buffer)`` asks for as one step of the world, and latch it."""
    spec, robot = world.spec, world.spec.robot
    command_spec = CommandSpec(spec.action, robot.joint_names, tuple(robot.joint_array('low')),
                               tuple(robot.joint_array('high')), 0.5).driven_by(robot.drive)
    buffer = CommandBuffer(command_spec)
    send(buffer)
    q = seen.joint_position[0, -1]
    embedding = encode(
        buffer.targets(0, 0, spec.frames_per_step, spec.frame_period_ns, q), command_spec,
        CarriedCamera(spec.camera, spec.camera.T_base_optical), q, sequence=1, stamp_ns=0,
        period_s=1 / spec.frame_rate_hz, counts=CommandCounts())
    return actions_at_latch(embedding, spec.action, q, spec.frames_per_step,
                            max_curvature=robot.drive.max_curvature)[None]


def begin(world):
    return world.reset(world.spec.scenes[0], 1, start=Start('', ()))


def test_the_rover_in_numbers(rover):
    assert rover.name == 'rover' and rover.arm is None
    assert rover.drive.max_curvature == pytest.approx(tan(0.45) / 0.3)
    assert rover.drive.angular_max_radps == pytest.approx(1.2 * tan(0.45) / 0.3)
    (mast,) = rover.joints
    assert (mast.name, mast.low, mast.high, mast.max_speed, mast.home) == (
        'mast_pan_joint', -1.6, 1.6, 0.8, 0.1)
    (eye,) = rover.cameras
    assert (eye.link, eye.moves) == ('eye_link', True)
    np.testing.assert_allclose(rover.camera.position_m,
                               [0.22 + 0.04 * cos(0.1), 0.04 * sin(0.1), 0.66])


def test_own_rover_drives_no_smaller_circle_through_lingbot_world(checkpoint, rover):
    """The base goes along the smallest circle of the rover, and does not turn on the spot."""
    world = imagined(checkpoint, ROVER)
    spec = world.spec
    assert spec.robot.name == 'rover' and spec.robot.description == rover.description
    assert spec.robot.joint_names == ('mast_pan_joint',)
    assert spec.robot.drive == rover.drive
    assert spec.action.names[:3] == ('base.linear.x', 'base.angular.z', 'mast_pan_joint.velocity')
    assert (spec.camera.width_px, spec.camera.height_px) == (48, 32)
    np.testing.assert_allclose(spec.camera.T_base_optical, rover.camera.T_base_optical)
    first = begin(world)
    assert first.joint_position.tolist() == [[[0.1]]]

    actions = commanded(world, first, lambda b: (b.twist([0.5, 0, 0], [0, 0, 1.9], 0),
                                                 b.joints(['mast_pan_joint'], [0.2], [], 0)))
    seen = world.step(actions)
    radius_m, seconds = 0.3 / tan(0.45), spec.step_dt_s
    turned = 0.5 * seconds / radius_m
    np.testing.assert_allclose(seen.base_pose[0, -1],
                               [radius_m * sin(turned), radius_m * (1 - cos(turned)), turned],
                               atol=1e-6)
    assert seen.joint_position[0, -1] == pytest.approx([0.2])
    assert seen.rgb.shape == (1, spec.frames_per_step, 32, 48, 3)

    still = world.step(commanded(world, seen, lambda b: b.twist([0, 0, 0], [0, 0, 1.9], 0)))
    np.testing.assert_array_equal(still.base_pose[0, -1], seen.base_pose[0, -1])


def test_robot_without_joints_runs_through_lingbot_world(checkpoint, bare):
    world = imagined(checkpoint, bare)
    first = begin(world)
    assert first.joint_position.shape == (1, 1, 0)
    seen = world.step(commanded(world, first, lambda b: b.twist([0.4, 0, 0], [0, 0, 0], 0)))
    assert seen.base_pose[0, -1] == pytest.approx([0.4 * world.spec.step_dt_s, 0, 0], abs=1e-6)


def test_robot_that_strafes_runs_through_lingbot_world(checkpoint, strafing):
    world = imagined(checkpoint, strafing)
    names = world.spec.action.names
    actions = commanded(world, begin(world), lambda b: b.twist([0.2, -0.9, 0], [0, 0, 0.5], 0))
    assert actions[0, 0, names.index('base.linear.y')] == pytest.approx(-0.4)
    seen = world.step(actions)
    dt_s = world.spec.step_dt_s
    np.testing.assert_allclose(seen.base_pose[0, -1],
                               se2.exponential(np.array([0.2, -0.4, 0.5]), dt_s), atol=1e-6)
    # The camera goes along: the motion told to the model is that of the frame it sits in.
    camera = world.spec.camera.T_base_optical
    moved = se3.pose_from_se2(se2.exponential(np.array([0.2, -0.4, 0.5]), 1 / 16))
    motion = np.linalg.inv(camera) @ moved @ camera
    at = names.index('camera.translation.x')
    np.testing.assert_allclose(actions[0, 0, at:at + 3], motion[:3, 3], atol=1e-6)


def test_own_robot_drives_in_the_reference_world(bare, strafing):
    need_engine('reference')
    for robot, twist in ((bare, (0.5, 0.0, 0.4)),
                         (replace(bare, drive=strafing.drive), (0.3, 0.4, 0.0))):
        world = make_world('reference', robot=robot)
        first = world.reset(world.spec.scenes[0], 5, render=False)  # with room around
        seen = first
        for _ in range(15):  # servos take a moment
            seen = world.step(commanded(world, seen, lambda b: b.twist(
                [*twist[:2], 0], [0, 0, twist[2]], 0)), render=False)
        assert not seen.contact[0, -1]
        np.testing.assert_allclose(seen.base_twist[0, -1], twist, atol=0.03)
        world.close()


def told(robot, **changes):
    """Return what a robot changes of the parameters of a node."""
    values = {**load_profile(DEFAULT_PROFILE), 'robot': robot, **changes}
    return {name: value for name, value in with_robot(values).items()
            if value != values[name] and name != 'robot_description'}


def test_frames_are_links_of_the_robot_where_that_leaves_one_tree(tmp_path, rover):
    still, straight = tmp_path / 'still.yaml', tmp_path / 'straight.yaml'
    text = Path(ROVER).read_text()
    (tmp_path / 'rover.urdf').write_text(rover.description)
    still.write_text(text.partition('joints:')[0])
    straight.write_text(still.read_text().replace('rover.urdf', 'straight.urdf'))
    (tmp_path / 'straight.urdf').write_text(rover.description.replace(
        '<parent link="mast_link"/>', '<parent link="base_link"/>').replace(
        'base_link', 'chassis'))
    on_mast = {'camera_link': 'eye_link', 'frames.optical': 'eye_optical_frame'}
    assert told(ROVER) == on_mast
    assert told(ROVER, **{'frames.optical': 'mine', 'frames.base': 'b'}) == {
        'camera_link': 'eye_link'}
    assert told(str(still)) == {}  # on a link between: tf knows one parent only
    assert told(str(straight)) == {'frames.base': 'chassis', 'frames.camera': 'eye_link',
                                   'frames.optical': 'eye_optical_frame'}
    assert told('room') == told('') == {}
    whole = with_robot({**load_profile(DEFAULT_PROFILE), 'robot': ROVER})
    assert whole['robot_description'] == rover.description
    assert with_robot({'robot': ROVER, 'seed': 3}) == {'robot': ROVER, 'seed': 3}
    assert link_publisher_parameters(whole)['robot_description'] == rover.description


def test_an_optical_frame_that_looks_elsewhere_is_not_taken(tmp_path, rover):
    (tmp_path / 'rover.urdf').write_text(rover.description.replace(
        'rpy="-1.5707963267948966 0 -1.5707963267948966"', 'rpy="0 0 1"'))
    path = tmp_path / 'rover.yaml'
    path.write_text(Path(ROVER).read_text())
    assert told(str(path)) == {'camera_link': 'eye_link'}


def test_an_engine_that_takes_no_robot_says_so(monkeypatch):
    monkeypatch.setitem(SHIPPED, 'room', replace(SHIPPED['room'], takes=()))
    values = {**load_profile(DEFAULT_PROFILE), 'robot': ROVER}
    with pytest.raises(SpecError, match="rover.yaml': engine 'room' takes no robot"):
        engine_options(values)
    assert engine_options({**values, 'engine': 'reference'})['robot'] == load_robot(ROVER)


def test_engines_refuse_robots_that_they_cannot_show(rover):
    need_engine('reference')
    with pytest.raises(SpecError, match='robot rover: the reference world draws only'):
        make_world('reference', robot=ROVER)
    with pytest.raises(SpecError, match='robot: .*nowhere.yaml is not a file'):
        make_world('reference', robot='/nowhere.yaml')


def test_a_world_that_has_learned_one_robot_refuses_others():
    need_engine('room')
    with pytest.raises(SpecError, match="robot rover: this world has learned the robot 'room'"):
        make_world('room', robot=ROVER)
    world = make_world('room', robot='room')
    assert world.spec.robot is load_robot()
