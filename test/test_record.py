# SPDX-License-Identifier: Apache-2.0
"""Recording: bags that are whole even on a full disk, and a world taken down from outside."""
from contextlib import contextmanager
import json
import os
from pathlib import Path
import resource
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('rosbags')

from ament_index_python.packages import get_package_share_directory  # noqa: E402, I100
from fake_world import FakeWorld  # noqa: E402
from geometry_msgs.msg import Twist  # noqa: E402
from lingbot_world_ros.cli.replay import verify_segments, watch  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.messages.commands import twist_to_msg  # noqa: E402
from lingbot_world_ros.msg import WorldStatus  # noqa: E402
from lingbot_world_ros.nodes.endpoints import UNKNOWN  # noqa: E402
from lingbot_world_ros.nodes.pair import make_pair  # noqa: E402
from lingbot_world_ros.nodes.recorder import RecorderNode  # noqa: E402
from lingbot_world_ros.nodes.spinner import Spinner  # noqa: E402
from lingbot_world_ros.recording.bag import BagReader, BagWriter, end_file  # noqa: E402
from lingbot_world_ros.recording.definitions import message_definition  # noqa: E402
from lingbot_world_ros.recording.recorded import read_recording  # noqa: E402
from lingbot_world_ros.recording.replay import SAME, UNVERIFIABLE, verify  # noqa: E402
from lingbot_world_ros.settings.profiles import load_profile  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from ros_graph import Graph  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402
from waiting import PATIENCE_S, wait_for  # noqa: E402
import yaml  # noqa: E402

COMMAND = [sys.executable, '-m', 'lingbot_world_ros.cli']
TEXT = 'std_msgs/msg/String'
PACKAGE_TYPES = ('WorldSpec', 'WorldStatus', 'ActionEmbedding')


def text(words):
    return serialize_message(String(data=words))


def texts_in(path):
    with BagReader(path) as bag:
        return [msg.data for _, msg in bag.messages('/t')]


def write_texts(folder, texts):
    bag = BagWriter(folder)
    bag.add_topic('/t', TEXT)
    for words in texts:
        bag.write('/t', 5, text(words))
    return bag


# Bags


@pytest.mark.parametrize('name', [
    *(f'lingbot_world_ros/msg/{name}' for name in PACKAGE_TYPES), 'sensor_msgs/msg/CameraInfo',
    'nav_msgs/msg/Odometry', 'trajectory_msgs/msg/JointTrajectory'])
def test_definitions_are_whole_and_have_the_hash_of_the_installed_type(name):
    definition, digest = message_definition(name)
    assert 'MSG: std_msgs/Header' in definition and 'MSG: builtin_interfaces/Time' in definition
    package, _, kind = name.split('/')
    about = Path(get_package_share_directory(package)) / 'msg' / f'{kind}.json'
    if about.exists():  # since Iron
        hashes = json.loads(about.read_text())['type_hashes']
        assert digest == {h['type_name']: h['hash_string'] for h in hashes}[name]


def test_an_unknown_type_is_one_error():
    with pytest.raises(SpecError, match='no_msgs'):
        message_definition('no_msgs/msg/Thing')


def test_a_bag_keeps_the_order_of_writing_though_the_clock_jumps_back(tmp_path):
    bag = BagWriter(tmp_path / 'bag')
    bag.add_topic('/t', TEXT, latched=True)
    for stamp_ns, words in ((100, 'a'), (50, 'b'), (101, 'c')):
        bag.write('/t', stamp_ns, text(words))
    bag.close()
    assert texts_in(tmp_path / 'bag') == texts_in(tmp_path / 'bag' / 'bag.mcap') == list('abc')
    about = yaml.safe_load((tmp_path / 'bag' / 'metadata.yaml').read_text())
    topic = about['rosbag2_bagfile_information']['topics_with_message_count'][0]
    assert topic['message_count'] == 3 and topic['topic_metadata']['type'] == TEXT
    offered = yaml.safe_load(topic['topic_metadata']['offered_qos_profiles'])[0]
    assert (offered['reliability'], offered['durability']) == (1, 1)  # reliable, transient local


