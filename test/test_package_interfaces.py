# SPDX-License-Identifier: Apache-2.0
"""The messages of this package work, and are found from anywhere in the checkout."""
from pathlib import Path
import subprocess
import sys

import pytest
from waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize('path', sorted(ROOT.glob('msg/*.msg')), ids=lambda path: path.stem)
def test_message_round_trips_through_its_type_support(path):
    """The compiled type support loads and keeps every field."""
    rclpy_serialization = pytest.importorskip('rclpy.serialization')
    messages = pytest.importorskip('lingbot_world_ros.msg')
    message = getattr(messages, path.stem)()
    message.header.frame_id = 'odom'
    data = rclpy_serialization.serialize_message(message)
    back = rclpy_serialization.deserialize_message(data, type(message))
    assert str(back) == str(message)


@pytest.mark.parametrize('path', sorted(ROOT.glob('action/*.action')), ids=lambda path: path.stem)
@pytest.mark.parametrize('part', ['Goal', 'Result', 'Feedback'])
def test_action_round_trips_through_its_type_support(path, part):
    """All that an action is made of."""
    rclpy_serialization = pytest.importorskip('rclpy.serialization')
    actions = pytest.importorskip('lingbot_world_ros.action')
    message = getattr(getattr(actions, path.stem), part)()
    data = rclpy_serialization.serialize_message(message)
    assert str(rclpy_serialization.deserialize_message(data, type(message))) == str(message)


@pytest.mark.parametrize('folder', [ROOT, ROOT / 'test'], ids=['root', 'test'])
def test_messages_are_found_from_inside_the_checkout(folder):
    """The sources, first on the path there, must not hide the generated messages."""
    pytest.importorskip('lingbot_world_ros_checkout', reason='only the .venv of make has both')
    code = 'import lingbot_world_ros.msg, lingbot_world_ros.errors as e; print(e.__file__)'
    result = subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True,
                            text=True, timeout=PATIENCE_S)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()) == ROOT / 'lingbot_world_ros' / 'errors.py'
