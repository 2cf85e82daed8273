# SPDX-License-Identifier: Apache-2.0
"""The operator's page in Chromium when something hangs, crashes, is missing or not allowed."""
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
import os
import signal
import threading
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

import test_page  # skips this file too where there is no browser
from browser import free_port, Operator, Program  # noqa: E402, I100
from nav_msgs.msg import Odometry  # noqa: E402
from ros_graph import Graph  # noqa: E402

site, open_page, operator = test_page.site, test_page.open_page, test_page.operator
CONNECT = """url => new Promise((done) => {
  const socket = new WebSocket(url);
  socket.onopen = () => done('open');
  socket.onclose = (event) => done(`closed ${event.code}`);
})"""


@pytest.fixture
def motion(site):
    """Listen to how fast the base turns, past the page and its server."""
    with Graph(lambda: [], site.domain) as graph:
        odometry = graph.listen(Odometry, 'odom')

        def turning(msg):
            return abs(msg.twist.twist.angular.z) > 0.1

        def wait_for(turns):
            """Wait until it turns, or stands for ten frames."""
            if turns:
                graph.newest(odometry, turning, 'motion')
                return
            seen = len(odometry)
            graph.wait_for(lambda: len(odometry[seen:]) >= 10 and
                           not any(map(turning, odometry[-10:])), 'standstill')

        yield wait_for


@pytest.fixture
def frozen(site):
    """Have the pages of the browser stand still."""
    session = site.browser.new_browser_cdp_session()

    @contextmanager
    def freeze():
        processes = session.send('SystemInfo.getProcessInfo')['processInfo']
        pages = [process['id'] for process in processes if process['type'] == 'renderer']
        assert pages
        for pid in pages:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pages:
                os.kill(pid, signal.SIGCONT)

    yield freeze
    session.detach()


def test_the_first_picture_is_back_after_a_reset(operator):
    operator.keep()
    operator.hold('a', 's.pose[2] > 0.3')
    assert operator.change() > test_page.MOVED
    operator.page.keyboard.press('r')
    operator.until('s.sim_s < 0.5')
    operator.see_frames(3)
    assert operator.change() < test_page.STILL / 2


def test_a_joint_follows_a_slider_that_is_dragged_with_the_mouse(operator):
    slider = operator.page.locator('#joint-shoulder_pan_joint')
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    y = box['y'] + box['height'] / 2
    operator.keep()
    operator.page.mouse.move(box['x'] + box['width'] / 2, y)
    operator.page.mouse.down()
    operator.page.mouse.move(box['x'] + box['width'] / 4, y, steps=4)
    operator.page.mouse.up()
    asked = float(slider.input_value())
    operator.until(f'Math.abs(s.joints.shoulder_pan_joint - {asked}) < 0.05')
    operator.see_frames(3)
    assert operator.change(test_page.ARM) > test_page.STILL


def test_two_keys_add_up_and_each_is_let_go_on_its_own(operator):
    page = operator.page

    def until_asked(linear, angular):
        """Wait for what the page shows; analog motion is thinned out, so that takes a moment."""
        page.wait_for_function("""signs => ['asked-linear', 'asked-angular'].every((id, i) =>
          Math.sign(parseFloat(document.getElementById(id).textContent.replace('\u2212', '-')))
          === signs[i])""", arg=[linear, angular])

    page.keyboard.down('w')
    page.keyboard.down('d')
    until_asked(1, -1)
    page.keyboard.up('w')
    until_asked(0, -1)
    page.keyboard.up('d')
    until_asked(0, 0)


def test_the_robot_stops_when_the_page_that_drives_crashes(operator, open_page, motion):
    watcher = open_page()
    operator.page.keyboard.down('a')
    motion(turns=True)
    with pytest.raises(Exception, match='crash'):
        operator.page.goto('chrome://crash')
    motion(turns=False)
    watcher.until('!s.driver.held')


def test_the_robot_stops_when_the_page_that_drives_freezes(operator, motion, frozen):
    operator.page.keyboard.down('a')
    motion(turns=True)
    with frozen():
        motion(turns=False)
    operator.page.keyboard.up('a')
    operator.until_link('live')


