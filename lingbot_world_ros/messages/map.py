# SPDX-License-Identifier: Apache-2.0
"""The floor plan of a scene <-> nav_msgs/OccupancyGrid."""
from array import array
from math import isfinite

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages.stamps import set_stamp
from lingbot_world_ros.worlds.floor_plan import FloorPlan
from nav_msgs.msg import OccupancyGrid
import numpy as np

FREE, OCCUPIED, UNKNOWN = 0, 100, -1
HALF = 50  # from this probability on a cell of another map counts as occupied
MAX_CELLS = 16_000_000


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


def map_from_msg(msg: OccupancyGrid) -> FloorPlan:
    """
    Read a map.

    :param msg: whose axes are those of its frame
    :return: the grid
    :raises SpecError: it is turned, or its sizes are none
    """
    info, position, turn = msg.info, msg.info.origin.position, msg.info.origin.orientation
    if not (0 < info.width * info.height == len(msg.data) <= MAX_CELLS
            and isfinite(info.resolution) and info.resolution > 0
            and isfinite(position.x) and isfinite(position.y)):
        raise SpecError(f'a map of {info.width} x {info.height} cells of {info.resolution:g} m '
                        f'with {len(msg.data)} values, expected one value for each cell.')
    if abs(turn.x) + abs(turn.y) + abs(turn.z) > 1e-6:
        raise SpecError('a map whose cells are turned in its frame is not read.')
    cells = np.array(msg.data, np.int8).reshape(info.height, info.width)
    return FloorPlan(cells >= HALF, float(info.resolution), (position.x, position.y), cells < 0)
