# SPDX-License-Identifier: Apache-2.0
"""
Node ``follower``: the truth beside imagination, live.

Looks at a running world through its topics only and lets another engine do the same, step by
step. What that one sees is published below a prefix, with the stamps of the followed frames.
"""
from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any, Callable, List, Optional

from diagnostic_msgs.msg import DiagnosticArray
from lingbot_world_ros.engines.interface import WorldModel
from lingbot_world_ros.engines.registry import engine_entry, make_world, TRUTH_ENGINE
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages.diagnostics import entry_to_msg, OK, WARN
from lingbot_world_ros.messages.encodings import rgb_from_msg
from lingbot_world_ros.messages.frames import planar_pose_from_msg
from lingbot_world_ros.messages.stamps import stamp_to_ns
from lingbot_world_ros.messages.standard import number_to_msg
from lingbot_world_ros.msg import WorldSpec as WorldSpecMsg, WorldStatus as WorldStatusMsg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.endpoints import node_of
from lingbot_world_ros.nodes.parameters import declare, flat
from lingbot_world_ros.nodes.world_publishers import WorldPublishers
from lingbot_world_ros.recording.distance_to_truth import Comparison
from lingbot_world_ros.recording.follow import Follower, FollowerObserver
from lingbot_world_ros.session.frame import Frame
from lingbot_world_ros.settings.parameters import engine_options, WORLD_MODEL
from nav_msgs.msg import Odometry
import numpy as np
from rclpy.client import Client
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_msgs.msg import Float32
from std_srvs.srv import Trigger

SHOWN = ('image', 'camera_info', 'compressed', 'joint_states', 'odom', 'path',
         'ground_truth_pose')
USED = ('robot', 'world_path', 'camera_info_url', 'frame_prefix', 'field_of_view_deg',
        'image_width', 'image_height', 'jpeg_quality', 'image_reliability', 'image_queue_depth')
WORLD, TRUTH = 0, 1  # sides of the comparison
DEPTH, IMAGE_DEPTH = 1000, 10  # messages that may wait while the engine is slow
LOOK_PERIOD_S = 0.2
LATE_S = 1.0  # of sim time; further behind is told as a warning


