# SPDX-License-Identifier: Apache-2.0
"""The messages built here are the ones that other ROS 2 machines know."""
import json
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent
STANDARD_HASHES = {  # as in the distributions: same fields, same order, same types
    'tf2_msgs/msg/TFMessage':
        'RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087',
}


def type_description(name):
    """Read what rosidl installed beside a type; distributions before Iron have none."""
    package = pytest.importorskip('ament_index_python.packages')
    folder, kind, message = name.split('/')
    try:
        share = Path(package.get_package_share_directory(folder))
    except LookupError:
        pytest.skip(f'{folder} is not installed')
    path = share / kind / f'{message}.json'
    if not path.exists():
        pytest.skip(f'{name} has no type description here')
    return json.loads(path.read_text())


@pytest.mark.parametrize('name', STANDARD_HASHES)
def test_type_hash_is_the_standard_one(name):
    """DDS matches a publisher with a subscriber by name, ROS tells them apart by hash."""
    hashes = {entry['type_name']: entry['hash_string']
              for entry in type_description(name)['type_hashes']}
    assert hashes[name] == STANDARD_HASHES[name]


def test_every_interface_package_is_covered():
    """A package added under interfaces/ needs its hashes in the table above."""
    packages = {path.parent.name for path in ROOT.glob('interfaces/*/package.xml')}
    assert packages == {name.split('/')[0] for name in STANDARD_HASHES}


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


@pytest.mark.parametrize('folder', [ROOT, ROOT / 'test'], ids=['root', 'test'])
def test_messages_are_found_from_inside_the_checkout(folder):
    """The sources, first on the path there, must not hide the generated messages."""
    pytest.importorskip('lingbot_world_ros_checkout', reason='only the .venv of make has both')
    code = 'import lingbot_world_ros.msg, lingbot_world_ros.errors as e; print(e.__file__)'
    result = subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True,
                            text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()) == ROOT / 'lingbot_world_ros' / 'errors.py'
