# SPDX-License-Identifier: Apache-2.0
"""The attacker's node: publishes and calls, and never waits for ever."""
from importlib import import_module
import time

from fuzz.values import checksum, message
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile

PATIENCE_S = 60.0  # a guard against hanging
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class NoAnswer(Exception):
    """A service did not answer in time."""


class Probe:
    """One node in a ROS domain."""

    def __init__(self, domain, number, hears, taken):
        """
        Join a domain.

        :param domain: its number
        :param number: makes the name of the node another one
        :param hears: called with name of the node and topic; says whether the other side knows
            of a publisher. What is sent before arrives seconds later, in the midst of other cases
        :param taken: called with a topic; returns ``checksum`` of the newest message that a
            callback was handed
        """
        self._hears, self._taken = hears, taken
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node(f'attacker_{number}', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._publishers, self._clients, self._newest = {}, {}, {}
        self._raw_node, self._raw_publishers, self._num_raw = None, {}, 0

    def close(self):
        """Leave."""
        self.end_raw()
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
        if not isinstance(content, bytes):
            publisher = self._publisher(self.node, self._publishers, kind, topic)
            msg = message(kind, content)
            self._newest[topic] = checksum(msg)
            publisher.publish(msg)
            return
        if self._raw_node is None:
            self._num_raw += 1
            self._raw_node = rclpy.create_node(f'{self.node.get_name()}_raw_{self._num_raw}',
                                               context=self._context)
        try:
            self._publisher(self._raw_node, self._raw_publishers, kind, topic).publish(content)
        except RuntimeError:
            pass  # this middleware sends no bytes that cannot be of the type; others might

    def end_raw(self):
        """
        Give up the publishers of raw bytes.

        Reliable subscribers wait for a message without any byte until its publisher forgets it or
        goes: what it sends meanwhile arrives later, in the midst of other cases.
        """
        if self._raw_node is not None:
            self._raw_node.destroy_node()
        self._raw_node, self._raw_publishers = None, {}

    def wait_until_taken(self, topic):
        """
        Wait until the newest message on a topic has been handed over to the other side's callback.

        :param topic: name, one that was published to
        :raises NoAnswer: it has not been in time
        """
        newest = self._newest[topic]
        self.wait_for(lambda: self._taken(topic) == newest, f'who takes {topic}')

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

    def _publisher(self, node, publishers, kind, topic):
        if topic not in publishers:
            package, name = kind.split('/')
            msg_type = getattr(import_module(f'{package}.msg'), name)
            publisher = node.create_publisher(
                msg_type, topic, LATCHED if topic == 'world_spec' else 10)
            name = node.get_name()
            self.wait_for(lambda: publisher.get_subscription_count() and self._hears(name, topic),
                          f'who hears {topic}')
            publishers[topic] = publisher
        return publishers[topic]

    def _client(self, kind, service):
        if service not in self._clients:
            package, _, name = kind.split('/')
            if '_' in name:  # a part of an action
                action, part = name.split('_')
                srv_type = getattr(getattr(import_module(f'{package}.action'), action).Impl,
                                   f'{part}Service')
            else:
                srv_type = getattr(import_module(f'{package}.srv'), name)
            self._clients[service] = self.node.create_client(srv_type, service)
            self.wait_for(self._clients[service].service_is_ready, f'service {service}')
        return self._clients[service]
