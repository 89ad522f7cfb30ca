"""The world model as planners see it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tubelet.core.errors import ConfigError
from tubelet.core.latent import Latent
from tubelet.planning import LatentCost
from tubelet.vjepa.action_predictor import ActionPredictorConfig
from tubelet.vjepa.encoder import EncoderConfig
from tubelet.vjepa.world_model import WorldModel, WorldModelConfig

LATENTS = pytest.mark.parametrize("latent", ["vector", "tokens"])


def config(**changes):
    settings = {
        "encoder": EncoderConfig(width=12, depth=1, heads=1, patch=4),
        "predictor": ActionPredictorConfig(width=16, depth=1, heads=2),
        "latent_dim": 6,
        "head_width": 8,
        "image_size": 16,
        "action_block": 3,
    }
    return WorldModelConfig(**{**settings, **changes})


def make(**changes):
    torch.manual_seed(0)
    model = WorldModel(config(**changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 16, 16, 3), dtype=np.uint8)


@LATENTS
@torch.no_grad()
def test_shapes_of_the_protocol(latent):
    model = make(latent=latent, pool=2 if latent == "tokens" else 1)
    tokens, width = (1, 6) if latent == "vector" else (4, 12)
    context = model.encode({"pixels": pixels(3, 2)})
    goal = model.encode_goal({"pixels": pixels(3)})
    future = model.rollout(context, torch.zeros(3, 5, 4, 6))
    assert model.action_dim == 6
    assert context.tokens.shape == (3, 1, tokens, width)
    assert goal.tokens.shape == (3, tokens, width)
    assert future.tokens.shape == (3, 5, 4, tokens, width)


@LATENTS
@torch.no_grad()
def test_a_goal_is_an_observation_at_rest(latent):
    model = make(latent=latent)
    frame = pixels(2)
    still = np.stack([frame, frame], axis=1)
    goal = model.encode_goal({"pixels": frame}).tokens
    assert torch.equal(goal, model.encode({"pixels": still}).tokens[:, 0])
    moving = np.stack([frame[::-1], frame], axis=1)
    assert not torch.allclose(goal, model.encode({"pixels": moving}).tokens[:, 0], atol=1e-3)


@LATENTS
@torch.no_grad()
def test_problems_of_a_batch_do_not_meet(latent):
    model = make(latent=latent)
    frames, actions = pixels(3, 2), torch.rand(3, 4, 2, 6)
    together = model.rollout(model.encode({"pixels": frames}), actions).tokens
    for b in range(3):
        alone = model.encode({"pixels": frames[b : b + 1]})
        assert torch.allclose(
            model.rollout(alone, actions[b : b + 1]).tokens[0], together[b], atol=1e-5
        )


@torch.no_grad()
def test_a_rollout_is_the_predictors():
    model = make(latent="tokens")
    context = model.encode({"pixels": pixels(1, 2)})
    actions = torch.rand(1, 2, 3, 6)
    got = model.rollout(context, actions).tokens
    for s in range(2):
        wanted = model.predictor.rollout(context.tokens, actions[:, s])
        assert torch.allclose(got[:, s], wanted, atol=1e-5)


@torch.no_grad()
def test_actions_of_double_precision_are_taken():
    model = make()
    context = model.encode({"pixels": pixels(1, 2)})
    assert model.rollout(context, torch.zeros(1, 1, 2, 6).double()).tokens.dtype == torch.float32


@torch.no_grad()
def test_standardised_tokens_have_no_mean_and_unit_deviation():
    model = make(latent="tokens")
    sample = 5 + 3 * torch.randn(200, 16, 12)
    sample[:, 3, 4] = 2.0  # a constant channel must not blow up
    model.standardise(sample.half())
    latents = model.project(sample.half())
    assert torch.allclose(latents.mean(0), torch.zeros(16, 12), atol=1e-3)
    std = latents.std(0)
    assert std[3, 4] == 0
    std[3, 4] = 1
    assert torch.allclose(std, torch.ones(16, 12), atol=1e-3)


def test_the_statistics_are_saved_with_the_weights():
    assert {"token_mean", "token_std"} <= make().state_dict().keys()


@torch.no_grad()
def test_pooled_tokens_are_means_of_neighbours_in_row_order():
    model = make(latent="tokens", pool=2)
    tokens = torch.randn(2, 16, 12)
    got = model.project(tokens)
    grid = tokens.view(2, 4, 4, 12)
    for i in range(2):
        for j in range(2):
            wanted = grid[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(dim=(1, 2))
            assert torch.allclose(got[:, 2 * i + j], wanted, atol=1e-6)


def test_vectors_are_batch_normed_in_training():
    model = make().train()
    latents = model.project(torch.randn(64, 16, 12))
    assert torch.allclose(latents.mean(dim=(0, 1)), torch.zeros(6), atol=1e-5)
    assert torch.allclose(latents.std(dim=0, unbiased=False), torch.ones(1, 6), atol=1e-3)


@torch.no_grad()
def test_a_cost_of_zero_exactly_at_the_goal():
    model = make()
    goal = model.encode_goal({"pixels": pixels(2)})
    assert isinstance(goal, Latent)
    assert F.mse_loss(goal.tokens, model.encode_goal({"pixels": pixels(2)}).tokens) == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"image_size": 18}, "nearest valid height: 16"),
        ({"pool": 3, "latent": "tokens"}, "pool = 3 does not divide"),
        ({"action_block": 0}, "action_block = 0"),
        ({"latent_dim": 0}, "latent_dim = 0"),
    ],
)
def test_impossible_configs(bad, message):
    with pytest.raises(ConfigError, match=message):
        config(**bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (pixels(2, 3), r"uint8 \[2, 3, 16, 16, 3\]; the model wants uint8 \[B, 2, 16, 16, 3\]"),
        (pixels(2, 2)[:, :, :8], r"uint8 \[2, 2, 8, 16, 3\]"),
        (pixels(2, 2).astype(np.float32), r"float32 \[2, 2, 16, 16, 3\]"),
        (pixels(2), r"uint8 \[2, 16, 16, 3\]"),
    ],
)
def test_an_observation_of_another_kind(bad, message):
    with pytest.raises(ConfigError, match=message):
        make().encode({"pixels": bad})


@pytest.mark.parametrize("bad", [pixels(2, 2), pixels(2)[:, :8], pixels(2).astype(float)])
def test_a_goal_of_another_kind(bad):
    with pytest.raises(ConfigError, match=r"the model wants uint8 \[B, 16, 16, 3\]"):
        make().encode_goal({"pixels": bad})


@pytest.mark.filterwarnings("error")
@torch.no_grad()
def test_read_only_and_reversed_arrays_and_tensors_are_taken():
    model, frames = make(), pixels(3, 2)
    wanted = model.encode({"pixels": frames}).tokens
    fixed = frames.copy()
    fixed.flags.writeable = False
    for same in (fixed, frames[::-1].copy()[::-1], torch.from_numpy(frames)):
        assert torch.equal(model.encode({"pixels": same}).tokens, wanted)


def test_a_context_of_several_steps_needs_past_actions():
    context = Latent(torch.zeros(2, 3, 1, 6))
    with pytest.raises(ConfigError, match="context of 3 steps needs the actions between"):
        make().rollout(context, torch.zeros(2, 4, 2, 6))


# --- proprioception ---------------------------------------------------------------------------


@LATENTS
@torch.no_grad()
def test_proprioception_goes_in_and_is_imagined(latent):
    model = make(latent=latent, proprio_dim=3)
    model.standardise_proprio(torch.tensor([[0.0, 2.0, 4.0], [2.0, 2.0, 0.0]]))
    felt = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    context = model.encode({"pixels": pixels(2, 2), "proprio": felt})
    assert context.proprio.shape == (2, 1, 3)
    mean, std = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([2**0.5, 1e-3, 8**0.5])
    wanted = (torch.from_numpy(felt[:, 1]) - mean) / std
    assert torch.allclose(context.proprio[:, 0], wanted, rtol=1e-5)
    future = model.rollout(context, torch.randn(2, 4, 3, 6))
    assert future.tokens.shape == (2, 4, 3, *context.tokens.shape[2:])
    assert future.proprio.shape == (2, 4, 3, 3)
    goal = model.encode_goal({"pixels": pixels(2)})
    assert goal.proprio is None
    assert LatentCost()(future, goal).shape == (2, 4)
    other = model.encode({"pixels": pixels(2, 2), "proprio": felt + 1})
    assert torch.equal(
        other.tokens, context.tokens
    )  # it changes what is imagined, not what is seen
    assert not torch.allclose(model.rollout(other, torch.zeros(2, 1, 1, 6)).tokens, future.tokens)


@torch.no_grad()
def test_joining_and_parting_are_inverse():
    model = make(proprio_dim=3)
    z, felt = torch.randn(2, 5, 4, 6), torch.randn(2, 5, 3)
    parts = model.part(model.join(z, felt))
    assert torch.equal(parts.tokens, z)
    assert torch.allclose(parts.proprio, felt, atol=1e-6)
    assert torch.equal(make().join(z, None), z)


@pytest.mark.parametrize("obs", [{}, {"proprio": np.zeros((2, 1, 2), np.float32)}])
def test_missing_or_other_proprioception_is_refused(obs):
    with pytest.raises(ConfigError, match=r"width 3 \(model.proprio_dim\)"):
        make(proprio_dim=3).encode({"pixels": pixels(2, 2), **obs})
    with pytest.raises(ConfigError, match="proprio_dim = -1"):
        config(proprio_dim=-1)
