# SPDX-License-Identifier: Apache-2.0
"""The MuJoCo reference world: geometry and physics that the learned world is measured by."""
from dataclasses import replace
import os
import subprocess
import sys

from lingbot_world_ros.geometry import se3
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.worlds.scenes import generate_scene, get_scene, SCENES, StartState
from needs import need_engine
import numpy as np
import pytest
from waiting import PATIENCE_S

ROBOT = load_robot()

need_engine('reference')

from lingbot_world_ros.engines.reference import engine as reference  # noqa: E402, I100
from lingbot_world_ros.engines.reference.mjcf import scene_mjcf  # noqa: E402


@pytest.fixture(scope='module', params=sorted(SCENES))
def sim(request):
    """Each shipped scene, compiled once."""
    return reference.ReferenceScene(get_scene(request.param))


def test_start_states_touch_nothing(sim):
    for seed in range(40):
        sim.set_state(sim.scene.start_state(seed, ROBOT))
        assert not sim.contact, seed


def test_arm_points_project_onto_the_arm(sim):
    """Forward kinematics, camera pose and intrinsics agree with what is drawn."""
    hits = total = 0
    for seed in range(6):
        sim.set_state(sim.scene.start_state(seed, ROBOT))
        mask = sim.arm_mask()
        points = ROBOT.arm.points(sim.joint_position)[1:4]
        local = np.linalg.inv(ROBOT.camera.T_base_optical) @ np.c_[points, np.ones(3)].T
        u, v, w = ROBOT.camera.k @ local[:3]
        for x, y in zip(np.rint(u / w).astype(int), np.rint(v / w).astype(int)):
            if 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0]:
                hits, total = hits + mask[y, x], total + 1
    assert total >= 10 and hits == total


def test_depth_is_metres_along_the_optical_axis(sim):
    """Casts rays through pixels and compares with MuJoCo's own ray caster."""
    import mujoco
    sim.set_state(sim.scene.start_state(1, ROBOT))
    depth = sim.render(supersampling=1)[1]
    T = _camera_pose(sim.base_pose)
    groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)
    errors = []
    for u, v in ((8, 8), (150, 10), (20, 60), (140, 60), (12, 110)):
        ray = T[:3, :3] @ np.linalg.inv(ROBOT.camera.k) @ (u, v, 1.0)
        length = np.linalg.norm(ray)
        distance = mujoco.mj_ray(sim.model, sim.data, T[:3, 3], ray / length, groups, 1, -1,
                                 np.zeros(1, np.int32))
        errors.append(abs(depth[v, u] - distance / length))
    assert np.median(errors) < 0.01


def test_points_are_drawn_where_k_says_to_a_tenth_of_a_pixel(monkeypatch):
    """
    White balls of 8 mm, 0.8 m ahead of a camera of 640 x 480 pixels: their middles in the image.

    With pixels counted from the corner of the image they would be off by half a pixel.
    """
    camera = PinholeCamera.from_fovy(640, 480, np.pi / 3).mounted((0, 0, 1.2), (0, 0.3, 0))
    radius, z = 0.008, 0.8
    points = camera.rays(np.stack(np.meshgrid([60.3, 250.6, 400.9, 590.2], [50.4, 240.1, 420.7]),
                                  -1).reshape(-1, 2)) * z
    places = se3.transformed(camera.T_base_optical, points)
    balls = ''.join(f'<geom type="sphere" group="4" contype="0" conaffinity="0" material="flat" '
                    f'size="{radius}" pos="{" ".join(map(str, place.tolist()))}"/>'
                    for place in places)

    def with_balls(*arguments):
        text, files = scene_mjcf(*arguments)
        text = text.replace('<asset>', '<asset><material name="flat" emission="1"/>', 1)
        return text.replace('<worldbody>', f'<worldbody>{balls}', 1), files
    monkeypatch.setattr(reference, 'scene_mjcf', with_balls)
    scene = get_scene('office')
    sim = reference.ReferenceScene(scene, ROBOT.with_camera(camera))
    sim.set_state(replace(scene.start_state(0, ROBOT), base_pose=np.zeros(3)))
    cover = sim.render(groups=(4,))[0][..., 0] / 255.0
    sim.close()
    # The outline of a ball is an ellipse whose middle lies a little outside that of the ball.
    expected = camera.project(points * [1, 1, 1 - (radius / z) ** 2])
    pixels = camera.pixel_grid()
    errors = []
    for middle in expected:
        weight = cover * (np.abs(pixels - middle).max(-1) < 10)
        errors.append((weight[..., None] * pixels).sum((0, 1)) / weight.sum() - middle)
    assert np.abs(np.mean(errors, 0)).max() < 0.03
    assert np.abs(errors).max() < 0.1


def _camera_pose(base_pose):
    return se3.pose_from_se2(base_pose) @ ROBOT.camera.T_base_optical


def test_pushed_objects_move(sim):
    start, index, angle = next(
        (start, i, angle) for start in (sim.scene.start_state(seed, ROBOT) for seed in range(200))
        for i in range(len(sim.scene.movables)) for angle in np.linspace(0, 2 * np.pi, 24)
        if _free_line(sim.scene, start.object_pose, i, angle))
    target = start.object_pose[index]
    away = ROBOT.footprint.radius_m + sim.scene.movables[index].radius_m + 0.05
    base = [target[0] - away * np.cos(angle), target[1] - away * np.sin(angle), angle]
    sim.set_state(StartState(np.array(base), start.joint_position, start.object_pose))
    for _ in range(15):
        sim.step(np.r_[0.5, np.zeros(6)])
    moved = (sim.object_pose[index] - target)[:2] @ [np.cos(angle), np.sin(angle)]
    assert moved > 0.15


def _free_line(scene, objects, index, angle):
    """Whether nothing stands between 0.7 m before and 0.5 m behind an object."""
    points = objects[index, :2] + np.linspace(-0.7, 0.5, 13)[:, None] * [np.cos(angle),
                                                                         np.sin(angle)]
    others = np.delete(objects, index, 0)[:, :2]
    apart = np.linalg.norm(points[:, None] - others, axis=-1)
    clear_m = scene.clearance_m(points, ROBOT.footprint.height_m)
    return (clear_m > 0.40).all() and (apart > 0.7).all()


def test_contact_does_not_spin_the_base(sim):
    """Contacts that missed the base's axis once spun it up to hundreds of radians a second."""
    rng = np.random.default_rng(0)
    for seed in range(4):
        sim.set_state(sim.scene.start_state(seed, ROBOT))
        for _ in range(60):
            sim.step(np.r_[rng.uniform(0.3, 0.8), 0.0, np.zeros(5)])
            assert abs(sim.base_twist[2]) < 0.05


def test_generated_scenes_repeat_by_seed_and_differ_by_seed():
    first, again, other = (generate_scene('office', s) for s in (4, 4, 5))
    assert first == again
    assert first.parts != other.parts
    reference.ReferenceScene(other).step(np.zeros(7))


@pytest.mark.parametrize('library', ['off', 'nonsense'])
def test_without_opengl_the_error_says_what_to_install(library):
    code = ('from lingbot_world_ros.engines.registry import make_world\n'
            'make_world("reference").reset("office", 0)')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                            timeout=PATIENCE_S, env={**os.environ, 'MUJOCO_GL': library})
    assert result.returncode and 'SpecError: The reference world cannot draw' in result.stderr
    assert 'libegl1' in result.stderr.splitlines()[-1]
