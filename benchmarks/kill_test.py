"""Kills a training run with SIGKILL at random moments, resumes it each time, and compares the end
with a run that was left alone.

    python -m tubelet.benchmarks.kill_test --kills 200 --out kill_test.json

A small V-JEPA saves after every step. Each life of the run is a process of its own that is killed
for real: while it starts, loads, trains, saves or sweeps up. After every kill the newest checkpoint
is read whole; in the end weights, optimiser state and metrics must be the same bits as those of the
run that was never killed. The processes are forked from one that has imported everything, so that a
life costs a fraction of a second.

What this cannot show: a power cut, which loses what the kernel has not written yet (checkpoints are
synced to the disk before they are named).
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core import machine
from ..core.errors import ConfigError, TubeletError
from ..core.io import atomic_write_json
from ..core.rng import numpy_generator
from ..core.run import read_metrics
from ..datasets.clip_config import ClipConfig
from ..datasets.video_writer import write_video
from ..vjepa import presets
from ..vjepa.checkpoint import latest_checkpoint
from ..vjepa.engine import LoopConfig
from ..vjepa.recipes import PretrainRunConfig, pretrain_encoder

STEPS_PER_KILL = 5
PATIENCE = 120.0
"""Seconds that a life may take until it is to be killed."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How often to kill, and what."""

    kills: int = 200
    """SIGKILLs."""
    background: bool = False
    """Checkpoints are written in a thread."""
    seed: int = 0
    """Seed of the moments and of the run."""
    out: str = ""
    """Result file (JSON); empty writes none."""

    def __post_init__(self) -> None:
        if self.kills < 1:
            raise ConfigError(f"kills = {self.kills}: must be at least 1")


def kill_test(config: Config, folder: Path) -> dict[str, Any]:
    """Run the test in ``folder`` (empty) and return what came of it, ready for JSON.

    Raises:
        TubeletError: a life failed by itself, or a checkpoint could not be read.
    """
    _import_once()
    steps = STEPS_PER_KILL * config.kills
    _write_videos(folder / "videos")
    whole, cut = (_run_config(config, folder, name, steps) for name in ("whole", "cut"))
    start = time.perf_counter()
    _finish(_start(whole, folder))
    alone = time.perf_counter() - start
    moments, resumed = _kill_again_and_again(config, cut, folder, steps, alone / steps)
    _finish(_start(cut, folder))
    different = _differences(Path(whole.out), Path(cut.out))
    return {
        "kills": config.kills,
        "steps": steps,
        "background": config.background,
        "seed": config.seed,
        "killed_while": dict(sorted(moments.items())),
        "resumed_at_distinct_steps": len(set(resumed)),
        "checkpoints_read_after_a_kill": len(resumed),
        "corrupt": 0,  # one would have ended the test
        "different_from_the_run_left_alone": different,
        "seconds_left_alone": round(alone, 1),
        "seconds": round(time.perf_counter() - start, 1),
    }


def _import_once() -> None:
    """What training imports when it first needs it, seconds of work that no life repeats."""
    for name in ("torch._dynamo", "torch.utils.tensorboard", "rich.progress"):
        importlib.import_module(name)


def _kill_again_and_again(
    config: Config, cut: PretrainRunConfig, folder: Path, steps: int, step_seconds: float
) -> tuple[Counter[str], list[int]]:
    """What was under way at each kill, and the step of the newest checkpoint after each."""
    random = numpy_generator(config.seed, "kills")
    out, moments, found = Path(cut.out), Counter[str](), list[int]()
    for left in range(config.kills, 0, -1):
        done = _newest_step(out)
        share = (steps - done) / (left + 1)
        target = done + int(random.uniform(0, 1.5 * share))
        pause = random.uniform(0, 1.5 * step_seconds if target > done else 1.0)
        child = _start(cut, folder)
        _wait_until(child, lambda goal=target: _newest_step(out) >= goal, folder)
        time.sleep(pause)
        moments[_kill(child, out, done)] += 1
        found.append(_read_newest(out))
        _say(f"{config.kills - left + 1}/{config.kills} kills, step {found[-1]} of {steps}")
    return moments, found


