# SPDX-License-Identifier: Apache-2.0
"""tools/build_messages.py builds what rclpy can load, and says what it cannot build."""
import importlib.util
import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / 'tools' / 'build_messages.py'
GENERATOR = Path(sys.prefix) / 'lib' / 'rosidl_generator_py' / 'rosidl_generator_py'

pytestmark = pytest.mark.skipif(not GENERATOR.exists(), reason='needs ROS 2 from Python wheels')


def build(tmp_path, text, environment=None):
    """Build a package of one message; return what became of it."""
    folder = tmp_path / 'source'
    (folder / 'msg').mkdir(parents=True)
    (folder / 'package.xml').write_text('<package><name>try_msgs</name></package>')
    (folder / 'msg' / 'Try.msg').write_text(text)
    return subprocess.run(
        [sys.executable, SCRIPT, '--prefix', tmp_path / 'built', '--work', tmp_path / 'work',
         folder],
        capture_output=True, text=True, timeout=300, env=environment)


def test_a_message_can_be_sent_through_the_type_support(tmp_path):
    """Serialising calls the libraries of the package, and those of the messages it is made of."""
    done = build(tmp_path, 'std_msgs/Header header\ngeometry_msgs/Point[] points\n')
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'compiling libtry_msgs__rosidl_typesupport_fastrtps_c.so' in done.stdout
    share = tmp_path / 'built' / 'share' / 'try_msgs'
    assert {path.suffix for path in share.glob('msg/*')} == {'.msg', '.idl', '.json'}
    code = ('import sys; sys.path.insert(0, sys.argv[1])\n'
            'from geometry_msgs.msg import Point\n'
            'from rclpy.serialization import deserialize_message, serialize_message\n'
            'from try_msgs.msg import Try\n'
            'one = Try(points=[Point(x=1.0), Point(y=2.0)])\n'
            'one.header.frame_id = "map"\n'
            'assert deserialize_message(serialize_message(one), Try) == one\n')
    modules, = tmp_path.glob('built/lib/python3*/site-packages')
    libraries = os.pathsep.join((str(tmp_path / 'built' / 'lib'), os.environ['LD_LIBRARY_PATH']))
    subprocess.run([sys.executable, '-c', code, modules], check=True, timeout=60,
                   env={**os.environ, 'LD_LIBRARY_PATH': libraries})


def test_a_wrong_definition_is_named(tmp_path):
    """The last line says which file, and what is wrong with it."""
    done = build(tmp_path, 'float46 x\n')
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('try_msgs/msg/Try.msg: ')
    assert 'float46' in done.stderr


def test_what_the_compiler_says_is_shown(tmp_path):
    """Only that tells what to install."""
    done = build(tmp_path, 'uint8 x\n', {**os.environ, 'CC': f'{sys.executable} -c 1/0 --'})
    assert done.returncode == 1
    *_, said, last = done.stderr.splitlines()
    assert said == 'ZeroDivisionError: division by zero'
    assert last == 'try_msgs: libtry_msgs__rosidl_generator_c.so was not built'


def test_a_missing_compiler_is_named(tmp_path):
    """No traceback for what a user can set."""
    done = build(tmp_path, 'uint8 x\n', {**os.environ, 'CC': 'no-such-compiler'})
    assert done.returncode == 1
    assert 'no-such-compiler' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize('version, has_index', [('2.0.3', False), ('2.3.0', True)])
def test_jazzy_gets_its_own_feedback(monkeypatch, tmp_path, version, has_index):
    """The original got the two fields with Kilted, and both sides must agree."""
    spec = importlib.util.spec_from_file_location('build_messages', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'VENV', tmp_path)
    module.write(tmp_path / 'share' / 'action_msgs' / 'package.xml',
                 f'<package><version>{version}</version></package>')
    path = Path('action', 'FollowJointTrajectory.action')
    text = (ROOT / 'interfaces' / 'control_msgs' / path).read_text()
    lines = module.for_distribution('control_msgs', path, text).splitlines()
    index = [line for line in text.splitlines() if re.match(r'int32 (multi_dof_)?index', line)]
    assert len(index) == 2
    assert set(text.splitlines()) - set(lines) == (set() if has_index else set(index))
