# SPDX-License-Identifier: Apache-2.0
"""The network against golden numbers, diffusers, and its own invariants."""
import json
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')

from lingbot_world_ros.models.wan.dit import WanDiT  # noqa: E402, I100
from lingbot_world_ros.models.wan.kv_cache import KVCache, WindowSpec  # noqa: E402
from lingbot_world_ros.models.wan.rope import rotate, rotation  # noqa: E402
from lingbot_world_ros.models.wan.spec import DiTSpec, LINGBOT_14B, LINGBOT_1_3B  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[2] / 'shared' / 'golden'
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason='golden vectors are not here')
TINY = DiTSpec(dim=64, ffn_dim=96, num_heads=2, num_layers=2, text_dim=24, text_len=8)
GRID = (2, 3)
TOKENS = GRID[0] * GRID[1]


def golden(name):
    """Return tensors and configuration of one file."""
    from safetensors import safe_open
    with safe_open(GOLDEN / f'{name}.safetensors', 'pt') as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()


def golden_network(tensors, config):
    """Return a network with a file's weights, loaded strictly."""
    config = json.loads(config)
    spec = DiTSpec(**{name: config[name] for name in (
        'dim', 'ffn_dim', 'num_heads', 'num_layers', 'freq_dim', 'text_dim', 'text_len', 'eps')})
    dit = WanDiT(spec)
    prefix = 'weights.'
    dit.load_state_dict({name[len(prefix):]: tensor for name, tensor in tensors.items()
                         if name.startswith(prefix)}, strict=True)
    return dit.eval()


