# SPDX-License-Identifier: Apache-2.0
"""A camera calibration -> sensor_msgs/CameraInfo, and the cameras of our own messages."""
from typing import Optional, Union

from lingbot_world_ros.geometry.camera import PinholeCamera, require_pixels
from lingbot_world_ros.messages.stamps import set_stamp
from lingbot_world_ros.msg import ActionEmbedding as ActionEmbeddingMsg, WorldSpec as WorldSpecMsg
from lingbot_world_ros.robots.calibration import Calibration
import numpy as np
from sensor_msgs.msg import CameraInfo


def camera_from_msg(msg: Union[ActionEmbeddingMsg, WorldSpecMsg], what: str) -> PinholeCamera:
    """
    Read the camera of a message that has width, height and k.

    :param msg: ActionEmbedding or WorldSpec; k of zeros alone is that of a camera nobody knows
    :param what: name of the topic, begins the error
    :return: the camera
    :raises SpecError: k is not in pixels
    """
    camera = PinholeCamera.from_k(msg.width, msg.height, np.array(msg.k).reshape(3, 3))
    if np.any(msg.k):
        require_pixels(camera.fx_px, camera.fy_px, f'{what}: k')
    return camera


def camera_info_to_msg(calibration: Calibration, stamp_ns: int, frame_id: str,
                       out: Optional[CameraInfo] = None) -> CameraInfo:
    """
    Write the calibration that belongs to an image.

    :param calibration: of the camera that is shown
    :param stamp_ns: sim time of the image
    :param frame_id: optical frame
    :param out: message of the same camera to stamp again; None makes one
    :return: the message
    """
    if out is None:
        camera = calibration.camera
        assert calibration.p is not None  # made of k where none was given
        out = CameraInfo(width=camera.width_px, height=camera.height_px,
                         distortion_model=calibration.distortion_model, d=list(calibration.d),
                         k=camera.k.ravel(), r=calibration.r.ravel(), p=calibration.p.ravel())
        out.header.frame_id = frame_id
    set_stamp(out.header.stamp, stamp_ns)
    return out


def uncalibrated_to_msg(calibration: Calibration, stamp_ns: int, frame_id: str,
                        out: Optional[CameraInfo] = None) -> CameraInfo:
    """
    Write the size of an image whose camera nobody has calibrated.

    :param calibration: names the size; what it says besides is a guess
    :param stamp_ns: sim time of the image
    :param frame_id: optical frame
    :param out: message of the same camera to stamp again; None makes one
    :return: the message; K, R and P are zeros, as sensor_msgs/CameraInfo has it for such a camera
    """
    if out is None:
        camera = calibration.camera
        out = CameraInfo(width=camera.width_px, height=camera.height_px)
        out.header.frame_id = frame_id
    set_stamp(out.header.stamp, stamp_ns)
    return out
