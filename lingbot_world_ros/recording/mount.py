# SPDX-License-Identifier: Apache-2.0
"""Where the camera of a recording sits on its robot, corrected by the floor that it sees."""
from typing import Tuple

from lingbot_world_ros.geometry import se3
from lingbot_world_ros.geometry.camera import MountedCamera
from lingbot_world_ros.geometry.rotation import rpy_from_rotation
from lingbot_world_ros.models.mapped.surfaces import fit_surfaces
from lingbot_world_ros.recording.aligned import AlignedRecording
import numpy as np

FLOOR_BAND_M = 0.12
FLOOR_MAX_TILT = 0.12  # rad


def levelled(recording: AlignedRecording, mounts: np.ndarray,
             body: np.ndarray) -> Tuple[np.ndarray, float]:
    """
    Correct pitch, roll and height of a camera so that the floor is level, at z = 0.

    :param recording: with depth
    :param mounts: (n or 1, 4, 4) T_base_optical as recorded
    :param body: (h, w) pixels of the robot
    :return: the same, corrected, and by which angle [rad]
    """
    assert recording.depth is not None and recording.camera is not None
    points = []
    for i in np.linspace(0, recording.num_frames - 1, 40).astype(int):
        found = fit_surfaces(np.where(body, 0.0, np.asarray(recording.depth[i])),
                             recording.camera)
        T = mounts[0] if len(mounts) == 1 else mounts[i]
        xyz = se3.transformed(T, found.point[found.is_flat][::7])
        up = (found.normal[found.is_flat][::7] @ T[:3, :3].T)[:, 2]
        near = (up > 0.97) & (np.abs(xyz[:, 2]) < FLOOR_BAND_M + 0.06 * np.hypot(*xyz[:, :2].T)) \
            & (np.hypot(*xyz[:, :2].T) < 3.0)
        points.append(xyz[near])
    floor = np.concatenate(points)
    if len(floor) < 500:
        return mounts, 0.0
    keep = np.ones(len(floor), bool)
    plane = np.zeros(3)
    for _ in range(4):  # z = a x + b y + c, what is off it left out
        A = np.column_stack([floor[keep, :2], np.ones(keep.sum())])
        plane, *_ = np.linalg.lstsq(A, floor[keep, 2], rcond=None)
        off = floor[:, 2] - floor[:, :2] @ plane[:2] - plane[2]
        keep = np.abs(off) < max(3.0 * float(np.median(np.abs(off))), 0.005)
    tilt = float(np.hypot(*plane[:2]))
    if tilt > FLOOR_MAX_TILT:
        return mounts, 0.0
    normal = np.array([-plane[0], -plane[1], 1.0]) / np.sqrt(1.0 + tilt ** 2)
    axis = np.cross(normal, [0.0, 0.0, 1.0])
    K = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    R = np.eye(3) + K + K @ K / (1.0 + normal[2])
    fix = se3.pose([0.0, 0.0, 0.0], R) @ se3.pose([0.0, 0.0, -plane[2]])
    return fix @ mounts, tilt


def mounted_camera(recording: AlignedRecording, mounts: np.ndarray) -> MountedCamera:
    """Return the camera where it was in the first frame."""
    assert recording.camera is not None
    T = mounts[0] @ np.linalg.inv(se3.pose([0, 0, 0], np.array(
        [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])))
    return recording.camera.mounted(T[:3, 3].tolist(), rpy_from_rotation(T[:3, :3]))
