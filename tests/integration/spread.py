"""Runs training jobs one after the other in the processes that torchrun started; see
test_torchrun.py and test_torchrun_train.py. Usage: spread.py jobs.json; each process writes
<out>.<rank>.json per job."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from tubelet.core.errors import Stopped, TubeletError
from tubelet.datasets.clips import ClipConfig
from tubelet.vjepa import checkpoint, engine, parallel, presets
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.pretrain import PretrainConfig
from tubelet.vjepa.recipes import (
    PretrainRunConfig,
    TrainConfig,
    pretrain_encoder,
    train_on_trajectories,
)

STEPS = 8


class Cut(BaseException):
    """Stands in for a power cut."""


def config(job) -> PretrainRunConfig:
    loop = {"steps": STEPS, "log_every": 1, "report_every": 4, "save_every": 4, **job["loop"]}
    debug = presets.preset("debug")
    train: PretrainConfig = replace(
        debug,
        loop=LoopConfig(**loop),
        optim=replace(debug.optim, clip=job.get("clip", 0.1), kind=job.get("optim", "adamw")),
        batch_size=job.get("batch", 4),
    )
    return PretrainRunConfig(
        videos=job["videos"],
        out=job["out"],
        resume=True,
        train=train,
        objective=job.get("objective", ""),
        threads=1,
        device="cpu",
        clips=ClipConfig(frames=4, frame_step=2, size=32),
    )


def training(job) -> TrainConfig:
    """A world model of the preset that the job names."""
    loop = {"steps": STEPS, "log_every": 1, "report_every": 4, "save_every": 4, **job["loop"]}
    train = presets.world_model(job["preset"], presets.debug().encoder)
    train = replace(
        train,
        model=replace(train.model, image_size=32),
        loop=LoopConfig(**loop),
        optim=replace(train.optim, clip=job.get("clip", 0.1)),
        horizon=2,
        batch_size=8,
    )
    where = {name: job[name] for name in ("data", "out", "encoder") if name in job}
    return TrainConfig(**where, resume=True, train=train, threads=1, device="cpu")


def disturb(what: str, step: int, rank: int) -> None:
    """Let ``what`` happen in process ``rank`` at ``step``: cut (in all), nan, sigterm, crash, or
    from then on: full (the joined files) or part (what this process writes of a sharded model)."""
    backward, write, now = engine._backward, checkpoint.save_file, [0]

    def changed(forward, parts, at):
        now[0] = at
        if what == "cut" and at == step:
            raise Cut
        mine = at == step and parallel.rank() == rank
        if mine and what == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        if mine and what == "crash":
            os._exit(9)
        values = backward(forward, parts, at)
        return {**values, "train/loss": float("nan")} if mine and what == "nan" else values

    def full(tensors, file):
        if now[0] >= step:
            raise OSError(28, "No space left on device")
        write(tensors, file)

    def full_part(writer, plan, planner):
        if now[0] >= step and parallel.rank() == rank:
            raise OSError(28, "No space left on device")
        return write_part(writer, plan, planner)

    engine._backward = changed
    if what == "full":
        checkpoint.save_file = full
    if what == "part":
        from tubelet.vjepa.sharding import HuggingFaceStorageWriter as Writer

        write_part = Writer.write_data
        Writer.write_data = full_part


def run(job) -> str:
    """What came of a job: "" or the error."""
    backward, write = engine._backward, checkpoint.save_file
    if "disturb" in job:
        disturb(*job["disturb"])
    try:
        if "preset" in job:
            train_on_trajectories(training(job))
        else:
            pretrain_encoder(config(job))
    except (Cut, Stopped, TubeletError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        engine._backward, checkpoint.save_file = backward, write
    return ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    jobs = json.loads(Path(sys.argv[1]).read_text())
    with parallel.process_group("cpu"):
        for job in jobs:
            said = run(job)
            Path(f"{job['out']}.{parallel.rank()}.json").write_text(json.dumps(said))
