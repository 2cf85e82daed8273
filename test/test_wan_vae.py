# SPDX-License-Identifier: Apache-2.0
"""The autoencoder against golden numbers, diffusers, and its own whole-clip result."""
import json
import math
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')

from lingbot_world_ros.errors import SpecError  # noqa: E402, I100
from lingbot_world_ros.models.wan import vae as vae_module  # noqa: E402
from lingbot_world_ros.models.wan.vae import (LATENT_MEAN, LATENT_STD, to_frames,  # noqa: E402
                                              VaeSpec, WanVAE)
from lingbot_world_ros.models.wan.vae_file import load_vae  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[2] / 'shared' / 'golden' / 'wan_vae_tiny.safetensors'
needs_golden = pytest.mark.skipif(not GOLDEN.is_file(), reason='golden vectors are not here')
TINY = VaeSpec(dim=8)
SIZE = (24, 16)  # pixels
DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def random_vae(spec=TINY, dtype=torch.float32):
    torch.manual_seed(0)
    return WanVAE(spec).eval().requires_grad_(False).set_decoder(dtype)


@pytest.fixture(scope='module')
def tiny():
    return random_vae()


@pytest.fixture(scope='module')
def golden():
    """Return the tensors that pin the autoencoder down, and it with their weights."""
    from safetensors import safe_open
    with safe_open(GOLDEN, 'pt') as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        config = json.loads(file.metadata()['config'])
    vae = WanVAE(VaeSpec(dim=config['dim'], multipliers=tuple(config['dim_mult']),
                         res_blocks=config['num_res_blocks'],
                         temporal_down=tuple(config['temperal_downsample'])))
    prefix = 'weights.'
    vae.load_state_dict({name[len(prefix):]: tensor for name, tensor in tensors.items()
                         if name.startswith(prefix)}, strict=True)
    return tensors, vae.eval().requires_grad_(False)


