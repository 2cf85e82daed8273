# SPDX-License-Identifier: Apache-2.0
"""
What comes of every fault, seen from the ROS interface; docs/robustness.md has the same table.

Images of the fake world show how many steps it has made, so an old image with a new stamp cannot
hide: every image of every test is checked.
"""
import ast
from dataclasses import dataclass
from functools import partial
import os
from pathlib import Path
import resource
import signal
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('simulation_interfaces.srv')

ROOT = Path(__file__).resolve().parent.parent

from bench.faulty_sim import end_hang, FaultyWorld, order_faults  # noqa: E402, I100
from bench.ledger import FrameLedger  # noqa: E402
from bench.peers import Peer  # noqa: E402
from bench.report import table  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from fake_world import FakeWorld  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.messages.stamps import stamp_to_ns  # noqa: E402
from lingbot_world_ros.msg import WorldStatus  # noqa: E402
from lingbot_world_ros.nodes.pair import make_pair  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
import numpy as np  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from ros_domain import Domain  # noqa: E402
from ros_graph import Graph  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from simulation_interfaces.msg import SimulationState  # noqa: E402
from simulation_interfaces.srv import (GetSimulationState, ResetSimulation,  # noqa: E402
                                       SetSimulationState, StepSimulation)
from std_msgs.msg import String  # noqa: E402
from waiting import PATIENCE_S, wait_for  # noqa: E402

OK, OPERATION_FAILED = 1, 4
PLAYING, PAUSED, ERROR = (WorldStatus.STATE_PLAYING, WorldStatus.STATE_PAUSED,
                          WorldStatus.STATE_ERROR)
PERIOD_NS = 66_666_667
STEP_TIMEOUT_S = 0.5  # where a step hangs; elsewhere a busy machine may hold up any step
HANG_S = 120.0  # until its end is ordered; what waits that long has failed
SLOW_STEP_S = 0.01
ROWS = []


@dataclass(frozen=True)
class Row:
    """One line of the table: a fault, what comes of it, how one notices, what one can do."""

    fault: str
    outcome: str
    notice: str
    remedy: str

    def __call__(self, test):
        """Tie a test to the line it proves."""
        ROWS.append(self)
        return test


def faulty_engine(faults):
    """Make the engine; a child process can find this function."""
    return FaultyWorld(FakeWorld(), faults, HANG_S)


class SlowWorld(FakeWorld):
    """Takes 10 ms per step."""

    def step(self, actions, render=True):
        time.sleep(SLOW_STEP_S)
        return super().step(actions, render)


