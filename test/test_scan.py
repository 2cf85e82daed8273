# SPDX-License-Identifier: Apache-2.0
"""The scan made from depth: against a scene worked out by hand and against the reference world."""
from needs import need_engine
import pytest

pytest.importorskip('sensor_msgs')

from lingbot_world_ros.errors import SpecError  # noqa: E402, I100
from lingbot_world_ros.geometry.camera import PinholeCamera  # noqa: E402
from lingbot_world_ros.geometry.depth_scan import DepthScan  # noqa: E402
from lingbot_world_ros.messages.scan import scan_to_msg  # noqa: E402
from lingbot_world_ros.messages.stamps import stamp_to_ns  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from lingbot_world_ros.worlds.scenes import get_scene  # noqa: E402
import numpy as np  # noqa: E402

ROBOT = load_robot()

CAMERA = ROBOT.camera
LIMITS = dict(min_height_m=0.1, max_height_m=1.0, min_range_m=0.34, max_range_m=10.0)
WALL_M = 2.5


def angles_of(scan):
    return scan.angle_min + scan.angle_increment * np.arange(scan.num_angles)


def rays():
    """Per pixel, the step in base_link for one metre of depth: (h, w, 3)."""
    v, u = np.mgrid[:CAMERA.height_px, :CAMERA.width_px]
    pixels = np.stack([u, v, np.ones_like(u)], -1).astype(float)
    return pixels @ (CAMERA.T_base_optical[:3, :3] @ np.linalg.inv(CAMERA.k)).T


def depth_of_planes(*planes):
    """Depth of the nearest of planes ``normal . p = distance`` in base_link."""
    origin, depth = CAMERA.T_base_optical[:3, 3], np.full(rays().shape[:2], 100.0)
    for normal, distance in planes:
        with np.errstate(divide='ignore'):
            hit = (distance - np.dot(normal, origin)) / (rays() @ np.asarray(normal, float))
        depth = np.where((hit > 0.0) & (hit < depth), hit, depth)
    return depth.astype(np.float32)


FLOOR = ((0.0, 0.0, 1.0), 0.0)
WALL = ((1.0, 0.0, 0.0), WALL_M)


def test_a_wall_ahead_is_where_geometry_says():
    scan = DepthScan(CAMERA, **LIMITS)
    ranges = scan.ranges(depth_of_planes(FLOOR, WALL))
    expected = WALL_M / np.cos(angles_of(scan))
    inner = slice(4, -4)  # seen from the camera, which is behind, the outermost are cut off
    # A direction is the middle of its bin, a reading the nearest point in it.
    np.testing.assert_allclose(ranges[inner], expected[inner], rtol=0.01)
    assert (ranges[inner] <= expected[inner] + 1e-3).all()


def test_a_wall_at_a_slant_is_nearer_on_its_side():
    scan = DepthScan(CAMERA, **LIMITS)
    normal = np.array([np.cos(0.5), np.sin(0.5), 0.0])
    ranges = scan.ranges(depth_of_planes(FLOOR, (normal, 2.0)))
    expected = 2.0 / np.cos(angles_of(scan) - 0.5)
    np.testing.assert_allclose(ranges[8:-8], expected[8:-8], rtol=0.02)
    assert ranges[-10] < ranges[10]  # the left is at positive angles


