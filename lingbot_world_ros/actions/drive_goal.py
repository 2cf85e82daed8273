# SPDX-License-Identifier: Apache-2.0
"""Where a robot is to be driven by planning, and how far it has come: plain data, checked."""
from dataclasses import dataclass
from typing import Optional, Tuple

from lingbot_world_ros.errors import shown, SpecError
import numpy as np

NEAR_M, NEAR_RAD = 0.15, 0.2  # how near is there, where nothing else is asked for
TIME_LIMIT_S = 60.0  # of sim time
LONGEST_S = 24 * 3600.0


@dataclass(frozen=True)
class DriveGoal:
    """
    A pose on the floor, or a picture.

    ``pose`` (3,) is x, y [m], yaw [rad] in the frame named ``frame_id``; ``rgb`` (h, w, 3) uint8
    is what the camera shall show, None where the goal is the pose. ``near_m`` and ``near_rad``
    tell how near to the pose is there, ``time_limit_s`` is of sim time; 0 is the default.
    """

    pose: Tuple[float, float, float] = (0.0, 0.0, 0.0)
    frame_id: str = ''
    rgb: Optional[np.ndarray] = None
    near_m: float = NEAR_M
    near_rad: float = NEAR_RAD
    time_limit_s: float = TIME_LIMIT_S

    def __post_init__(self) -> None:
        """Refuse what is no goal, whatever room the robot is in."""
        if self.rgb is None and not np.isfinite(self.pose).all():
            raise SpecError(f'The pose of the goal is not finite: {list(self.pose)}.')
        for name, unit, value, limit in (
                ('position_tolerance', 'm', self.near_m, 10.0),
                ('angle_tolerance', 'rad', self.near_rad, np.pi),
                ('time_limit', 's', self.time_limit_s, LONGEST_S)):
            if not 0.0 <= value <= limit:
                raise SpecError(f'{name}={value:g} {unit} must be from 0 (the default) to '
                                f'{limit:g} {unit}.')
        for name, default in (('near_m', NEAR_M), ('near_rad', NEAR_RAD),
                              ('time_limit_s', TIME_LIMIT_S)):
            object.__setattr__(self, name, getattr(self, name) or default)

    def check_frame(self, known: Tuple[str, ...]) -> None:
        """
        Refuse a pose in a frame that nobody knows here.

        :param known: names of frames
        :raises SpecError: another one
        """
        if self.rgb is None and self.frame_id not in known:
            raise SpecError(f'The goal is in frame {shown(self.frame_id)}; give it in '
                            f'{" or ".join(known)}.')


@dataclass(frozen=True)
class DriveProgress:
    """
    How far a robot has come, and what was planned.

    ``way_m`` and ``off_rad`` are None where the goal is a picture, ``difference`` (0 to 1) where
    it is a pose, ``deviation_m`` where the engine does not estimate it. ``path`` (s, 3) are poses
    of the plan in the scene frame, x, y [m], yaw [rad].
    """

    way_m: Optional[float]
    off_rad: Optional[float]
    difference: Optional[float]
    succeeds: bool
    deviation_m: Optional[float]
    seconds: float  # wall time that the plan took
    path: np.ndarray
