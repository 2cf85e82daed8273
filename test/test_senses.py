# SPDX-License-Identifier: Apache-2.0
"""Points, IMU, map, contact and poses: by hand, against the reference world, and over topics."""
from dataclasses import replace
import json
import logging
from pathlib import Path

from needs import need_engine
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from fake_world import FakeWorld  # noqa: E402, I100
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from lingbot_world_ros.engines.interface import Capabilities, State as Poses  # noqa: E402
from lingbot_world_ros.engines.registry import make_world  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.geometry import se2, se3  # noqa: E402
from lingbot_world_ros.geometry.camera import PinholeCamera  # noqa: E402
from lingbot_world_ros.messages.frames import FrameNames, transform_from_msg  # noqa: E402
from lingbot_world_ros.messages.imu import (GRAVITY_MPS2, imu_to_msg, motion_mps2,  # noqa: E402
                                            PlanarImu)
from lingbot_world_ros.messages.map import map_to_msg  # noqa: E402
from lingbot_world_ros.messages.points import DepthPoints, points_to_msg  # noqa: E402
from lingbot_world_ros.messages.stamps import stamp_to_ns  # noqa: E402
from lingbot_world_ros.nodes import world_publishers  # noqa: E402
from lingbot_world_ros.nodes.parameters import declare  # noqa: E402
from lingbot_world_ros.nodes.world_publishers import WorldPublishers  # noqa: E402
from lingbot_world_ros.robots.calibration import Calibration  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from lingbot_world_ros.robots.urdf import RobotModel  # noqa: E402
from lingbot_world_ros.session.frame import Frame, frame_of  # noqa: E402
from lingbot_world_ros.session.session import Session  # noqa: E402
from lingbot_world_ros.session.spec import SessionSpec  # noqa: E402
from lingbot_world_ros.session.states import Mode, State  # noqa: E402
from lingbot_world_ros.session.status import SessionStatus  # noqa: E402
from lingbot_world_ros.settings.parameters import WORLD_MODEL  # noqa: E402
from lingbot_world_ros.worlds.definition import WorldDefinition  # noqa: E402
from lingbot_world_ros.worlds.floor_plan import floor_plan  # noqa: E402
from lingbot_world_ros.worlds.scenes import get_scene, Movable, Part, SCENES  # noqa: E402
from lingbot_world_ros.worlds.touch import touched  # noqa: E402
from nav_msgs.msg import OccupancyGrid  # noqa: E402
import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, Imu, PointCloud2  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402

ROOT = Path(__file__).parents[1]
ROBOT = load_robot()
HEIGHT_M = ROBOT.footprint.height_m
PERIOD_NS = 66_666_667
PERIOD_S = PERIOD_NS * 1e-9
SCENE_POSE = np.array([2.0, 1.5, 0.3])
STATUS = SessionStatus(State.PLAYING, Mode.STEPPED, 'office', 3, world='office', stamp_ns=0)
HELD_OUT = 9_000_000  # seeds from here on no weights were trained with
GYROSCOPE, ACCELEROMETER = 1e-3, 1e-2  # noise densities


class Office(FakeWorld):
    """A fake world that is said to keep to our scenes."""

    def __init__(self, know_truth=False):
        super().__init__(scenes=('office',))
        self.spec = replace(self.spec, can=Capabilities(
            render=True, keep_scenes=True, know_truth=know_truth))


def moving(index, pose, twist, start=SCENE_POSE, contact=0.0):
    """Return a frame of a base somewhere, with a picture that is easy to check."""
    v, u = np.mgrid[:24, :32]
    return Frame(
        index=index, stamp_ns=(index + 1) * PERIOD_NS,
        rgb=np.stack([u, v, u + v], -1).astype(np.uint8), depth_m=(1.0 + 0.1 * u).astype('f4'),
        start_pose=start, base_pose=np.array(pose, float), base_twist=np.array(twist, float),
        base_pose_cov=None, joint_position=np.zeros(5), joint_velocity=np.zeros(5),
        contact=contact, uncertainty=0.0, calibrated=True)


# Points.

SMALL = PinholeCamera(4, 3, 20.0, 25.0, 1.5, 1.0)


