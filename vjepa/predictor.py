"""The narrow masked predictor: from context tokens to the latents of masked tokens.

One class is the predictor of I-JEPA, V-JEPA 1, 2 and 2.1; its config says which. Unlike the
published ones it is told the token grid, so that any clip size works, square or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.errors import ConfigError
from .blocks import Block, init_weights
from .encoder import pack_rotations
from .positions import Grid, PositionConfig, Rotation, additive, check_positions, rotary


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
    zero_mask_tokens: bool = False
    """Start mask tokens at zero (V-JEPA 2) rather than small and random."""
    position: PositionConfig = field(default_factory=PositionConfig)
    """As in the encoder."""
    levels: int = 1
    """Levels of the encoder that come in and are predicted (V-JEPA 2.1: 4)."""
    target_width: int = 0
    """Width D of a predicted level; 0: as the context's (V-JEPA 2.1 distilled: the teacher's)."""
    context_head: bool = False
    """Predict the context tokens' own targets too (V-JEPA 2.1)."""
    modality: bool = False
    """Add a learned vector that tells video from images (V-JEPA 2.1)."""

    def __post_init__(self) -> None:
        least = min(self.width, self.depth, self.heads, self.mask_tokens, self.levels)
        if least < 1 or self.target_width < 0:
            raise ConfigError(
                f"predictor width = {self.width}, depth = {self.depth}, heads = {self.heads}, "
                f"mask_tokens = {self.mask_tokens}, levels = {self.levels} must be at least 1 and "
                f"target_width = {self.target_width} at least 0"
            )
        if self.width % self.heads:
            near = self.heads * max(1, round(self.width / self.heads))
            raise ConfigError(
                f"predictor.width = {self.width} is not divisible by heads = {self.heads}; "
                f"the nearest width that is: {near}"
            )
        check_positions("predictor", self.position, self.width, self.heads)


class MaskedJob(NamedTuple):
    """What to predict from what, for :meth:`MaskedPredictor.packed`."""

    context: Tensor
    """``[B, K, levels * D]`` encoded context tokens."""
    context_ids: Tensor
    """int64 ``[B, K]``."""
    target_ids: Tensor
    """int64 ``[B, M]``."""
    mask_index: int
    """Which mask token stands in for the targets."""
    places: tuple[Tensor, Tensor] | None = None
    """Position embeddings ``[B, K, W]`` and ``[B, M, W]`` of context and targets, for tokens that
    lie on no grid; they take the place of the config's positions."""


