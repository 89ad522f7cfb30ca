"""Objectives as data: presets against the hand-written sum, refusals, TOML and flags."""

from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F

from tubelet.cli.main import parse
from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError
from tubelet.core.rng import torch_generator
from tubelet.vjepa.objectives import PRESETS, Latents, Objective, ObjectiveConfig, preset
from tubelet.vjepa.objectives.latents import FIELDS
from tubelet.vjepa.objectives.presets import cjepa, lejepa, vjepa2, vjepa2_1
from tubelet.vjepa.objectives.regress import RegressConfig
from tubelet.vjepa.objectives.sigreg import SigregConfig, sigreg


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


B, D = 12, 6
KNOWN = Latents(
    step=20_000,
    pred=(randn(B, 5, D, seed=1), randn(B, 9, D, seed=2)),
    target=(randn(B, 5, D, seed=3), randn(B, 9, D, seed=4)),
    context_pred=(randn(B, 7, D, seed=5),),
    context_target=(randn(B, 7, D, seed=6),),
    context_distance=(1 + randn(B, 7, seed=7).abs(),),
    views=randn(4, B, D, seed=8),
    global_views=2,
    online=randn(B, 3, D, seed=9),
    sequence=randn(B, 5, D, seed=10),
    actions=randn(B, 4, 2, seed=11),
    context=(randn(B, 7, D, seed=14), randn(B, 3, D, seed=15)),
    places=(randn(B, 5, 3, seed=16).sigmoid(), randn(B, 9, 3, seed=17).sigmoid()),
    rollout=randn(B, 4, D, seed=12),
    rollout_target=randn(B, 4, D, seed=13),
)


def directions():
    return {"slices": 1024, "generator": torch_generator(0, "sigreg", 20_000)}


def masked(kind):
    assert KNOWN.pred is not None
    assert KNOWN.target is not None
    return sum(kind(p, h) for p, h in zip(KNOWN.pred, KNOWN.target, strict=True)) / 2


def l1(p, h):
    return (p - h).abs().mean()


def std(x):
    return torch.relu(1 - (x.var(dim=-2) + 1e-4).sqrt()).mean()


def off_diagonal(x):
    """Sum of squared off-diagonal covariances, mean over groups."""
    total = 0.0
    for z in x:
        c = torch.cov(z.T)
        total += (c.square().sum() - c.diagonal().square().sum()) / len(x)
    return total


def by_hand_vjepa2_1():
    weight = 0.5 * (20_000 - 15_000) / 15_000
    error = (KNOWN.context_pred[0] - KNOWN.context_target[0]).abs()
    near = KNOWN.context_distance[0].sqrt().unsqueeze(-1)
    return masked(l1) + weight * (error / near).mean()


def by_hand_lejepa():
    views = KNOWN.views
    inv = (views - views[:2].mean(0)).square().mean()
    return 0.95 * inv + 0.05 * sigreg(views, **directions())


def by_hand_lewm():
    steps = KNOWN.sequence.transpose(0, 1)
    return masked(lambda p, h: (p - h).square().mean()) + 0.09 * sigreg(steps, **directions())


def by_hand_pldm(objective):
    steps = KNOWN.sequence.transpose(0, 1)
    pairs = torch.cat([KNOWN.sequence[:, :-1], KNOWN.sequence[:, 1:]], dim=-1)
    guess = objective.terms["idm"].head(pairs)
    return (
        (KNOWN.rollout - KNOWN.rollout_target).square().mean()
        + 16 * std(steps)
        + 8 * off_diagonal(steps) / (D * (D - 1))
        + 12 * (KNOWN.sequence[:, 1:] - KNOWN.sequence[:, :-1]).square().mean()
        + (guess - KNOWN.actions).square().mean()
    )


def by_hand_cjepa():
    means = torch.stack([p.mean(1) for p in KNOWN.pred])
    inv = (means[0] - means[1]).square().mean()
    vicreg = 25 * std(means) + 2 * off_diagonal(means) / D + 25 * inv
    return masked(F.smooth_l1_loss) + 0.001 * vicreg


