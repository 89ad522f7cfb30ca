"""SIGReg against closed forms: Epps-Pulley on the half line [0, 3] with 17 nodes, and elsewhere."""

import math
import warnings

import pytest
import torch
from scipy.special import hyp0f1

from tubelet.core.errors import ConfigError
from tubelet.core.rng import torch_generator
from tubelet.vjepa.objectives.latents import Latents
from tubelet.vjepa.objectives.sigreg import (
    Sigreg,
    SigregConfig,
    epps_pulley,
    epps_pulley_population,
    epps_pulley_sample,
    period,
    sigreg,
    sigreg_parts,
)
from tubelet.vjepa.objectives.term import Sizes

GRID = {"slices": 64, "nodes": 17, "t_max": 3.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(mean, std, count):
    """Quantiles for samples: the population value is met without noise."""
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return mean + std * math.sqrt(2) * torch.erfinv(2 * uniform - 1)


# --- the statistic in one dimension -------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "full", "half"),
    [
        ([0.0], 0.408923, 0.402048),
        ([1.0], 1.193054, 1.186006),
        ([2.0], 2.649732, 2.642852),
        ([-1.0, 1.0], 0.218715, 0.205659),
        ([-1.0, 0.0, 1.0], 0.035060, 0.032947),
        ([100.0], None, 0.643200),
        ([33.5103], None, 0.402048),  # the grid's period: far away looks like zero
    ],
)
def test_closed_forms_of_points(points, full, half):
    x = torch.tensor(points, dtype=torch.float64)
    assert epps_pulley(x).item() / len(points) == pytest.approx(half / len(points), abs=2e-6)
    assert epps_pulley(x.float()).item() == pytest.approx(half, abs=2e-5)
    if full is not None:
        assert epps_pulley_sample(x).item() == pytest.approx(full, abs=1e-6)


@pytest.mark.parametrize(
    ("mean", "variance", "full", "half"),
    [
        (1, 1, 0.444344, 0.444343),
        (0, 4, 0.236092, 0.236091),
        (0, 0.25, 0.151685, 0.151191),
        (2, 1, 1.408368, 1.408368),
        (5, 1, 2.849531, 2.849529),
        (0.1, 1, 0.004820, None),
        (0, 1.21, 0.004505, None),
        (0, 1, 0.0, 0.0),
    ],
)
def test_closed_forms_of_gaussians(mean, variance, full, half):
    assert epps_pulley_population(mean, variance) == pytest.approx(full, abs=1e-6)
    if half is not None:
        x = gaussian(mean, math.sqrt(variance), 20000)
        assert epps_pulley(x).item() / 20000 == pytest.approx(half, abs=2e-4)


def test_collapse_far_away_scores_two_masses():
    """|ecf| = 1 on the full line: sqrt(2 pi) (1 + 1 / sqrt(3)) per sample."""
    assert epps_pulley_sample(torch.full((7,), 1e3)).item() == pytest.approx(3.953831 * 7, rel=1e-6)


def test_expectation_of_a_sample_is_population_and_noise_floor():
    x = 1 + 0.5 * torch.randn(4000, 40, generator=generator(1), dtype=torch.float64)
    expected = 40 * epps_pulley_population(1, 0.25) + math.sqrt(2 * math.pi) * (1 - 1.5**-0.5)
    assert epps_pulley_sample(x).mean().item() == pytest.approx(expected, rel=0.01)


def test_fine_quadrature_equals_the_closed_form():
    x = torch.randn(256, generator=generator(2), dtype=torch.float64)
    fine = epps_pulley(x, nodes=41, t_max=5.0).item()
    assert fine == pytest.approx(epps_pulley_sample(x).item(), abs=3e-5)
    assert fine / 256 == pytest.approx(epps_pulley_sample(x).item() / 256, abs=2e-7)


@pytest.mark.parametrize(
    ("nodes", "t_max", "expected"),
    [
        (17, 3.0, 1.052464),
        (17, 1.0, 0.384588),
        (17, 5.0, 1.059424),
        (5, 3.0, 1.049684),
        (9, 5.0, 1.059423),  # the paper's 17 nodes on [-5, 5]
    ],
)
def test_null_level_does_not_depend_on_the_sample_size(nodes, t_max, expected):
    """E |ecf|² under the null is phi² + (1 - phi²) / N, so E T is the sum of w (1 - phi²)."""
    for count in (4, 64):
        x = torch.randn(20000, count, generator=generator(count))
        got = epps_pulley(x, nodes=nodes, t_max=t_max).mean().item()
        assert got == pytest.approx(expected, abs=0.03)
    t = torch.linspace(0, t_max, nodes, dtype=torch.float64)
    trapezoid = 2 * torch.trapezoid(torch.exp(-t * t / 2) * (1 - torch.exp(-t * t)), t)
    assert trapezoid.item() == pytest.approx(expected, abs=1e-5)


