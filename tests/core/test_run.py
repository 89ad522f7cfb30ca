"""Run folders refuse what they must, lose nothing on SIGKILL, and resume exactly."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace

import pytest

from tubelet.core.config import load_config
from tubelet.core.errors import ConfigError, TubeletError
from tubelet.core.run import RunDir, read_metrics


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 8


@dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 10
    resume: bool = False
    model: Inner = field(default_factory=Inner)


def test_a_run_says_what_it_was(tmp_path):
    with RunDir.create(tmp_path / "run", Config(steps=3)) as run:
        run.log(1, loss=0.5, **{"probe/r2": float("nan")})
    assert load_config(Config, run.path / "config.toml") == Config(steps=3)
    (start,) = json.loads((run.path / "versions.json").read_text())["starts"]
    assert start["packages"]["torch"]
    assert read_metrics(run.path) == [{"step": 1, "loss": 0.5, "probe/r2": None}]
    assert list((run.path / "tb").iterdir())


def test_a_used_folder_is_refused_unless_resumed(tmp_path):
    (tmp_path / "something.txt").touch()
    with pytest.raises(TubeletError, match="not empty"):
        RunDir.create(tmp_path, Config())
    with pytest.raises(TubeletError, match=r"no config\.toml"):
        RunDir.create(tmp_path, Config(), resume=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["something.txt"]


def test_resume_needs_the_same_config(tmp_path):
    RunDir.create(tmp_path, Config()).close()
    RunDir.create(tmp_path, Config(resume=True), resume=True).close()
    with pytest.raises(ConfigError, match=r"model\.width: was 8, now 16"):
        RunDir.create(tmp_path, Config(model=Inner(width=16)), resume=True)
    longer = replace(Config(), steps=20)
    RunDir.create(tmp_path, longer, resume=True, may_differ=("steps", "resume")).close()
    assert load_config(Config, tmp_path / "config.toml") == longer
    assert len(json.loads((tmp_path / "versions.json").read_text())["starts"]) == 3


def test_resume_of_nothing_starts_a_new_run(tmp_path):
    with RunDir.create(tmp_path / "new", Config(), resume=True) as run:
        assert read_metrics(run.path) == []


def test_resumed_metrics_equal_uninterrupted_ones(tmp_path):
    with RunDir.create(tmp_path / "whole", Config()) as whole:
        for step in range(6):
            whole.log(step, loss=1 / (step + 1))
    with RunDir.create(tmp_path / "cut", Config()) as cut:
        for step in range(4):
            cut.log(step, loss=1 / (step + 1))
    with open(tmp_path / "cut" / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # torn by a full disk
    with RunDir.create(tmp_path / "cut", Config(), resume=True) as cut:
        cut.truncate_after(2)
        for step in range(3, 6):
            cut.log(step, loss=1 / (step + 1))
    assert (cut.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()
    assert _tensorboard_scalars(cut.path) == _tensorboard_scalars(whole.path)


def test_sigkill_loses_no_logged_line(tmp_path):
    code = (
        "import sys; from tests_config import Config; from tubelet.core.run import RunDir\n"
        "run = RunDir.create(sys.argv[1], Config())\n"
        "for step in range(10**6):\n    run.log(step, loss=step); print(step, flush=True)\n"
    )
    (tmp_path / "tests_config.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Config:\n    steps: int = 1\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout]
    process.wait()
    logged = [line["step"] for line in read_metrics(tmp_path / "run")]
    assert logged[: len(told)] == told


@pytest.mark.skipif(os.name != "posix" or not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_folder_that_cannot_be_written_is_one_clear_error():
    with pytest.raises(TubeletError, match="cannot write the run folder"):
        RunDir.create("/dev/full/run", Config())


def _tensorboard_scalars(path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path / "tb"))
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
