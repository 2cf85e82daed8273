# SPDX-License-Identifier: Apache-2.0
"""Waiting in tests: for something to happen, never for a time."""
from contextlib import contextmanager
import signal
import time

# Guards against hanging, no measures of speed: what waits ends within a second or two.
PATIENCE_S = 60.0
START_PATIENCE_S = 120.0  # for processes that load weights, on a busy machine


def wait_for(happened, what='it', patience_s=PATIENCE_S):
    """Wait until ``happened()``, which others bring about, is true; return its value."""
    deadline = time.monotonic() + patience_s
    while not (value := happened()):
        assert time.monotonic() < deadline, f'waited {patience_s:g} s in vain for {what}'
        time.sleep(0.002)
    return value


@contextmanager
def no_hang(seconds=PATIENCE_S):
    """Have the main thread fail that is not done after so long; Python code only."""
    def give_up(*_):
        raise AssertionError(f'not done after {seconds:g} s')
    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
