"""Two gloo processes under torchrun train what one process trains, whole or sharded, and either
goes on for the other; what goes wrong in one stops both.

Starting processes is what costs here, so that all jobs of two processes run in one start of
``spread.py``; those of one process run in this one.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tubelet.datasets.video_writer import write_video
from tubelet.vjepa.checkpoint import latest_checkpoint, load_checkpoint
from tubelet.vjepa.pretrain import build

SPREAD = Path(__file__).with_name("spread.py")
sys.path.insert(0, str(SPREAD.parent))

import spread  # noqa: E402

LOSS, WEIGHT = 1e-5, 1e-4
"""Largest differences of losses and gradient norms, and of weights and moments, after 8 steps: what
is left is the order of sums."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for number in range(3):
        frames = rng.integers(0, 255, (30, 32, 32, 3), dtype=np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=10)
    return folder


class Jobs:
    """Jobs by name, below one folder."""

    def __init__(self, folder, videos):
        self.folder, self.videos = folder, videos

    def job(self, name, *, loop=None, **rest):
        where = {"videos": str(self.videos), "out": str(self.folder / name)}
        return {**where, "loop": loop or {}, **rest}

    def one(self, name, **job):
        """Run in this process; what was said."""
        return spread.run(self.job(name, **job))

    def start(self, jobs):
        """Start two processes on ``jobs``: name -> the rest."""
        path = self.folder / "jobs.json"
        path.write_text(json.dumps([self.job(name, **job) for name, job in jobs.items()]))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return subprocess.Popen(
            [*command, "--nproc-per-node=2", str(SPREAD), str(path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def two(self, jobs):
        process = self.start(jobs)
        _, errors = process.communicate(timeout=280)
        assert process.returncode == 0, errors[-3000:]
        for name in jobs:
            if "disturb" not in jobs[name]:
                assert self.said(name) == ["", ""]

    def said(self, name):
        """By process."""
        paths = [self.folder / f"{name}.{rank}.json" for rank in (0, 1)]
        return [json.loads(path.read_text()) for path in paths]

    def curves(self, name):
        """Losses and gradient norms by step."""
        text = (self.folder / name / "metrics.jsonl").read_text()
        lines = [line for line in map(json.loads, text.splitlines()) if "train/loss" in line]
        return {line["step"]: [line["train/loss"], line["train/grad_norm"]] for line in lines}

    def tensors(self, name):
        path = latest_checkpoint(self.folder / name)
        assert path is not None
        assert path.name == f"step-{spread.STEPS:08d}"
        files = ("model", "optimizer")
        return {
            f"{file}: {key}": value
            for file in files
            for key, value in load_file(path / f"{file}.safetensors").items()
        }

    def check_refusals(self, words):
        """Both processes of each job said the same, with these words in it."""
        for name, wanted in words.items():
            first, second = self.said(name)
            assert wanted in first
            assert first == second

    def steps_saved(self, name):
        """Of all checkpoints; nothing else may lie beside them."""
        entries = sorted(path.name for path in (self.folder / name / "checkpoints").iterdir())
        assert entries.pop(0) == "latest"
        return [int(entry.removeprefix("step-")) for entry in entries]

    def differences(self, name, other):
        """Largest difference of the curves, and of the tensors."""
        a, b = self.curves(name), self.curves(other)
        assert sorted(a) == sorted(b) == list(range(spread.STEPS))
        curve = max(float(np.abs(np.subtract(a[s], b[s])).max()) for s in a)
        left, right = self.tensors(name), self.tensors(other)
        assert left.keys() == right.keys()
        assert all(left[key].shape == right[key].shape for key in left)
        return curve, max(float(np.abs(left[k] - right[k]).max()) for k in left)


SHARD = {"shard": True}


def test_two_processes_train_what_one_does_and_what_stops_one_stops_both(videos, tmp_path):
    jobs = Jobs(tmp_path, videos)
    assert jobs.one("one") == ""
    assert jobs.one("1 to 2 sharded", disturb=["cut", 6, 0]).startswith("Cut")
    jobs.two(
        {
            "copied": {},
            "sharded": {"loop": {**SHARD, "background": True, "accumulate": 2}},
            "1 to 2 sharded": {"loop": SHARD},
            "2 sharded to 1": {"loop": SHARD, "disturb": ["cut", 6, 0]},
            "nan": {"loop": SHARD, "disturb": ["nan", 5, 1]},
            "signal": {"disturb": ["sigterm", 5, 1]},
            "full disk of one": {"loop": SHARD, "disturb": ["part", 6, 1]},  # stays so: the last
        }
    )
    assert jobs.said("2 sharded to 1")[0].startswith("Cut")
    assert jobs.one("2 sharded to 1") == ""
    for name in ("copied", "sharded", "1 to 2 sharded", "2 sharded to 1"):
        curve, tensors = jobs.differences(name, "one")
        assert curve < LOSS, (name, curve)
        assert tensors < WEIGHT, (name, tensors)

    whole = build(spread.config(jobs.job("sharded")).train)  # any loader reads a sharded run's file
    assert load_checkpoint(latest_checkpoint(tmp_path / "sharded"), model=whole) == spread.STEPS

    jobs.check_refusals(
        {
            "nan": "step 5: train/loss = nan",
            "signal": "stopped by a signal after step 5",
            "full disk of one": "step-00000008: process 1: [Errno 28] No space left on device",
        }
    )
    assert jobs.steps_saved("nan") == jobs.steps_saved("full disk of one") == [4]
    assert jobs.steps_saved("signal") == [4, 6]
    blamed = jobs.said("nan")[0].split("The batch: ")[1].split(". The last")[0].split(", ")
    assert 1 <= len(blamed) <= 2  # the two clips of process 1, not all four


@pytest.mark.slow
def test_copies_go_on_in_another_number_of_processes_and_more_that_stops_both(videos, tmp_path):
    jobs = Jobs(tmp_path, videos)
    assert jobs.one("one") == ""
    assert jobs.one("1 to 2", disturb=["cut", 6, 0]).startswith("Cut")
    jobs.two(
        {
            "1 to 2": {},
            "2 to 1": {"disturb": ["cut", 6, 0]},
            "full disk": {"loop": SHARD, "disturb": ["full", 6, 0]},
            "indivisible": {"batch": 3, "disturb": ["nothing", 0, 0]},
        }
    )
    refused = {"full disk": "No space left", "indivisible": "2 of them do not divide it"}
    jobs.check_refusals(refused)
    assert jobs.steps_saved("full disk") == [4]
    assert jobs.one("2 to 1") == ""
    for name in ("1 to 2", "2 to 1"):
        curve, tensors = jobs.differences(name, "one")
        assert curve < LOSS
        assert tensors < WEIGHT


@pytest.mark.slow
def test_statistics_of_the_batch_are_those_of_all_processes(videos, tmp_path):
    """Views, whose batch norm and SIGReg look at the whole batch, and Muon.

    Only curves are compared: biases before a batch norm have no gradient but rounding, which Adam
    blows up to whole steps; and Muon works in bfloat16.
    """
    jobs = Jobs(tmp_path, videos)
    kinds = {
        "views": {"objective": "lejepa"},
        "cjepa": {"objective": "cjepa"},
        "muon": {"optim": "muon"},
    }
    for name, job in kinds.items():
        assert jobs.one(name, **job) == ""
    jobs.two(
        {f"{name} copied": job for name, job in kinds.items()}
        | {f"{name} sharded": {**job, "loop": SHARD} for name, job in kinds.items()}
    )
    for name in kinds:
        for how in ("copied", "sharded"):
            curve, _ = jobs.differences(f"{name} {how}", name)
            assert curve < 1e-3, (name, how, curve)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others(videos, tmp_path):
    process = Jobs(tmp_path, videos).start({"crash": {"disturb": ["crash", 5, 1]}})
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "exitcode: 9" in errors or "exitcode  : 9" in errors


@pytest.mark.slow
def test_sigterm_to_torchrun_saves_in_all(videos, tmp_path):
    jobs = Jobs(tmp_path, videos)
    process = jobs.start({"long": {"loop": {"steps": 5000, "save_every": 5000}}})
    metrics = tmp_path / "long" / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert jobs.said("long")[0].startswith("Stopped: stopped by a signal")
    assert latest_checkpoint(tmp_path / "long") is not None
