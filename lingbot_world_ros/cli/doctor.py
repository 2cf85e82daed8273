# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world doctor``: look at everything a world needs and say what to do about it."""
import argparse
from dataclasses import asdict, dataclass
from functools import partial
import importlib
import os
from pathlib import Path
import shutil
import subprocess
import sys
import time
from typing import Any, Callable, List, Optional, Sequence, Tuple, TYPE_CHECKING

from lingbot_world_ros.engines.registry import DEFAULT_ENGINE, EngineEntry, SHIPPED
from lingbot_world_ros.errors import SpecError

if TYPE_CHECKING:
    from lingbot_world_ros.nodes.probe import Graph

NAME = 'doctor'
HELP = 'check the installation and say what to do about each finding'
OK, WARN, FAIL = 'OK', 'WARN', 'FAIL'
MIN_PYTHON = (3, 10)
MIN_SHM_BYTES = 96 * 2 ** 20  # two processes with a segment of 32 MiB each, and some air
TIMED_STEPS = 30
PATIENCE_S = 5.0  # for a message to itself
QUIET_S = 2.0  # nothing new is to be heard of others in the ROS domain
LOOK_S = 20.0  # for others in it, at most
CLOCK = 'rosgraph_msgs/msg/Clock'


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``remedy`` is empty when all is well."""

    level: str
    name: str
    text: str
    remedy: str = ''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.add_argument('--engine', default=DEFAULT_ENGINE, help='engine to load and time '
                        f'(default: {DEFAULT_ENGINE})')


def run(args: argparse.Namespace) -> int:
    """
    Look at everything and print the findings.

    :param args: parsed arguments
    :return: 1 if anything failed, else 0
    """
    checks: Sequence[Callable[[], Finding]] = (
        check_python, check_rclpy, check_messages, check_services, check_bond, check_domain,
        check_middleware, check_dds_profile, check_shared_memory, check_topics, check_graph,
        check_runtime, check_weights, lambda: check_engine(args.engine), check_cores, check_gpu,
        *(partial(check_others, entry) for entry in SHIPPED.values() if entry.checkup))
    findings: List[Finding] = []
    for check in checks:
        findings.append(_guarded(check))
        if not args.json:
            _print(findings[-1])
    failed = sum(f.level == FAIL for f in findings)
    if args.json:
        import json
        print(json.dumps({'ok': not failed, 'findings': [asdict(f) for f in findings]}, indent=2))
    else:
        print(f'{failed} of {len(findings)} checks failed.' if failed else 'Ready.')
    return 1 if failed else 0


def _print(finding: Finding) -> None:
    print(f'{finding.level:5s} {finding.name}: {finding.text}', flush=True)
    if finding.remedy:
        print(f'      -> {finding.remedy}', flush=True)


def _guarded(check: Callable[[], Finding]) -> Finding:
    """Run one check; whatever it stumbles over is a finding too."""
    try:
        return check()
    except SpecError as error:
        return Finding(FAIL, _name_of(check), str(error), 'see the finding itself')
    except Exception as error:  # a check must not hide the findings of the others
        return Finding(FAIL, _name_of(check), f'{type(error).__name__}: {error}',
                       'this check itself failed; report it with the output above')


def _name_of(check: Callable[[], Finding]) -> str:
    return getattr(check, '__name__', 'check').replace('check_', '')


def check_python() -> Finding:
    """Python is new enough."""
    text = f'{sys.version.split()[0]} at {sys.executable}'
    if sys.version_info < MIN_PYTHON:
        return Finding(FAIL, 'python', text, 'use Python 3.10 or newer')
    return Finding(OK, 'python', text)


def check_rclpy() -> Finding:
    """The ROS client library can be imported."""
    distro = os.environ.get('ROS_DISTRO', '')
    try:
        from lingbot_world_ros.nodes.probe import client_library
    except ImportError as error:
        return Finding(FAIL, 'rclpy', str(error),
                       'source a ROS 2 workspace (source /opt/ros/<distro>/setup.bash), or run '
                       '"make venv" in a checkout, which needs no ROS')
    return Finding(OK, 'rclpy', f'{client_library()}'
                   + (f', distribution {distro}' if distro else ', without a distribution'))


def check_messages() -> Finding:
    """Every message type the nodes use can be imported, with its compiled support."""
    packages = ('lingbot_world_ros', 'tf2_msgs', 'sensor_msgs', 'nav_msgs', 'geometry_msgs',
                'trajectory_msgs', 'std_msgs', 'rosgraph_msgs', 'diagnostic_msgs')
    from lingbot_world_ros.nodes.probe import unusable_messages
    missing = unusable_messages(packages)
    if missing:
        return Finding(FAIL, 'messages', f'cannot be used: {", ".join(missing)}',
                       'build the workspace (rosdep install, colcon build) and source it, or run '
                       '"make venv" in a checkout')
    return Finding(OK, 'messages', f'{len(packages)} packages')


def check_services() -> Finding:
    """The standard services to control a simulator are installed."""
    from lingbot_world_ros.nodes.simulation_answers import installed
    from lingbot_world_ros.nodes.simulation_services import ACTION, SERVICES
    missing = [name for name in SERVICES if installed('srv', name) is None]
    missing += [ACTION] if installed('action', ACTION) is None else []
    if missing:
        return Finding(WARN, 'services', f'not offered: {", ".join(missing)}; '
                       'simulation_interfaces is missing or older than 1.4',
                       'sudo apt install ros-$ROS_DISTRO-simulation-interfaces; until then '
                       '~/reset, ~/pause and ~/step of world_model do')
    return Finding(OK, 'services', f'{len(SERVICES)} services and {ACTION} of '
                   'simulation_interfaces')


def check_bond() -> Finding:
    """A lifecycle manager of Nav2 may want a bond; say whether one can be made."""
    from lingbot_world_ros.nodes.bond import has_bondpy, REMEDY
    if has_bondpy():
        return Finding(OK, 'bond', "bondpy, for Nav2's lifecycle manager")
    return Finding(OK, 'bond', f'without bondpy, which autostart does not need. {REMEDY}')


def check_domain() -> Finding:
    """The ROS domain is a number that DDS can use."""
    from lingbot_world_ros.nodes.ros_environment import check_domain_id
    domain = os.environ.get('ROS_DOMAIN_ID', '')
    try:
        check_domain_id()
    except SpecError as error:
        return Finding(FAIL, 'domain', str(error), 'set ROS_DOMAIN_ID to a number, or unset it')
    if os.environ.get('ROS_LOCALHOST_ONLY') == '1':
        return Finding(OK, 'domain', f'{domain or 0}, on this host only')
    return Finding(OK, 'domain', domain or '0 (ROS_DOMAIN_ID is not set)')


def check_middleware() -> Finding:
    """The middleware is one the package was measured with."""
    from lingbot_world_ros.nodes.probe import middleware
    rmw = middleware()
    if rmw != 'rmw_fastrtps_cpp':
        return Finding(WARN, 'middleware', f'{rmw}; the shared-memory profile is for Fast DDS',
                       'configure this middleware for large images, or set '
                       'RMW_IMPLEMENTATION=rmw_fastrtps_cpp')
    return Finding(OK, 'middleware', rmw)


def check_dds_profile() -> Finding:
    """Fast DDS will read a profile, and the file is there."""
    from lingbot_world_ros.nodes.ros_environment import prepare_environment, profile_variable
    variable, chosen = profile_variable(), os.environ.get(profile_variable())
    prepare_environment()
    path = Path(os.environ[variable])
    if not path.is_file():
        return Finding(FAIL, 'dds profile', f'{variable}={path} does not exist',
                       f'unset {variable}, or point it to a file')
    if chosen is None:
        return Finding(OK, 'dds profile', f'the nodes use {path}; for images above 0.5 MB, '
                       f'subscribers need it too: export {variable}={path}')
    return Finding(OK, 'dds profile', f'{variable}={path}')


def check_shared_memory() -> Finding:
    """/dev/shm is there, can be written, and has room for the segments."""
    path = Path('/dev/shm')
    if not path.is_dir() or not os.access(path, os.W_OK):
        return Finding(WARN, 'shared memory',
                       f'{path} is missing or cannot be written; images are sent over UDP',
                       'mount a tmpfs there, or run the container with --ipc=host')
    usage = shutil.disk_usage(path)
    text = f'{usage.free / 2 ** 20:.0f} of {usage.total / 2 ** 20:.0f} MiB free in {path}'
    if usage.free < MIN_SHM_BYTES:
        return Finding(WARN, 'shared memory', text,
                       'run the container with --shm-size=256m, or remove leftovers of ended '
                       'programs (fastdds shm clean)')
    return Finding(OK, 'shared memory', text)


def check_topics() -> Finding:
    """A message that is published arrives, within this process."""
    from lingbot_world_ros.nodes.probe import echo_time_s
    took_s = echo_time_s(PATIENCE_S)
    if took_s is None:
        return Finding(FAIL, 'topics', 'a published message did not come back within '
                       f'{PATIENCE_S:g} s',
                       'check the middleware, its profile and the firewall for UDP on this host')
    return Finding(OK, 'topics', f'a message arrives {took_s:.2f} s after '
                   'the first node started')


def check_graph() -> Finding:
    """What else is in this ROS domain does not get into each other's way."""
    from lingbot_world_ros.nodes.probe import look_at_graph
    return _judge_graph(look_at_graph(QUIET_S, LOOK_S))


