# SPDX-License-Identifier: Apache-2.0
"""Node ``recorder``: takes down every topic of a running world as it travels, undecoded."""
from importlib import import_module
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.msg import WorldStatus as WorldStatusMsg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.endpoints import node_of
from lingbot_world_ros.recording.bag import BagWriter
from rclpy.client import Client
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from std_srvs.srv import Trigger

RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
POINTS = 'sensor_msgs/msg/PointCloud2'  # large, and made of images
STATUS = 'lingbot_world_ros/msg/WorldStatus'
LEFT_OUT = {'raw': (COMPRESSED, POINTS), 'compressed': (RAW, POINTS),
            'none': (RAW, COMPRESSED, POINTS)}
OF_NO_WORLD = ('/rosout', '/parameter_events')
FOLLOWER = 'follower'  # publishes the truth beside the world
LOOK_PERIOD_S = 0.2
FLUSH_PERIOD_S = 0.5  # how much is lost if this process is killed
PATIENCE_S = 15.0  # on a busy machine nodes take seconds to find one another
DEPTH, IMAGE_DEPTH = 1000, 100  # messages that may wait while the disk is slow
Held = Tuple[str, int, bytes, Optional[int]]  # topic, stamp, message, its step if it is a status


class RecorderNode(Node):
    """
    Subscribe to what the nodes of one world publish and listen to, and write it to a bag.

    Which topics these are the graph knows, whatever they were renamed to: world and encoder are
    the nodes that publish ``world_spec`` and ``action_embedding`` in the namespace of this one;
    a follower in it belongs to them.
    The status is that of its type.
    """

    def __init__(self, bag: BagWriter, *, images: str = 'raw', topics: Sequence[str] = (),
                 hold: bool = False, **node_args: Any):
        """
        Look for a world; ``found`` is set when there is one.

        :param bag: where to
        :param images: 'raw' (depth too), 'compressed' or 'none'
        :param topics: only these, beside what replaying needs; none is all
        :param hold: write nothing before ``start_over``
        :param node_args: for ``rclpy.node.Node``
        :raises SpecError: characters no topic name may have
        """
        super().__init__('recorder', **node_args)
        self._bag, self._left_out = bag, LEFT_OUT[images]
        self._spec = self.resolve_topic_name('world_spec')
        self._status: Optional[str] = None  # topic, once it is known
        self._only = {qos.topic_name(self, name) for name in topics}
        # topic -> subscription, whether reliable, whether latched
        self._followed: Dict[str, Tuple[Optional[Subscription], bool, bool]] = {}
        self._held: Optional[List[Held]] = [] if hold else None
        self._reset_asked = False
        self._world_node: Optional[str] = None
        self.found, self.heard, self.ended = (threading.Event() for _ in range(3))
        self.problem: Optional[SpecError] = None  # that ended the recording
        self.status: Optional[WorldStatusMsg] = None  # newest
        self.first_step: Optional[int] = None  # of the first status written
        self.num_missed = 0  # steps whose status did not arrive
        self.num_resets = 0  # while it was recorded
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(LOOK_PERIOD_S, self.on_look, clock=steady)
        self.create_timer(FLUSH_PERIOD_S, self.on_flush, clock=steady)

    @property
    def num_topics(self) -> int:
        """How many topics are being recorded."""
        return sum(subscription is not None for subscription, *_ in self._followed.values())

    def start_over(self) -> None:
        """
        Reset the world and write from its first frame on; called from another thread.

        :raises SpecError: it cannot be reset
        """
        if not self.heard.wait(PATIENCE_S):
            raise SpecError('Nothing arrives from the world. Is its node active? Check with "ros2 '
                            f'lifecycle get {self._world_node}".')
        name = f'{self._world_node}/reset'
        client: Client = self.create_client(Trigger, name)
        if not client.wait_for_service(PATIENCE_S):
            raise SpecError(f'There is no service {name} to reset the world with.')
        self._reset_asked = True
        answered = threading.Event()
        future = client.call_async(Trigger.Request())
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(PATIENCE_S * 2):
            raise SpecError(f'{name} does not answer.')
        answer: Any = future.result()
        if not answer.success:
            raise SpecError(f'The world was not reset: {answer.message}')

    def destroy_node(self) -> None:
        """Write what has arrived and waits still, which on a busy machine is a second's worth."""
        waiting = []
        for topic, (subscription, *_) in self._followed.items():
            if subscription is None:
                continue
            with subscription.handle:
                while (taken := subscription.handle.take_message(subscription.msg_type, True)):
                    waiting.append((taken[1]['received_timestamp'], topic, taken[0]))
        for _, topic, cdr in sorted(waiting, key=lambda message: message[0]):
            self._take(topic, cdr)
        super().destroy_node()

    def on_look(self) -> None:
        """Follow what is new in the graph."""
        names = self._names_and_types()
        self._status = self._status or self._status_of_world(names)
        if self._spec not in names or self._status not in names:
            return  # nor as long as discovery has not told whose they are
        for topic in (self._spec, self._status, *names):  # a world before its status
            if self._is_wanted(topic, names[topic]):
                self._follow(topic, names[topic])
        self.found.set()

    def on_flush(self) -> None:
        """Bring what has arrived into safety."""
        if not self.ended.is_set():
            self._write(self._bag.flush)

    def _names_and_types(self) -> Dict[str, str]:
        """Return topic -> type of all nodes of the world."""
        nodes = set()
        for topic in (self._spec, self.resolve_topic_name('action_embedding')):
            for info in self.get_publishers_info_by_topic(topic):
                nodes.add(node_of(info))
                if topic == self._spec:
                    self._world_node = node_of(info) or self._world_node
        nodes.discard(None)
        nodes.add(f'{self.get_namespace().rstrip("/")}/{FOLLOWER}')
        names = {}
        for topic, types in self.get_topic_names_and_types():
            ends = (*self.get_publishers_info_by_topic(topic),
                    *self.get_subscriptions_info_by_topic(topic))
            if any(node_of(info) in nodes for info in ends):
                names[topic] = types[0]
        return names

    def _status_of_world(self, names: Dict[str, str]) -> Optional[str]:
        """Return the topic of the world's status, None as long as there is none."""
        return next((topic for topic in sorted(names) if names[topic] == STATUS and any(
            node_of(info) == self._world_node is not None
            for info in self.get_publishers_info_by_topic(topic))), None)

    def _is_wanted(self, topic: str, msg_type: str) -> bool:
        if topic in (self._spec, self._status):
            return True
        if self._only:
            return topic in self._only
        return (topic not in OF_NO_WORLD and '/_action/' not in topic
                and msg_type not in self._left_out)

    def _follow(self, topic: str, msg_type: str) -> None:
        """Subscribe the way the publishers of a topic offer it."""
        profiles = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
        reliable = all(p.reliability != ReliabilityPolicy.BEST_EFFORT for p in profiles)
        latched = any(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles)
        known, *as_before = self._followed.get(topic, (None, None, None))
        if topic in self._followed and (known is None or as_before == [reliable, latched]):
            return
        if known is not None:
            self.destroy_subscription(known)
        self._followed[topic] = None, reliable, latched
        try:
            package, _, name = msg_type.split('/')
            msg_class = getattr(import_module(f'{package}.msg'), name)
            if known is None:
                self._bag.add_topic(topic, msg_type, reliable=reliable, latched=latched)
        except (ImportError, AttributeError, SpecError) as error:
            self.get_logger().warning(f'{topic} is not recorded: {error}')
            return
        profile = QoSProfile(
            depth=IMAGE_DEPTH if msg_type in (RAW, COMPRESSED, POINTS) else DEPTH,
            reliability=(ReliabilityPolicy.RELIABLE if reliable
                         else ReliabilityPolicy.BEST_EFFORT),
            durability=(DurabilityPolicy.TRANSIENT_LOCAL if latched
                        else DurabilityPolicy.VOLATILE))
        subscription = self.create_subscription(
            msg_class, topic, lambda cdr: self._take(topic, cdr), profile, raw=True)
        self._followed[topic] = subscription, reliable, latched

    def _take(self, topic: str, cdr: bytes) -> None:
        if self.ended.is_set():
            return
        stamp_ns = time.time_ns()  # system time, as rosbag2 has it
        step = None
        if topic == self._status:
            step = self._count(deserialize_message(cdr, WorldStatusMsg))
        if self._held is None:
            self._write(lambda: self._bag.write(topic, stamp_ns, cdr))
        else:
            held = self._held
            self._write(lambda: self._hold(held, (topic, stamp_ns, cdr, step)))

    def _write(self, write: Callable[[], None]) -> None:
        """Write to the bag; a disk that is full or gone ends the recording."""
        try:
            write()
        except SpecError as error:
            self.problem = error
            self.ended.set()

    def _count(self, status: WorldStatusMsg) -> int:
        """Notice steps of which nothing was heard; return the step of a status."""
        last, self.status = self.status, status
        if self._held is None:
            if last is None or self.first_step is None:
                self.first_step = status.step
            elif status.step < last.step:
                self.num_missed += status.step
                self.num_resets += 1
            else:
                self.num_missed += max(0, status.step - last.step - 1)
        self.heard.set()
        return status.step

    def _hold(self, held: List[Held], message: Held) -> None:
        """Keep messages until the world starts over; then write what belongs to that."""
        topic = message[0]
        if not self._reset_asked and not (self._followed[topic][2] and topic != self._spec):
            return
        held.append(message)
        specs = [m for m in held if m[0] == self._spec]
        steps = [m[-1] for m in held]
        if not specs or 0 not in steps:
            return
        first = steps.index(0)
        rest = [m for i, m in enumerate(held)
                if m[0] != self._spec and (m[-1] is None or i >= first)]
        self._held, self.first_step = None, 0
        for topic, stamp_ns, cdr, _ in specs[-1:] + rest:
            self._bag.write(topic, stamp_ns, cdr)
