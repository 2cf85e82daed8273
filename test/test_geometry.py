# SPDX-License-Identifier: Apache-2.0
"""
Rotations, planar and rigid poses, cameras: numbers by hand, at angles and times that are not zero.

Sines and cosines of the angles used: 0.3: 0.2955202067, 0.9553364891; 0.5: 0.4794255386,
0.8775825619; 1.1: 0.8912073601, 0.4535961214; 2.0: 0.9092974268, -0.4161468365.
"""
from lingbot_world_ros.geometry import se2, se3
from lingbot_world_ros.geometry.camera import (edge_scaling, MountedCamera, PinholeCamera,
                                               T_LINK_OPTICAL)
from lingbot_world_ros.geometry.rotation import (quat_from_rotation, quat_from_yaw,
                                                 rotation_from_quat, rotation_from_rpy,
                                                 rotation_from_vector, rotation_from_yaw,
                                                 rpy_from_rotation, vector_from_rotation,
                                                 yaw_from_quat)
import numpy as np
import pytest

TURN = np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]])  # x to y, y to z, z to x: 2 pi / 3 of 1 1 1


def close(expected, tolerance=1e-9):
    return pytest.approx(np.asarray(expected, float), abs=tolerance)


# Rotations


def test_a_third_of_a_turn_about_the_diagonal():
    vector = np.full(3, 2 * np.pi / 3 / np.sqrt(3))
    assert rotation_from_vector(vector) == close(TURN)
    assert vector_from_rotation(TURN) == close(vector)
    assert rotation_from_quat([0.5, 0.5, 0.5, 0.5]) == close(TURN)
    assert quat_from_rotation(TURN) == close([0.5, 0.5, 0.5, 0.5])


@pytest.mark.parametrize('axis, expected', [
    (0, [[1, 0, 0], [0, 0.8775825619, -0.4794255386], [0, 0.4794255386, 0.8775825619]]),
    (1, [[0.8775825619, 0, 0.4794255386], [0, 1, 0], [-0.4794255386, 0, 0.8775825619]]),
    (2, [[0.8775825619, -0.4794255386, 0], [0.4794255386, 0.8775825619, 0], [0, 0, 1]])])
def test_a_turn_about_one_axis_is_right_handed(axis, expected):
    """Half a radian: sin and cos of 0.25 are 0.2474039593 and 0.9689124217."""
    vector, quat = np.zeros(3), np.array([0, 0, 0, 0.9689124217])
    vector[axis], quat[axis] = 0.5, 0.2474039593
    assert rotation_from_vector(vector) == close(expected)
    assert rotation_from_rpy(vector) == close(expected)
    assert rotation_from_quat(quat) == close(expected)
    assert vector_from_rotation(np.array(expected)) == close(vector)
    assert quat_from_rotation(np.array(expected)) == close(quat)
    if axis == 2:
        assert rotation_from_yaw(0.5) == close(expected)
        assert quat_from_yaw(0.5) == pytest.approx(quat)


def test_roll_pitch_yaw_by_hand():
    """Rz(1.1) Ry(0.5) Rx(0.3), each entry multiplied out; no two angles are the same."""
    expected = [[0.3980680463, -0.7871374418, 0.4711225724],
                [0.7821080382, 0.5596031263, 0.2741374794],
                [-0.4794255386, 0.2593433801, 0.8383866436]]
    assert rotation_from_rpy([0.3, 0.5, 1.1]) == close(expected)


@pytest.mark.parametrize('rpy', [(0.3, 0.5, 1.1), (-2.0, -1.2, 3.0), (3.0, 0.5, -2.0)])
def test_roll_pitch_yaw_there_and_back(rpy):
    assert rpy_from_rotation(rotation_from_rpy(rpy)) == pytest.approx(rpy)


@pytest.mark.parametrize('pitch, yaw', [(np.pi / 2, 0.8), (-np.pi / 2, 1.4)])
def test_looking_straight_down_or_up_all_turning_is_yaw(pitch, yaw):
    """Yaw 1.1 less roll 0.3 when it looks down, yaw 1.1 and roll 0.3 when it looks up."""
    assert rpy_from_rotation(rotation_from_rpy([0.3, pitch, 1.1])) == pytest.approx(
        (0.0, pitch, yaw))


