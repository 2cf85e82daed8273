# SPDX-License-Identifier: Apache-2.0
"""The operator's page in Chromium, against a running world: what is seen on its own pixels."""
from contextlib import contextmanager
import signal
from types import SimpleNamespace
from urllib.request import urlopen

from needs import need_engine
import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('playwright')
pytest.importorskip('aiohttp')
need_engine('room')

from browser import (ARM, chromium, find_browser, free_port, Operator, Program,  # noqa: E402, I100
                     WHOLE)
from ros_domain import Domain  # noqa: E402
from waiting import PATIENCE_S, wait_for  # noqa: E402

if find_browser() is None:
    pytest.skip('no Chromium on this machine', allow_module_level=True)

MOVED, STILL = 4.0, 1.0  # mean change of a pixel, 0..255, within eight frames
PAD = """() => {
  const pad = {id: 'Test Pad', index: 0, connected: true, mapping: 'standard', timestamp: 0,
               axes: [0, 0, 0, 0], buttons: Array.from({length: 17}, () => ({pressed: false}))};
  window.pad = pad;
  navigator.getGamepads = () => [pad, null, null, null];
}"""

SHOWN = """name => {
  const select = document.getElementById('world-select');
  return select.selectedOptions[0]?.text === name;
}"""
LIT = """name => {
  const c = document.getElementById(name);
  const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  return c.offsetWidth > 100 && p.some((v, i) => i % 4 === 0 && v > 60);
}"""

# What does not fit its box or the window; of lists, entries that would not fit.
CUT = """() => {
  const context = document.createElement('canvas').getContext('2d');
  const width = document.documentElement.clientWidth;
  const cut = [];
  for (const e of document.querySelectorAll('body *')) {
    if (!e.checkVisibility() || e.closest('.unseen, #notes')) continue;
    const [box, style] = [e.getBoundingClientRect(), getComputedStyle(e)];
    let fits = box.left > -1 && box.right < width + 1;
    if (e.matches('select')) {
      context.font = style.font;
      const inner = e.clientWidth - 2 * parseFloat(style.paddingLeft) - 16; // and the arrow
      fits &&= [...e.options].every((o) => context.measureText(o.text).width <= inner);
    } else if (style.display !== 'inline' && !e.matches('input')) {
      fits &&= e.scrollWidth <= e.clientWidth;
    }
    if (!fits) cut.push(`${e.tagName}#${e.id}.${e.className} ${e.textContent.slice(0, 30)}`);
  }
  return cut;
}"""
MAP = "() => document.getElementById('plot-map').toDataURL()"


@pytest.fixture(scope='module')
def site():
    """Start a world, the server of its page, and a browser."""
    with Domain() as domain, chromium() as browser:
        port = free_port()
        site = SimpleNamespace(domain=domain, browser=browser, url=f'http://127.0.0.1:{port}/')
        site.start_world = lambda: Program(domain, 'sim').wait_for('First image')
        site.start_view = lambda: Program(domain, 'view', '--port', port).wait_for('Page')
        site.world, site.view = site.start_world(), site.start_view()
        yield site
        site.view.end()
        site.world.end()


@pytest.fixture
def open_page(site):
    """Open pages on a world that plays; close them after the test."""
    contexts = []

    def open_one(link='live', **options):
        options = {'viewport': {'width': 1280, 'height': 720}, **options}
        scripts = options.pop('scripts', ())
        context = site.browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.problems = []
        page.on('pageerror', lambda error: page.problems.append(str(error)))
        for script in scripts:
            page.add_init_script(f'({script})()')
        page.goto(site.url)
        operator = Operator(page)
        if link:
            operator.until_link(link)
            operator.until('s.pose')
        return operator

    yield open_one
    problems = [problem for context in contexts for page in context.pages
                for problem in getattr(page, 'problems', ())]
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def operator(open_page):
    """Open one page on a world that was just reset."""
    operator = open_page()
    operator.page.keyboard.press('r')
    operator.until('s.sim_s < 1.5')
    operator.until('s.sim_s > 0.3')  # pictures from before it have passed
    operator.see_frames(3)
    return operator


