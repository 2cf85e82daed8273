# SPDX-License-Identifier: Apache-2.0
"""Requests that replace each other."""
from concurrent.futures import Future

import pytest

pytest.importorskip('rclpy')

from lingbot_world_ros.nodes.newest import NewestOnly  # noqa: E402, I100


class Slow:
    """Notes requests and lets a test end them."""

    def __init__(self):
        self.started, self.futures, self.errors = [], [], []
        self.newest = NewestOnly(self.submit, self.errors.append)

    def submit(self, request):
        if isinstance(request, Exception):
            raise request
        self.started.append(request)
        self.futures.append(Future())
        return self.futures[-1]


def test_of_requests_that_come_meanwhile_only_the_newest_follows():
    slow = Slow()
    for request in range(5):
        slow.newest.put(request)
    assert slow.started == [0]
    slow.futures[0].set_result(None)
    assert slow.started == [0, 4]
    slow.futures[1].set_result(None)
    slow.newest.put(5)
    assert slow.started == [0, 4, 5]


def test_a_failure_is_told_and_the_next_one_follows():
    slow = Slow()
    slow.newest.put('a')
    slow.newest.put('b')
    problem = ValueError('no')
    slow.futures[0].set_exception(problem)
    slow.futures[1].cancel()
    for request in (RuntimeError('at once'), 'c'):
        slow.newest.put(request)
    assert slow.started == ['a', 'b', 'c']
    assert [str(error) for error in slow.errors] == ['no', 'at once']


def test_a_request_that_may_not_start_waits_and_the_newest_goes_on():
    slow, may_start = Slow(), True
    slow.newest = NewestOnly(slow.submit, slow.errors.append, lambda: may_start)
    slow.newest.put('a')
    may_start = False
    slow.newest.put('b')
    slow.futures[0].set_result(None)
    slow.newest.put('c')
    slow.newest.go_on()
    assert slow.started == ['a']
    may_start = True
    slow.newest.go_on()
    slow.newest.go_on()
    assert slow.started == ['a', 'c']
