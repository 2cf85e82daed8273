# SPDX-License-Identifier: Apache-2.0
"""
Scene and robot -> MJCF text and texture files for MuJoCo.

Geom groups: 0 static and visible, 1 robot, 2 movable objects, 3 invisible collision shapes.
Gravity is off: the base and the objects slide on the floor, so nothing can tip over.
"""
from typing import Dict, Iterable, List, Tuple

import cv2
from lingbot_world_ros.engines.reference.textures import texture
from lingbot_world_ros.geometry.camera import PinholeCamera, T_LINK_OPTICAL
from lingbot_world_ros.geometry.se3 import pose_from_rpy
from lingbot_world_ros.robots.arm import Arm
from lingbot_world_ros.robots.robot import JointSpec, Robot
from lingbot_world_ros.robots.urdf import is_optical, RobotModel
from lingbot_world_ros.worlds.scenes import Movable, Part, Scene, WALL_HEIGHT_M
import numpy as np

TIMESTEPS_PER_FRAME = 8
HEAD, WRIST = 'head', 'wrist'  # the first and the second camera of a robot
FLOOR_GAP_M = 0.02  # between the floor and the base
_TEXTURE_PX = {'floor': 512, 'wall': 512}
# Texture repeats per metre for floors; everything else is stretched once over its surface.
_FLOOR_TILE_M = {'living': 2.0, 'office': 2.0, 'workshop': 2.5}


def scene_mjcf(scene: Scene, robot: Robot, frame_rate_hz: float) -> Tuple[str, Dict[str, bytes]]:
    """
    Build the MuJoCo model of a scene with the robot in it.

    :param scene: the scene
    :param robot: the robot
    :param frame_rate_hz: camera rate; the physics runs 8 steps per frame
    :return: (MJCF text, dict of PNG files by name)
    """
    body = [_geom(i, part) for i, part in enumerate(scene.parts)]
    body += _collision_walls(scene)
    body += [_movable_body(m) for m in scene.movables]
    body.append(_robot_body(robot))
    materials = sorted({p.material for p in scene.parts} | {m.material for m in scene.movables}
                       | {'arm_orange', 'arm_grey', 'arm_dark', 'arm_white'})
    planar = {p.material for p in scene.parts if p.shape == 'plane'}
    assets, files = [], {}
    for name in materials:
        size = next((px for key, px in _TEXTURE_PX.items() if key in name), 256)
        ok, png = cv2.imencode('.png', texture(name, size)[..., ::-1])
        files[f'{name}.png'] = png.tobytes()
        assets.append(_material(name, name in planar, scene))
    text = f"""<mujoco model="{scene.name}">
<compiler angle="radian" eulerseq="xyz"/>
<option timestep="{1.0 / frame_rate_hz / TIMESTEPS_PER_FRAME:.12g}" gravity="0 0 0"
 integrator="implicitfast" cone="elliptic"/>
<size memory="32M"/>
<visual><quality shadowsize="0" offsamples="0"/><map znear="0.005" zfar="4"/>
<global offwidth="1280" offheight="960"/>
<headlight ambient="0.42 0.42 0.42" diffuse="0.25 0.25 0.25" specular="0 0 0"/></visual>
<default><geom condim="1" friction="0.6 0.005 0.0001" solref="0.02 1"/></default>
<asset>{''.join(assets)}</asset>
<worldbody>
<light directional="true" dir="-0.4 0.5 -1" diffuse="0.32 0.32 0.30" specular="0 0 0"
 castshadow="false"/>
<light pos="{scene.size_m[0] / 2} {scene.size_m[1] / 2} 2.2" diffuse="0.28 0.27 0.25"
 specular="0 0 0" castshadow="false" attenuation="1 0 0.02"/>
{chr(10).join(body)}
</worldbody>
{_actuators(robot)}
</mujoco>"""
    return text, files


def _numbers(values: Iterable[float]) -> str:
    return ' '.join(f'{float(v):.6g}' for v in values)


def _material(name: str, planar: bool, scene: Scene) -> str:
    kind = '2d' if planar else 'cube'
    repeat = ''
    if name.endswith('_floor'):
        tile = _FLOOR_TILE_M.get(name.split('_')[0], 2.0)
        repeat = f' texrepeat="{_numbers(s / tile for s in scene.size_m)}"'
    return (f'<texture name="{name}" type="{kind}" file="{name}.png"/>'
            f'<material name="{name}" texture="{name}" specular="0" shininess="0"{repeat}/>\n')