def test_quantiles_score_lower_than_any_sample():
    for count, expected in ((16, 0.004380), (64, 0.000834), (256, 0.000165)):
        assert epps_pulley(gaussian(0, 1, count)).item() == pytest.approx(expected, abs=1e-6)


def test_values_on_a_known_sample():
    """The statistic of torch's own seed 0, as computed by an independent implementation."""
    torch.manual_seed(0)
    x = torch.randn(1000, 5)
    expected = torch.tensor([0.447483, 3.337426, 0.502752, 3.026776, 0.046719])
    assert torch.allclose(epps_pulley(x.T), expected, atol=2e-4)


def test_slicing_on_a_known_sample():
    torch.manual_seed(0)
    x = torch.randn(128, 64)
    got = [sigreg(x, slices=256, generator=generator(step)).item() for step in range(5)]
    assert got == pytest.approx([1.20487, 1.08266, 1.26475, 1.13631, 1.27381], abs=2e-5)


def test_period_of_the_grid():
    assert period(17, 3.0) == pytest.approx(33.5103, abs=1e-4)
    assert period(9, 5.0) == pytest.approx(10.053, abs=1e-3)


@pytest.mark.parametrize(("nodes", "t_max"), [(16, 3.0), (1, 3.0), (17, 0.0), (17, float("inf"))])
def test_impossible_grids(nodes, t_max):
    with pytest.raises(ConfigError, match=r"nodes = |t_max = "):
        epps_pulley(torch.zeros(4), nodes=nodes, t_max=t_max)
    with pytest.raises(ConfigError, match=r"nodes = |t_max = "):
        SigregConfig(nodes=nodes, t_max=t_max)


# --- sliced --------------------------------------------------------------------------------------


def sphere_expectation(x):
    """E over directions of T: exp(-i t a·x) averages to 0F1(; D/2; -t² r² / 4)."""
    count, width = x.shape
    t = torch.linspace(0, 3, 17, dtype=torch.float64)
    phi = torch.exp(-t * t / 2)

    def kernel(r):
        return torch.from_numpy(hyp0f1(width / 2, (-((t * r.unsqueeze(-1)) ** 2) / 4).numpy()))

    pairs = kernel(torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")).mean((0, 1))
    gap = pairs - 2 * phi * kernel(x.norm(dim=1)).mean(0) + phi**2
    return count * 2 * torch.trapezoid(phi * gap, t).item()


def test_slices_converge_to_the_expectation_over_the_sphere():
    x = torch.randn(64, 8, generator=generator(3), dtype=torch.float64) * 1.3 + 0.1
    exact = sphere_expectation(x)
    assert sigreg(x, slices=512, generator=generator()).item() == pytest.approx(exact, abs=0.08)
    assert sigreg(x, slices=10000, generator=generator()).item() == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("count", [32, 256])
def test_gaussian_samples_score_a_constant_whatever_their_number(count):
    x = torch.randn(60, count, 8, generator=generator(3))
    assert sigreg(x, slices=64, generator=generator(4)).item() == pytest.approx(1.0525, abs=0.06)


def test_the_excess_is_zero_for_gaussians_and_the_gap_for_others():
    x = torch.randn(500, 64, 3, generator=generator(5))
    null = sigreg_parts(x, generator=generator(), **GRID)
    assert null.excess.item() == pytest.approx(0, abs=1e-3)
    shifted = torch.randn(500, 64, 1, generator=generator(6)) + 1
    gap = sigreg_parts(shifted, generator=generator(), **GRID)
    assert gap.excess.item() == pytest.approx(epps_pulley_population(1, 1), abs=0.01)
    assert not gap.excess.requires_grad


@pytest.mark.parametrize("count", [16, 128])
def test_collapse_scores_in_proportion_to_the_samples(count):
    value = sigreg(torch.zeros(count, 5), generator=generator()).item()
    assert value == pytest.approx(0.40205 * count, rel=1e-4)


def test_collapse_at_zero_has_no_gradient_and_near_it_points_outwards():
    x = torch.zeros(32, 4, requires_grad=True)
    sigreg(x, generator=generator()).backward()
    assert x.grad is not None
    assert x.grad.abs().max() == 0
    near = (0.1 * torch.randn(32, 4, generator=generator(1))).requires_grad_()
    sigreg(near, slices=512, generator=generator()).backward()
    assert near.grad is not None
    assert (near.grad * near).sum() < 0  # descending spreads the samples


@pytest.mark.parametrize("c", [0.5, 1.0, 2.0, 3.0, 5.0, 8.0])
def test_gradient_of_a_cluster_is_the_closed_form(c):
    x = torch.full((8, 1), c, requires_grad=True)
    sigreg(x, slices=1, generator=generator()).backward()
    assert x.grad is not None
    expected = math.sqrt(math.pi) * c * math.exp(-c * c / 4)
    assert torch.allclose(x.grad, torch.full((8, 1), expected), atol=0.01)


def test_gradcheck():
    x = torch.randn(5, 3, generator=generator(7), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: sigreg(z, slices=4, generator=generator()), x)


def test_descending_centres_and_spreads_a_cluster():
    x = (1 + 0.2 * torch.randn(64, 2, generator=generator(2))).requires_grad_()
    before = sigreg(x, generator=generator()).item()
    optimizer = torch.optim.Adam([x], lr=0.05)
    for step in range(200):
        optimizer.zero_grad()
        sigreg(x, slices=32, generator=generator(step)).backward()
        optimizer.step()
    assert before > 20
    assert sigreg(x, generator=generator()).item() < 0.6  # under a random sample's 1.05
    assert x.mean(0).abs().max() < 0.15
    assert x.std(0).min() > 0.8


def test_rotations_leave_the_expectation_alone():
    x = torch.randn(64, 6, generator=generator(5)).double() * torch.tensor([3.0, 1, 1, 1, 0.2, 0.2])
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator(6)).double())
    assert sphere_expectation(x @ rotation) == pytest.approx(sphere_expectation(x), rel=1e-9)
    plain = sigreg(x, slices=20000, generator=generator(7))
    turned = sigreg(x @ rotation, slices=20000, generator=generator(8))
    assert turned.item() == pytest.approx(plain.item(), rel=0.05)


