# SPDX-License-Identifier: Apache-2.0
"""
Quality of service of every topic, in one place.

Publishers are reliable: they match reliable and best-effort subscribers alike. Queues are short,
because a command or frame that is late is worth nothing. ``publisher`` and ``Listener`` let the
user override history, depth and reliability by ROS's own parameters, for example
``qos_overrides./camera/image_raw.publisher.reliability``.

A reliable subscription hears nothing of a best-effort publisher, as micro-ROS and many drivers
have them. diff_drive_controller, joint_trajectory_controller, Nav2 and Isaac Sim listen to
commands reliably and stay deaf to those; REP 2003 lets who listens to sensors ask for best effort
alone, which hears both. For a command that is not good enough: lockstep counts every one, and a
picture of many UDP packets is lost with one of them. So a ``Listener`` begins reliable, and goes
over to best effort when a publisher comes that offers no more, as rosbag2 chooses when it begins.
"""
from contextlib import contextmanager
from copy import copy
from typing import Any, Callable, Iterator, Optional

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages.parameters import set_result_to_msg
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (DurabilityPolicy, InvalidQoSProfileException, QoSPolicyKind, QoSProfile,
                       ReliabilityPolicy)
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.validate_topic_name import validate_topic_name

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

NEWEST = QoSProfile(depth=1)  # embeddings, clock
STATE = QoSProfile(depth=10)  # commands (lockstep counts each), joint states, odometry, status
TF = QoSProfile(depth=100)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MAX_DEPTH = 10000


def image_qos(reliability: str, depth: int) -> QoSProfile:
    """
    Build the profile of images and camera_info.

    :param reliability: ``'reliable'`` or ``'best_effort'``
    :param depth: images kept for a slow subscriber
    :return: the profile
    """
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy[reliability.upper()])


def topic_name(node: Node, topic: str) -> str:
    """
    Return the full name of a topic, remapped.

    :param node: rclpy node
    :param topic: relative to the node's namespace unless it begins with a slash
    :return: the name that others see
    :raises SpecError: characters no topic name may have
    """
    try:
        validate_topic_name(topic)
    except NameValidationException as error:
        raise SpecError(f'{topic!r} is not a topic name: {_line(error)}') from error
    return node.resolve_topic_name(topic)


def publisher(node: Node, msg_type: Any, topic: str, profile: QoSProfile) -> Publisher:
    """
    Create a publisher whose profile parameters may override.

    It does not warn of subscribers that ask for more than it offers. They do so themselves, and
    each publisher that watches for them costs every spin 10 us, heard or not: a fifth of a step.

    :param node: rclpy node
    :param msg_type: message class
    :param topic: name, as ``topic_name`` takes it
    :param profile: what holds without an override; not changed
    :return: the publisher
    :raises SpecError: the name or an override cannot be used
    """
    name = topic_name(node, topic)
    with _overrides(name) as options:  # rclpy writes overrides into the profile it is given
        return node.create_publisher(
            msg_type, topic, copy(profile), qos_overriding_options=options,
            event_callbacks=PublisherEventCallbacks(use_default_callbacks=False))


class Listener:
    """
    A subscription that hears reliable and best-effort publishers, each as well as it can.

    It changes in the executor's thread, so only there it may be asked for messages.
    """

    def __init__(self, node: Node, msg_type: Any, topic: str, callback: Callable[[Any], None],
                 profile: QoSProfile) -> None:
        """
        Subscribe with a profile that parameters may override.

        :param node: rclpy node
        :param msg_type: message class
        :param topic: name, as ``topic_name`` takes it
        :param callback: called with each message
        :param profile: what holds without an override; not changed
        :raises SpecError: the name or an override cannot be used
        """
        self.topic_name, self.msg_type = topic_name(node, topic), msg_type
        self._node, self._topic, self._callback = node, topic, callback
        with _overrides(self.topic_name) as options:
            self._subscription: Optional[Subscription[Any]] = node.create_subscription(
                msg_type, topic, callback, copy(profile), qos_overriding_options=options,
                event_callbacks=self._events())

    def take_waiting(self, at_most: int) -> None:
        """Hand over messages that wait in the queue, in the executor's thread only."""
        if self._subscription is None:
            return
        handle = self._subscription.handle
        with handle:
            for _ in range(at_most):
                taken = handle.take_message(self.msg_type, False)
                if taken is None:
                    return
                self._callback(taken[0])

    def destroy(self) -> None:
        """Listen no more."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _events(self) -> Optional[SubscriptionEventCallbacks]:
        """Notice publishers that are not heard, unless the user chose the reliability."""
        chosen = f'qos_overrides.{self.topic_name}.subscription.reliability'
        if chosen in getattr(self._node, '_parameter_overrides', {}):  # rclpy has no public list
            return None
        return SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)

    def _on_incompatible(self, event: Any) -> None:
        deaf, log = self._subscription, self._node.get_logger()
        if deaf is None or event.last_policy_kind != QoSPolicyKind.RELIABILITY:
            log.warning(f'{self.topic_name}: nothing arrives from a publisher, its '
                        f'{QoSPolicyKind(event.last_policy_kind).name} is incompatible.')
            return
        log.info(f'{self.topic_name}: a publisher offers only best effort; the subscription uses '
                 'best effort from now on.')
        profile = copy(deaf.qos_profile)
        profile.reliability = ReliabilityPolicy.BEST_EFFORT
        self.take_waiting(profile.depth)
        self.destroy()
        self._subscription = self._node.create_subscription(
            self.msg_type, self._topic, self._callback, profile)


@contextmanager
def _overrides(name: str) -> Iterator[QoSOverridingOptions]:
    """Let parameters override; what they cannot say becomes a SpecError."""
    try:
        yield QoSOverridingOptions.with_default_policies(callback=_has_queue)
    except (InvalidQosOverridesError, InvalidQoSProfileException, ParameterException) as error:
        raise SpecError(f'qos_overrides.{name}: {_line(error)}') from error
    except RuntimeError as error:
        if 'QoS override' not in str(error):  # the exception has no type of its own
            raise
        raise SpecError(f'qos_overrides.{name}: {_line(error)}') from error


def _has_queue(profile: QoSProfile) -> SetParametersResult:
    problem = f'depth={profile.depth} is outside 1 to {MAX_DEPTH}'
    return set_result_to_msg('' if 1 <= profile.depth <= MAX_DEPTH else problem)


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())
