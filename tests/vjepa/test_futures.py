"""Latent variables: the deterministic limit, which code wins, what is drawn, and what is learnt."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError
from tubelet.core.latent import Latent
from tubelet.core.rng import torch_generator
from tubelet.core.run import RunDir
from tubelet.datasets.windows import WindowBatch
from tubelet.vjepa import presets
from tubelet.vjepa.action_predictor import ActionPredictor, ActionPredictorConfig
from tubelet.vjepa.checkpoint import latest_checkpoint, load_checkpoint
from tubelet.vjepa.dynamics import build, dynamics_losses, prediction_report, take, train_dynamics
from tubelet.vjepa.dynamics_config import DynamicsConfig, objective
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.futures import LOG_STD, FuturePredictor
from tubelet.vjepa.futures_config import FuturesConfig
from tubelet.vjepa.objectives.futures import Likelihood, LikelihoodConfig, Router, RouterConfig
from tubelet.vjepa.objectives.latents import Latents
from tubelet.vjepa.objectives.term import Sizes
from tubelet.vjepa.optim import OptimConfig
from tubelet.vjepa.world_model import WorldModelConfig

ENCODER = EncoderConfig(width=12, depth=1, heads=1, patch=8, tubelet=1)
SMALL = ActionPredictorConfig(width=16, depth=2, heads=2)
CODES, GAUSSIAN = FuturesConfig(count=3, width=8), FuturesConfig(kind="gaussian", width=8)


def config(futures=CODES, *, steps=4, lr=3e-3, width=16, **changes):
    settings = {
        "model": WorldModelConfig(
            encoder=ENCODER,
            predictor=ActionPredictorConfig(width=width, depth=1, heads=2),
            futures=futures,
            latent="tokens",
            image_size=8,
            action_block=1,
        ),
        "freeze_encoder": True,
        "horizon": 3,
        "cache_stride": 1,
        "batch_size": 16,
        "optim": OptimConfig(lr=lr, start_lr=lr, final_lr=0.0, warmup=0, clip=1.0),
        "loop": LoopConfig(steps=steps, log_every=50, report_every=50, save_every=2),
    }
    return DynamicsConfig(**{**settings, **changes})


def shaken(module, scale=0.2):
    generator = torch_generator(0, "shake")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def predictor(futures=CODES, grid=(1, 2)):
    torch.manual_seed(1)
    return shaken(FuturePredictor(SMALL, futures, latent_dim=4, action_dim=2, grid=grid))


def problem(batch=5, steps=3, tokens=2, seed=0):
    generator = torch_generator(seed, "problem")
    z = torch.randn(batch, steps + 1, tokens, 4, generator=generator)
    return z, torch.randn(batch, steps, 2, generator=generator)


def windows(first=0, batch=16):
    for step in itertools.count(first):
        generator = torch_generator(0, "windows", step)
        z = torch.randn(batch, 4, 1, 12, generator=generator)
        actions = torch.rand(batch, 3, 2, generator=generator) * 2 - 1
        yield WindowBatch(z, actions, np.zeros(batch, np.int64), np.zeros((batch, 4), np.int64))


# --- one code is the deterministic predictor -----------------------------------------------------


def test_one_code_is_the_deterministic_model_to_the_last_bit():
    plain = config(FuturesConfig())
    model = build(plain)
    assert type(model.predictor) is ActionPredictor
    assert not [name for name in model.state_dict() if "reader" in name or "body" in name]
    batch = next(windows())
    z = batch.observations
    got = dynamics_losses(shaken(model), plain, batch, 3)
    teacher = (model.predictor(z[:, :-1], batch.actions) - z[:, 1:]).square().mean()
    rollout = (model.predictor.rollout(z[:, :1], batch.actions) - z[:, 1:]).square().mean()
    assert torch.equal(got["loss"], teacher + rollout)
    assert set(got) == {"teacher", "rollout", "loss"}
    candidates = torch.randn(16, 5, 3, 2)
    one = model.rollout(Latent(z[:, :1]), candidates)
    for how in ("sample", "likely", "hold"):
        several, weights = model.rollout_futures(Latent(z[:, :1]), candidates, how=how)
        assert torch.equal(several.tokens[:, :, 0], one.tokens)
        assert torch.equal(weights, torch.ones(16, 5, 1))


# --- which code wins -----------------------------------------------------------------------------


def test_the_winners_are_the_best_of_all_sequences_when_steps_are_independent():
    """Chosen step after step, each given the winners before: checked code by code."""
    net, (z, actions) = predictor(), problem()
    chosen = net.nearest(z[:, :-1], actions, z[:, 1:])
    for t, (b, code) in itertools.product(range(3), itertools.product(range(5), range(3))):
        tried = chosen[b : b + 1, : t + 1].clone()
        tried[0, t] = code
        guess = net(z[b : b + 1, : t + 1], actions[b : b + 1, : t + 1], tried)[0, -1]
        best = net(z[b : b + 1, : t + 1], actions[b : b + 1, : t + 1], chosen[b : b + 1, : t + 1])
        truth = z[b, t + 1]
        assert (best[0, -1] - truth).square().mean() <= (guess - truth).square().mean() + 1e-6


def test_the_nearest_code_depends_on_the_loss():
    """Errors (3, 0) and (2, 2): 4.5 against 4 squared, 1.5 against 2 absolute."""
    net = predictor(FuturesConfig(count=2, width=8), grid=(1, 1))
    guesses = torch.tensor([[3.0, 0, 0, 0], [2, 2, 0, 0]])
    net.body.extend = lambda x, a, cache: (guesses[a[:, 0, -2:].argmax(-1)][:, None, None], [])
    z, actions = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 2)
    assert net.nearest(z, actions, z, "l2").item() == 1
    assert net.nearest(z, actions, z, "l1").item() == 0


def test_only_the_winner_is_trained():
    """The gradient of the codes' own weights: only those that won have one."""
    still = FuturesConfig(count=3, width=8, relax=0.0)
    net, (z, actions) = predictor(still), problem(batch=1, steps=1)
    generator = torch_generator(0, "futures")
    made = net.learning(z, actions, {"pred"}, loss="l2", generator=generator)
    (made["pred"][0] - z[:, 1:]).square().mean().backward()
    first = net.body.act[0].weight.grad[:, 2:]
    moved = (first.abs().sum(dim=0) > 0).nonzero().flatten().tolist()
    assert moved == [made["winner"].item()]


