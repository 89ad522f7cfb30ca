"""The narrow masked predictor of V-JEPA: from context tokens to the latents of masked tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..core.errors import ConfigError
from .blocks import Block, init_weights
from .positions import Grid, check_rope, rope_table, sincos_table


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """Architecture of the masked predictor."""

    width: int = 384
    """Width of the predictor's tokens."""
    depth: int = 12
    """Transformer blocks."""
    heads: int = 12
    """Attention heads; must divide the width."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over the width."""
    mask_tokens: int = 2
    """Learned mask tokens: one per mask kind."""
    position: Literal["rope", "sincos"] = "rope"
    """As in the encoder."""

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.mask_tokens) < 1:
            raise ConfigError("predictor width, depth, heads and mask_tokens must be at least 1")
        if self.width % self.heads:
            near = self.heads * max(1, round(self.width / self.heads))
            raise ConfigError(
                f"predictor.width = {self.width} is not divisible by heads = {self.heads}; "
                f"the nearest width that is: {near}"
            )
        if self.position == "rope":
            check_rope("predictor", self.width, self.heads)


class MaskedPredictor(nn.Module):
    """Predicts ``[B, M, D]`` target tokens from ``[B, K, D]`` context tokens."""

    def __init__(self, config: PredictorConfig, *, latent_dim: int):
        super().__init__()
        c = self.config = config
        self.embed = nn.Linear(latent_dim, c.width)
        self.mask_tokens = nn.Parameter(torch.zeros(c.mask_tokens, c.width))
        self.blocks = nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)
        self.proj = nn.Linear(c.width, latent_dim)
        init_weights(self, self.blocks)
        nn.init.trunc_normal_(self.mask_tokens, std=0.02)

    def forward(
        self, context: Tensor, context_ids: Tensor, target_ids: Tensor, grid: Grid, mask_index: int
    ) -> Tensor:
        """Predict the tokens at ``target_ids``.

        Args:
            context: ``[B, K, D]`` encoded context tokens.
            context_ids: int64 ``[B, K]`` their positions. target_ids: int64 ``[B, M]``.
            grid: token grid that the ids index.
            mask_index: which mask token stands in for the targets (one per mask kind).

        Returns:
            ``[B, M, D]`` predicted target tokens, in the order of ``target_ids``.
        """
        M, c = target_ids.shape[1], self.config
        mask = self.mask_tokens[mask_index].expand(*target_ids.shape, -1)
        x = torch.cat([self.embed(context), mask], dim=1)
        ids = torch.cat([context_ids, target_ids], dim=1)
        rotation = None
        if c.position == "rope":
            rotation = rope_table(grid, c.width // c.heads, x.device).select(ids)
        else:
            x = x + sincos_table(grid, c.width, x.device)[ids]
        for block in self.blocks:
            x = block(x, rotation)
        return self.proj(self.norm(x[:, -M:]))
