# SPDX-License-Identifier: Apache-2.0
"""CameraInfo and TF, as they arrive over ROS, put known 3-D points onto the right pixels."""
from needs import need_engine
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
need_engine('reference')

from lingbot_world_ros.messages.encodings import depth_from_msg  # noqa: E402, I100
from lingbot_world_ros.messages.frames import transform_from_msg  # noqa: E402
from lingbot_world_ros.messages.stamps import stamp_to_ns  # noqa: E402
from lingbot_world_ros.nodes.world_model import WorldModelNode  # noqa: E402, I100
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
import numpy as np  # noqa: E402
from projection import project  # noqa: E402
from ros_domain import Domain  # noqa: E402
from ros_graph import Graph  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, JointState  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402

ROBOT = load_robot()

SEED = 3  # a start where the arm is raised and no part of it hides another
SURFACE_M = 0.04  # a point inside a link is at most this far behind what is seen of it


@pytest.fixture(scope='module')
def seen():
    """One frame of the reference world: camera_info, depth, joints, camera pose."""
    with Domain() as domain, Graph(lambda: [WorldModelNode()], domain,
                                   ('-p', 'engine:=reference', '-p', 'initial_state:=paused',
                                    '-p', 'scene:=office', '-p', f'seed:={SEED}')) as graph:
        node = graph.nodes[0]
        info, depth = graph.listen(CameraInfo, 'camera/camera_info'), graph.listen(
            Image, 'camera/depth/image_rect_raw')
        joints = graph.listen(JointState, 'joint_states')
        static = graph.listen(TFMessage, '/tf_static', latched=True)
        graph.wait_for(lambda: static, 'transforms')

        def arrived():
            node.session.advance(1).result(PATIENCE_S)
            return info and depth and joints
        graph.wait_for(arrived, 'a frame')
        graph.wait_for(lambda: stamp_to_ns(joints[-1].header.stamp)
                       == stamp_to_ns(depth[-1].header.stamp), 'one frame of both')
        T_base_link, T_link_optical = (transform_from_msg(t.transform)
                                       for t in static[0].transforms)
        q = np.array(joints[-1].position)
        return info[-1], depth_from_msg(depth[-1]), q, T_base_link @ T_link_optical


def in_camera(points_base, T_base_optical):
    return (points_base - T_base_optical[:3, 3]) @ T_base_optical[:3, :3]


def test_arm_points_project_onto_the_arm(seen):
    """The arm is a thin thing in front of a far room: depth says whether a pixel is on it."""
    info, depth, q, T_base_optical = seen
    points = in_camera(ROBOT.arm.points(q), T_base_optical)
    pixels = np.round(project(info, points)).astype(int)
    inside = [(u, v, z) for (u, v), z in zip(pixels, points[:, 2])
              if 0 <= u < info.width and 0 <= v < info.height]
    assert len(inside) >= 6  # the shoulder is below the image
    for u, v, z in inside:
        assert z - SURFACE_M < depth[v, u] < z + 0.005


def test_points_beside_the_arm_do_not(seen):
    """The same check fails for a camera that is off by a few pixels, so it can fail."""
    info, depth, q, T_base_optical = seen
    tips = ROBOT.arm.points(q)[[5, 7]]
    misses = 0
    for side in (-0.1, 0.1):
        points = in_camera(tips + [0.0, side, 0.0], T_base_optical)
        for (u, v), point in zip(np.round(project(info, points)).astype(int), points):
            misses += not point[2] - SURFACE_M < depth[v, u] < point[2] + 0.005
    assert misses == 4


def test_floor_in_front_of_the_robot_has_the_depth_that_geometry_says(seen):
    """A ray through the lowest image row meets the floor (or the robot before it) in base_link."""
    info, depth, _, T_base_optical = seen
    k = np.array(info.k).reshape(3, 3)
    v, u = np.mgrid[:info.height, :info.width]
    rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], -1)
    height_m = (rays * depth[..., None]) @ T_base_optical[2, :3] + T_base_optical[2, 3]
    assert height_m.min() > -0.02  # nothing below the floor
    assert (np.abs(height_m) < 0.01).mean() > 0.1  # and a good part of the image is on it
