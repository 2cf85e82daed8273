# SPDX-License-Identifier: Apache-2.0
"""tools/install.py tells users in a sentence what to do, and does nothing twice."""
import importlib.util
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def install():
    """Load the script as a module."""
    spec = importlib.util.spec_from_file_location('install', ROOT / 'tools' / 'install.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sourced_ros_is_named_when_it_is_installed(install, tmp_path):
    """A ROS_DISTRO that is only a leftover variable does not count."""
    (tmp_path / 'jazzy').mkdir()
    assert install.sourced_ros({'ROS_DISTRO': 'jazzy'}, tmp_path) == 'jazzy'
    assert install.sourced_ros({'ROS_DISTRO': 'humble'}, tmp_path) is None
    assert install.sourced_ros({}, tmp_path) is None


def test_make_and_the_script_agree_where_a_distribution_goes(install):
    """The Makefile starts programs from the folder that the script has filled."""
    for distro, folder in (('kilted', '.venv'), ('jazzy', '.venv-jazzy')):
        told = subprocess.run(
            ['make', '-n', '--no-print-directory', 'sim', f'DISTRO={distro}', 'EXTRAS='], cwd=ROOT,
            text=True, capture_output=True, timeout=60, check=True).stdout
        install.use_distro(distro)
        assert install.VENV == ROOT / folder
        assert f'--distro {distro}\n{folder}/bin/lingbot-world sim' in told
        assert f'requirements/ros-{distro}.txt' in install.INTERFACES


def test_an_unknown_distribution_is_an_error_that_names_the_known(install, monkeypatch, capsys):
    """No wheels, no list: say which there are."""
    monkeypatch.setattr(install.sys, 'argv', ['install.py', '--distro', 'foxy'])
    with pytest.raises(SystemExit):
        install.main()
    assert "'jazzy', 'kilted'" in capsys.readouterr().err


def test_check_machine_sends_a_sourced_shell_to_colcon(install, monkeypatch):
    """Wheels beside a sourced distribution would load the wrong libraries."""
    monkeypatch.setattr(install, 'sourced_ros', lambda environ: 'jazzy')
    with pytest.raises(install.InstallError, match='jazzy is sourced.*colcon build'):
        install.check_machine()


@pytest.mark.parametrize('machine, got', [(('Linux', 'aarch64'), 'Linux aarch64'),
                                          (('Darwin', 'arm64'), 'Darwin arm64')])
def test_check_machine_names_an_unsupported_machine(install, monkeypatch, machine, got):
    """No wheels for it: say so before pip does in its own words."""
    monkeypatch.setattr(install, 'sourced_ros', lambda environ: None)
    monkeypatch.setattr(install.platform, 'system', lambda: machine[0])
    monkeypatch.setattr(install.platform, 'machine', lambda: machine[1])
    with pytest.raises(install.InstallError, match=got):
        install.check_machine()


def test_find_python_names_the_supported_versions(install, monkeypatch):
    """Without a fitting interpreter anywhere, the user learns which ones fit."""
    monkeypatch.setattr(install.sys, 'version_info', (3, 99, 0))
    monkeypatch.setattr(install, 'python_version', lambda python: None)
    with pytest.raises(install.InstallError, match=r'3\.10 to 3\.13.*PYTHON='):
        install.find_python()


def test_find_python_takes_a_supported_one_from_the_path(install, monkeypatch, capsys):
    """On a machine whose python3 is too new, another one on the path serves."""
    monkeypatch.setattr(install.sys, 'version_info', (3, 14, 0))
    monkeypatch.setattr(install, 'python_version',
                        lambda python: (3, 12) if python == 'python3.12' else None)
    assert install.find_python() == 'python3.12'
    assert 'python3.12 is used' in capsys.readouterr().out


@pytest.mark.parametrize('made_with, said', [((3, 10), True), ((3, 12), False)])
def test_a_venv_of_another_python_is_kept_and_told(install, monkeypatch, tmp_path, capsys,
                                                   made_with, said):
    """Naming another PYTHON changes nothing that is installed, and does not seem to."""
    monkeypatch.setattr(install.sys, 'version_info', (3, 12, 0))
    monkeypatch.setattr(install, 'VENV', tmp_path)
    monkeypatch.setattr(install, 'PYTHON', tmp_path / 'bin' / 'python')
    for name in ('bin/pip', 'bin/python', 'lib/python{}.{}/site.py'.format(*made_with)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    install.make_venv()
    assert ('remove it for python3.12' in capsys.readouterr().out) == said


@pytest.mark.parametrize('output, remedy', [
    ('ERROR: Could not install: [Errno 28] No space left on device', 'free 2 GB'),
    ('NewConnectionError: [Errno -3] Temporary failure in name resolution', 'check the network'),
    ('ERROR: No matching distribution found for ros-rclpy', 'CPython 3.10 to 3.13'),
])
def test_explain_pip_gives_a_remedy(install, output, remedy):
    """The reason stands somewhere in pages of output."""
    assert remedy in install.explain_pip(output)


def test_missing_system_packages_are_named_when_not_root(install, monkeypatch, capsys):
    """Needed ones stop the installation, others are only mentioned."""
    monkeypatch.setattr(install.os, 'geteuid', lambda: 1000)
    with pytest.raises(install.InstallError, match='apt-get install g'):
        install.apt_install(['g++'], 'a C++ compiler is')
    install.apt_install(['libegl1'], 'off-screen rendering is', needed=False)
    assert 'apt-get install libegl1' in capsys.readouterr().out


def test_digest_changes_with_content_and_name(install, monkeypatch, tmp_path):
    """What a step was made from decides whether it runs again."""
    monkeypatch.setattr(install, 'ROOT', tmp_path)
    (tmp_path / 'msg').mkdir()
    file = tmp_path / 'msg' / 'A.msg'
    file.write_text('uint8 a')
    first = install.digest('msg')
    assert install.digest('msg') == first
    file.write_text('uint8 b')
    second = install.digest('msg')
    file.rename(file.with_name('B.msg'))
    assert len({first, second, install.digest('msg')}) == 3


def test_the_command_may_be_linked_to(install, monkeypatch, tmp_path):
    """A folder of the path may hold a link to it; odd names of the checkout do no harm."""
    venv = tmp_path / 'my "$checkout"' / '.venv'
    packages = venv / 'lib' / f'python3.{sys.version_info.minor}' / 'site-packages'
    packages.mkdir(parents=True)
    (venv / 'bin').mkdir()
    python = venv / 'bin' / 'python'
    python.write_text('#!/bin/sh\necho "$0" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(install, 'VENV', venv)
    monkeypatch.setattr(install, 'PYTHON', python)
    install.link_checkout({})
    link = tmp_path / 'lingbot-world'
    link.symlink_to(venv / 'bin' / 'lingbot-world')
    done = subprocess.run([link, 'sim', '--prompt', 'a  b'], capture_output=True, text=True)
    assert done.stdout == f'{python} -m lingbot_world_ros.cli sim --prompt a  b\n', done.stderr


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='/dev/full is a Linux thing')
def test_a_log_that_cannot_be_written_stops_no_installation():
    code = f'import sys; sys.path.append({str(ROOT / "tools")!r}); import install\n' \
        'install.say("one")\ninstall.say("two")\n'
    with open('/dev/full', 'w') as full:
        done = subprocess.run([sys.executable, '-c', code], stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b'')


def test_run_stops_a_command_that_takes_too_long(install):
    """A package manager that waits for the network must not hang the installation."""
    status, output = install.run(['sh', '-c', 'echo started; exec sleep 60'], timeout_s=0.2)
    assert status != 0
    assert 'started' in output


def test_uv_is_told_what_pip_knows_of_registries(install, monkeypatch):
    """Also where pip has several values, or none; what the user has set for uv stays."""
    told = ("global.index-url='https://a.example/simple'\n"
            "global.extra-index-url='https://b.example/s\\nhttps://c.example/s'\n"
            ":env:.find-links='/wheels /more'\ninstall.trusted-host='a.example'\n"
            "global.timeout='60'\nglobal.no-cache-dir='true'\n")
    monkeypatch.setattr(install, 'run', lambda command: (0, told))
    monkeypatch.setenv('UV_HTTP_TIMEOUT', '7')
    assert install.uv_settings() == {
        'UV_INDEX_STRATEGY': 'unsafe-best-match', 'UV_DEFAULT_INDEX': 'https://a.example/simple',
        'UV_INDEX': 'https://b.example/s https://c.example/s', 'UV_FIND_LINKS': '/wheels,/more',
        'UV_INSECURE_HOST': 'a.example'}


@pytest.mark.parametrize('failing', ['--no-input uv', 'uv pip'])
def test_pip_does_it_where_uv_cannot(install, monkeypatch, tmp_path, failing):
    """Its own failure is explained; that of uv is none."""
    commands = []

    def run(command, *_, **__):
        commands.append(' '.join(map(str, command)))
        return int(failing in commands[-1]), ''
    monkeypatch.setattr(install, 'run', run)
    monkeypatch.setattr(install, 'VENV', tmp_path)
    record = {}
    install.install_requirements(['run'], record)
    assert list(record) == ['requirements/run.txt']
    assert '-m pip install' in commands[-1] and commands[-1].endswith('run.txt')


def test_messages_are_built_once_for_all_checkouts(install, monkeypatch, tmp_path):
    """The same files and tools give the same key, a changed file another."""
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setattr(install, 'ask_python', lambda code: '3.11')
    monkeypatch.setattr(install, 'digest', lambda *paths: 'one')
    built = tmp_path / 'built'
    (built / 'lib').mkdir(parents=True)
    (built / 'lib' / 'a.so').write_text('new')
    monkeypatch.setattr(install, 'VENV', tmp_path / 'venv')
    assert not install.take_interfaces({})
    for _ in range(2):  # the second finds it there
        install.keep_interfaces(built)
    assert len(list((tmp_path / '.cache/lingbot_world_ros/messages').iterdir())) == 1
    source = tmp_path / 'source.so'
    source.write_text('of a checkout')
    (tmp_path / 'venv' / 'lib').mkdir(parents=True)
    (tmp_path / 'venv' / 'lib' / 'a.so').symlink_to(source)
    record = {}
    assert install.take_interfaces(record) and record == {'interfaces': 'one'}
    assert (tmp_path / 'venv/lib/a.so').read_text() == 'new'
    assert source.read_text() == 'of a checkout'
    monkeypatch.setattr(install, 'digest', lambda *paths: 'another')
    assert not install.take_interfaces({})