def test_rotations_of_many_shapes_keep_their_places():
    yaws = np.array([[0.3, -0.5], [1.1, 2.0]])
    rotations = rotation_from_yaw(yaws)
    assert rotations.shape == (2, 2, 3, 3)
    assert rotations[1, 1] == close([[-0.4161468365, -0.9092974268, 0],
                                     [0.9092974268, -0.4161468365, 0], [0, 0, 1]])
    vectors = vector_from_rotation(rotations)
    assert vectors[..., 2] == close(yaws) and not vectors[..., :2].any()
    assert rotation_from_vector(vectors) == close(rotations)
    quats = quat_from_rotation(rotations)
    assert quats[0, 1] == close([0, 0, -0.2474039593, 0.9689124217])
    assert quat_from_rotation(np.zeros((0, 3, 3))).shape == (0, 4)


@pytest.mark.parametrize('quat', [
    (0.1, -0.2, 0.3, 0.9), (0.9, -0.2, 0.3, 0.1), (0.1, 0.9, -0.3, 0.2), (-0.3, 0.1, 0.9, 0.2),
    (0.9, 0.3, 0.2, 0.0), (0.2, 0.9, -0.3, -0.1), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)])
def test_quaternions_there_and_back_whichever_component_is_largest(quat):
    quat = np.array(quat) / np.linalg.norm(quat)
    rotation = rotation_from_quat(3.0 * quat)  # the length does not matter
    assert rotation @ rotation.T == close(np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    found = quat_from_rotation(rotation)
    assert found == close(quat if quat[3] >= 0.0 else -quat)
    assert found[3] >= 0.0


def test_a_quaternion_turns_vectors_as_its_product_does():
    """Entries of the matrix of (0.1, -0.2, 0.4, 0.88...) by the formula, each multiplied out."""
    w = np.sqrt(1 - 0.01 - 0.04 - 0.16)  # 0.8888194417
    assert rotation_from_quat([0.1, -0.2, 0.4, w]) == close(
        [[0.6, -0.7510555534, -0.2755277767], [0.6710555534, 0.66, -0.3377638883],
         [0.4355277767, 0.0177638883, 0.9]])


@pytest.mark.parametrize('angle', [1e-9, 1e-4, 1.0, 3.1, np.pi - 1e-7])
def test_rotation_vectors_are_exact_at_any_angle(angle):
    vector = angle * np.array([0.6, -0.48, 0.64])
    assert vector_from_rotation(rotation_from_vector(vector)) == pytest.approx(vector, rel=1e-8)


def test_half_a_turn_is_one_about_either_axis():
    found = vector_from_rotation(np.diag([-1.0, 1.0, -1.0]))
    assert np.abs(found) == close([0, np.pi, 0])


@pytest.mark.parametrize('yaw', [0.5, -2.0, 3.0, -3.1])
def test_yaw_there_and_back(yaw):
    assert yaw_from_quat(quat_from_yaw(yaw)) == pytest.approx(yaw)
    assert yaw_from_quat(-np.array(quat_from_yaw(yaw))) == pytest.approx(yaw)


def test_yaw_of_a_tilted_body_is_where_its_x_axis_points():
    """Its x axis points along (cos 0.5 cos 1.1, cos 0.5 sin 1.1, -sin 0.5)."""
    quat = quat_from_rotation(rotation_from_rpy([0.3, 0.5, 1.1]))
    assert yaw_from_quat(quat) == pytest.approx(1.1)


# SE(2)


def test_planar_vectors_turn_counter_clockwise():
    """3 cos 0.5 - 2 sin 0.5 and 3 sin 0.5 + 2 cos 0.5; the turn rate stays."""
    expected = [1.6738966086, 3.1934417395]
    assert se2.rotated([3.0, 2.0], 0.5) == close(expected)
    assert se2.rotated([3.0, 2.0, -0.7], 0.5) == close([*expected, -0.7])
    assert se2.rotated([3.0, 2.0, -0.7], -0.5) == close([3.5915987629, 0.3168885081, -0.7])
    many = se2.rotated(np.array([[3.0, 2.0], [3.0, 2.0]]), np.array([0.5, -0.5]))
    assert many == close([expected, [3.5915987629, 0.3168885081]])


def test_chained_poses_by_hand():
    """At (1, 2) turned by 0.5, then (3, 2) there: (1, 2) + (1.6738966086, 3.1934417395)."""
    a, b = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 1.1])
    assert se2.compose(a, b) == close([2.6738966086, 5.1934417395, 1.6])
    assert se2.compose(np.stack([a, a]), np.stack([b, b]))[1] == close(se2.compose(a, b))