def _geom(index: int, part: Part) -> str:
    size = part.size + (0.1,) if part.shape == 'plane' else part.size
    contact = '' if part.solid else ' contype="0" conaffinity="0"'
    return (f'<geom name="static_{index}" type="{part.shape}" size="{_numbers(size)}" '
            f'pos="{_numbers(part.pos)}" euler="{_numbers(part.euler)}" '
            f'material="{part.material}"{contact}/>')


def _collision_walls(scene: Scene) -> List[str]:
    """Boxes behind the visible wall planes: MuJoCo's planes collide as if they had no end."""
    lx, ly = scene.size_m
    h, t = WALL_HEIGHT_M / 2, 0.2
    along_x, along_y = (lx / 2 + 2 * t, t, h), (t, ly / 2 + 2 * t, h)
    walls = [((lx / 2, -t, h), along_x), ((lx / 2, ly + t, h), along_x),
             ((-t, ly / 2, h), along_y), ((lx + t, ly / 2, h), along_y)]
    return [f'<geom type="box" group="3" pos="{_numbers(pos)}" size="{_numbers(size)}"/>'
            for pos, size in walls]


def _movable_body(movable: Movable) -> str:
    height = movable.half_size_m[2]
    m, r = movable.mass_kg, movable.radius_m
    return f"""<body name="{movable.name}" pos="0 0 {height}">
<inertial pos="0 0 0" mass="{m}" diaginertia="{_numbers([0.4 * m * r * r] * 3)}"/>
<joint name="{movable.name}_x" type="slide" axis="1 0 0" damping="{4 * m}"
 frictionloss="{1.5 * m}"/>
<joint name="{movable.name}_y" type="slide" axis="0 1 0" damping="{4 * m}"
 frictionloss="{1.5 * m}"/>
<joint name="{movable.name}_yaw" type="hinge" axis="0 0 1" damping="{0.4 * m * r}"
 frictionloss="{0.15 * m * r}"/>
<geom name="{movable.name}" type="{movable.shape}" size="{_numbers(movable.size)}" group="2"
 material="{movable.material}"/></body>"""


def _link(joint: JointSpec, axis: str, pos: Tuple[float, float, float], inner: str,
          camera: Tuple[str, str] = ('', '')) -> str:
    kind = 'slide' if joint.unit == 'm' else 'hinge'
    return f"""<body pos="{_numbers(pos)}">
<inertial pos="0 0 0" mass="0.05" diaginertia="0.0005 0.0005 0.0005"/>
<joint name="{joint.name}" type="{kind}" axis="{axis}" range="{joint.low} {joint.high}"
 limited="true" armature="{0.1 if kind == 'hinge' else 2.0}"/>
{inner}{_at(joint.name, camera)}</body>"""


def _capsule(length: float, radius: float, material: str) -> str:
    return (f'<geom type="capsule" group="1" contype="0" conaffinity="0" size="{radius}" '
            f'fromto="0 0 0 {length} 0 0" material="{material}"/>')


def _finger(arm: Arm, side: int) -> str:
    """Finger box that slides along y; ``side`` is +1 for the commanded left one."""
    return (f'<geom type="box" group="1" contype="0" conaffinity="0" material="arm_dark" '
            f'pos="{arm.finger_m / 2} {side * arm.finger_gap_m} 0" '
            f'size="{arm.finger_m / 2} 0.008 0.014"/>')


def _robot_body(robot: Robot) -> str:
    r, h = robot.footprint.radius_m, robot.footprint.base_height_m
    camera, wrist = robot.camera, _wrist_camera(robot)
    # What can be touched hangs on the body that slides, not on the one that turns: a round base
    # pressed against a corner would otherwise be spun up by contacts that miss its axis.
    return f"""<body name="base_slide" pos="0 0 0">
<inertial pos="0 0 0.2" mass="20" diaginertia="1 1 1"/>
<joint name="base_x" type="slide" axis="1 0 0"/>
<joint name="base_y" type="slide" axis="0 1 0"/>
<geom name="base_collision" type="cylinder" group="3" size="{r} {_half_height(robot)}"
 pos="0 0 {_half_height(robot) + FLOOR_GAP_M}" mass="0"/>
<body name="base" pos="0 0 0">
<inertial pos="0 0 0.2" mass="1" diaginertia="1.5 1.5 1.5"/>
<joint name="base_yaw" type="hinge" axis="0 0 1"/>
<geom type="cylinder" group="1" contype="0" conaffinity="0" size="{r - 0.01} {h / 2}"
 pos="0 0 {h / 2 + FLOOR_GAP_M}" material="arm_grey"/>
{_camera(HEAD, camera, camera.T_base_camera_link)}{_at('', wrist)}
{_arm(robot, wrist) if robot.joints else ''}</body></body>"""


