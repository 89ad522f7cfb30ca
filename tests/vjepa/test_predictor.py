"""The masked predictor: what may and what may not change a prediction."""

import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.vjepa.positions import SINCOS, Grid, PositionConfig
from tubelet.vjepa.predictor import MaskedJob, MaskedPredictor, PredictorConfig

GRID = Grid(2, 3, 4)
CONTEXT = torch.tensor([[0, 4, 9, 13, 22], [1, 2, 3, 20, 23]])
TARGET = torch.tensor([[1, 5, 14], [0, 7, 19]])

ROPE = PositionConfig()
POSITIONS = pytest.mark.parametrize("position", [ROPE, SINCOS], ids=["rope", "sincos"])


def make(position=ROPE, **changes):
    torch.manual_seed(0)
    config = PredictorConfig(width=24, depth=2, heads=2, position=position, **changes)
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


@POSITIONS
def test_packing_jobs_is_doing_each(position):
    predictor, context = make(position)
    jobs = [
        MaskedJob(context, CONTEXT, TARGET, 0),
        MaskedJob(context[:, :2], CONTEXT[:, :2], TARGET[:, :1], 1),
    ]
    for (got, none), job in zip(predictor.packed(jobs, GRID), jobs, strict=True):
        wanted = predictor(job.context, job.context_ids, job.target_ids, GRID, job.mask_index)
        assert none is None
        assert torch.allclose(got, wanted, atol=1e-5)


def test_levels_come_in_and_go_out_side_by_side():
    predictor, _ = make(levels=4, target_width=6, context_head=True, modality=True)
    job = MaskedJob(torch.randn(2, 5, 40), CONTEXT, TARGET, 0)
    ((targets, context),) = predictor.packed([job], GRID)
    assert targets.shape == (2, 3, 24)
    assert context is not None
    assert context.shape == (2, 5, 24)
    ((image, _),) = predictor.packed([job], GRID, image=True)
    assert not torch.allclose(image, targets)


def test_context_predictions_keep_the_contexts_order():
    predictor, context = make(context_head=True)
    order = torch.tensor([3, 0, 4, 1, 2])
    ((_, straight),) = predictor.packed([MaskedJob(context, CONTEXT, TARGET, 0)], GRID)
    job = MaskedJob(context[:, order], CONTEXT[:, order], TARGET, 0)
    ((_, shuffled),) = predictor.packed([job], GRID)
    assert torch.allclose(shuffled, straight[:, order], atol=1e-5)


def test_mask_tokens_and_ids_that_do_not_exist_are_refused():
    predictor, context = make()
    with pytest.raises(ConfigError, match="mask_index = 2: there are 2"):
        predictor(context, CONTEXT, TARGET, GRID, 2)
    with pytest.raises(ConfigError, match="token id 24"):
        predictor(context, CONTEXT, TARGET + 5, GRID, 0)
