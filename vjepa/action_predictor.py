"""Action-conditioned latent dynamics: a transformer that is causal over time steps.

Step t sees its own N tokens and those of every earlier step, conditioned on the actions taken
there, and predicts the tokens of step t + 1. Rollouts keep the keys and values of past steps.
:mod:`.action_config` says how actions enter; V-JEPA 2-AC (arXiv 2506.09985) is one of the configs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ConfigError
from .action_config import ActionPredictorConfig
from .action_config import vjepa2_ac as vjepa2_ac
from .blocks import Block, init_weights
from .causal import (
    AdaBlock,
    Advance,
    Cache,
    block_causal_mask,
    cached_block,
    repeated,
    stay,
    unroll_state,
)
from .positions import Grid, Rotation, rope_table


class ActionPredictor(nn.Module):
    """Predicts next-step latents ``[B, T, N, D]`` from latents and actions.

    With ``state_dim``, every method wants the states too; with ``use_extrinsics``, the camera's.

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
        rows, columns = self.grid = (grid[0], grid[1])
        self.tokens, self.action_dim = rows * columns, action_dim
        self.latent_dim = latent_dim
        concat = c.conditioning == "concat"
        self.embed = nn.Linear(latent_dim + c.width * concat, c.width)
        self.place = nn.Parameter(0.02 * torch.randn(self.tokens, c.width)) if c.place else None
        self.act: nn.Module = nn.Linear(action_dim, c.width)
        if c.action_encoder == "mlp":
            self.act = nn.Sequential(self.act, nn.SiLU(), nn.Linear(c.width, c.width))
        kind = AdaBlock if c.conditioning == "adaln" else Block
        self.blocks = nn.ModuleList(kind(c.width, c.heads, c.mlp_ratio) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)
        self.head = nn.Linear(c.width, latent_dim)
        if c.state_dim:
            self.state = nn.Linear(c.state_dim, c.width)
        if c.extrinsics_dim:
            self.extrinsics = nn.Linear(c.extrinsics_dim, c.width)
        init_weights(self, self.blocks)
        if c.action_encoder == "mlp":
            for layer in self.act.children():
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()  # normal(0, .02) would whisper: it must be heard
        if c.residual:
            nn.init.zeros_(self.head.weight)
        for block in self.blocks:
            if isinstance(block, AdaBlock):
                # Gates start at one, shifts and scales near zero: a plain block, at first.
                with torch.no_grad():
                    block.modulation.bias.view(6, -1)[[2, 5]] = 1.0

    def forward(
        self,
        latents: Tensor,
        actions: Tensor,
        state: Tensor | None = None,
        extrinsics: Tensor | None = None,
    ) -> Tensor:
        """Teacher-forced prediction.

        Args:
            latents: ``[B, T, N, D]``, the true latents of T consecutive steps.
            actions: ``[B, T, A]``, the action taken after each of them.
            state: ``[B, T, P]``, with ``state_dim``. extrinsics: ``[B, T, E]``, where used.

        Returns:
            ``[B, T, N, D]``: the prediction of step t + 1 at index t.
        """
        return self.extend(latents, actions, None, state, extrinsics)[0]

    def rollout(
        self,
        context: Tensor,
        actions: Tensor,
        *,
        state: Tensor | None = None,
        extrinsics: Tensor | None = None,
        advance: Advance | None = None,
        use_cache: bool = True,
    ) -> Tensor:
        """Imagine the latents that follow under actions.

        Args:
            context: ``[B, T, N, D]`` latents observed so far.
            actions: ``[B, T - 1 + H, A]``: the T - 1 actions between the context's steps, then the
                H actions to imagine.
            state: ``[B, K, P]``, the states of the first K of these steps; ``advance`` makes the
                others. extrinsics: ``[B, K, E]``, likewise; the last stay.
            use_cache: keep keys and values of past steps (False recomputes them; same result).

        Returns:
            ``[B, H, N, D]`` imagined latents.
        """
        T, steps = context.shape[1], actions.shape[1]
        if steps < T:
            raise ConfigError(
                f"{steps} actions for a context of {T} steps: at least {T} are needed"
            )
        state = unroll_state(_or_empty(state, actions), actions, advance, steps)
        extrinsics = unroll_state(_or_empty(extrinsics, actions), actions, stay, steps)
        out: list[Tensor] = []
        latents, cache, done = context, None, 0
        for t in range(T, steps + 1):
            new = slice(done, t)
            predicted, grown = self.extend(
                latents, actions[:, new], cache, state[:, new], extrinsics[:, new]
            )
            out.append(predicted[:, -1:])
            if use_cache:
                latents, cache, done = out[-1], grown, t
            else:
                latents = torch.cat([latents, out[-1]], dim=1)
        return torch.cat(out, dim=1)

    def rollout_candidates(
        self,
        context: Tensor,
        past: Tensor,
        actions: Tensor,
        *,
        state: Tensor | None = None,
        extrinsics: Tensor | None = None,
        advance: Advance | None = None,
        at_once: int | None = None,
    ) -> Tensor:
        """Rollouts of S candidate action sequences from one context each.

        The cache of the context's steps before the last is computed once and shared.

        Args:
            context: ``[B, T, N, D]``. past: ``[B, T - 1, A]``. actions: ``[B, S, H, A]``.
            state: ``[B, T, P]``, from the last of which ``advance`` makes each candidate's own.
            extrinsics: ``[B, T, E]``; the last stay.
            at_once: candidates imagined at a time, which bounds the memory; None: all.

        Returns:
            ``[B, S, H, N, D]``.
        """
        steps = context[:, :, 0]
        state, extrinsics = _or_empty(state, steps), _or_empty(extrinsics, steps)
        cache: Cache | None = None
        if context.shape[1] > 1:
            _, cache = self.extend(context[:, :-1], past, None, state[:, :-1], extrinsics[:, :-1])
        parts = []
        for some in actions.split(at_once or max(1, actions.shape[1]), dim=1):
            S, H = some.shape[1:3]
            acts = some.flatten(0, 1)
            latent, first, camera = (
                x[:, -1:].repeat_interleave(S, dim=0) for x in (context, state, extrinsics)
            )
            states = unroll_state(first, acts, advance, H)
            grown = repeated(cache, S)
            out = []
            for h in range(H):
                now = slice(h, h + 1)
                latent, grown = self.extend(latent, acts[:, now], grown, states[:, now], camera)
                out.append(latent)
            parts.append(torch.cat(out, dim=1).unflatten(0, (-1, S)))
        return torch.cat(parts, dim=1)

    def extend(
        self,
        latents: Tensor,
        actions: Tensor,
        cache: Cache | None,
        state: Tensor | None = None,
        extrinsics: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """Predict for T new steps that follow the cached ones.

        Args:
            latents: ``[B, T, N, D]``. actions: ``[B, T, A]``.
            cache: per block the keys and values ``[B, M, h, d]`` of earlier steps, or None.
            state: ``[B, T, P]``, with ``state_dim``. extrinsics: ``[B, T, E]``, where used.

        Returns:
            predictions ``[B, T, N, D]`` and the cache with the new steps appended.

        Raises:
            ConfigError: shapes that do not fit; a state or extrinsics missing, or not wanted.
        """
        c = self.config
        state, extrinsics = _or_empty(state, actions), _or_empty(extrinsics, actions)
        self._check(latents, actions, state, extrinsics)
        T, N = latents.shape[1:3]
        x, condition = self._embed(latents, actions, state, extrinsics)
        per_step = c.extra_tokens + N
        past = 0 if cache is None else cache[0][0].shape[1] // per_step
        rotation = self._rotation(past, T, x.device)
        mask = block_causal_mask(past, T, per_step, x.device) if T > 1 else None
        new: Cache = []
        for i, block in enumerate(self.blocks):
            old = None if cache is None else cache[i]
            x, kv = cached_block(block, x, rotation, mask, old, condition)
            new.append(kv)
        x = self.head(self.norm(x)).unflatten(1, (T, per_step))[:, :, c.extra_tokens :]
        x = latents + x if c.residual else x
        return (F.layer_norm(x, x.shape[-1:]) if c.normalise else x), new

    def _check(self, latents: Tensor, actions: Tensor, state: Tensor, extrinsics: Tensor) -> None:
        c, (B, T, N, _) = self.config, latents.shape
        if self.tokens != N or tuple(actions.shape) != (B, T, self.action_dim):
            raise ConfigError(
                f"latents {tuple(latents.shape)} and actions {tuple(actions.shape)} do not fit a "
                f"predictor of {self.tokens} tokens and action width {self.action_dim}"
            )
        wanted = {"state": c.state_dim, "extrinsics": c.extrinsics_dim * c.use_extrinsics}
        for (name, width), x in zip(wanted.items(), (state, extrinsics), strict=True):
            if tuple(x.shape) != (B, T, width):
                raise ConfigError(
                    f"{name} of shape {list(x.shape)}: this predictor wants {[B, T, width]}"
                    + ("" if width else " (none)")
                )

    def _embed(
        self, latents: Tensor, actions: Tensor, state: Tensor, extrinsics: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The blocks' tokens ``[B, T * n, width]``, and what modulates them, ``[B, T, width]``."""
        c, dtype = self.config, self.embed.weight.dtype  # whatever the module was cast to
        parts = [self.act(actions.to(dtype))]
        if c.state_dim:
            parts.append(self.state(state.to(dtype)))
        if c.use_extrinsics:
            parts.append(self.extrinsics(extrinsics.to(dtype)))
        condition = torch.stack(parts).sum(dim=0)
        x = latents.to(dtype)
        if c.conditioning == "concat":
            x = torch.cat([x, condition.unsqueeze(2).expand(-1, -1, x.shape[2], -1)], dim=-1)
        x = self.embed(x)
        if self.place is not None:
            x = x + self.place
        if c.conditioning == "tokens":
            x = torch.cat([torch.stack(parts, dim=2), x], dim=2)
        return x.flatten(1, 2), condition if c.conditioning == "adaln" else None

    def _rotation(self, past: int, steps: int, device: torch.device) -> Rotation:
        """Rotary positions of the new steps. Extra tokens sit at row 0, column 0 of their step,
        where the angles of rows and columns are zero: they turn with time alone."""
        c, N = self.config, self.tokens
        grid, scale = Grid(past + steps, *self.grid), c.scale(self.grid)
        table = rope_table(grid, c.width // c.heads, device, c.position.pairs, scale)
        ids = torch.arange(past * N, (past + steps) * N, device=device).view(steps, N)
        ids = torch.cat([ids[:, :1].expand(-1, c.extra_tokens), ids], dim=1)
        return table.select(ids.flatten())


def _or_empty(x: Tensor | None, steps: Tensor) -> Tensor:
    """``x``, or for None a tensor of width 0 with the leading axes of ``steps [B, T, ...]``."""
    return steps.new_zeros(*steps.shape[:2], 0) if x is None else x
