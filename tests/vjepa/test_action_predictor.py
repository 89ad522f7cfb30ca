"""The action-conditioned predictor: causality, cached rollouts, residual start."""

import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.vjepa.action_predictor import (
    ActionPredictor,
    ActionPredictorConfig,
    block_causal_mask,
)

D, A = 10, 3
CONDITIONINGS = pytest.mark.parametrize("conditioning", ["adaln", "tokens"])
GRIDS = pytest.mark.parametrize("grid", [(1, 1), (4, 4), (2, 3)])


def make(conditioning="adaln", grid=(1, 1), residual=True, trained=True):
    torch.manual_seed(0)
    config = ActionPredictorConfig(
        width=24, depth=2, heads=2, conditioning=conditioning, residual=residual
    )
    predictor = ActionPredictor(config, latent_dim=D, action_dim=A, grid=grid).eval()
    if trained:
        with torch.no_grad():
            for parameter in predictor.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return predictor


def inputs(predictor, batch=2, steps=4):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, steps, predictor.tokens, D, generator=generator)
    return latents, torch.rand(batch, steps, A, generator=generator)


@CONDITIONINGS
@GRIDS
@torch.no_grad()
def test_a_change_is_felt_from_its_own_step_on_and_never_before(conditioning, grid):
    predictor = make(conditioning, grid)
    latents, actions = inputs(predictor)
    out = predictor(latents, actions)
    for t in range(4):
        for changed in ("action", "latent"):
            z, a = latents.clone(), actions.clone()
            if changed == "action":
                a[:, t] += 1
            else:
                z[:, t] += 1
            other = predictor(z, a)
            assert torch.allclose(other[:, :t], out[:, :t], atol=1e-6)
            for later in range(t, 4):
                assert (other[:, later] - out[:, later]).abs().max() > 1e-4, (changed, t, later)


@CONDITIONINGS
@GRIDS
@pytest.mark.parametrize("context", [1, 3])
@torch.no_grad()
def test_cached_rollout_is_the_uncached_one(conditioning, grid, context):
    predictor = make(conditioning, grid)
    latents, actions = inputs(predictor, steps=8)
    args = latents[:, :context], actions
    cached = predictor.rollout(*args)
    assert cached.shape == (2, 8 - context + 1, predictor.tokens, D)
    assert torch.allclose(cached, predictor.rollout(*args, use_cache=False), atol=1e-5)


@CONDITIONINGS
@GRIDS
@torch.no_grad()
def test_rollout_by_hand(conditioning, grid):
    """Feed every prediction back as the next latent, through the public forward alone."""
    predictor = make(conditioning, grid)
    latents, actions = inputs(predictor, steps=5)
    steps = latents[:, :2]
    while steps.shape[1] < 6:
        nxt = predictor(steps, actions[:, : steps.shape[1]])[:, -1:]
        steps = torch.cat([steps, nxt], dim=1)
    assert torch.allclose(predictor.rollout(latents[:, :2], actions), steps[:, 2:], atol=1e-5)


@CONDITIONINGS
@pytest.mark.parametrize("context", [1, 3])
@torch.no_grad()
def test_candidates_roll_out_as_if_alone(conditioning, context):
    predictor = make(conditioning, (2, 2))
    latents, past = inputs(predictor, batch=2, steps=context)
    past = past[:, : context - 1]
    candidates = torch.rand(2, 5, 4, A)
    got = predictor.rollout_candidates(latents, past, candidates)
    assert got.shape == (2, 5, 4, 4, D)
    for b in range(2):
        for s in range(5):
            actions = torch.cat([past[b], candidates[b, s]])[None]
            alone = predictor.rollout(latents[b : b + 1], actions)[0]
            assert torch.allclose(got[b, s], alone, atol=1e-5)


@CONDITIONINGS
@torch.no_grad()
def test_extending_in_pieces_is_extending_at_once(conditioning):
    predictor = make(conditioning, (2, 2))
    latents, actions = inputs(predictor, steps=5)
    first, cache = predictor.extend(latents[:, :2], actions[:, :2], None)
    second, _ = predictor.extend(latents[:, 2:], actions[:, 2:], cache)
    assert torch.allclose(torch.cat([first, second], dim=1), predictor(latents, actions), atol=1e-5)


@CONDITIONINGS
@torch.no_grad()
def test_a_residual_predictor_starts_by_copying(conditioning):
    predictor = make(conditioning, (2, 2), trained=False)
    latents, actions = inputs(predictor)
    assert torch.equal(predictor(latents, actions), latents)
    plain = make(conditioning, (2, 2), residual=False, trained=False)
    assert not torch.allclose(plain(latents, actions), latents, atol=1e-2)


@CONDITIONINGS
def test_the_action_is_felt_after_one_step_of_training(conditioning):
    predictor = make(conditioning, (2, 2), trained=False)
    latents, actions = inputs(predictor)
    optimizer = torch.optim.SGD(predictor.parameters(), lr=1.0)
    (predictor(latents, actions) - 1).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        gap = predictor(latents, actions) - predictor(latents, -actions)
    assert gap.abs().max() > 1e-6


@CONDITIONINGS
@torch.no_grad()
def test_the_order_of_the_past_matters(conditioning):
    predictor = make(conditioning)
    latents, actions = inputs(predictor, steps=3)
    order = [1, 0, 2]
    out, other = predictor(latents, actions), predictor(latents[:, order], actions[:, order])
    assert (out[:, 2] - other[:, 2]).abs().max() > 1e-5


def test_block_causal_mask_by_definition():
    mask = block_causal_mask(2, 3, 2, torch.device("cpu"))
    assert mask.shape == (6, 10)
    for q in range(6):
        for k in range(10):
            assert mask[q, k] == (k // 2 <= 2 + q // 2)


def test_gradients_flow_through_a_rollout_to_every_parameter():
    predictor = make("adaln", (2, 2))
    latents, actions = inputs(predictor)
    predictor.rollout(latents[:, :1], actions).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in predictor.parameters())


@pytest.mark.parametrize(
    ("latents", "actions"),
    [((2, 4, 3, D), (2, 4, A)), ((2, 4, 4, D), (2, 3, A)), ((2, 4, 4, D), (2, 4, A + 1))],
)
def test_shapes_that_do_not_fit(latents, actions):
    with pytest.raises(ConfigError, match="do not fit a predictor of 4 tokens"):
        make(grid=(2, 2))(torch.zeros(latents), torch.zeros(actions))


def test_too_few_actions_for_the_context():
    predictor = make()
    with pytest.raises(ConfigError, match="2 actions for a context of 3 steps"):
        predictor.rollout(torch.zeros(1, 3, 1, D), torch.zeros(1, 2, A))


@pytest.mark.parametrize("bad", [{"heads": 5}, {"depth": 0}, {"heads": 0}, {"width": 8}])
def test_impossible_configs(bad):
    with pytest.raises(ConfigError):
        ActionPredictorConfig(**{"width": 24, "heads": 4, **bad})
