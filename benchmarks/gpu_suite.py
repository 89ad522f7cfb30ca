"""A suite on an accelerator: success, minutes of training, and seconds that an action takes.

    python -m tubelet.benchmarks.gpu_suite --out runs/gpu_suite                 # one GPU; resumable
    python -m tubelet.benchmarks.gpu_suite --suite debug --device cpu --batches 1 2 --out /tmp/try

Runs the suite as ``tubelet bench`` does, then loads each trained model again and plans with random
pictures, some problems at a time; models of tokens also imagine with and without the cache of past
steps. Writes ``<out>/gpu_suite.json`` with the hardware named; copy it to ``benchmarks/results/``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.errors import ConfigError, TubeletError
from ..core.io import atomic_write_json
from ..core.machine import facts
from ..core.rng import numpy_generator, torch_generator
from ..planning import SearchConfig
from ..vjepa.action_predictor import ActionPredictor
from ..vjepa.device import prepare
from ..vjepa.train_recipe import load_world_model
from ..vjepa.world_model import WorldModel
from . import suite as protocol
from .cell import Cell
from .grid import EnvEntry, Suite, load_suite
from .results import load_results
from .run_report import boards
from .run_suite import run_suite
from .timing import device_seconds


@dataclass(frozen=True, kw_only=True)
class Config:
    """Run a suite on one device, and time its planning."""

    out: str = "runs/gpu_suite"
    """Folder of everything."""
    suite: str = "gpu"
    """A built-in suite or a YAML file."""
    device: str = "cuda"
    """Where to train and plan."""
    batches: tuple[int, ...] = (1, 50)
    """Problems planned for at once."""
    repeats: int = 5
    """Timed plans of each kind, after two more."""
    candidates: int = 64
    """Imagined action sequences, with and without the cache."""

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1 or min(self.repeats, self.candidates) < 1:
            raise ConfigError("batches, repeats and candidates must be at least 1")


def run(config: Config) -> dict[str, Any]:
    """Do what is missing of the suite, then measure; returns (and writes) the measurements.

    Raises TubeletError if a job of the suite failed; the same command goes on.
    """
    out, suite = Path(config.out), load_suite(config.suite)
    outcome = run_suite(config.suite, out, device=config.device)
    if outcome.failed:
        raise TubeletError("; ".join(f"{name}: {why}" for name, why in outcome.failed.items()))
    device = prepare(config.device, 0)
    report = {
        "machine": facts(),
        "suite": config.suite,
        "leaderboards": [board.to_json() for board in boards(load_results(out))],
        "training_seconds": _training_seconds(out),
        "planning": [
            _timed(config, suite, out, env, model, seed, device)
            for model, entry in suite.models.items()
            for env in entry.envs or suite.envs
            for seed in suite.seeds
        ],
    }
    atomic_write_json(out / "gpu_suite.json", report)
    return report


def _training_seconds(out: Path) -> dict[str, float]:
    """Seconds by the clock of each job that trains."""
    done = sorted((out / "done").glob("*train.*.json"))
    return {p.stem: json.loads(p.read_text(encoding="utf-8"))["seconds"] for p in done}


def _timed(
    config: Config, suite: Suite, out: Path, env: str, name: str, seed: int, device: str
) -> dict[str, Any]:
    cell = Cell(suite=config.suite, out=str(out), do="plan", env=env, model=name, seed=seed)
    model = load_world_model(cell.run("train"), device=device)
    row: dict[str, Any] = {"env": env, "model": name, "seed": seed, "seconds_per_action": {}}
    for planner, search in suite.planners.items():
        row["seconds_per_action"][planner] = {
            str(count): _action_seconds(config, suite.envs[env], search, model, count, device)
            for count in config.batches
        }
    predictor = model.predictor
    if model.config.latent == "tokens" and isinstance(predictor, ActionPredictor):
        search = next(iter(suite.planners.values()))
        row["rollout"] = _rollouts(config, search, model, predictor, device)
    return row


def _action_seconds(
    config: Config,
    entry: EnvEntry,
    search: SearchConfig,
    model: WorldModel,
    count: int,
    device: str,
) -> float:
    """Seconds of an environment action of one problem, ``count`` planned for at once."""
    mpc = replace(entry.mpc, action_block=model.config.action_block)
    agent = protocol.planning_agent(model, search=search, mpc=mpc, cost=entry.cost)
    pixels = _pixels(model, count)
    agent.reset({"pixels": pixels[:, 0]})
    seconds = device_seconds(lambda: agent.act({"pixels": pixels}), device, config.repeats)
    return seconds / (count * agent.actions_per_call)


def _rollouts(
    config: Config,
    search: SearchConfig,
    model: WorldModel,
    predictor: ActionPredictor,
    device: str,
) -> dict[str, float]:
    """Seconds of imagining, from one context: with the cache, and recomputing every step."""
    with torch.inference_mode():
        context = model.encode({"pixels": _pixels(model, 1)}).tokens
    draw = torch_generator(0, "gpu_suite", "actions")
    shape = (1, config.candidates, search.horizon, model.action_dim)
    actions = torch.rand(shape, generator=draw).to(device)
    past = actions.new_zeros(1, context.shape[1] - 1, model.action_dim)
    every = torch.cat([past.expand(config.candidates, -1, -1), actions[0]], 1)
    starts = context.expand(config.candidates, -1, -1, -1)
    calls: dict[str, Callable[[], object]] = {
        "cached": lambda: predictor.rollout_candidates(context, past, actions),
        "recomputed": lambda: predictor.rollout(starts, every, use_cache=False),
    }
    with torch.inference_mode():
        seconds = {
            name: device_seconds(call, device, config.repeats) for name, call in calls.items()
        }
    return seconds | {"ratio": seconds["recomputed"] / seconds["cached"]}


def _pixels(model: WorldModel, count: int) -> np.ndarray:
    """Noise in place of pictures, uint8 ``[count, T, H, W, 3]``."""
    c = model.config
    shape = (count, c.encoder.tubelet, c.image_size, c.image_size, 3)
    return numpy_generator(0, "gpu_suite", count).integers(0, 256, shape, dtype=np.uint8)


if __name__ == "__main__":
    import tyro

    print(json.dumps(run(tyro.cli(Config, description=__doc__))["planning"], indent=1))
