# SPDX-License-Identifier: Apache-2.0
"""
A depth image with its colours, or where a bumper is pressed -> sensor_msgs/PointCloud2.

The first as depth_image_proc makes one of registered images: organised, one point a pixel in the
order of the image, in the optical frame, metres; NaN where a depth is not more than 0 or not
finite.
"""
from array import array
from typing import List, Optional

from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.messages.stamps import set_stamp
from lingbot_world_ros.robots.calibration import Calibration
import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

POINT = np.dtype([('xyz', '<f4', 3), ('bgr', 'u1', 3), ('padding', 'u1')])


class DepthPoints:
    """Turns depth images of one camera into points of its optical frame."""

    def __init__(self, camera: Calibration) -> None:
        """
        Work out where each pixel looks.

        :param camera: that depth and colours are of, lens included
        """
        pinhole: PinholeCamera = camera.camera
        self._rays = camera.rays(pinhole.pixel_grid()).astype(np.float32)  # h w 3, z 1

    def points(self, depth_m: np.ndarray) -> np.ndarray:
        """
        Return the point of every pixel.

        :param depth_m: (h, w) float32, metres along the optical axis
        :return: (h, w, 3) float32 x right, y down, z ahead, metres
        """
        usable = np.where(np.isfinite(depth_m) & (depth_m > 0.0), depth_m, np.float32(np.nan))
        return self._rays * usable[..., None]


def points_to_msg(points: np.ndarray, rgb: np.ndarray, stamp_ns: int, frame_id: str,
                  out: Optional[PointCloud2] = None) -> PointCloud2:
    """
    Write a coloured point cloud.

    :param points: (h, w, 3) float32 metres in the optical frame
    :param rgb: (h, w, 3) uint8, of the same pixels
    :param stamp_ns: sim time
    :param frame_id: optical frame
    :param out: message of the same size to fill again; None makes one
    :return: the message, fields x y z rgb
    """
    height, width = points.shape[:2]
    if out is None or (out.height, out.width) != (height, width):
        out = PointCloud2(height=height, width=width, fields=_fields('x', 'y', 'z', 'rgb'),
                          point_step=POINT.itemsize, row_step=width * POINT.itemsize,
                          data=array('B', bytes(height * width * POINT.itemsize)))
    out.header.frame_id = frame_id
    set_stamp(out.header.stamp, stamp_ns)
    cloud = np.frombuffer(out.data, POINT).reshape(height, width)
    cloud['xyz'] = points
    cloud['bgr'] = rgb[..., ::-1]  # as PCL packs a colour into a little-endian float
    out.is_dense = bool(np.isfinite(points[..., 2]).all())
    return out


def rim_to_msg(bearings_rad: np.ndarray, radius_m: float, height_m: float, stamp_ns: int,
               frame_id: str, out: Optional[PointCloud2] = None) -> PointCloud2:
    """
    Write points around a base, as bumpers tell costmaps of what they hit.

    :param bearings_rad: (n,) directions, to the left of ahead; n may be 0
    :param radius_m: distance of the points from the axis of the base
    :param height_m: of all points
    :param stamp_ns: sim time
    :param frame_id: base frame
    :param out: message to fill again; None makes one
    :return: the message, fields x y z
    """
    points = np.stack([radius_m * np.cos(bearings_rad), radius_m * np.sin(bearings_rad),
                       np.full(len(bearings_rad), height_m)], -1).astype('<f4')
    out = out or PointCloud2(height=1, fields=_fields('x', 'y', 'z'), point_step=12, is_dense=True)
    out.header.frame_id = frame_id
    set_stamp(out.header.stamp, stamp_ns)
    out.width, out.row_step, out.data = len(points), points.nbytes, array('B', points.tobytes())
    return out


def _fields(*names: str) -> List[PointField]:
    """Describe float32 values that lie one after another in each point."""
    return [PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(names)]