def test_a_server_that_hangs_is_lost_and_the_robot_stops(site, operator, motion):
    operator.page.keyboard.down('a')
    motion(turns=True)
    site.view.process.send_signal(signal.SIGSTOP)
    try:
        motion(turns=False)
        operator.until_link('lost')
        assert operator.page.is_disabled('#play') and operator.page.is_disabled('#reset')
    finally:
        site.view.process.send_signal(signal.SIGCONT)
    operator.until_link('live')
    operator.see_frames(3)
    motion(turns=False)  # what was held before acts no more
    operator.page.keyboard.up('a')


def test_what_was_held_is_let_go_when_the_status_alone_fails_to_come(open_page, motion):
    """The page shows lost then, though pictures go on; it must not drive on once they are back."""
    mute = """() => {
      const Plain = WebSocket;
      window.WebSocket = class extends Plain {
        set onmessage(hear) {
          super.onmessage = hear && ((event) => {
            if (!window.mute || typeof event.data !== 'string') hear(event);
          });
        }
      };
    }"""
    operator = open_page(scripts=[mute])
    operator.page.keyboard.down('a')
    motion(turns=True)
    operator.page.evaluate('window.mute = true')
    operator.until_link('lost')
    operator.page.evaluate('window.mute = false')
    operator.until_link('live')
    motion(turns=False)
    operator.page.keyboard.up('a')


def test_a_world_that_hangs_is_told_and_goes_on(site, operator):
    site.world.process.send_signal(signal.SIGSTOP)
    try:
        operator.until_link('lost')
    finally:
        site.world.process.send_signal(signal.SIGCONT)
    operator.until_link('live')
    operator.see_frames(3)


def test_other_machines_need_the_token_and_it_does_not_stay_in_the_address(site):
    port = free_port()
    url = f'http://127.0.0.1:{port}/'
    view = Program(site.domain, 'view', '--host', '0.0.0.0', '--port', port, '--token', 'abc')
    page = site.browser.new_page()
    try:
        view.wait_for('Page')
        answer = page.goto(url)
        assert answer.status == 401 and 'token' in answer.text()
        assert page.evaluate(CONNECT, f'ws://127.0.0.1:{port}/ws').startswith('closed')
        page.goto(f'{url}?token=abc')
        Operator(page).until_link('live')
        assert page.url == url
    finally:
        page.close()
        view.end()


def test_a_page_from_elsewhere_is_refused(site):
    class Silent(SimpleHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    socket_url = site.url.replace('http', 'ws') + 'ws'
    with ThreadingHTTPServer(('127.0.0.1', 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = site.browser.new_page()
        page.goto(f'http://127.0.0.1:{server.server_port}/')
        assert page.evaluate(CONNECT, socket_url).startswith('closed')
        page.goto(site.url)
        assert page.evaluate(CONNECT, socket_url) == 'open'
        page.close()
        server.shutdown()
    with pytest.raises(HTTPError, match='403'):  # a name that was bent to this machine
        urlopen(Request(site.url, headers={'Host': 'robot.example'}))


def test_a_tunnel_that_changes_the_address_is_named_as_the_cause(site):
    page = site.browser.new_page()
    page.route('http://tunnel.example/**', lambda route: route.fulfill(response=route.fetch(
        url=route.request.url.replace('http://tunnel.example/', site.url))))
    page.goto('http://tunnel.example/')
    page.wait_for_function(
        "() => document.getElementById('link-text').textContent.includes('ssh -L')")
    assert "refuses this page: A page from 'http://tunnel.example' may not ask here" in (
        page.inner_text('#overlay-text'))
    page.unroute_all(behavior='wait')  # what it still asks for is not answered after the end
    page.close()


@pytest.mark.slow
def test_a_page_that_is_there_first_waits_for_its_world(site, open_page):
    site.world.end()
    site.view.end()
    site.view = site.start_view()
    operator = open_page(link=None)
    operator.until_link('waiting')
    operator.until('s.link === "waiting"')
    assert 'lingbot-world sim' in operator.page.inner_text('#link-text')
    site.world = site.start_world()
    operator.until_link('live')
    operator.see_frames(3)
