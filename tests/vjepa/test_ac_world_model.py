"""V-JEPA 2-AC as a world model, and its training loss."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tubelet.core.errors import ConfigError
from tubelet.core.latent import Latent
from tubelet.planning import LatentCost, LatentDynamics
from tubelet.planning.vjepa2_ac import VJEPA2ACConfig, VJEPA2ACPlanner
from tubelet.vjepa.ac_world_model import ACWorldModel, ac_losses
from tubelet.vjepa.action_predictor import ActionPredictor, ActionPredictorConfig
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.pose import compose
from tubelet.vjepa.positions import PositionConfig

D, ROWS, COLUMNS, PATCH = 12, 2, 3, 4
SIZE = (ROWS * PATCH, COLUMNS * PATCH)


def make_predictor(**changes):
    settings = {
        "width": 28,
        "depth": 1,
        "heads": 2,
        "conditioning": "tokens",
        "action_encoder": "linear",
        "state_dim": 7,
        "position": PositionConfig(pairs="tiled"),
        "place": False,
        "residual": False,
        "normalise": True,
    }
    config = ActionPredictorConfig(**{**settings, **changes})
    return ActionPredictor(config, latent_dim=D, action_dim=7, grid=(ROWS, COLUMNS))


def make(at_once=64, **changes):
    torch.manual_seed(0)
    encoder = TubeletEncoder(EncoderConfig(width=D, depth=1, heads=1, patch=PATCH))
    model = ACWorldModel(encoder, make_predictor(**changes), at_once=at_once)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def pixels(*lead):
    return np.random.default_rng(0).integers(0, 256, (*lead, *SIZE, 3), dtype=np.uint8)


def poses(*lead):
    return torch.rand(*lead, 7, generator=torch.Generator().manual_seed(3))


def observation(batch=2, steps=3):
    return {"pixels": pixels(batch, steps), "state": poses(batch, steps)}


@torch.no_grad()
def test_shapes_of_the_protocol():
    model = make()
    assert isinstance(model, LatentDynamics)
    assert model.action_dim == 7
    assert model.image_size == SIZE
    context = model.encode(observation())
    goal = model.encode_goal({"pixels": pixels(2)})
    future = model.rollout(context, torch.zeros(2, 5, 4, 7))
    assert context.tokens.shape == (2, 3, 6, D)
    assert goal.tokens.shape == (2, 6, D)
    assert goal.proprio is None
    assert future.tokens.shape == (2, 5, 4, 6, D)
    assert future.proprio is not None
    assert future.proprio.shape == (2, 5, 4, 7)
    assert LatentCost(kind="l1")(future, goal).shape == (2, 5)


@torch.no_grad()
def test_every_frame_is_encoded_alone_as_a_still_tubelet():
    model = make()
    clip = pixels(2, 3)
    got = model.encode({"pixels": clip, "proprio": poses(2, 3).numpy()}).tokens
    for b in range(2):
        for t in range(3):
            frame = torch.from_numpy(clip[b, t])
            tokens = model.encoder(torch.stack([frame, frame])[None])[0]
            assert torch.allclose(got[b, t], F.layer_norm(tokens, (D,)), atol=1e-5)
    goal = model.encode_goal({"pixels": clip[:, 1], "state": poses(2)})
    assert torch.allclose(goal.tokens, got[:, 1], atol=1e-5)
    assert goal.proprio is not None
    assert torch.equal(goal.proprio, poses(2))
    raw = make(normalise=False).encode(observation()).tokens
    assert raw.std(-1, correction=0).sub(1).abs().max() > 1e-3


@pytest.mark.parametrize("steps", [1, 3])
@torch.no_grad()
def test_imagination_composes_poses_and_recovers_past_actions(steps):
    """Against the predictor's own rollout with every pose and action written out."""
    model = make(at_once=2)
    truth, past = [poses(2)], 0.1 * torch.randn(2, steps - 1, 7)
    past[..., 6] = -0.01  # a gripper inside [0, 1] forgets nothing
    for t in range(steps - 1):
        truth.append(compose(truth[-1], past[:, t]))
    state = torch.stack(truth, 1)
    context = model.encode({"pixels": pixels(2, steps), "state": state})
    actions = 0.1 * torch.randn(2, 5, 3, 7)
    future = model.rollout(context, actions)
    assert future.proprio is not None
    for b in range(2):
        for s in range(5):
            every = torch.cat([past[b], actions[b, s]])[None]
            states = list(state[b].unbind(0))
            for h in range(3):
                states.append(compose(states[-1], actions[b, s, h]))
            assert torch.allclose(future.proprio[b, s], torch.stack(states[-3:]), atol=1e-6)
            known = torch.stack(states[:-1])[None]
            alone = model.predictor.rollout(context.tokens[b : b + 1], every, state=known)[0]
            assert torch.allclose(future.tokens[b, s], alone, atol=1e-4)


@torch.no_grad()
def test_a_predictor_without_states():
    model = make(state_dim=0)
    context = model.encode({"pixels": pixels(2, 1)})
    assert context.proprio is None
    future = model.rollout(context, torch.zeros(2, 3, 2, 7))
    assert future.proprio is None
    assert future.tokens.shape == (2, 3, 2, 6, D)
    two = Latent(context.tokens.repeat(1, 2, 1, 1))
    with pytest.raises(ConfigError, match="a context of 2 steps without states"):
        model.rollout(two, torch.zeros(2, 3, 2, 7))


