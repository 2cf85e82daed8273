# SPDX-License-Identifier: Apache-2.0
"""The operator's page in Chromium with robots of users: one that strafes, one that steers."""
from contextlib import contextmanager
from math import hypot
from pathlib import Path

from needs import need_engine
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('playwright')
pytest.importorskip('aiohttp')
need_engine('reference')

from browser import chromium, find_browser, free_port, Operator, Program  # noqa: E402, I100
from ros_domain import Domain  # noqa: E402
from test_page import PAD  # noqa: E402

if find_browser() is None:
    pytest.skip('no Chromium on this machine', allow_module_level=True)

ROVER = Path(__file__).parent / 'robots' / 'rover.yaml'
STEERING = ROVER.read_text().partition('joints:')[0].replace(
    'rover.urdf', str(ROVER.with_suffix('.urdf')))
STRAFING = STEERING.replace('ackermann', 'omnidirectional').replace(
    'wheelbase_m: 0.3', 'lateral_velocity_mps: 0.6').replace(
    'max_steering_rad: 0.45', 'angular_velocity_radps: 1.5')


@contextmanager
def operating(folder, text):
    """Start a world with a robot and its page; yield who is at it."""
    robot = folder / 'mine.yaml'
    robot.write_text(text)
    with Domain() as domain, chromium() as browser:
        port, programs = free_port(), []
        try:
            programs.append(Program(domain, 'sim', '--engine', 'reference', '--seed', 5,
                                    '--robot', robot).wait_for('First image'))
            programs.append(Program(domain, 'view', '--port', port, '--param',
                                    f'robot:={robot}').wait_for('Page'))
            page, problems = browser.new_page(), []
            page.on('pageerror', lambda error: problems.append(str(error)))
            page.add_init_script(f'({PAD})()')
            page.goto(f'http://127.0.0.1:{port}/')
            operator = Operator(page)
            operator.until_link('live')
            operator.until('s.pose')
            yield operator
            assert problems == []
        finally:
            for program in reversed(programs):
                program.end()


@pytest.mark.slow
def test_a_robot_that_strafes_has_keys_buttons_and_triggers_for_it_and_no_joints(tmp_path):
    with operating(tmp_path, STRAFING) as operator:
        page = operator.page
        assert page.locator('#strafe').is_visible() and page.locator('#asked-lateral').is_visible()
        assert not page.locator('.joints-box').is_visible()
        page.set_viewport_size({'width': 360, 'height': 640})
        assert page.evaluate('document.documentElement.scrollWidth') <= 360
        page.set_viewport_size({'width': 1280, 'height': 720})
        page.keyboard.press('?')
        assert 'strafe left, right' in page.inner_text('#help')
        assert 'choose a joint' not in page.inner_text('#help')
        page.keyboard.press('Escape')
        operator.hold('q', 's.pose[1] > 0.15')
        x, y, _ = operator.stands()
        assert abs(x) < 0.05
        button = page.locator('#strafe-right')
        button.hover()
        page.mouse.down()
        operator.until(f's.pose[1] < {y} - 0.1')
        page.mouse.up()
        _, y, _ = operator.stands()
        page.evaluate('window.dispatchEvent(new Event("gamepadconnected"))')
        page.wait_for_selector('#pad-note >> text=Test Pad')
        page.evaluate('window.pad.buttons[6] = {pressed: true, value: 1}')
        operator.until(f's.pose[1] > {y} + 0.1')
        page.evaluate('window.pad.buttons[6] = {pressed: false, value: 0}')
        operator.stands()


def test_a_robot_that_steers_asks_for_turns_only_while_it_drives(tmp_path):
    with operating(tmp_path, STEERING) as operator:
        page = operator.page
        assert not page.locator('#strafe').is_visible()
        assert page.locator('text=turns only while it drives').is_visible()
        page.keyboard.down('a')
        operator.see_frames(8)
        assert page.inner_text('#asked-angular').strip().endswith('0.00 rad/s')
        assert operator.status('pose')[2] == 0.0
        page.keyboard.down('w')
        operator.until('s.pose[2] > 0.2')
        assert page.inner_text('#asked-angular') == '+1.16 rad/s'  # 0.72 m/s on 0.62 m
        page.keyboard.up('w')
        page.keyboard.up('a')
        operator.stands()
        x, y, yaw = operator.status('pose')
        assert hypot(x, y) > 0.8 * 0.62 * yaw  # on no smaller circle
