# SPDX-License-Identifier: Apache-2.0
"""Four-bit weights: those of the community, those quantised while loading, those written here."""
from importlib.util import find_spec
import json
from pathlib import Path
import subprocess
import sys

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('safetensors')
if find_spec('bitsandbytes') is None:  # to load it takes long, also for who runs other files
    pytest.skip('needs bitsandbytes', allow_module_level=True)

from lingbot_world_ros.errors import SpecError  # noqa: E402, I100
from lingbot_world_ros.models.wan.checkpoint import open_checkpoint  # noqa: E402
from lingbot_world_ros.models.wan.dit import WanDiT  # noqa: E402
from lingbot_world_ros.models.wan.load import load_dit  # noqa: E402
from lingbot_world_ros.models.wan.memory import dit_bytes, linear_names, nf4_bytes  # noqa: E402
from lingbot_world_ros.models.wan.nf4 import (dequantised, is_quantised,  # noqa: E402
                                              replace_linears, STATE)
from lingbot_world_ros.models.wan.nf4_file import save_nf4  # noqa: E402
from lingbot_world_ros.models.wan.spec import LINGBOT_14B, LINGBOT_1_3B  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
import wan_checkpoints as tiny  # noqa: E402

TINY = tiny.TINY
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def unpacked(parts):
    """Undo the quantisation with the published formula and nothing of bitsandbytes."""
    state = json.loads(bytes(parts['quant_state.bitsandbytes__nf4'].tolist()))
    scales = parts['nested_quant_map'][parts['absmax'].long()]
    nested = parts['nested_absmax'].repeat_interleave(state['nested_blocksize'])[:len(scales)]
    scales = scales * nested + state['nested_offset']
    packed = parts[''].flatten()
    codes = torch.stack([packed >> 4, packed & 15], -1).flatten().long()  # high nibble first
    values = parts['quant_map'][codes] * scales.repeat_interleave(64)[:len(codes)]
    count = state['shape'][0] * state['shape'][1]
    return values[:count].view(state['shape']).to(getattr(torch, state['dtype']))


@pytest.mark.parametrize('shape', [(128, 128), (192, 128), (64, 36), (24, 40), (7, 10), (6, 4)])
def test_weights_unpack_by_the_published_formula(shape):
    torch.manual_seed(1)
    weight = torch.randn(shape)
    parts = {key[len('w.'):] if key != 'w' else '': value
             for key, value in tiny.bnb_tensors('w', weight).items()}
    expected = unpacked(parts)
    assert torch.equal(dequantised(parts, shape), expected)
    assert (expected - weight).abs().max() < 0.16 * weight.abs().max()
    stored = sum(part.nbytes for name, part in parts.items() if not name.startswith('quant_st'))
    assert stored == nf4_bytes(*shape)


