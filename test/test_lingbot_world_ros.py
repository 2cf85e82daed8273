# SPDX-License-Identifier: Apache-2.0
"""LingBot-World through the command line: every public layout streams over ROS topics."""
from math import tan
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys

import pytest

torch = pytest.importorskip('torch')
for needed in ('rclpy', 'lingbot_world_ros.msg', 'transformers', 'tokenizers', 'cv2'):
    pytest.importorskip(needed)

from geometry_msgs.msg import Twist  # noqa: E402, I100
from lingbot_world_ros.actions.camera_columns import camera_actions  # noqa: E402
from lingbot_world_ros.actions.camera_path import read_camera_path  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.msg import WorldSpec, WorldStatus  # noqa: E402
from lingbot_world_ros.nodes.pair import make_pair  # noqa: E402
from lingbot_world_ros.nodes.parameters import as_overrides  # noqa: E402
from lingbot_world_ros.nodes.ros_environment import node_args  # noqa: E402
from lingbot_world_ros.settings.profiles import assignments, params_file  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
import numpy as np  # noqa: E402
from ros_graph import Graph  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, JointState  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402
import wan_checkpoints as tiny  # noqa: E402
from wan_companions import write_companions  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / 'shared' / 'examples' / 'lingbot_world'
ROVER = Path(__file__).parent / 'robots' / 'rover.yaml'
START_S = 120.0


@pytest.fixture(scope='module')
def fast(tmp_path_factory):
    """Return a tiny checkpoint of the fast model with all that belongs to it."""
    return write_companions(tiny.write_fast(tmp_path_factory.mktemp('tiny') / 'lingbot-fast'))


def options(checkpoint, precision='fp32'):
    """Return the parameters with which a tiny checkpoint runs on the CPU, with small images."""
    values = {'device': 'cpu', 'precision': precision, 'height_px': 64, 'width_px': 96,
              'cache_dir': str(checkpoint / 'cache') if checkpoint.is_dir() else ''}
    return {f'lingbot.{name}': value for name, value in values.items()}


def nodes(checkpoint, **params):
    """Make both nodes in this process: torch is here already, which is what takes time."""
    return make_pair(parameter_overrides=as_overrides(
        {**options(checkpoint), 'lingbot.checkpoint': str(checkpoint), **params}))


class Sim:
    """``lingbot-world sim`` in a process of its own, on the CPU, with small images."""

    def __init__(self, domain, checkpoint, *args, profile='lingbot_world_fast'):
        params = assignments(options(checkpoint))
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'lingbot_world_ros.cli', 'sim', '--profile', profile,
             '--checkpoint', str(checkpoint), *params, *args], text=True,
            env={**os.environ, 'ROS_DOMAIN_ID': str(domain), 'PYTHONUNBUFFERED': '1',
                 'OMP_NUM_THREADS': '1'},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self):
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if 'Ctrl-C ends' in line:
                return self
        raise AssertionError(''.join([*self.said, self.process.stderr.read()]))

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        try:
            _, self.logged = self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def refused(self):
        """Return the one line it ends with."""
        out, error = self.process.communicate(timeout=START_S)
        assert self.process.returncode == 2 and 'Traceback' not in error, (out, error)
        return error.splitlines()[-1]


class Client:
    """What a robot stack has: subscriptions, nothing of this package but its messages."""

    def __init__(self, domain, make_nodes=lambda: [], profile='lingbot_world_fast'):
        with params_file(profile) as file:
            self.graph = Graph(make_nodes, domain, node_args(file)[1:])
        listen = self.graph.listen
        self.specs = listen(WorldSpec, '/world_spec', latched=True)
        self.statuses = listen(WorldStatus, '/world_status')
        self.images = listen(Image, '/camera/image_raw')
        self.infos = listen(CameraInfo, '/camera/camera_info')
        self.joints = listen(JointState, '/joint_states')

    def __enter__(self):
        self.graph.__enter__()
        return self

    def __exit__(self, *args):
        self.graph.__exit__(*args)

    def frames(self, count):
        """Wait for that many images in a row and return them."""
        self.graph.wait_for(lambda: len(self.images) >= count, f'{count} images')
        return self.images[:count]


