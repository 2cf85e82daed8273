# SPDX-License-Identifier: Apache-2.0
"""Robots as data: the one that ships, robots of users, what is refused."""
from math import inf, tan
from pathlib import Path

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import T_LINK_OPTICAL
from lingbot_world_ros.robots.arm import Arm
from lingbot_world_ros.robots.drive import Drive, steered
from lingbot_world_ros.robots.load import load_robot, robot_names
from lingbot_world_ros.robots.robot import Footprint, JointSpec
import numpy as np
import pytest

pytest.importorskip('urdf_parser_py')

URDF = """<robot name="r">
<link name="base_link"/><link name="mast_link"/><link name="eye_link"/>
<link name="eye_optical_frame"/><link name="wheel_link"/>
<joint name="mast_joint" type="revolute"><parent link="base_link"/><child link="mast_link"/>
  <origin xyz="0.1 0 0.5"/><axis xyz="0 0 1"/>
  <limit lower="-2" upper="1" velocity="0.7" effort="1"/></joint>
<joint name="eye_joint" type="fixed"><parent link="mast_link"/><child link="eye_link"/>
  <origin xyz="0.2 0 0.3" rpy="0.1 0.2 0.3"/></joint>
<joint name="optical_joint" type="fixed"><parent link="eye_link"/>
  <child link="eye_optical_frame"/>
  <origin rpy="-1.5707963267948966 0 -1.5707963267948966"/></joint>
<joint name="wheel_joint" type="continuous"><parent link="base_link"/><child link="wheel_link"/>
</joint></robot>"""
YAML = """urdf: my.urdf
drive: {type: differential, linear_velocity_mps: 0.5, angular_velocity_radps: 2}
footprint: {radius_m: 0.2, height_m: 0.9}
cameras:
  eye: {link: eye_link, width_px: 64, height_px: 48, vertical_field_of_view_deg: 50}
"""


@pytest.fixture
def read(tmp_path):
    """Write a robot, and read it."""
    def write(text=YAML, urdf=URDF):
        (tmp_path / 'my.urdf').write_text(urdf)
        path = tmp_path / 'mine.yaml'
        path.write_text(text)
        return load_robot(str(path))
    return write


def test_the_shipped_robot_in_numbers():
    robot = load_robot('room')
    assert robot is load_robot() and robot_names() == ('room',)
    assert robot.drive == Drive(-0.4, 0.8, 1.5) and not robot.drive.strafes
    assert robot.footprint == Footprint(0.34, 1.26, 0.38)
    assert robot.joints == (
        JointSpec('shoulder_pan_joint', 'rad', -1.2, 1.2, 1.5, 0.0, 0.06),
        JointSpec('shoulder_lift_joint', 'rad', -1.5, -0.4, 1.2, -0.9, 0.06),
        JointSpec('elbow_joint', 'rad', 0.2, 2.0, 1.5, 1.1, 0.057),
        JointSpec('wrist_joint', 'rad', -1.2, 1.2, 1.8, 0.0, 0.054),
        JointSpec('gripper_joint', 'm', 0.0, 0.045, 0.08, 0.03, 0.106))
    assert robot.arm == Arm((0.02, 0.0, 0.74), 0.16, 0.14, 0.05, 0.07, 0.012)
    assert '<robot name="room">' in robot.description
    camera = robot.camera
    assert (camera.width_px, camera.height_px) == (160, 120)
    # The weights were trained with these very numbers: not a bit may differ.
    focal_px = 60.0 / np.tan(np.deg2rad(30.0))
    assert (camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px) == (focal_px, focal_px, 79.5,
                                                                        59.5)
    assert camera.rpy_rad == (0.0, np.deg2rad(22.0), 0.0)
    c, s = np.cos(np.deg2rad(22.0)), np.sin(np.deg2rad(22.0))
    link = [[c, 0, s, -0.18], [0, 1, 0, 0], [-s, 0, c, 1.15], [0, 0, 0, 1]]
    assert camera.T_base_camera_link.tolist() == link
    assert camera.T_base_optical.tolist() == (np.array(link) @ T_LINK_OPTICAL).tolist()