def some_latents(num_latents=5, seed=1):
    torch.manual_seed(seed)
    return torch.randn(1, 16, num_latents, SIZE[0] // 8, SIZE[1] // 8)


def smooth_video(num_frames=9, size=SIZE):
    """Return slow waves of colour, (1, 3, T, H, W)."""
    t, y, x = torch.meshgrid(*(torch.linspace(0, 3, n) for n in (num_frames, *size)),
                             indexing='ij')
    return torch.stack([torch.sin(x + t), torch.cos(y - t), torch.sin(x + y)])[None] * 0.8


def in_pieces(call, x, lengths):
    """Hand over (b, c, t, h, w) in pieces; return the joined result and the last cache."""
    results, cache = [], None
    for piece in x.split(lengths, 2):
        result, cache = call(piece, cache)
        results.append(result)
    return torch.cat(results, 2), cache


def relative_error(result, expected):
    return float((result - expected).norm() / expected.norm())


def psnr_db(result, expected):
    return 10 * math.log10(4.0 / float((result - expected).square().mean()))


def tensors_of(cache):
    return [tensor for memory in cache for tensor in memory]


def test_names_and_size_are_those_of_the_public_file():
    with torch.device('meta'):
        shapes = {name: tuple(t.shape) for name, t in WanVAE().state_dict().items()}
    assert sum(math.prod(shape) for shape in shapes.values()) == 126_892_531
    assert len(shapes) == 194
    expected = {
        'encoder.conv1.weight': (96, 3, 3, 3, 3), 'encoder.head.2.weight': (32, 384, 3, 3, 3),
        'encoder.downsamples.3.shortcut.weight': (192, 96, 1, 1, 1),
        'encoder.downsamples.5.time_conv.weight': (192, 192, 3, 1, 1),
        'encoder.downsamples.8.resample.1.weight': (384, 384, 3, 3),
        'encoder.downsamples.10.residual.6.weight': (384, 384, 3, 3, 3),
        'encoder.middle.1.norm.gamma': (384, 1, 1), 'conv1.weight': (32, 32, 1, 1, 1),
        'conv2.weight': (16, 16, 1, 1, 1), 'decoder.conv1.weight': (384, 16, 3, 3, 3),
        'decoder.middle.1.to_qkv.weight': (1152, 384, 1, 1),
        'decoder.upsamples.3.time_conv.weight': (768, 384, 3, 1, 1),
        'decoder.upsamples.4.shortcut.weight': (384, 192, 1, 1, 1),
        'decoder.upsamples.7.resample.1.weight': (192, 384, 3, 3),
        'decoder.upsamples.11.resample.1.bias': (96,),
        'decoder.upsamples.14.residual.0.gamma': (96, 1, 1, 1),
        'decoder.head.0.gamma': (96, 1, 1, 1), 'decoder.head.2.weight': (3, 96, 3, 3, 3)}
    assert {name: shapes.get(name) for name in expected} == expected
    assert 'decoder.upsamples.11.time_conv.weight' not in shapes
    assert 'encoder.downsamples.2.time_conv.weight' not in shapes


@needs_golden
def test_names_are_those_of_the_golden_file(golden):
    tensors, vae = golden
    assert {f'weights.{name}' for name in WanVAE(TINY).state_dict()} == \
        {name for name in tensors if name.startswith('weights.')}


@needs_golden
def test_encode_gives_the_golden_latents(golden):
    tensors, vae = golden
    assert relative_error(vae.encode(tensors['input.video']), tensors['output.latents']) < 1e-5


@needs_golden
def test_decode_gives_the_golden_video(golden):
    tensors, vae = golden
    assert relative_error(vae.decode(tensors['output.latents']), tensors['output.video']) < 1e-5


@pytest.mark.parametrize('lengths', ([1, 1, 1, 1, 1], [1, 4], [2, 3], [3, 1, 1], [4, 1]))
@pytest.mark.parametrize('dtype', DTYPES)
def test_decode_in_chunks_is_bit_for_bit_the_whole(lengths, dtype):
    vae, latents = random_vae(dtype=dtype), some_latents()
    whole = vae.decode(latents)
    assert torch.equal(in_pieces(vae.decode_chunk, latents, lengths)[0], whole)


@pytest.mark.parametrize('lengths', ([1, 4, 4, 4], [5, 8], [9, 4], [1, 12]))
def test_encode_in_chunks_is_bit_for_bit_the_whole(tiny, lengths):
    video = smooth_video(13)
    whole = tiny.encode(video)
    assert torch.equal(in_pieces(tiny.encode_chunk, video, lengths)[0], whole)
    assert whole.shape == (1, 16, 4, 3, 2)


def test_chunks_have_one_frame_for_the_first_latent_then_four(tiny):
    first, cache = tiny.decode_chunk(some_latents(3), None)
    later, _ = tiny.decode_chunk(some_latents(2), cache)
    assert first.shape == (1, 3, 9, *SIZE) and later.shape == (1, 3, 8, *SIZE)
    assert first.dtype == later.dtype == torch.float32


def test_two_clips_at_once_are_two_clips(tiny):
    a, b = some_latents(3, seed=1), some_latents(3, seed=2)
    both = tiny.decode(torch.cat([a, b]))
    assert relative_error(both, torch.cat([tiny.decode(a), tiny.decode(b)])) < 1e-5


def test_a_kept_cache_gives_the_same_bytes_again(tiny):
    latents = some_latents()
    _, kept = tiny.decode_chunk(latents[:, :, :2], None)
    before = [tensor.clone() for tensor in tensors_of(kept)]
    first, _ = tiny.decode_chunk(latents[:, :, 2:], kept)
    tiny.decode_chunk(some_latents(seed=9), kept)  # another future
    assert all(map(torch.equal, tensors_of(kept), before))
    assert torch.equal(tiny.decode_chunk(latents[:, :, 2:], kept)[0], first)


def test_a_cache_holds_two_frames_per_convolution_and_no_more(tiny):
    _, cache = tiny.decode_chunk(some_latents(3), None)
    tensors = tensors_of(cache)
    assert len(tensors) == 32 and all(tensor.shape[2] == 2 for tensor in tensors)
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)
    assert len(tensors_of(tiny.encode_chunk(smooth_video(5), None)[1])) == 24


