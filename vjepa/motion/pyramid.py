"""The encoder that both losses share: a small ConvNeXt (arXiv 2201.03545) that gives out every
level.

>>> encoder = PyramidEncoder(PyramidConfig(widths=(8, 16, 24), depths=(1, 1, 1)))
>>> [tuple(level.shape) for level in encoder.levels(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))]
[(1, 8, 16, 16), (1, 16, 8, 8), (1, 24, 4, 4)]
>>> encoder(torch.zeros(1, 2, 32, 32, 3, dtype=torch.uint8)).shape    # grid 2 x 4 x 4
torch.Size([1, 32, 24])
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from ..positions import Grid

LAYER_SCALE = 0.1
"""Of a block's branch at the start. ConvNeXt's 1e-6 is for networks far deeper and longer runs."""


@dataclass(frozen=True, kw_only=True)
class PyramidConfig:
    """Architecture of the pyramid: level l has half the side of the one before it."""

    widths: tuple[int, ...] = (16, 32, 64, 96)
    """Channels of the levels, the finest (half the side of the image) first."""
    depths: tuple[int, ...] = (1, 1, 1, 2)
    """Blocks of each level."""
    kernel: int = 7
    """Side of the blocks' depthwise convolutions; odd."""
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Per-channel mean of pixels in [0, 1] (ImageNet's)."""
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per-channel standard deviation of pixels in [0, 1]."""

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 2:
            raise ConfigError(
                f"motion.encoder.widths = {self.widths}: a pyramid needs two levels or more, of at "
                "least two channels each"
            )
        if len(self.depths) != len(self.widths) or min(self.depths) < 1:
            raise ConfigError(
                f"motion.encoder.depths = {self.depths}: one number of blocks, at least 1, for "
                f"each of the {len(self.widths)} levels of widths = {self.widths}"
            )
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError(f"motion.encoder.kernel = {self.kernel}: must be odd")

    @property
    def width(self) -> int:
        """Width of a token: channels of the coarsest level."""
        return self.widths[-1]

    @property
    def depth(self) -> int:
        """Levels."""
        return len(self.widths)

    @property
    def patch(self) -> int:
        """Side of a token in pixels: what the sides of images must be multiples of."""
        return 2 ** len(self.widths)

    def grid(self, frames: int, height: int, width: int) -> Grid:
        """The token grid of a clip: frames are encoded one by one. Raises ConfigError for a side
        that the pyramid does not divide, naming the nearest that it does."""
        for name, side in (("height", height), ("width", width)):
            if side < self.patch or side % self.patch:
                near = self.patch * max(1, round(side / self.patch))
                raise ConfigError(
                    f"clip {name} = {side}: the {self.depth} levels of motion.encoder.widths halve "
                    f"it to nothing whole; it must be a multiple of {self.patch}, the nearest: "
                    f"{near}"
                )
        if frames < 1:
            raise ConfigError(f"clip frames = {frames}: must be at least 1")
        return Grid(frames, height // self.patch, width // self.patch)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of ``[B, C, H, W]``, at every place by itself."""

    def forward(self, input: Tensor) -> Tensor:
        """``[B, C, H, W]``, the same shape."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class ConvBlock(nn.Module):
    """ConvNeXt's block: depthwise convolution, norm, and an MLP at every place; residual."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.scale = nn.Parameter(torch.full((width,), LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``, the same shape."""
        branch = self.scale * self.mlp(self.norm(self.depthwise(x).movedim(1, -1)))
        return x + branch.movedim(-1, 1)


class PyramidEncoder(nn.Module):
    """Frames to features at every scale, and clips to tokens of the coarsest one."""

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, config: PyramidConfig):
        super().__init__()
        c = self.config = config
        self.stages = nn.ModuleList()
        before = 3
        for level, (width, depth) in enumerate(zip(c.widths, c.depths, strict=True)):
            if level == 0:
                down = [nn.Conv2d(3, width, 3, stride=2, padding=1), ChannelNorm(width, eps=1e-6)]
            else:
                down = [ChannelNorm(before, eps=1e-6), nn.Conv2d(before, width, 2, stride=2)]
            blocks = [ConvBlock(width, c.kernel) for _ in range(depth)]
            self.stages.append(nn.Sequential(*down, *blocks))
            before = width
        self.norm = ChannelNorm(before, eps=1e-6)
        mean, std = torch.tensor(c.pixel_mean), torch.tensor(c.pixel_std)
        self.register_buffer("pixel_scale", 1 / (255 * std), persistent=False)
        self.register_buffer("pixel_shift", -mean / std, persistent=False)

    def forward(self, video: Tensor) -> Tensor:
        """Tokens of clips, frame by frame.

        Args:
            video: uint8 ``[B, T, H, W, 3]``, 0..255.

        Returns:
            ``[B, T * h * w, D]``, layer-normed, in the order (time, row, column); h and w are the
            sides of the coarsest level.

        Raises:
            ConfigError: a side that the pyramid does not divide; another type or shape.
        """
        self.grid(video)
        return (
            self.tokens(self.levels(video.flatten(0, 1)))
            .unflatten(0, video.shape[:2])
            .flatten(1, 2)
        )

    def levels(self, frames: Tensor) -> list[Tensor]:
        """Features of frames uint8 ``[B, H, W, 3]``: ``[B, C_l, H / 2^l, W / 2^l]`` of every level,
        the finest first. Not normed."""
        x = torch.addcmul(self.pixel_shift, frames.to(self.pixel_scale.dtype), self.pixel_scale)
        x = x.movedim(-1, 1)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def tokens(self, levels: list[Tensor]) -> Tensor:
        """``[B, h * w, D]``: the coarsest of :meth:`levels`, normed."""
        return self.norm(levels[-1]).flatten(2).transpose(1, 2)

    def grid(self, video: Tensor, normalised: bool = False) -> Grid:
        """The token grid of ``video``. Raises ConfigError for another type, shape or size."""
        if normalised or video.dtype != torch.uint8 or video.ndim != 5 or video.shape[-1] != 3:
            raise ConfigError(
                f"video must be uint8 [B, T, H, W, 3], got {video.dtype} {list(video.shape)}"
            )
        return self.config.grid(*video.shape[1:4])
