"""Tube masks: properties for every grid, config and seed, and rates against closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError
from tubelet.vjepa import masks as mask_module
from tubelet.vjepa.mask_draw import first, nearness, top, uniforms
from tubelet.vjepa.masks import (
    MaskConfig,
    block_shape,
    context_distance,
    long_range,
    random_tubes,
    sample_masks,
    sample_packed_masks,
    short_range,
)
from tubelet.vjepa.positions import Grid

CLIP = Grid(8, 16, 16)  # 16 frames of 256 x 256

grids = st.builds(Grid, st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)).filter(
    lambda g: g.h * g.w > 1
)
fractions = st.floats(0.1, 1)


@st.composite
def configs(draw, **fixed):
    low, length = draw(st.floats(0.2, 2)), draw(fractions)
    fields = {
        "blocks": draw(st.integers(1, 10)),
        "scale": draw(st.floats(0.01, 0.99)),
        "aspect": (low, low * draw(st.floats(1, 3))),
        "temporal_scale": draw(st.sampled_from([(1.0, 1.0), (length, 1.0), (length, length)])),
        "max_temporal_keep": draw(st.sampled_from([1.0, draw(fractions)])),
        "wrap": draw(st.booleans()),
        "equalise": draw(st.sampled_from(["border", "subsample", "truncate"])),
        "leftover": draw(st.sampled_from(["drop", "target"])),
        "inverse": draw(st.booleans()),
    }
    return MaskConfig(**(fields | fixed))


def sample(config, grid, batch, seed=0, name="short", first=0):
    return sample_masks(config, grid, batch, seed=seed, name=name, first_sample=first)


def packed(config, grid, batch, seed=0, name="short", first=0):
    return sample_packed_masks(config, grid, batch, seed=seed, name=name, first_sample=first)


def marks(ids, grid):
    """Bool ``[B, T, H, W]`` of ids ``[B, K]``, or of a tuple of ids."""
    out = torch.zeros(len(ids), grid.size, dtype=torch.bool)
    for row, row_ids in zip(out, ids, strict=True):
        row[row_ids] = True
    return out.view(-1, *grid).numpy()


def rates(config, batches, grid=CLIP, batch=24):
    """How often each token is context and target, float ``[2, T, H, W]``."""
    total = np.zeros((2, *grid))
    for first_sample in range(0, batches * batch, batch):
        masks = packed(config, grid, batch, first=first_sample)
        for i, part in enumerate((masks.context, masks.target)):
            total[i] += np.bincount(part.ids.numpy(), minlength=grid.size).reshape(grid)
    return total / (batches * batch)


# --- properties ------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(configs(), grids, st.integers(1, 5), st.integers(0, 1000))
def test_context_and_target_are_disjoint_sorted_and_not_empty(config, grid, batch, seed):
    masks = sample(config, grid, batch, seed)
    for ids in (masks.context, masks.target):
        assert ids.dtype == torch.int64
        assert ids.shape[0] == batch
        assert ids.shape[1] >= 1
        assert (ids[:, 1:] > ids[:, :-1]).all()  # sorted, so without duplicates
        assert 0 <= int(ids.min()) <= int(ids.max()) < grid.size
    assert not (marks(masks.context, grid) & marks(masks.target, grid)).any()


@settings(max_examples=200, deadline=None)
@given(configs(equalise="border"), grids, st.integers(1, 5), st.integers(0, 1000))
def test_border_loses_no_token_and_keeps_rectangles(config, grid, batch, seed):
    masks = sample(config, grid, batch, seed)
    assert masks.context.shape[1] + masks.target.shape[1] == grid.size
    assert (marks(masks.context, grid) ^ marks(masks.target, grid)).all()


@settings(max_examples=200, deadline=None)
@given(configs(equalise="ragged"), grids, st.integers(1, 5), st.integers(0, 1000))
def test_ragged_loses_no_token(config, grid, batch, seed):
    masks = packed(config, grid, batch, seed)
    context, target = (marks(part.split(), grid) for part in (masks.context, masks.target))
    assert (context ^ target).all()
    assert masks.context.lengths.min() >= 1
    assert masks.target.lengths.min() >= 1
    assert (masks.context.lengths + masks.target.lengths == grid.size).all()


@settings(max_examples=100, deadline=None)
@given(
    configs(temporal_scale=(1.0, 1.0), max_temporal_keep=1.0),
    st.sampled_from(["border", "ragged", "subsample"]),
    grids,
    st.integers(1, 5),
    st.integers(0, 1000),
)
def test_time_steps_are_masked_at_exactly_equal_rates(config, equalise, grid, batch, seed):
    masks = packed(replace(config, equalise=equalise), grid, batch, seed)
    for part in (masks.context, masks.target):
        marked = marks(part.split(), grid)
        assert (marked == marked[:, :1]).all()


@settings(max_examples=100, deadline=None)
@given(
    configs(equalise="border", max_temporal_keep=0.5, inverse=False),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_late_steps_are_never_context(config, batch, seed):
    for equalise in ("border", "subsample", "truncate"):
        masks = sample(replace(config, equalise=equalise), Grid(5, 4, 6), batch, seed)
        assert masks.context.max() < 2 * 24


@settings(max_examples=100, deadline=None)
@given(
    configs(inverse=False), grids, st.integers(1, 4), st.integers(1, 60), st.sampled_from("bstr")
)
def test_max_keep_caps_the_context(config, grid, batch, cap, mode):
    name = {"b": "border", "s": "subsample", "t": "truncate", "r": "ragged"}[mode]
    cap += grid.t
    masks = packed(replace(config, equalise=name, max_keep=cap), grid, batch)
    assert 1 <= masks.context.lengths.min() <= masks.context.lengths.max() <= cap
    if mode in "br":
        assert (masks.context.lengths + masks.target.lengths == grid.size).all()


@settings(max_examples=100, deadline=None)
@given(
    configs(max_temporal_keep=1.0),
    st.sampled_from(["subsample", "truncate"]),
    st.sampled_from(["target", "context"]),
    grids,
    st.integers(2, 5),
)
def test_full_complements_lose_no_token(config, equalise, leftover, grid, batch):
    masks = sample(replace(config, equalise=equalise, leftover=leftover), grid, batch)
    assert (marks(masks.context, grid) ^ marks(masks.target, grid)).all()


@settings(max_examples=50, deadline=None)
@given(configs(), grids, st.integers(1, 4))
def test_inverse_swaps_context_and_target(config, grid, batch):
    a = sample(replace(config, inverse=False), grid, batch)
    b = sample(replace(config, inverse=True), grid, batch)
    assert torch.equal(a.context, b.target)
    assert torch.equal(a.target, b.context)


@settings(max_examples=200, deadline=None)
@given(configs(), grids, st.integers(0, 1000))
def test_blocks_are_smaller_than_the_grid(config, grid, number):
    t, h, w = block_shape(config, grid, seed=0, name="x", first_sample=number)
    assert 1 <= t <= grid.t
    assert 1 <= h <= grid.h
    assert 1 <= w <= grid.w
    assert t * h * w < grid.size


# --- streams ---------------------------------------------------------------------------------


def test_masks_are_a_function_of_seed_name_and_sample_number():
    grid = Grid(4, 8, 8)
    for config in (short_range(), random_tubes()):
        a, b = sample(config, grid, 4, first=40), sample(config, grid, 4, first=40)
        assert torch.equal(a.context, b.context)
        assert torch.equal(a.target, b.target)
        for changed in ({"seed": 1}, {"name": "long"}, {"first": 44}):
            other = sample(config, grid, 4, **{"first": 40, **changed})
            assert a.target.shape != other.target.shape or not torch.equal(a.target, other.target)


@settings(max_examples=100, deadline=None)
@given(
    configs(equalise="ragged"), grids, st.integers(1, 4), st.integers(0, 4), st.integers(0, 10**12)
)
def test_a_draw_does_not_depend_on_how_many_samples_follow(config, grid, batch, more, number):
    short, long = (packed(config, grid, b, first=number) for b in (batch, batch + more))
    for a, b in ((short.context, long.context), (short.target, long.target)):
        assert all(torch.equal(x, y) for x, y in zip(a.split(), b.split(), strict=False))


def test_with_one_block_shape_a_draw_does_not_depend_on_its_batch_at_all():
    """The shape is the only thing that a batch's samples share before they are equalised."""
    config = MaskConfig(aspect=(1.0, 1.0), equalise="ragged")
    whole = packed(config, CLIP, 12, first=60).target.split()
    for number in range(12):
        (alone,) = packed(config, CLIP, 1, first=60 + number).target.split()
        assert torch.equal(alone, whole[number])
    tubes = sample(random_tubes(), CLIP, 12, first=60)  # nothing to equalise
    assert torch.equal(sample(random_tubes(), CLIP, 1, first=65).target, tubes.target[5:6])


