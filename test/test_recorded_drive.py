# SPDX-License-Identifier: Apache-2.0
"""A learned world driven as a recording was, and the recording beside it."""
import os
from pathlib import Path
import signal
import subprocess
import sys
from types import SimpleNamespace

from needs import need_engine
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('scipy')
need_engine('learned')

from geometry_msgs.msg import PoseWithCovarianceStamped, Twist  # noqa: E402, I100
from learned_rooms import drive, record_drive  # noqa: E402
from lingbot_world_ros.cli.main import main  # noqa: E402
from lingbot_world_ros.engines.registry import make_world  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.messages.encodings import rgb_from_msg  # noqa: E402
from lingbot_world_ros.messages.stamps import stamp_to_ns  # noqa: E402
from lingbot_world_ros.msg import WorldStatus  # noqa: E402
from lingbot_world_ros.nodes.recorder import RecorderNode  # noqa: E402
from lingbot_world_ros.recording.aligned import AlignedRecording, AlignedWriter  # noqa: E402
from lingbot_world_ros.recording.bag import BagWriter  # noqa: E402
from lingbot_world_ros.recording.drive import RecordedDrive, RecordedWorld  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
import numpy as np  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Float32  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402


@pytest.fixture
def sim(box_world, box_drive, domain):
    """Run the command: a learned room, a drive through it, as fast as it goes, paused first."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'lingbot_world_ros.cli', 'sim', '--world', str(box_world),
         '--truth', str(Path(box_drive[0].rgb.filename).parent), '--speed', '0',
         '--param', 'initial_state:=paused'],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain), 'PYTHONUNBUFFERED': '1'}, text=True,
        stdout=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate(timeout=PATIENCE_S)


def read_until(process, words):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return ''.join(lines)
    raise AssertionError(''.join(lines))


def by_stamp(messages):
    return {stamp_to_ns(m.header.stamp): m for m in messages}


def test_a_recorded_drive_stands_beside_the_imagined_one(sim, open_graph, box_drive, tmp_path):
    bag = BagWriter(tmp_path / 'both')
    graph = open_graph(lambda: [RecorderNode(bag)])
    kinds = {'camera/image_raw': Image, 'odom': Odometry, 'world_status': WorldStatus,
             'reference/camera/image_raw': Image, 'reference/odom': Odometry,
             'reference/ground_truth/pose': PoseWithCovarianceStamped,
             'reference/position_error': Float32, 'reference/image_error': Float32}
    heard = {name: graph.listen(kind, name) for name, kind in kinds.items()}
    graph.wait_for(lambda: {'/reference/odom', '/reference/camera/image_raw', '/odom'} <= set(
        graph.nodes[0]._followed), 'the recorder')
    graph.wait_for(lambda: heard['camera/image_raw'] and heard['reference/camera/image_raw'],
                   'the beginning')
    assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=False)).success
    recording = box_drive[0]

    def has_ended():
        newest = [messages[-1] for messages in heard.values() if messages
                  and hasattr(messages[-1], 'header')]
        return len(newest) == 6 and len(by_stamp(newest)) == 1 and np.array_equal(
            rgb_from_msg(heard['reference/camera/image_raw'][-1]), recording.rgb[-1])

    graph.wait_for(has_ended, 'the end')
    first, true = (by_stamp(heard[f'{prefix}camera/image_raw']) for prefix in ('', 'reference/'))
    assert len(true) > 150 and list(true)[-150:] == list(first)[-150:]
    shown = [rgb_from_msg(message) for message in true.values()]
    assert np.array_equal(shown, recording.rgb[-len(shown):])  # every frame, none twice
    odom, true_odom = (by_stamp(heard[f'{prefix}odom']) for prefix in ('', 'reference/'))
    assert list(odom)[-150:] == list(true_odom)[-150:]
    assert {m.header.frame_id for m in true_odom.values()} == {'odom'}
    place = heard['reference/ground_truth/pose'][-1]
    assert place.header.frame_id == 'map'
    assert 0.4 < place.pose.pose.position.x < 2.6 and 0.4 < place.pose.pose.position.y < 2.6
    at = list(true_odom.values())[-1].pose.pose.position
    assert np.hypot(at.x, at.y) > 0.2
    off = [message.data for message in heard['reference/position_error']]
    assert off[1] < 0.005 and max(off) < 0.1
    assert 0.0 < max(message.data for message in heard['reference/image_error']) < 0.15
    steps = heard['world_status'][-1].step
    assert steps >= len(true) - 1 and heard['world_status'][-1].lockstep_timeouts == 0

    told = read_until(sim, 'the recording has ended')
    assert 'the recording drive, 1 piece of' in told

    # A reset begins it again, and the same comes of it.
    heard['camera/image_raw'].clear()
    assert graph.call(Trigger, '/world_model/reset').success
    graph.wait_for(lambda: len(heard['camera/image_raw']) > 20, 'a new beginning')
    again = by_stamp(heard['camera/image_raw'])
    for stamp in list(first)[2:15]:
        assert bytes(again[stamp].data) == bytes(first[stamp].data)
    assert '/cmd_vel' in graph.nodes[0]._followed
    sim.send_signal(signal.SIGINT)
    sim.communicate(timeout=PATIENCE_S)
    assert sim.returncode == 0


@pytest.mark.parametrize('args, words', [
    ([], '--truth with a recording is for a learned world'),
    (['--world', 'office'], '--truth with a recording is for a learned world'),
    (['--world', '{world}', '--mode', 'stepped'], 'leave --mode out'),
    (['--world', '{world}', '--worlds', '2'], 'leave --worlds out'),
    (['--world', '{world}', '--engine', 'reference'], "runs with engine 'learned' only"),
    (['--world', '{world}', '--robot', 'room'], 'takes no robot'),
    (['--world', '{world}', '--truth-topic', 'picture:=/image'], 'give ROLE:=TOPIC'),
    (['--world', '{world}'], 'There is no recording')])
def test_what_cannot_be_together_is_one_sentence(learned_world, tmp_path, capsys, args, words):
    args = [str(learned_world) if arg == '{world}' else arg for arg in args]
    assert main(['sim', '--truth', str(tmp_path / 'none'), *args]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count('\n') == 1 and not said.out


def test_a_recording_that_does_not_fit_is_refused_before_anything_starts(
        learned_world, tmp_path, capsys):
    record_drive(tmp_path / 'elsewhere', *drive(3.0, 2))
    told = {'elsewhere': 'of another place', 'blind': 'without a registered depth image'}
    writer = AlignedWriter(tmp_path / 'blind')
    for _ in range(20):
        writer.add(rgb=np.zeros((48, 64, 3), np.uint8), action=np.zeros(2))
    writer.close(name='blind', rate_hz=15.0, action_names=('linear_x', 'angular_z'))
    for name, words in told.items():
        assert main(['sim', '--world', str(learned_world), '--truth', str(tmp_path / name)]) == 2
        said = capsys.readouterr()
        assert words in said.err and name in said.err.replace('drive', 'elsewhere'), said.err
        assert not said.out


@pytest.fixture
def arm_drive(learned_world):
    """Return a drive of two pieces in which a joint was commanded, too."""
    spec = make_world('learned', world=str(learned_world)).spec
    joint = spec.robot.joint_names[1]
    rgb = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((48, 64, 3), np.uint8)
    action = np.arange(36, dtype=np.float32).reshape(12, 3)
    pose = np.column_stack([0.1 * np.arange(12), np.zeros(12), np.zeros(12)])
    recording = AlignedRecording('arm', 15.0, ((0, 6), (6, 12)), rgb,
                                 ('linear_x', 'angular_z', f'{joint}.velocity'), action)
    return joint, RecordedDrive(recording, spec, ((2, 6), (8, 12)), pose,
                                np.zeros((12, len(spec.joints))))


def test_commands_of_base_and_joints_are_told_apart(arm_drive):
    joint, arm = arm_drive
    assert arm.messages_per_frame == 2
    told = arm.commanded(4)
    assert told.twist.tolist() == [12.0, 0.0, 13.0]
    assert told.velocities == {joint: 14.0} and not told.positions


def test_a_recording_is_a_world_that_goes_on_whatever_the_actions_are(arm_drive):
    _, arm = arm_drive
    world = RecordedWorld(arm)
    still = np.zeros((1, 1, len(world.spec.action.dims)), np.float32)
    assert world.reset('tiny', 1).rgb[0, 0, 0, 0, 0] == 8
    assert world.reset('tiny', 2).rgb[0, 0, 0, 0, 0] == 2  # the first piece again
    kept = world.snapshot()
    seen = [world.step(still) for _ in range(3)]
    assert [int(one.rgb[0, 0, 0, 0, 0]) for one in seen] == [3, 4, 5]
    assert seen[0].base_twist[0, 0] == pytest.approx([1.5, 0.0, 0.0])
    with pytest.raises(SpecError, match='the recording arm has ended'):
        world.step(still)
    world.restore(kept)
    assert world.step(still, render=False).rgb is None
    assert world.observe(seen[0]).rgb[0, 0, 0, 0, 0] == 3


def test_the_driver_sends_both_kinds_of_commands(open_graph, arm_drive):
    from lingbot_world_ros.nodes.pair import make_pair
    from lingbot_world_ros.nodes.recorded_driver import RecordedDriverNode
    from sensor_msgs.msg import JointState
    joint, arm = arm_drive

    def nodes():
        driver = RecordedDriverNode(arm)
        return [driver, *make_pair(lambda: RecordedWorld(arm), [driver])]

    graph = open_graph(nodes, ['-p', 'mode:=lockstep', '-p', 'lockstep_commands:=2', '-p',
                               'lockstep_timeout_s:=3600.0', '-p', 'speed:=0.0', '-p', 'seed:=0',
                               '-p', 'cmd_vel_type:=twist', '-p', 'initial_state:=paused'])
    base, joints = graph.listen(Twist, 'cmd_vel'), graph.listen(JointState, 'joint_command')
    driver, world = graph.nodes[:2]
    graph.wait_for(lambda: graph.probe.count_publishers('cmd_vel'), 'the driver')
    assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=False)).success
    graph.wait_for(lambda: driver.has_ended and len(base) > 1, 'the end')
    assert world.session.status.step == 3
    assert [m.linear.x for m in base][-2:] == [9.0, 12.0]
    assert [(list(m.name), list(m.velocity)) for m in joints][-1] == ([joint], [14.0])
    # The world may show a frame when the driver has gone already.
    assert graph.call(Trigger, '/world_model/reset').success
    driver.destroy_node()
    driver.on_frame(SimpleNamespace(index=1))