def test_order_and_sign_of_the_samples_do_not_matter():
    x = torch.randn(32, 4)
    a, b = sigreg(x, generator=generator()), sigreg(x.flip(0), generator=generator())
    assert a.item() == pytest.approx(b.item(), rel=1e-5)
    assert sigreg(-x, generator=generator()).item() == pytest.approx(a.item(), rel=1e-5)


def test_leading_axes_are_averaged():
    x = torch.randn(3, 32, 4)
    alone = [sigreg(step, generator=generator()).item() for step in x]
    assert sigreg(x, generator=generator()).item() == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_directions_come_from_the_generator():
    x = torch.rand(32, 8)
    assert sigreg(x, generator=generator(1)) == sigreg(x, generator=generator(1))
    assert sigreg(x, generator=generator(1)) != sigreg(x, generator=generator(2))


def test_half_precision_and_autocast_are_computed_in_float32():
    x = torch.randn(32, 4).bfloat16()
    expected = sigreg(x.float(), generator=generator())
    value = sigreg(x, generator=generator())
    assert value.dtype == torch.float32
    assert value == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert sigreg(x.float(), generator=generator()) == expected


# --- bad input -----------------------------------------------------------------------------------


def test_a_batch_of_one_is_refused():
    with pytest.raises(ConfigError, match="SIGReg of a batch of 1"):
        sigreg(torch.zeros(3, 1, 4), generator=generator())


def test_projections_beyond_half_the_period_are_warned_of():
    x = torch.randn(16, 4, generator=generator(8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sigreg(4 * x, generator=generator())
    with pytest.warns(RuntimeWarning, match=r"projects to 3\d, beyond half the period \(16\.8\)"):
        sigreg(x / x.norm(dim=1).max() * 34, slices=5000, generator=generator())


# --- the term ------------------------------------------------------------------------------------


def test_the_term_takes_fresh_directions_from_seed_and_step():
    views = torch.randn(2, 32, 6, generator=generator(9))
    term = Sigreg(SigregConfig(slices=16), Sizes(seed=3))
    for step in (0, 5):
        loss, logs = term(Latents(views=views, step=step))
        expected = sigreg(views, slices=16, generator=torch_generator(3, "sigreg", step))
        assert loss == expected
        assert set(logs) == {"excess"}
    assert term(Latents(views=views, step=0))[0] != term(Latents(views=views, step=1))[0]


def test_scale_and_grouping():
    z = torch.randn(24, 3, 6, generator=generator(10))
    known = Latents(sequence=z)

    def value(**changes):
        return Sigreg(SigregConfig(on="sequence", slices=16, **changes), Sizes())(known)[0].item()

    directions = {"slices": 16, "generator": torch_generator(0, "sigreg", 0)}
    assert value() == sigreg(z.transpose(0, 1), **directions).item()
    assert value(scale="1") == pytest.approx(value() / 24)
    directions["generator"] = torch_generator(0, "sigreg", 0)
    together = sigreg(z.transpose(0, 1).reshape(72, 6), **directions).item()
    assert value(flat=True) == pytest.approx(together, rel=1e-6)
    assert value(flat=True, scale="1") == pytest.approx(together / 72, rel=1e-6)


def test_impossible_configs():
    with pytest.raises(ConfigError, match="slices = 0"):
        SigregConfig(slices=0)
    with pytest.raises(ConfigError, match="weight = -1"):
        SigregConfig(weight=-1)
