"""The demo, tiny: every stage runs, and a second start finds everything done."""

import json

import pytest

from tubelet.cli.main import main

TINY = [
    "--episodes",
    "50",
    "--steps",
    "60",
    "--pretrain-steps",
    "4",
    "--vjepa-steps",
    "6",
    "--end-to-end-steps",
    "6",
    "--problems",
    "4",
    "--budget",
    "20",
]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_demo_runs_and_resumes(tmp_path):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), *TINY]) == 0
    page = (out / "report.html").read_text()
    assert "V-JEPA frozen + predictor" in page
    assert "simulator oracle" in page
    results = {path.name: path.read_bytes() for path in (out / "results").glob("*.json")}
    kinds = [json.loads(text)["kind"] for text in results.values()]
    assert {"goal_reaching", "probe", "table", "landscape"} <= set(kinds)
    weights = (out / "vjepa-0/checkpoints/step-00000006/model.safetensors").read_bytes()

    assert main(["demo", "--out", str(out), *TINY]) == 0  # everything is there already
    again = (out / "vjepa-0/checkpoints/step-00000006/model.safetensors").read_bytes()
    assert again == weights


def test_demo_refuses_impossible_sizes(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--episodes", "3"])
    assert stop.value.code == 2
    assert "episodes = 3" in " ".join(capsys.readouterr().err.split())
