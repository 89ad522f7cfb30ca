"""The tubelet encoder: a vision transformer over space-time patches of video.

>>> encoder = TubeletEncoder(EncoderConfig(width=96, depth=2, heads=3, patch=8))
>>> encoder(torch.zeros(1, 4, 64, 64, 3, dtype=torch.uint8)).shape    # grid 2 x 8 x 8
torch.Size([1, 128, 96])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ConfigError
from .blocks import Block, init_weights
from .positions import Grid, check_rope, rope_table, sincos_table


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Architecture of the tubelet encoder (V-JEPA, arXiv 2404.08471; V-JEPA 2, 2506.09985)."""

    width: int = 192
    """Token width D."""
    depth: int = 12
    """Transformer blocks."""
    heads: int = 3
    """Attention heads; must divide the width."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over D."""
    patch: int = 16
    """Side of a tubelet in pixels."""
    tubelet: int = 2
    """Length of a tubelet in frames."""
    position: Literal["rope", "sincos"] = "rope"
    """Rotary 3-D positions (V-JEPA 2) or fixed sin-cos added to the tokens (V-JEPA 1)."""
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Per-channel mean of pixels in [0, 1] (ImageNet's, as in the V-JEPA family)."""
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per-channel standard deviation of pixels in [0, 1]."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "patch", "tubelet"):
            if getattr(self, name) < 1:
                raise ConfigError(f"encoder.{name} = {getattr(self, name)}: must be at least 1")
        if self.width % self.heads:
            near = self.heads * max(1, round(self.width / self.heads))
            raise ConfigError(
                f"encoder.width = {self.width} is not divisible by heads = {self.heads}; "
                f"the nearest width that is: {near}"
            )
        if self.position == "rope":
            check_rope("encoder", self.width, self.heads)

    def grid(self, frames: int, height: int, width: int) -> Grid:
        """The token grid of a clip. Raises ConfigError naming the nearest valid size."""
        sizes = {"frames": (frames, self.tubelet), "height": (height, self.patch)}
        sizes["width"] = (width, self.patch)
        for name, (size, step) in sizes.items():
            if size < step or size % step:
                raise ConfigError(
                    f"clip {name} = {size} is not a positive multiple of the tubelet's {step}; "
                    f"the nearest valid {name}: {max(step, step * round(size / step))}"
                )
        return Grid(frames // self.tubelet, height // self.patch, width // self.patch)


class TubeletEncoder(nn.Module):
    """Video to tokens, on the kept tubelets only. Any clip size that the tubelet divides."""

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        c = config
        self.patch_embed = nn.Conv3d(3, c.width, (c.tubelet, c.patch, c.patch))
        self.blocks = nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)
        init_weights(self, self.blocks)
        # (x / 255 - mean) / std as one multiply-add: pixels stay uint8 until they are here.
        mean, std = torch.tensor(c.pixel_mean), torch.tensor(c.pixel_std)
        self.register_buffer("pixel_scale", 1 / (255 * std), persistent=False)
        self.register_buffer("pixel_shift", -mean / std, persistent=False)

    def forward(self, video: Tensor, keep: Tensor | None = None) -> Tensor:
        """Encode ``video``.

        Args:
            video: uint8 ``[B, T, H, W, 3]``, 0..255.
            keep: int64 ``[B, K]`` token ids to encode, or None for all N = T' H' W'.

        Returns:
            ``[B, K, D]`` (or ``[B, N, D]``) tokens, layer-normed, in the order of ``keep``.

        Raises:
            ConfigError: a size that the tubelet does not divide, naming the nearest valid one.
        """
        if video.dtype != torch.uint8 or video.ndim != 5 or video.shape[-1] != 3:
            raise ConfigError(
                f"video must be uint8 [B, T, H, W, 3], got {video.dtype} {tuple(video.shape)}"
            )
        grid = self.config.grid(*video.shape[1:4])
        patches = self.patchify(video, grid)  # uint8 [B, N, t*p*p*3]
        if keep is not None:
            patches = patches.gather(1, keep.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        x = self.embed(patches)
        rotation = None
        if self.config.position == "rope":
            rotation = rope_table(grid, self.config.width // self.config.heads, x.device)
            rotation = rotation if keep is None else rotation.select(keep)
        else:
            table = sincos_table(grid, self.config.width, x.device)
            x = x + (table if keep is None else table[keep])
        for block in self.blocks:
            x = block(x, rotation)
        return self.norm(x)

    def patchify(self, video: Tensor, grid: Grid) -> Tensor:
        """Cut ``[B, T, H, W, 3]`` into flattened tubelets ``[B, N, tubelet * patch² * 3]``."""
        c = self.config
        x = video.unflatten(3, (grid.w, c.patch)).unflatten(2, (grid.h, c.patch))
        x = x.unflatten(1, (grid.t, c.tubelet))  # [B, t, dt, h, dh, w, dw, 3]
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4).flatten(1, 3)

    def embed(self, patches: Tensor) -> Tensor:
        """Linear embedding of flattened uint8 tubelets; the same function as the convolution."""
        x = patches.unflatten(-1, (-1, 3)).to(self.patch_embed.weight.dtype)
        x = torch.addcmul(self.pixel_shift, x, self.pixel_scale).flatten(-2)
        weight = self.patch_embed.weight.permute(0, 2, 3, 4, 1).flatten(1)  # [D, t*p*p*3]
        return F.linear(x, weight, self.patch_embed.bias)
