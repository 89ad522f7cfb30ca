"""Planning beside stable-worldmodel with the same predictor and weights, in turns."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ..core.errors import TubeletError
from ..core.latent import Latent
from ..core.rng import torch_generator
from ..planning import CEM, CEMConfig, LatentCost
from ..vjepa.action_predictor import ActionPredictor
from .planning_parts import (
    ACTION,
    DEPTH,
    ELITES,
    HEADS,
    HORIZON,
    ITERATIONS,
    SAMPLES,
    WIDTH,
    Free,
    build_predictor,
    free_plan,
)
from .timing import ratio_of_medians


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
        result["free"] = [_free_side_by_side(peer, n, 25 * repeats) for n in batches]
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
    """Microseconds of processor time per iteration with a free cost, in turns.

    A turn is two plans, of which the second counts: the first brings back what the other side's
    turn has driven from the processor's caches.
    """
    ours, steps = free_plan("cem", problems)
    times: dict[str, list[float]] = {"tubelet": [], "stable-worldmodel": []}
    ask = {"do": "solve", "model": "free", "problems": problems, "iterations": steps}
    for i in range(rounds):
        ours()
        processor = time.process_time()
        ours()
        times["tubelet"].append(1e6 * (time.process_time() - processor) / steps)
        peer.ask(**ask, seed=i)
        times["stable-worldmodel"].append(1e6 * peer.ask(**ask, seed=i)["cpu"] / steps)
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
