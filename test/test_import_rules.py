# SPDX-License-Identifier: Apache-2.0
"""Rooms keep their floors, files make no ring, and each name stays in its room."""
from pathlib import Path
import re
import shutil
import subprocess

from import_rules import check_imports, HELPERS, PACKAGE, ROOMS
import pytest

ROOT = Path(__file__).resolve().parent.parent

TIDY = {
    'errors.py': '',
    'robots/robot.py': 'from lingbot_world_ros.errors import SpecError',
    'engines/interface.py': 'from lingbot_world_ros.robots import robot',
    'engines/registry.py': "NAMES = {'room': 'lingbot_world_ros.engines.room.engine:RoomWorld'}",
    'engines/room/engine.py': "from ..interface import WorldModel\nNAME = 'room'",
    'messages/stamps.py': 'from builtin_interfaces.msg import Time\nnow = Time()',
    'nodes/run.py': 'import rclpy\nfrom std_srvs.srv import Trigger\nASKED = Trigger.Request()',
    'training/fit.py': 'from lingbot_world_ros.engines.room.engine import RoomWorld',
    'cli/main.py': "'''Imagine a room.'''\nimport lingbot_world_ros.nodes.run",
}


def planted(folder, files):
    """Write a small package that breaks no rule, with some files changed, and check it."""
    files = {**TIDY, **files}
    for name in [*files, *(f'{Path(file).parent}/__init__.py' for file in files)]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files.get(name, ''))
    return [(found.rule, found.file, found.line, found.what) for found in check_imports(folder)]


def test_package_keeps_its_rules():
    """No ring, no arrow up, no name outside its room."""
    assert [str(found) for found in check_imports(ROOT / PACKAGE)] == []


def test_every_folder_is_a_room_and_every_room_a_folder():
    """The list of rooms is the list of folders."""
    folders = {path.parent.relative_to(ROOT / PACKAGE).parts[0]
               for path in (ROOT / PACKAGE).rglob('*.py') if path.parent != ROOT / PACKAGE}
    assert folders == set(ROOMS) - {HELPERS}


def test_readme_lists_the_rooms_in_their_order_and_every_other_folder():
    """Its tree is that of the repository; rooms without a module may be left out."""
    if not (ROOT / '.git').exists() or shutil.which('git') is None:
        pytest.skip('not a checkout of git')
    asked = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(asked.stderr.strip())  # for one, it belongs to another user
    files = [Path(file) for file in asked.stdout.splitlines()]
    readme = (ROOT / 'README.md').read_text()
    tree = re.search(r'\n## What is where\n\n```text\n(.*?)```', readme, re.S)[1]
    listed = [(line.startswith(' '), name) for line in tree.splitlines()
              for folders in re.findall(r'^ *((?:\w+/ ?)+)', line)  # others are files
              for name in folders.replace('/', ' ').split()]
    used = {file.parts[1] for file in files if file.parts[0] == PACKAGE
            and len(file.parts) > 2 and file.name != '__init__.py'}
    assert [name for is_room, name in listed if is_room] == [r for r in ROOMS if r in used]
    assert {name for is_room, name in listed if not is_room} == {
        file.parts[0] for file in files if len(file.parts) > 1 and file.parts[0][0] != '.'}


def test_tidy_package_has_no_findings(tmp_path):
    """What the rules allow is not told."""
    assert planted(tmp_path, {}) == []


@pytest.mark.parametrize('text', [
    'from lingbot_world_ros.errors import SpecError\nfrom lingbot_world_ros import paths',
    'from lingbot_world_ros.errors import SpecError\n\n\ndef find():\n    from . import paths',
    'import typing\nif typing.TYPE_CHECKING:\n    import lingbot_world_ros.paths',
    "import importlib\nimportlib.import_module('lingbot_world_ros.paths')",
    "WHERE = 'lingbot_world_ros.paths:find'",
])
def test_planted_ring_is_found(tmp_path, text):
    """Two files that import each other, lazily, for a type checker or by a string."""
    found = planted(tmp_path, {'errors.py': text,
                               'paths.py': 'from lingbot_world_ros.errors import SpecError'})
    assert {(rule, file, what) for rule, file, _, what in found} >= {
        ('ring', 'errors.py', 'paths.py'), ('ring', 'paths.py', 'errors.py')}


