"""A pretraining on real video files, killed with SIGKILL and resumed, ends with the same bits."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from tubelet.datasets.video_writer import write_video
from tubelet.vjepa.checkpoint import find_checkpoint

STEPS = 24
#: One training process, as the command line would run it: index, clips, run folder, pretrain.
TRAIN = """
import sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from tubelet.core.run import RunDir
from tubelet.datasets.clips import ClipConfig, clip_batches
from tubelet.datasets.corpus import index_corpus
from tubelet.vjepa.encoder import EncoderConfig
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.optim import OptimConfig
from tubelet.vjepa.predictor import PredictorConfig
from tubelet.vjepa.pretrain import PretrainConfig, pretrain

videos, run, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
config = PretrainConfig(
    encoder=EncoderConfig(width=24, depth=1, heads=2, patch=8),
    predictor=PredictorConfig(width=12, depth=1, heads=2),
    optim=OptimConfig(lr=3e-3, start_lr=1e-3),
    loop=LoopConfig(steps=steps, log_every=1, report_every=6, save_every=5),
    batch_size=4,
)
index = index_corpus(videos)
clips = ClipConfig(frames=4, frame_step=2, size=32)
with RunDir.create(run, config, resume=True) as opened:
    pretrain(config, lambda first: clip_batches(index, clips, 4, start_step=first), opened)
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three short videos of a bright square on its way over noise."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        rng = np.random.default_rng(number)
        frames = np.repeat(rng.integers(0, 80, (1, 32, 32, 3), dtype=np.uint8), 24, axis=0)
        for t in range(24):
            frames[t, 4 * number : 4 * number + 8, t : t + 8] = 230
        write_video(folder / f"{number}.mp4", frames, fps=10)
    return folder


def start(videos, run):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(videos), str(run), str(STEPS)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def steps_logged(run):
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def kill_after(process, run, lines):
    """SIGKILL once the run has logged more than ``lines`` lines; no time is given to tidy up."""
    while steps_logged(run) <= lines:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def result(run):
    """Every tensor of the final checkpoint, and the metrics but for those of the clock."""
    checkpoint = run / "checkpoints" / f"step-{STEPS:08d}"
    tensors = {
        f"{name}/{key}": value
        for name in ("model", "optimizer")
        for key, value in load_file(checkpoint / f"{name}.safetensors").items()
    }
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return tensors, [{k: v for k, v in x.items() if not k.startswith("pace/")} for x in lines]


def test_killed_and_resumed_equals_left_alone_bit_for_bit(videos, tmp_path):
    finish(start(videos, tmp_path / "whole"))
    moments = np.random.default_rng().integers(0, STEPS, 2)  # any moments will do
    for lines in (0, *sorted(moments)):  # the first kill comes before the first checkpoint
        if steps_logged(tmp_path / "cut") <= lines < STEPS - 4:
            kill_after(start(videos, tmp_path / "cut"), tmp_path / "cut", lines)
    finish(start(videos, tmp_path / "cut"))
    (wanted, wanted_lines), (got, got_lines) = result(tmp_path / "whole"), result(tmp_path / "cut")
    assert wanted.keys() == got.keys()
    for name, value in wanted.items():
        assert value.tobytes() == got[name].tobytes(), (name, moments)
    assert got_lines == wanted_lines, moments
    starts = json.loads((tmp_path / "cut" / "versions.json").read_text())["starts"]
    assert len(starts) >= 2


def test_sigterm_saves_and_exits_with_zero_and_the_command_goes_on(videos, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "tubelet.cli.main", "pretrain", "--preset", "debug"]
    command += ["--videos", str(videos), "--out", str(out), "--device", "cpu", "--threads", "1"]
    command += ["--train.loop.save-every", "9999", "--train.loop.background", "--resume"]
    process = subprocess.Popen(
        [*command, "--train.loop.steps", "9999"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    while steps_logged(out) < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "stopped by a signal" in said
    saved = find_checkpoint(out)
    assert "Traceback" not in said
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert saved.name == f"step-{lines[-1]['step'] + 1:08d}"
