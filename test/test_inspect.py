# SPDX-License-Identifier: Apache-2.0
"""inspect and quantise as a user meets them: text, JSON, exit codes."""
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('safetensors')

from lingbot_world_ros.cli import inspect  # noqa: E402, I100
from lingbot_world_ros.cli.main import main  # noqa: E402, I100
from lingbot_world_ros.models.wan.checkpoint import (Checkpoint, Expert,  # noqa: E402
                                                     open_checkpoint)
from lingbot_world_ros.models.wan.layouts import Companions  # noqa: E402
from lingbot_world_ros.models.wan.memory import smallest_gpu  # noqa: E402
from lingbot_world_ros.models.wan.releases_and_licences import V1_FAST, V2_1_3B  # noqa: E402
from lingbot_world_ros.models.wan.spec import LINGBOT_14B, LINGBOT_1_3B  # noqa: E402
from lingbot_world_ros.models.wan.tensor_files import TensorInfo  # noqa: E402
from lingbot_world_ros.models.wan.tensor_names import Stored  # noqa: E402
import wan_checkpoints as tiny  # noqa: E402

SIZES = SimpleNamespace(height=464, width=832, window=0, chunk=0, tiny_decoder=False,
                        text_on_device=False, cache_in_8_bits=False, keep_films=True)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def large(spec, release, dtype='F32'):
    """Return a whole checkpoint of which only headers exist."""
    tensors = {name: Stored(None, name, TensorInfo(dtype, shape))
               for name, shape in spec.tensor_shapes().items()}
    expert = Expert('causal', None, (), (), spec, tensors, {})
    return Checkpoint('model', 'at the root', release, {'causal': expert}, release.defaults,
                      Companions(None, None, None), ())


def test_the_text_says_what_it_is_and_what_to_download(tmp_path, capsys):
    path = tiny.write_fast(tmp_path / 'my fast')
    assert main(['inspect', str(path)]) == 0
    said = capsys.readouterr().out
    for words in ('LingBot-World v1 fast (causal, camera control)', '91 tensors, fp32',
                  'Apache-2.0', 'chunks of 3', '0, 179, 358, 679',
                  'Memory on the GPU at 832 x 464', 'bf16     fp8     nf4',
                  'text encoder  not found',
                  f"models_t5_umt5-xxl-enc-bf16.pth --local-dir '{path}'"):
        assert words in said


def test_json_holds_the_same(tmp_path, capsys):
    assert main(['inspect', str(tiny.write_v2(tmp_path)), '--json', '--window', '8']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['complete'] and report['kind'] == 'causal' and report['control'] == 'camera'
    assert 'non-commercial' in report['licence'] and 'v2-14b' in report['repository']
    expert, = report['experts']
    assert (expert['num_tensors'], expert['spec']['dim']) == (91, 128)
    assert report['stream']['sink_latents'] == 6 and report['memory']['window_latents'] == 8
    assert set(report['memory']['bytes']) == {'bf16', 'fp8', 'nf4'}
    assert {m['what'] for m in report['missing']} == {'vae', 'text encoder', 'tokenizer'}


def test_incomplete_weights_are_exit_code_1_with_the_download(tmp_path, capsys):
    path = tiny.write_base(tmp_path)
    lost = path / 'low_noise_model' / 'diffusion_pytorch_model-00002-of-00002.safetensors'
    lost.unlink()
    assert main(['inspect', str(path)]) == 1
    said = capsys.readouterr().out
    assert '1 files are missing' in said and f'low_noise_model/{lost.name} --local-dir' in said
    assert '81 frames, one network at a time' in said


@pytest.mark.parametrize('args, words', [
    (['nothing'], 'There is no such file or folder'),
    (['{fast}', '--height', '250'], 'use 240 or 256'),
    (['{fast}', '--window', '2'], 'the window holds the chunk too')])
def test_mistakes_are_one_line_and_exit_code_2(args, words, tmp_path, capsys):
    fast = tiny.write_fast(tmp_path)
    assert main(['inspect', *(arg.format(fast=fast) for arg in args)]) == 2
    out, err = capsys.readouterr()
    assert out == '' and words in err and err.count('\n') == 1


def test_it_needs_no_torch(tmp_path):
    path = tiny.write_fast(tmp_path)
    code = ('import sys; sys.modules["torch"] = None; '
            'from lingbot_world_ros.cli.main import main; '
            f'sys.exit(main(["inspect", {str(path)!r}]))')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0 and '91 tensors' in done.stdout, done.stderr


def test_public_sizes_are_told_as_published():
    report = inspect.describe(large(LINGBOT_14B, V1_FAST), SIZES)
    said = inspect.as_text(report)
    assert '18.544 B parameters, 1421 tensors, fp32, 74.18 GB' in said
    assert 'bf16 fits a GPU of: 80 GB' in said and 'nf4 fits a GPU of: 48 GB' in said
    needs = report['memory']['bytes']
    assert needs['nf4']['weights'] / 1e9 == pytest.approx(9.577, abs=5e-4)
    assert needs['bf16']['kv_cache'] / 1e9 == pytest.approx(22.24, abs=0.01)
    said = inspect.as_text(inspect.describe(large(LINGBOT_1_3B, V2_1_3B, 'BF16'), SIZES))
    assert '1.710 B parameters, 1071 tensors, bf16, 3.42 GB' in said
    assert 'CC BY-NC-SA 4.0' in said and 'shift 5' in said


def test_options_change_the_memory():
    def total(**changes):
        args = SimpleNamespace(**{**vars(SIZES), **changes})
        report = inspect.describe(large(LINGBOT_14B, V1_FAST), args)
        return report['memory']['bytes']['nf4']['total']
    assert total() > total(window=9) and total() > total(height=352, width=640)
    assert total() > total(tiny_decoder=True) and total() > total(cache_in_8_bits=True)
    assert total(text_on_device=True) - total() == 11_361_820_672
    small = total(window=6, tiny_decoder=True, keep_films=False)
    assert smallest_gpu(small).startswith('24 GB')


def test_quantise_writes_copies_of_all_networks(tmp_path, capsys):
    pytest.importorskip('bitsandbytes')
    pytest.importorskip('tqdm')
    path = tiny.write_base(tmp_path / 'base')
    assert main(['quantise', str(path), str(tmp_path / 'copy')]) == 0
    copy = open_checkpoint(tmp_path / 'copy')
    assert tuple(copy.experts) == ('high_noise', 'low_noise')
    assert copy.expert('low_noise').storage == 'nf4' and not copy.expert('low_noise').problems()
    assert main(['quantise', str(path), str(tmp_path / 'copy')]) == 2
    assert 'is there already' in capsys.readouterr().err
    fast = tiny.write_fast(tmp_path / 'fast')
    assert main(['quantise', str(fast), str(tmp_path / 'small')]) == 0
    assert (tmp_path / 'small' / 'model.safetensors').is_file()
    assert main(['inspect', str(tmp_path / 'small')]) == 0
    said = capsys.readouterr().out
    assert '37 quantised, nf4' in said and 'LingBot-World v1 fast' in said
