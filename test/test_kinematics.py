# SPDX-License-Identifier: Apache-2.0
"""Robot descriptions: limits, forward kinematics, the shipped URDF, what is refused."""
import sys

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.urdf import (JointLimits, read_description, RobotModel,
                                           UrdfJoint)
import numpy as np
import pytest

ROBOT = load_robot()

pytest.importorskip('urdf_parser_py')

ROOM_URDF = 'package://lingbot_world_ros/config/robots/room.urdf'
POINTS = ('upper_arm_link', 'forearm_link', 'hand_link', 'palm_link', 'left_finger_link',
          'left_fingertip_link', 'right_finger_link', 'right_fingertip_link')  # of Arm.points


def joint(name, parent, child, kind='revolute', inside=''):
    return (f'<joint name="{name}" type="{kind}"><parent link="{parent}"/>'
            f'<child link="{child}"/>{inside}</joint>')


def links(*names):
    return ''.join(f'<link name="{name}"/>' for name in names)


def model(*parts):
    return RobotModel.from_description(f'<robot name="r">{"".join(parts)}</robot>')


@pytest.fixture(scope='module')
def room():
    return RobotModel.from_description(read_description(ROOM_URDF))


def test_the_shipped_description_moves_as_the_robot_does(room):
    rng = np.random.default_rng(0)
    q = rng.uniform(ROBOT.joint_array('low'), ROBOT.joint_array('high'), (50, 5))
    positions = dict(zip(ROBOT.joint_names, q.T))
    got = np.stack([room.link_pose(link, positions)[:, :3, 3] for link in POINTS], axis=1)
    np.testing.assert_allclose(got, ROBOT.arm.points(q), atol=1e-12)


def test_the_shipped_description_has_the_limits_of_the_robot(room):
    assert {j.name: JointLimits(j.low, j.high, j.max_speed) for j in ROBOT.joints} == {
        name: room.joint_limits[name] for name in ROBOT.joint_names}


def test_the_shipped_description_has_the_camera_where_the_robot_has_it(room):
    for link, wanted in (('camera_link', ROBOT.camera.T_base_camera_link),
                         ('camera_optical_frame', ROBOT.camera.T_base_optical)):
        np.testing.assert_allclose(room.link_pose(link, {}), wanted, atol=1e-12)