@pytest.mark.parametrize('make', [Path.mkdir, Path.touch])
def test_what_is_there_already_is_never_touched(tmp_path, make):
    make(tmp_path / 'bag')
    with pytest.raises(SpecError, match='exists already'):
        BagWriter(tmp_path / 'bag')
    assert [path.name for path in tmp_path.iterdir()] == ['bag']


@pytest.mark.parametrize('make', [Path.mkdir, Path.touch])
def test_a_file_that_came_during_the_recording_is_not_replaced(tmp_path, make):
    target = tmp_path / 'run.mcap'
    bag = write_texts(target, 'ab')
    make(target)
    with pytest.raises(SpecError, match='by another program') as error:
        bag.close()
    assert target.is_dir() or target.read_bytes() == b''
    kept = tmp_path / 'run.mcap.part' / 'run.mcap.part.mcap'
    assert str(kept) in str(error.value) and texts_in(kept) == ['a', 'b']


@pytest.mark.parametrize('name', ['n' * 300, 'n' * 253, 'n' * 250 + '.mcap'])
def test_a_name_that_is_too_long_is_one_error(tmp_path, name):
    with pytest.raises(SpecError, match='cannot be written .File name too long'):
        BagWriter(tmp_path / name)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SpecError, match='There is no recording'):
        texts_in(tmp_path / ('n' * 300))


@pytest.mark.parametrize('folder', ['/proc/nowhere/bag', '/dev/null/bag'])
def test_a_place_that_cannot_be_written_is_one_error(folder):
    with pytest.raises(SpecError, match='cannot be written'):
        BagWriter(Path(folder))


def test_a_recording_of_nothing_leaves_nothing(tmp_path):
    write_texts(tmp_path / 'bag', []).close()
    assert list(tmp_path.iterdir()) == []


