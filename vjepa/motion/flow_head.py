"""The flow head: from the coarsest level to the finest, each correcting the flow of the one before.

PWC-Net's way (arXiv 1709.02371): warp the second frame's features by the flow so far, compare them
with the first frame's in a cost volume, and let a few convolutions read off what is missing. As in
MC-JEPA a layer norm follows each convolution, and the flow is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import ConfigError
from .cost_volume import cost_volume
from .pyramid import ChannelNorm
from .warp import resize_flow, warp


@dataclass(frozen=True, kw_only=True)
class FlowHeadConfig:
    """Size and reach of the flow head."""

    width: int = 32
    """Channels of its convolutions."""
    depth: int = 2
    """Convolutions of each level, besides the one that gives out the flow."""
    radius: int = 3
    """Displacements that a cost volume compares, in pixels of its level, either way."""
    finest: int = 1
    """The finest level with a flow, from 0 on: of 1, the default, a quarter of the image's side, as
    in PWC-Net. Its flow is scaled up; 0 is finer and costs four times as much."""
    limit: float = 0.5
    """The longest flow along x and y, in sides of the frame; longer ones are clipped."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "radius"):
            if getattr(self, name) < 1:
                raise ConfigError(f"motion.head.{name} = {getattr(self, name)}: must be at least 1")
        if self.finest < 0:
            raise ConfigError(f"motion.head.finest = {self.finest}: levels count from 0")
        if not 0 < self.limit <= 1:
            raise ConfigError(f"motion.head.limit = {self.limit}: a share of the side, in (0, 1]")


class FlowHead(nn.Module):
    """Features of two frames to the flow between them, at every level from ``config.finest`` on.

    Args:
        widths: channels of all levels, the finest first.
    """

    def __init__(self, config: FlowHeadConfig, widths: tuple[int, ...]):
        super().__init__()
        self.config = config
        self.correct = nn.ModuleList(
            _Correction(config, width) for width in widths[config.finest :]
        )

    def forward(self, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        """Flow ``[B, 2, H_l, W_l]`` of the levels that have one, in their pixels, the finest first.

        Args:
            first, second: features ``[B, C_l, H_l, W_l]`` of both frames, all levels, the finest
            first.
        """
        first, second = first[self.config.finest :], second[self.config.finest :]
        coarsest = first[-1]
        flow = coarsest.new_zeros(len(coarsest), 2, *coarsest.shape[-2:])
        flows: list[Tensor] = []
        for a, b, correct in zip(
            reversed(first), reversed(second), reversed(self.correct), strict=True
        ):
            height, width = a.shape[-2:]
            if flow.shape[-2:] != (height, width):
                flow = resize_flow(flow, height, width)
            flow = clip_flow(flow + correct(a, b, flow), self.config.limit)
            flows.append(flow)
        return flows[::-1]


def clip_flow(flow: Tensor, limit: float) -> Tensor:
    """``flow [B, 2, H, W]`` with x within ``limit`` widths and y within ``limit`` heights."""
    height, width = flow.shape[-2:]
    most = flow.new_tensor([limit * width, limit * height])[:, None, None]
    return torch.maximum(torch.minimum(flow, most), -most)


class _Correction(nn.Module):
    """What one level adds to the flow; nothing before the first step."""

    def __init__(self, config: FlowHeadConfig, width: int):
        super().__init__()
        self.radius = config.radius
        self.reduce = nn.Conv2d(width, config.width, 1)
        channels = (2 * config.radius + 1) ** 2 + config.width + 2
        layers: list[nn.Module] = []
        for _ in range(config.depth):
            layers += [nn.Conv2d(channels, config.width, 3, padding=1)]
            layers += [ChannelNorm(config.width, eps=1e-6), nn.GELU()]
            channels = config.width
        self.read = nn.Sequential(*layers)
        self.out = nn.Conv2d(channels, 2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        """The correction ``[B, 2, H, W]`` of ``flow [B, 2, H, W]``."""
        first, second = _normed(first), _normed(second)
        alike = cost_volume(first, warp(second, flow), self.radius)
        return self.out(self.read(torch.cat([alike, self.reduce(first), flow], dim=1)))


def _normed(x: Tensor) -> Tensor:
    """Zero mean and unit variance over channels, at every place: products are then correlations."""
    return F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)
