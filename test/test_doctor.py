# SPDX-License-Identifier: Apache-2.0
"""doctor: findings with remedies, and exit codes."""
import json
import signal
import subprocess
import sys
import threading

from needs import need_engine
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from lingbot_world_ros.cli import doctor  # noqa: E402, I100
from lingbot_world_ros.cli.main import main  # noqa: E402, I100
from lingbot_world_ros.nodes.ros_environment import profile_variable  # noqa: E402
from ros_domain import Domain  # noqa: E402
from waiting import wait_for  # noqa: E402


@pytest.fixture(autouse=True)
def domain(monkeypatch):
    with Domain() as number:
        monkeypatch.setenv('ROS_DOMAIN_ID', str(number))
        monkeypatch.setenv(profile_variable(), '')
        monkeypatch.delenv(profile_variable())
        yield number


def findings(capsys, *args):
    code = main(['doctor', '--json', *args])
    report = json.loads(capsys.readouterr().out)
    assert report['ok'] is (code == 0)
    return code, {f['name']: f for f in report['findings']}


def test_a_good_installation_is_ready(capsys):
    need_engine('room')
    code, found = findings(capsys)
    assert code == 0, found
    assert found['engine room']['level'] in ('OK', 'WARN') and 'ms a step' in str(found)
    assert {'python', 'rclpy', 'messages', 'domain', 'middleware', 'dds profile', 'topics',
            'graph', 'shared memory', 'runtime', 'weights', 'cores', 'gpu', 'bond'} <= set(found)
    assert all(f['remedy'] for f in found.values() if f['level'] != 'OK')


def test_bad_domain_and_unknown_engine_fail_with_remedies_and_hide_nothing(capsys, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '999')
    code, found = findings(capsys, '--engine', 'rom')
    assert code == 1
    assert found['domain']['level'] == 'FAIL' and '0 to 232' in found['domain']['text']
    assert "Did you mean 'room'" in found['engine rom']['text']
    assert found['python']['level'] == 'OK' and found['gpu']['level'] in ('OK', 'WARN')


def test_missing_dds_profile_fails(monkeypatch):
    monkeypatch.setenv(profile_variable(), '/nowhere.xml')
    finding = doctor.check_dds_profile()
    assert finding.level == 'FAIL' and '/nowhere.xml' in finding.text and 'unset' in finding.remedy


def test_little_shared_memory_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, 'MIN_SHM_BYTES', 2 ** 60)
    finding = doctor.check_shared_memory()
    assert finding.level == 'WARN' and '--shm-size' in finding.remedy


def test_simulation_services_that_are_not_installed_are_a_warning(monkeypatch):
    pytest.importorskip('simulation_interfaces')
    from lingbot_world_ros.nodes import simulation_answers
    assert doctor.check_services().level == 'OK'
    monkeypatch.setattr(simulation_answers, 'installed', lambda kind, name: (
        None if name == 'LoadWorld' else name))
    finding = doctor.check_services()
    assert finding.level == 'WARN' and 'LoadWorld' in finding.text and 'apt' in finding.remedy


def test_text_output_ends_with_a_verdict(capsys):
    need_engine('room')
    assert main(['doctor']) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == 'Ready.'


@pytest.mark.slow
def test_a_world_that_is_slow_to_answer_is_found():
    program = ('import rclpy\nfrom lingbot_world_ros.msg import WorldSpec\nrclpy.init()\n'
               'node = rclpy.create_node("slow")\n'
               'node.create_publisher(WorldSpec, "world_spec", 1)\n'
               'print("up", flush=True)\nrclpy.spin(node)\n')
    world = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE)
    try:
        world.stdout.readline()
        world.send_signal(signal.SIGSTOP)  # as on a machine that has no time for it
        going_on = threading.Timer(4.0, world.send_signal, [signal.SIGCONT])
        going_on.start()
        finding = doctor.check_graph()
        going_on.join()
    finally:
        world.kill()
        world.communicate()
    assert (finding.level, finding.text) == ('OK', 'worlds in this ROS domain: /slow')


def warned(words):
    """Look until a busy graph is known well enough; return the warning."""
    def found():
        finding = doctor.check_graph()
        return finding if words in finding.text else None
    finding = wait_for(found, words)
    assert finding.level == 'WARN'
    return finding


def test_types_that_do_not_meet_and_two_clocks_are_told(domain):
    from geometry_msgs.msg import Twist, TwistStamped
    import rclpy
    from rosgraph_msgs.msg import Clock
    contexts = rclpy.Context(), rclpy.Context()  # one process each, as far as types go
    for context in contexts:
        rclpy.init(context=context, domain_id=domain)
    robot, joystick = (rclpy.create_node(name, context=context)
                       for name, context in zip(('robot', 'joystick'), contexts))
    try:
        for node in (robot, joystick):
            node.create_publisher(Clock, 'clock', 1)
        warned('/joystick, /robot')
        robot.create_subscription(Twist, 'cmd_vel', print, 1)
        joystick.create_publisher(TwistStamped, 'cmd_vel', 1)
        finding = warned('TwistStamped at /joystick')
        assert 'cmd_vel_type' in finding.remedy
    finally:
        for node, context in zip((robot, joystick), contexts):
            node.destroy_node()
            context.shutdown()