def test_the_inverse_of_a_pose_by_hand():
    """-(3 cos 0.5 + 2 sin 0.5), 3 sin 0.5 - 2 cos 0.5."""
    a = np.array([3.0, 2.0, 0.5])
    assert se2.inverse(a) == close([-3.5915987629, -0.3168885080, -0.5])
    assert se2.compose(a, se2.inverse(a)) == close(np.zeros(3))
    assert se2.compose(se2.inverse(a), a) == close(np.zeros(3))


def test_a_pose_seen_from_another_by_hand():
    """(2, 1) away: 2 cos 0.5 + sin 0.5 ahead, cos 0.5 - 2 sin 0.5 to the left."""
    a, b = np.array([1.0, 2.0, 0.5]), np.array([3.0, 3.0, -0.2])
    assert se2.relative(a, b) == close([2.2345906624, -0.0812685153, -0.7])
    assert se2.relative(a, b) == close(se2.compose(se2.inverse(a), b))
    assert se2.compose(a, se2.relative(a, b)) == close(b)
    assert (se2.relative(a, a) == 0.0).all()


def test_yaw_counts_turns():
    assert se2.compose([0, 0, 3.0], [0, 0, 3.0])[2] == 6.0
    assert se2.relative([0, 0, -3.0], [0, 0, 4.0])[2] == 7.0


@pytest.mark.parametrize('function', [se2.compose, se2.relative])
def test_the_precision_of_poses_is_kept(function):
    pose = np.array([1.0, 2.0, 0.5], np.float32)
    assert function(pose, pose).dtype == se2.inverse(pose).dtype == np.float32


def test_driving_a_bend_by_hand():
    """0.8 m/s and 0.4 rad/s for 0.75 s: 0.3 rad on a circle of 2 m."""
    assert se2.exponential([0.8, 0.0, 0.4], 0.75) == close([0.5910404133, 0.0893270217, 0.3])
    assert se2.exponential([0.8, 0.0, -0.4], 0.75) == close([0.5910404133, -0.0893270217, -0.3])
    assert se2.exponential([-0.8, 0.0, 0.4], 0.75) == close([-0.5910404133, -0.0893270217, 0.3])


def test_strafing_along_a_bend_by_hand():
    """The same circle, looking to its middle: 0.8 m/s to the left."""
    assert se2.exponential([0.0, 0.8, 0.4], 0.75) == close([-0.0893270217, 0.5910404133, 0.3])


def test_a_quarter_of_a_circle_of_one_metre():
    assert se2.exponential([np.pi / 2, 0.0, np.pi / 2], 1.0) == close([1.0, 1.0, np.pi / 2])


def test_straight_lines_and_turns_in_place():
    assert (se2.exponential([0.4, -0.2, 0.0], 0.5) == [0.2, -0.1, 0.0]).all()
    assert (se2.exponential([0.0, 0.0, 1.2], 0.5) == [0.0, 0.0, 0.6]).all()
    slow = se2.exponential([1.0, 0.5, 1e-10], 1.0)
    assert slow == close(se2.exponential([1.0, 0.5, 0.0], 1.0))


def test_twice_half_a_motion_is_the_motion():
    twist = np.array([[0.7, -0.3, 1.4], [0.1, 0.2, -2.0]])
    half = se2.exponential(twist, 0.35)
    assert se2.compose(half, half) == close(se2.exponential(twist, 0.7))


# SE(3)


def test_a_pose_takes_points_of_its_frame_to_the_parent():
    T = se3.pose([1.0, 2.0, 3.0], TURN)
    assert se3.transformed(T, np.array([0.1, 0.2, 0.3])) == close([1.3, 2.1, 3.2])
    many = se3.transformed(T, np.array([[[0.1, 0.2, 0.3], [0, 0, 0]]]))
    assert many == close([[[1.3, 2.1, 3.2], [1, 2, 3]]])
    assert (se3.pose([1.0, 2.0, 3.0]) == [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3],
                                          [0, 0, 0, 1]]).all()


def test_the_inverse_of_a_rigid_transform_by_hand():
    """The turn goes back, and the way back is told in the turned frame."""
    T = se3.pose([1.0, 2.0, 3.0], TURN)
    expected = [[0, 1, 0, -2], [0, 0, 1, -3], [1, 0, 0, -1], [0, 0, 0, 1]]
    assert se3.inverse(T) == close(expected)
    assert se3.inverse(np.stack([np.eye(4), T]))[1] == close(expected)
    assert T @ se3.inverse(T) == close(np.eye(4))


