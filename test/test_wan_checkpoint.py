# SPDX-License-Identifier: Apache-2.0
"""Every public layout is recognised and loads; what is wrong with one is told with a remedy."""
from dataclasses import replace
import json
import os

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('safetensors')

from lingbot_world_ros.errors import SpecError  # noqa: E402, I100
from lingbot_world_ros.models.wan import device, releases_and_licences  # noqa: E402
from lingbot_world_ros.models.wan.checkpoint import open_checkpoint  # noqa: E402
from lingbot_world_ros.models.wan.load import load_dit  # noqa: E402
from lingbot_world_ros.models.wan.memory import (check_room, dit_bytes, estimate,  # noqa: E402
                                                 kv_bytes_per_latent, Preset, smallest_gpu,
                                                 vae_cache_bytes)
from lingbot_world_ros.models.wan.spec import (DiTSpec, LINGBOT_14B, LINGBOT_1_3B,  # noqa: E402
                                               VideoSize)
from lingbot_world_ros.models.wan.tensor_files import (open_tensors,  # noqa: E402
                                                       safetensors_writer)
from safetensors.torch import load_file, save_file  # noqa: E402
import wan_checkpoints as tiny  # noqa: E402

TINY = tiny.TINY
NO_CAMERA = replace(TINY, control_channels=0)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def assert_same(dit, tensors, dtype):
    """Compare a network's weights with what was written."""
    loaded = dit.state_dict()
    assert list(loaded) and set(loaded) == set(tensors)
    for name, value in loaded.items():
        assert value.dtype == dtype and not value.is_meta
        assert torch.equal(value, tensors[name].to(dtype)), name


LAYOUTS = {
    'base': (tiny.write_base, 'base', ('high_noise', 'low_noise'), 'fp32', 'Apache'),
    'fast': (tiny.write_fast, 'causal', ('causal',), 'fp32', 'Apache'),
    'fast diffusers': (tiny.write_fast_diffusers, 'causal', ('causal',), 'bf16', 'Apache'),
    'v2': (tiny.write_v2, 'causal', ('causal',), 'fp32', 'BY-NC-SA'),
    'v2 small': (tiny.write_v2_small, 'causal', ('causal',), 'fp32', 'BY-NC-SA')}


@pytest.mark.parametrize('name', LAYOUTS)
def test_public_layouts_are_recognised_and_load(name, tmp_path):
    write, kind, experts, storage, licence = LAYOUTS[name]
    checkpoint = open_checkpoint(write(tmp_path / 'model'))
    assert checkpoint.kind == kind and tuple(checkpoint.experts) == experts
    assert checkpoint.control == 'camera' and licence in checkpoint.release.licence
    for i, expert in enumerate(checkpoint.experts.values()):
        assert expert.storage == storage and expert.problems() == []
        assert (expert.num_tensors, expert.num_parameters) == (
            TINY.num_tensors, TINY.num_parameters)
        assert replace(expert.spec, text_len=16) == TINY
        dtype = {'fp32': torch.float32, 'bf16': torch.bfloat16}[storage]
        dit = load_dit(checkpoint, expert.name, 'cpu', storage)
        assert_same(dit, tiny.random_tensors(seed=i), dtype)
        assert not dit.training and not any(p.requires_grad for p in dit.parameters())


def test_the_original_layout_may_hold_the_fast_network_too(tmp_path):
    path = tiny.write_base(tmp_path, fast=True)
    checkpoint = open_checkpoint(path)
    assert checkpoint.kind == 'base and causal'
    assert checkpoint.expert('causal').folder.name == 'lingbot_world_fast'
    alone = open_checkpoint(path / 'lingbot_world_fast')
    assert alone.kind == 'causal' and alone.release is releases_and_licences.V1_FAST


def test_one_of_two_experts_opens_both_and_one_shard_opens_all(tmp_path):
    tiny.write_base(tmp_path)
    assert set(open_checkpoint(tmp_path / 'low_noise_model').experts) == {'high_noise',
                                                                          'low_noise'}
    fast = tiny.write_fast(tmp_path / 'fast')
    for name in ('diffusion_pytorch_model-00002-of-00002.safetensors',
                 'diffusion_pytorch_model.safetensors.index.json'):
        assert open_checkpoint(fast / name).expert('causal').num_tensors == TINY.num_tensors