def test_relaxation_trains_random_codes_but_the_router_learns_the_winners():
    loose = FuturesConfig(count=3, width=8, relax=0.9)
    net, (z, actions) = predictor(loose), problem(batch=400, steps=1)
    made = net.learning(z, actions, {"pred"}, loss="l2", generator=torch_generator(0, "futures"))
    assert torch.equal(made["winner"], net.nearest(z[:, :-1], actions, z[:, 1:]))
    by_winner = net(z[:, :-1], actions, made["winner"])
    kept = (by_winner - made["pred"][0]).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert kept.float().mean() == pytest.approx(1 - 0.9 * 2 / 3, abs=0.08)


def test_the_router_does_not_bend_the_latents():
    for futures in (CODES, GAUSSIAN):
        net, (z, actions) = predictor(futures), problem()
        z.requires_grad_()
        made = net.learning(z, actions, set(), loss="l2", generator=torch_generator(0, "f"))
        out = made["router"] if futures is CODES else made["log_std"][0]
        out.sum().backward()
        assert z.grad is None
        assert net.reader.out.weight.grad.abs().sum() > 0


# --- rollouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("futures", [CODES, GAUSSIAN])
def test_the_favourite_future_step_by_step(futures):
    net, (z, actions) = predictor(futures), problem()
    latents, codes = z[:, :1], []
    for t in range(3):
        if futures is CODES:
            logits = net.reader(latents[:, -1:], actions[:, t : t + 1])
            codes.append(logits.argmax(dim=-1))
            step = net(latents, actions[:, : t + 1], torch.cat(codes, dim=1))
        else:
            step = net.body(latents, actions[:, : t + 1])
        latents = torch.cat([latents, step[:, -1:]], dim=1)
    assert torch.allclose(net.rollout(z[:, :1], actions), latents[:, 1:], atol=1e-5)
    none = actions[:, :0]
    several = net.rollout_candidates(z[:, :1], none, actions[:, None])
    assert torch.allclose(several[:, 0], latents[:, 1:], atol=1e-5)


