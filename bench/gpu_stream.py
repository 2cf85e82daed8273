# SPDX-License-Identifier: Apache-2.0
"""
What each means of speed does for LingBot-World as a stream, on one GPU, with random weights.

A ladder: two ways of others first (the published way of computing, and diffusers without a cache),
then ours with one more switch per rung, all in one process with the same weights, the same noise
and a full window. Predictions are printed before anything runs. Every rung is guarded: what fails
is a row with its reason. Writes ``gpu_stream.json`` after each rung, prints a table.
"""
import argparse
from datetime import datetime, timezone
import functools
import gc
import json
from pathlib import Path
import sys
import time
import warnings

from bench import gpu_ceilings, gpu_predict
from bench.gpu_parts import (Case, CASES, Clock, Inputs, random_network, random_vae,
                             relative_error, STAGES)
from bench.gpu_rungs import DiffusersStream, GraphedDiT, OwnStream, PlainStream
from bench.latency import percentile
from bench.machine import describe, memory_mib
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.models.wan.attention import CALLS, resolve
from lingbot_world_ros.models.wan.fp8 import quantise_fp8
from lingbot_world_ros.models.wan.tiny_vae import load_tiny_vae, TinyVAE
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
WHAT = {
    'upstream': 'the published way of computing, eager: nothing kept between passes',
    'diffusers': 'diffusers, eager: no cache, the whole window in every step, no camera',
    'caches': 'ours, eager: camera per chunk, text per prompt, time per schedule, integer slots',
    'attention': 'the fastest exact attention here',
    'decoder': 'video decoder in bfloat16, channels last',
    'compile': 'blocks compiled',
    'graphs': 'each pass replayed as one CUDA graph',
    'fp8': 'linear layers of the blocks in FP8',
    'attention8': 'attention with 8-bit scores',
    'tiny': 'tiny decoder in place of the full one',
    'emit': 'frames handed out before the cache is written',
    'compile_decoder': 'video decoder compiled (takes minutes; not in the usual ladder)'}
RUNGS = tuple(name for name in WHAT if name != 'compile_decoder')
TAKEN_BACK = ('attention', 'graphs', 'attention8')  # where they make it slower
FEW = {'upstream': 4, 'diffusers': 1}  # chunks at most
HOPPER = (9, 0)
WORSE = 1.01


class Options:
    """The command line, completed by what the machine has."""

    def __init__(self, args):
        """
        Check.

        :param args: of ``parse``
        :raises SpecError: if this device cannot run it
        """
        self.case: Case = CASES[args.model]
        name = args.device if args.device != 'auto' else (
            'cuda' if torch.cuda.is_available() else 'cpu')
        self.device = torch.device(name)
        if self.device.type != 'cuda' and self.case.name != 'tiny':
            raise SpecError(f'model {self.case.name} needs a CUDA device, none is here; use '
                            '--model tiny.')
        self.dtype = torch.bfloat16 if self.device.type == 'cuda' else torch.float32
        self.rungs, self.chunks, self.compiler = args.rungs, args.chunks, args.compiler
        self.tiny_decoder, self.out, self.ceilings = args.tiny_decoder, args.out, args.ceilings
        self.deadline_s = time.monotonic() + args.budget_s
        if self.device.type == 'cpu':
            torch.set_num_threads(1)  # with others at work more are slower


