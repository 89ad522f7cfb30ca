"""The family's world models, in debug size, through the verbs: trained, planned with, surprised."""

import json

import numpy as np
import pytest

from tubelet.cli.main import main
from tubelet.vjepa.debug_presets import DEBUG_MODELS

ON_CPU = ["--device", "cpu", "--threads", "1"]
SEARCH = ["horizon=2", "samples=6", "iterations=1", "elites=3"]
PLANNERS = {
    "jedi_debug": ("cem", SEARCH),
    "z_debug": ("cem", SEARCH),
    "amortised_debug": ("amortised", ["horizon=2", "samples=2", "propose=2"]),
    "hjepa_debug": (
        "hierarchical",
        [*SEARCH, "macro.horizon=2", "macro.samples=6", "macro.elites=3"],
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("debug") / "data"
    flags = ["--episodes", "5", "--steps", "24", "--image-size", "32", "--workers", "1"]
    assert main(["collect", "--env", "tubelet/PointMaze-v0", "--out", str(folder), *flags]) == 0
    return folder


@pytest.mark.parametrize("name", DEBUG_MODELS)
def test_a_debug_preset_goes_through_every_verb(name, data, tmp_path):
    run, plan, odd = (str(tmp_path / part) for part in ("run", "plan", "odd"))
    small = ["--train.model.image-size", "32", "--train.loop.steps", "4", *ON_CPU]
    assert main(["train", "--preset", name, "--data", str(data), "--out", run, *small]) == 0
    report = json.loads((tmp_path / "run" / "prediction.json").read_text())
    assert np.isfinite(report["over_copy"])

    planner, settings = PLANNERS[name]
    flags = [f"--{planner}.{setting}" for setting in settings]
    flags += ["--episodes", "2", "--budget", "10", "--films", "0", "--no-floors", "--no-oracle"]
    command = ["plan", "--model", run, "--planner", planner, "--out", plan]
    assert main([*command, *flags, *ON_CPU]) == 0
    rows = [json.loads(p.read_text())["value"] for p in (tmp_path / "plan/results").glob("*.json")]
    assert [row["name"] for row in rows if row["model_calls"] > 0] == ["run"]

    sizes = ["--episodes", "2", "--steps", "24", "--horizon", "1", "--untrained", "1"]
    perturb = ["voe", "perturb", "--model", run, "--out", odd, *sizes]
    assert main([*perturb, "--kinds", "teleport", *ON_CPU]) == 0
    assert list((tmp_path / "odd" / "results").glob("perturb-*.json"))