def _run_config(config: Config, folder: Path, name: str, steps: int) -> PretrainRunConfig:
    loop = LoopConfig(
        steps=steps,
        log_every=1,
        report_every=50,
        save_every=1,
        keep=2,
        background=config.background,
    )
    train = replace(presets.preset("debug"), loop=loop, seed=config.seed)
    return PretrainRunConfig(
        videos=str(folder / "videos"),
        out=str(folder / name),
        resume=True,
        train=train,
        clips=ClipConfig(frames=4, frame_step=2, size=32),
        threads=1,
        device="cpu",
    )


def _write_videos(folder: Path) -> None:
    for number in range(3):
        random = numpy_generator(0, "videos", number)
        frames = random.integers(0, 255, (24, 32, 32, 3), dtype=np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=10)


def _start(run: PretrainRunConfig, folder: Path) -> int:
    """Fork a process that trains; its number. What it says goes to ``log.txt``."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        pretrain_encoder(run)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _finish(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if status:
        raise TubeletError(f"a life that nobody killed ended with status {status}")


def _wait_until(child: int, reached: Callable[[], bool], folder: Path) -> None:
    """Return once ``reached``. Raises TubeletError if the process ends or takes too long."""
    patience = time.monotonic() + PATIENCE
    while not reached():
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended or time.monotonic() > patience:
            why = f"ended with status {status}" if ended else f"did nothing for {PATIENCE:g} s"
            tail = (folder / "log.txt").read_text(errors="replace")[-2000:]
            raise TubeletError(f"a life that nobody killed {why}. It said:\n{tail}")
        time.sleep(0.001)


def _kill(child: int, out: Path, began: int) -> str:
    """SIGKILL; what the process was doing."""
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        raise TubeletError(f"the process to be killed ended by itself, with status {status}")
    if list((out / "checkpoints").glob(".step-*.tmp")):
        return "saving"
    return "training" if _newest_step(out) > began else "starting or in its first step"


def _newest_step(out: Path) -> int:
    try:
        return int((out / "checkpoints" / "latest").read_text().strip().removeprefix("step-"))
    except FileNotFoundError:
        return 0


def _read_newest(out: Path) -> int:
    """Read the newest checkpoint whole; its step. Raises what a damaged one raises."""
    path = latest_checkpoint(out)
    if path is None:
        return 0
    state = json.loads((path / "state.json").read_text())
    for name, size in state["bytes"].items():
        if (path / name).stat().st_size != size:
            raise TubeletError(f"{path / name} has not the {size} bytes that were written")
    for name in ("model", "optimizer"):
        _tensors(path, name)
    return int(state["step"])


def _tensors(path: Path, name: str) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path / f"{name}.safetensors")


def _differences(whole: Path, cut: Path) -> list[str]:
    """Names of tensors and metrics that differ, by a bit, between two finished runs."""
    a, b = latest_checkpoint(whole), latest_checkpoint(cut)
    assert a is not None
    assert b is not None
    found = [] if a.name == b.name else [f"{a.name} and {b.name}"]
    for name in ("model", "optimizer"):
        left, right = _tensors(a, name), _tensors(b, name)
        keys = left.keys() | right.keys()
        found += [
            f"{name}: {key}"
            for key in sorted(keys)
            if key not in left or key not in right or left[key].tobytes() != right[key].tobytes()
        ]
    if _metrics(whole) != _metrics(cut):
        found.append("metrics.jsonl")
    return found


def _metrics(run: Path) -> list[dict[str, Any]]:
    """All but rates, which are a matter of the clock."""
    lines = read_metrics(run)
    return [{k: v for k, v in line.items() if not k.startswith("pace/")} for line in lines]


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text}", end="", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """The command: 0 if every kill was survived and the end is the same bits, else 1."""
    # Before torch makes threads, which a fork would not copy.
    import torch
    import tyro

    torch.set_num_threads(1)
    config = tyro.cli(Config, args=argv)
    folder = Path(tempfile.mkdtemp(prefix="kill_test-"))
    try:
        value = kill_test(config, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    flags = sys.argv[1:] if argv is None else argv
    command = " ".join(["python -m tubelet.benchmarks.kill_test", *flags])
    print(json.dumps(value, indent=2))
    if config.out:
        stored = {"kind": "kill_test", "command": command, "machine": machine.facts()}
        atomic_write_json(config.out, {**stored, "value": value})
    return 1 if value["different_from_the_run_left_alone"] else 0


if __name__ == "__main__":
    sys.exit(main())
