"""The goal-reaching suite: rows that fit together, kept results, images as video gives them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.benchmarks import suite
from tubelet.benchmarks.results import load_results
from tubelet.core.errors import ConfigError
from tubelet.datasets.video_writer import as_stored
from tubelet.envs.factors import FactorConfig
from tubelet.planning import PLANNERS
from tubelet.vjepa import presets, world_presets
from tubelet.vjepa.world_model import WorldModel

ENV = "tubelet/Reacher-v0"
QUICK = replace(suite.CEM_CONFIG, horizon=2, samples=6, iterations=1, elites=3)


@pytest.fixture(scope="module")
def model():
    config = world_presets.end_to_end(presets.debug().encoder).model
    torch.manual_seed(0)
    return WorldModel(replace(config, image_size=32)).eval()


class Eye:
    """An agent that keeps what it is shown."""

    def reset(self, goal_obs, *, problems):
        self.goal, self.problems = goal_obs, list(problems)

    def act(self, obs):
        self.obs = obs
        return np.zeros((len(self.problems), 1, 2), np.float32)


def test_stored_pixels_change_images_and_nothing_else():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), np.uint8)
    proprio = np.ones((2, 3, 4), np.float32)
    eye = Eye()
    agent = suite.StoredPixels(eye)
    agent.reset({"pixels": pixels[:, 0]}, problems=[4, 5])
    actions = agent.act({"pixels": pixels, "proprio": proprio})
    assert np.array_equal(eye.goal["pixels"], as_stored(pixels[:, 0]))
    assert np.array_equal(eye.obs["pixels"], as_stored(pixels))
    assert eye.obs["proprio"] is proprio
    assert eye.problems == [4, 5]
    assert actions.shape == (2, 1, 2)
    assert not hasattr(agent, "records")  # so that no model calls are reported for it


def test_a_model_agent_plans_held_actions_of_the_models_block(model):
    agent = suite.model_agent(model, search=QUICK)
    frames = np.zeros((3, 2, 32, 32, 3), np.uint8)
    agent.reset({"pixels": frames[:, 0]}, problems=range(3))
    actions = agent.act({"pixels": frames})
    block = model.config.action_block
    assert actions.shape == (3, block, 2)
    assert np.array_equal(actions, np.repeat(actions[:, :1], block, 1))
    assert len(agent.records) == 1
    free = suite.model_agent(model, search=QUICK, mpc=replace(suite.MPC_CONFIG, hold=False))
    free.reset({"pixels": frames[:, 0]}, problems=range(3))
    assert np.ptp(free.act({"pixels": frames}), axis=1).max() > 0


def test_fresh_models_differ_from_the_trained_one_and_leave_global_randomness_alone(model):
    state = torch.get_rng_state()
    first, again = suite.fresh_model(model, seed=1), suite.fresh_model(model, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.config == model.config
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.predictor.embed.weight, model.predictor.embed.weight)


def test_episode_sets_are_drawn_once_and_must_be_what_is_asked_for(tmp_path):
    path = tmp_path / "near.npz"
    args = {"seed": 3, "budget": 6, "near_steps": 10}
    drawn = suite.episode_set(path, ENV, "near", 3, **args)
    again = suite.episode_set(path, ENV, "near", 3, **args)
    assert drawn.sha256 == again.sha256
    assert drawn.kind == "near"
    with pytest.raises(ConfigError, match="remove it or name another folder"):
        suite.episode_set(path, ENV, "near", 4, **args)
    with pytest.raises(ConfigError, match="remove it"):
        suite.episode_set(path, ENV, "far", 3, **args)


def test_all_rows_run_and_are_kept(model, tmp_path):
    episodes = suite.episode_set(tmp_path / "far.npz", ENV, "far", 2, seed=0, budget=5)
    block = model.config.action_block
    methods = [
        suite.model_method("mine", model, seed=0, search=QUICK),
        suite.model_method("mine", model, seed=1, search=QUICK),
        suite.oracle_method(ENV, action_block=block, search=QUICK),
        *suite.standard_floors(budget=5, action_dim=2, untrained=model, search=QUICK),
    ]
    results = suite.run_goal_reaching(tmp_path, methods, episodes, image_size=32, films=1)
    assert [(r.name, r.seed) for r in results] == [(m.name, m.seed) for m in methods]
    roles = [r.role for r in results]
    assert (roles.count("model"), roles.count("ceiling"), roles.count("floor")) == (2, 1, 4)
    assert [r.privileged for r in results].count(True) == 1
    assert results[0].model_calls is not None
    assert results[3].model_calls is None
    assert all(not r.films for r in results if r.role == "floor")
    assert np.array_equal(results[0].success, results[1].success)  # one model under two seeds
    assert len(load_results(tmp_path)) == len(methods)

    kept = suite.run_goal_reaching(
        tmp_path, [replace(m, agent=None) for m in methods], episodes, image_size=32
    )
    assert all(np.array_equal(a.success, b.success) for a, b in zip(results, kept, strict=True))


def test_two_rows_of_one_name_and_seed_are_refused(tmp_path):
    episodes = suite.episode_set(tmp_path / "far.npz", ENV, "far", 2, seed=0, budget=5)
    floors = suite.standard_floors(budget=5, action_dim=2)
    with pytest.raises(ConfigError, match="share a name"):
        suite.run_goal_reaching(tmp_path, [*floors, floors[0]], episodes)


def test_the_oracle_with_the_default_planner_reaches_near_goals(tmp_path):
    episodes = suite.episode_set(
        tmp_path / "near.npz", ENV, "near", 6, seed=0, budget=25, near_steps=15
    )
    oracle = suite.oracle_method(ENV, action_block=5)
    (result,) = suite.run_goal_reaching(tmp_path, [oracle], episodes, image_size=32)
    assert result.at_any.mean() >= 0.5


@pytest.mark.parametrize("kind", ["icem", "mppi", "shooting", "adam", "categorical"])
def test_any_planner_can_be_put_around_a_model(model, kind):
    config, planner = PLANNERS[kind]
    small = {"samples": 6, "iterations": 1} if kind in ("icem", "mppi") else {}
    small |= {"icem": {"elites": 3}, "shooting": {"samples": 6}}.get(kind, {})
    if kind == "categorical":
        small |= {"levels": (-1.0, 1.0), "samples": 6, "elites": 3, "iterations": 1}
    if kind == "adam":
        small |= {"iterations": 1, "restarts": 2}
    agent = suite.model_agent(model, search=config(horizon=2, **small)).agent
    assert type(agent.planner) is planner
    frames = np.zeros((2, 2, 32, 32, 3), np.uint8)
    agent.reset({"pixels": frames[:, 0]}, problems=range(2))
    actions = agent.act({"pixels": frames})
    assert actions.shape == (2, model.config.action_block, 2)
    assert np.abs(actions).max() <= 1


def test_an_episode_file_of_other_factors_or_layouts_is_refused(tmp_path):
    maze, path = "tubelet/PointMazeRandom-v0", tmp_path / "far.npz"
    factors = FactorConfig(kinds=("light", "colour"), split="test")
    options = {"seed": 0, "budget": 5, "factors": factors, "split": "test"}
    drawn = suite.episode_set(path, maze, "far", 2, **options)
    assert (drawn.split, drawn.factor_split, set(drawn.factors)) == (
        "test",
        "test",
        {"light", "colour"},
    )
    assert suite.episode_set(path, maze, "far", 2, **options).sha256 == drawn.sha256
    for changed in ({"split": "train"}, {"factors": FactorConfig()}):
        with pytest.raises(ConfigError, match=r"holds .*split, factors"):
            suite.episode_set(path, maze, "far", 2, **options | changed)
