"""Search noise has the colour and the streams it claims."""

import pytest
import torch

from tubelet.planning.noise import colouring, standard_normal

CPU = torch.device("cpu")


def test_white_is_the_identity():
    torch.testing.assert_close(colouring(7, 0.0), torch.eye(7))


@pytest.mark.parametrize("beta", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("horizon", [1, 2, 6, 40])
def test_every_step_has_unit_variance_and_correlation_falls_with_distance(horizon, beta):
    factor = colouring(horizon, beta).double()
    covariance = factor @ factor.T
    torch.testing.assert_close(covariance.diagonal(), torch.ones(horizon).double())
    assert (covariance[0].diff() < 1e-6).all()


def test_redder_noise_is_smoother():
    white = torch.randn(64, 5000, generator=torch.Generator().manual_seed(0))
    jumps = [(colouring(64, beta) @ white).diff(dim=0).square().mean() for beta in (0.0, 1.0, 2.0)]
    assert jumps[0] > 2 * jumps[1] > 4 * jumps[2]


def test_a_problem_draws_from_its_own_generator_only():
    def fresh(n):
        return torch.Generator().manual_seed(n)

    together = standard_normal([fresh(0), fresh(1)], 2, (4, 3), CPU)
    alone = standard_normal([fresh(1)], 1, (4, 3), CPU)
    assert torch.equal(together[1], alone[0])
    assert standard_normal(fresh(0), 2, (4, 3), CPU).shape == (2, 4, 3)
