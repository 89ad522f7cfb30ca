import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from tubelet.benchmarks.stats import (
    bootstrap_mean,
    bootstrap_ratio,
    cluster_bootstrap,
    mcnemar_exact,
    wilson_interval,
)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(case):
    k, n = case
    expected = scipy_stats.binomtest(k, n).proportion_ci(method="wilson")
    got = wilson_interval(k, n)
    assert got.value == k / n
    np.testing.assert_allclose((got.low, got.high), expected, atol=1e-12)
    assert got.low <= got.value <= got.high


def test_wilson_known_value():
    got = wilson_interval(45, 50)  # published rule of thumb: 90 % of 50 is [.79, .96]
    assert (round(got.low, 3), round(got.high, 3)) == (0.786, 0.957)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(k, n):
    with pytest.raises(ValueError, match=str(n)):
        wilson_interval(k, n)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_binomial_test_on_disagreements(pairs):
    a, b = (np.array(x) for x in zip(*pairs, strict=True))
    got = mcnemar_exact(a, b)
    wins, losses = int((a & ~b).sum()), int((~a & b).sum())
    assert (got.only_first, got.only_second) == (wins, losses)
    expected = scipy_stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert got.p == pytest.approx(expected)
    assert mcnemar_exact(b, a).p == pytest.approx(got.p)


def test_mcnemar_known_value():
    first = np.array([True] * 10 + [False] * 2 + [True] * 5)
    second = np.array([False] * 10 + [True] * 2 + [True] * 5)
    assert mcnemar_exact(first, second).p == pytest.approx(2 * (1 + 12 + 66) / 2**12)


def test_bootstrap_mean_matches_scipy_and_repeats():
    values = np.random.default_rng(0).exponential(size=80)
    got = bootstrap_mean(values, generator=np.random.default_rng(1), resamples=20_000)
    again = bootstrap_mean(values, generator=np.random.default_rng(1), resamples=20_000)
    assert got == again
    assert got.value == pytest.approx(values.mean())
    ci = scipy_stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    np.testing.assert_allclose((got.low, got.high), (ci.low, ci.high), atol=0.01)


def test_clusters_of_copies_count_once():
    values = np.random.default_rng(0).normal(size=30)
    rng = np.random.default_rng
    plain = bootstrap_mean(values, generator=rng(3))
    copied = cluster_bootstrap(np.repeat(values, 7), np.repeat(np.arange(30), 7), generator=rng(3))
    np.testing.assert_allclose(
        [plain.value, plain.low, plain.high], [copied.value, copied.low, copied.high]
    )
    naive = bootstrap_mean(np.repeat(values, 7), generator=rng(3))
    assert naive.high - naive.low < 0.6 * (copied.high - copied.low)


def test_bootstrap_ratio_is_exact_for_a_constant_ratio():
    weights = np.array([1.0, 2.0, 5.0])
    got = bootstrap_ratio(3 * weights, weights, generator=np.random.default_rng(0))
    assert (got.value, got.low, got.high) == pytest.approx((3.0, 3.0, 3.0))
