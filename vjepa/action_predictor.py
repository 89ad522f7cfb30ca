"""Action-conditioned latent dynamics: a transformer that is causal over time steps.

Step t sees its own N tokens and those of every earlier step, conditioned on the actions taken
there, and predicts the tokens of step t + 1. Rollouts keep the keys and values of past steps.
V-JEPA 2-AC (arXiv 2506.09985) conditions by extra tokens; AdaLN (DiT, arXiv 2212.09748) is the
better choice on average in the study of arXiv 2512.24497.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ConfigError
from .blocks import Block, init_weights
from .positions import Grid, PositionConfig, Rotation, check_positions, rope_table

Cache = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class ActionPredictorConfig:
    """Architecture of the action-conditioned predictor."""

    width: int = 256
    """Width of the transformer."""
    depth: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads; must divide the width."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over the width."""
    conditioning: Literal["adaln", "tokens"] = "adaln"
    """How actions enter: modulation of every block, or one extra token per step."""
    residual: bool = True
    """Predict the change of the latent rather than the latent."""

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads) < 1 or self.width % self.heads:
            near = max(self.heads, 1) * max(1, round(self.width / max(self.heads, 1)))
            raise ConfigError(
                f"predictor.width = {self.width}, depth = {self.depth}, heads = {self.heads}: all "
                f"must be positive and heads divide the width (nearest width: {near})"
            )
        check_positions("predictor", PositionConfig(), self.width, self.heads)


