"""Counted operations against those that PyTorch counts while the models run."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.flops import block_flops, encoder_flops, predictor_flops, step_flops
from tubelet.vjepa.predictor import MaskedPredictor, PredictorConfig
from tubelet.vjepa.presets import preset
from tubelet.vjepa.pretrain import build, with_objective


def counted(run):
    """What PyTorch counts; by matrix products, since it does not know the CPU's fused attention."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


def clips(batch, frames, side):
    return torch.zeros(batch, frames, side, side, 3, dtype=torch.uint8)


@pytest.mark.parametrize("kept", [None, 5])
def test_an_encoder_costs_what_pytorch_counts(kept):
    config = EncoderConfig(width=48, depth=3, heads=3, patch=8, mlp_ratio=2.5)
    encoder, video = TubeletEncoder(config), clips(2, 4, 32)
    keep = None if kept is None else torch.arange(kept).expand(2, -1)
    with torch.no_grad():
        found = counted(lambda: encoder(video, keep))
    assert found == 2 * encoder_flops(config, config.grid(4, 32, 32), kept)


@pytest.mark.parametrize("levels", [1, 4])
def test_a_predictor_costs_what_pytorch_counts(levels):
    config = PredictorConfig(
        width=24, depth=2, heads=2, levels=levels, context_head=levels > 1, target_width=40
    )
    predictor = MaskedPredictor(config, latent_dim=48)
    grid = EncoderConfig(patch=8).grid(4, 32, 32)
    context, target = torch.arange(7)[None], torch.arange(7, 20)[None]
    tokens = torch.zeros(1, 7, levels * 48)
    with torch.no_grad():
        found = counted(lambda: predictor(tokens, context, target, grid, 0))
    assert found == predictor_flops(config, 48, 7, 13)


@pytest.mark.parametrize("objective", ["vjepa2", "ijepa", "lejepa"])
def test_a_training_step_costs_what_pytorch_counts(objective):
    """But for two things: it needs no gradient of pixels, which three forward passes include; and
    what attention computes again in its backward pass is not counted here."""
    base = preset("debug")
    config = with_objective(base, objective)
    if config.by_views:
        views = replace(config.multiview.views, global_size=32, local_size=16)
        config = replace(config, multiview=replace(config.multiview, views=views, hidden=32))
        sigreg = replace(config.objective.sigreg, slices=8)  # a loss, which is not counted
        config = replace(config, objective=replace(config.objective, sigreg=sigreg))
    frames = 1 if objective == "ijepa" else 4
    model, video = build(config), clips(config.batch_size, frames, 32)
    total = step_flops(config, frames, 32, 32).total
    found = counted(lambda: model.losses(video, 0)["loss"].backward())
    assert found == pytest.approx(total, rel=0.12)


def test_the_teacher_runs_once_forward_and_the_pixel_gradient_is_the_only_difference():
    config = preset("debug")
    cost = step_flops(config, 4, 32, 32)
    grid = config.encoder.grid(4, 32, 32)
    assert cost.teacher == config.batch_size * encoder_flops(config.encoder, grid)
    assert cost.total == cost.teacher + cost.encoder + cost.predictor


def test_published_sizes():
    """ViT-Ti/16 is known for 1.26 billion multiply-adds on 197 tokens; with attention's products,
    without the class token and with two frames to a patch it is near that."""
    config = EncoderConfig(width=192, depth=12, heads=3, tubelet=1)
    flops = encoder_flops(config, config.grid(1, 224, 224))
    assert flops / 2 == pytest.approx(1.25e9, rel=0.02)
    assert block_flops(10, 4) == 2 * (12 * 10 * 16 + 2 * 10 * 10 * 4)
