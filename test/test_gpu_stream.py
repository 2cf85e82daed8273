# SPDX-License-Identifier: Apache-2.0
"""The ladder on a CPU at tiny sizes, its predictions, and what a GPU would record and replay."""
import json

import pytest

torch = pytest.importorskip('torch')

from bench import gpu_ceilings, gpu_predict, gpu_rungs, gpu_stream  # noqa: E402, I100
from bench.gpu_parts import (CASES, Clock, Inputs, random_network, random_vae,  # noqa: E402
                             relative_error)
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.models.wan.attention import CALLS  # noqa: E402
from lingbot_world_ros.models.wan.kv_cache import KVCache  # noqa: E402

CPU = torch.device('cpu')
TINY = CASES['tiny']


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    yield
    torch._dynamo.reset()


@pytest.fixture(scope='module')
def result(tmp_path_factory):
    """Run the whole ladder once; return its JSON."""
    out = tmp_path_factory.mktemp('gpu_stream')
    assert gpu_stream.main(['--model', 'tiny', '--device', 'cpu', '--compiler', 'aot_eager',
                            '--chunks', '2', '--out', str(out)]) == 0
    return json.loads((out / 'gpu_stream.json').read_text())


@pytest.mark.slow
def test_every_rung_is_a_row(result):
    assert list(result['rungs']) == list(gpu_stream.RUNGS)
    for rung, row in result['rungs'].items():
        if rung == 'graphs':
            assert 'need a CUDA device' in row['failed']
        elif rung != 'diffusers' or 'failed' not in row:
            assert 'failed' not in row, (rung, row)
            assert row['chunk_ms']['p50'] > 0 and row['frames_per_s'] > 0
            assert 0 < row['first_frame_ms'] <= row['chunk_ms']['p95']
            assert set(row['stages_ms']) == {'encode', 'diffuse', 'write', 'decode', 'copy'}


@pytest.mark.slow
def test_rungs_compute_the_same_chunk(result):
    """Exact ones to rounding, quantised ones nearly."""
    errors = {rung: row['error'] for rung, row in result['rungs'].items() if 'failed' not in row}
    for rung in ('upstream', 'caches', 'attention', 'decoder', 'compile'):
        assert errors[rung] < 1e-5, rung
    for rung in ('fp8', 'attention8', 'tiny', 'emit'):
        assert 1e-4 < errors[rung] < 0.1, rung
    assert result['rungs']['caches']['frames_differ'] == 0.0
    assert result['rungs']['compile']['graph_breaks'] == 0


@pytest.mark.slow
def test_frames_come_before_the_cache_is_written_only_at_the_end(result):
    rows = result['rungs']
    assert rows['emit']['first_frame_ms'] < rows['emit']['chunk_ms']['p95']
    assert rows['emit']['stages_ms']['write'] > 0


@pytest.mark.slow
def test_result_says_what_it_was_made_on(result):
    assert result['machine']['processor'] and result['device']['torch'] == torch.__version__
    assert '--model tiny' in result['command']
    assert result['predictions'] == result['assumptions'] == {}  # they are for Hopper GPUs


@pytest.mark.slow
def test_single_operations_are_measured(result):
    found = result['ceilings']
    assert found['attention sdpa']['tflops'] > 0
    assert 0.001 < found['attention int8']['error'] < 0.05
    assert 'failed' in found['attention cudnn']
    assert found['rows to fp8']['error'] == 0.0  # one and the same on a CPU
    assert gpu_ceilings.fastest(found, gpu_ceilings.EXACT) in ('flash', 'sdpa')
    assert gpu_ceilings.fastest(found, ('cudnn', 'unheard of')) == ''


def test_work_agrees_with_counts_made_by_hand():
    """TFLOP of a chunk, counted independently: 579 of products, 503 and 9 of attention."""
    todo = gpu_predict.work(CASES['14b'])
    assert todo.blocks + todo.camera == pytest.approx(579, abs=1)
    assert todo.attention == pytest.approx(503 + 9.5, abs=1)
    assert todo.recompute_blocks == pytest.approx(2595, abs=2)
    small = gpu_predict.work(CASES['1.3b'])
    assert small.blocks + small.camera == pytest.approx(79, abs=1)
    assert small.attention == pytest.approx(151 + 2.8, abs=1)


@pytest.mark.parametrize('name', ['14b', '1.3b'])
def test_prediction_of_each_rung_is_no_slower_than_the_one_before(name):
    found = gpu_predict.predict(CASES[name])
    assert set(found) == set(gpu_stream.RUNGS)
    ours = [found[rung]['chunk'] for rung in gpu_predict.RUNGS[2:]]
    assert ours == sorted(ours, reverse=True)
    assert found['emit']['first_frame'] == pytest.approx(
        found['tiny']['first_frame'] - found['tiny']['write'])