def cloud_of(msg):
    """Read a cloud by what its fields say: points (h, w, 3), colours (h, w, 3)."""
    data = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.row_step)
    data = data[:, :msg.width * msg.point_step].reshape(msg.height, msg.width, msg.point_step)
    offset = {field.name: field.offset for field in msg.fields}
    points = [data[..., offset[name]:offset[name] + 4].copy().view('<f4')[..., 0]
              for name in 'xyz']
    packed = data[..., offset['rgb']:offset['rgb'] + 4].copy().view('<u4')[..., 0]
    return np.stack(points, -1), np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255],
                                          -1)


def test_a_pixel_becomes_the_point_that_it_shows():
    """Pixel 3, 2 at 2 m: (3 - 1.5) / 20 * 2 right, (2 - 1) / 25 * 2 down."""
    depth, rgb = np.full((3, 4), 2.0, np.float32), np.zeros((3, 4, 3), np.uint8)
    rgb[2, 3] = 10, 20, 30
    msg = points_to_msg(DepthPoints(Calibration(SMALL)).points(depth), rgb, 7, 'optical')
    points, colours = cloud_of(msg)
    np.testing.assert_allclose(points[2, 3], [0.15, 0.08, 2.0], rtol=1e-6)
    assert colours[2, 3].tolist() == [10, 20, 30] and not colours[0].any()
    assert (msg.height, msg.width, msg.header.frame_id) == (3, 4, 'optical')
    assert msg.is_dense and not msg.is_bigendian and msg.header.stamp.nanosec == 7


def test_where_there_is_no_depth_a_point_is_nan_and_the_cloud_not_dense():
    depth, rgb = np.full((3, 4), 2.0, np.float32), np.zeros((3, 4, 3), np.uint8)
    maker = DepthPoints(Calibration(SMALL))
    first = points_to_msg(maker.points(depth), rgb, 7, 'optical')
    depth[0, :4] = 0.0, np.nan, np.inf, -1.0
    msg = points_to_msg(maker.points(depth), rgb, 8, 'optical', first)
    points, _ = cloud_of(msg)
    assert msg is first and not msg.is_dense
    assert np.isnan(points[0]).all() and np.isfinite(points[1:]).all()


def test_points_of_a_lens_are_where_its_pixels_look():
    camera = Calibration(PinholeCamera(32, 24, 20.0, 20.0, 15.5, 11.5), d=(-0.2, 0.05, 0, 0, 0))
    points = DepthPoints(camera).points(np.full((24, 32), 1.5, np.float32))
    np.testing.assert_allclose(camera.project(points.astype(float)), camera.camera.pixel_grid(),
                               atol=1e-3)


def points_in_scene(maker, seen):
    """Return the points of an observation's depth in the scene frame, (h * w, 3)."""
    points = maker.points(seen.depth_m[0, 0]).reshape(-1, 3).astype(float)
    T = se3.pose_from_se2(seen.base_pose[0, 0]) @ ROBOT.camera.T_base_optical
    return se3.transformed(T, points)


def off_surfaces_m(scene, seen, there):
    """
    Say how far points are from what they should be on, where the scene's geometry tells.

    Below and above is floor or ceiling, between them wall or furniture.

    :return: distances from walls and furniture (n,), and from the floor (m,), metres
    """
    objects = np.hypot(*(there[:, None, :2] - seen.object_pose[0, 0, :, :2]).T).min(0)
    robot = np.hypot(*(there[:, :2] - seen.base_pose[0, 0, :2]).T)
    clear = get_scene(scene).clearance_m(there[:, :2], 2.4)
    upright = (there[:, 2] > 0.05) & (there[:, 2] < 2.0) & (objects > 0.4) & (robot > 0.9)
    floor = (there[:, 2] < 0.03) & (robot > 0.9)
    return np.abs(clear[upright & (clear > -0.02)]), np.abs(there[floor, 2])


def test_points_of_the_reference_world_are_on_its_surfaces():
    need_engine('reference')
    world, maker, off_m = make_world('reference'), DepthPoints(Calibration(ROBOT.camera)), []
    for scene in SCENES:
        seen = world.reset(scene, 2)
        there = points_in_scene(maker, seen)
        upright_m, floor_m = off_surfaces_m(scene, seen, there)
        off_m.append(upright_m)
        clear = get_scene(scene).clearance_m(there[:, :2], 2.4)
        assert (there[:, 2] > -0.02).all() and (clear > -0.9).all()
        assert np.median(floor_m) < 0.005 and len(floor_m) > 100
    off_m = np.concatenate(off_m)
    assert len(off_m) > 2000 and np.median(off_m) < 0.02
    world.close()


