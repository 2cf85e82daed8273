# SPDX-License-Identifier: Apache-2.0
"""The package is laid out as its manifests say, and imports no more than it says."""
import ast
from pathlib import Path
import re
import subprocess
import sys
from xml.etree import ElementTree

from groups import CORE, files_outside, GROUPS
from import_rules import ROOMS
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'lingbot_world_ros'
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()
FOLDERS = ('bench', 'launch', 'lingbot_world_ros', 'scripts', 'test', 'tools')
SOURCES = sorted(path for folder in FOLDERS
                 for path in (ROOT / folder).rglob('*') if path.suffix == '.py' or
                 path.parent.name == 'scripts')
MODULES = [path for path in SOURCES if PACKAGE in path.parents and path.name != '__init__.py']
NEED_ROS = ('nodes', 'messages')  # messages knows message types, nodes knows rclpy
ROS = ('rclpy', 'rosidl_runtime_py', 'launch', 'launch_ros', 'std_msgs', 'sensor_msgs',
       'geometry_msgs', 'nav_msgs', 'rcl_interfaces', 'std_srvs', 'simulation_interfaces')
# Extras that a light install lacks.
OPTIONAL = ('torch', 'mujoco', 'scipy', 'matplotlib', 'PIL', 'jinja2', 'gymnasium')
# What a light install has, and a workspace may lack.
BY_PIP = ('aiohttp', 'cv2', 'openvino', 're2', 'rosbags', 'safetensors')

IMPORT_ALL = """
import importlib, importlib.util, sys
blocked, optional = set(sys.argv[1].split(',')), set(sys.argv[2].split(','))

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in blocked:
            raise ModuleNotFoundError(f'{name} is blocked', name=name)

sys.meta_path.insert(0, Blocker())
missing = {name for name in optional if name in blocked or not importlib.util.find_spec(name)}
for module in sys.argv[3:]:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name in blocked or error.name not in missing:
            raise SystemExit(f'{module}: {error}')
"""


def relative(path):
    """Name a file the way a reader looks for it."""
    return str(path.relative_to(ROOT))


def module_name(path):
    """Turn a file of the package into the name it is imported by."""
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts)


def imported_packages(path):
    """Collect the top-level names a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split('.')[0])
    return names


def import_all(modules, blocked):
    """Import modules in a fresh interpreter in which some packages cannot be found."""
    command = [sys.executable, '-c', IMPORT_ALL, ','.join(blocked),
               ','.join((*OPTIONAL, *BY_PIP)), *map(module_name, modules)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_rooms_import_without_rclpy():
    """Nothing outside nodes/ needs ROS to be imported; messages/ needs message types only."""
    rooms = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] not in NEED_ROS]
    assert rooms
    result = import_all(rooms, ['rclpy', 'rosidl_runtime_py', 'launch', 'launch_ros'])
    assert result.returncode == 0, result.stderr


def test_rooms_above_messages_and_settings_import_without_message_types():
    """What makes launch files, layouts and profiles needs no ROS at all."""
    rooms = (*ROOMS[1:ROOMS.index('messages')], 'settings', 'view', 'recording')
    modules = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] in rooms]
    result = import_all(modules, ROS)
    assert result.returncode == 0, result.stderr


def test_light_install_imports_without_torch_and_mujoco():
    """What `make sim` starts must not need what its light install leaves out."""
    pytest.importorskip('rclpy')
    heavy = ('training', 'evaluation', 'report', 'envs')
    light = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] not in heavy and
             not imported_packages(path) & set(OPTIONAL)]
    result = import_all(light, OPTIONAL)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('path', SOURCES, ids=relative)
def test_source_has_licence_and_docstring(path):
    """Each source file says under which licence it stands and what is in it."""
    text = path.read_text()
    if path.name == '__init__.py':
        assert text == '', 'rosidl generates an empty one that may replace it, so keep it empty'
        return
    assert '# SPDX-License-Identifier: Apache-2.0' in text.splitlines()[:2]
    assert ast.get_docstring(ast.parse(text)), 'the module docstring is missing'


def test_rooms_are_packages():
    """A folder without __init__.py would be left out of the pip package."""
    folders = {path.parent for path in MODULES}
    assert [relative(folder) for folder in folders if not (folder / '__init__.py').exists()] == []


def test_every_message_is_built():
    """rosidl builds what CMakeLists.txt lists, not what lies in msg/."""
    listed = re.findall(r'msg/\w+\.msg', (ROOT / 'CMakeLists.txt').read_text())
    assert sorted(listed) == sorted(relative(path) for path in ROOT.glob('msg/*.msg'))


def test_colcon_tests_every_group():
    """What is in no group is in the core; a group that CMakeLists.txt leaves out is never run."""
    listed = re.findall(r'^ *add_tests\((\w+) \d+\)', (ROOT / 'CMakeLists.txt').read_text(), re.M)
    assert sorted(listed) == sorted((*GROUPS, CORE))
    files = [path.name for path in ROOT.glob('test/test_*.py')]
    run = [name for group in listed for name in set(files) - set(files_outside(group))]
    assert sorted(run) == sorted(files)


@pytest.mark.parametrize('wheels', sorted(ROOT.glob('requirements/ros-*.txt')),
                         ids=lambda path: path.stem)
def test_manifest_names_every_ros_package_that_is_imported(wheels):
    """rosdep installs what package.xml names; the wheels of each distribution must match it."""
    declared = {node.text for node in MANIFEST if node.tag.endswith('depend')}
    imported = set().union(*map(imported_packages, MODULES))
    used = {name for name in imported if name.endswith('_msgs') or
            name in ('rclpy', 'launch', 'launch_ros', 'std_srvs', 'ament_index_python')}
    assert used - declared == set()
    names = set(re.findall(r'^ros-([\w-]+)', wheels.read_text(), re.M))
    built_here = {path.parent.name for path in ROOT.glob('interfaces/*/package.xml')}
    on_wheels = {name.replace('-', '_') for name in names} | built_here
    assert used - on_wheels - {'launch', 'launch_ros'} == set()


def test_changelog_opens_with_the_next_or_this_version():
    """The newest section is Forthcoming, or the version that package.xml has."""
    text = (ROOT / 'CHANGELOG.rst').read_text()
    newest = re.search(r'^(Forthcoming|\d+\.\d+\.\d+.*)\n-+$', text, re.M).group(1)
    assert newest.split()[0] in ('Forthcoming', MANIFEST.findtext('version'))


def test_sources_name_no_folder_of_one_machine():
    """Paths come from arguments or from the package, never from the author's disk."""
    pattern = re.compile(r'[\'"=\s](/home|/root|/Users|/mnt|/work)/')
    assert [relative(path) for path in SOURCES if pattern.search(path.read_text()) and
            path != Path(__file__).resolve()] == []


def test_style():
    """The settings of ament_flake8 hold (setup.cfg)."""
    pytest.importorskip('flake8')
    result = subprocess.run([sys.executable, '-m', 'flake8'], cwd=ROOT, capture_output=True,
                            text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
