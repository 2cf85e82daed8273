# SPDX-License-Identifier: Apache-2.0
"""
The fused kernels against their plain twins, in Triton's interpreter.

Triton decides when it is imported whether it interprets, so a second process does: it runs the
tests marked ``interpreted`` of this file. The rest run here, as plain torch.
"""
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip('torch')

from lingbot_world_ros.models.wan import kernels  # noqa: E402, I100

FP8 = kernels.FP8
D = 128
needs_triton = pytest.mark.skipif(not kernels.HAS_TRITON, reason='triton is not installed')
interpreted = pytest.mark.skipif(not kernels.INTERPRETED, reason='runs in the second process')


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def attention_input(n, m, dtype=torch.float16, shift=0.0, outlier=1.0):
    """Return q and views into a longer cache; keys share ``shift``, one channel is larger."""
    cache = torch.randn(2, 2, m + 40, 2, D)
    cache[0] += shift * torch.randn(1, 1, 2, D)
    q = torch.randn(2, n, 2, D)
    q[..., 5] *= outlier
    cache[0, ..., 5] *= outlier
    cache = cache.to(dtype)
    return q.to(dtype), cache[0, :, :m], cache[1, :, :m]


def exact(q, k, v):
    q, k, v = (x.double() for x in (q, k, v))
    scores = torch.einsum('bnhd,bmhd->bhnm', q, k) / q.shape[-1] ** 0.5
    return torch.einsum('bhnm,bmhd->bnhd', scores.softmax(-1), v)