@pytest.mark.slow
def test_points_of_the_embedded_world_are_off_by_no_more_than_docs_results_says():
    """
    Both engines draw the same states, which are those of the reference world.

    Held-out starts against the depth error after one frame; where the robot is 30 frames later,
    often at a wall, against that after 30, which errors of the state are part of.
    """
    for engine in ('reference', 'room'):
        need_engine(engine)
    stated = json.loads((ROOT / 'docs' / 'results.json').read_text())['methods']['imagined']
    worlds, maker = (make_world('reference'), make_world('room')), DepthPoints(
        Calibration(ROBOT.camera))
    truth, room = worlds
    relative, rms_m, upright_m, floor_m = {1: [], 30: []}, {1: [], 30: []}, [], []
    rng = np.random.default_rng(0)

    def look(scene, seen, frames):
        T = se3.pose_from_se2(seen.base_pose[0, 0]) @ ROBOT.camera.T_base_optical
        true, imagined = (points_in_scene(maker, world.render(Poses.of(seen))) for world in worlds)
        off = imagined - true
        # Both are on the ray of their pixel, so this is the relative error of its depth.
        relative[frames].append(np.mean(np.linalg.norm(off, axis=-1)
                                        / np.linalg.norm(true - T[:3, 3], axis=-1)))
        rms_m[frames].append(np.sqrt(np.mean(np.square(off @ T[:3, 2]))))
        for kept, found in zip((upright_m, floor_m), off_surfaces_m(scene, seen, imagined)):
            kept.append(found)

    for scene in SCENES:
        for seed in range(HELD_OUT, HELD_OUT + 8):
            room.reset(scene, seed, render=False)
            look(scene, truth.reset(scene, seed, render=False), 1)
            if seed % 2:
                continue
            action = rng.uniform((-0.2, -1.2, *[-0.5] * 4, -0.02), (0.5, 1.2, *[0.5] * 4, 0.02))
            for _ in range(30):
                seen = truth.step(action[None, None].astype(np.float32), render=False)
            look(scene, seen, 30)
    truth.close()
    for frames in (1, 30):
        for name, found in (('depth_relative', relative), ('depth_rms_m', rms_m)):
            limit = stated[name][str(frames)]['high']
            assert np.mean(found[frames]) <= limit, f'{name} after {frames} frames'
    assert np.median(np.concatenate(upright_m)) < 0.01
    assert np.median(np.concatenate(floor_m)) < 0.005


# The map.

@pytest.mark.parametrize('resolution_m', [0.05, 0.13])
@pytest.mark.parametrize('name', SCENES)
def test_walls_and_furniture_are_on_the_map_within_a_cell(name, resolution_m):
    scene = get_scene(name)
    plan = floor_plan(scene, HEIGHT_M, resolution_m)
    clear_m = scene.clearance_m(plan.centres_m(), HEIGHT_M)
    assert (clear_m[plan.occupied] < resolution_m).all()  # nothing is farther than a cell
    assert (clear_m[~plan.occupied] > 0.0).all()
    rng, (width_m, depth_m) = np.random.default_rng(0), scene.size_m
    xy = rng.uniform((0.0, 0.0), scene.size_m, (20000, 2))
    inside = xy[scene.clearance_m(xy, HEIGHT_M) < 0.0]
    walls = np.concatenate([[(x, y) for x in np.linspace(0, width_m, 400) for y in (0, depth_m)],
                            [(x, y) for y in np.linspace(0, depth_m, 400) for x in (0, width_m)]])
    for points in (inside, walls):  # whatever is solid is in a cell that is occupied
        column, row = ((points - plan.origin_m) / resolution_m).astype(int).T
        assert len(points) > 300 and plan.occupied[row, column].all()


def test_what_hangs_over_the_robot_is_not_on_the_map():
    """The lintel of the office's doorway is 2.05 m high."""
    plan = floor_plan(get_scene('office'), HEIGHT_M, 0.05)
    column, row = ((np.array([4.3, 2.5]) - plan.origin_m) / 0.05).astype(int)
    assert not plan.occupied[row, column]
    assert floor_plan(get_scene('office'), 2.1, 0.05).occupied[row, column]