def _camera(name: str, camera: PinholeCamera, T_body_link: np.ndarray) -> str:
    """Put a camera on a body; axes of MuJoCo: x right, y up, looks along -z."""
    xyaxes = (*-T_body_link[:3, 1], *T_body_link[:3, 2])
    return (f'<camera name="{name}" pos="{_numbers(T_body_link[:3, 3])}" '
            f'xyaxes="{_numbers(xyaxes)}" '
            f'fovy="{float(np.rad2deg(camera.field_of_view_rad[1]))!r}"/>')


def _wrist_camera(robot: Robot) -> Tuple[str, str]:
    """Return the joint that carries the second camera, '' for the base, and the camera."""
    if len(robot.cameras) < 2:
        return '', ''
    second = robot.cameras[1]
    chain = RobotModel.from_description(robot.description).chain(second.link)
    moving = [i for i, joint in enumerate(chain) if joint.name in robot.joint_names]
    T = np.eye(4)
    for joint in chain[moving[-1] + 1 if moving else 0:]:
        T = T @ pose_from_rpy(joint.xyz, joint.rpy)
    if is_optical(second.link):
        T = T @ T_LINK_OPTICAL.T
    return chain[moving[-1]].name if moving else '', _camera(WRIST, second.camera, T)


def _at(joint: str, camera: Tuple[str, str]) -> str:
    """Return a camera where a joint carries it, '' elsewhere."""
    return camera[1] if camera[0] == joint else ''


def _half_height(robot: Robot) -> float:
    return round(0.5 * (robot.footprint.height_m - FLOOR_GAP_M), 6)


def _arm(robot: Robot, wrist_camera: Tuple[str, str]) -> str:
    """Draw the column that carries the shoulder, and the arm from there."""
    arm, h = robot.arm, robot.footprint.base_height_m
    assert arm is not None, 'joints are those of an arm'
    x, y, z = arm.shoulder_m
    pan, lift, elbow, wrist, grip = robot.joints
    tip = arm.hand_m
    left = _link(grip, '0 1 0', (tip, 0, 0), _finger(arm, 1), wrist_camera)
    right = (f'<body name="right_finger" pos="{tip} 0 0">'
             '<inertial pos="0 0 0" mass="0.05" diaginertia="0.0005 0.0005 0.0005"/>'
             '<joint name="right_finger" type="slide" axis="0 -1 0" armature="2"/>'
             f'{_finger(arm, -1)}</body>')
    palm = (f'<geom type="box" group="1" contype="0" conaffinity="0" material="arm_grey" '
            f'pos="{tip} 0 0" size="0.012 0.062 0.018"/>')
    hand = _link(wrist, '0 1 0', (arm.forearm_m, 0, 0),
                 _capsule(tip, 0.022, 'arm_grey') + palm + left + right,
                 wrist_camera)
    fore = _link(elbow, '0 1 0', (arm.upper_arm_m, 0, 0),
                 _capsule(arm.forearm_m, 0.026, 'arm_white') + hand,
                 wrist_camera)
    upper = _link(lift, '0 1 0', (0, 0, 0), _capsule(arm.upper_arm_m, 0.032, 'arm_orange') + fore,
                  wrist_camera)
    column = (f'<geom type="cylinder" group="1" contype="0" conaffinity="0" '
              f'size="0.05 {(z - h) / 2}" pos="{x} {y} {(z + h) / 2}" material="arm_dark"/>')
    return column + _link(pan, '0 0 1', arm.shoulder_m, upper, wrist_camera)


def _actuators(robot: Robot) -> str:
    """Velocity servos; the mirrored finger follows the commanded one."""
    lines = ['<velocity name="base_x" joint="base_x" kv="400" forcerange="-120 120"/>',
             '<velocity name="base_y" joint="base_y" kv="400" forcerange="-120 120"/>',
             '<velocity name="base_yaw" joint="base_yaw" kv="30" forcerange="-30 30"/>']
    for joint in robot.joints:
        gain, force = (2, 10) if joint.unit == 'rad' else (40, 10)
        lines.append(f'<velocity name="{joint.name}" joint="{joint.name}" kv="{gain}" '
                     f'forcerange="{-force} {force}"/>')
    fingers = ''
    if robot.joints:
        fingers = (f'<equality><joint joint1="right_finger" joint2="{robot.joint_names[-1]}" '
                   f'polycoef="0 1 0 0 0" solref="0.005 1"/></equality>')
    return f'{fingers}<actuator>{"".join(lines)}</actuator>'
