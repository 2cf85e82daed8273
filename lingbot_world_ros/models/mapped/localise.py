# SPDX-License-Identifier: Apache-2.0
"""
Where a robot is in a learned place, from what its depth camera sees. NumPy only.

The start is searched for everywhere: upright points of a few views, put together by odometry, are
laid over the place at every position and heading, and the best fits are refined. From there on
each view is fitted to the place, with odometry as a loose prior. Only what lies before a frame
decides on it. Axes: n frame, m point, p position, k candidate.

Source: likelihood field (Thrun, Burgard and Fox 2005, 6.4), refined by Gauss-Newton.
"""
from dataclasses import dataclass
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.models.mapped.distances import Distances
from lingbot_world_ros.models.mapped.registration import (MIN_POINTS, Points, PRIOR_M, PRIOR_RAD,
                                                          SIGMA_M)
import numpy as np

SPOT_M, YAW_RAD = 0.1, np.deg2rad(3.0)  # steps of the search
MAX_TRIED = 4_000_000  # poses; steps grow with the place
SEARCH_POINTS, FIT_POINTS, VIEW_POINTS = 160, 1500, 600
SEARCH_REACH_M = 0.3  # what is farther off counts as so far
ROWS_AT_ONCE = 2048
APART_M, APART_RAD = 0.25, np.deg2rad(12.0)  # nearer candidates are one
NUM_CANDIDATES, NUM_DRAWN = 48, 6
START_REACH_M = (0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.1, 0.1)  # per iteration
FOLLOW_REACH_M = (0.2, 0.12, 0.08, 0.08)
NEAR_M = 0.08  # of a surface
MIN_NEAR = 0.75  # share of points that have to be so near: less, and it is another place
MIN_NEAR_OF_VIEW = 0.5  # the same of a single view: less, and odometry decides
AS_GOOD = 0.08  # share of points near by which candidates may differ and be told by pictures
SAME_WAY = 0.3  # cosine between the normal of a point and the slope of distances
MAX_LOST = 45  # frames on odometry alone after which a place is not known


class Located(NamedTuple):
    """A start that was found."""

    pose: np.ndarray  # (3,) x, y [m], yaw [rad] in the scene, of the last view
    near: float  # share of points on surfaces
    residual_m: float  # median distance of these
    num_rivals: int  # other places where it might have been, told apart by pictures


@dataclass(frozen=True)
class Followed:
    """Where a robot was from its start on."""

    pose: np.ndarray  # (n, 3)
    is_known: np.ndarray  # (n,) bool; False where it was lost for long
    residual_m: np.ndarray  # (n,) median distance to surfaces, NaN where odometry decided


class _Fit(NamedTuple):
    pose: np.ndarray
    near: float
    residual_m: float


def together(views: Sequence[Points], odometry: np.ndarray) -> Points:
    """
    Put views into the frame of the last one.

    :param views: what was seen, each from its own base
    :param odometry: (n, 3) poses of these bases
    :return: all points
    """
    xyz, normals = [], []
    for view, pose in zip(views, se2.relative(odometry[-1], odometry)):
        xy = pose[:2] + se2.rotated(view.xyz[:, :2], pose[2])
        xyz.append(np.column_stack([xy, view.xyz[:, 2]]))
        normals.append(se2.rotated(view.normal, pose[2]))
    return Points(np.concatenate(xyz), np.concatenate(normals))


