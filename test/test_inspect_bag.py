# SPDX-License-Identifier: Apache-2.0
"""Inspect, of recordings: what is told of them, on one screen and as JSON."""
import json
import os

import pytest

pytest.importorskip('rosbags')
pytest.importorskip('cv2')

from bench import bags  # noqa: E402, I100
from bench.bags import START_S as T  # noqa: E402
from lingbot_world_ros.cli.main import main  # noqa: E402
from lingbot_world_ros.recording.inspection import inspect_recording  # noqa: E402
import numpy as np  # noqa: E402


def told(messages, tmp_path, **topics):
    """Write a bag and return what is told of it."""
    return inspect_recording(bags.write_bag(tmp_path / 'bag', messages), topics)


def without(*prefixes, num=20):
    """Return a drive that lacks topics."""
    return [m for m in bags.drive(num) if not m[0].startswith(prefixes)]


def test_a_whole_drive_can_be_mapped(tmp_path, capsys):
    path = bags.write_bag(tmp_path / 'bag', bags.drive())
    assert main(['inspect', str(path)]) == 0
    said = capsys.readouterr().out
    for words in ('rosbag2 (MCAP, 1 file)', '2.0 s, 241 messages, 2023-11-14T22:13:19',
                  '/camera/image_raw        sensor_msgs/Image            40   20.0   50ms   50ms',
                  'Times are those of headers.', 'Images: 32x24, rgb8, frame camera_optical_frame',
                  'Aligned: 40 frames at 20 Hz in 1 segment, the longest 2.0 s',
                  'Commands: linear_x, angular_z.', 'Poses: in odom.',
                  'Can be learned: a mapped world'):
        assert words in said, words
    assert 'Missing' not in said and len(said.splitlines()) < 24
    assert max(map(len, said.splitlines()[1:])) < 120  # the first holds the path