def layouts():
    """Name -> what writes it, profile and precision, what its model is called, frames per step."""
    def base_with_fast(folder):
        return tiny.write_base(folder, fast=True)

    fast = 'lingbot_world_fast', 'fp32'
    return {
        'fast at the root': (tiny.write_fast, fast, 'v1 fast', 12),
        'base with the fast model within': (base_with_fast, fast, 'v1', 12),
        'diffusers folders': (tiny.write_fast_diffusers, fast, 'v1 fast', 12),
        'v2': (tiny.write_v2, fast, 'v2 14B', 16),
        'v2 1.3B without config': (tiny.write_v2_small, ('lingbot_world_1_3b', 'fp32'),
                                   'v2 1.3B', 16),
        'NF4': (tiny.write_nf4_expert, ('lingbot_world_nf4_24gb', 'nf4'), '', 12)}


@pytest.mark.parametrize('layout', [
    name if name in ('NF4', 'v2') else pytest.param(name, marks=pytest.mark.slow)
    for name in layouts()])
def test_every_public_layout_streams_over_ros(layout, domain, tmp_path):
    write, (profile, precision), model, frames_per_step = layouts()[layout]
    if layout == 'NF4':
        pytest.importorskip('bitsandbytes')
    if '1.3B' in layout:  # without a config, sizes of text cannot be tiny
        checkpoint = write(tmp_path / 'lingbot-world-v2-1.3b')
    else:
        checkpoint = write(tmp_path / 'checkpoint')
    write_companions(checkpoint)
    with Client(domain, lambda: nodes(checkpoint, **{'lingbot.precision': precision}),
                profile) as client:
        frames = client.frames(2 * frames_per_step)
        spec = client.specs[-1]
        assert spec.engine == 'lingbot_world' and model in spec.model
        assert (spec.frames_per_step, spec.frame_rate) == (frames_per_step, 16.0)
        assert spec.takes_text and spec.takes_images and spec.free_camera
        assert list(spec.predicted_states) == []
        assert list(spec.integrated_states) == ['base', 'joints']
        stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in frames]
        assert set(np.diff(stamps)) == {62_500_000}
        assert {(m.height, m.width, m.encoding) for m in frames} == {(64, 96, 'rgb8')}
        assert len({bytes(m.data) for m in frames}) > 1
        info = client.infos[-1]
        assert info.k[0] == pytest.approx(502.9 * 96 / 832, abs=0.1)


@pytest.mark.slow
def test_a_robot_stack_drives_it(fast, domain):
    with Client(domain) as client, Sim(
            domain, fast, '--prompt', 'a quiet street', '--param', 'cmd_vel_type:=twist'):
        status = client.graph.newest(client.statuses, lambda status: status.step > 0)
        assert status.prompt == 'a quiet street'
        assert np.isnan(status.uncertainty) and not status.uncertainty_calibrated
        driver = client.graph.publisher(Twist, '/cmd_vel')
        message = Twist()
        message.linear.x = 0.5

        def moved():
            driver.publish(message)
            newest = client.statuses[-1]
            actions = np.reshape(newest.actions, (-1, len(client.specs[-1].action_names)))
            return [actions] if len(actions) and actions[-1, 0] == 0.5 else []
        (actions,) = client.graph.wait_for(moved, 'a step that drives')
        names = list(client.specs[-1].action_names)
        ahead = actions[-1, names.index('camera.translation.z')]
        assert ahead == pytest.approx(0.5 / 16, rel=1e-3)
        words = client.graph.publisher(String, '/prompt')
        words.publish(String(data='rain at night'))
        client.graph.wait_for(lambda: client.statuses[-1].prompt == 'rain at night',
                              'the prompt in effect')
        anchor = client.graph.publisher(Image, '/camera/anchor')
        anchor.publish(Image(height=4, width=6, step=18, encoding='rgb8', data=bytes(72)))
        client.graph.wait_for(lambda: client.statuses[-1].images_anchored == 1, 'the anchor')
        assert client.statuses[-1].state == WorldStatus.STATE_PLAYING


