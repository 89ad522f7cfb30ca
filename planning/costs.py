"""How far imagined latents are from a goal's latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import ConfigError, PlanningError
from ..core.latent import Latent

KINDS = ("l1", "l2", "cosine")
STEPS = ("last", "sum", "discounted", "weights")


@dataclass(frozen=True, kw_only=True)
class LatentCost:
    """Distance of a trajectory to the goal, ``cost(trajectory, goal) -> float32 [B, S]``.

    A step's distance is the mean over channels, then the (weighted) mean over tokens; the cost is
    the weighted sum over the horizon with weights that sum to 1, so every choice of ``steps`` is on
    the scale of one step's distance.

    Attributes:
        kind: "l2" mean squared difference, "l1" mean absolute difference, "cosine" one minus the
            cosine of each token pair.
        steps: which steps of the horizon count. "last"; "sum" all alike; "discounted" the step j
            before the last weighs ``discount**j``; "weights" as given in ``weights``.
        discount: in (0, 1], for ``steps="discounted"``.
        weights: one non-negative number per step of the horizon, for ``steps="weights"``.
        token_weights: one non-negative number per token, or empty for all alike.
        proprio_weight: adds this times the proprioceptive distance (mean over the P entries;
            absolute for "l1", squared otherwise). 0 ignores proprioception.
        saturation: c > 0 replaces each step's distance d by ``d / (d + c)``. Far from the goal,
            where latent distance says little and may have to rise before it falls, all steps then
            cost nearly the same; arriving early and staying is what pays. 0 switches it off.

    Raises:
        ConfigError: an impossible setting, when built.
        PlanningError: weights that do not fit the trajectory, or proprioception that is missing.
    """

    kind: Literal["l1", "l2", "cosine"] = "l2"
    steps: Literal["last", "sum", "discounted", "weights"] = "last"
    discount: float = 0.8
    weights: tuple[float, ...] = ()
    token_weights: tuple[float, ...] = ()
    proprio_weight: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        checks = {
            f"kind = {self.kind!r}: choose one of {', '.join(KINDS)}": self.kind in KINDS,
            f"steps = {self.steps!r}: choose one of {', '.join(STEPS)}": self.steps in STEPS,
            f"discount = {self.discount}: must be in (0, 1]": 0 < self.discount <= 1,
            f"weights = {self.weights}: give some exactly when steps = 'weights'": (
                bool(self.weights) == (self.steps == "weights")
            ),
            f"weights = {self.weights}: {_WEIGHT_RULE}": _usable(self.weights),
            f"token_weights = {self.token_weights}: {_WEIGHT_RULE}": _usable(self.token_weights),
            f"proprio_weight = {self.proprio_weight}: must be 0 or more": (
                0 <= self.proprio_weight < float("inf")
            ),
            f"saturation = {self.saturation}: must be 0 or more": (
                0 <= self.saturation < float("inf")
            ),
        }
        wrong = [message for message, fine in checks.items() if not fine]
        if wrong:
            raise ConfigError("; ".join(wrong))

    def __call__(self, trajectory: Latent, goal: Latent) -> Tensor:
        """Cost float32 ``[B, S]`` of tokens ``[B, S, H, N, D]`` against a goal ``[B, N, D]``."""
        weights = self._step_weights(trajectory.tokens)
        if self.steps == "last":
            trajectory = trajectory.map(lambda tensor: tensor[:, :, -1:])
        cost = self._token_distance(trajectory.tokens.float(), goal.tokens.float())
        if self.proprio_weight:
            cost = cost + self.proprio_weight * self._proprio_distance(trajectory, goal)
        if self.saturation:
            cost = cost / (cost + self.saturation)
        return cost @ weights

    def _step_weights(self, tokens: Tensor) -> Tensor:
        """Weights float32 ``[H]`` that sum to 1 (``[1]`` for the last step only)."""
        horizon = tokens.shape[2]
        if self.steps == "last":
            return tokens.new_ones(1, dtype=torch.float32)
        if self.steps == "weights":
            return _normalised(self.weights, horizon, "weights", "steps", tokens.device)
        discount = self.discount if self.steps == "discounted" else 1.0
        weights = [discount**j for j in reversed(range(horizon))]
        return _normalised(weights, horizon, "weights", "steps", tokens.device)

    def _token_distance(self, tokens: Tensor, goal: Tensor) -> Tensor:
        """Distances ``[B, S, H]`` of tokens ``[B, S, H, N, D]`` to a goal ``[B, N, D]``."""
        goal = goal[:, None, None]
        if self.kind == "cosine":
            distance = 1 - F.cosine_similarity(tokens, goal, dim=-1)
        else:
            distance = _difference(tokens, goal, self.kind)
        if not self.token_weights:
            return distance.mean(-1)
        count = tokens.shape[-2]
        return distance @ _normalised(
            self.token_weights, count, "token_weights", "tokens", tokens.device
        )

    def _proprio_distance(self, trajectory: Latent, goal: Latent) -> Tensor:
        """Distances ``[B, S, H]`` of proprioception ``[B, S, H, P]`` to a goal ``[B, P]``."""
        if trajectory.proprio is None or goal.proprio is None:
            where = "goal" if trajectory.proprio is not None else "imagined trajectory"
            raise PlanningError(
                f"proprio_weight = {self.proprio_weight} but the {where} has no proprioception; "
                "set proprio_weight = 0 or use a model that predicts it"
            )
        goal_proprio = goal.proprio[:, None, None].float()
        return _difference(trajectory.proprio.float(), goal_proprio, self.kind)


_WEIGHT_RULE = "each must be finite and 0 or more, one of them above 0"


def _usable(weights: tuple[float, ...]) -> bool:
    return not weights or (all(0 <= w < float("inf") for w in weights) and sum(weights) > 0)


def _difference(a: Tensor, b: Tensor, kind: str) -> Tensor:
    difference = a - b
    return (difference.abs() if kind == "l1" else difference.square()).mean(-1)


def _normalised(
    weights: tuple[float, ...] | list[float],
    count: int,
    key: str,
    unit: str,
    device: torch.device,
) -> Tensor:
    if len(weights) != count:
        raise PlanningError(f"{key} has {len(weights)} numbers but there are {count} {unit}")
    tensor = torch.tensor(weights, dtype=torch.float32, device=device)
    return tensor / tensor.sum()