def relative_error(result, expected):
    return float((result.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.slow
@needs_triton
def test_kernels_in_the_interpreter():
    """Run the tests that need it where Triton interprets."""
    if kernels.INTERPRETED:
        pytest.skip('this is the second process')
    done = subprocess.run([sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', '-k',
                           'kernel_', __file__], capture_output=True, text=True,
                          timeout=600, env={**os.environ, 'TRITON_INTERPRET': '1'})
    if 'only 0-dimensional arrays can be converted' in done.stdout:
        pytest.skip('this Triton cannot interpret loops with this NumPy')
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'passed' in done.stdout and 'skipped' not in done.stdout.splitlines()[-1]


@pytest.mark.parametrize('case, int8_error, fp8_error', [
    ({}, 0.015, 0.045), ({'shift': 4.0}, 0.015, 0.045), ({'outlier': 5.0}, 0.03, 0.06)],
    ids=['random', 'keys with a common part', 'a channel five times larger'])
def test_8bit_error_is_bounded(case, int8_error, fp8_error):
    """Bounds are about 1.3 times what was seen."""
    q, k, v = attention_input(96, 500, torch.float32, **case)
    expected = exact(q, k, v)
    int8 = relative_error(kernels.attend_8bit(q, k, v), expected)
    fp8 = relative_error(kernels.attend_8bit(q, k, v, FP8), expected)
    assert int8 < int8_error and fp8 < fp8_error, (int8, fp8)


def test_subtracting_the_mean_key_is_what_bounds_it(monkeypatch):
    q, k, v = attention_input(96, 500, torch.float32, shift=20.0)
    expected = exact(q, k, v)
    smooth = relative_error(kernels.attend_8bit(q, k, v), expected)
    monkeypatch.setattr(kernels, 'key_mean', lambda k: torch.zeros_like(k[:, 0]))
    assert relative_error(kernels.plain_attend_8bit(q, k, v), expected) > 5 * smooth


@interpreted
@pytest.mark.parametrize('n, m', [(70, 200), (128, 64), (1, 1), (33, 129)])
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
def test_kernel_attends_like_its_twin(n, m, dtype):
    """Values in float16: the interpreter multiplies no bfloat16."""
    q, k, v = attention_input(n, m, dtype, shift=2.0)
    result = kernels.attend_8bit(q, k, v, torch.float16)
    assert result.dtype == dtype
    # Weights are rounded relative to the largest so far, not the largest of all.
    assert relative_error(result, kernels.plain_attend_8bit(q, k, v, torch.float16)) < 2e-3


@interpreted
def test_kernel_with_other_tiles_agrees():
    from lingbot_world_ros.models.wan.triton_kernels import Tile
    q, k, v = attention_input(70, 200)
    result = kernels.attend_8bit(q, k, v, tile=Tile(32, 32))
    assert relative_error(result, exact(q, k, v)) < 0.015


@interpreted
def test_kernel_is_one_operation_when_compiled():
    q, k, v = attention_input(40, 70)
    compiled = torch.compile(kernels.attend_8bit, fullgraph=True, backend='aot_eager')
    assert torch.equal(compiled(q, k, v), kernels.attend_8bit(q, k, v))


@interpreted
@pytest.mark.parametrize('m', [64, 129])
def test_kernel_puts_fp8_values_in_their_places(m):
    """Powers of two are exact, in the interpreter too, which rounds to fp8 badly."""
    q, k, v = attention_input(40, m)
    q = torch.zeros_like(q)
    v = 2.0 ** torch.randint(-3, 4, v.shape).to(v.dtype)
    v[:, 0] = 7 * 64  # makes each channel's scale 1
    result = kernels.attend_8bit(q, k, v, FP8)
    expected = v.double().mean(1, keepdim=True).expand_as(result)
    assert relative_error(result, expected) < 1e-3


@interpreted
def test_kernel_with_fp8_values_is_near():
    q, k, v = attention_input(40, 129)
    result = kernels.attend_8bit(q, k, v, FP8)
    assert relative_error(result, kernels.plain_attend_8bit(q, k, v, FP8)) < 0.12


@interpreted
@pytest.mark.parametrize('shape', [(5, 64), (2, 3, 96)])
def test_kernel_quantises_rows_like_its_twin(shape):
    x = 2.0 ** torch.randint(-3, 4, shape)
    x[..., 0] = 448.0
    for dtype in (torch.float32, torch.float16):
        x8, scale = kernels.quantised_rows(x.to(dtype))
        assert torch.equal(x8.float(), x) and torch.equal(scale, torch.ones(*shape[:-1], 1))


def hopper_cubin(kernel, signature, constants, warps, stages):
    """Compile for compute capability 9.0, which needs no GPU; return the assembly."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    names = kernel.arg_names
    types = {name: signature.get(name, 'constexpr') for name in names}
    aligned = {(i,): [['tt.divisibility', 16]] for i, name in enumerate(names)
               if types[name] != 'constexpr' and name not in ('n', 'm', 'score_scale')}
    source = ASTSource(fn=kernel, signature=types, attrs=aligned,
                       constexprs={(names.index(name),): value
                                   for name, value in constants.items()})
    return triton.compile(source, target=GPUTarget('cuda', 90, 32),
                          options={'num_warps': warps, 'num_stages': stages}).asm['ptx']


@needs_triton
@pytest.mark.skipif(kernels.INTERPRETED, reason='interprets')
@pytest.mark.parametrize('in_fp8', [False, True], ids=['16-bit values', 'fp8 values'])
def test_attention_compiles_for_hopper(in_fp8, tmp_path, monkeypatch):
    """Both products are on the tensor cores in the formats meant."""
    from lingbot_world_ros.models.wan import triton_kernels
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    kernel, tile = triton_kernels._attend, triton_kernels.Tile()
    signature = {name: 'i32' for name in kernel.arg_names if name.startswith('stride_')}
    signature.update(q='*bf16', k8='*i8', k_scale='*fp32', v='*fp8e4nv' if in_fp8 else '*bf16',
                     v_scale='*fp32', out='*bf16', h='i32', n='i32', m='i32', score_scale='fp32')
    constants = {'D': D, 'IN_FP8': in_fp8, 'BLOCK_Q': tile.queries, 'BLOCK_K': tile.keys,
                 'stride_vm' if in_fp8 else 'stride_vd': 1}
    for name in constants:
        signature.pop(name, None)
    ptx = hopper_cubin(kernel, signature, constants, tile.num_warps, tile.num_stages)
    assert 's32.s8.s8' in ptx and ('e4m3.e4m3' if in_fp8 else 'bf16.bf16') in ptx
