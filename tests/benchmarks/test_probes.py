import json

import numpy as np
import pytest

from tubelet.benchmarks.probes import pca_features, ridge_probe, split_episodes
from tubelet.core.errors import ConfigError


def linear_world(noise, rng, episodes=40, length=25, width=12, unused=0):
    which = np.repeat(np.arange(episodes), length)
    hidden = rng.normal(size=(episodes * length, 2))
    mixed = hidden @ rng.normal(size=(2, width)) + 1e-3 * rng.normal(size=(len(hidden), width))
    targets = hidden + noise * rng.normal(size=hidden.shape)
    return np.hstack([mixed, np.full((len(hidden), unused), 7.0)]), targets, which


def probe(features, targets, episodes, **kwargs):
    return ridge_probe(features, targets, episodes, name="f", target_names=("a", "b"), **kwargs)


def test_r2_is_the_share_of_explainable_variance():
    data = linear_world(1.0, np.random.default_rng(0), episodes=200)  # signal and noise both 1
    result = probe(*data)
    assert result.mean.value == pytest.approx(0.5, abs=0.04)
    assert result.mean.low < 0.5 < result.mean.high
    assert result.mean.high - result.mean.low < 0.12
    assert set(result.targets) == {"a", "b"}
    assert result.episodes == (120, 40, 40)
    json.dumps(result.to_json(), allow_nan=False)


def test_noiseless_targets_are_read_perfectly_and_constant_features_do_no_harm():
    result = probe(*linear_world(0.0, np.random.default_rng(1), unused=3))
    assert result.mean.value > 0.999
    assert result.width == 15


def test_unrelated_features_give_nothing():
    rng = np.random.default_rng(2)
    _, targets, episodes = linear_world(0.0, rng)
    assert probe(rng.normal(size=(len(targets), 30)), targets, episodes).mean.value < 0.02


def test_more_features_than_rows_agrees_with_the_textbook_solution():
    rng = np.random.default_rng(3)
    features, targets = rng.normal(size=(60, 100)), rng.normal(size=(60, 2))
    episodes = np.repeat(np.arange(20), 3)
    result = probe(features, targets, episodes, penalties=(0.5,))
    train, _, test, _ = split_episodes(episodes, (0.6, 0.2), 0)
    x = (features - features[train].mean(0)) / features[train].std(0)
    y = (targets - targets[train].mean(0)) / targets[train].std(0)
    gram = x[train].T @ x[train] + 0.5 * train.sum() * np.eye(100)
    guess = x[test] @ np.linalg.solve(gram, x[train].T @ y[train])
    left = ((y[test] - guess) ** 2).sum(0)
    spread = ((y[test] - y[test].mean(0)) ** 2).sum(0)
    got = [result.targets[name].value for name in "ab"]
    np.testing.assert_allclose(got, 1 - left / spread, atol=1e-9)


def test_splits_keep_episodes_whole():
    episodes = np.repeat(np.arange(11), 4)
    *masks, counts = split_episodes(episodes, (0.6, 0.2), 0)
    assert np.array_equal(sum(mask.astype(int) for mask in masks), np.ones(44))
    sets = [set(episodes[mask]) for mask in masks]
    assert not sets[0] & sets[2]
    assert sum(counts) == 11


def test_too_few_episodes_and_odd_shapes_are_refused():
    with pytest.raises(ConfigError, match="2 episodes"):
        probe(np.zeros((4, 3)), np.zeros((4, 2)), np.array([0, 0, 1, 1]))
    with pytest.raises(ConfigError, match="must be"):
        probe(np.zeros((4, 3)), np.zeros((5, 2)), np.arange(4))


def test_pca_keeps_the_largest_directions():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (80, 6, 6, 3), dtype=np.uint8)
    features = pca_features(frames, 10)
    assert features.shape == (80, 10)
    flat = frames.reshape(80, -1).astype(float)
    singular = np.linalg.svd(flat - flat.mean(0), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(features, axis=0), singular[:10], rtol=1e-4)


def test_pca_is_fitted_on_the_given_rows_only():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (60, 6, 6, 3), dtype=np.uint8)
    changed = frames.copy()
    changed[40:] = 0
    fit = np.arange(60) < 40
    np.testing.assert_allclose(
        pca_features(frames, 5, fit_rows=fit)[:40],
        pca_features(changed, 5, fit_rows=fit)[:40],
    )


def test_pca_beyond_the_rank_is_zero_not_noise():
    frames = np.zeros((30, 4, 4, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(30)
    features = pca_features(frames, 4)
    assert features[:, 0].std() > 1
    assert (features[:, 1:] == 0).all()
    with pytest.raises(ConfigError, match="width 31"):
        pca_features(frames, 31)


def test_a_target_that_never_varies_among_the_test_episodes_is_named():
    rng = np.random.default_rng(0)
    targets = np.stack([rng.normal(size=40), np.ones(40)], axis=1)
    with pytest.raises(ConfigError, match="height never vary over the 2 test episodes"):
        ridge_probe(
            rng.normal(size=(40, 3)),
            targets,
            np.repeat(np.arange(10), 4),
            name="x",
            target_names=("width", "height"),
        )
