# SPDX-License-Identifier: Apache-2.0
"""A job for workers of a cluster, which import it."""
import os
from pathlib import Path
import time


def square_slowly(job):
    """
    Square a number; the first process that has begun a few waits to be killed.

    :param job: the number, and a file to write one's process id into
    :return: the square
    """
    number, marker = job[0], Path(job[1])
    time.sleep(0.05)
    if number == 3 and not marker.exists():
        marker.with_name('pid.killed').touch()
        marker.with_name('pid.tmp').write_text(str(os.getpid()))
        marker.with_name('pid.tmp').rename(marker)
        time.sleep(600)
    return number * number
