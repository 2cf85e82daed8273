# SPDX-License-Identifier: Apache-2.0
"""Streaming chunk by chunk: golden clip, undo, snapshots, prompt changes, errors."""
from dataclasses import replace
import json

import pytest

torch = pytest.importorskip('torch')

from lingbot_world_ros.actions.camera_path import video_camera  # noqa: E402, I100
from lingbot_world_ros.geometry.camera import PinholeCamera  # noqa: E402
from lingbot_world_ros.models.wan.dit import WanDiT  # noqa: E402
from lingbot_world_ros.models.wan.kv_cache import WindowSpec  # noqa: E402
from lingbot_world_ros.models.wan.schedule import FewStepSchedule  # noqa: E402
from lingbot_world_ros.models.wan.spec import (DiTSpec, LINGBOT_14B, LINGBOT_1_3B,  # noqa: E402
                                               VideoSize)
from lingbot_world_ros.models.wan.stream import CausalStream, StreamSpec  # noqa: E402
import numpy as np  # noqa: E402
from test_wan_dit import golden, golden_network, needs_golden, relative_error  # noqa: E402

SIZE = VideoSize(32, 48)
TINY = DiTSpec(dim=64, ffn_dim=96, num_heads=2, num_layers=2, text_dim=24, text_len=8)
SCHEDULE = FewStepSchedule.from_indices((0, 500, 750), 5.0)
CAMERA = PinholeCamera(48, 32, 30.0, 30.0, 23.5, 15.5)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class PlainVae:
    """
    Latents shown as they are: the first of a clip once, the others four times each.

    Its memory counts chunks, so that a decoder that is not rewound would be noticed.
    """

    settled_latents = 9

    def start_condition(self, image, num_latents):
        self.image = image
        fade = torch.linspace(1.0, 0.0, num_latents)[:, None, None]
        rows = torch.nn.functional.interpolate(image[None], SIZE.latent)[0].mean(0)
        return (rows * fade).expand(16, -1, -1, -1).contiguous()

    def decode_chunk(self, latents, cache):
        chunk = 0 if cache is None else cache
        frames = latents[:, :3].repeat_interleave(4, 2)
        return (frames if chunk else frames[:, :, 3:]) / 3 + 0.01 * chunk, chunk + 1


def network(seed=0):
    torch.manual_seed(seed)
    dit = WanDiT(TINY).eval()
    for parameter in dit.parameters():
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return dit


def make_stream(window=WindowSpec(2, 6, 2), in_8_bits=False):
    spec = StreamSpec(SIZE, window, SCHEDULE, in_8_bits)
    return CausalStream(network(), PlainVae(), spec, CAMERA)


def image(seed=0):
    return torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def prompt(seed=0):
    return torch.randn(5, TINY.text_dim, generator=torch.Generator().manual_seed(seed))


def forward(step=1.0, num_latents=2):
    poses = np.tile(np.eye(4), (num_latents, 1, 1))
    poses[:, 2, 3] = step
    return poses


def test_first_chunk_is_three_frames_shorter():
    stream = make_stream()
    stream.start(image(), prompt(), 0)
    assert [stream.next_chunk(forward()).shape for _ in range(2)] == [(5, 4, 6, 3), (8, 4, 6, 3)]
    assert stream.next_latent == 4


def clip(stream, num_chunks=7, seed=3, after=lambda stream, chunk: None):
    """Return the frames of a clip."""
    stream.start(image(), prompt(), seed)
    chunks = []
    for chunk in range(num_chunks):
        chunks.append(stream.next_chunk(forward(0.1 * chunk)))
        after(stream, chunk)
    return torch.cat(chunks)


def test_same_seed_gives_the_same_clip_and_another_seed_another():
    stream = make_stream()
    first = clip(stream)
    assert torch.equal(clip(stream), first)
    assert not torch.equal(clip(stream, seed=4), first)


def test_camera_and_prompt_matter():
    stream = make_stream()
    stream.start(image(), prompt(), 0)
    seen = stream.next_chunk(forward(1.0))
    for poses, text in ((forward(0.0), prompt()), (forward(1.0), prompt(1))):
        stream.start(image(), text, 0)
        assert not torch.equal(stream.next_chunk(poses), seen)