def test_planted_ring_of_three_is_found(tmp_path):
    """A ring is found whatever its length."""
    found = planted(tmp_path, {'errors.py': 'from lingbot_world_ros import a',
                               'a.py': 'from lingbot_world_ros import b',
                               'b.py': 'from lingbot_world_ros import errors'})
    assert [entry[:2] for entry in found] == [('ring', name)
                                              for name in ('a.py', 'b.py', 'errors.py')]


@pytest.mark.parametrize('text', [
    'from lingbot_world_ros.nodes.run import ASKED',
    'from lingbot_world_ros.nodes import run',
    'from ..nodes import run',
    'import lingbot_world_ros.nodes.run as run',
    'def lazy():\n    from lingbot_world_ros.nodes.run import ASKED',
    "def lazy():\n    __import__('lingbot_world_ros.nodes.run')",
])
def test_planted_upward_arrow_is_found(tmp_path, text):
    """A room that imports from one below it, however that is written."""
    found = planted(tmp_path, {'robots/arm.py': text})
    assert found == [('upward', 'robots/arm.py', len(text.splitlines()), 'nodes/run.py')]


def test_planted_room_without_a_floor_is_found(tmp_path):
    """A folder that is not in the list."""
    assert planted(tmp_path, {'attic/box.py': ''}) == [
        ('room', 'attic/__init__.py', 1, 'attic/ is not in the list of folders (ROOMS)'),
        ('room', 'attic/box.py', 1, 'attic/ is not in the list of folders (ROOMS)')]


@pytest.mark.parametrize('text', [
    "def make(engine):\n    return engine == 'room'", "def make(engine='room'):\n    pass",
    "NEEDS = {'room': 'openvino'}", "make_world('room')",
])
def test_planted_engine_name_is_found(tmp_path, text):
    """An engine's name as a value outside its folder and the registry."""
    found = planted(tmp_path, {'nodes/world_model.py': text,
                               'engines/example/engine.py': text})
    assert [(rule, file, what) for rule, file, _, what in found] == [
        ('engine', 'engines/example/engine.py', "'room'"),
        ('engine', 'nodes/world_model.py', "'room'")]


def test_planted_import_of_an_engine_is_found(tmp_path):
    """Who wants an engine asks the registry; training alone knows one by its module."""
    text = 'from lingbot_world_ros.engines.room.engine import RoomWorld'
    assert planted(tmp_path, {'cli/doctor.py': text}) == [
        ('engine', 'cli/doctor.py', 1, 'engines/room/engine.py')]


@pytest.mark.parametrize('text', [
    'import rclpy', 'from rclpy.node import Node', 'def lazy():\n    import rclpy.logging',
    "import importlib\nrclpy = importlib.import_module('rclpy')",
])
def test_planted_rclpy_is_found(tmp_path, text):
    """Only nodes/ knows rclpy."""
    found = planted(tmp_path, {'messages/wait.py': text, 'cli/sim.py': text})
    assert {(rule, file) for rule, file, _, _ in found} == {
        ('rclpy', 'messages/wait.py'), ('rclpy', 'cli/sim.py')}


@pytest.mark.parametrize('text', [
    'from std_msgs.msg import String', 'import sensor_msgs.msg', 'from std_srvs import srv',
    'from lingbot_world_ros.msg import WorldSpec', 'from lingbot_world_ros import msg',
    'def lazy():\n    from simulation_interfaces.srv import LoadWorld',
    "def lazy(kind):\n    __import__(f'rcl_interfaces.{kind}')",
    'from somebody.action import Dock',
])
def test_planted_message_type_is_found(tmp_path, text):
    """Only messages/ and nodes/ know message types."""
    found = planted(tmp_path, {'session/status.py': text, 'cli/main.py': text})
    assert {(rule, file) for rule, file, _, _ in found} == {
        ('message', 'session/status.py'), ('message', 'cli/main.py')}


def test_planted_message_made_in_a_node_is_found(tmp_path):
    """A node names the type of a topic; messages/ fills one."""
    text = 'from std_msgs.msg import String\n\n\ndef tell(send):\n    send(String(data=""))'
    assert planted(tmp_path, {'nodes/notifier.py': text}) == [
        ('message made', 'nodes/notifier.py', 5, 'String')]