def test_pixels_see_no_later_latent(tiny):
    a, b = some_latents(4), some_latents(4)
    b[:, :, 3] += 1.0
    difference = (tiny.decode(a) - tiny.decode(b)).abs().amax((0, 1, 3, 4))
    assert difference[:9].max() == 0.0 and difference[9] > 0.0


@needs_golden
def test_start_condition_is_the_encoded_clip_bit_for_bit(golden):
    _, vae = golden
    image, num_latents = smooth_video(1)[0, :, 0], vae.settled_latents + 3
    grey = torch.zeros(3, 4 * (num_latents - 1), *SIZE)
    whole = vae.encode(torch.cat([image[:, None], grey], 1)[None])[0]
    assert torch.equal(vae.start_condition(image, num_latents), whole)
    for few in (1, 2, 7):
        assert torch.equal(vae.start_condition(image, few), whole[:, :few])


@needs_golden
def test_start_condition_settles_neither_later_nor_earlier_than_it_says(golden):
    _, vae = golden
    assert vae.settled_latents == 30
    steps = vae.start_condition(smooth_video(1)[0, :, 0], 40).diff(dim=1).abs().amax((0, 2, 3))
    assert (steps[:28] > 0.0).all() and (steps[29:] == 0.0).all()


def test_start_condition_runs_settled_layers_no_more(tiny, monkeypatch):
    calls = []
    conv = vae_module.CausalConv3d.forward
    monkeypatch.setattr(vae_module.CausalConv3d, 'forward',
                        lambda self, *args: calls.append(self) or conv(self, *args))
    tiny.start_condition(torch.zeros(3, *SIZE), 1000)
    assert calls.count(tiny.encoder.conv1) == 1 + 2
    assert calls.count(tiny.encoder.downsamples[4].residual[6]) == 1 + 6
    assert calls.count(tiny.encoder.head[2]) == tiny.settled_latents


@pytest.mark.parametrize('dtype, least_db', ((torch.bfloat16, 40.0), (torch.float16, 55.0)))
def test_sixteen_bit_decoder_is_close(tiny, dtype, least_db):
    vae, latents = random_vae(dtype=dtype), tiny.encode(smooth_video())
    assert psnr_db(vae.decode(latents), tiny.decode(latents)) > least_db
    assert torch.equal(vae.encode(smooth_video()), latents)  # as before


def test_sixteen_bit_decoder_stays_channels_last():
    probe = torch.nn.Conv3d(8, 8, 3).to(torch.bfloat16, memory_format=torch.channels_last_3d)
    if probe(torch.zeros(1, 8, 4, 4, 4, dtype=torch.bfloat16).contiguous(
            memory_format=torch.channels_last_3d)).stride(1) != 1:
        pytest.skip('the convolution of torch for this processor does not keep the order')
    vae, orders = random_vae(dtype=torch.bfloat16), []

    def look(module, inputs, outputs):
        output = outputs[0] if isinstance(outputs, tuple) else outputs
        orders.extend(x.stride(1) == 1 for x in (inputs[0], output))

    for module in vae.decoder.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            module.register_forward_hook(look)
    _, first = vae.decode_chunk(some_latents(1), None)
    _, later = vae.decode_chunk(some_latents(2), first)
    assert orders and all(orders)
    assert [t.stride() for t in tensors_of(first)] == [t.stride() for t in tensors_of(later)]