def test_early_and_late_cache_writes_give_the_same_clip():
    late = clip(make_stream())
    early = clip(make_stream(), after=lambda stream, chunk: stream.write_cache())
    assert torch.equal(late, early)


@pytest.mark.parametrize('written', (True, False))
def test_a_chunk_that_was_taken_back_leaves_no_trace(written):
    def detour(stream, chunk):
        if written:
            stream.write_cache()
        if chunk in (0, 2, 5):
            stream.next_chunk(forward(-1.0))
            if written:
                stream.write_cache()
            stream.undo()
    assert torch.equal(clip(make_stream(), after=detour), clip(make_stream()))


def test_only_the_newest_chunk_can_be_taken_back():
    stream = make_stream()
    stream.start(image(), prompt(), 0)
    stream.next_chunk(forward())
    stream.undo()
    with pytest.raises(RuntimeError, match='no chunk'):
        stream.undo()


@pytest.mark.parametrize('in_8_bits', (False, True))
def test_snapshot_continues_with_the_same_bytes(in_8_bits):
    stream = make_stream(in_8_bits=in_8_bits)
    clip(stream, 4)
    saved = stream.snapshot()
    cache = stream.cache.snapshot()
    expected = [stream.next_chunk(forward(s)) for s in (0.3, 0.5, 0.2, 0.1)]
    clip(stream, 2, seed=9)
    stream.restore(saved)
    assert all(map(torch.equal, stream.cache.snapshot(), cache))
    for step, frames in zip((0.3, 0.5, 0.2, 0.1), expected):
        assert torch.equal(stream.next_chunk(forward(step)), frames)


@pytest.mark.parametrize('window', (WindowSpec(2, 6, 2), WindowSpec(2, 7, 3), WindowSpec(2, 4, 0),
                                    WindowSpec(2, 12, 2)), ids=str)
def test_refreshing_with_the_same_prompt_changes_nothing_while_all_is_in_view(window):
    """Only what was evicted since makes a difference: keys made in its sight."""
    stream = make_stream(window)
    stream.start(image(), prompt(), 0)
    for _ in range(2):
        stream.next_chunk(forward())
    stream.write_cache()
    before = stream.cache.snapshot()
    stream.set_text(prompt())
    stream.next_chunk(forward())
    kept = 4 * SIZE.tokens_per_latent  # the first two chunks
    if window.window_latents >= 6:
        for now, then in zip(stream.cache.snapshot(), before):
            torch.testing.assert_close(now[:, :kept], then[:, :kept])


def test_new_prompt_rewrites_the_window_but_not_the_sink():
    stream = make_stream(WindowSpec(2, 8, 2))
    clip(stream, 5)
    stream.write_cache()
    before = stream.cache.snapshot()
    stream.set_text(prompt(1))
    stream.next_chunk(forward())
    for now, then in zip(stream.cache.snapshot()[-2:], before[-2:]):  # of the last block
        changed = (now != then).view(8, -1).any(-1).tolist()  # by latent frame
        assert changed == [False, False, *[True] * 6]


def test_cache_in_8_bits_is_smaller_and_nearly_the_same():
    exact, small = make_stream(), make_stream(in_8_bits=True)
    for stream in (exact, small):
        clip(stream, 6)
    assert small.cache.num_bytes < 0.3 * exact.cache.num_bytes  # of float32
    error = relative_error(small.newest_latents, exact.newest_latents)
    assert 0 < error < 0.02


def test_new_prompt_acts_on_the_next_chunk_and_survives_undo():
    def with_prompt(detour):
        stream = make_stream()
        clip(stream, 4)
        stream.set_text(prompt(1))
        if detour:
            stream.next_chunk(forward(2.0))
            stream.undo()
        return stream.next_chunk(forward(0.5))
    plain = make_stream()
    clip(plain, 4)
    assert torch.equal(with_prompt(False), with_prompt(True))
    assert not torch.equal(with_prompt(False), plain.next_chunk(forward(0.5)))


def test_undo_keeps_a_prompt_that_was_set_after_the_chunk():
    def with_prompt(detour):
        stream = make_stream()
        clip(stream, 4)
        if detour:
            stream.set_text(prompt(1))
            stream.next_chunk(forward(2.0))
        stream.set_text(prompt(2))
        if detour:
            stream.undo()
        return stream.next_chunk(forward(0.5))
    assert torch.equal(with_prompt(False), with_prompt(True))


