"""Speed of planning: ``python -m tubelet.benchmarks.planning_speed rollout|overhead|swm|all``.

* ``rollout``: the cached rollout of a token grid against recomputing the sequence, and its memory
  under a limit in bytes.
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
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ..core.errors import ConfigError, TubeletError
from ..core.io import atomic_write_json
from ..core.latent import Latent
from ..core.machine import facts
from ..core.rng import torch_generator
from ..planning import CEM, PLANNERS, CategoricalConfig, CEMConfig, LatentCost, make_planner
from ..vjepa.action_predictor import ActionPredictor, ActionPredictorConfig
from ..vjepa.world_model import candidate_bytes
from .timing import interleaved, ratio_of_medians

WIDTH, DEPTH, HEADS = 192, 6, 3
HORIZON, SAMPLES, ITERATIONS, ELITES, ACTION = 5, 300, 30, 30, 10


class PeakMemory(TorchDispatchMode):
    """Bytes of the tensors made inside the ``with`` block that were alive at once: ``peak``."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


def build_predictor(
    grid: int, latent_dim: int, action_dim: int, width: int = WIDTH
) -> ActionPredictor:
    """The benchmark's predictor with weights from seed 0; its residual head does not start at 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ActionPredictorConfig(width=width, depth=DEPTH, heads=width // 64)
        predictor = ActionPredictor(
            config, latent_dim=latent_dim, action_dim=action_dim, grid=(grid, grid)
        )
        torch.nn.init.normal_(predictor.head.weight, std=0.05)
    return predictor.eval().requires_grad_(False)


# --- rollouts of token grids ------------------------------------------------------------------


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


# --- overhead ---------------------------------------------------------------------------------


class Free:
    """A dynamics that costs nothing: the latent is the action."""

    action_dim = ACTION

    def encode(self, obs: Any) -> Latent:
        """Latents are given, not encoded."""
        return Latent(obs["pixels"])

    encode_goal = encode

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        return Latent(actions.unsqueeze(-2))


def first_number(trajectory: Latent, goal: Latent) -> Tensor:
    """A free cost ``[B, S]``."""
    return trajectory.tokens[:, :, 0, 0, 0]


def overhead(repeats: int = 20) -> dict[str, Any]:
    """Microseconds of processor time per iteration of every planner that samples."""
    rows = []
    for problems in (1, 16):
        plans = {name: _free_plan(name, problems) for name in PLANNERS if name not in _GRADIENTS}
        timed = interleaved({name: plan for name, (plan, _) in plans.items()}, repeats)
        per = {name: 1e6 * timed["cpu"][name] / steps for name, (_, steps) in plans.items()}
        rows.append({"problems": problems, "microseconds_per_iteration": per})
    return {"setting": f"{SAMPLES} candidates, horizon {HORIZON}, width {ACTION}", "rows": rows}


_GRADIENTS = ("pgd", "adam", "hybrid")


def _free_plan(name: str, problems: int) -> tuple[Callable[[], object], int]:
    """A plan with a free model, and its iterations."""
    kind = PLANNERS[name][0]
    changes: dict[str, Any] = {"horizon": HORIZON, "samples": SAMPLES, "iterations": ITERATIONS}
    if name == "shooting":
        changes = {"horizon": HORIZON, "samples": SAMPLES * ITERATIONS, "batch": SAMPLES}
    if kind is CategoricalConfig:
        changes["levels"] = (-1.0, 0.0, 1.0)
    planner = make_planner(kind(**changes), ACTION, first_number)
    zeros = Latent(torch.zeros(problems, 1, 1, ACTION))
    generator = torch_generator(0, "speed", name)

    def plan() -> object:
        return planner.plan(Free(), zeros, zeros.map(lambda x: x[:, 0]), generator=generator)

    return plan, ITERATIONS


# --- beside stable-worldmodel -----------------------------------------------------------------


class Vector(Free):
    """The benchmark's predictor over one vector per step, as a planner's dynamics."""

    def __init__(self) -> None:
        self.predictor = build_predictor(1, WIDTH, ACTION)

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        past = actions.new_zeros(len(actions), 0, ACTION)
        return Latent(self.predictor.rollout_candidates(context.tokens, past, actions))


class Peer:
    """stable-worldmodel's planner in another interpreter; see :mod:`.swm_compare`."""

    def __init__(self, python: str, job: dict[str, Any], tensors: dict[str, Tensor], folder: Path):
        torch.save(tensors, folder / "tensors.pt")
        path = folder / "job.json"
        path.write_text(json.dumps(job | {"tensors": str(folder / "tensors.pt")}))
        script = Path(__file__).with_name("swm_compare.py")
        self._process = subprocess.Popen(
            [python, str(script), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.torch = self._answer()["ready"]

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "it ended without an answer"}
        if "error" in answer:
            raise TubeletError(f"the other planner's process: {answer['error']}")
        return answer


@contextmanager
def _peer(python: str, tensors: dict[str, Tensor], predictor: ActionPredictor):
    job = {
        "threads": torch.get_num_threads(),
        "predictor": {"width": WIDTH, "depth": DEPTH, "heads": HEADS},
        "latent_dim": WIDTH,
        "action_dim": ACTION,
        "horizon": HORIZON,
        "samples": SAMPLES,
        "elites": ELITES,
        "init_std": 1.0,
    }
    weights = {f"predictor.{k}": v for k, v in predictor.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(python, job, tensors | weights, Path(folder))
        try:
            yield peer
        finally:
            peer.close()


def swm(
    python: str,
    repeats: int = 4,
    batches: tuple[int, ...] = (1, 16),
    batch_iterations: int = ITERATIONS,
) -> dict[str, Any]:
    """Both planners on the same problems; goals are what known actions inside [-1, 1] lead to.

    Several problems at once are planned for once, with ``batch_iterations``.
    """
    dynamics, tensors = Vector(), {}
    draw = torch_generator(0, "speed", "swm")
    most = max(repeats, *batches)
    tensors["context"] = torch.randn(most, 1, WIDTH, generator=draw)
    tensors["candidates"] = torch.rand(most, 8, HORIZON, ACTION, generator=draw) * 2 - 1
    context = Latent(tensors["context"][:, :, None])
    with torch.inference_mode():
        reached = dynamics.rollout(context, tensors["candidates"][:, :1]).tokens[:, 0, -1]
        goal = Latent(reached.clone())
        ours = LatentCost()(dynamics.rollout(context, tensors["candidates"]), goal)
    tensors["goal"] = goal.tokens
    with _peer(python, tensors, dynamics.predictor) as peer:
        theirs = torch.tensor(peer.ask(do="cost", model="full")["cost"]) / WIDTH
        result: dict[str, Any] = {
            "setting": f"CEM, {SAMPLES} samples, {ITERATIONS} iterations, {ELITES} elites, horizon "
            f"{HORIZON}, actions of {ACTION}; AdaLN, depth {DEPTH}, width {WIDTH}, one vector per "
            f"step, {torch.get_num_threads()} thread(s)",
            "largest_cost_difference": float((ours - theirs).abs().max()),
            "peer_torch": peer.torch,
            "rows": [],
        }
        for problems in batches:
            rounds = repeats if problems == 1 else 1
            steps = ITERATIONS if problems == 1 else batch_iterations
            row = _side_by_side(peer, dynamics, context, goal, problems, rounds, steps)
            result["rows"].append(row)
            print(json.dumps(row, indent=1), flush=True)
        result["free"] = [_free_side_by_side(peer, n, 5 * repeats) for n in batches]
        result["other_models"] = {
            kind: _median_cpu(peer, kind, repeats) for kind in ("window", "own")
        }
    return result


def _side_by_side(
    peer: Peer,
    dynamics: Vector,
    context: Latent,
    goal: Latent,
    problems: int,
    rounds: int,
    iterations: int,
) -> dict[str, Any]:
    """Plans in turns; each round has problems of its own if it plans one at a time."""
    config = CEMConfig(
        horizon=HORIZON,
        samples=SAMPLES,
        iterations=iterations,
        elites=ELITES,
        init_std=1.0,
        min_std=0.0,
        returns="best",
    )
    planner = CEM(config, ACTION)
    seconds: dict[str, list[float]] = {"tubelet": [], "stable-worldmodel": []}
    wall: dict[str, list[float]] = {name: [] for name in seconds}
    found: dict[str, list[Tensor]] = {"tubelet": [], "raw": [], "clipped": [], "idle": []}
    outside = []
    peer.ask(do="solve", model="full", problems=1, iterations=1, seed=0)  # loads what it needs
    for i in range(rounds):
        rows = slice(i, i + problems)
        here, there = (x.map(lambda t: t[rows]) for x in (context, goal))  # noqa: B023
        for name in list(seconds)[:: -1 if i % 2 else 1]:
            if name == "tubelet":
                generators = [torch_generator(i, "speed", n) for n in range(problems)]
                clock, processor = time.perf_counter(), time.process_time()
                plan = planner.plan(dynamics, here, there, generator=generators)
                seconds[name].append(time.process_time() - processor)
                wall[name].append(time.perf_counter() - clock)
                assert (plan.actions.abs() <= 1).all()
                found["tubelet"].append(plan.cost)
                continue
            answer = peer.ask(
                do="solve", model="full", problems=problems, first=i, iterations=iterations, seed=i
            )
            seconds[name].append(answer["cpu"])
            wall[name].append(answer["wall"])
            actions = torch.tensor(answer["actions"])
            outside.append((actions.abs() > 1).float().mean(1).mean(1))
            both = torch.stack([actions, actions.clamp(-1, 1), 0 * actions], 1)
            with torch.inference_mode():
                cost = LatentCost()(dynamics.rollout(here, both), there)
            found["raw"].append(cost[:, 0])
            found["clipped"].append(cost[:, 1])
            found["idle"].append(cost[:, 2])
    ratio = ratio_of_medians(seconds["stable-worldmodel"], seconds["tubelet"])
    costs = {name: torch.cat(values) for name, values in found.items()}
    return {
        "problems": problems,
        "iterations": iterations,
        "rounds": rounds,
        "cpu_seconds": {name: median(values) for name, values in seconds.items()},
        "wall_seconds": {name: median(values) for name, values in wall.items()},
        "ratio": asdict(ratio) if rounds > 1 else {"value": ratio.value, "low": None, "high": None},
        "final_cost": {
            "no action": float(torch.cat(found["idle"]).mean()),
            "tubelet": float(costs["tubelet"].mean()),
            "stable-worldmodel, as returned": float(costs["raw"].mean()),
            "stable-worldmodel, clipped to the bounds": float(costs["clipped"].mean()),
            "tubelet lower than clipped": int((costs["tubelet"] <= costs["clipped"]).sum()),
            "plans": len(costs["tubelet"]),
        },
        "outside_bounds": {"tubelet": 0.0, "stable-worldmodel": float(torch.cat(outside).mean())},
    }


def _free_side_by_side(peer: Peer, problems: int, rounds: int) -> dict[str, Any]:
    """Microseconds of processor time per iteration with a free cost, in turns."""
    ours, steps = _free_plan("cem", problems)
    times: dict[str, list[float]] = {"tubelet": [], "stable-worldmodel": []}
    ours()
    for i in range(rounds):
        processor = time.process_time()
        ours()
        times["tubelet"].append(1e6 * (time.process_time() - processor) / steps)
        answer = peer.ask(do="solve", model="free", problems=problems, iterations=steps, seed=i)
        times["stable-worldmodel"].append(1e6 * answer["cpu"] / steps)
    return {
        "problems": problems,
        "rounds": rounds,
        "microseconds_per_iteration": {name: median(values) for name, values in times.items()},
        "least": {name: min(values) for name, values in times.items()},
    }


def _median_cpu(peer: Peer, model: str, rounds: int) -> float:
    """Processor seconds of its plan of one problem with another model."""
    asked = [
        peer.ask(do="solve", model=model, problems=1, iterations=ITERATIONS, seed=i)
        for i in range(rounds)
    ]
    return median(answer["cpu"] for answer in asked)


# --- command ----------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Run the named parts, print them and put them into the results file."""
    parser = argparse.ArgumentParser(
        prog="python -m tubelet.benchmarks.planning_speed", description=__doc__
    )
    parser.add_argument("what", choices=["rollout", "overhead", "swm", "all"])
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
