# SPDX-License-Identifier: Apache-2.0
"""
Poses out of odometry that drifts: each view is registered to the surfaces seen so far.

Point-to-plane registration of upright surfaces, frame to model, on key frames; the odometry is a
loose prior. A place that is seen again is registered to how it was first seen, which closes loops
as long as the drift in between is within reach. Axes: n frame, m point.

Source: iterative closest point with planes (Chen and Medioni 1992), frame to model (KinectFusion,
Newcombe et al. 2011).
"""
from dataclasses import dataclass
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

from lingbot_world_ros.geometry import se2
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.geometry.se3 import transformed
from lingbot_world_ros.models.mapped.surfaces import fit_surfaces
import numpy as np

STRIDE_PX = 3
MAX_DEPTH_M = 5.5
UPRIGHT = 0.35  # largest vertical part of the normal of a wall
CELL_M = 0.04  # of the model, one point in each
REACH_M = (0.35, 0.2, 0.12, 0.08, 0.06, 0.05, 0.05, 0.05)  # per iteration
SAME_WAY = 0.75  # cosine between normals
SIGMA_M = 0.015  # of a point
MIN_POINTS = 60
MIN_INFORMATION = 30.0  # of the weakest direction: less, and the odometry decides
# The loose prior: standard deviations of a step of odometry, fixed and by its length.
PRIOR_M, PRIOR_RAD = (0.01, 0.12), (0.01, 0.12)


class Points(NamedTuple):
    """Upright surfaces around a robot, seen from above."""

    xyz: np.ndarray  # (m, 3) metres
    normal: np.ndarray  # (m, 2) unit, towards the robot


class Registered(NamedTuple):
    """Poses of all frames, and how they came about."""

    pose: np.ndarray  # (n, 3) x, y [m], yaw [rad], the first as given
    residual_m: np.ndarray  # (k,) median distance of the key frames' points to the model
    num_lost: int  # key frames that the odometry alone had to carry
    model: Points  # everything that was seen


@dataclass
class _Model:
    """Surfaces seen so far; one point for each cell."""

    xyz: np.ndarray
    normal: np.ndarray
    cells: set
    tree: Any = None  # cKDTree of ``xyz``
    num_in_tree: int = 0

    def add(self, points: Points, pose: np.ndarray) -> None:
        xyz, normal = _moved(points, pose)
        key = np.floor(xyz / CELL_M).astype(np.int64)
        facing = np.round(np.arctan2(normal[:, 1], normal[:, 0]) / 1.2).astype(np.int64)
        new = []
        for i, cell in enumerate(map(tuple, np.concatenate([key, facing[:, None]], 1))):
            if cell not in self.cells:
                self.cells.add(cell)
                new.append(i)
        self.xyz = np.concatenate([self.xyz, xyz[new]])
        self.normal = np.concatenate([self.normal, normal[new]])
        if self.tree is None or len(self.xyz) > 1.02 * self.num_in_tree:
            from scipy.spatial import cKDTree  # who only drives needs no SciPy
            self.tree, self.num_in_tree = cKDTree(self.xyz), len(self.xyz)