def test_the_only_file_of_an_expert_opens_the_checkpoint(tmp_path):
    pytest.importorskip('bitsandbytes')
    path = tiny.write_nf4(tmp_path) / 'low_noise_model_bnb_nf4' / 'model.safetensors'
    assert open_checkpoint(path).kind == 'base'


def test_repositories_in_the_cache_of_the_hub_are_told_apart(tmp_path):
    for name, family in (('lingbot-world-fast-diffusers', 'v1 fast'),
                         ('lingbot-world-v2-14b-causal-fast-diffusers', 'v2 14B')):
        path = tmp_path / f'models--robbyant--{name}' / 'snapshots' / '0123456789abcdef'
        assert family in open_checkpoint(tiny.write_fast_diffusers(path)).release.title


def test_companions_are_found_beside_a_link(tmp_path):
    tiny.write_fast(tmp_path / 'disk' / 'fast')
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models' / 'fast').symlink_to(tmp_path / 'disk' / 'fast')
    (tmp_path / 'models' / 'vae').mkdir()
    found = open_checkpoint(tmp_path / 'models' / 'fast').companions
    assert found.vae == tmp_path / 'models' / 'vae'


def test_names_of_diffusers_are_mapped(tmp_path):
    checkpoint = open_checkpoint(tiny.write_wan_diffusers(tmp_path, NO_CAMERA))
    assert tuple(checkpoint.experts) == ('high_noise', 'low_noise')
    assert checkpoint.control == 'none' and checkpoint.release is releases_and_licences.WAN
    dit = load_dit(checkpoint, 'low_noise', 'cpu', 'bf16')
    assert_same(dit, tiny.random_tensors(NO_CAMERA, 1), torch.bfloat16)


def test_names_of_diffusers_are_those_of_its_own_network(tmp_path):
    diffusers = pytest.importorskip('diffusers')
    theirs = diffusers.WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=128, in_channels=36, out_channels=16,
        text_dim=32, freq_dim=256, ffn_dim=192, num_layers=2, cross_attn_norm=True)
    theirs.save_pretrained(tmp_path / 'transformer')
    dit = load_dit(open_checkpoint(tmp_path), precision='fp32')
    state = theirs.state_dict()
    assert torch.equal(dit.blocks[1].norm3.weight, state['blocks.1.norm2.weight'])
    assert torch.equal(dit.blocks[0].ffn[2].weight, state['blocks.0.ffn.net.2.weight'])
    assert torch.equal(dit.head.modulation, state['scale_shift_table'])


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth', '.pt'])
@pytest.mark.parametrize('dtype, precision', [(torch.float32, 'bf16'), (torch.bfloat16, 'fp32'),
                                              (torch.float16, 'fp32')])
def test_single_files_load_and_are_converted(suffix, dtype, precision, tmp_path):
    path = tiny.write_single(tmp_path / f'model{suffix}', dtype=dtype)
    checkpoint = open_checkpoint(path)
    assert checkpoint.kind == 'causal' and checkpoint.release is releases_and_licences.UNKNOWN
    tensors = {name: value.to(dtype) for name, value in tiny.random_tensors().items()}
    wanted = torch.float32 if precision == 'fp32' else torch.bfloat16
    assert_same(load_dit(checkpoint, precision=precision), tensors, wanted)


def test_prefixes_and_wrapped_state_dicts_are_unwrapped(tmp_path):
    tensors = {f'model.diffusion_model.{name}': value
               for name, value in tiny.random_tensors().items()}
    torch.save({'state_dict': tensors, 'epoch': 3}, tmp_path / 'm.ckpt')
    dit = load_dit(open_checkpoint(tmp_path / 'm.ckpt'), precision='fp32')
    assert_same(dit, tiny.random_tensors(), torch.float32)


def test_files_of_old_torch_load(tmp_path):
    torch.save(tiny.random_tensors(), tmp_path / 'old.pth',
               _use_new_zipfile_serialization=False)
    dit = load_dit(open_checkpoint(tmp_path / 'old.pth'), precision='fp32')
    assert_same(dit, tiny.random_tensors(), torch.float32)


