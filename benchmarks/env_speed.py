"""Frames per second of environments in processes: ``python -m tubelet.benchmarks.env_speed``.

Each environment steps with random actions and renders every frame, a few copies in each of two
processes, as collection and evaluation do. Beside the clock stands processor time (of this process
and its workers), which other work on the machine does not change as much.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.io import atomic_write_json
from ..core.machine import command, facts
from ..core.rng import numpy_generator
from ..envs import ENVIRONMENTS
from ..envs.vector import ParallelEnvs


def measure(
    env_id: str, *, size: int = 64, workers: int = 2, copies: int = 8, seconds: float = 5.0
) -> dict[str, Any]:
    """Step ``copies`` environments in ``workers`` processes for about ``seconds``, in 5 rounds.

    Returns:
        JSON values: the settings; ``frames``; ``wall`` and ``cpu``, frames per second by the clock
        and of processor time, each the median of the rounds and the ``best``.
    """
    env = ParallelEnvs(env_id, copies, workers=workers, image_size=size)
    try:
        env.reset(seed=0)
        rng = numpy_generator(0, "speed", env_id)
        steps = _steps_for(env, rng, seconds / 5)
        rounds = [_round(env, rng, steps) for _ in range(5)]
    finally:
        env.close()
    rates = {
        clock: {"median": float(np.median(values)), "best": float(np.max(values))}
        for clock, values in zip(("wall", "cpu"), zip(*rounds, strict=True), strict=True)
    }
    return {
        "env": env_id,
        "size": size,
        "workers": workers,
        "copies": copies,
        "frames": 5 * steps * copies,
        "faults": len(env.faults),
        **rates,
    }


def _steps_for(env: ParallelEnvs, rng: np.random.Generator, seconds: float) -> int:
    """Steps that take about ``seconds``, by a first try."""
    _round(env, rng, 5)
    wall, _ = _round(env, rng, 10)
    return max(5, round(seconds * wall / env.num_envs))


def _round(env: ParallelEnvs, rng: np.random.Generator, steps: int) -> tuple[float, float]:
    """Frames per second by the clock and per second of processor time."""
    actions = rng.uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)  # type: ignore[misc]
    clock, processor = time.perf_counter(), _processor_seconds(env.pids)
    for action in actions:
        env.step(action)
    frames = steps * env.num_envs
    spent = _processor_seconds(env.pids) - processor
    return frames / (time.perf_counter() - clock), frames / max(spent, 1e-3)


def _processor_seconds(pids: Sequence[int]) -> float:
    """Of this process and of ``pids``, which Linux tells in ticks of 10 ms."""
    total = time.process_time()
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def main(argv: list[str] | None = None) -> int:
    """Measure the named environments (all by default), print one line each, write one JSON file."""
    parser = argparse.ArgumentParser(
        prog="python -m tubelet.benchmarks.env_speed", description=__doc__
    )
    parser.add_argument("--env", nargs="+", default=list(ENVIRONMENTS), help="ids (default: all)")
    parser.add_argument("--size", type=int, default=64, help="pixels (default 64)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--seconds", type=float, default=5.0, help="per environment (default 5)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/env_speed.json"))
    args = parser.parse_args(argv)
    rows = []
    for env_id in args.env:
        row = measure(env_id, size=args.size, workers=args.workers, seconds=args.seconds)
        print(
            f"{env_id:<32} {row['wall']['median']:8.0f} frames/s by the clock "
            f"(best {row['wall']['best']:.0f}), {row['cpu']['median']:.0f} per second of processor "
            f"time, {args.workers} processes, {args.size} px",
            flush=True,
        )
        rows.append(row)
    load = os.getloadavg()[0]
    value = {"rows": rows, "load": load, "command": command(), "machine": facts()}
    atomic_write_json(args.out, value)
    print(f"written to {args.out}; the machine's load was {load:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
