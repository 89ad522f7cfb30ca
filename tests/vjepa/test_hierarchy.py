"""Slower clocks: what they read and predict, what may change in training, and what is refused."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.cli.main import main
from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError, DatasetError
from tubelet.core.latent import Latent
from tubelet.core.rng import torch_generator
from tubelet.core.run import RunDir
from tubelet.datasets.windows import WindowBatch
from tubelet.planning import MacroDynamics
from tubelet.vjepa.action_predictor import ActionPredictorConfig
from tubelet.vjepa.checkpoint import latest_checkpoint, load_checkpoint
from tubelet.vjepa.dynamics import DynamicsConfig, build, dynamics_losses, latent_report, latents
from tubelet.vjepa.encoder import EncoderConfig
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.hierarchy import MacroEncoder, hierarchy_of
from tubelet.vjepa.hierarchy_config import HierarchyConfig
from tubelet.vjepa.hierarchy_recipe import above, sample_chunks, train_levels
from tubelet.vjepa.optim import OptimConfig
from tubelet.vjepa.train_recipe import TrainConfig, load_world_model
from tubelet.vjepa.world_model import WorldModelConfig

PREDICTOR = ActionPredictorConfig(width=16, depth=1, heads=2)


def config(strides=(2, 2), *, horizon=4, proprio=0, steps=6, model=None, **hierarchy):
    return DynamicsConfig(
        model=WorldModelConfig(
            encoder=EncoderConfig(width=12, depth=1, heads=1, patch=8),
            predictor=PREDICTOR,
            latent_dim=4,
            head_width=8,
            image_size=16,
            action_block=1,
            proprio_dim=proprio,
        ),
        hierarchy=HierarchyConfig(
            **{
                "strides": strides,
                "macro_dim": 2,
                "encoder_width": 16,
                "encoder_depth": 1,
                "predictor": PREDICTOR,
                "buffer": 32,
                **hierarchy,
            }
        ),
        horizon=horizon,
        cache_stride=1,
        batch_size=16,
        sigreg_slices=16,
        optim=OptimConfig(lr=3e-3, start_lr=3e-3, final_lr=0.0, warmup=0, clip=1.0),
        loop=LoopConfig(steps=steps, log_every=1, report_every=5, save_every=3),
    )


def perturbed(model):
    """Predictors start as copies of their input: move them away from that."""
    generator = torch_generator(0, "perturb")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def latent_windows(first=0, horizon=4, seed=0):
    """Latents that walk: z' = z + B a, with a fixed B."""
    mixing = torch.randn(2, 4, generator=torch_generator(0, "mixing"))
    for step in itertools.count(first):
        generator = torch_generator(seed, "windows", step)
        actions = torch.rand(16, horizon, 2, generator=generator) * 2 - 1
        start = torch.randn(16, 1, 4, generator=generator)
        z = torch.cat([start, start + (actions @ mixing).cumsum(1)], 1)[:, :, None]
        where = np.zeros(16, np.int64), np.zeros((16, horizon + 1), np.int64)
        yield WindowBatch(z.half(), actions, *where)


def chunks(cfg, count=20):
    generator = torch_generator(0, "chunks")
    return [torch.rand(count, h, 2, generator=generator) * 2 - 1 for h in cfg.hierarchy.lengths]


@pytest.mark.parametrize("encoder", ["mlp", "transformer"])
def test_losses_by_hand_at_both_clocks(encoder):
    cfg = config(encoder=encoder, teacher_weight=0.5, rollout_weight=2.0)
    model = perturbed(build(cfg)).eval()
    batch = next(latent_windows())
    z, total = batch.observations.float(), 0.0
    got = hierarchy_of(model).losses(z, batch.actions, 0)
    for number, (level, length) in enumerate(zip(hierarchy_of(model), (2, 4), strict=True), 2):
        steps = 4 // length
        macros = torch.stack(
            [level.encoder(batch.actions[:, k * length : (k + 1) * length]) for k in range(steps)],
            1,
        )
        assert macros.shape == (16, steps, 2)
        true = [z[:, k * length] for k in range(steps + 1)]
        imagined, teacher, rollout = true[:1], [], []
        for k in range(steps):
            seen = torch.stack(true[: k + 1], 1)
            teacher.append(level.predictor(seen, macros[:, : k + 1])[:, -1] - true[k + 1])
            imagined.append(level.predictor(torch.stack(imagined, 1), macros[:, : k + 1])[:, -1])
            rollout.append(imagined[-1] - true[k + 1])
        want = {
            name: torch.stack(e).abs().mean()
            for name, e in {"teacher": teacher, "rollout": rollout}.items()
        }
        for name, value in want.items():
            assert torch.allclose(got[f"level{number}_{name}"], value, atol=1e-5)
        total = total + 0.5 * want["teacher"] + 2.0 * want["rollout"]
    assert torch.allclose(got["loss"], total, atol=1e-5)


