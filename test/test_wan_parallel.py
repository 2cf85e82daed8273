# SPDX-License-Identifier: Apache-2.0
"""One network in two processes: same numbers as in one, and nobody waits for the dead."""
from dataclasses import replace
from functools import partial
import multiprocessing
import os
import time

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('safetensors')

from lingbot_world_ros.engines.interface import Start  # noqa: E402, I100
from lingbot_world_ros.engines.lingbot_world.engine import LingBotWorld  # noqa: E402
from lingbot_world_ros.errors import EngineLost, SpecError  # noqa: E402
from lingbot_world_ros.models.wan.kv_cache import WindowSpec  # noqa: E402
from lingbot_world_ros.models.wan.parallel import OnDevice, ParallelStream  # noqa: E402
from lingbot_world_ros.models.wan.ranks import Ranks  # noqa: E402
from lingbot_world_ros.models.wan.stream import StreamSpec  # noqa: E402
from lingbot_world_ros.models.wan.ulysses import check_num_gpus, devices_for, Ulysses  # noqa: E402
import numpy as np  # noqa: E402
from test_wan_stream import (CAMERA, clip, forward, make_stream, PlainVae, prompt,  # noqa: E402
                             SCHEDULE, SIZE)
import wan_checkpoints  # noqa: E402
from wan_companions import write_companions  # noqa: E402
from wan_parallel_worker import make_dit, make_moody_dit, make_no_dit, Passes  # noqa: E402

SLOW = pytest.mark.slow

WINDOW = WindowSpec(2, 6, 2)
STREAM = StreamSpec(SIZE, WINDOW, SCHEDULE)
SOON_S = 120.0  # a guard, far less than TIMEOUT_S: nobody waited for that
TIMEOUT_S = 1200.0


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def relative_error(result, expected):
    return float((result - expected).norm() / expected.norm())


@pytest.fixture(scope='module')
def passes():
    """Return a function that calls a method of Passes in two processes."""
    ranks, own = Ranks(partial(Passes, 2), 2, timeout_s=TIMEOUT_S), Passes(2, 0)
    yield lambda name, *args: ranks.together(
        lambda: getattr(own, name)(*args), name, *args)
    ranks.close()


@pytest.mark.parametrize('grid', ((2, 2, 3), (1, 3, 3), (1, 1, 1)),
                         ids=('even', 'padded', 'one_token'))
@pytest.mark.parametrize('with_camera', (True, False))
def test_clip_is_that_of_one_process(passes, grid, with_camera):
    result = passes('clip', grid, with_camera)
    assert relative_error(result, Passes(1, 0).clip(grid, with_camera)) < 1e-5


def test_films_made_in_each_pass_are_those_of_the_local_tokens(passes):
    result = passes('clip', (1, 3, 3), True, False)
    assert torch.equal(result, passes('clip', (1, 3, 3), True, True))


@pytest.mark.parametrize('grid', ((2, 3), (3, 3)))
def test_chunks_through_a_rolling_cache_are_those_of_one_process(passes, grid):
    assert relative_error(passes('chunks', *grid), Passes(1, 0).chunks(*grid)) < 1e-5


def test_heads_that_cannot_be_divided_name_what_works():
    with pytest.raises(SpecError, match=r'num_gpus=3 .* 40 .* use one of 1, 2, 4, 5, 8, 10, 20, '):
        check_num_gpus(3, 40)
    with pytest.raises(SpecError, match='num_gpus=0'):
        Ulysses(12, 0, 0)
    check_num_gpus(6, 12)
    assert devices_for(2, 'cpu', 2) == ('cpu', 'cpu')


def test_more_gpus_than_there_are_are_refused():
    with pytest.raises(SpecError, match='but there are'):
        devices_for(10, 'cuda:7', 40)


def parallel_stream(make=make_dit, vae=None):
    return ParallelStream(make('cpu'), vae or PlainVae(), STREAM,
                          CAMERA, make_dit=make, devices=('cpu', 'cpu'),
                          timeout_s=TIMEOUT_S)


@pytest.fixture(scope='module')
def trouble(tmp_path_factory):
    """Return the file by which a process is told what will happen to it."""
    file = tmp_path_factory.mktemp('trouble') / 'file'
    file.write_text('9 none')
    return file


@pytest.fixture(scope='module')
def stream(trouble):
    """Return a stream in a daemon process, as that of an isolated engine is."""
    config = multiprocessing.current_process()._config
    config['daemon'] = True
    vae = PlainVae()
    stream = parallel_stream(partial(make_moody_dit, trouble), OnDevice(vae, 'cpu'))
    config['daemon'] = False
    yield stream
    stream.close()
    assert not children()


def children():
    return {process.pid for process in multiprocessing.active_children()}


def busy(stream, chunk):
    """Use all that a stream can do."""
    if chunk in (1, 4):
        stream.write_cache()
    if chunk in (0, 3):
        stream.next_chunk(forward(-1.0))
        stream.undo()
    if chunk == 2:
        stream.set_text(prompt(1))


def assert_alike(frames, expected):
    """Rounding to levels may go either way."""
    assert (frames.int() - expected.int()).abs().max() <= 1