def test_the_map_says_where_its_cells_are():
    plan = floor_plan(get_scene('workshop'), HEIGHT_M, 0.1)
    msg = map_to_msg(plan, 5, 'map')
    grid = np.array(msg.data).reshape(msg.info.height, msg.info.width)
    assert set(np.unique(grid)) == {0, 100} and msg.header.frame_id == 'map'
    assert msg.info.resolution == pytest.approx(0.1)
    origin = msg.info.origin.position
    column, row = ((np.array([3.3, 2.6]) - (origin.x, origin.y)) / 0.1).astype(int)
    assert grid[row, column] == 100 and grid[row, column + 5] == 0  # a pillar of 28 cm
    assert msg.info.origin.orientation.w == 1.0


# The IMU.

def test_a_steady_turn_pulls_to_the_side_and_a_start_forward():
    v, w = 0.6, 0.9
    pose = np.array([1.0, 1.0, 0.4])
    before = moving(1, pose, (v, 0.0, w))
    after = moving(2, se2.compose(pose, se2.exponential(np.array([v, 0, w]), PERIOD_S)), (v, 0, w))
    np.testing.assert_allclose(motion_mps2(after, before), [0.0, v * w], atol=2e-4)
    np.testing.assert_allclose(motion_mps2(after, None), [0.0, v * w])
    faster = moving(2, pose, (v + 0.1, 0.0, 0.0))
    straight = replace(before, base_twist=np.array([v, 0.0, 0.0]))
    np.testing.assert_allclose(motion_mps2(faster, straight), [0.1 / PERIOD_S, 0.0], atol=1e-9)


def test_noise_is_that_of_seed_and_frame_and_has_the_stated_spread():
    imu = PlanarImu(PERIOD_S, GYROSCOPE, ACCELEROMETER)
    msg = imu_to_msg(imu.read(moving(0, (0, 0, 0), (0, 0, 0)), None, 3), imu, 5, 'imu_link')
    readings = [imu.read(moving(i, (0, 0, 0), (0, 0, 0)), None, 3) for i in range(2000)]
    turn, force = (np.stack(values) for values in zip(*readings))
    for values, covariance, density in (
            (turn, msg.angular_velocity_covariance, GYROSCOPE),
            (force - [0, 0, GRAVITY_MPS2], msg.linear_acceleration_covariance, ACCELEROMETER)):
        std = np.sqrt(np.array(covariance).reshape(3, 3).diagonal())
        np.testing.assert_allclose(std, density / np.sqrt(PERIOD_S))
        np.testing.assert_allclose(values.std(0), std, rtol=0.06)
        assert (np.abs(values.mean(0)) < 4.0 * std / np.sqrt(len(values))).all()
    again = imu.read(moving(7, (0, 0, 0), (0, 0, 0)), None, 3)
    np.testing.assert_array_equal(again.linear_acceleration, force[7])
    other = imu.read(moving(7, (0, 0, 0), (0, 0, 0)), None, 4)
    assert (other.angular_velocity != turn[7]).all()
    assert msg.orientation_covariance[0] == -1.0
    quiet = PlanarImu(PERIOD_S, 0.0, 0.0)
    msg = imu_to_msg(quiet.read(moving(0, (0, 0, 0), (0, 0, 0)), None, 3), quiet, 5, 'b')
    assert 0.0 < msg.angular_velocity_covariance[0] < 1e-5  # zeros would read as unknown
    assert msg.linear_acceleration.z == GRAVITY_MPS2


def test_the_imu_of_the_reference_world_feels_its_motion_within_the_stated_noise():
    """What it felt, integrated, is how fast the base went; its turn rate is that of the base."""
    need_engine('reference')
    world, imu = make_world('reference'), PlanarImu(1 / 15, GYROSCOPE, ACCELEROMETER)
    seen, frames = world.reset('living_room', 1, render=False), []
    rng = np.random.default_rng(0)
    for index in range(90):
        frames.append(frame_of(seen, -1, index, (index + 1) * PERIOD_NS, SCENE_POSE))
        if index % 15 == 0:
            action = np.zeros((1, 1, len(world.spec.action.names)), np.float32)
            action[..., :2] = rng.uniform((-0.3, -1.2), (0.6, 1.2))
        seen = world.step(action, render=False)
    world.close()
    gyro, side = [], []
    velocity = se2.rotated(frames[0].base_twist[:2], frames[0].base_pose[2])  # in the scene
    for before, frame in zip(frames, frames[1:]):
        reading = imu.read(frame, before, 0)
        gyro.append(reading.angular_velocity[2] - frame.base_twist[2])
        mean_yaw = 0.5 * (before.base_pose[2] + frame.base_pose[2])
        velocity = velocity + se2.rotated(reading.linear_acceleration[:2], mean_yaw) * PERIOD_S
        side.append(velocity - se2.rotated(frame.base_twist[:2], frame.base_pose[2]))
    assert np.ptp([frame.base_pose[2] for frame in frames]) > 0.5
    assert np.std(gyro) == pytest.approx(imu.gyroscope_std_radps, rel=0.3)
    steps = np.diff(side, axis=0) / PERIOD_S  # the noise of one reading
    assert np.std(steps) == pytest.approx(imu.accelerometer_std_mps2, rel=0.3)