@pytest.mark.slow
def test_a_rover_of_its_own_files_drives_as_it_steers(fast, domain):
    """Nothing in the package knows it: limits, frames and joints are those of its two files."""
    turn = 0.5 * tan(0.45) / 0.3  # at half a metre per second
    with Client(domain) as client, Sim(
            domain, fast, '--engine', 'lingbot_world', '--scene', 'office_view', '--robot',
            str(ROVER), '--param', 'cmd_vel_type:=twist', profile='default') as sim:
        listen = client.graph.listen
        links = listen(TFMessage, '/tf_static', latched=True)
        described = listen(String, '/robot_description', latched=True)
        poses = listen(Odometry, '/odom')
        client.frames(2)
        spec = client.graph.wait_for(lambda: client.specs, 'the description of the world')[-1]
        assert list(spec.action_names[:3]) == ['base.linear.x', 'base.angular.z',
                                               'mast_pan_joint.velocity']
        assert list(spec.action_min[:2]) == [-0.5, -spec.action_max[1]]
        assert spec.action_max[1] == pytest.approx(1.2 * tan(0.45) / 0.3)
        assert list(spec.joint_names) == ['mast_pan_joint']
        assert client.infos[-1].header.frame_id == 'eye_optical_frame'
        assert client.images[-1].header.frame_id == 'eye_optical_frame'
        assert (client.infos[-1].width, client.infos[-1].height) == (96, 64)
        assert client.joints[-1].name == ['mast_pan_joint']
        (link,) = client.graph.wait_for(lambda: links, 'where the camera is')[-1].transforms
        assert (link.header.frame_id, link.child_frame_id) == ('eye_link', 'eye_optical_frame')
        assert described[-1].data == ROVER.with_suffix('.urdf').read_text()

        driver = client.graph.publisher(Twist, '/cmd_vel')
        asked = Twist()
        asked.linear.x, asked.angular.z = 0.5, 1.9

        def driven(v_mps, w_radps):
            driver.publish(asked)
            status = client.statuses[-1]
            rows = np.reshape(status.actions, (-1, len(spec.action_names)))
            return [status, rows] if len(rows) and np.allclose(
                rows[-1, :2], (v_mps, w_radps), atol=1e-5) else []
        status, rows = client.graph.wait_for(lambda: driven(0.5, turn), 'its smallest circle')
        assert 'it turns on circles of at least 0.62 m' in status.message
        at = list(spec.action_names).index('camera.translation.x')
        assert np.abs(rows[-1, at:at + 6]).max() > 0.01  # and the camera goes along
        client.graph.newest(poses, lambda m: abs(m.twist.twist.angular.z - turn) < 1e-5, 'it')
        asked.linear.x = 0.0
        status, rows = client.graph.wait_for(lambda: driven(0.0, 0.0), 'it stands')
        assert np.abs(rows[-1]).max() < 1e-6  # nor does the camera turn
        head = client.graph.publisher(JointState, '/joint_command')

        def turned():
            head.publish(JointState(name=['mast_pan_joint'], position=[1.0]))
            rows = np.reshape(client.statuses[-1].actions, (-1, len(spec.action_names)))
            return [rows] if len(rows) and rows[0, 2] > 0.5 else []
        (rows,) = client.graph.wait_for(turned, 'the mast turns')
        assert np.abs(rows[0, at:at + 6]).max() > 0.01  # with the camera on it
    assert 'Traceback' not in sim.logged


@pytest.mark.slow
def test_prompt_that_is_cut_is_told_in_the_log_of_ros(fast, domain):
    with Sim(domain, fast, '--prompt', 'a street ' * 300) as sim:
        pass
    (told,) = [line for line in sim.logged.splitlines() if '601 tokens' in line]
    assert told.startswith('[WARN]') and 'first 512' in told


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason='the public examples are not here')
@pytest.mark.parametrize('example', [
    '00', *(pytest.param(name, marks=pytest.mark.slow) for name in ('01', '02'))])