def test_a_sample_whose_size_is_the_batch_mean_stays_as_drawn():
    config = MaskConfig(blocks=1, scale=0.2)
    assert torch.equal(
        sample(config, CLIP, 24).target,
        torch.stack(packed(replace(config, equalise="ragged"), CLIP, 24).target.split()),
    )


def test_global_generators_are_neither_used_nor_moved():
    grid = Grid(2, 6, 6)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    a = sample(long_range(), grid, 3)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    b = sample(long_range(), grid, 3)
    torch.set_rng_state(states[0])
    assert torch.equal(a.target, b.target)


def test_uniform_numbers_belong_to_their_sample():
    whole = uniforms(3, "a", first=1000, rows=50, draws=41)
    assert np.array_equal(whole[7:9], uniforms(3, "a", first=1007, rows=2, draws=41))
    assert len(np.unique(whole)) == whole.size
    assert 0 <= whole.min() <= whole.max() < 1
    many = uniforms(3, "b", first=0, rows=1000, draws=100)
    assert abs(many.mean() - 0.5) < 5 * (1 / 12 / many.size) ** 0.5
    assert np.abs(np.corrcoef(many[:-1].ravel(), many[1:].ravel())[0, 1]) < 5 / many.size**0.5


# --- statistics ------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("config", [short_range(), long_range()])
def test_places_are_hidden_as_often_as_the_closed_form_says(config, wrap):
    """One minus the chance that n independent blocks miss a place, where none covers the frame."""
    config = replace(config, aspect=(1.0, 1.0), wrap=wrap, equalise="ragged")
    _, h, w = block_shape(config, CLIP, seed=0, name="", first_sample=0)

    def hit(length, extent):
        if wrap:
            return np.full(extent, length / extent)
        starts = np.arange(extent - length + 1)
        place = np.arange(extent)[:, None]
        return ((place >= starts) & (place < starts + length)).mean(axis=1)

    expected = 1 - (1 - np.outer(hit(h, 16), hit(w, 16))) ** config.blocks
    samples = 100 * 24
    error = np.abs(rates(config, 100)[1][0] - expected)
    assert (error <= 5 * np.sqrt(expected * (1 - expected) / samples) + 1e-3).all()
    assert (expected.max() - expected.min() < 1e-12) == wrap  # uniform in space or not


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("config", [short_range(), long_range()])
def test_border_moves_rates_in_space_little(config, wrap):
    config = replace(config, wrap=wrap)
    border = rates(config, 100)
    raw = rates(replace(config, equalise="ragged"), 100)
    assert np.abs(border.sum(axis=0) - 1).max() < 1e-12  # context or target, everywhere
    assert np.abs(border - raw).mean() < 0.02
    assert np.abs(border - raw).max() < 0.09  # two samples of 2400: 0.05 is chance
    assert abs(border[1].mean() - raw[1].mean()) < 0.02  # the placement kept is near the mode
    if wrap:  # one rate for all: 0.05 is five standard errors
        assert np.abs(border[1] - border[1].mean()).max() < 0.05


