"""The tubelet encoder: a vision transformer over space-time patches of video.

One class is every member of the family; its config says which (:mod:`tubelet.vjepa.family` names
the published ones).

>>> encoder = TubeletEncoder(EncoderConfig(width=96, depth=2, heads=3, patch=8))
>>> encoder(torch.zeros(1, 4, 64, 64, 3, dtype=torch.uint8)).shape    # grid 2 x 8 x 8
torch.Size([1, 128, 96])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ConfigError
from .blocks import Block, Sets, init_weights
from .positions import Grid, PositionConfig, Rotation, additive, check_positions, rotary


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Architecture of the tubelet encoder: I-JEPA (arXiv 2301.08243), V-JEPA (2404.08471), V-JEPA 2
    (2506.09985), V-JEPA 2.1 (2603.14482)."""

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
    """Length of a tubelet in frames; 1 for an image model."""
    position: PositionConfig = field(default_factory=PositionConfig)
    """How tokens learn where they are."""
    levels: tuple[int, ...] = ()
    """Numbers (from 1) of the blocks whose tokens are normed and given out, the last block among
    them (V-JEPA 2.1); empty: only the last."""
    image_patches: bool = False
    """A tokenizer of its own for clips of one frame (V-JEPA 2.1)."""
    modality: bool = False
    """Add a learned vector that tells video from images (V-JEPA 2.1)."""
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
        if self.levels and (
            list(self.levels) != sorted(set(self.levels))
            or self.levels[0] < 1
            or self.levels[-1] != self.depth
        ):
            raise ConfigError(
                f"encoder.levels = {self.levels}: must rise, from 1 on, to the depth {self.depth}"
            )
        check_positions("encoder", self.position, self.width, self.heads)

    def grid(self, frames: int, height: int, width: int) -> Grid:
        """The token grid of a clip. Raises ConfigError naming the nearest valid size."""
        tubelet = 1 if self.image_patches and frames == 1 else self.tubelet
        sizes = {"frames": (frames, tubelet), "height": (height, self.patch)}
        sizes["width"] = (width, self.patch)
        for name, (size, step) in sizes.items():
            if size < step or size % step:
                raise ConfigError(
                    f"clip {name} = {size} is not a positive multiple of the tubelet's {step}; "
                    f"the nearest valid {name}: {max(step, step * round(size / step))}"
                )
        return Grid(frames // tubelet, height // self.patch, width // self.patch)


class TubeletEncoder(nn.Module):
    """Video to tokens, on the kept tubelets only. Any clip size that the tubelet divides."""

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, config: EncoderConfig):
        super().__init__()
        c = self.config = config
        self.patch_embed = _tokenizer(c.width, (c.tubelet, c.patch, c.patch))
        if c.image_patches:
            self.image_embed = _tokenizer(c.width, (1, c.patch, c.patch))
        self.blocks = nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio) for _ in range(c.depth))
        if c.levels:
            self.norms = nn.ModuleList(nn.LayerNorm(c.width, eps=1e-6) for _ in c.levels)
        else:
            self.norm = nn.LayerNorm(c.width, eps=1e-6)
        init_weights(self, self.blocks)
        if c.modality:
            self.video_mark = nn.Parameter(1e-6 * torch.randn(c.width))
            self.image_mark = nn.Parameter(1e-6 * torch.randn(c.width))
        # (x / 255 - mean) / std as one multiply-add: pixels stay uint8 until they are here.
        mean, std = torch.tensor(c.pixel_mean), torch.tensor(c.pixel_std)
        self.register_buffer("pixel_scale", 1 / (255 * std), persistent=False)
        self.register_buffer("pixel_shift", -mean / std, persistent=False)

    def forward(
        self,
        video: Tensor,
        keep: Tensor | None = None,
        *,
        all_levels: bool = False,
        normalised: bool = False,
    ) -> Tensor:
        """Encode ``video``.

        Args:
            video: uint8 ``[B, T, H, W, 3]``, 0..255; with ``normalised`` floating, as it is after
                the published preprocessing (then all tokens come from the published convolution,
                bit for bit).
            keep: int64 ``[B, K]`` token ids to encode, or None for all N = T' H' W'.
            all_levels: give out every level, side by side.

        Returns:
            ``[B, K, D]`` (or ``[B, N, D]``) tokens, layer-normed, in the order of ``keep``;
            ``[B, K, levels * D]`` with ``all_levels``.

        Raises:
            ConfigError: a size that the tubelet does not divide, naming the nearest valid one;
                another type or shape.
        """
        grid = self.grid(video, normalised)
        if _one_by_one(video, grid.size if keep is None else keep.shape[1]):
            clips = video.split(1), [None] * len(video) if keep is None else keep.split(1)
            options = {"all_levels": all_levels, "normalised": normalised}
            return torch.cat([self(*clip, **options) for clip in zip(*clips, strict=True)])
        x = self._embed_all(video, grid) if keep is None else self._embed_kept(video, grid, keep)
        x, rotation = self._place(x, grid, keep)
        return self._blocks(x, rotation, None, all_levels)

    def packed(
        self,
        video: Tensor,
        keeps: Sequence[Tensor],
        samples: Sequence[int | None] | None = None,
        *,
        all_levels: bool = False,
    ) -> list[Tensor]:
        """Encode several selections of the same clips in one pass; as ``forward(video, keep)`` for
        each of ``keeps``, int64 ``[B, K_i]``, with whatever works token by token done once.

        A selection whose entry in ``samples`` is a number is of that clip alone, ``[1, K_i]``.
        """
        grid = self.grid(video)
        parts = self._embed_selections(video, grid, keeps, samples or [None] * len(keeps))
        placed = [self._place(x, grid, keep) for x, keep in zip(parts, keeps, strict=True)]
        x = torch.cat([x.flatten(0, 1) for x, _ in placed]).unsqueeze(0)
        rotation = pack_rotations([rotation for _, rotation in placed])
        sets = [(keep.shape[0], keep.shape[1]) for keep in keeps]
        x = self._blocks(x, rotation, sets, all_levels)[0]
        out = x.split([samples * tokens for samples, tokens in sets])
        return [part.unflatten(0, shape) for part, shape in zip(out, sets, strict=True)]

    def grid(self, video: Tensor, normalised: bool = False) -> Grid:
        """The token grid of ``video``. Raises ConfigError for another type, shape or size."""
        right = video.is_floating_point() if normalised else video.dtype == torch.uint8
        if not right or video.ndim != 5 or video.shape[-1] != 3:
            wanted = "floating (normalised = True)" if normalised else "uint8"
            raise ConfigError(
                f"video must be {wanted} [B, T, H, W, 3], got {video.dtype} {list(video.shape)}"
            )
        return self.config.grid(*video.shape[1:4])

    def embedding(self, video: Tensor) -> nn.Conv3d:
        """The tokenizer for ``video``: of images for one frame, where there is one."""
        return self.image_embed if self._is_image(video) else self.patch_embed

    def _is_image(self, video: Tensor) -> bool:
        return self.config.image_patches and video.shape[1] == 1

    def _embed_all(self, video: Tensor, grid: Grid) -> Tensor:
        """Tokens ``[B, N, D]`` of whole clips; normalised ones by the published convolution."""
        if video.dtype == torch.uint8:
            x = self._linear(self.embedding(video), self.patchify(video, grid))
        else:
            x = self.embedding(video)(video.movedim(-1, 1).contiguous()).flatten(2).transpose(1, 2)
        return x + self._mark(video) if self.config.modality else x

    def _embed_kept(self, video: Tensor, grid: Grid, keep: Tensor) -> Tensor:
        """Tokens ``[B, K, D]`` of the kept tubelets only."""
        patches = self.patchify(video, grid)
        patches = patches.gather(1, keep.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        x = self._linear(self.embedding(video), patches)
        return x + self._mark(video) if self.config.modality else x

    def _embed_selections(
        self, video: Tensor, grid: Grid, keeps: Sequence[Tensor], samples: Sequence[int | None]
    ) -> Sequence[Tensor]:
        """Tokens ``[B, K_i, D]`` of each selection."""
        if all(sample is None for sample in samples):
            embedded = self._embed_kept(video, grid, torch.cat(list(keeps), dim=1))
            return embedded.split([keep.shape[1] for keep in keeps], dim=1)
        pairs = zip(samples, keeps, strict=True)
        return [
            self._embed_kept(video if n is None else video[n : n + 1], grid, keep)
            for n, keep in pairs
        ]

    def _mark(self, video: Tensor) -> Tensor:
        return self.image_mark if video.shape[1] == 1 else self.video_mark

    def patchify(self, video: Tensor, grid: Grid) -> Tensor:
        """Cut ``[B, T, H, W, 3]`` into flattened tubelets ``[B, N, frames * patch² * 3]``."""
        x = video.unflatten(3, (grid.w, -1)).unflatten(2, (grid.h, -1)).unflatten(1, (grid.t, -1))
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4).flatten(1, 3)  # [B, t h w, dt dh dw 3]

    def _linear(self, conv: nn.Conv3d, patches: Tensor) -> Tensor:
        """Linear embedding of flattened tubelets; the same function as the convolution."""
        x = patches.to(conv.weight.dtype)
        if patches.dtype == torch.uint8:
            x = torch.addcmul(self.pixel_shift, x.unflatten(-1, (-1, 3)), self.pixel_scale)
            x = x.flatten(-2)
        weight = conv.weight.permute(0, 2, 3, 4, 1).flatten(1)  # [D, dt*dh*dw*3]
        return F.linear(x, weight, conv.bias)

    def _place(self, x: Tensor, grid: Grid, keep: Tensor | None) -> tuple[Tensor, Rotation | None]:
        """``x`` with added positions, and the rotation of its tokens (one of the two changes)."""
        c = self.config
        table = additive(c.position, grid, c.width, x.device, keep)
        rotation = rotary(c.position, grid, c.width // c.heads, x.device, keep)
        return (x if table is None else x + table.to(x.dtype)), rotation

    def _blocks(
        self, x: Tensor, rotation: Rotation | None, sets: Sets | None, all_levels: bool
    ) -> Tensor:
        levels = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, rotation, sets=sets)
            if all_levels and number in self.config.levels:
                levels.append(self.norms[len(levels)](x))
        if levels:
            return torch.cat(levels, dim=-1)
        return (self.norms[-1] if self.config.levels else self.norm)(x)


def _tokenizer(width: int, tubelet: tuple[int, int, int]) -> nn.Conv3d:
    return nn.Conv3d(3, width, kernel_size=tubelet, stride=tubelet)


def _one_by_one(video: Tensor, tokens: int) -> bool:
    """Whether to encode clips in turn: for inference on a CPU, where a long clip keeps the cores
    busy by itself and the activations of one stay in cache, and in memory that is used again."""
    return (
        video.device.type == "cpu"
        and len(video) > 1
        and tokens >= 512
        and not torch.is_grad_enabled()
    )


def pack_rotations(rotations: Sequence[Rotation | None]) -> Rotation | None:
    """One rotation for the packed sequence of several token sets; see :mod:`.blocks`."""
    some = [r for r in rotations if r is not None]
    if not some:
        return None
    cos, sin = (
        torch.cat([getattr(r, name).flatten(0, 1) for r in some]).unsqueeze(0)
        for name in ("cos", "sin")
    )
    return Rotation(cos, sin, all(r.paired for r in some))