def test_decoder_is_one_graph_after_the_first_latent():
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    vae, latents = random_vae(VaeSpec(dim=4, res_blocks=1), torch.bfloat16), some_latents(4)
    expected = vae.decode(latents)
    first, cache = vae.decode_chunk(latents[:, :, :1], None)
    vae.decoder.compile(fullgraph=True, dynamic=False, backend=count)
    later, _ = vae.decode_chunk(latents[:, :, 1:], cache)
    assert torch.equal(torch.cat([first, later], 2), expected) and len(graphs) == 1


def test_to_frames_rounds_and_clamps():
    levels = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 0.5 / 127.5, 0.75 / 127.5, -0.75 / 127.5])
    video = levels.view(1, 1, 2, 2, 2).repeat(1, 3, 1, 1, 1)
    video[:, 2] = -1.0
    frames = to_frames(video)
    assert frames.dtype == torch.uint8 and frames.shape == (2, 2, 2, 3) and frames.is_contiguous()
    assert frames[..., 0].flatten().tolist() == [0, 0, 128, 255, 255, 128, 128, 127]
    assert frames[..., 2].max() == 0 and torch.equal(video[:, 0], levels.view(1, 2, 2, 2))


def test_frames_of_all_levels_come_back():
    levels = torch.arange(256, dtype=torch.uint8)
    video = (levels.float() / 127.5 - 1.0).view(1, 1, 1, 16, 16).expand(1, 3, 1, 16, 16)
    assert torch.equal(to_frames(video)[0, ..., 1].flatten(), levels)


def test_unusable_videos_are_refused(tiny):
    _, cache = tiny.encode_chunk(smooth_video(1), None)
    for video, memory, words in ((smooth_video(4), None, '4n [+] 1'),
                                 (smooth_video(5), cache, 'a multiple of 4'),
                                 (smooth_video(5, (20, 16)), None, 'multiples of 8')):
        with pytest.raises(SpecError, match=words):
            tiny.encode_chunk(video, memory)


def saved(vae, path, **changes):
    """Write a file in the public names; a change of None leaves a tensor out."""
    tensors = {name: t.clone() for name, t in vae.state_dict().items()} | changes
    tensors = {name: t for name, t in tensors.items() if t is not None}
    if path.suffix == '.safetensors':
        from safetensors.torch import save_file
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize('name', ('Wan2.1_VAE.pth', 'wan_vae.safetensors'))
def test_public_files_load(tiny, tmp_path, name):
    vae = load_vae(saved(tiny, tmp_path / name))
    assert vae.spec == TINY
    assert torch.equal(vae.encode(smooth_video()), tiny.encode(smooth_video()))
    assert not any(p.requires_grad for p in vae.parameters())


def test_files_of_before_zip_load(tiny, tmp_path):
    path = tmp_path / 'old.pth'
    torch.save(tiny.state_dict(), path, _use_new_zipfile_serialization=False)
    assert torch.equal(load_vae(path).decode(some_latents()), tiny.decode(some_latents()))


def test_folder_with_a_public_file_loads_in_sixteen_bits(tiny, tmp_path):
    saved(tiny, tmp_path / 'Wan2.1_VAE.pth')
    vae = load_vae(tmp_path, decoder_dtype=torch.bfloat16)
    assert {p.dtype for p in vae.decoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in vae.encoder.parameters()} == {torch.float32}
    assert psnr_db(vae.decode(some_latents()), tiny.decode(some_latents())) > 40.0