@pytest.mark.parametrize('channels, control', [(6, 'camera'), (7, 'act'), (0, 'none')])
def test_control_is_told_by_the_width_of_its_embedding(channels, control, tmp_path):
    spec = replace(TINY, control_channels=channels)
    checkpoint = open_checkpoint(tiny.write_fast(tmp_path / 'act_cam', spec))
    assert checkpoint.control == control
    assert load_dit(checkpoint, precision='bf16').spec == spec


def test_config_tells_heads_and_lengths_that_shapes_do_not(tmp_path):
    spec = DiTSpec(dim=64, ffn_dim=96, num_heads=4, num_layers=1, text_dim=24, text_len=8,
                   eps=1e-5)
    assert open_checkpoint(tiny.write_fast(tmp_path, spec)).expert().spec == spec


def test_config_of_another_network_is_refused(tmp_path):
    tiny.write_fast(tmp_path)
    tiny.write_json(tmp_path / 'config.json', {**tiny.wan_config(), 'ffn_dim': 13824})
    with pytest.raises(SpecError, match='ffn_dim=13824, the tensors say 192'):
        open_checkpoint(tmp_path)
    for name, value in (('num_heads', '40'), ('eps', []), ('text_len', -1), ('num_heads', 0)):
        tiny.write_json(tmp_path / 'config.json', {**tiny.wan_config(), name: value})
        with pytest.raises(SpecError, match=f'config.json says {name}=.* a number like'):
            open_checkpoint(tmp_path)
    (tmp_path / 'config.json').write_text('{"dim": ')
    with pytest.raises(SpecError, match='config.json is not valid JSON'):
        open_checkpoint(tmp_path)


def test_defaults_are_those_of_the_release(tmp_path):
    fast = open_checkpoint(tiny.write_fast(tmp_path / 'fast')).defaults
    assert (fast.chunk_latents, fast.shift, fast.step_indices) == (3, 10.0, (0, 179, 358, 679))
    v2 = open_checkpoint(tiny.write_v2(tmp_path / 'v2')).defaults
    small = open_checkpoint(tiny.write_v2_small(tmp_path / 'small')).defaults
    assert v2 == replace(small, shift=10.0) and small.shift == 5.0
    assert (v2.chunk_latents, v2.window_latents, v2.sink_latents) == (4, 18, 6)
    assert v2.step_indices == (0, 250, 500, 750)
    told = open_checkpoint(tiny.write_fast_diffusers(tmp_path / 'd')).defaults
    assert (told.chunk_latents, told.window_latents, told.sink_latents) == (3, 18, 9)
    v2_diffusers = tiny.write_fast_diffusers(tmp_path / 'lingbot-world-v2-14b-diffusers',
                                             num_frames_per_block=4, sink_size=6)
    assert open_checkpoint(v2_diffusers).defaults == v2


def test_a_folder_above_called_v2_does_not_make_a_checkpoint_v2(tmp_path):
    path = tiny.write_fast(tmp_path / 'lingbot-world-v2' / 'transformers' / 'lingbot-world-fast')
    assert open_checkpoint(path).release is releases_and_licences.V1_FAST


def test_companions_are_found_beside_and_one_folder_up(tmp_path):
    path = tiny.write_base(tmp_path / 'base', fast=True)
    (path / 'Wan2.1_VAE.pth').touch()
    (path / 'google' / 'umt5-xxl').mkdir(parents=True)
    checkpoint = open_checkpoint(path / 'lingbot_world_fast')
    assert checkpoint.companions.vae == path.resolve() / 'Wan2.1_VAE.pth'
    assert checkpoint.companions.tokenizer == path.resolve() / 'google' / 'umt5-xxl'
    assert checkpoint.companions.text_encoder is None
    missing, = checkpoint.missing
    assert missing.what == 'text encoder'
    assert missing.remedy.startswith('hf download robbyant/lingbot-world-base-cam models_t5')


