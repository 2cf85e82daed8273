# SPDX-License-Identifier: Apache-2.0
"""The command line as a user meets it: separate processes, exit codes, signals, a terminal."""
import os
from pathlib import Path
import pty
import shutil
import signal
import subprocess
import sys
import termios
from xml.etree import ElementTree

from needs import need_engine
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from fake_world import FakeWorld  # noqa: E402, I100
from geometry_msgs.msg import Twist  # noqa: E402
from lingbot_world_ros.cli.main import _apart, main, verb_names  # noqa: E402
from lingbot_world_ros.cli.teleop import _asked, _drive, _RawTerminal  # noqa: E402
from lingbot_world_ros.messages.commands import twist_to_msg  # noqa: E402
from lingbot_world_ros.nodes.pair import make_pair  # noqa: E402
from lingbot_world_ros.nodes.world_model import WorldModelNode  # noqa: E402
from lingbot_world_ros.output import told  # noqa: E402
from lingbot_world_ros.paths import share_path  # noqa: E402
from lingbot_world_ros.processes import ending_signals, run_together  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
import numpy as np  # noqa: E402
from ros_graph import Graph  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402

COMMAND = [sys.executable, '-m', 'lingbot_world_ros.cli']
SCRIPTS = Path(__file__).parent.parent / 'scripts'
REFERENCE = ['--engine', 'reference']


def start(domain, *args, **kwargs):
    env = {**os.environ, 'ROS_DOMAIN_ID': str(domain), 'PYTHONUNBUFFERED': '1'}
    return subprocess.Popen([*COMMAND, *args], env=env, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **kwargs)