def by_hand_sjepa(p, h):  # at the first step, when the centre is zero
    wanted = (h / 0.04).softmax(-1)
    return -(wanted * (p / 0.1).log_softmax(-1)).sum(-1).mean()


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("ijepa", lambda _: masked(F.smooth_l1_loss)),
        ("vjepa", lambda _: masked(l1)),
        ("vjepa2", lambda _: masked(l1)),
        ("vjepa2.1", lambda _: by_hand_vjepa2_1()),
        ("lejepa", lambda _: by_hand_lejepa()),
        ("levjepa", lambda _: by_hand_lejepa()),
        ("salt", lambda _: masked(l1)),
        ("lewm", lambda _: by_hand_lewm()),
        ("pldm", by_hand_pldm),
        ("cjepa", lambda _: by_hand_cjepa()),
        ("jedi", lambda _: masked(l1)),  # without gradients: what it adds follows from them
        ("pointjepa", lambda _: masked(lambda p, h: F.smooth_l1_loss(p, h, beta=2.0))),
        ("sjepa", lambda _: masked(by_hand_sjepa)),
    ],
)
def test_presets_equal_the_sum_written_by_hand(name, by_hand):
    objective = Objective(
        preset(name), FIELDS, latent_dim=D, action_dim=2, encoder_parameters=10**6
    ).double()
    got = objective(KNOWN)
    assert got["loss"].item() == pytest.approx(by_hand(objective).item(), rel=1e-10)
    assert set(preset(name).terms()) <= set(got)


def test_the_table_above_is_complete():
    assert set(PRESETS) == {
        *("ijepa", "vjepa", "vjepa2", "vjepa2.1", "lejepa", "levjepa"),
        *("salt", "lewm", "pldm", "cjepa", "jedi", "pointjepa", "sjepa"),
    }


@pytest.mark.parametrize(
    ("name", "kind", "momentum", "norm", "levels"),
    [
        ("ijepa", "ema", (0.996, 1.0), "layer", 1),
        ("vjepa", "ema", (0.998, 1.0), "layer", 1),
        ("vjepa2", "ema", (0.99925, 0.99925), "layer", 1),
        ("vjepa2.1", "ema", (0.99925, 0.99925), "layer", 4),
        ("cjepa", "ema", (0.996, 1.0), "layer", 1),
        ("jedi", "ema", (0.99925, 0.99925), "layer", 1),
        ("pointjepa", "ema", (0.9995, 0.99999), "layer", 1),
        ("sjepa", "ema", (0.9995, 1.0), "none", 1),
        ("salt", "frozen", None, "layer", 1),
        ("lejepa", "shared", None, "none", 1),
        ("levjepa", "shared", None, "none", 1),
        ("lewm", "shared", None, "none", 1),
        ("pldm", "shared", None, "none", 1),
    ],
)
def test_target_providers_of_the_presets(name, kind, momentum, norm, levels):
    target = preset(name).target
    assert (target.kind, target.norm, target.levels) == (kind, norm, levels)
    assert momentum is None or target.momentum == momentum
    assert not target.stop_gradient


def test_arguments_of_presets():
    assert vjepa2_1(images=True).terms()["context"].weight == 0.7
    assert lejepa(lam=0.02).terms()["views"].weight == pytest.approx(0.98)
    assert cjepa(weight=0.1).terms()["vicreg"].weight == 0.1
    assert lejepa() == lejepa()


def test_unknown_preset():
    with pytest.raises(ConfigError, match="did you mean 'vjepa2'"):
        preset("vjepa-2")


def test_a_term_that_lacks_a_field_refuses_when_built():
    with pytest.raises(ConfigError, match=r"sigreg needs sequence; here the latents hold pred, t"):
        Objective(preset("lewm"), {"pred", "target"})
    with pytest.raises(ConfigError, match=r"multistep needs rollout, rollout_target; vicreg needs"):
        Objective(preset("pldm"), {"actions"}, latent_dim=3, action_dim=2)
    with pytest.raises(ConfigError, match=r"provides \['preds'\]"):
        Objective(preset("vjepa"), {"preds"})


