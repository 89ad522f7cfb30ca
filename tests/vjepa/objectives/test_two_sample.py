"""Gaussianity and two-sample measures where the answer is known."""

import math

import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.vjepa.objectives.sigreg import epps_pulley_population, epps_pulley_sample
from tubelet.vjepa.objectives.two_sample import auc, bhep, classifier_two_sample, sigreg_excess


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def test_excess():
    assert sigreg_excess(randn(2000, 8), generator=generator()) == pytest.approx(0, abs=2e-3)
    shifted = sigreg_excess(randn(4000, 1) + 1, generator=generator(), slices=1)
    assert shifted == pytest.approx(epps_pulley_population(1, 1), abs=0.04)


def test_bhep_in_one_dimension_is_epps_pulley():
    """Its weight is the normal density, Epps-Pulley's lacks the 1 / sqrt(2 pi)."""
    x = 1.5 * randn(50)
    expected = epps_pulley_sample(x).item() / 50 / math.sqrt(2 * math.pi)
    assert bhep(x.unsqueeze(1)) == pytest.approx(expected, rel=1e-9)


def test_bhep_of_gaussians_and_collapse():
    assert bhep(randn(1500, 6), beta=0.5) == pytest.approx(0, abs=2e-3)
    constant = 1 - 2 * 2**-1.5 + 3**-1.5  # beta 1, three dimensions
    assert bhep(torch.zeros(10, 3)) == pytest.approx(constant)
    x = randn(60, 4)
    rotation, _ = torch.linalg.qr(randn(4, 4, seed=1))
    assert bhep(x @ rotation) == pytest.approx(bhep(x), rel=1e-9)


def test_auc():
    assert auc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 1
    assert auc(torch.tensor([0.0, 2.0]), torch.tensor([1.0])) == 0.5
    assert auc(torch.ones(3), torch.ones(4)) == 0.5
    assert auc(randn(2000) + 1, randn(2000, seed=1)) == pytest.approx(0.760, abs=0.02)


def test_c2st_of_equal_and_shifted_sets():
    equal = classifier_two_sample(randn(2000, 5), randn(2000, 5, seed=1), generator=generator())
    assert equal == pytest.approx(0.5, abs=0.04)
    shift = torch.tensor([1.0, 0, 0, 0, 0])  # Bayes: Phi(1 / sqrt(2))
    shifted = classifier_two_sample(
        randn(2000, 5) + shift, randn(2000, 5, seed=1), generator=generator()
    )
    assert shifted == pytest.approx(0.7602, abs=0.03)
    far = classifier_two_sample(randn(40, 5) + 50, randn(60, 5, seed=1), generator=generator())
    assert far == 1


@pytest.mark.parametrize(
    ("width", "ratio", "bayes"),
    [(1, 1.25, 0.5704), (1, 2, 0.7048), (8, 1.25, 0.7289), (8, 2, 0.9667)],
)
def test_c2st_of_spreads_reaches_the_optimum_and_no_more(width, ratio, bayes):
    """Gaussians that differ in spread alone: |x|² is the best score."""
    x, y = ratio * randn(6000, width), randn(6000, width, seed=1)
    plain = classifier_two_sample(x, y, generator=generator())
    assert plain == pytest.approx(0.5, abs=0.04)
    squares = classifier_two_sample(x.square(), y.square(), generator=generator())
    assert squares == pytest.approx(bayes, abs=0.03)


def test_c2st_is_judged_on_samples_it_was_not_fitted_to():
    x, y = randn(40, 100), randn(40, 100, seed=1)  # separable in the fitted half
    got = classifier_two_sample(x, y, generator=generator(), penalty=1e-6)
    assert 0.2 < got < 0.8


def test_c2st_of_collapsed_sets_and_of_too_few():
    same = torch.ones(10, 3)
    assert classifier_two_sample(same, same, generator=generator()) == 0.5
    with pytest.raises(ConfigError, match="C2ST of 3 and 10 samples"):
        classifier_two_sample(same[:3], same, generator=generator())
