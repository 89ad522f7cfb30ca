"""bfloat16 attention on CPUs against the definition in float64."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tubelet.vjepa import cpu_attention
from tubelet.vjepa.blocks import Attention
from tubelet.vjepa.positions import Grid, rope_table


def _inputs(shape, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def _definition(q, k, v):
    scores = q.double() @ k.double().mT / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ v.double()


def _errors(function, shape):
    """Mean error of the output and of each gradient, relative to the mean size."""
    mine, exact = _inputs(shape), [x.detach().double().requires_grad_() for x in _inputs(shape)]
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    out, wanted = function(*mine), _definition(*exact)
    out.backward(grad)
    wanted.backward(grad.double())
    pairs = [(out, wanted), *((a.grad, b.grad) for a, b in zip(mine, exact, strict=True))]
    return [((a.double() - b).abs().mean() / b.abs().mean()).item() for a, b in pairs]


@pytest.mark.parametrize("shape", [(2, 3, 50, 32), (1, 2, 300, 6), (3, 1, 1, 8)])
@pytest.mark.parametrize("kept", [0, 1 << 30])
@pytest.mark.parametrize("cache", [1, 1 << 16, 1 << 30])
def test_error_is_that_of_bfloat16(monkeypatch, shape, kept, cache):
    monkeypatch.setattr(cpu_attention, "_KEPT", kept)
    monkeypatch.setattr(cpu_attention, "_CACHE", cache)
    if shape[2] == 1:  # one token: the output is v, q and k get no gradient
        q, k, v = _inputs(shape)
        out = cpu_attention.attention(q, k, v)
        out.sum().backward()
        assert torch.equal(out, v)
        assert not q.grad.any()
        assert not k.grad.any()
        return
    for mine, fused in zip(
        _errors(cpu_attention.attention, shape),
        _errors(scaled_dot_product_attention, shape),
        strict=True,
    ):
        assert mine < max(1.5 * fused, 0.004)


def test_large_scores_stay_exact():
    """Scores rounded to bfloat16 would be off by up to 0.5 at 100, and their weights by half."""
    q, k, v = _inputs((1, 1, 64, 16))
    q = (40 * q.detach()).requires_grad_()
    wrong = (cpu_attention.attention(q, k, v).double() - _definition(q, k, v)).abs().mean()
    assert wrong < 0.005


def test_backward_leaves_inputs_and_autocast_alone():
    q, k, v = _inputs((2, 2, 20, 8))
    before = [x.detach().clone() for x in (q, k, v)]
    with torch.autocast("cpu", torch.bfloat16):
        out = cpu_attention.attention(q, k, v)
    out.sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, (q, k, v), strict=True))
    assert out.dtype == torch.bfloat16


def test_only_training_in_bfloat16_on_a_cpu_takes_it():
    q, *_ = _inputs((1, 1, 4, 8))
    assert cpu_attention.suits(q)
    assert not cpu_attention.suits(q.detach())
    assert not cpu_attention.suits(q.float())
    with torch.no_grad():
        assert not cpu_attention.suits(q)


def test_a_block_under_autocast_follows_float32():
    torch.manual_seed(0)
    attention = Attention(48, 2)
    x = torch.randn(2, 12, 48, requires_grad=True)
    rotation = rope_table(Grid(3, 2, 2), 24).select(torch.arange(12))
    attention(x, rotation).square().sum().backward()
    exact = x.grad.clone()
    x.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(x, rotation)
    out.float().square().sum().backward()
    assert float((x.grad - exact).norm() / exact.norm()) < 0.02