@contextmanager
def small_disk(num_bytes):
    """Let files grow to a limit only: what a full disk looks like from inside."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:  # before the test ends: its report may go to a file as well
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('limit', [2_500_000, 2_203_800, 1_101_000])
def test_a_full_disk_ends_the_recording_and_what_was_written_stays(tmp_path, limit):
    words = [f'{i:05d}' * 2000 for i in range(400)]
    bag = BagWriter(tmp_path / 'bag')
    bag.add_topic('/t', TEXT)
    with small_disk(limit), pytest.raises(SpecError, match='messages are kept') as error:
        for one in words:
            bag.write('/t', 0, text(one))
        bag.close()
    bag.close()  # a second end changes nothing
    kept = texts_in(tmp_path / 'bag')
    assert 100 <= len(kept) < 400 and kept == words[:len(kept)]
    assert f'first {len(kept)} of' in str(error.value)
    assert texts_in(tmp_path / 'bag' / 'bag.mcap') == kept
    about = yaml.safe_load((tmp_path / 'bag' / 'metadata.yaml').read_text())
    assert about['rosbag2_bagfile_information']['message_count'] == len(kept)


def test_a_disk_that_is_full_at_once_is_told(tmp_path):
    bag = write_texts(tmp_path / 'bag', ['a'])
    with small_disk(10), pytest.raises(SpecError, match='could not be finished'):
        bag.close()


def test_a_file_that_breaks_off_anywhere_can_be_ended(tmp_path):
    words = [f'{i:05d}' * 2000 for i in range(250)]
    write_texts(tmp_path / 'bag', words).close()
    whole = (tmp_path / 'bag' / 'bag.mcap').read_bytes()
    cut, counts = tmp_path / 'cut.mcap', []
    for size in range(60, len(whole), len(whole) // 17):
        cut.write_bytes(whole[:size])
        end_file(cut)
        kept = texts_in(cut)
        assert kept == words[:len(kept)]
        counts.append(len(kept))
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] > 200


def test_what_was_flushed_is_there_though_nobody_ends_the_file(tmp_path):
    bag = write_texts(tmp_path / 'bag', 'ab')
    path, sizes = tmp_path / 'bag' / 'bag.mcap', []
    for words in ('c', 'd'):
        bag.write('/t', 0, text(words))
        for _ in range(2):
            bag.flush()
            sizes.append(path.stat().st_size)
    assert sizes[0] == sizes[1] < sizes[2] == sizes[3]  # nothing new costs nothing
    shutil.copy(path, tmp_path / 'cut.mcap')
    end_file(tmp_path / 'cut.mcap')
    assert texts_in(tmp_path / 'cut.mcap') == list('abcd')
    bag.close()
    bag.flush()
    assert texts_in(tmp_path / 'bag') == list('abcd')


def _cut(data):
    return data[:len(data) // 2]


def _scramble(data):
    return data[:70] + bytes(b ^ 0x5a for b in data[70:4000]) + data[4000:]


def _no_summary_offset(data):
    return data[:-28] + b'\xff' * 16 + data[-12:]


@pytest.mark.parametrize('damage, words', [
    (_cut, 'did not get to end it'), (_scramble, 'damaged'), (_no_summary_offset, 'damaged'),
    (lambda data: b'', 'damaged'), (lambda data: b'RIFF' * 100, 'damaged'),
    (lambda data: data[:8], 'damaged')])
def test_damaged_and_foreign_files_are_one_clear_error(tmp_path, damage, words):
    write_texts(tmp_path / 'bag', ['a' * 1000] * 9).close()
    path = tmp_path / 'bag' / 'bag.mcap'
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SpecError, match=f'cannot be read: .*{words}'):
        texts_in(path)


def test_a_bag_of_something_else_is_one_clear_error(tmp_path):
    write_texts(tmp_path / 'bag', ['a']).close()
    with pytest.raises(SpecError, match='holds no WorldStatus'):
        read_recording(tmp_path / 'bag')
    with pytest.raises(SpecError, match='There is no recording'):
        read_recording(tmp_path / 'nothing')
    with pytest.raises(SpecError, match='is not a recording'):
        read_recording(tmp_path)


# A running world


def parameters(**values):
    values = {'scene': 'a', 'speed': 3.0, 'cmd_vel_type': 'twist', **values}
    return [Parameter(name.replace('__', '.'), value=value) for name, value in values.items()]


@pytest.fixture
def make_graph(open_graph, tmp_path):
    """Start a fake world, and if asked a recorder beside it."""
    def start(*, recorder=None, ros_args=(), **values):
        def make_nodes():
            nodes = [*make_pair(world=FakeWorld, parameter_overrides=parameters(**values))]
            if recorder is not None:
                graph_bag.append(BagWriter(tmp_path / 'bag'))
                nodes.append(RecorderNode(graph_bag[0], **recorder))
            return nodes
        graph_bag = []
        graph = open_graph(make_nodes, ros_args)
        graph.world, graph.bag = graph.nodes[0], graph_bag[0] if graph_bag else None
        if recorder is not None:
            graph.recorder = graph.nodes[2]
            graph.wait_for(graph.recorder.found.is_set, 'the world')
        return graph

    return start


def finish(graph):
    """End the recorder's bag while nothing is written to it any more."""
    graph.recorder.ended.set()
    graph.bag.close()


def record(domain, *args, command=COMMAND):
    env = {**os.environ, 'ROS_DOMAIN_ID': str(domain), 'PYTHONUNBUFFERED': '1'}
    return subprocess.Popen([*command, 'record', *args], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def steps(graph, num):
    """Let the world go on for a while."""
    reached = graph.world.session.status.step + num
    graph.wait_for(lambda: graph.world.session.status.step >= reached, f'step {reached}')


def fake(name):
    return FakeWorld()


@pytest.fixture(scope='module')
def eventful(domain, tmp_path_factory):
    """Record from another process: a reset, commands, a teleport, a pause, another reset."""
    path = tmp_path_factory.mktemp('recorded') / 'bag'
    with Graph(lambda: [*make_pair(world=FakeWorld, parameter_overrides=parameters())],
               domain) as graph:
        graph.world = graph.nodes[0]
        cmd_vel = graph.publisher(Twist, 'cmd_vel')
        steps(graph, 5)  # of which the recording must know nothing
        process = record(domain, '-o', path, '--reset')
        try:
            while not (line := process.stdout.readline()).startswith('Recording'):
                assert line, process.communicate()  # it has ended
            for speed in (0.3, -0.2, 0.5):
                cmd_vel.publish(twist_to_msg(speed, speed * 2))
                steps(graph, 4)
            graph.world.session.move('robot', pose=(0.5, 0.5, 1.0)).result(PATIENCE_S)
            steps(graph, 3)
            assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=True)).success
            assert graph.call(Trigger, '/world_model/step').success
            assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=False)).success
            steps(graph, 3)
            assert graph.call(Trigger, '/world_model/reset').success
            steps(graph, 20)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 0 and err == '' and 'missed' not in out
    return path


