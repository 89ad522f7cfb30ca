"""Training that is killed again and again, in small: see benchmarks/kill_test.py for the study."""

import json
import subprocess
import sys

import pytest
from safetensors.numpy import load_file, save_file

from tubelet.benchmarks import kill_test
from tubelet.core.errors import ConfigError


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_three_kills_change_not_a_bit(tmp_path, background):
    """In a process of its own: it forks, which the test runner's threads would not survive."""
    out = tmp_path / "result.json"
    command = [sys.executable, "-m", "tubelet.benchmarks.kill_test", "--kills", "3"]
    command += ["--out", str(out), *(["--background"] if background else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    stored = json.loads(out.read_text())
    assert stored["command"].startswith("python -m tubelet.benchmarks.kill_test --kills 3")
    value = stored["value"]
    assert sum(value["killed_while"].values()) == value["kills"] == 3
    assert value["different_from_the_run_left_alone"] == []
    assert value["background"] is background


def test_a_bit_that_differs_is_seen(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / name / "checkpoints" / "step-00000001"
        folder.mkdir(parents=True)
        (folder.parent / "latest").write_text("step-00000001\n")
        (folder / "state.json").write_text("{}")
        rng = kill_test.numpy_generator(0, "test")
        save_file({"w": rng.normal(size=3)}, folder / "model.safetensors")
        save_file({"0.step": rng.normal(size=1)}, folder / "optimizer.safetensors")
        (tmp_path / name / "metrics.jsonl").write_text('{"step": 0, "pace/wait_share": 0.5}\n')
    a, b = tmp_path / "a", tmp_path / "b"
    assert kill_test._differences(a, b) == []
    tensors = load_file(folder / "model.safetensors")
    tensors["w"].view("uint64")[1] ^= 1
    save_file(tensors, folder / "model.safetensors")
    (b / "metrics.jsonl").write_text('{"step": 1}\n')
    assert kill_test._differences(a, b) == ["model: w", "metrics.jsonl"]


def test_no_kills_are_no_test():
    with pytest.raises(ConfigError, match="kills = 0"):
        kill_test.Config(kills=0)
