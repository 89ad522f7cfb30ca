"""Training with masks of other lengths in every sample: no token lost, no padding."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tubelet.core.rng import torch_generator
from tubelet.core.run import RunDir, read_metrics
from tubelet.vjepa import blocks
from tubelet.vjepa.encoder import EncoderConfig
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.masked import MaskingConfig, draw
from tubelet.vjepa.masks import long_range, short_range
from tubelet.vjepa.optim import OptimConfig
from tubelet.vjepa.parallel import Part
from tubelet.vjepa.positions import Grid
from tubelet.vjepa.predictor import PredictorConfig
from tubelet.vjepa.pretrain import PretrainConfig, build, pretrain, with_objective

RAGGED = MaskingConfig(
    short=replace(short_range(), equalise="ragged"), long=replace(long_range(), equalise="ragged")
)
GRID = Grid(2, 8, 8)


def config(objective="vjepa2", **loop):
    base = PretrainConfig(
        encoder=EncoderConfig(width=24, depth=4, heads=2, patch=4),
        predictor=PredictorConfig(width=12, depth=1, heads=2),
        masks=RAGGED,
        optim=OptimConfig(lr=1e-3),
        loop=LoopConfig(**{"steps": 2, "log_every": 1, "report_every": 2} | loop),
        batch_size=4,
    )
    return replace(with_objective(base, objective), masks=RAGGED)


def video(step, batch=4):
    generator = torch_generator(0, "noise", step)
    return torch.randint(0, 256, (batch, 4, 32, 32, 3), dtype=torch.uint8, generator=generator)


def test_every_token_of_every_sample_is_context_or_target_once():
    drawn = draw(RAGGED, GRID, 6, seed=0, first_sample=12)
    assert [(s.mask_index, s.sample) for s in drawn] == [*itertools.product((0, 1), range(6))]
    for s in drawn:
        together = torch.cat([s.context[0], s.targets[0][0]]).sort().values
        assert torch.equal(together, torch.arange(GRID.size))
    assert len({s.context.shape[1] for s in drawn if s.mask_index == 0}) > 1


@pytest.mark.parametrize("objective", ["vjepa2", "vjepa2.1"])
def test_the_loss_is_that_of_each_sample_by_itself(objective):
    """The packed pass gives the mean of what every clip and mask kind gives alone."""
    model, clips = build(config(objective)), video(0)
    alone = [
        model.objective(model.predict(clips[s.sample : s.sample + 1], GRID, [replaced]))["loss"]
        for s in draw(RAGGED, GRID, 4, seed=model.seed, first_sample=0)
        for replaced in [s._replace(sample=None)]
    ]
    together = model.losses(clips, 0)
    assert torch.allclose(together["loss"], torch.stack(alone).mean(), atol=1e-5)
    assert set(together) >= {"loss", "regress"}


def test_parts_of_a_batch_add_up():
    model, clips = build(config()), video(0)
    halves = [model.losses(clips[i : i + 2], 0, Part(i // 2, 2))["loss"] for i in (0, 2)]
    assert torch.allclose(torch.stack(halves).mean(), model.losses(clips, 0)["loss"], atol=1e-6)


def test_it_trains_and_reports(tmp_path):
    stream = (SimpleNamespace(video=video(step)) for step in itertools.count())
    with RunDir.create(tmp_path / "run", config()) as run:
        pretrain(config(), lambda first: stream, run)
    lines = read_metrics(tmp_path / "run")
    assert any("clip_std" in line for line in lines)
    assert all(line["train/loss"] > 0 for line in lines if "train/loss" in line)


def by_definition(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k):
    """torch.nn.attention.varlen.varlen_attn's contract ``[T, h, d]``, sequence by sequence."""
    assert torch.equal(cu_seq_q, cu_seq_k)
    lengths = cu_seq_q.diff().tolist()
    assert max(lengths) == max_q == max_k
    parts = (x.split(lengths) for x in (q, k, v))
    return torch.cat(
        [
            F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in qkv)).transpose(0, 1)
            for qkv in zip(*parts, strict=True)
        ]
    )


def test_varlen_attention_is_called_with_every_samples_bounds(monkeypatch):
    """On CUDA one kernel serves all sets; here its contract stands in for it."""
    attention = blocks.Attention(24, 2)
    x, sets = torch.randn(1, 26, 24), [(2, 5), (1, 9), (1, 7)]
    wanted = attention(x, sets=sets)
    monkeypatch.setattr(blocks, "_varlen", lambda qkv: True)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", by_definition)
    assert torch.allclose(attention(x, sets=sets), wanted, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the varlen kernel needs CUDA")
def test_varlen_attention_on_cuda():
    attention = blocks.Attention(64, 2).cuda().bfloat16()
    x = torch.randn(1, 26, 64, device="cuda", dtype=torch.bfloat16)
    sets = [(2, 5), (1, 9), (1, 7)]
    wanted = attention.float()(x.float(), sets=sets)
    assert torch.allclose(attention.bfloat16()(x, sets=sets).float(), wanted, atol=0.05)
