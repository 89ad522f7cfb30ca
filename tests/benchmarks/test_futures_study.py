"""The forked world and its physics, scores of futures in closed form, pictures, and the study."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tubelet.benchmarks import fork_world as world
from tubelet.benchmarks.fork_world import EDGE, GATE, LIP, PIT, STEP, Oracle, advance, branches
from tubelet.benchmarks.futures_arms import ARMS, ArmConfig, ForkModel, batches, train_arm
from tubelet.benchmarks.futures_metrics import score_futures
from tubelet.benchmarks.futures_pictures import Bank, futures_picture, nearest_frames, save_picture
from tubelet.benchmarks.futures_study import (
    CEILINGS,
    KINDS,
    SIZES,
    FuturesStudyConfig,
    Size,
    drive,
    gate_cases,
    run_futures_study,
    score,
)
from tubelet.core.errors import ConfigError
from tubelet.planning import LatentCost
from tubelet.planning.futures import FuturesConfig, across_futures

# --- the world -----------------------------------------------------------------------------------


def one(x, y, wind, action, coin=0.0):
    return advance(np.array([x, y, wind]), np.array(action), np.array(coin))


def test_what_the_world_does_by_hand():
    assert one(-0.5, 0.2, 0, (1, 0)) == pytest.approx([-0.2, 0.2, 0])
    assert one(-0.5, 0.2, 0, (3, 4)) == pytest.approx([-0.5 + 0.6 * STEP, 0.2 + 0.8 * STEP, 0])
    assert one(-0.1, 0.2, 0, (1, 0)) == pytest.approx([0.2, 0.2, 0])  # calm: through the gate
    assert one(-0.1, 0.2, 1, (1, 0), 0.2) == pytest.approx([LIP, PIT, 1])  # wind: thrown
    assert one(-0.1, 0.2, 1, (1, 0), 0.8) == pytest.approx([LIP, -PIT, 1])
    assert one(0.1, 0.2, 1, (-1, 0), 0.2) == pytest.approx([-LIP, PIT, 1])
    assert one(-0.1, GATE + 0.05, 1, (1, 0), 0.2) == pytest.approx([0.2, GATE + 0.05, 1])
    assert one(LIP, PIT, 1, (1, 0)) == pytest.approx([LIP, PIT, 1])  # a pit is for ever
    assert one(EDGE[0], EDGE[1], 1, (0.7, 0.7)) == pytest.approx([*EDGE, 1])


def test_where_the_line_is_crossed_decides():
    """Down to the right at 45 degrees from x = -0.1: the line is met 0.1 below the start."""
    inside = one(-0.1, GATE + 0.09, 1, (0.7, -0.7), 0.2)
    assert inside[1] == pytest.approx(PIT)
    past = one(-0.1, GATE + 0.11, 1, (0.7, -0.7), 0.2)
    assert past[1] == pytest.approx(GATE + 0.11 - 0.7 * STEP)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_every_walk_is_one_of_its_branches(seed):
    states, actions = world.windows(seed, 0, 40, 4)
    truth, chance = branches(states[:, 0], actions.astype(float))
    gaps = np.abs(truth - states[:, None, 1:]).max(axis=(2, 3))
    assert (np.where(chance > 0, gaps, np.inf).min(axis=1) < 1e-6).all()
    assert np.allclose(chance.sum(axis=1), 1)
    forked = chance[:, 1] > 0
    assert (world.sunk(truth[forked, :, -1])).all()
    assert not world.sunk(truth[~forked, 0, -1])[~world.sunk(states[~forked, 0])].any()


def test_throws_are_fair_and_seen_often_enough():
    states, _ = world.windows(0, 0, 20000, 1)
    thrown = world.sunk(states[:, 1])
    assert 0.02 < thrown.mean() < 0.2
    up = states[thrown, 1, 1] > 0
    assert up.mean() == pytest.approx(0.5, abs=0.05)


def test_the_mean_of_the_branches_is_half_way_and_out_of_the_pits():
    state, action = np.array([[-0.1, 0.2, 1.0]]), np.array([[1.0, 0.0]])
    middle = world.mean_step(state, action)
    assert middle[0] == pytest.approx([LIP, 0, 1])
    assert not world.sunk(middle).any()


def test_observations_there_and_back():
    states = np.random.default_rng(0).uniform(-1, 1, (5, 4, 3))
    seen = world.lift(states)
    assert seen.shape == (5, 4, world.WIDTH)
    assert np.allclose(world.lower(seen), states, atol=1e-5)
    gaps = torch.cdist(seen[0], seen[0])
    assert np.allclose(gaps, 2 * np.linalg.norm(states[0][:, None] - states[0], axis=-1), atol=1e-4)


def test_pictures_of_the_world_show_the_point_the_wind_and_the_pits():
    frames = world.draw(np.array([[-0.6, 0.0, 0], [-0.6, 0.0, 1], [LIP, PIT, 1]]), size=40)
    assert frames.shape == (3, 40, 40, 3)
    red = (frames == (200, 40, 40)).all(axis=-1)
    assert red.sum(axis=(1, 2)).min() > 5
    rows, columns = np.nonzero(red[0])
    assert abs(rows.mean() - 19.5) < 1.5
    assert columns.mean() < 15
    assert np.nonzero(red[2])[0].mean() < 8  # up is up
    assert (frames[0, 5, 3] != frames[1, 5, 3]).any()


def test_the_oracle_imagines_what_happens():
    states, plans = gate_cases("wind", 6, 0)
    truth, _ = branches(states, plans.astype(float))
    context = Oracle().encode({"state": states[:, None]})
    found, weights = Oracle().rollout_futures(context, torch.tensor(plans)[:, None], how="hold")
    assert torch.equal(weights, torch.full((6, 1, 2), 0.5))
    assert np.allclose(world.lower(found.tokens[:, 0, :, :, 0]), truth, atol=1e-5)
    drawn, weights = Oracle().rollout_futures(
        context, torch.tensor(plans)[:, None], how="sample", count=8
    )
    up = world.lower(drawn.tokens[:, 0, :, -1, 0])[..., 1] > 0
    assert (up.sum(axis=1) == 4).all()  # stratified
    mean = Oracle(mean=True).rollout(context, torch.tensor(plans)[:, None])
    assert not world.sunk(world.lower(mean.tokens[:, 0, :, 0])).any()
    with pytest.raises(ConfigError, match="how = 'likely'"):
        Oracle().rollout_futures(context, torch.tensor(plans)[:, None], how="likely")


def test_a_perfect_model_of_the_mean_fails_where_one_of_the_branches_succeeds():
    size = Size(problems=24, cases=1)
    rates = {}
    for name, (rule, how) in CEILINGS.items():
        cost = LatentCost(steps="sum", saturation=0.3)
        pair = across_futures(
            Oracle(mean=name != "oracle"), cost, FuturesConfig(judge=rule, how=how)
        )
        rates[name] = {kind: np.mean(drive(*pair, kind, size, 0)["reached"]) for kind in KINDS}
    assert rates["oracle"]["wind"] > 0.8
    assert rates["oracle of the mean"]["wind"] < 0.2
    assert min(rate["calm"] for rate in rates.values()) > 0.8


# --- scores --------------------------------------------------------------------------------------

TWO = np.array([[[0.0, 1.0], [0.0, -1.0]]])
FAIR = np.array([[0.5, 0.5]])


def scores(futures, weights=None, branches=TWO, chance=FAIR, **changes):
    futures = np.array([futures], float)
    given = np.full(futures.shape[:2], 1 / futures.shape[1]) if weights is None else weights
    found = score_futures(futures, np.array(given), branches, chance, **{"radius": 0.2, **changes})
    return {name: getattr(found, name)[0] for name in ("coverage", "precision", "nll", "excess")}


def test_the_branches_themselves_are_perfect():
    got = scores([(0, 1), (0, -1)])
    assert (got["coverage"], got["precision"]) == (1, 1)
    assert got["nll"] == pytest.approx(math.log(2))
    assert got["excess"] == pytest.approx(0, abs=1e-12)


def test_the_mean_has_neither_coverage_nor_precision():
    got = scores([(0, 0)])
    assert (got["coverage"], got["precision"]) == (0, 0)
    assert got["excess"] == pytest.approx(-math.log(0.01))
    found = score_futures(np.zeros((1, 1, 2)), np.ones((1, 1)), TWO, FAIR, radius=0.2)
    assert (found.missed[0], found.stray[0]) == (1, 1)


def test_one_branch_is_half_of_what_can_happen():
    got = scores([(0, 1)])
    assert (got["coverage"], got["precision"]) == (0.5, 1)
    wanted = -0.5 * (math.log(0.99 + 0.005) + math.log(0.005))
    assert got["nll"] == pytest.approx(wanted)


def test_guesses_everywhere_cover_without_precision():
    got = scores([(0, 1), (0, -1), (5, 5), (-5, 5)])
    assert (got["coverage"], got["precision"]) == (1, 0.5)


def test_weights_and_chances_count():
    chance = np.array([[0.9, 0.1]])
    got = scores([(0, 1), (0, -1)], [[0.9, 0.1]], chance=chance)
    assert got["excess"] == pytest.approx(0, abs=1e-12)
    wrong = scores([(0, 1), (0, -1)], [[0.1, 0.9]], chance=chance)
    kl = 0.9 * math.log(0.9 / (0.099 + 0.009)) + 0.1 * math.log(0.1 / (0.891 + 0.001))
    assert wrong["excess"] == pytest.approx(kl)
    assert scores([(0, 1)], chance=chance)["coverage"] == 0.9
    ghost = scores([(0, 1), (9, 9)], [[1.0, 0.0]], chance=np.array([[1.0, 0.0]]))
    assert (ghost["coverage"], ghost["precision"]) == (1, 1)
    assert ghost["excess"] == pytest.approx(0, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(1, 6), radius=st.floats(0.05, 1.0))
def test_scores_are_shares_and_more_radius_never_hurts(seed, number, radius):
    rng = np.random.default_rng(seed)
    futures, weights = rng.normal(size=(3, number, 2)), rng.dirichlet(np.ones(number), 3)
    true, chance = rng.normal(size=(3, 2, 2)), rng.dirichlet(np.ones(2), 3)
    small, large = (
        score_futures(futures, weights, true, chance, radius=r) for r in (radius, 2 * radius)
    )
    for name in ("coverage", "precision"):
        a, b = getattr(small, name), getattr(large, name)
        assert (a >= 0).all()
        assert (b <= 1 + 1e-9).all()
        assert (a <= b + 1e-12).all()
    order = rng.permutation(number)
    again = score_futures(futures[:, order], weights[:, order], true, chance, radius=radius)
    assert np.allclose(again.nll, small.nll)
    assert np.allclose(again.stray, small.stray)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"radius": 0.0}, "radius = 0.0"),
        ({"floor": 1.0}, "floor = 1.0"),
        ({"weights": [[0.4]]}, "weights must be 0 or more, and sum to 1"),
        ({"chance": np.array([[0.5, 0.4]])}, "probabilities must be"),
        ({"chance": np.array([[1.0]])}, "probabilities"),
        ({"branches": np.zeros((1, 2, 3))}, "of the same cases and coordinates"),
    ],
)
def test_scores_of_what_does_not_fit(bad, message):
    with pytest.raises(ConfigError, match=message):
        scores([(0, 1)], **bad)


# --- pictures ------------------------------------------------------------------------------------


def bank():
    frames = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((4, 2, 3, 3), np.uint8)
    return Bank(frames=frames, latents=torch.tensor([[[0.0, 0]], [[1, 0]], [[0, 1]], [[5, 5]]]))


def test_the_nearest_frame_and_how_far_it_was():
    shown = nearest_frames(bank(), torch.tensor([[[[0.9, 0.1]], [[4.0, 5.0]]]]))
    assert shown.number.tolist() == [[1, 3]]
    assert shown.frames.shape == (1, 2, 2, 3, 3)
    assert (shown.frames[0, 1] == 3).all()
    assert shown.distance[0] == pytest.approx([0.1, math.sqrt(0.5)], rel=1e-4)


def test_a_page_of_futures(tmp_path):
    start = np.full((8, 6, 3), 9, np.uint8)
    futures = np.stack([np.full((3, 8, 6, 3), 50 * f, np.uint8) for f in range(2)])
    page = futures_picture(start, futures, np.array([0.5, 0.5]), scale=2)
    assert page.shape == (2 * (16 + 2) - 2, 4 * (12 + 2) - 2, 3)
    assert (page[0, 0] == 9).all()
    assert (page[18, 14] == 50).all()
    assert (page[15, :6] == (40, 160, 90)).all()  # half the width: half as probable
    assert (page[15, 6:12] == 255).all()
    save_picture(tmp_path / "deep" / "page.png", page)
    assert np.array_equal(np.array(Image.open(tmp_path / "deep" / "page.png")), page)


def test_pictures_of_what_does_not_fit():
    with pytest.raises(ConfigError, match="at least one"):
        Bank(frames=np.zeros((2, 2, 2, 3), np.uint8), latents=torch.zeros(3, 1, 2))
    with pytest.raises(ConfigError, match="frames are float64"):
        Bank(frames=np.zeros((2, 2, 2, 3)), latents=torch.zeros(2, 1, 2))
    with pytest.raises(ConfigError, match="not of the bank's"):
        nearest_frames(bank(), torch.zeros(5, 1, 3))
    with pytest.raises(ConfigError, match="give"):
        futures_picture(np.zeros((8, 6, 3), np.uint8), np.zeros((2, 3, 4, 6, 3), np.uint8))


# --- arms and study ------------------------------------------------------------------------------


def test_controls_are_trained_on_the_same_steps_without_their_context():
    config = ArmConfig(batch=6, horizon=3)
    true = next(batches(ARMS["codes"], config, 0, 5))
    for name in ("shuffled context", "no context"):
        got = next(batches(ARMS[name], config, 0, 5))
        assert got.observations.shape == (18, 2, 1, world.WIDTH)
        targets = true.observations[:, 1:].flatten(0, 1)
        assert torch.equal(got.observations[:, 1], targets)
        own = true.observations[:, :-1].flatten(0, 1)
        if name == "no context":
            assert not got.observations[:, 0].any()
            assert not got.actions.any()
        else:
            assert torch.equal(got.observations[:, 0].sort(0).values, own.sort(0).values)
            assert not (got.observations[:, 0] == own).flatten(1).all(dim=1).any()
            assert torch.equal(got.actions, true.actions.flatten(0, 1)[:, None])


def test_a_blind_model_imagines_the_same_wherever_it_is(tmp_path):
    config = ArmConfig(steps=2, batch=8, width=12, depth=1)
    dynamics = ForkModel(train_arm("no context", config, tmp_path / "run", 0), blind=True)
    states, plans = gate_cases("wind", 4, 0)
    found, weights = dynamics.rollout_futures(
        dynamics.encode({"state": states[:, None]}), torch.tensor(plans)[:, None], how="sample"
    )
    assert found.tokens.shape == (4, 1, 8, 3, 1, world.WIDTH)
    assert torch.allclose(found.tokens, found.tokens[:1].expand_as(found.tokens), atol=1e-6)
    assert torch.allclose(weights.sum(dim=2), torch.ones(4, 1))


def test_all_cases_in_wind_fork_and_none_in_calm():
    for kind in KINDS:
        states, plans = gate_cases(kind, 30, 1)
        forks = branches(states, plans.astype(float))[1][:, 1] > 0
        assert forks.all() == (kind == "wind")
        assert forks.any() == (kind == "wind")


class Perfect(ForkModel):
    """The world in the place of a model."""

    def __init__(self):
        self.oracle = Oracle()

    def rollout_futures(self, context, actions, *, how, count=8, seed=0):
        return self.oracle.rollout_futures(context, actions, how=how, count=count, seed=seed)


def test_the_world_scores_perfectly():
    for kind in KINDS:
        got = score(Perfect(), kind, Size(problems=1, cases=20), 0)
        assert (got["coverage"], got["precision"]) == (1, 1)
        assert got["excess"] == pytest.approx(0, abs=1e-6)
        assert got["missed"] < 1e-5


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    config = FuturesStudyConfig(preset="debug", out=str(out), seeds=2)
    return out, config, run_futures_study(config)


@pytest.mark.slow
def test_the_study_leaves_scores_tables_and_a_picture(study):
    out, _, tables = study
    futures, plans = tables
    assert {row[0] for row in futures.rows} == set(ARMS)
    assert {row[0] for row in plans.rows} == {*CEILINGS, "random actions", *ARMS} - {"no context"}
    assert all(row[2] == 2 * SIZES["debug"].problems for row in plans.rows)
    assert (out / "futures.png").stat().st_size > 1000
    assert "− deterministic" in (out / "tables.md").read_text("utf-8")
    stored = json.loads((out / "scores" / "codes-1.json").read_text("utf-8"))
    assert set(stored["plans"]) == {"likely", "expected", "worst", "optimistic"}


def test_the_study_goes_on_where_it_stopped(study):
    out, config, tables = study
    victim = out / "scores" / "codes-1.json"
    before = json.loads(victim.read_text("utf-8"))
    kept = (out / "scores" / "gaussian-0.json").stat().st_mtime_ns
    victim.unlink()
    again = run_futures_study(config)
    assert (out / "scores" / "gaussian-0.json").stat().st_mtime_ns == kept
    after = json.loads(victim.read_text("utf-8"))
    assert (after["futures"], after["plans"]) == (before["futures"], before["plans"])
    assert [table.rows for table in again] == [table.rows for table in tables]


def test_a_study_of_other_settings_is_refused(study, monkeypatch):
    _, config, _ = study
    other = Size(problems=4, cases=10, training=SIZES["debug"].training)
    monkeypatch.setitem(SIZES, "debug", other)
    with pytest.raises(ConfigError, match="problems = 3, not 4"):
        run_futures_study(config)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"arms": ("code",)}, "no 'code'; did you mean 'codes'"),
        ({"arms": ()}, "arms = "),
        ({"seeds": 0}, "seeds = 0"),
        ({"preset": "huge"}, "preset = 'huge'"),
    ],
)
def test_impossible_studies(bad, message):
    with pytest.raises(ConfigError, match=message):
        FuturesStudyConfig(**bad)
