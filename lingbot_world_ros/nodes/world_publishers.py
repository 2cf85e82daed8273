# SPDX-License-Identifier: Apache-2.0
"""
Every topic a world publishes, fed by its session from the worker thread.

Nothing is encoded for a topic nobody subscribes to. Messages are kept and filled again: the
middleware has its own copy once ``publish`` returns. What other threads publish too (clock,
status, diagnostics) is a new message each time.
"""
from threading import Lock
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional, Sequence, Set

from lingbot_world_ros.engines.interface import WorldSpec
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.geometry.depth_scan import DepthScan
from lingbot_world_ros.messages.camera_info import camera_info_to_msg, uncalibrated_to_msg
from lingbot_world_ros.messages.frames import base_tf_to_msg, FrameNames, static_tf_to_msg
from lingbot_world_ros.messages.image import compressed_to_msg, depth_to_msg, image_to_msg
from lingbot_world_ros.messages.imu import imu_to_msg, PlanarImu
from lingbot_world_ros.messages.map import map_to_msg
from lingbot_world_ros.messages.points import DepthPoints, points_to_msg, rim_to_msg
from lingbot_world_ros.messages.scan import scan_to_msg
from lingbot_world_ros.messages.standard import fact_to_msg, number_to_msg, text_to_msg
from lingbot_world_ros.messages.state import (clock_to_msg, covariance_in_odom, EXACT_VARIANCE,
                                              joint_state_to_msg, odometry_to_msg, pose_to_msg,
                                              TWIST_VARIANCE)
from lingbot_world_ros.messages.trail import Trail
from lingbot_world_ros.messages.view import make_view
from lingbot_world_ros.messages.world import (diagnostics_to_msg, world_spec_to_msg,
                                              world_status_to_msg)
from lingbot_world_ros.msg import WorldSpec as WorldSpecMsg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.world_topics import OF_A_FRAME, OF_A_PICTURE, world_topics
from lingbot_world_ros.robots.calibration import Calibration
from lingbot_world_ros.robots.urdf import read_description, RobotModel
from lingbot_world_ros.session.frame import Frame
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.status import SessionStatus
from lingbot_world_ros.worlds.floor_plan import floor_plan, resampled
from lingbot_world_ros.worlds.scenes import get_scene
from lingbot_world_ros.worlds.touch import touched
import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile


class WorldPublishers(SessionObserver):
    """Publish frames, states and status of one world, from ``__init__`` to ``destroy``."""

    def __init__(self, node: Node, spec: WorldSpec, params: SimpleNamespace,
                 only: Sequence[str] = ()):
        """
        Create the publishers.

        :param node: rclpy node that owns them
        :param spec: of the engine
        :param params: values of ``settings.parameters.WORLD_MODEL``
        :param only: keys of topics, as in ``settings.parameters.TOPICS``; none is all
        :raises SpecError: a name, file or number among the parameters cannot be used
        """
        self._node, self._spec, self._params = node, spec, params
        self._frames = FrameNames(**vars(params.frames)).prefixed(params.frame_prefix)
        self._trail = Trail(self._frames)
        self._view = make_view(spec.camera, camera_info_url=params.camera_info_url,
                               field_of_view_deg=params.field_of_view_deg,
                               image_width=params.image_width, image_height=params.image_height)
        is_known = spec.has_calibration or params.camera_info_url or params.field_of_view_deg
        self._camera_info_to_msg = camera_info_to_msg if is_known else uncalibrated_to_msg
        self._scan: Optional[DepthScan] = None
        if spec.has_depth and params.publish_scan:
            self._scan = DepthScan(
                spec.camera, min_height_m=params.scan_min_height_m,
                max_height_m=params.scan_max_height_m, min_range_m=spec.robot.footprint.radius_m,
                max_range_m=params.scan_max_range_m)
        self._points: Optional[DepthPoints] = None  # once somebody wants them
        self._description = _robot_description(params.robot_description, spec)
        self._messages: Dict[str, Any] = {}
        self._publishers: Dict[str, Publisher] = {}
        self._lock = Lock()  # guards the four below and _messages
        self._frame: Optional[Frame] = None  # newest
        self._seed, self._scene = 0, ''  # of the world
        self._before: Optional[Frame] = None  # the one before it, if the base moved on from there
        self._due: Set[str] = set()  # what of it did not leave yet
        self._status: Optional[SessionStatus] = None  # the newest that was told
        try:
            for key, msg_type, topic, profile in world_topics(spec, params,
                                                              bool(self._description)):
                if not only or key in only:
                    self._add(key, msg_type, topic, profile)
        except BaseException:
            self.destroy()
            raise
        if 'imu' in self._publishers:
            self._imu = PlanarImu(1.0 / spec.frame_rate_hz, params.imu_gyroscope_noise_density,
                                  params.imu_accelerometer_noise_density)
        if 'wrist_image' in self._publishers:
            second = spec.robot.cameras[1]
            self._wrist = Calibration(second.camera)
            self._wrist_frame = params.frame_prefix + _optical(self._description, second.link)
        if 'robot_description' in self._publishers:
            self._publishers['robot_description'].publish(
                text_to_msg(self._description))

    def destroy(self) -> None:
        """Take the topics away; a session must not come here any more."""
        publishers, self._publishers = self._publishers, {}
        for publisher in publishers.values():
            self._node.destroy_publisher(publisher)

    @property
    def topics(self) -> List[str]:
        """Names of all published topics, remapped."""
        return [publisher.topic_name for publisher in self._publishers.values()]

    def world_spec(self, status: SessionStatus) -> WorldSpecMsg:
        """Describe the world as ``world_spec`` does after a reset."""
        return world_spec_to_msg(self._spec, status, self._frames.base)

    def on_reset(self, status: SessionStatus) -> None:
        """Describe the world anew for everybody, late joiners included."""
        with self._lock:
            self._frame = self._before = None  # the base is somewhere else now
        self._seed, self._scene = status.seed, status.scene
        self._trail.clear()
        self.on_mode(status)
        if 'map' in self._publishers:
            plan = (resampled(self._spec.floor_plan, self._params.map_resolution_m)
                    if self._spec.floor_plan is not None else
                    floor_plan(get_scene(status.scene), self._spec.robot.footprint.height_m,
                               self._params.map_resolution_m))
            self._publishers['map'].publish(map_to_msg(plan, status.stamp_ns, self._frames.map))
        if 'tf_static' in self._publishers:
            link = self._params.camera_link
            self._publishers['tf_static'].publish(static_tf_to_msg(
                self._spec.camera, status.stamp_ns, self._frames,
                self._params.frame_prefix + link if link else ''))

    def on_mode(self, status: SessionStatus) -> None:
        """Describe the world anew: in another mode commands age differently."""
        if 'spec' in self._publishers:
            self._publishers['spec'].publish(self.world_spec(status))

    def on_frame(self, frame: Frame) -> None:
        """Publish one frame: where the robot is and what it sees."""
        with self._lock:
            if self._frame is None or self._frame.index != frame.index:
                self._before = self._frame
            self._frame, self._due = frame, set(OF_A_FRAME)
            pose_odom = self._publish_frame(frame)
            self._trail.note_origin(frame.start_pose, pose_odom)
            self._trail.add(pose_odom, frame.stamp_ns)
            if self._is_wanted('path') and self._trail.is_due(frame.stamp_ns):
                self._publishers['path'].publish(self._trail.take(frame.stamp_ns))

    def on_drawn(self, frame: Frame) -> None:
        """Publish the picture of the newest frame."""
        with self._lock:
            self._frame = frame
            self._publish_frame(frame)

    def on_standstill(self) -> None:
        """
        Publish what of the newest frame nobody has that listens now.

        Called every now and then by another thread while time stands still, or who joins then
        would see nothing. Nobody is told the same frame twice.
        """
        with self._lock:
            if self._frame is None:
                return
            self._due |= {key for key in (*OF_A_FRAME, 'path') if key in self._publishers
                          and not self._publishers[key].get_subscription_count()}
            if any(map(self._is_wanted, list(self._due))):
                self._publish_frame(self._frame)
            if 'path' in self._due:
                self._publish('path', lambda stamp_ns, out: self._trail.take(stamp_ns),
                              self._frame.stamp_ns)

    def _publish_frame(self, frame: Frame) -> np.ndarray:
        """Publish what of a frame is wanted, and return where the robot is in odom, (3,)."""
        stamp_ns = frame.stamp_ns
        pose_odom = se2.relative(frame.start_pose, frame.base_pose)
        self._publish('tf', base_tf_to_msg, pose_odom, stamp_ns, self._frames,
                      frame.start_pose if self._params.publish_map_odom_tf else None)
        self._publish_image(frame.rgb, stamp_ns)
        self._publish_wrist(frame)
        if frame.depth_m is not None:
            self._publish_depth(frame.depth_m, frame.joint_position, stamp_ns)
            if frame.rgb is not None and self._is_wanted('points'):
                self._publish_points(frame.depth_m, frame.rgb, stamp_ns)
        self._publish('joint_states', joint_state_to_msg, self._spec.robot.joint_names,
                      frame.joint_position, frame.joint_velocity, stamp_ns)
        if self._is_wanted('odom'):
            exact = frame.base_pose_cov is None
            self._publish('odom', odometry_to_msg, pose_odom, frame.base_twist,
                          covariance_in_odom(frame.start_pose[2], frame.base_pose_cov),
                          EXACT_VARIANCE if exact else TWIST_VARIANCE, stamp_ns, self._frames)
        if self._is_wanted('contact'):
            self._publish('contact', fact_to_msg, frame.contact >= self._params.contact_threshold)
        if self._is_wanted('bumper'):
            self._publish_bumper(frame)
        for key in ('ground_truth_pose', 'predicted_pose'):
            if self._is_wanted(key):
                self._publish(key, pose_to_msg, frame.base_pose,
                              covariance_in_odom(0.0, frame.base_pose_cov), stamp_ns,
                              self._frames.map)
        if self._is_wanted('imu'):
            reading = self._imu.read(frame, self._last_of_motion(frame), self._seed)
            self._publish('imu', imu_to_msg, reading,
                          self._imu, stamp_ns, self._frames.imu or self._frames.base)
        return pose_odom

    def _last_of_motion(self, frame: Frame) -> Optional[Frame]:
        """Return the frame before, unless the base was put elsewhere since: odom went along."""
        before = self._before
        moved_on = before is not None and np.array_equal(before.start_pose, frame.start_pose)
        return before if moved_on else None

    def on_clock(self, stamp_ns: int) -> None:
        """Publish sim time; also called by the thread that ticks between frames."""
        self.publish_clock(stamp_ns)

    def publish_clock(self, stamp_ns: int) -> None:
        """Publish sim time with a message of its own: safe from any thread."""
        publisher = self._publishers.get('clock')
        if publisher is not None and publisher.get_subscription_count():
            publisher.publish(clock_to_msg(stamp_ns))

    def on_status(self, status: SessionStatus) -> None:
        """Publish how the world is doing."""
        with self._lock:
            self._status = status
            self._publish_status()
        self._publish('real_time_factor', number_to_msg, status.real_time_factor)

    def repeat_status(self) -> None:
        """
        Publish the newest status once more, of a world that stands still; from any thread.

        Never one that is older than the last: who counts steps would take that for a reset.
        """
        with self._lock:
            self._publish_status()

    def _publish_status(self) -> None:
        if self._status is not None and self._is_wanted('status'):
            self._publishers['status'].publish(world_status_to_msg(self._status))

    def publish_diagnostics(self, status: SessionStatus) -> None:
        """Publish the entry for operators; called by a timer, not by the worker."""
        if self._is_wanted('diagnostics'):
            name = self._node.get_fully_qualified_name().lstrip('/')
            self._publishers['diagnostics'].publish(diagnostics_to_msg(
                status, self._spec, self._params.speed, name))

    def _add(self, key: str, msg_type: Any, topic: str, profile: QoSProfile) -> None:
        name = qos.topic_name(self._node, topic)
        for taken, publisher in self._publishers.items():
            if publisher.topic_name == name:
                raise SpecError(f'topics.{taken} and topics.{key} are both {name}; give each '
                                'its own name.')
        self._publishers[key] = qos.publisher(self._node, msg_type, topic, profile)

    def _publish_wrist(self, frame: Frame) -> None:
        if 'wrist_camera_info' not in self._publishers:
            return
        self._publish('wrist_camera_info', camera_info_to_msg, self._wrist, frame.stamp_ns,
                      self._wrist_frame)
        if frame.wrist_rgb is not None:
            self._publish('wrist_image', image_to_msg, frame.wrist_rgb, frame.stamp_ns,
                          self._wrist_frame)

    def _publish_image(self, rgb: Optional[np.ndarray], stamp_ns: int) -> None:
        self._publish('camera_info', self._camera_info_to_msg, self._view.calibration, stamp_ns,
                      self._frames.optical)
        if rgb is not None and (self._is_wanted('image') or self._is_wanted('compressed')):
            rgb = self._view.image(rgb)
            self._publish('image', image_to_msg, rgb, stamp_ns, self._frames.optical)
            self._publish('compressed', compressed_to_msg, rgb, stamp_ns, self._frames.optical,
                          self._params.jpeg_quality)

    def _publish_depth(self, depth_m: np.ndarray, joint_position: np.ndarray,
                       stamp_ns: int) -> None:
        self._publish('depth_camera_info', camera_info_to_msg, self._view.calibration, stamp_ns,
                      self._frames.optical)
        if self._is_wanted('depth'):
            self._publish('depth', depth_to_msg, self._view.depth(depth_m), stamp_ns,
                          self._frames.optical)
        if self._scan is not None and self._is_wanted('scan'):
            arm = self._spec.robot.arm
            arm_m = None if arm is None else arm.links(joint_position)
            self._publish('scan', scan_to_msg, self._scan, self._scan.ranges(depth_m, arm_m),
                          1.0 / self._spec.frame_rate_hz, stamp_ns, self._frames.base)

    def _publish_points(self, depth_m: np.ndarray, rgb: np.ndarray, stamp_ns: int) -> None:
        if self._points is None:
            self._points = DepthPoints(self._view.calibration)
        self._publish('points', points_to_msg, self._points.points(self._view.depth(depth_m)),
                      self._view.image(rgb), stamp_ns, self._frames.optical)

    def _publish_bumper(self, frame: Frame) -> None:
        """Publish where the base touches something; nowhere while it is said to be free."""
        body, bearings_rad = self._spec.robot.footprint, np.zeros(0)
        if frame.contact >= self._params.contact_threshold and frame.object_pose is not None:
            bearings_rad = touched(get_scene(self._scene), frame.base_pose, frame.object_pose,
                                   body.radius_m, body.height_m)
        self._publish('bumper', rim_to_msg, bearings_rad,
                      body.radius_m + self._params.bumper_margin_m, 0.5 * body.base_height_m,
                      frame.stamp_ns, self._frames.base)

    def seen(self, rgb: np.ndarray) -> np.ndarray:
        """Return an image of the engine as it is published, (h, w, 3) uint8."""
        return self._view.image(rgb)

    def is_watched(self) -> bool:
        """Return whether somebody looks at what takes rendering."""
        return any(key in self._publishers and self._publishers[key].get_subscription_count()
                   for key in OF_A_PICTURE)

    def is_wrist_watched(self) -> bool:
        """Return whether somebody looks through the second camera."""
        publisher = self._publishers.get('wrist_image')
        return publisher is not None and publisher.get_subscription_count() > 0

    def _is_wanted(self, key: str) -> bool:
        if key in OF_A_FRAME and key not in self._due:
            return False
        return key in self._publishers and self._publishers[key].get_subscription_count() > 0

    def _publish(self, key: str, to_msg: Callable[..., Any], *values: Any) -> None:
        if self._is_wanted(key):
            self._messages[key] = to_msg(*values, out=self._messages.get(key))
            self._publishers[key].publish(self._messages[key])
            self._due.discard(key)


def _robot_description(given: str, spec: WorldSpec) -> str:
    """
    Find the URDF to publish.

    :param given: the parameter robot_description; '' for the engine's robot
    :param spec: of the engine
    :return: XML, '' where there is none
    :raises SpecError: the file cannot be read
    """
    if given:
        return read_description(given)
    return spec.robot.description


def _optical(description: str, link: str) -> str:
    """
    Name the frame of a camera's images.

    :param description: URDF
    :param link: that carries the camera
    :return: its optical frame
    :raises SpecError: the URDF has none
    """
    _, optical = RobotModel.from_description(description).camera_links(link)
    if not optical:
        raise SpecError(f'publish_wrist_camera: link {link!r} of robot_description has no child '
                        'whose name ends in optical_frame, which the images need; add one.')
    return optical