class Ladder:
    """Everything that the rungs switch."""

    def __init__(self, options: Options):
        """
        Make networks and fill the window.

        :param options: what to run
        """
        self.options, case = options, options.case
        self.clock = Clock(options.device)
        self.inputs = Inputs(case, options.device)
        self.dit = random_network(case.spec, options.device, options.dtype)
        self.vae = random_vae(case, options.device)
        self.dit.attend = CALLS['sdpa']
        self.own = OwnStream(case, self.dit, self.vae, self.inputs)
        self.ceilings, self.early, self.graphed = {}, False, False
        self.num_chunks = self.own.fill()
        self.exact = self.own.chunk(self.clock, early=False)
        self._undo = None  # what takes the newest switch back

    def switch(self, rung: str):
        """
        Climb to a rung.

        :param rung: name
        :return: what makes chunks there, and a note on what was chosen
        """
        self._undo = None
        note = getattr(self, f'_to_{rung}')()
        if rung == 'upstream':
            return PlainStream(self.own, self.dit, self.vae, self.inputs, CALLS['sdpa']), note
        if rung == 'diffusers':
            return DiffusersStream(self.options.case, self.dit, self.vae, self.inputs), note
        return self.own, note

    def take_back(self) -> None:
        """Go down one rung again, where that is possible."""
        if self._undo is not None:
            self._undo()
            self._undo = None

    def _to_upstream(self):
        return 'attention: sdpa'

    def _to_diffusers(self):
        return ''

    def _to_caches(self):
        return 'attention: sdpa'

    def _to_attention(self):
        name = gpu_ceilings.fastest(self.ceilings, gpu_ceilings.EXACT) or 'auto'
        spec = self.options.case.spec
        backend = resolve(name, self.options.device, self.options.dtype, spec.head_dim)
        self._attend_with(backend.call)
        return backend.name

    def _attend_with(self, call):
        before = self.dit.attend

        def undo():
            self.dit.attend = before
            self._record_again()
        self._undo, self.dit.attend = undo, call
        self._record_again()

    def _check_own(self):
        """Refuse kernels that ended the process they were tried in."""
        if gpu_ceilings.OWN in self.ceilings:
            raise SpecError('Our kernels did not work alone, see the single operations.')

    def _to_decoder(self):
        self.vae.set_decoder(torch.bfloat16)
        self.own.decode_with(self.vae)
        return ''

    def _to_compile_decoder(self):
        self.vae.decoder.compile(backend=self.options.compiler)
        return self.options.compiler

    def _to_compile(self):
        def undo():
            for block in self.dit.blocks:
                block._compiled_call_impl = None
        self._undo = undo
        for block in self.dit.blocks:
            block.compile(backend=self.options.compiler)
        return f'{self.options.compiler}, one block stands for all'

    def _to_graphs(self):
        if self.options.device.type != 'cuda':
            raise SpecError('CUDA graphs need a CUDA device.')

        def undo():
            self.graphed, self.own.stream.dit = False, self.dit
        self._undo, self.graphed = undo, True
        self._record_again()
        return ''

    def _record_again(self):
        if self.graphed:
            self.own.stream.dit = GraphedDiT(self.dit, self.own.stream.cache,
                                             self.options.case.window_tokens)

    def _to_fp8(self):
        report = quantise_fp8(self.dit)
        torch._dynamo.reset()
        self._record_again()
        saved = (report.bytes_before - report.bytes_after) / 2 ** 30
        return f'{report.num_layers} layers, {report.num_kept} kept, {saved:.1f} GiB less'

    def _to_attention8(self):
        calls = gpu_ceilings.quantised_calls(self.options.device)
        self._check_own()
        name = gpu_ceilings.fastest(self.ceilings, calls) or next(iter(calls))
        self._attend_with(calls[name])
        return name

    def _to_tiny(self):
        path, device = self.options.tiny_decoder, self.options.device
        if path:
            tiny = load_tiny_vae(path, device)
        else:
            torch.manual_seed(0)
            tiny = TinyVAE().to(device).eval().requires_grad_(False)
        self.own.decode_with(tiny.set_decoder(torch.bfloat16))
        return str(path) if path else 'random weights'

    def _to_emit(self):
        self.early = True
        return ''


def measured(ladder: Ladder, rung: str) -> dict:
    """
    Climb to a rung and measure it.

    :param ladder: at the rung before
    :param rung: name
    :return: the row
    """
    options, clock = ladder.options, ladder.clock
    runner, note = ladder.switch(rung)
    from torch._dynamo.utils import counters
    start_s, breaks = time.monotonic(), sum(counters['graph_break'].values())
    first = runner.chunk(clock, ladder.early)  # compiles, chooses algorithms
    row = {'note': note, 'error': None, 'frames_differ': None}
    if first.latents is not None:
        row['error'] = relative_error(first.latents, ladder.exact.latents)
    if runner is ladder.own:
        row['frames_differ'] = float(np.abs(first.frames.astype(np.int16)
                                            - ladder.exact.frames).mean())
    else:
        del first
    if rung != 'diffusers':
        runner.chunk(clock, ladder.early)
    row['warm_up_s'] = time.monotonic() - start_s
    row['graph_breaks'] = sum(counters['graph_break'].values()) - breaks
    _reset_peak(options.device)
    row.update(_timed(runner, ladder, FEW.get(rung, options.chunks)))
    row['memory_gib'] = _peak_gib(options.device)
    row.update(_counted(lambda: runner.chunk(clock, ladder.early), options.device))
    return row