def test_missing_shard_is_named_with_its_download(tmp_path):
    path = tiny.write_v2(tmp_path / 'v2')
    name = 'diffusion_pytorch_model-00001-of-00002.safetensors'
    (path / 'transformers' / name).unlink()
    words = f'hf download robbyant/lingbot-world-v2-14b-causal-fast transformers/{name} --local-'
    with pytest.raises(SpecError, match=f'lacks {name}.*{words}'):
        load_dit(open_checkpoint(path))
    (path / 'transformers' / 'config.json').unlink()
    with pytest.raises(SpecError, match=f'lacks {name}'):  # nothing tells the sizes now
        open_checkpoint(path)
    path = tiny.write_base(tmp_path / 'base', fast=True)
    lost = path / 'lingbot_world_fast' / name.replace('00001-', '00002-')
    lost.unlink()
    checkpoint = open_checkpoint(path)
    assert checkpoint.missing[0].what == f'lingbot_world_fast/{lost.name}'
    assert checkpoint.missing[0].remedy == (
        f'hf download robbyant/lingbot-world-fast {lost.name} --local-dir {lost.parent}')
    with pytest.raises(SpecError, match=f'lacks {lost.name}'):
        load_dit(checkpoint, 'causal')
    load_dit(checkpoint, 'high_noise')


def test_shards_without_an_index_are_counted_by_their_names(tmp_path):
    path = tiny.write_v2_small(tmp_path)
    (path / 'model.safetensors.index.json').unlink()
    assert open_checkpoint(path).missing[:-3] == ()
    (path / 'model-00003-of-00003.safetensors').unlink()
    assert open_checkpoint(path).expert().missing_files == ('model-00003-of-00003.safetensors',)


def test_missing_unexpected_and_wrong_tensors_are_one_error(tmp_path):
    tensors = tiny.random_tensors()
    del tensors['blocks.1.ffn.0.weight'], tensors['head.modulation']
    tensors['blocks.0.cross_attn.k_img.weight'] = torch.zeros(1)
    tensors['blocks.0.norm3.bias'] = torch.zeros(7)
    save_file(tensors, tmp_path / 'm.safetensors')
    checkpoint = open_checkpoint(tmp_path / 'm.safetensors')
    with pytest.raises(SpecError) as error:
        load_dit(checkpoint)
    text = str(error.value)
    assert 'does not hold the 91 tensors' in text and '2 missing: ' in text
    assert 'head.modulation' in text and '1 unexpected: blocks.0.cross_attn.k_img.weight' in text
    assert '1 of another shape: blocks.0.norm3.bias [7] instead of [128]' in text
    assert 'hf download' in text


def test_counts_of_the_public_networks_are_the_published_ones():
    assert (LINGBOT_14B.num_tensors, LINGBOT_14B.num_parameters) == (1421, 18_544_332_864)
    assert (LINGBOT_1_3B.num_tensors, LINGBOT_1_3B.num_parameters) == (1071, 1_709_502_016)
    act = replace(LINGBOT_14B, control_channels=7)
    assert act.num_parameters == 18_545_643_584


@pytest.mark.parametrize('content, words', [
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'git lfs pull'),
    (b'', 'is empty: it was not downloaded completely'),
    (b'<!DOCTYPE html><html><body>not found', 'is no safetensors file'),
    ((50).to_bytes(8, 'little') + b'{"a": ', 'ends within its header'),
    ((6).to_bytes(8, 'little') + b'{"a": ', 'damaged safetensors header'),
    ((8).to_bytes(8, 'little') + b'{"a": 3}', 'damaged safetensors header'),
    (b'cut off', 'run the same hf download again'),
])
def test_files_that_are_no_weights_are_told(content, words, tmp_path):
    path = tiny.write_single(tmp_path / 'm.safetensors')
    path.write_bytes(path.read_bytes()[:-5] if content == b'cut off' else content)
    with pytest.raises(SpecError, match=words):
        open_checkpoint(path)
    with pytest.raises(SpecError, match=words):
        open_checkpoint(tmp_path)


class Evil:
    """What a file of torch must not be able to do."""

    def __reduce__(self):
        return os.mkdir, ('/tmp/this_must_not_be_made',)


def test_pickles_that_run_code_or_are_damaged_are_refused(tmp_path):
    path = tmp_path / 'm.pth'
    torch.save({'a': Evil()}, path)
    with pytest.raises(SpecError, match='needs to run code'):
        open_checkpoint(path)
    assert not os.path.exists('/tmp/this_must_not_be_made')
    torch.save({'lr': 3}, path)
    with pytest.raises(SpecError, match='no tensors by name'):
        open_checkpoint(path)
    for content in (tiny.write_single(path).read_bytes()[:-3000], b'nothing of the kind'):
        path.write_bytes(content)
        with pytest.raises(SpecError, match='m.pth.*download'):
            open_checkpoint(path)


