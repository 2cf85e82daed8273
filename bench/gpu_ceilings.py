# SPDX-License-Identifier: Apache-2.0
"""
How fast this device does single things: products, attention by each back end, copies.

Measured first, so that the rungs of ``bench.gpu_stream`` can be compared with what is possible.
On a GPU our own kernels are tried in a process of their own: one that reads where it must not
would take everything else down with it. That process is this module: it prints one JSON object.
"""
import argparse
from functools import partial
import json
from pathlib import Path
import subprocess
import sys
import time

from bench.gpu_parts import Case, CASES, relative_error
from bench.latency import percentile
from lingbot_world_ros.errors import shown
from lingbot_world_ros.models.wan import kernels
from lingbot_world_ros.models.wan.attention import CALLS, resolve
import torch

REPEATS, SHORT_S = 7, 0.4  # per measurement, whichever comes first
GEMM_SIZE = {'cuda': 8192, 'cpu': 256}
COPY_BYTES = {'cuda': 2 << 30, 'cpu': 1 << 20}
EXACT = ('flash_attn_3', 'flash_attn_2', 'cudnn', 'flash', 'efficient', 'sdpa')
QUANTISED = {'int8': None, 'fp8': kernels.FP8}
TERA = 1e12
OWN = 'our kernels'
ROOT = Path(__file__).resolve().parent.parent
CHILD_S = 150


def seconds(call, device: torch.device) -> float:
    """
    Time a call.

    :param call: launches work
    :param device: that does it
    :return: median of a few, after two that do not count
    """
    for _ in range(2):
        call()
    times, begin_s = [], time.perf_counter()
    while len(times) < REPEATS and (not times or time.perf_counter() - begin_s < SHORT_S):
        times.append(_once(call, device))
    return percentile(times, 50)


def _once(call, device):
    if device.type != 'cuda':
        start_s = time.perf_counter()
        call()
        return time.perf_counter() - start_s
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    call()
    after.record()
    after.synchronize()
    return 1e-3 * before.elapsed_time(after)


def ceilings(case: Case, device: torch.device, dtype: torch.dtype, guard) -> dict:
    """
    Measure all of them; what fails is a reason instead of a number.

    :param case: whose sizes the products and attention have
    :param device: that is measured
    :param dtype: of weights and activations
    :param guard: (call) -> result, or {'failed': reason}
    :return: name -> numbers
    """
    size = GEMM_SIZE[device.type]
    d, wide, n = case.spec.dim, case.spec.ffn_dim, case.chunk_tokens
    found = {f'gemm {size} cubed': guard(partial(_gemm, size, size, size, device, dtype)),
             f'gemm {n} x {d} x {wide}': guard(partial(_gemm, n, d, wide, device, dtype)),
             'copy on the device': guard(partial(_copy, device)),
             'frames to the host': guard(partial(_to_host, case, device))}
    found.update(attentions(case, device, dtype, guard, {
        name: partial(_resolved, name, case, device, dtype) for name in EXACT}))
    if device.type == 'cuda':
        theirs = guard(partial(_in_a_child, case, device))
        return {**found, **({OWN: theirs} if 'failed' in theirs else theirs)}
    return {**found, **own_kernels(case, device, dtype, guard)}


def _resolved(name, case, device, dtype):
    return resolve(name, device, dtype, case.spec.head_dim).call


def own_kernels(case: Case, device: torch.device, dtype: torch.dtype, guard) -> dict:
    """Measure what runs our own kernels on a GPU; see ``ceilings``."""
    d, wide, n = case.spec.dim, case.spec.ffn_dim, case.chunk_tokens
    calls = quantised_calls(device)
    return {f'fp8 gemm {n} x {d} x {wide}': guard(partial(_gemm_fp8, n, d, wide, device)),
            'rows to fp8': guard(partial(_rows_to_fp8, n, d, device, dtype)),
            **attentions(case, device, dtype, guard,
                         {name: partial(calls.get, name) for name in calls})}


def _rows_to_fp8(n, d, device, dtype):
    """Time the kernel, and its plain twin."""
    x = torch.randn(1, n, d, device=device).to(dtype)
    (x8, _), (plain, _) = kernels.quantised_rows(x), kernels.plain_quantised_rows(x)
    return {'ms': 1e3 * seconds(lambda: kernels.quantised_rows(x), device),
            'plain_ms': 1e3 * seconds(lambda: kernels.plain_quantised_rows(x), device),
            'error': relative_error(x8.float(), plain.float())}


def _in_a_child(case, device):
    """Run this module; return what it printed."""
    done = subprocess.run(
        [sys.executable, '-m', 'bench.gpu_ceilings', '--model', case.name, '--device',
         str(device)], cwd=ROOT, capture_output=True, text=True, timeout=CHILD_S)
    if done.returncode:
        told = done.stderr.strip().splitlines()[-1:] or ['']
        raise RuntimeError(f'our kernels ended their process: {told[0]}')
    return json.loads(done.stdout.splitlines()[-1])


