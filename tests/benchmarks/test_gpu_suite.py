"""The accelerator's suite runs where there is none, at toy size."""

import json

import pytest
import yaml

from tubelet.benchmarks.gpu_suite import Config, run
from tubelet.benchmarks.grid import built_in, load_suite
from tubelet.core.errors import ConfigError


@pytest.fixture
def suite(tmp_path):
    """The debug suite with a model of tokens beside its own."""
    table = yaml.safe_load(built_in()["debug"].read_text())
    steps = {"steps": 2, "report_every": 2, "save_every": 2}
    table |= {"floors": False, "oracle": False}
    del table["planners"]["shooting"]
    table["models"]["tokens"] = {
        "preset": "vjepa_tokens",
        "encoder_preset": "debug",
        "pretrain": {
            "clips": {"frames": 4, "frame_step": 2, "size": 32},
            "train": {"batch_size": 4, "loop": steps},
        },
        "train": {"train": {"batch_size": 4, "loop": steps}},
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(table))
    return path


@pytest.mark.slow
def test_a_suite_is_run_and_its_planning_timed(suite, tmp_path):
    config = Config(
        out=str(tmp_path / "out"),
        suite=str(suite),
        device="cpu",
        batches=(1, 3),
        repeats=1,
        candidates=4,
    )
    report = run(config)
    written = json.loads((tmp_path / "out" / "gpu_suite.json").read_text())
    assert written == json.loads(json.dumps(report))
    (board,) = report["leaderboards"]
    assert {row["name"] for row in board["rows"]} == {"end_to_end, cem", "tokens, cem"}
    for row in board["rows"]:
        assert row["n"] == 4
        end, anyhow = row["at_end"], row["at_any"]
        assert 0 <= end["low"] <= end["value"] <= end["high"] <= 1
        assert end["value"] <= anyhow["value"]
    assert len(report["training_seconds"]) == 3  # two models, and an encoder before one of them
    vector, tokens = report["planning"]
    for row in (vector, tokens):
        assert set(row["seconds_per_action"]["cem"]) == {"1", "3"}
        assert min(row["seconds_per_action"]["cem"].values()) > 0
    assert "rollout" not in vector
    assert tokens["rollout"]["ratio"] == pytest.approx(
        tokens["rollout"]["recomputed"] / tokens["rollout"]["cached"]
    )


def test_the_suite_is_of_all_tasks_at_128_pixels():
    gpu, learned = load_suite("gpu"), load_suite("learned")
    assert {e.env for e in gpu.envs.values()} == {e.env for e in learned.envs.values()}
    assert {e.collect.image_size for e in gpu.envs.values()} == {128}
    encoder = gpu.models["vjepa"].pretrain
    assert encoder is not None
    assert (encoder.train.encoder.width, encoder.train.encoder.depth) == (384, 12)


def test_no_problems_are_refused():
    with pytest.raises(ConfigError, match="batches"):
        Config(batches=())