@contextmanager
def onlooker(domain):
    """Yield a node that sees who publishes and who listens."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=domain)
    node = rclpy.create_node('onlooker', context=context)
    try:
        yield node
    finally:
        node.destroy_node()
        context.try_shutdown()


@pytest.mark.parametrize('key', ['w', 'ArrowLeft'])
def test_the_picture_moves_while_a_key_is_held_and_stands_when_it_is_released(operator, key):
    assert operator.change_during() < STILL
    operator.page.keyboard.down(key)
    operator.see_frames(4)
    assert operator.change_during() > MOVED
    operator.page.keyboard.up(key)
    operator.stands()
    assert operator.change_during() < STILL


def test_the_robot_stops_when_a_text_field_gets_the_focus(operator):
    operator.page.keyboard.down('d')
    operator.see_frames(4)
    assert operator.change_during() > MOVED
    operator.page.focus('#seed')
    operator.stands()
    assert operator.change_during() < STILL
    operator.page.keyboard.up('d')
    operator.page.keyboard.type('w')  # typed text does not drive
    assert operator.change_during() < STILL


def test_the_robot_stops_when_the_page_is_left_for_another_tab(operator):
    page = operator.page
    session = page.context.new_cdp_session(page)
    session.send('Emulation.setFocusEmulationEnabled', {'enabled': False})
    page.keyboard.down('d')
    operator.see_frames(4)
    assert operator.change_during() > MOVED
    other = page.context.new_page()
    other.bring_to_front()
    pose = operator.stands()
    other.close()
    page.bring_to_front()
    assert operator.stands() == pytest.approx(pose, abs=2e-3)  # it settles


def test_the_robot_stops_when_the_window_loses_the_focus(operator):
    operator.page.keyboard.down('d')
    operator.see_frames(4)
    operator.page.evaluate('window.dispatchEvent(new Event("blur"))')
    operator.stands()
    operator.page.keyboard.up('d')


def test_a_slider_and_hold_buttons_move_the_arm(operator):
    operator.keep()
    slider = operator.page.locator('#joint-shoulder_pan_joint')
    slider.evaluate('s => { s.value = -0.8; s.dispatchEvent(new Event("input", {bubbles: true}));'
                    ' s.dispatchEvent(new Event("change", {bubbles: true})); }')
    operator.until('Math.abs(s.joints.shoulder_pan_joint + 0.8) < 0.05')
    operator.see_frames(2)
    assert operator.change(ARM) > MOVED
    elbow = operator.status('joints')['elbow_joint']
    box = operator.page.locator('#joints button[data-hold]').nth(5).bounding_box()
    operator.page.mouse.move(box['x'] + 5, box['y'] + 5)
    operator.page.mouse.down()
    operator.until(f's.joints.elbow_joint > {elbow} + 0.2')
    operator.page.mouse.up()
    held = operator.stands(lambda status: [status['joints']['elbow_joint']], 0.01)[0]
    operator.hold('l', f's.joints.elbow_joint < {held} - 0.2')


def test_a_slider_moves_by_keyboard_alone(operator):
    before = operator.status('joints')['wrist_joint']
    operator.page.focus('#joint-wrist_joint')
    for _ in range(10):
        operator.page.keyboard.press('ArrowRight')
    operator.until(f's.joints.wrist_joint > {before} + 0.03')


@pytest.mark.parametrize('by', ['mouse', 'keyboard'])
def test_pause_step_play_and_reset(operator, by):
    page = operator.page

    def press(button, key):
        page.click(f'#{button}') if by == 'mouse' else page.keyboard.press(key)

    press('play', 'p')
    operator.until_link('paused')
    operator.until('s.link === "paused" && Math.abs(lingbot.lastStamp - s.sim_s) < 1e-3')
    banner, picture = (page.locator(name).bounding_box() for name in ('#overlay', '#camera'))
    assert banner['height'] > 0 and banner['y'] + banner['height'] <= picture['y'] + 1
    before, frames = operator.status(), page.evaluate('window.lingbot.frames')
    press('step', 'n')
    operator.until(f's.step === {before["step"] + 1}')
    page.wait_for_function(f'() => window.lingbot.frames === {frames + 1}')
    page.fill('#steps', '4')
    page.click('#step')
    operator.until(f's.step === {before["step"] + 5}')
    page.evaluate('document.activeElement.blur()')
    page.wait_for_function(f'() => window.lingbot.lastStamp > {before["sim_s"] + 5 / 15 - 1e-3}')
    operator.until_link('paused')  # until then the same button would pause
    press('play', 'p')
    operator.until_link('live')
    operator.hold('w', 'Math.abs(s.pose[0]) > 0.1')
    press('reset', 'r')
    operator.until('s.sim_s < 1 && Math.abs(s.pose[0]) < 1e-3')


def test_steps_asked_for_while_one_runs_are_made_after_it(operator):
    page = operator.page
    page.keyboard.press('p')
    operator.until_link('paused')
    operator.until('s.link === "paused" && Math.abs(lingbot.lastStamp - s.sim_s) < 1e-3')
    before = operator.status()['step']
    for _ in range(5):  # much faster than a step is answered
        page.keyboard.press('n')
    operator.until(f's.step === {before + 5}')
    page.keyboard.press('p')
    operator.until_link('live')


def test_another_seed_scene_and_mode(operator):
    page = operator.page
    page.fill('#seed', '7')
    page.click('#reset')
    operator.until('s.seed === 7')
    operator.keep()
    page.select_option('#world-select', label='office')
    operator.until('s.scene === "office" && s.link === "live"')
    operator.see_frames(3)
    assert operator.change(WHOLE) > 5 * MOVED
    page.select_option('#world-select', label='office_doorway')
    page.wait_for_function('() => window.lingbot.world.world === "office_doorway"')
    page.wait_for_function(SHOWN, arg='office_doorway')
    page.select_option('#mode', 'stepped')
    operator.until_link('stepping')
    page.select_option('#mode', 'realtime')
    operator.until('s.mode === "realtime"')
    operator.until_link('live')  # it plays again
    page.fill('#seed', '0')
    page.select_option('#world-select', label='living_room')
    operator.until('s.scene === "living_room"')


def test_a_seed_that_is_none_is_refused_in_words(operator):
    seed = operator.status('seed')
    for text in ('-3', '1e3', '99999999999'):
        operator.page.fill('#seed', text)
        operator.page.click('#reset')
        operator.page.wait_for_selector(f'#notes >> text=not "{text}"')
    operator.see_frames(8)
    assert operator.status('seed') == seed


def test_depth_is_shown_on_request(operator):
    operator.page.check('#show-depth')
    operator.page.wait_for_function(LIT, arg='depth')


@pytest.mark.slow
def test_truth_is_shown_beside_imagination_with_the_running_error(site, open_page):
    need_engine('reference')
    operator = open_page()
    follower = Program(site.domain, 'follow', '--reset')
    try:
        operator.page.wait_for_function('() => window.lingbot.world.has_truth',
                                        timeout=PATIENCE_S * 1e3)
        operator.page.check('#show-truth')
        operator.until('s.truth_error !== null && s.truth_position_error_m !== null')
        operator.hold('a', 's.pose[2] > 0.3')
        operator.page.wait_for_function(LIT, arg='truth', timeout=PATIENCE_S * 1e3)
        status = operator.status()
        assert 0.0 < status['truth_error'] < 0.1 and status['truth_position_error_m'] < 0.1
        assert 'RMS error' in operator.page.inner_text('#truth-numbers')
    finally:
        follower.end()
    operator.page.wait_for_function('() => !window.lingbot.world.has_truth',
                                    timeout=PATIENCE_S * 1e3)


def test_two_pages_do_not_fight(operator, open_page):
    second = open_page()
    operator.page.keyboard.down('a')
    second.until('s.driver.held && !s.driver.mine')
    assert 'drives' in second.page.inner_text('#driver')
    yaw = second.status('pose')[2]
    second.page.keyboard.down('d')  # would turn the other way
    operator.see_frames(10)
    assert operator.status('pose')[2] > yaw
    second.page.keyboard.up('d')
    second.page.click('#take')
    second.until('s.driver.mine')
    second.stands()  # though the first page still holds its key
    second.page.keyboard.down('d')
    yaw = second.status('pose')[2]
    second.until(f's.pose[2] < {yaw} - 0.1')
    second.page.keyboard.up('d')
    second.page.context.close()
    operator.until('!s.driver.held')
    operator.page.keyboard.up('a')


def test_who_else_drives_fits_a_small_window(operator, open_page):
    operator.page.keyboard.down('a')
    second = open_page(viewport={'width': 320, 'height': 640})
    second.until('s.driver.held && !s.driver.mine')
    second.page.wait_for_selector('#driver[data-who=other]')
    assert second.page.evaluate('document.documentElement.scrollWidth') <= 320
    operator.page.keyboard.up('a')


@pytest.mark.slow
def test_the_map_is_the_same_in_every_page_and_after_a_reload(operator, open_page):
    def shows_it(page):
        """Wait until a page shows the map that the first one shows."""
        page.wait_for_function(f'map => ({MAP})() === map', arg=operator.page.evaluate(MAP),
                               timeout=PATIENCE_S * 1e3)

    page = operator.page
    empty = page.evaluate(MAP)
    operator.hold('w', 's.pose[0] > 0.4')
    page.wait_for_selector('#latency-value:not(.faded)')
    operator.stands()
    page.keyboard.press('p')
    operator.until_link('paused')
    page.wait_for_selector('#latency-value.faded')
    page.wait_for_function('() => lingbot.map.origin && lingbot.map.path.length > 4')
    assert set(page.evaluate('lingbot.map.objects')) == set(
        page.evaluate('lingbot.world.plan.objects'))
    assert page.evaluate(MAP) != empty
    shows_it(open_page(link='paused').page)
    page.reload()
    operator.until_link('paused')
    shows_it(page)
    page.keyboard.press('p')
    operator.until_link('live')


@pytest.mark.slow
def test_the_map_is_the_same_in_a_page_that_is_opened_after_all_were_closed(site, operator,
                                                                            open_page):
    """A server without pages hears of no scene; the first page after it took that for a reset."""
    operator.hold('w', 's.pose[0] > 0.4')
    operator.stands()
    operator.page.keyboard.press('p')
    operator.until_link('paused')
    operator.page.wait_for_function('() => lingbot.map.origin && lingbot.map.path.length > 4')
    kept = operator.page.evaluate(MAP)
    with onlooker(site.domain) as node:
        wait_for(lambda: node.count_subscribers('world_status'), 'the server to listen')
        operator.page.close()
        wait_for(lambda: not node.count_subscribers('world_status'), 'it to listen no more')
    page = open_page(link='paused').page
    page.wait_for_function(f'map => ({MAP})() === map', arg=kept, timeout=PATIENCE_S * 1e3)
    page.keyboard.press('p')


@pytest.mark.slow
def test_contact_is_shown_where_the_robot_is_stuck(operator):
    page = operator.page
    assert page.is_hidden('#contact')
    page.fill('#speed', '1')
    operator.hold('w', 's.contact > 0.9')
    page.wait_for_selector('#contact', state='visible')
    assert operator.status('pose')[0] > 2.0  # the way ahead was free
    operator.hold('s', 's.contact < 0.1')
    page.wait_for_selector('#contact', state='hidden')


def test_a_touch_stick_drives(site, open_page):
    operator = open_page(viewport={'width': 360, 'height': 640}, has_touch=True, is_mobile=True)
    page = operator.page
    page.locator('#stick').scroll_into_view_if_needed()
    box = page.locator('#stick').bounding_box()
    x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
    session = page.context.new_cdp_session(page)

    def touch(kind, *points):
        session.send('Input.dispatchTouchEvent', {
            'type': kind, 'touchPoints': [{'x': px, 'y': py} for px, py in points]})

    pose = operator.status('pose')
    touch('touchStart', (x, y))
    touch('touchMove', (x, y - 40))
    operator.until(f'Math.hypot(s.pose[0] - {pose[0]}, s.pose[1] - {pose[1]}) > 0.1')
    touch('touchEnd')
    operator.stands()


def test_a_gamepad_drives_and_its_release_stops(open_page):
    operator = open_page(scripts=[PAD])
    operator.page.evaluate('window.dispatchEvent(new Event("gamepadconnected"))')
    operator.page.wait_for_selector('#pad-note >> text=Test Pad')
    yaw = operator.status('pose')[2]
    operator.page.evaluate('window.pad.axes[0] = -1')
    operator.until(f's.pose[2] > {yaw} + 0.2')
    operator.page.evaluate('window.pad.axes[0] = 0.02')
    operator.stands()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width, height', [(360, 640), (820, 1180), (1280, 720)])
def test_it_fits_the_window(open_page, scheme, width, height):
    operator = open_page(viewport={'width': width, 'height': height}, color_scheme=scheme)
    assert operator.page.evaluate('document.documentElement.scrollWidth') <= width
    for name in ('camera', 'stick', 'play', 'reset', 'take'):
        element = operator.page.locator(f'#{name}')
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        assert box['x'] >= 0 and box['x'] + box['width'] <= width + 0.5, name
    dark = operator.page.evaluate(
        'getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).slice(0, 3)')
    assert (sum(map(float, dark)) < 200) == (scheme == 'dark')


@pytest.mark.slow
def test_the_picture_fills_its_place_and_nothing_is_cut_at_any_width(operator):
    operator.page.evaluate('document.fonts.ready')
    for width in (320, 345, 375, 412, 480, 540, 640, 699, 700, 768, 820, 912, 1019, 1020, 1100,
                  1180, 1280, 1366, 1440, 1600, 1920):
        for height in (420, 720, 1100):
            operator.page.set_viewport_size({'width': width, 'height': height})
            assert operator.page.evaluate(CUT) == [], (width, height)
            place = operator.page.locator('#camera').bounding_box()
            if height > 600:  # the picture is 4 by 3
                assert place['width'] / place['height'] == pytest.approx(4 / 3, rel=0.05), width


@pytest.mark.slow
def test_nothing_of_the_help_is_cut_at_any_width(open_page):
    page = open_page().page
    page.keyboard.press('?')
    for width in (320, 345, 390, 480, 560, 700, 1024, 1440):
        page.set_viewport_size({'width': width, 'height': 640})
        assert page.evaluate(CUT) == [], width
        pairs = page.locator('#help th span').all()
        assert {round(pair.bounding_box()['height']) for pair in pairs} == {
            round(page.locator('#help th span').last.bounding_box()['height'])}, width


def test_one_more_picture_is_no_larger_than_the_first_and_leaves_no_hole(open_page):
    page = open_page().page
    page.check('#show-depth')
    page.wait_for_function(LIT, arg='depth', timeout=PATIENCE_S * 1e3)

    def box(name):
        return page.locator(f'#{name}').bounding_box()

    for width, height in ((320, 640), (600, 420), (768, 1024), (1024, 768), (1440, 900)):
        page.set_viewport_size({'width': width, 'height': height})
        assert page.evaluate(CUT) == [], (width, height)
        assert box('depth')['width'] <= box('camera')['width'] + 1, (width, height)
    page.set_viewport_size({'width': 768, 'height': 1024})
    depth, drive, world = map(box, ('depth-figure', 'drive-box', 'world-box'))
    assert depth['y'] == pytest.approx(drive['y'], abs=1)
    assert depth['y'] + depth['height'] == pytest.approx(world['y'] + world['height'], abs=1)


def test_what_can_be_ticked_stands_in_line_with_the_caption(operator):
    middles = []
    for name in ('#camera-what', '.shows label:first-child', '#show-depth', '#camera-numbers'):
        box = operator.page.locator(name).bounding_box()
        middles.append(box['y'] + box['height'] / 2)
    assert max(middles) - min(middles) <= 1.0


def test_everything_can_be_reached_by_keyboard(open_page):
    page = open_page().page
    reached = set()
    for _ in range(60):
        page.keyboard.press('Tab')
        reached.add(page.evaluate('document.activeElement.id'))
    assert {'take', 'help-open', 'show-depth', 'speed', 'play', 'step', 'reset', 'seed',
            'world-select', 'mode', 'joint-elbow_joint'} <= reached
    page.evaluate('document.activeElement.blur()')
    page.keyboard.press('?')
    assert page.locator('#help').is_visible()
    page.keyboard.press('Escape')
    assert not page.locator('#help').is_visible()


def test_a_page_needs_nothing_from_elsewhere(site, open_page):
    operator = open_page(link=None)
    asked = []
    operator.page.on('request', lambda request: asked.append(request.url))
    operator.page.reload()
    operator.until_link('live')
    assert len(asked) > 5 and all(url.startswith(site.url) for url in asked)


def test_a_picture_is_there_for_who_opens_the_page_of_a_paused_world(site, open_page):
    operator = open_page()
    operator.page.keyboard.press('p')
    operator.until_link('paused')
    operator.page.context.close()
    site.view.end()
    site.view = site.start_view()  # has never seen a picture
    operator = open_page(link='paused')
    operator.see_frames(0)
    operator.page.wait_for_function('() => window.lingbot.frames >= 1', timeout=PATIENCE_S * 1e3)
    for width in (320, 700, 768, 1019, 1020, 1440):  # why is said in three lines at most
        operator.page.set_viewport_size({'width': width, 'height': 720})
        assert 0 < operator.page.locator('#link-text').bounding_box()['height'] < 60, width
        assert operator.page.evaluate(CUT) == [], width
    operator.page.keyboard.press('p')
    operator.until_link('live')


def test_a_killed_world_is_lost_and_comes_back_by_itself(site, open_page):
    operator = open_page()
    site.world.end(signal.SIGKILL)
    operator.until_link('lost')
    assert 'gone' in operator.page.inner_text('#link-text')
    operator.page.wait_for_selector('#controls-why >> text=The world is gone.')
    operator.page.wait_for_selector('#joint-elbow_joint:disabled')
    for width in (320, 768):
        operator.page.set_viewport_size({'width': width, 'height': 1024})
        assert operator.page.is_hidden('#link-text')  # the picture is covered by the same words
        assert operator.page.evaluate(CUT) == []
    site.world = site.start_world()
    operator.until_link('live')
    operator.see_frames(5)


def test_a_killed_server_is_lost_and_is_found_again(site, open_page):
    operator = open_page()
    site.view.end(signal.SIGKILL)
    operator.until_link('lost')
    site.view = site.start_view()
    operator.until_link('live')
    operator.see_frames(5)


def test_the_server_answers_as_a_page_should(site):
    with urlopen(site.url) as answer:
        assert answer.headers.get_content_type() == 'text/html'
        assert "frame-ancestors 'none'" in answer.headers['Content-Security-Policy']
