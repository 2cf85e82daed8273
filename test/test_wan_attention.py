# SPDX-License-Identifier: Apache-2.0
"""Attention back ends: all that work here agree, the others say why they do not."""
import pytest

torch = pytest.importorskip('torch')

from lingbot_world_ros.errors import SpecError  # noqa: E402, I100
from lingbot_world_ros.models.wan import attention  # noqa: E402
from lingbot_world_ros.models.wan.attention import attend, BACKENDS, CALLS, resolve  # noqa: E402

CPU = torch.device('cpu')
ERRORS = {'int8': 0.03, 'fp8': 0.05}  # relative; others are exact


def works(name, device=CPU, dtype=torch.float32, head_dim=32):
    """Tell whether a back end can be used."""
    try:
        resolve(name, device, dtype, head_dim)
    except SpecError:
        return False
    return True


HERE = [name for name in CALLS if works(name)]
ABSENT = [name for name in CALLS if name not in HERE]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    with torch.no_grad():
        yield


def tensors(n=5, m=70, dtype=torch.float32):
    """Return q, and k and v as views into a longer cache, as in a stream."""
    torch.manual_seed(0)
    cache = torch.randn(2, 2, 100, 3, 32).to(dtype)
    return torch.randn(2, n, 3, 32).to(dtype), cache[0, :, :m], cache[1, :, :m]


def exact(q, k, v):
    q, k, v = (x.double() for x in (q, k, v))
    scores = torch.einsum('bnhd,bmhd->bhnm', q, k) / q.shape[-1] ** 0.5
    return torch.einsum('bhnm,bmhd->bnhd', scores.softmax(-1), v)


def relative_error(result, expected):
    return float((result.double() - expected).norm() / expected.norm())


def test_the_usual_ones_work_on_a_cpu():
    assert {'sdpa', 'flash', 'math', 'int8', 'fp8'} <= set(HERE)


@pytest.mark.parametrize('name', ['auto', *HERE])
def test_back_end_is_softmax_attention(name):
    q, k, v = tensors()
    result = attend(q, k, v, name)
    assert result.shape == q.shape and result.dtype == q.dtype
    assert relative_error(result, exact(q, k, v)) < ERRORS.get(name, 1e-6)


@pytest.mark.parametrize('name', HERE)
def test_back_end_takes_bfloat16(name):
    q, k, v = tensors(dtype=torch.bfloat16)
    result = attend(q, k, v, name)
    assert result.dtype == torch.bfloat16
    assert relative_error(result, exact(q, k, v)) < ERRORS.get(name, 0.01)


@pytest.mark.parametrize('name', ABSENT)
def test_unavailable_back_end_says_what_to_do(name):
    q, k, v = tensors()
    with pytest.raises(SpecError, match=f"attention='{name}'.*attention='auto'"):
        attend(q, k, v, name)


def test_missing_package_says_what_to_install():
    if 'flash_attn_2' in HERE:
        pytest.skip('flash-attn is installed')
    with pytest.raises(SpecError, match='pip install flash-attn'):
        resolve('flash_attn_2')
    with pytest.raises(SpecError, match='pip install flash-attn'):
        resolve('flash_attn')


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(SpecError, match="Did you mean 'cudnn'.*sdpa"):
        resolve('cudn')


def test_resolve_tells_its_reason():
    assert resolve('auto').name == 'sdpa'
    assert 'first that works' in resolve('auto').reason
    assert resolve('math').reason.endswith('as asked for.')


def test_auto_skips_what_does_not_work(monkeypatch):
    monkeypatch.setitem(attention.ORDER, 'cpu', ('flash_attn_3', 'cudnn', 'math'))
    attention._resolve.cache_clear()
    try:
        backend = resolve('auto', dtype=torch.float32)
    finally:
        attention._resolve.cache_clear()
    assert backend.name == 'math' and '(not: flash_attn_3, cudnn)' in backend.reason


@pytest.mark.parametrize('name', ['flash_attn_2', 'flash_attn_3'])
def test_flash_attn_is_called_with_our_layout(name, monkeypatch):
    """Its functions take (b, n, h, d); some versions return the normaliser too."""
    monkeypatch.setitem(attention.LOADED, name, lambda q, k, v: (exact(q, k, v), None))
    q, k, v = tensors()
    assert torch.equal(attention.CALLS[name](q, k, v), exact(q, k, v))


def test_every_name_has_an_explanation():
    assert set(attention.WHAT) == set(attention.CALLS) < set(BACKENDS)


@pytest.mark.parametrize('name', ['auto', 'math', 'int8'])
def test_one_graph_when_compiled(name):
    """No break: what is chosen becomes a constant."""
    q, k, v = tensors()
    compiled = torch.compile(lambda *x: attend(*x, name), fullgraph=True, backend='aot_eager')
    assert torch.allclose(compiled(q, k, v), attend(q, k, v, name), atol=1e-5)
