"""Schedules as functions of the step, parameter groups, and the moving average."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from tubelet.core.errors import ConfigError
from tubelet.vjepa.optim import (
    OptimConfig,
    ema_momentum,
    ema_update,
    ijepa_schedule,
    learning_rate,
    make_optimizer,
    set_schedule,
    vjepa2_cooldown_schedule,
    vjepa2_schedule,
    vjepa2_wsd_schedule,
    vjepa_schedule,
    weight_decay,
)

STEPS = 100
CONFIG = OptimConfig(lr=1.0, start_lr=0.2, final_lr=0.1, warmup=0.1)


def with_schedule(schedule):
    return OptimConfig(lr=1.0, start_lr=0.2, final_lr=0.1, warmup=0.1, schedule=schedule)


def test_warm_up_is_linear_and_meets_the_peak():
    rates = [learning_rate(CONFIG, step, STEPS) for step in range(11)]
    assert rates == pytest.approx([0.2 + 0.08 * step for step in range(11)])


@pytest.mark.parametrize(
    ("schedule", "halfway", "end"),
    [("cosine", 0.55, 0.1), ("linear", 0.55, 0.1), ("constant", 1.0, 1.0)],
)
def test_after_the_warm_up(schedule, halfway, end):
    config = with_schedule(schedule)
    assert learning_rate(config, 10, STEPS) == pytest.approx(1.0)
    assert learning_rate(config, 55, STEPS) == pytest.approx(halfway)
    assert learning_rate(config, 100, STEPS) == pytest.approx(end)
    rates = [learning_rate(config, step, STEPS) for step in range(10, 101)]
    assert all(a >= b for a, b in itertools.pairwise(rates))


def test_cosine_leaves_the_peak_more_slowly_than_a_line():
    assert learning_rate(with_schedule("cosine"), 20, STEPS) > learning_rate(
        with_schedule("linear"), 20, STEPS
    )


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
def test_shortest_runs(steps, warmup):
    config = OptimConfig(warmup=warmup)
    rates = [learning_rate(config, step, steps) for step in range(steps)]
    assert all(0 < rate <= config.lr for rate in rates)


def test_weight_decay_goes_by_a_cosine():
    config = OptimConfig(weight_decay=0.04, final_weight_decay=0.4)
    got = [weight_decay(config, step, STEPS) for step in (0, 50, 100)]
    assert got == pytest.approx([0.04, 0.22, 0.4])


def test_momentum_goes_by_a_line():
    assert [ema_momentum(0.9, 1.0, step, 10) for step in (0, 5, 10)] == pytest.approx(
        [0.9, 0.95, 1]
    )


def test_only_matrices_are_decayed_and_frozen_parameters_left_out():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    module[2].requires_grad_(False)
    optimizer = make_optimizer(module, OptimConfig())
    set_schedule(optimizer, OptimConfig(weight_decay=0.3, final_weight_decay=0.3), 0, STEPS)
    decayed, plain = optimizer.param_groups
    assert [p.shape for p in decayed["params"]] == [(4, 3)]
    assert [p.shape for p in plain["params"]] == [(4,), (4,), (4,)]
    assert decayed["weight_decay"] == pytest.approx(0.3)
    assert plain["weight_decay"] == 0


def test_decay_shrinks_matrices_by_the_decoupled_rule():
    module = nn.Linear(3, 3)
    before = copy.deepcopy(module)
    config = OptimConfig(lr=0.1, start_lr=0.1, warmup=0, weight_decay=0.5, final_weight_decay=0.5)
    optimizer = make_optimizer(module, config)
    assert set_schedule(optimizer, config, 0, STEPS) == pytest.approx(0.1)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(module.weight, before.weight * (1 - 0.1 * 0.5))
    assert torch.equal(module.bias, before.bias)


def test_steps_are_those_of_the_plain_adamw():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4))
    theirs = copy.deepcopy(ours)
    config = OptimConfig(lr=0.01, weight_decay=0.3)
    fused = make_optimizer(ours, config)
    groups = [{**g, "params": list(theirs.parameters())[:0]} for g in fused.param_groups]
    for p in theirs.parameters():
        groups[0 if p.ndim > 1 else 1]["params"].append(p)
    keys = ("params", "weight_decay")
    plain = torch.optim.AdamW(
        [{k: g[k] for k in keys} for g in groups], lr=0.01, betas=config.betas, foreach=False
    )
    for _ in range(5):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        fused.step()
        plain.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


class Net(nn.Module):
    """A matrix inside a block, and one outside."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4)])

    def forward(self, x):
        for layer in (self.embed, *self.blocks):
            x = layer(x)
        return x


def muon_step(weight, grad, lr, decay):
    """The first step of Muon (momentum .95, Nesterov) by a singular value decomposition, at the
    size of AdamW's."""
    momentum = 0.05 * grad
    u, _, v = torch.linalg.svd(grad.lerp(momentum, 0.95))
    return weight * (1 - lr * decay) - 0.2 * lr * math.sqrt(max(weight.shape)) * (u @ v)


