# SPDX-License-Identifier: Apache-2.0
"""The attacker's node: publishes and calls, and never waits for ever."""
from importlib import import_module
import time

from fuzz.values import message
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile

PATIENCE_S = 15.0
HEALTH_S = 2.0  # in which a simple question must be answered
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class NoAnswer(Exception):
    """A service did not answer in time."""


class Probe:
    """One node in a ROS domain."""

    def __init__(self, domain, number, hears):
        """
        Join a domain.

        :param domain: its number
        :param number: makes the name of the node another one
        :param hears: called with name of the node and topic; says whether the other side knows
            of a publisher. What is sent before arrives seconds later, in the midst of other cases
        """
        self._hears = hears
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node(f'attacker_{number}', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._publishers, self._clients = {}, {}

    def close(self):
        """Leave."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def wait_for(self, happened, what, patience_s=PATIENCE_S):
        """Spin until ``happened()`` is true and return its value."""
        deadline = time.monotonic() + patience_s
        while True:
            value = happened()
            if value:
                return value
            if time.monotonic() > deadline:
                raise NoAnswer(f'waited {patience_s:g} s in vain for {what}')
            self._executor.spin_once(timeout_sec=0.05)

    def publish(self, kind, topic, content):
        """
        Publish.

        :param kind: name of the type
        :param topic: name
        :param content: plain data, or bytes that go out as they are
        """
        msg = content if isinstance(content, bytes) else message(kind, content)
        try:
            self._publisher(kind, topic).publish(msg)
        except RuntimeError:
            if not isinstance(content, bytes):
                raise
            # This middleware sends no bytes that cannot be of the type; others might.

    def call(self, kind, service, request, patience_s=PATIENCE_S):
        """
        Call a service.

        :param kind: name of the type, ``package/srv/Name``
        :param service: name
        :param request: plain data
        :param patience_s: longest wait for the answer
        :return: the response
        :raises NoAnswer: none in time
        """
        client = self._client(kind, service)
        future = client.call_async(message(f'{kind}.Request', request))
        try:
            return self.wait_for(lambda: future.done() and future.result(),
                                 f'the answer of {service}', patience_s)
        finally:
            client.remove_pending_request(future)

    def call_all(self, requests, patience_s=PATIENCE_S):
        """
        Call many services at once.

        :param requests: of kind, service, request as ``call`` takes them
        :param patience_s: longest wait for the last answer
        :raises NoAnswer: one did not come
        """
        clients = [self._client(kind, service) for kind, service, _ in requests]
        futures = [client.call_async(message(f'{kind}.Request', request))
                   for client, (kind, _, request) in zip(clients, requests)]
        try:
            self.wait_for(lambda: all(future.done() for future in futures),
                          f'{len(futures)} answers', patience_s)
        finally:
            for client, future in zip(clients, futures):
                client.remove_pending_request(future)

    def _publisher(self, kind, topic):
        if topic not in self._publishers:
            package, name = kind.split('/')
            msg_type = getattr(import_module(f'{package}.msg'), name)
            publisher = self.node.create_publisher(
                msg_type, topic, LATCHED if topic == 'world_spec' else 10)
            name = self.node.get_name()
            self.wait_for(lambda: publisher.get_subscription_count() and self._hears(name, topic),
                          f'who hears {topic}')
            self._publishers[topic] = publisher
        return self._publishers[topic]

    def _client(self, kind, service):
        if service not in self._clients:
            package, _, name = kind.split('/')
            srv_type = getattr(import_module(f'{package}.srv'), name, None)
            if srv_type is None:  # a part of an action
                action, part = name.split('_')
                srv_type = getattr(getattr(import_module(f'{package}.action'), action).Impl,
                                   f'{part}Service')
            self._clients[service] = self.node.create_client(srv_type, service)
            self.wait_for(self._clients[service].service_is_ready, f'service {service}')
        return self._clients[service]