def test_a_macro_action_knows_the_order_of_its_actions():
    for kind in ("mlp", "transformer"):
        torch.manual_seed(0)
        encoder = MacroEncoder(config(encoder=kind).hierarchy, 3, 2)
        actions = torch.randn(5, 3, 2)
        assert encoder(actions).shape == (5, 2)
        assert not torch.allclose(encoder(actions), encoder(actions.flip(1)), atol=1e-6)
        with pytest.raises(ConfigError, match=r"\[h, A\] = \[3, 2\]"):
            encoder(actions[:, :2])


def test_levels_are_dynamics_to_planners():
    cfg = config(proprio=3)
    model = perturbed(build(cfg)).eval()
    assert [level.length for level in model.levels] == [2, 4]
    z, felt = torch.randn(2, 1, 1, 4), torch.randn(2, 1, 3)
    for level, inner in zip(model.levels, hierarchy_of(model), strict=True):
        assert isinstance(level, MacroDynamics)
        assert level.macros().shape == (0, 2)
        macros = torch.randn(2, 5, 3, 2)
        got = level.rollout(Latent(z, felt), macros)
        assert got.tokens.shape == (2, 5, 3, 1, 4)
        joined = torch.cat([z, felt[:, :, None]], -1)
        want = inner.predictor.rollout(joined, macros[:, 1])
        assert torch.allclose(got.tokens[:, 1], want[..., :4], atol=1e-5)
        assert torch.allclose(got.proprio[:, 1], want[..., 0, 4:], atol=1e-5)
        assert level.candidate_bytes(3) > level.candidate_bytes(1) > 0


def test_the_buffer_holds_macro_actions_of_the_encoder_as_it_is():
    cfg = config()
    model = build(cfg)
    given = chunks(cfg, 50)
    hierarchy_of(model).fill(given)
    for level, inner, some in zip(model.levels, hierarchy_of(model), given, strict=True):
        assert torch.allclose(level.macros(), inner.encoder(some[:32]), atol=1e-6)
        with torch.no_grad():
            inner.encoder.head.weight.mul_(2)
        assert torch.allclose(level.macros(), inner.encoder(some[:32]), atol=1e-6)
    with pytest.raises(ConfigError, match="chunks of shape"):
        hierarchy_of(model).fill([some[:0] for some in given])
    with pytest.raises(ConfigError, match="1 levels for a model with 2"):
        hierarchy_of(model).fill(given[:1])


def trained(tmp_path, name, cfg, below, *, dies_at=None):
    def batches(first):
        for step, batch in enumerate(latent_windows(first), first):
            if step == dies_at:
                raise KeyboardInterrupt
            yield batch

    with RunDir.create(tmp_path / name, cfg, resume=True) as run:
        return train_levels(
            cfg,
            batches,
            run,
            model=above(cfg, below),
            chunks=chunks(cfg),
            held_out=lambda: itertools.islice(latent_windows(seed=1), 2),
        )


