# SPDX-License-Identifier: Apache-2.0
"""The folder of a learned place: its robot, ``world.yaml``, checksums, the card. NumPy only."""
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple
from xml.sax.saxutils import quoteattr

from lingbot_world_ros.geometry.camera import MountedCamera
from lingbot_world_ros.recording.aligned import AlignedRecording
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.worlds.learned import digest, FILE, FORMAT, ROBOT
import numpy as np
import yaml

URDF = 'robot.urdf'
CAMERA_LINK = 'world_camera'
DEFAULT_SPEED = (0.5, 1.0)  # m/s, rad/s, of a base that was never told to move


def write_robot(folder: Path, recording: AlignedRecording, camera: MountedCamera,
                robot: Optional[Robot], radius_m: float) -> None:
    """
    Describe the robot that recorded: what it was told to do is what it can.

    :param folder: where to
    :param recording: of it
    :param camera: that recorded
    :param robot: what the user says of it, None: nothing
    :param radius_m: of its footprint
    """
    drive = (_drive_of(robot) if robot else _drive(recording))
    joints = {j.name: {'home': j.home, 'lag_s': j.lag_s} for j in robot.joints} if robot else {}
    fovy = float(np.rad2deg(2.0 * np.arctan(0.5 * camera.height_px / camera.fy_px)))
    footprint: Dict[str, float] = {'radius_m': round(radius_m, 4),
                                   'height_m': robot.footprint.height_m if robot else 1.0}
    if robot:
        footprint['base_height_m'] = robot.footprint.base_height_m
    content: Dict[str, Any] = {
        'urdf': URDF, 'drive': drive, 'footprint': footprint,
        'cameras': {'front': {'link': CAMERA_LINK, 'width_px': camera.width_px,
                              'height_px': camera.height_px,
                              'vertical_field_of_view_deg': round(fovy, 6)}}}
    if joints:
        content['joints'] = joints
    (folder / ROBOT).write_text(yaml.safe_dump(content, sort_keys=False))
    (folder / URDF).write_text(_urdf(robot.description if robot else '', camera))


def _drive_of(robot: Robot) -> Dict[str, Any]:
    drive = robot.drive
    out: Dict[str, Any] = {'type': 'omnidirectional' if drive.strafes else 'differential',
                           'linear_velocity_mps': [drive.linear_low_mps, drive.linear_high_mps],
                           'angular_velocity_radps': drive.angular_max_radps}
    if drive.strafes:
        out['lateral_velocity_mps'] = drive.lateral_max_mps
    return out


def _drive(recording: AlignedRecording) -> Dict[str, Any]:
    """Take the largest commands as limits."""
    def column(name: str) -> np.ndarray:
        if recording.action is None or name not in recording.action_names:
            return np.zeros(1)
        return np.asarray(recording.action)[:, recording.action_names.index(name)]

    forward, sideways = column('linear_x'), column('linear_y')
    turn = column('angular_z') if 'angular_z' in recording.action_names \
        else column('steering_angle')
    high = float(forward.max()) if forward.max() > 1e-3 else DEFAULT_SPEED[0]
    spin = float(np.abs(turn).max()) if np.abs(turn).max() > 1e-3 else DEFAULT_SPEED[1]
    out: Dict[str, Any] = {'type': 'differential',
                           'linear_velocity_mps': [min(float(forward.min()), 0.0), high],
                           'angular_velocity_radps': spin}
    if np.abs(sideways).max() > 1e-3:
        out.update(type='omnidirectional', lateral_velocity_mps=float(np.abs(sideways).max()))
    return out


def _urdf(description: str, camera: MountedCamera) -> str:
    """Add the camera's link to a URDF, or make one of a base and a camera."""
    from lingbot_world_ros.robots.urdf import RobotModel
    base = RobotModel.from_description(description).base if description else 'base_link'
    xyz, rpy = (' '.join(f'{v:.6g}' for v in values)
                for values in (camera.position_m, camera.rpy_rad))
    added = (f'  <link name="{CAMERA_LINK}"/>\n  <joint name="{CAMERA_LINK}_joint" type="fixed">\n'
             f'    <parent link={quoteattr(base)}/>\n    <child link="{CAMERA_LINK}"/>\n'
             f'    <origin xyz="{xyz}" rpy="{rpy}"/>\n  </joint>\n')
    if not description:
        return ('<?xml version="1.0"?>\n<robot name="learned">\n  <link name="base_link"/>\n'
                f'{added}</robot>\n')
    head, _, tail = description.rpartition('</robot>')
    return f'{head}{added}</robot>{tail}'


def write_about(folder: Path, about: Dict[str, Any], files: Sequence[str]) -> None:
    """
    Write ``world.yaml``, with the checksums of the other files.

    :param folder: of the world
    :param about: its content
    :param files: names of files that belong to it
    """
    sums = {name: digest(folder / name) for name in files}
    content = {'format': FORMAT, **about, 'sha256': sums}
    (folder / FILE).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True,
                                              width=99))


def card(about: Dict[str, Any], rows: List[Tuple[str, str]]) -> str:
    """
    Write the model card.

    :param about: content of ``world.yaml``
    :param rows: name and value of what was measured
    :return: Markdown
    """
    data = about['data']
    lines = [f'# {about["name"]}', '',
             f'A {about["kind"]} world, learned from a recording by lingbot_world_ros, which is '
             'unofficial, and not affiliated with Robbyant or NVIDIA.', '', '## Data', '',
             f'- Recording: {data["recording"]}, {data["seconds"]:.0f} s at '
             f'{about["rate_hz"]:g} Hz, {data["frames"]} frames.',
             f'- Licence of the data: {data["licence"] or "not stated"}.', '',
             '## What was measured', '', '| what | value |', '|---|---|']
    lines += [f'| {name} | {value} |' for name, value in rows]
    lines += ['', '## Limits', ''] + [f'- {text}' for text in about['limits']]
    return '\n'.join(lines) + '\n'