class MaskedPredictor(nn.Module):
    """Predicts ``[B, M, levels * D]`` target tokens from ``[B, K, levels * D]`` context tokens."""

    def __init__(self, config: PredictorConfig, *, latent_dim: int):
        super().__init__()
        c = self.config = config
        if c.levels == 1:
            self.embed: nn.Module = nn.Linear(latent_dim, c.width)
        else:
            fuse = nn.Linear(c.levels * latent_dim, latent_dim)
            self.embed = nn.Sequential(fuse, nn.GELU(), nn.Linear(latent_dim, c.width))
        self.mask_tokens = nn.Parameter(torch.zeros(c.mask_tokens, c.width))
        self.blocks = nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)
        out = c.levels * (c.target_width or latent_dim)
        self.proj = nn.Linear(c.width, out)
        if c.context_head:
            self.context_proj = nn.Linear(c.width, out)
        init_weights(self, self.blocks)
        if not c.zero_mask_tokens:
            nn.init.trunc_normal_(self.mask_tokens, std=0.02)
        if c.modality:
            self.video_mark = nn.Parameter(1e-6 * torch.randn(c.width))
            self.image_mark = nn.Parameter(1e-6 * torch.randn(c.width))

    def forward(
        self,
        context: Tensor,
        context_ids: Tensor,
        target_ids: Tensor,
        grid: Grid,
        mask_index: int,
        *,
        image: bool = False,
    ) -> Tensor:
        """Predict the tokens at ``target_ids``.

        Args:
            context: ``[B, K, levels * D]`` encoded context tokens.
            context_ids: int64 ``[B, K]`` their positions. target_ids: int64 ``[B, M]``.
            grid: token grid that the ids index.
            mask_index: which mask token stands in for the targets (one per mask kind). Released
                V-JEPA 2 weights were trained with one clip length, so that only token 0 ever had a
                gradient, yet their published inference code uses token 1; choose knowingly.
            image: the clip is an image (matters with ``modality`` only).

        Returns:
            ``[B, M, levels * D]`` predicted target tokens, in the order of ``target_ids``.

        Raises:
            ConfigError: no mask token of that index, or ids outside the grid.
        """
        job = MaskedJob(context, context_ids, target_ids, mask_index)
        return self.packed([job], grid, image=image)[0][0]

    def packed(
        self, jobs: Sequence[MaskedJob], grid: Grid, *, image: bool = False
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Several predictions in one pass; as ``forward`` for each of ``jobs``.

        Returns:
            per job the predicted target tokens ``[B, M, levels * D]`` and, with ``context_head``,
            the predicted context tokens ``[B, K, levels * D]`` (else None).
        """
        made = [self._sequence(job, grid, image) for job in jobs]
        sets = [(x.shape[0], x.shape[1]) for x, _, _ in made]
        if len(jobs) == 1:
            x, rotation, packing = made[0][0], made[0][1], None
        else:
            x = torch.cat([x.flatten(0, 1) for x, _, _ in made]).unsqueeze(0)
            rotation, packing = pack_rotations([r for _, r, _ in made]), sets
        for block in self.blocks:
            x = block(x, rotation, sets=packing)
        parts = x.flatten(0, 1).split([samples * tokens for samples, tokens in sets])
        return [
            self._read(part.unflatten(0, shape), order, job.context_ids.shape[1])
            for part, shape, (_, _, order), job in zip(parts, sets, made, jobs, strict=True)
        ]

    def _sequence(
        self, job: MaskedJob, grid: Grid, image: bool
    ) -> tuple[Tensor, Rotation | None, Tensor]:
        """Context and mask tokens sorted by place, their rotation, and where each one went."""
        c = self.config
        if not 0 <= job.mask_index < c.mask_tokens:
            raise ConfigError(
                f"mask_index = {job.mask_index}: there are {c.mask_tokens} mask tokens"
            )
        mask = self.mask_tokens[job.mask_index].expand(*job.target_ids.shape, -1)
        x = torch.cat([self.embed(job.context), mask.to(job.context.dtype)], dim=1)
        if c.modality:
            x = x + (self.image_mark if image else self.video_mark)
        if job.places is not None:  # then order says nothing
            x = x + torch.cat(job.places, dim=1).to(x.dtype)
            return x, None, torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        ids, order = torch.cat([job.context_ids, job.target_ids], dim=1).sort(dim=1)
        if ids.device.type == "cpu" and ids.numel() and int(ids[:, -1].max()) >= grid.size:
            raise ConfigError(f"token id {int(ids.max())} lies outside the grid {tuple(grid)}")
        x = x.gather(1, order.unsqueeze(-1).expand_as(x))
        table = additive(c.position, grid, c.width, x.device, ids)
        rotation = rotary(c.position, grid, c.width // c.heads, x.device, ids)
        return (x if table is None else x + table.to(x.dtype)), rotation, order.argsort(dim=1)

    def _read(self, x: Tensor, place: Tensor, context: int) -> tuple[Tensor, Tensor | None]:
        """Predictions of targets and context from sorted tokens ``x [B, K + M, W]``."""
        x = self.norm(x).gather(1, place.unsqueeze(-1).expand_as(x))
        targets = self.proj(x[:, context:])
        return targets, self.context_proj(x[:, :context]) if self.config.context_head else None
