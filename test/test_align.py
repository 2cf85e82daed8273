# SPDX-License-Identifier: Apache-2.0
"""Recordings at a steady rate: each expected value is worked out by hand."""
import json
import os
from pathlib import Path
import shutil
import sys

import pytest

pytest.importorskip('rosbags')
pytest.importorskip('cv2')

from bench import bags  # noqa: E402, I100
from bench.bags import START_S as T  # noqa: E402
import cv2  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.recording.align import align  # noqa: E402
from lingbot_world_ros.recording.aligned import AlignedWriter, load_aligned  # noqa: E402
from lingbot_world_ros.recording.ticks import make_ticks  # noqa: E402
import numpy as np  # noqa: E402


def aligned(tmp_path, messages, name='bag', **asked):
    """Write a bag and align it."""
    folder = bags.write_bag(tmp_path / name, messages)
    made, = align([folder], tmp_path / 'out', **asked)
    return made


def levels(recording):
    """Return the brightness of each frame."""
    return recording.rgb[:, 0, 0, 0].tolist()


def images(times, topic='/camera/image_raw', start=T):
    """Return an image of brightness i at each of these moments."""
    return [(topic, start + at, bags.image(start + at, bags.grey(i)))
            for i, at in enumerate(times)]


# Frames


def test_everything_a_robot_records_is_there(tmp_path):
    made = aligned(tmp_path, bags.drive())
    assert made.num_frames == 40 and made.rate_hz == 20.0 and made.segments == ((0, 40),)
    assert levels(made) == list(range(40)) and made.size_px == (32, 24)
    assert made.action_names == ('linear_x', 'angular_z')
    assert np.allclose(made.action, [[0.5, 0.01 * i] for i in range(40)])
    assert np.allclose(made.base_pose, [[0.025 * i, 0, 0.1 * i] for i in range(40)])  # unwrapped
    assert made.pose_frame == 'odom' and made.camera.fx_px == 20.0
    assert np.allclose(made.depth, np.full((40, 24, 32), 1.0) + 0.001 * np.arange(
        40)[:, None, None])
    assert made.T_base_optical.shape == (1, 4, 4)
    assert np.allclose(made.T_base_optical[0], [[0, 0, 1, 0.1], [-1, 0, 0, 0], [0, -1, 0, 0.3],
                                                [0, 0, 0, 1]])
    assert made.scan[0].tolist() == [1.0, 2.0, np.inf]
    assert made.scan_geometry == (-1.0, 1.0, 0.0, 0.0, 0.0)


def test_how_far_it_is_is_told(tmp_path):
    told = []
    one, two = (bags.write_bag(tmp_path / name, bags.drive(10)) for name in 'ab')
    align([one, two], tmp_path / 'out', say=lambda done, total: told.append((done, total)))
    parts = [done for done, _ in told]
    assert parts == sorted(parts) and told[-1] == (2000, 2000) and 1000 in parts


def test_a_gap_splits_and_commands_are_the_newest_not_later(tmp_path):
    times = [0.05 * i for i in range(10)] + [0.75 + 0.05 * i for i in range(10)]  # 0.3 s apart
    commands = [('/cmd_vel', T + at, bags.twist(at, 0.0)) for at in (
        -0.001, 0.051, 0.0999, 0.1001, 0.72, 0.80)]
    made = aligned(tmp_path, sorted(images(times) + commands, key=lambda m: m[1]))
    assert made.segments == ((0, 10), (10, 20)) and levels(made) == list(range(20))
    assert np.allclose(made.action[:, 0], [
        -0.001, -0.001, 0.0999, *[0.1001] * 7, 0.72, *[0.80] * 9])
    about = made.about
    assert about['gaps'] == 1 and about['images_missing'] == about['frames_repeated'] == 0


def test_single_images_that_are_missing_are_repeated_and_counted(tmp_path):
    made = aligned(tmp_path, images([0.0, 0.05, 0.10, 0.20, 0.25, 0.40, 0.45]))
    assert levels(made) == [0, 1, 2, 2, 3, 4, 4, 4, 5, 6] and made.segments == ((0, 10),)
    assert made.about['images_missing'] == made.about['frames_repeated'] == 3


def test_an_image_that_comes_late_counts_for_its_own_frame(tmp_path):
    made = aligned(tmp_path, images([0.0, 0.05, 0.145, 0.15, 0.2, 0.25]))
    assert levels(made) == [0, 1, 1, 3, 4, 5]
    assert made.about['images_unused'] == 1


def test_jitter_neither_repeats_nor_drops_at_the_rate_of_the_camera():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.047, 0.053, 2000) * 1e9).astype(np.int64)
    run, = make_ticks(times, 20.0, 20.0, 200_000_000)
    assert run.image.tolist() == list(range(2000)) and run.num_missing == 0
    half, = make_ticks(times, 20.0, 10.0, 200_000_000)
    assert half.image.tolist() == list(range(0, 2000, 2))