def read_until(process, words):
    """Read standard output up to a line that holds the words."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return ''.join(lines)
    raise AssertionError(f'{words!r} not in {lines}, stderr {process.stderr.read()}')


def test_verbs_are_listed(capsys):
    assert {'sim', 'teleop', 'doctor', 'record', 'replay'} <= set(verb_names())
    with pytest.raises(SystemExit) as end:
        main(['--help'])
    assert end.value.code == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in verb_names())


@pytest.mark.parametrize('args, words', [
    (['--profile', 'nope'], "profile 'nope'"),
    (['--param', 'sped:=1'], "Did you mean 'speed'"),
    (['--param', 'speed'], 'NAME:=VALUE'),
    (['--seed', '-4'], 'seed=-4'),
    (['--mode', 'fast'], "mode='fast'"),
    ([*REFERENCE, '--world', 'ofice'], "Did you mean 'office'"),
    (['--world', 'nope.yaml'], 'there is no such file'),
    (['--worlds', '0'], '0 worlds'),
    (['--worlds', '2', '--namespace', 'a b'], "--namespace 'a b'"),
    (['--engine', 'rom'], "Did you mean 'room'"),
    ([*REFERENCE, '--scene', 'kitchn'], "Unknown scene 'kitchn'"),
    ([*REFERENCE, '--param', 'jpeg_quality:=high'], 'jpeg_quality'),
    ([*REFERENCE, '--checkpoint', 'x'], "for engine 'lingbot_world', not for 'reference'"),
    ([*REFERENCE, '--prompt', 'rain'], "engine 'reference' takes no text"),
    ([*REFERENCE, '--start-image', 'x.png'], "engine 'reference' starts from its scenes"),
    ([*REFERENCE, '--camera-path', 'keys:w-8'], "camera of engine 'reference'"),
    (['--camera-path', '/no/where'], '/no/where'),
    (['--vieww'], 'lingbot-world sim --help'),
])
def test_mistakes_are_one_line_and_exit_code_2(domain, args, words):
    if args[:2] == REFERENCE:
        need_engine('reference')
    process = start(domain, 'sim', *args)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and out == ''
    (line,) = [line for line in err.splitlines() if not line.startswith('[INFO]')]
    assert words in line and line.startswith('error: ')


def test_a_truth_without_its_packages_is_refused_before_anything_starts(monkeypatch, capsys):
    monkeypatch.setattr('lingbot_world_ros.engines.registry.find_spec', lambda name: None)
    assert main(['sim', '--truth']) == 2
    said = capsys.readouterr()
    assert 'make sim EXTRAS=reference ARGS=--truth' in said.err and said.err.count('\n') == 1
    assert said.out == ''


def test_long_lists_take_two_rows_of_a_small_terminal():
    names = [f'/robot_{i}/camera/image_raw' for i in range(19)]
    first, second = told('Publishes', names).splitlines()
    assert first.startswith('Publishes  /robot_0/') and second.endswith(' and 15 more')
    assert max(map(len, (first, second))) < 80
    assert told('Listens', names[:2]) == f'Listens    {names[0]} {names[1]}'


@pytest.mark.parametrize('number', ['999', *(
    pytest.param(number, marks=pytest.mark.slow)
    for number in ('seven', '-1', '\u00b2', '9' * 5000))])
def test_bad_domain_is_one_line_and_exit_code_2(number):
    process = start(number, 'sim', *REFERENCE)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert 'ROS_DOMAIN_ID' in err and '0 to 232' in err and err.count('\n') == 1


@pytest.mark.parametrize('number', [
    signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow)
                     for number in (signal.SIGTERM, signal.SIGHUP))])
def test_sim_tells_what_it_does_refuses_a_second_one_and_ends_on_signals(
        domain, hears_hangups, number):
    need_engine('reference')
    process = start(domain, 'sim', *REFERENCE, '--scene', 'office',
                    '--param', 'cmd_vel_type:=twist')
    try:
        said = read_until(process, 'Ctrl-C ends')
        rows = sum(-(-len(line) // 80) for line in said.splitlines())
        assert rows <= 20  # of a small terminal's 24; the page's address and a status follow
        for words in ('First image after', 'scene office', '/camera/image_raw', '/cmd_vel',
                      ' teleop', '/cmd_vel takes Twist'):
            assert words in said
        assert ('ros2 topic pub' in said) == bool(shutil.which('ros2'))
        said = read_until(process, 'Hz')
        assert 'real time x' in said and 'uncertainty' not in said  # it estimates none
        if number == signal.SIGINT:
            second = start(domain, 'sim', *REFERENCE)
            try:
                _, err = second.communicate(timeout=PATIENCE_S)
            finally:
                second.kill()  # else it would disturb the tests after this one
            assert second.returncode == 2 and 'in use' in err and 'ROS_DOMAIN_ID' in err
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert 'Traceback' not in err
    finally:
        process.kill()


def test_sim_ends_by_itself_after_its_duration(domain):
    need_engine('reference')
    process = start(domain, 'sim', *REFERENCE, '--duration', '1.5', '--param', 'seed:=3')
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and 'seed 3' in out and 'Traceback' not in err


@pytest.mark.slow
def test_sim_takes_the_path_of_a_world_file(domain, tmp_path):
    need_engine('room')
    (tmp_path / 'mine.yaml').write_text('scene: office\nseed: 11\n')
    process = start(domain, 'sim', '--world', str(tmp_path / 'mine.yaml'), '--duration', '0.5')
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and 'scene office, seed 11' in out, err


def test_sim_waits_for_lifecycle_calls_where_it_shall_not_start_itself(domain):
    process = start(domain, 'sim', '--param', 'autostart:=false', '--duration', '1',
                    '--ros-args', '-r', '__node:=robot')
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and 'Traceback' not in err
    assert 'ros2 lifecycle set /robot configure' in out and 'not configured' in out
    assert 'already registered' not in err, 'the encoder keeps its own name'


@pytest.mark.slow
def test_several_worlds_run_side_by_side_and_end_together(domain):
    need_engine('reference')
    process = start(domain, 'sim', '--worlds', '2', *REFERENCE, '--namespace', 'w', '--seed', '3')
    try:
        with Graph(lambda: [], domain) as graph:
            odoms = [graph.listen(Odometry, f'/w_{i}/odom') for i in range(2)]
            clocks = [graph.listen(Clock, f'/w_{i}/clock') for i in range(2)]
            graph.wait_for(lambda: all(odoms) and all(clocks), 'both worlds')
        assert [m[0].header.frame_id for m in odoms] == ['w_0/odom', 'w_1/odom']
        out = ''
        while not all(f'[w_{i}] Ctrl-C ends.' in out for i in range(2)):
            line = process.stdout.readline()
            assert line, out
            out += line
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 0 and 'Traceback' not in err
    assert '[w_0] World' in out and 'seed 3' in out and '[w_1] World' in out and 'seed 4' in out


@pytest.mark.parametrize('option, text', [
    ('--duration', 'nan'), ('--duration', '1_0'), ('--duration', '12:30'), ('--worlds', '02'),
    ('--worlds', '1.0'), ('--worlds', '\u0663')])
def test_options_take_the_numbers_that_parameters_take(capsys, option, text):
    with pytest.raises(SystemExit) as ended:
        main(['sim', option, text])
    assert ended.value.code == 2 and f'{option}: invalid ' in capsys.readouterr().err


def test_the_version_is_that_of_package_xml(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['--version'])
    assert not ended.value.code
    version = ElementTree.parse(share_path('package.xml')).getroot().findtext('version')
    assert capsys.readouterr().out == f'lingbot-world {version}\n'


def test_a_closed_terminal_does_not_end_what_nohup_started(hears_hangups):
    assert signal.SIGHUP in ending_signals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert ending_signals() == (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize('ending, code', [('sys.exit(3)', 3), ('os.kill(os.getpid(), 9)', 137),
                                          ('pass', 0)])
def test_the_first_process_that_ends_ends_all(capfd, ending, code):
    wait = [sys.executable, '-c', 'import time; print("here", flush=True); time.sleep(60)']
    end = [sys.executable, '-c', f'import os, sys; sys.stderr.write("bye"); sys.stderr.flush(); '
           f'{ending}']
    assert run_together({'one': wait, 'two': end}) == code
    assert capfd.readouterr().err == '[two] bye\n'


def test_what_cannot_be_replayed_is_one_line_and_exit_code_2(tmp_path):
    pytest.importorskip('rosbags')
    for path in (tmp_path / 'nothing', tmp_path, Path(__file__)):
        done = subprocess.run([*COMMAND, 'replay', '--verify', path], text=True,
                              capture_output=True, timeout=PATIENCE_S)
        assert done.returncode == 2 and done.stdout == ''
        assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
        assert 'lingbot-world record' in done.stderr or 'metadata.yaml' in done.stderr


@pytest.mark.slow
def test_sim_goes_on_when_nobody_reads_its_output_any_more(domain):
    """As in ``lingbot-world sim | head -1``."""
    need_engine('reference')
    process = start(domain, 'sim', *REFERENCE)
    try:
        process.stdout.readline()
        process.stdout.close()
        with Graph(lambda: [], domain) as graph:
            odometry = graph.listen(Odometry, 'odom')
            graph.wait_for(lambda: len(odometry) > 30, 'two seconds of the world')
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0 and process.stderr.read() == ''
    finally:
        process.kill()


def test_the_nodes_run_as_two_processes_and_end_on_signals(domain):
    need_engine('reference')
    env = {**os.environ, 'ROS_DOMAIN_ID': str(domain)}
    reference = ['--ros-args', '-p', 'engine:=reference', '-p', 'scene:=office']
    twist = ['--ros-args', '-p', 'cmd_vel_type:=twist']
    processes = [subprocess.Popen([sys.executable, SCRIPTS / name, *args], env=env)
                 for name, args in (('world_model', reference), ('action_encoder', twist))]
    try:
        with Graph(lambda: [], domain) as graph:
            odom = graph.listen(Odometry, 'odom')
            cmd_vel = graph.publisher(Twist, 'cmd_vel')

            def moves():
                cmd_vel.publish(twist_to_msg(0.0, 1.0))
                return odom and odom[-1].twist.twist.angular.z > 0.9
            graph.wait_for(moves, 'motion')
        for process in processes:
            process.send_signal(signal.SIGINT)
        assert [process.wait(PATIENCE_S) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_world_model_alone_refuses_a_second_clock_unless_it_has_none(domain):
    need_engine('reference')
    env = {**os.environ, 'ROS_DOMAIN_ID': str(domain)}
    command = [sys.executable, SCRIPTS / 'world_model', '--ros-args', '-p', 'engine:=reference',
               '-r', '__ns:=/second']
    with Graph(lambda: [WorldModelNode(world=FakeWorld)], domain, ('-p', 'scene:=a')) as graph:
        refused = subprocess.run(command, env=env, text=True, capture_output=True,
                                 timeout=PATIENCE_S)
        assert refused.returncode == 2
        assert 'in use' in refused.stderr and 'topics.clock' in refused.stderr
        process = subprocess.Popen([*command, '-p', 'publish_clock:=false'], env=env)
        try:
            frames = graph.listen(Odometry, '/second/odom')
            graph.wait_for(lambda: len(frames) > 2, 'the second world')
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def test_executable_tells_a_mistake_in_one_line(domain):
    need_engine('room')
    env = {**os.environ, 'ROS_DOMAIN_ID': str(domain)}
    done = subprocess.run(
        [sys.executable, SCRIPTS / 'world_model', '--ros-args', '-p', 'scene:=moon'], env=env,
        text=True, capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 2 and "Unknown scene 'moon'" in done.stderr
    assert done.stderr.count('\n') == 1


def test_teleop_without_a_terminal_says_so(domain):
    process = start(domain, 'teleop', stdin=subprocess.DEVNULL)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and 'not a terminal' in err


def test_teleop_shows_base_and_all_five_joints_in_80_columns():
    joints = np.full(5, -1.5)
    assert len(_asked(1.0, (-0.4, 0.0, -1.5), joints, strafes=False)) < 80


def test_teleop_keeps_its_line_within_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv('COLUMNS', '20')
    _RawTerminal().show('speed 50%  linear +0.00 m/s')
    assert capsys.readouterr().out == '\rspeed 50%  linear +\x1b[K'


def test_teleop_drives_base_and_arm_and_restores_the_terminal(domain):
    keyboard, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    args = ('-p', 'scene:=a', '-p', 'cmd_vel_type:=twist')
    with Graph(lambda: [*make_pair(world=FakeWorld)], domain, args) as graph:
        twists, joints = graph.listen(Twist, 'cmd_vel'), graph.listen(JointState, 'joint_command')
        process = start(domain, 'teleop', stdin=terminal)
        try:
            read_until(process, 'speed')
            os.write(keyboard, b'w')
            graph.wait_for(lambda: [m for m in twists if m.linear.x > 0], 'forward')
            graph.wait_for(lambda: twists[-1].linear.x == 0.0, 'the stop')
            assert not joints  # no joint key, no joint command
            os.write(keyboard, b'j')
            graph.wait_for(lambda: [m for m in joints if m.velocity[0] < 0], 'the joint')
            os.write(keyboard, b'x')
            graph.wait_for(lambda: process.poll() is not None, 'the end')
            assert process.returncode == 0, process.stderr.read()
            assert termios.tcgetattr(terminal) == before
        finally:
            process.kill()


@pytest.mark.parametrize('number', [
    signal.SIGHUP, *(pytest.param(number, marks=pytest.mark.slow)
                     for number in (signal.SIGINT, signal.SIGTERM))])
def test_teleop_stops_the_robot_when_a_signal_ends_it(domain, hears_hangups, number):
    """A terminal that is closed sends one, whatever key is held."""
    keyboard, terminal = pty.openpty()
    args = ('-p', 'scene:=a', '-p', 'cmd_vel_type:=twist')
    with Graph(lambda: [*make_pair(world=FakeWorld)], domain, args) as graph:
        twists, joints = graph.listen(Twist, 'cmd_vel'), graph.listen(JointState, 'joint_command')
        process = start(domain, 'teleop', stdin=terminal)
        try:
            read_until(process, 'speed')
            os.write(keyboard, b'wj')
            graph.wait_for(lambda: twists and joints, 'base and arm')
            os.write(keyboard, b'wj')  # still held
            process.send_signal(number)
            graph.wait_for(lambda: process.poll() is not None, 'the end')
            assert 'Traceback' not in process.stderr.read()
            graph.wait_for(lambda: twists[-1].linear.x == joints[-1].velocity[0] == 0.0,
                           'the stop')
        finally:
            process.kill()


@pytest.mark.parametrize('name, keys', [('send_twist', b'w'), ('send_joints', b'j')])
def test_teleop_stops_what_it_had_just_begun_when_a_signal_came(monkeypatch, name, keys):
    """A signal right after the first command left the robot moving."""
    sent = {'send_twist': [], 'send_joints': []}

    class Interrupted:
        linear_mps, angular_radps, lateral_mps = 0.5, 1.0, 0.0
        joint_names, joint_speeds = ('a', ), np.ones(1)

        def __getattr__(self, called):
            def take(*values):
                if called in sent:
                    sent[called].append(np.array(values).ravel())
                    if called == name and len(sent[called]) == 1:
                        raise KeyboardInterrupt
            return take

    keyboard, terminal = pty.openpty()
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr('sys.stdin', stdin)
        os.write(keyboard, keys)
        with pytest.raises(KeyboardInterrupt):
            _drive(Interrupted(), float('inf'))
    assert len(sent[name]) == 2 and sent[name][0].any() and not sent[name][1].any()


@pytest.mark.parametrize('name', ['rclpy', 'geometry_msgs', 'lingbot_world_ros.msg'])
def test_without_ros_one_line_says_where_it_comes_from(name):
    code = (f'import sys; sys.modules[{name!r}] = None; '
            'from lingbot_world_ros.cli.main import main; sys.exit(main(["sim"]))')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          timeout=PATIENCE_S)
    assert done.returncode == 2 and done.stdout == ''
    assert f'error: {name}' in done.stderr and 'make sim' in done.stderr
    assert done.stderr.count('\n') == 1


def test_what_follows_the_end_of_the_arguments_of_ros_is_for_the_verb():
    """It was handed to ROS, which says nothing about it."""
    assert _apart(['sim', '--view', '--ros-args', '-r', 'a:=b', '--', '--open', '--ros-args',
                   '-p', 'c:=1']) == (
        ['sim', '--view', '--open'], ['--ros-args', '-r', 'a:=b', '--ros-args', '-p', 'c:=1'])
    assert _apart(['sim', '--', 'x']) == (['sim', '--', 'x'], [])


@pytest.mark.parametrize('given, words', [
    ('n' * 300 + '.yaml', 'there is no such file'), ('~no such user/w.yaml', 'no such file'),
    ('a:b/w.yaml', 'a colon in its name'), ('/nope', 'there is no such folder'),
    ('./a:b', 'is no learned world')])
def test_paths_of_worlds_that_cannot_be_are_one_error(tmp_path, monkeypatch, capsys, given, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a:b').mkdir()
    (tmp_path / 'a:b' / 'w.yaml').write_text('scene: office')
    assert main(['sim', '--world', given]) == 2
    said = capsys.readouterr().err
    assert said.startswith('error: --world') and words in said and said.count('\n') == 1