def locate(distances: Distances, spots: np.ndarray, views: Sequence[Points],
           odometry: np.ndarray, unlike: Callable[[np.ndarray], float]) -> Located:
    """
    Search a place for a robot.

    :param distances: of the place
    :param spots: (p, 2) where a robot can be, a grid of free cells
    :param views: what it saw lately
    :param odometry: (n, 3) poses of these views, in any frame
    :param unlike: pose of the last view (3,) -> how far drawn pictures are from those recorded
    :return: where it is at the last view
    :raises SpecError: it sees too little, or fits nowhere
    """
    points = together(views, odometry)
    if len(points.xyz) < MIN_POINTS:
        raise SpecError('The depth images at the start show next to no walls: it cannot be '
                        'found where in the place that is. Begin where something stands around.')
    few, many = _thinned(points, SEARCH_POINTS), _thinned(points, FIT_POINTS)
    found = [_fitted(distances, many, guess, START_REACH_M)
             for guess in _searched(distances, spots, few.xyz)]
    found = _apart(sorted(found, key=lambda fit: -fit.near))
    best = found[0]
    if best.near < MIN_NEAR:
        raise SpecError(f'The recording does not fit this place: at best {100 * best.near:.0f} % '
                        f'of what its depth images show at the start is where the place has a '
                        f'surface (at least {100 * MIN_NEAR:.0f} %). Is it of another place?')
    rivals = [fit for fit in found if fit.near > best.near - AS_GOOD][:NUM_DRAWN]
    if len(rivals) > 1:
        best = min(rivals, key=lambda fit: unlike(fit.pose))
    return Located(best.pose, best.near, best.residual_m, len(rivals) - 1)


def follow(distances: Distances, points_of: Callable[[int], Points], odometry: np.ndarray,
           start: np.ndarray,
           on_progress: Callable[[int, int], None] = lambda done, total: None) -> Followed:
    """
    Follow a robot through a place.

    :param distances: of the place
    :param points_of: what a frame sees, ``upright_points``
    :param odometry: (n, 3) from the start on, in any frame
    :param start: (3,) where it is in the first frame, scene frame
    :param on_progress: called with frames done and their number
    :return: where it is in each of them
    """
    pose, num_lost = np.array(start, np.float64), 0
    poses, known, residuals = [pose], [True], [np.nan]
    for i in range(1, len(odometry)):
        step = se2.relative(odometry[i - 1], odometry[i])
        guess = se2.compose(pose, step)
        fit = _view_fitted(distances, points_of(i), guess, step)
        num_lost = num_lost + 1 if fit is None else 0
        pose = guess if fit is None else fit.pose
        poses.append(pose)
        known.append(num_lost <= MAX_LOST)
        residuals.append(np.nan if fit is None else fit.residual_m)
        on_progress(i + 1, len(odometry))
    return Followed(np.array(poses), np.array(known), np.array(residuals))


def _thinned(points: Points, num: int) -> Points:
    """Keep about so many of them, spread over all views; the same ones every time."""
    some = np.random.default_rng(0).permutation(len(points.xyz))[:num]
    return Points(points.xyz[some], points.normal[some])


