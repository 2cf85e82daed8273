# SPDX-License-Identifier: Apache-2.0
"""
A world as strangers meet it, every program in a process of its own: what ``make smoke`` runs.

The client is written for Isaac Sim and knows nothing of this package. It drives the imagined world
and the simulator alike, here and from one installation (distribution, Python) into another.
"""
import asyncio
from contextlib import contextmanager
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('simulation_interfaces.srv')

from ros_domain import Domain  # noqa: E402
from waiting import PATIENCE_S, START_PATIENCE_S, wait_for  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
CLIENT = Path(__file__).with_name('isaac_client.py')
HERE = Path(sys.executable)
OTHERS = [python for python in sorted(ROOT.glob('.venv*/bin/python'))
          if python.parents[1].resolve() != Path(sys.prefix).resolve()]
OF_ONE_INSTALLATION = ('_ROS_WHEELS_BOOTSTRAP_COMPLETE', 'LD_LIBRARY_PATH', 'AMENT_PREFIX_PATH',
                       'PYTHONPATH')
TOO_SOON = 'No world in ROS domain'  # it looks for five seconds; a busy machine takes longer
SEEN = {'image': [160, 120, 'rgb8', 'sim_camera'], 'odom': ['odom', 'base_link'],
        'camera_info': [160, 120, 'sim_camera', True], 'depth': ['32FC1', 'sim_camera'],
        'moved': True, 'paused': 1, 'state': 2, 'step': 1, 'clock_is_newest': True, 'reset': 1,
        'state_after_reset': 1}


@pytest.fixture
def domain():
    with Domain() as number:
        yield number


def environment(python, domain):
    """Return what a program of an installation is started with from a fresh shell."""
    kept = {name: value for name, value in os.environ.items()
            if python == HERE or name not in OF_ONE_INSTALLATION}
    return {**kept, 'ROS_DOMAIN_ID': str(domain), 'PYTHONUNBUFFERED': '1'}


class Program:
    """A verb of ``lingbot-world`` that runs; what it prints goes to a file."""

    def __init__(self, python, domain, output, *arguments):
        self._output, self._environment = output, environment(python, domain)
        self._command = [str(python), '-m', 'lingbot_world_ros.cli', *arguments]
        self._start()

    def _start(self):
        with self._output.open('w') as printed:
            self.process = subprocess.Popen(self._command, stdout=printed,
                                            stderr=subprocess.STDOUT, env=self._environment)

    @property
    def said(self):
        return self._output.read_text()

    def wait_for(self, words):
        """Wait until it has said something; return the match."""
        def said():
            if self.process.poll() is not None and TOO_SOON in self.said:
                self._start()
            assert self.process.poll() is None, self.said
            return re.search(words, self.said)
        return wait_for(said, words, START_PATIENCE_S)

    def end(self):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE_S) == 0, self.said


@contextmanager
def running(*arguments):
    """End a program, at the latest when the test is over; it has no reason to complain."""
    program = Program(*arguments)
    try:
        yield program
        program.end()
    finally:
        program.process.kill()
        program.process.wait()
    for noise in ('Traceback', 'rcutils', 'typesupport'):  # the middleware misses a library
        assert noise not in program.said, program.said[:2000]


def drive(python, domain):
    """Have the client drive the world, from an installation; see that all of it works."""
    client = subprocess.run([str(python), str(CLIENT)], env=environment(python, domain),
                            capture_output=True, text=True, timeout=START_PATIENCE_S)
    assert client.returncode == 0, client.stderr
    seen = json.loads(client.stdout.splitlines()[-1])
    assert seen.pop('stepped_s') == pytest.approx(10 / 15, abs=1e-6)
    assert seen == SEEN


async def picture_on(page):
    """Open the page and return the first picture it is sent."""
    import aiohttp
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE_S)) as session:
        async with session.get(page) as answer:
            assert 'text/html' in answer.headers['Content-Type'] and answer.status == 200
        async with session.ws_connect(f'{page}ws') as socket:
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    return message.data
    raise AssertionError('the page was closed')


def test_a_client_drives_the_world_while_it_is_shown_and_recorded(domain, tmp_path):
    pytest.importorskip('openvino')
    sim = (HERE, domain, tmp_path / 'sim.txt', 'sim', '--profile', 'isaac_sim', '--view')
    record = (HERE, domain, tmp_path / 'record.txt', 'record', '-o', str(tmp_path / 'run'),
              '--reset')
    with running(*sim) as world:
        page = world.wait_for(r'Page +(http\S+)').group(1)
        world.wait_for('Ctrl-C ends')
        with running(*record) as recorder:
            recorder.wait_for('Recording')
            drive(HERE, domain)
        assert b'\xff\xd8' in asyncio.run(picture_on(page))[:32]  # where a JPEG begins
    again = subprocess.run(
        [str(HERE), '-m', 'lingbot_world_ros.cli', 'replay', str(tmp_path / 'run'), '--verify'],
        env=environment(HERE, domain), capture_output=True, text=True, timeout=START_PATIENCE_S)
    # Not 1, which is a difference; 2 where this machine was too busy to record each step.
    assert again.returncode in (0, 2), again.stdout + again.stderr
    assert re.search(r'(?m)^[1-9]\d* frames are the same, byte by byte', again.stdout)


def test_the_same_client_drives_the_simulator(domain, tmp_path):
    pytest.importorskip('lingbot_world_ros.engines.reference.engine')
    sim = (HERE, domain, tmp_path / 'sim.txt', 'sim', '--profile', 'isaac_sim',
           '--engine', 'reference')
    with running(*sim) as world:
        world.wait_for('Ctrl-C ends')
        drive(HERE, domain)


@pytest.mark.skipif(not OTHERS, reason='the only installation here: make venv DISTRO=jazzy')
@pytest.mark.parametrize('world, client', [pair for other in OTHERS for pair in (
    (HERE, other), (other, HERE))], ids=lambda python: python.parents[1].name)
def test_a_client_drives_a_world_of_another_installation(world, client, domain, tmp_path):
    sim = (world, domain, tmp_path / 'sim.txt', 'sim', '--profile', 'isaac_sim')
    with running(*sim) as program:
        program.wait_for('Ctrl-C ends')
        drive(client, domain)