def test_a_recorded_session_repeats_byte_by_byte(eventful, capsys):
    story = read_recording(eventful)
    assert len(story) == 2 and story[0].first_digest and len(story[0].steps) >= 18
    assert sum(bool(step.anchors) for step in story[0].steps) == 1
    assert len({step.actions.tobytes() for step in story[0].steps}) >= 3
    assert verify_segments(story, make_engine=fake) == 0
    assert capsys.readouterr().out.count(': same') == 2


def test_a_name_that_ends_in_mcap_becomes_that_file(tmp_path):
    target = tmp_path / 'my run 🙂.mcap'
    bag = write_texts(target, 'ab')
    assert not target.exists() and (tmp_path / f'{target.name}.part').is_dir()
    with pytest.raises(SpecError, match='exists already'):
        BagWriter(target)
    bag.close()
    assert texts_in(target) == ['a', 'b'] and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize('storage', ['MCAP', 'SQLITE3'])
def test_a_recording_in_sim_time_tells_the_same(eventful, tmp_path, storage):
    """As ``ros2 bag record --use-sim-time`` makes it: the time goes back with each reset."""
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer
    now_ns = 0
    with Reader(eventful) as reader, Writer(
            tmp_path / 'bag', version=8, storage_plugin=StoragePlugin[storage]) as writer:
        topics = {}
        for old, _, cdr in reader.messages():
            if old.topic not in topics:
                topics[old.topic] = writer.add_connection(
                    old.topic, old.msgtype, msgdef=old.msgdef.data, rihs01=old.digest)
            if old.topic == '/clock':
                clock = deserialize_message(cdr, Clock).clock
                now_ns = clock.sec * 1_000_000_000 + clock.nanosec
            writer.write(topics[old.topic], now_ns, cdr)
    story, again = read_recording(eventful), read_recording(tmp_path / 'bag')
    assert [(s.world, s.seed, s.first_digest, s.problem) for s in again] == [
        (s.world, s.seed, s.first_digest, s.problem) for s in story]
    assert [[(p.index, p.digest, p.anchors) for p in s.steps] for s in again] == [
        [(p.index, p.digest, p.anchors) for p in s.steps] for s in story]


def test_one_changed_byte_is_found_at_its_step(eventful, tmp_path, capsys):
    content = bytearray((eventful / 'bag.mcap').read_bytes())
    step = next(s for s in read_recording(eventful)[0].steps if s.actions.any())
    at = content.rfind(step.actions.tobytes(), 0, content.find(step.digest.encode()))
    content[at + 2] ^= 1
    (tmp_path / 'changed.mcap').write_bytes(content)
    assert verify_segments(read_recording(tmp_path / 'changed.mcap'), make_engine=fake) == 1
    assert f'step {step.index} differs' in capsys.readouterr().out


