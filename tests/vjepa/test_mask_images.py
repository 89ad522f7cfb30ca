"""I-JEPA's masks: rectangles, contexts without targets, and the published quirks on demand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError
from tubelet.vjepa.mask_images import ImageMaskConfig, sample_image_masks
from tubelet.vjepa.positions import Grid

IMAGE = Grid(1, 14, 14)
PUBLISHED = ImageMaskConfig(meta_compat=True)

grids = st.builds(Grid, st.integers(1, 3), st.integers(4, 18), st.integers(4, 18))
configs = st.builds(
    ImageMaskConfig,
    targets=st.integers(1, 5),
    min_keep=st.integers(1, 4),
    full_complement=st.booleans(),
    meta_compat=st.booleans(),
)


def sample(config, grid=IMAGE, batch=8, seed=0, first=0):
    return sample_image_masks(config, grid, batch, seed=seed, name="image", first_sample=first)


def boxes(ids, grid):
    """Top, left, height and width of each row of ids ``[B, M]``, int64 ``[B, 4]``; asserts that
    ids are a filled rectangle at every time step."""
    t, place = ids // (grid.h * grid.w), ids % (grid.h * grid.w)
    rows, cols = place // grid.w, place % grid.w
    top, left = rows.amin(1), cols.amin(1)
    height, width = rows.amax(1) - top + 1, cols.amax(1) - left + 1
    assert (height * width * grid.t == ids.shape[1]).all()
    assert (t.amax(1) == grid.t - 1).all()
    return torch.stack([top, left, height, width], dim=1)


@settings(max_examples=150, deadline=None)
@given(configs, grids, st.integers(1, 6), st.integers(0, 1000))
def test_targets_are_blocks_of_one_size_and_no_context_token_is_in_one(config, grid, batch, seed):
    masks = sample(config, grid, batch, seed)
    assert len(masks.targets) == config.targets
    for ids in (masks.context, *masks.targets):
        assert ids.dtype == torch.int64
        assert len(ids) == batch
        assert (ids[:, 1:] > ids[:, :-1]).all()
        assert 0 <= int(ids.min()) <= int(ids.max()) < grid.size
    sizes = torch.cat([boxes(ids, grid)[:, 2:] for ids in masks.targets])
    assert (sizes == sizes[0]).all()
    assert masks.context.shape[1] >= config.min_keep * grid.t
    for b in range(batch):
        hidden = torch.cat([ids[b] for ids in masks.targets])
        assert not torch.isin(masks.context[b], hidden).any()


@settings(max_examples=50, deadline=None)
@given(grids, st.integers(0, 1000))
def test_full_complement_of_one_sample_covers_the_image(grid, seed):
    masks = sample(ImageMaskConfig(full_complement=True, min_keep=1), grid, 1, seed)
    together = torch.cat([masks.context, *masks.targets], dim=1).unique()
    assert len(together) == grid.size


def shapes(config, batches=300):
    """Height and width of the target blocks of many batches, float64 ``[batches, 2]``."""
    found = [
        boxes(sample(config, IMAGE, 1, first=i).targets[0], IMAGE)[0, 2:] for i in range(batches)
    ]
    return torch.stack(found).double().numpy()


def test_target_blocks_have_the_published_sizes():
    found = shapes(ImageMaskConfig())
    area, ratio = found.prod(1) / 196, found[:, 0] / found[:, 1]
    assert 0.12 < area.min() < area.max() < 0.23
    assert 0.6 < ratio.min() < 0.9 < 1.2 < ratio.max() < 1.8


def test_one_random_number_drives_scale_and_aspect_only_as_published():
    """With one number a shape of the block follows from its area, so shapes lie on a line."""
    published, ours = ({tuple(s) for s in shapes(c)} for c in (PUBLISHED, ImageMaskConfig()))
    u = np.linspace(0, 1, 2001)
    area, aspect = (196 * (0.15 + 0.05 * u)).astype(int), 0.75 + 0.75 * u
    line = zip(np.round(np.sqrt(area * aspect)), np.round(np.sqrt(area / aspect)), strict=True)
    assert published == set(line)
    assert len(ours - published) > 3


def rates(config, batches=40, batch=32):
    """How often places are context and target, ``[2, 14, 14]``."""
    total = np.zeros((2, 196))
    for number in range(0, batches * batch, batch):
        masks = sample(config, IMAGE, batch, first=number)
        for i, ids in enumerate((masks.context, torch.cat(masks.targets, dim=1))):
            total[i] += np.bincount(ids.flatten().numpy(), minlength=196)
    return total.reshape(2, 14, 14) / (batches * batch)


def test_the_last_row_and_column_are_reached_except_as_published():
    context, target = rates(PUBLISHED)
    for rate in (context, target):
        assert rate[-1].max() == rate[:, -1].max() == 0
    context, target = rates(ImageMaskConfig())
    for rate in (context, target):
        assert rate[-1].min() > 0.02
        assert np.abs(rate - rate[::-1, ::-1]).max() < 0.1


def test_published_contexts_lack_the_bottom():
    """The last row, which no published target reaches, is free in every sample, and still lost."""
    context = rates(replace(PUBLISHED, full_complement=True))[0].mean(axis=1)
    fair = rates(ImageMaskConfig(full_complement=True))[0].mean(axis=1)
    assert context[0] > 4 * context[-1] > 0
    assert fair[0] == pytest.approx(fair[-1], abs=0.05)


def test_crowded_images_keep_a_context():
    """Eight blocks of half the image: where they leave nothing, they fall on one place."""
    config = ImageMaskConfig(targets=8, target_scale=(0.5, 0.5), min_keep=12)
    masks = sample(config, Grid(1, 6, 6), 16)
    assert masks.context.shape[1] >= 12


def test_masks_are_a_function_of_seed_name_and_sample_number():
    a, b = (sample(ImageMaskConfig(), first=8) for _ in range(2))
    assert torch.equal(a.context, b.context)
    assert all(torch.equal(x, y) for x, y in zip(a.targets, b.targets, strict=True))
    other = sample(ImageMaskConfig(), first=16)
    assert not all(torch.equal(x, y) for x, y in zip(a.targets, other.targets, strict=True))
    published = [sample(PUBLISHED, batch=n, first=8).targets for n in (3, 8)]
    assert all(torch.equal(x, y[:3]) for x, y in zip(*published, strict=True))


def test_repeated_images_are_masked_alike_at_all_times():
    still, clip = (sample(ImageMaskConfig(), Grid(t, 9, 12)) for t in (1, 3))
    for a, b in zip((still.context, *still.targets), (clip.context, *clip.targets), strict=True):
        assert torch.equal(torch.cat([a + t * 108 for t in range(3)], dim=1), b)


def test_impossible_masks():
    with pytest.raises(ConfigError, match=r"leave 3 of a frame of 2 x 2 .* min_keep = 10"):
        sample(ImageMaskConfig(), Grid(1, 2, 2))
    with pytest.raises(ConfigError, match="leave 0 of a frame of 4 x 4"):
        sample(ImageMaskConfig(target_scale=(1.0, 1.0), target_aspect=(1.0, 1.0)), Grid(1, 4, 4))
    with pytest.raises(ConfigError, match="two rows and columns, not 1 x 40"):
        sample(PUBLISHED, Grid(1, 1, 40))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"targets": 0}, "targets = 0"),
        ({"min_keep": 0}, "min_keep = 0"),
        ({"target_scale": (0.3, 0.2)}, "target_scale"),
        ({"context_scale": (0.5, 1.1)}, "context_scale"),
        ({"target_aspect": (0.0, 1.0)}, "target_aspect"),
    ],
)
def test_impossible_configs(bad, message):
    with pytest.raises(ConfigError, match=message):
        ImageMaskConfig(**bad)


def test_configs_survive_toml():
    config = ImageMaskConfig(targets=2, meta_compat=True)
    assert from_toml(ImageMaskConfig, to_toml(config)) == config
