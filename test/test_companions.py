# SPDX-License-Identifier: Apache-2.0
"""Processes that run beside another one: their first words, their end, and its end."""
import signal
import subprocess
import sys

from bench.machine import is_running
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.processes import Companions
import pytest
from waiting import PATIENCE_S, wait_for

WAIT = 'import sys, time; print("up", flush=True); time.sleep(60)'
END_WITH_PARENT = ('from lingbot_world_ros.processes import end_with_parent; end_with_parent(); '
                   'import os, time; print(os.getpid(), flush=True); time.sleep(60)')


def python(code):
    return [sys.executable, '-c', code]


def test_a_companion_is_heard_and_ends_on_the_way_out():
    with Companions({'page': python(WAIT)}) as companions:
        assert companions.first_line('page', PATIENCE_S) == 'up'
        assert companions.names == ['page'] and companions.ended() == []
        process = companions._processes['page']
    assert process.returncode == -signal.SIGTERM


def test_one_that_ends_is_told_once_and_one_that_says_nothing_did_not_start():
    with Companions({'page': python('raise SystemExit(3)')}) as companions:
        with pytest.raises(SpecError, match='The page did not start, see above'):
            companions.first_line('page', PATIENCE_S)
        wait_for(lambda: companions._processes['page'].poll() is not None)
        assert companions.ended() == [('page', 3)] and companions.ended() == []


def test_a_companion_ends_with_a_parent_that_is_killed():
    code = ('import sys, time\nfrom lingbot_world_ros.processes import Companions\n'
            f'with Companions({{"page": [sys.executable, "-c", {END_WITH_PARENT!r}]}}) as c:\n'
            f'    print(c.first_line("page", {PATIENCE_S}), flush=True)\n    time.sleep(60)\n')
    with subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_for(lambda: not is_running(pid))


def test_worlds_end_with_a_parent_that_is_killed():
    """They would go on for ever, as nothing that they print is needed."""
    code = ('import sys\nfrom lingbot_world_ros.processes import run_together\n'
            f'run_together({{"one": [sys.executable, "-c", {END_WITH_PARENT!r}]}})\n')
    with subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline().removeprefix('[one] '))
        parent.kill()
    wait_for(lambda: not is_running(pid))


def test_without_a_parent_that_says_so_nothing_ends():
    result = subprocess.run(python('from lingbot_world_ros.processes import end_with_parent\n'
                                   'end_with_parent()\nprint("on")'), capture_output=True,
                            text=True, timeout=PATIENCE_S)
    assert result.stdout == 'on\n'