def test_held_codes_and_how_probable_they_are():
    net, (z, actions) = predictor(), problem()
    futures, weights = net.imagine(z[:, :1], actions[:, None], how="hold")
    assert futures.shape == (5, 1, 3, 3, 2, 4)
    evidence = []
    for code in range(3):
        codes = torch.full((5, 3), code)
        path = net.rollout(z[:, :1], actions, codes)
        assert torch.allclose(futures[:, 0, code], path, atol=1e-5)
        before = torch.cat([z[:, :1], path[:, :-1]], dim=1)
        evidence.append(net.probabilities(before, actions)[..., code].log().sum(dim=1))
    assert torch.allclose(weights[:, 0], torch.stack(evidence, 1).softmax(dim=1), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 99))
def test_drawn_codes_are_as_frequent_as_they_are_probable(count, seed):
    """Stratified: of F draws at the first step, each code has p F to within one on either side."""
    net, (z, actions) = predictor(), problem(batch=2)
    with torch.no_grad():
        net.reader.out.weight.mul_(5)
        futures, weights = net.imagine(
            z[:, :1], actions[:, None], how="sample", count=count, seed=seed
        )
        assert torch.allclose(weights, torch.full((2, 1, count), 1 / count))
        chance = net.probabilities(z[:, :1], actions[:, :1])[:, 0]
        for b, code in itertools.product(range(2), range(3)):
            first = net(z[b : b + 1, :1], actions[b : b + 1, :1], torch.tensor([[code]]))[0, 0]
            drawn = ((futures[b, 0, :, 0] - first).abs().amax(dim=(1, 2)) < 1e-5).sum()
            assert abs(drawn.item() - count * chance[b, code].item()) <= 2


def test_draws_do_not_depend_on_the_batch_and_candidates_share_them():
    for futures in (CODES, GAUSSIAN):
        net, (z, actions) = predictor(futures), problem()
        twice = actions[:, None].expand(-1, 2, -1, -1)
        every, _ = net.imagine(z[:, :1], twice, how="sample", count=6, seed=3)
        assert torch.allclose(every[:, 0], every[:, 1], atol=1e-6)
        alone, _ = net.imagine(z[2:3, :1], actions[2:3, None], how="sample", count=6, seed=3)
        assert torch.allclose(every[2:3, :1], alone, atol=1e-5)
        other, _ = net.imagine(z[:, :1], twice, how="sample", count=6, seed=4)
        assert not torch.allclose(every, other)


def test_gaussian_draws_have_the_learnt_spread():
    net, (z, actions) = predictor(GAUSSIAN), problem(batch=1)
    with torch.no_grad():
        futures, _ = net.imagine(z[:, :1], actions[:, None, :1], how="sample", count=20000)
        mean, spread = net(z[:, :1], actions[:, :1]), net.log_std(z[:, :1], actions[:, :1])
    drawn = futures[0, 0, :, 0]
    assert torch.allclose(drawn.mean(dim=0), mean[0, 0], atol=0.05)
    assert torch.allclose(drawn.std(dim=0).log(), spread[0, 0], atol=0.03)
    assert LOG_STD[0] < spread.min() <= spread.max() < LOG_STD[1]


# --- terms ---------------------------------------------------------------------------------------


def test_the_router_term_by_hand():
    """Two steps at p = (.8, .2): winners 0 and 1. Mean use (.8, .2) against one half each."""
    logits = torch.tensor([[[0.8, 0.2], [0.8, 0.2]]]).log()
    known = Latents(router=logits, winner=torch.tensor([[0, 1]]))
    value, logs = Router(RouterConfig(balance=0.5), Sizes())(known)
    nll = -(math.log(0.8) + math.log(0.2)) / 2
    uneven = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    assert value.item() == pytest.approx(nll + 0.5 * uneven, rel=1e-5)
    assert logs["nll"].item() == pytest.approx(nll, rel=1e-5)
    assert logs["accuracy"].item() == 0.5
    assert logs["used"].item() == pytest.approx(2, rel=1e-5)


def test_a_router_of_true_probabilities_is_a_minimum():
    """Without balance: winners of shares (.7, .3) are best predicted by just that."""
    winner = (torch.arange(10) >= 7).long()[None]
    logits = torch.zeros(2, requires_grad=True)
    known = Latents(router=logits.expand(1, 10, 2), winner=winner)
    best = torch.tensor([0.7, 0.3]).log()
    with torch.no_grad():
        logits.copy_(best)
    value, _ = Router(RouterConfig(balance=0.0), Sizes())(known)
    value.backward()
    assert torch.allclose(logits.grad, torch.zeros(2), atol=1e-6)
    assert value.item() == pytest.approx(-(0.7 * math.log(0.7) + 0.3 * math.log(0.3)), rel=1e-5)