class World:
    """A composed node over a fake engine, and what it showed."""

    def __init__(self, graph, faults):
        self.graph, self._faults = graph, faults
        self.node = graph.nodes[0]
        self.images = graph.listen(Image, 'camera/image_raw')
        self.statuses = graph.listen(WorldStatus, 'world_status')
        graph.wait_for(lambda: self.statuses, 'world_status')

    def order(self, *faults):
        order_faults(self._faults, *faults)

    @property
    def engine_pid(self):
        return self.node.session.world.pid

    def wait(self, state, **fields):
        """Wait for a world_status that is like this."""
        want = {'state': state, **fields}
        return self.graph.wait_for(
            lambda: next((msg for msg in reversed(self.statuses[-3:]) if all(
                getattr(msg, name) == value for name, value in want.items())), None), f'{want}')

    def end_hang(self):
        """Let a step that hangs come back, and wait for it."""
        ended = end_hang(self._faults)
        self.graph.wait_for(lambda: not ended.exists(), 'the end of the step that hangs')

    def frames(self, number):
        """Wait for so many more frames; return how long it took, seconds."""
        frame, start_s = self.statuses[-1].frame, time.monotonic()
        self.graph.wait_for(lambda: self.statuses[-1].frame >= frame + number, 'frames')
        return time.monotonic() - start_s

    def call(self, srv_type, name, **fields):
        """Call a service; return result and message."""
        result = self.graph.call(srv_type, name, srv_type.Request(**fields)).result
        return result.result, result.error_message

    def step(self, steps=1):
        return self.call(StepSimulation, '/step_simulation', steps=steps)

    def set_state(self, state):
        return self.call(SetSimulationState, '/set_simulation_state',
                         state=SimulationState(state=state))

    def state(self):
        return self.call(GetSimulationState, '/get_simulation_state')

    def hear(self, peer):
        """Listen to the world until a peer says something."""
        self.graph.wait_for(peer.has_spoken, peer.name)
        return peer.hear()

    def reset(self):
        return self.call(ResetSimulation, '/reset_simulation')

    def check_images(self):
        """No frame is missing or repeated, and every image is of the step its stamp says."""
        ledger = FrameLedger()
        ledger.period(PERIOD_NS)
        for msg in self.images:
            stamp_ns = stamp_to_ns(msg.header.stamp)
            ledger.frame('image', stamp_ns)
            assert msg.data[0] == (stamp_ns // PERIOD_NS - 1) % 256, 'an image of another step'
        assert ledger.report()['problems'] == []


@pytest.fixture
def start(domain, tmp_path):
    """Start a composed node; its images are checked after the test."""
    worlds = []

    def run(engine=None, **params):
        params = {'scene': 'a', 'speed': 3.0, 'step_timeout_s': 30.0,
                  'cmd_vel_type': 'twist', **params}
        ros_args = [word for name, value in params.items() for word in ('-p', f'{name}:={value}')]
        engine = engine or partial(faulty_engine, tmp_path / 'faults')
        graph = Graph(lambda: make_pair(engine), domain, ros_args)
        graph.__enter__()
        worlds.append(graph)
        worlds[-1] = World(graph, tmp_path / 'faults')
        return worlds[-1]

    yield run
    for world in worlds:
        graph = getattr(world, 'graph', world)
        graph.__exit__()
    for world in worlds:
        world.check_images()


@pytest.fixture
def peer(domain):
    """Start peers in processes of their own."""
    peers = []

    def run(world, name, *args):
        peers.append(Peer(name, *args, env={**os.environ, 'ROS_DOMAIN_ID': str(domain)}))
        world.hear(peers[-1])
        return peers[-1]
    yield run
    for one in peers:
        one.close()


@Row('The engine raises an error, returns numbers that are not finite or lacks memory, once',
     'The step is repeated from the last good state: the same frames, none missing, none twice',
     '`recoveries` and `message` of `world_status`; a warning in the log',
     'Nothing; read the log if it happens again')
@pytest.mark.parametrize('fault', ['error', 'nan', 'memory'])
def test_engine_that_fails_once_goes_on(start, fault):
    world = start()
    world.order(fault)
    status = world.wait(PLAYING, recoveries=1, fault=WorldStatus.FAULT_NONE)
    assert status.message.startswith('Recovered from the last good state')
    frame = status.frame
    world.graph.wait_for(lambda: world.statuses[-1].frame > frame + 5, 'more frames')
    assert world.statuses[-1].recoveries == 1


@Row('The same, also in the second try',
     'Sim time stops in the state error with the fault failed, diverged or out_of_memory; no '
     'further images; services answer',
     '`state` 10, `fault` and `message` of `world_status`; `/diagnostics` ERROR; '
     '`get_simulation_state` and `step_simulation` answer OPERATION_FAILED with the reason',
     '`reset_simulation`, or `load_world` if the world is the cause')
@pytest.mark.parametrize('fault, number, words', [
    ('error', WorldStatus.FAULT_FAILED, 'fails on demand'),
    ('nan', WorldStatus.FAULT_DIVERGED, 'base_pose'),
    ('memory', WorldStatus.FAULT_OUT_OF_MEMORY, 'lacks memory')])
def test_engine_that_fails_again_stops_by_name_until_a_reset(start, fault, number, words):
    world = start()
    diagnostics = world.graph.listen(DiagnosticArray, '/diagnostics')
    world.order(fault, fault)
    status = world.wait(ERROR, fault=number)
    assert words in status.message
    for code, message in (world.step(), world.state(), world.set_state(PLAYING)):
        assert code in (OPERATION_FAILED, 102) and words in message
    entry = world.graph.newest(diagnostics, lambda msg: msg.status[0].level ==
                               DiagnosticStatus.ERROR, 'a diagnosis').status[0]
    assert words in entry.message
    # An image from before the fault may arrive after its status.
    assert all(stamp_to_ns(image.header.stamp) <= stamp_to_ns(status.header.stamp)
               for image in world.images), 'time went on'
    assert world.reset()[0] == OK
    world.wait(PLAYING, fault=WorldStatus.FAULT_NONE)


@Row('A step of the engine hangs (`step_timeout_s`)',
     'The step is given up, the state is error with the fault hung; a running step request '
     'is answered; late results are dropped. The reset makes a new engine',
     'As above',
     '`reset_simulation`; `isolate_engine: true` if it happens again')
def test_engine_that_hangs_is_given_up(start):
    world = start(initial_state='paused', step_timeout_s=STEP_TIMEOUT_S)
    world.order('hang')
    code, message = world.step(3)
    assert code == OPERATION_FAILED and 'step_timeout_s' in message
    world.wait(ERROR, fault=WorldStatus.FAULT_HUNG)
    assert world.step()[0] == OPERATION_FAILED
    assert world.reset()[0] == OK
    world.wait(PAUSED, fault=WorldStatus.FAULT_NONE)
    assert world.step(2)[0] == OK
    world.end_hang()
    assert world.step(2)[0] == OK
    world.wait(PAUSED, fault=WorldStatus.FAULT_NONE, frame=5)


@Row('The same with `isolate_engine: true`',
     'The process is killed and restarted, the step is repeated: no frame missing',
     '`recoveries` and `message` of `world_status`',
     'Nothing')
def test_isolated_engine_that_hangs_goes_on(start):
    # In this time another process has to start, on a busy machine too.
    world = start(isolate_engine=True, initial_state='paused', step_timeout_s=4.0)
    world.order('hang')
    assert world.step(3)[0] == OK
    world.wait(PAUSED, recoveries=1, fault=WorldStatus.FAULT_NONE, frame=4)


@Row('The engine process is killed or ends (`isolate_engine: true`)',
     'As before; a second loss in the same step is the state error with the fault lost',
     'As before',
     'Nothing; more memory if the kernel killed it')
def test_isolated_engine_that_is_killed_goes_on(start):
    world = start(isolate_engine=True)
    os.kill(world.engine_pid, signal.SIGKILL)
    world.wait(PLAYING, recoveries=1, fault=WorldStatus.FAULT_NONE)


@Row('A reliable subscriber stalls',
     'The world keeps its rate and others receive every frame; the stalled one finds the '
     'newest frames of its queue',
     'Gaps in the stamps of that subscriber; the world is fine',
     'A deeper queue there, or `image_queue_depth`')
def test_world_keeps_its_rate_when_a_subscriber_stalls(start, peer):
    world = start()
    stalled = peer(world, 'listen')
    before_s = world.frames(45)
    stalled.freeze()
    assert world.frames(45) < 2.5 * before_s, 'a world that waited would take five times as long'


@Row('A publisher floods a command topic at 10 kHz',
     'The newest command wins, services answer within a second, memory does not grow',
     '`command_latency` of `world_status`; the CPU time of the process',
     'Send commands at the frame rate')
def test_flood_of_commands_holds_up_nobody(start, peer):
    world = start()
    flooding = peer(world, 'flood', '--seconds', '120.0', '--last', '0.25')
    flooding.say('go')
    frame = world.statuses[-1].frame
    world.graph.wait_for(lambda: world.statuses[-1].actions[1] < -0.2, 'a command of the flood')
    for _ in range(20):
        assert world.state()[0] == OK
    world.frames(10)
    flooding.say('enough')
    sent, frames = world.hear(flooding)['sent'], world.statuses[-1].frame - frame
    assert sent > 10 * frames, 'that was no flood'
    world.graph.wait_for(lambda: np.isclose(world.statuses[-1].actions[1], 0.25),
                         'the newest command')


@Row('A client exits or is killed during its step request',
     'All steps are made, then the world is paused; the next client is served',
     '`state` and `step` of `world_status`',
     'Nothing; `set_simulation_state` interrupts the steps')
def test_steps_of_a_client_that_dies_end_in_a_pause(start, peer):
    world = start(SlowWorld, initial_state='paused')
    client = peer(world, 'step', '--steps', '80')
    client.say('go')
    world.wait(PLAYING)
    client.kill()
    world.wait(PAUSED, frame=81)
    assert world.step(2)[0] == OK
    world.wait(PAUSED, frame=83)


@Row('Steps take longer than `service_timeout_s`',
     'The request answers OPERATION_FAILED in time and says how many steps were made; the world '
     'is paused',
     'The answer',
     'The action `simulate_steps`, or a longer `service_timeout_s`')
def test_too_many_steps_are_answered_in_time(start):
    world = start(SlowWorld, initial_state='paused', service_timeout_s=0.5)
    code, message = world.step(1000)
    assert code == OPERATION_FAILED and 'of 1000 steps' in message
    world.wait(PAUSED)
    assert world.step(1)[0] == OK


@Row('The disk fills up while `lingbot-world record` runs',
     'The recorder ends; what it wrote is readable; the world is not affected',
     'The exit code of the recorder and its last line, which says how much was kept',
     'Make room; `--images none` or `compressed` writes less')
def test_recording_on_a_full_disk_keeps_what_was_written(tmp_path):
    pytest.importorskip('rosbags')
    from lingbot_world_ros.recording.bag import BagReader, BagWriter
    bag, before = BagWriter(tmp_path / 'bag'), resource.getrlimit(resource.RLIMIT_FSIZE)
    bag.add_topic('/t', 'std_msgs/msg/String')
    text = serialize_message(String(data='x' * 10_000))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, before[1]))
        with pytest.raises(SpecError, match='messages are kept'):
            for num in range(400):
                bag.write('/t', num, text)
            bag.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with BagReader(tmp_path / 'bag') as reader:
        assert 100 < len(list(reader.messages('/t'))) < 400


