"""The head that proposes actions: hindsight pairs by hand, known answers, files and resuming."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.cli.main import main
from tubelet.core.errors import ConfigError, DatasetError
from tubelet.core.latent import Latent
from tubelet.core.rng import torch_generator
from tubelet.core.run import RunDir, read_metrics
from tubelet.datasets.trajectories import TrajectorySet, TrajectoryWriter
from tubelet.datasets.windows import WindowBatch
from tubelet.planning import CEM, CEMConfig, Proposer
from tubelet.vjepa import presets
from tubelet.vjepa.action_predictor import ActionPredictorConfig
from tubelet.vjepa.dynamics import DynamicsConfig, build, dynamics_losses, train_dynamics
from tubelet.vjepa.encoder import EncoderConfig
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.optim import OptimConfig
from tubelet.vjepa.proposer import Proposer as Head
from tubelet.vjepa.proposer import ProposerConfig, hindsight_loss, proposal_loss
from tubelet.vjepa.proposer_recipe import (
    AmortiseConfig,
    Moments,
    amortise,
    encode_moments,
    pair_batches,
    with_proposer,
)
from tubelet.vjepa.recipes import TrainConfig, load_world_model, train_on_trajectories
from tubelet.vjepa.world_model import WorldModelConfig

SIZE, BLOCK = 16, 2
ENCODER = EncoderConfig(width=12, depth=1, heads=1, patch=8)
HEAD = ProposerConfig(width=16, depth=1, chunk=3, reach=4)
LOOP = LoopConfig(steps=6, log_every=1, report_every=3, save_every=2)


def model_config(**changes):
    base = {
        "encoder": EncoderConfig(width=12, depth=1, heads=1, patch=8),
        "predictor": ActionPredictorConfig(width=16, depth=1, heads=2),
        "latent_dim": 4,
        "head_width": 8,
        "image_size": SIZE,
        "action_block": BLOCK,
        "frame_gap": 1,
    }
    return WorldModelConfig(**base | changes)


def dynamics(**changes):
    base = {
        "model": model_config(),
        "horizon": 3,
        "sigreg_slices": 16,
        "cache_stride": 1,
        "batch_size": 8,
        "optim": OptimConfig(lr=1e-3, start_lr=1e-3, final_lr=0.0, warmup=0, clip=0.5),
        "loop": LOOP,
    }
    return DynamicsConfig(**base | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six episodes of a bright square; the action is its next move."""
    root, rng = tmp_path_factory.mktemp("set") / "data", np.random.default_rng(1)
    writer = TrajectoryWriter.create(
        root, fps=10, image_size=SIZE, proprio_dim=2, state_dim=2, action_dim=2, metadata={}
    )
    for number in range(6):
        places = np.cumsum(rng.integers(-1, 2, (15 + number, 2)), 0).clip(0, SIZE - 6)
        frames = np.full((len(places), SIZE, SIZE, 3), 60, np.uint8)
        for frame, (y, x) in zip(frames, places, strict=True):
            frame[y : y + 6, x : x + 6] = 220
        action = np.zeros((len(places), 2), np.float32)
        action[:-1] = np.diff(places, axis=0)
        writer.add_episode(number, frames, places.astype(np.float32), places.astype(float), action)
    writer.finalize()
    return root


@pytest.fixture(scope="module")
def world(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "world"
    train_on_trajectories(
        TrainConfig(data=str(data), out=str(out), train=dynamics(), threads=1, device="cpu")
    )
    return out


def amortising(world, out, **changes):
    base = {
        "model": str(world),
        "out": str(out),
        "proposer": HEAD,
        "stride": 1,
        "batch_size": 16,
        "loop": LOOP,
        "threads": 1,
        "device": "cpu",
    }
    return AmortiseConfig(**base | changes)


# --- the head ---------------------------------------------------------------------------------


def head(**changes):
    torch.manual_seed(0)
    return Head(replace(HEAD, **changes), state_dim=5, goal_dim=4, action_dim=2)


def test_actions_after_the_goal_do_not_count():
    found, wanted = torch.zeros(2, 3, 2), torch.full((2, 3, 2), 7.0)
    wanted[0, 0], wanted[1] = 1.0, 2.0
    steps = torch.tensor([1, 9])
    # one step of error 1, three of error 4
    assert float(proposal_loss(found, wanted, steps)) == pytest.approx((1 + 3 * 4) / 4)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    horizon=st.integers(1, 3),
    count=st.integers(1, 3),
)
def test_proposals_are_the_heads_own_one_by_one_and_stop_at_the_goal(steps, horizon, count):
    net = head().eval()
    generator = torch_generator(0, "p")
    state, goal = (torch.randn(count, n, generator=generator) for n in (5, 4))
    found = net.propose(state, goal, steps, horizon)
    assert found.shape == (count, len(steps), horizon, 2)
    for b, k in itertools.product(range(count), range(len(steps))):
        alone = net(state[b : b + 1], goal[b : b + 1], torch.tensor([steps[k]]))[0, :horizon]
        alone[steps[k] :] = 0
        torch.testing.assert_close(found[b, k], alone)


