# SPDX-License-Identifier: Apache-2.0
"""Rules of the operator's page that need neither ROS nor a browser."""
from math import pi
import re

from lingbot_world_ros.actions.keyboard import JOINT_KEYS
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.view import link, messages
from lingbot_world_ros.view.controls import Controls, IDLE_S, SILENCE_S
from lingbot_world_ros.view.link import link_of, LOST_S, Signs, STALE_S
from lingbot_world_ros.view.pictures import COLOUR, colour_jpeg, depth_jpeg, HEADER, packed
from lingbot_world_ros.view.room_map import (MAX_RECTANGLES, Origin, plan_of, plan_of_grid,
                                             Way)
from lingbot_world_ros.view.server import PAGE
from lingbot_world_ros.worlds.floor_plan import FloorPlan
import numpy as np
import pytest

cv2 = pytest.importorskip('cv2')
pytest.importorskip('aiohttp')
ALIVE = dict(where='/world_status', state='playing', sign_age_s=0.1, image_age_s=0.1,
             has_publishers=True, step_s=1 / 15)


def test_free_controls_go_to_who_uses_them_and_nobody_else_drives_then():
    controls = Controls()
    assert controls.use('a', 0.0, moves=True)
    assert not controls.use('b', 1.0, moves=True) and controls.holder == 'a'


def test_controls_are_free_again_after_leaving_or_idleness_and_can_be_taken_at_any_time():
    controls = Controls()
    controls.use('a', 0.0)
    assert not controls.release('b') and controls.release('a')
    assert controls.use('b', 1.0)
    assert not controls.use('a', 1.0 + IDLE_S)
    assert controls.use('a', 2.1 + IDLE_S)
    assert controls.take('b', 13.0) and controls.holder == 'b' and not controls.take('b', 13.0)


def test_a_driver_who_goes_silent_while_moving_is_noticed_once():
    controls = Controls()
    controls.use('a', 0.0, moves=True)
    assert not controls.is_silent(SILENCE_S)
    assert controls.is_silent(SILENCE_S + 0.01) and not controls.is_silent(1.0)
    controls.use('a', 2.0, moves=True)
    controls.use('a', 2.1, moves=False)
    assert not controls.is_silent(5.0)


def test_a_request_without_motion_does_not_make_a_moving_robot_count_as_stopped():
    controls = Controls()
    controls.use('a', 0.0, moves=True)
    controls.use('a', 0.1)
    assert controls.is_silent(0.1 + SILENCE_S + 0.01)


@pytest.mark.parametrize('changes, expected, words', [
    ({}, link.LIVE, ''),
    ({'sign_age_s': None, 'image_age_s': None}, link.WAITING, 'first word'),
    ({'sign_age_s': None, 'image_age_s': None, 'has_publishers': False}, link.WAITING,
     'lingbot-world sim'),
    ({'sign_age_s': LOST_S + 0.1}, link.LOST, 'when it is back'),
    ({'has_publishers': False}, link.LOST, 'gone'),
    ({'image_age_s': STALE_S + 0.3}, link.STALE, 'slow or hangs'),
    ({'image_age_s': None}, link.STALE, 'No picture yet'),
    ({'image_age_s': None, 'unshown': '/image: what is that?'}, link.STALE,
     'Pictures come but cannot be shown: /image: what is that?'),
    ({'state': None, 'sign_age_s': None, 'image_age_s': None, 'unshown': 'X.'}, link.STALE, 'X.'),
    ({'image_age_s': None, 'watches': False}, link.LIVE, ''),
    ({'image_age_s': 3.0, 'step_s': 1.5}, link.LIVE, ''),  # an engine of one frame in 1.5 s
    ({'state': 'paused', 'image_age_s': 60.0}, link.PAUSED, 'Play'),
    ({'state': 'paused', 'sign_age_s': LOST_S + 0.1}, link.LOST, 'gone'),
    ({'state': 'paused', 'mode': 'stepped'}, link.STEPPING, 'step_simulation'),
    ({'mode': 'lockstep', 'image_age_s': 60.0}, link.STEPPING, 'each command'),
    ({'state': 'stopped'}, link.STOPPED, 'Play'),
    ({'state': 'loading_world'}, link.LOADING, 'loaded'),
    ({'state': 'no_world', 'message': 'It failed.'}, link.NO_WORLD, 'It failed'),
    ({'state': 'error', 'message': 'The engine hung.'}, link.ERROR, 'hung. Reset'),
    ({'state': None}, link.LIVE, ''),  # a simulator that tells no state
    ({'state': None, 'image_age_s': 5.0, 'sign_age_s': 5.0}, link.STALE, 'paused, slow or gone'),
    ({'state': None, 'image_age_s': 5.0, 'has_publishers': False}, link.LOST, 'gone')])