def test_level_1_stays_as_it_is_and_the_levels_learn(tmp_path):
    cfg = config(steps=80, rollout_weight=0.0)
    optim = replace(cfg.optim, lr=1e-2, start_lr=1e-2)
    loop = replace(cfg.loop, save_every=80, report_every=80, log_every=80)
    cfg = replace(cfg, loop=loop, optim=optim)
    below = perturbed(build(replace(cfg, hierarchy=HierarchyConfig())))
    before = {k: v.clone() for k, v in below.state_dict().items()}
    with RunDir.create(tmp_path / "run", cfg) as run:
        model = train_levels(
            cfg,
            lambda first: latent_windows(first),
            run,
            model=above(cfg, below),
            chunks=chunks(cfg),
        )
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    held = [
        (b.observations.float(), b.actions) for b in itertools.islice(latent_windows(seed=1), 4)
    ]
    report = latent_report(model, held)
    for level in (2, 3):
        assert report[f"level{level}_over_copy"] < 0.75
        assert report[f"level{level}_shuffled"] > 1.3
    ratio = report["level2_over_copy_H"] / report["over_copy_H"]
    assert report["level2_over_level1_H"] == pytest.approx(ratio)
    loaded = load_world_model(tmp_path / "run")
    assert all(torch.equal(v, after[k]) for k, v in loaded.state_dict().items())
    start = Latent(torch.randn(2, 1, 1, 4))
    macros = torch.randn(2, 3, 2, 2)
    for level, own in zip(loaded.levels, model.levels, strict=True):
        assert torch.equal(level.macros(), own.macros())
        with torch.no_grad():
            ways = [of.rollout(start, macros).tokens for of in (level, own)]
        assert torch.allclose(*ways, atol=1e-5)


def test_a_killed_run_of_levels_resumes_to_the_bit(tmp_path):
    cfg = config()
    below = perturbed(build(replace(cfg, hierarchy=HierarchyConfig())))
    whole = trained(tmp_path, "whole", cfg, below)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, "cut", cfg, below, dies_at=4)
    assert latest_checkpoint(tmp_path / "cut").name == "step-00000003"
    cut = trained(tmp_path, "cut", cfg, below)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, cut.state_dict()[key]), key


def test_joint_training_reaches_level_1_and_frozen_does_not():
    frames = torch.randint(0, 256, (16, 5, 2, 16, 16, 3), dtype=torch.uint8)
    batch = replace(next(latent_windows()), observations=frames)
    cfg = config(first="joint", strides=(2,))
    model = perturbed(build(cfg)).train()
    got = dynamics_losses(model, cfg, batch, 0)
    plain = dynamics_losses(model, cfg, batch, 0)
    z = latents(model, batch, frozen=False)
    slow = hierarchy_of(model).losses(z, batch.actions, 0)
    assert torch.allclose(
        got["loss"],
        plain["teacher"] + plain["rollout"] + 0.1 * plain["sigreg"] + slow["loss"],
        atol=1e-4,
    )
    slow["loss"].backward()
    assert model.encoder.blocks[0].attn.proj.weight.grad.abs().sum() > 0
    frozen = above(config(strides=(2,)), build(replace(cfg, hierarchy=HierarchyConfig())))
    names = {name.split(".")[0] for name, p in frozen.named_parameters() if p.requires_grad}
    assert names == {"hierarchy"}


def test_chunks_are_actions_of_single_episodes():
    actions = np.arange(20, dtype=np.float32)[:, None].repeat(2, 1)
    offsets = np.array([0, 9, 12, 20])
    got = sample_chunks(actions, offsets, range(3), length=2, block=3, count=100, seed=0)
    firsts = got[:, 0, 0].tolist()
    assert firsts == [0, 1, 2, 12, 13]  # the second episode is too short; last actions lead nowhere
    assert torch.equal(got[0], torch.tensor([[0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]]).float())
    assert len(sample_chunks(actions, offsets, range(3), length=2, block=3, count=2, seed=0)) == 2
    with pytest.raises(DatasetError, match="the 7 frames of a chunk"):
        sample_chunks(actions, offsets, [1], length=2, block=3, count=2, seed=0)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"strides": (2, 3), "horizon": 8}, r"horizon = 8: a step of level 3 takes 6 .*nearest: 6"),
        ({"strides": (4,), "horizon": 6}, r"horizon = 6: .*hierarchy.strides"),
        ({"strides": (1,)}, r"hierarchy.strides = \(1,\)"),
        ({"macro_dim": 0}, "hierarchy.macro_dim = 0"),
        ({"buffer": 0}, "hierarchy.buffer = 0"),
        ({"encoder": "transformer", "encoder_width": 20}, "hierarchy.encoder_width = 20"),
        ({"teacher_weight": 0.0, "rollout_weight": 0.0}, "hierarchy.teacher_weight"),
        ({"rollout_weight": float("nan")}, "hierarchy.rollout_weight"),
    ],
)
def test_impossible_hierarchies_are_refused_when_built(changes, names):
    with pytest.raises(ConfigError, match=names):
        config(**changes)


