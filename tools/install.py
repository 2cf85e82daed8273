#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Make ``.venv`` on a machine without ROS: ROS 2 from Python wheels, this package, its messages.

The wheels are those of one distribution: Kilted in ``.venv``, any other in a folder of its own
(``.venv-jazzy``), so that both can be there side by side.

Run it through the Makefile. Every step is skipped when what it depends on has not changed, so
running it again costs a fraction of a second. Only the standard library is used, in a syntax that
older Pythons can read, so that an unsupported one gets a sentence instead of a traceback.
"""
import argparse
import ast
from concurrent.futures import ThreadPoolExecutor
import ctypes
import hashlib
import json
import os
from pathlib import Path
import platform
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time

ROOT = Path(__file__).resolve().parent.parent
DISTRO = 'kilted'  # the one in .venv
PYTHONS = ((3, 10), (3, 13))  # oldest and newest CPython with ROS wheels
OUTPUT_LINES = 30  # of a failing command that are shown


def use_distro(distro):
    """
    Say whose wheels this run installs, and where; once, before everything else.

    :param distro: ROS distribution with a list in ``requirements/``
    """
    global VENV, PYTHON, RECORD, FOR_MESSAGES, BASE, INTERFACES
    VENV = ROOT / ('.venv' if distro == DISTRO else f'.venv-{distro}')
    PYTHON = VENV / 'bin' / 'python'
    RECORD = VENV / 'installed.json'  # step -> digest of what it was made from
    FOR_MESSAGES = (f'ros-{distro}', 'build')
    BASE = (*FOR_MESSAGES, 'run')
    INTERFACES = ('package.xml', 'action', 'msg', 'interfaces', 'tools/build_messages.py',
                  f'requirements/ros-{distro}.txt', 'requirements/build.txt')


use_distro(DISTRO)


class InstallError(Exception):
    """Something the user can fix: the text says how, ``output`` is what a command printed."""

    def __init__(self, text, output=''):
        """Keep both apart, so that the sentence comes last and alone."""
        super().__init__(text)
        self.output = output


def say(text):
    """Print one progress line at once, if there is still somebody to read it."""
    show(f'[install] {text}\n')


def show(text):
    """Print at once; a full disk or a closed pipe under a log stops no installation."""
    try:
        print(text, end='', flush=True)
    except OSError:
        sys.stdout = open(os.devnull, 'w')


def clean_environment():
    """
    Drop what another ROS or virtual environment left in the shell.

    :return: environment for the commands below, with ``.venv`` in front
    """
    environment = {key: value for key, value in os.environ.items()
                   if key not in ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV',
                                  '_ROS_WHEELS_BOOTSTRAP_COMPLETE')}
    environment['PATH'] = f'{VENV / "bin"}{os.pathsep}{environment.get("PATH", os.defpath)}'
    environment['AMENT_PREFIX_PATH'] = str(VENV)
    return environment


def run(command, timeout_s=None, environment=()):
    """
    Run a command quietly; on a terminal its newest line shows that it lives.

    :param command: list of arguments
    :param timeout_s: give up after this many seconds, or None
    :param environment: further variables of it
    :return: exit status and everything it printed
    """
    live = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns - 1
    lines, start = [], time.monotonic()
    with subprocess.Popen([str(part) for part in command], cwd=ROOT,
                          env={**clean_environment(), **dict(environment)},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors='replace') as process:
        timer = threading.Timer(timeout_s or threading.TIMEOUT_MAX, process.kill)
        timer.daemon = True
        timer.start()
        for line in process.stdout:
            lines.append(line)
            if live and line.strip():
                text = f'{time.monotonic() - start:3.0f} s  {line.strip()}'
                show(f'\r\033[K{text[:width]}')
        timer.cancel()
    if live:
        show('\r\033[K')
    return process.returncode, ''.join(lines)


def sourced_ros(environ, root=Path('/opt/ros')):
    """
    Name the ROS distribution that this shell has sourced.

    :param environ: mapping of environment variables
    :param root: where distributions are installed
    :return: its name, or None
    """
    distro = environ.get('ROS_DISTRO')
    return distro if distro and (root / distro).is_dir() else None


def check_machine():
    """
    Stop early where the wheels cannot work.

    :raises InstallError: if ROS is sourced, the machine has no wheels or the path has spaces
    """
    distro = sourced_ros(os.environ)
    if distro:
        raise InstallError(
            f'ROS 2 {distro} is sourced in this shell, so build with colcon instead: in your '
            'workspace run "rosdep install --from-paths src -y --ignore-src && colcon build '
            '--packages-select lingbot_world_ros && . install/setup.sh", then "ros2 launch '
            'lingbot_world_ros sim.launch.py". (Or open a shell that does not source ROS.)')
    if (platform.system(), platform.machine()) != ('Linux', 'x86_64'):
        raise InstallError(
            'ROS 2 wheels exist for Linux x86_64 only, this is '
            f'{platform.system()} {platform.machine()}: use a ROS 2 workspace (README).')
    if ' ' in str(ROOT):
        raise InstallError(f'Messages cannot be built below a path with spaces, got "{ROOT}": '
                           'move the checkout.')


def apt_install(packages, why, needed=True, timeout_s=None):
    """
    Install system packages where that is allowed, else say which.

    :param packages: Debian package names
    :param why: subject and verb of what is "missing" without them
    :param needed: if not, go on without them and only say so
    :param timeout_s: give up after this many seconds; None is five minutes for what is needed
    :raises InstallError: if they are needed and cannot be installed here
    """
    apt = ['env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get']
    command = [*apt, 'install', '-y', '--no-install-recommends', *packages]
    timeout_s = timeout_s or (300 if needed else 60)
    missing = f'{why[0].upper()}{why[1:]} missing'
    if os.geteuid() == 0 and shutil.which('apt-get'):
        say(f'{missing}, installing {" ".join(packages)}')
        if run(command, timeout_s)[0] == 0:
            return
        run([*apt, 'update'], timeout_s)
        if run(command, timeout_s)[0] == 0:
            return
    message = f'{missing}: run "sudo apt-get install {" ".join(packages)}", then make again.'
    if needed:
        raise InstallError(message)
    say(message)


def python_version(python):
    """
    Ask an interpreter for its version.

    :param python: command or path
    :return: (major, minor), or None if it does not run
    """
    code = 'import sys; print(*sys.version_info[:2])'
    try:
        answer = subprocess.run([python, '-c', code], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(int(number) for number in answer.stdout.split())


def find_python():
    """
    Choose the interpreter for ``.venv``: the one running this, else a supported one on the path.

    :return: command or path
    :raises InstallError: if there is none
    """
    oldest, newest = PYTHONS
    if oldest <= sys.version_info[:2] <= newest:
        return sys.executable
    for minor in range(newest[1], oldest[1] - 1, -1):
        if python_version(f'python3.{minor}') == (3, minor):
            say(f'Python {platform.python_version()} has no ROS 2 wheels, python3.{minor} is used')
            return f'python3.{minor}'
    raise InstallError(
        f'Python {platform.python_version()} has no ROS 2 wheels, they exist for 3.{oldest[1]} to '
        f'3.{newest[1]}: install one of these and run "make PYTHON=python3.{newest[1]} ..." '
        '(or use a ROS 2 workspace and colcon).')


def make_venv():
    """Create ``.venv`` with pip in it, unless it is there; say if it is of another Python."""
    if (VENV / 'bin' / 'pip').exists() and PYTHON.exists():
        oldest, newest = PYTHONS
        asked = 'python{}.{}'.format(*sys.version_info[:2])
        if oldest <= sys.version_info[:2] <= newest and not (VENV / 'lib' / asked).exists():
            say(f'{VENV.name} was made with another Python and is kept: remove it for {asked}')
        return
    if VENV.exists() and not PYTHON.exists():
        shutil.rmtree(VENV)  # interrupted, or its interpreter is gone
    python = find_python()
    name = 'python{}.{}'.format(*python_version(python))
    if run([python, '-c', 'import ensurepip, venv'])[0]:
        apt_install([f'{name}-venv'], 'the venv module of Python is')
    say(f'Creating {VENV.name} with {name}')
    status, output = run([python, '-m', 'venv', VENV])
    if status:
        raise InstallError(f'{python} -m venv {VENV.name} failed: run "sudo apt-get install '
                           f'{name}-venv", then make again.', output)


def explain_pip(output):
    """
    Find the reason in what pip printed.

    :param output: everything pip printed
    :return: one sentence with the remedy
    """
    causes = (
        (r'No space left', 'the disk is full: free 2 GB, then make again'),
        (r'name resolution|NewConnectionError|Max retries|timed out|ConnectionError|SSLError',
         'the Python package registry cannot be reached: check the network, or the proxy and '
         'index of pip ("pip config list"), then make again'),
        (r'No matching distribution found for (\S+)',
         'the registry that pip uses has no fitting wheel; there are some for CPython 3.10 to '
         '3.13 on Linux x86_64 with glibc 2.28 or newer'),
    )
    for pattern, text in causes:
        if re.search(pattern, output):
            return text
    return 'read the lines above, then make again'


def uv_settings():
    """
    Tell uv what pip is told of registries, proxies and certificates.

    :return: environment variables of uv; those that are set already stay as they are
    """
    names = {'index-url': 'UV_DEFAULT_INDEX', 'extra-index-url': 'UV_INDEX',
             'find-links': 'UV_FIND_LINKS', 'no-index': 'UV_NO_INDEX',
             'constraint': 'UV_CONSTRAINT', 'trusted-host': 'UV_INSECURE_HOST',
             'timeout': 'UV_HTTP_TIMEOUT', 'default-timeout': 'UV_HTTP_TIMEOUT',
             'cert': 'SSL_CERT_FILE', 'proxy': 'ALL_PROXY'}
    settings = {'UV_INDEX_STRATEGY': 'unsafe-best-match'}  # as pip: the newest of all registries
    _, output = run([PYTHON, '-m', 'pip', 'config', 'list'])
    for key, value in re.findall(r"^(?:global|install|:env:)\.([a-z-]+)=(['\"].*['\"])$", output,
                                 re.MULTILINE):
        if key in names:
            between = ',' if key == 'find-links' else ' '
            settings[names[key]] = between.join(ast.literal_eval(value).split())
    return {name: value for name, value in settings.items() if name not in os.environ}


def uv_install(files):
    """
    Install with uv, which takes a third of pip's time.

    :param files: arguments that name lists
    :return: whether it is done; if not, it is up to pip, which also says why
    """
    uv = VENV / 'bin' / 'uv'
    if not uv.exists() and run([PYTHON, '-m', 'pip', 'install', '--disable-pip-version-check',
                                '--no-input', 'uv'])[0]:
        return False
    status, _ = run([uv, 'pip', 'install', '--python', PYTHON, *files], environment=uv_settings())
    return status == 0


def install_requirements(names, record):
    """
    Install the lists of ``requirements/`` that are new or have changed.

    :param names: file names without ``.txt``
    :param record: step -> digest, updated
    :raises InstallError: if pip fails
    """
    steps = {f'requirements/{name}.txt': digest(f'requirements/{name}.txt') for name in names}
    missing = [step for step, value in steps.items() if record.get(step) != value]
    if not missing:
        return
    say(f'Installing Python packages: {", ".join(Path(step).stem for step in missing)}')
    start = time.monotonic()
    files = [argument for step in steps for argument in ('-r', ROOT / step)]  # solved together
    if not uv_install(files):
        status, output = run([PYTHON, '-m', 'pip', 'install', '--disable-pip-version-check',
                              '--no-input', *files])
        if status:
            raise InstallError(f'pip failed: {explain_pip(output)}.', output)
    record.update({step: steps[step] for step in missing})
    say(f'Python packages took {time.monotonic() - start:.0f} s')


def ask_python(code):
    """
    Run a line of Python in ``.venv``.

    :param code: source that prints the answer
    :return: what it printed
    """
    return subprocess.run([str(PYTHON), '-c', code], env=clean_environment(), check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()


def check_compiler():
    """
    See to a C++ compiler and the headers of Python.

    :raises InstallError: if one is missing and cannot be installed here
    """
    compilers = (os.environ.get('CC') or 'cc', os.environ.get('CXX') or 'c++')
    if not all(shutil.which(shlex.split(compiler)[0]) for compiler in compilers):
        apt_install(['g++', 'make'], 'a C++ compiler and make are')
    headers = Path(ask_python('import sysconfig; print(sysconfig.get_path("include"))'))
    if not (headers / 'Python.h').exists():
        apt_install([f'{headers.name}-dev'], f'the headers of Python ({headers}/Python.h) are')


def build_interfaces(record):
    """
    Build the messages into ``.venv``, where the wheels' libraries are found already.

    :param record: step -> digest, updated
    :raises InstallError: if the build fails
    """
    value = digest(*INTERFACES)
    start = time.monotonic()
    built, work = VENV / 'messages', VENV / 'build'
    for folder in (built, work):
        shutil.rmtree(folder, ignore_errors=True)
    status, output = run([PYTHON, ROOT / 'tools' / 'build_messages.py', '--prefix', built,
                          '--work', work, ROOT, *sorted(
                              path.parent for path in ROOT.glob('interfaces/*/package.xml'))])
    if status:
        raise InstallError('The messages did not build: see the lines above; "make clean" starts '
                           'over.', output)
    keep_interfaces(built)
    place_interfaces(built)
    for folder in (built, work):
        shutil.rmtree(folder)
    record['interfaces'] = value
    say(f'The messages took {time.monotonic() - start:.0f} s')


def kept_interfaces():
    """
    Say where messages are kept that were built from the same files with the same tools.

    :return: a folder that may be there; None if nobody knows where home is
    """
    tools = sorted(path.name for path in VENV.glob('lib/python3*/site-packages/ros_*.dist-info'))
    made_of = repr((digest(*INTERFACES, 'tools/install.py'), tools, platform.platform(),
                    ask_python('import sys; print(sys.version)')))
    key = hashlib.sha256(made_of.encode()).hexdigest()[:32]
    home = os.path.expanduser('~')
    return Path(home, '.cache', 'lingbot_world_ros', 'messages', key) if home != '~' else None


def keep_interfaces(built):
    """
    Keep built messages for other checkouts; where that cannot be they build theirs.

    :param built: what was built
    """
    kept = kept_interfaces()
    if kept is None:
        return
    making = kept.with_name(f'{kept.name}.{os.getpid()}')
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(built, making)
        making.rename(kept)
        for old in sorted(kept.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-4]:
            shutil.rmtree(old)
    except OSError:  # a full disk, or another installation was first
        shutil.rmtree(making, ignore_errors=True)


def place_interfaces(built):
    """
    Put built messages among the wheels' own.

    :param built: what was built
    :raises OSError: if the disk does not take it
    """
    def copy(source, target):
        if os.path.lexists(target):  # an earlier version made links into the checkout
            os.unlink(target)
        return shutil.copy2(source, target)
    shutil.copytree(built, VENV, copy_function=copy, dirs_exist_ok=True)


def take_interfaces(record):
    """
    Take messages that another checkout has built already.

    :param record: step -> digest, updated
    :return: whether there are some
    """
    kept = kept_interfaces()
    if kept is None or not kept.is_dir():
        return False
    try:
        os.utime(kept)
        place_interfaces(kept)
    except OSError:
        return False
    record['interfaces'] = digest(*INTERFACES)
    return True


def warm_up():
    """Do what the first start would wait for, beside the messages: compile modules and graphs."""
    run([PYTHON, '-c', 'import aiohttp, cv2, rclpy.action, rclpy.lifecycle, sensor_msgs.msg\n'
         'import compileall\n'
         'compileall.compile_dir("lingbot_world_ros", quiet=2)\n'
         'from lingbot_world_ros.engines.registry import make_world\n'
         'make_world("room").reset("living_room", 0)'], 60,
        {'PYTHONDONTWRITEBYTECODE': ''})  # pip compiles everything, uv nothing


def link_checkout(record):
    """Let ``.venv`` import this checkout, and give it the ``lingbot-world`` command."""
    finder = ROOT / 'tools' / 'lingbot_world_ros_checkout.py'
    value = digest(finder, 'tools/install.py')
    if record.get('checkout') == value:
        return
    packages = next(VENV.glob('lib/python3*/site-packages'))
    text = finder.read_text().replace('@SOURCE@', str(ROOT / 'lingbot_world_ros'))
    (packages / finder.name).write_text(text)
    (packages / f'{finder.stem}.pth').write_text(f'import {finder.stem}\n')
    command = VENV / 'bin' / 'lingbot-world'
    python = shlex.quote(str(PYTHON))  # not by $0: a link to the command is in another folder
    command.write_text(f'#!/bin/sh\nexec {python} -m lingbot_world_ros.cli "$@"\n')
    command.chmod(0o755)
    share, programs = (VENV / folder / 'lingbot_world_ros' for folder in ('share', 'lib'))
    for link, name in ((share / 'config', 'config'), (share / 'launch', 'launch'),
                       (programs, 'scripts')):
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)  # of an earlier version
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(ROOT / name)
    record['checkout'] = value


def check_rendering():
    """See to a library that renders without a screen, for the reference world."""
    for library in ('libEGL.so.1', 'libOSMesa.so.8', 'libOSMesa.so'):
        try:
            ctypes.CDLL(library)
            return
        except OSError:
            continue
    apt_install(['libegl1', 'libgl1', 'libgl1-mesa-dri'],
                'off-screen rendering for the reference world is', needed=False)


def check_browser():
    """See to a Chromium for the tests of the operator's page."""
    if not any(shutil.which(name) for name in ('chromium', 'chromium-browser', 'google-chrome')):
        apt_install(['chromium'], 'a browser for the tests of the page is', needed=False,
                    timeout_s=300)