def test_images_far_apart_are_no_drive_and_no_endless_row_of_ticks(tmp_path):
    with pytest.raises(SpecError, match='3 images of /camera/image_raw at 0.0001 Hz'):
        aligned(tmp_path, images([0.0, 1e4, 3e7]), rate_hz=20.0)
    made = aligned(tmp_path, images([0.0, 0.05, 3e7, 3e7 + 0.05]), 'pauses')
    assert made.segments == ((0, 2), (2, 4)) and made.rate_hz == 20.0


def test_another_rate_takes_the_newest_image_of_each_tick(tmp_path):
    made = aligned(tmp_path, images([0.05 * i for i in range(21)]), rate_hz=16.0)
    assert levels(made) == [int(0.0625 * i / 0.05 + 1e-6) for i in range(17)]
    assert made.rate_hz == 16.0 and made.about['images_unused'] == 4


def test_a_fast_camera_is_thinned_out_to_30_hz(tmp_path):
    made = aligned(tmp_path, images([i / 60 for i in range(30)]))
    assert made.rate_hz == 30.0 and levels(made) == list(range(0, 30, 2))


@pytest.mark.parametrize('asked, size', [
    ({}, (160, 88)), ({'size': (64, 64)}, (64, 64)), ({'size': (640, 360)}, (640, 360))])
