# SPDX-License-Identifier: Apache-2.0
"""
Quality of service of every topic, in one place.

Publishers are reliable: they match reliable and best-effort subscribers alike. Queues are short,
because a command or frame that is late is worth nothing.
"""
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

NEWEST = QoSProfile(depth=1)  # commands, embeddings, clock
STATE = QoSProfile(depth=10)  # joint states, odometry, status
TF = QoSProfile(depth=100)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def image_qos(reliability: str, depth: int) -> QoSProfile:
    """
    Build the profile of images and camera_info.

    :param reliability: ``'reliable'`` or ``'best_effort'``
    :param depth: images kept for a slow subscriber
    :return: the profile
    """
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy[reliability.upper()])
