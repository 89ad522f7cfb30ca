"""Rotary and sin-cos positions: closed forms, invariances, and tables that can be trained with."""

import math

import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.vjepa.positions import (
    Grid,
    Rotation,
    check_rope,
    rope_axis_width,
    rope_table,
    sincos_table,
)

GRID = Grid(3, 4, 5)


def token(t, h, w):
    return (t * GRID.h + h) * GRID.w + w


@pytest.mark.parametrize("width", [6, 16, 32, 64])
def test_rotation_keeps_norms(width):
    q = torch.randn(2, 3, GRID.size, width)
    turned = rope_table(GRID, width)(q)
    assert torch.allclose(turned.norm(dim=-1), q.norm(dim=-1), atol=1e-5)
    assert not torch.allclose(turned, q)


def test_products_depend_on_relative_positions_only():
    rotation = rope_table(GRID, 32)
    q, k = torch.randn(32), torch.randn(32)
    every = torch.stack([q, k])[:, None, None].expand(2, 1, GRID.size, 32)
    rq, rk = rotation(every)[:, 0]
    for shift in ((1, 0, 0), (0, 2, 0), (0, 0, 3), (1, 1, 2)):
        here = rq[token(0, 0, 1)] @ rk[token(1, 1, 0)]
        there = (
            rq[token(*(a + b for a, b in zip((0, 0, 1), shift, strict=True)))]
            @ (rk[token(*(a + b for a, b in zip((1, 1, 0), shift, strict=True)))])
        )
        assert torch.allclose(here, there, atol=1e-5)


def test_each_axis_turns_its_own_channels_by_the_published_angles():
    width = rope_axis_width(32)
    assert width == 10
    rotation = rope_table(GRID, 32)
    for axis, at in enumerate((token(2, 0, 0), token(0, 2, 0), token(0, 0, 2))):
        angle = torch.zeros(32)
        for i in range(width // 2):
            angle[axis * width + 2 * i : axis * width + 2 * i + 2] = 2 * 10000 ** (-2 * i / width)
        assert torch.allclose(rotation.cos[at], angle.cos(), atol=1e-6)
        assert torch.allclose(rotation.sin[at], angle.sin(), atol=1e-6)
    assert torch.equal(rotation.cos[:, 3 * width :], torch.ones(GRID.size, 2))


def test_a_pair_is_turned_as_a_complex_number():
    angle = torch.tensor([0.3, 0.3, -1.1, -1.1])
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    got = Rotation(angle.cos()[None], angle.sin()[None])(x)[0, 0, 0]
    pairs = torch.view_as_complex(x.view(2, 2)) * torch.polar(torch.ones(2), angle[::2])
    assert torch.allclose(got, torch.view_as_real(pairs).flatten())


def test_selecting_ids_is_rotating_then_gathering():
    rotation = rope_table(GRID, 16)
    ids = torch.stack([torch.randperm(GRID.size)[:7] for _ in range(2)])
    x = torch.randn(2, 3, GRID.size, 16)
    index = ids[:, None, :, None].expand(2, 3, 7, 16)
    assert torch.equal(rotation.select(ids)(x.gather(2, index)), rotation(x).gather(2, index))


def test_rotation_keeps_the_dtype():
    assert rope_table(GRID, 16)(torch.randn(1, 1, GRID.size, 16).bfloat16()).dtype == torch.bfloat16


def test_tables_first_made_in_inference_mode_can_be_trained_through():
    grid = Grid(2, 3, 7)  # of no other test: the first use fills the cache
    with torch.inference_mode():
        rope_table(grid, 12)
        sincos_table(grid, 12)
    x = torch.randn(1, 1, grid.size, 12, requires_grad=True)
    (rope_table(grid, 12)(x).square().sum() + (x * sincos_table(grid, 12)).sum()).backward()
    assert x.grad is not None


def test_sincos_closed_form():
    width = 24  # 8 channels per axis, sines first
    table = sincos_table(GRID, width)
    t, h, w = 2, 3, 1
    row = []
    for position in (t, h, w):
        angles = [position * 10000 ** (-i / 4) for i in range(4)]
        row += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    assert torch.allclose(table[token(t, h, w)], torch.tensor(row), atol=1e-6)


@pytest.mark.parametrize("width", [14, 24, 32, 100])
def test_sincos_has_the_width_asked_for_and_tells_tokens_apart(width):
    table = sincos_table(GRID, width)
    assert table.shape == (GRID.size, width)
    assert (torch.cdist(table, table) + 9 * torch.eye(GRID.size)).min() > 1e-3


@pytest.mark.parametrize(("width", "heads"), [(12, 3), (15, 3), (18, 6)])
def test_heads_that_cannot_carry_positions_are_refused(width, heads):
    with pytest.raises(ConfigError, match=f"heads of {width // heads} channels"):
        check_rope("encoder", width, heads)