def test_less_bandwidth_predicts_slower_chunks():
    slow, fast = (gpu_predict.assumptions_for(name) for name in ('NVIDIA H100', 'NVIDIA H200'))
    assert gpu_predict.told(slow)['memory'] < gpu_predict.told(fast)['memory']
    chunk_ms = {rates: gpu_predict.predict(CASES['14b'], rates)['emit']['chunk']
                for rates in (slow, fast)}
    assert chunk_ms[slow] > chunk_ms[fast]


def test_time_that_is_up_is_a_reason(tmp_path):
    assert gpu_stream.main(['--model', 'tiny', '--device', 'cpu', '--no-ceilings', '--budget-s',
                            '-1', '--rungs', 'caches', '--out', str(tmp_path)]) == 0
    row = json.loads((tmp_path / 'gpu_stream.json').read_text())['rungs']['caches']
    assert 'time is up' in row['failed'] and not row['kept']


def test_large_model_needs_a_gpu(tmp_path, capsys):
    assert gpu_stream.main(['--model', '14b', '--device', 'cpu', '--out', str(tmp_path)]) == 2
    assert 'needs a CUDA device' in capsys.readouterr().err


def test_unknown_rung_is_named(capsys):
    with pytest.raises(SystemExit):
        gpu_stream.parse(['--rungs', 'compil'])
    assert "Did you mean 'compile'" in capsys.readouterr().err


def test_failed_kernels_of_the_child_are_a_row(monkeypatch):
    """What takes a process down takes down only that one."""
    monkeypatch.setattr(gpu_ceilings.sys, 'executable', '/bin/false')
    with pytest.raises(RuntimeError, match='ended their process'):
        gpu_ceilings._in_a_child(TINY, CPU)


def test_child_prints_what_is_read():
    found = gpu_ceilings._in_a_child(TINY, CPU)
    assert {'attention int8', 'attention fp8', 'rows to fp8'} < set(found)


def test_kernels_that_end_their_process_are_not_used(monkeypatch):
    ladder = gpu_stream.Ladder.__new__(gpu_stream.Ladder)
    ladder.ceilings = {gpu_ceilings.OWN: {'failed': 'Fatal'}}
    monkeypatch.setattr(ladder, 'options', type('Options', (), {'device': CPU}), raising=False)
    with pytest.raises(SpecError, match='did not work alone'):
        ladder.switch('attention8')


class FakeGraph:
    """Does again what was recorded, into the same memory."""

    def __init__(self, call, result):
        self.call, self.result, self.replays = call, result, 0

    def replay(self):
        self.replays += 1
        self.result.copy_(self.call())


def test_replayed_passes_are_those_that_were_asked_for(monkeypatch):
    """Everything that changes from pass to pass reaches the graph."""
    graphs = []

    def recorded(call):
        result = call().clone()
        graphs.append(FakeGraph(call, result))
        return graphs[-1], result
    monkeypatch.setattr(gpu_rungs, 'recorded', recorded)
    dit = random_network(TINY.spec, CPU, torch.float32)
    dit.attend = CALLS['sdpa']
    window, per_latent = TINY.window, TINY.size.tokens_per_latent

    def run(network, cache):
        torch.manual_seed(0)
        text, outputs = dit.text_context(torch.randn(1, 8, 32)), []
        for first in range(0, 5 * window.chunk_latents, window.chunk_latents):
            camera = dit.camera_context(torch.randn(1, 2 * per_latent, TINY.spec.control_width))
            for timestep in (900.0, 500.0):
                latents = torch.randn(1, 36, 2, *TINY.size.latent)
                outputs.append(network(
                    latents, dit.time_context(timestep), text, camera, first, cache,
                    dit.rotation(first, 2, TINY.size.grid), cache.place(first, 2)))
        return torch.stack(outputs)

    def new_cache():
        return KVCache(window, num_layers=2, batch_size=1, tokens_per_latent=per_latent,
                       num_heads=2, head_dim=32, dtype=torch.float32, device=CPU)
    with torch.no_grad():
        expected, cache = run(dit, new_cache()), new_cache()
        result = run(gpu_rungs.GraphedDiT(dit, cache, TINY.window_tokens), cache)
    assert torch.equal(result, expected)
    assert len(graphs) == 1 and graphs[0].replays == 6


def test_repeated_chunk_is_always_the_same():
    dit, vae = random_network(TINY.spec, CPU, torch.float32), random_vae(TINY, CPU)
    dit.attend = CALLS['sdpa']
    own, clock = gpu_rungs.OwnStream(TINY, dit, vae, Inputs(TINY, CPU)), Clock(CPU)
    assert own.fill() == 3
    late, early = own.chunk(clock, early=False), own.chunk(clock, early=True)
    assert torch.equal(late.latents, early.latents) and (late.frames == early.frames).all()
    assert late.frames.shape == (8, 32, 48, 3)
    assert set(clock.stages_ms()) == set(gpu_rungs.Clock(CPU).stages_ms())


def test_random_network_is_neither_zero_nor_overflows():
    dit = random_network(TINY.spec, CPU, torch.bfloat16)
    assert all(p.isfinite().all() and p.any() for p in dit.parameters())
    assert relative_error(torch.ones(3), torch.ones(3)) == 0.0