def ray_tokens(rays):
    """Golden rays (1, 384, f, h, w) -> tokens (1, n, 1536)."""
    b, c, f, h, w = rays.shape
    x = rays.view(b, c, f, h // 2, 2, w // 2, 2).permute(0, 2, 3, 5, 1, 4, 6)
    return x.reshape(b, f * h * w // 4, c * 4)


def relative_error(result, expected):
    return float((result - expected).norm() / expected.norm())


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


@needs_golden
@pytest.mark.parametrize('camera', (True, False))
def test_base_gives_the_golden_velocity(camera):
    g, about = golden('lingbot_world_base_tiny')
    dit = golden_network(g, about['config'])
    latents = torch.cat([g['input.x'], g['input.y']])[None]
    rays = dit.camera_context(ray_tokens(g['camera.rays'])) if camera else None
    velocity = dit(latents, dit.time_context(float(g['input.t'])),
                   dit.text_context(g['input.text'][None]), rays)
    expected = g[f'output.velocity_{"with" if camera else "without"}_camera']
    assert relative_error(velocity[0], expected) < 1e-4


@needs_golden
def test_films_made_in_each_pass_change_nothing():
    g, about = golden('lingbot_world_base_tiny')
    dit = golden_network(g, about['config'])
    latents = torch.cat([g['input.x'], g['input.y']])[None]
    results = []
    for dit.keep_films in (True, False):
        results.append(dit(latents, dit.time_context(5.0), dit.text_context(g['input.text'][None]),
                           dit.camera_context(ray_tokens(g['camera.rays']))))
    assert torch.equal(*results)


def random_network(spec=TINY, seed=0):
    """Return a network in which every part has a say."""
    torch.manual_seed(seed)
    dit = WanDiT(spec).eval()
    for name, parameter in dit.named_parameters():
        if 'modulation' in name:
            parameter.normal_(0, 0.3)
        elif 'norm' in name:
            parameter.normal_(1, 0.2)
        else:
            parameter.normal_(0, parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1)
    return dit


def random_chunk(spec=TINY, num_latents=2, seed=1):
    """Return latents, prompt and rays of one chunk."""
    torch.manual_seed(seed)
    latents = torch.randn(1, spec.in_channels, num_latents, 2 * GRID[0], 2 * GRID[1])
    return (latents, torch.randn(1, 5, spec.text_dim),
            torch.randn(1, num_latents * TOKENS, spec.control_width))


def test_public_names_and_counts_of_both_models():
    for spec, count in ((LINGBOT_14B, 1421), (LINGBOT_1_3B, 1071)):
        with torch.device('meta'):
            state = WanDiT(spec).state_dict()
        assert {name: tuple(t.shape) for name, t in state.items()} == spec.tensor_shapes()
        assert len(state) == count


@pytest.mark.parametrize('spec', (
    DiTSpec(dim=64, ffn_dim=96, num_heads=2, num_layers=2, text_dim=24, text_len=8,
            control_channels=0),
    DiTSpec(dim=96, ffn_dim=128, num_heads=4, num_layers=3, text_dim=16, text_len=12,
            control_channels=0)))
def test_equals_the_transformer_of_diffusers(spec):
    diffusers = pytest.importorskip('diffusers')
    dit = random_network(spec)
    theirs = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=spec.num_heads,
        attention_head_dim=spec.head_dim, in_channels=36, out_channels=16,
        text_dim=spec.text_dim, freq_dim=spec.freq_dim, ffn_dim=spec.ffn_dim,
        num_layers=spec.num_layers, cross_attn_norm=True, qk_norm='rms_norm_across_heads',
        eps=spec.eps, rope_max_seq_len=64).eval()
    theirs.load_state_dict({diffusers_name(k): v for k, v in dit.state_dict().items()})
    latents, text, _ = random_chunk(spec, num_latents=3)
    padded = torch.nn.functional.pad(text, (0, 0, 0, spec.text_len - text.shape[1]))
    expected = theirs(latents, torch.tensor([937]), padded, return_dict=False)[0]
    velocity = dit(latents, dit.time_context(937.0), dit.text_context(text))
    assert relative_error(velocity, expected) < 1e-5


def diffusers_name(name):
    """Translate a public tensor name."""
    for ours, others in (
            ('text_embedding.0', 'condition_embedder.text_embedder.linear_1'),
            ('text_embedding.2', 'condition_embedder.text_embedder.linear_2'),
            ('time_embedding.0', 'condition_embedder.time_embedder.linear_1'),
            ('time_embedding.2', 'condition_embedder.time_embedder.linear_2'),
            ('time_projection.1', 'condition_embedder.time_proj'),
            ('self_attn.o', 'attn1.to_out.0'), ('cross_attn.o', 'attn2.to_out.0'),
            ('self_attn.norm', 'attn1.norm'), ('cross_attn.norm', 'attn2.norm'),
            ('self_attn.', 'attn1.to_'), ('cross_attn.', 'attn2.to_'), ('norm3', 'norm2'),
            ('ffn.0', 'ffn.net.0.proj'), ('ffn.2', 'ffn.net.2'),
            ('head.modulation', 'scale_shift_table'), ('head.head', 'proj_out'),
            ('.modulation', '.scale_shift_table')):
        if ours in name:
            return name.replace(ours, others)
    return name


def stream(dit, window, chunks, first_latent=0):
    """Push chunks through a cache; return their velocities and the cache."""
    cache = new_cache(dit, window)
    velocities = []
    for index, (latents, text, rays) in enumerate(chunks):
        start = first_latent + index * window.chunk_latents
        velocities.append(dit(latents, dit.time_context(700.0), dit.text_context(text),
                              dit.camera_context(rays), start, cache))
    return velocities, cache


def new_cache(dit, window):
    return KVCache(window, num_layers=dit.spec.num_layers, batch_size=1, tokens_per_latent=TOKENS,
                   num_heads=dit.spec.num_heads, head_dim=dit.spec.head_dim,
                   dtype=torch.float32, device='cpu')


def test_one_chunk_with_an_empty_cache_is_the_bidirectional_pass():
    dit = random_network()
    latents, text, rays = random_chunk(num_latents=4)
    (streamed,), _ = stream(dit, WindowSpec(4, 4, 0), [(latents, text, rays)])
    whole = dit(latents, dit.time_context(700.0), dit.text_context(text),
                dit.camera_context(rays))
    assert torch.equal(streamed, whole)


class MaskedAttention:
    """Dense attention over a whole clip in which each latent sees only what it may."""

    def __init__(self, window, num_latents):
        allowed = torch.zeros(num_latents, num_latents, dtype=torch.bool)
        for latent in range(num_latents):
            start = latent - latent % window.chunk_latents
            allowed[latent, window.visible(start)] = True
        self.mask = allowed.repeat_interleave(TOKENS, 0).repeat_interleave(TOKENS, 1)

    def __call__(self, q, k, v):
        mask = self.mask if k.shape[1] == self.mask.shape[1] else None
        out = torch.nn.functional.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (q, k, v)), attn_mask=mask)
        return out.transpose(1, 2)


