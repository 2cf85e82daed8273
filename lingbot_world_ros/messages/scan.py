# SPDX-License-Identifier: Apache-2.0
"""Ranges over angles -> sensor_msgs/LaserScan."""
from array import array
from typing import Optional

from lingbot_world_ros.geometry.depth_scan import DepthScan
from lingbot_world_ros.messages.stamps import set_stamp
import numpy as np
from sensor_msgs.msg import LaserScan


def scan_to_msg(scan: DepthScan, ranges_m: np.ndarray, period_s: float, stamp_ns: int,
                frame_id: str, out: Optional[LaserScan] = None) -> LaserScan:
    """
    Write a laser scan.

    :param scan: what made it
    :param ranges_m: (num_angles,) float32, inf where nothing is
    :param period_s: sim time between scans
    :param stamp_ns: sim time of the depth image; all rays are of that moment
    :param frame_id: base frame
    :param out: message of the same scanner to fill again; None makes one
    :return: the message
    """
    if out is None:
        out = LaserScan(angle_min=scan.angle_min, angle_max=scan.angle_max,
                        angle_increment=scan.angle_increment, scan_time=period_s,
                        range_min=scan.range_min, range_max=scan.range_max)
        out.header.frame_id = frame_id
    set_stamp(out.header.stamp, stamp_ns)
    out.ranges = array('f', ranges_m.tobytes())
    return out
