# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""
from contextlib import ExitStack, suppress
import os
from pathlib import Path
import signal
import sys

from groups import files_outside
import pytest
from ros_domain import Domain

# colcon test starts each group by itself; what a test starts is no such run.
collect_ignore = files_outside(os.environ.pop('LINGBOT_WORLD_ROS_TESTS', ''))

# bench/ is not installed. What is installed comes first: in a workspace only that has the
# messages. What a test starts inherits it.
ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [*(path for path in sys.path if (path or os.getcwd()) != ROOT), ROOT]
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, (os.environ.get('PYTHONPATH'), ROOT)))

# One thread per process: tests run side by side, and two threads of torch wait for each other
# as soon as something else runs. What a test starts inherits it.
for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
    os.environ.setdefault(name, '1')

# Triton crashes when it is loaded behind the software renderer of MuJoCo, which brings another
# LLVM. Most tests load it late or not at all; in one process the order must not matter.
with suppress(ImportError):
    import triton  # noqa: F401

# Files that take longest, the longest first: they begin first, so that none is left running alone
# at the end.
LONG = ('engine_contract', 'page', 'lingbot_world_ros', 'package_layout', 'doc_commands', 'envs',
        'cli', 'page_faults', 'report', 'training', 'lingbot_world', 'soak', 'gpu_stream',
        'wan_parallel', 'record', 'smoke', 'room_world', 'evaluate', 'wan_stream', 'wan_nf4',
        'faults', 'your_own_engine', 'types')


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='run also the tests that take long')


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes long, run by "make thorough" only')


def pytest_collection_modifyitems(config, items):
    """Put long files first; leave out what takes long, unless it is asked for."""
    if not config.getoption('--slow'):
        left_out = pytest.mark.skip(reason='takes long: "make thorough" runs it')
        for item in items:
            if item.get_closest_marker('slow'):
                item.add_marker(left_out)
    place = {f'test_{name}': number for number, name in enumerate(LONG)}
    # The others stay in order. Pytest of Ubuntu 22.04 has fspath only.
    items.sort(key=lambda item: place.get(Path(str(item.fspath)).stem, len(LONG)))


@pytest.fixture(scope='module')
def domain():
    """Claim a ROS domain for the tests of a file."""
    with Domain() as number:
        yield number


@pytest.fixture(scope='session')
def learned_world(tmp_path_factory):
    """Return the folder of a learned world, a tiny one, not to be changed."""
    from learned_worlds import tiny_world
    return tiny_world(tmp_path_factory.mktemp('learned') / 'tiny world')


@pytest.fixture
def hears_hangups():
    """Let what a test starts hear of its closed terminal, even where nohup began the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def hears_ctrl_c():
    """Let what a test starts hear of Ctrl-C, even where a script began the tests with ``&``."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def open_graph(domain):
    """Start ``Graph(make_nodes, domain, ros_args)``; all end with the test."""
    from ros_graph import Graph
    with ExitStack() as stack:
        yield lambda make_nodes, ros_args=(): stack.enter_context(
            Graph(make_nodes, domain, ros_args))


@pytest.fixture(scope='session')
def box_world(tmp_path_factory):
    """Return the folder of a world that was learned from a drive through a small room."""
    from learned_rooms import learn_room
    return learn_room(tmp_path_factory.mktemp('box'))


@pytest.fixture(scope='session')
def box_drive(tmp_path_factory):
    """Return a recording of another drive through that room, and where it truly was."""
    from learned_rooms import record_another_drive
    return record_another_drive(tmp_path_factory.mktemp('drive'))
