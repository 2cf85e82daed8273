# SPDX-License-Identifier: Apache-2.0
"""Which topics a world publishes: key, type, name and quality of service of each."""
from types import SimpleNamespace
from typing import Any, Iterator, Tuple

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from lingbot_world_ros.engines.interface import WorldSpec
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.msg import WorldSpec as WorldSpecMsg, WorldStatus as WorldStatusMsg
from lingbot_world_ros.nodes import qos
from nav_msgs.msg import OccupancyGrid, Odometry, Path
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import (CameraInfo, CompressedImage, Image, Imu, JointState, LaserScan,
                             PointCloud2)
from std_msgs.msg import Bool, Float32, String
from tf2_msgs.msg import TFMessage

OF_A_FRAME = ('tf', 'image', 'camera_info', 'compressed', 'depth', 'depth_camera_info', 'points',
              'scan', 'wrist_image', 'wrist_camera_info', 'joint_states', 'odom', 'contact',
              'bumper', 'imu', 'ground_truth_pose', 'predicted_pose')
OF_A_PICTURE = ('image', 'compressed', 'depth', 'points', 'scan')


def world_topics(spec: WorldSpec, params: SimpleNamespace,
                 has_description: bool) -> Iterator[Tuple[str, Any, str, QoSProfile]]:
    """
    Say what there is to publish.

    :param spec: of the engine
    :param params: values of ``settings.parameters.WORLD_MODEL``
    :param has_description: whether there is a URDF
    :return: key, type, name and quality of service of each topic
    :raises SpecError: a topic is asked for that this engine cannot fill
    """
    _check_scenes(spec, params)
    names = params.topics
    images = qos.image_qos(params.image_reliability, params.image_queue_depth)
    yield 'image', Image, names.image, images
    yield 'camera_info', CameraInfo, names.camera_info, images
    yield 'compressed', CompressedImage, names.compressed, images
    if spec.has_depth:
        yield 'depth', Image, names.depth, images
        folder, slash, _ = names.depth.rpartition('/')
        beside = f'{folder}{slash}camera_info'
        if beside != names.camera_info:  # else the two images share it: it is the same
            yield 'depth_camera_info', CameraInfo, beside, images
        yield 'points', PointCloud2, names.points, images
    if spec.has_depth and params.publish_scan:
        yield 'scan', LaserScan, names.scan, qos.STATE
    if spec.joints or spec.knows_base:
        yield 'joint_states', JointState, names.joint_states, qos.STATE
    if spec.knows_base:
        yield 'odom', Odometry, names.odom, qos.STATE
    if params.publish_wrist_camera:
        yield 'wrist_image', Image, names.wrist_image, images
        yield 'wrist_camera_info', CameraInfo, names.wrist_camera_info, images
    if spec.knows_base:
        yield 'path', Path, names.path, qos.STATE
        yield 'imu', Imu, names.imu, qos.STATE
    if 'contact' in spec.predicted_states:
        yield 'contact', Bool, names.contact, qos.STATE
    if params.publish_bumper:
        yield 'bumper', PointCloud2, names.bumper, qos.STATE
    if spec.can.know_truth:
        yield ('ground_truth_pose', PoseWithCovarianceStamped, names.ground_truth_pose,
               qos.STATE)
    elif 'base' in spec.predicted_states:
        yield 'predicted_pose', PoseWithCovarianceStamped, names.predicted_pose, qos.STATE
    if params.publish_map:
        yield 'map', OccupancyGrid, names.map, qos.LATCHED
    yield 'spec', WorldSpecMsg, 'world_spec', qos.LATCHED
    yield 'status', WorldStatusMsg, 'world_status', qos.STATE
    yield 'real_time_factor', Float32, names.real_time_factor, qos.STATE
    yield 'diagnostics', DiagnosticArray, names.diagnostics, qos.STATE
    if has_description:
        yield 'robot_description', String, names.robot_description, qos.LATCHED
    if params.publish_tf and spec.knows_base:
        yield 'tf', TFMessage, names.tf, qos.TF
        yield 'tf_static', TFMessage, names.tf_static, qos.LATCHED
    if params.publish_clock:
        yield 'clock', Clock, names.clock, qos.NEWEST


def _check_scenes(spec: WorldSpec, params: SimpleNamespace) -> None:
    """Refuse what takes the geometry of our scenes, or a second camera, where there is none."""
    for name in ('publish_map', 'publish_map_odom_tf', 'publish_bumper'):
        has_plan = spec.can.keep_scenes or (spec.floor_plan is not None
                                            and name != 'publish_bumper')
        if getattr(params, name) and spec.floor_plan is not None and not has_plan:
            raise SpecError(f'{name}: engine {spec.engine!r} knows the floor plan of its world, '
                            'but no shapes to touch; leave it false.')
        if getattr(params, name) and not has_plan:
            raise SpecError(f'{name}: engine {spec.engine!r} has no floor plan of its worlds; '
                            'leave it false.')
    if params.publish_wrist_camera and not spec.can.watch_wrist:
        raise SpecError(f'publish_wrist_camera: engine {spec.engine!r} draws one camera, the '
                        'first of its robot; leave it false, or take an engine that simulates.')