class FollowerNode(Node):
    """Wire ``world_spec``, ``world_status``, ``odom`` to a follower, its frames to topics."""

    def __init__(self, engine: Optional[Callable[[], WorldModel]] = None, *,
                 name: str = TRUTH_ENGINE, below: str = TRUTH_ENGINE, reset: bool = False,
                 **node_args: Any):
        """
        Make the engine and wait for a world.

        :param engine: makes the engine that follows, in place of the one that ``name`` names
        :param name: of an engine, as the parameter ``engine`` of world_model
        :param below: prefix of what is published, in the namespace of the node
        :param reset: ask the world for a reset if it is past its first step
        :param node_args: for ``rclpy.node.Node``
        :raises SpecError: the engine cannot be made here, or a parameter or prefix not be used
        """
        super().__init__('follower', **node_args)
        self._has_follower, self._reset_wanted = False, reset
        try:
            self._set_up(engine, name, below.strip('/'))
        except BaseException:
            self.destroy_node()
            raise

    def _set_up(self, engine: Optional[Callable[[], WorldModel]], name: str, below: str) -> None:
        own = [p for p in WORLD_MODEL if p.name in USED
               or p.name.startswith(('topics.', 'frames.'))]
        self.params = declare(self, [*own, *engine_entry(name).table()])
        if not below:
            raise SpecError("The prefix is empty: the truth would be published under the world's "
                            'names; give another prefix, for example reference.')
        for topic in (f'{below}/odom', 'world_spec'):
            qos.topic_name(self, topic)
        options = engine_options({**flat(self.params), 'engine': name})
        make_engine = engine or partial(make_world, name, **options)
        world = make_engine()
        self.comparison = Comparison()
        self.sensors = WorldPublishers(self, world.spec, _below(self.params, below), SHOWN)
        self._image_error, self._position_error = (
            qos.publisher(self, Float32, f'{below}/{what}_error', qos.STATE)
            for what in ('image', 'position'))
        self._diagnostics = qos.publisher(self, DiagnosticArray, self.params.topics.diagnostics,
                                          qos.STATE)
        self.follower = Follower(
            world, observers=[self.sensors, _Truth(self)], log=self.get_logger(),
            world_path=self.params.world_path, make_engine=make_engine,
            is_watched=self._is_watched)
        self._has_follower = True
        self._subscribe()

    def _subscribe(self) -> None:
        topics = self.params.topics
        self._images: Optional[qos.Listener] = None  # while somebody wants the error
        for msg_type, topic, callback, profile in (
                (WorldSpecMsg, 'world_spec', self.on_world_spec, qos.LATCHED),
                (WorldStatusMsg, 'world_status', self.on_world_status, QoSProfile(depth=DEPTH)),
                (Odometry, topics.odom, self.on_odom, QoSProfile(depth=DEPTH))):
            qos.Listener(self, msg_type, topic, callback, profile)
        self._world_name = qos.topic_name(self, 'world_spec')
        self._reset_client: Optional[Client] = None
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(LOOK_PERIOD_S, self.on_look, clock=steady)
        self.create_timer(1.0, self.on_second, clock=steady)

    def destroy_node(self) -> None:
        """End the engine before the publishers go away."""
        if self._has_follower:
            self.follower.close(3.0)
            self.sensors.destroy()
        super().destroy_node()

    @property
    def topics(self) -> List[str]:
        """Names of what is published below the prefix."""
        return [*self.sensors.topics, self._image_error.topic_name,
                self._position_error.topic_name]

    # What the followed world tells

    def on_world_spec(self, msg: WorldSpecMsg) -> None:
        """Begin with a world that starts."""
        self.follower.on_spec(msg)

    def on_world_status(self, msg: WorldStatusMsg) -> None:
        """Do the newest step, too."""
        self.follower.on_world_status(msg)

    def on_odom(self, msg: Odometry) -> None:
        """Compare where the robot is."""
        error_m = self.comparison.odometry(stamp_to_ns(msg.header.stamp),
                                           planar_pose_from_msg(msg.pose.pose))
        self._publish(self._position_error, error_m)

    def on_image(self, msg: Image) -> None:
        """Compare what is seen."""
        try:
            rgb = rgb_from_msg(msg)
        except SpecError as error:
            self.get_logger().warning(f'{self.params.topics.image}: {error}', once=True)
            return
        self._publish(self._image_error, self.comparison.image(
            WORLD, stamp_to_ns(msg.header.stamp), rgb))

    # What the truth shows, in the thread of the engine

    def show(self, frame: Frame) -> None:
        """Compare a frame of the truth with what the world has told of that moment."""
        if frame.index == 1:
            self.comparison.begin(frame.start_pose)
        self._publish(self._position_error, self.comparison.truth(
            frame.stamp_ns, frame.base_pose))
        if frame.rgb is not None and self._images is not None:
            self._publish(self._image_error, self.comparison.image(
                TRUTH, frame.stamp_ns, self.sensors.seen(frame.rgb).copy()))

    def _is_watched(self) -> bool:
        return self.sensors.is_watched() or self._image_error.get_subscription_count() > 0

    @staticmethod
    def _publish(publisher: Publisher, value: Optional[float]) -> None:
        if value is not None and publisher.get_subscription_count():
            publisher.publish(number_to_msg(value))

    # From time to time

    def on_look(self) -> None:
        """Look after the engine, after who wants to know what, and for a reset if need be."""
        self.follower.session.check_engine()
        if not self.follower.is_following:
            self.comparison.clear()
        else:  # for who joins while time stands still
            if self.sensors.is_watched():
                self.follower.look()
            self.sensors.on_standstill()
        wanted = self._image_error.get_subscription_count() > 0
        if wanted and self._images is None:
            params = self.params
            self._images = qos.Listener(
                self, Image, params.topics.image, self.on_image,
                qos.image_qos(params.image_reliability, IMAGE_DEPTH))
        elif not wanted and self._images is not None:
            self._images.destroy()
            self._images = None
        if self._reset_wanted and self.follower.waits_for_reset:
            self._ask_for_reset()

    def _ask_for_reset(self) -> None:
        """Ask the node that tells ``world_spec``, once it can be asked."""
        if self._reset_client is None:
            nodes = map(node_of, self.get_publishers_info_by_topic(self._world_name))
            for node in [*filter(None, nodes)][:1]:
                self._reset_client = self.create_client(Trigger, f'{node}/reset')
        if self._reset_client is not None and self._reset_client.service_is_ready():
            self._reset_wanted = False
            self._reset_client.call_async(Trigger.Request()).add_done_callback(self.on_reset_done)

    def on_reset_done(self, future: Future) -> None:
        """Say why the world was not reset."""
        answer: Any = future.result()
        if not answer.success:
            self.get_logger().warning(f'The world was not reset: {answer.message}')

    def on_second(self) -> None:
        """Report to operators."""
        if not self._diagnostics.get_subscription_count():
            return
        follower = self.follower
        ok = follower.is_following and follower.lag_s <= LATE_S
        text = follower.text if follower.lag_s <= LATE_S else (
            f'The truth is {follower.lag_s:.1f} s of sim time behind: its engine or this machine '
            'is too slow.')
        values = {'engine': follower.session.world.spec.engine,
                  'step': follower.session.status.step, 'steps behind': follower.num_behind,
                  'image error': error_text(self.comparison.image_error),
                  'position error [m]': error_text(self.comparison.position_error_m)}
        self._diagnostics.publish(entry_to_msg(
            f'{self.get_fully_qualified_name().lstrip("/")}: truth', OK if ok else WARN, text,
            values, follower.session.status.stamp_ns))


class _Truth(FollowerObserver):
    """Tells the node of frames, after they were published, and of anchors."""

    def __init__(self, node: FollowerNode):
        self._node = node

    def on_frame(self, frame: Frame) -> None:
        self._node.show(frame)

    def on_anchor(self, pose: np.ndarray, stamp_ns: int) -> None:
        self._node.comparison.anchor(pose, stamp_ns)


def error_text(error: Optional[float]) -> str:
    """Write an error with four digits, or that there is none."""
    return 'unknown' if error is None else f'{error:.4f}'


def _below(params: SimpleNamespace, below: str) -> SimpleNamespace:
    """Return the parameters with which a world publishes below a prefix, and no tf nor clock."""
    params = deepcopy(params)
    for key in SHOWN:
        name = getattr(params.topics, key).lstrip('/')
        setattr(params.topics, key, f'{below}/{name}')
    params.frames.imu = params.frames.footprint = ''
    for key in ('base', 'camera', 'optical'):  # odom is that of the world: both start there
        setattr(params.frames, key, f'{below}/{getattr(params.frames, key)}')
    vars(params).update(publish_tf=False, publish_clock=False, publish_scan=False,
                        publish_map=False, publish_map_odom_tf=False, publish_bumper=False,
                        publish_wrist_camera=False, robot_description='', camera_link='')
    return params