def test_angles_cover_the_cameras_view_around_ahead():
    scan = DepthScan(CAMERA, **LIMITS)
    half_view = np.arctan(0.5 * CAMERA.width_px / CAMERA.fx_px)
    assert scan.angle_max == -scan.angle_min == pytest.approx(half_view,
                                                              abs=scan.angle_increment)
    assert angles_of(scan)[-1] == pytest.approx(scan.angle_max)
    assert angles_of(scan)[scan.num_angles // 2] == pytest.approx(0.0, abs=1e-12)


def test_floor_and_what_is_above_the_robot_are_not_seen():
    scan = DepthScan(CAMERA, **LIMITS)
    assert np.isinf(scan.ranges(depth_of_planes(FLOOR))).all()
    shelf = depth_of_planes(((0.0, 0.0, 1.0), 1.05))  # its underside, below the camera
    assert np.isinf(scan.ranges(shelf)).all()
    low = DepthScan(CAMERA, **{**LIMITS, 'min_height_m': -0.1})
    assert np.isfinite(low.ranges(depth_of_planes(FLOOR))).all()


def test_beyond_the_range_is_nothing():
    scan = DepthScan(CAMERA, **{**LIMITS, 'max_range_m': WALL_M + 0.2})
    ranges = scan.ranges(depth_of_planes(FLOOR, WALL))
    far = WALL_M / np.cos(angles_of(scan)) > WALL_M + 0.25
    assert far.any() and np.isinf(ranges[far]).all()
    assert np.isfinite(ranges[scan.num_angles // 2])


def test_a_box_before_the_wall_hides_it_and_its_edges_invent_nothing():
    """A learned depth image blurs edges: pixels on them hang between box and wall."""
    scan = DepthScan(CAMERA, **LIMITS)
    wall, box = depth_of_planes(FLOOR, WALL), depth_of_planes(((1.0, 0.0, 0.0), 1.2))
    depth = wall.copy()
    depth[40:90, 60:100] = np.minimum(wall, box)[40:90, 60:100]
    sharp = scan.ranges(depth)
    assert sharp[scan.num_angles // 2] == pytest.approx(1.2, abs=0.01)
    depth[:, 59] = 0.5 * (depth[:, 58] + depth[:, 60])
    depth[:, 100] = 0.5 * (depth[:, 99] + depth[:, 101])
    np.testing.assert_allclose(scan.ranges(depth), sharp, atol=0.05)


def test_the_robots_own_arm_is_taken_out():
    scan = DepthScan(CAMERA, **LIMITS)
    depth = depth_of_planes(FLOOR, WALL)
    without = scan.ranges(depth)
    tip = np.array([[[0.2, 0.0, 0.75], [0.5, 0.1, 0.7]]])
    u, v, w = np.linalg.inv(CAMERA.T_base_optical[:3, :3]) @ (tip[0, 1]
                                                              - CAMERA.T_base_optical[:3, 3])
    column, row = (CAMERA.k @ [u / w, v / w, 1.0])[:2].round().astype(int)
    depth[row - 3:row + 4, column - 3:column + 4] = w
    assert scan.ranges(depth).min() < 0.7
    np.testing.assert_array_equal(scan.ranges(depth, tip) < 1.0, False)
    assert np.isfinite(without).mean() == pytest.approx(
        np.isfinite(scan.ranges(depth, tip)).mean(), abs=0.05)


@pytest.mark.parametrize('limits, words', [
    (dict(min_height_m=1.0, max_height_m=0.1), 'scan_max_height_m=0.1.*more than 1'),
    (dict(max_range_m=0.2), 'scan_max_range_m=0.2.*more than 0.34')])
def test_limits_that_leave_nothing_are_refused(limits, words):
    with pytest.raises(SpecError, match=words):
        DepthScan(CAMERA, **{**LIMITS, **limits})


def test_message_describes_the_scan_and_is_filled_again():
    scan = DepthScan(CAMERA, **LIMITS)
    ranges = np.full(scan.num_angles, 2.0, np.float32)
    msg = scan_to_msg(scan, ranges, 0.1, 5_000_000_007, 'base_link')
    assert (stamp_to_ns(msg.header.stamp), msg.header.frame_id) == (5_000_000_007, 'base_link')
    assert len(msg.ranges) == round((msg.angle_max - msg.angle_min) / msg.angle_increment) + 1
    assert (msg.range_min, msg.range_max) == (pytest.approx(0.34), 10.0)
    assert (msg.time_increment, msg.scan_time) == (0.0, pytest.approx(0.1))
    ranges[3] = np.inf
    again = scan_to_msg(scan, ranges, 0.1, 6, 'base_link', msg)
    assert again is msg and stamp_to_ns(msg.header.stamp) == 6
    assert np.isinf(msg.ranges[3]) and msg.ranges[4] == 2.0


def test_readings_end_at_walls_and_furniture_of_the_reference_world():
    need_engine('reference')
    from lingbot_world_ros.engines.registry import make_world
    scan, world, off_m = DepthScan(CAMERA, **LIMITS), make_world('reference'), []
    for seed in range(4):
        seen = world.reset('living_room', seed)
        arm = ROBOT.arm.links(seen.joint_position[0, 0])
        ranges = scan.ranges(seen.depth_m[0, 0], arm)
        hit = np.isfinite(ranges)
        assert hit.mean() > 0.9
        x, y, yaw = seen.base_pose[0, 0]
        heading = yaw + angles_of(scan)[hit]
        ends = np.array([x, y]) + ranges[hit, None] * np.stack([np.cos(heading),
                                                                np.sin(heading)], -1)
        others = np.hypot(*(ends[:, None] - seen.object_pose[0, 0, :, :2]).T).min(0)
        clear_m = get_scene('living_room').clearance_m(ends, ROBOT.footprint.height_m)
        off_m += np.abs(clear_m)[others > 0.4].tolist()
    assert len(off_m) > 300
    assert np.median(off_m) < 0.015 and np.percentile(off_m, 95) < 0.05
    world.close()


SMALL = PinholeCamera(32, 24, 20.0, 20.0, 15.5, 11.5).mounted((0.1, 0.05, 0.5))
FAR_M = 100.0


def small_scan(**limits):
    return DepthScan(SMALL, **{**LIMITS, **limits})


def small_depth(row, column, depths, is_down=False):
    """Return depth that is far but for some pixels, to the right or down from one."""
    image = np.full((24, 32), FAR_M, np.float32)
    if is_down:
        image[row:row + len(depths), column] = depths
    else:
        image[row, column:column + len(depths)] = depths
    return image


def readings(ranges):
    """Return index -> metres of what is seen."""
    return {int(i): float(ranges[i]) for i in np.flatnonzero(np.isfinite(ranges))}


def test_one_pixel_by_hand():
    """
    Pixel 20, 11 at 2 m: 0.45 m right of the camera and 0.05 m above it.

    In base_link that is (2.1, -0.4, 0.55), at 2.1377 m and -0.18822 rad: 9.24 steps from the
    first direction. arctan(16 / 20) is 13.49 steps of 1 / 20.
    """
    scan = small_scan()
    assert (scan.num_angles, scan.angle_increment) == (27, 0.05)
    assert (scan.angle_min, scan.angle_max) == pytest.approx((-0.65, 0.65))
    ranges = scan.ranges(small_depth(11, 20, [2.0]))
    assert readings(ranges) == pytest.approx({9: 2.13776, 10: 2.13776}, abs=1e-4)
    assert ranges.dtype == np.float32


@pytest.mark.parametrize('focal_px', range(18, 60))
def test_what_is_dead_ahead_is_in_the_middle_reading_only(focal_px):
    """Counted from the first reading, it came out a rounding error beside the middle."""
    camera = PinholeCamera(33, 24, focal_px, focal_px, 16.0, 11.5).mounted((0.1, 0.0, 0.5))
    scan = DepthScan(camera, **LIMITS)
    depth = np.full((24, 33), FAR_M, np.float32)
    depth[11, 16] = 2.0
    assert list(readings(scan.ranges(depth))) == [scan.num_angles // 2]


@pytest.mark.parametrize('limits, is_seen', [
    (dict(min_height_m=0.54), True), (dict(min_height_m=0.56), False),
    (dict(max_height_m=0.56), True), (dict(max_height_m=0.54), False),
    (dict(min_range_m=2.13), True), (dict(min_range_m=2.15), False),
    (dict(max_range_m=2.15), True), (dict(max_range_m=2.13), False)])
def test_one_pixel_counts_within_heights_and_ranges(limits, is_seen):
    assert bool(readings(small_scan(**limits).ranges(small_depth(11, 20, [2.0])))) is is_seen


@pytest.mark.parametrize('start, end, is_own', [
    ((1.0, -0.4, 0.55), (2.1, -0.4, 0.55), True), ((2.1, -0.4, 0.55), (1.0, -0.4, 0.55), True),
    ((1.0, -0.4, 0.55), (2.02, -0.4, 0.55), True), ((1.0, -0.4, 0.55), (2.0, -0.4, 0.55), False),
    ((1.6, -0.32, 0.55), (2.6, -0.32, 0.55), True), ((1.6, -0.3, 0.55), (2.6, -0.3, 0.55), False),
    ((1.6, -0.4, 0.63), (2.6, -0.4, 0.63), True), ((1.6, -0.4, 0.65), (2.6, -0.4, 0.65), False),
    ((2.1, -0.2, 0.35), (2.1, -0.6, 0.75), True), ((2.1, -0.45, 0.6), (2.1, -0.45, 0.6), True),
    ((2.1, -0.8, 0.55), (2.1, -0.52, 0.55), False), ((2.1, -0.52, 0.55), (2.1, -0.8, 0.55), False),
    ((2.2, -0.4, 0.55), (3.0, -0.4, 0.55), False), ((0.1, 0.0, 0.5), (0.3, 0.0, 0.5), False)])
def test_one_pixel_is_the_robots_own_within_nine_centimetres(start, end, is_own):
    """The point is at (2.1, -0.4, 0.55); of several links one is enough."""
    depth, links = small_depth(11, 20, [2.0]), np.array([[start, end]])
    assert bool(readings(small_scan().ranges(depth, links))) is not is_own
    links = np.array([[(0.1, 0.0, 0.5), (0.2, 0.0, 0.5)], [start, end]])
    assert bool(readings(small_scan().ranges(depth, links))) is not is_own


@pytest.mark.parametrize('is_down', [False, True])
@pytest.mark.parametrize('depths, is_seen', [
    ([1.88, 2.0, 2.12], False), ([2.12, 2.0, 1.88], False),  # 0.12 of 2 m on both sides
    ([1.95, 2.0, 2.05], True), ([2.05, 2.0, 1.95], True), ([1.88, 2.0, 2.02], True),
    ([2.02, 2.0, 1.88], True), ([1.88, 2.0, 1.9], True)])
def test_a_pixel_hangs_that_is_a_twentieth_from_both_neighbours(depths, is_seen, is_down):
    """The nearest of them never hangs: readings begin behind it."""
    scan = small_scan(min_range_m=min(depths) + 0.13)
    row, column = (10, 16) if is_down else (11, 14)
    assert bool(readings(scan.ranges(small_depth(row, column, depths, is_down)))) is is_seen
