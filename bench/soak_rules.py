# SPDX-License-Identifier: Apache-2.0
"""What has to hold in a soak, and how its memory is judged. No ROS."""
import numpy as np

STEP_TIMEOUT_S = 1.0
SERVICE_TIMEOUT_S = 10.0
MARGIN_S = 2.0  # on top of a time limit of the world, for this machine
MIN_MEMORY_S = 240.0  # windows shorter than this say nothing about growth
MAX_GROWTH = 0.02
MIN_RATE_HZ = 14.9
FLOOD_ANSWER_S = 1.0

RULES = {
    'service': 'every call is answered in time, with the code that is due',
    'frames': 'a reliable subscriber receives every frame once, with the next stamp',
    'state': 'after every fault the world is in the state that is defined for it',
    'rate': f'in quiet windows at least {MIN_RATE_HZ} frames per second arrive',
    'memory': f'resident memory grows by less than {MAX_GROWTH:.0%} after warm-up',
    'leak': 'threads, file descriptors and child processes are as many as after warm-up',
    'end': 'the world lives until it is asked to end, and then leaves nothing behind'}


class Broken(Exception):
    """A rule does not hold."""

    def __init__(self, rule: str, text: str):
        """Keep the name of the rule."""
        super().__init__(text)
        self.rule = rule


def growth(samples) -> dict:
    """
    Judge memory.

    :param samples: seconds and MiB, both at moments that compare, after warm-up
    :return: growth as a share, by a line through all samples and by the medians of the first and
        last quarter, the larger counts; None where the samples span too short a time
    """
    times, mib = np.array(samples, float).T
    quarter = max(1, len(mib) // 4)
    first, last = float(np.median(mib[:quarter])), float(np.median(mib[-quarter:]))
    result = {'growth': None, 'first_mib': first, 'last_mib': last,
              'window_s': float(times[-1] - times[0])}
    if result['window_s'] < MIN_MEMORY_S:
        return result
    by_line = float(np.polyfit(times, mib, 1)[0]) * result['window_s'] / first
    return {**result, 'growth': max(by_line, last / first - 1.0)}
