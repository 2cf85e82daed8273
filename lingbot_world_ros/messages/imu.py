# SPDX-License-Identifier: Apache-2.0
"""
The motion of a base on a floor as an inertial sensor in its origin feels it -> sensor_msgs/Imu.

Gyroscope and accelerometer with white noise of a known density, no bias. Axes are those of the
base (REP 145: at rest z reads plus one g); no orientation is given.
"""
from typing import NamedTuple, Optional

from lingbot_world_ros.geometry import se2
from lingbot_world_ros.messages.stamps import set_stamp
from lingbot_world_ros.messages.state import EXACT_VARIANCE
from lingbot_world_ros.session.frame import Frame
import numpy as np
from sensor_msgs.msg import Imu

GRAVITY_MPS2 = 9.80665  # standard


class Reading(NamedTuple):
    """``angular_velocity`` (3,) rad/s, ``linear_acceleration`` (3,) m/s^2, axes of the base."""

    angular_velocity: np.ndarray
    linear_acceleration: np.ndarray


class PlanarImu:
    """
    An inertial measurement unit that is read once a frame.

    What noise a frame has depends on seed and frame alone, not on who listened before.
    """

    def __init__(self, period_s: float, gyroscope_noise_density: float,
                 accelerometer_noise_density: float) -> None:
        """
        Work out how much noise a reading has: density over the root of the period.

        :param period_s: sim time between readings
        :param gyroscope_noise_density: rad/s/sqrt(Hz), 0 or more
        :param accelerometer_noise_density: m/s^2/sqrt(Hz), 0 or more
        """
        self.gyroscope_std_radps = gyroscope_noise_density / np.sqrt(period_s)
        self.accelerometer_std_mps2 = accelerometer_noise_density / np.sqrt(period_s)

    def read(self, frame: Frame, before: Optional[Frame], seed: int) -> Reading:
        """
        Feel the motion at a frame.

        The turn rate is that at the frame, the acceleration the mean since the frame before.

        :param frame: where the base is, and how it moves
        :param before: the frame before it; None if the base was somewhere else, or nowhere
        :param seed: of the world
        :return: what is measured
        """
        noise = np.random.default_rng([seed, max(frame.index, 0)]).standard_normal(6)
        force = np.array([*motion_mps2(frame, before), GRAVITY_MPS2])
        return Reading(
            np.array([0.0, 0.0, frame.base_twist[2]]) + self.gyroscope_std_radps * noise[:3],
            force + self.accelerometer_std_mps2 * noise[3:])


def motion_mps2(frame: Frame, before: Optional[Frame]) -> np.ndarray:
    """
    Return how a base accelerates, (2,) m/s^2 along its x and y.

    :param frame: the newest
    :param before: the frame before it; without one its speed along its own axes is taken as steady
    """
    v_x, v_y, w_z = frame.base_twist
    if before is None or frame.stamp_ns <= before.stamp_ns:
        return np.array([-w_z * v_y, w_z * v_x])
    velocities = [se2.rotated(f.base_twist[:2], f.base_pose[2]) for f in (before, frame)]
    mean = (velocities[1] - velocities[0]) / ((frame.stamp_ns - before.stamp_ns) * 1e-9)
    # Along the axes halfway, where a steady turn pulls exactly to the side.
    return se2.rotated(mean, -0.5 * (before.base_pose[2] + frame.base_pose[2]))


def imu_to_msg(reading: Reading, imu: PlanarImu, stamp_ns: int, frame_id: str,
               out: Optional[Imu] = None) -> Imu:
    """
    Write what an IMU measured.

    :param reading: of it
    :param imu: whose noise the covariances tell
    :param stamp_ns: sim time
    :param frame_id: base or IMU frame
    :param out: message of the same IMU to fill again; None makes one
    :return: the message; ``orientation_covariance[0]`` is -1, for there is none
    """
    if out is None:
        out = Imu()
        out.orientation_covariance[0] = -1.0
        for covariance, std in ((out.angular_velocity_covariance, imu.gyroscope_std_radps),
                                (out.linear_acceleration_covariance, imu.accelerometer_std_mps2)):
            # All zeros would read as unknown.
            covariance[[0, 4, 8]] = max(float(std) ** 2, EXACT_VARIANCE * (std == 0.0))
        out.header.frame_id = frame_id
    set_stamp(out.header.stamp, stamp_ns)
    turn, force = out.angular_velocity, out.linear_acceleration
    turn.x, turn.y, turn.z = reading.angular_velocity.tolist()
    force.x, force.y, force.z = reading.linear_acceleration.tolist()
    return out