@pytest.mark.parametrize('dim, size', ((8, (16, 24)), (12, (40, 32))))
def test_equals_diffusers(tmp_path, dim, size):
    diffusers = pytest.importorskip('diffusers')
    torch.manual_seed(dim)
    other = diffusers.AutoencoderKLWan(base_dim=dim).eval()
    other.save_pretrained(tmp_path / 'vae')
    vae = load_vae(tmp_path)
    assert vae.spec == VaeSpec(dim=dim)
    mean, std = (torch.tensor(v).view(1, 16, 1, 1, 1) for v in (LATENT_MEAN, LATENT_STD))
    assert list(LATENT_MEAN) == other.config.latents_mean
    assert list(LATENT_STD) == other.config.latents_std
    video = smooth_video(13, size) + 0.1 * torch.randn(1, 3, 13, *size)
    latents = vae.encode(video)
    expected = (other.encode(video).latent_dist.mode() - mean) / std
    assert relative_error(latents, expected) < 1e-5
    expected = other.decode(latents * std + mean).sample  # clamped
    assert relative_error(vae.decode(latents).clamp(-1, 1), expected) < 1e-5


def test_damaged_files_are_told(tiny, tmp_path):
    missing = saved(tiny, tmp_path / 'missing.pth', **{'decoder.head.2.bias': None})
    with pytest.raises(SpecError, match=r'1 missing \(decoder.head.2.bias\).*Wan2.1_VAE.pth'):
        load_vae(missing)
    unknown = saved(tiny, tmp_path / 'unknown.pth', **{'decoder.extra': torch.zeros(2)})
    with pytest.raises(SpecError, match=r'1 unknown \(decoder.extra\)'):
        load_vae(unknown)
    shape = saved(tiny, tmp_path / 'shape.safetensors', **{'conv1.bias': torch.zeros(5)})
    with pytest.raises(SpecError, match=r'conv1.bias is \(5,\) instead of \(32,\)'):
        load_vae(shape)


@pytest.mark.parametrize('name', ('vae.pth', 'vae.safetensors'))
@pytest.mark.parametrize('length', (0, 1000, 100_000))
def test_partial_downloads_are_told(tiny, tmp_path, name, length):
    path = saved(tiny, tmp_path / name)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(SpecError, match='If it stays so: give the Wan2.1_VAE.pth'):
        load_vae(path)


def test_files_of_other_models_are_told(tiny, tmp_path):
    other = tmp_path / 'other.pth'
    for content, words in (({'blocks.0.weight': torch.zeros(2)}, 'not the autoencoder'),
                           ({'state_dict': {}}, 'no tensors by name'),
                           ([1, 2], 'no tensors by name'),
                           (tiny.state_dict() | {'conv1.bias': torch.zeros(32, dtype=torch.int)},
                            'floating-point')):
        torch.save(content, other)
        with pytest.raises(SpecError, match=words):
            load_vae(other)
    wan22 = saved(tiny, other, **{'conv2.weight': torch.zeros(48, 48, 1, 1, 1)})
    with pytest.raises(SpecError, match='48 latent channels'):
        load_vae(wan22)


def test_missing_files_are_told(tmp_path):
    with pytest.raises(SpecError, match='does not exist.*Wan2.1_VAE.pth'):
        load_vae(tmp_path / 'nothing.pth')
    with pytest.raises(SpecError, match='holds none of Wan2.1_VAE.pth'):
        load_vae(tmp_path)


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / 'trapped',))

    torch.save({'conv1.weight': Trap()}, tmp_path / 'trap.pth')
    with pytest.raises(SpecError, match='run code'):
        load_vae(tmp_path / 'trap.pth')
    assert not (tmp_path / 'trapped').exists()


def test_encoder_refuses_tf32_and_puts_the_setting_back():
    torch.manual_seed(0)
    vae, seen = WanVAE(VaeSpec(dim=8)).eval(), []

    def look(*_):
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
    vae.encoder.conv1.register_forward_hook(look)
    before = torch.backends.cudnn.allow_tf32
    vae.start_condition(torch.zeros(3, 16, 16), 2)
    vae.encode(torch.zeros(1, 3, 1, 16, 16))
    with pytest.raises(SpecError):
        vae.encode(torch.zeros(1, 3, 2, 16, 16))
    assert set(seen) == {(False, False)}
    assert torch.backends.cudnn.allow_tf32 == before
