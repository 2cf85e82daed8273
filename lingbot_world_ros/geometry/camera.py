# SPDX-License-Identifier: Apache-2.0
"""The pinhole camera on a robot: what it sees, and where it is. NumPy only."""
from dataclasses import dataclass

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
    Position in ``base_link`` [m]; ``pitch_rad`` is positive when it looks down.
    """

    width_px: int = 160
    height_px: int = 120
    fovy_rad: float = np.deg2rad(60.0)
    position_m: tuple = (-0.18, 0.0, 1.15)
    pitch_rad: float = np.deg2rad(22.0)

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
        c, s = np.cos(self.pitch_rad), np.sin(self.pitch_rad)
        T = np.eye(4)
        T[:3, :3] = [[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]]
        T[:3, 3] = self.position_m
        return T

    @property
    def T_base_optical(self) -> np.ndarray:
        """Return the (4, 4) float64 pose of camera_optical_frame in base_link."""
        return self.T_base_camera_link @ T_LINK_OPTICAL