def test_a_pose_as_urdf_writes_it():
    T = se3.pose_from_rpy([1.0, 2.0, 3.0], [0.3, 0.5, 1.1])
    assert T[:3, :3] == close(rotation_from_rpy([0.3, 0.5, 1.1]))
    assert T[:, 3] == close([1, 2, 3, 1]) and T[3] == close([0, 0, 0, 1])


def test_planar_poses_are_lifted_onto_the_floor():
    T = se3.pose_from_se2([1.0, 2.0, 0.5])
    expected = [[0.8775825619, -0.4794255386, 0, 1], [0.4794255386, 0.8775825619, 0, 2],
                [0, 0, 1, 0], [0, 0, 0, 1]]
    assert T == close(expected)
    assert se3.pose_from_se2([[0, 0, 0], [1.0, 2.0, 0.5]])[1] == close(expected)


def test_both_groups_chain_alike():
    a, b = np.array([1.0, 2.0, 0.5]), np.array([-0.3, 0.7, 2.0])
    lifted = se3.pose_from_se2(a) @ se3.pose_from_se2(b)
    assert lifted == close(se3.pose_from_se2(se2.compose(a, b)))
    assert se3.inverse(se3.pose_from_se2(a)) == close(se3.pose_from_se2(se2.inverse(a)))


# Cameras

SKEWED = PinholeCamera(160, 120, 150.0, 148.0, 78.0, 61.0, 2.0)


def test_pixels_and_rays_by_hand():
    """u = 150 * 0.2 + 2 * -0.5 + 78, v = 148 * -0.5 + 61."""
    assert SKEWED.project(np.array([0.6, -1.5, 3.0])) == close([107.0, -13.0])
    assert SKEWED.rays(np.array([107.0, -13.0])) == close([0.2, -0.5, 1.0])
    assert SKEWED.project(np.array([[[0.0, 0.0, 1.0], [0.6, -1.5, 3.0]]])) == close(
        [[[78.0, 61.0], [107.0, -13.0]]])
    assert SKEWED.rays(np.array([[78.0, 61.0]])) == close([[0, 0, 1]])
    assert (SKEWED.k == [[150, 2, 78], [0, 148, 61], [0, 0, 1]]).all()
    assert PinholeCamera.from_k(160, 120, SKEWED.k) == SKEWED


def test_pixels_are_counted_from_the_centre_of_the_first_one():
    """A square of 4 x 2 pixels that sees 90 degrees across: its corners are at slopes 1."""
    camera = PinholeCamera.from_fovx(4, 2, np.pi / 2)
    assert (camera.fx_px, camera.fy_px) == pytest.approx((2.0, 2.0))
    assert (camera.cx_px, camera.cy_px) == (1.5, 0.5)
    assert camera.rays(np.array([-0.5, -0.5])) == close([-1.0, -0.5, 1.0])
    assert camera.rays(np.array([3.5, 1.5])) == close([1.0, 0.5, 1.0])
    assert camera.rays(np.array([0.0, 0.0])) == close([-0.75, -0.25, 1.0])


def test_who_counts_from_the_corner_is_half_a_pixel_further():
    camera = PinholeCamera.from_corner(160, 120, (150, 148, 78.5, 61.5))
    assert camera == PinholeCamera(160, 120, 150.0, 148.0, 78.0, 61.0)
    assert camera.corner_intrinsics == (150.0, 148.0, 78.5, 61.5)


@pytest.mark.parametrize('cx', [0.5, 0.7, 15.98, 415.8 * 464 / 480, 1e5 / 3])
def test_the_way_from_the_corner_and_back_is_exact(cx):
    assert PinholeCamera.from_corner(9, 9, (1, 1, cx, cx)).corner_intrinsics[2] == cx