def test_muon_takes_the_matrices_of_blocks_and_adamw_the_rest():
    torch.manual_seed(0)
    net = Net()
    config = OptimConfig(
        kind="muon", lr=0.1, start_lr=0.1, weight_decay=0.5, final_weight_decay=0.5
    )
    optimizer = make_optimizer(net, config)
    sizes = [[tuple(p.shape) for p in g["params"]] for g in optimizer.param_groups]
    assert sizes == [[(4, 4)], [(4, 3)], [(4,)] * 4]
    set_schedule(optimizer, config, 0, STEPS)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.5, 0.5, 0]
    before, plain = copy.deepcopy(net), copy.deepcopy(net)
    for parameter, twin in zip(net.parameters(), plain.parameters(), strict=True):
        parameter.grad = torch.randn_like(parameter)
        twin.grad = parameter.grad.clone()
    optimizer.step()
    adamw = make_optimizer(plain, OptimConfig(lr=0.1, weight_decay=0.5))
    set_schedule(adamw, config, 0, STEPS)
    adamw.step()
    for name, parameter in net.named_parameters():
        if name != "blocks.0.weight":
            assert torch.equal(parameter, plain.get_parameter(name)), name
    grad = net.blocks[0].weight.grad
    wanted = muon_step(before.blocks[0].weight, grad, 0.1, 0.5)
    # Its five iterations leave singular values between .7 and 1.2 where the SVD has 1.
    moved, aimed = (w - before.blocks[0].weight * 0.95 for w in (net.blocks[0].weight, wanted))
    assert torch.nn.functional.cosine_similarity(moved.flatten(), aimed.flatten(), dim=0) > 0.97
    assert moved.norm().item() == pytest.approx(aimed.norm().item(), rel=0.3)


def test_muon_without_blocks_is_adamw():
    assert isinstance(make_optimizer(nn.Linear(2, 2), OptimConfig(kind="muon")), torch.optim.AdamW)


def test_moving_average_closed_form():
    target, source = nn.Linear(4, 3), nn.Linear(4, 3)
    first, online = copy.deepcopy(target.weight), source.weight
    for _ in range(7):
        ema_update(target, source, 0.9)
    assert torch.allclose(target.weight, 0.9**7 * first + (1 - 0.9**7) * online, atol=1e-6)


def test_moving_average_at_its_ends():
    target, source = nn.Linear(4, 3), nn.Linear(4, 3)
    before = copy.deepcopy(target.state_dict())
    ema_update(target, source, 1.0)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    ema_update(target, source, 0.0)
    for mine, theirs in zip(target.parameters(), source.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert source.weight.grad is None


def test_warm_up_in_steps_wins_over_the_share():
    config = OptimConfig(lr=1.0, start_lr=0.0, warmup=0.5, warmup_steps=4)
    rates = [learning_rate(config, step, STEPS) for step in range(5)]
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])


def test_warm_up_constant_cool_down():
    config = OptimConfig(
        lr=1.0, start_lr=0.2, final_lr=0.1, warmup=0.1, schedule="constant", cooldown=0.2
    )
    got = [learning_rate(config, step, STEPS) for step in (0, 5, 10, 45, 80, 85, 90, 100)]
    assert got == pytest.approx([0.2, 0.6, 1.0, 1.0, 1.0, 0.775, 0.55, 0.1])


def test_a_stretched_schedule_is_that_of_a_longer_run():
    """V-JEPA's ipe_scale: the schedules of 1.25 times the steps, with the warm-up of the run."""
    config = OptimConfig(lr=1.0, final_lr=0.0, warmup=0.1, stretch=1.25, final_weight_decay=0.4)
    longer = OptimConfig(lr=1.0, final_lr=0.0, warmup_steps=10, final_weight_decay=0.4)
    for step in (10, 40, 100):
        assert learning_rate(config, step, 100) == pytest.approx(learning_rate(longer, step, 125))
        assert weight_decay(config, step, 100) == pytest.approx(weight_decay(longer, step, 125))


def test_the_published_rates():
    pretraining = vjepa2_schedule()
    got = [learning_rate(pretraining, step, 240_000) for step in (0, 6000, 12_000, 239_999)]
    assert got == pytest.approx([1e-4, 3.125e-4, 5.25e-4, 5.25e-4])
    cooldown = vjepa2_cooldown_schedule()
    assert learning_rate(cooldown, 0, 12_000) == pytest.approx(5.25e-4)
    assert learning_rate(cooldown, 12_000, 12_000) == pytest.approx(1.058e-4)
    assert learning_rate(vjepa2_wsd_schedule(), 240_000, 240_000) == pytest.approx(1e-6)
    first = vjepa_schedule()
    assert learning_rate(first, 12_000, 90_000) == pytest.approx(6.25e-4)
    # 78,000 of the 100,500 steps after the warm-up have gone by at the end.
    share = 0.5 * (1 + math.cos(math.pi * 78_000 / 100_500))
    assert learning_rate(first, 90_000, 90_000) == pytest.approx(1e-6 + 6.24e-4 * share)
    images = ijepa_schedule()
    got = [learning_rate(images, epoch * 626, 300 * 626) for epoch in (0, 40, 300)]
    assert got == pytest.approx([2e-4, 1e-3, 1e-6])
    assert weight_decay(images, 300, 300) == pytest.approx(0.4)


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": -1.0},
        {"kind": "sgd"},
        {"warmup": 1.5},
        {"clip": -0.1},
        {"warmup_steps": -1},
        {"cooldown": 0.1},
        {"cooldown": 1.1, "schedule": "constant"},
        {"stretch": 0.5},
    ],
)
def test_impossible_configs(bad):
    with pytest.raises(ConfigError, match="optim"):
        OptimConfig(**bad)