def test_a_broken_promise_is_named():
    objective = Objective(preset("vjepa"), {"pred", "target"})
    with pytest.raises(ConfigError, match="left it None"):
        objective(Latents(pred=KNOWN.pred))


def test_needs_are_those_of_the_terms():
    assert Objective(preset("vjepa2"), FIELDS).needs == {"pred", "target"}
    assert Objective(preset("lejepa"), FIELDS).needs == {"views"}


def test_only_heads_have_parameters():
    for name in PRESETS:
        objective = Objective(
            preset(name), FIELDS, latent_dim=D, action_dim=2, encoder_parameters=10**6
        )
        keys = set(objective.state_dict())
        heads = ("terms.idm.head.", "terms.feedback.critics.", "terms.centred.centre")
        assert all(key.startswith(heads) for key in keys)
        assert bool(keys) == (name in ("pldm", "jedi", "sjepa"))


def test_logs_do_not_carry_gradients():
    z = KNOWN.views.clone().requires_grad_()
    got = Objective(preset("lejepa"), FIELDS)(replace(KNOWN, views=z))
    assert got["loss"].requires_grad
    assert not got["sigreg_excess"].requires_grad


def test_an_objective_without_terms():
    with pytest.raises(ConfigError, match="set at least one of regress"):
        ObjectiveConfig()


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run."""

    steps: int = 3
    """Steps."""
    objective: ObjectiveConfig = field(default_factory=vjepa2)
    """Objective."""


@pytest.mark.parametrize("name", PRESETS)
def test_toml_there_and_back(name):
    run = Run(objective=preset(name))
    assert from_toml(Run, to_toml(run)) == run


def test_toml_by_hand():
    text = """
    [objective]
    regress = "none"
    [objective.target]
    kind = "shared"
    [objective.views]
    weight = 0.5
    [objective.sigreg]
    slices = 64
    """
    got = from_toml(Run, text).objective
    assert set(got.terms()) == {"views", "sigreg"}
    assert got.sigreg == SigregConfig(slices=64)
    with pytest.raises(ConfigError, match="slices = 0: must be at least 1"):
        from_toml(Run, "[objective.sigreg]\nslices = 0")
    with pytest.raises(ConfigError, match=r"unknown key 'objective.sigreg.slice'; did you mean"):
        from_toml(Run, "[objective.sigreg]\nslice = 3")


def test_as_part_of_a_command_line(capsys):
    got = parse(Run, ["--objective.regress.kind", "l2", "--steps", "5"], "train")
    assert got == Run(steps=5, objective=replace(vjepa2(), regress=RegressConfig(kind="l2")))
    with pytest.raises(SystemExit) as stop:
        parse(Run, ["--help"], "train")
    assert stop.value.code == 0
    assert "--objective.target.momentum" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"lewm", "pldm"}))
def test_losses_are_float32_of_bfloat16_latents_under_autocast(name):
    """Rounded to bfloat16, a loss of 0.8 moves in steps of 0.004."""

    def at(dtype):
        def cast(value):
            if isinstance(value, tuple):
                return tuple(map(cast, value))
            return value.bfloat16().to(dtype) if isinstance(value, torch.Tensor) else value

        return Latents(**{k: cast(getattr(KNOWN, k)) for k in FIELDS}, step=0, global_views=2)

    objective = Objective(
        preset(name), FIELDS, latent_dim=D, action_dim=2, encoder_parameters=10**6
    ).eval()  # what has a memory of targets leaves it
    with torch.autocast("cpu", torch.bfloat16):
        low = objective(at(torch.bfloat16))["loss"]
    assert low.dtype == torch.float32
    assert torch.equal(low, objective(at(torch.float32))["loss"])
