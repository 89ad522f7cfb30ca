"""The pyramid, the flow head and the model of both: shapes, schedule, gradients, refusals."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError
from tubelet.core.rng import torch_generator
from tubelet.core.run import RunDir, read_metrics
from tubelet.datasets.synthetic.flow_pairs import FlowPairConfig, draw_flow_pair
from tubelet.datasets.views import ViewConfig
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.motion import MotionConfig, MotionModel, PyramidConfig, PyramidEncoder
from tubelet.vjepa.motion.flow_head import FlowHead, FlowHeadConfig, clip_flow
from tubelet.vjepa.motion.flow_metrics import end_point_error
from tubelet.vjepa.motion.losses import FlowLossConfig
from tubelet.vjepa.motion.presets import (
    MOTION_PRESETS,
    debug,
    motion_clips,
    motion_preset,
    small,
)
from tubelet.vjepa.objectives.vicreg import VicregConfig
from tubelet.vjepa.parallel import Part
from tubelet.vjepa.pretrain import PretrainConfig, build, pretrain


def tiny(**changes):
    return replace(debug().motion, **changes)


def clips(step, batch=4, frames=2, side=32):
    generator = torch_generator(0, "clips", step)
    return torch.randint(0, 256, (batch, frames, side, side, 3), generator=generator).byte()


# --- the pyramid --------------------------------------------------------------------------------


def test_every_level_halves_the_one_before():
    config = PyramidConfig(widths=(4, 6, 8), depths=(1, 2, 1), kernel=3)
    levels = PyramidEncoder(config).levels(clips(0)[:, 0])
    assert [tuple(x.shape) for x in levels] == [(4, 4, 16, 16), (4, 6, 8, 8), (4, 8, 4, 4)]


def test_frames_are_encoded_one_by_one_in_the_order_of_time():
    encoder = PyramidEncoder(PyramidConfig(widths=(4, 6, 8), depths=(1, 1, 1), kernel=3)).eval()
    video = clips(0, frames=3)
    tokens = encoder(video)
    assert tokens.shape == (4, 3 * 4 * 4, 8)
    assert torch.allclose(tokens.mean(-1), torch.zeros(()), atol=1e-5)  # layer-normed
    parts = torch.cat([encoder(video[:, t : t + 1]) for t in range(3)], dim=1)
    assert torch.allclose(tokens, parts, atol=1e-5)


@pytest.mark.parametrize(
    ("frames", "height", "width", "named"),
    [(1, 30, 32, "height = 30.*multiple of 8, the nearest: 32"), (1, 32, 4, "width = 4")],
)
def test_sides_that_the_pyramid_does_not_divide(frames, height, width, named):
    config = PyramidConfig(widths=(4, 6, 8), depths=(1, 1, 1))
    with pytest.raises(ConfigError, match=named):
        config.grid(frames, height, width)
    with pytest.raises(ConfigError, match=named):
        PyramidEncoder(config)(torch.zeros(1, frames, height, width, 3, dtype=torch.uint8))


def test_another_type_is_refused():
    with pytest.raises(ConfigError, match="must be uint8"):
        PyramidEncoder(PyramidConfig())(torch.zeros(1, 1, 64, 64, 3))


# --- the flow head ------------------------------------------------------------------------------


def test_the_head_starts_from_no_flow_at_the_levels_that_have_one():
    head = FlowHead(FlowHeadConfig(width=4, depth=1, radius=1, finest=1), (4, 6, 8))
    levels = [torch.randn(2, c, s, s) for c, s in ((4, 16), (6, 8), (8, 4))]
    flows = head(levels, levels)
    assert [tuple(f.shape) for f in flows] == [(2, 2, 8, 8), (2, 2, 4, 4)]
    assert all(f.abs().max() == 0 for f in flows)


def test_flow_is_clipped_to_a_share_of_the_frame():
    flow = torch.tensor([100.0, -100.0]).view(1, 2, 1, 1).expand(1, 2, 4, 8)
    assert clip_flow(flow, 0.5)[0, :, 0, 0].tolist() == [4.0, -2.0]
    assert clip_flow(flow / 100, 0.5)[0, :, 0, 0].tolist() == [1.0, -1.0]


# --- which batch trains what --------------------------------------------------------------------


@given(
    steps=st.integers(1, 60),
    start=st.floats(0, 0.99),
    arm=st.sampled_from(["both", "flow", "content"]),
)
def test_the_counts_before_a_step_are_those_of_the_schedule(steps, start, arm):
    config = tiny(arm=arm, flow_start=start)
    kinds = [config.kind(step, steps) for step in range(steps)]
    for step in range(steps + 1):
        counts = config.before(step, steps)
        assert counts == {k: kinds[:step].count(k) for k in ("flow", "content")}
    if arm == "both":
        late = round(start * steps)
        assert set(kinds[:late]) <= {"content"}
        assert all(a != b for a, b in itertools.pairwise(kinds[late:]))


def test_each_loss_trains_its_own_head_and_the_shared_encoder():
    model = MotionModel(tiny(flow_start=0.0), steps=10)
    for step, own, other in ((0, "head", "expander"), (1, "expander", "head")):
        model.zero_grad(set_to_none=True)
        model.losses(clips(step), step)["loss"].backward()
        reached = {n: [p.grad for p in getattr(model, n).parameters()] for n in (own, other)}
        assert any(g is not None and g.abs().sum() > 0 for g in reached[own])
        assert all(g is None for g in reached[other])
        assert model.encoder.stages[0][0].weight.grad.abs().sum() > 0


def test_the_flow_has_its_weight_beside_content_and_none_alone():
    both = MotionModel(tiny(flow_start=0.0, flow_weight=0.25), steps=4)
    terms = both.losses(clips(0), 0)
    assert torch.allclose(terms["loss"], 0.25 * terms["flow"])
    alone = MotionModel(tiny(arm="flow", flow_weight=0.25), steps=4)
    terms = alone.losses(clips(0), 0)
    assert torch.equal(terms["loss"], terms["flow"])


def test_every_arm_begins_with_the_same_encoder():
    made = [build(replace(debug(), motion=tiny(arm=arm))) for arm in ("both", "flow", "content")]
    states = [model.encoder.state_dict() for model in made]
    assert all(torch.equal(states[0][k], other[k]) for other in states[1:] for k in states[0])
    assert not hasattr(made[1], "expander")
    assert not hasattr(made[2], "head")


def test_frames_are_drawn_for_a_clips_number_whichever_process_holds_it():
    model, video = MotionModel(tiny(), steps=10), clips(3, batch=6, frames=5)
    whole = model._frames(video, 2, 7, Part())
    halves = [model._frames(video[3 * i : 3 * i + 3], 2, 7, Part(i, 2)) for i in range(2)]
    assert torch.equal(whole, torch.cat(halves))
    for clip, taken in zip(video, whole, strict=True):
        assert any(torch.equal(clip[t : t + 2], taken) for t in range(4))


def test_a_model_without_a_head_has_no_flow():
    model = MotionModel(tiny(arm="content"), steps=2)
    with pytest.raises(ConfigError, match="not trained to see flow"):
        model.flow(clips(0)[:, 0], clips(0)[:, 1])


# --- training -----------------------------------------------------------------------------------


def run(folder, resume=False, **loop):
    config = replace(debug(), loop=LoopConfig(steps=7, log_every=1, report_every=3, save_every=2))

    def batches(first):
        for step in itertools.count(first):
            if step == loop.get("stop"):
                raise KeyboardInterrupt
            yield SimpleNamespace(video=clips(step, frames=3))

    with RunDir.create(folder, config, resume=resume) as opened:
        return pretrain(config, batches, opened)


def test_a_run_that_was_killed_ends_with_the_same_bits(tmp_path):
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop=5)
    resumed = run(tmp_path / "cut", resume=True)
    states = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    lines = [read_metrics(tmp_path / name) for name in ("whole", "cut")]
    names = ("train/loss", "train/flow", "train/content", "flow_consistent", "clip_std")
    for name in names:
        courses = [[line.get(name) for line in some] for some in lines]
        assert courses[0] == courses[1]
        assert any(value is not None for value in courses[0])


@pytest.mark.slow
def test_one_translated_texture_is_learnt_to_a_tenth_of_a_pixel():
    """A random texture under a whole shift; trained on this pair alone."""
    whole = draw_flow_pair(FlowPairConfig(size=64, affine=0.0, seed=2), 0).first
    x, y = 2, -1
    first, second = whole[16:48, 16:48], whole[16 - y : 48 - y, 16 - x : 48 - x]
    frames = torch.from_numpy(first.copy())[None], torch.from_numpy(second.copy())[None]
    torch.manual_seed(0)
    motion = MotionConfig(
        arm="flow",
        encoder=PyramidConfig(widths=(8, 16, 16), depths=(1, 1, 1), kernel=3),
        head=FlowHeadConfig(width=16, finest=0),
        losses=FlowLossConfig(smooth=0.1),
    )
    model, video = MotionModel(motion, steps=300), torch.stack(frames, dim=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 300)
        optimizer.zero_grad()
        model.losses(video, step)["loss"].backward()
        optimizer.step()
    truth = torch.tensor([float(x), float(y)]).view(1, 2, 1, 1)
    inner = end_point_error(model.flow(*frames), truth)[:, 2:-2, 2:-2]
    assert inner.mean() < 0.1


# --- presets and refusals -----------------------------------------------------------------------


@pytest.mark.parametrize("name", MOTION_PRESETS)
def test_presets_survive_a_config_file_and_their_clips_fit(name):
    config, wanted = motion_preset(name), motion_clips(name)
    assert from_toml(PretrainConfig, to_toml(config)) == config
    config.motion.check_clips(wanted.frames, wanted.size)


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'mcjepa'"):
        motion_preset("mc-jepa")


def test_the_tiny_preset_is_about_as_large_as_convnext_tiny():
    with torch.device("meta"):
        encoder = PyramidEncoder(motion_preset("mcjepa-tiny").motion.encoder)
    assert 24e6 < sum(p.numel() for p in encoder.parameters()) < 32e6


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: PyramidConfig(widths=(8,), depths=(1,)), "widths = .8,."),
        (lambda: PyramidConfig(widths=(8, 8), depths=(1,)), "depths = .1,."),
        (lambda: PyramidConfig(kernel=4), "kernel = 4: must be odd"),
        (lambda: FlowHeadConfig(radius=0), "head.radius = 0"),
        (lambda: FlowHeadConfig(limit=1.5), "head.limit = 1.5"),
        (lambda: FlowHeadConfig(finest=-1), "head.finest = -1"),
        (lambda: tiny(head=FlowHeadConfig(finest=3)), "head.finest = 3.*3 levels"),
        (lambda: tiny(arm="motion"), 'arm = "motion"'),
        (lambda: tiny(expander=1), "expander = 1"),
        (lambda: tiny(flow_weight=0.0), "flow_weight = 0.0"),
        (lambda: tiny(flow_start=1.0), "flow_start = 1.0"),
        (lambda: tiny(vicreg=VicregConfig(on="online", inv=0)), 'vicreg.on = "online"'),
        (lambda: tiny(views=ViewConfig(global_views=1, local_views=0)), "VICReg compares two"),
        (
            lambda: tiny(views=ViewConfig(global_views=2, local_views=0, global_size=30)),
            "views.global_size = 30",
        ),
        (lambda: tiny().check_clips(1, 32), "clips.frames = 1: flow is between two frames"),
        (lambda: tiny().check_clips(2, 33), "height = 33"),
        (lambda: replace(small(), batch_size=1), "batch_size = 1"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(make, named):
    with pytest.raises(ConfigError, match=named):
        make()


@pytest.mark.parametrize(
    ("loop", "named"),
    [
        ({"log_every": 10}, "log_every = 10.*odd"),
        ({"accumulate": 2}, "accumulate = 2"),
        ({"compile": True}, "compile = true"),
        ({"checkpoint_blocks": True}, "checkpoint_blocks = true"),
        ({"shard": True}, "shard = true"),
    ],
)
def test_loops_that_do_not_fit_are_refused(loop, named):
    with pytest.raises(ConfigError, match=named):
        replace(debug(), loop=replace(debug().loop, **loop))