def test_border_moves_few_tubes(monkeypatch):
    moved, move = [], mask_module._move_border

    def watch(masked, *args, **kwargs):
        target = move(masked, *args, **kwargs)
        moved.append((target != masked).mean())
        return target

    monkeypatch.setattr(mask_module, "_move_border", watch)
    sizes = {sample(short_range(), CLIP, 24, first=24 * i).target.shape[1] for i in range(40)}
    assert np.mean(moved) < 0.02
    assert len(sizes) > 5  # the share hidden still varies over batches
    assert 0.5 < min(sizes) / CLIP.size < max(sizes) / CLIP.size < 0.75


def test_no_step_and_no_side_is_favoured_where_tokens_are_lost():
    config = replace(short_range(), equalise="subsample")
    for rate in rates(config, 100):
        assert (rate == rate[:1]).all()
        sides = rate[0] - rate[0, ::-1, ::-1]
        assert np.abs(sides).max() < 5 * np.sqrt(2 * 0.25 / 2400)


@pytest.mark.parametrize(
    ("config", "context", "target", "first_step", "last_step"),
    [(short_range(), 0.249, 0.475, 0.61, 0.06), (long_range(), 0.062, 0.70, 0.81, 0.17)],
)
def test_truncation_loses_the_end_of_the_clip(config, context, target, first_step, last_step):
    """Shares measured on the published collator with 24 clips of 16 frames: a quarter is lost."""
    shares = rates(replace(config, equalise="truncate"), 80)
    by_step = shares[1].mean(axis=(1, 2))
    assert shares[0].mean() == pytest.approx(context, abs=0.02)
    assert shares[1].mean() == pytest.approx(target, abs=0.02)
    assert 1 - shares.mean(axis=(1, 2, 3)).sum() == pytest.approx(1 - context - target, abs=0.02)
    assert by_step[0] == pytest.approx(first_step, abs=0.02)
    assert by_step[-1] == pytest.approx(last_step, abs=0.02)
    assert (np.diff(by_step) <= 1e-9).all()