def test_a_recording_can_be_watched_under_the_names_of_a_profile(eventful, domain):
    topic = load_profile('isaac_sim')['topics.image']
    code = ('import sys; from types import SimpleNamespace; from fake_world import FakeWorld; '
            'from lingbot_world_ros.recording.recorded import read_recording; '
            'from lingbot_world_ros.cli.replay import watch; '
            'args = SimpleNamespace(speed=3.0, namespace="", world_path="", ros_args=[], '
            'param=[], profile="isaac_sim"); '
            'sys.exit(watch(read_recording(sys.argv[1]), args, lambda name: FakeWorld()))')
    env = {**os.environ, 'ROS_DOMAIN_ID': str(domain), 'PYTHONPATH': os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')])}
    with Graph(lambda: [], domain) as graph:
        images, statuses = graph.listen(Image, topic), graph.listen(WorldStatus, 'world_status')
        process = subprocess.Popen([sys.executable, '-c', code, eventful], env=env, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            graph.wait_for(lambda: process.poll() is not None, 'the end')
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, '')
    assert out.count('steps, the same as recorded.') == 2
    digests = {step.digest for segment in read_recording(eventful) for step in segment.steps}
    assert len(images) >= 20 and len({m.digest for m in statuses} & digests) >= 20


def test_what_a_replay_sets_itself_is_no_parameter(eventful):
    args = SimpleNamespace(speed=3.0, world_path='', param=['speed:=2.0'])
    with pytest.raises(SpecError, match='sets speed itself; use --speed'):
        watch(read_recording(eventful), args, fake)


def test_everything_a_world_says_and_hears_is_recorded(make_graph, tmp_path):
    graph = make_graph(recorder={})
    cmd_vel = graph.publisher(Twist, 'cmd_vel')
    graph.wait_for(lambda: cmd_vel.get_subscription_count() == 2, 'the recorder')
    cmd_vel.publish(twist_to_msg(0.25, 0.0))
    steps(graph, 10)
    finish(graph)
    with BagReader(tmp_path / 'bag') as bag:
        counts = {c.topic: c.msgcount for c in bag.reader.connections}
        commands = [msg.linear.x for _, msg in bag.messages('/cmd_vel')]
    for topic in ('world_spec', 'world_status', 'action_embedding', 'joint_states', 'odom', 'tf',
                  'tf_static', 'clock', 'camera/camera_info', 'camera/image_raw', 'scan',
                  'camera/depth/image_rect_raw'):
        assert counts[f'/{topic}'] > 0, topic
    assert {'/joint_command', '/prompt', '/arm_controller/commands'} <= set(counts)
    assert commands == [0.25]
    assert '/camera/image_raw/compressed' not in counts and '/rosout' not in counts
    assert not any('/_action/' in topic for topic in counts)


@pytest.mark.parametrize('images, there', [
    ('compressed', {'/camera/image_raw/compressed'}), ('none', set())])
def test_images_may_be_left_out(make_graph, tmp_path, images, there):
    graph = make_graph(recorder={'images': images})
    steps(graph, 4)
    finish(graph)
    with BagReader(tmp_path / 'bag') as bag:
        assert {t for kind in ('Image', 'CompressedImage')
                for t in bag.topics(f'sensor_msgs/msg/{kind}')} == there
    assert {v.outcome for v in verify(read_recording(tmp_path / 'bag'), fake)} <= {
        SAME, UNVERIFIABLE}


def test_chosen_topics_come_with_what_replaying_needs(make_graph, tmp_path):
    graph = make_graph(recorder={'topics': ['odom', '/camera/image_raw'], 'images': 'none'},
                       image_reliability='best_effort')
    steps(graph, 6)
    finish(graph)
    with BagReader(tmp_path / 'bag') as bag:
        counts = {c.topic: c.msgcount for c in bag.reader.connections}
    assert set(counts) == {'/world_spec', '/world_status', '/odom', '/camera/image_raw'}
    assert all(counts.values())


def test_a_best_effort_publisher_that_comes_later_is_heard(make_graph, tmp_path):
    graph = make_graph(recorder={'topics': ['joint_command', 'prompt'], 'images': 'none'})
    publisher = graph.probe.create_publisher(
        String, '/prompt', QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))
    graph.wait_for(lambda: publisher.get_subscription_count() >= 1, 'the recorder')

    def heard():
        publisher.publish(String(data='a castle'))
        return graph.recorder._followed['/prompt'][1] is False
    graph.wait_for(heard, 'another subscription')
    seen = graph.bag.num_messages
    graph.wait_for(lambda: heard() and graph.bag.num_messages > seen + 3, 'messages')
    finish(graph)
    with BagReader(tmp_path / 'bag') as bag:
        assert {msg.data for _, msg in bag.messages('/prompt')} == {'a castle'}