# The bumper.

BOX_ROOM = replace(get_scene('office'), size_m=(6.0, 4.0), movables=(
    Movable('box', 'box', (0.2, 0.1, 0.2), '', 1.0),), parts=(
    Part('cylinder', (0.3, 0.5), (3.0, 2.0, 0.5), ''),
    Part('box', (1.0, 1.0, 0.1), (3.0, 2.0, 2.0), '')))
FAR_OFF = (5.0, 3.0, 0.0)


@pytest.mark.parametrize('pose, box, bearings_deg', [
    ((0.3, 2.0, 0.0), FAR_OFF, [180]), ((0.3, 2.0, np.pi / 2), FAR_OFF, [90]),
    ((5.7, 0.29, 0.0), FAR_OFF, [-90, 0]),  # a corner, the nearest wall first
    ((3.0 - 0.6, 2.0, 0.5), FAR_OFF, [-np.rad2deg(0.5)]),  # a pillar; what hangs above is none
    ((2.0, 3.0, 0.0), (2.0, 3.0 - 0.5, np.pi / 2), [-90]),  # an end of a box
    ((2.0, 3.0, 0.0), (2.38, 3.34, 0.0), [np.rad2deg(np.arctan2(4, 3))]),  # its corner
    ((2.0, 3.0, 0.0), (2.05, 3.02, 0.0), [90]),  # as a state that is off may have it
    ((0.34, 2.0, 0.0), FAR_OFF, [180]),  # nearly there
    ((0.36, 2.0, 0.0), FAR_OFF, [])])  # where, nobody knows
def test_a_base_that_touches_something_does_so_where_it_is_near(pose, box, bearings_deg):
    found = touched(BOX_ROOM, np.array(pose), np.array([box]), 0.3, 1.3)
    assert len(found) == len(bearings_deg)
    off = np.remainder(found - np.deg2rad(bearings_deg) + np.pi, 2 * np.pi) - np.pi
    np.testing.assert_allclose(off, 0.0, atol=1e-6)


def contact_bearings(sim):
    """Return where MuJoCo has the base touch something, (k,) rad in base_link."""
    pairs = sim.data.contact.geom[:sim.data.ncon]
    x, y, yaw = sim.base_pose
    away = sim.data.contact.pos[:sim.data.ncon][(pairs == sim._base_geom).any(-1)] - [x, y, 0.0]
    return np.arctan2(away[:, 1], away[:, 0]) - yaw


def degrees_between(a, b):
    """Return all angles between two sets of bearings, (a, b) degrees."""
    return np.abs(np.rad2deg(np.remainder(a[:, None] - b + np.pi, 2 * np.pi) - np.pi))


def test_the_bumper_is_pressed_where_mujoco_has_contacts():
    """
    Of its own state always; of the embedded world's state as well as that is known.

    Both do the same for 6 s from held-out starts, so the imagined base may be somewhere else.
    """
    for engine in ('reference', 'room'):
        need_engine(engine)
    truth, room = make_world('reference'), make_world('room')
    footprint, missed, false, imagined = ROBOT.footprint, [], [], []
    for scene in SCENES:
        sim = truth._sim(scene)
        for seed in range(HELD_OUT, HELD_OUT + 6):
            rng = np.random.default_rng(seed)
            for world in (truth, room):
                world.reset(scene, seed, render=False)
            for index in range(90):
                if index % 15 == 0:
                    action = np.zeros((1, 1, 7), np.float32)
                    action[..., :2] = rng.choice([0.6, 0.4, -0.3]), rng.uniform(-0.6, 0.6)
                seen, dreamt = (world.step(action, render=False) for world in (truth, room))
                real = contact_bearings(sim)
                if not len(real):
                    continue
                own, other = (touched(get_scene(scene), state.base_pose[0, 0],
                                      state.object_pose[0, 0], footprint.radius_m,
                                      footprint.height_m) for state in (seen, dreamt))
                missed += degrees_between(real, own).min(1).tolist()
                false += degrees_between(own, real).min(1).tolist()
                if dreamt.contact[0, 0] >= 0.5:
                    imagined.append(degrees_between(other, real)[:1].min(initial=180.0))
    truth.close()
    assert len(missed) > 100 and max(missed) < 5.0
    assert np.mean(np.array(false) < 2.0) > 0.95
    assert len(imagined) > 100 and np.mean(np.array(imagined) < 10.0) > 0.75


