# SPDX-License-Identifier: Apache-2.0
"""Linear layers in FP8: how far off, which ones, and what survives."""
import pytest

torch = pytest.importorskip('torch')

from lingbot_world_ros.errors import SpecError  # noqa: E402, I100
from lingbot_world_ros.models.wan import fp8  # noqa: E402
from lingbot_world_ros.models.wan.dit import WanDiT  # noqa: E402
from lingbot_world_ros.models.wan.fp8 import FP8Linear, quantise_fp8  # noqa: E402
from lingbot_world_ros.models.wan.spec import DiTSpec, LINGBOT_14B  # noqa: E402
from torch import nn  # noqa: E402

TINY = DiTSpec(dim=64, ffn_dim=96, num_heads=2, num_layers=2, text_dim=32, text_len=8)
PER_BLOCK = 10  # q k v o of both attentions, two of the feed-forward


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def relative_error(result, expected):
    return float((result.double() - expected.double()).norm() / expected.double().norm())


def velocity(dit):
    """Run one pass over two latent frames with a camera."""
    torch.manual_seed(1)
    text = dit.text_context(torch.randn(1, 5, TINY.text_dim))
    camera = dit.camera_context(torch.randn(1, 12, TINY.control_width))
    latents = torch.randn(1, TINY.in_channels, 2, 4, 6)
    return dit(latents, dit.time_context(500.0), text, camera)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('bias', [True, False])
def test_layer_is_near_the_original(dtype, bias):
    """Both factors have 3 bits of mantissa: 2.6 % each, 3.7 % together."""
    linear = nn.Linear(512, 256, bias=bias)
    x = torch.randn(2, 7, 512)
    result = FP8Linear.from_linear(linear.to(dtype))(x.to(dtype))
    assert result.dtype == dtype and result.shape == (2, 7, 256)
    assert relative_error(result, linear.float()(x)) < 0.045


def test_rows_and_outputs_have_scales_of_their_own():
    """A row a thousand times larger, and an output, do not spoil the others."""
    linear = nn.Linear(512, 256, bias=False)
    linear.weight[3] *= 1000
    x = torch.randn(9, 512)
    x[4] *= 1000
    result, expected = FP8Linear.from_linear(linear)(x), linear(x)
    small = torch.ones(256, dtype=torch.bool)
    small[3] = False
    assert relative_error(result[:4, small], expected[:4, small]) < 0.045
    assert relative_error(result[4], expected[4]) < 0.045


def test_cpu_multiplies_the_numbers_that_tensor_cores_would():
    """PyTorch's own FP8 product, where a CPU has it, gives the same."""
    layer = FP8Linear.from_linear(nn.Linear(64, 32).bfloat16())
    x = torch.randn(16, 64).bfloat16()
    try:
        product = layer._multiplied(*fp8.quantised_rows(x), torch.bfloat16)
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f'not here: {error}')
    assert relative_error(product, layer(x)) < 0.01


def test_blocks_are_quantised_and_the_rest_is_kept():
    dit = WanDiT(TINY)
    report = quantise_fp8(dit)
    assert report.num_layers == PER_BLOCK * TINY.num_layers
    assert report.num_kept == 6 + 3 + 4 * TINY.num_layers
    assert type(dit.blocks[1].ffn[2]) is FP8Linear
    for name in ('head.head', 'time_projection.1', 'blocks.0.cam_scale_layer'):
        assert type(dit.get_submodule(name)) is nn.Linear


def test_14b_gets_400_of_its_569_layers():
    with torch.device('meta'):
        dit = WanDiT(LINGBOT_14B)
    layers = [name for name, part in dit.named_modules() if type(part) is nn.Linear]
    assert len(fp8._without(layers, fp8.SKIP, check=True)) == 400 and len(layers) == 569


def test_bytes_are_those_of_the_module():
    dit = WanDiT(TINY).bfloat16()
    layers = [m for n, m in dit.blocks.named_modules()
              if type(m) is nn.Linear and 'cam_' not in n]
    report = quantise_fp8(dit)
    saved = sum(m.weight.numel() for m in layers) - 4 * sum(m.out_features for m in layers)
    assert report.bytes_before - report.bytes_after == saved
    assert report.bytes_after == fp8.num_bytes(dit)


def test_skip_takes_patterns():
    dit = WanDiT(TINY)
    report = quantise_fp8(dit, skip=('*.cam_*', 'blocks.0.*', 'head.head'))
    assert type(dit.blocks[0].self_attn.q) is nn.Linear
    assert type(dit.blocks[1].self_attn.q) is FP8Linear
    assert type(dit.text_embedding[0]) is FP8Linear
    assert report.num_kept == 1 + 10 + 4 * 2


def test_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(SpecError, match='layer to be left as it is'):
        quantise_fp8(WanDiT(TINY), skip=('blocks.7.*',))


def test_layers_of_odd_sizes_are_left():
    """Tensor cores multiply sixteen at a time."""
    model = nn.Sequential(nn.Linear(16, 40), nn.Linear(40, 32))
    assert quantise_fp8(model).num_layers == 0
    assert quantise_fp8(nn.Sequential(nn.Linear(16, 48), nn.Linear(48, 32))).num_layers == 2


def test_network_stays_near():
    dit = WanDiT(TINY)
    expected = velocity(dit)
    quantise_fp8(dit)
    assert 1e-4 < relative_error(velocity(dit), expected) < 0.05


def test_state_survives():
    dit = WanDiT(TINY)
    quantise_fp8(dit)
    other = WanDiT(TINY)
    quantise_fp8(other)
    other.load_state_dict(dit.state_dict(), strict=True)
    assert torch.equal(velocity(other), velocity(dit))


def test_casting_the_network_leaves_weights_in_fp8():
    dit = WanDiT(TINY)
    quantise_fp8(dit)
    dit.bfloat16()
    layer = dit.blocks[0].self_attn.q
    assert layer.weight.dtype == fp8.FP8 and layer.weight_scale.dtype == torch.float32
    assert layer.bias.dtype == torch.bfloat16


def test_one_graph_when_compiled():
    layer = FP8Linear.from_linear(nn.Linear(64, 32))
    x = torch.randn(5, 64)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    assert torch.allclose(compiled(x), layer(x), atol=1e-6)


def test_old_gpu_is_refused_by_its_capability(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'A100')
    with pytest.raises(SpecError, match=r'capability 8\.9 or higher; A100 has 8\.0'):
        fp8.check_device(torch.device('cuda'))
