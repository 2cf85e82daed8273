# SPDX-License-Identifier: Apache-2.0
"""Where the robot has been since the reset, or since it was put elsewhere -> nav_msgs/Path."""
import math
from typing import Iterable, Optional, Tuple

from geometry_msgs.msg import PoseStamped
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.messages.frames import FrameNames, planar_pose_to_msg
from lingbot_world_ros.messages.stamps import set_stamp
from nav_msgs.msg import Path
import numpy as np

MAX_POSES = 2000
MIN_MOVE_M, MIN_TURN_RAD = 0.05, 0.1
PERIOD_NS = 500_000_000  # least sim time between two messages
PERIOD_PER_POSE_NS = 1_000_000  # a long path comes less often: it is 80 bytes a pose, each time


class Trail:
    """
    The newest poses of the base, thinned out to what a line needs.

    The message is kept and grows with the robot's way: a subscriber that comes late sees it all.
    """

    def __init__(self, frames: FrameNames):
        """Begin without a pose."""
        self._frame_id = frames.odom
        self.clear()

    def clear(self) -> None:
        """Forget all poses: odometry starts over."""
        self._msg = Path()
        self._newest: Optional[Tuple[float, float, float]] = None
        self._sent_ns: Optional[int] = None
        self._origin: Optional[np.ndarray] = None
        self._msg.header.frame_id = self._frame_id

    def add(self, pose_odom: Iterable[float], stamp_ns: int) -> None:
        """
        Keep a pose if the base moved or turned enough since the one before.

        :param pose_odom: (3,) x, y [m], yaw [rad] of base_link in odom, yaw not wrapped
        :param stamp_ns: sim time
        """
        x_m, y_m, yaw_rad = (float(value) for value in pose_odom)
        if self._newest is not None:
            before_x_m, before_y_m, before_rad = self._newest
            if (math.hypot(x_m - before_x_m, y_m - before_y_m) < MIN_MOVE_M
                    and abs(yaw_rad - before_rad) < MIN_TURN_RAD):
                return
        self._newest = x_m, y_m, yaw_rad
        self._msg.poses.append(self._pose(self._newest, stamp_ns))
        if len(self._msg.poses) > MAX_POSES:
            del self._msg.poses[0]

    def note_origin(self, origin: np.ndarray, pose_odom: np.ndarray) -> None:
        """
        Forget all poses if the base was put elsewhere, since odometry did not notice.

        In odom they would be a way that goes on, in the scene they would all have moved.

        :param origin: (3,) x, y [m], yaw [rad] of odom in the scene
        :param pose_odom: (3,) of base_link in odom
        """
        before, self._origin = self._origin, origin
        if before is None or np.array_equal(before, origin):
            return
        x_m, y_m, yaw_rad = se2.relative(se2.compose(before, pose_odom),
                                         se2.compose(origin, pose_odom))
        if math.hypot(x_m, y_m) >= MIN_MOVE_M or abs(yaw_rad) >= MIN_TURN_RAD:
            self.clear()
            self._origin = origin

    def is_due(self, stamp_ns: int) -> bool:
        """Return whether enough sim time has passed since the message was taken."""
        period_ns = max(PERIOD_NS, PERIOD_PER_POSE_NS * len(self._msg.poses))
        return self._sent_ns is None or not 0 <= stamp_ns - self._sent_ns < period_ns

    def take(self, stamp_ns: int) -> Path:
        """
        Return the path so far.

        :param stamp_ns: sim time, of the message
        :return: kept and filled on; publish it before the next ``add``
        """
        self._sent_ns = stamp_ns
        set_stamp(self._msg.header.stamp, stamp_ns)
        return self._msg

    def _pose(self, pose: Tuple[float, float, float], stamp_ns: int) -> PoseStamped:
        stamped = PoseStamped()
        stamped.header.frame_id = self._frame_id
        set_stamp(stamped.header.stamp, stamp_ns)
        planar_pose_to_msg(pose, stamped.pose)
        return stamped
