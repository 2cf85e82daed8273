# SPDX-License-Identifier: Apache-2.0
"""What ``robot`` and ``world`` say in place of other parameters that were left as they are."""
from typing import Any, Dict, Mapping

from lingbot_world_ros.engines.registry import DEFAULT_ENGINE, LEARNED
from lingbot_world_ros.errors import quoted, SpecError
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.robots.urdf import RobotModel
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, load_profile
from lingbot_world_ros.worlds.learned import learned_folder, ROBOT
import numpy as np


def with_robot(values: Mapping[str, Any]) -> Dict[str, Any]:
    """
    Fill in the URDF of the user's robot, and the names of its links where they are frames.

    A learned world names its engine, and has the robot that recorded.

    :param values: parameters by name, all or those of one node
    :return: the same names; what the user set stays
    :raises SpecError: there is no such robot, or another engine is to run a learned world
    """
    values, robot = dict(values), values.get('robot')
    folder = learned_folder(values.get('world', ''))
    if folder is not None and 'engine' in values:
        if values['engine'] not in (DEFAULT_ENGINE, LEARNED.name):
            raise SpecError(f'world={quoted(values["world"])} was learned, and runs with engine '
                            f'{LEARNED.name!r} only, not with {quoted(values["engine"])}.')
        values['engine'] = LEARNED.name
        if not robot and (folder / ROBOT).is_file():  # there is none where only pictures are known
            robot = str(folder / ROBOT)
    if not robot:
        return values
    default = load_profile(DEFAULT_PROFILE)
    told = {name: value for name, value in _told(load_robot(robot)).items()
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