def test_the_state_of_the_link_follows_from_what_is_heard(changes, expected, words):
    found, text = link_of(Signs(**{**ALIVE, **changes}))
    assert found == expected and words in text
    assert bool(text) == (found != link.LIVE)


def test_what_a_page_sends_is_read():
    drive = messages.parse('{"type": "drive", "linear": 1, "angular": -0.5, "joints": {"a": 0}}')
    assert drive == messages.Drive(1.0, -0.5, {'a': 0.0}) and not drive.is_stop
    assert messages.parse('{"type": "drive", "linear": 0, "angular": 0}').is_stop
    drive = messages.parse('{"type": "drive", "linear": 0, "angular": 0, "lateral": -0.5}')
    assert drive.lateral == -0.5 and not drive.is_stop
    assert messages.parse('{"type": "do", "id": 3, "what": "reset", "seed": 7}').value == 7
    assert messages.parse('{"type": "do", "id": 3, "what": "reset"}').value is None
    assert messages.parse('{"type": "ping", "t": 1.5}').t == 1.5


@pytest.mark.parametrize('text, words', [
    ('{', 'Not JSON'), ('[]', 'object'), ('[' * 9000, 'JSON'), ('{}', 'Unknown type'),
    ('{"type": []}', 'Unknown type'), ('{"type": "fly"}', 'Known: do, drive'),
    ('{"type": "drive", "linear": 2, "angular": 0}', "'linear' is 2"),
    ('{"type": "drive", "linear": NaN, "angular": 0}', "'linear' is nan"),
    ('{"type": "drive", "linear": true, "angular": 0}', 'number'),
    ('{"type": "drive", "linear": 0, "angular": 0, "lateral": 2}', "'lateral' is 2"),
    ('{"type": "drive", "linear": 0, "angular": 0, "joints": [1]}', 'joints'),
    ('{"type": "drive", "linear": 0, "angular": 0, "joints": {"a": "1"}}', "'a' is '1'"),
    ('{"type": "joint", "name": 3, "position": 0}', 'name is not text'),
    ('{"type": "joint", "name": "a", "position": Infinity}', 'position'),
    ('{"type": "do", "id": 1, "what": "explode"}', 'Unknown what'),
    ('{"type": "do", "id": -1, "what": "play"}', 'id is -1'),
    ('{"type": "do", "id": 1, "what": "step", "steps": 0}', '1 to 1000'),
    ('{"type": "do", "id": 1, "what": "mode", "mode": "fast"}', 'Unknown mode'),
    ('{"type": "do", "id": 1, "what": "reset", "seed": -2}', 'seed'),
    ('"' + 'x' * messages.MAX_BYTES + '"', 'longer')])
def test_what_cannot_be_used_is_refused_in_one_sentence(text, words):
    with pytest.raises(SpecError, match=words) as error:
        messages.parse(text)
    assert len(str(error.value)) < 400


def test_keys_move_the_same_joints_as_in_teleop():
    names = {'BracketLeft': '[', 'Quote': "'"}
    table = re.search(r'JOINT_KEYS = (\[\[.*?\]\]);', (PAGE / 'drive.js').read_text(), re.S)[1]
    codes = re.findall(r"'(\w+)', '(\w+)'", table)
    assert JOINT_KEYS == tuple(tuple(names.get(code, code.removeprefix('Key').lower())
                                     for code in pair) for pair in codes)


def test_a_room_is_told_as_far_as_a_robot_may_meet_it():
    plan = plan_of('office', 1.26)
    assert plan['size_m'] == [7.0, 5.0]
    assert [4.3, 0.85, 0.0, 0.06, 0.85] in plan['parts']  # the wall beside the doorway
    assert [4.3, 2.5, 0.0, 0.06, 0.8] not in plan['parts']  # the lintel over it
    assert plan['objects'] == {'parcel': [0.18, 0.18], 'bin': [0.16], 'stool': [0.18]}
    assert plan_of('image', 1.26) is None


