# SPDX-License-Identifier: Apache-2.0
"""
The URDF of a world's robot, and what robot_state_publisher is to make of it.

The world publishes ``odom -> base_link -> camera_link -> camera_optical_frame``, the links of the
arm it leaves to robot_state_publisher. Both publish the fixed links of the camera where the URDF
has them: tf2 takes that as long as both name the same parent, which is checked here. No ROS.
"""
from typing import Dict, Optional
from xml.etree import ElementTree

from lingbot_world_ros.engines.registry import engine_entry
from lingbot_world_ros.errors import quoted, shown, SpecError
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.urdf import read_description
from lingbot_world_ros.settings.robot_parameters import with_robot


def description_of(values: dict) -> str:
    """
    Find the robot of a world that does not run yet.

    :param values: all parameters by name
    :return: URDF as XML, '' where neither the user nor the engine has one
    :raises SpecError: the file cannot be read, or there is no such engine
    """
    given = with_robot(values)['robot_description']
    if given:
        return read_description(given)
    robot = engine_entry(values['engine']).robot
    return load_robot(robot).description if robot else ''


def with_ros2_control(values: dict, element: str) -> str:
    """
    Make the URDF of a robot one of ros2_control.

    :param values: all parameters by name
    :param element: ``<ros2_control>`` as XML
    :return: URDF as XML with that element; as it is if it has one already
    :raises SpecError: there is no URDF, one of both is no XML, or the URDF lacks a joint
    """
    robot = _parsed('robot_description', description_of(values))
    if robot.find('ros2_control') is None:
        control = _parsed('ros2_control', element)
        known = {joint.get('name') for joint in robot.findall('joint')}
        missing = [name for name in (joint.get('name') for joint in control.findall('joint'))
                   if name not in known]
        if missing:
            raise SpecError(f'ros2_control has joint {shown(", ".join(map(str, missing)))}, which '
                            'the URDF lacks; give ros2_control:= a file for this robot.')
        robot.append(control)
    return ElementTree.tostring(robot, encoding='unicode')


def link_publisher_parameters(values: dict) -> dict:
    """
    Say what robot_state_publisher is started with, so that its frames join those of the world.

    :param values: all parameters by name
    :return: its parameters
    :raises SpecError: there is no URDF, or its links and the world's frames make no one tree
    """
    values = with_robot(values)
    text = description_of(values)
    if not text:
        raise SpecError('robot_state_publisher needs a URDF, and engine '
                        f'{quoted(values["engine"])} has no robot of its own; give '
                        'robot_description, or robot_state_publisher:=false.')
    parents = _parents(text)
    base, camera, optical = (values[f'frames.{name}'] for name in ('base', 'camera', 'optical'))
    if base not in parents:
        raise SpecError(f'frames.base={quoted(base)} is no link of the URDF '
                        f'({shown(", ".join(parents))}); its links would have no parent.')
    link, others = values['camera_link'], [values[f'frames.{name}'] for name in (
        'imu', 'footprint')]
    for child, parent in (*(((optical, link),) if link else ((camera, base), (optical, camera))),
                          *((other, base) for other in others if other)):
        if child != parent and parents.get(child) not in (None, parent):
            raise SpecError(
                f'Frame {quoted(child)} has parent {quoted(parent)} in the world, but '
                f'{quoted(parents[child])} in the URDF; tf allows only one parent. Give '
                'frames.camera, frames.optical, frames.imu or frames.footprint another name.')
    return {'robot_description': text, 'frame_prefix': values['frame_prefix'],
            'use_sim_time': values['publish_clock']}


def _parents(text: str) -> Dict[str, Optional[str]]:
    """Return the parent of every link by name, None for that of the base."""
    robot = _parsed('robot_description', text)
    parents: Dict[str, Optional[str]] = {
        link.get('name', ''): None for link in robot.findall('link')}
    for joint in robot.findall('joint'):
        child, parent = joint.find('child'), joint.find('parent')
        if child is not None and parent is not None:
            parents[child.get('link', '')] = parent.get('link')
    return parents


def _parsed(name: str, text: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise SpecError(f'{name} is no XML: {error}.') from error
