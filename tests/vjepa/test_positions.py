"""Rotary and sin-cos positions: closed forms, invariances, and tables that can be trained with."""

import math

import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.vjepa.positions import (
    SINCOS,
    Grid,
    PositionConfig,
    Rotation,
    additive,
    check_positions,
    rope_axis_width,
    rope_table,
    rotary,
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
        signs = torch.tensor([-1.0, 1.0]).repeat(16)  # of the partner's share
        assert torch.allclose(rotation.sin[at], signs * angle.sin(), atol=1e-6)
    assert torch.equal(rotation.cos[:, 3 * width :], torch.ones(GRID.size, 2))


def test_a_pair_is_turned_as_a_complex_number():
    angle = torch.tensor([0.3, 0.3, -1.1, -1.1])
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    signs = torch.tensor([-1.0, 1.0, -1.0, 1.0])
    got = Rotation(angle.cos()[None], signs * angle.sin()[None])(x)[0, 0, 0]
    pairs = torch.view_as_complex(x.view(2, 2)) * torch.polar(torch.ones(2), angle[::2])
    assert torch.allclose(got, torch.view_as_real(pairs).flatten())


def test_selecting_ids_is_rotating_then_gathering():
    rotation = rope_table(GRID, 16)
    ids = torch.stack([torch.randperm(GRID.size)[:7] for _ in range(2)])
    x = torch.randn(2, GRID.size, 2, 3, 16)  # q and k of three heads
    index = ids[:, :, None, None, None].expand(2, 7, 2, 3, 16)
    every = rotation.select(torch.arange(GRID.size))(x)
    assert torch.equal(rotation.select(ids)(x.gather(1, index)), every.gather(1, index))


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
        check_positions("encoder", PositionConfig(), width, heads)
    check_positions("encoder", SINCOS, width, heads)  # sin-cos needs no pairs in a head


# --- both flavours and the resolution-normalised positions, against definitions in float64 ------


def turned_by_definition(x, grid, pairs, span):
    """``x [N, d]`` turned channel by channel in float64, from the formulas of the papers."""
    width = rope_axis_width(x.shape[-1])
    out = x.double().clone()
    for n in range(grid.size):
        t, h, w = n // (grid.h * grid.w), n // grid.w % grid.h, n % grid.w
        place = [t, h, w]
        if span:
            place[1:] = [p * (span - 1) / (size - 1) for p, size in ((h, grid.h), (w, grid.w))]
        for axis, position in enumerate(place):
            for j in range(0, width, 2):
                at = axis * width + j
                kinds = {"interleaved": (j // 2, j // 2), "tiled": (j, j + 1)}[pairs]
                a, b = (position * 10000 ** (-2 * (k % (width // 2)) / width) for k in kinds)
                first, second = x[n, at].item(), x[n, at + 1].item()
                out[n, at] = first * math.cos(a) - second * math.sin(a)
                out[n, at + 1] = second * math.cos(b) + first * math.sin(b)
    return out


@pytest.mark.parametrize("pairs", ["interleaved", "tiled"])
@pytest.mark.parametrize("span", [0, 16])
@pytest.mark.parametrize("head", [20, 32, 64])
def test_rotary_positions_are_the_published_ones(pairs, span, head):
    grid = Grid(3, 2, 5)
    x = torch.randn(grid.size, head)
    rotation = rotary(PositionConfig(pairs=pairs, span=span), grid, head, torch.device("cpu"), None)
    assert rotation is not None
    got = rotation(x.view(1, grid.size, 1, 1, head)).view(grid.size, head)
    assert torch.allclose(got.double(), turned_by_definition(x, grid, pairs, span), atol=2e-6)


def test_the_tiled_flavour_is_no_rotation_and_the_interleaved_one_is():
    x = torch.randn(GRID.size, 32)
    norms = {p: rope_table(GRID, 32, "cpu", p)(x).norm(dim=-1) for p in ("interleaved", "tiled")}
    assert torch.allclose(norms["interleaved"], x.norm(dim=-1), atol=1e-5)
    assert not torch.allclose(norms["tiled"], x.norm(dim=-1), atol=1e-2)


def test_spanned_positions_do_not_depend_on_the_resolution():
    small, large = (
        rope_table(Grid(1, n, n), 32, "cpu", "interleaved", (15 / (n - 1),) * 2) for n in (8, 15)
    )
    corners = [(0, 0), (7, 14), (56, 210), (63, 224)]  # the same places in both grids
    for a, b in corners:
        assert torch.allclose(small.cos[a], large.cos[b], atol=1e-6)


def test_a_single_row_has_a_place_under_span():
    rotation = rotary(PositionConfig(span=16), Grid(2, 1, 4), 32, torch.device("cpu"), None)
    assert rotation is not None
    assert rotation.cos.isfinite().all()


@pytest.mark.parametrize(
    ("axes", "order"), [("hw", (1, 2)), ("wh", (2, 1)), ("thw_uneven", (0, 1, 2))]
)
def test_sincos_of_other_axes(axes, order):
    width = 16
    table = sincos_table(GRID, width, "cpu", axes)
    channels = (8, 8) if len(order) == 2 else (8, 4, 4)
    place = (2, 3, 1)
    row = []
    for axis, c in zip(order, channels, strict=True):
        angles = [place[axis] * 10000 ** (-2 * i / c) for i in range(c // 2)]
        row += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    assert torch.allclose(table[token(*place)], torch.tensor(row), atol=1e-6)


def test_sincos_of_the_native_grid_is_itself_and_of_another_is_interpolated():
    own = sincos_table(GRID, 24)
    assert torch.equal(sincos_table(GRID, 24, "cpu", "thw", tuple(GRID)), own)
    other = sincos_table(Grid(3, 8, 10), 24, "cpu", "thw", tuple(GRID))
    assert other.shape == (240, 24)
    # Twice as fine: each cell's four children average to nearly the parent, as linear maps do
    # inside the frame.
    cells = other.view(3, 4, 2, 5, 2, 24).mean(dim=(2, 4))[:, 1:-1, 1:-1]
    assert torch.allclose(cells, own.view(3, 4, 5, 24)[:, 1:-1, 1:-1], atol=0.12)
    still = sincos_table(Grid(1, 7, 7), 16, "cpu", "wh", (1, 14, 14))
    assert still.shape == (49, 16)


def test_only_one_of_the_two_kinds_applies():
    cpu = torch.device("cpu")
    assert additive(PositionConfig(), GRID, 24, cpu, None) is None
    assert rotary(SINCOS, GRID, 24, cpu, None) is None


@pytest.mark.parametrize("changes", [{"span": 1}, {"span": -2}, {"native": (4, 4)}])
def test_impossible_positions_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        PositionConfig(**changes)


def test_channels_that_do_not_divide_over_the_axes_are_refused():
    with pytest.raises(ConfigError, match="multiple of 4"):
        check_positions("encoder", PositionConfig(kind="sincos", axes="wh"), 18, 2)
