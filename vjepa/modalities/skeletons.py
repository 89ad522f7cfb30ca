"""Skeletons in motion as tokens: S-JEPA (ECCV 2024; no official code).

    sequence [T, J, 3] -> one token for every joint and 4 frames
    90 % hidden, those that move most likelier; the context sees the rest turned, moved and mirrored
    targets come from the whole sequence as it is

The masking by motion follows MAMP (arXiv 2308.07092) in spirit; its scale is ours (see
:func:`motion_masks`). Ranges of the context's view were not available either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from ...core.rng import torch_generator
from ..masked import Selection
from .rigid import RigidConfig, random_rigid
from .tokens import Tokenizer, Tokens


@dataclass(frozen=True, kw_only=True)
class SkeletonsConfig:
    """Tokens, masks and the context's view of skeletons."""

    frames: int = 120
    """T, frames of a sample."""
    joints: int = 25
    """J."""
    segment: int = 4
    """Frames of a token."""
    mask_ratio: float = 0.9
    """Share of the tokens that is hidden."""
    motion_temperature: float = 0.5
    """Of the choice of hidden tokens: near 0 those that move most, far above 1 any."""
    rigid: RigidConfig | None = field(default_factory=RigidConfig)
    """How the context's view is turned, moved and mirrored; none: as the targets'."""

    def __post_init__(self) -> None:
        for name in ("frames", "joints", "segment"):
            if getattr(self, name) < 1:
                raise ConfigError(f"skeletons.{name} = {getattr(self, name)}: must be at least 1")
        if self.frames % self.segment:
            near = self.segment * max(1, round(self.frames / self.segment))
            raise ConfigError(
                f"skeletons.frames = {self.frames} is no multiple of segment = {self.segment}; "
                f"the nearest that is: {near}"
            )
        if not 0 < self.motion_temperature < math.inf:
            raise ConfigError(
                f"skeletons.motion_temperature = {self.motion_temperature}: must be positive"
            )
        if not 0 < self.hidden < self.count:
            raise ConfigError(
                f"skeletons.mask_ratio = {self.mask_ratio} hides {self.hidden} of {self.count} "
                "tokens: some must be hidden and some left"
            )

    @property
    def count(self) -> int:
        """N, tokens of a sample."""
        return self.frames // self.segment * self.joints

    @property
    def hidden(self) -> int:
        """How many of them are hidden."""
        return round(self.mask_ratio * self.count)

    def tokenizer(self, width: int) -> SkeletonTokenizer:
        return SkeletonTokenizer(self, width)

    def prepare(self, x: Tensor, *, seed: int, first_sample: int) -> Tensor:
        """``x [B, T', J, 3]``: T frames of each from a random one on."""
        self._check(x)
        spare = x.shape[1] - self.frames
        if not spare:
            return x
        made = []
        for number, sample in enumerate(x, start=first_sample):
            generator = torch_generator(seed, "frames", number)
            start = int(torch.randint(spare + 1, (1,), generator=generator))
            made.append(sample[start : start + self.frames])
        return torch.stack(made)

    def still(self, x: Tensor) -> Tensor:
        """The T frames in the middle of each."""
        self._check(x)
        start = (x.shape[1] - self.frames) // 2
        return x[:, start : start + self.frames]

    def view(self, x: Tensor, *, seed: int, first_sample: int) -> Tensor:
        """Each sample under a rigid motion of its own."""
        if self.rigid is None:
            return x
        moved = []
        for number, sample in enumerate(x, start=first_sample):
            matrix, shift = random_rigid(self.rigid, torch_generator(seed, "view", number))
            moved.append(sample @ matrix.to(x).T + shift.to(x))
        return torch.stack(moved)

    def draw(self, x: Tensor, *, seed: int, step: int, first_sample: int) -> list[Selection]:
        """Visible and hidden tokens by motion, of each sample for itself."""
        noise = torch.stack(
            [
                torch.rand(self.count, generator=torch_generator(seed, "motion-masks", number))
                for number in range(first_sample, first_sample + len(x))
            ]
        ).to(x.device)
        intensity = motion(x, self.segment)
        hidden, seen = motion_masks(intensity, noise, self.hidden, self.motion_temperature)
        return [Selection(seen, (hidden,), 0)]

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[2:] != (self.joints, 3):
            raise ConfigError(
                f"skeletons {list(x.shape)}: must be [B, T, {self.joints}, 3] "
                f"(skeletons.joints = {self.joints})"
            )
        if x.shape[1] < self.frames:
            raise ConfigError(
                f"skeletons.frames = {self.frames}, but the sequences have {x.shape[1]}: use fewer"
            )


def motion(x: Tensor, segment: int) -> Tensor:
    """How much each token moves: ``[B, N]``, time-major, of sequences ``x [B, T, J, 3]``.

    The mean over a segment's frames of the joint's distance from where it was a frame before (the
    first frame of all counts as still).
    """
    step = torch.zeros_like(x[..., 0])
    step[:, 1:] = (x[:, 1:] - x[:, :-1]).norm(dim=-1)
    return step.unflatten(1, (-1, segment)).mean(dim=2).flatten(1)


def motion_masks(
    intensity: Tensor, noise: Tensor, hidden: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Sorted ids of hidden int64 ``[B, hidden]`` and visible tokens ``[B, N - hidden]``.

    Tokens are drawn without replacement with weights ``exp(m / temperature)``, where m is the
    motion ``intensity [B, N]`` over its mean in the sample (so that fast and slow samples are
    masked alike), by the largest of ``m / temperature`` plus Gumbel noise from ``noise``
    (uniform in [0, 1), ``[B, N]``).
    """
    scaled = intensity / intensity.mean(dim=1, keepdim=True).clamp_min(1e-9) / temperature
    uniform = noise.clamp(1e-7, 1 - 1e-7)
    order = (scaled - (-uniform.log()).log()).argsort(dim=1, descending=True, stable=True)
    return order[:, :hidden].sort(dim=1).values, order[:, hidden:].sort(dim=1).values


class SkeletonTokenizer(Tokenizer):
    """Sequences ``[B, T, J, 3]`` to tokens of joints and segments, time-major; places are (segment,
    joint) numbers, each with a learned vector."""

    def __init__(self, config: SkeletonsConfig, width: int):
        super().__init__()
        self.config, self.count = config, config.count
        self.embed = nn.Linear(3 * config.segment, width)

    def forward(self, x: Tensor) -> Tokens:
        c = self.config
        cut = x.unflatten(1, (-1, c.segment)).transpose(2, 3)  # [B, T / s, J, s, 3]
        ids = torch.arange(self.count, device=x.device)
        places = torch.stack([ids // c.joints, ids % c.joints], dim=-1)
        return Tokens(self.embed(cut.flatten(3).flatten(1, 2)), places.expand(len(x), -1, -1))

    def place_embedding(self, width: int) -> nn.Module:
        return TablePlaces(self.config.frames // self.config.segment, self.config.joints, width)


class TablePlaces(nn.Module):
    """The sum of a learned vector for the segment and one for the joint."""

    def __init__(self, segments: int, joints: int, width: int):
        super().__init__()
        self.segments = nn.Parameter(torch.empty(segments, width))
        self.joints = nn.Parameter(torch.empty(joints, width))
        nn.init.trunc_normal_(self.segments, std=0.02)
        nn.init.trunc_normal_(self.joints, std=0.02)

    def forward(self, places: Tensor) -> Tensor:
        """``[B, N, width]`` of int64 ``places [B, N, 2]``."""
        segment, joint = places.unbind(-1)
        return self.segments[segment] + self.joints[joint]