def test_fields_of_view_by_hand():
    """60 / tan 30 deg; 416 / tan 39.6 deg, and 2 atan(232 / that)."""
    camera = PinholeCamera.from_fovy(160, 120, np.pi / 3)
    assert (camera.fx_px, camera.fy_px) == pytest.approx((103.9230484541,) * 2)
    assert camera.field_of_view_rad[1] == pytest.approx(np.pi / 3)
    wide = PinholeCamera.from_fovx(832, 464, np.deg2rad(79.2))
    assert (wide.fx_px, wide.fy_px) == pytest.approx((502.8576177704,) * 2)
    assert np.rad2deg(wide.field_of_view_rad) == pytest.approx([79.2, 49.5337234583])
    beside = PinholeCamera(100, 100, 50.0, 25.0, 49.5 + 50.0, 49.5)  # looks along its right edge
    assert np.rad2deg(beside.field_of_view_rad) == pytest.approx([63.4349488229, 126.8698976458])


def test_a_resized_image_keeps_its_edges():
    """Half as wide, three times as high: (78 + 0.5) / 2 - 0.5 and (61 + 0.5) * 3 - 0.5."""
    resized = SKEWED.resized(80, 360)
    assert (resized.width_px, resized.height_px) == (80, 360)
    assert resized.k == close([[75.0, 1.0, 38.75], [0, 444.0, 184.0], [0, 0, 1]])
    for old, new in (([-0.5, -0.5], [-0.5, -0.5]), ([159.5, 119.5], [79.5, 359.5])):
        assert resized.rays(np.array(new)) == close(SKEWED.rays(np.array(old)))
    assert edge_scaling(0.5, 3.0) @ [159.5, 119.5, 1.0] == close([79.5, 359.5, 1.0])


def test_a_resized_camera_stays_where_it_is_mounted():
    mounted = SKEWED.mounted((0.1, 0.0, 1.2), (0.0, 0.3, 0.0))
    resized = mounted.resized(80, 360)
    assert resized == SKEWED.resized(80, 360).mounted((0.1, 0.0, 1.2), (0.0, 0.3, 0.0))
    assert mounted.resized(mounted.width_px, mounted.height_px) == mounted


def test_blocks_of_pixels_are_told_by_their_middles():
    camera = PinholeCamera(4, 6, 1.0, 1.0, 0.0, 0.0)
    grid = camera.pixel_grid()
    assert grid.shape == (6, 4, 2)
    assert grid[5, 3].tolist() == [3.0, 5.0] and grid[1, 0].tolist() == [0.0, 1.0]
    blocks = camera.pixel_grid(2)
    assert blocks.shape == (3, 2, 2) and blocks[2, 1].tolist() == [2.5, 4.5]


def test_a_camera_that_looks_down_sees_what_is_ahead_below_its_middle():
    """It looks down by 0.5 from 1 m: its axis meets the floor 1 / tan 0.5 = 1.8304877217 ahead."""
    camera = PinholeCamera.from_fovy(160, 120, np.pi / 3).mounted((0.3, 0.0, 1.0), (0, 0.5, 0))
    T = camera.T_base_optical
    ahead, left, far = (se3.transformed(se3.inverse(T), np.array(point)) for point in (
        [0.3 + 1.8304877217, 0, 0], [0.3 + 1.8304877217, 0.1, 0], [9.0, 0, 0]))
    assert camera.project(ahead) == close([79.5, 59.5], 1e-6)
    assert camera.project(left)[0] < 79.0 and camera.project(far)[1] < 50.0
    assert T[:3, 2] == close([0.8775825619, 0, -0.4794255386])  # the axis
    assert T[:3, 1] == close([-0.4794255386, 0, -0.8775825619])  # down in the image
    assert T[:3, 0] == close([0, -1, 0])  # right in the image
    assert T[:3, 3] == close([0.3, 0, 1.0])
    assert camera.T_base_camera_link @ T_LINK_OPTICAL == close(T)


def test_a_mounted_camera_is_turned_as_urdf_says():
    camera = SKEWED.mounted((1.0, 2.0, 3.0), (0.3, 0.5, 1.1))
    assert camera.T_base_camera_link == close(se3.pose_from_rpy([1, 2, 3], [0.3, 0.5, 1.1]))
    assert (camera.k == SKEWED.k).all() and camera == SKEWED.mounted((1.0, 2.0, 3.0),
                                                                     (0.3, 0.5, 1.1))


def test_a_camera_is_mounted_straight_at_the_base_unless_told_otherwise():
    camera = MountedCamera(4, 3, 2.0, 2.0, 1.5, 1.0)
    assert camera.T_base_camera_link == close(np.eye(4))
    assert camera == PinholeCamera(4, 3, 2.0, 2.0, 1.5, 1.0).mounted([0.0, 0.0, 0.0])