def test_a_floor_plan_is_told_in_few_boxes():
    occupied = np.ones((12, 30), bool)
    occupied[3:8, 4:20] = False
    occupied[5:7, 10:13] = True  # what stands there
    unknown = np.zeros_like(occupied)
    unknown[3:5, 17:20] = True
    plan = plan_of_grid(FloorPlan(occupied, 0.1, (-1.0, 2.0), unknown))
    assert (plan['low_m'], plan['size_m']) == ([-0.7, 2.2], [1.8, 0.7])  # and a row of wall
    assert [0.15, 2.6, 0.0, 0.15, 0.1] in plan['parts'] and not plan['has_walls']
    assert plan['unknown'] == [[0.85, 2.4, 0.0, 0.15, 0.1]]
    assert len(plan['parts']) == 5
    area_m2 = sum(4 * half_x * half_y for _, _, _, half_x, half_y in plan['parts'])
    assert area_m2 == pytest.approx(0.01 * occupied[2:9, 3:21].sum())
    assert plan_of_grid(FloorPlan(np.ones((4, 4), bool), 0.1, (0.0, 0.0))) is None


def test_a_plan_of_specks_is_told_coarser():
    specks = np.random.default_rng(0).random((200, 200)) < 0.3
    plan = plan_of_grid(FloorPlan(specks, 0.05, (0.0, 0.0)))
    assert len(plan['parts']) <= MAX_RECTANGLES
    assert plan['size_m'] == pytest.approx([10.0, 10.0], abs=0.5)


def test_the_way_grows_by_steps_and_is_taken_over_whole():
    way = Way()
    for x in (0.0, 0.01, 0.04, 0.2):
        way.add((x, 0.0, 0.0))
    before = way.points
    assert before == [[0.0, 0.0], [0.2, 0.0]]
    way.set([(0.0, 0.0), (1.0, 1.0)])
    assert way.points == [[0.0, 0.0], [1.0, 1.0]] and before == [[0.0, 0.0], [0.2, 0.0]]


def test_where_odometry_starts_follows_from_one_pose_in_both_frames():
    origin = Origin()
    origin.meet(5, (2.0, 1.0, 0.0))
    assert origin.pose is None  # no odometry of that time
    origin.note(5, (1.0, 0.0, 0.0))
    origin.meet(5, (2.0, 2.0, pi / 2))
    np.testing.assert_allclose(origin.pose, (2.0, 1.0, pi / 2))
    origin.note(6, (1.05, 0.0, 0.0))
    origin.meet(6, (2.0, 2.0, pi / 2))  # told a frame late
    np.testing.assert_allclose(origin.pose, (2.0, 1.0, pi / 2))
    origin.meet(6, (4.0, 2.0, pi / 2))  # it was put elsewhere
    np.testing.assert_allclose(origin.pose, (4.0, 0.95, pi / 2))
    for stamp in (7, 8, 9):
        origin.note(stamp, (1.0, 0.0, 0.0))
    origin.meet(9, (4.0, 2.0, pi / 2))  # it stands
    np.testing.assert_allclose(origin.pose, (4.0, 1.0, pi / 2))


def test_a_picture_travels_with_its_sim_time():
    rgb = np.zeros((12, 16, 3), np.uint8)
    rgb[..., 0] = 200
    picture = packed(COLOUR, 2 ** 32 + 5, 1.25, colour_jpeg(rgb))
    assert HEADER.size == 16 and HEADER.unpack(picture[:16]) == (1, 1, 0, 5, 1.25)
    bgr = cv2.imdecode(np.frombuffer(picture[16:], np.uint8), cv2.IMREAD_COLOR)
    assert bgr.shape == rgb.shape and abs(int(bgr[6, 8, 2]) - 200) < 8 and bgr[6, 8, 0] < 8


def test_depth_is_red_near_blue_far_and_black_where_unknown():
    depth_m = np.full((32, 48), 0.5, np.float32)
    depth_m[:, 16:32], depth_m[:, 32:] = 5.5, np.nan
    jpeg = depth_jpeg(depth_m)
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int)
    near, far, unknown = bgr[16, 4], bgr[16, 24], bgr[16, 44]
    assert near[2] > near[0] and far[0] > far[2] and unknown.max() < 16


def test_a_large_picture_is_made_smaller():
    jpeg = colour_jpeg(np.zeros((720, 1600, 3), np.uint8))
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (360, 800, 3)
