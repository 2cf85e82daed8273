# SPDX-License-Identifier: Apache-2.0
"""What the parameter ``robot`` says in place of other parameters that were left as they are."""
from typing import Any, Dict, Mapping

from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.robots.urdf import RobotModel
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, load_profile
import numpy as np


def with_robot(values: Mapping[str, Any]) -> Dict[str, Any]:
    """
    Fill in the URDF of the user's robot, and the names of its links where they are frames.

    :param values: parameters by name, all or those of one node
    :return: the same names; what the user set stays
    :raises SpecError: there is no such robot
    """
    if not values.get('robot'):
        return dict(values)
    default = load_profile(DEFAULT_PROFILE)
    told = {name: value for name, value in _told(load_robot(values['robot'])).items()
            if value and name in values and values[name] == default[name]}
    return {**values, **told}


def _told(robot: Robot) -> Dict[str, str]:
    """Return the parameters that a robot answers; '' for what it leaves open."""
    model, camera = RobotModel.from_description(robot.description), robot.cameras[0]
    body, optical = model.camera_links(camera.link)
    home = {joint.name: joint.home for joint in robot.joints}
    if optical and not np.allclose(model.link_pose(optical, home), robot.camera.T_base_optical):
        optical = ''  # it looks elsewhere
    told = {'robot_description': robot.description, 'frames.base': model.base}
    if camera.moves:  # who publishes the links of the robot brings it there
        return {**told, 'camera_link': camera.link, 'frames.optical': optical}
    if not body or len(model.chain(body)) > 1:  # tf knows one parent only: keep our own names
        return told
    return {**told, 'frames.camera': body, 'frames.optical': optical}
