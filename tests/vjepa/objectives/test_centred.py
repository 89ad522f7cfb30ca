"""Centred cross-entropy: closed forms, the moving centre, gradients."""

import math

import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.vjepa.objectives import Latents, Objective, ObjectiveConfig
from tubelet.vjepa.objectives.centred import CentredConfig, centred_cross_entropy

D = 6


def objective(**more):
    config = ObjectiveConfig(centred=CentredConfig(**more))
    return Objective(config, {"pred", "target"}, latent_dim=D)


def given(pred, target):
    return Latents(pred=(pred,), target=(target,))


def test_two_classes_by_hand():
    """Logits (0, a) against (0, b) at temperatures 1: p = sigmoid(b), -p log q - (1-p) log(1-q)."""
    config = CentredConfig(student_temperature=1.0, teacher_temperature=1.0)
    a, b = 0.7, -1.3
    loss, entropy = centred_cross_entropy(
        torch.tensor([[0.0, a]]), torch.tensor([[0.0, b]]), torch.zeros(2), config
    )
    p, q = 1 / (1 + math.exp(-b)), 1 / (1 + math.exp(-a))
    assert loss.item() == pytest.approx(-p * math.log(q) - (1 - p) * math.log(1 - q), rel=1e-5)
    assert entropy.item() == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p), rel=1e-5)


def test_targets_at_the_centre_are_uniform_and_cost_log_d_at_best():
    config = CentredConfig()
    target = torch.randn(3, D)
    loss, entropy = centred_cross_entropy(torch.zeros(1, D), target[:1], target[0], config)
    assert loss.item() == pytest.approx(math.log(D), rel=1e-5)
    assert entropy.item() == pytest.approx(math.log(D), rel=1e-5)


def test_sharp_targets_are_the_negative_log_of_the_largest_channel():
    config = CentredConfig(teacher_temperature=1e-4, student_temperature=0.5)
    pred, target = torch.randn(20, D), torch.randn(20, D)
    loss, entropy = centred_cross_entropy(pred, target, torch.zeros(D), config)
    labels = target.argmax(dim=-1)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(pred / 0.5, labels))
    assert entropy < 1e-3


def test_the_best_prediction_is_the_scaled_target_and_a_shift_of_either_counts_for_nothing():
    config, target = CentredConfig(), torch.randn(5, D)
    best = target * config.student_temperature / config.teacher_temperature
    loss, entropy = centred_cross_entropy(best, target, torch.zeros(D), config)
    torch.testing.assert_close(loss, entropy)
    moved, _ = centred_cross_entropy(best + 3.0, target - 2.0, torch.zeros(D), config)
    torch.testing.assert_close(moved, loss, atol=1e-4, rtol=1e-4)


def test_the_centre_is_the_moving_average_of_means():
    """With constant targets t, after n steps the centre is (1 - m^n) t; evaluation leaves it."""
    terms = objective(momentum=0.8)
    centre = terms.terms["centred"].centre
    target = torch.randn(1, 1, D).expand(4, 3, -1)
    for _ in range(5):
        terms(given(torch.zeros(4, 3, D), target))
    torch.testing.assert_close(centre, (1 - 0.8**5) * target[0, 0])
    terms.eval()
    before = centre.clone()
    terms(given(torch.zeros(4, 3, D), 100 * target))
    assert torch.equal(centre, before)
    assert "terms.centred.centre" in terms.state_dict()


def test_the_loss_uses_the_centre_before_it_moves():
    terms = objective(momentum=0.0)
    pred, target = torch.randn(2, 3, D), torch.randn(2, 3, D)
    first = terms(given(pred, target))["centred"]
    expected, _ = centred_cross_entropy(pred, target, torch.zeros(D), CentredConfig())
    torch.testing.assert_close(first, expected)
    second = terms(given(pred, target))["centred"]
    expected, _ = centred_cross_entropy(pred, target, target.mean((0, 1)), CentredConfig())
    torch.testing.assert_close(second, expected)


def test_gradient_is_softmax_difference():
    config = CentredConfig()
    pred = torch.randn(7, D, dtype=torch.float64, requires_grad=True)
    target, centre = torch.randn(7, D, dtype=torch.float64), torch.randn(D, dtype=torch.float64)
    centred_cross_entropy(pred, target, centre, config)[0].backward()
    p = ((target - centre) / config.teacher_temperature).softmax(-1)
    q = (pred.detach() / config.student_temperature).softmax(-1)
    torch.testing.assert_close(pred.grad, (q - p) / config.student_temperature / 7)


def test_bad_configs_are_refused():
    for name in ("student_temperature", "teacher_temperature"):
        with pytest.raises(ConfigError, match=f"centred.{name} = 0"):
            CentredConfig(**{name: 0.0})
    with pytest.raises(ConfigError, match=r"centred.momentum = 2"):
        CentredConfig(momentum=2.0)
    with pytest.raises(ConfigError, match="latent_dim"):
        Objective(ObjectiveConfig(centred=CentredConfig()), {"pred", "target"})