def _searched(distances: Distances, spots: np.ndarray, xyz: np.ndarray) -> List[np.ndarray]:
    """Lay points over a place everywhere; returns the poses that fit best, well apart."""
    yaws = np.arange(-np.pi, np.pi - 1e-9, YAW_RAD)
    spots = spots[::max(1, -(-len(spots) * len(yaws) // MAX_TRIED))]
    table = distances.table(SEARCH_REACH_M)
    flat, high = table.ravel(), np.array(table.shape) - 1
    strides = np.array([table.shape[1] * table.shape[2], table.shape[2], 1])
    z = np.clip(np.rint((xyz[:, 2] - distances.low_m[2]) / distances.step_m[2]) + 1, 0,
                high[2]).astype(np.int32)
    base = (spots - distances.low_m[:2]) / distances.step_m[:2] + 1.5
    cost = np.empty((len(yaws), len(spots)), np.float32)
    for row, yaw in enumerate(yaws):
        off = se2.rotated(xyz[:, :2], np.full(len(xyz), yaw)) / distances.step_m[:2]
        for first in range(0, len(spots), ROWS_AT_ONCE):
            at = base[first:first + ROWS_AT_ONCE, None] + off  # p m 2
            i = np.clip(at[..., 0], 0, high[0]).astype(np.int32)
            j = np.clip(at[..., 1], 0, high[1]).astype(np.int32)
            cost[row, first:first + ROWS_AT_ONCE] = flat[i * strides[0] + j * strides[1]
                                                         + z].mean(1)
    order = np.argsort(cost, axis=None)[:100 * NUM_CANDIDATES]
    rows, columns = np.unravel_index(order, cost.shape)
    return _first_apart(np.column_stack([spots[columns], yaws[rows]]), NUM_CANDIDATES)


def _first_apart(poses: np.ndarray, num: int) -> List[np.ndarray]:
    """Return the first poses that are no neighbours of those before them."""
    kept: List[np.ndarray] = []
    for pose in poses:
        if len(kept) < num and all(_is_apart(pose, other) for other in kept):
            kept.append(pose)
    return kept


def _apart(fits: Sequence[_Fit]) -> List[_Fit]:
    """Return fits without those that came out where a better one is."""
    kept: List[_Fit] = []
    for fit in fits:
        if all(_is_apart(fit.pose, other.pose) for other in kept):
            kept.append(fit)
    return kept


def _is_apart(a: np.ndarray, b: np.ndarray) -> bool:
    turn = np.arctan2(np.sin(a[2] - b[2]), np.cos(a[2] - b[2]))
    return bool(np.hypot(*(a - b)[:2]) > APART_M or abs(turn) > APART_RAD)


def _view_fitted(distances: Distances, points: Points, guess: np.ndarray,
                 step: np.ndarray) -> Optional[_Fit]:
    """Fit one view near a guess; None where it says too little."""
    if len(points.xyz) < MIN_POINTS:
        return None
    sigma = np.array([PRIOR_M[0] + PRIOR_M[1] * np.hypot(*step[:2])] * 2
                     + [PRIOR_RAD[0] + PRIOR_RAD[1] * abs(step[2])])
    fit = _fitted(distances, _thinned(points, VIEW_POINTS), guess, FOLLOW_REACH_M,
                  1.0 / sigma ** 2)
    return fit if fit.near >= MIN_NEAR_OF_VIEW else None


def _fitted(distances: Distances, points: Points, guess: np.ndarray, reach_m: Sequence[float],
            prior: np.ndarray = np.full(3, 1e-3)) -> _Fit:
    """Refine a pose: points have to come to where distances are zero."""
    pose = np.array(guess, np.float64)
    for reach in reach_m:
        value, slope, hit, arm = _looked_up(distances, points, pose)
        hit &= np.abs(value) < reach
        off, n = value[hit], slope[hit]
        if len(off) < 3:
            break
        jacobian = np.column_stack([n, n[:, 1] * arm[hit, 0] - n[:, 0] * arm[hit, 1]])
        scale = max(1.5 * float(np.median(np.abs(off))), SIGMA_M)
        weight = 1.0 / np.maximum(np.abs(off) / scale, 1.0) / SIGMA_M ** 2 / 8.0  # correlated
        information = (jacobian * weight[:, None]).T @ jacobian + np.diag(prior)
        right = -(jacobian * weight[:, None]).T @ off + (guess - pose) * prior
        pose = pose + np.linalg.solve(information, right)
    value, _, hit, _ = _looked_up(distances, points, pose)
    near = hit & (np.abs(value) < NEAR_M)
    return _Fit(pose, float(near.mean()),
                float(np.median(np.abs(value[near]))) if near.any() else np.inf)


def _looked_up(distances: Distances, points: Points,
               pose: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return distances, slopes, whether a surface looks the right way, and arms of points."""
    arm = se2.rotated(points.xyz[:, :2], np.full(len(points.xyz), pose[2]))
    value, slope, inside = distances.at(np.column_stack([pose[:2] + arm, points.xyz[:, 2]]))
    normal = se2.rotated(points.normal, np.full(len(arm), pose[2]))
    return value, slope, inside & ((normal * slope).sum(1) > SAME_WAY), arm
