"""Patches of point clouds against brute force: coverage, neighbours, the sequencer, masks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.errors import ConfigError
from tubelet.vjepa.modalities.point_masks import PointMaskConfig, sample_point_masks
from tubelet.vjepa.modalities.points import (
    PointsConfig,
    farthest_points,
    nearest_points,
)
from tubelet.vjepa.modalities.sequencer import sequence

clouds = st.integers(0, 10_000).map(
    lambda seed: torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 30, 3)))
)


@settings(max_examples=25, deadline=None)
@given(clouds, st.integers(1, 30))
def test_farthest_points_cover(points, count):
    """Each choice is at the largest distance from those before, so that no point is farther from
    the chosen than the last choice was, and chosen points are at least that far apart."""
    ids = farthest_points(points, count)
    for cloud, chosen in zip(points.numpy(), ids.numpy(), strict=True):
        assert len(set(chosen)) == count
        assert chosen[0] == 0
        apart = np.linalg.norm(cloud[:, None] - cloud[None], axis=-1)
        for k in range(1, count):
            to_before = apart[:, chosen[:k]].min(axis=1)
            assert to_before[chosen[k]] == pytest.approx(to_before.max())
        if 1 < count < len(cloud):
            radius = apart[chosen[-1], chosen[:-1]].min()
            assert apart[:, chosen].min(axis=1).max() <= radius + 1e-12
            between = apart[np.ix_(chosen, chosen)] + 9 * np.eye(count)
            assert between.min() >= radius - 1e-12


def test_farthest_points_of_copies_are_different_points():
    assert sorted(farthest_points(torch.zeros(1, 5, 3), 5)[0].tolist()) == list(range(5))


@settings(max_examples=25, deadline=None)
@given(clouds, st.integers(1, 30))
def test_nearest_points(points, count):
    centres = points[:, :4] + 0.1
    found = nearest_points(points, centres, count).numpy()
    for b in range(2):
        for c in range(4):
            gap = np.linalg.norm(points[b].numpy() - centres[b, c].numpy(), axis=-1)
            assert set(found[b, c]) == set(np.argsort(gap)[:count])


@settings(max_examples=25, deadline=None)
@given(clouds)
def test_the_sequence_is_a_greedy_chain(points):
    for cloud, order in zip(points.numpy(), sequence(points).numpy(), strict=True):
        assert sorted(order) == list(range(len(cloud)))
        assert order[0] == cloud.sum(axis=1).argmin()
        for k in range(len(order) - 1):
            left = order[k + 1 :]
            gaps = np.linalg.norm(cloud[left] - cloud[order[k]], axis=1)
            assert gaps[0] == gaps.min()


def test_the_sequence_of_a_line_is_the_line():
    line = torch.arange(9.0).unsqueeze(-1).expand(-1, 3)
    shuffled = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    order = sequence(line[shuffled].unsqueeze(0))
    assert torch.equal(shuffled[order[0]], torch.arange(9))


def test_runs_of_the_sequence_are_regions():
    """Neighbours in the order are nearer than neighbours at random."""
    cloud = torch.randn(8, 64, 3, generator=torch.Generator().manual_seed(1))
    ordered = cloud.gather(1, sequence(cloud).unsqueeze(-1).expand(-1, -1, 3))
    step = lambda x: (x[:, 1:] - x[:, :-1]).norm(dim=-1).mean()  # noqa: E731
    assert step(ordered) < 0.5 * step(cloud)


@settings(max_examples=200, deadline=None)
@given(st.integers(8, 100), st.integers(0, 5), st.integers(0, 10_000))
def test_point_masks_are_ranges_that_share_nothing(count, seed, step):
    context, targets = sample_point_masks(PointMaskConfig(), count, seed=seed, step=step)
    assert len(targets) == 4
    sizes = {len(t) for t in targets}
    assert len(sizes) == 1
    size = sizes.pop()
    assert max(1, int(0.15 * count)) <= size <= max(1, int(0.2 * count))
    covered = set()
    for target in targets:
        ids = target.tolist()
        assert ids == list(range(ids[0], ids[0] + size))
        assert ids[0] >= 0
        assert ids[-1] < count
        covered |= set(ids)
    left = [i for i in range(count) if i not in covered]
    chosen = context.tolist()
    start = left.index(chosen[0])
    assert chosen == left[start : start + len(chosen)]  # a run of what is left
    assert max(1, int(0.4 * len(left))) <= len(chosen) <= max(1, int(0.75 * len(left)))


def test_point_mask_shares_over_many_draws():
    """With many tokens, lengths fill their published ranges evenly: means .175 and .575."""
    config, count = PointMaskConfig(), 1000
    drawn = [sample_point_masks(config, count, seed=0, step=step) for step in range(800)]
    target = np.array([len(targets[0]) / count for _, targets in drawn])
    left = [count - len(torch.cat(targets).unique()) for _, targets in drawn]
    context = np.array([len(c) for c, _ in drawn]) / left
    assert target.mean() == pytest.approx(0.175, abs=0.003)
    assert context.mean() == pytest.approx(0.575, abs=0.02)
    assert (target.min(), target.max()) == (
        pytest.approx(0.15, abs=2e-3),
        pytest.approx(0.2, abs=2e-3),
    )


def test_the_same_step_draws_the_same_masks():
    first, again, other = (
        sample_point_masks(PointMaskConfig(), 64, seed=0, step=step) for step in (3, 3, 4)
    )
    assert torch.equal(first[0], again[0])
    assert [t.tolist() for t in first[1]] == [t.tolist() for t in again[1]]
    assert [t.tolist() for t in first[1]] != [t.tolist() for t in other[1]]


def small(**more):
    return PointsConfig(**{"points": 40, "centres": 12, "neighbours": 6, "hidden": (8, 8)} | more)


def test_tokens_ignore_the_order_of_points_within_patches_and_shifts():
    """A token is of a patch relative to its centre, and of a set: with point 0 fixed (where the
    sampling begins), order does not matter; shifting a cloud moves places and nothing else."""
    torch.manual_seed(0)
    tokenizer = small().tokenizer(16).eval()
    x = torch.randn(3, 40, 3, dtype=torch.float32)
    content, places = tokenizer(x)
    assert content.shape == (3, 12, 16)
    shuffled = torch.cat([x[:, :1], x[:, 1:][:, torch.randperm(39)]], dim=1)
    torch.testing.assert_close(tokenizer(shuffled)[0], content)
    torch.testing.assert_close(tokenizer(shuffled)[1], places)
    moved_content, moved_places = tokenizer(x + torch.tensor([1.0, -2.0, 0.5]))
    torch.testing.assert_close(moved_content, content, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(moved_places, places + torch.tensor([1.0, -2.0, 0.5]))


def test_the_small_pointnet_against_a_loop():
    """Both maxima, per patch, written out for one patch at a time."""
    torch.manual_seed(0)
    tokenizer = small().tokenizer(16).eval()
    x = torch.randn(2, 40, 3)
    patches, _ = tokenizer.patches(x)
    content, _ = tokenizer(x)
    for b in range(2):
        for c in range(12):
            each = tokenizer.local(patches[b, c])
            whole = each.max(dim=0).values.expand(6, -1)
            joint = tokenizer.joint(torch.cat([whole, each], dim=1)).max(dim=0).values
            torch.testing.assert_close(content[b, c], joint)


def test_preparing_draws_and_turns_about_the_third_axis_alone():
    x = torch.randn(2, 60, 3)
    made = small().prepare(x, seed=0, first_sample=7)
    assert made.shape == (2, 40, 3)
    for cloud, source in zip(made, x, strict=True):
        heights = {round(z, 5) for z in source[:, 2].tolist()}
        assert {round(z, 5) for z in cloud[:, 2].tolist()} <= heights
        radius = source[:, :2].norm(dim=-1)
        gaps = (cloud[:, :2].norm(dim=-1)[:, None] - radius[None]).abs().min(dim=1).values
        assert gaps.max() < 1e-5
    again = small().prepare(x[1:], seed=0, first_sample=8)
    torch.testing.assert_close(again[0], made[1])  # a sample's number decides, not its batch


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"centres": 41}, "points.centres = 41 of points.points = 40"),
        ({"neighbours": 41}, "points.neighbours = 41"),
        ({"centres": 0}, "points.centres = 0"),
        ({"scale": (2.0, 1.0)}, "points.scale"),
        ({"masks": PointMaskConfig(targets=6)}, "masks.targets = 6"),
    ],
)
def test_impossible_configs_are_refused_by_name(change, named):
    with pytest.raises(ConfigError, match=named):
        small(**change)


def test_bad_clouds_are_refused():
    with pytest.raises(ConfigError, match="centres = 12, but the clouds have 5 points"):
        farthest_points(torch.zeros(1, 5, 3), 12)
    with pytest.raises(ConfigError, match=r"points.points = 40, but the clouds have 30 points"):
        small().still(torch.zeros(1, 30, 3))
    with pytest.raises(ConfigError, match=r"must be \[B, P, 3\]"):
        small().still(torch.zeros(1, 30, 2))
