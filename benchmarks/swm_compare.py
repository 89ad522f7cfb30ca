"""The other side of ``planning_speed``: stable-worldmodel's planner, driven line by line.

Run by an interpreter that has stable-worldmodel 0.1.1 (its planning code needs torch, gymnasium,
einops and loguru; ``pip install --no-deps stable-worldmodel`` is enough). It needs no tubelet: the
predictor's code is read from this checkout.

    PYTHON benchmarks/swm_compare.py job.json      (requests on stdin, answers on stdout, as JSON)

Its solver, its rollout and its cost drive the *same* predictor with the same weights. Only the
encoder is replaced, by one that hands over latents as they are. Its packages are opened without
running their ``__init__``, which would import data formats that planning does not use.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Answer requests until stdin ends."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    spec = importlib.util.find_spec("stable_worldmodel")
    if spec is None or not spec.submodule_search_locations:
        print(json.dumps({"error": f"{sys.executable} has no stable-worldmodel"}), flush=True)
        return 1
    _open("tubelet", str(ROOT))
    package = spec.submodule_search_locations[0]
    _open("stable_worldmodel", package)
    _open("stable_worldmodel.wm", f"{package}/wm")
    tensors = torch.load(job["tensors"], weights_only=True)
    print(json.dumps({"ready": torch.__version__}), flush=True)
    answers, sys.stdout = sys.stdout, open(os.devnull, "w")  # the solver prints  # noqa: SIM115
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"solve": _solve, "cost": _cost}[request["do"]](job, tensors, request)
        print(json.dumps(answer), file=answers, flush=True)
    return 0


def _solve(job: dict[str, Any], tensors: dict[str, Tensor], request: dict[str, Any]) -> dict:
    """One plan of its CEM: processor and wall seconds, and the actions ``[B, H, A]``."""
    solvers = importlib.import_module("stable_worldmodel.solver")
    spaces = importlib.import_module("gymnasium").spaces
    problems, width = request["problems"], job["action_dim"]
    box = spaces.Box(-1.0, 1.0, shape=(problems, width))
    solver = solvers.CEMSolver(
        _model(job, tensors, request["model"]),
        # LeWM's cost of 0.1.1 takes one problem at a time (its goal does not broadcast over more)
        batch_size=problems if request["model"] == "free" else 1,
        num_samples=job["samples"],
        var_scale=job["init_std"],
        n_steps=request["iterations"],
        topk=job["elites"],
        seed=request["seed"],
    )
    plan = types.SimpleNamespace(horizon=job["horizon"], action_block=1)
    solver.configure(action_space=box, n_envs=problems, config=plan)
    info = _info(tensors, request)
    clock, processor = time.perf_counter(), time.process_time()
    out = solver.solve(info)
    seconds = {"cpu": time.process_time() - processor, "wall": time.perf_counter() - clock}
    return {**seconds, "actions": out["actions"].tolist()}


def _cost(job: dict[str, Any], tensors: dict[str, Tensor], request: dict[str, Any]) -> dict:
    """Its cost ``[B, S]`` of the candidates ``[B, S, H, A]`` in the job's tensors."""
    model, costs = _model(job, tensors, request["model"]), []
    for row, candidates in enumerate(tensors["candidates"]):
        info = _info(tensors, {"first": row, "problems": 1})
        info = {k: v[:, None].expand(-1, len(candidates), *v.shape[1:]) for k, v in info.items()}
        with torch.inference_mode():
            costs += model.get_cost(info, candidates[None]).tolist()
    return {"cost": costs}


def _info(tensors: dict[str, Tensor], request: dict[str, Any]) -> dict[str, Tensor]:
    """Latents where it expects pixels: one context step and one goal per problem."""
    rows = slice(request.get("first", 0), request.get("first", 0) + request["problems"])
    context, goal = tensors["context"][rows], tensors["goal"][rows]
    action = torch.zeros(len(context), 1, tensors["candidates"].shape[-1])
    return {"pixels": context, "goal": goal, "action": action}


def _model(job: dict[str, Any], tensors: dict[str, Tensor], kind: str) -> Any:
    """``free``: a cost without a model; ``full`` and ``window``: its LeWM around our predictor,
    seeing all steps or the last three; ``own``: its LeWM around its own predictor of these sizes.
    """
    if kind == "free":
        return _Free()
    lewm = importlib.import_module("stable_worldmodel.wm.lewm.lewm")
    width = job["predictor"]["width"]
    if kind == "own":
        network = importlib.import_module("stable_worldmodel.wm.lewm.module")
        predictor = network.Predictor(
            num_frames=3,
            depth=job["predictor"]["depth"],
            heads=job["predictor"]["heads"],
            mlp_dim=4 * width,
            input_dim=width,
            hidden_dim=width,
            dim_head=width // job["predictor"]["heads"],
        )
        actions: nn.Module = network.Embedder(input_dim=job["action_dim"], emb_dim=width)
    else:
        predictor = _Predictor(job, tensors, frames=3 if kind == "window" else job["horizon"] + 1)
        actions = nn.Identity()
    return lewm.LeWM(_Handed(), predictor, actions).eval().requires_grad_(False)


class _Predictor(nn.Module):
    """The shared predictor with the call of LeWM's."""

    def __init__(self, job: dict[str, Any], tensors: dict[str, Tensor], frames: int):
        super().__init__()
        ours = importlib.import_module("tubelet.vjepa.action_predictor")
        config = ours.ActionPredictorConfig(**job["predictor"])
        self.network = ours.ActionPredictor(
            config, latent_dim=job["latent_dim"], action_dim=job["action_dim"]
        )
        prefix = "predictor."
        weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        self.network.load_state_dict(weights)
        self.num_frames = frames

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        return self.network(latents.unsqueeze(2), actions).squeeze(2)


class _Handed(nn.Module):
    """An encoder whose class token is its input."""

    def __init__(self) -> None:
        super().__init__()
        self.kind = nn.Parameter(torch.zeros(()))

    def forward(self, pixels: Tensor, **_: Any) -> Any:
        return types.SimpleNamespace(last_hidden_state=pixels.unsqueeze(1))


class _Free:
    """Costs nothing to evaluate: the first number of the actions."""

    def get_cost(self, info: dict[str, Tensor], candidates: Tensor) -> Tensor:
        return candidates[..., 0, 0]


def _open(name: str, folder: str) -> None:
    """A package ``name`` whose modules are found in ``folder``; its ``__init__`` is not run."""
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package


if __name__ == "__main__":
    raise SystemExit(main())
