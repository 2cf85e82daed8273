# SPDX-License-Identifier: Apache-2.0
"""LingBot-World as an engine: steps, states, prompts, images, errors; tiny random weights."""
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')
pytest.importorskip('tokenizers')

from lingbot_world_ros.actions.camera_columns import camera_actions  # noqa: E402, I100
from lingbot_world_ros.engines.interface import Start  # noqa: E402
from lingbot_world_ros.engines.registry import make_world  # noqa: E402
from lingbot_world_ros.errors import EngineDiverged, SpecError  # noqa: E402
from lingbot_world_ros.geometry import se2, se3  # noqa: E402
from lingbot_world_ros.geometry.camera import PinholeCamera  # noqa: E402
from lingbot_world_ros.paths import share_path  # noqa: E402
from lingbot_world_ros.worlds.definition import WorldDefinition  # noqa: E402
import numpy as np  # noqa: E402
import wan_checkpoints as tiny  # noqa: E402
from wan_companions import write_companions  # noqa: E402

SIZE = {'height_px': 32, 'width_px': 48}


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory):
    """Return the folder of a tiny checkpoint with all that belongs to it."""
    return write_companions(tiny.write_fast(tmp_path_factory.mktemp('tiny') / 'lingbot-fast'))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def photo(tmp_path_factory):
    """Return the path of a picture."""
    cv2 = pytest.importorskip('cv2')
    path = tmp_path_factory.mktemp('photo') / 'photo.png'
    rng = np.random.default_rng(0)
    cv2.imwrite(str(path), cv2.resize(rng.integers(0, 255, (8, 12, 3), np.uint8), (160, 90)))
    return str(path)


def engine(checkpoint, **options):
    """Make an engine on the CPU, in float32 unless asked otherwise."""
    given = {'device': 'cpu', 'precision': 'fp32', **SIZE, 'cache_dir': str(checkpoint / 'cache')}
    return make_world('lingbot_world', checkpoint=str(checkpoint), **{**given, **options})


@pytest.fixture(scope='module')
def world(checkpoint):
    return engine(checkpoint)


def at_rest(world):
    return np.zeros((1, world.spec.frames_per_step, len(world.spec.action.dims)), np.float32)


def driving(world, v_mps=0.8, w_radps=0.3, joint_speed=0.5):
    """Actions of a robot that drives a bend, as the encoder makes them."""
    actions = at_rest(world)
    actions[..., 0], actions[..., 1], actions[..., 2] = v_mps, w_radps, joint_speed
    camera = world.spec.camera.T_base_optical
    moved = se3.pose_from_se2(se2.exponential((v_mps, 0.0, w_radps), 1 / 16))
    motion = np.linalg.inv(camera) @ moved @ camera
    actions[0, :, -6:] = camera_actions(np.tile(motion, (world.spec.frames_per_step, 1, 1)))
    return actions


def start(photo, prompt='a quiet street'):
    return Start(prompt, (photo,))


def test_spec_says_what_is_predicted_and_what_is_only_integrated(world):
    spec = world.spec
    assert spec.engine == 'lingbot_world' and 'v1 fast' in spec.model
    assert (spec.frame_rate_hz, spec.frames_per_step) == (16.0, 12)
    assert spec.predicted_states == () and spec.integrated_states == ('base', 'joints')
    assert spec.free_camera and spec.takes_text and spec.takes_images and not spec.takes_poses
    assert (spec.camera.height_px, spec.camera.width_px) == (32, 48)
    assert 'living_room_view' in spec.scenes and 'image' in spec.scenes


def test_reset_shows_one_frame_and_each_step_twelve(world, photo):
    first = world.reset('image', 0, start=start(photo))
    assert first.rgb.shape == (1, 1, 32, 48, 3) and first.rgb.dtype == np.uint8
    assert first.uncertainty is None and first.depth_m is None
    for _ in range(2):
        seen = world.step(at_rest(world))
        assert seen.rgb.shape == (1, 12, 32, 48, 3)
        assert seen.base_pose.shape == (1, 12, 3) and seen.object_pose.shape == (1, 12, 0, 3)


def test_same_start_and_actions_give_the_same_bytes(world, photo):
    def run(seed):
        world.reset('image', seed, start=start(photo))
        return np.concatenate([world.step(driving(world)).rgb for _ in range(3)], 1)
    first = run(4)
    assert np.array_equal(run(4), first)
    assert not np.array_equal(run(5), first)