def test_paths_that_lead_nowhere_are_told(tmp_path):
    with pytest.raises(SpecError, match='checkpoint is empty.*hf download'):
        open_checkpoint('')
    with pytest.raises(SpecError, match='does not exist; check the path'):
        open_checkpoint(tmp_path / 'nothing')
    with pytest.raises(SpecError, match='hf download robbyant/lingbot-world-fast --local-dir'):
        open_checkpoint('robbyant/lingbot-world-fast')
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(SpecError, match='found notes.txt; expected high_noise_model/'):
        open_checkpoint(tmp_path)
    with pytest.raises(SpecError, match='no file of weights'):
        (tmp_path / 'notes.txt').write_text('x')
        open_checkpoint(tmp_path / 'notes.txt')
    save_file({'token_embedding.weight': torch.zeros(2)}, tmp_path / 'text.safetensors')
    with pytest.raises(SpecError, match='no tensor patch_embedding.weight among its 1 t'):
        open_checkpoint(tmp_path / 'text.safetensors')
    save_file({'patch_embedding.weight': torch.zeros(2)}, tmp_path / 'text.safetensors')
    with pytest.raises(SpecError, match='other sizes among its 1 t'):
        open_checkpoint(tmp_path / 'text.safetensors')


def test_experts_precisions_and_devices_that_do_not_exist_are_told(tmp_path):
    base = open_checkpoint(tiny.write_base(tmp_path))
    with pytest.raises(SpecError, match='cannot be streamed; .*robbyant/lingbot-world-fast'):
        load_dit(base, 'causal')
    with pytest.raises(SpecError, match="Unknown expert ''. .*high_noise, low_noise"):
        load_dit(base)
    with pytest.raises(SpecError, match="'bf17'.*Did you mean 'bf16'"):
        load_dit(base, 'high_noise', 'cpu', 'bf17')
    if not torch.cuda.is_available():
        with pytest.raises(SpecError, match='no CUDA GPU'):
            load_dit(base, 'high_noise', 'cuda')
        with pytest.raises(SpecError, match='no CUDA GPU'):
            device.torch_device('auto')


def test_too_little_memory_is_told_before_anything_is_read(tmp_path, monkeypatch):
    checkpoint = open_checkpoint(tiny.write_fast(tmp_path))
    for file in checkpoint.expert().files:
        file.unlink()
    monkeypatch.setattr('lingbot_world_ros.models.wan.memory.free_bytes', lambda device: 10 ** 5)
    with pytest.raises(SpecError, match='causal in bf16 needs 0.0 GB on cpu.*are free; '):
        load_dit(checkpoint)
    with pytest.raises(SpecError, match='fewer window_latents'):
        check_room(10 ** 6, torch.device('cuda'), 'the stream')


def test_fp8_is_quantised_while_loading_to_the_same_bits(tmp_path):
    fp8 = pytest.importorskip('lingbot_world_ros.models.wan.fp8')
    checkpoint = open_checkpoint(tiny.write_fast(tmp_path))
    plain = load_dit(checkpoint, precision='bf16')
    fp8.quantise_fp8(plain)
    loaded = load_dit(checkpoint, precision='fp8')
    expected = plain.state_dict()
    assert set(loaded.state_dict()) == set(expected)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value.float(), expected[name].float()), name
        assert value.dtype == expected[name].dtype
    assert fp8.num_bytes(loaded) == dit_bytes(TINY, 'fp8')


def test_progress_ends_with_everything(tmp_path):
    told, checkpoint = [], open_checkpoint(tiny.write_fast(tmp_path))
    load_dit(checkpoint, on_progress=lambda done, total: told.append((done, total)))
    size = checkpoint.expert().num_bytes
    assert len(told) == TINY.num_tensors and told[-1] == (size, size)
    assert told == sorted(told)


