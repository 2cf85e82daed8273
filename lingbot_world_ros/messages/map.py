# SPDX-License-Identifier: Apache-2.0
"""The floor plan of a scene -> nav_msgs/OccupancyGrid."""
from array import array

from lingbot_world_ros.messages.stamps import set_stamp
from lingbot_world_ros.worlds.floor_plan import FloorPlan
from nav_msgs.msg import OccupancyGrid
import numpy as np

FREE, OCCUPIED, UNKNOWN = 0, 100, -1


def map_to_msg(plan: FloorPlan, stamp_ns: int, frame_id: str) -> OccupancyGrid:
    """
    Write a map.

    :param plan: the grid
    :param stamp_ns: sim time
    :param frame_id: of the scene
    :return: the message, to be latched
    """
    out = OccupancyGrid()
    out.header.frame_id = frame_id
    set_stamp(out.header.stamp, stamp_ns)
    set_stamp(out.info.map_load_time, stamp_ns)
    out.info.resolution = plan.resolution_m
    out.info.height, out.info.width = plan.occupied.shape
    out.info.origin.position.x, out.info.origin.position.y = map(float, plan.origin_m)
    cells = np.where(plan.occupied, OCCUPIED, FREE)
    if plan.unknown is not None:
        cells = np.where(plan.unknown, UNKNOWN, cells)
    out.data = array('b', cells.astype(np.int8).tobytes())
    return out