def _timed(runner, ladder, count):
    """Make chunks; return their times."""
    chunks_ms, first_ms, stages = [], [], []
    while len(chunks_ms) < count and (
            not chunks_ms or time.monotonic() < ladder.options.deadline_s):
        made = runner.chunk(ladder.clock, ladder.early)
        ladder.clock.wait()
        chunks_ms.append(ladder.clock.wall_ms())
        first_ms.append(made.first_frame_ms)
        stages.append(ladder.clock.stages_ms())
    p50_ms = percentile(chunks_ms, 50)
    return {'chunks': len(chunks_ms),
            'chunk_ms': {'p50': p50_ms, 'p95': percentile(chunks_ms, 95)},
            'frames_per_s': 1e3 * ladder.options.case.num_frames / p50_ms,
            'first_frame_ms': percentile(first_ms, 50),
            'first_frame_at_worst_ms': percentile(first_ms, 50) + p50_ms,
            'stages_ms': {stage: percentile([each[stage] for each in stages], 50)
                          for stage in STAGES}}


def _reset_peak(device):
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gib(device):
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2 ** 30
    return memory_mib()['resident'] / 1024


def _counted(call, device) -> dict:
    """Count the kernels of one chunk, and how often the host waited for a number."""
    if device.type != 'cuda':
        return {'kernels': None, 'syncs': None}
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as told, torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            warnings.simplefilter('always')
            call()
            torch.cuda.synchronize(device)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    kernels = [event for event in profile.events()
               if event.device_type == torch.autograd.DeviceType.CUDA
               and not event.name.startswith(('Memcpy', 'Memset'))]
    return {'kernels': len(kernels),
            'syncs': sum('synchroniz' in str(each.message) for each in told)}


def climb(options: Options, result: dict, told) -> None:
    """
    Measure everything.

    :param options: what to run
    :param result: to be filled in
    :param told: called with a sentence on progress, after each part
    """
    found = {}
    if options.ceilings:
        found = gpu_ceilings.ceilings(options.case, options.device, options.dtype,
                                      gpu_ceilings.guarded)
        result['ceilings'] = found
        told('single operations')
    ladder = Ladder(options)
    ladder.ceilings = found
    result['filled_by_chunks'] = ladder.num_chunks
    told('network and full window')
    best_ms = float('inf')
    for rung in options.rungs:
        row = gpu_ceilings.guarded(functools.partial(_one, ladder, rung))
        slower = 'failed' not in row and row['chunk_ms']['p50'] > WORSE * best_ms
        row['kept'] = 'failed' not in row and not (rung in TAKEN_BACK and slower)
        if not row['kept']:
            ladder.take_back()
        elif rung not in FEW:
            best_ms = min(best_ms, row['chunk_ms']['p50'])
        result['rungs'][rung] = {'what': WHAT[rung], **row}
        _reset_peak(options.device)
        told(rung)


def _one(ladder, rung):
    if time.monotonic() > ladder.options.deadline_s:
        raise SpecError('the time is up; give more with --budget-s, or name fewer --rungs.')
    return measured(ladder, rung)


def table(result: dict) -> str:
    """
    Put the rows below each other.

    :param result: of ``climb``
    :return: Markdown
    """
    heads = ['rung', 'chunk p50 / p95 ms', 'predicted', 'frames/s', 'first frame', *STAGES,
             'GiB', 'kernels', 'syncs', 'error']
    lines = [' | '.join(heads), ' | '.join('---' for _ in heads)]
    for rung, row in result['rungs'].items():
        if 'failed' in row:
            lines.append(f'{rung} | failed: {row["failed"]}')
            continue
        expected = result['predictions'].get(rung, {}).get('chunk')
        cells = [rung + ('' if row['kept'] else ' (not kept)'),
                 f'{row["chunk_ms"]["p50"]:.1f} / {row["chunk_ms"]["p95"]:.1f}',
                 _number(expected, '.0f'), f'{row["frames_per_s"]:.1f}',
                 f'{row["first_frame_ms"]:.0f}',
                 *(f'{row["stages_ms"][stage]:.1f}' for stage in STAGES),
                 f'{row["memory_gib"]:.1f}', _number(row['kernels'], 'd'),
                 _number(row['syncs'], 'd'), _number(row['error'], '.1e')]
        lines.append(' | '.join(cells))
    return '\n'.join(f'| {line} |' for line in lines)


