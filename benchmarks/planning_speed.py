"""Speed of planning: ``python -m tubelet.benchmarks.planning_speed rollout|compiled|…|all``.

* ``rollout``: the cached rollout of a token grid against recomputing the sequence, and its memory
  under a limit in bytes.
* ``compiled``: cached rollouts as one compiled graph against the same rollouts as they are.
* ``overhead``: what planners cost beside the model: time per iteration with a free model.
* ``swm``: a plan of tubelet's CEM and of stable-worldmodel's with the same predictor and weights,
  in turns, and both with a free cost. ``--swm-python`` names an interpreter that has
  stable-worldmodel (see :mod:`.swm_compare`); the other side runs in a process of its own.

The alternatives take turns; processor time is reported beside the clock. Each part replaces its
entry in ``benchmarks/results/planning_speed.json`` (or ``--out``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ConfigError
from ..core.io import atomic_write_json
from ..core.machine import facts
from ..core.rng import torch_generator
from ..planning import PLANNERS
from ..vjepa.compiled import compile_rollouts
from ..vjepa.world_model import candidate_bytes
from .planning_parts import (
    ACTION,
    DEPTH,
    HORIZON,
    ITERATIONS,
    NOT_SAMPLING,
    SAMPLES,
    PeakMemory,
    build_predictor,
    free_plan,
)
from .planning_peer import swm
from .timing import interleaved, ratio_of_medians

__all__ = [
    "PeakMemory",
    "build_predictor",
    "compiled",
    "free_plan",
    "main",
    "overhead",
    "rollout",
    "swm",
]


def rollout(repeats: int = 2, candidates: int = SAMPLES, grid: int = 8) -> dict[str, Any]:
    """``grid**2`` tokens per step, a context of 2 steps, one problem; memory under 128 MiB."""
    limit, latent_dim, width = 128 * 2**20, 128, 2
    predictor = build_predictor(grid, latent_dim, width, width=128)
    outcome: dict[str, Tensor] = {}
    draw = torch_generator(0, "speed", "rollout")
    context = torch.randn(1, 2, grid * grid, latent_dim, generator=draw)
    past = torch.rand(1, 1, width, generator=draw)
    actions = torch.rand(1, candidates, HORIZON, width, generator=draw)
    at_once = limit // candidate_bytes(predictor, HORIZON, past=1)

    @torch.inference_mode()
    def recomputed() -> None:
        parts = []
        for some in actions[0].split(at_once):
            every = torch.cat([past.expand(len(some), -1, -1), some], 1)
            start = context.expand(len(some), -1, -1, -1)
            parts.append(predictor.rollout(start, every, use_cache=False))
        outcome["recomputed"] = torch.cat(parts)

    @torch.inference_mode()
    def cached() -> None:
        parts = [predictor.rollout_candidates(context, past, a) for a in actions.split(at_once, 1)]
        outcome["cached"] = torch.cat(parts, 1)[0]

    with torch.inference_mode(), PeakMemory() as memory:
        predictor.rollout_candidates(context, past, actions[:, :at_once])
    timed = interleaved({"recomputed": recomputed, "cached": cached}, repeats)
    return {
        "setting": f"horizon {HORIZON}, {candidates} candidates, 2 context steps, {grid * grid} "
        f"tokens per step, depth {DEPTH}, width 128",
        "seconds": {clock: timed[clock] for clock in ("cpu", "wall")},
        "ratio": timed["cpu"]["recomputed"] / timed["cpu"]["cached"],
        "largest_difference": float((outcome["recomputed"] - outcome["cached"]).abs().max()),
        "memory": {"limit": limit, "candidates_at_once": at_once, "peak": memory.peak},
        "repeats": repeats,
    }


def compiled(
    repeats: int = 10, candidates: tuple[int, int] = (SAMPLES, 64), backend: str = "inductor"
) -> dict[str, Any]:
    """One vector per step (first number of candidates), and 16 tokens (second); one problem."""
    sizes = ((1, 192, candidates[0]), (4, 128, candidates[1]))
    return {"rows": [_compiled(*size, repeats, backend) for size in sizes], "repeats": repeats}


def _compiled(grid: int, width: int, candidates: int, repeats: int, backend: str) -> dict[str, Any]:
    sides = {name: build_predictor(grid, width, ACTION, width) for name in ("eager", "compiled")}
    compile_rollouts(sides["compiled"], backend=backend)
    draw = torch_generator(0, "speed", "compiled")
    context = torch.randn(1, 1, grid * grid, width, generator=draw)
    actions = torch.rand(1, candidates, HORIZON, ACTION, generator=draw)
    outcome: dict[str, Tensor] = {}

    @torch.inference_mode()
    def imagine(name: str) -> None:
        past = actions[:, 0, :0]
        outcome[name] = sides[name].rollout_candidates(context, past, actions)

    timed = interleaved({name: partial(imagine, name) for name in sides}, repeats)
    return {
        "setting": f"horizon {HORIZON}, {candidates} candidates, {grid * grid} tokens per step, "
        f"depth {DEPTH}, width {width}",
        "seconds": {clock: timed[clock] for clock in ("cpu", "wall")},
        "ratio": asdict(ratio_of_medians(timed["rounds"]["eager"], timed["rounds"]["compiled"])),
        "rounds": timed["rounds"],
        "largest_difference": float((outcome["eager"] - outcome["compiled"]).abs().max()),
    }


def overhead(repeats: int = 20) -> dict[str, Any]:
    """Microseconds of processor time per iteration of every planner that samples."""
    rows = []
    for problems in (1, 16):
        plans = {name: free_plan(name, problems) for name in PLANNERS if name not in NOT_SAMPLING}
        timed = interleaved({name: plan for name, (plan, _) in plans.items()}, repeats)
        per = {name: 1e6 * timed["cpu"][name] / steps for name, (_, steps) in plans.items()}
        rows.append({"problems": problems, "microseconds_per_iteration": per})
    return {"setting": f"{SAMPLES} candidates, horizon {HORIZON}, width {ACTION}", "rows": rows}


def main(argv: list[str] | None = None) -> int:
    """Run the named parts, print them and put them into the results file."""
    parser = argparse.ArgumentParser(
        prog="python -m tubelet.benchmarks.planning_speed", description=__doc__
    )
    parser.add_argument("what", choices=["rollout", "compiled", "overhead", "swm", "all"])
    parser.add_argument("--repeats", type=int, help="timed rounds (default: the part's own)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--swm-python", help="an interpreter that has stable-worldmodel")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="problems (swm)")
    parser.add_argument(
        "--batch-iterations", type=int, default=ITERATIONS, help="of CEM for several problems (swm)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/planning_speed.json"), help="file"
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    repeats = {} if args.repeats is None else {"repeats": args.repeats}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "rollout": lambda: rollout(**repeats),
        "compiled": lambda: compiled(**repeats),
        "overhead": lambda: overhead(**repeats),
        "swm": lambda: swm(
            args.swm_python,
            batches=tuple(args.batches),
            batch_iterations=args.batch_iterations,
            **repeats,
        ),
    }
    names = list(parts) if args.what == "all" else [args.what]
    if "swm" in names and not args.swm_python:
        raise ConfigError("swm needs --swm-python: an interpreter that has stable-worldmodel 0.1.1")
    for name in names:
        result = parts[name]()
        stored = json.loads(args.out.read_text()) if args.out.exists() else {}
        command = f"python -m tubelet.benchmarks.planning_speed {name}"
        stored[name] = result | {"command": command, "machine": facts()}
        atomic_write_json(args.out, stored)
        print(json.dumps({name: result}, indent=1))
    print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
