"""The yardstick of the training step computes what ours does."""

import cmath
import itertools

import pytest
import torch

from tubelet.benchmarks import speed_vjepa
from tubelet.benchmarks.plain_vjepa import (
    MaskIds,
    PlainVJEPA,
    plain_loss,
    plain_optimizer,
    plain_step,
    rotate,
)
from tubelet.core.errors import TubeletError
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.masked import MaskedModel, MaskingConfig, draw
from tubelet.vjepa.objectives import preset
from tubelet.vjepa.optim import OptimConfig, make_optimizer
from tubelet.vjepa.positions import Grid, PositionConfig
from tubelet.vjepa.predictor import MaskedPredictor, PredictorConfig

ENCODER = EncoderConfig(width=48, depth=2, heads=2)
PREDICTOR = PredictorConfig(width=36, depth=2, heads=3)


@pytest.fixture
def setting():
    torch.manual_seed(0)
    model = MaskedModel(ENCODER, PREDICTOR, MaskingConfig(), preset("vjepa2"))
    with torch.no_grad():  # far from the small initial weights, so that attention matters
        for p in (*model.encoder.parameters(), *model.predictor.parameters()):
            p.add_(0.1 * torch.randn_like(p))
        model.target.teacher.load_state_dict(model.encoder.state_dict())
    video = torch.randint(0, 256, (3, 4, 64, 48, 3), dtype=torch.uint8)
    selections = draw(MaskingConfig(), Grid(2, 4, 3), 3, seed=0, first_sample=0)
    kinds = [MaskIds(s.context, s.targets[0]) for s in selections]
    return model, video, selections, kinds


def our_loss(model, video, selections):
    return model.objective(model.predict(video, model.encoder.grid(video), selections))["loss"]


def renamed(module, prefix=""):
    """Our parameters under the plain model's names."""
    return {
        prefix + n.replace(".attn.", ".").replace(".mlp.", "."): p
        for n, p in module.named_parameters()
    }


def trained(model):
    return renamed(model.encoder, "encoder.") | renamed(model.predictor, "predictor.")


@pytest.mark.parametrize("checkpoint", [False, True])
def test_losses_and_gradients_are_ours(setting, checkpoint):
    model, video, selections, kinds = setting
    plain = PlainVJEPA(model.encoder, model.predictor, checkpoint)
    loss, wanted = plain_loss(plain, video, kinds), our_loss(model, video, selections)
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    loss.backward()
    wanted.backward()
    ours, theirs = trained(model), dict(plain.named_parameters())
    assert {n for n, p in theirs.items() if p.requires_grad} == set(ours)
    for name, parameter in ours.items():
        assert torch.allclose(theirs[name].grad, parameter.grad, atol=1e-5), name


def test_a_step_ends_where_ours_does(setting):
    model, video, selections, kinds = setting
    plain = PlainVJEPA(model.encoder, model.predictor)
    config = OptimConfig(lr=1e-3)
    plain_step(plain, plain_optimizer(plain, config), video, kinds, 0.99925)
    optimizer = make_optimizer(model, config)
    our_loss(model, video, selections).backward()
    optimizer.step()
    model.after_step(0, 1)
    theirs = dict(plain.named_parameters())
    for name, parameter in trained(model).items():  # Adam's first step is lr * sign(gradient)
        far = (theirs[name] - parameter).abs() > 1e-5
        assert far.float().mean() < 0.01, name
    averages = renamed(model.target.teacher)
    for name, average in plain.target.named_parameters():
        assert not average.requires_grad
        assert torch.allclose(average, averages[name], atol=1e-6), name


def test_rotation_is_a_product_of_complex_numbers():
    grid, x = Grid(2, 3, 4), torch.randn(1, 2, 24, 14, dtype=torch.float64)
    got = rotate(x, torch.arange(24).expand(1, -1), grid)
    places = list(itertools.product(range(2), range(3), range(4)))
    for token, axis, i in itertools.product(range(24), range(3), range(2)):
        c = 4 * axis + 2 * i
        turn = cmath.exp(1j * places[token][axis] * 10000 ** (-i / 2))
        z = torch.complex(x[0, :, token, c], x[0, :, token, c + 1]) * turn
        assert torch.allclose(got[0, :, token, c], z.real)
        assert torch.allclose(got[0, :, token, c + 1], z.imag)
    assert torch.equal(got[..., 12:], x[..., 12:])


def test_it_is_v_jepa_2_and_says_so():
    tiled = PositionConfig(pairs="tiled")
    predictor = MaskedPredictor(PREDICTOR, latent_dim=48)
    with pytest.raises(ValueError, match="rotary"):
        PlainVJEPA(
            TubeletEncoder(EncoderConfig(width=48, depth=1, heads=2, position=tiled)), predictor
        )
    with pytest.raises(ValueError, match="one level"):
        PlainVJEPA(
            TubeletEncoder(EncoderConfig(width=48, depth=2, heads=2, levels=(1, 2))), predictor
        )


def test_unequal_losses_stop_the_benchmark(monkeypatch):
    monkeypatch.setattr(speed_vjepa, "plain_loss", lambda *_: torch.tensor(0.5))
    size = speed_vjepa.Size("tiny", 48, 2, 4, 32, 2, depth=1, predictor=(36, 1, 3))
    with pytest.raises(TubeletError, match="losses differ"):
        speed_vjepa.train_case(size, "fp32", threads=1, repeats=1, profiled=False)
