"""Multi-block tube masks: properties that hold for every grid, config and seed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.errors import ConfigError
from tubelet.core.rng import numpy_generator
from tubelet.vjepa.masks import MaskConfig, block_shape, long_range, sample_masks, short_range
from tubelet.vjepa.positions import Grid

grids = st.builds(Grid, st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)).filter(
    lambda g: g.h * g.w > 1
)
configs = st.builds(
    lambda blocks, scale, low, span: MaskConfig(
        blocks=blocks, scale=scale, aspect=(low, low * span)
    ),
    st.integers(1, 10),
    st.floats(0.01, 0.99),
    st.floats(0.2, 2),
    st.floats(1, 3),
)


def draw(config, grid, batch, seed=0, name="short", first=0):
    return sample_masks(config, grid, batch, seed=seed, name=name, first_sample=first)


@settings(max_examples=150, deadline=None)
@given(configs, grids, st.integers(1, 5), st.integers(0, 1000))
def test_context_and_target_are_disjoint_sorted_and_not_empty(config, grid, batch, seed):
    masks = draw(config, grid, batch, seed)
    for ids in (masks.context, masks.target):
        assert ids.dtype == torch.int64
        assert ids.shape[0] == batch
        assert ids.shape[1] >= grid.t  # at least a tube
        assert (ids[:, 1:] > ids[:, :-1]).all()  # sorted, so without duplicates
        assert ids.min() >= 0
        assert ids.max() < grid.size
    for context, target in zip(masks.context, masks.target, strict=True):
        assert not set(context.tolist()) & set(target.tolist())


@settings(max_examples=100, deadline=None)
@given(configs, grids, st.integers(0, 1000))
def test_a_single_sample_is_cut_into_whole_tubes_that_cover_the_clip(config, grid, seed):
    masks = draw(config, grid, 1, seed)
    both = torch.cat([masks.context, masks.target], dim=1)
    assert sorted(both[0].tolist()) == list(range(grid.size))
    area = grid.h * grid.w
    per_step = [
        set((masks.target[0] - t * area).tolist()) & set(range(area)) for t in range(grid.t)
    ]
    assert all(step == per_step[0] for step in per_step)


@settings(max_examples=100, deadline=None)
@given(configs, grids, st.integers(0, 1000))
def test_blocks_never_fill_the_frame(config, grid, seed):
    height, width = block_shape(config, grid, np.random.default_rng(seed))
    assert 1 <= height <= grid.h
    assert 1 <= width <= grid.w
    assert height * width < grid.h * grid.w


@pytest.mark.parametrize("config", [short_range(), long_range()])
def test_no_time_step_is_favoured_by_the_cut_to_equal_lengths(config):
    grid, batch, draws = Grid(8, 8, 8), 8, 60
    for pick in ("context", "target"):
        counts = np.zeros(grid.t)
        for first in range(0, draws * batch, batch):
            ids = getattr(draw(config, grid, batch, first=first), pick)
            counts += np.bincount(ids.flatten().numpy() // 64, minlength=grid.t)
        # Truncation by order would empty the last steps; chance moves them by sqrt(count).
        assert np.abs(counts - counts.mean()).max() < 4 * np.sqrt(counts.mean()), (pick, counts)


def test_no_sample_of_the_batch_is_favoured_in_space_by_row_order():
    grid = Grid(4, 8, 8)
    counts = np.zeros((8, 8))
    for first in range(0, 800, 8):
        ids = draw(short_range(), grid, 8, first=first).context.flatten().numpy() % 64
        counts += np.bincount(ids, minlength=64).reshape(8, 8)
    assert np.abs(counts - counts[::-1, ::-1]).max() / counts.mean() < 0.25  # symmetric


def test_published_shares():
    """Eight blocks of 15 % and two of 70 % hide about 90 % of the tokens (V-JEPA, section 3)."""
    grid = Grid(4, 14, 14)
    for config, low, high in ((short_range(), 0.55, 0.9), (long_range(), 0.75, 0.98)):
        shares = [draw(config, grid, 1, first=i).target.shape[1] / grid.size for i in range(100)]
        assert low < np.mean(shares) < high


def test_masks_are_a_function_of_seed_name_and_sample_number():
    grid = Grid(4, 8, 8)
    a, b = draw(short_range(), grid, 4, first=40), draw(short_range(), grid, 4, first=40)
    assert torch.equal(a.context, b.context)
    assert torch.equal(a.target, b.target)
    for changed in ({"seed": 1}, {"name": "long"}, {"first": 44}):
        other = draw(short_range(), grid, 4, **{"first": 40, **changed})
        assert a.target.shape != other.target.shape or not torch.equal(a.target, other.target)


def test_global_generators_are_neither_used_nor_moved():
    grid = Grid(2, 6, 6)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    a = draw(long_range(), grid, 3)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    b = draw(long_range(), grid, 3)
    torch.set_rng_state(states[0])
    assert torch.equal(a.target, b.target)


def test_samples_of_a_batch_differ_in_place_but_share_the_block_shape():
    config, grid = MaskConfig(blocks=1, scale=0.2), Grid(1, 10, 10)
    masks = draw(config, grid, 16)
    height, width = block_shape(config, grid, numpy_generator(0, "short", "shape", 0))
    assert masks.target.shape == (16, height * width)
    boxes = set()
    for ids in masks.target:
        rows, cols = ids // 10, ids % 10
        assert rows.max() - rows.min() + 1 == height
        assert cols.max() - cols.min() + 1 == width
        boxes.add((int(rows.min()), int(cols.min())))
    assert len(boxes) > 4


def test_a_frame_of_one_token_cannot_be_masked():
    with pytest.raises(ConfigError, match="smaller patch"):
        draw(short_range(), Grid(8, 1, 1), 1)


@pytest.mark.parametrize(
    "bad",
    [{"blocks": 0}, {"scale": 0.0}, {"scale": 1.0}, {"aspect": (2.0, 1.0)}, {"aspect": (0, 1)}],
)
def test_impossible_configs(bad):
    with pytest.raises(ConfigError, match="needs blocks"):
        MaskConfig(**bad)
