# SPDX-License-Identifier: Apache-2.0
"""
Every topic a world publishes, fed by its session from the worker thread.

Nothing is encoded for a topic nobody subscribes to. Messages are kept and filled again: the
middleware has its own copy once ``publish`` returns, and only the worker thread comes here.
"""
from diagnostic_msgs.msg import DiagnosticArray
from lingbot_world_ros.msg import WorldSpec as WorldSpecMsg, WorldStatus as WorldStatusMsg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.sensors.camera_info import camera_info_to_msg
from lingbot_world_ros.sensors.frames import (base_tf_to_msg, FrameNames, pose_since,
                                              static_tf_to_msg)
from lingbot_world_ros.sensors.image import compressed_to_msg, depth_to_msg, image_to_msg
from lingbot_world_ros.sensors.state import (clock_to_msg, covariance_in_odom, EXACT_VARIANCE,
                                             joint_state_to_msg, odometry_to_msg, TWIST_VARIANCE)
from lingbot_world_ros.sensors.world import (diagnostics_to_msg, world_spec_to_msg,
                                             world_status_to_msg)
from lingbot_world_ros.worlds.session import Frame, SessionObserver, SessionStatus
from lingbot_world_ros.worlds.world_model import WorldSpec
from nav_msgs.msg import Odometry
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from tf2_msgs.msg import TFMessage


class WorldPublishers(SessionObserver):
    """Publish frames, states and status of one world."""

    def __init__(self, node, spec: WorldSpec, params):
        """
        Create the publishers.

        :param node: rclpy node that owns them
        :param spec: of the engine
        :param params: values of ``params.WORLD_MODEL``
        """
        self._spec, self._params, self._node_name = spec, params, node.get_name()
        self._frames = FrameNames(params.frame_prefix)
        image_qos = qos.image_qos(params.image_reliability, params.image_queue_depth)
        topics = [
            ('image', Image, 'camera/image_raw', image_qos),
            ('camera_info', CameraInfo, 'camera/camera_info', image_qos),
            ('compressed', CompressedImage, 'camera/image_raw/compressed', image_qos),
            ('joint_states', JointState, 'joint_states', qos.STATE),
            ('odom', Odometry, 'odom', qos.STATE),
            ('spec', WorldSpecMsg, 'world_spec', qos.LATCHED),
            ('status', WorldStatusMsg, 'world_status', qos.STATE),
            ('diagnostics', DiagnosticArray, '/diagnostics', qos.STATE)]
        if spec.has_depth:
            topics.append(('depth', Image, 'camera/depth/image_rect_raw', image_qos))
        if params.publish_tf:
            topics += [('tf', TFMessage, '/tf', qos.TF),
                       ('tf_static', TFMessage, '/tf_static', qos.LATCHED)]
        if params.publish_clock:
            topics.append(('clock', Clock, '/clock', qos.NEWEST))
        self._publishers = {key: node.create_publisher(*rest) for key, *rest in topics}
        self._messages = {}

    @property
    def topics(self) -> list:
        """Names of all published topics, remapped."""
        return [publisher.topic_name for publisher in self._publishers.values()]

    def on_reset(self, status: SessionStatus) -> None:
        """Describe the world anew for everybody, late joiners included."""
        self._publishers['spec'].publish(world_spec_to_msg(
            self._spec, status.scene, status.seed, status.stamp_ns, self._frames.base))
        if 'tf_static' in self._publishers:
            self._publishers['tf_static'].publish(static_tf_to_msg(
                self._spec.camera, status.stamp_ns, self._frames))

    def on_frame(self, frame: Frame) -> None:
        """Publish one frame: where the robot is, what it sees, and last the time."""
        stamp_ns, optical = frame.stamp_ns, self._frames.optical
        pose_odom = pose_since(frame.start_pose, frame.base_pose)
        self._publish('tf', base_tf_to_msg, pose_odom, stamp_ns, self._frames)
        self._publish('camera_info', camera_info_to_msg, self._spec.camera, stamp_ns, optical)
        self._publish('image', image_to_msg, frame.rgb, stamp_ns, optical)
        self._publish('compressed', compressed_to_msg, frame.rgb, stamp_ns, optical,
                      self._params.jpeg_quality)
        if frame.depth_m is not None:
            self._publish('depth', depth_to_msg, frame.depth_m, stamp_ns, optical)
        self._publish('joint_states', joint_state_to_msg, self._spec.robot.joint_names,
                      frame.joint_position, frame.joint_velocity, stamp_ns)
        exact = frame.base_pose_cov is None
        self._publish('odom', odometry_to_msg, pose_odom, frame.base_twist,
                      covariance_in_odom(frame.start_pose[2], frame.base_pose_cov),
                      EXACT_VARIANCE if exact else TWIST_VARIANCE, stamp_ns, self._frames)
        self._publish('clock', clock_to_msg, stamp_ns)

    def on_status(self, status: SessionStatus) -> None:
        """Publish how the world is doing."""
        self._publish('status', world_status_to_msg, status)

    def repeat_status(self, status: SessionStatus) -> None:
        """Publish the status of a world that stands still; called by a timer."""
        if self._is_wanted('status'):
            self._publishers['status'].publish(world_status_to_msg(status))

    def publish_diagnostics(self, status: SessionStatus) -> None:
        """Publish the entry for operators; called by a timer, not by the worker."""
        if self._is_wanted('diagnostics'):
            self._publishers['diagnostics'].publish(diagnostics_to_msg(
                status, self._spec, self._params.speed, self._node_name))

    def _is_wanted(self, key):
        return key in self._publishers and self._publishers[key].get_subscription_count() > 0

    def _publish(self, key, to_msg, *values):
        if self._is_wanted(key):
            self._messages[key] = to_msg(*values, out=self._messages.get(key))
            self._publishers[key].publish(self._messages[key])
