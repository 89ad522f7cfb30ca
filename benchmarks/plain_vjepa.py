"""V-JEPA 2's training step written plainly from its published description: the yardstick for speed.

Nothing here is tuned and nothing is wasteful on purpose. It does what the description says, in the
order in which it says it (arXiv 2506.09985 section 2 and appendix A; 2404.08471 section 3): a
convolution embeds the whole clip and the kept tokens are gathered from it; every layer works out
the angles of queries and of keys, axis by axis, from the token ids; the context encoder and the
predictor run once per mask kind; AdamW and the moving average go tensor by tensor. The published
runs also recompute activations in the backward pass to save memory; ``checkpoint`` turns that on.

Weights are taken over from our encoder and predictor, so that both steps are the same function of
the same numbers: the losses must agree.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from ..vjepa.blocks import Block
from ..vjepa.encoder import TubeletEncoder
from ..vjepa.optim import OptimConfig
from ..vjepa.positions import Grid
from ..vjepa.predictor import MaskedPredictor


class MaskIds(NamedTuple):
    """Token ids of one mask kind."""

    context: Tensor
    """int64 ``[B, K]``."""
    target: Tensor
    """int64 ``[B, M]``."""


def rotate_axis(x: Tensor, position: Tensor) -> Tensor:
    """Turn the adjacent channel pairs of ``x [B, h, N, c]`` by ``position [B, N]`` times
    ``10000^(-i / (c / 2))``, i the pair's number (section 2.1 of 2506.09985; RoFormer eq. 34)."""
    pairs = x.shape[-1] // 2
    omega = 10000.0 ** (-torch.arange(pairs, dtype=x.dtype, device=x.device) / pairs)
    angle = (position.unsqueeze(-1) * omega).unsqueeze(1)  # [B, 1, N, c / 2]
    cos, sin = angle.cos(), angle.sin()
    even, odd = x.unflatten(-1, (pairs, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)


def rotate(x: Tensor, ids: Tensor, grid: Grid) -> Tensor:
    """3-D rotary positions of ``x [B, h, N, d]``: a third of the channels, rounded down to an even
    number, for time, rows and columns each; the rest is left alone. ``ids`` int64 ``[B, N]``."""
    width = 2 * ((x.shape[-1] // 3) // 2)
    per_frame = grid.h * grid.w
    time, row, column = ids // per_frame, ids % per_frame // grid.w, ids % grid.w
    t, h, w, rest = x.split([width, width, width, x.shape[-1] - 3 * width], dim=-1)
    turned = [rotate_axis(t, time), rotate_axis(h, row), rotate_axis(w, column)]
    return torch.cat([*turned, rest], dim=-1)


class PlainBlock(nn.Module):
    """Pre-norm transformer block with rotary attention; the weights of ``block``."""

    def __init__(self, block: Block):
        super().__init__()
        block = copy.deepcopy(block)
        self.heads = block.attn.heads
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.qkv, self.proj = block.attn.qkv, block.attn.proj
        self.fc1, self.fc2 = block.mlp.fc1, block.mlp.fc2

    def attention(self, x: Tensor, ids: Tensor, grid: Grid) -> Tensor:
        """Self-attention of ``x [B, N, D]``, its tokens at ``ids``."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, ids, grid), rotate(k, ids, grid)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, ids: Tensor, grid: Grid) -> Tensor:
        x = x + self.attention(self.norm1(x), ids, grid)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class _Layers(nn.Module):
    """A stack of blocks and its final norm."""

    def __init__(self, source: TubeletEncoder | MaskedPredictor, checkpoint: bool):
        super().__init__()
        if source.config.position.kind != "rope" or source.config.position.pairs != "interleaved":
            raise ValueError(f"the plain model has rotary positions, got {source.config.position}")
        self.blocks = nn.ModuleList(PlainBlock(b) for b in source.blocks if isinstance(b, Block))
        self.norm = copy.deepcopy(source.norm)
        self.checkpoint = checkpoint

    def run(self, x: Tensor, ids: Tensor, grid: Grid) -> Tensor:
        for block in self.blocks:
            if self.checkpoint and torch.is_grad_enabled():
                x = recompute(block, x, ids, grid, use_reentrant=False)  # pyright: ignore
            else:
                x = block(x, ids, grid)
        return self.norm(x)


class PlainEncoder(_Layers):
    """Embed the whole clip, gather the kept tokens, encode them."""

    def __init__(self, source: TubeletEncoder, checkpoint: bool = False):
        super().__init__(source, checkpoint)
        self.patch_embed = copy.deepcopy(source.patch_embed)

    def forward(self, pixels: Tensor, grid: Grid, keep: Tensor | None) -> Tensor:
        """Tokens ``[B, K, D]`` of normalised ``pixels [B, 3, T, H, W]``; all without ``keep``."""
        x = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        ids = torch.arange(grid.size, device=x.device).expand(len(x), -1)
        if keep is not None:
            x, ids = x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1])), keep
        return self.run(x, ids, grid)


class PlainPredictor(_Layers):
    """Context tokens and mask tokens in one sequence, sorted by place; the targets' are read."""

    def __init__(self, source: MaskedPredictor, checkpoint: bool = False):
        super().__init__(source, checkpoint)
        self.embed, self.proj = copy.deepcopy(source.embed), copy.deepcopy(source.proj)
        self.mask_tokens = nn.Parameter(source.mask_tokens.detach().clone())

    def forward(self, context: Tensor, masks: MaskIds, grid: Grid, index: int) -> Tensor:
        """Predicted ``[B, M, D]`` of ``masks.target`` from ``context [B, K, D]``."""
        mask = self.mask_tokens[index].expand(*masks.target.shape, -1)
        x = torch.cat([self.embed(context), mask], dim=1)
        ids, order = torch.cat(list(masks), dim=1).sort(dim=1)
        x = x.gather(1, order.unsqueeze(-1).expand_as(x))
        x = self.run(x, ids, grid)
        x = x.gather(1, order.argsort(dim=1).unsqueeze(-1).expand_as(x))
        return self.proj(x[:, masks.context.shape[1] :])


class PlainVJEPA(nn.Module):
    """Context encoder, target encoder (its moving average) and predictor, with these weights."""

    def __init__(
        self, encoder: TubeletEncoder, predictor: MaskedPredictor, checkpoint: bool = False
    ):
        super().__init__()
        c = encoder.config
        if c.levels or c.modality or c.image_patches:
            raise ValueError("the plain model is V-JEPA 2: one level, video only")
        self.encoder = PlainEncoder(encoder, checkpoint)
        self.predictor = PlainPredictor(predictor, checkpoint)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        self.config = c

    def normalise(self, video: Tensor) -> Tensor:
        """uint8 ``[B, T, H, W, 3]`` to normalised ``[B, 3, T, H, W]``, as a loader hands it on."""
        mean, std = torch.tensor(self.config.pixel_mean), torch.tensor(self.config.pixel_std)
        pixels = (video.float() / 255 - mean.to(video.device)) / std.to(video.device)
        return pixels.movedim(-1, 1).contiguous()


def plain_loss(model: PlainVJEPA, video: Tensor, kinds: Sequence[MaskIds]) -> Tensor:
    """Mean over mask kinds of the mean absolute error against layer-normed target tokens."""
    grid, pixels = model.config.grid(*video.shape[1:4]), model.normalise(video)
    with torch.no_grad():
        targets = model.target(pixels, grid, None)
        targets = F.layer_norm(targets, targets.shape[-1:])
    losses = []
    for index, masks in enumerate(kinds):
        context = model.encoder(pixels, grid, masks.context)
        predicted = model.predictor(context, masks, grid, index)
        wanted = targets.gather(1, masks.target.unsqueeze(-1).expand_as(predicted))
        losses.append((predicted.float() - wanted.float()).abs().mean())
    return torch.stack(losses).mean()


def plain_optimizer(model: PlainVJEPA, config: OptimConfig) -> torch.optim.AdamW:
    """PyTorch's AdamW as it comes, with the published groups: vectors are not decayed."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )


def plain_step(
    model: PlainVJEPA,
    optimizer: torch.optim.Optimizer,
    video: Tensor,
    kinds: Sequence[MaskIds],
    momentum: float,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> float:
    """One training step; returns the loss. ``autocast`` is open during the forward passes."""
    with autocast():
        loss = plain_loss(model, video, kinds)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        pairs = zip(model.target.parameters(), model.encoder.parameters(), strict=True)
        for mine, theirs in pairs:
            mine.mul_(momentum).add_((1 - momentum) * theirs)
    return loss.item()