def test_the_likelihood_by_hand_and_its_minimum():
    """Errors of size 2: e² / (2 s²) + log s is least at s = 2, where it is 1/2 + log 2."""
    pred, target = torch.zeros(3, 2), torch.full((3, 2), 2.0)
    values = {}
    for s in (1.0, 2.0, 4.0):
        spread = torch.full((3, 2), math.log(s))
        known = Latents(pred=(pred,), target=(target,), log_std=(spread,))
        value, logs = Likelihood(LikelihoodConfig(), Sizes())(known)
        values[s] = value.item()
        assert logs["std"].item() == pytest.approx(s, rel=1e-5)
        assert value.item() == pytest.approx(4 / (2 * s * s) + math.log(s), rel=1e-5)
    assert min(values, key=values.get) == 2.0


def test_the_losses_of_both_kinds_by_hand():
    cfg = config(FuturesConfig(count=3, width=8, relax=0.0, router_weight=0.5))
    model, batch = shaken(build(cfg)), next(windows())
    got = dynamics_losses(model, cfg, batch, 3)
    z, net = batch.observations, model.predictor
    codes = net.nearest(z[:, :-1], batch.actions, z[:, 1:])
    teacher = (net(z[:, :-1], batch.actions, codes) - z[:, 1:]).square().mean()
    rollout = (net.rollout(z[:, :1], batch.actions, codes) - z[:, 1:]).square().mean()
    logits = net.reader(z[:, :-1], batch.actions)
    nll = F.cross_entropy(logits.flatten(0, 1), codes.flatten())
    assert torch.allclose(got["teacher"], teacher, atol=1e-6)
    assert torch.allclose(got["rollout"], rollout, atol=1e-6)
    assert torch.allclose(got["router_nll"], nll, atol=1e-6)
    assert torch.allclose(got["loss"], teacher + rollout + 0.5 * got["router"], atol=1e-5)
    cfg = config(GAUSSIAN, rollout_weight=0.0)
    model = shaken(build(cfg))
    got = dynamics_losses(model, cfg, batch, 3)
    mean, spread = model.predictor(z[:, :-1], batch.actions), None
    spread = model.predictor.log_std(z[:, :-1], batch.actions).exp()
    law = torch.distributions.Normal(mean, spread)
    wanted = -law.log_prob(z[:, 1:]).mean() - math.log(2 * math.pi) / 2
    assert torch.allclose(got["loss"], wanted, atol=1e-5)
    assert set(objective(cfg).terms()) == {"likelihood"}


# --- learning ------------------------------------------------------------------------------------


def forked(first=0, batch=64):
    """A step adds plus or minus v to every channel, by a fair coin: the mean never moves."""
    for step in itertools.count(first):
        generator = torch_generator(0, "forked", step)
        start = 0.3 * torch.randn(batch, 1, 1, 12, generator=generator)
        coin = torch.randint(0, 2, (batch, 1, 1, 1), generator=generator) * 2.0 - 1
        z = torch.cat([start, start + coin], dim=1)
        actions = torch.zeros(batch, 1, 2)
        yield WindowBatch(z, actions, np.zeros(batch, np.int64), np.zeros((batch, 2), np.int64))


def trained(folder, cfg, batches=windows, resume=False):
    torch.manual_seed(2)
    with RunDir.create(folder, cfg, resume=resume) as run:
        return train_dynamics(cfg, batches, run, encoder=TubeletEncoder(ENCODER))


def test_codes_find_both_branches_and_the_deterministic_model_their_mean(tmp_path):
    batch = next(forked(10**6, 256))
    z = batch.observations
    errors = {}
    for name, futures in {
        "codes": FuturesConfig(count=2, width=16),
        "one": FuturesConfig(),
    }.items():
        cfg = config(futures, steps=100, lr=1e-2, horizon=1, rollout_weight=0.0)
        model = trained(tmp_path / name, cfg, forked)
        found, weights = model.rollout_futures(
            Latent(z[:, :1]), batch.actions[:, None], how="sample", count=4
        )
        gaps = (found.tokens[:, 0, :, 0] - z[:, 1:2, 0][:, :, None]).square().mean(dim=(2, 3))
        errors[name] = gaps.min(dim=1).values.mean().item()
        if name == "codes":
            chance = model.predictor.probabilities(z[:, :1], batch.actions)
            assert chance.min() > 0.3  # the coin is fair
            assert torch.allclose(weights.sum(dim=2), torch.ones(256, 1))
    assert errors["one"] == pytest.approx(1, abs=0.1)  # the distance of a branch from the mean
    assert errors["codes"] < 0.1