def _gemm(m, k, n, device, dtype):
    a = torch.randn(m, k, device=device, dtype=dtype)
    b = torch.randn(n, k, device=device, dtype=dtype)
    took_s = seconds(lambda: a @ b.T, device)
    return {'ms': 1e3 * took_s, 'tflops': 2 * m * k * n / took_s / TERA}


def _gemm_fp8(m, k, n, device):
    """Time the product alone, and with the quantisation of its input."""
    from lingbot_world_ros.models.wan.fp8 import check_device, FP8Linear
    check_device(device)
    with torch.device(device):
        layer = FP8Linear.from_linear(torch.nn.Linear(k, n, dtype=torch.bfloat16))
    x = torch.randn(m, k, device=device, dtype=torch.bfloat16)
    x8, scale = kernels.quantised_rows(x)
    took_s = seconds(lambda: layer._multiplied(x8, scale, torch.bfloat16), device)
    with_s = seconds(lambda: layer(x), device)
    return {'ms': 1e3 * took_s, 'tflops': 2 * m * k * n / took_s / TERA,
            'ms_with_quantisation': 1e3 * with_s}


def _copy(device):
    source = torch.randint(256, (COPY_BYTES[device.type],), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    took_s = seconds(lambda: target.copy_(source), device)
    return {'ms': 1e3 * took_s, 'tb_per_s': 2 * source.numel() / took_s / TERA}


def _to_host(case, device):
    shape = case.num_frames, case.size.height_px, case.size.width_px, 3
    frames = torch.randint(256, shape, dtype=torch.uint8, device=device)
    pinned = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == 'cuda')
    took_s = seconds(lambda: pinned.copy_(frames, non_blocking=True), device)
    return {'ms': 1e3 * took_s, 'gb_per_s': frames.numel() / took_s / 1e9}


def attentions(case: Case, device: torch.device, dtype: torch.dtype, guard, makers: dict) -> dict:
    """
    Time back ends at the sizes of a full window.

    :param case: whose sizes
    :param device: that is measured
    :param dtype: of queries, keys, values
    :param guard: (call) -> result, or {'failed': reason}
    :param makers: name -> function that returns the back end
    :return: 'attention <name>' -> ms, tflops, error against PyTorch's own
    """
    spec = case.spec
    shape = spec.num_heads, spec.head_dim
    q = torch.randn(1, case.chunk_tokens, *shape, device=device, dtype=dtype)
    # Slices of something longer, as in a cache.
    k, v = (torch.randn(1, case.window_tokens + 64, *shape, device=device, dtype=dtype)
            [:, :case.window_tokens] for _ in range(2))
    expected = CALLS['sdpa'](q, k, v)
    work = 4 * case.chunk_tokens * case.window_tokens * spec.dim / TERA

    def measured(make):
        call = make()
        error = relative_error(call(q, k, v), expected)
        took_s = seconds(lambda: call(q, k, v), device)
        return {'ms': 1e3 * took_s, 'tflops': work / took_s, 'error': error}
    return {f'attention {name}': guard(partial(measured, make)) for name, make in makers.items()}


def quantised_calls(device: torch.device) -> dict:
    """Return the 8-bit back ends by name, on a GPU with each of their tile sizes."""
    if device.type != 'cuda':
        return {name: CALLS[name] for name in QUANTISED}
    from lingbot_world_ros.models.wan.triton_kernels import TILES
    return {f'{name} {tile.queries}x{tile.keys} {tile.num_warps} warps {tile.num_stages} stages':
            partial(kernels.attend_8bit, value_dtype=dtype, tile=tile)
            for name, dtype in QUANTISED.items() for tile in TILES}


def fastest(found: dict, names) -> str:
    """
    Pick a back end.

    :param found: of ``ceilings``
    :param names: that come into question
    :return: the fastest of them, '' if none works
    """
    times = {name: found[f'attention {name}'].get('ms') for name in names
             if f'attention {name}' in found}
    return min((name for name in times if times[name] is not None), key=times.get, default='')


def guarded(call) -> dict:
    """Return what a call returns, or why it failed."""
    try:
        return call()
    except Exception as error:  # one measurement must not end the others
        lines = str(error).strip().splitlines()
        return {'failed': shown(f'{type(error).__name__}: {lines[0] if lines else ""}')}


def main():
    """Measure our own kernels and print the JSON."""
    parser = argparse.ArgumentParser(description='our own kernels')
    parser.add_argument('--model', choices=CASES, default='14b')
    parser.add_argument('--device', default='cuda')
    args = parser.parse_args()
    device = torch.device(args.device)
    dtype = torch.bfloat16 if device.type == 'cuda' else torch.float32
    print(json.dumps(own_kernels(CASES[args.model], device, dtype, guarded)))


if __name__ == '__main__':
    main()
