# SPDX-License-Identifier: Apache-2.0
"""Whose a publisher or subscription is."""
from typing import Optional

from rclpy.topic_endpoint_info import TopicEndpointInfo

UNKNOWN = '_NODE_NAME_UNKNOWN_'  # what rmw calls a node that discovery has not told of yet


def node_of(endpoint: TopicEndpointInfo) -> Optional[str]:
    """
    Return the full name of the node that an endpoint belongs to.

    Discovery tells of endpoints and of nodes apart, on a busy machine seconds apart.

    :param endpoint: publisher or subscription as the graph knows it
    :return: None as long as its node is not known
    """
    if UNKNOWN in endpoint.node_name:
        return None
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'