@pytest.mark.slow
@pytest.mark.parametrize('spec, window, first, expected_tflop', (
    (LINGBOT_14B, WindowSpec(3, 18, 3), 300, 1091),
    (LINGBOT_1_3B, WindowSpec(4, 18, 6), 300, 233)))
def test_real_sizes_stay_on_one_device_and_cost_what_arithmetic_says(spec, window, first,
                                                                     expected_tflop):
    """One chunk and its cache at 464 x 832, window full, on tensors without values.

    Whatever is made on the CPU and not moved would not mix with them.
    """
    from torch.utils.flop_counter import FlopCounterMode

    class ValuelessStream(CausalStream):
        def _check_finite(self, clean):
            assert clean.device.type == 'meta'

    size, schedule = VideoSize(464, 832), FewStepSchedule.from_indices((0, 179, 358, 679), 10.0)
    with torch.device('meta'):
        dit = WanDiT(spec).to(torch.bfloat16)
    vae = PlainVae()
    vae.start_condition = lambda image, n: torch.empty(16, n, *size.latent, device='meta')
    stream = ValuelessStream(
        dit, vae, StreamSpec(size, window, schedule), PinholeCamera.from_fovx(832, 464, 1.4),
        noise=lambda chunk, step, shape: torch.empty(shape, device='meta'))
    stream.start(torch.empty(3, 464, 832), torch.empty(40, spec.text_dim), 0)
    stream._state = replace(stream._state, next_latent=first)
    with FlopCounterMode(display=False) as counter:
        stream.next_chunk(forward(0.1, window.chunk_latents))
        stream.write_cache()
    tflop = counter.get_total_flops() / 1e12
    print(f'{tflop:.1f} TFLOP')
    assert tflop == pytest.approx(expected_tflop, rel=0.005)


def test_failed_chunk_leaves_the_stream_as_it_was():
    stream = make_stream()
    expected = clip(make_stream())
    broken = stream.dit.blocks[1].ffn[2]

    def fail(stream, chunk):
        weight, broken.weight = broken.weight, None
        with pytest.raises(Exception):
            stream.next_chunk(forward(0.1 * (chunk + 1)))
        broken.weight = weight
    assert torch.equal(clip(stream, after=fail), expected)


def test_latents_that_are_not_finite_are_an_error():
    stream = make_stream()
    stream.start(image(), prompt(), 0)
    poses = forward()
    poses[0, 0, 3] = np.nan
    with pytest.raises(FloatingPointError, match='not finite'):
        stream.next_chunk(poses)
    assert stream.next_latent == 0


@needs_golden
def test_three_chunks_give_the_golden_latents():
    g, about = golden('lingbot_world_fast_tiny')
    dit = golden_network(g, about['config'])
    size = VideoSize(int(about['height']), int(about['width']))
    schedule = FewStepSchedule.from_indices((0, 179, 358, 679), 10.0)
    assert list(schedule.timesteps) == json.loads(about['timesteps'])
    chunk = int(about['chunk_frames'])
    window = WindowSpec(chunk, int(about['window_frames_total']), 0)

    class GoldenStream(CausalStream):
        def _condition(self, state, first, f):  # the golden mask is random, too
            return g['input.y'][None, :, first:first + f]

    def noise(index, step, shape):
        if step:
            return g['input.renoise'][index, step - 1][None]
        return g['input.noise'][None, :, chunk * index:chunk * (index + 1)]

    camera = video_camera(g['camera.intrinsics'][0].tolist(), size.width_px, size.height_px)
    stream = GoldenStream(dit, PlainVae(), StreamSpec(size, window, schedule), camera, noise=noise)
    stream.start(torch.zeros(3, size.height_px, size.width_px), g['input.text'], 0)
    relative = g['camera.relative'].double().numpy()
    latents = []
    for i in range(0, len(relative), chunk):
        stream.next_chunk(relative[i:i + chunk])
        latents.append(stream.newest_latents[0])
    assert relative_error(torch.cat(latents, 1), g['output.latents']) < 1e-4