def test_pictures_are_160_wide_or_as_asked(tmp_path, asked, size):
    left = np.zeros((360, 640, 3), np.uint8)
    left[:, :320] = 200
    messages = [('/image', T + 0.05 * i, bags.image(T + 0.05 * i, left)) for i in range(3)]
    made = aligned(tmp_path, messages, **asked)
    assert made.size_px == size
    assert made.rgb[0, :, :size[0] // 2].min() == 200 and made.rgb[0, :, size[0] // 2:].max() == 0


def test_large_images_are_resized_by_area(tmp_path):
    checks = np.indices((2160, 3840)).sum(0) % 2 * np.uint8(200)  # 4K, finer than pictures
    messages = [('/image', T + 0.1 * i, bags.image(T + 0.1 * i, checks.astype(np.uint8),
                                                   encoding='mono8')) for i in range(2)]
    made = aligned(tmp_path, messages)
    assert made.size_px == (160, 88) and np.unique(made.rgb).tolist() == [100]


# Commands


def test_velocities_that_end_count_as_zero_after_half_a_second(tmp_path):
    commands = [('/cmd_vel', T + 0.1 * i, bags.twist(1.0, 0.0)) for i in range(3)]
    made = aligned(tmp_path, sorted(images([0.1 * i for i in range(12)]) + commands,
                                    key=lambda m: m[1]))
    assert made.action[:, 0].tolist() == [1.0] * 8 + [0.0] * 4  # 0.7 s is 0.5 s after the last


def test_columns_of_a_twist_that_are_never_used_are_left_out(tmp_path):
    commands = [('/cmd_vel', T, bags.twist(0.0, 0.0, lateral=0.3))]
    made = aligned(tmp_path, commands + images([0.0, 0.1]))
    assert made.action_names == ('linear_x', 'linear_y', 'angular_z')
    assert made.action[0].tolist() == [0.0, np.float32(0.3), 0.0]


def test_ackermann_drives_by_the_definition_in_the_bag(tmp_path):
    drive = bags.make('ackermann_msgs/msg/AckermannDrive', speed=2.0, steering_angle=-0.25)
    made = aligned(tmp_path, [('/drive', T, drive)] + images([0.0, 0.1]))
    assert made.action_names == ('linear_x', 'steering_angle')
    assert made.action.tolist() == [[2.0, -0.25]] * 2


def test_joint_commands_are_held_and_begin_a_segment(tmp_path):
    commands = [('/joint_command', T + 0.15, bags.joints(T + 0.15, ['a', 'b'], [1.0, np.nan])),
                ('/joint_command', T + 0.25, bags.joints(T + 0.25, ['a', 'b'], [2.0, 3.0])),
                ('/joint_states', T, bags.joints(T, ['a', 'b'], [0.1, 0.2]))]
    made = aligned(tmp_path, sorted(images([0.1 * i for i in range(30)]) + commands,
                                    key=lambda m: m[1]))
    assert made.action_names == ('a', 'b') and levels(made) == list(range(3, 30))
    assert made.action.tolist() == [[2.0, 3.0]] * 27
    assert made.joint_names == ('a', 'b') and np.allclose(made.joint_position, [[0.1, 0.2]] * 27)
    assert made.about['frames_left_out'] == 3


def test_a_trajectory_is_followed_until_the_next_one(tmp_path):
    def points(*at):
        kind = 'builtin_interfaces/msg/Duration'
        return [bags.make('trajectory_msgs/msg/JointTrajectoryPoint', positions=np.array([value]),
                          time_from_start=bags.make(kind, sec=int(seconds),
                                                    nanosec=int(seconds % 1 * 1e9)))
                for seconds, value in at]
    sent = [bags.make(bags.TRAJECTORY, header=bags.header(0.0), joint_names=['a'], points=p)
            for p in (points((0.0, 0.0), (1.0, 1.0)), points((0.5, 0.4)))]
    commands = [('/arm/joint_trajectory', T, sent[0]), ('/arm/joint_trajectory', T + 0.5, sent[1])]
    made = aligned(tmp_path, sorted(commands + images([0.1 * i for i in range(13)]),
                                    key=lambda m: m[1]))
    want = [0.0, 0.1, 0.2, 0.3, 0.4, 0.48, *np.linspace(0.48, 0.4, 6)[1:], 0.4, 0.4]
    assert np.allclose(made.action[:, 0], want, atol=0.02)


# Poses and cameras


def test_map_is_preferred_where_tf_has_it(tmp_path):
    start = bags.tf(bags.transform(T, 'map', 'odom', (1.0, 2.0, 0.0), (0, 0, np.sin(np.pi / 4),
                                                                       np.cos(np.pi / 4))))
    later = bags.tf(bags.transform(T + 1, 'map', 'odom', (5.0, 0.0, 0.0)))
    messages = bags.drive() + [('/tf', T, start), ('/tf', T + 1, later)]
    made = aligned(tmp_path, sorted(messages, key=lambda m: m[1]))
    assert made.pose_frame == 'map'
    assert np.allclose(made.base_pose[4], [1.0, 2.1, 0.4 + np.pi / 2])
    assert np.allclose(made.base_pose[20, :2], [5.5, 0.0])
    assert np.allclose(made.base_pose[19, :2], [1.0, 2.475])


def test_tf_alone_tells_poses_and_a_camera_that_moves(tmp_path):
    messages = images([0.05 * i for i in range(20)])
    for i in range(20):
        at = T + 0.05 * i
        half = 0.005 * i
        messages.append(('/tf', at, bags.tf(
            bags.transform(at, 'odom', 'base_link', (0.1 * i, 0, 0)),
            bags.transform(at, 'base_link', 'neck', (0, 0, 1.0),
                           (0, np.sin(half), 0, np.cos(half))))))
    messages.append(('/tf_static', T, bags.tf(bags.transform(
        T, 'neck', 'camera_optical_frame', (0.1, 0, 0), (-0.5, 0.5, -0.5, 0.5)))))
    made = aligned(tmp_path, sorted(messages, key=lambda m: m[1]))
    assert made.pose_frame == 'odom' and np.allclose(made.base_pose[:, 0], 0.1 * np.arange(20))
    tilt = 0.01 * np.arange(20)
    assert np.allclose(made.T_base_optical[:, :3, 2], np.stack(
        [np.cos(tilt), 0 * tilt, -np.sin(tilt)], 1))  # where it looks
    assert np.allclose(made.T_base_optical[:, 2, 3], 1.0 - 0.1 * np.sin(tilt))


def test_a_base_that_tilts_and_rises_moves_its_camera(tmp_path):
    messages = bags.drive(10)
    for topic, _, message in messages:
        if topic == '/odom':
            message.pose.pose.position.z = 0.5
            message.pose.pose.orientation = bags.vector('Quaternion', y=np.sin(0.1),
                                                        w=float(np.cos(0.1)))  # looks down
    made = aligned(tmp_path, messages)
    assert np.allclose(made.base_pose, [[0.025 * i, 0, 0] for i in range(10)])
    assert made.T_base_optical.shape == (1, 4, 4)
    c, s = np.cos(0.2), np.sin(0.2)
    assert np.allclose(made.T_base_optical[0, :3, 2], [c, 0, -s])
    assert np.allclose(made.T_base_optical[0, :3, 3], [0.1 * c + 0.3 * s, 0,
                                                       0.5 + 0.3 * c - 0.1 * s])


def test_a_camera_in_a_hand_is_its_own_base(tmp_path):
    messages = images([0.05 * i for i in range(5)])
    for i in range(5):  # at 1.5 m, looks along y
        at = T + 0.05 * i
        messages.append(('/tf', at, bags.tf(bags.transform(
            at, 'world', 'camera_optical_frame', (2.0, 0.1 * i, 1.5),
            (-np.sqrt(0.5), 0, 0, np.sqrt(0.5))))))
    made = aligned(tmp_path, sorted(messages, key=lambda m: m[1]))
    assert made.pose_frame == 'world'
    assert np.allclose(made.base_pose, [[2.0, 0.1 * i, np.pi / 2] for i in range(5)])
    assert np.allclose(made.T_base_optical, [[[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5],
                                              [0, 0, 0, 1]]])


def test_an_image_in_the_frame_of_the_link_is_seen_as_ros_means_it(tmp_path):
    messages = [(topic, at, bags.tf(bags.transform(T, 'base_link', 'camera_link', (0.2, 0, 0.4)))
                 if topic == '/tf_static' else message)
                for topic, at, message in bags.drive(5)]
    for topic, _, message in messages:
        if topic == '/camera/image_raw':
            message.header.frame_id = 'camera_link'
    made = aligned(tmp_path, messages)
    assert np.allclose(made.T_base_optical[0, :3, 2], [1, 0, 0]) and 'image_frame' in made.about


def test_a_lens_is_taken_out(tmp_path):
    d = (-0.3, 0.1, 0.0, 0.0, 0.0)
    lens = bags.info(T, 160, 120, 100.0, d)
    k = lens.k.reshape(3, 3)
    grid = np.stack(np.meshgrid(np.arange(160.0), np.arange(120.0)), -1).reshape(-1, 1, 2)
    straight = cv2.undistortPointsIter(grid, k, np.array(d), None, None, (
        cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-9)) if hasattr(
            cv2, 'undistortPointsIter') else cv2.undistortPoints(grid, k, np.array(d))
    slope = straight.reshape(120, 160, 2)[..., 0]
    shown = np.rint(128 + 100 * slope).astype(np.uint8)  # brightness tells where a pixel looks
    messages = [('/camera/camera_info', T, lens)] + [
        ('/camera/image_raw', T + 0.1 * i, bags.image(T + 0.1 * i, shown, encoding='mono8'))
        for i in range(2)]
    made = aligned(tmp_path, messages)
    rays = made.camera.rays(made.camera.pixel_grid())
    assert made.camera.fx_px < 100.0 or made.camera.fx_px > 100.0  # another one than with a lens
    assert np.abs(made.rgb[0, ..., 0].astype(float) - 128 - 100 * rays[..., 0]).max() < 1.6


@pytest.mark.parametrize('wrong, words', [
    (lambda: bags.info(T, 32, 32), '32x32 pixels'), (lambda: bags.info(T, focal=0.0), 'calibrat'),
    (lambda: bags.info(T, d=(1.0,) * 3), 'coefficients')])
def test_a_camera_that_cannot_be_leaves_the_pictures(tmp_path, wrong, words):
    made = aligned(tmp_path, [('/camera/camera_info', T, wrong())] + images([0.0, 0.1]))
    assert made.camera is None and words in made.about['camera_left_out']


def test_depth_of_another_camera_is_left_out_and_told(tmp_path):
    messages = bags.drive(5)
    for topic, _, message in messages:
        if 'depth' in topic:
            message.header.frame_id = 'depth_optical_frame'
    made = aligned(tmp_path, messages)
    assert made.depth is None and 'aligned_depth_to_color' in made.about['depth_left_out']


def packed_depth(stamp_s, kind):
    """Return 2 m, and nothing in the first column, as compressed_depth_image_transport does."""
    value = 2000 if kind == '16UC1' else 3000
    pixels = np.full((24, 32), value, np.uint16)
    pixels[:, 0] = 0
    scale = np.array([0, 0], np.float32) if kind == '16UC1' else np.array([5000, 500], np.float32)
    data = np.int32(0).tobytes() + scale.tobytes() + cv2.imencode('.png', pixels)[1].tobytes()
    return bags.make(bags.PACKED, header=bags.header(stamp_s, 'camera_optical_frame'),
                     format=f'{kind}; compressedDepth png', data=np.frombuffer(data, np.uint8))


@pytest.mark.parametrize('kind', ['16UC1', '32FC1'])
def test_packed_depth_is_metres(tmp_path, kind):
    messages = images([0.0, 0.1]) + [('/camera/depth/compressedDepth', T, packed_depth(T, kind))]
    made = aligned(tmp_path, messages)
    assert made.depth[0, :, 1:].min() == made.depth[0, :, 1:].max() == 2.0
    assert not made.depth[:, :, 0].any()


# Time


def test_commands_without_a_stamp_are_put_into_sim_time(tmp_path):
    messages = []
    for i in range(20):  # half real time: 0.1 s of the recorder is 0.05 s of the world
        received = T + 0.1 * i
        messages += [('/clock', received, bags.clock(3.0 + 0.05 * i)),
                     ('/camera/image_raw', received + 0.01, bags.image(3.0 + 0.05 * i,
                                                                       bags.grey(i)))]
    messages.append(('/cmd_vel', T + 0.95, bags.twist(1.0, 0.0)))  # world 3.45 to 3.5
    made = aligned(tmp_path, sorted(messages, key=lambda m: m[1]))
    assert made.rate_hz == 20.0 and made.about['other_clock']
    assert made.action[:, 0].tolist() == [0.0] * 9 + [1.0] * 11


def test_a_clock_that_goes_back_begins_a_segment(tmp_path):
    first = images([0.05 * i for i in range(10)], start=0.0)
    second = images([0.05 * i for i in range(10)], start=0.0)
    messages = [(topic, T + 0.05 * i, message)
                for i, (topic, _, message) in enumerate(first[4:] + second)]
    commands = [('/cmd_vel', T + 0.24, bags.twist_stamped(0.44, 1.0, 0.0)),
                ('/cmd_vel', T + 0.31, bags.twist_stamped(0.0, 2.0, 0.0))]
    made = aligned(tmp_path, sorted(messages + commands, key=lambda m: m[1]))
    assert levels(made) == [*range(4, 10), *range(10)] and made.segments == ((0, 6), (6, 16))
    assert made.action[:, 0].tolist() == [0.0] * 5 + [1.0] + [2.0] * 10
    assert made.about['clock_jumps'] == 1


def test_a_recorder_that_took_sim_time_tells_of_a_reset_itself(tmp_path):
    messages = []
    for i in range(40):
        at = 2.0 + 0.05 * i if i < 20 else 0.05 * (i - 20)
        messages.append(('/image', at, bags.image(at, bags.grey(i))))
        if i in (10, 30):  # without a stamp; the newest clock is that of the image before
            messages.append(('/cmd_vel', at, bags.twist(float(i), 0.0)))
    made = aligned(tmp_path, messages)
    assert made.segments == ((0, 20), (20, 40)) and levels(made) == list(range(40))
    assert made.action[:, 0].tolist() == [0.0] * 10 + [10.0] * 10 + [0.0] * 10 + [30.0] * 10
    assert not made.about['other_clock']


@pytest.mark.parametrize('stamps', [lambda i: 0.0, lambda i: 5.0])
def test_stamps_that_nobody_sets_are_not_used(tmp_path, stamps):
    messages = [('/image', T + 0.05 * i, bags.image(stamps(i), bags.grey(i))) for i in range(10)]
    made = aligned(tmp_path, messages)
    assert levels(made) == list(range(10)) and made.about['stamps'] == 'receipt'


def test_a_camera_with_a_clock_of_its_own_is_timed_by_receipt(tmp_path):
    messages = bags.drive(20)
    for topic, _, message in messages:
        if 'camera' in topic:
            message.header = bags.header(
                message.header.stamp.sec + message.header.stamp.nanosec * 1e-9 - T + 50.0,
                'camera_optical_frame')
    made = aligned(tmp_path, messages)
    assert made.about['stamps'] == 'receipt' and made.num_frames == 20
    assert np.allclose(made.base_pose[:, 0], 0.025 * np.arange(20))


def test_messages_in_the_wrong_order_are_sorted(tmp_path):
    messages = bags.drive()
    order = np.random.default_rng(1).permutation(len(messages))
    mixed = aligned(tmp_path, [messages[i] for i in order], 'mixed')
    made = aligned(tmp_path, messages)
    assert mixed.about['out_of_order'] and not made.about['out_of_order']
    for name in ('rgb', 'action', 'base_pose', 'depth', 'scan'):
        assert np.array_equal(getattr(mixed, name), getattr(made, name)), name


def test_topics_one_after_the_other_are_the_same(tmp_path):
    messages = bags.drive()
    made = aligned(tmp_path, messages)
    apart = aligned(tmp_path, sorted(messages, key=lambda m: m[0]), 'apart')
    assert np.array_equal(apart.action, made.action) and np.array_equal(apart.rgb, made.rgb)


# Storages


@pytest.mark.parametrize('storage, mode, with_text', [
    ('sqlite3', None, True), ('sqlite3', None, False), ('sqlite3', 'file', True),
    ('sqlite3', 'message', True), ('mcap', 'file', True), ('mcap', 'message', True),
    ('mcap', 'storage', True)])
def test_every_storage_and_compression_gives_the_same(tmp_path, storage, mode, with_text):
    made = aligned(tmp_path, bags.drive())
    other = bags.write_bag(tmp_path / 'other', bags.drive(), storage=storage, mode=mode,
                           with_text=with_text)
    again, = align([other], tmp_path / 'out')
    for name in ('rgb', 'action', 'base_pose', 'depth', 'scan', 'T_base_optical'):
        assert np.array_equal(getattr(again, name), getattr(made, name)), name


def test_a_bag_in_several_files_is_one_recording(tmp_path):
    messages = bags.drive()
    folder = tmp_path / 'split'
    folder.mkdir()
    for i, part in enumerate((messages[:100], messages[100:200], messages[200:])):
        bags.write_bag(tmp_path / f'p{i}', part)
        shutil.move(tmp_path / f'p{i}' / f'p{i}.mcap', folder / f'split_{i + 9}.mcap')
    made, = align([folder], tmp_path / 'out')
    assert levels(made) == list(range(40)) and made.segments == ((0, 40),)


def test_several_bags_are_several_recordings(tmp_path):
    paths = [bags.write_bag(tmp_path / side / 'bag', bags.drive(4 + i))
             for i, side in enumerate('ab')]
    made = align([*paths, paths[0] / 'bag.mcap'], tmp_path / 'out')
    assert [(m.name, m.num_frames) for m in made] == [('bag', 4), ('bag_2', 5), ('bag_3', 4)]
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['bag', 'bag_2', 'bag_3']


@pytest.mark.parametrize('name', ['mein Lauf 🚗', '\ufeffbag', "it's"])
def test_any_path_will_do(tmp_path, name):
    made = aligned(tmp_path, bags.drive(4), name, topics={'image': '/camera/image_raw'})
    assert made.name == name and load_aligned(tmp_path / 'out' / name).num_frames == 4


# What cannot be


def left_behind(tmp_path):
    """Return what alignment left."""
    return sorted(str(p.relative_to(tmp_path / 'out')) for p in (tmp_path / 'out').rglob('*'))


def cut(tmp_path, part):
    """Return a bag whose file ends too early."""
    folder = bags.write_bag(tmp_path / 'bag', bags.drive())
    file = folder / 'bag.mcap'
    os.truncate(file, int(part * file.stat().st_size))
    return folder


def cut_rows(tmp_path):
    """Return a bag in sqlite3 whose file ends too early."""
    folder = bags.write_bag(tmp_path / 'bag', bags.drive(), storage='sqlite3')
    os.truncate(folder / 'bag.db3', 100_000)
    return folder


def cut_pack(tmp_path):
    """Return a compressed bag whose file ends too early."""
    folder = bags.write_bag(tmp_path / 'bag', bags.drive(), storage='sqlite3', mode='file')
    file = folder / 'bag.db3.zstd'
    os.truncate(file, file.stat().st_size // 2)
    return folder


def scribbled(tmp_path):
    """Return a bag with other bytes in the middle of its file."""
    folder = bags.write_bag(tmp_path / 'bag', bags.drive(), mode='storage')
    file = folder / 'bag.mcap'
    data = bytearray(file.read_bytes())
    data[2000:2200] = bytes(200)
    file.write_bytes(data)
    return folder


def text_file(tmp_path):
    (tmp_path / 'notes.txt').write_text('no bag')
    return tmp_path / 'notes.txt'


def false_mcap(tmp_path):
    (tmp_path / 'notes.mcap').write_text('no bag')
    return tmp_path / 'notes.mcap'


def false_yaml(tmp_path):
    (tmp_path / 'bag').mkdir()
    (tmp_path / 'bag' / 'metadata.yaml').write_text('rosbag2_bagfile_information: [1, 2]')
    return tmp_path / 'bag'


def folder_of(messages, name='bag'):
    return lambda tmp_path: bags.write_bag(tmp_path / name, messages)


def with_image(message):
    return folder_of([('/image', T, message), ('/cmd_vel', T, bags.twist(1, 0))])


@pytest.mark.parametrize('make, words', [
    (lambda p: p / 'nowhere', 'There is no recording'), (lambda p: p, 'is no recording'),
    (text_file, 'is no recording'), (false_mcap, 'cannot be read'), (false_yaml, 'cannot be read'),
    (lambda p: cut(p, 0.5), 'no images that can be used'),  # all is in its one chunk
    (lambda p: cut(p, 0.0), 'cannot be read'),
    (scribbled, 'cannot be read'), (cut_rows, 'cannot be read'), (cut_pack, 'cannot be read'),
    (folder_of([('/cmd_vel', T, bags.twist(1, 0))]), 'no images that can be used: record'),
    (folder_of([]), 'no images that can be used'),
    (with_image(bags.image(T, bags.grey(1), encoding='plaid8')), "'plaid8' is not one of"),
    (with_image(bags.image(T, np.zeros((4, 4), np.uint16), encoding='16UC1')), 'is depth'),
    (with_image(bags.make(bags.PACKED, format='jpeg', data=np.zeros(9, np.uint8))),
     'no colour image'),
    (with_image(bags.image(T, bags.grey(1))), 'at one moment'),
])
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(tmp_path, make, words):
    path = make(tmp_path)
    with pytest.raises(SpecError, match=words) as error:
        align([path], tmp_path / 'out')
    assert '\n' not in str(error.value) and not (tmp_path / 'out').exists()


def test_a_file_that_broke_off_is_read_as_far_as_it_goes(tmp_path):
    rng = np.random.default_rng(0)
    messages = [('/image', T + 0.05 * i, bags.image(T + 0.05 * i, rng.integers(
        0, 256, (240, 320, 3), np.uint8))) for i in range(30)]
    folder = bags.write_bag(tmp_path / 'bag', messages)
    file = folder / 'bag.mcap'
    whole, size = file.read_bytes(), file.stat().st_size
    os.truncate(file, size // 2)
    for i, path in enumerate((folder, file)):
        made, = align([path], tmp_path / f'out_{i}')
        assert 10 <= made.num_frames < 16 and 'broken off' in made.about['form']
    assert file.read_bytes() == whole[:size // 2]  # the recording itself stays as it is


def test_all_or_none(tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine').write_text('keep')
    good = bags.write_bag(tmp_path / 'good', bags.drive(4))
    with pytest.raises(SpecError, match='There is no recording'):
        align([good, tmp_path / 'nowhere'], tmp_path / 'out')
    assert left_behind(tmp_path) == ['mine']
    align([good], tmp_path / 'out')
    with pytest.raises(SpecError, match='exists already'):
        align([good], tmp_path / 'out')
    assert load_aligned(tmp_path / 'out' / 'good').num_frames == 4


@pytest.mark.parametrize('topics, words', [
    ({'image': '/camera/image_rwa'}, "Did you mean '/camera/image_raw'"),
    ({'picture': '/a'}, 'Unknown role'), ({'odometry': '/scan'}, 'cannot be odometry')])
def test_topics_that_are_named_have_to_be_there(tmp_path, topics, words):
    with pytest.raises(SpecError, match=words):
        aligned(tmp_path, bags.drive(4), topics=topics)


@pytest.mark.parametrize('asked, words', [
    ({'rate_hz': 0.0}, 'rate of 0'), ({'size': (2, 2)}, 'Pictures of 2x2'),
    ({'max_age_s': 0.0}, 'max_age_s=0')])
def test_numbers_that_cannot_be_are_told(tmp_path, asked, words):
    with pytest.raises(SpecError, match=words):
        aligned(tmp_path, bags.drive(4), **asked)


def test_single_images_that_are_damaged_split_and_are_counted(tmp_path):
    messages = [('/image', T + 0.05 * i, bags.packed(T + 0.05 * i, bags.grey(i)))
                for i in range(10)]
    messages[4][2].data = np.zeros(50, np.uint8)
    made = aligned(tmp_path, messages)
    assert made.segments == ((0, 4), (5, 10)) and made.about['images_damaged'] == 1
    assert levels(made)[3:6] == [3, 3, 5]  # the picture before stands for it


def test_two_cameras_and_noise_are_told_apart(tmp_path):
    messages = bags.drive(10)
    for i in range(10):
        at = T + 0.05 * i
        rear = bags.image(at, bags.grey(200 + i), 'rear_optical_frame')
        infra = bags.image(at, np.zeros((24, 32), np.uint8), encoding='mono8')
        messages += [('/rear/image_raw', at, rear), ('/camera/infra1/image_rect_raw', at, infra)]
        messages += [(f'/noise_{n}', at, bags.make('std_msgs/msg/String', data='x'))
                     for n in range(20)]
    messages.sort(key=lambda m: m[1])
    made = aligned(tmp_path, messages)
    assert levels(made) == list(range(10))  # the one with camera_info
    rear = aligned(tmp_path, messages, 'again', topics={'image': '/rear/image_raw'})
    assert levels(rear) == list(range(200, 210)) and rear.camera is None


# The folder


def test_frames_may_be_written_in_any_order(tmp_path):
    writer = AlignedWriter(tmp_path)
    writer.put(2, 'rgb', np.full((1, 2, 2, 3), 7))
    writer.put(0, 'action', np.ones((3, 1)))
    made = writer.close(name='x', rate_hz=1.0, action_names=('a',))
    assert made.rgb[:, 0, 0, 0].tolist() == [0, 0, 7] and made.action.tolist() == [[1.0]] * 3


# Tubs and data sets


def tub(folder, **form):
    """Write a tub of six frames that turns more and more, and return it."""
    bags.write_tub(folder, [(bags.grey(10 * i), 0.1 * i, 0.5) for i in range(6)], **form)
    return folder


def packed_tub(folder):
    """Return a tub as .tar.gz."""
    tub(folder / 'tub')
    return Path(shutil.make_archive(str(folder / 'tub'), 'gztar', folder, 'tub'))


@pytest.mark.parametrize('make', [
    lambda p: tub(p / 'tub'), lambda p: tub(p / 'tub', is_old=True),
    lambda p: tub(p / 'tub', period_ms=3), packed_tub])
def test_a_tub_gives_what_its_car_did(tmp_path, make):
    made, = align([make(tmp_path)], tmp_path / 'out')
    assert made.name == 'tub' and made.segments == ((0, 6),) and made.rate_hz == 20.0
    assert made.action_names == ('linear_x', 'angular_z')
    assert np.allclose(made.action, [[0.5, -0.1 * i] for i in range(6)])
    assert np.abs(np.array(levels(made)) - 10 * np.arange(6)).max() <= 1


def test_a_tub_that_broke_off_keeps_what_is_whole(tmp_path):
    catalog = tub(tmp_path / 'tub') / 'catalog_0.catalog'
    os.truncate(catalog, catalog.stat().st_size - 20)
    (tmp_path / 'tub' / 'images' / '2_cam_image_array_.jpg').unlink()
    made, = align([tmp_path / 'tub'], tmp_path / 'out')
    assert made.num_frames == 5 and made.segments == ((0, 2), (3, 5))
    assert '1 records damaged' in made.about['form']


@pytest.mark.parametrize('name, content, words', [
    ('a.tar.gz', b'no archive', 'cannot be read'), ('tub/manifest.json', b'[]', 'no Donkey tub'),
    ('lr/meta/info.json', b'{', 'none of LeRobot'),
    ('lr/meta/info.json', b'{"codebase_version": "v1.6", "fps": 5, "features": {}}', "'v1.6'")])
def test_neither_tub_nor_data_set_is_one_sentence(tmp_path, name, content, words):
    if 'lr/' in name:
        pytest.importorskip('pyarrow')
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(SpecError, match=words) as error:
        align([tmp_path / name.partition('/')[0]], tmp_path / 'out')
    assert '\n' not in str(error.value) and not (tmp_path / 'out').exists()


def test_a_data_set_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta' / 'info.json').write_text('{}')
    with pytest.raises(SpecError, match='pip install pyarrow'):
        align([tmp_path], tmp_path / 'out')


LENGTHS = (5, 7)  # of episodes


def dataset(folder, version='v3.0', video=False):
    """Write a LeRobot data set of two episodes; frame i of all has brightness 20 i."""
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet
    key, is_new = 'observation.images.front', version == 'v3.0'
    rows = [{'episode_index': e, 'frame_index': f, 'index': f + e * LENGTHS[0],
             'timestamp': f / 10, 'action': [0.1 * f, float(e)], 'observation.state': [f + 0.5]}
            for e, length in enumerate(LENGTHS) for f in range(length)]
    if not video:
        for row in rows:
            row[key] = {'path': None, 'bytes': cv2.imencode(
                '.png', bags.grey(20 * row['index']))[1].tobytes()}
    parts = [rows] if is_new else [[r for r in rows if r['episode_index'] == e] for e in (0, 1)]
    for e, part in enumerate(parts):
        file = folder / 'data' / 'chunk-000' / (
            'file-000.parquet' if is_new else f'episode_{e:06d}.parquet')
        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(part), file)
    if video:
        template = f'videos/{key}/chunk-000/file-000.mp4' if is_new else (
            f'videos/chunk-000/{key}/episode_{{:06d}}.mp4')
        for e, part in enumerate(parts):
            write_video(folder / template.format(e), [20 * row['index'] for row in part])
    (folder / 'meta' / 'episodes' / 'chunk-000').mkdir(parents=True)
    if is_new:
        parquet.write_table(pa.Table.from_pylist([
            {'episode_index': e, f'videos/{key}/chunk_index': 0, f'videos/{key}/file_index': 0,
             f'videos/{key}/from_timestamp': e * LENGTHS[0] / 10} for e in (0, 1)]),
            folder / 'meta' / 'episodes' / 'chunk-000' / 'file-000.parquet')
    video_path = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4' if (
        is_new) else 'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4'
    (folder / 'meta' / 'info.json').write_text(json.dumps({
        'codebase_version': version, 'fps': 10, 'total_episodes': 2, 'chunks_size': 1000,
        'video_path': video_path if video else None, 'features': {
            'action': {'dtype': 'float32', 'shape': [2], 'names': {'motors': ['arm', 'grip']}},
            'observation.state': {'dtype': 'float32', 'shape': [1], 'names': None},
            key: {'dtype': 'video' if video else 'image', 'shape': [24, 32, 3]},
            'timestamp': {'dtype': 'float32', 'shape': [1]}}}))
    return folder


def write_video(path, brightness):
    """Write a video of 64 x 48 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10.0, (64, 48))
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no videos')
    for level in brightness:
        writer.write(bags.grey(level, 64, 48))
    writer.release()


@pytest.mark.parametrize('video', [False, True])
@pytest.mark.parametrize('version', ['v2.1', 'v3.0'])
def test_a_data_set_gives_its_episodes_as_segments(tmp_path, version, video):
    made, = align([dataset(tmp_path / 'set', version, video)], tmp_path / 'out')
    assert made.segments == ((0, 5), (5, 12)) and made.rate_hz == 10.0
    assert made.action_names == ('arm', 'grip') and made.joint_names == ('state_0',)
    assert np.allclose(made.action, [[0.1 * f, e] for e, n in enumerate(LENGTHS)
                                     for f in range(n)])
    assert np.allclose(made.joint_position[5:, 0], 0.5 + np.arange(7))
    assert np.abs(np.array(levels(made)) - 20 * np.arange(12)).max() <= 6


def test_a_data_set_whose_video_is_missing_is_one_sentence(tmp_path):
    folder = dataset(tmp_path / 'set', 'v2.1', True)
    shutil.rmtree(folder / 'videos')
    with pytest.raises(SpecError, match='episode_000000.mp4 is missing'):
        align([folder], tmp_path / 'out')
