# SPDX-License-Identifier: Apache-2.0
"""
Quality of service of every topic, in one place.

Publishers are reliable: they match reliable and best-effort subscribers alike. Queues are short,
because a command or frame that is late is worth nothing. ``publisher`` and ``subscription`` let
the user override history, depth and reliability by ROS's own parameters, for example
``qos_overrides./camera/image_raw.publisher.reliability``.
"""
from contextlib import contextmanager
from copy import copy
from typing import Any, Callable, Iterator

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages.parameters import set_result_to_msg
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, InvalidQoSProfileException, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.validate_topic_name import validate_topic_name

NEWEST = QoSProfile(depth=1)  # commands, embeddings, clock
STATE = QoSProfile(depth=10)  # joint states, odometry, status
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
        raise SpecError(f'{topic!r} is no topic name: {_line(error)}') from error
    return node.resolve_topic_name(topic)


def publisher(node: Node, msg_type: Any, topic: str, profile: QoSProfile) -> Publisher:
    """
    Create a publisher whose profile parameters may override.

    :param node: rclpy node
    :param msg_type: message class
    :param topic: name, as ``topic_name`` takes it
    :param profile: what holds without an override; not changed
    :return: the publisher
    :raises SpecError: the name or an override cannot be used
    """
    name = topic_name(node, topic)
    with _overrides(name) as options:  # rclpy writes overrides into the profile it is given
        return node.create_publisher(msg_type, topic, copy(profile),
                                     qos_overriding_options=options)


def subscription(node: Node, msg_type: Any, topic: str, callback: Callable[[Any], None],
                 profile: QoSProfile, **options: Any) -> Subscription:
    """
    Create a subscription whose profile parameters may override.

    :param node: rclpy node
    :param msg_type: message class
    :param topic: name, as ``topic_name`` takes it
    :param callback: called with each message
    :param profile: what holds without an override; not changed
    :param options: more of ``Node.create_subscription``
    :return: the subscription
    :raises SpecError: the name or an override cannot be used
    """
    name = topic_name(node, topic)
    with _overrides(name) as overriding:
        return node.create_subscription(msg_type, topic, callback, copy(profile),
                                        qos_overriding_options=overriding, **options)


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