def ceilings_table(found: dict) -> str:
    """Put the single operations below each other."""
    lines = []
    for name, row in found.items():
        told = f'failed: {row["failed"]}' if 'failed' in row else ', '.join(
            f'{value:.3g} {unit}' for unit, value in row.items())
        lines.append(f'{name}: {told}')
    return '\n'.join(lines)


def predictions_table(predictions: dict) -> str:
    """Put what is expected below each other."""
    return '\n'.join(
        f'{rung}: ' + ', '.join(f'{stage} {value:.0f}' for stage, value in row.items())
        for rung, row in predictions.items())


def _number(value, form):
    return '-' if value is None else format(value, form)


def device_of(options: Options) -> dict:
    """Describe what computes."""
    told = {'device': str(options.device), 'torch': torch.__version__,
            'dtype': str(options.dtype), 'threads': torch.get_num_threads()}
    if options.device.type == 'cuda':
        properties = torch.cuda.get_device_properties(options.device)
        told.update(gpu=properties.name, capability=f'{properties.major}.{properties.minor}',
                    memory_gib=properties.total_memory / 2 ** 30, cuda=torch.version.cuda,
                    cudnn=torch.backends.cudnn.version())
    return told


def predicted(options: Options) -> dict:
    """Predict where the assumptions are meant to hold; return them, too."""
    if options.device.type != 'cuda' or \
            torch.cuda.get_device_capability(options.device) != HOPPER:
        return {'predictions': {}, 'assumptions': {}}
    rates = gpu_predict.assumptions_for(torch.cuda.get_device_name(options.device))
    return {'predictions': gpu_predict.predict(options.case, rates),
            'assumptions': gpu_predict.told(rates)}


def parse(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='python -m bench.gpu_stream',
                                     description=__doc__.splitlines()[1])
    parser.add_argument('--model', choices=CASES, default='14b')
    parser.add_argument('--device', default='auto', help='auto, cuda, cuda:1 or cpu')
    parser.add_argument('--rungs', nargs='+', default=list(RUNGS), metavar='RUNG',
                        help=f'of {", ".join(WHAT)}; each switch stays on for the later ones')
    parser.add_argument('--chunks', type=int, default=6, help='that count, per rung')
    parser.add_argument('--budget-s', type=float, default=480.0,
                        help='no rung is begun later than that')
    parser.add_argument('--tiny-decoder', type=Path, metavar='FILE',
                        help='TAEHV weights; without them the tiny decoder has random ones')
    parser.add_argument('--compiler', default='inductor', help='backend of torch.compile')
    parser.add_argument('--no-ceilings', dest='ceilings', action='store_false',
                        help='skip the single operations; attention is then chosen by its order')
    parser.add_argument('--out', type=Path, default=ROOT / 'bench' / 'out', metavar='DIR',
                        help='where gpu_stream.json goes (default: bench/out)')
    args = parser.parse_args(argv)
    for rung in args.rungs:
        if rung not in WHAT:
            parser.error(str(unknown_name('rung', rung, WHAT)))
    return args


def main(argv=None) -> int:
    """Measure, write, print; return the exit code."""
    started_s = time.monotonic()
    try:
        options = Options(parse(argv))
    except SpecError as error:
        print(f'bench.gpu_stream: {error}', file=sys.stderr)
        return 2
    command = ['python -m bench.gpu_stream', *(sys.argv[1:] if argv is None else argv)]
    result = {'command': ' '.join(map(str, command)), 'machine': describe(),
              'device': device_of(options), 'model': options.case.name,
              'started': datetime.now(timezone.utc).isoformat(timespec='seconds'),
              **predicted(options), 'ceilings': {}, 'rungs': {}}
    options.out.mkdir(parents=True, exist_ok=True)
    if result['predictions']:
        print(f'Predicted, ms per chunk:\n{predictions_table(result["predictions"])}\n',
              flush=True)

    def told(part):
        result['seconds'] = time.monotonic() - started_s
        (options.out / 'gpu_stream.json').write_text(json.dumps(result, indent=1) + '\n')
        print(f'[bench {result["seconds"]:4.0f} s] {part}', file=sys.stderr, flush=True)
    failed = gpu_ceilings.guarded(lambda: climb(options, result, told) or {})
    if failed:
        result['failed'] = failed['failed']
        told(failed['failed'])
    print(f'{ceilings_table(result["ceilings"])}\n\n{table(result)}')
    return 1 if failed else 0


if __name__ == '__main__':
    raise SystemExit(main())
