# SPDX-License-Identifier: Apache-2.0
"""What only a GPU can show; all of it is skipped without one."""
import pytest

torch = pytest.importorskip('torch')
if not torch.cuda.is_available():
    pytest.skip('no CUDA GPU', allow_module_level=True)

from lingbot_world_ros.engines.lingbot_world.engine import FrameCopy  # noqa: E402, I100
from lingbot_world_ros.geometry.camera import PinholeCamera  # noqa: E402
from lingbot_world_ros.models.wan.attention import attend, CALLS  # noqa: E402, I100
from lingbot_world_ros.models.wan.dit import WanDiT  # noqa: E402
from lingbot_world_ros.models.wan.fp8 import quantise_fp8  # noqa: E402
from lingbot_world_ros.models.wan.kv_cache import WindowSpec  # noqa: E402
from lingbot_world_ros.models.wan.schedule import FewStepSchedule  # noqa: E402
from lingbot_world_ros.models.wan.spec import DiTSpec, VideoSize  # noqa: E402
from lingbot_world_ros.models.wan.stream import CausalStream, StreamSpec  # noqa: E402
from lingbot_world_ros.models.wan.vae import VaeSpec, WanVAE  # noqa: E402
import numpy as np  # noqa: E402
from test_wan_attention import works  # noqa: E402

SPEC = DiTSpec(dim=256, ffn_dim=512, num_heads=2, num_layers=3, text_dim=64, text_len=16)
SIZE, WINDOW = VideoSize(64, 96), WindowSpec(3, 9, 3)
SCHEDULE = FewStepSchedule.from_indices((0, 250, 500, 750), 5.0)


def network(device='cuda', dtype=torch.float32):
    torch.manual_seed(0)
    dit = WanDiT(SPEC).eval().requires_grad_(False)
    for parameter in dit.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return dit.to(device, dtype)


def codec(device='cuda', dtype=torch.float32):
    torch.manual_seed(0)
    return WanVAE(VaeSpec(dim=8)).eval().requires_grad_(False).to(device).set_decoder(dtype)


def noise(chunk, step, shape):
    """The same on every device."""
    generator = torch.Generator().manual_seed(100 * chunk + step)
    return torch.randn(shape, generator=generator)


def make_stream(device='cuda', dtype=torch.float32, dit=None, in_8_bits=False, own_noise=False):
    dit = dit or network(device, dtype)
    vae = codec(device, torch.float16 if dtype is torch.bfloat16 else torch.float32)
    draw = None if own_noise else lambda *where: noise(*where).to(device)
    return CausalStream(dit, vae, StreamSpec(SIZE, WINDOW, SCHEDULE, in_8_bits),
                        PinholeCamera(96, 64, 60.0, 60.0, 47.5, 31.5), noise=draw)


def poses(step):
    forward = np.tile(np.eye(4), (3, 1, 1))
    forward[:, 2, 3] = step
    return forward


def clip(stream, num_chunks=5):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(3, SIZE.height_px, SIZE.width_px, generator=generator) * 2 - 1
    text = torch.randn(7, SPEC.text_dim, generator=generator)
    device = stream.dit.device
    stream.start(image.to(device), text.to(device), 3)
    frames = [stream.next_chunk(poses(0.2 * i)) for i in range(num_chunks)]
    return torch.cat(frames).cpu(), stream.newest_latents.cpu()


def error(result, expected):
    return float((result.float() - expected.float()).norm() / expected.float().norm())


@pytest.fixture(scope='module')
def on_cpu():
    return clip(make_stream('cpu'))


def test_stream_equals_that_of_the_cpu(on_cpu):
    assert error(clip(make_stream())[1], on_cpu[1]) < 2e-3  # float32 products may be TF32


@pytest.mark.parametrize('options, bound', (
    ({'dtype': torch.bfloat16}, 0.08), ({'dtype': torch.bfloat16, 'in_8_bits': True}, 0.1)),
    ids=('bf16', '8-bit cache'))
def test_16_bits_are_close(on_cpu, options, bound):
    assert error(clip(make_stream(**options))[1], on_cpu[1]) < bound


def test_fp8_is_close(on_cpu):
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip('this GPU has no FP8')
    dit = network(dtype=torch.bfloat16)
    quantise_fp8(dit)
    assert error(clip(make_stream(dtype=torch.bfloat16, dit=dit))[1], on_cpu[1]) < 0.15


def test_compiled_blocks_are_close(on_cpu):
    dit = network()
    for block in dit.blocks:
        block.compile()
    assert error(clip(make_stream(dit=dit))[1], on_cpu[1]) < 2e-3


@pytest.mark.parametrize('name', [name for name in CALLS
                                  if works(name, 'cuda', torch.bfloat16, 128)])
def test_attention_back_ends_agree(name):
    torch.manual_seed(0)
    q = torch.randn(1, 300, 4, 128, device='cuda', dtype=torch.bfloat16)
    k, v = torch.randn(2, 1, 1000, 4, 128, device='cuda', dtype=torch.bfloat16)
    exact = attend(q.double(), k.double(), v.double(), 'math')
    assert error(attend(q, k, v, name), exact) < 0.05


def test_nothing_waits_for_the_device_within_a_chunk():
    stream = make_stream(dtype=torch.bfloat16, own_noise=True)
    clip(stream, 2)
    stream.write_cache()
    state, tokens = stream._state, stream._rays.tokens(poses(0.1))
    camera = stream.dit.camera_context(tokens)
    place, rope = stream.cache.place(6, 3), stream.dit.rotation(6, 3, SIZE.grid)
    latents = torch.randn(1, 36, 3, *SIZE.latent, device='cuda')
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        with torch.no_grad():
            for time in stream._times:
                velocity = stream.dit(latents, time, state.text, camera, 6, stream.cache, rope,
                                      place)
            clean = SCHEDULE.predict_clean(latents[:, :16], velocity, 3)
            stream._decoder.decode_chunk(clean, state.decoder)
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_chunks_taken_back_and_snapshots_leave_the_same_bytes():
    stream = make_stream(own_noise=True)
    clip(stream, 3)
    saved = stream.snapshot()
    expected = stream.next_chunk(poses(0.3))
    stream.undo()
    assert torch.equal(stream.next_chunk(poses(0.3)), expected)
    clip(stream, 2)
    stream.restore(saved)
    assert torch.equal(stream.next_chunk(poses(0.3)), expected)


def test_frames_that_were_handed_out_stay_as_they_are():
    copy = FrameCopy()
    first = copy.to_host(torch.full((2, 4, 6, 3), 7, dtype=torch.uint8, device='cuda'))
    copy.to_host(torch.full((2, 4, 6, 3), 9, dtype=torch.uint8, device='cuda'))
    assert (first == 7).all()


def test_a_stream_that_goes_on_takes_no_more_memory():
    stream = make_stream(dtype=torch.bfloat16)
    clip(stream, 6)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for i in range(12):
        stream.next_chunk(poses(0.1 * i))
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before * 1.01