def test_public_examples_play_through_ros(example, fast, domain):
    folder = EXAMPLES / example
    path = read_camera_path(str(folder))
    with Client(domain, lambda: nodes(
            fast, start_image=str(folder / 'image.jpg'), camera_path=str(folder),
            prompt=(folder / 'prompt.txt').read_text().strip(),
            camera_path_metres_per_unit=0.01)) as client:
        client.frames(36)
        client.graph.wait_for(lambda: any(len(s.actions) and s.step == 2
                                          for s in client.statuses), 'two steps')
        status = next(s for s in client.statuses if s.step == 2 and len(s.actions))
        actions = np.reshape(status.actions, (12, -1))
        motion = path.motion(12, 12)  # of the second step
        motion[:, :3, 3] *= 0.01
        assert np.allclose(actions[:, -6:], camera_actions(motion), atol=1e-5)
        assert status.scene == 'image'


def damaged():
    """Name -> what to do to a good folder, what the error must say."""
    def cut(folder):
        shard = next(folder.glob('diffusion*1-of*.safetensors'))
        shard.write_bytes(shard.read_bytes()[:-1000])

    def lose(folder):
        next(folder.glob('diffusion*2-of*.safetensors')).unlink()

    def pointer(folder):
        next(folder.glob('diffusion*1-of*.safetensors')).write_text(
            'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n')

    return {'no such folder': (shutil.rmtree, 'does not exist'),
            'shard cut short': (cut, 'hf download'), 'shard missing': (lose, 'hf download'),
            'pointer in place of a shard': (pointer, 'LFS'),
            'no autoencoder': (lambda f: (f / 'Wan2.1_VAE.pth').unlink(), 'Wan2.1_VAE.pth'),
            'broken autoencoder': (lambda f: (f / 'Wan2.1_VAE.pth').write_bytes(b'x' * 999),
                                   'Wan2.1_VAE.pth'),
            'no text encoder': (lambda f: (f / 'models_t5_umt5-xxl-enc-bf16.pth').unlink(),
                                'models_t5_umt5-xxl-enc-bf16.pth')}


@pytest.mark.parametrize('damage', damaged())
def test_damaged_checkpoints_are_refused_in_one_line(damage, fast, domain, tmp_path):
    spoil, told = damaged()[damage]
    folder = shutil.copytree(fast, tmp_path / 'copy', ignore=shutil.ignore_patterns('cache'))
    spoil(folder)
    with pytest.raises(SpecError) as error:
        Client(domain, lambda: nodes(folder))
    assert told in str(error.value) and '\n' not in str(error.value)


def test_a_damaged_checkpoint_ends_the_command_in_one_line(fast, domain, tmp_path):
    spoil, told = damaged()['shard cut short']
    folder = shutil.copytree(fast, tmp_path / 'copy', ignore=shutil.ignore_patterns('cache'))
    spoil(folder)
    line = Sim(domain, folder).refused()
    assert line.startswith('error: ') and told in line, line


def test_missing_start_image_is_told_before_loading(fast, domain):
    process = Sim(domain, fast, '--start-image', '/nowhere.png').process
    _, error = process.communicate(timeout=START_S)
    assert process.returncode == 2 and 'start_image: /nowhere.png is not a file' in error, error
    assert 'Loading' not in error


@pytest.mark.parametrize('number', (signal.SIGINT, signal.SIGTERM))
def test_loading_is_told_and_can_be_interrupted(number, fast, domain):
    process = Sim(domain, fast).process
    for line in process.stderr:
        if 'Loading engine lingbot_world' in line:
            break
    process.send_signal(number)
    _, error = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130 and 'Traceback' not in error, error


def test_base_checkpoint_alone_is_told_to_need_the_causal_one(domain, tmp_path):
    folder = write_companions(tiny.write_base(tmp_path / 'base'))
    with pytest.raises(SpecError, match='cannot be streamed'):
        Client(domain, lambda: nodes(folder))
