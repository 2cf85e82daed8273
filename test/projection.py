# SPDX-License-Identifier: Apache-2.0
"""Points onto pixels, as who hears a CameraInfo puts them there."""
from lingbot_world_ros.robots.calibration import Calibration, camera_from_k
import numpy as np


def project(msg, points_m):
    """Project (n, 3) points in the optical frame to (n, 2) pixels u, v as a CameraInfo says."""
    camera = camera_from_k(msg.width, msg.height, np.array(msg.k).reshape(3, 3))
    return Calibration(camera, msg.distortion_model, tuple(msg.d)).project(points_m)