def test_json_holds_the_same(tmp_path, capsys):
    path = bags.write_bag(tmp_path / 'bag', bags.drive())
    assert main(['inspect', str(path), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['learn'] == 'mapped' and not report['missing']
    image, = [t for t in report['topics'] if t['role'] == 'image']
    assert (image['name'], image['count']) == ('/camera/image_raw', 40)
    assert image['rate_hz'] == pytest.approx(20.0)
    assert report['camera']['fx_px'] == 20.0 and report['frames']['segments'] == 1
    assert report['roles']['odometry']['topic'] == '/odom'


@pytest.mark.parametrize('left_out, learn, missing', [
    (('/odom',), 'recurrent', {'poses'}),
    (('/camera/camera_info',), 'recurrent', {'camera_info'}),
    (('/tf',), 'recurrent', {'camera mount'}),
    (('/scan',), 'mapped', set()),
    (('/camera/depth',), 'recurrent', {'depth'}),
    (('/cmd_vel',), 'nothing', {'commands'}),
    (('/camera/image_raw',), 'nothing', {'images'}),
    (('/odom', '/tf', '/scan', '/camera/depth', '/camera/camera_info'), 'recurrent',
     {'poses', 'camera_info', 'camera mount', 'depth'})])
def test_what_is_missing_is_told_and_how_to_record_it(tmp_path, left_out, learn, missing):
    report = told(without(*left_out), tmp_path)
    assert report['learn'] == learn
    assert {one['what'] for one in report['missing']} == missing
    topics = {'poses': '/odom', 'camera_info': '/camera/camera_info', 'commands': '/cmd_vel',
              'camera mount': '/tf_static', 'images': '/camera/image_raw',
              'depth': '/camera/aligned_depth_to_color/image_raw'}
    assert report['record'].startswith('ros2 bag record -s mcap ')
    assert {topics[what] for what in missing} <= set(report['record'].split())


def test_without_depth_no_place_is_promised(tmp_path, capsys):
    """What can be learned is what learning does."""
    path = bags.write_bag(tmp_path / 'bag', without('/camera/depth'))
    assert main(['inspect', str(path)]) == 0
    said = capsys.readouterr().out
    assert 'Can be learned: a recurrent world' in said and 'estimated' not in said
    assert 'depth  for mapped: registered to the images' in said
    assert '/camera/aligned_depth_to_color/image_raw' in said.partition('Record: ')[2]


@pytest.mark.parametrize('role, topic, words', [
    ('depth', '/camera/image_raw', '/camera/image_raw carries colour pictures (rgb8), not depth'),
    ('image', '/camera/depth/image_raw', 'carries depth (16UC1), not colour pictures'),
    ('depth', '/odom', 'which cannot be depth'), ('depth', '/nope', '/nope')])
def test_a_topic_that_cannot_be_what_was_said_is_one_line(tmp_path, capsys, role, topic, words):
    path = bags.write_bag(tmp_path / 'bag', bags.drive(5))
    assert main(['inspect', str(path), f'--{role}', topic]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count('\n') == 1


def test_gaps_and_jitter_are_those_of_the_stamps(tmp_path):
    times = [0.0, 0.1, 0.2, 0.31, 0.41, 2.0, 2.1]
    report = told([('/image', T + at + 0.02, bags.image(T + at, bags.grey(i)))
                   for i, at in enumerate(times)], tmp_path)
    topic, = report['topics']
    assert topic['largest_gap_s'] == pytest.approx(1.59) and topic['jumps'] == 0
    assert topic['interval_p50_s'] == pytest.approx(0.1)
    assert topic['rate_hz'] == pytest.approx(5 / 0.51)
    assert report['frames']['segments'] == 2


def test_sim_time_and_a_reset_are_told(tmp_path, capsys):
    messages = [('/image', T + 0.05 * i, bags.image(0.05 * (i % 20 + 1), bags.grey(i)))
                for i in range(40)]
    assert main(['inspect', str(bags.write_bag(tmp_path / 'bag', messages))]) == 1
    said = capsys.readouterr().out
    assert "their clock is not the recorder's (sim time); time goes back 1x" in said
    assert 'image, time goes back 1x' in said and 'in 2 segments (0 of 10 s or more)' in said


def test_several_topics_of_a_role_are_told_with_the_way_to_name_another(tmp_path, capsys):
    messages = bags.drive(10) + [
        (topic, T + 0.05 * i, bags.image(T + 0.05 * i, bags.grey(i), 'rear'))
        for topic in ('/rear/image_raw', '/side/image_raw') for i in range(10)]
    path = str(bags.write_bag(tmp_path / 'bag', sorted(messages, key=lambda m: m[1])))
    assert main(['inspect', path]) == 0
    said = capsys.readouterr().out
    assert ('Of several topics for image, /camera/image_raw is taken; --image names another: '
            '/rear/image_raw, /side/image_raw.') in said
    assert main(['inspect', path, '--image', '/side/image_raw', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['images']['topic'] == '/side/image_raw' and report['learn'] == 'recurrent'


def test_twenty_topics_of_noise_leave_one_screen(tmp_path, capsys):
    noise = [(f'/noise_{n:02d}', T + 0.1 * i, bags.make('std_msgs/msg/String', data='x'))
             for i in range(5) for n in range(30)]
    path = bags.write_bag(tmp_path / 'bag', bags.drive(10) + noise)
    assert main(['inspect', str(path)]) == 0
    said = capsys.readouterr().out
    assert 'and 13 more without a role' in said and len(said.splitlines()) < 40


@pytest.mark.parametrize('messages, words', [
    ([], 'It has no topics.'),
    ([('/image', T, bags.image(T, bags.grey(0), encoding='plaid8'))], "'plaid8' is not one of"),
    ([('/image', T, bags.image(T, np.zeros((4, 4), np.uint16), encoding='16UC1'))],
     'all that there is, is depth'),
    ([('/image', T, bags.image(T, bags.grey(0)))], 'at one moment are no recording')])
def test_what_nothing_can_be_learned_from_is_a_report(tmp_path, messages, words, capsys):
    path = bags.write_bag(tmp_path / 'bag', messages)
    assert main(['inspect', str(path)]) == 1
    said = capsys.readouterr().out
    assert words in said and 'Can be learned: nothing yet.' in said


def test_a_topic_whose_definition_nobody_knows_is_told(tmp_path):
    import sqlite3
    messages = bags.drive(5) + [('/drive', T, bags.make('ackermann_msgs/msg/AckermannDrive'))]
    folder = bags.write_bag(tmp_path / 'bag', messages, storage='sqlite3', with_text=False)
    with sqlite3.connect(folder / 'bag.db3') as base:
        base.execute("UPDATE topics SET type = 'acme_msgs/msg/Thing' WHERE name = '/drive'")
    base.close()
    file = folder / 'metadata.yaml'
    file.write_text(file.read_text().replace('ackermann_msgs/msg/AckermannDrive',
                                             'acme_msgs/msg/Thing'))
    report = inspect_recording(folder)
    topic, = [t for t in report['topics'] if t['name'] == '/drive']
    assert 'acme_msgs' in topic['problem'] and report['learn'] == 'mapped'


def test_damaged_messages_are_counted(tmp_path):
    messages = bags.drive(10)
    messages[2][2].pose.pose.position.x = np.nan
    report = told(messages, tmp_path)
    assert [t['damaged'] for t in report['topics'] if t['name'] == '/odom'] == [1]


def emptied(tmp_path):
    folder = bags.write_bag(tmp_path / 'bag', bags.drive())
    os.truncate(folder / 'bag.mcap', 0)
    return folder


def no_bag(tmp_path):
    (tmp_path / 'x.mcap').write_bytes(b'no bag')
    return tmp_path / 'x.mcap'


@pytest.mark.parametrize('make, words', [
    (emptied, 'cannot be read'), (no_bag, 'cannot be read'),
    (lambda p: p / 'nowhere', 'There is no such file or folder'),
    (lambda p: p, 'is no recording (a rosbag2 folder')])
def test_what_cannot_be_read_is_one_line_and_exit_code_2(tmp_path, make, words, capsys):
    assert main(['inspect', str(make(tmp_path))]) == 2
    out, err = capsys.readouterr()
    assert out == '' and words in err and err.count('\n') == 1


def test_a_learned_world_says_that_it_is_one(tmp_path, capsys):
    (tmp_path / 'world.yaml').write_text(
        'format: 1\nkind: mapped\nname: box\nrate_hz: 15.0\nsha256: {}\n'
        'data: {recording: box drive}\n')
    (tmp_path / 'README.md').write_text('# box\n\nIts numbers.\n')
    assert main(['inspect', str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert 'is a learned world: box, mapped, 15 frames a second, from box drive' in out
    assert 'Its numbers.' in out and err == ''


def test_a_tub_is_told(tmp_path, capsys):
    bags.write_tub(tmp_path / 'tub 🚗', [(bags.grey(i), 0.0, 0.5) for i in range(10)])
    assert main(['inspect', str(tmp_path / 'tub 🚗')]) == 0
    said = capsys.readouterr().out
    assert 'Donkey tub, catalogs' in said and 'Can be learned: a recurrent world' in said
