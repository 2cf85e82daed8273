# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world imagine`` as a user meets it, with tiny random checkpoints."""
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')
cv2 = pytest.importorskip('cv2')
for package in ('safetensors', 'tokenizers', 'transformers', 'ftfy', 'tqdm'):
    pytest.importorskip(package)

from lingbot_world_ros.actions.camera_path import CameraPath, keys_to_path  # noqa: E402, I100
from lingbot_world_ros.cli.main import main  # noqa: E402, I100
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.models.wan.checkpoint import open_checkpoint  # noqa: E402
from lingbot_world_ros.models.wan.offline import (choose_mode, parse_size,  # noqa: E402
                                                  VideoRequest)
from lingbot_world_ros.models.wan.spec import VideoSize  # noqa: E402
from lingbot_world_ros.models.wan.umt5 import UMT5Spec  # noqa: E402
from lingbot_world_ros.models.wan.vae import VaeSpec, WanVAE  # noqa: E402
import numpy as np  # noqa: E402
from wan_checkpoints import TINY, write_base, write_fast  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / 'shared' / 'examples' / 'lingbot_world'
WORDS = ('</s>', '<pad>', '<unk>', 'a', 'street', 'at', 'night')


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def write_companions(folder):
    """Write a VAE, a text encoder and a tokenizer that fit the tiny network."""
    from tokenizers import models, pre_tokenizers, Tokenizer
    torch.manual_seed(5)
    torch.save(WanVAE(VaeSpec(dim=4)).state_dict(), folder / 'Wan2.1_VAE.pth')
    shapes = UMT5Spec(len(WORDS), TINY.text_dim, 32, 48, 2, 1, 32).shapes
    torch.save({name: torch.randn(shape) / shape[-1] ** 0.5 for name, shape in shapes.items()},
               folder / 'models_t5_umt5-xxl-enc-bf16.pth')
    tokenizer = Tokenizer(models.WordLevel(dict(zip(WORDS, range(len(WORDS)))), '<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (folder / 'google' / 'umt5-xxl').mkdir(parents=True)
    tokenizer.save(str(folder / 'google' / 'umt5-xxl' / 'tokenizer.json'))
    return folder


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    return write_companions(write_base(tmp_path_factory.mktemp('lingbot-world-base-cam')))


@pytest.fixture(scope='module')
def fast(tmp_path_factory):
    return write_companions(write_fast(tmp_path_factory.mktemp('lingbot-world-fast')))


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'image.png'
    rng = np.random.default_rng(0)
    cv2.imwrite(str(path), rng.integers(0, 256, (90, 160, 3), dtype=np.uint8))
    return path


@pytest.fixture
def imagine(tmp_path, image):
    """Return a function that runs the command and gives its exit code."""
    def run(checkpoint, *args, out='clip.mp4', **changes):
        given = {'--checkpoint': checkpoint, '--image': image, '--prompt': 'a street at night',
                 '--size': '32x48', '--device': 'cpu', '--precision': 'fp32',
                 '--cache-dir': tmp_path / 'cache', '--out': tmp_path / out, **changes}
        return main(['imagine', *map(str, (x for pair in given.items() for x in pair)), *args])
    return run


def read_video(path):
    """Return the frames of a file, (T, H, W, 3) RGB."""
    video, frames = cv2.VideoCapture(str(path)), []
    while True:
        found, bgr = video.read()
        if not found:
            return np.stack(frames)
        frames.append(bgr[..., ::-1])


def read_pictures(folder):
    return np.stack([cv2.imread(str(path)) for path in sorted(folder.glob('*.png'))])


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason='the examples are not here')
@pytest.mark.parametrize('name', ('00', '01', '02'))
def test_public_examples_become_videos(imagine, base, tmp_path, name, capsys):
    folder = EXAMPLES / name
    assert imagine(base, '--poses', str(folder), '--frames', '13', '--steps', '3',
                   **{'--image': folder / 'image.jpg', '--size': '64x96',
                      '--prompt': (folder / 'prompt.txt').read_text()}) == 0
    assert read_video(tmp_path / 'clip.mp4').shape == (13, 64, 96, 3)
    captured = capsys.readouterr()
    assert captured.out == f'Written: {tmp_path / "clip.mp4"} (13 frames at 16 Hz)\n'


def test_causal_checkpoint_is_streamed(imagine, fast, tmp_path):
    assert imagine(fast, '--keys', 'w-8,wl-12', out='clip') == 0
    frames = read_pictures(tmp_path / 'clip')
    assert frames.shape == (21, 32, 48, 3)  # 9 of the first chunk, 12 of the second
    assert frames.std() > 1


def test_any_number_of_frames_is_cut_out_of_a_stream(imagine, fast, tmp_path):
    assert imagine(fast, '--frames', '11', out='short') == 0
    assert imagine(fast, '--frames', '21', out='long') == 0
    short, long = read_pictures(tmp_path / 'short'), read_pictures(tmp_path / 'long')
    assert len(short) == 11 and np.array_equal(short, long[:11])


def test_camera_and_seed_matter_and_everything_else_is_repeated(imagine, base, tmp_path):
    runs = {'first': {}, 'again': {}, 'seed': {'--seed': 1}, 'keys': {'--keys': 'l-8'}}
    for out, changes in runs.items():
        assert imagine(base, '--steps', '2', '--frames', '9', out=out, **changes) == 0
    frames = {out: read_pictures(tmp_path / out) for out in runs}
    assert np.array_equal(frames['first'], frames['again'])
    assert not np.array_equal(frames['first'], frames['seed'])
    assert not np.array_equal(frames['first'], frames['keys'])


def test_long_video_is_made_of_clips(imagine, base, tmp_path):
    assert imagine(base, '--steps', '2', '--frames', '21', '--clip-frames', '9', '--offload',
                   out='clip') == 0
    assert len(read_pictures(tmp_path / 'clip')) == 21


def test_size_follows_the_image(imagine, fast, tmp_path, monkeypatch):
    from lingbot_world_ros.models.wan import offline
    monkeypatch.setitem(offline.AREAS_PX, '480p', 32 * 64)
    assert imagine(fast, '--frames', '1', **{'--size': '480p'}) == 0
    assert read_video(tmp_path / 'clip.mp4').shape == (1, 32, 48, 3)  # of 90 x 160


@pytest.mark.parametrize('args, message', (
    (('--mode', 'causal'), 'cannot be streamed'), (('--mode', 'fast'), "Unknown mode 'fast'"),
    (('--frames', '10'), 'use 9 or 13'), (('--frames', '0'), 'at least 1'),
    (('--frames', '1000000001'), 'at most'), (('--seed', '-1'), 'use 0 to'),
    (('--keys', 'q-5'), 'none-10'), (('--poses', 'nowhere'), 'does not exist'),
    (('--size', '33x48'), 'multiple of 16'), (('--size', 'big'), '464x832'),
    (('--steps', '0'), 'use 1 to'), (('--guidance', '-1'), 'between 0'),
    (('--clip-frames', '1'), 'at least 5'), (('--precision', 'int4'), 'precision'),
    (('--image', 'nothing.png'), 'does not exist'), (('--vae', 'nothing'), 'does not exist'),
    (('--out', 'clip.gif'), '.mp4')))
def test_what_cannot_be_imagined_is_told_in_one_line(imagine, base, tmp_path, capsys, args,
                                                     message):
    assert imagine(base, '--frames', '9', *args) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and errors[0].startswith('error: ') and message in errors[0]
    assert not (tmp_path / 'clip.mp4').exists()


def test_arguments_without_effect_are_refused(imagine, fast, capsys):
    assert imagine(fast, '--steps', '20', '--offload') == 2
    assert '--steps, --offload have no effect in causal mode' in capsys.readouterr().err


def test_keys_and_poses_exclude_each_other(imagine, fast):
    with pytest.raises(SystemExit):
        imagine(fast, '--keys', 'w-5', '--poses', 'folder')


def test_checkpoint_that_diverges_is_told(imagine, tmp_path, capsys):
    from safetensors.torch import load_file, save_file
    folder = write_companions(write_fast(tmp_path / 'lingbot-world-fast'))
    for path in folder.glob('diffusion*.safetensors'):
        tensors = load_file(path)
        if 'head.head.bias' in tensors:
            tensors['head.head.bias'].fill_(float('nan'))
            save_file(tensors, path, {'format': 'pt'})
    assert imagine(folder, '--frames', '9') == 2
    assert 'not finite; try precision' in capsys.readouterr().err


def test_damage_in_the_second_network_is_told_before_the_first_is_used(imagine, tmp_path, capsys):
    folder = write_companions(write_base(tmp_path / 'lingbot-world-base-cam'))
    next((folder / 'low_noise_model').glob('*00002-of*')).unlink()
    assert imagine(folder, '--frames', '9', **{'--text-encoder': 'nowhere'}) == 2
    assert '00002-of-00002' in capsys.readouterr().err


def test_lack_of_device_memory_is_told_with_a_remedy(imagine, fast, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.\nmore')

    monkeypatch.setattr(WanVAE, 'start_condition', full)
    assert imagine(fast, '--frames', '9') == 2
    error = capsys.readouterr().err
    assert error.startswith('error: CUDA out of memory. Tried to allocate 2 GiB. Choose precision')


def test_mode_follows_the_checkpoint(base, fast, tmp_path):
    both = write_base(tmp_path / 'both', fast=True)
    high = write_fast(tmp_path / 'half' / 'high_noise_model').parent
    modes = [choose_mode(open_checkpoint(path)) for path in (base, fast, both)]
    assert modes == ['base', 'causal', 'causal']
    assert choose_mode(open_checkpoint(both), 'base') == 'base'
    with pytest.raises(SpecError, match='lacks low_noise'):
        choose_mode(open_checkpoint(high), 'base')
    with pytest.raises(SpecError, match='lacks high_noise and low_noise'):
        choose_mode(open_checkpoint(fast), 'base')


def test_sizes_are_areas_or_pixels():
    rgb = np.zeros((90, 160, 3), np.uint8)
    assert parse_size('480p', rgb) == VideoSize(464, 832)
    assert parse_size('720p', rgb) == VideoSize(720, 1280)
    assert parse_size('320x640', rgb) == VideoSize(320, 640)
    for text in ('', 'x', '320x', '-320x640', '3e2x640', '1080p', '٣٢x٣٢', '9' * 20 + 'x16'):
        with pytest.raises(SpecError):
            parse_size(text, rgb)


def request(path, num_frames=81):
    return VideoRequest(np.zeros((9, 16, 3), np.uint8), '', VideoSize(240, 416), num_frames, path)


def test_camera_rests_after_the_end_of_its_path():
    steps = request(keys_to_path('w-9')).steps(6)
    assert steps[:, 2, 3] == pytest.approx([0, 1, 1, 0, 0, 0])
    assert np.array_equal(request(None).steps(6), np.tile(np.eye(4), (6, 1, 1)))


def test_intrinsics_are_those_of_the_path():
    path = CameraPath(np.tile(np.eye(4), (5, 1, 1)), (400.0, 410.0, 416.0, 240.0))
    assert request(path).camera.corner_intrinsics == (200.0, 205.0, 208.0, 120.0)
    assert request(None).camera.corner_intrinsics == (251.5, 251.5, 208.0, 120.0)