def _judge_graph(graph: 'Graph') -> Finding:
    ends, sources = graph.ends, graph.sources
    problems: List[Tuple[str, str]] = []
    for name in sorted(ends):
        types = sorted({end.topic_type for end in ends[name]})
        if len(types) > 1:
            told = '; '.join(f'{kind} at {_node_names(ends[name], kind)}' for kind in types)
            problems.append((f'{name} has several types, and nothing is delivered between '
                             f'them: {told}', 'make both sides use one (of cmd_vel: parameter '
                             'cmd_vel_type, twist or twist_stamped)'))
        if types == [CLOCK] and len(sources[name]) > 1:
            problems.append((f'{name} comes from several nodes: {_node_names(sources[name])}',
                             'end all but one, or give each its own ROS_DOMAIN_ID'))
    if problems:
        texts, remedies = zip(*problems)
        return Finding(WARN, 'graph', '; '.join(texts), '; '.join(remedies))
    worlds = [_node_names(sources[name]) for name in sorted(sources)
              if name.endswith('/world_spec') and sources[name]]
    silent = '' if not graph.num_silent else (
        f'; {graph.num_silent} more taking part on this machine, not heard of in {LOOK_S:g} s')
    return Finding(OK, 'graph', f'worlds in this ROS domain: {", ".join(worlds) or "none"}'
                   + silent)


