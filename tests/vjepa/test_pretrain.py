"""V-JEPA pretraining: its loss by hand, its target encoder, and exact resumption."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tubelet.core.errors import ConfigError
from tubelet.core.rng import torch_generator
from tubelet.core.run import RunDir, read_metrics
from tubelet.vjepa.checkpoint import latest_checkpoint
from tubelet.vjepa.encoder import EncoderConfig
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.masked import MaskedModel, MaskingConfig
from tubelet.vjepa.masks import context_distance, sample_masks
from tubelet.vjepa.multiview import MultiviewConfig, MultiviewModel
from tubelet.vjepa.objectives import PRESETS, preset
from tubelet.vjepa.optim import OptimConfig
from tubelet.vjepa.predictor import PredictorConfig
from tubelet.vjepa.pretrain import (
    PretrainConfig,
    build,
    pretrain,
    with_objective,
)


def objective(momentum=(0.9, 1.0), exponent=1.0):
    base = preset("vjepa2")
    return replace(
        base,
        target=replace(base.target, momentum=momentum),
        regress=replace(base.regress, exponent=exponent),
    )


def config(**changes):
    settings = {
        "encoder": EncoderConfig(width=24, depth=1, heads=2, patch=4),
        "predictor": PredictorConfig(width=12, depth=1, heads=2),
        "optim": OptimConfig(lr=3e-3, start_lr=1e-3),
        "loop": LoopConfig(steps=8, log_every=1, report_every=3, save_every=3),
        "batch_size": 4,
        "objective": objective(),
    }
    return PretrainConfig(**{**settings, **changes})


def video(step, batch=4):
    """Bright squares at random places on a dark ground, moving right: uint8 [B, 4, 16, 16, 3]."""
    generator = torch_generator(0, "video", step)
    top, left = (torch.randint(0, 8, (batch,), generator=generator) for _ in range(2))
    clips = torch.full((batch, 4, 16, 16, 3), 30, dtype=torch.uint8)
    for b, t in itertools.product(range(batch), range(4)):
        clips[b, t, top[b] : top[b] + 6, left[b] + t : left[b] + t + 6] = 220
    return clips


def batches(first):
    return (SimpleNamespace(video=video(step)) for step in itertools.count(first))


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_the_loss_by_hand(exponent):
    cfg = config(objective=objective(exponent=exponent))
    model = build(cfg)
    clips, step = video(0), 5
    got = model.losses(clips, step)["loss"]
    grid = cfg.encoder.grid(4, 16, 16)
    by_hand = []
    for index, (name, kind) in enumerate((("short", cfg.masks.short), ("long", cfg.masks.long))):
        masks = sample_masks(kind, grid, 4, seed=cfg.seed, name=name, first_sample=20)
        context = model.encoder(clips, keep=masks.context)
        predicted = model.predictor(context, masks.context, masks.target, grid, index)
        whole = model.output(clips)
        whole = (whole - whole.mean(-1, keepdim=True)) / (
            whole.var(-1, unbiased=False, keepdim=True) + 1e-5
        ).sqrt()
        wanted = torch.stack([whole[b, masks.target[b]] for b in range(4)])
        by_hand.append(((predicted - wanted).abs() ** exponent).mean() / exponent)
    assert torch.allclose(got, sum(by_hand) / 2, atol=1e-5)


def test_the_target_encoder_starts_equal_and_gets_no_gradient():
    cfg = config()
    model = build(cfg)
    online, target = model.encoder.state_dict(), model.output.state_dict()
    assert model.output is not model.encoder
    assert all(torch.equal(online[name], target[name]) for name in online)
    model.losses(video(0), 0)["loss"].backward()
    assert all(parameter.grad is None for parameter in model.target.parameters())
    for part in (model.encoder, model.predictor):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_targets_are_layer_normed_over_the_whole_clip():
    model = build(config())
    targets = model.targets(video(0))
    assert targets.shape == (4, 32, 24)
    assert not targets.requires_grad
    assert torch.allclose(targets, F.layer_norm(model.output(video(0)), (24,)), atol=1e-6)


def test_weights_come_from_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b, c = build(config()), build(config()), build(config(seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.predictor.embed.weight, b.predictor.embed.weight)
    assert not torch.equal(a.predictor.embed.weight, c.predictor.embed.weight)


def run(folder, cfg=None, resume=False, **changes):
    cfg = cfg or config()
    with RunDir.create(folder, cfg, resume=resume) as opened:
        return pretrain(cfg, batches, opened, **changes)


def metrics(folder):
    return [
        {k: v for k, v in line.items() if not k.startswith("pace/")}
        for line in read_metrics(folder)
    ]


class Cut(BaseException):
    """A power cut."""


def test_a_run_that_was_cut_and_resumed_equals_one_left_alone(tmp_path):
    whole = run(tmp_path / "whole")

    def breaks(clips, generator):
        breaks.calls += 1
        if breaks.calls == 6 * 4:
            raise Cut
        return clips

    breaks.calls = 0
    with pytest.raises(Cut):
        run(tmp_path / "cut", augment=breaks)
    resumed = run(tmp_path / "cut", resume=True)
    a, b = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")


def test_the_target_follows_by_the_scheduled_momentum(tmp_path):
    frozen = run(tmp_path / "frozen", config(objective=objective((1.0, 1.0))))
    start = build(config())
    a, b = frozen.output.state_dict(), start.output.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    copied = run(tmp_path / "copied", config(objective=objective((0.0, 0.0))))
    a, b = copied.output.state_dict(), copied.encoder.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    one = config(objective=objective((0.75, 0.75)), loop=LoopConfig(steps=1))
    after = run(tmp_path / "one", one)
    for name, value in after.output.state_dict().items():
        wanted = 0.75 * start.output.state_dict()[name] + 0.25 * after.encoder.state_dict()[name]
        assert torch.allclose(value, wanted, atol=1e-6)


def test_diagnostics_are_logged_and_finite(tmp_path):
    run(tmp_path / "run", probe=lambda encoder: {"probe/r2": 0.5})
    lines = [line for line in metrics(tmp_path / "run") if "clip_std" in line]
    assert [line["step"] for line in lines] == [0, 3, 6, 7]
    names = {"target_std", "prediction_std", "target_rank", "pixel_r2", "loss_over_mean"}
    assert names | {"probe/r2"} <= lines[0].keys()
    assert all(value is not None for line in lines for value in line.values())


def test_each_clip_is_augmented_by_the_generator_of_its_number(tmp_path):
    seen = []

    def augment(clips, generator):
        assert len(clips) == 1
        seen.append(torch.rand(1, generator=generator).item())
        return clips.flip(3)

    run(tmp_path / "run", config(loop=LoopConfig(steps=3)), augment=augment)
    wanted = [torch.rand(1, generator=torch_generator(0, "augment", n)).item() for n in range(12)]
    assert seen == wanted


@pytest.mark.parametrize("name", ["vjepa2", "vjepa2.1", "ijepa"])
def test_accumulation_is_the_same_step_in_parts(tmp_path, name):
    base = config(encoder=replace(config().encoder, depth=4))
    base = replace(with_objective(base, name), loop=LoopConfig(steps=3, log_every=1))
    halves = replace(base, loop=replace(base.loop, accumulate=2))
    whole, parts = run(tmp_path / "whole", base), run(tmp_path / "parts", halves)
    for a, b in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "parts"), strict=True):
        assert a == pytest.approx(b, rel=2e-4, abs=1e-5)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, atol=3e-4)


@pytest.mark.parametrize("name", ["lejepa", "cjepa", "jedi"])
def test_accumulation_is_refused_where_parts_do_not_add_up(name):
    with pytest.raises(ConfigError, match=r"loop.accumulate = 2: (views|vicreg|feedback)"):
        with_objective(config(loop=LoopConfig(accumulate=2)), name)
    with pytest.raises(ConfigError, match="equal parts"):
        config(loop=LoopConfig(accumulate=3))


def test_a_run_can_start_from_the_weights_and_moments_of_another(tmp_path):
    """Stopped rates make the new run keep what it started with."""
    first = run(tmp_path / "first")
    still = OptimConfig(lr=0.0, start_lr=0.0, final_lr=0.0)
    cfg = config(optim=still, objective=objective((1.0, 1.0)), loop=LoopConfig(steps=1))
    second = run(tmp_path / "second", cfg, start_from=latest_checkpoint(tmp_path / "first"))
    a, b = first.state_dict(), second.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert next(line["step"] for line in metrics(tmp_path / "second")) == 0


def test_training_predicts_better_than_the_mean(tmp_path):
    cfg = config(
        objective=objective((0.99, 0.99)),
        optim=OptimConfig(lr=3e-3, start_lr=1e-3, final_lr=1e-4),
        loop=LoopConfig(steps=120, log_every=200, report_every=200, save_every=200),
    )
    model = run(tmp_path / "run", cfg)
    with torch.no_grad():
        before = build(cfg).report(video(10_000, batch=32), 0)
        after = model.report(video(10_000, batch=32), 0)
    assert after["loss_over_mean"] < 0.8 * before["loss_over_mean"]
    assert after["loss_over_mean"] < 1
    assert after["clip_std"] > 0.1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0"),
        ({"objective": preset("vjepa2.1")}, "levels"),
        ({"predictor": PredictorConfig(levels=4)}, "levels"),
        (
            {"masks": MaskingConfig(), "predictor": PredictorConfig(mask_tokens=1)},
            "for 2 mask kinds",
        ),
        ({"predictor": PredictorConfig(mask_tokens=1)}, "mask_tokens"),
    ],
)
def test_impossible_configs(bad, message):
    with pytest.raises(ConfigError, match=message):
        PretrainConfig(**bad)


def test_clips_the_tubelet_does_not_divide():
    cfg = config()
    with pytest.raises(ConfigError, match="nearest valid height: 16"):
        build(cfg).losses(torch.zeros(4, 4, 17, 16, 3, dtype=torch.uint8), 0)


# --- every objective through the same config and loop -----------------------------------------

PRETRAINING = [name for name in PRESETS if name not in ("lewm", "pldm", "salt")]


def small(name):
    base = config(
        encoder=EncoderConfig(width=24, depth=4, heads=2, patch=4),
        multiview=MultiviewConfig(hidden=32, width=8),
        loop=LoopConfig(steps=3, log_every=1, report_every=2, save_every=2),
        batch_size=6,
    )
    return with_objective(base, name)


def images(first):
    return (SimpleNamespace(video=video(step, 6)[:, :1]) for step in itertools.count(first))


def clips(first):
    return (SimpleNamespace(video=video(step, 6)) for step in itertools.count(first))


@pytest.mark.parametrize("name", PRETRAINING)
def test_every_objective_trains_and_resumes_to_the_same_bits(name, tmp_path):
    cfg = small(name)
    stream = images if cfg.encoder.tubelet == 1 else clips

    def go(folder, cfg, resume=False):
        with RunDir.create(folder, cfg, resume=resume) as opened:
            return pretrain(cfg, stream, opened)

    whole = go(tmp_path / "whole", cfg)
    start = build(cfg).encoder.state_dict()
    assert any(not torch.equal(start[k], v) for k, v in whole.encoder.state_dict().items())
    assert whole.output(next(stream(0)).video).shape[-1] == 24

    class Killed(BaseException):
        pass

    def cut(first):
        for i, batch in enumerate(stream(first)):
            if i == 2:
                raise Killed
            yield batch

    with pytest.raises(Killed), RunDir.create(tmp_path / "cut", cfg) as opened:
        pretrain(cfg, cut, opened)
    resumed = go(tmp_path / "cut", cfg, resume=True)
    a, b = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_frozen_teacher_stays_and_the_student_is_the_output():
    cfg = with_objective(config(), "salt")
    torch.manual_seed(3)
    teacher = build(config(seed=9)).encoder
    model = build(cfg, teacher=teacher)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    model.losses(video(0), 0)["loss"].backward()
    model.after_step(0, 10)
    assert model.output is model.encoder
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    with pytest.raises(ConfigError, match="teacher"):
        build(cfg)


def test_the_dense_loss_of_v_jepa_2_1_by_hand():
    cfg = small("vjepa2.1")
    cfg = replace(
        cfg, objective=replace(cfg.objective, context=replace(cfg.objective.context, warmup=(0, 0)))
    )
    model, clips_ = build(cfg), video(0, 6)
    assert isinstance(model, MaskedModel)
    got = model.losses(clips_, 0)["loss"]
    grid = cfg.encoder.grid(4, 16, 16)
    whole = model.output(clips_, all_levels=True).unflatten(-1, (4, 24))
    whole = F.layer_norm(whole, (24,)).flatten(-2)
    masked, visible = [], []
    for index, (name, kind) in enumerate((("short", cfg.masks.short), ("long", cfg.masks.long))):
        m = sample_masks(kind, grid, 6, seed=cfg.seed, name=name, first_sample=0)
        context = model.encoder(clips_, m.context, all_levels=True)
        job = (context, m.context, m.target, index)
        from tubelet.vjepa.predictor import MaskedJob

        ((target, seen),) = model.predictor.packed([MaskedJob(*job)], grid)
        at = lambda ids: whole.gather(1, ids.unsqueeze(-1).expand(-1, -1, 96))  # noqa: E731
        masked.append((target - at(m.target)).abs().mean())
        weight = context_distance(m.context, m.target, grid).rsqrt().unsqueeze(-1)
        visible.append(((seen - at(m.context)).abs() * weight).mean())
    wanted = sum(masked) / 2 + 0.5 * sum(visible) / 2
    assert torch.allclose(got, wanted, atol=1e-5)


def test_views_are_projected_and_compared():
    model = build(small("lejepa"))
    assert isinstance(model, MultiviewModel)
    latents = model.latents(video(0, 6), 0)
    views = model.config.views
    assert latents.views.shape == (views.global_views + views.local_views, 6, 8)
    assert torch.equal(latents.views, model.latents(video(0, 6), 0).views)
    assert not torch.equal(latents.views, model.latents(video(0, 6), 1).views)


def test_image_masks_need_single_frames_and_their_targets_are_jobs():
    cfg = small("ijepa")
    model = build(cfg)
    latents = model.latents(next(images(0)).video, 0)
    assert len(latents.pred) == cfg.masks.image.targets
    assert all(p.shape == t.shape for p, t in zip(latents.pred, latents.target, strict=True))


def test_world_model_objectives_are_sent_to_the_right_verb():
    with pytest.raises(ConfigError, match="tubelet train"):
        with_objective(config(), "lewm")
    with pytest.raises(ConfigError, match="did you mean 'lejepa'"):
        with_objective(config(), "lejapa")


@pytest.mark.parametrize("name", ["vjepa", "vjepa2"])
def test_the_loss_on_noise_starts_where_layer_normed_targets_put_it(name):
    """A prediction of about zero is off by E|N(0, 1)| = 0.80 from a layer-normed token."""
    cfg = PretrainConfig(
        encoder=EncoderConfig(width=192, depth=6, heads=3, patch=8),
        predictor=PredictorConfig(width=96, depth=4, heads=3),
        objective=preset(name),
    )
    generator = torch_generator(0, "noise")
    noise = torch.randint(0, 256, (2, 4, 64, 64, 3), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        loss = build(cfg).losses(noise, 0)["loss"].item()
    assert 0.80 <= loss <= 0.90