def test_a_gaussian_learns_the_spread(tmp_path):
    cfg = config(GAUSSIAN, steps=100, lr=1e-2, horizon=1, rollout_weight=0.0)
    model = trained(tmp_path / "run", cfg, forked)
    batch = next(forked(10**6, 256))
    spread = model.predictor.log_std(batch.observations[:, :1], batch.actions)
    assert spread.exp().mean().item() == pytest.approx(1, abs=0.15)


# --- the run around it ---------------------------------------------------------------------------


class Cut(BaseException):
    """A power cut."""


@pytest.mark.parametrize("futures", [CODES, GAUSSIAN])
def test_runs_resume_to_the_same_bits_and_load(tmp_path, futures):
    def cut(first):
        for step, batch in zip(range(first, 3), windows(first), strict=False):
            yield batch
            assert step < 3
        raise Cut

    cfg = config(futures)
    whole = trained(tmp_path / "whole", cfg)
    with pytest.raises(Cut):
        trained(tmp_path / "cut", cfg, cut)
    resumed = trained(tmp_path / "cut", cfg, resume=True)
    a, b = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    again = build(cfg)
    assert load_checkpoint(latest_checkpoint(tmp_path / "cut"), model=again) == 4
    assert all(torch.equal(again.state_dict()[name], a[name]) for name in a)
    report = prediction_report(whole, take(windows(100), 1), frozen=True)
    assert all(math.isfinite(value) for value in report.values())


def test_the_presets():
    encoder = presets.debug().encoder
    cfg = presets.world_model("lewm_z", encoder)
    assert cfg.model.futures == FuturesConfig(count=8)
    assert set(objective(cfg).terms()) == {"regress", "sigreg", "router"}
    for name in ("lewm_z", "z_debug"):
        cfg = presets.world_model(name, encoder)
        assert from_toml(DynamicsConfig, to_toml(cfg)) == cfg


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"count": 0}, "futures.count = 0: must be at least 1"),
        ({"count": -3}, "futures.count = -3"),
        ({"width": 0}, "futures.width = 0"),
        ({"kind": "gaussian", "count": 2}, "a Gaussian z has no codes"),
        ({"kind": "both"}, "futures.kind = 'both'"),
        ({"relax": 1.0}, "futures.relax = 1.0"),
        ({"balance": -1.0}, "futures.balance = -1.0"),
        ({"router_weight": math.nan}, "futures.router_weight = nan"),
    ],
)
def test_impossible_configs(bad, message):
    with pytest.raises(ConfigError, match=message):
        FuturesConfig(**bad)


def test_no_futures_in_a_config_file():
    with pytest.raises(ConfigError, match=r"model.futures: futures.count = 0: must be at least 1"):
        from_toml(DynamicsConfig, "[model.futures]\ncount = 0")


def test_what_does_not_go_together():
    net, (z, actions) = predictor(GAUSSIAN), problem()
    with pytest.raises(ConfigError, match="no codes to hold"):
        net.imagine(z[:, :1], actions[:, None], how="hold")
    with pytest.raises(ConfigError, match="a context of 2 steps"):
        net.imagine(z[:, :2], actions[:, None], how="sample")
    with pytest.raises(ConfigError, match="count = 0"):
        net.imagine(z[:, :1], actions[:, None], how="sample", count=0)
    with pytest.raises(ConfigError, match="one future needs no z"):
        predictor(FuturesConfig())
    with pytest.raises(ConfigError, match="state_dim = 7"):
        FuturePredictor(
            ActionPredictorConfig(width=16, depth=1, heads=2, state_dim=7),
            CODES,
            latent_dim=4,
            action_dim=2,
        )
    with pytest.raises(ConfigError, match="learnt by the one-step loss"):
        config(GAUSSIAN, teacher_weight=0.0)
    known = Latents(router=torch.zeros(2, 3, 4), winner=torch.zeros(2, 2).long())
    with pytest.raises(ConfigError, match="logits of shape"):
        Router(RouterConfig(), Sizes())(known)