# Over topics.

@pytest.fixture
def make_graph(open_graph):
    def start(*parameters, world=None):
        def nodes():
            node = rclpy.create_node('world_model')
            node.sensors = WorldPublishers(node, (world or Office()).spec,
                                           declare(node, WORLD_MODEL))
            return [node]
        graph = open_graph(nodes, [arg for text in parameters for arg in ('-p', text)])
        graph.sensors = graph.nodes[0].sensors
        return graph

    return start


def heard(graph, msg_type, topic, frames, latched=False):
    """Send frames until the last of them is heard, and return it."""
    messages = graph.listen(msg_type, topic, latched=latched)

    def arrived():
        graph.sensors.on_reset(STATUS)
        for frame in frames:
            graph.sensors.on_frame(frame)
        return [msg for msg in messages if not hasattr(msg, 'header')
                or stamp_to_ns(msg.header.stamp) == frames[-1].stamp_ns]
    return graph.wait_for(arrived, topic)[-1]


STILL = moving(1, SCENE_POSE, (0.0, 0.0, 0.0))


def test_contact_is_true_from_the_threshold_on(make_graph):
    graph = make_graph('contact_threshold:=0.7')
    for contact, is_touch in ((0.69, False), (0.7, True)):
        messages = graph.listen(Bool, 'contact')
        graph.wait_for(lambda: graph.sensors.on_frame(replace(STILL, contact=contact)) or
                       messages, 'contact')
        graph.wait_for(lambda: messages[-1].data == is_touch, str(contact))


def test_the_bumper_is_outside_the_footprint_where_the_base_touches_and_empty_when_free(
        make_graph):
    graph = make_graph('publish_bumper:=true', 'bumper_margin_m:=0.1', 'frame_prefix:=w/')
    radius_m, ahead = ROBOT.footprint.radius_m, np.array([7.0, 2.5, 0.3])
    there = replace(STILL, base_pose=ahead - [radius_m, 0.0, 0.0], contact=0.6,
                    object_pose=np.zeros((3, 3)))
    for frame, points in ((there, [[np.cos(-0.3), np.sin(-0.3)]]),
                          (replace(there, contact=0.4), np.zeros((0, 2))),
                          (replace(STILL, contact=0.9), np.zeros((0, 2)))):  # not near anything
        msg = heard(graph, PointCloud2, 'bumper', [frame])
        assert (msg.header.frame_id, msg.height, msg.width) == ('w/base_link', 1, len(points))
        assert [field.name for field in msg.fields] == ['x', 'y', 'z'] and msg.is_dense
        assert (msg.point_step, msg.row_step, len(msg.data)) == (12, *[12 * len(points)] * 2)
        xyz = np.frombuffer(msg.data, '<f4').reshape(-1, 3)
        np.testing.assert_allclose(xyz[:, :2], (radius_m + 0.1) * np.array(points), atol=1e-5)
        np.testing.assert_allclose(xyz[:, 2], ROBOT.footprint.base_height_m / 2)


@pytest.mark.parametrize('know_truth, name, other', [
    (True, 'ground_truth/pose', 'predicted/pose'), (False, 'predicted/pose', 'ground_truth/pose')])
def test_a_pose_in_the_scene_is_called_what_it_is(make_graph, know_truth, name, other):
    graph = make_graph(world=Office(know_truth))
    frame = replace(STILL, base_pose=np.array([2.5, 1.0, -0.4]),
                    base_pose_cov=None if know_truth else np.diag([0.04, 0.09, 0.01]))
    msg = heard(graph, PoseWithCovarianceStamped, name, [frame])
    assert f'/{other}' not in graph.sensors.topics and msg.header.frame_id == 'map'
    assert (msg.pose.pose.position.x, msg.pose.pose.position.y) == (2.5, 1.0)
    assert msg.pose.pose.orientation.z == pytest.approx(np.sin(-0.2))
    covariance = np.array(msg.pose.covariance).reshape(6, 6)[[0, 1, 5], [0, 1, 5]]
    np.testing.assert_allclose(covariance, [1e-6] * 3 if know_truth else [0.04, 0.09, 0.01],
                               atol=2e-6)


