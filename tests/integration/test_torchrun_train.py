"""Two gloo processes under torchrun train the world model that one process trains, and one goes on
where two stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tubelet.datasets.trajectory_writer import TrajectoryWriter
from tubelet.vjepa.checkpoint import latest_checkpoint

SPREAD = Path(__file__).with_name("spread.py")
sys.path.insert(0, str(SPREAD.parent))

import spread  # noqa: E402

CURVE = {"end_to_end": 1e-3, "pldm": 1e-4, "vjepa_vector": 1e-4}
"""Largest differences of the losses and gradient norms of 8 steps, as shares: what is left is the
order of sums, which batch norm and statistics of few samples enlarge from step to step."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six episodes of a square that wanders; the action is its next move."""
    root, rng = tmp_path_factory.mktemp("set") / "data", np.random.default_rng(1)
    dims = {"proprio_dim": 2, "state_dim": 2, "action_dim": 2}
    writer = TrajectoryWriter.create(root, fps=25, image_size=32, metadata={}, **dims)
    for episode in range(6):
        places = (np.cumsum(rng.integers(-2, 3, (17, 2)), 0) + 12).clip(0, 24)
        frames = np.full((17, 32, 32, 3), 200, np.uint8)
        for frame, (y, x) in zip(frames, places, strict=True):
            frame[y : y + 8, x : x + 8] = (220, 40, 60)
        action = np.zeros((17, 2), np.float32)
        action[:-1] = np.diff(places, axis=0) / 2
        known = places.astype(np.float32), places.astype(float), action
        writer.add_episode(episode, frames, *known)
    writer.finalize()
    return root


def two(folder, jobs):
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node=2", str(SPREAD), str(folder / "jobs.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        Path(job["out"]).name: [
            json.loads(Path(f"{job['out']}.{rank}.json").read_text()) for rank in (0, 1)
        ]
        for job in jobs
    }


def curves(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {
        line["step"]: [line["train/loss"], line["train/grad_norm"]]
        for line in lines
        if "train/loss" in line
    }


def differ(run, other):
    """Largest difference of the curves, as a share, over all steps; and of the weights."""
    a, b = curves(run), curves(other)
    assert sorted(a) == sorted(b) == list(range(spread.STEPS))
    left, right = (load_file(latest_checkpoint(r) / "model.safetensors") for r in (run, other))
    assert left.keys() == right.keys()
    weights = max(float(np.abs(left[k].astype(float) - right[k]).max()) for k in left)
    shares = [np.abs(np.subtract(a[step], b[step])) / np.abs(b[step]) for step in a]
    return float(np.max(shares)), weights


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_processes_train_the_world_model_of_one_and_one_goes_on_for_two(data, tmp_path):
    def job(name, preset, **rest):
        given = {"encoder": str(tmp_path / "encoder")} if preset == "vjepa_vector" else {}
        where = {"data": str(data), "out": str(tmp_path / name), **given}
        return {**where, "preset": preset, "loop": {}, **rest}

    videos = {"videos": str(data / "videos"), "out": str(tmp_path / "encoder")}
    assert spread.run({**videos, "loop": {"steps": 1}, "batch": 2}) == ""
    for preset in CURVE:
        assert spread.run(job(preset, preset)) == ""
    said = two(
        tmp_path,
        [
            *(job(f"two {preset}", preset) for preset in CURVE),
            job("two to one", "end_to_end", disturb=["cut", 6, 0]),
            job("shard", "end_to_end", loop={"shard": True}),
            job("futures", "z_debug"),
        ],
    )
    assert said["two to one"][0].startswith("Cut")
    for name, word in (("shard", "train.loop.shard"), ("futures", "train.model.futures")):
        assert word in said[name][0]
        assert said[name][0] == said[name][1]
    assert spread.run(job("two to one", "end_to_end")) == ""
    for name, preset in [*((f"two {p}", p) for p in CURVE), ("two to one", "end_to_end")]:
        curve, weights = differ(tmp_path / name, tmp_path / preset)
        assert curve < CURVE[preset], (name, curve)
        assert weights < 5e-3, (name, weights)  # Adam blows up what has no gradient but rounding
        report = json.loads((tmp_path / name / "prediction.json").read_text())
        assert np.isfinite(report["over_copy"])