def test_camera_motion_steers_the_picture(world, photo):
    pictures = []
    for actions in (at_rest(world), driving(world, 0.8, 0.0), driving(world, 0.0, 1.0)):
        world.reset('image', 0, start=start(photo))
        pictures.append(world.step(actions).rgb)
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[1], pictures[2])


def test_base_and_joints_are_integrated_as_commanded(world, photo):
    world.reset('image', 0, start=start(photo))
    seen = world.step(driving(world, 0.8, 0.4, 0.5))
    assert seen.base_pose[0, -1] == pytest.approx([
        2.0 * np.sin(0.3), 2.0 * (1.0 - np.cos(0.3)), 0.3], abs=1e-6)  # a circle of 0.8 / 0.4 m
    assert seen.joint_position[0, -1, 0] == pytest.approx(0.5 * 12 / 16, abs=1e-6)
    assert seen.base_twist[0, -1] == pytest.approx([0.8, 0.0, 0.4])
    for _ in range(3):
        seen = world.step(driving(world, 0.0, 0.0, 1.5))
    assert seen.joint_position[0, -1, 0] == pytest.approx(1.2)  # its limit
    assert seen.joint_velocity[0, -1, 0] == 0.0


def test_steps_taken_back_leave_no_trace(world, photo):
    def run(detour):
        world.reset('image', 0, start=start(photo))
        world.step(driving(world))
        if detour:
            world.finish_step()
            world.step(driving(world, -0.5))
            world.finish_step()
            world.undo_step()
        seen = world.step(driving(world, 0.2))
        return seen.rgb.tobytes(), seen.base_pose.tobytes()
    assert run(True) == run(False)


def test_snapshot_goes_on_with_the_same_bytes(world, photo):
    world.reset('image', 0, start=start(photo))
    world.step(driving(world))
    saved = world.snapshot()
    expected = [world.step(driving(world, v)) for v in (0.1, 0.7)]
    world.reset('image', 9, start=start(photo, 'rain'))
    world.restore(saved)
    for v, seen in zip((0.1, 0.7), expected):
        again = world.step(driving(world, v))
        assert np.array_equal(again.rgb, seen.rgb)
        assert np.array_equal(again.base_pose, seen.base_pose)


def test_prompt_changes_in_mid_stream(world, photo):
    def run(prompt):
        world.reset('image', 0, start=start(photo))
        world.step(driving(world))
        if prompt:
            world.set_prompt(prompt)
        return world.step(driving(world)).rgb
    assert not np.array_equal(run('rain night'), run(''))
    assert np.array_equal(run('a quiet street'), run('a  quiet street'))


def test_real_image_takes_over_the_picture_but_not_the_pose(world, photo):
    world.reset('image', 0, start=start(photo))
    before = world.step(driving(world))
    shown = before.base_pose[0, -1].copy()
    last = type(before)(**{name: None if value is None else value[:, -1:]
                           for name, value in vars(before).items() if name != 'extra'})
    last.rgb = np.full((1, 1, 100, 200, 3), 200, np.uint8)
    bright = world.observe(last)
    assert bright.rgb.shape == (1, 1, 32, 48, 3)
    assert np.array_equal(bright.base_pose[0, 0], shown)
    last.rgb = np.full((1, 1, 100, 200, 3), 20, np.uint8)
    assert not np.array_equal(world.observe(last).rgb, bright.rgb)
    assert world.step(driving(world)).base_pose[0, 0, 0] > shown[0]


def test_named_scenes_bring_image_and_prompt(world):
    pictures = [world.reset(scene, 0).rgb for scene in world.spec.scenes if scene != 'image']
    assert len(pictures) == 3
    assert not np.array_equal(pictures[0], pictures[1])


def test_scene_image_without_an_image_says_what_to_set(world):
    with pytest.raises(SpecError, match='start_image'):
        world.reset('image', 0)


def test_more_than_one_image_is_refused(world, photo):
    with pytest.raises(SpecError, match='one image, got 2'):
        world.reset('image', 0, start=Start('', (photo, photo)))


