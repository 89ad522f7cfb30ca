"""Discriminative feedback: what its gradient reaches, its ratio, and critics of known answers."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tubelet.core.errors import ConfigError
from tubelet.core.rng import torch_generator
from tubelet.vjepa.objectives import Latents, Objective, ObjectiveConfig, preset
from tubelet.vjepa.objectives.critic import SetCritic, critic_loss, slope_penalty
from tubelet.vjepa.objectives.feedback import CRITIC_GROUP, Feedback, FeedbackConfig
from tubelet.vjepa.objectives.regress import RegressConfig
from tubelet.vjepa.objectives.term import Sizes
from tubelet.vjepa.objectives.two_sample import auc, ecf_distance
from tubelet.vjepa.optim import OptimConfig, make_optimizer, set_schedule

KINDS = ["moments", "structure", "coherence", "both", "energy"]
B, M, K, D = 6, 5, 4, 12


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch_generator(seed, "feedback-test"))


def latents(**changes):
    base = Latents(
        step=3,
        pred=(randn(B, M, D, seed=1), randn(B, 2, D, seed=2)),
        target=(randn(B, M, D, seed=3), randn(B, 2, D, seed=4)),
        context=(randn(B, K, D, seed=5), randn(B, K + 1, D, seed=6)),
        places=(randn(B, M, 3, seed=7).sigmoid(), randn(B, 2, 3, seed=8).sigmoid()),
    )
    return replace(base, **changes)


def build(kind, **changes):
    torch.manual_seed(0)
    config = FeedbackConfig(**{"kind": kind, "width": 16} | changes)
    objective = ObjectiveConfig(regress=RegressConfig(), feedback=config)
    return Objective(objective, {"pred", "target", "context", "places"}, latent_dim=D)


def leaves(**changes):
    """Latents all of whose tensors would take a gradient."""
    known = latents(**changes)
    fields = {
        name: tuple(x.clone().requires_grad_() for x in getattr(known, name))
        for name in ("pred", "target", "context")
    }
    return replace(known, **fields)


# --- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_feedback_reaches_predictions_alone_and_critics_learn_from_constants(kind):
    objective, known = build(kind), leaves()
    term = objective.terms["feedback"]
    total = objective(known)["loss"]
    total.backward()
    assert all(z.grad is None or not z.grad.any() for z in known.context)
    # of the target: the absolute error's own gradient, and nothing else
    plain = leaves()
    Objective(ObjectiveConfig(regress=RegressConfig()), {"pred", "target"})(plain)[
        "loss"
    ].backward()
    for mine, theirs in zip(known.target, plain.target, strict=True):
        assert torch.equal(mine.grad, theirs.grad)
    assert any(not torch.equal(a.grad, b.grad) for a, b in zip(known.pred, plain.pred, strict=True))
    # of the critics: those of their own loss on constants, whatever is fed back
    without = build(kind, ratio=0.0)
    without(leaves())["loss"].backward()
    mine = [p.grad for p in term.parameters()]
    theirs = [p.grad for p in without.terms["feedback"].parameters()]
    assert bool(mine) == (kind != "moments")
    for a, b in zip(mine, theirs, strict=True):
        assert a is not None
        assert torch.allclose(a, b, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0.03, 0.3])
def test_the_ratio_law(kind, ratio):
    known, plain = leaves(), leaves()
    build(kind, ratio=ratio)(known)["loss"].backward()
    Objective(ObjectiveConfig(regress=RegressConfig()), {"pred", "target"})(plain)[
        "loss"
    ].backward()
    added = [a.grad - b.grad for a, b in zip(known.pred, plain.pred, strict=True)]
    norms = [
        math.sqrt(sum(float(g.square().sum()) for g in gs))
        for gs in (added, [p.grad for p in plain.pred])
    ]
    assert norms[0] / norms[1] == pytest.approx(ratio, rel=1e-3)


def test_the_factor_has_a_limit():
    """Where the critic is flat beside what is asked for, feedback does not become all there is."""
    out = build("structure", ratio=1e6)(leaves())
    assert out["feedback_at_limit"] == 1
    assert out["feedback_factor"] == 100
    assert build("structure")(leaves())["feedback_at_limit"] == 0


def test_weight_and_warmup_are_of_the_feedback_not_of_the_critic():
    config = {"weight": 2.0, "warmup": (10, 20)}
    early, late = build("both", **config), build("both", **config)
    a, b, c = leaves(step=5), leaves(step=25), leaves(step=25)
    early(a)["loss"].backward()
    late(b)["loss"].backward()
    build("both")(c)["loss"].backward()
    plain = leaves()
    Objective(ObjectiveConfig(regress=RegressConfig()), {"pred", "target"})(plain)[
        "loss"
    ].backward()
    assert torch.allclose(a.pred[0].grad, plain.pred[0].grad, atol=1e-8)
    twice = 2 * (c.pred[0].grad - plain.pred[0].grad)
    assert torch.allclose(b.pred[0].grad - plain.pred[0].grad, twice, atol=1e-7)
    assert all(p.grad is not None and p.grad.any() for p in [*early.parameters()][:1])


def test_collapse_is_stationary_for_the_moments_and_not_prevented():
    """Predictions that equal constant targets get no feedback: nothing here keeps them apart."""
    constant = torch.ones(B, M, D)
    term = Feedback(FeedbackConfig(kind="moments", normalise=False), Sizes(latent_dim=D))
    pred = constant.clone().requires_grad_()
    known = Latents(pred=(pred,), target=(constant,))
    value = term._feedback(list(term._judged(known, [pred])), 0)
    (pull,) = torch.autograd.grad(value, pred)
    assert value == 0
    assert not pull.any()


def test_an_encoder_collapses_with_feedback_as_without():
    """A shared target without anything against collapse: the error goes to zero with the spread."""
    torch.manual_seed(0)
    encoder, predictor = nn.Linear(8, D), nn.Linear(D, D)
    objective = Objective(
        ObjectiveConfig(
            regress=RegressConfig(kind="l2"),
            feedback=FeedbackConfig(kind="both", width=16, normalise=False),
        ),
        {"pred", "target", "context", "places"},
        latent_dim=D,
    )
    model = nn.ModuleList([encoder, predictor, objective])
    optimizer = make_optimizer(model, OptimConfig(lr=1e-2, weight_decay=0.0))
    places = torch.zeros(64, 1, 3)
    for step in range(300):
        set_schedule(optimizer, OptimConfig(lr=1e-2, warmup=0.0, weight_decay=0.0), step, 300)
        x = randn(64, 1, 8, seed=step)
        z = encoder(x)
        known = Latents(
            step=step,
            pred=(predictor(encoder(x + 0.5 * randn(64, 1, 8, seed=10_000 + step))),),
            target=(z,),
            context=(z,),
            places=(places,),
        )
        optimizer.zero_grad()
        objective(known)["loss"].backward()
        optimizer.step()
        if step == 0:
            start = float(z.detach().std(dim=0).mean())
    assert float(z.detach().std(dim=0).mean()) < 0.2 * start


# --- critics ----------------------------------------------------------------------------------


def test_a_critic_that_says_nothing():
    zero = torch.zeros(7)
    assert float(critic_loss(zero, [zero])) == pytest.approx(2 * math.log(2))
    assert float(critic_loss(zero, [zero, zero])) == pytest.approx(2 * math.log(2))
    assert float(F.softplus(-zero).mean()) == pytest.approx(math.log(2))


def test_a_set_has_no_order():
    torch.manual_seed(0)
    critic = SetCritic(D, 16, context_dim=D).eval()
    tokens, places, context = randn(B, M, D), randn(B, M, 3, seed=1), randn(B, K, D, seed=2)
    order, other = torch.randperm(M), torch.randperm(K)
    again = critic(tokens[:, order], places[:, order], context[:, other])
    assert torch.allclose(critic(tokens, places, context), again, atol=1e-6)
    assert not torch.allclose(critic(tokens, places[:, order], context), again, atol=1e-6)


def test_slopes_are_bounded_and_penalised():
    torch.manual_seed(0)
    critic = SetCritic(D, 16)
    for _ in range(50):  # power iterations
        critic(randn(2, M, D), randn(2, M, 3))
    critic.eval()
    tokens, places = randn(B, 1, D), torch.zeros(B, 1, 3)
    step = 1e-2 * randn(B, 1, D, seed=1)
    change = (critic(tokens + step, places) - critic(tokens, places)).abs()
    assert (change <= 2.6 * step.flatten(1).norm(dim=1)).all()  # gelu's slope is 1.13 at most
    penalty = slope_penalty(critic, tokens, places, None)
    x = tokens.clone().requires_grad_()
    (slope,) = torch.autograd.grad(critic(x, places).sum(), x)
    assert penalty.item() == pytest.approx(float(slope.square().sum(dim=(1, 2)).mean() / 2))


@pytest.mark.parametrize(("dim", "spread", "bayes"), [(1, 2.0, 0.7048), (8, 1.25, 0.7289)])
def test_a_trained_critic_comes_near_the_best_there_is(dim, spread, bayes):
    """Zero-mean Gaussians: the best score is the length, its AUC P(F_{D,D} > 1 / r²)."""
    torch.manual_seed(0)
    critic = SetCritic(dim, 32)
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3, betas=(0.0, 0.99))
    for step in range(600):
        real, fake = (
            spread * randn(512, 1, dim, seed=2 * step),
            randn(512, 1, dim, seed=2 * step + 1),
        )
        places = torch.zeros(512, 1, 3)
        optimizer.zero_grad()
        critic_loss(critic(real, places), [critic(fake, places)]).backward()
        optimizer.step()
    critic.eval()  # else its norms move on between the two calls
    with torch.no_grad():
        places = torch.zeros(8000, 1, 3)
        real = critic(spread * randn(8000, 1, dim, seed=-1), places)
        fake = critic(randn(8000, 1, dim, seed=-2), places)
    found = auc(real, fake)
    assert bayes - 0.03 < found < bayes + 0.01


def test_ecf_distance():
    x, y = randn(300, D), 2 * randn(400, D, seed=1) + 1
    same = ecf_distance(x, x[torch.randperm(300)], generator=torch_generator(0, "a"))
    assert float(same) == pytest.approx(0, abs=1e-9)
    apart = ecf_distance(x, y, generator=torch_generator(0, "a"))
    near = ecf_distance(x, 0.5 * (y - 1), generator=torch_generator(0, "a"))
    assert apart > 5 * near


def test_ecf_distance_of_points_by_hand():
    """Two points of the line: |e^{itx} - e^{ity}|² = 2 - 2 cos t(x - y)."""
    x, y, t = torch.tensor([[0.3]]), torch.tensor([[1.5]]), torch.linspace(0, 3, 17)
    weights = torch.full((17,), 6 / 16)
    weights[[0, -1]] = 3 / 16
    wanted = ((2 - 2 * torch.cos(1.2 * t)) * torch.exp(-t.square() / 2) * weights).sum()
    found = ecf_distance(x, y, generator=torch_generator(0, "a"))
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


# --- training ---------------------------------------------------------------------------------


def test_critics_have_their_own_rate():
    model = nn.ModuleList([nn.Linear(4, 4), build("both")])
    optimizer = make_optimizer(model, OptimConfig(lr=1.0))
    set_schedule(optimizer, OptimConfig(lr=1.0), 50, 100)
    (own,) = [g for g in optimizer.param_groups if not g.get("scheduled", True)]
    critics = model[1].terms["feedback"].critics
    assert {id(p) for p in own["params"]} == {id(p) for p in critics.parameters()}
    assert (own["lr"], own["betas"], own["weight_decay"]) == tuple(CRITIC_GROUP.values())
    counts = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert len(counts) == len(set(counts)) == len([*model.parameters()])


def test_a_frozen_critic_stays_and_still_feeds_back():
    objective, known, plain = build("both", frozen=True), leaves(), leaves()
    assert not [p for p in objective.parameters() if p.requires_grad]
    out = objective(known)
    out["loss"].backward()
    assert "feedback_critic" not in out
    Objective(ObjectiveConfig(regress=RegressConfig()), {"pred", "target"})(plain)[
        "loss"
    ].backward()
    assert not torch.equal(known.pred[0].grad, plain.pred[0].grad)


@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients_the_loss_is_the_prediction_alone(kind):
    objective, known = build(kind), latents()
    with torch.no_grad():
        out = objective(known)
    assert torch.equal(out["loss"], out["regress"])
    assert out["feedback_feedback"].isfinite()


def test_scores_are_the_critics_own():
    objective, known = build("both"), latents()
    objective.eval()
    term = objective.terms["feedback"]
    assert term.score(known).shape == (B,)
    with pytest.raises(ConfigError, match="no critic"):
        build("moments").terms["feedback"].score(known)


def test_the_same_step_is_the_same_draw():
    grads = []
    for step in (3, 3, 4):
        known = leaves(step=step)
        build("both")(known)["loss"].backward()
        grads.append(known.pred[0].grad)
    assert torch.equal(grads[0], grads[1])
    assert not torch.equal(grads[0], grads[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": -1}, "feedback.width = -1"),
        ({"ratio": -0.1}, "feedback.ratio"),
        ({"noise": (-1.0, 0.0)}, "feedback.noise"),
        ({"slope_every": 0}, "feedback.slope_every = 0"),
    ],
)
def test_impossible_settings(change, message):
    with pytest.raises(ConfigError, match=message):
        FeedbackConfig(**change)


def test_feedback_without_predictions_or_with_too_large_a_critic():
    with pytest.raises(ConfigError, match=r"needs objective\.regress"):
        ObjectiveConfig(feedback=FeedbackConfig())
    config = replace(preset("jedi"), feedback=FeedbackConfig(width=64))
    fields = {"pred", "target", "context", "places"}
    with pytest.raises(ConfigError, match=r"a tenth of the encoder's are 1000: choose"):
        Objective(config, fields, latent_dim=D, encoder_parameters=10_000)
    with pytest.raises(ConfigError, match="feedback needs context, places"):
        Objective(preset("jedi"), {"pred", "target"}, latent_dim=D, encoder_parameters=10**6)
    auto = Objective(preset("jedi"), fields, latent_dim=D, encoder_parameters=30_000)
    assert sum(p.numel() for p in auto.parameters()) <= 3000
    one = {n: tuple(x[:1] for x in getattr(latents(), n)) for n in sorted(fields)}
    with pytest.raises(ConfigError, match="batch of 1"):
        build("both")(replace(latents(), **one))
