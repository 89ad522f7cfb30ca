"""Token positions on a (T, H, W) grid: 3-D rotary tables and fixed sin-cos embeddings.

Token ids are time-major: ``id = (t * H + h) * W + w``. Tables are computed once per grid and
gathered by id, so that masked encoders and predictors share them across layers.

The family's members differ here more than anywhere else; :class:`PositionConfig` says how.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import ConfigError


class Grid(NamedTuple):
    """Tokens along time, height and width."""

    t: int
    h: int
    w: int

    @property
    def size(self) -> int:
        return self.t * self.h * self.w


@dataclass(frozen=True, kw_only=True)
class PositionConfig:
    """How tokens learn where they are.

    V-JEPA 2.1: the defaults with ``span = 16``. V-JEPA 2 and 2-AC: ``pairs = "tiled"``. V-JEPA 1:
    ``kind = "sincos"``. I-JEPA: ``kind = "sincos"``, ``axes = "wh"``.
    """

    kind: Literal["rope", "sincos"] = "rope"
    """Rotary positions (V-JEPA 2) or fixed sin-cos added to the tokens (V-JEPA 1, I-JEPA)."""
    pairs: Literal["interleaved", "tiled"] = "interleaved"
    """Rope: which angle turns channel j of an axis with d channels. Adjacent channels are a pair in
    both. "interleaved" gives both the angle j // 2, a rotation (V-JEPA 2.1); "tiled" gives each the
    angle j mod d / 2, which is not one, and is what the released V-JEPA 2 weights were trained
    with."""
    span: int = 0
    """Rope: rescale rows and columns so that the last is at span - 1 whatever the resolution
    (V-JEPA 2.1: 16). 0 keeps token indices."""
    axes: Literal["thw", "thw_uneven", "hw", "wh"] = "thw"
    """Sincos: which axes, in what order, share the channels. "thw" evenly; "thw_uneven" one half
    for time and a quarter each for rows and columns; "hw", "wh" images (I-JEPA: "wh")."""
    native: tuple[int, ...] = ()
    """Sincos: the grid (t, h, w) that a model was trained on; the table of another grid is then
    interpolated from it, as published. Empty computes the table for the grid at hand."""

    def __post_init__(self) -> None:
        if self.span < 0 or self.span == 1:
            raise ConfigError(f"position.span = {self.span}: must be 0 (off) or at least 2")
        if self.native and (len(self.native) != 3 or min(self.native) < 1):
            raise ConfigError(
                f"position.native = {self.native}: empty, or three positive numbers (t, h, w)"
            )


SINCOS = PositionConfig(kind="sincos")
"""V-JEPA 1's positions."""


class Rotation:
    """Rotary positions for one set of tokens: turns adjacent channel pairs of queries and keys.

    Args:
        cos, sin: float32 ``[N, d]``, or ``[B, N, 1, 1, d]`` for tokens that differ by sample; the
            cosine of each channel's own angle, and its sine with the sign of its partner's share
            (minus on even channels).
        paired: whether the channels of each pair share an angle; None: see.
    """

    def __init__(self, cos: Tensor, sin: Tensor, paired: bool | None = None):
        self.cos, self.sin = cos, sin
        self.paired = torch.equal(cos[..., ::2], cos[..., 1::2]) if paired is None else paired

    @cached_property
    def turn(self) -> Tensor:
        """``cos + i sin`` of the even channels, complex64 ``[..., d / 2]``."""
        return torch.complex(self.cos[..., ::2].contiguous(), -self.sin[..., ::2])

    def __call__(self, x: Tensor) -> Tensor:
        """Turn ``x [B, N, ..., h, d]`` with as many axes as ``cos`` after selection, keeping its
        dtype: ``x * cos + partner(x) * sin``."""
        partner = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        return (x * self.cos + partner * self.sin).to(x.dtype)

    def turn_(self, x: Tensor) -> None:
        """Turn ``x`` in place, outside of autograd, and faster: pairs are complex numbers.

        With ``paired`` a complex product turns them, to the last rounding the same. Otherwise the
        partner comes from ``i conj(z)``, which is exact: imported V-JEPA 2 keeps its bits.
        """
        if x.device.type not in ("cpu", "cuda"):
            x.copy_(self(x))
        elif self.paired and x.dtype in (torch.bfloat16, torch.float16):
            exact = x.float()
            as_complex(exact).mul_(self.turn)
            x.copy_(exact)
        elif x.dtype != torch.float32:
            x.copy_(self(x))
        elif self.paired:
            as_complex(x).mul_(self.turn)
        else:
            partner = torch.view_as_real(as_complex(x).conj() * 1j).flatten(-2)
            x.mul_(self.cos).add_(partner.mul_(self.sin))

    @cached_property
    def back(self) -> Rotation:
        """The inverse, if ``paired``."""
        return Rotation(self.cos, -self.sin, self.paired)

    def select(self, ids: Tensor) -> Rotation:
        """The rotations of tokens ``ids`` int64 ``[B, K]`` or ``[K]``, for ``[B, K, 2, h, d]``."""
        cos, sin = self.cos[ids][..., None, None, :], self.sin[ids][..., None, None, :]
        return Rotation(cos, sin, self.paired)


