# SPDX-License-Identifier: Apache-2.0
"""The tiny decoder against its own whole-clip result and what is known of its files."""
import pytest

torch = pytest.importorskip('torch')

from lingbot_world_ros.errors import SpecError  # noqa: E402, I100
from lingbot_world_ros.models.wan.tiny_vae import (load_tiny_vae, MemoryBlock,  # noqa: E402
                                                   TinySpec, TinyVAE)
from lingbot_world_ros.models.wan.vae import LATENT_MEAN, LATENT_STD, to_frames  # noqa: E402

SMALL = TinySpec(widths=(24, 16, 8, 8))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def random_vae(dtype=torch.float32, **options):
    torch.manual_seed(0)
    vae = TinyVAE(SMALL, **options)
    for p in vae.decoder.parameters():
        p.mul_(2.0)  # the default is so small that the frames are hardly told apart
    return vae.eval().requires_grad_(False).set_decoder(dtype)


@pytest.fixture
def small():
    return random_vae()


def some_latents(num_latents=5, seed=1, batch=1):
    torch.manual_seed(seed)
    return torch.randn(batch, 16, num_latents, 3, 2)


def in_pieces(vae, latents, lengths):
    videos, cache = [], None
    for piece in latents.split(lengths, 2):
        video, cache = vae.decode_chunk(piece, cache)
        videos.append(video)
    return torch.cat(videos, 2)


def saved(path, tensors):
    if path.suffix == '.safetensors':
        from safetensors.torch import save_file
        save_file({name: t.contiguous() for name, t in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


def test_names_and_sizes_are_those_of_the_public_file():
    with torch.device('meta'):
        shapes = {name: tuple(t.shape) for name, t in TinyVAE().state_dict().items()}
    expected = {
        'decoder.1.weight': (256, 16, 3, 3), 'decoder.1.bias': (256,),
        'decoder.3.conv.0.weight': (256, 512, 3, 3), 'decoder.5.conv.4.bias': (256,),
        'decoder.7.conv.weight': (256, 256, 1, 1), 'decoder.8.weight': (128, 256, 3, 3),
        'decoder.13.conv.weight': (256, 128, 1, 1), 'decoder.19.conv.weight': (128, 64, 1, 1),
        'decoder.20.weight': (64, 64, 3, 3),
        'decoder.22.weight': (3, 64, 3, 3), 'decoder.22.bias': (3,)}
    assert {name: shapes.get(name) for name in expected} == expected
    assert len(shapes) == 64 and 'decoder.8.bias' not in shapes


@pytest.mark.parametrize('lengths', ([1, 1, 1, 1, 1], [1, 4], [2, 3], [3, 2]))
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16))
def test_decode_in_chunks_is_bit_for_bit_the_whole(lengths, dtype):
    vae, latents = random_vae(dtype), some_latents()
    assert torch.equal(in_pieces(vae, latents, lengths), vae.decode(latents))


def test_chunks_have_one_frame_for_the_first_latent_then_four(small):
    first, cache = small.decode_chunk(some_latents(1), None)
    later, _ = small.decode_chunk(some_latents(2), cache)
    assert first.shape == (1, 3, 1, 24, 16) and later.shape == (1, 3, 8, 24, 16)
    assert later.dtype == torch.float32
    assert to_frames(later).shape == (8, 24, 16, 3)


def test_two_clips_at_once_are_two_clips(small):
    both, one = some_latents(3, batch=2), some_latents(3, batch=2)[1:]
    torch.testing.assert_close(small.decode(both)[1:], small.decode(one))


def test_each_frame_sees_the_one_before_it(small):
    """Clips and frames share an axis: neither may leak into its neighbours there."""
    torch.manual_seed(0)
    block = MemoryBlock(4)
    x, before = torch.randn(6, 4, 3, 2), torch.randn(2, 4, 3, 2)  # two clips of three frames
    y, newest = block(x, before, 2)
    past = torch.stack([before[0], x[0], x[1], before[1], x[3], x[4]])
    expected = torch.relu(block.conv(torch.cat([x, past], 1)) + x)
    torch.testing.assert_close(y, expected)
    assert torch.equal(newest, x[[2, 5]])


