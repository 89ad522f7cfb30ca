"""SIGReg against closed forms: Epps-Pulley on the half line [0, 3] with 17 nodes."""

import math

import pytest
import torch

from tubelet.vjepa.sigreg import sigreg


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def statistic(points):
    """T of points on a line (one dimension has the two directions +1 and -1, equal in T)."""
    x = torch.tensor(points).view(-1, 1)
    return sigreg(x, slices=3, generator=generator()).item()


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([0.0], 0.402048),
        ([1.0], 1.186006),
        ([2.0], 2.642852),
        ([-1.0, 1.0], 0.205659),
        ([-1.0, 0.0, 1.0], 0.032947),
        ([100.0], 0.643200),
        ([33.5103], 0.402048),  # the grid's period: far away looks like zero
    ],
)
def test_closed_forms_of_points(points, expected):
    assert statistic(points) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [(1.0, 1.0, 0.444343), (0.0, 2.0, 0.236091), (0.0, 0.5, 0.151191), (2.0, 1.0, 1.408368)],
)
def test_closed_forms_of_gaussians(mean, std, expected):
    """With quantiles for samples the population value is met without noise."""
    uniform = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    x = (mean + std * math.sqrt(2) * torch.erfinv(2 * uniform - 1)).float().view(-1, 1)
    assert sigreg(x, slices=1, generator=generator()).item() / 4000 == pytest.approx(
        expected, abs=3e-4
    )


@pytest.mark.parametrize("count", [32, 256])
def test_gaussian_samples_score_a_constant_whatever_their_number(count):
    x = torch.randn(60, count, 8, generator=generator(3))
    assert sigreg(x, slices=64, generator=generator(4)).item() == pytest.approx(1.0525, abs=0.06)


@pytest.mark.parametrize("count", [16, 128])
def test_collapse_scores_in_proportion_to_the_samples(count):
    assert sigreg(torch.zeros(count, 5)).item() == pytest.approx(0.40205 * count, rel=1e-4)


def test_collapse_at_zero_has_no_gradient_and_near_it_points_outwards():
    x = torch.zeros(32, 4, requires_grad=True)
    sigreg(x, generator=generator()).backward()
    assert x.grad is not None
    assert x.grad.abs().max() == 0
    near = (0.1 * torch.randn(32, 4, generator=generator(1))).requires_grad_()
    sigreg(near, slices=512, generator=generator()).backward()
    assert near.grad is not None
    assert (near.grad * near).sum() < 0  # descending spreads the samples


def test_gradient_of_a_cluster_is_the_closed_form():
    for c, expected in ((1.0, 1.38), (2.0, 1.30), (3.0, 0.56)):
        x = torch.full((8, 1), c, requires_grad=True)
        sigreg(x, slices=1, generator=generator()).backward()
        assert x.grad is not None
        assert torch.allclose(x.grad, torch.full((8, 1), expected), atol=0.01)


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


def test_rotations_and_reflections_leave_the_expectation_alone():
    x = torch.randn(64, 6, generator=generator(5)) * torch.tensor([3.0, 1, 1, 1, 0.2, 0.2])
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator(6)))
    plain = sigreg(x, slices=20000, generator=generator(7))
    turned = sigreg(x @ rotation, slices=20000, generator=generator(8))
    assert turned.item() == pytest.approx(plain.item(), rel=0.05)


def test_order_of_the_samples_does_not_matter():
    x = torch.randn(32, 4)
    a, b = sigreg(x, generator=generator()), sigreg(x.flip(0), generator=generator())
    assert a.item() == pytest.approx(b.item(), rel=1e-5)


def test_leading_axes_are_averaged():
    x = torch.randn(3, 32, 4)
    alone = [sigreg(step, generator=generator()).item() for step in x]
    assert sigreg(x, generator=generator()).item() == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_directions_come_from_the_generator():
    x = torch.rand(32, 8)
    assert sigreg(x, generator=generator(1)) == sigreg(x, generator=generator(1))
    assert sigreg(x, generator=generator(1)) != sigreg(x, generator=generator(2))


def test_half_precision_is_computed_in_float32():
    x = torch.randn(32, 4).bfloat16()
    value = sigreg(x, generator=generator())
    assert value.dtype == torch.float32
    assert value == sigreg(x.float(), generator=generator())


def test_autocast_does_not_lower_the_precision():
    x = torch.randn(32, 4)
    with torch.autocast("cpu", torch.bfloat16):
        value = sigreg(x, generator=generator())
    assert value.dtype == torch.float32
    assert value == sigreg(x, generator=generator())