def test_windows_give_every_moment_and_goal_that_fits():
    """With latents that are their own time and actions that are theirs, the pairs are seen."""
    seen = set()

    class Spy(torch.nn.Module):
        config = HEAD

        def forward(self, state, goal, steps):
            for s, g, k in zip(state[:, 0], goal[:, 0], steps, strict=True):
                assert g - s == k
                seen.add((int(s), int(g)))
            return state[:, :1, None] + torch.arange(3.0)[:, None]  # what was done then

    time = torch.arange(7.0).view(1, 7, 1).expand(64, -1, -1)
    for number in range(10):
        loss = hindsight_loss(
            Spy(), time, time, time[:, :-1], generator=torch_generator(0, "w", number)
        )
        assert loss == 0
    assert seen == {(s, g) for s in range(6) for g in range(s + 1, min(7, s + 5))}


def test_a_head_learns_to_steer_a_known_world():
    """x' = x + u: the least-squares proposal for k steps is the gap over k, and it is learned."""
    net = Head(
        ProposerConfig(width=64, depth=2, chunk=2, reach=4), state_dim=2, goal_dim=2, action_dim=2
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for step in range(400):
        generator = torch_generator(0, "steer", step)
        actions = torch.randn(256, 4, 2, generator=generator)
        start = torch.randn(256, 1, 2, generator=generator)
        path = torch.cat([start, start + actions.cumsum(1)], 1)
        optimizer.zero_grad()
        hindsight_loss(net, path, path, actions, generator=generator).backward()
        optimizer.step()
    net.eval()
    state, goal = torch.randn(2, 200, 2, generator=torch_generator(0, "test"))
    found = net.propose(state, goal, (1, 2, 4), 2).detach()
    for k, steps in enumerate((1, 2, 4)):
        wanted = (goal - state) / steps  # white actions: each has its share of the way
        assert (found[:, k, 0] - wanted).square().mean() < 0.05 * (1 + wanted.square().mean())
    assert not found[:, 0, 1].any()  # over after one step


# --- with a world model -------------------------------------------------------------------------


def windows(first=0, proprio=0):
    for step in itertools.count(first):
        generator = torch_generator(0, "windows", step)
        shape = (8, 4, 2, SIZE, SIZE, 3)
        yield WindowBatch(
            torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
            torch.rand(8, 3, 2 * BLOCK, generator=generator),
            np.zeros(8, np.int64),
            np.zeros((8, 4), np.int64),
            torch.randn(8, 4, proprio, generator=generator) if proprio else None,
        )


@pytest.mark.parametrize("idm", [0.0, 1.0])
def test_a_detached_head_leaves_the_world_model_to_the_bit(tmp_path, idm):
    """Neither its initial weights, nor its gradients, nor the clipping of these."""
    plain = dynamics(idm_weight=idm)
    joint = replace(plain, model=replace(plain.model, proposer=HEAD))
    trained = {}
    for name, config in {"plain": plain, "joint": joint}.items():
        with RunDir.create(tmp_path / name, config) as run:
            trained[name] = train_dynamics(config, windows, run).state_dict()
    same = {k: v for k, v in trained["joint"].items() if not k.startswith("proposer.")}
    assert same.keys() == trained["plain"].keys()
    assert all(torch.equal(v, trained["plain"][k]) for k, v in same.items())
    lines = [line for line in read_metrics(tmp_path / "joint") if "train/proposer" in line]
    assert len(lines) == 6


def test_the_preset_is_end_to_end_with_a_head():
    plain, joint = (presets.world_model(n, ENCODER) for n in ("end_to_end", "amortised"))
    assert replace(joint, model=replace(joint.model, proposer=None)) == plain
    assert joint.model.proposer == ProposerConfig()


@pytest.mark.parametrize("detach", [True, False])
def test_where_the_heads_gradient_goes(detach):
    head_config = replace(HEAD, detach=detach)
    config = dynamics(model=model_config(proposer=head_config, proprio_dim=3))
    model = build(config)
    found = dynamics_losses(model, config, next(windows(proprio=3)), 5)
    plain = dynamics_losses(model, replace(config), next(windows(proprio=3)), 5)
    assert found["loss"] == plain["loss"]
    assert float((found["loss"] - found["proposer"]).detach()) == pytest.approx(
        float((found["teacher"] + found["rollout"] + 0.1 * found["sigreg"]).detach()), rel=1e-5
    )
    found["proposer"].backward()
    assert all(p.grad is not None for p in model.proposer.out.parameters())
    reached = any(p.grad is not None and p.grad.any() for p in model.encoder.parameters())
    assert reached is not detach


def test_a_world_model_with_a_head_is_a_proposer_that_planners_take():
    model = build(dynamics(model=model_config(proposer=HEAD, proprio_dim=3))).eval()
    assert isinstance(model, Proposer)
    batch = next(windows(proprio=3))
    with torch.no_grad():
        context = model.encode(
            {"pixels": batch.observations[:2, 0], "proprio": batch.proprio[:2, :1]}
        )
        goal = model.encode_goal({"pixels": batch.observations[:2, 3, 1]})
        found = model.propose(context, goal, (1, 2, 4), 2)
        z = torch.cat([context.tokens[:, 0, 0], context.proprio[:, 0]], -1)
        alone = model.proposer(z, goal.tokens[:, 0], torch.tensor([4, 4]))
    torch.testing.assert_close(found[:, 2], alone[:, :2])
    planner = CEM(
        CEMConfig(horizon=2, samples=8, elites=2, iterations=1, propose=(1, 4)), model.action_dim
    )
    plan = planner.plan(model, context, goal, generator=torch_generator(0, "plan"))
    assert plan.diagnostics["model_calls"] == 2 * (3 + 8 + 1)
    with pytest.raises(ConfigError, match=r"horizon = 4: the head proposes 1 to 3 model steps"):
        model.propose(context, goal, (1,), 4)
    bare = build(dynamics()).eval()
    with pytest.raises(ConfigError, match="no head that proposes actions: `tubelet amortise`"):
        bare.propose(Latent(z[:, None, None, :4]), goal, (1,), 2)


# --- files ------------------------------------------------------------------------------------


def test_moments_and_pairs_by_hand(world, data):
    model = load_world_model(world)
    trajectories = TrajectorySet.open(data)
    for goals in ("still", "seen"):
        moments = encode_moments(model, trajectories, 2, goals)
        frames = trajectories.cache(SIZE)
        episode, step, ahead = np.array([4, 0]), np.array([6, 8]), np.array([3, 1])
        pairs = moments.pairs(episode, step, ahead, chunk=4)
        for row in range(2):
            first = frames.offsets[episode[row]]
            now, then = first + step[row], first + step[row] + BLOCK * ahead[row]
            pixels = frames.frames[[[now - 1, now]]]
            state = model.encode({"pixels": pixels}).tokens.flatten()
            goal = model.encode_goal({"pixels": frames.frames[[then]]}).tokens.flatten()
            if goals == "seen":
                goal = model.encode({"pixels": frames.frames[[[then - 1, then]]]}).tokens.flatten()
            torch.testing.assert_close(pairs.state[row], state, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(pairs.goal[row], goal, atol=1e-5, rtol=1e-4)
            done = trajectories.arrays()["action"][now:then].reshape(ahead[row], -1)
            assert np.array_equal(pairs.actions[row, : ahead[row]].numpy(), done)
        assert pairs.steps.tolist() == [3, 1]


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    block=st.sampled_from([1, 2, 4]),
    reach=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_pairs_stay_inside_their_episode(lengths, block, reach, seed):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    time = torch.arange(float(starts[-1]))[:, None]
    which = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).float()[:, None]
    both = torch.cat([which, time], 1)
    moments = Moments(
        states=both,
        goals=both,
        offsets=starts,
        actions=time.numpy(),
        starts=starts,
        stride=1,
        block=block,
    )
    batches = pair_batches(
        moments, episodes=range(len(lengths)), chunk=3, reach=reach, batch_size=64, seed=seed
    )
    if max(lengths) <= block:
        with pytest.raises(DatasetError, match="no episode has"):
            next(batches)
        return
    pairs = next(batches)
    assert torch.equal(pairs.state[:, 0], pairs.goal[:, 0])
    assert torch.equal(pairs.goal[:, 1] - pairs.state[:, 1], block * pairs.steps.float())
    assert 1 <= int(pairs.steps.min()) <= int(pairs.steps.max()) <= reach
    counted = pairs.actions[:, 0]  # those of the block that begins at the moment
    assert torch.equal(counted, pairs.state[:, 1:] + torch.arange(float(block)))


def test_the_head_is_added_and_the_world_model_stays(world, tmp_path):
    model = amortise(amortising(world, tmp_path / "a"))
    before, after = load_world_model(world), load_world_model(tmp_path / "a")
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name
    fresh = with_proposer(str(world), HEAD, seed=0).proposer.state_dict()
    moved = [not torch.equal(v, fresh[k]) for k, v in after.proposer.state_dict().items()]
    assert sum(moved) > 5
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in after.state_dict().items())
    errors = json.loads((tmp_path / "a" / "proposals.json").read_text())["error_over_mean"]
    assert list(errors) == ["1", "2", "4"]
    assert all(math.isfinite(v) for v in errors.values())
    # again, from a model that has a head: a fresh one takes its place
    again = with_proposer(str(tmp_path / "a"), replace(HEAD, width=8), seed=0)
    assert again.proposer.config.width == 8


