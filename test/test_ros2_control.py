# SPDX-License-Identifier: Apache-2.0
"""The description for ros2_control fits the robot, the profile and the controllers it names."""
from pathlib import Path
import re
from xml.etree import ElementTree

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.paths import share_path
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.urdf import RobotModel
from lingbot_world_ros.settings.description import with_ros2_control
from lingbot_world_ros.settings.layouts import profile_values, topic_names
import pytest
import yaml

ROBOT = load_robot()
FOLDER = share_path('config', 'ros2_control')
ELEMENT = (FOLDER / 'room.xml').read_text()
VALUES = profile_values('moveit')
DOCS = Path(__file__).parent.parent / 'docs'


@pytest.fixture(scope='module')
def urdf():
    pytest.importorskip('urdf_parser_py')
    return with_ros2_control(VALUES, ELEMENT)


def test_our_own_reader_reads_the_urdf_and_finds_the_same_robot(urdf):
    limits = RobotModel.from_description(urdf).joint_limits
    assert {name: (limits[name].low, limits[name].high) for name in ROBOT.joint_names} == {
        joint.name: (joint.low, joint.high) for joint in ROBOT.joints}


def test_the_element_has_the_joints_of_the_robot_and_what_the_world_can_do(urdf):
    control = ElementTree.fromstring(urdf).find('ros2_control')
    assert control.get('type') == 'system'
    assert control.findtext('hardware/plugin') == (
        'joint_state_topic_hardware_interface/JointStateTopicSystem')
    joints = control.findall('joint')
    assert tuple(joint.get('name') for joint in joints) == ROBOT.joint_names
    for joint in joints:
        of = {kind: [each.get('name') for each in joint.findall(f'{kind}_interface')]
              for kind in ('command', 'state')}
        assert of == {'command': ['position'], 'state': ['position', 'velocity']}


def test_its_topics_are_those_of_the_profile(urdf):
    control = ElementTree.fromstring(urdf).find('ros2_control')
    told = {param.get('name'): param.text for param in control.findall('hardware/param')}
    names = topic_names(VALUES)
    assert told == {'joint_commands_topic': names['joint_command'],
                    'joint_states_topic': names['joint_states']}


def test_its_controllers_have_the_joints_and_names_that_the_world_leaves_to_them():
    params = yaml.safe_load((FOLDER / 'controllers.yaml').read_text())
    manager = params['controller_manager']['ros__parameters']
    controllers = {name: value['type'] for name, value in manager.items()
                   if isinstance(value, dict)}
    assert controllers == {
        'joint_state_broadcaster': 'joint_state_broadcaster/JointStateBroadcaster',
        'arm_controller': 'joint_trajectory_controller/JointTrajectoryController'}
    assert tuple(params['arm_controller']['ros__parameters']['joints']) == ROBOT.joint_names
    taken = set(topic_names(VALUES).values())
    assert not taken & {'/joint_states', '/robot_description', '/arm_controller/joint_trajectory'}
    assert not [name for name in taken if name.startswith('/arm_controller/')]


def test_a_urdf_with_an_element_of_its_own_keeps_it(tmp_path):
    own = '<robot name="r"><link name="a"/><ros2_control name="mine" type="system"/></robot>'
    text = with_ros2_control({**VALUES, 'robot_description': own}, ELEMENT)
    controls = ElementTree.fromstring(text).findall('ros2_control')
    assert [control.get('name') for control in controls] == ['mine']


@pytest.mark.parametrize('robot, element, words', [
    ('<robot name="r"><link name="a"/></robot>', ELEMENT, 'shoulder_pan_joint.*the URDF lacks'),
    ('', '<ros2_control', 'ros2_control is no XML')])
def test_an_element_that_does_not_fit_is_one_clear_error(robot, element, words):
    pytest.importorskip('urdf_parser_py')
    with pytest.raises(SpecError, match=words):
        with_ros2_control({**VALUES, 'robot_description': robot}, element)


def test_the_launch_file_starts_what_the_controllers_file_has():
    launch = share_path('launch', 'ros2_control.launch.py').read_text()
    named = re.search(r'CONTROLLERS = \((.*)\)', launch)[1]
    manager = yaml.safe_load((FOLDER / 'controllers.yaml').read_text())['controller_manager']
    assert {name.strip("' ") for name in named.split(',')} == {
        name for name, value in manager['ros__parameters'].items() if isinstance(value, dict)}
