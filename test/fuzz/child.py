# SPDX-License-Identifier: Apache-2.0
"""
The process that is attacked: real nodes over a tiny engine, and a door beside ROS.

Requests come in on standard input as ``marshal`` data, answers leave on standard output; ROS
messages come as they always do. From ``watch`` on every file that Python opens is looked at.
"""
from collections import deque
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
import marshal
import os
from pathlib import Path
import struct
import subprocess
import sys
import sysconfig
import time

from fake_world import FakeWorld
from fuzz.texts import SECRET
from fuzz.values import plain
from lingbot_world_ros import paths
from lingbot_world_ros.engines.interface import Capabilities
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages.name_filter import NameFilter
from lingbot_world_ros.robots.calibration import load_calibration
from lingbot_world_ros.robots.urdf import read_description, RobotModel
from lingbot_world_ros.settings.profiles import load_profile
from lingbot_world_ros.worlds.library import WorldLibrary
import numpy as np

OPERATORS = ('calibration_url', 'profile_name', 'urdf_url')  # may name any file
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = ('pickle.find_class', 'subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn',
             'os.fork', 'os.remove', 'os.rename', 'os.mkdir', 'os.rmdir', 'os.link', 'os.symlink',
             'os.chmod', 'os.truncate', 'os.kill', 'socket.connect', 'urllib.Request',
             'shutil.rmtree', 'webbrowser.open', 'ctypes.dlopen')


class Watch:
    """Note what Python does to the machine that no request may make it do."""

    def __init__(self, allowed):
        self._allowed = [os.path.realpath(folder) for folder in allowed]
        self.on = False
        self.trespasses = deque(maxlen=20)
        sys.addaudithook(self._hear)

    def _hear(self, event, args):
        if not self.on:
            return
        if event in ('open', 'os.listdir', 'os.scandir'):
            name = args[0]
            if isinstance(name, int) or name is None:
                return
            path = os.path.realpath(os.fsdecode(name))
            writes = event == 'open' and bool((args[2] or 0) & WRITES)
            inside = any(path == folder or path.startswith(f'{folder}/')
                         for folder in self._allowed)
            if writes or not inside:
                self.trespasses.append(f'{event} {path[:200]}{" for writing" if writes else ""}')
        elif event in FORBIDDEN:
            self.trespasses.append(f'{event} {str(args)[:200]}')


class Direct:
    """What can be called without ROS; each takes a case, and raises SpecError to refuse it."""

    def __init__(self, folders):
        self._folders = folders
        with suppress(ImportError):  # as the first name filter does
            import_module('re2')
        world = FakeWorld()
        self._spec = world.spec
        self._rich = replace(world.spec, can=Capabilities(take_prompts=True, take_images=True))

    def _library(self, rich):
        return WorldLibrary(self._rich if rich else self._spec, self._folders['{worlds}'])

    def _file(self, text):
        """Put a text into a file and return its name."""
        path = Path(self._folders['{files}']) / 'case.yaml'
        with _unwatched():
            path.write_bytes(text.encode(errors='surrogateescape'))
        return str(path)

    def world_text(self, text):
        """LoadWorld.resource_string."""
        library = self._library(True)
        world = library.load(text=text)
        again = library.load(text=world.text)
        if again != world:
            raise AssertionError(f'{world.text!r} does not give {world} again but {again}')
        self._library(False).load(text=text, ignore_assets=True)
        return repr(world)

    def world_uri(self, uri):
        """LoadWorld.uri."""
        return repr(self._library(True).load(uri))

    def world_find(self, uri):
        """GetAvailableWorlds.additional_sources."""
        return repr(self._library(False).find(uri))

    def calibration(self, text):
        """The content of camera_info_url."""
        calibration = load_calibration(self._file(text))
        sides = np.array([calibration.camera.width_px - 1.0, calibration.camera.height_px - 1.0])
        rays = calibration.rays(np.array([[0.0, 0.0], sides, 0.5 * sides]))
        if not np.isfinite(rays).all():
            raise AssertionError(f'rays {rays.tolist()}')
        small = calibration.resized(64, 48)
        if not np.isfinite(small.camera.k).all():
            raise AssertionError(f'k {small.camera.k.tolist()}')
        return ''

    def calibration_url(self, url):
        """The name in camera_info_url, which the operator gives: any file may be read."""
        load_calibration(url)
        return ''

    def profile(self, text):
        """The content of a parameter file."""
        return ' '.join(load_profile(self._file(text)))

    def profile_name(self, name):
        """The name of a parameter file."""
        load_profile(name)
        return ''

    def urdf_url(self, url):
        """The name in robot_description, which the operator gives: any file may be read."""
        if not url.lstrip().startswith('<'):
            read_description(url)
        return ''

    def urdf(self, text):
        """The content of robot_description."""
        robot = RobotModel.from_description(text)
        limits = robot.joint_limits
        positions = {name: np.linspace(-1.0, 1.0, 3) for name in limits}
        for link in robot.links[:20]:
            robot.link_pose(link, positions)
        return ''

    def name_filter(self, pattern):
        """EntityFilters.filter."""
        matches = NameFilter(pattern).matches
        for name in ('robot', 'a' * 200, ''):
            matches(name)
        return ''

    def misbehave(self, deed):
        """Do what the harness must notice."""
        secret = Path(self._folders['{outside}']) / 'secret.yaml'
        if deed == 'end':
            os._exit(3)
        deeds = {'read': secret.read_text, 'list': lambda: os.listdir(secret.parent),
                 'write': lambda: (Path(self._folders['{worlds}']) / 'new').write_text('x'),
                 'run': lambda: subprocess.run(['true']), 'raise': lambda: 1 // 0,
                 'sleep': lambda: time.sleep(2.1),
                 'log': lambda: print('Traceback (most recent call last):', file=sys.stderr)}
        if deed in deeds:
            return repr(deeds[deed]()) if deed != 'read' else bool(deeds[deed]())
        raise SpecError({'tell': SECRET, 'lines': 'one\ntwo', 'pages': 'x' * 5000}[deed])


