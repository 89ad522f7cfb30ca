"""Training the world model: loss terms by hand, what may change, and honest reports."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.core.rng import torch_generator
from tubelet.core.run import RunDir, read_metrics
from tubelet.datasets.windows import WindowBatch
from tubelet.vjepa.action_predictor import ActionPredictorConfig
from tubelet.vjepa.checkpoint import latest_checkpoint, load_checkpoint
from tubelet.vjepa.dynamics import (
    DynamicsConfig,
    _of_others,
    build,
    dynamics_losses,
    latents,
    prediction_report,
    take,
    train_dynamics,
    trainable,
)
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.objectives.sigreg import sigreg
from tubelet.vjepa.optim import OptimConfig
from tubelet.vjepa.world_model import WorldModelConfig

ENCODER = EncoderConfig(width=12, depth=1, heads=1, patch=8)


def config(latent="vector", *, width=16, **changes):
    settings = {
        "model": WorldModelConfig(
            encoder=ENCODER,
            predictor=ActionPredictorConfig(width=width, depth=1, heads=2),
            latent=latent,
            latent_dim=4,
            head_width=8,
            image_size=16,
            action_block=1,
        ),
        "freeze_encoder": latent == "tokens",
        "horizon": 3,
        "sigreg_slices": 16,
        "cache_stride": 1,
        "batch_size": 16,
        "optim": OptimConfig(lr=3e-3, start_lr=3e-3, final_lr=0.0, warmup=0, clip=1.0),
        "loop": LoopConfig(steps=7, log_every=1, report_every=3, save_every=3),
    }
    return DynamicsConfig(**{**settings, **changes})


def observations(latent, batch, steps, generator):
    if latent == "vector":
        shape = (batch, steps, 2, 16, 16, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return torch.randn(batch, steps, 4, 12, generator=generator).half()


def windows(latent, first=0):
    for step in itertools.count(first):
        generator = torch_generator(0, "windows", step)
        yield WindowBatch(
            observations(latent, 16, 4, generator),
            torch.rand(16, 3, 2, generator=generator) * 2 - 1,
            np.zeros(16, np.int64),
            np.zeros((16, 4), np.int64),
        )


def perturbed(cfg, **changes):
    model = build(cfg, **changes)
    with torch.no_grad():
        generator = torch_generator(0, "perturb")
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def pretrained():
    torch.manual_seed(3)
    return TubeletEncoder(ENCODER)


@pytest.mark.parametrize("latent", ["vector", "tokens"])
def test_loss_terms_by_hand(latent):
    cfg = config(latent, teacher_weight=0.5, rollout_weight=2.0, sigreg_weight=0.25)
    model = perturbed(cfg)
    batch = next(windows(latent))
    got = dynamics_losses(model, cfg, batch, 7)
    flat = batch.observations.flatten(0, 1)
    tokens = flat.float() if latent == "tokens" else model.encoder(flat)
    z = model.project(tokens).unflatten(0, (16, 4))
    teacher, rollout, imagined = [], [], z[:, :1]
    for t in range(3):
        true = model.predictor(z[:, : t + 1], batch.actions[:, : t + 1])[:, -1]
        own = model.predictor(imagined, batch.actions[:, : t + 1])[:, -1:]
        imagined = torch.cat([imagined, own], dim=1)
        teacher.append((true - z[:, t + 1]).square().mean())
        rollout.append((own[:, 0] - z[:, t + 1]).square().mean())
    assert torch.allclose(got["teacher"], sum(teacher) / 3, atol=1e-5)
    assert torch.allclose(got["rollout"], sum(rollout) / 3, atol=1e-5)
    total = 0.5 * got["teacher"] + 2.0 * got["rollout"]
    if latent == "vector":
        per_step = [
            sigreg(z[:, t, 0], slices=16, generator=torch_generator(0, "sigreg", 7))
            for t in range(4)
        ]
        assert torch.allclose(got["sigreg"], sum(per_step) / 4, rtol=1e-4)
        total = total + 0.25 * got["sigreg"]
    else:
        assert "sigreg" not in got
    assert torch.allclose(got["loss"], total, atol=1e-5)


def test_default_losses_are_the_plain_sum_to_the_last_bit():
    cfg = config(sigreg_slices=128)
    model = perturbed(cfg)
    batch = next(windows("vector"))
    got = dynamics_losses(model, cfg, batch, 3)
    z = latents(model, batch, frozen=False)
    teacher = (model.predictor(z[:, :-1], batch.actions) - z[:, 1:]).square().mean()
    rollout = (model.predictor.rollout(z[:, :1], batch.actions) - z[:, 1:]).square().mean()
    spread = sigreg(
        z[:, :, 0].transpose(0, 1), slices=128, generator=torch_generator(0, "sigreg", 3)
    )
    assert torch.equal(got["loss"], 1.0 * teacher + 1.0 * rollout + 0.1 * spread)
    assert set(got) == {"teacher", "rollout", "sigreg", "sigreg_excess", "loss"}


PLDM = {
    "sigreg_weight": 0.0,
    "teacher_weight": 0.0,
    "std_weight": 16.0,
    "cov_weight": 8.0,
    "tempsim_weight": 12.0,
    "idm_weight": 2.0,
}


def test_the_pldm_losses_by_hand():
    cfg = config(**PLDM)
    model = perturbed(cfg)
    batch = next(windows("vector"))
    got = dynamics_losses(model, cfg, batch, 0)
    z = latents(model, batch, frozen=False)[:, :, 0]
    rollout = (model.predictor.rollout(z[:, :1, None], batch.actions)[:, :, 0] - z[:, 1:]).square()
    head = model.get_submodule("objective.terms.idm.head")
    guess = head(torch.cat([z[:, :-1], z[:, 1:]], dim=-1))
    std, cov = [], []
    for t in range(4):
        c = torch.cov(z[:, t].T)
        std.append(torch.relu(1 - (c.diagonal() + 1e-4).sqrt()).mean())
        cov.append((c.square().sum() - c.diagonal().square().sum()) / (4 * 3))
    total = (
        rollout.mean()
        + 16 * sum(std) / 4
        + 8 * sum(cov) / 4
        + 12 * z.diff(dim=1).square().mean()
        + 2 * (guess - batch.actions).square().mean()
    )
    assert torch.allclose(got["loss"], total, rtol=1e-4)
    assert "sigreg" not in got
    assert "teacher" not in got


def test_the_head_of_inverse_dynamics_is_trained_and_saved(tmp_path):
    cfg = config(**PLDM)
    model = run(tmp_path / "run", cfg)
    before = build(cfg).state_dict()
    heads = [name for name in before if name.startswith("objective.terms.idm.head")]
    assert len(heads) == 4
    assert not any(torch.equal(model.state_dict()[name], before[name]) for name in heads)
    stored = load_checkpoint(latest_checkpoint(tmp_path / "run"), model=(again := build(cfg)))
    assert stored == 7
    assert all(torch.equal(again.state_dict()[n], model.state_dict()[n]) for n in before)


def test_the_default_model_has_no_further_parameters():
    """Checkpoints from before the objectives library still fit."""
    assert not [name for name in build(config()).state_dict() if name.startswith("objective")]
    plain, pldm = build(config()).state_dict(), build(config(**PLDM)).state_dict()
    assert all(torch.equal(value, pldm[name]) for name, value in plain.items())


def test_a_term_of_no_weight_is_not_computed():
    cfg = config(rollout_weight=0.0)
    assert "rollout" not in dynamics_losses(build(cfg), cfg, next(windows("vector")), 0)


def test_gradients_reach_the_encoder_through_the_targets_too():
    cfg = config()
    model = perturbed(cfg).train()
    batch = next(windows("vector"))
    dynamics_losses(model, cfg, batch, 0)["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())


def test_predicting_by_copying_at_first():
    """A residual predictor starts as copy: over_copy is one, and actions do nothing."""
    cfg = config("tokens")
    report = prediction_report(build(cfg), take(windows("tokens"), 2), frozen=True)
    for name in ("over_copy", "over_copy_1", "over_copy_H", "shuffled"):
        assert report[name] == pytest.approx(1, abs=1e-6)


class Integrator(torch.nn.Module):
    """A world whose latent moves by ``gain`` times the action; the truth has gain 1."""

    def __init__(self, gain):
        super().__init__()
        self.register_buffer("token_mean", torch.zeros(1))
        self.gain, self.predictor = gain, SimpleNamespace(rollout=self.imagine)

    latent_dim = 2

    def project(self, tokens):
        return tokens

    def join(self, z, proprio):
        return z

    def imagine(self, context, actions):
        return context + self.gain * actions.cumsum(1).unsqueeze(2)


def integrated(noise=0.0):
    generator = torch_generator(0, "integrator")
    for _ in range(4):
        actions = torch.randn(64, 5, 2, generator=generator)
        start = torch.randn(64, 1, 1, 2, generator=generator)
        z = torch.cat([start, start + actions.cumsum(1).unsqueeze(2)], dim=1)
        z = z + noise * torch.randn(z.shape, generator=generator)
        yield WindowBatch(z, actions, np.zeros(64, np.int64), np.zeros((64, 6), np.int64))


@pytest.mark.parametrize(("gain", "expected"), [(0.5, 0.25), (0.0, 1.0), (2.0, 1.0), (-1.0, 4.0)])
def test_report_where_the_answer_is_known(gain, expected):
    report = prediction_report(Integrator(gain), integrated(), frozen=True)
    for name in ("over_copy", "over_copy_1", "over_copy_H"):
        assert report[name] == pytest.approx(expected, rel=1e-4)
    # error (1 - g)² with the true actions, 1 + g² with those of strangers
    wanted = 1.0 if gain == 0 else (1 + gain**2) / (1 - gain) ** 2
    assert report["shuffled"] == pytest.approx(wanted, rel=0.15)
    assert report["latent_rank"] == pytest.approx(2, abs=0.1)


def test_a_perfect_model_is_limited_by_noise_alone():
    report = prediction_report(Integrator(1.0), integrated(noise=0.1), frozen=True)
    assert report["over_copy_1"] == pytest.approx(0.02 / 1.02, rel=0.15)
    assert report["over_copy_H"] < report["over_copy_1"]
    assert report["shuffled"] > 20


def test_reports_are_finite_where_nothing_moves():
    still = WindowBatch(
        torch.zeros(8, 4, 1, 2), torch.ones(8, 3, 2), np.zeros(8, np.int64), np.zeros((8, 4))
    )
    copied = prediction_report(Integrator(0.0), [still], frozen=True)
    ratios = [copied[name] for name in ("over_copy", "over_copy_1", "over_copy_H", "shuffled")]
    assert ratios == [1, 1, 1, 1]
    moved = prediction_report(Integrator(1.0), [still], frozen=True)
    assert np.isfinite(list(moved.values())).all()
    assert moved["over_copy"] > 1e6


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_shuffled_actions_are_never_a_windows_own(batch):
    actions = torch.arange(batch, dtype=torch.float32).view(batch, 1, 1).expand(batch, 1, 2)
    for seed in range(5):
        rolled = _of_others(actions, torch_generator(seed, "shuffle"))
        assert (rolled != actions).all()
        assert torch.equal(rolled.sort(0).values, actions)


def test_a_batch_of_one_window_has_no_other_actions():
    one = WindowBatch(
        torch.randn(1, 4, 1, 2), torch.ones(1, 3, 2), np.zeros(1, np.int64), np.zeros((1, 4))
    )
    assert prediction_report(Integrator(0.5), [one], frozen=True)["shuffled"] == 1


def run(folder, cfg, resume=False, **changes):
    with RunDir.create(folder, cfg, resume=resume) as opened:
        latent = cfg.model.latent
        settings = {"batches": lambda first: windows(latent, first), **changes}
        return train_dynamics(cfg, settings.pop("batches"), opened, **settings)


def metrics(folder):
    return [
        {k: v for k, v in line.items() if not k.startswith("pace/")}
        for line in read_metrics(folder)
    ]


def test_a_frozen_encoder_keeps_its_weights(tmp_path):
    given = pretrained()
    sample = torch.randn(50, 4, 12)
    model = run(tmp_path / "run", config("tokens"), encoder=given, standardise_on=sample)
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, given.state_dict()[name])
    assert torch.allclose(model.token_mean, sample.mean(0))
    assert trainable(model) == trainable(model.predictor)


def test_a_trained_encoder_starts_from_the_given_one_and_leaves_it(tmp_path):
    given = pretrained()
    before = {name: value.clone() for name, value in given.state_dict().items()}
    model = run(tmp_path / "run", config(), encoder=given)
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())
    assert not torch.equal(model.encoder.patch_embed.weight, given.patch_embed.weight)
    assert not model.training


class Cut(BaseException):
    """A power cut."""


@pytest.mark.parametrize("latent", ["vector", "tokens"])
def test_a_run_that_was_cut_and_resumed_equals_one_left_alone(tmp_path, latent):
    def cut(first):
        for step, batch in zip(range(first, 5), windows(latent, first), strict=False):
            yield batch
            assert step < 5
        raise Cut

    cfg = config(latent)
    extra = {"encoder": pretrained()} if latent == "tokens" else {}
    extra["held_out"] = lambda: take(windows(latent, 100), 1)
    whole = run(tmp_path / "whole", cfg, **extra)
    with pytest.raises(Cut):
        run(tmp_path / "cut", cfg, batches=cut, **extra)
    resumed = run(tmp_path / "cut", cfg, resume=True, **extra)
    a, b = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")
    assert any("val/over_copy" in line for line in metrics(tmp_path / "cut"))


def test_learning_linear_dynamics_of_tokens_beats_copying(tmp_path):
    """Tokens that move with the action: imagination beats copying and heeds the action."""

    def batches(first):
        for step in itertools.count(first):
            generator = torch_generator(0, "moving", step)
            actions = torch.rand(16, 3, 2, generator=generator) * 2 - 1
            start = torch.randn(16, 1, 4, 12, generator=generator)
            push = actions.cumsum(1).unsqueeze(2).repeat(1, 1, 4, 6)
            z = torch.cat([start, start + push], dim=1)
            yield WindowBatch(z, actions, np.zeros(16, np.int64), np.zeros((16, 4), np.int64))

    cfg = config(
        "tokens",
        width=64,
        optim=OptimConfig(lr=1e-2, start_lr=1e-3, final_lr=0.0, warmup=0.1, clip=1.0),
        loop=LoopConfig(steps=150, log_every=500, report_every=500),
    )
    model = run(tmp_path / "run", cfg, batches=batches, encoder=pretrained())
    report = prediction_report(model, take(batches(1000), 4), frozen=True)
    assert report["over_copy"] < 0.3
    assert report["shuffled"] > 2


def test_tokens_with_a_trained_encoder_would_collapse():
    with pytest.raises(ConfigError, match="would collapse"):
        config("tokens", freeze_encoder=False)


def test_a_vector_without_sigreg_would_collapse():
    with pytest.raises(ConfigError, match="collapses without it"):
        config(sigreg_weight=0.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"horizon": 0}, "horizon = 0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"cache_stride": 2}, "does not divide the action block"),
        ({"teacher_weight": 0.0, "rollout_weight": 0.0}, "nothing would train the predictor"),
        ({"teacher_weight": -1.0}, "teacher_weight = -1.0"),
        ({"rollout_weight": float("nan")}, "rollout_weight = nan"),
        ({"sigreg_weight": -0.1}, "sigreg_weight = -0.1"),
        ({"idm_weight": -1.0}, "idm_weight = -1.0"),
        ({"sigreg_weight": 0.0, "idm_weight": 1.0}, "collapses without it"),
        ({"latent": "tokens", "tempsim_weight": 1.0}, "tempsim_weight: tokens of a frozen enc"),
    ],
)
def test_impossible_configs(bad, message):
    with pytest.raises(ConfigError, match=message):
        config(**bad)


def test_an_encoder_of_another_architecture():
    other = TubeletEncoder(EncoderConfig(width=24, depth=1, heads=1, patch=8))
    with pytest.raises(ConfigError, match="the config asks for"):
        build(config(), other)


def test_freezing_needs_an_encoder(tmp_path):
    with pytest.raises(ConfigError, match="needs an encoder"):
        run(tmp_path / "run", config("tokens"))
