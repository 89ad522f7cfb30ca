"""Target providers: the moving average in closed form, sharing, freezing, normalisation."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tubelet.core.errors import ConfigError
from tubelet.vjepa.objectives import Target, TargetConfig
from tubelet.vjepa.objectives.targets import normalise


def encoder(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


X = torch.randn(8, 3)


def test_the_average_of_a_constant_encoder_is_the_closed_form():
    online, start = encoder(1), encoder(0)
    target = Target(TargetConfig(momentum=(0.9, 0.9)), start)
    for step in range(5):
        target.update(online, step, 5)
    assert target.teacher is not None
    pairs = zip(target.teacher.parameters(), start.parameters(), online.parameters(), strict=True)
    for got, first, last in pairs:
        assert torch.allclose(got, 0.9**5 * first + (1 - 0.9**5) * last, atol=1e-6)


def test_momentum_one_keeps_and_momentum_zero_copies():
    online = encoder(1)
    for momentum, expected in ((1.0, encoder(0)), (0.0, online)):
        target = Target(TargetConfig(momentum=(momentum, momentum)), encoder(0))
        target.update(online, 0, 1)
        assert target.teacher is not None
        for got, wanted in zip(target.teacher.parameters(), expected.parameters(), strict=True):
            assert torch.equal(got, wanted)


def test_momentum_is_linear_in_the_step():
    online, start = encoder(1), encoder(0)
    target = Target(TargetConfig(momentum=(0.5, 1.0)), start)
    target.update(online, 50, 100)  # 0.75
    assert target.teacher is not None
    got = next(target.teacher.parameters())
    first, last = next(start.parameters()), next(online.parameters())
    assert torch.allclose(got, 0.75 * first + 0.25 * last)


def test_buffers_are_copied():
    online = encoder(1)
    online(X)  # moves the running statistics
    target = Target(TargetConfig(), encoder(0))
    target.update(online, 0, 1)
    assert target.teacher is not None
    for mine, theirs in zip(target.teacher.buffers(), online.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_gradients_reach_a_shared_encoder_alone():
    online = encoder()
    assert Target(TargetConfig(kind="shared"), online)(online, X).requires_grad
    stopped = Target(TargetConfig(kind="shared", stop_gradient=True), online)(online, X)
    assert not stopped.requires_grad
    average = Target(TargetConfig(), online)
    assert not average(online, X).requires_grad
    assert not any(p.requires_grad for p in average.parameters())
    assert all(p.requires_grad for p in online.parameters())
    assert not list(Target(TargetConfig(kind="shared"), online).parameters())


def test_a_frozen_teacher_never_changes():
    online, teacher = encoder(1), encoder(0)
    target = Target(TargetConfig(kind="frozen"), online, teacher).train()
    before = copy.deepcopy(target.state_dict())
    first = target(online, X)
    target.update(online, 0, 1)
    assert torch.equal(target(online, X), first)
    after = target.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert before.keys() == {f"teacher.{name}" for name in teacher.state_dict()}


def test_levels_are_normalised_by_themselves():
    tokens = 5 * torch.randn(2, 3, 8) + 1
    whole = normalise(tokens, TargetConfig(norm="layer"))
    assert torch.equal(whole, F.layer_norm(tokens, (8,)))
    split = normalise(tokens, TargetConfig(norm="layer", levels=4))
    for level in range(4):
        part = slice(2 * level, 2 * level + 2)
        assert torch.equal(split[..., part], F.layer_norm(tokens[..., part], (2,)))
    assert normalise(tokens, TargetConfig(levels=4)) is tokens


def test_impossible_providers():
    with pytest.raises(ConfigError, match="needs a teacher"):
        Target(TargetConfig(kind="frozen"), encoder())
    with pytest.raises(ConfigError, match="takes no teacher"):
        Target(TargetConfig(), encoder(), encoder())
    with pytest.raises(ConfigError, match=r"momentum = \(0.9, 1.1\)"):
        TargetConfig(momentum=(0.9, 1.1))
    with pytest.raises(ConfigError, match="levels = 0"):
        TargetConfig(levels=0)
    with pytest.raises(ConfigError, match="stop_gradient = true"):
        TargetConfig(stop_gradient=True)
    with pytest.raises(ConfigError, match="levels = 3 does not divide 8"):
        normalise(torch.zeros(2, 8), TargetConfig(norm="layer", levels=3))
