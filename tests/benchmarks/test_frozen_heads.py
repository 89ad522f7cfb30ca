"""Grids of heads: what they learn, that they do not touch each other, and how one is chosen."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tubelet.benchmarks.frozen.heads import (
    HeadsConfig,
    attentive_head,
    linear_head,
    predict,
    train_heads,
)
from tubelet.benchmarks.frozen.selection import Candidates, accuracy, choose, judge, score
from tubelet.benchmarks.stats import wilson_interval
from tubelet.core.errors import ConfigError

CLASSES = 3
FAST = HeadsConfig(lrs=(1e-2,), decays=(0.01, 0.4), epochs=15, batch=16, depth=1, heads=2)


def made(count=240, views=2, tokens=4, width=8, seed=0):
    """Features whose class is a direction in one token out of four, at a place that changes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    values = rng.normal(size=(count, views, tokens, width)).astype(np.float16)
    place = rng.integers(tokens, size=(count, views))
    for row, view in np.ndindex(count, views):
        values[row, view, place[row, view], labels[row]] += 12
    return values, labels.astype(np.int64)


def parts(count=240):
    rows = np.arange(count)
    return rows[: count // 2], rows[count // 2 : 3 * count // 4], rows[3 * count // 4 :]


def attentive(values, labels, rows, config=FAST, seed=0):
    make = lambda: attentive_head(values.shape[-1], CLASSES, config)  # noqa: E731
    return train_heads(make, values, labels, rows, config, seed=seed)


def linear(values, labels, rows, config=FAST, seed=0):
    make = lambda: linear_head(values, rows, CLASSES)  # noqa: E731
    return train_heads(make, values, labels, rows, config, seed=seed)


@pytest.mark.parametrize("train", [attentive, linear])
def test_separable_classes_are_learnt_and_shuffled_ones_stay_at_chance(train):
    values, labels = made()
    fit, valid, test = parts()
    outcome = judge(train(values, labels, fit), labels, valid, test)
    assert outcome.accuracy > 0.9
    assert outcome.settings[0] == "lr 0.01, decay 0.01"
    shuffled = np.random.default_rng(1).permutation(labels)
    outcome = judge(train(values, shuffled, fit), shuffled, valid, test)
    assert wilson_interval(int(outcome.right.sum()), len(test), 0.999).low < 1 / CLASSES
    assert outcome.accuracy < 0.6


def test_heads_trained_together_are_those_trained_alone():
    values, labels = made(60)
    rows = np.arange(40)
    config = HeadsConfig(lrs=(1e-2, 1e-3), decays=(0.1,), epochs=2, batch=16, depth=1, heads=2)
    both = attentive(values, labels, rows, config).predict(np.arange(60))
    for number, lr in enumerate(config.lrs):
        only = HeadsConfig(lrs=(lr,), decays=(0.1,), epochs=2, batch=16, depth=1, heads=2)
        alone = attentive(values, labels, rows, only).predict(np.arange(60))
        assert np.array_equal(alone[0], both[number])
    again = attentive(values, labels, rows, config).predict(np.arange(60))
    assert np.array_equal(again, both)
    other = attentive(values, labels, rows, config, seed=1).predict(np.arange(60))
    assert not np.array_equal(other, both)


def test_the_loop_is_adamw_with_a_cosine_to_zero():
    """Against the update written out, on one linear head with the whole data as its batch."""
    values, labels = made(20, views=1, tokens=1)
    config = HeadsConfig(lrs=(0.01,), decays=(0.5,), epochs=7, batch=20)
    got = linear(values, labels, np.arange(20), config).predict(np.arange(20))[0]
    x = values[:, 0, 0].astype(np.float64)
    x = torch.from_numpy((x - x.mean(0)) / x.std(0))
    y = torch.from_numpy(labels)
    params = [torch.zeros(CLASSES, 8).double(), torch.zeros(CLASSES).double()]
    first, second = [p * 0 for p in params], [p * 0 for p in params]
    for step in range(7):
        lr = 0.01 * 0.5 * (1 + np.cos(np.pi * step / 7))
        leaves = [p.clone().requires_grad_() for p in params]
        loss = F.cross_entropy(x @ leaves[0].T + leaves[1], y)
        for i, grad in enumerate(torch.autograd.grad(loss, leaves)):
            first[i] = 0.9 * first[i] + 0.1 * grad
            second[i] = 0.999 * second[i] + 0.001 * grad**2
            update = first[i] / (1 - 0.9 ** (step + 1))
            update = update / ((second[i] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            params[i] = params[i] * (1 - lr * (0.5 if i == 0 else 0)) - lr * update
    want = (x @ params[0].T + params[1]).softmax(-1)
    np.testing.assert_allclose(got, want.numpy(), atol=1e-5)


def test_probabilities_are_the_mean_of_the_views():
    values, _ = made(6, views=3)
    torch.manual_seed(0)
    head = attentive_head(8, CLASSES, FAST).eval()
    got = predict(torch.nn.ModuleList([head]), values, np.array([4, 1]), batch=1)
    assert got.shape == (1, 2, CLASSES)
    for place, row in enumerate((4, 1)):
        views = [head(torch.from_numpy(values[row, v]).float()[None]).softmax(-1) for v in range(3)]
        want = (views[0] + views[1] + views[2]) / 3
        np.testing.assert_allclose(got[0, place], want[0].detach().numpy(), rtol=1e-5)


def table(right, classes=2):
    """Probabilities whose candidate h is right at row r where ``right[h][r]``; all labels are 0."""
    right = np.array(right, float)
    return np.stack([0.1 + 0.8 * right, 0.9 - 0.8 * right], -1)


def test_the_choice_is_made_on_validation_and_ignores_the_test_clips():
    labels = np.zeros(8, np.int64)
    # candidate 0 is best for validation (rows 0-3), candidate 1 for testing (rows 4-7)
    all_right = [[1, 1, 1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1, 1, 1, 1]]
    asked = []

    def answer(rows):
        asked.append(rows.tolist())
        return table(all_right)[:, rows]

    candidates = Candidates(settings=["a", "b"], predict=answer)
    outcome = judge(candidates, labels, np.arange(4), np.arange(4, 8))
    assert outcome.chosen == 0
    assert outcome.accuracy == 0.25
    assert outcome.best_on_test == 1.0
    assert outcome.valid.tolist() == [0.75, 0.25]
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ConfigError, match="1 clips are both for validation and for testing"):
        judge(candidates, labels, np.arange(5), np.arange(4, 8))


def test_any_change_of_the_test_clips_leaves_the_choice():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=40)
    probabilities = rng.dirichlet(np.ones(2), size=(20, 40))
    chosen = set()
    for _ in range(10):
        probabilities[:, 20:] = rng.dirichlet(np.ones(2), size=(20, 20))
        labels[20:] = rng.integers(2, size=20)
        candidates = Candidates(settings=["x"] * 20, predict=lambda rows: probabilities[:, rows])
        chosen.add(judge(candidates, labels, np.arange(20), np.arange(20, 40)).chosen)
    assert len(chosen) == 1


def test_equal_heads_are_told_apart_by_loss_and_diverged_ones_never_win():
    labels = np.zeros(2, np.int64)
    sure = np.array([[[0.9, 0.1]] * 2, [[0.99, 0.01]] * 2, [[np.nan, 1]] * 2])
    right, loss = score(sure, labels)
    assert right.tolist() == [[True, True], [True, True], [False, False]]
    np.testing.assert_allclose(loss, [-np.log(0.9), -np.log(0.99), np.inf])
    assert choose(right, loss) == 1
    assert choose(right[:, :0], np.full(3, np.inf)) == 0


def test_a_head_that_diverges_leaves_the_others_alone():
    values, labels = made(60)
    rows = np.arange(40)
    wild = HeadsConfig(lrs=(1e30, 1e-2), decays=(0.0,), epochs=2, batch=16, depth=1, heads=2)
    calm = HeadsConfig(lrs=(1e-2,), decays=(0.0,), epochs=2, batch=16, depth=1, heads=2)
    both = attentive(values, labels, rows, wild).predict(rows)
    assert np.array_equal(both[1], attentive(values, labels, rows, calm).predict(rows)[0])


def test_intervals_have_the_width_of_the_clips_not_of_clips_times_seeds():
    labels = np.zeros(8, np.int64)
    outcomes = [
        judge(
            Candidates(settings=["a"], predict=lambda rows, r=right: table([r])[:, rows]),
            labels,
            np.arange(4),
            np.arange(4, 8),
        )
        for right in ([1] * 8, [1] * 6 + [0] * 2)
    ]
    got, want = accuracy(outcomes), wilson_interval(3, 4)
    assert (got.value, got.low, got.high) == (0.75, want.low, want.high)


def test_the_published_grid_and_shape():
    config = HeadsConfig()
    assert len(config.grid()) == 20
    assert set(config.grid()) == {
        (lr, wd) for lr in (5e-3, 3e-3, 1e-3, 3e-4, 1e-4) for wd in (0.01, 0.1, 0.4, 0.8)
    }
    probe = attentive_head(1024, 174, config)
    assert round(sum(p.numel() for p in probe.parameters()) / 1e6, 1) == 49.5
    assert attentive_head(30, 2, config).config.heads == 15
    with pytest.raises(ConfigError, match=r"epochs = 0.*lrs = \(\).*decays = \(-1,\)"):
        HeadsConfig(epochs=0, lrs=(), decays=(-1,))
