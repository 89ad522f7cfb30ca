"""Each term against its definition, on tensors small enough to do by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from tubelet.core.errors import ConfigError
from tubelet.vjepa.objectives.latents import Latents, samples
from tubelet.vjepa.objectives.regress import (
    ContextConfig,
    ContextRegress,
    Multistep,
    MultistepConfig,
    Regress,
    RegressConfig,
    Views,
    ViewsConfig,
)
from tubelet.vjepa.objectives.temporal import (
    IdmConfig,
    InverseDynamics,
    TemporalSimilarity,
    TempsimConfig,
)
from tubelet.vjepa.objectives.term import Sizes, TermConfig

SIZES = Sizes()


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def one(pred, target, **config):
    term = Regress(RegressConfig(**config), SIZES)
    return term(Latents(pred=(pred,), target=(target,)))[0].item()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"kind": "l1"}, (0.5 + 3) / 2),
        ({"kind": "l2"}, (0.25 + 9) / 2),
        ({"kind": "smooth_l1"}, (0.125 + 2.5) / 2),
        ({"kind": "smooth_l1", "beta": 2.0}, (0.0625 + 2.0) / 2),
        ({"kind": "lp", "exponent": 1.0}, (0.5 + 3) / 2),
        ({"kind": "lp", "exponent": 2.0}, (0.25 + 9) / 4),
        ({"kind": "lp", "exponent": 3.0}, (0.125 + 27) / 6),
        ({"kind": "cosine"}, 1 - 1 / math.sqrt(10)),
    ],
)
def test_distances(config, expected):
    pred = torch.tensor([[[1.0, 3.0]]], dtype=torch.float64)
    if config["kind"] == "cosine":
        target = torch.tensor([[[2.0, 0.0]]], dtype=torch.float64)
    else:
        target = torch.tensor([[[0.5, 0.0]]], dtype=torch.float64)
    assert one(pred, target, **config) == pytest.approx(expected)


def test_regress_is_a_mean_over_groups_of_means():
    """Groups weigh the same, whatever their number of tokens; each is logged."""
    small, large = randn(2, 3, 4), randn(2, 50, 4, seed=1)
    known = Latents(pred=(small, large), target=(small + 1, large - 3))
    loss, logs = Regress(RegressConfig(kind="l1"), SIZES)(known)
    assert loss.item() == pytest.approx(2)
    assert {k: round(v.item(), 6) for k, v in logs.items()} == {"0": 1, "1": 3}


def test_shapes_are_compared_and_never_broadcast():
    term = Regress(RegressConfig(), SIZES)
    with pytest.raises(ConfigError, match=r"shapes \[\[2, 3, 4\]\], targets \[\[2, 1, 4\]\]"):
        term(Latents(pred=(randn(2, 3, 4),), target=(randn(2, 1, 4),)))
    with pytest.raises(ConfigError, match="must be equal"):
        term(Latents(pred=(), target=()))
    with pytest.raises(ConfigError, match="context distances"):
        ContextRegress(ContextConfig(), SIZES)(
            Latents(
                context_pred=(randn(2, 3, 4),),
                context_target=(randn(2, 3, 4),),
                context_distance=(torch.ones(2, 1),),
            )
        )


def test_visible_tokens_count_by_the_root_of_their_distance():
    pred, target = randn(2, 3, 4), randn(2, 3, 4, seed=1)
    near = torch.tensor([[1.0, 4.0, 9.0], [1.0, 1.0, 2.0]])
    weights = [[1, 1 / 2, 1 / 3], [1, 1, 1 / math.sqrt(2)]]
    expected = 0.0
    for b in range(2):
        for c in range(3):
            expected += weights[b][c] * (pred[b, c] - target[b, c]).abs().sum().item() / 24
    known = Latents(context_pred=(pred,), context_target=(target,), context_distance=(near,))
    assert ContextRegress(ContextConfig(), SIZES)(known)[0].item() == pytest.approx(expected)


def test_views_are_pulled_to_the_mean_of_the_global_ones():
    views = randn(5, 3, 4)
    centre = (views[0] + views[1]) / 2
    expected = sum((views[v] - centre).square().mean().item() for v in range(5)) / 5
    term = Views(ViewsConfig(), SIZES)
    assert term(Latents(views=views, global_views=2))[0].item() == pytest.approx(expected)
    assert term(Latents(views=views[:1].expand(4, -1, -1), global_views=1))[0] == 0
    for count in (0, 6):
        with pytest.raises(ConfigError, match=f"global_views = {count} of 5"):
            term(Latents(views=views, global_views=count))


def test_multistep_weights_depths():
    rollout, target = randn(2, 3, 4), randn(2, 3, 4, seed=1)
    known = Latents(rollout=rollout, rollout_target=target)
    steps = (rollout - target).square().mean(dim=(0, 2))
    plain, logs = Multistep(MultistepConfig(), SIZES)(known)
    assert plain.item() == pytest.approx(steps.mean().item())
    assert logs == {}
    weighted, logs = Multistep(MultistepConfig(weights=(1, 0, 3)), SIZES)(known)
    assert weighted.item() == pytest.approx((steps[0] + 3 * steps[2]).item() / 4)
    assert logs["last"].item() == pytest.approx(steps[2].item())
    with pytest.raises(ConfigError, match="2 weights for a rollout of 3 steps"):
        Multistep(MultistepConfig(weights=(1, 1)), SIZES)(known)


def test_temporal_similarity():
    z = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]])
    near = TemporalSimilarity(TempsimConfig(), SIZES)
    straight = TemporalSimilarity(TempsimConfig(kind="straighten"), SIZES)
    assert near(Latents(sequence=z))[0].item() == pytest.approx((1 + 4) / 4)
    assert straight(Latents(sequence=z))[0].item() == pytest.approx(1)  # a right angle
    line = torch.arange(5.0).view(1, 5, 1) * torch.tensor([1.0, -2.0])
    assert straight(Latents(sequence=line))[0].item() == pytest.approx(0, abs=1e-6)
    back = line[:, [0, 1, 0, 1]]
    assert straight(Latents(sequence=back))[0].item() == pytest.approx(2)
    with pytest.raises(ConfigError, match="straightening of a batch of 1"):
        straight(Latents(sequence=z[:, :2]))
    with pytest.raises(ConfigError, match="temporal similarity of a batch of 1"):
        near(Latents(sequence=z[:, :1]))


def test_inverse_dynamics_learns_actions_that_move_the_latent():
    torch.manual_seed(0)
    term = InverseDynamics(IdmConfig(width=32), Sizes(latent_dim=3, action_dim=2))
    actions = torch.rand(64, 4, 2) * 2 - 1
    steps = F.pad(actions.cumsum(1) @ torch.randn(2, 3), (0, 0, 1, 0))
    known = Latents(sequence=torch.randn(64, 1, 3) + steps, actions=actions)
    optimizer = torch.optim.Adam(term.parameters(), lr=0.01)
    before = term(known)[0].item()
    for _ in range(200):
        optimizer.zero_grad()
        loss = term(known)[0]
        loss.backward()
        optimizer.step()
    assert before > 0.3
    assert loss.item() < 0.03
    blind = Latents(sequence=torch.randn(64, 5, 3), actions=actions)
    assert term(blind)[0].item() > 0.2


def test_inverse_dynamics_of_tokens_reads_their_mean():
    term = InverseDynamics(IdmConfig(width=8), Sizes(latent_dim=3, action_dim=2))
    tokens, actions = torch.randn(4, 3, 5, 3), torch.randn(4, 2, 2)
    pooled = Latents(sequence=tokens.mean(2), actions=actions)
    assert torch.allclose(term(Latents(sequence=tokens, actions=actions))[0], term(pooled)[0])
    with pytest.raises(ConfigError, match=r"must be \[4, 2, A\]"):
        term(Latents(sequence=tokens, actions=torch.randn(4, 3, 2)))
    with pytest.raises(ConfigError, match="action_dim = None"):
        InverseDynamics(IdmConfig(), Sizes(latent_dim=3))


def test_samples_of_batch_statistics():
    views, z, tokens = randn(3, 4, 5), randn(4, 6, 5), randn(4, 6, 2, 5)
    assert torch.equal(samples(Latents(views=views), "views", flat=False), views)
    steps = samples(Latents(sequence=z), "sequence", flat=False)
    assert torch.equal(steps, z.transpose(0, 1))
    per_token = samples(Latents(sequence=tokens), "sequence", flat=False)
    assert per_token.shape == (12, 4, 5)
    assert torch.equal(per_token[3], tokens[:, 1, 1])
    assert torch.equal(samples(Latents(online=z), "online", flat=False), steps)
    means = samples(Latents(pred=(z, z[:, :2])), "means", flat=False)
    assert torch.allclose(means, torch.stack([z.mean(1), z[:, :2].mean(1)]))
    assert samples(Latents(views=views), "views", flat=True).shape == (1, 12, 5)


def test_weight_schedules():
    ramp = TermConfig(weight=0.5, warmup=(10, 20))
    assert [ramp.weight_at(s) for s in (0, 10, 15, 20, 99)] == [0, 0, 0.25, 0.5, 0.5]
    assert TermConfig(weight=0.5).weight_at(0) == 0.5
    switch = TermConfig(warmup=(5, 5))
    assert [switch.weight_at(s) for s in (0, 4, 5, 6)] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TermConfig(weight=float("nan")), "weight = nan"),
        (lambda: TermConfig(warmup=(3, 2)), r"warmup = \(3, 2\)"),
        (lambda: RegressConfig(beta=0), "beta = 0"),
        (lambda: RegressConfig(exponent=0.5), "exponent = 0.5"),
        (lambda: MultistepConfig(weights=(0.0, 0.0)), "weights = "),
        (lambda: MultistepConfig(weights=(1.0, -1.0)), "weights = "),
        (lambda: IdmConfig(width=0), "width = 0"),
    ],
)
def test_impossible_configs(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
