"""``tubelet plan``: problems of held-out looks, and models of other environments refused."""

import json
import shutil

import pytest

from tubelet.benchmarks.episodes import EpisodeSet
from tubelet.benchmarks.origin import differing, trained_env, training_data
from tubelet.cli.main import main
from tubelet.core.errors import ConfigError
from tubelet.vjepa.recipes import load_world_model

ON_CPU = ["--device", "cpu", "--threads", "1"]
QUICK = ["--cem.samples", "6", "--cem.elites", "3", "--cem.iterations", "1", "--cem.horizon", "2"]
QUICK += ["--episodes", "2", "--budget", "5", "--films", "0", "--no-floors", *ON_CPU]
REACHER = "tubelet/Reacher-v0"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A barely trained end-to-end model, on four short episodes of the reacher."""
    root = tmp_path_factory.mktemp("runs")
    flags = ["--episodes", "4", "--steps", "16", "--image-size", "32", "--workers", "1"]
    assert main(["collect", "--out", str(root / "data"), *flags]) == 0
    train = ["train", "--preset", "end_to_end", "--data", str(root / "data")]
    train += ["--out", str(root / "model"), "--train.model.image-size", "32", *ON_CPU]
    train += ["--train.horizon", "2", "--train.loop.steps", "2", "--train.batch-size", "4"]
    assert main(train) == 0
    return root / "model"


def test_problems_of_held_out_looks_and_weights(model, tmp_path):
    out = tmp_path / "plan"
    command = ["plan", "--model", str(model), "--out", str(out), *QUICK]
    command += ["--factors.kinds", "colour", "mass", "--factors.split", "test"]
    assert main(command) == 0
    problems = EpisodeSet.load(out / "far.npz")
    assert set(problems.factors) == {"colour", "mass"}
    assert problems.factor_split == "test"
    stored = [json.loads(path.read_text())["value"] for path in out.glob("results/*.json")]
    assert {value["episodes_sha256"] for value in stored} == {problems.sha256}
    assert {value["name"] for value in stored} == {"model", "simulator oracle"}


def test_a_model_of_another_environment_is_refused_naming_what_differs(model, tmp_path, capsys):
    command = ["plan", "--model", str(model), "--out", str(tmp_path / "plan"), *QUICK]
    assert main([*command, "--env", "tubelet/ArmReach-v0"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "trained in another environment than tubelet/ArmReach-v0" in said
    assert "action width: 2, here 4" in said
    assert f"env: '{REACHER}', here 'tubelet/ArmReach-v0'" in said
    assert "camera: 'top', here 'front'" in said
    assert not (tmp_path / "plan").exists()  # before anything is written


def test_without_the_data_widths_are_compared(model, tmp_path):
    alone = tmp_path / "model"
    shutil.copytree(model, alone)
    text = (alone / "config.toml").read_text()
    (alone / "config.toml").write_text(text.replace(str(model.parent / "data"), "/gone"))
    assert training_data(alone) is None
    with pytest.raises(ConfigError, match="name it"):
        trained_env(alone)
    assert trained_env(model) == REACHER
    world = load_world_model(alone)
    assert differing(alone, world, REACHER) == {}
    assert differing(alone, world, "tubelet/PointMaze-v0") == {}  # as wide, and nothing else known
    assert differing(alone, world, "tubelet/ArmPush-v0") == {"action width": (2, 4)}
    assert set(differing(model, world, "tubelet/PointMaze-v0")) == {"env"}


def test_held_out_layouts_where_there_are_none_are_refused(model, tmp_path, capsys):
    command = ["plan", "--model", str(model), "--out", str(tmp_path / "plan"), *QUICK]
    assert main([*command, "--split", "test"]) == 2
    assert "no layouts to hold out" in " ".join(capsys.readouterr().err.split())