@pytest.mark.parametrize('folder, own', [('lingbot_world_ros', 'robots'), ('config', 'robots')])
def test_no_other_file_names_a_joint_of_the_shipped_robot(folder, own):
    """But world files, which may put its arm somewhere, and those of ros2_control."""
    root = Path(__file__).parent.parent / folder
    files = [path for kind in ('py', 'js', 'html', 'json', 'yaml', 'rviz')
             for path in root.rglob(f'*.{kind}')
             if path.relative_to(root).parts[0] not in (own, 'worlds', 'ros2_control')]
    names = load_robot().joint_names
    assert len(files) > 5
    assert [path for path in files if any(name in path.read_text() for name in names)] == []


def test_what_a_short_file_leaves_out(read):
    robot = read()
    assert robot.name == 'mine' and robot.joints == () and robot.arm is None
    assert robot.drive == Drive(-0.5, 0.5, 2.0)
    assert robot.footprint == Footprint(0.2, 0.9, 0.9)
    assert robot.description == URDF


def test_the_urdf_of_a_robot_may_begin_with_a_byte_order_mark(read):
    assert read(urdf=f'\ufeff\n{URDF}').description == URDF


def test_a_camera_is_where_its_link_is_while_the_joints_are_at_home(read):
    """The mast turns left by 0.4; the eye on it is rolled, pitched and turned by 0.3 more."""
    robot = read(f'{YAML}joints: {{mast_joint: {{home: 0.4}}}}')
    (cr, cp, cy), (sr, sp, sy) = np.cos([0.1, 0.2, 0.7]), np.sin([0.1, 0.2, 0.7])
    R = (np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
         @ [[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]] @ [[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    T = robot.camera.T_base_camera_link
    np.testing.assert_allclose(T[:3, :3], R, atol=1e-12)
    np.testing.assert_allclose(
        T[:3, 3], [0.1 + 0.2 * np.cos(0.4), 0.2 * np.sin(0.4), 0.8], atol=1e-12)
    optical = read(YAML.replace('link: eye_link', 'link: eye_optical_frame')
                   + 'joints: {mast_joint: {home: 0.4}}')
    np.testing.assert_allclose(optical.camera.T_base_optical, T @ T_LINK_OPTICAL, atol=1e-12)
    assert robot.cameras[0].moves and robot.cameras[0].link == 'eye_link'


@pytest.mark.parametrize('rpy', ['0 1.5707963267948966 0', '0.4 -1.5707963267948966 0.3'])
def test_a_camera_may_look_straight_down_or_up(read, rpy):
    urdf = URDF.replace('rpy="0.1 0.2 0.3"', f'rpy="{rpy}"')
    (cr, cp, cy), (sr, sp, sy) = (f([float(v) for v in rpy.split()]) for f in (np.cos, np.sin))
    R = (np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
         @ [[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]] @ [[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    np.testing.assert_allclose(read(urdf=urdf).camera.T_base_camera_link[:3, :3], R, atol=1e-9)


def test_joints_are_those_named_in_their_order_with_the_limits_of_the_urdf(read):
    robot = read(f'{YAML}joints:\n  wheel_joint: {{}}\n  mast_joint: {{home: -1, lag_s: 0.2}}\n')
    assert robot.joints == (
        JointSpec('wheel_joint', 'rad', -1e4, 1e4, 1.0, 0.0),  # neither limits nor speed
        JointSpec('mast_joint', 'rad', -2.0, 1.0, 0.7, -1.0, 0.2))


def test_drives(read):
    def drive(text):
        return read(YAML.replace('{type: differential, linear_velocity_mps: 0.5, '
                                 'angular_velocity_radps: 2}', text)).drive
    strafing = drive('{type: omnidirectional, linear_velocity_mps: [-0.2, 0.5], '
                     'lateral_velocity_mps: 0.3, angular_velocity_radps: 2}')
    assert strafing == Drive(-0.2, 0.5, 2.0, 0.3) and strafing.strafes
    assert strafing.twist_range == ((-0.2, 0.5), (-0.3, 0.3), (-2.0, 2.0))
    car = drive('{type: ackermann, linear_velocity_mps: [-0.5, 2], wheelbase_m: 0.25, '
                'max_steering_rad: 0.5}')
    assert car.max_curvature == pytest.approx(tan(0.5) / 0.25)
    assert car.angular_max_radps == pytest.approx(2.0 * tan(0.5) / 0.25)
    slow = drive('{type: ackermann, linear_velocity_mps: [-0.5, 2], wheelbase_m: 0.25, '
                 'max_steering_rad: 0.5, angular_velocity_radps: 1.5}')
    assert slow.angular_max_radps == 1.5


@pytest.mark.parametrize('drive, speed', [
    (Drive(-0.5, 0.8, 2.0), 0.8), (Drive(-1.5, 0.8, 2.0), 1.5), (Drive(-0.5, 0.8, 2.0, 1.1), 1.1)])
def test_the_largest_speed_is_that_of_the_fastest_way(drive, speed):
    assert drive.speed_max_mps == speed
    assert drive.strafes is (drive.lateral_max_mps == 1.1) and drive.max_curvature == inf


@pytest.mark.parametrize('v, w, wanted', [
    (0.0, 1.0, 0.0), (0.5, 2.0, 1.0), (-0.5, 2.0, 1.0), (0.5, -2.0, -1.0), (0.5, 0.7, 0.7)])
def test_steering_turns_no_faster_than_the_wheels_go_round(v, w, wanted):
    """A circle of half a metre: at 0.5 m/s one radian per second."""
    assert steered(v, w, 2.0) == wanted
    assert steered(np.array([v, v]), np.array([w, w]), 2.0).tolist() == [wanted] * 2
    assert steered(v, w, inf) == w


def test_a_box_is_enclosed_by_the_circle_through_its_corners(read):
    robot = read(YAML.replace('radius_m: 0.2', 'length_m: 1.2, width_m: 1.6'))
    assert robot.footprint.radius_m == pytest.approx(1.0)


@pytest.mark.parametrize('change, words', [
    (('urdf: my.urdf', 'urdff: my.urdf'),
     "key of the file of a robot 'urdff'.*Did you mean 'urdf'"),
    (('urdf: my.urdf\n', ''), 'urdf is missing'),
    (('my.urdf', 'your.urdf'), 'urdf:.*your.urdf is not a file'),
    (('differential', 'diferential'), "drive.type 'diferential'.*Did you mean 'differential'"),
    (('differential', 'ackermann'), 'drive.max_steering_rad is missing'),
    (('differential', 'omnidirectional'), 'drive.lateral_velocity_mps is missing'),
    (('angular_velocity_radps: 2', 'angular_velocity_radps: 2, wheelbase_m: 1'),
     "key of the drive of type differential 'drive.wheelbase_m'"),
    (('angular_velocity_radps: 2', 'angular_velocity_radps: -2'),
     "drive.angular_velocity_radps='-2' is not a number of more than 0"),
    (('linear_velocity_mps: 0.5', 'linear_velocity_mps: [0.5, -0.5]'),
     'drive.linear_velocity_mps=.*lowest <= 0 < highest'),
    (('linear_velocity_mps: 0.5', 'linear_velocity_mps: true'), 'drive.linear_velocity_mps='),
    (('linear_velocity_mps: 0.5', 'linear_velocity_mps: .nan'), 'drive.linear_velocity_mps='),
    (('radius_m', 'radiusm'), "'footprint.radiusm'.*Did you mean 'footprint.radius_m'"),
    (('radius_m: 0.2, ', ''), 'footprint.length_m is missing'),
    (('radius_m: 0.2', 'radius_m: 0.2, width_m: 1'), "round footprint 'footprint.width_m'"),
    (('height_m: 0.9', 'height_m: 0.9, base_height_m: 1'),
     'footprint.base_height_m=.*at most 0.9'),
    (('link: eye_link', 'link: eyelink'), "cameras.eye.link 'eyelink'.*Did you mean 'eye_link'"),
    (('width_px: 64', 'width_px: 64.5'), "cameras.eye.width_px='64.5' is not a whole number"),
    (('deg: 50', 'deg: 500'), "cameras.eye.vertical_field_of_view_deg='500'.*1 to 170"),
    (('deg: 50', 'deg: 140'), 'cameras.eye: 48 pixels .* make a focal length of 8.7 pixels'),
    (('  eye: ', '  - '), 'cameras is no mapping'),
    (('urdf:', 'joints: {mast: {}}\nurdf:'), "'joints.mast'.*Did you mean 'joints.mast_joint'"),
    (('urdf:', 'joints: {mast_joint: {home: 1.5}}\nurdf:'), 'joints.mast_joint.home=.*-2 to 1'),
    (('urdf:', 'joints: {mast_joint: 3}\nurdf:'), 'joints.mast_joint is no mapping'),
    (('urdf:', 'joints: 7\nurdf:'), 'joints is no mapping'),
    (('urdf:', 'arm_tip: eye_link\nurdf:'), 'an arm turns about z.*mast_joint, eye_joint'),
    (('urdf:', 'x: &a 1\nurdf:'), 'anchors, aliases and tags'),
    (('urdf:', '1: 2\nurdf:'), "Unknown key of the file of a robot '1'"),
    (('my.urdf', "''"), 'urdf=.* is not text'),
    (('my.urdf', 4097 * 'x'), 'urdf=.* is not text'),
    (('width_px: 64', 'width_px: 0'), "width_px='0' is not a whole number from 1"),
    (('deg: 50', 'deg: 0.5'), "vertical_field_of_view_deg='0.5'"),
    (('deg: 50', 'deg: 170.5'), "vertical_field_of_view_deg='170.5'"),
    (('urdf:', 'joints: {mast_joint: {lag_s: 10.5}}\nurdf:'), 'mast_joint.lag_s=.*0 to 10'),
    (('linear_velocity_mps: 0.5', 'linear_velocity_mps: [-0.5, x]'),
     'drive.linear_velocity_mps='),
    (('urdf:', 'drive\nurdf:'), 'not valid YAML'),
])
def test_what_is_no_robot_is_refused_with_file_and_key(read, change, words):
    with pytest.raises(SpecError, match=rf'robot .*mine\.yaml: .*{words}'):
        read(YAML.replace(*change))


@pytest.mark.parametrize('angle_deg', [1.0, 170.0])
def test_a_robot_may_have_the_extreme_values_that_are_named(read, angle_deg):
    robot = read(YAML.replace('width_px: 64', 'width_px: 1')
                 .replace('height_px: 48', 'height_px: 480')
                 .replace('deg: 50', f'deg: {angle_deg}') + 'joints: {mast_joint: {lag_s: 10}}')
    camera = robot.cameras[0].camera
    assert (camera.width_px, robot.joints[0].lag_s) == (1, 10.0)
    assert camera.fy_px == pytest.approx(240.0 / tan(np.deg2rad(angle_deg) / 2.0))


def test_a_file_of_anything_else_is_refused(read):
    for text, words in (('', 'is no mapping'), ('- 1', 'is no mapping'),
                        ('a' * 70000, 'larger than 65536 bytes')):
        with pytest.raises(SpecError, match=words):
            read(text)
    with pytest.raises(SpecError, match='robot_description is not XML'):
        read(urdf='<robot')


def test_a_file_is_told_from_a_name_by_its_suffix_or_its_folder(read, tmp_path, monkeypatch):
    robot = read()
    monkeypatch.chdir(tmp_path)
    assert load_robot('mine.yaml') == robot
    (tmp_path / 'mine.yaml').rename('mine')
    assert load_robot('./mine') == robot


@pytest.mark.parametrize('angle, is_taken', [(0.001, True), (1.56, True), (1.57, False)])
def test_wheels_are_steered_by_less_than_a_right_angle(read, angle, is_taken):
    text = YAML.replace('{type: differential, linear_velocity_mps: 0.5, '
                        'angular_velocity_radps: 2}',
                        '{type: ackermann, linear_velocity_mps: 0.5, wheelbase_m: 2, '
                        f'max_steering_rad: {angle}}}')
    if is_taken:
        assert read(text).drive.max_curvature == pytest.approx(tan(angle) / 2.0)
        return
    with pytest.raises(SpecError, match=f'drive.max_steering_rad=.{angle}.*at most 1.56'):
        read(text)


def test_names_that_are_not_known_are_refused():
    with pytest.raises(SpecError, match="Unknown robot 'rom'. Did you mean 'room'"):
        load_robot('rom')
    with pytest.raises(SpecError, match='robot: .*nowhere.yaml is not a file'):
        load_robot('/nowhere.yaml')
    assert load_robot('package://lingbot_world_ros/config/robots/room.yaml') == load_robot('room')


@pytest.mark.parametrize('given, words', [
    ('lower="nan" upper="1" velocity="1"', 'mast_joint is NaN'),
    ('lower="-2" upper="1" velocity="NaN"', 'mast_joint is NaN'),
    ('lower="1.5" upper="1" velocity="1"', 'mast_joint has no position: .* 1.5 to 1')])
def test_limits_that_leave_a_joint_no_position_are_refused(read, given, words):
    """It was at home at NaN, and so was all that depends on it."""
    limit = 'lower="-2" upper="1" velocity="0.7"'
    with pytest.raises(SpecError, match=words):
        read(YAML + 'joints: {mast_joint: {}}', URDF.replace(limit, given))


def chain(*joints):
    """Write a URDF whose links follow each other: joints by kind, origin, axis."""
    text = '<link name="base_link"/>'
    for i, (kind, xyz, axis) in enumerate(joints):
        parent = f'l{i - 1}' if i else 'base_link'
        text += (f'<link name="l{i}"/><joint name="j{i}" type="{kind}"><parent link="{parent}"/>'
                 f'<child link="l{i}"/><origin xyz="{xyz}"/><axis xyz="{axis}"/>'
                 '<limit lower="0" upper="1" velocity="1" effort="1"/></joint>')
    return f'<robot name="r">{text}</robot>'


ARM = (('fixed', '0.1 0.2 0.3', '1 0 0'), ('revolute', '0 0 0.1', '0 0 1'),
       ('revolute', '0 0 0.05', '0 1 0'), ('revolute', '0.3 0 0', '0 1 0'),
       ('revolute', '0.2 0 0', '0 1 0'), ('prismatic', '0.1 0.02 0', '0 1 0'),
       ('fixed', '0.08 0 0', '1 0 0'))
ARM_YAML = (YAML.replace('eye_link', 'l0')
            + 'arm_tip: l6\njoints: {j1: {}, j2: {}, j3: {}, j4: {}, j5: {}}')


def test_the_sizes_of_an_arm_are_those_of_its_urdf(read):
    arm = read(ARM_YAML, chain(*ARM)).arm
    assert arm.shoulder_m == pytest.approx((0.1, 0.2, 0.45))
    assert (arm.upper_arm_m, arm.forearm_m, arm.hand_m, arm.finger_m, arm.finger_gap_m) == (
        pytest.approx((0.3, 0.2, 0.1, 0.08, 0.02)))
    palm = arm.points(np.array([np.pi / 2, 0.0, np.pi / 2, 0.0, 0.5]))[3]
    np.testing.assert_allclose(palm, [0.1, 0.2 + 0.3, 0.45 - 0.3], atol=1e-12)
    left, right = arm.links(np.zeros((2, 5)))[0, 3]
    np.testing.assert_allclose(left - right, [0, 0.04, 0], atol=1e-12)


@pytest.mark.parametrize('index, joint', [
    (1, ('revolute', '0 0 0.1', '0 1 0')), (2, ('revolute', '0 0 0', '0 -1 0')),
    (3, ('revolute', '0.3 0.1 0', '0 1 0')), (4, ('prismatic', '0.2 0 0', '0 1 0')),
    (5, ('revolute', '0.1 0.02 0', '0 1 0')), (6, ('fixed', '0.08 0 0.1', '1 0 0'))])
def test_an_arm_of_another_kind_is_refused(read, index, joint):
    joints = list(ARM)
    joints[index] = joint
    with pytest.raises(SpecError, match='an arm turns about z'):
        read(ARM_YAML, chain(*joints))


def test_an_arm_has_all_joints_of_the_robot(read):
    with pytest.raises(SpecError, match='arm_tip: the joints of the arm are j1, j2, j3, j4, j5'):
        read(ARM_YAML.replace('j5: {}', ''), chain(*ARM))
