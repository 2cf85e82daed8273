# SPDX-License-Identifier: Apache-2.0
"""
From a log of messages to frame rates and command-to-frame latencies. No ROS, no clocks.

A command's frame is the first one whose world step used it. Every command in the log has a value
of its own, so it can be followed: the value appears in an action embedding, the world names the
embedding that drove each step, and the status of that step has the stamp of its image.
"""
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Log:
    """
    What one process sent and received; ``_ns`` is its steady wall clock, ``stamp`` sim time, ns.

    ``commands``: (sent_ns, column of the action layout, value, value before). ``embeddings``:
    sequence -> values of all columns. ``steps``: stamp -> sequence of the embedding used.
    ``frames``: stamp -> received_ns. ``motion``: stamp -> measured motion by column.
    """

    commands: list = field(default_factory=list)
    embeddings: dict = field(default_factory=dict)
    steps: dict = field(default_factory=dict)
    frames: dict = field(default_factory=dict)
    motion: dict = field(default_factory=dict)


def percentile(values, share: float):
    """Return a percentile (0..100) as a float; None without values."""
    return float(np.percentile(values, share)) if len(values) else None


def frame_of_command(log: Log, command):
    """
    Find the first image whose step used a command.

    :param log: what was recorded
    :param command: one entry of ``log.commands``
    :return: stamp of the image, or None if no step used the command or the image did not arrive
    """
    sent_ns, column, value, _ = command
    carriers = {sequence for sequence, values in log.embeddings.items()
                if column < len(values) and values[column] == np.float32(value)}
    for stamp in sorted(log.steps):
        if log.steps[stamp] in carriers:
            return stamp if log.frames.get(stamp, 0) > sent_ns else None
    return None


def command_latencies(log: Log):
    """
    Measure every command of a log.

    :param log: what was recorded
    :return: latencies in ms of those whose frame arrived; number of commands without one; share
        of those with one whose measured motion in that very frame went the commanded way
    """
    latencies_ms, towards = [], []
    stamps = sorted(log.motion)
    for command in log.commands:
        sent_ns, column, value, before = command
        stamp = frame_of_command(log, command)
        if stamp is None:
            continue
        latencies_ms.append((log.frames[stamp] - sent_ns) * 1e-6)
        earlier = [s for s in stamps if s < stamp]
        if stamp in log.motion and earlier:
            change = log.motion[stamp][column] - log.motion[earlier[-1]][column]
            towards.append(change * (value - before) > 0)
    missed = len(log.commands) - len(latencies_ms)
    return latencies_ms, missed, float(np.mean(towards)) if towards else None


def frame_rate(log: Log, period_ns: int) -> dict:
    """
    Rate and regularity of the images that arrived.

    :param log: what was recorded
    :param period_ns: sim time between frames
    :return: frames_per_s, interval_ms (p50, p95, longest), frames, lost (gaps in their stamps)
    """
    stamps = np.array(sorted(log.frames))
    received = np.array([log.frames[s] for s in stamps])
    intervals_ms = np.diff(received) * 1e-6
    made = int(round((stamps[-1] - stamps[0]) / period_ns)) + 1
    return {'frames_per_s': float((len(received) - 1) * 1e9 / (received[-1] - received[0])),
            'interval_ms': {'p50': percentile(intervals_ms, 50),
                            'p95': percentile(intervals_ms, 95),
                            'longest': float(intervals_ms.max())},
            'frames': len(stamps), 'lost': made - len(stamps)}
