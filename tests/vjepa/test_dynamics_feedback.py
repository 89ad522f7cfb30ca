"""Feedback for world models: what is judged, what its gradient reaches, and its alarms."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.core.rng import torch_generator
from tubelet.core.run import RunDir, read_metrics
from tubelet.datasets.windows import WindowBatch
from tubelet.vjepa import presets
from tubelet.vjepa.action_predictor import ActionPredictorConfig
from tubelet.vjepa.alarms import SPAN, FeedbackAlarms, WatchedRun, watched
from tubelet.vjepa.dynamics import DynamicsConfig, build, dynamics_losses, train_dynamics
from tubelet.vjepa.dynamics_feedback import step_contexts, step_places, with_sets
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.objectives import Latents
from tubelet.vjepa.objectives.feedback import FeedbackConfig
from tubelet.vjepa.optim import OptimConfig
from tubelet.vjepa.world_model import WorldModelConfig

ENCODER = EncoderConfig(width=24, depth=1, heads=1, patch=8)
KINDS = ["moments", "structure", "coherence", "both", "energy"]
B, H = 8, 3


def config(kind="both", latent="vector", feedback=(), **changes):
    settings = {
        "model": WorldModelConfig(
            encoder=ENCODER,
            predictor=ActionPredictorConfig(width=16, depth=1, heads=2),
            latent=latent,
            latent_dim=4,
            head_width=32,
            image_size=16,
            action_block=1,
        ),
        "freeze_encoder": latent == "tokens",
        "feedback": None
        if kind is None
        else FeedbackConfig(**{"kind": kind, "normalise": False} | dict(feedback)),
        "horizon": H,
        "sigreg_slices": 16,
        "cache_stride": 1,
        "batch_size": B,
        "optim": OptimConfig(lr=1e-3, start_lr=1e-3, final_lr=0.0, warmup=0, clip=1.0),
        "loop": LoopConfig(steps=5, log_every=1, report_every=2, save_every=2),
    }
    return DynamicsConfig(**settings | changes)


def windows(first=0, *, latent="vector", proprio=0):
    for step in itertools.count(first):
        generator = torch_generator(0, "windows", step)
        if latent == "vector":
            shape = (B, H + 1, 2, 16, 16, 3)
            seen = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        else:
            seen = torch.randn(B, H + 1, 4, 24, generator=generator).half()
        yield WindowBatch(
            seen,
            torch.rand(B, H, 2, generator=generator),
            np.zeros(B, np.int64),
            np.zeros((B, H + 1), np.int64),
            torch.randn(B, H + 1, proprio, generator=generator) if proprio else None,
        )


def losses(cfg, step=3, **data):
    model = build(cfg).train()
    return model, dynamics_losses(model, cfg, next(windows(**data)), step)


def gradients(model, under):
    return {
        n: p.grad.clone()
        for n, p in model.named_parameters()
        if n.startswith(under) and p.grad is not None
    }


# --- what is judged ---------------------------------------------------------------------------


def test_sets_contexts_and_places_by_hand():
    generator = torch_generator(0, "sets")
    z = torch.randn(2, 4, 6, 5, generator=generator)  # three steps of 2 x 3 tokens
    actions = torch.randn(2, 3, 2, generator=generator)
    pred = z[:, 1:] + 1
    known = with_sets(Latents(pred=(pred,), target=(z[:, 1:],)), z, actions, (2, 3))
    assert torch.equal(known.pred[0], known.target[0] + 1)
    row = 1 * 6 + 4  # second step, second row, second column
    assert torch.equal(known.target[0][:, row], z[:, 2, 4])
    assert known.places[0][1, row].tolist() == [0.5, 1.0, 0.5]
    wanted = torch.cat([z[:, 1, 4], actions[:, 1], torch.full((2, 1), 0.5)], 1)
    assert torch.equal(known.context[0][:, row], wanted)
    assert step_contexts(z[:, :-1], actions).shape == (2, 18, 8)
    assert step_places(actions, (2, 3)).shape == (2, 18, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("latent", ["vector", "tokens"])
def test_every_kind_trains_on_both_latents(kind, latent):
    model, out = losses(config(kind, latent), latent=latent)
    out["loss"].backward()
    assert all(math.isfinite(float(value.detach())) for value in out.values())
    assert out["feedback_factor"] > 0
    critics = gradients(model, "objective.terms.feedback")
    assert bool(critics) == (kind != "moments")
    assert all(g.isfinite().all() for g in critics.values())


@pytest.mark.parametrize("latent", ["vector", "tokens"])
def test_the_other_terms_are_what_they_are_without(latent):
    _, plain = losses(config(None, latent), latent=latent)
    _, judged = losses(config("both", latent), latent=latent)
    for name in plain.keys() - {"loss"}:
        torch.testing.assert_close(judged[name], plain[name], atol=1e-6, rtol=1e-5)


def test_proprioception_is_judged_with_the_latent():
    cfg = config("both")
    cfg = replace(cfg, model=replace(cfg.model, proprio_dim=3))
    _, out = losses(cfg, proprio=3)
    assert math.isfinite(float(out["loss"].detach()))


# --- gradients --------------------------------------------------------------------------------


def test_with_the_ratio_at_zero_the_model_learns_as_without_feedback_and_the_critic_learns():
    """So SIGReg's shared encoder gets nothing through the targets or the contexts that critics
    see: these are constants."""
    plain, out = losses(config(None))
    out["loss"].backward()
    control, out = losses(config("both", feedback={"ratio": 0.0}))
    out["loss"].backward()
    for part in ("encoder", "head", "predictor"):
        mine, theirs = gradients(control, part), gradients(plain, part)
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            torch.testing.assert_close(value, theirs[name], atol=1e-7, rtol=1e-5)
    assert any(g.any() for g in gradients(control, "objective").values())


@pytest.mark.parametrize("kind", KINDS)
def test_feedback_reaches_encoder_and_predictor_through_the_predictions_alone(kind, monkeypatch):
    """What it adds to their gradients is what a pull on the predictions adds, no more."""
    ratio = 0.5
    cfg = config(kind, feedback={"ratio": ratio})
    model, out = losses(cfg)
    out["loss"].backward()
    full = gradients(model, ("encoder", "predictor"))
    plain, out = losses(config(None))
    out["loss"].backward()
    base = gradients(plain, ("encoder", "predictor"))
    assert any(not torch.allclose(full[n], base[n], atol=1e-7) for n in full if "encoder" in n)
    assert any(not torch.allclose(full[n], base[n], atol=1e-7) for n in full if "predictor" in n)
    # by hand: the gradient at the predictions, pulled back through them
    term = model.objective.terms["feedback"]
    kept = {}
    forward = term.forward

    def spy(latents, prediction_gradient=None):
        kept["pred"], kept["wanted"] = latents.pred, prediction_gradient
        leaves = [p.detach().requires_grad_() for p in latents.pred]
        value = term._feedback(list(term._judged(latents, leaves)), latents.step)
        kept["pull"] = torch.autograd.grad(value, leaves)
        return forward(latents, prediction_gradient)

    again = build(cfg).train()
    term = again.objective.terms["feedback"]
    forward = term.forward
    monkeypatch.setattr(term, "forward", spy)
    dynamics_losses(again, cfg, next(windows()), 3)
    norms = [
        torch.stack([g.square().sum() for g in gs]).sum().sqrt()
        for gs in (kept["wanted"], kept["pull"])
    ]
    factor = min(100.0, float(ratio * norms[0] / norms[1]))
    named = [(n, p) for n, p in again.named_parameters() if n in full]
    pulled = torch.autograd.grad(
        kept["pred"], [p for _, p in named], [factor * g for g in kept["pull"]], allow_unused=True
    )
    for (name, _), extra in zip(named, pulled, strict=True):
        added = full[name] - base[name]
        extra = torch.zeros_like(added) if extra is None else extra
        torch.testing.assert_close(added, extra, atol=2e-5, rtol=2e-2)


def test_critics_are_saved_with_the_world_model_and_trained_by_their_own_rate(tmp_path):
    cfg = config("both")
    with RunDir.create(tmp_path / "run", cfg) as run:
        model = train_dynamics(cfg, windows, run)
    from tubelet.vjepa.recipes import load_world_model

    loaded = load_world_model(tmp_path / "run")
    critics = dict(model.objective.terms["feedback"].critics.named_parameters())
    assert critics
    same = dict(loaded.objective.terms["feedback"].critics.named_parameters())
    assert all(torch.equal(value, same[name]) for name, value in critics.items())
    started = dict(build(cfg).objective.terms["feedback"].critics.named_parameters())
    assert any(not torch.equal(value, started[name]) for name, value in critics.items())


def test_a_run_with_feedback_resumes_to_the_bit(tmp_path):
    cfg = config("both")

    def dying(first=0):
        for number, batch in enumerate(windows(first)):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    with RunDir.create(tmp_path / "whole", cfg) as run:
        whole = train_dynamics(cfg, windows, run).state_dict()
    with pytest.raises(KeyboardInterrupt), RunDir.create(tmp_path / "cut", cfg) as run:
        train_dynamics(cfg, dying, run)
    with RunDir.create(tmp_path / "cut", cfg, resume=True) as run:
        cut = train_dynamics(cfg, windows, run).state_dict()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feedback": {"normalise": True}}, "feedback.normalise = true"),
        ({"teacher_weight": 0.0}, "teacher_weight = 0: feedback judges one-step"),
    ],
)
def test_feedback_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config("both", **changes)


def test_a_critic_wider_than_allowed_is_refused_when_built():
    with pytest.raises(ConfigError, match=r"feedback.width = 64: critics of \d+ parameters"):
        build(config("both", feedback={"width": 64}))


def test_the_preset_is_end_to_end_with_feedback():
    encoder = presets.debug().encoder
    jedi = presets.world_model("jedi", encoder)
    plain = presets.world_model("end_to_end", encoder)
    assert replace(jedi, feedback=None) == plain
    assert jedi.feedback.kind == "both"
    assert isinstance(build(jedi).encoder, TubeletEncoder)


# --- alarms -----------------------------------------------------------------------------------


def seen(alarms, accuracies, every=10, **more):
    found = []
    for number, value in enumerate(accuracies):
        line = {"train/feedback_accuracy": value} | more
        found += [(number * every, a.name, a.value) for a in alarms.see(number * every, line)]
    return found


def test_a_critic_that_is_sure_for_long():
    count = SPAN // 10
    assert not seen(FeedbackAlarms("both"), [0.96] * count)
    assert seen(FeedbackAlarms("both"), [0.96] * (count + 1)) == [(SPAN, "critic_sure", 0.96)]
    broken = [0.96] * count + [0.9] + [0.96] * count
    assert not seen(FeedbackAlarms("both"), broken)
    twice = seen(FeedbackAlarms("both"), [0.97] * (2 * count + 1))
    assert [step for step, *_ in twice] == [SPAN, 2 * SPAN]  # and not at every line between


def test_a_critic_that_is_useless():
    assert seen(FeedbackAlarms("structure"), [0.5] * 51) == [(SPAN, "critic_useless", 0.5)]
    assert not seen(FeedbackAlarms("energy"), [0.1] * 99)
    assert not seen(FeedbackAlarms("both"), [0.7] * 99)


def test_a_factor_at_its_limit_and_a_rank_that_falls():
    alarms = FeedbackAlarms("both")
    line = {"train/feedback_at_limit": 1.0, "train/feedback_factor": 100.0}
    (alarm,) = alarms.see(0, line)
    assert (alarm.name, alarm.value) == ("factor_at_limit", 100.0)
    assert "limit (100)" in alarm.text
    assert not alarms.see(10, line)  # said already
    assert not alarms.see(20, {"train/feedback_at_limit": 0.0})
    assert alarms.see(30, line)
    for step, rank in enumerate([20.0, 30.0, 24.1]):
        assert not alarms.see(40 + step, {"target_rank": rank})
    (alarm,) = alarms.see(50, {"target_rank": 23.9, "train/feedback_accuracy": None})
    assert alarm.name == "rank_lost"
    assert "23.9" in alarm.text
    assert "30.0" in alarm.text


def test_alarms_are_printed_logged_and_the_same_when_resumed(tmp_path, capsys):
    def log(run, steps):
        for step in steps:
            run.log(step, **{"train/feedback_accuracy": 0.99})

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with RunDir.create(whole, FeedbackConfig()) as run:
        log(watched(run, FeedbackConfig()), range(0, 700, 100))
    said = capsys.readouterr().err
    assert said.startswith("warning: step 500: the critic's accuracy is 0.990, above 0.95")
    with RunDir.create(cut, FeedbackConfig()) as run:
        log(watched(run, FeedbackConfig()), range(0, 400, 100))
    with RunDir.create(cut, FeedbackConfig(), resume=True) as run:
        again = watched(run, FeedbackConfig())
        again.truncate_after(200)
        log(again, range(300, 700, 100))
    assert read_metrics(cut) == read_metrics(whole)
    assert read_metrics(whole)[6] == {"step": 500, "alarm/critic_sure": 0.99}
    with RunDir.create(tmp_path / "none", FeedbackConfig()) as run:
        assert watched(run, None) is run
        assert isinstance(watched(run, FeedbackConfig()), WatchedRun)
