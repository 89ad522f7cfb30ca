"""Blocks: the fast paths against the formula that they stand for."""

import pytest
import torch
import torch.nn.functional as F

from tubelet.vjepa.blocks import Block, split_heads
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.positions import Grid, rope_table

GRID = Grid(2, 3, 2)
HEADS, HEAD = 3, 16  # two angles per axis


def rotation(pairs="interleaved", batch=2):
    ids = torch.stack([torch.randperm(GRID.size) for _ in range(batch)])
    return rope_table(GRID, HEAD, "cpu", pairs).select(ids)


def plainly(qkv, turn, sizes):
    """What split_heads stands for, by autograd throughout."""
    q, k, v = qkv.unbind(2)
    if turn is not None:
        q, k = turn(torch.stack([q, k], 2)).unbind(2)
    cuts = zip(*(x.split(sizes, 1) for x in (q, k, v)), strict=True)
    return [x for cut in cuts for x in cut]


@pytest.mark.parametrize("pairs", ["interleaved", "tiled", None])
@pytest.mark.parametrize("sizes", [None, [5, 4, 3]])
def test_splitting_heads_and_its_gradient(pairs, sizes):
    torch.manual_seed(0)
    turn = rotation(pairs) if pairs else None
    x = torch.randn(2, GRID.size, 3, HEADS, HEAD, requires_grad=True)
    wanted = plainly(x, turn, sizes or [GRID.size])
    got = split_heads(x * 1, turn, sizes)
    assert [g.shape for g in got] == [w.shape for w in wanted]
    weights = [torch.randn_like(w) for w in wanted]
    for g, w in zip(got, wanted, strict=True):
        assert torch.allclose(g, w, atol=1e-6)
    grads = [
        torch.autograd.grad(sum((a * b).sum() for a, b in zip(out, weights, strict=True)), x)[0]
        for out in (got, wanted)
    ]
    assert torch.allclose(*grads, atol=1e-6)


@pytest.mark.parametrize("pairs", ["interleaved", "tiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_turning_in_place_is_turning(pairs, dtype):
    turn = rotation(pairs)
    qk = torch.randn(2, GRID.size, 3, HEADS, HEAD).to(dtype)[:, :, :2]
    wanted = turn(qk)
    turn.turn_(qk)
    if pairs == "tiled":  # imported V-JEPA 2 keeps its bits
        assert torch.equal(qk, wanted)
    assert torch.allclose(qk, wanted, atol=1e-6)


def test_turning_back():
    turn, x = rotation(), torch.randn(2, GRID.size, 2, HEADS, HEAD)
    assert torch.allclose(turn.back(turn(x)), x, atol=1e-6)


def reference(block, x, turn):
    q, k, v = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, HEADS, -1)).unbind(2)
    q, k = turn(torch.stack([q, k], 2)).unbind(2)
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / HEAD**0.5
    y = torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v).flatten(2)
    x = x + block.attn.proj(y)
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


@pytest.mark.parametrize("pairs", ["interleaved", "tiled"])
def test_a_block_is_its_formula_with_and_without_gradients(pairs):
    torch.manual_seed(0)
    block, turn = Block(HEADS * HEAD, HEADS), rotation(pairs)
    x = torch.randn(2, GRID.size, HEADS * HEAD, requires_grad=True)
    wanted, got = reference(block, x, turn), block(x, turn)
    assert torch.allclose(got, wanted, atol=1e-5)
    inputs = [x, *block.parameters()]
    ours = torch.autograd.grad(got.square().sum(), inputs)
    theirs = torch.autograd.grad(wanted.square().sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-4)
    before = x.detach().clone()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert torch.allclose(block(x, turn), got, atol=1e-6)
        assert torch.equal(x, before)  # memory is reused, but never the caller's


def test_gradients_pass_through_frozen_blocks():
    block = Block(HEADS * HEAD, HEADS).requires_grad_(False)
    x = torch.randn(1, GRID.size, HEADS * HEAD, requires_grad=True)
    turn = rotation(batch=1)
    (got,) = torch.autograd.grad(block(x, turn).square().sum(), x)
    (wanted,) = torch.autograd.grad(reference(block, x, turn).square().sum(), x)
    assert torch.allclose(got, wanted, atol=1e-4)


def test_the_residual_stream_stays_wide_under_autocast():
    block = Block(HEADS * HEAD, HEADS)
    x = torch.randn(1, GRID.size, HEADS * HEAD)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert block(x, rotation(batch=1)).dtype == torch.float32


def test_long_clips_are_encoded_one_by_one_to_the_same_tokens():
    torch.manual_seed(0)
    encoder = TubeletEncoder(EncoderConfig(width=24, depth=1, heads=2, patch=2)).eval()
    video = torch.randint(0, 256, (3, 4, 32, 32, 3), dtype=torch.uint8)  # 512 tokens
    keep = torch.arange(512).flip(0).expand(3, -1)
    together, kept = encoder(video), encoder(video, keep)
    seen = []
    encoder.blocks[0].register_forward_hook(lambda _m, _i, out: seen.append(len(out)))
    with torch.no_grad():
        assert torch.allclose(encoder(video), together, atol=1e-5)
        assert torch.allclose(encoder(video, keep), kept, atol=1e-5)
        encoder(video[:, :2])  # 256 tokens: short enough to go together
    assert seen == [1] * 6 + [3]
