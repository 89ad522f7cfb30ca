"""The masked predictor: what may and what may not change a prediction."""

import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.vjepa.positions import Grid
from tubelet.vjepa.predictor import MaskedPredictor, PredictorConfig

GRID = Grid(2, 3, 4)
CONTEXT = torch.tensor([[0, 4, 9, 13, 22], [1, 2, 3, 20, 23]])
TARGET = torch.tensor([[1, 5, 14], [0, 7, 19]])

POSITIONS = pytest.mark.parametrize("position", ["rope", "sincos"])


def make(position="rope"):
    torch.manual_seed(0)
    config = PredictorConfig(width=24, depth=2, heads=2, position=position)
    predictor = MaskedPredictor(config, latent_dim=10)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return predictor.eval(), torch.randn(2, 5, 10)


@POSITIONS
def test_predictions_have_the_targets_shape_and_order(position):
    predictor, context = make(position)
    out = predictor(context, CONTEXT, TARGET, GRID, 0)
    assert out.shape == (2, 3, 10)
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(
        predictor(context, CONTEXT, TARGET[:, order], GRID, 0), out[:, order], atol=1e-5
    )


@POSITIONS
def test_the_context_is_a_set(position):
    predictor, context = make(position)
    order = torch.tensor([3, 0, 4, 1, 2])
    out = predictor(context, CONTEXT, TARGET, GRID, 0)
    shuffled = predictor(context[:, order], CONTEXT[:, order], TARGET, GRID, 0)
    assert torch.allclose(shuffled, out, atol=1e-5)


@POSITIONS
def test_place_content_and_mask_kind_matter(position):
    predictor, context = make(position)
    out = predictor(context, CONTEXT, TARGET, GRID, 0)
    moved = TARGET.clone()
    moved[:, 0] = 11
    for other in (
        predictor(context + 1, CONTEXT, TARGET, GRID, 0),
        predictor(context, CONTEXT, moved, GRID, 0),
        predictor(context, CONTEXT, TARGET, GRID, 1),
    ):
        assert not torch.allclose(other, out, atol=1e-3)


def test_each_mask_kind_trains_its_own_token():
    predictor, context = make()
    predictor(context, CONTEXT, TARGET, GRID, 1).square().sum().backward()
    grad = predictor.mask_tokens.grad
    assert grad is not None
    assert grad[1].abs().sum() > 0
    assert grad[0].abs().sum() == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"width": 25, "heads": 2}, "nearest width that is: 24"),
        ({"depth": 0}, "at least 1"),
        ({"mask_tokens": 0}, "at least 1"),
        ({"width": 8, "heads": 2}, "heads of 4 channels"),
    ],
)
def test_impossible_configs(bad, message):
    with pytest.raises(ConfigError, match=message):
        PredictorConfig(**bad)