def test_stream_is_that_of_one_process(stream):
    alone = make_stream(WINDOW)
    assert_alike(clip(stream, after=busy), clip(alone, after=busy))
    assert stream.next_latent == 14
    assert relative_error(stream.newest_latents, alone.newest_latents) < 1e-4
    assert stream.cache.num_bytes * 2 == alone.cache.num_bytes


def test_snapshot_continues_with_the_same_bytes(stream):
    clip(stream, 3)
    saved = stream.snapshot()
    expected = [stream.next_chunk(forward(s)) for s in (0.3, 0.5)]
    clip(stream, 2, seed=9)
    stream.restore(saved)
    for step, frames in zip((0.3, 0.5), expected):
        assert torch.equal(stream.next_chunk(forward(step)), frames)
    for _ in range(3):
        saved = stream.snapshot()
    assert len(stream._stream.kept) <= 2  # the newest, and one that was dropped since


def test_misuse_ends_no_process(stream):
    before = children()
    clip(stream, 1)
    stream.undo()
    with pytest.raises(RuntimeError, match='no chunk'):
        stream.undo()
    assert children() == before
    assert_alike(stream.next_chunk(forward(0.0)), clip(make_stream(WINDOW), 1))


def test_numbers_that_are_not_finite_end_no_process(stream, trouble):
    before = children()
    trouble.write_text('1 nan')
    for _ in range(2):
        with pytest.raises(FloatingPointError):
            clip(stream, 1)
    trouble.write_text('9 none')
    assert children() == before
    assert_alike(clip(stream, 1), clip(make_stream(WINDOW), 1))


@pytest.mark.parametrize('told, kind, text', (
    pytest.param('0 memory', torch.OutOfMemoryError, '^broken on purpose', marks=SLOW),
    pytest.param('1 memory', MemoryError, 'rank 1: broken on purpose', marks=SLOW),
    pytest.param('1 value', EngineLost, 'rank 1 failed: ValueError: broken on purpose',
                 marks=SLOW),
    ('1 exit', EngineLost, r'rank 1 ended \(exit code 7\)')))
def test_failing_process_is_named_and_start_begins_anew(stream, trouble, told, kind, text):
    clip(stream, 1)
    kept = stream.snapshot()
    trouble.write_text(told)
    started = time.monotonic()
    with pytest.raises(kind, match=text) as error:
        stream.next_chunk(forward())
    assert time.monotonic() - started < SOON_S
    assert not children()
    if kind is EngineLost and 'value' in told:
        assert '_have_trouble' in str(error.value.__cause__)
    trouble.write_text('9 none')
    for call in (partial(stream.next_chunk, forward()), partial(stream.set_text, prompt())):
        with pytest.raises(EngineLost, match='reset the world'):
            call()
    assert_alike(clip(stream, 1), clip(make_stream(WINDOW), 1))
    with pytest.raises(EngineLost, match='snapshot was lost'):
        stream.restore(kept)


@pytest.mark.slow
def test_world_on_two_devices_shows_what_it_shows_on_one(tmp_path):
    pytest.importorskip('tokenizers')
    two_heads = replace(wan_checkpoints.TINY, dim=256, num_heads=2)
    folder = write_companions(wan_checkpoints.write_fast(tmp_path / 'lingbot-fast', two_heads))
    make = partial(LingBotWorld, checkpoint=str(folder), device='cpu', precision='fp32',
                   height_px=32, width_px=48, cache_dir=str(tmp_path / 'cache'))
    seen = [frames_of(make(num_gpus=num_gpus), tmp_path) for num_gpus in (1, 2)]
    assert_alike(*seen)
    assert seen[0].float().std() > 1
    assert not children()
    with pytest.raises(SpecError, match='num_gpus=3 does not divide the 2 attention heads'):
        make(num_gpus=3)


def frames_of(world, folder):
    """Return what a world shows in a few steps, and close it."""
    cv2 = pytest.importorskip('cv2')
    path = str(folder / 'start.png')
    cv2.imwrite(path, np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8))
    rgb = [world.reset('image', 1, start=Start('a quiet street', (path,))).rgb]
    actions = np.zeros((1, world.spec.frames_per_step, len(world.spec.action.dims)), np.float32)
    rgb.append(world.step(actions).rgb)
    world.finish_step()
    world.set_prompt('night')
    actions[..., -6:] = 0.01
    world.step(actions)
    world.undo_step()
    rgb.append(world.step(actions).rgb)
    world.close()
    return torch.from_numpy(np.concatenate(rgb, 1))


@pytest.mark.slow
def test_new_processes_take_the_place_of_those_before(stream):
    clip(stream, 1)
    with pytest.raises(SpecError, match='no such checkpoint'):
        parallel_stream_that_cannot_load()
    assert not children()
    with pytest.raises(EngineLost, match='reset the world'):
        stream.next_chunk(forward())
    assert not torch.distributed.is_initialized()
    assert 'GLOO_SOCKET_IFNAME' not in os.environ


def parallel_stream_that_cannot_load():
    return ParallelStream(make_dit('cpu'), PlainVae(), STREAM,
                          CAMERA, make_dit=make_no_dit, devices=('cpu', 'cpu'))