def digest(*paths):
    """
    Fingerprint files and folders.

    :param paths: relative to the checkout
    :return: text that changes when a name or a byte does
    """
    state = hashlib.sha256()
    for path in paths:
        path = ROOT / path
        for file in sorted(path.rglob('*')) if path.is_dir() else [path]:
            if file.is_file():
                state.update(f'{file.relative_to(ROOT)}\0'.encode() + file.read_bytes())
    return state.hexdigest()


def read_record():
    """
    Read what the steps were made from.

    :return: step -> digest; empty for a new ``.venv`` or one made for another checkout
    """
    try:
        record = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        return {'checkout_path': str(ROOT)}
    if record.get('checkout_path') != str(ROOT):
        say(f'This {VENV.name} was made for another folder: starting over')
        shutil.rmtree(VENV)
        return {'checkout_path': str(ROOT)}
    return record


def install(extras):
    """
    Bring ``.venv`` up to date, step by step; each step that is done stays done.

    :param extras: names of further lists of ``requirements/``
    :raises InstallError: if a step fails for a reason the user can fix
    """
    start = time.monotonic()
    check_machine()
    record = read_record()
    before = dict(record)
    make_venv()
    try:
        install_requirements(FOR_MESSAGES, record)
        with ThreadPoolExecutor(1) as pool:  # the messages need a core, pip another one
            building = None
            if record.get('interfaces') != digest(*INTERFACES) and not take_interfaces(record):
                check_compiler()
                say('Building the messages, once for all checkouts: less than half a minute on '
                    'two free cores')
                building = pool.submit(build_interfaces, record)
            install_requirements([*BASE, *extras], record)
            if 'checkout' not in record:
                warm_up()
            if building is not None:
                building.result()
        link_checkout(record)
    finally:
        if record != before:
            RECORD.write_text(json.dumps(record, indent=1))
    if 'reference' in extras:
        check_rendering()
    if 'browser' in extras:
        check_browser()
    if record != before:
        say(f'Ready after {time.monotonic() - start:.0f} s; for the commands: '
            f'. {VENV.name}/bin/activate')


def main():
    """
    Read the command line and install.

    :return: exit status
    """
    parser = argparse.ArgumentParser(description='Make .venv on a machine without ROS.')
    lists = {path.stem for path in ROOT.glob('requirements/*.txt')}
    distros = sorted(name[len('ros-'):] for name in lists if name.startswith('ros-'))
    known = sorted(lists - {'build', 'run', *(f'ros-{distro}' for distro in distros)})
    parser.add_argument('extras', nargs='*', metavar='EXTRA',
                        help=f'further lists of requirements/: {", ".join(known)}')
    parser.add_argument('--distro', choices=distros, default=DISTRO,
                        help=f'ROS distribution; {DISTRO} goes into .venv, any other into '
                        '.venv-<distro> (default: %(default)s)')
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.extras) - set(known))
    if unknown:
        parser.error(f'unknown extra {", ".join(unknown)}; there are {", ".join(known)}')
    use_distro(arguments.distro)
    try:
        install(arguments.extras)
    except InstallError as error:
        for line in error.output.splitlines()[-OUTPUT_LINES:]:
            print(line, file=sys.stderr)
        print(f'[install] {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\n[install] Stopped; make again to go on.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
