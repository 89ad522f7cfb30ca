"""VICReg against known values and the formulas of the paper, written out."""

import math

import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.vjepa.objectives.latents import Latents
from tubelet.vjepa.objectives.term import Sizes
from tubelet.vjepa.objectives.vicreg import (
    Vicreg,
    VicregConfig,
    hinge_std,
    invariance,
    off_diagonal_covariance,
)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_hinge_of_known_spreads():
    assert hinge_std(torch.ones(1, 9, 4)).item() == pytest.approx(0.99)
    assert hinge_std(0.5 * randn(40, 500, 4)).item() == pytest.approx(0.5, abs=0.01)
    assert hinge_std(3 * randn(1, 500, 4)).item() == 0
    assert hinge_std(torch.ones(1, 9, 4), gamma=2).item() == pytest.approx(1.99)


def test_covariance_of_gaussian_samples():
    """E of a squared off-diagonal entry is 1 / (N - 1)."""
    x = randn(100, 256, 64)
    pairs = off_diagonal_covariance(x, "pairs").item()
    assert pairs == pytest.approx(1 / 255, rel=0.02)
    assert pairs == pytest.approx(0.0039216, rel=0.02)
    assert off_diagonal_covariance(x, "dim").item() == pytest.approx(0.24706, rel=0.02)
    assert off_diagonal_covariance(x, "dim").item() == pytest.approx(63 * pairs)
    assert off_diagonal_covariance(randn(2, 8, 1), "pairs").item() == 0


def test_covariance_against_torch():
    x = randn(30, 5)
    c = torch.cov(x.T)
    expected = (c.square().sum() - c.diagonal().square().sum()) / 5
    assert off_diagonal_covariance(x.unsqueeze(0), "dim").item() == pytest.approx(expected.item())


def test_the_gradient_of_a_constant_is_finite():
    x = torch.ones(1, 8, 3, requires_grad=True)
    hinge_std(x).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_invariance_is_a_mean_over_pairs():
    x = randn(3, 6, 4)
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = sum((x[i] - x[j]).square().mean().item() for i, j in pairs) / 3
    assert invariance(x).item() == pytest.approx(expected)
    with pytest.raises(ConfigError, match="between 1 group"):
        invariance(x[:1])


def test_two_views_are_the_published_loss():
    """25 inv + 25 (std a + std b) / 2 + (cov a + cov b), each by the paper's own words."""
    a, b = 0.7 * randn(20, 6), 0.7 * randn(20, 6, seed=1)

    def std(z):
        return torch.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()

    def cov(z):
        z = z - z.mean(0)
        c = z.T @ z / 19
        return (c.square().sum() - c.diagonal().square().sum()) / 6

    expected = 25 * (a - b).square().mean() + 25 * (std(a) + std(b)) / 2 + cov(a) + cov(b)
    loss, logs = Vicreg(VicregConfig(), Sizes())(Latents(views=torch.stack([a, b])))
    assert loss.item() == pytest.approx(expected.item())
    assert set(logs) == {"std", "cov", "inv"}


def test_over_time_each_window_is_a_sample():
    z = 0.1 * randn(4, 9, 5)
    config = VicregConfig(on="sequence", std=0, cov=0, inv=0, std_t=2, cov_t=3, cov_norm="pairs")
    loss, logs = Vicreg(config, Sizes())(Latents(sequence=z))
    std = torch.relu(1 - (z.var(dim=1) + 1e-4).sqrt()).mean()
    covariances = [torch.cov(w.T) for w in z]
    cov = sum((c.square().sum() - c.diagonal().square().sum()) / 20 for c in covariances) / 4
    assert loss.item() == pytest.approx((2 * std + 3 * cov).item())
    assert set(logs) == {"std_t", "cov_t"}
    tokens = z.unsqueeze(2).expand(-1, -1, 3, -1)
    assert Vicreg(config, Sizes())(Latents(sequence=tokens))[0].item() == pytest.approx(loss.item())
    with pytest.raises(ConfigError, match="VICReg over time of a batch of 1"):
        Vicreg(config, Sizes())(Latents(sequence=z[:, :1]))


def test_flat_pools_the_groups():
    views = randn(2, 10, 4) + torch.tensor([0.0, 5.0]).view(2, 1, 1)  # views far apart
    apart = VicregConfig(std=1, cov=1, inv=0)
    together = VicregConfig(std=1, cov=1, inv=0, flat=True)
    pooled = views.reshape(1, 20, 4)
    expected = hinge_std(pooled) + off_diagonal_covariance(pooled, "dim")
    assert Vicreg(together, Sizes())(Latents(views=views))[0].item() == pytest.approx(
        expected.item()
    )
    assert Vicreg(apart, Sizes())(Latents(views=views))[0] != expected


def test_low_precision_is_computed_in_float32():
    views = randn(2, 32, 4, dtype=torch.float32).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = Vicreg(VicregConfig(), Sizes())(Latents(views=views))
    assert loss.dtype == torch.float32
    assert loss == Vicreg(VicregConfig(), Sizes())(Latents(views=views.float()))[0]


def test_a_batch_of_one_is_refused():
    with pytest.raises(ConfigError, match="VICReg of a batch of 1"):
        Vicreg(VicregConfig(), Sizes())(Latents(views=randn(2, 1, 4)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": -1}, "std = -1"),
        ({"cov": math.inf}, "cov = inf"),
        ({"on": "sequence"}, r"inv = 25.0 compares views"),
        ({"std_t": 1}, "std_t and cov_t are over time"),
    ],
)
def test_impossible_configs(changes, message):
    with pytest.raises(ConfigError, match=message):
        VicregConfig(**changes)