def test_image_that_shows_less_than_the_camera_sees_is_refused(world, photo):
    narrow = PinholeCamera.from_corner(160, 90, (400.0, 400.0, 80.0, 45.0))
    with pytest.raises(SpecError, match='field_of_view_deg to 19'):
        world.reset('image', 0, start=Start('', (photo,), narrow))


def test_unknown_scene_is_told(world):
    with pytest.raises(SpecError, match="'kitchen'"):
        world.reset('kitchen', 0)


def test_urdf_gives_the_joints(checkpoint, photo):
    urdf = share_path('config', 'robots', 'room.urdf').read_text()
    world = engine(checkpoint, robot_description=urdf)
    assert 'shoulder_pan_joint' in world.spec.robot.joint_names
    assert all(j.max_speed > 0 and np.isfinite([j.low, j.high]).all() for j in world.spec.joints)


def test_pictures_of_nothing_finite_have_diverged(world, photo):
    world.reset('image', 0, start=start(photo))
    actions = driving(world)
    actions[0, 0, -6] = np.nan
    with pytest.raises(EngineDiverged):
        world.step(actions)


@pytest.mark.parametrize('options, told', (
    ({'checkpoint': ''}, 'lingbot.checkpoint is empty'),
    ({'device': 'auto'}, 'CUDA'), ({'precision': 'int3'}, 'precision'),
    ({'height_px': 250}, 'multiple of 16'), ({'window_latents': 4}, 'window_latents=4'),
    ({'step_indices': '0,x'}, 'step_indices'), ({'metres_per_world_unit': 0.0}, 'metres_per'),
    ({'batch_size': 2}, 'one world'), ({'colour': 'red'}, 'colour')))
def test_options_that_cannot_be_used_are_told(checkpoint, options, told):
    if options == {'device': 'auto'} and torch.cuda.is_available():
        pytest.skip('there is a GPU')
    given = {'checkpoint': str(checkpoint), 'device': 'cpu', **SIZE}
    with pytest.raises(SpecError, match=told):
        make_world('lingbot_world', **{**given, **options})


def test_missing_autoencoder_is_told_with_the_download(tmp_path):
    tiny.write_fast(tmp_path / 'fast')
    with pytest.raises(SpecError, match='hf download .*Wan2.1_VAE.pth'):
        engine(tmp_path / 'fast')


@pytest.mark.parametrize('name, control, told', (
    ('lingbot-act', 7, 'follows a camera'), ('wan', 0, 'follows a camera'),
    ('lingbot-world-v2-14b-causal-pretrain', 6, 'needs few steps')))
def test_networks_that_cannot_be_streamed_are_told(tmp_path, name, control, told):
    spec = replace(tiny.TINY, control_channels=control)
    folder = write_companions(tiny.write_fast(tmp_path / name, spec))
    with pytest.raises(SpecError, match=told):
        engine(folder)


def test_too_little_memory_is_told_before_loading(checkpoint, monkeypatch):
    from lingbot_world_ros.models.wan import memory
    monkeypatch.setattr(memory, 'free_bytes', lambda device: 10 ** 6)
    with pytest.raises(SpecError, match='needs .* GB'):
        engine(checkpoint)


@pytest.mark.parametrize('options', (
    {'precision': 'bf16'}, {'precision': 'nf4'}, {'precision': 'fp8'},
    pytest.param({'compile': True}, marks=pytest.mark.slow),
    {'cache_in_8_bits': True, 'keep_films': False}, {'attention': 'math'},
    {'chunk_latents': 4, 'window_latents': 10, 'sink_latents': 2, 'shift': 5.0,
     'step_indices': '0,500'}), ids=str)
def test_presets_stream(checkpoint, photo, options, monkeypatch):
    # Everything of the compiler but the code for a processor, which takes it most of a minute.
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, 'compile',
                        lambda module: compile_module(module, backend='aot_eager'))
    if options.get('precision') == 'nf4':
        pytest.importorskip('bitsandbytes')
    world = engine(checkpoint, **options)
    world.reset('image', 0, start=start(photo))
    for _ in range(2):
        seen = world.step(driving(world))
        world.finish_step()
    assert seen.rgb.shape[1] == world.spec.frames_per_step == 4 * (options.get('chunk_latents', 3))
    assert seen.rgb.std() > 0


def test_a_world_file_describes_it_in_full(photo):
    definition = WorldDefinition('street', 'image', prompt='a street', images=(photo,))
    assert Path(photo).as_uri() in definition.text
