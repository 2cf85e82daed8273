# SPDX-License-Identifier: Apache-2.0
"""The pinhole camera on a robot: what it sees, and where it is. NumPy only."""
from dataclasses import dataclass

from lingbot_world_ros.geometry import se3
from lingbot_world_ros.geometry.rotation import rpy_from_rotation
import numpy as np

# REP-103: optical x right = -y of the link, y down = -z, z forward = x.
T_LINK_OPTICAL = np.array([[0.0, 0.0, 1.0, 0.0],
                           [-1.0, 0.0, 0.0, 0.0],
                           [0.0, -1.0, 0.0, 0.0],
                           [0.0, 0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class CameraSpec:
    """
    Pinhole camera without distortion.

    ``fovy_rad`` is the vertical field of view; square pixels, principal point in the middle.
    Position in ``base_link`` [m]; ``pitch_rad`` is positive when it looks down, ``yaw_rad`` to
    the left, ``roll_rad`` when it leans to the right; about fixed axes, as in a URDF.
    """

    width_px: int = 160
    height_px: int = 120
    fovy_rad: float = np.deg2rad(60.0)
    position_m: tuple = (-0.18, 0.0, 1.15)
    pitch_rad: float = np.deg2rad(22.0)
    roll_rad: float = 0.0
    yaw_rad: float = 0.0

    @classmethod
    def at(cls, T_base_camera_link: np.ndarray, width_px: int, height_px: int,
           fovy_rad: float) -> 'CameraSpec':
        """
        Make the camera of a link.

        :param T_base_camera_link: (4, 4) pose in base_link of a link that looks along its x
        :param width_px: of the image
        :param height_px: of the image
        :param fovy_rad: vertical field of view
        :return: the camera
        """
        roll, pitch, yaw = rpy_from_rotation(T_base_camera_link[:3, :3])
        return cls(width_px, height_px, fovy_rad, tuple(T_base_camera_link[:3, 3].tolist()),
                   pitch, roll, yaw)

    @property
    def focal_px(self) -> float:
        """Focal length in pixels, the same for both axes."""
        return 0.5 * self.height_px / np.tan(0.5 * self.fovy_rad)

    @property
    def k(self) -> np.ndarray:
        """Return the (3, 3) float64 intrinsics; pixel centres at +0.5, as OpenGL renders."""
        f = self.focal_px
        return np.array([[f, 0.0, 0.5 * self.width_px - 0.5],
                         [0.0, f, 0.5 * self.height_px - 0.5],
                         [0.0, 0.0, 1.0]])

    @property
    def T_base_camera_link(self) -> np.ndarray:
        """Return the (4, 4) float64 pose of camera_link in base_link."""
        return se3.pose_from_rpy(self.position_m, (self.roll_rad, self.pitch_rad, self.yaw_rad))

    @property
    def T_base_optical(self) -> np.ndarray:
        """Return the (4, 4) float64 pose of camera_optical_frame in base_link."""
        return self.T_base_camera_link @ T_LINK_OPTICAL
