# SPDX-License-Identifier: Apache-2.0
"""The launch file: compiles everywhere, describes itself where launch is installed."""
from lingbot_world_ros.paths import share_path
import pytest

FILES = sorted(share_path('launch').glob('*.launch.py'))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_launch_file_compiles(path):
    compile(path.read_text(), str(path), 'exec')


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_launch_argument_is_described(path):
    pytest.importorskip('launch_ros', reason='launch is only in ROS distributions')
    from launch.launch_description_sources import get_launch_description_from_python_launch_file
    description = get_launch_description_from_python_launch_file(str(path))
    arguments = {a.name: a for a in description.get_launch_arguments()}
    assert {'profile', 'scene', 'seed', 'namespace', 'composed', 'log_level'} <= set(arguments)
    assert all(len(argument.description) > 10 for argument in arguments.values())
