"""Latent costs against values worked out by hand."""

import pytest
import torch

from tubelet.core.errors import ConfigError, PlanningError
from tubelet.core.latent import Latent
from tubelet.planning import LatentCost


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    trajectory = torch.randn(2, 5, 3, 4, 6, generator=generator)
    return Latent(trajectory), Latent(torch.randn(2, 4, 6, generator=generator))


def test_known_values():
    trajectory = Latent(torch.tensor([[[[[0.0, 0.0]], [[3.0, -1.0]]]]]))  # B S N = 1, H = D = 2
    goal = Latent(torch.tensor([[[1.0, 0.0]]]))

    def cost(**settings):
        return LatentCost(**settings)(trajectory, goal).item()

    assert cost(kind="l2") == pytest.approx(2.5)
    assert cost(kind="l1") == pytest.approx(1.5)
    assert cost(kind="cosine") == pytest.approx(1 - 3 / 10**0.5)
    assert cost(steps="sum") == pytest.approx((0.5 + 2.5) / 2)
    assert cost(steps="discounted", discount=0.5) == pytest.approx((0.5 * 0.5 + 2.5) / 1.5)
    assert cost(steps="sum", saturation=1.5) == pytest.approx((0.5 / 2.0 + 2.5 / 4.0) / 2)
    assert cost(steps="weights", weights=(3.0, 1.0)) == pytest.approx((3 * 0.5 + 2.5) / 4)


@pytest.mark.parametrize("kind", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("steps", ["last", "sum", "discounted"])
def test_zero_at_the_goal_and_positive_elsewhere(pair, kind, steps):
    trajectory, goal = pair
    cost = LatentCost(kind=kind, steps=steps)
    there = Latent(goal.tokens[:, None, None].expand_as(trajectory.tokens))
    torch.testing.assert_close(cost(there, goal), torch.zeros(2, 5), atol=1e-6, rtol=0)
    assert (cost(trajectory, goal) > 0).all()
    assert cost(trajectory, goal).shape == (2, 5)


@pytest.mark.parametrize("kind", ["l1", "l2", "cosine"])
def test_equal_weights_change_nothing(pair, kind):
    expected = LatentCost(kind=kind, steps="sum")(*pair)
    for settings in (
        {"steps": "weights", "weights": (2.0, 2.0, 2.0)},
        {"steps": "discounted", "discount": 1.0},
        {"steps": "sum", "token_weights": (0.5,) * 4},
    ):
        torch.testing.assert_close(LatentCost(kind=kind, **settings)(*pair), expected)


def test_token_weights_pick_tokens(pair):
    trajectory, goal = pair
    picked = LatentCost(token_weights=(0.0, 3.0, 0.0, 1.0))(trajectory, goal)
    second, fourth = (
        LatentCost()(trajectory.map(lambda x, t=t: x[:, :, :, t]), goal.map(lambda x, t=t: x[:, t]))
        for t in (slice(1, 2), slice(3, 4))
    )
    torch.testing.assert_close(picked, 0.75 * second + 0.25 * fourth)


def test_proprio_term_adds_with_its_weight(pair):
    trajectory, goal = pair
    with_proprio = Latent(trajectory.tokens, torch.zeros(2, 5, 3, 2))
    there = Latent(goal.tokens, torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    extra = LatentCost(proprio_weight=0.1)(with_proprio, there) - LatentCost()(trajectory, goal)
    torch.testing.assert_close(extra, torch.tensor([[0.25], [0.0]]).expand(2, 5), atol=1e-6, rtol=0)
    with pytest.raises(PlanningError, match="goal has no proprioception"):
        LatentCost(proprio_weight=0.1)(with_proprio, goal)
    with pytest.raises(PlanningError, match="imagined trajectory has no"):
        LatentCost(proprio_weight=0.1)(trajectory, there)


def test_half_precision_latents_are_compared_in_float32(pair):
    trajectory, goal = (x.map(lambda t: t.bfloat16()) for x in pair)
    cost = LatentCost(kind="l1")(trajectory, goal)
    expected = LatentCost(kind="l1")(*(x.map(lambda t: t.float()) for x in (trajectory, goal)))
    assert cost.dtype == torch.float32
    torch.testing.assert_close(cost, expected)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "l3"}, "kind = 'l3': choose one of l1, l2, cosine"),
        ({"steps": "first"}, "steps = 'first'"),
        ({"discount": 0.0}, r"discount = 0.0: must be in \(0, 1\]"),
        ({"weights": (1.0,)}, "exactly when steps = 'weights'"),
        ({"steps": "weights"}, "exactly when steps = 'weights'"),
        ({"token_weights": (1.0, -1.0)}, "0 or more"),
        ({"token_weights": (0.0, 0.0)}, "above 0"),
        ({"proprio_weight": -1.0}, "proprio_weight = -1.0"),
        ({"kind": "l3", "discount": 2.0}, "l3.*discount"),
    ],
)
def test_impossible_settings_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        LatentCost(**settings)


def test_weights_that_do_not_fit_are_named(pair):
    with pytest.raises(PlanningError, match="weights has 2 numbers but there are 3 steps"):
        LatentCost(steps="weights", weights=(1.0, 1.0))(*pair)
    with pytest.raises(PlanningError, match="token_weights has 5 numbers but there are 4 tokens"):
        LatentCost(token_weights=(1.0,) * 5)(*pair)