WATCH = None


class _unwatched:
    """What the harness itself does is no trespass."""

    def __enter__(self):
        self._was, WATCH.on = WATCH.on, False

    def __exit__(self, *_):
        WATCH.on = self._was


def main():
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)
    setup = _receive()
    global WATCH
    # ROS reads its packages, Python its modules; /proc and /sys tell NumPy about the machine.
    packages = filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep))
    WATCH = Watch([*(Path(prefix, 'share') for prefix in packages), sys.prefix, sys.base_prefix,
                   sysconfig.get_path('stdlib'), Path(paths.__file__).parent.parent,
                   setup['folders']['{worlds}'], setup['folders']['{files}']])
    direct = Direct(setup['folders'])
    graph = None
    if setup['graph']:
        from fuzz.graph import AttackedGraph
        graph = AttackedGraph(setup)
    _send(answers, {'pid': os.getpid()})
    while True:
        request = _receive()
        if request is None:
            break
        _send(answers, _answer(request, direct, graph))
    if graph is not None:
        graph.close()


def _answer(request, direct, graph):
    target, case = request
    if target == 'watch':
        WATCH.on = case
        return {}
    started_s = time.monotonic()
    out = {'outcome': 'accepted', 'text': ''}
    try:
        where = graph if graph is not None and hasattr(graph, target) else direct
        out['text'] = getattr(where, target)(case)
    except SpecError as error:
        out = {'outcome': 'refused', 'text': str(error)}
    except AssertionError as error:
        out = {'outcome': 'broken', 'text': str(error)}
    except BaseException as error:  # the finding itself
        import traceback
        with _unwatched():
            lines = traceback.format_exception(type(error), error, error.__traceback__)
        out = {'outcome': 'failed', 'text': f'{type(error).__name__}: {str(error)[:300]}',
               'traceback': ''.join(lines)[-3000:]}
    out['seconds'] = time.monotonic() - started_s
    out['trespasses'] = [] if target in OPERATORS else list(WATCH.trespasses)
    WATCH.trespasses.clear()
    return out


def _receive():
    """Return the next request, None at the end."""
    head = sys.stdin.buffer.read(4)
    return marshal.loads(sys.stdin.buffer.read(struct.unpack('I', head)[0])) if head else None


def _send(answers, data):
    content = marshal.dumps(plain(data))  # states are enums
    answers.write(struct.pack('I', len(content)) + content)
    answers.flush()


if __name__ == '__main__':
    main()