def test_points_are_those_of_the_published_depth_in_the_optical_frame(make_graph):
    graph = make_graph('image_width:=16', 'image_height:=12')
    msg = heard(graph, PointCloud2, 'camera/depth/points', [STILL])
    points, colours = cloud_of(msg)
    view = graph.sensors._view
    np.testing.assert_array_equal(points[..., 2], view.depth(STILL.depth_m))
    np.testing.assert_array_equal(colours, view.image(STILL.rgb))
    np.testing.assert_allclose(view.calibration.project(points.astype(float)),
                               view.calibration.camera.pixel_grid(), atol=1e-4)
    assert (msg.header.frame_id, msg.width, msg.height) == ('camera_optical_frame', 16, 12)


def test_the_imu_feels_a_start_but_neither_a_reset_nor_being_put_elsewhere(make_graph):
    graph = make_graph('imu_gyroscope_noise_density:=0.0', 'frames.imu:=imu_link',
                       'imu_accelerometer_noise_density:=0.0')
    x, y, _ = STILL.base_pose
    after = moving(2, (x + 0.02, y, 0.3), (0.3, 0.0, 0.5))
    msg = heard(graph, Imu, 'imu', [STILL, after])
    assert msg.header.frame_id == 'imu_link' and msg.orientation_covariance[0] == -1.0
    assert msg.angular_velocity.z == 0.5 and msg.linear_acceleration.z == GRAVITY_MPS2
    assert msg.linear_acceleration.x == pytest.approx(0.3 / PERIOD_S, rel=1e-3)
    elsewhere = replace(after, start_pose=SCENE_POSE + [1.0, 0.0, 0.0])
    for frames in ([STILL, elsewhere], [after]):  # its speed alone: 0.3 * 0.5 to the side
        force = heard(graph, Imu, 'imu', frames).linear_acceleration
        assert (force.x, force.y) == pytest.approx((0.0, 0.15))


def test_map_and_transforms_put_the_robot_where_the_scene_has_it(make_graph):
    graph = make_graph('publish_map:=true', 'publish_map_odom_tf:=true', 'map_resolution_m:=0.1',
                       'frame_prefix:=w/', 'frames.footprint:=base_footprint',
                       'frames.imu:=imu_link')
    pose = np.array([4.1, 2.2, 1.9])
    graph.sensors.on_reset(STATUS)
    maps = graph.listen(OccupancyGrid, 'map', latched=True)  # comes late
    graph.wait_for(lambda: maps, 'the map')
    assert maps[0].header.frame_id == 'w/map' and maps[0].info.width == 72
    links = heard(graph, TFMessage, '/tf', [replace(STILL, base_pose=pose)]).transforms
    static = heard(graph, TFMessage, '/tf_static', [STILL], latched=True).transforms
    T = {(link.header.frame_id, link.child_frame_id): transform_from_msg(link.transform)
         for link in (*links, *static)}
    np.testing.assert_allclose(T['w/map', 'w/odom'], se3.pose_from_se2(SCENE_POSE), atol=1e-12)
    np.testing.assert_allclose(T['w/map', 'w/odom'] @ T['w/odom', 'w/base_link'],
                               se3.pose_from_se2(pose), atol=1e-12)
    for name in ('w/base_footprint', 'w/imu_link'):
        np.testing.assert_array_equal(T['w/base_link', name], np.eye(4))
    children = [child for _, child in T]
    assert len(children) == len(set(children)) == 6  # a tree: each has one parent


def test_nothing_is_made_for_nobody(make_graph, monkeypatch):
    graph, calls = make_graph('publish_map_odom_tf:=true', 'publish_bumper:=true'), []

    def note(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **options: (
            calls.append(name), original(*args, **options))[1])
    for name in ('points_to_msg', 'DepthPoints', 'imu_to_msg', 'fact_to_msg', 'pose_to_msg',
                 'floor_plan', 'map_to_msg', 'touched', 'rim_to_msg'):
        note(world_publishers, name)
    note(graph.sensors._imu, 'read')
    graph.sensors.on_reset(STATUS)
    graph.sensors.on_frame(replace(STILL, contact=1.0))
    assert calls == [] and not graph.sensors.is_watched()
    assert not {'/map', '/ground_truth/pose'} & set(graph.sensors.topics)
    heard(graph, PointCloud2, 'camera/depth/points', [STILL])
    assert set(calls) == {'DepthPoints', 'points_to_msg'} and graph.sensors.is_watched()