def _node_names(ends: Sequence[Any], kind: Optional[str] = None) -> str:
    from lingbot_world_ros.nodes.endpoints import node_of
    return ', '.join(sorted(node_of(end) or 'a node not known yet' for end in ends
                            if kind in (None, end.topic_type)))


def check_runtime() -> Finding:
    """The runtime of the embedded world can be imported."""
    try:
        openvino = importlib.import_module('openvino')
    except ImportError as error:
        return Finding(FAIL, 'runtime', str(error), 'pip install openvino')
    return Finding(OK, 'runtime', f'OpenVINO {openvino.__version__}')


def check_weights() -> Finding:
    """The weights that ship are there, and are the bytes that were shipped."""
    from lingbot_world_ros.models.room.runtime import read_about, WEIGHTS
    try:
        about = read_about(WEIGHTS, verify=True)
    except SpecError as error:
        return Finding(FAIL, 'weights', str(error), 'install the package again')
    return Finding(OK, 'weights', f'{about["name"]}, checksums match, {WEIGHTS}')


def check_engine(engine: str) -> Finding:
    """
    The engine loads (its files are there and whole) and is fast enough for its frame rate.

    :param engine: name, as ``make_world`` takes it
    :return: the finding, with the time of one step
    """
    from lingbot_world_ros.engines.registry import make_world
    import numpy as np
    name = f'engine {engine}'
    try:
        started_s = time.monotonic()
        world = make_world(engine)
        world.reset(world.spec.scenes[0], 0)
        loaded_s = time.monotonic() - started_s
    except SpecError as error:
        return Finding(FAIL, name, str(error), 'see the findings above, then install again')
    spec = world.spec
    action = np.zeros((1, spec.frames_per_step, len(spec.action.dims)), np.float32)
    steps_s = []
    for _ in range(TIMED_STEPS):
        started_s = time.monotonic()
        world.step(action)
        steps_s.append(time.monotonic() - started_s)
    world.close()
    step_s = float(np.median(steps_s))
    text = (f'{spec.model}, loads in {loaded_s:.1f} s, {step_s * 1e3:.1f} ms a step '
            f'(needs {spec.step_dt_s * 1e3:.0f} ms)')
    if step_s > 0.8 * spec.step_dt_s:
        return Finding(WARN, name, text, 'sim time will run slower than wall time here; end other '
                       'programs, or use a faster machine')
    return Finding(OK, name, text)


def check_cores() -> Finding:
    """There is more than one core for the world, the middleware and its subscribers."""
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    if load > cores:
        return Finding(WARN, 'cores', f'{cores}, and {load:.1f} programs compete for them',
                       'end other programs while timing matters')
    return Finding(OK, 'cores', f'{cores}, load {load:.1f}')


def check_gpu() -> Finding:
    """A GPU is not needed; say whether there is one."""
    tool = shutil.which('nvidia-smi')
    if tool is None:
        return Finding(OK, 'gpu', 'none found; the embedded world needs none')
    query = subprocess.run([tool, '--query-gpu=name,memory.total', '--format=csv,noheader'],
                           capture_output=True, text=True, timeout=30)
    if query.returncode:
        return Finding(WARN, 'gpu', f'nvidia-smi: {query.stderr.strip() or query.stdout.strip()}',
                       'the driver does not answer; the embedded world needs no GPU')
    return Finding(OK, 'gpu', query.stdout.strip().replace('\n', '; '))


def check_others(entry: EngineEntry) -> Finding:
    """
    Look for what an engine would run with; the embedded world needs none of it.

    :param entry: of the engine
    :return: the finding, by the name of the engine
    """
    missing = entry.missing()
    if missing:
        return Finding(OK, entry.name, f'without {", ".join(missing)}, which the embedded '
                       f'world does not need ({entry.docs})')
    return Finding(OK, entry.name, entry.told())
