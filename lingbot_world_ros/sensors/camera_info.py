# SPDX-License-Identifier: Apache-2.0
"""The pinhole camera <-> sensor_msgs/CameraInfo."""
from typing import Optional

from lingbot_world_ros.sensors.stamps import set_stamp
from lingbot_world_ros.worlds.robot import CameraSpec
import numpy as np
from sensor_msgs.msg import CameraInfo


def camera_info_to_msg(camera: CameraSpec, stamp_ns: int, frame_id: str,
                       out: Optional[CameraInfo] = None) -> CameraInfo:
    """
    Write the calibration that belongs to an image.

    :param camera: the camera that made it; no distortion
    :param stamp_ns: sim time of the image
    :param frame_id: optical frame
    :param out: message of the same camera to stamp again; None makes one
    :return: the message
    """
    if out is None:
        k = camera.k
        out = CameraInfo(width=camera.width_px, height=camera.height_px,
                         distortion_model='plumb_bob', d=[0.0] * 5, k=k.ravel(),
                         r=np.eye(3).ravel(), p=np.hstack([k, np.zeros((3, 1))]).ravel())
        out.header.frame_id = frame_id
    set_stamp(out.header.stamp, stamp_ns)
    return out


def project(msg: CameraInfo, points_m: np.ndarray) -> np.ndarray:
    """
    Project points into the image a CameraInfo belongs to.

    :param msg: calibration without distortion
    :param points_m: (n, 3) in the optical frame, z more than 0
    :return: (n, 2) float64 u, v pixels, (0, 0) the centre of the upper left pixel
    """
    uvw = np.asarray(points_m) @ np.array(msg.p).reshape(3, 4)[:, :3].T
    return uvw[:, :2] / uvw[:, 2:]
