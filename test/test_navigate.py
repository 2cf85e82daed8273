# SPDX-License-Identifier: Apache-2.0
"""The navigator of the benchmark: it plans around what it knows, and drives one room."""
from bench.planner import Costmap, plan_path, Pursuit, Scan
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.worlds.floor_plan import FloorPlan
from needs import need_engine
import numpy as np
import pytest
from ros_domain import Domain

RADIUS_M = load_robot().footprint.radius_m


def room_with_a_wall(gap_m):
    """A room of 4 m x 3 m with a wall in the middle, open for ``gap_m`` at the north."""
    occupied = np.zeros((60, 80), bool)
    occupied[0] = occupied[-1] = occupied[:, 0] = occupied[:, -1] = True
    occupied[:60 - round(gap_m / 0.05), 40] = True
    return Costmap(FloorPlan(occupied, 0.05, (0.0, 0.0)), RADIUS_M)


def clearance_m(costmap, path):
    away = costmap.distance_m()
    return min(away[costmap.cell(xy)] for xy in path)


def test_a_path_keeps_the_footprint_free_and_goes_through_the_gap():
    costmap = room_with_a_wall(1.2)
    path = plan_path(costmap, np.array([1.0, 1.0]), np.array([3.0, 1.0]))
    assert clearance_m(costmap, path) >= RADIUS_M
    assert path[:, 1].max() > 1.9 and np.hypot(*np.diff(path, axis=0).T).max() < 0.08
    np.testing.assert_allclose(path[[0, -1]], [[1.0, 1.0], [3.0, 1.0]], atol=0.05)


def test_a_gap_that_is_narrower_than_the_robot_is_no_way():
    assert plan_path(room_with_a_wall(0.6), np.array([1.0, 1.0]), np.array([3.0, 1.0])) is None


def test_who_stands_too_near_to_something_finds_a_way_out():
    costmap = room_with_a_wall(1.2)
    path = plan_path(costmap, np.array([1.7, 1.0]), np.array([1.0, 1.0]))
    assert path is not None and path[0][0] == pytest.approx(1.7, abs=0.05)


def test_a_scan_marks_what_is_not_on_the_map_and_clears_what_has_gone():
    costmap, pose = room_with_a_wall(1.2), np.array([1.0, 1.0, 0.0])
    angles = np.linspace(-0.6, 0.6, 61)
    ranges = np.where(np.abs(angles) < 0.1, 0.6, 1.0 / np.cos(angles))  # a box before the wall
    scan = Scan(ranges, -0.6, angles[1] - angles[0], 0.34, 6.0)
    costmap.look(scan, pose)
    assert not costmap.seen.any()  # once may be an error
    for _ in range(3):
        costmap.look(scan, pose)
    rows, columns = np.nonzero(costmap.seen)
    assert len(rows) > 1 and set(columns) <= {31, 32} and np.abs(rows - 20).max() <= 2
    assert costmap.touches(np.array([1.2, 1.0, 0.0]), 0.1) == 'scan'
    assert costmap.touches(np.array([1.0, 2.0, 0.0]), 0.1) == 'unseen'
    assert costmap.touches(np.array([0.4, 2.0, 0.0]), 0.1) == 'map'
    for _ in range(6):
        costmap.look(Scan(1.0 / np.cos(angles), -0.6, scan.angle_increment, 0.34, 6.0), pose)
    assert not costmap.seen.any()


def test_pursuit_follows_a_path_from_any_heading():
    path = np.stack([np.linspace(1.0, 3.0, 50), np.full(50, 1.0)], -1)
    for yaw in (0.0, 2.0, -3.0):
        pose, off_m = np.array([1.0, 1.1, yaw]), []
        for _ in range(200):
            v_x, w_z = Pursuit().command(path, pose)
            assert 0.0 <= v_x <= 0.4 and abs(w_z) <= 0.9
            pose = se2.compose(pose, se2.exponential(np.array([v_x, 0.0, w_z]), 1 / 15))
            off_m.append(abs(pose[1] - 1.0))
            if np.hypot(*(pose[:2] - path[-1])) < 0.2:
                break
        assert np.hypot(*(pose[:2] - path[-1])) < 0.2 and off_m[-1] < 0.05 and max(off_m) < 0.35


def test_a_goal_behind_a_blocked_doorway_has_no_way():
    """What an object leaves of the doorway is 0.70 m, for a robot of 0.68 m."""
    pytest.importorskip('rclpy')
    pytest.importorskip('lingbot_world_ros.msg')
    from bench.navigate import has_way, summary
    assert [has_way('office', seed, 0.05) for seed in (13, 16, 19)] == [True, False, True]
    trials = [{'reached': way, 'has_way': way, 'touches': []} for way in (True, False, True)]
    result = summary('reference', trials)
    assert result['trials'] - result['trials_without_a_way'] == result['reached'] == 2


def test_one_drive_through_the_reference_world_reaches_its_goal_and_touches_nothing():
    need_engine('reference')
    pytest.importorskip('rclpy')
    pytest.importorskip('lingbot_world_ros.msg')
    from bench.navigate import ends, Navigation, summary
    import rclpy
    with Domain() as domain:
        rclpy.init(args=[], domain_id=domain)
        try:
            with Navigation('reference') as navigation:
                trial = navigation.trial('workshop', 5)
        finally:
            rclpy.try_shutdown()
    start, goal = ends('workshop', 5)
    result, direct_m = summary('reference', [trial]), np.hypot(*(start[:2] - goal))
    assert direct_m > 2.4 and trial['way_m'] > direct_m - 0.3
    assert result['reached'] == 1 and trial['left_m'] <= 0.25
    assert result['trials_without_a_way'] == 0
    assert trial['touches'] == [] and result['trials_without_a_touch'] == 1