def upright_points(depth: np.ndarray, camera: PinholeCamera, T_base_optical: np.ndarray,
                   mask: np.ndarray, floor_m: float = 0.1) -> Points:
    """
    Look for walls in a depth image.

    :param depth: (h, w) metres, 0 where there is none
    :param camera: that took it
    :param T_base_optical: (4, 4) where it was
    :param mask: (h, w) bool, pixels of the robot itself
    :param floor_m: what is lower is floor
    :return: points and normals in base_link
    """
    depth = np.where(mask | (depth > MAX_DEPTH_M), 0.0, depth)
    found = fit_surfaces(depth, camera)
    some = np.zeros_like(found.is_flat)
    some[STRIDE_PX // 2::STRIDE_PX, STRIDE_PX // 2::STRIDE_PX] = True
    some &= found.is_flat
    xyz = transformed(T_base_optical, found.point[some])
    normal = found.normal[some] @ T_base_optical[:3, :3].T
    upright = (np.abs(normal[:, 2]) < UPRIGHT) & (xyz[:, 2] > floor_m)
    flat = normal[upright, :2]
    return Points(xyz[upright], flat / np.maximum(np.hypot(*flat.T), 1e-9)[:, None])


def register(odometry: np.ndarray, points_of: Callable[[int], Points], every: int,
             on_progress: Callable[[int, int], None] = lambda done, total: None) -> Registered:
    """
    Correct the drift of odometry.

    :param odometry: (n, 3) base poses
    :param points_of: what a frame sees, ``upright_points``
    :param every: frames from one key frame to the next
    :param on_progress: called with key frames done and their number
    :return: poses of all frames, corrections in between interpolated
    """
    keys = np.unique(np.append(np.arange(0, len(odometry), every), len(odometry) - 1))
    model = _Model(np.zeros((0, 3)), np.zeros((0, 2)), set())
    pose = odometry[0].astype(np.float64)
    poses, residuals, num_lost = [pose], [], 0
    model.add(points_of(0), pose)
    for done, (last, key) in enumerate(zip(keys[:-1], keys[1:])):
        step = se2.relative(odometry[last], odometry[key])
        guess = se2.compose(pose, step)
        points = points_of(int(key))
        pose, residual = _registered(model, points, guess, step)
        if residual is None:
            num_lost += 1
        else:
            residuals.append(residual)
        if residual is None or residual < 0.05:
            model.add(points, pose)
        poses.append(pose)
        on_progress(done + 1, len(keys) - 1)
    return Registered(spread(odometry, keys, np.array(poses)), np.array(residuals), num_lost,
                      Points(model.xyz, model.normal))


def spread(odometry: np.ndarray, keys: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """
    Give the frames between key frames their share of the correction.

    :param odometry: (n, 3)
    :param keys: (k,) indices of key frames, rising, the first 0, the last n - 1
    :param poses: (k, 3) corrected
    :return: (n, 3) corrected
    """
    index = np.clip(np.searchsorted(keys, np.arange(len(odometry)), side='right') - 1, 0,
                    max(len(keys) - 2, 0))
    begin, end = keys[index], keys[np.minimum(index + 1, len(keys) - 1)]
    share = (np.arange(len(odometry)) - begin) / np.maximum(end - begin, 1)
    from_begin = se2.compose(poses[index], se2.relative(odometry[begin], odometry))
    other = np.minimum(index + 1, len(keys) - 1)
    from_end = se2.compose(poses[other], se2.relative(odometry[end], odometry))
    off = from_end - from_begin
    off[:, 2] = np.arctan2(np.sin(off[:, 2]), np.cos(off[:, 2]))
    return from_begin + share[:, None] * off


def _moved(points: Points, pose: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    xy = pose[:2] + se2.rotated(points.xyz[:, :2], pose[2])
    return (np.column_stack([xy, points.xyz[:, 2]]), se2.rotated(points.normal, pose[2]))


def _registered(model: _Model, points: Points, guess: np.ndarray,
                step: np.ndarray) -> Tuple[np.ndarray, Optional[float]]:
    """Register a view; returns its pose, and the median distance, None where it is lost."""
    pose = guess.copy()
    sigma = np.array([PRIOR_M[0] + PRIOR_M[1] * np.hypot(*step[:2])] * 2
                     + [PRIOR_RAD[0] + PRIOR_RAD[1] * abs(step[2])])
    residual: Optional[float] = None
    if len(points.xyz) < MIN_POINTS or model.tree is None:
        return pose, None
    for reach in REACH_M:
        xyz, normal = _moved(points, pose)
        far, index = model.tree.query(xyz, distance_upper_bound=reach)
        hit = np.isfinite(far)
        hit[hit] &= (normal[hit] * model.normal[index[hit]]).sum(1) > SAME_WAY
        if hit.sum() < MIN_POINTS // 2:
            return pose, None
        n = model.normal[index[hit]]
        off = ((model.xyz[index[hit], :2] - xyz[hit, :2]) * n).sum(1)
        arm = xyz[hit, :2] - pose[:2]
        jacobian = np.column_stack([n, n[:, 1] * arm[:, 0] - n[:, 0] * arm[:, 1]])
        scale = max(1.5 * float(np.median(np.abs(off))), SIGMA_M)
        weight = 1.0 / np.maximum(np.abs(off) / scale, 1.0) / SIGMA_M ** 2 / 8.0  # correlated
        information = (jacobian * weight[:, None]).T @ jacobian
        right = (jacobian * weight[:, None]).T @ off + (guess - pose) / sigma ** 2
        pose = pose + np.linalg.solve(information + np.diag(1.0 / sigma ** 2), right)
        residual = float(np.median(np.abs(off)))
    return pose, residual


def rigidly_aligned(pose: np.ndarray, like: np.ndarray) -> np.ndarray:
    """
    Turn and move a path as a whole, to compare it with another.

    :param pose: (n, 3)
    :param like: (n, 3) in another frame
    :return: (n, 3) ``pose`` in that frame, positions least squares
    """
    a, b = pose[:, :2] - pose[:, :2].mean(0), like[:, :2] - like[:, :2].mean(0)
    yaw = float(np.arctan2((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum(), (a * b).sum()))
    out = np.empty_like(pose)
    out[:, :2] = se2.rotated(a, yaw) + like[:, :2].mean(0)
    out[:, 2] = pose[:, 2] + yaw
    return out


def pose_errors(pose: np.ndarray, true: np.ndarray) -> List[float]:
    """
    Compare paths after rigid alignment.

    :param pose: (n, 3)
    :param true: (n, 3)
    :return: root mean square of position [m] and of yaw [rad]
    """
    off = rigidly_aligned(pose, true) - true
    yaw = np.arctan2(np.sin(off[:, 2]), np.cos(off[:, 2]))
    yaw = np.arctan2(np.sin(yaw - yaw.mean()), np.cos(yaw - yaw.mean()))
    return [float(np.sqrt((off[:, :2] ** 2).sum(1).mean())), float(np.sqrt((yaw ** 2).mean()))]