def test_published_shares():
    """Eight blocks of 15 % and two of 70 % hide most tokens (V-JEPA, section 3)."""
    for config, low, high in ((short_range(), 0.55, 0.9), (long_range(), 0.75, 0.98)):
        shares = rates(config, 20, Grid(4, 14, 14))
        assert low < shares[1].mean() < high


def test_random_tubes():
    masks = sample(random_tubes(), CLIP, 24)
    assert masks.context.shape == (24, 8 * 25)  # floor(256 * .1)
    assert sample(random_tubes(), Grid(2, 2, 5), 3).context.shape == (3, 2)  # 10 * (1 - .9) is 1
    shares = rates(random_tubes(), 100)
    assert np.abs(shares[0] - 25 / 256).max() < 5 * np.sqrt(0.1 * 0.9 / 2400)


def test_samples_of_a_batch_differ_in_place_but_share_the_block_shape():
    config, grid = MaskConfig(blocks=1, scale=0.2), Grid(1, 10, 10)
    masks = sample(config, grid, 16)
    _, height, width = block_shape(config, grid, seed=0, name="short", first_sample=0)
    assert masks.target.shape == (16, height * width)
    boxes = set()
    for ids in masks.target:
        rows, cols = ids // 10, ids % 10
        assert rows.max() - rows.min() + 1 == height
        assert cols.max() - cols.min() + 1 == width
        boxes.add((int(rows.min()), int(cols.min())))
    assert len(boxes) > 4


def test_short_blocks_hide_part_of_the_time():
    config = MaskConfig(blocks=1, scale=0.2, temporal_scale=(0.5, 0.5))
    hidden = marks(sample(config, CLIP, 8).target, CLIP)
    assert (hidden.any(axis=(2, 3)).sum(axis=1) == 4).all()


# --- parts -----------------------------------------------------------------------------------


def test_border_tubes_are_nearest_to_the_other_side():
    masked = np.zeros((1, 7, 7), dtype=bool)
    masked[:, 1:6, :5] = True
    near = nearness(masked.reshape(1, -1), Grid(1, 7, 7), wrap=False).reshape(7, 7)
    assert near[masked[0]].min() == near[1, 4] == near[5, 4]  # outer corners open first
    assert near[masked[0]].max() == near[3, 0]  # the frame's edge is no border
    assert near[~masked[0]].min() == near[0, 6] == near[6, 6]
    assert nearness(np.ones((1, 49), bool), Grid(1, 7, 7), wrap=True).tolist() == [[1.0] * 49]
    rolled = np.roll(masked, (3, 4), (1, 2)).reshape(1, -1)
    wrapped = [nearness(m.reshape(1, -1), Grid(1, 7, 7), wrap=True) for m in (masked, rolled)]
    assert np.array_equal(
        np.roll(wrapped[0].reshape(7, 7), (3, 4), (0, 1)), wrapped[1].reshape(7, 7)
    )


def test_top_and_first():
    score = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])
    assert top(score, 1).tolist() == [[True, False, False], [False, True, False]]
    assert top(score, np.array([2, 0])).tolist() == [[True, False, True], [False] * 3]
    assert first(np.array([[False, True, True]]), 1).tolist() == [[False, True, False]]