@pytest.mark.slow
@Row('Output cannot be written: the disk is full, its reader has ended '
     '(`lingbot-world sim \\| head`), the terminal is closed',
     'World, recorder, page, follower and replay continue; the lines are lost',
     'The log ends, or has a gap',
     'Nothing; `layout`, `inspect`, `doctor` and `replay --verify` end, as they only print')
def test_nobody_ends_whose_words_are_lost(tmp_path):
    """Every line of all of them is lost; none of them notices."""
    for needed in ('rosbags', 'aiohttp', 'lingbot_world_ros.engines.reference.engine'):
        pytest.importorskip(needed)
    running = []

    def start(domain, *arguments):
        with open('/dev/full', 'w') as full:
            running.append(subprocess.Popen(
                [sys.executable, '-m', 'lingbot_world_ros.cli', *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=full, stderr=full,
                env={**os.environ, 'ROS_DOMAIN_ID': str(domain)}))
        return running[-1]

    bag = tmp_path / 'bag'
    with Domain() as domain:
        port = 8700 + domain
        try:
            world = start(domain, 'sim', '--engine', 'reference')
            with Graph(lambda: [], domain) as graph:
                odometry = graph.listen(Odometry, 'odom')
                graph.wait_for(lambda: odometry, 'the world')
                view = start(domain, 'view', '--port', port)
                beside = [start(domain, 'record', '-o', bag, '--duration', '1.5', '--reset',
                                '--images', 'none'),
                          start(domain, 'follow', '--duration', '1.5')]
                assert [process.wait(PATIENCE_S) for process in beside] == [0, 0]
                wait_for(lambda: answers(port), 'the page')
                graph.newest(odometry)
                for process in (view, world):
                    process.send_signal(signal.SIGINT)
                    assert process.wait(PATIENCE_S) == 0
            assert start(domain, 'replay', bag, '--speed', '0').wait(PATIENCE_S) == 0
        finally:
            for process in running:
                process.kill()
                process.wait()
    assert (bag / 'metadata.yaml').stat().st_size > 1000


def answers(port):
    """Tell whether something listens there."""
    try:
        with urlopen(f'http://127.0.0.1:{port}', timeout=PATIENCE_S) as page:
            return page.status == 200
    except URLError:  # also a page that wants something else
        return False


@Row('The system clock jumps',
     'Nothing: sim time counts frames, everything else uses a steady clock',
     'Only the times in log lines jump',
     'Nothing')
def test_jump_of_the_wall_clock_changes_nothing(start, monkeypatch):
    world = start()
    real, before_s = time.time, world.frames(30)
    for jump_s in (3600.0, -86400.0):
        monkeypatch.setattr(time, 'time', lambda jump_s=jump_s: real() + jump_s)
        assert 0.2 < world.frames(30) / before_s < 5.0


CLIENTS = ('recorder.py', 'teleop.py')  # bags have the time of day; a user is no simulator


def sources():
    rooms = ('actions', 'models', 'nodes', 'sensors', 'worlds')
    return sorted(path for room in rooms
                  for path in (ROOT / 'lingbot_world_ros' / room).rglob('*.py')
                  if path.name not in CLIENTS)


@pytest.mark.parametrize('path', sources(), ids=lambda path: f'{path.parent.name}/{path.name}')
def test_no_source_asks_for_the_time_of_day_or_waits_for_its_own_clock(path):
    """Sim time is counted and durations are steady; a ROS timer names a clock that runs."""
    wrong = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            if call in ('time.time', 'time.time_ns') or call.endswith(
                    ('datetime.now', 'datetime.utcnow', 'date.today', 'get_clock().now')):
                wrong.append(f'line {node.lineno}: {call}')
            if call.endswith('create_timer') and 'clock' not in [k.arg for k in node.keywords]:
                wrong.append(f'line {node.lineno}: create_timer without clock')
    assert wrong == []


def test_document_has_the_table_that_is_tested_here():
    """Put the table below into docs/robustness.md when this fails."""
    expected = table(('fault', 'what happens', 'how to notice', 'what to do'),
                     [(row.fault, row.outcome, row.notice, row.remedy) for row in ROWS])
    assert expected in (ROOT / 'docs' / 'robustness.md').read_text(), f'\n{expected}'