@pytest.mark.parametrize('name', ['publish_map', 'publish_map_odom_tf', 'publish_bumper'])
def test_a_world_without_our_scenes_has_no_map(make_graph, name):
    with pytest.raises(SpecError, match=f"{name}: engine 'fake' has no floor plan.*false"):
        make_graph(f'{name}:=true', world=FakeWorld())


# The camera at the wrist.

class TwoEyes(Office):
    """A fake world with a second camera that is black."""

    def __init__(self):
        super().__init__()
        self.spec = replace(self.spec, robot=ROBOT, can=replace(self.spec.can, watch_wrist=True))
        self.told = []

    def watch_wrist(self, is_watched):
        self.told.append(is_watched)

    def step(self, actions, render=True):
        seen = super().step(actions, render)
        wrist = np.zeros((1, 1, 120, 160, 3), np.uint8) if self.told[-1:] == [True] else None
        return replace(seen, wrist_rgb=wrist)


def test_the_wrist_camera_sees_the_fingertip_where_the_urdf_has_it():
    need_engine('reference')
    world, model = make_world('reference'), RobotModel.from_description(ROBOT.description)
    world.reset('workshop', 0)
    world.watch_wrist(True)
    camera, still = ROBOT.cameras[1].camera, np.zeros((1, 1, 7), np.float32)
    rng, low, high = np.random.default_rng(1), ROBOT.joint_array('low'), ROBOT.joint_array('high')
    for _ in range(3):
        seen = world.step(still)
        joints = rng.uniform(low, high)
        world.observe(replace(seen, joint_position=joints[None, None]), render=False)
        seen = world.step(still)
        at = dict(zip(ROBOT.joint_names, seen.joint_position[0, 0]))
        T = (se3.inverse(model.link_pose('wrist_camera_optical_frame', at))
             @ model.link_pose('left_fingertip_link', at))
        u, v = camera.project(se3.transformed(T, np.array([-0.015, 0.0, 0.0])))
        image = seen.wrist_rgb[0, 0].astype(int)
        assert image[round(v), round(u)].max() < 60  # a finger is nearly black
        ahead = camera.project(se3.transformed(T, np.array([0.07, 0.0, 0.0])))
        assert image[tuple(np.round(ahead[::-1]).astype(int))].max() > 60  # and ends there
    world.close()


def test_the_second_camera_is_drawn_only_while_somebody_looks_and_has_its_own_frame(make_graph):
    world = TwoEyes()
    graph = make_graph('publish_wrist_camera:=true', 'frame_prefix:=w/', world=world)
    session = Session(world, SessionSpec(mode='stepped'), observers=[graph.sensors],
                      log=logging.getLogger('test'),
                      is_wrist_watched=graph.sensors.is_wrist_watched)
    try:
        session.start(WorldDefinition('office', 'office')).result(PATIENCE_S)
        session.advance(2).result(PATIENCE_S)
        assert world.told == []
        images = graph.listen(Image, 'wrist_camera/image_raw')
        infos = graph.listen(CameraInfo, 'wrist_camera/camera_info')
        graph.wait_for(lambda: session.advance(1).result(PATIENCE_S) and images and infos,
                       'an image')
        assert world.told == [True]
        assert images[-1].header.frame_id == 'w/wrist_camera_optical_frame'
        assert infos[-1].k[0] == pytest.approx(ROBOT.cameras[1].camera.fx_px)
        assert (images[-1].width, images[-1].height) == (infos[-1].width, infos[-1].height)
    finally:
        session.close()


def test_an_engine_with_one_camera_says_so_in_a_sentence(make_graph):
    with pytest.raises(SpecError, match="engine 'fake' draws one camera, the first of its robot"):
        make_graph('publish_wrist_camera:=true')


def test_names_of_the_base_frame_may_be_left_out_but_not_shared():
    assert FrameNames().prefixed('w/').imu == ''
    for changes in ({'imu': 'base_link'}, {'footprint': '/foot'}, {'map': ''}):
        with pytest.raises(SpecError, match='different names'):
            FrameNames(**changes)