def test_a_run_that_was_stopped_ends_with_the_same_bits(world, tmp_path, monkeypatch):
    whole = amortise(amortising(world, tmp_path / "whole")).state_dict()
    from tubelet.vjepa import proposer_recipe

    draw = proposer_recipe.pair_batches

    def dying(*args, **kwargs):
        for number, batch in enumerate(draw(*args, **kwargs)):
            if number == 3 and "ahead" not in kwargs:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(proposer_recipe, "pair_batches", dying)
    with pytest.raises(KeyboardInterrupt):
        amortise(amortising(world, tmp_path / "cut"))
    monkeypatch.setattr(proposer_recipe, "pair_batches", draw)
    cut = amortise(amortising(world, tmp_path / "cut", resume=True)).state_dict()
    assert all(torch.equal(v, cut[k]) for k, v in whole.items())
    whole, cut = (
        [{k: v for k, v in line.items() if "pace" not in k} for line in read_metrics(tmp_path / n)]
        for n in ("whole", "cut")
    )
    assert whole == cut


def test_the_verb_and_planning_with_what_it_made(world, tmp_path, capsys):
    flags = ["--proposer.width", "16", "--proposer.depth", "1", "--stride", "2"]
    flags += ["--loop.steps", "3", "--device", "cpu", "--threads", "1"]
    out = tmp_path / "head"
    assert main(["amortise", "--model", str(world), "--out", str(out), *flags]) == 0
    assert "by model steps to the goal" in capsys.readouterr().out
    for changes, word in {
        ("--stride", "3"): "stride = 3 does not divide the model's action block 2",
        ("--model", ""): 'model = ""',
    }.items():
        command = ["amortise", "--model", str(world), "--out", str(tmp_path / "no"), *flags]
        assert main([*command, *changes]) == 2
        assert word in capsys.readouterr().err


@pytest.mark.parametrize("name", ["width", "depth", "chunk", "reach"])
def test_impossible_heads_are_named(name):
    with pytest.raises(ConfigError, match=rf"proposer\.{name} = 0"):
        ProposerConfig(**{name: 0})
    with pytest.raises(ConfigError, match=r"held_out = 1\.0"):
        AmortiseConfig(held_out=1.0)
