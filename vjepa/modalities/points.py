"""Point clouds as tokens: Point-JEPA (arXiv 2404.16432) after Point-BERT's patches.

1024 points -> 64 centres by farthest point sampling -> their 32 nearest points each
patch relative to its centre -> small PointNet -> one token; an MLP of the centre is its place
tokens in the sequencer's order, so that ranges of token numbers are regions of the cloud
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from ...core.rng import torch_generator
from ..masked import Selection
from .point_masks import PointMaskConfig, sample_point_masks
from .sequencer import sequence, squared_distances
from .tokens import Tokenizer, Tokens


@dataclass(frozen=True, kw_only=True)
class PointsConfig:
    """Patches, masks and augmentation of point clouds."""

    points: int = 1024
    """Points that are drawn of a cloud."""
    centres: int = 64
    """Patches, that is tokens."""
    neighbours: int = 32
    """Points of a patch."""
    hidden: tuple[int, int] = (128, 256)
    """Widths of the two layers before a patch's first maximum."""
    place_hidden: int = 128
    """Hidden width of the MLP of a centre."""
    masks: PointMaskConfig = field(default_factory=PointMaskConfig)
    """Which tokens are hidden."""
    rotate: bool = True
    """Turn every cloud by a random angle about the third axis, for context and targets alike."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of a random size, likewise."""

    def __post_init__(self) -> None:
        for name in ("points", "centres", "neighbours", "place_hidden"):
            if getattr(self, name) < 1:
                raise ConfigError(f"points.{name} = {getattr(self, name)}: must be at least 1")
        if min(self.hidden) < 1:
            raise ConfigError(f"points.hidden = {self.hidden}: must be at least 1")
        for name in ("centres", "neighbours"):
            if getattr(self, name) > self.points:
                raise ConfigError(
                    f"points.{name} = {getattr(self, name)} of points.points = {self.points}: a "
                    f"cloud needs at least as many points as {name}; use fewer {name}"
                )
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"points.scale = {self.scale}: needs 0 < low <= high")
        self.masks.check(self.centres)

    def tokenizer(self, width: int) -> PointTokenizer:
        return PointTokenizer(self, width)

    def prepare(self, x: Tensor, *, seed: int, first_sample: int) -> Tensor:
        """``points`` points drawn of each cloud of ``x [B, P, 3]``, turned and scaled."""
        _check(x, self.points, "points.points")
        made = [
            self._augment(cloud, torch_generator(seed, "points", number))
            for number, cloud in enumerate(x, start=first_sample)
        ]
        return torch.stack(made)

    def still(self, x: Tensor) -> Tensor:
        """The first ``points`` of each cloud."""
        _check(x, self.points, "points.points")
        return x[:, : self.points]

    def view(self, x: Tensor, *, seed: int, first_sample: int) -> Tensor:
        """The clouds themselves: context and targets share their tokens."""
        return x

    def draw(self, x: Tensor, *, seed: int, step: int, first_sample: int) -> list[Selection]:
        """One context and its targets, of the same token numbers for the whole batch."""
        context, targets = sample_point_masks(self.masks, self.centres, seed=seed, step=step)
        batch = len(x)
        return [
            Selection(context.expand(batch, -1), tuple(ids.expand(batch, -1) for ids in targets), 0)
        ]

    def _augment(self, cloud: Tensor, generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(len(cloud), generator=generator)[: self.points]
        low, high = self.scale
        turn, size = torch.rand(2, generator=generator).tolist()
        cloud = cloud[chosen.to(cloud.device)] * (low + (high - low) * size)
        if not self.rotate:
            return cloud
        angle = torch.tensor(2 * torch.pi * turn)
        c, s = angle.cos().item(), angle.sin().item()
        return cloud @ cloud.new_tensor([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])


@torch.no_grad()
def farthest_points(points: Tensor, count: int) -> Tensor:
    """Ids int64 ``[B, count]`` of points ``[B, P, 3]``, each the farthest from those before it.

    Begins with point 0; ties go to the lower number. Raises ConfigError for more than there are.
    """
    _check(points, count, "centres")
    rows = torch.arange(len(points), device=points.device)
    nearest = torch.full(points.shape[:2], torch.inf, dtype=points.dtype, device=points.device)
    current = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    chosen = [current]
    for _ in range(count - 1):
        gap = (points - points[rows, current].unsqueeze(1)).square().sum(dim=-1)
        nearest = torch.minimum(nearest, gap)
        nearest[rows, current] = -1.0  # never twice, also where points coincide
        current = nearest.argmax(dim=1)
        chosen.append(current)
    return torch.stack(chosen, dim=1)


@torch.no_grad()
def nearest_points(points: Tensor, centres: Tensor, count: int) -> Tensor:
    """Ids int64 ``[B, C, count]`` of the points ``[B, P, 3]`` nearest to ``centres [B, C, 3]``.

    Raises ConfigError for more than there are.
    """
    _check(points, count, "neighbours")
    return squared_distances(centres, points).topk(count, dim=-1, largest=False).indices


class PointTokenizer(Tokenizer):
    """Clouds ``[B, P, 3]`` to tokens of patches in the sequencer's order; places are centres."""

    def __init__(self, config: PointsConfig, width: int):
        super().__init__()
        self.config, self.count = config, config.centres
        first, second = config.hidden
        self.local = nn.Sequential(
            nn.Linear(3, first), nn.BatchNorm1d(first), nn.ReLU(), nn.Linear(first, second)
        )
        self.joint = nn.Sequential(
            nn.Linear(2 * second, 2 * second),
            nn.BatchNorm1d(2 * second),
            nn.ReLU(),
            nn.Linear(2 * second, width),
        )

    def patches(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Patches ``[B, C, k, 3]`` relative to their centres ``[B, C, 3]``, in order."""
        centres = _pick(points, farthest_points(points, self.config.centres))
        centres = _pick(centres, sequence(centres))
        near = nearest_points(points, centres, self.config.neighbours)
        around = _pick(points, near.flatten(1)).unflatten(1, near.shape[1:])
        return around - centres.unsqueeze(2), centres

    def forward(self, x: Tensor) -> Tokens:
        patches, centres = self.patches(x)
        shape = patches.shape[:3]
        each = self.local(patches.reshape(-1, 3)).unflatten(0, (-1, shape[2]))
        whole = each.amax(dim=1, keepdim=True).expand_as(each)
        both = torch.cat([whole, each], dim=-1).flatten(0, 1)
        tokens = self.joint(both).unflatten(0, shape).amax(dim=2)
        return Tokens(tokens, centres)

    def place_embedding(self, width: int) -> nn.Module:
        hidden = self.config.place_hidden
        return nn.Sequential(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, width))


def _pick(points: Tensor, ids: Tensor) -> Tensor:
    return points.gather(1, ids.unsqueeze(-1).expand(-1, -1, points.shape[-1]))


def _check(points: Tensor, least: int, field_name: str) -> None:
    if points.ndim != 3 or points.shape[-1] != 3:
        raise ConfigError(f"point clouds {list(points.shape)}: must be [B, P, 3]")
    if points.shape[1] < least:
        raise ConfigError(
            f"{field_name} = {least}, but the clouds have {points.shape[1]} points: use fewer "
            f"{field_name} or larger clouds"
        )
