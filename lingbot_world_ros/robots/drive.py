# SPDX-License-Identifier: Apache-2.0
"""What a base can do: how fast it drives, strafes and turns. No ROS."""
from dataclasses import dataclass
from math import inf
from typing import Tuple, TypeVar

import numpy as np

Speed = TypeVar('Speed', float, np.ndarray)


@dataclass(frozen=True)
class Drive:
    """
    Velocities of a base in base_link; x forward, y left, turns to the left.

    A differential drive has no ``lateral_max_mps``. One steered like a car (Ackermann) turns on
    circles of at least 1 / ``max_curvature`` metres, and not where it stands.
    """

    linear_low_mps: float
    linear_high_mps: float
    angular_max_radps: float
    lateral_max_mps: float = 0.0
    max_curvature: float = inf  # 1/m

    @property
    def strafes(self) -> bool:
        """Whether it can move sideways."""
        return self.lateral_max_mps > 0.0

    @property
    def speed_max_mps(self) -> float:
        """Largest speed along one axis."""
        return max(abs(self.linear_low_mps), self.linear_high_mps, self.lateral_max_mps)

    @property
    def twist_range(self) -> Tuple[Tuple[float, float], ...]:
        """Lowest and highest v_x, v_y [m/s] and w_z [rad/s]."""
        return ((self.linear_low_mps, self.linear_high_mps),
                (-self.lateral_max_mps, self.lateral_max_mps),
                (-self.angular_max_radps, self.angular_max_radps))


def steered(v_mps: Speed, w_radps: Speed, max_curvature: float) -> Speed:
    """
    Turn no faster than steering allows at a speed.

    :param v_mps: forward; a number or an array
    :param w_radps: turn rate, of the same shape
    :param max_curvature: 1/m; infinite for a base that can turn where it stands
    :return: the turn rate
    """
    if max_curvature == inf:  # infinity times a speed of zero would not be a number
        return w_radps
    largest = np.abs(v_mps) * max_curvature
    return np.clip(w_radps, -largest, largest)
