"""A head that proposes actions: inverse dynamics over several steps, with later latents as goals.

    (latent now, latent of the goal, steps to go) -> the next actions

Trained on what trajectories did themselves: any later moment of an episode is a goal that its
actions reached (hindsight, arXiv 1707.01495; by regression, arXiv 1912.06088). What it says is the
mean over all ways that the data took, so it is rough where ways differ, and cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ConfigError

JOINT_GROUP = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-3}
"""How the head is optimised beside a world model that is trained with it."""


@dataclass(frozen=True, kw_only=True)
class ProposerConfig:
    """The head."""

    width: int = 256
    """Hidden width."""
    depth: int = 3
    """Hidden layers."""
    chunk: int = 8
    """Model steps whose actions are proposed at once; planners' horizons may be as long."""
    reach: int = 16
    """Most model steps to a goal; goals further off are treated as if they were so far."""
    detach: bool = True
    """Trained with the world model: leave the latter as it would be without the head; false: its
    gradient shapes the latents too, as inverse dynamics of many steps."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "chunk", "reach"):
            if getattr(self, name) < 1:
                raise ConfigError(f"proposer.{name} = {getattr(self, name)}: must be at least 1")


class Proposer(nn.Module):
    """The head: an MLP with layer norms.

    Args:
        config: architecture. state_dim, goal_dim: widths of the latent now (proprioception beside
            it) and of the goal's, flattened. action_dim: A, of a model step.
    """

    own_group: dict[str, Any]
    """How the optimiser treats it, where this is set (:func:`.optim.make_optimizer`)."""

    def __init__(self, config: ProposerConfig, *, state_dim: int, goal_dim: int, action_dim: int):
        super().__init__()
        c = self.config = config
        self.action_dim = action_dim
        self.embed = nn.Linear(state_dim + goal_dim, c.width)
        self.steps = nn.Embedding(c.reach, c.width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(c.width), nn.GELU(), nn.Linear(c.width, c.width))
            for _ in range(c.depth)
        )
        self.out = nn.Sequential(nn.LayerNorm(c.width), nn.Linear(c.width, c.chunk * action_dim))

    def forward(self, state: Tensor, goal: Tensor, steps: Tensor) -> Tensor:
        """Actions ``[M, chunk, A]`` from ``state [M, S]`` to ``goal [M, G]`` in ``steps``, int64
        ``[M]``, at least 1."""
        x = self.embed(torch.cat([state, goal], dim=-1).to(self.embed.weight.dtype))
        x = x + self.steps(steps.clamp(1, self.config.reach) - 1)
        for layer in self.layers:
            x = x + layer(x)
        return self.out(x).unflatten(-1, (self.config.chunk, self.action_dim))

    def propose(self, state: Tensor, goal: Tensor, steps: Sequence[int], horizon: int) -> Tensor:
        """Actions ``[B, K, H, A]`` for each of K numbers of steps; zeros once they are over.

        Raises:
            ConfigError: a horizon longer than the chunk; a number of steps under 1; none.
        """
        if not 1 <= horizon <= self.config.chunk:
            raise ConfigError(
                f"horizon = {horizon}: the head proposes 1 to {self.config.chunk} model steps "
                "(proposer.chunk); plan with a shorter horizon or train it with a longer chunk"
            )
        if not steps or min(steps) < 1:
            raise ConfigError(f"steps to go = {tuple(steps)}: name some numbers, each at least 1")
        numbers = torch.tensor(list(steps), device=state.device)
        count = len(numbers)
        found = self(
            state.repeat_interleave(count, dim=0),
            goal.repeat_interleave(count, dim=0),
            numbers.repeat(len(state)),
        ).unflatten(0, (len(state), count))[:, :, :horizon]
        return found * _before(numbers, horizon)[None, ..., None]


def proposal_loss(found: Tensor, actions: Tensor, steps: Tensor) -> Tensor:
    """Mean squared error of proposals ``[M, C, A]`` over the actions before the goal is reached.

    Args:
        actions: ``[M, C, A]``, what was done; from ``steps`` (int64 ``[M]``) on they do not count.
    """
    counts = _before(steps, found.shape[1])[..., None]
    error = (found - actions).square() * counts
    return error.sum() / (counts.sum() * found.shape[2])


def hindsight_loss(
    head: Proposer,
    states: Tensor,
    goals: Tensor,
    actions: Tensor,
    *,
    generator: torch.Generator,
) -> Tensor:
    """The head's loss on windows: one moment of each, and a later one as its goal, at random.

    Args:
        states: ``[B, H + 1, S]``. goals: ``[B, H + 1, G]``. actions: ``[B, H, A]`` between them.
        generator: a CPU generator.
    """
    batch, horizon = actions.shape[:2]
    now = torch.randint(horizon, (batch,), generator=generator)
    share = torch.rand(batch, generator=generator)
    limit = (horizon - now).clamp_max(head.config.reach)
    steps = 1 + (share * limit).long().clamp_max(limit - 1)
    rows, now, steps = torch.arange(batch), now.to(states.device), steps.to(states.device)
    padded = F.pad(actions, (0, 0, 0, head.config.chunk))
    window = now[:, None] + torch.arange(head.config.chunk, device=now.device)
    found = head(states[rows, now], goals[rows, now + steps], steps)
    return proposal_loss(found, padded[rows[:, None].to(now.device), window], steps)


def _before(steps: Tensor, count: int) -> Tensor:
    """``[M, count]``: 1 for each of the first ``steps [M]`` entries, 0 after them."""
    return (torch.arange(count, device=steps.device) < steps[:, None]).float()