def test_packed_ids():
    config = replace(short_range(), equalise="ragged")
    target = packed(config, Grid(2, 6, 6), 5).target
    assert target.cu_seqlens.dtype == torch.int32
    assert target.cu_seqlens.tolist() == [0, *np.cumsum(target.lengths.numpy())]
    tokens = torch.arange(5 * 72).view(5, 72)
    parts = [row[ids] for row, ids in zip(tokens, target.split(), strict=True)]
    assert torch.equal(tokens[target.rows, target.ids], torch.cat(parts))
    moved = target.to("cpu")
    assert torch.equal(moved.ids, target.ids)
    rectangle = sample(short_range(), Grid(2, 6, 6), 5)
    same = packed(short_range(), Grid(2, 6, 6), 5)
    assert torch.equal(torch.stack(same.target.split()), rectangle.target)
    assert torch.equal(torch.stack(rectangle.packed().context.split()), rectangle.context)


@settings(max_examples=60, deadline=None)
@given(configs(equalise="border"), grids, st.integers(1, 4), st.integers(0, 99))
def test_context_distance_is_the_least_of_all_pairs(config, grid, batch, seed):
    masks = sample(config, grid, batch, seed)
    got = context_distance(masks.context, masks.target, grid)
    assert got.dtype == torch.float32
    places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in grid))
    gaps = (places[masks.context][:, :, None] - places[masks.target][:, None]).square().sum(-1)
    assert torch.equal(got, gaps.amin(-1).float().sqrt())
    assert got.min() >= 1


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [short_range(), random_tubes()])
@pytest.mark.parametrize("equalise", ["border", "truncate", "subsample"])
def test_a_frame_of_one_token_cannot_be_masked(config, equalise):
    with pytest.raises(ConfigError, match=r"Grid\(t=8, h=1, w=1\); use a smaller patch"):
        sample(replace(config, equalise=equalise), Grid(8, 1, 1), 1)
    with pytest.raises(ConfigError, match="single token"):
        sample(replace(config, temporal_scale=(0.5, 0.5)), Grid(1, 1, 1), 1)


def test_masks_that_leave_no_context():
    with pytest.raises(ConfigError, match=r"ratio = 0.95 of 12 tubes .* at most 0.9167"):
        sample(replace(random_tubes(), ratio=0.95), Grid(2, 3, 4), 1)
    with pytest.raises(ConfigError, match=r"max_keep = 7 leaves no context: a tube is 8 tokens"):
        sample(MaskConfig(max_keep=7), CLIP, 2)


def test_requests_for_nothing():
    with pytest.raises(ConfigError, match="masks of 0 samples from number 0"):
        sample(short_range(), CLIP, 0)
    with pytest.raises(ConfigError, match="masks of 2 samples from number -2"):
        sample(short_range(), CLIP, 2, first=-2)
    with pytest.raises(ConfigError, match=r"Grid\(t=8, h=0, w=4\)"):
        sample(short_range(), Grid(8, 0, 4), 2)


def test_ragged_masks_are_no_rectangle():
    with pytest.raises(ConfigError, match="sample_packed_masks"):
        sample(replace(short_range(), equalise="ragged"), CLIP, 2)


def test_distances_of_what_is_not_there():
    some, none = torch.tensor([[1, 2]]), torch.zeros(1, 0, dtype=torch.int64)
    with pytest.raises(ValueError, match="not be empty"):
        context_distance(some, none, Grid(1, 2, 2))
    with pytest.raises(ValueError, match=r"up to 4 .* grid of 4"):
        context_distance(some, torch.tensor([[4]]), Grid(1, 2, 2))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"blocks": 0}, "needs blocks"),
        ({"scale": 0.0}, "needs blocks"),
        ({"scale": 1.0}, "needs blocks"),
        ({"aspect": (2.0, 1.0)}, "needs blocks"),
        ({"aspect": (0, 1)}, "needs blocks"),
        ({"aspect": (1.0, float("inf"))}, "finite"),
        ({"temporal_scale": (0.0, 1.0)}, "temporal_scale"),
        ({"temporal_scale": (0.5, 1.5)}, "temporal_scale"),
        ({"max_temporal_keep": 0.0}, "max_temporal_keep = 0.0"),
        ({"ratio": 1.0}, "ratio = 1.0"),
        ({"max_keep": 0}, "max_keep = 0"),
        ({"max_keep": 9, "leftover": "context"}, "choose leftover = 'target'"),
        ({"max_temporal_keep": 0.5, "leftover": "context"}, "choose leftover = 'target'"),
    ],
)
def test_impossible_configs(bad, message):
    with pytest.raises(ConfigError, match=message):
        MaskConfig(**bad)


@settings(max_examples=30, deadline=None)
@given(configs())
def test_configs_survive_toml(config):
    assert from_toml(MaskConfig, to_toml(config)) == config
