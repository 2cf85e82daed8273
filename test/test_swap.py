# SPDX-License-Identifier: Apache-2.0
"""One unmodified client for the imagined world and for the simulator, swapped by an argument."""
import json
import os
from pathlib import Path
import subprocess
import sys

from needs import need_engine
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('simulation_interfaces.srv')

from ros_domain import Domain  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402

ENGINES = ('reference', 'room')


@pytest.mark.parametrize('engine', ENGINES)
def test_isaac_client_drives_and_reads_either_world(engine):
    need_engine(engine)
    with Domain() as domain:
        environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain)}
        world = subprocess.Popen(
            [sys.executable, '-m', 'lingbot_world_ros.cli', 'sim', '--profile', 'isaac_sim',
             '--engine', engine, '--duration', '60'], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            client = subprocess.run(
                [sys.executable, str(Path(__file__).with_name('isaac_client.py'))],
                env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
            assert client.returncode == 0, client.stderr
        finally:
            world.terminate()
            _, errors = world.communicate(timeout=PATIENCE_S)
        for noise in ('Traceback', 'rcutils', 'typesupport'):  # the middleware misses a library
            assert noise not in errors, errors[:2000]
    seen = json.loads(client.stdout.splitlines()[-1])
    assert seen.pop('stepped_s') == pytest.approx(10 / 15, abs=1e-6)
    assert seen == {
        'image': [160, 120, 'rgb8', 'sim_camera'], 'odom': ['odom', 'base_link'],
        'camera_info': [160, 120, 'sim_camera', True], 'depth': ['32FC1', 'sim_camera'],
        'moved': True, 'paused': 1, 'state': 2, 'step': 1, 'clock_is_newest': True, 'reset': 1,
        'state_after_reset': 1}