def test_a_missed_step_is_counted(make_graph):
    graph = make_graph(recorder={})
    graph.wait_for(lambda: graph.recorder.first_step is not None, 'a status')
    assert graph.recorder.num_missed == 0
    graph.recorder.ended.set()  # nothing is taken down for a while
    steps(graph, 4)
    graph.recorder.ended.clear()
    graph.wait_for(lambda: graph.recorder.num_missed >= 3, 'the missed steps')


def test_a_world_whose_node_is_not_known_yet_is_waited_for(make_graph, tmp_path, monkeypatch):
    """On a busy machine discovery tells of topics some time before it tells whose they are."""
    make_graph()
    bag, known = BagWriter(tmp_path / 'bag'), RecorderNode.get_publishers_info_by_topic

    def unknown(self, topic):
        found = known(self, topic)
        for info in found:
            info.node_name, info.node_namespace = UNKNOWN, '_NODE_NAMESPACE_UNKNOWN_'
        return found

    monkeypatch.setattr(RecorderNode, 'get_publishers_info_by_topic', unknown)
    recorder = RecorderNode(bag, hold=True)
    wait_for(lambda: recorder.get_publishers_info_by_topic('/world_status'), 'the world')
    recorder.on_look()
    assert not recorder.found.is_set() and not recorder.num_topics
    monkeypatch.undo()
    with Spinner() as spinner:
        spinner.add(recorder)
        assert recorder.found.wait(PATIENCE_S)
        recorder.start_over()
    bag.close()


def test_what_has_come_when_it_ends_is_written(make_graph, tmp_path):
    graph, bag = make_graph(), BagWriter(tmp_path / 'bag')
    recorder, executor = RecorderNode(bag), SingleThreadedExecutor()
    executor.add_node(recorder)
    while recorder.status is None:
        executor.spin_once(1.0)
    before = recorder.status.step
    steps(graph, 8)
    status, = (p for p in graph.world.publishers if p.topic_name == '/world_status')
    assert status.wait_for_all_acked(Duration(seconds=PATIENCE_S))
    executor.shutdown()
    recorder.destroy_node()
    bag.close()
    story = read_recording(tmp_path / 'bag')
    assert story[0].last_step >= before + 8 and recorder.num_missed == 0
    with BagReader(tmp_path / 'bag') as reader:
        stamps = [msg.clock.sec * 1_000_000_000 + msg.clock.nanosec
                  for _, msg in reader.messages('/clock')]
    assert stamps == sorted(stamps)


@pytest.mark.slow
def test_a_namespace_finds_its_world(make_graph, domain, tmp_path):
    make_graph(ros_args=('-r', '__ns:=/w1'))
    process = record(domain, '-o', tmp_path / 'bag', '--namespace', 'w1', '--duration', '1',
                     '--images', 'none', '--reset')
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, '') and 'replay' in out
    story = read_recording(tmp_path / 'bag')
    assert [v.outcome for v in verify(story, fake)] == [SAME]
    assert read_recording(tmp_path / 'bag', 'w1')[0].steps
    with pytest.raises(SpecError, match='namespace w2'):
        read_recording(tmp_path / 'bag', 'w2')


def test_a_world_whose_status_was_renamed_is_found_and_can_be_repeated(
        make_graph, domain, tmp_path):
    make_graph(ros_args=('-r', 'world_status:=health/imagined'))
    process = record(domain, '-o', tmp_path / 'bag', '--duration', '1', '--images', 'none',
                     '--reset')
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, '') and 'missed' not in out
    assert [v.outcome for v in verify(read_recording(tmp_path / 'bag'), fake)] == [SAME]


def test_nobody_is_sent_to_verify_what_has_no_beginning(make_graph, domain, tmp_path):
    graph = make_graph()
    steps(graph, 1)
    process = record(domain, '-o', tmp_path / 'bag', '--duration', '1', '--images', 'none')
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, '') and 'from the next reset on' in out
    assert 'lingbot-world report' in out and '--verify' not in out