def test_writer_makes_files_that_safetensors_reads(tmp_path):
    tensors = {'a': torch.arange(7, dtype=torch.float32), 'b': torch.zeros(0, 3),
               'c': torch.randn(3, 2).bfloat16(), 'd': torch.tensor(3, dtype=torch.uint8)}
    path = tmp_path / 'm.safetensors'
    with safetensors_writer(path, tensors, {'format': 'pt'}) as writer:
        for name, value in tensors.items():
            writer.add(name, value)
        assert not path.exists()
    loaded = load_file(path)
    with open_tensors(path) as file:
        for name, value in tensors.items():
            assert torch.equal(loaded[name], value) and torch.equal(file.get(name), value)
    with pytest.raises(KeyError):
        with safetensors_writer(tmp_path / 'n.safetensors', tensors) as writer:
            raise KeyError
    assert [entry.name for entry in tmp_path.iterdir()] == ['m.safetensors']


def test_headers_are_read_without_torch(tmp_path):
    import subprocess
    import sys
    path = tiny.write_fast(tmp_path)
    code = ('import sys; sys.modules["torch"] = None; '
            'from lingbot_world_ros.models.wan.checkpoint import open_checkpoint; '
            f'print(open_checkpoint({str(path)!r}).expert().num_parameters)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == str(TINY.num_parameters), done.stderr


@pytest.mark.parametrize('spec, size, gb', [
    (LINGBOT_14B, (480, 832), 1.278), (LINGBOT_14B, (464, 832), 1.235),
    (LINGBOT_14B, (720, 1280), 2.949), (LINGBOT_1_3B, (480, 832), 0.288),
    (LINGBOT_1_3B, (464, 832), 0.278), (LINGBOT_1_3B, (720, 1280), 0.664)])
def test_cache_per_latent_frame_is_as_published(spec, size, gb):
    assert kv_bytes_per_latent(spec, VideoSize(*size)) / 1e9 == pytest.approx(gb, abs=6e-4)


def test_memory_of_presets_is_as_published():
    assert dit_bytes(LINGBOT_14B, 'fp32') / 1e9 == pytest.approx(74.18, abs=0.01)
    assert dit_bytes(LINGBOT_14B, 'bf16') / 1e9 == pytest.approx(37.09, abs=0.01)
    assert dit_bytes(LINGBOT_1_3B, 'fp32') / 1e9 == pytest.approx(6.84, abs=0.01)
    parts = estimate(Preset(LINGBOT_14B, VideoSize(480, 832), text_on_device=True))
    assert parts['kv_cache'] / 1e9 == pytest.approx(23.0, abs=0.01)
    assert parts['text_cache'] / 1e9 == pytest.approx(0.42, abs=0.01)
    assert parts['camera_cache'] / 1e9 == pytest.approx(3.8, abs=0.05)
    assert parts['text_encoder'] / 1e9 == pytest.approx(11.36, abs=0.01)
    small = estimate(Preset(LINGBOT_1_3B, VideoSize(480, 832)))
    assert small['camera_cache'] / 1e9 == pytest.approx(0.86, abs=0.01)
    assert vae_cache_bytes(VideoSize(480, 832)) / 1e9 == pytest.approx(3.78, abs=0.01)
    assert vae_cache_bytes(VideoSize(720, 1280), 2) / 1e9 == pytest.approx(4.4, abs=0.05)
    whole = sum(estimate(Preset(LINGBOT_14B)).values())
    assert 66e9 < whole < 75e9 and smallest_gpu(whole).startswith('80 GB')
    assert smallest_gpu(10 ** 12).startswith('none')


def test_options_that_save_memory_do():
    full = sum(estimate(Preset(LINGBOT_14B)).values())
    for change in ({'precision': 'fp8'}, {'precision': 'nf4'}, {'window_latents': 9},
                   {'keep_films': False}, {'vae': 'fp16'}, {'cache_in_8_bits': True},
                   {'tiny_decoder': True}, {'size': VideoSize(352, 640)}):
        assert sum(estimate(Preset(LINGBOT_14B, **change)).values()) < full - 1e9, change


def test_index_that_points_out_of_its_folder_is_not_followed(tmp_path):
    path = tiny.write_fast(tmp_path / 'a')
    index = path / 'diffusion_pytorch_model.safetensors.index.json'
    content = json.loads(index.read_text())
    content['weight_map'] = {name: f'../{file}' for name, file in content['weight_map'].items()}
    index.write_text(json.dumps(content))
    assert all(file.parent == path for file in open_checkpoint(path).expert().files)
