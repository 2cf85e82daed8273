# SPDX-License-Identifier: Apache-2.0
"""
How lenses bend rays: the models of sensor_msgs/CameraInfo, computed by OpenCV.

plumb_bob (k1 k2 p1 p2 k3), rational_polynomial (also k4 k5 k6, then thin prisms s1 to s4, then the
tilt of the sensor tx ty) and equidistant (k1 to k4). Rays are told by their slopes x/z and y/z in
the optical frame.
"""
from typing import Sequence, Tuple

from lingbot_world_ros.errors import SpecError, unknown_name
import numpy as np

PLUMB_BOB, RATIONAL, EQUIDISTANT = 'plumb_bob', 'rational_polynomial', 'equidistant'
NUM_COEFFICIENTS = {PLUMB_BOB: (5,), RATIONAL: (8, 12, 14), EQUIDISTANT: (4,)}
OPENCV_COUNTS = (4, 5, 8, 12, 14)  # of one formula, what is missing at its end is 0
NO_LENS = ('', 'none')
FISHEYE = 'fisheye'  # equidistant in OpenCV's words
TOLERANCE = 1e-6  # of a slope: below a thousandth of a pixel
MAX_ITERATIONS = 100  # a usual lens needs 10
BLOCK = 1 << 16  # points at a time: OpenCV makes derivatives too, 144 bytes a number
NO_CAMERA = np.eye(3)  # slopes in, slopes out
NO_MOTION = np.zeros(3)


def lens_of_ros(model: str, coefficients: Sequence[float]) -> Tuple[str, Tuple[float, ...]]:
    """
    Read a lens as drivers write it, and bring it to what sensor_msgs/CameraInfo says of it.

    image_pipeline hands the coefficients of plumb_bob and rational_polynomial to OpenCV whatever
    the model is called: how many there are says what they mean. ``none`` and an empty name are no
    lens, ``fisheye`` is equidistant.

    :param model: its name
    :param coefficients: none at all is no distortion
    :return: one of ``NUM_COEFFICIENTS`` and as many as it says
    :raises SpecError: unknown name, or a number of coefficients that it does not have
    """
    name, d = model.strip().lower(), tuple(coefficients)
    if name in NO_LENS:
        if any(d):
            raise SpecError(f'distortion_model {model[:40]!r} means no distortion, but there are '
                            f'{len(d)} coefficients; name the model, plumb_bob in most cases.')
        return PLUMB_BOB, (0.0,) * 5
    if name == FISHEYE:
        name = EQUIDISTANT
    if name not in NUM_COEFFICIENTS:
        raise unknown_name('distortion_model', model[:40], (*NUM_COEFFICIENTS, FISHEYE, 'none'))
    counts = NUM_COEFFICIENTS[name] if name == EQUIDISTANT else OPENCV_COUNTS
    if d and len(d) not in counts:
        *first, last = map(str, counts)
        raise SpecError(f'{name} takes {", ".join(first) + " or " if first else ""}{last} '
                        f'distortion coefficients, got {len(d)}.')
    if name == PLUMB_BOB and len(d) > 5:
        name = RATIONAL
    return name, d + (0.0,) * (NUM_COEFFICIENTS[name][0] - len(d))


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