@torch.no_grad()
def test_the_published_planner_plans_in_it():
    model = make()
    context, goal = model.encode(observation(steps=2)), model.encode_goal({"pixels": pixels(2)})
    config = VJEPA2ACConfig(horizon=2, samples=12, iterations=2, elites=3)
    plan = VJEPA2ACPlanner(config).plan(
        model, context, goal, generator=torch.Generator().manual_seed(0)
    )
    assert plan.actions.shape == (2, 2, 7)
    assert plan.actions[..., :3].abs().max() <= config.max_move
    assert not plan.actions[..., 3:6].any()
    cost = LatentCost(kind="l1")(model.rollout(context, plan.actions[:, None]), goal)
    assert torch.allclose(plan.cost, cost[:, 0], atol=1e-5)


@torch.no_grad()
def test_half_precision():
    model = make()
    exact = model.rollout(model.encode(observation()), torch.ones(2, 3, 2, 7) * 0.1)
    half = model.bfloat16()
    got = half.rollout(half.encode(observation()), torch.ones(2, 3, 2, 7) * 0.1)
    assert got.tokens.dtype == torch.bfloat16
    assert (got.tokens.float() - exact.tokens).abs().max() < 0.3
    assert exact.proprio is not None
    assert got.proprio is not None
    assert torch.equal(got.proprio, exact.proprio)  # poses keep their precision


def test_the_encoder_is_frozen():
    model = make().train()
    assert not model.encoder.training
    assert model.predictor.training
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert all(p.requires_grad for p in model.predictor.parameters())
    assert not model.encode(observation()).tokens.requires_grad


@pytest.mark.parametrize(
    ("obs", "said"),
    [
        ({"pixels": pixels(2, 3)}, "wants 'state'"),
        ({"pixels": pixels(2, 3), "state": poses(2, 2)}, r"state of shape \[2, 2, 7\]"),
        ({"pixels": pixels(2)}, r"uint8 \[B, T, 8, 12, 3\]"),
        ({"pixels": pixels(2, 3) / 255}, "float64"),
        ({"pixels": pixels(2, 3)[..., :4, :]}, "the model wants"),
    ],
)
def test_observations_that_do_not_fit(obs, said):
    with pytest.raises(ConfigError, match=said):
        make().encode(obs)


def test_parts_that_do_not_fit():
    encoder = TubeletEncoder(EncoderConfig(width=24, depth=1, heads=2, patch=PATCH))
    with pytest.raises(ConfigError, match="latents of width 12, the encoder gives 24"):
        ACWorldModel(encoder, make_predictor())
    encoder = TubeletEncoder(EncoderConfig(width=D, depth=1, heads=1, patch=PATCH))
    with pytest.raises(ConfigError, match="use_extrinsics"):
        ACWorldModel(encoder, make_predictor(extrinsics_dim=6, use_extrinsics=True))
    with pytest.raises(ConfigError, match="at_once = 0"):
        ACWorldModel(encoder, make_predictor(), at_once=0)


# --- the loss ------------------------------------------------------------------------------------


def batch(steps=5):
    generator = torch.Generator().manual_seed(4)
    z = F.layer_norm(torch.randn(2, steps, 6, D, generator=generator), (D,))
    a = torch.randn(2, steps - 1, 7, generator=generator)
    return z, a, torch.rand(2, steps, 7, generator=generator)


@pytest.mark.parametrize("auto_steps", [1, 2, 4])
@pytest.mark.parametrize("extrinsics", [False, True])
def test_the_loss_by_hand(auto_steps, extrinsics):
    """Appending the last predicted frame again and again, through the forward pass alone."""
    predictor = make_predictor(extrinsics_dim=3, use_extrinsics=extrinsics)
    z, a, s = batch()
    e = torch.randn(2, 5, 3) if extrinsics else None
    got = ac_losses(predictor, z, a, s, auto_steps=auto_steps, extrinsics=e)

    def predict(latents):
        t = latents.shape[1]
        return predictor(latents, a[:, :t], s[:, :t], None if e is None else e[:, :t])

    taught = predict(z[:, :-1])
    chain = torch.cat([z[:, :1], taught[:, :1]], 1)  # the second is counted in both terms
    for _ in range(1, auto_steps):
        chain = torch.cat([chain, predict(chain)[:, -1:]], 1)
    imagined = chain[:, 1:]
    teacher = (taught - z[:, 1:]).abs().mean()
    rollout = (imagined - z[:, 1 : 1 + auto_steps]).abs().mean()
    assert torch.allclose(got["teacher"], teacher, atol=1e-6)
    assert torch.allclose(got["rollout"], rollout, atol=1e-6)
    assert torch.allclose(got["loss"], teacher + rollout, atol=1e-6)
    parameters = [p for n, p in predictor.named_parameters() if extrinsics or "extrinsics" not in n]
    ours = torch.autograd.grad(got["loss"], parameters)
    theirs = torch.autograd.grad(teacher + rollout, parameters)
    for x, y in zip(ours, theirs, strict=True):
        assert torch.allclose(x, y, atol=1e-5)


def test_the_loss_falls():
    torch.manual_seed(0)
    predictor = make_predictor()
    z, a, s = batch()
    parameters = list(predictor.parameters())
    losses = []
    for _ in range(15):
        loss = ac_losses(predictor, z, a, s)["loss"]
        losses.append(loss.item())
        with torch.no_grad():
            for p, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                p -= 0.3 * slope
    assert losses[-1] < losses[0] - 0.1
    # Layer-normed noise against layer-normed noise: E|x - y| = 2 / sqrt(pi) = 1.13, twice.
    assert losses[0] == pytest.approx(2.26, abs=0.25)


@pytest.mark.parametrize("auto_steps", [0, 5])
def test_impossible_auto_steps(auto_steps):
    with pytest.raises(ConfigError, match="must be 1 to 4 for 5 latents"):
        ac_losses(make_predictor(), *batch(), auto_steps=auto_steps)