def test_a_pose_by_hand():
    """A quarter turn about z at (1, 0, 0), then 0.5 m along the turned x: (1, 0.5, 0)."""
    arm = model(links('base_link', 'a', 'b'),
                joint('j', 'base_link', 'a', 'continuous',
                      '<origin xyz="1 0 0"/><axis xyz="0 0 2"/>'),
                joint('k', 'a', 'b', 'prismatic', '<limit effort="1" velocity="1" upper="1"/>'))
    T = arm.link_pose('b', {'j': np.pi / 2, 'k': 0.5})
    np.testing.assert_allclose(T, [[0, -1, 0, 1], [1, 0, 0, 0.5], [0, 0, 1, 0], [0, 0, 0, 1]],
                               atol=1e-12)
    many = arm.link_pose('b', {'j': np.array([0.0, np.pi / 2]), 'k': np.array([0.0, 0.5])})
    np.testing.assert_allclose(many[0, :3, 3], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(many[1], T, atol=1e-12)
    np.testing.assert_allclose(arm.link_pose('a', {})[:3, 3], [1, 0, 0])  # not named: at 0


def test_roll_pitch_yaw_turn_about_the_fixed_axes_in_that_order():
    """Roll puts y on z; then pitch puts z on x: the child's y looks along the parent's x."""
    arm = model(links('base_link', 'a'),
                joint('j', 'base_link', 'a', 'fixed',
                      f'<origin rpy="{np.pi / 2} {np.pi / 2} 0"/>'))
    np.testing.assert_allclose(arm.link_pose('a', {})[:3, 1], [1, 0, 0], atol=1e-12)


def test_an_origin_with_three_different_angles_by_hand():
    """Rz(1.1) Ry(0.5) Rx(0.3), each entry multiplied out."""
    arm = model(links('base_link', 'a'),
                joint('j', 'base_link', 'a', 'fixed', '<origin xyz="1 2 3" rpy="0.3 0.5 1.1"/>'))
    expected = [[0.3980680463, -0.7871374418, 0.4711225724, 1],
                [0.7821080382, 0.5596031263, 0.2741374794, 2],
                [-0.4794255386, 0.2593433801, 0.8383866436, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(arm.link_pose('a', {}), expected, atol=1e-9)


def test_a_base_that_hangs_below_the_root_is_still_where_poses_are_given():
    """base_link is 0.2 m over the root and turned by 0.5: the root is 0.2 m below, turned back."""
    arm = model(links('base_footprint', 'base_link', 'a'),
                joint('j', 'base_footprint', 'base_link', 'fixed',
                      '<origin xyz="0.1 0 0.2" rpy="0 0 0.5"/>'),
                joint('k', 'base_footprint', 'a', 'fixed', '<origin xyz="0.1 1 0.2"/>'))
    expected = [[0.8775825619, 0.4794255386, 0, 0.4794255386],
                [-0.4794255386, 0.8775825619, 0, 0.8775825619], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(arm.link_pose('a', {}), expected, atol=1e-9)


def test_a_joint_is_at_its_parent_and_turns_about_x_unless_told_otherwise():
    arm = model(links('base_link', 'a', 'b'), joint('j', 'base_link', 'a'),
                joint('k', 'a', 'b', 'prismatic',
                      '<origin xyz="1 2 3" rpy="0.1 0.2 0.3"/><axis xyz="0 -1 0"/>'))
    assert arm.chain('b') == (
        UrdfJoint('j', 'revolute', (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
        UrdfJoint('k', 'prismatic', (1.0, 2.0, 3.0), (0.1, 0.2, 0.3), (0.0, -1.0, 0.0)))
    assert arm.link_pose('b', {})[:3, 3].tolist() == [1.0, 2.0, 3.0]
    T = arm.link_pose('a', {'j': 0.5})
    np.testing.assert_allclose(T[:3, :3], [[1, 0, 0], [0, 0.8775825619, -0.4794255386],
                                           [0, 0.4794255386, 0.8775825619]], atol=1e-9)


def test_without_a_base_link_the_root_is_the_base():
    arm = model(links('torso', 'a'), joint('j', 'torso', 'a', 'fixed', '<origin xyz="1 2 3"/>'))
    assert arm.base == 'torso'
    np.testing.assert_allclose(arm.link_pose('a', {})[:3, 3], [1, 2, 3])


def test_mimic_joints_follow():
    arm = model(links('base_link', 'a', 'b'), joint('j', 'base_link', 'a'),
                joint('k', 'base_link', 'b', inside='<axis xyz="0 0 1"/>'
                      '<mimic joint="j" multiplier="-2" offset="0.1"/>'))
    T = arm.link_pose('b', {'j': 0.3, 'k': 9.0})
    assert np.arctan2(T[1, 0], T[0, 0]) == pytest.approx(-0.5)


def test_poses_are_in_base_link_even_if_another_link_is_the_root():
    arm = model(links('base_footprint', 'base_link', 'tip', 'mast'),
                joint('j', 'base_footprint', 'base_link', 'fixed', '<origin xyz="0 0 0.1"/>'),
                joint('k', 'base_link', 'tip', 'fixed', '<origin xyz="0 0 1"/>'),
                joint('m', 'base_footprint', 'mast', 'fixed', '<origin xyz="0.5 0 0"/>'))
    for link, wanted in (('base_link', [0, 0, 0]), ('tip', [0, 0, 1]), ('mast', [0.5, 0, -0.1]),
                         ('base_footprint', [0, 0, -0.1])):
        np.testing.assert_allclose(arm.link_pose(link, {})[:3, 3], wanted, atol=1e-12)


@pytest.mark.parametrize('kind, limit, wanted', [
    ('revolute', '<limit lower="-1" upper="2" velocity="3" effort="1"/>', (-1.0, 2.0, 3.0)),
    ('revolute', '<limit lower="-1" upper="2" velocity="0" effort="1"/>', (-1.0, 2.0, np.inf)),
    ('prismatic', '<limit velocity="3" effort="1"/>', (-np.inf, np.inf, 3.0)),
    ('continuous', '<limit lower="-1" upper="2" velocity="3" effort="1"/>',
     (-np.inf, np.inf, 3.0)),
    ('revolute', '', (-np.inf, np.inf, np.inf)),
])
def test_limits(kind, limit, wanted):
    arm = model(links('base_link', 'a'), joint('j', 'base_link', 'a', kind, limit))
    assert arm.joint_limits == {'j': JointLimits(*wanted)}


def test_fixed_joints_cannot_be_commanded():
    assert model(links('base_link', 'a'), joint('j', 'base_link', 'a', 'fixed')
                 ).joint_limits == {}


def test_what_is_no_joint_or_link_is_not_looked_at(capfd):
    model(links('base_link'), '<ros2_control name="x"><hardware/></ros2_control>',
          '<link name="a"><visual><geometry><mesh filename="package://no/where.stl"/></geometry>'
          '</visual><nonsense/></link>', joint('j', 'base_link', 'a'), '<gazebo/>')
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('text, words', [
    ('<robot', 'not XML'),
    ('<robot name="r"><link/></robot>', 'no URDF'),
    (f'<robot name="r">{links("a")}<joint name="j" type="revolute"/></robot>', 'no URDF'),
    (f'<robot name="r">{links("a", "b")}{joint("j", "a", "b", "sideways")}</robot>', 'sideways'),
    ('<!DOCTYPE r [<!ENTITY x "y">]><robot name="&x;"/>', 'document type'),
    ('<robot name="r" xmlns:xacro="http://ros.org/wiki/xacro"><xacro:include filename="a"/>'
     '</robot>', 'run xacro'),
    (f'<robot name="r">{links("a", "b")}</robot>', '2 links have no parent'),
    ('<robot name="r"/>', '0 links have no parent'),
    (f'<robot name="r">{links("a")}{joint("j", "a", "b")}</robot>', 'names link b'),
])
def test_what_is_no_robot_is_refused(text, words):
    with pytest.raises(SpecError, match=f'robot_description.*{words}'):
        RobotModel.from_description(text)


@pytest.mark.parametrize('parts, link, words', [
    ((joint('j', 'base_link', 'a'),), 'nose', "link.*'nose'"),
    ((joint('j', 'base_link', 'a', 'floating'),), 'a', 'j is floating'),
    ((joint('j', 'base_link', 'a', inside='<axis xyz="0 0 0"/>'),), 'a', 'no direction'),
    ((joint('j', 'base_link', 'a', inside='<mimic joint="nose"/>'),), 'a', 'follows nose'),
    ((joint('j', 'b', 'c'), joint('k', 'c', 'b'), joint('l', 'base_link', 'a')), 'c', 'circle'),
])
def test_links_that_cannot_be_computed_are_refused(parts, link, words):
    names = ('base_link', 'a', 'b', 'c')[:4 if len(parts) > 1 else 2]
    with pytest.raises(SpecError, match=words):
        model(links(*names), *parts).link_pose(link, {})


def test_a_description_is_text_a_url_or_a_path(tmp_path):
    text = read_description(ROOM_URDF)
    assert '<robot name="room">' in text and read_description(text) == text
    path = tmp_path / 'my robot.urdf'
    path.write_text(text)
    assert read_description(str(path)) == read_description(path.as_uri()) == text
    with pytest.raises(SpecError, match='robot_description.*nothing.urdf'):
        read_description(str(tmp_path / 'nothing.urdf'))


@pytest.mark.parametrize('before', [
    '\n  ', '\ufeff', '\ufeff\r\n', ' \ufeff\t', '<!-- a robot -->\n',
    '\n<?xml version="1.0" encoding="utf-8"?>\n<!-- <a>\n -->\n',
    '\ufeff<?xml version="1.0" encoding="UTF-16"?>'])  # of the file it was read from
def test_a_description_may_begin_as_templates_and_editors_leave_it(tmp_path, before):
    """With white space, a byte order mark, comments or a declaration, as text and as a file."""
    text = before + '<robot name="r"><link name="base_link"/></robot>' + ' ' * 5000
    path = tmp_path / 'robot.urdf'
    path.write_text(text)
    for given in (text, str(path)):
        description = read_description(given)
        assert description.startswith('<')
        assert RobotModel.from_description(description).links == ('base_link',)
    assert RobotModel.from_description(text).links == ('base_link',)  # as a topic brings it


def test_without_the_parser_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'urdf_parser_py.urdf', None)
    with pytest.raises(SpecError, match='pip install urdfdom-py'):
        RobotModel.from_description('<robot name="r"/>')