def test_a_recorder_that_is_killed_has_written_what_it_heard_before(make_graph, domain, tmp_path):
    """Far less than rosbags collects before it writes, and nothing comes after it."""
    graph, path, cut = make_graph(), tmp_path / 'bag' / 'bag.mcap', tmp_path / 'cut.mcap'
    process = record(domain, '-o', tmp_path / 'bag', '--images', 'none', '--reset')

    def has(step):
        if not path.exists() or path.stat().st_size < 1000:
            return False
        shutil.copy(path, cut)
        end_file(cut)
        try:
            return read_recording(cut)[0].last_step >= step
        except SpecError:  # of no world yet
            return False
    try:
        while not (line := process.stdout.readline()).startswith('Recording'):
            assert line, process.communicate()  # it has ended
        steps(graph, 5)
        assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=True)).success
        last = graph.world.session.status.step
        graph.wait_for(lambda: has(last), f'step {last} on the disk')
    finally:
        process.kill()
    process.communicate()
    assert path.stat().st_size < 1_000_000 and has(last)
    assert [v.outcome for v in verify(read_recording(cut), fake)] == [SAME]


def test_a_recorder_whose_terminal_is_closed_ends_its_bag(
        make_graph, domain, tmp_path, hears_hangups):
    graph = make_graph()
    process = record(domain, '-o', tmp_path / 'bag', '--images', 'none', '--reset')
    try:
        while not (line := process.stdout.readline()).startswith('Recording'):
            assert line, process.communicate()  # it has ended
        steps(graph, 5)
        for stream in (process.stdout, process.stderr):
            stream.close()
        process.send_signal(signal.SIGHUP)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
    [verdict] = verify(read_recording(tmp_path / 'bag'), fake)
    assert verdict.outcome == SAME and verdict.num_frames > 5


@pytest.mark.slow
def test_a_world_in_another_namespace_is_named(make_graph, domain, tmp_path):
    make_graph(ros_args=('-r', '__ns:=/w1'))
    process = record(domain, '-o', tmp_path / 'bag')
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and 'There is one in namespace /w1 (--namespace).' in err


@pytest.mark.slow
def test_no_world_is_one_error_and_leaves_nothing(domain, tmp_path):
    process = record(domain, '-o', tmp_path / 'bag')
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and 'No world in ROS domain' in err
    assert err.count('\n') == 1 and list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_wait_for_a_world(domain, tmp_path):
    with Graph(list, domain) as graph:
        process = record(domain, '-o', tmp_path / 'bag')
        try:
            graph.wait_for(lambda: 'recorder' in graph.probe.get_node_names(), 'the recorder')
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, err) == (130, '') and list(tmp_path.iterdir()) == []
    assert out in ('', f'Waiting for a world in ROS domain {domain} ...\n')  # a busy machine


@pytest.mark.slow
def test_a_full_disk_ends_the_recorder_only(make_graph, domain, tmp_path):
    graph = make_graph(speed=20.0)
    # The middleware has files of its own that must not be limited.
    code = ('import resource, sys; from lingbot_world_ros.nodes.recorder import RecorderNode; '
            'from lingbot_world_ros.cli.main import main; start = RecorderNode.start_over; '
            'RecorderNode.start_over = lambda node: (resource.setrlimit(resource.RLIMIT_FSIZE, '
            '(4_000_000, 4_000_000)), start(node)); sys.exit(main(sys.argv[1:]))')
    process = record(domain, '-o', tmp_path / 'bag', '--reset',
                     command=[sys.executable, '-c', code])
    try:
        graph.wait_for(lambda: process.poll() is not None, 'the end of the recorder')
    finally:
        process.kill()
    err = process.stderr.read()
    assert process.returncode == 2 and 'messages are kept' in err and err.count('\n') == 1
    steps(graph, 3)
    story = read_recording(tmp_path / 'bag')
    assert [v.outcome for v in verify(story, fake)] == [SAME] and story[0].steps
