# SPDX-License-Identifier: Apache-2.0
"""The operator's page in a real browser: Chromium without a window, and programs beside it."""
from contextlib import contextmanager
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from lingbot_world_ros.processes import PARENT
from waiting import PATIENCE_S, START_PATIENCE_S, wait_for

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
FLAGS = ('--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync')
# Sums of differences between two pictures of a canvas, per pixel and colour, 0..255.
KEEP = """() => {
  const c = document.getElementById('camera');
  window.kept = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  return window.lingbot.frames;
}"""
CHANGE = """([x0, y0, x1, y1]) => {
  const c = document.getElementById('camera');
  const now = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let sum = 0, n = 0;
  for (let y = Math.floor(y0 * c.height); y < y1 * c.height; y++)
    for (let x = Math.floor(x0 * c.width); x < x1 * c.width; x++)
      for (let k = 0; k < 3; k++, n++) {
        const i = 4 * (y * c.width + x) + k;
        sum += Math.abs(now[i] - window.kept[i]);
      }
  return sum / n;
}"""
WHOLE, ARM = (0.0, 0.0, 1.0, 1.0), (0.1, 0.6, 0.7, 1.0)


def find_browser():
    """Return the path of an installed Chromium, None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium():
    """Start a browser and yield it, with an empty profile; playwright drives it."""
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def free_port():
    """Return a TCP port nothing listens on."""
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


class Program:
    """``lingbot-world <verb>`` in a process of its own; what it prints goes to a file."""

    def __init__(self, domain, *arguments, **environment):
        """
        Start it.

        :param domain: ROS domain
        :param arguments: verb and options
        :param environment: more environment variables
        """
        self._log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'lingbot_world_ros.cli', *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
            env={**os.environ, 'ROS_DOMAIN_ID': str(domain), **environment,
                 'PYTHONFAULTHANDLER': '1',
                 PARENT: str(os.getpid())})  # none is left where a test is ended or cannot begin

    def wait_for(self, text):
        """Wait until it has printed something; where it hangs, it says in which line."""
        try:
            wait_for(lambda: text in self.printed() or self.process.poll() is not None, text,
                     START_PATIENCE_S)
        except AssertionError:
            self.end(signal.SIGABRT)
            raise AssertionError(f'no {text!r}: {self.printed()}') from None
        assert text in self.printed(), self.printed()
        return self

    def printed(self):
        """Return everything it has printed."""
        # Past the buffer, and without moving the place at which the other process writes.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors='replace')

    def end(self, number=signal.SIGTERM):
        """End it by a signal; twice is no harm."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE_S)


class Operator:
    """Somebody at a page: looks at its pixels, presses its keys."""

    def __init__(self, page):
        """Take a page that is open."""
        self.page = page

    def status(self, name=None):
        """Return the newest status the page has, or one entry of it."""
        status = self.page.evaluate('window.lingbot.state')
        return status if name is None or status is None else status[name]

    def until(self, condition):
        """Wait until an expression in the page is true; ``s`` is its newest status."""
        self.page.wait_for_function(
            f'() => {{ const s = window.lingbot?.state;'
            f' try {{ return s && ({condition}); }} catch {{ return false; }} }}',  # no pose yet
            timeout=PATIENCE_S * 1e3, polling=20)

    def until_link(self, link):
        """Wait until the page shows a state of the link, and says so."""
        # Both at one moment: on a busy machine the next state may follow soon.
        self.page.wait_for_function(
            f'() => document.body.dataset.link === "{link}" && '
            f'document.getElementById("link").innerText === "{link.replace("_", " ")}"',
            timeout=PATIENCE_S * 1e3, polling=20)

    def see_frames(self, number):
        """Wait for so many more pictures."""
        frames = self.page.evaluate('window.lingbot.frames')
        self.page.wait_for_function(f'() => window.lingbot.frames >= {frames + number}',
                                    timeout=PATIENCE_S * 1e3, polling=20)

    def keep(self):
        """Remember the picture that is shown."""
        self.page.evaluate(KEEP)

    def change(self, region=WHOLE):
        """Return how far the picture is from the one remembered, mean over pixels, 0..255."""
        return self.page.evaluate(CHANGE, list(region))

    def change_during(self, frames=8, region=WHOLE):
        """Return how far the picture moves within some frames."""
        self.keep()
        self.see_frames(frames)
        return self.change(region)

    def hold(self, key, condition):
        """Hold a key until an expression in the page is true."""
        self.page.keyboard.down(key)
        self.until(condition)
        self.page.keyboard.up(key)

    def stands(self, tell=lambda status: status['pose'], tolerance=0.0):
        """Wait until something stays for half a second of sim time, the base; return what."""
        end_s, start = time.monotonic() + PATIENCE_S, self.status()
        while (status := self.status())['sim_s'] < start['sim_s'] + 0.5:
            if any(abs(a - b) > tolerance for a, b in zip(tell(status), tell(start))):
                start = status
            assert time.monotonic() < end_s, 'it does not stop'
            self.see_frames(1)
        return tell(status)
