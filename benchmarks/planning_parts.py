"""What the measurements of :mod:`.planning_speed` share: a predictor, a free model, peak memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ..core.latent import Latent
from ..core.rng import torch_generator
from ..planning import PLANNERS, CategoricalConfig, make_planner
from ..vjepa.action_predictor import ActionPredictor, ActionPredictorConfig

WIDTH, DEPTH, HEADS = 192, 6, 3
HORIZON, SAMPLES, ITERATIONS, ELITES, ACTION = 5, 300, 30, 30, 10
NOT_SAMPLING = ("pgd", "adam", "hybrid", "amortised")
"""Planners that follow gradients, or what a head proposes."""


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


def free_plan(name: str, problems: int) -> tuple[Callable[[], object], int]:
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