def test_configs_with_levels_survive_a_file():
    cfg = config()
    assert from_toml(DynamicsConfig, to_toml(cfg)) == cfg
    with pytest.raises(ConfigError, match="level1"):
        TrainConfig(level1="runs/x")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("hjepa")
    flags = ["--episodes", "5", "--steps", "30", "--image-size", "32", "--workers", "1"]
    assert (
        main(["collect", "--env", "tubelet/PointMaze-v0", "--out", str(root / "data"), *flags]) == 0
    )
    quick = ["--train.batch-size", "4", "--device", "cpu", "--threads", "1"]
    quick += ["--train.loop.steps", "4", "--train.loop.save-every", "2"]
    first = ["--preset", "end_to_end", "--train.model.image-size", "32", "--train.horizon", "2"]
    where = ["--data", str(root / "data"), "--out", str(root / "one")]
    assert main(["train", *first, *where, *quick]) == 0
    return root, quick


def hjepa(root, quick, out, *flags):
    where = ["--data", str(root / "data"), "--out", str(root / out)]
    small = ["--train.hierarchy.strides", "2", "--train.horizon", "4"]
    return main(["train", "--preset", "hjepa", *where, *small, *quick, *flags])


def test_the_preset_trains_resumes_and_plans_from_the_command_line(data, capsys):
    root, quick = data
    level1 = ["--level1", str(root / "one")]
    assert hjepa(root, quick, "levels", *level1) == 0
    report = json.loads((root / "levels" / "prediction.json").read_text())
    assert {"over_copy", "level2_over_copy", "level2_over_level1_H"} <= report.keys()
    model = load_world_model(root / "levels")
    assert [level.macros().shape[1] for level in model.levels] == [4]
    load_checkpoint(latest_checkpoint(root / "levels"), model=model)
    one = load_world_model(root / "one")
    assert all(torch.equal(model.state_dict()[k], v) for k, v in one.state_dict().items())
    assert hjepa(root, quick, "levels", *level1, "--resume") == 0
    plan = ["plan", "--model", str(root / "levels"), "--env", "tubelet/PointMaze-v0"]
    plan += ["--planner", "hierarchical", "--episodes", "2", "--budget", "10", "--films", "0"]
    plan += ["--hierarchical.horizon", "2", "--hierarchical.samples", "6", "--hierarchical.elites"]
    plan += ["3", "--hierarchical.iterations", "1", "--hierarchical.macro.samples", "6"]
    plan += ["--hierarchical.macro.elites", "3", "--hierarchical.macro.horizon", "2"]
    plan += ["--device", "cpu", "--threads", "1", "--out", str(root / "plan")]
    assert main(plan) == 0
    rows = [json.loads(p.read_text())["value"] for p in (root / "plan" / "results").glob("*.json")]
    calls = {row["name"]: row["model_calls"] for row in rows}
    assert {"levels", "simulator oracle", "untrained model", "no action"} <= calls.keys()
    assert calls["levels"] > 0
    capsys.readouterr()
    assert main([*plan[:2], str(root / "one"), *plan[3:-1], str(root / "refused")]) == 2
    assert "has no levels" in capsys.readouterr().err


def test_what_the_command_line_refuses(data, capsys):
    root, quick = data
    assert hjepa(root, quick, "no") == 2
    assert 'level1 = ""' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        hjepa(root, quick, "no", "--level1", str(root / "one"), "--train.horizon", "5")
    assert "horizon = 5" in capsys.readouterr().err
    joint = ["--train.hierarchy.first", "joint", "--train.model.image-size", "32"]
    assert hjepa(root, quick, "joint", *joint) == 0
    assert len(load_world_model(root / "joint").levels) == 1
    assert hjepa(root, quick, "no", "--level1", str(root / "joint")) == 2
    assert "has levels already" in capsys.readouterr().err