def test_a_kept_cache_gives_the_same_bytes_again(small):
    latents = some_latents()
    _, kept = small.decode_chunk(latents[:, :, :2], None)
    before = [tensor.clone() for tensor in kept]
    first, _ = small.decode_chunk(latents[:, :, 2:], kept)
    small.decode_chunk(some_latents(seed=9), kept)  # another future
    assert all(map(torch.equal, kept, before)) and len(kept) == 9
    assert torch.equal(small.decode_chunk(latents[:, :, 2:], kept)[0], first)


def test_raw_convention_undoes_the_normalisation(small):
    mean, std = (torch.tensor(v).view(1, 16, 1, 1, 1) for v in (LATENT_MEAN, LATENT_STD))
    raw, latents = random_vae(normalised=False), some_latents()
    torch.testing.assert_close(raw.decode(latents), small.decode(latents * std + mean))
    assert not torch.allclose(raw.decode(latents), small.decode(latents))


def test_sixteen_bits_are_close_and_stay_channels_last(small):
    vae, latents, orders = random_vae(torch.bfloat16), some_latents(), []
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda m, inputs, output: orders.extend(
                x.stride(1) == 1 for x in (*inputs, output)))
    exact = small.decode(latents)
    assert float((vae.decode(latents) - exact).norm() / exact.norm()) < 0.02
    assert orders and all(orders)


@pytest.mark.parametrize('name, normalised', (
    ('taew2_1.pth', True), ('taew2_1.safetensors', True), ('lighttaew2_1.pth', False),
    ('LightTAEw2_1.safetensors', False), ('mine.pth', True)))
def test_file_name_tells_the_convention(small, tmp_path, name, normalised):
    tensors = small.state_dict() | {'encoder.0.weight': torch.zeros(64, 3, 3, 3)}
    vae = load_tiny_vae(saved(tmp_path / name, tensors))
    assert vae.normalised is normalised and vae.spec == SMALL
    assert all(torch.equal(t, tensors[name]) for name, t in vae.state_dict().items())


def test_convention_can_be_chosen(small, tmp_path):
    path = saved(tmp_path / 'lighttaew2_1.pth', small.state_dict())
    vae = load_tiny_vae(path, dtype=torch.float16, convention='normalised')
    assert vae.normalised and {p.dtype for p in vae.parameters()} == {torch.float16}
    with pytest.raises(SpecError, match='normalised'):
        load_tiny_vae(path, convention='normalized')


def test_growth_that_is_not_used_is_left_out(small, tmp_path):
    tensors = small.state_dict()
    weight = tensors['decoder.7.conv.weight']
    tensors['decoder.7.conv.weight'] = torch.cat([torch.ones_like(weight), weight])
    vae = load_tiny_vae(saved(tmp_path / 'taew2_1.pth', tensors))
    assert torch.equal(vae.decode(some_latents()), small.decode(some_latents()))


def test_wrong_files_are_told(small, tmp_path):
    path = tmp_path / 'taew2_1.pth'
    with pytest.raises(SpecError, match='is not a file.*taew2_1'):
        load_tiny_vae(path)
    tensors = small.state_dict()
    for change, words in (({'decoder.1.weight': torch.zeros(24, 48, 3, 3)}, '48 latent channels'),
                          ({'decoder.9.conv.2.bias': torch.zeros(3)}, 'instead of'),
                          ({'decoder.23.weight': torch.zeros(3)}, '1 unknown'),
                          ({'decoder.8.weight': torch.zeros(3)}, 'expected kind')):
        with pytest.raises(SpecError, match=words):
            load_tiny_vae(saved(path, tensors | change))
    with pytest.raises(SpecError, match=r'1 missing \(decoder.1.bias\)'):
        load_tiny_vae(saved(path, {n: t for n, t in tensors.items() if n != 'decoder.1.bias'}))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SpecError, match='If it stays so'):
        load_tiny_vae(path)
    with pytest.raises(SpecError, match='expected kind'):
        load_tiny_vae(saved(path, {'conv1.weight': torch.zeros(2)}))
