"""A world model with a latent variable through the verbs: trained, and planned with."""

import json

import pytest

from tubelet.cli.main import main
from tubelet.planning.futures import FutureRollouts
from tubelet.vjepa.futures import FuturePredictor
from tubelet.vjepa.recipes import load_world_model

ON_CPU = ["--device", "cpu", "--threads", "1"]
PLAN = ["--episodes", "2", "--budget", "5", "--cem.horizon", "2", "--cem.samples", "6"]
PLAN += ["--cem.iterations", "1", "--cem.elites", "3", "--films", "0", "--no-floors", "--no-oracle"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("z")
    flags = ["--episodes", "4", "--steps", "16", "--image-size", "32", "--workers", "1"]
    assert main(["collect", "--out", str(root / "data"), *flags]) == 0
    train = ["--data", str(root / "data"), "--out", str(root / "z"), *ON_CPU]
    train += ["--train.model.image-size", "32", "--train.loop.steps", "3"]
    assert main(["train", "--preset", "z_debug", *train]) == 0
    return root / "z"


def test_the_run_is_a_model_with_futures(run):
    model = load_world_model(run)
    assert isinstance(model.predictor, FuturePredictor)
    assert model.codes == 3
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("train/router_used" in line for line in lines)


@pytest.mark.parametrize("judge", ["likely", "worst", "cvar"])
def test_it_plans_over_futures_or_without(run, tmp_path, judge, monkeypatch):
    asked = []
    plain = FutureRollouts.rollout

    def noted(self, context, actions):
        found = plain(self, context, actions)
        asked.append(found.weights.shape[-1])
        return found

    monkeypatch.setattr(FutureRollouts, "rollout", noted)
    flags = ["--futures.judge", judge, "--futures.count", "3", *PLAN, *ON_CPU]
    assert main(["plan", "--model", str(run), "--out", str(tmp_path / "plan"), *flags]) == 0
    assert (set(asked) == {3}) == (judge != "likely")


def test_no_futures_are_refused_by_name(run, tmp_path, capsys):
    out = tmp_path / "x"
    flags = ["--data", str(run), "--out", str(out), "--train.model.futures.count", "0"]
    with pytest.raises(SystemExit) as stop:
        main(["train", "--preset", "z_debug", *flags])
    assert stop.value.code == 2
    assert "futures.count = 0" in capsys.readouterr().err
    assert not out.exists()
