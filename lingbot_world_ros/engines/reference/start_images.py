# SPDX-License-Identifier: Apache-2.0
"""
Draw the start images of the shipped scenes.

    python -m lingbot_world_ros.engines.reference.start_images

The rooms of the reference world without the robot, from the height of its head camera, as the
camera of a LingBot-World stream sees them by default: pinhole, square pixels, looking through the
middle. Finer than what the reference world shows its learners: larger textures, a lamp under the
ceiling that casts shadows, and light from two sides.
"""
import argparse
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Dict, Tuple

import cv2
import lingbot_world_ros.engines.reference.engine  # noqa: F401  chooses the GL library for MuJoCo
from lingbot_world_ros.engines.reference.mjcf import scene_mjcf
from lingbot_world_ros.engines.reference.textures import texture
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.paths import share_path
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.worlds.scenes import get_scene, Scene
import mujoco
import numpy as np

WIDTH_PX, HEIGHT_PX = 832, 464
FIELD_OF_VIEW_DEG = 79.2  # horizontal
JPEG_QUALITY = 90
SUPERSAMPLING = 3  # rendered pixels per image pixel and axis
TEXTURE_PX = 1024
PITCH_RAD = 0.22  # the camera looks a little down
VISUAL = f"""<visual><quality shadowsize="8192" offsamples="4"/>
<map znear="0.01" zfar="4" shadowclip="1"/>
<global offwidth="{WIDTH_PX * SUPERSAMPLING}" offheight="{HEIGHT_PX * SUPERSAMPLING}"/>
<headlight ambient="0.4 0.4 0.4" diffuse="0.08 0.08 0.08" specular="0 0 0"/></visual>"""
LIGHTS = """<light pos="{x} {y} 2.35" dir="0 0 -1" cutoff="80" exponent="1"
 diffuse="0.52 0.5 0.46" specular="0 0 0" castshadow="true"/>
<light directional="true" dir="-0.4 0.5 -0.6" diffuse="0.3 0.31 0.33" specular="0 0 0"
 castshadow="false"/>
<light directional="true" dir="0.7 -0.2 -0.5" diffuse="0.18 0.18 0.17" specular="0 0 0"
 castshadow="false"/>"""


@dataclass(frozen=True)
class View:
    """Where the camera stands (x, y [m]) and looks to (yaw [rad]); where movable things are."""

    position_m: Tuple[float, float]
    yaw_rad: float
    objects: Tuple[Tuple[float, float, float], ...]  # x, y [m], yaw [rad]


VIEWS = {
    'living_room': View((4.9, 0.55), 2.15, ((3.9, 2.3, 0.4), (1.55, 2.2, 0.0), (2.9, 1.6, 0.0))),
    'office': View((3.6, 0.55), 2.35, ((2.75, 2.6, 0.3), (0.5, 3.3, 0.0), (2.0, 2.9, 0.0))),
    'workshop': View((5.3, 0.9), 2.03, ((3.5, 3.9, 0.5), (4.9, 3.3, 0.0), (3.9, 2.6, 0.0)))}


def draw(name: str) -> np.ndarray:
    """
    Draw one start image.

    :param name: one of ``VIEWS``
    :return: (464, 832, 3) uint8 rgb
    """
    scene, view = get_scene(name), VIEWS[name]
    model = mujoco.MjModel.from_xml_string(*_mjcf(scene, view))
    data = mujoco.MjData(model)
    for movable, pose in zip(scene.movables, view.objects, strict=True):
        for axis, value in zip(('x', 'y', 'yaw'), pose):
            data.joint(f'{movable.name}_{axis}').qpos = value
    mujoco.mj_forward(model, data)
    shown = mujoco.MjvOption()
    shown.geomgroup[:] = 0
    shown.geomgroup[[0, 2]] = 1  # the robot is in 1
    with mujoco.Renderer(model, HEIGHT_PX * SUPERSAMPLING, WIDTH_PX * SUPERSAMPLING) as renderer:
        renderer.update_scene(data, 'start', shown)
        rgb = renderer.render()
    return cv2.resize(rgb, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA)


def _mjcf(scene: Scene, view: View) -> Tuple[str, Dict[str, bytes]]:
    """Return the scene's MJCF text with this camera and light, and its files."""
    text, files = scene_mjcf(scene, load_robot(), frame_rate_hz=15.0)
    text = re.sub(r'<light [^>]*/>', '', text)
    text = re.sub(r'<visual>.*</visual>', VISUAL, text, flags=re.DOTALL)
    lights = LIGHTS.format(x=scene.size_m[0] / 2, y=scene.size_m[1] / 2)
    text = text.replace('<worldbody>', f'<worldbody>{lights}{_camera(view)}', 1)
    return text, {name: _png(texture(Path(name).stem, TEXTURE_PX)) for name in files}


def _camera(view: View) -> str:
    """MuJoCo's camera axes: x right, y up, looks along -z."""
    x, y, z = *view.position_m, load_robot().camera.position_m[2]
    camera = PinholeCamera.from_fovx(WIDTH_PX, HEIGHT_PX, np.deg2rad(FIELD_OF_VIEW_DEG)).mounted(
        (x, y, z), (0.0, PITCH_RAD, view.yaw_rad))
    axes = (*camera.T_base_optical[:3, 0], *-camera.T_base_optical[:3, 1])
    return (f'<camera name="start" pos="{x} {y} {z}" '
            f'xyaxes="{" ".join(f"{a:.9f}" for a in axes)}" '
            f'fovy="{np.rad2deg(camera.field_of_view_rad[1]):.9f}"/>')


def _png(rgb: np.ndarray) -> bytes:
    return cv2.imencode('.png', rgb[..., ::-1])[1].tobytes()


def main() -> None:
    """Write one JPEG per scene."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0].strip())
    parser.add_argument('--output', type=Path, metavar='FOLDER',
                        default=share_path('config', 'worlds') / 'images')
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    for name in VIEWS:
        path = folder / f'{name}.jpg'
        cv2.imwrite(str(path), draw(name)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        print(f'{path}: {path.stat().st_size / 1000:.0f} kB')


if __name__ == '__main__':
    main()