@pytest.mark.parametrize('window', (
    WindowSpec(2, 20, 0), WindowSpec(2, 6, 2), WindowSpec(2, 4, 0), WindowSpec(2, 7, 3),
    WindowSpec(2, 5, 2)), ids=str)
def test_chunks_through_the_cache_equal_one_pass_with_the_mask(window):
    dit = random_network()
    num_chunks = 6
    chunks = [random_chunk(num_latents=2, seed=i) for i in range(num_chunks)]
    text = chunks[0][1]
    chunks = [(latents, text, rays) for latents, _, rays in chunks]
    streamed, _ = stream(dit, window, chunks)
    dit.attend = MaskedAttention(window, 2 * num_chunks)
    whole = dit(torch.cat([c[0] for c in chunks], 2), dit.time_context(700.0),
                dit.text_context(text), dit.camera_context(torch.cat([c[2] for c in chunks], 1)))
    assert relative_error(torch.cat(streamed, 2), whole) < 1e-5


def test_window_is_sink_and_newest():
    window = WindowSpec(chunk_latents=4, window_latents=18, sink_latents=6)
    assert window.visible(0) == [0, 1, 2, 3]
    assert window.visible(16) == [*range(6), *range(8, 20)]
    assert window.visible(24) == [*range(6), *range(16, 28)]
    for start in range(0, 80, 4):
        visible = window.visible(start)
        assert len({window.slots(i) for i in visible}) == len(visible) == min(start + 4, 18)


def test_a_chunk_written_again_overwrites_itself():
    dit = random_network()
    window = WindowSpec(2, 6, 2)
    chunks = [random_chunk(num_latents=2, seed=i) for i in range(5)]
    _, cache = stream(dit, window, chunks)
    before = cache.snapshot()
    latents, text, rays = chunks[-1]
    args = dit.time_context(700.0), dit.text_context(text), dit.camera_context(rays), 8, cache
    noise = dit(torch.randn_like(latents), *args)
    assert not all(map(torch.equal, cache.snapshot(), before))
    velocity = dit(latents, *args)
    assert all(map(torch.equal, cache.snapshot(), before))
    assert not torch.equal(velocity, noise)


def test_rotation_with_an_offset_is_a_slice_of_a_long_one():
    dims = TINY.rope_dims
    long = rotation(dims, GRID, 0, 12, 'cpu')
    part = rotation(dims, GRID, 7, 3, 'cpu')
    for whole, piece in zip(long, part):
        assert torch.equal(whole[7 * TOKENS:10 * TOKENS], piece)


def test_rotation_turns_scores_by_distance_alone_beyond_1024_latents():
    dims = (128 - 84, 42, 42)
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 128, dtype=torch.float64)

    def score(query_at, key_at):
        at = [rotation(dims, (1, 1), latent, 1, 'cpu') for latent in (query_at, key_at)]
        return float((rotate(q.float(), at[0]) * rotate(k.float(), at[1])).sum())

    near = score(12, 3)
    assert score(1030, 1021) == pytest.approx(near, abs=1e-4)
    assert score(100_012, 100_003) == pytest.approx(near, abs=2e-4)
    assert abs(score(12, 8) - near) > 1e-3


def test_stream_goes_on_past_1024_latents():
    dit = random_network()
    window = WindowSpec(2, 6, 2)
    chunks = [random_chunk(num_latents=2, seed=i) for i in range(5)]
    velocities, _ = stream(dit, window, chunks, first_latent=4000)
    assert all(torch.isfinite(v).all() for v in velocities)
