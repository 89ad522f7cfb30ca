"""``tubelet plan`` with every planner: chosen by name, kept inside the data, profiled."""

import json

import pytest
import torch

from tubelet.cli import plan as verb
from tubelet.cli.main import main, parse
from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError
from tubelet.datasets.trajectories import TrajectorySet
from tubelet.planning import PLANNERS, MPCAgent, make_planner

ON_CPU = ["--device", "cpu", "--threads", "1"]
TINY = {
    "cem": ["--cem.samples", "6", "--cem.elites", "3", "--cem.iterations", "1"],
    "icem": ["--icem.samples", "6", "--icem.elites", "3", "--icem.iterations", "1"],
    "mppi": ["--mppi.samples", "6", "--mppi.iterations", "1"],
    "shooting": ["--shooting.samples", "6"],
    "categorical": ["--categorical.samples", "6", "--categorical.elites", "3"],
    "adam": ["--adam.iterations", "2", "--adam.restarts", "2"],
    "pgd": ["--pgd.iterations", "2", "--pgd.restarts", "2"],
    "hybrid": ["--hybrid.samples", "12", "--hybrid.refine-iterations", "2"],
    "amortised": ["--amortised.samples", "2"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A barely trained end-to-end model, on six short episodes."""
    root = tmp_path_factory.mktemp("runs")
    flags = ["--episodes", "6", "--steps", "16", "--image-size", "32", "--workers", "1"]
    assert main(["collect", "--out", str(root / "data"), *flags]) == 0
    train = ["train", "--preset", "end_to_end", "--data", str(root / "data")]
    train += ["--out", str(root / "model"), "--train.model.image-size", "32", *ON_CPU]
    train += ["--train.horizon", "2", "--train.loop.steps", "2", "--train.batch-size", "4"]
    assert main(train) == 0
    return root / "model"


def config(model, *flags):
    return parse(verb.Config, ["--model", str(model), *ON_CPU, *flags], "plan")


def test_every_planner_has_settings_that_build():
    assert set(TINY) == set(PLANNERS)
    for name, (kind, _) in PLANNERS.items():
        chosen = parse(verb.Config, ["--planner", name, f"--{name}.horizon", "3"], "plan")
        assert type(chosen.search) is kind
        assert make_planner(chosen.search, 2).horizon == 3
        assert from_toml(verb.Config, to_toml(chosen)) == chosen


def test_configs_saved_before_there_was_a_choice_mean_cem():
    old = from_toml(verb.Config, 'model = ["a"]\n[cem]\nhorizon = 4\nsamples = 32\nelites = 8\n')
    assert old.planner == "cem"
    assert (old.search.horizon, old.search.samples, old.search.iterations) == (4, 32, 4)


@pytest.mark.parametrize("name", ["icem", "categorical", "adam"])
def test_plans_with_the_planner_that_is_named(model, tmp_path, capsys, name):
    command = ["plan", "--model", str(model), "--planner", name, "--profile", *TINY[name]]
    command += [f"--{name}.horizon", "2", "--episodes", "2", "--budget", "5", "--films", "0"]
    command += ["--cem.horizon", "2", *TINY["cem"], "--no-floors", "--out", str(tmp_path / name)]
    assert main([*command, *ON_CPU]) == 0
    stored = [json.loads(path.read_text()) for path in (tmp_path / name).glob("results/*.json")]
    oracle = "simulator oracle (CEM)" if name == "adam" else "simulator oracle"
    assert {s["value"]["name"] for s in stored} == {"model", oracle}
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("profile of")]
    assert len(said) == 2
    assert all(part in said[0] for part in ("encode", "rollout", "cost", "overhead"))
    assert ("gradient" in said[0]) == (name == "adam")


@pytest.mark.parametrize("hold", [True, False])
def test_support_of_the_training_actions(model, hold):
    held = "--mpc.hold" if hold else "--mpc.no-hold"
    width = 2 if hold else 10
    data = TrajectorySet.open(model.parent / "data")
    actions = verb._blocks(data, width)
    assert actions.shape == ((6 * 17, 2) if hold else (6 * 3, 10))
    torch.testing.assert_close(
        actions[0], torch.from_numpy(data.arrays()["action"])[: width // 2].flatten()
    )

    search, none = verb._supported(config(model, held, "--support", "range"), _cem(), width)
    assert none is None
    torch.testing.assert_close(torch.tensor(search.low), actions.amin(0))
    torch.testing.assert_close(torch.tensor(search.high), actions.amax(0))
    narrow, _ = verb._supported(
        config(model, held, "--support", "quantile", "--support-tail", "0.2"), _cem(), width
    )
    assert (torch.tensor(narrow.low) > actions.amin(0)).all()
    if hold:  # the blocks here are too few for a density of 10 numbers
        same, density = verb._supported(config(model, "--support", "density"), _cem(), width)
        assert same == _cem()
        assert density.radius == pytest.approx(
            density.distance(actions).double().quantile(0.99).item(), rel=1e-4
        )


def test_support_that_cannot_be_is_refused(model, tmp_path):
    chosen = config(model, "--support", "range", "--planner", "categorical")
    with pytest.raises(ConfigError, match="categorical actions are bounded by their levels"):
        verb._supported(chosen, chosen.search, 2)
    (tmp_path / "bare").mkdir()
    with pytest.raises(ConfigError, match="name them with --data"):
        verb._supported(config(tmp_path / "bare", "--support", "range"), _cem(), 2)
    with pytest.raises(ConfigError, match=r"support_tail = 0\.5"):
        verb.Config(support_tail=0.5)


def test_the_agent_of_a_model_plans_inside_the_support(model):
    from tubelet.vjepa.recipes import load_world_model

    chosen = config(model, "--support", "density", "--support-tail", "0.3", *TINY["cem"])
    world = load_world_model(model)
    agent = verb._model_agent(chosen, world).agent
    assert isinstance(agent, MPCAgent)
    frames = torch.zeros(1, world.config.encoder.tubelet, 32, 32, 3, dtype=torch.uint8)
    agent.reset({"pixels": frames[:, 0]})
    agent.act({"pixels": frames})
    support = agent.planner.bounds.support
    assert (support.distance(agent.records[0].plan.actions) <= support.radius).all()


def _cem():
    return verb.Config().cem
