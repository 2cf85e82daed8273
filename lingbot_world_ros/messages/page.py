# SPDX-License-Identifier: Apache-2.0
"""Messages of a world -> what the operator's page is told, in numbers that JSON can carry."""
from math import isfinite, isnan, pi
from typing import Any, List, Optional, Tuple

from lingbot_world_ros.actions.layout import ANGULAR, LATERAL, LINEAR, velocity_name
from lingbot_world_ros.errors import quoted, SpecError
from lingbot_world_ros.messages.frames import planar_pose_from_msg
from lingbot_world_ros.messages.stamps import stamp_to_ns
from lingbot_world_ros.msg import WorldSpec as WorldSpecMsg, WorldStatus as WorldStatusMsg
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import CompressedImage

JPEG, PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'  # how files of these formats begin
# What a simulator without world_spec leaves unsaid.
NO_WORLD = {
    'known': False, 'engine': '', 'model': '', 'scene': '', 'world': '', 'scenes': [],
    'seed': None, 'mode': '', 'frame_rate_hz': None, 'frames_per_step': None, 'step_dt_s': None,
    'takes_text': False, 'takes_images': False, 'prompt': '', 'uncertainty_limit': None,
    'predicted': [], 'integrated': []}
NO_STATUS = {
    'rtf': None, 'frame_rate_hz': None, 'latency_ms': None, 'uncertainty': None,
    'calibrated': None, 'contact': None, 'step': None, 'seed': None, 'scene': '', 'prompt': '',
    'mode': '', 'refused': 0, 'message': ''}


def world(spec: WorldSpecMsg) -> dict:
    """
    Describe a world.

    :param spec: WorldSpec message
    :return: its share of the message ``world``
    """
    highest = dict(zip(spec.action_names, spec.action_max))
    units = dict(zip(spec.action_names, spec.action_units))
    joints = []
    for name, low, high in zip(spec.joint_names, spec.joint_position_min,
                               spec.joint_position_max):
        column = velocity_name(name)
        unit = units.get(column, 'rad/s').partition('/')[0]
        joints.append(joint(name, unit, low, high, highest.get(column, 0.0)))
    return {
        'known': True, 'engine': spec.engine, 'model': spec.model, 'scene': spec.scene,
        'world': spec.world, 'scenes': list(spec.scenes), 'seed': spec.seed, 'mode': spec.mode,
        'width': spec.width, 'height': spec.height, 'frame_rate_hz': finite(spec.frame_rate),
        'frames_per_step': spec.frames_per_step, 'step_dt_s': finite(spec.step_dt),
        'linear_max_mps': finite(highest.get(LINEAR), 0.0),
        'lateral_max_mps': finite(highest.get(LATERAL), 0.0),
        'angular_max_radps': finite(highest.get(ANGULAR), 0.0), 'joints': joints,
        'has_depth': spec.has_depth, 'takes_text': spec.takes_text,
        'takes_images': spec.takes_images, 'prompt': '',
        'uncertainty_limit': rounded(spec.uncertainty_limit, 4),
        'predicted': list(spec.predicted_states), 'integrated': list(spec.integrated_states)}


def joint(name: str, unit: str, low: Optional[float], high: Optional[float],
          speed: Optional[float]) -> dict:
    """Describe a joint (rad or m, per second); one without limits gets a slider of one turn."""
    return {'name': name, 'unit': unit, 'min': finite(low, -pi), 'max': finite(high, pi),
            'speed_max': finite(speed, 0.0)}


def status(msg: WorldStatusMsg) -> dict:
    """
    Tell how a world is doing.

    :param msg: WorldStatus message
    :return: its share of the message ``status``; None for what is not known
    """
    playing = msg.state == WorldStatusMsg.STATE_PLAYING
    return {
        'rtf': rounded(msg.real_time_factor if playing else 0.0, 3),
        'frame_rate_hz': rounded(msg.frame_rate, 2),
        'latency_ms': rounded(msg.command_latency * 1e3, 1) or None,
        'uncertainty': rounded(msg.uncertainty, 4),
        'calibrated': None if isnan(msg.uncertainty) else msg.uncertainty_calibrated,
        'contact': rounded(msg.contact, 3), 'step': msg.step, 'seed': msg.seed,
        'scene': msg.scene, 'prompt': msg.prompt, 'mode': msg.mode,
        'refused': msg.rejected_commands, 'message': msg.message}


def pose(msg: Optional[Odometry]) -> Optional[List[float]]:
    """
    Read where the base is.

    :param msg: Odometry message or None
    :return: [x [m], y [m], yaw [rad]] in its frame; None if that is not known
    """
    if msg is None:
        return None
    values = [round(value, 4) for value in planar_pose_from_msg(msg.pose.pose).tolist()]
    return values if all(map(isfinite, values)) else None


def path(msg: Path) -> List[Tuple[float, float]]:
    """
    Read where the base has been.

    :param msg: Path message
    :return: x, y [m] in its frame; without points that are none
    """
    points = [(pose.pose.position.x, pose.pose.position.y) for pose in msg.poses]
    return [(x, y) for x, y in points if isfinite(x) and isfinite(y)]


def picture(msg: CompressedImage) -> bytes:
    """
    Take the file out of a CompressedImage.

    :param msg: CompressedImage message
    :return: JPEG or PNG
    :raises SpecError: not a format that browsers show
    """
    data = bytes(msg.data)
    if not data.startswith((JPEG, PNG)):
        raise SpecError(f'{quoted(msg.format)} is neither JPEG nor PNG; the raw image is shown '
                        'where there is one.')
    return data


def stamp_s(msg: Any) -> Optional[float]:
    """Return the stamp of a message in seconds; None without a message."""
    return None if msg is None else round(stamp_to_ns(msg.header.stamp) * 1e-9, 4)


def finite(value: Optional[float], otherwise: Optional[float] = None) -> Optional[float]:
    """Return a number that JSON can carry; ``otherwise`` for NaN, infinity and None."""
    return float(value) if value is not None and isfinite(value) else otherwise


def rounded(value: Optional[float], digits: int) -> Optional[float]:
    """Return a number with few digits; None for NaN, infinity and None."""
    value = finite(value)
    return None if value is None else round(value, digits)