def as_complex(x: Tensor) -> Tensor:
    """Adjacent pairs along the last axis of float32 ``x [..., d]`` as complex ``[..., d / 2]``."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def rope_axis_width(head_width: int) -> int:
    """Channels of a head that turn with each of the three axes; the rest is left alone."""
    return 2 * ((head_width // 3) // 2)


def check_positions(name: str, position: PositionConfig, width: int, heads: int) -> None:
    """Raise ConfigError unless ``width`` channels in ``heads`` heads can carry ``position``."""
    head = width // heads
    if position.kind == "rope" and (head % 2 or rope_axis_width(head) == 0):
        raise ConfigError(
            f"{name}: width {width} over {heads} heads gives heads of {head} channels; rotary 3-D "
            "positions need an even number of at least 6: use fewer heads or another width"
        )
    step = {"thw": 1, "thw_uneven": 8, "hw": 4, "wh": 4}[position.axes]
    if position.kind == "sincos" and width % step:
        raise ConfigError(
            f"{name}: width {width} must be a multiple of {step} for sin-cos over {position.axes}"
        )


def rotary(
    position: PositionConfig, grid: Grid, head_width: int, device: torch.device, ids: Tensor | None
) -> Rotation | None:
    """The rotation of tokens ``ids`` int64 ``[B, K]`` (None: all), or None without rope."""
    if position.kind != "rope":
        return None
    span = position.span
    scale = tuple((span - 1) / max(1, n - 1) if span else 1.0 for n in (grid.h, grid.w))
    table = rope_table(grid, head_width, device, position.pairs, scale)
    return table.select(torch.arange(grid.size, device=device) if ids is None else ids)


def additive(
    position: PositionConfig, grid: Grid, width: int, device: torch.device, ids: Tensor | None
) -> Tensor | None:
    """What sin-cos positions add to tokens ``ids``: float32 ``[B, K, D]`` (or ``[N, D]``)."""
    if position.kind != "sincos":
        return None
    table = sincos_table(grid, width, device, position.axes, position.native)
    return table if ids is None else table[ids]


@lru_cache(maxsize=64)
def rope_table(
    grid: Grid,
    head_width: int,
    device: torch.device | str = "cpu",
    pairs: str = "interleaved",
    scale: tuple[float, ...] = (1.0, 1.0),
) -> Rotation:
    """3-D rotary table of a grid, ``[N, head_width]``, float32, laid out [t | h | w | rest].

    Angles are ``position * 10000^(-i / (d/2))`` per axis with d channels, in float32 in the order
    of operations of the published models, so that imported weights give the same bits. Positions
    are token indices, rows and columns times ``scale``; ``pairs`` is :class:`PositionConfig`'s.
    """
    with torch.inference_mode(False):  # a cached inference tensor could not be trained through
        return _rope_table(grid, head_width, device, pairs, scale)


def _rope_table(
    grid: Grid, head_width: int, device: torch.device | str, pairs: str, scale: tuple[float, ...]
) -> Rotation:
    width = rope_axis_width(head_width)
    omega = 1.0 / 10000 ** (torch.arange(width // 2, dtype=torch.float32) / (width / 2.0))
    axes = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    parts = []
    for axis, factor in zip(axes, (1.0, *scale), strict=True):
        angle = (axis.reshape(-1, 1) * factor).float() * omega  # [N, width / 2]
        tiled = pairs == "tiled"
        parts.append(angle.repeat(1, 2) if tiled else angle.repeat_interleave(2, dim=1))
    parts.append(torch.zeros(grid.size, head_width - 3 * width))
    angle = torch.cat(parts, dim=1)
    sin = angle.sin()
    sin[:, ::2] *= -1
    return Rotation(angle.cos().to(device), sin.to(device), paired=pairs == "interleaved")


@lru_cache(maxsize=64)
def sincos_table(
    grid: Grid,
    width: int,
    device: torch.device | str = "cpu",
    axes: str = "thw",
    native: tuple[int, ...] = (),
) -> Tensor:
    """Fixed sin-cos embedding ``[N, width]`` of a grid, float32; see :class:`PositionConfig`.

    Each axis with c channels has c / 2 sines, then c / 2 cosines, of ``position * 10000^(-2i/c)``.
    With "thw", c = 2 ceil(width / 6), and the concatenation is cut to ``width``. Another grid than
    ``native`` is interpolated from it: trilinear, or bicubic for images.
    """
    with torch.inference_mode(False):
        if not native or tuple(native) == tuple(grid):
            return _sincos_table(grid, width, axes).to(device)
        table = _sincos_table(Grid(*native), width, axes).T.reshape(1, width, *native)
        if axes in ("hw", "wh"):
            table = F.interpolate(table[:, :, 0], size=grid[1:], mode="bicubic").unsqueeze(2)
        else:
            table = F.interpolate(table, size=tuple(grid), mode="trilinear")
        return table.expand(-1, -1, grid.t, -1, -1).flatten(2)[0].T.contiguous().to(device)


def _sincos_table(grid: Grid, width: int, axes: str) -> Tensor:
    channels = {
        "thw": dict.fromkeys("thw", 2 * -(-width // 6)),
        "thw_uneven": {"t": width // 2, "h": width // 4, "w": width // 4},
        "hw": {"h": width // 2, "w": width // 2},
        "wh": {"w": width // 2, "h": width // 2},
    }[axes]
    place = dict(zip("thw", torch.meshgrid(*map(torch.arange, grid), indexing="ij"), strict=True))
    parts = []
    for axis, c in channels.items():
        omega = 10000.0 ** (-torch.arange(c // 2, dtype=torch.float64) / (c / 2))
        angle = place[axis].reshape(-1, 1).double() * omega
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=1)[:, :width].float()