def apply(dit, seed=0):
    """Return a velocity."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, 36, 2, 4, 6, generator=generator)
    text = dit.text_context(torch.randn(1, 5, TINY.text_dim, generator=generator))
    rays = torch.randn(1, 12, TINY.control_width, generator=generator)
    return dit(latents, dit.time_context(500.0), text, dit.camera_context(rays))


def test_community_files_load_and_compute_what_their_weights_say(tmp_path):
    checkpoint = open_checkpoint(tiny.write_nf4(tmp_path))
    assert checkpoint.kind == 'base' and checkpoint.control == 'camera'
    expert = checkpoint.expert('low_noise')
    assert expert.storage == 'nf4' and expert.spec == TINY and expert.problems() == []
    assert expert.num_parameters == TINY.num_parameters
    assert len(expert.quantised) == len(linear_names(TINY))
    dit = load_dit(checkpoint, 'low_noise', 'cpu', 'nf4')
    plain = load_dit(checkpoint, 'low_noise', 'cpu', 'bf16')  # the same weights, unpacked
    velocity, expected = apply(dit), apply(plain)
    assert velocity.isfinite().all() and velocity.std() > 0.05
    assert (velocity - expected).norm() < 0.02 * expected.norm()


def test_layers_on_a_cpu_compute_in_bfloat16_and_change_nothing(tmp_path):
    dit = load_dit(open_checkpoint(tiny.write_fast(tmp_path)), precision='nf4')
    layer = dit.blocks[0].ffn[0]
    before, bias = layer.weight.data.clone(), layer.bias.clone()
    x = torch.randn(3, 128)
    from bitsandbytes.functional import dequantize_4bit
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    expected = torch.nn.functional.linear(x.bfloat16(), weight, layer.bias)
    assert torch.equal(layer(x), expected.float()) and layer(x).dtype == torch.float32
    assert torch.equal(layer(x.bfloat16()), expected)
    assert torch.equal(layer.weight.data, before) and torch.equal(layer.bias, bias)
    assert layer.bias.dtype == torch.bfloat16


def test_quantising_while_loading_gives_the_bits_of_the_community_files(tmp_path):
    fast = open_checkpoint(tiny.write_fast(tmp_path / 'fast'))
    theirs = open_checkpoint(tiny.write_nf4_expert(tmp_path / 'nf4'))
    one, other = (load_dit(c, precision='nf4').state_dict() for c in (fast, theirs))
    assert set(one) == set(other)
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_everything_but_linear_weights_stays_bfloat16(tmp_path):
    dit = load_dit(open_checkpoint(tiny.write_fast(tmp_path)), precision='nf4')
    linear = [name for name, module in dit.named_modules() if is_quantised(module)]
    assert sorted(linear) == sorted(linear_names(TINY))
    for name, parameter in dit.named_parameters():
        quantised = name.rpartition('.')[0] in linear and name.endswith('weight')
        assert parameter.dtype == (torch.uint8 if quantised else torch.bfloat16), name


def test_large_weights_are_quantised_in_slices_to_the_same_bits(monkeypatch):
    from lingbot_world_ros.models.wan import nf4
    torch.manual_seed(2)
    weight = torch.randn(100, 130)
    from bitsandbytes.functional import quantize_4bit
    whole, expected = quantize_4bit(
        weight.bfloat16(), blocksize=64, compress_statistics=True, quant_type='nf4')
    monkeypatch.setattr(nf4, 'CPU_SLICE', 1024)
    packed, state = nf4.quantise(weight, torch.device('cpu'))
    assert torch.equal(packed, whole)
    expected, state = expected.as_dict(packed=True), state.as_dict(packed=True)
    assert set(state) == set(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_saved_copies_load_and_are_the_same_bits(tmp_path):
    source = open_checkpoint(tiny.write_v2_small(tmp_path / 'small'))
    told = []
    path = save_nf4(source, tmp_path / 'copy', on_progress=lambda *done: told.append(done))
    assert told[-1][0] == told[-1][1] == source.expert().num_bytes
    copy = open_checkpoint(path.parent)
    assert copy.release == source.release and copy.defaults == source.defaults
    assert copy.expert().storage == 'nf4' and copy.expert().spec == source.expert().spec
    written = load_dit(copy, precision='nf4').state_dict()
    for name, value in load_dit(source, precision='nf4').state_dict().items():
        assert torch.equal(written[name], value), name
    with pytest.raises(SpecError, match='is there already'):
        save_nf4(source, tmp_path / 'copy')
    with pytest.raises(SpecError, match='quantised already'):
        save_nf4(copy, tmp_path / 'other')


def test_saved_experts_of_a_base_model_are_told_apart(tmp_path):
    source = open_checkpoint(tiny.write_base(tmp_path / 'base'))
    save_nf4(source, tmp_path / 'anywhere', 'low_noise')
    assert tuple(open_checkpoint(tmp_path / 'anywhere').experts) == ('low_noise',)
    for name in ('high_noise', 'low_noise'):
        save_nf4(source, tmp_path / 'both' / f'{name}_model_bnb_nf4', name)
    assert tuple(open_checkpoint(tmp_path / 'both').experts) == ('high_noise', 'low_noise')


def test_saved_copies_have_the_names_that_bitsandbytes_writes(tmp_path):
    theirs = tiny.write_nf4_expert(tmp_path / 'nf4') / 'model.safetensors'
    source = open_checkpoint(tiny.write_fast(tmp_path / 'fast'))
    ours = load_file(save_nf4(source, tmp_path / 'copy'))
    expected = load_file(theirs)
    assert set(ours) == set(expected)
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name
    with safe_open(tmp_path / 'copy' / 'model.safetensors', 'pt') as file:
        assert file.metadata() == {'format': 'pt'}


@pytest.mark.parametrize('part, value, words', [
    ('nested_quant_map', None, 'lacks nested_quant_map'),
    ('absmax', torch.zeros(3, dtype=torch.uint8), 'sizes that do not fit'),
    (STATE, None, 'lacks quant_state'),
    (STATE, torch.tensor([123, 34], dtype=torch.uint8), 'JSONDecodeError'),
    (STATE, {'shape': [64, 256]}, r'its shape is \(64, 256\)'),
    (STATE, {'blocksize': 0}, 'ZeroDivisionError'), (STATE, {'dtype': 'int8'}, 'do not fit')])
def test_damaged_weights_are_told(part, value, words, tmp_path):
    folder = tiny.write_nf4_expert(tmp_path)
    tensors = load_file(folder / 'model.safetensors')
    name = f'blocks.0.self_attn.q.weight.{part}'
    if isinstance(value, dict):
        state = {**json.loads(bytes(tensors[name].tolist())), **value}
        value = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, folder / 'model.safetensors')
    for precision in ('nf4', 'bf16'):
        with pytest.raises(SpecError, match=words):
            load_dit(open_checkpoint(folder), precision=precision)


def test_the_14b_has_569_quantised_layers_and_9_577_gb():
    with torch.device('meta'):
        dit = WanDiT(LINGBOT_14B)
        assert replace_linears(dit) == 569
    names = [name for name, module in dit.named_modules() if is_quantised(module)]
    assert sorted(names) == sorted(linear_names(LINGBOT_14B))
    size = 0
    for module in dit.modules():
        for name, parameter in module.named_parameters(recurse=False):
            size += nf4_bytes(*parameter.shape) if is_quantised(module) and name == 'weight' \
                else 2 * parameter.numel()
    assert size == dit_bytes(LINGBOT_14B, 'nf4')
    assert size / 1e9 == pytest.approx(9.577, abs=5e-4)
    assert dit_bytes(LINGBOT_1_3B, 'nf4') / 1e9 == pytest.approx(0.885, abs=5e-4)


def test_without_bitsandbytes_the_error_names_it(tmp_path):
    path = tiny.write_fast(tmp_path)
    code = ('import sys; sys.modules["bitsandbytes"] = None\n'
            'from lingbot_world_ros.models.wan.checkpoint import open_checkpoint\n'
            'from lingbot_world_ros.models.wan.load import load_dit\n'
            f'load_dit(open_checkpoint({str(path)!r}), precision="bf16")\n'
            f'load_dit(open_checkpoint({str(path)!r}), precision="nf4")')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert 'SpecError: precision nf4 needs bitsandbytes' in done.stderr
    assert 'line 5' in done.stderr


@pytest.mark.slow
def test_loading_never_holds_the_whole_file_beside_the_network():
    done = subprocess.run([sys.executable, '-m', 'bench.load_memory', '--size', 'tiny'],
                          capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)['loads']
    assert [result['precision'] for result in results] == ['bf16', 'nf4']
    for result in results:  # twice and more what was seen
        assert result['peak_over_model_bytes'] < 0.75 * result['file_bytes']
