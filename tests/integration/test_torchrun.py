"""Two gloo processes under torchrun train what one process trains, and either goes on for the
other."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from tubelet.datasets.video_writer import write_video

TRAIN = """
import sys
import torch
torch.set_num_threads(1)
from dataclasses import replace
from tubelet.cli.main import main
from tubelet.core.config import save_config
from tubelet.core.errors import ConfigError
from tubelet.datasets.clips import ClipConfig
from tubelet.vjepa import engine, presets
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.parallel import rank
from tubelet.vjepa.recipes import PretrainRunConfig, pretrain_encoder

videos, out, stop, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
train = replace(
    presets.preset("debug"),
    loop=LoopConfig(steps=8, log_every=1, report_every=4, save_every=4),
    batch_size=batch,
)
config = PretrainRunConfig(
    videos=videos, out=out, resume=True, train=train, threads=1, device="cpu",
    clips=ClipConfig(frames=4, frame_step=2, size=32),
)
if stop:  # die like a power cut, after the checkpoint of step 4
    check = engine._check_finite
    def dies(values, step, batch):
        if step == stop:
            import os
            os._exit(9)
        check(values, step, batch)
    engine._check_finite = dies
pretrain_encoder(config)
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for number in range(3):
        frames = rng.integers(0, 255, (30, 32, 32, 3), dtype=np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=10)
    return folder


def train(videos, out, processes, *, stop=0, batch=4):
    runner = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    script = out.parent / "train.py"
    script.write_text(TRAIN)
    command = [sys.executable, *(runner if processes > 1 else [])]
    command += [str(script), str(videos), str(out), str(stop), str(batch)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def result(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}
    return losses, load_file(out / "checkpoints" / "step-00000008" / "model.safetensors")


def test_two_processes_train_what_one_does_and_each_goes_on_for_the_other(videos, tmp_path):
    """Same losses to 1e-5 and weights to 1e-4: what is left is the order of sums."""
    one, two = tmp_path / "one", tmp_path / "two"
    for out, processes in ((one, 1), (two, 2)):
        done = train(videos, out, processes)
        assert done.returncode == 0, done.stderr[-3000:]
    cut = {}
    for first, then in ((1, 2), (2, 1)):
        out = cut[first] = tmp_path / f"from{first}"
        assert train(videos, out, first, stop=6).returncode != 0
        done = train(videos, out, then)
        assert done.returncode == 0, done.stderr[-3000:]
    wanted, weights = result(one)
    assert sorted(wanted) == list(range(8))
    for out in (two, *cut.values()):
        losses, got = result(out)
        assert losses == pytest.approx(wanted, abs=1e-5)
        assert max(float(np.abs(got[name] - weights[name]).max()) for name in weights) < 1e-4


def test_what_processes_do_not_divide_is_refused_by_all(videos, tmp_path):
    done = train(videos, tmp_path / "run", 2, batch=3)
    assert done.returncode != 0
    assert "2 of them do not divide it" in done.stderr
