# SPDX-License-Identifier: Apache-2.0
"""Where in a scene something can stand."""
from lingbot_world_ros.worlds.scenes import get_scene, SCENES
import numpy as np

MAX_COORDINATE = 1e4  # metres or radians
CONTACT_TOLERANCE_M = 0.05  # a predicted contact may overlap by this much


def misplaced(scene: str, x_m: float, y_m: float, radius_m: float, height_m: float) -> str:
    """
    Say why something cannot stand somewhere.

    :param scene: name; of an unknown one only the numbers are checked
    :param x_m: centre, scene frame
    :param y_m: centre, scene frame
    :param radius_m: of its vertical cylinder
    :param height_m: of the same
    :return: the reason in words, '' if it can
    """
    if not (abs(x_m) <= MAX_COORDINATE and abs(y_m) <= MAX_COORDINATE):
        return f'({x_m:g}, {y_m:g}) m is beyond every room.'
    if scene not in SCENES:
        return ''
    room = get_scene(scene)
    if float(room.clearance_m(np.array([x_m, y_m]), height_m)) >= radius_m - CONTACT_TOLERANCE_M:
        return ''
    return (f'({x_m:g}, {y_m:g}) m is closer than {radius_m:g} m to a wall or to furniture of '
            f'{scene}, whose floor is {room.size_m[0]:g} x {room.size_m[1]:g} m.')
