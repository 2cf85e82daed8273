# SPDX-License-Identifier: Apache-2.0
"""Packages that are imported without a part of them, each in a process of its own."""
from pathlib import Path
import subprocess
import sys

from lingbot_world_ros.models.room.runtime import WEIGHTS
from needs import need_engine
import pytest


def run(code, folder):
    done = subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize('content, has_part', [
    ('try:\n    from parcel import part\nexcept ImportError:\n    pass\n', False),
    ('from parcel import part\n', True)])
def test_a_part_is_left_out_where_the_package_does_without(tmp_path, content, has_part):
    """And can be imported by its own name afterwards."""
    parcel = tmp_path / 'parcel'
    parcel.mkdir()
    (parcel / '__init__.py').write_text(content)
    (parcel / 'part.py').write_text('VALUE = 7\n')
    assert run('import sys\n'
               'from lingbot_world_ros.imports import import_without\n'
               'parcel = import_without("parcel", "parcel.part")\n'
               'print("parcel.part" in sys.modules)\n'
               'import parcel.part\n'
               'print(import_without("parcel", "parcel.part") is parcel, parcel.part.VALUE)\n',
               tmp_path) == [str(has_part), 'True', '7']


def test_no_such_package_is_told_as_python_tells_it(tmp_path):
    assert run('from lingbot_world_ros.imports import import_without\n'
               'try:\n    import_without("no_such_parcel", "no_such_parcel.part")\n'
               'except ModuleNotFoundError as error:\n    print(error.name)\n',
               tmp_path) == ['no_such_parcel']


def test_a_room_runs_without_the_model_converter_which_stays_in_reach(tmp_path):
    need_engine('room')
    graph = Path(WEIGHTS) / 'renderer.onnx'
    assert run('import sys\n'
               'from lingbot_world_ros.engines.registry import make_world\n'
               'make_world("room").reset("living_room", 0)\n'
               'print("openvino.tools.ovc" in sys.modules)\n'
               'import openvino\n'
               f'print(len(openvino.convert_model({str(graph)!r}).outputs) > 0)\n'
               'print("openvino.tools.ovc" in sys.modules)\n', tmp_path) == [
        'False', 'True', 'True']