class AdaBlock(Block):
    """A block whose norms and residual gates are modulated by a condition (AdaLN-zero)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__(width, heads, mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)


class ActionPredictor(nn.Module):
    """Predicts next-step latents ``[B, T, N, D]`` from latents and actions.

    Args:
        config: architecture.
        latent_dim: D of the latents.
        action_dim: A, width of a model step's action.
        grid: (height, width) of the N = height * width tokens of a step; (1, 1) for a vector.
    """

    def __init__(
        self,
        config: ActionPredictorConfig,
        *,
        latent_dim: int,
        action_dim: int,
        grid: tuple[int, int] = (1, 1),
    ):
        super().__init__()
        c = self.config = config
        self.grid, self.tokens, self.action_dim = grid, grid[0] * grid[1], action_dim
        self.embed = nn.Linear(latent_dim, c.width)
        self.place = nn.Parameter(0.02 * torch.randn(self.tokens, c.width))
        self.act = nn.Sequential(
            nn.Linear(action_dim, c.width), nn.SiLU(), nn.Linear(c.width, c.width)
        )
        kind = AdaBlock if c.conditioning == "adaln" else Block
        self.blocks = nn.ModuleList(kind(c.width, c.heads, c.mlp_ratio) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)
        self.head = nn.Linear(c.width, latent_dim)
        init_weights(self, self.blocks)
        for layer in self.act:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()  # normal(0, .02) would whisper: actions must be heard
        if c.residual:
            nn.init.zeros_(self.head.weight)
        for block in self.blocks:
            if isinstance(block, AdaBlock):
                # Gates start at one, shifts and scales near zero: a plain block, at first.
                with torch.no_grad():
                    block.modulation.bias.view(6, -1)[[2, 5]] = 1.0

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Teacher-forced prediction.

        Args:
            latents: ``[B, T, N, D]``, the true latents of T consecutive steps.
            actions: ``[B, T, A]``, the action taken after each of them.

        Returns:
            ``[B, T, N, D]``: the prediction of step t + 1 at index t.
        """
        return self.extend(latents, actions, None)[0]

    def rollout(self, context: Tensor, actions: Tensor, *, use_cache: bool = True) -> Tensor:
        """Imagine the latents that follow under actions.

        Args:
            context: ``[B, T, N, D]`` latents observed so far.
            actions: ``[B, T - 1 + H, A]``: the T - 1 actions between the context's steps, then the
                H actions to imagine.
            use_cache: keep keys and values of past steps (False recomputes them; same result).

        Returns:
            ``[B, H, N, D]`` imagined latents.
        """
        T = context.shape[1]
        horizon = actions.shape[1] - T + 1
        if horizon < 1:
            raise ConfigError(
                f"{actions.shape[1]} actions for a context of {T} steps: at least {T} are needed"
            )
        if not use_cache:
            steps = context
            for t in range(T, T + horizon):
                nxt = self.extend(steps, actions[:, :t], None)[0][:, -1:]
                steps = torch.cat([steps, nxt], dim=1)
            return steps[:, T:]
        predicted, cache = self.extend(context, actions[:, :T], None)
        out = [predicted[:, -1:]]
        for t in range(T, T + horizon - 1):
            predicted, cache = self.extend(out[-1], actions[:, t : t + 1], cache)
            out.append(predicted)
        return torch.cat(out, dim=1)

    def rollout_candidates(self, context: Tensor, past: Tensor, actions: Tensor) -> Tensor:
        """Rollouts of S candidate action sequences from one context each.

        The cache of the context's steps before the last is computed once and shared.

        Args:
            context: ``[B, T, N, D]``. past: ``[B, T - 1, A]``. actions: ``[B, S, H, A]``.

        Returns:
            ``[B, S, H, N, D]``.
        """
        B, S, H, _ = actions.shape
        cache: Cache | None = None
        if context.shape[1] > 1:
            _, cache = self.extend(context[:, :-1], past, None)
            cache = [
                (k.repeat_interleave(S, dim=0), v.repeat_interleave(S, dim=0)) for k, v in cache
            ]
        latent = context[:, -1:].repeat_interleave(S, dim=0)
        acts = actions.flatten(0, 1)
        out = []
        for h in range(H):
            latent, cache = self.extend(latent, acts[:, h : h + 1], cache)
            out.append(latent)
        return torch.cat(out, dim=1).unflatten(0, (B, S))

    def extend(self, latents: Tensor, actions: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Predict for T new steps that follow the cached ones.

        Args:
            latents: ``[B, T, N, D]``. actions: ``[B, T, A]``.
            cache: per block the keys and values ``[B, M, h, d]`` of earlier steps, or None.

        Returns:
            predictions ``[B, T, N, D]`` and the cache with the new steps appended.
        """
        B, T, N, _ = latents.shape
        if self.tokens != N or tuple(actions.shape) != (B, T, self.action_dim):
            raise ConfigError(
                f"latents {tuple(latents.shape)} and actions {tuple(actions.shape)} do not fit a "
                f"predictor of {self.tokens} tokens and action width {self.action_dim}"
            )
        per_step = N + (self.config.conditioning == "tokens")
        past = 0 if cache is None else cache[0][0].shape[1] // per_step
        x = self.embed(latents) + self.place
        condition = self.act(actions)  # [B, T, width]
        if self.config.conditioning == "tokens":
            x = torch.cat([condition.unsqueeze(2), x], dim=2)
        x = x.flatten(1, 2)
        rotation = self._rotation(past, T, x.device)
        mask = block_causal_mask(past, T, per_step, x.device) if T > 1 else None
        new: Cache = []
        for i, block in enumerate(self.blocks):
            old = None if cache is None else cache[i]
            x, kv = _step(block, x, condition, rotation, mask, old, per_step)
            new.append(kv)
        x = self.head(self.norm(x)).unflatten(1, (T, per_step))[:, :, per_step - N :]
        return (latents + x if self.config.residual else x), new

    def _rotation(self, past: int, steps: int, device: torch.device) -> Rotation:
        """Rotary positions of the new steps; an action token sits at the step's first token."""
        head = self.config.width // self.config.heads
        table = rope_table(Grid(past + steps, *self.grid), head, device)
        N = self.tokens
        ids = torch.arange(past * N, (past + steps) * N, device=device).view(steps, N)
        if self.config.conditioning == "tokens":
            ids = torch.cat([ids[:, :1], ids], dim=1)
        return table.select(ids.flatten())


def block_causal_mask(past: int, steps: int, tokens: int, device: torch.device) -> Tensor:
    """Bool ``[steps * tokens, (past + steps) * tokens]``, True where attention is allowed.

    A token sees all tokens of its own step and of every earlier one.
    """
    q = torch.arange(past, past + steps, device=device).repeat_interleave(tokens)
    k = torch.arange(past + steps, device=device).repeat_interleave(tokens)
    return q[:, None] >= k[None, :]


def _step(
    block: nn.Module,
    x: Tensor,
    condition: Tensor,
    rotation: Rotation,
    mask: Tensor | None,
    old: tuple[Tensor, Tensor] | None,
    per_step: int,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One block over new tokens ``x [B, T * n, D]`` with cached keys and values prepended."""
    assert isinstance(block, Block)
    ada = isinstance(block, AdaBlock)
    if ada:
        m = block.modulation(F.silu(condition)).repeat_interleave(per_step, dim=1)
        shift1, scale1, gate1, shift2, scale2, gate2 = m.chunk(6, dim=-1)
        y = block.norm1(x) * (1 + scale1) + shift1
    else:
        y = block.norm1(x)
    q, k, v = block.attn.project(y, rotation)
    if old is not None:
        k, v = torch.cat([old[0], k], dim=1), torch.cat([old[1], v], dim=1)
    y = block.attn.attend(q, k, v, mask)
    x = x + (gate1 * y if ada else y)
    y = block.norm2(x)
    y = block.mlp(y * (1 + scale2) + shift2 if ada else y)
    return x + (gate2 * y if ada else y), (k, v)
