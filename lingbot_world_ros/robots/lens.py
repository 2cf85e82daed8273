# SPDX-License-Identifier: Apache-2.0
"""
How lenses bend rays: the models of sensor_msgs/CameraInfo, computed by OpenCV.

plumb_bob (5 coefficients), rational_polynomial (8) and equidistant (4). Rays are told by their
slopes x/z and y/z in the optical frame.
"""
from typing import Sequence

import numpy as np

NUM_COEFFICIENTS = {'plumb_bob': 5, 'rational_polynomial': 8, 'equidistant': 4}
EQUIDISTANT = 'equidistant'  # fisheye in OpenCV's words
TOLERANCE = 1e-6  # of a slope: below a thousandth of a pixel
MAX_ITERATIONS = 100  # a usual lens needs 10
BLOCK = 1 << 16  # points at a time: OpenCV makes derivatives too, 144 bytes a number
NO_CAMERA = np.eye(3)  # slopes in, slopes out
NO_MOTION = np.zeros(3)


def distort(model: str, coefficients: Sequence[float], slopes: np.ndarray) -> np.ndarray:
    """
    Return where a lens sends rays.

    :param model: one of ``NUM_COEFFICIENTS``
    :param coefficients: as many as it says
    :param slopes: (..., 2)
    :return: (..., 2) float64 slopes behind the lens
    """
    import cv2
    slopes = np.ascontiguousarray(slopes, np.float64)  # OpenCV misreads some that are not
    flat, d = slopes.reshape(-1, 1, 2), np.array(coefficients, np.float64)
    bent = np.empty_like(flat)
    for start in range(0, len(flat), BLOCK):
        part = flat[start:start + BLOCK]
        if model == EQUIDISTANT:
            bent[start:start + BLOCK] = cv2.fisheye.distortPoints(part, NO_CAMERA, d)
        else:
            points = np.insert(part, 2, 1.0, axis=-1)
            bent[start:start + BLOCK] = cv2.projectPoints(points, NO_MOTION, NO_MOTION, NO_CAMERA,
                                                          d)[0]
    return bent.reshape(slopes.shape)


def undistort(model: str, coefficients: Sequence[float], bent: np.ndarray) -> np.ndarray:
    """
    Return which rays a lens sends somewhere; the inverse of ``distort``.

    :param model: one of ``NUM_COEFFICIENTS``
    :param coefficients: as many as it says
    :param bent: (..., 2) slopes behind the lens
    :return: (..., 2) float64; NaN where there is no such ray, or none is found
    """
    bent = np.ascontiguousarray(bent, np.float64)
    flat, d = bent.reshape(-1, 1, 2), np.array(coefficients, np.float64)
    slopes = (_unbend_equidistant if model == EQUIDISTANT else _unbend)(flat, d)
    slopes = slopes.reshape(bent.shape)
    with np.errstate(all='ignore'):
        error = np.abs(distort(model, coefficients, slopes) - bent).max(-1)
    slopes[~(error < TOLERANCE)] = np.nan  # what OpenCV returns there is a guess
    return slopes


def _unbend(flat: np.ndarray, d: np.ndarray) -> np.ndarray:
    import cv2
    stop = cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, MAX_ITERATIONS, 1e-3 * TOLERANCE
    if hasattr(cv2, 'undistortPointsIter'):  # OpenCV 4 has a function for those who want it exact
        return cv2.undistortPointsIter(flat, NO_CAMERA, d, None, None, stop)
    return cv2.undistortPoints(flat, NO_CAMERA, d, criteria=stop)


def _unbend_equidistant(flat: np.ndarray, d: np.ndarray) -> np.ndarray:
    import cv2
    return cv2.fisheye.undistortPoints(flat, NO_CAMERA, d)
