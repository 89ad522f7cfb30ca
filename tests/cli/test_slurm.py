"""Jobs on a cluster: what is asked of it, and that an interrupted job goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import submitit
from safetensors.numpy import load_file
from submitit.slurm import slurm as submitit_slurm

from tubelet.cli import slurm
from tubelet.cli.main import main
from tubelet.cli.slurm import Job, SlurmConfig, submit
from tubelet.core.errors import ConfigError, Stopped, TubeletError
from tubelet.datasets.video_writer import write_video


def test_the_cluster_is_asked_for_what_the_flags_say(tmp_path):
    config = SlurmConfig(
        partition="gpu", account="lab", nodes=2, gpus=8, memory=200, hours=1.5, setup=("true",)
    )
    script = submitit_slurm._make_sbatch_string(
        command="train", folder=tmp_path, **config.parameters("slurm", "vitl")
    )
    asked = [line.removeprefix("#SBATCH --") for line in script.splitlines()]
    assert {
        "partition=gpu",
        "account=lab",
        "nodes=2",
        "gpus-per-node=8",
        "ntasks-per-node=8",
        "cpus-per-task=4",
        "mem=200GB",
        "time=90",
        "signal=USR2@120",
        "job-name=vitl",
        "true",
    } <= set(asked)


def test_what_is_not_said_is_left_to_the_cluster():
    parameters = SlurmConfig().parameters("slurm", "run")
    assert not parameters.keys() & {"partition", "account", "mem", "setup"}
    assert parameters["ntasks_per_node"] == 1


@pytest.mark.parametrize(
    "bad", [{"nodes": 0}, {"gpus": -1}, {"hours": 0.0}, {"warning": 0}, {"requeues": -1}]
)
def test_impossible_requests(bad):
    with pytest.raises(ConfigError, match="slurm"):
        SlurmConfig(**bad)


def test_without_submitit_the_extra_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    flags = ["--videos", str(tmp_path), "--out", str(tmp_path / "run"), "--executor", "slurm"]
    assert main(["pretrain", "--preset", "debug", *flags]) == 2
    assert "tubelet[slurm]" in capsys.readouterr().err


def test_without_a_cluster_that_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch here
    with pytest.raises(TubeletError, match=r"(?s)executor = .slurm.*local"):
        submit(print, None, SlurmConfig(), cluster="slurm", folder=tmp_path / "j", name="j")


def test_the_clusters_signal_becomes_a_save_and_then_a_requeue(monkeypatch):
    heard = []
    monkeypatch.setattr(slurm, "submitit_or_explain", lambda: submitit)
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name, value in {"EXECUTOR": "local", "LOCAL_JOB_ID": "1", "LOCAL_NTASKS": "1"}.items():
        monkeypatch.setenv(f"SUBMITIT_{name}", value)

    def work(config):
        signal.signal(signal.SIGUSR1, lambda *_: heard.append("save"))
        os.kill(os.getpid(), signal.SIGUSR2)
        raise Stopped("saved")

    before = [(n, signal.getsignal(n)) for n in (signal.SIGUSR1, signal.SIGUSR2)]
    try:
        signal.signal(signal.SIGUSR2, lambda *_: heard.append("requeue"))
        Job(work, None)()
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert heard == ["save", "requeue"]


@pytest.mark.slow
def test_a_job_that_is_preempted_goes_on_and_ends_with_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    videos = tmp_path / "videos"
    for number in range(3):
        frames = rng.integers(0, 255, (30, 32, 32, 3), dtype=np.uint8)
        write_video(videos / f"{number}.mp4", frames, fps=10)

    def start(name, *flags):
        command = [sys.executable, "-m", "tubelet.cli.main", "pretrain", "--preset", "debug"]
        command += ["--videos", str(videos), "--out", str(tmp_path / name), "--device", "cpu"]
        command += ["--threads", "1", "--train.loop.steps", "40", "--train.loop.save-every", "39"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*command, *flags], env=environment, stdout=subprocess.PIPE)

    assert start("whole").wait(timeout=140) == 0
    job = start("cut", "--executor", "local", "--slurm.hours", "1")
    metrics = tmp_path / "cut" / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        assert job.poll() is None
        time.sleep(0.01)
    (controller,) = _children(job.pid)
    (task,) = _children(controller)
    os.kill(task, signal.SIGUSR2)
    assert job.wait(timeout=140) == 0
    starts = json.loads((tmp_path / "cut" / "versions.json").read_text())["starts"]
    assert len(starts) == 2
    logs = next((tmp_path / "cut-job").glob("*_0_log.err")).read_text()
    assert "Requeued job" in logs + next((tmp_path / "cut-job").glob("*.out")).read_text()
    wanted, got = (
        load_file(tmp_path / name / "checkpoints" / "step-00000040" / "model.safetensors")
        for name in ("whole", "cut")
    )
    assert all(wanted[name].tobytes() == got[name].tobytes() for name in wanted)


def _children(process):
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True).stdout
    return [int(number) for number in found.split()]
